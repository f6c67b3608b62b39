//! What a walk comes by, on trees made for it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::path::Path;

use futures::StreamExt as _;
use proptest::prelude::*;

use super::*;
use crate::dataset::{FilterOptions, FilterRule};
use crate::error::ErrorKind;

/// Names of files, notes and failures, and whether the walk was complete.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    files: Vec<(String, u64)>,
    skipped: Vec<(String, Skip)>,
    failed: Vec<String>,
    is_complete: bool,
}

fn seen(root: &Path, options: WalkOptions) -> Seen {
    let mut walk = walk(root, options).expect("a thread");
    let mut seen = Seen::default();
    for walked in walk.blocking() {
        match walked {
            Walked::File(entry) => seen.files.push((entry.name, entry.size_bytes)),
            Walked::Skipped { name, why } => seen.skipped.push((name, why)),
            Walked::Failed(error) => seen.failed.push(error.to_string()),
        }
    }
    seen.is_complete = walk.is_complete();
    seen.skipped.sort_by(|a, b| a.0.cmp(&b.0));
    seen
}

fn names(files: &[(String, u64)]) -> Vec<&str> {
    files.iter().map(|(name, _)| name.as_str()).collect()
}

fn file(root: &Path, name: &str, size: usize) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().expect("below the root")).expect("writable");
    fs::write(path, "x".repeat(size)).expect("writable");
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

#[test]
fn links_are_what_they_point_to_and_loops_are_left() {
    let root = folder();
    let other = folder();
    file(root.path(), "a/b/file", 3);
    file(other.path(), "there", 4);
    symlink("..", root.path().join("a/b/up")).expect("writable");
    symlink(root.path(), root.path().join("a/top")).expect("writable");
    symlink(root.path(), other.path().join("back")).expect("writable");
    symlink(other.path(), root.path().join("a/b-other")).expect("writable");
    symlink("a/b/file", root.path().join("z")).expect("writable");
    symlink("self", root.path().join("self")).expect("writable");
    let found = seen(root.path(), WalkOptions::default());
    assert_eq!(names(&found.files), ["a/b-other/there", "a/b/file", "z"]);
    assert_eq!(found.files[2].1, 3);
    let loops = ["a/b-other/back/", "a/b/up/", "a/top/", "self"];
    assert_eq!(found.skipped, loops.map(|name| (name.to_owned(), Skip::Loop)));
    assert!(found.is_complete);

    let options = WalkOptions { follow_symlinks: false, ..WalkOptions::default() };
    let found = seen(root.path(), options);
    assert_eq!(names(&found.files), ["a/b/file"]);
    let links = ["a/b-other", "a/b/up", "a/top", "self", "z"];
    assert_eq!(found.skipped, links.map(|name| (name.to_owned(), Skip::Link)));
    assert!(found.is_complete);
}

#[test]
fn what_is_no_file_is_told_and_left() {
    let root = folder();
    file(root.path(), "file", 1);
    let bad = std::ffi::OsStr::from_bytes(b"bad\xff");
    fs::create_dir(root.path().join(bad)).expect("writable");
    fs::write(root.path().join(bad).join("below"), "x").expect("writable");
    let _socket =
        std::os::unix::net::UnixListener::bind(root.path().join("socket")).expect("bound");
    symlink("/dev/null", root.path().join("null")).expect("writable");
    let found = seen(root.path(), WalkOptions::default());
    let expected = Seen {
        files: vec![("file".into(), 1)],
        skipped: vec![
            ("bad\u{fffd}".into(), Skip::NotUtf8),
            ("null".into(), Skip::Special),
            ("socket".into(), Skip::Special),
        ],
        failed: Vec::new(),
        is_complete: true,
    };
    assert_eq!(found, expected);
}

#[test]
fn partial_files_of_ours_are_no_content() {
    let root = folder();
    for name in [".a.brigade-AbCd0123", "b/.a.brigade-AbCd0123.manifest", "a.brigade-AbCd0123"] {
        file(root.path(), name, 1);
    }
    file(root.path(), ".folder.brigade-AbCd0123/x", 1);
    let found = seen(root.path(), WalkOptions::default());
    assert_eq!(names(&found.files), [".folder.brigade-AbCd0123/x", "a.brigade-AbCd0123"]);
    assert!(found.is_complete && found.skipped.is_empty());
}

