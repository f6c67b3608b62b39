//! Many files as one job: one request for each small one, and durable in batches.
//!
//! Every lane has workers of its own that take the next file from one queue, so that a small object's
//! whole way (open, sum, send, answer) is on one thread, and no task is made for it. What is too large
//! for one request is moved as ever, in parts, within the same window. The files of a download are
//! written under names of their own; when some have gathered, one thread makes all of them durable with
//! one `syncfs`, and only then gives them their names: a sync for each file costs a disk more than the
//! file does.

mod down;
mod settle;
mod up;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use futures::StreamExt as _;
use serde::Serialize;

use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::flow::Flow;
use crate::limits::MIB;
use crate::options::Cancel;
use crate::progress::Operation;
use crate::schedule::RetryScope;

/// The largest object that goes in one request and through memory: what a plan makes one part of.
const SMALL_BYTES: u64 = crate::plan::DEFAULT_PART_SIZE_BYTES;

/// What an object of unknown size is taken to need until its size is known.
const UNKNOWN_BYTES: u64 = MIB;

/// Workers of each lane. The window says how many of them may be under way.
const WORKERS: usize = 128;

/// The outcome of a job of many objects.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct ManyReport {
    /// What the job did.
    pub operation: Operation,
    /// Objects that were moved and, where anything could be compared, proven.
    pub objects: u64,
    /// Their payload bytes.
    pub bytes: u64,
    /// Those of them that nothing could be held against.
    pub unverified: u64,
    /// Wall time, milliseconds.
    pub elapsed_ms: u64,
    /// Requests that were made once more.
    pub retries: u64,
    /// What failed, by its source, and why. The others went on.
    #[serde(skip)]
    pub failed: Vec<(String, Error)>,
}

/// What all workers of one job share.
struct Job<I> {
    queue: Mutex<I>,
    scope: RetryScope,
    cancel: Cancel,
    moved: AtomicU64,
    bytes: AtomicU64,
    unverified: AtomicU64,
    failed: Mutex<Vec<(String, Error)>>,
}

impl<I> Job<I>
where
    I: Iterator,
{
    fn new(
        engine: &Engine,
        items: I,
        flow: &Flow,
        parts: Option<usize>,
        cancel: &Cancel,
    ) -> Arc<Self> {
        let scope = RetryScope::new(flow, cancel.clone()).within(engine.window(parts));
        Arc::new(Self {
            queue: Mutex::new(items),
            scope,
            cancel: cancel.clone(),
            moved: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            unverified: AtomicU64::new(0),
            failed: Mutex::default(),
        })
    }

    /// The next one, unless the job was stopped.
    fn next(&self) -> Option<I::Item> {
        if self.cancel.is_cancelled() {
            return None;
        }
        // Each is budgeted for in the retries of the whole.
        self.scope.expect_more_parts(1);
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).next()
    }

    fn succeeded(&self, bytes: u64, is_proven: bool) {
        self.moved.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.unverified.fetch_add(u64::from(!is_proven), Ordering::Relaxed);
    }

    fn failed(&self, source: String, error: Error) {
        if error.kind() != ErrorKind::Interrupted {
            self.failed.lock().unwrap_or_else(PoisonError::into_inner).push((source, error));
        }
    }

    /// An object went by the long way because of a refusal.
    fn was_refused(&self, is_throttled: bool) {
        if is_throttled {
            self.scope.window().throttled(tokio::time::Instant::now());
        }
        self.scope.counts_as_repeated();
    }

    fn report(&self, operation: Operation, started: Instant) -> ManyReport {
        let failed = &mut *self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        ManyReport {
            operation,
            objects: self.moved.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            unverified: self.unverified.load(Ordering::Relaxed),
            elapsed_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            retries: self.scope.repeated(),
            failed: std::mem::take(failed),
        }
    }
}

/// Runs `worker` on every lane, as often as there may be objects under way, and looks after the window
/// meanwhile. Ends when all of them have.
async fn run_workers<I, W, F>(engine: &Engine, job: &Arc<Job<I>>, worker: W) -> Result<()>
where
    I: Iterator + Send + 'static,
    W: Fn(Engine, Arc<Job<I>>) -> F + Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let lanes = engine.lanes();
    let worker = Arc::new(worker);
    let tasks = (0..lanes.count()).map(|lane| {
        let (engine, job, worker) = (engine.at(lane), Arc::clone(job), Arc::clone(&worker));
        lanes.spawn(lane, async move {
            let workers = (0..WORKERS).map(|_| worker(engine.clone(), Arc::clone(&job)));
            workers.collect::<futures::stream::FuturesUnordered<_>>().collect::<()>().await;
        })
    });
    let mut all = std::pin::pin!(futures::future::try_join_all(tasks.collect::<Vec<_>>()));
    let window = job.scope.window();
    loop {
        let look_at = window.look(tokio::time::Instant::now(), lanes);
        tokio::select! {
            ended = &mut all => {
                return ended.map(drop).map_err(|lost| {
                    Error::new(ErrorKind::Io, "move", "many objects", "a worker ended")
                        .caused_by(lost)
                });
            }
            () = tokio::time::sleep_until(look_at) => {}
        }
    }
}

/// Uploads every `(file, key)` of `files` into `bucket`.
pub(crate) use up::upload;

/// Downloads every `(key, file)` of `objects` from `bucket`.
pub(crate) use down::download;

/// A file on this side, and the object's key on the other.
pub(crate) type Pair = (PathBuf, String);
