//! Objects into files: one GET for a small one, and no look at it before.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use bytes::Bytes;
use futures::Stream;
use http::HeaderMap;
use http_body_util::BodyExt as _;
use tokio::sync::mpsc::Sender;

use super::settle::{self, FileSystem, Folders, Unnamed, Written};
use super::{Item, Job, Listener, ManyReport, Moves, SMALL_BYTES, absolute, run_workers};
use crate::download;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::file::{parent_of, partial_path, timed};
use crate::flow::Flow;
use crate::integrity::{Algorithm, Checksum, ChecksumType, Hasher, Md5ETag, compare};
use crate::options::{DownloadOptions, Verify};
use crate::progress::Operation;
use crate::schedule::Admission;
use crate::transport::Detour;
use crate::url::S3Url;

/// See [`crate::Bucket::download_files`].
pub(crate) async fn download<S>(
    engine: &Engine,
    bucket: &str,
    objects: S,
    listener: Listener,
    options: DownloadOptions,
) -> Result<ManyReport>
where
    S: Stream<Item = Item> + Unpin + Send + 'static,
{
    let flow = engine.flow(&options.events);
    let job = Job::new(engine, objects, listener, &flow, options.concurrency, &options.cancel);
    let told = Arc::clone(&job);
    let (settle, settling) = settle::start(move |settled| match settled.outcome {
        Ok(()) => told.succeeded(settled.item, settled.bytes, settled.is_proven),
        Err(error) => told.failed(settled.item, source, error),
    });
    let single = DownloadOptions { events: options.events.for_one_of_many(), ..options };
    let shared = Arc::new(Shared {
        bucket: bucket.to_owned(),
        options: single,
        folders: Folders::default(),
        settle: Mutex::new(settle),
    });
    let moved = {
        let shared = Arc::clone(&shared);
        run_workers(engine, &job, move |engine, job| Worker::new(engine, job, Arc::clone(&shared)))
            .await
    };
    // The thread ends with the last sender, when everything that was sent has its name.
    drop(shared);
    let syncing = Instant::now();
    let settled = settling.await;
    job.account.synced_since(syncing);
    moved?;
    settled.map_err(|lost| {
        Error::new(crate::ErrorKind::Io, "download", "many objects", "a thread ended")
            .caused_by(lost)
    })?;
    Ok(job.report(Operation::Download))
}

/// What an object is called where it failed.
fn source(item: &Item) -> String {
    item.key.clone()
}

struct Shared {
    bucket: String,
    /// Of each single one.
    options: DownloadOptions,
    folders: Folders,
    settle: Mutex<Sender<Written>>,
}

struct Worker<S> {
    engine: Engine,
    job: Arc<Job<S>>,
    shared: Arc<Shared>,
    settle: Sender<Written>,
}

/// How an object came by the short way: its bytes are written, or it has to go the long way.
enum Short {
    Written { partial: Unnamed, file_system: FileSystem, bytes: u64, is_proven: bool },
    No,
}

impl<S> Worker<S> {
    fn new(engine: Engine, job: Arc<Job<S>>, shared: Arc<Shared>) -> Self {
        let settle = shared.settle.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Self { engine, job, shared, settle }
    }
}

