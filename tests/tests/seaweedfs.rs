//! The engine and the command against `SeaweedFS`.

use std::collections::BTreeMap;
use std::path::Path;

use brigade::integrity::{Algorithm, Verified};
use brigade::{
    Bucket, ChecksumChoice, DownloadOptions, ErrorKind, Object, Report, UploadOptions, Verify,
};
use brigade_tests::boto3::{Boto3, Checksums};
use brigade_tests::cli::Brigade;
use brigade_tests::files;
use brigade_tests::peers::{self, Endpoint, assert_downloads, assert_streams};
use brigade_tests::seaweedfs::SeaweedFs;
use futures::executor::block_on;
use serde_json::json;

const MIB: u64 = 1 << 20;
const PART: u64 = 5 * MIB;
const BUCKET: &str = "brigade";

#[test]
fn every_size_goes_up_and_comes_back() {
    let Some((store, python)) = SeaweedFs::shared_or_skip() else { return };
    let (bucket, folder) = (bucket(store), peers::folder());
    for part in [PART, 8 * MIB] {
        for size in peers::sizes(part) {
            let source = peers::file(folder.path(), size, part);
            let object = bucket.object(format!("sizes/{part}/{size}"));
            let report = upload(&object, &source, in_parts_of(part));
            // It recognises itself, keeps both types of checksum, and tells them with the object.
            let parts = size.div_ceil(part).max(1);
            let tier = if parts == 1 { Verified::FullObject } else { Verified::Composite };
            assert_eq!(report.store_profile, "seaweedfs");
            assert_eq!((report.verified, u64::from(report.parts)), (tier, parts), "{size}");
            assert_eq!(assert_downloads(&object, &source, &DownloadOptions::default()), tier);
        }
    }
    let mut boto3 = Boto3::new(&python, store.endpoint(), Checksums::WhenSupported);
    assert_nothing_unfinished(&mut boto3, "sizes/");
}

#[test]
fn what_was_stopped_goes_on() {
    let Some((store, python)) = SeaweedFs::shared_or_skip() else { return };
    bucket(store);
    peers::assert_resumes(store.endpoint(), BUCKET, PART, true);
    let mut boto3 = Boto3::new(&python, store.endpoint(), Checksums::WhenSupported);
    assert_nothing_unfinished(&mut boto3, "resumed");
}

#[test]
fn every_algorithm_proves_what_was_stored() {
    let Some((store, python)) = SeaweedFs::shared_or_skip() else { return };
    let (bucket, folder) = (bucket(store), peers::folder());
    let mut boto3 = Boto3::new(&python, store.endpoint(), Checksums::WhenSupported);
    for algorithm in Algorithm::ALL {
        let whole = if algorithm == Algorithm::Md5 { Verified::Md5 } else { Verified::FullObject };
        let in_parts = match algorithm {
            Algorithm::Crc64Nvme => Verified::FullObject,
            Algorithm::Md5 => Verified::Md5,
            _ => Verified::Composite,
        };
        for (size, tier) in [(0, whole), (PART, whole), (2 * PART + 1, in_parts)] {
            let source = peers::file(folder.path(), size, 1);
            let key = format!("algorithms/{algorithm}/{size}");
            let object = bucket.object(&key);
            let options =
                UploadOptions { checksum: ChecksumChoice::Use(algorithm), ..in_parts_of(PART) };
            assert_eq!(upload(&object, &source, options).verified, tier, "{key}");
            let downloaded = assert_downloads(&object, &source, &DownloadOptions::default());
            assert_eq!(downloaded, tier, "{key}");

            let copy = folder.path().join("boto3");
            boto3.get(BUCKET, &key, &copy, &json!({}));
            files::assert_same(&source, &copy);
        }
    }
    assert_nothing_unfinished(&mut boto3, "algorithms/");
}

