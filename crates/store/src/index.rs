//! Names: which buckets, objects and unfinished uploads there are.
//!
//! The whole index is in memory, in key order, whatever the backend: a listing is a range scan and a
//! condition is checked and acted upon under one lock. Writers of one key take turns on one of a bucket's
//! [`STRIPES`] locks, which they may hold while they wait for a disk; the lock over the objects themselves is
//! held for moments only, so reads never wait for a write to reach the disk.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::ops::Bound;
use std::sync::{Arc, Mutex, RwLock};

use s3s::dto::ETagCondition;
use s3s::{S3Error, S3ErrorCode, S3Result};

use crate::locks::{lock, read, write};
use crate::record::{Moment, ObjectRecord};
use crate::storage::{Content, Source, Storage};
use crate::upload::Upload;

/// Locks that writers of a bucket share. More than the connections of a busy client, so that writers of
/// different keys rarely meet.
const STRIPES: usize = 256;

/// All buckets, and the backend their bytes lie in.
pub(crate) struct Index {
    pub(crate) storage: Box<dyn Storage>,
    buckets: RwLock<BTreeMap<String, Arc<Bucket>>>,
}

/// A bucket's names.
pub(crate) struct Bucket {
    pub(crate) name: String,
    pub(crate) created: Moment,
    objects: RwLock<BTreeMap<String, Arc<Object>>>,
    uploads: RwLock<BTreeMap<(String, String), Arc<Upload>>>,
    stripes: Vec<Mutex<()>>,
    hasher: RandomState,
    /// Set once the bucket was deleted; held for reading by every write.
    gone: RwLock<bool>,
}

/// A committed object.
#[derive(Debug)]
pub(crate) struct Object {
    pub(crate) record: ObjectRecord,
    pub(crate) content: Content,
}

/// What must be true of a key for a write to it to happen.
#[derive(Clone, Debug, Default)]
pub(crate) struct WriteCondition {
    pub(crate) if_match: Option<ETagCondition>,
    pub(crate) if_none_match: Option<ETagCondition>,
}

impl Index {
    pub(crate) fn new(storage: Box<dyn Storage>) -> Self {
        Self { storage, buckets: RwLock::default() }
    }

    pub(crate) fn bucket(&self, name: &str) -> S3Result<Arc<Bucket>> {
        read(&self.buckets).get(name).cloned().ok_or_else(no_such_bucket)
    }

    pub(crate) fn buckets(&self) -> Vec<Arc<Bucket>> {
        read(&self.buckets).values().cloned().collect()
    }

    /// Unfinished uploads, in all buckets.
    pub(crate) fn unfinished_uploads(&self) -> usize {
        self.buckets().iter().map(|bucket| read(&bucket.uploads).len()).sum()
    }

    /// Creates a bucket; its name was checked.
    pub(crate) fn create_bucket(&self, name: &str) -> S3Result<()> {
        let mut buckets = write(&self.buckets);
        if buckets.contains_key(name) {
            return Err(S3Error::with_message(
                S3ErrorCode::BucketAlreadyOwnedByYou,
                "Your previous request to create the named bucket succeeded and you already own it.",
            ));
        }
        let bucket = Bucket::new(name, Moment::now());
        self.storage.keep_bucket(name, bucket.created).map_err(S3Error::internal_error)?;
        buckets.insert(name.to_owned(), Arc::new(bucket));
        Ok(())
    }

    /// Deletes an empty bucket, and with it its unfinished uploads.
    pub(crate) fn delete_bucket(&self, name: &str) -> S3Result<()> {
        let bucket = self.bucket(name)?;
        let mut gone = write(&bucket.gone);
        if *gone {
            return Err(no_such_bucket());
        }
        if !read(&bucket.objects).is_empty() {
            return Err(S3Error::with_message(
                S3ErrorCode::BucketNotEmpty,
                "The bucket you tried to delete is not empty",
            ));
        }
        for upload in std::mem::take(&mut *write(&bucket.uploads)).into_values() {
            upload.close();
            self.storage.drop_upload(&upload.record.id).map_err(S3Error::internal_error)?;
        }
        self.storage.drop_bucket(name).map_err(S3Error::internal_error)?;
        *gone = true;
        write(&self.buckets).remove(name);
        Ok(())
    }

    /// Takes over what a durable backend held.
    pub(crate) fn restore(&self, bucket: Bucket) {
        write(&self.buckets).insert(bucket.name.clone(), Arc::new(bucket));
    }

    /// The object of a key, real or virtual.
    pub(crate) fn object(&self, bucket: &Bucket, key: &str) -> S3Result<Arc<Object>> {
        if let Some(object) = read(&bucket.objects).get(key) {
            return Ok(Arc::clone(object));
        }
        self.virtual_object(key).ok_or_else(no_such_key)
    }

