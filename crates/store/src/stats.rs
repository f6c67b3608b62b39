//! What the store has done so far, counted.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

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
    /// Connections that are open at this moment.
    pub open_connections: u64,
    /// The most that were open at once.
    pub peak_connections: u64,
    /// Requests that have begun and whose answers' last bytes are not yet handed to the network.
    pub requests_in_flight: u64,
    /// The most that were in flight at once.
    pub peak_requests_in_flight: u64,
    /// Requests that were answered with 503 `SlowDown` because they came faster than the
    /// [`Network`](crate::Network) has it.
    pub refused_requests: u64,
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
    open_connections: Gauge,
    in_flight: Gauge,
    refused: AtomicU64,
}

/// How many there are, and how many there were at most.
#[derive(Debug, Default)]
struct Gauge {
    now: AtomicU64,
    peak: AtomicU64,
}

impl Gauge {
    fn more(&self) {
        let now = self.now.fetch_add(1, Ordering::Relaxed) + 1;
        self.peak.fetch_max(now, Ordering::Relaxed);
    }

    fn fewer(&self) {
        self.now.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection that is open, until dropped.
pub(crate) struct OpenConnection(Arc<Counters>);

impl OpenConnection {
    pub(crate) fn new(counters: Arc<Counters>) -> Self {
        counters.open_connections.more();
        Self(counters)
    }

    /// How many there are.
    pub(crate) fn connections(&self) -> u64 {
        self.0.open_connections.now.load(Ordering::Relaxed)
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.open_connections.fewer();
    }
}

/// A request that is in flight, until dropped.
pub(crate) struct InFlight(Arc<Counters>);

impl InFlight {
    pub(crate) fn new(counters: Arc<Counters>) -> Self {
        counters.in_flight.more();
        Self(counters)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fewer();
    }
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

    pub(crate) fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn read(&self, unfinished_uploads: usize) -> Stats {
        Stats {
            requests: lock(&self.requests).clone(),
            bytes_in: self.bytes_in.load(Ordering::Relaxed),
            bytes_out: self.bytes_out.load(Ordering::Relaxed),
            connections: self.connections.load(Ordering::Relaxed),
            open_connections: self.open_connections.now.load(Ordering::Relaxed),
            peak_connections: self.open_connections.peak.load(Ordering::Relaxed),
            requests_in_flight: self.in_flight.now.load(Ordering::Relaxed),
            peak_requests_in_flight: self.in_flight.peak.load(Ordering::Relaxed),
            refused_requests: self.refused.load(Ordering::Relaxed),
            unfinished_uploads: unfinished_uploads as u64,
        }
    }
}
