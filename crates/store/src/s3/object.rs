//! Single objects: put, get, head, delete, attributes.

use http::HeaderMap;
use s3s::dto::{
    Checksum, ChecksumMode, DeleteObjectInput, DeleteObjectOutput, DeleteObjectsInput,
    DeleteObjectsOutput, DeletedObject, ETagCondition, Error, GetObjectAttributesInput,
    GetObjectAttributesOutput, GetObjectAttributesParts, GetObjectInput, GetObjectOutput,
    GetObjectTaggingInput, GetObjectTaggingOutput, HeadObjectInput, HeadObjectOutput,
    ObjectAttributes, ObjectPart, PutObjectInput, PutObjectOutput, StorageClass, Tag, Timestamp,
};
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result};

use super::attributes::{OWN_KEY, attributes_of, check_customer_key, set_encryption, set_headers};
use super::receive::Announced;
use super::{Api, set_checksums, signed, signed_count};
use crate::checksum::{Algorithm, Kind, Sum};
use crate::etag;
use crate::faults::RefuseKeys;
use crate::index::{WriteCondition, etag_matches, precondition_failed};
use crate::range::{Selection, select};
use crate::record::{FORMAT, Moment, ObjectRecord};
use crate::storage::Target;

/// Keys of one `DeleteObjects`, and entries of one page of parts.
const PAGE: usize = 1000;

