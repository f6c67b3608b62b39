//! The ways of stores, networks and disks that transfer tools fall into, one after the other, each with
//! what the engine must do about it.
//!
//! Every test runs the command against the embedded store, which is told how to misbehave, and looks
//! at the whole of what comes of it: that the fault happened, how the command ended and what it said,
//! that the bytes are the same, that nothing was left behind. Other files go deeper into some of them
//! (`resume`, `retries`, `hostile`, `sources`); this one is the list.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use brigade::ListOptions;
use brigade::limits::StoreProfile;
use brigade::{CopyOptions, Session, SessionOptions};
use brigade_store::faults::{Action, Answer, Place, Rule};
use brigade_store::{Credentials, Options};
use brigade_tests::cli::{CUSTOMER_KEY, PART, SECRET_KEY, Sandbox, eventually};
use brigade_tests::files;
use brigade_tests::traps::{DOWN, SOON, Trap, UP};
use futures::executor::block_on;
use rustix::process::Signal;
use serde_json::Value;

/// No folder can be made below a file: an upload that fails is not kept for a later run.
const UNRECORDED: &str = "--manifest-dir f/x";

/// An object needs more than 10,000 parts at the size that was asked for: the smallest that fits is
/// said before anything is sent.
#[test]
fn trap_01_a_part_size_that_makes_too_many_parts_is_refused() {
    let trap = Trap::of(Sandbox::new());
    File::create(trap.path("f")).and_then(|file| file.set_len(60 << 30)).expect("made");
    let said = trap.cp(UP).run().failed(2);
    assert!(said.contains("parts of the 10000") && said.contains("7 MiB"), "{said}");
    assert_eq!(trap.count("CreateMultipartUpload"), 0);
}

/// The same where nobody asked for a size: parts are as large as their number needs.
#[test]
fn trap_01_parts_grow_until_their_number_fits() {
    let trap = Trap::with_file(6 * PART);
    std::fs::write(trap.path("few.toml"), "base = \"brigade\"\nmax_parts = 3\n").expect("made");
    let line = "f s3://bucket/f --store-profile few.toml";
    let report = trap.cp(&format!("{line} --json")).run().report();
    assert_eq!((&report["parts"], &report["part_size_bytes"]), (&3.into(), &(2 * PART).into()));
    trap.assert_stored();
}

/// Stores want equal parts, of 5 MiB at least, numbered from 1 without gaps, and completed in order:
/// it is always so, in whatever order they arrive.
#[test]
fn trap_02_parts_are_equal_and_large_enough_and_in_order() {
    for more in ["--part-size 6MiB", "--part-size 5MiB --store-profile r2", ""] {
        let trap = Trap::with_file(5 * PART + 1);
        let late = Action::Stall { at: Place::RequestEnd, time: Some(Duration::from_millis(300)) };
        trap.misbehave(Rule::on("UploadPart").part(1).then(late));
        let run = trap.cp(&format!("f s3://bucket/f --json {more}")).run().succeeded();
        assert_eq!(trap.fired(), [1]);
        let done = run.json().into_iter().filter(|event| event["event"] == "part_done");
        let number = |value: &Value| value.as_u64().expect("a number");
        let mut parts: Vec<_> =
            done.map(|part| (number(&part["part"]), number(&part["size_bytes"]))).collect();
        parts.sort_unstable();
        let (last, others) = parts.split_last().expect("parts");
        assert!((1..).zip(&parts).all(|(number, part)| number == part.0), "{parts:?}");
        assert!(others.iter().all(|part| part.1 == others[0].1 && part.1 >= PART), "{parts:?}");
        assert!(last.1 <= others[0].1, "{parts:?}");
        trap.assert_stored();
    }
}

/// Parts come in pages of two: all are found.
#[test]
fn trap_03_parts_are_listed_page_by_page() {
    let trap = Trap::killed_upload(8, 5);
    trap.misbehave(Rule::on("ListParts").then(Action::set_query("max-parts", "2")));
    let report = trap.upload("");
    // A fourth where parts that are sent meanwhile are listed as well.
    assert!((3..=4).contains(&trap.fired()[0]), "{:?}", trap.fired());
    assert_eq!(report["resumed_bytes"], 5 * PART);
}

/// A store goes on and on with the same page: it is read once or twice, and what was not seen is
/// sent again.
#[test]
fn trap_03_a_page_of_parts_that_repeats_is_no_circle() {
    let trap = Trap::killed_upload(8, 5);
    let truncated = [("IsTruncated", "true"), ("NextPartNumberMarker", "1")];
    trap.misbehave(
        Rule::on("ListParts")
            .then(Action::set_query("max-parts", "2"))
            .then(Action::RemoveQuery(vec!["part-number-marker".into()]))
            .then(set_elements(truncated)),
    );
    let report = trap.upload("");
    assert_eq!(trap.fired(), [2]);
    assert_eq!(report["resumed_bytes"], 2 * PART);
    assert_warns(&report, "15.0 MiB that an earlier run recorded as sent were not on the store");
}

/// Unfinished uploads come in pages of one: all are found. In a circle of pages: an error, soon.
#[test]
fn trap_03_uploads_are_listed_page_by_page_and_never_in_a_circle() {
    let trap = Trap::with_file(2 * PART);
    trap.misbehave(Rule::on("UploadPart").then(Action::stall(Place::RequestEnd)));
    let keys = ["a", "b", "c/d"];
    let running = keys.map(|key| trap.cp(&format!("f s3://bucket/{key}")).start());
    eventually("all send their parts", SOON, || trap.fired() == [6]);
    for running in running {
        running.signal(Signal::KILL);
        assert_eq!(running.wait().code(), -9);
    }

    let page = || Rule::on("ListMultipartUploads").then(Action::set_query("max-uploads", "1"));
    trap.misbehave(page());
    let list = || trap.brigade(["uploads", "list", "s3://bucket", "--json"]).run();
    let run = list().succeeded();
    assert_eq!(trap.fired(), [3]);
    assert_eq!(run.json().last().expect("a line")["uploads"], 3, "{run}");

    let leading_to = |key| {
        let marked = [("IsTruncated", "true"), ("NextKeyMarker", key), ("NextUploadIdMarker", "")];
        page().then(set_elements(marked))
    };
    trap.misbehave([leading_to("a").every(2), leading_to("b")]);
    let run = list();
    assert_eq!(run.code(), 8, "{run}");
    assert_eq!(run.json().last().expect("a line")["failed"], 1, "{run}");
    assert!(run.stderr.contains("the store repeats a page of its listing for ever"), "{run}");
    assert_eq!(trap.fired(), [2, 1]);
}

/// The same for objects, and for pages that say that there is more and not where: all come, once.
#[test]
fn trap_03_objects_are_listed_page_by_page() {
    for more in [vec![], vec![Action::remove_element("NextContinuationToken")]] {
        let trap = Trap::pretending(250);
        let rule = Rule::on("ListObjectsV2").then(Action::set_query("max-keys", "100"));
        trap.misbehave(more.into_iter().fold(rule, Rule::then));
        assert_eq!(trap.listed("").lines().count(), 250);
        assert_eq!(trap.count("ListObjectsV2"), 3);
    }
}

