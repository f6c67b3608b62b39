//! What a request sends of a source: the bytes of one part, which go by in frames.
//!
//! A frame of a mapped source is a slice of the mapping, so nothing is copied. Otherwise each frame
//! is read into a buffer that is used again when the frame is gone, so that an upload holds a few
//! frames for every connection and never a part.
//!
//! Reading happens where the frame is wanted, on the lane's own thread, and blocks it as a page
//! fault in a mapping does. The part was summed a moment ago, so it mostly is a copy out of the page
//! cache, a few hundredths of a millisecond; handing that to another thread and waking up again
//! costs more, and the frame would then be in the other core's cache.

use std::cell::RefCell;

use bytes::Bytes;

use super::held::Held;
use super::source::Source;
use crate::error::{Error, Result};
use crate::plan::Part;

/// Bytes in a frame: few enough calls to cost nothing, small enough for a live rate, and a buffer
/// that stays in a core's own cache between reading and summing.
pub(crate) const FRAME_BYTES: usize = 256 * 1024;

/// Mapped pages are given back behind whoever goes over them, in such steps, always one step late: a
/// frame that was just handed out may wait in a connection's buffer. Sixteen parts of 525 MiB, as an
/// object of 5 TiB has them, would be 8 GiB of resident memory. Each step interrupts the other cores,
/// so it is not a small one.
const RELEASE_STEP_BYTES: u64 = 1 << 20;

/// Read at once to be looked at: with what looks at it, it stays in a core's second-level cache.
const LOOK_BYTES: usize = 128 * 1024;

