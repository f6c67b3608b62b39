//! One object in the making on the store, wherever its bytes come from: begin, complete, settle what
//! nobody heard of, or give up without leaving anything behind.
//!
//! Files ([`super::run`]), streams and copies bring the bytes; what they have in common is here. A
//! lost answer is settled by a random token in the object's metadata; a request to begin whose answer
//! was lost is found again by what was written down before it; a checksum that the store does not know
//! is left out, and that is said.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::prove::Computed;
use super::unfinished::is_doubtful;
use super::{lost_a_race, new_token, summed_for};
use crate::engine::{Engine, blocking, stopped};
use crate::error::{CHECK_PERMISSIONS, Error, ErrorKind, Result};
use crate::file::Content;
use crate::integrity::{Algorithm, Checksum, ChecksumType, Digest, Md5ETag, Verified};
use crate::limits::{ChecksumSupport, MIB, StoreProfile};
use crate::manifest::PartRecord;
use crate::options::{ChecksumChoice, CustomerKey, UploadOptions, Verify};
use crate::progress::Event;
use crate::record::{Recorder, Warnings, unix_now};
use crate::schedule::{Cost, RetryScope};
use crate::transport::{PartReceipt, Payload, Receipt, TOKEN_NAME};
use crate::url::S3Url;

/// A part under way holds a few frames, or a few steps of mapped pages that are given back behind it.
const PART_BYTES: u64 = MIB;

/// Times that a completion is tried again with the parts as the store lists them.
const INVALID_ROUNDS: u32 = 3;

/// Times that an upload is aborted again because a late part kept it alive.
const ABORT_ROUNDS: u32 = 5;

/// Between the first two of them; the others wait longer.
const ABORT_PAUSE: Duration = Duration::from_millis(100);

/// See the module.
pub(crate) struct Assembly<'a> {
    pub(crate) engine: &'a Engine,
    /// What is done, in messages.
    pub(crate) operation: &'static str,
    pub(crate) url: &'a S3Url,
    pub(crate) options: &'a UploadOptions,
    pub(crate) scope: &'a RetryScope,
    pub(crate) profile: Arc<StoreProfile>,
    /// Of the checksum that goes along.
    pub(crate) algorithm: Option<Algorithm>,
    pub(crate) recorder: Recorder,
    /// Requests to create an upload, of runs before and this one, whose outcome nobody heard.
    pub(super) open_intents_unix_s: Vec<u64>,
    /// Ids of uploads that such requests have begun.
    pub(super) strays: Vec<String>,
    /// What is wrong with the manifest.
    pub(crate) record_warnings: Warnings,
    pub(crate) warnings: Vec<String>,
}

/// An upload that exists on the store.
pub(crate) struct Begun {
    pub(crate) upload_id: String,
    pub(super) token: String,
    /// Parts that an earlier run recorded as sent.
    pub(super) claims: BTreeMap<u32, PartRecord>,
}

/// How a completion ended.
pub(crate) enum Completed {
    Done(Receipt),
    /// A late duplicate of a part may have taken its place, with the same bytes and another `ETag`: to
    /// be tried again with the parts as they are listed.
    PartsDiffer(Error),
}

/// What it came to.
pub(crate) struct Outcome {
    pub(crate) receipt: Receipt,
    pub(crate) verified: Verified,
    pub(crate) checksum: Option<Checksum>,
    pub(crate) warnings: Vec<String>,
}

impl<'a> Assembly<'a> {
    pub(crate) fn new(
        engine: &'a Engine,
        operation: &'static str,
        url: &'a S3Url,
        options: &'a UploadOptions,
        scope: &'a RetryScope,
        profile: Arc<StoreProfile>,
        algorithm: Option<Algorithm>,
    ) -> Self {
        Self {
            engine,
            operation,
            url,
            options,
            scope,
            profile,
            algorithm,
            recorder: Recorder::default(),
            open_intents_unix_s: Vec::new(),
            strays: Vec::new(),
            record_warnings: Warnings::new(options.events.clone()),
            warnings: Vec::new(),
        }
    }

    /// Stores all of the bytes in one request; `digest` is what the first attempt sends along.
    pub(crate) async fn put(
        &mut self,
        mut digest: Option<Digest>,
        content: impl Fn() -> Result<Content>,
    ) -> Result<(Receipt, Computed)> {
        // Only a conditional upload can meet its own object and take it for somebody else's.
        let mut options = self.options.clone();
        let token = options.if_none_match.then(new_token);
        options.metadata.extend(token.clone().map(|token| (TOKEN_NAME.to_owned(), token)));
        let receipt = loop {
            let attempt = async |number| {
                let content = content()?;
                let flow = self.scope.flow();
                let digest = summed_for(number, &content, digest, flow).await?;
                let sign = !self.profile.unsigned_payload;
                let payload = Payload { content, digest, sign, flow: flow.clone() };
                self.engine.calls().put(self.url, payload, &options).await
            };
            let putting = self.engine.retry().run(self.scope, Some(1), attempt);
            let put = tokio::select! {
                put = putting => put,
                () = self.options.cancel.cancelled() => Err(stopped(self.operation, self.url)),
            };
            match put {
                Ok(receipt) => break receipt,
                Err(error) if digest.is_some() && self.may_step_down(&error) => {
                    self.warn_of_step_down(&error);
                    digest = None;
                }
                Err(error) if error.kind() == ErrorKind::Conflict && !lost_a_race(&error) => {
                    match &token {
                        Some(token) => break self.settle(token, error).await?,
                        None => return Err(error),
                    }
                }
                Err(error) => return Err(error),
            }
        };
        let computed = Computed {
            full_object: digest.map(Checksum::full_object),
            md5: digest.and_then(Md5ETag::of_whole),
            composite: None,
        };
        Ok((receipt, computed))
    }

