//! How many parts shall be in flight: a closed loop over what they bring.
//!
//! The quantity that is steered by is goodput itself, payload bytes a second. Latency, which TCP Vegas
//! and gradient limiters steer by, says little here: a part's time is mostly its own transfer, and
//! grows with every part that shares the path whether or not the path is full. As BBR does, the loop
//! begins by doubling while that brings more, then holds, and from time to time asks for a little more
//! to see whether the path has changed. What decides is how much more it brought: proportionally
//! more says that connections are the limit, a little more that it is noise.
//!
//! What is in flight is what a kill costs, so it begins with few, and whenever more brought nothing it
//! looks whether fewer would do. Where parts are done in no time, more of them cost nothing: each then
//! lets in one more, without any measurement.
//!
//! This is the arithmetic alone; [`window`](super::window) has the clock and the counters.

use std::time::Duration;

/// Parts in flight to begin with: as much as a thin line is given before it is known to be thin.
pub(crate) const FIRST_LIMIT: usize = 4;

/// A part that is done within this lets one more in, at the beginning: so much of the time that a
/// transfer takes is what a kill costs then.
const QUICK: Duration = Duration::from_millis(500);
/// So many at most. Enough to fill 10 Gbit/s at the 85–90 MB/s that AWS gives one connection, and on
/// loopback more than two cores need.
const QUICK_LIMIT: usize = 16;

/// Fewer than these are not tried: while one part is summed, or waits for its answer, another should move.
const FEWEST: usize = 2;
/// Where a part takes longer than this, more are not tried before one is done, for they would hold up all; and
/// what passes between two parts is nothing beside it, so even one may be enough.
const SLOW_S: f64 = 10.0;
/// Fewer are enough where they bring this share of what more did; noise seldom lets half of the parts look
/// so that bring less.
const ENOUGH: f64 = 0.95;

/// The share of a proportional gain that counts as one: twice the parts have to bring a fifth more, which
/// no noise does.
const WORTHWHILE_RISE: f64 = 0.2;
/// And a quarter more parts an eighth more, for the same reason.
const WORTHWHILE_PROBE: f64 = 0.5;

/// Where fewer are tried, what the others had handed over before has to leave first.
const SETTLE_FEWER: Duration = Duration::from_millis(300);
/// What a new connection has taken of a part and not sent, at most, in bytes: two frames, about, in hyper's
/// buffer and in the kernel's. Over a thin line that looks like much. And no more of a part than its share.
const HELD_BYTES: f64 = 524_288.0;
const HELD_SHARE: f64 = 0.125;
/// What is so much more is judged as a doubling is.
const STEEP: f64 = 0.75;

/// After a change, what is still under way of before is not measured: two round trips, an eighth of a
/// part's time up to the second of these, and at least the first.
const SETTLE: Duration = Duration::from_millis(100);
const SETTLE_SLOW: Duration = Duration::from_millis(500);
/// The shortest time that goodput is measured over.
const MEASURE: Duration = Duration::from_millis(250);
/// The longest, however long a part takes.
const MAX_MEASURE: Duration = Duration::from_millis(1500);
/// First pause between two probes; doubles while they bring nothing.
const FIRST_PATIENCE: Duration = Duration::from_secs(3);
const MAX_PATIENCE: Duration = Duration::from_secs(24);
/// Goodput that differs this much from what it was, for [`SHIFTED_TIMES`] measurements in a row, says
/// that the path is another one now.
const SHIFT: f64 = 0.3;
const SHIFTED_TIMES: u32 = 2;

/// What was seen over one measurement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// Payload bytes a second.
    pub(crate) goodput: f64,
    /// Over how long.
    pub(crate) seconds: f64,
    /// Size of a part; 0 where they have none in common.
    pub(crate) part_bytes: f64,
    /// Whether as many parts were in flight as were allowed, all the while: else it says nothing of
    /// the limit.
    pub(crate) was_full: bool,
    /// Whether this machine's processors had no time left for the lanes: more parts could only be in
    /// each other's way.
    pub(crate) was_busy: bool,
    /// Whether parts waited for memory most of the time: more slots would only wait as well.
    pub(crate) was_out_of_memory: bool,
}

