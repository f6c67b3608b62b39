//! Files into objects.

use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::Stream;
use http::HeaderMap;
use rustix::io::{Errno, ReadWriteFlags};

use super::{Item, Job, Listener, ManyReport, Moves, SMALL_BYTES, absolute, run_workers};
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::integrity::{Checksum, Digest, Hasher, Md5ETag, compare};
use crate::options::{ContentHeaders, Encryption, UploadOptions, Verify};
use crate::progress::Operation;
use crate::schedule::Admission;
use crate::upload;
use crate::url::S3Url;

/// See [`crate::Bucket::upload_files`].
pub(crate) async fn upload<S>(
    engine: &Engine,
    bucket: &str,
    files: S,
    listener: Listener,
    options: UploadOptions,
) -> Result<ManyReport>
where
    S: Stream<Item = Item> + Unpin + Send + 'static,
{
    let flow = engine.flow(&options.events);
    let job = Job::new(engine, files, listener, &flow, options.concurrency, &options.cancel);
    let single = UploadOptions { events: options.events.for_one_of_many(), ..options };
    let (bucket, options) = (Arc::<str>::from(bucket), Arc::new(single));
    run_workers(engine, &job, move |engine, job| {
        let (bucket, options) = (Arc::clone(&bucket), Arc::clone(&options));
        Worker { engine, job, bucket, options }
    })
    .await?;
    Ok(job.report(Operation::Upload))
}

struct Worker<S> {
    engine: Engine,
    job: Arc<Job<S>>,
    bucket: Arc<str>,
    /// Of each single one.
    options: Arc<UploadOptions>,
}

impl<S> Moves for Worker<S>
where
    S: Stream<Item = Item> + Unpin + Send,
{
    fn job(&self) -> &Job<impl Stream<Item = Item> + Unpin + Send> {
        &self.job
    }

    fn needs_no_scout(&self) -> bool {
        let direct = self.engine.calls().direct(&self.bucket);
        !is_plain(&self.options) || direct.is_none_or(|direct| direct.knows(&self.bucket))
    }

    async fn by_any_way(&self, item: Item, mut admission: Admission) {
        let short = self.by_the_short_way(&item, &mut admission);
        let Some(short) = self.job.unless_stopped(short).await else { return };
        match short {
            Some(Ok((bytes, is_proven))) => {
                self.job.window().succeeded();
                self.job.succeeded(item, bytes, is_proven);
            }
            Some(Err(error)) => self.job.failed(item, source, error),
            None => {
                // It takes slots of its own.
                drop(admission);
                self.by_the_long_way(item).await;
            }
        }
    }

    async fn by_the_long_way(&self, item: Item) {
        let _turn = self.job.long_way().await;
        let url = S3Url::of(&self.bucket, item.key.as_str());
        let window = self.job.window().clone();
        self.job.tell_start(&item, source);
        let own = item.content_type.is_some()
            || !item.metadata.is_empty()
            || !self.options.command.is_empty();
        let moved = if own {
            let mut options = (*self.options).clone();
            if !options.command.is_empty() {
                let file = absolute(&item.file);
                options.command.extend([file.into(), url.to_string().into()]);
            }
            options.content_type = item.content_type.clone().or(options.content_type);
            options.metadata.extend(item.metadata.clone());
            upload::run(&self.engine, &item.file, &url, &options, window).await
        } else {
            upload::run(&self.engine, &item.file, &url, &self.options, window).await
        };
        self.job.settled(item, source, moved);
    }
}

/// What a file is called where it failed.
fn source(item: &Item) -> String {
    item.file.display().to_string()
}

impl<S> Worker<S>
where
    S: Stream<Item = Item> + Unpin + Send,
{
    /// In one plain request; `None` where it cannot be, or did not work.
    async fn by_the_short_way(
        &self,
        item: &Item,
        admission: &mut Admission,
    ) -> Option<Result<(u64, bool)>> {
        let (job, path, key) = (&*self.job, item.file.as_path(), item.key.as_str());
        let profile = self.engine.store().profile();
        let is_plain = is_plain(&self.options) && item.metadata.is_empty();
        if !is_plain || !profile.unsigned_payload {
            return None;
        }
        let direct = job.short_way(&self.engine, &self.bucket)?;
        let url = S3Url::of(&self.bucket, key);
        let algorithm = upload::choose_algorithm(&profile, &url, &self.options).ok()?;
        let len = small_len(path)?;
        admission.hold(len).await;
        let content = read_small(path).await?;
        let len = content.len() as u64;
        let digest = algorithm.map(|algorithm| {
            let mut hasher = Hasher::new(algorithm);
            hasher.update(&content);
            hasher.finish()
        });
        job.flow().held_back(job.window().paced().await);
        let kind = item.content_type.as_deref().or(self.options.content_type.as_deref());
        let answer = direct.put(&self.bucket, key, content, digest, kind, job.flow()).await;
        let headers = match answer {
            Ok(headers) => headers,
            Err(detour) => {
                job.was_refused(detour);
                return None;
            }
        };
        job.went_well();
        let is_proven = match is_proven(&headers, digest, profile.etag_is_md5) {
            Some(false) => {
                let detail = "the store holds other bytes than were sent";
                let url = url.to_string();
                return Some(Err(Error::new(ErrorKind::Integrity, "upload to", url, detail)));
            }
            proven => proven.is_some(),
        };
        let asks_for_proof = digest.is_some() && self.options.verify != Verify::Off;
        if (asks_for_proof && !is_proven) || headers.get("etag").is_none_or(|it| it.len() <= 2) {
            // This store does not say what it has: the long way asks, and sends each file once.
            job.close_short_way();
            return None;
        }
        Some(Ok((len, is_proven)))
    }
}

