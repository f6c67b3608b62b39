//! Writing the ranges of a target, past the page cache where that is faster.
//!
//! Bytes that go through the page cache are written by the thread that received them, which the
//! kernel only slows down when too much of them waits for the disk; then fsync waits for the rest.
//! On a fast disk that is the slowest part of a download: every page is allocated, filled, searched
//! for and written by one thread of the kernel's. Past the cache, bytes are gathered in buffers and
//! handed to the disk by a few threads, so that a connection never waits for the disk, a transfer's
//! memory is what its buffers are, and fsync finds nothing left to do.
//!
//! Direct I/O moves whole pages. What lies in a page that a range does not fill, at its ends, goes
//! through the cache, by another descriptor of the same file: no page is ever written both ways.
//! File systems that refuse it are told by the first write, and get everything through the cache.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinError, JoinSet};

use super::aligned::{Aligned, BUFFER_BYTES, Buffers, alignment, floor};
use super::direct::{self, is_refusal};
use super::target::{timed, write_at};
use crate::error::{Error, ErrorKind, Result};
use crate::flow::Flow;
use crate::options::DirectIo;

const OPERATION: &str = "download to";

/// Buffers of one target that are being written, with a thread for each: what it took to keep a fast
/// disk busy, with some to spare. Who has a ninth waits, and stops reading from its connection.
const WRITES_AT_ONCE: u32 = 8;

/// Writes a target. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Writer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    file: Arc<File>,
    direct: Option<Direct>,
}

#[derive(Debug)]
struct Direct {
    file: Arc<File>,
    buffers: Buffers,
    under_way: Arc<Semaphore>,
    refused: AtomicBool,
}

impl Writer {
    /// One that writes through the page cache, on the calling thread.
    pub(super) fn cached(file: Arc<File>) -> Self {
        Self(Arc::new(Inner { file, direct: None }))
    }

    /// One for the open `file` at `path`, of `size_bytes`, that goes past the page cache where `how`
    /// says so and it can be done.
    pub(super) fn new(file: Arc<File>, path: &Path, size_bytes: u64, how: DirectIo) -> Self {
        let wanted = direct::is_wanted(&file, size_bytes, how);
        let direct = if wanted { direct::open(&file, path, true).ok() } else { None };
        let direct = direct.map(|direct| Direct {
            file: Arc::new(direct),
            buffers: Buffers::default(),
            under_way: Arc::new(Semaphore::new(WRITES_AT_ONCE as usize)),
            refused: AtomicBool::new(false),
        });
        Self(Arc::new(Inner { file, direct }))
    }

    /// Whether bytes go past the page cache, as far as is known.
    pub(crate) fn is_direct(&self) -> bool {
        self.0.direct.as_ref().is_some_and(|direct| !direct.refused.load(Ordering::Relaxed))
    }

    /// Memory that one range under way takes.
    pub(crate) fn memory_bytes(&self) -> u64 {
        if self.0.direct.is_some() { BUFFER_BYTES as u64 } else { 0 }
    }

    /// Writes what comes, in order, from `offset_bytes` on. Errors name `target`; `flow` is told of
    /// waits for the disk.
    pub(crate) fn range(&self, offset_bytes: u64, target: Arc<PathBuf>, flow: Flow) -> RangeWriter {
        RangeWriter {
            writer: self.clone(),
            target,
            flow,
            at_bytes: offset_bytes,
            filling: None,
            writes: JoinSet::new(),
        }
    }

    /// Waits until nothing is being written. Ranges that were given up leave buffers on their way to
    /// the disk, and the file must not be removed, or kept, under them.
    pub(crate) async fn settled(&self) {
        if let Some(direct) = &self.0.direct {
            // Never closed: that cannot fail.
            let _ = direct.under_way.acquire_many(WRITES_AT_ONCE).await;
        }
    }

    /// The direct descriptor, to read what was written by it.
    pub(super) fn direct_file(&self) -> Option<Arc<File>> {
        self.0.direct.as_ref().filter(|_| self.is_direct()).map(|direct| Arc::clone(&direct.file))
    }

