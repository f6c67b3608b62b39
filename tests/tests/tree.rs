//! Folders and prefixes as one job: `cp -r`, `mv -r` and `sync`, on what they move, what they leave, and what
//! becomes of what fails.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use brigade_store::faults::{Action, Rule};
use brigade_tests::cli::{PART, Run, Sandbox};
use brigade_tests::files;
use futures::StreamExt as _;
use futures::executor::block_on;
use serde_json::Value;

/// Names that come in another order with a `/` than without, and those that need care.
const NAMES: [&str; 9] =
    ["a", "b-c", "b/c", "b/d/e f", "b0", "ä+ö", "deep/er/and/deeper", "z%20", "z\n"];

fn with_tree() -> Sandbox {
    let sandbox = Sandbox::new();
    tree(&sandbox, "up");
    sandbox
}

fn tree(sandbox: &Sandbox, folder: &str) {
    for (number, name) in NAMES.iter().enumerate() {
        let path = sandbox.path(folder).join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        sandbox.file(path, 100 + number as u64);
    }
}

/// What a folder holds: names and contents.
fn content(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).into_iter().flatten() {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).expect("below").to_str().expect("UTF-8");
                found.insert(name.to_owned(), fs::read(&path).expect("read"));
            }
        }
    }
    found
}

fn keys(sandbox: &Sandbox, prefix: &str) -> Vec<String> {
    let session = sandbox.session();
    let listing = session.bucket("bucket").list(prefix, brigade::ListOptions::default());
    let keys = listing.map(|listed| listed.expect("listed").name().to_owned());
    block_on(keys.collect())
}

fn run(sandbox: &Sandbox, line: &str) -> Run {
    sandbox.brigade(line.split_whitespace()).run()
}

/// The report of a job that did everything.
#[track_caller]
fn whole(sandbox: &Sandbox, line: &str) -> Value {
    let report = run(sandbox, &format!("{line} --json")).report();
    assert_eq!(report["failed"], 0, "{report}");
    assert_eq!(report["complete"], true, "{report}");
    report
}

#[test]
fn a_tree_goes_up_and_comes_down_the_same() {
    let sandbox = with_tree();
    sandbox.file("up/large", 2 * PART + 1);
    sandbox.file("up/empty", 0);
    let report = whole(&sandbox, "cp -r up s3://bucket/p");
    assert_eq!((&report["objects"], &report["unverified"]), (&11.into(), &0.into()), "{report}");
    assert_eq!(keys(&sandbox, "").len(), 11);
    assert!(keys(&sandbox, "p/").contains(&"p/b/d/e f".to_owned()));
    whole(&sandbox, "cp -r s3://bucket/p/ down");
    assert_eq!(content(&sandbox.path("up")), content(&sandbox.path("down")));
    sandbox.assert_clean();
}

/// What was moved in one direction is the same in both: neither finds anything to do.
#[test]
fn a_second_sync_has_nothing_to_do() {
    let sandbox = with_tree();
    assert_eq!(whole(&sandbox, "sync up s3://bucket/p")["objects"], 9);
    assert_eq!(whole(&sandbox, "sync s3://bucket/p down")["objects"], 9);
    let before = sandbox.store().stats();
    for line in ["sync up s3://bucket/p", "sync s3://bucket/p down", "sync down s3://bucket/p"] {
        let report = whole(&sandbox, line);
        assert_eq!((&report["objects"], &report["same"]), (&0.into(), &9.into()), "{line}");
    }
    let after = sandbox.store().stats();
    for operation in ["PutObject", "GetObject", "HeadObject"] {
        assert_eq!(before.count(operation), after.count(operation), "{operation}");
    }
}

#[test]
fn a_sync_moves_what_differs_by_size_or_time() {
    let sandbox = with_tree();
    whole(&sandbox, "sync up s3://bucket/p");
    whole(&sandbox, "sync s3://bucket/p down");
    let later = SystemTime::now() + Duration::from_mins(1);
    let touch = |name: &str| {
        let file = fs::File::options().append(true).open(sandbox.path(name)).expect("opened");
        file.set_modified(later).expect("set");
    };
    sandbox.file("up/a", 999);
    touch("up/b0");
    assert_eq!(whole(&sandbox, "sync up s3://bucket/p --size-only --dry-run")["objects"], 1);
    assert_eq!(whole(&sandbox, "sync up s3://bucket/p")["objects"], 2);
    // Down, any other time is another file.
    touch("down/b/c");
    let report = whole(&sandbox, "sync s3://bucket/p down");
    assert!(report["objects"].as_u64().expect("a number") >= 2, "{report}");
    assert_eq!(content(&sandbox.path("up")), content(&sandbox.path("down")));
    assert_eq!(whole(&sandbox, "sync s3://bucket/p down")["objects"], 0);
}

