//! Every fault, seen from the wire: that it does what it says, and that the store is as it should be after.

// Helpers of tests may panic like tests.
#![allow(clippy::unwrap_used)]

use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use brigade_store::faults::{Action, Answer, Fired, Place, Rule};
use brigade_store::{Backend, Credentials, Options, Server};
use rustls::pki_types::pem::PemObject;
use sha2::{Digest, Sha256};

mod wire;

use wire::sign::{KEYS, hex, signed};
use wire::{MIB, Wire, complete, content, create_upload, eventually, put_part};

fn start() -> Server {
    wire::start(Backend::Memory)
}

/// A store that has `/bucket/key`, with these rules since.
fn with(rules: impl Into<brigade_store::faults::Faults>, body: &[u8]) -> (Server, Wire) {
    let server = start();
    let mut wire = Wire::open(&server);
    wire.ask("PUT /bucket/key", "", body).ok();
    server.faults().set(rules).unwrap();
    (server, wire)
}

/// All that still comes, and whether the connection was reset.
fn rest(wire: &mut Wire) -> (Vec<u8>, bool) {
    let mut bytes = Vec::new();
    match wire.0.read_to_end(&mut bytes) {
        Ok(_) => (bytes, false),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => (bytes, true),
        Err(error) => panic!("neither closed nor reset: {error}"),
    }
}

/// Whether the object is there with that content.
fn holds(server: &Server, key: &str, body: &[u8]) -> bool {
    server.faults().clear();
    let answer = Wire::open(server).ask(&format!("GET /bucket/{key}"), "", b"");
    answer.status == 200 && answer.body == body
}

fn fired(server: &Server) -> u64 {
    server.faults().fired().total
}

#[test]
fn an_answer_takes_the_place_of_the_store() {
    let answer = Answer {
        message: "Reduce <your> rate.".into(),
        elements: vec![("Bucket".into(), "b".into())],
        ..Answer::new(503, "SlowDown").header("Retry-After", "1")
    };
    let (server, mut wire) = with(Rule::on("PutObject").nth(1).then(answer), b"old");
    let refused = wire.ask("PUT /bucket/key", "", &content(0, MIB));
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    assert_eq!(refused.element("Code").as_deref(), Some("SlowDown"));
    assert!(refused.text().contains("<Message>Reduce &lt;your&gt; rate.</Message><Bucket>b<"));
    // The connection lives on, and the rule fires no more.
    assert_eq!(wire.ask("GET /bucket/key", "", b"").ok().body, b"old");
    wire.ask("PUT /bucket/key", "", b"new").ok();
    assert_eq!(server.faults().fired(), Fired { total: 1, rules: vec![1] });
    assert_eq!(server.stats().count("PutObject"), 3);
    // A HEAD gets no body.
    server.faults().set(Rule::on("HeadObject").then(Action::answer(503, "SlowDown"))).unwrap();
    assert_eq!(wire.ask("HEAD /bucket/key", "", b"").status, 503);
    assert_eq!(wire.ask("GET /bucket/key", "", b"").ok().body, b"new");
}

#[test]
fn every_part_fails_once() {
    let server = start();
    let rule = Rule::on("UploadPart").per_part().nth(1).then(Action::answer(503, "SlowDown"));
    server.faults().set(rule).unwrap();
    let mut wire = Wire::open(&server);
    let upload = create_upload(&mut wire, "key");
    for number in 1..=20 {
        let line = format!("PUT /bucket/key?partNumber={number}&uploadId={upload}");
        assert_eq!(wire.ask(&line, "", b"part").status, 503);
        assert_eq!(wire.ask(&line, "", b"part").status, 200);
    }
    assert_eq!(fired(&server), 20);
}

#[test]
fn an_answer_may_come_unread_or_applied() {
    let unread = Answer { read_body: false, ..Answer::new(400, "RequestTimeout") };
    let (server, mut wire) = with(Rule::on("PutObject").then(unread), b"old");
    wire.head("PUT /bucket/key", "", 64 * MIB);
    // Not one byte of the body is sent, and the answer comes all the same.
    let answer = wire.answer(false);
    assert_eq!((answer.status, answer.element("Code").as_deref()), (400, Some("RequestTimeout")));
    rest(&mut wire);
    assert!(holds(&server, "key", b"old"));

    let applied = Answer::new(500, "InternalError").after_applying();
    server.faults().set(Rule::on("PutObject").then(applied)).unwrap();
    let mut wire = Wire::open(&server);
    assert_eq!(wire.ask("PUT /bucket/key", "", b"new").status, 500);
    assert!(holds(&server, "key", b"new"));
}

