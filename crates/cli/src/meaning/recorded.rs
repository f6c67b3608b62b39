//! An unfinished transfer as its manifest has it, as meant: the command that began it is read again.
//!
//! The words are what a person typed, made absolute; where the store is, and where the manifests are,
//! is not among them. What comes out must be the transfer that the manifest tells of: a folder that
//! stands now where a file was meant to be, say, would make it another one, which would begin anew
//! instead of going on.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Result;
use brigade::manifest;
use brigade::progress::Operation;
use brigade::{Error, ErrorKind, Unfinished};

use super::{Job, Sink, Transfer};
use crate::args::{self, Cli, Command, CpArgs};
use crate::environment::Environment;
use crate::format::command_line;

/// See the module.
pub(crate) struct Recorded<'a> {
    manifest: &'a manifest::Transfer,
    folder: &'a Path,
}

impl<'a> Recorded<'a> {
    /// What `found` tells; `folder` is where its manifest was found.
    pub(crate) fn of(found: &'a Unfinished, folder: &'a Path) -> Self {
        Self { manifest: &found.manifest.transfer, folder }
    }

    /// What it means here and now.
    pub(crate) fn transfer(&self, environment: &Environment) -> Result<Transfer> {
        if !self.manifest.side.is_resumable() {
            let why = "its source cannot be read on from where it was";
            let advice = format!("send it once more, or: brigade uploads abort {}", self.url());
            return Err(self.refuse(ErrorKind::Unsupported, why).advise(advice).into());
        }
        let (args, is_move) = self.args()?;
        let transfer = if is_move {
            Transfer::from_mv_args(&args, environment)?
        } else {
            Transfer::from_args(&args, environment)?
        };
        self.must_lead_here(&transfer.job)?;
        Ok(transfer)
    }

    /// An error unless the store at `endpoint_url` (`None`: AWS) is the one it was begun with. The
    /// environment and the AWS configuration may name one where the manifest has AWS.
    pub(crate) fn must_be_at(&self, endpoint_url: Option<&str>) -> Result<(), Error> {
        let begun_at = self.manifest.endpoint_url.as_deref();
        if begun_at == endpoint_url {
            return Ok(());
        }
        let why =
            format!("it was begun at {}, and this leads to {}", at(begun_at), at(endpoint_url));
        let advice = "unset AWS_ENDPOINT_URL_S3 and AWS_ENDPOINT_URL, and the endpoint_url of the AWS \
                      configuration";
        Err(self.refuse(ErrorKind::InvalidInput, why).advise(advice))
    }

    /// The command that goes on with this one alone; empty where none was recorded. `given` is the
    /// folder of manifests, where it is not the usual one.
    pub(crate) fn words(&self, given: Option<&Path>) -> Vec<OsString> {
        let mut words: Vec<OsString> =
            self.manifest.command.iter().map(|word| word.as_os_str().to_owned()).collect();
        if words.is_empty() {
            return words;
        }
        words.insert(0, "brigade".into());
        // Options come before the names, and behind the command's own.
        let mut place = 2.min(words.len());
        if let Some(url) = &self.manifest.endpoint_url {
            words.insert(place, format!("--endpoint-url={url}").into());
            place += 1;
        }
        if let Some(given) = given {
            let mut folder = OsString::from("--manifest-dir=");
            folder.push(std::path::absolute(given).unwrap_or_else(|_| given.to_owned()));
            words.insert(place, folder);
        }
        words
    }

    /// `upload of /data/f to s3://bucket/f`.
    pub(crate) fn name(&self) -> String {
        let (source, target) = self.ends();
        format!("{} of {source} to {target}", self.manifest.operation().as_str())
    }

    /// Source and target, as reports have them.
    pub(crate) fn ends(&self) -> (String, String) {
        let (path, url) = (self.manifest.path().display().to_string(), self.url());
        if !self.manifest.side.is_resumable() {
            return (path, url);
        }
        if self.manifest.operation() == Operation::Upload { (path, url) } else { (url, path) }
    }

