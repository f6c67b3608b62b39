//! Holds what a store recorded of a copy that it made against what it recorded of the source.
//!
//! No byte was seen here. A checksum of all bytes can be compared whatever the parts; one over parts, and
//! a multipart MD5, only where source and copy were cut alike.

use crate::error::{Error, ErrorKind, Result};
use crate::integrity::{Checksum, ChecksumType, Mismatch, Verified, compare, compare_md5};
use crate::transport::ObjectInfo;

/// What was compared, or why nothing could be.
pub(super) type Compared = std::result::Result<(Verified, Checksum), String>;

/// `cut_alike`: the copy certainly has parts of the source's sizes. `etag_is_md5` is the profile's.
pub(super) fn records(
    source: &ObjectInfo,
    copy: &ObjectInfo,
    cut_alike: bool,
    etag_is_md5: bool,
) -> Result<Compared, Mismatch> {
    for theirs in &source.checksums {
        let same = |ours: &&Checksum| ours.algorithm == theirs.algorithm;
        let Some(ours) = copy.checksums.iter().find(same) else { continue };
        let over_parts = [theirs, ours].iter().any(|sum| sum.kind == ChecksumType::Composite);
        match compare(theirs, ours) {
            Ok(verified) if verified.is_proof() => return Ok(Ok((verified, *ours))),
            Ok(_) => {}
            // Over other parts, or over who knows what, the same bytes have another sum.
            Err(_) if over_parts && !cut_alike => {}
            Err(_) if !(is_told(source) && is_told(copy)) => {}
            Err(mismatch) => return Err(mismatch),
        }
    }
    if let (Some(theirs), Some(ours)) = (source.md5_etag(), copy.md5_etag())
        && source.etag_may_be_md5()
        && copy.etag_may_be_md5()
        && theirs.parts == ours.parts
    {
        let vouched = etag_is_md5 && (theirs.parts.is_none() || cut_alike);
        let verified = compare_md5(&theirs, &ours, vouched)?;
        if verified.is_proof() {
            return Ok(Ok((verified, ours.into())));
        }
    }
    Ok(Err(why(source, copy)))
}

/// Whether it is certain what its checksums are over: the store says so, or it has no parts.
fn is_told(info: &ObjectInfo) -> bool {
    info.checksum_type.is_some() || info.parts().is_none()
}

fn why(source: &ObjectInfo, copy: &ObjectInfo) -> String {
    let what = match (source.checksums.is_empty(), copy.checksums.is_empty()) {
        (true, _) => "the store has no checksum of the source",
        (_, true) => "the store has no checksum of the copy",
        _ => "the store's checksums of source and copy are of different kinds",
    };
    format!("{what}; their sizes agree")
}

/// An error unless both are of one size.
pub(super) fn sizes(
    source: &ObjectInfo,
    copy: &ObjectInfo,
    operation: &'static str,
    target: String,
) -> Result<()> {
    if source.size_bytes == copy.size_bytes {
        return Ok(());
    }
    let detail =
        format!("the copy has {} bytes, and the source {}", copy.size_bytes, source.size_bytes);
    Err(Error::new(ErrorKind::Integrity, operation, target, detail).advise("copy it again"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::integrity::Algorithm;

    fn object(checksum: Option<(&str, ChecksumType)>, etag: &str) -> ObjectInfo {
        let parse =
            |(text, kind)| Checksum::parse(Algorithm::Crc32, text, Some(kind)).expect("a checksum");
        ObjectInfo {
            etag: Some(format!("\"{etag}\"")),
            checksum_type: checksum.map(|(_, kind)| kind),
            checksums: checksum.map(parse).into_iter().collect(),
            ..ObjectInfo::default()
        }
    }

    const FULL: ChecksumType = ChecksumType::FullObject;
    const PARTS: ChecksumType = ChecksumType::Composite;
    const MD5: &str = "0123456789abcdef0123456789abcdef";
    const OTHER: &str = "00000000000000000000000000000000";

    fn tier(source: &ObjectInfo, copy: &ObjectInfo, alike: bool, md5: bool) -> Option<Verified> {
        let compared = records(source, copy, alike, md5).ok()?;
        Some(compared.map_or(Verified::Unverified, |(verified, _)| verified))
    }

    #[test]
    fn sums_of_all_bytes_are_proof_either_way() {
        let (one, other) = (object(Some(("y/Q5Jg==", FULL)), "a"), object(None, "a"));
        assert_eq!(tier(&one, &one, false, false), Some(Verified::FullObject));
        assert_eq!(tier(&one, &other, true, true), Some(Verified::Unverified));
        let damaged = object(Some(("AAAAAA==", FULL)), "a");
        assert_eq!(tier(&one, &damaged, false, false), None);
    }

    #[test]
    fn sums_over_parts_differ_only_over_the_same_parts() {
        let one = object(Some(("y/Q5Jg==-2", PARTS)), "a-2");
        let other = object(Some(("AAAAAA==-2", PARTS)), "a-2");
        assert_eq!(tier(&one, &one, false, false), Some(Verified::Composite));
        assert_eq!(tier(&one, &other, false, false), Some(Verified::Unverified));
        assert_eq!(tier(&one, &other, true, false), None);
        let whole = object(Some(("AAAAAA==", FULL)), "b");
        assert_eq!(tier(&one, &whole, false, false), Some(Verified::Unverified));
    }

    #[test]
    fn etags_prove_where_they_are_md5s() {
        let (one, other) = (object(None, MD5), object(None, OTHER));
        assert_eq!(tier(&one, &one, false, false), Some(Verified::Md5));
        assert_eq!(tier(&one, &other, false, false), Some(Verified::Unverified));
        assert_eq!(tier(&one, &other, false, true), None);
        let in_parts = object(None, &format!("{MD5}-3"));
        assert_eq!(tier(&one, &in_parts, true, true), Some(Verified::Unverified));
        assert_eq!(tier(&in_parts, &in_parts, false, false), Some(Verified::Md5));
        let kms = ObjectInfo { encryption: Some("aws:kms".into()), ..one.clone() };
        assert_eq!(tier(&one, &kms, false, true), Some(Verified::Unverified));
    }
}
