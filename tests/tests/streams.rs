//! Standard input into an object: of any length, from whoever produces it, at whatever speed.

use std::io::Write as _;
use std::time::Duration;

use brigade::StreamOptions;
use brigade_store::faults::{Action, Place, Rule};
use brigade_tests::cli::{BUCKET, Brigade, PART, Sandbox, eventually};
use brigade_tests::files;
use futures::executor::block_on;
use rustix::process::Signal;

const SOON: Duration = Duration::from_secs(20);

fn count(sandbox: &Sandbox, operation: &str) -> u64 {
    sandbox.store().stats().count(operation)
}

/// `brigade cp - s3://bucket/f`, of the file `f`.
fn stream(sandbox: &Sandbox, more: &str) -> Brigade {
    let file = std::fs::File::open(sandbox.path("f")).expect("a file");
    sandbox.cp(&format!("- s3://bucket/f --part-size 5MiB {more}")).input(file)
}

#[track_caller]
fn assert_stored(sandbox: &Sandbox) {
    sandbox.cp("s3://bucket/f back").run().succeeded();
    files::assert_same(&sandbox.path("f"), &sandbox.path("back"));
    sandbox.assert_clean();
}

#[test]
fn one_part_or_less_is_one_request() {
    let sandbox = Sandbox::new();
    for (size, puts, parts) in
        [(0, 1, 0), (1, 2, 0), (PART - 1, 3, 0), (PART, 4, 0), (PART + 1, 4, 2), (3 * PART, 4, 5)]
    {
        sandbox.file("f", size);
        let report = stream(&sandbox, "--json").run().report();
        assert_eq!((&report["bytes"], &report["source"]), (&size.into(), &"-".into()));
        assert_eq!(report["verified"], "full-object", "{report}");
        assert_eq!((count(&sandbox, "PutObject"), count(&sandbox, "UploadPart")), (puts, parts));
        let expected = size.div_ceil(PART).max(1);
        assert_eq!(report["parts"], expected);
        assert_stored(&sandbox);
    }
}

#[test]
fn a_slow_producer_of_any_length_is_waited_for() {
    let sandbox = Sandbox::new();
    let size = 2 * PART + fastrand::u64(..2 * PART);
    println!("{size} bytes");
    let file = sandbox.file("f", size);
    let bytes = std::fs::read(file).expect("readable");
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    let running = sandbox.cp("- s3://bucket/f --part-size 5MiB --stall-timeout 1s").input(reader);
    let running = running.start();
    for piece in bytes.chunks(bytes.len() / 6) {
        writer.write_all(piece).expect("read");
        std::thread::sleep(Duration::from_millis(250));
    }
    drop(writer);
    let run = running.wait().succeeded();
    assert!(run.text().starts_with("uploaded - to s3://bucket/f: "), "{run}");
    assert_stored(&sandbox);
}

#[test]
fn the_reach_is_told_and_kept() {
    let sandbox = Sandbox::new();
    std::fs::write(sandbox.path("few.toml"), "base = \"brigade\"\nmax_parts = 3\n").expect("made");
    let few = "--store-profile few.toml";
    sandbox.file("f", 3 * PART);
    let run = stream(&sandbox, few).run().succeeded();
    assert!(run.stderr.contains("reads on up to 15.0 MiB in parts from 5.0 MiB on"), "{run}");
    assert_stored(&sandbox);
    sandbox.file("f", 3 * PART + 1);
    let said = stream(&sandbox, few).run().failed_in_the_end(2);
    assert!(said.contains("the input is longer than the 15.0 MiB that 3 parts"), "{said}");
    assert!(said.contains("--expected-size") && said.contains("--spool DIR"), "{said}");
    sandbox.assert_clean();
    // Whoever knows how much it will be says so.
    let file = std::fs::File::open(sandbox.path("f")).expect("a file");
    let line = "- s3://bucket/f --store-profile few.toml --expected-size 16MiB --json";
    let report = sandbox.cp(line).input(file).run().report();
    assert_eq!(report["part_size_bytes"], 8 << 20);
    assert_stored(&sandbox);
    let file = std::fs::File::open(sandbox.path("f")).expect("a file");
    let line = "- s3://bucket/f --expected-size 1TiB --json";
    let report = sandbox.cp(line).input(file).run().report();
    assert!(report["part_size_bytes"].as_u64() >= Some((1 << 40) / 10_000), "{report}");
    assert_stored(&sandbox);
}

#[test]
fn parts_grow_where_they_may() {
    let sandbox = Sandbox::new();
    let profile = "base = \"brigade\"\nmax_parts = 4\nmin_part_size_bytes = \"5MiB\"\n";
    std::fs::write(sandbox.path("few.toml"), profile).expect("made");
    std::fs::write(sandbox.path("equal.toml"), format!("{profile}equal_parts = true\n"))
        .expect("made");
    // Four parts of 8 MiB, or of 8, 16, 24 and 32.
    sandbox.file("f", 50 << 20);
    let stream = |profile: &str| {
        let file = std::fs::File::open(sandbox.path("f")).expect("a file");
        sandbox.cp(&format!("- s3://bucket/f --store-profile {profile}.toml")).input(file)
    };
    let run = stream("few").run().succeeded();
    assert!(run.text().contains("4 parts, verified full-object"), "{run}");
    assert_stored(&sandbox);
    let said = stream("equal").run().failed_in_the_end(2);
    assert!(said.contains("longer than the 32.0 MiB"), "{said}");
    sandbox.assert_clean();
}

