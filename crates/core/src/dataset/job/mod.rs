//! One job over many objects: what one side has is brought to the other.
//!
//! Three things go on at once. The search walks or lists, compares where that is asked for, and hands on what
//! is to be moved; a bounded queue holds it up where the movers cannot follow, so memory does not grow with
//! the number of names. The movers ([`crate::many`]) take from the queue, small and large objects in
//! one window. And every outcome is heard as it comes: told, counted, and, where sources are to be removed,
//! followed by that. What is deleted because the source has it no more comes last, and only where
//! both sides were seen in full.

mod act;
mod delete;
mod mark;
mod report;
mod search;
mod side;
mod tasks;
mod verify;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

pub use report::JobReport;
pub use side::Side;
pub use tasks::{Task, run};
pub use verify::{VerifyReport, verify};

use mark::Mark;

use super::{Compared, Filter, SortOptions};
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::options::{Cancel, CopyOptions, DownloadOptions, UploadOptions};
use crate::progress::{Emitter, Event};

/// Items that were found and wait for a worker.
const QUEUE: usize = 1024;

/// How many objects are brought from one side to another.
///
/// ```
/// use brigade::dataset::{Compared, JobOptions};
///
/// let options = JobOptions { compare: Some(Compared::Size), dry_run: true, ..JobOptions::default() };
/// assert!(!options.delete);
/// ```
// Each is one independent switch.
#[allow(clippy::struct_excessive_bools)]
#[derive(Debug, Clone)]
pub struct JobOptions {
    /// How each is uploaded. Who listens and who may stop it are the job's. Its `command` is the beginning of
    /// one: each large object's source and target are added for its own manifest.
    pub upload: UploadOptions,
    /// How each is downloaded; the same goes for it.
    pub download: DownloadOptions,
    /// How each is copied, where both sides are in stores; the same goes for it.
    pub copy: CopyOptions,
    /// Which files and objects belong to the job. The default: all.
    pub filter: Filter,
    /// Whether links are what they point to, where a folder is the source.
    pub follow_symlinks: bool,
    /// What is compared, so that what the other side has is not moved again; downloaded files get their objects'
    /// times then, whatever the download options say. Unset: nothing; everything is moved.
    pub compare: Option<Compared>,
    /// Compares contents where sizes are the same: a file is summed as the store has recorded its object, which is
    /// not downloaded. Of what nothing can be said, and of objects of two stores, the `ETag`s or the times
    /// decide.
    pub checksum: bool,
    /// Deletes what only the target has: last, and never where something of either side was not seen.
    pub delete: bool,
    /// With more to delete than this, nothing is deleted. Unset: no bound.
    pub max_delete: Option<u64>,
    /// Deletes each source once it was moved and proven.
    pub remove_source: bool,
    /// Only tells what would be done ([`Event::Planned`]).
    pub dry_run: bool,
    /// Stops at the first failure.
    pub fail_fast: bool,
    /// An uploaded file's media type by its name; unset, or `None`: the upload options'.
    pub content_type: Option<fn(&str) -> Option<String>>,
    /// Where names are sorted that come in no order, or must wait.
    pub sort: SortOptions,
    /// Who is told of progress.
    pub events: Emitter,
    /// Lets somebody stop the job.
    pub cancel: Cancel,
}

impl Default for JobOptions {
    fn default() -> Self {
        Self {
            upload: UploadOptions::default(),
            download: DownloadOptions::default(),
            copy: CopyOptions::default(),
            filter: Filter::default(),
            follow_symlinks: true,
            compare: None,
            checksum: false,
            delete: false,
            max_delete: None,
            remove_source: false,
            dry_run: false,
            fail_fast: false,
            content_type: None,
            sort: SortOptions::default(),
            events: Emitter::default(),
            cancel: Cancel::default(),
        }
    }
}

