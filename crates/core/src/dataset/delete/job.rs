//! The requests of one deletion, and what becomes of each key in them.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::channel::mpsc;
use futures::stream::FuturesUnordered;
use futures::{SinkExt as _, Stream, StreamExt as _};

use super::{DEFAULT_CONCURRENCY, DeleteOptions, DeleteReport, Deletion, is_missing};
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::options::Cancel;
use crate::schedule::{Attempts, RetryScope};
use crate::transport::{DELETE, DeleteSum, Named, Refusal};
use crate::url::S3Url;

/// Keys of one list that are deleted by themselves at once.
const SINGLES: usize = 8;

/// Failures that a report holds. More are counted; who wants all of them listens.
const MAX_FAILURES: usize = 1_000;

/// How long what is in flight may take to end once a job is stopped, before its outcome is left unknown.
const STOPPING: Duration = Duration::from_secs(1);

/// Deletes all of `objects` and tells what became of them.
pub(super) async fn run(
    engine: Engine,
    bucket: String,
    objects: impl Stream<Item = Named> + Send,
    options: DeleteOptions,
) -> Result<DeleteReport> {
    let DeleteOptions { concurrency, outcomes, events, cancel } = options;
    let concurrency = concurrency.unwrap_or(DEFAULT_CONCURRENCY).max(1);
    let scope = RetryScope::new(&engine.flow(&events), cancel.clone());
    let scope = scope.within(engine.window(Some(concurrency)));
    let profile = engine.profile_for(&bucket, &scope).await?;
    let job = Job {
        engine,
        bucket,
        scope,
        cancel,
        sum: Mutex::new(DeleteSum::of(&profile)),
        takes_lists: AtomicBool::new(true),
        outcomes,
        was_stopped: AtomicBool::new(false),
        counts: Counts::default(),
        failures: Mutex::default(),
        ended_by: Mutex::default(),
    };
    let started = Instant::now();
    job.carry_out(objects, profile.delete_page_size as usize, concurrency).await;
    let mut report = job.report(started);
    let done = report.deleted + report.missing + report.failed;
    match report.ended_by.take_if(|_| done == 0) {
        Some(error) => Err(error),
        None => Ok(report),
    }
}

/// What all requests of one deletion share.
struct Job {
    engine: Engine,
    bucket: String,
    scope: RetryScope,
    cancel: Cancel,
    /// What lists go with, as far as is known by now.
    sum: Mutex<DeleteSum>,
    takes_lists: AtomicBool,
    outcomes: Option<mpsc::Sender<Vec<Deletion>>>,
    /// Whether a stop kept anything from being deleted, or from being known to be.
    was_stopped: AtomicBool,
    counts: Counts,
    failures: Mutex<Vec<Deletion>>,
    ended_by: Mutex<Option<Error>>,
}

#[derive(Default)]
struct Counts {
    deleted: AtomicU64,
    missing: AtomicU64,
    failed: AtomicU64,
    requests: AtomicU64,
}

/// What became of one key.
type Settled = (Named, Result<()>);

impl Job {
    /// Keeps lists in flight until there are no more keys, or the job ends before.
    async fn carry_out(
        &self,
        objects: impl Stream<Item = Named> + Send,
        page: usize,
        concurrency: usize,
    ) {
        let mut lists = pin!(objects.chunks(page.clamp(1, 1_000)).fuse());
        let mut in_flight = FuturesUnordered::new();
        let mut all_taken = false;
        loop {
            let takes_more = !all_taken && in_flight.len() < concurrency && !self.has_ended();
            if !takes_more && in_flight.is_empty() {
                break;
            }
            tokio::select! {
                () = self.cancel.cancelled() => break,
                Some(()) = in_flight.next() => {}
                list = lists.next(), if takes_more => match list {
                    Some(list) => in_flight.push(self.delete(list)),
                    None => all_taken = true,
                },
            }
        }
        let rest = async { while in_flight.next().await.is_some() {} };
        let is_unknown = tokio::time::timeout(STOPPING, rest).await.is_err();
        if is_unknown || (self.cancel.is_cancelled() && !all_taken) {
            self.was_stopped.store(true, Ordering::Relaxed);
        }
    }

    /// Deletes what is in one list, by whatever way it takes, and tells of it.
    async fn delete(&self, list: Vec<Named>) {
        let admission = self.scope.window().admit(0).await;
        if self.has_ended() {
            self.was_stopped.fetch_or(self.cancel.is_cancelled(), Ordering::Relaxed);
            return;
        }
        self.scope.expect_more_parts(1);
        let (list, singles): (Vec<_>, Vec<_>) = list.into_iter().partition(Named::fits_xml);
        let mut settled = Vec::with_capacity(list.len() + singles.len());
        let ended = match self.delete_list(list, &mut settled).await {
            Ok(unlisted) => {
                let singles = singles.into_iter().chain(unlisted);
                self.delete_singly(singles, &mut settled).await
            }
            Err(error) => Err(error),
        };
        drop(admission);
        self.scope.window().succeeded();
        self.tell(settled).await;
        match ended {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {
                self.was_stopped.store(true, Ordering::Relaxed);
            }
            Err(error) => {
                locked(&self.ended_by).get_or_insert(error);
            }
        }
    }

