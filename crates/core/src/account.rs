//! Where the time of a transfer went, and so what would make it faster.
//!
//! The lanes' time is what there is to give away: so many threads for as long as the transfer took. What
//! they ran, or waited for a processor, is the processors'; what they were blocked in writing or reading
//! files is the disk's. The rest of the time they had nothing to do but wait for sockets and clocks, and
//! it is divided in the proportion in which the parts under way waited for what.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::flow::{Flow, Waits};
use crate::report::TimeSpent;
use crate::schedule::Lanes;

/// One transfer's time, from its beginning.
#[derive(Debug)]
pub(crate) struct Account {
    begun: Instant,
    lanes: Arc<Lanes>,
    /// What the lanes had run and waited for by then.
    ran: Duration,
    queued: Duration,
    flow: Flow,
    phases: Mutex<Phases>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Phases {
    /// While parts were under way.
    moving: Duration,
    /// While nothing was but the disk.
    disk: Duration,
}

impl Account {
    pub(crate) fn open(lanes: &Arc<Lanes>, flow: &Flow) -> Self {
        let (ran, queued) = lanes.times();
        let (lanes, flow) = (Arc::clone(lanes), flow.clone());
        Self { begun: Instant::now(), lanes, ran, queued, flow, phases: Mutex::default() }
    }

    /// Parts were under way from `begun` until now.
    pub(crate) fn moved_since(&self, begun: Instant) {
        self.phases().moving += begun.elapsed();
    }

    /// Nothing but a disk was waited for from `begun` until now.
    pub(crate) fn synced_since(&self, begun: Instant) {
        self.phases().disk += begun.elapsed();
    }

    /// The account as it stands now. `wants_more`: whether more parts in flight would have brought
    /// more, and a bound kept them out.
    pub(crate) fn close(&self, wants_more: bool) -> TimeSpent {
        let (ran, queued) = self.lanes.times();
        let queued = queued.saturating_sub(self.queued);
        let mut waits = self.flow.waits();
        // What is held back is under way all the while.
        waits.network = waits.network.saturating_sub(waits.limited);
        // A thread that is blocked in a call may as well wait for a processor to return from it.
        waits.disk = waits.disk.saturating_sub(queued);
        let busy = ran.saturating_sub(self.ran) + queued;
        let phases = *self.phases();
        divide(self.begun.elapsed(), self.lanes.count(), busy, phases, waits, wants_more)
    }

    fn phases(&self) -> std::sync::MutexGuard<'_, Phases> {
        self.phases.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn divide(
    wall: Duration,
    lanes: usize,
    busy: Duration,
    phases: Phases,
    waits: Waits,
    wants_more: bool,
) -> TimeSpent {
    let lanes = lanes as f64;
    let all = (wall.as_secs_f64() * lanes).max(1e-9);
    let mut rest = all;
    let mut take = |seconds: f64| {
        let taken = seconds.min(rest).max(0.0);
        rest -= taken;
        taken / all
    };
    let cpu = take(busy.as_secs_f64());
    let mut disk = take(waits.disk.as_secs_f64() + phases.disk.as_secs_f64() * lanes);
    let alone = wall.saturating_sub(phases.moving + phases.disk);
    let mut first_byte = take(alone.as_secs_f64() * lanes);
    let weights =
        [waits.first_byte, waits.network, waits.throttled, waits.limited, waits.disk_queue];
    let weights = weights.map(|time| time.as_secs_f64());
    let sum: f64 = weights.iter().sum();
    let rest = rest / all;
    let share = |weight: f64| if sum > 0.0 { rest * weight / sum } else { 0.0 };
    let mut network = if sum > 0.0 { share(weights[1]) } else { rest };
    let (throttled, limited) = (share(weights[2]), share(weights[3]));
    first_byte += share(weights[0]);
    disk += share(weights[4]);
    let mut window = 0.0;
    if wants_more {
        window = share(weights[0]) + network;
        first_byte -= share(weights[0]);
        network = 0.0;
    }
    TimeSpent { first_byte, network, disk, cpu, throttled, bandwidth_limit: limited, window }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn of(busy: u64, disk: u64, waits: Waits, wants_more: bool) -> TimeSpent {
        let phases = Phases { moving: seconds(9), disk: seconds(disk) };
        divide(seconds(10 + disk), 2, seconds(busy), phases, waits, wants_more)
    }

    fn whole(spent: &TimeSpent) -> f64 {
        let TimeSpent { first_byte, network, disk, cpu, throttled, bandwidth_limit, window } =
            spent;
        first_byte + network + disk + cpu + throttled + bandwidth_limit + window
    }

    #[test]
    fn everything_is_given_away_once() {
        let waits = Waits { first_byte: seconds(30), network: seconds(90), ..Waits::default() };
        let spent = of(4, 0, waits, false);
        assert!((whole(&spent) - 1.0).abs() < 1e-9, "{spent:?}");
        // 20 lane seconds: 4 busy, 2 before and after the parts, a quarter of 14 for first bytes.
        assert!((spent.cpu - 0.2).abs() < 1e-9, "{spent:?}");
        assert!((spent.first_byte - (2.0 + 3.5) / 20.0).abs() < 1e-9, "{spent:?}");
        assert_eq!(spent.limited_by().0, "the network");
        assert_eq!(of(4, 0, waits, true).limited_by().0, "the parts in flight");
        assert_eq!(of(19, 0, waits, false).limited_by().0, "the processors");
        assert_eq!(of(1, 40, waits, false).limited_by().0, "the disk");
        let throttled = Waits { throttled: seconds(500), ..waits };
        assert_eq!(
            of(1, 0, throttled, false).limited_by().0,
            "the store, which asked for fewer requests"
        );
        let queued = Waits { disk_queue: seconds(500), ..waits };
        assert_eq!(of(1, 0, queued, false).limited_by().0, "the disk");
        let limited = Waits { limited: seconds(500), ..waits };
        assert_eq!(of(1, 0, limited, false).limited_by().0, "the bandwidth limit");
        for spent in [of(500, 9, waits, true), of(0, 0, Waits::default(), false)] {
            assert!((whole(&spent) - 1.0).abs() < 1e-9, "{spent:?}");
        }
    }
}
