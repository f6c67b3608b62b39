//! `brigade cat`, as typed.

use brigade::limits::parse_size;
use clap::Args;

use super::{CustomerKeyArgs, OutputArgs, Proof, StoreArgs};

/// See [`super::Command::Cat`].
#[derive(Debug, Default, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CatArgs {
    /// s3://bucket/key; with wildcards (* ? [a-z], ** for folders too), every key that matches, in their order.
    #[arg(value_name = "URL", required = true)]
    pub(crate) urls: Vec<String>,

    /// Take * ? and [ in a URL for themselves.
    #[arg(long)]
    pub(crate) no_glob: bool,

    /// Which version of the one object; the newest when not given.
    #[arg(long, value_name = "ID")]
    pub(crate) version_id: Option<String>,

    /// Size of every range but the last, such as 16MiB; chosen by the object's size when not given.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) part_size: Option<u64>,

    /// Ranges in flight at most. Without it, as many as bring something, found while it runs.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) concurrency: Option<u16>,

    /// How much proof is wanted: compare whatever can be compared, fail when nothing can, or
    /// compare nothing.
    #[arg(long, value_enum, value_name = "HOW", default_value = "auto")]
    pub(crate) verify: Proof,

    #[command(flatten)]
    pub(crate) key: CustomerKeyArgs,

    #[command(flatten)]
    pub(crate) store: StoreArgs,

    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

const EXAMPLES: &str = "\
Examples:
  brigade cat s3://my-bucket/notes.txt
  brigade cat 's3://my-bucket/logs/2026-11-*.zst' | zstd -d
  brigade cat s3://my-bucket/part-1 s3://my-bucket/part-2 > whole";
