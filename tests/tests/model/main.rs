//! Jobs of many objects against a model of them: random trees and buckets, a random copy or sync, and what it has to
//! come to, worked out here from what lies on both sides and from nothing of the engine's.
//!
//! Of each case it is asked that a dry run changes nothing and tells exactly what the run in earnest then does,
//! that this is what the model says, that both sides are afterwards as the model says, and that a sync has nothing
//! to do when it is made again.
mod case;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use brigade::dataset::{JobOptions, Listed, Side, copy};
use brigade::progress::{self, Event};
use brigade_tests::cli::{BUCKET, Sandbox};
use brigade_tests::files;
use futures::StreamExt as _;
use futures::executor::block_on;
use futures::future::join_all;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestError, TestRunner};
use serde_json::Value;

use case::{
    Case, DAY, Found, Outcome, Place, SEEDS, SIZES, Seen, Sides, Way, What, Written, cases,
};

/// What all cases share.
struct Bench {
    sandbox: Sandbox,
    session: brigade::Session,
    /// By size and seed.
    contents: HashMap<(u64, u64), PathBuf>,
    of_bytes: HashMap<Vec<u8>, u64>,
    /// The store makes an `ETag` of what it has, whoever brought it.
    of_etag: HashMap<String, u64>,
    count: Cell<u64>,
}

