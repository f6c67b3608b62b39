//! The parts in flight of one session: who may start, and how many at once.
//!
//! All transfers of a session share one window, because they share the path to the store and its
//! patience; a transfer that was given a number of its own has a window of its own. Admission is in
//! the order of asking, so a large object cannot starve a small one. Where the slots become fewer, the
//! parts that came last wait in the middle of what they do ([`Turn`]). It takes a slot and, from the
//! [budget](MEMORY_UNIT_BYTES), the memory that the part will hold. How many slots there are is the
//! [`Controller`]'s to say, from what was moved meanwhile. When a store asks for fewer requests the
//! slots are halved and, since a store counts requests and not parts in flight, their rate is kept
//! under what it took ([`Pace`]).

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::Lanes;
use super::control::{Controller, Sample};
use super::pace::Pace;
use crate::flow::Meter;
use crate::turn::{Gate, Turn};

/// Refusals that come closer together than this are of one burst: longer than a round trip to any
/// place on earth, with some time for the store.
const BURST: Duration = Duration::from_secs(1);

/// After a refusal it takes this long until the store is taken to have forgotten it.
const CALM: Duration = Duration::from_secs(10);

const NEVER_CLOSED: &str = "the window's semaphores are never closed";

/// The share of the time that parts waited for memory above which memory is what limits.
const STARVED: f64 = 0.5;

/// Memory is counted in these: a semaphore's count fits 32 bits.
const MEMORY_UNIT_BYTES: u64 = 4096;

/// The share of the slots that must have been in use for a measurement to say something of their
/// number: between two parts a slot is free for a moment.
const FULL: f64 = 0.85;

/// The share of their time that the lanes run, or wait for a processor, above which the processors
/// are what limits.
const BUSY: f64 = 0.85;

/// The share of the time that a measurement should take for which it may be taken.
const LONG_ENOUGH: f64 = 0.7;

/// A store that answers its first request within this, the connection's opening included, is on this machine
/// or next to it: Amazon's take 20 ms and more.
const NEAR: Duration = Duration::from_millis(8);

/// Parts of a stream from there to begin with, for each lane.
const NEAR_PARTS: usize = 2;

/// Whether a store whose first answer took so long is on this machine or next to it.
pub(crate) fn is_near(answered_after: Duration) -> bool {
    answered_after <= NEAR
}

/// What bounds a session's parts in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Parts, at least 1.
    pub(crate) parts: usize,
    /// Memory of all of them, bytes.
    pub(crate) memory_bytes: u64,
}

/// Whether parts may start. Cheap to clone; the clones are one window.
#[derive(Debug, Clone)]
pub(crate) struct Window(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    slots: Arc<Semaphore>,
    memory: Arc<Semaphore>,
    memory_units: u32,
    max_parts: usize,
    meter: Meter,
    pace: Pace,
    gate: Arc<Gate>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    controller: Controller,
    /// Slots that were taken away while they were in use, and go when they are given back.
    owed: usize,
    /// Those in flight, numbered as they came.
    in_flight: BTreeSet<u64>,
    came: u64,
    /// Those that have a slot and wait for memory.
    out_of_memory: usize,
    throttled_at: Option<Instant>,
    /// Parts that stood still since one was done.
    stalls: usize,
    part_time: Duration,
    /// Size of the part that came last; 0 where parts have no size in common.
    part_bytes: u64,
    measurement: Measurement,
}

#[derive(Debug)]
struct Measurement {
    begins: Instant,
    ends: Instant,
    /// When the last one ended.
    since: Instant,
    moved_bytes: Option<u64>,
    /// Processor time that the lanes had wanted by then.
    busy: Duration,
    /// Parts in flight times seconds, up to `counted_at`; those that wait for memory included.
    occupied_s: f64,
    /// Seconds in which some part waited for memory.
    starved_s: f64,
    counted_at: Instant,
}

/// A part's right to be under way, given back when dropped.
#[derive(Debug)]
pub(crate) struct Admission {
    slot: Option<OwnedSemaphorePermit>,
    memory: Option<OwnedSemaphorePermit>,
    window: Window,
    number: u64,
    since: Instant,
}

/// Memory of the budget, given back when dropped.
#[derive(Debug)]
pub(crate) struct Memory {
    _permit: Option<OwnedSemaphorePermit>,
}

impl Window {
    /// A window that finds its own size within `bounds`, by what `meter` counts.
    pub(crate) fn adaptive(bounds: Bounds, meter: Meter) -> Self {
        Self::new(bounds, meter)
    }

