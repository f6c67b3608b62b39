//! Reading a target again: past the page cache where it was written so.
//!
//! What was written past the cache is not in it. Reading it through the cache would fill that with
//! pages that nobody needs a second time, more slowly, and with pages behind the ones that were
//! asked for, which other ranges are being written to meanwhile.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::aligned::{Aligned, BUFFER_BYTES, Buffers, alignment, floor};
use super::direct::{is_refusal, read_up_to};

/// Reads a target. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Reader {
    file: Arc<File>,
    direct: Option<Arc<File>>,
    buffers: Buffers,
}

impl Reader {
    pub(super) fn new(file: Arc<File>, direct: Option<Arc<File>>) -> Self {
        Self { file, direct, buffers: Buffers::default() }
    }

    /// One that reads through the page cache.
    #[cfg(test)]
    pub(crate) fn cached(file: File) -> Self {
        Self::new(Arc::new(file), None)
    }

    /// Gives `sink` the bytes of a segment, in order, a bit at a time, until it wants no more. A file
    /// that ends before the segment does is an error.
    pub(crate) fn read(
        &self,
        offset_bytes: u64,
        len_bytes: u64,
        mut sink: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut buffer = self.buffers.take();
        let (mut at, end) = (offset_bytes, offset_bytes + len_bytes);
        while at < end {
            // The first read ends where the pages that all others are made of begin.
            let want = BUFFER_BYTES as u64 - (at - floor(at));
            let want = usize::try_from(want.min(end - at)).unwrap_or(BUFFER_BYTES);
            let bytes = self.read_exact(&mut buffer, at, want)?;
            sink(bytes)?;
            at += want as u64;
        }
        Ok(())
    }

    fn read_exact<'a>(
        &self,
        buffer: &'a mut Aligned,
        at_bytes: u64,
        want: usize,
    ) -> io::Result<&'a [u8]> {
        let before = usize::try_from(at_bytes - floor(at_bytes)).unwrap_or_default();
        if let Some(direct) = &self.direct {
            let whole = (before + want).next_multiple_of(alignment());
            match read_up_to(direct, buffer.first(whole), floor(at_bytes)) {
                Ok(len) if len >= before + want => {
                    return Ok(&buffer.first(whole)[before..before + want]);
                }
                Ok(_) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(error) if is_refusal(&error) => {}
                Err(error) => return Err(error),
            }
        }
        let bytes = buffer.first(want);
        self.file.read_exact_at(bytes, at_bytes)?;
        Ok(bytes)
    }
}
