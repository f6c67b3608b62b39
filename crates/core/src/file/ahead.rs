//! Having a source's parts in memory before anybody touches them, and not for longer than needed.
//!
//! A page that is not in memory is read when it is touched, and meanwhile nothing else happens on the
//! lane: its other connections wait for the disk as well, and the disk has one request at a time. So
//! a few threads read parts ahead, and whoever wants such a part waits without blocking.
//!
//! A part of a large file that is not in memory is read past the page cache and held until the store
//! has it. Where that cannot be, or memory is short because many parts are on their way over a slow
//! network, the kernel reads it into the page cache, and it is dropped from there afterwards. Both
//! keep in memory what others use; and what is used again at once is cheaper to fill than what the
//! kernel has to search for, or a virtual machine has to get from its host.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::Advice;
use tokio::sync::Semaphore;

use super::aligned::Buffers;
use super::direct::{self, LARGE_BYTES};
use super::held::Held;
use super::residence::Residence;
use crate::options::DirectIo;
use crate::plan::Part;

/// Parts of a file that are read at a time. One leaves the disk idle between it and the next.
const PARTS_AT_ONCE: usize = 2;

/// How far ahead of what has arrived the kernel is asked for more of a part.
const AHEAD_BYTES: u64 = 4 << 20;

/// Bytes asked for in one call. The kernel reads no more for one than the disk's read-ahead is long,
/// which is this unless somebody has changed it, and silently leaves out the rest.
const STEP_BYTES: u64 = 128 * 1024;

/// A file that is shorter comes with one request to the disk, which asking first would only delay.
const WORTH_ASKING_BYTES: u64 = 1 << 20;

/// Pages of a part that are asked about: the kernel mostly keeps and drops long runs of them.
const SAMPLES: u64 = 16;

/// Reads one file ahead.
#[derive(Debug)]
pub(super) struct Ahead {
    file: Arc<File>,
    direct: Option<Arc<File>>,
    buffers: Buffers,
    residence: Residence,
    reading: Semaphore,
    forgets: bool,
}

/// What was done to have a part in memory.
#[derive(Debug)]
pub(super) enum Brought<M> {
    /// Nothing, or nothing that has to be undone.
    There,
    /// It was read into the page cache, and shall be [forgotten](Ahead::forget) in the end.
    Cached,
    /// It was read past the page cache, into this much memory.
    Held(Held, M),
}

impl Ahead {
    /// For the open `file` at `path`, of `size_bytes`. `None` where that is not wanted, or not possible.
    pub(super) fn new(
        file: &Arc<File>,
        path: &Path,
        size_bytes: u64,
        how: DirectIo,
    ) -> Option<Self> {
        let forgets = match how {
            DirectIo::Off => return None,
            DirectIo::On => true,
            DirectIo::Auto => size_bytes >= LARGE_BYTES,
        };
        if size_bytes < WORTH_ASKING_BYTES {
            return None;
        }
        let residence = Residence::of(file, size_bytes)?;
        let direct = direct::is_wanted(file, size_bytes, how)
            .then(|| direct::open(file, path, false).ok().map(Arc::new))
            .flatten();
        let (file, reading) = (Arc::clone(file), Semaphore::new(PARTS_AT_ONCE));
        Some(Self { file, direct, buffers: Buffers::default(), residence, reading, forgets })
    }

    /// Waits until the part is in memory, as far as that can be had: whoever reads it afterwards finds
    /// out about a disk that fails. It is held in what `memory` gives, if that gives any. Also gives
    /// whether anything had to be read.
    pub(super) async fn bring<M>(
        &self,
        part: Part,
        memory: impl FnOnce() -> Option<M>,
    ) -> (Brought<M>, bool) {
        let step = (part.len_bytes / SAMPLES).max(1);
        let samples = (0..SAMPLES.min(part.len_bytes)).map(|i| part.offset_bytes + i * step);
        let (mut any, mut all) = (false, true);
        for resident in samples.map(|at| self.residence.has(at).unwrap_or(true)) {
            any |= resident;
            all &= resident;
        }
        if all {
            return (Brought::There, false);
        }
        // Never closed: that cannot fail.
        let _permit = self.reading.acquire().await;
        if let Some(direct) = self.direct.as_ref().filter(|_| !any)
            && let Some(memory) = memory()
            && let Ok(held) = Held::read(direct, &self.buffers, part).await
        {
            return (Brought::Held(held, memory), true);
        }
        let file = Arc::clone(&self.file);
        let _ = tokio::task::spawn_blocking(move || read_ahead(&file, part)).await;
        (if self.forgets && !any { Brought::Cached } else { Brought::There }, true)
    }

    /// Drops the part's pages from memory, but for those that somebody else has mapped.
    pub(super) fn forget(&self, part: Part) {
        let len = std::num::NonZeroU64::new(part.len_bytes);
        // Advice may be refused.
        let _ = rustix::fs::fadvise(&*self.file, part.offset_bytes, len, Advice::DontNeed);
    }
}

