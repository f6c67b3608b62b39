//! One connection, plain or TLS, with the calls that keep bytes out of user space where that is possible.
//!
//! On a plain socket a body is discarded with `MSG_TRUNC`, which frees what arrived without copying it,
//! and a file is sent with `sendfile`. Over TLS every byte has to pass through here.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::FileExt;

use rustix::net::{RecvFlags, SendFlags};

use crate::http::{Body, Head};

/// Heads and what follows them closely are received in this.
const HEAD_BYTES: usize = 16 << 10;

/// Largest head that is read: S3's own limit is 8 KiB of headers, and URLs may be long.
const LARGEST_HEAD_BYTES: usize = 64 << 10;

/// Discarded with one call at most. The memory behind it is never touched, and so never there.
const SINK_BYTES: usize = 4 << 20;

/// Received and encrypted at once, over TLS.
const TLS_BYTES: usize = 256 << 10;

/// Sent with one `sendfile` at most.
const SENDFILE_BYTES: usize = 1 << 30;

pub(crate) struct Connection {
    socket: TcpStream,
    tls: Option<Tls>,
    /// Received and not yet consumed: heads, and the beginnings of bodies that came with them.
    ahead: Vec<u8>,
    consumed: usize,
    sink: Vec<u8>,
}

struct Tls {
    session: rustls::Connection,
    /// Ciphertext that rustls has not taken yet: it takes small pieces, the socket gives large ones.
    wire: Vec<u8>,
    taken: usize,
    received: usize,
}

impl Connection {
    pub(crate) fn new(socket: TcpStream, tls: Option<rustls::Connection>) -> io::Result<Self> {
        socket.set_nodelay(true)?;
        let tls = tls.map(|mut session| {
            session.set_buffer_limit(None);
            Tls { session, wire: vec![0; TLS_BYTES], taken: 0, received: 0 }
        });
        Ok(Self { socket, tls, ahead: Vec::new(), consumed: 0, sink: vec![0; SINK_BYTES] })
    }

    pub(crate) fn connect(
        address: SocketAddr,
        tls: Option<rustls::Connection>,
    ) -> io::Result<Self> {
        Self::new(TcpStream::connect(address)?, tls)
    }

    /// The next message's head; `None` where the other side has ended the connection.
    pub(crate) fn head(&mut self) -> io::Result<Option<Head>> {
        self.ahead.drain(..self.consumed);
        self.consumed = 0;
        let mut searched = 0;
        loop {
            let from = searched.max(3) - 3;
            if let Some(at) = self.ahead[from..].windows(4).position(|four| four == b"\r\n\r\n") {
                self.consumed = from + at + 4;
                return Ok(Some(Head::new(&self.ahead[..self.consumed])));
            }
            searched = self.ahead.len();
            if searched > LARGEST_HEAD_BYTES {
                return Err(io::Error::other("the head has no end"));
            }
            self.ahead.resize(searched + HEAD_BYTES, 0);
            let received = match &mut self.tls {
                None => recv(&self.socket, &mut self.ahead[searched..], RecvFlags::empty()),
                Some(tls) => tls.receive(&self.socket, &mut self.ahead[searched..]),
            };
            self.ahead.truncate(searched + *received.as_ref().unwrap_or(&0));
            if received? == 0 {
                return match searched {
                    0 => Ok(None),
                    _ => Err(io::ErrorKind::UnexpectedEof.into()),
                };
            }
        }
    }

    /// Receives a body into nothing; gives its size.
    pub(crate) fn discard(&mut self, body: &Body) -> io::Result<u64> {
        match body {
            Body::Length(length) => self.discard_bytes(*length).map(|()| *length),
            Body::Chunked => {
                let mut size = 0;
                loop {
                    let line = self.line()?;
                    let digits = line.split(';').next().unwrap_or("").trim();
                    let length = u64::from_str_radix(digits, 16).map_err(io::Error::other)?;
                    if length == 0 {
                        // Trailers, up to an empty line.
                        while !self.line()?.is_empty() {}
                        return Ok(size);
                    }
                    self.discard_bytes(length)?;
                    self.line()?;
                    size += length;
                }
            }
        }
    }

    fn discard_bytes(&mut self, length: u64) -> io::Result<()> {
        let mut left = length - self.take_ahead(length);
        while left > 0 {
            let wanted = bounded(left, SINK_BYTES);
            let received = match &mut self.tls {
                None => {
                    let how = RecvFlags::TRUNC | RecvFlags::WAITALL;
                    recv(&self.socket, &mut self.sink[..wanted], how)?
                }
                Some(tls) => tls.receive(&self.socket, &mut self.sink[..wanted.min(TLS_BYTES)])?,
            };
            if received == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            left -= received as u64;
        }
        Ok(())
    }

