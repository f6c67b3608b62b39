//! Requests that make objects, whole or in parts.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::copy_object::builders::CopyObjectFluentBuilder;
use aws_sdk_s3::operation::create_multipart_upload::builders::CreateMultipartUploadFluentBuilder;
use aws_sdk_s3::operation::put_object::builders::PutObjectFluentBuilder;
use aws_sdk_s3::types::{
    ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart, ServerSideEncryption, StorageClass,
};
use aws_smithy_types::DateTime;
use aws_smithy_types::byte_stream::ByteStream;
use aws_smithy_types::date_time::Format as DateFormat;

use super::copy::tagging;
use super::{Calls, answered_within, stalled};
use crate::error::{Error, ErrorKind, Remedy, Result};
use crate::file::Content;
use crate::flow::Flow;
use crate::integrity::{Algorithm, Checksum, ChecksumType, Digest};
use crate::options::{CustomerKey, Encryption, UploadOptions};
use crate::progress::Event;
use crate::transport::body::{OnItsWay, Watch, watched};
use crate::transport::classify::classify;
use crate::transport::info::{parse_all, version_of};
use crate::url::S3Url;

/// The metadata entry that tells an upload of ours from anybody else's: when the answer to the
/// completion is lost, the object's own token says whose object is there.
pub(crate) const TOKEN_NAME: &str = "brigade-token";

/// What the sending of bytes is called in messages.
const UPLOAD: &str = "upload to";

/// How long a store may take to put the parts together: AWS speaks of several minutes.
pub(super) const COMPLETE_TIMEOUT: Duration = Duration::from_mins(10);

/// The bytes of an upload request, and what goes with them.
#[derive(Debug, Clone)]
pub(crate) struct Payload {
    pub(crate) content: Content,
    pub(crate) digest: Option<Digest>,
    /// Whether the signature covers the bytes, for stores that insist: SHA-256 over all of them,
    /// which have to be in memory for it where the source is not mapped.
    pub(crate) sign: bool,
    /// Who is told of the bytes as they leave.
    pub(crate) flow: Flow,
}

/// A part the store has acknowledged.
#[derive(Debug, Clone)]
pub(crate) struct PartReceipt {
    pub(crate) number: u32,
    pub(crate) etag: String,
    pub(crate) digest: Option<Digest>,
}

/// What the store answered to the request that made the object.
#[derive(Debug, Clone, Default)]
pub(crate) struct Receipt {
    pub(crate) etag: Option<String>,
    pub(crate) version_id: Option<String>,
    pub(crate) checksums: Vec<Checksum>,
    pub(crate) encryption: Option<String>,
}

/// Sets the header of the digest's algorithm; MD5 goes as `Content-MD5`.
macro_rules! with_digest {
    ($request:expr, $digest:expr) => {{
        let value = $digest.to_base64();
        match $digest.algorithm() {
            Algorithm::Crc32 => $request.checksum_crc32(value),
            Algorithm::Crc32c => $request.checksum_crc32_c(value),
            Algorithm::Crc64Nvme => $request.checksum_crc64_nvme(value),
            Algorithm::Sha1 => $request.checksum_sha1(value),
            Algorithm::Sha256 => $request.checksum_sha256(value),
            Algorithm::Md5 => $request.content_md5(value),
        }
    }};
}

impl Calls {
    /// Stores an object in one request.
    pub(crate) async fn put(
        &self,
        url: &S3Url,
        payload: Payload,
        options: &UploadOptions,
    ) -> Result<Receipt> {
        let request = self.client(url.bucket()).put_object().bucket(url.bucket()).key(url.key());
        let request = with_attributes_on_put(request, options)
            .set_if_none_match(options.if_none_match.then(|| "*".to_owned()))
            .content_length(payload.content.len_bytes().try_into().unwrap_or(i64::MAX));
        let digest = payload.digest;
        let request = match digest {
            Some(digest) => with_digest!(request, digest),
            None => request,
        };
        let target = url.to_string();
        let reply = self
            .send_body(&target, payload, |body, on_its_way| {
                let request = request.body(body).customize();
                let request = if on_its_way.is_signed() {
                    request
                } else {
                    request.disable_payload_signing()
                };
                let request = request.interceptor(on_its_way);
                async { request.send().await.map_err(|e| refused(UPLOAD, &target, digest, e)) }
            })
            .await?;
        // A store's every answer has one; what has none may be a login page with status 200.
        let Some(etag) = some_etag(reply.e_tag()) else {
            let detail = "the answer has no ETag, so nothing tells that the object was stored";
            return Err(Error::new(ErrorKind::Rejected, UPLOAD, target, detail)
                .advise("check that the endpoint is an S3 store's"));
        };
        Ok(Receipt {
            etag: Some(etag.to_owned()),
            version_id: version_of(reply.version_id()),
            checksums: checksums_of!(&reply),
            encryption: encryption_of(
                reply.sse_customer_algorithm(),
                reply.server_side_encryption(),
            ),
        })
    }

