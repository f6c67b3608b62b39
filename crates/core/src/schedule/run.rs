//! Parts in flight, as many as the window admits: in any order for files, in the plan's order for
//! streams.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use futures::stream::{FuturesOrdered, FuturesUnordered, Stream, StreamExt};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::Instant;

use super::window::{Admission, Memory, Window};
use super::{LaneId, Lanes, RetryScope};
use crate::error::{Error, ErrorKind, Result};
use crate::plan::Part;

/// A part's task. Dropping it stops the part: nothing that was started outlives its transfer.
struct Task<T>(JoinHandle<Result<T>>);

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<T> Future for Task<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut std::task::Context<'_>) -> Poll<Result<T>> {
        Pin::new(&mut self.0).poll(context).map(|joined| match joined {
            Ok(result) => result,
            Err(lost) => Err(Error::new(
                ErrorKind::Io,
                "transfer",
                "a part",
                if lost.is_panic() { "its task panicked" } else { "its thread ended" },
            )
            .caused_by(lost)),
        })
    }
}

/// How long the parts in flight may go on after a cancel, where what they do is recorded: long enough
/// for most to end, short enough for a person who waits at the keyboard.
pub(crate) const STOP_GRACE: Duration = Duration::from_millis(700);

/// A stream of which nothing is under way, nor has been admitted for so long, goes on with one range
/// beside the budget: who reads two streams in turns would wait for ever.
const STARVED_FOR: Duration = Duration::from_secs(2);

/// How many ranges of a stream are under way or wait for their turn: a window of them that moves, and a
/// quarter as many that wait behind the slowest.
fn ahead(window: usize) -> usize {
    window + window.div_ceil(4)
}

/// What the parts of one transfer take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cost {
    /// Memory of a part, bytes, for a part that is long enough to hold that much.
    pub(crate) memory_bytes: u64,
}

impl Cost {
    pub(crate) fn of(self, part: Part) -> u64 {
        self.memory_bytes.min(part.len_bytes)
    }
}

/// The next part to start, and its admission, which is asked for once and not anew whenever another
/// part ends.
struct Next {
    part: Part,
    admission: Pin<Box<dyn Future<Output = Admission> + Send>>,
}

impl Next {
    fn of(parts: &mut impl Iterator<Item = Part>, window: &Window, cost: Cost) -> Option<Self> {
        let part = parts.next()?;
        window.moves_parts_of(part.len_bytes);
        let (window, bytes) = (window.clone(), cost.of(part));
        Some(Self { part, admission: Box::pin(async move { window.admit(bytes).await }) })
    }
}

