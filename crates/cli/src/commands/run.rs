//! `brigade run`: the lines of a list, as one job.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read};
use std::path::Path;

use anyhow::{Context as _, Result};
use brigade::dataset::{self, JobOptions, Task};
use brigade::progress;
use brigade::{Cancel, Error, ErrorKind, Session};
use futures::channel::mpsc;
use futures::{SinkExt as _, StreamExt as _};

use super::block_on;
use super::tree::{Failures, exit};
use super::watch::Watch;
use crate::args::RunArgs;
use crate::environment::Environment;
use crate::exit::Exit;
use crate::machine;
use crate::meaning::{List, nothing_named, task};
use crate::printer::Printer;
use crate::stdout::stdin;

/// Lines that were read and wait. The list may have millions.
const LINES: usize = 1024;

/// The longest line: two names of the longest path, each byte of it escaped.
const MAX_LINE_BYTES: u64 = 4 * 4096;

pub(super) fn run(
    args: &RunArgs,
    environment: &Environment,
    printer: &mut Printer,
) -> Result<Exit> {
    let list = List::from_args(args, environment)?;
    for warning in &list.warnings {
        printer.warning(warning);
    }
    let (name, lines) = open(args)?;
    brigade::guard_mapped_files()?;
    machine::allow_many_files();
    let mut failures = args.failures.as_deref().map(Failures::create).transpose()?;
    block_on(async {
        let mut watch = Watch::new(printer, None)?;
        let session = watch.until(Session::new(list.session)).await?;
        let (emitter, events) = progress::channel();
        let cancel = Cancel::default();
        let options = JobOptions { events: emitter, cancel: cancel.clone(), ..list.options };
        let events = events.inspect(|event| {
            if let Some(failures) = &mut failures {
                failures.hear(event);
            }
        });
        let work = dataset::run(&session, name.clone(), tasks(name, lines), options);
        let report = watch.transfer(work, &cancel, events).await?;
        let stopped = watch.stopped();
        watch.printer.job_report(&report);
        if let Some(failures) = failures {
            failures.finish()?;
        }
        Ok(exit(&report, stopped))
    })
}

fn open(args: &RunArgs) -> Result<(String, Box<dyn Read + Send>)> {
    if args.list.is_empty() {
        return Err(nothing_named());
    }
    if args.list == "-" {
        let input = stdin().context("cannot read standard input")?;
        return Ok(("standard input".into(), Box::new(input)));
    }
    let path = Path::new(&args.list);
    let file = File::open(path).map_err(|source| Error::io("read", path, source))?;
    Ok((path.display().to_string(), Box::new(file)))
}

/// Reads the list on a thread of its own, which is left behind where nobody takes its lines any more: a read of
/// standard input cannot be ended.
fn tasks(name: String, lines: Box<dyn Read + Send>) -> mpsc::Receiver<brigade::Result<Task>> {
    let (mut out, tasks) = mpsc::channel(LINES);
    std::thread::spawn(move || {
        let mut lines = BufReader::new(lines);
        let (mut line, mut number) = (Vec::new(), 0_u64);
        loop {
            line.clear();
            number += 1;
            let read = (&mut lines).take(MAX_LINE_BYTES).read_until(b'\n', &mut line);
            let is_cut = line.len() as u64 == MAX_LINE_BYTES && line.last() != Some(&b'\n');
            let of_line = |why: String| {
                Error::new(ErrorKind::InvalidInput, "read", format!("{name}, line {number}"), why)
            };
            let (next, is_last) = match read {
                Ok(0) => return,
                Err(source) => (Some(Err(of_line(source.to_string()))), true),
                Ok(_) if is_cut => {
                    let why = format!("it is longer than {MAX_LINE_BYTES} bytes, so no list");
                    (Some(Err(of_line(why))), true)
                }
                Ok(_) => {
                    let text = line.strip_suffix(b"\n").unwrap_or(&line);
                    (task(text).map_err(of_line).transpose(), false)
                }
            };
            let Some(next) = next else { continue };
            if futures::executor::block_on(out.send(next)).is_err() || is_last {
                return;
            }
        }
    });
    tasks
}
