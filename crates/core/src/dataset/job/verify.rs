//! A folder held against a bucket: what both have, by its content.

use std::sync::Arc;
use std::time::Instant;

use futures::{Stream, StreamExt as _};
use serde::Serialize;

use super::search::{Seeing, in_order};
use super::side::{Listed, Role};
use super::{Job, JobOptions, Side};
use crate::dataset::{Compared, Pair, compare};
use crate::download::{Content, check};
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::progress::Event;
use crate::url::S3Url;

/// Files that are read, and objects that are asked about, at once.
const AT_ONCE: usize = 16;

/// What a verification came to. Serialises to the last line that `--json` prints (docs/CLI.md lists the
/// fields). Each name was told as it was compared ([`Event::Compared`]).
#[derive(Debug, Clone, Default, Serialize)]
#[non_exhaustive]
pub struct VerifyReport {
    /// The folder.
    pub source: String,
    /// Where the objects are.
    pub target: String,
    /// Files that are proven to be their objects.
    pub identical: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that are not their objects.
    pub different: u64,
    /// Files without an object.
    pub missing: u64,
    /// Objects without a file.
    pub extra: u64,
    /// Those of which the store has recorded nothing that could be compared.
    pub unverifiable: u64,
    /// Those that could not be read or asked about, folders and pages included.
    pub failed: u64,
    /// Wall time, milliseconds.
    pub elapsed_ms: u64,
    /// Whether it was stopped before its end.
    pub stopped: bool,
    /// Whether everything on both sides was seen.
    pub complete: bool,
}

impl VerifyReport {
    /// Whether both sides are proven to be the same.
    pub fn is_proof(&self) -> bool {
        self.complete
            && !self.stopped
            && self.different + self.missing + self.extra + self.unverifiable + self.failed == 0
    }
}

/// What one name came to.
enum Verdict {
    Identical(u64),
    Different(String),
    Missing,
    Extra,
    Unverifiable(String),
    Failed(Error),
}

/// Holds what is in `folder`, a [`Side::Folder`], against `objects`, by what the store has recorded of their
/// content, whatever the parts they were uploaded in. Nothing is downloaded.
///
/// # Errors
///
/// Where the sides are no folder and no objects.
pub async fn verify(folder: &Side, objects: &Side, options: JobOptions) -> Result<VerifyReport> {
    let (Side::Folder(_), Side::Objects { bucket, .. }) = (folder, objects) else {
        let kind = ErrorKind::InvalidInput;
        return Err(Error::new(
            kind,
            "verify",
            folder.to_string(),
            "it takes a folder and objects",
        )
        .advise("write it as verify DIR s3://bucket/prefix"));
    };
    let cancel = options.cancel.child();
    // Sizes are compared first: other sizes are other contents.
    let compare = Some(Compared::Size);
    let options = JobOptions { cancel: cancel.clone(), compare, ..options };
    let (folder, objects) = (folder.clone(), objects.clone());
    let run = |engine| run(engine, folder, objects, options);
    bucket.engine.drive_cancellable(cancel, run).await
}

async fn run(
    engine: Engine,
    folder: Side,
    objects: Side,
    options: JobOptions,
) -> Result<VerifyReport> {
    let started = Instant::now();
    let job = Arc::new(Job::new("verify", folder, objects, options));
    job.emit(|| Event::JobStarted {
        job: "verify",
        source: job.source.to_string(),
        target: job.target.to_string(),
        dry_run: false,
    });
    let (here, there) = (Seeing::default(), Seeing::default());
    let ours = Listed::of(&job.source, None, &job.options, Role::Source)?;
    let theirs = Listed::of(&job.target, None, &job.options, Role::Target)?;
    let left = in_order(&job, &job.source, ours, &here, true);
    let right = in_order(&job, &job.target, theirs, &there, true);
    let mut report = VerifyReport {
        source: job.source.to_string(),
        target: job.target.to_string(),
        ..VerifyReport::default()
    };
    count(&engine, &job, compare(left, right), &there, &mut report).await?;
    job.emit(|| Event::AllFound);
    report.failed += job.report().failed;
    report.stopped = job.is_stopped();
    report.complete = here.is_complete() && there.is_complete();
    report.elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(report)
}

