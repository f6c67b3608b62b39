//! Fewer requests a second, after a store has refused some for being too many.
//!
//! A limit on requests cannot be met with a limit on parts in flight: where a request takes a
//! millisecond, a single connection makes a thousand a second. So the rate at which requests succeeded
//! just before the refusal is taken for what the store allows, requests are kept a little under it, and
//! from there the rate follows the curve of CUBIC (RFC 9438): quickly back to where it was, slowly past
//! it, then ever faster until the store refuses again. Before the first refusal there is no limit, and
//! this costs one atomic load for each request.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// What the rate falls to. CUBIC's own is 0.7; what is known here is not a path's size but how many
/// requests the store just took.
const FALL: f64 = 0.9;

/// CUBIC's constant, in requests a second per cubed second, for a rate of [`SCALE`].
const GROWTH: f64 = 0.4;
/// Growth is in proportion to the rate, so that a store of 3,500 requests a second is not crept up to
/// as if it were one of 100.
const SCALE: f64 = 100.0;

/// And not in proportion to less: where hardly anything was taken, hardly anything is known.
const MIN_GROWING: f64 = 10.0;

/// How fast the rate doubles while it is only known to be too low.
const DOUBLING: Duration = Duration::from_millis(750);

/// Refusals within this are one sign.
const BURST: Duration = Duration::from_secs(1);

/// What the rate of successes is measured over.
const MEASURE: Duration = Duration::from_secs(1);

/// Answers that say something of a rate.
const MIN_EVIDENCE: u32 = 20;

/// Where more than this share of the requests is refused although they were fewer, and twice in a row,
/// their number is not what they are refused for, and holding them back helps nobody.
const IN_VAIN: f64 = 0.3;

/// They are not held back then for this long.
const OFF: Duration = Duration::from_secs(30);

/// Requests a second, at least.
const MIN_RATE: f64 = 0.5;

/// The store's pace, as far as it is known. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Pace(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    is_on: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Requests a second that were taken when the store last refused one.
    taken: f64,
    throttled_at: Option<Instant>,
    /// Whether that was in the first moments: most of what was refused waits to be repeated then, few
    /// requests are taken, and that says little about how many would be.
    is_guess: bool,
    /// When the next request may go.
    next: Option<Instant>,
    /// Successes since `counted_since`, and the rate before that.
    successes: u32,
    counted_since: Option<Instant>,
    rate_before: Option<f64>,
    /// Refusals in the same time, and how many bursts in a row came with too many of them.
    refused: u32,
    in_vain: u32,
    /// Nothing is held back until then.
    off_until: Option<Instant>,
}

impl Pace {
    /// Waits for a turn; gives how long that was.
    pub(super) async fn wait(&self) -> Duration {
        if !self.0.is_on.load(Ordering::Relaxed) {
            return Duration::ZERO;
        }
        let now = Instant::now();
        let turn = self.state().turn(now);
        tokio::time::sleep_until(turn).await;
        turn.saturating_duration_since(now)
    }

    /// The store refused a request for being one too many.
    pub(super) fn throttled(&self, now: Instant) {
        self.state().throttled(now);
        self.0.is_on.store(true, Ordering::Relaxed);
    }