impl Api {
    pub(super) async fn put_object(
        &self,
        mut request: S3Request<PutObjectInput>,
    ) -> S3Result<S3Response<PutObjectOutput>> {
        let bucket = self.index.bucket(&request.input.bucket)?;
        let announced = Announced::new(&request, request.input.content_length)?;
        let attributes = attributes_of!(request.input, &request.headers);
        let input = request.input;
        let condition =
            WriteCondition { if_match: input.if_match, if_none_match: input.if_none_match };
        // What cannot succeed is refused before its body is taken in. The commit decides.
        condition.check(bucket.existing(&input.key).as_deref().map(|object| &object.record))?;
        let mut algorithms = announced.algorithms();
        if algorithms.is_empty() {
            // What S3 makes when the client names none.
            algorithms.push(Algorithm::Crc64Nvme);
        }
        let sink = self
            .index
            .storage
            .sink(Target::Object, announced.length)
            .map_err(S3Error::internal_error)?;
        let received = self.receive(announced, input.body, sink, algorithms).await?;
        let record = ObjectRecord {
            format: FORMAT,
            key: input.key,
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
        let object =
            self.commit(move |index| index.put(&bucket, record, content, &condition)).await?;

        let mut output = PutObjectOutput {
            e_tag: Some(etag::to_dto(&object.record.etag)),
            size: Some(signed(object.record.size_bytes)),
            checksum_type: Some(Kind::FullObject.name().to_owned().into()),
            ..Default::default()
        };
        set_checksums!(output, &object.record.checksums, Sum::base64);
        set_encryption!(output, &object.record.attributes);
        Ok(S3Response::new(output))
    }

    pub(super) fn get_object(
        &self,
        request: S3Request<GetObjectInput>,
    ) -> S3Result<S3Response<GetObjectOutput>> {
        let input = request.input;
        let bucket = self.index.bucket(&input.bucket)?;
        let (object, source) = self.index.open(&bucket, &input.key)?;
        let record = &object.record;
        check_customer_key(
            record.attributes.customer_key_md5.as_deref(),
            &request.headers,
            OWN_KEY,
        )?;
        ReadCondition {
            if_match: input.if_match.as_ref(),
            if_none_match: input.if_none_match.as_ref(),
            if_modified_since: input.if_modified_since,
            if_unmodified_since: input.if_unmodified_since,
        }
        .check(record)?;
        let selection = select(
            record.size_bytes,
            &record.part_sizes(),
            input.range.as_ref(),
            input.part_number,
        )?;

        let mut output = GetObjectOutput {
            content_length: Some(signed(selection.bytes.end - selection.bytes.start)),
            content_range: selection.content_range.clone(),
            parts_count: parts_count(record, input.part_number),
            tag_count: tag_count(record),
            ..Default::default()
        };
        set_headers!(output, record);
        if let Some((sums, kind)) =
            shown_checksums(record, &selection, input.checksum_mode.as_ref())
        {
            set_checksums!(output, sums, |sum| checksum_text(sum, record, &selection));
            output.checksum_type = Some(kind.name().to_owned().into());
        }
        output.body = Some(source.stream(selection.bytes));
        Ok(S3Response::new(output))
    }

    pub(super) fn head_object(
        &self,
        request: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        let input = request.input;
        let bucket = self.index.bucket(&input.bucket)?;
        let object = self.index.object(&bucket, &input.key)?;
        let record = &object.record;
        check_customer_key(
            record.attributes.customer_key_md5.as_deref(),
            &request.headers,
            OWN_KEY,
        )?;
        ReadCondition {
            if_match: input.if_match.as_ref(),
            if_none_match: input.if_none_match.as_ref(),
            if_modified_since: input.if_modified_since,
            if_unmodified_since: input.if_unmodified_since,
        }
        .check(record)?;
        let selection = select(
            record.size_bytes,
            &record.part_sizes(),
            input.range.as_ref(),
            input.part_number,
        )?;

        let mut output = HeadObjectOutput {
            content_length: Some(signed(selection.bytes.end - selection.bytes.start)),
            content_range: selection.content_range.clone(),
            parts_count: parts_count(record, input.part_number),
            ..Default::default()
        };
        set_headers!(output, record);
        if let Some((sums, kind)) =
            shown_checksums(record, &selection, input.checksum_mode.as_ref())
        {
            set_checksums!(output, sums, |sum| checksum_text(sum, record, &selection));
            output.checksum_type = Some(kind.name().to_owned().into());
        }
        let mut response = S3Response::new(output);
        if selection.content_range.is_some() {
            response.status = Some(http::StatusCode::PARTIAL_CONTENT);
        }
        Ok(response)
    }

    pub(super) fn get_object_attributes(
        &self,
        request: S3Request<GetObjectAttributesInput>,
    ) -> S3Result<S3Response<GetObjectAttributesOutput>> {
        let input = request.input;
        let bucket = self.index.bucket(&input.bucket)?;
        let object = self.index.object(&bucket, &input.key)?;
        let record = &object.record;
        check_customer_key(
            record.attributes.customer_key_md5.as_deref(),
            &request.headers,
            OWN_KEY,
        )?;
        // Some clients send one header for each, some one with commas.
        let wants = |name: &str| {
            let mut wanted =
                input.object_attributes.iter().flat_map(|list| list.as_str().split(','));
            wanted.any(|wanted| wanted.trim() == name)
        };

        let mut output = GetObjectAttributesOutput {
            last_modified: Some(record.modified.into()),
            ..Default::default()
        };
        if wants(ObjectAttributes::ETAG) {
            output.e_tag = Some(etag::to_dto(&record.etag));
        }
        if wants(ObjectAttributes::OBJECT_SIZE) {
            output.object_size = Some(signed(record.size_bytes));
        }
        if wants(ObjectAttributes::STORAGE_CLASS) {
            let class = record.attributes.storage_class.clone();
            output.storage_class =
                Some(class.unwrap_or_else(|| StorageClass::STANDARD.to_owned()).into());
        }
        if wants(ObjectAttributes::CHECKSUM) && !record.checksums.is_empty() {
            let mut checksum = Checksum {
                checksum_type: Some(record.checksum_kind.name().to_owned().into()),
                ..Default::default()
            };
            set_checksums!(checksum, &record.checksums, Sum::base64);
            output.checksum = Some(checksum);
        }
        if wants(ObjectAttributes::OBJECT_PARTS) && !record.parts.is_empty() {
            output.object_parts =
                Some(parts_page(record, input.part_number_marker, input.max_parts));
        }
        Ok(S3Response::new(output))
    }

    pub(super) fn get_object_tagging(
        &self,
        request: S3Request<GetObjectTaggingInput>,
    ) -> S3Result<S3Response<GetObjectTaggingOutput>> {
        let bucket = self.index.bucket(&request.input.bucket)?;
        let object = self.index.object(&bucket, &request.input.key)?;
        let tag_set = tags(object.record.attributes.tagging.as_deref())
            .map(|(key, value)| Tag { key: Some(key), value: Some(value) })
            .collect();
        Ok(S3Response::new(GetObjectTaggingOutput { tag_set, version_id: None }))
    }

    pub(super) async fn delete_object(
        &self,
        request: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        let input = request.input;
        let bucket = self.index.bucket(&input.bucket)?;
        self.commit(move |index| index.delete(&bucket, &input.key, input.if_match.as_ref()))
            .await?;
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    pub(super) async fn delete_objects(
        &self,
        request: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let refused = request.extensions.get::<RefuseKeys>().cloned();
        let input = request.input;
        let bucket = self.index.bucket(&input.bucket)?;
        if input.delete.objects.is_empty() || input.delete.objects.len() > PAGE {
            return Err(S3Error::new(S3ErrorCode::MalformedXML));
        }
        let quiet = input.delete.quiet.unwrap_or(false);
        let (deleted, errors) = self
            .commit(move |index| {
                let (mut deleted, mut errors) = (Vec::new(), Vec::new());
                for entry in input.delete.objects {
                    if let Some(refused) = refused.as_ref().filter(|it| it.holds(&entry.key)) {
                        errors.push(Error {
                            code: Some(refused.code.clone()),
                            key: Some(entry.key),
                            message: Some("A fault that was asked for.".to_owned()),
                            version_id: None,
                        });
                        continue;
                    }
                    let if_match = entry.e_tag.map(ETagCondition::ETag);
                    match index.delete(&bucket, &entry.key, if_match.as_ref()) {
                        Ok(()) => deleted
                            .push(DeletedObject { key: Some(entry.key), ..Default::default() }),
                        Err(error) => errors.push(Error {
                            code: Some(error.code().as_str().to_owned()),
                            key: Some(entry.key),
                            message: error.message().map(str::to_owned),
                            version_id: None,
                        }),
                    }
                }
                Ok((deleted, errors))
            })
            .await?;
        Ok(S3Response::new(DeleteObjectsOutput {
            deleted: (!quiet).then_some(deleted),
            errors: (!errors.is_empty()).then_some(errors),
            request_charged: None,
        }))
    }
}

/// What must be true of an object for it to be read. The fields are named as the headers are.
#[allow(clippy::struct_field_names)]
pub(super) struct ReadCondition<'a> {
    pub(super) if_match: Option<&'a ETagCondition>,
    pub(super) if_none_match: Option<&'a ETagCondition>,
    pub(super) if_modified_since: Option<Timestamp>,
    pub(super) if_unmodified_since: Option<Timestamp>,
}

impl ReadCondition<'_> {
    /// 412 where a condition failed, 304 where the client's copy is current. An `ETag`'s condition, where
    /// there is one, decides in the place of the date's.
    pub(super) fn check(self, record: &ObjectRecord) -> S3Result<()> {
        let modified = record.modified.seconds();
        let seconds = |time: Timestamp| Moment::from(time).seconds();
        let passes = match (self.if_match, self.if_unmodified_since) {
            (Some(expected), _) => etag_matches(expected, &record.etag),
            (None, Some(since)) => modified <= seconds(since),
            (None, None) => true,
        };
        if !passes {
            return Err(precondition_failed());
        }
        let changed = match (self.if_none_match, self.if_modified_since) {
            (Some(known), _) => !etag_matches(known, &record.etag),
            (None, Some(since)) => modified > seconds(since),
            (None, None) => true,
        };
        if changed { Ok(()) } else { Err(not_modified(record)) }
    }
}

