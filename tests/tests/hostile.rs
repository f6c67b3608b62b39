//! Stores that answer what no store should, and what comes of it: never a success that is none, never
//! memory or patience without end, never a secret told.
//!
//! The store is a few lines that say what the test wants said, down to the byte: a real one, even
//! behind a relay, is too well-behaved.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use brigade::integrity::Algorithm;
use brigade::limits::{MIB, StoreProfile};
use brigade::{
    ChecksumChoice, Credentials, CustomerKey, DownloadOptions, Encryption, Error, ErrorKind,
    Object, RetryOptions, Session, SessionOptions, UploadOptions,
};
use brigade_tests::cli::Sandbox;
use brigade_tests::files;
use futures::executor::block_on;

/// A request that came by, its body read and forgotten.
#[derive(Debug, Clone)]
struct Request {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
}

impl Request {
    fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    fn is_complete(&self) -> bool {
        self.method == "POST" && self.target.contains("uploadId=")
    }
}

/// A store that answers as it is told. Its threads end with the test's process.
struct Fake {
    url: String,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Fake {
    /// With what it answers to each request: whole answers, as they go over the wire.
    fn new(answer: impl Fn(&Request) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::writing(Duration::ZERO, move |request, stream| stream.write_all(&answer(request)))
    }

    /// With what it does to the connection, and a pause after each 64 KiB of a body.
    fn writing(
        pause: Duration,
        act: impl Fn(&Request, &mut TcpStream) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let (seen, act) = (Arc::<Mutex<Vec<_>>>::default(), Arc::new(act));
        let noted = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (seen, act) = (Arc::clone(&noted), Arc::clone(&act));
                std::thread::spawn(move || serve(stream, pause, &seen, &*act));
            }
        });
        Self { url, seen }
    }

    fn seen(&self) -> Vec<Request> {
        self.seen.lock().expect("no panic").clone()
    }

    /// How a session with it is set up: small limits and short pauses, nothing from outside.
    fn options(&self) -> SessionOptions {
        SessionOptions {
            endpoint_url: Some(self.url.clone()),
            region: Some("us-east-1".into()),
            credentials: Credentials::Static {
                access_key: "access".into(),
                secret_key: "secret".into(),
                session_token: None,
            },
            store_profile: Some(StoreProfile::generic()),
            retry: RetryOptions {
                max_attempts: 3,
                base_delay: Duration::from_millis(1),
                ..RetryOptions::default()
            },
            lanes: Some(1),
            ..SessionOptions::default()
        }
    }

    fn object(&self) -> Object {
        object(self.options())
    }
}

fn object(options: SessionOptions) -> Object {
    block_on(Session::new(options)).expect("a session").bucket("bucket").object("key")
}

fn serve(
    mut stream: TcpStream,
    pause: Duration,
    seen: &Mutex<Vec<Request>>,
    act: &dyn Fn(&Request, &mut TcpStream) -> io::Result<()>,
) -> io::Result<()> {
    let mut read = BufReader::new(stream.try_clone()?);
    loop {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if read.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if line.trim_end().is_empty() {
                break;
            }
            lines.push(line.trim_end().to_owned());
        }
        let mut words = lines[0].split(' ').map(str::to_owned);
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let pairs = lines[1..].iter().filter_map(|line| line.split_once(':'));
        let headers = pairs.map(|(name, value)| (name.into(), value.trim().into())).collect();
        let request = Request { method, target, headers };
        let mut left: u64 =
            request.header("content-length").map_or(0, |n| n.parse().expect("a size"));
        while left > 0 {
            let read = io::copy(&mut (&mut read).take(left.min(64 << 10)), &mut io::sink())?;
            if read == 0 {
                return Ok(());
            }
            left -= read;
            std::thread::sleep(pause);
        }
        seen.lock().expect("no panic").push(request.clone());
        act(&request, &mut stream)?;
    }
}

/// An answer; `headers` each end their line.
fn answer(status: &str, headers: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{headers}\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn ok(body: &str) -> Vec<u8> {
    answer("200 OK", "ETag: \"e\"\r\n", body)
}

/// The answer to a HEAD of an object of so many bytes.
fn head(size_bytes: u64, headers: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {size_bytes}\r\n{headers}\r\n").into_bytes()
}

fn error(status: &str, code: &str) -> Vec<u8> {
    answer(status, "", format!("<Error><Code>{code}</Code><Message>as told</Message></Error>"))
}

fn begun() -> Vec<u8> {
    ok("<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>")
}

/// A file of so many bytes in a folder that goes with it.
fn file(size_bytes: u64) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("f");
    files::make(&path, size_bytes, 7);
    (folder, path)
}

