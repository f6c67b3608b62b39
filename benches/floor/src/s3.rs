//! S3 as far as clients need it to move objects: what each request is answered with.
//!
//! Nothing is checked, neither signatures nor checksums. An upload's checksum is acknowledged as it was
//! sent; of a download, the true CRC32 is told to whoever asks, so that clients can do all they do to
//! verify.

use std::fmt::Write as _;
use std::io;
use std::ops::Range;

use crate::connection::Connection;
use crate::content::Content;
use crate::http::{self, Head};
use crate::objects::Objects;

/// Objects were all last modified here: nothing depends on it.
const MODIFIED: &str = "Wed, 01 Jan 2025 00:00:00 GMT";
const MODIFIED_ISO: &str = "2025-01-01T00:00:00.000Z";

/// Keys on one page of a listing, at most.
const PAGE: usize = 1000;

/// Objects pretend to have been uploaded in parts of at least this size, in bytes.
const PART_BYTES: u64 = 8 << 20;

/// All that the store has.
pub(crate) struct Store {
    pub(crate) content: Content,
    objects: Objects,
}

/// A request whose body, if any, has been received.
struct Request<'a> {
    head: &'a Head,
    bucket: String,
    key: String,
    query: Vec<(String, String)>,
    /// Bytes of the object or part in the body.
    payload_bytes: u64,
}

/// What a request is answered with.
struct Answer {
    status: &'static str,
    headers: String,
    body: Body,
}

enum Body {
    Text(String),
    /// A range of the object's content, which a HEAD is only told the length of.
    Content(Range<u64>),
}

