//! What every name of a dataset costs: walking, comparing, filtering.
//!
//! The floor of the walk is reading the folders and one `stat` a file with the standard library, unsorted and on the same thread.

use std::fs;
use std::hint::black_box;
use std::path::Path;

use brigade::Entry;
use brigade::dataset::{Filter, FilterOptions, FilterRule, WalkOptions, Walked, compare, walk};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use futures::executor::block_on_stream;
use futures::stream;

/// Names of 1 million objects in folders of a thousand, in order.
fn entries() -> Vec<Entry> {
    let entry = |number: u64| {
        let mut entry = Entry::default();
        entry.name = format!("data/{:04}/object-{:03}.bin", number / 1000, number % 1000);
        entry.size_bytes = number;
        entry
    };
    (0..1_000_000).map(entry).collect()
}

/// In memory where that is a file system, so that no disk is measured.
fn tree(files: usize) -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let place = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let root = tempfile::tempdir_in(place).expect("a folder");
    for number in 0..files {
        let folder = root.path().join(format!("{:04}", number / 100));
        if number % 100 == 0 {
            fs::create_dir(&folder).expect("writable");
        }
        fs::write(folder.join(format!("object-{number:06}.bin")), b"").expect("writable");
    }
    root
}

fn floor(folder: &Path) -> usize {
    let mut files = 0;
    for entry in fs::read_dir(folder).expect("readable") {
        let entry = entry.expect("readable");
        if entry.file_type().expect("known").is_dir() {
            files += floor(&entry.path());
        } else {
            files += usize::from(black_box(entry.metadata().expect("there")).len() == 0);
        }
    }
    files
}

fn walking(criterion: &mut Criterion) {
    const FILES: usize = 10_000;
    let root = tree(FILES);
    let mut group = criterion.benchmark_group("walk 10,000 files");
    group.throughput(Throughput::Elements(FILES as u64));
    group.bench_function("in order", |bencher| {
        bencher.iter(|| {
            let mut walk = walk(root.path(), WalkOptions::default()).expect("a thread");
            let files = walk.blocking().filter(|walked| matches!(walked, Walked::File(_))).count();
            assert_eq!(files, FILES);
        });
    });
    group.bench_function("floor: read_dir and stat", |bencher| {
        bencher.iter(|| assert_eq!(floor(root.path()), FILES));
    });
    group.finish();
}

fn comparing(criterion: &mut Criterion) {
    let entries = entries();
    let pages = || entries.chunks(1000).map(|page| Ok(page.to_vec())).collect::<Vec<_>>();
    let mut group = criterion.benchmark_group("1,000,000 names");
    group.sample_size(10).throughput(Throughput::Elements(entries.len() as u64));
    group.bench_function("compared, all on both sides", |bencher| {
        bencher.iter_batched(
            || (stream::iter(pages()), stream::iter(pages())),
            |(left, right)| {
                let pairs = block_on_stream(Box::pin(compare(left, right)));
                let count: usize = pairs.map(|batch| batch.expect("in order").len()).sum();
                assert_eq!(count, 1_000_000);
            },
            criterion::BatchSize::PerIteration,
        );
    });
    let filter = |rules: Vec<FilterRule>| {
        Filter::new(&FilterOptions { rules, ..FilterOptions::default() }).expect("sound")
    };
    let five = FilterRule::of_lines("*.tmp\n/data/09*/\n!object-99?.bin\n**/cache/\n[._]*.sw?\n");
    for (name, filter) in [
        ("filtered by one rule", filter(vec![FilterRule::exclude("*.tmp")])),
        ("filtered by five rules", filter(five)),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| entries.iter().filter(|entry| filter.admits(entry)).count());
        });
    }
    group.finish();
}

criterion_group!(benches, walking, comparing);
criterion_main!(benches);
