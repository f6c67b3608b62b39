//! The content of synthetic objects: an endless deterministic pattern.
//!
//! The pattern is [`PERIOD`] pseudo-random bytes, repeated. The period is a prime, so no part size is a
//! multiple of it and a part written at a wrong offset shows. One period and a bit more are kept in memory:
//! a slice of any offset is handed out without a copy, and the CRC of any range, however long, follows from
//! the CRC of one period by combination in logarithmic time.
//!
//! ```
//! use brigade_store::synthetic;
//!
//! let mut part = vec![0; 1000];
//! synthetic::fill(5 << 40, &mut part);
//! assert_eq!(synthetic::bytes(5 << 40, 1000), part);
//! // Five tebibytes are summed at once.
//! let _crc = synthetic::crc32(0, 5 << 40);
//! ```

use std::ops::Range;
use std::sync::LazyLock;

use bytes::Bytes;
use futures::Stream;

use crate::checksum::{self, Algorithm, Sum};

/// Length of the pattern in bytes: the largest prime below 2^20.
pub const PERIOD: usize = 1_048_573;

/// Largest slice [`bytes()`] hands out, in bytes (1 MiB).
pub const MAX_SLICE: usize = 1 << 20;

/// Largest object a virtual key may name: 10,000 parts of 5 GiB.
pub(crate) const MAX_OBJECT_BYTES: u64 = 10_000 * (5 << 30);

/// Slices of a generated download. Large enough that a frame's overhead vanishes, small enough that a
/// connection's backlog stays in the processor's cache.
const SLICE_BYTES: u64 = 256 << 10;

/// One period and a longest slice more, so that every slice lies in one piece.
static PATTERN: LazyLock<Bytes> = LazyLock::new(|| {
    // splitmix64, from a fixed seed: the same bytes on every machine.
    let mut state: u64 = 0x6272_6967_6164_6531;
    let mut period = Vec::with_capacity(PERIOD + 8);
    while period.len() < PERIOD {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        period.extend_from_slice(&(z ^ (z >> 31)).to_le_bytes());
    }
    period.truncate(PERIOD);
    let mut pattern = Vec::with_capacity(PERIOD + MAX_SLICE);
    pattern.extend_from_slice(&period);
    while pattern.len() < PERIOD + MAX_SLICE {
        let more = (PERIOD + MAX_SLICE - pattern.len()).min(PERIOD);
        pattern.extend_from_slice(&period[..more]);
    }
    Bytes::from(pattern)
});

/// Fills `buffer` with the pattern's bytes from `offset` on.
pub fn fill(offset: u64, buffer: &mut [u8]) {
    let mut at = phase(offset);
    for chunk in buffer.chunks_mut(MAX_SLICE) {
        chunk.copy_from_slice(&PATTERN[at..at + chunk.len()]);
        at = (at + chunk.len()) % PERIOD;
    }
}

/// The pattern's bytes at `offset`, without a copy.
///
/// # Panics
///
/// Where `length` is above [`MAX_SLICE`].
pub fn bytes(offset: u64, length: usize) -> Bytes {
    assert!(length <= MAX_SLICE, "a slice of {length} bytes is longer than {MAX_SLICE}");
    let at = phase(offset);
    PATTERN.slice(at..at + length)
}

/// CRC32 of `length` bytes from `offset` on.
pub fn crc32(offset: u64, length: u64) -> u32 {
    // A CRC32 has four bytes, so this never loses anything.
    u32::try_from(value(&sum(Algorithm::Crc32, offset, length))).unwrap_or_default()
}

/// CRC32C of `length` bytes from `offset` on.
pub fn crc32c(offset: u64, length: u64) -> u32 {
    u32::try_from(value(&sum(Algorithm::Crc32c, offset, length))).unwrap_or_default()
}

/// CRC64NVME of `length` bytes from `offset` on.
pub fn crc64nvme(offset: u64, length: u64) -> u64 {
    value(&sum(Algorithm::Crc64Nvme, offset, length))
}

