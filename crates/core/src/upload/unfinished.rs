//! Uploads that an earlier run, or an answer that got lost, left unfinished.

use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::assembly::{Assembly, Begun};
use super::prove::Computed;
use super::{OPERATION, Upload};
use crate::engine::blocking;
use crate::error::{Error, ErrorKind, Result};
use crate::limits::ChecksumSupport;
use crate::manifest::{Attributes, Difference, Manifest, Side, SourceState, Text, Transfer};
use crate::options::{ChecksumChoice, Encryption, Resume};
use crate::plan::{self, Plan};
use crate::record::{self, Opening, Recorder, texts, unix_now};
use crate::schedule::RetryScope;
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
            plan::upload(size_bytes, asked, &self.assembly.profile)
                .map_err(|error| error.into_error(OPERATION, self.assembly.url.to_string()))
        };
        let plan = cut(self.assembly.options.part_size_bytes)?;
        let Some(folder) = self.assembly.engine.manifest_folder() else { return Ok(plan) };
        let transfer = self.transfer(&plan)?;
        let (bucket, key) = (self.assembly.url.bucket(), self.assembly.url.key());
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
            target: self.assembly.url.to_string(),
            path,
            resume: self.assembly.options.resume,
            warnings: self.assembly.record_warnings.clone(),
        };
        let to_open = opening.clone();
        let (recorder, found) = blocking(OPERATION, move || Recorder::open(&to_open)).await?;
        self.assembly.recorder = recorder;
        let Some(found) = found else { return Ok(self.begin_record(plan, &transfer)) };
        if self.assembly.options.resume == Resume::StartOver {
            self.assembly.give_up_earlier(found).await?;
            return Ok(self.begin_record(plan, &transfer));
        }
        let asked = self.assembly.options.part_size_bytes;
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
            self.assembly.recorder.is_taken_up();
        }
        self.unfinished = Some(found);
        Ok(plan)
    }

    /// Begins the manifest, unless there is nothing that could be resumed.
    fn begin_record(&mut self, plan: Plan, transfer: &Transfer) -> Plan {
        if plan.is_single() {
            self.assembly.recorder.remove();
            self.assembly.recorder = Recorder::default();
        } else {
            self.assembly.recorder.begin(transfer);
        }
        plan
    }

    /// What this upload is, for its manifest.
    fn transfer(&self, plan: &Plan) -> Result<Transfer> {
        let path = std::path::absolute(self.source.path())
            .map_err(|source| Error::io(OPERATION, self.source.path(), source))?;
        let (modified, inode) = self.source.state();
        let options = self.assembly.options;
        let encryption = match &options.encryption {
            Encryption::BucketDefault => None,
            Encryption::S3 => Some("AES256".to_owned()),
            Encryption::Kms { key_id: None } => Some("aws:kms".to_owned()),
            Encryption::Kms { key_id: Some(id) } => Some(format!("aws:kms {id}")),
            Encryption::Customer(_) => Some("customer".to_owned()),
        };
        Ok(Transfer {
            endpoint_url: self.assembly.engine.store().endpoint_url().map(str::to_owned),
            bucket: self.assembly.url.bucket().to_owned(),
            key: self.assembly.url.key().to_owned(),
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
        let asked_for_another = match self.assembly.options.checksum {
            ChecksumChoice::Auto => false,
            ChecksumChoice::Use(algorithm) => found.checksum != Some(algorithm),
            ChecksumChoice::None => found.checksum.is_some(),
        };
        if asked_for_another {
            return Err(Difference::AskedOtherwise("checksum".into()));
        }
        self.assembly.algorithm = found.checksum;
        let now = found
            .checksum
            .and_then(|algorithm| self.assembly.profile.multipart_checksum_type(algorithm));
        if found.checksum_type != now
            && self.assembly.profile.checksums == ChecksumSupport::FullObject
        {
            self.assembly.without_full_object();
        }
        Ok(())
    }

    /// The upload is gone from the store: because an earlier run completed it and did not live to
    /// hear of it? The object's own token tells.
    pub(super) async fn completed_before(
        &self,
        plan: &Plan,
        begun: &Begun,
    ) -> Result<Option<(Receipt, Computed)>> {
        let gone =
            Error::new(ErrorKind::NotFound, OPERATION, self.assembly.url.to_string(), "gone");
        match self.assembly.settle(&begun.token, gone).await {
            Ok(receipt) => {
                let parts = self.receipts_of_all(plan, begun).await?;
                // Nothing was moved this time.
                self.kept_bytes.store(plan.size_bytes(), Ordering::Relaxed);
                Ok(Some((
                    receipt,
                    Computed::of_parts(plan.parts().map(|part| part.len_bytes), &parts),
                )))
            }
            Err(gone) if gone.detail() == "gone" && gone.advice().is_none() => Ok(None),
            Err(unknown) => Err(unknown),
        }
    }
}

impl Assembly<'_> {
    /// Nothing is left of the upload that a manifest could tell of.
    pub(crate) async fn forget(&self) {
        let recorder = self.recorder.clone();
        let removing = move || {
            recorder.remove();
            Ok(())
        };
        // It cannot fail.
        let _ = blocking(self.operation, removing).await;
    }

    /// Aborts what an earlier run left, for one that starts over.
    pub(super) async fn give_up_earlier(&mut self, found: Manifest) -> Result<()> {
        // Looked for once there is an upload whose owner and time can be compared.
        self.open_intents_unix_s.extend(&found.open_intents_unix_s);
        self.strays.extend_from_slice(&found.stray_upload_ids);
        let Some(id) = found.upload_id else { return Ok(()) };
        self.abort(&id).await.map_err(|error| {
            error.context("the unfinished upload of an earlier run could not be aborted")
        })
    }

    /// Requests to create an upload may have been carried out without an answer that arrived: finds
    /// the uploads that they may have begun, for [`Upload::settle_strays`]. `own` is the upload whose
    /// answer did arrive, at `own_unix_s` by this machine's clock.
    pub(super) async fn find_strays(&mut self, own: &str, own_unix_s: u64) {
        let Some(since_unix_s) = self.open_intents_unix_s.iter().copied().min() else { return };
        let at_most = self.open_intents_unix_s.len();
        match self.look_for_strays(since_unix_s, own, own_unix_s).await {
            Ok(strays) if strays.len() <= at_most => {
                let ids: Vec<_> = strays.into_iter().map(|stray| stray.upload_id).collect();
                self.recorder.strays(&ids);
                self.strays.extend(ids);
                self.open_intents_unix_s.clear();
            }
            Ok(strays) => self.warn_of_strays(&format!(
                "{} unfinished uploads of this key may have been begun by requests whose answers were \
                 lost, or by somebody else",
                strays.len(),
            )),
            Err(error) => self.warn_of_strays(&format!(
                "an answer was lost, and whether it left an unfinished upload behind could not be \
                 found out ({})",
                error.detail()
            )),
        }
    }

    /// Aborts the strays that are still without a part: by now, whoever else had begun one would have
    /// sent some.
    pub(crate) async fn settle_strays(&mut self) {
        let scope = RetryScope::of_cleanup();
        for id in &std::mem::take(&mut self.strays) {
            let calls = self.engine.calls();
            let key = self.options.encryption.customer_key();
            let look = |_| calls.list_parts(self.url, id, 0, key);
            let settled = match self.engine.retry().run(&scope, None, look).await {
                Ok(page) if page.parts.is_empty() => self.abort(id).await,
                Ok(_) => Ok(()),
                Err(gone) if gone.code() == Some("NoSuchUpload") => Ok(()),
                Err(error) => Err(error),
            };
            if let Err(left) = settled {
                self.warn_of_strays(&format!(
                    "the upload {id} was begun by a request whose answer was lost, and could not be \
                     aborted ({})",
                    left.detail()
                ));
            }
        }
    }

    pub(super) fn warn_of_strays(&mut self, what: &str) {
        self.warn(format!("{what}: see brigade uploads list {}", self.url));
    }

    /// Uploads of exactly this key, begun by the same client as `own`, between the first of the lost
    /// requests and it, and without a single part: nobody knows their id, so nobody can have sent one.
    async fn look_for_strays(
        &self,
        since_unix_s: u64,
        own: &str,
        own_unix_s: u64,
    ) -> Result<Vec<ListedUpload>> {
        let uploads = self.uploads_of_key().await?;
        let own = uploads.iter().find(|upload| upload.upload_id == own).cloned();
        // The store's clock is not ours; our own upload tells how far they are apart.
        let Some((own, until)) = own.and_then(|own| Some((own.clone(), own.initiated?))) else {
            let detail = "the store does not list the upload that it has just begun";
            let url = self.url.to_string();
            return Err(Error::new(ErrorKind::Unsupported, self.operation, url, detail));
        };
        let since = in_their_time(since_unix_s, own_unix_s, until);
        let mut strays = Vec::new();
        for upload in uploads {
            let is_own = own.upload_id == upload.upload_id;
            let by_others = own.initiator != upload.initiator;
            let in_time = |at: SystemTime| {
                at.checked_add(CLOCK_SLACK).is_none_or(|at| at >= since) && at <= until
            };
            if is_own || by_others || !upload.initiated.is_some_and(in_time) {
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

/// A moment of this machine's clock by the store's, given one moment by both. One that no clock can
/// show, in a manifest that somebody made up, is the beginning of time.
fn in_their_time(moment_unix_s: u64, ours_unix_s: u64, theirs: SystemTime) -> SystemTime {
    let at = |unix_s| UNIX_EPOCH.checked_add(Duration::from_secs(unix_s)).unwrap_or(UNIX_EPOCH);
    let (moment, ours) = (at(moment_unix_s), at(ours_unix_s));
    let shifted = match ours.duration_since(theirs) {
        Ok(ahead) => moment.checked_sub(ahead),
        Err(behind) => moment.checked_add(behind.duration()),
    };
    shifted.unwrap_or(UNIX_EPOCH)
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
        // Ours is 50 s ahead of theirs, and then 50 s behind.
        assert_eq!(in_their_time(1_000, 2_000, at(1_950)), at(950));
        assert_eq!(in_their_time(1_000, 2_000, at(2_050)), at(1_050));
        for extreme in [0, u64::MAX] {
            in_their_time(extreme, 5, at(7));
            in_their_time(5, extreme, at(7));
        }
    }
}
