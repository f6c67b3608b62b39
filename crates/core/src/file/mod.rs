//! The local ends of a transfer: mapped sources, and targets that become visible only when whole.
//!
//! The only room with `unsafe` code, and the only one that knows paths from bytes.

mod guard;
mod source;
mod target;

pub use guard::guard_mapped_files;
pub(crate) use source::Source;
pub(crate) use target::{Partial, resolve_target, write_at};
