//! What networks and stores do on a bad day, and that the bytes arrive all the same, or not at all.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use brigade_tests::cli::{BUCKET, PART, Sandbox, eventually};
use brigade_tests::files::assert_same;
use brigade_tests::relay::{Fate, Relay, Request};
use futures::executor::block_on;
use serde_json::Value;

/// A sandbox with a file of `size` in it, and the same bytes as the object `f`.
fn stored(size: u64) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.file("f", size);
    sandbox.cp("f s3://bucket/f --part-size 5MiB").run().succeeded();
    sandbox
}

fn up(sandbox: &Sandbox, relay: &Relay) -> Value {
    let line = "f s3://bucket/f --part-size 5MiB --verify require --json";
    let report = sandbox.cp(line).endpoint(relay.url()).run().report();
    sandbox.cp("s3://bucket/f back").run().succeeded();
    assert_same(&sandbox.path("f"), &sandbox.path("back"));
    sandbox.assert_clean();
    report
}

fn down(sandbox: &Sandbox, relay: &Relay) -> Value {
    let line = "s3://bucket/f copy --part-size 5MiB --verify require --json";
    let report = sandbox.cp(line).endpoint(relay.url()).run().report();
    assert_same(&sandbox.path("f"), &sandbox.path("copy"));
    sandbox.assert_clean();
    report
}

/// Cuts the first `count` connections that would carry bytes.
fn cutting(count: u32) -> impl Fn(&Request) -> Fate {
    let left = AtomicU32::new(count);
    move |request| {
        let moves = matches!(request.operation(), "UploadPart" | "PutObject" | "GetObject");
        let take = |left: u32| left.checked_sub(1);
        if moves && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok() {
            Fate::Cut
        } else {
            Fate::Pass
        }
    }
}

#[test]
fn connections_that_break_are_made_again() {
    let sandbox = Sandbox::new();
    sandbox.file("f", 6 * PART + 1);
    let relay = Relay::new(sandbox.store(), cutting(5));
    assert_eq!(up(&sandbox, &relay)["retries"], 5);
    let relay = Relay::new(sandbox.store(), cutting(5));
    assert_eq!(down(&sandbox, &relay)["retries"], 5);
}

#[test]
fn every_part_may_fail_once_with_slow_down() {
    let sandbox = Sandbox::new();
    sandbox.file("f", 12 * PART);
    let busy = |request: &Request| match request.operation() {
        "UploadPart" | "GetObject" if request.attempt == 1 => Fate::error(503, "SlowDown"),
        _ => Fate::Pass,
    };
    let relay = Relay::new(sandbox.store(), busy);
    assert_eq!(up(&sandbox, &relay)["retries"], 12);
    let relay = Relay::new(sandbox.store(), busy);
    let report = down(&sandbox, &relay);
    assert_eq!(report["retries"], report["parts"]);
}

#[test]
fn every_request_of_a_transfer_may_fail_once() {
    let sandbox = Sandbox::new();
    sandbox.file("f", 2 * PART);
    let failing = |request: &Request| match request.attempt {
        1 => Fate::error(500, "InternalError"),
        _ => Fate::Pass,
    };
    let relay = Relay::new(sandbox.store(), failing);
    assert!(up(&sandbox, &relay)["retries"].as_u64() >= Some(4));
    let relay = Relay::new(sandbox.store(), failing);
    assert!(down(&sandbox, &relay)["retries"].as_u64() >= Some(2));
}

#[test]
fn a_body_that_was_cut_goes_on_where_it_broke() {
    let sandbox = stored(4 * PART);
    let once = Mutex::new(HashSet::new());
    let cut = 1_234_567;
    let relay = Relay::new(sandbox.store(), move |request| match request.range_start() {
        Some(start) if start % PART == 0 && once.lock().expect("no panic").insert(start) => {
            Fate::CutReply(cut)
        }
        _ => Fate::Pass,
    });
    let report = down(&sandbox, &relay);
    assert_eq!((&report["parts"], &report["retries"]), (&4.into(), &4.into()));
    let mut starts: Vec<_> = relay.seen().iter().filter_map(Request::range_start).collect();
    starts.sort_unstable();
    let expected: Vec<_> = (0..4).flat_map(|part| [part * PART, part * PART + cut]).collect();
    assert_eq!(starts, expected);
}

