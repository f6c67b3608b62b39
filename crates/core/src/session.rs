//! A session: one store, its credentials and its connections, shared by all transfers.

use std::time::SystemTime;

use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::limits::StoreProfile;
use crate::object::{Bucket, Object};
use crate::options::SessionOptions;
use crate::schedule::RetryScope;
use crate::transport::LIST;
use crate::url::S3Url;

/// A store as a program uses it. Cheap to clone; the clones share threads and connections, which
/// end with the last of them. Its futures can be awaited on any executor.
///
/// ```no_run
/// # async fn run() -> brigade::Result<()> {
/// use brigade::{Session, SessionOptions};
///
/// let session = Session::new(SessionOptions::default()).await?;
/// let report = session.bucket("genomes").object("hg38.fa").download_file("hg38.fa").await?;
/// println!("{} bytes, verified: {}", report.bytes, report.verified);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Session {
    pub(crate) engine: Engine,
}

/// A bucket, as its account's listing tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BucketInfo {
    /// Its name.
    pub name: String,
    /// When it was made, by the store's clock.
    pub created: Option<SystemTime>,
}

/// Pages of an account's buckets: more than the 1,000,000 buckets that AWS allows one.
const MAX_BUCKET_PAGES: usize = 10_000;

impl Session {
    /// Starts the engine's threads and resolves the configuration. Nothing is asked of the store,
    /// and credentials are first looked for when a request needs them.
    pub async fn new(options: SessionOptions) -> Result<Self> {
        Ok(Self { engine: Engine::start(options).await? })
    }

    /// A bucket, by its name.
    pub fn bucket(&self, name: impl Into<String>) -> Bucket {
        Bucket::new(self.engine.clone(), name.into())
    }

    /// An object, by its URL.
    pub fn object(&self, url: &S3Url) -> Object {
        Object::new(self.engine.clone(), url.clone())
    }

    /// The buckets of the account, in the store's order.
    pub async fn buckets(&self) -> Result<Vec<BucketInfo>> {
        self.engine.drive(|engine| async move { list_buckets(&engine).await }).await
    }

    /// The store's address, without any user and password in it; `None` for AWS.
    pub fn endpoint_url(&self) -> Option<&str> {
        self.engine.store().endpoint_url()
    }

    /// What the store is taken to allow, as far as is known by now; see
    /// [`SessionOptions::store_profile`].
    pub fn store_profile(&self) -> StoreProfile {
        (*self.engine.store().profile()).clone()
    }
}

async fn list_buckets(engine: &Engine) -> Result<Vec<BucketInfo>> {
    let (scope, mut found, mut after) = (RetryScope::default(), Vec::new(), None::<String>);
    for _ in 0..MAX_BUCKET_PAGES {
        let list = |_| engine.calls().buckets(after.as_deref());
        let (buckets, next) = engine.retry().run(&scope, None, list).await?;
        let buckets = buckets.into_iter();
        found.extend(buckets.map(|it| BucketInfo { name: it.name, created: it.created }));
        match next {
            None => return Ok(found),
            // It must not hold anybody for ever.
            next if next == after => break,
            next => after = next,
        }
    }
    let detail = "the store repeats a page of its listing for ever";
    Err(Error::new(ErrorKind::ServerFailure, LIST, "the buckets", detail))
}
