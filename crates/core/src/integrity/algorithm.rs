//! The algorithms S3 speaks, as data: their names, lengths and what a multipart upload may do with them.
//!
//! S3 also knows SHA-512 and the `XXHash` family. They are left out until a store needs them, and a name
//! that is not listed here is an error everywhere: no algorithm is ever taken for a similar one.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A checksum algorithm.
///
/// ```
/// use brigade::integrity::Algorithm;
///
/// let algorithm: Algorithm = "CRC64NVME".parse()?; // S3 writes upper case, people lower
/// assert_eq!(algorithm.to_string(), "crc64nvme");
/// assert!(algorithm.is_combinable() && !algorithm.supports_composite());
/// assert!("xxhash64".parse::<Algorithm>().is_err());
/// # Ok::<(), brigade::integrity::UnknownAlgorithm>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Algorithm {
    /// CRC-32 as in ISO-HDLC, zlib and PNG.
    Crc32,
    /// CRC-32C (Castagnoli), as in iSCSI.
    Crc32c,
    /// CRC-64/NVME: what AWS computes when nothing else was asked for.
    #[serde(rename = "crc64nvme")]
    Crc64Nvme,
    /// SHA-1.
    Sha1,
    /// SHA-256.
    Sha256,
    /// MD5: never sent as a checksum, but many `ETag`s are one.
    Md5,
}

impl Algorithm {
    /// Every algorithm, the cheapest first.
    pub const ALL: [Self; 6] =
        [Self::Crc32, Self::Crc32c, Self::Crc64Nvme, Self::Sha1, Self::Sha256, Self::Md5];

    /// The name in options, manifests and messages. S3's own is the same in upper case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Crc32 => "crc32",
            Self::Crc32c => "crc32c",
            Self::Crc64Nvme => "crc64nvme",
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
            Self::Md5 => "md5",
        }
    }

    /// Bytes in a digest: 4 to 32.
    pub fn digest_len_bytes(self) -> usize {
        match self {
            Self::Crc32 | Self::Crc32c => 4,
            Self::Crc64Nvme => 8,
            Self::Md5 => 16,
            Self::Sha1 => 20,
            Self::Sha256 => 32,
        }
    }

    /// Whether the sums of neighbouring ranges give the sum of both, see [`combine`](super::combine).
    pub fn is_combinable(self) -> bool {
        matches!(self, Self::Crc32 | Self::Crc32c | Self::Crc64Nvme)
    }

    /// Whether S3 takes this as the `COMPOSITE` checksum of a multipart upload.
    pub fn supports_composite(self) -> bool {
        matches!(self, Self::Crc32 | Self::Crc32c | Self::Sha1 | Self::Sha256)
    }

    /// Whether S3 takes this as the `FULL_OBJECT` checksum of a multipart upload: the combinable
    /// ones, as the store has to join the parts' sums too.
    pub fn supports_full_object(self) -> bool {
        self.is_combinable()
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Algorithm {
    type Err = UnknownAlgorithm;

    fn from_str(text: &str) -> Result<Self, UnknownAlgorithm> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.name().eq_ignore_ascii_case(text))
            .ok_or_else(|| UnknownAlgorithm(text.to_owned()))
    }
}

/// A name that is none of [`Algorithm::ALL`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a checksum algorithm known here; the known ones are crc32, crc32c, crc64nvme, sha1, \
     sha256 and md5"
)]
pub struct UnknownAlgorithm(pub String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_in_every_spelling() {
        for algorithm in Algorithm::ALL {
            let name = algorithm.name();
            assert_eq!(name.parse(), Ok(algorithm));
            assert_eq!(name.to_uppercase().parse(), Ok(algorithm));
            // The spelling in files is the spelling in options.
            let table: toml::Table = toml::from_str(&format!("a = {name:?}")).unwrap();
            assert_eq!(table["a"].clone().try_into::<Algorithm>().unwrap(), algorithm);
            assert_eq!(toml::Value::try_from(algorithm).unwrap().as_str(), Some(name));
        }
    }

    #[test]
    fn similar_names_are_not_taken_for_a_known_one() {
        for name in ["", "crc", "crc-32", "crc64", "sha", "sha512", "xxhash3", "md5 "] {
            assert_eq!(name.parse::<Algorithm>(), Err(UnknownAlgorithm(name.to_owned())));
        }
        let message = UnknownAlgorithm("sha512".into()).to_string();
        for algorithm in Algorithm::ALL {
            assert!(message.contains(algorithm.name()), "{message}");
        }
    }
}
