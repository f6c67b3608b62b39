//! An object in parts: begin, send many at once, complete; and give up without leaving anything.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::prove::Computed;
use super::{OPERATION, Upload, blame, lost_a_race, new_token, sum, tell_end, tell_start};
use crate::engine::{naming_the_stopped, stopped};
use crate::error::{Error, ErrorKind, Result};
use crate::integrity::ChecksumType;
use crate::limits::ChecksumSupport;
use crate::plan::{Part, Plan};
use crate::progress::Event;
use crate::schedule::{RetryScope, run_parts};
use crate::transport::{PartReceipt, Payload, Receipt};

/// Times that an upload is aborted again because a late part kept it alive.
const ABORT_ROUNDS: u32 = 5;

/// Between the first two of them; the others wait longer.
const ABORT_PAUSE: Duration = Duration::from_millis(100);

impl Upload<'_> {
    /// A multipart upload; aborted if anything fails.
    pub(super) async fn in_parts(&mut self, plan: &Plan) -> Result<(Receipt, Computed)> {
        // Not interruptible: an id that nobody knows could not be aborted.
        let (upload_id, token) = self.begin().await?;
        let moved = async {
            let parts = self.send_parts(plan, &upload_id).await?;
            self.source.check_still_there()?;
            if self.options.cancel.is_cancelled() {
                return Err(stopped(OPERATION, self.url));
            }
            let computed = Computed::of_parts(plan, &parts);
            self.options.events.emit(|| Event::Finishing);
            let receipt = self.complete(plan, &upload_id, &token, &parts, &computed).await?;
            Ok((receipt, computed))
        };
        match moved.await {
            Ok(done) => Ok(done),
            Err(error) => Err(match self.abort(&upload_id).await {
                Ok(()) => error,
                Err(left) => error.advise(format!(
                    "the unfinished upload {upload_id} could not be aborted ({}): abort it, or it \
                     is billed",
                    left.detail()
                )),
            }),
        }
    }

    /// Creates the multipart upload, with less of a checksum if the store refuses the better one.
    async fn begin(&mut self) -> Result<(String, String)> {
        let token = new_token();
        loop {
            let checksum = self.algorithm.and_then(|algorithm| {
                Some((algorithm, self.profile.multipart_checksum_type(algorithm)?))
            });
            let attempt =
                |_| self.engine.calls().create_multipart(self.url, checksum, &token, self.options);
            match self.engine.retry().run(self.scope, None, attempt).await {
                Ok(id) => return Ok((id, token)),
                Err(error) if checksum.is_some() && self.may_step_down(&error) => match checksum {
                    Some((algorithm, ChecksumType::FullObject))
                        if algorithm.supports_composite() =>
                    {
                        self.warn(format!(
                            "the store refused a checksum of the whole object ({}); the parts' \
                             were sent instead",
                            error.detail()
                        ));
                        let mut profile = (*self.profile).clone();
                        profile.checksums = ChecksumSupport::Composite;
                        self.profile = Arc::new(profile);
                    }
                    _ => {
                        self.warn_of_step_down(&error);
                        self.algorithm = None;
                    }
                },
                Err(error) => return Err(error),
            }
        }
    }

    async fn send_parts(&self, plan: &Plan, upload_id: &str) -> Result<Vec<PartReceipt>> {
        let upload_id: Arc<str> = upload_id.into();
        let url = Arc::new(self.url.clone());
        let options = Arc::new(self.options.clone());
        let (algorithm, sign) = (self.algorithm, !self.profile.unsigned_payload);
        let job = |lane, part: Part| {
            let (engine, source) = (self.engine.clone(), self.source.clone());
            let (url, upload_id, options) = (url.clone(), upload_id.clone(), options.clone());
            let scope = self.scope.clone();
            async move {
                let started = Instant::now();
                tell_start(&options, part);
                let digest = match algorithm {
                    Some(algorithm) => Some(sum(&source, part, algorithm).await?),
                    None => None,
                };
                let attempt = |_| async {
                    let payload = Payload { content: source.content(part)?, digest, sign };
                    let calls = engine.calls_on(lane);
                    calls.upload_part(&url, &upload_id, part.number, payload, &options).await
                };
                let receipt = engine.retry().run(&scope, Some(part.number), attempt).await;
                let receipt =
                    receipt.map_err(|error| blame(&source, error.in_part(part.number)))?;
                source.release(part.offset_bytes, part.len_bytes);
                tell_end(&options, part, started);
                Ok(receipt)
            }
        };
        let lanes = self.engine.lanes();
        run_parts(lanes, self.concurrency, plan.parts(), &self.options.cancel, job)
            .await
            .map_err(naming_the_stopped(OPERATION, self.url))
    }

    async fn complete(
        &self,
        plan: &Plan,
        upload_id: &str,
        token: &str,
        parts: &[PartReceipt],
        computed: &Computed,
    ) -> Result<Receipt> {
        let full_object = self
            .algorithm
            .and_then(|algorithm| self.profile.multipart_checksum_type(algorithm))
            .filter(|kind| *kind == ChecksumType::FullObject)
            .and(computed.full_object.as_ref());
        let size = self.profile.mp_object_size.then(|| plan.size_bytes());
        let attempt = |_| {
            let calls = self.engine.calls();
            calls.complete_multipart(self.url, upload_id, parts, full_object, size, self.options)
        };
        let error = match self.engine.retry().run(self.scope, None, attempt).await {
            Ok(receipt) => return Ok(receipt),
            Err(error) => error,
        };
        let may_be_done = matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Conflict)
            || error.kind().is_retryable();
        if !may_be_done || lost_a_race(&error) {
            return Err(error);
        }
        self.settle(token, error).await
    }

    /// Gives the upload up, and makes sure that no late part keeps it alive.
    async fn abort(&self, upload_id: &str) -> Result<()> {
        // Not stopped by the cancel that led here.
        let scope = RetryScope::default();
        let calls = self.engine.calls();
        for round in 0..ABORT_ROUNDS {
            if round > 0 {
                // A late part, or a slow index, needs a moment.
                tokio::time::sleep(ABORT_PAUSE * round).await;
            }
            let attempt = |_| calls.abort_multipart(self.url, upload_id);
            self.engine.retry().run(&scope, None, attempt).await?;
            match calls.upload_exists(self.url, upload_id, self.options).await {
                Ok(true) => {}
                // Without the right to list, the acknowledged abort is all that can be had.
                Ok(false) | Err(_) => return Ok(()),
            }
        }
        Err(Error::new(
            ErrorKind::ServerFailure,
            "abort the upload to",
            self.url.to_string(),
            "the store keeps listing it",
        ))
    }
}
