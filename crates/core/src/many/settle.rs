//! Files that were written become durable together, and then get their names.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use tokio::sync::mpsc::{Receiver, Sender, channel};

use crate::error::{Error, Result};

/// Files of one batch at most, so that none waits for long and a crash loses little.
const MAX_BATCH: usize = 4096;

/// A file that was written in full under a name of its own.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) partial: PathBuf,
    pub(super) target: PathBuf,
    pub(super) key: String,
    pub(super) bytes: u64,
    pub(super) is_proven: bool,
}

/// What became of it.
pub(super) type Settled = (Written, Result<()>);

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
        let batch = std::mem::take(&mut batch);
        for settled in settle(batch) {
            tell(settled);
        }
    }
}

/// In this order, so that no name ever stands for bytes that a power cut could take: the bytes, the
/// names, the folders.
fn settle(batch: Vec<Written>) -> Vec<Settled> {
    let folders: BTreeSet<PathBuf> =
        batch.iter().map(|written| folder_of(&written.target).to_owned()).collect();
    let failed = |source, path: &Path| Error::io("download", path, source);
    // One of each file system.
    let mut synced = BTreeSet::new();
    let mut problem = None;
    for folder in &folders {
        let sync = || -> std::io::Result<()> {
            let folder = File::open(folder)?;
            if synced.insert(folder.metadata()?.dev()) {
                rustix::fs::syncfs(&folder)?;
            }
            Ok(())
        };
        if let Err(source) = { sync }() {
            problem = Some((source, folder.clone()));
            break;
        }
    }
    if let Some((source, folder)) = problem {
        let kind = source.kind();
        return batch
            .into_iter()
            .map(|written| {
                let _ = std::fs::remove_file(&written.partial);
                let error = failed(kind.into(), &folder);
                (written, Err(error))
            })
            .collect();
    }
    let settled: Vec<Settled> = batch
        .into_iter()
        .map(|written| {
            let named = std::fs::rename(&written.partial, &written.target);
            let named = named.map_err(|source| {
                let _ = std::fs::remove_file(&written.partial);
                failed(source, &written.target)
            });
            (written, named)
        })
        .collect();
    for folder in folders {
        // Some network file systems cannot; the files themselves are safe and in place.
        let _ = File::open(folder).and_then(|folder| folder.sync_all());
    }
    settled
}

pub(super) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
