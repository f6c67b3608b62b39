//! Copies on the store: `CopyObject` and `UploadPartCopy`.
//!
//! A copy is an upload whose body comes from another object: read, summed and stored by the same code. The
//! synthetic backend, whose content is known, skips the reading.

use std::ops::Range;
use std::sync::Arc;

use s3s::dto::{
    ChecksumAlgorithm, CopyObjectInput, CopyObjectOutput, CopyObjectResult, CopyPartResult,
    CopySource, ETagCondition, MetadataDirective, TaggingDirective, UploadPartCopyInput,
    UploadPartCopyOutput,
};
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result};

use super::attributes::{OWN_KEY, SOURCE_KEY, attributes_of, check_customer_key, set_encryption};
use super::multipart::part_number;
use super::object::ReadCondition;
use super::receive::{Announced, MAX_BODY_BYTES, Received};
use super::{Api, set_checksums};
use crate::checksum::{Algorithm, Kind, Sum};
use crate::etag;
use crate::index::{Object, WriteCondition};
use crate::range::select_copy;
use crate::record::{FORMAT, Moment, ObjectRecord};
use crate::storage::{Source, Target};
use crate::upload::no_such_upload;

impl Api {
    pub(super) async fn copy_object(
        &self,
        mut request: S3Request<CopyObjectInput>,
    ) -> S3Result<S3Response<CopyObjectOutput>> {
        let bucket = self.index.bucket(&request.input.bucket)?;
        let (object, source) = self.source(&request.input.copy_source)?;
        let from = &object.record;
        check_customer_key(
            from.attributes.customer_key_md5.as_deref(),
            &request.headers,
            SOURCE_KEY,
        )?;
        let input = &mut request.input;
        ReadCondition {
            if_match: input.copy_source_if_match.as_ref(),
            if_none_match: input.copy_source_if_none_match.as_ref(),
            if_modified_since: input.copy_source_if_modified_since.take(),
            if_unmodified_since: input.copy_source_if_unmodified_since.take(),
        }
        .check(from)
        .map_err(as_precondition)?;
        if from.size_bytes > MAX_BODY_BYTES {
            return Err(S3Error::with_message(
                S3ErrorCode::InvalidRequest,
                "The specified copy source is larger than the maximum allowable size for a copy source: \
                 5368709120",
            ));
        }
        let replaces = input
            .metadata_directive
            .as_ref()
            .is_some_and(|directive| directive.as_str() == MetadataDirective::REPLACE);
        let replaces_tags = input
            .tagging_directive
            .as_ref()
            .is_some_and(|directive| directive.as_str() == TaggingDirective::REPLACE);
        let mut given = attributes_of!(input, &request.headers);
        // Tags have a directive of their own.
        if !replaces_tags {
            given.tagging = given.tagging.or_else(|| from.attributes.tagging.clone());
        }
        let attributes = if replaces {
            given
        } else {
            // All that describes the content comes along; where and how it is kept is the request's to say.
            let mut kept = from.attributes.clone();
            kept.storage_class = given.storage_class;
            kept.encryption = given.encryption;
            kept.kms_key_id = given.kms_key_id;
            kept.customer_key_md5 = given.customer_key_md5;
            kept.tagging = given.tagging;
            kept
        };
        let condition = WriteCondition {
            if_match: condition_header(&request.headers, "if-match")?,
            if_none_match: condition_header(&request.headers, "if-none-match")?,
        };
        let asked = request.input.checksum_algorithm.as_ref();
        let algorithm = match asked.map(ChecksumAlgorithm::as_str) {
            Some(name) => Algorithm::parse(name).ok_or(S3ErrorCode::InvalidRequest)?,
            None => from.checksums.first().map_or(Algorithm::Crc64Nvme, |sum| sum.algorithm),
        };
        let range = 0..from.size_bytes;
        let received = self.copy_range(&object, source, range, algorithm, Target::Object).await?;
        let record = ObjectRecord {
            format: FORMAT,
            key: request.input.key,
            size_bytes: received.size_bytes,
            etag: received.etag,
            modified: Moment::now(),
            checksums: received.sums,
            checksum_kind: Kind::FullObject,
            parts: Vec::new(),
            upload_id: None,
            attributes,
        };
        let content = received.content;
        let copy =
            self.commit(move |index| index.put(&bucket, record, content, &condition)).await?;

        let mut result = CopyObjectResult {
            e_tag: Some(etag::to_dto(&copy.record.etag)),
            last_modified: Some(copy.record.modified.into()),
            checksum_type: Some(Kind::FullObject.name().to_owned().into()),
            ..Default::default()
        };
        set_checksums!(result, &copy.record.checksums, Sum::base64);
        let mut output =
            CopyObjectOutput { copy_object_result: Some(result), ..Default::default() };
        set_encryption!(output, &copy.record.attributes);
        Ok(S3Response::new(output))
    }

