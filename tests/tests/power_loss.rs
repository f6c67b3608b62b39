//! What a power cut leaves of a transfer's files, and that it goes on from there, or says why not.
//!
//! A process that dies takes nothing from what it wrote; a machine that loses power does. Until a file is
//! synced, a disk may have kept any of its blocks, in any order, and any length of it. So a transfer is
//! killed, and what it left is damaged as a disk might have, in a way that follows from a seed: every case
//! knows exactly what is left to go on with, and that is what must be kept, and nothing else.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use brigade::Unfinished;
use brigade::manifest::{Damage, Manifest, decode};
use brigade_tests::cli::{BUCKET, PART, Run, Sandbox, eventually};
use brigade_tests::files;
use brigade_tests::relay::{Fate, Relay, Request};
use fastrand::Rng;
use futures::executor::block_on;
use rustix::process::Signal;

const DOWNLOADS: u64 = 48;

const UPLOADS: u64 = 24;

/// What a file system keeps or loses of a file as one.
const BLOCK_BYTES: usize = 4096;

/// What a disk does: a block that is appended to again and again may be there in part.
const SECTOR_BYTES: usize = 512;

/// Small, so that the manifest is several blocks long.
const RANGE_BYTES: usize = 64 << 10;

const DOWN: &str = "s3://bucket/f copy --part-size 64KiB --concurrency 4";

const UP: &str = "f s3://bucket/f --part-size 5MiB --concurrency 10";

/// Enough for their records to be longer than a sector.
const UP_PARTS: u32 = 10;

const SOON: Duration = Duration::from_secs(20);

/// What a case came to, counted, so that no kind of them goes missing unnoticed.
#[derive(Debug, Default)]
struct Tally {
    /// Went on with something.
    resumed: u32,
    /// Nothing was left to go on with.
    anew: u32,
    /// The manifest could not be used.
    refused: u32,
}

#[test]
fn a_download_survives_whatever_a_disk_forgets() {
    let sandbox = Sandbox::new();
    let source = sandbox.file("f", (8 << 20) + 12_345);
    let whole = std::fs::read(&source).expect("there");
    let ranges = whole.len().div_ceil(RANGE_BYTES);
    sandbox.cp("f s3://bucket/f").run().succeeded();
    let relay = Relay::slow(sandbox.store(), 4 << 20);
    let running = sandbox.cp(DOWN).endpoint(relay.url()).start();
    // The manifest is longer than a block by then, and the rest takes long enough to be killed in.
    eventually("most of it is done", SOON, || sandbox.recorded_parts() >= ranges * 2 / 3);
    running.signal(Signal::KILL);
    assert_eq!(running.wait().code(), -9);
    relay.hurry();
    let left = Left::behind(&sandbox);
    let length = left.manifest.len();
    assert!(length > BLOCK_BYTES, "{length} bytes are too short to lose a block of");

    let mut tally = Tally::default();
    for seed in 0..DOWNLOADS {
        let mut random = Rng::with_seed(seed);
        // Nothing of a download is synced before it is whole, not even the names.
        let partial = lose_blocks(&mut random, &left.partial);
        let manifest = lose_records(&mut random, &left.manifest, 0);
        left.put_back(partial.as_deref(), manifest.as_deref(), random.u8(..) < 230);
        let context = format!("download, seed {seed}");
        let asked = relay.count("GetObject");
        let again = || sandbox.cp(DOWN).args(["--json"]).endpoint(relay.url());
        let found = match decode(manifest.as_deref().unwrap_or_default()) {
            Ok(decoded) => decoded.manifest,
            Err(damage) => {
                let run = again().run();
                check_refusal(&run, &left.manifest_path, &damage, &context);
                // Somebody may still want it.
                let kept = std::fs::read(&left.manifest_path).expect("there");
                assert_eq!(Some(kept), manifest, "{context}");
                again().args(["--no-resume"]).run().report();
                tally.refused += 1;
                check(&sandbox, &source, &context);
                continue;
            }
        };
        let good = intact(found.as_ref(), partial, &whole);
        let report = again().run().report();
        assert_eq!(report["verified"], "full-object", "{context}: {report}");
        let good_bytes: usize = good.iter().map(Range::len).sum();
        assert_eq!(report["resumed_bytes"], good_bytes, "{context}: {report}");
        let fetched = relay.count("GetObject") - asked;
        assert_eq!(fetched, ranges - good.len(), "{context}: {report}");
        *(if good.is_empty() { &mut tally.anew } else { &mut tally.resumed }) += 1;
        check(&sandbox, &source, &context);
    }
    println!("downloads: {tally:?}");
    assert!(tally.resumed >= 12 && tally.anew >= 4 && tally.refused >= 4, "{tally:?}");
}

