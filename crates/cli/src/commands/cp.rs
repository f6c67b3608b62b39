//! `brigade cp`: one file into a bucket, or one object out of it.

use std::ffi::OsString;

use anyhow::{Context as _, Result};
use brigade::{Cancel, DownloadOptions, Report, S3Url, Session, UploadOptions, progress};

use super::watch::Watch;
use super::{block_on, typed_again};
use crate::args::CpArgs;
use crate::environment::Environment;
use crate::exit::Exit;
use crate::machine;
use crate::meaning::{Job, Sink, Transfer};
use crate::printer::Printer;
use crate::signals::Stopped;
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
        let mut watch = Watch::new(printer, typed_again(typed))?;
        let report = carry_out(transfer, &mut watch).await?;
        watch.printer.report(&report);
        Ok(())
    })
}

async fn carry_out(transfer: Transfer, watch: &mut Watch<'_>) -> Result<Report> {
    let session = watch.until(Session::new(transfer.session)).await?;
    move_object(&session, transfer.job, watch).await
}

/// Carries out `job` with the store of `session`.
pub(super) async fn move_object(
    session: &Session,
    job: Job,
    watch: &mut Watch<'_>,
) -> Result<Report> {
    brigade::guard_mapped_files()?;
    machine::allow_many_files();
    let (emitter, events) = progress::channel();
    let cancel = Cancel::default();
    match job {
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
                Sink::Stdout => to_stdout(session, &object, options, watch, events).await,
            }
        }
    }
}

pub(super) async fn to_stdout(
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
