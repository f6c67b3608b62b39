//! Where the bytes of objects lie: the seam between the index and the backends.
//!
//! A backend takes bodies in ([`Sink`]), gives ranges of them out ([`Source`]) and, where it is durable,
//! keeps the records. The index ([`crate::index`]) owns everything else: names, conditions, uploads.
//!
//! An object is committed in two steps. [`Storage::prepare`] makes it durable and may block;
//! [`Storage::publish`] makes it visible under its name, runs while readers are held out for a moment, and
//! must be quick. A reader opens its source while writers are held out, so it sees wholly the old or wholly
//! the new object.

mod folder;
mod memory;
mod synthetic;

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt};
use s3s::dto::StreamingBlob;

use crate::checksum::{Algorithm, Sum};
use crate::pretended::Pretended;
use crate::record::{Moment, ObjectRecord, PartRecord, UploadRecord};

pub(crate) use folder::Folder;
pub(crate) use memory::Memory;
pub(crate) use synthetic::Synthetic;

/// A backend. The methods that keep and drop records do nothing where nothing outlives the process.
pub(crate) trait Storage: Send + Sync + 'static {
    /// Whether committing waits for a disk, and so belongs on a thread that may block.
    fn blocks(&self) -> bool {
        false
    }

    /// Whether an `ETag` may be the MD5 of the content. Costs a core at 0.6 GB/s or so.
    fn md5_etags(&self) -> bool;

    /// Takes in a body of about `size` bytes.
    fn sink(&self, target: Target<'_>, size: Option<u64>) -> io::Result<Box<dyn Sink>>;

    /// Opens content for reading; what was opened stays readable when the object is replaced.
    fn open(&self, content: &Content) -> io::Result<Source>;

    /// Joins the contents of parts, each given with its length in bytes, into an object's.
    fn assemble(&self, parts: &[(Content, u64)]) -> io::Result<Content>;

    /// Copies a range of content without reading it, where the backend can: its sum comes with it.
    fn shortcut(&self, _range: Range<u64>, _algorithm: Algorithm) -> Option<(Content, Sum)> {
        None
    }

    /// The record of an object that was never uploaded but exists.
    fn virtual_object(&self, _key: &str) -> Option<(ObjectRecord, Content)> {
        None
    }

    /// The objects that are listed without having been put.
    fn pretended(&self) -> Option<&Pretended> {
        None
    }

    fn keep_bucket(&self, _bucket: &str, _created: Moment) -> io::Result<()> {
        Ok(())
    }

    fn drop_bucket(&self, _bucket: &str) -> io::Result<()> {
        Ok(())
    }

    /// Makes an object durable, without showing it yet.
    fn prepare(&self, _bucket: &str, _record: &ObjectRecord, _content: &Content) -> io::Result<()> {
        Ok(())
    }

    /// Shows a prepared object under its name, in the place of what was there. Returns where its content is
    /// now.
    fn publish(
        &self,
        _bucket: &str,
        _record: &ObjectRecord,
        content: Content,
    ) -> io::Result<Content> {
        Ok(content)
    }

    /// Removes an object that was deleted, or what is left of one that was replaced. What has it open can
    /// still read it.
    fn retire(
        &self,
        _bucket: &str,
        _key: &str,
        _content: &Content,
        _replaced_by: Option<&Content>,
    ) -> io::Result<()> {
        Ok(())
    }

    fn keep_upload(&self, _record: &UploadRecord) -> io::Result<()> {
        Ok(())
    }

    fn keep_part(
        &self,
        _upload_id: &str,
        _record: &PartRecord,
        _content: &Content,
    ) -> io::Result<()> {
        Ok(())
    }

    /// Removes a kept part that was replaced.
    fn retire_part(&self, _content: &Content) -> io::Result<()> {
        Ok(())
    }

    /// Forgets an upload and all its parts.
    fn drop_upload(&self, _upload_id: &str) -> io::Result<()> {
        Ok(())
    }
}

/// What a body is meant for.
#[derive(Clone, Copy)]
pub(crate) enum Target<'a> {
    Object,
    Part { upload_id: &'a str, number: u32 },
}

/// Takes in one body, in order. Dropping it unfinished leaves nothing behind.
pub(crate) trait Sink: Send {
    fn write(&mut self, chunk: Bytes) -> io::Result<()>;

    /// The body is complete and was checked.
    fn finish(self: Box<Self>) -> io::Result<Content>;
}

/// Where some bytes lie.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    Pieces(Arc<memory::Pieces>),
    Pattern,
    File(Arc<folder::ContentFile>),
}

/// Content, opened for reading.
pub(crate) enum Source {
    Pieces(Arc<memory::Pieces>),
    Pattern,
    File(File),
}

impl Source {
    /// A body over a range of the content.
    pub(crate) fn stream(self, range: Range<u64>) -> StreamingBlob {
        let length = range.end - range.start;
        match self {
            Self::Pieces(pieces) => sized(length, memory::stream(pieces, range).map(Ok)),
            Self::Pattern => sized(length, crate::synthetic::stream(range).map(Ok)),
            Self::File(file) => sized(length, folder::stream(file, range)),
        }
    }
}

fn sized(
    length: u64,
    stream: impl Stream<Item = io::Result<Bytes>> + Send + Sync + 'static,
) -> StreamingBlob {
    StreamingBlob::new(crate::body::Sized::new(length, stream.map_err(Into::into)))
}
