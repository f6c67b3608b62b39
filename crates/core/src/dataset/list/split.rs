//! A listing by several requests at a time, in order all the same.
//!
//! A store gives a page of a thousand keys and a token for the next one, so that one page after the other
//! costs a round trip each. But a listing can be begun behind any key, whether there is such a key or
//! not. So the key space is cut: while the first segment is listed, a page is asked for that begins
//! half-way between the last key that came and the segment's end. What comes back tells whether anything is
//! there. If so, that page is the first of a segment of its own, and nothing was asked for in vain; if
//! not, the next guess is closer. No knowledge of how keys are made is needed, and a lopsided bucket is
//! halved until it is not.
//!
//! Keys leave in order, from the first segment. The others are only as far ahead as some pages, so that memory
//! does not grow with the listing; a segment that is that far ahead asks for nothing more. What is free
//! then goes to halving the segment at the front. Small listings are never cut, and neither are those of stores
//! that list out of order. Where that shows only after a cut, all is listed again in one piece, since a segment
//! may have ended too early: the stream says that the order is gone, and names come twice.

use std::collections::VecDeque;
use std::future::Future;
use std::ops::ControlFlow;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc;

use super::Message;
use super::course::{Batch, Course};
use crate::error::{Error, ErrorKind, Result};
use crate::transport::{LIST, ListPage, PageStart};

/// Segments at a time.
const MAX_SEGMENTS: usize = 16;

/// Pages of each that wait for their turn.
const PAGES_AHEAD: usize = 3;

/// Pages that are listed before the first cut: what has fewer is listed sooner than cut.
const FIRST_CUT_AFTER: u32 = 4;

/// And of a segment, before it is cut.
const CUT_AFTER: u32 = 2;

/// Gives pages, from anywhere.
pub(super) trait Pages: Send + 'static {
    /// Whether they may be taken to come in the order of the names, as far as is known by now.
    fn keep_order(&self) -> bool {
        true
    }

    /// The page that begins at `start`.
    fn page(
        &self,
        start: Option<PageStart>,
    ) -> impl Future<Output = Result<ListPage>> + Send + 'static;
}

/// What is listed.
#[derive(Debug, Clone)]
pub(super) struct Scope {
    /// `s3://bucket/prefix`, for messages.
    pub(super) target: String,
    pub(super) prefix: String,
    /// Only keys behind this one.
    pub(super) after: Option<String>,
}

impl Scope {
    fn course(&self, after: Option<String>, until: Option<String>) -> Course {
        Course::new(self.target.clone(), self.prefix.clone(), after, until)
    }
}

/// See the module.
pub(super) struct Split<P> {
    pages: P,
    scope: Scope,
    segments: VecDeque<Segment>,
    flights: FuturesUnordered<BoxFuture<'static, (Flight, Result<ListPage>)>>,
    next_id: u64,
    most_flights: usize,
    may_cut: bool,
    was_cut: bool,
    is_ordered: bool,
}

/// A range of keys.
struct Segment {
    id: u64,
    course: Course,
    /// Where it ends.
    until: Option<String>,
    /// Behind this, nothing is in it any more.
    ceiling: Option<String>,
    waiting: VecDeque<Batch>,
    is_asked: bool,
    is_over: bool,
    /// Whether a page in the middle of it was asked for.
    is_being_cut: bool,
    pages_until_cut: u32,
}

/// What a page was asked for.
enum Flight {
    Next { id: u64 },
    Cut { id: u64, at: String, course: Course, until: Option<String> },
}

impl<P: Pages> Split<P> {
    /// By so many requests at a time; one means that nothing is cut.
    pub(super) fn new(pages: P, scope: Scope, most_flights: usize) -> Self {
        let course = scope.course(scope.after.clone(), None);
        let first = Segment::new(0, course, None, FIRST_CUT_AFTER);
        Self {
            pages,
            scope,
            segments: VecDeque::from([first]),
            flights: FuturesUnordered::new(),
            next_id: 1,
            most_flights,
            may_cut: most_flights > 1,
            was_cut: false,
            is_ordered: true,
        }
    }

