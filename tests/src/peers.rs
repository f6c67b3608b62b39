//! What the tests against stores and clients of other makers have in common: how a store is reached,
//! which sizes are moved, and a transfer's outcome in a few words.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use brigade::integrity::Verified;
use brigade::progress::{self, Emitter, Event, Operation};
use brigade::{
    Cancel, Credentials, DownloadOptions, Object, Report, Session, SessionOptions, Transfer,
    UploadOptions, Verify,
};
use futures::StreamExt as _;
use futures::executor::block_on;
use tempfile::TempDir;

use crate::cli::{ACCESS_KEY, SECRET_KEY};
use crate::files;
use crate::relay::Relay;

/// How a store is reached, by whichever client.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Its address, with the scheme.
    pub url: String,
    /// The key that is used.
    pub access_key: String,
    /// Its secret.
    pub secret_key: String,
    /// The certificate authority to trust, of a store with TLS.
    pub ca_bundle: Option<PathBuf>,
}

impl Endpoint {
    /// A store at `url` that knows the keys of all these tests.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            access_key: ACCESS_KEY.into(),
            secret_key: SECRET_KEY.into(),
            ca_bundle: None,
        }
    }

    /// A session of this engine with it.
    pub fn session(&self) -> Session {
        self.session_with(None)
    }

    /// The same, where transfers are recorded in a folder.
    pub fn session_recording(&self, manifests: &Path) -> Session {
        self.session_with(Some(manifests.to_owned()))
    }

    fn session_with(&self, manifest_folder: Option<PathBuf>) -> Session {
        let options = SessionOptions {
            endpoint_url: Some(self.url.clone()),
            region: Some("us-east-1".into()),
            credentials: Credentials::Static {
                access_key: self.access_key.clone(),
                secret_key: self.secret_key.clone(),
                session_token: None,
            },
            ca_bundle: self.ca_bundle.clone(),
            manifest_folder,
            ..SessionOptions::default()
        };
        block_on(Session::new(options)).expect("a session")
    }
}

/// The sizes at which a transfer changes its shape, for parts of `part_size_bytes`.
pub fn sizes(part_size_bytes: u64) -> [u64; 6] {
    let part = part_size_bytes;
    [0, 1, part - 1, part, part + 1, 10 * part]
}

/// A folder of a test's own.
pub fn folder() -> TempDir {
    tempfile::Builder::new().prefix("brigade-tests-").tempdir().expect("a folder")
}

/// A file of `size_bytes` in `folder`; its content depends on the size, and on `seed`.
pub fn file(folder: &Path, size_bytes: u64, seed: u64) -> PathBuf {
    let path = folder.join(format!("{size_bytes}-{seed}"));
    files::make(&path, size_bytes, seed);
    path
}

/// Downloads `object` to a file and to a writer, requiring proof and the bytes of `source` of both;
/// gives the tier, which must be the same.
pub fn assert_downloads(object: &Object, source: &Path, options: &DownloadOptions) -> Verified {
    let options = DownloadOptions { verify: Verify::Require, ..options.clone() };
    let copy = source.with_extension("copy");
    let to_file = block_on(object.download_file_with(&copy, options.clone()))
        .unwrap_or_else(|error| panic!("to a file: {error}"));
    files::assert_same(source, &copy);
    std::fs::remove_file(&copy).expect("it is there");
    let to_writer = assert_streams(object, source, &options);
    for report in [&to_file, &to_writer] {
        assert!(report.warnings.is_empty(), "{}: {:?}", object.url(), report.warnings);
        assert_eq!(report.retries, 0, "{}", object.url());
    }
    assert_eq!(to_file.verified, to_writer.verified, "{}", object.url());
    to_file.verified
}

