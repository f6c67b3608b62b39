//! The largest object there is, killed and started again: the plan holds, the record holds, and memory
//! stays where it was.

use std::collections::BTreeSet;
use std::fs::File;
use std::time::{Duration, Instant};

use brigade::Unfinished;
use brigade_store::{Backend, Options};
use brigade_tests::cli::{Running, Sandbox};
use brigade_tests::relay::{Fate, Relay, Request};
use rustix::process::Signal;

const TIB: u64 = 1 << 40;

const MIB: u64 = 1 << 20;

/// What AWS takes in one object, in as many parts as it allows.
const SIZE_BYTES: u64 = 5 * TIB;

const PART_BYTES: u64 = 525 * MIB;

/// Few at a time, so that some are done before the process dies.
const LINE: &str = "huge s3://bucket/huge --concurrency 2 --json";

/// As many at a time as it takes unasked: 16.
const WIDE: &str = "huge s3://bucket/huge --json";

/// How long a process lives at least; longer on a machine where it has nothing done by then.
const LIFE: Duration = Duration::from_secs(6);

/// Where nothing is done by then, something is wrong.
const LONGEST_LIFE: Duration = Duration::from_mins(1);

/// Between two looks at a process's memory.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The program itself is some 30 MiB of that. Of the source there is one buffer for each lane, which a part is
/// summed through; what is sent goes out of the page cache. A single part of 525 MiB in memory shows.
const MOST_RESIDENT_BYTES: u64 = 128 * MIB;

/// What the second half of a life may have more than the first.
const GROWTH_BYTES: u64 = 64 * MIB;

#[test]
fn five_tebibytes_go_on_after_a_kill_in_little_memory() {
    let sandbox = Sandbox::with(Options { backend: Backend::Synthetic, ..Sandbox::options() });
    let source = File::create(sandbox.path("huge")).expect("a file");
    if let Err(refused) = source.set_len(SIZE_BYTES) {
        println!("skipped: the file system takes no file of 5 TiB: {refused}");
        return;
    }
    let relay = Relay::new(sandbox.store(), |_| Fate::Pass);
    let mut done = BTreeSet::new();
    for line in [LINE, LINE, WIDE] {
        let seen = relay.seen().len();
        let running = sandbox.cp(line).endpoint(relay.url()).start();
        let resident = live(&running, || {
            // Sixteen at a time are all summed before the first of them is done.
            let is_sending = relay.seen()[seen..].iter().any(|it| it.part_number().is_some());
            is_sending && (line == WIDE || sandbox.recorded_parts() > done.len())
        });
        assert!(!running.stdout_so_far().contains("\"event\":\"error\""), "it failed");
        running.signal(Signal::KILL);
        assert_eq!(running.wait().code(), -9);

        let found = found(&sandbox);
        let plan = found.manifest.plan();
        assert_eq!((plan.size_bytes(), plan.part_size_bytes()), (SIZE_BYTES, PART_BYTES));
        let recorded: BTreeSet<u32> = found.manifest.parts.into_keys().collect();
        let sent: BTreeSet<u32> =
            relay.seen()[seen..].iter().filter_map(Request::part_number).collect();
        println!(
            "{line}: {} parts are recorded after {} before; {} sent; resident: {resident:?} MiB",
            recorded.len(),
            done.len(),
            sent.len(),
        );
        assert!(done.is_subset(&recorded), "{done:?} were recorded, and now {recorded:?}");
        assert!(done.is_disjoint(&sent), "{done:?} were recorded, and {sent:?} sent again");
        assert!(resident.most < MOST_RESIDENT_BYTES / MIB, "{line}: {resident:?}");
        assert!(resident.late <= resident.early + GROWTH_BYTES / MIB, "{line}: {resident:?}");
        done = recorded;
    }
    assert_eq!(relay.count("CreateMultipartUpload"), 1);
    let abort = sandbox.brigade(["uploads", "abort", "--yes"]).endpoint(relay.url());
    abort.run().succeeded_silently();
    sandbox.assert_clean();
}

/// How much of a process was in memory, MiB.
#[derive(Debug)]
struct Resident {
    /// On the average, in the first half of its life, once it was under way.
    early: u64,
    /// In the second half.
    late: u64,
    most: u64,
}

/// Watches a process for as long as it shall live, which is until it has done what it is to do.
fn live(running: &Running, has_done_it: impl Fn() -> bool) -> Resident {
    let born = Instant::now();
    let mut looks = Vec::new();
    while born.elapsed() < LIFE || !has_done_it() {
        assert!(born.elapsed() < LONGEST_LIFE, "nothing was done");
        std::thread::sleep(LOOK_EVERY);
        looks.push(resident_bytes(running.id()) / MIB);
    }
    let average = |looks: &[u64]| looks.iter().sum::<u64>() / looks.len().max(1) as u64;
    let (early, late) = looks.split_at(looks.len() / 2);
    Resident {
        // At first it reads its configuration and makes its connections.
        early: average(&early[early.len() / 3..]),
        late: average(late),
        most: looks.iter().copied().max().unwrap_or(0),
    }
}

fn resident_bytes(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("it lives");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it still lives");
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kib << 10
}

fn found(sandbox: &Sandbox) -> Unfinished {
    let found = brigade::unfinished(&sandbox.manifests()).expect("a folder");
    found.into_iter().next().expect("one").expect("readable")
}