#[test]
fn what_only_the_target_has_goes_last_and_only_where_all_was_seen() {
    let sandbox = with_tree();
    whole(&sandbox, "sync up s3://bucket/p");
    fs::remove_file(sandbox.path("up/a")).expect("removed");
    fs::remove_dir_all(sandbox.path("up/b")).expect("removed");
    // Kept without being asked; kept where they are too many.
    assert_eq!(whole(&sandbox, "sync up s3://bucket/p")["deleted"], 0);
    let few = run(&sandbox, "sync up s3://bucket/p --delete --max-delete 2");
    let said = few.code_and_words(3);
    assert!(said.contains("3 are more than the 2 that may be deleted"), "{said}");
    assert_eq!(keys(&sandbox, "p/").len(), 9);
    // Only told of.
    let told = run(&sandbox, "sync up s3://bucket/p --delete --dry-run").succeeded();
    assert!(told.text().contains("would delete s3://bucket/p/b/d/e f"), "{}", told.text());
    assert_eq!(keys(&sandbox, "p/").len(), 9);
    // The same in earnest, beside what must stay.
    fs::write(sandbox.path("beside"), "x").expect("written");
    run(&sandbox, "cp beside s3://bucket/pq").succeeded();
    assert_eq!(whole(&sandbox, "sync up s3://bucket/p --delete")["deleted"], 3);
    assert_eq!(keys(&sandbox, "").len(), 7);
    // And on this side.
    whole(&sandbox, "sync s3://bucket/p down");
    tree(&sandbox, "down");
    let report = whole(&sandbox, "sync s3://bucket/p down --delete");
    assert_eq!(report["deleted"], 3, "{report}");
    assert_eq!(content(&sandbox.path("up")), content(&sandbox.path("down")));
}

/// Two pages, of which the second never comes.
#[test]
fn trap_27_a_listing_that_ends_early_deletes_nothing() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path("up")).expect("made");
    for number in 0..1_100 {
        fs::write(sandbox.path(format!("up/{number:04}")), "x").expect("written");
    }
    whole(&sandbox, "sync up s3://bucket/p");
    for number in (0..1_100).step_by(3) {
        fs::remove_file(sandbox.path(format!("up/{number:04}"))).expect("removed");
    }
    let denied = Rule::on("ListObjectsV2").from_nth(2).then(Action::answer(403, "AccessDenied"));
    sandbox.store().faults().set([denied]).expect("sound");
    let before = sandbox.store().stats();
    let said = run(&sandbox, "sync up s3://bucket/p --delete --retries 0").code_and_words(3);
    assert!(said.contains("nothing was deleted"), "{said}");
    let after = sandbox.store().stats();
    assert_eq!(after.count("DeleteObjects"), before.count("DeleteObjects"));
    sandbox.store().faults().set([]).expect("sound");
    assert_eq!(keys(&sandbox, "p/").len(), 1_100);
}

/// One of several fails: it is named, written down, and the rest is there.
#[test]
fn failures_are_collected_and_the_rest_goes_on() {
    let sandbox = with_tree();
    let denied = || Rule::on("PutObject").key("p/b/c").then(Action::answer(403, "AccessDenied"));
    sandbox.store().faults().set([denied()]).expect("sound");
    let said = run(&sandbox, "cp -r up s3://bucket/p --failures failed").code_and_words(3);
    assert!(said.contains("upload to s3://bucket/p/b/c: AccessDenied"), "{said}");
    assert_eq!(keys(&sandbox, "p/").len(), 8);
    let lines = fs::read_to_string(sandbox.path("failed")).expect("written");
    assert_eq!(lines, "up/b/c\ts3://bucket/p/b/c\n");
    // At the first one, if that is wanted: the 1,000 others are not tried.
    let many = Sandbox::new();
    fs::create_dir(many.path("up")).expect("made");
    for number in 0..1_000 {
        fs::write(many.path(format!("up/{number:04}")), "x").expect("written");
    }
    let denied = Rule::on("PutObject").then(Action::answer(403, "AccessDenied"));
    many.store().faults().set([denied]).expect("sound");
    run(&many, "cp -r up s3://bucket/p --fail-fast").code_and_words(3);
    assert!(many.store().stats().count("PutObject") < 900);
}

