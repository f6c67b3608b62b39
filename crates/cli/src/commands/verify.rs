//! `brigade verify`: a folder held against objects.

use anyhow::Result;
use brigade::dataset::{self, JobOptions};
use brigade::{Cancel, Session, progress};

use super::block_on;
use super::watch::Watch;
use crate::exit::Exit;
use crate::machine;
use crate::meaning::Verification;
use crate::printer::Printer;

pub(super) fn run(verification: Verification, printer: &mut Printer) -> Result<Exit> {
    for warning in &verification.warnings {
        printer.warning(warning);
    }
    machine::allow_many_files();
    block_on(async {
        let mut watch = Watch::new(printer, None)?;
        let session = watch.until(Session::new(verification.session)).await?;
        let (emitter, events) = progress::channel();
        let cancel = Cancel::default();
        let options =
            JobOptions { events: emitter, cancel: cancel.clone(), ..verification.options };
        let (folder, objects) =
            (verification.folder.side(&session), verification.objects.side(&session));
        let work = dataset::verify(&folder, &objects, options);
        let report = watch.transfer(work, &cancel, events).await?;
        let stopped = watch.stopped();
        watch.printer.verify_report(&report);
        Ok(match stopped {
            Some(exit) if report.stopped => exit,
            _ if report.is_proof() => Exit::SUCCESS,
            _ if report.failed > 0 || !report.complete => Exit::PARTIAL,
            _ => brigade::ErrorKind::Integrity.into(),
        })
    })
}
