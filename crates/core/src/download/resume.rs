//! What an earlier run of a download left: its partial file and manifest, found and checked.
//!
//! A part counts as there when the file's own bytes have the checksum that was recorded when they were
//! written. Reading them again goes at the disk's speed, beside the fetching of what is missing.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::{StreamExt, TryStreamExt};

use super::sums::{PartHashers, PartSums, read_segment};
use super::{Download, OPERATION};
use crate::engine::{blocking, stopped};
use crate::error::{Error, Result};
use crate::file::{MANIFEST_SUFFIX, Partial, Reader, partial_path};
use crate::integrity::{Algorithm, Digest};
use crate::limits::{format_size, of_all};
use crate::manifest::{Difference, ObjectState, Side, Transfer};
use crate::options::{Cancel, Resume};
use crate::plan::{self, Part, Plan};
use crate::progress::Event;
use crate::record::{self, DOWNLOAD_SUFFIX, Opening, Recorder, is_worth_keeping, texts, unix_now};

/// Letters of the hash that tells partial files for one target apart.
const TAG_LEN: usize = 8;

/// Parts read again at a time. More than one, so that the disk has its next request while this one
/// is summed.
const CHECKED_AT_ONCE: usize = 4;

/// The file a download goes to, and the record of how far it got.
pub(super) struct Target {
    pub(super) partial: Partial,
    pub(super) recorder: Recorder,
    /// Parts that an earlier run recorded as written, with the CRC32 of their bytes.
    pub(super) claims: BTreeMap<u32, Digest>,
    /// Where it will be, for messages.
    pub(super) path: PathBuf,
    /// Bytes of parts that are in the file.
    pub(super) written_bytes: Arc<AtomicU64>,
}

/// What the check of the claims came to.
#[derive(Default)]
pub(super) struct Checked {
    pub(super) good: Vec<(u32, PartSums)>,
    pub(super) missing: Vec<Part>,
}

