//! `brigade cp` and `mv` as meant: one transfer in one direction, with the options that direction has.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use brigade::integrity::Algorithm;
use brigade::{
    ChecksumChoice, CopyOptions, CustomerKey, Description, DirectIo, DownloadOptions, Encryption,
    Resume, S3Url, SessionOptions, StreamOptions, UploadOptions, Verify,
};

use super::route::{Route, Sink};
use super::{metadata, session};
use crate::args::{Checksum, CpArgs, Direct, Directive, Proof, Sse};
use crate::environment::Environment;
use crate::failure::Usage;

/// A transfer to carry out.
#[derive(Debug)]
pub(crate) struct Transfer {
    pub(crate) session: SessionOptions,
    /// Of a copy's source, where that is another one.
    pub(crate) source_session: Option<SessionOptions>,
    pub(crate) job: Job,
    /// Whether the source goes once its copy was verified.
    pub(crate) removes_source: bool,
    /// What the person should hear before it starts.
    pub(crate) warnings: Vec<&'static str>,
}

/// What the transfer does. The engine's options still lack who listens and who may cancel.
#[derive(Debug, Clone)]
pub(crate) enum Job {
    Upload {
        file: PathBuf,
        object: S3Url,
        options: UploadOptions,
    },
    /// Of standard input.
    Stream {
        object: S3Url,
        options: StreamOptions,
    },
    Download {
        object: S3Url,
        sink: Sink,
        options: DownloadOptions,
    },
    Copy {
        source: S3Url,
        target: S3Url,
        options: CopyOptions,
    },
}

impl Transfer {
    /// What `args` of `brigade cp` mean here and now; an error where they make no sense.
    pub(crate) fn from_args(args: &CpArgs, environment: &Environment) -> Result<Self> {
        Self::of("cp", args, environment)
    }

    /// The same of `brigade mv`.
    pub(crate) fn from_mv_args(args: &CpArgs, environment: &Environment) -> Result<Self> {
        let whys = [
            (
                args.source == "-" || args.target == "-",
                "-",
                "there would be nothing to remove, or to keep",
            ),
            (args.verify == Proof::Off, "--verify off", "only what was verified is removed"),
            (args.version_id.is_some(), "--version-id", "a move is of the newest version"),
        ];
        if let Some((_, what, why)) = whys.into_iter().find(|(given, ..)| *given) {
            return Err(Usage::error(format!("{what} is not for mv: {why}; use cp")));
        }
        Ok(Self { removes_source: true, ..Self::of("mv", args, environment)? })
    }

    fn of(command: &str, args: &CpArgs, environment: &Environment) -> Result<Self> {
        let words = words(command, args, environment)?;
        let job = match Route::between(&args.source, &args.target)? {
            Route::Upload { file, object } => {
                refuse(&OF_STREAMS, args, "standard input")?;
                refuse(&OF_COPIES, args, "copies")?;
                let content_type = guessed_type(&file);
                let options = upload(args, content_type, words, environment)?;
                Job::Upload { file, object, options }
            }
            Route::Stream { object } => {
                refuse(&OF_COPIES, args, "copies")?;
                if args.direct_io == Direct::On && args.spool.is_none() {
                    return Err(Usage::error(
                        "--direct-io is for files: standard input is none, unless --spool makes one; \
                         leave it off",
                    ));
                }
                let content_type = guessed_type(Path::new(object.basename()));
                let upload = upload(args, content_type, words, environment)?;
                let options = StreamOptions {
                    upload,
                    expected_size_bytes: args.expected_size,
                    spool_folder: args.spool.clone(),
                };
                Job::Stream { object, options }
            }
            Route::Download { object, sink } => {
                if args.direct_io == Direct::On && sink == Sink::Stdout {
                    return Err(Usage::error(
                        "--direct-io is for files: what standard output does with the bytes is \
                         decided at its other end; leave it off",
                    ));
                }
                let options = download(args, words, environment)?;
                Job::Download { object, sink, options }
            }
            Route::Copy { source, target } => {
                let options = copy(args, &target, words, environment)?;
                Job::Copy { source, target, options }
            }
        };
        Ok(Self {
            session: session::options(&args.store, environment)?,
            source_session: session::of_source(&args.from, &args.store, environment)?,
            job,
            removes_source: false,
            warnings: session::warnings(&args.store),
        })
    }
}

/// How each of many files is uploaded; its media type is guessed by its own name.
pub(super) fn upload_of_many(args: &CpArgs, environment: &Environment) -> Result<UploadOptions> {
    refuse(&OF_STREAMS, args, "standard input")?;
    refuse(&OF_COPIES, args, "copies")?;
    upload(args, None, words_of_many(args, environment)?, environment)
}

