//! Requests that look at objects and fetch their bytes.

use std::time::Duration;

use aws_sdk_s3::error::SdkError;
use aws_sdk_s3::types::{ChecksumMode, ObjectAttributes};
use aws_smithy_types::byte_stream::ByteStream;
use bytes::Bytes;

use super::{Calls, answered_within, stalled};
use crate::error::{Error, ErrorKind, Result};
use crate::options::CustomerKey;
use crate::transport::classify::classify;
use crate::transport::connect;
use crate::transport::info::{MAX_PARTS, ObjectInfo, PartSizesPage, unsigned};
use crate::transport::restore::restore_command;
use crate::url::S3Url;

/// What a look at an object is called in messages.
const LOOK: &str = "look at";

/// What a weak `ETag` begins with.
const WEAK: &str = "W/";

/// Which object, exactly, a range is asked of.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pin {
    /// As the store wrote it.
    pub(crate) etag: Option<String>,
    pub(crate) version_id: Option<String>,
    pub(crate) customer_key: Option<CustomerKey>,
}

/// An answered range, its body still to be read.
pub(crate) struct Range {
    body: ByteStream,
    stall_timeout: Duration,
    target: String,
}

impl Calls {
    /// What the store knows of the object, checksums included.
    pub(crate) async fn head(
        &self,
        url: &S3Url,
        version_id: Option<&str>,
        key: Option<&CustomerKey>,
    ) -> Result<ObjectInfo> {
        let request = self
            .client(url.bucket())
            .head_object()
            .bucket(url.bucket())
            .key(url.key())
            .set_version_id(version_id.map(str::to_owned))
            .checksum_mode(ChecksumMode::Enabled);
        let request = with_customer_key!(request, key);
        let target = url.to_string();
        let answer = async {
            let head = request
                .send()
                .await
                .map_err(|e| classify(LOOK, &target, e).naming("s3:GetObject"))?;
            // Taken for empty, an object of any size would be downloaded as an empty file.
            ObjectInfo::of_head(&head).ok_or_else(|| {
                let detail = "the store does not tell the object's size";
                Error::new(ErrorKind::Rejected, LOOK, &target, detail)
                    .advise("a proxy that changes answers may have left it out")
            })
        };
        self.answered(LOOK, &target, answer).await
    }

    /// Size of the object's first part, for an object that was uploaded in parts. `None` where the
    /// store ignores the part number.
    pub(crate) async fn first_part_size(&self, url: &S3Url, pin: &Pin) -> Result<Option<u64>> {
        // Not pinned to the ETag, which some stores hold against the part's own: a look at another
        // object does no harm, as the ranges are pinned.
        let request = self
            .client(url.bucket())
            .head_object()
            .bucket(url.bucket())
            .key(url.key())
            .set_version_id(pin.version_id.clone())
            .part_number(1);
        let request = with_customer_key!(request, pin.customer_key.as_ref());
        let target = url.to_string();
        let answer = async { request.send().await.map_err(|e| classify(LOOK, &target, e)) };
        let head = self.answered(LOOK, &target, answer).await?;
        // Without a count the length is that of the whole object, whatever was asked.
        Ok(head.parts_count().map(|_| unsigned(head.content_length())))
    }

    /// Sizes of all the object's parts, in order; empty where the store keeps none, or lists more
    /// than there can be.
    pub(crate) async fn part_sizes(&self, url: &S3Url, pin: &Pin) -> Result<Vec<u64>> {
        let target = url.to_string();
        let mut sizes = Vec::new();
        let mut marker = None;
        loop {
            let request = self
                .client(url.bucket())
                .get_object_attributes()
                .bucket(url.bucket())
                .key(url.key())
                .set_version_id(pin.version_id.clone())
                .set_part_number_marker(marker.clone())
                .object_attributes(ObjectAttributes::ObjectParts);
            let request = with_customer_key!(request, pin.customer_key.as_ref());
            let answer = async {
                request.send().await.map_err(|error| match &error {
                    // The object itself, where the store does not know the request.
                    SdkError::ServiceError(service) if service.raw().status().is_success() => {
                        let detail = "the store does not list the parts";
                        Error::new(ErrorKind::Unsupported, LOOK, &target, detail)
                    }
                    _ => classify(LOOK, &target, error).naming("s3:GetObjectAttributes"),
                })
            };
            let reply = self.answered(LOOK, &target, answer).await?;
            let page = PartSizesPage::of(&reply);
            let grew = !page.sizes.is_empty();
            sizes.extend(page.sizes);
            if sizes.len() > MAX_PARTS as usize {
                return Ok(Vec::new());
            }
            // A store that repeats its marker must not hold the transfer forever.
            if page.next.is_none() || page.next == marker || !grew {
                return Ok(sizes);
            }
            marker = page.next;
        }
    }

