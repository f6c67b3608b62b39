//! How far a transfer is and how fast it goes, from the engine's events.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use brigade::progress::{Event, Operation};

use super::job::Job;

/// Speeds are measured over this long: short enough to follow a change, long enough not to flicker.
const WINDOW: Duration = Duration::from_secs(3);

/// What to call what is going on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing moves yet: the store is being asked about the object.
    Connecting,
    Moving(Operation),
    Finishing,
    Verifying,
}

/// The state of one transfer. A new [`Event::Started`] begins the next.
#[derive(Debug)]
pub(super) struct Meter {
    pub(super) phase: Phase,
    /// Where it is a job of many objects.
    pub(super) job: Option<Job>,
    pub(super) bytes_done: u64,
    /// Those of them that an earlier run moved: no part of the speed.
    bytes_kept: u64,
    pub(super) bytes_total: u64,
    pub(super) parts_done: u32,
    pub(super) parts_total: u32,
    pub(super) parts_in_flight: u32,
    /// Bytes done at moments of the last [`WINDOW`], oldest first.
    samples: VecDeque<(Instant, u64)>,
}

impl Default for Meter {
    fn default() -> Self {
        Self {
            phase: Phase::Connecting,
            job: None,
            bytes_done: 0,
            bytes_kept: 0,
            bytes_total: 0,
            parts_done: 0,
            parts_total: 0,
            parts_in_flight: 0,
            samples: VecDeque::new(),
        }
    }
}

impl Meter {
    pub(super) fn event(&mut self, event: &Event, now: Instant) {
        if let Some(job) = &mut self.job {
            job.event(event);
        }
        match event {
            Event::Started { operation, size_bytes, parts, .. } => {
                *self = Self {
                    phase: Phase::Moving(*operation),
                    bytes_total: *size_bytes,
                    parts_total: *parts,
                    samples: VecDeque::from([(now, 0)]),
                    ..Self::default()
                }
            }
            Event::JobStarted { job, .. } => {
                *self = Self {
                    job: Some(Job::begun(job)),
                    samples: VecDeque::from([(now, 0)]),
                    ..Self::default()
                }
            }
            Event::Found { bytes, .. } => self.bytes_total += bytes,
            Event::PartStarted { .. } => self.parts_in_flight += 1,
            Event::Moved { bytes } => self.bytes_done += bytes,
            Event::Rewound { bytes } => self.bytes_done = self.bytes_done.saturating_sub(*bytes),
            Event::PartDone { .. } => {
                self.parts_done += 1;
                self.parts_in_flight = self.parts_in_flight.saturating_sub(1);
            }
            Event::PartKept { size_bytes, .. } => {
                self.parts_done += 1;
                self.bytes_done += size_bytes;
                self.bytes_kept += size_bytes;
            }
            Event::Finishing => self.phase = Phase::Finishing,
            Event::Verifying => self.phase = Phase::Verifying,
            _ => {}
        }
    }

    /// Whether nobody knows how much there will be.
    pub(super) fn is_open(&self) -> bool {
        self.phase != Phase::Connecting && self.parts_total == 0
    }

    /// Notes where things stand now; [`Meter::bytes_per_s`] compares such notes.
    pub(super) fn sample(&mut self, now: Instant) {
        self.samples.push_back((now, self.bytes_done.saturating_sub(self.bytes_kept)));
        // One sample older than the window stays, so that the window is covered in full.
        while self.samples.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= WINDOW) {
            self.samples.pop_front();
        }
    }

    /// The speed over the last samples; 0 before there are two.
    pub(super) fn bytes_per_s(&self) -> u64 {
        let (Some((since, before)), Some((now, after))) =
            (self.samples.front(), self.samples.back())
        else {
            return 0;
        };
        let micros = now.duration_since(*since).as_micros();
        let moved = u128::from(after.saturating_sub(*before));
        (moved * 1_000_000)
            .checked_div(micros)
            .map_or(0, |rate| rate.try_into().unwrap_or(u64::MAX))
    }

    /// How long the rest takes at this speed; `None` when nothing moves.
    pub(super) fn remaining(&self) -> Option<Duration> {
        let left = self.bytes_total.saturating_sub(self.bytes_done);
        (left * 1_000).checked_div(self.bytes_per_s()).map(Duration::from_millis)
    }

    /// Whole percent done, at most 100. An empty object is done from the start.
    pub(super) fn percent(&self) -> u64 {
        let done = u128::from(self.bytes_done.min(self.bytes_total)) * 100;
        let percent = done.checked_div(u128::from(self.bytes_total)).unwrap_or(100);
        percent.try_into().unwrap_or(100)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started(size_bytes: u64, parts: u32) -> Event {
        Event::Started {
            operation: Operation::Upload,
            source: "f".into(),
            target: "s3://b/k".into(),
            size_bytes,
            parts,
            part_size_bytes: 100,
            concurrency: 4,
        }
    }

    #[test]
    fn a_transfer_is_followed_from_start_to_end() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut meter = Meter::default();
        assert_eq!(
            (meter.phase, meter.bytes_per_s(), meter.remaining()),
            (Phase::Connecting, 0, None)
        );
        meter.event(&started(1_000, 10), start);
        meter.event(&Event::PartStarted { part: 1, size_bytes: 100 }, start);
        meter.event(&Event::PartStarted { part: 2, size_bytes: 100 }, start);
        meter.event(&Event::Moved { bytes: 300 }, at(1_000));
        meter.event(&Event::Rewound { bytes: 50 }, at(1_000));
        meter.event(&Event::PartDone { part: 1, size_bytes: 100, elapsed_ms: 9 }, at(1_000));
        meter.sample(at(1_000));
        assert_eq!((meter.parts_done, meter.parts_in_flight), (1, 1));
        assert_eq!((meter.percent(), meter.bytes_per_s()), (25, 250));
        assert_eq!(meter.remaining(), Some(Duration::from_secs(3)));
        meter.event(&Event::Verifying, at(1_000));
        assert_eq!(meter.phase, Phase::Verifying);
    }

    #[test]
    fn speed_forgets_what_is_long_past() {
        let start = Instant::now();
        let mut meter = Meter::default();
        meter.event(&started(1 << 40, 10), start);
        for second in 1..=20 {
            meter.event(&Event::Moved { bytes: if second <= 10 { 1_000 } else { 10 } }, start);
            meter.sample(start + Duration::from_secs(second));
        }
        assert_eq!(meter.bytes_per_s(), 10);
        assert!(meter.samples.len() <= 5);
    }

    #[test]
    fn what_was_there_already_is_progress_but_no_speed() {
        let start = Instant::now();
        let mut meter = Meter::default();
        meter.event(&started(1_000, 10), start);
        meter.event(&Event::PartKept { part: 1, size_bytes: 900 }, start);
        meter.event(&Event::Moved { bytes: 50 }, start);
        meter.sample(start + Duration::from_secs(1));
        assert_eq!((meter.percent(), meter.parts_done, meter.bytes_per_s()), (95, 1, 50));
    }

    #[test]
    fn an_empty_object_is_done() {
        let mut meter = Meter::default();
        meter.event(&started(0, 1), Instant::now());
        assert_eq!(meter.percent(), 100);
    }
}
