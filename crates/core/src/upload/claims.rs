//! What an earlier run says it sent, against what the store lists.
//!
//! A part counts as sent when the store lists it with the right size and the right checksum, or, where
//! it lists no checksums, with the `ETag` that acknowledged it. Whatever differs is sent again.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use super::assembly::{Assembly, Begun};
use super::{OPERATION, Upload, sum};
use crate::error::{Error, ErrorKind, Result};
use crate::integrity::Digest;
use crate::limits::format_size;
use crate::plan::{Part, Plan};
use crate::progress::Event;
use crate::transport::{ListedPart, PartReceipt};

/// Parts as the store lists them, once that is known.
#[derive(Debug, Clone, Default)]
pub(super) struct Listed(Arc<OnceLock<HashMap<u32, ListedPart>>>);

/// What the check of the claims came to.
#[derive(Default)]
pub(super) struct Checked {
    /// Of the parts that are there.
    pub(super) receipts: Vec<PartReceipt>,
    /// The parts that are not.
    pub(super) missing: Vec<Part>,
    pub(super) warning: Option<String>,
}

impl Listed {
    /// A receipt for `part`, if the store has it with this digest.
    pub(super) fn receipt(&self, part: Part, digest: Option<Digest>) -> Option<PartReceipt> {
        let (listed, digest) = (self.0.get()?.get(&part.number)?, digest?);
        let same = listed.size_bytes == part.len_bytes && listed.digest_like(digest)? == digest;
        same.then(|| listed.receipt(Some(digest)))
    }
}

impl ListedPart {
    /// The digest that can be compared with `ours`.
    fn digest_like(&self, ours: Digest) -> Option<Digest> {
        let mut digests = self.checksums.iter().map(|checksum| checksum.digest);
        digests.find(|digest| digest.algorithm() == ours.algorithm())
    }

    fn receipt(&self, digest: Option<Digest>) -> PartReceipt {
        PartReceipt { number: self.number, etag: self.etag.clone(), digest }
    }

    /// Whether this is the part that was acknowledged with `etag` for bytes of this `digest`.
    fn is(&self, part: Part, digest: Option<Digest>, etag: Option<&str>) -> bool {
        let same_bytes = match digest.and_then(|ours| Some((ours, self.digest_like(ours)?))) {
            Some((ours, theirs)) => ours == theirs,
            None => etag.is_some_and(|etag| bare(etag) == bare(&self.etag)),
        };
        self.size_bytes == part.len_bytes && !bare(&self.etag).is_empty() && same_bytes
    }
}

