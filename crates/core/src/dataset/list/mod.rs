//! The keys of a bucket, as a stream.
//!
//! Pages are asked for on the engine's lanes, some ahead of whoever reads, and come over as whole
//! pages: ten million keys are ten thousand messages. A [`course`] checks each of them, and [`split`] asks for
//! many at a time. A listing ends cleanly only when it is known to be complete; whatever else happens is an error at its end, so that
//! nobody takes what is missing for deleted.

mod course;
mod ranks;
mod split;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use futures::Stream;
use tokio::sync::mpsc;

use super::Entry;
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::flow::Flow;
use crate::options::Cancel;
use crate::schedule::{LaneId, RetryScope};
use crate::transport::{LIST, ListPage, ListQuery, PageStart};
use course::Batch;
use split::{Pages, Scope, Split};

/// Pages that wait for whoever reads them.
const PAGES_AHEAD: usize = 4;

/// Requests at a time. A store next door is busy with fewer, and one that is 100 ms away gives some 80,000
/// keys a second.
const FLIGHTS: usize = 8;

/// More bring nothing: the pages must leave in order.
const MAX_FLIGHTS: usize = 64;

/// What buckets of S3 Express One Zone end with; they list in no order.
const EXPRESS: &str = "--x-s3";

/// How a bucket is listed.
///
/// ```
/// // As `ls` does: one level of folders.
/// let options = brigade::ListOptions { delimiter: Some("/".into()), ..Default::default() };
/// assert_eq!(options.start_after, None);
/// ```
#[derive(Debug, Clone, Default)]
pub struct ListOptions {
    /// Keys that have this behind the prefix are told as one [`Listed::Prefix`], up to and with it.
    /// Unset, the default: every key by itself.
    pub delimiter: Option<String>,
    /// Only keys behind this one, in the byte order of their UTF-8.
    pub start_after: Option<String>,
    /// Keys of one page, 1 to 1,000. Unset, the default: what the store's profile says.
    pub page_size: Option<u32>,
    /// Requests at a time, 1 to 64; 1: one page after the other. Unset, the default: 8 once the listing
    /// turns out to be large.
    pub concurrency: Option<usize>,
    /// Asks the listing to stop; it ends with [`ErrorKind::Interrupted`] then.
    pub cancel: Cancel,
}

/// What a listing tells of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listed {
    /// An object; its name is its whole key.
    Object(Entry),
    /// Keys that have the delimiter behind the prefix: what they have in common, up to and with it.
    Prefix(String),
}

impl Listed {
    /// The key, or the common prefix.
    pub fn name(&self) -> &str {
        match self {
            Self::Object(entry) => &entry.name,
            Self::Prefix(prefix) => prefix,
        }
    }
}

/// A listing under way: a stream of what is [`Listed`], each name once and in the byte order of their UTF-8
/// where the store keeps to that ([`Listing::is_ordered`]). It begins when it is made, and stops when it is
/// dropped.
///
/// **Only a listing that ends without an error is complete.** An error is the last item.
///
/// ```no_run
/// # async fn run(bucket: brigade::Bucket) -> brigade::Result<()> {
/// use futures::StreamExt as _;
///
/// let mut listing = bucket.list("logs/", brigade::ListOptions::default());
/// while let Some(listed) = listing.next().await {
///     println!("{}", listed?.name());
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Listing {
    target: String,
    messages: mpsc::Receiver<Message>,
    batch: std::vec::IntoIter<Listed>,
    is_ordered: bool,
    is_over: bool,
    cancel: Cancel,
}

/// What the lane tells. Without an end or a failure as the last, its thread ended.
#[derive(Debug)]
enum Message {
    Page(Batch),
    Failed(Error),
    End,
}

impl Listing {
    pub(crate) fn begin(engine: &Engine, bucket: &str, prefix: &str, options: ListOptions) -> Self {
        let (messages, received) = mpsc::channel(PAGES_AHEAD);
        let cancel = options.cancel.child();
        let options = ListOptions { cancel: cancel.clone(), ..options };
        let target = target(bucket, prefix);
        let (bucket, prefix) = (bucket.to_owned(), prefix.to_owned());
        engine.launch(|engine| async move {
            let last = match list(&engine, &bucket, &prefix, &options, &messages).await {
                Ok(()) => Message::End,
                Err(error) => Message::Failed(error),
            };
            // Nobody may be there any more.
            let _ = messages.send(last).await;
        });
        let batch = Vec::new().into_iter();
        Self { target, messages: received, batch, is_ordered: true, is_over: false, cancel }
    }

    /// Whether all that came so far came in the byte order of the names' UTF-8. Once false it stays so: what
    /// follows may be anything, and names may come twice. It is up to date before the first item of a page
    /// that breaks the order.
    pub fn is_ordered(&self) -> bool {
        self.is_ordered
    }

    /// What is left of the page under way, or the next one; not empty. `None` at the end. Cheaper than one
    /// item at a time.
    pub async fn next_batch(&mut self) -> Option<Result<Vec<Listed>>> {
        std::future::poll_fn(|context| self.poll_batch(context)).await
    }