#[test]
fn a_refusal_is_not_repeated() {
    let sandbox = stored(2 * PART);
    for (operation, line) in [
        ("UploadPart", "f s3://bucket/new --part-size 5MiB --concurrency 1"),
        ("GetObject", "s3://bucket/f copy --concurrency 1"),
    ] {
        let relay = Relay::new(sandbox.store(), move |request| {
            if request.operation() == operation {
                Fate::error(403, "AccessDenied")
            } else {
                Fate::Pass
            }
        });
        let said = sandbox.cp(line).endpoint(relay.url()).run().failed(5);
        assert!(
            said.ends_with(
                ": AccessDenied: as the test wants it; check the credentials and their permissions"
            ),
            "{said}"
        );
        assert_eq!(relay.count(operation), 1);
        assert!(!sandbox.path("copy").exists());
        sandbox.assert_clean();
    }
}

#[test]
fn a_store_that_keeps_failing_is_given_up_and_left_clean() {
    let sandbox = Sandbox::new();
    sandbox.file("f", 2 * PART);
    let relay = Relay::new(sandbox.store(), |request| match request.operation() {
        "UploadPart" => Fate::error(503, "SlowDown"),
        _ => Fate::Pass,
    });
    let line = "f s3://bucket/f --part-size 5MiB --concurrency 1 --retries 2";
    let said = sandbox.cp(line).endpoint(relay.url()).run().failed(8);
    assert_eq!(
        said,
        "upload to s3://bucket/f: part 1: gave up after 3 attempts: the store asks for fewer \
         requests"
    );
    assert_eq!(relay.count("UploadPart"), 3);
    let line = "f s3://bucket/f --part-size 5MiB --concurrency 1 --retries 0";
    let said = sandbox.cp(line).endpoint(relay.url()).run().failed(8);
    assert_eq!(said, "upload to s3://bucket/f: part 1: the store asks for fewer requests");
    sandbox.assert_clean();
}

#[test]
fn an_error_in_a_reply_of_200_is_an_error() {
    let sandbox = Sandbox::new();
    sandbox.file("f", 2 * PART);
    let body = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n   <Error><Code>InternalError</Code>\
                <Message>We encountered an internal error.</Message></Error>";
    let completing = |times: u32| {
        move |request: &Request| match request.operation() {
            "CompleteMultipartUpload" if request.attempt <= times => Fate::Answer(200, body.into()),
            _ => Fate::Pass,
        }
    };
    let relay = Relay::new(sandbox.store(), completing(1));
    assert_eq!(up(&sandbox, &relay)["retries"], 1);
    let relay = Relay::new(sandbox.store(), completing(u32::MAX));
    let line = "f s3://bucket/never --part-size 5MiB --retries 1";
    let said = sandbox.cp(line).endpoint(relay.url()).run().failed(8);
    // All parts are there: the next run only has to complete them.
    assert_eq!(
        said,
        format!(
            "complete the upload to s3://bucket/never: gave up after 2 attempts: the store failed \
             internally; 10.0 MiB of 10.0 MiB are kept, and running it again goes on from there: \
             brigade cp {line}"
        )
    );
    assert_eq!(sandbox.recorded_parts(), 2);
    assert!(block_on(sandbox.session().bucket(BUCKET).object("never").info()).is_err());
}

#[test]
fn a_lost_reply_to_complete_is_settled_by_evidence() {
    let sandbox = Sandbox::new();
    sandbox.file("f", 2 * PART);
    let relay = Relay::new(sandbox.store(), |request| match request.operation() {
        "CompleteMultipartUpload" if request.attempt == 1 => Fate::LoseReply,
        _ => Fate::Pass,
    });
    assert_eq!(up(&sandbox, &relay)["verified"], "full-object");
    // The same where the store must not replace: the object that is there now is its own.
    let line = "f s3://bucket/new --part-size 5MiB --if-none-match";
    sandbox.cp(line).endpoint(relay.url()).run().succeeded();
}

#[test]
fn evidence_is_looked_for_more_than_once() {
    let sandbox = Sandbox::new();
    sandbox.file("f", 2 * PART);
    let relay = Relay::new(sandbox.store(), |request| match request.operation() {
        "CompleteMultipartUpload" if request.attempt == 1 => Fate::LoseReply,
        "CompleteMultipartUpload" => Fate::error(404, "NoSuchUpload"),
        "HeadObject" if request.attempt == 1 => Fate::error(503, "SlowDown"),
        _ => Fate::Pass,
    });
    assert_eq!(up(&sandbox, &relay)["verified"], "full-object");
}

#[test]
fn an_upload_does_not_take_its_own_object_for_somebody_elses() {
    let sandbox = Sandbox::new();
    sandbox.file("f", 1_000);
    let relay = Relay::new(sandbox.store(), |request| match request.operation() {
        "PutObject" if request.attempt == 1 => Fate::LoseReply,
        _ => Fate::Pass,
    });
    let line = "f s3://bucket/new --if-none-match --json";
    let report = sandbox.cp(line).endpoint(relay.url()).run().report();
    assert_eq!(report["verified"], "full-object");
    // Somebody else's stays somebody else's.
    let said = sandbox.cp(line).endpoint(relay.url()).run().failed(6);
    assert!(said.contains("the object exists already"), "{said}");
}