/// A store that gives the same token for ever: an error that says so, and no circle.
#[test]
fn trap_03_a_page_of_objects_that_repeats_is_no_circle() {
    let trap = Trap::pretending(2_500);
    trap.misbehave(
        Rule::on("ListObjectsV2")
            .from_nth(2)
            .then(Action::set_element("IsTruncated", "true"))
            .then(Action::set_element("NextContinuationToken", "bg")),
    );
    let run = trap.brigade(["ls", "s3://bucket", "-r", "--summarize"]).run();
    assert!(!run.text().contains("objects"), "{run}");
    let said = run.failed(8);
    let expected = "repeats a page of its listing for ever: the listing is incomplete";
    assert!(said.contains(expected), "{said}");
    assert!(trap.count("ListObjectsV2") <= 5);
}

/// Pages without a key, although more follow, as after much was deleted.
#[test]
fn trap_03_an_empty_page_is_not_the_end() {
    let trap = Trap::pretending(250);
    trap.misbehave(
        Rule::on("ListObjectsV2")
            .nth(1)
            .then(Action::remove_element("Contents"))
            .then(Action::set_element("IsTruncated", "true"))
            // Goes on from the beginning.
            .then(Action::set_element("NextContinuationToken", "bg")),
    );
    assert_eq!(trap.listed("").lines().count(), 250);
}

/// A part of the right size arrived with other bytes, and so the store lists it with another
/// checksum: it is sent again.
#[test]
fn trap_04_a_listed_part_with_another_checksum_is_sent_again() {
    let trap = Trap::with_file(6 * PART);
    // As over a network that damages bytes, to a store that does not look at what was sent along.
    let damage = Rule::on("UploadPart")
        .part(2)
        .then(Action::flip_request(1_000))
        .then(Action::remove_request_header("x-amz-checksum-*"));
    let fired = trap.kill_upload(damage, 6, 3);
    assert_eq!(fired[0], 1);
    let before = trap.count("UploadPart");
    let report = trap.upload("");
    assert_eq!(report["resumed_bytes"], 2 * PART);
    assert_warns(&report, "5.0 MiB that an earlier run recorded as sent were not on the store");
    assert_eq!(trap.count("UploadPart") - before, 4);
}

/// The source grows, shrinks, is written to or replaced meanwhile: an error names it, and nothing
/// is completed.
#[test]
fn trap_05_a_source_that_changes_is_never_completed() {
    type Change = fn(&File, &Path);
    let open = |path: &Path| File::options().write(true).open(path).expect("opened");
    let changes: [(Change, &str); 4] = [
        (|file, _| file.set_len(13 * PART).expect("longer"), "from 41943040 to 68157440 bytes"),
        (|file, _| file.set_len(PART).expect("shorter"), "from 41943040 to 5242880 bytes"),
        (|file, _| file.write_all_at(b"x", 7 * PART).expect("written"), "was written to"),
        (
            |_, path| {
                files::make(&path.with_extension("other"), 8 * PART, 1);
                std::fs::rename(path.with_extension("other"), path).expect("replaced");
            },
            "was replaced",
        ),
    ];
    for (change, how) in changes {
        let trap = Trap::with_file(8 * PART);
        trap.misbehave(Rule::on("UploadPart").from_nth(2).then(Action::stall(Place::RequestEnd)));
        let running = trap.cp(&format!("{UP} --concurrency 2")).start();
        eventually("parts are on their way", SOON, || trap.fired() >= vec![2]);
        change(&open(&trap.path("f")), &trap.path("f"));
        trap.behave();
        let said = running.wait().failed(6);
        assert!(said.starts_with("upload f: the file ") && said.contains(how), "{said}");
        trap.assert_nothing_stored();
    }
}

/// Pages of a mapped source cannot be had: the process lives, and says which file it is.
#[test]
fn trap_05_a_source_with_lost_pages_is_no_crash() {
    let trap = Trap::of(Sandbox::new());
    std::fs::create_dir(trap.path("disk")).expect("made");
    let is_root = rustix::process::getuid().is_root();
    let as_root: &[&str] = if is_root { &[] } else { &["--user", "--map-root-user"] };
    let mounts = ["--mount", "mount", "-t", "tmpfs", "none", "/mnt"];
    let works = Command::new("unshare").args(as_root).args(mounts).output();
    if !works.is_ok_and(|works| works.status.success()) {
        println!("skipped: this machine lets the test mount nothing");
        return;
    }
    // A hole takes room in memory once it is mapped, and there is none.
    let script = "mount -t tmpfs -o size=4m none disk && truncate -s 32M disk/f && \
                  { cat /dev/zero > disk/other 2>/dev/null; true; } && exec \"$@\"";
    let wrapper = ["unshare"].iter().chain(as_root).copied();
    let wrapper = wrapper.chain(["--mount", "sh", "-c", script, "sh"]);
    let said = trap.cp("disk/f s3://bucket/f").under(wrapper).run().failed(1);
    assert!(said.starts_with("upload disk/f: a part of the file could not be read"), "{said}");
    trap.assert_nothing_stored();
}

/// Complete answers 200 and then an error, or nothing, or half of it: it is asked again.
#[test]
fn trap_06_a_success_that_is_none_is_asked_again() {
    let complete = || Rule::on("CompleteMultipartUpload").nth(1);
    let (time, every) = (Duration::from_millis(250), Duration::from_millis(50));
    for rule in [
        complete().then(Action::Trickle { time, every }).then(Answer::new(200, "InternalError")),
        complete().then(Answer::with_body(200, "")),
        complete().then(Answer::with_body(200, "\n  \n")),
        // Applied, as the retry will find.
        complete().then(Action::cut_response_body(100)),
        complete().then(Action::Truncate(100)),
    ] {
        let trap = Trap::with_file(2 * PART);
        trap.misbehave(rule);
        let report = trap.upload("--verify require");
        assert_eq!((trap.fired(), &report["retries"]), (vec![1], &1.into()), "{report}");
        assert_eq!(trap.count("CompleteMultipartUpload"), 2);
    }
}

/// The same for ever: never a success.
#[test]
fn trap_06_a_success_that_stays_none_is_a_failure() {
    for answer in [Answer::new(200, "InternalError"), Answer::with_body(200, "")] {
        let trap = Trap::with_file(2 * PART);
        trap.misbehave(Rule::on("CompleteMultipartUpload").then(answer));
        let run = trap.cp(&format!("{UP} {UNRECORDED} --retries 2")).run();
        let said = run.failed_in_the_end(8);
        assert!(
            said.starts_with("complete the upload to s3://bucket/f: gave up after 3"),
            "{said}"
        );
        assert_eq!(trap.fired(), [3]);
        trap.assert_nothing_stored();
    }
}

/// Complete is applied, its reply lost, and the retry answered with `NoSuchUpload`: the object that
/// is there carries this upload's token.
#[test]
fn trap_07_a_lost_reply_to_complete_is_settled_by_the_token() {
    let trap = Trap::with_file(2 * PART);
    let complete = || Rule::on("CompleteMultipartUpload");
    let gone = Answer::new(404, "NoSuchUpload");
    trap.misbehave([complete().nth(1).then(Action::swallow_response()), complete().then(gone)]);
    let report = trap.upload("--verify require");
    assert_eq!((trap.fired(), &report["verified"]), (vec![1, 1], &"full-object".into()));
    assert_eq!(trap.count("CreateMultipartUpload"), 1);
}