    /// Begins a multipart upload and gives its id.
    pub(crate) async fn create_multipart(
        &self,
        url: &S3Url,
        checksum: Option<(Algorithm, ChecksumType)>,
        token: &str,
        options: &UploadOptions,
    ) -> Result<String> {
        const OPERATION: &str = "begin the upload to";
        let request =
            self.client(url.bucket()).create_multipart_upload().bucket(url.bucket()).key(url.key());
        let mut request = with_attributes_on_create(request, options).metadata(TOKEN_NAME, token);
        if let Some((algorithm, kind)) = checksum.filter(|(a, _)| *a != Algorithm::Md5) {
            request = request
                .checksum_algorithm(ChecksumAlgorithm::from(
                    algorithm.name().to_uppercase().as_str(),
                ))
                .checksum_type(kind.name().into());
        }
        let target = url.to_string();
        let answer = async {
            request.send().await.map_err(|error| match checksum {
                Some((algorithm, _)) => refused_checksum(OPERATION, &target, algorithm, error),
                None => classify(OPERATION, &target, error),
            })
        };
        let reply = self.answered(OPERATION, &target, answer).await?;
        reply.upload_id().filter(|id| !id.is_empty()).map(str::to_owned).ok_or_else(|| {
            Error::new(ErrorKind::ServerFailure, OPERATION, target, "the store gave no upload id")
        })
    }

    /// Stores one part.
    pub(crate) async fn upload_part(
        &self,
        url: &S3Url,
        upload_id: &str,
        number: u32,
        payload: Payload,
        options: &UploadOptions,
    ) -> Result<PartReceipt> {
        let request = self
            .client(url.bucket())
            .upload_part()
            .bucket(url.bucket())
            .key(url.key())
            .upload_id(upload_id)
            .part_number(number.try_into().unwrap_or(i32::MAX))
            .content_length(payload.content.len_bytes().try_into().unwrap_or(i64::MAX));
        let request = with_customer_key!(request, customer_key(options));
        let digest = payload.digest;
        let request = match digest {
            Some(digest) => with_digest!(request, digest),
            None => request,
        };
        let target = url.to_string();
        let reply = self
            .send_body(&target, payload, |body, on_its_way| {
                let request = request.body(body).customize();
                let request = if on_its_way.is_signed() {
                    request
                } else {
                    request.disable_payload_signing()
                };
                let request = request.interceptor(on_its_way);
                async { request.send().await.map_err(|e| refused(UPLOAD, &target, digest, e)) }
            })
            .await?;
        match some_etag(reply.e_tag()) {
            Some(etag) => Ok(PartReceipt { number, etag: etag.to_owned(), digest }),
            None => Err(Error::new(
                ErrorKind::Rejected,
                UPLOAD,
                target,
                format!("the store acknowledged part {number} without an ETag"),
            )
            .advise("nothing can be completed without it; report it to the store's makers")),
        }
    }

