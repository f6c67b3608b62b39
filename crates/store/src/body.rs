//! Bodies of known length, and small wrappers around them.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::Stream;
use s3s::StdError;
use s3s::stream::{ByteStream, RemainingLength};

/// A stream that says how many bytes are left, so that a response carries `Content-Length`.
pub(crate) struct Sized<S> {
    remaining: u64,
    stream: Pin<Box<S>>,
}

impl<S> Sized<S> {
    pub(crate) fn new(length: u64, stream: S) -> Self {
        Self { remaining: length, stream: Box::pin(stream) }
    }
}

impl<S: Stream<Item = Result<Bytes, StdError>>> Stream for Sized<S> {
    type Item = Result<Bytes, StdError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = self.stream.as_mut().poll_next(cx);
        if let Poll::Ready(Some(Ok(chunk))) = &polled {
            self.remaining = self.remaining.saturating_sub(chunk.len() as u64);
        }
        polled
    }
}

impl<S: Stream<Item = Result<Bytes, StdError>>> ByteStream for Sized<S> {
    fn remaining_length(&self) -> RemainingLength {
        RemainingLength::new_exact(usize::try_from(self.remaining).unwrap_or(usize::MAX))
    }
}
