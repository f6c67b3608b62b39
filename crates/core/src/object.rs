//! A bucket and an object in it: where a program's transfers start, in the words boto3 users know.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use futures::Stream;
use futures::future::BoxFuture;

use crate::dataset::{
    DeleteOptions, DeleteReport, ListOptions, Listing, Versions, delete_many, delete_one,
};
use crate::engine::{Engine, no_such_bucket};
use crate::error::{ErrorKind, Result};
use crate::many::{self, Item, Listener, ManyReport};
use crate::options::{
    Cancel, CopyOptions, CustomerKey, DownloadOptions, StreamOptions, UploadOptions,
};
use crate::report::Report;
use crate::schedule::RetryScope;
use crate::transport::{Named, ObjectInfo, Pages, Pin};
use crate::unfinished::UnfinishedUpload;
use crate::url::S3Url;
use crate::{copy, download, upload};

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
    pub(crate) engine: Engine,
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

    /// Asks whether the bucket is there, and gives its region, where the store tells it. An error of kind
    /// [`crate::ErrorKind::NotFound`] where it is not.
    pub async fn look(&self) -> Result<Option<String>> {
        let name = self.name.clone();
        self.engine
            .drive(|engine| async move {
                let scope = RetryScope::default();
                let look = |_| engine.calls().head_bucket(&name);
                match engine.retry().run(&scope, None, look).await {
                    Err(error) if error.kind() == ErrorKind::NotFound => {
                        Err(no_such_bucket(&name).caused_by(error))
                    }
                    looked => looked,
                }
            })
            .await
    }

    /// Makes the bucket. One that this account owns already is left as it is.
    pub async fn create(&self) -> Result<()> {
        let name = self.name.clone();
        self.engine.drive(|engine| async move { engine.calls().create_bucket(&name).await }).await
    }

    /// Uploads many files, each to its key: small ones with one request each, large ones in parts, all
    /// within the session's window. What fails is told in the report, and the rest goes on.
    pub async fn upload_files<I>(&self, files: I, options: UploadOptions) -> Result<ManyReport>
    where
        I: IntoIterator<Item = (PathBuf, String)>,
        I::IntoIter: Send + 'static,
    {
        let files = files.into_iter().map(|(file, key)| Item::between(file, key));
        let (name, files) = (self.name.clone(), futures::stream::iter(files));
        let cancel = options.cancel.child();
        let seen = UploadOptions { cancel: cancel.clone(), ..options };
        self.engine
            .drive_cancellable(cancel, |engine| async move {
                many::upload(&engine, &name, files, Listener::default(), seen).await
            })
            .await
    }

    /// Downloads many objects, each to its file; folders are made as they are needed. Small ones take
    /// one GET each. No file has its name before its bytes are verified and on disk: they are synced
    /// many at a time. What fails is told in the report, and the rest goes on.
    pub async fn download_files<I>(
        &self,
        objects: I,
        options: DownloadOptions,
    ) -> Result<ManyReport>
    where
        I: IntoIterator<Item = (String, PathBuf)>,
        I::IntoIter: Send + 'static,
    {
        let objects = objects.into_iter().map(|(key, file)| Item::between(file, key));
        let (name, objects) = (self.name.clone(), futures::stream::iter(objects));
        let cancel = options.cancel.child();
        let seen = DownloadOptions { cancel: cancel.clone(), ..options };
        self.engine
            .drive_cancellable(cancel, |engine| async move {
                many::download(&engine, &name, objects, Listener::default(), seen).await
            })
            .await
    }

    /// The objects whose keys begin with `prefix`, as a stream; see [`Listing`].
    pub fn list(&self, prefix: &str, options: ListOptions) -> Listing {
        Listing::begin(&self.engine, &self.name, prefix, options)
    }

    /// Deletes every `(key, version id)` of `objects`: without a version the key itself, which a bucket
    /// that keeps versions marks as deleted. What fails is told in the report, and the rest goes on. A
    /// key that is not there counts as deleted.
    ///
    /// ```no_run
    /// # async fn run(bucket: brigade::Bucket) -> brigade::Result<()> {
    /// let keys = (0..1_000_000).map(|number| (format!("logs/{number}"), None));
    /// let report = bucket.delete_objects(futures::stream::iter(keys), Default::default()).await?;
    /// assert!(report.is_complete(), "{:?}", report.failures);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Where the bucket is not there, or the store cannot be asked, before anything was deleted. What
    /// happens later is [`DeleteReport::ended_by`].
    pub async fn delete_objects<S>(
        &self,
        objects: S,
        options: DeleteOptions,
    ) -> Result<DeleteReport>
    where
        S: Stream<Item = (String, Option<String>)> + Send + 'static,
    {
        delete_many(&self.engine, self.name.clone(), objects, options).await
    }

    /// All versions of the keys that begin with `prefix`, markers of deletions included: by key, those of
    /// one key from the newest to the oldest. A bucket that never kept versions has one of each, `null`.
    /// The store is asked from now on; a page waits for its reader, and a dropped stream asks no more.
    pub fn list_versions(&self, prefix: &str) -> Versions {
        Versions::begin(&self.engine, &self.name, prefix)
    }

    /// The multipart uploads of keys that begin with `prefix` that the store holds unfinished, in
    /// the store's order, with what is in them (one more request for each).
    pub async fn unfinished_uploads(&self, prefix: &str) -> Result<Vec<UnfinishedUpload>> {
        let (name, prefix) = (self.name.clone(), prefix.to_owned());
        self.engine.drive(|engine| async move { list_uploads(&engine, &name, &prefix).await }).await
    }
}