    /// Deletes `list` in as few requests as it takes. Gives back what the store takes in no list, or an
    /// error that the other lists would meet too.
    async fn delete_list(
        &self,
        mut list: Vec<Named>,
        settled: &mut Vec<Settled>,
    ) -> Result<Vec<Named>> {
        let mut attempts = self.attempts();
        let mut tried_other_sum = false;
        loop {
            if list.len() < 2 || !self.takes_lists.load(Ordering::Relaxed) {
                return Ok(list);
            }
            attempts.turn().await;
            let sum = *locked(&self.sum);
            let answer = self.engine.calls().delete_many(&self.bucket, &list, sum).await;
            match answer {
                Ok(refusals) => {
                    self.counts.requests.fetch_add(1, Ordering::Relaxed);
                    let again = settle(list, refusals, settled);
                    let (left, errors): (Vec<_>, Vec<_>) = again.into_iter().unzip();
                    list = left;
                    // One of them speaks for all, and a store that asks for less is to be heard.
                    let is_throttled = |error: &Error| error.kind() == ErrorKind::Throttled;
                    let error = match errors.iter().position(is_throttled) {
                        Some(at) => errors.into_iter().nth(at),
                        None => errors.into_iter().next(),
                    };
                    let Some(error) = error else {
                        attempts.succeeded();
                        return Ok(Vec::new());
                    };
                    match attempts.failed(error).await {
                        Ok(()) => {}
                        Err(error) if error.kind() == ErrorKind::Interrupted => return Err(error),
                        Err(error) => {
                            self.give_up(list, &error, settled);
                            return Ok(Vec::new());
                        }
                    }
                }
                Err(error) if is_of_the_list(&error) => {
                    // An unknown header, maybe; and if not that, the store knows no lists, or not this one.
                    if !std::mem::replace(&mut tried_other_sum, true) {
                        let mut known = locked(&self.sum);
                        // Another list may have found out meanwhile.
                        if *known == sum {
                            *known = sum.other();
                        }
                        continue;
                    }
                    if error.kind() == ErrorKind::Unsupported {
                        self.takes_lists.store(false, Ordering::Relaxed);
                    }
                    return Ok(list);
                }
                Err(error) => attempts.failed(error).await?,
            }
        }
    }

    /// The keys that failed through every attempt, each told with what was the matter with the last.
    fn give_up(&self, list: Vec<Named>, error: &Error, settled: &mut Vec<Settled>) {
        settled.extend(list.into_iter().map(|object| {
            let url = S3Url::of(&self.bucket, object.key.as_str()).to_string();
            let own = Error::new(error.kind(), DELETE, url, error.detail()).coded(error.code());
            (object, Err(own))
        }));
    }

    /// Deletes each with a request of its own. An error is one that the others would meet too.
    async fn delete_singly(
        &self,
        objects: impl Iterator<Item = Named>,
        settled: &mut Vec<Settled>,
    ) -> Result<()> {
        let work = |object: Named| async move {
            let mut attempts = self.attempts();
            loop {
                attempts.turn().await;
                match self.engine.calls().delete(&self.bucket, &object).await {
                    Ok(()) => {
                        attempts.succeeded();
                        return (object, Ok(()));
                    }
                    Err(error) => match attempts.failed(error).await {
                        Ok(()) => {}
                        Err(error) => return (object, Err(error)),
                    },
                }
            }
        };
        let mut work = pin!(futures::stream::iter(objects).map(work).buffer_unordered(SINGLES));
        while let Some((object, outcome)) = work.next().await {
            match outcome {
                Err(error) if is_of_all(&error) => return Err(error),
                outcome => {
                    self.counts.requests.fetch_add(1, Ordering::Relaxed);
                    settled.push((object, outcome));
                }
            }
        }
        Ok(())
    }

