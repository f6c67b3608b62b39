//! Fewer parts in flight while a store asks for fewer requests.
//!
//! A refusal halves the number of parts that are admitted; each window's worth of parts that succeed
//! lets one more in, until the whole window is open again (additive increase, multiplicative
//! decrease). Refusals come in bursts, because the requests of a window are under way together: a
//! burst is one sign, not sixteen. Only throttling brakes, since anything else says nothing of how
//! much a store can take; and while nothing brakes, this is one atomic load for each part.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// The limit while nothing brakes.
const OPEN: usize = usize::MAX;

/// Refusals that come closer together than this are of one burst: longer than a round trip to any
/// place on earth, with some time for the store.
const BURST: Duration = Duration::from_secs(1);

/// What all parts of one transfer share.
#[derive(Debug)]
pub(crate) struct Brake {
    limit: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    window: usize,
    braked_at: Option<Instant>,
    successes: usize,
}

impl Default for Brake {
    fn default() -> Self {
        Self { limit: AtomicUsize::new(OPEN), state: Mutex::default() }
    }
}

impl Brake {
    /// Begins to count for a window of so many parts.
    pub(crate) fn opened(&self, window: usize) {
        self.state().window = window;
    }

    /// How many parts of the window may be in flight, at least one.
    pub(crate) fn admitted(&self, window: usize) -> usize {
        window.min(self.limit.load(Ordering::Relaxed)).max(1)
    }

    /// The store asked for fewer requests.
    pub(crate) fn throttled(&self, now: Instant) {
        let mut state = self.state();
        let in_burst = state.braked_at.is_some_and(|at| now.duration_since(at) < BURST);
        if in_burst || state.window == 0 {
            return;
        }
        let halved = (self.admitted(state.window) / 2).max(1);
        state.braked_at = Some(now);
        state.successes = 0;
        self.limit.store(halved, Ordering::Relaxed);
    }

    /// A part is done.
    pub(crate) fn succeeded(&self) {
        if self.limit.load(Ordering::Relaxed) == OPEN {
            return;
        }
        let mut state = self.state();
        let limit = self.admitted(state.window);
        state.successes += 1;
        if state.successes >= limit {
            state.successes = 0;
            let more = if limit + 1 >= state.window { OPEN } else { limit + 1 };
            self.limit.store(more, Ordering::Relaxed);
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_halves_once_a_burst_and_never_below_one() {
        let (brake, start) = (Brake::default(), Instant::now());
        brake.opened(16);
        assert_eq!(brake.admitted(16), 16);
        for _ in 0..16 {
            brake.throttled(start);
        }
        assert_eq!(brake.admitted(16), 8);
        for (second, admitted) in [(1, 4), (2, 2), (3, 1), (4, 1)] {
            brake.throttled(start + second * BURST);
            assert_eq!(brake.admitted(16), admitted);
        }
    }

    #[test]
    fn it_opens_by_one_for_each_window_that_succeeds() {
        let brake = Brake::default();
        brake.opened(8);
        brake.throttled(Instant::now());
        let mut admitted = Vec::new();
        for _ in 0..4 + 5 + 6 + 7 {
            brake.succeeded();
            admitted.push(brake.admitted(8));
        }
        assert_eq!((admitted[2], admitted[3], admitted[8], admitted[14]), (4, 5, 6, 7));
        assert_eq!(admitted.last(), Some(&8));
        assert_eq!(brake.limit.load(Ordering::Relaxed), OPEN);
    }

    #[test]
    fn without_a_window_there_is_nothing_to_brake() {
        let brake = Brake::default();
        brake.throttled(Instant::now());
        brake.succeeded();
        assert_eq!((brake.admitted(3), brake.admitted(0)), (3, 1));
    }
}
