//! What the store remembers of an object, an upload and a part, besides the bytes.
//!
//! The same records serve all backends; the folder backend writes them as JSON. `format` counts up with
//! every change an older reader would misread.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use s3s::dto::Timestamp;
use serde::{Deserialize, Serialize};

use crate::checksum::{Algorithm, Kind, Sum};

/// The version of the records written now.
pub(crate) const FORMAT: u32 = 1;

/// An object, as committed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ObjectRecord {
    pub(crate) format: u32,
    pub(crate) key: String,
    pub(crate) size_bytes: u64,
    /// Without quotes.
    pub(crate) etag: String,
    pub(crate) modified: Moment,
    /// Usually one.
    pub(crate) checksums: Vec<Sum>,
    pub(crate) checksum_kind: Kind,
    /// In order; empty for an object that was not a multipart upload.
    #[serde(default)]
    pub(crate) parts: Vec<PartOfObject>,
    /// The multipart upload that made it: answers a repeated `CompleteMultipartUpload`.
    #[serde(default)]
    pub(crate) upload_id: Option<String>,
    pub(crate) attributes: Attributes,
}

impl ObjectRecord {
    /// The parts' sizes in bytes.
    pub(crate) fn part_sizes(&self) -> Vec<u64> {
        self.parts.iter().map(|part| part.size_bytes).collect()
    }
}

/// What remains of a part once its upload is complete.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PartOfObject {
    pub(crate) number: u32,
    pub(crate) size_bytes: u64,
    /// Kept for `COMPOSITE` objects only, as S3 does.
    #[serde(default)]
    pub(crate) checksums: Vec<Sum>,
}

/// An unfinished multipart upload.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct UploadRecord {
    pub(crate) format: u32,
    pub(crate) bucket: String,
    pub(crate) key: String,
    pub(crate) id: String,
    pub(crate) initiated: Moment,
    /// The algorithm named at the create; `None` where the client left it to the store.
    pub(crate) algorithm: Option<Algorithm>,
    pub(crate) checksum_kind: Kind,
    pub(crate) attributes: Attributes,
}

/// An uploaded part of an unfinished upload.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PartRecord {
    pub(crate) number: u32,
    pub(crate) size_bytes: u64,
    /// Without quotes.
    pub(crate) etag: String,
    pub(crate) modified: Moment,
    pub(crate) checksums: Vec<Sum>,
}

impl PartRecord {
    pub(crate) fn sum(&self, algorithm: Algorithm) -> Option<&Sum> {
        self.checksums.iter().find(|sum| sum.algorithm == algorithm)
    }
}

/// The headers an object is stored and answered with.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Attributes {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) content_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cache_control: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) content_disposition: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) content_encoding: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) content_language: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) expires: Option<Moment>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) metadata: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) storage_class: Option<String>,
    /// `AES256`, `aws:kms` and so on: echoed, nothing is encrypted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) encryption: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kms_key_id: Option<String>,
    /// MD5 of the customer's key, in base64; the key itself is never kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) customer_key_md5: Option<String>,
    /// As sent: `key=value&...`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tagging: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) website_redirect: Option<String>,
}

/// A point in time, in milliseconds since 1970: what S3 shows of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Moment {
    unix_ms: u64,
}

impl Moment {
    pub(crate) fn now() -> Self {
        SystemTime::now().into()
    }

    pub(crate) const fn from_unix_ms(unix_ms: u64) -> Self {
        Self { unix_ms }
    }

    /// Whole seconds since 1970: the precision of HTTP's dates, which conditions compare.
    pub(crate) fn seconds(self) -> u64 {
        self.unix_ms / 1000
    }
}

impl From<SystemTime> for Moment {
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { unix_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX) }
    }
}

impl From<Moment> for Timestamp {
    fn from(moment: Moment) -> Self {
        Timestamp::from(UNIX_EPOCH + Duration::from_millis(moment.unix_ms))
    }
}

impl From<Timestamp> for Moment {
    fn from(timestamp: Timestamp) -> Self {
        let ms = time::OffsetDateTime::from(timestamp).unix_timestamp_nanos() / 1_000_000;
        Self { unix_ms: u64::try_from(ms).unwrap_or(0) }
    }
}
