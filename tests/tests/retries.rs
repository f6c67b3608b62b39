//! What is repeated, how often and when, and what is put right before: throttling, outages, expired
//! credentials, buckets that are elsewhere, bytes that arrive damaged.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use brigade::{RetryOptions, Session, SessionOptions, UploadOptions};
use brigade_store::faults::{Action, Place, Rule};
use brigade_store::{Credentials, Options};
use brigade_tests::cli::{BUCKET, Brigade, PART, SECRET_KEY, Sandbox};
use brigade_tests::files::assert_same;
use brigade_tests::relay::{Fate, Relay, Request};
use futures::executor::block_on;

const KIB: u64 = 1 << 10;

fn is_of_a_part(request: &Request) -> bool {
    matches!(request.operation(), "UploadPart" | "GetObject" | "PutObject")
}

#[test]
fn two_hundred_parts_may_all_fail_once() {
    let small = 64 * KIB;
    let options = Options { min_part_size_bytes: small, ..Sandbox::options() };
    let sandbox = Sandbox::with(options);
    sandbox.file("f", 200 * small);
    let profile = format!("base = \"generic\"\nmin_part_size_bytes = {small}\n");
    std::fs::write(sandbox.path("small.toml"), profile).expect("written");
    let relay = Relay::new(sandbox.store(), |request| match request.attempt {
        1 if is_of_a_part(request) => Fate::error(503, "SlowDown"),
        _ => Fate::Pass,
    });
    let options = "--part-size 64KiB --store-profile small.toml --json";
    let up = sandbox.cp(&format!("f s3://bucket/f {options}")).endpoint(relay.url());
    let report = up.run().report();
    assert_eq!((&report["parts"], &report["retries"]), (&200.into(), &200.into()));
    let down = sandbox.cp(&format!("s3://bucket/f back {options}")).endpoint(relay.url());
    let report = down.run().report();
    assert_eq!((&report["parts"], &report["retries"]), (&200.into(), &200.into()));
    assert_same(&sandbox.path("f"), &sandbox.path("back"));
    sandbox.assert_clean();
}

#[test]
fn a_transfer_that_fails_more_than_it_may_ends() {
    let sandbox = Sandbox::new();
    let file = sandbox.file("f", 8 * PART);
    let relay = Relay::new(sandbox.store(), |request| match request.operation() {
        "UploadPart" if request.attempt <= 2 => Fate::error(500, "InternalError"),
        _ => Fate::Pass,
    });
    let upload = |max_repeats| {
        let retry = RetryOptions {
            max_repeats,
            base_delay: Duration::from_millis(1),
            ..RetryOptions::default()
        };
        let endpoint_url = Some(relay.url());
        let options = SessionOptions { endpoint_url, retry, ..sandbox.session_options() };
        let session = block_on(Session::new(options)).expect("a session");
        let in_parts = UploadOptions { part_size_bytes: Some(PART), ..UploadOptions::default() };
        block_on(session.bucket(BUCKET).object("f").upload_file_with(&file, in_parts))
    };
    let error = upload(Some(5)).expect_err("too many");
    let after = "gave up after 5 repeated attempts in this transfer: the store failed internally";
    assert!(error.detail().ends_with(after), "{error}");
    assert_eq!(error.kind().exit_code(), 8);
    sandbox.assert_clean();
    assert_eq!(upload(None).expect("100 and 24").retries, 16);
}

#[test]
fn a_store_is_left_alone_for_as_long_as_it_asks() {
    let sandbox = Sandbox::new();
    sandbox.file("f", 10);
    let relay = Relay::new(sandbox.store(), |request| match request.operation() {
        "PutObject" if request.attempt == 1 => {
            Fate::error_with(503, "SlowDown", "Retry-After: 2\r\n")
        }
        _ => Fate::Pass,
    });
    let run = sandbox.cp("f s3://bucket/f --json").endpoint(relay.url()).run().succeeded();
    let events = run.json();
    let waits = events.iter().filter_map(|event| event["wait_ms"].as_u64());
    let waits: Vec<_> = waits.collect();
    assert!(matches!(waits[..], [2_000..=2_200]), "{waits:?}");
    assert!(run.elapsed >= Duration::from_secs(2));
}

