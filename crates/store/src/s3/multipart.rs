//! Multipart uploads: create, parts, complete, abort, and listing them.

use std::sync::Arc;

use s3s::dto::{
    AbortMultipartUploadInput, AbortMultipartUploadOutput, ChecksumAlgorithm, ChecksumType,
    CompleteMultipartUploadInput, CompleteMultipartUploadOutput, CreateMultipartUploadInput,
    CreateMultipartUploadOutput, ListPartsInput, ListPartsOutput, Part as PartEntry, StorageClass,
    UploadPartInput, UploadPartOutput,
};
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result};

use super::attributes::{OWN_KEY, attributes_of, check_customer_key, set_encryption};
use super::receive::{Announced, Received};
use super::{Api, set_checksums, signed, signed_count};
use crate::checksum::{Algorithm, Kind, Sum};
use crate::etag;
use crate::index::{Bucket, WriteCondition};
use crate::record::{FORMAT, Moment, ObjectRecord, PartOfObject, PartRecord, UploadRecord};
use crate::storage::{Content, Target};
use crate::upload::{MAX_PARTS, Part, Upload, no_such_upload};

/// Entries of one page of parts.
const PAGE: usize = 1000;

impl Api {
    pub(super) async fn create_multipart_upload(
        &self,
        mut request: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let bucket = self.index.bucket(&request.input.bucket)?;
        let algorithm = request.input.checksum_algorithm.as_ref().map(ChecksumAlgorithm::as_str);
        let (algorithm, checksum_kind) =
            checksum_choice(algorithm, request.input.checksum_type.as_ref())?;
        let attributes = attributes_of!(request.input, &request.headers);
        let record = UploadRecord {
            format: FORMAT,
            bucket: request.input.bucket,
            key: request.input.key,
            id: new_upload_id(),
            initiated: Moment::now(),
            algorithm,
            checksum_kind,
            attributes,
        };
        let upload = Arc::new(Upload::new(record, []));
        let added = Arc::clone(&upload);
        self.commit(move |index| {
            index.storage.keep_upload(&added.record).map_err(S3Error::internal_error)?;
            bucket.add_upload(added)
        })
        .await?;

        let record = &upload.record;
        let mut output = CreateMultipartUploadOutput {
            bucket: Some(record.bucket.clone()),
            key: Some(record.key.clone()),
            upload_id: Some(record.id.clone()),
            checksum_algorithm: algorithm.map(|algorithm| algorithm.name().to_owned().into()),
            checksum_type: algorithm.map(|_| checksum_kind.name().to_owned().into()),
            ..Default::default()
        };
        set_encryption!(output, &record.attributes);
        Ok(S3Response::new(output))
    }

    pub(super) async fn upload_part(
        &self,
        request: S3Request<UploadPartInput>,
    ) -> S3Result<S3Response<UploadPartOutput>> {
        let announced = Announced::new(&request, request.input.content_length)?;
        let input = request.input;
        let number = part_number(input.part_number)?;
        let bucket = self.index.bucket(&input.bucket)?;
        let upload = bucket.upload(&input.key, &input.upload_id).ok_or_else(no_such_upload)?;
        let attributes = &upload.record.attributes;
        check_customer_key(attributes.customer_key_md5.as_deref(), &request.headers, OWN_KEY)?;

        let algorithms = upload.algorithms(&announced.algorithms());
        let target = Target::Part { upload_id: &upload.record.id, number };
        let sink =
            self.index.storage.sink(target, announced.length).map_err(S3Error::internal_error)?;
        let received = self.receive(announced, input.body, sink, algorithms).await?;
        let record = self.add_part(&upload, number, received).await?;

        let mut output =
            UploadPartOutput { e_tag: Some(etag::to_dto(&record.etag)), ..Default::default() };
        set_checksums!(output, &record.checksums, Sum::base64);
        set_encryption!(output, &upload.record.attributes);
        Ok(S3Response::new(output))
    }

