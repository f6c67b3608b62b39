//! `ETag`s: the MD5 of the content where that is affordable, else a token made from the checksum.
//!
//! A token never looks like an MD5, so no client mistakes it for one. Multipart `ETag`s of either sort end in
//! `-N`, which clients rely on.

use s3s::dto::ETag;

use crate::checksum::{self, Sum};
use crate::record::PartRecord;

/// The `ETag` of content whose MD5 is known.
pub(crate) fn md5(digest: &[u8; 16]) -> String {
    checksum::hex(digest)
}

/// An `ETag` from a checksum and a size in bytes.
pub(crate) fn opaque(sum: &Sum, size_bytes: u64) -> String {
    let digest = sum.bytes();
    format!("sum{}x{size_bytes:x}", checksum::hex(&digest[..digest.len().min(16)]))
}

/// The `ETag` of an object made of parts: from their MD5s where all have one, else from their `ETag`s.
pub(crate) fn multipart<'a>(parts: impl Iterator<Item = &'a PartRecord> + Clone) -> String {
    let count = parts.clone().count();
    let md5s: Option<Vec<u8>> = parts.clone().try_fold(Vec::new(), |mut all, part| {
        let digest = checksum::unhex(&part.etag).filter(|digest| digest.len() == 16)?;
        all.extend(digest);
        Some(all)
    });
    if let Some(md5s) = md5s {
        return format!("{}-{count}", md5(&checksum::md5_of(&md5s)));
    }
    let etags: Vec<u8> = parts.flat_map(|part| part.etag.bytes()).collect();
    format!("sum{}-{count}", checksum::hex(&checksum::md5_of(&etags)))
}

/// As a header or XML value.
pub(crate) fn to_dto(etag: &str) -> ETag {
    ETag::Strong(etag.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum::Algorithm;
    use crate::record::Moment;

    fn part(etag: &str) -> PartRecord {
        PartRecord {
            number: 1,
            size_bytes: 0,
            etag: etag.to_owned(),
            modified: Moment::now(),
            checksums: Vec::new(),
        }
    }

    #[test]
    fn multipart_is_the_md5_of_md5s() {
        let parts = [part(&md5(&checksum::md5_of(b"a"))), part(&md5(&checksum::md5_of(b"b")))];
        let both = [checksum::md5_of(b"a"), checksum::md5_of(b"b")].concat();
        assert_eq!(multipart(parts.iter()), format!("{}-2", md5(&checksum::md5_of(&both))));
    }

    #[test]
    fn a_token_is_no_md5() {
        let sum = checksum::sum_of(Algorithm::Sha256, b"x");
        assert_ne!(opaque(&sum, 1).len(), 32);
        assert!(multipart([part(&opaque(&sum, 1))].iter()).starts_with("sum"));
    }
}