    /// Puts the object together. `checksum` is of the whole object; `size_bytes` is sent where the
    /// store checks it.
    pub(crate) async fn complete_multipart(
        &self,
        url: &S3Url,
        upload_id: &str,
        parts: &[PartReceipt],
        checksum: Option<&Checksum>,
        size_bytes: Option<u64>,
        options: &UploadOptions,
    ) -> Result<Receipt> {
        const OPERATION: &str = "complete the upload to";
        let listed = parts.iter().map(completed_part).collect();
        let request = self
            .client(url.bucket())
            .complete_multipart_upload()
            .bucket(url.bucket())
            .key(url.key())
            .upload_id(upload_id)
            .set_mpu_object_size(size_bytes.and_then(|size| i64::try_from(size).ok()))
            .set_if_none_match(options.if_none_match.then(|| "*".to_owned()))
            .multipart_upload(CompletedMultipartUpload::builder().set_parts(Some(listed)).build());
        let request = with_customer_key!(request, customer_key(options));
        let request = match checksum {
            Some(Checksum { kind: ChecksumType::FullObject, digest, .. }) => {
                let value = digest.to_base64();
                let request = request.checksum_type(ChecksumType::FullObject.name().into());
                match digest.algorithm() {
                    Algorithm::Crc32 => request.checksum_crc32(value),
                    Algorithm::Crc32c => request.checksum_crc32_c(value),
                    Algorithm::Crc64Nvme => request.checksum_crc64_nvme(value),
                    // S3 has no full-object form of the others for parts.
                    Algorithm::Sha1 | Algorithm::Sha256 | Algorithm::Md5 => request,
                }
            }
            _ => request,
        };
        let target = url.to_string();
        let answer = async { request.send().await.map_err(|e| classify(OPERATION, &target, e)) };
        let limit = COMPLETE_TIMEOUT.max(self.stall_timeout);
        let reply = answered_within(limit, OPERATION, &target, answer).await?;
        if some_etag(reply.e_tag()).is_none() {
            return Err(Error::new(
                ErrorKind::ServerFailure,
                OPERATION,
                target,
                "the store's answer names no object",
            ));
        }
        Ok(Receipt {
            etag: reply.e_tag().map(str::to_owned),
            version_id: version_of(reply.version_id()),
            checksums: checksums_of!(&reply),
            encryption: encryption_of(None, reply.server_side_encryption()),
        })
    }

    /// Gives up a multipart upload; one that is gone already is fine.
    pub(crate) async fn abort_multipart(&self, url: &S3Url, upload_id: &str) -> Result<()> {
        const OPERATION: &str = "abort the upload to";
        let request = self
            .client(url.bucket())
            .abort_multipart_upload()
            .bucket(url.bucket())
            .key(url.key())
            .upload_id(upload_id);
        let target = url.to_string();
        let answer = async {
            match request.send().await {
                Ok(_) => Ok(()),
                Err(error) if error.code() == Some("NoSuchUpload") => Ok(()),
                Err(error) => Err(classify(OPERATION, &target, error)),
            }
        };
        self.answered(OPERATION, &target, answer).await
    }

    /// Sends the payload with the request that `send` makes of a body, watched for stalls, and takes
    /// back what was told as moved if the attempt fails. The body comes with what has to be put into
    /// the request for it to be watched.
    async fn send_body<T, F>(
        &self,
        target: &str,
        payload: Payload,
        send: impl FnOnce(ByteStream, OnItsWay) -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let content = match payload.digest {
            Some(_) => payload.content,
            None => payload.content.unmapped(),
        };
        let watch = Watch::new(payload.flow.clone(), content.len_bytes());
        let mut told = Told { watch: &watch, flow: &payload.flow, counts: false };
        let sending = if payload.sign {
            let bytes = content.to_bytes()?;
            send(ByteStream::from(bytes.clone()), OnItsWay::new(Some(bytes), &watch))
        } else {
            send(watched(content.clone(), &watch), OnItsWay::new(None, &watch))
        };
        // The sending first: an answer that is there counts, however late this task gets to run.
        let result = tokio::select! {
            biased;
            result = sending => result,
            () = watch.stalled(self.stall_timeout) => {
                Err(stalled(UPLOAD, target, self.stall_timeout))
            }
        };
        // A store's answer to half a body tells nothing, not even that it took it.
        let result = match watch.take_failure() {
            Some(failure) => Err(failure),
            None => result.map_err(|error| content.blame(error)),
        };
        if result.is_ok() {
            watch.answered();
            told.count();
        }
        result
    }
}

/// Takes back what was told as moved by an attempt that failed, or that is no longer wanted.
struct Told<'a> {
    watch: &'a Watch,
    flow: &'a Flow,
    counts: bool,
}

impl Told<'_> {
    fn count(&mut self) {
        self.counts = true;
    }
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        let bytes = self.watch.moved_bytes();
        if !self.counts && bytes > 0 {
            self.flow.events().emit(|| Event::Rewound { bytes });
        }
    }
}

/// An `ETag` that says something: an empty one, quoted or not, is none.
pub(super) fn some_etag(told: Option<&str>) -> Option<&str> {
    told.filter(|etag| !etag.trim_matches('"').is_empty())
}