#[test]
fn what_cannot_be_looked_at_makes_the_walk_incomplete_and_does_not_end_it() {
    let root = folder();
    file(root.path(), "a", 1);
    file(root.path(), "z", 1);
    symlink("x".repeat(300), root.path().join("m")).expect("writable");
    let found = seen(root.path(), WalkOptions::default());
    assert_eq!(names(&found.files), ["a", "z"]);
    let told = format!("walk {}/m: file name too long", root.path().display());
    assert_eq!(found.failed, [told]);
    assert!(!found.is_complete);

    fs::remove_file(root.path().join("m")).expect("there");
    symlink("gone", root.path().join("m")).expect("writable");
    let found = seen(root.path(), WalkOptions::default());
    assert_eq!(found.skipped, [("m".to_owned(), Skip::Dangling)]);
    assert!(found.failed.is_empty() && !found.is_complete);
}

#[test]
fn what_is_left_out_is_neither_looked_at_nor_told() {
    let root = folder();
    for name in ["a.log", "a.txt", "logs/x", "logs/keep/y", "out/z"] {
        file(root.path(), name, 1);
    }
    symlink("gone", root.path().join("dangling")).expect("writable");
    symlink("x".repeat(300), root.path().join("out/long")).expect("writable");
    let lines = "*.log\n/logs/\n!/logs/keep/\n/out\ndangling";
    let options = FilterOptions { rules: FilterRule::of_lines(lines), ..FilterOptions::default() };
    let filter = Filter::new(&options).expect("sound");
    let found = seen(root.path(), WalkOptions { filter, ..WalkOptions::default() });
    let expected = Seen {
        files: vec![("a.txt".into(), 1), ("logs/keep/y".into(), 1)],
        is_complete: true,
        ..Seen::default()
    };
    assert_eq!(found, expected);
}

#[test]
fn a_folder_without_permission_is_told() {
    use std::os::unix::fs::PermissionsExt as _;
    let root = folder();
    file(root.path(), "closed/x", 1);
    file(root.path(), "open/x", 1);
    let closed = root.path().join("closed");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o0)).expect("mine");
    let found = seen(root.path(), WalkOptions::default());
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).expect("mine");
    if rustix::process::geteuid().is_root() {
        assert_eq!(names(&found.files), ["closed/x", "open/x"]);
        return;
    }
    assert_eq!(names(&found.files), ["open/x"]);
    assert!(found.failed[0].contains("permission denied"), "{:?}", found.failed);
    assert!(!found.is_complete);
}

#[test]
fn a_root_that_is_no_folder_fails() {
    let root = folder();
    file(root.path(), "file", 1);
    for (name, kind) in [("gone", ErrorKind::NotFound), ("file", ErrorKind::Io)] {
        let mut walk = walk(root.path().join(name), WalkOptions::default()).expect("a thread");
        let found: Vec<_> = walk.blocking().collect();
        assert!(
            matches!(&found[..], [Walked::Failed(error)] if error.kind() == kind),
            "{name}: {found:?}"
        );
        assert!(!walk.is_complete());
    }
}

#[test]
fn what_vanishes_meanwhile_was_never_there() {
    let root = folder();
    let count = (BATCHES_AHEAD + 3) * BATCH;
    for number in 0..count {
        file(root.path(), &format!("a/{number}"), 0);
    }
    file(root.path(), "b/x", 0);
    let walk = walk(root.path(), WalkOptions::default()).expect("a thread");
    let mut batches = futures::executor::block_on_stream(walk);
    let first = batches.next();
    assert!(first.is_some(), "{first:?}");
    fs::remove_dir_all(root.path()).expect("mine");
    let rest: Vec<_> = batches.by_ref().flatten().collect();
    let walk = batches.into_inner();
    assert!(rest.len() < count, "all were seen before they were removed");
    assert!(rest.iter().all(|walked| matches!(walked, Walked::File(_))));
    assert!(walk.is_complete());
}

