//! The part path, per request: how long a range and a part take beside each other, and what they allocate.
//!
//! Ranges are so short here that the requests are what counts; parts are as short as stores take them.
//! The store runs in a process of its own, which is this program once more, so that every allocation that
//! is counted is the client's. An allocation more for each request shows on the noisiest machine.

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use brigade::limits::MIB;
use brigade::{Bucket, Credentials, DownloadOptions, Session, SessionOptions, UploadOptions};
use brigade_benches::{BUCKET, make_file, store};
use criterion::{Criterion, SamplingMode, Throughput};

/// Set in the process that is the store.
const IS_STORE: &str = "BRIGADE_BENCH_IS_STORE";

const RANGE_BYTES: u64 = 64 << 10;
const PART_BYTES: u64 = 5 * MIB;
/// Requests of the shorter and of the longer of two transfers: what both do once is in neither's share.
const FEW: u64 = 64;
const MANY: u64 = 512;
const MANY_PARTS: u64 = 128;

/// The system's allocator, and how often it was asked.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: all of it is the system's own; counting allocates nothing.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, new_len: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        unsafe { System.realloc(at, layout, new_len) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn main() {
    if std::env::var_os(IS_STORE).is_some() {
        return serve();
    }
    let (mut server, endpoint_url) = start_store();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    // As the command does it.
    brigade::guard_mapped_files().expect("a handler of our own");
    let options = SessionOptions {
        endpoint_url: Some(endpoint_url),
        credentials: Credentials::Anonymous,
        ..SessionOptions::default()
    };
    let session = runtime.block_on(Session::new(options)).expect("a session");
    let bucket = session.bucket(BUCKET);
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    let folder = folder.expect("a folder");
    let source = |parts| {
        let path = folder.path().join(format!("{parts}"));
        make_file(&path, parts * PART_BYTES);
        path
    };
    let (short, long) = (source(FEW), source(MANY_PARTS));
    let down = |ranges| runtime.block_on(fetch(&bucket, ranges));
    let up = |path| runtime.block_on(send(&bucket, path));

    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("requests");
    group
        .sampling_mode(SamplingMode::Flat)
        .sample_size(10)
        .measurement_time(Duration::from_secs(5));
    group.throughput(Throughput::Elements(MANY));
    group.bench_function("ranges of 64 KiB", |bencher| bencher.iter(|| down(MANY)));
    group.throughput(Throughput::Elements(MANY_PARTS));
    group.bench_function("parts of 5 MiB", |bencher| bencher.iter(|| up(&long)));
    group.finish();
    criterion.final_summary();

    let ranges = share(|| down(FEW), || down(MANY), MANY - FEW);
    let parts = share(|| up(&short), || up(&long), MANY_PARTS - FEW);
    println!("allocations: {ranges:.1} a range, {parts:.1} a part");
    drop(server.stdin.take());
    server.wait().expect("it ends with its input");
}

async fn fetch(bucket: &Bucket, ranges: u64) {
    let options =
        DownloadOptions { part_size_bytes: Some(RANGE_BYTES), ..DownloadOptions::default() };
    let object = bucket.object(format!("{}KiB", ranges * RANGE_BYTES / 1024));
    object.download_to(std::io::sink(), "nowhere", options).await.expect("downloaded");
}

async fn send(bucket: &Bucket, path: &Path) {
    let options = UploadOptions { part_size_bytes: Some(PART_BYTES), ..UploadOptions::default() };
    bucket.object("up").upload_file_with(path, options).await.expect("uploaded");
}

/// Allocations of one request: the least of a few rounds, since what is seldom belongs to nobody.
fn share(mut few: impl FnMut(), mut many: impl FnMut(), difference: u64) -> f64 {
    let count = |run: &mut dyn FnMut()| {
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        run();
        ALLOCATIONS.load(Ordering::Relaxed) - before
    };
    let least = |run: &mut dyn FnMut()| (0..5).map(|_| count(run)).min().unwrap_or_default();
    let (few, many) = (least(&mut few), least(&mut many));
    many.saturating_sub(few) as f64 / difference as f64
}

/// The store's side: until its input ends.
fn serve() {
    let store = store();
    println!("{}", store.endpoint_url());
    std::io::stdin().read_to_end(&mut Vec::new()).expect("an end");
    store.stop();
}

fn start_store() -> (Child, String) {
    let this = std::env::current_exe().expect("a program");
    let mut server = Command::new(this)
        .env(IS_STORE, "")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it runs");
    let mut line = String::new();
    BufReader::new(server.stdout.take().expect("a pipe"))
        .read_line(&mut line)
        .expect("its address");
    (server, line.trim().to_owned())
}