#[test]
fn what_is_spooled_is_uploaded_as_a_file_and_gone() {
    let sandbox = Sandbox::new();
    sandbox.file("f", 3 * PART + 9);
    std::fs::create_dir(sandbox.path("spool")).expect("a folder");
    let report = stream(&sandbox, "--spool spool --json").run().report();
    assert_eq!((&report["source"], &report["parts"]), (&"-".into(), &4.into()));
    assert_eq!(std::fs::read_dir(sandbox.path("spool")).expect("a folder").count(), 0);
    assert_stored(&sandbox);
    let said = stream(&sandbox, "--spool missing").run().failed(4);
    assert!(said.contains("missing"), "{said}");
}

#[test]
fn every_part_may_fail_once() {
    let sandbox = Sandbox::new();
    sandbox.file("f", 4 * PART + 1);
    let fails = Rule::on_any(["UploadPart", "CreateMultipartUpload", "CompleteMultipartUpload"])
        .per_part()
        .nth(1)
        .then(Action::answer(503, "SlowDown"));
    sandbox.store().faults().set(fails).expect("rules");
    let report = stream(&sandbox, "--json").run().report();
    assert_eq!(report["retries"], 7, "{report}");
    sandbox.store().faults().clear();
    assert_stored(&sandbox);
}

#[test]
fn a_stream_that_was_killed_is_found_and_aborted() {
    let sandbox = Sandbox::new();
    sandbox.file("f", 3 * PART);
    let kill = || {
        let stall = Rule::on("UploadPart").part(2).then(Action::stall(Place::RequestEnd));
        sandbox.store().faults().set(stall).expect("rules");
        let running = stream(&sandbox, "").start();
        eventually("a part waits", SOON, || sandbox.store().faults().fired().total == 1);
        running.signal(Signal::KILL);
        assert_eq!(running.wait().code(), -9);
        sandbox.store().faults().clear();
    };
    kill();
    let run = sandbox.brigade(["uploads", "list"]).run().succeeded();
    assert!(run.text().contains("here and store") && run.text().contains("s3://bucket/f"), "{run}");
    let run = sandbox.brigade(["resume", "--dry-run"]).run().succeeded();
    assert!(run.text().contains("it can only be begun anew"), "{run}");
    let run = sandbox.brigade(["resume", "--json"]).run().succeeded();
    assert_eq!(run.json()[0]["reason"], "unresumable", "{run}");
    let run = sandbox.brigade(["uploads", "abort", "--yes"]).run().succeeded();
    assert!(run.text().contains("aborted 1;"), "{run}");
    sandbox.assert_clean();
    // The next stream to the same place gives up what this one leaves.
    kill();
    stream(&sandbox, "").run().succeeded();
    assert_stored(&sandbox);
}

#[test]
fn an_interrupted_stream_leaves_nothing() {
    let sandbox = Sandbox::new();
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    let running = sandbox.cp("- s3://bucket/f --part-size 5MiB").input(reader).start();
    writer.write_all(&vec![1; 11 << 20]).expect("read");
    eventually("a part is there", SOON, || count(&sandbox, "UploadPart") > 0);
    running.signal(Signal::INT);
    assert_eq!(running.wait().code(), 130);
    sandbox.assert_clean();
}

#[test]
fn standard_input_that_cannot_be_read_is_an_error() {
    let sandbox = Sandbox::new();
    let folder = std::fs::File::open(sandbox.folder()).expect("a folder");
    let said = sandbox.cp("- s3://bucket/f").input(folder).run().failed(1);
    assert!(said.starts_with("read the input from -: "), "{said}");
    sandbox.assert_clean();
}

#[test]
fn only_create_goes_for_streams_as_well() {
    let sandbox = Sandbox::new();
    for size in [7, PART + 7] {
        sandbox.file("f", size);
        let object = sandbox.session().bucket(BUCKET).object("f");
        let file = std::fs::File::open(sandbox.path("f")).expect("a file");
        block_on(object.upload_from(file, StreamOptions::default())).expect("uploaded");
        let said = stream(&sandbox, "--if-none-match").run().failed_in_the_end(6);
        assert!(said.contains("the object exists already"), "{said}");
        assert_stored(&sandbox);
    }
}

#[test]
fn a_pipe_in_a_shell_works_as_documented() {
    let sandbox = Sandbox::new();
    sandbox.file("f", PART + 5);
    let sh = ["sh", "-c", "cat f | \"$0\" \"$@\""];
    sandbox.cp("- s3://bucket/f").under(sh).run().succeeded();
    assert_stored(&sandbox);
}
