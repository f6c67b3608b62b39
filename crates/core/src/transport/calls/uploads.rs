//! Requests about multipart uploads that are not finished: which there are, and what they have.

use std::collections::HashSet;
use std::time::SystemTime;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::types::EncodingType;

use super::Calls;
use crate::error::{Error, ErrorKind, Result};
use crate::integrity::{Algorithm, Checksum};
use crate::options::CustomerKey;
use crate::transport::classify::classify;
use crate::transport::info::{parse_all, unsigned};
use crate::url::S3Url;

const LIST_UPLOADS: &str = "list the unfinished uploads of";

/// A part as the store lists it.
#[derive(Debug, Clone)]
pub(crate) struct ListedPart {
    pub(crate) number: u32,
    pub(crate) size_bytes: u64,
    pub(crate) etag: String,
    pub(crate) checksums: Vec<Checksum>,
}

/// One page of an upload's parts.
#[derive(Debug)]
pub(crate) struct PartsPage {
    pub(crate) parts: Vec<ListedPart>,
    /// The part number to go on behind; `None` at the end.
    pub(crate) next: Option<u32>,
}

/// An unfinished upload as the store lists it.
#[derive(Debug, Clone)]
pub(crate) struct ListedUpload {
    pub(crate) key: String,
    pub(crate) upload_id: String,
    /// By the store's clock.
    pub(crate) initiated: Option<SystemTime>,
    /// Who began it, as the store calls them.
    pub(crate) initiator: Option<String>,
}

/// One page of a bucket's unfinished uploads.
#[derive(Debug)]
pub(crate) struct UploadsPage {
    pub(crate) uploads: Vec<ListedUpload>,
    /// The key and the upload to go on behind; `None` at the end.
    pub(crate) next: Option<(String, String)>,
}

/// How far a listing got, so that a store that turns in circles is found out.
#[derive(Debug, Default)]
pub(crate) struct Pages {
    after: Option<(String, String)>,
    seen: HashSet<(String, String)>,
}

impl Calls {
    /// The parts that the upload has, behind part number `after`.
    pub(crate) async fn list_parts(
        &self,
        url: &S3Url,
        upload_id: &str,
        after: u32,
        key: Option<&CustomerKey>,
    ) -> Result<PartsPage> {
        const OPERATION: &str = "list the parts of";
        let request = self
            .client(url.bucket())
            .list_parts()
            .bucket(url.bucket())
            .key(url.key())
            .upload_id(upload_id)
            .set_part_number_marker((after > 0).then(|| after.to_string()));
        let request = with_customer_key!(request, key);
        let target = url.to_string();
        let refused = |e| unlisted(OPERATION, &target, e).naming("s3:ListMultipartUploadParts");
        let answer = async { request.send().await.map_err(refused) };
        let reply = self.answered(OPERATION, &target, answer).await?;
        let declared = reply
            .checksum_type()
            .and_then(|kind| crate::integrity::ChecksumType::named(kind.as_str()));
        let parts: Vec<_> = reply
            .parts()
            .iter()
            .filter_map(|part| {
                let values = [
                    (Algorithm::Crc32, part.checksum_crc32()),
                    (Algorithm::Crc32c, part.checksum_crc32_c()),
                    (Algorithm::Crc64Nvme, part.checksum_crc64_nvme()),
                    (Algorithm::Sha1, part.checksum_sha1()),
                    (Algorithm::Sha256, part.checksum_sha256()),
                ];
                Some(ListedPart {
                    number: u32::try_from(part.part_number()?).ok()?,
                    size_bytes: unsigned(part.size()),
                    etag: part.e_tag().unwrap_or_default().to_owned(),
                    checksums: parse_all(&values, declared),
                })
            })
            .collect();
        // Not by the store's own marker: some repeat it, and the last number says the same.
        let last = parts.iter().map(|part| part.number).max();
        let next = last.filter(|last| reply.is_truncated().unwrap_or(false) && *last > after);
        Ok(PartsPage { parts, next })
    }