impl Bench {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let session = sandbox.session();
        let (mut contents, mut of_bytes, mut of_etag) = Default::default();
        let pairs = SIZES.iter().flat_map(|size| (0..SEEDS).map(move |seed| (*size, seed)));
        for (size, seed) in pairs {
            let path = sandbox.path(format!("{size}-{seed}"));
            files::make(&path, size, seed);
            // Of nothing there is one.
            let id = if size == 0 { 0 } else { seed };
            HashMap::insert(&mut of_bytes, fs::read(&path).expect("read"), id);
            let object = session.bucket(BUCKET).object(format!("contents/{size}-{seed}"));
            block_on(object.upload_file(&path)).expect("stored");
            HashMap::insert(&mut contents, (size, seed), path);
        }
        let mut bench = Self {
            sandbox,
            session,
            contents,
            of_bytes,
            of_etag: HashMap::new(),
            count: Cell::new(0),
        };
        for (name, entry) in bench.entries("contents/") {
            let (size, seed) = name.split_once('-').expect("two numbers");
            let id = if size == "0" { 0 } else { seed.parse().expect("a number") };
            HashMap::insert(&mut of_etag, entry.etag.expect("it has one"), id);
        }
        assert_eq!(of_etag.len(), bench.of_bytes.len(), "contents have ETags of their own");
        bench.of_etag = of_etag;
        bench
    }

    fn entries(&self, prefix: &str) -> Vec<(String, brigade::Entry)> {
        let listing = self.session.bucket(BUCKET).list(prefix, brigade::ListOptions::default());
        let listed = block_on(listing.collect::<Vec<_>>());
        let entry = |listed| match listed {
            Ok(Listed::Object(entry)) => (entry.name[prefix.len()..].to_owned(), entry),
            other => panic!("{other:?}"),
        };
        listed.into_iter().map(entry).collect()
    }

    fn objects(&self, prefix: &str) -> Found {
        let seen = |entry: brigade::Entry| Seen {
            size: entry.size_bytes,
            seed: *self.of_etag.get(&entry.etag.expect("it has one")).expect("a known content"),
            time: since_1970(entry.modified.expect("it has one")),
        };
        self.entries(prefix).into_iter().map(|(name, entry)| (name, seen(entry))).collect()
    }

    fn files(&self, folder: &Path) -> (Found, BTreeSet<String>) {
        let (mut found, mut inner) = (Found::new(), BTreeSet::new());
        let mut folders = vec![folder.to_owned()];
        while let Some(next) = folders.pop() {
            for entry in fs::read_dir(&next).into_iter().flatten() {
                let path = entry.expect("an entry").path();
                let name = path.strip_prefix(folder).expect("below").to_str().expect("UTF-8");
                if path.is_dir() {
                    inner.insert(name.to_owned());
                    folders.push(path);
                    continue;
                }
                let bytes = fs::read(&path).expect("read");
                let time =
                    since_1970(fs::metadata(&path).and_then(|it| it.modified()).expect("a time"));
                let seed = *self.of_bytes.get(&bytes).expect("a known content");
                found.insert(name.to_owned(), Seen { size: bytes.len() as u64, seed, time });
            }
        }
        (found, inner)
    }

    fn look(&self, place: &Place) -> Sides {
        let mut folders = BTreeSet::new();
        let mut side = |is_source| {
            if !place.is_folder(is_source) {
                return self.objects(&place.prefix(is_source));
            }
            let (found, inner) = self.files(&place.folder);
            if !is_source {
                folders = inner;
            }
            found
        };
        let (source, target) = (side(true), side(false));
        Sides { source, target, folders }
    }

    /// Makes both sides.
    fn set_up(&self, case: &Case) -> Place {
        self.count.set(self.count.get() + 1);
        let number = self.count.get();
        let place = Place {
            way: case.way,
            folder: self.sandbox.path(format!("case-{number}")),
            prefix: format!("case-{number}/"),
            since: since_1970(SystemTime::now() - Duration::from_hours(1)),
        };
        // The target first: what is copied is older than the copy.
        let sides = [(&case.target, false), (&case.source, true)];
        let mut times = BTreeMap::new();
        for (tree, is_source) in sides.into_iter().filter(|side| !place.is_folder(side.1)) {
            let prefix = place.prefix(is_source);
            let uploads = tree.iter().map(|(name, file)| {
                let object = self.session.bucket(BUCKET).object(format!("{prefix}{name}"));
                object.upload_file(&self.contents[&(file.size, file.seed)])
            });
            for stored in block_on(join_all(uploads)) {
                stored.expect("stored");
            }
            times = self.objects(&prefix).into_iter().map(|(name, it)| (name, it.time)).collect();
        }
        for (tree, is_source) in sides.into_iter().filter(|side| place.is_folder(side.1)) {
            if is_source {
                fs::create_dir(&place.folder).expect("made");
            }
            for (name, file) in tree {
                let path = place.folder.join(name);
                // What is a file in this tree can't be a folder in it: the first that comes is there.
                if fs::create_dir_all(path.parent().expect("a folder")).is_err() || path.is_dir() {
                    continue;
                }
                fs::copy(&self.contents[&(file.size, file.seed)], &path).expect("written");
                let now = SystemTime::now();
                let time = match file.written {
                    Written::Yesterday => now - DAY,
                    Written::Now => now,
                    Written::Tomorrow => now + DAY,
                    Written::AsTheObject => {
                        times.get(*name).map_or(now, |time| SystemTime::UNIX_EPOCH + *time)
                    }
                };
                let open = fs::File::options().append(true).open(&path).expect("opened");
                open.set_modified(time).expect("set");
            }
        }
        place
    }

    /// Carries it out, and gives what was planned, and what was done.
    fn run(
        &self,
        case: &Case,
        place: &Place,
        dry_run: bool,
        by_command: bool,
    ) -> (Outcome, Outcome) {
        let (events, report) = if by_command {
            let run = self.sandbox.brigade(case.line(place, dry_run)).run();
            assert!([0, 3].contains(&run.code()), "{run}");
            let is_whole = run.code() == 0;
            let mut lines = run.json();
            let report = lines.pop().expect("a report");
            let failed = report["failed"] != 0 || report["not_deleted"] != 0;
            assert_eq!(failed, !is_whole, "{run}");
            (lines, report)
        } else {
            let side = |is_source| {
                if place.is_folder(is_source) {
                    return Side::Folder(place.folder.clone());
                }
                Side::objects(&self.session.bucket(BUCKET), &place.prefix(is_source))
            };
            let (source, target) = (side(true), side(false));
            let (events, told) = progress::channel();
            let options = JobOptions { events, ..case.options(place, dry_run) };
            let both = async {
                futures::join!(copy(&source, &target, options), told.collect::<Vec<Event>>())
            };
            let (report, told) = block_on(both);
            let report = report.expect("it began");
            assert_eq!(report.is_whole(), report.failed + report.not_deleted == 0, "{report:?}");
            let value = |event| serde_json::to_value(event).expect("plain");
            (told.iter().map(value).collect(), serde_json::to_value(&report).expect("plain"))
        };
        outcomes(&events, &report)
    }

    /// Requests that change something or move contents.
    fn requests(&self) -> [u64; 4] {
        let stats = self.sandbox.store().stats();
        let [put, get, copy, one, many] =
            ["PutObject", "GetObject", "CopyObject", "DeleteObject", "DeleteObjects"]
                .map(|name| stats.count(name));
        [put, get, copy, one + many]
    }

    fn check(&self, case: &Case, by_command: bool) -> Result<(), TestCaseError> {
        let place = self.set_up(case);
        let before = self.look(&place);
        let model = case.model(&place, &before);

        let requests = self.requests();
        let (planned, done) = self.run(case, &place, true, by_command);
        prop_assert_eq!(self.requests(), requests, "a dry run moves nothing");
        prop_assert_eq!(&self.look(&place), &before, "a dry run changes nothing");
        prop_assert!(done.done.is_empty(), "a dry run does nothing");
        assert_same(&planned, &model.outcome, "what the dry run tells")?;

        let (planned, done) = self.run(case, &place, false, by_command);
        assert_same(&done, &model.outcome, "what is done")?;
        prop_assert!(planned.done.is_empty());
        let count = |way| if case.way == way { model.moved.len() as u64 } else { 0 };
        // What XML cannot say is deleted by itself, all else at once.
        let (single, together): (Vec<_>, Vec<_>) =
            model.deleted.iter().partition(|name| name.contains('\u{1}'));
        let deletions = single.len() as u64 + u64::from(!together.is_empty());
        let expected = [
            count(Way::Up),
            count(Way::Down),
            count(Way::Between),
            if case.way == Way::Down { 0 } else { deletions },
        ];
        // Of an empty object it may be enough to ask what it is.
        let empty = model.moved.iter().filter(|name| before.source[*name].size == 0).count() as u64;
        let made = || {
            let mut made = self.requests();
            made.iter_mut().zip(requests).for_each(|(now, then)| *now -= then);
            made[1] += empty.min(expected[1].saturating_sub(made[1]));
            made
        };
        // The store counts a request when it has answered it.
        let deadline = Instant::now() + Duration::from_secs(1);
        while made() != expected && Instant::now() < deadline {
            std::thread::yield_now();
        }
        prop_assert_eq!(made(), expected, "requests: uploads, downloads, copies, deletions");

        let after = self.look(&place);
        prop_assert_eq!(&after.source, &before.source, "the source stays as it is");
        let mut expected = before.target;
        expected.retain(|name, _| !model.deleted.contains(name));
        for name in &model.moved {
            let mut moved = before.source[name].clone();
            if case.way != Way::Down {
                // The store says when.
                moved.time = after.target.get(name).map_or(Duration::ZERO, |seen| seen.time);
            }
            expected.insert(name.clone(), moved);
        }
        prop_assert_eq!(&after.target, &expected, "what the target has");

        if case.compared == What::Nothing {
            return Ok(());
        }
        let model = case.model(&place, &after);
        // A file from tomorrow is newer than any object, whenever that is made.
        let is_settled = model.moved.iter().all(|name| after.source[name].time > place.since + DAY);
        prop_assert!(
            is_settled && model.deleted.is_empty(),
            "the model's sync is not done at once"
        );
        let (_, again) = self.run(case, &place, false, by_command);
        assert_same(&again, &model.outcome, "what is done the second time")
    }
}

