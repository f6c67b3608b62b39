//! Checksums as S3 writes them: a digest, its type, and for composites the number of parts.
//!
//! S3 marks a composite with `-N`, but not everywhere: `HeadObject` writes `value-N`,
//! `GetObjectAttributes` names the type beside a bare value. Both spellings parse to the same thing
//! here, so that no bare composite is ever taken for the sum of the object.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Algorithm, Digest, combine::composite};

/// What the value of a multipart object's checksum was computed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ChecksumType {
    /// Over the object's bytes.
    FullObject,
    /// Over the digests of its parts.
    Composite,
}

impl ChecksumType {
    /// S3's own name, as in `x-amz-checksum-type`: `FULL_OBJECT` or `COMPOSITE`.
    pub fn name(self) -> &'static str {
        match self {
            Self::FullObject => "FULL_OBJECT",
            Self::Composite => "COMPOSITE",
        }
    }

    /// The type by S3's own name, in any case; `None` for any other.
    pub fn named(name: &str) -> Option<Self> {
        [Self::FullObject, Self::Composite]
            .into_iter()
            .find(|kind| kind.name().eq_ignore_ascii_case(name))
    }
}

impl fmt::Display for ChecksumType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// An object's checksum: what a store says, or what was computed of its bytes.
///
/// Displays as S3 writes it: base64, and `-N` where it is a composite of N parts.
///
/// ```
/// use brigade::integrity::{Algorithm, Checksum, ChecksumType};
///
/// let composite = Checksum::parse(Algorithm::Crc32, "y/Q5Jg==-12", None)?;
/// assert_eq!((composite.kind, composite.parts), (ChecksumType::Composite, Some(12)));
/// assert_eq!(composite.to_string(), "y/Q5Jg==-12");
/// # Ok::<(), brigade::integrity::InvalidChecksum>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Checksum {
    /// The algorithm; the digest's own.
    pub algorithm: Algorithm,
    /// What it was computed over.
    pub kind: ChecksumType,
    /// How many parts a composite has, where it says; always `None` for a full-object checksum.
    pub parts: Option<u32>,
    /// The value.
    pub digest: Digest,
}

impl Checksum {
    /// The checksum of an object's bytes.
    pub fn full_object(digest: Digest) -> Self {
        Self { algorithm: digest.algorithm(), kind: ChecksumType::FullObject, parts: None, digest }
    }

    /// The checksum of an object moved in parts, from the parts' digests in order.
    ///
    /// `None` where [`composite`] is, or for more parts than a `u32` counts.
    pub fn composite(parts: &[Digest]) -> Option<Self> {
        let digest = composite(parts)?;
        Some(Self {
            algorithm: digest.algorithm(),
            kind: ChecksumType::Composite,
            parts: Some(u32::try_from(parts.len()).ok()?),
            digest,
        })
    }

    /// Reads what a store wrote, with the type it `declared` beside it, if any.
    ///
    /// `value-N` is a composite. A bare value is what was declared, and of the whole object where
    /// nothing was. That last reading is right for `HeadObject` and `GetObjectAttributes`; the
    /// checksum headers of a ranged reply can be anything, so take those as a hint at most.
    ///
    /// # Errors
    /// [`InvalidChecksum`] where the value is not base64 of the algorithm's length, the number of
    /// parts is not one, or `-N` contradicts a declared `FULL_OBJECT`.
    pub fn parse(
        algorithm: Algorithm,
        text: &str,
        declared: Option<ChecksumType>,
    ) -> Result<Self, InvalidChecksum> {
        // The standard base64 alphabet has no '-'.
        let Some((value, count)) = text.split_once('-') else {
            let digest = Digest::from_base64(algorithm, text)?;
            let kind = declared.unwrap_or(ChecksumType::FullObject);
            return Ok(Self { algorithm, kind, parts: None, digest });
        };
        let parts = parse_count(count)
            .ok_or_else(|| InvalidChecksum::PartCount { algorithm, text: text.to_owned() })?;
        if declared == Some(ChecksumType::FullObject) {
            return Err(InvalidChecksum::Contradiction { algorithm, text: text.to_owned() });
        }
        let digest = Digest::from_base64(algorithm, value)?;
        Ok(Self { algorithm, kind: ChecksumType::Composite, parts: Some(parts), digest })
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.digest.to_base64())?;
        self.parts.map_or(Ok(()), |parts| write!(f, "-{parts}"))
    }
}

