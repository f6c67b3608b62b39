//! `brigade rm`, and what it stands on: objects deleted in lists, by name, by pattern, below a prefix.

use std::time::Duration;

use brigade::{DeleteOptions, ErrorKind, ListOptions};
use brigade_store::faults::{Action, Answer, Place, Rule};
use brigade_tests::cli::{BUCKET, Brigade, Run, Sandbox, eventually};
use brigade_tests::moto::Moto;
use brigade_tests::traps::{SOON, Trap};
use futures::executor::{block_on, block_on_stream};
use futures::{StreamExt as _, stream};
use rustix::process::Signal;
use serde_json::Value;

/// A sandbox whose bucket holds these keys, each a byte long.
fn holding<K: Into<String>>(keys: impl IntoIterator<Item = K>) -> Trap {
    let trap = Trap::of(Sandbox::new());
    let source = trap.file("f", 1);
    let files: Vec<_> = keys.into_iter().map(|key| (source.clone(), key.into())).collect();
    let report = block_on(trap.session().bucket(BUCKET).upload_files(files, Default::default()));
    assert!(report.expect("uploaded").failed.is_empty());
    trap
}

/// The keys that are left.
fn left(sandbox: &Sandbox) -> Vec<String> {
    let listing = sandbox.session().bucket(BUCKET).list("", ListOptions::default());
    block_on_stream(listing).map(|listed| listed.expect("listed").name().to_owned()).collect()
}

fn rm(sandbox: &Sandbox, line: &str) -> Brigade {
    sandbox.brigade(["rm"].into_iter().chain(line.split_whitespace()))
}

fn events<'a>(lines: &'a [Value], name: &str) -> Vec<&'a Value> {
    lines.iter().filter(|line| line["event"] == name).collect()
}

fn last(run: &Run) -> Value {
    run.json().pop().expect("a line")
}

#[test]
fn many_objects_go_in_few_requests() {
    let trap = holding((0..2_500).map(|number| format!("logs/{number:04}")));
    let run = rm(&trap, "-r s3://bucket/logs --json").run().succeeded_silently();
    assert_eq!(trap.count("DeleteObjects"), 3);
    assert_eq!(trap.count("DeleteObject"), 0);
    let lines = run.json();
    assert_eq!(events(&lines, "deleted").len(), 2_500);
    let sum = last(&run);
    assert_eq!((&sum["event"], &sum["deleted"]), (&"removed".into(), &2_500.into()), "{run}");
    assert_eq!((&sum["failed"], &sum["requests"]), (&0.into(), &3.into()), "{run}");
    assert!(left(&trap).is_empty());
    let run = rm(&trap, "-r s3://bucket/logs").run().succeeded_silently();
    assert_eq!(run.text(), "nothing to delete\n");
}

#[test]
fn a_prefix_is_no_beginning_of_a_name() {
    let keys = ["logs", "logs/", "logs/a", "logs//b", "logs2/a", "logsx", "other"];
    for line in ["-r s3://bucket/logs", "-r s3://bucket/logs/", "s3://bucket/logs/**"] {
        let trap = holding(keys);
        rm(&trap, line).run().succeeded_silently();
        assert_eq!(left(&trap), ["logs", "logs2/a", "logsx", "other"], "{line}");
    }
}

#[test]
fn single_keys_and_patterns_are_what_they_say() {
    let trap = holding(["a*", "ab", "ac", "b/1.gz", "b/2.txt", "b/c/3.gz", "x"]);
    let run = rm(&trap, "s3://bucket/x").run().succeeded_silently();
    assert_eq!(run.text(), "deleted s3://bucket/x\n");
    // S3 does not tell that it was not there.
    rm(&trap, "s3://bucket/x").run().succeeded_silently();
    rm(&trap, "s3://bucket/b/*.gz").run().succeeded_silently();
    assert_eq!(left(&trap), ["a*", "ab", "ac", "b/2.txt", "b/c/3.gz"]);
    rm(&trap, "s3://bucket/a* --no-glob").run().succeeded_silently();
    assert_eq!(left(&trap), ["ab", "ac", "b/2.txt", "b/c/3.gz"]);
    // Several at once, of one bucket: one request.
    let before = trap.count("DeleteObjects");
    let run =
        rm(&trap, "s3://bucket/ab s3://bucket/ac s3://bucket/b/**").run().succeeded_silently();
    assert!(run.text().starts_with("deleted 4 objects in "), "{run}");
    assert_eq!(trap.count("DeleteObjects") - before, 1);
    assert!(left(&trap).is_empty());
    let run = rm(&trap, "s3://bucket/z*").run().succeeded_silently();
    assert_eq!(run.text(), "nothing to delete; if a key has * ? or [ in it: --no-glob\n");
}

