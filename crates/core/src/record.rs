//! Keeps a transfer's manifest on disk while it runs, and finds what an earlier run left.
//!
//! A [`Recorder`] that cannot record is no error: the transfer goes on, says so once, and cannot be
//! resumed. A manifest that is there and cannot be used is one: going on regardless would throw away
//! what somebody may still want.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use sha2::{Digest as _, Sha256};

use crate::error::{Error, ErrorKind, Result};
use crate::file::{Journal, JournalError};
use crate::integrity::{Algorithm, ChecksumType, Digest};
use crate::manifest::{self, Difference, Manifest, Record, Transfer};
use crate::options::Resume;
use crate::progress::{CANNOT_BE_RESUMED, Emitter, Event};

/// How names of manifests of uploads end.
pub(crate) const UPLOAD_SUFFIX: &str = ".upload";

/// How names of links to manifests of downloads end, which lie beside their partial files.
pub(crate) const DOWNLOAD_SUFFIX: &str = ".download";

/// Letters of a key that go into a manifest's name, so that a person can tell them apart.
const STEM_CHARS: usize = 40;

/// One transfer's manifest, being written. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Recorder(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    journal: Journal,
    /// In the folder of manifests, a link to one that is elsewhere.
    link: Option<PathBuf>,
    has_failed: AtomicBool,
    /// Whether there is something in it that a later run could go on with.
    holds_something: AtomicBool,
    warnings: Warnings,
}

/// What is to be opened.
#[derive(Clone)]
pub(crate) struct Opening {
    pub(crate) operation: &'static str,
    /// What the transfer is called in messages: an `s3://` URL.
    pub(crate) target: String,
    pub(crate) path: PathBuf,
    pub(crate) resume: Resume,
    pub(crate) warnings: Warnings,
}

/// What is wrong with a manifest, told at once and kept for the report. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Warnings {
    events: Emitter,
    told: Arc<Mutex<Vec<String>>>,
}

impl Warnings {
    pub(crate) fn new(events: Emitter) -> Self {
        Self { events, told: Arc::default() }
    }

    fn tell(&self, message: String) {
        self.events.emit(|| Event::Warning { message: message.clone() });
        self.told.lock().unwrap_or_else(PoisonError::into_inner).push(message);
    }

