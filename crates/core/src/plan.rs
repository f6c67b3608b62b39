//! Cutting an object into the parts to move: pure arithmetic over a size, limits and hints.
//!
//! Every plan is a run of equal parts with a last one that may be smaller: what all stores accept (R2
//! wants it so), what a resume can re-create from two numbers, and what makes a part's place a
//! multiplication. Parts are never stored: a plan of 10,000 is three words.
//!
//! Part size trades two costs. Each request has a fixed cost, so parts are not smaller than 8 MiB; a
//! part is what is lost when a connection breaks and what waits in memory, so they stay at or below
//! 64 MiB until a store's limit on their number forces more.

use crate::{
    Error, ErrorKind,
    limits::{MIB, StoreProfile, format_size, parse_size},
};

/// The part size of small objects, both ways: at 85–90 MB/s, what AWS gives one connection, such a
/// part takes about 0.1 s, several times a request's fixed cost.
pub const DEFAULT_PART_SIZE_BYTES: u64 = 8 * MIB;

/// Upload parts grow with the object up to here and no further, unless the number of parts forces it:
/// the largest that is summed before its first byte is sent without idling the connection.
pub const MAX_DEFAULT_PART_SIZE_BYTES: u64 = 64 * MIB;

/// Download ranges grow with the object up to here: AWS advises 8 to 16 MB.
pub const MAX_DEFAULT_RANGE_SIZE_BYTES: u64 = 16 * MIB;

/// Parts (or ranges) grow once an object has this many: enough to fill every lane, few enough that
/// listing and recording them stays cheap.
const COMFORTABLE_PARTS: u64 = 1000;

/// An object of this many parts keeps any number of connections busy to its end, so that fewer and
/// larger parts only save requests ...
const BUSY_PARTS: u64 = 128;

/// ... which are a tenth of what a part of 8 MiB costs on a fast network, and of larger ones than this
/// hardly anything.
const LARGE_ENOUGH_BYTES: u64 = 16 * MIB;

/// The most ranges a download is cut into when nobody asks for more: it bounds the manifest.
pub const MAX_DEFAULT_RANGES: u64 = 100_000;

/// Ranges that follow an object's own parts stay at or above this, where requests start to cost more
/// than the alignment gives.
const MIN_ALIGNED_RANGE_SIZE_BYTES: u64 = 4 * MIB;

/// Ranges that follow an object's own parts stay at or below this.
const MAX_ALIGNED_RANGE_SIZE_BYTES: u64 = 64 * MIB;

/// Offsets at multiples of this can be written past the page cache.
const DIRECT_IO_ALIGNMENT_BYTES: u64 = 4096;

/// The most parts any plan has: one past the last number is still a `u32`.
const MAX_COUNT: u32 = u32::MAX - 1;

/// Part sizes in MB (10^6 bytes) that uploaders with decimal units commonly use.
const COMMON_DECIMAL_SIZES_MB: [u64; 11] = [5, 8, 10, 16, 25, 50, 64, 100, 128, 500, 1000];

/// One part: its number, and where its bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Part {
    /// 1-based, as S3 counts.
    pub number: u32,
    /// Where it begins in the object.
    pub offset_bytes: u64,
    /// How long it is. Zero only in the plan of an empty object.
    pub len_bytes: u64,
}

impl Part {
    /// The offset one past its last byte.
    pub fn end_bytes(&self) -> u64 {
        self.offset_bytes + self.len_bytes
    }
}

/// The parts of one object: at least one, equal in size but for the last, in order and without gaps.
///
/// Only [`upload`] and [`download`] make one, so whoever holds a plan holds one that the store accepts.
/// An empty object is one part of no bytes, as S3 knows no upload of no parts.
///
/// ```
/// use brigade::{limits::{MIB, StoreProfile}, plan};
///
/// let plan = plan::upload(20 * MIB, None, &StoreProfile::aws())?;
/// let lengths: Vec<_> = plan.parts().map(|part| part.len_bytes / MIB).collect();
/// assert_eq!(lengths, [8, 8, 4]);
/// assert_eq!(plan.part(3).map(|part| part.offset_bytes), Some(16 * MIB));
/// # Ok::<(), plan::PlanError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Plan {
    size_bytes: u64,
    // At least 1, also for an empty object.
    part_size_bytes: u64,
    count: u32,
    single: bool,
}

