//! Files that were written become durable together, and then get their names.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::Item;
use crate::error::{Error, Result};
use crate::file::{parent_of, sync_folder};

/// Files of one batch at most, so that none waits for long and a crash loses little.
const MAX_BATCH: usize = 4096;

/// Folders that are remembered, at most.
const MAX_FOLDERS: usize = 4096;

/// A file that was written in full under a name of its own; without another one it is removed.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) partial: Unnamed,
    pub(super) file_system: FileSystem,
    /// Has the name that the file gets.
    pub(super) item: Item,
    pub(super) bytes: u64,
    pub(super) is_proven: bool,
}

/// The path of a file that is removed when this is dropped.
#[derive(Debug)]
pub(super) struct Unnamed(pub(super) PathBuf);

impl Unnamed {
    /// Gives the file its name.
    fn rename(self, target: &Path) -> io::Result<()> {
        std::fs::rename(&self.0, target)?;
        // Nothing of the old name is left to be removed.
        std::mem::forget(self);
        Ok(())
    }
}

impl Drop for Unnamed {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// What `syncfs` is called on: a folder that was opened before anything was written, since it tells of
/// the errors that happened from then on. `None` where no folder could be opened, and each file is
/// synced by itself.
#[derive(Debug, Clone)]
pub(super) struct FileSystem(pub(super) Option<Arc<File>>);

/// The folders of a job's files, and their file systems.
#[derive(Debug, Default)]
pub(super) struct Folders(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    folders: HashMap<PathBuf, FileSystem>,
    by_device: HashMap<u64, FileSystem>,
}

impl Folders {
    /// Sees to it that `folder` is there.
    pub(super) fn make(&self, folder: &Path) -> Result<FileSystem> {
        if let Some(known) = self.known().folders.get(folder) {
            return Ok(known.clone());
        }
        std::fs::create_dir_all(folder).map_err(|e| Error::io("download", folder, e))?;
        let opened = File::open(folder).and_then(|file| Ok((file.metadata()?.dev(), file)));
        let mut known = self.known();
        let file_system = match opened {
            Ok((device, file)) => known
                .by_device
                .entry(device)
                .or_insert_with(|| FileSystem(Some(Arc::new(file))))
                .clone(),
            Err(_) => FileSystem(None),
        };
        if known.folders.len() >= MAX_FOLDERS {
            known.folders.clear();
        }
        known.folders.insert(folder.to_owned(), file_system.clone());
        Ok(file_system)
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What became of a file.
pub(super) struct Settled {
    pub(super) item: Item,
    pub(super) bytes: u64,
    pub(super) is_proven: bool,
    pub(super) outcome: Result<()>,
}

/// The thread that settles what is sent to it, and where its outcomes are told.
pub(super) fn start(
    tell: impl Fn(Settled) + Send + 'static,
) -> (Sender<Written>, tokio::task::JoinHandle<()>) {
    // A bounded queue holds up the workers of a disk that cannot follow.
    let (sender, mut receiver) = channel(2 * MAX_BATCH);
    (sender, tokio::task::spawn_blocking(move || run(&mut receiver, tell)))
}

fn run(queue: &mut Receiver<Written>, tell: impl Fn(Settled)) {
    let mut batch = Vec::new();
    while queue.blocking_recv_many(&mut batch, MAX_BATCH) > 0 {
        settle(std::mem::take(&mut batch), &tell);
    }
}

/// In this order, so that no name ever stands for bytes that a power cut could take: the bytes, the
/// names, the folders.
fn settle(batch: Vec<Written>, tell: &impl Fn(Settled)) {
    let mut synced: HashMap<*const File, io::Result<()>> = HashMap::new();
    let mut folders: BTreeMap<PathBuf, io::Result<()>> = BTreeMap::new();
    let mut named = Vec::with_capacity(batch.len());
    for written in batch {
        let Written { partial, file_system, item, bytes, is_proven } = written;
        let durable = file_system.0.map_or(&Ok(()), |folder| {
            let sync = || Ok(rustix::fs::syncfs(&folder)?);
            synced.entry(Arc::as_ptr(&folder)).or_insert_with(sync)
        });
        let outcome = match durable {
            Ok(()) => partial.rename(&item.file),
            Err(failure) => Err(same(failure)),
        };
        if outcome.is_ok() {
            folders.insert(parent_of(&item.file).to_owned(), Ok(()));
        }
        named.push((Settled { item, bytes, is_proven, outcome: Ok(()) }, outcome));
    }
    for (folder, outcome) in &mut folders {
        *outcome = sync_folder(folder);
    }
    for (mut settled, outcome) in named {
        let target = &settled.item.file;
        let in_folder = folders.get(parent_of(target)).unwrap_or(&Ok(()));
        let outcome = outcome.and_then(|()| in_folder.as_ref().map_err(same).copied());
        settled.outcome = outcome.map_err(|source| Error::io("download", target, source));
        tell(settled);
    }
}

/// An error that many files have in common.
fn same(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(folders: &Folders, target: PathBuf) -> Written {
        let file_system = folders.make(parent_of(&target)).expect("a folder");
        let partial = target.with_extension("partial");
        std::fs::write(&partial, "content").expect("written");
        let item = Item::between(target, String::new());
        Written { partial: Unnamed(partial), file_system, item, bytes: 7, is_proven: true }
    }

    #[test]
    fn each_file_has_an_outcome_of_its_own() {
        let scratch = tempfile::tempdir().expect("a folder");
        let folders = Folders::default();
        let good = written(&folders, scratch.path().join("a/b/good"));
        let bad = written(&folders, scratch.path().join("bad"));
        let gone = written(&folders, scratch.path().join("gone/file"));
        // A folder where the name should go, and a folder that is no more.
        std::fs::create_dir_all(&bad.item.file).expect("a folder");
        std::fs::remove_dir_all(scratch.path().join("gone")).expect("removed");
        let told = Mutex::new(Vec::new());
        settle(vec![good, bad, gone], &|settled: Settled| told.lock().unwrap().push(settled));
        let told = told.into_inner().unwrap();
        let outcomes: Vec<bool> = told.iter().map(|settled| settled.outcome.is_ok()).collect();
        assert_eq!(outcomes, [true, false, false]);
        assert_eq!(std::fs::read(scratch.path().join("a/b/good")).expect("there"), b"content");
        // What has no name is not left behind.
        assert!(!scratch.path().join("bad.partial").exists());
    }
}
