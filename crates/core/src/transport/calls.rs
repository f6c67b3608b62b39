//! The requests themselves: one method each, from the engine's types to S3's and back.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::operation::create_multipart_upload::builders::CreateMultipartUploadFluentBuilder;
use aws_sdk_s3::operation::put_object::builders::PutObjectFluentBuilder;
use aws_sdk_s3::types::{
    ChecksumAlgorithm, ChecksumMode, CompletedMultipartUpload, CompletedPart, ObjectAttributes,
    ServerSideEncryption, StorageClass,
};
use aws_smithy_types::byte_stream::ByteStream;
use bytes::Bytes;

use super::body::{Watch, watched};
use super::classify::classify;
use super::info::{ObjectInfo, PartSizesPage, parse_all, unsigned};
use crate::error::{Error, ErrorKind, Result};
use crate::integrity::{Algorithm, Checksum, ChecksumType, Digest};
use crate::options::{CustomerKey, Encryption, UploadOptions};
use crate::progress::Emitter;
use crate::url::S3Url;

/// S3's calls over one lane's connections.
#[derive(Debug, Clone)]
pub(crate) struct Calls {
    client: Client,
    stall_timeout: Duration,
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

/// The bytes of an upload request, and what goes with them.
#[derive(Debug, Clone)]
pub(crate) struct Payload {
    pub(crate) bytes: Bytes,
    pub(crate) digest: Option<Digest>,
    /// Whether the signature covers the bytes, for stores that insist: SHA-256 over all of them.
    pub(crate) sign: bool,
}

/// An answered range, its body still to be read.
pub(crate) struct Range {
    body: ByteStream,
    stall_timeout: Duration,
    target: String,
}

/// Which object, exactly, a range is asked of.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pin {
    pub(crate) etag: Option<String>,
    pub(crate) version_id: Option<String>,
    pub(crate) customer_key: Option<CustomerKey>,
}

