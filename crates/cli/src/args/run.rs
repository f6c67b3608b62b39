//! `brigade run`, as typed.

use std::ffi::OsString;
use std::path::PathBuf;

use brigade::limits::parse_size;
use clap::{Args, ValueHint};

use super::{CpArgs, OutputArgs, Proof, StoreArgs};

/// See [`super::Command::Run`].
#[derive(Debug, Default, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RunArgs {
    /// The list, or - for standard input. Each line is a source, a tab and a target, as --failures writes them
    /// (\t, \n and \\ stand for what would end a name); or a command in a shell's words: cp SOURCE TARGET, mv SOURCE
    /// TARGET, rm URL. Empty lines and those that begin with # are left out.
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) list: OsString,

    /// Only tell what would be done: every upload, download, copy and deletion.
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// Stop at the first line that fails. Without it, the rest goes on, and the exit code is 3.
    #[arg(long)]
    pub(crate) fail_fast: bool,

    /// Write what failed into this file, as lines of source, tab, target.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) failures: Option<PathBuf>,

    /// Size of every part but the last, such as 16MiB; chosen by the object's size when not given.
    #[arg(long, value_name = "SIZE", value_parser = parse_size, help_heading = "Transfer")]
    pub(crate) part_size: Option<u64>,

    /// Parts in flight at most. Without it, as many as bring something, found while it runs.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..),
          help_heading = "Transfer")]
    pub(crate) concurrency: Option<u16>,

    /// How much proof is wanted: compare whatever can be compared, fail when nothing can, or
    /// compare nothing.
    #[arg(long, value_enum, value_name = "HOW", default_value = "auto", help_heading = "Transfer")]
    pub(crate) verify: Proof,

    /// Begin large objects anew, whatever an earlier run left of them.
    #[arg(long, help_heading = "Transfer")]
    pub(crate) no_resume: bool,

    #[command(flatten)]
    pub(crate) store: StoreArgs,

    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

impl RunArgs {
    /// How each line is carried out, as `cp` would have it.
    pub(crate) fn as_cp(&self) -> CpArgs {
        CpArgs {
            // Each line has its own.
            source: "-".into(),
            target: "-".into(),
            part_size: self.part_size,
            concurrency: self.concurrency,
            verify: self.verify,
            no_resume: self.no_resume,
            store: self.store.clone(),
            ..CpArgs::default()
        }
    }
}

const EXAMPLES: &str = "\
Examples:
  brigade cp -r photos s3://my-bucket/photos --failures failed.txt
  brigade run failed.txt
  printf 'cp a.bin s3://my-bucket/a\\nrm s3://my-bucket/b\\n' | brigade run -
  brigade run list.txt --dry-run";