    /// All that were told.
    pub(crate) fn all(&self) -> Vec<String> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Recorder {
    /// Opens the manifest at `path`, with what an earlier run recorded in it, if anything.
    /// Blocks on the disk.
    pub(crate) fn open(opening: &Opening) -> Result<(Self, Option<Manifest>)> {
        let Opening { path, resume, warnings, .. } = opening;
        if *resume == Resume::Off {
            return Ok((Self::default(), None));
        }
        let starts_over = *resume == Resume::StartOver;
        let was_there = path.symlink_metadata().is_ok();
        let opened = Journal::open(path, manifest::MAX_BYTES).or_else(|error| match error {
            // What cannot be read may still be removed.
            JournalError::Unreadable(_) if starts_over && std::fs::remove_file(path).is_ok() => {
                Journal::open(path, manifest::MAX_BYTES)
            }
            error => Err(error),
        });
        let (journal, content) = match opened {
            Ok(opened) => opened,
            Err(JournalError::Busy) => return Err(opening.busy()),
            Err(JournalError::Unreadable(source)) => return Err(opening.unreadable(source)),
            Err(JournalError::Unwritable(source)) => {
                let why = Error::io("write", path, source);
                warnings.tell(cannot_be_resumed(why.detail(), path));
                return Ok((Self::default(), None));
            }
        };
        let decoded = match manifest::decode(&content) {
            Ok(decoded) => Some(decoded),
            Err(damage) if starts_over => {
                let message = format!(
                    "the manifest {} could not be used ({damage}): an unfinished upload that it told \
                     of may still be on the store",
                    path.display()
                );
                warnings.tell(message);
                None
            }
            Err(damage) => return Err(opening.damaged(&damage)),
        };
        let recorder = Self(Some(Arc::new(Inner {
            journal,
            link: None,
            has_failed: AtomicBool::new(false),
            holds_something: AtomicBool::new(false),
            warnings: warnings.clone(),
        })));
        let says_nothing = decoded.as_ref().is_some_and(|decoded| decoded.manifest.is_none());
        if says_nothing && (was_there || !content.is_empty()) && opening.is_of_upload() {
            warnings.tell(format!(
                "the manifest {} ends before it says what it is of: an unfinished upload that it told of \
                 may still be on the store; see brigade uploads list {}",
                path.display(),
                opening.target
            ));
        }
        let (valid_bytes, found) =
            decoded.map_or((0, None), |decoded| (decoded.valid_bytes, decoded.manifest));
        if valid_bytes < content.len() {
            recorder.attempt(|journal| journal.truncate(valid_bytes as u64));
        }
        Ok((recorder, found))
    }

    /// Whether what is recorded here will be found again.
    pub(crate) fn is_on(&self) -> bool {
        self.0.as_ref().is_some_and(|inner| !inner.has_failed.load(Ordering::Relaxed))
    }

    /// Whether a later run finds enough to go on with, though the record may have ended early.
    pub(crate) fn is_of_use(&self) -> bool {
        self.0.as_ref().is_some_and(|inner| inner.holds_something.load(Ordering::Relaxed))
    }

    /// Says that an earlier run recorded enough.
    pub(crate) fn is_taken_up(&self) {
        if let Some(inner) = &self.0 {
            inner.holds_something.store(true, Ordering::Relaxed);
        }
    }

    /// Makes a manifest that lies elsewhere known in `folder`, under `name`.
    pub(crate) fn link_from(&mut self, folder: Option<&Path>, name: &str) {
        let (Some(inner), Some(folder)) = (self.0.as_mut().and_then(Arc::get_mut), folder) else {
            return;
        };
        let link = folder.join(name);
        if make_folder(folder).is_ok() {
            let path = std::path::absolute(inner.journal.path());
            let made = path.and_then(|path| std::os::unix::fs::symlink(path, &link));
            if made.is_ok() || link.symlink_metadata().is_ok() {
                inner.link = Some(link);
            }
        }
    }

    /// Begins the manifest: whatever was in it is gone.
    pub(crate) fn begin(&self, transfer: &Transfer) {
        let first = manifest::encode_first(&Record::Transfer(Box::new(transfer.clone())));
        self.attempt(|journal| journal.truncate(0).and_then(|()| journal.append(&first)));
    }

    /// Records that an upload is about to be created, durably: this has to outlive the request.
    pub(crate) fn intent(&self, token: &str) {
        let record = Record::Intent { token: token.to_owned(), at_unix_s: unix_now() };
        self.append(&record);
        self.sync();
    }

    /// Records that the request of the last intent was refused for certain.
    pub(crate) fn refused(&self) {
        self.append(&Record::Refused {});
    }

    /// Records which uploads requests without an answer have begun.
    pub(crate) fn strays(&self, ids: &[String]) {
        self.append(&Record::Strays { ids: ids.to_vec() });
    }

    /// Records the upload's id, durably: with parts, an upload that nobody knows of costs money.
    pub(crate) fn upload(
        &self,
        id: &str,
        checksum: Option<Algorithm>,
        checksum_type: Option<ChecksumType>,
    ) {
        self.append(&Record::Upload { id: id.to_owned(), checksum, checksum_type });
        self.sync();
        if self.is_on() {
            self.is_taken_up();
        }
    }

    /// Records a part that was acknowledged, or written. One small write: see the benchmark.
    pub(crate) fn part(&self, number: u32, digest: Option<Digest>, etag: Option<&str>) {
        let sum = digest.map(|digest| digest.to_base64());
        self.append(&Record::Part { number, sum, etag: etag.map(str::to_owned) });
        if self.is_on() {
            self.is_taken_up();
        }
    }

    /// Waits until all of it is on disk. Blocks.
    pub(crate) fn sync(&self) {
        self.attempt(Journal::sync);
    }

    /// Removes the manifest: the transfer is done, or nothing is left of it.
    pub(crate) fn remove(&self) {
        let Some(inner) = &self.0 else { return };
        inner.journal.remove();
        if let Some(link) = &inner.link {
            let _ = std::fs::remove_file(link);
        }
    }

    fn append(&self, record: &Record) {
        if self.0.is_some() {
            self.attempt(|journal| journal.append(&manifest::encode(record)));
        }
    }

    /// The first failure is said and the last: a manifest with a gap in it is worth no more records.
    fn attempt(&self, work: impl FnOnce(&Journal) -> std::io::Result<()>) {
        let Some(inner) = self.0.as_ref().filter(|_| self.is_on()) else { return };
        if let Err(source) = work(&inner.journal) {
            inner.has_failed.store(true, Ordering::Relaxed);
            let path = inner.journal.path();
            let why = Error::io("write", path, source);
            inner.warnings.tell(cannot_be_resumed(why.detail(), path));
        }
    }
}

impl Opening {
    fn is_of_upload(&self) -> bool {
        self.path.as_os_str().as_encoded_bytes().ends_with(UPLOAD_SUFFIX.as_bytes())
    }

