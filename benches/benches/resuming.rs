//! How soon a killed transfer is at work again, in two parts.
//!
//! **Upload.** A file of 1 TiB of which 9,000 parts are recorded as sent: the time from the start of the
//! process to the first byte of the first part that is missing. The real command, against a store that lists
//! 9,000 parts that nobody could send in a benchmark: a few lines here that know just enough of S3. The
//! time that it takes to list them is told as well; nothing waits for it.
//! The command is `brigade` beside the benchmarks' own folder, as `cargo build --release` leaves it, or what
//! `BRIGADE_BENCH_COMMAND` names.
//!
//! **Download.** A partial file that is 99 % done: the time in which it is read again and checked, beside a
//! plain read of the same file, both with nothing of it in memory. By pairs, with their median ratio.
//! `BRIGADE_BENCH_RESUMING_MIB` makes it smaller than 8 GiB; it needs that much disk in `TMPDIR`.
//!
//! Criterion times what can be called again and again in one process; neither of these can.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use brigade::integrity::{Algorithm, Digest, Hasher};
use brigade::progress::{self, Event};
use brigade::{Credentials, DownloadOptions, Object, Session, SessionOptions, Unfinished};
use brigade_benches::{BUCKET, make_file, manifest_line, median, size_from_env, store};
use brigade_store::synthetic;
use futures::StreamExt;

/// Of the upload.
const HUGE_BYTES: u64 = 1 << 40;

/// Of some 10,000.
const SENT_PARTS: u32 = 9_000;

/// Parts in a page of a store's list.
const PAGE: u32 = 1_000;

const STARTS: usize = 7;

/// An even number: each of the two is the first as often.
const PAIRS: usize = 4;

fn main() {
    upload();
    download();
}

