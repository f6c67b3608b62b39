//! A body with something wrong at certain bytes: it stops there, ends there, or has a bit flipped.
//!
//! Serves both directions. Bytes before a mark are passed on before anything happens at it, and what is
//! passed on is cut at marks, so that "after N bytes" means exactly that.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::future::BoxFuture;
use http_body::{Frame, SizeHint};
use s3s::{Body, StdError};

use super::wire::Fuse;

/// What happens at a mark.
pub(super) enum Event {
    /// Nothing comes until this is over.
    Wait(BoxFuture<'static, ()>),
    /// This bit of the next byte is flipped.
    Flip(u8),
    /// The body is over.
    End,
    /// The connection ends, once the bytes before are out.
    Cut(Arc<Fuse>, bool),
}

/// A body and its marks.
pub(super) struct Faulty {
    inner: Body,
    /// By place, the next one last. A place that the body does not have is reached at its end.
    marks: Vec<(u64, Event)>,
    /// How much was passed on.
    passed: u64,
    /// Read, not passed on yet.
    pending: Bytes,
    waiting: Option<BoxFuture<'static, ()>>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// The inner body is over.
    Drained,
    /// So is this one.
    Over,
    /// Nothing will ever come.
    Cut,
}

impl Faulty {
    pub(super) fn wrap(inner: Body, mut marks: Vec<(u64, Event)>) -> Body {
        if marks.is_empty() {
            return inner;
        }
        // Stable, so that what was asked for first at one place happens first.
        marks.sort_by_key(|(place, _)| *place);
        marks.reverse();
        let (pending, waiting) = (Bytes::new(), None);
        // Not `Sync`, which nothing asks of a body that is polled by one task.
        Body::http_body_unsync(Self {
            inner,
            marks,
            passed: 0,
            pending,
            waiting,
            state: State::Open,
        })
    }

    /// What is due here.
    fn due(&mut self) -> Option<Event> {
        if self.state == State::Drained {
            // Bytes that never came are not flipped.
            self.marks.retain(|(_, event)| !matches!(event, Event::Flip(_)));
        }
        let (place, event) = self.marks.last()?;
        let here = match event {
            // Needs the byte to be there.
            Event::Flip(_) => *place == self.passed && !self.pending.is_empty(),
            _ => *place <= self.passed || self.state == State::Drained,
        };
        if here { self.marks.pop().map(|(_, event)| event) } else { None }
    }

    fn flip(&mut self, bit: u8) {
        let mut damaged = self.pending.to_vec();
        if let Some(byte) = damaged.first_mut() {
            *byte ^= 1 << bit;
        }
        self.pending = damaged.into();
    }

    /// Takes what may be passed on before the next mark.
    fn take(&mut self) -> Bytes {
        let until = self.marks.last().map_or(u64::MAX, |(place, _)| *place);
        let room = until.saturating_sub(self.passed);
        let count = usize::try_from(room).unwrap_or(usize::MAX).min(self.pending.len());
        self.passed += count as u64;
        self.pending.split_to(count)
    }
}

impl http_body::Body for Faulty {
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        loop {
            if let Some(waiting) = &mut self.waiting {
                ready!(waiting.as_mut().poll(cx));
                self.waiting = None;
            }
            match self.state {
                State::Over => return Poll::Ready(None),
                // The connection's end wakes everyone.
                State::Cut => return Poll::Pending,
                State::Open | State::Drained => {}
            }
            match self.due() {
                Some(Event::Wait(future)) => {
                    self.waiting = Some(future);
                    continue;
                }
                Some(Event::Flip(bit)) => {
                    self.flip(bit);
                    continue;
                }
                Some(Event::End) => {
                    self.state = State::Over;
                    continue;
                }
                Some(Event::Cut(fuse, reset)) => {
                    fuse.blow_after_flush(reset);
                    self.state = State::Cut;
                    continue;
                }
                None => {}
            }
            if !self.pending.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(self.take()))));
            }
            if self.state == State::Drained {
                self.state = State::Over;
                continue;
            }
            match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.pending = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => self.state = State::Drained,
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.state == State::Over
            || (self.marks.is_empty() && self.pending.is_empty() && self.inner.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let hint = http_body::Body::size_hint(&self.inner);
        let end = self.marks.iter().find_map(|(place, event)| match event {
            Event::End => Some(*place),
            _ => None,
        });
        let pending = self.pending.len() as u64;
        let left = |rest: u64| match end {
            Some(end) => (rest + pending).min(end.saturating_sub(self.passed)),
            None => rest + pending,
        };
        match (self.state, hint.exact()) {
            (State::Over, _) => SizeHint::with_exact(0),
            (_, Some(rest)) => SizeHint::with_exact(left(rest)),
            _ => SizeHint::default(),
        }
    }
}
