//! The mark that a copy of many objects leaves while it runs, so that the same one, begun again, does not move again
//! what is there.
//!
//! It says when the job was begun, and nothing of single objects: a list of millions of them would have to be
//! believed. What is there is seen by listing the target beside the source, as `sync` does, with one thing more: an
//! object counts only if it was written since the job was begun, so that what was there before is still replaced.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::{Job, JobOptions, Side};
use crate::engine::Engine;
use crate::file::Journal;
use crate::options::Resume;
use crate::record::{make_folder, name_of, unix_now};

/// How names of marks end, beside the manifests.
const SUFFIX: &str = ".job";

/// More is no mark of ours.
const MAX_BYTES: u64 = 64 << 10;

/// A mark on disk, locked.
#[derive(Debug)]
pub(super) struct Mark {
    journal: Journal,
    /// When an earlier run began what this one goes on with.
    pub(super) earlier: Option<SystemTime>,
}

/// What is in it (docs/MANIFEST.md).
#[derive(Debug, Serialize, Deserialize)]
struct Content {
    brigade_job: u32,
    source: String,
    target: String,
    begun_unix_s: u64,
}

impl Mark {
    /// Leaves a mark of a copy, or finds that of an earlier run. `None` where there is nothing to be gone on with:
    /// of what is compared anyway, or goes once it was moved; where nothing is recorded or can be; and where another
    /// process is at the very same job. A mark that cannot be read costs no more than that all is moved again.
    pub(super) fn leave(
        engine: &Engine,
        source: &Side,
        target: &Side,
        options: &JobOptions,
    ) -> Option<Self> {
        let is_plain = options.compare.is_none() && !options.remove_source && !options.dry_run;
        let resume = match (source, target) {
            (Side::Folder(_), _) => options.upload.resume,
            (_, Side::Folder(_)) => options.download.resume,
            _ => options.copy.resume,
        };
        let folder = engine.manifest_folder().filter(|_| is_plain && resume != Resume::Off)?;
        make_folder(folder).ok()?;
        let (from, to) = (whole_name(source), whole_name(target));
        let asked = (&options.upload, &options.copy);
        // What an object would be made of otherwise is another job.
        let asked = format!(
            "{:?}",
            (
                (
                    &asked.0.storage_class,
                    &asked.0.content_type,
                    &asked.0.metadata,
                    &asked.0.encryption
                ),
                (&asked.1.storage_class, &asked.1.description, &asked.1.encryption),
            )
        );
        let endpoint = engine.store().endpoint_url().unwrap_or_default();
        let place = [endpoint, &from, &to, &asked].map(str::as_bytes);
        let path = folder.join(name_of(&place, &to, SUFFIX));
        let (journal, content) = Journal::open(&path, MAX_BYTES).ok()?;
        let content = serde_json::from_slice::<Content>(&content).ok();
        let content = content.filter(|it| {
            let is_this = (it.brigade_job, &it.source, &it.target) == (1, &from, &to);
            is_this && resume != Resume::StartOver
        });
        if let Some(content) = content {
            let begun = SystemTime::UNIX_EPOCH + Duration::from_secs(content.begun_unix_s);
            return Some(Self { journal, earlier: Some(begun) });
        }
        let content =
            Content { brigade_job: 1, source: from, target: to, begun_unix_s: unix_now() };
        let mut line = serde_json::to_vec(&content).ok()?;
        line.push(b'\n');
        let written = journal.truncate(0).and_then(|()| journal.append(&line));
        written.and_then(|()| journal.sync()).ok()?;
        Some(Self { journal, earlier: None })
    }

    /// The job came to its end.
    pub(super) fn remove(&self) {
        self.journal.remove();
    }
}

/// What a side is called anywhere.
fn whole_name(side: &Side) -> String {
    match side {
        Side::Folder(folder) => {
            let whole = std::path::absolute(folder).unwrap_or_else(|_| folder.clone());
            whole.display().to_string()
        }
        Side::Objects { pattern: Some(pattern), .. } => format!("{side} {pattern:?}"),
        Side::Objects { .. } => side.to_string(),
    }
}

impl Job {
    /// Whether an earlier run of this very job may have left the target's entry, as far as its time tells.
    pub(super) fn may_have_left(&self, modified: Option<SystemTime>) -> bool {
        match (self.begun_earlier, &self.target) {
            // A file has its object's time.
            (None, _) | (_, Side::Folder(_)) => true,
            (Some(begun), Side::Objects { .. }) => modified.is_some_and(|it| it >= begun),
        }
    }
}