#[test]
fn keys_that_xml_cannot_hold_go_by_themselves() {
    let keys = [
        " a", "../x", "/abs", "a", "a ", "a//b", "a\u{1}b", "c\nd", "c\rd", "e&<>'\"", "t\ta",
        "ü/😀",
    ];
    let mut sorted: Vec<_> = keys.iter().map(|key| (*key).to_owned()).collect();
    sorted.sort();
    let trap = holding(keys);
    assert_eq!(left(&trap), sorted);
    // One that would come out of XML as another is not deleted in that one's place.
    trap.brigade(["rm", "s3://bucket/ a"]).run().succeeded_silently();
    sorted.retain(|key| key != " a");
    assert_eq!(left(&trap), sorted);
    let singles = trap.count("DeleteObject");
    let run = rm(&trap, "-r s3://bucket --yes --json").run().succeeded_silently();
    assert!(left(&trap).is_empty());
    assert_eq!(trap.count("DeleteObject") - singles, 5, "{run}");
    assert_eq!(trap.count("DeleteObjects"), 1, "{run}");
    let told =
        events(&run.json(), "deleted").iter().map(|it| it["key"].clone()).collect::<Vec<_>>();
    assert!(told.contains(&"a\u{1}b".into()), "{run}");
    // On a terminal they are shown, not obeyed.
    let run =
        trap.brigade(["rm", "--no-glob", "s3://bucket/x\u{1b}[2J"]).run().succeeded_silently();
    assert_eq!(run.text(), "deleted s3://bucket/x\\u{1b}[2J\n");
}

#[test]
fn a_dry_run_names_what_would_go_and_deletes_nothing() {
    let trap = holding(["d/1", "d/2", "e", "f"]);
    let run = rm(&trap, "s3://bucket/d/* s3://bucket/e s3://bucket/nothing --dry-run").run();
    let run = run.succeeded();
    assert_eq!(
        run.text(),
        "would delete s3://bucket/d/1, 1 B\nwould delete s3://bucket/d/2, 1 B\n\
         would delete s3://bucket/e, 1 B\nwould delete 3 objects, 3 B\n"
    );
    assert_eq!(run.stderr, "brigade: s3://bucket/nothing is not there\n");
    let run = rm(&trap, "-r s3://bucket --dry-run --json").run().succeeded_silently();
    assert_eq!(events(&run.json(), "would_delete").len(), 4);
    assert_eq!(last(&run)["would_remove"], 4, "{run}");
    assert_eq!((trap.count("DeleteObjects"), trap.count("DeleteObject")), (0, 0));
    assert_eq!(left(&trap).len(), 4);
    // What it says is what is done.
    let run = rm(&trap, "-r s3://bucket --yes --json").run().succeeded_silently();
    assert_eq!(events(&run.json(), "deleted").len(), 4);
}

#[test]
fn filters_choose_among_many() {
    let trap = holding(["t/a.tmp", "t/b.txt", "t/keep/c.tmp", "u.tmp"]);
    let line = "-r s3://bucket/t --exclude * --include *.tmp --exclude keep/";
    rm(&trap, line).run().succeeded_silently();
    assert_eq!(left(&trap), ["t/b.txt", "t/keep/c.tmp", "u.tmp"]);
    for bound in ["--older-than 1d", "--min-size 2"] {
        let run = rm(&trap, &format!("s3://bucket/t/** {bound}")).run().succeeded_silently();
        assert!(run.text().starts_with("nothing to delete"), "{run}");
    }
    rm(&trap, "s3://bucket/t/** --newer-than 1d --max-size 1").run().succeeded_silently();
    assert_eq!(left(&trap), ["u.tmp"]);
    assert!(rm(&trap, "s3://bucket/u.tmp --min-size 1").run().failed(2).contains("filters"));
}

