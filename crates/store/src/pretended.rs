//! Objects by the million that nobody put: what a store without a disk can list.
//!
//! Their keys are counted, not kept: `d000000/f000`, `d000000/f001` and so on, a thousand in each folder, so
//! that their order is the order of their numbers and any key is found by arithmetic. All have one size and one
//! content, that of [`crate::synthetic`].

use std::fmt::Write as _;
use std::ops::Bound;

/// Objects in each folder; what the three digits of a file's name can count.
const FOLDER: u64 = 1000;

/// Digits of a folder's name, unless there are more folders than those can count.
const DIGITS: usize = 6;

/// Objects that a synthetic store pretends to have, in each of its buckets.
///
/// Deleting one changes nothing. One that is put in the place of a pretended one takes its place.
///
/// ```
/// let pretended = brigade_store::Pretended { objects: 10_000_000, object_size_bytes: 16 << 10 };
/// assert_eq!(pretended.key(1_234_567), "d001234/f567");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pretended {
    /// How many.
    pub objects: u64,
    /// The size of each, bytes.
    pub object_size_bytes: u64,
}

impl Pretended {
    /// The key of number `index`, from 0.
    pub fn key(&self, index: u64) -> String {
        let mut key = String::with_capacity(DIGITS + 6);
        self.write_key(index, &mut key);
        key
    }

    /// Appends the key of number `index`.
    pub(crate) fn write_key(&self, index: u64, to: &mut String) {
        let digits = self.digits();
        // Writing to a String cannot fail.
        let _ = write!(to, "d{:0digits$}/f{:03}", index / FOLDER, index % FOLDER);
    }

    /// The number of a key, if it is one of them.
    pub(crate) fn index_of(&self, key: &str) -> Option<u64> {
        let (folder, file) = key.strip_prefix('d')?.split_once("/f")?;
        let number = |text: &str, digits| {
            let is_plain = text.len() == digits && text.bytes().all(|it| it.is_ascii_digit());
            is_plain.then(|| text.parse::<u64>().ok()).flatten()
        };
        let index =
            number(folder, self.digits())?.checked_mul(FOLDER)?.checked_add(number(file, 3)?)?;
        (index < self.objects).then_some(index)
    }

    /// The number of the first key from `bound` on; as many as there are if none is.
    pub(crate) fn first_from(&self, bound: Bound<&str>) -> u64 {
        let is_before = |key: &str| match bound {
            Bound::Included(from) => key < from,
            Bound::Excluded(from) => key <= from,
            Bound::Unbounded => false,
        };
        let (mut low, mut high) = (0, self.objects);
        let mut key = String::new();
        while low < high {
            let middle = low + (high - low) / 2;
            key.clear();
            self.write_key(middle, &mut key);
            if is_before(&key) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    fn digits(&self) -> usize {
        let last = self.objects.saturating_sub(1) / FOLDER;
        // Of a u64: at most 20.
        last.checked_ilog10().map_or(1, |log| log as usize + 1).max(DIGITS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_counted_in_their_own_order() {
        for objects in [1, 999, 1001, 2_000_000_000_000] {
            let pretended = Pretended { objects, object_size_bytes: 1 };
            let step = (objects / 500).max(1);
            let indexes: Vec<u64> = (0..objects).step_by(usize::try_from(step).unwrap()).collect();
            let keys: Vec<String> = indexes.iter().map(|index| pretended.key(*index)).collect();
            assert!(keys.is_sorted());
            for (index, key) in indexes.iter().zip(&keys) {
                assert_eq!(pretended.index_of(key), Some(*index), "{key}");
                assert_eq!(pretended.first_from(Bound::Included(key)), *index);
                assert_eq!(pretended.first_from(Bound::Excluded(key)), index + 1);
            }
            assert_eq!(pretended.index_of(&pretended.key(objects)), None);
        }
    }

    #[test]
    fn other_keys_are_between_them() {
        let pretended = Pretended { objects: 2_000, object_size_bytes: 1 };
        for (key, from) in [
            ("", 0),
            ("a", 0),
            ("d000000/f0000", 1),
            ("d000000/g", 1000),
            ("d000001", 1000),
            ("d000001/f5", 1500),
            ("d1", 2000),
            ("ü", 2000),
        ] {
            assert_eq!(pretended.index_of(key), None, "{key}");
            assert_eq!(pretended.first_from(Bound::Included(key)), from, "{key}");
        }
        for key in ["d000000/f+10", "d00000/f010", "d000000/f10", "d000000f010", "d0000001/f000"] {
            assert_eq!(pretended.index_of(key), None, "{key}");
        }
        assert_eq!(pretended.first_from(Bound::Unbounded), 0);
    }
}
