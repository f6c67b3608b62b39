//! `brigade ls` and `brigade du`, as typed.

use clap::Args;

use super::StoreArgs;

/// See [`super::Command::Ls`].
// Each is one independent switch, as typed.
#[allow(clippy::struct_excessive_bools)]
#[derive(Debug, Default, Args)]
#[command(after_help = LS_EXAMPLES)]
pub(crate) struct LsArgs {
    /// s3://bucket or s3://bucket/prefix; the key may have wildcards (*, ?, [...], **). Without it, the
    /// buckets.
    #[arg(value_name = "URL")]
    pub(crate) url: Option<String>,

    /// Every key below the prefix, not one level of folders.
    #[arg(long, short)]
    pub(crate) recursive: bool,

    /// End with how many objects there were, and their bytes.
    #[arg(long)]
    pub(crate) summarize: bool,

    #[command(flatten)]
    pub(crate) shape: ShapeArgs,

    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

/// See [`super::Command::Du`].
#[derive(Debug, Default, Args)]
#[command(after_help = DU_EXAMPLES)]
pub(crate) struct DuArgs {
    /// s3://bucket or s3://bucket/prefix; the key may have wildcards (*, ?, [...], **).
    #[arg(value_name = "URL")]
    pub(crate) url: String,

    /// Tell of folders too, so many levels of them below the URL. [default: 0, the total alone]
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub(crate) depth: Option<u32>,

    #[command(flatten)]
    pub(crate) shape: ShapeArgs,

    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

/// How what is listed is told.
// Each is one independent switch, as typed.
#[allow(clippy::struct_excessive_bools)]
#[derive(Debug, Default, Clone, Copy, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct ShapeArgs {
    /// Sizes as people read them, such as 1.5 GiB. [default: on a terminal]
    #[arg(long, short = 'H', conflicts_with_all = ["bytes", "json"])]
    pub(crate) human_readable: bool,

    /// Sizes in bytes. [default: where there is no terminal]
    #[arg(long, short = 'b', conflicts_with = "json")]
    pub(crate) bytes: bool,

    /// Do not read wildcards in the URL: its key is taken as it stands.
    #[arg(long)]
    pub(crate) no_glob: bool,

    /// Print JSON, one object a line.
    #[arg(long)]
    pub(crate) json: bool,
}

const LS_EXAMPLES: &str = "\
Examples:
  brigade ls
  brigade ls s3://my-bucket
  brigade ls s3://my-bucket/logs/ --recursive --summarize
  brigade ls 's3://my-bucket/logs/2026-*/*.gz'
  brigade ls s3://my-bucket -r --json | jq -r 'select(.size_bytes > 1e9) | .key'";

const DU_EXAMPLES: &str = "\
Examples:
  brigade du s3://my-bucket
  brigade du s3://my-bucket/logs/ --depth 1
  brigade du 's3://my-bucket/logs/2026-*/*.gz' --json";