impl Upload<'_> {
    /// Holds every claim against the store's list.
    pub(super) async fn check_claims(
        &self,
        plan: &Plan,
        begun: &Begun,
        listed: &Listed,
    ) -> Result<Checked> {
        // A manifest has no others: an upload's part that it names is in the plan, and has an ETag.
        let claims = begun.claims.iter().filter_map(|(number, claim)| {
            let etag = claim.etag.clone().unwrap_or_default();
            Some((plan.part(*number)?, claim.digest, etag))
        });
        let parts = match self.assembly.list_parts(&begun.upload_id).await {
            Ok(parts) => parts,
            Err(error) if may_do_without(&error) => {
                let mut checked = Checked {
                    warning: Some(format!(
                        "the parts on the store could not be listed ({}): those that are recorded \
                         as sent are taken for sent, and the store compares them at the end",
                        error.detail()
                    )),
                    ..Checked::default()
                };
                for (part, digest, etag) in claims {
                    self.keep(part);
                    checked.receipts.push(PartReceipt { number: part.number, etag, digest });
                }
                return Ok(checked);
            }
            Err(error) => return Err(error.during(OPERATION)),
        };
        let mut checked = Checked::default();
        for (part, digest, etag) in claims {
            match parts.get(&part.number) {
                Some(there) if there.is(part, digest, Some(&etag)) => {
                    self.keep(part);
                    checked.receipts.push(there.receipt(digest));
                }
                _ => checked.missing.push(part),
            }
        }
        if !checked.missing.is_empty() {
            let bytes = checked.missing.iter().map(|part| part.len_bytes).sum();
            checked.warning = Some(format!(
                "{} that an earlier run recorded as sent were not on the store as recorded, and \
                 were sent again",
                format_size(bytes)
            ));
        }
        // Nobody else sets it.
        let _ = listed.0.set(parts);
        Ok(checked)
    }

    /// The parts as the store lists them, for a completion that it refused with `error`; the ones
    /// that are not as they were acknowledged are sent again.
    pub(super) async fn take_listed(
        &self,
        plan: &Plan,
        begun: &Begun,
        receipts: Vec<PartReceipt>,
        error: Error,
    ) -> Result<Vec<PartReceipt>> {
        let part = |number| plan.part(number);
        let (mut good, missing) = self.assembly.as_listed(begun, part, receipts, error).await?;
        let (again, listed) = (missing.into_iter(), Listed::default());
        good.extend(self.send_parts(begun, again, &listed, &self.assembly.options.cancel).await?);
        good.sort_unstable_by_key(|receipt| receipt.number);
        Ok(good)
    }

    /// Receipts as of an upload that is complete: what was not recorded is summed again.
    pub(super) async fn receipts_of_all(
        &self,
        plan: &Plan,
        begun: &Begun,
    ) -> Result<Vec<PartReceipt>> {
        let mut receipts = Vec::new();
        for part in plan.parts() {
            let recorded = begun.claims.get(&part.number).and_then(|claim| claim.digest);
            let digest = match (recorded, self.assembly.algorithm) {
                (None, Some(algorithm)) => Some(
                    sum(&self.source.content(part)?, algorithm, self.assembly.scope.flow()).await?,
                ),
                (recorded, _) => recorded,
            };
            receipts.push(PartReceipt { number: part.number, etag: String::new(), digest });
        }
        Ok(receipts)
    }

    fn keep(&self, part: Part) {
        self.assembly.options.events.emit(|| kept(part));
        self.kept_bytes.fetch_add(part.len_bytes, Ordering::Relaxed);
        self.acknowledged_bytes.fetch_add(part.len_bytes, Ordering::Relaxed);
    }
}

impl Assembly<'_> {
    /// Holds what was acknowledged against the store's list of parts, for a completion that it refused
    /// with `error`: receipts under the `ETag`s they have by now, and the parts that are not there as they
    /// were sent. `part` knows them by their number.
    pub(crate) async fn as_listed(
        &self,
        begun: &Begun,
        part: impl Fn(u32) -> Option<Part>,
        receipts: Vec<PartReceipt>,
        error: Error,
    ) -> Result<(Vec<PartReceipt>, Vec<Part>)> {
        let parts = self.list_parts(&begun.upload_id).await.map_err(|unlisted| {
            error.advise(format!(
                "which ones the store has could not be found out ({})",
                unlisted.detail()
            ))
        })?;
        let (mut good, mut missing) = (Vec::new(), Vec::new());
        for receipt in receipts {
            let Some(part) = part(receipt.number) else { continue };
            match parts.get(&part.number) {
                Some(there) if there.is(part, receipt.digest, Some(&receipt.etag)) => {
                    good.push(there.receipt(receipt.digest));
                }
                _ => missing.push(part),
            }
        }
        Ok((good, missing))
    }

    /// The parts of an upload, as the store lists them.
    pub(crate) async fn list_parts(&self, upload_id: &str) -> Result<HashMap<u32, ListedPart>> {
        let key = self.options.encryption.customer_key();
        let (mut parts, mut after) = (HashMap::new(), 0);
        loop {
            let calls = self.engine.calls();
            let page = |_| calls.list_parts(self.url, upload_id, after, key);
            let page = self.engine.retry().run(self.scope, None, page).await?;
            parts.extend(page.parts.into_iter().map(|part| (part.number, part)));
            match page.next {
                Some(next) => after = next,
                None => return Ok(parts),
            }
        }
    }
}

pub(super) fn kept(part: Part) -> Event {
    Event::PartKept { part: part.number, size_bytes: part.len_bytes }
}

/// A store that may not be asked, or knows no such request, can still complete what it was sent: it
/// holds every part's `ETag` and checksum against its own then.
fn may_do_without(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::AccessDenied | ErrorKind::Unsupported | ErrorKind::Rejected)
}

/// An `ETag` without its quotes, which some stores leave out of lists.
fn bare(etag: &str) -> &str {
    etag.trim_matches('"')
}
