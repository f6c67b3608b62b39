//! The resume manifest: what a transfer needs to go on after its process died.
//!
//! Append-only lines, each with a CRC of its own (docs/MANIFEST.md has the format). The first ones say
//! what is moved where, in which parts; every further one is something that has happened since. Read
//! again, they are replayed into a [`Manifest`]. Pure: bytes in, values out, so that it can be read
//! anywhere; `file` keeps it on a disk.
//!
//! A manifest claims, it does not prove: whoever resumes checks every claim against the store or the
//! partial file.

mod codec;
mod text;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use self::codec::{Damage, Decoded, FORMAT_VERSION, decode};
pub(crate) use self::codec::{MAX_BYTES, encode, encode_first};
pub use self::text::Text;
use crate::integrity::{Algorithm, ChecksumType, Digest};
use crate::plan::{self, Plan};
use crate::progress::Operation;

/// What is moved where, and how it was cut: fixed for as long as the manifest exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfer {
    /// Address of the store; unset means AWS.
    pub endpoint_url: Option<String>,
    /// The bucket.
    pub bucket: String,
    /// The key.
    pub key: String,
    /// The local end, absolute: the source of an upload, the target of a download. `-` for a stream,
    /// nothing for a copy.
    pub path: Text,
    /// Payload bytes.
    pub size_bytes: u64,
    /// Size of every part but the last.
    pub part_size_bytes: u64,
    /// Which way, and what must not have changed since.
    #[serde(flatten)]
    pub side: Side,
    /// When it began, seconds since 1970.
    pub begun_unix_s: u64,
    /// The command that began it, for programs that resume what they find; empty when there was none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<Text>,
}

/// What is particular to one direction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "operation", rename_all = "lowercase")]
pub enum Side {
    /// From a file into the store.
    Upload {
        /// The file as it was.
        source: SourceState,
        /// What the object will be besides its bytes.
        attributes: Attributes,
    },
    /// From the store into a file.
    Download {
        /// The object as it was.
        object: ObjectState,
    },
    /// From a stream into the store. It cannot be read again, so there is nothing to go on with: what
    /// is recorded tells of an upload to be aborted. The size is what was expected, or 0.
    Stream {},
    /// From one object to another, in parts. Recorded as a stream is.
    Copy {
        /// The source, as an `s3://` URL.
        source: String,
    },
}

impl Side {
    /// Whether a later run can go on with it.
    pub fn is_resumable(&self) -> bool {
        matches!(self, Self::Upload { .. } | Self::Download { .. })
    }

    /// Whether there may be an upload of it on a store.
    pub fn is_in_store(&self) -> bool {
        !matches!(self, Self::Download { .. })
    }

    /// The first version of the format that has it.
    pub(crate) fn format_version(&self) -> u32 {
        if self.is_resumable() { 1 } else { 2 }
    }
}

/// What tells a file from itself after a change. Its size is in [`Transfer::size_bytes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceState {
    /// Modification time: seconds since 1970, and nanoseconds.
    pub modified: (i64, i64),
    /// Inode number. The device is left out: its number may be another one after a reboot.
    pub inode: u64,
}

/// What tells an object from itself after it was overwritten.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectState {
    /// The `ETag` as the store wrote it.
    pub etag: Option<String>,
    /// The version, in buckets that keep versions.
    pub version_id: Option<String>,
}

/// What was asked for when the upload was created, and cannot be changed after that. No secret is
/// among it: of a customer's key only that there is one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributes {
    /// The object's media type.
    pub content_type: Option<String>,
    /// `STANDARD_IA` and so on.
    pub storage_class: Option<String>,
    /// User metadata.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// `AES256`, `aws:kms`, `aws:kms` with a key, or `customer`.
    pub encryption: Option<String>,
}

