//! Lists of transfers and deletions as one job: what lines do, what becomes of bad ones, and that what failed can
//! be taken again.

use std::fs;
use std::io::Write as _;

use brigade_store::faults::{Action, Rule};
use brigade_tests::cli::{Run, Sandbox};
use brigade_tests::files;

fn run(sandbox: &Sandbox, line: &str) -> Run {
    sandbox.brigade(line.split_whitespace()).run()
}

fn has(sandbox: &Sandbox, key: &str) -> bool {
    run(sandbox, &format!("stat s3://bucket/{key}")).code() == 0
}

/// A sandbox with objects `there/0`, `there/1` and a file for each line of `LINES`.
fn prepared() -> Sandbox {
    let sandbox = Sandbox::new();
    for name in ["up", "moved", "there0", "there1", "a\tb"] {
        sandbox.file(name, 1000);
    }
    sandbox.file("large", 12 << 20);
    for number in [0, 1] {
        run(&sandbox, &format!("cp there{number} s3://bucket/there/{number}")).succeeded();
    }
    sandbox
}

const LINES: &str = "\
# everything that there is
up\ts3://bucket/up
a\\tb\ts3://bucket/tab

cp large s3://bucket/large
s3://bucket/there/0\tdown/0
cp s3://bucket/there/0 s3://bucket/copied/
mv moved s3://bucket/moved
brigade rm s3://bucket/there/1
";

#[test]
fn all_kinds_of_lines_are_one_job() {
    let sandbox = prepared();
    fs::create_dir(sandbox.path("down")).expect("made");
    fs::write(sandbox.path("list"), LINES).expect("written");
    let planned = run(&sandbox, "run list --dry-run --json").succeeded().json();
    let kinds: Vec<_> = planned.iter().filter(|it| it["event"] == "planned").collect();
    assert_eq!(kinds.len(), 7, "{planned:?}");
    assert!(!has(&sandbox, "up") && has(&sandbox, "there/1"), "a dry run does nothing");

    let report = run(&sandbox, "run list --json").report();
    assert_eq!((&report["job"], &report["objects"]), (&"run".into(), &6.into()), "{report}");
    // The source of the move, and what was to be deleted.
    assert_eq!((&report["deleted"], &report["failed"]), (&2.into(), &0.into()), "{report}");
    assert_eq!(report["bytes"], (12 << 20) + 5000, "{report}");
    for key in ["up", "tab", "large", "moved", "copied/0", "there/0"] {
        assert!(has(&sandbox, key), "{key}");
    }
    assert!(!has(&sandbox, "there/1") && !sandbox.path("moved").exists());
    files::assert_same(&sandbox.path("there0"), &sandbox.path("down/0"));
    run(&sandbox, "cp s3://bucket/large large2").succeeded();
    files::assert_same(&sandbox.path("large"), &sandbox.path("large2"));
    sandbox.assert_clean();
}

#[test]
fn bad_lines_are_named_and_the_others_carried_out() {
    let sandbox = prepared();
    let list = "up s3://bucket/x\ncp up s3://bucket/good\ncp a b c\nmissing\ts3://bucket/m\n\
                s3://bucket/none\tnone\nrm s3://bucket/p/\n";
    fs::write(sandbox.path("list"), list).expect("written");
    let said = run(&sandbox, "run list --failures failed").code_and_words(3);
    for part in [
        "read list, line 1: it is neither source, tab, target nor a command: cp, mv or rm",
        "read list, line 3: cp takes a source and a target",
        "upload missing: no such file",
        "s3://bucket/none: no such key",
        "read list, line 6: s3://bucket/p/ is no object; run brigade rm --recursive by itself",
    ] {
        assert!(said.contains(part), "{part}\n{said}");
    }
    assert!(has(&sandbox, "good") && !sandbox.path("none").exists());
    let failed = fs::read_to_string(sandbox.path("failed")).expect("written");
    let mut failed: Vec<_> = failed.lines().collect();
    failed.sort_unstable();
    assert_eq!(failed, ["missing\ts3://bucket/m", "s3://bucket/none\tnone"]);
}

#[test]
fn what_failed_of_a_folder_is_taken_again() {
    let sandbox = Sandbox::new();
    fs::create_dir_all(sandbox.path("tree/below")).expect("made");
    for name in ["tree/a", "tree/below/b\\\n", "tree/c"] {
        sandbox.file(name, 100);
    }
    let denied = Rule::on("PutObject").key("p/below/*").then(Action::answer(403, "AccessDenied"));
    sandbox.store().faults().set([denied]).expect("sound");
    run(&sandbox, "cp -r tree s3://bucket/p --failures failed").code_and_words(3);
    sandbox.store().faults().set([]).expect("sound");
    let report = run(&sandbox, "run failed --json").report();
    assert_eq!((&report["objects"], &report["failed"]), (&1.into(), &0.into()), "{report}");
    assert_eq!(run(&sandbox, "verify tree s3://bucket/p").code(), 0);
}

#[test]
fn a_list_may_come_from_a_pipe_while_it_is_carried_out() {
    let sandbox = prepared();
    let (reader, mut input) = std::io::pipe().expect("a pipe");
    let running = sandbox.brigade(["run", "-", "--json"]).input(reader).start();
    input.write_all(b"cp up s3://bucket/first\n").expect("taken");
    brigade_tests::cli::eventually("the first", std::time::Duration::from_secs(20), || {
        has(&sandbox, "first")
    });
    // More buckets than there are groups open at once: none of them is there.
    for number in 0..70 {
        writeln!(input, "cp up s3://bucket-{number}/k").expect("taken");
    }
    writeln!(input, "cp up s3://bucket/last").expect("taken");
    drop(input);
    let ended = running.wait();
    assert_eq!(ended.code(), 3);
    let report = ended.json().pop().expect("a report");
    assert_eq!((&report["objects"], &report["failed"]), (&2.into(), &70.into()), "{report}");
    assert!(has(&sandbox, "last"));
}

#[test]
fn a_list_that_is_none_is_one_clear_line() {
    let sandbox = Sandbox::new();
    fs::write(sandbox.path("binary"), vec![b'x'; 1 << 20]).expect("written");
    for (line, code, part) in [
        ("run nothing", 4, "read nothing: no such file or directory"),
        ("run .", 3, "line 1: "),
        ("run binary", 3, "read binary, line 1: it is longer than 16384 bytes, so no list"),
    ] {
        let said = run(&sandbox, line).code_and_words(code);
        assert!(said.contains(part), "{line}: {said}");
    }
}
