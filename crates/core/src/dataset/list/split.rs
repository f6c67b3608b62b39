//! A listing by several requests at a time, in order all the same.
//!
//! A store gives a page of a thousand keys and a token for the next one, so that one page after the other
//! costs a round trip each. But a listing can be begun behind any key, whether there is such a key or not. So
//! the key space is cut ahead of who reads: a key is guessed that lies some pages further on ([`Ranks`]),
//! and a page is asked for that begins behind it. If anything comes, it is the first page of a segment of its
//! own, from whose beginning the next guess goes on, and nothing was asked for in vain. How far apart guesses are
//! follows from how far apart the keys of the last pages were; a segment that turns out long is cut once more.
//!
//! Keys leave in order, from the first segment. Those behind it are only so many pages ahead, all
//! together, so that memory does not grow with the listing; that is also why cuts must be near: a segment far away
//! could not be listed to its end before its turn comes. Small listings are never cut, and neither are those
//! of stores that list out of order. Each segment must end at the key that the next one begins with. Where
//! it does not, or a key comes out of order after a cut, all is listed again in one piece, since a segment may
//! have ended too early: the stream says that the order is gone, and names come twice.

use std::collections::VecDeque;
use std::future::Future;
use std::ops::ControlFlow;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc;

use super::Message;
use super::course::{Batch, Course};
use super::ranks::Ranks;
use crate::error::{Error, ErrorKind, Result};
use crate::transport::{LIST, ListPage, PageStart};

/// Pages that are listed before the first cut: what has fewer is listed sooner than cut.
const FIRST_CUT_AFTER: u32 = 4;

/// Pages, as a multiple of the flights, whose keys tell how far apart guesses are.
const TRAIL: usize = 4;

/// How many times further than a segment's own keys tell, others' are believed.
const TRUST: u128 = 8;

/// Guesses in vain, after which a segment is left alone for as many pages as it should have.
const MAX_VAIN: u32 = 3;

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
    ranks: Ranks,
    /// The first key of each of the last pages that left.
    trail: VecDeque<String>,
    may_cut: bool,
    was_cut: bool,
    is_ordered: bool,
}

/// Learns of the keys of a page: of all at first, and then of some.
fn learn(ranks: &mut Ranks, page: &ListPage, is_known: bool) {
    let every = if is_known { (page.objects.len() / 4).max(1) } else { 1 };
    page.objects.iter().step_by(every).for_each(|object| ranks.learn(&object.key));
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
    /// Whether its end is not where it would have been put by a guess from its beginning.
    is_open: bool,
    /// The first key of it that came.
    first: Option<String>,
    /// Pages that came.
    pages: u32,
    /// Guesses that were in vain, one after the other.
    vain: u32,
    /// A key that must be in it.
    expects: Option<String>,
}

/// What a page was asked for.
enum Flight {
    Next { id: u64 },
    Cut { id: u64, at: String, is_near: bool, course: Course, until: Option<String> },
}

