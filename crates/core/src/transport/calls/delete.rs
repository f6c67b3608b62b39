//! Requests that delete objects: many in one, or one.
//!
//! `DeleteObjects` answers with success and tells inside of it which keys failed, so a success of the
//! request is not one of its keys: every failure that the answer tells of is matched with what was asked,
//! and an answer that cannot be matched counts for nothing. What cannot stand in XML, or comes out of it as
//! another key, does not go this way: deleting the wrong object is worse than a request more.

use std::collections::HashMap;

use aws_sdk_s3::config::http::HttpRequest;
use aws_sdk_s3::types::{ChecksumAlgorithm, Delete, ObjectIdentifier};
use base64::Engine as _;
use md5::{Digest as _, Md5};

use super::Calls;
use crate::error::{Error, ErrorKind, Result};
use crate::integrity::Algorithm;
use crate::limits::{ChecksumSupport, StoreProfile};
use crate::transport::classify::{classify, of_key};
use crate::url::S3Url;

/// What deleting is called in messages.
pub(crate) const DELETE: &str = "delete";

/// The permissions it takes.
const PERMISSION: &str = "s3:DeleteObject";
const VERSION_PERMISSION: &str = "s3:DeleteObjectVersion";

/// An object to delete: a key, and one of its versions where only that is meant.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Named {
    pub(crate) key: String,
    pub(crate) version_id: Option<String>,
}

/// The checksum that goes with the list of keys: S3 takes no such list without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeleteSum {
    /// A `Content-MD5`, which has been taken, and asked for, since there are such requests.
    Md5,
    /// The header of the algorithm.
    Crc32,
    Crc32c,
}

/// A key that was not deleted.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// Where in the list that was asked for it stands.
    pub(crate) index: usize,
    pub(crate) error: Error,
}

impl Named {
    /// Whether the key comes out of XML as it went in, wherever it is read. Control characters cannot
    /// stand in XML, line ends are changed, and blanks around a text are lost to many readers.
    pub(crate) fn fits_xml(&self) -> bool {
        let is_plain =
            |c: char| !c.is_control() && !matches!(c, '\u{2028}' | '\u{fffe}' | '\u{ffff}');
        self.key.chars().all(is_plain) && self.key.trim() == self.key && !self.key.is_empty()
    }
}

impl DeleteSum {
    /// The one that a store of this profile takes for certain. Lists of keys came with `Content-MD5`
    /// everywhere; stores that check whole-object checksums, as AWS does, know the newer header too.
    pub(crate) fn of(profile: &StoreProfile) -> Self {
        match (profile.checksums, profile.default_checksum) {
            (ChecksumSupport::FullObject, Some(Algorithm::Crc32)) => Self::Crc32,
            (ChecksumSupport::FullObject, Some(Algorithm::Crc32c)) => Self::Crc32c,
            _ => Self::Md5,
        }
    }

    /// What to try when a store refuses a list that came with this one.
    pub(crate) fn other(self) -> Self {
        match self {
            Self::Md5 => Self::Crc32,
            Self::Crc32 | Self::Crc32c => Self::Md5,
        }
    }
}

