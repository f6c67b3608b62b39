//! For people: results on standard output, everything else on standard error.

use std::collections::HashSet;
use std::io::Write as _;
use std::time::{Duration, Instant};

use brigade::Report;
use brigade::dataset::{JobReport, VerifyReport};
use brigade::limits::format_size;
use brigade::progress::Event;

use super::bar::{Bar, verb};
use super::meter::{Meter, Phase};
use super::{Sink, summary};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::format::{count, countdown, one_line, rate};

/// Between two lines of progress where there is no terminal: seldom enough for a log.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Failures of single objects among many that are told one by one, and things that are left out.
const MOST_TOLD: u64 = 20;

/// How much to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tell {
    Errors,
    Results,
    Everything,
}

/// See the module.
pub(crate) struct Human {
    out: Sink,
    err: Sink,
    tell: Tell,
    bar: Option<Bar>,
    /// Whether there are lines of progress, where there is no bar.
    lines: bool,
    /// When the next of them is due.
    next_line: Option<Instant>,
    color: bool,
    meter: Meter,
    /// Warnings come as events and again in the report; each is told once of a transfer.
    warned: HashSet<String>,
    /// Of a job of many objects: those that failed, and those that were left out.
    failures: u64,
    skips: u64,
}

impl Human {
    pub(super) fn new(
        out: Sink,
        err: Sink,
        tell: Tell,
        bar: Option<Bar>,
        lines: bool,
        color: bool,
    ) -> Self {
        Self {
            out,
            err,
            tell,
            bar,
            lines,
            next_line: None,
            color,
            meter: Meter::default(),
            warned: HashSet::new(),
            failures: 0,
            skips: 0,
        }
    }

    pub(super) fn event(&mut self, event: &Event, now: Instant) {
        self.meter.event(event, now);
        match event {
            Event::Warning { message } => self.warning(message),
            Event::Reach { part_size_bytes, reach_bytes } => self.notice(&format!(
                "reads on up to {} in parts from {} on; more needs --expected-size or --spool",
                format_size(*reach_bytes),
                format_size(*part_size_bytes),
            )),
            Event::Started { source, target, parts: 0, .. } if self.tell == Tell::Everything => {
                let whole = format!(
                    "{} {} to {}",
                    verb(self.meter.phase),
                    one_line(source),
                    one_line(target)
                );
                self.notice(&whole);
            }
            Event::Started { source, target, size_bytes, parts, part_size_bytes, .. }
                if self.tell == Tell::Everything =>
            {
                let whole = format!(
                    "{} {} to {}: {} in {} of {}",
                    verb(self.meter.phase),
                    one_line(source),
                    one_line(target),
                    format_size(*size_bytes),
                    count((*parts).into(), "part"),
                    format_size(*part_size_bytes),
                );
                self.notice(&whole);
            }
            Event::Retrying { part, attempt, wait_ms, reason } if self.tell == Tell::Everything => {
                let what = part.map_or_else(|| "a request".into(), |part| format!("part {part}"));
                self.notice(&format!(
                    "{what}: attempt {attempt} failed, again in {wait_ms} ms: {}",
                    one_line(reason)
                ));
            }
            Event::ObjectDone { operation, source, target, bytes, .. }
                if self.tell == Tell::Everything =>
            {
                self.notice(&format!(
                    "{} {} to {}: {}",
                    summary::done(*operation),
                    one_line(source),
                    one_line(target),
                    format_size(*bytes)
                ));
            }
            Event::ObjectDeleted { target } if self.tell == Tell::Everything => {
                self.notice(&format!("deleted {}", one_line(target)));
            }
            Event::ObjectFailed { message, .. } => self.told_failure(message),
            Event::ObjectSkipped { source, reason } => {
                self.told_skip(&format!("left out: {} is {reason}", one_line(source)));
            }
            Event::Compared { name, outcome, reason } if *outcome != "identical" => {
                let why = reason.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
                self.line(&format!("{outcome:<12}  {}{}", one_line(name), one_line(&why)));
            }
            Event::Planned { action, source, target, bytes, reason } => {
                let source = source.as_deref().map(one_line);
                let ends = match source {
                    Some(source) => format!("{source} to {}", one_line(target)),
                    None => one_line(target),
                };
                let size = format_size(*bytes);
                self.line(&format!("would {action} {ends}: {size}, {reason}"));
            }
            _ => {}
        }
    }

