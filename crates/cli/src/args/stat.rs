//! `brigade stat`, as typed.

use clap::Args;

use super::{CustomerKeyArgs, OutputArgs, StoreArgs};

/// See [`super::Command::Stat`].
#[derive(Debug, Default, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct StatArgs {
    /// s3://bucket/key, or s3://bucket for the bucket itself.
    #[arg(value_name = "URL", required = true)]
    pub(crate) urls: Vec<String>,

    /// Which version of the object; the newest when not given.
    #[arg(long, value_name = "ID")]
    pub(crate) version_id: Option<String>,

    #[command(flatten)]
    pub(crate) key: CustomerKeyArgs,

    #[command(flatten)]
    pub(crate) store: StoreArgs,

    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

const EXAMPLES: &str = "\
Examples:
  brigade stat s3://my-bucket/backups/monday.tar
  brigade stat s3://my-bucket/backups/monday.tar --json
  brigade stat s3://my-bucket";
