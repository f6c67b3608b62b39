//! What passes: every payload byte is counted here, held back where a bandwidth limit says so, and told
//! to whoever listens; and where the time of a transfer goes is added up.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::progress::{Emitter, Event};

/// What a limit lets through at once after a pause: a fraction of any timer's tick, so that there are no
/// bursts, and enough that a late wake-up is made up for.
const SLACK: Duration = Duration::from_millis(10);

/// What a whole session has moved. Clones count together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Meter(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    moved_bytes: AtomicU64,
    latency_us: AtomicU64,
    limit: Option<Limit>,
}

impl Meter {
    /// One that lets no more than so many bytes a second pass, if any number is given.
    pub(crate) fn limited_to(bytes_per_s: Option<u64>) -> Self {
        let limit = bytes_per_s.map(Limit::new);
        Self(Arc::new(Counts { limit, ..Counts::default() }))
    }

    /// Payload bytes went to, or came from, the network.
    pub(crate) fn moved(&self, bytes: u64) {
        self.0.moved_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// All of them so far, those that will be moved again included.
    pub(crate) fn moved_bytes(&self) -> u64 {
        self.0.moved_bytes.load(Ordering::Relaxed)
    }

    /// An answer began so long after its request had been sent.
    pub(crate) fn answered_after(&self, latency: Duration) {
        let new = micros(latency);
        // Two threads at once lose one of many samples.
        let old = self.0.latency_us.load(Ordering::Relaxed);
        let smooth = if old == 0 { new } else { (3 * old + new) / 4 };
        self.0.latency_us.store(smooth.max(1), Ordering::Relaxed);
    }

    /// How long answers took to begin, lately; zero before the first.
    pub(crate) fn latency(&self) -> Duration {
        Duration::from_micros(self.0.latency_us.load(Ordering::Relaxed))
    }
}

/// A rate that bytes pass at, at most: each takes its turn behind the ones before it.
#[derive(Debug)]
struct Limit {
    ns_per_byte: f64,
    /// When everything that was let through so far will have passed.
    passed_at: Mutex<Option<Instant>>,
}

impl Limit {
    fn new(bytes_per_s: u64) -> Self {
        Self { ns_per_byte: 1e9 / bytes_per_s.max(1) as f64, passed_at: Mutex::default() }
    }

    /// When these bytes have passed.
    fn reserve(&self, bytes: u64, now: Instant) -> Instant {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let takes = Duration::from_nanos((bytes as f64 * self.ns_per_byte) as u64);
        let mut passed_at = self.passed_at.lock().unwrap_or_else(PoisonError::into_inner);
        let earliest = now.checked_sub(SLACK).unwrap_or(now);
        let after = passed_at.map_or(earliest, |at| at.max(earliest)) + takes;
        *passed_at = Some(after);
        after
    }
}

/// One transfer's bytes and time. Cheap to clone; the clones are one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Flow {
    events: Emitter,
    meter: Meter,
    spent: Arc<Spent>,
}

/// Where the time of all parts of one transfer went, in microseconds.
#[derive(Debug, Default)]
struct Spent {
    first_byte: AtomicU64,
    network: AtomicU64,
    throttled: AtomicU64,
    limited: AtomicU64,
    disk: AtomicU64,
    disk_queue: AtomicU64,
}

/// The same, as it is at one moment: summed over all parts, which wait at the same time.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Waits {
    /// For the first byte of an answer.
    pub(crate) first_byte: Duration,
    /// For bytes to leave or to arrive.
    pub(crate) network: Duration,
    /// Because the store had asked for fewer requests.
    pub(crate) throttled: Duration,
    /// Because of a limit of the user's own.
    pub(crate) limited: Duration,
    /// For a disk, or for whoever reads the other end of a pipe, while the lane was blocked.
    pub(crate) disk: Duration,
    /// For a disk, while the lane went on with others.
    pub(crate) disk_queue: Duration,
}

impl Flow {
    pub(crate) fn new(events: Emitter, meter: Meter) -> Self {
        Self { events, meter, spent: Arc::default() }
    }

    pub(crate) fn events(&self) -> &Emitter {
        &self.events
    }

    /// The same, where nobody is told: of bytes that were told of before.
    pub(crate) fn unheard(&self) -> Self {
        Self { events: Emitter::default(), ..self.clone() }
    }

    /// Payload bytes went to, or came from, the network.
    pub(crate) fn moved(&self, bytes: u64) {
        self.meter.moved(bytes);
        self.events.moved(bytes);
    }