    /// Finds out whether the store did the work whose answer was lost. That an object is there
    /// proves nothing; that it carries this upload's token does. Else it was `error`.
    pub(super) async fn settle(&self, token: &str, error: Error) -> Result<Receipt> {
        // Not stopped by a cancel: what is to be found out has happened already.
        let scope = RetryScope::of_cleanup();
        let key = self.options.encryption.customer_key();
        let look = |_| self.engine.calls().head(self.url, None, key);
        match self.engine.retry().run(&scope, None, look).await {
            Ok(info) if info.metadata.get(TOKEN_NAME).is_some_and(|found| found == token) => {
                Ok(Receipt {
                    etag: info.etag,
                    version_id: info.version_id,
                    checksums: info.checksums,
                    encryption: info.encryption,
                })
            }
            Ok(_) => Err(error),
            Err(missing) if missing.kind() == ErrorKind::NotFound => Err(error),
            Err(unknown) => Err(error.advise(format!(
                "it is not known whether the object was stored ({}): look at it before trying again",
                unknown.detail()
            ))),
        }
    }

    /// Creates the multipart upload, with less of a checksum if the store refuses the better one.
    pub(crate) async fn begin(&mut self) -> Result<Begun> {
        let token = new_token();
        let doubtful = Mutex::new(Vec::new());
        let created = loop {
            let checksum = self.algorithm.and_then(|algorithm| {
                Some((algorithm, self.profile.multipart_checksum_type(algorithm)?))
            });
            let attempt = |_| async {
                let (recorder, intended) = (self.recorder.clone(), token.clone());
                let sent_unix_s = unix_now();
                blocking(self.operation, move || {
                    recorder.intent(&intended);
                    Ok(())
                })
                .await?;
                let calls = self.engine.calls();
                let created =
                    calls.create_multipart(self.url, checksum, &token, self.options).await;
                match &created {
                    Ok(_) => {}
                    Err(error) if is_doubtful(error) => lock(&doubtful).push(sent_unix_s),
                    Err(_) => self.recorder.refused(),
                }
                created
            };
            match self.engine.retry().run(self.scope, None, attempt).await {
                Ok(id) => {
                    let (recorder, new_id) = (self.recorder.clone(), id.clone());
                    let (algorithm, kind) = (self.algorithm, checksum.map(|(_, kind)| kind));
                    blocking(self.operation, move || {
                        recorder.upload(&new_id, algorithm, kind);
                        Ok(())
                    })
                    .await?;
                    break Ok(id);
                }
                Err(error) if checksum.is_some() && self.may_step_down(&error) => match checksum {
                    Some((algorithm, ChecksumType::FullObject))
                        if algorithm.supports_composite() =>
                    {
                        self.warn(format!(
                            "the store refused a checksum of the whole object ({}); the parts' \
                             were sent instead",
                            error.detail()
                        ));
                        self.without_full_object();
                    }
                    _ => {
                        self.warn_of_step_down(&error);
                        self.algorithm = None;
                    }
                },
                Err(error) => break Err(error),
            }
        };
        self.open_intents_unix_s.append(&mut lock(&doubtful));
        match created {
            Ok(upload_id) => {
                self.find_strays(&upload_id, unix_now()).await;
                Ok(Begun { upload_id, token, claims: BTreeMap::new() })
            }
            Err(error) => {
                if self.open_intents_unix_s.is_empty() {
                    self.forget().await;
                } else if !self.recorder.is_on() {
                    self.warn_of_strays("no answer to the request that begins an upload came");
                }
                Err(error)
            }
        }
    }