#[test]
fn a_whole_bucket_goes_only_with_a_yes() {
    let trap = holding(["a", "b/c"]);
    for line in ["-r s3://bucket", "-r s3://bucket/", "s3://bucket/**", "s3://bucket/*"] {
        let said = rm(&trap, line).run().failed(2);
        assert!(said.contains("every object in s3://bucket") && said.contains("--yes"), "{said}");
    }
    assert!(rm(&trap, "s3://bucket").run().failed(2).contains("add -r"));
    assert!(rm(&trap, "-r s3://bucket/b*").run().failed(2).contains("leave off -r"));
    assert!(rm(&trap, "file").run().failed(2).contains("s3://bucket/key"));
    assert_eq!((trap.count("ListObjectsV2"), trap.count("DeleteObjects")), (0, 0));
    assert_eq!(left(&trap).len(), 2);
    rm(&trap, "-r s3://bucket --yes").run().succeeded_silently();
    assert!(left(&trap).is_empty());
}

#[test]
fn what_is_not_there_or_not_allowed_has_its_code() {
    let trap = holding(["a", "b"]);
    for line in
        ["s3://missing/a", "-r s3://missing/a", "s3://missing/a*", "s3://missing/a --dry-run"]
    {
        let said = rm(&trap, line).run().failed(4);
        assert!(said.contains("no such bucket"), "{line}: {said}");
    }
    for line in ["s3://bucket/a", "-r s3://bucket --yes", "s3://bucket/a s3://bucket/b"] {
        let wrong = rm(&trap, line).env("AWS_SECRET_ACCESS_KEY", "wrong");
        let said = wrong.run().failed(5);
        assert!(said.contains("the secret key is wrong"), "{line}: {said}");
    }
    assert_eq!(left(&trap).len(), 2);
    // One bucket of several.
    let run = rm(&trap, "s3://missing/a s3://bucket/a").run();
    assert_eq!(run.code(), 3, "{run}");
    assert_eq!(left(&trap), ["b"]);
}

#[test]
fn what_fails_for_a_while_is_asked_for_again_and_only_that() {
    let trap = holding((0..20).map(|number| format!("k{number:02}")));
    trap.misbehave([
        Rule::on("DeleteObjects").nth(1).then(Action::refuse_key("k0*", "InternalError")),
        Rule::on("DeleteObjects").nth(1).then(Action::refuse_key("k01", "SlowDown")),
    ]);
    let run = rm(&trap, "s3://bucket/k* --json").run().succeeded_silently();
    let sum = last(&run);
    assert_eq!(
        (&sum["deleted"], &sum["failed"], &sum["requests"], &sum["retries"]),
        (&20.into(), &0.into(), &3.into(), &2.into()),
        "{run}"
    );
    assert!(left(&trap).is_empty());
}

#[test]
fn a_store_without_lists_is_asked_key_by_key() {
    for answer in [Answer::new(501, "NotImplemented"), Answer::new(405, "MethodNotAllowed")] {
        let trap = holding((0..10).map(|number| format!("k{number}")));
        trap.misbehave(Rule::on("DeleteObjects").then(answer));
        let run = rm(&trap, "s3://bucket/k* --json").run().succeeded_silently();
        assert_eq!(last(&run)["deleted"], 10, "{run}");
        assert_eq!((trap.count("DeleteObject"), trap.count("DeleteObjects")), (10, 2));
        assert!(left(&trap).is_empty());
    }
}

#[test]
fn a_list_goes_with_the_checksum_that_the_store_takes() {
    // A profile that knows no checksum headers sends none, and a store that refuses one is asked in the
    // other way.
    for (profile, refused, requests) in [
        ("generic", "x-amz-checksum-*", 1),
        ("brigade", "content-md5", 1),
        ("brigade", "x-amz-checksum-*", 2),
        ("generic", "content-md5", 2),
    ] {
        let trap = holding(["a", "b"]);
        let answer = Action::answer(400, "InvalidRequest");
        trap.misbehave(Rule::on("DeleteObjects").header(refused).then(answer));
        let line = format!("s3://bucket/* --yes --store-profile {profile}");
        rm(&trap, &line).run().succeeded_silently();
        assert_eq!(trap.count("DeleteObjects"), requests, "{profile} without {refused}");
        assert!(left(&trap).is_empty());
    }
}

