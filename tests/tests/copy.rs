//! Copies from object to object, by the store and through this machine, and moves: the bytes are the same,
//! what describes them comes along, nothing is left behind, and no source goes before its copy is proven.

use std::collections::BTreeMap;
use std::time::Duration;

use brigade::integrity::Verified;
use brigade::{
    ContentHeaders, CopyOptions, Encryption, ErrorKind, ObjectInfo, Session, UploadOptions, Verify,
};
use brigade_store::faults::{Action, Answer, Place, Rule};
use brigade_store::{Backend, Options};
use brigade_tests::cli::{BUCKET, CUSTOMER_KEY, PART, Sandbox, eventually};
use brigade_tests::files;
use futures::executor::block_on;
use rustix::process::Signal;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(20);

/// A store whose `CopyObject` takes 5 MiB at most, so that a larger copy goes in parts.
const SMALL: &str = "base = \"brigade\"\nmax_single_put_bytes = \"5MiB\"\n";

/// A sandbox with the object `f`, of these bytes, uploaded in parts of 5 MiB, and the profile `small.toml`.
fn with_object(size_bytes: u64) -> Sandbox {
    let sandbox = Sandbox::new();
    std::fs::write(sandbox.path("small.toml"), SMALL).expect("written");
    sandbox.file("f", size_bytes);
    sandbox.cp("f s3://bucket/f --part-size 5MiB").run().succeeded();
    sandbox
}

fn count(sandbox: &Sandbox, operation: &str) -> u64 {
    sandbox.store().stats().count(operation)
}

#[track_caller]
fn copied(sandbox: &Sandbox, line: &str) -> Value {
    sandbox.cp(&format!("{line} --json")).run().report()
}

/// Fails unless `object` holds the bytes of the file `f`, and nothing else is left.
#[track_caller]
fn assert_same(sandbox: &Sandbox, object: &str) {
    sandbox.cp(&format!("s3://bucket/{object} back")).run().succeeded();
    files::assert_same(&sandbox.path("f"), &sandbox.path("back"));
    sandbox.assert_clean();
}

fn info(sandbox: &Sandbox, key: &str) -> brigade::Result<ObjectInfo> {
    block_on(sandbox.session().bucket(BUCKET).object(key).info())
}

fn tags(sandbox: &Sandbox, key: &str) -> BTreeMap<String, String> {
    block_on(sandbox.session().bucket(BUCKET).object(key).tags()).expect("readable")
}

