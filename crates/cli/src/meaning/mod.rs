//! From arguments as typed to arguments as meant, once.
//!
//! What comes out of here makes sense: options of the engine, a direction, a place for the bytes.
//! Commands never look at an argument again. Everything that decides is a function of the
//! arguments, the [`Environment`](crate::environment::Environment) and the look of local paths, so
//! the tests need no store.

mod cat;
mod chosen;
mod cp;
mod filter;
mod list;
mod listing;
mod metadata;
mod recorded;
mod rm;
mod route;
mod serve;
mod session;
mod stat;
mod tree;
mod uploads;

pub(crate) use cat::Printing;
pub(crate) use chosen::Chosen;
pub(crate) use cp::{Job, Transfer};
pub(crate) use list::{List, nothing_named, task};
pub(crate) use listing::{Keys as ListedKeys, Listed, Shape};
pub(crate) use recorded::Recorded;
pub(crate) use rm::Removal;
pub(crate) use route::Sink;
pub(crate) use serve::{Keys, Service};
pub(crate) use session::manifest_folder;
pub(crate) use stat::Look;
pub(crate) use tree::{Tree, Verification, means_many};
pub(crate) use uploads::{Abort, Selection};
