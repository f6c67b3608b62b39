//! `brigade cp`: one file or stream into a bucket, one object out of it, or one object to another.

use std::ffi::OsString;

use anyhow::{Context as _, Result};
use brigade::{
    Cancel, CopyOptions, DownloadOptions, Report, S3Url, Session, StreamOptions, UploadOptions,
    progress,
};

use super::watch::Watch;
use super::{block_on, typed_again};
use crate::args::CpArgs;
use crate::environment::Environment;
use crate::exit::Exit;
use crate::machine;
use crate::meaning::{Job, Sink, Transfer};
use crate::printer::Printer;
use crate::signals::Stopped;
use crate::stdout::{ObjectPipe, stdin};

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
        let ends = Ends::open(&transfer, &mut watch).await?;
        let report = move_object(&ends, transfer.job, &mut watch).await?;
        watch.printer.report(&report);
        Ok(())
    })
}

/// The stores of a transfer.
pub(super) struct Ends {
    pub(super) session: Session,
    /// Of a copy's source, where that is another one.
    source: Option<Session>,
}

impl Ends {
    /// Gets ready to reach them.
    pub(super) async fn open(transfer: &Transfer, watch: &mut Watch<'_>) -> Result<Self> {
        let session = watch.until(Session::new(transfer.session.clone())).await?;
        let source = match &transfer.source_session {
            Some(options) => Some(watch.until(Session::new(options.clone())).await?),
            None => None,
        };
        Ok(Self { session, source })
    }

    /// The store that a copy's source is in, and whether it is another session's.
    pub(super) fn source(&self) -> (&Session, bool) {
        (self.source.as_ref().unwrap_or(&self.session), self.source.is_some())
    }
}

/// Carries out `job` with the stores of `ends`.
pub(super) async fn move_object(ends: &Ends, job: Job, watch: &mut Watch<'_>) -> Result<Report> {
    let session = &ends.session;
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
        Job::Stream { object, options } => {
            let input = stdin().context("cannot read standard input")?;
            let upload =
                UploadOptions { events: emitter, cancel: cancel.clone(), ..options.upload };
            let options = StreamOptions { upload, ..options };
            let object = session.object(&object);
            watch.transfer(object.upload_from(input, options), &cancel, events).await
        }
        Job::Copy { source, target, options } => {
            let options = CopyOptions { events: emitter, cancel: cancel.clone(), ..options };
            let (source, target) = (ends.source().0.object(&source), session.object(&target));
            watch.transfer(target.copy_from_object(&source, options), &cancel, events).await
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
