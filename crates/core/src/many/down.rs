//! Objects into files: one GET for a small one, and no look at it before.

use std::collections::HashSet;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use http::HeaderMap;
use http_body_util::BodyExt as _;
use tokio::sync::mpsc::Sender;

use super::settle::{self, Written, folder_of};
use super::{Job, ManyReport, SMALL_BYTES, UNKNOWN_BYTES, run_workers};
use crate::download;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::file::partial_path;
use crate::integrity::{Algorithm, Checksum, ChecksumType, Hasher, Md5ETag, compare};
use crate::options::{DownloadOptions, Verify};
use crate::progress::Operation;
use crate::transport::Detour;
use crate::url::S3Url;

/// See [`crate::Bucket::download_files`].
pub(crate) async fn download<I>(
    engine: &Engine,
    bucket: &str,
    objects: I,
    options: DownloadOptions,
) -> Result<ManyReport>
where
    I: Iterator<Item = (String, PathBuf)> + Send + 'static,
{
    let started = Instant::now();
    let flow = engine.flow(&options.events);
    let job = Job::new(engine, objects, &flow, options.concurrency, &options.cancel);
    let told = Arc::clone(&job);
    let (settle, settling) = settle::start(move |(written, outcome)| match outcome {
        Ok(()) => told.succeeded(written.bytes, written.is_proven),
        Err(error) => told.failed(written.key, error),
    });
    let shared = Arc::new(Shared {
        bucket: bucket.to_owned(),
        options,
        folders: Mutex::default(),
        settle: Mutex::new(settle),
    });
    {
        let shared = Arc::clone(&shared);
        run_workers(engine, &job, move |engine, job| {
            let shared = Arc::clone(&shared);
            async move { Worker::new(engine, job, shared).run().await }
        })
        .await?;
    }
    // The thread ends with the last sender, when everything that was sent has its name.
    drop(shared);
    settling.await.map_err(|lost| {
        Error::new(crate::ErrorKind::Io, "download", "many objects", "a thread ended")
            .caused_by(lost)
    })?;
    Ok(job.report(Operation::Download, started))
}

struct Shared {
    bucket: String,
    options: DownloadOptions,
    /// Folders that are known to be there.
    folders: Mutex<HashSet<PathBuf>>,
    settle: Mutex<Sender<Written>>,
}

struct Worker<I> {
    engine: Engine,
    job: Arc<Job<I>>,
    shared: Arc<Shared>,
    settle: Sender<Written>,
}

/// How an object came by the short way.
enum Short {
    Written(Written),
    /// It has to go the long way.
    No,
}

