//! A source file, mapped: parts are slices of the mapping and reach the socket without a copy.
//!
//! The file's identity (size, modification time, inode) is taken when it is opened and held
//! against the file before every part and once more before an upload is completed: a source that
//! changes ends the transfer, because an object made of two states of a file is worse than none.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use memmap2::{Advice, Mmap, MmapOptions, UncheckedAdvice};

use super::guard::Registration;
use crate::error::{Error, ErrorKind, Result};
use crate::plan::Part;

/// A regular file, opened and mapped.
#[derive(Debug, Clone)]
pub(crate) struct Source(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    file: File,
    identity: Identity,
    // Dropped before the mapping it tells of. Both `None` for an empty file, which cannot be mapped.
    guard: Option<Registration>,
    map: Option<Mmap>,
}

/// What must not change while a file is moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    size_bytes: u64,
    modified_ns: (i64, i64),
    inode: (u64, u64),
}

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        Self {
            size_bytes: metadata.len(),
            modified_ns: (metadata.mtime(), metadata.mtime_nsec()),
            inode: (metadata.dev(), metadata.ino()),
        }
    }
}

const OPERATION: &str = "upload";

impl Source {
    /// Opens and maps `path`. A folder, a pipe or a device is refused.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let failed = |source| Error::io(OPERATION, path, source);
        // Looked at before it is opened: opening a pipe would wait for its writer.
        refuse_irregular(path, &std::fs::metadata(path).map_err(failed)?)?;
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        refuse_irregular(path, &metadata)?;
        let identity = Identity::of(&metadata);
        let map = match identity.size_bytes {
            0 => None,
            _ => Some(map(&file).map_err(failed)?),
        };
        let guard = map.as_ref().map(|map| {
            let start = map.as_ptr() as usize;
            Registration::new(start..start + map.len())
        });
        Ok(Self(Arc::new(Inner { path: path.to_owned(), file, identity, guard, map })))
    }

    /// Where it was opened.
    pub(crate) fn path(&self) -> &Path {
        &self.0.path
    }

    /// Modification time (seconds, nanoseconds) and inode number when it was opened.
    pub(crate) fn state(&self) -> ((i64, i64), u64) {
        (self.0.identity.modified_ns, self.0.identity.inode.1)
    }

    /// Size when it was opened.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.0.identity.size_bytes
    }

    /// The part's bytes: a slice of the mapping, which stays mapped as long as the slice lives.
    pub(crate) fn slice(&self, part: Part) -> Result<Bytes> {
        // A page beyond the end of a file that shrank cannot be read.
        self.check_unchanged()?;
        if part.len_bytes == 0 {
            return Ok(Bytes::new());
        }
        let start = usize::try_from(part.offset_bytes).map_err(|_| self.beyond())?;
        let len = usize::try_from(part.len_bytes).map_err(|_| self.beyond())?;
        let end = start.checked_add(len).ok_or_else(|| self.beyond())?;
        if self.0.map.as_ref().is_none_or(|map| end > map.len()) {
            return Err(self.beyond());
        }
        Ok(Bytes::from_owner(Slice { source: self.clone(), start, end }))
    }

    /// Whether the path still names the file that was opened, unchanged.
    pub(crate) fn check_unchanged(&self) -> Result<()> {
        let inner = &*self.0;
        let failed = |source| Error::io(OPERATION, &inner.path, source);
        let open = Identity::of(&inner.file.metadata().map_err(failed)?);
        if open != inner.identity {
            let what = if open.size_bytes == inner.identity.size_bytes {
                "the file was written to during the upload".to_owned()
            } else {
                format!(
                    "the file changed from {} to {} bytes during the upload",
                    inner.identity.size_bytes, open.size_bytes
                )
            };
            return Err(self.changed(what));
        }
        if inner.guard.as_ref().is_some_and(Registration::has_lost_pages) {
            let path = inner.path.display().to_string();
            let what = "a part of the file could not be read";
            return Err(Error::new(ErrorKind::Io, OPERATION, path, what)
                .advise("check the disk, or whether the file was cut short meanwhile"));
        }
        Ok(())
    }

    /// The same, and that the path was not given to another file meanwhile. One more look-up than
    /// [`Source::check_unchanged`], so it is done once, at the end.
    pub(crate) fn check_still_there(&self) -> Result<()> {
        self.check_unchanged()?;
        let inner = &*self.0;
        match std::fs::metadata(&inner.path) {
            Ok(metadata) if Identity::of(&metadata) == inner.identity => Ok(()),
            Ok(_) => Err(self.changed("the file was replaced during the upload".into())),
            Err(source) if source.kind() == io::ErrorKind::NotFound => {
                Err(self.changed("the file was removed during the upload".into()))
            }
            Err(source) => Err(Error::io(OPERATION, &inner.path, source)),
        }
    }

    /// Lets the kernel take back the part's pages. A mapping counts as resident memory, and the
    /// part is not needed again once it is acknowledged.
    pub(crate) fn release(&self, part: Part) {
        let Some(map) = &self.0.map else { return };
        let page = rustix::param::page_size();
        let (Ok(offset), Ok(len)) =
            (usize::try_from(part.offset_bytes), usize::try_from(part.len_bytes))
        else {
            return;
        };
        // Only pages that lie wholly inside: the neighbours may still be on their way.
        let start = offset.next_multiple_of(page);
        let end = (offset + len) / page * page;
        if end > start && end <= map.len() {
            release_pages(map, start, end - start);
        }
    }

    fn changed(&self, what: String) -> Error {
        Error::new(ErrorKind::Changed, OPERATION, self.0.path.display().to_string(), what)
            .advise("nothing was stored; start it again when nothing writes to the file")
    }

    fn beyond(&self) -> Error {
        let path = self.0.path.display().to_string();
        Error::new(ErrorKind::Io, OPERATION, path, "a part lies beyond the mapped file")
    }
}