    /// The first of many; all of them are counted.
    fn told_failure(&mut self, message: &str) {
        self.failures += 1;
        if self.failures <= MOST_TOLD || self.tell == Tell::Everything {
            let word = self.paint("1;31", "error:");
            self.say(&format!("brigade: {word} {}", one_line(message)));
        } else if self.failures == MOST_TOLD + 1 {
            self.say(
                "brigade: further errors are counted; --failures FILE or --verbose names them",
            );
        }
    }

    fn told_skip(&mut self, message: &str) {
        self.skips += 1;
        if self.skips <= MOST_TOLD || self.tell == Tell::Everything {
            self.notice(message);
        } else if self.skips == MOST_TOLD + 1 {
            self.notice("what else is left out is counted; --verbose names it");
        }
    }

    pub(super) fn tick(&mut self, now: Instant) {
        self.meter.sample(now);
        if let Some(bar) = &self.bar {
            bar.show(&self.meter);
        }
        if !self.lines || (self.meter.phase == Phase::Connecting && self.meter.job.is_none()) {
            return;
        }
        // The first line would say 0%, right after the one that says what begins.
        let due = *self.next_line.get_or_insert(now + LINE_EVERY);
        if now >= due {
            self.next_line = Some(now + LINE_EVERY);
            let meter = &self.meter;
            if let Some(job) = &meter.job {
                let line = super::job::line(job, meter, usize::MAX);
                return self.notice(&line);
            }
            if meter.is_open() {
                let line = format!(
                    "{}, {}, {}, {}",
                    verb(meter.phase),
                    format_size(meter.bytes_done),
                    rate(meter.bytes_per_s()),
                    count(meter.parts_done.into(), "part"),
                );
                return self.notice(&line);
            }
            let line = format!(
                "{} {}%, {} of {}, {}, {} left, {} of {}",
                verb(meter.phase),
                meter.percent(),
                format_size(meter.bytes_done.min(meter.bytes_total)),
                format_size(meter.bytes_total),
                rate(meter.bytes_per_s()),
                countdown(meter.remaining()),
                meter.parts_done,
                count(meter.parts_total.into(), "part"),
            );
            self.notice(&line);
        }
    }

    pub(super) fn warning(&mut self, message: &str) {
        if self.tell != Tell::Errors && self.warned.insert(message.to_owned()) {
            let word = self.paint("33", "warning:");
            self.say(&format!("brigade: {word} {}", one_line(message)));
        }
    }

    pub(super) fn notice(&mut self, message: &str) {
        if self.tell != Tell::Errors {
            self.say(&format!("brigade: {message}"));
        }
    }

    pub(super) fn report(&mut self, report: &Report) {
        self.warnings_of(report);
        self.line(&summary::line(report));
    }

    pub(super) fn report_in_detail(&mut self, report: &Report) {
        self.warnings_of(report);
        self.detail(&summary::line(report));
        self.clear();
    }

    fn warnings_of(&mut self, report: &Report) {
        for warning in &report.warnings {
            self.warning(warning);
        }
        self.next();
    }

    pub(super) fn job_report(&mut self, report: &JobReport) {
        for warning in &report.warnings {
            self.warning(warning);
        }
        self.next();
        self.line(&summary::job(report));
    }

    pub(super) fn verify_report(&mut self, report: &VerifyReport) {
        self.next();
        self.line(&summary::verification(report));
    }

    pub(super) fn line(&mut self, line: &str) {
        self.clear();
        if self.tell != Tell::Errors {
            // A reader that went away does not undo what was done.
            let _ = writeln!(self.out, "{line}").and_then(|()| self.out.flush());
        }
    }

    pub(super) fn detail(&mut self, line: &str) {
        if self.tell == Tell::Everything {
            self.line(line);
        }
    }

