//! Chance that can be repeated.
//!
//! What is left to chance is drawn from a seed, from what it is about, and from how often that came by: the
//! same in every run with the same seed, whatever order things happen in.

use std::collections::HashMap;
use std::sync::Mutex;

use crate::locks::lock;

/// Most that are counted by themselves. Beyond it, the counting begins anew.
const MAX_COUNTED: usize = 1 << 20;

/// Draws for one purpose.
pub(crate) struct Draws {
    seed: u64,
    /// Tells draws from one seed for different purposes apart.
    purpose: u64,
    counts: Counts,
}

impl Draws {
    pub(crate) fn new(seed: u64, purpose: u64) -> Self {
        Self { seed, purpose, counts: Counts::default() }
    }

    /// A number from 0 to 1 for the next time that this comes by.
    pub(crate) fn draw(&self, identity: u64) -> f64 {
        unit([self.seed, self.purpose, identity, self.counts.count(identity)])
    }
}

/// How often each came by.
#[derive(Default)]
pub(crate) struct Counts(Mutex<HashMap<u64, u64>>);

impl Counts {
    /// Counts one more, and says how many that makes.
    pub(crate) fn count(&self, identity: u64) -> u64 {
        let mut counts = lock(&self.0);
        if counts.len() >= MAX_COUNTED {
            counts.clear();
        }
        let count = counts.entry(identity).or_default();
        *count += 1;
        *count
    }
}

/// FNV-1a, with ends marked. Not the standard library's, which may differ between releases: the same seed is
/// to give the same draws.
pub(crate) fn hash(fields: &[&[u8]]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for field in fields {
        let length = (field.len() as u64).to_le_bytes();
        for byte in field.iter().chain(&length) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash
}

/// A number from 0 to 1 that depends on all of these and looks random: `SplitMix64`'s steps.
fn unit(numbers: [u64; 4]) -> f64 {
    let mut mixed = 0_u64;
    for number in numbers {
        mixed = (mixed ^ number).wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
    }
    // The 53 bits that a float holds.
    (mixed >> 11) as f64 / (1_u64 << 53) as f64
}