/// Has the kernel read the part, and waits for it.
fn read_ahead(file: &File, part: Part) -> io::Result<()> {
    let (end, mut asked) = (part.end_bytes(), part.offset_bytes);
    let mut at = part.offset_bytes;
    while at < end {
        while asked < end.min(at + AHEAD_BYTES) {
            let len = std::num::NonZeroU64::new(STEP_BYTES.min(end - asked));
            rustix::fs::fadvise(file, asked, len, Advice::WillNeed)?;
            asked += STEP_BYTES;
        }
        // A page that is asked for is waited for, and those before it were asked for earlier.
        let last = (at + STEP_BYTES).min(end) - 1;
        file.read_at(&mut [0], last)?;
        at += STEP_BYTES;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tempfile::NamedTempFile;

    use super::*;

    const SIZE: u64 = 8 << 20;

    /// A file on the disk alone, if it is on a disk.
    fn cold() -> Option<(NamedTempFile, Arc<File>)> {
        let mut file = NamedTempFile::new().expect("a file");
        io::Write::write_all(&mut file, &vec![1; 8 << 20]).expect("written");
        file.as_file().sync_all().expect("synced");
        rustix::fs::fadvise(&file, 0, None, Advice::DontNeed).expect("dropped");
        let open = Arc::new(file.reopen().expect("opened"));
        let is_cold = Residence::of(&open, SIZE)?.has(0) == Some(false);
        if !is_cold {
            println!("skipped: the folder for temporary files is in memory");
        }
        is_cold.then_some((file, open))
    }

    fn part(offset_bytes: u64, len_bytes: u64) -> Part {
        Part { number: 1, offset_bytes, len_bytes }
    }

    fn new((file, open): &(NamedTempFile, Arc<File>), how: DirectIo) -> Ahead {
        Ahead::new(open, file.path(), SIZE, how).expect("possible")
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(future)
    }

    /// Brings the part where memory is short. Whether it must be forgotten.
    fn bring(ahead: &Ahead, part: Part) -> bool {
        match block_on(ahead.bring(part, || None::<()>)) {
            (Brought::There, _) => false,
            (Brought::Cached, was_read) => {
                assert!(was_read);
                true
            }
            (Brought::Held(..), _) => panic!("in no memory"),
        }
    }

    fn pages_of(ahead: &Ahead, part: Part) -> Vec<bool> {
        let page = rustix::param::page_size();
        let pages = (part.offset_bytes..part.end_bytes()).step_by(page);
        pages.map(|at| ahead.residence.has(at).expect("told")).collect()
    }

    #[test]
    fn a_part_is_brought_and_forgotten() {
        let Some(cold) = cold() else { return };
        let ahead = new(&cold, DirectIo::On);
        for part in [part(2 << 20, 3 << 20), part((5 << 20) + 1, (1 << 20) + 100)] {
            assert!(bring(&ahead, part), "it was not there before");
            assert!(pages_of(&ahead, part).iter().all(|resident| *resident));
            assert!(!bring(&ahead, part), "it was there before");
            ahead.forget(part);
            // Its ends may share pages with others, which keep them.
            let left = pages_of(&ahead, part).iter().filter(|resident| **resident).count();
            assert!(left <= 2, "{left}");
        }
        // Nobody wanted what is behind.
        assert_eq!(ahead.residence.has(SIZE - 1), Some(false));
        assert_eq!(ahead.residence.has(SIZE), None);
    }

    #[test]
    fn what_was_in_memory_stays_there() {
        let Some(cold) = cold() else { return };
        cold.1.read_exact_at(&mut vec![0; 1 << 20], 1 << 20).expect("read");
        let (on, auto) = (new(&cold, DirectIo::On), new(&cold, DirectIo::Auto));
        assert!(!bring(&on, part(0, SIZE)), "some of it");
        on.forget(part(0, SIZE));
        assert!(!bring(&auto, part(0, SIZE)), "a small file");
        let (file, open) = &cold;
        assert!(Ahead::new(open, file.path(), SIZE, DirectIo::Off).is_none());
        assert!(Ahead::new(open, file.path(), WORTH_ASKING_BYTES - 1, DirectIo::On).is_none());
    }

    #[test]
    fn a_part_is_held_where_there_is_memory_for_it() {
        let Some(cold) = cold() else { return };
        let ahead = new(&cold, DirectIo::On);
        let (one, memory) = (part(1 << 20, 1 << 20), Arc::new(()));
        let brought = block_on(ahead.bring(one, || Some(Arc::clone(&memory))));
        let (Brought::Held(held, taken), true) = brought else {
            println!("skipped: the folder for temporary files takes no direct I/O");
            return;
        };
        assert!(held.to_bytes() == vec![1; 1 << 20]);
        assert!(pages_of(&ahead, one).iter().all(|resident| !resident), "past the cache");
        assert!(Arc::ptr_eq(&taken, &memory));
        // What is in the cache already need not be read once more.
        bring(&ahead, one);
        let again = block_on(ahead.bring(one, || Some(())));
        assert!(matches!(again, (Brought::There, false)), "{again:?}");
    }

    /// Whoever reads it finds out.
    #[test]
    fn a_file_that_was_cut_short_is_not_its_business() {
        let Some(cold) = cold() else { return };
        let ahead = new(&cold, DirectIo::On);
        cold.0.as_file().set_len(100).expect("cut");
        bring(&ahead, part(0, SIZE));
        let brought = block_on(ahead.bring(part(0, SIZE), || Some(())));
        assert!(!matches!(brought, (Brought::Held(..), _)), "{brought:?}");
    }
}