/// Keys from a listing never leave the folder, and what cannot be a file is told while the rest arrives.
#[test]
fn trap_26_keys_that_cannot_be_files_are_refused_one_by_one() {
    let sandbox = Sandbox::new();
    let bad = ["p/../../x", "p//x", "p/a//b", "p/c/./d", "p/f/"];
    let good = ["p/a", "p/b/c", "p/z\u{1}"];
    let file = sandbox.file("f", 10);
    let session = sandbox.session();
    for key in bad.iter().chain(&good) {
        let object = session.bucket("bucket").object(*key);
        block_on(object.upload_file(&file)).expect("stored");
    }
    let run = run(&sandbox, "cp -r s3://bucket/p down/here");
    let said = run.code_and_words(3);
    assert!(said.contains("p/../../x"), "{said}");
    assert_eq!(
        content(&sandbox.folder()).into_keys().collect::<Vec<_>>(),
        ["down/here/a", "down/here/b/c", "down/here/z\u{1}", "f"]
    );
}

#[test]
fn a_move_leaves_nothing_that_arrived() {
    let sandbox = with_tree();
    let up = content(&sandbox.path("up"));
    sandbox
        .store()
        .faults()
        .set([Rule::on("PutObject").key("p/a").then(Action::answer(403, "AccessDenied"))])
        .expect("sound");
    run(&sandbox, "mv -r up s3://bucket/p").code_and_words(3);
    assert_eq!(content(&sandbox.path("up")).into_keys().collect::<Vec<_>>(), ["a"]);
    sandbox.store().faults().set([]).expect("sound");
    whole(&sandbox, "mv -r up s3://bucket/p");
    assert!(content(&sandbox.path("up")).is_empty());
    whole(&sandbox, "mv -r s3://bucket/p s3://bucket/q");
    assert!(keys(&sandbox, "p/").is_empty());
    whole(&sandbox, "mv -r s3://bucket/q down");
    assert!(keys(&sandbox, "").is_empty());
    assert_eq!(content(&sandbox.path("down")), up);
}

#[test]
fn wildcards_and_prefixes_mean_what_they_say() {
    let sandbox = with_tree();
    whole(&sandbox, "cp -r up s3://bucket/p");
    whole(&sandbox, "cp -r up s3://bucket/pq");
    assert_eq!(whole(&sandbox, "cp s3://bucket/p/b* some")["objects"], 2);
    assert_eq!(content(&sandbox.path("some")).into_keys().collect::<Vec<_>>(), ["b-c", "b0"]);
    assert_eq!(whole(&sandbox, "cp -r s3://bucket/p s3://bucket/r")["objects"], 9);
    assert_eq!(keys(&sandbox, "r/").len(), 9);
    // Nothing is the same, all is.
    assert_eq!(whole(&sandbox, "sync s3://bucket/p s3://bucket/r")["same"], 9);
}

#[test]
fn what_makes_no_sense_is_said() {
    let sandbox = with_tree();
    for (line, code, why) in [
        ("cp -r up down", 2, "neither SOURCE nor TARGET is in a store"),
        ("cp -r up/a s3://bucket/p", 2, "is a file; leave off --recursive"),
        ("cp -r - s3://bucket/p", 2, "standard input is one object"),
        ("cp -r s3://bucket/p -", 2, "brigade cat"),
        ("cp s3://bucket/[a s3://bucket/p -r", 2, "read the pattern"),
        ("sync up s3://bucket/p --max-delete 3", 2, "--delete"),
        ("cp -r none s3://bucket/p", 3, "none"),
        ("cp -r s3://missing/p down", 3, "no such bucket"),
        ("cp -r up s3://bucket/p --failures no/such/file", 4, "write the failures to"),
    ] {
        let said = run(&sandbox, line).code_and_words(code);
        assert!(said.contains(why), "{line}: {said}");
    }
    assert!(keys(&sandbox, "").is_empty());
}

/// What a dry run tells of a folder that is not there yet is what is then done there.
#[test]
fn a_dry_run_into_no_folder_tells_what_is_refused_there() {
    let sandbox = with_tree();
    whole(&sandbox, "sync up s3://bucket/p");
    let told = whole(&sandbox, "sync s3://bucket/p down --delete --dry-run");
    assert_eq!((&told["objects"], &told["not_deleted"]), (&9.into(), &0.into()), "{told}");
    assert!(!sandbox.path("down").exists());
    // Two objects, of which one leaves no place for the other.
    run(&sandbox, "cp up/a s3://bucket/p/a/below").succeeded();
    for line in ["sync s3://bucket/p down --dry-run", "sync s3://bucket/p down"] {
        let said = run(&sandbox, line).code_and_words(3);
        assert!(said.contains("p/a/below: it cannot be a file: a is a file"), "{line}: {said}");
    }
    // What is no folder is none in a dry run either.
    fs::write(sandbox.path("file"), "x").expect("written");
    run(&sandbox, "sync s3://bucket/p file --dry-run").code_and_words(1);
}

