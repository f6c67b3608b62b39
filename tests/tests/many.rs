//! Many objects as one job: what goes in one request each, what does not, and what becomes of those that
//! fail.

use std::time::{Duration, Instant};

use brigade::limits::MIB;
use brigade::{Cancel, DownloadOptions, ManyReport, SessionOptions, UploadOptions, Verify};
use brigade_store::faults::{Action, Place, Rule};
use brigade_store::{Backend, Network, Options};
use brigade_tests::cli::Sandbox;
use brigade_tests::files;
use futures::executor::block_on;

const SECOND: Duration = Duration::from_secs(1);

/// A store that has `count` small objects, which are files of the sandbox too.
fn with_objects(count: usize) -> Sandbox {
    let sandbox = Sandbox::new();
    for n in 0..count {
        sandbox.file(name(n), 5_000 + n as u64);
    }
    let report = up(&sandbox, count, UploadOptions::default());
    assert_eq!(report.objects, count as u64);
    sandbox
}

fn name(number: usize) -> String {
    format!("f{number:03}")
}

fn up(sandbox: &Sandbox, count: usize, options: UploadOptions) -> ManyReport {
    let files: Vec<_> = (0..count).map(|n| (sandbox.path(name(n)), name(n))).collect();
    block_on(sandbox.session().bucket("bucket").upload_files(files, options)).expect("a report")
}

fn down(sandbox: &Sandbox, count: usize, options: DownloadOptions) -> ManyReport {
    let objects: Vec<_> = (0..count).map(|n| (name(n), back(sandbox, n))).collect();
    let session = SessionOptions { stall_timeout: SECOND, ..sandbox.session_options() };
    let session = block_on(brigade::Session::new(session)).expect("a session");
    block_on(session.bucket("bucket").download_files(objects, options)).expect("a report")
}

fn back(sandbox: &Sandbox, number: usize) -> std::path::PathBuf {
    sandbox.path(format!("back/{number}"))
}

fn assert_all_back(sandbox: &Sandbox, count: usize) {
    for n in 0..count {
        files::assert_same(&sandbox.path(name(n)), &back(sandbox, n));
    }
    assert!(files::leftovers(&sandbox.folder()).is_empty());
}

#[test]
fn many_small_files_go_in_one_request_each() {
    let sandbox = Sandbox::new();
    let folder = sandbox.path("many");
    std::fs::create_dir(&folder).expect("made");
    let name = |number: usize| format!("many/{number:03} ä+b");
    for number in 0..300 {
        // One of them is too large for one request, and one is empty.
        let size = if number == 17 { 12 * MIB } else { number as u64 * 100 };
        sandbox.file(name(number), size);
    }
    let session = sandbox.session();
    let bucket = session.bucket("bucket");
    let files: Vec<_> = (0..300).map(|n| (sandbox.path(name(n)), name(n))).collect();
    let report = block_on(bucket.upload_files(files, UploadOptions::default())).expect("a report");
    assert_eq!((report.objects, report.unverified), (300, 0), "{report:?}");
    assert!(report.failed.is_empty(), "{report:?}");
    let stats = sandbox.store().stats();
    assert_eq!((stats.count("PutObject"), stats.count("HeadObject")), (299, 0));

    let objects = (0..300).map(|n| (name(n), sandbox.path("back").join(format!("{n}/x"))));
    let objects: Vec<_> = objects.chain([("many/none".into(), sandbox.path("none"))]).collect();
    let down = bucket.download_files(objects, DownloadOptions::default());
    let report = block_on(down).expect("a report");
    assert_eq!((report.objects, report.unverified), (300, 0), "{report:?}");
    let (what, why) = &report.failed[0];
    assert_eq!((report.failed.len(), what.as_str()), (1, "many/none"));
    assert_eq!(why.kind(), brigade::ErrorKind::NotFound);
    for n in 0..300 {
        files::assert_same(&sandbox.path(name(n)), &sandbox.path("back").join(format!("{n}/x")));
    }
    // No look before, but at the large one and the missing one.
    let heads = sandbox.store().stats().count("HeadObject");
    assert!(heads <= 4, "{heads} looks");
    assert!(files::leftovers(&sandbox.folder()).is_empty());
}

#[test]
fn many_files_survive_a_store_that_fails() {
    let sandbox = Sandbox::new();
    let name = |number: usize| format!("f{number:03}");
    for number in 0..200 {
        sandbox.file(name(number), 5_000);
    }
    let session = sandbox.session();
    let bucket = session.bucket("bucket");
    let fails =
        |operation, status, code| Rule::on(operation).every(7).then(Action::answer(status, code));
    let damaged = Rule::on("GetObject").every(61).then(Action::flip_response(2_000));
    for rule in [fails("PutObject", 503, "SlowDown"), fails("PutObject", 500, "InternalError")] {
        sandbox.store().faults().set([rule]).expect("sound");
        let files = (0..200).map(|n| (sandbox.path(name(n)), name(n))).collect::<Vec<_>>();
        let up = bucket.upload_files(files, UploadOptions::default());
        let report = block_on(up).expect("a report");
        assert_eq!((report.objects, report.failed.len()), (200, 0), "{report:?}");
        assert!(report.retries > 0, "{report:?}");
    }
    for rule in [fails("GetObject", 503, "SlowDown"), damaged] {
        sandbox.store().faults().set([rule]).expect("sound");
        let objects = (0..200).map(|n| (name(n), sandbox.path(format!("back-{n}"))));
        let down = bucket.download_files(objects.collect::<Vec<_>>(), DownloadOptions::default());
        let report = block_on(down).expect("a report");
        assert_eq!((report.objects, report.failed.len()), (200, 0), "{report:?}");
        for n in 0..200 {
            files::assert_same(&sandbox.path(name(n)), &sandbox.path(format!("back-{n}")));
        }
    }
}

