//! One file into one object: plan, sum, send, complete, prove.
//!
//! What fits one part goes as a `PutObject`; the rest as a multipart upload whose parts are sent
//! concurrently, each with its checksum in a header. The checksum of the whole object is combined
//! from the parts' (no second pass over the file), sent with the completion so that the store
//! refuses an object of other bytes, and compared once more with what the store then says. An
//! upload that ends early is kept with its manifest, for a later run to go on with; where nothing is
//! recorded, or nothing of it can be used again, it is aborted: nothing stays behind that costs money.

mod claims;
mod multipart;
mod prove;
mod unfinished;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

pub(crate) use self::multipart::abort;
use self::prove::Computed;
use crate::account::Account;
use crate::engine::{Engine, stopped};
use crate::error::{CHECK_PERMISSIONS, Error, ErrorKind, Result};
use crate::file::{Content, Source, timed};
use crate::flow::Flow;
use crate::integrity::{Algorithm, Checksum, Digest, Hasher, Md5ETag, Verified};
use crate::limits::{ChecksumSupport, StoreProfile};
use crate::manifest::Manifest;
use crate::options::{ChecksumChoice, Encryption, UploadOptions, Verify};
use crate::plan::{Part, Plan};
use crate::progress::{Event, Operation};
use crate::record::{Recorder, Warnings};
use crate::report::{Report, ReportedChecksum, throughput};
use crate::schedule::{RetryScope, Window};
use crate::transport::{Payload, Receipt, TOKEN_NAME};
use crate::url::S3Url;

const OPERATION: &str = "upload to";

/// Bytes summed between two chances for the lane's other parts to run: under a millisecond of
/// CRC32, a few of SHA-256.
const SUM_STEP_BYTES: usize = 4 << 20;

/// Times that an upload is started in all when other writers of the same key get in its way.
const RACE_ROUNDS: u32 = 3;

/// Uploads the file at `path` to `url`, in requests that `window` admits.
pub(crate) async fn run(
    engine: &Engine,
    path: &Path,
    url: &S3Url,
    options: &UploadOptions,
    window: Window,
) -> Result<Report> {
    let started = Instant::now();
    let flow = engine.flow(&options.events);
    let account = Account::open(engine.lanes(), &flow);
    let scope = RetryScope::new(&flow, options.cancel.clone()).within(window);
    let source = Source::open(path, options.direct_io)?;
    if let Encryption::Customer(_) = &options.encryption {
        engine.refuse_plain_customer_key(OPERATION, url)?;
    }
    if url.key().is_empty() {
        return Err(Error::new(ErrorKind::InvalidInput, OPERATION, url.to_string(), "no key")
            .advise("write it as s3://bucket/key"));
    }
    let profile = tokio::select! {
        profile = engine.profile_for(url.bucket(), &scope) => {
            profile.map_err(|error| error.during(OPERATION))?
        }
        () = options.cancel.cancelled() => return Err(stopped(OPERATION, url)),
    };
    let mut upload = Upload {
        engine,
        source: &source,
        url,
        options,
        algorithm: choose_algorithm(&profile, url, options)?,
        profile,
        scope: &scope,
        account: &account,
        concurrency: scope.window().limit(),
        recorder: Recorder::default(),
        unfinished: None,
        open_intents_unix_s: Vec::new(),
        strays: Vec::new(),
        parts_are_in: AtomicBool::new(false),
        acknowledged_bytes: Arc::default(),
        kept_bytes: Arc::default(),
        record_warnings: Warnings::new(options.events.clone()),
        warnings: Vec::new(),
    };
    let plan = upload.plan().await?;
    scope.expect_parts(plan.part_count());
    let kept_bytes = Arc::clone(&upload.kept_bytes);
    let record_warnings = upload.record_warnings.clone();
    options.events.emit(|| Event::Started {
        operation: Operation::Upload,
        source: path.display().to_string(),
        target: url.to_string(),
        size_bytes: plan.size_bytes(),
        parts: plan.part_count(),
        part_size_bytes: plan.part_size_bytes(),
        concurrency: upload.concurrency,
    });
    let outcome = upload.carry_out(&plan).await?;
    let time = account.close(scope.window().wants_more());
    let elapsed = started.elapsed();
    let resumed_bytes = kept_bytes.load(Ordering::Relaxed);
    Ok(Report {
        operation: Operation::Upload,
        source: path.display().to_string(),
        target: url.to_string(),
        bytes: plan.size_bytes(),
        elapsed_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
        resumed_bytes,
        throughput_bytes_per_s: throughput(
            plan.size_bytes().saturating_sub(resumed_bytes),
            elapsed,
        ),
        parts: plan.part_count(),
        part_size_bytes: plan.part_size_bytes(),
        concurrency: scope.window().limit(),
        time,
        limited_by: time.limited_by().0,
        retries: scope.repeated(),
        verified: outcome.verified,
        checksum: outcome.checksum.as_ref().map(ReportedChecksum::from),
        etag: outcome.receipt.etag.map(|etag| etag.trim_matches('"').to_owned()),
        version_id: outcome.receipt.version_id,
        store_profile: engine.store().profile().name.clone(),
        warnings: record_warnings.all().into_iter().chain(outcome.warnings).collect(),
    })
}

