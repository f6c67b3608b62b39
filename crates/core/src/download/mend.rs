//! Finding the part that arrived damaged, when all that is known is that the whole is wrong.
//!
//! An object with one checksum over all its bytes does not say which part differs. So every part is
//! fetched once more, into nothing, and compared with what was computed of the bytes that were written;
//! where the two differ, it is fetched again and written again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;

use super::disk::ToDisk;
use super::fetch::{Request, fetch};
use super::resume::Target;
use super::sums::{Need, PartHashers, PartSums};
use super::{Download, OPERATION};
use crate::engine::naming_the_stopped;
use crate::error::Result;
use crate::limits::format_size;
use crate::plan::{Part, Plan};
use crate::schedule::run_parts;

impl Download<'_> {
    /// Fetches every part once more and replaces those that differ. Whether there were any.
    pub(super) async fn mend(
        &mut self,
        target: &Target,
        plan: &Plan,
        parts: &mut [PartSums],
        need: &Need,
    ) -> Result<bool> {
        // Not for an empty object, and not for a range that nothing was computed of.
        if plan.size_bytes() == 0 || parts.len() != plan.part_count() as usize {
            return Ok(false);
        }
        self.warn(
            "the bytes that arrived are not the bytes that were stored: every part is fetched once \
             more to find the ones that differ"
                .to_owned(),
        );
        // What moves now was told as moved before.
        let request = self.new_request(plan);
        let request = Request { flow: request.flow.unheard(), ..request };
        let request = Arc::new(request);
        let (writer, path) = (target.partial.writer().clone(), Arc::new(target.path.clone()));
        let (needed, before) = (need.while_fetched, Arc::new(parts.to_vec()));
        let replaced_bytes = Arc::new(AtomicU64::new(0));
        let job = |lane, part: Part| {
            let (request, writer, path) = (request.clone(), writer.clone(), path.clone());
            let (recorder, replaced) = (target.recorder.clone(), Arc::clone(&replaced_bytes));
            let before = before[part.number as usize - 1];
            async move {
                let mut hashers = PartHashers::new(needed, before.crc.is_some());
                fetch(&request, lane, part, &mut |chunk: Bytes| {
                    hashers.update(&chunk);
                    Ok(())
                })
                .await?;
                let seen = hashers.finish();
                let known = seen.needed.is_some() || seen.crc.is_some();
                if known && (seen.needed, seen.crc) == (before.needed, before.crc) {
                    return Ok(before);
                }
                let hashers = PartHashers::new(needed, before.crc.is_some());
                let range = writer.range(part.offset_bytes, path, request.flow.clone());
                let mut to_disk = ToDisk::new(hashers, range);
                fetch(&request, lane, part, &mut to_disk).await?;
                let sums = to_disk.sums();
                recorder.part(part.number, sums.crc, None);
                replaced.fetch_add(part.len_bytes, Ordering::Relaxed);
                Ok(sums)
            }
        };
        let (lanes, scope) = (self.engine.lanes(), &self.scope);
        let again = run_parts(lanes, target.range_cost(), plan.parts(), scope, Duration::ZERO, job)
            .await
            .map_err(naming_the_stopped(OPERATION, self.url))?;
        parts.copy_from_slice(&again);
        let replaced = replaced_bytes.load(Ordering::Relaxed);
        if replaced > 0 {
            self.warn(format!("{} had arrived damaged and were replaced", format_size(replaced)));
        }
        Ok(replaced > 0)
    }
}
