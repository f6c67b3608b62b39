//! Many files as one job: one request for each small one, and durable in batches.
//!
//! What is to be moved comes as a stream, so that it may still be found while it is moved. Every lane has
//! workers of its own that take the next file from it, so that a small object's whole way (open, sum,
//! send, answer) is on one thread, and no task is made for it. Whatever does not
//! fit this short way is moved as any single object is, within the same window: what is too large for
//! one request, what the store or the options ask more for, and what failed, which is repeated and
//! explained there. The files of a download are written under names of their own; when some have
//! gathered, one thread makes all of them durable with one `syncfs`, and only then gives them their
//! names: a sync for each file costs a disk more than the file does.

mod across;
mod down;
mod settle;
mod up;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use futures::stream::FuturesUnordered;
use futures::{Stream, StreamExt as _};
use serde::Serialize;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::account::Account;
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::flow::Flow;
use crate::options::Cancel;
use crate::progress::{Event, Operation};
use crate::report::{Report, TimeSpent};
use crate::schedule::{Admission, RetryScope, Window};
use crate::transport::{Detour, Direct};

/// The largest object that goes in one request and through memory: what a plan makes one part of.
const SMALL_BYTES: u64 = crate::plan::DEFAULT_PART_SIZE_BYTES;

/// Workers of each lane. The window says how many of them may be under way.
const WORKERS: usize = 128;

/// Objects that go the long way at once. Their parts are the window's to admit; each has some requests
/// and some memory beside them.
const LONG_WAYS: usize = 32;

/// After so many failures of the short way in a row, with no success between them, nothing is tried
/// that way any more: then it is not the objects that it fails for.
const IN_VAIN: u32 = 8;

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
    /// Where the time went.
    pub time: TimeSpent,
    /// What most of it went to, as a person would say it.
    pub limited_by: &'static str,
    /// Whether the job was stopped before its end. What is neither counted nor among the failed was not
    /// moved then.
    pub stopped: bool,
    /// What failed, by its source, and why. The others went on.
    #[serde(skip)]
    pub failed: Vec<(String, Error)>,
}

/// One object to be moved: a file on this side, a key on the other.
#[derive(Debug, Clone, Default)]
pub(crate) struct Item {
    pub(crate) file: PathBuf,
    pub(crate) key: String,
    /// Of a copy, the key that the object gets on the other side; there is no file then.
    pub(crate) target_key: String,
    /// What is known of it before it is moved, where anything is.
    pub(crate) size_bytes: Option<u64>,
    /// When the object was last written: the time that its file gets, where one is asked for.
    pub(crate) modified: Option<SystemTime>,
    /// The object's media type, in place of the job's.
    pub(crate) content_type: Option<String>,
    /// User metadata beside the job's.
    pub(crate) metadata: BTreeMap<String, String>,
}

impl Item {
    /// With nothing known of it but where it is and where it goes.
    pub(crate) fn between(file: PathBuf, key: String) -> Self {
        Self { file, key, ..Self::default() }
    }

    /// Whether it is known to be too large for the short way.
    fn is_large(&self) -> bool {
        self.size_bytes.is_some_and(|size| size > SMALL_BYTES)
    }
}

/// What became of an item.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) item: Item,
    /// Payload bytes, and whether they were held against anything.
    pub(crate) moved: Result<(u64, bool)>,
}

/// Who hears of every item's outcome as it comes, on whatever thread it comes. It must not wait.
#[derive(Clone, Default)]
pub(crate) struct Listener(Option<Arc<dyn Fn(Outcome) + Send + Sync>>);

impl Listener {
    pub(crate) fn new(hear: impl Fn(Outcome) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(hear)))
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Listener({})", self.0.is_some())
    }
}

/// What all workers of one job share.
struct Job<S> {
    queue: tokio::sync::Mutex<Option<S>>,
    listener: Listener,
    scope: RetryScope,
    account: Account,
    started: Instant,
    cancel: Cancel,
    long_ways: Semaphore,
    /// Held by the first object, which goes the long way so that it becomes known what requests to the
    /// store look like.
    scout: tokio::sync::Mutex<()>,
    is_scouted: AtomicBool,
    in_vain: AtomicU32,
    was_stopped: AtomicBool,
    moved: AtomicU64,
    bytes: AtomicU64,
    unverified: AtomicU64,
    failed: Mutex<Vec<(String, Error)>>,
}