    pub(super) fn failure(&mut self, failure: &Failure) {
        self.clear();
        // As other tools have it: when the reader had enough, nobody needs to hear of it.
        if failure.exit != Exit::BROKEN_PIPE {
            let word = self.paint("1;31", "error:");
            self.say(&format!("brigade: {word} {}", failure.message));
        }
        self.next();
    }

    /// A question on a line that is left open for the answer.
    pub(super) fn ask(&mut self, question: &str) {
        self.clear();
        let _ = write!(self.err, "{question}").and_then(|()| self.err.flush());
    }

    /// What comes now is of another transfer.
    fn next(&mut self) {
        self.meter = Meter::default();
        self.next_line = None;
        self.warned.clear();
        (self.failures, self.skips) = (0, 0);
    }

    fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.clear();
        }
    }

    fn say(&mut self, line: &str) {
        let err = &mut self.err;
        let mut print = || {
            let _ = writeln!(err, "{line}");
        };
        match &self.bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    fn paint(&self, style: &str, word: &str) -> String {
        if self.color { format!("\x1b[{style}m{word}\x1b[0m") } else { word.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use brigade::progress::Operation;

    use super::super::testing::Paper;
    use super::*;
    use crate::signals::Stopped;

    fn human(tell: Tell, lines: bool) -> (Human, Paper, Paper) {
        let (out, err) = (Paper::default(), Paper::default());
        let human =
            Human::new(Box::new(out.clone()), Box::new(err.clone()), tell, None, lines, false);
        (human, out, err)
    }

    fn started() -> Event {
        Event::Started {
            operation: Operation::Download,
            source: "s3://b/k".into(),
            target: "f\n".into(),
            size_bytes: 64 << 20,
            parts: 8,
            part_size_bytes: 8 << 20,
            concurrency: 4,
        }
    }

    fn retrying() -> Event {
        Event::Retrying { part: Some(7), attempt: 1, wait_ms: 120, reason: "503 SlowDown".into() }
    }

    #[test]
    fn everything_is_told_to_those_who_asked() {
        let (mut human, out, err) = human(Tell::Everything, true);
        let start = Instant::now();
        human.event(&started(), start);
        human.event(&retrying(), start);
        human.event(&Event::Moved { bytes: 32 << 20 }, start);
        for second in 0..=9 {
            human.tick(start + Duration::from_secs(second));
        }
        assert_eq!(
            err.text(),
            "brigade: downloading s3://b/k to f\\n: 64.0 MiB in 8 parts of 8.0 MiB\n\
             brigade: part 7: attempt 1 failed, again in 120 ms: 503 SlowDown\n\
             brigade: downloading 50%, 32.0 MiB of 64.0 MiB, 0 B/s, -:-- left, 0 of 8 parts\n"
        );
        assert_eq!(out.text(), "");
    }

    #[test]
    fn a_warning_is_told_once_and_others_hear_no_details() {
        let (mut human, _, err) = human(Tell::Results, false);
        human.event(&started(), Instant::now());
        human.event(&retrying(), Instant::now());
        for _ in 0..2 {
            human.event(&Event::Warning { message: "no checksum".into() }, Instant::now());
        }
        assert_eq!(err.text(), "brigade: warning: no checksum\n");
    }

    #[test]
    fn quiet_means_errors_only() {
        let (mut human, out, err) = human(Tell::Errors, false);
        human.warning("no checksum");
        human.notice("stopping");
        human.line("uploaded");
        human.failure(&Failure::usage("give a file"));
        assert_eq!(
            (out.text().as_str(), err.text().as_str()),
            ("", "brigade: error: give a file\n")
        );
    }

    #[test]
    fn a_reader_that_had_enough_is_no_error() {
        let (mut human, _, err) = human(Tell::Results, false);
        let message = "download s3://b/k: broken pipe".into();
        let stopped = Stopped { exit: Exit::BROKEN_PIPE, message };
        human.failure(&Failure::from(&anyhow::Error::new(stopped)));
        assert_eq!(err.text(), "");
    }
}
