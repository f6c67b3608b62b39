//! Request bodies that leave in frames and are watched while they go.
//!
//! One `Bytes` for a whole part would be one frame, handed over at once: nothing could see it
//! move. Frames let progress and the watchdog see every piece leave, and a source that is not
//! mapped is read one frame at a time.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::BeforeTransmitInterceptorContextMut;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::byte_stream::ByteStream;
use aws_smithy_types::config_bag::ConfigBag;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use super::connect::Used;
use crate::error::Error;
use crate::file::{Content, Frames};
use crate::flow::Flow;
use crate::turn::Turn;

/// How much longer a store may think about a part that it has in full than it may leave a
/// connection idle: it may have to write and replicate the part first.
pub(super) const ANSWER_FACTOR: u32 = 6;

/// How often the socket is looked at in the time that nothing may move, and how often at most: a silence is
/// noticed so much later at most.
const LOOKS: u32 = 4;
const SHORTEST_LOOK: Duration = Duration::from_millis(10);

/// What one attempt's body has moved so far, and when it last did.
///
/// A frame counts as moved when the connection takes it, which it does while its own buffer has room: the
/// last ones are not on the wire by then. Whether anything moves is therefore asked of the socket, too:
/// over a thin line a frame may take longer than a connection may stand still.
#[derive(Debug)]
pub(crate) struct Watch {
    flow: Flow,
    started: Instant,
    moved_bytes: AtomicU64,
    last_moved_ms: AtomicU64,
    sent: AtomicBool,
    /// Whether it is this side that lets nothing move.
    is_held: AtomicBool,
    used: Used,
    /// Whose the body is, where it has to wait for its turn.
    turn: Option<Turn>,
    failure: Mutex<Option<Error>>,
}

impl Watch {
    /// For a body of `len_bytes`; an empty one has been sent already.
    pub(crate) fn new(flow: Flow, len_bytes: u64) -> Arc<Self> {
        Arc::new(Self {
            flow,
            started: Instant::now(),
            moved_bytes: AtomicU64::new(0),
            last_moved_ms: AtomicU64::new(0),
            sent: AtomicBool::new(len_bytes == 0),
            is_held: AtomicBool::new(false),
            used: Used::default(),
            turn: Turn::mine(),
            failure: Mutex::default(),
        })
    }

    /// Goes with the request, to be told of its connection.
    pub(super) fn used(&self) -> Used {
        self.used.clone()
    }

    /// Payload bytes handed to the connection so far.
    pub(crate) fn moved_bytes(&self) -> u64 {
        self.moved_bytes.load(Ordering::Relaxed)
    }

    /// Why the source could not give the body its bytes, if so. The connection only saw it end.
    pub(crate) fn take_failure(&self) -> Option<Error> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Tells where the time went of a request that has been answered now.
    pub(crate) fn answered(&self) {
        let in_all = self.started.elapsed();
        let sending = Duration::from_millis(self.last_moved_ms.load(Ordering::Relaxed)).min(in_all);
        self.flow.answered(sending, in_all.saturating_sub(sending));
    }

    /// Returns once nothing has moved for `limit`; never for one that no clock reaches.
    pub(crate) async fn stalled(&self, limit: Duration) {
        let mut written = 0;
        loop {
            let now_written = self.used.written_bytes();
            if now_written != written || self.is_held.load(Ordering::Relaxed) {
                written = now_written;
                self.touch();
            }
            let last = Duration::from_millis(self.last_moved_ms.load(Ordering::Relaxed));
            let sent = self.sent.load(Ordering::Relaxed);
            let allowed = if sent { limit.saturating_mul(ANSWER_FACTOR) } else { limit };
            let Some(deadline) = (self.started + last).checked_add(allowed) else {
                return std::future::pending().await;
            };
            let now = Instant::now();
            if now >= deadline {
                return;
            }
            // The body may reach its end meanwhile, which only moves the deadline further away.
            let look = (now + limit / LOOKS).max(now + SHORTEST_LOOK);
            tokio::time::sleep_until(deadline.min(look)).await;
        }
    }

    /// Restarts the clock: what came before the first byte was this machine's own work.
    fn touch(&self) {
        // Rounded up: nobody gets less time than was said.
        let now = u64::try_from(self.started.elapsed().as_millis() + 1).unwrap_or(u64::MAX);
        self.last_moved_ms.store(now, Ordering::Relaxed);
    }

    fn failed(&self, error: Error) {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }

    fn moved(&self, bytes: usize, is_last: bool) {
        self.moved_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.touch();
        if is_last {
            self.sent.store(true, Ordering::Relaxed);
        }
        self.flow.moved(bytes as u64);
    }
}

/// A body of exactly `content`, telling `watch` of every frame that leaves.
pub(crate) fn watched(content: Content, watch: &Arc<Watch>) -> ByteStream {
    let watch = Arc::clone(watch);
    // Retryable, so that the SDK may rebuild it for a redirect; it holds no bytes yet.
    ByteStream::new(SdkBody::retryable(move || {
        let (frames, watch) = (content.frames(), Arc::clone(&watch));
        SdkBody::from_body_1_x(Framed { frames, watch, held: None, passes: None, waits: None })
    }))
}

