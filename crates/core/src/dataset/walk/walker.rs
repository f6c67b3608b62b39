//! The thread that walks: a stack of folders, the files of each handed over in batches.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags, openat, statx};
use rustix::io::Errno;
use tokio::sync::mpsc::Sender;

use super::folder::{self, Kind, Name, Names};
use super::look::{Look, Looker};
use super::{BATCH, OPERATION, Skip, WalkOptions, Walked};
use crate::dataset::Entry;
use crate::error::{Error, Result};

/// Folders that are kept open, at most: an open one saves finding it again, but file descriptors are for connections.
const FOLDERS_OPEN: usize = 64;

/// What was found is handed over at least so often, that transfers begin early.
const HAND_OVER: Duration = Duration::from_millis(20);

/// The longest key that S3 takes, bytes: what has a longer name is no object's file. This bounds how deep a walk goes, too.
const MAX_NAME_BYTES: usize = 1024;

/// Why the walk ends early: nobody takes what it finds, or it was asked to.
struct Stopped;

/// A folder that was entered.
struct Frame {
    names: Names,
    /// Unset when it was closed to save a file descriptor.
    folder: Option<File>,
    identity: Identity,
    /// How long the name of the folder is, its `/` included.
    prefix_bytes: usize,
}

/// Tells folders apart, whatever path leads to them: device and inode.
type Identity = (u32, u32, u64);

struct Walker<'a> {
    root: &'a Path,
    options: &'a WalkOptions,
    sender: &'a Sender<Vec<Walked>>,
    batch: Vec<Walked>,
    handed_over: Instant,
    /// Whether everything could be seen so far.
    sees_all: bool,
    stack: Vec<Frame>,
    /// The name of the folder on top of the stack, with a `/` at the end; empty for the root.
    prefix: String,
    looker: Looker,
    buffer: Vec<u8>,
}

/// Walks all of `root` and sets `is_complete` at the end, if so.
pub(super) fn run(
    root: &Path,
    options: &WalkOptions,
    sender: &Sender<Vec<Walked>>,
    is_complete: &AtomicBool,
) {
    let mut walker = Walker {
        root,
        options,
        sender,
        batch: Vec::new(),
        handed_over: Instant::now(),
        sees_all: true,
        stack: Vec::new(),
        prefix: String::new(),
        looker: Looker::new(options.follow_symlinks),
        buffer: Vec::new(),
    };
    let ended = walker.walk();
    // Before the last batch, so that who has taken everything finds it set.
    is_complete.store(ended.is_ok() && walker.sees_all, Ordering::Release);
    if ended.is_ok() && walker.hand_over().is_err() {
        is_complete.store(false, Ordering::Release);
    }
}

