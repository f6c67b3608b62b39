//! The manifest's decoder, with bytes that nobody wrote.
//!
//! Each input is decoded as it is, and once more with the right checksum put before every line: without
//! that a fuzzer would not get past the first one, and never see what JSON the records are made of. Whatever
//! is decoded has to be sound: no parts outside the plan, no more claimed than there is, and the same again
//! from the bytes that were good.
//!
//! From this folder, with the manifests that the unit tests read as seeds:
//!
//!     mkdir -p corpus/manifest
//!     cargo +nightly fuzz run --sanitizer none manifest corpus/manifest ../../crates/core/tests/manifests \
//!         -- -dict=manifest.dict -max_total_time=120
//!
//! No sanitizer, because there is no `unsafe` on the way.

#![no_main]

use brigade::manifest::{Decoded, decode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    check(&sealed(bytes));
});

/// Decodes, and holds what comes of it against what is promised.
fn check(bytes: &[u8]) {
    let Ok(Decoded { manifest, valid_bytes, .. }) = decode(bytes) else { return };
    assert!(valid_bytes <= bytes.len());
    if let Some(manifest) = &manifest {
        let plan = manifest.plan();
        assert_eq!(plan.size_bytes(), manifest.transfer.size_bytes);
        assert!(manifest.parts.keys().all(|number| plan.part(*number).is_some()));
        assert!(manifest.claimed_bytes() <= plan.size_bytes());
        let _ = (manifest.transfer.path(), manifest.transfer.operation());
    }
    // What was good stays good when the torn tail is cut off.
    let again = decode(&bytes[..valid_bytes]).expect("it was good");
    assert_eq!((again.manifest, again.valid_bytes), (manifest, valid_bytes));
}

/// The same lines, each with the checksum of what stands where its JSON does.
fn sealed(bytes: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(bytes.len() + 16);
    for (number, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        match line.split_at_checked("00000000 ".len()) {
            Some((_, json)) if number > 0 && json.ends_with(b"\n") => {
                let sum = crc32fast::hash(&json[..json.len() - 1]);
                sealed.extend(format!("{sum:08x} ").into_bytes());
                sealed.extend(json);
            }
            _ => sealed.extend(line),
        }
    }
    sealed
}
