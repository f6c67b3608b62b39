//! A way through a listing, page after page, that believes nothing it can check.
//!
//! Pure: it says where the next page begins and takes in what came. What stores get wrong is met here: pages
//! that repeat, an end that is none, keys that were not asked for, and an order that is not that of the keys.

use std::cmp::Ordering;
use std::ops::ControlFlow;

use super::Listed;
use crate::dataset::Entry;
use crate::error::{Error, ErrorKind, Result};
use crate::transport::{LIST, ListPage, ListedObject, PageStart};

/// Pages in a row without a key. AWS gives some where much was deleted; so many are a store's mistake.
const MAX_EMPTY_PAGES: u32 = 1000;

/// Behind every key that begins with some prefix, but for those that go on with this character.
const HIGHEST: char = char::MAX;

/// What a page came to.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) items: Vec<Listed>,
    /// Whether everything up to here came in order.
    pub(super) is_ordered: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Course {
    /// `s3://bucket/prefix`, for messages.
    target: String,
    prefix: String,
    /// Nothing up to this key is of interest.
    after: Option<String>,
    /// Nothing behind this key is.
    until: Option<String>,
    next: Option<PageStart>,
    last: Option<String>,
    /// The first name behind the end that came.
    behind: Option<String>,
    is_ordered: bool,
    empty_pages: u32,
    circle: Circle,
}

impl Course {
    /// All that begins with `prefix`, behind `after`, up to and with `until`.
    pub(super) fn new(
        target: String,
        prefix: String,
        after: Option<String>,
        until: Option<String>,
    ) -> Self {
        let next = after.clone().map(PageStart::After);
        Self {
            target,
            prefix,
            after,
            until,
            next,
            last: None,
            behind: None,
            is_ordered: true,
            empty_pages: 0,
            circle: Circle::default(),
        }
    }

    /// Where the next page begins; `None` for the beginning.
    pub(super) fn start(&self) -> Option<&PageStart> {
        self.next.as_ref()
    }

    /// Nothing behind `key` is of interest any more.
    pub(super) fn end_at(&mut self, key: String) {
        self.until = Some(key);
    }

    /// The first name behind its end that came: what follows it elsewhere.
    pub(super) fn behind(&self) -> Option<&str> {
        self.behind.as_deref()
    }

    /// The last name that came.
    pub(super) fn last(&self) -> Option<&str> {
        self.last.as_deref()
    }

    /// Takes in a page. `Break` when it was the last one.
    ///
    /// # Errors
    /// [`ErrorKind::ServerFailure`] where the listing cannot be gone on with although it is not complete.
    pub(super) fn take(&mut self, page: ListPage) -> Result<ControlFlow<Batch, Batch>> {
        let ListPage { objects, prefixes, is_truncated, token } = page;
        let (listed, is_merged) = merged(objects, prefixes);
        self.is_ordered &= is_merged;
        let mut items: Vec<Listed> = Vec::with_capacity(listed.len());
        for item in listed {
            let name = item.name();
            if name.is_empty() || !name.starts_with(self.prefix.as_str()) {
                continue;
            }
            let previous = items.last().map(Listed::name).or(self.last.as_deref());
            if self.after.as_deref().is_some_and(|after| name <= after) {
                // A store that does not know where to begin begins with these, and then they end.
                self.is_ordered &= previous.is_none();
                continue;
            }
            if self.until.as_deref().is_some_and(|until| name > until) {
                if self.behind.is_none() {
                    self.behind = Some(name.to_owned());
                }
                continue;
            }
            self.is_ordered &= self.behind.is_none();
            match previous.map(|previous| previous.cmp(name)) {
                // Some stores begin a page with what the one before ended with.
                Some(Ordering::Equal) => continue,
                Some(Ordering::Greater) => self.is_ordered = false,
                _ => {}
            }
            items.push(item);
        }
        self.empty_pages = if items.is_empty() { self.empty_pages + 1 } else { 0 };
        let next = if !is_truncated || (self.behind.is_some() && self.is_ordered) {
            None
        } else if let Some(token) = token {
            Some(self.by_token(token)?)
        } else {
            Some(self.by_name(items.last())?)
        };
        if let Some(item) = items.last() {
            self.last = Some(item.name().to_owned());
        }
        let batch = Batch { items, is_ordered: self.is_ordered };
        Ok(match next {
            None => ControlFlow::Break(batch),
            Some(next) => {
                self.next = Some(next);
                ControlFlow::Continue(batch)
            }
        })
    }

