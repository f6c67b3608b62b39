//! What is unfinished, from both sides: `brigade resume` goes on with all of it, `brigade uploads`
//! shows, aborts and resumes what is here and on the store.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use brigade::integrity::{Algorithm, Hasher};
use brigade::{SessionOptions, Unfinished, UploadOptions};
use brigade_tests::cli::{Brigade, PART, Run, Running, Sandbox, eventually};
use brigade_tests::files;
use brigade_tests::relay::{Fate, Relay};
use futures::executor::block_on;
use rustix::process::Signal;
use serde_json::Value;

/// Slow enough that nothing is done before it is interrupted.
const CRAWL: u64 = 6 << 20;

const LONG: Duration = Duration::from_secs(20);

/// The parts of every file here.
const PARTS: u64 = 6;

/// A sandbox, and a slow way to its store.
struct Yard {
    sandbox: Sandbox,
    relay: Relay,
}

impl Yard {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let relay = Relay::slow(sandbox.store(), CRAWL);
        Self { sandbox, relay }
    }

    fn brigade(&self, line: &str) -> Brigade {
        self.sandbox.brigade(line.split_whitespace()).endpoint(self.relay.url())
    }

    fn found(&self) -> Vec<Unfinished> {
        found_in(&self.sandbox.manifests())
    }

    /// A transfer that runs, and has something done already.
    fn running(&self, line: &str, manifests: &Path) -> Running {
        let done = || -> usize {
            found_in(manifests).iter().map(|found| found.manifest.parts.len()).sum()
        };
        let before = done();
        let line = format!("cp {line} --part-size 5MiB --concurrency 1");
        let running = self.brigade(&line).start();
        eventually("a part is done", LONG, || done() > before);
        running
    }

    /// One that was killed.
    fn killed(&self, line: &str) {
        let running = self.running(line, &self.sandbox.manifests());
        running.signal(Signal::KILL);
        assert_eq!(running.wait().code(), -9);
    }

    /// An upload of a new file, killed.
    fn killed_upload(&self, name: &str) -> PathBuf {
        let folder = self.sandbox.path(name).parent().expect("a folder").to_owned();
        std::fs::create_dir_all(folder).expect("a folder");
        let file = self.sandbox.file(name, PARTS * PART);
        self.killed(&format!("{name} s3://bucket/{name}"));
        file
    }

    /// An upload that somebody else began: what is recorded of it is not where this user looks.
    fn foreign_upload(&self, key: &str) {
        self.sandbox.file("theirs", PARTS * PART);
        let manifests = self.sandbox.path("their-state");
        let line = format!("theirs s3://bucket/{key} --manifest-dir their-state");
        let running = self.running(&line, &manifests);
        running.signal(Signal::KILL);
        running.wait();
        std::fs::remove_dir_all(manifests).expect("removed");
    }

    fn unfinished_on_store(&self) -> u64 {
        self.sandbox.store().stats().unfinished_uploads
    }

    fn manifest_of(&self, key: &str) -> PathBuf {
        let found = self.found().into_iter().find(|found| found.manifest.transfer.key == key);
        found.expect("a manifest").path
    }
}

fn found_in(manifests: &Path) -> Vec<Unfinished> {
    brigade::unfinished(manifests).expect("a folder").into_iter().flatten().collect()
}

/// The objects of one event.
fn events(run: &Run, event: &str) -> Vec<Value> {
    run.json().into_iter().filter(|object| object["event"] == event).collect()
}

fn last(run: &Run) -> Value {
    run.json().pop().expect("a line")
}

/// Changes the first record of a manifest.
fn rewrite(manifest: &Path, change: impl FnOnce(&mut Value)) {
    let text = std::fs::read_to_string(manifest).expect("readable");
    let mut lines = text.lines();
    let (format, first) = (lines.next().expect("a format"), lines.next().expect("a record"));
    let mut record: Value = serde_json::from_str(&first[9..]).expect("JSON");
    change(&mut record);
    let json = record.to_string();
    let mut hasher = Hasher::new(Algorithm::Crc32);
    hasher.update(json.as_bytes());
    let rest = lines.fold(String::new(), |rest, line| rest + line + "\n");
    let text = format!("{format}\n{} {json}\n{rest}", hasher.finish().to_hex());
    std::fs::write(manifest, text).expect("written");
}

