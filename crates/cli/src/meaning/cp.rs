//! `brigade cp` as meant: one transfer in one direction, with the options that direction has.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use brigade::integrity::Algorithm;
use brigade::{
    ChecksumChoice, CustomerKey, DirectIo, DownloadOptions, Encryption, Resume, S3Url,
    SessionOptions, UploadOptions, Verify,
};

use super::route::{Route, Sink};
use super::{metadata, session};
use crate::args::{Checksum, CpArgs, Direct, Proof, Sse};
use crate::environment::Environment;
use crate::failure::Usage;

/// A transfer to carry out.
#[derive(Debug)]
pub(crate) struct Transfer {
    pub(crate) session: SessionOptions,
    pub(crate) job: Job,
    /// What the person should hear before it starts.
    pub(crate) warnings: Vec<&'static str>,
}

/// What the transfer does. The engine's options still lack who listens and who may cancel.
#[derive(Debug)]
pub(crate) enum Job {
    Upload { file: PathBuf, object: S3Url, options: UploadOptions },
    Download { object: S3Url, sink: Sink, options: DownloadOptions },
}

impl Transfer {
    /// What `args` mean here and now; an error where they make no sense.
    pub(crate) fn from_args(args: &CpArgs, environment: &Environment) -> Result<Self> {
        let job = match Route::between(&args.source, &args.target)? {
            Route::Upload { file, object } => {
                let options = upload(args, &file, environment)?;
                Job::Upload { file, object, options }
            }
            Route::Download { object, sink } => {
                if args.direct_io == Direct::On && sink == Sink::Stdout {
                    return Err(Usage::error(
                        "--direct-io is for files: what standard output does with the bytes is \
                         decided at its other end; leave it off",
                    ));
                }
                let options = download(args, environment)?;
                Job::Download { object, sink, options }
            }
        };
        let warnings = session::warnings(&args.store);
        Ok(Self { session: session::options(&args.store, environment)?, job, warnings })
    }
}

fn upload(args: &CpArgs, file: &Path, environment: &Environment) -> Result<UploadOptions> {
    if args.version_id.is_some() {
        return Err(Usage::error(
            "--version-id is for downloads: the store gives an upload its version; leave it off",
        ));
    }
    Ok(UploadOptions {
        part_size_bytes: args.part_size,
        concurrency: args.concurrency.map(usize::from),
        checksum: args.checksum_algorithm.map_or(ChecksumChoice::Auto, checksum),
        verify: verify(args.verify),
        if_none_match: args.if_none_match,
        storage_class: args.storage_class.clone(),
        content_type: args.content_type.clone().or_else(|| guessed_type(file)),
        metadata: metadata::parse(&args.metadata)?,
        encryption: encryption(args, environment)?,
        resume: resume(args),
        direct_io: direct_io(args.direct_io),
        command: words(args, environment)?,
        ..UploadOptions::default()
    })
}

fn download(args: &CpArgs, environment: &Environment) -> Result<DownloadOptions> {
    refuse_upload_options(args)?;
    Ok(DownloadOptions {
        part_size_bytes: args.part_size,
        concurrency: args.concurrency.map(usize::from),
        verify: verify(args.verify),
        version_id: args.version_id.clone(),
        customer_key: customer_key(args, environment)?,
        resume: resume(args),
        direct_io: direct_io(args.direct_io),
        command: words(args, environment)?,
        ..DownloadOptions::default()
    })
}

fn resume(args: &CpArgs) -> Resume {
    if args.no_resume { Resume::StartOver } else { Resume::Continue }
}

/// The command, for `brigade resume`.
fn words(args: &CpArgs, environment: &Environment) -> Result<Vec<OsString>> {
    args.to_words(environment).context("cannot tell the current folder")
}

/// An option without effect would be a promise not kept, so each is an error that says why.
fn refuse_upload_options(args: &CpArgs) -> Result<()> {
    let refusals = [
        (
            args.checksum_algorithm.is_some(),
            "--checksum-algorithm",
            "a download checks what the store has recorded",
        ),
        (args.if_none_match, "--if-none-match", "it guards objects, not files"),
        (args.storage_class.is_some(), "--storage-class", "the object has its class already"),
        (args.content_type.is_some(), "--content-type", "a file has none"),
        (!args.metadata.is_empty(), "--metadata", "a file has none"),
        (args.sse.is_some(), "--sse", "the store decrypts by itself"),
        (args.sse_kms_key_id.is_some(), "--sse-kms-key-id", "the store decrypts by itself"),
    ];
    match refusals.into_iter().find(|(given, ..)| *given) {
        Some((_, option, why)) => {
            Err(Usage::error(format!("{option} is for uploads: {why}; leave it off")))
        }
        None => Ok(()),
    }
}

