//! Many objects: listed, walked, filtered, compared and carried out, as streams that pass.
//!
//! A dataset is a folder or a prefix and all that is below it. Nothing here holds all its names at once: both
//! sides come in the order of their names, so that two of them are compared as two sorted lists are merged.

mod collisions;
mod compare;
mod decision;
mod delete;
mod entry;
mod filter;
mod glob;
mod job;
mod list;
mod names;
mod pattern;
mod record;
mod sort;
mod versions;
mod walk;

pub use collisions::{Below, CaseCollisions};
pub use compare::{Pair, compare};
pub use decision::{Compared, Difference, Direction};
pub use delete::{DeleteOptions, DeleteReport, Deletion};
pub(crate) use delete::{delete_many, delete_one};
pub use entry::Entry;
pub use filter::{Filter, FilterOptions, FilterRule};
pub use job::{JobOptions, JobReport, Side, Task, VerifyReport, copy, run, verify};
pub(crate) use list::keeps_order;
pub use list::{ListOptions, Listed, Listing};
pub use names::{BadName, Names, check_name, key_of};
pub use pattern::Pattern;
pub use sort::{SortOptions, Sorted, Sorter};
pub use versions::Versions;
pub use walk::{Skip, Walk, WalkOptions, Walked, walk};