#[test]
fn everything_unfinished_is_resumed_the_oldest_first() {
    let yard = Yard::new();
    let big = yard.sandbox.file("big", PARTS * PART);
    yard.sandbox.cp("big s3://bucket/big").run().succeeded();
    let (one, two) = (yard.killed_upload("one"), yard.killed_upload("two"));
    yard.killed("s3://bucket/big copy");
    let order: Vec<_> = yard.found().into_iter().map(|found| found.manifest.transfer.key).collect();
    assert_eq!(order.len(), 3);

    // A look costs no request, and tells how to go on with each.
    let asked = yard.relay.seen().len();
    let run = yard.brigade("resume --dry-run").run().succeeded_silently();
    assert!(run.text().ends_with("\nwould resume 3\n"), "{run}");
    let command = format!(" brigade cp --endpoint-url={} --part-size=5242880 ", yard.relay.url());
    assert_eq!(run.text().matches(&command).count(), 3, "{run}");
    assert!(run.text().contains(&format!("upload of {} to s3://bucket/one: ", one.display())));
    let run = yard.brigade("resume --dry-run --json").run().succeeded_silently();
    let planned = events(&run, "unfinished");
    for (planned, key) in planned.iter().zip(&order) {
        let is_upload = planned["operation"] == "upload";
        let url = planned[if is_upload { "target" } else { "source" }].as_str();
        assert_eq!(url, Some(format!("s3://bucket/{key}").as_str()), "{run}");
        assert!(planned["bytes_done"].as_u64() >= Some(PART), "{planned}");
        assert_eq!(planned["size_bytes"], PARTS * PART);
        assert_eq!(
            (&planned["running"], &planned["command"][0]),
            (&false.into(), &"brigade".into())
        );
    }
    assert_eq!((planned.len(), yard.relay.seen().len()), (3, asked));

    // The store is the one they were begun with, whatever the environment says today.
    yard.relay.hurry();
    let run = yard.sandbox.brigade(["resume", "--json"]).endpoint("http://127.0.0.1:1").run();
    let run = run.succeeded_silently();
    let reports = events(&run, "report");
    for (report, key) in reports.iter().zip(&order) {
        let ends = [&report["source"], &report["target"]].map(|end| end.as_str().expect("text"));
        assert!(ends.contains(&format!("s3://bucket/{key}").as_str()), "{run}");
        assert!(report["resumed_bytes"].as_u64() >= Some(PART), "{report}");
    }
    assert_eq!(reports.len(), 3);
    let expected = serde_json::json!(
        {"event": "resumed", "resumed": 3, "failed": 0, "running": 0, "left": 0}
    );
    assert_eq!(last(&run), expected);
    files::assert_same(&big, &yard.sandbox.path("copy"));
    for (file, key) in [(one, "one"), (two, "two")] {
        yard.sandbox.cp(&format!("s3://bucket/{key} back")).run().succeeded();
        files::assert_same(&file, &yard.sandbox.path("back"));
    }
    yard.sandbox.assert_clean();
    let run = yard.brigade("resume").run().succeeded_silently();
    assert_eq!(run.text(), "nothing to resume\n");
    let run = yard.brigade("resume --dry-run").run().succeeded_silently();
    assert_eq!(run.text(), "nothing to resume\n");
}

