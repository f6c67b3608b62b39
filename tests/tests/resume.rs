//! Transfers that died go on where they stopped, and never from something that is not so.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use brigade::integrity::{Algorithm, Digest, Hasher};
use brigade::{ErrorKind, Resume, SessionOptions, UploadOptions};
use brigade_store::faults::{Action, Place, Rule};
use brigade_store::{Backend, Options};
use brigade_tests::cli::{BUCKET, Brigade, CUSTOMER_KEY, PART, Sandbox, eventually};
use brigade_tests::files;
use brigade_tests::relay::{Fate, Relay, Request};
use futures::executor::block_on;
use rustix::process::Signal;
use serde_json::Value;

/// Slow enough that nothing here is done before it is killed.
const CRAWL: u64 = 24 << 20;

const PARTS: u64 = 12;

const SOON: Duration = Duration::from_secs(20);

const UP: &str = "f s3://bucket/f --part-size 5MiB --concurrency 2";
const DOWN: &str = "s3://bucket/f copy --concurrency 2";
const DOWN_SMALL: &str = "s3://bucket/f copy --part-size 5MiB --concurrency 2";

/// A transfer that was killed when a few parts were done, and the relay it went through: a store is
/// known by its address.
struct Killed {
    sandbox: Sandbox,
    relay: Relay,
    line: String,
    /// Parts that were recorded as done.
    recorded: u64,
}

impl Killed {
    fn upload() -> Self {
        Self::upload_with(UP, |_| Fate::Pass)
    }

    fn upload_with(line: &str, rule: impl Fn(&Request) -> Fate + Send + Sync + 'static) -> Self {
        let sandbox = Sandbox::new();
        sandbox.file("f", PARTS * PART);
        let relay = Relay::slow_with(sandbox.store(), CRAWL, rule);
        Self::kill(sandbox, relay, line)
    }

    fn download() -> Self {
        let sandbox = Sandbox::new();
        sandbox.file("f", PARTS * PART);
        let relay = Relay::slow(sandbox.store(), CRAWL);
        sandbox.cp(UP).run().succeeded();
        Self::kill(sandbox, relay, DOWN)
    }

    fn kill(sandbox: Sandbox, relay: Relay, line: &str) -> Self {
        let running = sandbox.cp(line).endpoint(relay.url()).start();
        eventually("a few parts are done", SOON, || sandbox.recorded_parts() >= 3);
        running.signal(Signal::KILL);
        assert_eq!(running.wait().code(), -9);
        let recorded = sandbox.recorded_parts() as u64;
        assert!(recorded < PARTS, "it was too quick");
        relay.hurry();
        Self { sandbox, relay, line: line.to_owned(), recorded }
    }

    /// The same command once more.
    fn again(&self) -> Brigade {
        self.sandbox.cp(&self.line).endpoint(self.relay.url())
    }

    fn again_with(&self, more: &str) -> Brigade {
        self.again().args(more.split_whitespace())
    }

    /// The same command once more, which must succeed; and nothing is left behind.
    #[track_caller]
    fn resume(&self) -> Value {
        let report = self.again_with("--json").run().report();
        self.assert_done();
        report
    }

    /// What was recorded was not sent again. A part in flight at the death may have reached the store
    /// all the same, and is then found there.
    #[track_caller]
    fn assert_resumed_upload(&self, report: &Value) {
        let resumed = report["resumed_bytes"].as_u64().expect("a number") / PART;
        let in_flight = 2;
        assert!((self.recorded..=self.recorded + in_flight).contains(&resumed), "{report}");
    }

    /// The object, or the file, is there and right.
    #[track_caller]
    fn assert_done(&self) {
        let (source, copy) = (self.sandbox.path("f"), self.sandbox.path("copy"));
        if !copy.exists() {
            self.sandbox.cp("s3://bucket/f copy").run().succeeded();
        }
        files::assert_same(&source, &copy);
        self.sandbox.assert_clean();
    }

    /// The manifest of the one transfer.
    fn manifest(&self) -> PathBuf {
        let found = brigade::unfinished(&self.sandbox.manifests()).expect("a folder");
        let found = found.into_iter().next().expect("one").expect("readable");
        found.path
    }

    fn partial(&self) -> PathBuf {
        let manifest = self.manifest();
        manifest.with_extension("")
    }

    fn upload_id(&self) -> String {
        let found = brigade::unfinished(&self.sandbox.manifests()).expect("a folder");
        let found = found.into_iter().next().expect("one").expect("readable");
        found.manifest.upload_id.expect("an upload")
    }
}