impl<I> Worker<I>
where
    I: Iterator<Item = (String, PathBuf)>,
{
    fn new(engine: Engine, job: Arc<Job<I>>, shared: Arc<Shared>) -> Self {
        let settle = shared.settle.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Self { engine, job, shared, settle }
    }

    async fn run(self) {
        loop {
            let admission = self.job.scope.window().admit(UNKNOWN_BYTES).await;
            let Some((key, target)) = self.job.next() else { return };
            match self.by_the_short_way(&key, &target).await {
                Ok(Short::Written(written)) => {
                    self.job.scope.window().succeeded();
                    // It waits only where the disk cannot follow, and then everybody should.
                    if self.settle.send(written).await.is_err() {
                        return;
                    }
                }
                Ok(Short::No) => {
                    drop(admission);
                    let url = S3Url::of(&self.shared.bucket, key.as_str());
                    let options = &self.shared.options;
                    if let Err(error) = self.make_folder(folder_of(&target)) {
                        self.job.failed(key, error);
                        continue;
                    }
                    match download::to_file(&self.engine, &url, &target, options).await {
                        Ok(report) => {
                            self.job.succeeded(report.bytes, report.verified.is_proof());
                        }
                        Err(error) => self.job.failed(key, error),
                    }
                }
                Err(error) => self.job.failed(key, error),
            }
        }
    }

    async fn by_the_short_way(&self, key: &str, target: &Path) -> Result<Short> {
        let options = &self.shared.options;
        if options.version_id.is_some() || options.customer_key.is_some() {
            return Ok(Short::No);
        }
        let Some(direct) = self.engine.calls().direct(&self.shared.bucket) else {
            return Ok(Short::No);
        };
        let (window, flow) = (self.job.scope.window(), self.job.scope.flow());
        flow.held_back(window.paced().await);
        let answer = match direct.get(&self.shared.bucket, key).await {
            Ok(answer) => answer,
            Err(Detour::Unknown) => return Ok(Short::No),
            Err(detour) => {
                self.job.was_refused(detour == Detour::Throttled);
                return Ok(Short::No);
            }
        };
        let (head, mut body) = answer.into_parts();
        let len = text(&head.headers, "content-length").and_then(|len| len.parse::<u64>().ok());
        // Dropped unread, a body costs its connection, and no more.
        let Some(len) = len.filter(|len| *len <= SMALL_BYTES) else { return Ok(Short::No) };
        let profile = self.engine.store().profile();
        let Some(proof) = Proof::of(&head.headers, options.verify, profile.etag_is_md5) else {
            return Ok(Short::No);
        };
        self.make_folder(folder_of(target))?;
        let mut chunks: Vec<Bytes> = Vec::with_capacity(1);
        let (mut hasher, mut arrived) = (proof.hasher(), 0);
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else { return Ok(Short::No) };
            let Ok(bytes) = frame.into_data() else { continue };
            if let Some(hasher) = &mut hasher {
                hasher.update(&bytes);
            }
            arrived += bytes.len() as u64;
            chunks.push(bytes);
        }
        if arrived != len {
            return Ok(Short::No);
        }
        let Some(is_proven) = proof.holds(hasher) else {
            // Damaged on its way: the long way finds out.
            self.job.was_refused(false);
            return Ok(Short::No);
        };
        window.taken();
        flow.moved(len);
        flow.limited(len).await;
        let partial = write(target, &chunks)?;
        let (key, target) = (key.to_owned(), target.to_owned());
        Ok(Short::Written(Written { partial, target, key, bytes: len, is_proven }))
    }

    fn make_folder(&self, folder: &Path) -> Result<()> {
        let mut known = self.shared.folders.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.contains(folder) {
            std::fs::create_dir_all(folder).map_err(|e| Error::io("download", folder, e))?;
            known.insert(folder.to_owned());
        }
        Ok(())
    }
}

/// Writes the file beside its target; gives its name.
fn write(target: &Path, chunks: &[Bytes]) -> Result<PathBuf> {
    let failed = |source| Error::io("download", target, source);
    let tag: String = (0..8).map(|_| fastrand::alphanumeric()).collect();
    let partial = partial_path(target, &tag)?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o666)
        .open(&partial)
        .map_err(failed)?;
    for chunk in chunks {
        if let Err(source) = file.write_all(chunk) {
            let _ = std::fs::remove_file(&partial);
            return Err(failed(source));
        }
    }
    Ok(partial)
}

/// What the bytes of an answer can be held against.
enum Proof {
    Checksum(Checksum),
    Md5 { etag: Md5ETag, vouched: bool },
    Nothing,
}

impl Proof {
    /// `None` where the long way may find more than there is here.
    fn of(headers: &HeaderMap, verify: Verify, etag_is_md5: bool) -> Option<Self> {
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
        etag.filter(|etag| may_be_md5 && etag.parts.is_none())
            .map(|etag| Self::Md5 { etag, vouched: etag_is_md5 })
    }

    fn hasher(&self) -> Option<Hasher> {
        match self {
            Self::Checksum(checksum) => Some(Hasher::new(checksum.algorithm)),
            Self::Md5 { .. } => Some(Hasher::new(Algorithm::Md5)),
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
            (Self::Md5 { etag, vouched }, Some(digest)) => {
                match (Md5ETag::of_whole(digest).as_ref() == Some(etag), vouched) {
                    (true, _) => Some(true),
                    (false, true) => None,
                    (false, false) => Some(false),
                }
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