impl<S> Moves for Worker<S>
where
    S: Stream<Item = Item> + Unpin + Send,
{
    fn job(&self) -> &Job<impl Stream<Item = Item> + Unpin + Send> {
        &self.job
    }

    fn needs_no_scout(&self) -> bool {
        let bucket = &self.shared.bucket;
        let direct = self.engine.calls().direct(bucket);
        !is_plain(&self.shared.options) || direct.is_none_or(|direct| direct.knows(bucket))
    }

    async fn by_any_way(&self, item: Item, mut admission: Admission) {
        let short = self.by_the_short_way(&item, &mut admission);
        let Some(short) = self.job.unless_stopped(short).await else { return };
        match short {
            Ok(Short::Written { partial, file_system, bytes, is_proven }) => {
                self.job.window().succeeded();
                // It waits only where the disk cannot follow, and then everybody should.
                let waiting = Instant::now();
                let written = Written { partial, file_system, item, bytes, is_proven };
                if let Err(lost) = self.settle.send(written).await {
                    let (item, detail) = (lost.0.item, "the thread that makes files durable ended");
                    let (kind, key) = (crate::ErrorKind::Io, item.key.clone());
                    self.job.failed(item, source, Error::new(kind, "download", key, detail));
                }
                self.job.flow().disk(waiting.elapsed());
            }
            Ok(Short::No) => {
                // It takes slots of its own.
                drop(admission);
                self.by_the_long_way(item).await;
            }
            Err(error) => self.job.failed(item, source, error),
        }
    }

    async fn by_the_long_way(&self, item: Item) {
        let _turn = self.job.long_way().await;
        let url = S3Url::of(&self.shared.bucket, item.key.as_str());
        if let Err(error) = self.shared.folders.make(parent_of(&item.file)) {
            return self.job.failed(item, source, error);
        }
        self.job.tell_start(&item, |_| url.to_string());
        let window = self.job.window().clone();
        let mut options = self.shared.options.clone();
        if !options.command.is_empty() {
            let file = absolute(&item.file);
            options.command.extend([url.to_string().into(), file.into()]);
        }
        let (engine, file) = (&self.engine, &item.file);
        let moved = download::to_file(engine, &url, file, &options, item.modified, window).await;
        self.job.settled(item, source, moved);
    }
}

impl<S> Worker<S>
where
    S: Stream<Item = Item> + Unpin + Send,
{
    async fn by_the_short_way(&self, item: &Item, admission: &mut Admission) -> Result<Short> {
        let (job, options) = (&*self.job, &self.shared.options);
        let (key, target) = (item.key.as_str(), item.file.as_path());
        let direct = job.short_way(&self.engine, &self.shared.bucket);
        let Some(direct) = direct.filter(|_| is_plain(options) && is_plain_target(target)) else {
            return Ok(Short::No);
        };
        let flow = job.flow();
        flow.held_back(job.window().paced().await);
        let asked = Instant::now();
        let answer = match direct.get(&self.shared.bucket, key).await {
            Ok(answer) => answer,
            Err(detour) => {
                job.was_refused(detour);
                return Ok(Short::No);
            }
        };
        flow.answered(std::time::Duration::ZERO, asked.elapsed());
        let (head, mut body) = answer.into_parts();
        let len = text(&head.headers, "content-length").and_then(|len| len.parse::<u64>().ok());
        // Dropped unread, a body costs its connection, and no more.
        let Some(len) = len.filter(|len| *len <= SMALL_BYTES) else { return Ok(Short::No) };
        let proof = Proof::of(&head.headers, options.verify);
        let Some(proof) = proof.filter(|_| head.headers.contains_key("etag")) else {
            return Ok(Short::No);
        };
        let file_system = self.shared.folders.make(parent_of(target))?;
        admission.hold(len).await;
        let mut chunks: Vec<Bytes> = Vec::with_capacity(1);
        let (mut hasher, mut arrived) = (proof.hasher(), 0);
        let mut counted = flow.attempt();
        let receiving = Instant::now();
        while let Ok(Some(frame)) = tokio::time::timeout(direct.stall_timeout(), body.frame()).await
        {
            let Ok(Ok(bytes)) = frame.map(http_body::Frame::into_data) else { break };
            if let Some(hasher) = &mut hasher {
                hasher.update(&bytes);
            }
            arrived += bytes.len() as u64;
            counted.moved(bytes.len() as u64);
            chunks.push(bytes);
            if arrived >= len {
                break;
            }
        }
        flow.received(receiving.elapsed());
        if arrived != len {
            job.was_refused(Detour::Failed);
            return Ok(Short::No);
        }
        let is_proven = proof.holds(hasher);
        let Some(is_proven) = is_proven.filter(|it| *it || options.verify != Verify::Require)
        else {
            // Damaged on its way, or not to be told: the long way finds out.
            job.was_refused(Detour::Failed);
            return Ok(Short::No);
        };
        counted.keep();
        job.went_well();
        flow.limited(len).await;
        let modified = options.keep_modified.then(|| {
            let told = text(&head.headers, "last-modified").and_then(parse_http_date);
            item.modified.or(told)
        });
        let partial = write(target, &chunks, modified.flatten(), &file_system, flow)?;
        Ok(Short::Written { partial, file_system, bytes: len, is_proven })
    }
}

