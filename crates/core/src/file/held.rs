//! Parts that are held in memory until the store has them: read past the page cache, or received.

use std::fs::File;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};

use super::aligned::{BUFFER_BYTES, Buffers, alignment, floor};
use super::direct::read_up_to;
use crate::plan::Part;

/// Requests that a part's reading has with the disk at a time. Two parts are read at once, and that
/// makes eight, which is what it took to keep a fast disk busy.
const READS_AT_ONCE: usize = 4;

/// The bytes of a part, cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Held {
    // Buffer by buffer, from the beginning of the page that the part begins in.
    buffers: Arc<[Bytes]>,
    /// Bytes of that page that lie before the part.
    before: usize,
}

impl Held {
    /// Reads `part` from `file`, which is open for direct I/O.
    pub(super) async fn read(file: &Arc<File>, pool: &Buffers, part: Part) -> io::Result<Self> {
        let start = floor(part.offset_bytes);
        let starts = (start..part.end_bytes()).step_by(BUFFER_BYTES);
        let reads = futures::stream::iter(starts).map(|at| {
            let (file, mut buffer) = (Arc::clone(file), pool.take());
            let want = usize::try_from(part.end_bytes() - at).unwrap_or(usize::MAX);
            let want = want.min(BUFFER_BYTES);
            let reading = move || -> io::Result<Bytes> {
                let whole = want.next_multiple_of(alignment());
                if read_up_to(&file, buffer.first(whole), at)? < want {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                buffer.truncate(want);
                Ok(Bytes::from_owner(buffer))
            };
            async { tokio::task::spawn_blocking(reading).await? }
        });
        let buffers: Vec<_> = reads.buffered(READS_AT_ONCE).try_collect().await?;
        let before = usize::try_from(part.offset_bytes - start).unwrap_or_default();
        Ok(Self { buffers: buffers.into(), before })
    }

    /// What was collected: pieces as [`super::Collected`] gives them.
    pub(super) fn collected(pieces: Vec<Bytes>) -> Self {
        Self { buffers: pieces.into(), before: 0 }
    }

    /// How many bytes there are.
    pub(super) fn len_bytes(&self) -> u64 {
        let all: u64 = self.buffers.iter().map(|buffer| buffer.len() as u64).sum();
        all - self.before as u64
    }

    /// The bytes from the part's byte `at` on, `most` of them or fewer, and none behind its end.
    pub(super) fn slice(&self, at_bytes: u64, most: usize) -> Bytes {
        let at = self.before + usize::try_from(at_bytes).unwrap_or(usize::MAX - self.before);
        let (index, within) = (at / BUFFER_BYTES, at % BUFFER_BYTES);
        let Some(buffer) = self.buffers.get(index) else { return Bytes::new() };
        let within = within.min(buffer.len());
        buffer.slice(within..buffer.len().min(within + most))
    }

    /// All of it in one piece.
    pub(super) fn to_bytes(&self) -> Bytes {
        let mut whole = self.buffers.concat();
        whole.drain(..self.before);
        whole.into()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::file::direct;

    #[test]
    fn a_part_is_held_as_it_is_in_the_file() {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        let content: Vec<u8> = (0..3_000_001_u32).map(|i| (i % 251) as u8).collect();
        file.write_all(&content).expect("written");
        let Ok(open) = direct::open(file.as_file(), file.path(), false) else {
            println!("skipped: the folder for temporary files takes no direct I/O");
            return;
        };
        let (open, pool) = (Arc::new(open), Buffers::default());
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        for (offset, len) in
            [(0_u32, 1_u32), (0, 3_000_001), (1 << 20, 1 << 20), (4_097, 2_000_000), (3_000_000, 1)]
        {
            let part = Part { number: 1, offset_bytes: offset.into(), len_bytes: len.into() };
            let held = runtime.block_on(Held::read(&open, &pool, part)).expect("read");
            let expected = &content[offset as usize..(offset + len) as usize];
            assert!(held.to_bytes() == expected);
            let (mut at, len) = (0, len as usize);
            let mut slices = Vec::new();
            while at < len {
                let slice = held.slice(at as u64, 100_000);
                assert!((1..=100_000).contains(&slice.len()));
                at += slice.len();
                slices.extend_from_slice(&slice);
            }
            assert!(slices == expected);
            assert!(held.slice(len as u64, 1).is_empty());
        }
        let beyond = Part { number: 1, offset_bytes: 2_000_000, len_bytes: 1_000_002 };
        let error = runtime.block_on(Held::read(&open, &pool, beyond)).expect_err("ends");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        // Every buffer came back: those of the longest part, by whole huge pages.
        assert_eq!(pool.idle().len(), 8);
    }
}
