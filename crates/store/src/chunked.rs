//! Decoding `aws-chunked` bodies of requests that nobody signed.
//!
//! `s3s` decodes the chunks of signed requests as it checks their signatures. A store without credentials
//! takes requests as they come, so it decodes them itself; chunk signatures are skipped. Data passes
//! through in the slices it arrived in.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Body, Frame, SizeHint};
use s3s::StdError;

use crate::locks::lock;

/// Longest chunk header or trailer line: a size, a signature and room to spare.
const MAX_LINE_BYTES: usize = 4096;

/// Most trailer lines; clients send one checksum and perhaps a signature.
const MAX_TRAILERS: usize = 32;

/// The trailers of a body, once it was read to its end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trailers(Arc<Mutex<HeaderMap>>);

impl Trailers {
    pub(crate) fn read<T>(&self, use_them: impl FnOnce(&HeaderMap) -> T) -> T {
        use_them(&lock(&self.0))
    }
}

/// A malformed body.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("FormatError: not an aws-chunked body")]
    Format,
    #[error("aws-chunked body ends early")]
    Incomplete,
}

/// The data of an `aws-chunked` body.
pub(crate) struct Decoded<B> {
    inner: B,
    state: State,
    line: Vec<u8>,
    pending: Bytes,
    trailers: Trailers,
}

enum State {
    /// A chunk's size is due.
    Size,
    /// This much of a chunk is to come.
    Data(u64),
    /// The line end after a chunk.
    AfterData,
    Trailer,
    Done,
}

impl<B> Decoded<B> {
    /// Decodes `inner`; its trailers will be found in `trailers`.
    pub(crate) fn new(inner: B, trailers: Trailers) -> Self {
        Self { inner, state: State::Size, line: Vec::new(), pending: Bytes::new(), trailers }
    }

    /// Takes what it can from the pending bytes; `None` when more are needed.
    fn advance(&mut self) -> Result<Option<Bytes>, Malformed> {
        while !self.pending.is_empty() {
            match &mut self.state {
                State::Data(left) => {
                    let now = usize::try_from(*left).unwrap_or(usize::MAX).min(self.pending.len());
                    *left -= now as u64;
                    if *left == 0 {
                        self.state = State::AfterData;
                    }
                    return Ok(Some(self.pending.split_to(now)));
                }
                State::Done => self.pending.clear(),
                _ => {
                    if let Some(line) = self.take_line()? {
                        self.handle_line(&line)?;
                    }
                }
            }
        }
        Ok(None)
    }

    /// A line without its end, once there is one.
    fn take_line(&mut self) -> Result<Option<Vec<u8>>, Malformed> {
        let end = self.pending.iter().position(|byte| *byte == b'\n');
        let taken = end.unwrap_or(self.pending.len());
        if self.line.len() + taken > MAX_LINE_BYTES {
            return Err(Malformed::Format);
        }
        self.line.extend_from_slice(&self.pending[..taken]);
        self.pending.advance(taken);
        if end.is_none() {
            return Ok(None);
        }
        self.pending.advance(1);
        let mut line = std::mem::take(&mut self.line);
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        Ok(Some(line))
    }

    fn handle_line(&mut self, line: &[u8]) -> Result<(), Malformed> {
        let text = std::str::from_utf8(line).map_err(|_| Malformed::Format)?;
        match self.state {
            State::Size => {
                let digits = text.split(';').next().unwrap_or_default().trim();
                let size = u64::from_str_radix(digits, 16).map_err(|_| Malformed::Format)?;
                self.state = if size == 0 { State::Trailer } else { State::Data(size) };
            }
            State::AfterData if text.is_empty() => self.state = State::Size,
            State::AfterData => return Err(Malformed::Format),
            // Some clients end with one empty line, some with two, some with none.
            State::Trailer if text.is_empty() => {}
            State::Trailer => self.add_trailer(text)?,
            State::Data(_) | State::Done => {}
        }
        Ok(())
    }

    fn add_trailer(&self, text: &str) -> Result<(), Malformed> {
        let (name, value) = text.split_once(':').ok_or(Malformed::Format)?;
        let name: HeaderName = name.trim().parse().map_err(|_| Malformed::Format)?;
        let value: HeaderValue = value.trim().parse().map_err(|_| Malformed::Format)?;
        let mut trailers = lock(&self.trailers.0);
        if trailers.len() == MAX_TRAILERS {
            return Err(Malformed::Format);
        }
        trailers.insert(name, value);
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Malformed> {
        match self.state {
            State::Trailer => {
                // A last line without an end.
                let line = std::mem::take(&mut self.line);
                self.handle_line(&line)?;
                self.state = State::Done;
                Ok(())
            }
            State::Done => Ok(()),
            _ => Err(Malformed::Incomplete),
        }
    }
}

impl<B> Body for Decoded<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<StdError>,
{
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        let this = &mut *self;
        loop {
            if let Some(data) = this.advance()? {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            match ready!(Pin::new(&mut this.inner).poll_frame(cx)) {
                Some(Ok(frame)) => this.pending = frame.into_data().unwrap_or_default(),
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                None => {
                    this.finish()?;
                    return Poll::Ready(None);
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.state, State::Done)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{BodyExt, StreamBody};
    use proptest::prelude::*;

    fn decode(encoded: &[u8], step: usize) -> Result<(Vec<u8>, HeaderMap), StdError> {
        let chunks: Vec<Result<_, std::convert::Infallible>> =
            encoded.chunks(step).map(|c| Ok(Frame::data(Bytes::copy_from_slice(c)))).collect();
        let trailers = Trailers::default();
        let body = Decoded::new(StreamBody::new(futures::stream::iter(chunks)), trailers.clone());
        let data = futures::executor::block_on(body.collect())?.to_bytes().to_vec();
        Ok((data, trailers.read(Clone::clone)))
    }

    #[test]
    fn data_and_trailers() {
        let encoded = b"5;chunk-signature=ab\r\nhello\r\n1\r\n!\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n";
        for step in 1..=encoded.len() {
            let (data, trailers) = decode(encoded, step).unwrap();
            assert_eq!(data, b"hello!");
            assert_eq!(trailers["x-amz-checksum-crc32"], "AAAAAA==");
        }
        assert_eq!(decode(b"0\r\n", 3).unwrap().0, b"");
        assert_eq!(decode(b"0\r\na:b", 2).unwrap().1["a"], "b");
    }

    #[test]
    fn broken_bodies_are_refused() {
        for encoded in [
            &b"5\r\nhel"[..],
            b"xyz\r\n",
            b"1\r\nab\r\n0\r\n",
            b"",
            b"5\r\nhello\r\n",
            b"0\r\nno colon\r\n",
        ] {
            assert!(decode(encoded, 2).is_err(), "{encoded:?}");
        }
    }

    proptest! {
        #[test]
        fn any_cut_of_any_chunks(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..50), 0..5), step in 1_usize..20) {
            let mut encoded = Vec::new();
            for chunk in &chunks {
                encoded.extend(format!("{:x}\r\n", chunk.len()).bytes());
                encoded.extend(chunk);
                encoded.extend(b"\r\n");
            }
            encoded.extend(b"0\r\n\r\n");
            prop_assert_eq!(decode(&encoded, step).unwrap().0, chunks.concat());
        }
    }
}