#[test]
fn an_answer_that_is_cut_or_tells_of_strangers_counts_for_nothing() {
    let cut = Action::edit(|_, text| {
        *text = text.replace("</DeleteResult>", "").replace("<DeleteResult/>", "<DeleteResult>");
    });
    let stranger = Action::edit(|_, text| {
        let error = "<Error><Key>other</Key><Code>AccessDenied</Code></Error>";
        *text = format!("<?xml version=\"1.0\"?><DeleteResult>{error}</DeleteResult>");
    });
    for (action, singles) in [(cut, 0), (stranger, 2)] {
        let trap = holding(["a", "b"]);
        trap.misbehave(Rule::on("DeleteObjects").times(2).then(action));
        rm(&trap, "s3://bucket/* --yes").run().succeeded_silently();
        assert_eq!(trap.fired(), [2]);
        assert_eq!(trap.count("DeleteObject"), singles);
        assert!(left(&trap).is_empty());
    }
}

#[test]
fn a_listing_that_ends_early_is_said() {
    let trap = holding((0..4).map(|number| format!("d/{number}")));
    trap.misbehave([
        Rule::on("ListObjectsV2").nth(1).then(Action::set_query("max-keys", "2")),
        Rule::on("ListObjectsV2").then(Action::answer(403, "AccessDenied")),
    ]);
    let run = rm(&trap, "-r s3://bucket/d/").run();
    assert_eq!(run.code(), 3, "{run}");
    assert!(run.stderr.contains("AccessDenied"), "{run}");
    assert!(run.text().starts_with("deleted 2 objects in "), "{run}");
    trap.behave();
    assert_eq!(left(&trap), ["d/2", "d/3"]);
}

#[test]
fn a_signal_stops_it_between_requests() {
    let trap = holding((0..40).map(|number| format!("k{number:02}")));
    std::fs::write(trap.path("few.toml"), "base = \"brigade\"\ndelete_page_size = 4\n")
        .expect("made");
    let stall = Action::Stall { at: Place::Response, time: Some(Duration::from_millis(300)) };
    trap.misbehave(Rule::on("DeleteObjects").then(stall));
    let line = "s3://bucket/k* --concurrency 2 --store-profile few.toml --json";
    let running = rm(&trap, line).start();
    eventually("it deletes", SOON, || trap.count("DeleteObjects") >= 2);
    running.signal(Signal::INT);
    let run = running.wait();
    assert_eq!(run.code(), 130, "{run}");
    let sum = last(&run);
    assert_eq!((&sum["stopped"], &sum["failed"]), (&true.into(), &0.into()), "{run}");
    let deleted = sum["deleted"].as_u64().expect("a number");
    assert!(deleted >= 4 && deleted < 40, "{run}");
    trap.behave();
    assert_eq!(left(&trap).len() as u64, 40 - deleted);
    assert!(trap.count("DeleteObjects") <= 4);
    // The same command does the rest.
    let run = rm(&trap, line).run().succeeded_silently();
    assert_eq!(last(&run)["deleted"], 40 - deleted);
}

#[test]
fn quiet_says_nothing_and_verbose_names_each() {
    let trap = holding(["a", "b", "c"]);
    assert_eq!(rm(&trap, "s3://bucket/a --quiet").run().succeeded_silently().text(), "");
    let run = rm(&trap, "s3://bucket/* --yes --verbose").run().succeeded_silently();
    let lines: Vec<_> = run.text().lines().collect();
    assert_eq!(lines[..2], ["deleted s3://bucket/b", "deleted s3://bucket/c"]);
    assert!(lines[2].starts_with("deleted 2 objects in "), "{run}");
}