    /// Makes a received part one of the upload's, in the place of an earlier one of that number.
    pub(super) async fn add_part(
        &self,
        upload: &Arc<Upload>,
        number: u32,
        received: Received,
    ) -> S3Result<PartRecord> {
        let record = PartRecord {
            number,
            size_bytes: received.size_bytes,
            etag: received.etag,
            modified: Moment::now(),
            checksums: received.sums,
        };
        let part = Part { record: record.clone(), content: received.content };
        let upload = Arc::clone(upload);
        self.commit(move |index| {
            let storage = &index.storage;
            let replaced = upload.add(part, |part| {
                storage.keep_part(&upload.record.id, &part.record, &part.content)
            })?;
            replaced
                .map_or(Ok(()), |old| storage.retire_part(&old.content))
                .map_err(S3Error::internal_error)
        })
        .await?;
        Ok(record)
    }

    pub(super) async fn complete_multipart_upload(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let input = request.input;
        let bucket = self.index.bucket(&input.bucket)?;
        let Some(upload) = bucket.upload(&input.key, &input.upload_id) else {
            return repeated(&bucket, &input);
        };
        let _turn = upload.completing.lock().await;
        if bucket.upload(&input.key, &input.upload_id).is_none() {
            return repeated(&bucket, &input);
        }
        let listed = input.multipart_upload.as_ref().and_then(|list| list.parts.as_deref());
        let parts = upload.select(listed.unwrap_or_default(), self.min_part_bytes)?;
        let size_bytes: u64 = parts.iter().map(|part| part.record.size_bytes).sum();
        if input.mpu_object_size.is_some_and(|expected| expected != signed(size_bytes)) {
            return Err(S3Error::with_message(
                S3ErrorCode::InvalidRequest,
                "The provided 'x-amz-mp-object-size' header value does not match what was computed.",
            ));
        }
        let whole = upload.whole_sum(&parts);
        check_claims(&input, whole.as_ref())?;
        let condition =
            WriteCondition { if_match: input.if_match, if_none_match: input.if_none_match };
        condition.check(bucket.existing(&input.key).as_deref().map(|object| &object.record))?;

        let record = completed_record(&upload, &parts, size_bytes, whole);
        let (taken_bucket, taken_upload) = (Arc::clone(&bucket), Arc::clone(&upload));
        let object = self
            .commit(move |index| {
                let contents: Vec<(Content, u64)> = parts
                    .iter()
                    .map(|part| (part.content.clone(), part.record.size_bytes))
                    .collect();
                let content = index.storage.assemble(&contents).map_err(S3Error::internal_error)?;
                let object = index.put(&taken_bucket, record, content, &condition)?;
                taken_upload.close();
                taken_bucket.remove_upload(&taken_upload.record.key, &taken_upload.record.id);
                let id = &taken_upload.record.id;
                index.storage.drop_upload(id).map_err(S3Error::internal_error)?;
                Ok(object)
            })
            .await?;
        Ok(S3Response::new(completed(&bucket.name, &object.record)))
    }

    pub(super) async fn abort_multipart_upload(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        let input = request.input;
        let bucket = self.index.bucket(&input.bucket)?;
        let upload = bucket.upload(&input.key, &input.upload_id).ok_or_else(no_such_upload)?;
        let _turn = upload.completing.lock().await;
        let upload =
            bucket.remove_upload(&input.key, &input.upload_id).ok_or_else(no_such_upload)?;
        self.commit(move |index| {
            upload.close();
            index.storage.drop_upload(&upload.record.id).map_err(S3Error::internal_error)
        })
        .await?;
        Ok(S3Response::new(AbortMultipartUploadOutput::default()))
    }

