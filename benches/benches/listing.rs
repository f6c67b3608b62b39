//! Keys listed, by one request at a time beside as many as a listing takes by itself, from a store that makes them
//! up. Client and store share the machine's cores and one process, so both are in the time; next door as here,
//! more requests bring what a second core brings, and 10 ms away what they are for.

use std::time::Duration;

use brigade::{Bucket, ListOptions};
use brigade_benches::{BUCKET, session};
use brigade_store::{Backend, Network, Options, Pretended, Server};
use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};

const NEXT_DOOR: u64 = 200_000;
const AWAY: u64 = 50_000;

fn listings(criterion: &mut Criterion) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    for (name, objects, latency) in
        [("next door", NEXT_DOOR, Duration::ZERO), ("10 ms away", AWAY, Duration::from_millis(10))]
    {
        let store = Server::start(Options {
            backend: Backend::Synthetic,
            buckets: vec![BUCKET.to_owned()],
            pretended: Pretended { objects, object_size_bytes: 1 },
            network: Network { latency, ..Network::default() },
            ..Options::default()
        });
        let store = store.expect("a store on loopback");
        let bucket = runtime.block_on(session(&store)).bucket(BUCKET);
        let mut group = criterion.benchmark_group(format!("{objects} keys, {name}"));
        group
            .throughput(Throughput::Elements(objects))
            .sampling_mode(SamplingMode::Flat)
            .sample_size(10)
            .measurement_time(Duration::from_secs(10));
        for (name, concurrency) in [("one at a time", Some(1)), ("as it comes", None)] {
            group.bench_function(name, |bencher| {
                bencher.iter(|| {
                    let counted = runtime.block_on(count(&bucket, concurrency));
                    assert_eq!(counted as u64, objects);
                });
            });
        }
        group.finish();
        store.stop();
    }
}

async fn count(bucket: &Bucket, concurrency: Option<usize>) -> usize {
    let mut listing = bucket.list("", ListOptions { concurrency, ..ListOptions::default() });
    let mut counted = 0;
    while let Some(batch) = listing.next_batch().await {
        counted += batch.expect("a page").len();
    }
    counted
}

criterion_group!(benches, listings);
criterion_main!(benches);