/// The failure of an upload of a few bytes.
fn failed_upload(object: &Object) -> Error {
    let (_folder, path) = file(10);
    block_on(object.upload_file(&path)).expect_err("no success")
}

#[test]
fn an_object_without_a_size_is_not_taken_for_empty() {
    let store = Fake::new(|_| b"HTTP/1.1 200 OK\r\nETag: \"e\"\r\n\r\n".to_vec());
    let folder = tempfile::tempdir().expect("a folder");
    let target = folder.path().join("copy");
    let error = block_on(store.object().download_file(&target)).expect_err("no success");
    assert_eq!(error.kind(), ErrorKind::Rejected);
    assert!(error.to_string().contains("does not tell the object's size"), "{error}");
    assert!(!target.exists());
}

#[test]
fn a_login_page_is_no_stored_object() {
    for etag in ["", "ETag: \r\n", "ETag: \"\"\r\n"] {
        let store = Fake::new(move |_| answer("200 OK", etag, "<html>log in</html>"));
        let error = failed_upload(&store.object());
        assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
        assert!(error.detail().contains("no ETag"), "{error}");
    }
}

/// Uploads two parts to a store that answers the first completion so. Afterwards the upload is gone
/// and the object there, as after a lost answer. How many completions were asked for.
fn completions(first: &'static str) -> usize {
    let token = Mutex::new(String::new());
    let asked = AtomicU64::new(0);
    let store = Fake::new(move |request| match request.method.as_str() {
        "POST" if !request.is_complete() => {
            let sent = request.header("x-amz-meta-brigade-token").unwrap_or_default();
            sent.clone_into(&mut token.lock().expect("no panic"));
            begun()
        }
        "POST" if asked.fetch_add(1, Ordering::SeqCst) == 0 => ok(first),
        "HEAD" => {
            let token = token.lock().expect("no panic");
            head(6 * MIB, &format!("ETag: \"e-2\"\r\nx-amz-meta-brigade-token: {token}\r\n"))
        }
        "POST" | "GET" => error("404 Not Found", "NoSuchUpload"),
        "DELETE" => answer("204 No Content", "", ""),
        _ => ok(""),
    });
    let (_folder, path) = file(6 * MIB);
    let options = UploadOptions { part_size_bytes: Some(5 * MIB), ..UploadOptions::default() };
    let uploaded = block_on(store.object().upload_file_with(&path, options));
    uploaded.unwrap_or_else(|error| panic!("{first:?}: {error}"));
    store.seen().iter().filter(|request| request.is_complete()).count()
}

#[test]
fn a_completion_is_believed_when_its_answer_is_whole() {
    let done = " \r\n <?xml version=\"1.0\"?>\n<CompleteMultipartUploadResult><ETag>\"e-2\"</ETag>\
                </CompleteMultipartUploadResult>\n";
    assert_eq!(completions(done), 1);
    for failed in [
        "",
        "  \n ",
        "<?xml version=\"1.0\"?><Error><Code>ServiceUnavailable</Code></Error>",
        "  \n <?xml version=\"1.0\"?>\n<Error><Code>InternalError</Code></Error>",
        "<Error></Error>",
        "<CompleteMultipartUploadResult><ETag>\"e",
        "<CompleteMultipartUploadResult><ETag>\"e-2\"</ETag>",
    ] {
        assert_eq!(completions(failed), 2, "{failed:?}");
    }
}

#[test]
fn an_object_in_the_place_of_its_attributes_is_not_read_to_its_end() {
    const SIZE: u64 = 10 * MIB;
    const MUCH: u64 = 256 * MIB;
    let sent = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&sent);
    let store = Fake::writing(Duration::ZERO, move |request, stream| {
        let etag = "ETag: \"0cc175b9c0f1b6a831c399e269772661-2\"\r\n";
        if request.method == "HEAD" {
            return stream.write_all(&head(SIZE, etag));
        }
        if request.target.contains("attributes") {
            let megabyte = vec![0; 1 << 20];
            stream.write_all(&head(MUCH, etag))?;
            while counted.load(Ordering::SeqCst) < MUCH {
                stream.write_all(&megabyte)?;
                counted.fetch_add(MIB, Ordering::SeqCst);
            }
            return Ok(());
        }
        let range = request.header("range").and_then(|range| range.strip_prefix("bytes="));
        let (first, last) = range.and_then(|range| range.split_once('-')).expect("a range");
        let [first, last] = [first, last].map(|place| place.parse::<usize>().expect("a number"));
        let headers = format!("Content-Range: bytes {first}-{last}/{SIZE}\r\n{etag}");
        stream.write_all(&answer("206 Partial Content", &headers, vec![0; last + 1 - first]))
    });
    let folder = tempfile::tempdir().expect("a folder");
    let target = folder.path().join("copy");
    block_on(store.object().download_file(&target)).expect("downloaded");
    assert_eq!(std::fs::metadata(&target).expect("there").len(), SIZE);
    let asked = store.seen().iter().filter(|request| request.target.contains("attributes")).count();
    assert_eq!(asked, 1);
    // What is not read stands in the sockets' buffers.
    assert!(sent.load(Ordering::SeqCst) < MUCH / 2, "{} bytes", sent.load(Ordering::SeqCst));
}

