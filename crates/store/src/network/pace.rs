//! The pace of bytes: how many may go now, and when the next may.
//!
//! Bytes go first and are paid for after. A connection that sent or received one turn's worth is told when
//! the network will have carried it, and does nothing until then. What all connections share is paid for the
//! same way: each has one turn in the queue at a time, so they take turns, and the shares are even.
//!
//! Nothing here looks at a clock. The time is given, so the tests need no waiting.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::locks::lock;

/// How much lost time is made up for: timers are late, more so on a busy machine. It is also what may go at
/// once after a pause, so it is 2 % of a second.
const CREDIT: Duration = Duration::from_millis(20);

/// What timers can tell apart. Waiting for less would take longer than it should.
const TICK: Duration = Duration::from_millis(1);

/// How long a turn of one connection lasts at its own rate: some hundred wake-ups a second, which cost next
/// to nothing, and far below any round trip across a network.
const TURN_S: f64 = 0.004;

/// How long one round of turns of all connections together lasts at their common rate. What they may be
/// ahead of it is this long.
const ROUND_S: f64 = 0.008;

/// The least and the most that may go in one turn.
const TURN_BYTES: (f64, f64) = (1024.0, 262_144.0);

/// Ten segments of 1,460 bytes, which every system sends before the first acknowledgement (RFC 6928).
const FIRST_WINDOW_BYTES: f64 = 14_600.0;

/// Something that lets through so much in a second, and knows until when it is taken.
#[derive(Debug)]
pub(super) struct Bucket {
    free_at: Instant,
}

impl Bucket {
    pub(super) fn new(now: Instant) -> Self {
        Self { free_at: now }
    }

    /// Lets something through that takes `time`; `credit` of a pause before it can be made up for. Returns
    /// when all that was let through so far has passed.
    pub(super) fn charge(&mut self, now: Instant, time: Duration, credit: Duration) -> Instant {
        let earliest = now.checked_sub(credit).unwrap_or(now);
        self.free_at = self.free_at.max(earliest) + time;
        self.free_at
    }

    pub(super) fn is_free(&self, now: Instant) -> bool {
        self.free_at <= now
    }
}

/// What limits one direction of one connection.
#[derive(Clone, Copy)]
pub(super) struct Limits<'a> {
    /// Its own rate.
    pub(super) own_bytes_per_s: Option<f64>,
    /// The round trip, where connections begin slowly.
    pub(super) slow_start: Option<Duration>,
    /// The rate of all connections together, and who shares it.
    pub(super) total: Option<Total<'a>>,
}

/// What all connections share in one direction.
#[derive(Clone, Copy)]
pub(super) struct Total<'a> {
    pub(super) bytes_per_s: f64,
    pub(super) bucket: &'a Mutex<Bucket>,
    pub(super) connections: u64,
}

impl Limits<'_> {
    /// The connection's own rate after so many bytes.
    fn own_rate(&self, gone_bytes: u64) -> Option<f64> {
        // The window is what was acknowledged and the first one. It doubles with every round trip, and so
        // does the rate if it is the window's share of a round trip times the logarithm of two.
        let ramp = self.slow_start.map(|round_trip| {
            let window = FIRST_WINDOW_BYTES + gone_bytes as f64;
            std::f64::consts::LN_2 * window / round_trip.as_secs_f64()
        });
        match (self.own_bytes_per_s, ramp) {
            (Some(own), Some(ramp)) => Some(own.min(ramp)),
            (own, ramp) => own.or(ramp),
        }
    }

    fn turn_bytes(&self, gone_bytes: u64) -> u64 {
        let own = self.own_rate(gone_bytes).map(|rate| rate * TURN_S);
        let total = self.total.map(|total| {
            let sharers = total.connections.max(1) as f64;
            total.bytes_per_s * ROUND_S / sharers
        });
        let (least, most) = TURN_BYTES;
        let turn = own.unwrap_or(most).min(total.unwrap_or(most)).clamp(least, most);
        // Between two small positive numbers, so nothing is lost but a fraction.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let turn = turn as u64;
        turn
    }
}

