//! `brigade uploads`: unfinished uploads, as manifests here and the store's own list tell of them.
//!
//! Neither side knows everything. A manifest may outlive its upload, which somebody aborted or a rule
//! of the bucket expired; a store holds uploads of other people, other machines and other programs. The
//! two are joined by the upload's id, and every row says on which side it stands.

mod abort;
mod list;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use brigade::{Error, ErrorKind, S3Url, Session, Unfinished, UnfinishedUpload};
use serde::Serialize;

use super::resume::{resume_each, since_unix, told};
use super::tally::Tally;
use super::watch::Watch;
use super::{block_on, ended_with, typed_again};
use crate::args::{SelectArgs, UploadsCommand};
use crate::environment::Environment;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::format::{count, one_line};
use crate::meaning::{Abort, Selection};
use crate::printer::Printer;
use crate::signals::Stopped;

pub(super) fn run(command: &UploadsCommand, typed: &[OsString], environment: &Environment) -> Exit {
    let output = match command {
        UploadsCommand::List(args) | UploadsCommand::Resume(args) => &args.output,
        UploadsCommand::Abort(args) => &args.select.output,
    };
    let mut printer = Printer::new(output, false, environment);
    let result = match command {
        UploadsCommand::List(args) => {
            Selection::from_args(args, environment).and_then(|it| list::run(&it, &mut printer))
        }
        UploadsCommand::Abort(args) => {
            let can_ask = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
            Abort::from_args(args, can_ask, environment)
                .and_then(|it| abort::run(&it, &mut printer))
        }
        UploadsCommand::Resume(args) => resume(args, typed, environment, &mut printer),
    };
    ended_with(result, &mut printer)
}

/// `brigade uploads resume`.
fn resume(
    args: &SelectArgs,
    typed: &[OsString],
    environment: &Environment,
    printer: &mut Printer,
) -> Result<Exit> {
    let selection = Selection::from_args(args, environment)?;
    block_on(async {
        let mut watch = Watch::new(printer, typed_again(typed))?;
        let session = open(&selection, &mut watch).await?;
        // Without a URL, nobody but the manifests needs to be asked what there is.
        let found = match selection.under {
            Some(_) => find(&selection, &session, &mut watch).await?,
            None => find_here(&selection, &session)?,
        };
        found.tell_others(watch.printer, "resume");
        let mut tally = Tally::default();
        for failure in found.unreadable.iter().chain(&found.failures) {
            tally.failure(failure, watch.printer);
        }
        let mut queue = Vec::new();
        for upload in found.uploads {
            match upload.here {
                Some(here) => queue.push(Ok(here)),
                None => tally.failure(&unknown_source(&upload.url), watch.printer),
            }
        }
        if let Some(folder) = selection.folder() {
            resume_each(queue, folder, environment, &mut tally, &mut watch).await;
        }
        Ok(told(&tally, watch.printer))
    })
}

fn unknown_source(url: &S3Url) -> Failure {
    let error = Error::new(
        ErrorKind::Unsupported,
        "resume the upload to",
        url.to_string(),
        "it is on the store only, and of what file is not known here",
    )
    .advise("resume it where it was begun, or abort it");
    // There is more on the store than can be resumed from here, even if this is all there is.
    Failure { exit: Exit::PARTIAL, ..Failure::from(&error.into()) }
}

/// Says what there is to say before the store is reached, and gets ready to.
async fn open(selection: &Selection, watch: &mut Watch<'_>) -> Result<Session> {
    for warning in &selection.warnings {
        watch.printer.warning(warning);
    }
    watch.until(Session::new(selection.session.clone())).await
}

/// An unfinished upload, as far as both sides know it.
struct Upload {
    url: S3Url,
    id: Option<String>,
    /// Its manifest, where it was begun here.
    here: Option<Unfinished>,
    on_store: OnStore,
}

/// What the store says of an upload.
enum OnStore {
    Listed(UnfinishedUpload),
    /// It lists no such upload.
    Gone,
    /// It could not be asked.
    Unknown,
}

/// All that was found.
#[derive(Default)]
struct Found {
    /// The oldest first.
    uploads: Vec<Upload>,
    /// One for every place where the store could not be asked.
    failures: Vec<Failure>,
    /// Manifests that could not be read.
    unreadable: Vec<Failure>,
    /// Unfinished downloads, which this command is not about.
    downloads: u64,
    /// Unfinished uploads to other stores, by their address.
    elsewhere: BTreeMap<Option<String>, u64>,
}

