//! Joining the sums of parts: into the sum of the whole (CRCs), or into S3's composite.
//!
//! A CRC is a remainder, so the CRC of `a` followed by `b` is that of `a` moved along by `b`'s length,
//! plus that of `b`. Moving along is one multiplication per set bit of the length: about 0.1 µs for
//! the round lengths parts have. (`crc-fast` does it too, in 76 µs for 32 bits and 358 for 64, measured
//! on the same machine: seconds for an object of 10,000 parts.)
//!
//! A composite only hashes the parts' digests once more; it changes with the places where the parts
//! were cut.

use super::{Algorithm, Digest, Hasher, digest::crc_digest};

/// The sum of two neighbouring ranges from the sum of each; `second_len_bytes` is the length of the
/// second range.
///
/// `None` where the algorithms differ or cannot be combined ([`Algorithm::is_combinable`]).
///
/// ```
/// use brigade::integrity::{Algorithm, Hasher, combine};
///
/// let mut whole = Hasher::new(Algorithm::Crc64Nvme);
/// let (mut first, mut second) = (whole.clone(), whole.clone());
/// whole.update(b"hand to hand");
/// first.update(b"hand ");
/// second.update(b"to hand");
/// assert_eq!(combine(first.finish(), second.finish(), 7), Some(whole.finish()));
/// ```
pub fn combine(first: Digest, second: Digest, second_len_bytes: u64) -> Option<Digest> {
    let algorithm = first.algorithm();
    if second.algorithm() != algorithm {
        return None;
    }
    let field = match algorithm {
        Algorithm::Crc32 => &CRC32,
        Algorithm::Crc32c => &CRC32C,
        Algorithm::Crc64Nvme => &CRC64NVME,
        Algorithm::Sha1 | Algorithm::Sha256 | Algorithm::Md5 => return None,
    };
    let moved = field.moved_along(first.as_crc(), second_len_bytes);
    Some(crc_digest(algorithm, moved ^ second.as_crc()))
}

/// The sum of the whole from each part's sum and length in bytes, in the order of the bytes.
///
/// `None` where there are no parts, where algorithms differ, or where two or more parts cannot be
/// combined. One part alone is the whole, whatever its algorithm.
pub fn combine_all(parts: impl IntoIterator<Item = (Digest, u64)>) -> Option<Digest> {
    let mut parts = parts.into_iter();
    let (first, _) = parts.next()?;
    parts.try_fold(first, |whole, (digest, len_bytes)| combine(whole, digest, len_bytes))
}

/// S3's composite: the digest of the parts' digests, concatenated as raw bytes in the order of the
/// parts. For MD5 this is what a multipart `ETag` holds before its `-N`.
///
/// `None` where there are no parts or where algorithms differ. Computed for every algorithm, though S3
/// does not take each as a composite ([`Algorithm::supports_composite`]).
pub fn composite(parts: &[Digest]) -> Option<Digest> {
    let algorithm = parts.first()?.algorithm();
    let mut hasher = Hasher::new(algorithm);
    for part in parts {
        if part.algorithm() != algorithm {
            return None;
        }
        hasher.update(part.as_bytes());
    }
    Some(hasher.finish())
}

/// The polynomials modulo a CRC's generator, bit-reflected as these CRCs are: the highest bit stands
/// for x^0.
struct Field {
    width: u32,
    generator: u64,
    /// x^(8 · 2^k): what moves a remainder along by 2^k bytes.
    powers: [u64; 64],
}

static CRC32: Field = Field::new(32, 0xedb8_8320);
static CRC32C: Field = Field::new(32, 0x82f6_3b78);
static CRC64NVME: Field = Field::new(64, 0x9a6c_9329_ac4b_c9b5);

impl Field {
    const fn new(width: u32, generator: u64) -> Self {
        let mut field = Self { width, generator, powers: [0; 64] };
        let mut power = 1 << (width - 1 - 8); // x^8
        let mut k = 0;
        while k < 64 {
            field.powers[k] = power;
            power = field.product(power, power);
            k += 1;
        }
        field
    }

