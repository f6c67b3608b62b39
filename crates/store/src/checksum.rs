//! The checksums S3 knows, as data: naming, computing and combining them.
//!
//! Bodies are summed chunk by chunk as they arrive, by exactly the algorithms a request needs. The whole
//! object's checksum of a multipart upload is never a second pass over the data: the CRCs combine from the
//! parts' CRCs and lengths (`FULL_OBJECT`), and every algorithm can be applied to the parts' digests
//! (`COMPOSITE`).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use crc_fast::CrcAlgorithm;
use md5::Md5;
use serde::{Deserialize, Serialize};
use sha1::Sha1;
use sha2::{Digest, Sha256};

/// A checksum algorithm a client may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Algorithm {
    Crc32,
    Crc32c,
    Crc64Nvme,
    Sha1,
    Sha256,
}

impl Algorithm {
    /// All of them, in the order in which headers are looked at.
    pub(crate) const ALL: [Self; 5] =
        [Self::Crc32, Self::Crc32c, Self::Crc64Nvme, Self::Sha1, Self::Sha256];

    /// The name as in `x-amz-checksum-algorithm`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Crc32 => "CRC32",
            Self::Crc32c => "CRC32C",
            Self::Crc64Nvme => "CRC64NVME",
            Self::Sha1 => "SHA1",
            Self::Sha256 => "SHA256",
        }
    }

    /// The header (or trailer) that carries a value of this algorithm.
    pub(crate) fn header(self) -> &'static str {
        match self {
            Self::Crc32 => "x-amz-checksum-crc32",
            Self::Crc32c => "x-amz-checksum-crc32c",
            Self::Crc64Nvme => "x-amz-checksum-crc64nvme",
            Self::Sha1 => "x-amz-checksum-sha1",
            Self::Sha256 => "x-amz-checksum-sha256",
        }
    }

    /// The algorithm of that name, in any case; `None` for an unknown one.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|a| a.name().eq_ignore_ascii_case(name))
    }

    /// Whether the sum of a whole follows from the sums of its parts and their lengths.
    pub(crate) fn combines(self) -> bool {
        matches!(self, Self::Crc32 | Self::Crc32c | Self::Crc64Nvme)
    }

    fn width_bytes(self) -> usize {
        match self {
            Self::Crc32 | Self::Crc32c => 4,
            Self::Crc64Nvme => 8,
            Self::Sha1 => 20,
            Self::Sha256 => 32,
        }
    }
}

/// Whether a multipart object's checksum covers its bytes or its parts' digests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum Kind {
    FullObject,
    Composite,
}

impl Kind {
    /// The name as in `x-amz-checksum-type`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::FullObject => "FULL_OBJECT",
            Self::Composite => "COMPOSITE",
        }
    }
}

/// One computed checksum.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "StoredSum", into = "StoredSum")]
pub(crate) struct Sum {
    pub(crate) algorithm: Algorithm,
    bytes: Vec<u8>,
}

impl Sum {
    /// A CRC's value, as the big-endian bytes S3 encodes; the upper half of a 32-bit CRC's `value` is dropped.
    pub(crate) fn from_crc(algorithm: Algorithm, value: u64) -> Self {
        let all = value.to_be_bytes();
        Self { algorithm, bytes: all[8 - algorithm.width_bytes()..].to_vec() }
    }

    /// Parses a base64 value as clients send it; `None` where it cannot be a value of this algorithm.
    pub(crate) fn parse(algorithm: Algorithm, text: &str) -> Option<Self> {
        let bytes = STANDARD.decode(text.trim()).ok()?;
        (bytes.len() == algorithm.width_bytes()).then_some(Self { algorithm, bytes })
    }

    /// The raw digest.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The value as S3 writes it.
    pub(crate) fn base64(&self) -> String {
        STANDARD.encode(&self.bytes)
    }

    fn crc(&self) -> u64 {
        self.bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
    }
}

/// How a [`Sum`] is written in the metadata records.
#[derive(Serialize, Deserialize)]
struct StoredSum {
    algorithm: Algorithm,
    base64: String,
}

