//! What the benchmarks share: the embedded synthetic store, a session with it, and a source file.
//!
//! The store runs in the same process as the client, so that one run measures both and needs
//! nothing installed. Absolute numbers say little across machines; each group therefore holds what
//! it measures beside something else from the same run: a checksum beside the memory it reads,
//! a transfer beside a plain copy of the same bytes.

use std::io::Write;
use std::path::Path;

use brigade::{Credentials, Session, SessionOptions};
use brigade_store::{Backend, Options, Server, synthetic};

/// The bucket that [`store`] makes.
pub const BUCKET: &str = "bench";

/// Starts a store that verifies and discards uploads, and generates downloads.
///
/// # Panics
/// Where no loopback port is to be had.
pub fn store() -> Server {
    let options = Options {
        backend: Backend::Synthetic,
        buckets: vec![BUCKET.to_owned()],
        ..Options::default()
    };
    Server::start(options).expect("a store on loopback")
}

/// A session with `store`.
///
/// # Panics
/// Where the threads cannot be started.
pub async fn session(store: &Server) -> Session {
    let options = SessionOptions {
        endpoint_url: Some(store.endpoint_url()),
        credentials: Credentials::Anonymous,
        ..SessionOptions::default()
    };
    Session::new(options).await.expect("a session")
}

/// Makes a file of `size_bytes` of the store's own pattern at `path`.
///
/// # Panics
/// Where the disk has no room for it.
pub fn make_file(path: &Path, size_bytes: u64) {
    let mut file = std::fs::File::create(path).expect("a file");
    let mut buffer = vec![0; 1 << 20];
    let mut offset = 0;
    while offset < size_bytes {
        let len = usize::try_from(size_bytes - offset).unwrap_or(usize::MAX).min(buffer.len());
        synthetic::fill(offset, &mut buffer[..len]);
        file.write_all(&buffer[..len]).expect("room for the file");
        offset += len as u64;
    }
}