    /// Writes whole pages, blocking: past the cache as far as that goes, the rest through it.
    fn write_pages(&self, bytes: &[u8], offset_bytes: u64) -> io::Result<()> {
        let mut written = 0;
        while let Some(direct) = self.0.direct.as_ref().filter(|_| self.is_direct())
            && written < bytes.len()
            && written.is_multiple_of(alignment())
        {
            match direct.file.write_at(&bytes[written..], offset_bytes + written as u64) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(len) => written += len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_refusal(&error) => direct.refused.store(true, Ordering::Relaxed),
                Err(error) => return Err(error),
            }
        }
        // A full disk, say, takes half of a write and refuses the rest.
        self.0.file.write_all_at(&bytes[written..], offset_bytes + written as u64)
    }
}

/// Writes one range of a target. What was given to it is on the disk's side once
/// [`RangeWriter::finish`] has said so; dropped before, any part of it may be.
#[derive(Debug)]
pub(crate) struct RangeWriter {
    writer: Writer,
    target: Arc<PathBuf>,
    flow: Flow,
    /// Where the next byte goes.
    at_bytes: u64,
    /// The bytes before that which no write was begun for.
    filling: Option<Aligned>,
    writes: JoinSet<io::Result<()>>,
}

impl RangeWriter {
    /// Takes the next bytes, and waits while too many others are being written.
    pub(crate) async fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        let inner = Arc::clone(&self.writer.0);
        let Some(direct) = &inner.direct else { return self.write_cached(bytes) };
        while !bytes.is_empty() {
            let into_page = self.at_bytes - floor(self.at_bytes);
            if self.filling.is_none() && into_page > 0 {
                let rest_of_page = alignment() - usize::try_from(into_page).unwrap_or_default();
                let (head, behind) = bytes.split_at(rest_of_page.min(bytes.len()));
                self.write_cached(head)?;
                bytes = behind;
                continue;
            }
            let buffer = self.filling.get_or_insert_with(|| direct.buffers.take());
            let taken = buffer.take(bytes);
            let is_full = buffer.is_full();
            self.at_bytes += taken as u64;
            bytes = &bytes[taken..];
            if is_full {
                self.hand_over(direct).await?;
            }
        }
        Ok(())
    }

    /// Waits until all that was given is written.
    pub(crate) async fn finish(&mut self) -> Result<()> {
        let inner = Arc::clone(&self.writer.0);
        let Some(direct) = &inner.direct else { return Ok(()) };
        let mut tail = Vec::new();
        if let Some(buffer) = &mut self.filling {
            let len = buffer.bytes().len();
            let whole = len - len % alignment();
            tail.extend_from_slice(&buffer.bytes()[whole..]);
            buffer.truncate(whole);
            self.at_bytes -= tail.len() as u64;
            self.hand_over(direct).await?;
        }
        let ending = Instant::now();
        while let Some(written) = self.writes.join_next().await {
            self.look_at(written)?;
        }
        self.flow.queued_for_disk(ending.elapsed());
        self.write_cached(&tail)
    }

    /// Has the filled buffer written by another thread.
    async fn hand_over(&mut self, direct: &Direct) -> Result<()> {
        while let Some(written) = self.writes.try_join_next() {
            self.look_at(written)?;
        }
        let Some(buffer) = self.filling.take() else { return Ok(()) };
        if buffer.bytes().is_empty() {
            return Ok(());
        }
        // Never closed: there always is one.
        let waiting = Instant::now();
        let permit = Arc::clone(&direct.under_way).acquire_owned().await.ok();
        self.flow.queued_for_disk(waiting.elapsed());
        let offset_bytes = self.at_bytes - buffer.bytes().len() as u64;
        let (writer, write) =
            (self.writer.clone(), Write { buffer, offset_bytes, _permit: permit });
        self.writes.spawn_blocking(move || write.to(&writer));
        Ok(())
    }

    fn write_cached(&mut self, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let file = &self.writer.0.file;
        let (written, blocked) = timed(|| write_at(file, bytes, self.at_bytes, &self.target));
        self.flow.disk(blocked);
        self.at_bytes += bytes.len() as u64;
        written
    }

    fn look_at(&self, written: Result<io::Result<()>, JoinError>) -> Result<()> {
        let written = written.map_err(|source| {
            let target = self.target.display().to_string();
            Error::new(ErrorKind::Io, OPERATION, target, "a writing thread ended").caused_by(source)
        })?;
        written.map_err(|source| Error::io(OPERATION, &self.target, source))
    }
}