/// Keeps the mapping alive for as long as a request holds on to its slice.
struct Slice {
    source: Source,
    start: usize,
    end: usize,
}

impl AsRef<[u8]> for Slice {
    fn as_ref(&self) -> &[u8] {
        self.source.0.map.as_ref().map_or(&[], |map| &map[self.start..self.end])
    }
}

fn refuse_irregular(path: &Path, metadata: &Metadata) -> Result<()> {
    let (what, advice) = match metadata.file_type() {
        kind if kind.is_file() => return Ok(()),
        kind if kind.is_dir() => ("it is a folder", "name one file"),
        _ => ("it is not a regular file", "copy its contents into a file first"),
    };
    Err(Error::new(ErrorKind::InvalidInput, OPERATION, path.display().to_string(), what)
        .advise(advice))
}

#[allow(unsafe_code)]
fn map(file: &File) -> io::Result<Mmap> {
    // SAFETY: the mapping is read-only. Another process may still write to the file, and Rust
    // cannot exclude that; the bytes are only summed and sent, never interpreted, so a change can
    // yield other bytes but no broken invariant, and `check_unchanged` ends the transfer then.
    let map = unsafe { MmapOptions::new().map(file)? };
    // Parts are read front to back; doubling the read-ahead is worth it. Advice may be refused.
    let _ = map.advise(Advice::Sequential);
    Ok(map)
}

#[allow(unsafe_code)]
fn release_pages(map: &Mmap, offset: usize, len: usize) {
    // SAFETY: DONTNEED on a shared, read-only file mapping loses nothing: the next access, if any,
    // reads the same page from the file again.
    let _ = unsafe { map.unchecked_advise_range(UncheckedAdvice::DontNeed, offset, len) };
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn part(offset_bytes: u64, len_bytes: u64) -> Part {
        Part { number: 1, offset_bytes, len_bytes }
    }

    #[test]
    fn slices_are_the_files_bytes_and_outlive_the_source() {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        let content: Vec<u8> = (0..100_000_u32).map(|i| (i % 251) as u8).collect();
        file.write_all(&content).expect("written");
        let source = Source::open(file.path()).expect("mapped");
        let slice = source.slice(part(10, 70_000)).expect("inside");
        source.release(part(0, 100_000));
        drop(source);
        assert_eq!(&slice[..], &content[10..70_010]);
    }

    #[test]
    fn an_empty_file_has_an_empty_part() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let source = Source::open(file.path()).expect("opened");
        assert_eq!(source.size_bytes(), 0);
        assert!(source.slice(part(0, 0)).expect("empty").is_empty());
    }

    #[test]
    fn a_change_is_noticed_and_said() {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(&[1; 1_000]).expect("written");
        let source = Source::open(file.path()).expect("mapped");
        source.check_still_there().expect("unchanged");
        file.as_file().set_len(500).expect("shrunk");
        let error = source.slice(part(0, 1_000)).expect_err("changed");
        assert_eq!(error.kind(), ErrorKind::Changed);
        assert!(error.to_string().contains("from 1000 to 500 bytes"), "{error}");
    }

    #[test]
    fn reading_what_is_lost_is_noticed_and_survived() {
        crate::guard_mapped_files().expect("installed");
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(&vec![1; 100_000]).expect("written");
        let source = Source::open(file.path()).expect("mapped");
        let slice = source.slice(part(0, 100_000)).expect("inside");
        file.as_file().set_len(4_096).expect("shrunk");
        // Put back, so that only the handler can tell.
        assert_eq!(slice.iter().map(|byte| u64::from(*byte)).sum::<u64>(), 4_096);
        file.as_file().set_len(100_000).expect("grown");
        assert!(source.0.guard.as_ref().expect("registered").has_lost_pages());
        source.check_unchanged().expect_err("noticed");
    }

    #[test]
    fn a_file_put_in_its_place_is_noticed() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, other) = (folder.path().join("a"), folder.path().join("b"));
        std::fs::write(&path, "one").expect("written");
        std::fs::write(&other, "two").expect("written");
        let source = Source::open(&path).expect("mapped");
        std::fs::rename(&other, &path).expect("replaced");
        let error = source.check_still_there().expect_err("replaced");
        assert!(error.to_string().contains("during the upload"), "{error}");
    }

    #[test]
    fn what_is_not_a_file_is_refused() {
        let said = |path: &str| {
            let error = Source::open(Path::new(path)).expect_err("not a file");
            (error.kind(), error.to_string())
        };
        assert_eq!(
            said("/"),
            (ErrorKind::InvalidInput, "upload /: it is a folder; name one file".into())
        );
        assert_eq!(said("/dev/null").0, ErrorKind::InvalidInput);
        assert_eq!(said("/no/such/file").0, ErrorKind::NotFound);
    }
}
