//! `brigade demo`: what somebody sees first, on any machine, whatever is configured there.

use brigade_tests::cli::{Brigade, eventually};
use brigade_tests::files::assert_same;
use rustix::process::Signal;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// The demo in an environment where nothing would reach AWS, and everything tries to mislead it.
fn demo(folder: &TempDir, line: &str) -> Brigade {
    Brigade::new(folder.path(), ["demo"].into_iter().chain(line.split_whitespace()))
        .env("AWS_PROFILE", "nonexistent")
        .env("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
        .env("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
        .env("AWS_ACCESS_KEY_ID", "NOBODY")
        .env("AWS_SECRET_ACCESS_KEY", "nothing")
        .env("AWS_REGION", "moon-base-1")
        .env("HTTP_PROXY", "http://127.0.0.1:1")
        .env("HTTPS_PROXY", "http://127.0.0.1:1")
        .env("AWS_CA_BUNDLE", "/no/such/file")
}

fn demo_folders(folder: &TempDir) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder.path()).expect("a folder").flatten();
    let named =
        entries.filter(|entry| entry.file_name().to_string_lossy().contains("brigade-demo"));
    named.map(|entry| entry.path()).collect()
}

#[test]
fn it_works_anywhere_and_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let run = demo(&folder, "--size 64MiB").run().succeeded_silently();
    let lines: Vec<_> = run.text().lines().collect();
    let verbs: Vec<_> = lines.iter().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(verbs, ["made", "started", "uploaded", "downloaded", "compared"], "{run}");
    for line in &lines[2..4] {
        assert!(line.contains("64.0 MiB in ") && line.contains("verified full-object"), "{line}");
    }
    assert_eq!(demo_folders(&folder), [] as [PathBuf; 0]);
}

#[test]
fn it_keeps_its_folder_when_asked() {
    let folder = tempfile::tempdir().expect("a folder");
    let run = demo(&folder, "--size 8MiB --keep").run().succeeded();
    let kept = demo_folders(&folder);
    assert_eq!(run.stderr, format!("brigade: kept {}\n", kept[0].display()));
    assert_same(&kept[0].join("source.bin"), &kept[0].join("downloaded.bin"));
}

#[test]
fn its_json_ends_with_both_reports() {
    let folder = tempfile::tempdir().expect("a folder");
    let run = demo(&folder, "--size 8MiB --json --no-progress --keep").run().succeeded();
    let lines = run.json();
    let reports = lines.iter().filter(|line| line["event"] == "report").count();
    let last = lines.last().expect("a line");
    assert_eq!((reports, &last["event"]), (2, &"demo".into()));
    assert_eq!((&last["size_bytes"], &last["identical"]), (&(8 << 20).into(), &true.into()));
    assert!(Path::new(last["folder"].as_str().expect("a folder")).is_dir());
    for direction in ["upload", "download"] {
        assert_eq!(last[direction]["operation"], direction);
        assert_eq!(last[direction]["verified"], "full-object");
    }
}

#[test]
fn any_size_will_do() {
    let folder = tempfile::tempdir().expect("a folder");
    for size in ["0", "1", "5MiB"] {
        let run = demo(&folder, &format!("--size {size} --quiet")).run();
        assert_eq!(run.succeeded_silently().text(), "");
    }
    let said = demo(&folder, "--size 4096TiB").run().failed(1);
    assert!(said.starts_with("look for room in "), "{said}");
    assert!(said.ends_with("give a smaller --size, or set TMPDIR to a folder on a larger disk"));
}

#[test]
fn a_signal_ends_it_and_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let running = demo(&folder, "--size 512MiB").start();
    eventually("it has begun", Duration::from_secs(10), || !demo_folders(&folder).is_empty());
    running.signal(Signal::INT);
    let run = running.wait();
    run.failed_in_the_end(130);
    assert_eq!(demo_folders(&folder), [] as [PathBuf; 0]);
}
