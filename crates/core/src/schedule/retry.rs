//! One policy for repeating what may pass: exponential back-off with full jitter.
//!
//! The pause after attempt n is drawn evenly from 0 to `base × 2ⁿ⁻¹`, capped: parts that failed
//! together come back apart (Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture
//! Blog). The SDK's own retries are off, because its token bucket is shared by all requests and
//! runs dry when a hundred parts fail at once.
//!
//! Three things bound it: the attempts at one request, those of a whole transfer ([`RetryScope`]),
//! or, for who would rather wait out an outage, the time since a request's first failure in a row.
//! What the engine can put right by itself ([`Remedies`]) is put right first, and then asked again at
//! once: other credentials, another region.

use std::future::Future;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::run::interrupted;
use super::scope::RetryScope;
use crate::error::{Error, ErrorKind, Remedy, Result};
use crate::options::RetryOptions;
use crate::transport::Remedies;

/// Attempts at a store that has never answered.
const UNREACHED_ATTEMPTS: u32 = 3;

/// The longest that a store's own wish (`Retry-After`) is followed: a transfer that is silent for
/// longer looks dead, and asking once in five minutes burdens nobody.
const MAX_ASKED_PAUSE: Duration = Duration::from_mins(5);

/// What is added to such a pause at most, as a share of it: all parts were told the same time, and
/// must not come back in the same instant.
const ASKED_PAUSE_SPREAD: f64 = 0.1;

/// How often one request is sent elsewhere: from a global endpoint to a region's, and once more for
/// a store behind it. More is a circle.
const MAX_HOPS: u32 = 3;

/// Times that the same bytes are sent in all when they arrive damaged: once is chance, a path that
/// damages them every time is broken.
const MAX_SENDS: u32 = 3;

/// The policy of one session.
#[derive(Debug)]
pub(crate) struct Retry {
    options: RetryOptions,
    remedies: Remedies,
    random: Mutex<fastrand::Rng>,
    // Whether the store has ever answered anything.
    reached: AtomicBool,
}

impl Retry {
    pub(crate) fn new(options: RetryOptions, remedies: Remedies) -> Self {
        let random = options.seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed);
        let (random, reached) = (Mutex::new(random), AtomicBool::new(false));
        Self { options, remedies, random, reached }
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
            attempts.turn().await;
            match attempt(attempts.number()).await {
                Ok(value) => {
                    attempts.succeeded();
                    return Ok(value);
                }
                Err(error) => attempts.failed(error).await?,
            }
        }
    }

    /// The same for work that keeps state between its attempts: the caller loops, and tells every
    /// failure to [`Attempts::failed`].
    pub(crate) fn attempts<'a>(&'a self, scope: &'a RetryScope, part: Option<u32>) -> Attempts<'a> {
        Attempts {
            policy: self,
            scope,
            part,
            number: 1,
            counted: 1,
            has_progressed: false,
            failing_since: None,
            remedied: Remedied::default(),
        }
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

    /// The pause after this attempt, and no shorter than the store `asked` for.
    fn pause_after(&self, attempt: u32, asked: Option<Duration>) -> Duration {
        let doubled = 2_u32.saturating_pow(attempt.saturating_sub(1));
        let ceiling = self.options.base_delay.saturating_mul(doubled).min(self.options.max_delay);
        let mut random = self.random.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let pause = ceiling.mul_f64(random.f64());
        match asked.filter(|asked| !asked.is_zero()) {
            Some(asked) => {
                let asked = asked.min(MAX_ASKED_PAUSE);
                pause.max(asked) + asked.mul_f64(ASKED_PAUSE_SPREAD * random.f64())
            }
            None => pause,
        }
    }
}

/// The attempts at one thing.
pub(crate) struct Attempts<'a> {
    policy: &'a Retry,
    scope: &'a RetryScope,
    part: Option<u32>,
    number: u32,
    /// The same without those that were remedied.
    counted: u32,
    has_progressed: bool,
    failing_since: Option<Instant>,
    remedied: Remedied,
}