async fn list_uploads(
    engine: &Engine,
    bucket: &str,
    prefix: &str,
) -> Result<Vec<UnfinishedUpload>> {
    let (scope, mut pages, mut found) = (RetryScope::default(), Pages::default(), Vec::new());
    loop {
        let list = |_| engine.calls().list_uploads(bucket, prefix, pages.after());
        let mut page = engine.retry().run(&scope, None, list).await?;
        for upload in std::mem::take(&mut page.uploads) {
            let url = S3Url::of(bucket, upload.key.as_str());
            let content = content_of(engine, &url, &upload.upload_id, &scope).await;
            // One that ended meanwhile is no longer unfinished.
            if content.as_ref().is_err_and(|gone| gone.code() == Some("NoSuchUpload")) {
                continue;
            }
            let (parts, size_bytes) = content.ok().unzip();
            found.push(UnfinishedUpload {
                key: upload.key,
                upload_id: upload.upload_id,
                initiated: upload.initiated,
                size_bytes,
                parts,
            });
        }
        if !pages.turn(page, bucket)? {
            return Ok(found);
        }
    }
}

/// How many parts an unfinished upload has, and how many bytes are in them.
async fn content_of(
    engine: &Engine,
    url: &S3Url,
    upload_id: &str,
    scope: &RetryScope,
) -> Result<(u32, u64)> {
    let (mut parts, mut bytes, mut after) = (0, 0, 0);
    loop {
        let list = |_| engine.calls().list_parts(url, upload_id, after, None);
        let page = engine.retry().run(scope, None, list).await?;
        parts += u32::try_from(page.parts.len()).unwrap_or(u32::MAX);
        bytes += page.parts.iter().map(|part| part.size_bytes).sum::<u64>();
        match page.next {
            Some(next) => after = next,
            None => return Ok((parts, bytes)),
        }
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
    /// An upload in parts that fails is kept with its manifest, and the same call goes on from there
    /// ([`crate::Error::is_resumable`]), where [`crate::SessionOptions::manifest_folder`] is set and
    /// going on makes sense; else it leaves nothing behind in the store. An object that was completed
    /// and could not be proven stays, and the error says so. Dropping the future stops the upload, and
    /// it ends in the background.
    pub fn upload_file_with(&self, path: impl AsRef<Path>, options: UploadOptions) -> Transfer {
        let (path, url) = (path.as_ref().to_owned(), self.url.clone());
        self.transfer(options.cancel.child(), move |engine, cancel| async move {
            let window = engine.window(options.concurrency);
            let options = UploadOptions { cancel, ..options };
            upload::run(&engine, &path, &url, &options, window).await
        })
    }

    /// Uploads what `reader` brings, in parallel parts when it is more than one, and verifies it. It is
    /// read on a thread of its own, no faster than the store takes it.
    ///
    /// What the reader produces cannot be told from what it should have: a producer that fails and
    /// ends makes a shorter object. A stream cannot be resumed, and one that fails leaves nothing behind.
    ///
    /// ```no_run
    /// # async fn run(object: brigade::Object) -> brigade::Result<()> {
    /// let report = object.upload_from(std::io::stdin(), Default::default()).await?;
    /// println!("{} bytes", report.bytes);
    /// # Ok(())
    /// # }
    /// ```
    pub fn upload_from(
        &self,
        reader: impl Read + Send + 'static,
        options: StreamOptions,
    ) -> Transfer {
        let (url, reader) = (self.url.clone(), Box::new(reader));
        self.transfer(options.upload.cancel.child(), move |engine, cancel| async move {
            let window = engine.window(options.upload.concurrency);
            let upload = UploadOptions { cancel, ..options.upload };
            let options = StreamOptions { upload, ..options };
            upload::from_reader(&engine, reader, &url, &options, window).await
        })
    }

    /// Copies an object of the same store to this one: the store does it by itself, in parts where it
    /// is large. What describes the source, its tags and how it is kept come along, unless the options
    /// say otherwise. A store that cannot copy has it go through this machine, with a warning.
    ///
    /// ```no_run
    /// # async fn run(object: brigade::Object) -> brigade::Result<()> {
    /// let source = "s3://logs/2026/11.gz".parse()?;
    /// object.copy_from(&source, Default::default()).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn copy_from(&self, source: &S3Url, options: CopyOptions) -> Transfer {
        self.copy_from_object(&Self::new(self.engine.clone(), source.clone()), options)
    }

    /// The same, of an object that may be another session's: at another endpoint, in another region, of
    /// another account. Then it goes through this machine, in memory, never to a disk.
    pub fn copy_from_object(&self, source: &Self, options: CopyOptions) -> Transfer {
        let (source, url) = (source.clone(), self.url.clone());
        self.transfer(options.cancel.child(), move |engine, cancel| async move {
            let window = engine.window(options.concurrency);
            let options = CopyOptions { cancel, ..options };
            let from = copy::End { engine: &source.engine, url: &source.url };
            let to = copy::End { engine: &engine, url: &url };
            copy::run(from, to, &options, window).await
        })
    }

    /// The object's tags.
    pub async fn tags(&self) -> Result<BTreeMap<String, String>> {
        let url = self.url.clone();
        self.engine
            .drive(|engine| async move {
                let (scope, pin) = (RetryScope::default(), Pin::default());
                let ask = |_| engine.calls().tags(&url, &pin);
                engine.retry().run(&scope, None, ask).await
            })
            .await
    }

    /// Removes the object if it is still the one with this `ETag`, as in [`Report::source_etag`]; in a
    /// bucket that keeps versions, a marker takes its place. Where the store does not look at the
    /// condition, that was looked at just before. An object of SSE-C is looked at with its key.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Changed`] where it is another one by now.
    pub async fn delete_if_unchanged(
        &self,
        etag: &str,
        customer_key: Option<CustomerKey>,
    ) -> Result<()> {
        let (url, etag) = (self.url.clone(), etag.to_owned());
        self.engine
            .drive(|engine| async move {
                copy::remove(&engine, &url, &etag, customer_key.as_ref()).await
            })
            .await
    }

    /// Downloads to the file at `path` with default options; see [`Object::download_file_with`].
    pub fn download_file(&self, path: impl AsRef<Path>) -> Transfer {
        self.download_file_with(path, DownloadOptions::default())
    }

    /// Downloads to the file at `path`, in parallel ranges, verifies it, and only then gives it
    /// its name: the name never holds a partial file, and a file that was there before stays
    /// until the new one is whole and on disk. A download in parts that fails leaves a partial file
    /// and a manifest beside the target, and the same call goes on from there, unless
    /// [`DownloadOptions::resume`] is off.
    pub fn download_file_with(&self, path: impl AsRef<Path>, options: DownloadOptions) -> Transfer {
        let (path, url) = (path.as_ref().to_owned(), self.url.clone());
        self.transfer(options.cancel.child(), move |engine, cancel| async move {
            let window = engine.window(options.concurrency);
            let options = DownloadOptions { cancel, ..options };
            download::to_file(&engine, &url, &path, &options, None, window).await
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

    /// Deletes the object, or marks it as deleted where the bucket keeps versions. One that is not there
    /// is a success.
    pub async fn delete(&self) -> Result<()> {
        self.delete_of(None).await
    }

    /// Deletes one version of it, for good.
    pub async fn delete_version(&self, version_id: impl Into<String>) -> Result<()> {
        self.delete_of(Some(version_id.into())).await
    }

    async fn delete_of(&self, version_id: Option<String>) -> Result<()> {
        let (bucket, key) = (self.url.bucket().to_owned(), self.url.key().to_owned());
        let object = Named { key, version_id };
        self.engine.drive(|engine| async move { delete_one(&engine, &bucket, &object).await }).await
    }

    /// Gives up an unfinished multipart upload of this key, and what the store holds of it. One that
    /// is gone already is fine.
    pub async fn abort_upload(&self, upload_id: &str) -> Result<()> {
        let (url, id) = (self.url.clone(), upload_id.to_owned());
        self.engine
            .drive(|engine| async move { upload::abort(&engine, &url, &id, None).await })
            .await
    }

    /// Where the object is.
    pub fn url(&self) -> &S3Url {
        &self.url
    }
}