/// How each of many objects is downloaded.
pub(super) fn download_of_many(
    args: &CpArgs,
    environment: &Environment,
) -> Result<DownloadOptions> {
    refuse(&OF_MANY, args, "single objects")?;
    download(args, words_of_many(args, environment)?, environment)
}

/// How each of many objects is copied.
pub(super) fn copy_of_many(
    args: &CpArgs,
    target: &S3Url,
    environment: &Environment,
) -> Result<CopyOptions> {
    refuse(&OF_MANY, args, "single objects")?;
    copy(args, target, words_of_many(args, environment)?, environment)
}

/// The same of a list, whose targets are named one by one.
pub(super) fn copy_of_list(args: &CpArgs, environment: &Environment) -> Result<CopyOptions> {
    // No target is looked at: where nothing is replaced, no media type is guessed.
    copy(args, &"s3://bucket".parse()?, words_of_many(args, environment)?, environment)
}

/// The command of each, which lacks its two ends. A move is not resumed as such: what is moved again in the
/// end is what was not removed.
fn words_of_many(args: &CpArgs, environment: &Environment) -> Result<Vec<OsString>> {
    let mut words = words("cp", args, environment)?;
    words.truncate(words.len() - 2);
    Ok(words)
}

/// Options of one object.
const OF_MANY: [Refusal; 1] =
    [(|args| args.version_id.is_some(), "--version-id", "each of many has versions of its own")];

/// The media type that a name suggests.
pub(super) fn guessed_type_of(name: &str) -> Option<String> {
    guessed_type(Path::new(name))
}

/// An option, whether it is given, and why it makes no sense elsewhere.
type Refusal = (fn(&CpArgs) -> bool, &'static str, &'static str);

/// Options of standard input.
const OF_STREAMS: [Refusal; 2] = [
    (|args| args.expected_size.is_some(), "--expected-size", "a file's size is known"),
    (|args| args.spool.is_some(), "--spool", "a file is on a disk already"),
];

/// Options of copies from object to object.
const OF_COPIES: [Refusal; 2] = [
    (
        |args| args.metadata_directive.is_some(),
        "--metadata-directive",
        "only an object has metadata that could be kept",
    ),
    (
        |args| args.from.is_given(),
        "--source-...",
        "the source is not in another store than the target",
    ),
];

/// An option without effect would be a promise not kept, so each is an error that says why.
fn refuse(refusals: &[Refusal], args: &CpArgs, what_for: &str) -> Result<()> {
    match refusals.iter().find(|(is_given, ..)| is_given(args)) {
        Some((_, option, why)) => {
            Err(Usage::error(format!("{option} is for {what_for}: {why}; leave it off")))
        }
        None => Ok(()),
    }
}

fn upload(
    args: &CpArgs,
    guessed_type: Option<String>,
    command: Vec<OsString>,
    environment: &Environment,
) -> Result<UploadOptions> {
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
        content_type: args.content_type.clone().or(guessed_type),
        metadata: metadata::parse(&args.metadata)?,
        encryption: encryption(args, environment)?.unwrap_or_default(),
        resume: resume(args),
        direct_io: direct_io(args.direct_io),
        command,
        ..UploadOptions::default()
    })
}

fn download(
    args: &CpArgs,
    command: Vec<OsString>,
    environment: &Environment,
) -> Result<DownloadOptions> {
    refuse(&OF_UPLOADS, args, "uploads")?;
    refuse(&OF_STREAMS, args, "standard input")?;
    refuse(&OF_COPIES, args, "copies")?;
    Ok(DownloadOptions {
        part_size_bytes: args.part_size,
        concurrency: args.concurrency.map(usize::from),
        verify: verify(args.verify),
        version_id: args.version_id.clone(),
        customer_key: own_key(args, environment)?,
        keep_modified: true,
        resume: resume(args),
        direct_io: direct_io(args.direct_io),
        command,
        ..DownloadOptions::default()
    })
}