#[test]
fn a_failure_does_not_keep_the_others() {
    let yard = Yard::new();
    let (one, two) = (yard.killed_upload("one"), yard.killed_upload("two"));
    yard.relay.hurry();
    std::fs::remove_file(one).expect("removed");
    let run = yard.brigade("resume").run();
    assert!(
        run.text().contains(&format!("uploaded {} to s3://bucket/two: ", two.display())),
        "{run}"
    );
    assert!(run.text().ends_with("\nresumed 1, failed 1\n"), "{run}");
    assert!(run.failed(3).contains("no such file"));

    // Alone, it ends as it would have ended by itself.
    let run = yard.brigade("resume").run();
    assert_eq!(run.text(), "resumed 0, failed 1\n");
    run.failed(4);

    // What is no manifest is told; it is one more that failed.
    std::fs::write(yard.sandbox.manifests().join("x.upload"), "no manifest\n").expect("written");
    let run = yard.brigade("resume --json --no-progress").run();
    let kinds: Vec<_> = run.json().iter().map(|object| object["event"].clone()).collect();
    assert_eq!(kinds, ["error", "error", "resumed"]);
    assert_eq!((&last(&run)["failed"], run.code()), (&2.into(), 3));
    assert!(run.stderr.contains("x.upload: it is not a manifest"), "{run}");
    assert!(run.stderr.contains("; remove it, and what it may tell of: "), "{run}");
    // One of a later version is of use to that.
    std::fs::write(yard.sandbox.manifests().join("x.upload"), "brigade manifest 7\n{}\n")
        .expect("written");
    let said = yard.brigade("resume --dry-run").run().stderr;
    assert!(said.contains("; resume with the version that began it"), "{said}");
    assert!(!said.contains("remove it"), "{said}");
    // What it would come to is not tried, but what cannot be is told.
    let run = yard.brigade("resume --dry-run").run();
    assert!(run.text().ends_with("\nwould resume 1, failed 1\n"), "{run}");
    run.failed(3);
}

#[test]
fn what_a_process_is_at_is_left_to_it() {
    let yard = Yard::new();
    let file = yard.sandbox.file("f", PARTS * PART);
    let running = yard.running("f s3://bucket/f", &yard.sandbox.manifests());
    let run = yard.brigade("resume").run().succeeded_silently();
    let line =
        format!("skipped the upload of {} to s3://bucket/f: a process is at it", file.display());
    assert_eq!(run.text(), format!("{line}\nresumed 0, running 1\n"));
    let run = yard.brigade("resume --json").run().succeeded_silently();
    let skipped = &events(&run, "skipped")[0];
    assert_eq!(
        (&skipped["reason"], &skipped["target"]),
        (&"running".into(), &"s3://bucket/f".into())
    );
    let run = yard.brigade("resume --dry-run").run().succeeded_silently();
    assert!(run.text().contains(" ago, running\n"), "{run}");

    // Nor is it aborted, although the store knows nothing of a process here.
    let run = yard.brigade("uploads list s3://bucket --json").run().succeeded_silently();
    assert_eq!(events(&run, "upload")[0]["running"], true);
    for url in ["", "s3://bucket"] {
        let run = yard.brigade(&format!("uploads abort {url} --yes")).run().succeeded_silently();
        assert!(run.text().starts_with("skipped s3://bucket/f: a process is at it\n"), "{run}");
    }
    assert_eq!(yard.relay.count("AbortMultipartUpload"), 0);
    yard.relay.hurry();
    running.wait().succeeded();
    yard.sandbox.assert_clean();
}

#[test]
fn a_signal_stops_one_and_keeps_the_rest_from_being_begun() {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let yard = Yard::new();
        yard.killed_upload("one");
        yard.killed_upload("two");
        let before = yard.sandbox.recorded_parts();
        let running = yard.brigade("resume --json").start();
        eventually("it goes on", LONG, || yard.sandbox.recorded_parts() > before);
        running.signal(signal);
        let run = running.wait();
        assert_eq!(run.code(), code, "{run}");
        let lines = run.json();
        let error = &lines[lines.len() - 2];
        assert_eq!((&error["event"], &error["kind"]), (&"error".into(), &"interrupted".into()));
        let message = error["message"].as_str().expect("text");
        assert!(message.ends_with("goes on from there: brigade resume --json"), "{message}");
        assert_eq!((&last(&run)["left"], &last(&run)["resumed"]), (&2.into(), &0.into()), "{run}");
        assert_eq!(yard.found().len(), 2);
    }
}

