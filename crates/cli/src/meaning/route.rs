//! From where to where: which of the two names is an object, and which local path is meant.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::Result;
use brigade::{Error, ErrorKind, S3Url};

use crate::failure::Usage;

/// A transfer's two ends, complete: a key for every object, a file for every download.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Route {
    Upload {
        file: PathBuf,
        object: S3Url,
    },
    /// Of standard input.
    Stream {
        object: S3Url,
    },
    Download {
        object: S3Url,
        sink: Sink,
    },
    Copy {
        source: S3Url,
        target: S3Url,
    },
}

/// Where downloaded bytes go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sink {
    File(PathBuf),
    /// Standard output, in order.
    Stdout,
}

enum Place {
    Store(S3Url),
    Local(PathBuf),
    Standard,
}

impl Route {
    /// Looks at the file system where the names alone don't tell: whether a target is a folder.
    pub(crate) fn between(source: &OsStr, target: &OsStr) -> Result<Self> {
        let (source, target) = (Place::of(source)?, Place::of(target)?);
        match (source, target) {
            (Place::Standard, Place::Store(object)) => {
                if object.is_prefix() {
                    return Err(Usage::error(format!(
                        "standard input has no name to store it under in {object}; name the whole key"
                    )));
                }
                Ok(Self::Stream { object })
            }
            (Place::Standard, Place::Local(_) | Place::Standard) => Err(Usage::error(
                "standard input goes to a store only; write TARGET as s3://bucket/key",
            )),
            (Place::Store(source), Place::Store(target)) => {
                one_object(&source)?;
                let target = if target.is_prefix() {
                    // Parsed again, so that a key that became too long is said here.
                    format!("{target}{}", source.basename()).parse()?
                } else {
                    target
                };
                Ok(Self::Copy { source, target })
            }
            (Place::Local(_), Place::Local(_) | Place::Standard) => Err(Usage::error(
                "neither SOURCE nor TARGET is in a store; write one of them as s3://bucket/key",
            )),
            (Place::Local(file), Place::Store(target)) => upload(file, &target),
            (Place::Store(object), Place::Standard) => {
                one_object(&object)?;
                Ok(Self::Download { object, sink: Sink::Stdout })
            }
            (Place::Store(object), Place::Local(target)) => {
                one_object(&object)?;
                let file = file_for(&object, target)?;
                Ok(Self::Download { object, sink: Sink::File(file) })
            }
        }
    }
}

impl Place {
    fn of(typed: &OsStr) -> Result<Self> {
        if typed.is_empty() {
            return Err(Usage::error("a name is empty; give a file, or s3://bucket/key"));
        }
        if typed == "-" {
            return Ok(Self::Standard);
        }
        // File names are bytes and may be anything; keys are UTF-8.
        match typed.to_str() {
            Some(text) if S3Url::looks_like(text) => Ok(Self::Store(text.parse()?)),
            None if typed.to_string_lossy().get(..5).is_some_and(S3Url::looks_like) => {
                Err(Usage::error("the key is not UTF-8, which every key in S3 is; check the name"))
            }
            _ => Ok(Self::Local(typed.into())),
        }
    }
}

fn upload(file: PathBuf, target: &S3Url) -> Result<Route> {
    // Only what is certainly a folder is refused here; the engine finds out about the rest.
    if file.is_dir() {
        return Err(Usage::error(format!(
            "{} is a folder; name a file, or copy all that is below it with cp --recursive",
            file.display()
        )));
    }
    if !target.is_prefix() {
        return Ok(Route::Upload { object: target.clone(), file });
    }
    let Some(name) = file.file_name() else {
        return Err(Usage::error(format!(
            "{} has no name of its own to store it under; name the whole key",
            file.display()
        )));
    };
    let Some(name) = name.to_str() else {
        return Err(Usage::error(format!(
            "the name of {} is not UTF-8, which every key in S3 is; name the whole key",
            file.display()
        )));
    };
    // Parsed again, so that a key that became too long is said here and not by the store.
    let object = format!("{target}{name}").parse()?;
    Ok(Route::Upload { file, object })
}

fn one_object(object: &S3Url) -> Result<()> {
    if object.is_prefix() {
        return Err(Usage::error(format!(
            "{object} names a bucket or a prefix, not an object; name one key, or copy all that is below \
             it with cp --recursive"
        )));
    }
    Ok(())
}

/// The file a download goes to: the target itself, or the key's last part inside a folder.
fn file_for(object: &S3Url, target: PathBuf) -> Result<PathBuf> {
    let says_folder = target.as_os_str().as_encoded_bytes().ends_with(b"/");
    if target.is_dir() {
        let name = object.basename();
        // Such a name would lead out of the folder, or is the folder itself.
        if matches!(name, "." | "..") || name.contains('\0') {
            return Err(Usage::error(format!(
                "the last part of {object} cannot be a file's name; name the target file"
            )));
        }
        let file = target.join(name);
        // The engine would take it for the folder that was meant, and put the file inside.
        if file.is_dir() {
            let shown = file.display().to_string();
            let why = "a folder of that name is there";
            return Err(Error::new(ErrorKind::InvalidInput, "download to", shown, why)
                .advise("name another target")
                .into());
        }
        return Ok(file);
    }
    if says_folder {
        return Err(no_folder(&target).into());
    }
    Ok(target)
}

