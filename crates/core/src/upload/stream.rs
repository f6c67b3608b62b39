//! A stream into one object: its length is not known, it comes once, and nobody waits for its end to
//! begin.
//!
//! What fits one part goes as a `PutObject`. The rest is cut into parts as it comes, each read, in
//! their order, when there is memory for it, and held until the store has it. Stores bound the number of
//! parts, so the size of the first ones bounds what a stream may bring, its *reach*: equal parts on
//! stores that want them so; elsewhere they grow, as far as memory lets them. Who knows how long it will
//! be says so, or has it spooled: written to a disk first, and uploaded as a file.
//!
//! Such an upload cannot be resumed, but it is recorded, so that one whose process was killed can be
//! found and aborted.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::assembly::{Assembly, Begun, Completed, Outcome};
use super::prove::Computed;
use super::{
    OPERATION, RACE_ROUNDS, choose_algorithm, ended_report, lost_a_race, prepare, run_shown, sum,
    tell_end, tell_start,
};
use crate::account::Account;
use crate::engine::{Engine, blocking, naming_the_stopped, stopped};
use crate::error::{Error, ErrorKind, Result};
use crate::file::{Chunk, Content, Incoming};
use crate::limits::{MIB, StoreProfile, format_size};
use crate::manifest::{Side, Text, Transfer};
use crate::options::{Resume, StreamOptions, UploadOptions};
use crate::plan::{self, DEFAULT_PART_SIZE_BYTES, MAX_DEFAULT_PART_SIZE_BYTES, Part};
use crate::progress::{Event, Operation};
use crate::record::{self, Opening, Recorder, texts, unix_now};
use crate::report::Report;
use crate::schedule::{RetryScope, Turns, Window, run_parts};
use crate::transport::{PartReceipt, Receipt};
use crate::url::S3Url;

/// What a stream is called in reports, manifests and messages.
const LABEL: &str = "-";

/// Parts that the budget should hold at a time: enough to keep connections busy.
const PARTS_IN_MEMORY: u64 = 12;

/// What parts grow to, in sizes of the first ones, each over an equal share of the numbers.
const GROWTH: [u64; 4] = [1, 2, 3, 4];

/// Bytes that are written to the disk at a time.
const SPOOL_BYTES: usize = 1 << 20;

/// Uploads what `reader` brings to `url`, in requests that `window` admits.
pub(crate) async fn from_reader(
    engine: &Engine,
    reader: Box<dyn Read + Send>,
    url: &S3Url,
    options: &StreamOptions,
    window: Window,
) -> Result<Report> {
    if let Some(folder) = &options.spool_folder {
        return spooled(engine, reader, url, (folder, &options.upload), window).await;
    }
    let (started, upload) = (Instant::now(), &options.upload);
    let flow = engine.flow(&upload.events);
    let account = Account::open(engine.lanes(), &flow);
    let scope = RetryScope::new(&flow, upload.cancel.clone()).within(window);
    let profile = prepare(engine, OPERATION, url, upload, &scope).await?;
    let sizes = Sizes::choose(options, &profile, scope.window().memory_bytes())
        .map_err(|error| error.into_error(OPERATION, url.to_string()))?;
    let algorithm = choose_algorithm(&profile, url, upload)?;
    let assembly = Assembly::new(engine, OPERATION, url, upload, &scope, profile, algorithm);
    let concurrency = scope.window().limit();
    upload.events.emit(|| Event::Started {
        operation: Operation::Upload,
        source: LABEL.to_owned(),
        target: url.to_string(),
        size_bytes: options.expected_size_bytes.unwrap_or(0),
        parts: 0,
        part_size_bytes: sizes.first_bytes,
        concurrency,
    });
    let incoming = Incoming::new(reader).map_err(failed)?;
    let mut stream =
        Stream { assembly, account: &account, sizes, expected: options.expected_size_bytes };
    let (outcome, parts, bytes) = stream.carry_out(incoming).await?;
    let time = account.close(scope.window().wants_more());
    Ok(Report {
        operation: Operation::Upload,
        source: LABEL.to_owned(),
        target: url.to_string(),
        bytes,
        parts,
        part_size_bytes: sizes.first_bytes,
        ..ended_report(engine, &scope, started, bytes, time, outcome)
    })
}

