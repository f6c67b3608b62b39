//! `brigade cat`: objects on standard output, one after the other, verified.

use std::io::Read as _;
use std::os::unix::process::ExitStatusExt as _;

use brigade_store::faults::{Action, Rule};
use brigade_tests::cli::{Brigade, PART, Sandbox};
use brigade_tests::traps::Trap;

fn cat(sandbox: &Sandbox, line: &str) -> Brigade {
    sandbox.brigade(["cat"].into_iter().chain(line.split_whitespace()))
}

/// A sandbox with objects, each with a content of its own.
fn holding(objects: &[(&str, &[u8])]) -> Trap {
    let trap = Trap::of(Sandbox::new());
    for (key, content) in objects {
        std::fs::write(trap.path("f"), content).expect("written");
        trap.brigade(["cp", "f", &format!("s3://bucket/{key}")]).run().succeeded();
    }
    trap
}

#[test]
fn objects_come_in_the_order_they_are_named() {
    let trap = holding(&[("d/2", b"two\n"), ("d/1", b"one\n"), ("e", b"e\n"), ("d/x/3", b"3\n")]);
    let text = |line: &str| cat(&trap, line).run().succeeded_silently().text().to_owned();
    assert_eq!(text("s3://bucket/e s3://bucket/d/2 s3://bucket/e"), "e\ntwo\ne\n");
    assert_eq!(text("s3://bucket/d/*"), "one\ntwo\n");
    assert_eq!(text("s3://bucket/d/** s3://bucket/e"), "one\ntwo\n3\ne\n");
    let run = cat(&trap, "s3://bucket/d/* --json").run().succeeded();
    assert_eq!(run.text(), "one\ntwo\n");
    let reports: Vec<_> =
        run.json_on_stderr().into_iter().filter(|line| line["event"] == "report").collect();
    assert_eq!(reports.len(), 2, "{run}");
    assert_eq!(reports[1]["source"], "s3://bucket/d/2", "{run}");
    assert!(cat(&trap, "s3://bucket/e --verbose").run().succeeded().stderr.contains("verified"));
}

#[test]
fn a_large_one_comes_in_parallel_and_whole() {
    let trap = Trap::with_object(4 * PART + 7);
    let run =
        cat(&trap, "s3://bucket/f --part-size 5MiB --concurrency 3").run().succeeded_silently();
    assert!(run.stdout == std::fs::read(trap.path("f")).expect("read"));
    assert!(trap.count("GetObject") >= 5);
}

#[test]
fn the_first_that_fails_ends_it() {
    let trap = holding(&[("a", b"aa"), ("c", b"cc")]);
    let run = cat(&trap, "s3://bucket/a s3://bucket/b s3://bucket/c").run();
    assert_eq!((run.text(), run.code()), ("aa", 4), "{run}");
    assert!(run.failed(4).contains("s3://bucket/b: no such key"));
    let said = cat(&trap, "s3://bucket/x*").run().failed(4);
    assert!(said.contains("no key matches"), "{said}");
    assert!(cat(&trap, "s3://missing/x*").run().failed(4).contains("no such bucket"));
    assert!(cat(&trap, "s3://bucket/").run().failed(2).contains("s3://bucket/**"));
    assert!(cat(&trap, "s3://bucket").run().failed(2).contains("s3://bucket/**"));
    cat(&trap, "f").run().failed(2);
    let wrong = cat(&trap, "s3://bucket/a").env("AWS_SECRET_ACCESS_KEY", "wrong").run();
    assert_eq!(wrong.code(), 5, "{wrong}");
    trap.misbehave(Rule::on("GetObject").then(Action::flip_response(0)));
    assert_eq!(cat(&trap, "s3://bucket/a").run().code(), 7);
}

#[test]
fn a_reader_that_had_enough_ends_it_quietly() {
    let trap = Trap::with_object(4 * PART);
    let mut child = cat(&trap, "s3://bucket/f s3://bucket/f").start_raw();
    let mut first = [0; 10];
    child.stdout.take().expect("piped").read_exact(&mut first).expect("ten bytes");
    let mut said = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut said).expect("text");
    let status = child.wait().expect("it ends");
    assert_eq!((status.code(), status.signal(), said.as_str()), (Some(141), None, ""));
}
