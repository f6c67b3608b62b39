//! A copy through this machine: ranges of the source are downloaded into memory and uploaded as parts.
//!
//! Every range is summed as it arrives, in the way that the source's recorded checksum needs and in the
//! way that the target's needs, which mostly is one. What was read is held against the source's record
//! before the target is completed, so no bucket gets bytes that are not the source's; what the target has
//! is then proven as an upload is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Copying, OPERATION};
use crate::download::{self, Expectation, Found, InOrder, Request, Sums};
use crate::engine::{naming_the_stopped, stopped};
use crate::error::{Error, ErrorKind, Result};
use crate::file::{Buffers, Collected, Content};
use crate::integrity::{Algorithm, Digest, Hasher, Verified};
use crate::limits::MIB;
use crate::options::{ChecksumChoice, Verify};
use crate::plan::{self, Part, Plan};
use crate::progress::Event;
use crate::schedule::{LaneId, RetryScope, Turns, run_parts};
use crate::transport::{PartReceipt, Receipt};
use crate::upload::{
    Assembly, Begun, Completed, Computed, Outcome, RACE_ROUNDS, choose_algorithm, lost_a_race,
    tell_end, tell_start,
};

/// Parts that the budget should hold at a time.
const PARTS_IN_MEMORY: u64 = 4;

/// What arrived of one part.
struct Brought {
    content: Content,
    /// By the target's algorithm.
    digest: Option<Digest>,
    /// As the source's record needs it.
    needed: Option<Digest>,
}

/// How parts are brought. Cheap to clone.
#[derive(Clone)]
struct Bringing {
    request: Arc<Request>,
    buffers: Buffers,
    algorithm: Option<Algorithm>,
    needed: Option<Algorithm>,
    /// Where the record needs the bytes in order.
    in_order: Option<Turns<InOrder>>,
}