/// Whether the report warns of something.
fn warns(report: &Value, of: &str) -> bool {
    report["warnings"]
        .as_array()
        .expect("a list")
        .iter()
        .any(|warning| warning.as_str().is_some_and(|warning| warning.contains(of)))
}

#[test]
fn an_upload_goes_on_after_a_kill() {
    let killed = Killed::upload();
    let sent = killed.relay.count("UploadPart");
    let report = killed.resume();
    killed.assert_resumed_upload(&report);
    assert_eq!(report["verified"], "full-object");
    let sent_again = killed.relay.count("UploadPart") - sent;
    assert!(sent_again as u64 <= PARTS - killed.recorded, "{sent_again} of {}", killed.recorded);
    assert_eq!(killed.relay.count("CreateMultipartUpload"), 1);
}

#[test]
fn a_download_goes_on_after_a_kill() {
    let killed = Killed::download();
    let asked = killed.relay.count("GetObject");
    let report = killed.resume();
    assert_eq!(report["resumed_bytes"].as_u64(), Some(killed.recorded * PART), "{report}");
    assert_eq!(report["verified"], "full-object");
    let asked_again = killed.relay.count("GetObject") - asked;
    assert_eq!(asked_again as u64, PARTS - killed.recorded);
}

/// Other checksums are not the CRC32 that the record knows a range by.
#[test]
fn a_download_goes_on_whatever_proves_it() {
    for algorithm in ["crc64nvme", "sha256", "md5", "none"] {
        let sandbox = Sandbox::new();
        sandbox.file("f", PARTS * PART);
        let relay = Relay::slow(sandbox.store(), 2 * CRAWL);
        sandbox.cp(&format!("{UP} --checksum-algorithm {algorithm}")).run().succeeded();
        let killed = Killed::kill(sandbox, relay, DOWN);
        let report = killed.resume();
        assert_eq!(report["resumed_bytes"].as_u64(), Some(killed.recorded * PART), "{report}");
        assert_ne!(report["verified"], "unverified", "{report}");
    }
}

#[test]
fn it_may_be_killed_over_and_over() {
    let sandbox = Sandbox::new();
    sandbox.file("f", PARTS * PART);
    let relay = Relay::slow(sandbox.store(), CRAWL);
    for parts in [2, 5, 8] {
        let running = sandbox.cp(UP).endpoint(relay.url()).start();
        eventually("it gets further", SOON, || sandbox.recorded_parts() >= parts);
        running.signal(Signal::KILL);
        running.wait();
    }
    relay.hurry();
    sandbox.cp(UP).endpoint(relay.url()).run().succeeded();
    let sent = relay.count("UploadPart") as u64;
    assert!(sent <= PARTS + 3 * 3, "{sent} parts were sent for {PARTS}");
    sandbox.cp("s3://bucket/f copy").run().succeeded();
    files::assert_same(&sandbox.path("f"), &sandbox.path("copy"));
    sandbox.assert_clean();
}

#[test]
fn attempts_that_are_used_up_leave_something_to_go_on_with() {
    let sandbox = Sandbox::new();
    sandbox.file("f", PARTS * PART);
    let relay = Relay::new(sandbox.store(), |request| match request.operation() {
        "UploadPart" if request.target.contains("partNumber=7&") && request.attempt < 3 => {
            Fate::error(500, "InternalError")
        }
        _ => Fate::Pass,
    });
    let run = sandbox.cp(&format!("{UP} --retries 1")).endpoint(relay.url()).run();
    let said = run.failed(8);
    assert!(said.contains("part 7: gave up after 2 attempts: "), "{said}");
    let end = format!(
        " of 60.0 MiB are kept, and running it again goes on from there: brigade cp {UP} --retries 1"
    );
    assert!(said.ends_with(&end), "{said}");
    let report = sandbox.cp(&format!("{UP} --json")).endpoint(relay.url()).run().report();
    assert!(report["resumed_bytes"].as_u64() >= Some(5 * PART), "{report}");
}

#[test]
fn bytes_that_are_not_as_recorded_are_fetched_again() {
    let killed = Killed::download();
    let file = OpenOptions::new().write(true).open(killed.partial()).expect("there");
    let first = first_recorded(&killed);
    file.write_all_at(b"x", (first - 1) * PART + 17).expect("written");
    let report = killed.resume();
    assert_eq!(report["resumed_bytes"].as_u64(), Some((killed.recorded - 1) * PART), "{report}");
    assert!(warns(&report, "5.0 MiB that an earlier run recorded as written were not"), "{report}");
}

