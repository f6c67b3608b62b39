//! Speaking to a store over a plain socket: what the tests of its wire behaviour share.

// Each test file uses what it needs of this.
#![allow(dead_code, unreachable_pub)]

pub mod sign;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use brigade_store::{Backend, Options, Server, synthetic};

pub const MIB: usize = 1 << 20;

pub fn start(backend: Backend) -> Server {
    let buckets = vec!["bucket".to_owned()];
    Server::start(Options { backend, buckets, ..Options::default() }).unwrap()
}

/// A connection to a store.
pub struct Wire(pub TcpStream);

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Wire {
    pub fn open(server: &Server) -> Self {
        let stream = TcpStream::connect(server.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self(stream)
    }

    /// Sends a request's head, announcing a body of that length.
    pub fn head(&mut self, line: &str, headers: &str, length: usize) {
        let head =
            format!("{line} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n{headers}\r\n");
        self.0.write_all(head.as_bytes()).unwrap();
    }

    pub fn ask(&mut self, line: &str, headers: &str, body: &[u8]) -> Answer {
        self.head(line, headers, body.len());
        self.0.write_all(body).unwrap();
        self.answer(line.starts_with("HEAD"))
    }

    pub fn answer(&mut self, head_only: bool) -> Answer {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.0.read_exact(&mut byte).unwrap();
            head.extend(byte);
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        let status = head[9..12].parse().unwrap();
        let body = if head_only { Vec::new() } else { self.body(&head) };
        Answer { status, head, body }
    }

    fn body(&mut self, head: &str) -> Vec<u8> {
        if !head.contains("transfer-encoding: chunked") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
            self.0.read_exact(&mut body).unwrap();
            return body;
        }
        let mut body = Vec::new();
        loop {
            let size = usize::from_str_radix(&self.line(), 16).unwrap();
            let mut chunk = vec![0; size];
            self.0.read_exact(&mut chunk).unwrap();
            body.extend(chunk);
            assert_eq!(self.line(), "");
            if size == 0 {
                return body;
            }
        }
    }

    fn line(&mut self) -> String {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            self.0.read_exact(&mut byte).unwrap();
            line.extend(byte);
        }
        String::from_utf8(line).unwrap().trim_end().to_owned()
    }
}

impl Answer {
    pub fn ok(self) -> Self {
        assert_eq!(self.status / 100, 2, "{} {}", self.head, self.text());
        self
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    /// The text of the first XML element of that name.
    pub fn element(&self, name: &str) -> Option<String> {
        let text = self.text();
        let (_, rest) = text.split_once(&format!("<{name}>"))?;
        Some(rest.split_once("</")?.0.replace("&quot;", "\""))
    }
}

pub fn content(offset: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    synthetic::fill(offset, &mut bytes);
    bytes
}

pub fn create_upload(wire: &mut Wire, key: &str) -> String {
    let line = format!("POST /bucket/{key}?uploads");
    wire.ask(&line, "", b"").ok().element("UploadId").unwrap()
}

pub fn put_part(wire: &mut Wire, key: &str, upload: &str, number: u32, body: &[u8]) -> String {
    let line = format!("PUT /bucket/{key}?partNumber={number}&uploadId={upload}");
    let answer = wire.ask(&line, "", body).ok();
    format!(
        "<Part><PartNumber>{number}</PartNumber><ETag>{}</ETag></Part>",
        answer.header("etag").unwrap()
    )
}

pub fn complete(wire: &mut Wire, key: &str, upload: &str, parts: &str) -> Answer {
    let list = format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>");
    wire.ask(&format!("POST /bucket/{key}?uploadId={upload}"), "", list.as_bytes())
}

pub fn eventually(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(10), "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
