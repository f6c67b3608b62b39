//! Finding what is to be moved.

use futures::SinkExt as _;
use futures::channel::mpsc;

use super::side::{Names, Seen, below};
use super::{Job, Side};
use crate::dataset::{Entry, Sorter};
use crate::error::{Error, ErrorKind, Result};
use crate::many::Item;
use crate::progress::Event;

/// What the search came to.
pub(super) struct Searched {
    /// Whether everything of the sides that were looked at was seen.
    pub(super) is_complete: bool,
    /// Whether all of it came in order.
    pub(super) is_ordered: bool,
    /// Names that only the target has, and how many, where they are to be deleted.
    pub(super) extra: Option<(Sorter, u64)>,
}

/// Hands on everything that is to be moved.
pub(super) async fn run(job: &Job, mut items: mpsc::Sender<Item>) -> Result<Searched> {
    let options = &job.options;
    let mut names = Names::of(&job.source, None, options.follow_symlinks, &options.cancel)?;
    let mut number = 0;
    while let Some(batch) = names.next().await {
        options.events.until_heard().await;
        let mut found = Vec::with_capacity(batch.len());
        for seen in batch {
            if let Some(entry) = admitted(job, seen) {
                found.push(entry);
            }
        }
        tell_found(job, &found);
        for entry in found {
            number += 1;
            if !hand_on(job, &mut items, entry, number, "it is to be copied").await {
                // The movers ended, and tell why.
                break;
            }
        }
        if job.is_stopped() {
            break;
        }
    }
    job.emit(|| Event::AllFound);
    let (is_complete, is_ordered) = (names.is_complete(), names.is_ordered());
    Ok(Searched { is_complete, is_ordered, extra: None })
}

/// An entry that belongs to the job; what does not, and is no matter of course, is told.
fn admitted(job: &Job, seen: Seen) -> Option<Entry> {
    match seen {
        Seen::Entry(entry) => {
            let admits = job.options.admits.as_ref().is_none_or(|admits| (admits.0)(&entry));
            admits.then_some(entry)
        }
        Seen::Skipped(name, reason) => {
            job.report().skipped += 1;
            job.emit(|| Event::ObjectSkipped { source: job.source.place_of(&name), reason });
            None
        }
        Seen::Failed(error) => {
            job.failed(error.target().to_owned(), None, &error);
            None
        }
    }
}

fn tell_found(job: &Job, found: &[Entry]) {
    if !found.is_empty() {
        let (objects, bytes) = (found.len() as u64, found.iter().map(|it| it.size_bytes).sum());
        job.emit(|| Event::Found { objects, bytes });
    }
}

/// Puts one into the queue, or tells that it would be. False where nobody takes them any more.
async fn hand_on(
    job: &Job,
    items: &mut mpsc::Sender<Item>,
    entry: Entry,
    number: u64,
    reason: &'static str,
) -> bool {
    let (source, bytes) = (job.source.place_of(&entry.name), entry.size_bytes);
    let (action, item) = match item_of(job, entry, number) {
        Ok(item) => item,
        Err(error) => {
            job.failed(source, None, &error);
            return true;
        }
    };
    if !job.options.dry_run {
        return items.send(item).await.is_ok();
    }
    let target = match &job.target {
        Side::Objects { bucket, .. } => format!("s3://{}/{}", bucket.name(), item.key),
        Side::Folder(_) => item.file.display().to_string(),
    };
    {
        let mut report = job.report();
        report.objects += 1;
        report.bytes += bytes;
    }
    job.emit(|| Event::Planned { action, source: Some(source), target, bytes, reason });
    true
}

fn item_of(job: &Job, entry: Entry, number: u64) -> Result<(&'static str, Item)> {
    let Entry { name, size_bytes, modified, .. } = entry;
    let (size_bytes, modified) = (Some(size_bytes), modified);
    match (&job.source, &job.target) {
        (Side::Folder(folder), Side::Objects { bucket, prefix, .. }) => {
            let key = format!("{prefix}{name}");
            if key.len() > crate::url::MAX_KEY_BYTES {
                let target = format!("s3://{}/{key}", bucket.name());
                let detail = format!("the key has {} bytes of at most 1024", key.len());
                return Err(Error::new(ErrorKind::InvalidInput, "upload to", target, detail));
            }
            let content_type = job.options.content_type.and_then(|of| of(&name));
            let file = folder.join(&name);
            let item =
                Item { file, key, size_bytes, modified, content_type, number, ..Item::default() };
            Ok(("upload", item))
        }
        (Side::Objects { prefix, .. }, Side::Folder(folder)) => {
            let file = below(folder, &name);
            let key = format!("{prefix}{name}");
            Ok(("download", Item { file, key, size_bytes, modified, number, ..Item::default() }))
        }
        _ => Err(Error::new(
            ErrorKind::Unsupported,
            "copy",
            job.source.to_string(),
            "copying many objects between stores is not there yet",
        )),
    }
}
