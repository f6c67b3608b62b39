//! Bytes of mapped files go to a plain connection from the file's own pages.
//!
//! `writev` copies what it is given into the kernel. For a slice of a mapped file that is a copy of
//! what the kernel has already: `sendfile` puts the file's pages themselves into the connection's
//! queue. Nobody above has to know; a body's frames are slices of the mapping either way, and here
//! they are recognised by their address.

use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

use rustix::io::Errno;
use rustix::net::SendFlags;
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::file::file_behind;

/// Slices of one call, at most: a request's head and the frames that hyper queues.
const MAX_SLICES: usize = 16;

/// Writes some of `slices`, like `writev`.
pub(super) fn poll_send(
    tcp: &TcpStream,
    context: &mut Context<'_>,
    slices: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    let slices = &slices[..slices.len().min(MAX_SLICES)];
    let first = slices.iter().position(|slice| !slice.is_empty());
    let Some(first) = first else { return Poll::Ready(Ok(0)) };
    let slices = &slices[first..];
    loop {
        ready!(tcp.poll_write_ready(context))?;
        let sent = tcp.try_io(Interest::WRITABLE, || match file_behind(&slices[0]) {
            Some((file, offset)) => match send_file(tcp, &file, offset, contiguous(slices)) {
                Err(errno) if IS_NOT_DONE.contains(&errno) => send_slice(tcp, &slices[0]),
                sent => Ok(sent?),
            },
            None => send_memory(tcp, slices),
        });
        match sent {
            Err(full) if full.kind() == io::ErrorKind::WouldBlock => {}
            sent => return Poll::Ready(sent),
        }
    }
}

/// How many bytes of the slices follow each other in memory.
fn contiguous(slices: &[IoSlice<'_>]) -> usize {
    let mut len = slices[0].len();
    for pair in slices.windows(2) {
        if pair[0].as_ptr().wrapping_add(pair[0].len()) != pair[1].as_ptr() {
            break;
        }
        len += pair[1].len();
    }
    len
}

/// How a file system says that it has no `sendfile`.
const IS_NOT_DONE: [Errno; 3] = [Errno::INVAL, Errno::NOSYS, Errno::OPNOTSUPP];

fn send_file(
    tcp: &TcpStream,
    file: &std::fs::File,
    mut offset: u64,
    len: usize,
) -> Result<usize, Errno> {
    match rustix::fs::sendfile(tcp, file, Some(&mut offset), len) {
        // The file ends before the mapping: somebody cut it short. What is done about a mapping then is
        // known where it was made: it is what reading it would have been, an error of the disk.
        Ok(0) => Err(Errno::IO),
        sent => sent,
    }
}

/// A slice by a copy, as any memory.
fn send_slice(tcp: &TcpStream, slice: &IoSlice<'_>) -> io::Result<usize> {
    Ok(rustix::net::send(tcp, slice, SendFlags::NOSIGNAL)?)
}

/// What is not of a file, up to what is; then more follows at once, and one packet should hold both.
fn send_memory(tcp: &TcpStream, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    let memory = slices.iter().position(|slice| file_behind(slice).is_some());
    let flags = if memory.is_some() { SendFlags::MORE } else { SendFlags::empty() };
    let slices = &slices[..memory.unwrap_or(slices.len())];
    let mut nothing = rustix::net::SendAncillaryBuffer::default();
    Ok(rustix::net::sendmsg(tcp, slices, &mut nothing, flags | SendFlags::NOSIGNAL)?)
}