fn is_there(sandbox: &Sandbox, key: &str) -> bool {
    match info(sandbox, key) {
        Ok(_) => true,
        Err(error) if error.kind() == ErrorKind::NotFound => false,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn the_store_copies_any_size_by_itself() {
    for size in [0, 1, PART - 1, PART, PART + 1, 3 * PART] {
        let sandbox = with_object(size);
        let fetched = count(&sandbox, "GetObject");
        let report = copied(&sandbox, "s3://bucket/f s3://bucket/copies/");
        assert_eq!((&report["operation"], &report["bytes"]), (&"copy".into(), &size.into()));
        assert_eq!(report["target"], "s3://bucket/copies/f");
        assert_eq!(report["verified"], "full-object", "{report}");
        assert_eq!((count(&sandbox, "CopyObject"), count(&sandbox, "GetObject")), (1, fetched));
        assert_same(&sandbox, "copies/f");
    }
}

#[test]
fn a_large_copy_goes_in_the_parts_of_its_source() {
    let sandbox = with_object(4 * PART + 1);
    let line = "s3://bucket/f s3://bucket/g --store-profile small.toml";
    let report = copied(&sandbox, line);
    assert_eq!((&report["parts"], &report["part_size_bytes"]), (&5.into(), &PART.into()));
    assert_eq!(
        (report["verified"].as_str(), report["retries"].as_u64()),
        (Some("full-object"), Some(0))
    );
    assert_eq!((count(&sandbox, "UploadPartCopy"), count(&sandbox, "GetObject")), (5, 0));
    assert_same(&sandbox, "g");
    // Over the same parts, sums over parts say the same.
    let up = "f s3://bucket/sha --part-size 5MiB --checksum-algorithm sha256";
    sandbox.cp(up).run().succeeded();
    let report = copied(&sandbox, "s3://bucket/sha s3://bucket/h --store-profile small.toml");
    assert_eq!(report["verified"], "composite", "{report}");
    assert_same(&sandbox, "h");
    // Over others, MD5s and sums over parts do not, and nothing is claimed.
    let line = "s3://bucket/sha s3://bucket/i --store-profile small.toml --part-size 6MiB";
    let report = copied(&sandbox, line);
    assert_eq!(report["verified"], "unverified", "{report}");
    let said = sandbox.cp(&format!("{line} --verify require")).run().failed(7);
    assert!(said.contains("copied, but unverified: "), "{said}");
    assert_same(&sandbox, "i");
}

#[test]
fn terabytes_are_copied_without_a_byte_through_here() {
    let options = Options { backend: Backend::Synthetic, ..Sandbox::options() };
    let sandbox = Sandbox::with(options);
    let report = copied(&sandbox, "s3://bucket/5GiB s3://bucket/one");
    assert_eq!((&report["parts"], &report["verified"]), (&1.into(), &"full-object".into()));
    for (size, parts) in [("6GiB", 48), ("1TiB", 8192)] {
        let before = count(&sandbox, "UploadPartCopy");
        let report = copied(&sandbox, &format!("s3://bucket/{size} s3://bucket/many"));
        assert_eq!((&report["parts"], &report["verified"]), (&parts.into(), &"full-object".into()));
        assert_eq!(count(&sandbox, "UploadPartCopy") - before, parts);
        assert_eq!(info(&sandbox, "many").expect("there").size_bytes, report["bytes"]);
    }
    assert_eq!(count(&sandbox, "GetObject"), 0);
    sandbox.assert_clean();
}

fn described() -> UploadOptions {
    UploadOptions {
        part_size_bytes: Some(PART),
        content_type: Some("text/x-test".into()),
        headers: ContentHeaders {
            cache_control: Some("max-age=7".into()),
            content_disposition: Some("attachment".into()),
            content_encoding: Some("zstd".into()),
            content_language: Some("de".into()),
            expires: Some("Wed, 21 Oct 2026 07:28:00 GMT".into()),
        },
        metadata: [("origin".to_owned(), "lab 3".to_owned())].into(),
        tags: [("a b".to_owned(), "1&2=3".to_owned()), ("c".to_owned(), String::new())].into(),
        storage_class: Some("GLACIER_IR".into()),
        encryption: Encryption::S3,
        ..UploadOptions::default()
    }
}

#[track_caller]
fn assert_described_alike(source: &ObjectInfo, copy: &ObjectInfo, is_inside: bool) {
    let own = |info: &ObjectInfo| {
        let mut metadata = info.metadata.clone();
        metadata.remove("brigade-token");
        metadata
    };
    assert_eq!((&copy.content_type, &copy.headers), (&source.content_type, &source.headers));
    assert_eq!(copy.headers.content_encoding.as_deref(), Some("zstd"));
    assert!(copy.headers.expires.is_some());
    assert_eq!(own(copy), own(source));
    assert_eq!(copy.storage_class.as_deref(), Some("GLACIER_IR"));
    if is_inside {
        assert_eq!(copy.encryption, source.encryption);
    }
}

#[test]
fn what_describes_an_object_comes_along() {
    let (sandbox, other) = (with_object(2 * PART), Sandbox::new());
    let object = sandbox.session().bucket(BUCKET).object("d");
    block_on(object.upload_file_with(sandbox.path("f"), described())).expect("uploaded");
    let source = info(&sandbox, "d").expect("there");
    copied(&sandbox, "s3://bucket/d s3://bucket/whole");
    copied(&sandbox, "s3://bucket/d s3://bucket/parts --store-profile small.toml");
    for key in ["whole", "parts"] {
        assert_described_alike(&source, &info(&sandbox, key).expect("there"), true);
        assert_eq!(tags(&sandbox, key), described().tags);
    }
    let (from, to) = (sandbox.store().endpoint_url(), other.store().endpoint_url());
    let run = sandbox.cp(&format!("s3://bucket/d s3://bucket/d --source-endpoint-url {from}"));
    run.endpoint(to).run().succeeded();
    assert_described_alike(&source, &info(&other, "d").expect("there"), false);
    assert_eq!(tags(&other, "d"), described().tags);
}

#[test]
fn what_is_asked_for_takes_its_place() {
    let sandbox = with_object(2 * PART);
    let object = sandbox.session().bucket(BUCKET).object("d");
    block_on(object.upload_file_with(sandbox.path("f"), described())).expect("uploaded");
    for (more, key) in [("", "a.json"), ("--store-profile small.toml", "b.json")] {
        let line =
            format!("s3://bucket/d s3://bucket/{key} --metadata x=1 --storage-class STANDARD_IA");
        copied(&sandbox, &format!("{line} {more}"));
        let copy = info(&sandbox, key).expect("there");
        assert_eq!(copy.content_type.as_deref(), Some("application/json"));
        assert_eq!(copy.headers, ContentHeaders::default());
        assert_eq!(tags(&sandbox, key), described().tags);
        assert_eq!(copy.metadata.get("x").map(String::as_str), Some("1"));
        assert_eq!(copy.metadata.get("origin"), None);
        assert_eq!(copy.storage_class.as_deref(), Some("STANDARD_IA"));
    }
}

#[test]
fn tags_that_may_not_be_read_are_told() {
    let sandbox = with_object(2 * PART);
    let denied = Rule::on("GetObjectTagging").then(Action::answer(403, "AccessDenied"));
    sandbox.store().faults().set(denied).expect("rules");
    let report = copied(&sandbox, "s3://bucket/f s3://bucket/g --store-profile small.toml");
    let warning = report["warnings"][0].as_str().expect("a warning");
    assert!(warning.contains("tags") && warning.contains("s3:GetObjectTagging"), "{warning}");
    sandbox.store().faults().clear();
    assert_same(&sandbox, "g");
}

#[test]
fn a_copy_onto_itself_has_to_change_something() {
    let sandbox = with_object(10);
    let said = sandbox.cp("s3://bucket/f s3://bucket/f").run().failed(2);
    assert!(said.contains("nothing about it would change"), "{said}");
    copied(&sandbox, "s3://bucket/f s3://bucket/ --storage-class STANDARD_IA");
    let class = info(&sandbox, "f").expect("there").storage_class;
    assert_eq!(class.as_deref(), Some("STANDARD_IA"));
    assert_same(&sandbox, "f");
}

#[test]
fn an_object_that_is_there_can_be_left_alone() {
    let sandbox = with_object(2 * PART);
    std::fs::write(sandbox.path("g"), "theirs").expect("written");
    sandbox.cp("g s3://bucket/g").run().succeeded();
    for more in ["", "--store-profile small.toml"] {
        let line = format!("s3://bucket/f s3://bucket/g --if-none-match {more}");
        let said = sandbox.cp(&line).run().failed(6);
        assert!(said.contains("the object exists already"), "{said}");
    }
    assert_eq!(sandbox.cp("s3://bucket/g -").run().succeeded().text(), "theirs");
    sandbox.assert_clean();
}

#[test]
fn a_success_that_is_an_error_is_tried_again() {
    let sandbox = with_object(2 * PART);
    let (time, every) = (Duration::from_millis(50), Duration::from_millis(5));
    for (operation, more) in [("CopyObject", ""), ("UploadPartCopy", "--store-profile small.toml")]
    {
        let fails = |action: Action| Rule::on(operation).nth(1).then(action);
        let error = || Action::answer(200, "InternalError");
        for rule in [
            fails(error()),
            fails(Action::Trickle { time, every }).then(error()),
            fails(Action::Trickle { time, every }),
            fails(Action::Answer(Answer::with_body(200, ""))),
            fails(Action::cut_response_body(40)),
        ] {
            sandbox.store().faults().set(rule).expect("rules");
            let report = copied(&sandbox, &format!("s3://bucket/f s3://bucket/g {more}"));
            assert_eq!(report["verified"], "full-object", "{report}");
            assert_eq!(sandbox.store().faults().fired().total, 1);
            sandbox.store().faults().clear();
            assert_same(&sandbox, "g");
        }
    }
}

#[test]
fn a_source_that_is_overwritten_meanwhile_ends_the_copy() {
    let sandbox = with_object(3 * PART);
    let stall = Rule::on("UploadPartCopy").part(2).then(Action::stall(Place::RequestEnd));
    sandbox.store().faults().set(stall).expect("rules");
    let line = "s3://bucket/f s3://bucket/g --store-profile small.toml";
    let running = sandbox.cp(line).start();
    eventually("a part waits", SOON, || sandbox.store().faults().fired().total == 1);
    sandbox.file("other", 3 * PART);
    std::fs::write(sandbox.path("other"), vec![7; 3 * 5 << 20]).expect("written");
    sandbox.cp("other s3://bucket/f").run().succeeded();
    sandbox.store().faults().release();
    let said = running.wait().failed(6);
    assert!(said.contains("s3://bucket/f was overwritten during the copy"), "{said}");
    sandbox.assert_clean();
    assert!(!is_there(&sandbox, "g"));
}

#[test]
fn a_store_that_cannot_copy_has_it_go_through_here() {
    let sandbox = with_object(2 * PART + 5);
    for (operation, more) in [("CopyObject", ""), ("UploadPartCopy", "--store-profile small.toml")]
    {
        let rule = Rule::on(operation).then(Action::answer(501, "NotImplemented"));
        sandbox.store().faults().set(rule).expect("rules");
        let report = copied(&sandbox, &format!("s3://bucket/f s3://bucket/g {more}"));
        assert_eq!(report["verified"], "full-object", "{report}");
        let warning = report["warnings"][0].as_str().expect("a warning");
        assert!(warning.contains("cannot copy this by itself"), "{warning}");
        sandbox.store().faults().clear();
        assert_same(&sandbox, "g");
    }
}

/// Two stores, the first of which has the object `f`.
struct Two {
    from: Sandbox,
    to: Sandbox,
}

impl Two {
    fn with_object(size_bytes: u64) -> Self {
        Self { from: with_object(size_bytes), to: Sandbox::new() }
    }

    fn cp(&self, key: &str, more: &str) -> brigade_tests::cli::Brigade {
        let from = self.from.store().endpoint_url();
        let line =
            format!("s3://bucket/{key} s3://bucket/{key} --source-endpoint-url {from} {more}");
        self.to.cp(&line)
    }

    #[track_caller]
    fn assert_same(&self, key: &str) {
        self.to.cp(&format!("s3://bucket/{key} back")).run().succeeded();
        files::assert_same(&self.from.path("f"), &self.to.path("back"));
        self.to.assert_clean();
    }
}

#[test]
fn between_stores_the_bytes_are_the_same_and_proven_twice() {
    for size in [0, 1, PART, PART + 1, 5 * PART + 77] {
        let two = Two::with_object(size);
        let report = two.cp("f", "--json").run().report();
        assert_eq!((&report["operation"], &report["bytes"]), (&"copy".into(), &size.into()));
        assert_eq!(report["verified"], "full-object", "{report}");
        assert_eq!(report["warnings"], Value::Array(Vec::new()));
        two.assert_same("f");
    }
}

#[test]
fn whatever_the_source_has_recorded_is_compared() {
    let two = Two::with_object(3 * PART + 5);
    let put = |key: &str, more: &str| {
        two.from.cp(&format!("f s3://bucket/{key} {more}")).run().succeeded();
    };
    put("composite", "--part-size 5MiB --checksum-algorithm sha256");
    put("whole", "--part-size 100MiB --checksum-algorithm sha256");
    put("md5s", "--part-size 6MiB --checksum-algorithm md5");
    put("md5", "--part-size 100MiB --checksum-algorithm md5");
    for (key, tier) in [
        ("composite", "composite"),
        ("whole", "full-object"),
        ("md5s", "full-object"),
        ("md5", "full-object"),
    ] {
        if key.starts_with("md5") {
            // Nothing but the ETag is told of it.
            let hide = Action::RemoveHeaders(vec!["x-amz-checksum-*".into()]);
            two.from.store().faults().set(Rule::on("HeadObject").then(hide)).expect("rules");
        }
        let report = two.cp(key, "--json --verify require").run().report();
        assert!(report["verified"] == tier || key == "whole", "{key}: {report}");
        assert_ne!(report["verified"], "unverified", "{report}");
        two.assert_same(key);
    }
}

#[test]
fn bytes_that_are_not_the_sources_reach_no_bucket() {
    let two = Two::with_object(3 * PART);
    let flip = Rule::on("GetObject").range_start(PART).then(Action::flip_response(77));
    two.from.store().faults().set(flip).expect("rules");
    let said = two.cp("f", "").run().failed(7);
    assert!(said.contains("the bytes that arrived are not the bytes that were stored"), "{said}");
    assert!(!is_there(&two.to, "f"));
    two.to.assert_clean();
}

#[test]
fn parts_that_fail_on_either_side_are_moved_again() {
    let two = Two::with_object(4 * PART);
    let fails = |operation: &str| {
        Rule::on(operation).per_part().nth(1).then(Action::answer(503, "SlowDown"))
    };
    two.from.store().faults().set(fails("GetObject")).expect("rules");
    two.to.store().faults().set(fails("UploadPart")).expect("rules");
    let report = two.cp("f", "--json").run().report();
    assert_eq!((&report["retries"], &report["verified"]), (&8.into(), &"full-object".into()));
    two.assert_same("f");
}

#[test]
fn an_overwritten_source_ends_it_between_stores_too() {
    let two = Two::with_object(3 * PART);
    let stall = Rule::on("GetObject").range_start(PART).then(Action::stall(Place::RequestEnd));
    two.from.store().faults().set(stall).expect("rules");
    let running = two.cp("f", "").start();
    eventually("a range waits", SOON, || two.from.store().faults().fired().total == 1);
    std::fs::write(two.from.path("other"), vec![7; 3 * 5 << 20]).expect("written");
    two.from.cp("other s3://bucket/f").run().succeeded();
    two.from.store().faults().release();
    let said = running.wait().failed(6);
    assert!(said.contains("overwritten"), "{said}");
    assert!(!is_there(&two.to, "f"));
    two.to.assert_clean();
}

#[test]
fn a_copy_that_was_killed_is_found_and_aborted() {
    let sandbox = with_object(3 * PART);
    let stall = Rule::on("UploadPartCopy").part(3).then(Action::stall(Place::RequestEnd));
    sandbox.store().faults().set(stall).expect("rules");
    let line = "s3://bucket/f s3://bucket/g --store-profile small.toml";
    let running = sandbox.cp(line).start();
    eventually("a part waits", SOON, || sandbox.store().faults().fired().total == 1);
    running.signal(Signal::KILL);
    assert_eq!(running.wait().code(), -9);
    sandbox.store().faults().clear();
    let listed = sandbox.brigade(["uploads", "list", "--json"]).run().succeeded();
    let upload = listed.json().into_iter().next().expect("one");
    assert_eq!(upload["url"], "s3://bucket/g");
    assert_eq!((&upload["here"], &upload["on_store"]), (&true.into(), &true.into()));
    assert_eq!(upload["source"], "s3://bucket/f");
    // Nobody can go on with it, and that is no failure.
    let run = sandbox.brigade(["resume"]).run().succeeded();
    assert!(run.text().contains("it can only be begun anew, or given up"), "{run}");
    // The same copy gives up what it had left.
    sandbox.cp(line).run().succeeded();
    assert_same(&sandbox, "g");
}

#[test]
fn a_customers_key_is_given_for_each_side() {
    let sandbox = Sandbox::with_tls();
    sandbox.file("f", 2 * PART);
    std::fs::write(sandbox.path("small.toml"), SMALL).expect("written");
    let with_key = |line: &str| {
        let run = sandbox.cp(&format!("{line} --ca-bundle {}", sandbox.ca_bundle().display()));
        run.env("KEY", CUSTOMER_KEY)
    };
    with_key("f s3://bucket/f --sse-c-key-env KEY").run().succeeded();
    let source = "--source-sse-c-key-env KEY";
    with_key(&format!("s3://bucket/f s3://bucket/plain {source}")).run().succeeded();
    let both = format!("{source} --sse-c-key-env KEY --store-profile small.toml");
    with_key(&format!("s3://bucket/f s3://bucket/keyed {both}")).run().succeeded();
    with_key("s3://bucket/plain back").run().succeeded();
    files::assert_same(&sandbox.path("f"), &sandbox.path("back"));
    with_key("s3://bucket/keyed again --sse-c-key-env KEY").run().succeeded();
    files::assert_same(&sandbox.path("f"), &sandbox.path("again"));
    with_key("s3://bucket/f s3://bucket/x").run().failed_in_the_end(1);
}

fn mv(sandbox: &Sandbox, line: &str) -> brigade_tests::cli::Brigade {
    sandbox.brigade(["mv"].into_iter().chain(line.split_whitespace()))
}

#[test]
fn a_move_removes_what_it_has_proven() {
    let sandbox = with_object(2 * PART);
    std::fs::copy(sandbox.path("f"), sandbox.path("up")).expect("copied");
    let run = mv(&sandbox, "up s3://bucket/up --part-size 5MiB").run().succeeded();
    assert!(run.text().contains("uploaded up to") && run.text().contains("removed up"), "{run}");
    assert!(!sandbox.path("up").exists());
    assert_same(&sandbox, "up");
    mv(&sandbox, "s3://bucket/up s3://bucket/there").run().succeeded();
    assert!(!is_there(&sandbox, "up"));
    assert_same(&sandbox, "there");
    mv(&sandbox, "s3://bucket/there down").run().succeeded();
    assert!(!is_there(&sandbox, "there"));
    files::assert_same(&sandbox.path("f"), &sandbox.path("down"));
    let other = Sandbox::new();
    let from = sandbox.store().endpoint_url();
    let line = format!("s3://bucket/f s3://bucket/f --source-endpoint-url {from}");
    mv(&other, &line).run().succeeded();
    assert!(!is_there(&sandbox, "f") && is_there(&other, "f"));
    sandbox.assert_clean();
}

#[test]
fn a_move_keeps_what_is_not_proven() {
    let sandbox = with_object(2 * PART);
    let said = mv(&sandbox, "f s3://bucket/g --checksum-algorithm none").run().failed_in_the_end(7);
    assert!(said.contains("was copied to s3://bucket/g and kept"), "{said}");
    assert!(sandbox.path("f").exists());
    let hide = Rule::on("HeadObject")
        .then(Action::RemoveHeaders(vec!["x-amz-checksum-*".into()]))
        .then(Action::set_header("ETag", "\"opaque\""));
    let opaque = Rule::on("GetObject").then(Action::set_header("ETag", "\"opaque\""));
    let opaque = opaque.then(Action::RemoveRequestHeaders(vec!["If-Match".into()]));
    sandbox.store().faults().set([hide, opaque]).expect("rules");
    mv(&sandbox, "s3://bucket/f down").run().failed_in_the_end(7);
    sandbox.store().faults().clear();
    assert!(is_there(&sandbox, "f"));
    // What cannot be removed is an error, too.
    let denied = Rule::on("DeleteObject").then(Action::answer(403, "AccessDenied"));
    sandbox.store().faults().set(denied).expect("rules");
    let said = mv(&sandbox, "s3://bucket/f s3://bucket/h").run().failed_in_the_end(5);
    assert!(said.contains("s3:DeleteObject") && said.contains("and kept"), "{said}");
    sandbox.store().faults().clear();
    assert!(is_there(&sandbox, "f") && is_there(&sandbox, "h"));
}

#[test]
fn a_copy_of_the_stores_own_is_moved_by_its_size_where_that_is_all_there_is() {
    let sandbox = with_object(3 * PART);
    let up = "f s3://bucket/sha --part-size 5MiB --checksum-algorithm sha256";
    sandbox.cp(up).run().succeeded();
    let more = "--store-profile small.toml --part-size 6MiB";
    let said = mv(&sandbox, &format!("s3://bucket/sha s3://bucket/g {more} --verify require"));
    said.run().failed_in_the_end(7);
    assert!(is_there(&sandbox, "sha"));
    let run = mv(&sandbox, &format!("s3://bucket/sha s3://bucket/g {more}")).run().succeeded();
    assert!(run.stderr.contains("their sizes agree"), "{run}");
    assert!(!is_there(&sandbox, "sha"));
    assert_same(&sandbox, "g");
}

#[test]
fn an_object_that_was_overwritten_is_not_removed() {
    let sandbox = with_object(10);
    let object = sandbox.session().bucket(BUCKET).object("f");
    let etag = info(&sandbox, "f").expect("there").etag.expect("an ETag");
    std::fs::write(sandbox.path("g"), "other").expect("written");
    sandbox.cp("g s3://bucket/f").run().succeeded();
    let error = block_on(object.delete_if_unchanged(&etag, None)).expect_err("another");
    assert_eq!(error.kind(), ErrorKind::Changed);
    let etag = info(&sandbox, "f").expect("there").etag.expect("an ETag");
    block_on(object.delete_if_unchanged(&etag, None)).expect("removed");
    assert!(!is_there(&sandbox, "f"));
}

#[test]
fn a_program_copies_between_sessions() {
    let two = Two::with_object(2 * PART + 3);
    let other = two.to.session();
    let source = two.from.session().bucket(BUCKET).object("f");
    let options = CopyOptions { verify: Verify::Require, ..CopyOptions::default() };
    let target = other.bucket(BUCKET).object("f");
    let report = block_on(target.copy_from_object(&source, options.clone())).expect("copied");
    assert_eq!((report.bytes, report.verified), (2 * PART + 3, Verified::FullObject));
    assert!(report.source_etag.is_some());
    let again: Session = other.clone();
    let inside = again.bucket(BUCKET).object("g").copy_from(target.url(), options);
    assert_eq!(block_on(inside).expect("copied").verified, Verified::FullObject);
    assert_eq!(count(&two.to, "CopyObject"), 1);
    two.assert_same("g");
}
