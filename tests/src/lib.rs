//! What the black-box tests share: a sandbox with a store in it, the command under test, files that
//! are quick to make and to compare, and a relay that misbehaves between the two.
//!
//! Everything here fails the way a test does, by a panic that says what was expected.

// A test's way to fail is to panic.
#![allow(clippy::missing_panics_doc)]

pub mod boto3;
pub mod cli;
pub mod files;
pub mod moto;
pub mod peers;
pub mod python;
pub mod relay;
pub mod seaweedfs;
pub mod torture;
pub mod traps;
