//! A file that is only ever appended to, and by one process at a time.
//!
//! The lock (`flock`) belongs to the open file, so it ends with the process, however that ends. A file
//! may be removed between opening and locking it; the name is looked at again after that.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, OFlags};
use rustix::io::Errno;

/// Times that a lock is asked for again, and the pause before each.
const LOCK_ATTEMPTS: u32 = 5;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// An open, locked journal.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
}

/// Why a journal cannot be used.
#[derive(Debug)]
pub(crate) enum JournalError {
    /// Another process has it open.
    Busy,
    /// There is none, and none can be made here.
    Unwritable(io::Error),
    /// There is one, and it cannot be read.
    Unreadable(io::Error),
}

impl Journal {
    /// Opens and locks the journal at `path`, or makes it, and gives what is in it: up to
    /// `max_bytes`, more being no journal of ours.
    pub(crate) fn open(path: &Path, max_bytes: u64) -> Result<(Self, Vec<u8>), JournalError> {
        Self::locked(path, max_bytes, true)
    }

    /// The same for one that must be there.
    pub(crate) fn open_existing(
        path: &Path,
        max_bytes: u64,
    ) -> Result<(Self, Vec<u8>), JournalError> {
        Self::locked(path, max_bytes, false)
    }

    fn locked(path: &Path, max_bytes: u64, make: bool) -> Result<(Self, Vec<u8>), JournalError> {
        for attempt in 0..=LOCK_ATTEMPTS {
            if attempt > 0 {
                // Who only looks has it for a moment.
                std::thread::sleep(LOCK_PAUSE);
            }
            let file = open(path, make)?;
            // A file system without locks loses the warning, and nothing else.
            let locked = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive);
            if locked == Err(Errno::WOULDBLOCK) {
                continue;
            }
            let unreadable = JournalError::Unreadable;
            let ours = file.metadata().map_err(unreadable)?;
            // The process that had it may have ended, and removed it, in between.
            if std::fs::symlink_metadata(path).is_ok_and(|named| named.ino() == ours.ino()) {
                let mut content = Vec::new();
                (&file).take(max_bytes).read_to_end(&mut content).map_err(unreadable)?;
                return Ok((Self { path: path.to_owned(), file }, content));
            }
        }
        Err(JournalError::Busy)
    }

    /// Appends a line in one piece: a process that is killed has written all of it or none.
    pub(crate) fn append(&self, line: &[u8]) -> io::Result<()> {
        (&self.file).write_all(line)
    }

    /// Cuts off what follows `len_bytes`.
    pub(crate) fn truncate(&self, len_bytes: u64) -> io::Result<()> {
        self.file.set_len(len_bytes)
    }

    /// Waits until what was appended is on disk, and so is the file's name.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()?;
        let folder = super::parent_of(&self.path);
        // Some file systems cannot sync a folder.
        let _ = File::open(folder).and_then(|folder| folder.sync_all());
        Ok(())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the file; the lock goes with `self`.
    pub(crate) fn remove(&self) {
        // Gone already is as good, and nothing can be done about anything else.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn open(path: &Path, make: bool) -> Result<File, JournalError> {
    let mut options = OpenOptions::new();
    // Names of buckets and files are nobody else's business. Not through a link, and without waiting
    // for the other end of a pipe: the name can be guessed, and in a shared folder somebody else may
    // have put one there.
    let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    options.read(true).append(true).mode(0o600).custom_flags(flags.bits().cast_signed());
    if make {
        match options.clone().create_new(true).open(path) {
            // Nobody else can have written to it.
            Ok(file) => return Ok(file),
            Err(there) if there.kind() == io::ErrorKind::AlreadyExists => {}
            Err(source) => {
                return Err(match path.symlink_metadata() {
                    Ok(_) => JournalError::Unreadable(source),
                    Err(_) => JournalError::Unwritable(source),
                });
            }
        }
    }
    let file = options.open(path).map_err(JournalError::Unreadable)?;
    let metadata = file.metadata().map_err(JournalError::Unreadable)?;
    // What is in it is carried out, so it must be from this user.
    let is_ours = metadata.is_file()
        && metadata.nlink() == 1
        && metadata.uid() == rustix::process::geteuid().as_raw()
        && metadata.mode() & 0o022 == 0;
    if is_ours {
        Ok(file)
    } else {
        let why = "it is not a plain file that only this user can write to";
        Err(JournalError::Unreadable(io::Error::new(io::ErrorKind::PermissionDenied, why)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_and_what_was_appended_is_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("journal");
        let (journal, content) = Journal::open(&path, 100).expect("made");
        assert!(content.is_empty());
        journal.append(b"one\n").expect("appended");
        assert!(matches!(Journal::open(&path, 100), Err(JournalError::Busy)));
        drop(journal);
        let (journal, content) = Journal::open(&path, 100).expect("opened");
        assert_eq!(content, b"one\n");
        journal.truncate(2).expect("cut");
        journal.append(b"two\n").expect("appended");
        journal.sync().expect("synced");
        assert_eq!(std::fs::read(&path).expect("read"), b"ontwo\n");
        journal.remove();
        assert!(!path.exists());
    }

    #[test]
    fn neither_a_folder_nor_a_link_is_a_journal() {
        let folder = tempfile::tempdir().expect("a folder");
        let open = |path: &Path| Journal::open(path, 100).map(|_| ());
        assert!(matches!(open(folder.path()), Err(JournalError::Unreadable(_))));
        assert!(matches!(open(&folder.path().join("no/x")), Err(JournalError::Unwritable(_))));
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("/dev/null", &link).expect("linked");
        assert!(matches!(open(&link), Err(JournalError::Unreadable(_))));
        let missing = Journal::open_existing(&folder.path().join("x"), 100);
        assert!(matches!(missing, Err(JournalError::Unreadable(_))));
    }

    #[test]
    fn what_others_could_have_written_is_none_either() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("journal");
        drop(Journal::open(&path, 100).expect("made"));
        let open = || Journal::open(&path, 100).map(|_| ());
        assert!(open().is_ok());
        std::fs::hard_link(&path, folder.path().join("other")).expect("linked");
        assert!(matches!(open(), Err(JournalError::Unreadable(_))));
        std::fs::remove_file(folder.path().join("other")).expect("removed");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).expect("set");
        assert!(matches!(open(), Err(JournalError::Unreadable(_))));
        std::fs::remove_file(&path).expect("removed");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, mode).expect("a pipe");
        assert!(matches!(open(), Err(JournalError::Unreadable(_))));
    }
}
