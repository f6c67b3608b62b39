//! One folder's names, read and sorted as keys are.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, FileType, RawDir, Statx, StatxFlags, statx};
use rustix::io::Errno;

use super::super::sort::Sorted;
use super::super::{Entry, Sorter};
use super::{MAX_NAMES_IN_MEMORY, Skip, WalkOptions};
use crate::error::Result;
use crate::file;

/// Room for what the kernel gives at once, bytes. Names have at most 255, so that one always fits.
const READ_BYTES: usize = 64 << 10;

/// The names of one folder, given in order.
#[derive(Debug)]
pub(super) enum Names {
    /// Held.
    Here(Held),
    /// Sorted on disk; every file was looked at before.
    Spilled(Box<Sorted>),
}

/// Names in memory, those of folders with a `/` at the end.
#[derive(Debug, Default)]
pub(super) struct Held {
    text: String,
    items: Vec<Item>,
    next: usize,
}

#[derive(Debug, Clone, Copy)]
struct Item {
    begin: u32,
    length: u16,
    kind: Kind,
    inode: u64,
}

/// What a name stands for, links followed where they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Folder,
    /// A folder, by a link.
    LinkedFolder,
}

/// A name that was read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Name<'a> {
    /// With a `/` at the end where it is a folder.
    pub(super) text: &'a str,
    pub(super) kind: Kind,
    pub(super) inode: u64,
}

/// What happens to be found while a folder is read.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) names: Names,
    /// Names that are not taken.
    pub(super) skipped: Vec<(String, Skip)>,
    /// What could not be looked at, and why; an empty name is the folder itself.
    pub(super) failed: Vec<(String, Errno)>,
}

/// Reads the folder that `folder` is.
///
/// # Errors
///
/// Only of sorting on disk. What the folder itself has in the way is among what was found.
pub(super) fn read(folder: &File, options: &WalkOptions, buffer: &mut Vec<u8>) -> Result<Found> {
    read_at_most(folder, options, buffer, MAX_NAMES_IN_MEMORY)
}

/// As [`read`], with another bound.
pub(super) fn read_at_most(
    folder: &File,
    options: &WalkOptions,
    buffer: &mut Vec<u8>,
    max_names: usize,
) -> Result<Found> {
    let mut held = Held::default();
    let mut sorter: Option<Sorter> = None;
    let mut found =
        Found { names: Names::Here(Held::default()), skipped: Vec::new(), failed: Vec::new() };
    buffer.reserve(READ_BYTES);
    let mut entries = RawDir::new(folder, buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let entry = match entry {
            Ok(entry) => entry,
            // Removed meanwhile: it is as if it had been before.
            Err(Errno::NOENT) => break,
            Err(errno) => {
                found.failed.push((String::new(), errno));
                break;
            }
        };
        let bytes = entry.file_name().to_bytes();
        if matches!(bytes, b"." | b"..") {
            continue;
        }
        let Ok(name) = std::str::from_utf8(bytes) else {
            found.skipped.push((String::from_utf8_lossy(bytes).into_owned(), Skip::NotUtf8));
            continue;
        };
        let kind = match kind_of(folder.as_fd(), name, entry.file_type(), options) {
            Ok(Ok(kind)) => kind,
            Ok(Err(why)) => {
                found.skipped.push((name.to_owned(), why));
                continue;
            }
            Err(Errno::NOENT) => continue,
            Err(errno) => {
                found.failed.push((name.to_owned(), errno));
                continue;
            }
        };
        if kind == Kind::File && file::is_partial_name(name) {
            continue;
        }
        match &mut sorter {
            Some(sorter) => {
                let name = Name { text: name, kind, inode: entry.ino() };
                spill(sorter, folder.as_fd(), name, options, &mut found)?;
            }
            None => held.push(name, kind, entry.ino()),
        }
        if sorter.is_none() && held.items.len() > max_names {
            let mut begun = Sorter::new(options.sort.clone());
            let full = std::mem::take(&mut held);
            for name in full.items.iter().map(|item| full.name(*item)) {
                spill(&mut begun, folder.as_fd(), name, options, &mut found)?;
            }
            sorter = Some(begun);
        }
    }
    found.names = match sorter {
        Some(sorter) => Names::Spilled(Box::new(sorter.finish()?)),
        None => Names::Here(held.sorted()),
    };
    Ok(found)
}

/// What `name` is, or why it is not taken.
fn kind_of(
    folder: BorrowedFd<'_>,
    name: &str,
    listed: FileType,
    options: &WalkOptions,
) -> Result<std::result::Result<Kind, Skip>, Errno> {
    let of = |kind| match kind {
        FileType::RegularFile => Ok(Kind::File),
        FileType::Directory => Ok(Kind::Folder),
        _ => Err(Skip::Special),
    };
    let mut kind = listed;
    if kind == FileType::Unknown {
        let looked = statx(folder, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::TYPE)?;
        kind = FileType::from_raw_mode(looked.stx_mode.into());
    }
    if kind != FileType::Symlink {
        return Ok(of(kind));
    }
    if !options.follow_symlinks {
        return Ok(Err(Skip::Link));
    }
    match statx(folder, name, AtFlags::empty(), StatxFlags::TYPE) {
        Ok(looked) => Ok(match of(FileType::from_raw_mode(looked.stx_mode.into())) {
            Ok(Kind::Folder) => Ok(Kind::LinkedFolder),
            kind => kind,
        }),
        Err(Errno::NOENT) => Ok(Err(Skip::Dangling)),
        Err(Errno::LOOP) => Ok(Err(Skip::Loop)),
        Err(errno) => Err(errno),
    }
}

