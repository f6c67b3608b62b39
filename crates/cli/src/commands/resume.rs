//! `brigade resume`: every unfinished transfer of this user, one after another, the oldest first.
//!
//! A queue of these may take hours, and other processes finish or begin transfers meanwhile. Each is
//! therefore looked up again when its turn comes: one that is done by then must not be moved from the
//! start a second time.

use std::ffi::OsString;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use brigade::limits::format_size;
use brigade::manifest::Text;
use brigade::progress::Operation;
use brigade::{Report, Unfinished};
use serde::Serialize;

use super::cp::Ends;
use super::tally::Tally;
use super::watch::Watch;
use super::{block_on, cp, mv, typed_again};
use crate::args::ResumeArgs;
use crate::environment::Environment;
use crate::exit::Exit;
use crate::failure::{Failure, Usage};
use crate::format::{age, command_line, count, one_line};
use crate::meaning::{Recorded, manifest_folder};
use crate::printer::Printer;
use crate::signals::Stopped;

/// What was found in the folder of manifests, in the order that it is resumed.
pub(super) type Queue = Vec<brigade::Result<Unfinished>>;

/// Why a stream's upload, or a copy, is left alone.
const UNRESUMABLE: &str = "it can only be begun anew, or given up: brigade uploads abort";

/// The last line of `--json`.
#[derive(Serialize)]
struct Sum {
    resumed: u64,
    failed: u64,
    running: u64,
    left: u64,
}

/// One that is not resumed, and why.
#[derive(Serialize)]
struct Skipped {
    operation: Operation,
    source: String,
    target: String,
    reason: &'static str,
}

/// What `--dry-run --json` tells of each.
#[derive(Serialize)]
struct Planned {
    operation: Operation,
    source: String,
    target: String,
    endpoint_url: Option<String>,
    bytes_done: u64,
    size_bytes: u64,
    begun_unix_s: u64,
    age_s: u64,
    running: bool,
    command: Vec<Text>,
}

/// The last line of `--dry-run --json`.
#[derive(Serialize)]
struct PlannedSum {
    would_resume: u64,
    failed: u64,
    running: u64,
}

pub(super) fn run(
    args: &ResumeArgs,
    typed: &[OsString],
    environment: &Environment,
    printer: &mut Printer,
) -> Result<Exit> {
    let Some(folder) = manifest_folder(args.manifest_dir.as_deref(), environment) else {
        return Err(Usage::error(
            "neither XDG_STATE_HOME nor HOME tells where transfers are recorded; give --manifest-dir",
        ));
    };
    let queue = brigade::unfinished(&folder)?;
    if args.dry_run {
        return Ok(plan(queue, &folder, args.manifest_dir.as_deref(), environment, printer));
    }
    block_on(async {
        let mut watch = Watch::new(printer, typed_again(typed))?;
        let mut tally = Tally::default();
        resume_each(queue, &folder, environment, &mut tally, &mut watch).await;
        Ok(told(&tally, watch.printer))
    })
}

/// Goes on with all of `queue`, and adds to `tally` what became of each. `folder` is where they were
/// found.
pub(super) async fn resume_each(
    queue: Queue,
    folder: &Path,
    environment: &Environment,
    tally: &mut Tally,
    watch: &mut Watch<'_>,
) {
    let total = queue.len();
    for (index, found) in queue.into_iter().enumerate() {
        if let Some(exit) = watch.stopped() {
            let left = total - index;
            let message = format!("stopped as asked; {} not begun", count(left as u64, "transfer"));
            watch.printer.failure(&Failure::from(&Stopped { exit, message }.into()));
            return tally.stop(left, exit);
        }
        let found = match found.and_then(|found| look_again(found, folder)) {
            Ok(Turn::Ready(found)) if found.manifest.transfer.side.is_resumable() => found,
            Ok(Turn::Running(found)) => {
                tally.running += 1;
                skip(&found, folder, "running", "a process is at it", watch.printer);
                continue;
            }
            Ok(Turn::Ready(found)) => {
                skip(&found, folder, "unresumable", UNRESUMABLE, watch.printer);
                continue;
            }
            Ok(Turn::Gone(found)) => {
                let why = "it was finished or given up meanwhile";
                skip(&found, folder, "gone", why, watch.printer);
                continue;
            }
            Err(error) => {
                tally.failure(&Failure::from(&error.into()), watch.printer);
                continue;
            }
        };
        match resume(&found, folder, environment, watch).await {
            Ok(report) => {
                tally.done += 1;
                watch.printer.report(&report);
            }
            Err(error) => {
                let failure = Failure::from(&error).of_another_command();
                if error.is::<Stopped>() {
                    watch.printer.failure(&failure);
                    return tally.stop(total - index, failure.exit);
                }
                tally.failure(&failure, watch.printer);
            }
        }
    }
}