#[test]
fn what_boto3_stores_is_proven() {
    let Some((store, python)) = SeaweedFs::shared_or_skip() else { return };
    let (bucket, folder) = (bucket(store), peers::folder());
    let mut boto3 = Boto3::new(&python, store.endpoint(), Checksums::WhenSupported);
    let source = peers::file(folder.path(), 3 * PART + 1, 2);
    let unequal = [PART + MIB, PART, PART - MIB + 1];
    for (name, sizes, checksum, tier) in [
        ("full", &[PART, PART, PART, 1][..], Some(("CRC32", "FULL_OBJECT")), Verified::FullObject),
        ("composite", &[PART, PART, PART, 1], Some(("SHA256", "COMPOSITE")), Verified::Composite),
        ("unequal", &unequal, Some(("CRC32C", "COMPOSITE")), Verified::Composite),
        ("md5", &unequal, None, Verified::Md5),
    ] {
        let key = format!("boto3/{name}");
        boto3.multipart(BUCKET, &key, &source, sizes, checksum, &json!({}));
        let object = bucket.object(&key);
        let downloaded = assert_downloads(&object, &source, &DownloadOptions::default());
        assert_eq!(downloaded, tier, "{name}");
    }
}

#[test]
fn a_gibibyte_goes_up_and_comes_back() {
    let Some((store, _)) = SeaweedFs::shared_or_skip() else { return };
    let (bucket, folder) = (bucket(store), peers::folder());
    let source = peers::file(folder.path(), 1024 * MIB + 1, 3);
    let object = bucket.object("large");
    let report = upload(&object, &source, UploadOptions::default());
    assert_eq!(report.verified, Verified::Composite);
    let proven = DownloadOptions { verify: Verify::Require, ..DownloadOptions::default() };
    let copy = folder.path().join("copy");
    let report = block_on(object.download_file_with(&copy, proven.clone())).expect("downloaded");
    assert_eq!(report.verified, Verified::Composite);
    files::assert_same(&source, &copy);
    assert_eq!(assert_streams(&object, &source, &proven).verified, Verified::Composite);
}

#[test]
fn what_goes_with_an_object_is_kept() {
    let Some((store, _)) = SeaweedFs::shared_or_skip() else { return };
    let (bucket, folder) = (bucket(store), peers::folder());
    let metadata = BTreeMap::from([("origin".to_owned(), "a, b; c".to_owned())]);
    for size in [1, PART + 1] {
        let object = bucket.object(format!("attributes/{size} ä+?%#"));
        let options = UploadOptions {
            content_type: Some("application/x-brigade".into()),
            metadata: metadata.clone(),
            ..in_parts_of(PART)
        };
        upload(&object, &peers::file(folder.path(), size, 0), options);
        let info = block_on(object.info()).expect("it is there");
        assert_eq!(info.size_bytes, size);
        assert_eq!(info.content_type.as_deref(), Some("application/x-brigade"));
        assert_eq!(info.metadata.get("origin"), metadata.get("origin"));
    }
}

#[test]
fn an_existing_object_is_left_alone_when_asked() {
    let Some((store, python)) = SeaweedFs::shared_or_skip() else { return };
    let (bucket, folder) = (bucket(store), peers::folder());
    for size in [1, PART + 1] {
        let (first, second) =
            (peers::file(folder.path(), size, 1), peers::file(folder.path(), size, 2));
        let object = bucket.object(format!("conflict/{size}"));
        let only_new = UploadOptions { if_none_match: true, ..in_parts_of(PART) };
        block_on(object.upload_file_with(&first, only_new.clone())).expect("it is new");
        let refused = block_on(object.upload_file_with(&second, only_new)).expect_err("it exists");
        assert_eq!(refused.kind(), ErrorKind::Conflict, "{refused}");
        assert_downloads(&object, &first, &DownloadOptions::default());
    }
    let mut boto3 = Boto3::new(&python, store.endpoint(), Checksums::WhenSupported);
    assert_nothing_unfinished(&mut boto3, "conflict/");
}

/// Names that the store lists in the order of their folders, which is not that of the keys, and names that it lists in
/// order.
const OUT_OF_ORDER: [&str; 5] = ["a", "b/c d", "b/c/d", "b/c/e", "z"];
const IN_ORDER: [&str; 5] = ["a", "b/c", "b/d/e f", "b0", "ä+ö"];

