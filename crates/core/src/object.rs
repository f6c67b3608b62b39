//! A bucket and an object in it: where a program's transfers start, in the words boto3 users know.

use std::io::Write;
use std::path::Path;

use futures::future::BoxFuture;

use crate::engine::Engine;
use crate::error::Result;
use crate::options::{Cancel, CustomerKey, DownloadOptions, UploadOptions};
use crate::report::Report;
use crate::schedule::RetryScope;
use crate::transport::ObjectInfo;
use crate::url::S3Url;
use crate::{download, upload};

/// A transfer that starts when it is first polled. It borrows nothing, so it can be spawned, joined
/// with others or kept.
///
/// ```no_run
/// # async fn run(bucket: brigade::Bucket) {
/// let transfers = ["a", "b", "c"].map(|key| bucket.object(key).download_file(key));
/// for result in futures::future::join_all(transfers).await {
///     println!("{result:?}");
/// }
/// # }
/// ```
pub type Transfer = BoxFuture<'static, Result<Report>>;

/// A bucket, by name; nothing is asked of the store to make one.
///
/// ```no_run
/// # async fn run() -> brigade::Result<()> {
/// let session = brigade::Session::new(brigade::SessionOptions::default()).await?;
/// let bucket = session.bucket("logs");
/// bucket.create().await?;
/// let object = bucket.object("2026/11.gz");
/// assert_eq!(object.url().to_string(), "s3://logs/2026/11.gz");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Bucket {
    engine: Engine,
    name: String,
}

/// An object, by bucket and key; nothing is asked of the store to make one.
///
/// ```no_run
/// # async fn run() -> brigade::Result<()> {
/// let session = brigade::Session::new(brigade::SessionOptions::default()).await?;
/// let object = session.bucket("logs").object("2026/11.gz");
/// let report = object.upload_file("11.gz").await?;
/// println!("{} bytes, verified: {}", report.bytes, report.verified);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Object {
    engine: Engine,
    url: S3Url,
}

impl Bucket {
    pub(crate) fn new(engine: Engine, name: String) -> Self {
        Self { engine, name }
    }

    /// The object under `key`, which may not exist yet.
    pub fn object(&self, key: impl Into<String>) -> Object {
        let url = S3Url::of(&self.name, key);
        Object { engine: self.engine.clone(), url }
    }

    /// The bucket's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Makes the bucket. One that this account owns already is left as it is.
    pub async fn create(&self) -> Result<()> {
        let name = self.name.clone();
        self.engine.drive(|engine| async move { engine.calls().create_bucket(&name).await }).await
    }
}

impl Object {
    pub(crate) fn new(engine: Engine, url: S3Url) -> Self {
        Self { engine, url }
    }

    /// Uploads the file at `path` with default options; see [`Object::upload_file_with`].
    pub fn upload_file(&self, path: impl AsRef<Path>) -> Transfer {
        self.upload_file_with(path, UploadOptions::default())
    }

    /// Uploads the file at `path`, in parallel parts when it is large, and verifies it.
    ///
    /// The file is read twice, first to be summed. A program that calls
    /// [`guard_mapped_files`](crate::guard_mapped_files) lets it be mapped instead, which is faster.
    ///
    /// An upload that fails before the object is complete leaves nothing behind in the store; an
    /// object that was completed and could not be proven stays, and the error says so. Dropping
    /// the future stops the upload and cleans up in the background.
    pub fn upload_file_with(&self, path: impl AsRef<Path>, options: UploadOptions) -> Transfer {
        let (path, url) = (path.as_ref().to_owned(), self.url.clone());
        self.transfer(options.cancel.child(), move |engine, cancel| async move {
            upload::run(&engine, &path, &url, &UploadOptions { cancel, ..options }).await
        })
    }

    /// Downloads to the file at `path` with default options; see [`Object::download_file_with`].
    pub fn download_file(&self, path: impl AsRef<Path>) -> Transfer {
        self.download_file_with(path, DownloadOptions::default())
    }

    /// Downloads to the file at `path`, in parallel ranges, verifies it, and only then gives it
    /// its name: the name never holds a partial file, and a file that was there before stays
    /// until the new one is whole and on disk.
    pub fn download_file_with(&self, path: impl AsRef<Path>, options: DownloadOptions) -> Transfer {
        let (path, url) = (path.as_ref().to_owned(), self.url.clone());
        self.transfer(options.cancel.child(), move |engine, cancel| async move {
            download::to_file(&engine, &url, &path, &DownloadOptions { cancel, ..options }).await
        })
    }

    /// Downloads into `writer`, in order, prefetching in parallel. `label` names the writer in
    /// the report. A checksum can only be compared after the last byte was written: on an
    /// integrity error the reader at the other end already has the wrong bytes, and must be told.
    pub fn download_to(
        &self,
        writer: impl Write + Send + 'static,
        label: &str,
        options: DownloadOptions,
    ) -> Transfer {
        let (label, url) = (label.to_owned(), self.url.clone());
        self.transfer(options.cancel.child(), move |engine, cancel| async move {
            let options = DownloadOptions { cancel, ..options };
            download::to_writer(&engine, &url, Box::new(writer), &label, &options).await
        })
    }

    /// Boxed, so that a transfer borrows nothing: neither the object nor its arguments.
    fn transfer<F>(
        &self,
        cancel: Cancel,
        task: impl FnOnce(Engine, Cancel) -> F + Send + 'static,
    ) -> Transfer
    where
        F: Future<Output = Result<Report>> + Send + 'static,
    {
        let engine = self.engine.clone();
        Box::pin(async move {
            let seen = cancel.clone();
            engine.drive_cancellable(cancel, |engine| task(engine, seen)).await
        })
    }

    /// What the store tells of the object (a HEAD request).
    pub async fn info(&self) -> Result<ObjectInfo> {
        self.info_of(None, None).await
    }

    /// The same for one version, or for an object stored with SSE-C.
    pub async fn info_of(
        &self,
        version_id: Option<String>,
        customer_key: Option<CustomerKey>,
    ) -> Result<ObjectInfo> {
        let url = self.url.clone();
        self.engine
            .drive(|engine| async move {
                let scope = RetryScope::default();
                engine.head(&url, version_id.as_deref(), customer_key.as_ref(), &scope).await
            })
            .await
    }

    /// Where the object is.
    pub fn url(&self) -> &S3Url {
        &self.url
    }
}
