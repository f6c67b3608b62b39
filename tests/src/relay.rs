//! A relay between a client and a store: it watches requests, slows bytes down, and does to a chosen
//! request what networks and stores do on a bad day.
//!
//! It reads just enough HTTP/1.1 to know where a message begins and ends, and passes everything else
//! on as it came, so that signatures hold. It is also a proxy: requests in absolute form go to the
//! host they name, and `CONNECT` opens a tunnel. One thread for every connection, no cleverness.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use brigade_store::Server;

/// Bytes that are passed on at a time: the grain of [`Relay::slow`].
const CHUNK_BYTES: usize = 16 << 10;

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It is passed on, and so is its reply.
    Pass,
    /// The connection is closed at once.
    Cut,
    /// There is never an answer.
    Hang,
    /// The connection is closed after this many bytes of the reply's body.
    CutReply(u64),
    /// The store does as it was asked, and the connection is closed instead of a reply.
    LoseReply,
    /// The store does as it was asked, and nobody ever hears of it.
    HangReply,
    /// One bit of the byte at this place of the reply's body is flipped.
    FlipBit(u64),
    /// The store is not asked: this status and this body are the answer.
    Answer(u16, String),
    /// The same with more headers, each ending its line.
    AnswerWith(u16, String, String),
}

impl Fate {
    /// An error as S3 words it.
    pub fn error(status: u16, code: &str) -> Self {
        let body =
            format!("<Error><Code>{code}</Code><Message>as the test wants it</Message></Error>");
        Self::Answer(status, body)
    }

    /// The same with more headers, each ending its line.
    pub fn error_with(status: u16, code: &str, headers: impl Into<String>) -> Self {
        match Self::error(status, code) {
            Self::Answer(status, body) => Self::AnswerWith(status, headers.into(), body),
            other => other,
        }
    }
}

/// A request that came by.
#[derive(Debug, Clone)]
pub struct Request {
    /// `GET`, `PUT` and so on.
    pub method: String,
    /// Path and query; host and port for `CONNECT`.
    pub target: String,
    /// Whether it came in absolute form or as `CONNECT`: as to a proxy.
    pub proxied: bool,
    /// The how-manieth of its kind it is, from 1: same method, target and range.
    pub attempt: u32,
    headers: Vec<(String, String)>,
}

impl Request {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// What S3 calls it, of the operations that transfers use.
    pub fn operation(&self) -> &'static str {
        let query = self.target.split_once('?').map_or("", |(_, query)| query);
        let has = |name: &str| query.split('&').any(|pair| pair.split('=').next() == Some(name));
        match self.method.as_str() {
            "PUT" if has("partNumber") => "UploadPart",
            "PUT" => "PutObject",
            "POST" if has("uploads") => "CreateMultipartUpload",
            "POST" if has("uploadId") => "CompleteMultipartUpload",
            "DELETE" if has("uploadId") => "AbortMultipartUpload",
            "GET" if has("uploadId") => "ListParts",
            "GET" if has("attributes") => "GetObjectAttributes",
            "GET" => "GetObject",
            "HEAD"
                if self.target.split('?').next().unwrap_or("").trim_matches('/').contains('/') =>
            {
                "HeadObject"
            }
            "HEAD" => "HeadBucket",
            _ => "Other",
        }
    }

    /// The first byte that its `Range` asks for.
    pub fn range_start(&self) -> Option<u64> {
        self.header("range")?.strip_prefix("bytes=")?.split('-').next()?.parse().ok()
    }

    /// The part of an upload that it is to send.
    pub fn part_number(&self) -> Option<u32> {
        let (_, number) = self.target.split_once("partNumber=")?;
        number.split('&').next()?.parse().ok()
    }
}

/// See the module. Stops when dropped.
pub struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

type Rule = dyn Fn(&Request) -> Fate + Send + Sync;