impl Plan {
    /// The object's size.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// The size of every part but the last, which may be smaller.
    pub fn part_size_bytes(&self) -> u64 {
        self.part_size_bytes
    }

    /// How many parts there are, at least 1.
    pub fn part_count(&self) -> u32 {
        self.count
    }

    /// Whether one request moves it all: a `PutObject` that the store accepts, or one GET.
    ///
    /// A plan of one part may still not be single, where the part is larger than the store lets
    /// `PutObject` be; it is then a multipart upload of one part.
    pub fn is_single(&self) -> bool {
        self.single
    }

    /// The part of that number, from 1; `None` past the end and for 0.
    pub fn part(&self, number: u32) -> Option<Part> {
        let index = number.checked_sub(1).filter(|_| number <= self.count)?;
        let offset_bytes = u64::from(index) * self.part_size_bytes;
        let len_bytes = self.part_size_bytes.min(self.size_bytes - offset_bytes);
        Some(Part { number, offset_bytes, len_bytes })
    }

    /// All parts, in order.
    pub fn parts(&self) -> Parts {
        Parts { plan: *self, next: 1, back: self.count + 1 }
    }

    fn new(size_bytes: u64, part_size_bytes: u64) -> Option<Self> {
        if part_size_bytes == 0 {
            return None;
        }
        let count = size_bytes.div_ceil(part_size_bytes).max(1);
        let count = u32::try_from(count).ok().filter(|count| *count <= MAX_COUNT)?;
        Some(Self { size_bytes, part_size_bytes, count, single: count == 1 })
    }
}

/// The parts of a [`Plan`], in order; from [`Plan::parts`].
#[derive(Debug, Clone)]
pub struct Parts {
    plan: Plan,
    next: u32,
    /// One past the last number still to come.
    back: u32,
}

impl Iterator for Parts {
    type Item = Part;

    fn next(&mut self) -> Option<Part> {
        let part = self.plan.part(self.next).filter(|_| self.next < self.back)?;
        self.next += 1;
        Some(part)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = (self.back - self.next) as usize;
        (left, Some(left))
    }

    fn nth(&mut self, skip: usize) -> Option<Part> {
        let skip = u32::try_from(skip).unwrap_or(u32::MAX);
        self.next = self.next.saturating_add(skip).min(self.back);
        self.next()
    }
}

impl DoubleEndedIterator for Parts {
    fn next_back(&mut self) -> Option<Part> {
        let part = self.plan.part(self.back - 1).filter(|_| self.next < self.back)?;
        self.back -= 1;
        Some(part)
    }
}

impl ExactSizeIterator for Parts {}

/// Plans an upload of `size_bytes` to the store that `profile` describes, in parts of the size asked
/// for or else of a sensible one.
///
/// Left to itself it takes 8 MiB, from 1 GiB on up to 16 MiB, from about 16 GiB on a thousandth of the
/// object, at 64 MiB stops growing, and goes further only as the store's number of parts demands; always whole MiB where the
/// limits permit.
///
/// A size asked for is kept exactly, or refused.
///
/// # Errors
/// [`PlanError`], where the store cannot hold the object or the size asked for cannot work; it then
/// names the smallest that does. A size below the store's minimum is fine for an object it holds in
/// one part; one above the maximum never is.
///
/// ```
/// use brigade::{limits::{MIB, StoreProfile, TIB}, plan};
///
/// let aws = StoreProfile::aws();
/// assert_eq!(plan::upload(5 * TIB, None, &aws)?.part_size_bytes(), 525 * MIB);
/// assert_eq!(
///     plan::upload(5 * TIB, Some(25 * MIB), &aws).unwrap_err().to_string(),
///     "part size 25.0 MiB would need 209716 parts of the 10000 that aws allows; \
///      the smallest that works is 525 MiB"
/// );
/// # Ok::<(), plan::PlanError>(())
/// ```
pub fn upload(
    size_bytes: u64,
    asked_part_size_bytes: Option<u64>,
    profile: &StoreProfile,
) -> Result<Plan, PlanError> {
    let limit_bytes = profile.largest_object_bytes();
    if size_bytes > limit_bytes {
        return Err(PlanError::ObjectTooLarge {
            size_bytes,
            limit_bytes,
            store: profile.name.clone(),
        });
    }
    let part_size_bytes = asked_part_size_bytes.map_or_else(
        || Ok(default_part_size(size_bytes, profile)),
        |asked_bytes| accepted(size_bytes, asked_bytes, profile),
    )?;
    let plan = numbered(size_bytes, part_size_bytes)?;
    Ok(Plan { single: plan.single && size_bytes <= profile.max_single_put_bytes, ..plan })
}

