//! What one object's transfer is given: the lanes, the store and the retry policy of its session.
//!
//! A transfer is driven from a task on one of the lanes, its home, so that callers may await it on
//! any executor; a caller that drops its future asks the task to stop, and the task cleans up.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::flow::{Flow, Meter};
use crate::limits::StoreProfile;
use crate::options::{Cancel, CustomerKey, DEFAULT_MEMORY_LIMIT_BYTES, SessionOptions};
use crate::progress::Emitter;
use crate::schedule::{Bounds, LaneId, Lanes, Retry, RetryScope, Window};
use crate::transport::{Calls, ObjectInfo, Store};
use crate::url::S3Url;

/// Open files that are not left to connections.
const OTHER_FILES: usize = 64;

/// More parts in flight than this bring nothing on any network: 100 Gbit/s is 150 connections of the
/// 85–90 MB/s that AWS gives each, and 10,000 small objects a second over 50 ms are 500.
const MAX_PARTS: usize = 1024;

/// The stages of one session, seen from one transfer. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Engine {
    stages: Arc<Stages>,
    home: LaneId,
}

#[derive(Debug)]
struct Stages {
    lanes: Arc<Lanes>,
    store: Store,
    retry: Retry,
    window: Window,
    meter: Meter,
    manifest_folder: Option<PathBuf>,
}

impl Engine {
    /// Starts the lanes and connects them to the store; nothing is asked of it yet.
    pub(crate) async fn start(options: SessionOptions) -> Result<Self> {
        let count = options
            .lanes
            .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
        let lanes = Arc::new(Lanes::start(count)?);
        let (retry, manifest_folder) = (options.retry.clone(), options.manifest_folder.clone());
        let bandwidth = options.bandwidth_limit_bytes_per_s;
        let memory_bytes = options.memory_limit_bytes.unwrap_or(DEFAULT_MEMORY_LIMIT_BYTES);
        // The SDK's configuration wants a runtime around it, which the caller may not have.
        let connecting =
            lanes.spawn(0, async move { Store::connect(&options, count.max(1)).await });
        let store = connecting.await.map_err(lost)??;
        let retry = Retry::new(retry, store.remedies());
        let meter = Meter::limited_to(bandwidth);
        let bounds = Bounds { parts: most_parts(bandwidth), memory_bytes };
        let window = Window::adaptive(bounds, meter.clone());
        let stages = Stages { lanes, store, retry, window, meter, manifest_folder };
        Ok(Self { stages: Arc::new(stages), home: 0 })
    }

    /// Runs `task` on a lane of its own choice, with an engine whose home that lane is.
    pub(crate) async fn drive<T, F>(&self, task: impl FnOnce(Self) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let home = self.stages.lanes.pick();
        let engine = Self { stages: Arc::clone(&self.stages), home };
        self.stages.lanes.spawn(home, task(engine)).await.map_err(lost)?
    }

    /// The same for a task that watches `cancel`: it is cancelled when the future is dropped.
    pub(crate) async fn drive_cancellable<T, F>(
        &self,
        cancel: Cancel,
        task: impl FnOnce(Self) -> F,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        struct OnDrop(Cancel);
        impl Drop for OnDrop {
            fn drop(&mut self) {
                self.0.cancel();
            }
        }
        let _guard = OnDrop(cancel);
        self.drive(task).await
    }

    /// Starts `task` on a lane of its own choice and waits for nothing: it tells through a channel how
    /// it goes, and that it has ended.
    pub(crate) fn launch<F>(&self, task: impl FnOnce(Self) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let home = self.stages.lanes.pick();
        let engine = Self { stages: Arc::clone(&self.stages), home };
        self.stages.lanes.spawn(home, task(engine));
    }

    /// The same on another lane.
    pub(crate) fn at(&self, lane: LaneId) -> Self {
        Self { stages: Arc::clone(&self.stages), home: lane }
    }

