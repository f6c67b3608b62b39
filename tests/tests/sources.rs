//! Files that change, or whose disk fails, while they are uploaded. Whatever happens, the upload ends
//! with an error that names the file, and no object holds other bytes.
//!
//! Nothing in this program calls `guard_mapped_files`: it stands for the library's users who have
//! not heard of it. Their files are read. The command maps them, see `bad_input` for more of that.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use brigade::integrity::Verified;
use brigade::{ChecksumChoice, Error, ErrorKind, Session, UploadOptions};
use brigade_tests::cli::{BUCKET, PART, Sandbox, eventually};
use brigade_tests::files;
use brigade_tests::relay::Relay;
use futures::executor::block_on;

fn in_parts() -> UploadOptions {
    UploadOptions { part_size_bytes: Some(PART), concurrency: Some(2), ..UploadOptions::default() }
}

/// As one request, without a checksum: nothing but the source itself tells that it changed.
fn as_one_without_checksum() -> UploadOptions {
    UploadOptions {
        part_size_bytes: Some(16 * PART),
        checksum: ChecksumChoice::None,
        ..UploadOptions::default()
    }
}

/// What becomes of an upload whose source changes while a slow store takes it in.
fn changed_meanwhile(options: UploadOptions, change: impl FnOnce(&Path)) -> Error {
    let sandbox = Sandbox::new();
    let file = sandbox.file("f", 12 * PART);
    let relay = Relay::slow(sandbox.store(), 16 << 20);
    let mut to_relay = sandbox.session_options();
    to_relay.endpoint_url = Some(relay.url());
    let session = block_on(Session::new(to_relay)).expect("a session");
    let object = session.bucket(BUCKET).object("key");
    let upload = std::thread::spawn({
        let (object, file) = (object.clone(), file.clone());
        move || block_on(object.upload_file_with(&file, options))
    });
    let sending = || relay.count("UploadPart") > 1 || relay.count("PutObject") > 0;
    eventually("bytes are on their way", Duration::from_secs(10), sending);
    change(&file);
    relay.hurry();
    let error = upload.join().expect("no panic").expect_err("it changed");
    sandbox.assert_clean();
    let gone = block_on(object.info()).expect_err("nothing was stored");
    assert_eq!(gone.kind(), ErrorKind::NotFound, "{gone}");
    assert_eq!(error.kind(), ErrorKind::Changed, "{error}");
    assert_eq!(error.target(), file.display().to_string());
    error
}

fn open(file: &Path) -> std::fs::File {
    std::fs::OpenOptions::new().write(true).open(file).expect("opened")
}

fn cut_short(file: &Path) {
    open(file).set_len(PART).expect("shorter");
}

fn written_to(file: &Path) {
    open(file).write_all_at(b"other bytes", 50 << 20).expect("written");
}

#[test]
fn a_source_that_is_cut_short() {
    for options in [in_parts(), as_one_without_checksum()] {
        let error = changed_meanwhile(options, cut_short);
        assert!(error.detail().contains("from 62914560 to 5242880 bytes"), "{error}");
    }
}

#[test]
fn a_source_that_grows() {
    for options in [in_parts(), as_one_without_checksum()] {
        let error =
            changed_meanwhile(options, |file| open(file).set_len(13 * PART).expect("longer"));
        assert!(error.detail().contains("from 62914560 to 68157440 bytes"), "{error}");
    }
}

#[test]
fn a_source_that_is_written_to() {
    for options in [in_parts(), as_one_without_checksum()] {
        let error = changed_meanwhile(options, written_to);
        assert!(error.detail().contains("was written to during the upload"), "{error}");
    }
}

#[test]
fn a_source_that_is_replaced() {
    let error = changed_meanwhile(in_parts(), |file| {
        let other = file.with_file_name("other");
        files::make(&other, 12 * PART, 1);
        std::fs::rename(other, file).expect("replaced");
    });
    assert!(error.detail().contains("was replaced during the upload"), "{error}");
}

#[test]
fn a_source_that_is_removed() {
    let error = changed_meanwhile(in_parts(), |file| std::fs::remove_file(file).expect("removed"));
    assert!(error.detail().contains("was removed during the upload"), "{error}");
}

#[test]
fn whatever_is_read_arrives_as_it_is() {
    let sandbox = Sandbox::new();
    let session = sandbox.session();
    for (size_bytes, options) in [
        (0, UploadOptions::default()),
        (1, UploadOptions::default()),
        ((256 << 10) + 1, as_one_without_checksum()),
        (3 * PART + 4_097, in_parts()),
        // Large enough to go by without being held.
        (5 * PART, UploadOptions { part_size_bytes: Some(4 * PART), ..UploadOptions::default() }),
    ] {
        let (file, copy) = (sandbox.file("f", size_bytes), sandbox.path("copy"));
        let object = session.bucket(BUCKET).object("key");
        let report = block_on(object.upload_file_with(&file, options.clone())).expect("uploaded");
        assert_eq!(report.bytes, size_bytes);
        if options.checksum != ChecksumChoice::None {
            assert_eq!(report.verified, Verified::FullObject);
        }
        block_on(object.download_file(&copy)).expect("downloaded");
        files::assert_same(&file, &copy);
    }
}