    /// The remainder of what `crc` is the remainder of, followed by that many zero bytes.
    fn moved_along(&self, crc: u64, mut len_bytes: u64) -> u64 {
        let mut moved = crc;
        while len_bytes != 0 {
            moved = self.product(self.powers[len_bytes.trailing_zeros() as usize], moved);
            len_bytes &= len_bytes - 1;
        }
        moved
    }

    const fn product(&self, a: u64, mut b: u64) -> u64 {
        let mut product = 0;
        let mut bit = self.width;
        while bit > 0 {
            bit -= 1;
            // All ones or all zeros instead of branches, which would be a coin toss each.
            product ^= b & ((a >> bit) & 1).wrapping_neg();
            b = (b >> 1) ^ (self.generator & (b & 1).wrapping_neg());
        }
        product
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sum(algorithm: Algorithm, bytes: &[u8]) -> Digest {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(bytes);
        hasher.finish()
    }

    #[test]
    fn joining_agrees_with_other_implementations() {
        use crc_fast::{CrcAlgorithm, checksum_combine};
        for (algorithm, kind) in [
            (Algorithm::Crc32, CrcAlgorithm::Crc32IsoHdlc),
            (Algorithm::Crc32c, CrcAlgorithm::Crc32Iscsi),
            (Algorithm::Crc64Nvme, CrcAlgorithm::Crc64Nvme),
        ] {
            let (a, b) = (sum(algorithm, b"a"), sum(algorithm, b"b"));
            for len_bytes in [0, 1, 3, 8 << 20, (5 << 40) - 1] {
                let theirs = checksum_combine(kind, a.as_crc(), b.as_crc(), len_bytes);
                assert_eq!(combine(a, b, len_bytes).map(|joined| joined.as_crc()), Some(theirs));
            }
        }
    }

    fn crcs() -> impl Iterator<Item = Algorithm> {
        Algorithm::ALL.into_iter().filter(|algorithm| algorithm.is_combinable())
    }

    proptest! {
        #[test]
        fn two_halves_combine_to_the_whole(bytes: Vec<u8>, at: prop::sample::Index) {
            let (first, second) = bytes.split_at(at.index(bytes.len() + 1));
            for algorithm in crcs() {
                let joined =
                    combine(sum(algorithm, first), sum(algorithm, second), second.len() as u64);
                prop_assert_eq!(joined, Some(sum(algorithm, &bytes)));
            }
        }

        #[test]
        fn any_cut_combines_to_the_whole(parts: Vec<Vec<u8>>) {
            let whole = parts.concat();
            for algorithm in crcs() {
                let sums = parts.iter().map(|part| (sum(algorithm, part), part.len() as u64));
                let expected = (!parts.is_empty()).then(|| sum(algorithm, &whole));
                prop_assert_eq!(combine_all(sums), expected);
            }
        }

        #[test]
        fn a_composite_is_the_hash_of_the_hashes(parts in prop::collection::vec(any::<Vec<u8>>(), 1..8)) {
            for algorithm in Algorithm::ALL {
                let digests: Vec<_> = parts.iter().map(|part| sum(algorithm, part)).collect();
                let mut joined = Vec::new();
                for digest in &digests {
                    joined.extend_from_slice(digest.as_bytes());
                }
                prop_assert_eq!(composite(&digests), Some(sum(algorithm, &joined)));
            }
        }
    }

    #[test]
    fn what_cannot_be_joined_is_none() {
        let (crc32, crc32c) = (sum(Algorithm::Crc32, b"a"), sum(Algorithm::Crc32c, b"a"));
        assert_eq!(combine(crc32, crc32c, 1), None);
        assert_eq!(composite(&[crc32, crc32c]), None);
        assert_eq!(composite(&[]), None);
        assert_eq!(combine_all([]), None);
        for algorithm in [Algorithm::Sha1, Algorithm::Sha256, Algorithm::Md5] {
            let digest = sum(algorithm, b"a");
            assert_eq!(combine(digest, digest, 1), None);
            assert_eq!(combine_all([(digest, 1)]), Some(digest), "one part is the whole");
        }
    }
}