#[test]
fn a_tree_is_kept_in_step() {
    let Some((store, _)) = SeaweedFs::shared_or_skip() else { return };
    bucket(store);
    for (names, prefix) in [(IN_ORDER, "in"), (OUT_OF_ORDER, "out")] {
        let folder = peers::folder();
        let tree = |top: &str| {
            for (size, name) in (100..).zip(names) {
                let path = folder.path().join(top).join(name);
                std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
                files::make(&path, size, 1);
            }
        };
        tree("up");
        files::make(&folder.path().join("up/large"), 2 * PART + 1, 1);
        files::make(&folder.path().join("up/empty"), 0, 1);
        let there = format!("s3://{BUCKET}/tree/{prefix}");
        let run = |line: &str| {
            let endpoint = store.endpoint();
            Brigade::new(folder.path(), line.split_whitespace().chain(["--json"]))
                .dir(folder.path())
                .env("AWS_ACCESS_KEY_ID", &endpoint.access_key)
                .env("AWS_SECRET_ACCESS_KEY", &endpoint.secret_key)
                .endpoint(&endpoint.url)
                .run()
        };
        let numbers = |line: &str| {
            let report = run(line).report();
            ["objects", "same", "deleted"].map(|name| report[name].as_u64().expect("a number"))
        };
        assert_eq!(numbers(&format!("sync up {there}")), [7, 0, 0]);
        assert_eq!(numbers(&format!("sync {there} down")), [7, 0, 0]);
        for name in names.iter().chain(&["large", "empty"]) {
            let at = |top: &str| folder.path().join(top).join(name);
            files::assert_same(&at("up"), &at("down"));
        }
        for line in ["sync up THERE", "sync THERE down", "sync down THERE --checksum"] {
            assert_eq!(numbers(&line.replace("THERE", &there)), [0, 7, 0], "{prefix}: {line}");
        }
        let verified = run(&format!("verify up {there}")).report();
        assert_eq!(
            (&verified["identical"], &verified["extra"]),
            (&7.into(), &0.into()),
            "{verified}"
        );

        // All of it was sorted before it was compared, so that it is certain what only the target has.
        std::fs::remove_file(folder.path().join("up").join(names[2])).expect("removed");
        files::make(&folder.path().join("up/a"), 99, 1);
        assert_eq!(numbers(&format!("sync up {there} --delete")), [1, 5, 1], "{prefix}");
        assert_eq!(numbers(&format!("sync {there} down --delete")), [1, 5, 1], "{prefix}");
        files::make(&folder.path().join("up/z9"), 1, 1);
        let verified = run(&format!("verify up {there}"));
        assert_eq!(verified.code(), 7, "{verified}");
    }
}

/// Names that come a page too late are compared all the same.
#[test]
fn a_tree_out_of_order_is_moved_once() {
    let Some((store, _)) = SeaweedFs::shared_or_skip() else { return };
    bucket(store);
    let folder = peers::folder();
    for name in
        (0..1_050).map(|at| format!("up/a/{at}")).chain((0..5).map(|at| format!("up/a-b/{at}")))
    {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(path, "x").expect("written");
    }
    std::fs::create_dir(folder.path().join("empty")).expect("made");
    let there = format!("s3://{BUCKET}/late");
    for (line, moved) in [
        ("sync up THERE", 1_055),
        ("sync up THERE", 0),
        ("sync THERE down", 1_055),
        ("sync THERE down", 0),
        ("sync THERE THERE-copy", 1_055),
        ("sync THERE THERE-copy", 0),
        ("sync empty THERE-copy --delete", 0),
        ("sync THERE THERE-copy", 1_055),
    ] {
        let line = line.replace("THERE", &there);
        let endpoint = store.endpoint();
        let run = Brigade::new(folder.path(), line.split_whitespace().chain(["--json"]))
            .dir(folder.path())
            .env("AWS_ACCESS_KEY_ID", &endpoint.access_key)
            .env("AWS_SECRET_ACCESS_KEY", &endpoint.secret_key)
            .endpoint(&endpoint.url)
            .run();
        let report = run.report();
        assert_eq!(report["objects"], moved, "{line}: {report}");
    }
}

