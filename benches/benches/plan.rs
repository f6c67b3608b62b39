//! Planning: what it costs to cut an object, from a small one to the largest there is.

use std::hint::black_box;

use brigade::limits::{GIB, MIB, StoreProfile, TIB};
use brigade::plan;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

fn plans(criterion: &mut Criterion) {
    let profile = StoreProfile::aws();
    let mut group = criterion.benchmark_group("plan");
    for (name, size_bytes) in
        [("100 MiB", 100 * MIB), ("100 GiB", 100 * GIB), ("5 TiB", 5 * TIB), ("48 TiB", 48 * TIB)]
    {
        let cut = |size_bytes| {
            let plan = plan::upload(black_box(size_bytes), None, &profile).expect("it fits");
            plan.parts().map(|part| part.len_bytes).sum::<u64>()
        };
        group.bench_function(BenchmarkId::new("upload, every part", name), |bencher| {
            bencher.iter(|| cut(size_bytes));
        });
    }
    group.finish();
}

criterion_group!(benches, plans);
criterion_main!(benches);