/// A body that stands still in its middle, and a head that never comes.
#[test]
fn an_answer_that_stands_still_is_asked_for_again() {
    let sandbox = with_objects(40);
    for place in [Place::ResponseBody(2_000), Place::RequestEnd] {
        let stalls = Rule::on("GetObject").nth(9).then(Action::stall(place));
        sandbox.store().faults().set([stalls]).expect("sound");
        let begun = Instant::now();
        let report = down(&sandbox, 40, DownloadOptions::default());
        assert_eq!((report.objects, report.failed.len()), (40, 0), "{report:?}");
        assert!(begun.elapsed() < 20 * SECOND, "{:?}", begun.elapsed());
        assert_all_back(&sandbox, 40);
    }
}

/// What a link points to is replaced and not the link; what is no file is refused, and stays.
#[test]
fn targets_are_what_they_are_for_one_object() {
    let sandbox = with_objects(4);
    let folder = sandbox.path("back");
    std::fs::create_dir_all(folder.join("3")).expect("made");
    std::fs::write(sandbox.path("elsewhere"), "old").expect("written");
    std::os::unix::fs::symlink(sandbox.path("elsewhere"), back(&sandbox, 0)).expect("linked");
    std::os::unix::fs::symlink(sandbox.path("nowhere"), back(&sandbox, 1)).expect("linked");
    std::fs::write(back(&sandbox, 2), "old").expect("written");
    let report = down(&sandbox, 4, DownloadOptions::default());
    assert!(back(&sandbox, 0).is_symlink());
    files::assert_same(&sandbox.path(name(0)), &sandbox.path("elsewhere"));
    files::assert_same(&sandbox.path(name(2)), &back(&sandbox, 2));
    // A folder takes the object under its own name, as for a single one.
    files::assert_same(&sandbox.path(name(3)), &folder.join("3").join(name(3)));
    assert_eq!((report.objects, report.failed.len()), (3, 1), "{report:?}");
    assert_eq!(report.failed[0].0, name(1));
}

/// One job keeps to the parts in flight it was given, small and large objects together.
#[test]
fn a_number_given_holds_for_all_of_a_job() {
    let sandbox = Sandbox::with(Options { network: slow(), ..Sandbox::options() });
    for n in 0..30 {
        sandbox.file(name(n), if n % 3 == 0 { 9 * MIB } else { 1_000 });
    }
    let report = up(&sandbox, 30, UploadOptions { concurrency: Some(3), ..Default::default() });
    assert_eq!((report.objects, report.stopped), (30, false), "{report:?}");
    // The parts, and what begins and ends the uploads of those that are on their way.
    let peak = sandbox.store().stats().peak_requests_in_flight;
    assert!(peak <= 6, "{peak} requests");
}

fn without_checksums(operation: &str) -> Rule {
    let names = ["x-amz-checksum-crc32", "x-amz-checksum-crc64nvme", "x-amz-checksum-type"];
    Rule::on(operation).then(Action::RemoveHeaders(names.map(str::to_owned).to_vec()))
}

fn slow() -> Network {
    Network { latency: Duration::from_millis(5), ..Network::default() }
}

/// What the store never proves is sent once, but for the first few.
#[test]
fn a_store_that_does_not_say_what_it_has_is_asked() {
    let sandbox = Sandbox::new();
    for n in 0..200 {
        sandbox.file(name(n), 3_000);
    }
    sandbox.store().faults().set([without_checksums("PutObject")]).expect("sound");
    let report = up(&sandbox, 200, UploadOptions::default());
    assert_eq!((report.objects, report.unverified), (200, 0), "{report:?}");
    let puts = sandbox.store().stats().count("PutObject");
    assert!((200..=240).contains(&puts), "{puts} requests");
}

/// Stopped in the middle: what is there is whole, nothing half-done stays, and the report says so.
#[test]
fn a_job_that_is_stopped_says_so() {
    let network = Network { latency: Duration::from_millis(40), ..Network::default() };
    let sandbox =
        Sandbox::with(Options { backend: Backend::Synthetic, network, ..Sandbox::options() });
    let cancel = Cancel::default();
    let options = DownloadOptions { cancel: cancel.clone(), ..DownloadOptions::default() };
    let objects = (0..100_000).map({
        let folder = sandbox.path("back");
        move |n| ("4KiB".to_owned(), folder.join(format!("{n}")))
    });
    let session = sandbox.session();
    let bucket = session.bucket("bucket");
    let stopping = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(700));
        cancel.cancel();
    });
    let report = block_on(bucket.download_files(objects, options)).expect("a report");
    stopping.join().expect("stopped");
    assert!(report.stopped && report.failed.is_empty(), "{report:?}");
    let there = std::fs::read_dir(sandbox.path("back")).expect("listed").count() as u64;
    assert_eq!(there, report.objects);
    assert!(files::leftovers(&sandbox.folder()).is_empty());
}

/// Bytes that were changed on their way are never taken, whatever the store declares about them.
#[test]
fn an_etag_that_nobody_vouches_for_proves_no_other_bytes() {
    let sandbox = with_objects(20);
    let flipped = Rule::on("GetObject").nth(5).then(Action::flip_response(100));
    sandbox.store().faults().set([flipped, without_checksums("GetObject")]).expect("sound");
    let options = DownloadOptions { verify: Verify::Auto, ..DownloadOptions::default() };
    let report = down(&sandbox, 20, options);
    assert_eq!(report.objects, 20, "{report:?}");
    assert_all_back(&sandbox, 20);
}