    pub(super) fn list_parts(
        &self,
        request: S3Request<ListPartsInput>,
    ) -> S3Result<S3Response<ListPartsOutput>> {
        let input = request.input;
        let bucket = self.index.bucket(&input.bucket)?;
        let upload = bucket.upload(&input.key, &input.upload_id).ok_or_else(no_such_upload)?;
        let marker = input.part_number_marker.unwrap_or(0);
        let after = u32::try_from(marker).unwrap_or(0);
        let limit = usize::try_from(input.max_parts.unwrap_or(1000)).unwrap_or(0).min(PAGE);

        let parts = upload.parts();
        let rest = &parts[parts.partition_point(|part| part.record.number <= after)..];
        let page = &rest[..rest.len().min(limit)];
        let last = page.last().map_or(after, |part| part.record.number);
        let record = &upload.record;
        let class = record.attributes.storage_class.clone();
        Ok(S3Response::new(ListPartsOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(input.upload_id),
            checksum_algorithm: record
                .algorithm
                .map(|algorithm| algorithm.name().to_owned().into()),
            checksum_type: record.algorithm.map(|_| record.checksum_kind.name().to_owned().into()),
            is_truncated: Some(rest.len() > page.len()),
            max_parts: Some(signed_count(limit)),
            part_number_marker: Some(marker),
            next_part_number_marker: i32::try_from(last).ok(),
            parts: Some(page.iter().map(|part| part_entry(&part.record)).collect()),
            storage_class: Some(class.unwrap_or_else(|| StorageClass::STANDARD.to_owned()).into()),
            initiator: Some(super::buckets::initiator()),
            owner: Some(super::buckets::owner()),
            ..Default::default()
        }))
    }
}

/// A part number within what S3 allows.
pub(super) fn part_number(number: i32) -> S3Result<u32> {
    u32::try_from(number).ok().filter(|number| (1..=MAX_PARTS).contains(number)).ok_or_else(|| {
        S3Error::with_message(
            S3ErrorCode::InvalidArgument,
            "Part number must be an integer between 1 and 10000, inclusive",
        )
    })
}

/// Begins with the time, so that the uploads of a key list in the order in which they were begun.
fn new_upload_id() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    format!("{:014x}{:032x}", since.unwrap_or_default().as_micros(), fastrand::u128(..))
}

fn checksum_choice(
    algorithm: Option<&str>,
    kind: Option<&ChecksumType>,
) -> S3Result<(Option<Algorithm>, Kind)> {
    let invalid = |message: String| S3Error::with_message(S3ErrorCode::InvalidRequest, message);
    let Some(name) = algorithm else {
        return match kind {
            Some(_) => Err(invalid(
                "The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm \
                 header."
                    .to_owned(),
            )),
            None => Ok((None, Kind::FullObject)),
        };
    };
    let algorithm = Algorithm::parse(name).ok_or_else(|| {
        invalid(
            "Checksum algorithm provided is unsupported. Please try again with any of the valid \
                 types: [CRC32, CRC32C, CRC64NVME, SHA1, SHA256]"
                .to_owned(),
        )
    })?;
    let kind = match kind.map(ChecksumType::as_str) {
        None if algorithm == Algorithm::Crc64Nvme => Kind::FullObject,
        None | Some(ChecksumType::COMPOSITE) => Kind::Composite,
        Some(ChecksumType::FULL_OBJECT) => Kind::FullObject,
        Some(other) => {
            return Err(invalid(format!(
                "Value for x-amz-checksum-type header is invalid: {other}"
            )));
        }
    };
    let possible = match kind {
        Kind::FullObject => algorithm.combines(),
        Kind::Composite => algorithm != Algorithm::Crc64Nvme,
    };
    if !possible {
        return Err(invalid(format!(
            "The {} checksum type cannot be used with the {} checksum algorithm.",
            kind.name(),
            algorithm.name().to_ascii_lowercase()
        )));
    }
    Ok((Some(algorithm), kind))
}

