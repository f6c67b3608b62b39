//! For programs: one JSON object a line, on standard output.
//!
//! Events are the engine's, as they are, except that moved bytes become a `progress` a few times a
//! second. The last line is the outcome: `report` or `error`, or what a command of many transfers adds
//! them up to. docs/CLI.md lists the fields.

use std::collections::HashSet;
use std::io::Write as _;
use std::time::{Duration, Instant};

use brigade::Report;
use brigade::dataset::JobReport;
use brigade::progress::Event;
use serde::Serialize;

use super::Sink;
use super::meter::Meter;
use crate::failure::Failure;

/// Between two `progress` objects.
const PROGRESS_EVERY: Duration = Duration::from_millis(250);

/// See the module.
pub(crate) struct Json {
    out: Sink,
    /// For the line a person reads; `None` when the objects themselves go to standard error.
    err: Option<Sink>,
    /// Whether progress and parts are told.
    progress: bool,
    meter: Meter,
    last_progress: Option<(Instant, u64)>,
    /// Warnings come as events and again in the report; each is told once of a transfer.
    warned: HashSet<String>,
}

#[derive(Serialize)]
struct Named<'a, T> {
    event: &'static str,
    #[serde(flatten)]
    fields: &'a T,
}

#[derive(Serialize)]
struct Progress {
    bytes_done: u64,
    bytes_total: u64,
    parts_done: u32,
    parts_total: u32,
    parts_in_flight: u32,
    throughput_bytes_per_s: u64,
}

#[derive(Serialize)]
struct Warning<'a> {
    message: &'a str,
}

#[derive(Serialize)]
struct Error<'a> {
    kind: &'static str,
    message: &'a str,
    advice: Option<&'a str>,
    exit_code: u8,
}

impl Json {
    pub(super) fn new(out: Sink, err: Option<Sink>, progress: bool) -> Self {
        let (meter, last_progress, warned) = (Meter::default(), None, HashSet::new());
        Self { out, err, progress, meter, last_progress, warned }
    }

    pub(super) fn event(&mut self, event: &Event, now: Instant) {
        self.meter.event(event, now);
        match event {
            Event::Moved { .. } | Event::Rewound { .. } => return,
            Event::Warning { message } => return self.warning(message),
            Event::PartStarted { .. } | Event::PartDone { .. } | Event::PartKept { .. }
                if !self.progress =>
            {
                return;
            }
            Event::Found { .. } | Event::Same { .. } | Event::AllFound if !self.progress => return,
            Event::Started { .. } | Event::JobStarted { .. } => self.last_progress = None,
            // The last bytes are never left out.
            Event::Finishing => self.progress(now),
            _ => {}
        }
        self.print(event);
    }

    pub(super) fn tick(&mut self, now: Instant) {
        self.meter.sample(now);
        let due = self.last_progress.is_none_or(|(at, _)| now.duration_since(at) >= PROGRESS_EVERY);
        if due {
            self.progress(now);
        }
    }

    pub(super) fn warning(&mut self, message: &str) {
        if self.warned.insert(message.to_owned()) {
            self.object("warning", &Warning { message });
        }
    }

    pub(super) fn notice(&mut self, message: &str) {
        if let Some(err) = &mut self.err {
            let _ = writeln!(err, "brigade: {message}");
        }
    }

    pub(super) fn report(&mut self, report: &Report) {
        for warning in &report.warnings {
            self.warning(warning);
        }
        self.next();
        self.object("report", report);
    }

    pub(super) fn job_report(&mut self, report: &JobReport) {
        for warning in &report.warnings {
            self.warning(warning);
        }
        self.next();
        self.object("report", report);
    }

    pub(super) fn failure(&mut self, failure: &Failure) {
        let Failure { exit, kind, message, advice } = failure;
        let (advice, exit_code) = (advice.as_deref(), exit.code());
        self.object("error", &Error { kind, message, advice, exit_code });
        self.complain(message);
        self.next();
    }

    pub(super) fn failed_one<T: Serialize>(
        &mut self,
        failure: &Failure,
        event: &'static str,
        object: &T,
    ) {
        self.object(event, object);
        self.complain(&failure.message);
    }

    fn complain(&mut self, message: &str) {
        if let Some(err) = &mut self.err {
            let _ = writeln!(err, "brigade: error: {message}");
        }
    }

    /// What comes now is of another transfer.
    fn next(&mut self) {
        self.meter = Meter::default();
        self.last_progress = None;
        self.warned.clear();
    }

    /// `fields` with the name of the event before them.
    pub(super) fn object<T: Serialize>(&mut self, event: &'static str, fields: &T) {
        self.print(&Named { event, fields });
    }