fn no_folder(target: &Path) -> Error {
    let target_shown = target.display().to_string();
    // Asked without the slash, with which only folders exist.
    if target.components().as_path().exists() {
        return Error::new(
            ErrorKind::InvalidInput,
            "download to",
            target_shown,
            "it is not a folder",
        )
        .advise("leave off the slash to replace it");
    }
    Error::new(ErrorKind::NotFound, "download to", target_shown, "there is no such folder")
        .advise("make it first, or leave off the slash")
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt as _;

    use super::*;
    use crate::failure::Failure;

    fn route(source: &str, target: &str) -> Result<Route> {
        Route::between(OsStr::new(source), OsStr::new(target))
    }

    fn refused(source: &str, target: &str) -> (u8, String) {
        let failure = Failure::from(&route(source, target).expect_err("refused"));
        (failure.exit.code(), failure.message)
    }

    fn url(text: &str) -> S3Url {
        text.parse().expect("an S3 URL")
    }

    #[test]
    fn an_upload_to_a_prefix_keeps_the_name() {
        for (target, key) in [
            ("s3://b/k", "s3://b/k"),
            ("s3://b/p/", "s3://b/p/f.txt"),
            ("s3://b/", "s3://b/f.txt"),
            ("s3://b", "s3://b/f.txt"),
        ] {
            let file = PathBuf::from("dir/f.txt");
            let expected = Route::Upload { file, object: url(key) };
            assert_eq!(route("dir/f.txt", target).expect("fine"), expected);
        }
    }

    #[test]
    fn a_download_to_a_folder_keeps_the_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let inside = folder.path().to_str().expect("UTF-8").to_owned();
        let file = |target: &str| match route("s3://b/p/f.txt", target).expect("fine") {
            Route::Download { sink: Sink::File(file), .. } => file,
            other => panic!("{other:?}"),
        };
        assert_eq!(file(&inside), folder.path().join("f.txt"));
        assert_eq!(file(&format!("{inside}/")), folder.path().join("f.txt"));
        assert_eq!(file("."), Path::new("./f.txt"));
        assert_eq!(file(&format!("{inside}/new")), folder.path().join("new"));
        let (code, said) = refused("s3://b/p/..", &inside);
        assert_eq!(code, 2);
        assert!(said.contains("cannot be a file's name"), "{said}");
    }

    #[test]
    fn a_slash_at_the_end_wants_a_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        let missing = format!("{}/missing/", folder.path().display());
        let (code, said) = refused("s3://b/k", &missing);
        assert_eq!(code, 4);
        let file = folder.path().join("file");
        std::fs::write(&file, "x").expect("written");
        let (of_file, says) = refused("s3://b/k", &format!("{}/", file.display()));
        assert_eq!(of_file, 2);
        assert!(says.ends_with("it is not a folder; leave off the slash to replace it"), "{says}");
        assert!(said.ends_with("no such folder; make it first, or leave off the slash"), "{said}");
    }

    #[test]
    fn a_dash_is_standard_input_or_output() {
        let expected = Route::Download { object: url("s3://b/k"), sink: Sink::Stdout };
        assert_eq!(route("s3://b/k", "-").expect("fine"), expected);
        let expected = Route::Stream { object: url("s3://b/k") };
        assert_eq!(route("-", "s3://b/k").expect("fine"), expected);
    }

    #[test]
    fn a_copy_to_a_prefix_keeps_the_name() {
        for (target, key) in
            [("s3://b/k", "s3://b/k"), ("s3://b/p/", "s3://b/p/f.txt"), ("s3://b", "s3://b/f.txt")]
        {
            let expected = Route::Copy { source: url("s3://a/x/f.txt"), target: url(key) };
            assert_eq!(route("s3://a/x/f.txt", target).expect("fine"), expected);
        }
    }

    #[test]
    fn what_is_not_there_yet_says_so() {
        for (source, target, part) in [
            ("-", "s3://b/", "standard input has no name to store it under"),
            ("-", "f", "standard input goes to a store only"),
            ("s3://b/p/", "s3://b/k2", "with cp --recursive"),
            ("a", "b", "neither SOURCE nor TARGET is in a store"),
            ("a", "-", "neither SOURCE nor TARGET is in a store"),
            (".", "s3://b/k", "with cp --recursive"),
            ("s3://b/p/", "x", "with cp --recursive"),
            ("s3://b", "x", "with cp --recursive"),
            ("", "s3://b", "a name is empty"),
            ("s3:/b/k", "x", "two slashes must follow s3:"),
        ] {
            let (code, said) = refused(source, target);
            assert_eq!(code, 2, "{said}");
            assert!(said.contains(part), "{said}");
            assert!(!said.contains('\n'), "{said}");
        }
    }

    #[test]
    fn a_file_called_like_a_url_is_written_with_a_dot() {
        let route = route("./s3:x", "s3://b/").expect("fine");
        assert_eq!(
            route,
            Route::Upload { file: PathBuf::from("./s3:x"), object: url("s3://b/s3:x") }
        );
    }

    #[test]
    fn file_names_need_not_be_text_but_keys_must() {
        let name = OsStr::from_bytes(b"caf\xe9.txt");
        let key = OsStr::new("s3://b/cafe.txt");
        assert!(Route::between(name, key).is_ok());
        assert!(Route::between(key, name).is_ok());
        let said = Route::between(name, OsStr::new("s3://b/")).expect_err("refused").to_string();
        assert!(said.contains("not UTF-8"), "{said}");
        let bad_key = OsStr::from_bytes(b"s3://b/caf\xe9");
        let said = Route::between(bad_key, OsStr::new("x")).expect_err("refused").to_string();
        assert!(said.contains("the key is not UTF-8"), "{said}");
    }
}