/// How large the parts are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sizes {
    first_bytes: u64,
    grows: bool,
    max_parts: u32,
    max_part_bytes: u64,
    max_object_bytes: u64,
}

impl Sizes {
    fn choose(
        options: &StreamOptions,
        profile: &StoreProfile,
        memory_bytes: u64,
    ) -> Result<Self, plan::PlanError> {
        let asked = options.upload.part_size_bytes;
        let (first_bytes, grows) = match (asked, options.expected_size_bytes) {
            // Also finds out whether the store takes parts of that size.
            (Some(asked), expected) => {
                let least = expected.unwrap_or_else(|| asked.saturating_add(1));
                (plan::upload(least, Some(asked), profile)?.part_size_bytes(), false)
            }
            (None, Some(expected)) => {
                (plan::upload(expected, None, profile)?.part_size_bytes(), false)
            }
            (None, None) => {
                let share = memory_bytes / PARTS_IN_MEMORY / MIB * MIB;
                let share = share.clamp(DEFAULT_PART_SIZE_BYTES, MAX_DEFAULT_PART_SIZE_BYTES);
                let (least, most) = (profile.min_part_size_bytes, profile.max_part_size_bytes);
                (share.max(least).min(most), !profile.equal_parts)
            }
        };
        Ok(Self {
            first_bytes,
            grows,
            max_parts: profile.max_parts,
            // The memory holds two of the largest, or they would go one after the other.
            max_part_bytes: profile.max_part_size_bytes.min((memory_bytes / 2).max(first_bytes)),
            max_object_bytes: profile.max_object_size_bytes,
        })
    }

    /// Of part `number`, from 1.
    fn of(&self, number: u32) -> u64 {
        let share = self.max_parts.div_ceil(4).max(1);
        let step = usize::try_from((number - 1) / share).unwrap_or(GROWTH.len() - 1);
        let times = if self.grows { GROWTH[step.min(GROWTH.len() - 1)] } else { 1 };
        self.first_bytes.saturating_mul(times).min(self.max_part_bytes)
    }

    /// The most that all parts hold together.
    fn reach_bytes(&self) -> u64 {
        let all =
            (1..=self.max_parts).fold(0_u64, |all, number| all.saturating_add(self.of(number)));
        all.min(self.max_object_bytes)
    }

    /// All parts, as if each were full.
    fn parts(&self) -> impl Iterator<Item = Part> + use<> {
        let sizes = *self;
        (1..=sizes.max_parts).scan(0, move |offset, number| {
            let part = Part { number, offset_bytes: *offset, len_bytes: sizes.of(number) };
            *offset += part.len_bytes;
            Some(part)
        })
    }
}

struct Stream<'a> {
    assembly: Assembly<'a>,
    account: &'a Account,
    sizes: Sizes,
    expected: Option<u64>,
}

/// A part that was sent.
struct Sent {
    receipt: PartReceipt,
    len_bytes: u64,
}

