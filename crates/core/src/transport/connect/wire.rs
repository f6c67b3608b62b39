//! A TCP connection that tells how much it took.
//!
//! What a request's body gave away is not what moved: hyper and TLS hold some of it, and over a thin line
//! shared by many a frame may take longer to leave than a connection may be silent. So the watchdog
//! ([`Watch`](crate::transport::body::Watch)) looks at what the socket itself took.
//!
//! The kernel takes more off everybody's hands than is under way, and asks for the next when half of that
//! has left: as much as that goes at once, and then nothing for a while. So a connection begins with
//! little, and what is fast has more.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{CaptureConnection, Connected, Connection};
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::net::TcpStream;

use super::send;

/// What a connection takes beyond what is under way on the network (`TCP_NOTSENT_LOWAT`), in bytes. Left
/// alone, the kernel takes up to 4 MiB off everybody's hands at once, however slow the line: each new
/// connection would look as if it had brought that much, and every part's end would lie in a queue
/// that nobody sees. Twice the most that is written at once keeps the fastest connection busy.
const MAX_UNSENT_BYTES: u32 = 256 << 10;

/// The same for a connection that is not known to be fast. Half of it is what leaves between two signs of
/// life: fifty connections with a kilobyte a second each are still seen to move within 20 s.
const FIRST_UNSENT_BYTES: u32 = 32 << 10;

/// What takes so many bytes within so long is fast.
const FAST_BYTES: u64 = 1 << 20;
const FAST_TIME: Duration = Duration::from_secs(1);

/// A connection to the hop.
pub(super) struct Wire {
    tcp: TokioIo<TcpStream>,
    written: Written,
    trial: Option<Trial>,
}

/// Whether it is fast is yet to be seen.
struct Trial {
    since: Instant,
    bytes: u64,
}

/// Bytes that a connection took so far.
#[derive(Clone, Default)]
struct Written(Arc<AtomicU64>);

impl Wire {
    pub(super) fn new(tcp: TokioIo<TcpStream>) -> Self {
        // Where the system does not know it, its own choice does.
        let _ = SockRef::from(tcp.inner()).set_tcp_notsent_lowat(FIRST_UNSENT_BYTES);
        let trial = Some(Trial { since: Instant::now(), bytes: 0 });
        Self { tcp, written: Written::default(), trial }
    }

    fn took(&mut self, polled: &Poll<io::Result<usize>>) {
        let Poll::Ready(Ok(bytes)) = polled else { return };
        let bytes = *bytes as u64;
        self.written.0.fetch_add(bytes, Ordering::Relaxed);
        let Some(trial) = &mut self.trial else { return };
        trial.bytes += bytes;
        if trial.bytes < FAST_BYTES {
            return;
        }
        if trial.since.elapsed() < FAST_TIME {
            let _ = SockRef::from(self.tcp.inner()).set_tcp_notsent_lowat(MAX_UNSENT_BYTES);
            self.trial = None;
        } else {
            // It may have been idle, or the line may have been another's.
            *trial = Trial { since: Instant::now(), bytes: 0 };
        }
    }
}

impl Connection for Wire {
    fn connected(&self) -> Connected {
        self.tcp.connected().extra(self.written.clone())
    }
}

impl Read for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(cx, buffer)
    }
}

impl Write for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.tcp).poll_write(cx, bytes);
        self.took(&polled);
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = send::poll_send(self.tcp.inner(), cx, slices);
        self.took(&polled);
        polled
    }
}

/// The connection that a request goes over, for who sent it: goes along with the request, as one of its
/// extensions, and is told on the way. Clones are the same one.
#[derive(Clone, Default)]
pub(in crate::transport) struct Used(Arc<Mutex<Option<CaptureConnection>>>);

impl Used {
    pub(super) fn is(&self, used: CaptureConnection) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(used);
    }

    /// Bytes that its socket took so far, those of earlier requests included; 0 before there is one.
    pub(in crate::transport) fn written_bytes(&self) -> u64 {
        let used = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(used) = &*used else { return 0 };
        let metadata = used.connection_metadata();
        let Some(connected) = metadata.as_ref() else { return 0 };
        let mut extras = http::Extensions::new();
        connected.get_extras(&mut extras);
        extras.get::<Written>().map_or(0, |written| written.0.load(Ordering::Relaxed))
    }
}

impl std::fmt::Debug for Used {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Used").field(&self.written_bytes()).finish()
    }
}