impl<P: Pages> Split<P> {
    /// By so many requests at a time; one means that nothing is cut.
    pub(super) fn new(pages: P, scope: Scope, most_flights: usize) -> Self {
        let course = scope.course(scope.after.clone(), None);
        let first = Segment::new(0, course, None, FIRST_CUT_AFTER);
        let ranks = Ranks::new(&scope.prefix);
        Self {
            pages,
            scope,
            segments: VecDeque::from([first]),
            flights: FuturesUnordered::new(),
            next_id: 1,
            most_flights,
            ranks,
            trail: VecDeque::new(),
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
                        if self.may_cut && let Some(first) = batch.items.first() {
                            if self.trail.len() > TRAIL * self.most_flights {
                                self.trail.pop_front();
                            }
                            self.trail.push_back(first.name().to_owned());
                        }
                        room.send(Message::Page(batch));
                    }
                }
                Some((flight, page)) = self.flights.next() => self.land(flight, page)?,
            }
        }
    }

    /// Pages that a segment should have: as many as are asked for at a time, so that a guess goes ahead of
    /// all that are.
    fn wanted_pages(&self) -> u32 {
        u32::try_from(self.most_flights).unwrap_or(u32::MAX)
    }

    /// Whether one more page may be ahead of who reads.
    fn has_room(&self) -> bool {
        let waiting: usize = self.segments.iter().map(|segment| segment.waiting.len()).sum();
        let most_pages = self.most_flights.saturating_mul(self.most_flights);
        waiting + self.flights.len() < most_pages && self.flights.len() < self.most_flights
    }

    /// Asks for what there is room for: a page behind a guess, and the next ones of the segments, the first
    /// ones first.
    fn depart(&mut self) {
        for index in 0..self.segments.len() {
            let head_lacks = index == 0 && self.segments[0].waiting.len() < 2;
            if !self.has_room() && !head_lacks {
                return;
            }
            let segment = &mut self.segments[index];
            if !segment.is_asked && !segment.is_over {
                segment.is_asked = true;
                let page = self.pages.page(segment.course.start().cloned());
                let flight = Flight::Next { id: segment.id };
                self.flights.push(Box::pin(async move { (flight, page.await) }));
            }
            if self.has_room() {
                self.cut(index);
            }
        }
    }

    /// Guesses where a segment is to be cut, if it is, and asks for what is there.
    fn cut(&mut self, index: usize) {
        let wanted = self.wanted_pages();
        let segment = &self.segments[index];
        if !self.may_cut || segment.is_over || segment.is_being_cut || segment.pages_until_cut > 0 {
            return;
        }
        // What a segment must have is found first.
        if segment.expects.is_some() || !segment.is_open && segment.pages < wanted {
            return;
        }
        let Some((at, is_near)) = segment.guess(&self.ranks, self.step(), wanted) else { return };
        let until = segment.until.clone();
        let course = self.scope.course(Some(at.clone()), until.clone());
        let page = self.pages.page(course.start().cloned());
        let flight = Flight::Cut { id: segment.id, at, is_near, course, until };
        self.flights.push(Box::pin(async move { (flight, page.await) }));
        self.segments[index].is_being_cut = true;
    }

    /// Takes in a page.
    fn land(&mut self, flight: Flight, page: Result<ListPage>) -> Result<()> {
        match flight {
            Flight::Next { id } => {
                let Some(index) = self.segments.iter().position(|it| it.id == id) else {
                    return Ok(());
                };
                let segment = &mut self.segments[index];
                let page = page?;
                if self.may_cut {
                    learn(&mut self.ranks, &page, self.was_cut);
                }
                let is_ordered = segment.take(page)?;
                let is_whole = segment.may_still_come();
                let meets = !segment.is_over || self.meets(index);
                if !is_ordered || !is_whole || !meets || !self.pages.keep_order() {
                    self.order_is_gone();
                }
            }
            Flight::Cut { id, at, is_near, course, until } => {
                self.land_cut(id, (at, is_near), course, until, page);
            }
        }
        Ok(())
    }

    /// What lies behind `at` in a segment.
    fn land_cut(
        &mut self,
        id: u64,
        (at, is_near): (String, bool),
        course: Course,
        until: Option<String>,
        page: Result<ListPage>,
    ) {
        let wanted = self.wanted_pages();
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
        learn(&mut self.ranks, &page, true);
        let mut cut = Segment::new(self.next_id, course, until, 0);
        match cut.take(page) {
            Ok(true) => {}
            Ok(false) => return self.order_is_gone(),
            Err(_) => return self.may_cut = false,
        }
        let has_passed = segment.course.last().is_some_and(|last| last >= at.as_str());
        if segment.is_over || has_passed || segment.expects.is_some() {
            segment.was_in_vain(None, wanted);
            return;
        }
        if cut.waiting.is_empty() {
            // A page may be empty although others follow.
            segment.was_in_vain(cut.is_over.then_some(at), wanted);
            return;
        }
        segment.end_at(at);
        segment.is_open = !is_near;
        self.next_id += 1;
        self.was_cut = true;
        self.segments.insert(index + 1, cut);
        if self.segments[index + 1].is_over && !self.meets(index + 1) {
            self.order_is_gone();
        }
    }

    /// How far apart guesses are.
    fn step(&self) -> Option<u128> {
        let (first, last) = (self.trail.front()?, self.trail.back()?);
        let span = self.ranks.of(last).checked_sub(self.ranks.of(first))?;
        let pages = self.trail.len().checked_sub(1).filter(|pages| *pages > 0)?;
        Some(span.checked_mul(self.most_flights as u128)? / pages as u128)
    }

    /// A segment that ended met what comes behind it: that must be what the next one begins with, or else
    /// the store has another order than the names have.
    fn meets(&mut self, index: usize) -> bool {
        let Some(next) = self.segments.get(index + 1) else { return true };
        let Some(behind) = self.segments[index].course.behind() else { return false };
        if next.first.as_deref() == Some(behind) {
            return true;
        }
        let behind = behind.to_owned();
        let next = &mut self.segments[index + 1];
        next.expects = Some(behind);
        next.may_still_come()
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
            is_open: true,
            first: None,
            pages: 0,
            vain: 0,
            expects: None,
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
        self.pages += 1;
        if self.first.is_none() {
            self.first = batch.items.first().map(|item| item.name().to_owned());
        }
        if !batch.items.is_empty() {
            self.waiting.push_back(batch);
        }
        Ok(is_ordered)
    }

    /// Whether what it must have came, or may still come. All of it is waiting, as what comes before it
    /// has just ended.
    fn may_still_come(&mut self) -> bool {
        let Some(expected) = &self.expects else { return true };
        let mut names = self.waiting.iter().flat_map(|batch| &batch.items);
        if names.any(|item| item.name() == expected) {
            self.expects = None;
            return true;
        }
        let has_passed = self.course.last().is_some_and(|last| last >= expected.as_str());
        let ends_before = self.until.as_ref().is_some_and(|until| until < expected);
        !self.is_over && !has_passed && !ends_before
    }

    /// What is behind `at` is somebody else's from now on.
    fn end_at(&mut self, at: String) {
        self.course.end_at(at.clone());
        self.ceiling = Some(at.clone());
        self.until = Some(at);
        self.vain = 0;
    }

    /// A guess came to nothing; there is nothing behind `ceiling`.
    fn was_in_vain(&mut self, ceiling: Option<String>, wanted: u32) {
        if ceiling.is_some() {
            self.ceiling = ceiling;
        }
        self.vain += 1;
        if self.vain >= MAX_VAIN {
            self.vain = 0;
            self.pages_until_cut = wanted;
        }
    }

    /// A key to cut it at, and whether that is as far from its beginning as guesses are; else it is half-way to
    /// its end. `None` where there is none between.
    fn guess(&self, ranks: &Ranks, step: Option<u128>, wanted: u32) -> Option<(String, bool)> {
        let (first, last) = (self.first.as_deref()?, self.course.last()?);
        let (begun, now) = (ranks.of(first), ranks.of(last));
        let by_itself = now.saturating_sub(begun).checked_mul(u128::from(wanted))?
            / u128::from(self.pages.max(1));
        let step = step.unwrap_or(by_itself).min(by_itself.saturating_mul(TRUST)).max(1);
        let near = begun.checked_add(step)?;
        let near = if self.is_open && near > now { near } else { now.checked_add(step)? };
        let end = self.ceiling.as_deref().map(|ceiling| ranks.of(ceiling));
        let (goal, is_near) = match end {
            Some(end) if near >= end => (now + end.saturating_sub(now) / 2, false),
            _ => (near, true),
        };
        let key = ranks.key(goal);
        let is_between = key.as_str() > last
            && self.ceiling.as_deref().is_none_or(|ceiling| key.as_str() < ceiling)
            && key.len() <= MAX_KEY_BYTES;
        is_between.then_some((key, is_near))
    }
}

