//! `brigade mv`: a copy, and when it was verified, the end of its source.
//!
//! A file is removed only if it is still the one that was sent; an object, only if it has the `ETag` that
//! was read. Whatever is in doubt stays, and that is an error: a move that kept its source is none.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::Result;
use brigade::{CustomerKey, Error, ErrorKind, Report, S3Url, Session};

use super::cp::{Ends, move_object};
use super::watch::Watch;
use super::{block_on, typed_again};
use crate::args::CpArgs;
use crate::environment::Environment;
use crate::meaning::{Job, Transfer};
use crate::printer::Printer;

pub(super) fn run(
    args: &CpArgs,
    typed: &[OsString],
    environment: &Environment,
    printer: &mut Printer,
) -> Result<()> {
    let transfer = Transfer::from_mv_args(args, environment)?;
    for warning in &transfer.warnings {
        printer.warning(warning);
    }
    block_on(async {
        let mut watch = Watch::new(printer, typed_again(typed))?;
        let ends = Ends::open(&transfer, &mut watch).await?;
        let report = carry_out(&ends, transfer.job, &mut watch).await?;
        watch.printer.report(&report);
        watch.printer.line(&format!("removed {}", crate::format::one_line(&report.source)));
        Ok(())
    })
}

/// Carries out `job`, and removes its source.
pub(super) async fn carry_out(ends: &Ends, job: Job, watch: &mut Watch<'_>) -> Result<Report> {
    let source = Source::of(&job)?;
    let report = move_object(ends, job.clone(), watch).await?;
    let removing = async {
        match source {
            Source::File { path, identity } => {
                must_be_proven(&report)?;
                remove_file(&path, identity)
            }
            Source::Object { url, key } => {
                let (session, is_elsewhere) = match &job {
                    Job::Copy { .. } => ends.source(),
                    _ => (&ends.session, false),
                };
                match &job {
                    Job::Copy { target, .. } if !is_elsewhere && !report.verified.is_proof() => {
                        must_be_of_one_size(&report, &ends.session, target).await?;
                    }
                    _ => must_be_proven(&report)?,
                }
                remove_object(session, &url, key, &report).await
            }
        }
    };
    // The copy is there: what goes wrong from here on must say so.
    removing
        .await
        .map_err(|error| {
            let what = format!("{} was copied to {} and kept", report.source, report.target);
            error.context(what).into()
        })
        .map(|()| report)
}

/// What is to go.
enum Source {
    File { path: std::path::PathBuf, identity: Identity },
    Object { url: S3Url, key: Option<CustomerKey> },
}

/// What tells a file from itself after a change.
type Identity = (u64, u64, u64, i64, i64);

impl Source {
    /// As it is before it is read.
    fn of(job: &Job) -> Result<Self, Error> {
        Ok(match job {
            Job::Upload { file, .. } => {
                Self::File { path: file.clone(), identity: identity_of("move", file)? }
            }
            Job::Download { object, options, .. } => {
                Self::Object { url: object.clone(), key: options.customer_key.clone() }
            }
            Job::Copy { source, options, .. } => {
                Self::Object { url: source.clone(), key: options.source_customer_key.clone() }
            }
            Job::Stream { object, .. } => {
                let why = "standard input cannot be moved";
                return Err(Error::new(
                    ErrorKind::InvalidInput,
                    "move to",
                    object.to_string(),
                    why,
                ));
            }
        })
    }
}

fn identity_of(operation: &'static str, path: &Path) -> Result<Identity, Error> {
    let metadata = std::fs::metadata(path).map_err(|source| Error::io(operation, path, source))?;
    let modified = (metadata.mtime(), metadata.mtime_nsec());
    Ok((metadata.dev(), metadata.ino(), metadata.len(), modified.0, modified.1))
}

fn must_be_proven(report: &Report) -> Result<(), Error> {
    if report.verified.is_proof() {
        return Ok(());
    }
    let why = "nothing proves that the copy is whole";
    Err(Error::new(ErrorKind::Integrity, "remove", report.source.clone(), why)
        .advise("compare the two in another way, and remove it by yourself"))
}

/// What a store copied by itself, and has no comparable checksum of, has at least the size and the name
/// that it said it has.
async fn must_be_of_one_size(
    report: &Report,
    session: &Session,
    target: &S3Url,
) -> Result<(), Error> {
    let info = session.object(target).info().await?;
    let etag = info.etag.as_deref().map(|etag| etag.trim_matches('"'));
    if info.size_bytes == report.bytes && etag == report.etag.as_deref() {
        return Ok(());
    }
    let why = "the copy has another size, or was replaced meanwhile";
    Err(Error::new(ErrorKind::Integrity, "remove", report.source.clone(), why)
        .advise("compare the two, and remove it by yourself"))
}

fn remove_file(path: &Path, identity: Identity) -> Result<(), Error> {
    if identity_of("remove", path)? != identity {
        let why = "it was written to since it was sent";
        return Err(Error::new(ErrorKind::Changed, "remove", path.display().to_string(), why)
            .advise("move it again"));
    }
    std::fs::remove_file(path).map_err(|source| Error::io("remove", path, source))
}

async fn remove_object(
    session: &Session,
    url: &S3Url,
    key: Option<CustomerKey>,
    report: &Report,
) -> Result<(), Error> {
    let Some(etag) = &report.source_etag else {
        let why = "the store gave no ETag, so nothing tells whether it is still the same";
        return Err(Error::new(ErrorKind::Unsupported, "remove", url.to_string(), why)
            .advise("remove it by yourself"));
    };
    session.object(url).delete_if_unchanged(etag, key).await
}
