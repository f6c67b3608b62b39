//! Objects held in memory, as a list of pieces.
//!
//! A body is copied once, into pieces of up to [`PIECE_BYTES`]: the buffers it arrives in are shared with
//! what follows on the connection and often mostly empty, so keeping them would hold several times the
//! object's size. Nothing is ever moved to grow. Joining parts and answering ranges share the pieces.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::Stream;

use super::{Content, Sink, Source, Storage, Target};

/// Large enough that a piece costs nothing to track.
const PIECE_BYTES: u64 = 1 << 20;

/// The largest slice handed to the network at once.
const SLICE_BYTES: u64 = 256 << 10;

/// The memory backend.
pub(crate) struct Memory {
    pub(crate) md5_etags: bool,
}

impl Storage for Memory {
    fn md5_etags(&self) -> bool {
        self.md5_etags
    }

    fn sink(&self, _target: Target<'_>, size: Option<u64>) -> io::Result<Box<dyn Sink>> {
        Ok(Box::new(MemorySink {
            pieces: Pieces::default(),
            filling: BytesMut::new(),
            expected: size.unwrap_or(PIECE_BYTES),
        }))
    }

    fn open(&self, content: &Content) -> io::Result<Source> {
        pieces_of(content).map(Source::Pieces)
    }

    fn assemble(&self, parts: &[(Content, u64)]) -> io::Result<Content> {
        let mut whole = Pieces::default();
        for (part, _) in parts {
            for (_, piece) in &pieces_of(part)?.list {
                whole.push(piece.clone());
            }
        }
        Ok(Content::Pieces(Arc::new(whole)))
    }
}

/// Bytes in order, each piece with the offset of its end.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    list: Vec<(u64, Bytes)>,
}

impl Pieces {
    fn length(&self) -> u64 {
        self.list.last().map_or(0, |(end, _)| *end)
    }

    fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.list.push((self.length() + piece.len() as u64, piece));
        }
    }

    /// The longest slice that starts at `from`, ends by `to` and lies in one piece.
    fn slice(&self, from: u64, to: u64) -> Option<Bytes> {
        let index = self.list.partition_point(|(end, _)| *end <= from);
        let (end, piece) = self.list.get(index)?;
        let start = end - piece.len() as u64;
        let upto = to.min(*end).min(from + SLICE_BYTES);
        // Both lie within a piece, whose length is a usize.
        let within = |offset: u64| usize::try_from(offset - start).unwrap_or(usize::MAX);
        (from < upto).then(|| piece.slice(within(from)..within(upto)))
    }
}

/// A stream over a range of pieces, sharing their memory.
pub(super) fn stream(
    pieces: Arc<Pieces>,
    range: Range<u64>,
) -> impl Stream<Item = Bytes> + Send + Sync + 'static {
    let mut at = range.start;
    futures::stream::iter(std::iter::from_fn(move || {
        let slice = pieces.slice(at, range.end)?;
        at += slice.len() as u64;
        Some(slice)
    }))
}

struct MemorySink {
    pieces: Pieces,
    filling: BytesMut,
    /// Bytes still to come, as far as is known: keeps the last piece from being larger than it must.
    expected: u64,
}

impl Sink for MemorySink {
    fn write(&mut self, chunk: Bytes) -> io::Result<()> {
        let mut rest = &chunk[..];
        while !rest.is_empty() {
            if self.filling.capacity() == self.filling.len() {
                self.pieces.push(self.filling.split().freeze());
                let room = self.expected.clamp(rest.len().min(1 << 20) as u64, PIECE_BYTES);
                self.filling = BytesMut::with_capacity(usize::try_from(room).unwrap_or(1 << 20));
            }
            let room = self.filling.capacity() - self.filling.len();
            let (now, later) = rest.split_at(room.min(rest.len()));
            self.filling.extend_from_slice(now);
            self.expected = self.expected.saturating_sub(now.len() as u64);
            rest = later;
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> io::Result<Content> {
        let last = self.filling.split().freeze();
        self.pieces.push(last);
        Ok(Content::Pieces(Arc::new(self.pieces)))
    }
}

fn pieces_of(content: &Content) -> io::Result<Arc<Pieces>> {
    match content {
        Content::Pieces(pieces) => Ok(Arc::clone(pieces)),
        _ => Err(io::Error::other("content of another backend")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(content: &Content, range: Range<u64>) -> Vec<u8> {
        let stream = stream(pieces_of(content).unwrap(), range);
        futures::executor::block_on_stream(stream).collect::<Vec<_>>().concat()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn what_was_written_is_read(
            chunks in prop::collection::vec(1_usize..700_000, 0..8),
            announced in any::<bool>(),
            cut in (0.0..1.0_f64, 0.0..1.0_f64),
        ) {
            let total: usize = chunks.iter().sum();
            let mut expected = vec![0; total];
            crate::synthetic::fill(7, &mut expected);
            let memory = Memory { md5_etags: false };
            let mut sink = memory.sink(Target::Object, announced.then_some(total as u64)).unwrap();
            let mut at = 0;
            for length in chunks {
                sink.write(crate::synthetic::bytes(7 + at, length)).unwrap();
                at += length as u64;
            }
            let content = sink.finish().unwrap();
            let doubled = memory.assemble(&[(content.clone(), at), (content.clone(), at)]).unwrap();
            prop_assert!(read(&content, 0..at) == expected);
            prop_assert!(read(&doubled, 0..2 * at) == [expected.clone(), expected.clone()].concat());
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let (a, b) = ((cut.0 * total as f64) as usize, (cut.1 * total as f64) as usize);
            let (a, b) = (a.min(b), a.max(b));
            prop_assert!(read(&content, a as u64..b as u64) == expected[a..b]);
        }
    }
}
