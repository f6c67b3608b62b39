//! A target file that becomes visible only when it is whole, verified and on disk.
//!
//! Bytes go to `.NAME.brigade-XXXXXXXX` beside the target, on the same file system, so that the
//! last step is a rename: whoever opens the name finds the old file or the new one, never half of
//! one. A transfer that can be resumed finds its partial file again by its name, which is made of what
//! is downloaded; any other has a random one. The order fsync, rename, fsync of the folder makes that true after a power cut as well.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::{FallocateFlags, OFlags};
use rustix::io::Errno;

use super::reader::Reader;
use super::writer::Writer;

use crate::error::{Error, ErrorKind, Result};
use crate::options::DirectIo;

const OPERATION: &str = "download to";

/// The longest file name that the usual Linux file systems take, bytes.
const NAME_MAX_BYTES: usize = 255;

/// A file being filled. Dropped before [`Partial::commit`] or [`Partial::keep`], it is removed.
#[derive(Debug)]
pub(crate) struct Partial {
    file: Arc<File>,
    writer: Writer,
    path: PathBuf,
    target: PathBuf,
    stays: bool,
    /// The time that the file gets, where it is not that of its writing.
    modified: Option<SystemTime>,
}

/// Where a download to `path` really goes: into a folder under `basename`, or, where `path` is a
/// link to a file, to the file it points to. What is neither missing nor a regular file is refused.
pub(crate) fn resolve_target(path: &Path, basename: &str) -> Result<PathBuf> {
    let wants_folder = path.as_os_str().as_encoded_bytes().ends_with(b"/");
    let inside = match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => path.join(safe_name(path, basename)?),
        Ok(_) if wants_folder => {
            return Err(
                refuse(path, "it is not a folder").advise("leave off the slash to replace it")
            );
        }
        Ok(_) => path.to_owned(),
        Err(source) if source.kind() == io::ErrorKind::NotFound => {
            let parent = parent_of(path);
            if wants_folder || !parent.is_dir() {
                let missing = if wants_folder { path } else { parent };
                return Err(Error::new(
                    ErrorKind::NotFound,
                    OPERATION,
                    path.display().to_string(),
                    format!("the folder {} does not exist", missing.display()),
                )
                .advise("make it first"));
            }
            path.to_owned()
        }
        Err(source) => return Err(Error::io(OPERATION, path, source)),
    };
    match std::fs::metadata(&inside) {
        Ok(metadata) if metadata.is_dir() => {
            Err(refuse(&inside, "a folder of that name is there").advise("name another target"))
        }
        Ok(metadata) if !metadata.is_file() => {
            Err(refuse(&inside, "it is not a regular file").advise("use - for standard output"))
        }
        // A rename would replace the link instead of what it points to.
        Ok(_) => inside.canonicalize().map_err(|source| Error::io(OPERATION, &inside, source)),
        Err(source) if source.kind() == io::ErrorKind::NotFound => {
            if inside.symlink_metadata().is_ok() {
                return Err(refuse(&inside, "it is a link to a file that does not exist")
                    .advise("remove the link, or name another target"));
            }
            Ok(inside)
        }
        Err(source) => Err(Error::io(OPERATION, &inside, source)),
    }
}

/// A key's last part is text from a store; it must stay one name inside the folder.
fn safe_name<'a>(folder: &Path, basename: &'a str) -> Result<&'a str> {
    let bad = basename.is_empty()
        || basename == "."
        || basename == ".."
        || basename.contains(['/', '\0'])
        || basename.len() > NAME_MAX_BYTES;
    if bad {
        return Err(refuse(folder, format!("the key's end {basename:?} cannot be a file name"))
            .advise("name the target file"));
    }
    Ok(basename)
}

fn refuse(path: &Path, why: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, OPERATION, path.display().to_string(), why)
}

impl Partial {
    /// Makes the partial file for `target` and reserves `size_bytes` for it, so that a disk that
    /// is too small is found now and not after hours.
    pub(crate) fn create(target: &Path, size_bytes: u64) -> Result<Self> {
        let (file, path) = create_beside(target)?;
        let partial = Self::new(file, path, target, false);
        partial.reserve(size_bytes)?;
        Ok(partial)
    }

