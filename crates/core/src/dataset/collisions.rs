//! Names that are two objects and cannot be two files.
//!
//! `a` and `a/b` are keys like any others, but a file `a` leaves no place for a folder `a`. And where a file system
//! takes `A` for `a`, one would replace the other. Both are told one by one, so that the rest goes on.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use super::names::BadName;

/// Names that are remembered to find those that differ by case, at most: some 64 MiB.
const NAMES_REMEMBERED: usize = 4_000_000;

/// Finds names below a name that is a file itself, in a stream of names in byte order. It remembers only those that the
/// last name begins with.
///
/// ```
/// use brigade::dataset::Below;
///
/// let mut below = Below::default();
/// let found: Vec<_> = ["a", "a-", "a/b", "b/c"].map(|name| below.take(name).is_err()).into();
/// assert_eq!(found, [false, false, true, false]);
/// ```
#[derive(Debug, Default)]
pub struct Below {
    /// The last name that is a file.
    last: String,
    /// How long the names are that are files and that it begins with, itself included, the shortest first.
    ends: Vec<usize>,
}

impl Below {
    /// Takes the next name.
    ///
    /// # Errors
    ///
    /// [`BadName::NotAFolder`] where a name before it is the name of one of its folders; it does not count as a file then.
    pub fn take(&mut self, name: &str) -> Result<(), BadName> {
        while self.ends.last().is_some_and(|end| !name.starts_with(&self.last[..*end])) {
            self.ends.pop();
        }
        for end in &self.ends {
            if name.as_bytes().get(*end) == Some(&b'/') {
                return Err(BadName::NotAFolder { file: name[..*end].to_owned() });
            }
        }
        self.last.clear();
        self.last.push_str(name);
        if self.ends.last() != Some(&name.len()) {
            self.ends.push(name.len());
        }
        Ok(())
    }
}

/// Finds names that differ from one before only by case, in any order: for a file system that takes them for the same, or
/// to warn of one. It remembers a hash of each, up to four million, so that among ten million names it is
/// wrong about one once in some hundred thousand times.
///
/// ```
/// use brigade::dataset::CaseCollisions;
///
/// let mut names = CaseCollisions::default();
/// assert!(!names.collides("Readme") && names.collides("README"));
/// ```
#[derive(Debug, Default)]
pub struct CaseCollisions {
    seen: HashSet<u64>,
    lower: String,
}

impl CaseCollisions {
    /// Takes `name`, and says whether one was taken before that is the same in lower case, itself included.
    pub fn collides(&mut self, name: &str) -> bool {
        self.lower.clear();
        if name.is_ascii() {
            self.lower.push_str(name);
            self.lower.make_ascii_lowercase();
        } else {
            self.lower.extend(name.chars().flat_map(char::to_lowercase));
        }
        let mut hasher = DefaultHasher::new();
        self.lower.hash(&mut hasher);
        let hash = hasher.finish();
        if self.is_full() { self.seen.contains(&hash) } else { !self.seen.insert(hash) }
    }

    /// Whether no more names are remembered, so that collisions among further ones are not found.
    pub fn is_full(&self) -> bool {
        self.seen.len() >= NAMES_REMEMBERED
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_below_a_file_are_told_with_it() {
        let mut below = Below::default();
        for (name, file) in [
            ("a", None),
            ("a!", None),
            ("a!/x", Some("a!")),
            ("a-", None),
            ("a/b", Some("a")),
            ("a/b/c", Some("a")),
            ("a0/b", None),
            ("a0/b/c", Some("a0/b")),
            ("b", None),
        ] {
            let expected = file
                .map_or(Ok(()), |file: &str| Err(BadName::NotAFolder { file: file.to_owned() }));
            assert_eq!(below.take(name), expected, "{name}");
        }
    }

    #[test]
    fn names_that_differ_by_case_are_found() {
        let mut names = CaseCollisions::default();
        let found = ["a/B", "é", "ab", "A/b", "É", "a/b/c"].map(|name| names.collides(name));
        assert_eq!(found, [false, false, false, true, true, false]);
        assert!(!names.is_full());
    }

    proptest! {
        #[test]
        fn every_name_below_a_file_is_found(
            names in prop::collection::btree_set("[ab!](/?[ab!0]){0,4}", 0..30),
        ) {
            let mut below = Below::default();
            let mut files: BTreeSet<&String> = BTreeSet::new();
            for name in &names {
                let outer = |slash: usize| files.contains(&name[..slash].to_owned());
                let is_below = name.match_indices('/').any(|(slash, _)| outer(slash));
                prop_assert_eq!(below.take(name).is_err(), is_below, "{}", name);
                if !is_below {
                    files.insert(name);
                }
            }
        }
    }
}