#[test]
fn a_customers_key_stays_off_plain_http_however_it_is_spelled() {
    let store = Fake::new(|_| ok(""));
    let mut options = store.options();
    options.endpoint_url = Some(store.url.replace("http://", "HTTP://"));
    let key = CustomerKey::parse(&[7; 32]).expect("a key");
    let encrypted =
        UploadOptions { encryption: Encryption::Customer(key), ..UploadOptions::default() };
    let (_folder, path) = file(10);
    block_on(object(options).upload_file_with(&path, encrypted)).expect_err("refused");
    assert!(store.seen().is_empty());
}

#[test]
fn an_error_repeats_nothing_of_the_answer() {
    let store = Fake::new(|_| {
        let body = "<Error><Code>SignatureDoesNotMatch</Code><Message>m</Message>\
                    <CanonicalRequest>x-amz-security-token:TOKEN</CanonicalRequest></Error>";
        answer("403 Forbidden", "", body)
    });
    let error = failed_upload(&store.object());
    assert!(error.detail().contains("secret key is wrong"), "{error}");
    // As text, and as the numbers that bytes are printed as.
    let printed = format!("{error:?}");
    assert!(!printed.contains("TOKEN") && !printed.contains("84, 79, 75"), "{printed}");
}

#[test]
fn a_store_that_never_answers_is_given_up() {
    let store = Fake::new(|_| Vec::new());
    let mut options = store.options();
    options.stall_timeout = Duration::from_millis(50);
    let begun = Instant::now();
    let error = block_on(object(options).info()).expect_err("no answer");
    assert_eq!((error.kind(), store.seen().len()), (ErrorKind::Unreachable, 3), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_signed_part_may_take_longer_than_a_stall() {
    // 640 ms in all, and never silent for 40.
    let store = Fake::writing(Duration::from_millis(40), |_, stream| stream.write_all(&ok("")));
    let mut options = store.options();
    options.stall_timeout = Duration::from_millis(400);
    let profile = StoreProfile { unsigned_payload: false, ..StoreProfile::generic() };
    options.store_profile = Some(profile);
    let (_folder, path) = file(MIB);
    let report = block_on(object(options).upload_file(&path)).expect("uploaded");
    assert_eq!(report.retries, 0);
    let signed = store.seen()[0].header("x-amz-content-sha256").map(str::len);
    assert_eq!(signed, Some(64));
}

#[test]
fn a_signed_body_is_the_one_that_was_hashed() {
    let sandbox = Sandbox::new();
    let (source, copy) = (sandbox.file("f", MIB), sandbox.path("copy"));
    let mut options = sandbox.session_options();
    let profile = StoreProfile { unsigned_payload: false, ..StoreProfile::generic() };
    options.store_profile = Some(profile);
    let object = object(options);
    block_on(object.upload_file(&source)).expect("the store checks the hash");
    block_on(object.download_file(&copy)).expect("downloaded");
    files::assert_same(&source, &copy);
}

#[test]
fn no_limit_is_too_long_and_an_empty_object_can_be_stored() {
    let store = Fake::new(|_| ok(""));
    for size in [0, 10] {
        let mut options = store.options();
        options.stall_timeout = Duration::MAX;
        let (_folder, path) = file(size);
        block_on(object(options).upload_file(&path)).expect("uploaded");
    }
}

#[test]
fn a_refused_checksum_says_how_to_do_without() {
    let store = Fake::new(|request| match request.header("x-amz-checksum-crc32") {
        Some(_) => error("501 Not Implemented", "NotImplemented"),
        None => ok(""),
    });
    // Asked for by name, so that it is not left out.
    let options = UploadOptions {
        checksum: ChecksumChoice::Use(Algorithm::Crc32),
        ..UploadOptions::default()
    };
    let (_folder, path) = file(10);
    let error = block_on(store.object().upload_file_with(&path, options)).expect_err("refused");
    let advice = error.advice().unwrap_or_default();
    assert!(advice.contains("--checksum-algorithm md5"), "{error}");
    assert!(advice.contains("checksums = \"none\""), "{error}");
}

#[test]
fn a_refusal_without_words_may_be_the_clocks_fault() {
    for (date, said) in [
        ("Date: Thu, 01 Jan 2015 00:00:00 GMT\r\n", "clock differs from the store's: it is"),
        ("", "access denied"),
    ] {
        let store = Fake::new(move |_| answer("403 Forbidden", date, ""));
        let error = block_on(store.object().info()).expect_err("refused");
        assert_eq!((error.kind(), store.seen().len()), (ErrorKind::AccessDenied, 1));
        assert!(error.detail().contains(said), "{error}");
    }
}

#[test]
fn only_what_looks_like_a_region_gets_into_advice() {
    for (region, advice) in [
        ("eu-west-1", "use --region eu-west-1 or AWS_REGION=eu-west-1"),
        ("$(reboot)", "find out with: aws s3api get-bucket-location"),
    ] {
        let header = format!("x-amz-bucket-region: {region}\r\n");
        let store = Fake::new(move |_| answer("301 Moved Permanently", &header, ""));
        let error = block_on(store.object().info()).expect_err("elsewhere");
        assert_eq!(error.advice(), Some(advice));
    }
}

#[test]
fn what_may_be_better_the_next_time_is_tried_again() {
    for (status, code) in [
        ("400 Bad Request", "IncompleteBody"),
        ("408 Request Timeout", "Odd"),
        ("400 Bad Request", "KMS.ThrottlingException"),
    ] {
        let failed = AtomicU64::new(0);
        let store = Fake::new(move |_| match failed.fetch_add(1, Ordering::SeqCst) {
            0 => error(status, code),
            _ => ok(""),
        });
        let (_folder, path) = file(10);
        let report = block_on(store.object().upload_file(&path)).expect(code);
        assert_eq!(report.retries, 1, "{code}");
    }
}

#[test]
fn a_weak_etag_is_compared_and_not_asked_for() {
    for (told, succeeds) in [("W/\"e\"", true), ("\"e\"", true), ("e", true), ("W/\"f\"", false)] {
        let store = Fake::new(move |request| {
            if request.method == "HEAD" {
                return head(5, "ETag: W/\"e\"\r\n");
            }
            let headers = format!("Content-Range: bytes 0-4/5\r\nETag: {told}\r\n");
            answer("206 Partial Content", &headers, "hello")
        });
        let options = DownloadOptions::default();
        let read = block_on(store.object().download_to(Vec::new(), "memory", options));
        assert_eq!(read.is_ok(), succeeds, "{told}");
        let asked = store.seen();
        assert!(asked.iter().all(|request| request.header("if-match").is_none()), "{asked:?}");
    }
}

#[test]
fn a_proxy_that_wants_credentials_is_not_asked_again_and_again() {
    let refusal = "407 Proxy Authentication Required";
    for (scheme, variable) in [("http", "HTTP_PROXY"), ("https", "HTTPS_PROXY")] {
        let proxy = Fake::new(move |_| answer(refusal, "", ""));
        let sandbox = Sandbox::new();
        sandbox.file("f", 10);
        let command = sandbox.cp("f s3://bucket/f").endpoint(format!("{scheme}://store.example"));
        // As curl does, the plain one is only read in small letters.
        let command = command.env(variable, &proxy.url).env(&variable.to_lowercase(), &proxy.url);
        let said = command.run().failed(5);
        assert!(said.contains("asks for credentials"), "{said}");
        // The look at the bucket, that tells the store's name, and the upload.
        assert!(proxy.seen().len() <= 2, "{:?}", proxy.seen());
    }
}

#[test]
fn variables_set_to_nothing_are_as_unset() {
    let sandbox = Sandbox::new();
    sandbox.file("f", 10);
    let store = sandbox.session_options().endpoint_url.expect("an endpoint");
    let copy = || sandbox.cp("f s3://bucket/f");
    copy().env("AWS_REGION", "").run().succeeded();
    copy().env("AWS_ENDPOINT_URL", "").run().succeeded();
    copy().env("AWS_ENDPOINT_URL_S3", "").env("AWS_ENDPOINT_URL", store).run().succeeded();
}

#[test]
fn a_store_of_ones_own_needs_no_instance_to_tell_a_region() {
    let sandbox = Sandbox::new();
    sandbox.file("f", 10);
    let identity = Fake::new(|_| answer("404 Not Found", "", ""));
    let command = sandbox.cp("f s3://bucket/f").without_env("AWS_REGION");
    let command = command.without_env("AWS_EC2_METADATA_DISABLED");
    command.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", &identity.url).run().succeeded();
    assert!(identity.seen().is_empty(), "{:?}", identity.seen());
}
