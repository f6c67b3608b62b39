//! `brigade rm`, as typed.

use clap::Args;

use super::filter::FilterArgs;
use super::{OutputArgs, StoreArgs};

/// See [`super::Command::Rm`].
// Each is one independent switch, as typed.
#[allow(clippy::struct_excessive_bools)]
#[derive(Debug, Default, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RmArgs {
    /// s3://bucket/key; with wildcards (* ? [a-z], ** for folders too), every key that matches; with -r, every
    /// key below s3://bucket/prefix/.
    #[arg(value_name = "URL", required = true)]
    pub(crate) urls: Vec<String>,

    /// Delete every key below the URL: of s3://b/logs those that begin with logs/, never logs2/.
    #[arg(long, short)]
    pub(crate) recursive: bool,

    /// Show what would be deleted, and delete nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// Delete every version of each object, and every marker of a deletion: for good.
    #[arg(long, conflicts_with = "version_id")]
    pub(crate) versions: bool,

    /// Delete this version of the one key, for good.
    #[arg(long, value_name = "ID", conflicts_with = "recursive")]
    pub(crate) version_id: Option<String>,

    /// Take * ? and [ in a URL for themselves.
    #[arg(long)]
    pub(crate) no_glob: bool,

    /// Do not ask before a whole bucket is emptied. Needed where there is no terminal to ask on.
    #[arg(long, short)]
    pub(crate) yes: bool,

    /// Requests in flight at most, each for up to 1,000 keys. [default: 16]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) concurrency: Option<u16>,

    #[command(flatten)]
    pub(crate) filter: FilterArgs,

    #[command(flatten)]
    pub(crate) store: StoreArgs,

    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

const EXAMPLES: &str = "\
Examples:
  brigade rm s3://my-bucket/backups/monday.tar
  brigade rm -r s3://my-bucket/tmp/ --dry-run
  brigade rm 's3://my-bucket/logs/2026-*/*.gz'
  brigade rm -r s3://my-bucket/tmp --older-than 30d --exclude '*.keep'
  brigade rm -r s3://my-bucket --versions --yes";
