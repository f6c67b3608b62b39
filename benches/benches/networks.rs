//! What the engine finds by itself behind five networks, beside the best of the fixed settings, in one run.
//!
//!     cargo bench -p brigade-benches --bench networks -- [SECONDS] [WORDS OF A NETWORK'S NAME]
//!
//! Each network is simulated by the store, in this process; sizes are chosen so that a transfer takes about
//! SECONDS (10) with the best setting. Fixed settings and none take turns, three rounds, medians; a setting
//! that was far from the best in the first round is left out of the others. The whole transfer is held
//! against the best: what was spent on finding out counts. Sources are files of nothing but holes, which take
//! no memory.

use std::fs::File;
use std::time::Duration;

use brigade::limits::MIB;
use brigade::{DownloadOptions, Session, SessionOptions, UploadOptions};
use brigade_benches::{BUCKET, median};
use brigade_store::{Backend, Network, Options, Server, SlowParts};

const FIXED: [usize; 6] = [4, 8, 16, 32, 64, 96];
const ROUNDS: usize = 3;

/// Parts are not shorter.
const UP_PART_MIB: u64 = 5;

/// Of a target in memory. What is longer is dropped as it comes, in order.
const MAX_TARGET_BYTES: u64 = 5 << 30;

/// A fixed setting that brings less than this share of the best so far will not become the best.
const IN_THE_RUNNING: f64 = 0.75;

struct Case {
    name: &'static str,
    network: Network,
    /// What fits through, about, in bytes a second.
    rate: u64,
    part_size_bytes: Option<u64>,
}

fn cases() -> Vec<Case> {
    let mb = 1_000_000;
    let ms = Duration::from_millis;
    let case = |name, network, rate, part_size_bytes| Case { name, network, rate, part_size_bytes };
    let plain = Network::default;
    vec![
        case("loopback", plain(), 1_000 * mb, None),
        case(
            "50 ms, 85 MB/s a connection",
            Network { latency: ms(50), connection_bytes_per_s: Some(85 * mb), ..plain() },
            2_600 * mb,
            None,
        ),
        case(
            "5 ms, 20 MB/s a connection, 400 MB/s in all",
            Network {
                latency: ms(5),
                connection_bytes_per_s: Some(20 * mb),
                total_bytes_per_s: Some(400 * mb),
                ..plain()
            },
            380 * mb,
            None,
        ),
        // Parts small enough that the requests are what counts.
        case(
            "a 503 above 200 requests/s",
            Network { max_requests_per_s: Some(200), ..plain() },
            200 * MIB,
            Some(MIB),
        ),
        case(
            "one part in 200 late by 5 s",
            Network {
                latency: ms(5),
                connection_bytes_per_s: Some(40 * mb),
                slow_parts: Some(SlowParts { chance: 0.005, delay: ms(5_000) }),
                ..plain()
            },
            1_500 * mb,
            None,
        ),
    ]
}

fn main() {
    // Cargo tells its own to every benchmark.
    let words = || std::env::args().skip(1).filter(|word| !word.starts_with("--"));
    let seconds = words().find_map(|word| word.parse::<u64>().ok()).unwrap_or(10);
    let wanted = words().find(|word| word.parse::<u64>().is_err()).unwrap_or_default();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    brigade::guard_mapped_files().expect("a handler");
    println!("| network | way | best fixed | MiB/s | without being told | found | ratio |");
    println!("|---|---|---|---|---|---|---|");
    for case in cases().into_iter().filter(|case| case.name.contains(&wanted)) {
        let folder = tempfile::tempdir_in("/dev/shm").expect("a folder in memory");
        let file = folder.path().join("source");
        for way in ["up", "down"] {
            // A store that takes so many requests takes larger ones on the way up.
            let parts = if way == "up" && case.part_size_bytes.is_some() { UP_PART_MIB } else { 1 };
            let size_bytes = case.rate * seconds * parts / MIB * MIB;
            if way == "up" {
                let source = File::create(&file).expect("a file in memory");
                source.set_len(size_bytes).expect("holes");
            }
            let mut rates: Vec<(Option<usize>, Vec<f64>, usize)> = FIXED
                .map(Some)
                .into_iter()
                .chain([None])
                .map(|fixed| (fixed, Vec::new(), 0))
                .collect();
            let mut best = 0.0_f64;
            for _ in 0..ROUNDS {
                for (fixed, rates, found) in &mut rates {
                    let so_far = rates.iter().copied().fold(f64::INFINITY, f64::min);
                    if fixed.is_some() && so_far < IN_THE_RUNNING * best {
                        continue;
                    }
                    let moved = runtime.block_on(run(&case, way, &file, size_bytes, *fixed));
                    rates.push(moved.0);
                    *found = moved.1;
                    best = best.max(moved.0);
                }
            }
            let of = |(fixed, rates, found): &(Option<usize>, Vec<f64>, usize)| {
                (*fixed, median(rates.iter().copied()), *found)
            };
            let all: Vec<_> = rates.iter().map(of).collect();
            let (free, fixed) = all.split_last().expect("some");
            for (setting, rate, _) in fixed {
                eprintln!("{way}, {}: {rate:.0} MiB/s", setting.unwrap_or_default());
            }
            let best = fixed.iter().max_by(|a, b| a.1.total_cmp(&b.1)).expect("some");
            println!(
                "| {} | {way} | {} | {:.0} | {:.0} | {} | {:.2} |",
                case.name,
                best.0.unwrap_or_default(),
                best.1,
                free.1,
                free.2,
                free.1 / best.1
            );
        }
    }
}

/// MiB a second, and the parts in flight in the end.
async fn run(
    case: &Case,
    way: &str,
    file: &std::path::Path,
    size_bytes: u64,
    concurrency: Option<usize>,
) -> (f64, usize) {
    let options = Options {
        backend: Backend::Synthetic,
        buckets: vec![BUCKET.to_owned()],
        network: case.network.clone(),
        ..Options::default()
    };
    let store = Server::start(options).expect("a store on loopback");
    let options = SessionOptions {
        endpoint_url: Some(store.endpoint_url()),
        credentials: brigade::Credentials::Anonymous,
        ..SessionOptions::default()
    };
    let session = Session::new(options).await.expect("a session");
    let part_size_bytes = case.part_size_bytes;
    let report = if way == "up" {
        // A store that takes no small parts takes these.
        let part_size_bytes = part_size_bytes.map(|size| size.max(UP_PART_MIB * MIB));
        let options = UploadOptions { part_size_bytes, concurrency, ..UploadOptions::default() };
        session.bucket(BUCKET).object("up").upload_file_with(file, options).await
    } else {
        let options =
            DownloadOptions { part_size_bytes, concurrency, ..DownloadOptions::default() };
        let object = session.bucket(BUCKET).object(format!("{}MiB", size_bytes / MIB));
        if size_bytes <= MAX_TARGET_BYTES {
            // Over the same file each time: its pages are there already, and cost the same for all.
            let target = file.with_file_name("target");
            object.download_file_with(target, options).await
        } else {
            object.download_to(std::io::sink(), "nowhere", options).await
        }
    };
    let report = report.expect("moved");
    let rate = report.bytes as f64 / MIB as f64 / (report.elapsed_ms as f64 / 1000.0);
    (rate, report.concurrency)
}