impl Calls {
    /// Deletes all of `objects`, 1,000 at most, and tells which were not deleted.
    pub(crate) async fn delete_many(
        &self,
        bucket: &str,
        objects: &[Named],
        sum: DeleteSum,
    ) -> Result<Vec<Refusal>> {
        let target = format!("s3://{bucket}");
        let list = objects.iter().map(|object| {
            let listed = ObjectIdentifier::builder().key(&object.key);
            listed.set_version_id(object.version_id.clone()).build()
        });
        let list = list.collect::<Result<Vec<_>, _>>().and_then(|list| {
            // Only failures are told then.
            Delete::builder().set_objects(Some(list)).quiet(true).build()
        });
        let list = list.map_err(|source| {
            Error::new(ErrorKind::InvalidInput, DELETE, &target, source.to_string())
        })?;
        let request = self.client(bucket).delete_objects().bucket(bucket).delete(list);
        let request = match sum {
            DeleteSum::Crc32 => request.checksum_algorithm(ChecksumAlgorithm::Crc32).customize(),
            DeleteSum::Crc32c => request.checksum_algorithm(ChecksumAlgorithm::Crc32C).customize(),
            DeleteSum::Md5 => request.customize().mutate_request(with_md5_alone),
        };
        let answer = async {
            request.send().await.map_err(|e| classify(DELETE, &target, e).naming(PERMISSION))
        };
        let reply = self.answered(DELETE, &target, answer).await?;
        let mut places: HashMap<(&str, Option<&str>), usize> = HashMap::new();
        // Most answers tell of no failure.
        if !reply.errors().is_empty() {
            let named = objects.iter().enumerate();
            places.extend(named.map(|(at, it)| ((it.key.as_str(), it.version_id.as_deref()), at)));
        }
        let refusal = |told: &aws_sdk_s3::types::Error| {
            let key = told.key().unwrap_or_default();
            // Some stores tell a version where none was asked for, others none where one was.
            let version = told.version_id().filter(|id| !id.is_empty());
            let place = [version, None].into_iter().find_map(|version| places.get(&(key, version)));
            let Some(index) = place.copied() else { return Err(unmatched(&target, key)) };
            let url = S3Url::of(bucket, key).to_string();
            let permission = permission_for(&objects[index]);
            let error = of_key(DELETE, &url, told.code(), told.message()).naming(permission);
            Ok(Refusal { index, error })
        };
        reply.errors().iter().map(refusal).collect()
    }

    /// Deletes one object. One that is not there is a success on most stores.
    pub(crate) async fn delete(&self, bucket: &str, object: &Named) -> Result<()> {
        let request = self
            .client(bucket)
            .delete_object()
            .bucket(bucket)
            .key(&object.key)
            .set_version_id(object.version_id.clone());
        let target = S3Url::of(bucket, object.key.as_str()).to_string();
        let refused = |e| classify(DELETE, &target, e).naming(permission_for(object));
        let answer = async { request.send().await.map(drop).map_err(refused) };
        self.answered(DELETE, &target, answer).await
    }
}

fn permission_for(object: &Named) -> &'static str {
    if object.version_id.is_some() { VERSION_PERMISSION } else { PERMISSION }
}

/// The whole answer is worth nothing then: some other key failed, and nobody knows which.
fn unmatched(target: &str, key: &str) -> Error {
    let detail =
        format!("the store tells of a failure of {key:?}, which it was not asked to delete");
    Error::new(ErrorKind::Rejected, DELETE, target, detail)
}

/// The SDK knows checksums' headers only, and puts one there where there is none.
fn with_md5_alone(request: &mut HttpRequest) {
    let Some(sum) = request.body().bytes().map(Md5::digest) else { return };
    let value = base64::engine::general_purpose::STANDARD.encode(sum);
    let headers = request.headers_mut();
    for name in ["x-amz-checksum-crc32", "x-amz-sdk-checksum-algorithm"] {
        headers.remove(name);
    }
    headers.insert("content-md5", value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_keys_that_survive_xml_go_into_lists() {
        let fits = |key: &str| Named { key: key.to_owned(), version_id: None }.fits_xml();
        for key in ["a", "a b", "a//b", "../x", "/x", "ü/😀", "<&>'\"", "a\u{fffd}"] {
            assert!(fits(key), "{key:?}");
        }
        for key in
            ["", " a", "a ", "a\tb", "a\nb", "a\r", "\u{1}", "a\u{7f}", "\u{85}x", "x\u{ffff}"]
        {
            assert!(!fits(key), "{key:?}");
        }
    }

    #[test]
    fn a_list_goes_with_the_checksum_that_its_store_takes() {
        for (name, sum) in [
            ("aws", DeleteSum::Crc32),
            ("minio", DeleteSum::Crc32),
            ("generic", DeleteSum::Md5),
            ("oci", DeleteSum::Md5),
            ("b2", DeleteSum::Md5),
        ] {
            let profile = StoreProfile::named(name).expect("built in");
            assert_eq!(DeleteSum::of(&profile), sum, "{name}");
            assert_ne!(sum.other(), sum);
        }
    }
}