impl Store {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { content: Content::new()?, objects: Objects::default() })
    }

    /// Answers one request; gives whether the connection can take another.
    pub(crate) fn exchange(&self, connection: &mut Connection, head: &Head) -> io::Result<bool> {
        if head.says("expect", "100-continue") {
            connection.send(b"HTTP/1.1 100 Continue\r\n\r\n", false)?;
        }
        let wire_bytes = connection.discard(&head.body())?;
        let decoded = head.header("x-amz-decoded-content-length");
        let request =
            Request::new(head, decoded.and_then(|n| n.parse().ok()).unwrap_or(wire_bytes));
        let answer = self.answer(&request)?;
        self.send(connection, head.word(0) == "HEAD", &answer)?;
        Ok(!head.says("connection", "close") && head.word(2) != "HTTP/1.0")
    }

    fn send(&self, connection: &mut Connection, bare: bool, answer: &Answer) -> io::Result<()> {
        let (length, kind) = match &answer.body {
            Body::Text(text) => (text.len() as u64, "application/xml"),
            Body::Content(range) => (range.end - range.start, "application/octet-stream"),
        };
        let mut head = format!(
            "HTTP/1.1 {}\r\nServer: brigade-floor\r\nx-amz-request-id: floor\r\n{}",
            answer.status, answer.headers
        );
        if !answer.status.starts_with("204") {
            let _ = write!(head, "Content-Type: {kind}\r\nContent-Length: {length}\r\n");
        }
        head.push_str("\r\n");
        if bare || length == 0 {
            return connection.send(head.as_bytes(), false);
        }
        match &answer.body {
            Body::Text(text) => {
                head.push_str(text);
                connection.send(head.as_bytes(), false)
            }
            Body::Content(range) => {
                connection.send(head.as_bytes(), true)?;
                let mut at = range.start;
                while at < range.end {
                    let (place, piece) = Content::place(at);
                    let length = piece.min(range.end - at);
                    connection.send_file(&self.content.file, place, length)?;
                    at += length;
                }
                Ok(())
            }
        }
    }

    fn answer(&self, request: &Request<'_>) -> io::Result<Answer> {
        let method = request.head.word(0);
        Ok(match (method, request.bucket.is_empty(), request.key.is_empty()) {
            ("GET", true, _) => xml("ListAllMyBucketsResult", "<Buckets/>"),
            ("GET", _, true) => self.of_bucket(request),
            ("PUT" | "HEAD", _, true) => done(),
            ("POST", _, true) if request.has("delete") => xml("DeleteResult", ""),
            ("GET" | "HEAD", ..) if request.has("uploadId") => self.list_parts(request),
            ("GET" | "HEAD", ..) => self.object(request)?,
            ("PUT", ..) => self.put(request),
            ("POST", ..) if request.has("uploads") => self.create(request),
            ("POST", ..) if request.has("uploadId") => self.complete(request),
            ("DELETE", ..) => self.delete(request),
            _ => failure("501 Not Implemented", "NotImplemented"),
        })
    }

    fn object(&self, request: &Request<'_>) -> io::Result<Answer> {
        let Some(size) = self.objects.size(&request.bucket, &request.key) else {
            return Ok(failure("404 Not Found", "NoSuchKey"));
        };
        let mut headers = format!(
            "ETag: \"{}\"\r\nLast-Modified: {MODIFIED}\r\nAccept-Ranges: bytes\r\n",
            etag(size)
        );
        let part = request.number("partNumber");
        let asked = request.head.header("range");
        let range = match (part, asked) {
            (None, None) => {
                if request.head.says("x-amz-checksum-mode", "enabled") {
                    let sum = base64(self.content.crc32(size)?);
                    let _ = write!(
                        headers,
                        "x-amz-checksum-crc32: {sum}\r\nx-amz-checksum-type: FULL_OBJECT\r\n"
                    );
                }
                return Ok(Answer { status: "200 OK", headers, body: Body::Content(0..size) });
            }
            (Some(number), _) => {
                let length = part_bytes(size);
                let count = size.div_ceil(length).max(1);
                let _ = write!(headers, "x-amz-mp-parts-count: {count}\r\n");
                let start = u64::from(number.max(1) - 1) * length;
                (start < size).then(|| (start, (start + length).min(size)))
            }
            (None, Some(asked)) => http::range(asked, size),
        };
        let Some((start, end)) = range else {
            return Ok(failure("416 Range Not Satisfiable", "InvalidRange"));
        };
        let _ = write!(headers, "Content-Range: bytes {start}-{}/{size}\r\n", end - 1);
        Ok(Answer { status: "206 Partial Content", headers, body: Body::Content(start..end) })
    }

    fn put(&self, request: &Request<'_>) -> Answer {
        let size = request.payload_bytes;
        if let Some(upload) = request.value("uploadId") {
            let number = request.number("partNumber").unwrap_or(0);
            if !self.objects.part(upload, number, size) {
                return failure("404 Not Found", "NoSuchUpload");
            }
        } else {
            self.objects.put(&request.bucket, &request.key, size);
        }
        let mut headers = format!("ETag: \"{}\"\r\n", etag(size));
        if let Some(sum) = request.head.header("x-amz-checksum-crc32") {
            let _ = write!(headers, "x-amz-checksum-crc32: {sum}\r\n");
            if !request.has("uploadId") {
                headers.push_str("x-amz-checksum-type: FULL_OBJECT\r\n");
            }
        }
        Answer { headers, ..done() }
    }

    fn create(&self, request: &Request<'_>) -> Answer {
        let id = self.objects.begin();
        let mut answer = xml(
            "InitiateMultipartUploadResult",
            &format!(
                "<Bucket>{}</Bucket><Key>{}</Key><UploadId>{id}</UploadId>",
                escaped(&request.bucket),
                escaped(&request.key)
            ),
        );
        for name in ["x-amz-checksum-algorithm", "x-amz-checksum-type"] {
            if let Some(value) = request.head.header(name) {
                let _ = write!(answer.headers, "{name}: {value}\r\n");
            }
        }
        answer
    }

    fn complete(&self, request: &Request<'_>) -> Answer {
        let upload = request.value("uploadId").unwrap_or("");
        let Some(size) = self.objects.end(upload) else {
            return failure("404 Not Found", "NoSuchUpload");
        };
        self.objects.put(&request.bucket, &request.key, size);
        let mut text = format!(
            "<Bucket>{}</Bucket><Key>{}</Key><ETag>&quot;{}&quot;</ETag>",
            escaped(&request.bucket),
            escaped(&request.key),
            etag(size)
        );
        if let Some(sum) = request.head.header("x-amz-checksum-crc32") {
            let _ = write!(
                text,
                "<ChecksumCRC32>{sum}</ChecksumCRC32><ChecksumType>FULL_OBJECT</ChecksumType>"
            );
        }
        xml("CompleteMultipartUploadResult", &text)
    }

    fn delete(&self, request: &Request<'_>) -> Answer {
        match request.value("uploadId") {
            Some(upload) => drop(self.objects.end(upload)),
            None => self.objects.remove(&request.bucket, &request.key),
        }
        Answer { status: "204 No Content", ..done() }
    }

    fn list_parts(&self, request: &Request<'_>) -> Answer {
        let upload = request.value("uploadId").unwrap_or("");
        let Some(parts) = self.objects.parts(upload) else {
            return failure("404 Not Found", "NoSuchUpload");
        };
        let after = request.number("part-number-marker").unwrap_or(0);
        let mut rest = parts.range(after.saturating_add(1)..);
        let mut text = format!("<UploadId>{}</UploadId>", escaped(upload));
        let mut last = 0;
        for (number, size) in rest.by_ref().take(PAGE) {
            last = *number;
            let _ = write!(
                text,
                "<Part><PartNumber>{number}</PartNumber><Size>{size}</Size>\
                 <ETag>&quot;{}&quot;</ETag><LastModified>{MODIFIED_ISO}</LastModified></Part>",
                etag(*size)
            );
        }
        let _ = write!(
            text,
            "<NextPartNumberMarker>{last}</NextPartNumberMarker><IsTruncated>{}</IsTruncated>",
            rest.next().is_some()
        );
        xml("ListPartsResult", &text)
    }

    fn of_bucket(&self, request: &Request<'_>) -> Answer {
        if request.has("location") {
            return xml("LocationConstraint", "");
        }
        if request.has("uploads") {
            return xml("ListMultipartUploadsResult", "<IsTruncated>false</IsTruncated>");
        }
        if request.has("versioning") {
            return xml("VersioningConfiguration", "");
        }
        self.list(request)
    }

    /// Both versions of the listing, which differ in how the next page is asked for.
    fn list(&self, request: &Request<'_>) -> Answer {
        let value = |name| request.value(name).unwrap_or("");
        let prefix = value("prefix");
        let after = [value("continuation-token"), value("start-after"), value("marker")]
            .into_iter()
            .find(|after| !after.is_empty())
            .unwrap_or("");
        let most = request.number("max-keys").map_or(PAGE, |most| PAGE.min(most as usize));
        let page = self.page(request, prefix, after, most);
        let written = |text: &str| match value("encoding-type") {
            "url" => http::encoded(text),
            _ => escaped(text),
        };
        let mut text = format!(
            "<Name>{}</Name><Prefix>{}</Prefix><MaxKeys>{most}</MaxKeys><KeyCount>{}</KeyCount>\
             <IsTruncated>{}</IsTruncated>",
            escaped(&request.bucket),
            written(prefix),
            page.entries.len(),
            page.more
        );
        if request.has("delimiter") {
            let _ = write!(text, "<Delimiter>{}</Delimiter>", written(value("delimiter")));
        }
        if request.has("encoding-type") {
            text.push_str("<EncodingType>url</EncodingType>");
        }
        if page.more {
            let last = page.entries.last().map_or("", |entry| match entry {
                Entry::Object(key, _) => key,
                Entry::Folder(prefix) => prefix,
            });
            let _ = write!(
                text,
                "<NextContinuationToken>{}</NextContinuationToken><NextMarker>{}</NextMarker>",
                escaped(last),
                written(last)
            );
        }
        for entry in &page.entries {
            let _ = match entry {
                Entry::Object(key, size) => write!(
                    text,
                    "<Contents><Key>{}</Key><LastModified>{MODIFIED_ISO}</LastModified>\
                     <ETag>&quot;{}&quot;</ETag><Size>{size}</Size>\
                     <StorageClass>STANDARD</StorageClass></Contents>",
                    written(key),
                    etag(*size)
                ),
                Entry::Folder(prefix) => write!(
                    text,
                    "<CommonPrefixes><Prefix>{}</Prefix></CommonPrefixes>",
                    written(prefix)
                ),
            };
        }
        xml("ListBucketResult", &text)
    }

    fn page(&self, request: &Request<'_>, prefix: &str, after: &str, most: usize) -> Page {
        let delimiter = request.value("delimiter").unwrap_or("");
        let mut page = Page { entries: Vec::new(), more: false };
        let mut after = after.to_owned();
        loop {
            let found = self.objects.list(&request.bucket, prefix, &after, PAGE);
            for (key, size) in &found {
                let folder = match delimiter {
                    "" => None,
                    _ => key[prefix.len()..]
                        .find(delimiter)
                        .map(|at| &key[..prefix.len() + at + delimiter.len()]),
                };
                match (folder, page.entries.last()) {
                    (Some(folder), Some(Entry::Folder(last))) if folder == last => continue,
                    // The page before this one ended in it.
                    (Some(folder), None) if after.starts_with(folder) => continue,
                    _ => {}
                }
                if page.entries.len() == most {
                    page.more = true;
                    return page;
                }
                page.entries.push(match folder {
                    Some(folder) => Entry::Folder(folder.to_owned()),
                    None => Entry::Object(key.clone(), *size),
                });
            }
            let Some((last, _)) = found.last() else { return page };
            after.clone_from(last);
        }
    }
}