/// Who syncs through the library need not ask for the times that the next sync goes by.
#[test]
fn a_sync_by_the_library_keeps_times_by_itself() {
    use brigade::dataset::{Compared, JobOptions, Side, copy};
    let sandbox = with_tree();
    whole(&sandbox, "sync up s3://bucket/p");
    let session = sandbox.session();
    let there = Side::objects(&session.bucket("bucket"), "p");
    let here = Side::Folder(sandbox.path("down"));
    let options = || JobOptions { compare: Some(Compared::SizeAndTime), ..JobOptions::default() };
    // Their times are not those of the downloads.
    std::thread::sleep(Duration::from_millis(1_100));
    let report = block_on(copy(&there, &here, options())).expect("it began");
    assert_eq!((report.objects, report.same), (9, 0));
    let report = block_on(copy(&there, &here, options())).expect("it began");
    assert_eq!((report.objects, report.same), (0, 9));
}

/// A store whose first page is out of order: all is sorted before it is compared, so that nothing is moved twice, and
/// what only the target has is known. Of a later page that is not so certain, and nothing is deleted.
#[test]
fn trap_30_what_is_listed_out_of_order_is_sorted_and_compared() {
    let sandbox = with_tree();
    whole(&sandbox, "sync up s3://bucket/p");
    let reversed =
        || Rule::on("ListObjectsV2").then(Action::ReverseElements(vec!["Contents".into()]));
    sandbox.store().faults().set([reversed()]).expect("sound");
    assert_eq!(whole(&sandbox, "sync up s3://bucket/p")["same"], 9);
    assert_eq!(whole(&sandbox, "sync s3://bucket/p down")["objects"], 9);
    assert_eq!(whole(&sandbox, "sync s3://bucket/p down")["same"], 9);
    fs::remove_file(sandbox.path("up/b/c")).expect("removed");
    let report = whole(&sandbox, "sync up s3://bucket/p --delete");
    assert_eq!((&report["objects"], &report["deleted"]), (&0.into(), &1.into()), "{report}");
    sandbox.store().faults().set([]).expect("sound");
    assert_eq!(keys(&sandbox, "p/").len(), 8);

    for number in 0..1_100 {
        fs::write(sandbox.path(format!("up/0{number:04}")), "x").expect("written");
    }
    whole(&sandbox, "sync up s3://bucket/p");
    fs::remove_file(sandbox.path("up/a")).expect("removed");
    sandbox.store().faults().set([reversed().from_nth(2)]).expect("sound");
    let said = run(&sandbox, "sync up s3://bucket/p --delete").code_and_words(3);
    assert!(said.contains("nothing was deleted"), "{said}");
}

/// Killed at any moment, the same command brings it to the end, and large objects go on by part.
#[test]
fn a_killed_job_goes_on() {
    let sandbox = with_tree();
    sandbox.file("up/large", 6 * PART);
    let slow = brigade_store::Network { total_bytes_per_s: Some(20 << 20), ..Default::default() };
    sandbox.store().set_network(slow).expect("sound");
    let running = sandbox.brigade("cp -r up s3://bucket/p --part-size 5MiB".split(' ')).start();
    std::thread::sleep(Duration::from_millis(900));
    running.signal(rustix::process::Signal::KILL);
    running.wait();
    sandbox.store().set_network(brigade_store::Network::default()).expect("sound");
    let report = whole(&sandbox, "cp -r up s3://bucket/p --part-size 5MiB");
    assert_eq!(keys(&sandbox, "p/").len(), 10, "{report}");
    files::assert_same(&sandbox.path("up/large"), &sandbox.path("up/large"));
    sandbox.assert_clean();
}

/// 200 small files, of which some were moved when the process was killed.
fn killed(sandbox: &Sandbox, line: &str, operation: &str) {
    let before = sandbox.store().stats().count(operation);
    let slow = brigade_store::Network { total_bytes_per_s: Some(1 << 20), ..Default::default() };
    sandbox.store().set_network(slow).expect("sound");
    let running = sandbox.brigade(line.split(' ')).start();
    let moved = || sandbox.store().stats().count(operation) - before;
    brigade_tests::cli::eventually("a hundred are moved", Duration::from_secs(20), || {
        moved() >= 100
    });
    running.signal(rustix::process::Signal::KILL);
    running.wait();
    sandbox.store().set_network(brigade_store::Network::default()).expect("sound");
}