    /// One of this one's budget and pace, with so many parts at most.
    pub(crate) fn fixed(&self, parts: usize) -> Self {
        let controller = Controller::fixed(parts.min(self.0.max_parts));
        let slots = Arc::new(Semaphore::new(controller.limit()));
        Self(Arc::new(Inner {
            slots,
            memory: Arc::clone(&self.0.memory),
            memory_units: self.0.memory_units,
            max_parts: self.0.max_parts,
            meter: self.0.meter.clone(),
            pace: self.0.pace.clone(),
            gate: Arc::default(),
            state: Mutex::new(State::new(controller)),
        }))
    }

    fn new(bounds: Bounds, meter: Meter) -> Self {
        let controller = Controller::new(bounds.parts);
        let units =
            u32::try_from(bounds.memory_bytes / MEMORY_UNIT_BYTES).unwrap_or(u32::MAX).max(1);
        // More than a semaphore can count is no bound.
        let units = units.min(u32::try_from(Semaphore::MAX_PERMITS).unwrap_or(u32::MAX));
        Self(Arc::new(Inner {
            slots: Arc::new(Semaphore::new(controller.limit())),
            memory: Arc::new(Semaphore::new(units as usize)),
            memory_units: units,
            max_parts: bounds.parts,
            meter,
            pace: Pace::default(),
            gate: Arc::default(),
            state: Mutex::new(State::new(controller)),
        }))
    }

    /// Ranges are about to be asked for that go to memory or to a reader, after a first answer that took so
    /// long. From a store that answers at once, few connections bring what this machine can take in, and more
    /// of them only keep what waits out of the processors' cache: with two for each of two lanes, a stream took
    /// a fifth less CPU time than with eight, and a file in memory a seventh. Where that is not enough, it is
    /// found out as ever.
    pub(crate) fn begins_nearby(&self, lanes: &Lanes, answered_after: Duration) {
        if !is_near(answered_after) {
            return;
        }
        let mut state = self.state();
        let before = state.controller.limit();
        state.controller.begin_with(NEAR_PARTS * lanes.count());
        self.resize(&mut state, before);
    }

    /// Waits for a slot and for `memory_bytes`. What needs more than the whole budget is admitted
    /// when it is alone: a part that is too large for it must still move.
    pub(crate) async fn admit(&self, memory_bytes: u64) -> Admission {
        let inner = &self.0;
        // The slot first: who waits for memory must not be passed by those who need less.
        let slot = Arc::clone(&inner.slots).acquire_owned().await.expect(NEVER_CLOSED);
        let (number, since) = self.enters();
        let window = self.clone();
        let mut admission = Admission { slot: Some(slot), memory: None, window, number, since };
        if memory_bytes > 0 {
            admission.hold(memory_bytes).await;
        }
        // The wait for memory is not the part's.
        admission.since = Instant::now();
        admission
    }

    fn enters(&self) -> (u64, Instant) {
        let now = Instant::now();
        let mut state = self.state();
        state.count(now);
        if state.in_flight.is_empty() {
            // A measurement of nothing, or of connections that are only being opened.
            let (latency, part) = (self.0.meter.latency(), state.part_time);
            let (settle, measure) = state.controller.timing(latency, part);
            state.measurement = Measurement::in_a_while(now, settle, measure);
        }
        let number = state.came;
        state.came += 1;
        state.in_flight.insert(number);
        (number, now)
    }

    /// Parts of this size are to be admitted.
    pub(crate) fn moves_parts_of(&self, bytes: u64) {
        self.state().part_bytes = bytes;
    }

    /// Memory beside that of the parts that were admitted, where some is left.
    pub(crate) fn spare(&self, bytes: u64) -> Option<Memory> {
        let units = u32::try_from(bytes.div_ceil(MEMORY_UNIT_BYTES)).ok()?;
        let permit = Arc::clone(&self.0.memory).try_acquire_many_owned(units).ok()?;
        Some(Memory { _permit: Some(permit) })
    }

    /// Waits until the store is likely to take one more request. Returns how long that was.
    pub(crate) async fn paced(&self) -> Duration {
        self.0.pace.wait().await
    }

    /// Whether the store asked for fewer requests, lately.
    pub(super) fn is_throttled(&self) -> bool {
        let at = self.state().throttled_at;
        at.is_some_and(|at| at.elapsed() < CALM)
    }

    /// The whole budget, bytes.
    pub(crate) fn memory_bytes(&self) -> u64 {
        u64::from(self.0.memory_units) * MEMORY_UNIT_BYTES
    }

    /// Parts that may be in flight now.
    pub(crate) fn limit(&self) -> usize {
        self.state().controller.limit()
    }