/// Brings everything that `source` has to `target`. One of them is a folder, the other in a store; both may
/// be in stores.
///
/// # Errors
///
/// Where nothing could be begun. What fails of single objects is told as it happens and counted in the
/// report.
pub async fn copy(source: &Side, target: &Side, options: JobOptions) -> Result<JobReport> {
    let name = match (options.remove_source, options.compare) {
        (true, _) => "move",
        (false, None) => "copy",
        (false, Some(_)) => "sync",
    };
    let bucket = match (source, target) {
        (_, Side::Objects { bucket, .. }) | (Side::Objects { bucket, .. }, _) => bucket.clone(),
        (Side::Folder(_), Side::Folder(folder)) => {
            let (kind, shown) = (ErrorKind::InvalidInput, folder.display().to_string());
            return Err(Error::new(kind, name, shown, "neither side is in a store")
                .advise("write one of them as s3://bucket/prefix"));
        }
    };
    let cancel = options.cancel.child();
    let options = JobOptions { cancel: cancel.clone(), ..options };
    let (source, target) = (source.clone(), target.clone());
    let task = |engine| bring(engine, name, source, target, options);
    bucket.engine.drive_cancellable(cancel, task).await
}

async fn bring(
    engine: Engine,
    name: &'static str,
    source: Side,
    target: Side,
    options: JobOptions,
) -> Result<JobReport> {
    let started = Instant::now();
    let events = options.events.clone();
    events.emit(|| Event::JobStarted {
        job: name,
        source: source.to_string(),
        target: target.to_string(),
        dry_run: options.dry_run,
    });
    let mark = Mark::leave(&engine, &source, &target, &options);
    let earlier = mark.as_ref().and_then(|mark| mark.earlier);
    let compare = options.compare.or(earlier.map(|_| Compared::SizeAndTime));
    let options = JobOptions { compare, ..options };
    let job = Job { begun_earlier: earlier, ..Job::new(name, source, target, options) };
    let (items, queue) = futures::channel::mpsc::channel(QUEUE);
    let (searched, acted) =
        futures::join!(search::run(&engine, &job, items), act::run(&engine, &job, queue));
    let moved = acted?;
    let searched = searched?;
    let is_safe = searched.is_complete && searched.is_ordered && !job.is_stopped();
    delete::run(&job, searched.extra, is_safe).await?;
    let mut report = std::mem::take(&mut *job.report());
    if let Some(moved) = moved {
        (report.retries, report.time, report.limited_by) =
            (moved.retries, moved.time, moved.limited_by);
    }
    report.elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    report.throughput_bytes_per_s = crate::report::throughput(report.bytes, started.elapsed());
    report.stopped = job.is_stopped();
    report.complete = searched.is_complete;
    if let Some(mark) = mark.filter(|_| report.is_whole()) {
        mark.remove();
    }
    Ok(report)
}

/// What the parts of a job share.
struct Job {
    source: Side,
    target: Side,
    options: JobOptions,
    /// When an earlier run began it, which did not come to its end.
    begun_earlier: Option<SystemTime>,
    report: Mutex<JobReport>,
}

impl Job {
    fn new(name: &'static str, source: Side, target: Side, options: JobOptions) -> Self {
        let report = JobReport {
            job: name,
            source: source.to_string(),
            target: target.to_string(),
            dry_run: options.dry_run,
            ..JobReport::default()
        };
        Self { source, target, options, begun_earlier: None, report: Mutex::new(report) }
    }

    fn report(&self) -> MutexGuard<'_, JobReport> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether its two sides are put beside each other.
    fn compares(&self) -> bool {
        self.options.compare.is_some()
    }

    fn is_stopped(&self) -> bool {
        self.options.cancel.is_cancelled()
    }

    fn emit(&self, event: impl FnOnce() -> Event) {
        self.options.events.emit(event);
    }

    /// One thing failed; the rest goes on, unless that is not wanted.
    fn failed(&self, source: String, target: Option<String>, error: &Error) {
        if error.kind() == ErrorKind::Interrupted {
            return;
        }
        self.report().failed += 1;
        self.emit(|| Event::ObjectFailed { source, target, message: error.to_string() });
        if self.options.fail_fast {
            self.options.cancel.cancel();
        }
    }

    fn warn(&self, message: String) {
        self.emit(|| Event::Warning { message: message.clone() });
        self.report().warnings.push(message);
    }
}