/// The longest key there is, in bytes.
const MAX_KEY_BYTES: usize = 1024;

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
        keys: Arc<Vec<String>>,
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
            let (prefix, keys) = (prefix.to_owned(), keys.iter());
            let keys = keys.filter(|key| key.starts_with(&prefix)).cloned().collect();
            let mut model = Self {
                prefix,
                keys: Arc::new(keys),
                page_size,
                habits,
                asked,
                at_once,
                most_at_once,
            };
            let mut keys = model.keys.to_vec();
            keys.sort_by(|one, other| model.rank(one).cmp(&model.rank(other)));
            model.keys = Arc::new(keys);
            model
        }

        /// In the order of the model.
        fn rank<'a>(&self, key: &'a str) -> (bool, &'a str) {
            (self.habits.puts_last.is_some_and(|it| key.starts_with(it)), key)
        }

        fn list(&self, start: Option<&PageStart>) -> ListPage {
            let from = match start {
                Some(PageStart::Token(key)) => Some(key),
                Some(PageStart::After(key)) if !self.habits.ignores_start => Some(key),
                _ => None,
            };
            let is_before =
                |key: &String| from.is_some_and(|from| self.rank(key) <= self.rank(from));
            let rest = &self.keys[self.keys.partition_point(is_before)..];
            let (keys, rest) = rest.split_at(self.page_size.min(rest.len()));
            let token = keys.last().filter(|_| !rest.is_empty() && !self.habits.without_tokens);
            let object = |key: &String| ListedObject { key: key.clone(), ..Default::default() };
            ListPage {
                objects: keys.iter().map(object).collect(),
                prefixes: Vec::new(),
                is_truncated: !rest.is_empty(),
                token: token.cloned(),
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
        #![proptest_config(ProptestConfig::with_cases(64))]

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
    }

    #[test]
    fn many_keys_are_listed_by_many_requests_and_few_by_one_at_a_time() {
        let numbered = |count| (0..count).map(|it| format!("d{:04}/f{:03}", it / 100, it % 100));
        let few = Model::new(&numbered(40).collect(), "", 10, Habits::default());
        assert_eq!(listed(&few, None).expect("a listing").0.len(), 40);
        assert_eq!(few.most_at_once.load(Ordering::Relaxed), 1);
        assert_eq!(few.asked.load(Ordering::Relaxed), 4);
        let many = Model::new(&numbered(10_000).collect(), "", 10, Habits::default());
        assert_eq!(listed(&many, None).expect("a listing").0.len(), 10_000);
        assert!(many.most_at_once.load(Ordering::Relaxed) > MOST / 2);
        // 1,000 pages, and what was asked for in vain.
        let asked = many.asked.load(Ordering::Relaxed);
        assert!(asked < 1_500, "{asked}");
    }
}
