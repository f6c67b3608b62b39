//! `brigade ls` and `brigade du`: what they show of a bucket, as a person, a pipe and a program see it.

use std::path::PathBuf;
use std::process::Stdio;

use brigade::UploadOptions;
use brigade_store::{Backend, Options, Pretended};
use brigade_tests::cli::{BUCKET, Brigade, Sandbox};
use futures::executor::block_on;
use serde_json::Value;

/// Keys with all that keys may have.
const ODD: [&str; 6] = ["a b+c%2F&<\">", "new\nline", "tab\tand\u{1}", "ü/ö", "日本/語", "z//"];

/// A store that lists so many objects of 16 KiB.
fn pretending(objects: u64) -> Sandbox {
    let pretended = Pretended { objects, object_size_bytes: 16 << 10 };
    Sandbox::with(Options { backend: Backend::Synthetic, pretended, ..Sandbox::options() })
}

/// A store with an object of `bytes` under each of these keys.
fn holding(keys: &[&str], bytes: u64) -> Sandbox {
    let sandbox = Sandbox::new();
    let file = sandbox.file("f", bytes);
    let files: Vec<(PathBuf, String)> =
        keys.iter().map(|key| (file.clone(), (*key).to_owned())).collect();
    let bucket = sandbox.session().bucket(BUCKET);
    let report = block_on(bucket.upload_files(files, UploadOptions::default())).expect("uploaded");
    assert!(report.failed.is_empty(), "{report:?}");
    sandbox
}

fn ls(sandbox: &Sandbox, line: &str) -> Brigade {
    sandbox.brigade(["ls"].into_iter().chain(line.split_whitespace()))
}

fn du(sandbox: &Sandbox, line: &str) -> Brigade {
    sandbox.brigade(["du"].into_iter().chain(line.split_whitespace()))
}

/// The last column of each line.
fn names(text: &str) -> Vec<&str> {
    text.lines().map(|line| line.rsplit(' ').next().unwrap_or_default()).collect()
}

fn of_event<'a>(rows: &'a [Value], event: &str) -> Vec<&'a Value> {
    rows.iter().filter(|row| row["event"] == event).collect()
}

#[test]
fn buckets_are_listed_without_a_url() {
    let buckets = vec![BUCKET.into(), "another".into()];
    let sandbox = Sandbox::with(Options { buckets, ..Sandbox::options() });
    let run = ls(&sandbox, "").run().succeeded();
    assert_eq!(names(run.text()), ["another", BUCKET]);
    let rows = ls(&sandbox, "--json").run().succeeded().json();
    assert_eq!((&rows[1]["event"], &rows[1]["bucket"]), (&"bucket".into(), &BUCKET.into()));
    assert!(rows[1]["created"].as_str().expect("a date").ends_with('Z'));
}

#[test]
fn one_level_is_shown_as_aws_does() {
    let sandbox = holding(&["a", "logs/1", "logs/2/x", "logs", "z/"], 1_234);
    let run = ls(&sandbox, "s3://bucket").run().succeeded();
    assert_eq!(names(run.text()), ["a", "logs", "logs/", "z/"]);
    let lines: Vec<&str> = run.text().lines().collect();
    assert!(lines[0].ends_with("          1234 a") && lines[0].starts_with("20"), "{run}");
    assert_eq!(lines[2], "                              PRE logs/");
    // Below a folder its own name goes without saying; what only begins so is shown too.
    assert_eq!(names(ls(&sandbox, "s3://bucket/logs/").run().succeeded().text()), ["1", "2/"]);
    assert_eq!(names(ls(&sandbox, "s3://bucket/lo").run().succeeded().text()), ["logs", "logs/"]);
    let run = ls(&sandbox, "s3://bucket/ -r --human-readable --summarize").run().succeeded();
    let shown = run.text().trim_end();
    assert!(shown.contains("      1.2 KiB logs/2/x\n"), "{shown}");
    assert!(shown.ends_with("\n\n5 objects, 6.0 KiB"), "{shown}");
}

#[test]
fn wildcards_choose_keys() {
    let sandbox = holding(&["l/2025/a.gz", "l/2026/a.gz", "l/2026/a.txt", "l/2026/x/b.gz"], 1);
    let run = ls(&sandbox, "s3://bucket/l/2026*/*.gz").run().succeeded();
    assert_eq!(names(run.text()), ["l/2026/a.gz"]);
    ls(&sandbox, "s3://bucket/l/2026*/*.gz --no-glob").run().failed(4);
    let rows = du(&sandbox, "s3://bucket/l/**.gz --json").run().succeeded().json();
    assert_eq!((&rows[0]["event"], &rows[0]["objects"]), (&"total".into(), &3.into()));
}

