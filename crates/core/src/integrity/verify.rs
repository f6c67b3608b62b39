//! Holding a computed checksum against the store's: the only way to a proof tier.
//!
//! Three outcomes, kept apart: they agree (a tier), they disagree (a [`Mismatch`]), or they don't say
//! the same kind of thing ([`Verified::Unverified`]). Only the second is an alarm.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Algorithm, Checksum, ChecksumType, Md5ETag};
use crate::{Error, ErrorKind};

/// How far a transfer was proven: what was compared and agreed.
///
/// The tiers above [`Unverified`](Self::Unverified) come out of [`compare`] and [`compare_md5`];
/// code that writes one down by hand claims what it did not check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verified {
    /// The sum of all bytes agreed with the store's.
    FullObject,
    /// The hash of the parts' sums agreed with the store's.
    Composite,
    /// The MD5, or the MD5 of the parts' MD5s, agreed with the store's `ETag`.
    Md5,
    /// Nothing was there to compare. Not a failure: nothing disagreed either.
    Unverified,
}

impl Verified {
    /// The name in reports and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::FullObject => "full-object",
            Self::Composite => "composite",
            Self::Md5 => "md5",
            Self::Unverified => "unverified",
        }
    }

    /// Whether anything was proven.
    pub fn is_proof(self) -> bool {
        self != Self::Unverified
    }
}

impl fmt::Display for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Holds a computed checksum against the `expected` one.
///
/// Checksums of different algorithms or types, or composites of different numbers of parts, say
/// nothing about each other: those are [`Verified::Unverified`]. A composite must have been computed
/// over the object's own parts, from part sizes the store stated; over guessed ones a disagreement
/// would only mean a wrong guess.
///
/// # Errors
/// [`Mismatch`] where both say the same kind of thing and disagree.
///
/// ```
/// use brigade::integrity::{Algorithm, Checksum, Verified, compare};
///
/// let parse = |text| Checksum::parse(Algorithm::Crc32, text, None);
/// let (expected, other) = (parse("y/Q5Jg==")?, parse("AAAAAA==")?);
/// assert_eq!(compare(&expected, &expected), Ok(Verified::FullObject));
/// assert_eq!(compare(&expected, &parse("y/Q5Jg==-2")?), Ok(Verified::Unverified));
/// let mismatch = compare(&expected, &other).unwrap_err();
/// assert_eq!(mismatch.to_string(), "crc32 checksum is AAAAAA==, but y/Q5Jg== was expected");
/// # Ok::<(), brigade::integrity::InvalidChecksum>(())
/// ```
pub fn compare(expected: &Checksum, computed: &Checksum) -> Result<Verified, Mismatch> {
    let parts_differ = matches!((expected.parts, computed.parts), (Some(a), Some(b)) if a != b);
    let algorithms_differ = expected.digest.algorithm() != computed.digest.algorithm();
    if algorithms_differ || expected.kind != computed.kind || parts_differ {
        return Ok(Verified::Unverified);
    }
    if expected.digest != computed.digest {
        return Err(Mismatch { expected: *expected, computed: *computed });
    }
    Ok(match (expected.digest.algorithm(), expected.kind) {
        (Algorithm::Md5, _) => Verified::Md5,
        (_, ChecksumType::FullObject) => Verified::FullObject,
        (_, ChecksumType::Composite) => Verified::Composite,
    })
}

/// Holds a computed MD5 against an `ETag` that looks like one.
///
/// `etag_is_md5` is the store's profile vouching that such `ETag`s always are MD5s. Without it a
/// disagreement proves nothing and is [`Verified::Unverified`]. Pass `false` too where the part size
/// behind a multipart `ETag` was guessed.
///
/// # Errors
/// [`Mismatch`] where the profile vouches and the two disagree.
pub fn compare_md5(
    expected: &Md5ETag,
    computed: &Md5ETag,
    etag_is_md5: bool,
) -> Result<Verified, Mismatch> {
    match compare(&(*expected).into(), &(*computed).into()) {
        Err(_) if !etag_is_md5 => Ok(Verified::Unverified),
        outcome => outcome,
    }
}

