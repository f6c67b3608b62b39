//! Listings of every version of a bucket's objects, and of the markers that deletions left.

use std::time::SystemTime;

use aws_sdk_s3::types::EncodingType;

use super::Calls;
use super::uploads::{decoded, unlisted};
use crate::error::Result;
use crate::limits::StoreProfile;
use crate::transport::info::unsigned;

/// What such a listing is called in messages.
pub(crate) const LIST_VERSIONS: &str = "list the versions in";

/// A version of an object, or the marker that says that its key was deleted, as a listing tells of it.
///
/// ```no_run
/// # async fn run(bucket: brigade::Bucket) -> brigade::Result<()> {
/// use futures::TryStreamExt;
///
/// let mut versions = bucket.list_versions("logs/");
/// while let Some(version) = versions.try_next().await? {
///     println!("{} {:?}", version.key, version.version_id);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ObjectVersion {
    /// The object's key.
    pub key: String,
    /// The version's id; `null` for one from before the bucket kept versions.
    pub version_id: Option<String>,
    /// Payload bytes; 0 for a marker.
    pub size_bytes: u64,
    /// When it was written, by the store's clock.
    pub modified: Option<SystemTime>,
    /// Whether it is the key's newest.
    pub is_latest: bool,
    /// Whether it only says that the key was deleted.
    pub is_delete_marker: bool,
    /// Its storage class; unset means `STANDARD`, or that the store does not say.
    pub storage_class: Option<String>,
}

/// Where a page begins: behind this version of this key, or behind all of the key's where it names none.
pub(crate) type Marker = (String, Option<String>);

/// One page of versions.
#[derive(Debug)]
pub(crate) struct VersionsPage {
    /// By key; those of one key from the newest to the oldest, as far as their times tell.
    pub(crate) versions: Vec<ObjectVersion>,
    /// Where the next page begins; `None` at the end.
    pub(crate) next: Option<Marker>,
    /// Whether there is more, although the store does not say where.
    pub(crate) is_cut: bool,
}

impl Calls {
    /// The versions of keys that begin with `prefix`, behind `after`.
    pub(crate) async fn list_versions(
        &self,
        bucket: &str,
        prefix: &str,
        profile: &StoreProfile,
        after: Option<&Marker>,
    ) -> Result<VersionsPage> {
        let request = self
            .client(bucket)
            .list_object_versions()
            .bucket(bucket)
            .set_prefix((!prefix.is_empty()).then(|| prefix.to_owned()))
            .max_keys(profile.list_page_size.try_into().unwrap_or(i32::MAX))
            // XML cannot hold every character that a key can.
            .set_encoding_type(profile.list_encoding.then_some(EncodingType::Url))
            .set_key_marker(after.map(|(key, _)| key.clone()))
            .set_version_id_marker(after.and_then(|(_, id)| id.clone()));
        let target = format!("s3://{bucket}/{prefix}");
        let refused = |e| unlisted(LIST_VERSIONS, &target, e).naming("s3:ListBucketVersions");
        let answer = async { request.send().await.map_err(refused) };
        let reply = self.answered(LIST_VERSIONS, &target, answer).await?;
        // Keys are encoded only where the store says that it did.
        let is_encoded = reply.encoding_type() == Some(&EncodingType::Url);
        let plain = |text: String| if is_encoded { decoded(&text) } else { text };
        let time = |at: Option<aws_smithy_types::DateTime>| {
            at.and_then(|at| SystemTime::try_from(at).ok())
        };
        let is_truncated = reply.is_truncated.unwrap_or(false);
        let next = reply.next_key_marker.filter(|key| is_truncated && !key.is_empty()).map(plain);
        let version = reply.next_version_id_marker.filter(|id| !id.is_empty());
        let next = next.map(|key| (key, version));
        let kept = reply.versions.unwrap_or_default().into_iter().filter_map(|version| {
            Some(ObjectVersion {
                key: plain(version.key?),
                version_id: version.version_id.filter(|id| !id.is_empty()),
                size_bytes: unsigned(version.size),
                modified: time(version.last_modified),
                is_latest: version.is_latest.unwrap_or(false),
                is_delete_marker: false,
                storage_class: version.storage_class.map(|class| class.as_str().to_owned()),
            })
        });
        let markers = reply.delete_markers.unwrap_or_default().into_iter().filter_map(|marker| {
            Some(ObjectVersion {
                key: plain(marker.key?),
                version_id: marker.version_id.filter(|id| !id.is_empty()),
                size_bytes: 0,
                modified: time(marker.last_modified),
                is_latest: marker.is_latest.unwrap_or(false),
                is_delete_marker: true,
                storage_class: None,
            })
        });
        let all = kept.chain(markers);
        // Some stores take the prefix for a hint.
        let mut versions: Vec<_> = all.filter(|version| version.key.starts_with(prefix)).collect();
        versions.sort_by(|a, b| {
            let newest_first = (b.is_latest, b.modified).cmp(&(a.is_latest, a.modified));
            a.key.cmp(&b.key).then(newest_first)
        });
        Ok(VersionsPage { versions, is_cut: is_truncated && next.is_none(), next })
    }
}