impl Stream<'_> {
    /// Gives what it came to, how many parts there were, and how many bytes.
    async fn carry_out(&mut self, incoming: Incoming) -> Result<(Outcome, u32, u64)> {
        self.assembly.warn_of_ignored_conditions();
        let moving = Instant::now();
        let (cancel, url) = (&self.assembly.options.cancel, self.assembly.url);
        let first_bytes = self.sizes.of(1);
        let cost = Assembly::held_cost(first_bytes).memory_bytes;
        let first = async {
            let admission = self.assembly.scope.window().admit(cost).await;
            Ok((incoming.next(first_bytes, true).await.map_err(failed)?, admission))
        };
        let (first, admission) = tokio::select! {
            first = first => first?,
            () = cancel.cancelled() => return Err(stopped(OPERATION, url)),
        };
        self.assembly.scope.flow().queued_for_disk(moving.elapsed());
        let (receipt, computed, parts, bytes) = if first.is_last {
            let bytes = first.len_bytes;
            let (receipt, computed) = self.put(first).await?;
            (receipt, computed, 1, bytes)
        } else {
            drop(admission);
            self.in_parts(incoming, first).await?
        };
        self.account.moved_since(moving);
        let outcome = self.assembly.prove(receipt, &computed).await?;
        Ok((outcome, parts, bytes))
    }

    async fn put(&mut self, chunk: Chunk) -> Result<(Receipt, Computed)> {
        let (options, started) = (self.assembly.options, Instant::now());
        let part = Part { number: 1, offset_bytes: 0, len_bytes: chunk.len_bytes };
        let content = Content::collected(chunk.pieces);
        tell_start(options, part);
        let mut round = 1;
        let stored = loop {
            let digest = match self.assembly.algorithm {
                Some(algorithm) => {
                    Some(sum(&content, algorithm, self.assembly.scope.flow()).await?)
                }
                None => None,
            };
            match self.assembly.put(digest, || Ok(content.clone())).await {
                Err(error) if lost_a_race(&error) && round < RACE_ROUNDS => round += 1,
                stored => break stored.map_err(|error| self.assembly.in_words(error))?,
            }
        };
        self.assembly.scope.window().succeeded();
        tell_end(options, part, started);
        Ok(stored)
    }

    async fn in_parts(
        &mut self,
        incoming: Incoming,
        first: Chunk,
    ) -> Result<(Receipt, Computed, u32, u64)> {
        let (part_size_bytes, reach_bytes) = (self.sizes.first_bytes, self.sizes.reach_bytes());
        self.assembly.options.events.emit(|| Event::Reach { part_size_bytes, reach_bytes });
        self.record().await?;
        let begun = self.assembly.begin().await.map_err(|error| self.assembly.in_words(error))?;
        let error = match self.move_and_complete(incoming, first, &begun).await {
            Ok(done) => {
                self.assembly.settle_strays().await;
                self.assembly.forget().await;
                return Ok(done);
            }
            Err(error) => error,
        };
        let is_of_a_race = lost_a_race(&error);
        let error = self.assembly.give_up(&begun, error).await;
        if is_of_a_race {
            // It could only be started over with bytes that are gone.
            self.assembly.forget().await;
            return Err(error.advise("send it once more"));
        }
        Err(self.assembly.in_words(error))
    }

    async fn move_and_complete(
        &self,
        incoming: Incoming,
        first: Chunk,
        begun: &Begun,
    ) -> Result<(Receipt, Computed, u32, u64)> {
        let sent = self.move_parts(incoming, first, begun).await?;
        let bytes = sent.iter().map(|sent| sent.len_bytes).sum();
        let lens: Vec<_> = sent.iter().map(|sent| sent.len_bytes).collect();
        let mut parts: Vec<_> = sent.into_iter().map(|sent| sent.receipt).collect();
        let count = u32::try_from(parts.len()).unwrap_or(u32::MAX);
        let computed = Computed::of_parts(lens.iter().copied(), &parts);
        let assembly = &self.assembly;
        if assembly.options.cancel.is_cancelled() {
            return Err(stopped(OPERATION, assembly.url));
        }
        assembly.options.events.emit(|| Event::Finishing);
        let full_object = computed.full_object.as_ref();
        let mut round = 1;
        let receipt = loop {
            match assembly.complete(bytes, begun, &parts, full_object, round).await? {
                Completed::Done(receipt) => break receipt,
                Completed::PartsDiffer(error) => {
                    let part = |number: u32| {
                        let len_bytes = *lens.get(number as usize - 1)?;
                        Some(Part { number, offset_bytes: 0, len_bytes })
                    };
                    let (good, missing) = assembly.as_listed(begun, part, parts, error).await?;
                    if let Some(part) = missing.first() {
                        return Err(self.lost(*part));
                    }
                    parts = good;
                }
            }
            round += 1;
        };
        Ok((receipt, computed, count, bytes))
    }

    async fn move_parts(
        &self,
        incoming: Incoming,
        first: Chunk,
        begun: &Begun,
    ) -> Result<Vec<Sent>> {
        let assembly = &self.assembly;
        let sender = assembly.held_parts(begun, &assembly.options.cancel);
        let turns = Turns::new(incoming);
        let has_ended = Arc::new(AtomicBool::new(false));
        let first = Arc::new(Mutex::new(Some(first)));
        let (max_parts, url) = (self.sizes.max_parts, assembly.url.clone());
        let reach_bytes = self.sizes.reach_bytes();
        let flow = assembly.scope.flow().clone();
        let scope = assembly.scope.clone();
        let (may_end, too_long) = (Arc::clone(&has_ended), self.too_long());
        let job = move |lane, part: Part| {
            let (sender, turns, first) = (sender.clone(), turns.clone(), Arc::clone(&first));
            let (has_ended, flow, scope) = (Arc::clone(&has_ended), flow.clone(), scope.clone());
            let too_long = too_long.clone();
            async move {
                let waiting = Instant::now();
                let turn = turns.of(part.number).await;
                let held = match part.number {
                    1 => first.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take(),
                    _ => None,
                };
                let is_over = has_ended.load(Ordering::Relaxed);
                let end_is_near = part.number == max_parts
                    || part.offset_bytes.saturating_add(part.len_bytes) >= reach_bytes;
                let chunk = match held {
                    Some(first) => first,
                    None if is_over => Chunk { pieces: Vec::new(), len_bytes: 0, is_last: true },
                    None => turn.next(part.len_bytes, end_is_near).await.map_err(failed)?,
                };
                if chunk.is_last || chunk.len_bytes < part.len_bytes {
                    has_ended.store(true, Ordering::Relaxed);
                } else if end_is_near {
                    return Err(too_long.error());
                }
                turn.end();
                flow.queued_for_disk(waiting.elapsed());
                if chunk.len_bytes == 0 {
                    return Ok(None);
                }
                scope.expect_more_parts(1);
                let len_bytes = chunk.len_bytes;
                let part = Part { len_bytes, ..part };
                let content = Content::collected(chunk.pieces);
                let receipt = sender.send(lane, part, content, None).await?;
                Ok(Some(Sent { receipt, len_bytes }))
            }
        };
        let parts = self.sizes.parts().take_while(|_| !may_end.load(Ordering::Relaxed));
        let cost = Assembly::held_cost(self.sizes.of(max_parts));
        let lanes = assembly.engine.lanes();
        let scope = assembly.scope.stopped_by(&assembly.options.cancel);
        let sent = run_parts(lanes, cost, parts, &scope, Duration::ZERO, job)
            .await
            .map_err(naming_the_stopped(OPERATION, &url))?;
        Ok(sent.into_iter().flatten().collect())
    }

    fn lost(&self, part: Part) -> Error {
        let detail = format!("the store does not have part {} as it was sent", part.number);
        let url = self.assembly.url.to_string();
        Error::new(ErrorKind::Integrity, OPERATION, url, detail)
            .advise("a stream cannot be read again: send it once more")
    }

    fn too_long(&self) -> TooLong {
        TooLong {
            url: self.assembly.url.clone(),
            store: self.assembly.profile.name.clone(),
            sizes: self.sizes,
            expected: self.expected,
        }
    }

    /// Writes down that there is about to be an upload. What an earlier stream to the same place left is
    /// of no use to anybody.
    async fn record(&mut self) -> Result<()> {
        let assembly = &mut self.assembly;
        let side = Side::Stream {};
        let size_bytes = self.expected.unwrap_or(0);
        let transfer = assembly.transfer(LABEL, size_bytes, self.sizes.first_bytes, side);
        assembly.record_for_abort(LABEL.as_bytes(), &transfer).await
    }
}