struct Page {
    entries: Vec<Entry>,
    more: bool,
}

enum Entry {
    Object(String, u64),
    Folder(String),
}

impl<'a> Request<'a> {
    fn new(head: &'a Head, payload_bytes: u64) -> Self {
        let target = head.word(1);
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let (bucket, key) = path
            .trim_start_matches('/')
            .split_once('/')
            .unwrap_or((path.trim_start_matches('/'), ""));
        let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (http::decoded(name, true), http::decoded(value, true))
        });
        Self {
            head,
            bucket: http::decoded(bucket, false),
            key: http::decoded(key, false),
            query: pairs.collect(),
            payload_bytes,
        }
    }

    fn value(&self, wanted: &str) -> Option<&str> {
        self.query.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str())
    }

    fn has(&self, wanted: &str) -> bool {
        self.value(wanted).is_some()
    }

    fn number(&self, wanted: &str) -> Option<u32> {
        self.value(wanted)?.parse().ok()
    }
}

fn done() -> Answer {
    Answer { status: "200 OK", headers: String::new(), body: Body::Text(String::new()) }
}

fn failure(status: &'static str, code: &str) -> Answer {
    Answer { status, ..xml("Error", &format!("<Code>{code}</Code><Message>{code}</Message>")) }
}

fn xml(name: &str, inside: &str) -> Answer {
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\
         <{name} xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{inside}</{name}>"
    );
    Answer { body: Body::Text(text), ..done() }
}

