//! A request that is given up while nothing moves speaks against the address it went to.
//!
//! Who gives up is the engine, whose watchdog knows how long a request may be silent; here it only
//! shows as a request, or an answer's body, that is dropped before its end. That happens for other
//! reasons, too, so the connection itself is asked how long it has been silent.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::CaptureConnection;

use super::addresses::Watched;

/// Over one request and its answer.
pub(super) struct Vigil {
    used: CaptureConnection,
    silence: Duration,
    is_over: bool,
}

impl Vigil {
    /// Of the connection in `used`, where `silence` says when it stands still.
    pub(super) fn new(used: CaptureConnection, silence: Duration) -> Self {
        Self { used, silence, is_over: false }
    }

    /// The request came to its end, a good or a bad one.
    pub(super) fn end(&mut self) {
        self.is_over = true;
    }
}

impl Drop for Vigil {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        if let Some(connected) = self.used.connection_metadata().as_ref() {
            let mut extras = http::Extensions::new();
            connected.get_extras(&mut extras);
            if let Some(connection) = extras.get::<Watched>() {
                connection.given_up(self.silence);
            }
        }
    }
}

/// An answer's body, watched until its end.
pub(crate) struct WatchedBody {
    pub(super) body: Incoming,
    pub(super) vigil: Vigil,
}

impl Body for WatchedBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(None | Some(Err(_))) = polled {
            self.vigil.end();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
