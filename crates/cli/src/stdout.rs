//! Standard output, for whole texts and for an object's bytes.
//!
//! Rust ignores SIGPIPE, so a reader that goes away shows as a failed write instead of ending the
//! process. Texts are then simply not finished. An object is: the transfer must stop, quietly, and
//! the process must end the way a shell expects of a tool whose reader went away.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Of a pipe that an object goes through. Four times what it is by itself took a twelfth off a transfer's time
/// and a twentieth off its processor time; what is longer leaves the processors' caches.
const PIPE_BYTES: usize = 256 << 10;

/// Prints `text` as it stands.
pub(crate) fn print(text: &[u8]) {
    let mut out = io::stdout().lock();
    // Who closed standard output does not want to know.
    let _ = out.write_all(text).and_then(|()| out.flush());
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