impl Walker<'_> {
    fn walk(&mut self) -> Result<(), Stopped> {
        match open(CWD, self.root, true) {
            Ok(root) => self.enter(root, "")?,
            Err(errno) => self.fail("", errno)?,
        }
        while let Some(frame) = self.stack.pop() {
            self.step(frame)?;
        }
        Ok(())
    }

    /// Takes the next files of `frame`, or enters a folder in it; puts it back unless it is done.
    fn step(&mut self, mut frame: Frame) -> Result<(), Stopped> {
        if self.options.cancel.is_cancelled() {
            return Err(Stopped);
        }
        self.prefix.truncate(frame.prefix_bytes);
        let folder = match self.reopened(frame.folder.take(), frame.identity) {
            Ok(folder) => folder,
            // Removed meanwhile, with all that was left in it.
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return self.fail("", errno),
        };
        let inner = match &mut frame.names {
            Names::Here(held) => {
                let mut run: Vec<Name<'_>> = held.run(BATCH).collect();
                match run.first() {
                    None => return Ok(()),
                    Some(first) if first.kind == Kind::File => {
                        run.retain(|name| self.admits(name.text));
                        let looks = self.looker.look(folder.as_fd(), &run);
                        for (name, look) in run.iter().zip(looks) {
                            self.take_file(name.text, look)?;
                        }
                        None
                    }
                    Some(inner) => Some((inner.text.to_owned(), inner.kind)),
                }
            }
            Names::Spilled(sorted) => match sorted.next() {
                None => return Ok(()),
                Some(Err(error)) => return self.push_failed(error),
                Some(Ok(entry)) if entry.name.ends_with('/') => {
                    let kind = folder::spilled_kind(&entry);
                    Some((entry.name, kind))
                }
                Some(Ok(entry)) if !self.admits(&entry.name) => None,
                Some(Ok(entry)) => {
                    let look = entry.modified.map(|modified| (entry.size_bytes, modified));
                    self.take_file(&entry.name, Ok(look))?;
                    None
                }
            },
        };
        let inner = inner.filter(|(name, _)| self.may_descend(name));
        let opened = inner.map(|(name, kind)| {
            let bare = name.trim_end_matches('/');
            let opened = open(folder.as_fd(), Path::new(bare), kind == Kind::LinkedFolder);
            (name, opened)
        });
        frame.folder = Some(folder);
        self.stack.push(frame);
        match opened {
            Some((name, Ok(folder))) => self.enter(folder, &name),
            None | Some((_, Err(Errno::NOENT))) => Ok(()),
            Some((name, Err(Errno::NOTDIR | Errno::LOOP))) => self.skip(&name, Skip::Changed),
            Some((name, Err(errno))) => self.fail(&name, errno),
        }
    }

    /// The open folder of a frame, opened again where it was closed.
    fn reopened(&self, folder: Option<File>, identity: Identity) -> Result<File, Errno> {
        if let Some(folder) = folder {
            return Ok(folder);
        }
        let again = open(CWD, &self.path_of(""), true)?;
        // Another one took its place: what was read of the names is of one that is gone.
        if identity_of(&again)? == identity { Ok(again) } else { Err(Errno::STALE) }
    }

    /// Reads the folder `name`, `folder`, that lies in the one on top, and puts it there.
    fn enter(&mut self, folder: File, name: &str) -> Result<(), Stopped> {
        let identity = match identity_of(&folder) {
            Ok(identity) => identity,
            Err(errno) => return self.fail(name, errno),
        };
        if self.stack.iter().any(|outer| outer.identity == identity) {
            return self.skip(name, Skip::Loop);
        }
        if self.prefix.len() + name.len() > MAX_NAME_BYTES {
            return self.skip(name, Skip::TooLong);
        }
        let found = match folder::read(&folder, self.options, &mut self.buffer) {
            Ok(found) => found,
            Err(error) => return self.push_failed(error),
        };
        self.prefix.push_str(name);
        for (name, why) in found.skipped {
            self.skip(&name, why)?;
        }
        for (name, errno) in found.failed {
            self.fail(&name, errno)?;
        }
        let depth = self.stack.len();
        if let Some(far) = depth.checked_sub(FOLDERS_OPEN) {
            self.stack[far].folder = None;
        }
        let prefix_bytes = self.prefix.len();
        self.stack.push(Frame { names: found.names, folder: Some(folder), identity, prefix_bytes });
        Ok(())
    }

    fn take_file(&mut self, name: &str, look: Look) -> Result<(), Stopped> {
        match look {
            Ok(Some(_)) if self.prefix.len() + name.len() > MAX_NAME_BYTES => {
                self.skip(name, Skip::TooLong)
            }
            Ok(Some((size_bytes, modified))) => {
                let entry = Entry {
                    name: self.name_of(name),
                    size_bytes,
                    modified: Some(modified),
                    ..Entry::default()
                };
                self.push(Walked::File(entry))
            }
            Ok(None) => self.skip(name, Skip::Changed),
            Err(Errno::NOENT) => Ok(()),
            Err(errno) => self.fail(name, errno),
        }
    }

    /// Whether `name` in the folder on top is not left out.
    fn admits(&self, name: &str) -> bool {
        let filter = &self.options.filter;
        filter.is_empty() || filter.admits_name(&self.name_of(name))
    }

    fn may_descend(&self, name: &str) -> bool {
        let filter = &self.options.filter;
        filter.is_empty() || filter.may_descend(&self.name_of(name))
    }

    fn skip(&mut self, name: &str, why: Skip) -> Result<(), Stopped> {
        if !self.admits(name) {
            return Ok(());
        }
        self.sees_all &= !matches!(why, Skip::Dangling | Skip::Changed);
        self.push(Walked::Skipped { name: self.name_of(name), why })
    }

    /// Says that `name`, or with an empty one the folder on top, cannot be looked at.
    fn fail(&mut self, name: &str, errno: Errno) -> Result<(), Stopped> {
        // What is left out is not missed, unless it is a folder in which something is not.
        let is_folder = name.is_empty() || name.ends_with('/');
        if !is_folder && !self.admits(name) {
            return Ok(());
        }
        self.push_failed(Error::io(OPERATION, &self.path_of(name), errno.into()))
    }

    fn push_failed(&mut self, error: Error) -> Result<(), Stopped> {
        self.sees_all = false;
        self.push(Walked::Failed(error))
    }

    /// The name, relative to the root, of `name` in the folder on top.
    fn name_of(&self, name: &str) -> String {
        let mut whole = String::with_capacity(self.prefix.len() + name.len());
        whole.push_str(&self.prefix);
        whole.push_str(name);
        whole
    }

    fn path_of(&self, name: &str) -> PathBuf {
        self.root.join(self.name_of(name))
    }

    fn push(&mut self, walked: Walked) -> Result<(), Stopped> {
        self.batch.push(walked);
        if self.batch.len() >= BATCH || self.handed_over.elapsed() >= HAND_OVER {
            self.hand_over()?;
        }
        Ok(())
    }

    fn hand_over(&mut self) -> Result<(), Stopped> {
        if !self.batch.is_empty() {
            let batch = std::mem::replace(&mut self.batch, Vec::with_capacity(BATCH));
            self.sender.blocking_send(batch).map_err(|_| Stopped)?;
        }
        self.handed_over = Instant::now();
        Ok(())
    }
}

/// Opens the folder `path` in `folder`.
fn open(folder: impl AsFd, path: &Path, follow: bool) -> Result<File, Errno> {
    let mut flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    if !follow {
        flags |= OFlags::NOFOLLOW;
    }
    openat(folder, path, flags, Mode::empty()).map(File::from)
}

fn identity_of(folder: &File) -> Result<Identity, Errno> {
    let looked = statx(folder, c"", AtFlags::EMPTY_PATH, StatxFlags::INO)?;
    Ok((looked.stx_dev_major, looked.stx_dev_minor, looked.stx_ino))
}