impl From<Sum> for StoredSum {
    fn from(sum: Sum) -> Self {
        Self { algorithm: sum.algorithm, base64: sum.base64() }
    }
}

impl TryFrom<StoredSum> for Sum {
    type Error = &'static str;

    fn try_from(stored: StoredSum) -> Result<Self, Self::Error> {
        Self::parse(stored.algorithm, &stored.base64).ok_or("not a checksum of that algorithm")
    }
}

/// Sums one body by several algorithms at once.
pub(crate) struct Hashers {
    running: Vec<(Algorithm, Hasher)>,
    md5: Option<Md5>,
    length_bytes: u64,
}

/// What came out of [`Hashers`].
pub(crate) struct Sums {
    pub(crate) checksums: Vec<Sum>,
    pub(crate) md5: Option<[u8; 16]>,
    /// Bytes summed.
    pub(crate) length_bytes: u64,
}

enum Hasher {
    Crc32(crc32fast::Hasher),
    Crc(crc_fast::Digest),
    Sha1(Sha1),
    Sha256(Sha256),
}

impl Hashers {
    pub(crate) fn new(algorithms: impl IntoIterator<Item = Algorithm>, md5: bool) -> Self {
        let mut wanted: Vec<Algorithm> = algorithms.into_iter().collect();
        wanted.sort_unstable();
        wanted.dedup();
        let running =
            wanted.into_iter().map(|algorithm| (algorithm, Hasher::new(algorithm))).collect();
        Self { running, md5: md5.then(Md5::new), length_bytes: 0 }
    }

    pub(crate) fn update(&mut self, chunk: &[u8]) {
        for (_, hasher) in &mut self.running {
            hasher.update(chunk);
        }
        if let Some(md5) = &mut self.md5 {
            md5.update(chunk);
        }
        self.length_bytes += chunk.len() as u64;
    }

    pub(crate) fn finish(self) -> Sums {
        let checksums = self
            .running
            .into_iter()
            .map(|(algorithm, hasher)| match hasher {
                Hasher::Crc32(crc) => Sum::from_crc(algorithm, u64::from(crc.finalize())),
                Hasher::Crc(crc) => Sum::from_crc(algorithm, crc.finalize()),
                Hasher::Sha1(sha) => Sum { algorithm, bytes: sha.finalize().to_vec() },
                Hasher::Sha256(sha) => Sum { algorithm, bytes: sha.finalize().to_vec() },
            })
            .collect();
        Sums {
            checksums,
            md5: self.md5.map(|md5| md5.finalize().into()),
            length_bytes: self.length_bytes,
        }
    }
}

impl Hasher {
    fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Crc32 => Self::Crc32(crc32fast::Hasher::new()),
            Algorithm::Crc32c => Self::Crc(crc_fast::Digest::new(CrcAlgorithm::Crc32Iscsi)),
            Algorithm::Crc64Nvme => Self::Crc(crc_fast::Digest::new(CrcAlgorithm::Crc64Nvme)),
            Algorithm::Sha1 => Self::Sha1(Sha1::new()),
            Algorithm::Sha256 => Self::Sha256(Sha256::new()),
        }
    }

    fn update(&mut self, chunk: &[u8]) {
        match self {
            Self::Crc32(crc) => crc.update(chunk),
            Self::Crc(crc) => crc.update(chunk),
            Self::Sha1(sha) => sha.update(chunk),
            Self::Sha256(sha) => sha.update(chunk),
        }
    }
}

/// The sum of `data`.
pub(crate) fn sum_of(algorithm: Algorithm, data: &[u8]) -> Sum {
    let mut hashers = Hashers::new([algorithm], false);
    hashers.update(data);
    hashers.finish().checksums.remove(0)
}

