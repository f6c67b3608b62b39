//! What reading and writing past the page cache have in common.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::aligned::alignment;
use crate::options::DirectIo;

/// Smaller files go through the cache, where whoever wants them next finds them: the wait for the
/// disk is short.
pub(super) const LARGE_BYTES: u64 = 256 << 20;

/// What `statfs` calls the file systems on which it was measured, or is known, to be faster: ext2 to
/// ext4, and XFS. Those in memory know no other way than the cache; btrfs, which sums its blocks, goes
/// through the cache in any case; of those on a network, or in user space, nothing can be said.
const FASTER_ON: [u64; 2] = [0xEF53, 0x5846_5342];

/// Whether `file`, of `size_bytes`, shall be read or written past the page cache.
pub(super) fn is_wanted(file: &File, size_bytes: u64, how: DirectIo) -> bool {
    match how {
        DirectIo::On => true,
        DirectIo::Off => false,
        DirectIo::Auto => size_bytes >= LARGE_BYTES && is_faster(file),
    }
}

/// Whether a file there goes faster past the page cache.
pub(super) fn is_faster(file: &File) -> bool {
    let kind = rustix::fs::fstatfs(file).ok().and_then(|told| u64::try_from(told.f_type).ok());
    kind.is_some_and(|kind| FASTER_ON.contains(&kind))
}

/// Another descriptor of the same file, for direct I/O.
pub(super) fn open(file: &File, path: &Path, writes: bool) -> io::Result<File> {
    let mut flags = OFlags::DIRECT | OFlags::CLOEXEC;
    if writes {
        flags |= OFlags::NOFOLLOW;
    }
    let mut options = OpenOptions::new();
    options.read(true).write(writes).custom_flags(flags.bits().cast_signed());
    let direct = options.open(path)?;
    let identity = |file: &File| file.metadata().map(|it| (it.dev(), it.ino()));
    // Somebody else may have put another file there.
    if identity(&direct)? == identity(file)? {
        Ok(direct)
    } else {
        Err(io::ErrorKind::NotFound.into())
    }
}

/// Fills `buffer`, or as much of it as the file has.
pub(super) fn read_up_to(file: &File, buffer: &mut [u8], offset_bytes: u64) -> io::Result<usize> {
    let mut read = 0;
    while read < buffer.len() {
        match file.read_at(&mut buffer[read..], offset_bytes + read as u64) {
            // The file ends within a page: there is no more, and no aligned way to ask for it.
            Ok(len) if len == 0 || !len.is_multiple_of(alignment()) => return Ok(read + len),
            Ok(len) => read += len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}

/// How a file system says that it does no direct I/O, or not so.
pub(super) fn is_refusal(error: &io::Error) -> bool {
    let refusals = [Errno::INVAL, Errno::OPNOTSUPP, Errno::NOTSUP];
    refusals.iter().any(|refusal| error.raw_os_error() == Some(refusal.raw_os_error()))
}