fn first_recorded(killed: &Killed) -> u64 {
    let found = brigade::unfinished(&killed.sandbox.manifests()).expect("a folder");
    let found = found.into_iter().next().expect("one").expect("readable");
    u64::from(*found.manifest.parts.keys().next().expect("a part"))
}

#[test]
fn a_partial_file_may_be_shortened_or_gone() {
    let killed = Killed::download();
    let file = OpenOptions::new().write(true).open(killed.partial()).expect("there");
    file.set_len(PART + 5).expect("shortened");
    let report = killed.resume();
    assert!(report["resumed_bytes"].as_u64() <= Some(PART), "{report}");
    assert!(warns(&report, "were fetched again"), "{report}");

    let killed = Killed::download();
    std::fs::remove_file(killed.partial()).expect("there");
    let report = killed.resume();
    assert_eq!(report["resumed_bytes"], 0);
    assert!(warns(&report, "the partial file of an earlier run is gone"), "{report}");
}

/// A second run that ends before it has looked at anything loses nothing of the first.
#[test]
fn an_interrupted_resume_keeps_what_there_was() {
    let killed = Killed::upload();
    let faults = killed.sandbox.store().faults();
    let slow = || Action::delay(Duration::from_secs(5));
    faults.set([Rule::on_any(["ListParts", "UploadPart"]).then(slow())]).expect("sound");
    let running = killed.again().start();
    eventually("it lists", SOON, || killed.sandbox.store().stats().count("ListParts") > 0);
    running.signal(Signal::INT);
    let said = running.wait().failed_in_the_end(130);
    assert!(said.contains(" of 60.0 MiB are kept, "), "{said}");
    assert_eq!(killed.sandbox.recorded_parts() as u64, killed.recorded);
    // Nor does one that is refused its first part.
    let refusal = Rule::on("UploadPart").then(Action::answer(403, "AccessDenied"));
    faults.set([refusal, Rule::on("ListParts").then(slow())]).expect("sound");
    let said = killed.again().run().failed(5);
    assert!(said.contains(" of 60.0 MiB are kept, "), "{said}");
    faults.clear();
    let report = killed.resume();
    killed.assert_resumed_upload(&report);

    let killed = Killed::download();
    let faults = killed.sandbox.store().faults();
    faults.set([Rule::on("GetObject").then(slow())]).expect("sound");
    let running = killed.again().start();
    eventually("it asks", SOON, || killed.sandbox.store().faults().fired().total > 0);
    running.signal(Signal::INT);
    running.wait().failed_in_the_end(130);
    assert_eq!(killed.sandbox.recorded_parts() as u64, killed.recorded);
    faults.clear();
    let report = killed.resume();
    assert_eq!(report["resumed_bytes"].as_u64(), Some(killed.recorded * PART), "{report}");
}

/// The same key, begun before or by somebody else, is nobody's business.
#[test]
fn a_refusal_that_was_one_makes_no_upload_a_stray() {
    let sandbox = Sandbox::new();
    sandbox.file("f", PARTS * PART);
    sandbox.file("g", PARTS * PART + 1);
    let theirs = Relay::new(sandbox.store(), |request| match request.operation() {
        "UploadPart" => Fate::Hang,
        _ => Fate::Pass,
    });
    let other = sandbox.cp("g s3://bucket/f --part-size 5MiB").endpoint(theirs.url()).start();
    eventually("somebody else is at it", SOON, || theirs.count("UploadPart") > 0);
    std::thread::sleep(Duration::from_secs(5));
    let relay = Relay::new(sandbox.store(), |request| match request.operation() {
        "CreateMultipartUpload" if request.attempt == 1 => Fate::error(500, "InternalError"),
        _ => Fate::Pass,
    });
    sandbox.cp(UP).endpoint(relay.url()).run().succeeded();
    assert_eq!(sandbox.store().stats().unfinished_uploads, 1, "the other one is still there");
    drop(other);
}

/// A file that became small enough for one request leaves no record behind.
#[test]
fn a_record_ends_with_what_it_is_of() {
    let killed = Killed::upload();
    killed.sandbox.file("f", PART / 2);
    let said = killed.again().run().failed(6);
    assert!(said.contains("the file had 62914560 bytes"), "{said}");
    killed.again_with("--no-resume").run().succeeded();
    killed.assert_done();
}

