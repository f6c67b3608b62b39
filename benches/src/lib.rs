//! What the benchmarks share: the embedded synthetic store, a session with it, and a source file.
//!
//! The store runs in the same process as the client, so that one run measures both and needs
//! nothing installed. Absolute numbers say little across machines; each group therefore holds what
//! it measures beside something else from the same run: a checksum beside the memory it reads,
//! a transfer beside a plain copy of the same bytes.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use brigade::integrity::{Algorithm, Hasher};
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

/// A number of mebibytes that the environment asks for, in bytes; else `default_bytes`.
///
/// # Panics
/// Where what is asked for is no number.
pub fn size_from_env(name: &str, default_bytes: u64) -> u64 {
    let Ok(asked) = std::env::var(name) else { return default_bytes };
    let mebibytes: u64 = asked.parse().unwrap_or_else(|_| panic!("{name}={asked} is no number"));
    mebibytes << 20
}

/// The middle one; the mean of the two in the middle of an even number.
///
/// # Panics
/// Of nothing.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        values[middle]
    } else {
        f64::midpoint(values[middle - 1], values[middle])
    }
}

/// What of the processors this process has used so far, in all its threads, to 10 ms.
///
/// # Panics
/// Where there is no `/proc`.
pub fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    // The name before them may hold blanks; the two numbers are the 14th and 15th of proc(5).
    let (_, fields) = stat.rsplit_once(')').expect("a name");
    let ticks: u64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|ticks| ticks.parse::<u64>().expect("a number"))
        .sum();
    // 100 a second, whatever the kernel's own clock.
    Duration::from_millis(10 * ticks)
}

/// A line of a manifest, as docs/MANIFEST.md has it: for the records of a long transfer that nobody waits
/// for.
pub fn manifest_line(json: &str) -> String {
    let mut hasher = Hasher::new(Algorithm::Crc32);
    hasher.update(json.as_bytes());
    format!("{} {json}\n", hasher.finish().to_hex())
}
