//! How far a job of many objects is, in one line: it shows what is known, and says so where that is not all yet.

use std::collections::BTreeMap;

use brigade::limits::format_size;
use brigade::progress::Event;

use super::meter::Meter;
use crate::format::{countdown, one_line, rate};

/// Between two fields.
const GAP: &str = "  ";

/// What is known of a job's objects.
#[derive(Debug, Default)]
pub(super) struct Job {
    verb: &'static str,
    found: u64,
    done: u64,
    same: u64,
    failed: u64,
    pub(super) is_all_found: bool,
    /// The large ones under way, and their sizes.
    large: BTreeMap<String, u64>,
}

impl Job {
    pub(super) fn begun(job: &str) -> Self {
        let verb = match job {
            "move" => "moving",
            "sync" => "syncing",
            "verify" => "verifying",
            "run" => "running",
            _ => "copying",
        };
        Self { verb, ..Self::default() }
    }

    pub(super) fn event(&mut self, event: &Event) {
        match event {
            Event::Found { objects, .. } => self.found += objects,
            Event::Same { objects, .. } => self.same += objects,
            Event::AllFound => self.is_all_found = true,
            Event::ObjectStarted { source, size_bytes } => {
                self.large.insert(source.clone(), *size_bytes);
            }
            Event::ObjectDone { source, .. } => {
                self.done += 1;
                self.large.remove(source);
            }
            Event::ObjectFailed { source, .. } => {
                self.failed += 1;
                self.large.remove(source);
            }
            Event::Compared { .. } => self.done += 1,
            _ => {}
        }
    }
}

/// `copying  12345 of 20000 objects  1.2 GiB of 3.4 GiB  520.0 MiB/s  0:04 left  2 failed  large.bin 9.0 GiB`, as much
/// of it as fits into `columns`.
pub(super) fn line(job: &Job, meter: &Meter, columns: usize) -> String {
    let room = columns.saturating_sub(1);
    let objects = if job.is_all_found {
        format!("{} of {} objects", job.done, job.found)
    } else {
        format!("{} of {} objects, looking for more", job.done, job.found)
    };
    let done = format_size(meter.bytes_done.min(meter.bytes_total));
    let mut fields = vec![
        job.verb.to_owned(),
        objects,
        rate(meter.bytes_per_s()),
        format!("{done} of {}", format_size(meter.bytes_total)),
    ];
    if job.is_all_found {
        fields.push(format!("{} left", countdown(meter.remaining())));
    }
    for (number, what) in [(job.failed, "failed"), (job.same, "the same")] {
        if number > 0 {
            fields.push(format!("{number} {what}"));
        }
    }
    if let Some((name, size)) = job.large.iter().max_by_key(|(_, size)| **size) {
        fields.push(format!("{} {}", one_line(name), format_size(*size)));
    }
    let mut line = String::new();
    for field in fields {
        let gap = if line.is_empty() { "" } else { GAP };
        if line.chars().count() + gap.len() + field.chars().count() <= room {
            line.push_str(gap);
            line.push_str(&field);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn halfway() -> Meter {
        let (start, mut meter) = (Instant::now(), Meter::default());
        let begun = Event::JobStarted {
            job: "copy",
            source: "up".into(),
            target: "s3://b/".into(),
            dry_run: false,
        };
        let failed =
            Event::ObjectFailed { source: "up/x".into(), target: None, message: "no".into() };
        let large = Event::ObjectStarted { source: "up/large".into(), size_bytes: 9 << 30 };
        let found = Event::Found { objects: 20, bytes: 20 << 30 };
        for event in [begun, found, large, failed, Event::Moved { bytes: 10 << 30 }] {
            meter.event(&event, start);
        }
        meter.sample(start + Duration::from_secs(2));
        meter
    }

    #[test]
    fn what_is_known_is_shown_as_far_as_it_fits() {
        let mut meter = halfway();
        let shown =
            |meter: &Meter, columns| line(meter.job.as_ref().expect("a job"), meter, columns);
        assert_eq!(
            shown(&meter, 120),
            "copying  0 of 20 objects, looking for more  5.0 GiB/s  10.0 GiB of 20.0 GiB  1 failed  \
             up/large 9.0 GiB"
        );
        assert_eq!(shown(&meter, 40), "copying  5.0 GiB/s  1 failed");
        meter.event(&Event::AllFound, Instant::now());
        assert_eq!(
            shown(&meter, 80),
            "copying  0 of 20 objects  5.0 GiB/s  10.0 GiB of 20.0 GiB  0:02 left  1 failed"
        );
        for columns in 0..130 {
            assert!(shown(&meter, columns).chars().count() < columns.max(1));
        }
    }
}