    /// Lists all of it into `messages`, or until nobody listens any more.
    pub(super) async fn run(mut self, messages: &mpsc::Sender<Message>) -> Result<()> {
        loop {
            self.depart();
            let Some(head) = self.segments.front_mut() else { return Ok(()) };
            if head.waiting.is_empty() {
                if head.is_over {
                    self.segments.pop_front();
                    continue;
                }
                let Some((flight, page)) = self.flights.next().await else {
                    let detail = "nothing is under way";
                    return Err(Error::new(ErrorKind::Io, LIST, &self.scope.target, detail));
                };
                self.land(flight, page)?;
                continue;
            }
            tokio::select! {
                biased;
                room = messages.reserve() => {
                    let Ok(room) = room else { return Ok(()) };
                    if let Some(mut batch) = head.waiting.pop_front() {
                        batch.is_ordered &= self.is_ordered;
                        room.send(Message::Page(batch));
                    }
                }
                Some((flight, page)) = self.flights.next() => self.land(flight, page)?,
            }
        }
    }

    /// Asks for what there is room for: the next page of each segment, the first ones first, and then the
    /// middle of one.
    fn depart(&mut self) {
        for segment in &mut self.segments {
            if self.flights.len() >= self.most_flights {
                return;
            }
            if !segment.is_asked && !segment.is_over && segment.waiting.len() < PAGES_AHEAD {
                segment.is_asked = true;
                let page = self.pages.page(segment.course.start().cloned());
                let flight = Flight::Next { id: segment.id };
                self.flights.push(Box::pin(async move { (flight, page.await) }));
            }
        }
        let cuts = self.segments.iter().filter(|segment| segment.is_being_cut).count();
        if !self.may_cut || self.segments.len() + cuts >= MAX_SEGMENTS {
            return;
        }
        for segment in &mut self.segments {
            if self.flights.len() >= self.most_flights {
                return;
            }
            // One that is far ahead of who reads is in no hurry.
            if segment.is_over || segment.is_being_cut || segment.waiting.len() >= PAGES_AHEAD {
                continue;
            }
            let Some(at) = segment.middle(&self.scope.prefix) else { continue };
            segment.is_being_cut = true;
            let until = segment.until.clone();
            let course = self.scope.course(Some(at.clone()), until.clone());
            let page = self.pages.page(course.start().cloned());
            let flight = Flight::Cut { id: segment.id, at, course, until };
            self.flights.push(Box::pin(async move { (flight, page.await) }));
        }
    }

    /// Takes in a page.
    fn land(&mut self, flight: Flight, page: Result<ListPage>) -> Result<()> {
        match flight {
            Flight::Next { id } => {
                let Some(segment) = self.segments.iter_mut().find(|it| it.id == id) else {
                    return Ok(());
                };
                let is_ordered = segment.take(page?)?;
                if !is_ordered || !self.pages.keep_order() {
                    self.order_is_gone();
                }
            }
            Flight::Cut { id, at, course, until } => self.land_cut(id, at, course, until, page),
        }
        Ok(())
    }

    /// What lies behind `at` in a segment.
    fn land_cut(
        &mut self,
        id: u64,
        at: String,
        course: Course,
        until: Option<String>,
        page: Result<ListPage>,
    ) {
        let Some(index) = self.segments.iter().position(|it| it.id == id) else { return };
        let segment = &mut self.segments[index];
        segment.is_being_cut = false;
        if !self.may_cut {
            return;
        }
        // Nobody has waited for it: the listing goes on as it did.
        let Ok(page) = page else { return self.may_cut = false };
        // The store has given what is before as well.
        if page.objects.first().is_some_and(|object| object.key <= at) {
            return self.may_cut = false;
        }
        let mut cut = Segment::new(self.next_id, course, until, CUT_AFTER);
        match cut.take(page) {
            Ok(true) => {}
            Ok(false) => return self.order_is_gone(),
            Err(_) => return self.may_cut = false,
        }
        let has_passed = segment.course.last().is_some_and(|last| last >= at.as_str());
        if segment.is_over || has_passed {
            return;
        }
        if cut.waiting.is_empty() {
            // A page may be empty although others follow.
            if cut.is_over {
                segment.ceiling = Some(at);
            } else {
                segment.pages_until_cut = CUT_AFTER;
            }
            return;
        }
        segment.end_at(at);
        self.next_id += 1;
        self.was_cut = true;
        self.segments.insert(index + 1, cut);
    }