    /// Whether more parts would have brought more, had its bounds let it.
    pub(crate) fn wants_more(&self) -> bool {
        self.state().controller.wants_more()
    }

    /// The store asked for fewer requests.
    pub(crate) fn throttled(&self, now: Instant) {
        self.0.pace.throttled(now);
        let mut state = self.state();
        if state.throttled_at.is_some_and(|at| now.duration_since(at) < BURST) {
            return;
        }
        state.throttled_at = Some(now);
        let before = state.controller.limit();
        state.controller.throttled();
        self.resize(&mut state, before);
    }

    /// A part's connection stood still. One may have any reason; where half of the parts in flight do and
    /// none is done, there are too many of them for the line.
    pub(crate) fn stalled(&self) {
        let mut state = self.state();
        state.stalls += 1;
        let before = state.controller.limit();
        if 2 * state.stalls >= before.max(2) {
            state.stalls = 0;
            state.controller.throttled();
            self.resize(&mut state, before);
        }
    }

    /// The store took a request.
    pub(crate) fn taken(&self) {
        self.0.pace.succeeded(Instant::now());
    }

    /// A part, or a whole small object, is done.
    pub(crate) fn succeeded(&self) {
        let mut state = self.state();
        state.stalls = 0;
        let before = state.controller.limit();
        let took = state.part_time;
        if state.controller.succeeded(took) {
            self.resize(&mut state, before);
            // What there was before says little of what there is now.
            let (settle, measure) = state.controller.timing(self.0.meter.latency(), took);
            state.measurement = Measurement::in_a_while(Instant::now(), settle, measure);
        }
    }

    /// Looks at what was moved, if it is time to, and gives the moment to look again.
    pub(crate) fn look(&self, now: Instant, lanes: &Lanes) -> Instant {
        let mut state = self.state();
        let state = &mut *state;
        let measurement = &mut state.measurement;
        if now < measurement.begins {
            return measurement.begins;
        }
        let moved = self.0.meter.moved_bytes();
        let Some(before) = measurement.moved_bytes else {
            let length = measurement.ends - measurement.begins;
            measurement.moved_bytes = Some(moved);
            measurement.busy = lanes.demand();
            (measurement.begins, measurement.ends) = (now, now + length);
            (measurement.occupied_s, measurement.starved_s) = (0.0, 0.0);
            measurement.counted_at = now;
            return measurement.ends;
        };
        if now < measurement.ends {
            return measurement.ends;
        }
        state.count(now);
        let busy = lanes.demand();
        let measurement = &mut state.measurement;
        let seconds = (now - measurement.begins).as_secs_f64();
        let limit = state.controller.limit();
        let goodput = moved.saturating_sub(before) as f64 / seconds;
        // At this rate, all of those in flight take as long as one of them.
        let part_time = match state.part_bytes {
            0 => state.part_time,
            bytes => Duration::try_from_secs_f64(limit as f64 * bytes as f64 / goodput)
                .unwrap_or(Duration::MAX),
        };
        let latency = self.0.meter.latency();
        let (_, measure) = state.controller.timing(latency, part_time);
        if seconds < LONG_ENOUGH * measure.as_secs_f64() {
            // The slower the line, the longer it takes to know it.
            measurement.ends = measurement.begins + measure;
            return measurement.ends;
        }
        let sample = Sample {
            goodput,
            seconds,
            part_bytes: state.part_bytes as f64,
            was_full: measurement.occupied_s >= FULL * limit as f64 * seconds,
            was_busy: {
                let busy = busy.saturating_sub(measurement.busy).as_secs_f64();
                busy >= BUSY * seconds * lanes.count() as f64
            },
            was_out_of_memory: measurement.starved_s >= STARVED * seconds,
        };
        let elapsed = now - measurement.since;
        let changed = state.controller.measured(sample, elapsed);
        let (settle, measure) = state.controller.timing(latency, part_time);
        let begins = if changed { now + settle } else { now };
        state.measurement = Measurement {
            begins,
            ends: begins + measure,
            since: now,
            moved_bytes: (!changed).then_some(moved),
            busy,
            occupied_s: 0.0,
            starved_s: 0.0,
            counted_at: now,
        };
        let next = if changed { begins } else { begins + measure };
        self.resize(state, limit);
        next
    }

