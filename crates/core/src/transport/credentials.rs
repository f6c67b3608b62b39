//! A session's credentials: kept until shortly before they expire, and got anew when a store refuses
//! them.
//!
//! The SDK would keep them itself, but cannot be told that they are no good any more; and aws-config
//! reads a profile's files once, so that keys rotated in them, or a sign-in made meanwhile, stay
//! unseen. So the SDK keeps nothing here, and each time the credentials are got, the chain that finds
//! them is built anew. Hundreds of parts meet their expiry together: one gets them, all wait for that
//! one, and a part that was refused with what has been replaced already just asks again.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use futures::future::{BoxFuture, FutureExt as _, Shared};
use tokio::time::Instant;

use super::place::fingerprint;

/// How long before their expiry credentials are no longer used: a request takes some time to arrive,
/// and clocks differ.
const MARGIN: Duration = Duration::from_mins(1);

/// The least time between two attempts to get credentials that are about to expire, or that turned out
/// to be the refused ones again: a source that has no new ones yet is not to be asked by every part.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long getting them may take: some programs that give credentials ask a person.
const LOAD_TIMEOUT: Duration = Duration::from_mins(1);

/// Builds the chain that finds credentials.
type Build = Box<dyn Fn() -> BoxFuture<'static, Option<SharedCredentialsProvider>> + Send + Sync>;

type Loaded = Result<Credentials, Arc<CredentialsError>>;

/// See the module. Cheap to clone; the clones are one.
#[derive(Clone)]
pub(super) struct Keys(Arc<Inner>);

struct Inner {
    build: Build,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The chain that the session's configuration came with; used once.
    first: Option<SharedCredentialsProvider>,
    kept: Option<Kept>,
    loading: Option<Shared<BoxFuture<'static, Loaded>>>,
    /// Which were refused and found again, and when.
    found_again: Option<(u64, Instant)>,
}

struct Kept {
    credentials: Credentials,
    /// When newer ones were last looked for.
    looked_at: Instant,
}

impl Kept {
    /// Whether they can be used without a look for newer ones.
    fn is_fresh(&self, now: SystemTime) -> bool {
        let expires = self.credentials.expiry();
        expires.is_none_or(|expiry| now + MARGIN < expiry) || self.looked_at.elapsed() < PATIENCE
    }

    fn is_valid(&self, now: SystemTime) -> bool {
        self.credentials.expiry().is_none_or(|expiry| now < expiry)
    }
}

impl Keys {
    /// With the chain that is there already, and how to build another.
    pub(super) fn new(
        first: SharedCredentialsProvider,
        build: impl Fn() -> BoxFuture<'static, Option<SharedCredentialsProvider>>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        let state = Mutex::new(State { first: Some(first), ..State::default() });
        Self(Arc::new(Inner { build: Box::new(build), state }))
    }

    /// Gets others than those that were refused. False if there are no others.
    pub(super) async fn replace(&self, refused: u64) -> Result<bool, CredentialsError> {
        let loading = {
            let mut state = self.state();
            if state.kept.as_ref().is_some_and(|kept| print_of(&kept.credentials) != refused) {
                return Ok(true);
            }
            let just_now =
                |(found, at): (u64, Instant)| found == refused && at.elapsed() < PATIENCE;
            if state.found_again.is_some_and(just_now) {
                return Ok(false);
            }
            self.load(&mut state)
        };
        let loaded = loading.await.map_err(|error| copy_of(&error))?;
        let is_other = print_of(&loaded) != refused;
        if !is_other {
            self.state().found_again = Some((refused, Instant::now()));
        }
        Ok(is_other)
    }

    async fn current(&self) -> Result<Credentials, CredentialsError> {
        let loading = {
            let mut state = self.state();
            match &state.kept {
                Some(kept) if kept.is_fresh(SystemTime::now()) => {
                    return Ok(kept.credentials.clone());
                }
                _ => self.load(&mut state),
            }
        };
        let error = match loading.await {
            Ok(credentials) => return Ok(credentials),
            Err(error) => error,
        };
        // Those about to expire are better than none.
        match &self.state().kept {
            Some(kept) if kept.is_valid(SystemTime::now()) => Ok(kept.credentials.clone()),
            _ => Err(copy_of(&error)),
        }
    }

    /// The load under way, else a new one. In a task of its own: the request that asks first may be
    /// given up before it ends.
    fn load(&self, state: &mut State) -> Shared<BoxFuture<'static, Loaded>> {
        if let Some(loading) = &state.loading {
            return loading.clone();
        }
        let (keys, first) = (self.clone(), state.first.take());
        let task = tokio::spawn(async move { keys.load_now(first).await });
        let ended = |lost| Err(Arc::new(CredentialsError::unhandled(lost)));
        let loading = async move { task.await.unwrap_or_else(ended) }.boxed().shared();
        state.loading.insert(loading).clone()
    }

    async fn load_now(&self, first: Option<SharedCredentialsProvider>) -> Loaded {
        let loading = async {
            let provider = match first {
                Some(provider) => Some(provider),
                None => (self.0.build)().await,
            };
            let provider = provider.ok_or_else(CredentialsError::not_loaded_no_source)?;
            provider.provide_credentials().await
        };
        let loaded = tokio::time::timeout(LOAD_TIMEOUT, loading).await;
        let loaded =
            loaded.unwrap_or_else(|_| Err(CredentialsError::provider_timed_out(LOAD_TIMEOUT)));
        let mut state = self.state();
        state.loading = None;
        match (&loaded, &mut state.kept) {
            (Ok(credentials), kept) => {
                let credentials = credentials.clone();
                *kept = Some(Kept { credentials, looked_at: Instant::now() });
            }
            (Err(_), Some(kept)) if kept.is_valid(SystemTime::now()) => {
                kept.looked_at = Instant::now();
            }
            (Err(_), _) => {}
        }
        loaded.map_err(Arc::new)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl ProvideCredentials for Keys {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.current())
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(redacted)")
    }
}