/// What was done for a request since it last got somewhere.
#[derive(Default)]
struct Remedied {
    with_credentials: bool,
    hops: u32,
    resent: u32,
}

impl Attempts<'_> {
    /// Number of the attempt under way, from 1.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// Waits until the store is likely to take one more request.
    pub(crate) async fn turn(&self) {
        let waited = self.scope.window().paced().await;
        self.scope.flow().held_back(waited);
    }

    /// The store did what it was asked.
    pub(crate) fn succeeded(&self) {
        self.policy.reached.store(true, Ordering::Relaxed);
        self.scope.window().taken();
    }

    /// Waits before the next attempt, or gives the error back if there is to be none.
    pub(crate) async fn failed(&mut self, error: Error) -> Result<()> {
        let error = match error.remedy() {
            Some(_) => match self.remedy(error).await? {
                None => return Ok(()),
                Some(error) => error,
            },
            None => error,
        };
        if !error.kind().is_retryable() {
            return Err(error);
        }
        if error.kind() == ErrorKind::Throttled {
            self.scope.window().throttled(Instant::now());
        } else if error.is_stall() {
            self.scope.window().stalled();
        }
        let allowed = match self.scope.outage(&self.policy.options) {
            Some(outage) => self.rest_of(outage),
            None => self.charge(&error),
        };
        let pause = match allowed {
            Ok(rest) => self.policy.pause_after(self.counted, error.asked_pause()).min(rest),
            Err(None) => return Err(error),
            Err(Some(bound)) => return Err(error.context(format_args!("gave up after {bound}"))),
        };
        self.scope.repeats(self.part, self.number, pause, &error);
        self.unless_stopped(tokio::time::sleep(pause)).await?;
        if error.kind() == ErrorKind::Throttled {
            self.scope.flow().held_back(pause);
        }
        self.number = self.number.saturating_add(1);
        self.counted = self.counted.saturating_add(1);
        self.has_progressed = false;
        self.remedied = Remedied::default();
        Ok(())
    }

    /// The attempt got somewhere before it failed: what follows counts from the first again.
    pub(crate) fn progressed(&mut self) {
        self.policy.reached.store(true, Ordering::Relaxed);
        (self.number, self.counted) = (1, 1);
        self.has_progressed = true;
        self.failing_since = None;
        self.remedied = Remedied::default();
    }

    /// Puts right what can be, so that the request can be made again at once; else gives back what
    /// it failed with.
    async fn remedy(&mut self, error: Error) -> Result<Option<Error>> {
        let again = match error.remedy() {
            Some(Remedy::OtherCredentials { .. }) => {
                !std::mem::replace(&mut self.remedied.with_credentials, true)
            }
            Some(Remedy::OtherPlace { .. }) => {
                self.remedied.hops += 1;
                self.remedied.hops <= MAX_HOPS
            }
            Some(Remedy::SendAgain) => {
                self.remedied.resent += 1;
                self.remedied.resent < MAX_SENDS && self.policy.options.max_attempts > 1
            }
            None => false,
        };
        if !again {
            return Ok(Some(error));
        }
        let applied = self.unless_stopped(self.policy.remedies.apply(&error)).await?;
        match applied {
            Ok(true) => {
                self.policy.reached.store(true, Ordering::Relaxed);
                self.scope.repeats(self.part, self.number, Duration::ZERO, &error);
                self.number = self.number.saturating_add(1);
                Ok(None)
            }
            Ok(false) => Ok(Some(error)),
            Err(why) if why.kind().is_retryable() => Ok(Some(why)),
            Err(why) => {
                Ok(Some(error.advise(format!("looking for new ones failed: {}", why.detail()))))
            }
        }
    }

    /// Takes an attempt from the request's own and from the transfer's. Whatever pause is fine; or
    /// there is none left, of how many if that is worth a word.
    fn charge(&self, error: &Error) -> Result<Duration, Option<String>> {
        let limit = self.policy.limit_for(error);
        if self.counted >= limit {
            return Err((limit > 1).then(|| format!("{limit} attempts")));
        }
        if !self.has_progressed {
            self.scope.spend(&self.policy.options).map_err(|limit| {
                (limit > 0).then(|| format!("{limit} repeated attempts in this transfer"))
            })?;
        }
        Ok(Duration::MAX)
    }

    /// What is left of the time that an outage may take.
    fn rest_of(&mut self, outage: Duration) -> Result<Duration, Option<String>> {
        let now = Instant::now();
        let since = *self.failing_since.get_or_insert(now);
        let rest = outage.saturating_sub(now.duration_since(since));
        if rest.is_zero() {
            Err(Some(format!("{} s of failures", outage.as_secs())))
        } else {
            Ok(rest)
        }
    }

    async fn unless_stopped<T>(&self, work: impl Future<Output = T>) -> Result<T> {
        tokio::select! {
            done = work => Ok(done),
            () = self.scope.cancel().cancelled() => Err(interrupted()),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;
    use crate::error::Place;
    use crate::flow::{Flow, Meter};
    use crate::options::Cancel;
    use crate::progress::{self, Event};

    fn failure(kind: ErrorKind) -> Error {
        Error::new(kind, "send", "part 1", "slow down")
    }

    fn quick() -> RetryOptions {
        let base_delay = Duration::from_micros(10);
        RetryOptions { base_delay, max_delay: 4 * base_delay, ..RetryOptions::default() }
    }

    fn retry(options: RetryOptions) -> Retry {
        Retry::new(options, Remedies::default())
    }

    #[tokio::test]
    async fn what_passes_is_repeated_and_told() {
        let (events, told) = progress::channel();
        let scope = RetryScope::new(&Flow::new(events, Meter::default()), Cancel::default());
        let retry = retry(RetryOptions { seed: Some(1), ..quick() });
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
        let retry = retry(RetryOptions { max_attempts: 3, ..quick() });
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
        let scope = RetryScope::new(&Flow::default(), cancel.clone());
        let retry = retry(RetryOptions {
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
        let (one, two) = (retry(options.clone()), retry(options.clone()));
        for attempt in 1..200 {
            let pause = one.pause_after(attempt, None);
            assert_eq!(pause, two.pause_after(attempt, None));
            assert!(pause <= options.max_delay);
        }
        assert!((0..100).all(|_| one.pause_after(1, None) <= options.base_delay));
    }

    #[tokio::test]
    async fn a_transfer_repeats_only_so_many_attempts() {
        let retry = retry(RetryOptions { max_repeats: Some(5), ..quick() });
        let scope = RetryScope::default();
        for _ in 0..5 {
            let fails_once = async |attempt| match attempt {
                1 => Err(failure(ErrorKind::ServerFailure)),
                _ => Ok(()),
            };
            retry.run(&scope, Some(1), fails_once).await.expect("the second time");
        }
        let result: Result<()> =
            retry.run(&scope, Some(1), async |_| Err(failure(ErrorKind::ServerFailure))).await;
        let said = result.expect_err("none is left").to_string();
        let after = "gave up after 5 repeated attempts in this transfer: slow down";
        assert_eq!(said, format!("send part 1: {after}"));
        // What got somewhere was not in vain.
        let mut attempts = retry.attempts(&scope, Some(1));
        attempts.progressed();
        attempts.failed(failure(ErrorKind::Unreachable)).await.expect("not counted");
        attempts.failed(failure(ErrorKind::Unreachable)).await.expect_err("counted");
    }

    #[tokio::test]
    async fn an_outage_is_waited_out_for_as_long_as_was_said() {
        let long = Duration::from_millis(50);
        let options = RetryOptions { max_attempts: 1, max_repeats: Some(1), ..quick() };
        let retry = retry(RetryOptions { outage: Some(long), ..options });
        let scope = RetryScope::default();
        let begun = Instant::now();
        let fails = async |_| -> Result<()> { Err(failure(ErrorKind::Unreachable)) };
        let error = retry.run(&scope, None, fails).await.expect_err("never back");
        assert!(begun.elapsed() >= long);
        assert!(error.detail().starts_with("gave up after 0 s of failures: "), "{error}");
        assert!(scope.repeated() > u64::from(UNREACHED_ATTEMPTS));
        // What is left to do after that does not wait as long again.
        let error =
            retry.run(&RetryScope::of_cleanup(), None, fails).await.expect_err("never back");
        assert_eq!(error.detail(), "slow down");
        // It begins anew whenever something moved.
        let (begun, mut attempts) = (Instant::now(), retry.attempts(&scope, None));
        while begun.elapsed() < 2 * long {
            attempts.failed(failure(ErrorKind::Unreachable)).await.expect("it moved");
            attempts.progressed();
        }
    }

    #[tokio::test]
    async fn a_store_is_left_alone_for_as_long_as_it_asks() {
        let retry = retry(RetryOptions { seed: Some(7), ..RetryOptions::default() });
        let told = Duration::from_secs(30);
        let pauses: Vec<_> = (0..100).map(|_| retry.pause_after(1, Some(told))).collect();
        assert!(pauses.iter().all(|pause| *pause >= told && *pause <= told * 11 / 10));
        assert!(pauses.iter().any(|pause| *pause != pauses[0]));
        let day = Some(Duration::from_hours(24));
        assert!(retry.pause_after(1, day) <= MAX_ASKED_PAUSE * 11 / 10);
        let (begun, told) = (Instant::now(), Duration::from_millis(20));
        let busy_once = async |attempt| match attempt {
            1 => Err(failure(ErrorKind::Throttled).retry_after(Some(told))),
            _ => Ok(()),
        };
        retry.run(&RetryScope::default(), None, busy_once).await.expect("the second time");
        assert!(begun.elapsed() >= told);
    }

    #[tokio::test]
    async fn throttling_brakes_and_other_failures_do_not() {
        let retry = retry(quick());
        let scope = RetryScope::default();
        for (kind, admitted) in [(ErrorKind::Unreachable, 4), (ErrorKind::Throttled, 2)] {
            let mut attempts = retry.attempts(&scope, Some(1));
            attempts.failed(failure(kind)).await.expect("again");
            assert_eq!(scope.window().limit(), admitted);
        }
    }

    #[tokio::test]
    async fn where_half_of_the_parts_stand_still_fewer_are_in_flight() {
        let retry = retry(quick());
        let scope = RetryScope::default();
        let stalls = async || {
            let mut attempts = retry.attempts(&scope, Some(1));
            attempts.failed(failure(ErrorKind::Unreachable).stalled()).await.expect("again");
            scope.window().limit()
        };
        assert_eq!(stalls().await, 4);
        scope.window().succeeded();
        // A part that was done let one more in; then half of five.
        assert_eq!((stalls().await, stalls().await, stalls().await), (5, 5, 2));
        assert_eq!((stalls().await, stalls().await), (1, 1));
    }

    #[tokio::test]
    async fn a_circle_of_redirects_ends() {
        let retry = retry(RetryOptions::default());
        let mut asked = 0;
        let scope = RetryScope::default();
        let result: Result<()> = retry
            .run(&scope, None, |_| {
                asked += 1;
                let place = Place { region: Some(format!("r-{asked}")), ..Place::default() };
                let remedy = Remedy::OtherPlace { bucket: "b".into(), place };
                let error = failure(ErrorKind::InvalidInput).remedied_by(Some(remedy));
                async { Err(error) }
            })
            .await;
        assert_eq!(result.expect_err("a circle").kind(), ErrorKind::InvalidInput);
        assert_eq!((asked, scope.repeated()), (1 + MAX_HOPS, MAX_HOPS.into()));
    }
}
