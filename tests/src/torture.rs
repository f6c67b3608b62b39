//! Transfers that are killed at random moments, over a store that fails at random, until they are done.
//!
//! Each round uploads a file and downloads it again with real processes, `kill -9` in between. In the
//! end the bytes are the same, nothing is left behind on either side, and no part that was recorded as
//! done when a process died was moved a second time.

use std::collections::BTreeSet;
use std::fmt;
use std::time::{Duration, Instant};

use brigade_store::faults::{Action, Answer, Faults, Place, Rule};
use rustix::process::Signal;

use crate::cli::{Sandbox, eventually};
use crate::files;
use crate::relay::{Fate, Relay, Request};

/// Parts of the object: many, so that there are many moments to die in.
const PART_BYTES: u64 = 5 << 20;

/// A process that was started this often is left alone: the faults are enough.
const KILLS_PER_TRANSFER: usize = 6;

/// The longest that a process may run before it is killed. Most transfers take longer.
const LONGEST_LIFE: Duration = Duration::from_millis(900);

/// A connection that stands still does so for longer than it may.
const STALL: Duration = Duration::from_secs(5);

/// A part whose connection broke arrives so much later: another process may be at it by then.
const LATE: Duration = Duration::from_millis(300);

/// One of so many ranges of a round is damaged; a round that has fewer of them has none.
const FLIPPED_BEFORE: u64 = 80;

/// One transfer takes seconds; one that hangs must not hang everything.
const LIMIT: Duration = Duration::from_mins(3);

/// What a torture came to. `lost` is not among the numbers: a loss is a panic.
#[derive(Debug, Default, Clone, Copy)]
pub struct Outcome {
    /// Files that went up and came down again.
    pub rounds: u32,
    /// Processes that were killed.
    pub kills: u32,
    /// Requests that the store did something bad to.
    pub faults: u64,
    /// Payload bytes that were asked to be moved beyond the two times the file's size of each round.
    pub bytes_moved_again: u64,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "rounds: {}, kills: {}, faults injected: {}, bytes re-sent: {}, lost: 0",
            self.rounds, self.kills, self.faults, self.bytes_moved_again
        )
    }
}

/// Tortures `rounds` transfers of `size_bytes` each way. Panics, with the seed, at the first loss.
pub fn run(rounds: u32, size_bytes: u64, seed: u64) -> Outcome {
    let mut outcome = Outcome::default();
    let mut random = fastrand::Rng::with_seed(seed);
    let sandbox = Sandbox::new();
    let source = sandbox.file("f", size_bytes);
    for round in 1..=rounds {
        let seed_of_round = random.u64(..);
        let context = format!("seed {seed}, round {round}");
        // Through a relay, which remembers what was asked for.
        let relay = Relay::new(sandbox.store(), |_| Fate::Pass);
        sandbox.store().faults().set(faults(seed_of_round, &mut random)).expect("sound rules");
        for line in ["f s3://bucket/k", "s3://bucket/k copy"] {
            let line = format!("{line} --part-size 5MiB --retry-for 1m --stall-timeout 2s");
            torture(&sandbox, &relay, &line, &context, &mut random, &mut outcome);
        }
        outcome.faults += sandbox.store().faults().fired().total;
        sandbox.store().faults().clear();
        files::assert_same(&source, &sandbox.path("copy"));
        eventually(&format!("nothing is left behind: {context}"), Duration::from_secs(10), || {
            sandbox.store().stats().unfinished_uploads == 0
        });
        sandbox.assert_clean();
        outcome.bytes_moved_again += moved(&relay.seen(), size_bytes) - 2 * size_bytes;
        std::fs::remove_file(sandbox.path("copy")).expect("there");
        outcome.rounds += 1;
    }
    outcome
}

