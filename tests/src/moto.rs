//! moto, a mock of AWS in Python that serves HTTP: it believes every signature and checks no
//! checksum, but keeps what it is told.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use crate::peers::{self, Endpoint};
use crate::python::{Python, Server, peers_folder};

/// It takes two seconds where nothing else runs.
const START_TIMEOUT: Duration = Duration::from_mins(1);

/// Times that it is started: another program may have taken its port.
const ATTEMPTS: u32 = 3;

/// A running moto; killed when dropped or when the process ends.
#[derive(Debug)]
pub struct Moto {
    endpoint: Endpoint,
    _server: Server,
}

impl Moto {
    /// The one that all tests of a process share, or `None` and the reason on standard error; see
    /// [`Python::ready_or_skip`].
    pub fn shared_or_skip() -> Option<(&'static Self, Python)> {
        static SHARED: OnceLock<Moto> = OnceLock::new();
        let python = Python::ready_or_skip()?;
        Some((SHARED.get_or_init(|| Self::start(&python)), python))
    }

    /// Starts one and waits until it answers.
    pub fn start(python: &Python) -> Self {
        for _ in 0..ATTEMPTS {
            let [port] = peers::free_ports();
            let folder = peers::folder().keep();
            let program = python.program("moto_server").display().to_string();
            let command = [program, "--host=127.0.0.1".into(), format!("--port={port}")];
            let mut server = python.serve(&folder, &[], &log(), command);
            if peers::answers(port, START_TIMEOUT, || server.has_ended()) {
                let endpoint = Endpoint::new(format!("http://127.0.0.1:{port}"));
                return Self { endpoint, _server: server };
            }
        }
        panic!("moto does not start; see {}", log().display());
    }

    /// How to reach it.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }
}

fn log() -> PathBuf {
    peers_folder().join("moto.log")
}
