//! A connection's bytes at the pace of the network.
//!
//! Beyond the pace nothing is read from the socket and nothing is written to it. The client notices as it
//! would over a real network: its sends find no room, and its receives find nothing.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::pace::{Limits, Pace};
use super::{Direction, NetworkControl};
use crate::stats::OpenConnection;

/// Most slices that are written at once while there is a pace.
const MAX_SLICES: usize = 16;

/// A connection over the network.
pub(crate) struct Line<S> {
    inner: S,
    network: Arc<NetworkControl>,
    open: OpenConnection,
    reads: Flow,
    writes: Flow,
}

impl<S> Line<S> {
    pub(crate) fn new(inner: S, network: Arc<NetworkControl>, open: OpenConnection) -> Self {
        let (reads, writes) = (Flow::new(), Flow::new());
        Self { inner, network, open, reads, writes }
    }
}

/// One direction.
struct Flow {
    pace: Pace,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Flow {
    fn new() -> Self {
        Self { pace: Pace::new(Instant::now()), sleep: None }
    }

    /// Waits for the next turn; how many bytes may go then.
    fn poll_turn(&mut self, cx: &mut Context<'_>, limits: Limits<'_>) -> Poll<usize> {
        loop {
            let until = match self.pace.ask(Instant::now(), limits) {
                Ok(most) => return Poll::Ready(most),
                Err(until) => until,
            };
            let sleep = match &mut self.sleep {
                Some(sleep) => {
                    // The same deadline again would be registered again.
                    if sleep.deadline() != until {
                        sleep.as_mut().reset(until);
                    }
                    sleep
                }
                none => none.insert(Box::pin(tokio::time::sleep_until(until))),
            };
            ready!(sleep.as_mut().poll(cx));
        }
    }

    fn went(&mut self, bytes: usize, limits: Limits<'_>) {
        self.pace.went(Instant::now(), bytes, limits);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Line<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let line = &mut *self;
        let Some(now) = line.network.pacing() else {
            return Pin::new(&mut line.inner).poll_read(cx, into);
        };
        let limits = now.limits(Direction::In, line.open.connections());
        let most = ready!(line.reads.poll_turn(cx, limits));
        let room = into.initialize_unfilled_to(most.min(into.remaining()));
        let mut part = ReadBuf::new(room);
        ready!(Pin::new(&mut line.inner).poll_read(cx, &mut part))?;
        let count = part.filled().len();
        into.advance(count);
        line.reads.went(count, limits);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Line<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let line = &mut *self;
        let Some(now) = line.network.pacing() else {
            return Pin::new(&mut line.inner).poll_write(cx, bytes);
        };
        let limits = now.limits(Direction::Out, line.open.connections());
        let most = ready!(line.writes.poll_turn(cx, limits));
        let part = &bytes[..most.min(bytes.len())];
        let count = ready!(Pin::new(&mut line.inner).poll_write(cx, part))?;
        line.writes.went(count, limits);
        Poll::Ready(Ok(count))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let line = &mut *self;
        let Some(now) = line.network.pacing() else {
            return Pin::new(&mut line.inner).poll_write_vectored(cx, slices);
        };
        let limits = now.limits(Direction::Out, line.open.connections());
        let mut left = ready!(line.writes.poll_turn(cx, limits));
        let mut parts = [io::IoSlice::new(&[]); MAX_SLICES];
        for (part, slice) in parts.iter_mut().zip(slices) {
            let taken = left.min(slice.len());
            *part = io::IoSlice::new(&slice[..taken]);
            left -= taken;
        }
        let count = ready!(Pin::new(&mut line.inner).poll_write_vectored(cx, &parts))?;
        line.writes.went(count, limits);
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