/// It died after the file had its name, and before the manifest was gone.
#[test]
fn a_file_that_has_its_name_already_is_not_fetched_again() {
    let killed = Killed::download();
    let (path, mut manifest) =
        (killed.manifest(), std::fs::read(killed.manifest()).expect("there"));
    killed.resume();
    let source = std::fs::read(killed.sandbox.path("f")).expect("there");
    let size = usize::try_from(PART).expect("small");
    for (index, bytes) in source.chunks(size).enumerate() {
        let sum = crc32(bytes).to_base64();
        let record = format!(r#"{{"record":"part","number":{},"sum":"{sum}"}}"#, index + 1);
        manifest.extend(format!("{} {record}\n", crc32(record.as_bytes()).to_hex()).bytes());
    }
    std::fs::write(&path, &manifest).expect("written");
    let asked = killed.relay.count("GetObject");
    let report = killed.resume();
    assert_eq!(report["resumed_bytes"].as_u64(), Some(PARTS * PART), "{report}");
    assert_eq!(report["verified"], "full-object");
    assert_eq!(killed.relay.count("GetObject"), asked);

    // One that only has the size of it is not taken for it.
    std::fs::write(&path, &manifest).expect("written");
    let copy = OpenOptions::new().write(true).open(killed.sandbox.path("copy")).expect("there");
    copy.write_all_at(b"x", PART + 1).expect("written");
    let report = killed.resume();
    assert_eq!(report["resumed_bytes"], 0);
    assert!(warns(&report, "the partial file of an earlier run is gone"), "{report}");
}

fn crc32(bytes: &[u8]) -> Digest {
    let mut hasher = Hasher::new(Algorithm::Crc32);
    hasher.update(bytes);
    hasher.finish()
}

#[test]
fn a_source_that_changed_is_an_error_that_says_how() {
    type Change = fn(&Path);
    let changes: [(Change, &str); 3] = [
        (
            |path| {
                let file = OpenOptions::new().append(true).open(path).expect("there");
                file.set_len(PARTS * PART + 1).expect("grown");
            },
            "the file had 62914560 bytes when the upload began and has 62914561 now",
        ),
        (
            |path| {
                let file = OpenOptions::new().write(true).open(path).expect("there");
                file.write_all_at(b"x", 5).expect("written");
            },
            "the file was written to since the upload began",
        ),
        (
            |path| {
                let modified = path.metadata().and_then(|meta| meta.modified()).expect("there");
                std::fs::copy(path, path.with_extension("new")).expect("copied");
                std::fs::rename(path.with_extension("new"), path).expect("replaced");
                let file = OpenOptions::new().write(true).open(path).expect("there");
                file.set_modified(modified).expect("as before");
            },
            "the file was replaced since the upload began",
        ),
    ];
    for (change, how) in changes {
        let killed = Killed::upload();
        change(&killed.sandbox.path("f"));
        let said = killed.again().run().failed(6);
        assert_eq!(said, format!("upload to s3://bucket/f: {how}; start over with --no-resume"));
        // Nothing was given up for that.
        assert_eq!(killed.sandbox.recorded_parts() as u64, killed.recorded);
        killed.again_with("--no-resume").run().succeeded();
        killed.assert_done();
    }
}

#[test]
fn an_object_that_changed_is_an_error_that_says_how() {
    let killed = Killed::download();
    killed.sandbox.file("g", PARTS * PART + 1);
    killed.sandbox.cp("g s3://bucket/f --part-size 5MiB").run().succeeded();
    let said = killed.again().run().failed(6);
    assert!(
        said.contains("the object was overwritten since the download began: 62914560"),
        "{said}"
    );
    assert!(said.ends_with("; start over with --no-resume"), "{said}");
    assert_eq!(killed.sandbox.recorded_parts() as u64, killed.recorded);
    killed.again_with("--no-resume").run().succeeded();
    files::assert_same(&killed.sandbox.path("g"), &killed.sandbox.path("copy"));
    killed.sandbox.assert_clean();
}

#[test]
fn what_is_asked_for_otherwise_is_not_mixed() {
    let killed = Killed::upload();
    for (more, what) in [
        ("--metadata a=b", "metadata"),
        ("--storage-class STANDARD_IA", "storage class"),
        ("--content-type text/plain", "content type"),
        ("--checksum-algorithm sha256", "checksum"),
        ("--sse", "encryption"),
    ] {
        let said = killed.again_with(more).run().failed(2);
        assert_eq!(
            said,
            format!(
                "upload to s3://bucket/f: an earlier run began it with another {what}; ask for the \
                 same, or start over with --no-resume"
            )
        );
    }
    let line = killed.line.replace("5MiB", "6MiB");
    let said = killed.sandbox.cp(&line).endpoint(killed.relay.url()).run().failed(2);
    assert!(said.contains("another part size; "), "{said}");
    killed.resume();
}

#[test]
fn a_torn_manifest_loses_what_was_torn_off() {
    for killed in [Killed::upload(), Killed::download()] {
        let manifest = killed.manifest();
        let file = OpenOptions::new().write(true).open(&manifest).expect("there");
        let len = file.metadata().expect("there").len();
        file.set_len(len - 5).expect("torn");
        let report = killed.resume();
        assert_eq!(report["parts"], PARTS);
        // An upload finds on the store what its manifest lost.
        let recorded = report["resumed_bytes"].as_u64().expect("a number") / PART;
        assert!(recorded + 1 >= killed.recorded, "{report}");
    }
}

#[test]
fn a_manifest_that_says_nothing_any_more_is_told() {
    for len in [0, 30] {
        let killed = Killed::upload();
        let (manifest, upload) = (killed.manifest(), killed.upload_id());
        let file = OpenOptions::new().write(true).open(&manifest).expect("there");
        file.set_len(len).expect("torn");
        let report = killed.again_with("--json").run().report();
        assert!(warns(&report, "ends before it says what it is of"), "{report}");
        assert!(warns(&report, "see brigade uploads list s3://bucket/f"), "{report}");
        let object = killed.sandbox.session().bucket(BUCKET).object("f");
        block_on(object.abort_upload(&upload)).expect("aborted");
        killed.assert_done();
    }
}

#[test]
fn a_download_is_forgotten_whatever_its_name() {
    let sandbox = Sandbox::new();
    sandbox.file("f", PARTS * PART);
    sandbox.cp(UP).run().succeeded();
    let relay = Relay::slow(sandbox.store(), CRAWL);
    let target = OsStr::from_bytes(b"no\xfftext");
    let args = ["cp", "s3://bucket/f"].map(OsStr::new).into_iter().chain([target]);
    let running = sandbox.brigade(args).endpoint(relay.url()).start();
    eventually("a part is done", SOON, || sandbox.recorded_parts() > 0);
    running.signal(Signal::KILL);
    running.wait();
    assert!(!files::leftovers(&sandbox.folder()).is_empty());
    for found in brigade::unfinished(&sandbox.manifests()).expect("a folder") {
        found.expect("readable").forget().expect("forgotten");
    }
    sandbox.assert_clean();
}

#[test]
fn a_manifest_that_cannot_be_used_is_named() {
    type Harm = fn(&mut Vec<u8>);
    let damages: [(Harm, &str); 3] = [
        (
            |bytes| {
                let rest = bytes.iter().position(|byte| *byte == b'\n').expect("a line");
                bytes.splice(..rest, *b"brigade manifest 7");
            },
            "it has format 7, and this version reads up to 2; resume with the version that began it",
        ),
        (|bytes| *bytes = b"not a manifest\n".to_vec(), "it is not a manifest; start over"),
        (
            |bytes| {
                let middle = bytes.windows(6).position(|word| word == b"bucket").expect("there");
                bytes[middle] = b'B';
            },
            "line 2 is damaged: its checksum does not match; start over",
        ),
    ];
    for (damage, what) in damages {
        for killed in [Killed::upload(), Killed::download()] {
            let path = killed.manifest();
            let upload = (killed.line == UP).then(|| killed.upload_id());
            let mut bytes = std::fs::read(&path).expect("there");
            damage(&mut bytes);
            std::fs::write(&path, &bytes).expect("written");
            let said = killed.again().run().failed(1);
            let named = format!("the manifest {} cannot be used: {what}", named(&killed, &path));
            assert!(said.contains(&named), "{said}\n{named}");
            // As it was: somebody may still want it.
            assert_eq!(std::fs::read(&path).expect("there"), bytes);
            let run = killed.again_with("--no-resume").run().succeeded();
            assert!(run.stderr.contains("may still be on the store"), "{run}");
            if let Some(upload) = upload {
                // Nobody could know of it any more.
                let object = killed.sandbox.session().bucket(BUCKET).object("f");
                block_on(object.abort_upload(&upload)).expect("aborted");
            }
            killed.assert_done();
        }
    }
}

/// A path as the command names it: downloads go to a relative one.
fn named(killed: &Killed, manifest: &Path) -> String {
    let folder = killed.sandbox.folder();
    manifest.strip_prefix(&folder).unwrap_or(manifest).display().to_string()
}

#[test]
fn a_manifest_of_another_transfer_is_not_used() {
    let (killed, other) = (Killed::upload(), Killed::upload());
    let elsewhere = std::fs::read(other.manifest()).expect("there");
    std::fs::write(killed.manifest(), elsewhere).expect("written");
    let said = killed.again().run().failed(6);
    let whose = format!(
        " is of another transfer: upload of {} with s3://bucket/f at {}; start over with --no-resume",
        other.sandbox.path("f").display(),
        other.relay.url(),
    );
    assert!(said.ends_with(&whose), "{said}\n{whose}");
}

#[test]
fn a_manifest_that_may_not_be_read_is_named() {
    let killed = Killed::upload();
    let manifest = killed.manifest();
    let shut = |mode| {
        std::fs::set_permissions(&manifest, std::fs::Permissions::from_mode(mode)).expect("set");
    };
    shut(0o000);
    // Nobody has a home here, so the folder is named.
    let folder = killed.sandbox.manifests();
    for path in folder.ancestors().take(4) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("set");
    }
    let said = killed.again().as_nobody().run().failed(5);
    assert!(said.contains("cannot be read: permission denied; make it readable"), "{said}");
    shut(0o600);
    killed.resume();
}

