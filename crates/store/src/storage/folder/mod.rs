//! Objects as files in a folder, durably.
//!
//! An object is a file with its bytes and a record with everything else, and has to change as one. It is
//! committed by a single rename, that of its record into the `pending` folder:
//!
//! 1. the bytes are received into `pending/ID.data` and synced,
//! 2. the record is written beside them, synced, and renamed to `pending/ID.json`: this is the commit,
//! 3. the bytes are renamed to where they belong, then the record is.
//!
//! A crash before the second step leaves bytes without a record, which the next start removes. A crash after
//! it leaves a record in `pending`, and the next start carries out what is left of the third step
//! ([`recover`]). Everything that is served was synced first. A delete is two removals, the bytes' first, and
//! is not synced: after a power failure, though not after a crash of the process, it may not have happened.
//!
//! Uploads are folders of parts, each with a record of its own; nothing about them is only in memory. Parts of
//! equal size share a file that becomes the object without being copied ([`slots`]).

mod files;
mod layout;
mod recover;
mod slots;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use self::files::{
    FileSink, remove, remove_all, remove_empty_parents, rename_into, sync_parent, write_record,
};
use self::layout::{Layout, Place};
use self::slots::{Slot, Slots};
use super::{Content, Sink, Source, Storage, Target};
use crate::locks::lock;
use crate::record::{FORMAT, Moment, ObjectRecord, PartRecord, UploadRecord};

pub(crate) use self::files::ContentFile;
pub(super) use self::files::stream;

/// The name of an upload's own record in its folder.
const UPLOAD_RECORD: &str = "upload.json";

/// The name of the file with the slots in an upload's folder.
const WHOLE: &str = "whole.data";

/// The folder backend.
pub(crate) struct Folder {
    layout: Layout,
    md5_etags: bool,
    /// By upload id.
    slots: Mutex<BTreeMap<String, Arc<Slots>>>,
    /// Held for as long as the folder is served.
    _lock: File,
}

/// An object's record, as written.
#[derive(Serialize, Deserialize)]
struct StoredObject {
    bucket: String,
    /// Whether the bytes lie under the key's hash in the place of the key.
    odd: bool,
    object: ObjectRecord,
}

/// A part's record, as written.
#[derive(Serialize, Deserialize)]
struct StoredPart {
    file: String,
    /// Length of the slots, where the part is in one.
    slot_bytes: Option<u64>,
    part: PartRecord,
}

/// A bucket's record, as written.
#[derive(Serialize, Deserialize)]
struct StoredBucket {
    format: u32,
    created: Moment,
}

impl Folder {
    /// Opens a folder, creating it if need be. Only one process may have it open.
    pub(crate) fn open(root: &Path, md5_etags: bool) -> io::Result<Self> {
        let layout = Layout::new(root, true);
        for folder in [layout.buckets(), layout.pending(), layout.uploads()] {
            fs::create_dir_all(folder)?;
        }
        let lock = File::create(layout.lock())?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
            io::Error::new(io::ErrorKind::WouldBlock, "another process is serving this folder")
        })?;
        let shouted = layout.lock().with_file_name("LOCK");
        let layout = Layout::new(root, !shouted.exists());
        Ok(Self { layout, md5_etags, slots: Mutex::default(), _lock: lock })
    }

    fn slots(&self, upload_id: &str) -> Arc<Slots> {
        Arc::clone(lock(&self.slots).entry(upload_id.to_owned()).or_default())
    }

    /// A fresh path for bytes on their way in.
    fn staged(&self) -> PathBuf {
        self.layout.pending().join(format!("{}.data", new_id()))
    }

    /// Carries out what follows from a committed record in `pending`: moves the bytes, if that was not done
    /// before, and then the record to where they belong. Returns where the bytes are.
    fn settle(&self, staged: &Path, mut stored: StoredObject) -> io::Result<PathBuf> {
        let staged_record = staged.with_extension("json");
        let (bucket, key) = (stored.bucket.clone(), stored.object.key.clone());
        let mut data = self.layout.data(&bucket, &key, stored.place());
        if staged.exists() {
            // Fails where a file is in the place of a folder, or a folder in the place of the file.
            if stored.place() == Place::Plain && rename_into(staged, &data).is_err() {
                stored.odd = true;
                write_record(&staged_record, &stored)?;
            }
            if stored.place() == Place::Odd {
                data = self.layout.data(&bucket, &key, Place::Odd);
                rename_into(staged, &data)?;
            }
        }
        rename_into(&staged_record, &self.layout.record(&bucket, &key))?;
        Ok(data)
    }
}

impl StoredObject {
    fn place(&self) -> Place {
        if self.odd { Place::Odd } else { Place::Plain }
    }
}

impl Storage for Folder {
    fn blocks(&self) -> bool {
        true
    }

    fn md5_etags(&self) -> bool {
        self.md5_etags
    }

    fn sink(&self, target: Target<'_>, size: Option<u64>) -> io::Result<Box<dyn Sink>> {
        let Target::Part { upload_id, number } = target else {
            return Ok(Box::new(FileSink::create(self.staged())?));
        };
        let folder = self.layout.upload(upload_id);
        let slot = size.and_then(|size| self.slots(upload_id).claim(number, size));
        Ok(Box::new(match slot {
            Some(slot) => FileSink::into_slot(folder.join(WHOLE), slot)?,
            None => FileSink::create(folder.join(format!("{number:05}-{}.data", new_id())))?,
        }))
    }

    fn open(&self, content: &Content) -> io::Result<Source> {
        File::open(file_of(content)?.path()).map(Source::File)
    }