    /// Puts the parts together, for the `round`th time.
    pub(crate) async fn complete(
        &self,
        size_bytes: u64,
        begun: &Begun,
        parts: &[PartReceipt],
        full_object: Option<&Checksum>,
        round: u32,
    ) -> Result<Completed> {
        let full_object = self
            .algorithm
            .and_then(|algorithm| self.profile.multipart_checksum_type(algorithm))
            .filter(|kind| *kind == ChecksumType::FullObject)
            .and(full_object);
        let size = self.profile.mp_object_size.then_some(size_bytes);
        let id = &begun.upload_id;
        let attempt = |_| {
            let calls = self.engine.calls();
            calls.complete_multipart(self.url, id, parts, full_object, size, self.options)
        };
        let error = match self.engine.retry().run(self.scope, None, attempt).await {
            Ok(receipt) => return Ok(Completed::Done(receipt)),
            Err(error) if error.code() == Some("InvalidPart") && round < INVALID_ROUNDS => {
                return Ok(Completed::PartsDiffer(error));
            }
            Err(error) => error,
        };
        let may_be_done = matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Conflict)
            || error.kind().is_retryable();
        if !may_be_done || lost_a_race(&error) {
            return Err(error);
        }
        self.settle(&begun.token, error).await.map(Completed::Done)
    }

    /// Gives the upload up, and makes sure that no late part keeps it alive.
    pub(super) async fn abort(&self, upload_id: &str) -> Result<()> {
        let key = self.options.encryption.customer_key();
        abort(self.engine, self.url, upload_id, key).await
    }

    /// Gives up an upload after `error`: aborts it, and what of it may be left. Gives the error back, with
    /// what could not be done.
    pub(crate) async fn give_up(&mut self, begun: &Begun, error: Error) -> Error {
        let aborted = self.abort(&begun.upload_id).await;
        self.settle_strays().await;
        match aborted {
            // Begun anew, it is recorded in the same place.
            Ok(()) if lost_a_race(&error) => error,
            Ok(()) => {
                self.forget().await;
                error
            }
            Err(left) => error.advise(format!(
                "the unfinished upload {} could not be aborted ({}): abort it, or it is billed",
                begun.upload_id,
                left.detail()
            )),
        }
    }

    /// From here on, and for an upload that was begun so.
    pub(crate) fn without_full_object(&mut self) {
        let mut profile = (*self.profile).clone();
        profile.checksums = ChecksumSupport::Composite;
        self.profile = Arc::new(profile);
    }

    /// What a part takes of the memory: all of it where it is signed and so has to be in one piece.
    pub(super) fn cost(&self) -> Cost {
        let in_one_piece = !self.profile.unsigned_payload;
        Cost { memory_bytes: if in_one_piece { u64::MAX } else { PART_BYTES } }
    }

    pub(crate) fn warn_of_ignored_conditions(&mut self) {
        if self.options.if_none_match && !self.profile.conditional_writes {
            self.warn(format!(
                "the store ({}) may ignore --if-none-match: an existing object could have been \
                 replaced",
                self.profile.name
            ));
        }
    }

    /// Whether the store may have refused only the checksum, and nobody insisted on it.
    fn may_step_down(&self, error: &Error) -> bool {
        error.may_be_of_a_header()
            && self.options.checksum == ChecksumChoice::Auto
            && self.options.verify != Verify::Require
    }

    fn warn_of_step_down(&mut self, error: &Error) {
        self.warn(format!(
            "the store refused the checksum ({}); it was left out: a store profile with checksums \
             = \"none\" says so in advance",
            error.detail()
        ));
    }

    pub(crate) fn warn(&mut self, message: String) {
        self.options.events.emit(|| Event::Warning { message: message.clone() });
        self.warnings.push(message);
    }

    /// The same error, in the words of this upload.
    pub(crate) fn in_words(&self, error: Error) -> Error {
        if error.code() == Some("PreconditionFailed") && self.options.if_none_match {
            return Error::new(
                ErrorKind::Conflict,
                self.operation,
                self.url.to_string(),
                "the object exists already",
            )
            .advise("leave out --if-none-match to replace it")
            .caused_by(error);
        }
        match self.algorithm {
            // Some stores refuse so what they do not know, and this one may be one of them.
            Some(algorithm)
                if error.is_of_permissions()
                    && algorithm != Algorithm::Md5
                    && self.profile.checksums != ChecksumSupport::FullObject =>
            {
                error.advise(format!(
                    "{CHECK_PERMISSIONS}, and whether the store knows {algorithm} checksums: \
                     without them, use checksums = \"none\" in a store profile"
                ))
            }
            _ => error,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Gives an upload up, and makes sure that no late part keeps it alive.
pub(crate) async fn abort(
    engine: &Engine,
    url: &S3Url,
    upload_id: &str,
    key: Option<&CustomerKey>,
) -> Result<()> {
    // Not stopped by the cancel that led here.
    let scope = RetryScope::of_cleanup();
    let calls = engine.calls();
    for round in 0..ABORT_ROUNDS {
        if round > 0 {
            // A late part, or a slow index, needs a moment.
            tokio::time::sleep(ABORT_PAUSE * round).await;
        }
        let attempt = |_| calls.abort_multipart(url, upload_id);
        engine.retry().run(&scope, None, attempt).await?;
        let list = |_| calls.list_parts(url, upload_id, 0, key);
        match engine.retry().run(&scope, None, list).await {
            Ok(_) => {}
            // Gone. Without the right to list, the acknowledged abort is all that can be had.
            Err(_) => return Ok(()),
        }
    }
    Err(Error::new(
        ErrorKind::ServerFailure,
        "abort the upload to",
        url.to_string(),
        "the store keeps listing it",
    ))
}