/// The sum of two neighbours, where the second is `second_length` bytes long.
///
/// Both must be of the same algorithm, and of one that [combines](Algorithm::combines).
pub(crate) fn join(first: &Sum, second: &Sum, second_length: u64) -> Sum {
    debug_assert!(first.algorithm == second.algorithm && first.algorithm.combines());
    let crc = match first.algorithm {
        Algorithm::Crc32c => CrcAlgorithm::Crc32Iscsi,
        Algorithm::Crc64Nvme => CrcAlgorithm::Crc64Nvme,
        _ => CrcAlgorithm::Crc32IsoHdlc,
    };
    let value = crc_fast::checksum_combine(crc, first.crc(), second.crc(), second_length);
    Sum::from_crc(first.algorithm, value)
}

/// The `FULL_OBJECT` sum of consecutive parts, each given with its length in bytes.
pub(crate) fn full_object<'a>(
    algorithm: Algorithm,
    parts: impl IntoIterator<Item = (&'a Sum, u64)>,
) -> Sum {
    parts
        .into_iter()
        .fold(sum_of(algorithm, &[]), |whole, (part, length)| join(&whole, part, length))
}

/// The `COMPOSITE` sum: the algorithm applied to the parts' raw digests, one after the other.
pub(crate) fn composite<'a>(algorithm: Algorithm, parts: impl IntoIterator<Item = &'a Sum>) -> Sum {
    let mut hashers = Hashers::new([algorithm], false);
    for part in parts {
        hashers.update(part.bytes());
    }
    hashers.finish().checksums.remove(0)
}

/// MD5 of `data`, for `ETag`s.
pub(crate) fn md5_of(data: &[u8]) -> [u8; 16] {
    Md5::digest(data).into()
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Bytes from hexadecimal; `None` where it isn't.
pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The check value every CRC catalogue lists is the sum of these nine digits.
    const CHECK: &[u8] = b"123456789";

    #[test]
    fn known_values() {
        assert_eq!(sum_of(Algorithm::Crc32, CHECK).crc(), 0xcbf4_3926);
        assert_eq!(sum_of(Algorithm::Crc32c, CHECK).crc(), 0xe306_9283);
        assert_eq!(sum_of(Algorithm::Crc64Nvme, CHECK).crc(), 0xae8b_1486_0a79_9888);
        assert_eq!(
            hex(sum_of(Algorithm::Sha1, b"").bytes()),
            "da39a3ee5e6b4b0d3255bfef95601890afd80709"
        );
        assert_eq!(sum_of(Algorithm::Crc32, b"").base64(), "AAAAAA==");
        assert_eq!(hex(&md5_of(b"")), "d41d8cd98f00b204e9800998ecf8427e");
    }

    #[test]
    fn values_of_the_wrong_width_are_refused() {
        assert_eq!(Sum::parse(Algorithm::Crc64Nvme, "AAAAAA=="), None);
        assert_eq!(Sum::parse(Algorithm::Crc32, "not base64"), None);
    }

    #[test]
    fn composite_hashes_the_digests() {
        let parts = [sum_of(Algorithm::Sha256, b"one"), sum_of(Algorithm::Sha256, b"two")];
        let joined: Vec<u8> = parts.iter().flat_map(|p| p.bytes().to_vec()).collect();
        assert_eq!(composite(Algorithm::Sha256, &parts), sum_of(Algorithm::Sha256, &joined));
    }

    #[test]
    fn records_round_trip() {
        for algorithm in Algorithm::ALL {
            let sum = sum_of(algorithm, CHECK);
            let text = serde_json::to_string(&sum).unwrap();
            assert!(text.contains(algorithm.name()), "{text}");
            assert_eq!(serde_json::from_str::<Sum>(&text).unwrap(), sum);
        }
    }

    proptest! {
        #[test]
        fn parts_combine_to_the_whole(parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..6)) {
            let whole: Vec<u8> = parts.concat();
            for algorithm in Algorithm::ALL.into_iter().filter(|a| a.combines()) {
                let sums: Vec<_> = parts.iter().map(|p| (sum_of(algorithm, p), p.len() as u64)).collect();
                let combined = full_object(algorithm, sums.iter().map(|(s, n)| (s, *n)));
                prop_assert_eq!(combined, sum_of(algorithm, &whole));
            }
        }

        #[test]
        fn hexadecimal_round_trips(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(unhex(&hex(&bytes)), Some(bytes));
        }
    }
}
