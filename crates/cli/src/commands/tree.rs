//! `brigade cp -r`, `mv -r` and `sync`: many objects as one job.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use brigade::dataset::{self, JobReport};
use brigade::progress::{self, Event};
use brigade::{Cancel, Session};
use futures::StreamExt as _;

use super::watch::Watch;
use super::{block_on, typed_again};
use crate::exit::Exit;
use crate::format::tab_line;
use crate::machine;
use crate::meaning::Tree;
use crate::printer::Printer;

pub(super) fn run(tree: Tree, typed: &[OsString], printer: &mut Printer) -> Result<Exit> {
    for warning in &tree.warnings {
        printer.warning(warning);
    }
    brigade::guard_mapped_files()?;
    machine::allow_many_files();
    let mut failures = tree.failures.as_deref().map(Failures::create).transpose()?;
    block_on(async {
        let again = typed_again(typed);
        let mut watch = Watch::new(printer, again.clone())?;
        let session = watch.until(Session::new(tree.session)).await?;
        let source_session = match tree.source_session {
            Some(options) => watch.until(Session::new(options)).await?,
            None => session.clone(),
        };
        let (emitter, events) = progress::channel();
        let cancel = Cancel::default();
        let options =
            dataset::JobOptions { events: emitter, cancel: cancel.clone(), ..tree.options };
        let (source, target) = (tree.source.side(&source_session), tree.target.side(&session));
        let work = dataset::copy(&source, &target, options);
        let events = events.inspect(|event| {
            if let Some(failures) = &mut failures {
                failures.hear(event);
            }
        });
        let report = watch.transfer(work, &cancel, events).await?;
        let stopped = watch.stopped();
        watch.printer.job_report(&report);
        if let Some(again) = again.filter(|_| report.stopped) {
            watch.printer.notice(&format!("what is left is done by the same command: {again}"));
        }
        if let Some(failures) = failures {
            failures.finish()?;
        }
        Ok(exit(&report, stopped))
    })
}

pub(super) fn exit(report: &JobReport, stopped: Option<Exit>) -> Exit {
    match stopped {
        Some(exit) if report.stopped => exit,
        _ if report.is_whole() => Exit::SUCCESS,
        _ => Exit::PARTIAL,
    }
}

/// The file that what failed is written into.
pub(super) struct Failures {
    path: PathBuf,
    file: BufWriter<File>,
    outcome: std::io::Result<()>,
}

impl Failures {
    /// Made before anything is moved: a place where nothing can be written is better known now.
    pub(super) fn create(path: &Path) -> Result<Self> {
        let file = File::create(path)
            .map_err(|source| brigade::Error::io("write the failures to", path, source))?;
        Ok(Self { path: path.to_owned(), file: BufWriter::new(file), outcome: Ok(()) })
    }

    pub(super) fn hear(&mut self, event: &Event) {
        if let Event::ObjectFailed { source, target: Some(target), .. } = event
            && self.outcome.is_ok()
        {
            self.outcome = writeln!(self.file, "{}", tab_line(source, target));
        }
    }

    pub(super) fn finish(mut self) -> Result<()> {
        let written = self.outcome.and_then(|()| self.file.flush());
        written.with_context(|| format!("write the failures to {}", self.path.display()))
    }
}