    fn by_token(&mut self, token: String) -> Result<PageStart> {
        if self.empty_pages >= MAX_EMPTY_PAGES {
            return Err(self.incomplete("the store gives one empty page after the other"));
        }
        if self.circle.closes_with(&token) {
            return Err(self.incomplete("the store repeats a page of its listing for ever"));
        }
        Ok(PageStart::Token(token))
    }

    /// The store says that there is more, and not where.
    fn by_name(&self, last: Option<&Listed>) -> Result<PageStart> {
        match last.filter(|_| self.is_ordered) {
            Some(Listed::Object(object)) => Ok(PageStart::After(object.name.clone())),
            // Else what is in it would come as that prefix once more.
            Some(Listed::Prefix(prefix)) => Ok(PageStart::After(format!("{prefix}{HIGHEST}"))),
            None => Err(self.incomplete("the store says that there is more, and not where")),
        }
    }

    fn incomplete(&self, why: &str) -> Error {
        let detail = format!("{why}: the listing is incomplete");
        Error::new(ErrorKind::ServerFailure, LIST, &self.target, detail)
    }
}

/// Objects and prefixes of a page in one order, and whether both were in order.
fn merged(objects: Vec<ListedObject>, prefixes: Vec<String>) -> (Vec<Listed>, bool) {
    let objects = objects.into_iter().map(|object| {
        let ListedObject { key, size_bytes, modified, etag, storage_class } = object;
        Listed::Object(Entry { name: key, size_bytes, modified, etag, storage_class })
    });
    if prefixes.is_empty() {
        return (objects.collect(), true);
    }
    let mut items: Vec<Listed> = objects.collect();
    let is_rising =
        items.is_sorted_by(|one, next| one.name() <= next.name()) && prefixes.is_sorted();
    items.extend(prefixes.into_iter().map(Listed::Prefix));
    if is_rising {
        // Two runs, which this merges.
        items.sort_by(|one, other| one.name().cmp(other.name()));
    }
    (items, is_rising)
}

/// Finds out that tokens come again, whatever the length of the circle, without keeping them (Brent's
/// algorithm): each is compared with one that is replaced ever more rarely.
#[derive(Debug, Default)]
struct Circle {
    kept: String,
    since: u64,
    patience: u64,
}