/// The object that is there is somebody else's: that it exists proves nothing.
#[test]
fn trap_07_somebody_elses_object_is_no_success() {
    let trap = Trap::with_file(2 * PART);
    trap.put_theirs();
    let complete = || Rule::on("CompleteMultipartUpload");
    let failed = Answer::new(500, "InternalError");
    let gone = Answer::new(404, "NoSuchUpload");
    trap.misbehave([complete().nth(1).then(failed), complete().then(gone)]);
    let said = trap.cp(UP).run().failed(4);
    assert!(said.contains("no such multipart upload"), "{said}");
    assert_eq!(trap.fired(), [1, 1]);
    trap.assert_theirs();
}

/// The retry of a conditional upload meets its own object, and is told that one is there.
#[test]
fn trap_07_a_conditional_upload_knows_its_own_object() {
    for (size, operation) in [(1_000, "PutObject"), (2 * PART, "CompleteMultipartUpload")] {
        let trap = Trap::with_file(size);
        let on = || Rule::on(operation);
        let refused = Answer::new(412, "PreconditionFailed");
        trap.misbehave([on().nth(1).then(Action::swallow_response()), on().then(refused)]);
        let report = trap.upload("--if-none-match --verify require");
        assert_eq!((trap.fired(), &report["verified"]), (vec![1, 1], &"full-object".into()));
    }
}

/// And somebody else's, and that is said.
#[test]
fn trap_07_a_conditional_upload_knows_a_foreign_object() {
    for (size, operation) in [(1_000, "PutObject"), (2 * PART, "CompleteMultipartUpload")] {
        let trap = Trap::with_file(size);
        trap.put_theirs();
        trap.misbehave(Rule::on(operation).nth(1).then(Action::answer(500, "InternalError")));
        let said = trap.cp(&format!("{UP} --if-none-match")).run().failed(6);
        assert!(said.contains("the object exists already; leave out --if-none-match"), "{said}");
        assert_eq!(trap.fired(), [1]);
        trap.assert_theirs();
    }
}

/// Another writer is in the way of Complete: a new upload. Of `PutObject`: the same again.
#[test]
fn trap_08_a_conflict_is_started_over() {
    for (size, operation, uploads) in
        [(2 * PART, "CompleteMultipartUpload", 2), (1_000, "PutObject", 0)]
    {
        let trap = Trap::with_file(size);
        let conflict = Action::answer(409, "ConditionalRequestConflict");
        trap.misbehave(Rule::on(operation).nth(1).then(conflict));
        trap.upload("");
        assert_eq!((trap.fired(), trap.count(operation)), (vec![1], 2));
        assert_eq!(trap.count("CreateMultipartUpload"), uploads);
    }
}

/// A store that nobody has described takes no notice of `If-None-Match`: it is said that an object
/// may have been replaced.
#[test]
fn trap_09_a_condition_that_may_be_ignored_is_no_promise() {
    for (size, operation) in [(1_000, "PutObject"), (2 * PART, "CompleteMultipartUpload")] {
        let trap = Trap::with_file(size);
        trap.put_theirs();
        let ignored = Action::remove_request_header("If-None-Match");
        trap.misbehave(Rule::on(operation).header("If-None-Match").then(ignored));
        let report = trap.upload("--if-none-match --store-profile generic");
        assert_eq!(trap.fired(), [1]);
        assert_warns(
            &report,
            "the store (generic) may ignore --if-none-match: an existing object could have been \
             replaced",
        );
    }
}

/// The object is overwritten during its download: 412 ends it, and no file is a mixture.
#[test]
fn trap_10_an_object_that_is_overwritten_meanwhile_is_no_mixture() {
    let trap = Trap::with_object(6 * PART);
    trap.misbehave(Rule::on("GetObject").from_nth(3).then(Action::stall(Place::RequestEnd)));
    let running = trap.cp(&format!("{DOWN} --concurrency 2")).start();
    eventually("ranges are asked for", SOON, || trap.fired() >= vec![1]);
    files::make(&trap.path("other"), 6 * PART, 1);
    trap.cp("other s3://bucket/f").run().succeeded();
    trap.behave();
    let said = running.wait().failed(6);
    assert!(said.contains("the object was overwritten during the download"), "{said}");
    trap.assert_no_copy();
}

/// The whole body for a range, another range than was asked for, a body that is too short and ends
/// well: each is noticed, and asked for again.
#[test]
fn trap_11_an_answer_to_another_question_is_asked_again() {
    let other_range = Action::set_header("Content-Range", "bytes 0-5242879/15728640");
    for (wrong, what) in [
        (Action::remove_request_header("Range"), "the store ignored the range"),
        (other_range, "the store answered with bytes 0-5242879/15728640 when bytes 5242880-"),
        (Action::Truncate(1_000_000), "the body ended 4242880 bytes early"),
    ] {
        let trap = Trap::with_object(3 * PART);
        let second = || Rule::on("GetObject").range_start(PART);
        trap.misbehave(second().nth(1).then(wrong.clone()));
        let run = trap.cp(&format!("{DOWN} --verify require --json")).run().succeeded();
        let reasons: Vec<_> = run.json().iter().map(|event| event["reason"].to_string()).collect();
        assert!(reasons.iter().any(|reason| reason.contains(what)), "{what}: {run}");
        assert_eq!((trap.fired(), run.report()["retries"].as_u64()), (vec![1], Some(1)));
        trap.assert_copied();
    }
}

/// The same every time: no file.
#[test]
fn trap_11_a_store_that_ignores_ranges_makes_no_file() {
    let trap = Trap::with_object(3 * PART);
    trap.misbehave(Rule::on("GetObject").then(Action::remove_request_header("Range")));
    let said = trap.cp(&format!("{DOWN} --retries 1")).run().failed(8);
    assert!(said.contains("the store ignored the range that was asked for"), "{said}");
    assert!(trap.fired() >= vec![2]);
    trap.assert_no_copy();
}

/// A body is cut, or stops, in the middle of a part: the part goes on from the byte it reached.
#[test]
fn trap_12_a_broken_part_goes_on_from_the_byte_it_reached() {
    const REACHED: u64 = 1_234_567;
    let silent = Action::Stall { at: Place::ResponseBody(REACHED), time: None };
    for broken in [Action::cut_response_body(REACHED), silent] {
        let trap = Trap::with_object(3 * PART);
        let get = |start| Rule::on("GetObject").range_start(start);
        trap.misbehave([get(PART).then(broken), get(PART + REACHED).then(noted())]);
        let report = trap.download("--verify require --stall-timeout 1s");
        // The rest was asked for once, and the beginning only once.
        assert_eq!((trap.fired(), &report["retries"]), (vec![1, 1], &1.into()));
    }
}