/// Gives `name` to the sort on disk. A folder goes as an entry with a `/` at its end, one by a link with a size of 1.
fn spill(
    sorter: &mut Sorter,
    folder: BorrowedFd<'_>,
    name: Name<'_>,
    options: &WalkOptions,
    found: &mut Found,
) -> Result<()> {
    let mut entry = Entry { name: name.text.to_owned(), ..Entry::default() };
    match name.kind {
        Kind::File => match look_at(folder, name.text, options.follow_symlinks) {
            Ok(Some((size_bytes, modified))) => {
                entry.size_bytes = size_bytes;
                entry.modified = Some(modified);
            }
            Ok(None) => {
                found.skipped.push((entry.name, Skip::Changed));
                return Ok(());
            }
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => {
                found.failed.push((entry.name, errno));
                return Ok(());
            }
        },
        Kind::Folder | Kind::LinkedFolder => {
            if !entry.name.ends_with('/') {
                entry.name.push('/');
            }
            entry.size_bytes = u64::from(name.kind == Kind::LinkedFolder);
        }
    }
    sorter.push(entry)
}

/// What an entry that [`spill`] made of a folder says of it.
pub(super) fn spilled_kind(entry: &Entry) -> Kind {
    if entry.size_bytes == 0 { Kind::Folder } else { Kind::LinkedFolder }
}

/// The size and the time of a file; nothing where it is no regular file any more.
pub(super) fn look_at(
    folder: BorrowedFd<'_>,
    name: &str,
    follow: bool,
) -> Result<Option<(u64, SystemTime)>, Errno> {
    let flags = if follow { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
    let asked = StatxFlags::TYPE | StatxFlags::SIZE | StatxFlags::MTIME;
    let looked = statx(folder, name, flags, asked)?;
    let is_file = FileType::from_raw_mode(looked.stx_mode.into()) == FileType::RegularFile;
    Ok(is_file.then(|| (looked.stx_size, modified(&looked))))
}

fn modified(looked: &Statx) -> SystemTime {
    let (seconds, nanos) = (looked.stx_mtime.tv_sec, looked.stx_mtime.tv_nsec);
    let far = Duration::from_secs(seconds.unsigned_abs());
    let base = SystemTime::UNIX_EPOCH;
    let whole = if seconds < 0 { base.checked_sub(far) } else { base.checked_add(far) };
    // No 64-bit system has a time that it cannot hold.
    whole.unwrap_or(base) + Duration::from_nanos(nanos.into())
}

impl Held {
    fn push(&mut self, name: &str, kind: Kind, inode: u64) {
        // At most a million names of 255 bytes: 32 bits hold where they begin.
        let begin = u32::try_from(self.text.len()).unwrap_or(u32::MAX);
        self.text.push_str(name);
        if kind != Kind::File {
            self.text.push('/');
        }
        let length = u16::try_from(self.text.len() - begin as usize).unwrap_or(u16::MAX);
        self.items.push(Item { begin, length, kind, inode });
    }

    fn sorted(mut self) -> Self {
        let text = self.text.as_bytes();
        let bytes = |item: &Item| &text[item.begin as usize..][..item.length.into()];
        self.items.sort_unstable_by(|a, b| bytes(a).cmp(bytes(b)));
        self
    }

    fn name(&self, item: Item) -> Name<'_> {
        let text = &self.text[item.begin as usize..][..item.length.into()];
        Name { text, kind: item.kind, inode: item.inode }
    }

    /// The next names, up to `limit`: either files or one folder. Empty at the end.
    pub(super) fn run(&mut self, limit: usize) -> impl Iterator<Item = Name<'_>> + Clone {
        let rest = &self.items[self.next..];
        let files = rest.iter().take(limit).take_while(|item| item.kind == Kind::File).count();
        let begin = self.next;
        self.next += files.max(usize::from(!rest.is_empty()));
        self.items[begin..self.next].iter().map(|item| self.name(*item))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_beyond_the_bound_go_through_the_disk_in_the_same_order() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["b", "a-", "a0", "c", "a!"] {
            std::fs::write(folder.path().join(name), name).expect("writable");
        }
        std::fs::create_dir(folder.path().join("a")).expect("writable");
        std::os::unix::fs::symlink("a", folder.path().join("a.")).expect("writable");
        let opened = |max_names| {
            let file = File::open(folder.path()).expect("there");
            let found = read_at_most(&file, &WalkOptions::default(), &mut Vec::new(), max_names);
            found.expect("readable").names
        };
        let Names::Spilled(sorted) = opened(2) else { panic!("held") };
        let spilled: Vec<(String, u64)> = sorted
            .map(|entry| entry.expect("readable"))
            .map(|entry| (entry.name, entry.size_bytes))
            .collect();
        let expected = [("a!", 2), ("a-", 2), ("a./", 1), ("a/", 0), ("a0", 2), ("b", 1), ("c", 1)];
        assert_eq!(spilled, expected.map(|(name, size)| (name.to_owned(), size)));
        let Names::Here(mut held) = opened(7) else { panic!("spilled") };
        let mut runs: Vec<Vec<String>> = Vec::new();
        loop {
            let run: Vec<_> = held.run(2).map(|name| name.text.to_owned()).collect();
            if run.is_empty() {
                break;
            }
            runs.push(run);
        }
        assert_eq!(runs, [&["a!", "a-"][..], &["a./"], &["a/"], &["a0", "b"], &["c"]]);
    }
}