    /// An error about the manifest, not about what it is of.
    pub(crate) fn refuse(&self, kind: ErrorKind, detail: impl Into<String>) -> Error {
        Error::new(kind, self.operation, self.target.clone(), detail)
            .advise("start over with --no-resume")
    }

    /// An error for a manifest of something else than is to be moved now.
    pub(crate) fn refusal(&self, difference: Difference) -> Error {
        match difference {
            Difference::Another(whose) => self.refuse(
                ErrorKind::Conflict,
                format!("the manifest {} is of another transfer: {whose}", self.path.display()),
            ),
            Difference::Changed(how) => self.refuse(ErrorKind::Changed, how),
            Difference::AskedOtherwise(what) => self
                .refuse(
                    ErrorKind::InvalidInput,
                    format!("an earlier run began it with another {what}"),
                )
                .advise("ask for the same, or start over with --no-resume"),
        }
    }

    fn busy(&self) -> Error {
        let detail = "another process is at this very transfer";
        self.refuse(ErrorKind::Conflict, detail).advise("wait for it, or stop it")
    }

    fn damaged(&self, damage: &manifest::Damage) -> Error {
        let newer = matches!(damage, manifest::Damage::Newer { .. });
        let detail = format!("the manifest {} cannot be used: {damage}", self.path.display());
        let error = self.refuse(ErrorKind::Io, detail);
        if newer {
            error.advise("resume with the version that began it, or start over with --no-resume")
        } else {
            error
        }
    }

    fn unreadable(&self, source: std::io::Error) -> Error {
        let why = Error::io(self.operation, &self.path, source);
        let detail =
            format!("the manifest {} cannot be read: {}", self.path.display(), why.detail());
        self.refuse(why.kind(), detail)
            .advise("make it readable, or remove it and start over")
            .caused_by(why)
    }
}

fn cannot_be_resumed(why: &str, path: &Path) -> String {
    format!("{CANNOT_BE_RESUMED}: {} cannot be written: {why}", path.display())
}

/// Whether a later run may fare better with what is there. Not where the bytes, or the place that
/// they go to, would be others by then; nor where the whole, once it was there, proved wrong.
pub(crate) fn is_worth_keeping(error: &Error, parts_are_in: bool) -> bool {
    match error.kind() {
        ErrorKind::Changed | ErrorKind::Conflict | ErrorKind::NotFound => false,
        ErrorKind::Integrity | ErrorKind::InvalidInput => !parts_are_in,
        _ => true,
    }
}

/// Where the manifest of an upload is, in `folder`.
pub(crate) fn upload_path(folder: &Path, place: &[&[u8]], key: &str) -> PathBuf {
    folder.join(name_of(place, key, UPLOAD_SUFFIX))
}

/// A manifest's name: a bit of the key to read, and a hash of everything that tells transfers apart.
pub(crate) fn name_of(place: &[&[u8]], key: &str, suffix: &str) -> String {
    let end = key.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let plain = |c: char| if c.is_ascii_alphanumeric() || ".-_".contains(c) { c } else { '_' };
    let stem: String = end.chars().map(plain).take(STEM_CHARS).collect();
    format!("{}-{}{suffix}", stem.trim_start_matches('.'), &hash_of(place)[..32])
}

/// A hash of texts that no other texts share, in hexadecimal.
pub(crate) fn hash_of(texts: &[&[u8]]) -> String {
    let mut hasher = Sha256::new();
    for text in texts {
        hasher.update((text.len() as u64).to_le_bytes());
        hasher.update(text);
    }
    hasher.finalize().iter().fold(String::new(), |mut hash, byte| {
        // Writing to a text cannot fail.
        let _ = write!(hash, "{byte:02x}");
        hash
    })
}

/// Makes the folder of manifests, for its owner alone.
pub(crate) fn make_folder(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Seconds since 1970; 0 on a machine whose clock is before that.
pub(crate) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The command that began a transfer, as the manifest keeps it.
pub(crate) fn texts(command: &[OsString]) -> Vec<manifest::Text> {
    command.iter().cloned().map(Into::into).collect()
}
