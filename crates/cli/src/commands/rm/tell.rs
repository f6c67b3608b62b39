//! What a deletion tells: of each object, of what went wrong, and of all together.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use brigade::limits::format_size;
use brigade::{DeleteReport, Deletion};
use serde::Serialize;

use super::names::Named;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::format::{count, elapsed, one_line};
use crate::printer::Printer;

/// Between two lines that say how far it is.
const SO_FAR_EVERY: Duration = Duration::from_secs(10);

/// Counts and tells.
pub(super) struct Teller {
    bucket: String,
    /// What is counted: objects or versions.
    thing: &'static str,
    /// The only object there was, for the last line.
    only: Option<String>,
    sum: Removed,
    /// How the last failure would end the process, were it the only one.
    last_failure: Option<Exit>,
    started: Instant,
    told: Instant,
}

/// The last line of `--json`.
#[derive(Debug, Default, Serialize)]
struct Removed {
    deleted: u64,
    missing: u64,
    failed: u64,
    /// What went wrong besides: a listing that ended early, a store that went away.
    problems: u64,
    requests: u64,
    retries: u64,
    elapsed_ms: u64,
    stopped: bool,
}

/// The last line of `--json --dry-run`.
#[derive(Debug, Default, Serialize)]
pub(super) struct WouldRemove {
    #[serde(rename = "would_remove")]
    number: u64,
    bytes: u64,
    problems: u64,
    elapsed_ms: u64,
}

/// One object.
#[derive(Serialize)]
struct Object<'a> {
    url: &'a str,
    bucket: &'a str,
    key: &'a str,
    version_id: Option<&'a str>,
}

#[derive(Serialize)]
struct Deleted<'a> {
    #[serde(flatten)]
    object: Object<'a>,
    was_missing: bool,
}

#[derive(Serialize)]
struct Failed<'a> {
    #[serde(flatten)]
    object: Object<'a>,
    kind: &'static str,
    message: &'a str,
    advice: Option<&'a str>,
    exit_code: u8,
}

#[derive(Serialize)]
struct WouldDelete<'a> {
    #[serde(flatten)]
    object: Object<'a>,
    size_bytes: Option<u64>,
    is_delete_marker: bool,
}

impl Teller {
    pub(super) fn new(of_versions: bool) -> Self {
        let now = Instant::now();
        Self {
            bucket: String::new(),
            thing: if of_versions { "version" } else { "object" },
            only: None,
            sum: Removed::default(),
            last_failure: None,
            started: now,
            told: now,
        }
    }

    /// What follows is of this bucket.
    pub(super) fn begins(&mut self, bucket: &str) {
        bucket.clone_into(&mut self.bucket);
    }

    /// What became of some objects.
    pub(super) fn outcomes(&mut self, list: Vec<Deletion>, printer: &mut Printer) {
        for deletion in list {
            self.outcome(&deletion, printer);
        }
        if self.told.elapsed() >= SO_FAR_EVERY {
            self.told = Instant::now();
            printer.notice(&format!("{} so far", self.line()));
        }
    }

    fn outcome(&mut self, deletion: &Deletion, printer: &mut Printer) {
        let url = format!("s3://{}/{}", self.bucket, deletion.key);
        let (bucket, key) = (self.bucket.as_str(), deletion.key.as_str());
        let object = Object { url: &url, bucket, key, version_id: deletion.version_id.as_deref() };
        if let Some(error) = &deletion.error {
            let failure = Failure::of(error);
            let Failure { exit, kind, message, advice } = &failure;
            let (advice, exit_code) = (advice.as_deref(), exit.code());
            let failed = Failed { object, kind, message, advice, exit_code };
            printer.failed_one(&failure, "delete_failed", &failed);
            self.sum.failed += 1;
            self.last_failure = Some(failure.exit);
            return;
        }
        let shown = shown(&object);
        let was_missing = deletion.was_missing;
        let line =
            if was_missing { format!("{shown} was not there") } else { format!("deleted {shown}") };
        printer.detail(&line, "deleted", &Deleted { object, was_missing });
        let done = self.sum.deleted + self.sum.missing;
        self.only = (done == 0).then_some(line);
        if was_missing {
            self.sum.missing += 1;
        } else {
            self.sum.deleted += 1;
        }
    }

