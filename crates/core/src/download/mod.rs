//! One object into one file, or in order into a writer.
//!
//! The object is looked at once: size, identity, recorded checksums. Its ranges are then fetched
//! concurrently, each pinned to that identity, summed while hot in cache and written at their
//! offset; a range that breaks goes on from the byte it reached. When all are in, what was
//! computed is held against what the store recorded, and only then does a file get its name. A
//! download that ends early keeps what it has for a later run to go on with.

mod check;
mod disk;
mod expect;
mod fetch;
mod mend;
mod resume;
mod sums;

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use futures::StreamExt;

pub(crate) use self::check::{Content, check};
use self::disk::ToDisk;
pub(crate) use self::expect::{Expectation, Found, find};
use self::fetch::fetch_again;
pub(crate) use self::fetch::{Request, fetch};
use self::resume::Target;
pub(crate) use self::sums::{InOrder, Sums};
use self::sums::{Need, PartHashers, PartSums, Segmented};
use crate::account::Account;
use crate::engine::{Engine, blocking, naming_the_stopped, stopped};
use crate::error::{Error, ErrorKind, Result};
use crate::file::{Buffers, Collected, Partial, resolve_target};
use crate::integrity::{Checksum, Hasher, Mismatch, Verified};
use crate::limits::MIB;
use crate::options::{Cancel, DownloadOptions, Verify};
use crate::plan::{self, Part, Plan};
use crate::progress::{Event, Operation};
use crate::record::Warnings;
use crate::report::{Report, ReportedChecksum, throughput};
use crate::schedule::{
    Cost, First, RetryScope, STOP_GRACE, Window, hedged, is_near, run_ordered, run_parts,
};
use crate::transport::{ObjectInfo, Pin};
use crate::url::S3Url;

const OPERATION: &str = "download";

/// Ranges of a stream wait in memory for their turn: as small as still fills a connection (AWS
/// advises 8 to 16 MB), because the window multiplies them.
const STREAM_RANGE_BYTES: u64 = 4 * MIB;

/// The same from a store next door, where a request costs no round trip worth mentioning: those that wait stay
/// in the processors' caches. A stream took a seventh less CPU time than with twice as much.
const NEAR_RANGE_BYTES: u64 = 2 * MIB;

/// Ranges handed to a writer and not yet written. One is being written, one is ready.
const WRITER_QUEUE: usize = 1;

/// Downloads the object at `url` to the file, or into the folder, at `path`, in requests that `window`
/// admits.
pub(crate) async fn to_file(
    engine: &Engine,
    url: &S3Url,
    path: &Path,
    options: &DownloadOptions,
    listed: Option<SystemTime>,
    window: Window,
) -> Result<Report> {
    let started = Instant::now();
    refuse_what_makes_no_sense(engine, url, options)?;
    // Before any request: a wrong path is the most likely mistake.
    let target = resolve_target(path, url.basename())?;
    let shown = if path.is_dir() { path.join(url.basename()) } else { path.to_owned() };
    let shown = shown.display().to_string();
    let mut download = Download::look(engine, url, options, window).await?;
    let (plan, mut file) = download.open_target(&target, Path::new(&shown)).await?;
    download.tell_start(&plan, &shown);
    let (verified, checksum) = match download.fill(&mut file, &plan).await {
        Ok(proof) => proof,
        Err(error) => {
            file.partial.writer().settled().await;
            let ending = move || Err(file.failed(&plan, error));
            return blocking(OPERATION, ending).await;
        }
    };
    let modified = download.info.last_modified.map(|told| finer(told, listed));
    file.partial.keep_modified(modified.filter(|_| options.keep_modified));
    let syncing = Instant::now();
    blocking(OPERATION, move || file.commit(&plan)).await?;
    download.account.synced_since(syncing);
    Ok(download.report(started, &plan, shown, verified, checksum))
}

