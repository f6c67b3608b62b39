//! What only shows on the wire: requests cut short, answers to requests half sent, restarts.
//!
//! Spoken over plain sockets, because an S3 client would not misbehave on demand.

// Helpers of tests may panic like tests.
#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::path::Path;

use brigade_store::{Backend, Credentials, Options, Server};

mod wire;

use wire::{MIB, Wire, complete, content, create_upload, eventually, put_part, start};

/// Files below a folder.
fn files(folder: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    entries
        .map(|entry| entry.unwrap().path())
        .map(|path| if path.is_dir() { files(&path) } else { 1 })
        .sum()
}

fn inode(path: &Path) -> u64 {
    std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(path).unwrap())
}

#[test]
fn a_body_cut_short_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(Backend::Folder(folder.path().into()));
    let pending = folder.path().join(".brigade/pending");
    let uploads = folder.path().join(".brigade/uploads");
    let mut other = Wire::open(&server);
    let upload = create_upload(&mut other, "parts");
    for line in
        ["PUT /bucket/cut".to_owned(), format!("PUT /bucket/parts?partNumber=1&uploadId={upload}")]
    {
        let before = server.stats().bytes_in;
        let mut wire = Wire::open(&server);
        wire.head(&line, "", MIB);
        wire.0.write_all(&content(0, MIB / 2)).unwrap();
        let half = before + MIB as u64 / 2;
        eventually("half of the body arrives", || server.stats().bytes_in == half);
        drop(wire);
        eventually("the staged bytes are gone", || files(&pending) == 0);
    }
    assert_eq!(other.ask("HEAD /bucket/cut", "", b"").status, 404);
    let listed = other.ask(&format!("GET /bucket/parts?uploadId={upload}"), "", b"").ok();
    assert!(!listed.text().contains("<Part>"));
    // The slot the part was cut off in is free again, and its bytes don't end up in the object.
    let part = put_part(&mut other, "parts", &upload, 1, b"short");
    complete(&mut other, "parts", &upload, &part).ok();
    assert_eq!(other.ask("GET /bucket/parts", "", b"").ok().body, b"short");
    assert_eq!((files(&pending), files(&uploads)), (0, 0));
    assert_eq!(server.stats().unfinished_uploads, 0);
}

#[test]
fn a_refused_upload_is_answered_while_it_is_sent() {
    let server = start(Backend::Memory);
    let mut wire = Wire::open(&server);
    wire.ask("PUT /bucket/there", "", b"first").ok();
    let big = content(0, 8 * MIB);
    let answer = wire.ask("PUT /bucket/there", "if-none-match: *\r\n", &big);
    assert_eq!(
        (answer.status, answer.element("Code").as_deref()),
        (412, Some("PreconditionFailed"))
    );
    // The connection lives on.
    assert_eq!(wire.ask("GET /bucket/there", "", b"").ok().body, b"first");
}

#[test]
fn a_download_goes_on_with_the_object_it_began_with() {
    let folder = tempfile::tempdir().unwrap();
    for backend in [Backend::Memory, Backend::Folder(folder.path().into())] {
        let server = start(backend);
        let (old, new) = (content(0, 16 * MIB), content(1, 16 * MIB));
        let (mut reader, mut writer) = (Wire::open(&server), Wire::open(&server));
        writer.ask("PUT /bucket/key", "", &old).ok();
        reader.head("GET /bucket/key", "", 0);
        eventually("the download begins", || server.stats().bytes_out > 0);
        writer.ask("PUT /bucket/key", "", &new).ok();
        writer.ask("DELETE /bucket/key", "", b"").ok();
        assert!(reader.answer(false).body == old);
        assert_eq!(reader.ask("GET /bucket/key", "", b"").status, 404);
    }
}

#[test]
fn a_late_part_of_an_aborted_upload_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(Backend::Folder(folder.path().into()));
    let (mut wire, mut late) = (Wire::open(&server), Wire::open(&server));
    let upload = create_upload(&mut wire, "key");
    let body = content(0, MIB);
    late.head(&format!("PUT /bucket/key?partNumber=1&uploadId={upload}"), "", MIB);
    late.0.write_all(&body[..MIB / 2]).unwrap();
    eventually("half of the part arrives", || server.stats().bytes_in == MIB as u64 / 2);
    wire.ask(&format!("DELETE /bucket/key?uploadId={upload}"), "", b"").ok();
    late.0.write_all(&body[MIB / 2..]).unwrap();
    assert_eq!(late.answer(false).element("Code").as_deref(), Some("NoSuchUpload"));
    assert_eq!(files(&folder.path().join(".brigade/uploads")), 0);
}

