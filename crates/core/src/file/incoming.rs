//! A stream that is read on a thread of its own, as much at a time as somebody has memory for.
//!
//! Whatever produces it may be slow, or never end: nobody else's thread waits for it. A thread that
//! waits for the producer cannot be woken; it ends with the stream, or with the process.

use std::io::{self, Read};
use std::sync::mpsc;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::aligned::Buffers;
use super::collect::Collected;

/// Bytes that are read at a time: they are copied once, out of a processor's cache.
const READ_BYTES: usize = 256 * 1024;

/// See the module.
#[derive(Debug)]
pub(crate) struct Incoming {
    wanted: mpsc::Sender<Wanted>,
}

/// The next bytes of a stream.
#[derive(Debug)]
pub(crate) struct Chunk {
    /// As [`Content::collected`](super::Content::collected) takes them.
    pub(crate) pieces: Vec<Bytes>,
    pub(crate) len_bytes: u64,
    /// Whether the stream is known to have ended with it.
    pub(crate) is_last: bool,
}

#[derive(Debug)]
struct Wanted {
    len_bytes: u64,
    looks_ahead: bool,
    reply: oneshot::Sender<io::Result<Chunk>>,
}

impl Incoming {
    /// Begins a thread for `reader`, which reads nothing yet.
    pub(crate) fn new(reader: Box<dyn Read + Send>) -> io::Result<Self> {
        let (wanted, asked) = mpsc::channel::<Wanted>();
        let serve = move || {
            let mut reading = Reading::new(reader);
            while let Ok(Wanted { len_bytes, looks_ahead, reply }) = asked.recv() {
                // Who asked may have gone meanwhile, and took the rest of the transfer along.
                let _ = reply.send(reading.chunk(len_bytes, looks_ahead));
            }
        };
        std::thread::Builder::new().name("brigade-input".into()).spawn(serve)?;
        Ok(Self { wanted })
    }

    /// The next `len_bytes`, or fewer at the end of the stream. To look ahead means to wait for one
    /// byte more, and so to know whether that was all.
    pub(crate) async fn next(&self, len_bytes: u64, looks_ahead: bool) -> io::Result<Chunk> {
        let (reply, answer) = oneshot::channel();
        let gone = || io::Error::other("its thread ended");
        self.wanted.send(Wanted { len_bytes, looks_ahead, reply }).map_err(|_| gone())?;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }
}

struct Reading {
    reader: Box<dyn Read + Send>,
    buffers: Buffers,
    scratch: Vec<u8>,
    /// A byte that was read ahead.
    ahead: Option<u8>,
    has_ended: bool,
}

impl Reading {
    fn new(reader: Box<dyn Read + Send>) -> Self {
        let (buffers, scratch) = (Buffers::default(), vec![0; READ_BYTES]);
        Self { reader, buffers, scratch, ahead: None, has_ended: false }
    }

    fn chunk(&mut self, len_bytes: u64, looks_ahead: bool) -> io::Result<Chunk> {
        let mut collected = Collected::new(&self.buffers, len_bytes);
        let mut at = 0;
        if len_bytes > 0
            && let Some(byte) = self.ahead.take()
        {
            collected.take(&[byte]);
            at = 1;
        }
        while at < len_bytes {
            let most = usize::try_from(len_bytes - at).unwrap_or(usize::MAX).min(READ_BYTES);
            let count = self.read(most)?;
            if count == 0 {
                break;
            }
            collected.take(&self.scratch[..count]);
            at += count as u64;
        }
        if looks_ahead && self.ahead.is_none() && self.read(1)? == 1 {
            self.ahead = Some(self.scratch[0]);
        }
        let is_last = self.has_ended && self.ahead.is_none();
        Ok(Chunk { pieces: collected.finish(), len_bytes: at, is_last })
    }

    fn read(&mut self, most: usize) -> io::Result<usize> {
        // A terminal goes on behind its end, which is no stream that anybody meant.
        while !self.has_ended {
            match self.reader.read(&mut self.scratch[..most]) {
                Err(again) if again.kind() == io::ErrorKind::Interrupted => {}
                Ok(0) => self.has_ended = true,
                other => return other,
            }
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives a byte or so at a time, and is interrupted in between.
    struct Slow(Vec<u8>, bool);

    impl Read for Slow {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            self.1 = !self.1;
            if self.1 {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let count = into.len().min(3).min(self.0.len());
            into[..count].copy_from_slice(&self.0[..count]);
            self.0.drain(..count);
            Ok(count)
        }
    }

    #[test]
    fn a_stream_comes_in_chunks_and_its_end_is_seen() {
        for (total, len, ahead) in [(0, 5, true), (4, 5, true), (5, 5, true), (11, 5, false)] {
            let bytes: Vec<u8> = (0..total).collect();
            let incoming = Incoming::new(Box::new(Slow(bytes.clone(), false))).expect("a thread");
            let (mut all, mut lens) = (Vec::new(), Vec::new());
            loop {
                let next = incoming.next(len, ahead);
                let chunk = futures::executor::block_on(next).expect("read");
                all.extend(chunk.pieces.concat());
                lens.push(chunk.len_bytes);
                if chunk.is_last {
                    break;
                }
            }
            assert_eq!(all, bytes);
            let expected: &[u64] = match total {
                0 => &[0],
                4 => &[4],
                5 => &[5],
                _ => &[5, 5, 1],
            };
            assert_eq!(lens, expected);
        }
    }

    #[test]
    fn what_fails_to_be_read_is_an_error() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
        }
        let incoming = Incoming::new(Box::new(Broken)).expect("a thread");
        let error = futures::executor::block_on(incoming.next(5, false)).expect_err("broken");
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