/// Plans a download of `size_bytes` in ranges of the size asked for or else of a sensible one.
///
/// Left to itself it takes 8 MiB, from 1 GiB on up to 16 MiB, and beyond 100,000 ranges as far
/// as needed. Where the object's own part size is known, ranges follow it: a range that is a part can
/// be held against that part's checksum, and one inside a part is read from one place. Small parts
/// (below 4 MiB) are joined, large ones (above 64 MiB) cut evenly, where that is possible.
///
/// # Errors
/// [`PlanError`], where a size asked for is zero or makes more ranges than a `u32` numbers.
///
/// ```
/// use brigade::{limits::MIB, plan};
///
/// let size = |own| plan::download(4000 * MIB, None, own).map(|plan| plan.part_size_bytes() / MIB);
/// assert_eq!(size(None)?, 16);
/// assert_eq!(size(Some(25 * MIB))?, 25); // the object's own parts
/// assert_eq!(size(Some(100 * MIB))?, 50); // halves of them
/// assert_eq!(size(Some(3 * MIB))?, 15); // fives of them
/// # Ok::<(), plan::PlanError>(())
/// ```
pub fn download(
    size_bytes: u64,
    asked_range_size_bytes: Option<u64>,
    object_part_size_bytes: Option<u64>,
) -> Result<Plan, PlanError> {
    let range_size_bytes = asked_range_size_bytes
        .unwrap_or_else(|| default_range_size(size_bytes, object_part_size_bytes));
    numbered(size_bytes, range_size_bytes)
}

/// The plan that two recorded numbers stand for; `None` for numbers that no plan has. Single it is
/// never: what goes in one request needs no record.
pub(crate) fn restore(size_bytes: u64, part_size_bytes: u64) -> Option<Plan> {
    let plan = Plan::new(size_bytes, part_size_bytes)?;
    Some(Plan { single: false, ..plan })
}

/// The part size an uploader probably used, from an object's size and the N of its `ETag`'s `-N`.
///
/// `Some` where just one whole number of MiB, or of the decimal sizes some tools use, makes N parts of
/// that size; for one part it is the object's size. `None` where several do (few parts), or none.
///
/// It stays a guess: good for aligning ranges and for trying an MD5, where a match is proof. A
/// mismatch under a guessed part size proves nothing.
///
/// ```
/// use brigade::{limits::{GIB, MIB}, plan::infer_part_size};
///
/// assert_eq!(infer_part_size(GIB, 128), Some(8 * MIB));
/// assert_eq!(infer_part_size(100 * MIB, 2), None); // 50 to 99 MiB all do
/// ```
pub fn infer_part_size(size_bytes: u64, parts: u32) -> Option<u64> {
    if size_bytes == 0 || parts == 0 {
        return None;
    }
    if parts == 1 {
        return Some(size_bytes);
    }
    // parts − 1 parts fall short of the object and `parts` cover it.
    let fits = size_bytes.div_ceil(parts.into())..=(size_bytes - 1) / u64::from(parts - 1);
    let first_mib = fits.start().div_ceil(MIB);
    let mut candidates = (first_mib..=fits.end() / MIB)
        .map(|mib| mib * MIB)
        .chain(COMMON_DECIMAL_SIZES_MB.into_iter().map(|mb| mb * 1_000_000))
        .filter(|candidate_bytes| fits.contains(candidate_bytes));
    let only = candidates.next()?;
    candidates.next().is_none().then_some(only)
}

