//! The local ends of a transfer: mapped sources, and targets that become visible only when whole.
//!
//! The only room with `unsafe` code, and the only one that knows paths from bytes.

mod source;
mod target;

pub(crate) use source::Source;
pub(crate) use target::{Partial, resolve_target, write_at};
