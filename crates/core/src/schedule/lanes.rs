//! One thread and one single-threaded runtime a core.

use std::future::Future;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::error::{Error, ErrorKind, Result};

/// Index of a lane, from 0.
pub(crate) type LaneId = usize;

/// The engine's threads. They start with the first session and end when the last clone of it, and
/// the last task on them, is gone.
#[derive(Debug)]
pub(crate) struct Lanes {
    lanes: Vec<Lane>,
    next: AtomicUsize,
}

#[derive(Debug)]
struct Lane {
    runtime: Handle,
    /// Where the kernel tells how long its thread ran and waited to run.
    statistics: PathBuf,
    // Dropping the sender ends the thread.
    _stop: oneshot::Sender<()>,
}

impl Lanes {
    /// Starts `count` lanes, at least one.
    pub(crate) fn start(count: usize) -> Result<Self> {
        let lanes = (0..count.max(1)).map(Lane::start).collect::<Result<_>>()?;
        Ok(Self { lanes, next: AtomicUsize::new(0) })
    }

    /// Round robin: parts of one plan are alike, so turns keep lanes as even as counting would.
    pub(crate) fn pick(&self) -> LaneId {
        self.next.fetch_add(1, Ordering::Relaxed) % self.lanes.len()
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.lanes.len()
    }

    /// How long all lanes together have run, and waited for a processor that was not free, since they
    /// began. Zero where the kernel does not tell.
    pub(crate) fn times(&self) -> (Duration, Duration) {
        self.lanes
            .iter()
            .map(Lane::times)
            .fold(Default::default(), |(ran, queued), lane| (ran + lane.0, queued + lane.1))
    }

    /// Both together: the processor time that they wanted.
    pub(super) fn demand(&self) -> Duration {
        let (ran, queued) = self.times();
        ran + queued
    }

    /// Runs `task` on `lane`.
    pub(crate) fn spawn<F>(&self, lane: LaneId, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.lanes[lane].runtime.spawn(task)
    }
}

impl Lane {
    fn start(id: LaneId) -> Result<Self> {
        let failed = |source: std::io::Error| {
            Error::new(ErrorKind::Io, "start", "a transfer thread", source.to_string())
                .caused_by(source)
        };
        // The runtime is made here, so that a failure is an error and not a dead thread.
        let runtime = Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::Builder::new()
            .name(format!("brigade-lane-{id}"))
            .spawn(move || {
                // Whoever asked may have given up.
                let _ = tell.send(rustix::thread::gettid());
                // Ends with an error, as meant, when the sender is dropped.
                let _ = runtime.block_on(stopped);
                // A name lookup or a disk may still hold one of the runtime's own threads.
                runtime.shutdown_timeout(Duration::from_millis(100));
            })
            .map_err(failed)?;
        let id = told.recv().map_err(|source| failed(std::io::Error::other(source)))?;
        let statistics = format!("/proc/self/task/{}/schedstat", id.as_raw_nonzero()).into();
        Ok(Self { runtime: handle, statistics, _stop: stop })
    }

    fn times(&self) -> (Duration, Duration) {
        // Nanoseconds run, nanoseconds waited, turns (Linux, Documentation/scheduler/sched-stats).
        let told = std::fs::read_to_string(&self.statistics).unwrap_or_default();
        let mut times = told.split_whitespace().map_while(|time| time.parse().ok());
        let mut next = || times.next().map_or(Duration::ZERO, Duration::from_nanos);
        (next(), next())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_run_on_the_lane_they_are_given_to() {
        let lanes = Lanes::start(3).expect("three threads");
        for lane in 0..3 {
            let (sender, receiver) = std::sync::mpsc::channel();
            lanes.spawn(lane, async move {
                let name = std::thread::current().name().map(str::to_owned);
                sender.send(name).expect("a listener");
            });
            let name = receiver.recv().expect("an answer");
            assert_eq!(name.as_deref(), Some(format!("brigade-lane-{lane}").as_str()));
        }
    }

    #[test]
    fn turns_are_even() {
        let lanes = Lanes::start(2).expect("two threads");
        let picks: Vec<_> = (0..4).map(|_| lanes.pick()).collect();
        assert_eq!(picks, [0, 1, 0, 1]);
    }
}