struct Shared {
    upstream: SocketAddr,
    rule: Box<Rule>,
    seen: Mutex<Vec<Request>>,
    attempts: Mutex<HashMap<String, u32>>,
    pace: Mutex<Pace>,
    stopped: AtomicBool,
}

/// When the next bytes may pass.
struct Pace {
    bytes_per_s: Option<u64>,
    free_at: Instant,
}

impl Relay {
    /// In front of `store`, with a `rule` that says what becomes of each request.
    pub fn new(store: &Server, rule: impl Fn(&Request) -> Fate + Send + Sync + 'static) -> Self {
        Self::start(store.address(), None, Box::new(rule))
    }

    /// In front of `store`, letting through so many bytes a second in all, both ways together.
    pub fn slow(store: &Server, bytes_per_s: u64) -> Self {
        Self::start(store.address(), Some(bytes_per_s), Box::new(|_| Fate::Pass))
    }

    /// Both: slow, and with a rule.
    pub fn slow_with(
        store: &Server,
        bytes_per_s: u64,
        rule: impl Fn(&Request) -> Fate + Send + Sync + 'static,
    ) -> Self {
        Self::start(store.address(), Some(bytes_per_s), Box::new(rule))
    }

    /// In front of somebody else's store, slow.
    pub fn slow_to(store: SocketAddr, bytes_per_s: u64) -> Self {
        Self::start(store, Some(bytes_per_s), Box::new(|_| Fate::Pass))
    }

    fn start(upstream: SocketAddr, bytes_per_s: Option<u64>, rule: Box<Rule>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            upstream,
            rule,
            seen: Mutex::default(),
            attempts: Mutex::default(),
            pace: Mutex::new(Pace { bytes_per_s, free_at: Instant::now() }),
            stopped: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            for connection in listener.incoming() {
                if accepting.stopped.load(Ordering::Acquire) {
                    return;
                }
                let (Ok(client), shared) = (connection, Arc::clone(&accepting)) else { continue };
                // An error is a connection that ended, which is all there is to it.
                std::thread::spawn(move || serve(&client, &shared));
            }
        });
        Self { address, shared, thread: Some(thread) }
    }

    /// The relay as an endpoint, or as a proxy.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The requests that came by so far, in the order of their heads.
    pub fn seen(&self) -> Vec<Request> {
        lock(&self.shared.seen).clone()
    }

    /// How many requests for `operation` came by so far.
    pub fn count(&self, operation: &str) -> usize {
        lock(&self.shared.seen).iter().filter(|request| request.operation() == operation).count()
    }

    /// Lets bytes through as fast as they come from now on.
    pub fn hurry(&self) {
        lock(&self.shared.pace).bytes_per_s = None;
    }

    /// Lets so many bytes a second through from now on.
    pub fn slow_down(&self, bytes_per_s: u64) {
        lock(&self.shared.pace).bytes_per_s = Some(bytes_per_s);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Release);
        // Wakes the thread that waits for connections.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// Waits until `bytes` more may pass.
    fn admit(&self, bytes: usize) {
        let free_at = {
            let mut pace = lock(&self.pace);
            let Some(rate) = pace.bytes_per_s else { return };
            let cost = Duration::from_secs_f64(bytes as f64 / rate as f64);
            pace.free_at = pace.free_at.max(Instant::now()) + cost;
            pace.free_at
        };
        std::thread::sleep(free_at.saturating_duration_since(Instant::now()));
    }

    fn note(&self, head: &Head) -> Request {
        let mut words = head.first.split(' ').map(str::to_owned);
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let proxied = target.starts_with("http://") || method == "CONNECT";
        let target = origin_form(&target).to_owned();
        let headers = head.headers.clone();
        let mut request = Request { method, target, proxied, attempt: 0, headers };
        let kind = format!("{:?}", (&request.method, &request.target, request.header("range")));
        let mut attempts = lock(&self.attempts);
        let attempt = attempts.entry(kind).or_default();
        *attempt += 1;
        request.attempt = *attempt;
        lock(&self.seen).push(request.clone());
        request
    }
}