/// An `ETag` that looks like an MD5: of the object, or with `-N` of the MD5s of its N parts.
///
/// Whether it is one only the store knows: encryption and many stores put other 32 hexadecimal digits
/// there. A match is proof, a mismatch is none unless the store's profile vouches for its `ETag`s.
///
/// ```
/// use brigade::integrity::Md5ETag;
///
/// let etag = Md5ETag::parse("\"d41d8cd98f00b204e9800998ecf8427e-3\"").expect("looks like one");
/// assert_eq!(etag.parts, Some(3));
/// assert_eq!(Md5ETag::parse("\"opaque\""), None);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Md5ETag {
    /// The 16 bytes.
    pub digest: Digest,
    /// The N of `-N`; `None` for an object that was put whole.
    pub parts: Option<u32>,
}

impl Md5ETag {
    /// The value with or without quotes (and `W/`); `None` where it cannot be an MD5.
    pub fn parse(etag: &str) -> Option<Self> {
        let etag = etag.trim();
        let etag = etag.strip_prefix("W/").unwrap_or(etag).trim_matches('"');
        let (hex, parts) = match etag.split_once('-') {
            Some((hex, count)) => (hex, Some(parse_count(count)?)),
            None => (etag, None),
        };
        Some(Self { digest: Digest::from_bytes(Algorithm::Md5, &parse_hex(hex)?).ok()?, parts })
    }

    /// The `ETag` of an object put whole, from the MD5 of its bytes; `None` for another algorithm.
    pub fn of_whole(digest: Digest) -> Option<Self> {
        (digest.algorithm() == Algorithm::Md5).then_some(Self { digest, parts: None })
    }

    /// The `ETag` of a multipart object, from the MD5s of its parts in order; `None` for no parts or
    /// another algorithm.
    pub fn of_parts(parts: &[Digest]) -> Option<Self> {
        let Checksum { algorithm, digest, parts, .. } = Checksum::composite(parts)?;
        (algorithm == Algorithm::Md5).then_some(Self { digest, parts })
    }
}

impl From<Md5ETag> for Checksum {
    fn from(etag: Md5ETag) -> Self {
        let kind = match etag.parts {
            Some(_) => ChecksumType::Composite,
            None => ChecksumType::FullObject,
        };
        Self { algorithm: Algorithm::Md5, kind, parts: etag.parts, digest: etag.digest }
    }
}

impl fmt::Display for Md5ETag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.digest.to_hex())?;
        self.parts.map_or(Ok(()), |parts| write!(f, "-{parts}"))
    }
}

/// A checksum that does not read as one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidChecksum {
    /// Not base64.
    #[error("{text:?} is not a {algorithm} checksum: not base64")]
    Encoding {
        /// The algorithm it should be of.
        algorithm: Algorithm,
        /// What was there.
        text: String,
    },
    /// Another length than the algorithm's digests.
    #[error("not a {algorithm} checksum: {found} bytes, {} expected", algorithm.digest_len_bytes())]
    Length {
        /// The algorithm it should be of.
        algorithm: Algorithm,
        /// Bytes found.
        found: usize,
    },
    /// What follows the `-` is not a number of parts.
    #[error("{text:?} is not a {algorithm} checksum: \"-\" is not followed by a number of parts")]
    PartCount {
        /// The algorithm it should be of.
        algorithm: Algorithm,
        /// What was there.
        text: String,
    },
    /// A composite's value, declared to be of the whole object.
    #[error("{text:?} is a composite {algorithm} checksum, but the store calls it FULL_OBJECT")]
    Contradiction {
        /// The algorithm it should be of.
        algorithm: Algorithm,
        /// What was there.
        text: String,
    },
}

/// A number of parts: digits only, at least 1.
fn parse_count(text: &str) -> Option<u32> {
    // `u32::from_str` alone would take "+3".
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|parts| digits && *parts > 0)
}