/// A buffer on its way to the disk. Whatever becomes of it, the buffer can be used again afterwards,
/// and then another write may begin.
struct Write {
    offset_bytes: u64,
    // In this order.
    buffer: Aligned,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Write {
    // All of `self` is taken: a closure would leave behind what it does not use, the permit.
    fn to(self, writer: &Writer) -> io::Result<()> {
        writer.write_pages(self.buffer.bytes(), self.offset_bytes)
    }
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on as wait;
    use proptest::prelude::*;
    use tempfile::NamedTempFile;

    use super::*;
    use crate::file::direct::{LARGE_BYTES, is_faster};
    use crate::flow::Meter;
    use crate::progress::Emitter;

    /// A writer that uses `direct` for whole pages, whatever that is.
    fn with(file: &NamedTempFile, direct: File) -> Writer {
        Writer(Arc::new(Inner {
            file: Arc::new(file.reopen().expect("opened")),
            direct: Some(Direct {
                file: Arc::new(direct),
                buffers: Buffers::default(),
                under_way: Arc::new(Semaphore::new(WRITES_AT_ONCE as usize)),
                refused: AtomicBool::new(false),
            }),
        }))
    }

    fn flow() -> Flow {
        Flow::new(Emitter::default(), Meter::default())
    }

    fn device(path: &str) -> File {
        std::fs::OpenOptions::new().write(true).open(path).expect("Linux")
    }

    fn noise(len: usize, seed: u64) -> Vec<u8> {
        let mut random = fastrand::Rng::with_seed(seed);
        std::iter::repeat_with(|| random.u8(..)).take(len).collect()
    }

    /// Blocking threads are a runtime's.
    fn block_on<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(future)
    }

    /// Writes all ranges at once, each in chunks of that many bytes in turn.
    async fn write(writer: &Writer, content: &[u8], range: usize, chunks: &[usize]) -> Result<()> {
        let target = Arc::new(PathBuf::from("the target"));
        let ranges = content.chunks(range).enumerate().map(|(index, mut bytes)| {
            let mut range = writer.range((index * range) as u64, Arc::clone(&target), flow());
            let mut chunks = chunks.iter().cycle().skip(index);
            async move {
                while !bytes.is_empty() {
                    let len = chunks.next().map_or(1, |len| *len).min(bytes.len());
                    range.write(&bytes[..len]).await?;
                    bytes = &bytes[len..];
                    tokio::task::yield_now().await;
                }
                range.finish().await
            }
        });
        futures::future::try_join_all(ranges).await.map(drop)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        /// However bytes are cut into ranges and chunks, and whichever way they go, the file is what
        /// a plain write of them gives, and reads so again.
        #[test]
        fn any_chunks_of_any_ranges_give_the_same_file(
            size in prop_oneof![1_usize..20_000, 1_usize..3_000_000],
            range in prop_oneof![
                1_usize..3_000_000,
                (1_usize..700).prop_map(|pages| pages * 4_096),
            ],
            chunks in proptest::collection::vec(1_usize..600_000, 1..6),
            how in prop::sample::select(vec![DirectIo::On, DirectIo::Off, DirectIo::Auto]),
            seed in any::<u64>(),
        ) {
            // A few hundred ranges at most.
            let range = range.max(size / 300);
            let content = noise(size, seed);
            let file = NamedTempFile::new().expect("a file");
            file.as_file().set_len(size as u64).expect("reserved");
            let open = Arc::new(file.reopen().expect("opened"));
            let writer = Writer::new(Arc::clone(&open), file.path(), size as u64, how);
            block_on(write(&writer, &content, range, &chunks)).expect("written");
            prop_assert_eq!(std::fs::read(file.path()).expect("read") == content, true);

            let reader = super::super::reader::Reader::new(open, writer.direct_file());
            let (from, len) = (range.min(size - 1), size - range.min(size - 1));
            let mut again = Vec::new();
            let sink = |bytes: &[u8]| {
                again.extend_from_slice(bytes);
                Ok(())
            };
            reader.read(from as u64, len as u64, sink).expect("read");
            prop_assert_eq!(again == content[from..], true);
            let behind = reader.read(from as u64, len as u64 + 1, |_| Ok(()));
            prop_assert_eq!(behind.expect_err("ends").kind(), io::ErrorKind::UnexpectedEof);
        }
    }

