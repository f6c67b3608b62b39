//! `brigade serve`, as typed.

use std::net::IpAddr;
use std::path::PathBuf;

use brigade::limits::parse_size;
use clap::{ArgGroup, Args, ValueHint};

use super::NetworkArgs;

/// See [`super::Command::Serve`].
// Each is one independent switch, as typed.
#[allow(clippy::struct_excessive_bools)]
#[derive(Debug, Args)]
#[command(
    after_help = EXAMPLES,
    group(ArgGroup::new("backend").required(true).args(["dir", "memory", "synthetic"]))
)]
pub(crate) struct ServeArgs {
    /// Folder to keep buckets and objects in.
    #[arg(value_hint = ValueHint::DirPath)]
    pub(crate) dir: Option<PathBuf>,

    /// Keep objects in memory; they are gone when the store stops.
    #[arg(long)]
    pub(crate) memory: bool,

    /// Discard what is uploaded and make up what is downloaded: measures a client, not a disk.
    #[arg(long)]
    pub(crate) synthetic: bool,

    /// With --synthetic: list so many objects that nobody has put there, in every bucket, such as
    /// 10000000.
    #[arg(long, value_name = "N", requires = "synthetic")]
    pub(crate) objects: Option<u64>,

    /// Size of each of those. [default: 16KiB]
    #[arg(long, value_name = "SIZE", value_parser = parse_size, requires = "objects")]
    pub(crate) object_size: Option<u64>,

    /// Port to listen on; 0 takes any free one.
    #[arg(long, value_name = "PORT", default_value_t = 9000)]
    pub(crate) port: u16,

    /// Address to listen on. Anything but this machine's own loopback lets others in.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub(crate) bind: IpAddr,

    /// Access key that clients must use; made up when not given.
    #[arg(long, value_name = "KEY", env = "BRIGADE_ACCESS_KEY", hide_env_values = true)]
    pub(crate) access_key: Option<String>,

    /// Secret key that clients must use; made up when not given. Better given in the environment,
    /// since other users of the machine can read arguments.
    #[arg(long, value_name = "SECRET", env = "BRIGADE_SECRET_KEY", hide_env_values = true)]
    pub(crate) secret_key: Option<String>,

    /// Bucket to make, where it does not exist yet. Repeatable.
    #[arg(long, value_name = "NAME")]
    pub(crate) bucket: Vec<String>,

    /// Region the store is in: what clients must sign for.
    #[arg(long, value_name = "REGION", default_value = "us-east-1")]
    pub(crate) region: String,

    /// Speak HTTPS, with a certificate made for this run; its authority is written to a file.
    #[arg(long)]
    pub(crate) tls: bool,

    /// Misbehave as this file says, for testing clients; docs/FAULTS.md has the format.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) faults: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) network: NetworkArgs,

    /// Print one JSON object instead of shell exports.
    #[arg(long)]
    pub(crate) json: bool,
}

const EXAMPLES: &str = "\
Examples:
  brigade serve ./data --bucket my-bucket
  brigade serve --memory --port 0 --json
  brigade serve ./data --tls
  brigade serve --memory --faults bad-day.toml
  brigade serve --synthetic --latency 50ms --jitter 10ms --bandwidth-per-connection 85MB/s
  brigade serve --synthetic --objects 10000000 --object-size 16KiB --bucket bench
  brigade serve --synthetic --max-rps 200 --slow-parts 0.1%:5s
  BRIGADE_SECRET_KEY=... brigade serve ./data --access-key me --bind 0.0.0.0";
