//! What passes: every payload byte is counted here, held back where a bandwidth limit says so, and told
//! to whoever listens; and where the time of a transfer goes is added up.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::progress::Emitter;

/// What a whole session has moved. Clones count together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Meter(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    moved_bytes: AtomicU64,
    latency_us: AtomicU64,
}

impl Meter {
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

    /// A request was answered: its body took `sending` to leave, and the answer `waiting` to begin.
    pub(crate) fn answered(&self, sending: Duration, waiting: Duration) {
        self.spent.network.fetch_add(micros(sending), Ordering::Relaxed);
        self.spent.first_byte.fetch_add(micros(waiting), Ordering::Relaxed);
        self.meter.answered_after(waiting);
    }

    /// An answer's body took so long to arrive.
    pub(crate) fn received(&self, receiving: Duration) {
        self.spent.network.fetch_add(micros(receiving), Ordering::Relaxed);
    }

    /// A request waited so long because the store had asked for fewer.
    pub(crate) fn held_back(&self, waiting: Duration) {
        self.spent.throttled.fetch_add(micros(waiting), Ordering::Relaxed);
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
