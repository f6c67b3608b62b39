//! A copy that the store makes: one `CopyObject`, or many `UploadPartCopy` at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::compare::{self, Compared};
use super::{Copying, OPERATION};
use crate::engine::{naming_the_stopped, stopped};
use crate::error::{Error, ErrorKind, Result};
use crate::integrity::{Algorithm, Checksum, ChecksumType, Mismatch, Verified};
use crate::limits::MIB;
use crate::options::{ChecksumChoice, ContentHeaders, UploadOptions, Verify};
use crate::plan::{self, Part, Plan};
use crate::progress::Event;
use crate::schedule::{Cost, run_parts};
use crate::transport::{Directives, ObjectInfo, PartReceipt, Receipt};
use crate::upload::{
    Assembly, Begun, Completed, Outcome, RACE_ROUNDS, lost_a_race, tell_end, tell_start,
};

/// Parts of a source whose own are not known: no byte of them passes through this machine, so they are
/// larger than an upload's, and a request's fixed cost is shared by more.
const PART_SIZE_BYTES: u64 = 128 * MIB;

impl Copying<'_> {
    pub(super) async fn inside(&mut self) -> Result<(Outcome, Plan)> {
        let moving = Instant::now();
        let is_large = self.info.size_bytes > self.profile.max_single_put_bytes;
        let done = if is_large && self.profile.multipart_copy {
            self.in_parts().await
        } else {
            let whole = self.whole().await;
            // Some stores copy any size at once, and others say so only when they are asked.
            whole.map_err(|error| match error.kind() {
                ErrorKind::Rejected | ErrorKind::InvalidInput if is_large => {
                    let (url, detail) = (self.target.url.to_string(), error.detail().to_owned());
                    Error::new(ErrorKind::Unsupported, OPERATION, url, detail).caused_by(error)
                }
                _ => error,
            })
        };
        self.account.moved_since(moving);
        done
    }

    /// In one request.
    async fn whole(&mut self) -> Result<(Outcome, Plan)> {
        let size_bytes = self.info.size_bytes;
        let plan = plan::download(size_bytes, Some(size_bytes.max(1)), None)
            .map_err(|error| error.into_error(OPERATION, self.target.url.to_string()))?;
        self.tell_plan(&plan);
        let directives = Directives {
            replace_metadata: self.options.description.is_some(),
            replace_tags: self.options.tags.is_some(),
        };
        let carried = self.carried.clone();
        let asked = if directives.replace_metadata {
            carried
        } else {
            // The store takes them from the source.
            UploadOptions {
                content_type: None,
                headers: ContentHeaders::default(),
                metadata: std::collections::BTreeMap::new(),
                ..carried
            }
        };
        let algorithm = match self.options.checksum {
            ChecksumChoice::Use(algorithm) => Some(algorithm),
            ChecksumChoice::Auto | ChecksumChoice::None => None,
        };
        let part = Part { number: 1, offset_bytes: 0, len_bytes: size_bytes };
        let (engine, scope) = (self.target.engine, self.scope);
        let (source, target) = (self.source.url, self.target.url);
        let _admission = tokio::select! {
            admission = scope.window().admit(0) => admission,
            () = self.options.cancel.cancelled() => return Err(stopped(OPERATION, target)),
        };
        let started = Instant::now();
        tell_start(&asked, part);
        let mut round = 1;
        let receipt = loop {
            let (pin, flow) = (&*self.pin, scope.flow());
            let attempt = |_| {
                let calls = engine.calls();
                calls.copy_object((source, pin), target, directives, algorithm, &asked, flow)
            };
            let copied = tokio::select! {
                copied = engine.retry().run(scope, Some(1), attempt) => copied,
                () = self.options.cancel.cancelled() => Err(stopped(OPERATION, target)),
            };
            match copied {
                Ok(receipt) => break receipt,
                Err(error) if lost_a_race(&error) && round < RACE_ROUNDS => round += 1,
                Err(error) => return Err(self.in_words(error).await),
            }
        };
        scope.flow().moved(size_bytes);
        scope.window().succeeded();
        tell_end(&asked, part, started);
        Ok((self.verify(receipt, None).await?, plan))
    }

    async fn in_parts(&mut self) -> Result<(Outcome, Plan)> {
        self.carry_tags().await?;
        let own_bytes = self.own_part_size().await?;
        let (plan, is_own) = self.cut(own_bytes)?;
        self.tell_plan(&plan);
        let carried = self.carried.clone();
        let mut assembly = self.assembly(&carried);
        let expected = self.expected(is_own);
        assembly.algorithm = expected.map(|(checksum, _)| checksum.algorithm);
        if expected.is_some_and(|(_, kind)| kind == ChecksumType::Composite) {
            assembly.without_full_object();
        }
        let full_object = expected.map(|(checksum, _)| checksum);
        let full_object = full_object.filter(|sum| sum.kind == ChecksumType::FullObject);
        self.record(&mut assembly, &plan).await?;
        let mut round = 1;
        let receipt = loop {
            // Not interruptible: an id that nobody knows could not be aborted.
            let begun = assembly.begin().await?;
            let error = match self
                .copy_and_complete(&assembly, &plan, &begun, full_object.as_ref())
                .await
            {
                Ok(receipt) => {
                    assembly.settle_strays().await;
                    assembly.forget().await;
                    break receipt;
                }
                Err(error) => assembly.give_up(&begun, error).await,
            };
            if !lost_a_race(&error) {
                return Err(self.in_words(error).await);
            }
            if round == RACE_ROUNDS {
                assembly.forget().await;
                return Err(error);
            }
            round += 1;
        };
        let told = assembly.record_warnings.all().into_iter();
        let warnings: Vec<_> = told.chain(std::mem::take(&mut assembly.warnings)).collect();
        drop(assembly);
        self.warnings.extend(warnings);
        let outcome = self.verify(receipt, is_own.then_some(&plan)).await?;
        Ok((outcome, plan))
    }

    async fn copy_and_complete(
        &self,
        assembly: &Assembly<'_>,
        plan: &Plan,
        begun: &Begun,
        full_object: Option<&Checksum>,
    ) -> Result<Receipt> {
        let mut parts = self.copy_parts(assembly, begun, plan.parts()).await?;
        if self.options.cancel.is_cancelled() {
            return Err(stopped(OPERATION, self.target.url));
        }
        self.options.events.emit(|| Event::Finishing);
        let mut round = 1;
        loop {
            let size_bytes = plan.size_bytes();
            match assembly.complete(size_bytes, begun, &parts, full_object, round).await? {
                Completed::Done(receipt) => return Ok(receipt),
                Completed::PartsDiffer(error) => {
                    let part = |number| plan.part(number);
                    let (good, missing) = assembly.as_listed(begun, part, parts, error).await?;
                    parts = good;
                    let again = missing.into_iter();
                    parts.extend(self.copy_parts(assembly, begun, again).await?);
                    parts.sort_unstable_by_key(|part| part.number);
                }
            }
            round += 1;
        }
    }

    async fn copy_parts(
        &self,
        assembly: &Assembly<'_>,
        begun: &Begun,
        parts: impl Iterator<Item = Part>,
    ) -> Result<Vec<PartReceipt>> {
        let (source, target) = (Arc::new(self.source.url.clone()), self.target.url.clone());
        let (target, upload_id) = (Arc::new(target), Arc::<str>::from(begun.upload_id.as_str()));
        let options = Arc::new(assembly.options.clone());
        let algorithm = assembly.algorithm;
        let job = |lane, part: Part| {
            let (engine, scope) = (self.target.engine.clone(), self.scope.clone());
            let (source, target) = (Arc::clone(&source), Arc::clone(&target));
            let (pin, upload_id) = (Arc::clone(&self.pin), Arc::clone(&upload_id));
            let options = Arc::clone(&options);
            async move {
                let started = Instant::now();
                tell_start(&options, part);
                let attempt = |_| {
                    let (from, to) = ((&*source, &*pin), (&*target, &*upload_id));
                    let calls = engine.calls_on(lane);
                    calls.copy_part(from, to, part, algorithm, &options, scope.flow())
                };
                let copied = engine.retry().run(&scope, Some(part.number), attempt).await;
                let receipt = copied.map_err(|error| error.in_part(part.number))?;
                scope.flow().moved(part.len_bytes);
                tell_end(&options, part, started);
                Ok(receipt)
            }
        };
        let lanes = self.target.engine.lanes();
        let scope = self.scope.stopped_by(&self.options.cancel);
        run_parts(lanes, Cost { memory_bytes: 0 }, parts, &scope, Duration::ZERO, job)
            .await
            .map_err(naming_the_stopped(OPERATION, self.target.url))
    }

    /// The tags, which a copy in parts has to be given.
    pub(super) async fn carry_tags(&mut self) -> Result<()> {
        if self.options.tags.is_some() || self.info.tag_count == Some(0) {
            return Ok(());
        }
        let engine = self.source.engine;
        let ask = |_| engine.calls().tags(self.source.url, &self.pin);
        match engine.retry().run(self.scope, None, ask).await {
            Ok(tags) => self.carried.tags = tags,
            Err(error) if error.kind().is_retryable() || error.kind() == ErrorKind::Interrupted => {
                return Err(error);
            }
            Err(error) if error.kind() == ErrorKind::AccessDenied => self.warn(format!(
                "the source's tags, if it has any, were not copied: {}",
                error.detail()
            )),
            // A store without tags has none to copy.
            Err(_) => {}
        }
        Ok(())
    }

    /// The size of the source's own parts, as far as the first one tells.
    pub(super) async fn own_part_size(&self) -> Result<Option<u64>> {
        let Some(count) = self.info.parts().filter(|count| *count > 1) else { return Ok(None) };
        let engine = self.source.engine;
        let ask = |_| engine.calls().first_part_size(self.source.url, &self.pin);
        let first = match engine.retry().run(self.scope, None, ask).await {
            Ok(first) => first,
            Err(error) if error.kind().is_retryable() => return Err(error),
            Err(_) => None,
        };
        let fits =
            |each: &u64| *each > 0 && self.info.size_bytes.div_ceil(*each) == u64::from(count);
        Ok(first.filter(fits))
    }

    /// The parts, and whether they are the source's own.
    fn cut(&self, own_bytes: Option<u64>) -> Result<(Plan, bool)> {
        let (size, profile) = (self.info.size_bytes, &self.profile);
        let failed =
            |error: plan::PlanError| error.into_error(OPERATION, self.target.url.to_string());
        if let Some(asked) = self.options.part_size_bytes {
            let plan = plan::upload(size, Some(asked), profile).map_err(failed)?;
            return Ok((plan, own_bytes == Some(asked)));
        }
        if let Some(plan) = own_bytes.and_then(|own| plan::upload(size, Some(own), profile).ok()) {
            return Ok((plan, true));
        }
        let default = plan::upload(size, None, profile).map_err(failed)?;
        let larger = default.part_size_bytes().max(PART_SIZE_BYTES);
        Ok((plan::upload(size, Some(larger), profile).unwrap_or(default), false))
    }

    /// The source's checksum that the copy can have as well, and the type to ask for. `is_own`: it will
    /// have the source's parts.
    fn expected(&self, is_own: bool) -> Option<(Checksum, ChecksumType)> {
        let wanted = |algorithm: Algorithm| match self.options.checksum {
            ChecksumChoice::Auto => true,
            ChecksumChoice::Use(asked) => asked == algorithm,
            ChecksumChoice::None => false,
        };
        let may = |checksum: &&Checksum| {
            wanted(checksum.algorithm)
                && self.profile.multipart_checksum_type(checksum.algorithm).is_some()
        };
        let is_told = self.info.checksum_type.is_some() || self.info.parts().is_none();
        let recorded = || self.info.checksums.iter().filter(may).copied();
        let full = recorded().find(|checksum| {
            let kind = self.profile.multipart_checksum_type(checksum.algorithm);
            is_told && checksum.kind == ChecksumType::FullObject && kind == Some(checksum.kind)
        });
        let over_parts = || {
            recorded().find(|checksum| {
                is_own
                    && checksum.kind == ChecksumType::Composite
                    && checksum.algorithm.supports_composite()
            })
        };
        full.or_else(over_parts).map(|checksum| (checksum, checksum.kind))
    }

    /// Holds what the store recorded of the copy against what it recorded of the source. `own`: the plan,
    /// where the copy has what seem to be the source's own parts.
    async fn verify(&mut self, receipt: Receipt, own: Option<&Plan>) -> Result<Outcome> {
        if self.options.verify == Verify::Off {
            let warnings = Vec::new();
            return Ok(Outcome {
                receipt,
                verified: Verified::Unverified,
                checksum: None,
                warnings,
            });
        }
        self.options.events.emit(|| Event::Verifying);
        let vouched = self.profile.etag_is_md5;
        // What came with the answer may be enough.
        let answered = ObjectInfo {
            size_bytes: self.info.size_bytes,
            etag: receipt.etag.clone(),
            checksum_type: receipt.checksums.first().map(|checksum| checksum.kind),
            checksums: receipt.checksums.clone(),
            encryption: receipt.encryption.clone().or_else(|| self.info.encryption.clone()),
            ..ObjectInfo::default()
        };
        let mut compared = self.held_against(&answered, false, vouched)?;
        if compared.is_err() {
            compared = self.look_at_the_copy(&receipt, own, vouched).await?;
        }
        let (verified, checksum) = match compared {
            Ok((verified, checksum)) => (verified, Some(checksum)),
            Err(why) => {
                if self.options.verify == Verify::Require {
                    let url = self.target.url.to_string();
                    let detail = format!("copied, but unverified: {why}");
                    return Err(Error::new(ErrorKind::Integrity, OPERATION, url, detail)
                        .advise("accept it with --verify auto, or copy it through this machine"));
                }
                self.warn(format!("unverified: {why}"));
                (Verified::Unverified, None)
            }
        };
        Ok(Outcome { receipt, verified, checksum, warnings: Vec::new() })
    }

    async fn look_at_the_copy(
        &mut self,
        receipt: &Receipt,
        own: Option<&Plan>,
        vouched: bool,
    ) -> Result<Compared> {
        let (engine, url) = (self.target.engine, self.target.url);
        let key = self.carried.encryption.customer_key().cloned();
        let look = |_| engine.calls().head(url, receipt.version_id.as_deref(), key.as_ref());
        let copy = match engine.retry().run(self.scope, None, look).await {
            Ok(copy) => copy,
            Err(error) => {
                return Ok(Err(format!("the copy could not be looked at: {}", error.detail())));
            }
        };
        if copy.etag != receipt.etag {
            return Ok(Err("somebody has replaced the copy meanwhile".to_owned()));
        }
        compare::sizes(&self.info, &copy, OPERATION, url.to_string())?;
        let compared = self.held_against(&copy, false, vouched)?;
        let Some(plan) = own.filter(|_| compared.is_err()) else { return Ok(compared) };
        // They may differ because the source's parts are not all of the first one's size.
        let from = self.source.engine;
        let list = |_| from.calls().part_sizes(self.source.url, &self.pin);
        let listed = from.retry().run(self.scope, None, list).await.unwrap_or_default();
        let is_cut_alike = listed.into_iter().eq(plan.parts().map(|part| part.len_bytes));
        self.held_against(&copy, is_cut_alike, vouched)
    }

    fn held_against(&self, copy: &ObjectInfo, cut_alike: bool, vouched: bool) -> Result<Compared> {
        compare::records(&self.info, copy, cut_alike, vouched).map_err(|mismatch: Mismatch| {
            mismatch
                .into_error(OPERATION, self.target.url.to_string())
                .context("the copy holds other bytes than the source")
                .advise("copy it again; if it happens again, the store damages data")
        })
    }

    /// The same error, in the words of this copy.
    async fn in_words(&self, error: Error) -> Error {
        if error.code() != Some("PreconditionFailed") {
            return error;
        }
        if !self.options.if_none_match {
            return self.changed();
        }
        // Which of the two conditions did not hold is not said.
        let engine = self.source.engine;
        let (version, key) = (self.pin.version_id.as_deref(), self.pin.customer_key.as_ref());
        match engine.calls().head(self.source.url, version, key).await {
            Ok(now) if now.etag != self.info.etag => self.changed(),
            _ => {
                let url = self.target.url.to_string();
                Error::new(ErrorKind::Conflict, OPERATION, url, "the object exists already")
                    .advise("leave out --if-none-match to replace it")
                    .caused_by(error)
            }
        }
    }
}