#[test]
fn versions_go_for_good() {
    let Some((store, python)) = Moto::shared_or_skip() else { return };
    let script = "import boto3,sys\n\
        s3=boto3.client('s3',endpoint_url=sys.argv[1],region_name='us-east-1',\
        aws_access_key_id='x',aws_secret_access_key='y')\n\
        s3.create_bucket(Bucket='versioned')\n\
        s3.put_bucket_versioning(Bucket='versioned',VersioningConfiguration={'Status':'Enabled'})\n\
        for key in ['a','a','ab','d/1','d/1','d/2']: s3.put_object(Bucket='versioned',Key=key,Body=b'x')\n\
        s3.delete_object(Bucket='versioned',Key='d/1')\n";
    let (url, home) = (store.endpoint().url.as_str(), brigade_tests::peers::folder());
    let mut boto3 = python.command(python.program("python"), home.path());
    let made = boto3.args(["-c", script, url]).output().expect("it runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let sandbox = Sandbox::new();
    let versions = || -> Vec<_> {
        let bucket = store.endpoint().session().bucket("versioned");
        let listed = block_on_stream(bucket.list_versions(""));
        listed.map(|version| version.expect("listed")).collect()
    };
    let of = |key: &str| versions().into_iter().filter(|it| it.key == key).collect::<Vec<_>>();
    let rm = |line: &str| rm(&sandbox, line).endpoint(url);
    assert_eq!(versions().len(), 7);
    assert!(of("d/1")[0].is_delete_marker && of("d/1")[0].is_latest, "{:?}", of("d/1"));
    // Without a word of versions a key is only marked.
    rm("s3://versioned/a").run().succeeded();
    assert_eq!(of("a").len(), 3);
    let run = rm("-r s3://versioned/d --versions --dry-run").run().succeeded();
    assert!(run.text().contains("would delete 4 versions"), "{run}");
    let run = rm("-r s3://versioned/d --versions").run().succeeded();
    assert!(run.text().starts_with("deleted 4 versions in "), "{run}");
    let id = of("a").last().and_then(|oldest| oldest.version_id.clone()).expect("an id");
    rm(&format!("s3://versioned/a --version-id {id}")).run().succeeded();
    assert_eq!(of("a").len(), 2);
    // Of that key alone, not of those that begin so.
    rm("s3://versioned/a --versions").run().succeeded();
    assert_eq!(versions().iter().map(|it| it.key.as_str()).collect::<Vec<_>>(), ["ab"]);
    rm("-r s3://versioned --versions --yes").run().succeeded();
    assert!(versions().is_empty());
}

#[test]
fn a_program_hears_of_every_object_and_may_stop_listening() {
    let trap = holding((0..30).map(|number| format!("k{number:02}")));
    let bucket = trap.session().bucket(BUCKET);
    trap.misbehave(Rule::on("DeleteObjects").then(Action::refuse_key("k07", "AccessDenied")));
    let keys = || stream::iter((0..30).map(|number| (format!("k{number:02}"), None)));
    let report = block_on(bucket.delete_objects(keys(), DeleteOptions::default())).expect("it ran");
    assert_eq!((report.deleted, report.failed, report.requests), (29, 1, 1));
    assert!(!report.is_complete());
    let failure = &report.failures[0];
    let error = failure.error.as_ref().expect("why");
    assert_eq!((failure.key.as_str(), error.kind()), ("k07", ErrorKind::AccessDenied));
    assert!(error.to_string().contains("s3://bucket/k07"), "{error}");
    trap.behave();
    let (sender, outcomes) = futures::channel::mpsc::channel(0);
    drop(outcomes);
    let options = DeleteOptions { outcomes: Some(sender), ..DeleteOptions::default() };
    let report = block_on(bucket.delete_objects(keys(), options)).expect("it ran");
    assert!(report.is_complete() && report.failures.is_empty());
    block_on(bucket.object("k07").delete()).expect("not there is as good");
    let gone = trap.session().bucket("gone");
    let error = block_on(gone.delete_objects(keys(), DeleteOptions::default())).expect_err("none");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    // A stopped one says so.
    let options = DeleteOptions::default();
    options.cancel.cancel();
    let endless = stream::iter(0..).map(|number| (format!("{number}"), None));
    let report = block_on(bucket.delete_objects(endless, options)).expect("it ran");
    assert!(report.stopped && !report.is_complete());
}