#[test]
fn a_walk_that_is_stopped_is_not_complete() {
    let root = folder();
    for number in 0..(BATCHES_AHEAD + 3) * BATCH {
        file(root.path(), &number.to_string(), 0);
    }
    let options = WalkOptions::default();
    let cancel = options.cancel.clone();
    let mut walk = walk(root.path(), options).expect("a thread");
    assert!(walk.blocking().next().is_some() && !walk.is_complete());
    cancel.cancel();
    assert!(walk.blocking().count() < (BATCHES_AHEAD + 3) * BATCH - 1);
    assert!(!walk.is_complete());
}

#[test]
fn deep_trees_need_few_descriptors_and_have_an_end() {
    let root = folder();
    let mut folder = PathBuf::new();
    let mut expected = Vec::new();
    for _ in 0..150 {
        folder.push("d");
        for name in ["a", "z"] {
            let name = folder.join(name).to_str().expect("ASCII").to_owned();
            file(root.path(), &name, 1);
            expected.push((name, 1));
        }
    }
    expected.sort();
    let found = seen(root.path(), WalkOptions::default());
    assert_eq!(found.files, expected);
    assert!(found.is_complete);

    let long = ["x".repeat(250), "y".repeat(250), "z".repeat(250), "w".repeat(250)].join("/");
    file(root.path(), &format!("{long}/{}", "f".repeat(20)), 1);
    file(root.path(), &format!("{long}/{}", "f".repeat(21)), 1);
    let found = seen(root.path(), WalkOptions::default());
    assert_eq!(found.files.last().map(|(name, _)| name.len()), Some(1024));
    assert_eq!(found.skipped, [(format!("{long}/{}", "f".repeat(21)), Skip::TooLong)]);
}

#[tokio::test]
async fn as_a_stream_it_gives_the_same() {
    let root = folder();
    for name in ["b", "a/x", "a-"] {
        file(root.path(), name, 1);
    }
    let mut walk = walk(root.path(), WalkOptions::default()).expect("a thread");
    let mut found = Vec::new();
    while let Some(batch) = walk.next().await {
        assert!(!batch.is_empty());
        found.extend(batch.into_iter().map(|walked| match walked {
            Walked::File(entry) => entry.name,
            other => panic!("{other:?}"),
        }));
    }
    assert_eq!(found, ["a-", "a/x", "b"]);
    assert!(walk.is_complete());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn a_random_tree_comes_in_the_order_of_its_keys(
        paths in prop::collection::vec(prop::collection::vec("[a\\-0é!~ ]{1,2}", 1..4), 0..30),
        links in any::<bool>(),
    ) {
        let root = folder();
        let mut model = BTreeMap::new();
        for (size, path) in paths.iter().enumerate() {
            let name = path.join("/");
            let path = root.path().join(&name);
            // A name may be a file here and a folder there: who comes first has it.
            if fs::create_dir_all(path.parent().expect("below the root")).is_ok() && !path.exists() {
                fs::write(&path, "x".repeat(size)).expect("writable");
                model.insert(name.into_bytes(), size as u64);
            }
        }
        if links {
            // The tree once more, by a link.
            let far = folder();
            fs::rename(root.path(), far.path().join("tree")).expect("mine");
            fs::create_dir(root.path()).expect("mine");
            symlink(far.path().join("tree"), root.path().join("link")).expect("writable");
            let found = seen(root.path(), WalkOptions::default());
            let expected: Vec<_> = model.iter()
                .map(|(name, size)| (format!("link/{}", String::from_utf8_lossy(name)), *size))
                .collect();
            prop_assert_eq!(found.files, expected);
        } else {
            let found = seen(root.path(), WalkOptions::default());
            let expected: Vec<_> = model.into_iter()
                .map(|(name, size)| (String::from_utf8(name).expect("UTF-8"), size))
                .collect();
            prop_assert_eq!(found.files, expected);
            prop_assert!(found.is_complete);
        }
    }
}
