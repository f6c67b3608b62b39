//! Buffers that frames are read into, used again and again.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::content::FRAME_BYTES;
use crate::error::Result;

/// The buffers of one source that no frame is using. There are never more of them than frames were
/// under way at once, a few for every connection, and they go when the source does.
#[derive(Debug, Clone, Default)]
pub(super) struct Pool(Arc<Mutex<Vec<Box<[u8]>>>>);

impl Pool {
    /// A frame of `len` bytes, at most [`FRAME_BYTES`], that `fill` writes all of. Its buffer comes
    /// back here when the last clone of the `Bytes` is dropped.
    pub(super) fn frame(
        &self,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<()>,
    ) -> Result<Bytes> {
        // The last one back is the first one out: it is the likeliest to be in cache still.
        let free = self.idle().pop();
        let buffer = free.unwrap_or_else(|| vec![0; FRAME_BYTES].into_boxed_slice());
        let mut frame = Frame { buffer, len, home: self.clone() };
        fill(&mut frame.buffer[..len])?;
        Ok(Bytes::from_owner(frame))
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Box<[u8]>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Frame {
    buffer: Box<[u8]>,
    len: usize,
    home: Pool,
}

impl AsRef<[u8]> for Frame {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[..self.len]
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        self.home.idle().push(std::mem::take(&mut self.buffer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, ErrorKind};

    #[test]
    fn a_buffer_comes_back_when_its_last_slice_is_gone() {
        let pool = Pool::default();
        let fill = |byte| {
            move |buffer: &mut [u8]| {
                buffer.fill(byte);
                Ok(())
            }
        };
        let one = pool.frame(10, fill(1)).expect("filled");
        let two = pool.frame(FRAME_BYTES, fill(2)).expect("filled");
        let (slice, address) = (one.slice(3..5), one.as_ptr());
        drop((one, two));
        assert_eq!(pool.idle().len(), 1);
        assert_eq!(slice[..], [1, 1]);
        drop(slice);
        assert_eq!(pool.idle().len(), 2);
        let again = pool.frame(4, fill(3)).expect("filled");
        assert_eq!((again.as_ptr(), &again[..]), (address, &[3; 4][..]));
    }

    #[test]
    fn a_buffer_that_could_not_be_filled_comes_back() {
        let pool = Pool::default();
        let failing = |_: &mut [u8]| Err(Error::new(ErrorKind::Io, "read", "x", "no"));
        pool.frame(1, failing).expect_err("not filled");
        assert_eq!(pool.idle().len(), 1);
    }
}
