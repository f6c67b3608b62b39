//! Whose turn it is: where more parts are in flight than the line has use for, the first come are done
//! first.
//!
//! Parts that share a thin line evenly all end together, late, and a kill before that loses them all. So
//! those beyond the window's limit wait in the middle of what they do: a body gives no frame away, a range
//! reads no chunk, and the connection stays. They go on when an earlier part ends, or when the window
//! grows. Now and then each moves one frame nevertheless, lest somebody on the way takes it for dead.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// How long a part that waits moves nothing. Amazon closes a connection that is silent in the middle of a
/// request after 20 s or more.
const TRICKLE: Duration = Duration::from_secs(10);

tokio::task_local! {
    static TURN: Turn;
}

/// Says up to which number parts may move. The window has it.
#[derive(Debug)]
pub(crate) struct Gate {
    first_to_wait: AtomicU64,
    opened: Notify,
}

/// One part's place in the order of admission. Clones are the same part's.
#[derive(Debug, Clone)]
pub(crate) struct Turn {
    gate: Arc<Gate>,
    number: u64,
    waited_us: Arc<AtomicU64>,
}

impl Default for Gate {
    /// Open for all.
    fn default() -> Self {
        Self { first_to_wait: AtomicU64::new(u64::MAX), opened: Notify::new() }
    }
}

impl Gate {
    /// Lets those before `number` move; `None` is everybody.
    pub(crate) fn open_before(&self, number: Option<u64>) {
        let number = number.unwrap_or(u64::MAX);
        if self.first_to_wait.swap(number, Ordering::Relaxed) < number {
            self.opened.notify_waiters();
        }
    }
}

impl Turn {
    pub(crate) fn new(gate: &Arc<Gate>, number: u64) -> Self {
        Self { gate: Arc::clone(gate), number, waited_us: Arc::default() }
    }

    /// Has all that `work` moves wait for this turn.
    pub(crate) fn scope<F: Future>(self, work: F) -> impl Future<Output = F::Output> {
        TURN.scope(self, work)
    }

    /// That of the part that asks; none outside of one.
    pub(crate) fn mine() -> Option<Self> {
        TURN.try_with(Clone::clone).ok()
    }

    pub(crate) fn has_come(&self) -> bool {
        self.number < self.gate.first_to_wait.load(Ordering::Relaxed)
    }

    /// How long the part has waited for its turn in all.
    pub(crate) fn waited(&self) -> Duration {
        Duration::from_micros(self.waited_us.load(Ordering::Relaxed))
    }

    /// Waits until something may move.
    pub(crate) async fn comes(&self) {
        self.comes_within(TRICKLE).await;
    }

    async fn comes_within(&self, limit: Duration) {
        if self.has_come() {
            return;
        }
        let begun = Instant::now();
        loop {
            let mut opened = std::pin::pin!(self.gate.opened.notified());
            // From here on none is missed.
            opened.as_mut().enable();
            if self.has_come() || tokio::time::timeout_at(begun + limit, opened).await.is_err() {
                break;
            }
        }
        let waited = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.waited_us.fetch_add(waited, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_came_first_moves_and_the_others_wait() {
        let gate = Arc::new(Gate::default());
        let [one, two] = [1, 2].map(|number| Turn::new(&gate, number));
        assert!(one.has_come() && two.has_come());
        gate.open_before(Some(2));
        let moment = Duration::from_millis(20);
        assert!(tokio::time::timeout(moment, one.comes()).await.is_ok());
        assert!(tokio::time::timeout(moment, two.comes()).await.is_err());
        let opens = async {
            tokio::time::sleep(moment).await;
            gate.open_before(None);
        };
        let begun = Instant::now();
        futures::join!(two.comes(), opens);
        assert!(begun.elapsed() < TRICKLE);
        assert!(one.waited().is_zero() && two.waited() >= moment);
        // Who waits for long moves a little nevertheless.
        gate.open_before(Some(1));
        one.comes_within(moment).await;
        assert!(one.waited() >= moment && !one.has_come());
    }

    #[tokio::test]
    async fn it_is_known_inside_of_a_parts_work_only() {
        let turn = Turn::new(&Arc::default(), 7);
        assert!(Turn::mine().is_none());
        let seen = turn.scope(async { Turn::mine().map(|turn| turn.number) }).await;
        assert_eq!(seen, Some(7));
    }
}