#[test]
fn an_outage_is_waited_out() {
    let sandbox = Sandbox::new();
    sandbox.file("f", 3 * PART);
    let begun = Instant::now();
    let relay = Relay::new(sandbox.store(), move |_| {
        if begun.elapsed() < Duration::from_secs(3) { Fate::Cut } else { Fate::Pass }
    });
    let line = "f s3://bucket/f --part-size 5MiB --retry-for 1min --json";
    let report = sandbox.cp(line).endpoint(relay.url()).run().report();
    // More than are allowed at a store that never answered.
    assert!(report["retries"].as_u64() > Some(2), "{report}");
    let nobody = sandbox.cp("f s3://bucket/f --retry-for 1s").endpoint("http://127.0.0.1:1").run();
    assert!(nobody.elapsed >= Duration::from_secs(1));
    let said = nobody.failed(8);
    assert!(said.contains(": gave up after 1 s of failures: connection refused"), "{said}");
}

#[test]
fn a_silent_connection_is_given_up_when_it_was_said() {
    let sandbox = Sandbox::new();
    sandbox.file("f", 10);
    sandbox.cp("f s3://bucket/f").run().succeeded();
    let relay = Relay::new(sandbox.store(), |request| match request.operation() {
        "GetObject" if request.attempt == 1 => Fate::Hang,
        _ => Fate::Pass,
    });
    let line = "s3://bucket/f back --stall-timeout 1s --json";
    let run = sandbox.cp(line).endpoint(relay.url()).run();
    assert!(run.elapsed < Duration::from_secs(10), "{run}");
    assert_eq!(run.report()["retries"], 1);
}

/// A store that reads no further is given up for the part, which goes once more.
#[test]
fn a_body_that_stands_still_goes_again() {
    let sandbox = Sandbox::new();
    sandbox.file("f", 2 * 3 * PART);
    let stall = Action::stall(Place::RequestBody(1 << 20));
    sandbox.store().faults().set(Rule::on("UploadPart").nth(1).then(stall)).expect("sound");
    let line = "f s3://bucket/f --part-size 15MiB --stall-timeout 1s --json";
    let run = sandbox.cp(line).run();
    assert!(run.elapsed < Duration::from_secs(30), "{run}");
    let report = run.report();
    assert!(report["retries"].as_u64() >= Some(1), "{report}");
    assert_eq!(report["verified"], "full-object", "{report}");
    assert_eq!(sandbox.store().faults().fired().rules, [1]);
    sandbox.store().faults().release();
    sandbox.assert_clean();
}

/// Putting parts together takes a store minutes, in which it says nothing.
#[test]
fn a_completion_may_be_silent_for_long() {
    let sandbox = Sandbox::new();
    let file = sandbox.file("f", 3 * PART);
    let stall_timeout = Duration::from_millis(200);
    let late = Action::delay(8 * stall_timeout);
    sandbox.store().faults().set(Rule::on("CompleteMultipartUpload").then(late)).expect("sound");
    block_on(async {
        let options = SessionOptions { stall_timeout, ..sandbox.session_options() };
        let session = Session::new(options).await.expect("a session");
        let options = UploadOptions { part_size_bytes: Some(PART), ..UploadOptions::default() };
        session.bucket(BUCKET).object("f").upload_file_with(&file, options).await.expect("stored");
    });
    assert_eq!(sandbox.store().faults().fired().rules, [1]);
    sandbox.assert_clean();
}

#[test]
fn times_that_make_no_sense_are_refused() {
    let sandbox = Sandbox::new();
    for (options, said) in [
        ("--retry-for 5", "write a number and its unit, such as 90s, 30min or 2h"),
        ("--retry-for 1ms", "it must be from 1s to 30days"),
        ("--stall-timeout 2h", "it must be from 1s to 1h"),
        ("--retry-for 2h --retries 3", "cannot be used with"),
    ] {
        let told = sandbox.cp(&format!("f s3://bucket/f {options}")).run().failed(2);
        assert!(told.contains(said), "{told}");
    }
}

const OLD_KEY: &str = "BRIGADETESTSOLD00000";
const NEW_KEY: &str = "BRIGADETESTSNEW00000";

/// A sandbox whose store knows both keys, without either in the environment of what it runs.
fn with_two_keys() -> Sandbox {
    let both = [OLD_KEY, NEW_KEY].map(|key| Credentials::new(key, SECRET_KEY));
    Sandbox::with(Options { credentials: both.into(), ..Sandbox::options() })
}

fn without_keys(command: Brigade) -> Brigade {
    command.without_env("AWS_ACCESS_KEY_ID").without_env("AWS_SECRET_ACCESS_KEY")
}

