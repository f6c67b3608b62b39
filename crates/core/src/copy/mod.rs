//! One object into another: by the store itself where it can, else through this machine.
//!
//! Inside one store nothing passes through this machine: a `CopyObject`, or above its limit many
//! `UploadPartCopy` at once ([`inside`]). Between stores, and where a store cannot copy, ranges are
//! downloaded into memory and uploaded as parts ([`through`]), never to a disk. Either way the source is
//! looked at once and pinned, what describes it comes along unless something else is asked for
//! ([`carried`]), and the copy is held against what is recorded of the source.

mod carried;
mod compare;
mod inside;
mod remove;
mod through;

pub(crate) use remove::remove;

use std::sync::Arc;
use std::time::Instant;

use crate::account::Account;
use crate::engine::{Engine, stopped};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::StoreProfile;
use crate::manifest::Side;
use crate::options::{CopyOptions, UploadOptions};
use crate::plan::Plan;
use crate::progress::{Event, Operation};
use crate::report::Report;
use crate::schedule::{RetryScope, Window};
use crate::transport::{ObjectInfo, Pin};
use crate::upload::{Assembly, Outcome, ended_report, prepare};
use crate::url::S3Url;

const OPERATION: &str = "copy to";

/// An object, and how it is reached.
#[derive(Clone, Copy)]
pub(crate) struct End<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) url: &'a S3Url,
}

/// Copies `source` to `target`, in requests that `window`, of the target's session, admits.
pub(crate) async fn run(
    source: End<'_>,
    target: End<'_>,
    options: &CopyOptions,
    window: Window,
) -> Result<Report> {
    let (started, engine, url) = (Instant::now(), target.engine, target.url);
    let flow = engine.flow(&options.events);
    let account = Account::open(engine.lanes(), &flow);
    let scope = RetryScope::new(&flow, options.cancel.clone()).within(window);
    let is_inside = engine.is_of_session(source.engine);
    refuse_what_makes_no_sense(source, url, options, is_inside)?;
    let asked = UploadOptions {
        encryption: options.encryption.clone().unwrap_or_default(),
        cancel: options.cancel.clone(),
        ..UploadOptions::default()
    };
    let profile = prepare(engine, OPERATION, url, &asked, &scope).await?;
    let look = look(source, options, &scope);
    let (info, pin) = tokio::select! {
        looked = look => looked?,
        () = options.cancel.cancelled() => return Err(stopped(OPERATION, url)),
    };
    let is_alike = is_inside || profile.name == source.engine.store().profile().name;
    let mut copy = Copying {
        source,
        target,
        options,
        account: &account,
        scope: &scope,
        carried: carried::of(&info, options, is_inside, is_alike, engine.store().endpoint_url()),
        info,
        pin: Arc::new(pin),
        profile,
        is_inside,
        warnings: Vec::new(),
    };
    let (outcome, plan) = copy.carry_out().await?;
    let source_etag = copy.info.etag.take();
    let time = account.close(scope.window().wants_more());
    let bytes = plan.size_bytes();
    Ok(Report {
        operation: Operation::Copy,
        source: source.url.to_string(),
        target: url.to_string(),
        bytes,
        parts: plan.part_count(),
        part_size_bytes: plan.part_size_bytes(),
        source_etag,
        ..ended_report(engine, &scope, started, bytes, time, outcome)
    })
}

/// One copy under way.
struct Copying<'a> {
    source: End<'a>,
    target: End<'a>,
    options: &'a CopyOptions,
    account: &'a Account,
    scope: &'a RetryScope,
    /// What the target's object will be besides its bytes.
    carried: UploadOptions,
    info: ObjectInfo,
    pin: Arc<Pin>,
    profile: Arc<StoreProfile>,
    /// Whether both ends are one session's.
    is_inside: bool,
    warnings: Vec<String>,
}