/// Why no plan could be made. Each message is one line that names the way out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// The store cannot hold such an object, in whatever parts.
    #[error(
        "the object has {} ({size_bytes} bytes), more than the {} that {store} can hold",
        format_size(*size_bytes),
        format_size(*limit_bytes)
    )]
    ObjectTooLarge {
        /// The object's size.
        size_bytes: u64,
        /// The largest that fits.
        limit_bytes: u64,
        /// The profile's name.
        store: String,
    },
    /// The part size asked for is outside the store's range.
    #[error(
        "part size {} is outside the {} to {} that {store} allows; {}",
        format_size(*asked_bytes),
        format_size(*min_bytes),
        format_size(*max_bytes),
        if asked_bytes > max_bytes {
            format!("the largest that works is {}", at_most(*max_bytes))
        } else {
            format!("the smallest that works is {}", advised(*smallest_bytes, *max_bytes))
        }
    )]
    PartSizeOutOfRange {
        /// What was asked for.
        asked_bytes: u64,
        /// The store's smallest.
        min_bytes: u64,
        /// The store's largest.
        max_bytes: u64,
        /// The smallest that works for this object.
        smallest_bytes: u64,
        /// The profile's name.
        store: String,
    },
    /// The part size asked for makes more parts than the store allows.
    #[error(
        "part size {} would need {parts} parts of the {max_parts} that {store} allows; \
         the smallest that works is {}",
        format_size(*asked_bytes),
        advised(*smallest_bytes, *max_bytes)
    )]
    TooManyParts {
        /// What was asked for.
        asked_bytes: u64,
        /// How many parts that makes.
        parts: u64,
        /// The store's limit.
        max_parts: u32,
        /// The store's largest part.
        max_bytes: u64,
        /// The smallest that works for this object.
        smallest_bytes: u64,
        /// The profile's name.
        store: String,
    },
    /// The range size asked for is zero, or makes more ranges than can be numbered.
    #[error(
        "range size {} makes too many ranges; the smallest that works is {}",
        format_size(*asked_bytes),
        advised(*smallest_bytes, u64::MAX)
    )]
    TooManyRanges {
        /// What was asked for.
        asked_bytes: u64,
        /// The smallest that works for this object.
        smallest_bytes: u64,
    },
}

impl PlanError {
    /// The smallest part size that works, exact to the byte (messages round it up to whole MiB);
    /// `None` where none does.
    pub fn smallest_bytes(&self) -> Option<u64> {
        match self {
            Self::ObjectTooLarge { .. } => None,
            Self::PartSizeOutOfRange { smallest_bytes, .. }
            | Self::TooManyParts { smallest_bytes, .. }
            | Self::TooManyRanges { smallest_bytes, .. } => Some(*smallest_bytes),
        }
    }

    /// The same as an [`Error`] of kind [`ErrorKind::InvalidInput`].
    pub fn into_error(self, operation: &'static str, target: impl Into<String>) -> Error {
        Error::new(ErrorKind::InvalidInput, operation, target, self.to_string()).caused_by(self)
    }
}

/// A size that works as it is printed: the limit itself, or the whole MiB below it.
fn at_most(limit_bytes: u64) -> String {
    let shown = format_size(limit_bytes);
    match parse_size(&shown) {
        Ok(read_bytes) if read_bytes <= limit_bytes => shown,
        _ => format!("{} MiB", limit_bytes / MIB),
    }
}

/// The part size asked for, if the store takes it for an object of this size.
fn accepted(size_bytes: u64, asked_bytes: u64, profile: &StoreProfile) -> Result<u64, PlanError> {
    let (min_bytes, max_bytes) = (profile.min_part_size_bytes, profile.max_part_size_bytes);
    let smallest_bytes = if size_bytes <= min_bytes {
        // One part, which as the last may be below the minimum.
        size_bytes.max(1)
    } else {
        min_bytes.max(size_bytes.div_ceil(profile.max_parts.into()))
    };
    let store = || profile.name.clone();
    if asked_bytes > max_bytes || asked_bytes < smallest_bytes.min(min_bytes) {
        Err(PlanError::PartSizeOutOfRange {
            asked_bytes,
            min_bytes,
            max_bytes,
            smallest_bytes,
            store: store(),
        })
    } else if asked_bytes < smallest_bytes {
        Err(PlanError::TooManyParts {
            asked_bytes,
            parts: size_bytes.div_ceil(asked_bytes),
            max_parts: profile.max_parts,
            max_bytes,
            smallest_bytes,
            store: store(),
        })
    } else {
        Ok(asked_bytes)
    }
}

