//! `brigade stat`: what the store tells of objects and buckets.

use brigade_store::faults::{Action, Rule};
use brigade_tests::cli::{Brigade, CUSTOMER_KEY, Sandbox};
use brigade_tests::traps::Trap;

fn stat(sandbox: &Sandbox, line: &str) -> Brigade {
    sandbox.brigade(["stat"].into_iter().chain(line.split_whitespace()))
}

#[test]
fn an_object_is_told_with_all_that_is_known() {
    let trap = Trap::with_file(11 << 20);
    let more =
        "--part-size 5MiB --content-type text/x --metadata note=red --storage-class STANDARD_IA";
    trap.cp(&format!("f s3://bucket/f {more}")).run().succeeded();
    let run = stat(&trap, "s3://bucket/f --json").run().succeeded_silently();
    let told = &run.json()[0];
    assert_eq!(told["event"], "object", "{run}");
    for (field, value) in [
        ("url", "s3://bucket/f"),
        ("bucket", "bucket"),
        ("key", "f"),
        ("content_type", "text/x"),
        ("storage_class", "STANDARD_IA"),
    ] {
        assert_eq!(told[field], value, "{run}");
    }
    assert_eq!((&told["size_bytes"], &told["parts"]), (&(11 << 20).into(), &3.into()), "{run}");
    assert_eq!(told["metadata"]["note"], "red", "{run}");
    let sum = &told["checksums"][0];
    assert_eq!(
        (&sum["algorithm"], &sum["type"]),
        (&"crc32".into(), &"FULL_OBJECT".into()),
        "{run}"
    );
    assert!(told["modified_unix_s"].is_u64() && told["etag"].is_string(), "{run}");
    let run = stat(&trap, "s3://bucket/f").run().succeeded_silently();
    let text = run.text();
    assert!(
        text.starts_with("s3://bucket/f\n  size           11.0 MiB (11534336 bytes)\n"),
        "{run}"
    );
    for line in
        ["  parts          3\n", "  content type   text/x\n", "  storage class  STANDARD_IA\n"]
    {
        assert!(text.contains(line), "{line}{run}");
    }
    assert!(text.contains(", full-object\n") && text.contains("note=red"), "{run}");
    assert_eq!(stat(&trap, "s3://bucket/f --quiet").run().succeeded_silently().text(), "");
    assert_eq!(trap.count("GetObject"), 0);
}

#[test]
fn a_bucket_is_there_or_not() {
    let trap = Trap::of(Sandbox::new());
    let run = stat(&trap, "s3://bucket s3://bucket/ --json").run().succeeded_silently();
    assert_eq!(run.json().len(), 2, "{run}");
    assert_eq!(
        (&run.json()[0]["event"], &run.json()[0]["bucket"]),
        (&"bucket".into(), &"bucket".into())
    );
    assert!(stat(&trap, "s3://missing").run().failed(4).contains("no such bucket"));
    let told = Action::set_header("x-amz-bucket-region", "eu-west-1");
    trap.misbehave(Rule::on("HeadBucket").then(told));
    let run = stat(&trap, "s3://bucket").run().succeeded_silently();
    assert_eq!(run.text(), "s3://bucket\n  region         eu-west-1\n");
}

#[test]
fn what_cannot_be_seen_has_its_code() {
    let trap = Trap::with_object(9);
    assert!(stat(&trap, "s3://bucket/none").run().failed(4).contains("no such key"));
    assert!(stat(&trap, "s3://missing/f").run().failed(4).contains("no such bucket"));
    let run = stat(&trap, "s3://bucket/f s3://bucket/none").run();
    assert!(run.text().starts_with("s3://bucket/f\n"), "{run}");
    assert_eq!(run.code(), 3, "{run}");
    let wrong = stat(&trap, "s3://bucket/f").env("AWS_SECRET_ACCESS_KEY", "wrong").run();
    assert_eq!(wrong.code(), 5, "{wrong}");
    stat(&trap, "f").run().failed(2);
    let said = stat(&trap, "s3://bucket/f s3://bucket/f --version-id x").run().failed(2);
    assert!(said.contains("one key"), "{said}");
}

#[test]
fn a_customer_s_key_opens_what_it_locked() {
    let sandbox = Sandbox::with_tls();
    let ca = sandbox.ca_bundle();
    sandbox.file("f", 9);
    let with = |brigade: Brigade| brigade.env("KEY", CUSTOMER_KEY).env("AWS_CA_BUNDLE", &ca);
    with(sandbox.cp("f s3://bucket/f --sse-c-key-env KEY")).run().succeeded();
    let run = with(stat(&sandbox, "s3://bucket/f --sse-c-key-env KEY --json")).run().succeeded();
    assert_eq!(run.json()[0]["encryption"], "SSE-C", "{run}");
    let said = with(stat(&sandbox, "s3://bucket/f")).run().failed(1);
    assert!(said.contains("SSE-C"), "{said}");
    let cat = |line: &str| with(sandbox.brigade(["cat"].into_iter().chain(line.split(' '))));
    let run = cat("s3://bucket/f --sse-c-key-env KEY").run().succeeded_silently();
    assert_eq!(run.stdout, std::fs::read(sandbox.path("f")).expect("read"));
}
