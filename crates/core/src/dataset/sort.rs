//! Sorting more entries than memory holds, on disk.
//!
//! Entries are gathered up to a budget, sorted, and written as one run after another to one file that has
//! no name any more, so that nothing is left behind however this ends. At the end the runs are merged,
//! a block of each in memory. It is for stores that list out of order and for giant folders: whoever has fewer entries than
//! the budget never touches the disk.
//!
//! The file: blocks, each a length and a CRC32 (both `u32`, little-endian) and then whole records. A disk that gives back
//! other bytes than it took must not make a sync delete what it should keep.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::OFlags;

use super::entry::Entry;
use super::record;
use crate::error::{Error, ErrorKind, Result};
use crate::limits::MIB;

const OPERATION: &str = "sort names in";

/// About how large a block is, bytes: one of each run is in memory while runs are merged, so that 64 MiB are
/// enough for a thousand runs, which is 64 GiB of entries.
const BLOCK_BYTES: usize = 64 << 10;

/// How entries are sorted.
///
/// ```
/// use brigade::dataset::SortOptions;
///
/// let options = SortOptions { folder: "/data/scratch".into(), ..SortOptions::default() };
/// assert_eq!(options.budget_bytes, 64 << 20);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SortOptions {
    /// Memory for entries before they go to disk, bytes, roughly; at least one entry is held. Merging takes 64 KiB for each
    /// time it was filled.
    pub budget_bytes: u64,
    /// Where to write them: a folder on a disk with room for all of them, about 100 bytes each.
    pub folder: PathBuf,
}

impl Default for SortOptions {
    /// 64 MiB; `/var/tmp`, since `/tmp` is often memory.
    fn default() -> Self {
        Self { budget_bytes: 64 * MIB, folder: "/var/tmp".into() }
    }
}

/// Takes entries in any order. Calls block on the disk.
///
/// ```
/// use brigade::dataset::{SortOptions, Sorter};
///
/// let mut sorter = Sorter::new(SortOptions::default());
/// for name in ["b", "a-", "a/x"] {
///     let mut entry = brigade::Entry::default();
///     entry.name = name.into();
///     sorter.push(entry)?;
/// }
/// let names: Vec<_> = sorter.finish()?.map(|entry| entry.map(|e| e.name)).collect::<Result<_, _>>()?;
/// assert_eq!(names, ["a-", "a/x", "b"]);
/// # Ok::<(), brigade::Error>(())
/// ```
#[derive(Debug)]
pub struct Sorter {
    options: SortOptions,
    held: Vec<Entry>,
    held_bytes: u64,
    spill: Option<Spill>,
}

/// The file with the runs.
#[derive(Debug)]
struct Spill {
    file: File,
    end: u64,
    /// Where each run ends; the first begins at 0.
    runs: Vec<u64>,
}

impl Sorter {
    /// One that has nothing yet.
    pub fn new(options: SortOptions) -> Self {
        Self { options, held: Vec::new(), held_bytes: 0, spill: None }
    }

    /// Takes one entry.
    ///
    /// # Errors
    ///
    /// What the disk says, [`ErrorKind::DiskFull`] included.
    pub fn push(&mut self, entry: Entry) -> Result<()> {
        self.held_bytes += in_memory(&entry);
        self.held.push(entry);
        if self.held_bytes > self.options.budget_bytes {
            self.spill().map_err(|source| Error::io(OPERATION, &self.options.folder, source))?;
        }
        Ok(())
    }

    /// Gives all of them in the byte order of their names; those with the same name in the order in which they came.
    ///
    /// # Errors
    ///
    /// As [`Sorter::push`]; the same while they are read.
    pub fn finish(mut self) -> Result<Sorted> {
        self.held.sort_by(|a, b| a.name.cmp(&b.name));
        let mut sorted = Sorted { heads: BinaryHeap::new(), runs: Vec::new(), failed: false };
        let mut begin = 0;
        if let Some(spill) = self.spill {
            let file = Arc::new(spill.file);
            for end in spill.runs {
                let at = Place { file: Arc::clone(&file), at: begin, end };
                let folder = self.options.folder.clone();
                sorted.runs.push(Run::Disk { place: at, block: Vec::new(), read: 0, folder });
                begin = end;
            }
        }
        sorted.runs.push(Run::Memory(self.held.into_iter()));
        for run in 0..sorted.runs.len() {
            sorted.pull(run)?;
        }
        Ok(sorted)
    }

