//! `brigade rm`: objects deleted by name, by pattern or below a prefix, while they are listed.
//!
//! What is listed goes to the engine as it comes, so the first objects are gone before the last are known.
//! A listing that ends early has not named everything: what it named is deleted, and the end says that there
//! may be more.

mod names;
mod tell;

use std::io::IsTerminal as _;
use std::time::Instant;

use anyhow::Result;
use brigade::{Cancel, DeleteOptions, Error, ErrorKind, Session, progress};
use futures::StreamExt as _;
use futures::channel::mpsc;

use self::names::{Asked, Named};
use self::tell::{Teller, WouldRemove};
use super::watch::Watch;
use super::{ask, block_on};
use crate::args::RmArgs;
use crate::environment::Environment;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::machine;
use crate::meaning::{Chosen, Removal};
use crate::printer::Printer;
use crate::signals::Stopped;

pub(super) fn run(args: &RmArgs, environment: &Environment, printer: &mut Printer) -> Result<Exit> {
    let can_ask = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    let removal = Removal::from_args(args, can_ask, environment)?;
    for warning in &removal.warnings {
        printer.warning(warning);
    }
    block_on(async {
        let mut watch = Watch::new(printer, None)?;
        if let Some(question) = &removal.question
            && !ask::consents(question, &mut watch).await?
        {
            watch.printer.notice("nothing was deleted");
            return Ok(Exit::SUCCESS);
        }
        let session = watch.until(Session::new(removal.session.clone())).await?;
        machine::allow_many_files();
        if removal.dry_run {
            show(&removal, &session, &mut watch).await
        } else {
            delete(&removal, &session, &mut watch).await
        }
    })
}

/// Deletes what is chosen, bucket after bucket.
async fn delete(removal: &Removal, session: &Session, watch: &mut Watch<'_>) -> Result<Exit> {
    let mut teller = Teller::new(removal.versions || removal.version_id.is_some());
    // Neighbours of one bucket go together: single keys then share requests.
    for chosen in removal.chosen.chunk_by(|a, b| a.bucket() == b.bucket()) {
        if watch.stopped().is_some() {
            break;
        }
        delete_in_bucket(removal, session, chosen, &mut teller, watch).await?;
    }
    let stopped = watch.stopped();
    if let Some(exit) = stopped {
        let message =
            "stopped as asked; what is not counted is there still, as far as is known".into();
        watch.printer.failure(&Failure::from(&anyhow::Error::new(Stopped { exit, message })));
    }
    let globs = removal.chosen.iter().any(|chosen| matches!(chosen, Chosen::Matching { .. }));
    teller.sum(stopped.is_some(), globs, watch.printer);
    Ok(stopped.unwrap_or_else(|| teller.exit()))
}

async fn delete_in_bucket(
    removal: &Removal,
    session: &Session,
    chosen: &[Chosen],
    teller: &mut Teller,
    watch: &mut Watch<'_>,
) -> Result<()> {
    let cancel = Cancel::default();
    let (events, heard) = progress::channel();
    let asked = Asked::new(removal, session, cancel.clone());
    let problems = asked.problems();
    let names = asked.names(chosen.to_vec()).map(|named| (named.key, named.version_id));
    let (sender, outcomes) = mpsc::channel(0);
    let options = DeleteOptions {
        concurrency: removal.concurrency,
        outcomes: Some(sender),
        events,
        cancel: cancel.clone(),
    };
    let bucket = session.bucket(chosen.first().map_or("", Chosen::bucket));
    let work = bucket.delete_objects(names, options);
    teller.begins(bucket.name());
    let tell = |printer: &mut Printer, list| teller.outcomes(list, printer);
    let report = watch.job(work, &cancel, heard, outcomes, tell).await;
    let ended_by = match report {
        Ok(report) => teller.add(report),
        Err(stopped) if stopped.is::<Stopped>() => return Err(stopped),
        Err(error) => Some(Failure::from(&error)),
    };
    let listing = problems.take().into_iter().map(|error| Failure::of(&error));
    for failure in ended_by.into_iter().chain(listing) {
        if watch.stopped().is_none() {
            teller.problem(&failure, watch.printer);
        }
    }
    Ok(())
}

/// Shows what would be deleted.
async fn show(removal: &Removal, session: &Session, watch: &mut Watch<'_>) -> Result<Exit> {
    let started = Instant::now();
    let mut teller = Teller::new(removal.versions || removal.version_id.is_some());
    let mut sum = WouldRemove::default();
    for chosen in &removal.chosen {
        let asked = Asked::new(removal, session, Cancel::default());
        let problems = asked.problems();
        let mut found = asked.names(vec![chosen.clone()]);
        loop {
            let next = watch.until(async { Ok::<_, Error>(found.next().await) });
            let Some(named) = next.await? else { break };
            let named = match chosen {
                Chosen::One(_) if !removal.versions => {
                    match watch.until(look(session, chosen, named)).await {
                        Ok(named) => named,
                        Err(stopped) if stopped.is::<Stopped>() => return Err(stopped),
                        Err(error) => {
                            teller.problem(&Failure::from(&error), watch.printer);
                            continue;
                        }
                    }
                }
                _ => Some(named),
            };
            match named {
                Some(named) => {
                    teller.would_delete(chosen.bucket(), &named, &mut sum, watch.printer);
                }
                None => watch.printer.notice(&format!("{chosen} is not there")),
            }
        }
        for problem in problems.take() {
            teller.problem(&Failure::of(&problem), watch.printer);
        }
    }
    teller.would_sum(&mut sum, started, watch.printer);
    Ok(teller.exit())
}

/// A key that was named and not listed, as it is: `None` where it is not there. Who may delete it need not
/// be allowed to look at it.
async fn look(session: &Session, chosen: &Chosen, named: Named) -> Result<Option<Named>, Error> {
    let info = session.object(chosen.url()).info_of(named.version_id.clone(), None).await;
    match info {
        Ok(info) => Ok(Some(Named { size_bytes: Some(info.size_bytes), ..named })),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            // A missing bucket is a mistake, a missing key is as it would be.
            session.bucket(chosen.bucket()).look().await.map(|_| None)
        }
        Err(error) if matches!(error.kind(), ErrorKind::Unreachable | ErrorKind::InvalidInput) => {
            Err(error)
        }
        Err(_) => Ok(Some(named)),
    }
}