/// Decides how many parts may be in flight.
#[derive(Debug)]
pub(crate) struct Controller {
    limit: usize,
    max: usize,
    /// Up to here quick parts let more in.
    quick_limit: usize,
    /// Size of a part, as it was told last.
    part_bytes: f64,
    /// Whether a part was done since more were tried.
    has_done: bool,
    phase: Phase,
    /// Whether more was worthwhile when last tried, and there was no more to be had.
    wants_more: bool,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    /// The goodput at this limit is not known yet.
    Unknown,
    /// Another number is being tried than `before` had.
    Trying { before: Known, patience: Duration, trial: Trial },
    /// Nothing is tried until `rest` has passed.
    Holding { known: Known, rest: Duration, patience: Duration, shifted: u32 },
    /// The store asked for less; one more is let in for each window's worth of successes, up to what
    /// there was.
    Recovering { ceiling: usize, successes: usize },
}

/// What is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trial {
    /// Twice as many, while rising.
    Double,
    /// A few more, from time to time afterwards.
    Add,
    /// Half as many, after twice as many brought nothing.
    Halve,
    /// A few less, after a few more brought nothing.
    Shed,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    limit: usize,
    goodput: f64,
}

impl Controller {
    /// Begins with [`FIRST_LIMIT`], or `max` where that is less; `max` is at least 1.
    pub(crate) fn new(max: usize) -> Self {
        let max = max.max(1);
        Self {
            limit: FIRST_LIMIT.min(max),
            max,
            quick_limit: QUICK_LIMIT.min(max),
            part_bytes: 0.0,
            has_done: false,
            phase: Phase::Unknown,
            wants_more: false,
        }
    }

    /// One that has a fixed limit, and only goes below it when a store asks for less.
    pub(crate) fn fixed(limit: usize) -> Self {
        let limit = limit.max(1);
        let known = Known { limit, goodput: 0.0 };
        let patience = Duration::MAX;
        let phase = Phase::Holding { known, rest: patience, patience, shifted: 0 };
        Self { limit, phase, ..Self::new(limit) }
    }

    /// Parts that may be in flight now.
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// Begins with no more than `limit`, where nothing was measured yet.
    pub(crate) fn begin_with(&mut self, limit: usize) {
        if matches!(self.phase, Phase::Unknown) {
            self.quick_limit = self.quick_limit.min(limit.max(1));
            self.limit = self.limit.min(self.quick_limit);
        }
    }

    /// Whether parts beyond the limit should wait until others are done. Not where a store asked for fewer
    /// requests: those that are under way have been counted.
    pub(crate) fn has_others_wait(&self) -> bool {
        !matches!(self.phase, Phase::Recovering { .. })
    }

    /// Whether more parts would have brought more, and its bound kept it from trying.
    pub(crate) fn wants_more(&self) -> bool {
        self.wants_more
    }

    /// How long to wait before the next measurement begins, and how long to measure, where an answer takes
    /// `latency` to begin and a part `part` in all.
    pub(crate) fn timing(&self, latency: Duration, part: Duration) -> (Duration, Duration) {
        let settle = (2 * latency).max((part / 8).min(SETTLE_SLOW)).clamp(SETTLE, MAX_MEASURE);
        let settle = match self.phase {
            Phase::Trying { trial: Trial::Halve | Trial::Shed, .. } => settle.max(SETTLE_FEWER),
            _ => settle,
        };
        // Half of a part shows enough where that is long, and not mostly waiting.
        let enough = (part / 2).max(QUICK).max(4 * latency);
        (settle, part.min(enough).max(2 * latency).clamp(MEASURE, MAX_MEASURE))
    }

