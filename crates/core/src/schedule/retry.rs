//! One policy for repeating what may pass: exponential back-off with full jitter.
//!
//! The pause after attempt n is drawn evenly from 0 to `base × 2ⁿ⁻¹`, capped: parts that failed
//! together come back apart (Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture
//! Blog). The SDK's own retries are off, because its token bucket is shared by all requests and
//! runs dry when a hundred parts fail at once.

use std::future::Future;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::window::interrupted;
use crate::error::{Error, ErrorKind, Result};
use crate::options::{Cancel, RetryOptions};
use crate::progress::{Emitter, Event};

/// The policy of one session.
#[derive(Debug)]
pub(crate) struct Retry {
    options: RetryOptions,
    random: Mutex<fastrand::Rng>,
    // Whether the store has ever answered anything.
    reached: AtomicBool,
}

/// Attempts at a store that has never answered.
const UNREACHED_ATTEMPTS: u32 = 3;

/// What one transfer shares over all its requests: who is told, who may stop it, and the count.
#[derive(Debug, Clone, Default)]
pub(crate) struct RetryScope {
    events: Emitter,
    cancel: Cancel,
    repeated: std::sync::Arc<AtomicU64>,
}

impl RetryScope {
    pub(crate) fn new(events: Emitter, cancel: Cancel) -> Self {
        Self { events, cancel, repeated: std::sync::Arc::default() }
    }

    /// Attempts that were repeated so far.
    pub(crate) fn repeated(&self) -> u64 {
        self.repeated.load(Ordering::Relaxed)
    }
}

impl Retry {
    pub(crate) fn new(options: RetryOptions) -> Self {
        let random = options.seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed);
        Self { options, random: Mutex::new(random), reached: AtomicBool::new(false) }
    }

    /// Calls `attempt` until it succeeds, fails for good, or the attempts are used up. The
    /// attempt is told its number, from 1. `part` is the part it is for, where there is one.
    pub(crate) async fn run<T, F>(
        &self,
        scope: &RetryScope,
        part: Option<u32>,
        mut attempt: impl FnMut(u32) -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let mut attempts = self.attempts(scope, part);
        loop {
            match attempt(attempts.number()).await {
                Ok(value) => {
                    self.reached.store(true, Ordering::Relaxed);
                    return Ok(value);
                }
                Err(error) => attempts.failed(error).await?,
            }
        }
    }

    /// The same for work that keeps state between its attempts: the caller loops, and tells every
    /// failure to [`Attempts::failed`].
    pub(crate) fn attempts<'a>(&'a self, scope: &'a RetryScope, part: Option<u32>) -> Attempts<'a> {
        Attempts { policy: self, scope, part, number: 1 }
    }

    /// A store that has never answered is more likely misspelt than overloaded, and a person is
    /// waiting at the screen: few attempts, until it has answered once.
    fn limit_for(&self, error: &Error) -> u32 {
        let limit = self.options.max_attempts.max(1);
        if error.kind() != ErrorKind::Unreachable {
            self.reached.store(true, Ordering::Relaxed);
        }
        if self.reached.load(Ordering::Relaxed) { limit } else { limit.min(UNREACHED_ATTEMPTS) }
    }

    fn pause_after(&self, attempt: u32) -> Duration {
        let doubled = 2_u32.saturating_pow(attempt.saturating_sub(1));
        let ceiling = self.options.base_delay.saturating_mul(doubled).min(self.options.max_delay);
        let mut random = self.random.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        ceiling.mul_f64(random.f64())
    }
}

/// The attempts at one thing.
pub(crate) struct Attempts<'a> {
    policy: &'a Retry,
    scope: &'a RetryScope,
    part: Option<u32>,
    number: u32,
}