/// Whether nothing is asked for that the short way does not do.
fn is_plain(options: &UploadOptions) -> bool {
    options.storage_class.is_none()
        && options.metadata.is_empty()
        && options.tags.is_empty()
        && options.headers == ContentHeaders::default()
        && !options.if_none_match
        && matches!(options.encryption, Encryption::BucketDefault)
        && options.verify != Verify::Require
}

/// Whether the store has what was sent; `None` where its answer does not say.
fn is_proven(headers: &HeaderMap, digest: Option<Digest>, etag_is_md5: bool) -> Option<bool> {
    let (digest, text) = (digest?, |name: &str| headers.get(name).and_then(|it| it.to_str().ok()));
    let name = format!("x-amz-checksum-{}", digest.algorithm().name());
    if let Some(theirs) = text(&name) {
        let theirs = Checksum::parse(digest.algorithm(), theirs, None).ok()?;
        return Some(compare(&theirs, &Checksum::full_object(digest)).is_ok());
    }
    let (ours, theirs) = (Md5ETag::of_whole(digest)?, Md5ETag::parse(text("etag")?)?);
    // Under a bucket's own keys an ETag is no MD5, and looks like one.
    let is_of_keys = text("x-amz-server-side-encryption").is_some_and(|how| how != "AES256");
    match (ours == theirs, etag_is_md5 && !is_of_keys) {
        (true, _) => Some(true),
        (false, true) => Some(false),
        (false, false) => None,
    }
}

/// The size of a small regular file; `None` of anything else, of which the long way knows more.
fn small_len(path: &Path) -> Option<u64> {
    // Opening a pipe would wait for its writer, so it is looked at first.
    let metadata = std::fs::symlink_metadata(path).ok()?;
    (metadata.is_file() && metadata.len() <= SMALL_BYTES).then_some(metadata.len())
}

/// All bytes of a small file that nobody writes to meanwhile. What the page cache has is read here, and
/// a disk is waited for on another thread.
async fn read_small(path: &Path) -> Option<Bytes> {
    let file = File::open(path).ok()?;
    let before = file.metadata().ok()?;
    let len = usize::try_from(before.len()).ok().filter(|_| before.len() <= SMALL_BYTES)?;
    // One more than there should be, to see the end.
    let mut content = vec![0; len + 1];
    let read = read_cached(&file, &mut content);
    if read == Some(len) {
        content.truncate(len);
        return is_same(&before, &file).then(|| content.into());
    }
    let reading = tokio::task::spawn_blocking(move || {
        let mut read = 0;
        while read < content.len() {
            let more = rustix::io::retry_on_intr(|| {
                rustix::io::pread(&file, &mut content[read..], read as u64)
            });
            match more.ok()? {
                0 => break,
                more => read += more,
            }
        }
        content.truncate(read);
        (read == len && is_same(&before, &file)).then(|| content.into())
    });
    reading.await.ok()?
}

/// How many bytes there are, if all of them can be had without a wait.
fn read_cached(file: &File, content: &mut [u8]) -> Option<usize> {
    let mut slices = [std::io::IoSliceMut::new(content)];
    match rustix::io::preadv2(file, &mut slices, 0, ReadWriteFlags::NOWAIT) {
        Ok(read) => Some(read),
        // The file system cannot say; the page cache has most small files.
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => rustix::io::pread(file, content, 0).ok(),
        Err(_) => None,
    }
}

fn is_same(before: &Metadata, file: &File) -> bool {
    file.metadata().is_ok_and(|after| {
        (before.len(), before.mtime(), before.mtime_nsec())
            == (after.len(), after.mtime(), after.mtime_nsec())
    })
}