fn is_signed_with(request: &Request, key: &str) -> bool {
    request.header("authorization").is_some_and(|signature| signature.contains(key))
}

/// Refuses the old key from the third part on; `expire` is called once, before the first refusal.
fn expiring(
    sandbox: &Sandbox,
    code: &'static str,
    expire: impl Fn() + Send + Sync + 'static,
) -> Relay {
    let (parts, expired) = (AtomicUsize::new(0), AtomicBool::new(false));
    Relay::new(sandbox.store(), move |request| {
        if is_of_a_part(request) && parts.fetch_add(1, Ordering::SeqCst) == 2 {
            expire();
            expired.store(true, Ordering::SeqCst);
        }
        if expired.load(Ordering::SeqCst) && is_signed_with(request, OLD_KEY) {
            Fate::error(400, code)
        } else {
            Fate::Pass
        }
    })
}

#[test]
fn keys_that_are_rotated_in_their_file_are_found() {
    let sandbox = with_two_keys();
    sandbox.file("f", 6 * PART);
    let keys = sandbox.path("keys");
    let write = |path: &Path, key: &str| {
        let text =
            format!("[default]\naws_access_key_id = {key}\naws_secret_access_key = {SECRET_KEY}\n");
        std::fs::write(path, text).expect("written");
    };
    write(&keys, OLD_KEY);
    let rotated = keys.clone();
    let relay = expiring(&sandbox, "ExpiredToken", move || write(&rotated, NEW_KEY));
    let line = "f s3://bucket/f --part-size 5MiB --concurrency 2 --retries 0 --json";
    let command = without_keys(sandbox.cp(line)).env("AWS_SHARED_CREDENTIALS_FILE", &keys);
    let report = command.endpoint(relay.url()).run().report();
    assert!(report["retries"].as_u64() <= Some(2), "{report}");
    assert!(relay.seen().iter().any(|request| is_signed_with(request, NEW_KEY)));

    // The same down.
    write(&keys, OLD_KEY);
    let rotated = keys.clone();
    let relay = expiring(&sandbox, "ExpiredToken", move || write(&rotated, NEW_KEY));
    let line = "s3://bucket/f copy --part-size 5MiB --concurrency 2 --retries 0 --json";
    let command = without_keys(sandbox.cp(line)).env("AWS_SHARED_CREDENTIALS_FILE", &keys);
    let report = command.endpoint(relay.url()).run().report();
    assert!((1..=2).contains(&report["retries"].as_u64().expect("a number")), "{report}");
    assert!(relay.seen().iter().any(|request| is_signed_with(request, NEW_KEY)));
    assert_same(&sandbox.path("f"), &sandbox.path("copy"));
    sandbox.assert_clean();
}

