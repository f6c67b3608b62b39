//! What is unfinished: the transfers that manifests on this machine tell of, and the multipart uploads
//! that a store lists.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::error::{Error, ErrorKind, Result};
use crate::file::{Journal, JournalError, MANIFEST_SUFFIX};
use crate::manifest::{self, Manifest, Side};
use crate::record::{DOWNLOAD_SUFFIX, UPLOAD_SUFFIX};

/// An unfinished transfer that was begun on this machine.
///
/// ```no_run
/// let folder = std::path::Path::new("/var/lib/backup/brigade");
/// for found in brigade::unfinished(folder)? {
///     match found {
///         Ok(transfer) => println!("{}", transfer.manifest.transfer.path().display()),
///         Err(error) => eprintln!("{error}"),
///     }
/// }
/// # Ok::<(), brigade::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unfinished {
    /// What it is, and how far it got.
    pub manifest: Manifest,
    /// Where its manifest is.
    pub path: PathBuf,
    /// Whether a process is at it right now.
    pub is_running: bool,
    /// The entry in the folder of manifests, where that is only a link.
    link: Option<PathBuf>,
}

/// An unfinished multipart upload, as a store lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnfinishedUpload {
    /// Key of the object that it would become.
    pub key: String,
    /// Its id.
    pub upload_id: String,
    /// When it was begun, by the store's clock.
    pub initiated: Option<SystemTime>,
    /// Bytes in the parts that the store has; `None` where they could not be listed.
    pub size_bytes: Option<u64>,
    /// How many parts those are.
    pub parts: Option<u32>,
}

/// The unfinished transfers whose manifests are in `folder` ([`crate::SessionOptions::manifest_folder`]),
/// the oldest first. One that cannot be read is an error in its place. A folder that does not exist
/// holds none.
pub fn unfinished(folder: &Path) -> Result<Vec<Result<Unfinished>>> {
    let failed = |source| Error::io("look for unfinished transfers in", folder, source);
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(missing) if missing.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(failed(source)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        if name.ends_with(UPLOAD_SUFFIX.as_bytes()) {
            found.extend(read(path, None).transpose());
        } else if name.ends_with(DOWNLOAD_SUFFIX.as_bytes()) {
            match std::fs::read_link(&path) {
                Ok(manifest) => found.extend(read(manifest, Some(path)).transpose()),
                Err(source) => found.push(Err(failed(source))),
            }
        }
    }
    found.sort_by_key(|found| match found {
        Ok(found) => (found.manifest.transfer.begun_unix_s, found.path.clone()),
        Err(_) => (0, PathBuf::new()),
    });
    Ok(found)
}

impl Unfinished {
    /// Forgets the transfer: its manifest goes, and the partial file of a download. An upload stays
    /// on the store: [`crate::Object::abort_upload`].
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] while a process is at it.
    pub fn forget(&self) -> Result<()> {
        let (journal, _) = match Journal::open_existing(&self.path, manifest::MAX_BYTES) {
            Ok(opened) => opened,
            Err(JournalError::Busy) => {
                let path = self.path.display().to_string();
                let detail = "a process is at this transfer";
                return Err(
                    Error::new(ErrorKind::Conflict, "forget", path, detail).advise("stop it first")
                );
            }
            Err(JournalError::Unwritable(source) | JournalError::Unreadable(source)) => {
                return Err(Error::io("forget", &self.path, source));
            }
        };
        if let Some(partial) = self.partial() {
            match std::fs::remove_file(&partial) {
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io("remove", &partial, source));
                }
                _ => {}
            }
        }
        journal.remove();
        if let Some(link) = &self.link {
            let _ = std::fs::remove_file(link);
        }
        Ok(())
    }

    /// The partial file of a download.
    pub fn partial(&self) -> Option<PathBuf> {
        let Side::Download { .. } = self.manifest.transfer.side else { return None };
        let name = self.path.file_name()?.as_bytes().strip_suffix(MANIFEST_SUFFIX.as_bytes())?;
        Some(self.path.with_file_name(OsStr::from_bytes(name)))
    }
}

/// `None` for one that is gone, or holds nothing yet.
fn read(path: PathBuf, link: Option<PathBuf>) -> Result<Option<Unfinished>> {
    const OPERATION: &str = "read the manifest";
    // Opening would make a new one.
    if path.symlink_metadata().is_err() {
        // A folder that is not there may be on a disk that will be again.
        if let Some(link) = link.filter(|_| path.parent().is_some_and(Path::is_dir)) {
            let _ = std::fs::remove_file(link);
        }
        return Ok(None);
    }
    let (content, is_running) = match Journal::open_existing(&path, manifest::MAX_BYTES) {
        Ok((_, content)) => (content, false),
        Err(JournalError::Busy) => {
            let content = std::fs::read(&path);
            (content.map_err(|source| Error::io(OPERATION, &path, source))?, true)
        }
        Err(JournalError::Unwritable(source) | JournalError::Unreadable(source)) => {
            return Err(Error::io(OPERATION, &path, source));
        }
    };
    let decoded = manifest::decode(&content).map_err(|damage| {
        let advice = match damage {
            manifest::Damage::Newer { .. } => "resume with the version that began it",
            _ => "remove it, and what it may tell of: brigade uploads list s3://bucket",
        };
        Error::new(ErrorKind::Io, OPERATION, path.display().to_string(), damage.to_string())
            .advise(advice)
    })?;
    let Some(manifest) = decoded.manifest else { return Ok(None) };
    // What is in it is carried out. One beside a target may come from whoever may write there.
    let is_in_place = match manifest.transfer.side {
        Side::Download { .. } => path.parent() == manifest.transfer.path().parent(),
        _ => link.is_none(),
    };
    if !is_in_place {
        let detail = "it is not where a manifest of that transfer belongs";
        return Err(Error::new(ErrorKind::Conflict, OPERATION, path.display().to_string(), detail)
            .advise("remove it, unless you moved it here"));
    }
    Ok(Some(Unfinished { manifest, path, is_running, link }))
}
