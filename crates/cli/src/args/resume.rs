//! `brigade resume`, as typed.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::OutputArgs;

/// See [`super::Command::Resume`].
#[derive(Debug, Default, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ResumeArgs {
    /// Folder where the transfers are recorded. [default: brigade in $XDG_STATE_HOME, or in
    /// ~/.local/state]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) manifest_dir: Option<PathBuf>,

    /// Only show what would be resumed; no store is asked anything.
    #[arg(long)]
    pub(crate) dry_run: bool,

    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

const EXAMPLES: &str = "\
Examples:
  brigade resume --dry-run
  brigade resume
  brigade resume --manifest-dir /var/lib/backup/brigade --json";
