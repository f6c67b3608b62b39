//! Sync commands of other makers and ours, one after the other in the same direction: the second has nothing to do.
//!
//! They compare sizes and times as ours does, each in its own way. Up, all go by whether the file is younger than the
//! object. Down, `aws` moves what is younger here, `s5cmd` what is younger there, and both are content with files that
//! have the listing's time to the fraction, which ours get. What they cannot be content with is said where it is.

use std::fs;
use std::process::Output;
use std::time::{Duration, SystemTime};

use brigade_store::Server;
use brigade_tests::cli::{BUCKET, Brigade, PART, Sandbox};
use brigade_tests::files;
use brigade_tests::peers::{self, Endpoint};
use brigade_tests::python::Python;
use brigade_tests::seaweedfs::SeaweedFs;
use futures::executor::block_on;
use serde_json::Value;
use tempfile::TempDir;

/// Files and their sizes. One is large enough to be moved in parts by most.
const FILES: [(&str, u64); 9] = [
    ("a", 10),
    ("a-b", 11),
    ("a.b/c", 12),
    ("b/c d", 1_000),
    ("b/c/+&=", 100_000),
    ("b0", 13),
    ("empty", 0),
    ("large", 2 * PART + 1),
    ("ä/ö ü", 14),
];

/// One that `SeaweedFS` lists after what is in the folder `b/c`, although its key comes before. `aws` takes lists for
/// ordered and would move it again and again, whoever moved it; ours notices (see the tests with that store).
const OUT_OF_ORDER: &str = "b/c d";

const TOOLS: [Tool; 3] = [Tool::Aws, Tool::S5cmd, Tool::Rclone];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tool {
    Aws,
    S5cmd,
    Rclone,
}

/// A store, and a folder that commands run in.
struct Bench {
    python: Python,
    endpoint: Endpoint,
    folder: TempDir,
    files: Vec<(&'static str, u64)>,
}

impl Bench {
    fn new(python: Python, endpoint: &Endpoint, without: Option<&str>) -> Self {
        let files = FILES.into_iter().filter(|(name, _)| Some(*name) != without).collect();
        let bench = Self { python, endpoint: endpoint.clone(), folder: peers::folder(), files };
        // Written before anything is uploaded, whatever the fractions of seconds that are listed.
        let hour_ago = SystemTime::now() - Duration::from_hours(1);
        for &(name, size) in &bench.files {
            let path = bench.folder.path().join("up").join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            files::make(&path, size, 1);
            let open = fs::File::options().append(true).open(&path).expect("opened");
            open.set_modified(hour_ago).expect("set");
        }
        bench
    }

    /// The report of a job of ours.
    #[track_caller]
    fn ours(&self, line: &str) -> Value {
        let words = line.split_whitespace().chain(["--json"]);
        let run = Brigade::new(self.folder.path(), words)
            .dir(self.folder.path())
            .env("AWS_ACCESS_KEY_ID", &self.endpoint.access_key)
            .env("AWS_SECRET_ACCESS_KEY", &self.endpoint.secret_key)
            .env("AWS_REGION", "us-east-1")
            .endpoint(&self.endpoint.url)
            .run();
        run.report()
    }

    /// Ours finds everything to be there already.
    #[track_caller]
    fn assert_nothing_is_left(&self, line: &str) {
        let report = self.ours(line);
        let numbers = ["objects", "same", "failed"].map(|name| report[name].as_u64());
        assert_eq!(numbers, [Some(0), Some(self.files.len() as u64), Some(0)], "{line}: {report}");
    }

    fn theirs(&self, tool: Tool, args: &[&str]) -> Output {
        let Endpoint { url, access_key, secret_key, .. } = &self.endpoint;
        let (program, before): (_, &[&str]) = match tool {
            Tool::Aws => ("aws", &["--cli-read-timeout=30"]),
            Tool::S5cmd => ("s5cmd", &["--retry-count=0"]),
            Tool::Rclone => ("rclone", &["--retries=1", "--low-level-retries=1", "--timeout=30s"]),
        };
        let mut command = self.python.command(self.python.program(program), self.folder.path());
        command
            .args(before)
            .args(args)
            .env("AWS_ACCESS_KEY_ID", access_key)
            .env("AWS_SECRET_ACCESS_KEY", secret_key)
            .env("AWS_REGION", "us-east-1")
            .env("AWS_ENDPOINT_URL", url)
            .env("AWS_MAX_ATTEMPTS", "1")
            // Otherwise it waits to be told to go on sending nothing, is answered instead, and then takes the
            // next answer on that connection for garbage.
            .env("BOTO_EXPERIMENTAL__NO_EMPTY_CONTINUE", "true")
            .env("S3_ENDPOINT_URL", url)
            .env("RCLONE_CONFIG", "")
            .env("RCLONE_CONFIG_STORE_TYPE", "s3")
            .env("RCLONE_CONFIG_STORE_PROVIDER", "Other")
            .env("RCLONE_CONFIG_STORE_ENDPOINT", url)
            .env("RCLONE_CONFIG_STORE_REGION", "us-east-1")
            .env("RCLONE_CONFIG_STORE_ACCESS_KEY_ID", access_key)
            .env("RCLONE_CONFIG_STORE_SECRET_ACCESS_KEY", secret_key);
        let output = command.output().expect("it can be run");
        assert!(output.status.success(), "{tool:?} {args:?}: {}", shown(&output));
        output
    }

    /// Does the work: `from` and `to` are a folder and a prefix, whichever is which.
    fn moved_by(&self, tool: Tool, from: &str, to: &str) {
        let (from, to) = (end_of(tool, from, true), end_of(tool, to, false));
        match tool {
            Tool::Aws => self.theirs(tool, &["s3", "sync", "--quiet", &from, &to]),
            Tool::S5cmd => self.theirs(tool, &["sync", &from, &to]),
            Tool::Rclone => self.theirs(tool, &["copy", &from, &to]),
        };
    }