/// The time of an object that headers tell in whole seconds, as a listing told it, unless that is another time: some
/// stores list milliseconds, and who compares those would find the file to be the older one.
fn finer(told: SystemTime, listed: Option<SystemTime>) -> SystemTime {
    let within =
        |at: &SystemTime| at.duration_since(told).is_ok_and(|after| after < Duration::from_secs(1));
    listed.filter(within).unwrap_or(told)
}

/// Downloads the object at `url` into `writer`, in order.
pub(crate) async fn to_writer(
    engine: &Engine,
    url: &S3Url,
    writer: Box<dyn Write + Send>,
    label: &str,
    options: &DownloadOptions,
) -> Result<Report> {
    let started = Instant::now();
    refuse_what_makes_no_sense(engine, url, options)?;
    let window = engine.window(options.concurrency);
    let mut download = Download::look(engine, url, options, window).await?;
    // Once written, the bytes cannot be summed again for parts of other sizes than the first one.
    let asked = download.found.with_listed_parts(engine, url, &download.pin, &download.scope);
    if let Some((found, _)) = asked.await {
        download.found = found;
    }
    let near = is_near(download.answered_after);
    let fitting = if near { NEAR_RANGE_BYTES } else { STREAM_RANGE_BYTES };
    let range = options.part_size_bytes.unwrap_or(fitting);
    let plan = plan::download(download.info.size_bytes, Some(range), None)
        .map_err(|error| error.into_error(OPERATION, url.to_string()))?;
    download.tell_start(&plan, label);
    let moving = Instant::now();
    let sums = download.stream_into(writer, label, &plan).await;
    download.account.moved_since(moving);
    let sums = sums?;
    options.events.emit(|| Event::Verifying);
    let (verified, checksum) = download.found.compare(&sums).map_err(|mismatch| {
        let advice = "what was written is not the object";
        download.mismatched(mismatch, &download.found, advice)
    })?;
    download.settle(verified, "what was written may not be the object")?;
    Ok(download.report(started, &plan, label.to_owned(), verified, checksum))
}

/// One download under way.
struct Download<'a> {
    engine: &'a Engine,
    url: &'a S3Url,
    options: &'a DownloadOptions,
    scope: RetryScope,
    account: Account,
    info: ObjectInfo,
    /// How long the answer took that says so.
    answered_after: Duration,
    pin: Arc<Pin>,
    found: Found,
    concurrency: usize,
    /// Bytes of parts that earlier runs had fetched.
    kept_bytes: Arc<AtomicU64>,
    /// What is wrong with the manifest.
    record_warnings: Warnings,
    warnings: Vec<String>,
}

impl<'a> Download<'a> {
    /// Looks at the object, and at what can be compared in the end.
    async fn look(
        engine: &'a Engine,
        url: &'a S3Url,
        options: &'a DownloadOptions,
        window: Window,
    ) -> Result<Self> {
        let flow = engine.flow(&options.events);
        let account = Account::open(engine.lanes(), &flow);
        let scope = RetryScope::new(&flow, options.cancel.clone()).within(window);
        let (version, key) = (options.version_id.as_deref(), options.customer_key.as_ref());
        let asked = Instant::now();
        let info = tokio::select! {
            info = engine.head(url, version, key, &scope) => {
                info.map_err(|error| error.during(OPERATION))?
            }
            () = options.cancel.cancelled() => return Err(stopped(OPERATION, url)),
        };
        let answered_after = asked.elapsed();
        let pin = Arc::new(Pin {
            etag: info.etag.clone(),
            version_id: info.version_id.clone().or_else(|| options.version_id.clone()),
            customer_key: options.customer_key.clone(),
        });
        let mut warnings = Vec::new();
        if pin.etag.is_none() && pin.version_id.is_none() {
            warnings.push(
                "the store gave no ETag: an object overwritten during the download would not be \
                 noticed"
                    .to_owned(),
            );
        }
        let found = match options.verify {
            Verify::Off => Found::unasked(&info),
            _ => find(engine, url, &info, &pin, &scope).await?,
        };
        if let Expectation::Nothing { why } = &found.expectation
            && options.verify != Verify::Off
        {
            if options.verify == Verify::Require {
                return Err(Error::new(
                    ErrorKind::Integrity,
                    OPERATION,
                    url.to_string(),
                    format!("it cannot be verified: {why}"),
                )
                .advise("nothing was stored; accept it unverified with --verify auto"));
            }
            warnings.push(format!("unverified: {why}"));
        }
        for message in &warnings {
            options.events.emit(|| Event::Warning { message: message.clone() });
        }
        let concurrency = scope.window().limit();
        let kept_bytes = Arc::default();
        Ok(Self {
            engine,
            url,
            options,
            scope,
            account,
            info,
            answered_after,
            pin,
            found,
            concurrency,
            kept_bytes,
            record_warnings: Warnings::new(options.events.clone()),
            warnings,
        })
    }

