//! Uploads summed and forgotten, downloads generated: a store that costs no memory and no disk.
//!
//! Whatever was uploaded, a download answers with the pattern of [`crate::synthetic`]. A client that uploads
//! that same pattern gets back what it sent, with the checksums it sent it under.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Mutex;

use bytes::Bytes;

use super::{Content, Sink, Source, Storage, Target};
use crate::checksum::{Algorithm, Kind, Sum};
use crate::locks::lock;
use crate::pretended::Pretended;
use crate::record::{Attributes, FORMAT, Moment, ObjectRecord};
use crate::synthetic;

/// The synthetic backend.
#[derive(Default)]
pub(crate) struct Synthetic {
    pretended: Pretended,
}

impl Synthetic {
    /// One that lists `pretended`.
    pub(crate) fn new(pretended: Pretended) -> Self {
        Self { pretended }
    }
}

/// Sizes whose checksums are remembered: more than a benchmark uses, and small.
const KNOWN_SIZES: usize = 1024;

/// When all virtual objects were last modified, in milliseconds since 1970: the beginning of 2020. Always the
/// same, so that a client may go on after the store was restarted.
const MODIFIED_MS: u64 = 1_577_836_800_000;

impl Storage for Synthetic {
    fn md5_etags(&self) -> bool {
        false
    }

    fn sink(&self, _target: Target<'_>, _size: Option<u64>) -> io::Result<Box<dyn Sink>> {
        Ok(Box::new(Discard))
    }

    fn open(&self, _content: &Content) -> io::Result<Source> {
        Ok(Source::Pattern)
    }

    fn assemble(&self, _parts: &[(Content, u64)]) -> io::Result<Content> {
        Ok(Content::Pattern)
    }

    fn shortcut(&self, range: Range<u64>, algorithm: Algorithm) -> Option<(Content, Sum)> {
        algorithm.combines().then(|| {
            (Content::Pattern, synthetic::sum(algorithm, range.start, range.end - range.start))
        })
    }

    fn virtual_object(&self, key: &str) -> Option<(ObjectRecord, Content)> {
        let size_bytes = match self.pretended.index_of(key) {
            Some(_) => self.pretended.object_size_bytes,
            None => synthetic::size_in_key(key)?,
        };
        let checksums = virtual_sums(size_bytes);
        let record = ObjectRecord {
            format: FORMAT,
            key: key.to_owned(),
            size_bytes,
            etag: crate::etag::opaque(&checksums[1], size_bytes),
            modified: Moment::from_unix_ms(MODIFIED_MS),
            checksums: checksums.to_vec(),
            checksum_kind: Kind::FullObject,
            parts: Vec::new(),
            upload_id: None,
            attributes: Attributes::default(),
        };
        Some((record, Content::Pattern))
    }

    fn pretended(&self) -> Option<&Pretended> {
        (self.pretended.objects > 0).then_some(&self.pretended)
    }
}

/// Both checksums of a virtual object. Remembered, because a download asks once for every range.
fn virtual_sums(size_bytes: u64) -> [Sum; 2] {
    static KNOWN: Mutex<BTreeMap<u64, [Sum; 2]>> = Mutex::new(BTreeMap::new());
    let mut known = lock(&KNOWN);
    if known.len() > KNOWN_SIZES {
        known.clear();
    }
    known
        .entry(size_bytes)
        .or_insert_with(|| {
            [Algorithm::Crc32, Algorithm::Crc64Nvme]
                .map(|algorithm| synthetic::sum(algorithm, 0, size_bytes))
        })
        .clone()
}

struct Discard;

impl Sink for Discard {
    fn write(&mut self, _chunk: Bytes) -> io::Result<()> {
        Ok(())
    }

    fn finish(self: Box<Self>) -> io::Result<Content> {
        Ok(Content::Pattern)
    }
}
