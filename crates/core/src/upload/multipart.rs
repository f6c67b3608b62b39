//! An object in parts: begin or go on, send many at once, complete; and at a failure keep what a later
//! run can go on with, or leave nothing.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::claims::{Listed, kept};
use super::prove::Computed;
use super::unfinished::is_doubtful;
use super::{
    OPERATION, Upload, blame, lost_a_race, new_token, sum, summed_for, tell_end, tell_start,
};
use crate::engine::{Engine, blocking, naming_the_stopped, stopped};
use crate::error::{Error, ErrorKind, Result};
use crate::integrity::ChecksumType;
use crate::limits::{ChecksumSupport, MIB, of_all};
use crate::manifest::PartRecord;
use crate::options::{Cancel, CustomerKey};
use crate::plan::{Part, Plan};
use crate::progress::Event;
use crate::record::{is_worth_keeping, unix_now};
use crate::schedule::{Cost, First, RetryScope, STOP_GRACE, hedged, run_parts};
use crate::transport::{PartReceipt, Payload, Receipt};
use crate::url::S3Url;

/// A part under way holds a few frames, or a few steps of mapped pages that are given back behind it.
const PART_BYTES: u64 = MIB;

/// Times that a completion is tried again with the parts as the store lists them.
const INVALID_ROUNDS: u32 = 3;

/// Times that an upload is aborted again because a late part kept it alive.
const ABORT_ROUNDS: u32 = 5;

/// Between the first two of them; the others wait longer.
const ABORT_PAUSE: Duration = Duration::from_millis(100);

/// An upload that exists on the store.
pub(super) struct Begun {
    pub(super) upload_id: String,
    pub(super) token: String,
    /// Parts that an earlier run recorded as sent.
    pub(super) claims: BTreeMap<u32, PartRecord>,
}

