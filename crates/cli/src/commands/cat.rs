//! `brigade cat`: objects on standard output, one after the other.
//!
//! Each is downloaded as `cp s3://… -` does it: ranges in parallel, in order, verified at the end. The first
//! that fails ends it, since what follows would be taken for what is missing.

use anyhow::{Context as _, Result};
use brigade::progress;
use brigade::{Cancel, DownloadOptions, Error, ErrorKind, ListOptions, Listed, S3Url, Session};
use futures::StreamExt as _;

use super::block_on;
use super::cp::to_stdout;
use super::watch::Watch;
use crate::args::CatArgs;
use crate::environment::Environment;
use crate::machine;
use crate::meaning::{Chosen, Printing};
use crate::printer::Printer;
use crate::signals::Stopped;

pub(super) fn run(args: &CatArgs, environment: &Environment, printer: &mut Printer) -> Result<()> {
    let printing = Printing::from_args(args, environment)?;
    for warning in &printing.warnings {
        printer.warning(warning);
    }
    block_on(async {
        let mut watch = Watch::new(printer, None)?;
        let session = watch.until(Session::new(printing.session.clone())).await?;
        machine::allow_many_files();
        for chosen in &printing.chosen {
            match chosen {
                Chosen::One(url) => print(url, &printing.options, &session, &mut watch).await?,
                _ => print_all(chosen, &printing.options, &session, &mut watch).await?,
            }
        }
        Ok(())
    })
}

/// Prints what matches while it is listed.
async fn print_all(
    chosen: &Chosen,
    options: &DownloadOptions,
    session: &Session,
    watch: &mut Watch<'_>,
) -> Result<()> {
    let bucket = session.bucket(chosen.bucket());
    let mut listing = bucket.list(chosen.prefix(), ListOptions::default());
    let mut found = false;
    loop {
        let next = watch.until(async { listing.next().await.transpose() }).await?;
        let Some(listed) = next else { break };
        let Listed::Object(entry) = listed else { continue };
        if chosen.holds(&entry.name) {
            found = true;
            print(&chosen.url().with_key(entry.name), options, session, watch).await?;
        }
    }
    if found {
        return Ok(());
    }
    Err(Error::new(ErrorKind::NotFound, "print", chosen.to_string(), "no key matches")
        .advise("check the pattern; --no-glob takes it for a key")
        .into())
}

async fn print(
    url: &S3Url,
    options: &DownloadOptions,
    session: &Session,
    watch: &mut Watch<'_>,
) -> Result<()> {
    let (events, heard) = progress::channel();
    let options = DownloadOptions { events, cancel: Cancel::default(), ..options.clone() };
    let report = to_stdout(session, url, options, watch, heard).await?;
    watch.printer.report_in_detail(&report);
    match watch.stopped() {
        // This one was done before it could be stopped; nothing further is begun.
        Some(exit) => {
            let message = format!("stopped as asked behind {url}");
            Err(Stopped { exit, message }).context("print")
        }
        None => Ok(()),
    }
}