async fn count(
    engine: &Engine,
    job: &Job,
    pairs: impl Stream<Item = Result<Vec<Pair>>>,
    theirs: &Seeing,
    report: &mut VerifyReport,
) -> Result<()> {
    let mut pairs = std::pin::pin!(pairs);
    while let Some(batch) = pairs.next().await {
        let filter = &job.options.filter;
        let batch: Vec<_> = batch?.into_iter().filter(|it| filter.admits_pair(it)).collect();
        if theirs.is_cut() || job.is_stopped() {
            break;
        }
        job.options.events.until_heard().await;
        let (objects, bytes) = (batch.len() as u64, batch.iter().map(size_of).sum());
        job.emit(|| Event::Found { objects, bytes });
        let judged = batch.into_iter().map(|pair| async {
            let name = pair.name().to_owned();
            (name, judge(engine, job, pair).await)
        });
        let mut judged = futures::stream::iter(judged).buffer_unordered(AT_ONCE);
        while let Some((name, verdict)) = judged.next().await {
            tell(job, name, verdict, report);
        }
    }
    Ok(())
}

fn size_of(pair: &Pair) -> u64 {
    pair.left.as_ref().or(pair.right.as_ref()).map_or(0, |entry| entry.size_bytes)
}

async fn judge(engine: &Engine, job: &Job, pair: Pair) -> Verdict {
    match (pair.left, pair.right) {
        (Some(ours), Some(theirs)) if ours.size_bytes != theirs.size_bytes => Verdict::Different(
            format!("{} bytes here, {} in the store", ours.size_bytes, theirs.size_bytes),
        ),
        (Some(ours), Some(_)) => match content(engine, job, &ours.name).await {
            Ok(Content::Same(_)) => Verdict::Identical(ours.size_bytes),
            Ok(Content::Different(why)) => Verdict::Different(why),
            Ok(Content::Unknown(why)) => Verdict::Unverifiable(why),
            Err(error) => Verdict::Failed(error),
        },
        (Some(_), None) => Verdict::Missing,
        (None, _) => Verdict::Extra,
    }
}

/// Holds the file of a name against the object of that name, whichever of them is the source.
pub(super) async fn content(engine: &Engine, job: &Job, name: &str) -> Result<Content> {
    let ((Side::Folder(folder), Side::Objects { bucket, prefix, .. })
    | (Side::Objects { bucket, prefix, .. }, Side::Folder(folder))) = (&job.source, &job.target)
    else {
        return Ok(Content::Unknown("both are in stores".into()));
    };
    let mut options = job.options.download.clone();
    options.cancel = job.options.cancel.clone();
    let url = S3Url::of(bucket.name(), format!("{prefix}{name}"));
    let window = engine.window(options.concurrency);
    check(engine, &url, &folder.join(name), &options, window).await
}

fn tell(job: &Job, name: String, verdict: Verdict, report: &mut VerifyReport) {
    let (outcome, reason, count) = match verdict {
        Verdict::Identical(bytes) => {
            report.bytes += bytes;
            ("identical", None, &mut report.identical)
        }
        Verdict::Different(why) => ("different", Some(why), &mut report.different),
        Verdict::Missing => ("missing", None, &mut report.missing),
        Verdict::Extra => ("extra", None, &mut report.extra),
        Verdict::Unverifiable(why) => ("unverifiable", Some(why), &mut report.unverifiable),
        Verdict::Failed(error) => {
            return job.failed(job.source.place_of(&name), None, &error);
        }
    };
    *count += 1;
    job.emit(|| Event::Compared { name, outcome, reason });
}