impl Copying<'_> {
    pub(super) async fn through_here(&mut self) -> Result<(Outcome, Plan)> {
        self.carry_tags().await?;
        let found = self.find().await?;
        let own_bytes = self.own_part_size().await?.or_else(|| found.part_size_bytes());
        let plan = self.cut_for_memory(own_bytes)?;
        self.tell_plan(&plan);
        let carried = self.carried.clone();
        let mut assembly = self.assembly(&carried);
        assembly.algorithm = self.algorithm(&found)?;
        let mut round = 1;
        let (receipt, computed, read) = loop {
            let moving = Instant::now();
            let stored = if plan.is_single() {
                self.put(&mut assembly, &plan, &found).await
            } else {
                self.send_in_parts(&mut assembly, &plan, &found).await
            };
            self.account.moved_since(moving);
            match stored {
                Ok(stored) => break stored,
                Err(error) if lost_a_race(&error) && round < RACE_ROUNDS => round += 1,
                Err(error) => {
                    if lost_a_race(&error) {
                        assembly.forget().await;
                    }
                    return Err(assembly.in_words(error));
                }
            }
        };
        let mut outcome = assembly.prove(receipt, &computed).await?;
        drop(assembly);
        if self.options.verify != Verify::Off && !read.is_proof() {
            let why = match &found.expectation {
                Expectation::Nothing { why } => why.clone(),
                _ => "the source's ETag is not the MD5 it looks like, or its parts are of unknown \
                      sizes"
                    .to_owned(),
            };
            if self.options.verify == Verify::Require {
                let url = self.target.url.to_string();
                let detail =
                    format!("stored, but what was read of the source is unverified: {why}");
                return Err(Error::new(ErrorKind::Integrity, OPERATION, url, detail)
                    .advise("accept it with --verify auto"));
            }
            if outcome.verified.is_proof() {
                let what = outcome.verified;
                self.warn(format!(
                    "unverified: the copy is what was read ({what}), and what was read could not be \
                     compared: {why}"
                ));
                outcome.verified = Verified::Unverified;
            }
        }
        Ok((outcome, plan))
    }

    /// What the bytes can be held against.
    async fn find(&self) -> Result<Found> {
        if self.options.verify == Verify::Off {
            return Ok(Found::unasked(&self.info));
        }
        let (engine, url) = (self.source.engine, self.source.url);
        let found = download::find(engine, url, &self.info, &self.pin, self.scope).await?;
        // Once they are sent, they cannot be summed again over parts of other sizes.
        let listed = found.with_listed_parts(engine, url, &self.pin, self.scope).await;
        let found = listed.map_or(found, |(found, _)| found);
        match &found.expectation {
            Expectation::Nothing { why } if self.options.verify == Verify::Require => {
                let detail = format!("it cannot be verified: {why}");
                Err(Error::new(ErrorKind::Integrity, "copy", url.to_string(), detail)
                    .advise("nothing was stored; accept it unverified with --verify auto"))
            }
            _ => Ok(found),
        }
    }

    /// The source's own parts, if the target takes them and memory holds some; else what does.
    fn cut_for_memory(&self, own_bytes: Option<u64>) -> Result<Plan> {
        let (size, profile) = (self.info.size_bytes, &self.profile);
        let asked = self.options.part_size_bytes;
        let default = plan::upload(size, asked, profile)
            .map_err(|error| error.into_error(OPERATION, self.target.url.to_string()))?;
        let share = self.scope.window().memory_bytes() / PARTS_IN_MEMORY / MIB * MIB;
        if asked.is_some() {
            return Ok(default);
        }
        let own = own_bytes.filter(|own| *own <= share.max(default.part_size_bytes()));
        if let Some(plan) = own.and_then(|own| plan::upload(size, Some(own), profile).ok()) {
            return Ok(plan);
        }
        if default.part_size_bytes() <= share {
            return Ok(default);
        }
        // As small as memory wants it, if that is not too many.
        Ok(plan::upload(size, Some(share), profile).unwrap_or(default))
    }

    /// What goes along: the source's own algorithm where the target takes it, so that both ends say the
    /// same and one sum is enough.
    fn algorithm(&self, found: &Found) -> Result<Option<Algorithm>> {
        let chosen = choose_algorithm(&self.profile, self.target.url, &self.carried)?;
        let Expectation::Recorded { checksum, .. } = &found.expectation else { return Ok(chosen) };
        let is_free = self.options.checksum == ChecksumChoice::Auto && chosen.is_some();
        let may = self.profile.multipart_checksum_type(checksum.algorithm).is_some();
        Ok(if is_free && may { Some(checksum.algorithm) } else { chosen })
    }

    fn bringing(&self, plan: &Plan, found: &Found, algorithm: Option<Algorithm>) -> Bringing {
        let need = found.need(plan);
        Bringing {
            request: Arc::new(Request {
                engine: self.source.engine.clone(),
                url: self.source.url.clone(),
                pin: Arc::clone(&self.pin),
                total_bytes: plan.size_bytes(),
                scope: self.scope.clone(),
                // The bytes are told as they leave; those that arrive are the same.
                flow: self.scope.flow().unheard(),
            }),
            buffers: Buffers::default(),
            algorithm,
            needed: need.while_fetched,
            in_order: need
                .second_read
                .as_ref()
                .map(|_| Turns::new(found.need_in_order().in_order())),
        }
    }

    async fn put(
        &self,
        assembly: &mut Assembly<'_>,
        plan: &Plan,
        found: &Found,
    ) -> Result<(Receipt, Computed, Verified)> {
        let part = Part { number: 1, offset_bytes: 0, len_bytes: plan.size_bytes() };
        let (scope, started) = (self.scope, Instant::now());
        let cost = Assembly::held_cost(part.len_bytes).memory_bytes;
        let bringing = self.bringing(plan, found, assembly.algorithm);
        let bring = async {
            let admission = scope.window().admit(cost).await;
            tell_start(assembly.options, part);
            let lane = self.target.engine.lanes().pick();
            Ok((bringing.bring(lane, part).await?, admission))
        };
        let (brought, _admission) = tokio::select! {
            brought = bring => brought?,
            () = self.options.cancel.cancelled() => {
                return Err(stopped(OPERATION, self.target.url));
            }
        };
        let sums = bringing.sums(found, plan, &[brought.needed]);
        let read = self.compare(found, &sums)?;
        let content = brought.content;
        let (receipt, computed) = assembly.put(brought.digest, || Ok(content.clone())).await?;
        scope.window().succeeded();
        tell_end(assembly.options, part, started);
        Ok((receipt, computed, read))
    }

    async fn send_in_parts(
        &self,
        assembly: &mut Assembly<'_>,
        plan: &Plan,
        found: &Found,
    ) -> Result<(Receipt, Computed, Verified)> {
        self.record(assembly, plan).await?;
        // Not interruptible: an id that nobody knows could not be aborted.
        let begun = assembly.begin().await?;
        match self.send_and_complete(assembly, plan, found, &begun).await {
            Ok(done) => {
                assembly.settle_strays().await;
                assembly.forget().await;
                Ok(done)
            }
            Err(error) => Err(assembly.give_up(&begun, error).await),
        }
    }

    async fn send_and_complete(
        &self,
        assembly: &Assembly<'_>,
        plan: &Plan,
        found: &Found,
        begun: &Begun,
    ) -> Result<(Receipt, Computed, Verified)> {
        let bringing = self.bringing(plan, found, assembly.algorithm);
        let part_size = plan.part_size_bytes();
        let sent = self.send_parts(assembly, begun, (&bringing, part_size), plan.parts()).await?;
        let (mut parts, needed): (Vec<_>, Vec<_>) = sent.into_iter().unzip();
        let sums = bringing.sums(found, plan, &needed);
        let read = self.compare(found, &sums)?;
        let computed = Computed::of_parts(plan.parts().map(|part| part.len_bytes), &parts);
        if self.options.cancel.is_cancelled() {
            return Err(stopped(OPERATION, self.target.url));
        }
        self.options.events.emit(|| Event::Finishing);
        let mut round = 1;
        let receipt = loop {
            let (size, whole) = (plan.size_bytes(), computed.full_object.as_ref());
            match assembly.complete(size, begun, &parts, whole, round).await? {
                Completed::Done(receipt) => break receipt,
                Completed::PartsDiffer(error) => {
                    let part = |number| plan.part(number);
                    let (good, missing) = assembly.as_listed(begun, part, parts, error).await?;
                    let again = Bringing { in_order: None, ..bringing.clone() };
                    let again =
                        self.send_parts(assembly, begun, (&again, part_size), missing.into_iter());
                    parts = good;
                    parts.extend(again.await?.into_iter().map(|(receipt, _)| receipt));
                    parts.sort_unstable_by_key(|part| part.number);
                }
            }
            round += 1;
        };
        Ok((receipt, computed, read))
    }

    async fn send_parts(
        &self,
        assembly: &Assembly<'_>,
        begun: &Begun,
        (bringing, part_size_bytes): (&Bringing, u64),
        parts: impl Iterator<Item = Part>,
    ) -> Result<Vec<(PartReceipt, Option<Digest>)>> {
        let sender = assembly.held_parts(begun, &self.options.cancel);
        let job = |lane, part: Part| {
            let (bringing, sender) = (bringing.clone(), sender.clone());
            async move {
                let brought = bringing.bring(lane, part).await?;
                let receipt = sender.send(lane, part, brought.content, brought.digest).await?;
                Ok((receipt, brought.needed))
            }
        };
        let lanes = self.target.engine.lanes();
        let scope: RetryScope = self.scope.stopped_by(&self.options.cancel);
        let cost = Assembly::held_cost(part_size_bytes);
        run_parts(lanes, cost, parts, &scope, Duration::ZERO, job)
            .await
            .map_err(naming_the_stopped(OPERATION, self.target.url))
    }

    /// Holds what was read against what the source's store recorded.
    fn compare(&self, found: &Found, sums: &Sums) -> Result<Verified> {
        let compared = found.compare(sums);
        let (verified, _) = compared.map_err(|mismatch| {
            mismatch
                .into_error("copy", self.source.url.to_string())
                .context("the bytes that arrived are not the bytes that were stored")
                .advise("nothing was stored; start it again")
        })?;
        if !verified.is_proof() && self.options.verify == Verify::Require {
            let detail = "it cannot be verified: its ETag is not the MD5 it looks like, or its parts \
                          are of unknown sizes";
            let url = self.source.url.to_string();
            return Err(Error::new(ErrorKind::Integrity, "copy", url, detail)
                .advise("nothing was stored; accept it unverified with --verify auto"));
        }
        Ok(verified)
    }
}

