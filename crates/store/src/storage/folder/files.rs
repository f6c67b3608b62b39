//! Files that are either there whole or not at all.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::slots::Slot;
use crate::storage::{Content, Sink};

/// What a download reads at once, in bytes: large enough that the system calls don't matter, small enough to
/// stay in the processor's cache until it is sent.
const READ_BYTES: u64 = 256 << 10;

/// Writes a record durably, in the place of an earlier one.
pub(super) fn write_record(path: &Path, record: &impl Serialize) -> io::Result<()> {
    let staged = path.with_extension("json.new");
    let mut file = File::create(&staged)?;
    file.write_all(&serde_json::to_vec_pretty(record)?)?;
    file.sync_all()?;
    fs::rename(&staged, path)?;
    sync_parent(path)
}

/// Reads a record; one that cannot be read names itself in the error.
pub(super) fn read_record<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    serde_json::from_slice(&fs::read(path)?).map_err(|error| {
        io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", path.display()))
    })
}

/// Makes what happened to a file's name durable.
pub(super) fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// Removes a file that may be gone already.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Renames a file, creating the folders above its new place.
pub(super) fn rename_into(from: &Path, to: &Path) -> io::Result<()> {
    // Nearly always the folders are there.
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        done => return done,
    }
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::rename(from, to)
}

/// Removes a folder with all that is in it; it may be gone already.
pub(super) fn remove_all(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes the folders above a file that it leaves empty, up to and without `top`.
pub(super) fn remove_empty_parents(path: &Path, top: &Path) {
    for parent in
        path.ancestors().skip(1).take_while(|parent| *parent != top && parent.starts_with(top))
    {
        // The first one that is not empty ends it.
        if fs::remove_dir(parent).is_err() {
            break;
        }
    }
}

/// The entries of a folder; none where there is no folder.
pub(super) fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| entry.map(|entry| entry.path())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// A file, or a slot of one, with the bytes of an object or a part. Until it is [kept](Self::keep), dropping
/// this removes it: a body that was cut short, refused, or received for a client that went away leaves nothing
/// behind.
#[derive(Debug)]
pub(crate) struct ContentFile {
    path: PathBuf,
    slot: Option<Slot>,
    kept: AtomicBool,
}

impl ContentFile {
    /// A file that is to stay.
    pub(super) fn kept(path: PathBuf, slot: Option<Slot>) -> Self {
        Self { path, slot, kept: AtomicBool::new(true) }
    }

    /// A file that is to go unless it is kept.
    pub(super) fn staged(path: PathBuf, slot: Option<Slot>) -> Self {
        Self { path, slot, kept: AtomicBool::new(false) }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn slot(&self) -> Option<&Slot> {
        self.slot.as_ref()
    }

    /// Where in the file the bytes begin.
    pub(super) fn offset(&self) -> u64 {
        self.slot.as_ref().map_or(0, Slot::offset)
    }

    /// Lets the bytes stay, because a record speaks of them now or because they have another name.
    pub(super) fn keep(&self) {
        self.kept.store(true, Ordering::Release);
        if let Some(slot) = &self.slot {
            slot.keep();
        }
    }
}

impl Drop for ContentFile {
    fn drop(&mut self) {
        match &self.slot {
            _ if *self.kept.get_mut() => {}
            Some(slot) => slot.free(),
            // Should this fail, the next start removes it.
            None => drop(fs::remove_file(&self.path)),
        }
    }
}

/// A body on its way into a file of its own, or into its slot of one.
pub(super) struct FileSink {
    file: File,
    at: u64,
    end: u64,
    content: ContentFile,
}

impl FileSink {
    pub(super) fn create(path: PathBuf) -> io::Result<Self> {
        let file = File::create_new(&path)?;
        Ok(Self { file, at: 0, end: u64::MAX, content: ContentFile::staged(path, None) })
    }

    pub(super) fn into_slot(path: PathBuf, slot: Slot) -> io::Result<Self> {
        let (at, end) = (slot.offset(), slot.offset() + slot.length_bytes());
        // From here on the slot is freed when something fails.
        let content = ContentFile::staged(path, Some(slot));
        let file = File::options().create(true).truncate(false).write(true).open(content.path())?;
        Ok(Self { file, at, end, content })
    }
}

impl Sink for FileSink {
    fn write(&mut self, chunk: Bytes) -> io::Result<()> {
        if self.end - self.at < chunk.len() as u64 {
            return Err(io::Error::other("more bytes than were announced"));
        }
        self.file.write_all_at(&chunk, self.at)?;
        self.at += chunk.len() as u64;
        Ok(())
    }

    fn finish(self: Box<Self>) -> io::Result<Content> {
        self.file.sync_data()?;
        Ok(Content::File(Arc::new(self.content)))
    }
}

/// A range of a file, read as it is asked for.
pub(in crate::storage) fn stream(
    file: File,
    range: std::ops::Range<u64>,
) -> impl futures::Stream<Item = io::Result<Bytes>> + Send + Sync + 'static {
    let mut at = range.start;
    let mut failed = false;
    futures::stream::iter(std::iter::from_fn(move || {
        if at >= range.end || failed {
            return None;
        }
        let read = read_at(&file, at, READ_BYTES.min(range.end - at));
        match &read {
            Ok(chunk) => at += chunk.len() as u64,
            Err(_) => failed = true,
        }
        Some(read)
    }))
}

fn read_at(file: &File, at: u64, length: u64) -> io::Result<Bytes> {
    // Bounded by READ_BYTES.
    let mut buffer = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    let read = rustix::io::pread(file, rustix::buffer::spare_capacity(&mut buffer), at)?;
    if read == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    // The allocation may be larger than was asked for.
    buffer.truncate(usize::try_from(length).unwrap_or(0));
    Ok(Bytes::from(buffer))
}