    /// Adds what one bucket's deletion came to, and gives what ended it early.
    pub(super) fn add(&mut self, report: DeleteReport) -> Option<Failure> {
        self.sum.requests += report.requests;
        self.sum.retries += report.retries;
        report.ended_by.map(|error| Failure::of(&error))
    }

    /// Something went wrong that is of no object by itself.
    pub(super) fn problem(&mut self, failure: &Failure, printer: &mut Printer) {
        printer.failure(failure);
        self.sum.problems += 1;
        self.last_failure = Some(failure.exit);
    }

    /// How the process ends: one failure and nothing else as that failure would, else in part.
    pub(super) fn exit(&self) -> Exit {
        let wrong = self.sum.failed + self.sum.problems;
        match self.last_failure {
            None => Exit::SUCCESS,
            Some(exit) if wrong == 1 && self.sum.deleted + self.sum.missing == 0 => exit,
            Some(_) => Exit::PARTIAL,
        }
    }

    /// The last line.
    pub(super) fn sum(&mut self, stopped: bool, globs: bool, printer: &mut Printer) {
        self.sum.elapsed_ms = since(self.started);
        self.sum.stopped = stopped;
        let Removed { deleted, missing, failed, problems, .. } = self.sum;
        let line = match &self.only {
            Some(only) if failed + problems == 0 && !stopped => only.clone(),
            _ if deleted + missing + failed + problems == 0 && !stopped => {
                let hint = if globs { "; if a key has * ? or [ in it: --no-glob" } else { "" };
                format!("nothing to delete{hint}")
            }
            _ => format!("{} in {}", self.line(), elapsed(self.sum.elapsed_ms)),
        };
        // Where nothing but a problem was told, that says it all.
        let is_all_wrong = deleted + missing + failed == 0 && problems > 0;
        if is_all_wrong {
            printer.result_quietly("removed", &self.sum);
        } else {
            printer.result(&line, "removed", &self.sum);
        }
    }

    fn line(&self) -> String {
        let Removed { deleted, missing, failed, .. } = self.sum;
        let mut line = format!("deleted {}", count(deleted, self.thing));
        // Writing to a string cannot fail.
        if missing > 0 {
            let _ = write!(line, ", {missing} were not there");
        }
        if failed > 0 {
            let _ = write!(line, ", failed {failed}");
        }
        line
    }

    /// Says of one object that it would be deleted.
    pub(super) fn would_delete(
        &mut self,
        bucket: &str,
        named: &Named,
        sum: &mut WouldRemove,
        printer: &mut Printer,
    ) {
        let url = format!("s3://{bucket}/{}", named.key);
        let version_id = named.version_id.as_deref();
        let object = Object { url: &url, bucket, key: &named.key, version_id };
        let what = match (named.is_delete_marker, named.size_bytes) {
            (true, _) => ", which marks it as deleted".to_owned(),
            (false, Some(size)) => format!(", {}", format_size(size)),
            (false, None) => String::new(),
        };
        let line = format!("would delete {}{what}", shown(&object));
        sum.number += 1;
        sum.bytes += named.size_bytes.unwrap_or(0);
        let is_delete_marker = named.is_delete_marker;
        let would = WouldDelete { object, size_bytes: named.size_bytes, is_delete_marker };
        printer.result(&line, "would_delete", &would);
        // So that a problem among others is a part.
        self.sum.deleted += 1;
    }

    /// The last line of what would be.
    pub(super) fn would_sum(&self, sum: &mut WouldRemove, started: Instant, printer: &mut Printer) {
        (sum.problems, sum.elapsed_ms) = (self.sum.problems, since(started));
        let line = match sum.number {
            0 => "nothing to delete".to_owned(),
            number => {
                format!("would delete {}, {}", count(number, self.thing), format_size(sum.bytes))
            }
        };
        if sum.number == 0 && sum.problems > 0 {
            printer.result_quietly("would_remove", sum);
        } else {
            printer.result(&line, "would_remove", sum);
        }
    }
}

fn shown(object: &Object<'_>) -> String {
    match object.version_id {
        Some(version) => format!("{} version {}", one_line(object.url), one_line(version)),
        None => one_line(object.url),
    }
}

fn since(started: Instant) -> u64 {
    u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX)
}