fn not_modified(record: &ObjectRecord) -> S3Error {
    let mut error = S3Error::new(S3ErrorCode::NotModified);
    let mut headers = HeaderMap::new();
    if let Ok(etag) = format!("\"{}\"", record.etag).parse() {
        headers.insert(http::header::ETAG, etag);
    }
    error.set_headers(headers);
    error
}

/// The checksums an answer shows: the object's with the whole of it, a part's with exactly that part (S3
/// keeps those of `COMPOSITE` objects only), none otherwise.
fn shown_checksums<'a>(
    record: &'a ObjectRecord,
    selection: &Selection,
    mode: Option<&ChecksumMode>,
) -> Option<(&'a [Sum], Kind)> {
    if mode.is_none_or(|mode| mode.as_str() != ChecksumMode::ENABLED) {
        return None;
    }
    let whole = selection.content_range.is_none()
        || (record.parts.is_empty() && selection.bytes == (0..record.size_bytes));
    if whole {
        return (!record.checksums.is_empty()).then_some((&record.checksums, record.checksum_kind));
    }
    let index = usize::try_from(selection.part?).ok()?.checked_sub(1)?;
    let part = record.parts.get(index)?;
    (!part.checksums.is_empty()).then_some((&part.checksums, record.checksum_kind))
}

fn checksum_text(sum: &Sum, record: &ObjectRecord, selection: &Selection) -> String {
    if record.checksum_kind == Kind::Composite && selection.content_range.is_none() {
        format!("{}-{}", sum.base64(), record.parts.len())
    } else {
        sum.base64()
    }
}

fn parts_count(record: &ObjectRecord, part_number: Option<i32>) -> Option<i32> {
    (part_number.is_some() && !record.parts.is_empty()).then(|| signed_count(record.parts.len()))
}

fn tags(tagging: Option<&str>) -> impl Iterator<Item = (String, String)> {
    let decode = |text: &str| {
        let spaced = text.replace('+', " ");
        super::listing::percent_decode(&spaced)
    };
    tagging.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()).map(move |pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(key), decode(value))
    })
}

fn tag_count(record: &ObjectRecord) -> Option<i32> {
    let count = tags(record.attributes.tagging.as_deref()).count();
    (count > 0).then(|| signed_count(count))
}

fn parts_page(
    record: &ObjectRecord,
    marker: Option<i32>,
    max_parts: Option<i32>,
) -> GetObjectAttributesParts {
    let after = u32::try_from(marker.unwrap_or(0)).unwrap_or(0);
    let limit = usize::try_from(max_parts.unwrap_or(1000)).unwrap_or(0).min(PAGE);
    let rest = record.parts.partition_point(|part| part.number <= after);
    let page = &record.parts[rest..record.parts.len().min(rest + limit)];
    let last = page.last().map_or(after, |part| part.number);
    let parts = page.iter().map(|part| {
        let mut entry = ObjectPart {
            part_number: i32::try_from(part.number).ok(),
            size: Some(signed(part.size_bytes)),
            ..Default::default()
        };
        set_checksums!(entry, &part.checksums, Sum::base64);
        entry
    });
    GetObjectAttributesParts {
        is_truncated: Some(rest + page.len() < record.parts.len()),
        max_parts: Some(signed_count(limit)),
        next_part_number_marker: i32::try_from(last).ok(),
        part_number_marker: Some(marker.unwrap_or(0)),
        parts: Some(parts.collect()),
        total_parts_count: Some(signed_count(record.parts.len())),
    }
}
