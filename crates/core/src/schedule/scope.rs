//! What one transfer shares over all its requests: who is told, who may stop it, how many attempts
//! were repeated and may be, and the window that admits its parts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::hedge::Hedge;
use super::window::Window;
use crate::error::Error;
use crate::flow::Flow;
use crate::options::{Cancel, RetryOptions};
use crate::progress::Event;

/// Repeated attempts that a transfer of any size may use up: a listing, an upload's beginning and its
/// completion have theirs too, and trouble does not ask how large an object is.
const BASE_REPEATS: u64 = 100;

/// And for each part. One failure of every part must pass however many there are, and a second and
/// third while a store recovers; a store that fails three requests of four is of no use.
const REPEATS_PER_PART: u64 = 3;

/// See the module. Cheap to clone; the clones share everything.
#[derive(Debug, Clone, Default)]
pub(crate) struct RetryScope {
    flow: Flow,
    cancel: Cancel,
    is_cleanup: bool,
    window: Window,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    parts: AtomicU32,
    repeated: AtomicU64,
    spent: AtomicU64,
    hedge: Hedge,
}

impl RetryScope {
    pub(crate) fn new(flow: &Flow, cancel: Cancel) -> Self {
        Self { flow: flow.clone(), cancel, ..Self::default() }
    }

    /// The same, whose parts `window` admits.
    pub(crate) fn within(self, window: Window) -> Self {
        Self { window, ..self }
    }

    /// For what is left to do after a transfer failed: nobody is told, nobody may stop it, and an
    /// outage that it did not survive is not waited out a second time.
    pub(crate) fn of_cleanup() -> Self {
        Self { is_cleanup: true, ..Self::default() }
    }

    /// The same, where `cancel` may stop it too: a child of this one's.
    pub(crate) fn stopped_by(&self, cancel: &Cancel) -> Self {
        Self { cancel: cancel.clone(), ..self.clone() }
    }

    /// Tells how many parts the transfer has, once that is planned.
    pub(crate) fn expect_parts(&self, parts: u32) {
        self.shared.parts.store(parts, Ordering::Relaxed);
    }

    /// Tells that there are so many more, of a job that is not planned in advance.
    pub(crate) fn expect_more_parts(&self, parts: u32) {
        self.shared.parts.fetch_add(parts, Ordering::Relaxed);
    }

    /// Something was asked for again, in another way.
    pub(crate) fn counts_as_repeated(&self, times: u64) {
        self.shared.repeated.fetch_add(times, Ordering::Relaxed);
    }

    /// Attempts that were repeated so far.
    pub(crate) fn repeated(&self) -> u64 {
        self.shared.repeated.load(Ordering::Relaxed)
    }

    /// An attempt failed, and the next follows after `pause`.
    pub(crate) fn repeats(&self, part: Option<u32>, attempt: u32, pause: Duration, error: &Error) {
        self.shared.repeated.fetch_add(1, Ordering::Relaxed);
        self.flow.events().emit(|| Event::Retrying {
            part,
            attempt,
            wait_ms: u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
            reason: error.detail().to_owned(),
        });
    }

    /// How long an outage may take, if attempts are not to be counted.
    pub(super) fn outage(&self, options: &RetryOptions) -> Option<Duration> {
        options.outage.filter(|_| !self.is_cleanup)
    }

    /// What admits its parts.
    pub(crate) fn window(&self) -> &Window {
        &self.window
    }

    /// What its parts took.
    pub(super) fn hedge(&self) -> &Hedge {
        &self.shared.hedge
    }

    /// Its bytes and its time.
    pub(crate) fn flow(&self) -> &Flow {
        &self.flow
    }

    pub(super) fn cancel(&self) -> &Cancel {
        &self.cancel
    }

    /// Takes one of the attempts that the transfer may repeat, or says how many those were.
    pub(super) fn spend(&self, options: &RetryOptions) -> Result<(), u64> {
        let limit = options.max_repeats.unwrap_or_else(|| {
            let parts = u64::from(self.shared.parts.load(Ordering::Relaxed));
            // What one request may use up, the transfer may.
            (BASE_REPEATS + REPEATS_PER_PART * parts).max(options.max_attempts.into())
        });
        let spent = self.shared.spent.fetch_add(1, Ordering::Relaxed);
        if spent < limit { Ok(()) } else { Err(limit) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repeats_of(parts: u32, options: &RetryOptions) -> u64 {
        let scope = RetryScope::default();
        scope.expect_parts(parts);
        (0..1_000_000).find(|_| scope.spend(options).is_err()).expect("it is bounded")
    }

    #[test]
    fn a_transfer_may_repeat_more_the_more_parts_it_has() {
        let options = RetryOptions::default();
        assert_eq!(repeats_of(0, &options), 100);
        assert_eq!(repeats_of(10_000, &options), 30_100);
        let patient = RetryOptions { max_attempts: 1_001, ..RetryOptions::default() };
        assert_eq!(repeats_of(1, &patient), 1_001);
        let strict = RetryOptions { max_repeats: Some(2), ..RetryOptions::default() };
        assert_eq!(repeats_of(10_000, &strict), 2);
    }
}