fn copy(
    args: &CpArgs,
    target: &S3Url,
    command: Vec<OsString>,
    environment: &Environment,
) -> Result<CopyOptions> {
    refuse(&OF_STREAMS, args, "standard input")?;
    if args.direct_io != Direct::Auto {
        return Err(Usage::error("--direct-io is for files: a copy has none; leave it off"));
    }
    let described = args.content_type.is_some() || !args.metadata.is_empty();
    if described && args.metadata_directive == Some(Directive::Copy) {
        return Err(Usage::error(
            "--metadata-directive COPY keeps the source's, and --content-type and --metadata replace \
             them; leave one of them off",
        ));
    }
    let replaces = described || args.metadata_directive == Some(Directive::Replace);
    let description = if replaces {
        let guessed = || guessed_type(Path::new(target.basename()));
        Some(Description {
            content_type: args.content_type.clone().or_else(guessed),
            metadata: metadata::parse(&args.metadata)?,
            ..Description::default()
        })
    } else {
        None
    };
    let from = &args.from;
    let (file, name) = (&from.source_sse_c_key_file, &from.source_sse_c_key_env);
    Ok(CopyOptions {
        part_size_bytes: args.part_size,
        concurrency: args.concurrency.map(usize::from),
        checksum: args.checksum_algorithm.map_or(ChecksumChoice::Auto, checksum),
        verify: verify(args.verify),
        if_none_match: args.if_none_match,
        version_id: args.version_id.clone(),
        source_customer_key: customer_key(
            file.as_deref(),
            name.as_deref(),
            "--source-sse-c-key-env",
            environment,
        )?,
        description,
        storage_class: args.storage_class.clone(),
        encryption: encryption(args, environment)?,
        resume: resume(args),
        command,
        ..CopyOptions::default()
    })
}

fn resume(args: &CpArgs) -> Resume {
    if args.no_resume { Resume::StartOver } else { Resume::Continue }
}

/// The command, for `brigade resume`.
fn words(command: &str, args: &CpArgs, environment: &Environment) -> Result<Vec<OsString>> {
    args.to_words(command, environment).context("cannot tell the current folder")
}

/// Options of uploads, copies included.
const OF_UPLOADS: [Refusal; 7] = [
    (
        |args| args.checksum_algorithm.is_some(),
        "--checksum-algorithm",
        "a download checks what the store has recorded",
    ),
    (|args| args.if_none_match, "--if-none-match", "it guards objects, not files"),
    (|args| args.storage_class.is_some(), "--storage-class", "the object has its class already"),
    (|args| args.content_type.is_some(), "--content-type", "a file has none"),
    (|args| !args.metadata.is_empty(), "--metadata", "a file has none"),
    (|args| args.sse.is_some(), "--sse", "the store decrypts by itself"),
    (|args| args.sse_kms_key_id.is_some(), "--sse-kms-key-id", "the store decrypts by itself"),
];

fn encryption(args: &CpArgs, environment: &Environment) -> Result<Option<Encryption>> {
    let key = own_key(args, environment)?;
    match (args.sse, args.sse_kms_key_id.clone(), key) {
        (Some(_), _, Some(_)) => Err(Usage::error(
            "--sse and a key of SSE-C exclude each other; choose who keeps the key",
        )),
        (Some(Sse::Kms), key_id, None) => Ok(Some(Encryption::Kms { key_id })),
        (_, Some(_), _) => {
            Err(Usage::error("--sse-kms-key-id is for keys in AWS KMS; add --sse aws:kms"))
        }
        (Some(Sse::Aes256), None, None) => Ok(Some(Encryption::S3)),
        (None, None, Some(key)) => Ok(Some(Encryption::Customer(key))),
        (None, None, None) => Ok(None),
    }
}

/// The key of SSE-C of the one object that is in question, or of a copy's target.
fn own_key(args: &CpArgs, environment: &Environment) -> Result<Option<CustomerKey>> {
    let (file, name) = (args.sse_c_key_file.as_deref(), args.sse_c_key_env.as_deref());
    customer_key(file, name, "--sse-c-key-env", environment)
}