#[test]
fn without_a_place_for_it_the_transfer_goes_on() {
    let sandbox = Sandbox::new();
    sandbox.file("f", 3 * PART);
    sandbox.file("in-the-way", 1);
    let line = format!("{UP} --manifest-dir in-the-way/x");
    let run = sandbox.cp(&line).run().succeeded();
    assert!(
        run.stderr.starts_with("brigade: warning: this transfer cannot be resumed: in-the-way/x/"),
        "{run}"
    );
    let line = format!("{UP} --manifest-dir in-the-way/x --json");
    assert!(warns(&sandbox.cp(&line).run().report(), "this transfer cannot be resumed: "));
    // The record of a download is beside it.
    let line = "s3://bucket/f copy --manifest-dir in-the-way/x";
    sandbox.cp(line).run().succeeded_silently();
    sandbox.assert_clean();
}

#[test]
fn a_second_process_says_so_and_ends() {
    for (line, what) in [(UP, "upload to"), (DOWN, "download")] {
        let sandbox = Sandbox::new();
        sandbox.file("f", PARTS * PART);
        let relay = Relay::slow(sandbox.store(), CRAWL);
        if line == DOWN {
            sandbox.cp(UP).run().succeeded();
        }
        let first = sandbox.cp(line).endpoint(relay.url()).start();
        eventually("it is under way", SOON, || sandbox.recorded_parts() > 0);
        let second = sandbox.cp(line).endpoint(relay.url()).run();
        assert_eq!(
            second.failed(6),
            format!(
                "{what} s3://bucket/f: another process is at this very transfer; wait for it, or \
                 stop it"
            )
        );
        relay.hurry();
        first.wait().succeeded();
        sandbox.assert_clean();
    }
}