#[test]
fn a_race_with_another_writer_is_started_over() {
    let sandbox = Sandbox::new();
    sandbox.file("f", 2 * PART);
    let racing = || {
        let once = AtomicU32::new(1);
        move |request: &Request| match request.operation() {
            "CompleteMultipartUpload" | "PutObject" if once.swap(0, Ordering::SeqCst) == 1 => {
                Fate::error(409, "ConditionalRequestConflict")
            }
            _ => Fate::Pass,
        }
    };
    let relay = Relay::new(sandbox.store(), racing());
    assert_eq!(up(&sandbox, &relay)["verified"], "full-object");
    assert_eq!(relay.count("CreateMultipartUpload"), 2);
    sandbox.file("small", 10);
    let relay = Relay::new(sandbox.store(), racing());
    sandbox.cp("small s3://bucket/small").endpoint(relay.url()).run().succeeded();
    assert_eq!(relay.count("PutObject"), 2);
    sandbox.assert_clean();
}

#[test]
fn a_flipped_bit_on_the_way_down_is_noticed() {
    let sandbox = stored(3 * PART);
    std::fs::write(sandbox.path("copy"), "as it was").expect("written");
    let relay = Relay::new(sandbox.store(), |request| match request.range_start() {
        Some(PART) => Fate::FlipBit(777),
        _ => Fate::Pass,
    });
    let line = "s3://bucket/f copy --part-size 5MiB";
    let run = sandbox.cp(line).endpoint(relay.url()).run();
    assert!(run.stderr.contains("every part is fetched once more"), "{run}");
    let said = run.failed_in_the_end(7);
    let start = "download s3://bucket/f: the bytes that arrived are not the bytes that were stored: \
                 crc32 checksum is ";
    assert!(said.starts_with(start), "{said}");
    assert!(said.ends_with(" was expected; nothing was stored; start it again"), "{said}");
    assert_eq!(std::fs::read(sandbox.path("copy")).expect("read"), b"as it was");
    sandbox.assert_clean();
    let relay = Relay::new(sandbox.store(), |request| match request.operation() {
        "GetObject" if request.range_start() == Some(0) => Fate::FlipBit(9),
        _ => Fate::Pass,
    });
    let run = sandbox.cp("s3://bucket/f -").endpoint(relay.url()).run();
    assert_eq!(run.stdout.len() as u64, 3 * PART);
    assert!(run.failed(7).contains("what was written is not the object"));
}

#[test]
fn a_bit_that_flips_once_is_mended() {
    let sandbox = stored(3 * PART);
    let relay = Relay::new(sandbox.store(), |request| match request.range_start() {
        Some(PART) if request.attempt == 1 => Fate::FlipBit(777),
        _ => Fate::Pass,
    });
    let report = down(&sandbox, &relay);
    assert_eq!(report["verified"], "full-object");
    let warnings = report["warnings"].to_string();
    assert!(warnings.contains("5.0 MiB had arrived damaged and were replaced"), "{report}");
    sandbox.assert_clean();
}

#[test]
fn an_object_overwritten_meanwhile_is_not_mixed() {
    let sandbox = stored(12 * PART);
    sandbox.file("other", 12 * PART + 1);
    let relay = Relay::slow(sandbox.store(), 16 << 20);
    let line = "s3://bucket/f copy --concurrency 2";
    let running = sandbox.cp(line).endpoint(relay.url()).start();
    eventually("a range was asked for", Duration::from_secs(10), || relay.count("GetObject") > 1);
    sandbox.cp("other s3://bucket/f").run().succeeded();
    relay.hurry();
    assert_eq!(
        running.wait().failed(6),
        "download s3://bucket/f: the object was overwritten during the download; start it again"
    );
    assert!(!sandbox.path("copy").exists());
    sandbox.assert_clean();
}

#[test]
fn a_store_that_ignores_ranges_is_refused() {
    let sandbox = stored(2 * PART);
    let whole = "x".repeat(1_000);
    let relay = Relay::new(sandbox.store(), move |request| match request.operation() {
        "GetObject" => Fate::Answer(200, whole.clone()),
        _ => Fate::Pass,
    });
    let line = "s3://bucket/f copy --retries 1 --concurrency 1";
    let said = sandbox.cp(line).endpoint(relay.url()).run().failed(8);
    assert!(said.contains("the store ignored the range that was asked for"), "{said}");
    sandbox.assert_clean();
}
