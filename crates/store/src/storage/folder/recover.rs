//! Starting on a folder: finishing what a crash interrupted, and reading all records.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::files::{ContentFile, entries, read_record, remove, remove_all};
use super::slots::{Slot, Slots};
use super::{Folder, StoredBucket, StoredObject, StoredPart, UPLOAD_RECORD};
use crate::index::{Bucket, Object};
use crate::locks::lock;
use crate::record::{FORMAT, UploadRecord};
use crate::storage::Content;
use crate::upload::{Part, Upload};

impl Folder {
    /// All buckets with their objects and unfinished uploads, as of the last moment before the folder was
    /// left, however that happened.
    pub(crate) fn load(&self) -> io::Result<Vec<Bucket>> {
        self.settle_pending()?;
        let mut buckets = Vec::new();
        let mut completed = BTreeSet::new();
        for path in entries(&self.layout.buckets())? {
            if !has_extension(&path, "json") {
                continue;
            }
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let stored: StoredBucket = read_record(&path)?;
            check_format(&path, stored.format)?;
            let bucket = Bucket::new(&name, stored.created);
            for record in self.object_records(&name)? {
                let object = self.load_object(&record)?;
                if let Some(object) = object {
                    completed.extend(object.record.upload_id.clone());
                    bucket.restore_object(object);
                }
            }
            buckets.push(bucket);
        }
        for folder in entries(&self.layout.uploads())? {
            let slots = Arc::new(Slots::default());
            let upload = load_upload(&folder, &slots)?;
            let owner = upload.as_ref().and_then(|upload| {
                buckets.iter().find(|bucket| bucket.name == upload.record.bucket)
            });
            match (owner, upload) {
                (Some(bucket), Some(upload)) if !completed.contains(&upload.record.id) => {
                    // A bucket that was just made is not gone.
                    lock(&self.slots).insert(upload.record.id.clone(), slots);
                    bucket.add_upload(Arc::new(upload)).map_err(io::Error::other)?;
                }
                // Completed or aborted, but not yet cleared away.
                _ => remove_all(&folder)?,
            }
        }
        Ok(buckets)
    }

    /// Finishes committed objects and removes what was not committed.
    fn settle_pending(&self) -> io::Result<()> {
        let (committed, rest): (Vec<_>, Vec<_>) = entries(&self.layout.pending())?
            .into_iter()
            .partition(|path| has_extension(path, "json"));
        for record in committed {
            let stored: StoredObject = read_record(&record)?;
            check_format(&record, stored.object.format)?;
            self.settle(&record.with_extension("data"), stored)?;
        }
        // Those that were just settled are gone from the list already.
        rest.iter().try_for_each(|path| remove(path))
    }

    fn object_records(&self, bucket: &str) -> io::Result<Vec<PathBuf>> {
        let mut records = Vec::new();
        for folder in entries(&self.layout.records(bucket))? {
            records
                .extend(entries(&folder)?.into_iter().filter(|path| has_extension(path, "json")));
        }
        Ok(records)
    }

    /// `None` where the bytes are gone or were changed behind the store's back: what cannot be vouched for
    /// is not served. (A crash between the two removals of a delete looks like this, too.)
    fn load_object(&self, record: &Path) -> io::Result<Option<Object>> {
        let stored: StoredObject = read_record(record)?;
        check_format(record, stored.object.format)?;
        let data = self.layout.data(&stored.bucket, &stored.object.key, stored.place());
        let whole = has_size(&data, stored.object.size_bytes);
        let content = Content::File(Arc::new(ContentFile::kept(data, None)));
        Ok(whole.then_some(Object { record: stored.object, content }))
    }
}

fn load_upload(folder: &Path, slots: &Arc<Slots>) -> io::Result<Option<Upload>> {
    let path = folder.join(UPLOAD_RECORD);
    if !path.exists() {
        return Ok(None);
    }
    let record: UploadRecord = read_record(&path)?;
    check_format(&path, record.format)?;
    let mut parts = Vec::new();
    let mut spoken_of = BTreeSet::from([path]);
    for entry in entries(folder)? {
        if !has_extension(&entry, "json") || spoken_of.contains(&entry) {
            continue;
        }
        let stored: StoredPart = read_record(&entry)?;
        let data = folder.join(&stored.file);
        let slot = stored.slot_bytes.map(|bytes| slots.restore(stored.part.number, bytes));
        let end = slot.as_ref().map_or(0, Slot::offset) + stored.part.size_bytes;
        let size = fs::metadata(&data).map_or(0, |found| found.len());
        if size == end || (slot.is_some() && size > end) {
            let content = Content::File(Arc::new(ContentFile::kept(data.clone(), slot)));
            parts.push(Part { record: stored.part, content });
            spoken_of.extend([entry, data]);
        }
    }
    for entry in entries(folder)? {
        if !spoken_of.contains(&entry) {
            remove(&entry)?;
        }
    }
    Ok(Some(Upload::new(record, parts)))
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found == extension)
}

fn has_size(path: &Path, size_bytes: u64) -> bool {
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.len() == size_bytes)
}

fn check_format(path: &Path, format: u32) -> io::Result<()> {
    if format == FORMAT {
        return Ok(());
    }
    let message = format!("{} has format {format}; this version reads {FORMAT}", path.display());
    Err(io::Error::new(io::ErrorKind::InvalidData, message))
}