    fn assemble(&self, parts: &[(Content, u64)]) -> io::Result<Content> {
        let content = ContentFile::staged(self.staged(), None);
        // Linking fails where the file system has no links; then there is still the copy.
        let linked =
            whole_file(parts)?.is_some_and(|whole| fs::hard_link(whole, content.path()).is_ok());
        if !linked {
            copy_parts(parts, content.path())?;
        }
        Ok(Content::File(Arc::new(content)))
    }

    fn keep_bucket(&self, bucket: &str, created: Moment) -> io::Result<()> {
        fs::create_dir_all(self.layout.bucket(bucket))?;
        write_record(&self.layout.bucket_record(bucket), &StoredBucket { format: FORMAT, created })
    }

    fn drop_bucket(&self, bucket: &str) -> io::Result<()> {
        let record = self.layout.bucket_record(bucket);
        remove(&record)?;
        sync_parent(&record)?;
        remove_all(&self.layout.records(bucket))?;
        remove_all(&self.layout.odd(bucket))?;
        // Files that are not the store's are left, and their folder with them.
        let _ = fs::remove_dir(self.layout.bucket(bucket));
        Ok(())
    }

    fn prepare(&self, bucket: &str, record: &ObjectRecord, content: &Content) -> io::Result<()> {
        let file = file_of(content)?;
        let odd = self.layout.first_place(&record.key) == Place::Odd;
        let stored = StoredObject { bucket: bucket.to_owned(), odd, object: record.clone() };
        write_record(&file.path().with_extension("json"), &stored)?;
        file.keep();
        Ok(())
    }

    fn publish(
        &self,
        bucket: &str,
        record: &ObjectRecord,
        content: Content,
    ) -> io::Result<Content> {
        let odd = self.layout.first_place(&record.key) == Place::Odd;
        let stored = StoredObject { bucket: bucket.to_owned(), odd, object: record.clone() };
        let data = self.settle(file_of(&content)?.path(), stored)?;
        Ok(Content::File(Arc::new(ContentFile::kept(data, None))))
    }

    fn retire(
        &self,
        bucket: &str,
        key: &str,
        content: &Content,
        replaced_by: Option<&Content>,
    ) -> io::Result<()> {
        let data = file_of(content)?.path();
        let replaced_by = replaced_by.map(file_of).transpose()?;
        if replaced_by.is_none_or(|new| new.path() != data) {
            remove(data)?;
            remove_empty_parents(data, &self.layout.bucket(bucket));
        }
        if replaced_by.is_none() {
            remove(&self.layout.record(bucket, key))?;
        }
        Ok(())
    }

    fn keep_upload(&self, record: &UploadRecord) -> io::Result<()> {
        let folder = self.layout.upload(&record.id);
        fs::create_dir(&folder)?;
        sync_parent(&folder)?;
        write_record(&folder.join(UPLOAD_RECORD), record)
    }

    fn keep_part(&self, upload_id: &str, record: &PartRecord, content: &Content) -> io::Result<()> {
        let file = file_of(content)?;
        let name = file.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
        let slot_bytes = file.slot().map(Slot::length_bytes);
        let stored = StoredPart { file: name, slot_bytes, part: record.clone() };
        let path = self.layout.upload(upload_id).join(format!("{:05}.json", record.number));
        write_record(&path, &stored)?;
        file.keep();
        Ok(())
    }

    fn retire_part(&self, content: &Content) -> io::Result<()> {
        let file = file_of(content)?;
        // A slot stays taken: the file may hold other parts.
        if file.slot().is_some() { Ok(()) } else { remove(file.path()) }
    }

    fn drop_upload(&self, upload_id: &str) -> io::Result<()> {
        let folder = self.layout.upload(upload_id);
        // Without this record the rest is nobody's, should the removal be cut short.
        let record = folder.join(UPLOAD_RECORD);
        remove(&record)?;
        sync_parent(&record)?;
        lock(&self.slots).remove(upload_id);
        remove_all(&folder)
    }
}

/// The file that the parts, one behind the other, are all of; and nothing more will be written to it.
fn whole_file(parts: &[(Content, u64)]) -> io::Result<Option<&Path>> {
    let mut whole = None;
    let mut end = 0;
    for (part, length) in parts {
        let file = file_of(part)?;
        if file.slot().is_none() || file.offset() != end {
            return Ok(None);
        }
        end += length;
        whole = Some(file);
    }
    let Some((file, slot)) = whole.and_then(|file| Some((file, file.slot()?))) else {
        return Ok(None);
    };
    let closed = slot.slots().close();
    Ok((closed && fs::metadata(file.path())?.len() == end).then_some(file.path()))
}

fn copy_parts(parts: &[(Content, u64)], path: &Path) -> io::Result<()> {
    let mut whole = File::create_new(path)?;
    for (part, length) in parts {
        let file = file_of(part)?;
        let mut from = File::open(file.path())?;
        from.seek(io::SeekFrom::Start(file.offset()))?;
        // The kernel copies, or shares the blocks where the file system can.
        if io::copy(&mut from.take(*length), &mut whole)? != *length {
            return Err(io::Error::other("a part's file has changed"));
        }
    }
    whole.sync_data()
}

fn file_of(content: &Content) -> io::Result<&ContentFile> {
    match content {
        Content::File(file) => Ok(file),
        _ => Err(io::Error::other("content of another backend")),
    }
}

fn new_id() -> String {
    format!("{:032x}", fastrand::u128(..))
}