    /// Nothing that was left out as belonging elsewhere can be believed to come there.
    fn order_is_gone(&mut self) {
        self.may_cut = false;
        self.is_ordered = false;
        if !std::mem::take(&mut self.was_cut) {
            return;
        }
        self.flights.clear();
        let course = self.scope.course(self.scope.after.clone(), None);
        self.segments = VecDeque::from([Segment::new(self.next_id, course, None, 0)]);
        self.next_id += 1;
    }
}

impl Segment {
    fn new(id: u64, course: Course, until: Option<String>, pages_until_cut: u32) -> Self {
        Self {
            id,
            course,
            ceiling: until.clone(),
            until,
            waiting: VecDeque::new(),
            is_asked: false,
            is_over: false,
            is_being_cut: false,
            pages_until_cut,
        }
    }

    /// Takes in its next page, and says whether it came in order.
    fn take(&mut self, page: ListPage) -> Result<bool> {
        self.is_asked = false;
        let batch = match self.course.take(page)? {
            ControlFlow::Continue(batch) => batch,
            ControlFlow::Break(batch) => {
                self.is_over = true;
                batch
            }
        };
        let is_ordered = batch.is_ordered;
        self.pages_until_cut = self.pages_until_cut.saturating_sub(1);
        if !batch.items.is_empty() {
            self.waiting.push_back(batch);
        }
        Ok(is_ordered)
    }

    /// What is behind `at` is somebody else's from now on.
    fn end_at(&mut self, at: String) {
        self.course.end_at(at.clone());
        self.ceiling = Some(at.clone());
        self.until = Some(at);
        self.pages_until_cut = CUT_AFTER;
    }

    /// Where to cut what is left of it; `None` where it is not yet time to, or there is nothing between.
    fn middle(&self, prefix: &str) -> Option<String> {
        let last = self.course.last()?;
        if self.pages_until_cut > 0 {
            return None;
        }
        middle(prefix, last, self.ceiling.as_deref())
    }
}

/// A key that begins with `prefix`, as `low` does, behind it and before `high`; about half-way, if half of the
/// characters that people write keys with were in use everywhere.
fn middle(prefix: &str, low: &str, high: Option<&str>) -> Option<String> {
    let rest = low.strip_prefix(prefix)?;
    // All keys that begin so are before one that does not.
    let mut high = high.and_then(|high| high.strip_prefix(prefix)).map(str::chars);
    let mut middle = String::with_capacity(low.len() + 4);
    middle.push_str(prefix);
    let mut low = rest.chars();
    loop {
        let (one, other) = (low.next(), high.as_mut().map(Iterator::next));
        match (one, other) {
            // It has an end that comes before: there is nothing between.
            (_, Some(None)) => return None,
            (Some(one), Some(Some(other))) if one == other => middle.push(one),
            (one, other) => {
                if let Some(between) = between(one, other.flatten()) {
                    middle.push(between);
                    return (middle.len() <= MAX_KEY_BYTES).then_some(middle);
                }
                // Behind `low`, but with this character all the same.
                middle.push(one?);
                high = None;
            }
        }
    }
}

/// The longest key there is, in bytes.
const MAX_KEY_BYTES: usize = 1024;

/// The last character that does not occur in a text.
const BEFORE_TEXT: u32 = 0x1f;

/// The first one behind those that most keys are made of.
const BEHIND_ASCII: u32 = 0x7f;