/// A bit flips on the way and the length stays right. The object has one checksum over all its
/// bytes, so every part is fetched once more, and the one that differs replaced.
#[test]
fn trap_13_a_flipped_bit_is_found_and_mended() {
    let trap = Trap::with_object(4 * PART);
    let flip = Action::flip_response(777);
    trap.misbehave(Rule::on("GetObject").range_start(2 * PART).nth(1).then(flip));
    let report = trap.download("--verify require");
    assert_eq!((trap.fired(), &report["verified"]), (vec![1], &"full-object".into()));
    assert_warns(&report, "5.0 MiB had arrived damaged and were replaced");
}

/// It flips every time: a failure, and the file that was there before stays.
#[test]
fn trap_13_a_flipped_bit_that_persists_is_a_failure() {
    for every in [1, 2] {
        let trap = Trap::with_object(3 * PART);
        std::fs::write(trap.path("copy"), "as it was").expect("written");
        let flip = Action::flip_response(777);
        let rule = Rule::on("GetObject").range_start(PART).every(every).then(flip);
        trap.misbehave(rule);
        let run = trap.cp(DOWN).run();
        let said = run.failed_in_the_end(7);
        assert!(
            said.contains("the bytes that arrived are not the bytes that were stored"),
            "{said}"
        );
        assert!(said.contains("; nothing was stored; start it again"), "{said}");
        assert!(trap.fired() >= vec![2]);
        assert_eq!(std::fs::read(trap.path("copy")).expect("there"), b"as it was");
        trap.assert_clean();
    }
}

/// The whole object's checksum on a part of it, a composite without its `-N`: no false alarm.
#[test]
fn trap_14_checksums_in_the_wrong_place_are_no_alarm() {
    let trap = Trap::with_file(3 * PART);
    // Its checksum is over the parts.
    trap.upload("--store-profile generic");
    trap.misbehave([
        Rule::on("GetObject").then(Action::WholeChecksum).then(Action::StripChecksumSuffix),
        Rule::on("HeadObject").then(Action::StripChecksumSuffix),
    ]);
    let report = trap.download("--verify require");
    assert_eq!(report["verified"], "composite", "{report}");
    assert!(trap.fired()[0] == 3 && trap.fired()[1] >= 1, "{:?}", trap.fired());
}

/// Attributes without parts, where only they tell the sizes of the parts: no false alarm, and no false
/// proof.
#[test]
fn trap_14_attributes_without_parts_prove_nothing() {
    let trap = Trap::with_file(2 * PART + 1_000);
    // Its checksum is over parts, of sizes that nobody would guess.
    trap.upload("--store-profile generic");
    trap.misbehave([
        Rule::on("HeadObject").then(Action::remove_header("x-amz-mp-parts-count")),
        Rule::on("GetObjectAttributes").then(Action::remove_element("ObjectParts")),
    ]);
    let report = trap.cp(&format!("{DOWN} --json")).run().report();
    trap.assert_copied();
    assert_eq!(report["verified"], "unverified", "{report}");
    assert!(trap.fired()[1] >= 1, "{:?}", trap.fired());
}

/// Nothing that a checksum on a range says is taken for proof, or for its opposite.
#[test]
fn trap_14_a_checksum_on_a_range_proves_nothing() {
    let trap = Trap::with_object(3 * PART);
    let etag = || Action::set_header("ETag", "\"opaque\"");
    trap.misbehave([
        Rule::on("HeadObject").then(Action::remove_header("x-amz-checksum-*")).then(etag()),
        Rule::on("GetObject")
            .then(Action::remove_request_header("If-Match"))
            .then(Action::set_header("x-amz-checksum-crc32", "AAAAAA=="))
            .then(Action::set_header("x-amz-checksum-type", "FULL_OBJECT"))
            .then(etag()),
    ]);
    let report = trap.download("");
    assert_eq!((&report["verified"], trap.fired()[1]), (&"unverified".into(), 3), "{report}");
    assert_warns(&report, "unverified: the store recorded no checksum");
}

/// A store refuses headers that it does not know, in one way or another: it goes without, and says
/// so; or, where a checksum was asked for, the error names what to do.
#[test]
fn trap_15_a_refused_checksum_is_left_out_and_told() {
    for (status, code) in [(400, "InvalidRequest"), (403, "InvalidHeader"), (501, "NotImplemented")]
    {
        for size in [1_000, 2 * PART] {
            let trap = Trap::with_file(size);
            trap.misbehave(refusing_checksums(status, code));
            let report = trap.upload("");
            assert!(trap.fired()[0] >= 1);
            assert_warns(&report, "a store profile with checksums = \"none\" says so in advance");
            assert_eq!(report["verified"], "unverified");
        }
        let trap = Trap::with_file(2 * PART);
        trap.misbehave(refusing_checksums(status, code));
        let said = trap.cp(&format!("{UP} --checksum-algorithm crc32")).run();
        let said = said.failed(if status == 403 { 5 } else { 1 });
        assert!(said.contains("--checksum-algorithm md5, or checksums = \"none\""), "{said}");
        assert_eq!(trap.fired(), [1]);
        trap.assert_nothing_stored();
    }
}

/// Where the refusal looks like one of permissions, and the store is not known to take checksums,
/// the error names both.
#[test]
fn trap_15_a_refusal_that_looks_like_one_of_permissions_names_the_setting() {
    let trap = Trap::with_file(2 * PART);
    trap.misbehave(refusing_checksums(403, "AccessDenied"));
    let said = trap.cp(&format!("{UP} --store-profile generic")).run().failed(5);
    let advice = "; check the credentials and their permissions, and whether the store knows crc32 \
                  checksums: without them, use checksums = \"none\" in a store profile";
    assert!(said.ends_with(advice), "{said}");
    assert_eq!(trap.fired(), [1]);
    trap.assert_nothing_stored();
}

/// Every one of 200 parts fails once: all succeed in the end.
#[test]
fn trap_16_two_hundred_parts_may_fail_once_each() {
    let trap = Trap::with_small_parts(200);
    let busy = || Action::answer(503, "SlowDown");
    let once = Rule::on_any(["UploadPart", "GetObject"]).per_part().nth(1).then(busy());
    trap.misbehave(once);
    let small = "--part-size 64KiB --store-profile small.toml --json";
    let report = trap.cp(&format!("f s3://bucket/f {small}")).run().report();
    assert_eq!((&report["parts"], &report["retries"]), (&200.into(), &200.into()));
    let report = trap.cp(&format!("s3://bucket/f copy {small}")).run().report();
    assert_eq!((&report["parts"], &report["retries"]), (&200.into(), &200.into()));
    assert_eq!(trap.fired(), [400]);
    trap.assert_copied();
}