#[test]
fn an_upload_survives_whatever_a_disk_forgets() {
    let sandbox = Sandbox::new();
    let cut = Arc::new(Mutex::new(None));
    let rule = Arc::clone(&cut);
    let relay = Relay::new(sandbox.store(), move |request| {
        rule.lock().expect("no panic").as_ref().map_or(Fate::Pass, |cut: &Cut| cut.fate(request))
    });
    let size_bytes = u64::from(UP_PARTS - 1) * PART + 77;
    let mut tally = Tally::default();
    for seed in 0..UPLOADS {
        let mut random = Rng::with_seed(seed);
        let context = format!("upload, seed {seed}");
        // Other bytes in every case, so that the object of the one before is not taken for it.
        let source = sandbox.path("f");
        files::make(&source, size_bytes, seed);
        let passing = die_half_way(&sandbox, &relay, &cut, &mut random);
        let found = Left::found(&sandbox);
        let upload_id = found.manifest.upload_id.expect("an upload");
        let whole = std::fs::read(&found.path).expect("there");
        assert_eq!(found.manifest.parts.len(), passing, "{context}");

        // What was synced before the first part was sent is there: the transfer, the intent, the id.
        let synced = whole.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
        let synced = synced.map(|(at, _)| at + 1).nth(3).expect("four lines");
        let manifest = lose_records(&mut random, &whole, synced).expect("its name was synced");
        std::fs::write(&found.path, &manifest).expect("written");
        let seen = relay.seen().len();
        let again = || sandbox.cp(UP).args(["--json"]).endpoint(relay.url());
        match decode(&manifest) {
            Err(damage) => {
                let run = again().run();
                check_refusal(&run, &found.path, &damage, &context);
                again().args(["--no-resume"]).run().report();
                // Nobody could tell it from the upload of somebody else.
                let object = sandbox.session().bucket(BUCKET).object("f");
                block_on(object.abort_upload(&upload_id)).expect("aborted");
                tally.refused += 1;
            }
            Ok(decoded) => {
                let known = decoded.manifest.expect("synced");
                let report = again().run().report();
                assert_eq!(report["verified"], "full-object", "{context}: {report}");
                let resumed = report["resumed_bytes"].as_u64().expect("a number");
                assert!(resumed >= known.claimed_bytes(), "{context}: {report}");
                let sent: BTreeSet<_> =
                    relay.seen()[seen..].iter().filter_map(Request::part_number).collect();
                let again = sent.iter().find(|number| known.parts.contains_key(number));
                assert_eq!(again, None, "{context}: it was recorded as sent");
                assert_eq!(known.upload_id.as_ref(), Some(&upload_id), "{context}");
                *(if known.parts.is_empty() { &mut tally.anew } else { &mut tally.resumed }) += 1;
            }
        }
        sandbox.cp("s3://bucket/f copy").run().succeeded();
        check(&sandbox, &source, &context);
    }
    println!("uploads: {tally:?}");
    assert!(tally.resumed >= 4 && tally.anew >= 1 && tally.refused >= 1, "{tally:?}");
}

/// It names the manifest, says what is wrong with it, and what can be done.
fn check_refusal(run: &Run, manifest: &Path, damage: &Damage, context: &str) {
    assert_eq!(run.code(), 1, "{context}: {run}");
    let name = manifest.file_name().expect("a name").to_string_lossy();
    for part in [&*name, &*damage.to_string(), "start over with --no-resume"] {
        assert!(run.stderr.contains(part), "{context}: it does not say {part:?}: {run}");
    }
}

/// The copy is right, nothing else is left, and the copy goes.
fn check(sandbox: &Sandbox, source: &Path, context: &str) {
    println!("{context}: done");
    let copy = sandbox.path("copy");
    files::assert_same(source, &copy);
    sandbox.assert_clean();
    std::fs::remove_file(copy).expect("there");
}

/// What a killed download left.
struct Left {
    partial_path: PathBuf,
    partial: Vec<u8>,
    manifest_path: PathBuf,
    manifest: Vec<u8>,
    /// In the folder of manifests.
    link: PathBuf,
}

impl Left {
    /// Takes it away.
    fn behind(sandbox: &Sandbox) -> Self {
        let found = Self::found(sandbox);
        let partial_path = found.partial().expect("a download");
        let mut links = std::fs::read_dir(sandbox.manifests()).expect("a folder");
        let left = Self {
            partial: std::fs::read(&partial_path).expect("there"),
            partial_path,
            manifest: std::fs::read(&found.path).expect("there"),
            manifest_path: found.path,
            link: links.next().expect("one").expect("an entry").path(),
        };
        for path in [&left.partial_path, &left.manifest_path, &left.link] {
            std::fs::remove_file(path).expect("there");
        }
        left
    }

    /// The one transfer that is recorded.
    fn found(sandbox: &Sandbox) -> Unfinished {
        let found = brigade::unfinished(&sandbox.manifests()).expect("a folder");
        found.into_iter().next().expect("one").expect("readable")
    }

