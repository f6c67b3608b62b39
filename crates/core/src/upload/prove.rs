//! The end of an upload: what was computed here against what the store says it has.

use super::assembly::{Assembly, Outcome};
use crate::error::{Error, ErrorKind, Result};
use crate::integrity::{
    Algorithm, Checksum, ChecksumType, Md5ETag, Mismatch, Verified, combine_all, compare,
    compare_md5,
};
use crate::options::Verify;
use crate::progress::Event;
use crate::transport::{PartReceipt, Receipt};

/// What was computed here over the object's bytes, in every form a store may answer with.
#[derive(Default)]
pub(crate) struct Computed {
    pub(crate) full_object: Option<Checksum>,
    pub(crate) composite: Option<Checksum>,
    pub(crate) md5: Option<Md5ETag>,
}

impl Computed {
    /// Every form of the whole object's checksum that the parts' digests give.
    /// `lens` are the parts' lengths in bytes.
    pub(crate) fn of_parts(
        lens: impl ExactSizeIterator<Item = u64>,
        parts: &[PartReceipt],
    ) -> Self {
        let digests = parts.iter().map(|part| part.digest).collect::<Option<Vec<_>>>();
        let Some(digests) = digests.filter(|all| all.len() == lens.len()) else {
            return Self::default();
        };
        Self {
            full_object: combine_all(digests.iter().copied().zip(lens)).map(Checksum::full_object),
            composite: Checksum::composite(&digests),
            md5: Md5ETag::of_parts(&digests),
        }
    }

    /// What was computed here that can be held against `theirs`. Not every store says whether a
    /// value is over the bytes or over the parts; whichever form agrees is the one that was meant.
    fn like(&self, theirs: &Checksum) -> Option<Checksum> {
        let same = |ours: &Checksum| ours.algorithm == theirs.algorithm;
        let (full_object, composite) = (self.full_object.filter(same), self.composite.filter(same));
        match theirs.kind {
            ChecksumType::Composite => composite,
            ChecksumType::FullObject => {
                let meant = composite.filter(|ours| ours.digest == theirs.digest);
                match full_object {
                    Some(ours) if ours.digest == theirs.digest => Some(ours),
                    ours => meant.or(ours),
                }
            }
        }
    }
}

impl Assembly<'_> {
    /// Holds what was computed here against what the store says it has.
    pub(crate) async fn prove(&mut self, receipt: Receipt, computed: &Computed) -> Result<Outcome> {
        let mut verified = Verified::Unverified;
        let mut checksum = computed.full_object.or(computed.composite);
        if self.options.verify != Verify::Off {
            self.options.events.emit(|| Event::Verifying);
            (verified, checksum) = self.compare(&receipt, computed, checksum).await?;
            if !verified.is_proof() {
                let why = match self.algorithm {
                    None => "no checksum was sent".to_owned(),
                    Some(Algorithm::Md5) => "the store's ETag is not an MD5".to_owned(),
                    Some(algorithm) => format!("the store returned no {algorithm} checksum"),
                };
                if self.options.verify == Verify::Require {
                    return Err(Error::new(
                        ErrorKind::Integrity,
                        self.operation,
                        self.url.to_string(),
                        format!("stored, but unverified: {why}"),
                    )
                    .advise("try --checksum-algorithm md5, or accept it with --verify auto"));
                }
                self.warn(format!("unverified: {why}"));
            }
        }
        let told = self.record_warnings.all().into_iter();
        let warnings = told.chain(std::mem::take(&mut self.warnings)).collect();
        Ok(Outcome { receipt, verified, checksum, warnings })
    }

    async fn compare(
        &mut self,
        receipt: &Receipt,
        computed: &Computed,
        fallback: Option<Checksum>,
    ) -> Result<(Verified, Option<Checksum>)> {
        let mismatched = |mismatch: Mismatch| {
            mismatch
                .into_error(self.operation, self.url.to_string())
                .context("the store holds other bytes than were sent")
                .advise("upload it again; if it happens again, the store or a proxy damages data")
        };
        let matching = |checksums: &[Checksum]| {
            checksums.iter().find_map(|theirs| {
                let ours = computed.like(theirs)?;
                Some((Checksum { kind: ours.kind, parts: theirs.parts, ..*theirs }, ours))
            })
        };
        if let Some((theirs, ours)) = matching(&receipt.checksums) {
            return Ok((compare(&theirs, &ours).map_err(mismatched)?, Some(ours)));
        }
        if let Some(ours) = &computed.md5
            && let Some(theirs) = receipt.etag.as_deref().and_then(Md5ETag::parse)
        {
            let encrypted = receipt.encryption.as_deref().is_some_and(|how| how != "AES256")
                || self.options.encryption.customer_key().is_some();
            let is_md5 = self.profile.etag_is_md5 && !encrypted;
            let verified = compare_md5(&theirs, ours, is_md5).map_err(mismatched)?;
            return Ok((verified, Some((*ours).into())));
        }
        if fallback.is_none() || computed.md5.is_some() {
            return Ok((Verified::Unverified, fallback));
        }
        // Many stores keep the checksum and leave it out of this reply.
        let key = self.options.encryption.customer_key();
        let look = |_| self.engine.calls().head(self.url, receipt.version_id.as_deref(), key);
        match self.engine.retry().run(self.scope, None, look).await {
            // Somebody else's object by now says nothing of ours.
            Ok(info) if info.etag == receipt.etag => match matching(&info.checksums) {
                Some((theirs, ours)) => {
                    Ok((compare(&theirs, &ours).map_err(mismatched)?, Some(ours)))
                }
                None => Ok((Verified::Unverified, fallback)),
            },
            Ok(_) => Ok((Verified::Unverified, fallback)),
            Err(error) => {
                self.warn(format!("the stored object could not be looked at: {}", error.detail()));
                Ok((Verified::Unverified, fallback))
            }
        }
    }
}
