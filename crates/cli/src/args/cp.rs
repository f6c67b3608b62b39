//! `brigade cp`, as typed.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use brigade::limits::parse_size;
use clap::{Args, ValueEnum, ValueHint};

use super::{JobArgs, OutputArgs, StoreArgs};
use crate::environment::Environment;

/// See [`super::Command::Cp`].
#[derive(Debug, Default, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CpArgs {
    /// A file, s3://bucket/key, or - for standard input. A file whose name begins with s3: is written
    /// ./s3:...
    #[arg(value_hint = ValueHint::AnyPath)]
    pub(crate) source: OsString,

    /// For a file: s3://bucket/key, or s3://bucket/prefix/ to keep the file's name. For an object:
    /// the same, a file, an existing folder, or - for standard output.
    #[arg(value_hint = ValueHint::AnyPath)]
    pub(crate) target: OsString,

    /// Size of every part but the last, such as 16MiB; chosen by the object's size when not given.
    #[arg(long, value_name = "SIZE", value_parser = parse_size, help_heading = "Transfer")]
    pub(crate) part_size: Option<u64>,

    /// Parts in flight at most. Without it, as many as bring something, found while it runs.
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

    /// Begin anew, whatever an earlier run left: an unfinished upload is aborted, a partial file
    /// emptied. Without it, the same command goes on where it stopped.
    #[arg(long, help_heading = "Transfer")]
    pub(crate) no_resume: bool,

    /// Read or write the file past the page cache: where that is faster, always, or never.
    #[arg(
        long,
        value_enum,
        value_name = "WHEN",
        default_value = "auto",
        help_heading = "Transfer"
    )]
    pub(crate) direct_io: Direct,

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

    /// How much standard input will bring, at most, such as 500GiB: parts are sized for it.
    #[arg(long, value_name = "SIZE", value_parser = parse_size, conflicts_with = "spool",
          help_heading = "Standard input")]
    pub(crate) expected_size: Option<u64>,

    /// Write standard input to a file in this folder first, which nobody else sees, and upload that: for
    /// input of any length.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath,
          help_heading = "Standard input")]
    pub(crate) spool: Option<PathBuf>,

    /// What becomes of the source's media type, headers and metadata: COPY keeps them, REPLACE takes
    /// only those given with --content-type and --metadata. REPLACE where any of these is given.
    #[arg(long, value_enum, value_name = "HOW", ignore_case = true, help_heading = "Copies")]
    pub(crate) metadata_directive: Option<Directive>,

    /// All that is below a folder or a prefix. A source with wildcards means many objects by itself.
    #[arg(long, short, help_heading = "Many objects")]
    pub(crate) recursive: bool,

    #[command(flatten)]
    pub(crate) job: JobArgs,

    #[command(flatten)]
    pub(crate) from: SourceArgs,

    #[command(flatten)]
    pub(crate) store: StoreArgs,

    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Where a copy's source is, if it is not where its target is.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Copies")]
pub(crate) struct SourceArgs {
    /// Address of the source's store. With any of these options, the bytes go through this machine.
    #[arg(long, value_name = "URL", value_hint = ValueHint::Url)]
    pub(crate) source_endpoint_url: Option<String>,

    /// Region to sign for there.
    #[arg(long, value_name = "REGION")]
    pub(crate) source_region: Option<String>,

    /// Profile in the AWS configuration for the source.
    #[arg(long, value_name = "NAME")]
    pub(crate) source_profile: Option<String>,

    /// What the source's store allows: a built-in profile's name, or a TOML file.
    #[arg(long, value_name = "NAME|FILE", value_hint = ValueHint::FilePath)]
    pub(crate) source_store_profile: Option<PathBuf>,

    /// Send the source's store no credentials: for public buckets.
    #[arg(long)]
    pub(crate) source_no_sign_request: bool,

    /// File with the key of SSE-C that the source was stored with.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath,
          conflicts_with = "source_sse_c_key_env")]
    pub(crate) source_sse_c_key_file: Option<PathBuf>,

    /// Name of the environment variable that holds that key in base64.
    #[arg(long, value_name = "NAME")]
    pub(crate) source_sse_c_key_env: Option<String>,
}

impl SourceArgs {
    /// Whether the source is reached in another way than the target.
    pub(crate) fn is_elsewhere(&self) -> bool {
        self.source_endpoint_url.is_some()
            || self.source_region.is_some()
            || self.source_profile.is_some()
            || self.source_store_profile.is_some()
            || self.source_no_sign_request
    }

    /// Whether anything is said of the source.
    pub(crate) fn is_given(&self) -> bool {
        self.is_elsewhere()
            || self.source_sse_c_key_file.is_some()
            || self.source_sse_c_key_env.is_some()
    }
}

/// `--metadata-directive`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Directive {
    #[value(name = "COPY")]
    Copy,
    #[value(name = "REPLACE")]
    Replace,
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

