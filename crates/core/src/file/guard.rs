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
//! [`guard_mapped_files`]. Nothing is mapped where this handler is not the one in place.

use std::io;
use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::error::{Error, ErrorKind, Result};

/// Sources mapped at once. One more is read instead. Far above any sensible number of large files
/// in flight, and small enough to be searched.
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

/// Lets uploads map their files instead of reading them, which takes less of the processor, and
/// makes them survive a file that shrinks, or a disk that fails, meanwhile: the upload ends with an
/// error, as it does when files are read, where otherwise the process would end with SIGBUS.
///
/// Installs a SIGBUS handler for the whole process, which passes on every fault that is not in a
/// source of this crate to the handler that was there before. Call it once, early, from a program
/// that owns its signal handlers; a second call does nothing. Where another handler is installed
/// over it, or this is never called, files are read.
///
/// ```
/// brigade::guard_mapped_files()?;
/// # Ok::<(), brigade::Error>(())
/// ```
pub fn guard_mapped_files() -> Result<()> {
    // Errors cannot be cloned; the system's number for one can.
    static INSTALLED: OnceLock<Result<(), Option<i32>>> = OnceLock::new();
    INSTALLED.get_or_init(|| install().map_err(|error| error.raw_os_error())).map_err(|code| {
        let source = code.map_or(io::ErrorKind::Other.into(), io::Error::from_raw_os_error);
        Error::new(ErrorKind::Io, "handle", "SIGBUS", source.to_string()).caused_by(source)
    })
}

/// Whether SIGBUS comes here now.
#[allow(unsafe_code)]
pub(super) fn is_installed() -> bool {
    // SAFETY: `sigaction` only fills in the structure that it is given, for which zeroes are valid.
    let (answer, current) = unsafe {
        let mut current: libc::sigaction = std::mem::zeroed();
        (libc::sigaction(libc::SIGBUS, std::ptr::null(), &raw mut current), current)
    };
    answer == 0 && current.sa_sigaction == on_sigbus as *const () as usize
}

/// A mapping that the handler knows of, until this is dropped.
#[derive(Debug)]
pub(super) struct Registration(usize);

impl Registration {
    /// Makes the mapping at these addresses known, if there is a place left. Must be dropped before
    /// it is unmapped.
    pub(super) fn new(addresses: Range<usize>) -> Option<Self> {
        let index = MAPPED.iter().position(|slot| {
            let taken =
                slot.start.compare_exchange(0, RESERVED, Ordering::Acquire, Ordering::Relaxed);
            taken.is_ok()
        })?;
        let slot = &MAPPED[index];
        slot.lost.store(false, Ordering::Relaxed);
        slot.end.store(addresses.end, Ordering::Relaxed);
        slot.start.store(addresses.start, Ordering::Release);
        Some(Self(index))
    }

