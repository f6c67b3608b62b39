//! Keeps a mapped file that loses pages from ending the process.
//!
//! Reading a mapped page that lies beyond the end of a file cut short meanwhile, or that the disk
//! cannot deliver, raises SIGBUS. The handler here looks the address up among the mapped sources,
//! puts zeroes in place of what is lost, marks that mapping and returns; whoever reads goes on and
//! sees zeroes. A transfer looks at the mark after it has summed a part and before it completes an
//! object, so what was read is never taken for the file. (A plain socket never comes here: the
//! kernel's own reading of a lost page fails with `EFAULT`.)
//!
//! A signal handler belongs to the whole process, so a library must not install one unasked: see
//! [`guard_mapped_files`].

use std::io;
use std::ops::Range;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::error::{Error, ErrorKind, Result};

/// Sources mapped at once that can be guarded. One more would be mapped unguarded. Far above any
/// sensible number of large files in flight, and small enough to be searched.
const SLOTS: usize = 1024;

/// In a slot's `start`: being filled in. No mapping starts there.
const RESERVED: usize = 1;

struct Slot {
    start: AtomicUsize,
    end: AtomicUsize,
    lost: AtomicBool,
}

static MAPPED: [Slot; SLOTS] = [const {
    Slot { start: AtomicUsize::new(0), end: AtomicUsize::new(0), lost: AtomicBool::new(false) }
}; SLOTS];

static PAGE_BYTES: AtomicUsize = AtomicUsize::new(0);

/// Makes uploads survive a source file that shrinks, or a disk that fails, while it is read: the
/// upload then ends with an error, where otherwise the process would end with SIGBUS.
///
/// Installs a SIGBUS handler for the whole process, which passes on every fault that is not in a
/// source of this crate to the handler that was there before. Call it once, early, from a program
/// that owns its signal handlers; a second call does nothing.
///
/// ```
/// brigade::guard_mapped_files()?;
/// # Ok::<(), brigade::Error>(())
/// ```
pub fn guard_mapped_files() -> Result<()> {
    static INSTALL: Once = Once::new();
    let mut failure = None;
    INSTALL.call_once(|| {
        PAGE_BYTES.store(rustix::param::page_size(), Ordering::Relaxed);
        failure = install().err();
    });
    failure.map_or(Ok(()), |source| {
        let detail = source.to_string();
        Err(Error::new(ErrorKind::Io, "handle", "SIGBUS", detail).caused_by(source))
    })
}

/// A mapping that the handler knows of, until this is dropped.
#[derive(Debug)]
pub(super) struct Registration(Option<usize>);

impl Registration {
    /// Makes the mapping at these addresses known. Must be dropped before it is unmapped.
    pub(super) fn new(addresses: Range<usize>) -> Self {
        let free = MAPPED.iter().position(|slot| {
            let taken =
                slot.start.compare_exchange(0, RESERVED, Ordering::Acquire, Ordering::Relaxed);
            taken.is_ok()
        });
        if let Some(slot) = free.map(|index| &MAPPED[index]) {
            slot.lost.store(false, Ordering::Relaxed);
            slot.end.store(addresses.end, Ordering::Relaxed);
            slot.start.store(addresses.start, Ordering::Release);
        }
        Self(free)
    }

    /// Whether pages of the mapping were lost and zeroes were read in their place.
    pub(super) fn has_lost_pages(&self) -> bool {
        self.0.is_some_and(|index| MAPPED[index].lost.load(Ordering::Acquire))
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let Some(index) = self.0 {
            MAPPED[index].start.store(0, Ordering::Release);
        }
    }
}

/// What handled SIGBUS before; written once, before the handler can run.
struct Before(std::cell::UnsafeCell<std::mem::MaybeUninit<libc::sigaction>>);

// SAFETY: written by `install` alone, which runs once, before the handler is in place; only read
// after that.
#[allow(unsafe_code)]
unsafe impl Sync for Before {}

static BEFORE: Before = Before(std::cell::UnsafeCell::new(std::mem::MaybeUninit::uninit()));

#[allow(unsafe_code)]
fn install() -> io::Result<()> {
    // SAFETY: `sigaction` is given a zeroed structure with its fields filled in and a place for the
    // old one; the handler touches only atomics and makes system calls.
    unsafe {
        if libc::sigaction(libc::SIGBUS, std::ptr::null(), (*BEFORE.0.get()).as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_sigbus as *const () as usize;
        // On the alternate stack, where the thread has one: the fault may come deep in the stack.
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigemptyset(&raw mut action.sa_mask);
        if libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Runs wherever the fault happened: no allocation, no lock, nothing but atomics and system calls.
#[allow(unsafe_code)]
extern "C" fn on_sigbus(
    _signal: libc::c_int,
    info: *mut libc::siginfo_t,
    _context: *mut libc::c_void,
) {
    // SAFETY: the kernel passes a valid `siginfo_t` to an SA_SIGINFO handler.
    let address = unsafe { (*info).si_addr() } as usize;
    for slot in &MAPPED {
        let start = slot.start.load(Ordering::Acquire);
        let end = slot.end.load(Ordering::Relaxed);
        if start > RESERVED && (start..end).contains(&address) && replace(address, end) {
            slot.lost.store(true, Ordering::Release);
            return;
        }
    }
    // Not ours: the fault happens again on return, and goes to who was there before.
    // SAFETY: `BEFORE` was filled in before this handler was installed.
    unsafe {
        libc::sigaction(libc::SIGBUS, (*BEFORE.0.get()).as_ptr(), std::ptr::null_mut());
    }
}

/// Puts zeroes from the page of `address` to the mapping's `end`: behind the end of a file that was
/// cut everything is lost, and one replacement is cheaper than one for every page.
#[allow(unsafe_code)]
fn replace(address: usize, end: usize) -> bool {
    let page = PAGE_BYTES.load(Ordering::Relaxed);
    let from = address & !(page - 1);
    // SAFETY: the pages belong to a registered mapping, which is read-only and stays mapped for as
    // long as it is registered; they are replaced by readable zeroes. `mmap` is a system call that
    // takes no lock in user space; errno is put back for the code that was interrupted.
    unsafe {
        let errno = libc::__errno_location();
        let before = *errno;
        let mapped = libc::mmap(
            from as *mut libc::c_void,
            end - from,
            libc::PROT_READ,
            libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        *errno = before;
        mapped != libc::MAP_FAILED
    }
}