/// The part size for an object that the store can hold, when nobody asks for one.
fn default_part_size(size_bytes: u64, profile: &StoreProfile) -> u64 {
    let wanted = paced(size_bytes, MAX_DEFAULT_PART_SIZE_BYTES);
    let needed = size_bytes.div_ceil(profile.max_parts.into());
    whole_mib(wanted.max(needed).max(profile.min_part_size_bytes)).min(profile.max_part_size_bytes)
}

/// The range size when nobody asks for one.
fn default_range_size(size_bytes: u64, object_part_size_bytes: Option<u64>) -> u64 {
    let wanted = paced(size_bytes, MAX_DEFAULT_RANGE_SIZE_BYTES);
    let needed = size_bytes.div_ceil(MAX_DEFAULT_RANGES);
    object_part_size_bytes
        // An object of one part has no boundaries to follow.
        .filter(|own_bytes| *own_bytes > 0 && *own_bytes < size_bytes)
        .and_then(|own_bytes| aligned(own_bytes, wanted, needed))
        .unwrap_or_else(|| whole_mib(wanted.max(needed)))
}

/// A range size that begins and ends where the object's own parts do, or cuts them evenly; near
/// `wanted_bytes` and not below `needed_bytes`. `None` where own parts have no such cut.
fn aligned(own_bytes: u64, wanted_bytes: u64, needed_bytes: u64) -> Option<u64> {
    if own_bytes < MIN_ALIGNED_RANGE_SIZE_BYTES.max(needed_bytes) {
        let joined = (wanted_bytes / own_bytes).max(needed_bytes.div_ceil(own_bytes));
        return own_bytes.checked_mul(joined);
    }
    let page_aligned = |bytes: u64| bytes.is_multiple_of(DIRECT_IO_ALIGNMENT_BYTES);
    let smallest = MIN_ALIGNED_RANGE_SIZE_BYTES.max(needed_bytes);
    // Even cuts, the largest first; at most 100,000 numbers are tried, as `needed_bytes` says.
    let mut cuts = (1..=own_bytes / smallest)
        .filter(|pieces| own_bytes.is_multiple_of(*pieces))
        .map(|pieces| own_bytes / pieces)
        .filter(|range| page_aligned(*range) || !page_aligned(own_bytes));
    let comfortable = cuts.clone().find(|range| *range <= MAX_ALIGNED_RANGE_SIZE_BYTES);
    // Objects so large that more than 64 MiB is needed: the smallest cut that is not much more.
    comfortable.or_else(|| cuts.rfind(|range| *range <= needed_bytes.saturating_mul(2)))
}

/// Whole MiB within the defaults' bounds: a thousandth of the object, and up to 16 MiB a hundredth.
fn paced(size_bytes: u64, largest_bytes: u64) -> u64 {
    let quick = (size_bytes / BUSY_PARTS).min(LARGE_ENOUGH_BYTES) / MIB * MIB;
    whole_mib(size_bytes.div_ceil(COMFORTABLE_PARTS))
        .max(quick)
        .clamp(DEFAULT_PART_SIZE_BYTES, largest_bytes)
}

/// Rounded up to whole MiB.
fn whole_mib(bytes: u64) -> u64 {
    bytes.checked_next_multiple_of(MIB).unwrap_or(bytes)
}

/// The plan, if each part gets a number.
fn numbered(size_bytes: u64, part_size_bytes: u64) -> Result<Plan, PlanError> {
    Plan::new(size_bytes, part_size_bytes).ok_or_else(|| PlanError::TooManyRanges {
        asked_bytes: part_size_bytes,
        smallest_bytes: size_bytes.div_ceil(MAX_COUNT.into()).max(1),
    })
}

