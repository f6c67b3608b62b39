//! `brigade cp`, as typed.

use std::ffi::OsString;
use std::path::PathBuf;

use brigade::limits::parse_size;
use clap::{Args, ValueEnum, ValueHint};

use super::{OutputArgs, StoreArgs};

/// See [`super::Command::Cp`].
#[derive(Debug, Default, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CpArgs {
    /// A file, or s3://bucket/key. A file whose name begins with s3: is written ./s3:...
    #[arg(value_hint = ValueHint::AnyPath)]
    pub(crate) source: OsString,

    /// For a file: s3://bucket/key, or s3://bucket/prefix/ to keep the file's name. For an object:
    /// a file, an existing folder, or - for standard output.
    #[arg(value_hint = ValueHint::AnyPath)]
    pub(crate) target: OsString,

    /// Size of every part but the last, such as 16MiB; chosen by the object's size when not given.
    #[arg(long, value_name = "SIZE", value_parser = parse_size, help_heading = "Transfer")]
    pub(crate) part_size: Option<u64>,

    /// Parts in flight. [default: 16]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..),
          help_heading = "Transfer")]
    pub(crate) concurrency: Option<u16>,

    /// How much proof is wanted: compare whatever can be compared, fail when nothing can, or
    /// compare nothing.
    #[arg(long, value_enum, value_name = "HOW", default_value = "auto", help_heading = "Transfer")]
    pub(crate) verify: Proof,

    /// File with the 256-bit key of SSE-C: 32 raw bytes, or their base64.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath,
          conflicts_with = "sse_c_key_env", help_heading = "Transfer")]
    pub(crate) sse_c_key_file: Option<PathBuf>,

    /// Name of the environment variable that holds the key of SSE-C in base64. The key itself is
    /// never an argument: other users of the machine can read those.
    #[arg(long, value_name = "NAME", help_heading = "Transfer")]
    pub(crate) sse_c_key_env: Option<String>,

    /// Checksum that goes with every part and is compared at the end; chosen by the store's profile
    /// when not given.
    #[arg(
        long,
        value_enum,
        value_name = "ALGORITHM",
        ignore_case = true,
        help_heading = "Uploads"
    )]
    pub(crate) checksum_algorithm: Option<Checksum>,

    /// Only create: fail when the object exists already.
    #[arg(long, help_heading = "Uploads")]
    pub(crate) if_none_match: bool,

    /// Storage class, such as STANDARD_IA or GLACIER_IR; the bucket's default when not given.
    #[arg(long, value_name = "CLASS", help_heading = "Uploads")]
    pub(crate) storage_class: Option<String>,

    /// Media type of the object; guessed from the file's name when not given.
    #[arg(long, value_name = "TYPE", help_heading = "Uploads")]
    pub(crate) content_type: Option<String>,

    /// User metadata: NAME=VALUE, several separated by commas, or a JSON object. Repeatable.
    #[arg(long, value_name = "NAME=VALUE", help_heading = "Uploads")]
    pub(crate) metadata: Vec<String>,

    /// Have the store encrypt the object, with keys of its own (AES256) or of AWS KMS (aws:kms).
    #[arg(long, value_enum, value_name = "MODE", num_args = 0..=1,
          default_missing_value = "AES256", help_heading = "Uploads")]
    pub(crate) sse: Option<Sse>,

    /// The KMS key's id, ARN or alias, for --sse aws:kms; the account's default key when not given.
    #[arg(long, value_name = "ID", help_heading = "Uploads")]
    pub(crate) sse_kms_key_id: Option<String>,

    /// Which version of the object; the newest when not given.
    #[arg(long, value_name = "ID", help_heading = "Downloads")]
    pub(crate) version_id: Option<String>,

    #[command(flatten)]
    pub(crate) store: StoreArgs,

    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// `--checksum-algorithm`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Checksum {
    Crc32,
    Crc32c,
    #[value(name = "crc64nvme")]
    Crc64Nvme,
    Sha1,
    Sha256,
    /// A Content-MD5 with every part, which the oldest stores check as well.
    Md5,
    /// No checksum: for stores that refuse checksum headers.
    None,
}

/// `--verify`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Proof {
    #[default]
    Auto,
    Require,
    Off,
}

/// `--sse`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sse {
    #[value(name = "AES256")]
    Aes256,
    #[value(name = "aws:kms")]
    Kms,
}

const EXAMPLES: &str = "\
Examples:
  brigade cp backup.tar s3://my-bucket/backups/
  brigade cp backup.tar s3://my-bucket/monday.tar --if-none-match --sse aws:kms
  brigade cp s3://my-bucket/monday.tar .
  brigade cp s3://my-bucket/monday.tar restored.tar --verify require
  brigade cp s3://my-bucket/monday.tar - | tar -x
  brigade cp data.bin s3://my-bucket/ --endpoint-url http://127.0.0.1:9000 --json";