    fn poll_batch(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Vec<Listed>>>> {
        loop {
            if self.batch.len() > 0 {
                return Poll::Ready(Some(Ok(std::mem::take(&mut self.batch).collect())));
            }
            if self.is_over {
                return Poll::Ready(None);
            }
            if let Err(error) = ready!(self.poll_message(context)) {
                return Poll::Ready(Some(Err(error)));
            }
        }
    }

    /// Waits for the next page or the end.
    fn poll_message(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        let message = ready!(self.messages.poll_recv(context));
        self.is_over = !matches!(message, Some(Message::Page(_)));
        Poll::Ready(match message {
            Some(Message::Page(page)) => {
                self.is_ordered &= page.is_ordered;
                self.batch = page.items.into_iter();
                Ok(())
            }
            Some(Message::End) => Ok(()),
            Some(Message::Failed(error)) => Err(error),
            None => Err(Error::new(ErrorKind::Io, LIST, &self.target, "its thread ended")),
        })
    }
}

impl Stream for Listing {
    type Item = Result<Listed>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(item) = self.batch.next() {
                return Poll::Ready(Some(Ok(item)));
            }
            if self.is_over {
                return Poll::Ready(None);
            }
            if let Err(error) = ready!(self.poll_message(context)) {
                return Poll::Ready(Some(Err(error)));
            }
        }
    }
}

/// Lists into `messages`.
async fn list(
    engine: &Engine,
    bucket: &str,
    prefix: &str,
    options: &ListOptions,
    messages: &mpsc::Sender<Message>,
) -> Result<()> {
    let pages = StorePages::new(engine, bucket, prefix, options);
    let scope = Scope {
        target: target(bucket, prefix),
        prefix: prefix.to_owned(),
        after: options.start_after.clone(),
    };
    // A level of folders is small, and a cut would show the folder it goes through twice.
    let flights = match options.delimiter {
        Some(_) => 1,
        None => options.concurrency.unwrap_or(FLIGHTS).clamp(1, MAX_FLIGHTS),
    };
    Split::new(pages, scope, flights).run(messages).await
}

impl Drop for Listing {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// Whether the store, as far as it is known by now, lists this bucket in the order of its keys.
pub(crate) fn keeps_order(engine: &Engine, bucket: &str) -> bool {
    engine.store().profile().list_in_order && !bucket.ends_with(EXPRESS)
}

/// The pages of a store, asked for on all lanes in turn.
struct StorePages(Arc<Asked>);

struct Asked {
    engine: Engine,
    query: ListQuery,
    /// Whether keys are asked for as URLs have them.
    is_encoded: AtomicBool,
    scope: RetryScope,
    target: String,
    cancel: Cancel,
}

impl StorePages {
    fn new(engine: &Engine, bucket: &str, prefix: &str, options: &ListOptions) -> Self {
        let profile = engine.store().profile();
        // What a page holds where nothing is asked.
        let page_size = options.page_size.unwrap_or(profile.list_page_size);
        let query = ListQuery {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
            delimiter: options.delimiter.clone().filter(|it| !it.is_empty()),
            page_size: (page_size != 1000).then_some(page_size),
            encoded: profile.list_encoding,
        };
        Self(Arc::new(Asked {
            engine: engine.clone(),
            is_encoded: AtomicBool::new(query.encoded),
            query,
            scope: RetryScope::new(&Flow::default(), options.cancel.clone()),
            target: target(bucket, prefix),
            cancel: options.cancel.clone(),
        }))
    }
}

impl Pages for StorePages {
    fn keep_order(&self) -> bool {
        keeps_order(&self.0.engine, &self.0.query.bucket)
    }

    fn page(
        &self,
        start: Option<PageStart>,
    ) -> impl Future<Output = Result<ListPage>> + Send + 'static {
        let asked = Arc::clone(&self.0);
        let lanes = Arc::clone(asked.engine.lanes());
        let target = asked.target.clone();
        let lane = lanes.pick();
        let asking = lanes.spawn(lane, async move { asked.page(lane, start.as_ref()).await });
        async move {
            asking.await.unwrap_or_else(|lost| {
                let detail = "a page's thread ended";
                Err(Error::new(ErrorKind::Io, LIST, target, detail).caused_by(lost))
            })
        }
    }
}

impl Asked {
    /// One page, asked for until it comes. A store that does not know about encoded keys is asked without.
    async fn page(&self, lane: LaneId, start: Option<&PageStart>) -> Result<ListPage> {
        self.scope.expect_more_parts(1);
        let encoded = self.is_encoded.load(Ordering::Relaxed);
        let query = ListQuery { encoded, ..self.query.clone() };
        let error = match self.ask(lane, &query, start).await {
            Err(error) if encoded && error.may_be_of_a_header() => error,
            asked => return asked,
        };
        let plain = ListQuery { encoded: false, ..query };
        let page = self.ask(lane, &plain, start).await.map_err(|_| error)?;
        self.scope.counts_as_repeated(1);
        self.is_encoded.store(false, Ordering::Relaxed);
        Ok(page)
    }

    async fn ask(
        &self,
        lane: LaneId,
        query: &ListQuery,
        start: Option<&PageStart>,
    ) -> Result<ListPage> {
        let ask = |_| self.engine.calls_on(lane).list(query, start);
        let asking = self.engine.retry().run(&self.scope, None, ask);
        tokio::select! {
            page = asking => page,
            () = self.cancel.cancelled() => {
                Err(Error::new(ErrorKind::Interrupted, LIST, &self.target, "stopped as asked"))
            }
        }
    }
}

fn target(bucket: &str, prefix: &str) -> String {
    format!("s3://{bucket}/{prefix}")
}