    /// Receives what is there of a body, into `buffer`.
    pub(crate) fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let ahead = &self.ahead[self.consumed..];
        if !ahead.is_empty() {
            let length = ahead.len().min(buffer.len());
            buffer[..length].copy_from_slice(&ahead[..length]);
            self.consumed += length;
            return Ok(length);
        }
        let received = match &mut self.tls {
            None => recv(&self.socket, buffer, RecvFlags::empty())?,
            Some(tls) => tls.receive(&self.socket, buffer)?,
        };
        if received == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(received) }
    }

    /// Sends bytes; with `more`, they may wait for those that follow.
    pub(crate) fn send(&mut self, bytes: &[u8], more: bool) -> io::Result<()> {
        match &mut self.tls {
            None => {
                let flags = if more { SendFlags::MORE } else { SendFlags::empty() };
                let mut left = bytes;
                while !left.is_empty() {
                    let sent =
                        rustix::io::retry_on_intr(|| rustix::net::send(&self.socket, left, flags))?;
                    left = &left[sent..];
                }
                Ok(())
            }
            Some(tls) => {
                tls.session.writer().write_all(bytes)?;
                if more { Ok(()) } else { tls.flush(&self.socket) }
            }
        }
    }

    /// Sends `length` bytes of a file from `offset` on.
    pub(crate) fn send_file(&mut self, file: &File, offset: u64, length: u64) -> io::Result<()> {
        let (mut at, end) = (offset, offset + length);
        while at < end {
            match &mut self.tls {
                None => {
                    let wanted = bounded(end - at, SENDFILE_BYTES);
                    // Moves `at` on by itself.
                    let sent = rustix::io::retry_on_intr(|| {
                        rustix::fs::sendfile(&self.socket, file, Some(&mut at), wanted)
                    })?;
                    if sent == 0 {
                        return Err(io::Error::other("the file has become shorter"));
                    }
                }
                Some(tls) => {
                    let wanted = bounded(end - at, TLS_BYTES);
                    file.read_exact_at(&mut self.sink[..wanted], at)?;
                    tls.session.writer().write_all(&self.sink[..wanted])?;
                    tls.flush(&self.socket)?;
                    at += wanted as u64;
                }
            }
        }
        Ok(())
    }

    /// A line of a chunked body, without its end.
    fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        loop {
            let mut byte = [0];
            self.receive_ahead(&mut byte)?;
            match byte[0] {
                b'\n' => return Ok(String::from_utf8_lossy(&line).trim_end().to_owned()),
                _ if line.len() > HEAD_BYTES => return Err(io::Error::other("endless line")),
                other => line.push(other),
            }
        }
    }

    /// One byte, with others received ahead of need.
    fn receive_ahead(&mut self, byte: &mut [u8; 1]) -> io::Result<()> {
        if self.consumed == self.ahead.len() {
            let mut buffer = vec![0; HEAD_BYTES];
            let received = self.receive(&mut buffer)?;
            buffer.truncate(received);
            self.ahead = buffer;
            self.consumed = 0;
        }
        byte[0] = self.ahead[self.consumed];
        self.consumed += 1;
        Ok(())
    }

    /// Consumes up to `length` bytes of what was received ahead.
    fn take_ahead(&mut self, length: u64) -> u64 {
        let taken = bounded(length, self.ahead.len() - self.consumed);
        self.consumed += taken;
        taken as u64
    }
}

impl Tls {
    fn receive(&mut self, mut socket: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.session.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
            if self.taken == self.received {
                self.taken = 0;
                self.received = socket.read(&mut self.wire)?;
                if self.received == 0 {
                    return Ok(0);
                }
            }
            let mut wire = &self.wire[self.taken..self.received];
            self.taken += self.session.read_tls(&mut wire)?;
            self.session.process_new_packets().map_err(io::Error::other)?;
            self.flush(socket)?;
        }
    }

    fn flush(&mut self, mut socket: &TcpStream) -> io::Result<()> {
        while self.session.wants_write() {
            self.session.write_tls(&mut socket)?;
        }
        Ok(())
    }
}

/// `length`, or `most` where that is less.
pub(crate) fn bounded(length: u64, most: usize) -> usize {
    usize::try_from(length).map_or(most, |length| length.min(most))
}

fn recv(socket: &TcpStream, buffer: &mut [u8], flags: RecvFlags) -> io::Result<usize> {
    loop {
        match rustix::net::recv(socket, &mut *buffer, flags) {
            Ok((_, received)) => return Ok(received),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
