//! A part that takes far longer than its fellows is moved once more over another connection, and the
//! first to end counts.
//!
//! A few requests in a thousand meet a server that is busy with something else, and one such part at
//! the end holds up the whole object. "Far longer" is by what the other parts took: three times what
//! nine in ten of them did. Few are allowed, so that a store which is slow for everybody gets no more
//! to do because of it; none while it asks for less.

use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::RetryScope;
use crate::error::Result;
use crate::turn::Turn;

/// How many parts' times are remembered, and how many say something.
const REMEMBERED: usize = 64;
const ENOUGH: usize = 16;

/// What nine in ten parts took, times this, is far longer.
const FAR: u32 = 3;

/// No part is repeated earlier than this: below it the wait costs nobody anything.
const SOONEST: Duration = Duration::from_millis(500);

/// How often a part that is under way is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// One part in so many may be moved twice.
const ONE_IN: u64 = 20;

/// What the parts of one transfer took lately: they are alike.
#[derive(Debug, Default)]
pub(super) struct Hedge(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    took: Vec<Duration>,
    next: usize,
    started: u64,
    repeated: u64,
}

impl Hedge {
    fn started(&self) {
        self.state().started += 1;
    }

    fn took(&self, time: Duration) {
        let mut state = self.state();
        if state.took.len() < REMEMBERED {
            state.took.push(time);
        } else {
            let next = state.next;
            state.took[next] = time;
            state.next = (next + 1) % REMEMBERED;
        }
    }

    /// Takes one of the parts that may be moved twice, if one that has taken `time` should be.
    fn may_repeat(&self, time: Duration) -> bool {
        let mut state = self.state();
        let may = state.far().is_some_and(|far| time >= far)
            && (state.repeated + 1) * ONE_IN <= state.started;
        state.repeated += u64::from(may);
        may
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn far(&self) -> Option<Duration> {
        if self.took.len() < ENOUGH {
            return None;
        }
        let mut sorted = self.took.clone();
        let nine_in_ten = sorted.len() * 9 / 10;
        let (_, most, _) = sorted.select_nth_unstable(nine_in_ten);
        Some((*most * FAR).max(SOONEST))
    }
}

/// Which of two it was.
#[derive(Debug)]
pub(crate) enum First<A, B> {
    Try(A),
    Again(B),
}

/// Does `work`, and should it take far longer than its fellows, begins `again` beside it. Whichever
/// succeeds first is given, and the other is dropped before this returns. Only `work` can fail.
pub(crate) async fn hedged<A, B>(
    scope: &RetryScope,
    work: impl Future<Output = Result<A>>,
    again: impl AsyncFnOnce() -> Result<B>,
) -> Result<First<A, B>> {
    let begun = Instant::now();
    let turn = Turn::mine();
    // Without what it waited for its turn.
    let took =
        || begun.elapsed().saturating_sub(turn.as_ref().map_or(Duration::ZERO, Turn::waited));
    let hedge = scope.hedge();
    hedge.started();
    let second = async {
        loop {
            tokio::time::sleep(LOOK).await;
            let has_turn = turn.as_ref().is_none_or(Turn::has_come);
            if has_turn && !scope.window().is_throttled() && hedge.may_repeat(took()) {
                break;
            }
        }
        match again().await {
            Ok(result) => result,
            // The first one knows why, or succeeds.
            Err(_) => std::future::pending().await,
        }
    };
    let first = tokio::select! {
        biased;
        result = work => First::Try(result?),
        result = second => First::Again(result),
    };
    hedge.took(took());
    Ok(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, ErrorKind};

    async fn sleep(millis: u64) -> Result<&'static str> {
        tokio::time::sleep(Duration::from_millis(millis)).await;
        Ok("done")
    }

    async fn with_fellows(count: u32) -> RetryScope {
        let scope = RetryScope::default();
        for _ in 0..count {
            let moved = hedged(&scope, sleep(0), async || sleep(0).await).await.expect("moved");
            assert!(matches!(moved, First::Try(_)));
        }
        scope
    }

    #[tokio::test]
    async fn what_takes_far_longer_is_done_again_and_the_first_counts() {
        let scope = with_fellows(40).await;
        let begun = Instant::now();
        let moved = hedged(&scope, sleep(60_000), async || sleep(1).await).await.expect("moved");
        assert!(matches!(moved, First::Again("done")));
        assert!(begun.elapsed() >= SOONEST && begun.elapsed() < Duration::from_secs(30));
        // The second try fails: the first is waited for.
        let failing =
            async || -> Result<()> { Err(Error::new(ErrorKind::Rejected, "send", "a part", "no")) };
        let moved = hedged(&scope, sleep(900), failing).await.expect("moved");
        assert!(matches!(moved, First::Try("done")));
    }

    #[tokio::test]
    async fn one_in_twenty_at_most_and_none_while_throttled() {
        let hedge = Hedge::default();
        for _ in 0..60 {
            hedge.started();
            hedge.took(Duration::from_millis(10));
        }
        let minute = Duration::from_mins(1);
        let repeated = (0..60).filter(|_| hedge.may_repeat(minute)).count();
        assert_eq!(repeated, 3);
        assert!(!hedge.may_repeat(Duration::from_millis(499)));
        let scope = with_fellows(40).await;
        scope.window().throttled(tokio::time::Instant::now());
        let moved = hedged(&scope, sleep(1_200), async || sleep(0).await).await.expect("moved");
        assert!(matches!(moved, First::Try(_)));
    }

    #[tokio::test]
    async fn too_few_fellows_say_nothing() {
        let scope = with_fellows(10).await;
        let moved = hedged(&scope, sleep(900), async || sleep(0).await).await.expect("moved");
        assert!(matches!(moved, First::Try(_)));
    }
}