/// The size in bytes that a key ends in: digits, optionally with `B`, `KiB`, `MiB`, `GiB` or `TiB`, being
/// the whole key or following a `/` or `-`. `None` for other keys and for sizes S3 does not allow.
pub fn size_in_key(key: &str) -> Option<u64> {
    let last = key.rsplit(['/', '-']).next()?;
    let digits = last.find(|c: char| !c.is_ascii_digit()).unwrap_or(last.len());
    let number: u64 = last[..digits].parse().ok()?;
    let unit = match &last[digits..] {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    number.checked_mul(unit).filter(|size| *size <= MAX_OBJECT_BYTES)
}

/// The sum of a range of the pattern, for an algorithm that combines.
pub(crate) fn sum(algorithm: Algorithm, offset: u64, length: u64) -> Sum {
    let direct = |range: Range<usize>| checksum::sum_of(algorithm, &PATTERN[range]);
    let start = phase(offset);
    // Up to the end of the first, perhaps broken, period ...
    let head = length.min((PERIOD - start) as u64);
    let mut whole = direct(start..start + to_usize(head));
    // ... then whole periods, doubling ...
    let mut periods = (length - head) / PERIOD as u64;
    let (mut power, mut power_length) = (direct(0..PERIOD), PERIOD as u64);
    while periods > 0 {
        if periods & 1 == 1 {
            whole = checksum::join(&whole, &power, power_length);
        }
        power = checksum::join(&power, &power, power_length);
        power_length *= 2;
        periods >>= 1;
    }
    // ... and what is left.
    let tail = (length - head) % PERIOD as u64;
    checksum::join(&whole, &direct(0..to_usize(tail)), tail)
}

/// A stream over a range of the pattern, in slices that share its memory.
pub(crate) fn stream(range: Range<u64>) -> impl Stream<Item = Bytes> + Send + Sync + 'static {
    let mut at = range.start;
    futures::stream::iter(std::iter::from_fn(move || {
        let length = SLICE_BYTES.min(range.end - at);
        let slice = bytes(at, to_usize(length));
        at += length;
        (length > 0).then_some(slice)
    }))
}

fn phase(offset: u64) -> usize {
    to_usize(offset % PERIOD as u64)
}

/// For lengths bounded by the pattern's, which fit any platform's `usize`.
fn to_usize(length: u64) -> usize {
    usize::try_from(length).unwrap_or(usize::MAX)
}

fn value(sum: &Sum) -> u64 {
    sum.bytes().iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_are_read_from_keys() {
        for (key, size) in [
            ("1GiB", Some(1 << 30)),
            ("a/512MiB", Some(512 << 20)),
            ("bench-5TiB", Some(5 << 40)),
            ("x/123", Some(123)),
            ("0", Some(0)),
            ("7B", Some(7)),
            ("file123", None),
            ("1GB", None),
            ("1GiB/", None),
            ("", None),
            ("49TiB", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(size_in_key(key), size, "{key}");
        }
    }

    #[test]
    fn a_slice_may_cross_the_period() {
        let mut filled = vec![0; MAX_SLICE];
        fill(PERIOD as u64 - 10, &mut filled);
        assert_eq!(bytes(PERIOD as u64 - 10, MAX_SLICE), filled);
        assert_eq!(bytes(PERIOD as u64, 100), bytes(0, 100));
        assert_ne!(bytes(1, 100), bytes(0, 100));
    }

    #[test]
    fn streams_cover_their_range() {
        let range = 1_000_000..3_000_001;
        let collected: Vec<Bytes> =
            futures::executor::block_on_stream(stream(range.clone())).collect();
        let mut filled = vec![0; 2_000_001];
        fill(range.start, &mut filled);
        assert!(collected.concat() == filled);
        assert_eq!(futures::executor::block_on_stream(stream(5..5)).count(), 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn sums_equal_those_of_the_bytes(offset in 0_u64..1 << 45, length in 0_usize..5 << 20) {
            let mut filled = vec![0; length];
            fill(offset, &mut filled);
            for algorithm in Algorithm::ALL.into_iter().filter(|a| a.combines()) {
                prop_assert_eq!(sum(algorithm, offset, length as u64), checksum::sum_of(algorithm, &filled));
            }
        }

        #[test]
        fn huge_ranges_join(start in 0_u64..1 << 44, first in 0_u64..1 << 45, second in 0_u64..1 << 45) {
            let joined = checksum::join(
                &sum(Algorithm::Crc64Nvme, start, first),
                &sum(Algorithm::Crc64Nvme, start + first, second),
                second,
            );
            prop_assert_eq!(joined, sum(Algorithm::Crc64Nvme, start, first + second));
        }
    }
}