/// 32 hexadecimal digits in either case.
fn parse_hex(text: &str) -> Option<[u8; 16]> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != 16 || !rest.is_empty() {
        return None;
    }
    let mut bytes = [0; 16];
    for (byte, pair) in bytes.iter_mut().zip(pairs) {
        let [high, low] = pair.map(|digit| char::from(digit).to_digit(16));
        *byte = u8::try_from(high? * 16 + low?).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CRC: &str = "y/Q5Jg==";

    #[test]
    fn a_bare_value_is_what_the_store_declares() {
        let parse = |declared| Checksum::parse(Algorithm::Crc32, CRC, declared).unwrap();
        assert_eq!(parse(None).kind, ChecksumType::FullObject);
        assert_eq!(parse(Some(ChecksumType::FullObject)), parse(None));
        let composite = parse(Some(ChecksumType::Composite));
        assert_eq!((composite.kind, composite.parts), (ChecksumType::Composite, None));
        assert_eq!(composite.to_string(), CRC);
    }

    #[test]
    fn a_value_that_contradicts_itself_is_refused() {
        let parse = |text, declared| Checksum::parse(Algorithm::Crc32, text, declared);
        assert!(matches!(
            parse("y/Q5Jg==-3", Some(ChecksumType::FullObject)),
            Err(InvalidChecksum::Contradiction { .. })
        ));
        for text in
            ["y/Q5Jg==-", "y/Q5Jg==-0", "y/Q5Jg==-+3", "y/Q5Jg==-3-3", "y/Q5Jg==-99999999999"]
        {
            assert!(matches!(parse(text, None), Err(InvalidChecksum::PartCount { .. })), "{text}");
        }
        assert!(matches!(parse("-3", None), Err(InvalidChecksum::Length { found: 0, .. })));
    }

    #[test]
    fn types_go_by_the_names_s3_uses() {
        assert_eq!(ChecksumType::named("FULL_OBJECT"), Some(ChecksumType::FullObject));
        assert_eq!(ChecksumType::named("composite"), Some(ChecksumType::Composite));
        assert_eq!(ChecksumType::named("PARTIAL"), None);
    }

    #[test]
    fn the_layout_of_a_multipart_etag() {
        // Two parts, "a" and "b": md5(md5("a") + md5("b")), and "-2".
        let digests = ["a", "b"].map(|part| {
            let mut hasher = super::super::Hasher::new(Algorithm::Md5);
            hasher.update(part.as_bytes());
            hasher.finish()
        });
        let etag = Md5ETag::of_parts(&digests).unwrap();
        assert_eq!(Md5ETag::parse(&format!("\"{etag}\"")), Some(etag));
        assert_eq!(etag.to_string(), "96e024ba2074fe77e8e965ba43a704be-2");
        assert_eq!(Md5ETag::of_parts(&[]), None);
    }

    #[test]
    fn other_etags_are_not_md5s() {
        let hex = "d41d8cd98f00b204e9800998ecf8427e";
        assert!(Md5ETag::parse(hex).is_some());
        assert!(Md5ETag::parse(&hex.to_uppercase()).is_some());
        assert!(Md5ETag::parse(&format!("W/\"{hex}\"")).is_some());
        for etag in
            ["", "\"\"", &hex[1..], &format!("{hex}0"), &format!("{hex}-"), &format!("{hex}-0")]
        {
            assert_eq!(Md5ETag::parse(etag), None, "{etag:?}");
        }
        assert_eq!(Md5ETag::parse(&hex.replace('d', "g")), None);
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(bytes: [u8; 32], parts in prop::option::of(1u32..)) {
            for algorithm in Algorithm::ALL {
                let digest =
                    Digest::from_bytes(algorithm, &bytes[..algorithm.digest_len_bytes()]).unwrap();
                let kind = parts.map_or(ChecksumType::FullObject, |_| ChecksumType::Composite);
                let checksum = Checksum { algorithm, kind, parts, digest };
                prop_assert_eq!(Checksum::parse(algorithm, &checksum.to_string(), None), Ok(checksum));
                prop_assert_eq!(
                    Checksum::parse(algorithm, &checksum.to_string(), Some(kind)), Ok(checksum)
                );
                if algorithm == Algorithm::Md5 {
                    let etag = Md5ETag { digest, parts };
                    prop_assert_eq!(Md5ETag::parse(&etag.to_string()), Some(etag));
                }
            }
        }

        #[test]
        fn no_text_makes_parsing_panic(text: String) {
            for algorithm in Algorithm::ALL {
                let _ = Checksum::parse(algorithm, &text, None);
            }
            let _ = Md5ETag::parse(&text);
        }
    }
}
