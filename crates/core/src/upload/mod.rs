//! One file, or a [stream](stream), into one object: plan, sum, send, complete, prove.
//!
//! What fits one part goes as a `PutObject`; the rest as a multipart upload whose parts are sent
//! concurrently, each with its checksum in a header. The checksum of the whole object is combined
//! from the parts' (no second pass over the file), sent with the completion so that the store
//! refuses an object of other bytes, and compared once more with what the store then says. An
//! upload that ends early is kept with its manifest, for a later run to go on with; where nothing is
//! recorded, or nothing of it can be used again, it is aborted: nothing stays behind that costs money.

mod assembly;
mod claims;
mod held;
mod multipart;
mod prove;
mod stream;
mod unfinished;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

pub(crate) use self::assembly::{Assembly, Begun, Completed, Outcome, abort};
pub(crate) use self::prove::Computed;
pub(crate) use self::stream::from_reader;
use crate::account::Account;
use crate::engine::{Engine, stopped};
use crate::error::{Error, ErrorKind, Result};
use crate::file::{Content, Source, timed};
use crate::flow::Flow;
use crate::integrity::{Algorithm, Digest, Hasher};
use crate::limits::{ChecksumSupport, StoreProfile};
use crate::manifest::Manifest;
use crate::options::{ChecksumChoice, Encryption, UploadOptions, Verify};
use crate::plan::{Part, Plan};
use crate::progress::{Event, Operation};
use crate::report::{Report, ReportedChecksum, TimeSpent, throughput};
use crate::schedule::{RetryScope, Window};
use crate::transport::Receipt;
use crate::url::S3Url;

const OPERATION: &str = "upload to";

/// Bytes summed between two chances for the lane's other parts to run: under a millisecond of
/// CRC32, a few of SHA-256.
const SUM_STEP_BYTES: usize = 4 << 20;

/// Times that an upload is started in all when other writers of the same key get in its way.
pub(crate) const RACE_ROUNDS: u32 = 3;

/// Uploads the file at `path` to `url`, in requests that `window` admits.
pub(crate) async fn run(
    engine: &Engine,
    path: &Path,
    url: &S3Url,
    options: &UploadOptions,
    window: Window,
) -> Result<Report> {
    run_shown(engine, (path, &path.display().to_string()), url, options, window).await
}

/// The same for a file that is called otherwise than its path.
async fn run_shown(
    engine: &Engine,
    (path, shown): (&Path, &str),
    url: &S3Url,
    options: &UploadOptions,
    window: Window,
) -> Result<Report> {
    let started = Instant::now();
    let flow = engine.flow(&options.events);
    let account = Account::open(engine.lanes(), &flow);
    let scope = RetryScope::new(&flow, options.cancel.clone()).within(window);
    let source = Source::open(path, options.direct_io)?;
    let profile = prepare(engine, OPERATION, url, options, &scope).await?;
    let algorithm = choose_algorithm(&profile, url, options)?;
    let assembly = Assembly::new(engine, OPERATION, url, options, &scope, profile, algorithm);
    let mut upload = Upload {
        source: &source,
        assembly,
        account: &account,
        concurrency: scope.window().limit(),
        unfinished: None,
        parts_are_in: AtomicBool::new(false),
        acknowledged_bytes: Arc::default(),
        kept_bytes: Arc::default(),
    };
    let plan = upload.plan().await?;
    scope.expect_parts(plan.part_count());
    let kept_bytes = Arc::clone(&upload.kept_bytes);
    options.events.emit(|| Event::Started {
        operation: Operation::Upload,
        source: shown.to_owned(),
        target: url.to_string(),
        size_bytes: plan.size_bytes(),
        parts: plan.part_count(),
        part_size_bytes: plan.part_size_bytes(),
        concurrency: upload.concurrency,
    });
    let outcome = upload.carry_out(&plan).await?;
    let time = account.close(scope.window().wants_more());
    let resumed_bytes = kept_bytes.load(Ordering::Relaxed);
    let moved_bytes = plan.size_bytes().saturating_sub(resumed_bytes);
    Ok(Report {
        operation: Operation::Upload,
        source: shown.to_owned(),
        target: url.to_string(),
        bytes: plan.size_bytes(),
        resumed_bytes,
        parts: plan.part_count(),
        part_size_bytes: plan.part_size_bytes(),
        ..ended_report(engine, &scope, started, moved_bytes, time, outcome)
    })
}