/// `--direct-io`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Direct {
    #[default]
    Auto,
    On,
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

impl CpArgs {
    /// The same as words that mean it anywhere: paths are absolute, and what the environment says is
    /// spelled out, but for credentials. `brigade resume` reads them again. `command` is `cp` or `mv`.
    pub(crate) fn to_words(
        &self,
        command: &str,
        environment: &Environment,
    ) -> std::io::Result<Vec<OsString>> {
        let mut words = Words(vec![command.into()]);
        let store = &self.store;
        let text = |name: &str| environment.text(name).map(str::to_owned);
        words.option("--part-size", self.part_size);
        words.option("--concurrency", self.concurrency);
        words.option("--verify", self.verify.to_possible_value().map(|v| v.get_name().to_owned()));
        let direct_io = self.direct_io.to_possible_value();
        words.option("--direct-io", direct_io.map(|v| v.get_name().to_owned()));
        words.path("--sse-c-key-file", self.sse_c_key_file.as_deref())?;
        words.option("--sse-c-key-env", self.sse_c_key_env.as_deref());
        let checksum = self.checksum_algorithm.and_then(|checksum| checksum.to_possible_value());
        words.option("--checksum-algorithm", checksum.map(|v| v.get_name().to_owned()));
        words.switch("--if-none-match", self.if_none_match);
        words.option("--storage-class", self.storage_class.as_deref());
        words.option("--content-type", self.content_type.as_deref());
        for metadata in &self.metadata {
            words.option("--metadata", Some(metadata));
        }
        let sse = self.sse.and_then(|sse| sse.to_possible_value());
        words.option("--sse", sse.map(|v| v.get_name().to_owned()));
        words.option("--sse-kms-key-id", self.sse_kms_key_id.as_deref());
        words.option("--version-id", self.version_id.as_deref());
        words.option("--expected-size", self.expected_size);
        words.path("--spool", self.spool.as_deref())?;
        let directive = self.metadata_directive.and_then(|it| it.to_possible_value());
        words.option("--metadata-directive", directive.map(|v| v.get_name().to_owned()));
        self.from.add_words(&mut words)?;
        words.option("--region", store.region.clone().or_else(|| text("AWS_REGION")));
        words.option("--profile", store.profile.clone().or_else(|| text("AWS_PROFILE")));
        words.name_or_path("--store-profile", store.store_profile.as_deref())?;
        words.switch("--no-sign-request", store.no_sign_request);
        words.switch("--force-path-style", store.force_path_style);
        let bundle = environment.path("AWS_CA_BUNDLE").map(PathBuf::from);
        words.path("--ca-bundle", store.ca_bundle.clone().or(bundle).as_deref())?;
        words.switch("--no-verify-ssl", store.no_verify_ssl);
        words.option("--retries", store.retries);
        let time = |time: Duration| humantime::format_duration(time).to_string().replace(' ', "");
        words.option("--retry-for", store.retry_for.map(time));
        words.option("--stall-timeout", store.stall_timeout.map(time));
        words.option("--bandwidth-limit", store.bandwidth_limit.map(|rate| format!("{rate}B/s")));
        words.option("--memory-limit", store.memory_limit);
        // Behind this, a name may begin with a dash.
        words.0.push("--".into());
        for end in [&self.source, &self.target] {
            words.0.push(if end.as_encoded_bytes().starts_with(b"s3:") || end == "-" {
                end.clone()
            } else {
                absolute(end)?
            });
        }
        Ok(words.0)
    }
}

impl SourceArgs {
    fn add_words(&self, words: &mut Words) -> std::io::Result<()> {
        words.option("--source-endpoint-url", self.source_endpoint_url.as_deref());
        words.option("--source-region", self.source_region.as_deref());
        words.option("--source-profile", self.source_profile.as_deref());
        words.name_or_path("--source-store-profile", self.source_store_profile.as_deref())?;
        words.switch("--source-no-sign-request", self.source_no_sign_request);
        words.path("--source-sse-c-key-file", self.source_sse_c_key_file.as_deref())?;
        words.option("--source-sse-c-key-env", self.source_sse_c_key_env.as_deref());
        Ok(())
    }
}

struct Words(Vec<OsString>);

impl Words {
    fn option(&mut self, name: &str, value: Option<impl ToString>) {
        if let Some(value) = value {
            self.0.push(format!("{name}={}", value.to_string()).into());
        }
    }

    fn path(&mut self, name: &str, path: Option<&std::path::Path>) -> std::io::Result<()> {
        if let Some(path) = path {
            let mut word = OsString::from(format!("{name}="));
            word.push(absolute(path.as_os_str())?);
            self.0.push(word);
        }
        Ok(())
    }

