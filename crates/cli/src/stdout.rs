//! Standard output, for whole texts, for an object's bytes and for rows without end; and standard input, for an
//! object's bytes.
//!
//! Rust ignores SIGPIPE, so a reader that goes away shows as a failed write instead of ending the
//! process. Texts are then simply not finished. An object is, and so are rows: the work must stop, quietly,
//! and the process must end the way a shell expects of a tool whose reader went away.

use std::fmt::Arguments;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::exit::Exit;
use crate::signals::Stopped;

/// Of a pipe that an object goes through. Four times what it is by itself took a twelfth off a transfer's time
/// and a twentieth off its processor time; what is longer leaves the processors' caches.
const PIPE_BYTES: usize = 256 << 10;

/// Prints `text` as it stands.
pub(crate) fn print(text: &[u8]) {
    let mut out = io::stdout().lock();
    // Who closed standard output does not want to know.
    let _ = out.write_all(text).and_then(|()| out.flush());
}

/// Standard input without Rust's buffer, which would only be one more copy.
pub(crate) fn stdin() -> io::Result<File> {
    Ok(File::from(io::stdin().as_fd().try_clone_to_owned()?))
}

/// Standard output without Rust's line buffer, which looks for a newline in every chunk.
pub(crate) struct ObjectPipe {
    file: File,
    broken: Arc<AtomicBool>,
}

/// Tells, after the pipe was given away, whether its reader went away.
pub(crate) struct PipeState(Arc<AtomicBool>);

impl ObjectPipe {
    pub(crate) fn open() -> io::Result<(Self, PipeState)> {
        let file = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        widen(&file);
        let broken = Arc::new(AtomicBool::new(false));
        Ok((Self { file, broken: Arc::clone(&broken) }, PipeState(broken)))
    }
}

/// Makes a pipe longer, so that fewer of its reader's and its writer's turns end in waiting for the other.
/// What is no pipe, or may not be longer, stays as it is.
fn widen(file: &File) {
    if rustix::pipe::fcntl_getpipe_size(file).is_ok_and(|bytes| bytes < PIPE_BYTES) {
        let _ = rustix::pipe::fcntl_setpipe_size(file, PIPE_BYTES);
    }
}

impl PipeState {
    pub(crate) fn is_broken(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl Write for ObjectPipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes).inspect_err(|error| {
            if error.kind() == io::ErrorKind::BrokenPipe {
                self.broken.store(true, Ordering::Release);
            }
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Many rows on standard output, written in large pieces.
pub(crate) struct Rows {
    out: BufWriter<ObjectPipe>,
    state: PipeState,
    /// Whether somebody watches them come.
    is_watched: bool,
}

impl Rows {
    /// Rows written so far are always shown where `is_watched`, a page of them at a time.
    pub(crate) fn open(is_watched: bool) -> Result<Self> {
        let (pipe, state) = ObjectPipe::open().context("cannot use standard output")?;
        Ok(Self { out: BufWriter::with_capacity(64 << 10, pipe), state, is_watched })
    }

    /// A row of text.
    pub(crate) fn line(&mut self, text: Arguments<'_>) -> Result<()> {
        let written = self.out.write_fmt(text).and_then(|()| self.out.write_all(b"\n"));
        self.told(written)
    }

    /// A row that is an object.
    pub(crate) fn json<T: Serialize>(&mut self, object: &T) -> Result<()> {
        let written = serde_json::to_writer(&mut self.out, object).map_err(Into::into);
        let written = written.and_then(|()| self.out.write_all(b"\n"));
        self.told(written)
    }

    /// No more rows are there at the moment.
    pub(crate) fn page_is_over(&mut self) -> Result<()> {
        if !self.is_watched {
            return Ok(());
        }
        let written = self.out.flush();
        self.told(written)
    }

    /// All of them were written.
    pub(crate) fn finish(mut self) -> Result<()> {
        let written = self.out.flush();
        self.told(written)
    }

    fn told(&self, written: io::Result<()>) -> Result<()> {
        match written {
            Ok(()) => Ok(()),
            Err(_) if self.state.is_broken() => {
                let message = "the reader of standard output went away".into();
                Err(Stopped { exit: Exit::BROKEN_PIPE, message }.into())
            }
            Err(error) => Err(error).context("cannot write to standard output"),
        }
    }
}