    /// The object of a key, opened for reading: record and source are of the same object, whatever happens
    /// to the key meanwhile.
    pub(crate) fn open(&self, bucket: &Bucket, key: &str) -> S3Result<(Arc<Object>, Source)> {
        let objects = read(&bucket.objects);
        let object = match objects.get(key) {
            Some(object) => Arc::clone(object),
            None => self.virtual_object(key).ok_or_else(no_such_key)?,
        };
        let source = self.storage.open(&object.content).map_err(S3Error::internal_error)?;
        Ok((object, source))
    }

    /// Commits an object under its key, if the condition holds. Waits for the disk with a durable backend.
    pub(crate) fn put(
        &self,
        bucket: &Bucket,
        record: ObjectRecord,
        content: Content,
        condition: &WriteCondition,
    ) -> S3Result<Arc<Object>> {
        let gone = read(&bucket.gone);
        if *gone {
            return Err(no_such_bucket());
        }
        let _turn = lock(bucket.stripe(&record.key));
        condition.check(bucket.existing(&record.key).as_deref().map(|object| &object.record))?;
        let (storage, name) = (&self.storage, &bucket.name);
        storage.prepare(name, &record, &content).map_err(S3Error::internal_error)?;
        let (object, replaced) = {
            let mut objects = write(&bucket.objects);
            let content =
                storage.publish(name, &record, content).map_err(S3Error::internal_error)?;
            let object = Arc::new(Object { record, content });
            let replaced = objects.insert(object.record.key.clone(), Arc::clone(&object));
            (object, replaced)
        };
        if let Some(replaced) = replaced {
            let new = Some(&object.content);
            storage
                .retire(name, &object.record.key, &replaced.content, new)
                .map_err(S3Error::internal_error)?;
        }
        Ok(object)
    }

    /// Deletes a key. Deleting what is not there succeeds.
    pub(crate) fn delete(
        &self,
        bucket: &Bucket,
        key: &str,
        if_match: Option<&ETagCondition>,
    ) -> S3Result<()> {
        let _turn = lock(bucket.stripe(key));
        if let Some(expected) = if_match {
            let condition =
                WriteCondition { if_match: Some(expected.clone()), if_none_match: None };
            condition.check(bucket.existing(key).as_deref().map(|object| &object.record))?;
        }
        let removed = write(&bucket.objects).remove(key);
        removed.map_or(Ok(()), |object| {
            self.storage
                .retire(&bucket.name, key, &object.content, None)
                .map_err(S3Error::internal_error)
        })
    }

    /// Walks a bucket's keys in order from `from` on, until `visit` asks to stop or to go on elsewhere.
    pub(crate) fn walk(
        &self,
        bucket: &Bucket,
        from: Bound<&str>,
        mut visit: impl FnMut(&str, &Arc<Object>) -> Walk,
    ) {
        let objects = read(&bucket.objects);
        let mut from: Bound<String> = from.map(str::to_owned);
        loop {
            let made = self.pretended_from(from.as_ref().map(String::as_str));
            let mut made = made.peekable();
            let mut put = objects.range((from, Bound::Unbounded)).peekable();
            let jump = loop {
                let next = match (put.peek(), made.peek()) {
                    (None, None) => return,
                    (Some((key, _)), Some(virtual_one)) => key.cmp(&&virtual_one.record.key),
                    (Some(_), None) => Ordering::Less,
                    (None, Some(_)) => Ordering::Greater,
                };
                // What was put takes the place of what is pretended.
                let virtual_one = if next.is_ge() { made.next() } else { None };
                let put_one = if next.is_le() { put.next() } else { None };
                let object = match (put_one, &virtual_one) {
                    (Some((_, object)), _) | (None, Some(object)) => object,
                    (None, None) => return,
                };
                match visit(&object.record.key, object) {
                    Walk::On => {}
                    Walk::Stop => return,
                    Walk::SkipTo(next) => break next,
                }
            };
            from = Bound::Included(jump);
        }
    }

    fn pretended_from<'a>(
        &'a self,
        from: Bound<&str>,
    ) -> impl Iterator<Item = Arc<Object>> + use<'a> {
        let pretended = self.storage.pretended();
        let first = pretended.map_or(0, |pretended| pretended.first_from(from));
        // They differ in nothing but their keys.
        let one = pretended.and_then(|it| self.virtual_object(&it.key(first)));
        let all = pretended.into_iter().flat_map(move |it| first..it.objects);
        all.filter_map(move |index| {
            let one = one.as_deref()?;
            let record = ObjectRecord { key: pretended?.key(index), ..one.record.clone() };
            Some(Arc::new(Object { record, content: one.content.clone() }))
        })
    }

    fn virtual_object(&self, key: &str) -> Option<Arc<Object>> {
        let (record, content) = self.storage.virtual_object(key)?;
        Some(Arc::new(Object { record, content }))
    }
}

impl Bucket {
    pub(crate) fn new(name: &str, created: Moment) -> Self {
        Self {
            name: name.to_owned(),
            created,
            objects: RwLock::default(),
            uploads: RwLock::default(),
            stripes: (0..STRIPES).map(|_| Mutex::new(())).collect(),
            hasher: RandomState::new(),
            gone: RwLock::new(false),
        }
    }