fn upload() {
    let command = std::env::var_os("BRIGADE_BENCH_COMMAND").map_or_else(beside, PathBuf::from);
    if !command.is_file() {
        println!("upload: left out: {} is not there", command.display());
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let source = folder.path().join("source");
    let made = File::create(&source).and_then(|file| file.set_len(HUGE_BYTES));
    made.expect("a file system that takes a file of 1 TiB");
    let lister = Lister::start();
    let start = || {
        let mut start = Command::new(&command);
        start
            .args(["cp", "source", "s3://bench/huge", "--quiet", "--manifest-dir", "manifests"])
            .args(["--endpoint-url", &lister.url])
            .env_clear()
            .env("HOME", folder.path())
            .env("AWS_ACCESS_KEY_ID", "any")
            .env("AWS_SECRET_ACCESS_KEY", "any")
            .env("AWS_REGION", "us-east-1")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .spawn()
            .expect("it can be run")
    };
    // A first life, up to the first part.
    let mut running = start();
    lister.first_byte();
    running.kill().and_then(|()| running.wait()).expect("a child");
    let found = only(&folder.path().join("manifests"));
    let algorithm = found.manifest.checksum.expect("a checksum");
    let part_bytes = found.manifest.plan().part_size_bytes();
    let sum = of_zeroes(algorithm, part_bytes);
    let mut lines = String::new();
    for number in 1..=SENT_PARTS {
        let sum = sum.to_base64();
        lines += &manifest_line(&format!(
            r#"{{"record":"part","number":{number},"sum":"{sum}","etag":"\"{number}\""}}"#
        ));
    }
    append(&found.path, &lines);
    lister.list(algorithm, sum, part_bytes);
    let times: Vec<(f64, f64)> = (0..STARTS)
        .map(|_| {
            // What the one before had sent has arrived by then.
            std::thread::sleep(Duration::from_millis(200));
            lister.forget();
            let started = Instant::now();
            let mut running = start();
            let (first_byte, listing) = (lister.first_byte(), lister.listing());
            running.kill().and_then(|()| running.wait()).expect("a child");
            ((first_byte - started).as_secs_f64(), listing.as_secs_f64())
        })
        .collect();
    let kept = only(&folder.path().join("manifests")).manifest.parts.len();
    assert!(kept >= SENT_PARTS as usize, "only {kept} parts are recorded");
    println!(
        "upload: 1 TiB, {SENT_PARTS} of {} parts of {} MiB sent: {:.3} s to the first new byte; beside \
         that, {:.3} s to list the parts (medians of {STARTS})",
        found.manifest.plan().part_count(),
        part_bytes >> 20,
        median(times.iter().map(|(first, _)| *first)),
        median(times.iter().map(|(_, listing)| *listing)),
    );
}

fn download() {
    let size_bytes = size_from_env("BRIGADE_BENCH_RESUMING_MIB", 8 << 30);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let folder = tempfile::tempdir().expect("a folder");
    let (manifests, copy) = (folder.path().join("manifests"), folder.path().join("copy"));
    let store = store();
    let options = SessionOptions {
        endpoint_url: Some(store.endpoint_url()),
        credentials: Credentials::Anonymous,
        manifest_folder: Some(manifests.clone()),
        ..SessionOptions::default()
    };
    let session = runtime.block_on(Session::new(options)).expect("a session");
    let object = session.bucket(BUCKET).object(format!("{}MiB", size_bytes >> 20));
    // One that is stopped as soon as a part is there, to have the names and the first records of.
    let stopped = brigade::Cancel::default();
    let (events, mut heard) = progress::channel();
    let options = DownloadOptions { events, cancel: stopped.clone(), ..DownloadOptions::default() };
    let begun = object.download_file_with(&copy, options);
    let stopping = async {
        while let Some(event) = heard.next().await {
            if matches!(event, Event::PartDone { .. }) {
                stopped.cancel();
            }
        }
    };
    let (begun, ()) = runtime.block_on(async { futures::join!(begun, stopping) });
    begun.expect_err("it was stopped");
    let found = only(&manifests);
    let (partial, plan) = (found.partial().expect("a download"), found.manifest.plan());
    make_file(&partial, size_bytes);
    let done = plan.part_count() * 99 / 100;
    let mut lines = String::new();
    for part in plan.parts().take(done as usize) {
        let sum = synthetic::crc32(part.offset_bytes, part.len_bytes).to_be_bytes();
        let sum = Digest::from_bytes(Algorithm::Crc32, &sum).expect("four bytes").to_base64();
        let number = part.number;
        lines += &manifest_line(&format!(r#"{{"record":"part","number":{number},"sum":"{sum}"}}"#));
    }
    append(&found.path, &lines);
    let manifest = std::fs::read(&found.path).expect("there");

    let mut rounds = Vec::new();
    for round in 0..PAIRS {
        // The machine below a virtual one may remember what this one forgets: neither is always the first.
        let plain_first = round % 2 == 0;
        let before = plain_first.then(|| read_plainly(&partial));
        forget(&partial);
        let (checked_s, total_s) = runtime.block_on(resumed(&object, &copy, size_bytes));
        // The same bytes, under the name they had.
        std::fs::rename(&copy, &partial).expect("renamed");
        std::fs::write(&found.path, &manifest).expect("written");
        let plain_s = before.unwrap_or_else(|| read_plainly(&partial));
        println!(
            "download, {} of {PAIRS}: plain read {plain_s:.2} s, checked at {checked_s:.2} s, done \
             after {total_s:.2} s",
            round + 1
        );
        rounds.push((plain_s, checked_s));
    }
    let speed = |seconds: f64| size_bytes as f64 / seconds / f64::from(1 << 20);
    println!(
        "download: {} MiB: plain read {:.0} MiB/s, check {:.0} MiB/s, ratio {:.2} (medians of {PAIRS})",
        size_bytes >> 20,
        speed(median(rounds.iter().map(|(plain, _)| *plain))),
        speed(median(rounds.iter().map(|(_, checked)| *checked))),
        median(rounds.iter().map(|(plain, checked)| plain / checked)),
    );
    store.stop();
}

/// The command as cargo leaves it: a benchmark runs in `target/release/deps`.
fn beside() -> PathBuf {
    let here = std::env::current_exe().expect("a program");
    here.ancestors().nth(2).expect("a folder").join("brigade")
}

/// The one transfer that is recorded there.
fn only(manifests: &Path) -> Unfinished {
    let found = brigade::unfinished(manifests).expect("a folder");
    found.into_iter().next().expect("one").expect("readable")
}

fn append(manifest: &Path, lines: &str) {
    let mut file = File::options().append(true).open(manifest).expect("there");
    file.write_all(lines.as_bytes()).expect("written");
}

fn of_zeroes(algorithm: Algorithm, len_bytes: u64) -> Digest {
    let (mut hasher, zeroes, mut left) = (Hasher::new(algorithm), vec![0; 1 << 20], len_bytes);
    while left > 0 {
        let step = left.min(zeroes.len() as u64);
        hasher.update(&zeroes[..usize::try_from(step).expect("small")]);
        left -= step;
    }
    hasher.finish()
}

/// Goes on with the download. When all of the partial file was checked, as if that had been the whole
/// file, and when the download was done; seconds.
async fn resumed(object: &Object, copy: &Path, size_bytes: u64) -> (f64, f64) {
    let (events, mut heard) = progress::channel();
    let options = DownloadOptions { events, ..DownloadOptions::default() };
    let started = Instant::now();
    let moving = object.download_file_with(copy, options);
    let watching = async {
        let mut checked_s = 0.0;
        while let Some(event) = heard.next().await {
            if matches!(event, Event::PartKept { .. }) {
                checked_s = started.elapsed().as_secs_f64();
            }
        }
        checked_s
    };
    let (report, checked_s) = futures::join!(moving, watching);
    let total_s = started.elapsed().as_secs_f64();
    let kept = report.expect("downloaded").resumed_bytes as f64 / size_bytes as f64;
    assert!(kept > 0.985, "only {kept} of it was kept");
    (checked_s / kept, total_s)
}

/// Makes the kernel forget what it has of a file in memory; as root, of all files.
fn forget(path: &Path) {
    let file = File::open(path).expect("there");
    file.sync_all().expect("synced");
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("Linux");
    // Not everybody may.
    let _ = std::fs::write("/proc/sys/vm/drop_caches", "1");
}

/// Reads the file from its beginning to its end, a mebibyte at a time, from the disk. Seconds.
fn read_plainly(path: &Path) -> f64 {
    forget(path);
    let file = File::open(path).expect("there");
    let (mut buffer, mut offset, started) = (vec![0; 1 << 20], 0, Instant::now());
    loop {
        match file.read_at(&mut buffer, offset).expect("readable") {
            0 => return started.elapsed().as_secs_f64(),
            len => offset += len as u64,
        }
    }
}

/// A store that takes an upload, lists parts of it that it never got, and notes when the first byte of a
/// new one comes.
struct Lister {
    url: String,
    noted: Arc<Mutex<Noted>>,
}

#[derive(Default)]
struct Noted {
    /// Everything but its number of a part in the list.
    part: String,
    first_byte: Option<Instant>,
    /// From the first request for a page to the answer with the last.
    listing: Option<(Instant, Option<Instant>)>,
}

impl Lister {
    fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let noted = Arc::new(Mutex::new(Noted::default()));
        let shared = Arc::clone(&noted);
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let noted = Arc::clone(&shared);
                // One that breaks is a process that was killed.
                std::thread::spawn(move || serve(&connection, &noted));
            }
        });
        Self { url, noted }
    }

    /// What every listed part is, from now on.
    fn list(&self, algorithm: Algorithm, sum: Digest, len_bytes: u64) {
        let name = format!("Checksum{}", algorithm.to_string().to_uppercase());
        self.noted.lock().expect("no panic").part = format!(
            "<Size>{len_bytes}</Size><{name}>{}</{name}><LastModified>2026-01-01T00:00:00Z</LastModified>",
            sum.to_base64()
        );
    }

    /// What was noted of an earlier process is forgotten.
    fn forget(&self) {
        let mut noted = self.noted.lock().expect("no panic");
        (noted.first_byte, noted.listing) = (None, None);
    }

    /// When the first byte of a part came.
    fn first_byte(&self) -> Instant {
        self.wait_for(|noted| noted.first_byte)
    }

    /// How long it took to list all parts, by the store's clock.
    fn listing(&self) -> Duration {
        self.wait_for(|noted| noted.listing.and_then(|(begun, ended)| Some(ended? - begun)))
    }

    fn wait_for<T>(&self, what: impl Fn(&Noted) -> Option<T>) -> T {
        loop {
            if let Some(there) = what(&self.noted.lock().expect("no panic")) {
                return there;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn serve(connection: &TcpStream, noted: &Mutex<Noted>) -> std::io::Result<()> {
    connection.set_nodelay(true)?;
    let (mut from, mut to) = (BufReader::new(connection.try_clone()?), connection.try_clone()?);
    loop {
        let mut first = String::new();
        if from.read_line(&mut first)? == 0 {
            return Ok(());
        }
        let arrived = Instant::now();
        let mut is_last = false;
        loop {
            let mut header = String::new();
            from.read_line(&mut header)?;
            if header.to_ascii_lowercase().starts_with("expect:") {
                to.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            }
            if header.trim().is_empty() {
                break;
            }
        }
        let body = match first.split(' ').next() {
            Some("PUT") => {
                from.read_exact(&mut [0])?;
                noted.lock().expect("no panic").first_byte.get_or_insert_with(Instant::now);
                // The process is about to be killed.
                return std::io::copy(&mut from, &mut std::io::sink()).map(drop);
            }
            Some("POST") => "<InitiateMultipartUploadResult><Bucket>bench</Bucket><Key>huge</Key>\
                             <UploadId>u</UploadId></InitiateMultipartUploadResult>"
                .to_owned(),
            Some("GET") => {
                let page = page(&first, &noted.lock().expect("no panic").part);
                is_last = page.contains("<IsTruncated>false");
                page
            }
            _ => String::new(),
        };
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        to.write_all(format!("{head}{body}").as_bytes())?;
        if first.starts_with("GET") {
            let mut noted = noted.lock().expect("no panic");
            let (_, ended) = noted.listing.get_or_insert((arrived, None));
            *ended = is_last.then(Instant::now);
        }
    }
}

/// A page of the list of parts that this request asks for.
fn page(request: &str, part: &str) -> String {
    let marker = request.split_once("part-number-marker=").map_or("0", |(_, rest)| rest);
    let marker = marker.split(['&', ' ']).next().expect("text");
    let after: u32 = marker.parse().expect("a number");
    let last = (after + PAGE).min(SENT_PARTS);
    let parts: Vec<String> = (after + 1..=last)
        .map(|number| {
            format!(
                "<Part><PartNumber>{number}</PartNumber><ETag>&quot;{number}&quot;</ETag>{part}</Part>"
            )
        })
        .collect();
    format!(
        "<ListPartsResult><Bucket>bench</Bucket><Key>huge</Key><UploadId>u</UploadId>\
         <NextPartNumberMarker>{last}</NextPartNumberMarker><MaxParts>{PAGE}</MaxParts>\
         <IsTruncated>{}</IsTruncated>{}</ListPartsResult>",
        last < SENT_PARTS,
        parts.concat()
    )
}
