//! Ranges on their way to the disk: past the page cache or through it, summed as they come.

use bytes::Bytes;

use super::Download;
use super::fetch::Sink;
use super::resume::Target;
use super::sums::{Need, PartHashers, PartSums};
use crate::error::Result;
use crate::file::RangeWriter;
use crate::limits::MIB;
use crate::options::DirectIo;
use crate::plan::Plan;
use crate::schedule::Cost;

/// Takes a range that goes to the target.
pub(super) struct ToDisk {
    hashers: PartHashers,
    range: RangeWriter,
}

impl ToDisk {
    pub(super) fn new(hashers: PartHashers, range: RangeWriter) -> Self {
        Self { hashers, range }
    }

    /// The sums of the range.
    pub(super) fn sums(self) -> PartSums {
        self.hashers.finish()
    }
}

impl Sink for ToDisk {
    async fn take(&mut self, chunk: Bytes) -> Result<()> {
        self.hashers.update(&chunk);
        self.range.write(&chunk).await
    }

    async fn end(&mut self) -> Result<()> {
        self.range.finish().await
    }
}

impl Target {
    /// Has the ranges of `plan` written as the caller wants it, or as is best.
    pub(super) fn choose_writer(&mut self, plan: &Plan, how: DirectIo, need: &Need) {
        let how = match how {
            // From the cache, that second read costs hardly anything.
            DirectIo::Auto if need.second_read.is_some() => DirectIo::Off,
            how => how,
        };
        self.partial.write_as(plan.size_bytes(), how);
    }

    /// A range holds what is read ahead of the write, the read under way, and what it gathers for
    /// the disk.
    pub(super) fn range_cost(&self) -> Cost {
        Cost { memory_bytes: MIB + self.partial.writer().memory_bytes() }
    }
}

impl Download<'_> {
    /// Says that the page cache was used where that was not wanted.
    pub(super) fn warn_of_cached_writes(&mut self, target: &Target) {
        if self.options.direct_io == DirectIo::On && !target.partial.writer().is_direct() {
            self.warn(
                "the file system takes no direct I/O: the file was written through the page cache"
                    .to_owned(),
            );
        }
    }
}