    /// Whether it is of the same session.
    pub(crate) fn is_of_session(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.stages, &other.stages)
    }

    /// Requests over this transfer's own lane: everything but the parts.
    pub(crate) fn calls(&self) -> &Calls {
        self.calls_on(self.home)
    }

    /// Requests over the connections of `lane`.
    pub(crate) fn calls_on(&self, lane: LaneId) -> &Calls {
        self.stages.store.on(lane)
    }

    pub(crate) fn store(&self) -> &Store {
        &self.stages.store
    }

    pub(crate) fn lanes(&self) -> &Arc<Lanes> {
        &self.stages.lanes
    }

    /// What admits the parts of a transfer: the session's window, or one of so many parts.
    pub(crate) fn window(&self, parts: Option<usize>) -> Window {
        match parts {
            Some(parts) => self.stages.window.fixed(parts),
            None => self.stages.window.clone(),
        }
    }

    /// Counts a transfer's bytes and time.
    pub(crate) fn flow(&self, events: &Emitter) -> Flow {
        Flow::new(events.clone(), self.stages.meter.clone())
    }

    pub(crate) fn retry(&self) -> &Retry {
        &self.stages.retry
    }

    /// Where unfinished transfers are recorded, if they are.
    pub(crate) fn manifest_folder(&self) -> Option<&Path> {
        self.stages.manifest_folder.as_deref()
    }

    /// S3 refuses an SSE-C key over plain HTTP, and by then it has crossed the network.
    pub(crate) fn refuse_plain_customer_key(
        &self,
        operation: &'static str,
        url: &S3Url,
    ) -> Result<()> {
        if self.store().is_encrypted() {
            return Ok(());
        }
        let why = "an SSE-C key must not cross the network unencrypted";
        Err(Error::new(ErrorKind::InvalidInput, operation, url.to_string(), why)
            .advise("use an https:// endpoint"))
    }

    /// What the store allows. Where that depends on what it calls itself and it has not answered
    /// anything yet, it is asked: a plan made for the wrong store fails at its last part.
    pub(crate) async fn profile_for(
        &self,
        bucket: &str,
        scope: &RetryScope,
    ) -> Result<Arc<StoreProfile>> {
        let store = self.store();
        if !store.is_profile_settled() {
            let asked = self.retry().run(scope, None, |_| self.calls().head_bucket(bucket)).await;
            match asked {
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    return Err(no_such_bucket(bucket));
                }
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::InvalidInput
                            | ErrorKind::Interrupted
                            | ErrorKind::Throttled
                            | ErrorKind::Unreachable
                            | ErrorKind::Untrusted
                    ) =>
                {
                    return Err(error);
                }
                // Credentials may be good for one prefix of the bucket and not for this, and a
                // store may not know this request; the next one will tell, and in words, which a
                // HEAD cannot.
                _ => {}
            }
        }
        Ok(store.profile())
    }

    /// A HEAD that tells a missing key from a missing bucket, which its reply alone does not.
    pub(crate) async fn head(
        &self,
        url: &S3Url,
        version_id: Option<&str>,
        key: Option<&CustomerKey>,
        scope: &RetryScope,
    ) -> Result<ObjectInfo> {
        let looked = self.retry().run(scope, None, |_| self.calls().head(url, version_id, key));
        let error = match looked.await {
            Err(error) if error.kind() == ErrorKind::NotFound => error,
            // All that a HEAD says of an object whose key it was not given is 400, without a word.
            Err(error)
                if error.kind() == ErrorKind::Rejected
                    && error.code().is_none()
                    && key.is_none() =>
            {
                return Err(error.advise("if it was stored with SSE-C, give its key"));
            }
            other => return other,
        };
        Err(match self.calls().head_bucket(url.bucket()).await {
            Err(bucket) if bucket.kind() == ErrorKind::NotFound => no_such_bucket(url.bucket()),
            _ => {
                let what =
                    if version_id.is_some() { "no such key or version" } else { "no such key" };
                Error::new(ErrorKind::NotFound, error.operation(), url.to_string(), what)
                    .advise("check the key")
                    .caused_by(error)
            }
        })
    }
}

/// What a connection must be able to move under a bandwidth limit: stores close those that are silent
/// for some 20 s, and a frame has up to 1 MiB.
const LEAST_PART_BYTES_PER_S: u64 = 256 * 1024;

/// Parts in flight at most: each has a connection, and a process has only so many files. Some are the
/// transfers' own, and the program's around them.
fn most_parts(bandwidth_bytes_per_s: Option<u64>) -> usize {
    let by_bandwidth = bandwidth_bytes_per_s.map_or(u64::MAX, |rate| rate / LEAST_PART_BYTES_PER_S);
    let by_bandwidth = usize::try_from(by_bandwidth).unwrap_or(usize::MAX);
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let files = files.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX));
    (files.saturating_sub(OTHER_FILES) / 2).min(by_bandwidth).clamp(1, MAX_PARTS)
}

/// How a transfer ends that somebody asked to stop.
pub(crate) fn stopped(operation: &'static str, url: &S3Url) -> Error {
    Error::new(ErrorKind::Interrupted, operation, url.to_string(), "stopped as asked")
}

/// Runs what waits for a disk away from the lane's connections.
pub(crate) async fn blocking<T: Send + 'static>(
    operation: &'static str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|source| {
        Err(Error::new(ErrorKind::Io, operation, "a file", "its thread ended").caused_by(source))
    })
}

/// A stage that was stopped does not know of what transfer it was; this says so.
pub(crate) fn naming_the_stopped(operation: &'static str, url: &S3Url) -> impl Fn(Error) -> Error {
    move |error| match error.kind() {
        ErrorKind::Interrupted => stopped(operation, url),
        _ => error,
    }
}

pub(crate) fn no_such_bucket(bucket: &str) -> Error {
    Error::new(ErrorKind::NotFound, "look at", format!("s3://{bucket}"), "no such bucket")
        .advise("check the bucket's name and the endpoint")
}

fn lost(source: tokio::task::JoinError) -> Error {
    let what = if source.is_panic() { "its task panicked" } else { "its thread ended" };
    Error::new(ErrorKind::Io, "run", "a transfer", what).caused_by(source)
}