    /// Takes a measurement that took `elapsed` in all. Says whether the limit changed.
    pub(crate) fn measured(&mut self, sample: Sample, elapsed: Duration) -> bool {
        // Where nothing moves, more parts are not what is missing.
        if !sample.was_full || sample.goodput <= 0.0 {
            return false;
        }
        let before = self.limit;
        self.part_bytes = sample.part_bytes;
        let now = Known { limit: self.limit, goodput: sample.goodput };
        match self.phase {
            _ if sample.was_busy && !matches!(self.phase, Phase::Trying { .. }) => {
                self.wants_more = false;
                if !matches!(self.phase, Phase::Recovering { .. }) {
                    self.hold(now, FIRST_PATIENCE);
                }
            }
            Phase::Unknown | Phase::Holding { .. } if sample.was_out_of_memory => {
                self.wants_more = true;
                self.hold(now, FIRST_PATIENCE);
            }
            Phase::Unknown if self.is_slow(now) && !self.has_done => {
                self.try_fewer(now, FIRST_PATIENCE, Trial::Halve);
            }
            Phase::Unknown => self.try_more(now, FIRST_PATIENCE, Trial::Double),
            Phase::Trying { before, patience, trial: trial @ (Trial::Double | Trial::Add) } => {
                let sent = Known { goodput: sample.sent(before.limit, now.limit), ..now };
                if sent.is_worthwhile_after(before, trial) && sample.was_busy {
                    self.hold(now, FIRST_PATIENCE);
                } else if sent.is_worthwhile_after(before, trial) {
                    self.try_more(now, FIRST_PATIENCE, trial);
                } else {
                    self.limit = before.limit;
                    self.wants_more = false;
                    self.try_fewer(before, patience, trial.opposite());
                }
            }
            Phase::Trying { before, patience, trial } => {
                if now.goodput < ENOUGH * before.goodput {
                    self.limit = before.limit;
                    self.hold(before, patience);
                } else {
                    // What more had brought stays the measure.
                    let known = Known { limit: now.limit, ..before };
                    self.try_fewer(known, patience, trial);
                }
            }
            Phase::Holding { known, rest, patience, shifted } => {
                self.held(known, now, rest.saturating_sub(elapsed), patience, shifted);
            }
            Phase::Recovering { .. } => {}
        }
        self.limit != before
    }

    /// The store asked for fewer requests: half as many, at least one.
    pub(crate) fn throttled(&mut self) {
        let ceiling = match self.phase {
            Phase::Recovering { ceiling, .. } => ceiling,
            _ => self.limit,
        };
        self.limit = (self.limit / 2).max(1);
        self.wants_more = false;
        self.phase = Phase::Recovering { ceiling, successes: 0 };
    }

    /// A part is done, that took so long. Says whether the limit changed.
    pub(crate) fn succeeded(&mut self, took: Duration) -> bool {
        self.has_done = true;
        if matches!(self.phase, Phase::Unknown) && took <= QUICK && self.limit < self.quick_limit {
            self.limit += 1;
            return true;
        }
        let Phase::Recovering { ceiling, successes } = &mut self.phase else { return false };
        *successes += 1;
        if *successes < self.limit {
            return false;
        }
        *successes = 0;
        let ceiling = *ceiling;
        if self.limit < ceiling {
            self.limit += 1;
        }
        if self.limit >= ceiling {
            // What it brings is to be seen, and no more is asked for any time soon.
            let known = Known { limit: self.limit, goodput: 0.0 };
            self.hold(known, MAX_PATIENCE);
        }
        true
    }