    /// Whether pages of the mapping were lost and zeroes were read in their place.
    pub(super) fn has_lost_pages(&self) -> bool {
        MAPPED[self.0].lost.load(Ordering::Acquire)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        MAPPED[self.0].start.store(0, Ordering::Release);
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
    PAGE_BYTES.store(rustix::param::page_size(), Ordering::Relaxed);
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
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    // SAFETY: the kernel passes a valid `siginfo_t` to an SA_SIGINFO handler.
    let (address, is_fault) = unsafe { ((*info).si_addr() as usize, (*info).si_code > 0) };
    for slot in &MAPPED {
        let start = slot.start.load(Ordering::Acquire);
        let end = slot.end.load(Ordering::Relaxed);
        let is_ours = is_fault && start > RESERVED && (start..end).contains(&address);
        if is_ours && replace(address, end) {
            slot.lost.store(true, Ordering::Release);
            return;
        }
    }
    // SAFETY: `BEFORE` was filled in before this handler was installed, and what it holds is what
    // the kernel itself would have called in this way.
    unsafe {
        let before = (*BEFORE.0.get()).assume_init_ref();
        match before.sa_sigaction {
            libc::SIG_IGN if !is_fault => {}
            // Nobody: a fault happens again on return, and a signal that was sent is sent again.
            libc::SIG_DFL | libc::SIG_IGN => {
                libc::sigaction(libc::SIGBUS, before, std::ptr::null_mut());
                if !is_fault {
                    libc::raise(signal);
                }
            }
            handler if before.sa_flags & libc::SA_SIGINFO != 0 => {
                type Informed = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
                std::mem::transmute::<usize, Informed>(handler)(signal, info, context);
            }
            handler => {
                std::mem::transmute::<usize, extern "C" fn(libc::c_int)>(handler)(signal);
            }
        }
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

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::super::mapping::Mapping;
    use super::*;

    const CHILD: &str = "BRIGADE_TESTS_SIGBUS";

    /// Whoever handled SIGBUS before.
    #[allow(unsafe_code)]
    extern "C" fn somebody_elses(
        _signal: libc::c_int,
        info: *mut libc::siginfo_t,
        _context: *mut libc::c_void,
    ) {
        CALLS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as in `on_sigbus`.
        let (address, is_fault) = unsafe { ((*info).si_addr() as usize, (*info).si_code > 0) };
        let page = PAGE_BYTES.load(Ordering::Relaxed);
        assert!(!is_fault || replace(address, (address & !(page - 1)) + page));
    }

    static CALLS: AtomicUsize = AtomicUsize::new(0);

    #[allow(unsafe_code)]
    fn handle_with(handler: usize) {
        // SAFETY: as in `install`.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handler;
            action.sa_flags = libc::SA_SIGINFO;
            assert_eq!(libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut()), 0);
        }
    }

    /// Handlers are the whole process's, so this one starts another process that runs it alone.
    #[test]
    #[allow(unsafe_code)]
    fn what_is_not_ours_goes_to_who_was_there_before() {
        if std::env::var_os(CHILD).is_none() {
            let child = Command::new(std::env::current_exe().expect("known"))
                .args([
                    "--exact",
                    "file::guard::tests::what_is_not_ours_goes_to_who_was_there_before",
                ])
                .env(CHILD, "1")
                .output()
                .expect("run");
            let said = String::from_utf8_lossy(&child.stdout);
            assert!(child.status.success() && said.contains("1 passed"), "{said}");
            return;
        }
        let file = std::sync::Arc::new(tempfile::tempfile().expect("a file"));
        file.set_len(10_000).expect("long");
        handle_with(somebody_elses as *const () as usize);
        assert!(Mapping::new(&file, 10_000).is_none(), "nothing guards it");
        guard_mapped_files().expect("installed");
        let ours = Mapping::new(&file, 10_000).expect("guarded");
        // SAFETY: its lost pages are `somebody_elses`.
        let theirs = unsafe { memmap2::Mmap::map(&*file).expect("mapped") };
        file.set_len(0).expect("shorter");
        assert_eq!((theirs[0], theirs[9_999], CALLS.load(Ordering::Relaxed)), (0, 0, 2));
        assert!(!ours.has_lost_pages());
        assert_eq!((ours.bytes()[0], CALLS.load(Ordering::Relaxed)), (0, 2));
        assert!(ours.has_lost_pages());
        // SAFETY: a signal that has handlers.
        unsafe { libc::raise(libc::SIGBUS) };
        assert_eq!(CALLS.load(Ordering::Relaxed), 3);
        file.set_len(10_000).expect("long again");
        assert!(Mapping::new(&file, 10_000).is_some());
        handle_with(somebody_elses as *const () as usize);
        assert!(Mapping::new(&file, 10_000).is_none(), "somebody else's handler is in place");
    }

    #[test]
    fn a_place_is_free_again_when_its_mapping_is_gone() {
        let places = || MAPPED.iter().filter(|s| s.start.load(Ordering::Relaxed) == 8_192).count();
        let one = Registration::new(8_192..8_200);
        assert_eq!((one.is_some(), places()), (true, 1));
        drop(one);
        assert_eq!(places(), 0);
    }
}