#[test]
fn a_folder_is_served_again() {
    let folder = tempfile::tempdir().unwrap();
    let backend = Backend::Folder(folder.path().into());
    let server = start(backend.clone());
    let mut wire = Wire::open(&server);
    let keys = ["a", "a/b", "a/b/c", "..%2Fx", "%2Fx", "a%2F%2Fb", "z/"];
    for key in keys {
        wire.ask(&format!("PUT /bucket/{key}"), "x-amz-meta-who: me\r\n", key.as_bytes()).ok();
    }
    assert_eq!(std::fs::read(folder.path().join("bucket/a")).unwrap(), b"a");
    let upload = create_upload(&mut wire, "big");
    let parts = [content(0, 5 * MIB), content(5 << 20, 5 * MIB), content(10 << 20, 77)];
    // The last one first: the others are too long for its slots, and are copied in the end.
    let last = put_part(&mut wire, "big", &upload, 3, &parts[2]);
    let first = put_part(&mut wire, "big", &upload, 1, &parts[0]);
    let even = create_upload(&mut wire, "even");
    let mut even_list = put_part(&mut wire, "even", &even, 1, &parts[0]);
    let in_use = Server::start(Options { backend: backend.clone(), ..Options::default() });
    assert!(in_use.unwrap_err().to_string().contains("another process"));
    server.stop();

    let server = start(backend);
    let mut wire = Wire::open(&server);
    assert_eq!(server.stats().unfinished_uploads, 2);
    for key in keys {
        let answer = wire.ask(&format!("GET /bucket/{key}"), "", b"").ok();
        assert_eq!((answer.text().as_str(), answer.header("x-amz-meta-who")), (key, Some("me")));
    }
    let second = put_part(&mut wire, "big", &upload, 2, &parts[1]);
    complete(&mut wire, "big", &upload, &[first, second, last].concat()).ok();
    even_list += &put_part(&mut wire, "even", &even, 2, &parts[1]);
    even_list += &put_part(&mut wire, "even", &even, 3, &parts[2]);
    // Parts of equal length lie where they belong already, and become the object without a copy.
    let shared = inode(&folder.path().join(format!(".brigade/uploads/{even}/whole.data")));
    let done = complete(&mut wire, "even", &even, &even_list).ok();
    assert_eq!(inode(&folder.path().join("bucket/even")), shared);
    let repeated = complete(&mut wire, "even", &even, &even_list).ok();
    assert_eq!(done.element("ETag"), repeated.element("ETag"));
    for key in ["big", "even"] {
        assert!(wire.ask(&format!("GET /bucket/{key}"), "", b"").ok().body == parts.concat());
    }
    for key in keys.iter().chain(&["big", "even"]) {
        wire.ask(&format!("DELETE /bucket/{key}"), "", b"").ok();
    }
    assert_eq!(files(&folder.path().join("bucket")), 0);
    wire.ask("DELETE /bucket", "", b"").ok();
    let left = [".brigade/objects", ".brigade/odd", ".brigade/uploads", ".brigade/pending"];
    assert!(left.iter().all(|part| files(&folder.path().join(part)) == 0));
}

#[test]
fn chunked_bodies_without_credentials() {
    let server = start(Backend::Memory);
    let mut wire = Wire::open(&server);
    let mut put = |value: &str| {
        let body = format!("6\r\nhello!\r\n0\r\nx-amz-checksum-crc32c:{value}\r\n\r\n");
        let headers = "x-amz-content-sha256: STREAMING-UNSIGNED-PAYLOAD-TRAILER\r\n\
                       authorization: AWS4-HMAC-SHA256 Credential=any/20260101/x/s3/aws4_request\r\n\
                       content-encoding: aws-chunked\r\nx-amz-decoded-content-length: 6\r\n\
                       x-amz-trailer: x-amz-checksum-crc32c\r\n";
        wire.ask("PUT /bucket/chunked", headers, body.as_bytes())
    };
    assert_eq!(put("AAAAAA==").element("Code").as_deref(), Some("BadDigest"));
    // CRC32C of "hello!".
    let stored = put(CRC32C_HELLO).ok();
    assert_eq!(stored.header("x-amz-checksum-crc32c"), Some(CRC32C_HELLO.to_lowercase().as_str()));
    let answer = wire.ask("GET /bucket/chunked", "", b"").ok();
    assert_eq!((answer.text().as_str(), answer.header("content-encoding")), ("hello!", None));
}

const CRC32C_HELLO: &str = "jAn9Ww==";

#[test]
fn the_region_is_insisted_on() {
    let server = Server::start(Options {
        region: Some("eu-central-1".into()),
        credentials: vec![Credentials::new("key", "secret")],
        buckets: vec!["bucket".into()],
        ..Options::default()
    })
    .unwrap();
    let mut wire = Wire::open(&server);
    let scope = "Credential=key/20260101/us-east-1/s3/aws4_request";
    let headers =
        format!("authorization: AWS4-HMAC-SHA256 {scope}, SignedHeaders=host, Signature=0\r\n");
    let answer = wire.ask("PUT /bucket/key", &headers, &content(0, MIB));
    assert_eq!(answer.status, 400);
    assert_eq!(answer.element("Code").as_deref(), Some("AuthorizationHeaderMalformed"));
    assert_eq!(answer.element("Region").as_deref(), Some("eu-central-1"));
    assert_eq!(
        wire.ask("GET /bucket/key", "", b"").element("Code").as_deref(),
        Some("AccessDenied")
    );
    assert_eq!(server.stats().count("PutObject"), 1);
}

#[test]
fn virtual_objects_of_any_size() {
    let server = start(Backend::Synthetic);
    let mut wire = Wire::open(&server);
    let head = wire.ask("HEAD /bucket/x/5TiB", "", b"").ok();
    assert_eq!(head.header("content-length"), Some("5497558138880"));
    let from: u64 = 3 << 40;
    let range = format!("range: bytes={from}-{}\r\n", from + 999_999);
    let part = wire.ask("GET /bucket/x/5TiB", &range, b"").ok();
    assert_eq!(part.status, 206);
    assert!(part.body == content(from, 1_000_000));
    assert_eq!(wire.ask("HEAD /bucket/x/file5", "", b"").status, 404);
}

#[test]
fn starts_within_an_async_runtime() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let server = start(Backend::Memory);
        assert_eq!(Wire::open(&server).ask("HEAD /bucket", "", b"").status, 200);
        server.stop();
    });
}