    #[test]
    fn what_is_refused_goes_through_the_cache() {
        // A number is expected there, and anything else is an invalid argument.
        let refusing = device("/proc/self/oom_score_adj");
        let file = NamedTempFile::new().expect("a file");
        let writer = with(&file, refusing);
        assert!(writer.is_direct());
        let content = noise(2_000_000, 1);
        block_on(write(&writer, &content, 1 << 20, &[300_000])).expect("written");
        assert!(!writer.is_direct() && writer.direct_file().is_none());
        assert!(std::fs::read(file.path()).expect("read") == content);
    }

    #[test]
    fn a_full_disk_is_an_error_of_the_target() {
        let file = NamedTempFile::new().expect("a file");
        let writer = with(&file, device("/dev/full"));
        let failed = block_on(write(&writer, &noise(8 << 20, 1), 4 << 20, &[100_000]));
        let error = failed.expect_err("full");
        assert_eq!(error.kind(), ErrorKind::DiskFull, "{error}");
        assert_eq!((error.operation(), error.target()), ("download to", "the target"));
        // A refusal it is not.
        assert!(writer.is_direct());
    }

    #[test]
    fn nothing_is_written_any_more_once_it_has_settled() {
        let file = NamedTempFile::new().expect("a file");
        file.as_file().set_len(64 << 20).expect("reserved");
        let open = Arc::new(file.reopen().expect("opened"));
        let writer = Writer::new(open, file.path(), 64 << 20, DirectIo::On);
        let Some(direct) = &writer.0.direct else {
            println!("skipped: the folder for temporary files takes no direct I/O");
            return;
        };
        block_on(async {
            for index in 0..16 {
                let mut range = writer.range(index << 22, Arc::default(), flow());
                range.write(&noise(3 << 20, index)).await.expect("taken");
                // Given up with writes under way.
                drop(range);
            }
            writer.settled().await;
            let given_back = direct.buffers.idle().len();
            assert!((4..=16).contains(&given_back), "{given_back}");
            assert_eq!(direct.under_way.available_permits(), WRITES_AT_ONCE as usize);
        });
        wait(writer.settled());
    }

    #[test]
    fn small_files_and_files_in_memory_go_through_the_cache() {
        let file = NamedTempFile::new().expect("a file");
        let open = || Arc::new(file.reopen().expect("opened"));
        let direct = |size, how| Writer::new(open(), file.path(), size, how).is_direct();
        assert!(!direct(LARGE_BYTES - 1, DirectIo::Auto));
        assert!(!direct(u64::MAX, DirectIo::Off));
        assert_eq!(direct(LARGE_BYTES, DirectIo::Auto), is_faster(&open()));
        assert!(!is_faster(&File::open("/proc/self/status").expect("Linux")));
        // Another file in its place is not written to.
        let other = NamedTempFile::new().expect("a file");
        assert!(!Writer::new(open(), other.path(), 1, DirectIo::On).is_direct());
    }
}