#[test]
fn starting_over_gives_up_what_was_there() {
    for killed in [Killed::upload(), Killed::download()] {
        let report = killed.again_with("--no-resume --json").run().report();
        assert_eq!(report["resumed_bytes"], 0);
        killed.assert_done();
    }
}

/// The customer's key is not recorded: it has to be given again, and has to be the same.
#[test]
fn what_is_under_a_customers_key_goes_on_with_that_key() {
    let sandbox = Sandbox::with_tls();
    let file = sandbox.file("f", PARTS * PART);
    let with_key = |line: &str, key: &str| {
        let line = format!("{line} --sse-c-key-env KEY --json");
        sandbox.cp(&line).env("KEY", key).env("AWS_CA_BUNDLE", sandbox.ca_bundle())
    };
    let other_key = "YW5vdGhlciBrZXkgb2YgdGhlIHRlc3RzLCBvZiAzMiA=";
    for (line, operation) in [(UP, "UploadPart"), (DOWN_SMALL, "GetObject")] {
        // Some are done, and then no more.
        let stall = Action::stall(Place::RequestEnd);
        let rules = [
            Rule::on(operation).times(3).then(Action::set_header("x-noted", "yes")),
            Rule::on(operation).then(stall),
        ];
        sandbox.store().faults().set(rules).expect("sound");
        let running = with_key(line, CUSTOMER_KEY).start();
        eventually("a few parts are done", SOON, || {
            sandbox.recorded_parts() == 3 && sandbox.store().faults().fired().rules == [3, 2]
        });
        running.signal(Signal::KILL);
        running.wait();
        sandbox.store().faults().clear();
        sandbox.store().faults().release();
        // Nothing is mixed, and what there is stays.
        let refused = with_key(line, other_key).run();
        assert_ne!(refused.code(), 0, "{refused}");
        assert_eq!(sandbox.recorded_parts(), 3);
        let report = with_key(line, CUSTOMER_KEY).run().report();
        assert_eq!(report["resumed_bytes"], 3 * PART, "{report}");
    }
    files::assert_same(&file, &sandbox.path("copy"));
    sandbox.assert_clean();
}