    /// So many of the bytes that were told came to nothing.
    pub(crate) fn take_back(&self, bytes: u64) {
        if bytes > 0 {
            self.events.emit(|| Event::Rewound { bytes });
        }
    }

    /// When these bytes may have passed; `None` where nothing limits them.
    pub(crate) fn reserve(&self, bytes: u64) -> Option<Instant> {
        let limit = self.meter.0.limit.as_ref()?;
        let now = Instant::now();
        let passed = limit.reserve(bytes, now);
        let wait = passed.saturating_duration_since(now);
        self.spent.limited.fetch_add(micros(wait), Ordering::Relaxed);
        (!wait.is_zero()).then_some(passed)
    }

    /// Waits until these bytes may have passed.
    pub(crate) async fn limited(&self, bytes: u64) {
        if let Some(passed) = self.reserve(bytes) {
            tokio::time::sleep_until(passed).await;
        }
    }

    /// A request was answered: its body took `sending` to leave, and the answer `waiting` to begin.
    pub(crate) fn answered(&self, sending: Duration, waiting: Duration) {
        add(&self.spent.network, sending);
        add(&self.spent.first_byte, waiting);
        self.meter.answered_after(waiting);
    }

    /// An answer's body took so long to arrive.
    pub(crate) fn received(&self, receiving: Duration) {
        add(&self.spent.network, receiving);
    }

    /// A request waited so long because the store had asked for fewer.
    pub(crate) fn held_back(&self, waiting: Duration) {
        add(&self.spent.throttled, waiting);
    }

    /// A disk was waited for, and the lane was blocked.
    pub(crate) fn disk(&self, waiting: Duration) {
        add(&self.spent.disk, waiting);
    }

    /// A part waited for a disk, and the lane went on with others.
    pub(crate) fn queued_for_disk(&self, waiting: Duration) {
        add(&self.spent.disk_queue, waiting);
    }

    pub(crate) fn waits(&self) -> Waits {
        let time = |of: &AtomicU64| Duration::from_micros(of.load(Ordering::Relaxed));
        let Spent { first_byte, network, throttled, limited, disk, disk_queue } = &*self.spent;
        Waits {
            first_byte: time(first_byte),
            network: time(network),
            throttled: time(throttled),
            limited: time(limited),
            disk: time(disk),
            disk_queue: time(disk_queue),
        }
    }

    /// Counts what one attempt moves, and takes it back from what was told if it comes to nothing.
    pub(crate) fn attempt(&self) -> AttemptBytes {
        AttemptBytes { flow: self.clone(), bytes: 0 }
    }
}

/// See [`Flow::attempt`].
#[derive(Debug)]
pub(crate) struct AttemptBytes {
    flow: Flow,
    bytes: u64,
}

impl AttemptBytes {
    pub(crate) fn moved(&mut self, bytes: u64) {
        self.bytes += bytes;
        self.flow.moved(bytes);
    }

    /// They count.
    pub(crate) fn keep(mut self) {
        self.bytes = 0;
    }
}

impl Drop for AttemptBytes {
    fn drop(&mut self) {
        self.flow.take_back(self.bytes);
    }
}

fn add(to: &AtomicU64, time: Duration) {
    to.fetch_add(micros(time), Ordering::Relaxed);
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_kept_without_bursts() {
        let limit = Limit::new(200 << 20);
        let begun = Instant::now();
        // Frames of all lanes, which come as fast as they are let through.
        let (mut now, mut passed) = (begun, 0_u64);
        while now < begun + Duration::from_secs(10) {
            let at = limit.reserve(256 << 10, now);
            assert!(at + SLACK >= now);
            now = now.max(at);
            passed += 256 << 10;
        }
        let rate = passed as f64 / (now - begun).as_secs_f64() / f64::from(200 << 20);
        assert!((0.99..1.01).contains(&rate), "{rate}");
        // A pause is not made up for.
        let after = now + Duration::from_mins(1);
        let at = limit.reserve(20 << 20, after);
        assert!(at >= after + Duration::from_millis(85), "{:?}", at - after);
    }

    #[test]
    fn an_attempt_that_comes_to_nothing_is_taken_back() {
        let (events, told) = crate::progress::channel();
        let flow = Flow::new(events, Meter::default());
        let mut kept = flow.attempt();
        kept.moved(5);
        kept.keep();
        let mut lost = flow.attempt();
        lost.moved(7);
        drop((lost, flow));
        let told: Vec<_> = futures::executor::block_on_stream(told).collect();
        assert_eq!(told.last(), Some(&Event::Rewound { bytes: 7 }));
    }
}