    /// Makes as many slots as the controller says, `before` being how many there were.
    fn resize(&self, state: &mut State, before: usize) {
        let after = state.controller.limit();
        if after > before {
            let more = after - before;
            let kept = more.min(state.owed);
            state.owed -= kept;
            self.0.slots.add_permits(more - kept);
        } else {
            let fewer = before - after;
            state.owed += fewer - self.0.slots.forget_permits(fewer);
        }
        self.regulate(state);
    }

    /// Has those wait that came last, where more are in flight than there should be.
    fn regulate(&self, state: &State) {
        let limit = state.controller.limit();
        let waits = state.in_flight.len() > limit && state.controller.has_others_wait();
        let first = if waits { state.in_flight.iter().nth(limit).copied() } else { None };
        self.0.gate.open_before(first);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Window {
    /// Without bounds that anything would meet: for requests that are not parts, and for tests.
    fn default() -> Self {
        let bounds = Bounds { parts: 1024, memory_bytes: u64::MAX };
        Self::adaptive(bounds, Meter::default())
    }
}

impl State {
    fn new(controller: Controller) -> Self {
        let (settle, measure) = controller.timing(Duration::ZERO, Duration::ZERO);
        Self {
            controller,
            owed: 0,
            in_flight: BTreeSet::new(),
            came: 0,
            out_of_memory: 0,
            throttled_at: None,
            stalls: 0,
            part_time: Duration::ZERO,
            part_bytes: 0,
            measurement: Measurement::in_a_while(Instant::now(), settle, measure),
        }
    }

    /// Counts what was in flight up to now, before that changes.
    fn count(&mut self, now: Instant) {
        let measurement = &mut self.measurement;
        let seconds = now.saturating_duration_since(measurement.counted_at).as_secs_f64();
        measurement.occupied_s += seconds * self.in_flight.len() as f64;
        if self.out_of_memory > 0 {
            measurement.starved_s += seconds;
        }
        measurement.counted_at = measurement.counted_at.max(now);
    }
}

impl Measurement {
    /// One that begins when things have settled.
    fn in_a_while(now: Instant, settle: Duration, measure: Duration) -> Self {
        Self {
            begins: now + settle,
            ends: now + settle + measure,
            since: now,
            moved_bytes: None,
            busy: Duration::ZERO,
            occupied_s: 0.0,
            starved_s: 0.0,
            counted_at: now,
        }
    }
}

impl Admission {
    /// The part's place among those in flight.
    pub(crate) fn turn(&self) -> Turn {
        Turn::new(&self.window.0.gate, self.number)
    }

    /// Waits for so much memory, for one that has none yet. Who holds some and waited for more could wait
    /// for itself.
    pub(crate) async fn hold(&mut self, bytes: u64) {
        debug_assert!(self.memory.is_none(), "memory is asked for once");
        let inner = &self.window.0;
        let units = u32::try_from(bytes.div_ceil(MEMORY_UNIT_BYTES)).unwrap_or(u32::MAX);
        let units = units.min(inner.memory_units);
        let memory = Arc::clone(&inner.memory);
        if let Ok(memory) = Arc::clone(&memory).try_acquire_many_owned(units) {
            self.memory = Some(memory);
            return;
        }
        let _waiting = OutOfMemory::since_now(&self.window);
        self.memory = Some(memory.acquire_many_owned(units).await.expect(NEVER_CLOSED));
    }

    /// Gives the slot back and keeps the memory: what was fetched waits for its turn.
    pub(crate) fn fetched(mut self) -> Memory {
        Memory { _permit: self.memory.take() }
    }

    fn give_back(&mut self) {
        let Some(slot) = self.slot.take() else { return };
        let now = Instant::now();
        let mut state = self.window.state();
        state.count(now);
        state.in_flight.remove(&self.number);
        let took = now - self.since;
        state.part_time = match state.part_time {
            Duration::ZERO => took,
            // The last one's weight is a quarter: parts are alike, and conditions change.
            before => (3 * before + took) / 4,
        };
        if state.owed > 0 {
            state.owed -= 1;
            slot.forget();
        }
        self.window.regulate(&state);
    }
}

/// A part that waits for memory, for as long as it does.
struct OutOfMemory<'a>(&'a Window);

impl<'a> OutOfMemory<'a> {
    fn since_now(window: &'a Window) -> Self {
        let mut state = window.state();
        state.count(Instant::now());
        state.out_of_memory += 1;
        Self(window)
    }
}

impl Drop for OutOfMemory<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.count(Instant::now());
        state.out_of_memory -= 1;
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Meter;
    use crate::limits::MIB;

    fn window(parts: usize, memory_bytes: u64) -> Window {
        Window::adaptive(Bounds { parts, memory_bytes }, Meter::default())
    }