#[test]
fn connections_end_within_a_request() {
    for (at, reset) in [
        (Place::RequestBody(0), false),
        (Place::RequestBody(0), true),
        (Place::RequestBody(1000), false),
        (Place::RequestBody(1000), true),
        (Place::RequestEnd, false),
        (Place::RequestEnd, true),
    ] {
        let (server, mut wire) =
            with(Rule::on("PutObject").then(Action::Cut { at, reset }), b"old");
        // In one go: what is written after a reset would fail.
        let body = content(0, if at == Place::RequestEnd { 5000 } else { 2000 });
        let head = b"PUT /bucket/key HTTP/1.1\r\nhost: x\r\ncontent-length: 5000\r\n\r\n";
        wire.0.write_all(&[head, &body[..]].concat()).unwrap();
        assert_eq!(rest(&mut wire), (vec![], reset), "{at:?}");
        assert!(holds(&server, "key", b"old"), "{at:?}");
        assert_eq!(fired(&server), 1);
    }
}

#[test]
fn a_response_is_swallowed_after_the_store_did_it() {
    for reset in [false, true] {
        let cut = Action::Cut { at: Place::Response, reset };
        let (server, mut wire) = with(Rule::on("PutObject").then(cut), b"old");
        wire.head("PUT /bucket/key", "", 3);
        wire.0.write_all(b"new").unwrap();
        assert_eq!(rest(&mut wire), (vec![], reset));
        assert!(holds(&server, "key", b"new"));
    }
}

#[test]
fn connections_end_within_a_response() {
    for (bytes, reset) in [(0, false), (0, true), (3_000_000, false), (3_000_000, true)] {
        let body = content(0, 4 * MIB);
        let at = Place::ResponseBody(bytes);
        let (_server, mut wire) =
            with(Rule::on("GetObject").then(Action::Cut { at, reset }), &body);
        wire.head("GET /bucket/key", "", 0);
        let (all, was_reset) = rest(&mut wire);
        assert_eq!(was_reset, reset);
        let head = all.windows(4).position(|window| window == b"\r\n\r\n");
        // A reset may overtake what was sent before.
        let Some(head) = head else {
            assert!(reset);
            continue;
        };
        let got = &all[head + 4..];
        assert!(body.starts_with(got));
        let expected = usize::try_from(bytes).unwrap();
        assert!(if reset { got.len() <= expected } else { got.len() == expected }, "{}", got.len());
    }
}

#[test]
fn stalls_last_until_released() {
    let body = content(0, MIB);
    for (at, length) in [
        (Place::RequestBody(0), MIB),
        (Place::RequestBody(70_000), MIB),
        (Place::RequestEnd, MIB),
        (Place::RequestEnd, 0),
        (Place::Response, MIB),
    ] {
        let (server, mut wire) = with(Rule::on("PutObject").then(Action::stall(at)), b"old");
        wire.head("PUT /bucket/key", "", length);
        wire.0.write_all(&body[..length]).unwrap();
        eventually("the rule fires", || fired(&server) == 1);
        wire.0.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let waited = wire.0.read(&mut [0]).unwrap_err().kind();
        assert!(matches!(waited, ErrorKind::WouldBlock | ErrorKind::TimedOut), "{at:?}");
        wire.0.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        server.faults().release();
        wire.answer(false).ok();
        assert!(holds(&server, "key", &body[..length]), "{at:?}");
    }
    let stall = Action::stall(Place::ResponseBody(500_000));
    let (server, mut wire) = with(Rule::on("GetObject").then(stall), &body);
    wire.head("GET /bucket/key", "", 0);
    let mut first = vec![0; 400_000];
    wire.0.read_exact(&mut first).unwrap();
    server.faults().release();
    let answered = first.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    let mut others = vec![0; MIB - (first.len() - answered)];
    wire.0.read_exact(&mut others).unwrap();
    assert!([&first[answered..], &others].concat() == body);
}