impl Bringing {
    /// Fetches a part into memory.
    async fn bring(&self, lane: LaneId, part: Part) -> Result<Brought> {
        let mut collected = Collected::new(&self.buffers, part.len_bytes);
        let mut sent = self.algorithm.map(Hasher::new);
        let mut needed = self.needed.filter(|it| Some(*it) != self.algorithm).map(Hasher::new);
        if part.len_bytes > 0 {
            download::fetch(&self.request, lane, part, &mut |chunk: Bytes| {
                for hasher in [&mut sent, &mut needed].into_iter().flatten() {
                    hasher.update(&chunk);
                }
                collected.take(&chunk);
                Ok(())
            })
            .await
            .map_err(|error| match error.kind() {
                ErrorKind::Changed => error.during("copy"),
                _ => error,
            })?;
        }
        let pieces = collected.finish();
        if let Some(turns) = &self.in_order {
            let mut turn = turns.of(part.number).await;
            for piece in &pieces {
                turn.update(piece);
                // The lane's other connections are served in between.
                tokio::task::yield_now().await;
            }
            turn.end();
        }
        let digest = sent.map(Hasher::finish);
        let needed = match needed {
            Some(hasher) => Some(hasher.finish()),
            None => digest.filter(|_| self.needed.is_some()),
        };
        Ok(Brought { content: Content::collected(pieces), digest, needed })
    }

    /// The sums over all of it, once all parts are there.
    fn sums(&self, found: &Found, plan: &Plan, needed: &[Option<Digest>]) -> Sums {
        match &self.in_order {
            Some(turns) => turns.take(InOrder::nothing()).map(InOrder::finish).unwrap_or_default(),
            None => found.need(plan).gather(plan, needed),
        }
    }
}
