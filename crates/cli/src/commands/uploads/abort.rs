//! `brigade uploads abort`.

use std::time::SystemTime;

use anyhow::Result;
use brigade::Session;
use brigade::limits::format_size;
use serde::Serialize;

use super::{Described, Found, Now, OnStore, Upload, find, is_without_bucket, open, table};
use crate::commands::tally::Tally;
use crate::commands::watch::Watch;
use crate::commands::{ask, block_on};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::format::count;
use crate::meaning::{Abort, Selection};
use crate::printer::{Printer, stdout_columns};
use crate::signals::Stopped;

/// The last line of `--json`.
#[derive(Serialize)]
struct Sum {
    aborted: u64,
    failed: u64,
    running: u64,
    left: u64,
    store_bytes: u64,
}

/// One that is left alone, and why.
#[derive(Serialize)]
struct Skipped<'a> {
    #[serde(flatten)]
    upload: Described<'a>,
    reason: &'static str,
}

pub(super) fn run(abort: &Abort, printer: &mut Printer) -> Result<Exit> {
    block_on(async {
        let mut watch = Watch::new(printer, None)?;
        let selection = &abort.selection;
        let session = open(selection, &mut watch).await?;
        let mut found = find(selection, &session, &mut watch).await?;
        found.uploads.retain(|upload| is_chosen(upload, abort));
        found.tell_others(watch.printer, "abort");
        for unreadable in &found.unreadable {
            watch.printer.warning(&unreadable.message);
        }
        let mut tally = Tally::default();
        for failure in &found.failures {
            tally.failure(failure, watch.printer);
        }
        if abort.asks_first && !consents(&found, &mut watch).await? {
            watch.printer.notice("nothing was aborted");
            return Ok(tally.exit());
        }
        let store_bytes =
            abort_each(&found.uploads, selection, &session, &mut tally, &mut watch).await?;
        Ok(told(&tally, store_bytes, watch.printer))
    })
}

/// Whether it is one of those in question. Where no URL says where to look, what others began is not,
/// although it may be of the same key.
fn is_chosen(upload: &Upload, abort: &Abort) -> bool {
    if abort.selection.under.is_none() && upload.here.is_none() {
        return false;
    }
    let age = upload.age(SystemTime::now());
    abort.older_than.is_none_or(|least| age.is_some_and(|age| age >= least))
}

/// Shows what would go, and asks. True where there is nothing to ask about.
async fn consents(found: &Found, watch: &mut Watch<'_>) -> Result<bool> {
    let number = found.uploads.iter().filter(|upload| !upload.is_running()).count();
    if number == 0 {
        return Ok(true);
    }
    for line in table::lines(&found.uploads, SystemTime::now(), stdout_columns()) {
        watch.printer.line(&line);
    }
    let question = format!("Abort {}? [y/N] ", count(number as u64, "upload"));
    ask::consents(&question, watch).await
}

/// Aborts all but those that a process is at; gives the bytes that the stores said they had in parts.
async fn abort_each(
    uploads: &[Upload],
    selection: &Selection,
    session: &Session,
    tally: &mut Tally,
    watch: &mut Watch<'_>,
) -> Result<u64> {
    let (now, mut store_bytes) = (SystemTime::now(), 0);
    for (index, upload) in uploads.iter().enumerate() {
        let now_here = Now::look(selection.folder(), session.endpoint_url())?;
        if upload.is_running() || now_here.is_taken(upload) {
            tally.running += 1;
            let line = format!("skipped {}: a process is at it", upload.shown());
            let skipped = Skipped { upload: upload.described(now), reason: "running" };
            watch.printer.result(&line, "skipped", &skipped);
            continue;
        }
        match abort_one(upload, session, watch).await {
            Ok(()) => {
                tally.done += 1;
                let freed = upload.listed().and_then(|listed| listed.size_bytes);
                store_bytes += freed.unwrap_or(0);
                let line = match (&upload.on_store, freed) {
                    (OnStore::Gone, _) => format!("forgot {}", upload.shown()),
                    (_, Some(freed)) => {
                        format!("aborted {}, {}", upload.shown(), format_size(freed))
                    }
                    (_, None) => format!("aborted {}", upload.shown()),
                };
                watch.printer.result(&line, "upload_aborted", &upload.described(now));
            }
            Err(error) => {
                let failure = Failure::from(&error);
                if error.is::<Stopped>() {
                    watch.printer.failure(&failure);
                    tally.stop(uploads.len() - index, failure.exit);
                    break;
                }
                tally.failure(&failure, watch.printer);
            }
        }
    }
    Ok(store_bytes)
}

/// First on the store, then here: what is still recorded can be tried again.
async fn abort_one(upload: &Upload, session: &Session, watch: &mut Watch<'_>) -> Result<()> {
    if let Some(id) = &upload.id {
        let object = session.object(&upload.url);
        match watch.until(object.abort_upload(id)).await {
            // It went with its bucket.
            Err(gone) if is_without_bucket(&gone) => {}
            aborted => aborted?,
        }
    }
    if let Some(here) = &upload.here {
        if upload.id.is_none() && !here.manifest.open_intents_unix_s.is_empty() {
            refuse_unless_none(upload, session, watch).await?;
        }
        here.forget()?;
    }
    Ok(())
}

/// It died before it heard the id of the upload it may have begun: the manifest is all that tells of
/// that one, which must not be forgotten while the store has any of this key.
async fn refuse_unless_none(
    upload: &Upload,
    session: &Session,
    watch: &mut Watch<'_>,
) -> Result<()> {
    let (bucket, key) = (session.bucket(upload.url.bucket()), upload.url.key());
    let listed = match watch.until(bucket.unfinished_uploads(key)).await {
        Err(gone) if is_without_bucket(&gone) => return Ok(()),
        listed => listed?,
    };
    if listed.iter().all(|listed| listed.key != key) {
        return Ok(());
    }
    let url = upload.url.to_string();
    let detail = "it died before it knew the id of the upload it began, and the store has one of this \
                  key that may be it or somebody else's";
    Err(brigade::Error::new(brigade::ErrorKind::Conflict, "forget", url.clone(), detail)
        .advise(format!("if it is nobody else's, first: brigade uploads abort {url}"))
        .into())
}

fn told(tally: &Tally, store_bytes: u64, printer: &mut Printer) -> Exit {
    let Tally { done: aborted, failed, running, left, .. } = *tally;
    let line = if aborted + failed + running + left == 0 {
        "nothing to abort".into()
    } else {
        format!("{}; {} freed in the store", tally.line("aborted"), format_size(store_bytes))
    };
    let last = Sum { aborted, failed, running, left, store_bytes };
    printer.result(&line, "aborted", &last);
    tally.exit()
}