fn with_200_files() -> Sandbox {
    let sandbox = Sandbox::new();
    fs::create_dir_all(sandbox.path("up/b")).expect("made");
    for number in 0..200 {
        let name = format!("up/{}{number:03}", if number % 2 == 0 { "b/" } else { "" });
        sandbox.file(name, 10_000);
    }
    sandbox
}

/// What is done is not done again, by the same command, as long as the job has not come to its end.
#[test]
fn a_killed_copy_moves_no_object_twice() {
    let sandbox = with_200_files();
    // One was there before, of the same size and younger than its file: it is replaced all the same.
    let other = sandbox.file("other", 10_000);
    fs::write(&other, vec![7; 10_000]).expect("written");
    run(&sandbox, "cp other s3://bucket/p/199").succeeded();
    std::thread::sleep(Duration::from_millis(1_100));
    killed(&sandbox, "cp -r up s3://bucket/p", "PutObject");
    let before = sandbox.store().stats().count("PutObject");
    let report = whole(&sandbox, "cp -r up s3://bucket/p");
    let moved = sandbox.store().stats().count("PutObject") - before;
    assert!(report["same"].as_u64() >= Some(50), "{report}");
    assert_eq!(report["objects"].as_u64(), Some(moved), "{report}");
    assert_eq!(
        report["objects"].as_u64().zip(report["same"].as_u64()).map(|(a, b)| a + b),
        Some(200)
    );
    assert_eq!(run(&sandbox, "verify up s3://bucket/p").code(), 0);
    sandbox.assert_clean();
    // It came to its end, so that the next one is another job.
    assert_eq!(whole(&sandbox, "cp -r up s3://bucket/p")["objects"], 200);

    killed(&sandbox, "cp -r s3://bucket/p down", "GetObject");
    let report = whole(&sandbox, "cp -r s3://bucket/p down");
    assert_eq!(
        report["objects"].as_u64().zip(report["same"].as_u64()).map(|(a, b)| a + b),
        Some(200)
    );
    assert_eq!(fs::read(sandbox.path("down/199")).ok(), fs::read(sandbox.path("up/199")).ok());

    killed(&sandbox, "cp -r up s3://bucket/p", "PutObject");
    assert_eq!(whole(&sandbox, "cp -r up s3://bucket/p --no-resume")["objects"], 200);
    // A mark that nobody can read costs no more than that all is moved again.
    killed(&sandbox, "cp -r up s3://bucket/q", "PutObject");
    for mark in fs::read_dir(sandbox.manifests()).expect("a folder") {
        fs::write(mark.expect("an entry").path(), "x").expect("written");
    }
    assert_eq!(whole(&sandbox, "cp -r up s3://bucket/q")["objects"], 200);
}

/// After failures too, only what failed is moved.
#[test]
fn what_failed_is_moved_by_the_same_command() {
    let sandbox = with_tree();
    let denied = || Rule::on("PutObject").key("p/b/c").then(Action::answer(403, "AccessDenied"));
    sandbox.store().faults().set([denied()]).expect("sound");
    run(&sandbox, "cp -r up s3://bucket/p").code_and_words(3);
    sandbox.store().faults().set([]).expect("sound");
    let report = whole(&sandbox, "cp -r up s3://bucket/p");
    assert_eq!((&report["objects"], &report["same"]), (&1.into(), &8.into()), "{report}");
}

/// Some stores list milliseconds. Whoever compares those must not find a file to be older than its object, whichever
/// way it came.
#[test]
fn files_have_the_time_that_the_listing_tells() {
    let sandbox = with_tree();
    sandbox.file("up/large", 2 * PART + 1);
    whole(&sandbox, "sync up s3://bucket/p");
    whole(&sandbox, "sync s3://bucket/p down");
    let session = sandbox.session();
    let listing = session.bucket("bucket").list("p/", brigade::ListOptions::default());
    let listed: Vec<_> = block_on(listing.map(|listed| listed.expect("listed")).collect());
    for object in listed {
        let brigade::dataset::Listed::Object(entry) = object else { panic!("a folder") };
        let file = sandbox.path("down").join(entry.name.strip_prefix("p/").expect("below"));
        let modified = fs::metadata(&file).expect("there").modified().expect("a time");
        assert_eq!(Some(modified), entry.modified, "{}", entry.name);
    }
}