/// Never looks like an MD5, so that no client compares it with one.
fn etag(size: u64) -> String {
    format!("floor-{size:x}")
}

/// Parts that an object of this size pretends to have been uploaded in.
fn part_bytes(size: u64) -> u64 {
    PART_BYTES.max(size.div_ceil(10_000))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// A CRC32 as S3 writes it.
fn base64(sum: u32) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    // Four bytes are five digits of six bits and one of two, padded.
    let bits = u64::from(sum) << 4;
    let digit = |index: u32| char::from(DIGITS[(bits >> (30 - 6 * index) & 63) as usize]);
    (0..6).map(digit).chain("==".chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_written_as_s3_writes_them() {
        assert_eq!(base64(0), "AAAAAA==");
        assert_eq!(base64(0xffff_ffff), "/////w==");
        assert_eq!(base64(0xcbf4_3926), "y/Q5Jg==");
    }

    #[test]
    fn requests_are_taken_apart() {
        let head = Head::new(b"GET /b/a%20b/c?partNumber=3&uploads HTTP/1.1\r\n\r\n");
        let request = Request::new(&head, 0);
        assert_eq!((request.bucket.as_str(), request.key.as_str()), ("b", "a b/c"));
        assert_eq!(request.number("partNumber"), Some(3));
        assert!(request.has("uploads") && !request.has("uploadId"));
    }

    #[test]
    fn folders_are_listed_once() {
        let store = Store::new().unwrap();
        for key in ["a/1.txt", "a/2.txt", "b.txt", "c/3.txt"] {
            store.objects.put("b", key, 1);
        }
        let head = Head::new(b"GET /b?list-type=2&delimiter=%2F HTTP/1.1\r\n\r\n");
        let request = Request::new(&head, 0);
        let names = |after, most| -> (Vec<String>, bool) {
            let page = store.page(&request, "", after, most);
            let names = page.entries.into_iter().map(|entry| match entry {
                Entry::Object(name, _) | Entry::Folder(name) => name,
            });
            (names.collect(), page.more)
        };
        assert_eq!(names("", 10), (vec!["a/".into(), "b.txt".into(), "c/".into()], false));
        assert_eq!(names("", 1), (vec!["a/".into()], true));
        assert_eq!(names("a/", 1), (vec!["b.txt".into()], true));
    }
}