impl Circle {
    fn closes_with(&mut self, token: &str) -> bool {
        if self.patience > 0 && self.kept == token {
            return true;
        }
        if self.since >= self.patience {
            self.patience = (self.patience * 2).max(1);
            self.since = 0;
            self.kept.clear();
            self.kept.push_str(token);
        }
        self.since += 1;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(keys: &[&str], prefixes: &[&str], more: Option<&str>) -> ListPage {
        let object =
            |key: &&str| ListedObject { key: (*key).to_owned(), ..ListedObject::default() };
        ListPage {
            objects: keys.iter().map(object).collect(),
            prefixes: prefixes.iter().map(|it| (*it).to_owned()).collect(),
            is_truncated: more.is_some(),
            token: more.filter(|token| !token.is_empty()).map(str::to_owned),
        }
    }

    fn course(prefix: &str, after: Option<&str>, until: Option<&str>) -> Course {
        let target = format!("s3://bucket/{prefix}");
        Course::new(target, prefix.into(), after.map(Into::into), until.map(Into::into))
    }

    /// The names of a page, `/` before those of prefixes, whether it is the last, and whether all is in
    /// order.
    fn took(course: &mut Course, page: ListPage) -> (Vec<String>, bool, bool) {
        let (batch, is_last) = match course.take(page).expect("a page") {
            ControlFlow::Break(batch) => (batch, true),
            ControlFlow::Continue(batch) => (batch, false),
        };
        let name = |item: &Listed| match item {
            Listed::Object(object) => object.name.clone(),
            Listed::Prefix(prefix) => format!("/{prefix}"),
        };
        (batch.items.iter().map(name).collect(), is_last, batch.is_ordered)
    }

    #[test]
    fn pages_follow_by_token_and_end() {
        let mut course = course("", None, None);
        assert_eq!(course.start(), None);
        assert_eq!(took(&mut course, page(&["a", "b"], &[], Some("t"))).1, false);
        assert_eq!(course.start(), Some(&PageStart::Token("t".into())));
        // A token at the end means nothing.
        let last = ListPage { is_truncated: false, ..page(&["b", "c"], &[], Some("u")) };
        let expected = (vec!["c".to_owned()], true, true);
        assert_eq!(took(&mut course, last), expected);
    }

    #[test]
    fn what_was_not_asked_for_is_left_out() {
        let mut course = course("a/", Some("a/1"), Some("a/5"));
        assert_eq!(course.start(), Some(&PageStart::After("a/1".into())));
        let keys = ["", "a", "a/0", "a/1", "a/2", "a/5", "a/6", "b"];
        // What comes behind the end ends it.
        let expected = (vec!["a/2".to_owned(), "a/5".to_owned()], true, true);
        assert_eq!(took(&mut course, page(&keys, &[], Some("t"))), expected);
    }

    #[test]
    fn objects_and_prefixes_come_in_one_order() {
        let mut course = course("", None, None);
        let names = took(&mut course, page(&["a", "c", "e"], &["b/", "d/"], None)).0;
        assert_eq!(names, ["a", "/b/", "c", "/d/", "e"]);
    }

    #[test]
    fn without_a_token_it_goes_on_behind_the_last_name() {
        let mut one = course("", None, None);
        took(&mut one, page(&["a", "b"], &[], Some("")));
        assert_eq!(one.start(), Some(&PageStart::After("b".into())));
        took(&mut one, page(&["c"], &["d/"], Some("")));
        assert_eq!(one.start(), Some(&PageStart::After("d/\u{10ffff}".into())));
        // No progress, or no order: there is no way on.
        for keys in [&["c"][..], &[], &["f", "e"]] {
            let mut other = course("", Some("c"), None);
            let error = other.take(page(keys, &[], Some(""))).expect_err("no way on");
            assert_eq!(
                error.to_string(),
                "list s3://bucket/: the store says that there is more, and not where: the listing is \
                 incomplete"
            );
        }
    }

    #[test]
    fn an_inversion_is_noticed_and_stays_so() {
        for pages in [
            [page(&["a", "c", "b"], &[], Some("t")), page(&["d"], &[], None)],
            [page(&["b"], &[], Some("t")), page(&["a", "c"], &[], None)],
            [page(&["a"], &["d/", "c/"], Some("t")), page(&["e"], &[], None)],
        ] {
            let mut course = course("", None, None);
            let [one, two] = pages;
            took(&mut course, one);
            let (_, is_last, is_ordered) = took(&mut course, two);
            assert_eq!((is_last, is_ordered), (true, false));
        }
    }

    #[test]
    fn circles_end_whatever_their_length() {
        for length in 1..20 {
            let mut course = course("", None, None);
            let ends = (0..200).any(|at| {
                let name = format!("{at:03}");
                let token = format!("t{}", if at < 5 { 100 + at } else { at % length });
                course.take(page(&[&name], &[], Some(&token))).is_err()
            });
            assert!(ends, "{length}");
        }
        let mut course = course("", None, None);
        for at in 0..5_000 {
            let (name, token) = (format!("{at:04}"), format!("t{at}"));
            assert!(course.take(page(&[&name], &[], Some(&token))).is_ok());
        }
    }

    #[test]
    fn empty_pages_pass_but_not_for_ever() {
        let mut course = course("", None, None);
        for at in 0..10 {
            assert_eq!(took(&mut course, page(&[], &[], Some(&format!("t{at}")))).1, false);
        }
        let ends =
            (10..2_000).any(|at| course.take(page(&[], &[], Some(&format!("t{at}")))).is_err());
        assert!(ends);
    }
}
