//! A connection with TLS on it: rustls shakes hands, [`records`](super::records) does the rest.
//!
//! Working memory belongs to the thread, not to the connection ([`Buffer`]): as many bytes as fit
//! are received at once, opened where they lie while they are in the processor's cache, and handed
//! on. Between two calls a connection keeps the record that has only begun to arrive. On the way up
//! it keeps what is sealed and not yet sent, one buffer at most; 96 connections that all wait for
//! the network hold 27 MiB.
//!
//! An end without a word of it (`close_notify`) is an error, since anybody on the way could have
//! cut the connection.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::mem;
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::kernel::KernelConnection;
use rustls::pki_types::ServerName;
use rustls::unbuffered::{ConnectionState, EncodeError, InsufficientSizeError, UnbufferedStatus};
use rustls::{AlertDescription, ClientConfig, HandshakeType, ProtocolVersion};

use super::records::{
    ALERT, APPLICATION_DATA, BadRecord, HANDSHAKE, HEADER_LEN, MAX_PLAINTEXT, MAX_RECORD,
    MAX_SEALED, Opener, Sealer, record_len,
};

/// What is sealed, or received and opened, at a time: a quarter of a MiB, which the socket buffers of
/// a fast connection take or give at once, and which fits into a core's second-level cache.
const BUFFER_BYTES: usize = 16 * MAX_SEALED;

/// Buffers a thread keeps for its next use.
const MAX_SPARE: usize = 2;

/// Handshake messages are shorter; the longest that comes after a handshake is a ticket.
const MAX_MESSAGE: usize = 1 << 16;

const CLOSE_NOTIFY: u8 = 0;
const USER_CANCELED: u8 = 90;
const WARNING: u8 = 1;
const FATAL: u8 = 2;

/// A connection, with TLS or without.
pub(super) enum Layer<T> {
    Plain(T),
    Secure(Box<Tls<T>>),
}

/// A connection with TLS, from the end of the handshake on.
pub(super) struct Tls<T> {
    io: T,
    session: KernelConnection<ClientConnectionData>,
    opener: Opener,
    sealer: Sealer,
    /// A record of which only the beginning is here.
    begun: Vec<u8>,
    /// Opened, and not asked for yet, from `handed` on.
    plain: Vec<u8>,
    handed: usize,
    /// A handshake message of which only the beginning is here.
    message: Vec<u8>,
    end: Option<End>,
    /// Sealed, and not sent yet.
    out: Option<Outgoing>,
    owes_key_update: bool,
    said_goodbye: bool,
}

/// Why nothing more will be received.
enum End {
    Closed,
    Failed(Option<io::Error>),
}

/// Does the handshake with the server `name` over `io`.
///
/// rustls is shown one record at a time, because what it opens after the last one of the handshake
/// would be lost to the keys' next holder, an answer to a change of keys among it.
pub(super) async fn secure<T: Read + Write + Unpin>(
    mut io: T,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
) -> io::Result<Tls<T>> {
    let mut rustls = UnbufferedClientConnection::new(config, name).map_err(invalid)?;
    let mut received = Received::default();
    let mut out = Vec::new();
    loop {
        let (used, step) = step(&mut rustls, received.shown(), &mut out)?;
        received.discard(used);
        match step {
            Step::Again => {}
            Step::Send => send(&mut io, &mem::take(&mut out)).await?,
            Step::Read => {
                while !received.show_next() {
                    received.read(&mut io).await?;
                }
            }
            Step::Done => break,
            Step::Failed(error) => {
                say_why(&mut io, &mut rustls).await;
                return Err(invalid(error));
            }
        }
    }
    if received.shown > 0 {
        // The beginning of a message, and the handshake was over before it.
        return Err(BadRecord::Unexpected.into());
    }
    let (secrets, session) = rustls.dangerous_into_kernel_connection().map_err(invalid)?;
    let version = session.protocol_version();
    let mut tls = Tls {
        io,
        session,
        opener: Opener::new(version, secrets.rx)?,
        sealer: Sealer::new(version, secrets.tx)?,
        begun: Vec::new(),
        plain: Vec::new(),
        handed: 0,
        message: Vec::new(),
        end: None,
        out: None,
        owes_key_update: false,
        said_goodbye: false,
    };
    // Tickets come with the handshake's last record, or a server speaks first.
    let nowhere = &mut ReadBuf::new(&mut []);
    tls.begun =
        tls.open_all(&mut received.bytes[..received.len], &mut nowhere.unfilled())?.to_vec();
    Ok(tls)
}

