//! `brigade uploads list`.

use std::time::SystemTime;

use anyhow::Result;
use brigade::limits::format_size;
use serde::Serialize;

use super::{Found, OnStore, Upload, find, open, table};
use crate::commands::block_on;
use crate::commands::watch::Watch;
use crate::exit::Exit;
use crate::format::count;
use crate::meaning::Selection;
use crate::printer::{Printer, stdout_columns};

/// The last line of `--json`.
#[derive(Serialize)]
struct Listed {
    uploads: usize,
    store_bytes: u64,
    elsewhere: u64,
    failed: usize,
}

pub(super) fn run(selection: &Selection, printer: &mut Printer) -> Result<Exit> {
    block_on(async {
        let mut watch = Watch::new(printer, None)?;
        let session = open(selection, &mut watch).await?;
        let found = find(selection, &session, &mut watch).await?;
        tell(&found, watch.printer);
        let asked_one_place = selection.under.is_some() || found.uploads.len() <= 1;
        Ok(match found.failures.as_slice() {
            [] => Exit::SUCCESS,
            [only] if asked_one_place => only.exit,
            _ => Exit::PARTIAL,
        })
    })
}

fn tell(found: &Found, printer: &mut Printer) {
    let now = SystemTime::now();
    for unreadable in &found.unreadable {
        printer.warning(&unreadable.message);
    }
    for failure in &found.failures {
        printer.failure(failure);
    }
    let mut lines = table::lines(&found.uploads, now, stdout_columns()).into_iter();
    if let Some(head) = lines.next().filter(|_| !found.uploads.is_empty()) {
        printer.line(&head);
    }
    for (upload, line) in found.uploads.iter().zip(lines) {
        printer.result(&line, "upload", &upload.described(now));
    }
    let listed = Listed {
        uploads: found.uploads.len(),
        store_bytes: found.uploads.iter().filter_map(|it| it.listed()?.size_bytes).sum(),
        elsewhere: found.elsewhere.values().sum(),
        failed: found.failures.len(),
    };
    printer.result(&sum(&listed), "listed", &listed);
    tell_more(found, printer);
}

fn sum(listed: &Listed) -> String {
    if listed.uploads == 0 {
        return "no unfinished uploads".into();
    }
    let uploads = count(listed.uploads as u64, "unfinished upload");
    format!("{uploads}, {} in the store", format_size(listed.store_bytes))
}

/// What a person may wonder about.
fn tell_more(found: &Found, printer: &mut Printer) {
    let is_gone = |it: &Upload| matches!(it.on_store, OnStore::Gone) && !it.is_running();
    if found.uploads.iter().any(is_gone) {
        printer.notice(
            "here only: the store has it no more, or not yet; resuming starts over, and aborting \
             forgets it",
        );
    }
    if found.downloads > 0 {
        let downloads = count(found.downloads, "unfinished download");
        printer.notice(&format!("{downloads} left out: brigade resume --dry-run"));
    }
    found.tell_others(printer, "list");
}