    /// The object that was put under a key; virtual ones do not count.
    pub(crate) fn existing(&self, key: &str) -> Option<Arc<Object>> {
        read(&self.objects).get(key).cloned()
    }

    pub(crate) fn add_upload(&self, upload: Arc<Upload>) -> S3Result<()> {
        let gone = read(&self.gone);
        if *gone {
            return Err(no_such_bucket());
        }
        let name = (upload.record.key.clone(), upload.record.id.clone());
        write(&self.uploads).insert(name, upload);
        Ok(())
    }

    pub(crate) fn upload(&self, key: &str, id: &str) -> Option<Arc<Upload>> {
        read(&self.uploads).get(&(key.to_owned(), id.to_owned())).cloned()
    }

    pub(crate) fn remove_upload(&self, key: &str, id: &str) -> Option<Arc<Upload>> {
        write(&self.uploads).remove(&(key.to_owned(), id.to_owned()))
    }

    /// All unfinished uploads, by key and then by id.
    pub(crate) fn uploads(&self) -> Vec<Arc<Upload>> {
        read(&self.uploads).values().cloned().collect()
    }

    /// Puts back what a durable backend held.
    pub(crate) fn restore_object(&self, object: Object) {
        write(&self.objects).insert(object.record.key.clone(), Arc::new(object));
    }

    fn stripe(&self, key: &str) -> &Mutex<()> {
        // The remainder is below the number of stripes, whatever is cut off.
        #[allow(clippy::cast_possible_truncation)]
        let index = self.hasher.hash_one(key) as usize % STRIPES;
        &self.stripes[index]
    }
}

/// What to do after a visited key.
pub(crate) enum Walk {
    On,
    Stop,
    /// Go on at this key, or the first one behind it.
    SkipTo(String),
}

impl WriteCondition {
    /// Fails where the condition does not hold for what is there now.
    pub(crate) fn check(&self, existing: Option<&ObjectRecord>) -> S3Result<()> {
        match (&self.if_match, existing) {
            (None, _) => {}
            (Some(_), None) => return Err(no_such_key()),
            (Some(expected), Some(record)) => {
                if !etag_matches(expected, &record.etag) {
                    return Err(precondition_failed());
                }
            }
        }
        match (&self.if_none_match, existing) {
            (Some(excluded), Some(record)) if etag_matches(excluded, &record.etag) => {
                Err(precondition_failed())
            }
            _ => Ok(()),
        }
    }
}

pub(crate) fn etag_matches(condition: &ETagCondition, etag: &str) -> bool {
    match condition {
        ETagCondition::Any => true,
        ETagCondition::ETag(expected) => expected.value() == etag,
    }
}

pub(crate) fn precondition_failed() -> S3Error {
    S3Error::with_message(
        S3ErrorCode::PreconditionFailed,
        "At least one of the pre-conditions you specified did not hold",
    )
}

fn no_such_bucket() -> S3Error {
    S3Error::with_message(S3ErrorCode::NoSuchBucket, "The specified bucket does not exist")
}

fn no_such_key() -> S3Error {
    S3Error::with_message(S3ErrorCode::NoSuchKey, "The specified key does not exist.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum::Kind;
    use crate::record::{Attributes, FORMAT};
    use crate::storage::Synthetic;

    fn record(key: &str) -> ObjectRecord {
        ObjectRecord {
            format: FORMAT,
            key: key.to_owned(),
            size_bytes: 0,
            etag: "e".to_owned(),
            modified: Moment::now(),
            checksums: Vec::new(),
            checksum_kind: Kind::FullObject,
            parts: Vec::new(),
            upload_id: None,
            attributes: Attributes::default(),
        }
    }

    #[test]
    fn of_two_exclusive_writers_one_wins() {
        let index = Index::new(Box::new(Synthetic::default()));
        index.create_bucket("bucket").unwrap();
        let bucket = index.bucket("bucket").unwrap();
        let condition = WriteCondition { if_match: None, if_none_match: Some(ETagCondition::Any) };
        let winners = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        index.put(&bucket, record("key"), Content::Pattern, &condition).is_ok()
                    })
                })
                .collect();
            writers
                .into_iter()
                .filter(|_| true)
                .map(|w| w.join().unwrap())
                .filter(|won| *won)
                .count()
        });
        assert_eq!(winners, 1);
    }

    #[test]
    fn a_bucket_with_objects_stays() {
        let index = Index::new(Box::new(Synthetic::default()));
        index.create_bucket("bucket").unwrap();
        let bucket = index.bucket("bucket").unwrap();
        index.put(&bucket, record("key"), Content::Pattern, &WriteCondition::default()).unwrap();
        assert_eq!(index.delete_bucket("bucket").unwrap_err().code(), &S3ErrorCode::BucketNotEmpty);
        index.delete(&bucket, "key", None).unwrap();
        index.delete_bucket("bucket").unwrap();
        let late = index.put(&bucket, record("key"), Content::Pattern, &WriteCondition::default());
        assert_eq!(late.unwrap_err().code(), &S3ErrorCode::NoSuchBucket);
    }
}