#[test]
fn a_stall_does_not_keep_the_store_from_stopping() {
    let (server, mut wire) = with(Rule::on("GetObject").then(Action::stall(Place::Response)), b"");
    wire.head("GET /bucket/key", "", 0);
    eventually("the rule fires", || fired(&server) == 1);
    server.stop();
    assert_eq!(rest(&mut wire).0, b"");
}

#[test]
fn delays_take_their_time() {
    for action in [
        Action::delay(Duration::from_millis(80)),
        Action::Stall { at: Place::ResponseBody(0), time: Some(Duration::from_millis(80)) },
    ] {
        let (_server, mut wire) = with(Rule::on("GetObject").then(action), b"body");
        let began = Instant::now();
        assert_eq!(wire.ask("GET /bucket/key", "", b"").ok().body, b"body");
        assert!(began.elapsed() >= Duration::from_millis(80));
    }
}

#[test]
fn bits_flip_in_either_direction() {
    let body = content(0, 300_000);
    let flip = Rule::on("GetObject").then(Action::flip_response(200_000));
    let (server, mut wire) = with(flip, &body);
    let mut damaged = wire.ask("GET /bucket/key", "", b"").ok().body;
    assert_eq!(damaged[200_000], body[200_000] ^ 1);
    damaged[200_000] ^= 1;
    assert!(damaged == body);
    // Beyond the end there is nothing to flip.
    assert_eq!(wire.ask("GET /bucket/key", "range: bytes=0-9\r\n", b"").ok().body, &body[..10]);

    server.faults().set(Rule::on("PutObject").then(Action::flip_request(0))).unwrap();
    let answer = wire.ask("PUT /bucket/key", "x-amz-checksum-crc32: DUoRhQ==\r\n", b"hello world");
    assert_eq!((answer.status, answer.element("Code").as_deref()), (400, Some("BadDigest")));
    wire.ask("PUT /bucket/key", "", b"hello").ok();
    assert!(holds(&server, "key", b"iello"));
}

#[test]
fn ranges_go_wrong() {
    let body = content(0, 1000);
    let range = "range: bytes=100-199\r\n";
    let (server, mut wire) = with(Rule::on("GetObject").then(Action::Truncate(40)), &body);
    let short = wire.ask("GET /bucket/key", range, b"");
    assert_eq!((short.status, short.header("content-range")), (206, Some("bytes 100-199/1000")));
    assert_eq!(short.body, &body[100..140]);
    // Nothing is left of it on the connection.
    server
        .faults()
        .set(Rule::on("GetObject").then(Action::remove_request_header("range")))
        .unwrap();
    let whole = wire.ask("GET /bucket/key", range, b"");
    assert_eq!((whole.status, whole.header("content-range")), (200, None));
    assert!(whole.body == body);
    let wrong = Action::set_header("Content-Range", "bytes 0-99/1000");
    server.faults().set(Rule::on("GetObject").then(wrong)).unwrap();
    let wrong = wire.ask("GET /bucket/key", range, b"");
    assert_eq!((wrong.status, wrong.header("content-range")), (206, Some("bytes 0-99/1000")));
    assert_eq!(wrong.body, &body[100..200]);
}

#[test]
fn what_was_refused_may_be_applied_late() {
    let server = start();
    let mut wire = Wire::open(&server);
    let upload = create_upload(&mut wire, "key");
    let rule = |key| Rule::on("UploadPart").key(key).nth(1).then(Action::ApplyLate(None));
    server.faults().set(rule("key").then(Action::answer(503, "SlowDown"))).unwrap();
    let part = format!("PUT /bucket/key?partNumber=1&uploadId={upload}");
    assert_eq!(wire.ask(&part, "", b"late").status, 503);
    let second = wire.ask(&part, "", b"second").ok();
    // The late one takes the place of what was acknowledged.
    server.faults().release();
    let mut other = Wire::open(&server);
    let list = format!("GET /bucket/key?uploadId={upload}");
    let mut listed = || other.ask(&list, "", b"").ok().element("ETag").unwrap();
    let began = Instant::now();
    while listed() == second.header("etag").unwrap() {
        assert!(began.elapsed() < Duration::from_secs(10), "never applied");
    }
    // Without an answer, the connection ends.
    server.faults().set(rule("key")).unwrap();
    wire.head(&part, "", 4);
    wire.0.write_all(b"last").unwrap();
    assert_eq!(rest(&mut wire), (vec![], false));
    // It comes after the abort, and leaves nothing.
    other.ask(&format!("DELETE /bucket/key?uploadId={upload}"), "", b"").ok();
    server.faults().release();
    assert_eq!(server.stats().unfinished_uploads, 0);
}