impl Assembly<'_> {
    /// What this is, for the manifest of an upload that cannot be resumed.
    pub(crate) fn transfer(
        &self,
        path: &str,
        size_bytes: u64,
        part_size_bytes: u64,
        side: Side,
    ) -> Transfer {
        Transfer {
            endpoint_url: self.engine.store().endpoint_url().map(str::to_owned),
            bucket: self.url.bucket().to_owned(),
            key: self.url.key().to_owned(),
            path: Text::from(std::ffi::OsString::from(path)),
            size_bytes,
            part_size_bytes,
            side,
            begun_unix_s: unix_now(),
            command: texts(&self.options.command),
        }
    }

    /// Opens the manifest of an upload that cannot be resumed, under a name that `source` tells from
    /// others to the same key, and gives up what an earlier one left.
    pub(crate) async fn record_for_abort(
        &mut self,
        source: &[u8],
        transfer: &Transfer,
    ) -> Result<()> {
        let Some(folder) = self.engine.manifest_folder() else { return Ok(()) };
        let endpoint = transfer.endpoint_url.as_deref().unwrap_or_default();
        let key = self.url.key();
        let place = [endpoint.as_bytes(), self.url.bucket().as_bytes(), key.as_bytes(), source];
        // What is wrong with it is said when the manifest cannot be written.
        let _ = record::make_folder(folder);
        let opening = Opening {
            operation: self.operation,
            target: self.url.to_string(),
            path: record::upload_path(folder, &place, key),
            resume: match self.options.resume {
                Resume::Off => Resume::Off,
                Resume::Continue | Resume::StartOver => Resume::StartOver,
            },
            warnings: self.record_warnings.clone(),
        };
        let opened = blocking(self.operation, move || Recorder::open(&opening)).await?;
        self.recorder = opened.0;
        if let Some(found) = opened.1 {
            self.give_up_earlier(found).await?;
        }
        let (recorder, transfer) = (self.recorder.clone(), transfer.clone());
        blocking(self.operation, move || {
            recorder.begin(&transfer);
            Ok(())
        })
        .await
    }
}