/// What a handshake needs next.
enum Step {
    Again,
    Send,
    Read,
    Done,
    Failed(rustls::Error),
}

/// Has rustls look at what was received. Gives how much of it is used up.
fn step(
    rustls: &mut UnbufferedClientConnection,
    received: &mut [u8],
    out: &mut Vec<u8>,
) -> io::Result<(usize, Step)> {
    let UnbufferedStatus { discard, state } = rustls.process_tls_records(received);
    let step = match state {
        Ok(ConnectionState::EncodeTlsData(mut data)) => {
            encode(out, |out| data.encode(out))?;
            Step::Again
        }
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done();
            Step::Send
        }
        Ok(ConnectionState::BlockedHandshake) => Step::Read,
        Ok(ConnectionState::WriteTraffic(_)) => Step::Done,
        Ok(ConnectionState::PeerClosed) => return Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(_) => return Err(BadRecord::Unexpected.into()),
        Err(error) => Step::Failed(error),
    };
    Ok((discard, step))
}

/// What a handshake received and rustls has not used up.
#[derive(Default)]
struct Received {
    bytes: Vec<u8>,
    len: usize,
    /// How much of it rustls is shown: whole records.
    shown: usize,
}

impl Received {
    fn shown(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.shown]
    }

    fn discard(&mut self, used: usize) {
        self.bytes.copy_within(used..self.len, 0);
        self.len -= used;
        self.shown -= used;
    }

    /// Whether there was one more record to show.
    fn show_next(&mut self) -> bool {
        let rest = &self.bytes[self.shown..self.len];
        let next = match record_len(rest) {
            Ok(Some(len)) if len <= rest.len() => len,
            Ok(_) => return false,
            // rustls says what is wrong.
            Err(_) => rest.len(),
        };
        self.shown += next;
        true
    }

    async fn read<T: Read + Unpin>(&mut self, io: &mut T) -> io::Result<()> {
        if self.len > MAX_MESSAGE + MAX_RECORD {
            return Err(BadRecord::TooLong.into());
        }
        self.bytes.resize(self.len + MAX_RECORD, 0);
        let room = &mut self.bytes[self.len..];
        match poll_fn(|cx| poll_read_slice(io, cx, room)).await? {
            0 => {
                let why = "the server closed the connection during the TLS handshake";
                Err(io::Error::new(io::ErrorKind::UnexpectedEof, why))
            }
            read => {
                self.len += read;
                Ok(())
            }
        }
    }
}

/// Appends what `write` writes, which says how much room it needs.
fn encode(
    out: &mut Vec<u8>,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>,
) -> io::Result<()> {
    let start = out.len();
    let needed = match write(&mut []) {
        Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) => {
            required_size
        }
        Err(error) => return Err(io::Error::other(error)),
        Ok(len) => len,
    };
    out.resize(start + needed, 0);
    write(&mut out[start..]).map(drop).map_err(io::Error::other)
}

/// Tells the server why there will be no connection, if it still listens.
async fn say_why<T: Write + Unpin>(io: &mut T, rustls: &mut UnbufferedClientConnection) {
    let mut out = Vec::new();
    while rustls.wants_write() {
        // Without anything received: a second look at it would fail anew.
        if !matches!(step(rustls, &mut [], &mut out), Ok((_, Step::Again))) {
            return;
        }
    }
    // The failure that led here is what counts.
    let _ = send(io, &out).await;
}

