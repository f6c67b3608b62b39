//! Which store, and how to reach it: the options every command that talks to one shares.

use std::path::PathBuf;

use clap::{Args, ValueHint};

/// See the module.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Store")]
pub(crate) struct StoreArgs {
    /// Address of an S3-compatible store, such as http://127.0.0.1:9000; AWS when nothing names one
    /// (also AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, or the AWS configuration file).
    #[arg(long, value_name = "URL", value_hint = ValueHint::Url)]
    pub(crate) endpoint_url: Option<String>,

    /// Region to sign for (also AWS_REGION, or the AWS configuration file).
    #[arg(long, value_name = "REGION")]
    pub(crate) region: Option<String>,

    /// Profile in the AWS configuration to take credentials and settings from (also AWS_PROFILE).
    #[arg(long, value_name = "NAME")]
    pub(crate) profile: Option<String>,

    /// What the store allows: a built-in profile's name, or a TOML file; detected when not given.
    #[arg(long, value_name = "NAME|FILE", value_hint = ValueHint::FilePath)]
    pub(crate) store_profile: Option<PathBuf>,

    /// Send no credentials: for public buckets.
    #[arg(long)]
    pub(crate) no_sign_request: bool,

    /// Put the bucket's name into the path of every URL, never into the host name.
    #[arg(long)]
    pub(crate) force_path_style: bool,

    /// Certificate authorities to trust instead of the system's, in a PEM file (also AWS_CA_BUNDLE).
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) ca_bundle: Option<PathBuf>,

    /// Do not check the store's certificate: anyone on the way can read and change what is moved.
    #[arg(long)]
    pub(crate) no_verify_ssl: bool,

    /// Folder for what is needed to resume transfers. [default: brigade in $XDG_STATE_HOME, or in
    /// ~/.local/state]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) manifest_dir: Option<PathBuf>,

    /// How often a failed request is repeated before the transfer fails; 0: never. [default: 9]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub(crate) retries: Option<u32>,
}
