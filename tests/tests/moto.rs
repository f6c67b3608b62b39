//! The engine against moto's server, which believes every checksum. Of an upload in parts it tells
//! the sum when the object is looked at, composite ones without their number of parts; of a single
//! request none, unless a header that only AWS's own clients send names the algorithm.

use brigade::integrity::{Algorithm, Verified};
use brigade::{ChecksumChoice, DownloadOptions, ErrorKind, UploadOptions};
use brigade_tests::moto::Moto;
use brigade_tests::peers::{self, assert_downloads};
use futures::executor::block_on;

const PART: u64 = 5 << 20;

#[test]
fn every_size_goes_up_and_comes_back() {
    let Some((store, _)) = Moto::shared_or_skip() else { return };
    let (bucket, folder) = (store.endpoint().session().bucket("sizes"), peers::folder());
    block_on(bucket.create()).expect("it is made");
    for size in peers::sizes(PART) {
        let source = peers::file(folder.path(), size, 0);
        let in_parts = size > PART;
        for (algorithm, tier) in [
            (Algorithm::Md5, Verified::Md5),
            (Algorithm::Crc32, Verified::Composite),
            (Algorithm::Crc64Nvme, Verified::FullObject),
        ] {
            let object = bucket.object(format!("{algorithm}/{size}"));
            let options = UploadOptions {
                part_size_bytes: Some(PART),
                checksum: ChecksumChoice::Use(algorithm),
                ..UploadOptions::default()
            };
            let report = block_on(object.upload_file_with(&source, options))
                .unwrap_or_else(|error| panic!("{algorithm}, {size} bytes: {error}"));
            let kept = in_parts || algorithm == Algorithm::Md5;
            let expected = if kept { tier } else { Verified::Unverified };
            assert_eq!(report.verified, expected, "{algorithm}, {size} bytes");
            assert_eq!(report.warnings.is_empty(), kept, "{:?}", report.warnings);
            // Its ETags are MD5s, always.
            let expected = if kept { tier } else { Verified::Md5 };
            let downloaded = assert_downloads(&object, &source, &DownloadOptions::default());
            assert_eq!(downloaded, expected, "{algorithm}, {size} bytes");
        }
    }
}

#[test]
fn what_was_stopped_goes_on() {
    let Some((store, _)) = Moto::shared_or_skip() else { return };
    let bucket = store.endpoint().session().bucket("resumed");
    block_on(bucket.create()).expect("it is made");
    // Its list of parts has a name that no client of AWS's knows, but for those that ignore it.
    peers::assert_resumes(store.endpoint(), "resumed", PART, false);
}

#[test]
fn what_is_not_there_is_not_found() {
    let Some((store, _)) = Moto::shared_or_skip() else { return };
    let (session, folder) = (store.endpoint().session(), peers::folder());
    let bucket = session.bucket("empty");
    block_on(bucket.create()).expect("it is made");
    let target = folder.path().join("never");
    for object in [bucket.object("missing"), session.bucket("missing").object("key")] {
        let said = block_on(object.download_file(&target)).expect_err("it is not there");
        assert_eq!(said.kind(), ErrorKind::NotFound, "{said}");
    }
    let source = peers::file(folder.path(), PART + 1, 0);
    let object = session.bucket("missing").object("key");
    let said = block_on(object.upload_file(&source)).expect_err("no such bucket");
    assert_eq!(said.kind(), ErrorKind::NotFound, "{said}");
    assert!(!target.exists());
}