/// An upload as `--json` has it.
#[derive(Serialize)]
struct Described<'a> {
    url: String,
    bucket: &'a str,
    key: &'a str,
    upload_id: Option<&'a str>,
    here: bool,
    on_store: Option<bool>,
    running: bool,
    age_s: Option<u64>,
    initiated_unix_s: Option<u64>,
    begun_unix_s: Option<u64>,
    store_bytes: Option<u64>,
    store_parts: Option<u32>,
    bytes_done: Option<u64>,
    size_bytes: Option<u64>,
    source: Option<String>,
}

impl Upload {
    /// Its URL, for a line of text.
    fn shown(&self) -> String {
        one_line(&self.url.to_string())
    }

    fn is_running(&self) -> bool {
        self.here.as_ref().is_some_and(|here| here.is_running)
    }

    fn listed(&self) -> Option<&UnfinishedUpload> {
        match &self.on_store {
            OnStore::Listed(listed) => Some(listed),
            OnStore::Gone | OnStore::Unknown => None,
        }
    }

    /// How long ago it was begun, by the store's clock where that tells.
    fn age(&self, now: SystemTime) -> Option<Duration> {
        let by_store = self.listed().and_then(|listed| listed.initiated);
        let by_store = by_store.map(|then| now.duration_since(then).unwrap_or_default());
        by_store.or_else(|| {
            let here = self.here.as_ref()?;
            Some(since_unix(here.manifest.transfer.begun_unix_s, now))
        })
    }

    /// Where it is known, in words for a table.
    fn place(&self) -> &'static str {
        match (&self.here, &self.on_store) {
            (Some(here), _) if here.is_running => "running",
            (Some(_), OnStore::Listed(_)) => "here and store",
            (Some(_), OnStore::Gone) => "here only",
            (Some(_), OnStore::Unknown) => "here",
            (None, _) => "store only",
        }
    }

    fn described(&self, now: SystemTime) -> Described<'_> {
        let listed = self.listed();
        let manifest = self.here.as_ref().map(|here| &here.manifest);
        let unix = |at: SystemTime| at.duration_since(UNIX_EPOCH).ok().map(|at| at.as_secs());
        Described {
            url: self.url.to_string(),
            bucket: self.url.bucket(),
            key: self.url.key(),
            upload_id: self.id.as_deref(),
            here: self.here.is_some(),
            on_store: match self.on_store {
                OnStore::Listed(_) => Some(true),
                OnStore::Gone => Some(false),
                OnStore::Unknown => None,
            },
            running: self.is_running(),
            age_s: self.age(now).map(|age| age.as_secs()),
            initiated_unix_s: listed.and_then(|listed| listed.initiated).and_then(unix),
            begun_unix_s: manifest.map(|manifest| manifest.transfer.begun_unix_s),
            store_bytes: listed.and_then(|listed| listed.size_bytes),
            store_parts: listed.and_then(|listed| listed.parts),
            bytes_done: manifest.map(brigade::manifest::Manifest::claimed_bytes),
            size_bytes: manifest.map(|manifest| manifest.transfer.size_bytes),
            source: manifest.map(|manifest| manifest.transfer.path().display().to_string()),
        }
    }
}

impl Found {
    /// Joins what the store lists to what is known here.
    fn add(&mut self, url: S3Url, listed: UnfinishedUpload) {
        let id = Some(&listed.upload_id);
        let known =
            self.uploads.iter_mut().find(|upload| upload.url == url && upload.id.as_ref() == id);
        match known {
            Some(known) => known.on_store = OnStore::Listed(listed),
            None => self.uploads.push(Upload {
                url,
                id: Some(listed.upload_id.clone()),
                here: None,
                on_store: OnStore::Listed(listed),
            }),
        }
    }

    /// Says what is not among the uploads, and why. `command` is the one to ask again.
    fn tell_others(&self, printer: &mut Printer, command: &str) {
        for (endpoint, number) in &self.elsewhere {
            let uploads = count(*number, "unfinished upload");
            let how = match endpoint {
                Some(url) => {
                    format!("at {url} left out: brigade uploads {command} --endpoint-url {url}")
                }
                None => "at AWS left out: see them without an endpoint".to_owned(),
            };
            printer.notice(&format!("{uploads} {how}"));
        }
    }
}

