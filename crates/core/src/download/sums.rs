//! Sums of an object's segments: the whole object, or the parts it was uploaded in.
//!
//! A checksum of S3 is over all bytes or over the digests of the parts. Both are "one digest for
//! each segment", with one segment or many. CRCs of ranges inside a segment can be combined, in
//! whatever order the ranges came; other algorithms need a segment's bytes in order, so a range
//! must be a segment, or the file is read once more (from the page cache, mostly).

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use tokio::sync::mpsc::Receiver;

use crate::error::{Error, Result};
use crate::file::{Reader, timed};
use crate::integrity::{Algorithm, Checksum, Digest, Hasher, Md5ETag, combine, combine_all};
use crate::options::Cancel;
use crate::plan::{Part, Plan};
use crate::schedule::Memory;

/// How an object is cut for summing: contiguous, in order, the whole of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Segments {
    /// Equal ones, the last may be shorter. An empty object has one empty segment.
    Equal { each_bytes: u64, total_bytes: u64 },
    /// Of any sizes.
    Listed(Vec<u64>),
}

impl Segments {
    pub(super) fn whole(total_bytes: u64) -> Self {
        Self::Equal { each_bytes: total_bytes, total_bytes }
    }

    /// Offset and length of each.
    pub(super) fn iter(&self) -> Box<dyn Iterator<Item = (u64, u64)> + Send + '_> {
        match self {
            Self::Equal { total_bytes: 0, .. } => Box::new(std::iter::once((0, 0))),
            Self::Equal { each_bytes, total_bytes } => {
                let (each, total) = ((*each_bytes).max(1), *total_bytes);
                let count = total.div_ceil(each);
                Box::new((0..count).map(move |i| (i * each, each.min(total - i * each))))
            }
            Self::Listed(sizes) => Box::new(sizes.iter().scan(0, |offset, size| {
                let segment = (*offset, *size);
                *offset += size;
                Some(segment)
            })),
        }
    }

    /// Whether every range of `plan` lies inside one segment.
    fn hold_ranges_of(&self, plan: &Plan) -> bool {
        match self {
            Self::Equal { each_bytes, total_bytes } => {
                each_bytes == total_bytes || each_bytes % plan.part_size_bytes() == 0
            }
            Self::Listed(_) => false,
        }
    }

    /// Whether every range of `plan` is one segment.
    fn are_ranges_of(&self, plan: &Plan) -> bool {
        match self {
            Self::Equal { each_bytes, total_bytes } => {
                *each_bytes == plan.part_size_bytes()
                    || (each_bytes == total_bytes && plan.part_count() == 1)
            }
            Self::Listed(_) => false,
        }
    }
}

/// An algorithm, and the segments to apply it to.
#[derive(Debug, Clone)]
pub(crate) struct Segmented {
    pub(super) algorithm: Algorithm,
    pub(super) segments: Segments,
}

/// What has to be summed, and when.
#[derive(Debug, Clone)]
pub(crate) struct Need {
    of: Option<Segmented>,
    /// Sum every range with this while it is fetched.
    pub(crate) while_fetched: Option<Algorithm>,
    /// Read the file once more for this.
    pub(crate) second_read: Option<Segmented>,
}

impl Need {
    /// The cheapest way to sum `of` over the ranges of `plan`.
    pub(super) fn over_ranges(of: Option<Segmented>, plan: &Plan) -> Self {
        let Some(Segmented { algorithm, segments }) = &of else {
            return Self { of, while_fetched: None, second_read: None };
        };
        let at_once = segments.are_ranges_of(plan)
            || (algorithm.is_combinable() && segments.hold_ranges_of(plan));
        let (while_fetched, second_read) =
            if at_once { (Some(*algorithm), None) } else { (None, of.clone()) };
        Self { of, while_fetched, second_read }
    }

    /// For bytes that will come in order.
    pub(super) fn over_stream(of: Option<Segmented>) -> Self {
        Self { of, while_fetched: None, second_read: None }
    }

    /// A hasher for bytes that come in order.
    pub(crate) fn in_order(&self) -> InOrder {
        InOrder::new(self.of.as_ref())
    }