fn encryption(args: &CpArgs, environment: &Environment) -> Result<Encryption> {
    let key = customer_key(args, environment)?;
    match (args.sse, args.sse_kms_key_id.clone(), key) {
        (Some(_), _, Some(_)) => Err(Usage::error(
            "--sse and a key of SSE-C exclude each other; choose who keeps the key",
        )),
        (Some(Sse::Kms), key_id, None) => Ok(Encryption::Kms { key_id }),
        (_, Some(_), _) => {
            Err(Usage::error("--sse-kms-key-id is for keys in AWS KMS; add --sse aws:kms"))
        }
        (Some(Sse::Aes256), None, None) => Ok(Encryption::S3),
        (None, None, Some(key)) => Ok(Encryption::Customer(key)),
        (None, None, None) => Ok(Encryption::BucketDefault),
    }
}

fn customer_key(args: &CpArgs, environment: &Environment) -> Result<Option<CustomerKey>> {
    customer_key_from(args.sse_c_key_file.as_deref(), args.sse_c_key_env.as_deref(), environment)
}

/// The key of SSE-C, from where the arguments say it is.
pub(super) fn customer_key_from(
    file: Option<&Path>,
    variable: Option<&str>,
    environment: &Environment,
) -> Result<Option<CustomerKey>> {
    if let Some(file) = file {
        let bytes = std::fs::read(file)
            .map_err(|source| brigade::Error::io("read the SSE-C key from", file, source))?;
        return Ok(Some(CustomerKey::parse(&bytes)?));
    }
    let Some(name) = variable else { return Ok(None) };
    let value = environment.path(name).ok_or_else(|| {
        // The name only: somebody may have typed the key itself here.
        Usage::error(
            "--sse-c-key-env names a variable that is not set; export the key in base64 under \
             that name",
        )
    })?;
    Ok(Some(CustomerKey::parse(value.as_encoded_bytes())?))
}

fn guessed_type(file: &Path) -> Option<String> {
    mime_guess::from_path(file).first_raw().map(str::to_owned)
}

pub(super) fn verify(proof: Proof) -> Verify {
    match proof {
        Proof::Auto => Verify::Auto,
        Proof::Require => Verify::Require,
        Proof::Off => Verify::Off,
    }
}

fn direct_io(typed: Direct) -> DirectIo {
    match typed {
        Direct::Auto => DirectIo::Auto,
        Direct::On => DirectIo::On,
        Direct::Off => DirectIo::Off,
    }
}

