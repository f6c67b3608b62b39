//! The engine as a Rust program uses it: no command, no runtime of its own, no environment.

use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use brigade::integrity::{Algorithm, ChecksumType, Verified};
use brigade::limits::{ChecksumSupport, StoreProfile};
use brigade::progress::{self, Event};
use brigade::{
    Cancel, ChecksumChoice, Credentials, DownloadOptions, ErrorKind, Session, SessionOptions,
    UploadOptions, Verify,
};
use brigade_tests::cli::{BUCKET, PART, Sandbox, eventually};
use brigade_tests::files::assert_same;
use brigade_tests::relay::Relay;
use futures::executor::block_on;
use futures::future::{Either, join_all, select};
use futures::stream::StreamExt;

fn session_with(sandbox: &Sandbox, change: impl FnOnce(&mut SessionOptions)) -> Session {
    let mut options = sandbox.session_options();
    change(&mut options);
    block_on(Session::new(options)).expect("a session")
}

fn small_parts() -> UploadOptions {
    UploadOptions { part_size_bytes: Some(PART), ..UploadOptions::default() }
}

/// A writer whose bytes can still be had when it is gone.
#[derive(Clone, Default)]
struct Shelf(Arc<Mutex<Vec<u8>>>);

impl Write for Shelf {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic").write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn any_executor_will_do() {
    let sandbox = Sandbox::new();
    let (file, copy) = (sandbox.file("f", 3 * PART + 17), sandbox.path("copy"));
    block_on(async {
        let session = Session::new(sandbox.session_options()).await.expect("a session");
        let object = session.bucket(BUCKET).object("key");
        let up = object.upload_file(&file).await.expect("uploaded");
        assert_eq!((up.bytes, up.verified), (3 * PART + 17, Verified::FullObject));
        let down = object.download_file(&copy).await.expect("downloaded");
        assert_eq!((down.bytes, down.verified), (3 * PART + 17, Verified::FullObject));
        assert_eq!(up.checksum, down.checksum);
        assert_eq!(object.info().await.expect("there").size_bytes, 3 * PART + 17);
    });
    assert_same(&file, &copy);
    sandbox.assert_clean();
}

#[test]
fn a_bucket_is_made_once_and_again() {
    let sandbox = Sandbox::new();
    let file = sandbox.file("f", 10);
    let bucket = sandbox.session().bucket("another-bucket");
    block_on(async {
        bucket.create().await.expect("made");
        bucket.create().await.expect("it is ours already");
        bucket.object("key").upload_file(&file).await.expect("uploaded");
    });
}

#[test]
fn dropping_an_upload_leaves_nothing_in_the_store() {
    let sandbox = Sandbox::new();
    let relay = Relay::slow(sandbox.store(), 8 << 20);
    let session = session_with(&sandbox, |options| options.endpoint_url = Some(relay.url()));
    let file = sandbox.file("f", 12 * PART);
    let object = session.bucket(BUCKET).object("key");
    let upload = Box::pin(object.upload_file_with(&file, small_parts()));
    let started = Box::pin(async {
        let (sender, receiver) = futures::channel::oneshot::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let parts = || sandbox.store().stats().count("UploadPart") > 0;
                eventually("a part is on its way", Duration::from_secs(10), parts);
                let _ = sender.send(());
            });
        });
        receiver.await
    });
    match block_on(select(upload, started)) {
        Either::Left((done, _)) => panic!("too fast to be dropped: {done:?}"),
        Either::Right((_, upload)) => drop(upload),
    }
    let dropped = Instant::now();
    relay.hurry();
    eventually("the upload is aborted", Duration::from_secs(2), || {
        sandbox.store().stats().unfinished_uploads == 0
    });
    assert!(dropped.elapsed() < Duration::from_secs(2));
    assert!(sandbox.store().stats().count("AbortMultipartUpload") > 0);
    let gone = block_on(object.info()).expect_err("nothing was stored");
    assert_eq!(gone.kind(), ErrorKind::NotFound);
}

#[test]
fn a_cancelled_upload_ends_with_its_own_kind_and_cleans_up() {
    let sandbox = Sandbox::new();
    let relay = Relay::slow(sandbox.store(), 8 << 20);
    let session = session_with(&sandbox, |options| options.endpoint_url = Some(relay.url()));
    let file = sandbox.file("f", 12 * PART);
    let object = session.bucket(BUCKET).object("key");
    let cancel = Cancel::default();
    let (emitter, mut events) = progress::channel();
    let options = UploadOptions { cancel: cancel.clone(), events: emitter, ..small_parts() };
    let watcher = std::thread::spawn(move || {
        while let Some(event) = block_on(events.next()) {
            if matches!(event, Event::Moved { .. }) {
                cancel.cancel();
            }
        }
    });
    let error = block_on(object.upload_file_with(&file, options)).expect_err("cancelled");
    assert_eq!(error.kind(), ErrorKind::Interrupted);
    // Cleaned up by the time the caller hears of it.
    assert_eq!(sandbox.store().stats().unfinished_uploads, 0);
    watcher.join().expect("no panic");
}