/// A character between two; of one that is not there, the end of a key is before all, and no end behind
/// all.
fn between(low: Option<char>, high: Option<char>) -> Option<char> {
    let low = low.map_or(BEFORE_TEXT, |low| u32::from(low).max(BEFORE_TEXT));
    let high = match high {
        Some(high) => u32::from(high),
        None if low < BEHIND_ASCII - 1 => BEHIND_ASCII,
        None => u32::from(char::MAX) + 1,
    };
    let middle = low + high.checked_sub(low).filter(|room| *room > 1)? / 2;
    // Numbers that are no characters lie below this one.
    char::from_u32(middle).or_else(|| Some('\u{e000}').filter(|it| u32::from(*it) < high))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use proptest::prelude::*;

    use super::*;
    use crate::dataset::Listed;
    use crate::transport::ListedObject;

    const MOST: usize = 8;

    /// A store as it should be, or not quite.
    #[derive(Clone)]
    struct Model {
        prefix: String,
        keys: Arc<BTreeSet<String>>,
        page_size: usize,
        habits: Habits,
        asked: Arc<AtomicUsize>,
        at_once: Arc<AtomicUsize>,
        most_at_once: Arc<AtomicUsize>,
    }

    #[derive(Debug, Clone, Copy, Default)]
    struct Habits {
        seed: u64,
        without_tokens: bool,
        ignores_start: bool,
        /// Keys that begin with this come last.
        puts_last: Option<char>,
    }

    impl Model {
        fn new(keys: &BTreeSet<String>, prefix: &str, page_size: usize, habits: Habits) -> Self {
            let (asked, at_once, most_at_once) = Default::default();
            let keys = Arc::new(keys.clone());
            Self { prefix: prefix.into(), keys, page_size, habits, asked, at_once, most_at_once }
        }

        fn list(&self, start: Option<&PageStart>) -> ListPage {
            let from = match start {
                Some(PageStart::Token(key)) => Some(key),
                Some(PageStart::After(key)) if !self.habits.ignores_start => Some(key),
                _ => None,
            };
            let rank = |key: &str| {
                (self.habits.puts_last.is_some_and(|it| key.starts_with(it)), key.to_owned())
            };
            let mut keys: Vec<&String> = self.keys.iter().collect();
            keys.sort_by_key(|key| rank(key));
            let keys = keys.into_iter().filter(|key| {
                key.starts_with(&self.prefix) && from.is_none_or(|from| rank(key) > rank(from))
            });
            let mut keys: Vec<&String> = keys.take(self.page_size + 1).collect();
            let is_truncated = keys.len() > self.page_size;
            keys.truncate(self.page_size);
            let token = keys.last().filter(|_| is_truncated && !self.habits.without_tokens);
            let token = token.map(|key| (*key).clone());
            let object = |key: &&String| ListedObject { key: (*key).clone(), ..Default::default() };
            ListPage {
                objects: keys.iter().map(object).collect(),
                prefixes: Vec::new(),
                is_truncated,
                token,
            }
        }
    }

    impl Pages for Model {
        fn page(
            &self,
            start: Option<PageStart>,
        ) -> impl Future<Output = Result<ListPage>> + Send + 'static {
            let model = self.clone();
            let number = self.asked.fetch_add(1, Ordering::Relaxed) as u64;
            async move {
                let at_once = model.at_once.fetch_add(1, Ordering::Relaxed) + 1;
                model.most_at_once.fetch_max(at_once, Ordering::Relaxed);
                // Answers come in any order.
                for _ in 0..fastrand::Rng::with_seed(model.habits.seed ^ number).u8(1..20) {
                    tokio::task::yield_now().await;
                }
                model.at_once.fetch_sub(1, Ordering::Relaxed);
                Ok(model.list(start.as_ref()))
            }
        }
    }

    /// The names in the order they came, and whether that was their own.
    fn listed(model: &Model, after: Option<&str>) -> Result<(Vec<String>, bool)> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let scope = Scope {
                target: "s3://bucket/".into(),
                prefix: model.prefix.clone(),
                after: after.map(str::to_owned),
            };
            let (sender, mut receiver) = mpsc::channel(2);
            let split = Split::new(model.clone(), scope, MOST);
            let run = async move { split.run(&sender).await };
            let read = async {
                let (mut names, mut is_ordered) = (Vec::new(), true);
                while let Some(Message::Page(batch)) = receiver.recv().await {
                    is_ordered &= batch.is_ordered;
                    names.extend(batch.items.iter().map(Listed::name).map(str::to_owned));
                }
                (names, is_ordered)
            };
            let (ended, read) = futures::join!(run, read);
            ended.map(|()| read)
        })
    }

    /// Keys of a few characters, so that they share beginnings; odd ones among them.
    fn keys() -> impl Strategy<Value = BTreeSet<String>> {
        let of_few = "[abz/]{1,6}";
        let of_numbers = (0_u32..3000).prop_map(|it| format!("d{:03}/f{:03}", it / 50, it % 50));
        let odd = "[a\u{1}\n~\u{7f}ü\u{d7ff}\u{e000}\u{10ffff}]{1,4}";
        let key = prop_oneof![of_few, of_numbers, odd];
        prop::collection::btree_set(key, 0..400)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn a_cut_listing_is_the_sorted_set(
            keys in keys(),
            page_size in 1_usize..12,
            seed in any::<u64>(),
            without_tokens in any::<bool>(),
            ignores_start in prop::bool::weighted(0.2),
            prefix in prop_oneof![Just(""), Just("a"), Just("d0"), Just("z/")],
            after in prop::option::of("[abdz/0-9]{0,4}"),
        ) {
            let ignores_start = ignores_start && !without_tokens;
            let habits = Habits { seed, without_tokens, ignores_start, puts_last: None };
            let model = Model::new(&keys, prefix, page_size, habits);
            let (names, is_ordered) = listed(&model, after.as_deref()).expect("a listing");
            let is_meant = |key: &&String| {
                key.starts_with(prefix) && after.as_ref().is_none_or(|after| *key > after)
            };
            let expected: Vec<String> = keys.iter().filter(is_meant).cloned().collect();
            prop_assert_eq!(names, expected);
            prop_assert!(is_ordered);
            prop_assert!(model.most_at_once.load(Ordering::Relaxed) <= MOST);
        }

        #[test]
        fn an_order_that_is_lost_late_loses_no_key(
            keys in keys(),
            page_size in 1_usize..12,
            seed in any::<u64>(),
            last in prop_oneof![Just('a'), Just('b'), Just('d')],
        ) {
            let habits = Habits { seed, puts_last: Some(last), ..Habits::default() };
            let model = Model::new(&keys, "", page_size, habits);
            let (names, is_ordered) = listed(&model, None).expect("a listing");
            let unique: BTreeSet<String> = names.iter().cloned().collect();
            prop_assert_eq!(&unique, &keys);
            prop_assert_eq!(is_ordered, names.is_sorted());
            if is_ordered {
                prop_assert_eq!(names.len(), keys.len());
            }
        }

        #[test]
        fn a_middle_lies_between(low in "[a-c~\u{1}ü]{0,4}", high in "[a-c~\u{1}ü]{0,4}") {
            let (low, high) = (format!("p/{low}"), format!("p/{high}"));
            if let Some(found) = middle("p/", &low, Some(&high).filter(|high| **high > low).map(String::as_str)) {
                prop_assert!(found > low && found.starts_with("p/"), "{found:?}");
                prop_assert!(high <= low || found < high, "{found:?}");
            }
        }
    }

    #[test]
    fn many_keys_are_listed_by_many_requests_and_few_by_one_at_a_time() {
        let numbered = |count| (0..count).map(|it| format!("d{:04}/f{:03}", it / 100, it % 100));
        let few = Model::new(&numbered(40).collect(), "", 10, Habits::default());
        assert_eq!(listed(&few, None).expect("a listing").0.len(), 40);
        assert_eq!(few.most_at_once.load(Ordering::Relaxed), 1);
        assert_eq!(few.asked.load(Ordering::Relaxed), 4);
        let many = Model::new(&numbered(20_000).collect(), "", 10, Habits::default());
        assert_eq!(listed(&many, None).expect("a listing").0.len(), 20_000);
        assert_eq!(many.most_at_once.load(Ordering::Relaxed), MOST);
        // 2,000 pages, and what was asked for in vain.
        let asked = many.asked.load(Ordering::Relaxed);
        assert!(asked < 2_600, "{asked}");
    }

    #[test]
    fn middles_are_found_where_there_is_room() {
        for (low, high, expected) in [
            ("a", Some("c"), Some("b")),
            ("a", None, Some("p")),
            ("a1", Some("b"), Some("aX")),
            ("abc", Some("abc"), None),
            ("a", Some("a"), None),
            ("a", Some("a "), None),
            ("~", None, Some("\u{8803f}")),
        ] {
            assert_eq!(middle("", low, high).as_deref(), expected, "{low} {high:?}");
        }
        assert_eq!(middle("x/", "x/~~", Some("y")).as_deref(), Some("x/\u{8803f}"));
    }
}
