//! Which objects there are: those whose names tell their size, sets of many small ones, and what was
//! uploaded, of which the size is all that is remembered.
//!
//! A key that ends in a size, such as `any/2GiB`, is an object of that size. It is listed once it was
//! asked for: some clients look an object up in the listing of its folder. `set/10000x16KiB/` has ten
//! thousand objects of 16 KiB, `000000` to `009999`; count and size are free.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Digits of the names in a set.
const SET_DIGITS: usize = 6;

/// What the store remembers.
#[derive(Default)]
pub(crate) struct Objects {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Size by `bucket/key`.
    uploaded: BTreeMap<String, u64>,
    unfinished: HashMap<String, BTreeMap<u32, u64>>,
    uploads: u64,
}

impl Objects {
    /// Size of an object, where there is one.
    pub(crate) fn size(&self, bucket: &str, key: &str) -> Option<u64> {
        if let Some(size) = self.state().uploaded.get(&format!("{bucket}/{key}")) {
            return Some(*size);
        }
        if key.starts_with("set/") {
            let (name, set) =
                key.rsplit_once('/').and_then(|(set, name)| Some((name, Set::named(set)?)))?;
            let known =
                name.len() == SET_DIGITS && name.parse::<u32>().is_ok_and(|n| n < set.count);
            return known.then_some(set.size);
        }
        let size = size(key.rsplit(['/', '-']).next()?)?;
        self.put(bucket, key, size);
        Some(size)
    }

    pub(crate) fn put(&self, bucket: &str, key: &str, size: u64) {
        self.state().uploaded.insert(format!("{bucket}/{key}"), size);
    }

    pub(crate) fn remove(&self, bucket: &str, key: &str) {
        self.state().uploaded.remove(&format!("{bucket}/{key}"));
    }

    /// Begins an upload in parts; gives its id.
    pub(crate) fn begin(&self) -> String {
        let mut state = self.state();
        state.uploads += 1;
        let id = format!("floor-{}", state.uploads);
        state.unfinished.insert(id.clone(), BTreeMap::new());
        id
    }

    /// Whether there is such an upload.
    pub(crate) fn part(&self, upload: &str, number: u32, size: u64) -> bool {
        self.state().unfinished.get_mut(upload).map(|parts| parts.insert(number, size)).is_some()
    }

    /// Parts of an upload, by number.
    pub(crate) fn parts(&self, upload: &str) -> Option<BTreeMap<u32, u64>> {
        self.state().unfinished.get(upload).cloned()
    }

    /// Ends an upload, whatever is to become of it; gives the size of its parts together.
    pub(crate) fn end(&self, upload: &str) -> Option<u64> {
        self.state().unfinished.remove(upload).map(|parts| parts.values().sum())
    }

    /// Up to `most` names and sizes that begin with `prefix` and come after `after`, in order.
    pub(crate) fn list(
        &self,
        bucket: &str,
        prefix: &str,
        after: &str,
        most: usize,
    ) -> Vec<(String, u64)> {
        let set = prefix.rsplit_once('/').and_then(|(set, _)| Some((set, Set::named(set)?)));
        if let Some((name, set)) = set {
            let beyond = after.strip_prefix(name).and_then(|rest| rest[1..].parse::<u32>().ok());
            return (beyond.map_or(0, |number| number + 1)..set.count)
                .map(|number| (format!("{name}/{number:0SET_DIGITS$}"), set.size))
                .filter(|(key, _)| key.starts_with(prefix))
                .take(most)
                .collect();
        }
        let state = self.state();
        let from = format!("{bucket}/{}", after.max(prefix));
        let start = if after >= prefix && !after.is_empty() {
            Bound::Excluded(from)
        } else {
            Bound::Included(from)
        };
        state
            .uploaded
            .range((start, Bound::Unbounded))
            .map_while(|(name, size)| {
                let key = name.strip_prefix(bucket)?.strip_prefix('/')?;
                key.starts_with(prefix).then(|| (key.to_owned(), *size))
            })
            .take(most)
            .collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A set of many objects of one size.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Set {
    pub(crate) count: u32,
    pub(crate) size: u64,
}

impl Set {
    /// From a name such as `set/10000x16KiB`.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let (count, each) = name.strip_prefix("set/")?.split_once('x')?;
        let count = count.parse().ok().filter(|count| *count <= 10_u32.pow(6))?;
        Some(Self { count, size: size(each)? })
    }
}

/// A size as keys and options tell it: digits, and `B`, `KiB`, `MiB`, `GiB` or `TiB`.
pub(crate) fn size(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let unit = match &text[digits..] {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    // S3's largest: 10,000 parts of 5 GiB.
    number.checked_mul(unit).filter(|size| *size <= 10_000 * (5 << 30))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_sizes() {
        let objects = Objects::default();
        for (key, size) in [
            ("a/2GiB", Some(2 << 30)),
            ("x-512", Some(512)),
            ("set/10x16KiB/000009", Some(16 << 10)),
            ("set/10x16KiB/000010", None),
            ("set/10x16KiB/9", None),
            ("set/10x16KiB", None),
            ("notes.txt", None),
        ] {
            assert_eq!(objects.size("b", key), size, "{key}");
        }
        objects.put("b", "notes.txt", 7);
        assert_eq!(objects.size("b", "notes.txt"), Some(7));
        assert_eq!(objects.size("other", "notes.txt"), None);
    }

    #[test]
    fn listings_go_on_after_a_name() {
        let objects = Objects::default();
        let names = |prefix, after| -> Vec<String> {
            objects.list("b", prefix, after, 2).into_iter().map(|(key, _)| key).collect()
        };
        assert_eq!(names("set/3x1KiB/", ""), ["set/3x1KiB/000000", "set/3x1KiB/000001"]);
        assert_eq!(names("set/3x1KiB/", "set/3x1KiB/000001"), ["set/3x1KiB/000002"]);
        assert!(names("set/3x1KiB/", "set/3x1KiB/000002").is_empty());
        for key in ["p/1.txt", "p/2.txt", "p/3.txt", "q.txt"] {
            objects.put("b", key, 1);
        }
        assert_eq!(names("p/", ""), ["p/1.txt", "p/2.txt"]);
        assert_eq!(names("p/", "p/2.txt"), ["p/3.txt"]);
        assert_eq!(names("", "p/3.txt"), ["q.txt"]);
    }

    #[test]
    fn an_upload_is_the_size_of_its_parts() {
        let objects = Objects::default();
        let id = objects.begin();
        assert!(objects.part(&id, 2, 5) && objects.part(&id, 1, 10) && objects.part(&id, 1, 11));
        assert_eq!(objects.end(&id), Some(16));
        assert!(!objects.part(&id, 1, 1));
    }
}