/// A download of a version goes on with that version, and is another one than that of the newest.
#[test]
fn a_version_goes_on_as_that_version() {
    let sandbox = Sandbox::new();
    sandbox.file("f", PARTS * PART);
    sandbox.cp(UP).run().succeeded();
    let versioned = || {
        let told = || Action::set_header("x-amz-version-id", "v1");
        [Rule::on_any(["HeadObject", "GetObject"])
            .then(told())
            .then(Action::RemoveQuery(vec!["versionId".into()]))]
    };
    let relay = Relay::slow(sandbox.store(), CRAWL);
    sandbox.store().faults().set(versioned()).expect("sound");
    let line = format!("{DOWN} --version-id v1");
    let killed = Killed::kill(sandbox, relay, &line);
    let report = killed.resume();
    let recorded = killed.recorded * report["part_size_bytes"].as_u64().expect("a size");
    assert!(report["resumed_bytes"].as_u64() >= Some(recorded), "{report}");
    let asked = killed.relay.seen();
    let mut ranges = asked.iter().filter(|request| request.operation() == "GetObject");
    assert!(ranges.all(|request| request.target.contains("versionId=v1")));
    killed.assert_done();
}

/// The store refused checksums: the parts' records have none, and it goes on all the same.
#[test]
fn an_upload_without_checksums_goes_on() {
    let refuses = |request: &Request| {
        let named =
            ["x-amz-checksum-algorithm", "x-amz-checksum-crc64nvme", "x-amz-checksum-crc32"];
        if request.method == "POST" && named.iter().any(|name| request.header(name).is_some()) {
            Fate::error(400, "InvalidRequest")
        } else {
            Fate::Pass
        }
    };
    let killed = Killed::upload_with(UP, refuses);
    let report = killed.resume();
    assert!(report["resumed_bytes"].as_u64() >= Some(killed.recorded * PART), "{report}");
    killed.assert_done();
}

#[test]
fn an_upload_that_is_gone_is_started_over() {
    let killed = Killed::upload();
    let object = killed.sandbox.session().bucket(BUCKET).object("f");
    block_on(object.abort_upload(&killed.upload_id())).expect("aborted");
    let report = killed.resume();
    assert_eq!(report["resumed_bytes"], 0);
    assert!(warns(&report, "is gone from the store; it was started over"), "{report}");
}

#[test]
fn without_the_right_to_list_parts_the_record_is_believed_and_the_store_compares() {
    let rule = |request: &Request| match request.operation() {
        "ListParts" => Fate::error(403, "AccessDenied"),
        _ => Fate::Pass,
    };
    let killed = Killed::upload_with(UP, rule);
    let report = killed.resume();
    assert_eq!(report["resumed_bytes"].as_u64(), Some(killed.recorded * PART), "{report}");
    assert!(warns(&report, "it takes s3:ListMultipartUploadParts"), "{report}");
    assert_eq!(report["verified"], "full-object");
}

#[test]
fn a_completion_whose_answer_nobody_heard_was_one() {
    let sandbox = Sandbox::new();
    sandbox.file("f", PARTS * PART);
    let relay = Relay::new(sandbox.store(), |request| match request.operation() {
        "CompleteMultipartUpload" if request.attempt == 1 => Fate::HangReply,
        _ => Fate::Pass,
    });
    let running = sandbox.cp(UP).endpoint(relay.url()).start();
    eventually("it is complete", SOON, || {
        let stats = sandbox.store().stats();
        stats.count("CompleteMultipartUpload") == 1 && stats.unfinished_uploads == 0
    });
    running.signal(Signal::KILL);
    running.wait();
    let report = sandbox.cp(&format!("{UP} --json")).endpoint(relay.url()).run().report();
    assert_eq!(report["verified"], "full-object", "{report}");
    // Nothing was moved, and nothing is said to have been fast.
    assert_eq!(report["resumed_bytes"], PARTS * PART, "{report}");
    assert_eq!(report["throughput_bytes_per_s"], 0, "{report}");
    assert_eq!(relay.count("UploadPart") as u64, PARTS);
    assert_eq!(relay.count("CreateMultipartUpload"), 1);
    sandbox.assert_clean();
}