    /// What it was begun with, and whether that was a move.
    fn args(&self) -> Result<(CpArgs, bool)> {
        if self.manifest.command.is_empty() {
            let why = "the program that began it recorded no command";
            return Err(self
                .refuse(ErrorKind::Unsupported, why)
                .advise("resume it with that program")
                .into());
        }
        let words: Vec<OsString> = ["brigade".into()]
            .into_iter()
            .chain(self.manifest.command.iter().map(|word| word.as_os_str().to_owned()))
            .collect();
        let why = match args::parse(&words) {
            Ok(Cli { command: command @ (Command::Cp(_) | Command::Mv(_)) }) => {
                let is_move = matches!(command, Command::Mv(_));
                if let Command::Cp(args) | Command::Mv(args) = command {
                    let mut args = *args;
                    args.store.endpoint_url.clone_from(&self.manifest.endpoint_url);
                    args.store.manifest_dir = Some(self.folder.to_owned());
                    return Ok((args, is_move));
                }
                "it is no cp".to_owned()
            }
            Ok(_) => "it is no cp".to_owned(),
            Err(stop) => stop.text_or_complaint().err().unwrap_or_else(|| "it is no cp".to_owned()),
        };
        let line = command_line(&words);
        Err(self
            .refuse(ErrorKind::Unsupported, format!("the command {line} cannot be read: {why}"))
            .advise("resume it with the version that began it")
            .into())
    }

    fn must_lead_here(&self, job: &Job) -> Result<(), Error> {
        let (operation, object, path) = match job {
            Job::Upload { file, object, .. } => (Operation::Upload, object, Some(file)),
            Job::Download { object, sink: Sink::File(file), .. } => {
                (Operation::Download, object, Some(file))
            }
            Job::Download { object, sink: Sink::Stdout, .. } => (Operation::Download, object, None),
            Job::Stream { object, .. } => (Operation::Upload, object, None),
            Job::Copy { target, .. } => (Operation::Copy, target, None),
        };
        let manifest = self.manifest;
        let is_same = operation == manifest.operation()
            && (object.bucket(), object.key()) == (&manifest.bucket, &manifest.key)
            && path.is_some_and(|path| place(path) == place(manifest.path()));
        if is_same {
            return Ok(());
        }
        let (source, target) = match path.map(|path| path.display().to_string()) {
            Some(path) if operation == Operation::Upload => (path, object.to_string()),
            path => (object.to_string(), path.unwrap_or_else(|| "-".into())),
        };
        let why = format!("its command would now {} {source} to {target}", operation.as_str());
        let advice = "see what took the place of the file, or the folder";
        Err(self.refuse(ErrorKind::Changed, why).advise(advice))
    }

    fn refuse(&self, kind: ErrorKind, why: impl Into<String>) -> Error {
        let (operation, target) = match self.manifest.operation() {
            Operation::Download => ("resume the download of", self.url()),
            _ => ("resume the upload to", self.url()),
        };
        Error::new(kind, operation, target, why)
    }

    fn url(&self) -> String {
        format!("s3://{}/{}", self.manifest.bucket, self.manifest.key)
    }
}

fn at(endpoint_url: Option<&str>) -> &str {
    endpoint_url.unwrap_or("AWS")
}