#[test]
fn a_transfer_of_another_store_is_not_begun_in_this_one() {
    let yard = Yard::new();
    let file = yard.killed_upload("f");
    // As if it had been begun at AWS; the environment names the relay today.
    rewrite(&yard.manifest_of("f"), |record| record["endpoint_url"] = Value::Null);
    yard.relay.hurry();
    let asked = yard.relay.seen().len();
    let said = yard.brigade("resume").run().failed(2);
    let expected = format!("it was begun at AWS, and this leads to {}", yard.relay.url());
    assert!(said.contains(&expected), "{said}");
    assert_eq!(yard.relay.seen().len(), asked);
    let said = yard.brigade("resume --json").run();
    assert_eq!(last(&said)["failed"], 1);

    // A command that means another file by now.
    rewrite(&yard.manifest_of("f"), |record| {
        record["endpoint_url"] = yard.relay.url().into();
        record["path"] = "/somewhere/else".into();
    });
    let said = yard.brigade("resume").run().failed(6);
    assert!(said.contains(&format!("would now upload {}", file.display())), "{said}");
    assert_eq!(yard.relay.seen().len(), asked);
}

#[test]
fn what_a_program_began_is_left_to_it() {
    let sandbox = Sandbox::new();
    let relay = Relay::new(sandbox.store(), |request| match request.operation() {
        "UploadPart" if request.target.contains("partNumber=2") => Fate::error(403, "AccessDenied"),
        _ => Fate::Pass,
    });
    let options = SessionOptions {
        endpoint_url: Some(relay.url()),
        manifest_folder: Some(sandbox.manifests()),
        ..sandbox.session_options()
    };
    let session = block_on(brigade::Session::new(options)).expect("a session");
    let object = session.bucket("bucket").object("f");
    let options = UploadOptions { concurrency: Some(1), ..UploadOptions::default() };
    let file = sandbox.file("f", 40 << 20);
    let failed = block_on(object.upload_file_with(file, options)).expect_err("refused");
    assert!(failed.is_resumable(), "{failed}");
    let said = sandbox.brigade(["resume"]).run().failed(1);
    assert!(said.contains("recorded no command; resume it with that program"), "{said}");
}

#[test]
fn uploads_are_listed_from_both_sides() {
    let yard = Yard::new();
    yard.killed_upload("dir/mine");
    yard.killed_upload("gone");
    yard.foreign_upload("dir/theirs");
    yard.foreign_upload("mine/not");
    let gone = yard.found().into_iter().find(|found| found.manifest.transfer.key == "gone");
    let id = gone.and_then(|found| found.manifest.upload_id).expect("an id");
    block_on(yard.sandbox.session().bucket("bucket").object("gone").abort_upload(&id))
        .expect("aborted");
    yard.relay.hurry();

    // Without a URL: what was begun here.
    let run = yard.brigade("uploads list --json").run().succeeded();
    let listed = events(&run, "upload");
    let of = |key: &str| {
        let found = listed.iter().find(|upload| upload["key"] == key);
        found.unwrap_or_else(|| panic!("{key} is missing: {run}"))
    };
    assert_eq!(listed.len(), 2, "{run}");
    let mine = of("dir/mine");
    assert_eq!((&mine["here"], &mine["on_store"]), (&true.into(), &true.into()));
    assert_eq!(mine["url"], "s3://bucket/dir/mine");
    assert_eq!(mine["size_bytes"], PARTS * PART);
    assert!(mine["bytes_done"].as_u64() >= Some(PART), "{mine}");
    assert!(mine["store_bytes"].as_u64() >= Some(PART), "{mine}");
    assert!(mine["source"].as_str().is_some_and(|path| path.ends_with("dir/mine")), "{mine}");
    assert_eq!(
        (&of("gone")["on_store"], &of("gone")["store_bytes"]),
        (&false.into(), &Value::Null)
    );
    assert_eq!(last(&run)["uploads"], 2);

    // With one: all that is there, and what is here of it.
    let run = yard.brigade("uploads list s3://bucket/dir/ --json").run().succeeded_silently();
    let listed = events(&run, "upload");
    let keys: Vec<_> = listed.iter().map(|upload| upload["key"].as_str().expect("text")).collect();
    assert_eq!((keys.len(), keys.contains(&"dir/mine")), (2, true), "{run}");
    let theirs = listed.iter().find(|upload| upload["key"] == "dir/theirs").expect("listed");
    assert_eq!((&theirs["here"], &theirs["on_store"]), (&false.into(), &true.into()));
    assert_eq!((&theirs["source"], &theirs["bytes_done"]), (&Value::Null, &Value::Null));

    // For people: one line each where there is no terminal, and what a person may wonder about.
    let run = yard.brigade("uploads list s3://bucket").run().succeeded();
    let lines: Vec<_> = run.text().lines().collect();
    assert_eq!(lines.len(), 6, "{run}");
    assert!(lines[0].starts_with("AGE ") && lines[0].ends_with("UPLOAD ID"), "{run}");
    for (key, place) in [
        ("s3://bucket/dir/mine", "here and store"),
        ("s3://bucket/gone", "here only"),
        ("s3://bucket/dir/theirs", "store only"),
    ] {
        let line = lines.iter().find(|line| line.contains(&format!(" {key} ")));
        assert!(line.is_some_and(|line| line.contains(place)), "{key}: {run}");
    }
    assert!(lines[5].starts_with("4 unfinished uploads, "), "{run}");
    assert!(run.stderr.starts_with("brigade: here only: "), "{run}");

    // At another endpoint none of it is here, and that is said.
    let run = yard.sandbox.brigade(["uploads", "list"]).run().succeeded();
    assert_eq!(run.text(), "no unfinished uploads\n");
    let url = yard.relay.url();
    let notice = format!(
        "brigade: 2 unfinished uploads at {url} left out: brigade uploads list --endpoint-url {url}\n"
    );
    assert_eq!(run.stderr, notice);
    yard.brigade("uploads list s3://no-such-bucket").run().failed(4);
    yard.brigade("uploads list bucket").run().failed(2);
}