/// What comes before any byte is sent: refuses what makes no sense, and finds out what the store allows.
pub(crate) async fn prepare(
    engine: &Engine,
    operation: &'static str,
    url: &S3Url,
    options: &UploadOptions,
    scope: &RetryScope,
) -> Result<Arc<StoreProfile>> {
    if let Encryption::Customer(_) = &options.encryption {
        engine.refuse_plain_customer_key(operation, url)?;
    }
    if url.key().is_empty() {
        return Err(Error::new(ErrorKind::InvalidInput, operation, url.to_string(), "no key")
            .advise("write it as s3://bucket/key"));
    }
    tokio::select! {
        profile = engine.profile_for(url.bucket(), scope) => {
            profile.map_err(|error| error.during(operation))
        }
        () = options.cancel.cancelled() => Err(stopped(operation, url)),
    }
}

/// What every report of an object that was stored has alike; the rest is empty.
pub(crate) fn ended_report(
    engine: &Engine,
    scope: &RetryScope,
    started: Instant,
    moved_bytes: u64,
    time: TimeSpent,
    outcome: Outcome,
) -> Report {
    let elapsed = started.elapsed();
    Report {
        operation: Operation::Upload,
        source: String::new(),
        target: String::new(),
        bytes: 0,
        elapsed_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
        resumed_bytes: 0,
        throughput_bytes_per_s: throughput(moved_bytes, elapsed),
        parts: 0,
        part_size_bytes: 0,
        concurrency: scope.window().limit(),
        time,
        limited_by: time.limited_by().0,
        retries: scope.repeated(),
        verified: outcome.verified,
        checksum: outcome.checksum.as_ref().map(ReportedChecksum::from),
        etag: outcome.receipt.etag.map(|etag| etag.trim_matches('"').to_owned()),
        source_etag: None,
        version_id: outcome.receipt.version_id,
        store_profile: engine.store().profile().name.clone(),
        warnings: outcome.warnings,
    }
}

/// One upload of a file under way.
struct Upload<'a> {
    source: &'a Source,
    assembly: Assembly<'a>,
    account: &'a Account,
    concurrency: usize,
    /// What an earlier run left, until it is taken up.
    unfinished: Option<Manifest>,
    /// Whether all parts are on the store.
    parts_are_in: AtomicBool,
    /// Bytes of parts that the store has, by this run and earlier ones.
    acknowledged_bytes: Arc<AtomicU64>,
    /// Those of earlier ones.
    kept_bytes: Arc<AtomicU64>,
}

impl Upload<'_> {
    async fn carry_out(mut self, plan: &Plan) -> Result<Outcome> {
        self.assembly.warn_of_ignored_conditions();
        let mut round = 1;
        let (receipt, computed) = loop {
            let stored =
                if plan.is_single() { self.put(plan).await } else { self.in_parts(plan).await };
            match stored {
                Ok(stored) => break stored,
                // Another writer of the same key was in the way; S3 asks to start over.
                Err(error) if lost_a_race(&error) && round < RACE_ROUNDS => round += 1,
                Err(error) => {
                    if lost_a_race(&error) {
                        self.assembly.forget().await;
                    }
                    return Err(self.assembly.in_words(error));
                }
            }
        };
        let source = self.source;
        let outcome = self.assembly.prove(receipt, &computed).await?;
        // What the store has is what was summed, at a moment when the file was still as it had been
        // opened. Where nothing proves that, the file must not have changed until now.
        if !outcome.verified.is_proof() {
            source.check_still_there().map_err(|error| {
                error.advise("the store has what was sent of it; upload it again")
            })?;
        }
        Ok(outcome)
    }

    /// The whole object in one request.
    async fn put(&mut self, plan: &Plan) -> Result<(Receipt, Computed)> {
        let part = Part { number: 1, offset_bytes: 0, len_bytes: plan.size_bytes() };
        let (assembly, source) = (&mut self.assembly, self.source);
        let (scope, options) = (assembly.scope, assembly.options);
        let _admission = tokio::select! {
            admission = scope.window().admit(assembly.cost().of(part)) => admission,
            () = options.cancel.cancelled() => return Err(stopped(OPERATION, assembly.url)),
        };
        tell_start(options, part);
        let started = Instant::now();
        let memory = || scope.window().spare(part.len_bytes);
        let waited = |time| scope.flow().queued_for_disk(time);
        let brought = source.bring(part, memory, waited).await;
        let digest = match assembly.algorithm {
            Some(algorithm) => Some(sum(&brought.content()?, algorithm, scope.flow()).await?),
            None => None,
        };
        let put = assembly.put(digest, || brought.content()).await;
        let (receipt, computed) = put.map_err(|error| blame(source, error))?;
        brought.give_back();
        scope.window().succeeded();
        self.account.moved_since(started);
        tell_end(options, part, started);
        Ok((receipt, computed))
    }
}