    fn tell_start(&self, plan: &Plan, target: &str) {
        self.scope.expect_parts(plan.part_count());
        self.options.events.emit(|| Event::Started {
            operation: Operation::Download,
            source: self.url.to_string(),
            target: target.to_owned(),
            size_bytes: plan.size_bytes(),
            parts: plan.part_count(),
            part_size_bytes: plan.part_size_bytes(),
            concurrency: self.concurrency,
        });
    }

    /// Fetches what is missing and proves the whole: a file that is ready for its name.
    async fn fill(
        &mut self,
        file: &mut Target,
        plan: &Plan,
    ) -> Result<(Verified, Option<Checksum>)> {
        let need = self.found.need(plan);
        file.choose_writer(plan, self.options.direct_io, &need);
        // A disk may need more of them to be busy.
        if !file.partial.writer().is_direct() {
            self.scope.window().begins_nearby(self.engine.lanes(), self.answered_after);
        }
        let moving = Instant::now();
        let moved = self.move_parts(file, plan, &need).await;
        self.account.moved_since(moving);
        let mut parts = moved?;
        self.warn_of_cached_writes(file);
        self.options.events.emit(|| Event::Verifying);
        let proof = match self.prove_file(file, plan, &parts, &need).await {
            Err(mismatch) if mismatch.kind() == ErrorKind::Integrity => {
                if !self.mend(file, plan, &mut parts, &need).await? {
                    return Err(mismatch);
                }
                self.prove_file(file, plan, &parts, &need).await
            }
            proof => proof,
        };
        let (verified, checksum) = proof?;
        self.settle(verified, "nothing was stored")?;
        self.options.events.emit(|| Event::Finishing);
        if self.options.cancel.is_cancelled() {
            return Err(stopped(OPERATION, self.url));
        }
        Ok((verified, checksum))
    }

    /// Fetches the ranges that are not there yet, while those that are said to be are checked; then
    /// the ones of them that are not. Gives the sums of all, in order.
    async fn move_parts(
        &mut self,
        file: &Target,
        plan: &Plan,
        need: &Need,
    ) -> Result<Vec<PartSums>> {
        let missing = plan.parts().filter(|part| !file.claims.contains_key(&part.number));
        if file.claims.is_empty() {
            let cancel = &self.options.cancel;
            let fetched = self.fetch_into(file, plan, missing, need, cancel).await?;
            return Ok(fetched.into_iter().map(|(_, sums)| sums).collect());
        }
        // If one of the two fails, the other is no longer wanted.
        let stop = self.options.cancel.child();
        let fetching = async {
            let fetched = self.fetch_into(file, plan, missing, need, &stop).await;
            if fetched.is_err() {
                stop.cancel();
            }
            fetched
        };
        let checking = async {
            let checked = self.check_claims(plan, file, need.while_fetched, &stop).await;
            if checked.is_err() {
                stop.cancel();
            }
            checked
        };
        let (mut parts, checked) = match futures::join!(fetching, checking) {
            (Ok(fetched), Ok(checked)) => (fetched, checked),
            // One of them was only stopped; the other knows why.
            (Err(error), Err(other)) if error.kind() == ErrorKind::Interrupted => {
                return Err(other);
            }
            (Err(error), _) | (Ok(_), Err(error)) => return Err(error),
        };
        self.warn_of_broken_claims(&checked.missing);
        parts.extend(checked.good);
        let (again, cancel) = (checked.missing.into_iter(), &self.options.cancel);
        parts.extend(self.fetch_into(file, plan, again, need, cancel).await?);
        parts.sort_unstable_by_key(|(number, _)| *number);
        Ok(parts.into_iter().map(|(_, sums)| sums).collect())
    }