    /// Makes it so that this is what is there.
    fn put_back(&self, partial: Option<&[u8]>, manifest: Option<&[u8]>, has_link: bool) {
        let put = |path: &Path, bytes: Option<&[u8]>| {
            if let Some(bytes) = bytes {
                std::fs::write(path, bytes).expect("written");
            }
        };
        put(&self.partial_path, partial);
        put(&self.manifest_path, manifest);
        if has_link {
            std::os::unix::fs::symlink(&self.manifest_path, &self.link).expect("linked");
        }
    }
}

/// What may be left of a file whose blocks were written and never synced. `None`: not even its name.
fn lose_blocks(random: &mut Rng, written: &[u8]) -> Option<Vec<u8>> {
    if random.u8(..) < 16 {
        return None;
    }
    let mut left = written.to_vec();
    let share = random.choice([0.0, 0.002, 0.02, 0.3, 1.0]).unwrap_or_default();
    for block in left.chunks_mut(BLOCK_BYTES) {
        if random.f64() < share {
            // Never written; or as it was before, which nobody knows.
            if random.bool() { block.fill(0) } else { random.fill(block) }
        }
    }
    match random.u8(..4) {
        0 => left.truncate(random.usize(..=written.len())),
        1 => left.truncate(random.usize(..=written.len()) / BLOCK_BYTES * BLOCK_BYTES),
        _ => {}
    }
    Some(left)
}

/// What may be left of a file that was appended to, of which so much was synced. `None`: not even its
/// name.
fn lose_records(random: &mut Rng, written: &[u8], synced: usize) -> Option<Vec<u8>> {
    let mut left = written.to_vec();
    let somewhere = random.usize(synced..=written.len());
    let mut forget = |from: usize, to: usize| {
        let to = to.clamp(synced, written.len());
        left[from.clamp(synced, to)..to].fill(0);
    };
    match random.u8(..9) {
        0 if synced == 0 => return None,
        0 | 1 => {}
        // It ends there, in the middle of a record most likely.
        2 | 3 => left.truncate(somewhere),
        // It is as long as it was, and what follows never got to the disk.
        4 => forget(somewhere, written.len()),
        5 => {
            let blocks = written.len() / BLOCK_BYTES;
            forget(random.usize(..=blocks) * BLOCK_BYTES, written.len());
        }
        // Grown in advance.
        6 => left.resize(written.len().next_multiple_of(BLOCK_BYTES) + BLOCK_BYTES, 0),
        // Later ones did.
        _ => {
            let grain = if synced == 0 { BLOCK_BYTES } else { SECTOR_BYTES };
            let start = somewhere / grain * grain;
            forget(start, start + grain);
        }
    }
    Some(left)
}

/// The ranges that are recorded and whose bytes are there.
fn intact(found: Option<&Manifest>, partial: Option<Vec<u8>>, whole: &[u8]) -> Vec<Range<usize>> {
    let (Some(found), Some(mut partial)) = (found, partial) else { return Vec::new() };
    partial.resize(whole.len(), 0);
    let ranges = found.parts.keys().map(|number| {
        let start = (*number as usize - 1) * RANGE_BYTES;
        start..whole.len().min(start + RANGE_BYTES)
    });
    ranges.filter(|range| partial[range.clone()] == whole[range.clone()]).collect()
}

/// When an upload is to die: what becomes of its parts until then.
struct Cut {
    /// The store gets them, and nobody ever hears of it.
    unheard: BTreeSet<u32>,
    /// They never get there.
    lost: BTreeSet<u32>,
}

impl Cut {
    fn fate(&self, request: &Request) -> Fate {
        match request.part_number() {
            Some(number) if self.unheard.contains(&number) => Fate::HangReply,
            Some(number) if self.lost.contains(&number) => Fate::Hang,
            _ => Fate::Pass,
        }
    }
}

/// Kills an upload when some of its parts were acknowledged; gives how many.
fn die_half_way(
    sandbox: &Sandbox,
    relay: &Relay,
    cut: &Mutex<Option<Cut>>,
    random: &mut Rng,
) -> usize {
    let mut numbers: Vec<_> = (1..=UP_PARTS).collect();
    random.shuffle(&mut numbers);
    let passing = random.usize(1..numbers.len());
    let rest = numbers.split_off(passing);
    let (unheard, lost) = rest.split_at(random.usize(..=rest.len()));
    let new =
        Cut { unheard: unheard.iter().copied().collect(), lost: lost.iter().copied().collect() };
    *cut.lock().expect("no panic") = Some(new);
    let running = sandbox.cp(UP).endpoint(relay.url()).start();
    eventually("what passes is recorded", SOON, || sandbox.recorded_parts() == passing);
    running.signal(Signal::KILL);
    assert_eq!(running.wait().code(), -9);
    *cut.lock().expect("no panic") = None;
    passing
}