/// A store that insists on signed bytes has them read into memory for the signature.
#[test]
fn what_is_signed_is_what_is_sent() {
    let sandbox = Sandbox::new();
    let mut options = sandbox.session_options();
    let mut profile = brigade::limits::StoreProfile::generic();
    profile.unsigned_payload = false;
    options.store_profile = Some(profile);
    let session = block_on(Session::new(options)).expect("a session");
    let (file, copy) = (sandbox.file("f", 2 * PART + 1), sandbox.path("copy"));
    let object = session.bucket(BUCKET).object("key");
    block_on(object.upload_file_with(&file, in_parts())).expect("uploaded");
    block_on(object.download_file(&copy)).expect("downloaded");
    files::assert_same(&file, &copy);
}

/// A file of 6 parts on a disk that can be made to fail: a file system in an image that is cut short
/// under it. Only in a mount table of its own, which others reach by way of the process that has it.
struct Disk {
    holder: Child,
    image: PathBuf,
    file: PathBuf,
}

impl Disk {
    /// `None` where this machine does not let the test mount an image.
    fn new(sandbox: &Sandbox) -> Option<Self> {
        std::fs::create_dir_all(sandbox.path("content")).expect("made");
        std::fs::create_dir_all(sandbox.path("disk")).expect("made");
        sandbox.file("content/f", 6 * PART);
        let script = "mke2fs -q -F -d content image 48M > out && mount -o loop image disk && \
                      echo ready && exec cat";
        let mut holder = Command::new("unshare")
            .args(["--mount", "sh", "-c", script])
            .current_dir(sandbox.folder())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .ok()?;
        let mut line = String::new();
        BufReader::new(holder.stdout.take().expect("piped")).read_line(&mut line).expect("read");
        let root = PathBuf::from(format!("/proc/{}/root", holder.id()));
        let file = root.join(sandbox.path("disk/f").strip_prefix("/").expect("absolute"));
        let disk = Self { holder, image: sandbox.path("image"), file };
        if line.trim() != "ready" {
            println!("skipped: this machine lets the test mount no image of a disk");
            return None;
        }
        Some(disk)
    }

    /// Such a disk that fails from the first.
    fn failed(sandbox: &Sandbox) -> Option<Self> {
        let disk = Self::new(sandbox)?;
        disk.fail();
        Some(disk)
    }

    /// Nothing behind its first 16 MiB can be read from now on.
    fn fail(&self) {
        open(&self.image).set_len(16 << 20).expect("shorter");
        let file = std::fs::File::open(&self.file).expect("opened");
        // What was read before and nobody has mapped is forgotten.
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("forgotten");
        let behind = file.read_at(&mut [0; 1], 4 * PART);
        assert!(behind.is_err(), "the disk was to fail");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // The disk goes with the last process that has it.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

#[test]
fn a_disk_that_fails_under_a_file_that_is_read() {
    let sandbox = Sandbox::new();
    let Some(disk) = Disk::failed(&sandbox) else { return };
    let object = sandbox.session().bucket(BUCKET).object("key");
    for options in [in_parts(), as_one_without_checksum(), UploadOptions::default()] {
        let error = block_on(object.upload_file_with(&disk.file, options)).expect_err("unreadable");
        assert_eq!(error.kind(), ErrorKind::Io, "{error}");
        let (start, end) =
            ("could not be read behind byte", ": input/output error; check the disk");
        let said = error.to_string();
        assert!(said.contains(start) && said.ends_with(end), "{said}");
        assert_eq!(error.target(), disk.file.display().to_string());
        assert_eq!(block_on(object.info()).expect_err("nothing").kind(), ErrorKind::NotFound);
        sandbox.assert_clean();
    }
}

#[test]
fn a_disk_that_fails_under_a_file_that_is_mapped() {
    let sandbox = Sandbox::new();
    let Some(disk) = Disk::failed(&sandbox) else { return };
    for line in ["--part-size 5MiB", "--part-size 64MiB", "--part-size 5MiB --concurrency 1"] {
        // Parts that could be read may be on the store, of another size than the next ones.
        let run = sandbox.cp("--no-resume");
        let run = run.args([disk.file.as_os_str(), "s3://bucket/key".as_ref()]);
        let said = run.args(line.split_whitespace()).run().failed(1);
        // It shows where a part is read to be summed, before the mapping is touched.
        let file = disk.file.display();
        let expected = format!("upload {file}: the file could not be read behind byte ");
        // What was kept is told behind it.
        let why = ": input/output error; check the disk";
        assert!(said.starts_with(&expected) && said.contains(why), "{said}");
        assert_eq!(sandbox.store().stats().count("CompleteMultipartUpload"), 0);
        assert_eq!(sandbox.store().stats().count("PutObject"), 0);
    }
}

/// All of it could be summed; then the disk fails, and it is the kernel that cannot read a page,
/// which ends the connection and looks like a network's failure.
#[test]
fn a_disk_that_fails_under_a_file_that_is_being_sent() {
    let sandbox = Sandbox::new();
    let Some(disk) = Disk::new(&sandbox) else { return };
    let relay = Relay::slow(sandbox.store(), 4 << 20);
    let run =
        sandbox.cp("--part-size 64MiB").args([disk.file.as_os_str(), "s3://bucket/f".as_ref()]);
    let running = run.endpoint(relay.url()).start();
    eventually("it is being sent", Duration::from_secs(10), || relay.count("PutObject") > 0);
    disk.fail();
    relay.hurry();
    let said = running.wait().failed(1);
    assert!(said.contains("a part of the file could not be read; check the disk"), "{said}");
    assert_eq!(relay.count("PutObject"), 1, "there was no point in another attempt");
    let gone = block_on(sandbox.session().bucket(BUCKET).object("f").info()).expect_err("nothing");
    assert_eq!(gone.kind(), ErrorKind::NotFound);
}
