//! How a command tells what it does.

use clap::Args;

/// See the module.
// Each is one independent switch, as typed.
#[allow(clippy::struct_excessive_bools)]
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct OutputArgs {
    /// Print nothing but errors.
    #[arg(long, short, conflicts_with_all = ["json", "verbose"])]
    pub(crate) quiet: bool,

    /// Print JSON, one object a line: events, then a report or an error.
    #[arg(long)]
    pub(crate) json: bool,

    /// Show no progress; with --json, leave out the events of progress and parts.
    #[arg(long)]
    pub(crate) no_progress: bool,

    /// Tell more on standard error: repeated attempts, and progress where there is no terminal.
    #[arg(long, short)]
    pub(crate) verbose: bool,
}