/// Whether nothing is asked for that the short way does not do.
fn is_plain(options: &DownloadOptions) -> bool {
    options.version_id.is_none() && options.customer_key.is_none()
}

/// Whether the name is free or a regular file's. What a link points to, and why a folder or a device is
/// refused, the long way knows.
fn is_plain_target(target: &Path) -> bool {
    match std::fs::symlink_metadata(target) {
        Ok(metadata) => metadata.is_file(),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}

/// Writes the file beside its target.
fn write(
    target: &Path,
    chunks: &[Bytes],
    modified: Option<SystemTime>,
    on: &FileSystem,
    flow: &Flow,
) -> Result<Unnamed> {
    let tag: String = (0..8).map(|_| fastrand::alphanumeric()).collect();
    let path = partial_path(target, &tag)?;
    let (written, blocked) = timed(|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o666).open(&path)?;
        let partial = Unnamed(path);
        chunks.iter().try_for_each(|chunk| file.write_all(chunk))?;
        if let Some(modified) = modified {
            file.set_modified(modified)?;
        }
        if on.0.is_none() {
            file.sync_all()?;
        }
        Ok(partial)
    });
    flow.disk(blocked);
    written.map_err(|source| Error::io("download", target, source))
}

/// What the bytes of an answer can be held against.
enum Proof {
    Checksum(Checksum),
    Md5(Md5ETag),
    Nothing,
}

impl Proof {
    /// `None` where the long way may find more than there is here.
    fn of(headers: &HeaderMap, verify: Verify) -> Option<Self> {
        if verify == Verify::Off {
            return Some(Self::Nothing);
        }
        let declared = text(headers, "x-amz-checksum-type").and_then(ChecksumType::named);
        let all = [
            Algorithm::Crc32,
            Algorithm::Crc64Nvme,
            Algorithm::Crc32c,
            Algorithm::Sha256,
            Algorithm::Sha1,
        ];
        for algorithm in all {
            let name = format!("x-amz-checksum-{}", algorithm.name());
            if let Some(value) = text(headers, &name) {
                let checksum = Checksum::parse(algorithm, value, declared).ok()?;
                return (checksum.kind == ChecksumType::FullObject && declared.is_some()
                    || !is_of_parts(headers))
                .then_some(Self::Checksum(checksum));
            }
        }
        let encryption = text(headers, "x-amz-server-side-encryption");
        let may_be_md5 = encryption.is_none_or(|how| how == "AES256");
        let etag = text(headers, "etag").and_then(Md5ETag::parse);
        etag.filter(|etag| may_be_md5 && etag.parts.is_none()).map(Self::Md5)
    }

    fn hasher(&self) -> Option<Hasher> {
        match self {
            Self::Checksum(checksum) => Some(Hasher::new(checksum.algorithm)),
            Self::Md5(_) => Some(Hasher::new(Algorithm::Md5)),
            Self::Nothing => None,
        }
    }

    /// Whether the bytes are proven; `None` where they are other ones.
    fn holds(&self, hasher: Option<Hasher>) -> Option<bool> {
        let digest = hasher.map(Hasher::finish);
        match (self, digest) {
            (Self::Checksum(theirs), Some(digest)) => {
                compare(theirs, &Checksum::full_object(digest)).is_ok().then_some(true)
            }
            (Self::Md5(etag), Some(digest)) => {
                // Even where nobody vouches for the ETag to be an MD5: the long way knows more.
                (Md5ETag::of_whole(digest).as_ref() == Some(etag)).then_some(true)
            }
            _ => Some(false),
        }
    }
}

fn is_of_parts(headers: &HeaderMap) -> bool {
    text(headers, "etag").is_some_and(|etag| etag.trim_matches('"').contains('-'))
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// As `Last-Modified` has it (RFC 9110, section 5.6.7).
fn parse_http_date(text: &str) -> Option<SystemTime> {
    DateTime::from_str(text, Format::HttpDate).ok().and_then(|it| SystemTime::try_from(it).ok())
}
