//! What a person hears when something is wrong: one line that says what, where and what to do, a code
//! that a script can tell apart, and nothing left behind.
//!
//! Whole lines are compared, because people read them: whoever changes one should read it aloud.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use brigade_store::{Backend, Options};
use brigade_tests::cli::{Brigade, PART, SECRET_KEY, Sandbox, eventually};
use brigade_tests::files;
use brigade_tests::relay::Relay;

fn is_root() -> bool {
    rustix::process::getuid().is_root()
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("changed");
}

/// Fails unless the command ends with this code and this line, and leaves nothing behind.
fn refused(sandbox: &Sandbox, line: &str, code: i32, expected: &str) {
    assert_eq!(sandbox.cp(line).run().failed(code), expected, "{line}");
    sandbox.assert_clean();
}

/// A sandbox whose store holds `f`, which is a file there as well.
fn with_object() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.file("f", 1_000);
    sandbox.cp("f s3://bucket/f").run().succeeded();
    sandbox
}

#[test]
fn files_that_cannot_be_sources() {
    let sandbox = Sandbox::new();
    std::fs::create_dir(sandbox.path("folder")).expect("made");
    let pipe = rustix::fs::mknodat(
        rustix::fs::CWD,
        sandbox.path("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    );
    pipe.expect("a pipe");
    for (source, code, said) in [
        ("missing", 4, "upload missing: no such file or directory; check the path"),
        ("no/such", 4, "upload no/such: no such file or directory; check the path"),
        (
            "folder",
            2,
            "folder is a folder; name a file, or copy all that is below it with cp --recursive",
        ),
        ("pipe", 2, "upload pipe: it is not a regular file; copy its contents into a file first"),
        (
            "/dev/null",
            2,
            "upload /dev/null: it is not a regular file; copy its contents into a file first",
        ),
    ] {
        refused(&sandbox, &format!("{source} s3://bucket/key"), code, said);
    }
    assert_eq!(sandbox.store().stats().requests.len(), 0);
}

#[test]
fn a_file_that_may_not_be_read() {
    let sandbox = Sandbox::new();
    let file = sandbox.file("f", 10);
    set_mode(&file, 0o000);
    let run = sandbox.cp("f s3://bucket/f").as_nobody().run();
    assert_eq!(run.failed(5), "upload f: permission denied; check the permissions");
    let run = sandbox.cp("s3://bucket/f x --sse-c-key-file f").as_nobody().run();
    assert_eq!(
        run.failed(5),
        "read the SSE-C key from f: permission denied; check the permissions"
    );
}

#[test]
fn targets_that_cannot_take_a_file() {
    let sandbox = with_object();
    std::fs::create_dir_all(sandbox.path("folder/f")).expect("made");
    std::fs::write(sandbox.path("file"), "old").expect("written");
    std::os::unix::fs::symlink("nowhere", sandbox.path("broken")).expect("linked");
    for (target, code, said) in [
        ("no/such/x", 4, "download to no/such/x: the folder no/such does not exist; make it first"),
        (
            "missing/",
            4,
            "download to missing/: there is no such folder; make it first, or leave off the slash",
        ),
        ("file/", 2, "download to file/: it is not a folder; leave off the slash to replace it"),
        ("folder", 2, "download to folder/f: a folder of that name is there; name another target"),
        (
            "/dev/null",
            2,
            "download to /dev/null: it is not a regular file; use - for standard output",
        ),
        (
            "broken",
            2,
            "download to broken: it is a link to a file that does not exist; remove the link, or \
             name another target",
        ),
    ] {
        refused(&sandbox, &format!("s3://bucket/f {target}"), code, said);
    }
    assert_eq!(std::fs::read(sandbox.path("file")).expect("read"), b"old");
    let run = sandbox.cp("s3://bucket/f file/inside").run();
    let said = run.failed(1);
    assert!(said.starts_with("download to file/inside: not a directory"), "{said}");
}

#[test]
fn a_folder_that_may_not_be_written_to() {
    let sandbox = with_object();
    std::fs::create_dir(sandbox.path("folder")).expect("made");
    set_mode(&sandbox.path("folder"), 0o555);
    let run = sandbox.cp("s3://bucket/f folder/x").as_nobody().run();
    assert_eq!(run.failed(5), "download to folder/x: permission denied; check the permissions");
    sandbox.assert_clean();
}

#[test]
fn a_disk_too_small_is_found_before_the_first_byte() {
    let sandbox = Sandbox::with(Options { backend: Backend::Synthetic, ..Sandbox::options() });
    let mount = "mount -t tmpfs -o size=16m none disk";
    let Some(run) = on_a_disk(&sandbox, mount, "s3://bucket/64MiB disk/x --json") else { return };
    let (run, left) = run;
    assert_eq!(left, "");
    let said = run.stderr.trim_end();
    assert_eq!(run.code(), 1, "{run}");
    // The manifest takes a page of it.
    assert!(
        said.starts_with(
            "brigade: error: download to disk/x: not enough disk space: 64.0 MiB needed, 1"
        ) && said.ends_with(" MiB free; free some space, or choose another target"),
        "{said}"
    );
    assert_eq!(sandbox.store().stats().count("GetObject"), 0);
}

/// On a file system that cannot reserve space, somebody else may take it meanwhile.
#[test]
fn a_disk_that_fills_up_meanwhile_leaves_nothing() {
    let sandbox = Sandbox::with(Options { backend: Backend::Synthetic, ..Sandbox::options() });
    let image = sandbox.path("image");
    std::fs::File::create(&image).and_then(|file| file.set_len(24 << 20)).expect("an image");
    let made = Command::new("mke2fs").args(["-q", "-F"]).arg(&image).output();
    if !is_root() || !made.is_ok_and(|made| made.status.success()) {
        println!("skipped: needs root and mke2fs for a file system that cannot reserve space");
        return;
    }
    let relay = Relay::slow(sandbox.store(), 16 << 20);
    let mount = "mount -o loop image disk && \
                 { (sleep 0.3; exec cat /dev/zero > disk/other 2>/dev/null) & true; }";
    let line = format!("s3://bucket/16MiB disk/x --endpoint-url {}", relay.url());
    let Some((run, left)) = on_a_disk(&sandbox, mount, &line) else { return };
    assert_eq!(
        run.failed(1),
        "download to disk/x: no space left on device; free some space, or choose another target"
    );
    assert_eq!(left, "lost+found other ");
}

/// The disk of the manifests fills up while parts are recorded: the upload goes on, and says so once.
#[test]
fn a_manifest_that_can_no_longer_be_written_ends_nothing() {
    let small = 64 << 10;
    let options = Options { min_part_size_bytes: small, ..Sandbox::options() };
    let sandbox = Sandbox::with(options);
    sandbox.file("f", 100 * small);
    let profile = format!("base = \"generic\"\nmin_part_size_bytes = {small}\n");
    std::fs::write(sandbox.path("small.toml"), profile).expect("written");
    let mount = "mount -t tmpfs -o size=4k none disk";
    let line = "f s3://bucket/f --part-size 64KiB --store-profile small.toml --manifest-dir disk";
    let Some((run, left)) = on_a_disk(&sandbox, mount, line) else { return };
    let run = run.succeeded();
    let told = run.stderr.matches("this transfer cannot be resumed: ").count();
    assert!(told == 1 && run.stderr.contains("no space left on device"), "{run}");
    assert_eq!(left, "", "nothing is left");
    sandbox.assert_clean();
}

/// Runs the command where `mount` puts a small disk at `disk`, in a mount table of its own; also
/// gives what the disk holds at the end. `None` where this machine does not let the test do that.
fn on_a_disk(
    sandbox: &Sandbox,
    mount: &str,
    line: &str,
) -> Option<(brigade_tests::cli::Run, String)> {
    std::fs::create_dir(sandbox.path("disk")).expect("made");
    let as_root: &[&str] = if is_root() { &[] } else { &["--user", "--map-root-user"] };
    let works = Command::new("unshare")
        .args(as_root)
        .args(["--mount", "mount", "-t", "tmpfs", "none", "/mnt"])
        .output();
    if !works.is_ok_and(|works| works.status.success()) {
        println!("skipped: this machine lets the test mount nothing");
        return None;
    }
    let script =
        format!("{mount} || exit 99; \"$@\"; code=$?; ls disk | tr '\\n' ' ' > left; exit $code");
    let unshare = ["unshare"].iter().chain(as_root).copied();
    let wrapper = unshare.chain(["--mount", "sh", "-c", &script, "sh"]);
    let run = sandbox.cp(line).under(wrapper).run();
    let left = std::fs::read_to_string(sandbox.path("left")).expect("listed");
    Some((run, left))
}

#[test]
fn standard_output_may_be_full() {
    let sandbox = with_object();
    let script = "exec \"$@\" > /dev/full";
    let run = sandbox.cp("s3://bucket/f -").under(["sh", "-c", script, "sh"]).run();
    let said = run.failed(1);
    assert_eq!(
        said,
        "write to -: no space left on device; free some space, or choose another target"
    );
}

#[test]
fn buckets_and_keys_that_do_not_exist() {
    let sandbox = Sandbox::new();
    sandbox.file("f", 10);
    sandbox.file("big", 2 * PART);
    let no_bucket = "no such bucket; check the bucket's name and the endpoint";
    for (line, said) in [
        ("s3://bucket/none x", "download s3://bucket/none: no such key; check the key".to_owned()),
        ("s3://bucket/none -", "download s3://bucket/none: no such key; check the key".to_owned()),
        ("s3://nowhere/f x", format!("download s3://nowhere: {no_bucket}")),
        ("f s3://nowhere/f", format!("upload to s3://nowhere: {no_bucket}")),
        (
            "f s3://nowhere/f --store-profile brigade",
            format!("upload to s3://nowhere/f: {no_bucket}"),
        ),
        (
            "big s3://nowhere/f --part-size 5MiB --store-profile brigade",
            format!("begin the upload to s3://nowhere/f: {no_bucket}"),
        ),
    ] {
        refused(&sandbox, line, 4, &said);
    }
    assert!(!sandbox.path("x").exists());
}

#[test]
fn credentials_that_are_wrong_or_missing() {
    let sandbox = with_object();
    let run = sandbox.cp("f s3://bucket/f").env("AWS_ACCESS_KEY_ID", "SOMEBODY").run();
    assert_eq!(
        run.failed(5),
        "upload to s3://bucket/f: the store does not know this access key; check \
         AWS_ACCESS_KEY_ID or the profile, and that they belong to this endpoint"
    );
    let wrong = |line: &str| sandbox.cp(line).env("AWS_SECRET_ACCESS_KEY", "wrong");
    assert_eq!(
        wrong("f s3://bucket/f").run().failed(5),
        "upload to s3://bucket/f: the secret key is wrong for this access key; check \
         AWS_SECRET_ACCESS_KEY or the profile"
    );
    assert_eq!(
        wrong("s3://bucket/f x").run().failed(5),
        "download s3://bucket/f: access denied; it takes s3:GetObject; check the credentials and \
         their permissions"
    );
    let nobody = |line: &str| {
        let run = sandbox.cp(line).without_env("AWS_ACCESS_KEY_ID");
        run.without_env("AWS_SECRET_ACCESS_KEY").run()
    };
    for (line, start) in [
        ("f s3://bucket/f", "upload to s3://bucket/f"),
        ("s3://bucket/f x", "download s3://bucket/f"),
    ] {
        assert_eq!(
            nobody(line).failed(5),
            format!(
                "{start}: no credentials found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, \
                 choose a profile with --profile, or use --no-sign-request for a public bucket"
            )
        );
    }
    let run = sandbox.cp("s3://bucket/f x --no-sign-request").run();
    assert_eq!(
        run.failed(5),
        "download s3://bucket/f: access denied; it takes s3:GetObject; check the credentials and \
         their permissions"
    );
    let without =
        Brigade::new(&sandbox.folder(), ["cp", "s3://bucket/f", "x", "--profile", "none"]);
    assert_eq!(
        without.endpoint(sandbox.store().endpoint_url()).run().failed(2),
        "use the profile none: it is not in the AWS configuration; there are no profiles; make one \
         with: aws configure --profile NAME"
    );
    sandbox.assert_clean();
}

#[test]
fn a_store_in_another_region() {
    let region = Some("eu-test-1".to_owned());
    let sandbox = Sandbox::with(Options { region, ..Sandbox::options() });
    sandbox.file("f", 10);
    for region in ["us-east-1", "eu-test-1"] {
        let there = format!("f s3://bucket/{region} --region {region}");
        sandbox.cp(&there).run().succeeded_silently();
        let back = format!("s3://bucket/{region} {region} --region {region}");
        sandbox.cp(&back).run().succeeded_silently();
        files::assert_same(&sandbox.path("f"), &sandbox.path(region));
    }
}

#[test]
fn endpoints_that_cannot_be_reached() {
    let sandbox = Sandbox::new();
    sandbox.file("f", 10);
    let advice = "check the endpoint and the network";
    for (url, code, said) in [
        (
            "http://127.0.0.1:1",
            8,
            format!("upload to s3://bucket: gave up after 3 attempts: connection refused; {advice}"),
        ),
        (
            "127.0.0.1:9000",
            2,
            "read the endpoint 127.0.0.1:9000: it must start with http:// or https://; write it as \
             http://host:port or https://host"
                .to_owned(),
        ),
        (
            "ftp://host",
            2,
            "read the endpoint ftp://host: it must start with http:// or https://; write it as \
             http://host:port or https://host"
                .to_owned(),
        ),
    ] {
        let run = sandbox.cp("f s3://bucket/f").endpoint(url).run();
        assert!(run.elapsed < Duration::from_secs(10), "{run}");
        assert_eq!(run.failed(code), said, "{url}");
    }
    let run = sandbox.cp("f s3://bucket/f").endpoint("http://no-such-host.invalid").run();
    let said = run.failed(8);
    assert!(said.contains("name not found: no-such-host.invalid ("), "{said}");
    // A store that speaks something else on that port.
    let plain = sandbox.store().endpoint_url().replace("http://", "https://");
    let run = sandbox.cp("f s3://bucket/f").endpoint(plain).run();
    let said = run.failed_in_the_end(8);
    assert!(said.contains("the server does not speak TLS on this port"), "{said}");
}

#[test]
fn certificates_that_cannot_be_used() {
    let sandbox = Sandbox::with_tls();
    sandbox.file("f", 10);
    std::fs::write(sandbox.path("empty.pem"), "nothing of that sort").expect("written");
    let said = sandbox.cp("f s3://bucket/f --ca-bundle missing.pem").run().failed(4);
    assert!(said.contains("missing.pem: no such file or directory; "), "{said}");
    let said = sandbox.cp("f s3://bucket/f --ca-bundle empty.pem").run().failed(2);
    assert!(said.contains("empty.pem: ") && said.contains("; "), "{said}");
}

#[test]
fn urls_that_make_no_sense() {
    let sandbox = Sandbox::new();
    sandbox.file("f", 10);
    let write = "write it as s3://bucket/key";
    for (line, said) in [
        (
            "f s3:/bucket/key",
            format!("read the S3 URL s3:/bucket/key: two slashes must follow s3:; {write}"),
        ),
        ("f s3://", format!("read the S3 URL s3://: the bucket's name is missing; {write}")),
        (
            "f s3:///key",
            format!("read the S3 URL s3:///key: the bucket's name is missing; {write}"),
        ),
        (
            "f s3://buc:ket/key",
            format!("read the S3 URL s3://buc:ket/key: a bucket's name cannot hold ':'; {write}"),
        ),
        (
            "f g",
            "neither SOURCE nor TARGET is in a store; write one of them as s3://bucket/key".into(),
        ),
        (
            "- s3://bucket/p/",
            "standard input has no name to store it under in s3://bucket/p/; name the whole key"
                .into(),
        ),
        ("- f", "standard input goes to a store only; write TARGET as s3://bucket/key".into()),
        (
            "s3://bucket/ x",
            "s3://bucket/ names a bucket or a prefix, not an object; name one key, or copy all that is below \
             it with cp --recursive"
                .into(),
        ),
    ] {
        refused(&sandbox, line, 2, &said);
    }
    let long = format!("s3://bucket/{}", "k".repeat(1025));
    let said = sandbox.brigade(["cp", "f", &long]).run().failed(2);
    assert!(said.contains("the key has 1025 bytes of at most 1024"), "{said}");
    let odd = OsStr::from_bytes(b"s3://bucket/caf\xe9");
    let said = sandbox.brigade([OsStr::new("cp"), OsStr::new("f"), odd]).run().failed(2);
    assert_eq!(said, "the key is not UTF-8, which every key in S3 is; check the name");
    assert_eq!(sandbox.store().stats().requests.len(), 0);
}

#[test]
fn part_sizes_out_of_range() {
    let sandbox = Sandbox::new();
    sandbox.file("f", 6 * PART);
    for (size, shown, advice) in [
        ("1MiB", "1.0 MiB", "the smallest that works is 5 MiB"),
        ("6GiB", "6.0 GiB", "the largest that works is 5.0 GiB"),
    ] {
        let line = format!("f s3://bucket/f --part-size {size}");
        assert_eq!(
            sandbox.cp(&line).run().failed(2),
            format!(
                "upload to s3://bucket/f: part size {shown} is outside the 5.0 MiB to 5.0 GiB that \
                 brigade allows; {advice}"
            )
        );
    }
    for size in ["0", "-1", "many", "5XB", "99999999999999999999"] {
        let line = format!("f s3://bucket/f --part-size={size}");
        let said = sandbox.cp(&line).run().failed(2);
        assert!(said.contains("part-size") || said.contains("part size 0 B"), "{said}");
    }
    assert_eq!(sandbox.store().stats().count("CreateMultipartUpload"), 0);
}

#[test]
fn arguments_that_make_no_sense() {
    let sandbox = Sandbox::new();
    sandbox.file("f", 10);
    for (line, expected) in [
        ("f s3://bucket/f --concurrency 0", "--concurrency"),
        ("f s3://bucket/f --verify maybe", "possible values: auto, require, off"),
        ("f s3://bucket/f --checksum-algorithm crc16", "crc64nvme"),
        ("f s3://bucket/f --sse-kms-key-id x", "add --sse aws:kms"),
        ("f s3://bucket/f --metadata nothing", "write NAME=VALUE"),
        ("f s3://bucket/f --version-id x", "--version-id is for downloads"),
        ("s3://bucket/f x --if-none-match", "--if-none-match is for uploads"),
        ("f s3://bucket/f --quiet --json", "'--quiet' cannot be used with '--json'"),
        ("f s3://bucket/f --store-profile none", "neither a file nor a built-in profile"),
        ("f s3://bucket/f --sse-c-key-env NOT_SET", "a variable that is not set"),
        ("f s3://bucket/f --sse-c-key-file f", "10 bytes are not a 256-bit key"),
        ("f s3://bucket/f --nonsense", "unexpected argument '--nonsense' found"),
        ("f", "<TARGET>"),
        ("f s3://bucket/f extra", "unexpected argument 'extra' found"),
    ] {
        let run = sandbox.cp(line).run();
        // With --json the line is an object on standard output as well.
        let said = run.failed(2);
        assert!(said.contains(expected), "{line}: {said}");
    }
    assert_eq!(sandbox.brigade(["move"]).run().code(), 2);
    assert_eq!(sandbox.store().stats().requests.len(), 0);
}

#[test]
fn a_secret_typed_in_the_wrong_place_is_not_repeated() {
    let sandbox = Sandbox::new();
    sandbox.file("f", 10);
    // The harness fails if the key shows.
    let wrong = format!("f s3://bucket/f --sse-c-key-env {}", brigade_tests::cli::CUSTOMER_KEY);
    sandbox.cp(&wrong).run().failed(2);
    let proxy = format!("http://me:{}@127.0.0.1:1", SECRET_KEY.replace('/', "%2F"));
    let said = sandbox.cp("f s3://bucket/f").env("HTTP_PROXY", &proxy).run().failed(8);
    assert!(!said.contains("hush"), "{said}");
}

/// What becomes of an upload whose source changes while a slow store takes it in.
fn changed_meanwhile(change: impl FnOnce(&Path)) -> String {
    let sandbox = Sandbox::new();
    let file = sandbox.file("f", 12 * PART);
    let relay = Relay::slow(sandbox.store(), 16 << 20);
    let line = "f s3://bucket/f --part-size 5MiB --concurrency 2";
    let running = sandbox.cp(line).endpoint(relay.url()).start();
    eventually("a part is on its way", Duration::from_secs(10), || relay.count("UploadPart") > 1);
    change(&file);
    relay.hurry();
    let said = running.wait().failed(6);
    sandbox.assert_clean();
    assert_eq!(sandbox.store().stats().count("CompleteMultipartUpload"), 0);
    let advice = "; nothing was stored; start it again when nothing writes to the file";
    said.strip_suffix(advice).unwrap_or_else(|| panic!("{said}")).to_owned()
}

#[test]
fn a_source_that_grows() {
    let said = changed_meanwhile(|file| {
        let file = std::fs::OpenOptions::new().append(true).open(file).expect("opened");
        file.set_len(13 * PART).expect("longer");
    });
    assert_eq!(
        said,
        "upload f: the file changed from 62914560 to 68157440 bytes during the upload"
    );
}

#[test]
fn a_source_that_shrinks() {
    let said = changed_meanwhile(|file| {
        let file = std::fs::OpenOptions::new().write(true).open(file).expect("opened");
        file.set_len(PART).expect("shorter");
    });
    assert_eq!(said, "upload f: the file changed from 62914560 to 5242880 bytes during the upload");
}

#[test]
fn a_source_that_shrinks_while_it_is_summed() {
    let sandbox = Sandbox::new();
    let file = sandbox.file("f", 512 << 20);
    let line = "f s3://bucket/f --part-size 256MiB --checksum-algorithm sha256 --json";
    let running = sandbox.cp(line).start();
    running.wait_for_stdout("part_started");
    let file = std::fs::OpenOptions::new().write(true).open(file).expect("opened");
    file.set_len(PART).expect("shorter");
    let said = running.wait().failed(6);
    assert!(said.contains("from 536870912 to 5242880 bytes during the upload"), "{said}");
    sandbox.assert_clean();
}

/// A hole in a file that is mapped would take room in memory, and there is none: it is read, which takes none.
/// It needs no rights, unlike a disk that fails, for which see `sources`.
#[test]
fn a_source_with_holes_where_memory_is_full() {
    let sandbox = Sandbox::new();
    let mount = "mount -t tmpfs -o size=4m none disk && truncate -s 32M disk/f && \
                 { cat /dev/zero > disk/other 2>/dev/null; true; }";
    let Some((run, _)) = on_a_disk(&sandbox, mount, "disk/f s3://bucket/f") else { return };
    assert!(run.succeeded().text().contains("verified full-object CRC32"));
    sandbox.assert_clean();
}

#[test]
fn a_source_that_is_written_to() {
    let said = changed_meanwhile(|file| {
        let file = std::fs::OpenOptions::new().write(true).open(file).expect("opened");
        std::os::unix::fs::FileExt::write_at(&file, b"other bytes", 50 << 20).expect("written");
    });
    assert_eq!(said, "upload f: the file was written to during the upload");
}

#[test]
fn a_source_that_is_replaced() {
    let said = changed_meanwhile(|file| {
        let other = file.with_file_name("other");
        files::make(&other, 12 * PART, 1);
        std::fs::rename(other, file).expect("replaced");
    });
    assert_eq!(said, "upload f: the file was replaced during the upload");
}

#[test]
fn a_source_that_is_removed() {
    let said = changed_meanwhile(|file| std::fs::remove_file(file).expect("removed"));
    assert_eq!(said, "upload f: the file was removed during the upload");
}