impl Attempts<'_> {
    /// Number of the attempt under way, from 1.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// Waits before the next attempt, or gives the error back if there is to be none.
    pub(crate) async fn failed(&mut self, error: Error) -> Result<()> {
        if !error.kind().is_retryable() {
            return Err(error);
        }
        let limit = self.policy.limit_for(&error);
        if self.number >= limit {
            return Err(match limit {
                1 => error,
                _ => error.context(format_args!("gave up after {limit} attempts")),
            });
        }
        let pause = self.policy.pause_after(self.number);
        self.scope.repeated.fetch_add(1, Ordering::Relaxed);
        self.scope.events.emit(|| Event::Retrying {
            part: self.part,
            attempt: self.number,
            wait_ms: u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
            reason: error.detail().to_owned(),
        });
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = self.scope.cancel.cancelled() => return Err(interrupted()),
        }
        self.number += 1;
        Ok(())
    }

    /// The attempt got somewhere before it failed: what follows counts from the first again.
    pub(crate) fn progressed(&mut self) {
        self.policy.reached.store(true, Ordering::Relaxed);
        self.number = 1;
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;
    use crate::progress;

    fn failure(kind: ErrorKind) -> Error {
        Error::new(kind, "send", "part 1", "slow down")
    }

    fn quick() -> RetryOptions {
        let base_delay = Duration::from_micros(10);
        RetryOptions { base_delay, max_delay: 4 * base_delay, ..RetryOptions::default() }
    }

    #[tokio::test]
    async fn what_passes_is_repeated_and_told() {
        let (events, told) = progress::channel();
        let scope = RetryScope::new(events, Cancel::default());
        let retry = Retry::new(RetryOptions { seed: Some(1), ..quick() });
        let answer = retry
            .run(&scope, Some(7), async |attempt| {
                if attempt < 4 { Err(failure(ErrorKind::Throttled)) } else { Ok(attempt) }
            })
            .await;
        assert_eq!(answer.expect("the fourth"), 4);
        assert_eq!(scope.repeated(), 3);
        drop(scope);
        let told: Vec<_> = told.collect().await;
        assert_eq!(told.len(), 3);
        assert!(matches!(&told[0], Event::Retrying { part: Some(7), attempt: 1, reason, .. }
            if reason == "slow down"));
    }

    #[tokio::test]
    async fn attempts_are_bounded_and_a_refusal_is_final() {
        let retry = Retry::new(RetryOptions { max_attempts: 3, ..quick() });
        let mut attempts = 0;
        let result: Result<()> = retry
            .run(&RetryScope::default(), None, |_| {
                attempts += 1;
                async { Err(failure(ErrorKind::ServerFailure)) }
            })
            .await;
        assert_eq!(attempts, 3);
        let said = result.expect_err("never succeeds").to_string();
        assert_eq!(said, "send part 1: gave up after 3 attempts: slow down");
        attempts = 0;
        let result: Result<()> = retry
            .run(&RetryScope::default(), None, |_| {
                attempts += 1;
                async { Err(failure(ErrorKind::AccessDenied)) }
            })
            .await;
        assert!(result.is_err());
        assert_eq!(attempts, 1);
    }

    #[tokio::test]
    async fn a_cancel_ends_a_pause() {
        let cancel = Cancel::default();
        let scope = RetryScope::new(Emitter::default(), cancel.clone());
        let retry = Retry::new(RetryOptions {
            base_delay: Duration::from_hours(1),
            max_delay: Duration::from_hours(1),
            ..RetryOptions::default()
        });
        let run = retry.run(&scope, None, async |_| -> Result<()> {
            cancel.cancel();
            Err(failure(ErrorKind::Unreachable))
        });
        let error = run.await.expect_err("cancelled");
        assert_eq!(error.kind(), ErrorKind::Interrupted);
    }

    #[test]
    fn pauses_grow_stay_capped_and_repeat_with_the_seed() {
        let options = RetryOptions { seed: Some(42), ..RetryOptions::default() };
        let (one, two) = (Retry::new(options.clone()), Retry::new(options.clone()));
        for attempt in 1..200 {
            let pause = one.pause_after(attempt);
            assert_eq!(pause, two.pause_after(attempt));
            assert!(pause <= options.max_delay);
        }
        assert!((0..100).all(|_| one.pause_after(1) <= options.base_delay));
    }
}