/// Bursts of refusals: fewer requests while they last, none repeated at once, and all the parts in
/// the end.
#[test]
fn trap_17_bursts_of_refusals_are_no_storm() {
    for (status, code) in [(503, "SlowDown"), (429, "TooManyRequests")] {
        let trap = Trap::with_small_parts(200);
        let burst = Duration::from_millis(1_500);
        // The burst begins when the upload does.
        trap.misbehave(Rule::on("CreateMultipartUpload").then(Action::stall(Place::RequestEnd)));
        let line = "f s3://bucket/f --part-size 64KiB --store-profile small.toml --json";
        let running = trap.cp(&format!("{line} --concurrency 16")).start();
        eventually("it begins", SOON, || trap.fired() == [1]);
        let busy = Action::answer(status, code);
        trap.misbehave(Rule::on("UploadPart").between(Duration::ZERO, burst).then(busy));
        trap.store().faults().release();
        let run = running.wait();
        let (elapsed, refused) = (run.elapsed, trap.fired()[0]);
        let report = run.report();
        assert_eq!(report["retries"], refused);
        assert_eq!(trap.count("UploadPart"), 200 + refused);
        // Sixteen at once that come back at once would be thousands.
        assert!((16..160).contains(&refused), "{refused} in {burst:?}");
        assert!(elapsed < Duration::from_secs(15), "{elapsed:?}");
        trap.assert_stored();
    }
}

/// One burst halves the parts in flight, once; each window's worth of good ones lets one more in.
#[test]
fn trap_17_a_burst_halves_the_parts_in_flight_for_a_while() {
    let trap = Trap::with_small_parts(200);
    let on = || Rule::on("UploadPart");
    let busy = Action::answer(503, "SlowDown");
    let held = || on().then(Action::stall(Place::RequestEnd));
    trap.misbehave([on().times(16).then(busy), on().times(16).then(noted()), held()]);
    let line = "f s3://bucket/f --part-size 64KiB --store-profile small.toml --concurrency 16";
    let running = trap.cp(line).start();
    eventually("half of them are in flight", SOON, || trap.fired() >= vec![16, 16, 8]);
    std::thread::sleep(Duration::from_millis(300));
    assert!((8..=10).contains(&trap.fired()[2]), "{:?}", trap.fired());
    trap.misbehave([on().times(130).then(noted()), held()]);
    trap.store().faults().release();
    eventually("all of them are in flight", SOON, || trap.fired() == [130, 16]);
    trap.behave();
    running.wait().succeeded();
    trap.assert_stored();
}

/// Credentials expire in the middle: new ones are looked for, once for all, and it goes on.
#[test]
fn trap_18_expired_credentials_are_replaced_meanwhile() {
    const OLD_KEY: &str = "BRIGADETESTSOLD00000";
    const NEW_KEY: &str = "BRIGADETESTSNEW00000";
    let known = [OLD_KEY, NEW_KEY].map(|key| Credentials::new(key, SECRET_KEY));
    let own = Sandbox::options().credentials;
    let trap = Trap::of(Sandbox::with(Options {
        credentials: own.into_iter().chain(known).collect(),
        ..Sandbox::options()
    }));
    trap.file("f", 6 * PART);
    let keys = trap.path("keys");
    let write = |key: &str| {
        let secret = format!("aws_secret_access_key = {SECRET_KEY}");
        std::fs::write(&keys, format!("[default]\naws_access_key_id = {key}\n{secret}\n"))
            .expect("written");
    };
    write(OLD_KEY);
    let old = || Rule::on("UploadPart").access_key(OLD_KEY);
    let expired = old().then(Action::answer(400, "ExpiredToken"));
    let first = old().nth(1).then(Action::stall(Place::RequestEnd));
    trap.misbehave([first, expired, Rule::on("*").access_key(NEW_KEY).then(noted())]);
    let running = trap
        .cp(&format!("{UP} --concurrency 1 --retries 0"))
        .without_env("AWS_ACCESS_KEY_ID")
        .without_env("AWS_SECRET_ACCESS_KEY")
        .env("AWS_SHARED_CREDENTIALS_FILE", &keys)
        .start();
    eventually("the first part is on its way", SOON, || trap.fired()[0] == 1);
    write(NEW_KEY);
    trap.store().faults().release();
    running.wait().succeeded();
    let fired = trap.fired();
    // Five parts, and the completion at least.
    assert!(fired[1] == 1 && fired[2] >= 6, "{fired:?}");
    trap.assert_stored();
}

/// The clocks are apart: said once, and by how much.
#[test]
fn trap_19_a_wrong_clock_is_told_once() {
    for (line, operation) in [(UP, "CreateMultipartUpload"), (DOWN, "HeadObject")] {
        let trap = Trap::with_object(2 * PART);
        let before = trap.count(operation);
        trap.misbehave(Rule::on("*").then(Action::ShiftClock(-7_200)));
        let run = trap.cp(line).run();
        assert!(run.elapsed < Duration::from_secs(5), "{run}");
        let said = run.failed(5);
        assert!(said.contains("this machine's clock differs from the store's: it is 7"), "{said}");
        assert!(said.ends_with(" s ahead; set the clock"), "{said}");
        assert_eq!(trap.count(operation) - before, 1);
        assert!(trap.fired()[0] <= 2, "{:?}", trap.fired());
        trap.behave();
        trap.assert_no_copy();
    }
}

/// A part that was refused lands after the abort, and keeps the upload alive: it is aborted until
/// nothing is left.
#[test]
fn trap_20_a_part_that_lands_after_the_abort_does_not_stay() {
    let trap = Trap::with_file(4 * PART);
    let late = Rule::on("UploadPart").part(2).then(Answer::new(400, "Odd"));
    // A store whose abort overlooks what is still under way; by the time that is listed, it landed.
    let overlooked = Rule::on("AbortMultipartUpload").nth(1).then(Answer::with_body(204, ""));
    let landing = Action::Stall { at: Place::RequestEnd, time: Some(Duration::from_millis(300)) };
    let listed = Arc::<Mutex<String>>::default();
    let seen = Arc::clone(&listed);
    let listing = Rule::on("ListParts").nth(1).then(landing).then(Action::edit(move |_, text| {
        seen.lock().expect("no panic").clone_from(text);
    }));
    trap.misbehave([late.then(Action::ApplyLate(None)), overlooked, listing]);
    let running = trap.cp(&format!("{UP} {UNRECORDED}")).start();
    eventually("it is aborted", SOON, || trap.fired().starts_with(&[1, 1]));
    trap.store().faults().release();
    let said = running.wait().failed_in_the_end(1);
    assert!(said.starts_with("upload to s3://bucket/f: part 2: Odd"), "{said}");
    let listed = listed.lock().expect("no panic").clone();
    assert!(listed.contains("<PartNumber>2</PartNumber>"), "{listed}");
    assert_eq!(trap.count("AbortMultipartUpload"), 2);
    trap.assert_nothing_stored();
}

/// One that lands after all is over finds no upload.
#[test]
fn trap_20_a_part_that_lands_after_all_is_over_finds_nothing() {
    let trap = Trap::with_file(4 * PART);
    let late = Rule::on("UploadPart").part(2).then(Answer::new(400, "Odd"));
    trap.misbehave(late.then(Action::ApplyLate(None)));
    trap.cp(&format!("{UP} {UNRECORDED}")).run().failed_in_the_end(1);
    trap.store().faults().release();
    assert_eq!(trap.fired(), [1]);
    // It comes, and is refused.
    std::thread::sleep(Duration::from_millis(200));
    trap.assert_nothing_stored();
}