/// Sets the three SSE-C headers on a request that takes them.
macro_rules! with_customer_key {
    ($request:expr, $key:expr) => {{
        let key: Option<&CustomerKey> = $key;
        $request
            .set_sse_customer_algorithm(key.map(|_| "AES256".to_owned()))
            .set_sse_customer_key(key.map(CustomerKey::to_base64))
            .set_sse_customer_key_md5(key.map(CustomerKey::md5_base64))
    }};
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

/// The checksums in any reply that can hold all five.
macro_rules! checksums_of {
    ($reply:expr) => {{
        let reply = $reply;
        let declared = reply.checksum_type().and_then(|kind| ChecksumType::named(kind.as_str()));
        parse_all(
            &[
                (Algorithm::Crc32, reply.checksum_crc32()),
                (Algorithm::Crc32c, reply.checksum_crc32_c()),
                (Algorithm::Crc64Nvme, reply.checksum_crc64_nvme()),
                (Algorithm::Sha1, reply.checksum_sha1()),
                (Algorithm::Sha256, reply.checksum_sha256()),
            ],
            declared,
        )
    }};
}

impl Calls {
    pub(super) fn new(client: Client, stall_timeout: Duration) -> Self {
        Self { client, stall_timeout }
    }

    /// Asks whether the bucket is there. Also the cheapest way to learn what a store calls itself.
    pub(crate) async fn head_bucket(&self, bucket: &str) -> Result<()> {
        let sent = self.client.head_bucket().bucket(bucket).send();
        sent.await.map(drop).map_err(|e| classify("look at", &format!("s3://{bucket}"), e))
    }

    /// Makes a bucket; one that this account owns already is fine.
    pub(crate) async fn create_bucket(&self, bucket: &str) -> Result<()> {
        match self.client.create_bucket().bucket(bucket).send().await {
            Ok(_) => Ok(()),
            Err(error) if error.code() == Some("BucketAlreadyOwnedByYou") => Ok(()),
            Err(error) => Err(classify("make", &format!("s3://{bucket}"), error)),
        }
    }

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
        let request = self
            .client
            .head_object()
            .bucket(url.bucket())
            .key(url.key())
            .set_version_id(pin.version_id.clone())
            .set_if_match(pin.etag.clone())
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

    /// Stores an object in one request.
    pub(crate) async fn put(
        &self,
        url: &S3Url,
        payload: Payload,
        options: &UploadOptions,
    ) -> Result<Receipt> {
        let request = self.client.put_object().bucket(url.bucket()).key(url.key());
        let request = with_attributes_on_put(request, options)
            .set_if_none_match(options.if_none_match.then(|| "*".to_owned()))
            .content_length(payload.bytes.len().try_into().unwrap_or(i64::MAX));
        let request = match payload.digest {
            Some(digest) => with_digest!(request, digest),
            None => request,
        };
        let target = url.to_string();
        let reply = self
            .send_body(&target, payload, &options.events, |body, sign| {
                let request = request.body(body).customize();
                let request = if sign { request } else { request.disable_payload_signing() };
                async { request.send().await.map_err(|e| classify("upload to", &target, e)) }
            })
            .await?;
        Ok(Receipt {
            etag: reply.e_tag().map(str::to_owned),
            version_id: reply.version_id().map(str::to_owned),
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
        let request = self.client.create_multipart_upload().bucket(url.bucket()).key(url.key());
        let mut request = with_attributes_on_create(request, options).metadata(TOKEN_NAME, token);
        if let Some((algorithm, kind)) = checksum.filter(|(a, _)| *a != Algorithm::Md5) {
            request = request
                .checksum_algorithm(ChecksumAlgorithm::from(
                    algorithm.name().to_uppercase().as_str(),
                ))
                .checksum_type(kind.name().into());
        }
        let target = url.to_string();
        let reply = request.send().await.map_err(|e| classify(OPERATION, &target, e))?;
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
            .client
            .upload_part()
            .bucket(url.bucket())
            .key(url.key())
            .upload_id(upload_id)
            .part_number(number.try_into().unwrap_or(i32::MAX))
            .content_length(payload.bytes.len().try_into().unwrap_or(i64::MAX));
        let request = with_customer_key!(request, customer_key(options));
        let digest = payload.digest;
        let request = match digest {
            Some(digest) => with_digest!(request, digest),
            None => request,
        };
        let target = url.to_string();
        let reply = self
            .send_body(&target, payload, &options.events, |body, sign| {
                let request = request.body(body).customize();
                let request = if sign { request } else { request.disable_payload_signing() };
                async { request.send().await.map_err(|e| classify("upload to", &target, e)) }
            })
            .await?;
        match reply.e_tag() {
            Some(etag) => Ok(PartReceipt { number, etag: etag.to_owned(), digest }),
            None => Err(Error::new(
                ErrorKind::Rejected,
                "upload to",
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
            .client
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
        // No stall time-out: a store may take minutes to put the parts together.
        let reply = request.send().await.map_err(|e| classify(OPERATION, &target, e))?;
        if reply.e_tag().is_none_or(str::is_empty) {
            return Err(Error::new(
                ErrorKind::ServerFailure,
                OPERATION,
                target,
                "the store's answer names no object",
            ));
        }
        Ok(Receipt {
            etag: reply.e_tag().map(str::to_owned),
            version_id: reply.version_id().map(str::to_owned),
            checksums: checksums_of!(&reply),
            encryption: encryption_of(None, reply.server_side_encryption()),
        })
    }

    /// Gives up a multipart upload; one that is gone already is fine.
    pub(crate) async fn abort_multipart(&self, url: &S3Url, upload_id: &str) -> Result<()> {
        let request = self
            .client
            .abort_multipart_upload()
            .bucket(url.bucket())
            .key(url.key())
            .upload_id(upload_id);
        match request.send().await {
            Ok(_) => Ok(()),
            Err(error) if error.code() == Some("NoSuchUpload") => Ok(()),
            Err(error) => Err(classify("abort the upload to", &url.to_string(), error)),
        }
    }

    /// Whether the upload still exists, parts or none.
    pub(crate) async fn upload_exists(&self, url: &S3Url, upload_id: &str) -> Result<bool> {
        let request = self
            .client
            .list_parts()
            .bucket(url.bucket())
            .key(url.key())
            .upload_id(upload_id)
            .max_parts(1);
        match request.send().await {
            Ok(_) => Ok(true),
            Err(error) if error.code() == Some("NoSuchUpload") => Ok(false),
            Err(error) => Err(classify("list the parts of", &url.to_string(), error)),
        }
    }

    /// Sends the payload with the request that `send` makes of a body, watched for stalls, and takes
    /// back what was told as moved if the attempt fails.
    async fn send_body<T, F>(
        &self,
        target: &str,
        payload: Payload,
        events: &Emitter,
        send: impl FnOnce(ByteStream, bool) -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let watch = Watch::new(events.clone());
        // A payload that is to be hashed for the signature must lie in memory as one piece.
        let body = if payload.sign {
            ByteStream::from(payload.bytes)
        } else {
            watched(payload.bytes, &watch)
        };
        let sending = send(body, payload.sign);
        let result = tokio::select! {
            result = sending => result,
            () = watch.stalled(self.stall_timeout) => Err(self.stalled("upload to", target)),
        };
        if result.is_err() {
            let bytes = watch.moved_bytes();
            if bytes > 0 {
                events.emit(|| crate::progress::Event::Rewound { bytes });
            }
        }
        result
    }

    async fn answered_in_time<T>(
        &self,
        operation: &'static str,
        target: &str,
        answer: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        match tokio::time::timeout(self.stall_timeout, answer).await {
            Ok(result) => result,
            Err(_) => Err(self.stalled(operation, target)),
        }
    }

    fn stalled(&self, operation: &'static str, target: &str) -> Error {
        stalled(operation, target, self.stall_timeout)
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
                let detail = super::connect::describe(&error);
                Err(Error::new(ErrorKind::Unreachable, OPERATION, &self.target, detail)
                    .caused_by(error))
            }
            Err(_) => Err(stalled(OPERATION, &self.target, self.stall_timeout)),
        }
    }
}

/// The metadata entry that tells an upload of ours from anybody else's: when the answer to the
/// completion is lost, the object's own token says whose object is there.
pub(crate) const TOKEN_NAME: &str = "brigade-token";

fn stalled(operation: &'static str, target: &str, limit: Duration) -> Error {
    let detail = format!("no bytes moved for {} s", limit.as_secs());
    Error::new(ErrorKind::Unreachable, operation, target, detail)
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

fn customer_key(options: &UploadOptions) -> Option<&CustomerKey> {
    match &options.encryption {
        Encryption::Customer(key) => Some(key),
        _ => None,
    }
}

fn encryption_of(customer: Option<&str>, sse: Option<&ServerSideEncryption>) -> Option<String> {
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

/// What `PutObject` and `CreateMultipartUpload` take alike; the SDK gives them no common trait.
macro_rules! with_attributes {
    ($name:ident, $builder:ty) => {
        fn $name(request: $builder, options: &UploadOptions) -> $builder {
            let (sse, kms_key) = match &options.encryption {
                Encryption::BucketDefault | Encryption::Customer(_) => (None, None),
                Encryption::S3 => (Some(ServerSideEncryption::Aes256), None),
                Encryption::Kms { key_id } => (Some(ServerSideEncryption::AwsKms), key_id.clone()),
            };
            let metadata: &BTreeMap<String, String> = &options.metadata;
            let request = request
                .set_content_type(options.content_type.clone())
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
