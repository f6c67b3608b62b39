//! Many objects deleted: in lists of 1,000, several lists in flight, told one by one.
//!
//! A list that succeeds tells of the keys that did not. Those that may pass are asked for again, and only
//! those, by the session's retry policy; the others are told with their reasons, and the rest goes on. What
//! cannot be asked for in a list, or of a store that takes no lists, goes by itself. When a request as a
//! whole is refused, or fails through every attempt, the others would too: the job ends with what it has
//! done. Keys come as a stream and are taken as fast as they are deleted, so memory does not grow with
//! their number.

mod job;

use futures::channel::mpsc;
use futures::{Stream, StreamExt as _};
use serde::Serialize;

use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::options::Cancel;
use crate::progress::Emitter;
use crate::schedule::RetryScope;
use crate::transport::Named;

/// Lists in flight when nobody says how many. AWS takes 3,500 deletions a second below one prefix and
/// answers a full list in some tenths of a second: a few do, and more find other prefixes' room.
const DEFAULT_CONCURRENCY: usize = 16;

/// What a deletion of many objects may be asked.
///
/// ```
/// let options = brigade::DeleteOptions { concurrency: Some(4), ..Default::default() };
/// assert!(options.outcomes.is_none());
/// ```
#[derive(Clone, Default)]
pub struct DeleteOptions {
    /// Requests in flight at most, at least 1, each for as many keys as the store takes at once. Default: 16.
    pub concurrency: Option<usize>,
    /// Who is told what became of each object, a list of them at a time. A listener that does not read
    /// holds the deletion up, so that nothing gathers in memory; one that is gone is not told.
    pub outcomes: Option<mpsc::Sender<Vec<Deletion>>>,
    /// Who is told of repeated attempts.
    pub events: Emitter,
    /// Stops it: no further request is begun, and those in flight get a moment to end.
    pub cancel: Cancel,
}

impl std::fmt::Debug for DeleteOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeleteOptions")
            .field("concurrency", &self.concurrency)
            .field("outcomes", &self.outcomes.is_some())
            .finish_non_exhaustive()
    }
}

/// What became of one object that was to be deleted.
#[derive(Debug)]
#[non_exhaustive]
pub struct Deletion {
    /// Its key.
    pub key: String,
    /// The version that was asked for, if one was.
    pub version_id: Option<String>,
    /// Why it was not deleted; unset when it was.
    pub error: Option<Error>,
    /// Whether the store said that it was not there. Most call its deletion a success like any other.
    pub was_missing: bool,
}

/// The outcome of a deletion of many objects. `Ok` says that the job ran, not that all is deleted: see
/// [`DeleteReport::is_complete`].
#[derive(Debug, Serialize)]
#[non_exhaustive]
#[must_use = "single objects may have failed"]
pub struct DeleteReport {
    /// Objects that the store says it deleted, or, where a bucket keeps versions, marked as deleted.
    pub deleted: u64,
    /// Objects that the store said were not there.
    pub missing: u64,
    /// Objects that were refused, each for a reason of its own.
    pub failed: u64,
    /// Requests that were answered.
    pub requests: u64,
    /// Attempts that failed and were repeated.
    pub retries: u64,
    /// Wall time, milliseconds.
    pub elapsed_ms: u64,
    /// Whether it was stopped before its end.
    pub stopped: bool,
    /// What ended it before its end. Of the objects that are counted nowhere, some may be deleted.
    #[serde(skip)]
    pub ended_by: Option<Error>,
    /// What failed, 1,000 at most. Empty where [`DeleteOptions::outcomes`] tells them.
    #[serde(skip)]
    pub failures: Vec<Deletion>,
}

impl DeleteReport {
    /// Whether everything that was to be deleted is.
    pub fn is_complete(&self) -> bool {
        self.failed == 0 && !self.stopped && self.ended_by.is_none()
    }
}

/// Deletes every `(key, version id)` of `objects`.
pub(crate) async fn delete_many(
    engine: &Engine,
    bucket: String,
    objects: impl Stream<Item = (String, Option<String>)> + Send + 'static,
    options: DeleteOptions,
) -> Result<DeleteReport> {
    let cancel = options.cancel.child();
    let options = DeleteOptions { cancel: cancel.clone(), ..options };
    let objects = objects.map(|(key, version_id)| Named { key, version_id });
    let run = |engine| job::run(engine, bucket, objects, options);
    engine.drive_cancellable(cancel, run).await
}

/// Deletes one object, which need not be there.
pub(crate) async fn delete_one(engine: &Engine, bucket: &str, object: &Named) -> Result<()> {
    let scope = RetryScope::default();
    let delete = |_| engine.calls().delete(bucket, object);
    match engine.retry().run(&scope, None, delete).await {
        Err(error) if is_missing(&error) => Ok(()),
        deleted => deleted,
    }
}

/// Whether the store says that what was to be deleted is not there: then it is as it should be.
fn is_missing(error: &Error) -> bool {
    error.kind() == ErrorKind::NotFound
        && matches!(error.code(), Some("NoSuchKey" | "NoSuchVersion"))
}