    /// Fetches ranges into the partial file; gives the number and the sums of each.
    async fn fetch_into(
        &self,
        target: &Target,
        plan: &Plan,
        parts: impl Iterator<Item = Part>,
        need: &Need,
        cancel: &Cancel,
    ) -> Result<Vec<(u32, PartSums)>> {
        // An empty object has no range that could be asked for.
        let parts = parts.filter(|part| part.len_bytes > 0);
        let request = self.request(plan);
        let (writer, path) = (target.partial.writer().clone(), Arc::new(target.path.clone()));
        let needed = need.while_fetched;
        let job = |lane, part: Part| {
            let (request, writer, path) = (request.clone(), writer.clone(), path.clone());
            let (recorder, written) = (target.recorder.clone(), Arc::clone(&target.written_bytes));
            async move {
                let (is_on, flow) = (recorder.is_on(), &request.flow);
                let range = || writer.range(part.offset_bytes, path.clone(), flow.clone());
                let first = async {
                    let mut to_disk = ToDisk::new(PartHashers::new(needed, is_on), range());
                    fetch(&request, lane, part, &mut to_disk).await?;
                    Ok(to_disk.sums())
                };
                let again = async || {
                    let mut hashers = PartHashers::new(needed, is_on);
                    let fetched =
                        fetch_again(&request, lane, part, |chunk| hashers.update(chunk)).await?;
                    Ok((fetched, hashers.finish()))
                };
                let sums = match hedged(&request.scope, first, again).await? {
                    First::Try(sums) => sums,
                    First::Again(((chunks, _memory), sums)) => {
                        // What the first try left on its way to the disk must not come later.
                        writer.settled().await;
                        let mut range = range();
                        for chunk in chunks {
                            range.write(&chunk).await?;
                        }
                        range.finish().await?;
                        request.tell_again(part);
                        sums
                    }
                };
                recorder.part(part.number, sums.crc, None);
                written.fetch_add(part.len_bytes, Ordering::Relaxed);
                Ok((part.number, sums))
            }
        };
        let lanes = self.engine.lanes();
        let grace = if target.recorder.is_on() { STOP_GRACE } else { Duration::ZERO };
        run_parts(lanes, target.range_cost(), parts, &self.scope.stopped_by(cancel), grace, job)
            .await
            .map_err(naming_the_stopped(OPERATION, self.url))
    }

    /// Compares; where the bytes have to be summed in order, the file is read once more for that.
    async fn prove_file(
        &self,
        target: &Target,
        plan: &Plan,
        parts: &[PartSums],
        need: &Need,
    ) -> Result<(Verified, Option<Checksum>)> {
        let partial = &target.partial;
        let sums = match &need.second_read {
            Some(segments) => self.read_again(partial, segments).await?,
            None if plan.size_bytes() == 0 => need.of_nothing(),
            None => {
                let digests: Vec<_> = parts.iter().map(|sums| sums.needed).collect();
                need.gather(plan, &digests)
            }
        };
        let mut outcome = self.found.compare(&sums);
        let mut found = self.found.clone();
        if !matches!(&outcome, Ok((verified, _)) if verified.is_proof()) {
            // The parts may be of other sizes than the first one suggests: ask for all of them
            // before calling the bytes wrong, or unproven.
            let asked = found.with_listed_parts(self.engine, self.url, &self.pin, &self.scope);
            if let Some((certain, segments)) = asked.await {
                found = certain;
                if let Some(segments) = segments {
                    outcome = found.compare(&self.read_again(partial, &segments).await?);
                }
            }
        }
        outcome.map_err(|mismatch| self.mismatched(mismatch, &found, "nothing was stored"))
    }