    /// A request was taken.
    pub(super) fn succeeded(&self, now: Instant) {
        self.state().succeeded(now);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn rate(&self, now: Instant) -> f64 {
        let Some(at) = self.throttled_at else { return f64::INFINITY };
        if self.is_guess {
            let known = now.saturating_duration_since(at).saturating_sub(BURST);
            return self.taken * (known.as_secs_f64() / DOUBLING.as_secs_f64()).exp2();
        }
        let growth = GROWTH * self.taken.max(MIN_GROWING) / SCALE;
        let back_after_s = (self.taken * (1.0 - FALL) / growth).cbrt();
        let seconds = now.saturating_duration_since(at).as_secs_f64() - back_after_s;
        (growth * seconds.powi(3) + self.taken).max(MIN_RATE)
    }

    fn turn(&mut self, now: Instant) -> Instant {
        if self.off_until.is_some_and(|until| now < until) {
            return now;
        }
        // Time that nobody used is not saved up: a burst is what the store refused.
        let turn = self.next.map_or(now, |next| next.max(now));
        self.next = Some(turn + Duration::from_secs_f64(1.0 / self.rate(now)));
        turn
    }

    fn throttled(&mut self, now: Instant) {
        self.refused += 1;
        let in_burst = self.throttled_at.is_some_and(|at| now.duration_since(at) < BURST);
        if in_burst || self.successes + self.refused < MIN_EVIDENCE {
            return;
        }
        let was_paced = self.throttled_at.is_some();
        // A store that takes none does not refuse what is too many.
        if !was_paced && self.rate_before.is_none() && self.successes < MIN_EVIDENCE / 2 {
            return;
        }
        let share = f64::from(self.refused) / f64::from(self.successes + self.refused);
        self.in_vain = if was_paced && share > IN_VAIN { self.in_vain + 1 } else { 0 };
        if self.in_vain >= 2 {
            (self.in_vain, self.off_until, self.throttled_at) = (0, Some(now + OFF), None);
            self.next = None;
            return;
        }
        let measured = self.measured(now);
        self.taken = if self.is_guess {
            // Where the rate doubles, the last second's is two thirds of what it was at its end.
            (FALL * self.rate(now)).min(1.4 * measured)
        } else {
            // What an outage lets through is nobody's limit: a step at a time.
            measured.max(if was_paced { self.taken / 2.0 } else { MIN_RATE })
        };
        self.taken = self.taken.max(MIN_RATE);
        self.is_guess = !was_paced && self.rate_before.is_none();
        self.throttled_at = Some(now);
        (self.refused, self.successes, self.counted_since) = (0, 0, Some(now));
        self.rate_before = Some(self.taken);
    }

    fn succeeded(&mut self, now: Instant) {
        let since = *self.counted_since.get_or_insert(now);
        self.successes += 1;
        if now.duration_since(since) >= MEASURE {
            let rate = self.measured(now);
            self.rate_before = Some(rate);
            // What was taken in the first second of all may have been a store's reserve.
            let is_news = self.throttled_at.is_some_and(|at| now.duration_since(at) < 2 * MEASURE);
            if is_news && self.successes >= MIN_EVIDENCE / 2 {
                self.taken = self.taken.min(rate / FALL).max(MIN_RATE);
            }
            (self.counted_since, self.successes, self.refused) = (Some(now), 0, 0);
        }
    }

    /// Successes a second, lately.
    fn measured(&self, now: Instant) -> f64 {
        let Some(since) = self.counted_since else { return self.rate_before.unwrap_or(1.0) };
        let seconds = now.saturating_duration_since(since).as_secs_f64();
        match self.rate_before {
            // Over the second before and what has passed of this one.
            Some(before) => {
                let rest = (MEASURE.as_secs_f64() - seconds).max(0.0);
                (before * rest + f64::from(self.successes)) / (rest + seconds)
            }
            None => f64::from(self.successes) / seconds.max(0.1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A store that takes so many requests a second, and a twentieth of that at once; a client that
    /// makes 10,000 a second when nothing holds it back.
    #[test]
    fn it_settles_near_what_a_store_takes() {
        for limit in [20.0, 200.0, 3_500.0] {
            let mut pace = State::default();
            let begun = Instant::now();
            let seconds = |now: Instant| (now - begun).as_secs_f64();
            let (mut now, mut last, mut room) = (begun, begun, limit * 0.05);
            let (mut taken, mut refused) = (0_u32, 0_u32);
            while seconds(now) < 65.0 {
                if pace.throttled_at.is_some() {
                    now = now.max(pace.turn(now));
                }
                room = (room + (now - last).as_secs_f64() * limit).min(limit * 0.05 + 1.0);
                last = now;
                // What it has found by then counts.
                let counts = u32::from(seconds(now) > 5.0);
                if room >= 1.0 {
                    room -= 1.0;
                    pace.succeeded(now);
                    taken += counts;
                } else {
                    pace.throttled(now);
                    refused += counts;
                }
                now += Duration::from_micros(100);
            }
            let rate = f64::from(taken) / 60.0 / limit;
            assert!(rate > 0.9, "{rate} of {limit}");
            assert!(f64::from(refused) < 0.1 * f64::from(taken), "{refused} beside {taken}");
        }
    }

    /// Nothing is taken for two seconds, in the middle of much or from the beginning; then all is.
    #[test]
    fn an_outage_is_nobodys_limit() {
        for before in [0, 2_000] {
            let mut pace = State::default();
            let mut now = Instant::now();
            for _ in 0..before {
                pace.succeeded(now);
                now += Duration::from_millis(1);
            }
            let until = now + Duration::from_secs(2);
            while now < until {
                pace.throttled(now);
                now = pace.turn(now + Duration::from_millis(50));
            }
            let begun = now;
            for _ in 0..1_000 {
                now = if pace.throttled_at.is_some() { pace.turn(now) } else { now };
                pace.succeeded(now);
            }
            assert!(now - begun < Duration::from_secs(8), "{:?}", now - begun);
        }
    }

    /// Sixteen requests at once to begin with, of which most wait for being repeated after that.
    #[test]
    fn what_the_first_moments_show_is_a_guess() {
        for limit in [50.0, 200.0, 2_000.0] {
            let mut pace = State::default();
            let begun = Instant::now();
            let mut now = begun;
            for request in 0..24 {
                now += Duration::from_millis(10);
                if request % 2 == 0 { pace.succeeded(now) } else { pace.throttled(now) }
            }
            assert!(pace.rate(now) < 60.0);
            let (mut last, mut room, mut taken) = (now, 0.0_f64, 0);
            while now < begun + Duration::from_secs(20) {
                now = now.max(pace.turn(now));
                room = (room + (now - last).as_secs_f64() * limit).min(0.05 * limit + 1.0);
                last = now;
                if room >= 1.0 {
                    room -= 1.0;
                    pace.succeeded(now);
                    taken += u32::from(now > begun + Duration::from_secs(6));
                } else {
                    pace.throttled(now);
                }
            }
            let rate = f64::from(taken) / 14.0 / limit;
            assert!(rate > 0.9, "{rate} of {limit}");
        }
    }

    #[tokio::test]
    async fn without_a_refusal_nobody_waits() {
        let pace = Pace::default();
        for _ in 0..1_000 {
            assert_eq!(pace.wait().await, Duration::ZERO);
            pace.succeeded(Instant::now());
        }
    }
}