/// Moves every part with `job`, as many at a time as the scope's window admits, and gives the results
/// in the order of the parts. The first failure, or the scope's cancel, stops the others, and nothing
/// of them runs any more when this returns. After a cancel the parts in flight get `grace` to end by
/// themselves.
pub(crate) async fn run_parts<T, J, F>(
    lanes: &Arc<Lanes>,
    cost: Cost,
    mut parts: impl Iterator<Item = Part>,
    scope: &RetryScope,
    grace: Duration,
    job: J,
) -> Result<Vec<T>>
where
    T: Send + 'static,
    J: Fn(LaneId, Part) -> F,
    F: Future<Output = Result<T>> + Send + 'static,
{
    let window = scope.window();
    let mut running = FuturesUnordered::new();
    let mut stop: HashMap<u32, AbortHandle> = HashMap::new();
    let mut done = Vec::new();
    let mut next = Next::of(&mut parts, window, cost);
    let mut look_at = window.look(Instant::now(), lanes);
    let failure = loop {
        if next.is_none() && running.is_empty() {
            done.sort_unstable_by_key(|(number, _)| *number);
            return Ok(done.into_iter().map(|(_, result)| result).collect());
        }
        let admitted = async {
            match &mut next {
                Some(next) => next.admission.as_mut().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = scope.cancel().cancelled() => {
                let ending = async { while running.next().await.is_some() {} };
                // Whether all of them made it is of no interest: each has recorded what it did.
                let _ = tokio::time::timeout(grace, ending).await;
                break interrupted();
            }
            Some((number, result)) = running.next() => {
                match result {
                    Ok((Ok(result), admission)) => {
                        stop.remove(&number);
                        drop(admission);
                        window.succeeded();
                        done.push((number, result));
                    }
                    Ok((Err(error), _)) | Err(error) => break error,
                }
            }
            admission = admitted => {
                let Some(Next { part, .. }) = next.take() else { continue };
                next = Next::of(&mut parts, window, cost);
                let lane = lanes.pick();
                let moving = job(lane, part);
                let task = Task(lanes.spawn(lane, admission.turn().scope(async move {
                    // Given back where the outcome is looked at: after a failure nothing follows.
                    Ok((moving.await, admission))
                })));
                stop.insert(part.number, task.0.abort_handle());
                running.push(async move { (part.number, task.await) });
            }
            () = tokio::time::sleep_until(look_at) => look_at = window.look(Instant::now(), lanes),
        }
    };
    // Waited for, not only asked: an upload is aborted and a file removed right after this, and
    // neither may race a part that still runs.
    for task in stop.values() {
        task.abort();
    }
    while running.next().await.is_some() {}
    Err(failure)
}

/// Starts every part with `job`, as many as the scope's window admits and as its budget holds, and
/// yields the results in the order of the parts, each with the memory it takes until that is dropped.
/// Dropping the stream stops what is under way.
pub(crate) fn run_ordered<T, J, F>(
    lanes: Arc<Lanes>,
    cost: Cost,
    mut parts: impl Iterator<Item = Part> + Send,
    scope: RetryScope,
    job: J,
) -> impl Stream<Item = Result<(T, Memory)>> + Send
where
    T: Send + 'static,
    J: Fn(LaneId, Part) -> F + Send,
    F: Future<Output = Result<T>> + Send + 'static,
{
    let mut next = Next::of(&mut parts, scope.window(), cost);
    let mut running = FuturesOrdered::new();
    let mut look_at = Box::pin(tokio::time::sleep_until(Instant::now()));
    let mut starved_since = None;
    futures::stream::poll_fn(move |context| {
        let window = scope.window();
        while look_at.as_mut().poll(context).is_ready() {
            look_at.as_mut().reset(window.look(Instant::now(), &lanes));
        }
        // What has been fetched and waits for its turn counts as well: what is too far ahead of a slow
        // reader only leaves the cache.
        while running.len() < ahead(window.limit())
            && let Some(waiting) = &mut next
        {
            let Poll::Ready(admission) = waiting.admission.as_mut().poll(context) else { break };
            let part = waiting.part;
            next = Next::of(&mut parts, window, cost);
            let lane = lanes.pick();
            let moving = job(lane, part);
            running.push_back(Task(lanes.spawn(
                lane,
                admission.turn().scope(async move {
                    let result = moving.await?;
                    Ok((result, admission.fetched()))
                }),
            )));
        }
        if running.is_empty()
            && let Some(waiting) = &mut next
        {
            // Other streams may hold all of the memory until this one's reader has read on.
            let since = *starved_since.get_or_insert_with(Instant::now);
            if since.elapsed() < STARVED_FOR {
                return Poll::Pending;
            }
            starved_since = None;
            let window = window.clone();
            waiting.admission = Box::pin(async move { window.admit(0).await });
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        starved_since = None;
        let result = ready!(running.poll_next_unpin(context));
        if let Some(Ok(_)) = &result {
            window.succeeded();
        }
        Poll::Ready(result)
    })
}

pub(crate) fn interrupted() -> Error {
    Error::new(ErrorKind::Interrupted, "transfer", "", "stopped as asked")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::flow::Flow;
    use crate::options::Cancel;

    const COST: Cost = Cost { memory_bytes: 1 };

    fn parts(count: u32) -> impl Iterator<Item = Part> + Send {
        (1..=count).map(|number| Part { number, offset_bytes: u64::from(number - 1), len_bytes: 1 })
    }

    #[tokio::test]
    async fn the_window_is_never_exceeded_and_order_is_kept() {
        let lanes = Arc::new(Lanes::start(2).expect("two threads"));
        let (now, peak) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let job = |_, part: Part| {
            let (now, peak) = (Arc::clone(&now), Arc::clone(&peak));
            async move {
                peak.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                // Later parts finish first.
                tokio::time::sleep(Duration::from_millis(u64::from(20 - part.number) / 4)).await;
                now.fetch_sub(1, Ordering::SeqCst);
                Ok(part.number)
            }
        };
        let narrow = |parts| RetryScope::default().within(Window::default().fixed(parts));
        let numbers =
            run_parts(&lanes, COST, parts(20), &narrow(3), Duration::ZERO, job).await.expect("all");
        assert_eq!(numbers, (1..=20).collect::<Vec<_>>());
        assert!(peak.load(Ordering::SeqCst) <= 3);
        let ordered: Vec<_> = run_ordered(lanes, COST, parts(9), narrow(4), |_, part| async move {
            tokio::time::sleep(Duration::from_millis(u64::from(9 - part.number))).await;
            Ok(part.number)
        })
        .map(|number| number.expect("moved").0)
        .collect()
        .await;
        assert_eq!(ordered, (1..=9).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn streams_that_are_read_in_turns_do_not_wait_for_each_other() {
        let lanes = Arc::new(Lanes::start(1).expect("a thread"));
        let bounds = super::super::Bounds { parts: 8, memory_bytes: 2 * 4096 };
        let window = Window::adaptive(bounds, crate::flow::Meter::default());
        let cost = Cost { memory_bytes: 4096 };
        let parts = || (1..=3).map(|number| Part { number, offset_bytes: 0, len_bytes: 4096 });
        let stream = || {
            let scope = RetryScope::default().within(window.clone());
            Box::pin(run_ordered(lanes.clone(), cost, parts(), scope, |_, part| async move {
                Ok(part.number)
            }))
        };
        let (mut one, mut other) = (stream(), stream());
        let first = one.next().await.expect("one").expect("moved");
        let second = one.next().await.expect("two").expect("moved");
        // The budget is used up, by what waits for the other stream's turn.
        let others = tokio::time::timeout(Duration::from_secs(20), other.next()).await;
        assert_eq!(others.expect("in time").expect("one").expect("moved").0, 1);
        drop((first, second));
        assert_eq!(one.next().await.expect("three").expect("moved").0, 3);
    }

    #[tokio::test]
    async fn a_store_that_asks_for_less_gets_less_until_it_takes_more() {
        let lanes = Arc::new(Lanes::start(2).expect("two threads"));
        let now = Arc::new(AtomicUsize::new(0));
        let job = |_, _| {
            let now = Arc::clone(&now);
            async move {
                let running = now.fetch_add(1, Ordering::SeqCst) + 1;
                tokio::time::sleep(Duration::from_millis(2)).await;
                now.fetch_sub(1, Ordering::SeqCst);
                Ok(running)
            }
        };
        let braked = || {
            let scope = RetryScope::default().within(Window::default().fixed(8));
            scope.window().throttled(Instant::now());
            scope
        };
        let scope = braked();
        let in_any_order = run_parts(&lanes, COST, parts(60), &scope, Duration::ZERO, job).await;
        let in_any_order = in_any_order.expect("all");
        assert_eq!(scope.window().limit(), 8);
        let ordered = run_ordered(lanes, COST, parts(60), braked(), job);
        let ordered: Vec<_> = ordered.map(|running| running.expect("moved").0).collect().await;
        for running in [in_any_order, ordered] {
            // Four, and one more for each that is done, until the fourth of those.
            assert!(running[..7].iter().all(|running| *running <= 4), "{running:?}");
            assert!(running.iter().all(|running| *running <= 8), "{running:?}");
        }
    }

    #[tokio::test]
    async fn a_failure_stops_the_others() {
        let lanes = Arc::new(Lanes::start(2).expect("two threads"));
        let started = Arc::new(AtomicUsize::new(0));
        let job = |_, part: Part| {
            let started = Arc::clone(&started);
            async move {
                started.fetch_add(1, Ordering::SeqCst);
                if part.number == 2 {
                    return Err(Error::new(ErrorKind::Rejected, "send", "part 2", "no"));
                }
                std::future::pending::<Result<()>>().await
            }
        };
        let scope = RetryScope::default().within(Window::default().fixed(4));
        let error =
            run_parts(&lanes, COST, parts(100), &scope, Duration::ZERO, job).await.expect_err("2");
        assert_eq!(error.kind(), ErrorKind::Rejected);
        assert!(started.load(Ordering::SeqCst) <= 5);
    }

    #[tokio::test]
    async fn a_cancel_ends_it() {
        let lanes = Arc::new(Lanes::start(1).expect("a thread"));
        let cancel = Cancel::default();
        cancel.cancel();
        let scope = RetryScope::new(&Flow::default(), cancel);
        let job = |_, _| std::future::pending::<Result<()>>();
        let error = run_parts(&lanes, COST, parts(8), &scope, Duration::ZERO, job)
            .await
            .expect_err("cancelled");
        assert_eq!(error.kind(), ErrorKind::Interrupted);
    }
}