#[test]
fn parts_get_other_etags_or_none() {
    let server = start();
    let mut wire = Wire::open(&server);
    let upload = create_upload(&mut wire, "key");
    let other = Action::set_header("ETag", "\"0123\"");
    server.faults().set(Rule::on("UploadPart").nth(1).then(other)).unwrap();
    let wrong = put_part(&mut wire, "key", &upload, 1, b"part");
    let refused = complete(&mut wire, "key", &upload, &wrong);
    assert_eq!(refused.element("Code").as_deref(), Some("InvalidPart"));
    let none = Action::RemoveHeaders(vec!["ETag".into(), "x-amz-checksum-*".into()]);
    server.faults().set(Rule::on("UploadPart").nth(1).then(none)).unwrap();
    let line = format!("PUT /bucket/key?partNumber=1&uploadId={upload}");
    let bare = wire.ask(&line, "x-amz-checksum-crc32: DUoRhQ==\r\n", b"hello world").ok();
    assert!(
        bare.header("etag").is_none() && !bare.head.contains("x-amz-checksum"),
        "{}",
        bare.head
    );
    let checksum = Action::set_element("ChecksumCRC32", "AAAAAA==");
    server.faults().set(Rule::on("ListParts").nth(1).then(checksum)).unwrap();
    let list = format!("GET /bucket/key?uploadId={upload}");
    let sums = |wire: &mut Wire| wire.ask(&list, "", b"").ok().element("ChecksumCRC32");
    assert_eq!(sums(&mut wire).as_deref(), Some("AAAAAA=="));
    assert_eq!(sums(&mut wire).as_deref(), Some("DUoRhQ=="));
}

#[test]
fn success_with_an_error_inside() {
    let server = start();
    let mut wire = Wire::open(&server);
    let upload = create_upload(&mut wire, "key");
    let part = put_part(&mut wire, "key", &upload, 1, b"part");
    let on = || Rule::on("CompleteMultipartUpload").nth(1);
    let short = Duration::from_millis(30);
    let trickle = || Action::Trickle { time: short, every: Duration::from_millis(5) };

    server.faults().set(on().then(Action::answer(200, "InternalError"))).unwrap();
    let answer = complete(&mut wire, "key", &upload, &part).ok();
    assert_eq!(answer.element("Code").as_deref(), Some("InternalError"));
    server.faults().set(on().then(Answer::with_body(200, ""))).unwrap();
    assert_eq!(complete(&mut wire, "key", &upload, &part).ok().body, b"");

    server.faults().set(on().then(trickle()).then(Action::answer(200, "InternalError"))).unwrap();
    let answer = complete(&mut wire, "key", &upload, &part).ok();
    assert!(answer.text().starts_with("<?xml version=\"1.0\" encoding=\"UTF-8\"?> "));
    assert_eq!(answer.element("Code").as_deref(), Some("InternalError"));

    // An error of the store's own comes as a success that took its time, too.
    server.faults().set(on().then(trickle())).unwrap();
    let answer = complete(&mut wire, "key", &upload, "").ok();
    assert!(answer.text().contains("?> ") && answer.element("Code").is_some(), "{}", answer.text());

    server.faults().set(on().then(trickle()).then(Action::cut_response_body(45))).unwrap();
    let mut cut = Wire::open(&server);
    let list = format!("<CompleteMultipartUpload>{part}</CompleteMultipartUpload>");
    cut.head(&format!("POST /bucket/key?uploadId={upload}"), "", list.len());
    cut.0.write_all(list.as_bytes()).unwrap();
    let (all, _) = rest(&mut cut);
    assert!(!String::from_utf8(all).unwrap().contains("<CompleteMultipart"));
    // It is carried out all the same, and a repeat learns of it.
    eventually("completed", || server.stats().unfinished_uploads == 0);
    server.faults().set(on().then(trickle())).unwrap();
    let answer = complete(&mut wire, "key", &upload, &part).ok();
    assert!(answer.text().contains("?> ") && answer.element("ETag").is_some(), "{}", answer.text());
    assert!(holds(&server, "key", b"part"));
}

