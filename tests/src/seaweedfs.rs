//! `SeaweedFS`, all of its servers in one process, with a folder of its own.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::json;

use crate::peers::{self, Endpoint};
use crate::python::{Python, Server, peers_folder};

/// It takes three seconds where nothing else runs.
const START_TIMEOUT: Duration = Duration::from_mins(1);

/// Times that it is started: another program may have taken one of its ports.
const ATTEMPTS: u32 = 3;

/// A running `SeaweedFS`; killed, and its data removed, when dropped or when the process ends.
#[derive(Debug)]
pub struct SeaweedFs {
    endpoint: Endpoint,
    _server: Server,
}

impl SeaweedFs {
    /// The one that all tests of a process share, or `None` and the reason on standard error; see
    /// [`Python::ready_or_skip`].
    pub fn shared_or_skip() -> Option<(&'static Self, Python)> {
        static SHARED: OnceLock<SeaweedFs> = OnceLock::new();
        let python = Python::ready_or_skip()?;
        Some((SHARED.get_or_init(|| Self::start(&python)), python))
    }

    /// Starts one and waits until it answers.
    pub fn start(python: &Python) -> Self {
        for _ in 0..ATTEMPTS {
            if let Some(running) = Self::attempt(python) {
                return running;
            }
        }
        panic!("SeaweedFS does not start; see {}", log().display());
    }

    /// How to reach it.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    fn attempt(python: &Python) -> Option<Self> {
        // Its own removal comes last, after the server's end.
        let folder = peers::folder().keep();
        let endpoint = Endpoint::new("");
        let keys = json!({ "accessKey": endpoint.access_key, "secretKey": endpoint.secret_key });
        let rights = ["Admin", "Read", "Write", "List", "Tagging"];
        let identity = json!({ "name": "t", "credentials": [keys], "actions": rights });
        let config = folder.join("s3.json");
        std::fs::write(&config, json!({ "identities": [identity] }).to_string()).expect("written");
        std::fs::create_dir(folder.join("data")).expect("a folder");

        // Those that are not named it would derive from others by adding 10,000.
        let ports = peers::free_ports::<8>();
        let [master, master_rpc, volume, volume_rpc, filer, filer_rpc, s3, s3_rpc] = ports;
        let flags = [
            "-ip=127.0.0.1".to_owned(),
            "-ip.bind=127.0.0.1".to_owned(),
            format!("-dir={}", folder.join("data").display()),
            format!("-master.port={master}"),
            format!("-master.port.grpc={master_rpc}"),
            "-master.volumeSizeLimitMB=1024".to_owned(),
            "-master.telemetry=false".to_owned(),
            format!("-volume.port={volume}"),
            format!("-volume.port.grpc={volume_rpc}"),
            "-volume.max=20".to_owned(),
            "-filer".to_owned(),
            format!("-filer.port={filer}"),
            format!("-filer.port.grpc={filer_rpc}"),
            format!("-filer.localSocket={}", folder.join("filer.sock").display()),
            "-s3".to_owned(),
            format!("-s3.port={s3}"),
            format!("-s3.port.grpc={s3_rpc}"),
            "-s3.port.iceberg=0".to_owned(),
            "-s3.port.lance=0".to_owned(),
            "-s3.iam=false".to_owned(),
            format!("-s3.config={}", config.display()),
            format!("-s3.localSocket={}", folder.join("s3.sock").display()),
        ];
        // The place of these sockets is fixed.
        let sockets =
            [("master", master_rpc), ("volume", volume_rpc), ("filer", filer_rpc), ("s3", s3_rpc)]
                .map(|(name, port)| {
                    PathBuf::from(format!("/tmp/seaweedfs-{name}-grpc-{port}.sock"))
                });
        let weed = python.program("weed").display().to_string();
        let command = [weed, "-logtostderr=true".to_owned(), "server".to_owned()];
        let command = command.into_iter().chain(flags);
        let mut server = python.serve(&folder, &sockets, &log(), command);
        if !peers::answers(s3, START_TIMEOUT, || server.has_ended()) {
            return None;
        }
        let url = format!("http://127.0.0.1:{s3}");
        Some(Self { endpoint: Endpoint { url, ..endpoint }, _server: server })
    }
}

fn log() -> PathBuf {
    peers_folder().join("seaweedfs.log")
}
