//! Two sides that come in the order of their names, put beside each other name by name.
//!
//! It is the merge of two sorted lists: of each side no more than a batch is held. That only works on lists that are in order, and
//! what takes a list for sorted that is not would delete what it should keep; so the order is checked on the way, and
//! the first name that is smaller than the one before ends it. A name that comes twice on a side, as some stores'
//! pages overlap, counts once, as it came first.

use std::cmp::Ordering;
use std::vec::IntoIter;

use futures::stream::{self, Stream, StreamExt as _};

use super::entry::Entry;
use crate::error::{Error, ErrorKind, Result};

/// Pairs in one batch, at most.
const BATCH: usize = 1024;

/// What both sides have under one name; one of the two is always there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pair {
    /// The left side's, usually the source.
    pub left: Option<Entry>,
    /// The right side's, usually the target.
    pub right: Option<Entry>,
}

impl Pair {
    /// Their name.
    pub fn name(&self) -> &str {
        self.left.as_ref().or(self.right.as_ref()).map_or("", |entry| &entry.name)
    }
}

/// Puts `left` and `right` beside each other, each a stream of batches in the byte order of names. What comes is in that order, too,
/// in batches that are never empty. The first error of a side is passed on and ends it.
///
/// ```
/// use brigade::dataset::compare;
/// use futures::{StreamExt, executor::block_on, stream};
///
/// let side = |names: &[&str]| {
///     let entries = names.iter().map(|name| {
///         let mut entry = brigade::Entry::default();
///         entry.name = (*name).into();
///         entry
///     });
///     stream::iter([Ok(entries.collect::<Vec<_>>())])
/// };
/// let pairs = compare(side(&["a", "b"]), side(&["b", "c"])).map(|batch| batch.unwrap()).concat();
/// let sides: Vec<_> =
///     block_on(pairs).iter().map(|pair| (pair.left.is_some(), pair.right.is_some())).collect();
/// assert_eq!(sides, [(true, false), (true, true), (false, true)]);
/// ```
///
/// # Errors
///
/// [`ErrorKind::Unsupported`] where a side is not in order; else what a side says.
pub fn compare<L, R>(left: L, right: R) -> impl Stream<Item = Result<Vec<Pair>>>
where
    L: Stream<Item = Result<Vec<Entry>>>,
    R: Stream<Item = Result<Vec<Entry>>>,
{
    let merge = (Box::pin(left), Box::pin(right), Merge::default());
    stream::try_unfold(merge, |(mut left, mut right, mut merge)| async move {
        let mut pairs = Vec::with_capacity(BATCH);
        loop {
            match merge.fill(&mut pairs)? {
                // What is there is worth more now than more of it later.
                Wants::Left | Wants::Right if !pairs.is_empty() => break,
                Wants::Left => merge.left.give(left.next().await.transpose()?),
                Wants::Right => merge.right.give(right.next().await.transpose()?),
                Wants::Nothing => break,
            }
        }
        Ok((!pairs.is_empty()).then_some((pairs, (left, right, merge))))
    })
}

/// What a merge needs to go on.
enum Wants {
    Left,
    Right,
    /// The pairs are enough, or there are no more.
    Nothing,
}

/// A merge, apart from where its batches come from.
#[derive(Default)]
struct Merge {
    left: Side,
    right: Side,
}

#[derive(Default)]
struct Side {
    batch: IntoIter<Entry>,
    /// The name before.
    last: Option<String>,
    has_ended: bool,
}

impl Merge {
    /// Appends pairs until there are [`BATCH`] or a side has to bring more.
    fn fill(&mut self, pairs: &mut Vec<Pair>) -> Result<Wants> {
        while pairs.len() < BATCH {
            if !self.left.is_ready()? {
                return Ok(Wants::Left);
            }
            if !self.right.is_ready()? {
                return Ok(Wants::Right);
            }
            let order = match (self.left.next(), self.right.next()) {
                (Some(left), Some(right)) => left.name.cmp(&right.name),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => break,
            };
            pairs.push(Pair {
                left: if order.is_le() { self.left.take() } else { None },
                right: if order.is_ge() { self.right.take() } else { None },
            });
        }
        Ok(Wants::Nothing)
    }
}

impl Side {
    fn give(&mut self, batch: Option<Vec<Entry>>) {
        match batch {
            Some(batch) => self.batch = batch.into_iter(),
            None => self.has_ended = true,
        }
    }

    fn next(&self) -> Option<&Entry> {
        self.batch.as_slice().first()
    }

    /// Whether the next entry, in order, is at hand, or it is known that there is none.
    fn is_ready(&mut self) -> Result<bool> {
        while let Some(next) = self.next() {
            match &self.last {
                Some(last) => match next.name.cmp(last) {
                    Ordering::Less => return Err(out_of_order(last, &next.name)),
                    Ordering::Equal => drop(self.batch.next()),
                    Ordering::Greater => return Ok(true),
                },
                None => return Ok(true),
            }
        }
        Ok(self.has_ended)
    }