fn checksum(typed: Checksum) -> ChecksumChoice {
    ChecksumChoice::Use(match typed {
        Checksum::Crc32 => Algorithm::Crc32,
        Checksum::Crc32c => Algorithm::Crc32c,
        Checksum::Crc64Nvme => Algorithm::Crc64Nvme,
        Checksum::Sha1 => Algorithm::Sha1,
        Checksum::Sha256 => Algorithm::Sha256,
        Checksum::Md5 => Algorithm::Md5,
        Checksum::None => return ChecksumChoice::None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args;
    use crate::failure::Failure;

    const KEY: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";

    fn read(line: &str) -> Result<Transfer> {
        let typed: Vec<OsString> =
            format!("brigade cp {line}").split_whitespace().map(OsString::from).collect();
        let Ok(args::Cli { command: args::Command::Cp(args) }) = args::parse(&typed) else {
            panic!("{line} is no cp");
        };
        Transfer::from_args(&args, &Environment::of(&[("KEY", KEY)]))
    }

    fn upload(line: &str) -> UploadOptions {
        match read(line).expect("fine").job {
            Job::Upload { options, .. } => options,
            job @ Job::Download { .. } => panic!("{job:?}"),
        }
    }

    fn refused(line: &str) -> String {
        let failure = Failure::from(&read(line).expect_err("refused"));
        assert_eq!(failure.exit.code(), 2, "{}", failure.message);
        failure.message
    }

    #[test]
    fn an_upload_means_what_was_typed() {
        let options = upload(
            "f s3://b/k --part-size 16MiB --concurrency 4 --checksum-algorithm SHA256 \
             --verify require --if-none-match --storage-class GLACIER_IR --content-type a/b \
             --metadata a=1,b=2 --sse aws:kms --sse-kms-key-id alias/x",
        );
        assert_eq!((options.part_size_bytes, options.concurrency), (Some(16 << 20), Some(4)));
        assert_eq!(options.checksum, ChecksumChoice::Use(Algorithm::Sha256));
        assert_eq!((options.verify, options.if_none_match), (Verify::Require, true));
        assert_eq!(options.direct_io, DirectIo::Auto);
        assert_eq!(options.storage_class.as_deref(), Some("GLACIER_IR"));
        assert_eq!(options.content_type.as_deref(), Some("a/b"));
        assert_eq!(options.metadata.len(), 2);
        assert!(
            matches!(options.encryption, Encryption::Kms { key_id: Some(id) } if id == "alias/x")
        );
    }

    #[test]
    fn a_media_type_is_guessed_from_the_name() {
        let guessed = |name: &str| upload(&format!("{name} s3://b/k")).content_type;
        assert_eq!(guessed("a.json").as_deref(), Some("application/json"));
        assert_eq!(guessed("a"), None);
    }

    #[test]
    fn encryption_has_one_keeper_of_the_key() {
        let encryption = |line: &str| upload(&format!("f s3://b/k {line}")).encryption;
        assert!(matches!(encryption(""), Encryption::BucketDefault));
        assert!(matches!(encryption("--sse"), Encryption::S3));
        assert!(matches!(encryption("--sse AES256"), Encryption::S3));
        assert!(matches!(encryption("--sse aws:kms"), Encryption::Kms { key_id: None }));
        assert!(matches!(encryption("--sse-c-key-env KEY"), Encryption::Customer(_)));
        for line in [
            "f s3://b/k --sse --sse-c-key-env KEY",
            "f s3://b/k --sse-kms-key-id x",
            "f s3://b/k --sse AES256 --sse-kms-key-id x",
            "f s3://b/k --sse-c-key-env NOT_SET",
        ] {
            refused(line);
        }
    }

    #[test]
    fn a_key_never_shows_in_a_complaint() {
        let said = refused(&format!("f s3://b/k --sse-c-key-env {KEY}"));
        assert!(!said.contains(KEY), "{said}");
    }

    #[test]
    fn an_option_of_the_other_direction_is_refused_with_its_reason() {
        for option in [
            "--checksum-algorithm crc32",
            "--if-none-match",
            "--storage-class X",
            "--content-type a/b",
            "--metadata a=1",
            "--sse",
            "--sse-kms-key-id x",
        ] {
            let said = refused(&format!("s3://b/k f {option}"));
            let name = option.split(' ').next().expect("a name");
            assert!(said.starts_with(&format!("{name} is for uploads: ")), "{said}");
        }
        assert!(refused("f s3://b/k --version-id x").starts_with("--version-id is for downloads"));
    }

    #[test]
    fn a_download_means_what_was_typed() {
        let transfer = read("s3://b/k - --version-id v1 --sse-c-key-env KEY").expect("fine");
        let Job::Download { options, sink, .. } = transfer.job else { panic!("no download") };
        assert_eq!(sink, Sink::Stdout);
        assert_eq!(options.version_id.as_deref(), Some("v1"));
        assert!(options.customer_key.is_some());
    }

    #[test]
    fn the_page_cache_is_avoided_as_typed() {
        let of = |line: &str| match read(line).expect("fine").job {
            Job::Upload { options, .. } => options.direct_io,
            Job::Download { options, .. } => options.direct_io,
        };
        assert_eq!(of("f s3://b/k --direct-io off"), DirectIo::Off);
        assert_eq!(of("s3://b/k f --direct-io on"), DirectIo::On);
        assert!(refused("s3://b/k - --direct-io on").starts_with("--direct-io is for files: "));
    }

    #[test]
    fn unchecked_certificates_are_warned_of() {
        assert_eq!(read("f s3://b/k").expect("fine").warnings.len(), 0);
        assert_eq!(read("f s3://b/k --no-verify-ssl").expect("fine").warnings.len(), 1);
    }
}
