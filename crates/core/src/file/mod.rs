//! The local ends of a transfer: sources, mapped or read, and targets that become visible only when
//! whole.
//!
//! The only room with `unsafe` code, and the only one that knows paths from bytes.

mod ahead;
mod aligned;
mod collect;
mod content;
mod direct;
mod guard;
mod held;
mod incoming;
mod journal;
mod mapping;
mod pool;
mod reader;
mod residence;
mod source;
mod target;
mod writer;

pub(crate) use aligned::Buffers;
pub(crate) use collect::Collected;
pub(crate) use content::{Content, Frames};
pub use guard::guard_mapped_files;
pub(crate) use incoming::{Chunk, Incoming};
pub(crate) use journal::{Journal, JournalError};
pub(crate) use mapping::file_behind;
pub(crate) use reader::Reader;
pub(crate) use source::Source;
pub(crate) use target::{
    MANIFEST_SUFFIX, Partial, is_partial_name, parent_of, partial_path, resolve_target,
    sync_folder, timed,
};
pub(crate) use writer::RangeWriter;
