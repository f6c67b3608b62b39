//! Files into objects.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::HeaderMap;

use super::{Job, ManyReport, Pair, SMALL_BYTES, run_workers};
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::integrity::{Checksum, Digest, Hasher, Md5ETag, compare};
use crate::options::{Encryption, UploadOptions, Verify};
use crate::progress::Operation;
use crate::transport::Detour;
use crate::upload;
use crate::url::S3Url;

/// See [`crate::Bucket::upload_files`].
pub(crate) async fn upload<I>(
    engine: &Engine,
    bucket: &str,
    files: I,
    options: UploadOptions,
) -> Result<ManyReport>
where
    I: Iterator<Item = Pair> + Send + 'static,
{
    let started = Instant::now();
    let flow = engine.flow(&options.events);
    let job = Job::new(engine, files, &flow, options.concurrency, &options.cancel);
    let (bucket, options) = (Arc::<str>::from(bucket), Arc::new(options));
    run_workers(engine, &job, move |engine, job| {
        let (bucket, options) = (Arc::clone(&bucket), Arc::clone(&options));
        async move {
            let worker = Worker { engine, job, bucket, options };
            worker.run().await;
        }
    })
    .await?;
    Ok(job.report(Operation::Upload, started))
}

struct Worker<I> {
    engine: Engine,
    job: Arc<Job<I>>,
    bucket: Arc<str>,
    options: Arc<UploadOptions>,
}

impl<I> Worker<I>
where
    I: Iterator<Item = Pair>,
{
    async fn run(self) {
        // A slot first: who waits holds no file.
        loop {
            let admission = self.job.scope.window().admit(SMALL_BYTES / 8).await;
            let Some((path, key)) = self.job.next() else { return };
            let short = self.by_the_short_way(&path, &key).await;
            let outcome = if let Some(outcome) = short {
                outcome
            } else {
                // It takes slots of its own.
                drop(admission);
                let url = S3Url::of(&self.bucket, key);
                let moved = upload::run(&self.engine, &path, &url, &self.options).await;
                moved.map(|report| (report.bytes, report.verified.is_proof()))
            };
            match outcome {
                Ok((bytes, is_proven)) => {
                    self.job.scope.window().succeeded();
                    self.job.succeeded(bytes, is_proven);
                }
                Err(error) => self.job.failed(path.display().to_string(), error),
            }
        }
    }

    /// In one plain request; `None` where it cannot be, or did not work.
    async fn by_the_short_way(&self, path: &Path, key: &str) -> Option<Result<(u64, bool)>> {
        let profile = self.engine.store().profile();
        if !is_plain(&self.options) || !profile.unsigned_payload {
            return None;
        }
        let algorithm =
            upload::choose_algorithm(&profile, &S3Url::of(&self.bucket, key), &self.options)
                .ok()?;
        let content = match read_small(path) {
            Ok(content) => content?,
            // The long way says what is wrong with it.
            Err(_) => return None,
        };
        let direct = self.engine.calls().direct(&self.bucket)?;
        let digest = algorithm.map(|algorithm| {
            let mut hasher = Hasher::new(algorithm);
            hasher.update(&content);
            hasher.finish()
        });
        let waited = self.job.scope.window().paced().await;
        self.job.scope.flow().held_back(waited);
        let len = content.len() as u64;
        let kind = self.options.content_type.as_deref();
        self.job.scope.flow().limited(len).await;
        match direct.put(&self.bucket, key, content, digest, kind).await {
            Ok(headers) => {
                let is_proven = is_proven(&headers, digest, profile.etag_is_md5);
                let is_proven = match is_proven {
                    Some(false) => {
                        let detail = "the store holds other bytes than were sent";
                        let url = format!("s3://{}/{key}", self.bucket);
                        return Some(Err(Error::new(
                            ErrorKind::Integrity,
                            "upload to",
                            url,
                            detail,
                        )));
                    }
                    proven => proven.is_some(),
                };
                // The store keeps it and does not say so here: the long way looks.
                if !is_proven && digest.is_some() && self.options.verify != Verify::Off {
                    return None;
                }
                headers.get("etag").filter(|etag| etag.len() > 2)?;
                self.job.scope.window().taken();
                self.job.scope.flow().moved(len);
                Some(Ok((len, is_proven)))
            }
            Err(Detour::Unknown) => None,
            Err(detour) => {
                self.job.was_refused(detour == Detour::Throttled);
                None
            }
        }
    }
}

/// Whether nothing is asked for that the short way does not do.
fn is_plain(options: &UploadOptions) -> bool {
    options.storage_class.is_none()
        && options.metadata.is_empty()
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
    match (ours == theirs, etag_is_md5) {
        (true, _) => Some(true),
        (false, true) => Some(false),
        (false, false) => None,
    }
}

/// All bytes of a small regular file; `None` of any other.
fn read_small(path: &Path) -> std::io::Result<Option<Bytes>> {
    // Opening a pipe would wait for its writer, so it is looked at first.
    let metadata = std::fs::symlink_metadata(path)?;
    if !metadata.is_file() || metadata.len() > SMALL_BYTES {
        return Ok(None);
    }
    let mut file = File::open(path)?;
    let before = file.metadata()?;
    let Ok(len) = usize::try_from(before.len()) else { return Ok(None) };
    if before.len() > SMALL_BYTES {
        return Ok(None);
    }
    let mut content = Vec::with_capacity(len + 1);
    file.by_ref().take(SMALL_BYTES + 1).read_to_end(&mut content)?;
    let after = file.metadata()?;
    let is_same = content.len() == len
        && (before.mtime(), before.mtime_nsec()) == (after.mtime(), after.mtime_nsec());
    Ok(is_same.then(|| content.into()))
}