    fn held(&mut self, known: Known, now: Known, rest: Duration, patience: Duration, shifted: u32) {
        let is_known = known.goodput > 0.0;
        let has_shifted = is_known && (now.goodput / known.goodput - 1.0).abs() > SHIFT;
        let shifted = if has_shifted { shifted + 1 } else { 0 };
        if shifted >= SHIFTED_TIMES {
            return self.try_more(now, FIRST_PATIENCE, Trial::Double);
        }
        if rest.is_zero() && !has_shifted {
            return self.try_more(now, patience, Trial::Add);
        }
        // It follows slow changes.
        let goodput = match (is_known, has_shifted) {
            (false, _) => now.goodput,
            (true, true) => known.goodput,
            (true, false) => 0.75 * known.goodput + 0.25 * now.goodput,
        };
        let known = Known { goodput, ..now };
        self.phase = Phase::Holding { known, rest, patience, shifted };
    }

    fn try_more(&mut self, now: Known, patience: Duration, trial: Trial) {
        if self.is_slow(now) && !self.has_done {
            return self.hold(now, patience);
        }
        let more = trial.of(now.limit).min(self.max);
        if more <= now.limit {
            self.wants_more |= matches!(self.phase, Phase::Trying { .. });
            return self.hold(now, patience);
        }
        self.limit = more;
        self.has_done = false;
        self.phase = Phase::Trying { before: now, patience: double(patience), trial };
    }

    /// Whether fewer than `known` would do.
    fn try_fewer(&mut self, known: Known, patience: Duration, trial: Trial) {
        let fewer = trial.of(known.limit).max(1);
        let is_enough = fewer >= FEWEST || self.is_slow(known);
        if fewer >= known.limit || !is_enough {
            return self.hold(known, patience);
        }
        self.limit = fewer;
        self.phase = Phase::Trying { before: known, patience, trial };
    }

    /// Whether a part takes very long.
    fn is_slow(&self, now: Known) -> bool {
        now.limit as f64 * self.part_bytes > SLOW_S * now.goodput
    }

    fn hold(&mut self, known: Known, patience: Duration) {
        self.phase = Phase::Holding { known, rest: patience, patience, shifted: 0 };
    }
}

impl Sample {
    /// Goodput of `now` parts without what those more than `before` only hold. Quick ones had taken as much
    /// before it was measured.
    fn sent(&self, before: usize, now: usize) -> f64 {
        let part_seconds = now as f64 * self.part_bytes / self.goodput;
        let held = HELD_BYTES.min(HELD_SHARE * self.part_bytes) * (now - before) as f64;
        if part_seconds > QUICK.as_secs_f64() {
            self.goodput - held / self.seconds
        } else {
            self.goodput
        }
    }
}

impl Trial {
    fn factor(self) -> f64 {
        match self {
            Self::Double => 2.0,
            Self::Add => 1.25,
            Self::Halve => 0.5,
            Self::Shed => 0.8,
        }
    }

    /// So many instead of `limit`.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    fn of(self, limit: usize) -> usize {
        let other = limit as f64 * self.factor();
        if self.factor() > 1.0 { other.ceil() as usize } else { other as usize }
    }

    fn opposite(self) -> Self {
        match self {
            Self::Double => Self::Halve,
            _ => Self::Shed,
        }
    }
}

impl Known {
    /// Whether what there is now is worth the parts that it takes more than before.
    fn is_worthwhile_after(self, before: Self, trial: Trial) -> bool {
        let more = self.limit as f64 / before.limit as f64 - 1.0;
        // Of few, one more is a great deal.
        let is_steep = trial == Trial::Double || more > STEEP;
        let share = if is_steep { WORTHWHILE_RISE } else { WORTHWHILE_PROBE };
        self.goodput >= before.goodput * (1.0 + share * more)
    }
}

