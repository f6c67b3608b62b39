//! What the disk itself can do: direct reads and writes by a few threads, and reads through the page cache.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::fs::{Advice, FallocateFlags, OFlags};

use crate::Json;
use crate::connection::bounded;
use crate::measure::Clock;

/// Moved with one call.
const BLOCK_BYTES: usize = 4 << 20;

/// Direct I/O needs memory and offsets aligned to the disk's sectors; a page is enough everywhere.
const ALIGNMENT_BYTES: usize = 4096;

/// Threads, and so requests in flight, that are tried.
const DEPTHS: [u64; 4] = [1, 2, 3, 4];

/// Writes `size` bytes, for every depth into the same file, preallocated anew.
pub(crate) fn write(file: &Path, size: u64) -> Result<Json> {
    let aligned = size.is_multiple_of(ALIGNMENT_BYTES as u64);
    ensure!(
        aligned,
        "direct writes come in multiples of {ALIGNMENT_BYTES} bytes, which {size} is not"
    );
    let mut runs = Vec::new();
    for depth in DEPTHS {
        let target = direct(OpenOptions::new().write(true).create(true).truncate(true), file)?;
        rustix::fs::fallocate(&target, FallocateFlags::empty(), 0, size)?;
        let clock = Clock::start();
        in_blocks(depth, size, |buffer, offset| {
            // Different everywhere: some disks notice zeroes and repetition.
            for (index, page) in buffer.chunks_mut(ALIGNMENT_BYTES).enumerate() {
                page[..8].copy_from_slice(&(offset + index as u64).to_le_bytes());
            }
            Ok(target.write_all_at(buffer, offset)?)
        })?;
        target.sync_all()?;
        runs.push((depth, clock.stop(size)));
    }
    Ok(told(runs))
}

/// Reads the whole file: for every depth past the page cache, or once through an emptied one.
pub(crate) fn read(file: &Path, buffered: bool) -> Result<Json> {
    let plain = File::open(file).with_context(|| format!("cannot open {}", file.display()))?;
    let size = plain.metadata()?.len();
    if buffered {
        // Only what is on disk already can be dropped.
        plain.sync_all()?;
        rustix::fs::fadvise(&plain, 0, None, Advice::DontNeed)?;
        let clock = Clock::start();
        in_blocks(1, size, |buffer, offset| Ok(plain.read_exact_at(buffer, offset)?))?;
        return Ok(told(vec![(1, clock.stop(size))]));
    }
    let mut runs = Vec::new();
    for depth in DEPTHS {
        let source = direct(OpenOptions::new().read(true), file)?;
        let clock = Clock::start();
        in_blocks(depth, size, |buffer, offset| Ok(source.read_exact_at(buffer, offset)?))?;
        runs.push((depth, clock.stop(size)));
    }
    Ok(told(runs))
}

fn direct(options: &mut OpenOptions, file: &Path) -> Result<File> {
    let flags = OFlags::DIRECT.bits().cast_signed();
    options
        .custom_flags(flags)
        .open(file)
        .with_context(|| format!("cannot open {} for direct I/O", file.display()))
}

fn told(runs: Vec<(u64, Json)>) -> Json {
    let runs: Vec<Json> = runs.into_iter().map(|(depth, run)| run.number("depth", depth)).collect();
    Json::default().list("runs", &runs)
}

/// Calls `job` with an aligned buffer for each block, by `depth` threads.
fn in_blocks(
    depth: u64,
    size: u64,
    job: impl Fn(&mut [u8], u64) -> Result<()> + Sync,
) -> Result<()> {
    let next = AtomicU64::new(0);
    let work = || -> Result<()> {
        let mut memory = vec![0x5a; BLOCK_BYTES + ALIGNMENT_BYTES];
        let start = memory.as_ptr().align_offset(ALIGNMENT_BYTES);
        let buffer = &mut memory[start..start + BLOCK_BYTES];
        loop {
            let offset = next.fetch_add(BLOCK_BYTES as u64, Ordering::Relaxed);
            if offset >= size {
                return Ok(());
            }
            job(&mut buffer[..bounded(size - offset, BLOCK_BYTES)], offset)?;
        }
    };
    thread::scope(|scope| {
        let running: Vec<_> = (0..depth).map(|_| scope.spawn(work)).collect();
        running.into_iter().try_for_each(|worker| match worker.join() {
            Ok(ended) => ended,
            Err(_) => bail!("a thread panicked"),
        })
    })
}