    fn take(&mut self) -> Option<Entry> {
        let entry = self.batch.next()?;
        // The buffer is kept, since this is done for every name.
        let last = self.last.get_or_insert_default();
        last.clear();
        last.push_str(&entry.name);
        Some(entry)
    }
}

fn out_of_order(last: &str, next: &str) -> Error {
    let detail = format!("the listing is out of order: it comes after {last:?}");
    Error::new(ErrorKind::Unsupported, "compare", next, detail)
        .advise("such a listing has to be sorted first")
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use futures::TryStreamExt as _;
    use futures::executor::block_on;
    use proptest::prelude::*;

    use super::*;

    fn entry(name: &str, size_bytes: u64) -> Entry {
        Entry { name: name.into(), size_bytes, ..Entry::default() }
    }

    fn side(batches: &[&[&str]]) -> Vec<Result<Vec<Entry>>> {
        let batch = |batch: &[&str]| Ok(batch.iter().map(|name| entry(name, 0)).collect());
        batches.iter().map(|names| batch(names)).collect()
    }

    /// The names that came, with `<`, `=` or `>` for the sides that have them, and the error.
    fn merged(left: Vec<Result<Vec<Entry>>>, right: Vec<Result<Vec<Entry>>>) -> (String, String) {
        let mut pairs = Box::pin(compare(stream::iter(left), stream::iter(right)));
        let mut told = String::new();
        loop {
            match block_on(pairs.try_next()) {
                Ok(None) => return (told, String::new()),
                Err(error) => {
                    assert!(block_on(pairs.next()).is_none(), "an error is the end");
                    return (told, error.to_string());
                }
                Ok(Some(batch)) => {
                    assert!(!batch.is_empty());
                    for pair in batch {
                        told.push_str(pair.name());
                        told.push(match (&pair.left, &pair.right) {
                            (Some(_), None) => '<',
                            (None, Some(_)) => '>',
                            _ => '=',
                        });
                    }
                }
            }
        }
    }

    #[test]
    fn batches_of_any_size_are_one_list() {
        for (left, right, expected) in [
            (side(&[]), side(&[]), ""),
            (side(&[&["a"], &[], &["b", "d"]]), side(&[&["b"], &["c"]]), "a<b=c>d<"),
            (side(&[&[]]), side(&[&["a", "b"]]), "a>b>"),
            (side(&[&["a", "a"], &["a", "b"]]), side(&[&["b"], &["b"]]), "a<b="),
            (side(&[&["a", "a/b", "a0", "é"]]), side(&[&["a-", "é"]]), "a<a->a/b<a0<é="),
        ] {
            assert_eq!(merged(left, right), (expected.to_owned(), String::new()));
        }
    }

    #[test]
    fn a_name_that_is_smaller_than_the_one_before_ends_it() {
        let (told, error) = merged(side(&[&["a", "c"], &["b"]]), side(&[&["a", "d"]]));
        assert_eq!(told, "a=c<");
        assert_eq!(
            error,
            "compare b: the listing is out of order: it comes after \"c\"; \
             such a listing has to be sorted first"
        );
    }

    #[test]
    fn a_sides_error_ends_it_and_nothing_more_is_told() {
        let mut broken = side(&[&["a"]]);
        broken.push(Err(Error::new(ErrorKind::Unreachable, "list", "s3://b", "cut")));
        broken.extend(side(&[&["z"]]));
        let (told, error) = merged(side(&[&["a", "b", "c"]]), broken);
        // Whether the other side has b is not known.
        assert_eq!((told.as_str(), error.as_str()), ("a=", "list s3://b: cut"));
    }

    proptest! {
        #[test]
        fn it_is_the_outer_join_of_the_two(
            left in prop::collection::btree_map("[ab/\\-é]{0,4}", 0_u64..3, 0..40),
            right in prop::collection::btree_map("[ab/\\-é]{0,4}", 0_u64..3, 0..40),
            cuts in prop::collection::vec(1_usize..7, 1..5),
        ) {
            let batches = |side: &BTreeMap<String, u64>| {
                let mut entries = side.iter().map(|(name, size)| entry(name, *size));
                let mut batches = Vec::new();
                for cut in cuts.iter().cycle() {
                    let batch: Vec<_> = entries.by_ref().take(*cut).collect();
                    if batch.is_empty() {
                        break;
                    }
                    batches.push(Ok(batch));
                }
                stream::iter(batches)
            };
            let pairs = block_on(compare(batches(&left), batches(&right)).try_concat());
            let names: BTreeSet<_> = left.keys().chain(right.keys()).collect();
            let at = |side: &BTreeMap<String, u64>, name: &String| {
                side.get(name).map(|size| entry(name, *size))
            };
            let expected: Vec<_> = names.into_iter()
                .map(|name| Pair { left: at(&left, name), right: at(&right, name) })
                .collect();
            prop_assert_eq!(pairs.expect("in order"), expected);
        }
    }
}