#[test]
fn checksums_are_shown_where_they_should_not_be() {
    let server = start();
    let mut wire = Wire::open(&server);
    let headers = "x-amz-checksum-algorithm: CRC32\r\n";
    let created = wire.ask("POST /bucket/key?uploads", headers, b"").ok();
    let upload = created.element("UploadId").unwrap();
    let parts = [content(0, 5 * MIB), content(5 << 20, 100)];
    let list = [1, 2].map(|number: u32| {
        let body = &parts[number as usize - 1];
        let part = put_part(&mut wire, "key", &upload, number, body);
        let sum = STANDARD.encode(crc32fast::hash(body).to_be_bytes());
        part.replace("</Part>", &format!("<ChecksumCRC32>{sum}</ChecksumCRC32></Part>"))
    });
    complete(&mut wire, "key", &upload, &list.concat()).ok();
    let mode = "x-amz-checksum-mode: ENABLED\r\n";
    let head = wire.ask("HEAD /bucket/key", mode, b"").ok();
    let sum = head.header("x-amz-checksum-crc32").unwrap().to_owned();
    assert!(sum.ends_with("-2"), "{sum}");
    let ranged = format!("range: bytes=7-9\r\n{mode}");
    assert!(
        wire.ask("GET /bucket/key", &ranged, b"").ok().header("x-amz-checksum-crc32").is_none()
    );

    server.faults().set(Rule::on("GetObject").then(Action::WholeChecksum)).unwrap();
    let answer = wire.ask("GET /bucket/key", &ranged, b"").ok();
    assert_eq!((answer.status, answer.header("x-amz-checksum-crc32")), (206, Some(sum.as_str())));
    let strip = Rule::on("*").then(Action::WholeChecksum).then(Action::StripChecksumSuffix);
    server.faults().set(strip).unwrap();
    let bare = sum.strip_suffix("-2").unwrap();
    let answer = wire.ask("GET /bucket/key", &ranged, b"").ok();
    assert_eq!(answer.header("x-amz-checksum-crc32"), Some(bare));
    assert_eq!(answer.body, &parts[0][7..10]);
    let head = wire.ask("HEAD /bucket/key", mode, b"").ok();
    assert_eq!(head.header("x-amz-checksum-crc32"), Some(bare));

    let wanted = "x-amz-object-attributes: Checksum,ObjectParts\r\n";
    let ask = |wire: &mut Wire| wire.ask("GET /bucket/key?attributes", wanted, b"").ok().text();
    assert!(ask(&mut wire).contains("<ObjectParts>"));
    server.faults().set(Rule::on("*").then(Action::remove_element("ObjectParts"))).unwrap();
    let text = ask(&mut wire);
    assert!(!text.contains("ObjectParts") && text.contains("<ChecksumCRC32>"), "{text}");
}

#[test]
fn pages_go_on_for_ever() {
    let server = start();
    let mut wire = Wire::open(&server);
    let upload = create_upload(&mut wire, "key");
    for number in 1..=3 {
        put_part(&mut wire, "key", &upload, number, b"part");
        wire.ask(&format!("PUT /bucket/k{number}"), "", b"").ok();
    }
    let line = format!("GET /bucket/key?uploadId={upload}");
    let small = || Rule::on("ListParts").then(Action::set_query("max-parts", "2"));
    server.faults().set(small()).unwrap();
    let page = wire.ask(&line, "", b"").ok();
    assert_eq!(page.text().matches("<Part>").count(), 2);
    assert_eq!(page.element("IsTruncated").as_deref(), Some("true"));
    server.faults().set(small().then(Action::remove_element("NextPartNumberMarker"))).unwrap();
    let page = wire.ask(&line, "", b"").ok();
    assert_eq!(page.element("IsTruncated").as_deref(), Some("true"));
    assert_eq!(page.element("NextPartNumberMarker"), None);

    let again = Action::SetElements(vec![
        ("IsTruncated".into(), "true".into()),
        ("NextContinuationToken".into(), "again".into()),
    ]);
    let ignored = Action::RemoveQuery(vec!["continuation-token".into()]);
    server.faults().set(Rule::on("ListObjectsV2").then(ignored).then(again)).unwrap();
    for line in ["GET /bucket?list-type=2", "GET /bucket?list-type=2&continuation-token=again"] {
        let page = wire.ask(line, "", b"").ok();
        assert_eq!(page.text().matches("<Contents>").count(), 3);
        assert_eq!(page.element("NextContinuationToken").as_deref(), Some("again"));
    }
    server
        .faults()
        .set(Rule::on("*").then(Action::ReverseElements(vec!["Contents".into()])))
        .unwrap();
    let page = wire.ask("GET /bucket?list-type=2", "", b"").ok();
    assert_eq!(page.element("Key").as_deref(), Some("k3"));
    let uploads = Rule::on("ListMultipartUploads").then(Action::set_query("max-uploads", "0"));
    server.faults().set(uploads).unwrap();
    assert!(!wire.ask("GET /bucket?uploads", "", b"").ok().text().contains("<Upload>"));
}