/// Where `path` is, whatever links lead there. A file that does not exist yet is in a folder that
/// does.
fn place(path: &Path) -> PathBuf {
    if let Ok(place) = path.canonicalize() {
        return place;
    }
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    match (absolute.parent().map(Path::canonicalize), absolute.file_name()) {
        (Some(Ok(folder)), Some(name)) => folder.join(name),
        _ => absolute,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Failure;

    /// A manifest of an upload of `file`, as the engine writes one, but for its CRC.
    fn manifest(file: &Path, endpoint_url: Option<&str>, command: &[&str]) -> manifest::Transfer {
        manifest::Transfer {
            endpoint_url: endpoint_url.map(str::to_owned),
            bucket: "b".into(),
            key: "k".into(),
            path: file.as_os_str().to_owned().into(),
            size_bytes: 100,
            part_size_bytes: 10,
            side: manifest::Side::Upload {
                source: manifest::SourceState { modified: (0, 0), inode: 0 },
                attributes: manifest::Attributes::default(),
            },
            begun_unix_s: 0,
            command: command.iter().map(|word| OsString::from(word).into()).collect(),
        }
    }

    fn recorded(manifest: &manifest::Transfer) -> Recorded<'_> {
        Recorded { manifest, folder: Path::new("/state") }
    }

    fn refused(manifest: &manifest::Transfer) -> (u8, String) {
        let refused = recorded(manifest).transfer(&Environment::default());
        let failure = Failure::from(&refused.map(|_| ()).expect_err("refused"));
        (failure.exit.code(), failure.message)
    }

    const FILE: &str = "/tmp/f";

    #[test]
    fn the_command_means_the_same_again() {
        let command = ["cp", "--part-size=5242880", "--retries=3", "--", FILE, "s3://b/k"];
        let manifest = manifest(Path::new(FILE), Some("http://h:1"), &command);
        // What the environment says today is not asked.
        let environment = Environment::of(&[("XDG_STATE_HOME", "/elsewhere")]);
        let transfer = recorded(&manifest).transfer(&environment).expect("fine");
        assert_eq!(transfer.session.endpoint_url.as_deref(), Some("http://h:1"));
        assert_eq!(transfer.session.manifest_folder, Some("/state".into()));
        assert_eq!(transfer.session.retry.max_attempts, 4);
        let Job::Upload { file, options, .. } = transfer.job else { panic!("no upload") };
        assert_eq!((file, options.part_size_bytes), (FILE.into(), Some(5 << 20)));
        // What is recorded again names no store and no folder either.
        let again = command_line(&options.command);
        assert!(
            again.starts_with("cp --part-size=5242880 ") && again.ends_with(" -- /tmp/f s3://b/k")
        );
        assert!(!again.contains("--endpoint-url") && !again.contains("--manifest-dir"), "{again}");
    }

    #[test]
    fn the_words_for_a_shell_name_the_store_and_the_folder() {
        let manifest =
            manifest(Path::new(FILE), Some("http://h:1"), &["cp", "--", FILE, "s3://b/k"]);
        let line = |given| command_line(&recorded(&manifest).words(given));
        assert_eq!(line(None), "brigade cp --endpoint-url=http://h:1 -- /tmp/f s3://b/k");
        assert_eq!(
            line(Some(Path::new("/state"))),
            "brigade cp --endpoint-url=http://h:1 --manifest-dir=/state -- /tmp/f s3://b/k"
        );
    }

    #[test]
    fn words_that_cannot_be_read_are_an_error_that_says_so() {
        let of = |command: &[&str]| refused(&manifest(Path::new(FILE), None, command));
        let (code, said) = of(&[]);
        assert_eq!(code, 1);
        assert_eq!(
            said,
            "resume the upload to s3://b/k: the program that began it recorded no command; resume \
             it with that program"
        );
        let (code, said) = of(&["cp", "--of-the-future", "--", FILE, "s3://b/k"]);
        assert_eq!(code, 1);
        assert!(
            said.contains("brigade cp --of-the-future -- /tmp/f s3://b/k cannot be read"),
            "{said}"
        );
        assert!(said.contains("unexpected argument '--of-the-future' found"), "{said}");
        assert!(said.ends_with("resume it with the version that began it"), "{said}");
        for other in [&["man"][..], &["--help"]] {
            let (_, said) = of(other);
            assert!(said.contains("cannot be read: it is no cp"), "{said}");
        }
    }

    #[test]
    fn a_command_that_means_something_else_by_now_is_refused() {
        let other = manifest(Path::new("/tmp/g"), None, &["cp", "--", FILE, "s3://b/k"]);
        let (code, said) = refused(&other);
        assert_eq!(code, 6);
        assert!(said.contains("its command would now upload /tmp/f to s3://b/k"), "{said}");
        let other = manifest(Path::new(FILE), None, &["cp", "--", FILE, "s3://b/other"]);
        assert_eq!(refused(&other).0, 6);
        let other = manifest(Path::new(FILE), None, &["cp", "--", "s3://b/k", "-"]);
        assert_eq!(refused(&other).0, 6);
    }

    #[test]
    fn a_store_that_the_environment_puts_in_the_place_of_aws_is_refused() {
        let of_aws = manifest(Path::new(FILE), None, &[]);
        assert!(recorded(&of_aws).must_be_at(None).is_ok());
        let said = recorded(&of_aws).must_be_at(Some("http://h:1")).expect_err("another");
        assert_eq!(
            said.to_string(),
            "resume the upload to s3://b/k: it was begun at AWS, and this leads to http://h:1; unset \
             AWS_ENDPOINT_URL_S3 and AWS_ENDPOINT_URL, and the endpoint_url of the AWS configuration"
        );
        let of_another = manifest(Path::new(FILE), Some("http://h:2"), &[]);
        assert!(recorded(&of_another).must_be_at(Some("http://h:1")).is_err());
        assert!(recorded(&of_another).must_be_at(Some("http://h:2")).is_ok());
    }
}