async fn send<T: Write + Unpin>(io: &mut T, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match poll_fn(|cx| Pin::new(&mut *io).poll_write(cx, bytes)).await? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            sent => bytes = &bytes[sent..],
        }
    }
    poll_fn(|cx| Pin::new(&mut *io).poll_flush(cx)).await
}

fn poll_read_slice<T: Read + Unpin>(
    io: &mut T,
    cx: &mut Context<'_>,
    room: &mut [u8],
) -> Poll<io::Result<usize>> {
    let mut read = ReadBuf::new(room);
    ready!(Pin::new(io).poll_read(cx, read.unfilled()))?;
    Poll::Ready(Ok(read.filled().len()))
}

fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl<T: Read + Write + Unpin> Tls<T> {
    fn is_13(&self) -> bool {
        self.session.protocol_version() == ProtocolVersion::TLSv1_3
    }

    /// Gives what was opened before.
    fn hand_over(&mut self, cursor: &mut ReadBufCursor<'_>) {
        let waiting = &self.plain[self.handed..];
        let now = waiting.len().min(cursor.remaining());
        cursor.put_slice(&waiting[..now]);
        self.handed += now;
        if self.handed == self.plain.len() {
            self.plain.clear();
            self.handed = 0;
        }
    }

    /// Receives once. Gives how many bytes came, as they travelled.
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        cursor: &mut ReadBufCursor<'_>,
    ) -> Poll<io::Result<usize>> {
        let mut buffer = Buffer::take();
        // As many records as the cursor takes, since what does not fit it is copied twice. In front is
        // room for the beginning of one that came before.
        let records = cursor.remaining().div_ceil(MAX_PLAINTEXT);
        let most = (records * MAX_SEALED).saturating_sub(self.begun.len()).clamp(1, BUFFER_BYTES);
        let room = &mut buffer[MAX_RECORD..MAX_RECORD + most];
        let len = ready!(poll_read_slice(&mut self.io, cx, room))?;
        let start = MAX_RECORD - self.begun.len();
        let received = start..MAX_RECORD + len;
        if len == 0 {
            return Poll::Ready(Ok(0));
        }
        if !self.is_whole(&buffer[MAX_RECORD..received.end])? {
            self.begun.extend_from_slice(&buffer[MAX_RECORD..received.end]);
            return Poll::Ready(Ok(len));
        }
        buffer[start..MAX_RECORD].copy_from_slice(&self.begun);
        self.begun.clear();
        let rest = self.open_all(&mut buffer[received], cursor)?;
        self.begun.extend_from_slice(rest);
        Poll::Ready(Ok(len))
    }

    /// Whether the record that has begun is whole with these bytes.
    fn is_whole(&self, more: &[u8]) -> Result<bool, BadRecord> {
        let mut header = [0; HEADER_LEN];
        let together = self.begun.len() + more.len();
        for (byte, at) in header.iter_mut().zip(self.begun.iter().chain(more)) {
            *byte = *at;
        }
        let len = record_len(&header[..together.min(HEADER_LEN)])?;
        Ok(len.is_some_and(|len| len <= together))
    }

    /// Opens every whole record, and gives what follows them.
    fn open_all<'a>(
        &mut self,
        mut received: &'a mut [u8],
        cursor: &mut ReadBufCursor<'_>,
    ) -> io::Result<&'a [u8]> {
        while self.end.is_none()
            && let Some(len) = record_len(received)?
            && len <= received.len()
        {
            let (record, rest) = received.split_at_mut(len);
            received = rest;
            let opened = self.opener.open(record)?;
            let bytes = &record[opened.bytes];
            match opened.kind {
                APPLICATION_DATA if self.message.is_empty() => {
                    let now = bytes.len().min(cursor.remaining());
                    cursor.put_slice(&bytes[..now]);
                    self.plain.extend_from_slice(&bytes[now..]);
                }
                HANDSHAKE => self.take_messages(bytes)?,
                ALERT if self.message.is_empty() => self.take_alert(bytes)?,
                _ => return Err(BadRecord::Unexpected.into()),
            }
        }
        Ok(received)
    }

    /// After the handshake a server sends tickets, for the next connection, and asks for other keys.
    fn take_messages(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.message.extend_from_slice(bytes);
        while let &[kind, a, b, c, ref rest @ ..] = &self.message[..] {
            let len = u32::from_be_bytes([0, a, b, c]) as usize;
            if len > MAX_MESSAGE {
                return Err(BadRecord::TooLong.into());
            }
            if rest.len() < len {
                break;
            }
            let is_last = rest.len() == len;
            match (HandshakeType::from(kind), &rest[..len]) {
                (HandshakeType::NewSessionTicket, ticket) if self.is_13() => {
                    self.session.handle_new_session_ticket(ticket).map_err(invalid)?;
                }
                (HandshakeType::KeyUpdate, &[asks_for_ours @ 0..=1]) if self.is_13() && is_last => {
                    let secrets = self.session.update_rx_secret().map_err(invalid)?;
                    self.opener = Opener::new(ProtocolVersion::TLSv1_3, secrets)?;
                    self.owes_key_update |= asks_for_ours == 1;
                }
                // An offer to begin anew, which need not be accepted.
                (HandshakeType::HelloRequest, []) if !self.is_13() => {}
                _ => return Err(BadRecord::Unexpected.into()),
            }
            self.message.drain(..4 + len);
        }
        Ok(())
    }

    fn take_alert(&mut self, bytes: &[u8]) -> io::Result<()> {
        match *bytes {
            [_, CLOSE_NOTIFY] => self.end = Some(End::Closed),
            [_, USER_CANCELED] => {}
            [WARNING, _] if !self.is_13() => {}
            [_, what] => {
                return Err(invalid(rustls::Error::AlertReceived(AlertDescription::from(what))));
            }
            _ => return Err(BadRecord::Unexpected.into()),
        }
        Ok(())
    }

    /// Nothing more is received after `error`. Says why, where nothing else has to be sent first.
    fn fail(&mut self, cx: &mut Context<'_>, error: io::Error) {
        let bad = error.get_ref().and_then(|error| error.downcast_ref::<BadRecord>());
        if let Some(alert) = bad.map(|bad| bad.alert())
            && self.out.is_none()
            && self.push(ALERT, &[FATAL, alert]).is_ok()
        {
            let _ = self.poll_drain(cx);
        }
        self.end = Some(End::Failed(Some(error)));
        self.said_goodbye = true;
    }

    /// Seals a small record, behind what waits already.
    fn push(&mut self, kind: u8, bytes: &[u8]) -> io::Result<()> {
        let out = self.out.get_or_insert_with(Outgoing::new);
        out.end += self.sealer.seal(kind, bytes, &mut out.buffer[out.end..])?;
        Ok(())
    }

    /// Goes over to another key for what is sent, where the server asks for it or the key is worn.
    fn refresh_key(&mut self) -> io::Result<()> {
        if !mem::take(&mut self.owes_key_update) && !self.sealer.is_worn() {
            return Ok(());
        }
        if !self.is_13() {
            let why = "a TLS 1.2 connection has carried as much as its key may";
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, why));
        }
        let message = [u8::from(HandshakeType::KeyUpdate), 0, 0, 1, 0];
        self.push(HANDSHAKE, &message)?;
        let secrets = self.session.update_tx_secret().map_err(invalid)?;
        self.sealer = Sealer::new(ProtocolVersion::TLSv1_3, secrets)?;
        Ok(())
    }

    /// Sends what is sealed.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(out) = &mut self.out {
            let waiting = &out.buffer[out.start..out.end];
            match ready!(Pin::new(&mut self.io).poll_write(cx, waiting))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => out.start += sent,
            }
            if out.start == out.end {
                self.out = None;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: Read + Write + Unpin> Read for Tls<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let room = cursor.remaining();
        loop {
            this.hand_over(&mut cursor);
            if cursor.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            let has_some = cursor.remaining() < room;
            match &mut this.end {
                Some(_) if has_some => return Poll::Ready(Ok(())),
                Some(End::Closed) => return Poll::Ready(Ok(())),
                Some(End::Failed(why)) => {
                    let aborted = || io::ErrorKind::ConnectionAborted.into();
                    return Poll::Ready(Err(why.take().unwrap_or_else(aborted)));
                }
                None => {}
            }
            match this.poll_receive(cx, &mut cursor) {
                // What came before it in the same call counts.
                Poll::Pending if cursor.remaining() < room => return Poll::Ready(Ok(())),
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0)) => {
                    let why = "the server closed the connection without a word";
                    let cut = io::Error::new(io::ErrorKind::UnexpectedEof, why);
                    this.end = Some(End::Failed(Some(cut)));
                }
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => this.fail(cx, error),
            }
        }
    }
}