    /// The sums of an empty object.
    pub(super) fn of_nothing(&self) -> Sums {
        self.in_order().finish()
    }

    /// Joins the digests of the plan's ranges into those of the segments.
    pub(crate) fn gather(&self, plan: &Plan, digests: &[Option<Digest>]) -> Sums {
        let mut joining = self.joining();
        for (range, digest) in plan.parts().zip(digests) {
            joining.add(range, *digest);
        }
        joining.finish()
    }

    /// The same, one range after the other, so that nobody has to keep the digests of all.
    pub(super) fn joining(&self) -> Joining {
        let of = self.of.as_ref().filter(|_| self.while_fetched.is_some());
        let segments = of.map(|of| of.segments.iter().collect()).unwrap_or_default();
        Joining { segments: Vec::into_iter(segments), current: None, done: Some(Vec::new()) }
    }
}

/// Joins the digests of ranges, which come in order, into those of the segments.
pub(super) struct Joining {
    /// Offset and length of those that have not begun.
    segments: std::vec::IntoIter<(u64, u64)>,
    current: Option<Joined>,
    /// `None` once something was missing or could not be joined.
    done: Option<Vec<(Digest, u64)>>,
}

struct Joined {
    digest: Digest,
    end_bytes: u64,
    len_bytes: u64,
}

impl Joining {
    pub(super) fn add(&mut self, range: Part, digest: Option<Digest>) {
        let joined = match (digest, self.current.take()) {
            (None, _) => None,
            (Some(digest), Some(current)) if range.offset_bytes < current.end_bytes => {
                combine(current.digest, digest, range.len_bytes)
                    .map(|digest| Joined { digest, ..current })
            }
            (Some(digest), ended) => {
                self.end(ended);
                let begun = self.segments.next();
                begun.map(|(offset_bytes, len_bytes)| Joined {
                    digest,
                    end_bytes: offset_bytes + len_bytes,
                    len_bytes,
                })
            }
        };
        if joined.is_none() {
            self.done = None;
        }
        self.current = joined;
    }

    fn end(&mut self, ended: Option<Joined>) {
        if let (Some(ended), Some(done)) = (ended, &mut self.done) {
            done.push((ended.digest, ended.len_bytes));
        }
    }

    pub(crate) fn finish(mut self) -> Sums {
        let last = self.current.take();
        self.end(last);
        Sums(self.done.filter(|_| self.segments.len() == 0).unwrap_or_default())
    }
}

/// A digest and a length for every segment, in order. Empty when nothing was summed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sums(Vec<(Digest, u64)>);

impl Sums {
    /// The checksum of all bytes, where the digests give one.
    pub(super) fn full_object(&self) -> Option<Checksum> {
        match self.0[..] {
            [(digest, _)] => Some(Checksum::full_object(digest)),
            _ => combine_all(self.0.iter().copied()).map(Checksum::full_object),
        }
    }

    /// The checksum over the segments' digests.
    pub(super) fn composite(&self) -> Option<Checksum> {
        Checksum::composite(&self.digests())
    }

    /// What an `ETag` of these MD5s would be.
    pub(super) fn md5_etag(&self, in_parts: bool) -> Option<Md5ETag> {
        match (in_parts, &self.digests()[..]) {
            (false, [digest]) => Md5ETag::of_whole(*digest),
            (false, _) => None,
            (true, digests) => Md5ETag::of_parts(digests),
        }
    }

    fn digests(&self) -> Vec<Digest> {
        self.0.iter().map(|(digest, _)| *digest).collect()
    }
}

/// Sums bytes that come in order, segment by segment.
pub(crate) struct InOrder {
    algorithm: Option<Algorithm>,
    lens: std::vec::IntoIter<u64>,
    current: Option<(Hasher, u64)>,
    done: Vec<(Digest, u64)>,
}

impl InOrder {
    /// One that sums nothing.
    pub(crate) fn nothing() -> Self {
        Self::new(None)
    }

