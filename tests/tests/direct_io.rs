//! Transfers past the page cache move the same bytes as those through it, and go on like them.

use std::time::Duration;

use brigade_tests::cli::{PART, Sandbox, eventually};
use brigade_tests::files;
use brigade_tests::relay::Relay;
use rustix::process::Signal;

/// Slow enough that nothing here is done before it is ended.
const CRAWL: u64 = 24 << 20;

const PARTS: u64 = 12;

#[test]
fn a_file_is_the_same_either_way() {
    let sandbox = Sandbox::new();
    for (index, size) in
        [0, 1, 4_095, 4_096, 3 * PART - 1, 3 * PART, 3 * PART + 1, 5 * PART + 4_097]
            .into_iter()
            .enumerate()
    {
        let file = sandbox.file(format!("f{index}"), size);
        for up in ["on", "off"] {
            let line = format!("f{index} s3://bucket/f --part-size 5MiB --direct-io {up}");
            sandbox.cp(&line).run().succeeded();
            // Ranges that begin with a page, and others.
            for range in
                ["5MiB", "1000001", "4KiB"].into_iter().take(if size > PART { 2 } else { 3 })
            {
                for down in ["on", "off", "auto"] {
                    let line = format!("s3://bucket/f copy --part-size {range} --direct-io {down}");
                    let report = sandbox.cp(&line).args(["--json"]).run().report();
                    assert_eq!(report["verified"], "full-object", "{report}");
                    files::assert_same(&file, &sandbox.path("copy"));
                }
            }
        }
    }
    sandbox.assert_clean();
}

#[test]
fn what_must_be_read_again_is_read_from_the_disk() {
    let sandbox = Sandbox::new();
    let file = sandbox.file("f", 3 * PART + 77);
    sandbox.cp("f s3://bucket/f --part-size 64MiB --checksum-algorithm sha256").run().succeeded();
    let down = "s3://bucket/f copy --part-size 5MiB --direct-io on --json";
    let report = sandbox.cp(down).run().report();
    assert_eq!(report["checksum"]["algorithm"], "sha256", "{report}");
    files::assert_same(&file, &sandbox.path("copy"));
}

#[test]
fn a_download_goes_on_after_its_end() {
    for (signal, code) in [(Signal::KILL, -9), (Signal::INT, 130)] {
        let sandbox = Sandbox::new();
        let file = sandbox.file("f", PARTS * PART + 1);
        let relay = Relay::slow(sandbox.store(), CRAWL);
        sandbox.cp("f s3://bucket/f --part-size 5MiB").run().succeeded();
        let line = "s3://bucket/f copy --concurrency 2 --direct-io on";
        let running = sandbox.cp(line).endpoint(relay.url()).start();
        eventually("parts are done", Duration::from_secs(20), || sandbox.recorded_parts() >= 3);
        running.signal(signal);
        assert_eq!(running.wait().code(), code);
        let recorded = sandbox.recorded_parts() as u64;
        relay.hurry();
        let report = sandbox.cp(line).args(["--json"]).endpoint(relay.url()).run().report();
        // Each recorded one had been written, all of it.
        let range = report["part_size_bytes"].as_u64().expect("a number");
        assert_eq!(report["resumed_bytes"].as_u64(), Some(recorded * range), "{report}");
        files::assert_same(&file, &sandbox.path("copy"));
        sandbox.assert_clean();
    }
}