    /// Asks for `len_bytes` from `offset_bytes`, of exactly the pinned object. `total_bytes` is the
    /// object's size, which the answer is held against.
    pub(crate) async fn get_range(
        &self,
        url: &S3Url,
        pin: &Pin,
        offset_bytes: u64,
        len_bytes: u64,
        total_bytes: u64,
    ) -> Result<Range> {
        const OPERATION: &str = "download";
        let target = url.to_string();
        let end = offset_bytes + len_bytes - 1;
        let request = self
            .client(url.bucket())
            .get_object()
            .bucket(url.bucket())
            .key(url.key())
            .range(format!("bytes={offset_bytes}-{end}"))
            .set_version_id(pin.version_id.clone())
            // A weak one never matches (RFC 9110, section 13.1.1); the answer's is compared instead.
            .set_if_match(pin.etag.clone().filter(|etag| !etag.starts_with(WEAK)));
        let request = with_customer_key!(request, pin.customer_key.as_ref());
        let answered = answered_within(self.stall_timeout, OPERATION, &target, async {
            request.send().await.map_err(|error| match classify(OPERATION, &target, error) {
                error if error.code() == Some("PreconditionFailed") => changed(&target),
                error if error.kind() == ErrorKind::Conflict => changed(&target),
                error if error.kind() == ErrorKind::Archived => {
                    let version = pin.version_id.as_deref();
                    let command = restore_command(url.bucket(), url.key(), version);
                    error.advise(format!("restore it first, with: {command}"))
                }
                error => error,
            })
        });
        let reply = answered.await?;
        let wrong = |what: String| Error::new(ErrorKind::ServerFailure, OPERATION, &target, what);
        match reply.content_range() {
            Some(range) if range == format!("bytes {offset_bytes}-{end}/{total_bytes}") => {}
            // The whole object for a range that covers the whole object is what was asked for.
            None if len_bytes == total_bytes => {}
            None => return Err(wrong("the store ignored the range that was asked for".into())),
            Some(range) => {
                return Err(wrong(format!(
                    "the store answered with {range} when bytes {offset_bytes}-{end} of \
                     {total_bytes} were asked for"
                )));
            }
        }
        if let (Some(pinned), Some(answered)) = (&pin.etag, reply.e_tag())
            && opaque(pinned) != opaque(answered)
        {
            return Err(changed(&target));
        }
        Ok(Range { body: reply.body, stall_timeout: self.stall_timeout, target })
    }
}

impl Range {
    /// The next chunk; `None` at the clean end of the body, which may come too early.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>> {
        const OPERATION: &str = "download";
        match tokio::time::timeout(self.stall_timeout, self.body.next()).await {
            Ok(None) => Ok(None),
            Ok(Some(Ok(bytes))) => Ok(Some(bytes)),
            Ok(Some(Err(error))) => {
                let detail = connect::describe(&error);
                Err(Error::new(ErrorKind::Unreachable, OPERATION, &self.target, detail)
                    .caused_by(error))
            }
            Err(_) => Err(stalled(OPERATION, &self.target, self.stall_timeout)),
        }
    }
}

/// An `ETag` as such. Some stores quote it only sometimes, and a proxy that compresses weakens it.
fn opaque(etag: &str) -> &str {
    etag.strip_prefix(WEAK).unwrap_or(etag).trim_matches('"')
}

fn changed(target: &str) -> Error {
    Error::new(
        ErrorKind::Changed,
        "download",
        target,
        "the object was overwritten during the download",
    )
    // Of a file nothing is kept; of a stream, what went out is of the old one.
    .advise("start it again")
}