#[test]
fn refusals_say_what_is_wrong() {
    let Some((store, _)) = SeaweedFs::shared_or_skip() else { return };
    let (bucket, folder) = (bucket(store), peers::folder());
    let (source, target) = (peers::file(folder.path(), 1, 0), folder.path().join("never"));

    let missing = bucket.object("missing");
    let said = block_on(missing.download_file(&target)).expect_err("no such key");
    assert_eq!(said.kind(), ErrorKind::NotFound, "{said}");
    let said = block_on(missing.info()).expect_err("no such key");
    assert_eq!(said.kind(), ErrorKind::NotFound, "{said}");

    let nowhere = store.endpoint().session().bucket("no-such-bucket").object("key");
    let said = block_on(nowhere.upload_file(&source)).expect_err("no such bucket");
    assert_eq!(said.kind(), ErrorKind::NotFound, "{said}");
    assert!(said.to_string().contains("bucket"), "{said}");
    let said = block_on(nowhere.download_file(&target)).expect_err("no such bucket");
    assert_eq!(said.kind(), ErrorKind::NotFound, "{said}");

    let right = store.endpoint().clone();
    let wrong_secret = Endpoint { secret_key: "wrong".into(), ..right.clone() };
    let unknown_key = Endpoint { access_key: "NOBODY".into(), ..right };
    for stranger in [wrong_secret, unknown_key] {
        let object = stranger.session().bucket(BUCKET).object("refused");
        let said = block_on(object.upload_file(&source)).expect_err("not with these keys");
        assert_eq!(said.kind(), ErrorKind::AccessDenied, "{said}");
        let said = block_on(object.download_file(&target)).expect_err("not with these keys");
        assert_eq!(said.kind(), ErrorKind::AccessDenied, "{said}");
    }
    assert!(!target.exists());
}

#[test]
fn the_command_copies_both_ways() {
    let Some((store, _)) = SeaweedFs::shared_or_skip() else { return };
    let (_, folder) = (bucket(store), peers::folder());
    let source = peers::file(folder.path(), 2 * PART + 1, 4);
    let copy = folder.path().join("copy");
    let url = format!("s3://{BUCKET}/command/object");
    let cp = |from: &str, to: &str| {
        let endpoint = store.endpoint();
        Brigade::new(folder.path(), ["cp", "--json", "--verify", "require", from, to])
            .env("AWS_ACCESS_KEY_ID", &endpoint.access_key)
            .env("AWS_SECRET_ACCESS_KEY", &endpoint.secret_key)
            .env("AWS_REGION", "us-east-1")
            .endpoint(&endpoint.url)
            .dir(folder.path())
            .run()
            .report()
    };
    for report in [cp(&text(&source), &url), cp(&url, &text(&copy))] {
        assert_eq!(report["store_profile"], "seaweedfs", "{report}");
        assert_ne!(report["verified"], "unverified", "{report}");
    }
    files::assert_same(&source, &copy);
}

/// The bucket of all these tests. `SeaweedFS` gives every bucket volumes of its own, of which the tests'
/// server has few.
fn bucket(store: &SeaweedFs) -> Bucket {
    let bucket = store.endpoint().session().bucket(BUCKET);
    block_on(bucket.create()).expect("it is made, or is there");
    bucket
}

fn in_parts_of(part_size_bytes: u64) -> UploadOptions {
    UploadOptions { part_size_bytes: Some(part_size_bytes), ..UploadOptions::default() }
}

/// Uploads with proof required, and nothing to complain of.
fn upload(object: &Object, source: &Path, options: UploadOptions) -> Report {
    let options = UploadOptions { verify: Verify::Require, ..options };
    let report = block_on(object.upload_file_with(source, options))
        .unwrap_or_else(|error| panic!("{error}"));
    assert!(report.warnings.is_empty(), "{:?}", report.warnings);
    assert_eq!(report.retries, 0, "{}", object.url());
    report
}

fn assert_nothing_unfinished(boto3: &mut Boto3, prefix: &str) {
    let mut left = boto3.unfinished(BUCKET);
    left.retain(|key| key.starts_with(prefix));
    assert!(left.is_empty(), "{left:?}");
}

fn text(path: &Path) -> String {
    path.to_str().expect("UTF-8").to_owned()
}