#[test]
fn downloads_are_mentioned() {
    let yard = Yard::new();
    yard.sandbox.file("f", PARTS * PART);
    yard.sandbox.cp("f s3://bucket/f").run().succeeded();
    yard.killed("s3://bucket/f copy");
    let run = yard.brigade("uploads list").run().succeeded();
    assert_eq!(run.text(), "no unfinished uploads\n");
    let notice = "brigade: 1 unfinished download left out: brigade resume --dry-run\n";
    assert_eq!(run.stderr, notice);
}

#[test]
fn uploads_are_aborted_on_both_sides() {
    let yard = Yard::new();
    yard.killed_upload("mine");
    yard.killed_upload("other");
    yard.foreign_upload("mine");
    yard.relay.hurry();
    assert_eq!(yard.unfinished_on_store(), 3);

    // Nobody is there to be asked.
    let said = yard.brigade("uploads abort").run().failed(2);
    assert_eq!(said, "with no terminal nobody can be asked whether to abort; add --yes");
    yard.brigade("uploads abort --json").run().failed(2);
    // They are too young.
    let run = yard.brigade("uploads abort s3://bucket --older-than 7d --yes").run();
    assert_eq!(run.succeeded_silently().text(), "nothing to abort\n");
    assert_eq!(yard.unfinished_on_store(), 3);

    // Without a URL only what was begun here, even where somebody else is at the same key.
    let run = yard.brigade("uploads abort --yes --older-than 0s --json").run().succeeded_silently();
    assert_eq!(events(&run, "upload_aborted").len(), 2, "{run}");
    let sum = last(&run);
    assert_eq!((&sum["event"], &sum["aborted"]), (&"aborted".into(), &2.into()));
    assert!(sum["store_bytes"].as_u64() >= Some(2 * PART), "{sum}");
    assert_eq!((yard.unfinished_on_store(), yard.found().len()), (1, 0));

    let run = yard.brigade("uploads abort s3://bucket/m --yes").run().succeeded_silently();
    assert!(run.text().starts_with("aborted s3://bucket/mine, "), "{run}");
    assert!(run.text().contains("\naborted 1; "), "{run}");
    yard.sandbox.assert_clean();
}

