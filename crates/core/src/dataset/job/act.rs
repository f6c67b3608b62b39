//! Moving what was found, and hearing what became of each.

use std::path::Path;
use std::time::SystemTime;

use futures::SinkExt as _;
use futures::channel::mpsc;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::{Job, Side};
use crate::engine::{Engine, blocking};
use crate::error::{Error, ErrorKind, Result};
use crate::many::{self, Item, Listener, ManyReport, Outcome, Place};
use crate::options::{CopyOptions, DownloadOptions, UploadOptions};
use crate::progress::{Event, Operation};

/// Keys of moved objects that wait to be deleted.
const TO_DELETE: usize = 4096;

/// Moves everything that comes by `queue`. `None` where nothing is to be moved.
pub(super) async fn run(
    engine: &Engine,
    job: &Job,
    queue: mpsc::Receiver<Item>,
) -> Result<Option<ManyReport>> {
    if job.options.dry_run {
        return Ok(None);
    }
    // Without a bound, but never long: what is heard is counted at once, and only so many are under way.
    let (outcomes, heard) = unbounded_channel();
    let listener = Listener::new(move |outcome| {
        // It is heard until the movers have ended.
        let _ = outcomes.send(outcome);
    });
    let (moved, heard) = futures::join!(start(engine, job, queue, listener), hear(job, heard));
    heard?;
    moved.map(Some)
}

async fn start(
    engine: &Engine,
    job: &Job,
    queue: mpsc::Receiver<Item>,
    listener: Listener,
) -> Result<ManyReport> {
    let (events, cancel) = (job.options.events.clone(), job.options.cancel.clone());
    match (&job.source, &job.target) {
        (Side::Folder(_), Side::Objects { bucket, .. }) => {
            let options = UploadOptions { events, cancel, ..job.options.upload.clone() };
            many::upload(engine, bucket.name(), queue, listener, options).await
        }
        (Side::Objects { bucket, .. }, Side::Folder(_)) => {
            let asked = &job.options.download;
            // What goes by times next time needs them.
            let keep_modified = asked.keep_modified || job.compares();
            let options = DownloadOptions { keep_modified, events, cancel, ..asked.clone() };
            many::download(engine, bucket.name(), queue, listener, options).await
        }
        (Side::Objects { bucket: from, .. }, Side::Objects { bucket: to, .. }) => {
            let options = CopyOptions { events, cancel, ..job.options.copy.clone() };
            let from = Place { engine: &from.engine, bucket: from.name() };
            let to = Place { engine, bucket: to.name() };
            many::copy(from, to, queue, listener, options).await
        }
        (Side::Folder(_), Side::Folder(_)) => unreachable!("one side is in a store"),
    }
}

/// Counts and tells every outcome until there are no more, and removes the sources of what was moved,
/// where that is asked for.
async fn hear(job: &Job, mut outcomes: UnboundedReceiver<Outcome>) -> Result<()> {
    let (mut removals, queue) = mpsc::channel::<(String, Option<String>)>(TO_DELETE);
    let hearing = async move {
        let mut batch = Vec::new();
        while outcomes.recv_many(&mut batch, 256).await > 0 {
            let mut files = Vec::new();
            for outcome in batch.drain(..) {
                let Some(item) = heard(job, outcome).filter(|_| job.options.remove_source) else {
                    continue;
                };
                if matches!(job.source, Side::Objects { .. }) {
                    // Where nobody takes them any more, it is told why.
                    let _ = removals.send((item.key, None)).await;
                } else {
                    files.push(item);
                }
            }
            if !files.is_empty() {
                remove_files(job, files).await?;
            }
        }
        Ok(())
    };
    let deleting = async {
        match &job.source {
            Side::Objects { bucket, .. } if job.options.remove_source => {
                super::delete::of_store(job, &job.source, bucket, queue).await
            }
            _ => Ok(()),
        }
    };
    let (heard, deleted) = futures::join!(hearing, deleting);
    heard.and(deleted)
}

/// Counts and tells one outcome. Gives the item back where it was moved and proven.
fn heard(job: &Job, outcome: Outcome) -> Option<Item> {
    let Outcome { item, moved } = outcome;
    let (operation, source, target) = ends(job, &item);
    match moved {
        Ok((bytes, verified)) => {
            {
                let mut report = job.report();
                report.objects += 1;
                report.bytes += bytes;
                report.unverified += u64::from(!verified);
            }
            let told = source.clone();
            job.emit(|| Event::ObjectDone { operation, source: told, target, bytes, verified });
            if verified || !job.options.remove_source {
                return Some(item);
            }
            let detail = "it was moved and could not be proven, so its source was kept";
            job.failed(
                source.clone(),
                None,
                &Error::new(ErrorKind::Integrity, "move", source, detail),
            );
            None
        }
        Err(error) => {
            job.failed(source, Some(target), &error);
            None
        }
    }
}

/// What an item's two ends are called.
fn ends(job: &Job, item: &Item) -> (Operation, String, String) {
    let file = item.file.display().to_string();
    let url = |side: &Side, key: &str| match side {
        Side::Objects { bucket, .. } => format!("s3://{}/{key}", bucket.name()),
        Side::Folder(_) => file.clone(),
    };
    match (&job.source, &job.target) {
        (Side::Folder(_), target) => (Operation::Upload, file.clone(), url(target, &item.key)),
        (source, Side::Folder(_)) => (Operation::Download, url(source, &item.key), file.clone()),
        (source, target) => {
            (Operation::Copy, url(source, &item.key), url(target, &item.target_key))
        }
    }
}

/// Removes files that were moved, those that changed since excepted.
async fn remove_files(job: &Job, items: Vec<Item>) -> Result<()> {
    let removed = blocking("move", move || {
        let removed = items.into_iter().map(|item| {
            let removed = remove_unchanged(&item.file, item.size_bytes, item.modified);
            (item.file, removed)
        });
        Ok(removed.collect::<Vec<_>>())
    });
    for (file, removed) in removed.await? {
        let shown = file.display().to_string();
        match removed {
            Ok(()) => {
                job.report().deleted += 1;
                job.emit(|| Event::ObjectDeleted { target: shown });
            }
            Err(error) => job.failed(shown, None, &error),
        }
    }
    Ok(())
}

fn remove_unchanged(file: &Path, size: Option<u64>, modified: Option<SystemTime>) -> Result<()> {
    let failed = |source| Error::io("remove", file, source);
    let now = std::fs::metadata(file).map_err(failed)?;
    let is_same = size.is_none_or(|size| size == now.len())
        && modified.is_none_or(|then| now.modified().is_ok_and(|now| now == then));
    if !is_same {
        let (kind, shown) = (ErrorKind::Changed, file.display().to_string());
        let detail = "it changed after it was moved, so it was kept";
        return Err(Error::new(kind, "remove", shown, detail).advise("move it again"));
    }
    std::fs::remove_file(file).map_err(failed)
}