/// The two directions of a connection.
struct Line {
    read: BufReader<TcpStream>,
    write: TcpStream,
}

impl Line {
    fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self { read: BufReader::with_capacity(64 << 10, stream.try_clone()?), write: stream })
    }
}

/// What comes before a message's body.
struct Head {
    first: String,
    headers: Vec<(String, String)>,
}

impl Head {
    /// `None` at the end of the connection.
    fn read(from: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut line = || -> io::Result<String> {
            let mut line = String::new();
            from.read_line(&mut line)?;
            Ok(line.trim_end_matches(['\r', '\n']).to_owned())
        };
        let first = line()?;
        if first.is_empty() {
            return Ok(None);
        }
        let mut headers = Vec::new();
        loop {
            let next = line()?;
            let Some((name, value)) = next.split_once(':') else { break };
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
        Ok(Some(Self { first, headers }))
    }

    fn write(&self, first: &str, to: &mut dyn Write) -> io::Result<()> {
        let mut text = format!("{first}\r\n");
        for (name, value) in &self.headers {
            text.extend([name, ": ", value, "\r\n"]);
        }
        text += "\r\n";
        to.write_all(text.as_bytes())
    }

    fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    fn length(&self) -> u64 {
        self.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0)
    }

    fn is_chunked(&self) -> bool {
        self.header("transfer-encoding")
            .is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"))
    }

    fn status(&self) -> u16 {
        self.first.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
    }
}

fn serve(client: &TcpStream, shared: &Shared) -> io::Result<()> {
    let mut client = Line::new(client.try_clone()?)?;
    let mut store: Option<(SocketAddr, Line)> = None;
    while let Some(head) = Head::read(&mut client.read)? {
        let request = shared.note(&head);
        if request.method == "CONNECT" {
            return tunnel(client, &request.target);
        }
        let fate = (shared.rule)(&request);
        match &fate {
            Fate::Cut => return Ok(()),
            Fate::Hang => return io::copy(&mut client.read, &mut io::sink()).map(drop),
            Fate::Answer(status, body) => {
                answer(&mut client, &head, *status, "", body)?;
                continue;
            }
            Fate::AnswerWith(status, headers, body) => {
                answer(&mut client, &head, *status, headers, body)?;
                continue;
            }
            _ => {}
        }
        let address = if request.proxied { named_by(&head)? } else { shared.upstream };
        if store.as_ref().is_none_or(|(connected, _)| *connected != address) {
            store = Some((address, Line::new(TcpStream::connect(address)?)?));
        }
        let Some((_, store)) = &mut store else { return Ok(()) };
        let exchanged = exchange(&mut client, store, shared, &head, &request, &fate);
        if fate == Fate::HangReply && exchanged.is_ok() {
            return io::copy(&mut client.read, &mut io::sink()).map(drop);
        }
        if exchanged.is_err() || fate == Fate::LoseReply {
            // Every handle of both, or the peer would not notice.
            let _ = client.write.shutdown(Shutdown::Both);
            let _ = store.write.shutdown(Shutdown::Both);
            return exchanged;
        }
    }
    Ok(())
}

/// Answers a request without the store.
fn answer(
    client: &mut Line,
    asked: &Head,
    status: u16,
    headers: &str,
    body: &str,
) -> io::Result<()> {
    io::copy(&mut (&mut client.read).take(asked.length()), &mut io::sink())?;
    let length = body.len();
    let head = format!("HTTP/1.1 {status} As Told\r\nContent-Length: {length}\r\n{headers}\r\n");
    // The answer to a HEAD has no body.
    let body = if asked.first.starts_with("HEAD ") { "" } else { body };
    client.write.write_all(format!("{head}{body}").as_bytes())
}