    fn new(of: Option<&Segmented>) -> Self {
        let lens: Vec<u64> =
            of.map(|of| of.segments.iter().map(|(_, len)| len).collect()).unwrap_or_default();
        let mut in_order = Self {
            algorithm: of.map(|of| of.algorithm),
            lens: lens.into_iter(),
            current: None,
            done: Vec::new(),
        };
        in_order.next_segment();
        in_order
    }

    fn next_segment(&mut self) {
        self.current = self
            .algorithm
            .and_then(|algorithm| self.lens.next().map(|len| (Hasher::new(algorithm), len)));
    }

    pub(crate) fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let Some((hasher, len)) = &mut self.current else { return };
            let room = *len - hasher.len_bytes();
            let take = usize::try_from(room).map_or(bytes.len(), |room| room.min(bytes.len()));
            hasher.update(&bytes[..take]);
            bytes = &bytes[take..];
            if hasher.len_bytes() == *len {
                self.close_segment();
            }
        }
    }

    fn close_segment(&mut self) {
        if let Some((hasher, len)) = self.current.take() {
            self.done.push((hasher.finish(), len));
        }
        self.next_segment();
    }

    pub(crate) fn finish(mut self) -> Sums {
        // Only an empty segment is complete without a byte.
        while self.current.as_ref().is_some_and(|(_, len)| *len == 0) {
            self.close_segment();
        }
        Sums(self.done)
    }
}

/// Reads the file once more and sums its segments, several at a time, one thread each. Ends early,
/// with an error, when it is cancelled.
pub(super) async fn read_again(file: Reader, of: &Segmented, cancel: &Cancel) -> Result<Sums> {
    let algorithm = of.algorithm;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let segments: Vec<_> = of.segments.iter().collect();
    let digests = futures::stream::iter(segments).map(|(offset, len)| {
        let (file, cancel) = (file.clone(), cancel.clone());
        async move {
            let reading = move || {
                let mut hasher = Hasher::new(algorithm);
                read_segment(&file, offset, len, &cancel, |bytes| hasher.update(bytes))?;
                Ok(hasher.finish())
            };
            let digest = tokio::task::spawn_blocking(reading).await.map_err(std::io::Error::other);
            digest
                .flatten()
                .map(|digest| (digest, len))
                .map_err(|source| Error::io("verify", Path::new("the downloaded file"), source))
        }
    });
    Ok(Sums(digests.buffered(cores).try_collect().await?))
}

/// Reads a segment of a file, a bit at a time. Ends early, with an error, when it is cancelled.
pub(super) fn read_segment(
    file: &Reader,
    offset_bytes: u64,
    len_bytes: u64,
    cancel: &Cancel,
    mut sink: impl FnMut(&[u8]),
) -> std::io::Result<()> {
    file.read(offset_bytes, len_bytes, |bytes| {
        // Nothing else can stop this thread.
        if cancel.is_cancelled() {
            return Err(std::io::ErrorKind::Interrupted.into());
        }
        sink(bytes);
        Ok(())
    })
}

/// The sums of one range.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct PartSums {
    /// What the whole object's checksum is made of.
    pub(super) needed: Option<Digest>,
    /// CRC32, by which the range is known again.
    pub(super) crc: Option<Digest>,
}

/// Sums a range both ways at once, or one way where they are the same.
pub(super) struct PartHashers {
    needed: Option<Hasher>,
    crc: Option<Hasher>,
    one_for_both: bool,
}

impl PartHashers {
    pub(super) fn new(needed: Option<Algorithm>, wants_crc: bool) -> Self {
        let one_for_both = needed == Some(Algorithm::Crc32);
        let crc = (wants_crc && !one_for_both).then(|| Hasher::new(Algorithm::Crc32));
        Self { needed: needed.map(Hasher::new), crc, one_for_both }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        for hasher in [&mut self.needed, &mut self.crc].into_iter().flatten() {
            hasher.update(bytes);
        }
    }

    pub(super) fn finish(self) -> PartSums {
        let needed = self.needed.map(Hasher::finish);
        let crc = if self.one_for_both { needed } else { self.crc.map(Hasher::finish) };
        PartSums { needed, crc }
    }
}

