//! A session: one store, its credentials and its connections, shared by all transfers.

use crate::engine::Engine;
use crate::error::Result;
use crate::limits::StoreProfile;
use crate::object::{Bucket, Object};
use crate::options::SessionOptions;
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
    engine: Engine,
}

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
