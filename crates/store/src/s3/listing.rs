//! Listings: objects and unfinished uploads, in pages.
//!
//! Keys come in the binary order of their UTF-8, which is the order of Rust's strings. With a delimiter, all
//! keys that share a prefix up to it become one entry, and the scan jumps behind them.

use std::ops::Bound;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use s3s::dto::{
    CommonPrefix, EncodingType, ListMultipartUploadsInput, ListMultipartUploadsOutput,
    ListObjectsInput, ListObjectsOutput, ListObjectsV2Input, ListObjectsV2Output,
    MultipartUpload as UploadEntry, Object as ObjectEntry, StorageClass,
};
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result};

use super::{Api, buckets, signed, signed_count};
use crate::etag;
use crate::index::{Bucket, Index, Object, Walk};
use crate::upload::Upload;

/// Entries of one page, at most.
const PAGE: usize = 1000;

impl Api {
    pub(super) fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = request.input;
        let bucket = self.index.bucket(&input.bucket)?;
        let after = match (&input.continuation_token, &input.start_after) {
            (Some(token), _) => After::from_token(token)?,
            (None, Some(key)) => After::Key(key.clone()),
            (None, None) => After::Nothing,
        };
        let query =
            Query::new(input.prefix.as_deref(), input.delimiter.as_deref(), input.max_keys)?;
        let page = scan(&self.index, &bucket, &query, &after);
        let text = Text::new(input.encoding_type.as_ref());
        let owner = input.fetch_owner.unwrap_or(false);
        Ok(S3Response::new(ListObjectsV2Output {
            name: Some(input.bucket),
            prefix: Some(text.of(input.prefix.unwrap_or_default())),
            delimiter: input.delimiter.map(|delimiter| text.of(delimiter)),
            start_after: input.start_after.map(|key| text.of(key)),
            continuation_token: input.continuation_token,
            next_continuation_token: page.next.as_ref().map(After::token),
            is_truncated: Some(page.next.is_some()),
            key_count: Some(signed_count(page.objects.len() + page.prefixes.len())),
            max_keys: Some(signed_count(query.limit)),
            contents: Some(page.objects.iter().map(|object| entry(object, text, owner)).collect()),
            common_prefixes: Some(common_prefixes(page.prefixes, text)),
            encoding_type: input.encoding_type,
            ..Default::default()
        }))
    }

    pub(super) fn list_objects(
        &self,
        request: S3Request<ListObjectsInput>,
    ) -> S3Result<S3Response<ListObjectsOutput>> {
        let input = request.input;
        let bucket = self.index.bucket(&input.bucket)?;
        let query =
            Query::new(input.prefix.as_deref(), input.delimiter.as_deref(), input.max_keys)?;
        let after = After::from_marker(input.marker.as_deref(), &query);
        let page = scan(&self.index, &bucket, &query, &after);
        let text = Text::new(input.encoding_type.as_ref());
        Ok(S3Response::new(ListObjectsOutput {
            name: Some(input.bucket),
            prefix: Some(text.of(input.prefix.unwrap_or_default())),
            marker: Some(text.of(input.marker.unwrap_or_default())),
            delimiter: input.delimiter.map(|delimiter| text.of(delimiter)),
            next_marker: page.next.map(|next| text.of(next.into_key())),
            is_truncated: Some(page.truncated),
            max_keys: Some(signed_count(query.limit)),
            contents: Some(page.objects.iter().map(|object| entry(object, text, true)).collect()),
            common_prefixes: Some(common_prefixes(page.prefixes, text)),
            encoding_type: input.encoding_type,
            ..Default::default()
        }))
    }

    pub(super) fn list_multipart_uploads(
        &self,
        request: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        let input = request.input;
        let bucket = self.index.bucket(&input.bucket)?;
        let query =
            Query::new(input.prefix.as_deref(), input.delimiter.as_deref(), input.max_uploads)?;
        let key_marker = input.key_marker.clone().unwrap_or_default();
        let id_marker = input.upload_id_marker.clone().unwrap_or_default();
        let skip_group = After::from_marker(input.key_marker.as_deref(), &query);
        let mut uploads: Vec<Arc<Upload>> = Vec::new();
        let mut prefixes: Vec<String> = Vec::new();
        let mut last = None;
        let mut truncated = false;
        for upload in bucket.uploads() {
            let (key, id) = (&upload.record.key, &upload.record.id);
            let listed = *key < key_marker
                || (*key == key_marker && (id_marker.is_empty() || *id <= id_marker))
                || matches!(&skip_group, After::Group(group) if key.starts_with(group));
            if listed || !key.starts_with(&query.prefix) {
                continue;
            }
            let group = query.group(key);
            if group.is_some() && group == prefixes.last().map(String::as_str) {
                continue;
            }
            if uploads.len() + prefixes.len() == query.limit {
                truncated = true;
                break;
            }
            if let Some(group) = group {
                last = Some((group.to_owned(), String::new()));
                prefixes.push(group.to_owned());
            } else {
                last = Some((key.clone(), id.clone()));
                uploads.push(upload);
            }
        }
        let text = Text::new(input.encoding_type.as_ref());
        let (next_key, next_id) = last.filter(|_| truncated).unzip();
        Ok(S3Response::new(ListMultipartUploadsOutput {
            bucket: Some(input.bucket),
            prefix: Some(text.of(input.prefix.unwrap_or_default())),
            delimiter: input.delimiter.map(|delimiter| text.of(delimiter)),
            key_marker: Some(text.of(key_marker)),
            upload_id_marker: Some(id_marker),
            next_key_marker: next_key.map(|key| text.of(key)),
            next_upload_id_marker: next_id,
            is_truncated: Some(truncated),
            max_uploads: Some(signed_count(query.limit)),
            uploads: Some(uploads.iter().map(|upload| upload_entry(upload, text)).collect()),
            common_prefixes: Some(common_prefixes(prefixes, text)),
            encoding_type: input.encoding_type,
            ..Default::default()
        }))
    }
}