    async fn read_again(&self, partial: &Partial, of: &Segmented) -> Result<Sums> {
        let cancel = &self.options.cancel;
        let read = sums::read_again(partial.reader(), of, cancel).await;
        // A read that a cancel broke off says no more than that.
        if cancel.is_cancelled() { Err(stopped(OPERATION, self.url)) } else { read }
    }

    /// Fetches ranges ahead and writes them in order, on a thread of the writer's own.
    async fn stream_into(
        &self,
        writer: Box<dyn Write + Send>,
        label: &str,
        plan: &Plan,
    ) -> Result<Sums> {
        // Summed while hot in cache where ranges can be combined, else by the writer, in order.
        let need = self.found.need(plan);
        let in_order = match need.second_read {
            Some(_) => self.found.need_in_order().in_order(),
            None => InOrder::nothing(),
        };
        let algorithm = need.while_fetched;
        let request = self.request(plan);
        let buffers = Buffers::default();
        let job = move |lane, part: Part| {
            let (request, buffers) = (request.clone(), buffers.clone());
            async move {
                let first = async {
                    let mut hasher = algorithm.map(Hasher::new);
                    let mut collected = Collected::new(&buffers, part.len_bytes);
                    fetch(&request, lane, part, &mut |chunk: Bytes| {
                        if let Some(hasher) = &mut hasher {
                            hasher.update(&chunk);
                        }
                        collected.take(&chunk);
                        Ok(())
                    })
                    .await?;
                    Ok((collected.finish(), hasher.map(Hasher::finish)))
                };
                let again = async || {
                    let mut hasher = algorithm.map(Hasher::new);
                    let (chunks, _) = fetch_again(&request, lane, part, |chunk| {
                        if let Some(hasher) = &mut hasher {
                            hasher.update(chunk);
                        }
                    })
                    .await?;
                    Ok((chunks, hasher.map(Hasher::finish)))
                };
                Ok(match hedged(&request.scope, first, again).await? {
                    First::Try(fetched) => fetched,
                    First::Again(fetched) => {
                        request.tell_again(part);
                        fetched
                    }
                })
            }
        };
        let (queue, ranges_in_order) = tokio::sync::mpsc::channel(WRITER_QUEUE);
        let (label, flow) = (label.to_owned(), self.scope.flow().clone());
        // While the writer waits, they all do.
        let lanes = u32::try_from(self.engine.lanes().count()).unwrap_or(u32::MAX);
        let writing = tokio::task::spawn_blocking(move || {
            sums::write_in_order(writer, &label, ranges_in_order, in_order, |waited| {
                flow.disk(waited * lanes);
            })
        });
        // An empty object has no range that could be asked for.
        let parts = plan.parts().filter(|part| part.len_bytes > 0);
        let lanes = Arc::clone(self.engine.lanes());
        // It waits in memory for its turn, all of it.
        let cost = Cost { memory_bytes: Collected::memory_bytes(plan.part_size_bytes()) };
        self.scope.window().begins_nearby(&lanes, self.answered_after);
        let mut ranges = std::pin::pin!(run_ordered(lanes, cost, parts, self.scope.clone(), job));
        let mut joining = need.joining();
        let mut fetched = plan.parts();
        let written = async {
            while let Some(((chunks, digest), memory)) = ranges.next().await.transpose()? {
                if let Some(range) = fetched.next() {
                    joining.add(range, digest);
                }
                // A writer that ended early knows why.
                if queue.send((chunks, memory)).await.is_err() {
                    break;
                }
            }
            drop(queue);
            writing.await.map_err(|source| {
                let what = "the writer's thread ended";
                Error::new(ErrorKind::Io, OPERATION, self.url.to_string(), what).caused_by(source)
            })?
        };
        // The reader at the other end may have stopped reading: that must not hold up a cancel.
        let in_order = tokio::select! {
            outcome = written => outcome?,
            () = self.options.cancel.cancelled() => return Err(stopped(OPERATION, self.url)),
        };
        Ok(match algorithm {
            Some(_) if plan.size_bytes() > 0 => joining.finish(),
            Some(_) => need.of_nothing(),
            None => in_order,
        })
    }