    fn spill(&mut self) -> io::Result<()> {
        self.held.sort_by(|a, b| a.name.cmp(&b.name));
        let spill = match &mut self.spill {
            Some(spill) => spill,
            none => none.insert(Spill {
                file: unnamed(&self.options.folder)?,
                end: 0,
                runs: Vec::new(),
            }),
        };
        let mut block = vec![0; 8];
        for entry in self.held.drain(..) {
            record::encode(&entry, &mut block);
            if block.len() >= BLOCK_BYTES {
                spill.write(&mut block)?;
            }
        }
        spill.write(&mut block)?;
        spill.runs.push(spill.end);
        self.held_bytes = 0;
        Ok(())
    }
}

impl Spill {
    /// Writes a block whose first 8 bytes are for what is said of it, and leaves it with only those.
    fn write(&mut self, block: &mut Vec<u8>) -> io::Result<()> {
        if block.len() > 8 {
            let length = u32::try_from(block.len() - 8).map_err(io::Error::other)?;
            let sum = crc32fast::hash(&block[8..]);
            block[..4].copy_from_slice(&length.to_le_bytes());
            block[4..8].copy_from_slice(&sum.to_le_bytes());
            self.file.write_all(block)?;
            self.end += block.len() as u64;
            block.truncate(8);
        }
        Ok(())
    }
}

/// What an entry takes while it is held, bytes, the allocator's share included.
fn in_memory(entry: &Entry) -> u64 {
    let text = |text: &Option<String>| text.as_ref().map_or(0, |text| text.capacity() + 16);
    let strings = entry.name.capacity() + 16 + text(&entry.etag) + text(&entry.storage_class);
    (size_of::<Entry>() + strings) as u64
}

/// A file in `folder` that no name leads to.
fn unnamed(folder: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    let flags = OFlags::TMPFILE.bits().cast_signed();
    match options.clone().custom_flags(flags).open(folder) {
        // Some network file systems have no such files.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR)) => {
            let tag = (0..16).map(|_| fastrand::alphanumeric()).collect::<String>();
            let path = folder.join(format!(".brigade-sort-{tag}"));
            let file = options.create_new(true).open(&path)?;
            std::fs::remove_file(&path)?;
            Ok(file)
        }
        opened => opened,
    }
}

/// The entries in order. It blocks on the disk where they went there, and after an error it ends.
#[derive(Debug)]
pub struct Sorted {
    /// The next entry of each run.
    heads: BinaryHeap<Head>,
    runs: Vec<Run>,
    failed: bool,
}

/// One sorted run.
#[derive(Debug)]
enum Run {
    Memory(std::vec::IntoIter<Entry>),
    Disk { place: Place, block: Vec<u8>, read: usize, folder: PathBuf },
}

/// What is left of a run on disk.
#[derive(Debug)]
struct Place {
    file: Arc<File>,
    at: u64,
    end: u64,
}

#[derive(Debug)]
struct Head {
    entry: Entry,
    run: usize,
}

impl Iterator for Sorted {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let Head { entry, run } = self.heads.pop()?;
        Some(self.pull(run).map(|()| entry).inspect_err(|_| self.failed = true))
    }
}

impl Sorted {
    fn pull(&mut self, run: usize) -> Result<()> {
        if let Some(entry) = self.runs[run].next()? {
            self.heads.push(Head { entry, run });
        }
        Ok(())
    }
}

impl Run {
    fn next(&mut self) -> Result<Option<Entry>> {
        match self {
            Self::Memory(entries) => Ok(entries.next()),
            Self::Disk { place, block, read, folder } => {
                let failed = |source| Error::io(OPERATION, folder, source);
                if *read == block.len() {
                    *read = 0;
                    if !place.block(block).map_err(failed)? {
                        return Ok(None);
                    }
                }
                let (entry, length) = record::decode(&block[*read..]).ok_or_else(|| {
                    let detail = "a record was read that was not written";
                    Error::new(ErrorKind::Io, OPERATION, folder.display().to_string(), detail)
                })?;
                *read += length;
                Ok(Some(entry))
            }
        }
    }
}

impl Place {
    /// Reads the next block into `block`; whether there was one.
    fn block(&mut self, block: &mut Vec<u8>) -> io::Result<bool> {
        block.clear();
        if self.at == self.end {
            return Ok(false);
        }
        let mut head = [0; 8];
        self.file.read_exact_at(&mut head, self.at)?;
        let said = u64::from_le_bytes(head);
        let (length, sum) = (said & u64::from(u32::MAX), said >> 32);
        let next = self.at + 8 + length;
        let damaged = || io::Error::other("the disk gave back other bytes than were written");
        if next > self.end {
            return Err(damaged());
        }
        block.resize(usize::try_from(length).map_err(io::Error::other)?, 0);
        self.file.read_exact_at(block, self.at + 8)?;
        if u64::from(crc32fast::hash(block)) != sum {
            return Err(damaged());
        }
        self.at = next;
        Ok(true)
    }
}