#[test]
fn the_clock_is_off() {
    let rules = Rule::on("*").then(Action::ShiftClock(-3600));
    let (server, mut wire) = with(rules, b"body");
    let right = wire::start(Backend::Memory);
    let now = Wire::open(&right).ask("HEAD /bucket", "", b"").header("date").unwrap().to_owned();
    let answer = wire.ask("GET /bucket/key", "", b"").ok();
    assert_eq!(answer.body, b"body");
    assert_ne!(answer.header("date").unwrap(), now);
    let signed = "x-amz-date: 20200101T000000Z\r\n";
    let answer = wire.ask("PUT /bucket/key", signed, b"new");
    assert_eq!(answer.status, 403);
    assert_eq!(answer.element("Code").as_deref(), Some("RequestTimeTooSkewed"));
    assert_eq!(answer.element("RequestTime").as_deref(), Some("20200101T000000Z"));
    assert!(holds(&server, "key", b"body"));
}

#[test]
fn conditions_and_checksums_are_not_understood() {
    let ignore = Rule::on("*").header("if-*").then(Action::remove_request_header("if-*"));
    let (server, mut wire) = with(ignore, b"old");
    wire.ask("PUT /bucket/key", "if-none-match: *\r\n", b"new").ok();
    wire.ask("GET /bucket/key", "if-match: \"other\"\r\n", b"").ok();
    let conflict = Action::answer(409, "ConditionalRequestConflict");
    server.faults().set(Rule::on("*").header("If-None-Match").then(conflict)).unwrap();
    let answer = wire.ask("PUT /bucket/key", "if-none-match: *\r\n", b"newer");
    assert_eq!(answer.element("Code").as_deref(), Some("ConditionalRequestConflict"));
    let unknown =
        Rule::on("*").header("x-amz-checksum-*").then(Action::answer(501, "NotImplemented"));
    server.faults().set(unknown).unwrap();
    let answer = wire.ask("PUT /bucket/key", "x-amz-checksum-crc32: DUoRhQ==\r\n", b"hello world");
    assert_eq!(answer.status, 501);
    wire.ask("PUT /bucket/key", "", b"newest").ok();
    assert!(holds(&server, "key", b"newest"));
}

