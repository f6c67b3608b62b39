//! Fast without being told how: what the engine does behind networks that are slow, far away or strict,
//! as the store sees it.
//!
//! Times are only held against limits that the engine sets itself, or against seconds that a part which
//! is not moved twice would take.

use std::io::Write;
use std::time::Duration;

use brigade::{DownloadOptions, Object, Report, Session, UploadOptions};
use brigade_store::faults::{Action, Rule};
use brigade_store::{Backend, Network, Options};
use brigade_tests::cli::{Sandbox, eventually};
use brigade_tests::files;
use futures::executor::block_on;
use rustix::process::Signal;

const MB: u64 = 1_000_000;
const MIB: u64 = 1 << 20;

/// A synthetic store behind a network.
fn behind(network: Network) -> Sandbox {
    Sandbox::with(Options { backend: Backend::Synthetic, network, ..Sandbox::options() })
}

fn object(sandbox: &Sandbox, key: &str) -> Object {
    session(sandbox).bucket("bucket").object(key)
}

fn session(sandbox: &Sandbox) -> Session {
    sandbox.session()
}

/// Downloads to nowhere, in ranges of this size.
fn download(sandbox: &Sandbox, key: &str, range: u64, concurrency: Option<usize>) -> Report {
    let options =
        DownloadOptions { part_size_bytes: Some(range), concurrency, ..DownloadOptions::default() };
    let object = object(sandbox, key);
    block_on(object.download_to(std::io::sink(), "nowhere", options)).expect("downloaded")
}

#[test]
fn parts_in_flight_grow_while_that_brings_more() {
    let network = Network { connection_bytes_per_s: Some(3 * MB), ..Network::default() };
    let sandbox = behind(network.clone());
    let report = download(&sandbox, "128MiB", MIB, None);
    assert!(report.concurrency > 16, "{report:?}");
    let peak = sandbox.store().stats().peak_requests_in_flight;
    assert!(peak > 16, "{peak} requests");

    let sandbox = behind(network);
    let report = download(&sandbox, "16MiB", MIB, Some(4));
    assert_eq!((report.concurrency, sandbox.store().stats().peak_requests_in_flight), (4, 4));
}

/// What a connection takes off the client's hands is not what the line brings.
#[test]
fn parts_in_flight_stay_few_on_a_thin_line() {
    let sandbox = behind(Network { total_bytes_per_s: Some(20 * MB), ..Network::default() });
    sandbox.file("f", 100 * MIB);
    let report = sandbox.cp("f s3://bucket/f --part-size 5MiB --json").run().report();
    // Twice as many as it begins with are tried, and once more on a machine that is busy with other things.
    let peak = sandbox.store().stats().peak_requests_in_flight;
    assert!(peak <= 16, "{peak} requests: {report}");
    assert_eq!(report["limited_by"], "the network", "{report}");
}

/// What is in flight is lost with the process: on a thin line the first parts are done first.
#[test]
fn a_kill_on_a_thin_line_loses_little() {
    for line in ["f s3://bucket/f", "s3://bucket/240MiB copy"] {
        let sandbox = behind(Network { total_bytes_per_s: Some(40 * MB), ..Network::default() });
        sandbox.file("f", 240 * MIB);
        let moved = || {
            let stats = sandbox.store().stats();
            stats.bytes_in.max(stats.bytes_out)
        };
        let running = sandbox.cp(line).start();
        eventually("much has been moved", Duration::from_mins(1), || moved() > 160 * MB);
        running.signal(Signal::KILL);
        running.wait();
        let unfinished = brigade::unfinished(&sandbox.manifests()).expect("a folder");
        let recorded: u64 = unfinished
            .into_iter()
            .map(|found| found.expect("readable").manifest)
            .map(|found| found.parts.len() as u64 * found.transfer.part_size_bytes)
            .sum();
        assert!(2 * recorded >= moved(), "{line}: {recorded} of {} bytes", moved());
    }
}

/// A frame of each of many connections takes longer over a thin line than one of them may stand still.
#[test]
fn a_thin_line_is_no_stall() {
    let sandbox = behind(Network { total_bytes_per_s: Some(3 * MB), ..Network::default() });
    sandbox.file("f", 16 * 5 * MIB);
    let line = "f s3://bucket/f --part-size 5MiB --concurrency 16 --stall-timeout 1s --json";
    let running = sandbox.cp(line).start();
    // Two of them take three seconds.
    eventually("two frames of each are there", Duration::from_mins(1), || {
        sandbox.store().stats().bytes_in > 2 * 16 * 256 * 1024
    });
    running.signal(Signal::INT);
    let run = running.wait();
    let again = run.json().into_iter().filter(|event| event["event"] == "retrying").count();
    assert_eq!(again, 0, "{run}");
}