/// A part is acknowledged without an `ETag`: a loud failure, and nothing is completed.
#[test]
fn trap_21_a_part_without_an_etag_is_a_failure() {
    let trap = Trap::with_file(3 * PART);
    trap.misbehave(Rule::on("UploadPart").part(2).then(Action::remove_header("ETag")));
    let said = trap.cp(&format!("{UP} {UNRECORDED}")).run().failed_in_the_end(1);
    assert!(said.contains("the store acknowledged part 2 without an ETag"), "{said}");
    assert_eq!(trap.fired(), [1]);
    trap.assert_nothing_stored();
}

/// A store copies for minutes without a word, or with nothing but white space: no time-out, however
/// short a silence of other requests may be.
#[test]
fn trap_22_a_silent_copy_is_no_time_out() {
    let trap = Trap::with_object(2 * PART);
    let (time, every) = (Duration::from_millis(1_700), Duration::from_millis(100));
    let (silent, blank) = (Action::delay(time), Action::Trickle { time, every });
    trap.misbehave([
        Rule::on("CopyObject").key("a").then(silent.clone()),
        Rule::on("CopyObject").key("b").then(blank.clone()),
        Rule::on("UploadPartCopy").part(1).then(silent),
        Rule::on("UploadPartCopy").part(2).then(blank),
    ]);
    let session = |max_single_put_bytes| {
        let profile = StoreProfile { max_single_put_bytes, ..StoreProfile::generic() };
        let options = SessionOptions {
            // Other requests get six times that.
            stall_timeout: Duration::from_millis(200),
            store_profile: Some(profile),
            ..trap.session_options()
        };
        block_on(Session::new(options)).expect("a session")
    };
    let (whole, parts) = (session(1 << 30), session(PART));
    let copy = |session: &Session, key: &str| {
        let source = "s3://bucket/f".parse().expect("a URL");
        session.bucket("bucket").object(key).copy_from(&source, CopyOptions::default())
    };
    let copies = [copy(&whole, "a"), copy(&whole, "b"), copy(&parts, "c")];
    for copied in block_on(futures::future::join_all(copies)) {
        let report = copied.expect("copied");
        assert!(report.retries == 0 && report.verified.is_proof(), "{report:?}");
    }
    assert_eq!(trap.fired(), [1, 1, 1, 1]);
    trap.behave();
    for key in ["a", "b", "c"] {
        trap.cp(&format!("s3://bucket/{key} copy")).run().succeeded();
        trap.assert_copied();
    }
}

/// Nothing, a byte, and whatever lies beside a part's size: the right requests, the right bytes.
#[test]
fn trap_23_every_size_takes_the_right_requests() {
    let trap = Trap::of(Sandbox::new());
    let operations = ["PutObject", "CreateMultipartUpload", "UploadPart", "GetObject"];
    for (size, expected) in [
        (0, [1, 0, 0, 0]),
        (1, [1, 0, 0, 1]),
        (PART - 1, [1, 0, 0, 1]),
        (PART, [1, 0, 0, 1]),
        (PART + 1, [0, 1, 2, 2]),
        (3 * PART, [0, 1, 3, 3]),
    ] {
        trap.file("f", size);
        let before = operations.map(|operation| trap.count(operation));
        trap.cp(&format!("{UP} --verify require")).run().succeeded_silently();
        trap.cp(&format!("{DOWN} --verify require")).run().succeeded_silently();
        let asked: Vec<_> =
            operations.iter().zip(before).map(|(name, was)| trap.count(name) - was).collect();
        assert_eq!(asked, expected, "{operations:?} for {size} bytes");
        files::assert_same(&trap.path("f"), &trap.path("copy"));
        trap.assert_clean();
    }
}

/// The object is archived: asked for once, and the command that restores it is said.
#[test]
fn trap_24_an_archived_object_is_told_with_the_command_that_restores_it() {
    let trap = Trap::with_object(1_000);
    trap.misbehave(Rule::on("GetObject").then(Action::answer(403, "InvalidObjectState")));
    let said = trap.cp(DOWN).run().failed(1);
    assert_eq!(
        said,
        "download s3://bucket/f: the object is archived; restore it first, with: aws s3api \
         restore-object --bucket bucket --key f --restore-request '{\"Days\":7}'"
    );
    assert_eq!(trap.fired(), [1]);
    trap.assert_no_copy();
}

/// An object under a customer's key: every request that needs the key has it, and none without TLS.
#[test]
fn trap_25_a_customers_key_goes_along_and_never_in_the_open() {
    let trap = Trap::of(Sandbox::with_tls());
    let with_key = |line: &str, more: &str| {
        let run = trap.cp(&format!("{line} {more} --sse-c-key-env KEY")).env("KEY", CUSTOMER_KEY);
        run.env("AWS_CA_BUNDLE", trap.ca_bundle()).run()
    };
    let operations = [
        "PutObject",
        "CreateMultipartUpload",
        "UploadPart",
        "CompleteMultipartUpload",
        "HeadObject",
        "GetObject",
    ];
    let key = "x-amz-server-side-encryption-customer-key";
    let rules = [
        Rule::on_any(operations).header(key).then(noted()),
        Rule::on_any(operations).then(noted()),
    ];
    trap.misbehave(rules);
    for size in [1_000, 3 * PART] {
        trap.file("f", size);
        with_key(UP, "--verify require").succeeded_silently();
        with_key(DOWN, "--verify require").succeeded_silently();
        files::assert_same(&trap.path("f"), &trap.path("copy"));
    }
    let fired = trap.fired();
    assert!(fired[0] >= 12 && fired[1] == 0, "with and without: {fired:?}");
    trap.assert_clean();

    let plain = Trap::with_file(10);
    for line in [UP, DOWN] {
        let run = plain.cp(&format!("{line} --sse-c-key-env KEY")).env("KEY", CUSTOMER_KEY).run();
        assert!(run.failed(2).contains("an SSE-C key must not cross the network unencrypted"));
    }
    assert!(plain.store().stats().requests.is_empty());
}

/// Keys that are no names of files, one at a time: nothing is written outside the folder, and what
/// cannot be a file is refused. Many at once come with listing: there is no command that lists yet.
#[test]
fn trap_26_a_key_that_is_no_file_name_is_refused() {
    let trap = Trap::of(Sandbox::new());
    let source = trap.file("f", 1_000);
    std::fs::create_dir_all(trap.path("in/folder")).expect("made");
    let down = |key: &str| {
        let url = format!("s3://bucket/{key}");
        trap.brigade(["cp", "f", &url]).run().succeeded();
        trap.brigade(["cp", &url, "in/folder/"]).run()
    };
    for key in ["a/..", "..", "a/."] {
        let said = down(key).failed(2);
        assert!(said.contains("cannot be a file's name; name the target file"), "{key}: {said}");
    }
    assert!(down("a/").failed(2).contains("names a bucket or a prefix, not an object"));
    assert_eq!(trap.count("GetObject"), 0);
    // Only the last part of a key names the file.
    for (key, name) in [("../x", "x"), ("/y", "y"), ("a//b", "b"), ("c/t\tn\ne", "t\tn\ne")] {
        down(key).succeeded();
        files::assert_same(&source, &trap.path("in/folder").join(name));
    }
    let names = |folder: &Path| {
        let entries = std::fs::read_dir(folder).expect("a folder").flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&trap.path("in/folder")), ["b", "t\tn\ne", "x", "y"]);
    assert_eq!(names(&trap.path("in")), ["folder"]);
    assert_eq!(names(&trap.folder()), ["f", "in"]);
    trap.assert_clean();
}

