//! A folder's files, in the order in which a store lists their keys.
//!
//! Keys are ordered by their bytes, and a folder is no key: what is in `a/` comes after `a-b` and before `a0`. So
//! each folder is read whole, its names are sorted with a `/` after those of folders, and folders are entered as they
//! come. What is in memory is the names of the folders that are entered just now, and a folder of more than a million names
//! goes through a sort on disk.
//!
//! It runs on a thread of its own, since it blocks on disks, and hands batches over; it waits where nobody takes them.
//! Files are looked at once, in the order of their inodes within a batch, which is how disks have them; where that is slow, as on a
//! network's file system, by many threads.

mod folder;
mod look;
mod walker;

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::thread;

use futures::Stream;
use tokio::sync::mpsc;

use super::entry::Entry;
use super::filter::Filter;
use super::sort::SortOptions;
use crate::error::{Error, Result};
use crate::options::Cancel;

const OPERATION: &str = "walk";

/// Files and notes in one batch, at most.
const BATCH: usize = 1024;

/// Batches that wait to be taken, at most: enough for the walk to go on while a batch is being looked at.
const BATCHES_AHEAD: usize = 4;

/// More names than this in one folder are sorted on disk: some 50 MB of them.
const MAX_NAMES_IN_MEMORY: usize = 1_000_000;

/// How a folder is walked.
///
/// ```
/// use brigade::dataset::WalkOptions;
///
/// let options = WalkOptions { follow_symlinks: false, ..WalkOptions::default() };
/// assert_eq!(options.sort.budget_bytes, 64 << 20);
/// ```
#[derive(Debug, Clone)]
pub struct WalkOptions {
    /// Whether links are what they point to. Otherwise they are skipped, each with a note.
    pub follow_symlinks: bool,
    /// Names that are left out, without a note, and folders that are not entered. Its bounds of size and time do not
    /// count here: a pair of a comparison is judged by them.
    pub filter: Filter,
    /// How and where folders of more than a million names are sorted.
    pub sort: SortOptions,
    /// Stops the walk, which is not complete then.
    pub cancel: Cancel,
}

impl Default for WalkOptions {
    /// Links are followed, nothing is left out.
    fn default() -> Self {
        Self {
            follow_symlinks: true,
            filter: Filter::default(),
            sort: SortOptions::default(),
            cancel: Cancel::default(),
        }
    }
}

/// What a walk comes by.
#[derive(Debug)]
#[non_exhaustive]
pub enum Walked {
    /// A file; its name is relative to the root.
    File(Entry),
    /// Something that is not taken, told once.
    Skipped {
        /// Its name relative to the root, with a `/` at the end where it is a folder. What is not UTF-8 in it is replaced.
        name: String,
        /// Why not.
        why: Skip,
    },
    /// A folder or a file that could not be looked at. The walk goes on and is not complete.
    Failed(Error),
}

/// Why something is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Skip {
    /// A device, a socket or a pipe.
    Special,
    /// A link, where links are not followed.
    Link,
    /// A link to one of the folders that it lies in.
    Loop,
    /// A link to what is not there. The walk is not complete: what it should point to may come back.
    Dangling,
    /// Its name is not UTF-8, and no key can be.
    NotUtf8,
    /// Its name is longer than a key can be, 1024 bytes.
    TooLong,
    /// It became something else while it was looked at. The walk is not complete.
    Changed,
}

impl Skip {
    /// In words: `PATH is …`.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Special => "not a regular file",
            Self::Link => "a symbolic link",
            Self::Loop => "a symbolic link to a folder that it lies in",
            Self::Dangling => "a symbolic link to nothing",
            Self::NotUtf8 => "of a name that is not UTF-8",
            Self::TooLong => "of a name that is longer than 1024 bytes",
            Self::Changed => "something else than a moment before",
        }
    }
}

/// A walk under way: a stream of batches, or an iterator that blocks ([`Walk::blocking`]). Dropped, it stops.
#[derive(Debug)]
pub struct Walk {
    batches: mpsc::Receiver<Vec<Walked>>,
    /// Set by the walker when it has been everywhere.
    is_complete: Arc<AtomicBool>,
}

/// Begins to walk the folder `root`. Its files come in the order of their names' bytes, those names being relative to it with `/`
/// between folders; notes and failures come where they arise. Partial files of downloads by this crate
/// and their manifests are no content and left out.
///
/// ```
/// use brigade::dataset::{WalkOptions, Walked, walk};
///
/// let folder = tempfile::tempdir()?;
/// std::fs::create_dir(folder.path().join("a"))?;
/// for name in ["a0", "a/x", "a-b"] {
///     std::fs::write(folder.path().join(name), name)?;
/// }
/// let mut walk = walk(folder.path(), WalkOptions::default())?;
/// let mut names = Vec::new();
/// for walked in walk.blocking() {
///     if let Walked::File(entry) = walked {
///         names.push(entry.name);
///     }
/// }
/// assert_eq!(names, ["a-b", "a/x", "a0"]);
/// assert!(walk.is_complete());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// Where no thread can be made. That `root` cannot be read is a [`Walked::Failed`].
pub fn walk(root: impl Into<PathBuf>, options: WalkOptions) -> Result<Walk> {
    let root = root.into();
    let (sender, batches) = mpsc::channel(BATCHES_AHEAD);
    let is_complete = Arc::new(AtomicBool::new(false));
    let completed = Arc::clone(&is_complete);
    let failed = |source| Error::io(OPERATION, &root, source);
    let walked = root.clone();
    thread::Builder::new()
        .name("brigade-walk".into())
        .spawn(move || walker::run(&walked, &options, &sender, &completed))
        .map_err(failed)?;
    Ok(Walk { batches, is_complete })
}

impl Walk {
    /// Whether everything was seen: the walk is over, was not stopped, and nothing was in its way. Before the end it is false.
    /// Only then may what is not among its files be taken for gone.
    pub fn is_complete(&self) -> bool {
        self.is_complete.load(Ordering::Acquire)
    }

    /// One by one, for code that may block.
    ///
    /// # Panics
    ///
    /// In asynchronous code, where the stream is meant.
    pub fn blocking(&mut self) -> impl Iterator<Item = Walked> {
        std::iter::from_fn(|| self.batches.blocking_recv()).flatten()
    }
}

impl Stream for Walk {
    /// Never empty.
    type Item = Vec<Walked>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.batches.poll_recv(cx)
    }
}

#[cfg(test)]
mod tests;
