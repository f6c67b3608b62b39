//! What a store tells of an object, in the engine's own types.

use std::collections::BTreeMap;
use std::time::SystemTime;

use aws_sdk_s3::operation::get_object_attributes::GetObjectAttributesOutput;
use aws_sdk_s3::operation::head_object::HeadObjectOutput;

use crate::integrity::{Algorithm, Checksum, ChecksumType, Md5ETag};
use crate::options::ContentHeaders;

/// No upload has more parts (Amazon S3 User Guide, "Multipart upload limits").
pub(super) const MAX_PARTS: u32 = 10_000;

/// An object as a HEAD request shows it.
///
/// ```no_run
/// # async fn run(object: brigade::Object) -> brigade::Result<()> {
/// let info = object.info().await?;
/// println!("{} bytes, {} checksums", info.size_bytes, info.checksums.len());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ObjectInfo {
    /// Payload bytes.
    pub size_bytes: u64,
    /// The `ETag` as the store wrote it, quotes included.
    pub etag: Option<String>,
    /// The version, where the bucket keeps versions.
    pub version_id: Option<String>,
    /// When it was last written, by the store's clock.
    pub last_modified: Option<SystemTime>,
    /// Its media type.
    pub content_type: Option<String>,
    /// Its storage class; unset means `STANDARD`.
    pub storage_class: Option<String>,
    /// What else describes the content.
    pub headers: ContentHeaders,
    /// User metadata.
    pub metadata: BTreeMap<String, String>,
    /// How many tags it has, where the store says so: only to who may read them.
    pub tag_count: Option<u32>,
    /// The checksums the store recorded, as far as this crate knows their algorithms.
    pub checksums: Vec<Checksum>,
    /// The type the store declared for them, if it did.
    pub checksum_type: Option<ChecksumType>,
    /// `aws:kms`, `AES256` and so on, or `SSE-C` for a customer's key.
    pub encryption: Option<String>,
    /// The key in KMS that it is encrypted with.
    pub kms_key_id: Option<String>,
}

impl ObjectInfo {
    /// `None` where the answer has no size: the object's length is what every range is cut from.
    pub(in crate::transport) fn of_head(head: &HeadObjectOutput) -> Option<Self> {
        let size_bytes = u64::try_from(head.content_length()?).ok()?;
        let declared = head.checksum_type().and_then(|kind| ChecksumType::named(kind.as_str()));
        let values = [
            (Algorithm::Crc32, head.checksum_crc32()),
            (Algorithm::Crc32c, head.checksum_crc32_c()),
            (Algorithm::Crc64Nvme, head.checksum_crc64_nvme()),
            (Algorithm::Sha1, head.checksum_sha1()),
            (Algorithm::Sha256, head.checksum_sha256()),
        ];
        let encryption = match head.sse_customer_algorithm() {
            Some(_) => Some("SSE-C".to_owned()),
            None => head.server_side_encryption().map(|sse| sse.as_str().to_owned()),
        };
        Some(Self {
            size_bytes,
            etag: head.e_tag().map(str::to_owned),
            version_id: version_of(head.version_id()),
            last_modified: head.last_modified().and_then(|time| SystemTime::try_from(*time).ok()),
            content_type: head.content_type().map(str::to_owned),
            storage_class: head.storage_class().map(|class| class.as_str().to_owned()),
            headers: ContentHeaders {
                cache_control: head.cache_control().map(str::to_owned),
                content_disposition: head.content_disposition().map(str::to_owned),
                content_encoding: head.content_encoding().map(str::to_owned),
                content_language: head.content_language().map(str::to_owned),
                expires: head.expires_string().map(str::to_owned),
            },
            tag_count: head.tag_count().and_then(|count| u32::try_from(count).ok()),
            kms_key_id: head.ssekms_key_id().map(str::to_owned),
            metadata: head.metadata().into_iter().flatten().map(owned).collect(),
            checksums: parse_all(&values, declared),
            checksum_type: declared,
            encryption,
        })
    }

    /// How many parts it was uploaded in, as far as the `ETag` tells: S3 and most stores end it in
    /// `-N`. An opaque one may end so by chance, hence never more than a hint.
    pub fn parts(&self) -> Option<u32> {
        let etag = self.etag.as_deref()?.trim_matches('"');
        let count = etag.rsplit_once('-')?.1.parse().ok()?;
        (1..=MAX_PARTS).contains(&count).then_some(count)
    }

    /// The `ETag`, if it looks like an MD5 and can be one: encryption with a key of KMS or the
    /// customer makes it something else.
    pub(crate) fn md5_etag(&self) -> Option<Md5ETag> {
        self.etag.as_deref().and_then(Md5ETag::parse)
    }

    /// Whether the `ETag` can be the MD5 that it looks like.
    pub(crate) fn etag_may_be_md5(&self) -> bool {
        !matches!(self.encryption.as_deref(), Some("aws:kms" | "aws:kms:dsse" | "SSE-C"))
    }
}

/// The version a reply names. Buckets without versions answer "null" on some stores, which names none
/// and which some of them refuse when asked for it.
pub(super) fn version_of(told: Option<&str>) -> Option<String> {
    told.filter(|id| *id != "null").map(str::to_owned)
}

/// Values that don't read as checksums are passed over: they can prove nothing.
pub(in crate::transport) fn parse_all(
    values: &[(Algorithm, Option<&str>)],
    declared: Option<ChecksumType>,
) -> Vec<Checksum> {
    values
        .iter()
        .filter_map(|(algorithm, text)| Checksum::parse(*algorithm, (*text)?, declared).ok())
        .collect()
}

/// The sizes of an object's parts as `GetObjectAttributes` lists them, one page at a time.
pub(in crate::transport) struct PartSizesPage {
    pub(in crate::transport) sizes: Vec<u64>,
    pub(in crate::transport) next: Option<String>,
}

impl PartSizesPage {
    pub(in crate::transport) fn of(output: &GetObjectAttributesOutput) -> Self {
        let Some(parts) = output.object_parts() else {
            return Self { sizes: Vec::new(), next: None };
        };
        let truncated = parts.is_truncated().unwrap_or(false);
        Self {
            sizes: parts.parts().iter().map(|part| unsigned(part.size())).collect(),
            next: parts.next_part_number_marker().filter(|_| truncated).map(str::to_owned),
        }
    }
}

/// A part's size. The model has signed ones; a negative one would be a broken store's and reads as
/// nothing.
pub(in crate::transport) fn unsigned(size: Option<i64>) -> u64 {
    size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0)
}

fn owned((name, value): (&String, &String)) -> (String, String) {
    (name.clone(), value.clone())
}