/// Holds the whole object's checksum that the client sent, if any, against the computed one.
fn check_claims(input: &CompleteMultipartUploadInput, whole: Option<&(Sum, Kind)>) -> S3Result<()> {
    let bad_digest = |algorithm: Algorithm| {
        S3Error::with_message(
            S3ErrorCode::BadDigest,
            format!(
                "The {} you specified did not match the calculated checksum.",
                algorithm.name()
            ),
        )
    };
    let claims = [
        (Algorithm::Crc32, &input.checksum_crc32),
        (Algorithm::Crc32c, &input.checksum_crc32c),
        (Algorithm::Crc64Nvme, &input.checksum_crc64nvme),
        (Algorithm::Sha1, &input.checksum_sha1),
        (Algorithm::Sha256, &input.checksum_sha256),
    ];
    for (algorithm, claim) in claims {
        let Some(claim) = claim else { continue };
        let claim = claim.split('-').next().unwrap_or_default();
        match whole {
            Some((sum, _)) if sum.algorithm == algorithm && sum.base64() == claim => {}
            _ => return Err(bad_digest(algorithm)),
        }
    }
    if let (Some(claimed), Some((sum, kind))) = (&input.checksum_type, whole)
        && claimed.as_str() != kind.name()
    {
        return Err(bad_digest(sum.algorithm));
    }
    Ok(())
}

fn completed_record(
    upload: &Upload,
    parts: &[Arc<Part>],
    size_bytes: u64,
    whole: Option<(Sum, Kind)>,
) -> ObjectRecord {
    let checksum_kind = whole.as_ref().map_or(Kind::FullObject, |(_, kind)| *kind);
    ObjectRecord {
        format: FORMAT,
        key: upload.record.key.clone(),
        size_bytes,
        etag: etag::multipart(parts.iter().map(|part| &part.record)),
        modified: Moment::now(),
        parts: parts
            .iter()
            .map(|part| PartOfObject {
                number: part.record.number,
                size_bytes: part.record.size_bytes,
                checksums: match (&whole, checksum_kind) {
                    (Some((sum, _)), Kind::Composite) => {
                        part.record.sum(sum.algorithm).cloned().into_iter().collect()
                    }
                    _ => Vec::new(),
                },
            })
            .collect(),
        checksums: whole.into_iter().map(|(sum, _)| sum).collect(),
        checksum_kind,
        upload_id: Some(upload.record.id.clone()),
        attributes: upload.record.attributes.clone(),
    }
}

/// Answers a completion whose upload is gone: with success where the object is the one it made, as S3 does.
fn repeated(
    bucket: &Bucket,
    input: &CompleteMultipartUploadInput,
) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
    bucket
        .existing(&input.key)
        .filter(|object| object.record.upload_id.as_ref() == Some(&input.upload_id))
        .map(|object| S3Response::new(completed(&bucket.name, &object.record)))
        .ok_or_else(no_such_upload)
}

fn completed(bucket: &str, record: &ObjectRecord) -> CompleteMultipartUploadOutput {
    let mut output = CompleteMultipartUploadOutput {
        bucket: Some(bucket.to_owned()),
        key: Some(record.key.clone()),
        location: Some(format!("/{bucket}/{}", super::listing::percent_encode(&record.key))),
        e_tag: Some(etag::to_dto(&record.etag)),
        server_side_encryption: record.attributes.encryption.clone().map(Into::into),
        ssekms_key_id: record.attributes.kms_key_id.clone(),
        ..Default::default()
    };
    if !record.checksums.is_empty() {
        output.checksum_type = Some(record.checksum_kind.name().to_owned().into());
    }
    let suffix = match record.checksum_kind {
        Kind::FullObject => String::new(),
        Kind::Composite => format!("-{}", record.parts.len()),
    };
    set_checksums!(output, &record.checksums, |sum: &Sum| format!("{}{suffix}", sum.base64()));
    output
}

fn part_entry(record: &PartRecord) -> PartEntry {
    let mut entry = PartEntry {
        e_tag: Some(etag::to_dto(&record.etag)),
        last_modified: Some(record.modified.into()),
        part_number: i32::try_from(record.number).ok(),
        size: Some(signed(record.size_bytes)),
        ..Default::default()
    };
    set_checksums!(entry, &record.checksums, Sum::base64);
    entry
}