#[test]
fn memory_bounds_the_parts_in_flight() {
    let network = Network { connection_bytes_per_s: Some(20 * MB), ..Network::default() };
    let sandbox = behind(network);
    let options =
        brigade::SessionOptions { memory_limit_bytes: Some(16 * MIB), ..sandbox.session_options() };
    let session = block_on(Session::new(options)).expect("a session");
    let options = DownloadOptions { part_size_bytes: Some(4 * MIB), ..DownloadOptions::default() };
    let object = session.bucket("bucket").object("64MiB");
    block_on(object.download_to(std::io::sink(), "nowhere", options)).expect("downloaded");
    let peak = sandbox.store().stats().peak_requests_in_flight;
    assert!(peak <= 4, "{peak} requests of 4 MiB in 16");
}

#[test]
fn a_store_that_takes_few_requests_is_not_asked_for_more() {
    let sandbox = behind(Network { max_requests_per_s: Some(100), ..Network::default() });
    let report = download(&sandbox, "25MiB", 64 << 10, None);
    assert_eq!(report.parts, 400);
    let stats = sandbox.store().stats();
    // Those under way when the first refusal came, and now and then one that looks for more.
    assert!(stats.refused_requests < 120, "{} of 400 were refused", stats.refused_requests);
    assert_eq!(report.limited_by, "the store, which asked for fewer requests", "{report:?}");
}

#[test]
fn a_part_that_takes_far_longer_is_moved_again() {
    let late = || Action::delay(Duration::from_mins(1));
    for (operation, up) in [("UploadPart", true), ("GetObject", false), ("GetObject", true)] {
        let sandbox = Sandbox::new();
        sandbox.file("f", 40 * 5 * MIB);
        sandbox.cp("f s3://bucket/f --part-size 5MiB").run().succeeded();
        sandbox.store().faults().set([Rule::on(operation).nth(30).then(late())]).expect("sound");
        let before = sandbox.store().stats().count(operation);
        let (object, report) = (object(&sandbox, "f"), sandbox.path("copy"));
        let size = Some(5 * MIB);
        let report = if operation == "UploadPart" {
            let options = UploadOptions { part_size_bytes: size, ..UploadOptions::default() };
            block_on(object.upload_file_with(sandbox.path("f"), options))
        } else {
            let options = DownloadOptions { part_size_bytes: size, ..DownloadOptions::default() };
            if up {
                block_on(object.download_to(std::io::sink(), "nowhere", options))
            } else {
                block_on(object.download_file_with(report, options))
            }
        };
        let report = report.expect("moved");
        assert!(report.elapsed_ms < 30_000, "{report:?}");
        assert_eq!(report.verified.name(), "full-object");
        let asked = sandbox.store().stats().count(operation) - before;
        assert!((41..=42).contains(&asked), "{asked} {operation}");
        if !up {
            files::assert_same(&sandbox.path("f"), &sandbox.path("copy"));
        }
    }
}

#[test]
fn a_bandwidth_limit_is_kept() {
    let sandbox = Sandbox::new();
    sandbox.file("f", 20 * MIB);
    for line in ["f s3://bucket/f --part-size 5MiB", "s3://bucket/f copy --part-size 2MiB"] {
        let line = format!("{line} --bandwidth-limit 10MiB/s --json");
        let report = sandbox.cp(&line).run().report();
        let elapsed = report["elapsed_ms"].as_u64().expect("a number");
        // Not a twentieth faster; how much slower depends on the machine.
        assert!((1_900..4_000).contains(&elapsed), "{report}");
        assert_eq!(report["limited_by"], "the bandwidth limit", "{report}");
    }
    let said = sandbox.cp("f s3://bucket/f --bandwidth-limit 10").run().failed(2);
    assert!(said.contains("--bandwidth-limit") && said.contains("85MB/s"), "{said}");
    let said = sandbox.cp("f s3://bucket/f --memory-limit 1MiB").run().failed(2);
    assert!(said.contains("--memory-limit") && said.contains("at least 16MiB"), "{said}");
}

/// A limit that is slower than a frame in the time that a connection may be silent is no stall.
#[test]
fn a_low_bandwidth_limit_is_no_stall() {
    let sandbox = Sandbox::new();
    sandbox.file("f", MIB);
    let line = "f s3://bucket/f --bandwidth-limit 150kB/s --stall-timeout 1s --json";
    let report = sandbox.cp(line).run().report();
    assert_eq!(report["retries"], 0, "{report}");
}

/// A pipe's reader at 100 ns a byte.
struct Slow;
impl Write for Slow {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        std::thread::sleep(Duration::from_micros(bytes.len() as u64 / 10));
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn it_says_what_limits_it() {
    let far = Network { latency: Duration::from_millis(300), ..Network::default() };
    let narrow = Network { connection_bytes_per_s: Some(2 * MB), ..Network::default() };
    let cases = [
        (far, "2MiB", 256 << 10, "the store's first byte"),
        (narrow, "8MiB", 2 * MIB, "the network"),
    ];
    for (network, key, range, limit) in cases {
        let report = download(&behind(network), key, range, Some(4));
        assert_eq!(report.limited_by, limit, "{report:?}");
    }

    let sandbox = behind(Network::default());
    let object = object(&sandbox, "16MiB");
    let report = block_on(object.download_to(Slow, "slow", DownloadOptions::default()));
    let report = report.expect("downloaded");
    assert_eq!(report.limited_by, "the disk", "{report:?}");
}
