//! The resume manifest: what it costs to read one, of a short transfer and of the longest there is.

use std::hint::black_box;

use brigade::manifest::decode;
use brigade_benches::manifest_line;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// A stored example, of three parts; its first lines say what is transferred.
const EXAMPLE: &str = include_str!("../../crates/core/tests/manifests/upload.v1.manifest");

const EXAMPLE_SIZE: &str = r#""size_bytes":20971520"#;
const PART_BYTES: u64 = 8 << 20;

/// Of the largest object that S3 takes, and of a usual one.
const PARTS: [u32; 2] = [100, 10_000];

fn of_parts(parts: u32) -> Vec<u8> {
    let mut lines = EXAMPLE.lines();
    let mut text = format!("{}\n", lines.next().expect("the format's version"));
    let size = format!(r#""size_bytes":{}"#, u64::from(parts) * PART_BYTES);
    for line in lines.take_while(|line| !line.contains(r#""record":"part""#)) {
        let (_, json) = line.split_once(' ').expect("a sum and a record");
        text += &manifest_line(&json.replace(EXAMPLE_SIZE, &size));
    }
    for number in 1..=parts {
        let etag = format!(r#"\"{number:032x}\""#);
        text += &manifest_line(&format!(
            r#"{{"record":"part","number":{number},"sum":"q83vEg==","etag":"{etag}"}}"#
        ));
    }
    text.into_bytes()
}

fn manifests(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("read a manifest");
    for parts in PARTS {
        let bytes = of_parts(parts);
        let found = decode(&bytes).expect("sound").manifest.expect("of a transfer");
        assert_eq!(found.parts.len(), parts as usize);
        group.throughput(Throughput::Elements(parts.into()));
        group.bench_function(BenchmarkId::new("parts", parts), |bencher| {
            bencher.iter(|| decode(black_box(&bytes)).expect("sound"));
        });
    }
    group.finish();
}

criterion_group!(benches, manifests);
criterion_main!(benches);