/// One upload under way.
struct Upload<'a> {
    engine: &'a Engine,
    source: &'a Source,
    url: &'a S3Url,
    options: &'a UploadOptions,
    algorithm: Option<Algorithm>,
    profile: Arc<StoreProfile>,
    scope: &'a RetryScope,
    account: &'a Account,
    concurrency: usize,
    recorder: Recorder,
    /// What an earlier run left, until it is taken up.
    unfinished: Option<Manifest>,
    /// Requests to create an upload, of runs before and this one, whose outcome nobody heard.
    open_intents_unix_s: Vec<u64>,
    /// Ids of uploads that such requests have begun.
    strays: Vec<String>,
    /// Whether all parts are on the store.
    parts_are_in: AtomicBool,
    /// Bytes of parts that the store has, by this run and earlier ones.
    acknowledged_bytes: Arc<AtomicU64>,
    /// Those of earlier ones.
    kept_bytes: Arc<AtomicU64>,
    /// What is wrong with the manifest.
    record_warnings: Warnings,
    warnings: Vec<String>,
}

/// What an upload came to.
struct Outcome {
    receipt: Receipt,
    verified: Verified,
    checksum: Option<Checksum>,
    warnings: Vec<String>,
}

impl Upload<'_> {
    async fn carry_out(mut self, plan: &Plan) -> Result<Outcome> {
        if self.options.if_none_match && !self.profile.conditional_writes {
            self.warn(format!(
                "the store ({}) may ignore --if-none-match: an existing object could have been \
                 replaced",
                self.profile.name
            ));
        }
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
                        self.forget().await;
                    }
                    return Err(self.in_words(error));
                }
            }
        };
        let source = self.source;
        let outcome = self.prove(receipt, &computed).await?;
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
        let _admission = tokio::select! {
            admission = self.scope.window().admit(self.cost().of(part)) => admission,
            () = self.options.cancel.cancelled() => return Err(stopped(OPERATION, self.url)),
        };
        self.tell_start(part);
        let started = Instant::now();
        let memory = || self.scope.window().spare(part.len_bytes);
        let waited = |time| self.scope.flow().queued_for_disk(time);
        let brought = self.source.bring(part, memory, waited).await;
        let mut digest = match self.algorithm {
            Some(algorithm) => Some(sum(&brought.content()?, algorithm, self.scope.flow()).await?),
            None => None,
        };
        // Only a conditional upload can meet its own object and take it for somebody else's.
        let mut options = self.options.clone();
        let token = options.if_none_match.then(new_token);
        options.metadata.extend(token.clone().map(|token| (TOKEN_NAME.to_owned(), token)));
        let receipt = loop {
            let attempt = async |number| {
                let content = brought.content()?;
                let flow = self.scope.flow();
                let digest = summed_for(number, &content, digest, flow).await?;
                let sign = !self.profile.unsigned_payload;
                let payload = Payload { content, digest, sign, flow: flow.clone() };
                self.engine.calls().put(self.url, payload, &options).await
            };
            let putting = self.engine.retry().run(self.scope, Some(1), attempt);
            let put = tokio::select! {
                put = putting => put,
                () = self.options.cancel.cancelled() => Err(stopped(OPERATION, self.url)),
            };
            match put {
                Ok(receipt) => break receipt,
                Err(error) if digest.is_some() && self.may_step_down(&error) => {
                    self.warn_of_step_down(&error);
                    digest = None;
                }
                Err(error) if error.kind() == ErrorKind::Conflict && !lost_a_race(&error) => {
                    match &token {
                        Some(token) => break self.settle(token, error).await?,
                        None => return Err(error),
                    }
                }
                Err(error) => return Err(blame(self.source, error)),
            }
        };
        brought.give_back();
        self.scope.window().succeeded();
        self.account.moved_since(started);
        self.tell_end(part, started);
        let computed = Computed {
            full_object: digest.map(Checksum::full_object),
            md5: digest.and_then(Md5ETag::of_whole),
            composite: None,
        };
        Ok((receipt, computed))
    }

    /// Finds out whether the store did the work whose answer was lost. That an object is there
    /// proves nothing; that it carries this upload's token does. Else it was `error`.
    async fn settle(&self, token: &str, error: Error) -> Result<Receipt> {
        // Not stopped by a cancel: what is to be found out has happened already.
        let scope = RetryScope::of_cleanup();
        let key = self.options.encryption.customer_key();
        let look = |_| self.engine.calls().head(self.url, None, key);
        match self.engine.retry().run(&scope, None, look).await {
            Ok(info) if info.metadata.get(TOKEN_NAME).is_some_and(|found| found == token) => {
                Ok(Receipt {
                    etag: info.etag,
                    version_id: info.version_id,
                    checksums: info.checksums,
                    encryption: info.encryption,
                })
            }
            Ok(_) => Err(error),
            Err(missing) if missing.kind() == ErrorKind::NotFound => Err(error),
            Err(unknown) => Err(error.advise(format!(
                "it is not known whether the object was stored ({}): look at it before trying again",
                unknown.detail()
            ))),
        }
    }

    /// Whether the store may have refused only the checksum, and nobody insisted on it.
    fn may_step_down(&self, error: &Error) -> bool {
        error.may_be_of_a_header()
            && self.options.checksum == ChecksumChoice::Auto
            && self.options.verify != Verify::Require
    }

    fn warn_of_step_down(&mut self, error: &Error) {
        self.warn(format!(
            "the store refused the checksum ({}); it was left out: a store profile with checksums \
             = \"none\" says so in advance",
            error.detail()
        ));
    }

    fn warn(&mut self, message: String) {
        self.options.events.emit(|| Event::Warning { message: message.clone() });
        self.warnings.push(message);
    }

    /// The same error, in the words of this upload.
    fn in_words(&self, error: Error) -> Error {
        if error.code() == Some("PreconditionFailed") && self.options.if_none_match {
            return Error::new(
                ErrorKind::Conflict,
                OPERATION,
                self.url.to_string(),
                "the object exists already",
            )
            .advise("leave out --if-none-match to replace it")
            .caused_by(error);
        }
        match self.algorithm {
            // Some stores refuse so what they do not know, and this one may be one of them.
            Some(algorithm)
                if error.is_of_permissions()
                    && algorithm != Algorithm::Md5
                    && self.profile.checksums != ChecksumSupport::FullObject =>
            {
                error.advise(format!(
                    "{CHECK_PERMISSIONS}, and whether the store knows {algorithm} checksums: \
                     without them, use checksums = \"none\" in a store profile"
                ))
            }
            _ => error,
        }
    }

    fn tell_start(&self, part: Part) {
        tell_start(self.options, part);
    }

    fn tell_end(&self, part: Part, started: Instant) {
        tell_end(self.options, part, started);
    }
}

/// What tells this upload's object from anybody else's: 128 random bits.
fn new_token() -> String {
    (0..32).map(|_| fastrand::digit(16)).collect()
}

/// S3's 409 for a write that met another one of the same key.
fn lost_a_race(error: &Error) -> bool {
    error.code() == Some("ConditionalRequestConflict")
}

fn tell_start(options: &UploadOptions, part: Part) {
    let (part, size_bytes) = (part.number, part.len_bytes);
    options.events.emit(|| Event::PartStarted { part, size_bytes });
}

fn tell_end(options: &UploadOptions, part: Part, started: Instant) {
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
async fn summed_for(
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
async fn sum(content: &Content, algorithm: Algorithm, flow: &Flow) -> Result<Digest> {
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
