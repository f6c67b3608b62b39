//! How large a stream's parts are, and so how much it may bring.

use crate::limits::{MIB, StoreProfile};
use crate::options::StreamOptions;
use crate::plan::{self, DEFAULT_PART_SIZE_BYTES, MAX_DEFAULT_PART_SIZE_BYTES, Part};

/// Parts that the budget should hold at a time: enough to keep connections busy.
const PARTS_IN_MEMORY: u64 = 12;

/// What parts grow to, in sizes of the first ones, each over an equal share of the numbers.
const GROWTH: [u64; 4] = [1, 2, 3, 4];

/// How large the parts are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sizes {
    pub(super) first_bytes: u64,
    grows: bool,
    pub(super) max_parts: u32,
    max_part_bytes: u64,
    pub(super) max_object_bytes: u64,
}

impl Sizes {
    pub(super) fn choose(
        options: &StreamOptions,
        profile: &StoreProfile,
        memory_bytes: u64,
    ) -> Result<Self, plan::PlanError> {
        let asked = options.upload.part_size_bytes;
        let (first_bytes, grows) = match (asked, options.expected_size_bytes) {
            // Also finds out whether the store takes parts of that size.
            (Some(asked), expected) => {
                let least = expected.unwrap_or_else(|| asked.saturating_add(1));
                (plan::upload(least, Some(asked), profile)?.part_size_bytes(), false)
            }
            (None, Some(expected)) => {
                (plan::upload(expected, None, profile)?.part_size_bytes(), false)
            }
            (None, None) => {
                let share = memory_bytes / PARTS_IN_MEMORY / MIB * MIB;
                let share = share.clamp(DEFAULT_PART_SIZE_BYTES, MAX_DEFAULT_PART_SIZE_BYTES);
                let (least, most) = (profile.min_part_size_bytes, profile.max_part_size_bytes);
                (share.max(least).min(most), !profile.equal_parts)
            }
        };
        Ok(Self {
            first_bytes,
            grows,
            max_parts: profile.max_parts,
            // The memory holds two of the largest, or they would go one after the other.
            max_part_bytes: profile.max_part_size_bytes.min((memory_bytes / 2).max(first_bytes)),
            max_object_bytes: profile.max_object_size_bytes,
        })
    }

    /// Of part `number`, from 1.
    pub(super) fn of(&self, number: u32) -> u64 {
        let share = self.max_parts.div_ceil(4).max(1);
        let step = usize::try_from((number - 1) / share).unwrap_or(GROWTH.len() - 1);
        let times = if self.grows { GROWTH[step.min(GROWTH.len() - 1)] } else { 1 };
        self.first_bytes.saturating_mul(times).min(self.max_part_bytes)
    }

    /// The most that all parts hold together.
    pub(super) fn reach_bytes(&self) -> u64 {
        let all =
            (1..=self.max_parts).fold(0_u64, |all, number| all.saturating_add(self.of(number)));
        all.min(self.max_object_bytes)
    }

    /// All parts, as if each were full.
    pub(super) fn parts(&self) -> impl Iterator<Item = Part> + use<> {
        let sizes = *self;
        (1..=sizes.max_parts).scan(0, move |offset, number| {
            let part = Part { number, offset_bytes: *offset, len_bytes: sizes.of(number) };
            *offset += part.len_bytes;
            Some(part)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::GIB;
    use crate::options::UploadOptions;

    fn sizes(options: StreamOptions, profile: &StoreProfile, memory_bytes: u64) -> Sizes {
        Sizes::choose(&options, profile, memory_bytes).expect("they work")
    }

    #[test]
    fn parts_follow_the_memory_and_grow_where_they_may() {
        let aws = StoreProfile::aws();
        let plain = sizes(StreamOptions::default(), &aws, 96 * MIB);
        assert_eq!((plain.of(1), plain.of(2500), plain.of(2501)), (8 * MIB, 8 * MIB, 16 * MIB));
        assert_eq!((plain.of(7501), plain.of(10_000)), (32 * MIB, 32 * MIB));
        assert_eq!(plain.reach_bytes(), 2500 * 80 * MIB);
        let all: u64 = plain.parts().map(|part| part.len_bytes).sum();
        assert_eq!(all, plain.reach_bytes());
        let equal = StoreProfile { equal_parts: true, ..aws.clone() };
        assert_eq!(sizes(StreamOptions::default(), &equal, 96 * MIB).reach_bytes(), 80_000 * MIB);
        let little = sizes(StreamOptions::default(), &aws, 16 * MIB);
        assert_eq!((little.of(1), little.of(10_000)), (8 * MIB, 8 * MIB));
        assert_eq!(sizes(StreamOptions::default(), &aws, 64 * GIB).of(1), 64 * MIB);
        let few = StoreProfile { max_parts: 2, ..aws };
        assert_eq!(sizes(StreamOptions::default(), &few, 96 * MIB).parts().count(), 2);
    }

    #[test]
    fn what_is_expected_fits() {
        let aws = StoreProfile::aws();
        let expecting = |expected_size_bytes| StreamOptions {
            expected_size_bytes: Some(expected_size_bytes),
            ..StreamOptions::default()
        };
        for expected in [0, 1, 80 * GIB, 1 << 40] {
            assert!(sizes(expecting(expected), &aws, 96 * MIB).reach_bytes() >= expected);
        }
        let upload = UploadOptions { part_size_bytes: Some(5 * MIB), ..UploadOptions::default() };
        let options = StreamOptions { upload, ..expecting(80 * GIB) };
        assert!(Sizes::choose(&options, &aws, 96 * MIB).is_err());
    }
}
