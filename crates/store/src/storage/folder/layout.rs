//! What lies where in a folder.
//!
//! ```text
//! BUCKET/photos/a.jpg                   an object's bytes, under its key
//! .brigade/lock                         held by the process that serves the folder
//! .brigade/buckets/BUCKET.json          a bucket
//! .brigade/objects/BUCKET/HASH.json     an object's record: all but its bytes
//! .brigade/odd/BUCKET/HASH              the bytes of an object whose key cannot be a path
//! .brigade/pending/ID.data, ID.json     objects on their way in
//! .brigade/uploads/ID/                  an unfinished multipart upload
//! ```
//!
//! `HASH` is the SHA-256 of the key, in hexadecimal, its first two digits being a folder of their own. A key
//! is used as a path only where that is safe and means the same to the file system as to S3 ([`plain`]), and
//! then unchanged. So no two keys ever share a path, and none leads out of its bucket. A key that could be a
//! path but is in the way of another (`a` beside `a/b`) lies with the odd ones: the record says which it is.

use std::path::{Path, PathBuf};

use crate::checksum::{Algorithm, hex, sum_of};

/// Longest name of a file or folder on common file systems, in bytes.
const MAX_NAME_BYTES: usize = 255;

/// The paths in one folder.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    root: PathBuf,
    /// Whether `A` and `a` are two files here.
    case_sensitive: bool,
}

/// Where an object's bytes may lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Under the key itself.
    Plain,
    /// Under the key's hash.
    Odd,
}

impl Layout {
    pub(super) fn new(root: &Path, case_sensitive: bool) -> Self {
        Self { root: root.to_owned(), case_sensitive }
    }

    fn hidden(&self) -> PathBuf {
        self.root.join(".brigade")
    }

    pub(super) fn lock(&self) -> PathBuf {
        self.hidden().join("lock")
    }

    pub(super) fn buckets(&self) -> PathBuf {
        self.hidden().join("buckets")
    }

    pub(super) fn pending(&self) -> PathBuf {
        self.hidden().join("pending")
    }

    pub(super) fn uploads(&self) -> PathBuf {
        self.hidden().join("uploads")
    }

    pub(super) fn bucket_record(&self, bucket: &str) -> PathBuf {
        self.buckets().join(format!("{bucket}.json"))
    }

    /// The bucket's own folder, with its plain objects.
    pub(super) fn bucket(&self, bucket: &str) -> PathBuf {
        self.root.join(bucket)
    }

    pub(super) fn records(&self, bucket: &str) -> PathBuf {
        self.hidden().join("objects").join(bucket)
    }

    pub(super) fn odd(&self, bucket: &str) -> PathBuf {
        self.hidden().join("odd").join(bucket)
    }

    pub(super) fn upload(&self, id: &str) -> PathBuf {
        self.uploads().join(id)
    }

    /// The place to try first.
    pub(super) fn first_place(&self, key: &str) -> Place {
        if plain(key, self.case_sensitive) { Place::Plain } else { Place::Odd }
    }

    pub(super) fn data(&self, bucket: &str, key: &str, place: Place) -> PathBuf {
        match place {
            Place::Plain => self.bucket(bucket).join(key),
            Place::Odd => self.odd(bucket).join(hashed(key)),
        }
    }

    pub(super) fn record(&self, bucket: &str, key: &str) -> PathBuf {
        self.records(bucket).join(hashed(key)).with_extension("json")
    }
}

/// Whether a key can be a path as it is: relative, of ordinary names that every Unix file system keeps apart
/// and a person can read.
fn plain(key: &str, case_sensitive: bool) -> bool {
    let ordinary = |name: &str| {
        !name.is_empty()
            && name != "."
            && name != ".."
            && name.len() <= MAX_NAME_BYTES
            && !name.chars().any(char::is_control)
    };
    // File systems that ignore case also compare other scripts in ways of their own.
    let distinct = |key: &str| key.is_ascii() && !key.bytes().any(|byte| byte.is_ascii_uppercase());
    key.split('/').all(ordinary) && (case_sensitive || distinct(key))
}

fn hashed(key: &str) -> PathBuf {
    let digits = hex(sum_of(Algorithm::Sha256, key.as_bytes()).bytes());
    let (folder, name) = digits.split_at(2);
    Path::new(folder).join(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::Component;

    #[test]
    fn only_harmless_keys_are_paths() {
        for key in ["a", "a/b.txt", "ü/é", ".hidden", "a b", "...", "back\\slash", "A"] {
            assert!(plain(key, true), "{key}");
        }
        let long = "x".repeat(256);
        for key in ["", "/x", "a//b", "a/", "..", "a/../b", "./a", "a\nb", "nul\0", "a/.", &long] {
            assert!(!plain(key, true), "{key}");
        }
        assert!(!plain("A", false) && !plain("ü", false) && plain("a/b-1", false));
    }

    /// Keys of the characters that paths are sensitive to.
    fn keys() -> impl Strategy<Value = String> {
        prop_oneof!["[./ab\\\\%\0A\u{e9}\u{301}]{1,12}", ".{1,40}", "(\\.\\./){1,3}[a-z]{0,3}"]
    }

    proptest! {
        #[test]
        fn keys_stay_in_their_bucket_and_apart(one in keys(), other in keys()) {
            let layout = Layout::new(Path::new("/root"), true);
            let data = |key: &str| layout.data("bucket", key, layout.first_place(key));
            let bucket = layout.bucket("bucket");
            let path = data(&one);
            prop_assert!(path.components().all(|c| matches!(c, Component::RootDir | Component::Normal(_))));
            prop_assert!((path.starts_with(&bucket) && path != bucket) || path.starts_with(layout.odd("bucket")));
            prop_assert_eq!(one == other, path == data(&other));
            prop_assert_eq!(one == other, layout.record("bucket", &one) == layout.record("bucket", &other));
        }
    }
}
