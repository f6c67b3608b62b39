//! An object in parts: begin or go on, send many at once, complete; and at a failure keep what a later
//! run can go on with, or leave nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::assembly::{Begun, Completed};
use super::claims::{Listed, kept};
use super::prove::Computed;
use super::{OPERATION, Upload, blame, sum, summed_for, tell_end, tell_start};
use crate::engine::{naming_the_stopped, stopped};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::of_all;
use crate::options::Cancel;
use crate::plan::{Part, Plan};
use crate::progress::Event;
use crate::record::{is_worth_keeping, unix_now};
use crate::schedule::{First, STOP_GRACE, hedged, run_parts};
use crate::transport::{PartReceipt, Payload, Receipt};

impl Upload<'_> {
    /// A multipart upload: the one that an earlier run began, or a new one.
    pub(super) async fn in_parts(&mut self, plan: &Plan) -> Result<(Receipt, Computed)> {
        let unfinished = self.unfinished.take();
        let begun_unix_s = unfinished.as_ref().and_then(|found| found.upload_begun_unix_s);
        if let Some(found) = &unfinished {
            self.assembly.open_intents_unix_s.extend(&found.open_intents_unix_s);
            self.assembly.strays.extend_from_slice(&found.stray_upload_ids);
        }
        if let Some(begun) = unfinished.and_then(Begun::earlier) {
            self.assembly
                .find_strays(&begun.upload_id, begun_unix_s.unwrap_or_else(unix_now))
                .await;
            match self.move_and_complete(plan, &begun).await {
                Err(gone) if gone.code() == Some("NoSuchUpload") => {
                    if let Some(done) = self.completed_before(plan, &begun).await? {
                        self.assembly.settle_strays().await;
                        self.assembly.forget().await;
                        return Ok(done);
                    }
                    self.assembly.warn(
                        "the upload that an earlier run began is gone from the store; it was \
                         started over"
                            .to_owned(),
                    );
                }
                outcome => return self.ended(plan, &begun, outcome).await,
            }
        }
        // What an upload that is gone had counts for nothing.
        self.acknowledged_bytes.store(0, Ordering::Relaxed);
        self.kept_bytes.store(0, Ordering::Relaxed);
        // Not interruptible: an id that nobody knows could not be aborted.
        let begun = self.assembly.begin().await?;
        let outcome = self.move_and_complete(plan, &begun).await;
        self.ended(plan, &begun, outcome).await
    }

    async fn move_and_complete(
        &mut self,
        plan: &Plan,
        begun: &Begun,
    ) -> Result<(Receipt, Computed)> {
        let moving = Instant::now();
        let moved = self.move_parts(plan, begun).await;
        self.account.moved_since(moving);
        let mut parts = moved?;
        // What the bucket gets was acknowledged, all of it.
        if !parts.iter().map(|part| part.number).eq(1..=plan.part_count()) {
            let detail = "not every part is accounted for";
            return Err(Error::new(
                ErrorKind::Io,
                OPERATION,
                self.assembly.url.to_string(),
                detail,
            )
            .advise("start over with --no-resume, and report this"));
        }
        self.parts_are_in.store(true, Ordering::Relaxed);
        self.source.check_still_there()?;
        if self.assembly.options.cancel.is_cancelled() {
            return Err(stopped(OPERATION, self.assembly.url));
        }
        let computed = Computed::of_parts(plan.parts().map(|part| part.len_bytes), &parts);
        self.assembly.options.events.emit(|| Event::Finishing);
        let (assembly, size_bytes) = (&self.assembly, plan.size_bytes());
        let mut round = 1;
        let receipt = loop {
            let full_object = computed.full_object.as_ref();
            match assembly.complete(size_bytes, begun, &parts, full_object, round).await? {
                Completed::Done(receipt) => break receipt,
                Completed::PartsDiffer(error) => {
                    parts = self.take_listed(plan, begun, parts, error).await?;
                }
            }
            round += 1;
        };
        Ok((receipt, computed))
    }

    /// What becomes of the upload: done, kept for a later run, or given up.
    async fn ended<T>(&mut self, plan: &Plan, begun: &Begun, outcome: Result<T>) -> Result<T> {
        let error = match outcome {
            Ok(done) => {
                self.assembly.settle_strays().await;
                self.assembly.forget().await;
                return Ok(done);
            }
            Err(error) => error,
        };
        let claimed = begun.claims.keys().filter_map(|number| plan.part(*number));
        // Claims that nobody got to check are as good as they were.
        let claimed_bytes = claimed.map(|part| part.len_bytes).sum();
        let done_bytes = self.acknowledged_bytes.load(Ordering::Relaxed);
        let kept_bytes = done_bytes.max(claimed_bytes).min(plan.size_bytes());
        let parts_are_in = self.parts_are_in.load(Ordering::Relaxed);
        if self.assembly.recorder.is_of_use()
            && kept_bytes > 0
            && is_worth_keeping(&error, parts_are_in)
        {
            return Err(error.kept(of_all(kept_bytes, plan.size_bytes())));
        }
        Err(self.assembly.give_up(begun, error).await)
    }

    /// Sends the parts that are not there yet, while those that are said to be are checked; then
    /// the ones of them that are not. Gives the receipts of all, in order.
    async fn move_parts(&mut self, plan: &Plan, begun: &Begun) -> Result<Vec<PartReceipt>> {
        let listed = Listed::default();
        let missing = plan.parts().filter(|part| !begun.claims.contains_key(&part.number));
        if begun.claims.is_empty() {
            return self.send_parts(begun, missing, &listed, &self.assembly.options.cancel).await;
        }
        // If one of the two fails, the other is no longer wanted.
        let stop = self.assembly.options.cancel.child();
        let sending = async {
            let sent = self.send_parts(begun, missing, &listed, &stop).await;
            if sent.is_err() {
                stop.cancel();
            }
            sent
        };
        let checking = async {
            let checked = tokio::select! {
                checked = self.check_claims(plan, begun, &listed) => checked,
                () = stop.cancelled() => Err(stopped(OPERATION, self.assembly.url)),
            };
            if checked.is_err() {
                stop.cancel();
            }
            checked
        };
        let (mut receipts, checked) = match futures::join!(sending, checking) {
            (Ok(sent), Ok(checked)) => (sent, checked),
            // One of them was only stopped; the other knows why.
            (Err(error), Err(other)) if error.kind() == ErrorKind::Interrupted => {
                return Err(other);
            }
            (Err(error), _) | (Ok(_), Err(error)) => return Err(error),
        };
        if let Some(warning) = checked.warning {
            self.assembly.warn(warning);
        }
        receipts.extend(checked.receipts);
        let again = checked.missing.into_iter();
        receipts
            .extend(self.send_parts(begun, again, &listed, &self.assembly.options.cancel).await?);
        receipts.sort_unstable_by_key(|receipt| receipt.number);
        Ok(receipts)
    }

    pub(super) async fn send_parts(
        &self,
        begun: &Begun,
        parts: impl Iterator<Item = Part>,
        listed: &Listed,
        cancel: &Cancel,
    ) -> Result<Vec<PartReceipt>> {
        let upload_id: Arc<str> = begun.upload_id.as_str().into();
        let url = Arc::new(self.assembly.url.clone());
        let options = Arc::new(self.assembly.options.clone());
        let (algorithm, sign) = (self.assembly.algorithm, !self.assembly.profile.unsigned_payload);
        let job = |lane, part: Part| {
            let (engine, source) = (self.assembly.engine.clone(), self.source.clone());
            let (url, upload_id, options) = (url.clone(), upload_id.clone(), options.clone());
            let (scope, listed) = (self.assembly.scope.stopped_by(cancel), listed.clone());
            let (recorder, kept_bytes) =
                (self.assembly.recorder.clone(), Arc::clone(&self.kept_bytes));
            let acknowledged = Arc::clone(&self.acknowledged_bytes);
            async move {
                let started = Instant::now();
                let memory = || scope.window().spare(part.len_bytes);
                let waited = |time| scope.flow().queued_for_disk(time);
                let brought = source.bring(part, memory, waited).await;
                let digest = match algorithm {
                    Some(algorithm) => {
                        Some(sum(&brought.content()?, algorithm, scope.flow()).await?)
                    }
                    None => None,
                };
                let receipt = if let Some(receipt) = listed.receipt(part, digest) {
                    // The earlier run sent it, and did not live to record it.
                    options.events.emit(|| kept(part));
                    kept_bytes.fetch_add(part.len_bytes, Ordering::Relaxed);
                    receipt
                } else {
                    tell_start(&options, part);
                    let send = async |content, digest, flow| {
                        let payload = Payload { content, digest, sign, flow };
                        let calls = engine.calls_on(lane);
                        calls.upload_part(&url, &upload_id, part.number, payload, &options).await
                    };
                    let flow = scope.flow();
                    let attempt = async |number| {
                        let content = brought.content()?;
                        let digest = summed_for(number, &content, digest, flow).await?;
                        send(content, digest, flow.clone()).await
                    };
                    let first = engine.retry().run(&scope, Some(part.number), attempt);
                    let again = async || send(brought.content()?, digest, flow.unheard()).await;
                    let answer = Box::pin(hedged(&scope, first, again)).await;
                    let receipt =
                        match answer.map_err(|error| blame(&source, error.in_part(part.number)))? {
                            First::Try(receipt) => receipt,
                            First::Again(receipt) => {
                                options.events.moved(part.len_bytes);
                                receipt
                            }
                        };
                    tell_end(&options, part, started);
                    receipt
                };
                recorder.part(part.number, receipt.digest, Some(&receipt.etag));
                acknowledged.fetch_add(part.len_bytes, Ordering::Relaxed);
                brought.give_back();
                Ok(receipt)
            }
        };
        let lanes = self.assembly.engine.lanes();
        let grace = if self.assembly.recorder.is_on() { STOP_GRACE } else { Duration::ZERO };
        run_parts(
            lanes,
            self.assembly.cost(),
            parts,
            &self.assembly.scope.stopped_by(cancel),
            grace,
            job,
        )
        .await
        .map_err(naming_the_stopped(OPERATION, self.assembly.url))
    }
}