/// What a refusal of bytes that came with `digest` means.
fn refused<E>(
    operation: &'static str,
    target: &str,
    digest: Option<Digest>,
    failure: SdkError<E, HttpResponse>,
) -> Error
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    let error = match digest {
        Some(digest) => refused_checksum(operation, target, digest.algorithm(), failure),
        None => classify(operation, target, failure),
    };
    if error.kind() == ErrorKind::Integrity {
        return error.remedied_by(Some(Remedy::SendAgain));
    }
    error
}

/// The same for a request that named `algorithm`: stores that don't know a checksum's header refuse
/// the request as a whole, and rarely say why.
fn refused_checksum<E>(
    operation: &'static str,
    target: &str,
    algorithm: Algorithm,
    failure: SdkError<E, HttpResponse>,
) -> Error
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    let error = classify(operation, target, failure);
    // Content-MD5 is older than checksums and known everywhere.
    if error.may_be_of_a_header() && algorithm != Algorithm::Md5 {
        error.advise(format!(
            "if the store knows no {algorithm} checksums, use --checksum-algorithm md5, or \
             checksums = \"none\" in a store profile"
        ))
    } else {
        error
    }
}

pub(super) fn customer_key(options: &UploadOptions) -> Option<&CustomerKey> {
    match &options.encryption {
        Encryption::Customer(key) => Some(key),
        _ => None,
    }
}

pub(super) fn encryption_of(
    customer: Option<&str>,
    sse: Option<&ServerSideEncryption>,
) -> Option<String> {
    match customer {
        Some(_) => Some("SSE-C".to_owned()),
        None => sse.map(|sse| sse.as_str().to_owned()),
    }
}

fn completed_part(part: &PartReceipt) -> CompletedPart {
    let listed = CompletedPart::builder()
        .part_number(part.number.try_into().unwrap_or(i32::MAX))
        .e_tag(&part.etag);
    let listed = match part.digest {
        Some(digest) => {
            let value = digest.to_base64();
            match digest.algorithm() {
                Algorithm::Crc32 => listed.checksum_crc32(value),
                Algorithm::Crc32c => listed.checksum_crc32_c(value),
                Algorithm::Crc64Nvme => listed.checksum_crc64_nvme(value),
                Algorithm::Sha1 => listed.checksum_sha1(value),
                Algorithm::Sha256 => listed.checksum_sha256(value),
                Algorithm::Md5 => listed,
            }
        }
        None => listed,
    };
    listed.build()
}

/// What the requests that make objects take alike; the SDK gives them no common trait.
macro_rules! with_attributes {
    ($name:ident, $builder:ty) => {
        pub(super) fn $name(request: $builder, options: &UploadOptions) -> $builder {
            let (sse, kms_key) = match &options.encryption {
                Encryption::BucketDefault | Encryption::Customer(_) => (None, None),
                Encryption::S3 => (Some(ServerSideEncryption::Aes256), None),
                Encryption::Kms { key_id } => (Some(ServerSideEncryption::AwsKms), key_id.clone()),
            };
            let metadata: &BTreeMap<String, String> = &options.metadata;
            let headers = &options.headers;
            let expires = headers.expires.as_deref();
            let request = request
                .set_content_type(options.content_type.clone())
                .set_cache_control(headers.cache_control.clone())
                .set_content_disposition(headers.content_disposition.clone())
                .set_content_encoding(headers.content_encoding.clone())
                .set_content_language(headers.content_language.clone())
                // What is no date could not be sent as one.
                .set_expires(
                    expires.and_then(|at| DateTime::from_str(at, DateFormat::HttpDate).ok()),
                )
                .set_tagging(tagging(&options.tags))
                .set_storage_class(options.storage_class.as_deref().map(StorageClass::from))
                .set_metadata(Some(metadata.iter().map(|(k, v)| (k.clone(), v.clone())).collect()))
                .set_server_side_encryption(sse)
                .set_ssekms_key_id(kms_key);
            with_customer_key!(request, customer_key(options))
        }
    };
}
with_attributes!(with_attributes_on_put, PutObjectFluentBuilder);
with_attributes!(with_attributes_on_create, CreateMultipartUploadFluentBuilder);
with_attributes!(with_attributes_on_copy, CopyObjectFluentBuilder);
