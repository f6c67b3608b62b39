//! What the store has done so far, counted.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::locks::lock;

/// A reading of the store's counters, since it was started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Requests that arrived, by operation, whatever became of them: `"UploadPart"`, `"GetObject"` and so
    /// on, as the S3 API names them; `"Other"` for those the store does not have.
    pub requests: BTreeMap<&'static str, u64>,
    /// Bytes of request bodies that arrived, as sent (with the framing of `aws-chunked` bodies).
    pub bytes_in: u64,
    /// Bytes of response bodies handed to the network.
    pub bytes_out: u64,
    /// Connections that were accepted.
    pub connections: u64,
    /// Multipart uploads that are neither completed nor aborted at this moment.
    pub unfinished_uploads: u64,
}

impl Stats {
    /// How often an operation was asked for.
    pub fn count(&self, operation: &str) -> u64 {
        self.requests.get(operation).copied().unwrap_or(0)
    }
}

/// The running counters.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    requests: Mutex<BTreeMap<&'static str, u64>>,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    connections: AtomicU64,
}

impl Counters {
    pub(crate) fn request(&self, operation: &'static str) {
        *lock(&self.requests).entry(operation).or_default() += 1;
    }

    pub(crate) fn bytes_in(&self, count: usize) {
        self.bytes_in.fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(crate) fn bytes_out(&self, count: usize) {
        self.bytes_out.fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(crate) fn connection(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn read(&self, unfinished_uploads: usize) -> Stats {
        Stats {
            requests: lock(&self.requests).clone(),
            bytes_in: self.bytes_in.load(Ordering::Relaxed),
            bytes_out: self.bytes_out.load(Ordering::Relaxed),
            connections: self.connections.load(Ordering::Relaxed),
            unfinished_uploads: unfinished_uploads as u64,
        }
    }
}