impl<S> Job<S>
where
    S: Stream<Item = Item> + Unpin,
{
    fn new(
        engine: &Engine,
        items: S,
        listener: Listener,
        flow: &Flow,
        parts: Option<usize>,
        cancel: &Cancel,
    ) -> Arc<Self> {
        let scope = RetryScope::new(flow, cancel.clone()).within(engine.window(parts));
        Arc::new(Self {
            queue: tokio::sync::Mutex::new(Some(items)),
            listener,
            scope,
            account: Account::open(engine.lanes(), flow),
            started: Instant::now(),
            cancel: cancel.clone(),
            long_ways: Semaphore::new(LONG_WAYS.min(parts.unwrap_or(LONG_WAYS)).max(1)),
            scout: tokio::sync::Mutex::default(),
            is_scouted: AtomicBool::new(false),
            in_vain: AtomicU32::new(0),
            was_stopped: AtomicBool::new(false),
            moved: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            unverified: AtomicU64::new(0),
            failed: Mutex::default(),
        })
    }

    fn window(&self) -> &Window {
        self.scope.window()
    }

    fn flow(&self) -> &Flow {
        self.scope.flow()
    }

    /// The next one, which may have to be found first, unless the job was stopped.
    async fn next(&self) -> Option<Item> {
        let next = async {
            let mut queue = self.queue.lock().await;
            let item = queue.as_mut()?.next().await;
            if item.is_none() {
                // Not every stream can be asked again behind its end.
                *queue = None;
            }
            item
        };
        let item = self.unless_stopped(next).await??;
        // Each is budgeted for in the retries of the whole.
        self.scope.expect_more_parts(1);
        Some(item)
    }

    /// `work`, unless the job is stopped before its end.
    async fn unless_stopped<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => {
                self.was_stopped.store(true, Ordering::Relaxed);
                None
            }
            done = work => Some(done),
        }
    }

    /// A turn to go the long way; whoever has one has no slot of the window.
    async fn long_way(&self) -> Option<SemaphorePermit<'_>> {
        self.long_ways.acquire().await.ok()
    }

    /// The requests of the short way to `bucket`, where it may work.
    fn short_way<'a>(&self, engine: &'a Engine, bucket: &str) -> Option<&'a Direct> {
        if self.in_vain.load(Ordering::Relaxed) >= IN_VAIN {
            return None;
        }
        engine.calls().direct(bucket).filter(|direct| direct.knows(bucket))
    }

    /// Nothing of this job goes the short way any more.
    fn close_short_way(&self) {
        self.in_vain.store(IN_VAIN, Ordering::Relaxed);
    }

    /// The store took a request of the short way.
    fn went_well(&self) {
        self.window().taken();
        if (1..IN_VAIN).contains(&self.in_vain.load(Ordering::Relaxed)) {
            self.in_vain.store(0, Ordering::Relaxed);
        }
    }

    /// A request of the short way came to nothing.
    fn was_refused(&self, detour: Detour) {
        match detour {
            Detour::Unknown => return,
            Detour::Throttled => self.window().throttled(tokio::time::Instant::now()),
            Detour::Failed => {
                self.in_vain.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.scope.counts_as_repeated(1);
    }

    /// A large one is about to be moved.
    fn tell_start(&self, item: &Item, source: impl FnOnce(&Item) -> String) {
        if let Some(size_bytes) = item.size_bytes.filter(|_| item.is_large()) {
            let source = source(item);
            self.flow().events().emit(|| Event::ObjectStarted { source, size_bytes });
        }
    }

    /// An object went the long way.
    fn settled(&self, item: Item, source: impl FnOnce(&Item) -> String, outcome: Result<Report>) {
        match outcome {
            Ok(report) => {
                self.scope.counts_as_repeated(report.retries);
                self.succeeded(item, report.bytes, report.verified.is_proof());
            }
            Err(error) => self.failed(item, source, error),
        }
    }

    fn succeeded(&self, item: Item, bytes: u64, is_proven: bool) {
        self.moved.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.unverified.fetch_add(u64::from(!is_proven), Ordering::Relaxed);
        if let Some(hear) = &self.listener.0 {
            hear(Outcome { item, moved: Ok((bytes, is_proven)) });
        }
    }

    /// What fails is told to who listens, and kept for the report where nobody does.
    fn failed(&self, item: Item, source: impl FnOnce(&Item) -> String, error: Error) {
        if error.kind() == ErrorKind::Interrupted {
            self.was_stopped.store(true, Ordering::Relaxed);
        } else if let Some(hear) = &self.listener.0 {
            hear(Outcome { item, moved: Err(error) });
        } else {
            let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
            failed.push((source(&item), error));
        }
    }

    fn report(&self, operation: Operation) -> ManyReport {
        let failed = &mut *self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let time = self.account.close(self.window().wants_more());
        ManyReport {
            operation,
            objects: self.moved.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            unverified: self.unverified.load(Ordering::Relaxed),
            elapsed_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            retries: self.scope.repeated(),
            time,
            limited_by: time.limited_by().0,
            stopped: self.was_stopped.load(Ordering::Relaxed),
            failed: std::mem::take(failed),
        }
    }
}

/// What a worker does with one item.
trait Moves: Sync {
    fn job(&self) -> &Job<impl Stream<Item = Item> + Unpin + Send>;

    /// Whether requests of the short way are known, or cannot be used at all.
    fn needs_no_scout(&self) -> bool;

    /// By the short way if that can be, and by the long way else. Has a slot of the window, and gives it
    /// back before it goes the long way.
    fn by_any_way(&self, item: Item, admission: Admission) -> impl Future<Output = ()> + Send;

    /// As a single object is moved.
    fn by_the_long_way(&self, item: Item) -> impl Future<Output = ()> + Send;
}

/// Moves one item after the other, until there are no more or the job is stopped.
async fn work(worker: impl Moves) {
    let job = worker.job();
    if !job.is_scouted.load(Ordering::Relaxed) {
        let Some(_first) = job.unless_stopped(job.scout.lock()).await else { return };
        if !job.is_scouted.load(Ordering::Relaxed) && !worker.needs_no_scout() {
            let Some(item) = job.next().await else { return };
            worker.by_the_long_way(item).await;
        }
        job.is_scouted.store(true, Ordering::Relaxed);
    }
    loop {
        // An item first: who waits for one to be found must not keep a slot from the parts of large ones.
        let Some(item) = job.next().await else { return };
        if item.is_large() {
            worker.by_the_long_way(item).await;
            continue;
        }
        // What the object needs of the memory is charged when it is read.
        let Some(admission) = job.unless_stopped(job.window().admit(0)).await else { return };
        worker.by_any_way(item, admission).await;
    }
}

/// A file's path as it means the same anywhere: the command that goes on with it may be given in another folder.
fn absolute(file: &Path) -> PathBuf {
    std::path::absolute(file).unwrap_or_else(|_| file.to_owned())
}

/// Runs workers on every lane, as many as there may be objects under way, and looks after the window
/// meanwhile. Ends when all of them have.
async fn run_workers<S, M>(
    engine: &Engine,
    job: &Arc<Job<S>>,
    worker: impl Fn(Engine, Arc<Job<S>>) -> M + Clone + Send + 'static,
) -> Result<()>
where
    S: Stream<Item = Item> + Unpin + Send + 'static,
    M: Moves + Send + 'static,
{
    let lanes = engine.lanes();
    let mut tasks: FuturesUnordered<_> = (0..lanes.count())
        .map(|lane| {
            let (engine, job, worker) = (engine.at(lane), Arc::clone(job), worker.clone());
            lanes.spawn(lane, async move {
                let workers = (0..WORKERS).map(|_| work(worker(engine.clone(), Arc::clone(&job))));
                workers.collect::<FuturesUnordered<_>>().collect::<()>().await;
            })
        })
        .collect();
    let window = job.window();
    let mut lost = None;
    let mut look_at = window.look(tokio::time::Instant::now(), lanes);
    loop {
        tokio::select! {
            ended = tasks.next() => match ended {
                None => break,
                Some(Ok(())) => {}
                // The others end with what they have begun.
                Some(Err(error)) => {
                    job.cancel.cancel();
                    lost = Some(error);
                }
            },
            () = tokio::time::sleep_until(look_at) => {
                look_at = window.look(tokio::time::Instant::now(), lanes);
            }
        }
    }
    job.account.moved_since(job.started);
    match lost {
        None => Ok(()),
        Some(error) => {
            let what = if error.is_panic() { "a worker panicked" } else { "a lane's thread ended" };
            Err(Error::new(ErrorKind::Io, "move", "many objects", what).caused_by(error))
        }
    }
}

pub(crate) use across::{Place, copy};

/// Uploads every item's file into `bucket`.
pub(crate) use up::upload;

/// Downloads every item's object from `bucket`.
pub(crate) use down::download;
