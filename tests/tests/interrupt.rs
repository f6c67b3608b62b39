//! Signals: a transfer stops soon, cleans up, and says so with its exit code.

use std::time::{Duration, Instant};

use brigade_tests::cli::{PART, Running, Sandbox, eventually};
use brigade_tests::files;
use brigade_tests::relay::{Fate, Relay};
use rustix::process::Signal;

/// What a person at the keyboard waits at most.
const SOON: Duration = Duration::from_secs(2);

/// Slow enough that nothing here is ever done.
const CRAWL: u64 = 6 << 20;

const SIGNALS: [(Signal, i32); 2] = [(Signal::INT, 130), (Signal::TERM, 143)];

fn uploading(sandbox: &Sandbox, relay: &Relay) -> Running {
    let line = "f s3://bucket/f --part-size 5MiB --concurrency 2";
    let running = sandbox.cp(line).endpoint(relay.url()).start();
    eventually("parts are on their way", Duration::from_secs(10), || {
        sandbox.store().stats().count("UploadPart") > 1
    });
    running
}

fn downloading(sandbox: &Sandbox, relay: &Relay) -> Running {
    let running = sandbox.cp("s3://bucket/f copy --concurrency 2").endpoint(relay.url()).start();
    eventually("ranges are on their way", Duration::from_secs(10), || relay.count("GetObject") > 1);
    eventually("there is a partial file", Duration::from_secs(10), || {
        !files::leftovers(&sandbox.folder()).is_empty()
    });
    running
}

#[test]
fn a_transfer_stops_soon_and_says_how_to_go_on() {
    for (signal, code) in SIGNALS {
        let sandbox = Sandbox::new();
        let file = sandbox.file("f", 20 * PART);
        let relay = Relay::slow(sandbox.store(), CRAWL);
        let running = uploading(&sandbox, &relay);
        eventually("a part was sent", Duration::from_secs(20), || sandbox.recorded_parts() > 0);
        let asked = Instant::now();
        running.signal(signal);
        let run = running.wait();
        assert!(asked.elapsed() < SOON, "{:?}: {run}", asked.elapsed());
        assert_eq!(
            run.stderr.lines().next(),
            Some("brigade: stopping; a second signal ends it at once")
        );
        let said = run.failed_in_the_end(code);
        assert!(said.starts_with("upload to s3://bucket/f: stopped as asked; "), "{said}");
        let again = " of 100.0 MiB are kept, and running it again goes on from there: \
                     brigade cp f s3://bucket/f --part-size 5MiB --concurrency 2";
        assert!(said.ends_with(again), "{said}");
        assert_eq!(relay.count("AbortMultipartUpload"), 0);
        relay.hurry();
        let line = "f s3://bucket/f --part-size 5MiB --json";
        let report = sandbox.cp(line).endpoint(relay.url()).run().report();
        assert!(report["resumed_bytes"].as_u64() >= Some(PART), "{report}");

        let relay = Relay::slow(sandbox.store(), CRAWL);
        let running = downloading(&sandbox, &relay);
        eventually("a range was written", Duration::from_secs(20), || sandbox.recorded_parts() > 0);
        let asked = Instant::now();
        running.signal(signal);
        let run = running.wait();
        assert!(asked.elapsed() < SOON, "{:?}: {run}", asked.elapsed());
        let said = run.failed_in_the_end(code);
        assert!(said.starts_with("download s3://bucket/f: stopped as asked; "), "{said}");
        assert!(
            said.ends_with("goes on from there: brigade cp s3://bucket/f copy --concurrency 2"),
            "{said}"
        );
        assert!(!sandbox.path("copy").exists());
        relay.hurry();
        let line = "s3://bucket/f copy --json";
        let report = sandbox.cp(line).endpoint(relay.url()).run().report();
        assert!(report["resumed_bytes"].as_u64() >= Some(PART), "{report}");
        files::assert_same(&file, &sandbox.path("copy"));
        sandbox.assert_clean();
    }
}

#[test]
fn an_upload_that_cannot_be_recorded_leaves_nothing_in_the_store() {
    for (signal, code) in SIGNALS {
        let sandbox = Sandbox::new();
        sandbox.file("f", 20 * PART);
        sandbox.file("no-folder", 1);
        let relay = Relay::slow(sandbox.store(), CRAWL);
        let line = "f s3://bucket/f --part-size 5MiB --manifest-dir no-folder";
        let running = sandbox.cp(line).endpoint(relay.url()).start();
        eventually("parts are on their way", Duration::from_secs(10), || {
            sandbox.store().stats().count("UploadPart") > 2
        });
        let asked = Instant::now();
        running.signal(signal);
        let run = running.wait();
        assert!(asked.elapsed() < SOON, "{:?}: {run}", asked.elapsed());
        assert!(run.stderr.contains("this transfer cannot be resumed: "), "{run}");
        assert_eq!(run.failed_in_the_end(code), "upload to s3://bucket/f: stopped as asked");
        assert_eq!(relay.count("AbortMultipartUpload"), 1);
        sandbox.assert_clean();
    }
}

