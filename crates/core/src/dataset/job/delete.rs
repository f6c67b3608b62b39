//! What only the target has, deleted at the end.

use std::path::PathBuf;

use futures::{Stream, StreamExt as _};

use super::{Job, Side};
use crate::dataset::{DeleteOptions, Deletion, Entry, Sorter};
use crate::engine::blocking;
use crate::error::{Error, ErrorKind, Result};
use crate::object::Bucket;
use crate::progress::Event;

/// Names that are deleted, or only told, between two looks at whether the job was stopped.
const BATCH: usize = 1000;

/// Lists of outcomes that wait to be told.
const OUTCOMES: usize = 16;

/// Deletes the names in `extra` from the target, where it is known that they are too many there.
pub(super) async fn run(job: &Job, extra: Option<(Sorter, u64)>, is_safe: bool) -> Result<()> {
    let Some((names, count)) = extra.filter(|(_, count)| *count > 0) else { return Ok(()) };
    let limit = job.options.max_delete.unwrap_or(u64::MAX);
    let why = if job.is_stopped() {
        None
    } else if !is_safe {
        Some("not everything on both sides was seen, or not in order".to_owned())
    } else if job.report().failed > 0 {
        Some("something else failed".to_owned())
    } else if count > limit {
        Some(format!("{count} are more than the {limit} that may be deleted"))
    } else {
        return carry_out(job, names).await;
    };
    job.report().not_deleted = count;
    if let Some(why) = why {
        job.warn(format!("nothing was deleted at {}: {why}", job.target));
    }
    Ok(())
}

async fn carry_out(job: &Job, names: Sorter) -> Result<()> {
    let mut sorted = blocking("delete", move || names.finish()).await?;
    if job.options.dry_run {
        for entry in sorted {
            let Entry { name, size_bytes: bytes, .. } = entry?;
            let target = job.target.place_of(&name);
            let (action, reason) = ("delete", "only the target has it");
            job.report().deleted += 1;
            job.emit(|| Event::Planned { action, source: None, target, bytes, reason });
            job.options.events.until_heard().await;
        }
        return Ok(());
    }
    match &job.target {
        Side::Objects { bucket, prefix, .. } => {
            let prefix = prefix.clone();
            // Read from this machine's disk as they are sent: there may be millions.
            let (failure, failed) = std::sync::mpsc::channel();
            let keys = std::iter::from_fn(move || match sorted.next()? {
                Ok(entry) => Some((format!("{prefix}{}", entry.name), None)),
                Err(error) => {
                    // It is looked for below.
                    let _ = failure.send(error);
                    None
                }
            });
            of_store(job, &job.target, bucket, futures::stream::iter(keys)).await?;
            failed.try_recv().map_or(Ok(()), Err)
        }
        Side::Folder(folder) => {
            let mut sorted = sorted.peekable();
            while sorted.peek().is_some() && !job.is_stopped() {
                let batch = sorted.by_ref().take(BATCH).collect::<Result<Vec<_>>>()?;
                let paths = batch.iter().map(|entry| folder.join(&entry.name)).collect();
                for (path, removed) in remove(paths).await? {
                    let shown = path.display().to_string();
                    match removed {
                        Ok(()) => {
                            job.report().deleted += 1;
                            job.emit(|| Event::ObjectDeleted { target: shown });
                        }
                        Err(error) => job.failed(shown, None, &error),
                    }
                }
                job.options.events.until_heard().await;
            }
            Ok(())
        }
    }
}

async fn remove(paths: Vec<PathBuf>) -> Result<Vec<(PathBuf, Result<()>)>> {
    let remove = |path: PathBuf| {
        let removed = std::fs::remove_file(&path);
        let removed = removed.map_err(|source| Error::io("delete", &path, source));
        (path, removed)
    };
    blocking("delete", move || Ok(paths.into_iter().map(remove).collect())).await
}

/// Deletes objects of `side`, and counts and tells what becomes of each.
pub(super) async fn of_store(
    job: &Job,
    side: &Side,
    bucket: &Bucket,
    keys: impl Stream<Item = (String, Option<String>)> + Send + 'static,
) -> Result<()> {
    let (outcomes, mut told) = futures::channel::mpsc::channel(OUTCOMES);
    let options = DeleteOptions {
        outcomes: Some(outcomes),
        cancel: job.options.cancel.clone(),
        events: job.options.events.for_one_of_many(),
        ..DeleteOptions::default()
    };
    let telling = async {
        while let Some(deletions) = told.next().await {
            for Deletion { key, error, .. } in deletions {
                let target = format!("s3://{}/{key}", bucket.name());
                match error {
                    None => {
                        job.report().deleted += 1;
                        job.emit(|| Event::ObjectDeleted { target });
                    }
                    Some(error) => job.failed(target, None, &error),
                }
            }
            job.options.events.until_heard().await;
        }
    };
    let (report, ()) = futures::join!(bucket.delete_objects(keys, options), telling);
    match report?.ended_by {
        Some(error) if error.kind() != ErrorKind::Interrupted => {
            job.failed(side.to_string(), None, &error);
            Ok(())
        }
        _ => Ok(()),
    }
}