thread_local! {
    static LOOKED_AT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The bytes of a part, wherever they are; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Content(Kind);

#[derive(Debug, Clone)]
enum Kind {
    Held(Bytes),
    // In several pieces.
    Collected(Held),
    // The same, of a file.
    Gathered(Source, Part, Held),
    // The part lies within the source: `Source::content` saw to it.
    Mapped(Source, Part),
    Read(Source, Part),
}

impl Content {
    pub(super) fn mapped(source: Source, part: Part) -> Self {
        Self(Kind::Mapped(source, part))
    }

    pub(super) fn gathered(source: Source, part: Part, held: Held) -> Self {
        Self(Kind::Gathered(source, part, held))
    }

    pub(super) fn read(source: Source, part: Part) -> Self {
        Self(Kind::Read(source, part))
    }

    /// What was received: pieces as [`Collected`](super::Collected) gives them.
    pub(crate) fn collected(pieces: Vec<Bytes>) -> Self {
        Self(Kind::Collected(Held::collected(pieces)))
    }

    /// How many bytes there are.
    pub(crate) fn len_bytes(&self) -> u64 {
        match &self.0 {
            Kind::Held(bytes) => bytes.len() as u64,
            Kind::Collected(held) => held.len_bytes(),
            Kind::Gathered(_, part, _) | Kind::Mapped(_, part) | Kind::Read(_, part) => {
                part.len_bytes
            }
        }
    }

    /// The bytes, from the first to the last, in frames.
    pub(crate) fn frames(&self) -> Frames {
        Frames { content: self.clone(), at_bytes: 0, released_bytes: 0 }
    }

    /// The same bytes, read and not mapped.
    ///
    /// For what is sent without a sum: TLS reads a body in user space, where pages that are lost
    /// look like zeroes, and without a sum the store would take them.
    pub(crate) fn unmapped(self) -> Self {
        match self.0 {
            Kind::Mapped(source, part) => Self::read(source, part),
            held_or_read => Self(held_or_read),
        }
    }

    /// The bytes as one piece. Where they are read, all of them are in memory then.
    pub(crate) fn to_bytes(&self) -> Result<Bytes> {
        match &self.0 {
            Kind::Held(bytes) => Ok(bytes.clone()),
            Kind::Collected(held) | Kind::Gathered(_, _, held) => Ok(held.to_bytes()),
            Kind::Mapped(source, part) => {
                Ok(source.mapped_bytes(part.offset_bytes, part.len_bytes))
            }
            Kind::Read(source, part) => {
                let len = usize::try_from(part.len_bytes).map_err(|_| source.beyond())?;
                let mut whole = vec![0; len];
                source.read_exact_at(&mut whole, part.offset_bytes)?;
                Ok(whole.into())
            }
        }
    }

    /// The error of the source where it is what made a request fail with `error`.
    ///
    /// When the kernel itself cannot read what it should send, nothing is raised: the connection ends
    /// with "bad address", an error of the disk or an end, which looks like a failure of the network
    /// and would be tried again.
    pub(crate) fn blame(&self, error: Error) -> Error {
        match &self.0 {
            Kind::Mapped(source, part) if is_of_the_source(&error) => {
                look_at_every_page(&source.mapped_bytes(part.offset_bytes, part.len_bytes));
                source.check_unchanged().err().unwrap_or(error)
            }
            _ => error,
        }
    }
}

impl From<Bytes> for Content {
    fn from(bytes: Bytes) -> Self {
        Self(Kind::Held(bytes))
    }
}

/// Goes over a content once. After an error there is no point in going on.
#[derive(Debug)]
pub(crate) struct Frames {
    content: Content,
    at_bytes: u64,
    released_bytes: u64,
}

impl Frames {
    /// How many bytes are still to come.
    pub(crate) fn rest_bytes(&self) -> u64 {
        self.content.len_bytes() - self.at_bytes
    }

    /// The next frame, of `len` bytes, or fewer where they lie in two pieces.
    fn frame(&self, len: usize) -> Result<Bytes> {
        let (source, frame) = match &self.content.0 {
            Kind::Held(bytes) => {
                let start = usize::try_from(self.at_bytes).unwrap_or(bytes.len());
                return Ok(bytes.slice(start..start + len));
            }
            Kind::Collected(held) => return Ok(held.slice(self.at_bytes, len)),
            Kind::Gathered(source, _, held) => (source, held.slice(self.at_bytes, len)),
            Kind::Mapped(source, part) => {
                (source, source.mapped_bytes(part.offset_bytes + self.at_bytes, len as u64))
            }
            Kind::Read(source, part) => {
                (source, source.read_frame(part.offset_bytes + self.at_bytes, len)?)
            }
        };
        // Before a request is whole: one that was cut short is not taken for an object.
        if self.rest_bytes() == frame.len() as u64 {
            source.check_unchanged()?;
        }
        Ok(frame)
    }

    /// Shows the next frame to `look`, and gives its length; nothing at the end.
    ///
    /// What is not in this process's memory yet is read into one buffer of the thread, over and over: it
    /// stays in the core's own cache. Going over the mapping would take as long, for its pages have to be
    /// found, and would make them this process's; and a page that is lost shows as an error at once.
    pub(crate) fn look(&mut self, look: impl FnOnce(&[u8])) -> Result<Option<usize>> {
        let (Kind::Mapped(source, part) | Kind::Read(source, part)) = &self.content.0 else {
            let Some(frame) = self.next().transpose()? else { return Ok(None) };
            look(&frame);
            return Ok(Some(frame.len()));
        };
        let len = bounded(self.rest_bytes(), LOOK_BYTES);
        if len == 0 {
            return Ok(None);
        }
        LOOKED_AT.with_borrow_mut(|buffer| {
            buffer.resize(LOOK_BYTES, 0);
            source.read_exact_at(&mut buffer[..len], part.offset_bytes + self.at_bytes)?;
            look(&buffer[..len]);
            Ok(())
        })?;
        self.at_bytes += len as u64;
        Ok(Some(len))
    }

    fn release_behind(&mut self) {
        if let Kind::Mapped(source, part) = &self.content.0
            && self.at_bytes - self.released_bytes >= 2 * RELEASE_STEP_BYTES
        {
            source.release(part.offset_bytes + self.released_bytes, RELEASE_STEP_BYTES);
            self.released_bytes += RELEASE_STEP_BYTES;
        }
    }
}

impl Iterator for Frames {
    type Item = Result<Bytes>;

    fn next(&mut self) -> Option<Result<Bytes>> {
        self.release_behind();
        let len = bounded(self.rest_bytes(), FRAME_BYTES);
        if len == 0 {
            return None;
        }
        let frame = self.frame(len);
        // After an error nobody goes on.
        self.at_bytes += frame.as_ref().map_or(len, Bytes::len) as u64;
        Some(frame)
    }
}

fn bounded(bytes: u64, most: usize) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX).min(most)
}

/// So that the guard comes to know of those that are lost.
fn look_at_every_page(mapped: &[u8]) {
    for bytes in mapped.chunks(rustix::param::page_size()) {
        // They begin anywhere in a page, and end in the next one.
        std::hint::black_box((bytes.first().copied(), bytes.last().copied()));
    }
}

fn is_of_the_source(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source())
        .filter_map(|error| error.downcast_ref::<std::io::Error>())
        .any(|error| {
            matches!(error.raw_os_error(), Some(libc::EFAULT | libc::EIO))
                || error.kind() == std::io::ErrorKind::UnexpectedEof
        })
}