    /// The same under the name that [`partial_path`] gives, with the bytes that an earlier run left
    /// there if `goes_on`. Also tells whether there were any.
    pub(crate) fn resume(
        target: &Path,
        path: PathBuf,
        size_bytes: u64,
        goes_on: bool,
    ) -> Result<(Self, bool)> {
        let failed = |source| Error::io(OPERATION, target, source);
        let (file, existed) = open_partial(&path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        // Its name can be guessed: in a shared folder somebody else may have put something there.
        let is_ours = !existed
            || (metadata.is_file()
                && metadata.nlink() == 1
                && metadata.uid() == rustix::process::geteuid().as_raw());
        if !is_ours {
            let what = format!("{} is in the way, and not ours", path.display());
            return Err(refuse(target, what).advise("remove it, or name another target"));
        }
        let goes_on = goes_on && existed;
        if !goes_on || metadata.len() > size_bytes {
            file.set_len(if goes_on { size_bytes } else { 0 }).map_err(failed)?;
        }
        let mut partial = Self::new(file, path, target, goes_on);
        partial.reserve(size_bytes)?;
        partial.stays = false;
        Ok((partial, goes_on))
    }

    /// The target itself, for a run that died after it had given the file its name: to be looked at
    /// and committed once more, and never written to. `None` where there is no file of that size.
    pub(crate) fn committed_before(target: &Path, size_bytes: u64) -> Option<Self> {
        let file = File::open(target).ok()?;
        let is_it = file.metadata().is_ok_and(|it| it.is_file() && it.len() == size_bytes);
        is_it.then(|| Self::new(file, target.to_owned(), target, true))
    }

    /// Lets the file stay for a later run to go on with.
    pub(crate) fn keep(mut self) {
        self.stays = true;
    }

    fn new(file: File, path: PathBuf, target: &Path, stays: bool) -> Self {
        let file = Arc::new(file);
        let writer = Writer::cached(Arc::clone(&file));
        Self { file, writer, path, target: target.to_owned(), stays, modified: None }
    }

    /// Has the file, of `size_bytes`, written past the page cache or through it, as `how` says.
    pub(crate) fn write_as(&mut self, size_bytes: u64, how: DirectIo) {
        self.writer = Writer::new(Arc::clone(&self.file), &self.path, size_bytes, how);
    }

    /// Gives the file this time when it is committed.
    pub(crate) fn keep_modified(&mut self, modified: Option<SystemTime>) {
        self.modified = modified;
    }

    /// What the parts write with.
    pub(crate) fn writer(&self) -> &Writer {
        &self.writer
    }

    /// What reads the bytes that are there.
    pub(crate) fn reader(&self) -> Reader {
        Reader::new(Arc::clone(&self.file), self.writer.direct_file())
    }

    /// Makes the bytes durable and gives the file its name. Where that fails, the file is removed
    /// unless it `stays` for a later run. Blocks on the disk.
    pub(crate) fn commit(mut self, stays: bool) -> Result<()> {
        self.stays |= stays;
        let failed = |source| Error::io(OPERATION, &self.target, source);
        if let Some(modified) = self.modified {
            self.file.set_modified(modified).map_err(failed)?;
        }
        self.file.sync_all().map_err(failed)?;
        std::fs::rename(&self.path, &self.target).map_err(failed)?;
        self.stays = true;
        sync_folder(parent_of(&self.target)).map_err(failed)
    }

    fn reserve(&self, size_bytes: u64) -> Result<()> {
        if size_bytes == 0 {
            return Ok(());
        }
        let reserved = rustix::io::retry_on_intr(|| {
            rustix::fs::fallocate(&*self.file, FallocateFlags::empty(), 0, size_bytes)
        });
        match reserved {
            Ok(()) => Ok(()),
            // The file system cannot reserve: ask for its free space instead.
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                if let Ok(room) = rustix::fs::fstatvfs(&*self.file) {
                    let free = room.f_bavail.saturating_mul(room.f_frsize);
                    // What an earlier run wrote has its room already, in blocks of 512 bytes.
                    let has = self.file.metadata().map_or(0, |it| it.blocks() * 512);
                    // 0 blocks in all means that it does not say.
                    if room.f_blocks > 0 && free < size_bytes.saturating_sub(has) {
                        return Err(self.too_small(size_bytes));
                    }
                }
                self.file.set_len(size_bytes).map_err(|e| Error::io(OPERATION, &self.target, e))
            }
            Err(Errno::NOSPC | Errno::DQUOT) => Err(self.too_small(size_bytes)),
            Err(Errno::FBIG) => Err(Error::new(
                ErrorKind::DiskFull,
                OPERATION,
                self.target.display().to_string(),
                format!("the file system takes no file of {size_bytes} bytes"),
            )
            .advise("choose a target on another file system")),
            Err(errno) => Err(Error::io(OPERATION, &self.target, errno.into())),
        }
    }