    /// What was expected to be proof may have turned out to be none: an `ETag` that looked like an
    /// MD5 and is none.
    fn settle(&mut self, verified: Verified, consequence: &str) -> Result<()> {
        let expected = !matches!(self.found.expectation, Expectation::Nothing { .. });
        if verified.is_proof() || !expected {
            return Ok(());
        }
        let why = format!(
            "the ETag is not the MD5 it looks like, or the parts are of unknown sizes{}",
            self.found.why_unlisted()
        );
        if self.options.verify == Verify::Require {
            return Err(Error::new(
                ErrorKind::Integrity,
                OPERATION,
                self.url.to_string(),
                format!("it cannot be verified: {why}"),
            )
            .advise(format!("{consequence}; accept it unverified with --verify auto")));
        }
        self.warn(format!("unverified: {why}"));
        Ok(())
    }

    fn warn(&mut self, message: String) {
        self.options.events.emit(|| Event::Warning { message: message.clone() });
        self.warnings.push(message);
    }

    fn request(&self, plan: &Plan) -> Arc<Request> {
        Arc::new(self.new_request(plan))
    }

    fn new_request(&self, plan: &Plan) -> Request {
        Request {
            engine: self.engine.clone(),
            url: self.url.clone(),
            pin: Arc::clone(&self.pin),
            total_bytes: plan.size_bytes(),
            scope: self.scope.clone(),
            flow: self.scope.flow().clone(),
        }
    }

    fn mismatched(&self, mismatch: Mismatch, found: &Found, advice: &str) -> Error {
        mismatch
            .into_error(OPERATION, self.url.to_string())
            .context("the bytes that arrived are not the bytes that were stored")
            .advise(if found.assumes_equal_parts() {
                format!(
                    "{advice}; start it again, or, as the store does not list the object's parts{} \
                     and they may be of unequal sizes, compare it in another way",
                    found.why_unlisted()
                )
            } else {
                format!("{advice}; start it again")
            })
    }

    fn report(
        self,
        started: Instant,
        plan: &Plan,
        target: String,
        verified: Verified,
        checksum: Option<Checksum>,
    ) -> Report {
        let time = self.account.close(self.scope.window().wants_more());
        let elapsed = started.elapsed();
        let resumed_bytes = self.kept_bytes.load(Ordering::Relaxed);
        Report {
            operation: Operation::Download,
            source: self.url.to_string(),
            target,
            bytes: plan.size_bytes(),
            elapsed_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
            resumed_bytes,
            throughput_bytes_per_s: throughput(
                plan.size_bytes().saturating_sub(resumed_bytes),
                elapsed,
            ),
            parts: plan.part_count(),
            part_size_bytes: plan.part_size_bytes(),
            concurrency: self.scope.window().limit(),
            time,
            limited_by: time.limited_by().0,
            retries: self.scope.repeated(),
            verified,
            checksum: checksum.as_ref().map(ReportedChecksum::from),
            etag: self.info.etag.as_deref().map(|etag| etag.trim_matches('"').to_owned()),
            source_etag: self.info.etag,
            version_id: self.info.version_id,
            store_profile: self.engine.store().profile().name.clone(),
            warnings: self.record_warnings.all().into_iter().chain(self.warnings).collect(),
        }
    }
}

fn refuse_what_makes_no_sense(
    engine: &Engine,
    url: &S3Url,
    options: &DownloadOptions,
) -> Result<()> {
    if url.key().is_empty() {
        return Err(Error::new(ErrorKind::InvalidInput, OPERATION, url.to_string(), "no key")
            .advise("write it as s3://bucket/key"));
    }
    if options.customer_key.is_some() {
        engine.refuse_plain_customer_key(OPERATION, url)?;
    }
    Ok(())
}