/// Something that happened, as it is appended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "lowercase")]
pub(crate) enum Record {
    /// Always the first.
    Transfer(Box<Transfer>),
    /// An upload is about to be created: written before the request, because a process that dies
    /// before it knows the answer leaves an upload behind that nobody knows of.
    Intent { token: String, at_unix_s: u64 },
    /// The store refused for certain: the last intent came to nothing.
    Refused {},
    /// It was created, for parts that carry this checksum.
    Upload {
        id: String,
        checksum: Option<Algorithm>,
        /// Whether the store joins them to one of the whole object, or keeps a composite.
        checksum_type: Option<ChecksumType>,
    },
    /// These uploads may have been begun by requests whose outcome was not known: looked for, and to
    /// be aborted in the end.
    Strays { ids: Vec<String> },
    /// A part was acknowledged, or written.
    Part {
        number: u32,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sum: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        etag: Option<String>,
    },
}

/// A manifest, replayed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Manifest {
    /// What is moved where.
    pub transfer: Transfer,
    /// The id of the multipart upload, once it is known.
    pub upload_id: Option<String>,
    /// What the parts' digests are made with: for an upload the checksum that is sent along, for a
    /// download CRC32.
    pub checksum: Option<Algorithm>,
    /// What the store makes of an upload's, where it was asked for one.
    pub checksum_type: Option<ChecksumType>,
    /// What the object's metadata will tell it from anybody else's by.
    pub token: Option<String>,
    /// When the request was sent that created it, seconds since 1970.
    pub upload_begun_unix_s: Option<u64>,
    /// When requests to create an upload were sent whose outcome was never recorded, seconds since
    /// 1970.
    pub open_intents_unix_s: Vec<u64>,
    /// Uploads that such requests have begun, as far as they were looked for.
    pub stray_upload_ids: Vec<String>,
    /// The parts that are claimed to be done, by their number.
    pub parts: BTreeMap<u32, PartRecord>,
    plan: Plan,
}

/// A part that is claimed to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartRecord {
    /// Its digest, by [`Manifest::checksum`].
    pub digest: Option<Digest>,
    /// What the store acknowledged it with, for an upload.
    pub etag: Option<String>,
}

impl Transfer {
    /// Which way.
    pub fn operation(&self) -> Operation {
        match self.side {
            Side::Upload { .. } | Side::Stream {} => Operation::Upload,
            Side::Download { .. } => Operation::Download,
            Side::Copy { .. } => Operation::Copy,
        }
    }

    /// The local end.
    pub fn path(&self) -> &Path {
        Path::new(self.path.as_os_str())
    }

    pub(crate) fn text_of(path: &Path) -> Text {
        Text::from(PathBuf::from(path).into_os_string())
    }
}

impl Manifest {
    /// A manifest of nothing but its first record; `None` where the sizes in it make no plan.
    pub(crate) fn new(transfer: Transfer) -> Option<Self> {
        let plan = plan::restore(transfer.size_bytes, transfer.part_size_bytes)?;
        let checksum = match transfer.side {
            Side::Download { .. } => Some(Algorithm::Crc32),
            _ => None,
        };
        Some(Self {
            transfer,
            upload_id: None,
            checksum,
            checksum_type: None,
            token: None,
            upload_begun_unix_s: None,
            open_intents_unix_s: Vec::new(),
            stray_upload_ids: Vec::new(),
            parts: BTreeMap::new(),
            plan,
        })
    }

    /// The parts the object was cut into.
    pub fn plan(&self) -> Plan {
        self.plan
    }

    /// Bytes in the parts that are claimed to be done.
    pub fn claimed_bytes(&self) -> u64 {
        let parts = self.parts.keys().filter_map(|number| self.plan.part(*number));
        parts.map(|part| part.len_bytes).sum()
    }