#[test]
fn an_abort_that_fails_keeps_what_is_recorded() {
    let yard = Yard::new();
    yard.killed_upload("one");
    yard.killed_upload("two");
    let relay = Relay::new(yard.sandbox.store(), |request| match request.operation() {
        "AbortMultipartUpload" if request.target.contains("/one") => {
            Fate::error(403, "AccessDenied")
        }
        _ => Fate::Pass,
    });
    for key in ["one", "two"] {
        rewrite(&yard.manifest_of(key), |record| record["endpoint_url"] = relay.url().into());
    }
    let abort = || yard.brigade("uploads abort --yes").endpoint(relay.url()).run();
    let run = abort();
    assert!(run.text().contains("\naborted 1, failed 1; "), "{run}");
    let said = run.failed(3);
    assert!(said.contains("s3://bucket/one: "), "{said}");
    assert_eq!(yard.found().len(), 1);
    abort().failed(5);
}

#[test]
fn matching_uploads_are_resumed() {
    let yard = Yard::new();
    let file = yard.killed_upload("dir/mine");
    yard.killed_upload("other");
    yard.foreign_upload("dir/theirs");
    yard.relay.hurry();
    let run = yard.brigade("uploads resume s3://bucket/dir/").run();
    assert!(run.text().contains(&format!("uploaded {} to s3://bucket/dir/mine: ", file.display())));
    assert!(run.text().ends_with("\nresumed 1, failed 1\n"), "{run}");
    let said = run.failed(3);
    assert!(said.contains("s3://bucket/dir/theirs: it is on the store only"), "{said}");
    yard.brigade("uploads resume s3://bucket/dir/").run().failed(3);

    let asked = yard.relay.seen().len();
    let run = yard.sandbox.brigade(["uploads", "resume"]).run().succeeded();
    assert_eq!((run.text(), yard.relay.seen().len()), ("nothing to resume\n", asked), "{run}");
    let run = yard.brigade("uploads resume --json").run().succeeded_silently();
    assert_eq!(events(&run, "report")[0]["target"], "s3://bucket/other");
    assert_eq!(last(&run)["resumed"], 1);
    assert_eq!(yard.found().len(), 0);
}

#[test]
fn a_person_at_a_terminal_is_asked() {
    if Command::new("script").arg("--version").output().is_err() {
        println!("skipped: there is no script(1) to make a terminal with");
        return;
    }
    let yard = Yard::new();
    yard.killed_upload("f");
    yard.relay.hurry();
    let asked = |answer: &str| {
        // Typed once the question is there. The terminal ends a moment after that.
        let cue = yard.sandbox.path("cue");
        let typed = format!(
            "{{ until [ -e cue ]; do sleep 0.05; done; printf '{answer}'; sleep 0.5; }} | \
             script -qec \"$*\" /dev/null"
        );
        let wrapper = ["sh".into(), "-c".into(), typed, "sh".into()];
        let running = yard.brigade("uploads abort").under(wrapper).start();
        running.wait_for_stdout("[y/N] ");
        std::fs::write(&cue, "").expect("written");
        let run = running.wait();
        std::fs::remove_file(&cue).expect("removed");
        let text = run.text().to_owned();
        assert!(text.contains("Abort 1 upload? [y/N] "), "{run}");
        assert!(text.contains("s3://bucket/f"), "{run}");
        (run.code(), text)
    };
    for answer in ["n\\n", "\\n", "yesterday\\n", "\\004"] {
        let (code, text) = asked(answer);
        assert_eq!(code, 0, "{text}");
        assert!(text.contains("nothing was aborted"), "{text}");
        assert_eq!((yard.unfinished_on_store(), yard.found().len()), (1, 1));
    }
    // Ctrl-C.
    let (code, text) = asked("\\003");
    assert_eq!((code, yard.unfinished_on_store()), (130, 1), "{text}");
    let (code, text) = asked("Y\\n");
    assert_eq!((code, yard.unfinished_on_store()), (0, 0), "{text}");
    assert!(text.contains("aborted s3://bucket/f, "), "{text}");
    yard.sandbox.assert_clean();
}
