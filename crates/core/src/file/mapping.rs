//! A mapped file, which exists only while the guard stands and knows of it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock};

use memmap2::{Advice, Mmap, MmapOptions, UncheckedAdvice};

use super::guard::{self, Registration};

/// A read-only mapping whose pages may be lost without harm.
#[derive(Debug)]
pub(super) struct Mapping {
    // Dropped before the mapping it tells of.
    registration: Registration,
    map: Mmap,
}

/// The files behind the mappings there are, by the address that each begins at.
static MAPPED: RwLock<BTreeMap<usize, (usize, Arc<File>)>> = RwLock::new(BTreeMap::new());

/// The file that `bytes` are mapped from, and where in it they begin; `None` of bytes that are not.
///
/// The kernel can send them from there by itself, without a copy.
pub(crate) fn file_behind(bytes: &[u8]) -> Option<(Arc<File>, u64)> {
    let at = bytes.as_ptr() as usize;
    let mapped = MAPPED.read().unwrap_or_else(PoisonError::into_inner);
    let (start, (len, file)) = mapped.range(..=at).next_back()?;
    let offset = at - start;
    (offset + bytes.len() <= *len).then(|| (Arc::clone(file), offset as u64))
}

impl Mapping {
    /// `None` where nothing guards a mapping, the guard has no place left, or the file's system
    /// maps no files.
    pub(super) fn new(file: &Arc<File>, len_bytes: u64) -> Option<Self> {
        // An empty file cannot be mapped.
        let len = usize::try_from(len_bytes).ok().filter(|len| *len > 0)?;
        if !guard::is_installed() {
            return None;
        }
        let map = map(file, len).ok()?;
        let start = map.as_ptr() as usize;
        // Not a byte of it is read before the guard knows of it.
        let registration = Registration::new(start..start + len)?;
        let mut mapped = MAPPED.write().unwrap_or_else(PoisonError::into_inner);
        mapped.insert(start, (len, Arc::clone(file)));
        Some(Self { registration, map })
    }

    /// All of it. What is lost reads as zeroes, which [`Mapping::has_lost_pages`] tells afterwards.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// Whether zeroes were read in the place of what was lost.
    pub(super) fn has_lost_pages(&self) -> bool {
        self.registration.has_lost_pages()
    }

    /// Lets the kernel take back the pages that lie wholly in `range`: their neighbours may still
    /// be on their way. Costs no more than a look-up if they are read again soon.
    pub(super) fn release(&self, range: Range<usize>) {
        let page = rustix::param::page_size();
        let start = range.start.next_multiple_of(page);
        let end = range.end.min(self.map.len()) / page * page;
        if end > start {
            release_pages(&self.map, start, end - start);
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let start = self.map.as_ptr() as usize;
        // Before the address is another mapping's.
        MAPPED.write().unwrap_or_else(PoisonError::into_inner).remove(&start);
    }
}

#[allow(unsafe_code)]
fn map(file: &File, len: usize) -> io::Result<Mmap> {
    // SAFETY: the mapping is read-only. Another process may still write to the file, and Rust
    // cannot exclude that; the bytes are only summed and sent, never interpreted, so a change can
    // yield other bytes but no broken invariant, and `Source::check_unchanged` ends the transfer
    // then. Bytes behind the end of the file are the guard's.
    let map = unsafe { MmapOptions::new().len(len).map(file)? };
    // Parts are read front to back; doubling the read-ahead is worth it. Advice may be refused.
    let _ = map.advise(Advice::Sequential);
    Ok(map)
}

#[allow(unsafe_code)]
fn release_pages(map: &Mmap, offset: usize, len: usize) {
    // SAFETY: DONTNEED on a shared, read-only file mapping loses nothing: the next access, if any,
    // reads the same page from the file again. (The guard's zeroes stay zeroes.)
    let _ = unsafe { map.unchecked_advise_range(UncheckedAdvice::DontNeed, offset, len) };
}
