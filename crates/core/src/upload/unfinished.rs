//! Uploads that an earlier run, or an answer that got lost, left unfinished.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::multipart::Begun;
use super::prove::Computed;
use super::{OPERATION, Upload};
use crate::engine::blocking;
use crate::error::{Error, ErrorKind, Result};
use crate::limits::ChecksumSupport;
use crate::manifest::{Attributes, Difference, Manifest, Side, SourceState, Transfer};
use crate::options::{ChecksumChoice, Encryption, Resume};
use crate::plan::{self, Plan};
use crate::record::{self, Opening, Recorder, texts, unix_now};
use crate::transport::{ListedUpload, Pages, Receipt};

/// How far apart two readings of clocks may be that were corrected against each other: dates in
/// listings are in whole seconds, and a request takes a moment.
const CLOCK_SLACK: Duration = Duration::from_secs(2);

/// Pages of a bucket's unfinished uploads that are looked through for one key.
const MAX_PAGES: usize = 10;

impl Begun {
    /// The upload that a manifest tells of, if it got that far.
    pub(super) fn earlier(manifest: Manifest) -> Option<Self> {
        let (upload_id, token) = (manifest.upload_id?, manifest.token?);
        Some(Self { upload_id, token, claims: manifest.parts })
    }
}

impl Upload<'_> {
    /// The plan: as it was when an earlier run began the upload, or a new one. Opens the manifest.
    pub(super) async fn plan(&mut self) -> Result<Plan> {
        let size_bytes = self.source.size_bytes();
        let cut = |asked| {
            plan::upload(size_bytes, asked, &self.profile)
                .map_err(|error| error.into_error(OPERATION, self.url.to_string()))
        };
        let plan = cut(self.options.part_size_bytes)?;
        let Some(folder) = self.engine.manifest_folder() else { return Ok(plan) };
        let transfer = self.transfer(&plan)?;
        let (bucket, key) = (self.url.bucket(), self.url.key());
        let endpoint = transfer.endpoint_url.as_deref().unwrap_or_default();
        let place = [
            endpoint.as_bytes(),
            bucket.as_bytes(),
            key.as_bytes(),
            transfer.path.as_os_str().as_encoded_bytes(),
        ];
        let path = record::upload_path(folder, &place, key);
        // What goes in one request has nothing to resume, but may follow something that had.
        if plan.is_single() && path.symlink_metadata().is_err() {
            return Ok(plan);
        }
        // What is wrong with it is said when the manifest cannot be written.
        let _ = record::make_folder(folder);
        let opening = Opening {
            operation: OPERATION,
            target: self.url.to_string(),
            path: &path,
            resume: self.options.resume,
            events: &self.options.events,
        };
        let (recorder, found) = Recorder::open(&opening)?;
        self.recorder = recorder;
        let Some(found) = found else {
            self.recorder.begin(&transfer);
            return Ok(plan);
        };
        if self.options.resume == Resume::StartOver {
            self.give_up_earlier(found).await?;
            self.recorder.begin(&transfer);
            return Ok(plan);
        }
        let asked = self.options.part_size_bytes;
        if let Some(difference) = found.transfer.difference(&transfer) {
            return Err(opening.refusal(difference));
        }
        if asked.is_some_and(|asked| asked != found.transfer.part_size_bytes) {
            return Err(opening.refusal(Difference::AskedOtherwise("part size".into())));
        }
        // Also finds out whether the store still takes parts of that size.
        let plan = cut(Some(found.transfer.part_size_bytes))?;
        if found.upload_id.is_some() {
            self.take_up_checksum(&found).map_err(|other| opening.refusal(other))?;
        }
        self.unfinished = Some(found);
        Ok(plan)
    }

    /// What this upload is, for its manifest.
    fn transfer(&self, plan: &Plan) -> Result<Transfer> {
        let path = std::path::absolute(self.source.path())
            .map_err(|source| Error::io(OPERATION, self.source.path(), source))?;
        let (modified, inode) = self.source.state();
        let options = self.options;
        let encryption = match &options.encryption {
            Encryption::BucketDefault => None,
            Encryption::S3 => Some("AES256".to_owned()),
            Encryption::Kms { key_id: None } => Some("aws:kms".to_owned()),
            Encryption::Kms { key_id: Some(id) } => Some(format!("aws:kms {id}")),
            Encryption::Customer(_) => Some("customer".to_owned()),
        };
        Ok(Transfer {
            endpoint_url: self.engine.store().endpoint_url().map(str::to_owned),
            bucket: self.url.bucket().to_owned(),
            key: self.url.key().to_owned(),
            path: Transfer::text_of(&path),
            size_bytes: plan.size_bytes(),
            part_size_bytes: plan.part_size_bytes(),
            side: Side::Upload {
                source: SourceState { modified, inode },
                attributes: Attributes {
                    content_type: options.content_type.clone(),
                    storage_class: options.storage_class.clone(),
                    metadata: options.metadata.clone(),
                    encryption,
                },
            },
            begun_unix_s: unix_now(),
            command: texts(&options.command),
        })
    }

    /// The upload was begun with a checksum, and its parts carry that one.
    fn take_up_checksum(&mut self, found: &Manifest) -> Result<(), Difference> {
        let asked_for_another = match self.options.checksum {
            ChecksumChoice::Auto => false,
            ChecksumChoice::Use(algorithm) => found.checksum != Some(algorithm),
            ChecksumChoice::None => found.checksum.is_some(),
        };
        if asked_for_another {
            return Err(Difference::AskedOtherwise("checksum".into()));
        }
        self.algorithm = found.checksum;
        let now =
            found.checksum.and_then(|algorithm| self.profile.multipart_checksum_type(algorithm));
        if found.checksum_type != now && self.profile.checksums == ChecksumSupport::FullObject {
            self.without_full_object();
        }
        Ok(())
    }

    /// Nothing is left of the upload that a manifest could tell of.
    pub(super) async fn forget(&self) {
        let recorder = self.recorder.clone();
        let removing = move || {
            recorder.remove();
            Ok(())
        };
        // It cannot fail.
        let _ = blocking(OPERATION, removing).await;
    }

    /// Aborts what an earlier run left, for one that starts over.
    async fn give_up_earlier(&mut self, found: Manifest) -> Result<()> {
        let intents = found.open_intents_unix_s.clone();
        if let (Some(since), None) = (intents.first(), &found.upload_id) {
            self.account_for(*since, intents.len(), None).await;
        }
        let Some(id) = found.upload_id else { return Ok(()) };
        self.abort(&id).await.map_err(|error| {
            error.context("the unfinished upload of an earlier run could not be aborted")
        })
    }

    /// The upload is gone from the store: because an earlier run completed it and did not live to
    /// hear of it? The object's own token tells.
    pub(super) async fn completed_before(
        &self,
        plan: &Plan,
        begun: &Begun,
    ) -> Result<Option<(Receipt, Computed)>> {
        let gone = Error::new(ErrorKind::NotFound, OPERATION, self.url.to_string(), "gone");
        match self.settle(&begun.token, gone).await {
            Ok(receipt) => {
                let parts = self.receipts_of_all(plan, begun).await?;
                Ok(Some((receipt, Computed::of_parts(plan, &parts))))
            }
            Err(gone) if gone.detail() == "gone" && gone.advice().is_none() => Ok(None),
            Err(unknown) => Err(unknown),
        }
    }

    /// Requests to create an upload may have been carried out without an answer that arrived:
    /// finds those uploads and aborts them. `own` is the upload whose answer did arrive, and when, by
    /// this machine's clock. Whether all of them are accounted for; what may be somebody else's is only
    /// told.
    pub(super) async fn account_for(
        &mut self,
        since_unix_s: u64,
        at_most: usize,
        own: Option<(&str, u64)>,
    ) -> bool {
        match self.find_strays(since_unix_s, own).await {
            Ok(strays) if strays.is_empty() => true,
            Ok(strays) if strays.len() <= at_most => {
                for stray in strays {
                    if let Err(left) = self.abort(&stray.upload_id).await {
                        self.warn(format!(
                            "the upload {} was begun by a request whose answer was lost, and could \
                             not be aborted: {}",
                            stray.upload_id,
                            left.detail()
                        ));
                        return false;
                    }
                }
                true
            }
            Ok(strays) => {
                self.warn(format!(
                    "{} unfinished uploads of this key may have been begun by requests whose answers \
                     were lost, or by somebody else: see brigade uploads list {}",
                    strays.len(),
                    self.url
                ));
                true
            }
            Err(error) => {
                self.warn(format!(
                    "an answer was lost, and whether it left an unfinished upload behind could not \
                     be found out ({}): see brigade uploads list {}",
                    error.detail(),
                    self.url
                ));
                false
            }
        }
    }

    /// Uploads of exactly this key, begun since then, by the same client as `own`, and without a
    /// single part: nobody knows their id, so nobody can have sent one.
    async fn find_strays(
        &self,
        since_unix_s: u64,
        own: Option<(&str, u64)>,
    ) -> Result<Vec<ListedUpload>> {
        let uploads = self.uploads_of_key().await?;
        let (id, begun_unix_s) = own.unzip();
        let own = uploads.iter().find(|upload| Some(upload.upload_id.as_str()) == id).cloned();
        // The store's clock is not ours; our own upload tells how far they are apart.
        let theirs = own.as_ref().and_then(|own| own.initiated);
        let since = in_their_time(since_unix_s, begun_unix_s.zip(theirs));
        let mut strays = Vec::new();
        for upload in uploads {
            let is_own = own.as_ref().is_some_and(|own| own.upload_id == upload.upload_id);
            let by_others = own.as_ref().is_some_and(|own| own.initiator != upload.initiator);
            let is_older = upload.initiated.is_none_or(|at| at + CLOCK_SLACK < since);
            if is_own || by_others || is_older {
                continue;
            }
            let calls = self.engine.calls();
            let key = self.options.encryption.customer_key();
            let look = |_| calls.list_parts(self.url, &upload.upload_id, 0, key);
            match self.engine.retry().run(self.scope, None, look).await {
                Ok(page) if page.parts.is_empty() => strays.push(upload),
                Ok(_) => {}
                Err(gone) if gone.code() == Some("NoSuchUpload") => {}
                Err(error) => return Err(error),
            }
        }
        Ok(strays)
    }

    async fn uploads_of_key(&self) -> Result<Vec<ListedUpload>> {
        let (calls, mut pages, mut found) = (self.engine.calls(), Pages::default(), Vec::new());
        let (bucket, key) = (self.url.bucket(), self.url.key());
        for _ in 0..MAX_PAGES {
            let list = |_| calls.list_uploads(bucket, key, pages.after());
            let mut page = self.engine.retry().run(self.scope, None, list).await?;
            let uploads = std::mem::take(&mut page.uploads).into_iter();
            found.extend(uploads.filter(|upload| upload.key == key));
            if !pages.turn(page, bucket)? {
                break;
            }
        }
        Ok(found)
    }
}

/// A moment of this machine's clock by the store's, given one moment by both.
fn in_their_time(moment_unix_s: u64, known: Option<(u64, SystemTime)>) -> SystemTime {
    let at = |unix_s| UNIX_EPOCH + Duration::from_secs(unix_s);
    let Some((ours, theirs)) = known else { return at(moment_unix_s) };
    match at(ours).duration_since(theirs) {
        Ok(ahead) => at(moment_unix_s).checked_sub(ahead).unwrap_or(UNIX_EPOCH),
        Err(behind) => at(moment_unix_s) + behind.duration(),
    }
}

/// Whether a request that failed so may have been carried out all the same.
pub(super) fn is_doubtful(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unreachable | ErrorKind::ServerFailure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_are_held_against_each_other() {
        let at = |unix_s| UNIX_EPOCH + Duration::from_secs(unix_s);
        assert_eq!(in_their_time(1_000, None), at(1_000));
        // Ours is 50 s ahead of theirs, and then 50 s behind.
        assert_eq!(in_their_time(1_000, Some((2_000, at(1_950)))), at(950));
        assert_eq!(in_their_time(1_000, Some((2_000, at(2_050)))), at(1_050));
    }
}
