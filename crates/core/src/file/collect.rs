//! The bytes of a range that wait in memory, in buffers that are used again and again.
//!
//! What a connection hands over is a slice of the memory it reads into, and keeps all of that alive:
//! a stream that kept those slices would hold more than its bytes, and every read would need memory
//! that the kernel has to clear first. A copy, while the bytes are in the processor's cache, is cheaper
//! than either.

use bytes::{Bytes, BytesMut};

use super::aligned::{Aligned, BUFFER_BYTES, Buffers};

/// What has been received of one range.
#[derive(Debug)]
pub(crate) struct Collected {
    full: Vec<Bytes>,
    filling: Filling,
    buffers: Buffers,
}

#[derive(Debug)]
enum Filling {
    Nothing,
    Buffer(Aligned),
    /// Of a range that is much shorter than a buffer.
    Short(BytesMut),
}

impl Collected {
    /// For a range of so many bytes, in buffers of `buffers`.
    pub(crate) fn new(buffers: &Buffers, len_bytes: u64) -> Self {
        let short = usize::try_from(len_bytes).ok().filter(|len| *len < BUFFER_BYTES);
        let filling =
            short.map_or(Filling::Nothing, |len| Filling::Short(BytesMut::with_capacity(len)));
        Self { full: Vec::new(), filling, buffers: buffers.clone() }
    }

    /// Memory that a range of so many bytes takes.
    pub(crate) fn memory_bytes(len_bytes: u64) -> u64 {
        let buffer_bytes = BUFFER_BYTES as u64;
        if len_bytes < buffer_bytes {
            return len_bytes;
        }
        len_bytes.checked_next_multiple_of(buffer_bytes).unwrap_or(len_bytes)
    }

    pub(crate) fn take(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match &mut self.filling {
                Filling::Short(short) => return short.extend_from_slice(bytes),
                Filling::Nothing => self.filling = Filling::Buffer(self.buffers.take()),
                Filling::Buffer(buffer) => {
                    bytes = &bytes[buffer.take(bytes)..];
                    if buffer.is_full() {
                        self.end_buffer();
                    }
                }
            }
        }
    }

    /// All of it, in order.
    pub(crate) fn finish(mut self) -> Vec<Bytes> {
        self.end_buffer();
        self.full
    }

    fn end_buffer(&mut self) {
        match std::mem::replace(&mut self.filling, Filling::Nothing) {
            Filling::Nothing => {}
            Filling::Buffer(buffer) => self.full.push(Bytes::from_owner(buffer)),
            Filling::Short(short) => self.full.push(short.freeze()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_collected_is_what_came_and_buffers_come_back() {
        let buffers = Buffers::default();
        for len in [1, 1000, BUFFER_BYTES - 1, BUFFER_BYTES, 2 * BUFFER_BYTES + 77] {
            let bytes: Vec<u8> = (0..251).cycle().take(len).collect();
            let mut collected = Collected::new(&buffers, len as u64);
            bytes.chunks(100_003).for_each(|chunk| collected.take(chunk));
            let pieces = collected.finish();
            assert_eq!(pieces.concat(), bytes, "{len}");
            let taken: usize = pieces.len() * BUFFER_BYTES.min(len);
            assert!(taken as u64 <= Collected::memory_bytes(len as u64), "{len}");
        }
        let idle = buffers.idle().len();
        let mut again = Collected::new(&buffers, BUFFER_BYTES as u64);
        again.take(&vec![1; BUFFER_BYTES]);
        assert_eq!(buffers.idle().len(), idle - 1);
        drop(again);
        assert_eq!(buffers.idle().len(), idle);
    }
}
