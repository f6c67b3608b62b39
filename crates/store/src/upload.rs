//! An unfinished multipart upload, and what completing it takes.
//!
//! Parts arrive in any order and may be replaced until the upload is closed by completion or abort. A part
//! that comes in after that is refused, so nothing is left behind by a late one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use s3s::dto::CompletedPart;
use s3s::{S3Error, S3ErrorCode, S3Result};

use crate::checksum::{self, Algorithm, Kind, Sum};
use crate::locks::lock;
use crate::record::{PartRecord, UploadRecord};
use crate::storage::Content;

/// The largest number a part may have.
pub(crate) const MAX_PARTS: u32 = 10_000;

/// An unfinished upload.
pub(crate) struct Upload {
    pub(crate) record: UploadRecord,
    parts: Mutex<Parts>,
    /// Completions take turns: the second one finds the object made by the first.
    pub(crate) completing: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Parts {
    by_number: BTreeMap<u32, Arc<Part>>,
    closed: bool,
}

/// A part that was received whole and checked.
pub(crate) struct Part {
    pub(crate) record: PartRecord,
    pub(crate) content: Content,
}

impl Upload {
    pub(crate) fn new(record: UploadRecord, parts: impl IntoIterator<Item = Part>) -> Self {
        let by_number =
            parts.into_iter().map(|part| (part.record.number, Arc::new(part))).collect();
        Self {
            record,
            parts: Mutex::new(Parts { by_number, closed: false }),
            completing: tokio::sync::Mutex::new(()),
        }
    }

    /// Adds a part once `keep` has made it durable; returns the part it replaces.
    pub(crate) fn add(
        &self,
        part: Part,
        keep: impl FnOnce(&Part) -> std::io::Result<()>,
    ) -> S3Result<Option<Arc<Part>>> {
        let mut parts = lock(&self.parts);
        if parts.closed {
            return Err(no_such_upload());
        }
        keep(&part).map_err(S3Error::internal_error)?;
        Ok(parts.by_number.insert(part.record.number, Arc::new(part)))
    }

    /// Lets no more parts in.
    pub(crate) fn close(&self) {
        lock(&self.parts).closed = true;
    }

    /// All parts, in order.
    pub(crate) fn parts(&self) -> Vec<Arc<Part>> {
        lock(&self.parts).by_number.values().cloned().collect()
    }

    /// The algorithms a part must be summed with, besides those its own request names.
    pub(crate) fn algorithms(&self, sent: &[Algorithm]) -> Vec<Algorithm> {
        match self.record.algorithm {
            Some(algorithm) => vec![algorithm],
            // Whoever names none gets what AWS makes by default, and whoever names one with the parts only
            // gets that one: a second sum over everything would be for nobody.
            None if sent.is_empty() => vec![Algorithm::Crc64Nvme],
            None => Vec::new(),
        }
    }

    /// Checks a completion's list against the parts that are here; returns those, in order.
    pub(crate) fn select(
        &self,
        listed: &[CompletedPart],
        min_part_bytes: u64,
    ) -> S3Result<Vec<Arc<Part>>> {
        if listed.is_empty() {
            return Err(S3Error::with_message(
                S3ErrorCode::MalformedXML,
                "The XML you provided was not well-formed or did not validate against our published schema",
            ));
        }
        let numbers: Vec<i32> = listed.iter().map(|part| part.part_number.unwrap_or(0)).collect();
        if !numbers.is_sorted_by(|a, b| a < b) {
            return Err(S3Error::with_message(
                S3ErrorCode::InvalidPartOrder,
                "The list of parts was not in ascending order. Parts must be ordered by part number.",
            ));
        }
        let parts = lock(&self.parts);
        let mut selected = Vec::with_capacity(listed.len());
        for (claim, number) in listed.iter().zip(numbers) {
            let part = u32::try_from(number)
                .ok()
                .and_then(|number| parts.by_number.get(&number))
                .filter(|part| {
                    claim.e_tag.as_ref().is_some_and(|etag| etag.value() == part.record.etag)
                })
                .ok_or_else(invalid_part)?;
            self.check_claimed_sums(claim, &part.record)?;
            selected.push(Arc::clone(part));
        }
        let all_but_last = &selected[..selected.len() - 1];
        if all_but_last.iter().any(|part| part.record.size_bytes < min_part_bytes) {
            return Err(S3Error::with_message(
                S3ErrorCode::EntityTooSmall,
                "Your proposed upload is smaller than the minimum allowed size",
            ));
        }
        if self.wants_part_sums()
            && !selected.iter().map(|part| part.record.number).eq(1..=count(&selected))
        {
            // AWS's documented answer to gaps where parts carry checksums.
            return Err(S3Error::with_message(
                S3ErrorCode::InternalError,
                "Part numbers of an upload with part checksums must be consecutive and begin with 1",
            ));
        }
        Ok(selected)
    }

