//! Requests that look at objects and fetch their bytes.

use std::time::Duration;

use aws_sdk_s3::types::{ChecksumMode, ObjectAttributes};
use aws_smithy_types::byte_stream::ByteStream;
use bytes::Bytes;

use super::{Calls, stalled};
use crate::error::{Error, ErrorKind, Result};
use crate::options::CustomerKey;
use crate::transport::classify::classify;
use crate::transport::connect;
use crate::transport::info::{ObjectInfo, PartSizesPage, unsigned};
use crate::url::S3Url;

/// Which object, exactly, a range is asked of.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pin {
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
            .client
            .head_object()
            .bucket(url.bucket())
            .key(url.key())
            .set_version_id(version_id.map(str::to_owned))
            .checksum_mode(ChecksumMode::Enabled);
        let reply = with_customer_key!(request, key).send().await;
        reply
            .map(|head| ObjectInfo::of_head(&head))
            .map_err(|e| classify("look at", &url.to_string(), e))
    }

    /// Size of the object's first part, for an object that was uploaded in parts. `None` where the
    /// store ignores the part number.
    pub(crate) async fn first_part_size(&self, url: &S3Url, pin: &Pin) -> Result<Option<u64>> {
        // Not pinned to the ETag, which some stores hold against the part's own: a look at another
        // object does no harm, as the ranges are pinned.
        let request = self
            .client
            .head_object()
            .bucket(url.bucket())
            .key(url.key())
            .set_version_id(pin.version_id.clone())
            .part_number(1);
        let reply = with_customer_key!(request, pin.customer_key.as_ref()).send().await;
        let head = reply.map_err(|e| classify("look at", &url.to_string(), e))?;
        // Without a count the length is that of the whole object, whatever was asked.
        Ok(head.parts_count().map(|_| unsigned(head.content_length())))
    }

    /// Sizes of all the object's parts, in order; empty where the store keeps none.
    pub(crate) async fn part_sizes(&self, url: &S3Url, pin: &Pin) -> Result<Vec<u64>> {
        let mut sizes = Vec::new();
        let mut marker = None;
        loop {
            let request = self
                .client
                .get_object_attributes()
                .bucket(url.bucket())
                .key(url.key())
                .set_version_id(pin.version_id.clone())
                .set_part_number_marker(marker.clone())
                .object_attributes(ObjectAttributes::ObjectParts);
            let reply = with_customer_key!(request, pin.customer_key.as_ref()).send().await;
            let reply = reply.map_err(|e| classify("look at", &url.to_string(), e))?;
            let page = PartSizesPage::of(&reply);
            let grew = !page.sizes.is_empty();
            sizes.extend(page.sizes);
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
            .client
            .get_object()
            .bucket(url.bucket())
            .key(url.key())
            .range(format!("bytes={offset_bytes}-{end}"))
            .set_version_id(pin.version_id.clone())
            .set_if_match(pin.etag.clone());
        let request = with_customer_key!(request, pin.customer_key.as_ref());
        let answered = self.answered_in_time(OPERATION, &target, async {
            request.send().await.map_err(|error| match classify(OPERATION, &target, error) {
                error if error.code() == Some("PreconditionFailed") => changed(&target),
                error if error.kind() == ErrorKind::Conflict => changed(&target),
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
            && pinned.trim_matches('"') != answered.trim_matches('"')
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

fn changed(target: &str) -> Error {
    Error::new(
        ErrorKind::Changed,
        "download",
        target,
        "the object was overwritten during the download",
    )
    .advise("nothing was stored; start it again")
}