    /// What happened next; an error for what cannot have.
    fn replay(&mut self, record: Record) -> Result<(), &'static str> {
        match record {
            Record::Transfer(_) => return Err("it begins a second time"),
            Record::Intent { token, at_unix_s } => {
                self.upload_id = None;
                self.parts.clear();
                self.token = Some(token);
                self.open_intents_unix_s.push(at_unix_s);
            }
            Record::Strays { ids } => {
                self.open_intents_unix_s.clear();
                self.stray_upload_ids.extend(ids);
            }
            Record::Refused {} => {
                if self.open_intents_unix_s.pop().is_none() {
                    return Err("an upload was refused that was never meant to be");
                }
            }
            Record::Upload { id, checksum, checksum_type } => {
                // One of the requests made this one; any before it may have made others.
                let begun = self.open_intents_unix_s.pop();
                if begun.is_none() {
                    return Err("an upload was created that was never meant to be");
                }
                self.upload_begun_unix_s = begun;
                self.upload_id = Some(id);
                // Another upload has none of these.
                self.parts.clear();
                (self.checksum, self.checksum_type) = (checksum, checksum_type);
            }
            Record::Part { number, sum, etag } => {
                if self.plan.part(number).is_none() {
                    return Err("it names a part that is not in the plan");
                }
                let is_upload = self.transfer.side.is_in_store();
                if is_upload && self.upload_id.is_none() {
                    return Err("a part was sent before there was an upload");
                }
                if is_upload && etag.is_none() {
                    return Err("a part was sent without the ETag that acknowledged it");
                }
                let digest = match (sum, self.checksum) {
                    (Some(sum), Some(algorithm)) => Some(
                        Digest::from_base64(algorithm, &sum).map_err(|_| "a part's sum is none")?,
                    ),
                    (None, _) => None,
                    (Some(_), None) => return Err("a part has a sum of no algorithm"),
                };
                self.parts.insert(number, PartRecord { digest, etag });
            }
        }
        Ok(())
    }
}

/// Which of the things that must not change between two runs did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Difference {
    /// It is another transfer's manifest; says whose.
    Another(String),
    /// The source or the object is not what it was; says how.
    Changed(String),
    /// The same bytes to the same place, but asked for in another way; names what differs.
    AskedOtherwise(String),
}

impl Transfer {
    /// What is different now. `None` where it is the same transfer of the same thing.
    pub(crate) fn difference(&self, now: &Self) -> Option<Difference> {
        let place = |t: &Self| (t.endpoint_url.clone(), t.bucket.clone(), t.key.clone());
        if place(self) != place(now) || self.path != now.path || self.operation() != now.operation()
        {
            return Some(Difference::Another(format!(
                "{} of {} with s3://{}/{} at {}",
                self.operation().as_str(),
                self.path().display(),
                self.bucket,
                self.key,
                self.endpoint_url.as_deref().unwrap_or("AWS"),
            )));
        }
        match (&self.side, &now.side) {
            (
                Side::Upload { source: then, attributes: asked_then },
                Side::Upload { source, attributes },
            ) => {
                let changed = match () {
                    () if self.size_bytes != now.size_bytes => Some(format!(
                        "the file had {} bytes when the upload began and has {} now",
                        self.size_bytes, now.size_bytes
                    )),
                    () if then.modified != source.modified => {
                        Some("the file was written to since the upload began".to_owned())
                    }
                    () if then.inode != source.inode => {
                        Some("the file was replaced since the upload began".to_owned())
                    }
                    () => None,
                };
                changed
                    .map(Difference::Changed)
                    .or_else(|| asked_then.difference(attributes).map(Difference::AskedOtherwise))
            }
            (Side::Download { object: then }, Side::Download { object }) => {
                let shown = |state: &ObjectState| match (&state.etag, &state.version_id) {
                    (_, Some(version)) => format!("version {version}"),
                    (Some(etag), None) => format!("ETag {etag}"),
                    (None, None) => "no ETag".to_owned(),
                };
                let changed = (self.size_bytes, then) != (now.size_bytes, object);
                changed.then(|| {
                    Difference::Changed(format!(
                        "the object was overwritten since the download began: {} bytes, {} then; \
                         {} bytes, {} now",
                        self.size_bytes,
                        shown(then),
                        now.size_bytes,
                        shown(object)
                    ))
                })
            }
            // The operations are the same.
            _ => None,
        }
    }
}

impl Attributes {
    /// The first of them that was asked for otherwise.
    fn difference(&self, now: &Self) -> Option<String> {
        let differs = [
            (self.content_type != now.content_type, "content type"),
            (self.storage_class != now.storage_class, "storage class"),
            (self.metadata != now.metadata, "metadata"),
            (self.encryption != now.encryption, "encryption"),
        ];
        differs.into_iter().find(|(differs, _)| *differs).map(|(_, what)| what.to_owned())
    }
}

#[cfg(test)]
mod tests;