    /// What it says it would move.
    fn planned_by(&self, tool: Tool, from: &str, to: &str) -> Vec<String> {
        let (from, to) = (end_of(tool, from, true), end_of(tool, to, false));
        let (output, mark) = match tool {
            Tool::Aws => (self.theirs(tool, &["s3", "sync", "--dryrun", &from, &to]), "(dryrun) "),
            Tool::S5cmd => (self.theirs(tool, &["--dry-run", "sync", &from, &to]), "cp "),
            Tool::Rclone => {
                let args = ["sync", "--dry-run", "--size-only", &from, &to];
                (self.theirs(tool, &args), ": Skipped ")
            }
        };
        let said = shown(&output);
        said.lines().filter(|line| line.contains(mark)).map(str::to_owned).collect()
    }

    /// What `rclone check` says of every name, after `=` where it is the same.
    fn checked(&self, from: &str, to: &str, how: &[&str]) -> Vec<String> {
        let (from, to) = (end_of(Tool::Rclone, from, true), end_of(Tool::Rclone, to, false));
        let args: Vec<_> =
            ["check", "--combined=-", &from, &to].into_iter().chain(how.iter().copied()).collect();
        let output = self.theirs(Tool::Rclone, &args);
        String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
    }

    fn assert_same_content(&self, one: &str, other: &str) {
        for (name, _) in &self.files {
            let at = |folder: &str| self.folder.path().join(folder).join(name);
            files::assert_same(&at(one), &at(other));
        }
    }
}

/// A folder or a prefix as `tool` wants it.
fn end_of(tool: Tool, end: &str, is_source: bool) -> String {
    match (tool, end.strip_prefix("s3://")) {
        (Tool::Rclone, Some(place)) => format!("store:{place}"),
        (Tool::S5cmd, Some(_)) if is_source => format!("{end}/*"),
        (Tool::S5cmd, _) => format!("{end}/"),
        _ => end.to_owned(),
    }
}

fn shown(output: &Output) -> String {
    let [out, err] = [&output.stdout, &output.stderr].map(|said| String::from_utf8_lossy(said));
    format!("{out}\n{err}")
}

/// After ours, up and down, none of the others has anything to do.
fn others_after_ours(bench: &Bench, bucket: &str) {
    let there = &format!("s3://{bucket}/ours");
    fs::create_dir(bench.folder.path().join("down")).expect("made");
    for (from, to) in [("up", there.as_str()), (there, "down")] {
        for tool in TOOLS {
            // It would say so if there were.
            let planned = bench.planned_by(tool, from, to);
            assert_eq!(planned.len(), bench.files.len(), "{tool:?}, from {from}: {planned:?}");
        }
        let report = bench.ours(&format!("sync {from} {to}"));
        assert_eq!(report["objects"].as_u64(), Some(bench.files.len() as u64), "{report}");
        for tool in TOOLS {
            assert_eq!(bench.planned_by(tool, from, to), [""; 0], "{tool:?}, from {from}");
        }
        // By sizes; and by the MD5s of what was not uploaded in parts, as far as the ETags are some.
        for how in [&["--size-only"][..], &[]] {
            let checked = bench.checked(from, to, how);
            assert_eq!(checked.len(), bench.files.len(), "{checked:?}");
            assert!(checked.iter().all(|line| line.starts_with("= ")), "{checked:?}");
        }
    }
    bench.assert_same_content("up", "down");
}

/// After the others, up and down, ours has nothing to do.
fn ours_after_others(bench: &Bench, bucket: &str) {
    let ours = format!("s3://{bucket}/ours");
    for tool in TOOLS {
        let there = format!("s3://{bucket}/{tool:?}");
        bench.moved_by(tool, "up", &there);
        for how in ["", "--size-only", "--checksum"] {
            bench.assert_nothing_is_left(&format!("sync up {there} {how}"));
        }
        let here = format!("{tool:?}-down");
        fs::create_dir(bench.folder.path().join(&here)).expect("made");
        bench.moved_by(tool, &ours, &here);
        bench.assert_same_content("up", &here);
        let line = format!("sync {ours} {here}");
        // Its files have the time of their download, which says nothing of the object they are of.
        if tool != Tool::S5cmd {
            bench.assert_nothing_is_left(&line);
        }
        bench.assert_nothing_is_left(&format!("{line} --size-only"));
        bench.assert_nothing_is_left(&format!("{line} --checksum"));
    }
    // What rclone uploaded it gives the time that it wrote into the metadata, and no listing tells that.
    let there = format!("s3://{bucket}/{:?}", Tool::Rclone);
    bench.moved_by(Tool::Rclone, &there, "rclone-both");
    bench.assert_nothing_is_left(&format!("sync {there} rclone-both --checksum"));
}

#[test]
fn with_the_embedded_store_the_second_has_nothing_to_do() {
    let Some(python) = Python::ready_or_skip() else { return };
    let server = Server::start(Sandbox::options()).expect("a store");
    let bench = Bench::new(python, &Endpoint::new(server.endpoint_url()), None);
    others_after_ours(&bench, BUCKET);
    ours_after_others(&bench, BUCKET);
}

#[test]
fn with_seaweedfs_the_second_has_nothing_to_do() {
    let Some((store, python)) = SeaweedFs::shared_or_skip() else { return };
    let bucket = "interop";
    block_on(store.endpoint().session().bucket(bucket).create()).expect("it is made");
    let bench = Bench::new(python, store.endpoint(), Some(OUT_OF_ORDER));
    others_after_ours(&bench, bucket);
    ours_after_others(&bench, bucket);
}
