//! The content of every object: an endless pattern, in a file that exists in memory only.
//!
//! The pattern's period is a prime just below 64 MiB. No part size is a multiple of it, so a part that a
//! client writes at a wrong offset shows in the checksum; and it is larger than a processor's cache, so
//! that reading it costs what reading a file costs. The CRC of any length follows from the CRC of one
//! period by combination.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, PoisonError};

use crc32fast::Hasher;
use rustix::fs::MemfdFlags;

/// Length of the pattern in bytes: the largest prime below 2^26.
pub(crate) const PERIOD_BYTES: u64 = 67_108_859;

/// The pattern, and the checksums that were asked for so far.
pub(crate) struct Content {
    pub(crate) file: File,
    sums: Mutex<HashMap<u64, u32>>,
}

impl Content {
    pub(crate) fn new() -> io::Result<Self> {
        let file = File::from(rustix::fs::memfd_create("floor", MemfdFlags::CLOEXEC)?);
        file.write_all_at(&pattern(), 0)?;
        Ok(Self { file, sums: Mutex::default() })
    }

    /// Where the pattern's file has the bytes of `offset`, and how many follow there in one piece.
    pub(crate) fn place(offset: u64) -> (u64, u64) {
        let at = offset % PERIOD_BYTES;
        (at, PERIOD_BYTES - at)
    }

    /// CRC32 of an object of `length` bytes.
    pub(crate) fn crc32(&self, length: u64) -> io::Result<u32> {
        if let Some(sum) = self.sums().get(&length) {
            return Ok(*sum);
        }
        let sum = self.computed(length)?;
        self.sums().insert(length, sum);
        Ok(sum)
    }

    fn sums(&self) -> std::sync::MutexGuard<'_, HashMap<u64, u32>> {
        self.sums.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn computed(&self, length: u64) -> io::Result<u32> {
        let mut whole = Hasher::new();
        let mut periods = length / PERIOD_BYTES;
        if periods > 0 {
            // One period, two, four ...
            let mut power = self.start(PERIOD_BYTES)?;
            while periods > 0 {
                if periods & 1 == 1 {
                    whole.combine(&power);
                }
                power.combine(&power.clone());
                periods >>= 1;
            }
        }
        whole.combine(&self.start(length % PERIOD_BYTES)?);
        Ok(whole.finalize())
    }

    /// The sum of the pattern's first `length` bytes.
    fn start(&self, length: u64) -> io::Result<Hasher> {
        let mut hasher = Hasher::new();
        let mut buffer = vec![0; 1 << 20];
        let mut at = 0;
        while at < length {
            let wanted = crate::connection::bounded(length - at, buffer.len());
            let read = self.file.read_at(&mut buffer[..wanted], at)?;
            hasher.update(&buffer[..read]);
            at += read as u64;
        }
        Ok(hasher)
    }
}

fn pattern() -> Vec<u8> {
    // splitmix64, from a fixed seed: the same bytes on every machine.
    let mut state: u64 = 0x6272_6967_6164_6532;
    let length = usize::try_from(PERIOD_BYTES).unwrap_or(usize::MAX);
    let mut pattern = Vec::with_capacity(length + 8);
    while pattern.len() < length {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        pattern.extend_from_slice(&(z ^ (z >> 31)).to_le_bytes());
    }
    pattern.truncate(length);
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_is_that_of_the_repeated_pattern() {
        let content = Content::new().unwrap();
        let period = pattern();
        let length = 2 * PERIOD_BYTES + 12_345;
        let mut hasher = Hasher::new();
        hasher.update(&period);
        hasher.update(&period);
        hasher.update(&period[..12_345]);
        assert_eq!(content.crc32(length).unwrap(), hasher.finalize());
        assert_eq!(content.crc32(0).unwrap(), 0);
        assert_eq!(content.crc32(5).unwrap(), crc32fast::hash(&period[..5]));
    }

    #[test]
    fn places_repeat() {
        assert_eq!(Content::place(0), (0, PERIOD_BYTES));
        assert_eq!(Content::place(3 * PERIOD_BYTES + 7), (7, PERIOD_BYTES - 7));
    }
}