fn double(patience: Duration) -> Duration {
    patience.saturating_mul(2).min(MAX_PATIENCE)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A path where each connection brings so much, and all together no more than that.
    #[derive(Clone, Copy)]
    struct Path {
        each: f64,
        all: f64,
        part_bytes: f64,
        latency_s: f64,
        noise: f64,
    }

    impl Path {
        fn goodput(self, parts: usize) -> f64 {
            let busy = self.part_bytes / (self.part_bytes / self.each + self.latency_s);
            (parts as f64 * busy).min(self.all)
        }

        fn best(self) -> f64 {
            (1..=256).map(|parts| self.goodput(parts)).fold(0.0, f64::max)
        }

        fn part_time(self, parts: usize) -> Duration {
            Duration::from_secs_f64(self.part_bytes * parts as f64 / self.goodput(parts))
        }

        /// Steers for so long; gives the average goodput of what was left after `after_s`.
        fn run(self, controller: &mut Controller, seconds: f64, after_s: f64, seed: u64) -> f64 {
            let mut random = fastrand::Rng::with_seed(seed);
            let (mut now, mut moved, mut counted) = (0.0, 0.0, 0.0);
            while now < seconds {
                let parts = controller.limit();
                let latency = Duration::from_secs_f64(self.latency_s);
                let (settle, measure) = controller.timing(latency, self.part_time(parts));
                let elapsed = settle + measure;
                let noise = 1.0 + self.noise * (2.0 * random.f64() - 1.0);
                let goodput = self.goodput(parts) * noise;
                if now >= after_s {
                    moved += goodput * elapsed.as_secs_f64();
                    counted += elapsed.as_secs_f64();
                }
                now += elapsed.as_secs_f64();
                let part_time = self.part_time(parts);
                let done = goodput * elapsed.as_secs_f64() / self.part_bytes;
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
                let grew = (0..done as usize).filter(|_| controller.succeeded(part_time)).count();
                if grew == 0 {
                    let (seconds, part_bytes) = (measure.as_secs_f64(), self.part_bytes);
                    let sample = Sample { seconds, part_bytes, ..full(goodput) };
                    controller.measured(sample, elapsed);
                }
            }
            moved / counted
        }
    }

    const MB: f64 = 1e6;

    fn full(goodput: f64) -> Sample {
        Sample {
            goodput,
            seconds: 1.0,
            part_bytes: 0.0,
            was_full: true,
            was_busy: false,
            was_out_of_memory: false,
        }
    }

    fn paths() -> [(&'static str, Path); 6] {
        let path =
            |each, all, latency_s| Path { each, all, part_bytes: 8.4 * MB, latency_s, noise: 0.08 };
        [
            ("loopback", path(900.0 * MB, 1_800.0 * MB, 0.000_2)),
            ("an ocean", path(85.0 * MB, 1_500.0 * MB, 0.05)),
            ("an ocean and a fat pipe", path(85.0 * MB, 6_000.0 * MB, 0.05)),
            ("slow connections", path(20.0 * MB, 400.0 * MB, 0.005)),
            ("very slow ones", path(2.0 * MB, 100.0 * MB, 0.1)),
            ("a thin line", path(12.0 * MB, 12.0 * MB, 0.02)),
        ]
    }

    #[test]
    fn it_finds_nine_tenths_of_the_best_within_five_seconds() {
        for (name, path) in paths() {
            for seed in 0..20 {
                let mut controller = Controller::new(256);
                // A transfer of a minute; the limit is five seconds.
                let brought = path.run(&mut controller, 60.0, 5.0, seed) / path.best();
                assert!(brought > 0.9, "{name}, {seed}: {brought} with {}", controller.limit());
            }
        }
    }

    #[test]
    fn it_does_not_run_away_with_noise() {
        for (name, path) in paths() {
            let enough = (1..256).find(|n| path.goodput(*n) >= 0.99 * path.best()).expect("some");
            for seed in 0..20 {
                let mut controller = Controller::new(256);
                path.run(&mut controller, 600.0, 0.0, seed);
                let most = 3 * enough.max(FIRST_LIMIT);
                assert!(controller.limit() <= most, "{name}: {} parts", controller.limit());
            }
        }
    }

    /// What is in flight is what a kill costs.
    #[test]
    fn few_are_in_flight_on_a_thin_line() {
        for seed in 0..20 {
            let thin = paths()[5].1;
            let mut controller = Controller::new(256);
            let brought = thin.run(&mut controller, 30.0, 0.0, seed) / thin.best();
            assert!(brought > 0.9, "{seed}: {brought}");
            let few = controller.limit();
            assert!(few <= FIRST_LIMIT, "{seed}: {few}");
            assert!(controller.has_others_wait());
        }
        for (rate, most) in [(2.5 * MB, 2), (0.5 * MB, 1)] {
            let thin = Path { each: rate, all: rate, noise: 0.02, ..paths()[5].1 };
            let mut controller = Controller::new(256);
            // Before any part is done.
            thin.run(&mut controller, 8.0, 0.0, 1);
            assert!(controller.limit() <= most + 1, "{}", controller.limit());
            let brought = thin.run(&mut controller, 300.0, 0.0, 1) / thin.best();
            assert!(brought > 0.9 && controller.limit() <= most + 1, "{}", controller.limit());
        }
        // A line that has become thin is found to be.
        let fat = paths()[1].1;
        let mut controller = Controller::new(256);
        fat.run(&mut controller, 30.0, 0.0, 1);
        let many = controller.limit();
        let thin = Path { all: 20.0 * MB, noise: 0.02, ..fat };
        thin.run(&mut controller, 30.0, 0.0, 2);
        assert!(controller.limit() <= many / 4, "{many}, then {}", controller.limit());
    }

    /// What new connections take off one's hands is not what a thin line brings.
    #[test]
    fn what_is_only_held_is_not_taken_for_sent() {
        let mut controller = Controller::new(256);
        let thin = Sample { part_bytes: 8.4 * MB, ..full(5.0 * MB) };
        assert!(controller.measured(thin, Duration::from_secs(2)));
        assert_eq!(controller.limit(), 8);
        assert!(controller.measured(Sample { goodput: 6.9 * MB, ..thin }, Duration::from_secs(2)));
        assert!(controller.limit() < 8, "{}", controller.limit());
    }

    #[test]
    fn quick_parts_let_more_in_before_anything_is_measured() {
        let mut controller = Controller::new(256);
        assert!(!controller.succeeded(2 * QUICK));
        let let_in = (0..100).filter(|_| controller.succeeded(QUICK)).count();
        assert_eq!((let_in, controller.limit()), (QUICK_LIMIT - FIRST_LIMIT, QUICK_LIMIT));
        let mut near = Controller::new(256);
        near.begin_with(3);
        assert!(!near.succeeded(QUICK));
        assert_eq!(Controller::new(3).limit(), 3);
    }

    #[test]
    fn it_notices_that_the_path_has_become_another() {
        let slow = Path { noise: 0.05, ..paths()[3].1 };
        let fast = Path { all: 4_000.0 * MB, ..slow };
        let mut controller = Controller::new(256);
        slow.run(&mut controller, 30.0, 0.0, 1);
        let narrow = controller.limit();
        let brought = fast.run(&mut controller, 90.0, 60.0, 2) / fast.best();
        assert!(brought > 0.9, "{brought}: {narrow}, then {}", controller.limit());
        // A third of the path is gone: what is in flight goes on to be enough.
        let thin = Path { all: 100.0 * MB, ..slow };
        let brought = thin.run(&mut controller, 30.0, 0.0, 3) / thin.best();
        assert!(brought > 0.9, "{brought}");
    }

    #[test]
    fn a_bound_is_kept_and_told() {
        let path = paths()[2].1;
        let mut controller = Controller::new(20);
        path.run(&mut controller, 30.0, 0.0, 1);
        assert_eq!((controller.limit(), controller.wants_more()), (20, true));
        let mut controller = Controller::new(256);
        paths()[5].1.run(&mut controller, 30.0, 0.0, 1);
        assert!(!controller.wants_more());
        assert_eq!(Controller::new(0).limit(), 1);
        let mut fixed = Controller::fixed(3);
        path.run(&mut fixed, 60.0, 0.0, 1);
        assert_eq!(fixed.limit(), 3);
    }

    #[test]
    fn few_are_only_a_beginning() {
        let path = paths()[3].1;
        let mut controller = Controller::new(256);
        controller.begin_with(3);
        assert_eq!(controller.limit(), 3);
        let brought = path.run(&mut controller, 30.0, 5.0, 1) / path.best();
        assert!(brought > 0.9, "{brought} with {}", controller.limit());
        // What is known by now stays.
        let found = controller.limit();
        controller.begin_with(4);
        assert_eq!(controller.limit(), found);
        let mut fixed = Controller::fixed(9);
        fixed.begin_with(4);
        assert_eq!(fixed.limit(), 9);
    }

    #[test]
    fn without_processors_more_parts_are_not_tried() {
        let mut controller = Controller::new(256);
        for goodput in [1.0, 2.0, 4.0, 8.0] {
            let sample = Sample { was_busy: true, ..full(goodput) };
            assert!(!controller.measured(sample, Duration::from_secs(9)));
        }
        assert!(controller.measured(full(8.0), Duration::from_secs(9)));
    }

    #[test]
    fn without_memory_more_parts_are_not_tried_but_wanted() {
        let mut controller = Controller::new(256);
        let sample = Sample { was_out_of_memory: true, ..full(8.0) };
        assert!(!controller.measured(sample, Duration::from_secs(9)));
        assert!(controller.wants_more());
        assert!(controller.measured(full(8.0), Duration::from_secs(9)));
        // What was tried brought nothing, for want of memory or of anything else; nor do fewer.
        assert!(controller.measured(sample, Duration::from_secs(9)));
        let fewer = Sample { goodput: 4.0, ..sample };
        assert!(controller.measured(fewer, Duration::from_secs(9)));
        assert_eq!(controller.limit(), FIRST_LIMIT);
    }

    #[test]
    fn where_nothing_moves_no_more_is_tried() {
        let mut controller = Controller::new(256);
        for _ in 0..20 {
            assert!(!controller.measured(full(0.0), Duration::from_secs(9)));
        }
        assert!(controller.measured(full(1.0), Duration::from_secs(9)));
        let tried = controller.limit();
        assert!(!controller.measured(full(0.0), Duration::from_secs(9)));
        assert_eq!(controller.limit(), tried);
    }

    #[test]
    fn what_was_not_full_says_nothing() {
        let mut controller = Controller::new(256);
        for goodput in [1.0, 2.0, 4.0, 8.0] {
            let sample = Sample { was_full: false, ..full(goodput) };
            assert!(!controller.measured(sample, Duration::from_secs(9)));
        }
        assert_eq!(controller.limit(), FIRST_LIMIT);
    }

    #[test]
    fn a_store_that_asks_for_less_gets_half_until_it_takes_more() {
        let mut controller = Controller::fixed(16);
        controller.throttled();
        assert_eq!(controller.limit(), 8);
        assert!(!controller.measured(full(1e9), Duration::from_secs(1)));
        assert!(!controller.has_others_wait());
        controller.throttled();
        assert_eq!(controller.limit(), 4);
        // One more for each window's worth: 4 + 5 + … + 15.
        let successes = (0..1_000).take_while(|_| {
            controller.succeeded(Duration::ZERO);
            controller.limit() < 16
        });
        assert_eq!(successes.count() + 1, (4..16).sum::<usize>());
        assert!((0..100).all(|_| !controller.succeeded(Duration::ZERO)));
        for _ in 0..9 {
            controller.throttled();
        }
        assert_eq!(controller.limit(), 1);
    }
}