impl Download<'_> {
    /// The plan, as an earlier run made it or a new one, and the file with what is there of it.
    pub(super) async fn open_target(
        &mut self,
        target: &Path,
        shown: &Path,
    ) -> Result<(Plan, Target)> {
        let object_part = self.found.part_size_bytes();
        let cut = |asked| {
            plan::download(self.info.size_bytes, asked, object_part)
                .map_err(|error| error.into_error(OPERATION, self.url.to_string()))
        };
        let plan = cut(self.options.part_size_bytes)?;
        let transfer = self.transfer(&plan, target)?;
        let place = self.place(&transfer, target);
        let place: Vec<&[u8]> = place.iter().map(Vec::as_slice).collect();
        let file = partial_path(target, &record::hash_of(&place)[..TAG_LEN])?;
        let mut manifest = OsString::from(&file);
        manifest.push(MANIFEST_SUFFIX);
        let manifest = PathBuf::from(manifest);
        // Nothing would tell that the object is still the same one. And what comes in one request has nothing to resume, but may follow something that had.
        let is_unrecorded = self.options.resume == Resume::Off
            || (self.pin.etag.is_none() && self.pin.version_id.is_none())
            || (plan.part_count() == 1 && manifest.symlink_metadata().is_err());
        if is_unrecorded {
            return Ok((plan, self.unrecorded(target, shown, &plan).await?));
        }
        let opening = Opening {
            operation: OPERATION,
            target: self.url.to_string(),
            path: manifest,
            resume: self.options.resume,
            warnings: self.record_warnings.clone(),
        };
        let to_open = opening.clone();
        let (mut recorder, found) = blocking(OPERATION, move || Recorder::open(&to_open)).await?;
        if !recorder.is_on() {
            return Ok((plan, self.unrecorded(target, shown, &plan).await?));
        }
        let found = found.filter(|_| self.options.resume == Resume::Continue);
        let plan = if let Some(found) = &found {
            let asked = self.options.part_size_bytes;
            let other_parts = asked.is_some_and(|asked| asked != found.transfer.part_size_bytes);
            let difference = found
                .transfer
                .difference(&transfer)
                .or_else(|| other_parts.then(|| Difference::AskedOtherwise("part size".into())));
            if let Some(difference) = difference {
                return Err(opening.refusal(difference));
            }
            recorder.is_taken_up();
            cut(Some(found.transfer.part_size_bytes))?
        } else {
            recorder.begin(&transfer);
            plan
        };
        let mut whole_place = place.clone();
        whole_place.push(transfer.path.as_os_str().as_encoded_bytes());
        let name = record::name_of(&whole_place, self.url.key(), DOWNLOAD_SUFFIX);
        recorder.link_from(self.engine.manifest_folder(), &name);
        let claims: BTreeMap<_, _> = found
            .into_iter()
            .flat_map(|found| found.parts)
            .filter_map(|(number, part)| Some((number, part.digest?)))
            .collect();
        let is_gone = file.symlink_metadata().is_err();
        if is_gone
            && claims.len() == plan.part_count() as usize
            && let Some(partial) = self.committed_before(&plan, target, &claims).await?
        {
            let (path, written_bytes) = (shown.to_owned(), Arc::default());
            return Ok((plan, Target { partial, recorder, claims, path, written_bytes }));
        }
        let (target, size, goes_on) = (target.to_owned(), plan.size_bytes(), !claims.is_empty());
        // Reserving space can take a while on some file systems.
        let opened =
            blocking(OPERATION, move || Partial::resume(&target, file, size, goes_on)).await;
        let (partial, was_there) = opened.inspect_err(|_| {
            if !goes_on {
                recorder.remove();
            }
        })?;
        let claims = if goes_on && !was_there {
            self.warn("the partial file of an earlier run is gone; it was started over".into());
            recorder.begin(&transfer);
            BTreeMap::new()
        } else {
            claims
        };
        let path = shown.to_owned();
        let written_bytes = Arc::default();
        Ok((plan, Target { partial, recorder, claims, path, written_bytes }))
    }

    /// The target, if an earlier run gave it its name and did not live to forget how it came about:
    /// it has every byte that was recorded.
    async fn committed_before(
        &self,
        plan: &Plan,
        target: &Path,
        claims: &BTreeMap<u32, Digest>,
    ) -> Result<Option<Partial>> {
        let Some(there) = Partial::committed_before(target, plan.size_bytes()) else {
            return Ok(None);
        };
        let cancel = &self.options.cancel;
        let checked = self.compare(plan, there.reader(), claims, None, cancel, |_| {}).await?;
        Ok(checked.missing.is_empty().then_some(there))
    }

    async fn unrecorded(&self, target: &Path, shown: &Path, plan: &Plan) -> Result<Target> {
        let (target, size) = (target.to_owned(), plan.size_bytes());
        let partial = blocking(OPERATION, move || Partial::create(&target, size)).await?;
        Ok(Target {
            partial,
            recorder: Recorder::default(),
            claims: BTreeMap::new(),
            path: shown.to_owned(),
            written_bytes: Arc::default(),
        })
    }

    /// What tells this download from others to the same folder.
    fn place(&self, transfer: &Transfer, target: &Path) -> Vec<Vec<u8>> {
        let text = |text: Option<&str>| text.unwrap_or_default().as_bytes().to_vec();
        vec![
            text(transfer.endpoint_url.as_deref()),
            text(Some(self.url.bucket())),
            text(Some(self.url.key())),
            text(self.options.version_id.as_deref()),
            target.file_name().unwrap_or_default().as_encoded_bytes().to_vec(),
        ]
    }

    /// What this download is, for its manifest.
    fn transfer(&self, plan: &Plan, target: &Path) -> Result<Transfer> {
        let path =
            std::path::absolute(target).map_err(|source| Error::io(OPERATION, target, source))?;
        Ok(Transfer {
            endpoint_url: self.engine.store().endpoint_url().map(str::to_owned),
            bucket: self.url.bucket().to_owned(),
            key: self.url.key().to_owned(),
            path: Transfer::text_of(&path),
            size_bytes: plan.size_bytes(),
            part_size_bytes: plan.part_size_bytes(),
            side: Side::Download {
                object: ObjectState {
                    etag: self.info.etag.clone(),
                    version_id: self.info.version_id.clone(),
                },
            },
            begun_unix_s: unix_now(),
            command: texts(&self.options.command),
        })
    }

    /// Reads again what an earlier run says it wrote.
    pub(super) async fn check_claims(
        &self,
        plan: &Plan,
        target: &Target,
        needed: Option<Algorithm>,
        cancel: &Cancel,
    ) -> Result<Checked> {
        let keep = |part: Part| {
            let (number, size_bytes) = (part.number, part.len_bytes);
            self.options.events.emit(|| Event::PartKept { part: number, size_bytes });
            self.kept_bytes.fetch_add(size_bytes, Ordering::Relaxed);
            target.written_bytes.fetch_add(size_bytes, Ordering::Relaxed);
        };
        let file = target.partial.reader();
        self.compare(plan, file, &target.claims, needed, cancel, keep).await
    }

    /// Holds claims against a file; `keep` hears of each part that is as claimed.
    async fn compare(
        &self,
        plan: &Plan,
        file: Reader,
        claims: &BTreeMap<u32, Digest>,
        needed: Option<Algorithm>,
        cancel: &Cancel,
        keep: impl Fn(Part),
    ) -> Result<Checked> {
        let claims: Vec<_> = claims
            .iter()
            .filter_map(|(number, digest)| Some((plan.part(*number)?, *digest)))
            .collect();
        let read = futures::stream::iter(claims).map(|(part, claimed)| {
            let (file, cancel) = (file.clone(), cancel.clone());
            async move {
                let read = {
                    let cancel = cancel.clone();
                    blocking(OPERATION, move || sums_of(&file, part, needed, &cancel)).await
                };
                match read {
                    Err(error) if cancel.is_cancelled() => Err(error),
                    // What cannot be read is not there.
                    read => Ok((part, read.unwrap_or_default(), claimed)),
                }
            }
        });
        let mut read = std::pin::pin!(read.buffer_unordered(CHECKED_AT_ONCE));
        let mut checked = Checked::default();
        while let Some((part, sums, claimed)) = read.try_next().await.map_err(|error| {
            if cancel.is_cancelled() { stopped(OPERATION, self.url) } else { error }
        })? {
            if sums.crc == Some(claimed) {
                keep(part);
                checked.good.push((part.number, sums));
            } else {
                checked.missing.push(part);
            }
        }
        Ok(checked)
    }

    /// Says that claims did not hold, if any did not.
    pub(super) fn warn_of_broken_claims(&mut self, missing: &[Part]) {
        let bytes: u64 = missing.iter().map(|part| part.len_bytes).sum();
        if bytes > 0 {
            self.warn(format!(
                "{} that an earlier run recorded as written were not in the partial file as \
                 recorded, and were fetched again",
                format_size(bytes)
            ));
        }
    }
}