#[test]
fn many_parts_that_are_refused_cause_one_look_for_new_credentials() {
    let sandbox = with_two_keys();
    sandbox.file("f", 24 * PART);
    // A program that gives the keys, and notes that it was asked.
    let give = sandbox.path("give");
    let write = |path: &Path, key: &str| {
        let json =
            format!(r#"{{"Version":1,"AccessKeyId":"{key}","SecretAccessKey":"{SECRET_KEY}"}}"#);
        std::fs::write(path, json).expect("written");
    };
    write(&give, OLD_KEY);
    let (asked, config) = (sandbox.path("asked"), sandbox.path("config"));
    let program = format!("sh -c \"echo x >> {}; cat {}\"", asked.display(), give.display());
    std::fs::write(&config, format!("[default]\ncredential_process = {program}\n"))
        .expect("written");
    let relay = expiring(&sandbox, "ExpiredToken", move || write(&give, NEW_KEY));
    let line = "f s3://bucket/f --part-size 5MiB --concurrency 16 --json";
    let command = without_keys(sandbox.cp(line)).env("AWS_CONFIG_FILE", &config);
    let report = command.endpoint(relay.url()).run().report();
    assert!(report["retries"].as_u64() >= Some(1), "{report}");
    let asked = std::fs::read_to_string(asked).expect("asked");
    assert_eq!(asked.lines().count(), 2);
    sandbox.assert_clean();
}

#[test]
fn a_source_that_fails_is_named() {
    let sandbox = with_two_keys();
    sandbox.file("f", 10);
    let json =
        format!(r#"{{"Version":1,"AccessKeyId":"{OLD_KEY}","SecretAccessKey":"{SECRET_KEY}"}}"#);
    let (give, config) = (sandbox.path("give"), sandbox.path("config"));
    std::fs::write(&give, json).expect("written");
    let program = format!("sh -c \"cat {0} && rm {0}\"", give.display());
    std::fs::write(&config, format!("[default]\ncredential_process = {program}\n"))
        .expect("written");
    let relay = Relay::new(sandbox.store(), |_| Fate::error(400, "ExpiredToken"));
    let command = without_keys(sandbox.cp("f s3://bucket/f --store-profile generic"));
    let command = command.env("AWS_CONFIG_FILE", &config).endpoint(relay.url());
    let said = command.run().failed(5);
    let start = "upload to s3://bucket/f: the temporary credentials have expired; looking for new \
                 ones failed: ";
    assert!(said.starts_with(start), "{said}");
    assert_eq!(relay.count("PutObject"), 1);
}

#[test]
fn credentials_that_stay_expired_are_told_once() {
    let sandbox = Sandbox::new();
    sandbox.file("f", 10);
    for (code, said) in [
        ("ExpiredToken", "the temporary credentials have expired; get new ones"),
        ("ExpiredTokenException", "the temporary credentials have expired; get new ones"),
        ("InvalidToken", "the session token is not valid; check AWS_SESSION_TOKEN"),
    ] {
        let relay = Relay::new(sandbox.store(), move |_| Fate::error(400, code));
        let command = sandbox.cp("f s3://bucket/f --store-profile generic");
        let command = command.env("AWS_SESSION_TOKEN", "a-token").endpoint(relay.url());
        let told = command.run().failed(5);
        assert!(told.contains(said) && !told.contains("a-token"), "{told}");
        assert_eq!(relay.count("PutObject"), 1);
    }
}

/// A relay before `home` that sends every request for the bucket to `place`.
fn sending(home: &Sandbox, headers: impl Fn(&Request) -> String + Send + Sync + 'static) -> Relay {
    sending_with(home, (307, "TemporaryRedirect"), headers)
}

fn sending_with(
    home: &Sandbox,
    (status, code): (u16, &'static str),
    headers: impl Fn(&Request) -> String + Send + Sync + 'static,
) -> Relay {
    Relay::new(home.store(), move |request| Fate::error_with(status, code, headers(request)))
}

#[test]
fn a_bucket_in_another_region_is_found_once_for_all_parts() {
    let region = Some("eu-test-1".to_owned());
    let sandbox = Sandbox::with(Options { region, ..Sandbox::options() });
    sandbox.file("f", 12 * PART);
    let relay = Relay::new(sandbox.store(), |_| Fate::Pass);
    let line = "f s3://bucket/f --part-size 5MiB --retries 0 --json";
    assert_eq!(sandbox.cp(line).endpoint(relay.url()).run().report()["retries"], 1);
    let line = "s3://bucket/f back --part-size 5MiB --retries 0 --json";
    assert_eq!(sandbox.cp(line).endpoint(relay.url()).run().report()["retries"], 1);
    assert_same(&sandbox.path("f"), &sandbox.path("back"));
    block_on(async {
        let session = Session::new(sandbox.session_options()).await.expect("a session");
        // A look is a request like any other.
        session.bucket(BUCKET).object("f").info().await.expect("found");
    });
}

#[test]
fn a_bucket_at_another_host_of_the_store_is_found() {
    let home = Sandbox::new();
    let region = Some("eu-test-1".to_owned());
    let other = Sandbox::with(Options { region, ..Sandbox::options() });
    home.file("f", 3 * PART);
    for refusal in [(307, "TemporaryRedirect"), (301, "PermanentRedirect")] {
        let there = other.store().endpoint_url();
        let relay = sending_with(&home, refusal, move |request| {
            format!("Location: {there}{}\r\nx-amz-bucket-region: eu-test-1\r\n", request.target)
        });
        let line = "f s3://bucket/f --part-size 5MiB --retries 0";
        home.cp(line).endpoint(relay.url()).run().succeeded_silently();
        assert_eq!(relay.seen().len(), 1, "{:?}", relay.seen());
        let line = "s3://bucket/f back --part-size 5MiB --retries 0";
        home.cp(line).endpoint(relay.url()).run().succeeded_silently();
        assert_eq!(relay.seen().len(), 2, "{:?}", relay.seen());
        assert_same(&home.path("f"), &home.path("back"));
        assert_eq!(home.store().stats().unfinished_uploads, 0);
        std::fs::remove_file(home.path("back")).expect("there");
    }
}

#[test]
fn redirects_in_a_circle_or_to_strangers_end() {
    let sandbox = Sandbox::new();
    sandbox.file("f", 10);
    // Two that send to each other. The second is only known once it is there.
    let second: Arc<std::sync::OnceLock<String>> = Arc::default();
    let known = Arc::clone(&second);
    let first =
        sending(&sandbox, move |_| format!("Location: {}/bucket\r\n", known.get().expect("set")));
    let back = first.url();
    let other = sending(&sandbox, move |_| format!("Location: {back}/bucket\r\n"));
    second.set(other.url()).expect("once");
    let line = "f s3://bucket/f --store-profile generic";
    let said = sandbox.cp(line).endpoint(first.url()).run().failed(2);
    assert!(said.contains("at another endpoint"), "{said}");
    assert_eq!(first.seen().len() + other.seen().len(), 4);
    for location in
        ["http://store.example/bucket/f", "ftp://127.0.0.1/", "http://127.0.0.1:x/", "/f"]
    {
        let relay = sending(&sandbox, move |_| format!("Location: {location}\r\n"));
        let said = sandbox.cp(line).endpoint(relay.url()).run().failed(2);
        assert!(said.contains("at another endpoint"), "{said}");
        assert_eq!(relay.seen().len(), 1, "{location}");
    }
}

#[test]
fn an_archived_object_is_not_asked_for_again() {
    let sandbox = Sandbox::new();
    sandbox.file("f", 10);
    sandbox.brigade(["cp", "f", "s3://bucket/it's a key"]).run().succeeded();
    let relay = Relay::new(sandbox.store(), |request| match request.operation() {
        "GetObject" => Fate::error(403, "InvalidObjectState"),
        _ => Fate::Pass,
    });
    let command = sandbox.brigade(["cp", "s3://bucket/it's a key", "back"]).endpoint(relay.url());
    let said = command.run().failed(1);
    let end = r#"download s3://bucket/it's a key: the object is archived; restore it first, with: aws s3api restore-object --bucket bucket --key 'it'\''s a key' --restore-request '{"Days":7}'"#;
    assert_eq!(said, end);
    assert_eq!(relay.count("GetObject"), 1);
    sandbox.assert_clean();
}

#[test]
fn parts_that_arrive_damaged_are_sent_again() {
    let sandbox = Sandbox::new();
    sandbox.file("f", 3 * PART);
    sandbox.file("small", 10);
    let damaging = |times: u32| {
        move |request: &Request| match request.operation() {
            "UploadPart" | "PutObject" if request.attempt <= times => Fate::error(400, "BadDigest"),
            _ => Fate::Pass,
        }
    };
    let relay = Relay::new(sandbox.store(), damaging(2));
    for (file, retries) in [("f", 6), ("small", 2)] {
        let line = format!("{file} s3://bucket/{file} --part-size 5MiB --json");
        assert_eq!(sandbox.cp(&line).endpoint(relay.url()).run().report()["retries"], retries);
        sandbox.cp(&format!("s3://bucket/{file} back")).run().succeeded();
        assert_same(&sandbox.path(file), &sandbox.path("back"));
    }
    let relay = Relay::new(sandbox.store(), damaging(u32::MAX));
    let line = "f s3://bucket/never --part-size 5MiB --concurrency 1";
    let said = sandbox.cp(line).endpoint(relay.url()).run().failed(7);
    assert!(said.contains("the store got other bytes than were sent"), "{said}");
    assert_eq!(relay.count("UploadPart"), 3);
    sandbox.assert_clean();
}

#[test]
fn a_wrong_clock_is_told_once() {
    let sandbox = Sandbox::new();
    sandbox.file("f", 10);
    let relay = Relay::new(sandbox.store(), |request| match request.operation() {
        "PutObject" => {
            Fate::error_with(403, "RequestTimeTooSkewed", "Date: Thu, 01 Jan 2015 00:00:00 GMT\r\n")
        }
        _ => Fate::Pass,
    });
    let said = sandbox.cp("f s3://bucket/f").endpoint(relay.url()).run().failed(5);
    assert!(said.contains("clock differs from the store's: it is"), "{said}");
    assert!(said.ends_with(" s ahead; set the clock"), "{said}");
    assert_eq!(relay.count("PutObject"), 1);
}
