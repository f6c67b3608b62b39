//! A bounded number of parts in flight: any order for files, the plan's order for streams.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{FuturesUnordered, Stream, StreamExt};
use tokio::task::{AbortHandle, JoinHandle};

use super::{LaneId, Lanes};
use crate::error::{Error, ErrorKind, Result};
use crate::options::Cancel;
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

    fn poll(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<T>> {
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

/// Moves every part with `job`, at most `window` at a time, and gives the results in the order of
/// the parts. The first failure, or a cancel, stops the others, and nothing of them runs any more
/// when this returns. After a cancel the parts in flight get `grace` to end by themselves.
pub(crate) async fn run_parts<T, J, F>(
    lanes: &Arc<Lanes>,
    window: usize,
    parts: impl Iterator<Item = Part>,
    cancel: &Cancel,
    grace: Duration,
    job: J,
) -> Result<Vec<T>>
where
    T: Send + 'static,
    J: Fn(LaneId, Part) -> F,
    F: Future<Output = Result<T>> + Send + 'static,
{
    let mut parts = parts.enumerate();
    let mut running = FuturesUnordered::new();
    let mut stop: HashMap<usize, AbortHandle> = HashMap::new();
    let mut done = Vec::new();
    let failure = loop {
        while running.len() < window.max(1) {
            let Some((index, part)) = parts.next() else { break };
            let lane = lanes.pick();
            let task = Task(lanes.spawn(lane, job(lane, part)));
            stop.insert(index, task.0.abort_handle());
            running.push(async move { (index, task.await) });
        }
        let next = tokio::select! {
            biased;
            () = cancel.cancelled() => {
                let ending = async { while running.next().await.is_some() {} };
                // Whether all of them made it is of no interest: each has recorded what it did.
                let _ = tokio::time::timeout(grace, ending).await;
                break interrupted();
            }
            next = running.next() => next,
        };
        match next {
            Some((index, Ok(result))) => {
                stop.remove(&index);
                done.push((index, result));
            }
            Some((_, Err(error))) => break error,
            None => {
                done.sort_unstable_by_key(|(index, _)| *index);
                return Ok(done.into_iter().map(|(_, result)| result).collect());
            }
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

/// Starts every part with `job`, at most `window` ahead of the reader, and yields the results in
/// the order of the parts. Dropping the stream stops what is under way.
pub(crate) fn run_ordered<T, J, F>(
    lanes: Arc<Lanes>,
    window: usize,
    parts: impl Iterator<Item = Part> + Send,
    job: J,
) -> impl Stream<Item = Result<T>> + Send
where
    T: Send + 'static,
    J: Fn(LaneId, Part) -> F + Send,
    F: Future<Output = Result<T>> + Send + 'static,
{
    futures::stream::iter(parts)
        .map(move |part| {
            let lane = lanes.pick();
            Task(lanes.spawn(lane, job(lane, part)))
        })
        .buffered(window.max(1))
}

pub(crate) fn interrupted() -> Error {
    Error::new(ErrorKind::Interrupted, "transfer", "", "stopped as asked")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

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
        let numbers = run_parts(&lanes, 3, parts(20), &Cancel::default(), Duration::ZERO, job)
            .await
            .expect("all");
        assert_eq!(numbers, (1..=20).collect::<Vec<_>>());
        assert!(peak.load(Ordering::SeqCst) <= 3);
        let ordered: Vec<_> = run_ordered(lanes, 4, parts(9), |_, part| async move {
            tokio::time::sleep(Duration::from_millis(u64::from(9 - part.number))).await;
            Ok(part.number)
        })
        .map(|number| number.expect("moved"))
        .collect()
        .await;
        assert_eq!(ordered, (1..=9).collect::<Vec<_>>());
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
        let error = run_parts(&lanes, 4, parts(100), &Cancel::default(), Duration::ZERO, job)
            .await
            .expect_err("2");
        assert_eq!(error.kind(), ErrorKind::Rejected);
        assert!(started.load(Ordering::SeqCst) <= 5);
    }

    #[tokio::test]
    async fn a_cancel_ends_it() {
        let lanes = Arc::new(Lanes::start(1).expect("a thread"));
        let cancel = Cancel::default();
        cancel.cancel();
        let job = |_, _| std::future::pending::<Result<()>>();
        let error = run_parts(&lanes, 4, parts(8), &cancel, Duration::ZERO, job)
            .await
            .expect_err("cancelled");
        assert_eq!(error.kind(), ErrorKind::Interrupted);
    }
}
