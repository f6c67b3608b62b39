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

mod sizes;
mod spool;

use std::io::{self, Read};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use self::sizes::Sizes;
use self::spool::spooled;
use super::assembly::{Assembly, Begun, Completed, Outcome};
use super::prove::Computed;
use super::{
    OPERATION, RACE_ROUNDS, choose_algorithm, ended_report, lost_a_race, prepare, sum, tell_end,
    tell_start,
};
use crate::account::Account;
use crate::engine::{Engine, naming_the_stopped, stopped};
use crate::error::{Error, ErrorKind, Result};
use crate::file::{Chunk, Content, Incoming};
use crate::limits::format_size;
use crate::manifest::Side;
use crate::options::StreamOptions;
use crate::plan::Part;
use crate::progress::{Event, Operation};
use crate::report::Report;
use crate::schedule::{RetryScope, Turns, Window, run_parts};
use crate::transport::{PartReceipt, Receipt};
use crate::url::S3Url;

/// What a stream is called in reports, manifests and messages.
const LABEL: &str = "-";

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
                    1 => first.lock().unwrap_or_else(PoisonError::into_inner).take(),
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

fn failed(source: io::Error) -> Error {
    Error::io("read the input from", Path::new(LABEL), source)
}