impl Upload<'_> {
    /// A multipart upload: the one that an earlier run began, or a new one.
    pub(super) async fn in_parts(&mut self, plan: &Plan) -> Result<(Receipt, Computed)> {
        let unfinished = self.unfinished.take();
        let begun_unix_s = unfinished.as_ref().and_then(|found| found.upload_begun_unix_s);
        if let Some(found) = &unfinished {
            self.open_intents_unix_s.extend(&found.open_intents_unix_s);
            self.strays.extend_from_slice(&found.stray_upload_ids);
        }
        if let Some(begun) = unfinished.and_then(Begun::earlier) {
            self.find_strays(&begun.upload_id, begun_unix_s.unwrap_or_else(unix_now)).await;
            match self.move_and_complete(plan, &begun).await {
                Err(gone) if gone.code() == Some("NoSuchUpload") => {
                    if let Some(done) = self.completed_before(plan, &begun).await? {
                        self.settle_strays().await;
                        self.forget().await;
                        return Ok(done);
                    }
                    self.warn(
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
        let begun = self.begin().await?;
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
            return Err(Error::new(ErrorKind::Io, OPERATION, self.url.to_string(), detail)
                .advise("start over with --no-resume, and report this"));
        }
        self.parts_are_in.store(true, Ordering::Relaxed);
        self.source.check_still_there()?;
        if self.options.cancel.is_cancelled() {
            return Err(stopped(OPERATION, self.url));
        }
        let computed = Computed::of_parts(plan, &parts);
        self.options.events.emit(|| Event::Finishing);
        let receipt = self.complete(plan, begun, &mut parts, &computed).await?;
        Ok((receipt, computed))
    }

    /// What becomes of the upload: done, kept for a later run, or given up.
    async fn ended<T>(&mut self, plan: &Plan, begun: &Begun, outcome: Result<T>) -> Result<T> {
        let error = match outcome {
            Ok(done) => {
                self.settle_strays().await;
                self.forget().await;
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
        if self.recorder.is_of_use() && kept_bytes > 0 && is_worth_keeping(&error, parts_are_in) {
            return Err(error.kept(of_all(kept_bytes, plan.size_bytes())));
        }
        let aborted = self.abort(&begun.upload_id).await;
        self.settle_strays().await;
        Err(match aborted {
            // Begun anew, it is recorded in the same place.
            Ok(()) if lost_a_race(&error) => error,
            Ok(()) => {
                self.forget().await;
                error
            }
            Err(left) => error.advise(format!(
                "the unfinished upload {} could not be aborted ({}): abort it, or it is billed",
                begun.upload_id,
                left.detail()
            )),
        })
    }

    /// Creates the multipart upload, with less of a checksum if the store refuses the better one.
    async fn begin(&mut self) -> Result<Begun> {
        let token = new_token();
        let doubtful = Mutex::new(Vec::new());
        let created = loop {
            let checksum = self.algorithm.and_then(|algorithm| {
                Some((algorithm, self.profile.multipart_checksum_type(algorithm)?))
            });
            let attempt = |_| async {
                let (recorder, intended) = (self.recorder.clone(), token.clone());
                let sent_unix_s = unix_now();
                blocking(OPERATION, move || {
                    recorder.intent(&intended);
                    Ok(())
                })
                .await?;
                let calls = self.engine.calls();
                let created =
                    calls.create_multipart(self.url, checksum, &token, self.options).await;
                match &created {
                    Ok(_) => {}
                    Err(error) if is_doubtful(error) => lock(&doubtful).push(sent_unix_s),
                    Err(_) => self.recorder.refused(),
                }
                created
            };
            match self.engine.retry().run(self.scope, None, attempt).await {
                Ok(id) => {
                    let (recorder, new_id) = (self.recorder.clone(), id.clone());
                    let (algorithm, kind) = (self.algorithm, checksum.map(|(_, kind)| kind));
                    blocking(OPERATION, move || {
                        recorder.upload(&new_id, algorithm, kind);
                        Ok(())
                    })
                    .await?;
                    break Ok(id);
                }
                Err(error) if checksum.is_some() && self.may_step_down(&error) => match checksum {
                    Some((algorithm, ChecksumType::FullObject))
                        if algorithm.supports_composite() =>
                    {
                        self.warn(format!(
                            "the store refused a checksum of the whole object ({}); the parts' \
                             were sent instead",
                            error.detail()
                        ));
                        self.without_full_object();
                    }
                    _ => {
                        self.warn_of_step_down(&error);
                        self.algorithm = None;
                    }
                },
                Err(error) => break Err(error),
            }
        };
        self.open_intents_unix_s.append(&mut lock(&doubtful));
        match created {
            Ok(upload_id) => {
                self.find_strays(&upload_id, unix_now()).await;
                Ok(Begun { upload_id, token, claims: BTreeMap::new() })
            }
            Err(error) => {
                if self.open_intents_unix_s.is_empty() {
                    self.forget().await;
                } else if !self.recorder.is_on() {
                    self.warn_of_strays("no answer to the request that begins an upload came");
                }
                Err(error)
            }
        }
    }

    /// From here on, and for an upload that was begun so.
    pub(super) fn without_full_object(&mut self) {
        let mut profile = (*self.profile).clone();
        profile.checksums = ChecksumSupport::Composite;
        self.profile = Arc::new(profile);
    }

    /// Sends the parts that are not there yet, while those that are said to be are checked; then
    /// the ones of them that are not. Gives the receipts of all, in order.
    async fn move_parts(&mut self, plan: &Plan, begun: &Begun) -> Result<Vec<PartReceipt>> {
        let listed = Listed::default();
        let missing = plan.parts().filter(|part| !begun.claims.contains_key(&part.number));
        if begun.claims.is_empty() {
            return self.send_parts(begun, missing, &listed, &self.options.cancel).await;
        }
        // If one of the two fails, the other is no longer wanted.
        let stop = self.options.cancel.child();
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
                () = stop.cancelled() => Err(stopped(OPERATION, self.url)),
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
            self.warn(warning);
        }
        receipts.extend(checked.receipts);
        let again = checked.missing.into_iter();
        receipts.extend(self.send_parts(begun, again, &listed, &self.options.cancel).await?);
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
        let url = Arc::new(self.url.clone());
        let options = Arc::new(self.options.clone());
        let (algorithm, sign) = (self.algorithm, !self.profile.unsigned_payload);
        let job = |lane, part: Part| {
            let (engine, source) = (self.engine.clone(), self.source.clone());
            let (url, upload_id, options) = (url.clone(), upload_id.clone(), options.clone());
            let (scope, listed) = (self.scope.stopped_by(cancel), listed.clone());
            let (recorder, kept_bytes) = (self.recorder.clone(), Arc::clone(&self.kept_bytes));
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
        let lanes = self.engine.lanes();
        let grace = if self.recorder.is_on() { STOP_GRACE } else { Duration::ZERO };
        run_parts(lanes, self.cost(), parts, &self.scope.stopped_by(cancel), grace, job)
            .await
            .map_err(naming_the_stopped(OPERATION, self.url))
    }

    /// What a part takes of the memory: all of it where it is signed and so has to be in one piece.
    pub(super) fn cost(&self) -> Cost {
        let in_one_piece = !self.profile.unsigned_payload;
        Cost { memory_bytes: if in_one_piece { u64::MAX } else { PART_BYTES } }
    }

    async fn complete(
        &self,
        plan: &Plan,
        begun: &Begun,
        parts: &mut Vec<PartReceipt>,
        computed: &Computed,
    ) -> Result<Receipt> {
        let full_object = self
            .algorithm
            .and_then(|algorithm| self.profile.multipart_checksum_type(algorithm))
            .filter(|kind| *kind == ChecksumType::FullObject)
            .and(computed.full_object.as_ref());
        let size = self.profile.mp_object_size.then(|| plan.size_bytes());
        let mut round = 1;
        let error = loop {
            let id = &begun.upload_id;
            let attempt = |_| {
                let calls = self.engine.calls();
                calls.complete_multipart(self.url, id, parts, full_object, size, self.options)
            };
            match self.engine.retry().run(self.scope, None, attempt).await {
                Ok(receipt) => return Ok(receipt),
                // A late duplicate of a part may have taken its place, with the same bytes and
                // another ETag.
                Err(error) if error.code() == Some("InvalidPart") && round < INVALID_ROUNDS => {
                    round += 1;
                    *parts = self.take_listed(plan, begun, std::mem::take(parts), error).await?;
                }
                Err(error) => break error,
            }
        };
        let may_be_done = matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Conflict)
            || error.kind().is_retryable();
        if !may_be_done || lost_a_race(&error) {
            return Err(error);
        }
        self.settle(&begun.token, error).await
    }

    /// Gives the upload up, and makes sure that no late part keeps it alive.
    pub(super) async fn abort(&self, upload_id: &str) -> Result<()> {
        let key = self.options.encryption.customer_key();
        abort(self.engine, self.url, upload_id, key).await
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Gives an upload up, and makes sure that no late part keeps it alive.
pub(crate) async fn abort(
    engine: &Engine,
    url: &S3Url,
    upload_id: &str,
    key: Option<&CustomerKey>,
) -> Result<()> {
    // Not stopped by the cancel that led here.
    let scope = RetryScope::of_cleanup();
    let calls = engine.calls();
    for round in 0..ABORT_ROUNDS {
        if round > 0 {
            // A late part, or a slow index, needs a moment.
            tokio::time::sleep(ABORT_PAUSE * round).await;
        }
        let attempt = |_| calls.abort_multipart(url, upload_id);
        engine.retry().run(&scope, None, attempt).await?;
        let list = |_| calls.list_parts(url, upload_id, 0, key);
        match engine.retry().run(&scope, None, list).await {
            Ok(_) => {}
            // Gone. Without the right to list, the acknowledged abort is all that can be had.
            Err(_) => return Ok(()),
        }
    }
    Err(Error::new(
        ErrorKind::ServerFailure,
        "abort the upload to",
        url.to_string(),
        "the store keeps listing it",
    ))
}