#[test]
fn an_upload_whose_id_nobody_heard_is_not_left_behind() {
    // Killed before the answer came.
    let sandbox = Sandbox::new();
    sandbox.file("f", PARTS * PART);
    let relay = Relay::new(sandbox.store(), |request| match request.operation() {
        "CreateMultipartUpload" if request.attempt == 1 => Fate::HangReply,
        _ => Fate::Pass,
    });
    let running = sandbox.cp(UP).endpoint(relay.url()).start();
    eventually("it is begun", SOON, || sandbox.store().stats().unfinished_uploads == 1);
    running.signal(Signal::KILL);
    running.wait();
    sandbox.cp(UP).endpoint(relay.url()).run().succeeded();
    sandbox.assert_clean();

    // The answer was lost, and the request sent again.
    let relay = Relay::new(sandbox.store(), |request| match request.operation() {
        "CreateMultipartUpload" if request.attempt <= 2 => Fate::LoseReply,
        _ => Fate::Pass,
    });
    sandbox.cp(UP).endpoint(relay.url()).run().succeeded();
    sandbox.assert_clean();
}

/// A stray is one without parts, begun since; anything else may be somebody's.
#[test]
fn an_upload_that_may_be_somebody_elses_is_left_alone() {
    let sandbox = Sandbox::new();
    sandbox.file("f", PARTS * PART);
    let theirs = Relay::slow(sandbox.store(), CRAWL);
    let other = sandbox.cp(UP).endpoint(theirs.url()).start();
    eventually("somebody else is at it", SOON, || sandbox.recorded_parts() > 0);
    let relay = Relay::new(sandbox.store(), |request| match request.operation() {
        "CreateMultipartUpload" if request.attempt == 1 => Fate::LoseReply,
        _ => Fate::Pass,
    });
    sandbox.cp(UP).endpoint(relay.url()).run().succeeded();
    assert_eq!(sandbox.store().stats().unfinished_uploads, 1);
    theirs.hurry();
    other.wait().succeeded();
    sandbox.assert_clean();
}

/// What goes in one request leaves no record, and its partial file nothing to go on with.
#[test]
fn small_transfers_are_not_recorded() {
    let sandbox = Sandbox::new();
    let file = sandbox.file("f", PART);
    sandbox.cp("f s3://bucket/f").run().succeeded();
    sandbox.cp("s3://bucket/f copy").run().succeeded();
    files::assert_same(&file, &sandbox.path("copy"));
    assert!(!sandbox.manifests().exists());
}

#[test]
fn a_library_without_a_folder_for_manifests_cleans_up() {
    let sandbox = Sandbox::with(Options { backend: Backend::Memory, ..Sandbox::options() });
    let file = sandbox.file("f", 3 * PART);
    let relay = Relay::new(sandbox.store(), |request| match request.operation() {
        "UploadPart" if request.target.contains("partNumber=2&") => Fate::error(400, "Odd"),
        _ => Fate::Pass,
    });
    let upload = |folder: Option<PathBuf>, resume| {
        let options = SessionOptions {
            endpoint_url: Some(relay.url()),
            manifest_folder: folder,
            ..sandbox.session_options()
        };
        let session = block_on(brigade::Session::new(options)).expect("a session");
        let object = session.bucket(BUCKET).object("f");
        let options = UploadOptions {
            part_size_bytes: Some(PART),
            concurrency: Some(1),
            resume,
            ..UploadOptions::default()
        };
        let error = block_on(object.upload_file_with(&file, options)).expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
        error.is_resumable()
    };
    assert!(!upload(None, Resume::Continue));
    sandbox.assert_clean();
    assert!(!upload(Some(sandbox.manifests()), Resume::Off));
    sandbox.assert_clean();
    assert!(upload(Some(sandbox.manifests()), Resume::Continue));
    assert_eq!(sandbox.recorded_parts(), 1);
}

/// Somebody else who may write to the folder cannot have the download written where he likes.
#[test]
fn a_link_in_the_place_of_the_partial_file_is_not_followed() {
    let killed = Killed::download();
    let partial = killed.partial();
    std::fs::remove_file(&partial).expect("there");
    let victim = killed.sandbox.path("victim");
    File::create(&victim).expect("made");
    std::os::unix::fs::symlink(&victim, &partial).expect("linked");
    killed.again().run().failed(1);
    assert_eq!(victim.metadata().expect("there").len(), 0);
}
