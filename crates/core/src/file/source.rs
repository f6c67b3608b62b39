//! A source file, which gives its parts away mapped or read.
//!
//! It is mapped where the guard of mapped files stands (see [`guard_mapped_files`]) and read where
//! not, so that no mapping can end the process. Mapped parts reach the socket without a copy.
//!
//! The file's identity (size, modification time, inode) is taken when it is opened and held
//! against the file before and after every part and once more before an upload is completed: a
//! source that changes ends the transfer, because an object made of two states of a file is worse
//! than none.
//!
//! [`guard_mapped_files`]: crate::guard_mapped_files

use std::fs::{File, Metadata};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::fs::Advice;

use super::ahead::{self, Ahead};
use super::content::Content;
use super::mapping::Mapping;
use super::pool::Pool;
use crate::error::{Error, ErrorKind, Result};
use crate::options::DirectIo;
use crate::plan::Part;

/// A regular file, open and perhaps mapped.
#[derive(Debug, Clone)]
pub(crate) struct Source(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    file: Arc<File>,
    identity: Identity,
    // `None`: the file is read.
    mapping: Option<Mapping>,
    pool: Pool,
    // `None`: whoever wants a page waits for it.
    ahead: Option<Ahead>,
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
    /// Opens `path`, to be read as `how` says. A folder, a pipe or a device is refused.
    pub(crate) fn open(path: &Path, how: DirectIo) -> Result<Self> {
        let mut source = Self::open_to_read(path)?;
        source.ahead = Ahead::new(&source.file, path, source.identity.size_bytes, how);
        source.mapping = Mapping::new(&source.file, source.identity.size_bytes);
        if source.mapping.is_none() {
            // As a mapping is told: parts are read front to back. Advice may be refused.
            let _ = rustix::fs::fadvise(&*source.file, 0, None, Advice::Sequential);
        }
        Ok(Self(Arc::new(source)))
    }

    fn open_to_read(path: &Path) -> Result<Inner> {
        let failed = |source| Error::io(OPERATION, path, source);
        // Looked at before it is opened: opening a pipe would wait for its writer.
        refuse_irregular(path, &std::fs::metadata(path).map_err(failed)?)?;
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        refuse_irregular(path, &metadata)?;
        let identity = Identity::of(&metadata);
        let file = Arc::new(file);
        let (path, pool) = (path.to_owned(), Pool::default());
        Ok(Inner { path, file, identity, mapping: None, pool, ahead: None })
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

    /// The part's bytes. The file stays open, and mapped if it is, for as long as they are held.
    pub(crate) fn content(&self, part: Part) -> Result<Content> {
        // Also tells whether zeroes were summed in the place of lost pages.
        self.check_unchanged()?;
        let end = part.offset_bytes.checked_add(part.len_bytes);
        if end.is_none_or(|end| end > self.size_bytes()) {
            return Err(self.beyond());
        }
        Ok(match self.0.mapping {
            Some(_) => Content::mapped(self.clone(), part),
            None => Content::read(self.clone(), part),
        })
    }

    /// Whether the file that was opened is still as it was, and all that was mapped could be read.
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
        if inner.mapping.as_ref().is_some_and(Mapping::has_lost_pages) {
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

    /// Waits until the part is in memory, read from the disk if need be, without blocking; `waited` is
    /// told how long, if so. It is held in the memory that `memory` gives, if that is needed and it gives
    /// any.
    pub(crate) async fn bring<M>(
        &self,
        part: Part,
        memory: impl FnOnce() -> Option<M>,
        waited: impl FnOnce(Duration),
    ) -> Brought<M> {
        let how = match &self.0.ahead {
            Some(ahead) => {
                let asked = Instant::now();
                let (how, was_read) = ahead.bring(part, memory).await;
                if was_read {
                    waited(asked.elapsed());
                }
                how
            }
            None => ahead::Brought::There,
        };
        Brought { source: self.clone(), part, how }
    }

    /// Lets the kernel take back these bytes' pages. A mapping counts as resident memory, and a part
    /// is not needed again once it is acknowledged.
    pub(crate) fn release(&self, offset_bytes: u64, len_bytes: u64) {
        if let Some(mapping) = &self.0.mapping {
            mapping.release(in_memory(offset_bytes, len_bytes));
        }
    }

    /// The mapped bytes there; none of a source that is read, or beyond its end.
    pub(super) fn mapped_bytes(&self, offset_bytes: u64, len_bytes: u64) -> Bytes {
        let range = in_memory(offset_bytes, len_bytes);
        Bytes::from_owner(Slice { source: self.clone(), range })
    }

    /// The bytes there, in a buffer that is used again afterwards. `len` is a frame's at most.
    pub(super) fn read_frame(&self, offset_bytes: u64, len: usize) -> Result<Bytes> {
        self.0.pool.frame(len, |buffer| self.read_exact_at(buffer, offset_bytes))
    }

    /// Fills `buffer` with the bytes from `offset_bytes` on.
    pub(super) fn read_exact_at(&self, buffer: &mut [u8], offset_bytes: u64) -> Result<()> {
        let Err(mut failure) = self.0.file.read_exact_at(buffer, offset_bytes) else {
            return Ok(());
        };
        // A file that was cut short ends early, and one on a server may be gone.
        self.check_unchanged()?;
        if failure.kind() == io::ErrorKind::UnexpectedEof {
            failure = io::Error::new(failure.kind(), "it ended early");
        }
        Err(Error::io(OPERATION, &self.0.path, failure)
            .context(format_args!("the file could not be read behind byte {offset_bytes}"))
            .advise("check the disk"))
    }

    fn changed(&self, what: String) -> Error {
        Error::new(ErrorKind::Changed, OPERATION, self.0.path.display().to_string(), what)
            .advise("nothing was stored; start it again when nothing writes to the file")
    }

    pub(super) fn beyond(&self) -> Error {
        let path = self.0.path.display().to_string();
        Error::new(ErrorKind::Io, OPERATION, path, "a part lies beyond the file")
    }
}

/// A part that is in memory now, if it could be had there.
#[derive(Debug)]
pub(crate) struct Brought<M> {
    source: Source,
    part: Part,
    how: ahead::Brought<M>,
}

impl<M> Brought<M> {
    /// The part's bytes, as [`Source::content`] gives them.
    pub(crate) fn content(&self) -> Result<Content> {
        match &self.how {
            ahead::Brought::Held(held, _) => {
                self.source.check_unchanged()?;
                Ok(Content::gathered(self.source.clone(), self.part, held.clone()))
            }
            _ => self.source.content(self.part),
        }
    }

    /// Gives the memory and the pages back: the part is not needed any more.
    pub(crate) fn give_back(self) {
        self.source.release(self.part.offset_bytes, self.part.len_bytes);
        if let (Some(ahead), ahead::Brought::Cached) = (&self.source.0.ahead, &self.how) {
            ahead.forget(self.part);
        }
    }
}

/// Keeps the mapping alive for as long as a request holds on to its slice.
struct Slice {
    source: Source,
    range: Range<usize>,
}

impl AsRef<[u8]> for Slice {
    fn as_ref(&self) -> &[u8] {
        let bytes = self.source.0.mapping.as_ref().map(Mapping::bytes);
        bytes.and_then(|bytes| bytes.get(self.range.clone())).unwrap_or_default()
    }
}

/// Addresses within a mapping. Where a file is larger than memory can address, there is none.
fn in_memory(offset_bytes: u64, len_bytes: u64) -> Range<usize> {
    let at = |bytes| usize::try_from(bytes).unwrap_or(usize::MAX);
    at(offset_bytes)..at(offset_bytes.saturating_add(len_bytes))
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

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn part(offset_bytes: u64, len_bytes: u64) -> Part {
        Part { number: 1, offset_bytes, len_bytes }
    }

    fn file_of(content: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(content).expect("written");
        file
    }

    /// The same file read, as it is without the guard, and mapped.
    fn both_ways(path: &Path) -> [Source; 2] {
        let read = Source(Arc::new(Source::open_to_read(path).expect("opened")));
        crate::guard_mapped_files().expect("installed");
        let mapped = Source::open(path, DirectIo::Off).expect("opened");
        assert!(mapped.0.mapping.is_some());
        [read, mapped]
    }

    #[test]
    fn a_content_is_the_files_bytes_and_outlives_the_source() {
        let content: Vec<u8> = (0..700_000_u32).map(|i| (i % 251) as u8).collect();
        let file = file_of(&content);
        for source in both_ways(file.path()) {
            let inside = source.content(part(10, 600_000)).expect("inside");
            source.release(0, 700_000);
            drop(source);
            let frames: Vec<Bytes> =
                inside.frames().collect::<Result<_>>().expect("nothing is lost");
            assert_eq!(frames.len(), 3);
            assert_eq!(frames.concat(), content[10..600_010]);
            assert_eq!(inside.to_bytes().expect("nothing is lost"), content[10..600_010]);
            assert_eq!(inside.len_bytes(), 600_000);
        }
    }

    #[test]
    fn an_empty_file_has_an_empty_part() {
        let file = file_of(&[]);
        let source = Source::open(file.path(), DirectIo::Off).expect("opened");
        assert_eq!(source.size_bytes(), 0);
        let content = source.content(part(0, 0)).expect("empty");
        assert_eq!(content.frames().count(), 0);
        assert!(content.to_bytes().expect("empty").is_empty());
    }

    #[test]
    fn a_part_that_is_not_in_the_file_is_refused() {
        let file = file_of(&[1; 1_000]);
        for source in both_ways(file.path()) {
            for (offset, len) in [(0, 1_001), (1_000, 1), (u64::MAX, 1), (1, u64::MAX)] {
                source.content(part(offset, len)).expect_err("beyond");
            }
        }
    }

    #[test]
    fn a_change_is_noticed_and_said() {
        let file = file_of(&[1; 1_000]);
        for source in both_ways(file.path()) {
            source.check_still_there().expect("unchanged");
        }
        let sources = both_ways(file.path());
        file.as_file().set_len(500).expect("shrunk");
        for source in sources {
            let error = source.content(part(0, 1_000)).expect_err("changed");
            assert_eq!(error.kind(), ErrorKind::Changed);
            assert!(error.to_string().contains("from 1000 to 500 bytes"), "{error}");
        }
    }

    #[test]
    fn a_change_while_a_part_goes_by_keeps_it_from_being_whole() {
        for way in 0..2 {
            let file = file_of(&vec![1; 1_000_000]);
            let source = &both_ways(file.path())[way];
            let mut frames = source.content(part(0, 1_000_000)).expect("inside").frames();
            frames.next().expect("a frame").expect("there");
            file.as_file().set_len(400_000).expect("shrunk");
            let error = frames.find_map(Result::err).expect("noticed");
            assert_eq!(error.kind(), ErrorKind::Changed, "{error}");
        }
    }

    #[test]
    fn reading_what_is_lost_is_noticed_and_survived() {
        let file = file_of(&vec![1; 100_000]);
        let [_, source] = both_ways(file.path());
        let bytes = source.mapped_bytes(0, 100_000);
        file.as_file().set_len(4_096).expect("shrunk");
        assert_eq!(bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>(), 4_096);
        // Put back, so that only the handler can tell.
        file.as_file().set_len(100_000).expect("grown");
        assert!(source.0.mapping.as_ref().expect("mapped").has_lost_pages());
        source.check_unchanged().expect_err("noticed");
    }

    /// The kernel reads a mapping for whoever writes it to a socket, and finds what is lost without
    /// a signal.
    #[test]
    fn what_the_kernel_finds_lost_is_the_sources_fault() {
        let file = file_of(&vec![1; 100_000]);
        let [_, source] = both_ways(file.path());
        let content = source.content(part(0, 100_000)).expect("inside");
        file.as_file().set_len(0).expect("shrunk");
        let (mut socket, _other) = std::os::unix::net::UnixStream::pair().expect("a pair");
        let failure = socket.write(&content.to_bytes().expect("mapped")).expect_err("lost");
        assert!(!source.0.mapping.as_ref().expect("mapped").has_lost_pages());
        let as_sent = Error::new(ErrorKind::Unreachable, "upload to", "x", "bad address");
        let said = content.blame(as_sent.caused_by(failure));
        assert_eq!(said.kind(), ErrorKind::Changed, "{said}");
        assert!(source.0.mapping.as_ref().expect("mapped").has_lost_pages());
        let another = Error::new(ErrorKind::Unreachable, "upload to", "x", "connection reset");
        assert_eq!(content.blame(another).kind(), ErrorKind::Unreachable);
    }

    /// Files of /sys say that they are as long as a page, and end earlier.
    #[test]
    fn a_file_that_ends_early_is_an_error() {
        let path = Path::new("/sys/kernel/mm/transparent_hugepage/enabled");
        if !path.exists() {
            println!("skipped: no file here ends before its size");
            return;
        }
        crate::guard_mapped_files().expect("installed");
        let source = Source::open(path, DirectIo::Off).expect("opened");
        assert!(source.0.mapping.is_none(), "such files cannot be mapped");
        let content = source.content(part(0, source.size_bytes())).expect("inside");
        let error = content.frames().find_map(Result::err).expect("noticed");
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(error.to_string().contains("behind byte 0: it ended early"), "{error}");
    }

    #[test]
    fn a_large_part_gives_its_pages_back_while_it_goes_by() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let size_bytes = 64 << 20;
        file.as_file().set_len(size_bytes).expect("long");
        let [_, source] = both_ways(file.path());
        let content = source.content(part(0, size_bytes)).expect("inside");
        let mut most_kib = 0;
        for frame in content.frames() {
            for page in frame.expect("there").chunks(4_096) {
                std::hint::black_box(page[0]);
            }
            most_kib = most_kib.max(resident_kib(&source));
        }
        assert!((1_024..=12 << 10).contains(&most_kib), "{most_kib} KiB");
    }

    /// What `/proc/self/smaps` says of the source's mapping.
    fn resident_kib(source: &Source) -> u64 {
        let start = source.0.mapping.as_ref().expect("mapped").bytes().as_ptr() as usize;
        let smaps = std::fs::read_to_string("/proc/self/smaps").expect("Linux");
        let mut lines = smaps.lines().skip_while(|line| !line.starts_with(&format!("{start:x}-")));
        let resident = lines.find_map(|line| line.strip_prefix("Rss:")).expect("listed");
        resident.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    #[test]
    fn a_file_put_in_its_place_is_noticed() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, other) = (folder.path().join("a"), folder.path().join("b"));
        std::fs::write(&path, "one").expect("written");
        std::fs::write(&other, "two").expect("written");
        let source = Source::open(&path, DirectIo::Off).expect("opened");
        std::fs::rename(&other, &path).expect("replaced");
        let error = source.check_still_there().expect_err("replaced");
        assert!(error.to_string().contains("during the upload"), "{error}");
    }

    #[test]
    fn what_is_not_a_file_is_refused() {
        let said = |path: &str| {
            let error = Source::open(Path::new(path), DirectIo::Off).expect_err("not a file");
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
