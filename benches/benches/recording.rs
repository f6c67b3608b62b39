//! What it costs to be able to go on: an upload that records what it did, beside one that does not.
//!
//! Both in turns and by pairs, since other work on the machine drifts; the ratio is the median of the
//! pairs'. Criterion has no place for that, nor for processor time, so this is a program of its own.
//! The store runs in this process and its work is in both numbers of a pair: the cost of a record is
//! therefore told by itself as well.
//!
//! `BRIGADE_BENCH_RECORDING_MIB` makes the file smaller than 4 GiB, `BRIGADE_BENCH_PAIRS` the pairs more or
//! fewer than 9. The manifests are in the folder for temporary files, which should be on a disk.

use std::path::{Path, PathBuf};
use std::time::Instant;

use brigade::{Credentials, Resume, Session, SessionOptions, UploadOptions};
use brigade_benches::{BUCKET, cpu_time, make_file, median, size_from_env, store};

/// Before an upload is created, and when its id is known.
const SYNCS: f64 = 2.0;

fn main() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let size_bytes = size_from_env("BRIGADE_BENCH_RECORDING_MIB", 4 << 30);
    let pairs =
        std::env::var("BRIGADE_BENCH_PAIRS").map_or(9, |asked| asked.parse().expect("a number"));
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    let folder = folder.expect("a folder");
    let source = folder.path().join("source");
    make_file(&source, size_bytes);
    let manifests = tempfile::tempdir().expect("a folder");
    // As the command does it.
    brigade::guard_mapped_files().expect("a handler of our own");
    let store = store();
    let options = SessionOptions {
        endpoint_url: Some(store.endpoint_url()),
        credentials: Credentials::Anonymous,
        manifest_folder: Some(manifests.path().to_owned()),
        ..SessionOptions::default()
    };
    let session = runtime.block_on(Session::new(options)).expect("a session");
    let upload = |resume| runtime.block_on(timed(&session, &source, resume));

    let parts = upload(Resume::Off).parts;
    upload(Resume::Continue);
    let rounds: Vec<(Run, Run)> = (0..pairs)
        .map(|round| {
            // Neither is always the first.
            if round % 2 == 0 {
                let on = upload(Resume::Continue);
                (on, upload(Resume::Off))
            } else {
                let off = upload(Resume::Off);
                (upload(Resume::Continue), off)
            }
        })
        .collect();
    println!("{} MiB in {parts} parts, {pairs} pairs, medians", size_bytes >> 20);
    for (what, of) in [("wall", (|run| run.wall_s) as fn(&Run) -> f64), ("cpu", |run| run.cpu_s)] {
        let on = median(rounds.iter().map(|(on, _)| of(on)));
        let off = median(rounds.iter().map(|(_, off)| of(off)));
        let ratios = || rounds.iter().map(|(on, off)| of(on) / of(off));
        let (least, most) = (ratios().fold(f64::MAX, f64::min), ratios().fold(0.0, f64::max));
        println!(
            "{what}: recorded {on:.3} s, not recorded {off:.3} s, ratio {:.3} ({least:.3} to {most:.3})",
            median(ratios())
        );
    }
    let off_s = median(rounds.iter().map(|(_, off)| off.wall_s));
    let (record_s, sync_s) = alone(manifests.path(), parts);
    println!(
        "alone: {:.1} µs a record, {:.1} ms a sync; {parts} and {SYNCS} of them are {:.2} % of the upload",
        record_s * 1e6,
        sync_s * 1e3,
        100.0 * (record_s * f64::from(parts) + sync_s * SYNCS) / off_s
    );
    store.stop();
}

#[derive(Debug, Clone, Copy)]
struct Run {
    parts: u32,
    wall_s: f64,
    cpu_s: f64,
}

async fn timed(session: &Session, source: &PathBuf, resume: Resume) -> Run {
    let (started, cpu) = (Instant::now(), cpu_time());
    let options = UploadOptions { resume, ..UploadOptions::default() };
    let object = session.bucket(BUCKET).object("recorded");
    let report = object.upload_file_with(source, options).await.expect("uploaded");
    Run {
        parts: report.parts,
        wall_s: started.elapsed().as_secs_f64(),
        cpu_s: cpu_time().saturating_sub(cpu).as_secs_f64(),
    }
}

/// The same writes with nothing else going on: seconds for a record, and for a sync.
fn alone(folder: &Path, parts: u32) -> (f64, f64) {
    use std::io::Write as _;
    let json = r#"{"record":"part","number":1234,"sum":"q83vEgAAAAA=","etag":"\"8f14e45fceea167a5a36dedd4bea2543\""}"#;
    let mut file = std::fs::File::create(folder.join("alone")).expect("a file");
    let first = brigade_benches::manifest_line(&json.repeat(8));
    let started = Instant::now();
    file.write_all(first.as_bytes()).and_then(|()| file.sync_data()).expect("written");
    let sync_s = started.elapsed().as_secs_f64();
    let started = Instant::now();
    for _ in 0..parts {
        let line = brigade_benches::manifest_line(json);
        file.write_all(line.as_bytes()).expect("written");
    }
    (started.elapsed().as_secs_f64() / f64::from(parts), sync_s)
}