    /// The bucket's unfinished uploads of keys that begin with `prefix`.
    pub(crate) async fn list_uploads(
        &self,
        bucket: &str,
        prefix: &str,
        after: Option<&(String, String)>,
    ) -> Result<UploadsPage> {
        const OPERATION: &str = LIST_UPLOADS;
        let request = self
            .client(bucket)
            .list_multipart_uploads()
            .bucket(bucket)
            .set_prefix((!prefix.is_empty()).then(|| prefix.to_owned()))
            // XML cannot hold every character that a key can.
            .encoding_type(EncodingType::Url)
            .set_key_marker(after.map(|(key, _)| key.clone()))
            .set_upload_id_marker(after.map(|(_, id)| id.clone()).filter(|id| !id.is_empty()));
        let target = format!("s3://{bucket}/{prefix}");
        let refused = |e| unlisted(OPERATION, &target, e).naming("s3:ListBucketMultipartUploads");
        let answer = async { request.send().await.map_err(refused) };
        let reply = self.answered(OPERATION, &target, answer).await?;
        // Keys are encoded only where the store says that it did.
        let is_encoded = reply.encoding_type() == Some(&EncodingType::Url);
        let plain = |text: &str| if is_encoded { decoded(text) } else { text.to_owned() };
        let uploads: Vec<_> = reply
            .uploads()
            .iter()
            .filter_map(|upload| {
                Some(ListedUpload {
                    key: plain(upload.key()?),
                    upload_id: upload.upload_id().filter(|id| !id.is_empty())?.to_owned(),
                    initiated: upload.initiated().and_then(|at| SystemTime::try_from(*at).ok()),
                    initiator: upload.initiator().and_then(|who| who.id()).map(str::to_owned),
                })
            })
            // Some stores take the prefix for a hint.
            .filter(|upload| upload.key.starts_with(prefix))
            .collect();
        let next = reply.is_truncated().unwrap_or(false).then(|| {
            let key = reply.next_key_marker().map(plain);
            let id = reply.next_upload_id_marker().unwrap_or_default().to_owned();
            key.map(|key| (key, id))
        });
        Ok(UploadsPage { uploads, next: next.flatten() })
    }
}

impl Pages {
    /// Where the next page begins.
    pub(crate) fn after(&self) -> Option<&(String, String)> {
        self.after.as_ref()
    }

    /// Goes on behind this page. False at the end; an error where the store has been there before.
    pub(crate) fn turn(&mut self, page: UploadsPage, bucket: &str) -> Result<bool> {
        let Some(next) = page.next else { return Ok(false) };
        if !self.seen.insert(next.clone()) {
            let detail = "the store repeats a page of its listing for ever";
            let target = format!("s3://{bucket}");
            return Err(Error::new(ErrorKind::ServerFailure, LIST_UPLOADS, target, detail));
        }
        self.after = Some(next);
        Ok(true)
    }
}

/// What a failed request for a list means. A success that is no such list, under another name of its
/// own or as a page for people, will be none the next time either.
pub(super) fn unlisted<E>(
    operation: &'static str,
    target: &str,
    failure: SdkError<E, HttpResponse>,
) -> Error
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    match &failure {
        SdkError::ServiceError(service) if service.raw().status().is_success() => {
            let detail = "the store answers with something else than such a list";
            Error::new(ErrorKind::Unsupported, operation, target, detail)
        }
        _ => classify(operation, target, failure),
    }
}

/// Undoes the encoding of URLs, where `+` is a blank.
pub(in crate::transport) fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let hex = |at: usize| char::from(*behind.get(at)?).to_digit(16);
        match (first, hex(0), hex(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push(u8::try_from(high * 16 + low).unwrap_or(b'?'));
                rest = &behind[2..];
            }
            (b'+', ..) => {
                bytes.push(b' ');
                rest = behind;
            }
            (byte, ..) => {
                bytes.push(*byte);
                rest = behind;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::decoded;

    #[test]
    fn encoded_keys_are_read() {
        for (encoded, plain) in
            [("a%2Fb+c", "a/b c"), ("100%", "100%"), ("%C3%BC%0A", "ü\n"), ("%zz", "%zz")]
        {
            assert_eq!(decoded(encoded), plain);
        }
    }
}