/// A stream that goes on behind its reach.
#[derive(Clone)]
struct TooLong {
    url: S3Url,
    store: String,
    sizes: Sizes,
    expected: Option<u64>,
}

impl TooLong {
    fn error(&self) -> Error {
        let reach = format_size(self.sizes.reach_bytes());
        let url = self.url.to_string();
        let detail = match self.expected {
            Some(expected) => format!(
                "the input is longer than {reach}, which parts for the {} that were expected hold",
                format_size(expected)
            ),
            None => format!(
                "the input is longer than the {reach} that {} parts from {} on hold",
                self.sizes.max_parts,
                format_size(self.sizes.first_bytes)
            ),
        };
        let by_object = self.sizes.reach_bytes() == self.sizes.max_object_bytes;
        Error::new(ErrorKind::InvalidInput, OPERATION, url, detail).advise(if by_object {
            format!("{} holds no larger object: cut it", self.store)
        } else {
            "say how long it is at most with --expected-size, give a larger --part-size, or a disk \
             for all of it with --spool DIR"
                .to_owned()
        })
    }
}

/// Writes all of it to a file that nobody else sees, and uploads that.
async fn spooled(
    engine: &Engine,
    reader: Box<dyn Read + Send>,
    url: &S3Url,
    (folder, options): (&Path, &UploadOptions),
    window: Window,
) -> Result<Report> {
    let (folder, cancel) = (folder.to_owned(), options.cancel.clone());
    let spooling = tokio::task::spawn_blocking(move || {
        let (path, file) = make_spool(&folder)
            .map_err(|source| Error::io("spool the input to", &folder, source))?;
        // From here on it goes when it is closed, however this ends.
        let unlinked = std::fs::remove_file(&path);
        unlinked.map_err(|source| Error::io("spool the input to", &path, source))?;
        spool(reader, &file, || cancel.is_cancelled())
            .map_err(|source| Error::io("spool the input to", &path, source))?;
        Ok(file)
    });
    let file = tokio::select! {
        spooled = spooling => spooled.map_err(|lost| failed(io::Error::other(lost)))??,
        () = options.cancel.cancelled() => return Err(stopped(OPERATION, url)),
    };
    let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    // There is no such file for a later run.
    let options = UploadOptions { resume: Resume::StartOver, ..options.clone() };
    run_shown(engine, (&path, LABEL), url, &options, window).await
}

