//! `brigade cp`: one file into a bucket, or one object out of it.

use std::ffi::OsString;

use anyhow::{Context as _, Result};
use brigade::{Cancel, DownloadOptions, Report, S3Url, Session, UploadOptions, progress};

use super::block_on;
use super::watch::Watch;
use crate::args::CpArgs;
use crate::environment::Environment;
use crate::exit::Exit;
use crate::format::command_line;
use crate::meaning::{Job, Sink, Transfer};
use crate::printer::Printer;
use crate::signals::{Signals, Stopped};
use crate::stdout::ObjectPipe;

pub(super) fn run(
    args: &CpArgs,
    typed: &[OsString],
    environment: &Environment,
    printer: &mut Printer,
) -> Result<()> {
    let transfer = Transfer::from_args(args, environment)?;
    for warning in &transfer.warnings {
        printer.warning(warning);
    }
    block_on(async {
        let again = typed.get(1..).map(|args| format!("brigade {}", command_line(args)));
        let mut watch = Watch { printer, signals: Signals::watch()?, again };
        let report = carry_out(transfer, &mut watch).await?;
        watch.printer.report(&report);
        Ok(())
    })
}

async fn carry_out(transfer: Transfer, watch: &mut Watch<'_>) -> Result<Report> {
    brigade::guard_mapped_files()?;
    let session = watch.until(Session::new(transfer.session)).await?;
    let (emitter, events) = progress::channel();
    let cancel = Cancel::default();
    match transfer.job {
        Job::Upload { file, object, options } => {
            let options = UploadOptions { events: emitter, cancel: cancel.clone(), ..options };
            let object = session.object(&object);
            watch.transfer(object.upload_file_with(file, options), &cancel, events).await
        }
        Job::Download { object, sink, options } => {
            let options = DownloadOptions { events: emitter, cancel: cancel.clone(), ..options };
            match sink {
                Sink::File(file) => {
                    let object = session.object(&object);
                    watch.transfer(object.download_file_with(file, options), &cancel, events).await
                }
                Sink::Stdout => to_stdout(&session, &object, options, watch, events).await,
            }
        }
    }
}

async fn to_stdout(
    session: &Session,
    url: &S3Url,
    options: DownloadOptions,
    watch: &mut Watch<'_>,
    events: progress::Events,
) -> Result<Report> {
    let (pipe, state) = ObjectPipe::open().context("cannot write to standard output")?;
    let (object, cancel) = (session.object(url), options.cancel.clone());
    let work = object.download_to(pipe, "-", options);
    watch.transfer(work, &cancel, events).await.map_err(|error| {
        if state.is_broken() {
            let message = format!("download {url}: the reader of standard output went away");
            Stopped { exit: Exit::BROKEN_PIPE, message }.into()
        } else {
            error
        }
    })
}