impl<T: Read + Write + Unpin> Write for Tls<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        if slices.iter().all(|slice| slice.is_empty()) {
            return Poll::Ready(Ok(0));
        }
        if this.said_goodbye {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        this.refresh_key()?;
        let out = this.out.get_or_insert_with(Outgoing::new);
        let mut taken = 0;
        for piece in slices.iter().flat_map(|slice| slice.chunks(MAX_PLAINTEXT)) {
            let room = &mut out.buffer[out.end..];
            if room.len() < MAX_SEALED || this.sealer.is_worn() {
                break;
            }
            out.end += this.sealer.seal(APPLICATION_DATA, piece, room)?;
            taken += piece.len();
        }
        // What the connection does not take now goes first the next time.
        if let Poll::Ready(Err(error)) = this.poll_drain(cx) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        if !mem::replace(&mut this.said_goodbye, true) {
            this.push(ALERT, &[WARNING, CLOSE_NOTIFY])?;
            ready!(this.poll_drain(cx))?;
        }
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}

impl<T: Connection> Connection for Tls<T> {
    fn connected(&self) -> Connected {
        self.io.connected()
    }
}

impl<T: Connection> Connection for Layer<T> {
    fn connected(&self) -> Connected {
        match self {
            Self::Plain(io) => io.connected(),
            Self::Secure(tls) => tls.connected(),
        }
    }
}