// The heap gives its greatest first, which should be the first name, of the first run that has it.
impl Ord for Head {
    fn cmp(&self, other: &Self) -> Ordering {
        other.entry.name.cmp(&self.entry.name).then_with(|| other.run.cmp(&self.run))
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Head {}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use proptest::prelude::*;

    use super::*;

    fn entry(name: &str, size_bytes: u64) -> Entry {
        Entry { name: name.into(), size_bytes, ..Entry::default() }
    }

    fn sorter(budget_bytes: u64, folder: &Path) -> Sorter {
        Sorter::new(SortOptions { budget_bytes, folder: folder.into() })
    }

    #[test]
    fn nothing_is_left_in_the_folder_and_small_jobs_never_write_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut spilling = sorter(500, folder.path());
        for name in 0..100 {
            spilling.push(entry(&format!("{name:03}"), name)).expect("room");
            assert_eq!(folder.path().read_dir().expect("readable").count(), 0);
        }
        assert!(spilling.spill.as_ref().is_some_and(|spill| spill.runs.len() > 10));
        assert_eq!(spilling.finish().expect("readable").count(), 100);
        let mut small = sorter(1 << 20, Path::new("/nonexistent"));
        small.push(entry("a", 1)).expect("memory is enough");
        assert_eq!(small.finish().expect("nothing to read").count(), 1);
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let mut sorter = sorter(0, Path::new("/nonexistent"));
        let error = sorter.push(entry("a", 1)).expect_err("no folder");
        assert_eq!(
            error.to_string(),
            "sort names in /nonexistent: no such file or directory; check the path"
        );
    }

    #[test]
    fn a_full_disk_is_told_as_such() {
        let mut full = sorter(0, Path::new("/"));
        let file = OpenOptions::new().read(true).write(true).open("/dev/full").expect("Linux");
        full.spill = Some(Spill { file, end: 0, runs: Vec::new() });
        let error = full.push(entry("a", 1)).expect_err("no room");
        assert_eq!(error.kind(), ErrorKind::DiskFull);
    }

    #[test]
    fn a_flipped_bit_on_disk_ends_it_with_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut sorter = sorter(20_000, folder.path());
        for name in 0..1000 {
            sorter.push(entry(&format!("{name:04}"), name)).expect("room");
        }
        let spill = sorter.spill.as_ref().expect("spilled");
        let last = spill.end - 3;
        let mut byte = [0];
        spill.file.read_exact_at(&mut byte, last).expect("written");
        spill.file.write_all_at(&[byte[0] ^ 4], last).expect("writable");
        let told = sorter.finish().and_then(Iterator::collect::<Result<Vec<_>>>);
        let told = told.expect_err("damaged").to_string();
        assert!(told.contains("other bytes than were written"), "{told}");
    }

    #[test]
    fn the_same_name_keeps_the_order_in_which_it_came() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut sorter = sorter(1000, folder.path());
        for size in 0..50 {
            sorter.push(entry("same", size)).expect("room");
        }
        let sizes =
            sorter.finish().expect("readable").map(|entry| entry.expect("sound").size_bytes);
        assert!(sizes.eq(0..50));
    }

    fn any_entry() -> impl Strategy<Value = Entry> {
        let time = prop::option::of((-5_000_000_000_i64..5_000_000_000, 0_u32..1_000_000_000));
        let etag = prop::option::of("\"[0-9a-f]{0,32}\"");
        ("[ab/\\-é]{0,6}", any::<u64>(), time, etag, prop::option::of("[A-Z]{1,8}")).prop_map(
            |(name, size_bytes, time, etag, storage_class)| Entry {
                name,
                size_bytes,
                modified: time.map(|(s, ns)| {
                    let far = Duration::from_secs(s.unsigned_abs());
                    let base = SystemTime::UNIX_EPOCH;
                    (if s < 0 { base - far } else { base + far }) + Duration::from_nanos(ns.into())
                }),
                etag,
                storage_class,
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn on_disk_or_not_it_is_a_stable_sort(
            entries in prop::collection::vec(any_entry(), 0..60), budget in 0_u64..4000,
        ) {
            let folder = tempfile::tempdir().expect("a folder");
            let mut sorter = sorter(budget, folder.path());
            for entry in entries.clone() {
                sorter.push(entry).expect("room");
            }
            let sorted = sorter.finish().and_then(Iterator::collect::<Result<Vec<_>>>).expect("sound");
            let mut expected = entries;
            expected.sort_by(|a, b| a.name.as_bytes().cmp(b.name.as_bytes()));
            prop_assert_eq!(sorted, expected);
        }
    }
}