/// Which keys are listed.
struct Query {
    prefix: String,
    delimiter: Option<String>,
    limit: usize,
}

/// Where a page begins.
#[derive(Debug, PartialEq, Eq)]
enum After {
    Nothing,
    /// Behind this key.
    Key(String),
    /// Behind all keys with this prefix.
    Group(String),
}

struct Page {
    objects: Vec<Arc<Object>>,
    prefixes: Vec<String>,
    truncated: bool,
    next: Option<After>,
}

impl Query {
    fn new(prefix: Option<&str>, delimiter: Option<&str>, limit: Option<i32>) -> S3Result<Self> {
        let limit = usize::try_from(limit.unwrap_or(1000)).map_err(|_| {
            S3Error::with_message(
                S3ErrorCode::InvalidArgument,
                "Argument maxKeys must be an integer between 0 and 2147483647",
            )
        })?;
        Ok(Self {
            prefix: prefix.unwrap_or_default().to_owned(),
            delimiter: delimiter.filter(|delimiter| !delimiter.is_empty()).map(str::to_owned),
            limit: limit.min(PAGE),
        })
    }

    /// The common prefix a key is listed as: up to and with the first delimiter behind the prefix.
    fn group<'a>(&self, key: &'a str) -> Option<&'a str> {
        let delimiter = self.delimiter.as_deref()?;
        let at = key[self.prefix.len()..].find(delimiter)?;
        Some(&key[..self.prefix.len() + at + delimiter.len()])
    }
}

impl After {
    /// Tokens say whether they name a key or a group: `a/` may be either.
    fn token(&self) -> String {
        let (mark, text) = match self {
            Self::Nothing => ("n", ""),
            Self::Key(key) => ("k", key.as_str()),
            Self::Group(group) => ("g", group.as_str()),
        };
        URL_SAFE_NO_PAD.encode(format!("{mark}{text}"))
    }

    fn from_token(token: &str) -> S3Result<Self> {
        let parse = || {
            let text = String::from_utf8(URL_SAFE_NO_PAD.decode(token).ok()?).ok()?;
            match text.split_at_checked(1)? {
                ("n", "") => Some(Self::Nothing),
                ("k", key) => Some(Self::Key(key.to_owned())),
                ("g", group) => Some(Self::Group(group.to_owned())),
                _ => None,
            }
        };
        parse().ok_or_else(|| {
            S3Error::with_message(
                S3ErrorCode::InvalidArgument,
                "The continuation token provided is incorrect",
            )
        })
    }

    /// The markers of the older listings are plain: one that is itself a group was listed as that.
    fn from_marker(marker: Option<&str>, query: &Query) -> Self {
        match marker {
            None | Some("") => Self::Nothing,
            Some(marker)
                if marker.starts_with(&query.prefix) && query.group(marker) == Some(marker) =>
            {
                Self::Group(marker.to_owned())
            }
            Some(marker) => Self::Key(marker.to_owned()),
        }
    }

    fn into_key(self) -> String {
        match self {
            Self::Nothing => String::new(),
            Self::Key(key) | Self::Group(key) => key,
        }
    }
}