impl<T: Read + Write + Unpin> Read for Layer<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_read(cx, cursor),
            Self::Secure(tls) => Pin::new(tls).poll_read(cx, cursor),
        }
    }
}

impl<T: Read + Write + Unpin> Write for Layer<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_write(cx, bytes),
            Self::Secure(tls) => Pin::new(tls).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_write_vectored(cx, slices),
            Self::Secure(tls) => Pin::new(tls).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(io) => io.is_write_vectored(),
            Self::Secure(tls) => tls.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_flush(cx),
            Self::Secure(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Self::Secure(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}

/// Sealed records on their way to the socket.
struct Outgoing {
    buffer: Buffer,
    start: usize,
    end: usize,
}

impl Outgoing {
    fn new() -> Self {
        Self { buffer: Buffer::take(), start: 0, end: 0 }
    }
}

/// Working memory, which goes back to its thread's spare ones.
struct Buffer(Box<[u8]>);

thread_local! {
    static SPARE: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

impl Buffer {
    fn take() -> Self {
        let spare = SPARE.with_borrow_mut(Vec::pop);
        Self(spare.unwrap_or_else(|| vec![0; MAX_RECORD + BUFFER_BYTES].into_boxed_slice()))
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = mem::take(&mut self.0);
        // A thread that ends has no spare ones any more.
        let _ = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < MAX_SPARE {
                spare.push(bytes);
            }
        });
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}
