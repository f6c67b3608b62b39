//! What a job of many objects came to.

use serde::Serialize;

use crate::report::TimeSpent;

/// The outcome of a job of many objects. Serialises to the last line that `--json` prints (docs/CLI.md
/// lists the fields). What failed was told one by one ([`crate::progress::Event::ObjectFailed`]).
///
/// ```no_run
/// # async fn run(bucket: brigade::Bucket) -> brigade::Result<()> {
/// use brigade::dataset::{JobOptions, Side, copy};
///
/// let there = Side::objects(&bucket, "photos");
/// let report = copy(&Side::Folder("photos".into()), &there, JobOptions::default()).await?;
/// assert!(report.is_whole());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default, Serialize)]
#[non_exhaustive]
pub struct JobReport {
    /// `copy`, `move`, `sync` or `run`.
    pub job: &'static str,
    /// From where.
    pub source: String,
    /// To where.
    pub target: String,
    /// Whether it was only told what would be done; the numbers are of that then.
    pub dry_run: bool,
    /// Objects that were moved and, where anything could be compared, proven.
    pub objects: u64,
    /// Their payload bytes.
    pub bytes: u64,
    /// Those of them that nothing could be held against.
    pub unverified: u64,
    /// Objects that the other side had already, those that an earlier run of the job moved included.
    pub same: u64,
    /// What is not part of the job: filtered names are not counted, what cannot be moved is.
    pub skipped: u64,
    /// Objects that could not be moved or deleted, folders and pages that could not be read.
    pub failed: u64,
    /// Objects or files that were deleted.
    pub deleted: u64,
    /// Those that should have been and were left, because not everything was seen or too many were to go.
    pub not_deleted: u64,
    /// Wall time, milliseconds.
    pub elapsed_ms: u64,
    /// The bytes over the wall time.
    pub throughput_bytes_per_s: u64,
    /// Requests that were made once more.
    pub retries: u64,
    /// Where the time went.
    pub time: TimeSpent,
    /// What most of it went to, as a person would say it.
    pub limited_by: &'static str,
    /// Whether the job was stopped before its end.
    pub stopped: bool,
    /// Whether everything on the sides that were looked at was seen.
    pub complete: bool,
    /// What the person should know although it did not end the job.
    pub warnings: Vec<String>,
}

impl JobReport {
    /// Whether everything was seen and done.
    pub fn is_whole(&self) -> bool {
        self.complete && !self.stopped && self.failed == 0 && self.not_deleted == 0
    }
}