    /// The whole object's checksum from those of its parts; `None` where the parts have none in common.
    pub(crate) fn whole_sum(&self, parts: &[Arc<Part>]) -> Option<(Sum, Kind)> {
        let (algorithm, kind) = match self.record.algorithm {
            Some(algorithm) => (algorithm, self.record.checksum_kind),
            None => common_algorithm(parts)?,
        };
        let sums = parts
            .iter()
            .map(|part| part.record.sum(algorithm).map(|sum| (sum, part.record.size_bytes)))
            .collect::<Option<Vec<_>>>()?;
        let sum = match kind {
            Kind::FullObject => checksum::full_object(algorithm, sums),
            Kind::Composite => checksum::composite(algorithm, sums.into_iter().map(|(sum, _)| sum)),
        };
        Some((sum, kind))
    }

    /// Whether the completion must list the parts' checksums.
    fn wants_part_sums(&self) -> bool {
        self.record.algorithm.is_some() && self.record.checksum_kind == Kind::Composite
    }

    fn check_claimed_sums(&self, claim: &CompletedPart, part: &PartRecord) -> S3Result<()> {
        let claimed = [
            (Algorithm::Crc32, &claim.checksum_crc32),
            (Algorithm::Crc32c, &claim.checksum_crc32c),
            (Algorithm::Crc64Nvme, &claim.checksum_crc64nvme),
            (Algorithm::Sha1, &claim.checksum_sha1),
            (Algorithm::Sha256, &claim.checksum_sha256),
        ];
        for (algorithm, value) in claimed {
            match (value, part.sum(algorithm)) {
                (Some(value), Some(sum)) if *value != sum.base64() => return Err(invalid_part()),
                (None, _) if self.wants_part_sums() && self.record.algorithm == Some(algorithm) => {
                    return Err(S3Error::with_message(
                        S3ErrorCode::InvalidRequest,
                        format!(
                            "The upload was created using a {} checksum. The complete request must include \
                             the checksum for each part. It was missing for part {} in the request.",
                            algorithm.name().to_ascii_lowercase(),
                            part.number
                        ),
                    ));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

pub(crate) fn no_such_upload() -> S3Error {
    S3Error::with_message(
        S3ErrorCode::NoSuchUpload,
        "The specified upload does not exist. The upload ID may be invalid, or the upload may have been \
         aborted or completed.",
    )
}

fn invalid_part() -> S3Error {
    S3Error::with_message(
        S3ErrorCode::InvalidPart,
        "One or more of the specified parts could not be found. The part may not have been uploaded, or the \
         specified entity tag may not match the part's entity tag.",
    )
}

/// Where the create named no algorithm: one that all parts were summed with, the default first.
fn common_algorithm(parts: &[Arc<Part>]) -> Option<(Algorithm, Kind)> {
    let common =
        |algorithm: &Algorithm| parts.iter().all(|part| part.record.sum(*algorithm).is_some());
    let algorithm = [Algorithm::Crc64Nvme].into_iter().chain(Algorithm::ALL).find(common)?;
    let kind = if algorithm.combines() { Kind::FullObject } else { Kind::Composite };
    Some((algorithm, kind))
}

fn count(parts: &[Arc<Part>]) -> u32 {
    u32::try_from(parts.len()).unwrap_or(u32::MAX)
}
