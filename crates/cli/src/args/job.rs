//! Options of commands that move many objects, as typed.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::filter::FilterArgs;
use super::{CpArgs, OutputArgs, StoreArgs};

/// What `cp -r`, `mv -r` and `sync` have in common.
// Each is one independent switch, as typed.
#[allow(clippy::struct_excessive_bools)]
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Many objects")]
pub(crate) struct JobArgs {
    /// Only tell what would be done: every upload, download, copy and deletion.
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// Stop at the first object that fails. Without it, the rest goes on, and the exit code is 3.
    #[arg(long)]
    pub(crate) fail_fast: bool,

    /// Write what failed into this file, as lines of source, tab, target.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) failures: Option<PathBuf>,

    /// Take *, ? and [ in the source's key as they stand.
    #[arg(long)]
    pub(crate) no_glob: bool,

    /// Leave out symbolic links, each with a note. Without it, they are what they point to.
    #[arg(long)]
    pub(crate) no_follow_symlinks: bool,

    #[command(flatten)]
    pub(crate) filter: FilterArgs,
}

/// See [`super::Command::Sync`].
#[derive(Debug, Default, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct SyncArgs {
    #[command(flatten)]
    pub(crate) cp: CpArgs,

    /// Delete what only the target has: last, and never where a part of either side could not be seen or
    /// something failed.
    #[arg(long, help_heading = "Sync")]
    pub(crate) delete: bool,

    /// Delete nothing where more than this many would be.
    #[arg(long, value_name = "N", requires = "delete", help_heading = "Sync")]
    pub(crate) max_delete: Option<u64>,

    /// Take objects of the same size for the same, whatever their times.
    #[arg(long, help_heading = "Sync")]
    pub(crate) size_only: bool,

    /// Compare contents where sizes are the same: files are summed here as the store has recorded its objects,
    /// whatever the parts these were uploaded in. Nothing is downloaded for that.
    #[arg(long, conflicts_with = "size_only", help_heading = "Sync")]
    pub(crate) checksum: bool,
}

/// See [`super::Command::Verify`].
#[derive(Debug, Default, Args)]
#[command(after_help = VERIFY_EXAMPLES)]
pub(crate) struct VerifyArgs {
    /// The folder.
    #[arg(value_hint = ValueHint::DirPath)]
    pub(crate) folder: OsString,

    /// Where its objects are: s3://bucket/prefix.
    pub(crate) url: OsString,

    /// Leave out symbolic links, each with a note. Without it, they are what they point to.
    #[arg(long, help_heading = "Many objects")]
    pub(crate) no_follow_symlinks: bool,

    #[command(flatten)]
    pub(crate) filter: FilterArgs,

    #[command(flatten)]
    pub(crate) store: StoreArgs,

    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

const VERIFY_EXAMPLES: &str = "\
Examples:
  brigade verify photos s3://my-bucket/photos
  brigade verify photos s3://my-bucket/photos --json | jq -r 'select(.outcome != \"identical\")'
  brigade verify photos s3://my-bucket/photos --exclude '*.tmp'";

const EXAMPLES: &str = "\
Examples:
  brigade sync photos s3://my-bucket/photos --dry-run
  brigade sync photos s3://my-bucket/photos --delete --max-delete 100
  brigade sync s3://my-bucket/photos photos --size-only";