impl<'a> Copying<'a> {
    async fn carry_out(&mut self) -> Result<(Outcome, Plan)> {
        let (mut outcome, plan) = match self.by_the_store().await? {
            Some(done) => done,
            None => self.through_here().await?,
        };
        outcome.warnings.splice(0..0, std::mem::take(&mut self.warnings));
        Ok((outcome, plan))
    }

    /// `None` where the store cannot do it.
    async fn by_the_store(&mut self) -> Result<Option<(Outcome, Plan)>> {
        if !self.is_inside {
            return Ok(None);
        }
        match self.inside().await {
            Ok(done) => Ok(Some(done)),
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                self.warn(format!(
                    "the store cannot copy this by itself ({}): it goes through this machine",
                    error.detail()
                ));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// What the copy is put together with.
    fn assembly<'b>(&self, carried: &'b UploadOptions) -> Assembly<'b>
    where
        'a: 'b,
    {
        let (engine, url) = (self.target.engine, self.target.url);
        let profile = Arc::clone(&self.profile);
        Assembly::new(engine, OPERATION, url, carried, self.scope, profile, None)
    }

    fn tell_plan(&self, plan: &Plan) {
        self.scope.expect_parts(plan.part_count());
        self.options.events.emit(|| Event::Started {
            operation: Operation::Copy,
            source: self.source.url.to_string(),
            target: self.target.url.to_string(),
            size_bytes: plan.size_bytes(),
            parts: plan.part_count(),
            part_size_bytes: plan.part_size_bytes(),
            concurrency: self.scope.window().limit(),
        });
    }

    /// Writes down that there is about to be an upload in parts.
    async fn record(&self, assembly: &mut Assembly<'_>, plan: &Plan) -> Result<()> {
        let source = self.source.url.to_string();
        let side = Side::Copy { source: source.clone() };
        let (size, part_size) = (plan.size_bytes(), plan.part_size_bytes());
        let transfer = assembly.transfer(&source, size, part_size, side);
        assembly.record_for_abort(source.as_bytes(), &transfer).await
    }

    fn warn(&mut self, message: String) {
        self.options.events.emit(|| Event::Warning { message: message.clone() });
        self.warnings.push(message);
    }

    /// The source is not what it was when it was looked at.
    fn changed(&self) -> Error {
        let detail = format!("{} was overwritten during the copy", self.source.url);
        Error::new(ErrorKind::Changed, OPERATION, self.target.url.to_string(), detail)
            .advise("start it again")
    }
}

/// Looks at the source, and pins it.
async fn look(
    source: End<'_>,
    options: &CopyOptions,
    scope: &RetryScope,
) -> Result<(ObjectInfo, Pin)> {
    let (version, key) = (options.version_id.as_deref(), options.source_customer_key.as_ref());
    let info = source.engine.head(source.url, version, key, scope).await;
    let info = info.map_err(|error| error.during("copy"))?;
    let pin = Pin {
        etag: info.etag.clone(),
        version_id: info.version_id.clone().or_else(|| options.version_id.clone()),
        customer_key: options.source_customer_key.clone(),
    };
    Ok((info, pin))
}

fn refuse_what_makes_no_sense(
    source: End<'_>,
    target: &S3Url,
    options: &CopyOptions,
    is_inside: bool,
) -> Result<()> {
    let refuse = |url: &S3Url, why: &str| {
        Error::new(ErrorKind::InvalidInput, OPERATION, url.to_string(), why)
    };
    if source.url.key().is_empty() {
        return Err(refuse(source.url, "no key").advise("write it as s3://bucket/key"));
    }
    if options.source_customer_key.is_some() {
        source.engine.refuse_plain_customer_key("copy", source.url)?;
    }
    let changes_nothing = options.description.is_none()
        && options.tags.is_none()
        && options.storage_class.is_none()
        && options.encryption.is_none()
        && options.version_id.is_none();
    if is_inside && source.url == target && changes_nothing {
        return Err(refuse(target, "it is the source itself, and nothing about it would change")
            .advise(
                "name another key, or what is to be another: metadata, storage class, encryption",
            ));
    }
    Ok(())
}