/// Two checksums that should agree and don't: the bytes are not the bytes that were sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mismatch {
    /// What the other side says.
    pub expected: Checksum,
    /// What the bytes at hand give.
    pub computed: Checksum,
}

impl Mismatch {
    /// The same as an [`Error`] of kind [`ErrorKind::Integrity`].
    pub fn into_error(self, operation: &'static str, target: impl Into<String>) -> Error {
        Error::new(ErrorKind::Integrity, operation, target, self.to_string()).caused_by(self)
    }
}

impl std::error::Error for Mismatch {}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (algorithm, computed, expected) =
            (self.expected.algorithm, written(&self.computed), written(&self.expected));
        write!(f, "{algorithm} checksum is {computed}, but {expected} was expected")
    }
}

/// As the store shows it: an MD5 as an `ETag`, everything else in base64.
fn written(checksum: &Checksum) -> String {
    match checksum.algorithm {
        Algorithm::Md5 => Md5ETag { digest: checksum.digest, parts: checksum.parts }.to_string(),
        _ => checksum.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::integrity::{Digest, Hasher};

    fn sum(algorithm: Algorithm, bytes: &[u8]) -> Digest {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(bytes);
        hasher.finish()
    }

    #[test]
    fn agreement_gives_the_tier_of_what_was_compared() {
        for algorithm in Algorithm::ALL {
            let full = Checksum::full_object(sum(algorithm, b"a"));
            let composite =
                Checksum::composite(&[sum(algorithm, b"a"), sum(algorithm, b"b")]).unwrap();
            let tiers = match algorithm {
                Algorithm::Md5 => (Verified::Md5, Verified::Md5),
                _ => (Verified::FullObject, Verified::Composite),
            };
            assert_eq!(compare(&full, &full), Ok(tiers.0));
            assert_eq!(compare(&composite, &composite), Ok(tiers.1));
            let bare = Checksum { parts: None, ..composite };
            assert_eq!(compare(&bare, &composite), Ok(tiers.1), "the store left -N off");
        }
    }

    #[test]
    fn what_cannot_be_compared_is_neither_proof_nor_alarm() {
        let crc32 = Checksum::full_object(sum(Algorithm::Crc32, b"a"));
        let crc32c = Checksum::full_object(sum(Algorithm::Crc32c, b"a"));
        let composite = Checksum::composite(&[crc32.digest]).unwrap();
        let other_parts = Checksum { parts: Some(7), ..composite };
        for (expected, computed) in [(crc32, crc32c), (crc32, composite), (composite, other_parts)]
        {
            assert_eq!(compare(&expected, &computed), Ok(Verified::Unverified));
        }
    }

    #[test]
    fn a_disagreement_is_an_integrity_error_in_one_line() {
        let expected = Checksum::full_object(sum(Algorithm::Crc32, b"a"));
        let computed = Checksum::full_object(sum(Algorithm::Crc32, b"b"));
        let error = compare(&expected, &computed).unwrap_err().into_error("download", "s3://b/k");
        assert_eq!(error.kind(), ErrorKind::Integrity);
        assert_eq!(
            error.to_string(),
            "download s3://b/k: crc32 checksum is cb7v+Q==, but 6Le+Qw== was expected"
        );
    }

    #[test]
    fn an_md5_that_differs_is_an_alarm_only_where_the_profile_vouches() {
        let etag = |bytes| Md5ETag::of_whole(sum(Algorithm::Md5, bytes)).unwrap();
        assert_eq!(compare_md5(&etag(b"a"), &etag(b"a"), false), Ok(Verified::Md5));
        assert_eq!(compare_md5(&etag(b"a"), &etag(b"b"), false), Ok(Verified::Unverified));
        let mismatch = compare_md5(&etag(b"a"), &etag(b"b"), true).unwrap_err();
        assert!(
            mismatch.to_string().ends_with("but 0cc175b9c0f1b6a831c399e269772661 was expected")
        );
    }

    #[test]
    fn tiers_are_written_with_their_names() {
        for tier in [Verified::FullObject, Verified::Composite, Verified::Md5, Verified::Unverified]
        {
            assert_eq!(toml::Value::try_from(tier).unwrap().as_str(), Some(tier.name()));
            assert_eq!(tier.to_string(), tier.name());
        }
    }
}