#[test]
fn signatures_are_checked_as_ever() {
    let server = Server::start(Options {
        credentials: vec![Credentials::new(KEYS.0, KEYS.1)],
        buckets: vec!["bucket".into()],
        ..Options::default()
    })
    .unwrap();
    let mut wire = Wire::open(&server);
    let mut put = |secret: &str, body: &[u8]| {
        let (line, hash) = ("PUT /bucket/key", hex(&Sha256::digest(b"body")));
        let headers = signed(secret, line, &hash, &[("if-none-match", "*")]);
        let answer = wire.ask(line, &headers, body);
        (answer.status, answer.element("Code"))
    };
    assert_eq!(put(KEYS.1, b"body").0, 200);
    assert_eq!(put(KEYS.1, b"body").0, 412);
    // The edited request no longer fits its signature, and is let through all the same ...
    let ignore = || Rule::on("PutObject").then(Action::remove_request_header("if-none-match"));
    server.faults().set(ignore()).unwrap();
    assert_eq!(put(KEYS.1, b"body").0, 200);
    // ... but nobody and nothing else is.
    assert_eq!(put("guess", b"body"), (403, Some("SignatureDoesNotMatch".into())));
    assert_eq!(put(KEYS.1, b"evil").0 / 100, 4);

    // Checksums in trailers arrive behind the edit.
    let line = "PUT /bucket/chunked";
    let more = [
        ("content-encoding", "aws-chunked"),
        ("if-none-match", "*"),
        ("x-amz-decoded-content-length", "6"),
        ("x-amz-trailer", "x-amz-checksum-crc32c"),
    ];
    let mut other = Wire::open(&server);
    let mut chunked = |sum: &str| {
        let headers = signed(KEYS.1, line, "STREAMING-UNSIGNED-PAYLOAD-TRAILER", &more);
        let body = format!("6\r\nhello!\r\n0\r\nx-amz-checksum-crc32c:{sum}\r\n\r\n");
        let answer = other.ask(line, &headers, body.as_bytes());
        (answer.status, answer.element("Code"))
    };
    assert_eq!(chunked("AAAAAA=="), (400, Some("BadDigest".into())));
    assert_eq!(chunked("jAn9Ww=="), (200, None));

    // Credentials that expire do so for one key only.
    let expired = Action::answer(400, "ExpiredToken");
    server.faults().set(Rule::on("*").access_key(KEYS.0).times(1).then(expired.clone())).unwrap();
    assert_eq!(put(KEYS.1, b"body"), (400, Some("ExpiredToken".into())));
    assert_eq!(put(KEYS.1, b"body").0, 412);
    server.faults().set(Rule::on("*").access_key("you").then(expired)).unwrap();
    assert_eq!(put(KEYS.1, b"body").0, 412);
}

#[test]
fn tls_ends_in_the_same_ways() {
    let (body, crypto) = (content(0, MIB), rustls::crypto::aws_lc_rs::default_provider());
    let server =
        Server::start(Options { tls: true, buckets: vec!["bucket".into()], ..Options::default() })
            .unwrap();
    let mut trusted = rustls::RootCertStore::empty();
    let pem = server.ca_pem().unwrap().as_bytes();
    trusted.add(rustls::pki_types::CertificateDer::from_pem_slice(pem).unwrap()).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(crypto.into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(trusted)
        .with_no_client_auth();
    let config = std::sync::Arc::new(config);
    let open = || {
        let name = "localhost".try_into().unwrap();
        let connection = rustls::ClientConnection::new(config.clone(), name).unwrap();
        rustls::StreamOwned::new(connection, Wire::open(&server).0)
    };
    let head = |line: &str, length: usize| {
        format!("{line} /bucket/key HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n")
    };
    let mut put = open();
    put.write_all(head("PUT", MIB).as_bytes()).unwrap();
    put.write_all(&body).unwrap();
    put.read_exact(&mut [0; 12]).unwrap();
    server.faults().set(Rule::on("GetObject").then(Action::cut_response_body(600_000))).unwrap();
    let mut get = open();
    get.write_all(head("GET", 0).as_bytes()).unwrap();
    let mut all = Vec::new();
    get.read_to_end(&mut all).unwrap();
    let answered = all.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    assert!(all[answered..] == body[..600_000]);
    let reset = Action::Cut { at: Place::Response, reset: true };
    server.faults().set(Rule::on("GetObject").then(reset)).unwrap();
    let mut get = open();
    get.write_all(head("GET", 0).as_bytes()).unwrap();
    let error = get.read_to_end(&mut Vec::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn whatever_else_is_done_in_code() {
    let reverse = Action::edit(|head, text| {
        *text = text.replace("first", "second");
        head.headers.insert("x-was-here", http::HeaderValue::from_static("yes"));
    });
    let (_server, mut wire) = with(Rule::on("GetObject").then(reverse), b"first");
    let answer = wire.ask("GET /bucket/key", "", b"").ok();
    assert_eq!((answer.text().as_str(), answer.header("x-was-here")), ("second", Some("yes")));
}

#[test]
fn faults_that_make_no_sense_are_refused() {
    let server = start();
    let said = server.faults().set(Rule::on("Put").then(Action::SetStatus(200))).unwrap_err();
    assert!(said.to_string().starts_with("rule 1: no operation \"Put\""), "{said}");
    let options = Options { faults: Some(Rule::on("*").into()), ..Options::default() };
    let said = Server::start(options).unwrap_err().to_string();
    assert!(said.contains("rule 1: it does nothing"), "{said}");
}