/// Tells what became of all of them, and how the process ends.
pub(super) fn told(tally: &Tally, printer: &mut Printer) -> Exit {
    let Tally { done: resumed, failed, running, left, .. } = *tally;
    let nothing = resumed + failed + running + left == 0;
    let line = if nothing { "nothing to resume".into() } else { tally.line("resumed") };
    printer.result(&line, "resumed", &Sum { resumed, failed, running, left });
    tally.exit()
}

/// What an unfinished transfer is by now.
enum Turn {
    Ready(Unfinished),
    Running(Unfinished),
    Gone(Unfinished),
}

fn look_again(found: Unfinished, folder: &Path) -> brigade::Result<Turn> {
    let now = brigade::unfinished(folder)?;
    // One that became unreadable meanwhile is not gone: it fails as what it was.
    let is_same = |other: &brigade::Result<Unfinished>| match other {
        Ok(other) => other.path == found.path,
        Err(error) => error.target() == found.path.display().to_string(),
    };
    Ok(match now.into_iter().find(is_same) {
        Some(Ok(now)) if now.is_running => Turn::Running(now),
        Some(Ok(now)) => Turn::Ready(now),
        Some(Err(error)) => return Err(error),
        None => Turn::Gone(found),
    })
}

async fn resume(
    found: &Unfinished,
    folder: &Path,
    environment: &Environment,
    watch: &mut Watch<'_>,
) -> Result<Report> {
    let recorded = Recorded::of(found, folder);
    let transfer = recorded.transfer(environment)?;
    for warning in &transfer.warnings {
        watch.printer.warning(warning);
    }
    let ends = Ends::open(&transfer, watch).await?;
    recorded.must_be_at(ends.session.endpoint_url())?;
    if transfer.removes_source {
        return mv::carry_out(&ends, transfer.job, watch).await;
    }
    cp::move_object(&ends, transfer.job, watch).await
}

fn skip(found: &Unfinished, folder: &Path, reason: &'static str, why: &str, printer: &mut Printer) {
    let recorded = Recorded::of(found, folder);
    let line = format!("skipped the {}: {why}", one_line(&recorded.name()));
    let (source, target) = recorded.ends();
    let operation = found.manifest.transfer.operation();
    printer.result(&line, "skipped", &Skipped { operation, source, target, reason });
}

/// Tells what would be resumed. Nobody is asked anything.
fn plan(
    queue: Queue,
    folder: &Path,
    given: Option<&Path>,
    environment: &Environment,
    printer: &mut Printer,
) -> Exit {
    let mut tally = Tally::default();
    for found in queue {
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                tally.failure(&Failure::from(&error.into()), printer);
                continue;
            }
        };
        if !found.manifest.transfer.side.is_resumable() && !found.is_running {
            skip(&found, folder, "unresumable", UNRESUMABLE, printer);
            continue;
        }
        let recorded = Recorded::of(&found, folder);
        match recorded.transfer(environment) {
            _ if found.is_running => tally.running += 1,
            Ok(_) => tally.done += 1,
            Err(error) => {
                tally.failure(&Failure::from(&error), printer);
                continue;
            }
        }
        tell_planned(&found, &recorded, given, printer);
    }
    let Tally { done: would_resume, failed, running, .. } = tally;
    let nothing = would_resume + failed + running == 0;
    let line = if nothing { "nothing to resume".into() } else { tally.line("would resume") };
    printer.result(&line, "would_resume", &PlannedSum { would_resume, failed, running });
    tally.exit()
}

fn tell_planned(
    found: &Unfinished,
    recorded: &Recorded<'_>,
    given: Option<&Path>,
    printer: &mut Printer,
) {
    let (manifest, transfer) = (&found.manifest, &found.manifest.transfer);
    let age_of = since_unix(transfer.begun_unix_s, SystemTime::now());
    let words = recorded.words(given);
    let line = format!(
        "{}: {} of {} done, begun {} ago{}\n    {}",
        one_line(&recorded.name()),
        format_size(manifest.claimed_bytes()),
        format_size(transfer.size_bytes),
        age(age_of),
        if found.is_running { ", running" } else { "" },
        one_line(&command_line(&words)),
    );
    let (source, target) = recorded.ends();
    let planned = Planned {
        operation: transfer.operation(),
        source,
        target,
        endpoint_url: transfer.endpoint_url.clone(),
        bytes_done: manifest.claimed_bytes(),
        size_bytes: transfer.size_bytes,
        begun_unix_s: transfer.begun_unix_s,
        age_s: age_of.as_secs(),
        running: found.is_running,
        command: words.into_iter().map(Into::into).collect(),
    };
    printer.result(&line, "unfinished", &planned);
}

/// How long ago it was; nothing for a time to come, which another clock may have told.
pub(super) fn since_unix(unix_s: u64, now: SystemTime) -> Duration {
    let then = UNIX_EPOCH.checked_add(Duration::from_secs(unix_s));
    then.and_then(|then| now.duration_since(then).ok()).unwrap_or_default()
}
