//! Memory as direct I/O wants it: the disk's controller reads and writes it without the kernel in
//! between, so it begins where a page does.
//!
//! It is cut from huge pages. A disk is told where memory is piece by piece, and a buffer in small
//! pages is a hundred pieces: on a virtual disk, huge ones raised the throughput of reads and writes
//! by half and took a third of the CPU time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;

/// Bytes in a buffer, and so in a request to the disk. Every range under way fills one, so that it is
/// not larger than it must be: eight requests of 512 KiB were no slower than four or eight of 1 MiB.
pub(crate) const BUFFER_BYTES: usize = 512 * 1024;

/// A huge page where pages are of 4 KiB, on x86-64 and ARM.
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// What offsets, lengths and addresses of direct I/O are multiples of. Disks ask for 512 or 4096
/// bytes. A page is never less, and with whole pages no page of the cache ever holds both what went past
/// it and what went through it.
pub(super) fn alignment() -> usize {
    rustix::param::page_size().max(4096)
}

/// The last multiple of the alignment at or before `bytes`.
pub(super) fn floor(bytes: u64) -> u64 {
    bytes - bytes % alignment() as u64
}

/// Buffers of [`BUFFER_BYTES`] that nobody is using. They go when the last of them, and the last clone
/// of this, does.
#[derive(Debug, Clone, Default)]
pub(crate) struct Buffers(Arc<Mutex<Vec<BytesMut>>>);

impl Buffers {
    /// An empty one, which comes back here when it is dropped.
    pub(super) fn take(&self) -> Aligned {
        let mut idle = self.idle();
        if idle.is_empty() {
            idle.extend(cut_huge_page());
        }
        // The last one back is the first one out: it is the likeliest to be in cache still.
        let memory = idle.pop().unwrap_or_default();
        Aligned { memory, len: 0, home: self.clone() }
    }

    pub(super) fn idle(&self) -> MutexGuard<'_, Vec<BytesMut>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// [`BUFFER_BYTES`] of memory from the beginning of a page on, and how much of it is filled.
#[derive(Debug)]
pub(super) struct Aligned {
    // As long as it was cut, always.
    memory: BytesMut,
    len: usize,
    home: Buffers,
}

impl Aligned {
    /// Takes from the front of `bytes` what there is room for. How much that was.
    pub(super) fn take(&mut self, bytes: &[u8]) -> usize {
        let len = bytes.len().min(self.memory.len() - self.len);
        self.memory[self.len..self.len + len].copy_from_slice(&bytes[..len]);
        self.len += len;
        len
    }

    pub(super) fn is_full(&self) -> bool {
        self.len == self.memory.len()
    }

    /// What is filled.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.memory[..self.len]
    }

    /// The first `len` bytes, to be filled; they are then all that is.
    pub(super) fn first(&mut self, len: usize) -> &mut [u8] {
        self.len = len.min(self.memory.len());
        &mut self.memory[..self.len]
    }

    pub(super) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }
}

impl AsRef<[u8]> for Aligned {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}

impl Drop for Aligned {
    fn drop(&mut self) {
        self.home.idle().push(std::mem::take(&mut self.memory));
    }
}

fn cut_huge_page() -> impl Iterator<Item = BytesMut> {
    // A whole one lies in memory that is twice as long, of which the rest is never touched, and so
    // is never there.
    let mut memory = BytesMut::zeroed(2 * HUGE_PAGE_BYTES);
    let start = memory.as_ptr().align_offset(HUGE_PAGE_BYTES).min(HUGE_PAGE_BYTES);
    drop(memory.split_to(start));
    memory.truncate(HUGE_PAGE_BYTES);
    advise_huge(&mut memory);
    (0..HUGE_PAGE_BYTES / BUFFER_BYTES).map(move |_| memory.split_to(BUFFER_BYTES))
}

#[allow(unsafe_code)]
fn advise_huge(memory: &mut BytesMut) {
    // SAFETY: the addresses are those of memory that is borrowed exclusively, and begin at a page;
    // the advice changes what pages it is made of, and not what is in it. It may be refused.
    let _ = unsafe { libc::madvise(memory.as_mut_ptr().cast(), memory.len(), libc::MADV_HUGEPAGE) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_begins_at_a_page_and_comes_back() {
        let buffers = Buffers::default();
        let per_page = HUGE_PAGE_BYTES / BUFFER_BYTES;
        let mut taken: Vec<_> = (0..=per_page).map(|_| buffers.take()).collect();
        for (index, buffer) in taken.iter_mut().enumerate() {
            assert!(buffer.bytes().is_empty());
            assert_eq!(
                buffer.take(&vec![u8::try_from(index).expect("few"); BUFFER_BYTES + 1]),
                BUFFER_BYTES
            );
            assert!(buffer.is_full());
            assert!((buffer.bytes().as_ptr() as usize).is_multiple_of(alignment()));
        }
        // Nobody wrote to another's.
        for (index, buffer) in taken.iter().enumerate() {
            assert!(buffer.bytes().iter().all(|byte| usize::from(*byte) == index));
        }
        drop(taken);
        assert_eq!(buffers.idle().len(), 2 * per_page);
        assert!(buffers.idle().iter().all(|memory| memory.len() == BUFFER_BYTES));
        let mut buffer = buffers.take();
        assert!(buffer.bytes().is_empty());
        assert_eq!(buffer.first(10).len(), 10);
        buffer.truncate(5);
        assert_eq!(buffer.as_ref().len(), 5);
    }
}