    /// A built-in store profile's name, or a file's.
    fn name_or_path(&mut self, name: &str, given: Option<&std::path::Path>) -> std::io::Result<()> {
        let text = given.and_then(std::path::Path::to_str);
        match text.filter(|text| brigade::limits::StoreProfile::named(text).is_some()) {
            Some(built_in) => {
                self.option(name, Some(built_in));
                Ok(())
            }
            None => self.path(name, given),
        }
    }

    fn switch(&mut self, name: &str, is_on: bool) {
        if is_on {
            self.0.push(name.into());
        }
    }
}

/// A slash at the end stays: it says that a folder is meant.
fn absolute(path: &OsStr) -> std::io::Result<OsString> {
    let mut absolute = std::path::absolute(path)?.into_os_string();
    let ends_so = |path: &OsStr| path.as_encoded_bytes().ends_with(b"/");
    if ends_so(path) && !ends_so(&absolute) {
        absolute.push("/");
    }
    Ok(absolute)
}

const EXAMPLES: &str = "\
Examples:
  brigade cp backup.tar s3://my-bucket/backups/
  brigade cp backup.tar s3://my-bucket/monday.tar --if-none-match --sse aws:kms
  brigade cp s3://my-bucket/monday.tar .
  brigade cp s3://my-bucket/monday.tar restored.tar --verify require
  brigade cp s3://my-bucket/monday.tar - | tar -x
  brigade cp s3://my-bucket/monday.tar s3://other-bucket/2026/
  brigade cp s3://theirs/f s3://my-bucket/ --source-endpoint-url https://s3.example.com
  set -o pipefail; tar -c data | brigade cp - s3://my-bucket/data.tar --expected-size 500GiB
  brigade cp data.bin s3://my-bucket/ --endpoint-url http://127.0.0.1:9000 --json";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command, parse};

    fn read(words: &[OsString]) -> CpArgs {
        let words: Vec<OsString> =
            ["brigade".into()].into_iter().chain(words.iter().cloned()).collect();
        match parse(&words) {
            Ok(Cli { command: Command::Cp(args) }) => *args,
            _ => panic!("{words:?}"),
        }
    }

    #[test]
    fn the_words_mean_the_same_elsewhere() {
        let typed = "cp -- -odd s3://b/k --part-size";
        assert!(typed.contains("--"));
        let line = "cp --part-size 16MiB --concurrency 3 --verify require --direct-io on --sse-c-key-env K \
                    --checksum-algorithm sha256 --if-none-match --storage-class X --content-type y \
                    --metadata a=1 --metadata b=2 --sse aws:kms --sse-kms-key-id id \
                    --store-profile minio --no-sign-request --force-path-style --ca-bundle c.pem \
                    --no-verify-ssl --retry-for 90m --stall-timeout 30s \
                    --bandwidth-limit 2MiB/s --memory-limit 64MiB -- dir/../-odd s3://b/a/../k";
        let typed: Vec<OsString> = line.split_whitespace().map(Into::into).collect();
        let environment = Environment::of(&[("AWS_REGION", "r"), ("AWS_PROFILE", "p")]);
        let words = read(&typed).to_words("cp", &environment).expect("absolute");
        let meant = read(&words);
        let here = std::env::current_dir().expect("a folder");
        assert_eq!(meant.source, here.join("dir/../-odd").into_os_string());
        assert_eq!(meant.target, "s3://b/a/../k");
        assert_eq!(meant.store.ca_bundle, Some(here.join("c.pem")));
        assert_eq!(meant.store.store_profile, Some("minio".into()));
        assert_eq!(
            (meant.store.region.as_deref(), meant.store.profile.as_deref()),
            (Some("r"), Some("p"))
        );
        assert_eq!((meant.part_size, meant.concurrency), (Some(16 << 20), Some(3)));
        assert_eq!(meant.store.retry_for, Some(Duration::from_mins(90)));
        assert_eq!(meant.store.stall_timeout, Some(Duration::from_secs(30)));
        assert_eq!(meant.direct_io, Direct::On);
        let limits = (meant.store.bandwidth_limit, meant.store.memory_limit);
        assert_eq!(limits, (Some(2 << 20), Some(64 << 20)));
        assert_eq!(meant.metadata, ["a=1", "b=2"]);
        assert_eq!((meant.sse, meant.checksum_algorithm), (Some(Sse::Kms), Some(Checksum::Sha256)));
        // Nothing is lost the second time.
        assert_eq!(meant.to_words("cp", &Environment::default()).expect("absolute"), words);
    }

    #[test]
    fn a_folder_stays_a_folder() {
        let typed: Vec<OsString> = ["cp", "s3://b/k", "down/"].map(Into::into).into();
        let words = read(&typed).to_words("cp", &Environment::default()).expect("absolute");
        assert!(words.last().expect("a target").as_encoded_bytes().ends_with(b"/down/"));
    }
}