    fn too_small(&self, size_bytes: u64) -> Error {
        let free = rustix::fs::fstatvfs(&*self.file)
            .map(|room| room.f_bavail.saturating_mul(room.f_frsize))
            .ok();
        let detail = match free {
            Some(free) if free < size_bytes => format!(
                "not enough disk space: {} needed, {} free",
                crate::limits::format_size(size_bytes),
                crate::limits::format_size(free)
            ),
            _ => format!(
                "not enough disk space or quota for {}",
                crate::limits::format_size(size_bytes)
            ),
        };
        Error::new(ErrorKind::DiskFull, OPERATION, self.target.display().to_string(), detail)
            .advise("free some space, or choose another target")
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.stays {
            // It may be gone already; nothing can be done about any other failure here.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Makes the names in `folder` durable, as far as that can be done there.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        // Some network and FUSE file systems cannot sync a folder, and one that may not be read cannot
        // be opened for it; the files themselves are safe and in place.
        Err(source)
            if source.raw_os_error() == Some(Errno::INVAL.raw_os_error())
                || source.kind() == io::ErrorKind::PermissionDenied =>
        {
            Ok(())
        }
        result => result,
    }
}

/// Does `work`, and tells how long this thread did not run meanwhile: blocked by a disk, or waiting for
/// a processor.
pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let ran = || {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::new(time.tv_sec.cast_unsigned(), u32::try_from(time.tv_nsec).unwrap_or(0))
    };
    let (begun, before) = (Instant::now(), ran());
    let done = work();
    (done, begun.elapsed().saturating_sub(ran().saturating_sub(before)))
}

/// Writes all of `bytes` at `offset_bytes`, on the calling thread: a hop to another thread for
/// every chunk costs half as much again as the write.
pub(super) fn write_at(file: &File, bytes: &[u8], offset_bytes: u64, target: &Path) -> Result<()> {
    file.write_all_at(bytes, offset_bytes).map_err(|source| Error::io(OPERATION, target, source))
}

/// The folder that holds `path`; the current one for a bare name.
pub(crate) fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// What is appended to a partial file's name for that of its manifest.
pub(crate) const MANIFEST_SUFFIX: &str = ".manifest";

/// The partial file for `target` that `tag`, 8 letters, tells from others.
pub(crate) fn partial_path(target: &Path, tag: &str) -> Result<PathBuf> {
    let name = target.file_name().ok_or_else(|| refuse(target, "it has no file name"))?;
    // ".", ".brigade-", 8 letters and ".manifest" must fit beside the name; a long name is cut, for
    // the partial file's name only has to be unlike any other.
    let keep = NAME_MAX_BYTES - ".brigade-XXXXXXXX".len() - MANIFEST_SUFFIX.len() - 1;
    let mut stem = name.to_owned();
    if stem.len() > keep {
        stem = name.to_string_lossy().chars().take(keep / 4).collect::<String>().into();
    }
    let mut partial = OsString::from(".");
    partial.push(&stem);
    partial.push(".brigade-");
    partial.push(tag);
    Ok(target.with_file_name(partial))
}

/// Whether a file called `name` is a partial file of ours or its manifest, going by its name.
pub(crate) fn is_partial_name(name: &str) -> bool {
    let name = name.strip_suffix(MANIFEST_SUFFIX).unwrap_or(name);
    name.starts_with('.')
        && name.rsplit_once(".brigade-").is_some_and(|(stem, tag)| {
            stem.len() > 1 && tag.len() == 8 && tag.bytes().all(|byte| byte.is_ascii_alphanumeric())
        })
}

/// Makes the partial file, or opens the one that is there, never through a link. Whether it was.
fn open_partial(path: &Path) -> io::Result<(File, bool)> {
    let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o666).custom_flags(flags.bits().cast_signed());
    match options.clone().create_new(true).open(path) {
        Err(there) if there.kind() == io::ErrorKind::AlreadyExists => {
            Ok((options.open(path)?, true))
        }
        made => Ok((made?, false)),
    }
}