/// What tells this upload's object from anybody else's: 128 random bits.
pub(crate) fn new_token() -> String {
    (0..32).map(|_| fastrand::digit(16)).collect()
}

/// S3's 409 for a write that met another one of the same key.
pub(crate) fn lost_a_race(error: &Error) -> bool {
    error.code() == Some("ConditionalRequestConflict")
}

pub(crate) fn tell_start(options: &UploadOptions, part: Part) {
    let (part, size_bytes) = (part.number, part.len_bytes);
    options.events.emit(|| Event::PartStarted { part, size_bytes });
}

pub(crate) fn tell_end(options: &UploadOptions, part: Part, started: Instant) {
    let elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let (part, size_bytes) = (part.number, part.len_bytes);
    options.events.emit(|| Event::PartDone { part, size_bytes, elapsed_ms });
}

/// A source that changed or could not be read makes a request fail in many ways; what is wrong with
/// the source comes first.
fn blame(source: &Source, error: Error) -> Error {
    match error.kind() {
        ErrorKind::Interrupted => error,
        _ => source.check_unchanged().err().unwrap_or(error),
    }
}

/// The sum that goes along with this attempt: made anew after a failed one, which may have failed
/// because it was not the sum of these bytes.
pub(crate) async fn summed_for(
    attempt: u32,
    content: &Content,
    digest: Option<Digest>,
    flow: &Flow,
) -> Result<Option<Digest>> {
    match digest {
        Some(digest) if attempt > 1 => Ok(Some(sum(content, digest.algorithm(), flow).await?)),
        _ => Ok(digest),
    }
}

/// Sums a part, in steps, so that a lane's other connections are served in between.
pub(crate) async fn sum(content: &Content, algorithm: Algorithm, flow: &Flow) -> Result<Digest> {
    let mut hasher = Hasher::new(algorithm);
    let mut frames = content.frames();
    while frames.rest_bytes() > 0 {
        // Pages that have to come from a disk block the thread.
        let (summed, blocked) = timed(|| {
            let mut step_bytes = 0;
            while step_bytes < SUM_STEP_BYTES
                && let Some(len) = frames.look(|bytes| hasher.update(bytes))?
            {
                step_bytes += len;
            }
            Ok(())
        });
        summed?;
        flow.disk(blocked);
        tokio::task::yield_now().await;
    }
    Ok(hasher.finish())
}

pub(crate) fn choose_algorithm(
    profile: &StoreProfile,
    url: &S3Url,
    options: &UploadOptions,
) -> Result<Option<Algorithm>> {
    let refuse = |why: String| {
        Error::new(ErrorKind::InvalidInput, OPERATION, url.to_string(), why)
            .advise("use --checksum-algorithm md5")
    };
    match options.checksum {
        ChecksumChoice::Auto => Ok(match profile.default_checksum {
            None if options.verify == Verify::Require => Some(Algorithm::Md5),
            preferred => preferred,
        }),
        ChecksumChoice::Use(algorithm)
            if profile.checksums == ChecksumSupport::None && algorithm != Algorithm::Md5 =>
        {
            Err(refuse(format!("the store ({}) takes no {algorithm} checksums", profile.name)))
        }
        ChecksumChoice::Use(algorithm) => Ok(Some(algorithm)),
        ChecksumChoice::None if options.verify == Verify::Require => {
            Err(refuse("proof is required, and without a checksum there is none".into()))
        }
        ChecksumChoice::None => Ok(None),
    }
}