/// A key of SSE-C, from where the arguments say it is.
pub(super) fn customer_key(
    file: Option<&Path>,
    name: Option<&str>,
    option: &str,
    environment: &Environment,
) -> Result<Option<CustomerKey>> {
    if let Some(file) = file {
        let bytes = std::fs::read(file)
            .map_err(|source| brigade::Error::io("read the SSE-C key from", file, source))?;
        return Ok(Some(CustomerKey::parse(&bytes)?));
    }
    let Some(name) = name else { return Ok(None) };
    let value = environment.path(name).ok_or_else(|| {
        // The name only: somebody may have typed the key itself here.
        Usage::error(format!(
            "{option} names a variable that is not set; export the key in base64 under that name"
        ))
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
            job => panic!("{job:?}"),
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
            job => panic!("{job:?}"),
        };
        assert_eq!(of("f s3://b/k --direct-io off"), DirectIo::Off);
        assert_eq!(of("s3://b/k f --direct-io on"), DirectIo::On);
        assert!(refused("s3://b/k - --direct-io on").starts_with("--direct-io is for files: "));
    }

    fn copied(line: &str) -> CopyOptions {
        match read(line).expect("fine").job {
            Job::Copy { options, .. } => options,
            job => panic!("{job:?}"),
        }
    }

    #[test]
    fn a_copy_keeps_what_is_not_asked_for() {
        let plain = copied("s3://a/k s3://b/k");
        assert_eq!((plain.description, plain.tags, plain.storage_class), (None, None, None));
        assert!(plain.encryption.is_none() && plain.source_customer_key.is_none());
        let replaced = copied("s3://a/k s3://b/k.json --metadata-directive replace");
        let described = replaced.description.expect("replaced");
        assert_eq!(described.content_type.as_deref(), Some("application/json"));
        assert_eq!(described.metadata.len(), 0);
        let implied = copied("s3://a/k s3://b/k --metadata a=1 --version-id v --sse");
        assert_eq!(implied.description.expect("replaced").metadata.len(), 1);
        assert!(matches!(implied.encryption, Some(Encryption::S3)));
        assert_eq!(implied.version_id.as_deref(), Some("v"));
        let keyed = copied("s3://a/k s3://b/k --source-sse-c-key-env KEY");
        assert!(keyed.source_customer_key.is_some() && keyed.encryption.is_none());
        for line in [
            "s3://a/k s3://b/k --metadata-directive COPY --metadata a=1",
            "s3://a/k s3://b/k --direct-io on",
            "s3://a/k s3://b/k --spool .",
            "f s3://b/k --metadata-directive COPY",
            "f s3://b/k --source-region r",
            "f s3://b/k --expected-size 1",
            "s3://b/k f --spool .",
            "s3://b/k f --source-region r",
        ] {
            refused(line);
        }
    }

    #[test]
    fn a_source_elsewhere_has_a_session_of_its_own() {
        let line = "s3://a/k s3://b/k --endpoint-url http://b --region rb --retries 3";
        assert!(read(line).expect("fine").source_session.is_none());
        let transfer = read(&format!("{line} --source-endpoint-url http://a")).expect("fine");
        let source = transfer.source_session.expect("another");
        assert_eq!(source.endpoint_url.as_deref(), Some("http://a"));
        assert_eq!((source.region, source.manifest_folder), (None, None));
        assert_eq!(source.retry.max_attempts, 4);
        assert_eq!(transfer.session.endpoint_url.as_deref(), Some("http://b"));
    }

    #[test]
    fn standard_input_is_sized_or_spooled() {
        let streamed = |line: &str| match read(line).expect("fine").job {
            Job::Stream { options, .. } => options,
            job => panic!("{job:?}"),
        };
        let options = streamed("- s3://b/k.json --expected-size 80GiB --part-size 16MiB");
        assert_eq!(options.expected_size_bytes, Some(80 << 30));
        assert_eq!(options.upload.part_size_bytes, Some(16 << 20));
        assert_eq!(options.upload.content_type.as_deref(), Some("application/json"));
        assert_eq!(streamed("- s3://b/k --spool x").spool_folder, Some("x".into()));
        assert!(refused("- s3://b/k --direct-io on").starts_with("--direct-io is for files: "));
    }

    #[test]
    fn a_move_removes_only_what_it_can_prove() {
        let moved = |line: &str| {
            let typed: Vec<OsString> =
                format!("brigade mv {line}").split_whitespace().map(OsString::from).collect();
            let Ok(args::Cli { command: args::Command::Mv(args) }) = args::parse(&typed) else {
                panic!("{line} is no mv");
            };
            Transfer::from_mv_args(&args, &Environment::default())
        };
        let transfer = moved("f s3://b/k").expect("fine");
        assert!(transfer.removes_source);
        let Job::Upload { options, .. } = transfer.job else { panic!("no upload") };
        assert_eq!(options.command.first(), Some(&"mv".into()));
        for line in
            ["- s3://b/k", "s3://b/k -", "f s3://b/k --verify off", "s3://b/k f --version-id v"]
        {
            assert!(moved(line).expect_err("refused").to_string().contains("is not for mv"));
        }
    }

    #[test]
    fn unchecked_certificates_are_warned_of() {
        assert_eq!(read("f s3://b/k").expect("fine").warnings.len(), 0);
        assert_eq!(read("f s3://b/k --no-verify-ssl").expect("fine").warnings.len(), 1);
    }
}
