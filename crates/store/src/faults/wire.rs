//! Ending a connection on purpose: at the right byte, and with or without a reset.
//!
//! What decides about a request has no hold of its connection. They share a [`Fuse`]: whoever wants the
//! connection to end blows it, and the connection's own end, a [`Wire`] around the socket, sees to it that
//! it ends in the way asked for. "After what was sent so far" is noticed where `hyper` flushes, because
//! only there is it known that everything before is out.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

/// How long a client may go on sending on a connection that was ended in an orderly way. Closing a socket
/// with bytes unread would make it a reset.
const LINGER_TIME: Duration = Duration::from_secs(1);

/// Set: the connection ends with a reset.
const RESET: u8 = 1;
/// Set: the connection ends in an orderly way.
const CLOSE: u8 = 2;
/// Set: it ends once everything is out.
const AFTER_FLUSH: u8 = 4;

/// The means to end one connection. Whole by default.
#[derive(Debug, Default)]
pub(crate) struct Fuse(AtomicU8);

impl Fuse {
    /// The connection is about to end, in that way. Who calls this ends it.
    pub(super) fn blow(&self, reset: bool) {
        self.0.store(if reset { RESET } else { CLOSE }, Ordering::Release);
    }

    /// Ends the connection in that way after what was sent so far.
    pub(super) fn blow_after_flush(&self, reset: bool) {
        self.0.store(AFTER_FLUSH | if reset { RESET } else { CLOSE }, Ordering::Release);
    }

    fn has(&self, bit: u8) -> bool {
        self.0.load(Ordering::Acquire) & bit != 0
    }

    /// What remains to be done for a connection that was served to its end.
    pub(crate) async fn finish(&self, mut io: impl AsyncRead + AsyncWrite + Unpin) {
        if !self.has(CLOSE) {
            return;
        }
        let leaving = async {
            io.shutdown().await?;
            let mut rest = vec![0; 64 << 10];
            while io.read(&mut rest).await? > 0 {}
            io::Result::Ok(())
        };
        // A client that does not stop gets its reset after all.
        let _ = tokio::time::timeout(LINGER_TIME, leaving).await;
    }
}

/// A connection's socket.
pub(crate) struct Wire {
    stream: TcpStream,
    fuse: std::sync::Arc<Fuse>,
}

impl Wire {
    pub(crate) fn new(stream: TcpStream, fuse: std::sync::Arc<Fuse>) -> Self {
        Self { stream, fuse }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if self.fuse.has(RESET) {
            // It may be gone already, which is as good.
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        if self.fuse.has(AFTER_FLUSH) {
            self.fuse.0.fetch_and(!AFTER_FLUSH, Ordering::AcqRel);
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