/// What the manifests tell of, without a request.
fn find_here(selection: &Selection, session: &Session) -> Result<Found> {
    let mut found = Found::default();
    for unfinished in selection.folder().map(brigade::unfinished).transpose()?.unwrap_or_default() {
        let here = match unfinished {
            Ok(here) => here,
            Err(error) => {
                found.unreadable.push(Failure::from(&error.into()));
                continue;
            }
        };
        let transfer = &here.manifest.transfer;
        if !selection.covers(&transfer.bucket, &transfer.key) {
            continue;
        }
        if !transfer.side.is_in_store() {
            found.downloads += 1;
        } else if transfer.endpoint_url.as_deref() == session.endpoint_url() {
            found.uploads.push(Upload {
                url: url(session, &transfer.bucket, &transfer.key),
                id: here.manifest.upload_id.clone(),
                here: Some(here),
                on_store: OnStore::Unknown,
            });
        } else {
            *found.elsewhere.entry(transfer.endpoint_url.clone()).or_default() += 1;
        }
    }
    Ok(found)
}

/// What both sides tell of.
async fn find(selection: &Selection, session: &Session, watch: &mut Watch<'_>) -> Result<Found> {
    let mut found = find_here(selection, session)?;
    let places: BTreeSet<(String, String)> = match &selection.under {
        Some(url) => [(url.bucket().to_owned(), url.key().to_owned())].into(),
        None => found
            .uploads
            .iter()
            .map(|upload| (upload.url.bucket().to_owned(), upload.url.key().to_owned()))
            .collect(),
    };
    for (bucket, prefix) in places {
        let listing = async { session.bucket(&bucket).unfinished_uploads(&prefix).await };
        let listed = match watch.until(listing).await {
            Ok(listed) => listed,
            Err(stopped) if stopped.is::<Stopped>() => return Err(stopped),
            // Nobody asked for this bucket by name: its uploads went with it.
            Err(gone) if selection.under.is_none() && is_without_bucket(&gone) => Vec::new(),
            Err(error) => {
                found.failures.push(Failure::from(&error));
                continue;
            }
        };
        // Without a URL the prefix is a whole key, and there may be longer ones.
        let is_asked_for = |key: &str| selection.under.is_some() || key == prefix;
        for upload in found.uploads.iter_mut().filter(|upload| {
            upload.url.bucket() == bucket
                && (selection.under.is_some() || upload.url.key() == prefix)
        }) {
            upload.on_store = OnStore::Gone;
        }
        for listed in listed.into_iter().filter(|listed| is_asked_for(&listed.key)) {
            found.add(url(session, &bucket, &listed.key), listed);
        }
    }
    let now = SystemTime::now();
    found.uploads.sort_by_key(|upload| {
        let age = upload.age(now).unwrap_or_default();
        (std::cmp::Reverse(age), upload.url.to_string(), upload.id.clone())
    });
    Ok(found)
}

fn url(session: &Session, bucket: &str, key: &str) -> S3Url {
    session.bucket(bucket).object(key).url().clone()
}

fn is_without_bucket(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<Error>();
    error.is_some_and(|error| error.code() == Some("NoSuchBucket"))
}

/// What the manifests say by now: what was found a moment ago may have been taken up again.
struct Now(Vec<Unfinished>);

impl Now {
    fn look(folder: Option<&Path>, endpoint_url: Option<&str>) -> Result<Self> {
        let unfinished = folder.map(brigade::unfinished).transpose()?.unwrap_or_default();
        let at_endpoint =
            |here: &Unfinished| here.manifest.transfer.endpoint_url.as_deref() == endpoint_url;
        Ok(Self(unfinished.into_iter().flatten().filter(at_endpoint).collect()))
    }

    /// Whether a process is at `upload`, or was since. Of one that is just being created nobody knows
    /// the id yet, so every upload of that key may be it.
    fn is_taken(&self, upload: &Upload) -> bool {
        self.0.iter().any(|now| {
            let (manifest, id) = (&now.manifest, &now.manifest.upload_id);
            let (bucket, key) = (&manifest.transfer.bucket, &manifest.transfer.key);
            if (upload.url.bucket(), upload.url.key()) != (bucket, key) {
                return false;
            }
            let was_here = upload.here.as_ref().is_some_and(|here| here.path == now.path);
            let is_it = *id == upload.id;
            (was_here && !is_it) || (now.is_running && (is_it || id.is_none()))
        })
    }
}