/// The pace of one direction of one connection.
#[derive(Debug)]
pub(super) struct Pace {
    own: Bucket,
    /// What went in this turn.
    unpaid_bytes: u64,
    gone_bytes: u64,
    until: Instant,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self { own: Bucket::new(now), unpaid_bytes: 0, gone_bytes: 0, until: now }
    }

    /// How many bytes may go now, one at least; or when to ask again.
    pub(super) fn ask(&self, now: Instant, limits: Limits<'_>) -> Result<usize, Instant> {
        if self.until > now + TICK {
            return Err(self.until);
        }
        let left = limits.turn_bytes(self.gone_bytes).saturating_sub(self.unpaid_bytes).max(1);
        Ok(usize::try_from(left).unwrap_or(usize::MAX))
    }

    /// So many went. They are paid for when the turn is over: connections with small buffers get as many
    /// bytes a turn as others.
    pub(super) fn went(&mut self, now: Instant, bytes: usize, limits: Limits<'_>) {
        self.unpaid_bytes += bytes as u64;
        if self.unpaid_bytes < limits.turn_bytes(self.gone_bytes) {
            return;
        }
        let turn_bytes = std::mem::take(&mut self.unpaid_bytes);
        let time = |bytes_per_s: f64| Duration::from_secs_f64(turn_bytes as f64 / bytes_per_s);
        if let Some(rate) = limits.own_rate(self.gone_bytes) {
            self.until = self.own.charge(now, time(rate), CREDIT);
        }
        self.gone_bytes += turn_bytes;
        if let Some(total) = limits.total {
            let passed = lock(total.bucket).charge(now, time(total.bytes_per_s), CREDIT);
            self.until = self.until.max(passed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;

    use super::*;

    /// What goes in a second over connections that always have more, whose timers are up to `late_ms` late.
    fn carried(limits: Limits<'_>, connections: usize, late_ms: u64) -> Vec<u64> {
        let began = Instant::now();
        let end = began + Duration::from_secs(1);
        let mut random = fastrand::Rng::with_seed(7);
        let mut paces: Vec<_> = (0..connections).map(|_| (Pace::new(began), 0)).collect();
        let mut awake: BinaryHeap<_> = (0..connections).map(|at| Reverse((began, at))).collect();
        while let Some(Reverse((now, at))) = awake.pop().filter(|Reverse((now, _))| *now < end) {
            let (pace, carried) = &mut paces[at];
            match pace.ask(now, limits) {
                Err(later) => {
                    let late = Duration::from_micros(random.u64(0..=late_ms * 1000));
                    awake.push(Reverse((later + late, at)));
                }
                Ok(most) => {
                    // Sometimes there is less at hand than may go.
                    let bytes = random.usize(most / 2..=most).max(1);
                    pace.went(now, bytes, limits);
                    *carried += bytes as u64;
                    awake.push(Reverse((now, at)));
                }
            }
        }
        paces.into_iter().map(|(_, carried)| carried).collect()
    }

    fn is_near(carried: u64, expected: f64) -> bool {
        (carried as f64 - expected).abs() <= expected * 0.03
    }

    const UNLIMITED: Limits<'_> = Limits { own_bytes_per_s: None, slow_start: None, total: None };

    #[test]
    fn a_connection_keeps_its_rate() {
        for rate in [100e3, 1e6, 20e6, 85e6, 2e9] {
            for late_ms in [0, 2, 10] {
                let limits = Limits { own_bytes_per_s: Some(rate), ..UNLIMITED };
                let carried = carried(limits, 1, late_ms)[0];
                assert!(is_near(carried, rate), "{carried} at {rate}, {late_ms} ms late");
            }
        }
    }

    #[test]
    fn all_together_keep_theirs_and_share_it_evenly() {
        for (rate, connections) in [(1e6, 4), (20e6, 64), (400e6, 4), (400e6, 200), (2e9, 16)] {
            let bucket = Mutex::new(Bucket::new(Instant::now()));
            let total = Total { bytes_per_s: rate, bucket: &bucket, connections };
            let limits = Limits { total: Some(total), ..UNLIMITED };
            let carried = carried(limits, usize::try_from(connections).unwrap(), 2);
            let sum = carried.iter().sum();
            assert!(is_near(sum, rate), "{sum} at {rate} over {connections}");
            let share = rate / connections as f64;
            let (least, most) = (carried.iter().min().unwrap(), carried.iter().max().unwrap());
            let even = *least as f64 > share * 0.7 && (*most as f64) < share * 1.3;
            assert!(even, "{least} to {most} at {rate} over {connections}");
        }
    }

    #[test]
    fn the_tighter_limit_holds() {
        let expected = [(2, 40e6), (100, 400e6)];
        for (connections, rate) in expected {
            let bucket = Mutex::new(Bucket::new(Instant::now()));
            let total = Total { bytes_per_s: 400e6, bucket: &bucket, connections };
            let limits = Limits { own_bytes_per_s: Some(20e6), total: Some(total), ..UNLIMITED };
            let sum = carried(limits, usize::try_from(connections).unwrap(), 2).iter().sum();
            assert!(is_near(sum, rate), "{sum} over {connections}");
        }
    }

    #[test]
    fn a_pause_earns_no_more_than_the_credit() {
        let limits = Limits { own_bytes_per_s: Some(1e6), ..UNLIMITED };
        let began = Instant::now();
        let mut pace = Pace::new(began);
        let later = began + Duration::from_mins(1);
        let mut at_once = 0;
        while let Ok(most) = pace.ask(later, limits) {
            pace.went(later, most, limits);
            at_once += most;
        }
        assert!((20_000..30_000).contains(&at_once), "{at_once}");
    }

    #[test]
    fn a_slow_start_doubles_with_every_round_trip() {
        let round_trip = Duration::from_millis(100);
        let limits = Limits { slow_start: Some(round_trip), ..UNLIMITED };
        // Ten doublings of the first window, less the window itself.
        let carried = carried(limits, 1, 0)[0] as f64;
        let expected = FIRST_WINDOW_BYTES * 1023.0;
        assert!((expected * 0.8..expected * 1.2).contains(&carried), "{carried}");
        let capped = Limits { own_bytes_per_s: Some(1e6), ..limits };
        assert_eq!(capped.own_rate(0), limits.own_rate(0));
        assert_eq!(capped.own_rate(1 << 30), Some(1e6));
    }
}