/// Runs one command until it ends by itself, killing it on the way.
fn torture(
    sandbox: &Sandbox,
    relay: &Relay,
    line: &str,
    context: &str,
    random: &mut fastrand::Rng,
    outcome: &mut Outcome,
) {
    let started = Instant::now();
    // How often something arrived damaged.
    let damaged = || sandbox.store().faults().fired().rules.last().copied();
    let damaged_before = damaged();
    let mut deaths = Vec::new();
    loop {
        assert!(started.elapsed() < LIMIT, "{line} does not end: {context}");
        let mut running = sandbox.cp(line).endpoint(relay.url()).start();
        if deaths.len() < KILLS_PER_TRANSFER {
            // Squared: the beginning, where an upload is created, is hit more often.
            let lifetime = LONGEST_LIFE.mul_f64(random.f64() * random.f64());
            let born = Instant::now();
            while born.elapsed() < lifetime && !running.has_ended() {
                std::thread::sleep(Duration::from_millis(1));
            }
            if !running.has_ended() {
                running.signal(Signal::KILL);
            }
        }
        let run = running.wait();
        match run.code() {
            0 => break,
            -9 => {
                outcome.kills += 1;
                deaths.push((recorded(sandbox), relay.seen().len()));
            }
            _ => panic!("{context}: {run}"),
        }
    }
    // Then each part is asked for once more, to find out which it was.
    if damaged() != damaged_before {
        return;
    }
    let seen = relay.seen();
    for (done, seen_by_then) in deaths {
        let again =
            seen[seen_by_then..].iter().filter_map(part_of).find(|part| done.contains(part));
        assert_eq!(again, None, "a part that was done was moved again: {line}: {context}");
    }
}

/// The parts of the one unfinished transfer that are recorded as done.
fn recorded(sandbox: &Sandbox) -> BTreeSet<u32> {
    let found = brigade::unfinished(&sandbox.manifests()).expect("a folder");
    let manifests = found.into_iter().map(|found| found.expect("readable").manifest);
    manifests.flat_map(|manifest| manifest.parts.into_keys()).collect()
}

/// Payload bytes that these requests were for.
fn moved(seen: &[Request], size_bytes: u64) -> u64 {
    seen.iter()
        .filter_map(part_of)
        .map(|part| PART_BYTES.min(size_bytes - u64::from(part - 1) * PART_BYTES))
        .sum()
}

/// The part that a request is for.
fn part_of(request: &Request) -> Option<u32> {
    match request.operation() {
        "UploadPart" => request.part_number(),
        // Ranges that go on where they broke begin inside a part.
        "GetObject" => u32::try_from(request.range_start()? / PART_BYTES + 1).ok(),
        _ => None,
    }
}

/// What networks and stores do on a bad day, to a few requests of each kind.
fn faults(seed: u64, random: &mut fastrand::Rng) -> Faults {
    let slow_down = || Action::answer(503, "SlowDown");
    let internal = || Action::answer(500, "InternalError");
    let mut late = Answer::new(200, "InternalError");
    late.message = "we encountered an internal error".into();
    let stall = |at| Action::Stall { at, time: Some(STALL) };
    let rules = [
        Rule::on("UploadPart").chance(0.01).then(stall(Place::RequestBody(500_000))),
        Rule::on("UploadPart").chance(0.02).then(Action::ApplyLate(Some(LATE))),
        Rule::on("GetObject").chance(0.01).then(stall(Place::ResponseBody(700_000))),
        Rule::on("UploadPart").chance(0.03).then(slow_down()),
        Rule::on("UploadPart").chance(0.02).then(internal()),
        Rule::on("UploadPart").chance(0.02).then(Action::cut_request_body(1_000_000)),
        Rule::on("UploadPart").chance(0.02).then(Action::swallow_response()),
        Rule::on("UploadPart").chance(0.01).then(Action::flip_request(77_777)),
        Rule::on("GetObject").chance(0.03).then(slow_down()),
        Rule::on("GetObject").chance(0.04).then(Action::cut_response_body(1_500_000)),
        Rule::on("CreateMultipartUpload").chance(0.3).then(Action::swallow_response()),
        Rule::on("CreateMultipartUpload").chance(0.1).then(slow_down()),
        Rule::on("CompleteMultipartUpload").chance(0.3).then(Action::swallow_response()),
        Rule::on("CompleteMultipartUpload").chance(0.2).then(late),
        Rule::on_any(["ListParts", "ListMultipartUploads", "AbortMultipartUpload"])
            .chance(0.1)
            .then(internal()),
        Rule::on_any(["HeadObject", "HeadBucket"]).chance(0.1).then(slow_down()),
        // The last: see `torture`. One only, since what is asked for a second time must be good.
        Rule::on("GetObject")
            .nth(random.u64(1..FLIPPED_BEFORE))
            .then(Action::flip_response(99_999)),
    ];
    Faults::from(rules).seeded(seed)
}