#[test]
fn a_pause_between_attempts_does_not_hold_it_up() {
    let sandbox = Sandbox::new();
    sandbox.file("f", 2 * PART);
    let relay = Relay::new(sandbox.store(), |request| match request.operation() {
        "UploadPart" => Fate::error(503, "SlowDown"),
        _ => Fate::Pass,
    });
    let line = "f s3://bucket/f --part-size 5MiB --retries 1000";
    let running = sandbox.cp(line).endpoint(relay.url()).start();
    eventually("it was refused often enough to pause", Duration::from_secs(30), || {
        relay.count("UploadPart") > 8
    });
    let asked = Instant::now();
    running.signal(Signal::INT);
    let run = running.wait();
    assert!(asked.elapsed() < SOON, "{run}");
    run.failed_in_the_end(130);
    sandbox.assert_clean();
}

#[test]
fn a_second_signal_leaves_at_once() {
    let sandbox = Sandbox::new();
    sandbox.file("f", 20 * PART);
    // A store that takes the parts and never lets itself be tidied up.
    let relay = Relay::new(sandbox.store(), |request| match request.operation() {
        "UploadPart" | "AbortMultipartUpload" => Fate::Hang,
        _ => Fate::Pass,
    });
    let line = "f s3://bucket/f --part-size 5MiB";
    let running = sandbox.cp(line).endpoint(relay.url()).start();
    eventually("parts are on their way", SOON, || relay.count("UploadPart") > 2);
    running.signal(Signal::INT);
    eventually("it says what a second one does", SOON, || {
        running.stderr_so_far().contains("a second signal ends it at once")
    });
    let asked = Instant::now();
    running.signal(Signal::TERM);
    let run = running.wait();
    assert!(asked.elapsed() < Duration::from_millis(500), "{run}");
    let said = run.failed_in_the_end(130);
    let kept = "left on a second signal; what is recorded of it is kept, and running it again goes on from \
                there: brigade cp f s3://bucket/f --part-size 5MiB";
    assert_eq!(said, kept);
}

#[test]
fn a_clean_up_that_takes_too_long_says_what_may_be_left() {
    let sandbox = Sandbox::new();
    sandbox.file("f", 20 * PART);
    sandbox.file("no-folder", 1);
    let relay = Relay::new(sandbox.store(), |request| match request.operation() {
        "UploadPart" | "AbortMultipartUpload" => Fate::Hang,
        _ => Fate::Pass,
    });
    let line = "f s3://bucket/f --part-size 5MiB --manifest-dir no-folder";
    let running = sandbox.cp(line).endpoint(relay.url()).start();
    eventually("parts are on their way", SOON, || relay.count("UploadPart") > 2);
    let asked = Instant::now();
    running.signal(Signal::INT);
    let run = running.wait();
    assert!(asked.elapsed() < SOON, "{:?}: {run}", asked.elapsed());
    let said = run.failed_in_the_end(130);
    let left = "left after 1.5 s of cleaning up; nothing of it is recorded, and an unfinished upload may \
                remain on the store: see brigade uploads list s3://bucket";
    assert_eq!(said, left);
}

#[test]
fn json_ends_with_an_error_of_its_own_kind() {
    let sandbox = Sandbox::new();
    sandbox.file("f", 20 * PART);
    let relay = Relay::slow(sandbox.store(), CRAWL);
    let line = "f s3://bucket/f --part-size 5MiB --json";
    let running = sandbox.cp(line).endpoint(relay.url()).start();
    running.wait_for_stdout("part_started");
    running.signal(Signal::TERM);
    let run = running.wait();
    let last = run.json().pop().expect("a line");
    assert_eq!((&last["event"], &last["kind"]), (&"error".into(), &"interrupted".into()));
    assert_eq!((&last["exit_code"], run.code()), (&143.into(), 143));
    sandbox.assert_clean();
}

#[test]
fn a_stop_before_the_first_answer_is_a_stop() {
    let sandbox = Sandbox::new();
    sandbox.file("f", 2 * PART);
    let relay = Relay::new(sandbox.store(), |_| Fate::Hang);
    for line in ["f s3://bucket/f", "s3://bucket/f copy"] {
        let before = relay.seen().len();
        let running = sandbox.cp(line).endpoint(relay.url()).start();
        eventually("it asks", SOON, || relay.seen().len() > before);
        let asked = Instant::now();
        running.signal(Signal::INT);
        let run = running.wait();
        assert!(asked.elapsed() < SOON, "{:?}: {run}", asked.elapsed());
        run.failed_in_the_end(130);
    }
    sandbox.assert_clean();
}