#[test]
fn a_cancelled_download_leaves_no_file() {
    let sandbox = Sandbox::new();
    let file = sandbox.file("f", 12 * PART);
    let object = sandbox.session().bucket(BUCKET).object("key");
    block_on(object.upload_file(&file)).expect("uploaded");
    let relay = Relay::slow(sandbox.store(), 8 << 20);
    let session = session_with(&sandbox, |options| options.endpoint_url = Some(relay.url()));
    let cancel = Cancel::default();
    let (emitter, mut events) = progress::channel();
    let options =
        DownloadOptions { cancel: cancel.clone(), events: emitter, ..DownloadOptions::default() };
    let watcher = std::thread::spawn(move || {
        while let Some(event) = block_on(events.next()) {
            if matches!(event, Event::Moved { .. }) {
                cancel.cancel();
            }
        }
    });
    let object = session.bucket(BUCKET).object("key");
    let target = sandbox.path("copy");
    let error = block_on(object.download_file_with(&target, options)).expect_err("cancelled");
    assert_eq!(error.kind(), ErrorKind::Interrupted);
    assert!(!target.exists());
    sandbox.assert_clean();
    watcher.join().expect("no panic");
}

#[test]
fn many_objects_at_once_over_two_sessions_and_over_one_lane() {
    let sandbox = Sandbox::new();
    let sessions = [
        session_with(&sandbox, |options| options.lanes = Some(1)),
        session_with(&sandbox, |options| options.lanes = Some(3)),
    ];
    let files: Vec<_> =
        (0..24_u64).map(|n| sandbox.file(format!("f{n}"), n * 100_000 + n)).collect();
    let round = |number: usize| {
        let object = sessions[number % 2].bucket(BUCKET).object(format!("many/{number}"));
        let (file, copy) = (files[number].clone(), sandbox.path(format!("copy{number}")));
        async move {
            object.upload_file(&file).await.expect("uploaded");
            object.download_file(&copy).await.expect("downloaded");
            assert_same(&file, &copy);
        }
    };
    block_on(join_all((0..files.len()).map(round)));
    sandbox.assert_clean();
}

#[test]
fn one_lane_carries_many_parts() {
    let sandbox = Sandbox::new();
    let session = session_with(&sandbox, |options| options.lanes = Some(1));
    let (file, copy) = (sandbox.file("f", 9 * PART + 1), sandbox.path("copy"));
    let object = session.bucket(BUCKET).object("key");
    let report = block_on(object.upload_file_with(&file, small_parts())).expect("uploaded");
    assert_eq!(report.parts, 10);
    block_on(object.download_file(&copy)).expect("downloaded");
    assert_same(&file, &copy);
}

#[test]
fn a_profile_from_a_file_limits_the_plan() {
    let sandbox = Sandbox::new();
    let profile = StoreProfile::from_toml(
        "base = \"brigade\"\nname = \"few-parts\"\nmax_parts = 4\nmin_part_size_bytes = \"6MiB\"",
    )
    .expect("a profile");
    let session = session_with(&sandbox, |options| options.store_profile = Some(profile));
    let file = sandbox.file("f", 40 << 20);
    let object = session.bucket(BUCKET).object("key");
    let report = block_on(object.upload_file(&file)).expect("uploaded");
    assert_eq!(report.store_profile, "few-parts");
    assert!(report.parts <= 4, "{report:?}");
    let asked = UploadOptions { part_size_bytes: Some(8 << 20), ..UploadOptions::default() };
    let error = block_on(object.upload_file_with(&file, asked)).expect_err("five parts");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!(
        error.to_string(),
        "upload to s3://bucket/key: part size 8.0 MiB would need 5 parts of the 4 that few-parts \
         allows; the smallest that works is 10 MiB"
    );
}

#[test]
fn a_store_of_composites_is_verified_over_its_parts() {
    let sandbox = Sandbox::new();
    let profile = StoreProfile { checksums: ChecksumSupport::Composite, ..StoreProfile::aws() };
    let session = session_with(&sandbox, |options| options.store_profile = Some(profile));
    let (file, copy) = (sandbox.file("f", 2 * PART + 1), sandbox.path("copy"));
    let object = session.bucket(BUCKET).object("key");
    let report = block_on(object.upload_file_with(&file, small_parts())).expect("uploaded");
    let sum = report.checksum.expect("a checksum");
    assert_eq!(report.verified, Verified::Composite);
    assert_eq!((sum.algorithm, sum.kind), (Algorithm::Crc32, ChecksumType::Composite));
    assert!(sum.value.ends_with("-3"), "{sum:?}");
    let report = block_on(object.download_file(&copy)).expect("downloaded");
    assert_eq!(report.verified, Verified::Composite);
    assert_eq!(report.checksum, Some(sum));
    assert_same(&file, &copy);
}