    fn attempts(&self) -> Attempts<'_> {
        self.engine.retry().attempts(&self.scope, None)
    }

    /// Counts what became of each, and tells who listens.
    async fn tell(&self, settled: Vec<Settled>) {
        let deletions: Vec<_> = settled.into_iter().map(|settled| self.count(settled)).collect();
        if let Some(outcomes) = &self.outcomes {
            // Who does not listen any more does not want to know.
            let _ = outcomes.clone().send(deletions).await;
            return;
        }
        let mut failures = locked(&self.failures);
        let room = MAX_FAILURES - failures.len();
        failures.extend(deletions.into_iter().filter(|it| it.error.is_some()).take(room));
    }

    fn count(&self, (object, outcome): Settled) -> Deletion {
        let (count, error, was_missing) = match outcome {
            Ok(()) => (&self.counts.deleted, None, false),
            Err(error) if is_missing(&error) => (&self.counts.missing, None, true),
            Err(error) => (&self.counts.failed, Some(error), false),
        };
        count.fetch_add(1, Ordering::Relaxed);
        let Named { key, version_id } = object;
        Deletion { key, version_id, error, was_missing }
    }

    fn has_ended(&self) -> bool {
        self.cancel.is_cancelled() || locked(&self.ended_by).is_some()
    }

    fn report(self, started: Instant) -> DeleteReport {
        let of = |count: AtomicU64| count.into_inner();
        DeleteReport {
            deleted: of(self.counts.deleted),
            missing: of(self.counts.missing),
            failed: of(self.counts.failed),
            requests: of(self.counts.requests),
            retries: self.scope.repeated(),
            elapsed_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            stopped: self.was_stopped.into_inner(),
            ended_by: self.ended_by.into_inner().unwrap_or_else(PoisonError::into_inner),
            failures: self.failures.into_inner().unwrap_or_else(PoisonError::into_inner),
        }
    }
}

/// What became of each key of a list that was answered so. Gives back those that may fare better another
/// time, with why they did not this time.
fn settle(
    list: Vec<Named>,
    refusals: Vec<Refusal>,
    settled: &mut Vec<Settled>,
) -> Vec<(Named, Error)> {
    let mut errors: Vec<Option<Error>> = Vec::new();
    errors.resize_with(list.len(), || None);
    for Refusal { index, error } in refusals {
        errors[index] = Some(error);
    }
    let mut again = Vec::new();
    for (object, error) in list.into_iter().zip(errors) {
        match error {
            Some(error) if error.kind().is_retryable() => again.push((object, error)),
            Some(error) => settled.push((object, Err(error))),
            None => settled.push((object, Ok(()))),
        }
    }
    again
}

/// Whether a list was refused for being one, or for what came with it: its keys may be deleted all the same.
fn is_of_the_list(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Rejected | ErrorKind::Unsupported | ErrorKind::Integrity)
}

/// Whether what one key's own request failed for is no matter of that key.
fn is_of_all(error: &Error) -> bool {
    match error.kind() {
        ErrorKind::NotFound => error.code() == Some("NoSuchBucket"),
        // The permission for one key may be missing, good credentials are for all.
        ErrorKind::AccessDenied => !error.is_of_permissions(),
        ErrorKind::Unreachable
        | ErrorKind::Untrusted
        | ErrorKind::Throttled
        | ErrorKind::InvalidInput
        | ErrorKind::Interrupted => true,
        _ => false,
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(key: &str) -> Named {
        Named { key: key.into(), version_id: None }
    }

    fn refusal(index: usize, kind: ErrorKind) -> Refusal {
        Refusal { index, error: Error::new(kind, DELETE, "x", "no") }
    }

    #[test]
    fn what_may_pass_is_asked_for_again_and_nothing_else() {
        let list = ["a", "b", "c", "d"].map(named).to_vec();
        let refusals =
            vec![refusal(3, ErrorKind::ServerFailure), refusal(1, ErrorKind::AccessDenied)];
        let mut settled = Vec::new();
        let again = settle(list, refusals, &mut settled);
        let keys: Vec<_> = again.iter().map(|(object, _)| object.key.as_str()).collect();
        assert_eq!(keys, ["d"]);
        let outcomes: Vec<_> = settled
            .iter()
            .map(|(object, outcome)| (object.key.as_str(), outcome.is_ok()))
            .collect();
        assert_eq!(outcomes, [("a", true), ("b", false), ("c", true)]);
    }

    #[test]
    fn one_key_s_trouble_is_told_from_everybody_s() {
        let of_all = |kind, code, advice| {
            let error = Error::new(kind, DELETE, "x", "no").coded(code);
            is_of_all(&match advice {
                Some(advice) => error.advise(advice),
                None => error,
            })
        };
        assert!(of_all(ErrorKind::NotFound, Some("NoSuchBucket"), None));
        assert!(!of_all(ErrorKind::NotFound, Some("NoSuchUpload"), None));
        assert!(of_all(ErrorKind::AccessDenied, Some("InvalidAccessKeyId"), None));
        let check = crate::error::CHECK_PERMISSIONS;
        assert!(!of_all(ErrorKind::AccessDenied, Some("AccessDenied"), Some(check)));
        assert!(of_all(ErrorKind::Unreachable, None, None));
        assert!(!of_all(ErrorKind::ServerFailure, None, None));
    }
}