/// Passes one request on, and its reply back.
fn exchange(
    client: &mut Line,
    store: &mut Line,
    shared: &Shared,
    head: &Head,
    request: &Request,
    fate: &Fate,
) -> io::Result<()> {
    head.write(&format!("{} {} HTTP/1.1", request.method, request.target), &mut store.write)?;
    let mut reply = None;
    if head.header("expect").is_some() {
        let first = Head::read(&mut store.read)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        if first.status() == 100 {
            first.write(&first.first, &mut client.write)?;
        } else {
            reply = Some(first);
        }
    }
    if reply.is_none() {
        pass(&mut client.read, &mut store.write, head.length(), shared, &Fate::Pass)?;
    }
    let reply = match reply {
        Some(reply) => reply,
        None => Head::read(&mut store.read)?.ok_or(io::ErrorKind::UnexpectedEof)?,
    };
    let lost = matches!(fate, Fate::LoseReply | Fate::HangReply);
    let to: &mut dyn Write = if lost { &mut io::sink() } else { &mut client.write };
    reply.write(&reply.first, to)?;
    if request.method == "HEAD" || matches!(reply.status(), 204 | 304) {
        return Ok(());
    }
    if reply.is_chunked() {
        return pass_chunked(&mut store.read, to);
    }
    pass(&mut store.read, to, reply.length(), shared, fate)
}

/// Passes a body of `length` on, or does to it what `fate` says.
fn pass(
    from: &mut impl Read,
    to: &mut dyn Write,
    length: u64,
    shared: &Shared,
    fate: &Fate,
) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut passed = 0;
    while passed < length {
        let end = match fate {
            Fate::CutReply(at) if passed >= *at => return Err(io::ErrorKind::Interrupted.into()),
            Fate::CutReply(at) => length.min(*at),
            _ => length,
        };
        let want = usize::try_from(end - passed).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
        let count = from.read(&mut chunk[..want])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Fate::FlipBit(at) = fate
            && let Some(inside) = at.checked_sub(passed).filter(|inside| *inside < count as u64)
        {
            chunk[usize::try_from(inside).unwrap_or(0)] ^= 1;
        }
        shared.admit(count);
        to.write_all(&chunk[..count])?;
        passed += count as u64;
    }
    Ok(())
}

/// Passes a body in chunks on. Only short ones come that way.
fn pass_chunked(from: &mut impl BufRead, to: &mut dyn Write) -> io::Result<()> {
    loop {
        let mut line = String::new();
        from.read_line(&mut line)?;
        let size = u64::from_str_radix(line.trim().split(';').next().unwrap_or(""), 16)
            .map_err(|_| io::ErrorKind::InvalidData)?;
        to.write_all(line.as_bytes())?;
        // The line's end after the chunk goes along; after the last one there are no trailers.
        io::copy(&mut from.take(size + 2), to)?;
        if size == 0 {
            return Ok(());
        }
    }
}

/// Bytes both ways until one side ends.
fn tunnel(client: Line, target: &str) -> io::Result<()> {
    let store = TcpStream::connect(target)?;
    let Line { mut read, mut write } = client;
    write.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
    let (mut from_store, mut to_store) = (store.try_clone()?, store);
    std::thread::spawn(move || {
        let _ = io::copy(&mut from_store, &mut write);
        write.shutdown(Shutdown::Both)
    });
    io::copy(&mut read, &mut to_store)?;
    to_store.shutdown(Shutdown::Both)
}

fn origin_form(target: &str) -> &str {
    match target.strip_prefix("http://") {
        Some(rest) => rest.find('/').map_or("/", |slash| &rest[slash..]),
        None => target,
    }
}

/// The host that a request in absolute form is for.
fn named_by(head: &Head) -> io::Result<SocketAddr> {
    let host = head.header("host").ok_or(io::ErrorKind::InvalidData)?;
    host.to_socket_addrs()?.next().ok_or_else(|| io::ErrorKind::NotFound.into())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
