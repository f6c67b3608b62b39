//! Objects into objects, each as a single one is copied.

use futures::{Stream, StreamExt as _};

use super::{Item, Job, Listener, ManyReport};
use crate::copy::{self, End};
use crate::engine::Engine;
use crate::error::Result;
use crate::options::CopyOptions;
use crate::progress::Operation;
use crate::url::S3Url;

/// Objects that are copied at once. A store copies a small one by itself, in some tenths of a second, of which
/// nothing is this machine's work.
const AT_ONCE: usize = 128;

/// A bucket, and how it is reached.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) bucket: &'a str,
}

/// Copies every item's object from `source` to its other key in `target`.
pub(crate) async fn copy<S>(
    source: Place<'_>,
    target: Place<'_>,
    objects: S,
    listener: Listener,
    options: CopyOptions,
) -> Result<ManyReport>
where
    S: Stream<Item = Item> + Unpin + Send,
{
    let engine = target.engine;
    let flow = engine.flow(&options.events);
    let parts = options.concurrency;
    let job = Job::new(engine, futures::stream::empty(), listener, &flow, parts, &options.cancel);
    let options = CopyOptions { events: options.events.for_one_of_many(), ..options };
    let at_once = parts.unwrap_or(AT_ONCE).max(1);
    let (job_ref, options_ref) = (&job, &options);
    let copying = objects.for_each_concurrent(at_once, move |item| async move {
        if job_ref.cancel.is_cancelled() {
            job_ref.was_stopped.store(true, std::sync::atomic::Ordering::Relaxed);
            return;
        }
        job_ref.scope.expect_more_parts(1);
        let from = S3Url::of(source.bucket, item.key.as_str());
        let to = S3Url::of(target.bucket, item.target_key.as_str());
        let (from, to) =
            (End { engine: source.engine, url: &from }, End { engine: target.engine, url: &to });
        let mut options = options_ref.clone();
        if !options.command.is_empty() {
            options.command.extend([from.url.to_string().into(), to.url.to_string().into()]);
        }
        let window = job_ref.window().clone();
        let moved = copy::run(from, to, &options, window).await;
        job_ref.settled(item, |item| item.key.clone(), moved);
    });
    copying.await;
    job.account.moved_since(job.started);
    Ok(job.report(Operation::Copy))
}