    /// Tells where things stand, unless that was told already.
    fn progress(&mut self, now: Instant) {
        let meter = &self.meter;
        let told = self.last_progress.map_or(0, |(_, bytes)| bytes);
        if !self.progress || meter.bytes_done == told {
            return;
        }
        self.last_progress = Some((now, meter.bytes_done));
        let progress = Progress {
            bytes_done: meter.bytes_done,
            bytes_total: meter.bytes_total,
            parts_done: meter.parts_done,
            parts_total: meter.parts_total,
            parts_in_flight: meter.parts_in_flight,
            throughput_bytes_per_s: meter.bytes_per_s(),
        };
        self.object("progress", &progress);
    }

    fn print(&mut self, object: &impl Serialize) {
        // Nothing told here has a map with keys that are not text, so this cannot fail; and a
        // reader that went away does not stop a transfer.
        if let Ok(line) = serde_json::to_string(object) {
            let _ = writeln!(self.out, "{line}").and_then(|()| self.out.flush());
        }
    }
}

#[cfg(test)]
mod tests {
    use brigade::progress::Operation;

    use super::super::testing::Paper;
    use super::*;
    use crate::failure::Usage;

    fn json(progress: bool) -> (Json, Paper, Paper) {
        let (out, err) = (Paper::default(), Paper::default());
        (Json::new(Box::new(out.clone()), Some(Box::new(err.clone())), progress), out, err)
    }

    fn told(json: &mut Json) {
        let start = Instant::now();
        json.event(
            &Event::Started {
                operation: Operation::Upload,
                source: "f".into(),
                target: "s3://b/k".into(),
                size_bytes: 200,
                parts: 2,
                part_size_bytes: 100,
                concurrency: 4,
            },
            start,
        );
        json.event(&Event::PartStarted { part: 1, size_bytes: 100 }, start);
        for ms in (100..=1_000).step_by(100) {
            json.event(&Event::Moved { bytes: 20 }, start);
            json.tick(start + Duration::from_millis(ms));
        }
        json.event(&Event::PartDone { part: 1, size_bytes: 100, elapsed_ms: 9 }, start);
        json.event(&Event::Warning { message: "no checksum".into() }, start);
        json.event(&Event::Warning { message: "no checksum".into() }, start);
        json.event(&Event::Finishing, start);
    }

    #[test]
    fn events_are_lines_and_progress_comes_a_few_times_a_second() {
        let (mut json, out, err) = json(true);
        told(&mut json);
        let progress = |bytes_done: u64, parts_done: u64, in_flight: u64| {
            format!(
                "{{\"event\":\"progress\",\"bytes_done\":{bytes_done},\"bytes_total\":200,\
                 \"parts_done\":{parts_done},\"parts_total\":2,\"parts_in_flight\":{in_flight},\
                 \"throughput_bytes_per_s\":200}}"
            )
        };
        let expected = [
            "{\"event\":\"started\",\"operation\":\"upload\",\"source\":\"f\",\
             \"target\":\"s3://b/k\",\"size_bytes\":200,\"parts\":2,\"part_size_bytes\":100,\
             \"concurrency\":4}",
            "{\"event\":\"part_started\",\"part\":1,\"size_bytes\":100}",
            &progress(20, 0, 1),
            &progress(80, 0, 1),
            &progress(140, 0, 1),
            &progress(200, 0, 1),
            "{\"event\":\"part_done\",\"part\":1,\"size_bytes\":100,\"elapsed_ms\":9}",
            "{\"event\":\"warning\",\"message\":\"no checksum\"}",
            "{\"event\":\"finishing\"}",
        ];
        assert_eq!(out.text().lines().collect::<Vec<_>>(), expected);
        assert_eq!(err.text(), "");
    }

    #[test]
    fn without_progress_only_milestones_remain() {
        let (mut json, out, _) = json(false);
        told(&mut json);
        let text = out.text();
        let events: Vec<_> =
            text.lines().map(|line| line.split('"').nth(3).expect("a name")).collect();
        assert_eq!(events, ["started", "warning", "finishing"]);
    }

    #[test]
    fn a_failure_is_told_to_both() {
        let (mut json, out, err) = json(true);
        json.failure(&Failure::from(&Usage::error("give a file")));
        assert_eq!(
            out.text(),
            "{\"event\":\"error\",\"kind\":\"invalid_input\",\"message\":\"give a file\",\
             \"advice\":null,\"exit_code\":2}\n"
        );
        assert_eq!(err.text(), "brigade: error: give a file\n");
    }
}
