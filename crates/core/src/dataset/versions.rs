//! Every version of a bucket's objects, as a stream that is a page or two ahead of its reader.
//!
//! A store that tells where the next page begins and has begun there before would be asked for ever, so
//! where pages begin is remembered, and one that comes again ends the listing with an error.

use std::collections::HashSet;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::channel::mpsc;
use futures::{SinkExt as _, Stream};

use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::schedule::RetryScope;
use crate::transport::{LIST_VERSIONS, Marker, ObjectVersion};

/// Pages that wait for the reader, beside the one that is on its way.
const PAGES_AHEAD: usize = 1;

/// The versions of a bucket's objects: [`crate::Bucket::list_versions`]. Ends after the first error.
pub struct Versions {
    pages: mpsc::Receiver<Result<Vec<ObjectVersion>>>,
    page: std::vec::IntoIter<ObjectVersion>,
}

impl std::fmt::Debug for Versions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Versions").finish_non_exhaustive()
    }
}

impl Versions {
    /// Starts at once.
    pub(crate) fn begin(engine: &Engine, bucket: &str, prefix: &str) -> Self {
        let (pages, receiver) = mpsc::channel(PAGES_AHEAD);
        let (bucket, prefix) = (bucket.to_owned(), prefix.to_owned());
        engine.launch(|engine| async move {
            let mut listing = Listing { engine, bucket, prefix, pages };
            if let Err(error) = listing.run().await {
                // Who does not listen any more does not want to know.
                let _ = listing.pages.send(Err(error)).await;
            }
        });
        Self { pages: receiver, page: Vec::new().into_iter() }
    }
}

impl Stream for Versions {
    type Item = Result<ObjectVersion>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(version) = self.page.next() {
                return Poll::Ready(Some(Ok(version)));
            }
            match ready!(Pin::new(&mut self.pages).poll_next(context)) {
                Some(Ok(page)) => self.page = page.into_iter(),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
    }
}

/// A listing under way.
struct Listing {
    engine: Engine,
    bucket: String,
    prefix: String,
    pages: mpsc::Sender<Result<Vec<ObjectVersion>>>,
}

impl Listing {
    async fn run(&mut self) -> Result<()> {
        let scope = RetryScope::default();
        let profile = self.engine.profile_for(&self.bucket, &scope).await?;
        let (mut after, mut seen): (Option<Marker>, HashSet<Marker>) = Default::default();
        loop {
            scope.expect_more_parts(1);
            let list = |_| {
                let (bucket, prefix) = (&self.bucket, &self.prefix);
                let calls = self.engine.calls();
                calls.list_versions(bucket, prefix, &profile, after.as_ref())
            };
            let page = self.engine.retry().run(&scope, None, list).await?;
            if self.pages.send(Ok(page.versions)).await.is_err() {
                return Ok(());
            }
            if page.is_cut {
                return Err(self.lies("the store says that there is more, and not where"));
            }
            let Some(next) = page.next else { return Ok(()) };
            if !seen.insert(next.clone()) {
                return Err(self.lies("the store repeats a page of its listing for ever"));
            }
            after = Some(next);
        }
    }

    fn lies(&self, detail: &str) -> Error {
        let target = format!("s3://{}/{}", self.bucket, self.prefix);
        Error::new(ErrorKind::ServerFailure, LIST_VERSIONS, target, detail)
    }
}
