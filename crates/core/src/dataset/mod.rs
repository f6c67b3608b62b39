//! Many objects: listed, walked, filtered, compared and carried out, as streams that pass.
//!
//! A dataset is a folder or a prefix and all that is below it. Nothing here holds all its names at once: both
//! sides come in the order of their names, so that two of them are compared as two sorted lists are merged.

mod entry;
mod glob;
mod list;
mod pattern;
mod record;
mod sort;
mod walk;

pub use entry::Entry;
pub use list::{ListOptions, Listed, Listing};
pub use pattern::Pattern;
pub use sort::{SortOptions, Sorted, Sorter};
pub use walk::{Skip, Walk, WalkOptions, Walked, walk};