/// What is told and not what is expected, or the reverse: short, where there is much.
fn assert_same(found: &Outcome, expected: &Outcome, what: &str) -> Result<(), TestCaseError> {
    let differs = |one: &Outcome, other: &Outcome| {
        let done = one.done.difference(&other.done);
        done.chain(one.refused.difference(&other.refused)).cloned().collect::<Vec<_>>()
    };
    let (more, less) = (differs(found, expected), differs(expected, found));
    let numbers = |it: &Outcome| [it.bytes, it.same, it.not_deleted];
    if found == expected {
        return Ok(());
    }
    Err(TestCaseError::fail(format!(
        "{what} is not what the model says: too much: {more:?}; missing: {less:?}; bytes, same and not deleted: \
         {:?} instead of {:?}",
        numbers(found),
        numbers(expected)
    )))
}

/// What events tell to be planned, and to be done.
fn outcomes(events: &[Value], report: &Value) -> (Outcome, Outcome) {
    let (mut planned, mut done) = (Outcome::default(), Outcome::default());
    let number = |name: &str| report[name].as_u64().expect("a number");
    for outcome in [&mut planned, &mut done] {
        outcome.bytes = number("bytes");
        outcome.same = number("same");
        outcome.not_deleted = number("not_deleted");
    }
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let (mut moved, mut deleted) = (0, 0);
    for event in events {
        let transfer = || {
            format!("{} -> {}: {}", text(&event["source"]), text(&event["target"]), event["bytes"])
        };
        let deletion = || format!("delete {}", text(&event["target"]));
        let (to, what) = match (event["event"].as_str(), event["action"].as_str()) {
            (Some("planned"), Some("delete")) => (&mut planned.done, deletion()),
            (Some("planned"), _) => (&mut planned.done, transfer()),
            (Some("object_done"), _) => (&mut done.done, transfer()),
            (Some("object_deleted"), _) => (&mut done.done, deletion()),
            (Some("object_failed"), _) => {
                planned.refused.insert(text(&event["source"]));
                (&mut done.refused, text(&event["source"]))
            }
            _ => continue,
        };
        if event["event"] != "object_failed" {
            let counted = if what.starts_with("delete ") { &mut deleted } else { &mut moved };
            *counted += 1;
        }
        assert!(to.insert(what.clone()), "it is told twice: {what}");
    }
    let failed = done.refused.len() as u64;
    assert_eq!(
        [number("objects"), number("deleted"), number("failed")],
        [moved, deleted, failed],
        "the report and what was told: {report}"
    );
    (planned, done)
}

fn since_1970(time: SystemTime) -> Duration {
    time.duration_since(SystemTime::UNIX_EPOCH).expect("it is later")
}

/// Holds so many random cases, or as many as `PROPTEST_CASES` says, against the model; what fails is made as small as
/// it can be.
fn check_many(usually: u32, by_command: bool) {
    let bench = Bench::new();
    let config = Config {
        cases: std::env::var_os("PROPTEST_CASES").map_or(usually, |_| Config::default().cases),
        max_shrink_iters: 400,
        failure_persistence: None,
        ..Config::default()
    };
    let checked = TestRunner::new(config).run(&cases(), |case| bench.check(&case, by_command));
    match checked {
        Ok(()) => {
            assert!(
                files::leftovers(&bench.sandbox.folder()).is_empty(),
                "partial files were left"
            );
        }
        Err(TestError::Fail(why, case)) => panic!("{why}\nof {case:#?}"),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn any_job_comes_to_what_the_model_says() {
    check_many(400, false);
}

#[test]
fn the_command_does_what_the_model_says() {
    check_many(12, true);
}