/// Stops an upload and then a download in the middle, and goes on with each: what was there is taken
/// over, and the bytes are the same in the end. Where the store cannot list an upload's parts
/// (`lists_parts`), that is said.
pub fn assert_resumes(endpoint: &Endpoint, bucket: &str, part_size_bytes: u64, lists_parts: bool) {
    let folder = folder();
    let source = file(folder.path(), 12 * part_size_bytes, 3);
    let (copy, manifests) = (folder.path().join("copy"), folder.path().join("manifests"));
    let address = endpoint.url.trim_start_matches("http://").parse().expect("an address");
    let relay = Relay::slow_to(address, 24 << 20);
    let session = Endpoint { url: relay.url(), ..endpoint.clone() }.session_recording(&manifests);
    let object = session.bucket(bucket).object("resumed");
    let upload = |events, cancel| {
        let options = UploadOptions {
            part_size_bytes: Some(part_size_bytes),
            concurrency: Some(2),
            events,
            cancel,
            ..UploadOptions::default()
        };
        object.upload_file_with(&source, options)
    };
    let download = |events, cancel| {
        let options =
            DownloadOptions { concurrency: Some(2), events, cancel, ..DownloadOptions::default() };
        object.download_file_with(&copy, options)
    };
    for transfer in [&upload as &dyn Fn(Emitter, Cancel) -> Transfer, &download] {
        let (events, mut told) = progress::channel();
        let cancel = Cancel::default();
        let stopping = async {
            let mut done = 0;
            while let Some(event) = told.next().await {
                done += u32::from(matches!(event, Event::PartDone { .. }));
                if done == 3 {
                    cancel.cancel();
                }
            }
        };
        let stopped = async { futures::join!(transfer(events, cancel.clone()), stopping).0 };
        let error = block_on(stopped).expect_err("it was stopped");
        assert!(error.is_resumable(), "{error}");
        relay.hurry();
        let report = block_on(transfer(Emitter::default(), Cancel::default()))
            .unwrap_or_else(|error| panic!("{error}"));
        assert!(report.resumed_bytes >= 3 * part_size_bytes, "{report:?}");
        assert!(report.verified.is_proof(), "{report:?}");
        let unlisted = report.operation == Operation::Upload && !lists_parts;
        let warned = report.warnings.iter().filter(|said| said.contains("could not be listed"));
        assert_eq!((warned.count(), report.warnings.len()), (unlisted.into(), unlisted.into()));
        relay.slow_down(24 << 20);
    }
    files::assert_same(&source, &copy);
    assert!(std::fs::read_dir(&manifests).expect("a folder").next().is_none());
}

/// Downloads `object` to a writer that fails at the first byte that is not `source`'s.
pub fn assert_streams(object: &Object, source: &Path, options: &DownloadOptions) -> Report {
    let count = Arc::new(AtomicU64::new(0));
    let file = File::open(source).expect("the source");
    let size_bytes = file.metadata().expect("its size").len();
    let writer = SameAs { file, count: Arc::clone(&count), wanted: Vec::new() };
    let report = block_on(object.download_to(writer, "a writer", options.clone()))
        .unwrap_or_else(|error| panic!("to a writer: {error}"));
    assert_eq!((count.load(Ordering::Relaxed), report.bytes), (size_bytes, size_bytes));
    report
}

/// Takes only what is in a file.
struct SameAs {
    file: File,
    count: Arc<AtomicU64>,
    wanted: Vec<u8>,
}

impl Write for SameAs {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.wanted.resize(bytes.len(), 0);
        self.file.read_exact(&mut self.wanted)?;
        let before = self.count.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        if self.wanted == bytes {
            return Ok(bytes.len());
        }
        let same = self.wanted.iter().zip(bytes).take_while(|(a, b)| a == b).count() as u64;
        Err(std::io::Error::other(format!("wrong bytes from byte {} on", before + same)))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Ports of this machine that nobody listens on. Somebody may by the time they are used: whoever
/// uses them tries again then.
pub fn free_ports<const N: usize>() -> [u16; N] {
    // All at once, or the same could be given twice.
    let listeners = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("an address").port())
}

/// Waits until the HTTP server on `port` answers whatever; `false` when it does not in time or
/// `has_ended`.
pub fn answers(port: u16, limit: std::time::Duration, mut has_ended: impl FnMut() -> bool) -> bool {
    let deadline = std::time::Instant::now() + limit;
    while std::time::Instant::now() < deadline && !has_ended() {
        if status_line(port).is_ok_and(|line| line.starts_with("HTTP/1.")) {
            return true;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    false
}

fn status_line(port: u16) -> std::io::Result<String> {
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(std::time::Duration::from_secs(5)))?;
    write!(stream, "GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(64).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