#[test]
fn what_is_not_there_has_its_codes() {
    let sandbox = holding(&["a"], 1);
    ls(&sandbox, "s3://bucket/b").run().failed(4);
    ls(&sandbox, "s3://bucket/b/ -r").run().failed(4);
    let said = ls(&sandbox, "s3://no-such-bucket").run().failed(4);
    assert!(said.contains("list s3://no-such-bucket/: no such bucket"), "{said}");
    ls(&sandbox, "bucket").run().failed(2);
    du(&sandbox, "").run().failed(2);
    // A bucket with nothing in it is there.
    assert_eq!(ls(&Sandbox::new(), "s3://bucket").run().succeeded().text(), "");
    let run = du(&Sandbox::new(), "s3://bucket").run().succeeded();
    assert_eq!(run.text().split_whitespace().collect::<Vec<_>>(), ["0", "0", "s3://bucket/"]);
}

#[test]
fn pages_follow_each_other_in_order() {
    let sandbox = pretending(2_500);
    let run = ls(&sandbox, "s3://bucket --recursive").run().succeeded();
    let shown = names(run.text());
    assert_eq!(shown.len(), 2_500);
    assert!(shown.is_sorted());
    assert_eq!((shown[0], shown[2_499]), ("d000000/f000", "d000002/f499"));
    assert_eq!(sandbox.store().stats().count("ListObjectsV2"), 3);
    let run = ls(&sandbox, "s3://bucket").run().succeeded();
    assert_eq!(names(run.text()), ["d000000/", "d000001/", "d000002/"]);
    // Each of them is there.
    sandbox.cp("s3://bucket/d000002/f499 last").run().succeeded();
    assert_eq!(std::fs::metadata(sandbox.path("last")).expect("a file").len(), 16 << 10);
    sandbox.cp("s3://bucket/d000002/f500 last").run().failed(4);
}

/// So many that the key space is cut.
#[test]
fn many_keys_come_once_each_and_in_order() {
    let sandbox = pretending(40_000);
    let run = ls(&sandbox, "s3://bucket -r").run().succeeded();
    let shown = names(run.text());
    let expected: Vec<String> =
        (0..40_000).map(|at| format!("d{:06}/f{:03}", at / 1000, at % 1000)).collect();
    assert!(shown == expected, "{} keys", shown.len());
    let asked = sandbox.store().stats().count("ListObjectsV2");
    assert!((41..=70).contains(&asked), "{asked} pages");
}

#[test]
fn odd_keys_arrive_as_they_are() {
    let sandbox = holding(&ODD, 7);
    let rows = ls(&sandbox, "s3://bucket -r --json --summarize").run().succeeded().json();
    let mut keys: Vec<&str> =
        of_event(&rows, "object").iter().filter_map(|row| row["key"].as_str()).collect();
    let mut expected = ODD.to_vec();
    expected.sort_unstable();
    assert_eq!(keys, expected);
    keys.dedup();
    let sum = of_event(&rows, "sum");
    assert_eq!((&sum[0]["objects"], &sum[0]["bytes"]), (&6.into(), &42.into()));
    assert_eq!(rows[0]["storage_class"], "STANDARD");
    assert!(rows[0]["etag"].as_str().expect("one").starts_with('"'), "{}", rows[0]);
    // A pipe gets names as they are.
    let run = ls(&sandbox, "s3://bucket -r").run().succeeded();
    assert!(run.text().contains(" new\nline\n"), "{run}");
}

#[test]
fn folders_and_storage_classes_are_summed() {
    let sandbox = holding(&["a/1", "a/b/2", "c/3", "d"], 1_000);
    sandbox.cp("f s3://bucket/c/4 --storage-class GLACIER").run().succeeded();
    let run = du(&sandbox, "s3://bucket --depth 1").run().succeeded();
    let words: Vec<Vec<&str>> =
        run.text().lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(words[0], ["2000", "2", "s3://bucket/a/"]);
    assert_eq!(words[1], ["2000", "2", "s3://bucket/c/"]);
    assert_eq!(words[2], ["1000", "1", "GLACIER", "of", "storage", "class"]);
    assert_eq!(words[3][..2], ["4000", "4"]);
    assert_eq!(words[4], ["5000", "5", "s3://bucket/"]);
    let rows = du(&sandbox, "s3://bucket/a/ --depth 1 --json").run().succeeded().json();
    assert_eq!((&rows[0]["prefix"], &rows[0]["bytes"]), (&"a/b/".into(), &1_000.into()));
    assert_eq!(rows[1]["by_storage_class"]["STANDARD"]["objects"], 2);
}

#[test]
fn a_reader_that_has_enough_ends_it() {
    let sandbox = pretending(1_000_000);
    let mut child = ls(&sandbox, "s3://bucket -r").start_raw();
    let mut few = std::process::Command::new("head")
        .arg("-3")
        .stdin(Stdio::from(child.stdout.take().expect("piped")))
        .stdout(Stdio::piped())
        .spawn()
        .expect("head");
    assert!(few.wait().expect("ended").success());
    assert_eq!(child.wait().expect("ended").code(), Some(141));
    assert!(sandbox.store().stats().count("ListObjectsV2") < 900);
}