    async fn is_admitted(window: &Window, bytes: u64) -> Option<Admission> {
        tokio::time::timeout(Duration::from_millis(20), window.admit(bytes)).await.ok()
    }

    #[tokio::test]
    async fn slots_and_memory_are_bounded() {
        let by_slots = window(2, u64::MAX);
        let (one, _two) = (by_slots.admit(1).await, by_slots.admit(1).await);
        assert!(is_admitted(&by_slots, 1).await.is_none());
        drop(one);
        assert!(is_admitted(&by_slots, 1).await.is_some());

        let by_memory = window(16, 10 * MIB);
        let one = by_memory.admit(6 * MIB).await;
        assert!(is_admitted(&by_memory, 6 * MIB).await.is_none());
        let kept = one.fetched();
        assert!(is_admitted(&by_memory, 6 * MIB).await.is_none());
        drop(kept);
        assert!(is_admitted(&by_memory, 6 * MIB).await.is_some());
        // What is larger than all of it goes alone.
        let large = is_admitted(&by_memory, 600 * MIB).await.expect("alone");
        assert!(is_admitted(&by_memory, 1).await.is_none());
        drop(large);
        assert!(is_admitted(&by_memory, 1).await.is_some());
    }

    #[tokio::test]
    async fn slots_that_are_in_use_go_when_they_are_given_back() {
        let window = window(4, u64::MAX);
        let mut admitted = Vec::new();
        for _ in 0..4 {
            admitted.push(window.admit(1).await);
        }
        window.throttled(Instant::now());
        // Of one burst.
        window.throttled(Instant::now());
        assert_eq!(window.limit(), 2);
        drop(admitted.pop());
        drop(admitted.pop());
        assert!(is_admitted(&window, 1).await.is_none());
        drop(admitted.pop());
        admitted.push(is_admitted(&window, 1).await.expect("a slot of two"));
        // Two successes let a third one in, three more the fourth.
        for limit in [2, 3, 3, 3, 4, 4] {
            window.succeeded();
            assert_eq!(window.limit(), limit);
        }
        admitted.push(is_admitted(&window, 1).await.expect("a third"));
        admitted.push(is_admitted(&window, 1).await.expect("a fourth"));
        assert!(is_admitted(&window, 1).await.is_none());
    }

    #[tokio::test]
    async fn it_grows_while_that_brings_more() {
        let lanes = Lanes::start(1).expect("a thread");
        let meter = Meter::default();
        let window = Window::adaptive(Bounds { parts: 256, memory_bytes: u64::MAX }, meter.clone());
        let mut admitted = Vec::new();
        let mut limits = Vec::new();
        let begun = Instant::now();
        for step in 0..600 {
            while admitted.len() < window.limit() {
                admitted.push(window.admit(1).await);
            }
            admitted.truncate(window.limit());
            // 1 MB/s each, 50 in all.
            meter.moved(10_000 * (admitted.len() as u64).min(50));
            window.look(begun + step * Duration::from_millis(10), &lanes);
            if limits.last() != Some(&window.limit()) {
                limits.push(window.limit());
            }
        }
        assert_eq!(limits[..6], [4, 8, 16, 32, 64, 128]);
        assert_eq!(window.limit(), 64, "{limits:?}");
    }

    #[tokio::test]
    async fn those_that_came_last_wait_where_fewer_are_enough() {
        let lanes = Lanes::start(1).expect("a thread");
        let meter = Meter::default();
        let window = Window::adaptive(Bounds { parts: 256, memory_bytes: u64::MAX }, meter.clone());
        let mut admitted = Vec::new();
        let begun = Instant::now();
        for step in 0..300 {
            while admitted.len() < window.limit() {
                admitted.push(window.admit(1).await);
            }
            // A line that one of them fills.
            meter.moved(10_000);
            window.look(begun + step * Duration::from_millis(10), &lanes);
        }
        assert_eq!((admitted.len(), window.limit()), (8, 2));
        let have_come = |admitted: &[Admission]| -> Vec<bool> {
            admitted.iter().map(|admission| admission.turn().has_come()).collect()
        };
        assert_eq!(have_come(&admitted)[..4], [true, true, false, false]);
        admitted.remove(0);
        assert_eq!(have_come(&admitted)[..4], [true, true, false, false]);
        admitted.truncate(1);
        // No other is let in before there are fewer than two.
        let next = is_admitted(&window, 1).await.expect("a slot");
        assert!(next.turn().has_come());
        // Where a store asks for fewer requests, those under way have been counted.
        window.throttled(Instant::now());
        assert!(next.turn().has_come());
    }
}