fn scan(index: &Index, bucket: &Bucket, query: &Query, after: &After) -> Page {
    let mut page = Page { objects: Vec::new(), prefixes: Vec::new(), truncated: false, next: None };
    if query.limit == 0 {
        return page;
    }
    let behind_group;
    let from = match after {
        After::Key(key) if *key >= query.prefix => Bound::Excluded(key.as_str()),
        After::Group(group) if *group >= query.prefix => {
            behind_group = behind(group);
            Bound::Included(behind_group.as_str())
        }
        _ => Bound::Included(query.prefix.as_str()),
    };
    let mut last = After::Nothing;
    let skipped = match after {
        After::Group(group) => Some(group.as_str()),
        _ => None,
    };
    index.walk(bucket, from, |key, object| {
        if !key.starts_with(&query.prefix) {
            return Walk::Stop;
        }
        let group = query.group(key);
        if let Some(group) = group
            && (page.prefixes.last().map(String::as_str) == Some(group) || skipped == Some(group))
        {
            // Only keys that begin with the highest character come here: jumping stops short of them.
            return Walk::On;
        }
        if page.objects.len() + page.prefixes.len() == query.limit {
            page.truncated = true;
            return Walk::Stop;
        }
        if let Some(group) = group {
            page.prefixes.push(group.to_owned());
            last = After::Group(group.to_owned());
            return Walk::SkipTo(behind(group));
        }
        page.objects.push(Arc::clone(object));
        last = After::Key(key.to_owned());
        Walk::On
    });
    page.next = page.truncated.then_some(last);
    page
}

/// A key behind all others with this prefix, but for those that go on with the highest character there is.
fn behind(prefix: &str) -> String {
    format!("{prefix}{}", char::MAX)
}

/// How keys are written: as they are, or percent-encoded where the client asked for that.
#[derive(Clone, Copy)]
struct Text {
    encoded: bool,
}

impl Text {
    fn new(encoding: Option<&EncodingType>) -> Self {
        Self { encoded: encoding.is_some_and(|encoding| encoding.as_str() == EncodingType::URL) }
    }

    fn of(self, text: String) -> String {
        if self.encoded { percent_encode(&text) } else { text }
    }
}

/// Percent-encodes all but unreserved characters and `/`.
pub(super) fn percent_encode(text: &str) -> String {
    use std::fmt::Write;
    text.bytes().fold(String::with_capacity(text.len()), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-_.~/".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}

/// Undoes percent-encoding; what is not encoded properly stays as it is.
pub(super) fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = (bytes[at] == b'%')
            .then(|| {
                text.get(at + 1..at + 3).and_then(|digits| u8::from_str_radix(digits, 16).ok())
            })
            .flatten();
        decoded.push(escaped.unwrap_or(bytes[at]));
        at += if escaped.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

fn entry(object: &Object, text: Text, with_owner: bool) -> ObjectEntry {
    let record = &object.record;
    let class = record.attributes.storage_class.clone();
    let algorithms = record.checksums.iter().map(|sum| sum.algorithm.name().to_owned().into());
    ObjectEntry {
        key: Some(text.of(record.key.clone())),
        e_tag: Some(etag::to_dto(&record.etag)),
        last_modified: Some(record.modified.into()),
        size: Some(signed(record.size_bytes)),
        storage_class: Some(class.unwrap_or_else(|| StorageClass::STANDARD.to_owned()).into()),
        checksum_algorithm: Some(algorithms.collect()),
        checksum_type: (!record.checksums.is_empty())
            .then(|| record.checksum_kind.name().to_owned().into()),
        owner: with_owner.then(buckets::owner),
        ..Default::default()
    }
}

fn upload_entry(upload: &Upload, text: Text) -> UploadEntry {
    let record = &upload.record;
    let class = record.attributes.storage_class.clone();
    UploadEntry {
        key: Some(text.of(record.key.clone())),
        upload_id: Some(record.id.clone()),
        initiated: Some(record.initiated.into()),
        checksum_algorithm: record.algorithm.map(|algorithm| algorithm.name().to_owned().into()),
        checksum_type: record.algorithm.map(|_| record.checksum_kind.name().to_owned().into()),
        storage_class: Some(class.unwrap_or_else(|| StorageClass::STANDARD.to_owned()).into()),
        initiator: Some(buckets::initiator()),
        owner: Some(buckets::owner()),
    }
}

fn common_prefixes(prefixes: Vec<String>, text: Text) -> Vec<CommonPrefix> {
    prefixes.into_iter().map(|prefix| CommonPrefix { prefix: Some(text.of(prefix)) }).collect()
}