fn make_spool(folder: &Path) -> io::Result<(PathBuf, File)> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let name: String = (0..8).map(|_| fastrand::alphanumeric()).collect();
    let path = folder.join(format!(".brigade-spool-{name}"));
    let mut options = File::options();
    let file = options.read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    Ok((path, file))
}

fn spool(mut reader: impl Read, mut file: &File, is_stopped: impl Fn() -> bool) -> io::Result<()> {
    let mut buffer = vec![0; SPOOL_BYTES];
    loop {
        if is_stopped() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => io::Write::write_all(&mut file, &buffer[..count])?,
            Err(again) if again.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn failed(source: io::Error) -> Error {
    Error::io("read the input from", Path::new(LABEL), source)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::GIB;

    fn sizes(options: StreamOptions, profile: &StoreProfile, memory_bytes: u64) -> Sizes {
        Sizes::choose(&options, profile, memory_bytes).expect("they work")
    }

    #[test]
    fn parts_follow_the_memory_and_grow_where_they_may() {
        let aws = StoreProfile::aws();
        let plain = sizes(StreamOptions::default(), &aws, 96 * MIB);
        assert_eq!((plain.of(1), plain.of(2500), plain.of(2501)), (8 * MIB, 8 * MIB, 16 * MIB));
        assert_eq!((plain.of(7501), plain.of(10_000)), (32 * MIB, 32 * MIB));
        assert_eq!(plain.reach_bytes(), 2500 * 80 * MIB);
        let all: u64 = plain.parts().map(|part| part.len_bytes).sum();
        assert_eq!(all, plain.reach_bytes());
        let equal = StoreProfile { equal_parts: true, ..aws.clone() };
        assert_eq!(sizes(StreamOptions::default(), &equal, 96 * MIB).reach_bytes(), 80_000 * MIB);
        let little = sizes(StreamOptions::default(), &aws, 16 * MIB);
        assert_eq!((little.of(1), little.of(10_000)), (8 * MIB, 8 * MIB));
        assert_eq!(sizes(StreamOptions::default(), &aws, 64 * GIB).of(1), 64 * MIB);
        let few = StoreProfile { max_parts: 2, ..aws };
        assert_eq!(sizes(StreamOptions::default(), &few, 96 * MIB).parts().count(), 2);
    }

    #[test]
    fn what_is_expected_fits() {
        let aws = StoreProfile::aws();
        let expecting = |expected_size_bytes| StreamOptions {
            expected_size_bytes: Some(expected_size_bytes),
            ..StreamOptions::default()
        };
        for expected in [0, 1, 80 * GIB, 1 << 40] {
            assert!(sizes(expecting(expected), &aws, 96 * MIB).reach_bytes() >= expected);
        }
        let upload = UploadOptions { part_size_bytes: Some(5 * MIB), ..UploadOptions::default() };
        let options = StreamOptions { upload, ..expecting(80 * GIB) };
        assert!(Sizes::choose(&options, &aws, 96 * MIB).is_err());
    }
}
