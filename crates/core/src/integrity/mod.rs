//! Checksums as data: what each algorithm can prove, computing it, and holding it against the store's.
//!
//! The engine moves one object as many ranges at once, so what matters of an algorithm is not its
//! strength but whether sums of ranges can be joined. The CRCs can: [`combine`] turns the CRCs of two
//! neighbours into the CRC of both, without the bytes. SHA-1, SHA-256 and MD5 need the bytes in order,
//! so over an object moved in parts they only give a [`composite`]: the hash of the parts' hashes,
//! which proves the bytes only together with where the parts began.
//!
//! "Verified" is a word people act on, so it has one source: [`compare`] and [`compare_md5`] are the
//! only functions that return [`Verified`] tiers above [`Verified::Unverified`]. What cannot be
//! compared (another algorithm, another type, another number of parts) is unverified, never a failure.
//!
//! ```
//! use brigade::integrity::{Algorithm, Checksum, Hasher, Verified, combine, compare};
//!
//! let sum = |bytes: &[u8]| {
//!     let mut hasher = Hasher::new(Algorithm::Crc32);
//!     hasher.update(bytes);
//!     hasher.finish()
//! };
//! // Two ranges of an object, summed apart and joined, equal what the store says of the whole.
//! let joined = combine(sum(b"1234"), sum(b"56789"), 5).expect("CRCs combine");
//! let expected = Checksum::parse(Algorithm::Crc32, "y/Q5Jg==", None)?;
//! assert_eq!(compare(&expected, &Checksum::full_object(joined))?, Verified::FullObject);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod algorithm;
mod checksum;
mod combine;
mod digest;
mod verify;

pub use algorithm::{Algorithm, UnknownAlgorithm};
pub use checksum::{Checksum, ChecksumType, InvalidChecksum, Md5ETag};
pub use combine::{combine, combine_all, composite};
pub use digest::{Digest, Hasher};
pub use verify::{Mismatch, Verified, compare, compare_md5};