impl Target {
    /// Gives the file its name, and forgets how it came about. Blocks on the disk.
    pub(super) fn commit(self, plan: &Plan) -> Result<()> {
        let stays = self.recorder.is_of_use();
        let Err(error) = self.partial.commit(stays) else {
            self.recorder.remove();
            return Ok(());
        };
        if !stays {
            self.recorder.remove();
            return Err(error);
        }
        Err(error.kept(of_all(plan.size_bytes(), plan.size_bytes())))
    }

    /// Keeps what is there for a later run, if it is any use to one.
    pub(super) fn failed(self, plan: &Plan, error: Error) -> Error {
        let written = self.written_bytes.load(Ordering::Relaxed);
        let claimed = self.claims.keys().filter_map(|number| plan.part(*number));
        // Claims that nobody got to check are as good as they were.
        let kept = written.max(claimed.map(|part| part.len_bytes).sum());
        if self.recorder.is_of_use() && kept > 0 && is_worth_keeping(&error, true) {
            self.partial.keep();
            return error.kept(of_all(kept, plan.size_bytes()));
        }
        self.recorder.remove();
        error
    }
}

fn sums_of(
    file: &Reader,
    part: Part,
    needed: Option<Algorithm>,
    cancel: &Cancel,
) -> Result<PartSums> {
    let mut hashers = PartHashers::new(needed, true);
    read_segment(file, part.offset_bytes, part.len_bytes, cancel, |bytes| hashers.update(bytes))
        .map_err(|source| Error::io("read again", Path::new("the partial file"), source))?;
    Ok(hashers.finish())
}