#[test]
fn without_a_checksum_there_is_the_etag() {
    let sandbox = Sandbox::new();
    let object = sandbox.session().bucket(BUCKET).object("key");
    let file = sandbox.file("f", 2 * PART + 1);
    let md5 = UploadOptions {
        checksum: ChecksumChoice::Use(Algorithm::Md5),
        verify: Verify::Require,
        ..small_parts()
    };
    let report = block_on(object.upload_file_with(&file, md5)).expect("uploaded");
    assert_eq!(report.verified, Verified::Md5);
}

#[test]
fn a_writer_gets_the_bytes_in_order() {
    let sandbox = Sandbox::new();
    let file = sandbox.file("f", 6 * PART + 3);
    let object = sandbox.session().bucket(BUCKET).object("key");
    block_on(object.upload_file(&file)).expect("uploaded");
    let shelf = Shelf::default();
    let options = DownloadOptions { part_size_bytes: Some(1 << 20), ..DownloadOptions::default() };
    let report =
        block_on(object.download_to(shelf.clone(), "a shelf", options)).expect("downloaded");
    assert_eq!((report.target.as_str(), report.parts), ("a shelf", 31));
    assert_eq!(report.verified, Verified::FullObject);
    assert!(*shelf.0.lock().expect("no panic") == std::fs::read(&file).expect("read"));
}

#[test]
fn a_report_has_the_documented_fields() {
    let sandbox = Sandbox::new();
    let file = sandbox.file("f", 2 * PART);
    let object = sandbox.session().bucket(BUCKET).object("key");
    let report = block_on(object.upload_file_with(&file, small_parts())).expect("uploaded");
    let report = serde_json::to_value(&report).expect("it serialises");
    let fields: Vec<_> = report.as_object().expect("an object").keys().cloned().collect();
    assert_eq!(fields, documented_report_fields());
    assert_eq!(report["operation"], "upload");
    assert_eq!(report["source"], file.display().to_string());
    assert_eq!(report["target"], "s3://bucket/key");
    assert_eq!(report["verified"], "full-object");
    assert_eq!(report["checksum"]["algorithm"], "crc32");
    assert_eq!(report["checksum"]["type"], "FULL_OBJECT");
    assert_eq!(report["parts"], 2);
    assert_eq!(report["store_profile"], "brigade");
}

/// The names in the table of `report` in docs/CLI.md, sorted.
fn documented_report_fields() -> Vec<String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/CLI.md");
    let page = std::fs::read_to_string(page).expect("the page");
    let (_, table) = page.split_once("The fields of `report`:").expect("its table");
    let rows = table.lines().skip_while(|line| !line.starts_with("| `"));
    let mut names: Vec<_> = rows
        .take_while(|line| line.starts_with('|'))
        .flat_map(|row| {
            let names = row.split('|').nth(1).unwrap_or_default();
            names
                .split(',')
                .map(|name| name.trim().trim_matches('`').to_owned())
                .collect::<Vec<_>>()
        })
        .collect();
    names.sort();
    names
}

#[test]
fn events_tell_the_whole_story() {
    let sandbox = Sandbox::new();
    let file = sandbox.file("f", 3 * PART);
    let object = sandbox.session().bucket(BUCKET).object("key");
    let (emitter, events) = progress::channel();
    let options = UploadOptions { events: emitter, ..small_parts() };
    block_on(object.upload_file_with(&file, options)).expect("uploaded");
    let events: Vec<_> = block_on(events.collect());
    assert!(
        matches!(events[0], Event::Started { size_bytes, parts: 3, .. } if size_bytes == 3 * PART)
    );
    let moved = events.iter().map(|event| match event {
        Event::Moved { bytes } => i128::from(*bytes),
        Event::Rewound { bytes } => -i128::from(*bytes),
        _ => 0,
    });
    assert_eq!(moved.sum::<i128>(), i128::from(3 * PART));
    let done = events.iter().filter(|event| matches!(event, Event::PartDone { .. })).count();
    assert_eq!(done, 3);
    assert!(events.contains(&Event::Finishing) && events.contains(&Event::Verifying));
}

#[test]
fn a_session_asks_nothing_until_it_must() {
    let options = SessionOptions {
        // Nobody listens there.
        endpoint_url: Some("http://127.0.0.1:1".into()),
        credentials: Credentials::Anonymous,
        ..SessionOptions::default()
    };
    let session = block_on(Session::new(options)).expect("nothing was asked");
    let error = block_on(session.bucket(BUCKET).object("key").info()).expect_err("nobody there");
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    assert!(error.to_string().contains("connection refused"), "{error}");
}
