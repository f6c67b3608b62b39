//! `brigade demo`, as typed.

use brigade::limits::parse_size;
use clap::Args;

use super::OutputArgs;

/// See [`super::Command::Demo`].
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DemoArgs {
    /// Size of the file to move.
    #[arg(long, value_name = "SIZE", value_parser = parse_size, default_value = "256MiB")]
    pub(crate) size: u64,

    /// Leave the files and the store's folder, and say where they are.
    #[arg(long)]
    pub(crate) keep: bool,

    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

const EXAMPLES: &str = "\
Examples:
  brigade demo
  brigade demo --size 2GiB
  brigade demo --keep --json";