/// Stores that do not know how to encode keys, or refuse to: they are taken as they come.
#[test]
fn trap_26_keys_are_read_as_the_store_writes_them() {
    let ignores = Rule::on("ListObjectsV2").then(Action::RemoveQuery(vec!["encoding-type".into()]));
    let refuses = Rule::on("ListObjectsV2").times(1).then(Action::answer(501, "NotImplemented"));
    for rule in [ignores, refuses] {
        let trap = Trap::of(Sandbox::new());
        trap.file("f", 1);
        for key in ["a&b", "a%2Bb+c", "a/../b<c>", "\u{fc} \u{1f600}"] {
            trap.brigade(["cp", "f", &format!("s3://bucket/{key}")]).run().succeeded();
        }
        trap.misbehave(rule);
        let rows = trap.brigade(["ls", "s3://bucket", "-r", "--json"]).run().succeeded().json();
        let keys: Vec<&str> = rows.iter().filter_map(|row| row["key"].as_str()).collect();
        assert_eq!(keys, ["a%2Bb+c", "a&b", "a/../b<c>", "\u{fc} \u{1f600}"]);
        assert!(trap.fired()[0] > 0);
    }
}

/// A listing that fails half-way: what came is shown, the end is an error, and nothing is summed up.
#[test]
fn trap_27_half_a_listing_is_no_listing() {
    let trap = Trap::pretending(2_500);
    trap.misbehave(Rule::on("ListObjectsV2").from_nth(2).then(Action::answer(403, "AccessDenied")));
    let run = trap.brigade(["ls", "s3://bucket", "-r", "--summarize"]).run();
    assert_eq!(run.text().lines().count(), 1_000, "{run}");
    let said = run.failed(5);
    assert!(said.starts_with("list s3://bucket/: AccessDenied: "), "{said}");
    assert!(said.contains("; it takes s3:ListBucket; check the credentials"), "{said}");
    trap.brigade(["du", "s3://bucket"]).run().failed(5);
    // What passes is asked for again.
    trap.misbehave(Rule::on("ListObjectsV2").every(2).then(Action::answer(503, "SlowDown")));
    assert_eq!(trap.listed("").lines().count(), 2_500);
}

/// 200 with failures inside: each key that failed is told with its reason, the others are gone, and the
/// code says that it was in part.
#[test]
fn trap_28_keys_that_fail_inside_a_success_are_told() {
    let trap = Trap::with_file(1);
    for key in ["a", "b", "locked/1", "locked/2"] {
        trap.cp(&format!("f s3://bucket/d/{key}")).run().succeeded();
    }
    trap.misbehave(
        Rule::on("DeleteObjects").then(Action::refuse_key("d/locked/*", "AccessDenied")),
    );
    let run = trap.brigade(["rm", "-r", "s3://bucket/d", "--json"]).run();
    assert_eq!((run.code(), trap.count("DeleteObjects")), (3, 1), "{run}");
    let lines = run.json();
    let of = |event: &str| -> Vec<_> {
        let told = lines.iter().filter(|line| line["event"] == event);
        told.map(|line| line["key"].as_str().expect("a key").to_owned()).collect()
    };
    assert_eq!(of("deleted"), ["d/a", "d/b"]);
    assert_eq!(of("delete_failed"), ["d/locked/1", "d/locked/2"]);
    let sum = lines.last().expect("a sum");
    assert_eq!((&sum["deleted"], &sum["failed"]), (&2.into(), &2.into()), "{run}");
    for key in ["d/locked/1", "d/locked/2"] {
        let line = format!("brigade: error: delete s3://bucket/{key}: ");
        assert!(run.stderr.contains(&line), "{run}");
    }
    assert!(run.stderr.contains("s3:DeleteObject"), "{run}");
    trap.behave();
    for (key, code) in [("a", 4), ("b", 4), ("locked/1", 0), ("locked/2", 0)] {
        let looked = trap.brigade(["stat", &format!("s3://bucket/d/{key}")]).run();
        assert_eq!(looked.code(), code, "{looked}");
    }
    // One key alone ends as its failure does.
    let only = Action::answer(403, "AccessDenied");
    trap.misbehave(Rule::on_any(["DeleteObjects", "DeleteObject"]).then(only));
    trap.brigade(["rm", "s3://bucket/d/locked/1"]).run().failed(5);
}

/// A late duplicate of a part took its place under another `ETag`, and Complete answers
/// `InvalidPart`: the parts are listed, and the listed `ETag`s are good.
#[test]
fn trap_29_a_part_under_another_etag_is_completed_as_listed() {
    let trap = Trap::with_file(4 * PART);
    let other = Action::set_header("ETag", "\"0123456789abcdef0123456789abcdef\"");
    let rules = [
        Rule::on("UploadPart").part(3).then(other),
        // The store itself finds that it does not fit.
        Rule::on("CompleteMultipartUpload").then(noted()),
        Rule::on("ListParts").then(noted()),
    ];
    trap.misbehave(rules);
    let report = trap.upload("--verify require");
    assert_eq!((trap.fired(), &report["verified"]), (vec![1, 2, 1], &"full-object".into()));
    assert_eq!(trap.count("UploadPart"), 4);
}

/// The duplicate has other bytes: that part is sent again.
#[test]
fn trap_29_a_part_with_other_bytes_is_sent_again() {
    let trap = Trap::with_file(4 * PART);
    let damage = Rule::on("UploadPart")
        .part(3)
        .nth(1)
        .then(Action::flip_request(9))
        .then(Action::remove_request_header("x-amz-checksum-*"));
    trap.misbehave(damage);
    let report = trap.upload("--verify require");
    assert_eq!((trap.fired(), &report["verified"]), (vec![1], &"full-object".into()));
    assert_eq!((trap.count("UploadPart"), trap.count("CompleteMultipartUpload")), (5, 2));
}

// 30. A listing out of order comes with listing: there is no command that lists yet.

/// A store that lists out of order: every key comes all the same, none is taken for listed, and the
/// listing says so to who would compare it.
#[test]
fn trap_30_keys_out_of_order_are_noticed() {
    let trap = Trap::pretending(8_000);
    trap.misbehave(
        Rule::on("ListObjectsV2").then(Action::ReverseElements(vec!["Contents".into()])),
    );
    let text = trap.listed("");
    let mut names: Vec<&str> = text.lines().filter_map(|line| line.rsplit(' ').next()).collect();
    assert!(!names.is_sorted());
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 8_000);
    // Never cut: not a page more.
    assert_eq!(trap.count("ListObjectsV2"), 8);
    let mut listing = trap.session().bucket("bucket").list("", ListOptions::default());
    let first = block_on(listing.next_batch()).expect("a page").expect("of keys");
    assert_eq!((first.len(), listing.is_ordered()), (1_000, false));
}