/// The smallest size that works, as a person would type it: whole MiB where those are allowed.
fn advised(smallest_bytes: u64, max_bytes: u64) -> String {
    let whole = whole_mib(smallest_bytes);
    if smallest_bytes >= MIB && whole.is_multiple_of(MIB) && whole <= max_bytes {
        format!("{} MiB", whole / MIB)
    } else {
        format!("{smallest_bytes} B")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{GIB, KIB, TIB};
    use proptest::prelude::*;

    /// Sizes of every magnitude up to AWS's largest object, and the ones around a multiple.
    fn sizes() -> impl Strategy<Value = u64> {
        let largest = 10_000 * 5 * GIB;
        let any_magnitude = (0u32..=45, any::<u64>())
            .prop_map(move |(bits, noise)| ((1 << bits) + noise % (1 << bits)).min(largest));
        let near_a_multiple =
            (1..10_000u64, prop::sample::select(vec![5 * MIB, 8 * MIB, 64 * MIB]))
                .prop_flat_map(|(count, part)| (count * part - 1)..=(count * part + 1));
        prop_oneof![0..=largest, any_magnitude, near_a_multiple]
    }

    fn profiles() -> impl Strategy<Value = StoreProfile> {
        let names: Vec<_> = StoreProfile::names().collect();
        prop::sample::select(names).prop_map(|name| StoreProfile::named(name).unwrap())
    }

    fn part_sizes() -> impl Strategy<Value = u64> {
        prop_oneof![0..10 * MIB, 0..6 * GIB, (0..100u64).prop_map(|mib| mib * MIB)]
    }

    /// Parts cover the object exactly and in order, whatever made the plan.
    fn check_cover(plan: &Plan) {
        // Walking 48 TiB part by part is for the first, the last and a sample in between.
        let count = plan.part_count();
        let numbers = (1..=count.min(64)).chain(count.saturating_sub(3).max(1)..=count);
        for number in numbers {
            let part = plan.part(number).unwrap();
            assert_eq!(part.number, number);
            let begin = number.checked_sub(1).and_then(|before| plan.part(before));
            assert_eq!(part.offset_bytes, begin.map_or(0, |before| before.end_bytes()));
            assert!(part.len_bytes > 0 || plan.size_bytes() == 0);
            assert!(part.len_bytes <= plan.part_size_bytes());
            assert!(number == count || part.len_bytes == plan.part_size_bytes());
        }
        assert_eq!(plan.part(count).unwrap().end_bytes(), plan.size_bytes());
        assert_eq!((plan.part(0), plan.part(count + 1)), (None, None));
        assert_eq!(plan.parts().len(), count as usize);
    }

    fn check_limits(plan: &Plan, profile: &StoreProfile) {
        assert!(plan.part_count() <= profile.max_parts);
        assert!(plan.part_size_bytes() <= profile.max_part_size_bytes);
        assert!(plan.part_count() == 1 || plan.part_size_bytes() >= profile.min_part_size_bytes);
        assert!(!plan.is_single() || plan.size_bytes() <= profile.max_single_put_bytes);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1024))]

        #[test]
        fn a_default_upload_fits_every_store(size_bytes in sizes(), profile in profiles()) {
            match upload(size_bytes, None, &profile) {
                Ok(plan) => {
                    check_cover(&plan);
                    check_limits(&plan, &profile);
                    prop_assert!(plan.part_size_bytes().is_multiple_of(MIB));
                }
                Err(error) => {
                    let too_large = matches!(error, PlanError::ObjectTooLarge { .. });
                    prop_assert!(too_large && size_bytes > profile.largest_object_bytes());
                }
            }
        }

        #[test]
        fn an_asked_part_size_is_kept_or_the_smallest_is_named(
            size_bytes in sizes(), asked in part_sizes(), profile in profiles()
        ) {
            match upload(size_bytes, Some(asked), &profile) {
                Ok(plan) => {
                    prop_assert_eq!(plan.part_size_bytes(), asked);
                    check_cover(&plan);
                    check_limits(&plan, &profile);
                }
                Err(PlanError::ObjectTooLarge { .. }) => {
                    prop_assert!(size_bytes > profile.largest_object_bytes());
                }
                Err(error) => {
                    let smallest = error.smallest_bytes().unwrap();
                    let plan = upload(size_bytes, Some(smallest), &profile).unwrap();
                    check_limits(&plan, &profile);
                    prop_assert!(upload(size_bytes, Some(smallest - 1), &profile).is_err());
                    // What the message says works as well, typed as it is printed.
                    let message = error.to_string();
                    let (_, printed) = message.rsplit_once("works is ").unwrap();
                    let printed = parse_size(printed).unwrap();
                    prop_assert!(upload(size_bytes, Some(printed), &profile).is_ok());
                }
            }
        }

        #[test]
        fn a_download_covers_the_object(
            size_bytes in sizes(),
            asked in prop::option::of(part_sizes()),
            own in prop::option::of(0..6 * GIB),
        ) {
            match download(size_bytes, asked, own) {
                Ok(plan) => {
                    check_cover(&plan);
                    prop_assert!(asked.is_none_or(|asked| plan.part_size_bytes() == asked));
                    let bounded = u64::from(plan.part_count()) <= MAX_DEFAULT_RANGES;
                    prop_assert!(asked.is_some() || bounded, "{} ranges", plan.part_count());
                }
                Err(error) => {
                    let smallest = error.smallest_bytes().unwrap();
                    prop_assert!(asked.is_some_and(|asked| asked < smallest));
                    prop_assert!(download(size_bytes, Some(smallest), own).is_ok());
                    prop_assert!(download(size_bytes, Some(smallest - 1), own).is_err());
                }
            }
        }

        #[test]
        fn ranges_never_straddle_the_objects_parts(
            parts in 2..10_000u64, own in 1..=1024u64, last in 1..=MIB
        ) {
            let own = own * MIB;
            let size_bytes = (parts - 1) * own + last;
            let range = download(size_bytes, None, Some(own)).unwrap().part_size_bytes();
            let cuts_evenly = own.is_multiple_of(range) || range.is_multiple_of(own);
            // Whole MiB can always be halved down to below 64 MiB and stay whole pages, but halving
            // stops where it would make too many ranges.
            prop_assert!(cuts_evenly || size_bytes > 6 * TIB, "{own} by {range}");
        }

        #[test]
        fn the_part_size_of_real_uploads_is_inferred_or_unknown(
            parts in 1..10_000u32, part_mib in 5..600u64, last in 1..=MIB
        ) {
            let size_bytes = u64::from(parts - 1) * part_mib * MIB + last;
            if let Some(inferred) = infer_part_size(size_bytes, parts) {
                let truth = if parts == 1 { size_bytes } else { part_mib * MIB };
                prop_assert_eq!(inferred, truth);
            }
        }
    }

    #[test]
    fn default_part_sizes_grow_as_documented() {
        let aws = StoreProfile::aws();
        for (size_bytes, part_mib) in [
            (0, 8),
            (1, 8),
            (8 * MIB + 1, 8),
            (GIB + 128 * MIB, 9),
            (2 * GIB, 16),
            (8 * GIB, 16),
            (16 * GIB, 17),
            (32 * GIB, 33),
            (100 * GIB, 64),
            (625 * GIB, 64),
            (626 * GIB, 65),
            (5 * TIB, 525),
            (10_000 * 5 * GIB, 5 * 1024),
        ] {
            let plan = upload(size_bytes, None, &aws).unwrap();
            assert_eq!(plan.part_size_bytes(), part_mib * MIB, "{size_bytes}");
        }
        let storj = StoreProfile::named("storj").unwrap();
        assert_eq!(upload(65 * MIB, None, &storj).unwrap().part_size_bytes(), 64 * MIB);
        let scaleway = StoreProfile::named("scaleway").unwrap();
        assert_eq!(upload(TIB, None, &scaleway).unwrap().part_size_bytes(), 1049 * MIB);
    }

    #[test]
    fn limits_that_are_not_whole_mib_are_kept() {
        let profile = StoreProfile {
            min_part_size_bytes: 10_000_000,
            max_part_size_bytes: 10_000_000,
            ..StoreProfile::aws()
        };
        let plan = upload(GIB, None, &profile).unwrap();
        assert_eq!((plan.part_size_bytes(), plan.part_count()), (10_000_000, 108));
        let error = upload(GIB, Some(KIB), &profile).unwrap_err().to_string();
        assert!(error.ends_with("the smallest that works is 10000000 B"), "{error}");
    }

    #[test]
    fn what_one_request_can_move_is_single() {
        let aws = StoreProfile::aws();
        let single = |size_bytes, asked| upload(size_bytes, asked, &aws).unwrap().is_single();
        assert!(single(0, None) && single(1, None) && single(8 * MIB, None));
        assert!(!single(8 * MIB + 1, None));
        // Below the store's minimum is fine when there is but one part.
        assert!(single(100, Some(100)) && single(100, Some(KIB)));
        let profile = StoreProfile { max_single_put_bytes: MIB, ..aws };
        let plan = upload(2 * MIB, None, &profile).unwrap();
        assert_eq!((plan.part_count(), plan.is_single()), (1, false), "one part, but no PutObject");
    }

    #[test]
    fn an_empty_object_is_one_empty_part() {
        let empty = Part { number: 1, offset_bytes: 0, len_bytes: 0 };
        let aws = StoreProfile::aws();
        for plan in [upload(0, None, &aws).unwrap(), download(0, None, None).unwrap()] {
            assert_eq!(plan.parts().collect::<Vec<_>>(), [empty]);
            assert!(plan.is_single());
        }
    }

    #[test]
    fn errors_are_one_line_and_name_the_way_out() {
        let storj = StoreProfile::named("storj").unwrap();
        assert_eq!(
            upload(GIB, Some(8 * MIB), &storj).unwrap_err().to_string(),
            "part size 8.0 MiB is outside the 64.0 MiB to 5.0 GiB that storj allows; \
             the smallest that works is 64 MiB"
        );
        let error = upload(50 * TIB, None, &StoreProfile::aws()).unwrap_err();
        let error = error.into_error("upload", "big.img");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert_eq!(
            error.to_string(),
            "upload big.img: the object has 50.0 TiB (54975581388800 bytes), \
             more than the 48.8 TiB that aws can hold"
        );
    }

    #[test]
    fn ranges_follow_the_objects_own_parts() {
        let range =
            |size_bytes, own| download(size_bytes, None, Some(own)).unwrap().part_size_bytes();
        assert_eq!(range(GIB, 64 * MIB), 64 * MIB);
        assert_eq!(range(5 * TIB, 525 * MIB), 525 * MIB / 10, "an even cut in whole pages");
        assert_eq!(range(10_000 * 5 * GIB, 5 * GIB), 512 * MIB, "few enough ranges");
        assert_eq!(range(GIB, MIB), 8 * MIB, "small parts are joined");
        assert_eq!(range(GIB, GIB), 8 * MIB, "one part has no boundaries");
        assert_eq!(range(GIB, 64 * MIB + 15), 8 * MIB, "a prime has no even cut");
        assert_eq!(range(GIB, 0), 8 * MIB);
        assert_eq!(download(48 * TIB, None, None).unwrap().part_count(), 99_865);
    }

    #[test]
    fn parts_iterate_from_both_ends() {
        let plan = upload(50 * MIB, None, &StoreProfile::aws()).unwrap();
        let forward: Vec<_> = plan.parts().map(|part| part.number).collect();
        let mut backward: Vec<_> = plan.parts().rev().map(|part| part.number).collect();
        backward.reverse();
        assert_eq!(forward, [1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(forward, backward);
        let mut parts = plan.parts();
        assert_eq!(parts.nth(2).map(|part| part.number), Some(3));
        assert_eq!((parts.len(), parts.next_back().map(|part| part.number)), (4, Some(7)));
        assert_eq!((parts.nth(9), parts.next(), parts.next_back()), (None, None, None));
    }

    #[test]
    fn part_sizes_are_inferred_only_where_one_fits() {
        assert_eq!(infer_part_size(100 * MIB, 13), Some(8 * MIB));
        assert_eq!(infer_part_size(8_000_000 * 150 - 1, 150), Some(8_000_000));
        assert_eq!(infer_part_size(7, 1), Some(7));
        for (size_bytes, parts) in [(0, 1), (GIB, 0), (GIB, 2), (5, 5), (100, 3)] {
            assert_eq!(infer_part_size(size_bytes, parts), None, "{size_bytes} in {parts}");
        }
    }
}
