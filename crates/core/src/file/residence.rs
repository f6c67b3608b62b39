//! Which pages of a file are in memory already.

use std::fs::File;

use memmap2::{Mmap, MmapOptions};

/// A mapping of a file that is only asked about, and never read: no page of it can be lost.
#[derive(Debug)]
pub(super) struct Residence(Mmap);

impl Residence {
    /// `None` where the file's system maps no files.
    pub(super) fn of(file: &File, len_bytes: u64) -> Option<Self> {
        let len = usize::try_from(len_bytes).ok().filter(|len| *len > 0)?;
        map(file, len).map(Self)
    }

    /// Whether the page with that byte is in memory; `None` where the kernel does not say. To those
    /// who neither own the file nor may write to it, it says yes of every page.
    pub(super) fn has(&self, offset_bytes: u64) -> Option<bool> {
        let at = usize::try_from(offset_bytes).ok().filter(|at| *at < self.0.len())?;
        let page = rustix::param::page_size();
        resident(&self.0, at - at % page)
    }
}

#[allow(unsafe_code)]
fn map(file: &File, len: usize) -> Option<Mmap> {
    // SAFETY: read-only, and nothing ever reads it: `Residence` hands out no bytes.
    unsafe { MmapOptions::new().len(len).map(file) }.ok()
}

#[allow(unsafe_code)]
fn resident(map: &Mmap, offset: usize) -> Option<bool> {
    let mut told = 0_u8;
    // SAFETY: the address is that of a page of the mapping, of which one byte is asked for; `told`
    // takes one byte for every page. The pages themselves are not touched.
    let answer = unsafe { libc::mincore(map.as_ptr().add(offset) as *mut _, 1, &raw mut told) };
    // The other bits are reserved.
    (answer == 0).then_some(told & 1 == 1)
}
