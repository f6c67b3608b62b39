//! Requests about what a store does by itself: copies, whole and in parts, and what belongs to them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Instant;

use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::types::{ChecksumAlgorithm, MetadataDirective, TaggingDirective};

use super::write::{
    COMPLETE_TIMEOUT, PartReceipt, Receipt, customer_key, encryption_of, some_etag,
    with_attributes_on_copy,
};
use super::{Calls, Pin, answered_within};
use crate::error::{Error, ErrorKind, Result};
use crate::flow::Flow;
use crate::integrity::{Algorithm, ChecksumType};
use crate::options::{CustomerKey, UploadOptions};
use crate::plan::Part;
use crate::transport::classify::classify;
use crate::transport::info::{parse_all, version_of};
use crate::url::S3Url;

/// What a copy is called in messages.
const COPY: &str = "copy to";

/// What a weak `ETag` begins with; it never matches (RFC 9110, section 13.1.1).
const WEAK: &str = "W/";

/// What a copy does with what describes the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Directives {
    /// Media type, headers and metadata: the request's instead of the source's.
    pub(crate) replace_metadata: bool,
    /// Tags.
    pub(crate) replace_tags: bool,
}

impl Calls {
    /// Has the store copy a whole object, of exactly the pinned source. The answer may take minutes,
    /// trickling white space.
    pub(crate) async fn copy_object(
        &self,
        (source, pin): (&S3Url, &Pin),
        target: &S3Url,
        directives: Directives,
        algorithm: Option<Algorithm>,
        options: &UploadOptions,
        flow: &Flow,
    ) -> Result<Receipt> {
        let metadata = if directives.replace_metadata {
            MetadataDirective::Replace
        } else {
            MetadataDirective::Copy
        };
        let request =
            self.client(target.bucket()).copy_object().bucket(target.bucket()).key(target.key());
        let request = with_attributes_on_copy(request, options)
            .copy_source(copy_source(source, pin))
            .set_copy_source_if_match(strong_etag(pin))
            .metadata_directive(metadata)
            // Stores without tags know no such header, and copying them is the default.
            .set_tagging_directive(directives.replace_tags.then_some(TaggingDirective::Replace))
            .set_checksum_algorithm(algorithm.and_then(named))
            .set_if_none_match(options.if_none_match.then(|| "*".to_owned()))
            .set_copy_source_sse_customer_algorithm(
                pin.customer_key.as_ref().map(|_| "AES256".to_owned()),
            )
            .set_copy_source_sse_customer_key(pin.customer_key.as_ref().map(CustomerKey::to_base64))
            .set_copy_source_sse_customer_key_md5(
                pin.customer_key.as_ref().map(CustomerKey::md5_base64),
            );
        let shown = target.to_string();
        let asked = Instant::now();
        let answer = async { request.send().await.map_err(|e| classify(COPY, &shown, e)) };
        let limit = COMPLETE_TIMEOUT.max(self.stall_timeout);
        let reply = answered_within(limit, COPY, &shown, answer).await?;
        flow.answered(std::time::Duration::ZERO, asked.elapsed());
        let result = reply.copy_object_result();
        let Some(etag) = result.and_then(|result| some_etag(result.e_tag())) else {
            return Err(no_etag(shown));
        };
        Ok(Receipt {
            etag: Some(etag.to_owned()),
            version_id: version_of(reply.version_id()),
            checksums: result.map(|result| checksums_of!(result)).unwrap_or_default(),
            encryption: encryption_of(
                reply.sse_customer_algorithm(),
                reply.server_side_encryption(),
            ),
        })
    }

    /// Has the store copy one part, of exactly the pinned source. `algorithm` is the one that the
    /// upload was begun with.
    pub(crate) async fn copy_part(
        &self,
        (source, pin): (&S3Url, &Pin),
        (target, upload_id): (&S3Url, &str),
        part: Part,
        algorithm: Option<Algorithm>,
        options: &UploadOptions,
        flow: &Flow,
    ) -> Result<PartReceipt> {
        let last = part.end_bytes().saturating_sub(1);
        let request = self
            .client(target.bucket())
            .upload_part_copy()
            .bucket(target.bucket())
            .key(target.key())
            .upload_id(upload_id)
            .part_number(part.number.try_into().unwrap_or(i32::MAX))
            .copy_source(copy_source(source, pin))
            .copy_source_range(format!("bytes={}-{last}", part.offset_bytes))
            .set_copy_source_if_match(strong_etag(pin))
            .set_copy_source_sse_customer_algorithm(
                pin.customer_key.as_ref().map(|_| "AES256".to_owned()),
            )
            .set_copy_source_sse_customer_key(pin.customer_key.as_ref().map(CustomerKey::to_base64))
            .set_copy_source_sse_customer_key_md5(
                pin.customer_key.as_ref().map(CustomerKey::md5_base64),
            );
        let request = with_customer_key!(request, customer_key(options));
        let shown = target.to_string();
        let asked = Instant::now();
        let answer = async { request.send().await.map_err(|e| classify(COPY, &shown, e)) };
        let limit = COMPLETE_TIMEOUT.max(self.stall_timeout);
        let reply = answered_within(limit, COPY, &shown, answer).await?;
        flow.answered(std::time::Duration::ZERO, asked.elapsed());
        let result = reply.copy_part_result();
        let Some(etag) = result.and_then(|result| some_etag(result.e_tag())) else {
            return Err(no_etag(shown));
        };
        let values = result.map(|result| {
            let values = [
                (Algorithm::Crc32, result.checksum_crc32()),
                (Algorithm::Crc32c, result.checksum_crc32_c()),
                (Algorithm::Crc64Nvme, result.checksum_crc64_nvme()),
                (Algorithm::Sha1, result.checksum_sha1()),
                (Algorithm::Sha256, result.checksum_sha256()),
            ];
            parse_all(&values, None)
        });
        let digest = values.unwrap_or_default().into_iter().map(|checksum| checksum.digest);
        let digest = digest.into_iter().find(|digest| Some(digest.algorithm()) == algorithm);
        Ok(PartReceipt { number: part.number, etag: etag.to_owned(), digest })
    }

