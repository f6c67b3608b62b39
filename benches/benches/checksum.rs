//! Checksums: each algorithm over one part, beside what merely copying the part costs, and the
//! combining of ten thousand parts' CRCs.

use std::hint::black_box;

use brigade::integrity::{Algorithm, Hasher, combine_all};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const PART_BYTES: usize = 8 << 20;

fn sums(criterion: &mut Criterion) {
    let mut part = vec![0; PART_BYTES];
    brigade_store::synthetic::fill(0, &mut part);
    let mut group = criterion.benchmark_group("checksum of an 8 MiB part");
    group.throughput(Throughput::Bytes(PART_BYTES as u64));
    let mut copy = vec![0; PART_BYTES];
    group.bench_function("copy, for comparison", |bencher| {
        bencher.iter(|| copy.copy_from_slice(black_box(&part)));
    });
    for algorithm in Algorithm::ALL {
        group.bench_function(BenchmarkId::from_parameter(algorithm), |bencher| {
            bencher.iter(|| {
                let mut hasher = Hasher::new(algorithm);
                hasher.update(black_box(&part));
                hasher.finish()
            });
        });
    }
    group.finish();
}

fn combining(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("combine 10,000 parts");
    for algorithm in Algorithm::ALL.into_iter().filter(|algorithm| algorithm.is_combinable()) {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(b"part");
        let digest = hasher.finish();
        group.bench_function(BenchmarkId::from_parameter(algorithm), |bencher| {
            bencher.iter(|| combine_all((0..10_000).map(|_| (black_box(digest), 8 << 20))));
        });
    }
    group.finish();
}

criterion_group!(benches, sums, combining);
criterion_main!(benches);