/// The client dies when the store has begun the upload and nobody knows its id: the next run knows
/// that there may be one, and aborts it.
#[test]
fn trap_31_an_upload_whose_id_nobody_heard_is_found_and_aborted() {
    let trap = Trap::with_file(3 * PART);
    trap.kill_at_create("", 1);
    trap.upload("");
    assert!(trap.count("AbortMultipartUpload") >= 1);
}

/// There are more of them than this client can have begun: they are only told.
#[test]
fn trap_31_uploads_of_unclear_ownership_are_only_told() {
    let trap = Trap::with_file(3 * PART);
    trap.kill_at_create("", 1);
    // Somebody else, whose records are not here, died in the same way.
    trap.kill_at_create("--manifest-dir theirs", 2);
    let report = trap.cp(&format!("{UP} --json")).run().report();
    assert_warns(
        &report,
        "2 unfinished uploads of this key may have been begun by requests whose answers were lost, \
         or by somebody else: see brigade uploads list s3://bucket/f",
    );
    assert_eq!(trap.count("AbortMultipartUpload"), 0);
    assert_eq!(trap.store().stats().unfinished_uploads, 2);
    trap.abort_uploads(2);
    trap.download("");
}

/// No right to list the parts of an upload that is resumed: what is recorded is believed, because
/// the store compares at the end, and the permission is named.
#[test]
fn trap_32_without_the_right_to_list_parts_an_upload_goes_on() {
    let trap = Trap::killed_upload(6, 4);
    trap.misbehave(Rule::on("ListParts").then(denied()));
    let report = trap.upload("--verify require");
    assert_eq!((&report["resumed_bytes"], trap.fired()), (&(4 * PART).into(), vec![1]));
    assert_warns(
        &report,
        "could not be listed (AccessDenied: A fault that was asked for.; it takes \
         s3:ListMultipartUploadParts)",
    );
}

/// The same where the store wants other parts than it acknowledged: nothing tells which.
#[test]
fn trap_32_without_the_right_to_list_parts_a_refused_completion_is_told() {
    let trap = Trap::with_file(3 * PART);
    let other = Action::set_header("ETag", "\"0123456789abcdef0123456789abcdef\"");
    let rules = [Rule::on("UploadPart").part(2).then(other), Rule::on("ListParts").then(denied())];
    trap.misbehave(rules);
    let said = trap.cp(&format!("{UP} {UNRECORDED}")).run().failed_in_the_end(1);
    assert!(said.contains("InvalidPart"), "{said}");
    assert!(said.contains("which ones the store has could not be found out"), "{said}");
    assert!(said.contains("it takes s3:ListMultipartUploadParts"), "{said}");
    assert!(trap.fired()[0] == 1 && trap.fired()[1] >= 1);
    trap.assert_nothing_stored();
}

/// No right to look at the object: there is nothing to go on with, and the permission is named.
#[test]
fn trap_32_without_the_right_to_look_a_download_names_the_permission() {
    let trap = Trap::with_object(2 * PART);
    trap.misbehave(Rule::on("HeadObject").then(denied()));
    let said = trap.cp(DOWN).run().failed(5);
    assert_eq!(
        said,
        "download s3://bucket/f: access denied; it takes s3:GetObject; check the credentials and \
         their permissions"
    );
    assert_eq!((trap.fired(), trap.count("GetObject")), (vec![1], 0));
    trap.assert_no_copy();
}

/// The same after an upload whose answer had no checksum: it is there, and unproven.
#[test]
fn trap_32_without_the_right_to_look_an_upload_is_unverified() {
    let trap = Trap::with_file(2 * PART);
    let silent = Action::remove_element("Checksum*");
    let complete = Rule::on("CompleteMultipartUpload").then(silent);
    trap.misbehave([complete, Rule::on("HeadObject").then(denied())]);
    let report = trap.upload("");
    assert_eq!((trap.fired(), &report["verified"]), (vec![1, 1], &"unverified".into()));
    assert_warns(
        &report,
        "the stored object could not be looked at: access denied; it takes s3:GetObject",
    );
    assert_warns(&report, "unverified: the store returned no crc32 checksum");
}

/// The same after a lost reply to Complete: whether it is there is not known.
#[test]
fn trap_32_without_the_right_to_look_a_lost_reply_stays_unsettled() {
    let trap = Trap::with_file(2 * PART);
    let complete = || Rule::on("CompleteMultipartUpload");
    trap.misbehave([
        complete().nth(1).then(Action::swallow_response()),
        complete().then(Answer::new(404, "NoSuchUpload")),
        Rule::on("HeadObject").then(denied()),
    ]);
    let said = trap.cp(UP).run().failed(4);
    let unknown = "it is not known whether the object was stored (access denied; it takes \
                   s3:GetObject): look at it before trying again";
    assert!(said.contains(unknown), "{said}");
    assert_eq!(trap.fired(), [1, 1, 1]);
    trap.assert_stored();
}

/// No right to the object's attributes, where only they tell the sizes of its parts: it arrives,
/// unproven, and the permission is named.
#[test]
fn trap_32_without_the_right_to_attributes_a_download_is_unverified() {
    let trap = Trap::with_file(2 * PART + 1_000);
    // Its checksum is over parts, of sizes that nobody would guess.
    trap.upload("--store-profile generic");
    let head = Rule::on("HeadObject").then(Action::remove_header("x-amz-mp-parts-count"));
    trap.misbehave([head, Rule::on("GetObjectAttributes").then(denied())]);
    let line = format!("{DOWN} --json");
    let report = trap.cp(&line).run().report();
    trap.assert_copied();
    assert!(trap.fired()[1] >= 1, "{:?}", trap.fired());
    assert_eq!(report["verified"], "unverified", "{report}");
    assert_warns(&report, "it takes s3:GetObjectAttributes");
}

/// A look that gives no `ETag`: it goes on, and what would not be noticed is said.
#[test]
fn trap_32_without_an_etag_an_overwritten_object_would_not_be_noticed() {
    let trap = Trap::with_object(3 * PART);
    trap.misbehave(Rule::on("HeadObject").then(Action::remove_header("ETag")));
    let report = trap.download("--verify require");
    assert_warns(
        &report,
        "the store gave no ETag: an object overwritten during the download would not be noticed",
    );
    assert_eq!((trap.fired(), &report["verified"]), (vec![1], &"full-object".into()));
}

/// Changes nothing that matters: for rules that only count.
fn noted() -> Action {
    Action::set_header("x-noted", "yes")
}

fn denied() -> Action {
    Action::answer(403, "AccessDenied")
}

fn refusing_checksums(status: u16, code: &str) -> Rule {
    let operations = ["PutObject", "CreateMultipartUpload", "UploadPart"];
    let checksums = Rule::on_any(operations).header("x-amz-checksum-*");
    checksums.then(Action::answer(status, code))
}

/// XML elements of an answer, with other texts.
fn set_elements<const N: usize>(elements: [(&str, &str); N]) -> Action {
    Action::SetElements(elements.map(|(name, text)| (name.to_owned(), text.to_owned())).into())
}

#[track_caller]
fn assert_warns(report: &Value, of: &str) {
    let warnings = report["warnings"].as_array().expect("a list");
    let mut texts = warnings.iter().filter_map(Value::as_str);
    assert!(texts.any(|warning| warning.contains(of)), "{of}: {report}");
}