/// Writes what comes through the queue, in order, and sums it. Runs on a thread of its own, since
/// the reader at the other end may be slow.
pub(super) fn write_in_order(
    mut writer: Box<dyn Write + Send>,
    label: &str,
    mut waiting: Receiver<(Vec<Bytes>, Memory)>,
    mut hasher: InOrder,
    waited: impl Fn(Duration),
) -> Result<Sums> {
    let failed = |source| Error::io("write to", Path::new(label), source);
    while let Some((chunks, _memory)) = waiting.blocking_recv() {
        for chunk in chunks {
            hasher.update(&chunk);
            let (written, blocked) = timed(|| writer.write_all(&chunk));
            waited(blocked);
            written.map_err(failed)?;
        }
    }
    writer.flush().map_err(failed)?;
    Ok(hasher.finish())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::plan;

    fn sum(algorithm: Algorithm, bytes: &[u8]) -> Digest {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(bytes);
        hasher.finish()
    }

    proptest! {
        /// However it is summed — by ranges, in order, or by a second read — a segment's digest is
        /// that of its bytes.
        #[test]
        fn every_way_of_summing_agrees(
            content in proptest::collection::vec(any::<u8>(), 1..5_000),
            each in 1_u64..2_000,
            ranges_in_segment in 1_u64..4,
            algorithm in prop::sample::select(&Algorithm::ALL[..]),
            chunk in 1_usize..700,
        ) {
            let total = content.len() as u64;
            let each = (each * ranges_in_segment).min(total);
            let of = Segmented {
                algorithm,
                segments: Segments::Equal { each_bytes: each, total_bytes: total },
            };
            let expected: Vec<_> = content
                .chunks(usize::try_from(each).expect("small"))
                .map(|bytes| (sum(algorithm, bytes), bytes.len() as u64))
                .collect();

            let mut in_order = Need::over_stream(Some(of.clone())).in_order();
            content.chunks(chunk).for_each(|bytes| in_order.update(bytes));
            prop_assert_eq!(&in_order.finish().0, &expected);

            let range = (each / ranges_in_segment).max(1);
            let plan = plan::download(total, Some(range), None).expect("planned");
            let need = Need::over_ranges(Some(of.clone()), &plan);
            if need.while_fetched.is_some() {
                let digests: Vec<_> = plan
                    .parts()
                    .map(|part| {
                        let start = usize::try_from(part.offset_bytes).expect("small");
                        let end = usize::try_from(part.end_bytes()).expect("small");
                        Some(sum(algorithm, &content[start..end]))
                    })
                    .collect();
                prop_assert_eq!(&need.gather(&plan, &digests).0, &expected);
            }

            let mut file = tempfile::tempfile().expect("a file");
            file.write_all(&content).expect("written");
            let again = futures::executor::block_on(async {
                let runtime = tokio::runtime::Builder::new_current_thread().build().expect("one");
                runtime.block_on(read_again(Reader::cached(file), &of, &Cancel::default()))
            });
            prop_assert_eq!(&again.expect("read").0, &expected);
        }
    }

    #[test]
    fn an_empty_object_has_the_sum_of_nothing() {
        let of = Segmented { algorithm: Algorithm::Crc32, segments: Segments::whole(0) };
        let sums = Need::over_stream(Some(of)).of_nothing();
        let checksum = sums.full_object().expect("one segment");
        assert_eq!(checksum.to_string(), "AAAAAA==");
    }

    #[test]
    fn what_cannot_be_combined_is_read_again() {
        let plan = plan::download(100, Some(10), None).expect("planned");
        let need = |algorithm, each_bytes| {
            let segments = Segments::Equal { each_bytes, total_bytes: 100 };
            Need::over_ranges(Some(Segmented { algorithm, segments }), &plan)
        };
        assert!(need(Algorithm::Crc32, 100).second_read.is_none());
        assert!(need(Algorithm::Crc32, 20).second_read.is_none());
        assert!(need(Algorithm::Crc32, 15).second_read.is_some());
        assert!(need(Algorithm::Sha256, 10).second_read.is_none());
        assert!(need(Algorithm::Sha256, 20).second_read.is_some());
        assert!(need(Algorithm::Sha256, 100).second_read.is_some());
    }
}
