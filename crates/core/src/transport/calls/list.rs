//! Listings: one page of a bucket's keys, and the buckets of an account.

use std::time::SystemTime;

use aws_sdk_s3::types::{EncodingType, ObjectStorageClass};

use super::Calls;
use super::uploads::{decoded, unlisted};
use crate::error::Result;
use crate::transport::classify::classify;
use crate::transport::direct::canonical_query;
use crate::transport::info::unsigned;

/// What a listing is called in messages.
pub(crate) const LIST: &str = "list";

/// Which keys are asked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct ListQuery {
    pub(crate) bucket: String,
    pub(crate) prefix: String,
    /// Keys that go on behind the next one of it, after the prefix, are told as one prefix.
    pub(crate) delimiter: Option<String>,
    /// Keys of one page, if not as many as the store gives.
    pub(crate) page_size: Option<u32>,
    /// Whether keys are to be written as in URLs: XML cannot hold every character that a key can.
    pub(crate) encoded: bool,
}

/// Where a page begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PageStart {
    /// Behind this key.
    After(String),
    /// Where the page ended that gave this token.
    Token(String),
}

/// An object as a listing tells of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ListedObject {
    pub(crate) key: String,
    pub(crate) size_bytes: u64,
    pub(crate) modified: Option<SystemTime>,
    pub(crate) etag: Option<String>,
    /// Unset for `STANDARD`.
    pub(crate) storage_class: Option<String>,
}

/// One page, as the store gave it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ListPage {
    pub(crate) objects: Vec<ListedObject>,
    pub(crate) prefixes: Vec<String>,
    /// Whether there is more.
    pub(crate) is_truncated: bool,
    /// Where the next page begins.
    pub(crate) token: Option<String>,
}

/// A bucket as an account's listing tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListedBucket {
    pub(crate) name: String,
    pub(crate) created: Option<SystemTime>,
}

impl ListQuery {
    /// The parameters of a request, as they are sent.
    fn parameters(&self, start: Option<&PageStart>) -> String {
        let page_size = self.page_size.map(|size| size.to_string());
        let (after, token) = match start {
            None => (None, None),
            Some(PageStart::After(key)) => (Some(key.as_str()), None),
            Some(PageStart::Token(token)) => (None, Some(token.as_str())),
        };
        let parameters = [
            ("list-type", Some("2")),
            ("prefix", Some(self.prefix.as_str()).filter(|prefix| !prefix.is_empty())),
            ("delimiter", self.delimiter.as_deref()),
            ("max-keys", page_size.as_deref()),
            ("encoding-type", self.encoded.then_some("url")),
            ("start-after", after),
            ("continuation-token", token),
        ];
        let given = parameters.into_iter().filter_map(|(name, value)| Some((name, value?)));
        canonical_query(&mut given.collect::<Vec<_>>())
    }
}

impl Calls {
    /// One page of the keys that `query` asks for: the short way where that is known, and whenever that
    /// comes to nothing, the SDK's.
    pub(crate) async fn list(
        &self,
        query: &ListQuery,
        start: Option<&PageStart>,
    ) -> Result<ListPage> {
        let direct = self.direct(&query.bucket).filter(|direct| direct.knows(&query.bucket));
        if let Some(direct) = direct
            && let Ok(page) = direct.list(&query.bucket, &query.parameters(start)).await
        {
            return Ok(page);
        }
        self.list_through_sdk(query, start).await
    }

    async fn list_through_sdk(
        &self,
        query: &ListQuery,
        start: Option<&PageStart>,
    ) -> Result<ListPage> {
        let (after, token) = match start {
            None => (None, None),
            Some(PageStart::After(key)) => (Some(key.clone()), None),
            Some(PageStart::Token(token)) => (None, Some(token.clone())),
        };
        let request = self
            .client(&query.bucket)
            .list_objects_v2()
            .bucket(&query.bucket)
            .set_prefix((!query.prefix.is_empty()).then(|| query.prefix.clone()))
            .set_delimiter(query.delimiter.clone())
            .set_max_keys(query.page_size.and_then(|size| i32::try_from(size).ok()))
            .set_encoding_type(query.encoded.then_some(EncodingType::Url))
            .set_start_after(after)
            .set_continuation_token(token);
        let target = format!("s3://{}/{}", query.bucket, query.prefix);
        let refused = |e| unlisted(LIST, &target, e).naming("s3:ListBucket");
        let answer = async { request.send().await.map_err(refused) };
        let reply = self.answered(LIST, &target, answer).await?;
        // Keys are encoded only where the store says that it did.
        let is_encoded = reply.encoding_type() == Some(&EncodingType::Url);
        let plain = |text: String| if is_encoded { decoded(&text) } else { text };
        let token = reply.next_continuation_token.filter(|token| !token.is_empty());
        let is_truncated = reply.is_truncated.unwrap_or(token.is_some());
        let objects = reply.contents.unwrap_or_default().into_iter().filter_map(|object| {
            Some(ListedObject {
                key: plain(object.key?),
                size_bytes: unsigned(object.size),
                modified: object.last_modified.and_then(|at| SystemTime::try_from(at).ok()),
                etag: object.e_tag.filter(|etag| !etag.is_empty()),
                storage_class: object
                    .storage_class
                    .filter(|class| !matches!(class, ObjectStorageClass::Standard))
                    .map(|class| class.as_str().to_owned()),
            })
        });
        let prefixes = reply.common_prefixes.unwrap_or_default().into_iter();
        Ok(ListPage {
            objects: objects.collect(),
            prefixes: prefixes.filter_map(|it| it.prefix.map(plain)).collect(),
            is_truncated,
            token,
        })
    }

    /// The buckets of the account, behind `token` of an earlier page, and the next one's token.
    pub(crate) async fn buckets(
        &self,
        token: Option<&str>,
    ) -> Result<(Vec<ListedBucket>, Option<String>)> {
        const TARGET: &str = "the buckets";
        let request = self.client("").list_buckets().set_continuation_token(token.map(Into::into));
        let refused = |e| classify(LIST, TARGET, e).naming("s3:ListAllMyBuckets");
        let answer = async { request.send().await.map_err(refused) };
        let reply = self.answered(LIST, TARGET, answer).await?;
        let buckets = reply.buckets.unwrap_or_default().into_iter().filter_map(|bucket| {
            let created = bucket.creation_date.and_then(|at| SystemTime::try_from(at).ok());
            Some(ListedBucket { name: bucket.name?, created })
        });
        Ok((buckets.collect(), reply.continuation_token.filter(|token| !token.is_empty())))
    }
}