fn create_beside(target: &Path) -> Result<(File, PathBuf)> {
    // The odds of a second clash in 36⁸ names mean a broken file system, not bad luck.
    for _ in 0..16 {
        let tag = (0..8).map(|_| fastrand::alphanumeric()).collect::<String>();
        let path = partial_path(target, &tag)?;
        // 0o666 less the umask, as any new file: the target keeps this mode after the rename.
        let opened =
            OpenOptions::new().read(true).write(true).create_new(true).mode(0o666).open(&path);
        match opened {
            Ok(file) => return Ok((file, path)),
            Err(source) if source.kind() == io::ErrorKind::AlreadyExists => {}
            Err(source) => return Err(Error::io(OPERATION, target, source)),
        }
    }
    Err(Error::new(
        ErrorKind::Io,
        OPERATION,
        target.display().to_string(),
        "no free name for a partial file beside it",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(folder)
            .expect("a folder")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn names_of_partial_files_are_known_again() {
        let long = "x".repeat(255);
        for target in ["data.bin", ".hidden", "é", long.as_str()] {
            let path = partial_path(Path::new(target), "0aZ9zzzz").expect("a name");
            let name = path.to_str().expect("UTF-8");
            assert!(is_partial_name(name), "{name}");
            assert!(is_partial_name(&format!("{name}{MANIFEST_SUFFIX}")), "{name}");
        }
        for other in ["a.brigade-0aZ9zzzz", ".a.brigade-0aZ9zzz", ".brigade-0aZ9zzzz", ".manifest"]
        {
            assert!(!is_partial_name(other), "{other}");
        }
    }

    #[test]
    fn a_name_appears_only_with_the_whole_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let target = folder.path().join("data.bin");
        std::fs::write(&target, "old").expect("written");
        let partial = Partial::create(&target, 6).expect("reserved");
        write_at(&partial.file, b"new", 3, &target).expect("written");
        write_at(&partial.file, b"NEW", 0, &target).expect("written");
        assert_eq!(std::fs::read(&target).expect("read"), b"old");
        let names = entries(folder.path());
        assert!(names[0].starts_with(".data.bin.brigade-"), "{names:?}");
        partial.commit(false).expect("renamed");
        assert_eq!(std::fs::read(&target).expect("read"), b"NEWnew");
        assert_eq!(entries(folder.path()), ["data.bin"]);
    }

    #[test]
    fn a_partial_file_that_is_given_up_is_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let partial = Partial::create(&folder.path().join("x"), 1 << 20).expect("reserved");
        assert_eq!(entries(folder.path()).len(), 1);
        drop(partial);
        assert!(entries(folder.path()).is_empty());
    }

    #[test]
    fn more_than_the_disk_holds_is_refused_at_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let error = Partial::create(&folder.path().join("x"), 1 << 60).expect_err("an exabyte");
        assert_eq!(error.kind(), ErrorKind::DiskFull);
        assert!(entries(folder.path()).is_empty());
    }

    #[test]
    fn the_longest_names_work() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["n".repeat(255), "ü".repeat(127)] {
            let partial = Partial::create(&folder.path().join(&name), 1).expect("reserved");
            partial.commit(false).expect("renamed");
        }
        assert_eq!(entries(folder.path()).len(), 2);
    }

    #[test]
    fn targets_resolve_as_people_expect() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("file"), "").expect("written");
        std::os::unix::fs::symlink(at("file"), at("link")).expect("linked");
        std::os::unix::fs::symlink(at("nowhere"), at("broken")).expect("linked");
        let resolved = |path: &Path| resolve_target(path, "key.gz");
        assert_eq!(resolved(folder.path()).expect("inside"), at("key.gz"));
        assert_eq!(resolved(&at("new")).expect("new"), at("new"));
        let real = at("file").canonicalize().expect("there");
        assert_eq!(resolved(&at("link")).expect("followed"), real);
        let kind = |path: &Path| resolved(path).expect_err("refused").kind();
        assert_eq!(kind(&at("broken")), ErrorKind::InvalidInput);
        assert_eq!(kind(&at("missing/new")), ErrorKind::NotFound);
        assert_eq!(kind(&at("missing/")), ErrorKind::NotFound);
        assert_eq!(kind(&at("file/")), ErrorKind::Io);
        assert_eq!(kind(Path::new("/dev/null")), ErrorKind::InvalidInput);
        for bad in ["", "..", "."] {
            let error = resolve_target(folder.path(), bad).expect_err("not a name");
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
        }
    }
}