fn print_of(credentials: &Credentials) -> u64 {
    fingerprint(credentials.access_key_id(), credentials.session_token())
}

/// The error that everybody who waited gets.
fn copy_of(error: &Arc<CredentialsError>) -> CredentialsError {
    let cause = Cause(Arc::clone(error));
    match &**error {
        CredentialsError::CredentialsNotLoaded(_) => CredentialsError::not_loaded(cause),
        CredentialsError::ProviderTimedOut(limit) => {
            CredentialsError::provider_timed_out(limit.timeout_duration())
        }
        CredentialsError::InvalidConfiguration(_) => CredentialsError::invalid_configuration(cause),
        CredentialsError::ProviderError(_) => CredentialsError::provider_error(cause),
        _ => CredentialsError::unhandled(cause),
    }
}

#[derive(Debug)]
struct Cause(Arc<CredentialsError>);

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Cause {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// A chain whose n-th build gives the n-th of these, or the last; `None` fails.
    fn keys(all: Vec<Option<Credentials>>) -> (Keys, Arc<AtomicU32>) {
        let builds = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&builds);
        let chain = move || {
            let build = counted.fetch_add(1, Ordering::SeqCst) as usize;
            SharedCredentialsProvider::new(Fixed(all[build.min(all.len() - 1)].clone()))
        };
        (Keys::new(chain(), move || futures::future::ready(Some(chain())).boxed()), builds)
    }

    #[derive(Debug)]
    struct Fixed(Option<Credentials>);

    impl ProvideCredentials for Fixed {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            future::ProvideCredentials::new(async {
                tokio::task::yield_now().await;
                self.0.clone().ok_or_else(|| CredentialsError::provider_error("down"))
            })
        }
    }

    fn named(key: &str, lives: Option<Duration>) -> Credentials {
        let expiry = lives.map(|lives| SystemTime::now() + lives);
        Credentials::new(key, "secret", Some("token".into()), expiry, "test")
    }

    fn print(key: &str) -> u64 {
        fingerprint(key, Some("token"))
    }

    async fn key_of(keys: &Keys) -> String {
        keys.current().await.expect("credentials").access_key_id().to_owned()
    }

    #[tokio::test]
    async fn many_that_are_refused_together_cause_one_refresh() {
        let (keys, builds) = keys(vec![Some(named("old", None)), Some(named("new", None))]);
        assert_eq!(key_of(&keys).await, "old");
        assert_eq!(key_of(&keys).await, "old");
        let all = futures::future::join_all((0..200).map(|_| keys.replace(print("old")))).await;
        assert!(all.into_iter().all(|replaced| replaced.expect("new ones")));
        // One that comes late was refused with what is no longer used.
        assert!(keys.replace(print("old")).await.expect("new ones"));
        assert_eq!((key_of(&keys).await.as_str(), builds.load(Ordering::SeqCst)), ("new", 2));
    }

    #[tokio::test]
    async fn a_source_that_has_no_others_is_asked_once() {
        let (keys, builds) = keys(vec![Some(named("old", None))]);
        assert_eq!(key_of(&keys).await, "old");
        for _ in 0..10 {
            assert!(!keys.replace(print("old")).await.expect("the same"));
        }
        assert_eq!(builds.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn what_is_about_to_expire_is_got_anew_and_used_while_it_lives() {
        let soon = MARGIN / 2;
        let (keys, builds) =
            keys(vec![Some(named("old", Some(soon))), None, Some(named("new", Some(MARGIN * 2)))]);
        assert_eq!(key_of(&keys).await, "old");
        // Not for every request.
        assert_eq!((key_of(&keys).await.as_str(), builds.load(Ordering::SeqCst)), ("old", 1));
        let patient = Instant::now().checked_sub(PATIENCE).expect("a clock");
        let age = || keys.state().kept.as_mut().expect("some").looked_at = patient;
        age();
        assert_eq!((key_of(&keys).await.as_str(), builds.load(Ordering::SeqCst)), ("old", 2));
        assert_eq!((key_of(&keys).await.as_str(), builds.load(Ordering::SeqCst)), ("old", 2));
        age();
        assert_eq!((key_of(&keys).await.as_str(), builds.load(Ordering::SeqCst)), ("new", 3));
        age();
        assert_eq!((key_of(&keys).await.as_str(), builds.load(Ordering::SeqCst)), ("new", 3));
    }

    #[tokio::test]
    async fn a_failure_is_everybodys_and_tells_its_cause() {
        let (keys, _) = keys(vec![None]);
        let error = keys.current().await.expect_err("down");
        assert!(matches!(error, CredentialsError::ProviderError(_)));
        assert!(std::error::Error::source(&error).is_some());
        assert!(!format!("{keys:?}").contains("secret"));
    }
}
