//! End to end: one object up and down against the synthetic store, beside a plain copy of the
//! same file. Client and store share the machine's cores and one process.
//!
//! Uploads come twice: read, as a library does unasked, and mapped. What is mapped stays so for the
//! rest of the process, so the order of the two is fixed.

use std::path::Path;
use std::time::Duration;

use brigade_benches::{BUCKET, make_file, session, store};
use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};

const SIZE_BYTES: u64 = 512 << 20;

fn transfers(criterion: &mut Criterion) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    // In memory where the machine has such a place: the disk is not what is measured.
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    let folder = folder.expect("a folder");
    let (source, target) = (folder.path().join("source"), folder.path().join("target"));
    make_file(&source, SIZE_BYTES);
    let store = store();
    let session = runtime.block_on(session(&store));
    let bucket = session.bucket(BUCKET);

    let mut group = criterion.benchmark_group("512 MiB");
    group
        .throughput(Throughput::Bytes(SIZE_BYTES))
        .sampling_mode(SamplingMode::Flat)
        .sample_size(10)
        .measurement_time(Duration::from_secs(10));
    group.bench_function("copy of the file, for comparison", |bencher| {
        bencher.iter(|| std::fs::copy(&source, &target).expect("copied"));
    });
    group.bench_function("upload, read", |bencher| {
        bencher.iter(|| {
            let upload = bucket.object("uploaded").upload_file(&source);
            runtime.block_on(upload).expect("uploaded")
        });
    });
    brigade::guard_mapped_files().expect("a handler of our own");
    group.bench_function("upload, mapped", |bencher| {
        bencher.iter(|| {
            let upload = bucket.object("uploaded").upload_file(&source);
            runtime.block_on(upload).expect("uploaded")
        });
    });
    group.bench_function("download", |bencher| {
        bencher.iter(|| {
            let download = bucket.object("512MiB").download_file(&target);
            runtime.block_on(download).expect("downloaded")
        });
    });
    group.finish();
    store.stop();
}

criterion_group!(benches, transfers);
criterion_main!(benches);