/// The same, for a request that is sent once.
pub(super) fn framed(content: &Content, watch: &Arc<Watch>) -> SdkBody {
    let (frames, watch) = (content.frames(), Arc::clone(watch));
    SdkBody::from_body_1_x(Framed { frames, watch, held: None, passes: None, waits: None })
}

/// Has a request tell of its connection. A signature over the bytes needs them in memory as one piece, and
/// a body like that would leave in one frame that nothing sees move: then the watched body is put in the
/// place of the one that was signed.
#[derive(Debug)]
pub(crate) struct OnItsWay {
    signed: Option<Bytes>,
    watch: Arc<Watch>,
}

impl OnItsWay {
    /// Of the request whose body `watch` is over; `signed` are the bytes where the signature covers them.
    pub(crate) fn new(signed: Option<Bytes>, watch: &Arc<Watch>) -> Self {
        Self { signed, watch: Arc::clone(watch) }
    }

    pub(crate) fn is_signed(&self) -> bool {
        self.signed.is_some()
    }
}

impl Intercept for OnItsWay {
    fn name(&self) -> &'static str {
        "brigade watch"
    }

    fn modify_before_transmit(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        context.request_mut().add_extension(self.watch.used());
        if let Some(bytes) = &self.signed {
            self.watch.touch();
            *context.request_mut().body_mut() =
                watched(bytes.clone().into(), &self.watch).into_inner();
        }
        Ok(())
    }
}

struct Framed {
    frames: Frames,
    watch: Arc<Watch>,
    /// A frame that a bandwidth limit holds back, and until when.
    held: Option<Bytes>,
    passes: Option<Pin<Box<Sleep>>>,
    /// The wait for the part's turn.
    waits: Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>>,
}

impl Framed {
    fn rest_bytes(&self) -> u64 {
        self.frames.rest_bytes() + self.held.as_ref().map_or(0, |frame| frame.len() as u64)
    }

    fn poll_turn(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let waits = match (&mut self.waits, &self.watch.turn) {
            (Some(waits), _) => waits,
            (none, Some(turn)) if !turn.has_come() => {
                self.watch.is_held.store(true, Ordering::Relaxed);
                let turn = turn.clone();
                none.insert(Box::pin(async move { turn.comes().await }))
            }
            _ => return Poll::Ready(()),
        };
        ready!(waits.as_mut().poll(context));
        self.waits = None;
        self.watch.is_held.store(false, Ordering::Relaxed);
        Poll::Ready(())
    }
}

impl Body for Framed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.held.is_none() {
            ready!(self.poll_turn(context));
            match self.frames.next() {
                None => return Poll::Ready(None),
                Some(Ok(frame)) => {
                    self.passes = self.watch.flow.reserve(frame.len() as u64).map(|at| {
                        self.watch.is_held.store(true, Ordering::Relaxed);
                        Box::pin(tokio::time::sleep_until(at))
                    });
                    self.held = Some(frame);
                }
                Some(Err(error)) => {
                    self.watch.failed(error);
                    return Poll::Ready(Some(Err("the source could not be read".into())));
                }
            }
        }
        if let Some(passes) = &mut self.passes {
            ready!(passes.as_mut().poll(context));
            self.passes = None;
            self.watch.is_held.store(false, Ordering::Relaxed);
        }
        let is_last = self.frames.rest_bytes() == 0;
        Poll::Ready(self.held.take().map(|frame| {
            self.watch.moved(frame.len(), is_last);
            Ok(Frame::data(frame))
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.rest_bytes() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_byte_leaves_once_and_is_counted() {
        let content: Bytes = (0..1_000_000_u32).map(|i| (i % 251) as u8).collect();
        let watch = Watch::new(Flow::default(), content.len() as u64);
        let body = watched(content.clone().into(), &watch);
        assert_eq!(body.size_hint(), (1_000_000, Some(1_000_000)));
        let sent = body.collect().await.expect("collected").into_bytes();
        assert_eq!(sent, content);
        assert_eq!(watch.moved_bytes(), 1_000_000);
    }

    #[tokio::test]
    async fn a_stall_is_noticed_and_an_answer_may_take_longer() {
        let limit = Duration::from_millis(20);
        let watch = Watch::new(Flow::default(), 10);
        let begun = Instant::now();
        watch.stalled(limit).await;
        assert!(begun.elapsed() >= limit);
        watch.moved(10, true);
        let sent = Instant::now();
        watch.stalled(limit).await;
        assert!(sent.elapsed() >= limit * ANSWER_FACTOR);
    }

    #[tokio::test]
    async fn an_empty_body_waits_for_its_answer_and_no_limit_is_too_long() {
        let limit = Duration::from_millis(10);
        let watch = Watch::new(Flow::default(), 0);
        let begun = Instant::now();
        watch.stalled(limit).await;
        assert!(begun.elapsed() >= limit * ANSWER_FACTOR);
        let endless = watch.stalled(Duration::MAX);
        assert!(tokio::time::timeout(limit, endless).await.is_err());
    }
}
