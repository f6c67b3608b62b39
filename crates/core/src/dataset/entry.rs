//! What is known of one file or object without asking for it by itself.

use std::time::SystemTime;

/// A file or an object of a dataset, as a walk or a listing tells of it.
///
/// ```
/// let mut entry = brigade::Entry::default();
/// entry.name = "2026/11.gz".into();
/// assert_eq!(entry.size_bytes, 0);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// Its name below the dataset's root, folders separated by `/`. Of a listing of a whole bucket that is
    /// the key.
    pub name: String,
    /// Payload bytes.
    pub size_bytes: u64,
    /// When it was last written: a file by its own time, an object by the store's clock.
    pub modified: Option<SystemTime>,
    /// An object's `ETag` as the store wrote it, quotes included.
    pub etag: Option<String>,
    /// An object's storage class; unset means `STANDARD`, or that the store does not say.
    pub storage_class: Option<String>,
}
