//! Which store, and how to reach it: the options every command that talks to one shares.

use std::path::PathBuf;
use std::time::Duration;

use brigade::limits::parse_size;
use clap::{Args, ValueHint};

/// See the module.
#[derive(Debug, Clone, Default, Args)]
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

    /// Wait out an outage: repeat failed requests, however often, until one has failed for this
    /// long, such as 2h or 30min, from 1s to 30days. Not together with --retries.
    #[arg(long, value_name = "TIME", value_parser = outage, conflicts_with = "retries")]
    pub(crate) retry_for: Option<Duration>,

    /// How long a connection may move no bytes before it is given up and made again, from 1s to 1h;
    /// a store that has all of a request gets six times that to answer. [default: 20s]
    #[arg(long, value_name = "TIME", value_parser = stall)]
    pub(crate) stall_timeout: Option<Duration>,

    /// Payload bytes a second that may be moved, all connections together, such as 200MiB/s or
    /// 1.5Gbit/s.
    #[arg(long, value_name = "RATE", value_parser = super::network::rate)]
    pub(crate) bandwidth_limit: Option<u64>,

    /// Memory that parts under way may take together, from 16MiB. [default: 96MiB, or a quarter of what
    /// the machine or the container has]
    #[arg(long, value_name = "SIZE", value_parser = memory)]
    pub(crate) memory_limit: Option<u64>,
}

/// From one second, below which nothing can be waited out, to a month: more is a mistake.
fn outage(typed: &str) -> Result<Duration, String> {
    duration(typed, Duration::from_secs(1), Duration::from_hours(30 * 24))
}

/// From one second, since some stores think that long, to an hour.
fn stall(typed: &str) -> Result<Duration, String> {
    duration(typed, Duration::from_secs(1), Duration::from_hours(1))
}

/// From what a few parts need, to any size.
fn memory(typed: &str) -> Result<u64, String> {
    let bytes = parse_size(typed)?;
    if bytes < LEAST_MEMORY_BYTES { Err("it must be at least 16MiB".into()) } else { Ok(bytes) }
}

/// Two parts of the default size.
const LEAST_MEMORY_BYTES: u64 = 16 << 20;

fn duration(typed: &str, least: Duration, most: Duration) -> Result<Duration, String> {
    let parsed = humantime::parse_duration(typed)
        .map_err(|_| "write a number and its unit, such as 90s, 30min or 2h".to_owned())?;
    if parsed < least || parsed > most {
        let [least, most] = [least, most].map(humantime::format_duration);
        return Err(format!("it must be from {least} to {most}"));
    }
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units_and_bounds() {
        assert_eq!(outage("2h"), Ok(Duration::from_hours(2)));
        assert_eq!(outage("1h 30min"), Ok(Duration::from_mins(90)));
        assert_eq!(stall("500ms"), Err("it must be from 1s to 1h".into()));
        assert_eq!(outage("31days"), Err("it must be from 1s to 30days".into()));
        for typed in ["", "20", "-1s", "soon", "99999999999999999999h"] {
            let said = stall(typed).expect_err("refused");
            assert_eq!(said, "write a number and its unit, such as 90s, 30min or 2h", "{typed}");
        }
    }

    #[test]
    fn memory_has_a_least() {
        assert_eq!(memory("1GiB"), Ok(1 << 30));
        assert_eq!(memory("1MiB"), Err("it must be at least 16MiB".into()));
        assert!(memory("much").is_err());
    }
}