    pub(super) async fn upload_part_copy(
        &self,
        request: S3Request<UploadPartCopyInput>,
    ) -> S3Result<S3Response<UploadPartCopyOutput>> {
        let input = request.input;
        let number = part_number(input.part_number)?;
        let bucket = self.index.bucket(&input.bucket)?;
        let upload = bucket.upload(&input.key, &input.upload_id).ok_or_else(no_such_upload)?;
        let attributes = &upload.record.attributes;
        check_customer_key(attributes.customer_key_md5.as_deref(), &request.headers, OWN_KEY)?;
        let (object, source) = self.source(&input.copy_source)?;
        let from = &object.record;
        check_customer_key(
            from.attributes.customer_key_md5.as_deref(),
            &request.headers,
            SOURCE_KEY,
        )?;
        ReadCondition {
            if_match: input.copy_source_if_match.as_ref(),
            if_none_match: input.copy_source_if_none_match.as_ref(),
            if_modified_since: input.copy_source_if_modified_since,
            if_unmodified_since: input.copy_source_if_unmodified_since,
        }
        .check(from)
        .map_err(as_precondition)?;
        let range = select_copy(from.size_bytes, input.copy_source_range.as_deref())?;
        if range.end - range.start > MAX_BODY_BYTES {
            return Err(S3Error::with_message(
                S3ErrorCode::InvalidRequest,
                "The specified copy source range is larger than the maximum allowable size: 5368709120",
            ));
        }
        let algorithm = upload.algorithms(&[]).first().copied().unwrap_or(Algorithm::Crc64Nvme);
        let target = Target::Part { upload_id: &upload.record.id, number };
        let received = self.copy_range(&object, source, range, algorithm, target).await?;
        let record = self.add_part(&upload, number, received).await?;

        let mut result = CopyPartResult {
            e_tag: Some(etag::to_dto(&record.etag)),
            last_modified: Some(record.modified.into()),
            ..Default::default()
        };
        set_checksums!(result, &record.checksums, Sum::base64);
        let mut output =
            UploadPartCopyOutput { copy_part_result: Some(result), ..Default::default() };
        set_encryption!(output, &upload.record.attributes);
        Ok(S3Response::new(output))
    }

    fn source(&self, source: &CopySource) -> S3Result<(Arc<Object>, Source)> {
        let CopySource::Bucket { bucket, key, .. } = source else {
            return Err(S3Error::with_message(
                S3ErrorCode::NotImplemented,
                "A copy source must name a bucket and a key",
            ));
        };
        self.index.open(&*self.index.bucket(bucket)?, key)
    }

    async fn copy_range(
        &self,
        object: &Object,
        source: Source,
        range: Range<u64>,
        algorithm: Algorithm,
        target: Target<'_>,
    ) -> S3Result<Received> {
        let size_bytes = range.end - range.start;
        if let Some((content, computed)) = self.index.storage.shortcut(range.clone(), algorithm) {
            // What the source was uploaded with holds for a copy of all of it.
            let record = &object.record;
            let whole = size_bytes == record.size_bytes && record.checksum_kind == Kind::FullObject;
            let known = record.checksums.iter().find(|sum| whole && sum.algorithm == algorithm);
            let sum = known.cloned().unwrap_or(computed);
            let etag = etag::opaque(&sum, size_bytes);
            return Ok(Received { content, sums: vec![sum], size_bytes, etag });
        }
        let sink =
            self.index.storage.sink(target, Some(size_bytes)).map_err(S3Error::internal_error)?;
        let announced = Announced::within_the_store(size_bytes);
        self.receive(announced, Some(source.stream(range)), sink, vec![algorithm]).await
    }
}

/// A copy source that is not as demanded is always a failed precondition, never a 304.
fn as_precondition(error: S3Error) -> S3Error {
    if *error.code() == S3ErrorCode::NotModified {
        crate::index::precondition_failed()
    } else {
        error
    }
}

fn condition_header(headers: &http::HeaderMap, name: &str) -> S3Result<Option<ETagCondition>> {
    headers
        .get(name)
        .map(|value| ETagCondition::parse_http_header(value.as_bytes()))
        .transpose()
        .map_err(|_| {
            S3Error::with_message(S3ErrorCode::InvalidArgument, format!("malformed {name} header"))
        })
}