    /// The object's tags.
    pub(crate) async fn tags(&self, url: &S3Url, pin: &Pin) -> Result<BTreeMap<String, String>> {
        const OPERATION: &str = "read the tags of";
        let request = self
            .client(url.bucket())
            .get_object_tagging()
            .bucket(url.bucket())
            .key(url.key())
            .set_version_id(pin.version_id.clone());
        let target = url.to_string();
        let answer = async {
            request
                .send()
                .await
                .map_err(|e| classify(OPERATION, &target, e).naming("s3:GetObjectTagging"))
        };
        let reply = self.answered(OPERATION, &target, answer).await?;
        Ok(reply.tag_set().iter().map(|tag| (tag.key.clone(), tag.value.clone())).collect())
    }

    /// Removes an object; in a bucket that keeps versions, a marker takes its place. With an `etag`,
    /// only if it is still that one, as far as the store looks.
    pub(crate) async fn delete_object(&self, url: &S3Url, etag: Option<&str>) -> Result<()> {
        const OPERATION: &str = "remove";
        let request = self
            .client(url.bucket())
            .delete_object()
            .bucket(url.bucket())
            .key(url.key())
            .set_if_match(etag.filter(|etag| !etag.starts_with(WEAK)).map(str::to_owned));
        let target = url.to_string();
        let answer = async {
            match request.send().await {
                Ok(_) => Ok(()),
                Err(error) if etag.is_none() && error.code() == Some("NoSuchKey") => Ok(()),
                Err(error) => Err(classify(OPERATION, &target, error).naming("s3:DeleteObject")),
            }
        };
        self.answered(OPERATION, &target, answer).await
    }
}

/// Tags as S3 takes them in a header.
pub(super) fn tagging(tags: &BTreeMap<String, String>) -> Option<String> {
    let pairs = tags.iter().map(|(name, value)| format!("{}={}", escaped(name), escaped(value)));
    (!tags.is_empty()).then(|| pairs.collect::<Vec<_>>().join("&"))
}

/// Where a copy comes from, as S3 takes it in a header: the key's slashes stay.
fn copy_source(source: &S3Url, pin: &Pin) -> String {
    let key: Vec<_> = source.key().split('/').map(escaped).collect();
    let mut text = format!("{}/{}", source.bucket(), key.join("/"));
    if let Some(version) = &pin.version_id {
        text.push_str("?versionId=");
        text.push_str(&escaped(version));
    }
    text
}

/// Percent-encoded, all but what never needs it (RFC 3986, section 2.3).
fn escaped(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(byte.into());
        } else {
            // Writing to a text cannot fail.
            let _ = write!(text, "%{byte:02X}");
        }
        text
    })
}

fn strong_etag(pin: &Pin) -> Option<String> {
    pin.etag.clone().filter(|etag| !etag.starts_with(WEAK))
}

fn named(algorithm: Algorithm) -> Option<ChecksumAlgorithm> {
    let name = algorithm.name().to_uppercase();
    (algorithm != Algorithm::Md5).then(|| ChecksumAlgorithm::from(name.as_str()))
}

fn no_etag(target: String) -> Error {
    Error::new(ErrorKind::ServerFailure, COPY, target, "the store's answer names no copy")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_and_tags_are_escaped() {
        let url: S3Url = "s3://b/a b/ü+?&=%/~x".parse().expect("a URL");
        let pin = Pin { version_id: Some("v/1".into()), ..Pin::default() };
        assert_eq!(copy_source(&url, &pin), "b/a%20b/%C3%BC%2B%3F%26%3D%25/~x?versionId=v%2F1");
        assert_eq!(copy_source(&url, &Pin::default()), "b/a%20b/%C3%BC%2B%3F%26%3D%25/~x");
        let tags = [("a b", "1&2"), ("c", "")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(tagging(&tags.into()).as_deref(), Some("a%20b=1%262&c="));
        assert_eq!(tagging(&BTreeMap::new()), None);
    }
}
