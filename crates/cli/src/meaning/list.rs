//! The lines of `brigade run` as meant: what each is to do.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt as _;

use anyhow::Result;
use brigade::S3Url;
use brigade::dataset::{JobOptions, Task};

use super::route::{Route, Sink};
use super::{cp, session};
use crate::args::RunArgs;
use crate::environment::Environment;
use crate::failure::{Failure, Usage};

/// A list to carry out.
#[derive(Debug)]
pub(crate) struct List {
    pub(crate) session: brigade::SessionOptions,
    pub(crate) options: JobOptions,
    /// What the person should hear before it starts.
    pub(crate) warnings: Vec<&'static str>,
}

impl List {
    /// What `run` means.
    pub(crate) fn from_args(args: &RunArgs, environment: &Environment) -> Result<Self> {
        let each = args.as_cp();
        let options = JobOptions {
            upload: cp::upload_of_many(&each, environment)?,
            download: cp::download_of_many(&each, environment)?,
            copy: cp::copy_of_list(&each, environment)?,
            dry_run: args.dry_run,
            fail_fast: args.fail_fast,
            content_type: Some(cp::guessed_type_of),
            ..JobOptions::default()
        };
        Ok(Self {
            session: session::options(&args.store, environment)?,
            options,
            warnings: session::warnings(&args.store),
        })
    }
}

/// What a line means; `None` where it means nothing, and why it makes no sense.
pub(crate) fn task(line: &[u8]) -> Result<Option<Task>, String> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.trim_ascii().is_empty() || line.starts_with(b"#") {
        return Ok(None);
    }
    let task = match line.iter().position(|byte| *byte == b'\t') {
        Some(tab) if line[tab + 1..].contains(&b'\t') => {
            return Err("it has more than one tab; write \\t for one that belongs to a name".into());
        }
        Some(tab) => between(&plain(&line[..tab])?, &plain(&line[tab + 1..])?, false)?,
        None => command(line)?,
    };
    Ok(Some(task))
}

fn command(line: &[u8]) -> Result<Task, String> {
    const KNOWN: &str = "it is neither source, tab, target nor a command: cp, mv or rm";
    let text = std::str::from_utf8(line)
        .map_err(|_| "it is not UTF-8; write such names as source, tab, target".to_owned())?;
    let words = shlex::split(text).ok_or("a quote is not closed")?;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let words = words.strip_prefix(&["brigade"]).unwrap_or(&words);
    let operands = words.get(1..).unwrap_or_default();
    if let Some(option) = operands.iter().find(|word| word.len() > 1 && word.starts_with('-')) {
        return Err(format!(
            "{option} cannot be given to one line; give it to run, or run the command by itself"
        ));
    }
    match (words.first().copied(), operands) {
        (Some(name @ ("cp" | "mv")), [source, target]) => {
            between(OsStr::new(source), OsStr::new(target), name == "mv")
        }
        (Some("rm"), [url]) => {
            let object: S3Url = url.parse().map_err(|error: brigade::Error| error.to_string())?;
            if object.is_prefix() {
                return Err(format!("{object} is no object; run brigade rm --recursive by itself"));
            }
            Ok(Task::Delete { object })
        }
        (Some(name @ ("cp" | "mv")), _) => Err(format!("{name} takes a source and a target")),
        (Some("rm"), _) => Err("rm takes one s3://bucket/key".into()),
        _ => Err(KNOWN.into()),
    }
}

fn between(source: &OsStr, target: &OsStr, removes_source: bool) -> Result<Task, String> {
    let route = Route::between(source, target).map_err(|error| Failure::from(&error).message)?;
    match route {
        Route::Upload { file, object } => Ok(Task::Upload { file, object, removes_source }),
        Route::Copy { source, target } => Ok(Task::Copy { source, target, removes_source }),
        Route::Download { object, sink: Sink::File(file) } => {
            Ok(Task::Download { object, file, removes_source })
        }
        Route::Stream { .. } | Route::Download { sink: Sink::Stdout, .. } => {
            Err("- is for single commands: many lines share standard input and output".into())
        }
    }
}

/// A name without the escapes that [`crate::format::tab_line`] writes.
fn plain(written: &[u8]) -> Result<OsString, String> {
    let (mut name, mut bytes) = (Vec::with_capacity(written.len()), written.iter());
    while let Some(byte) = bytes.next() {
        name.push(match byte {
            b'\\' => match bytes.next() {
                Some(b't') => b'\t',
                Some(b'n') => b'\n',
                Some(b'\\') => b'\\',
                _ => {
                    let why = "a backslash stands alone; write \\\\ for one, \\t for a tab, \\n for \
                               a new line";
                    return Err(why.into());
                }
            },
            byte => *byte,
        });
    }
    Ok(OsString::from_vec(name))
}

/// An error of the list itself.
pub(crate) fn nothing_named() -> anyhow::Error {
    Usage::error("the list's name is empty; give a file, or - for standard input")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::tab_line;

    fn object(url: &str) -> S3Url {
        url.parse().expect("an S3 URL")
    }

    fn meant(line: &str) -> Result<Option<Task>, String> {
        task(line.as_bytes())
    }

    #[test]
    fn a_line_is_two_names_or_a_command() {
        let upload = |file: &str, removes_source| {
            let object = object("s3://b/k");
            Ok(Some(Task::Upload { file: file.into(), object, removes_source }))
        };
        assert_eq!(meant("f\ts3://b/k"), upload("f", false));
        assert_eq!(meant("f\ts3://b/k\r"), upload("f", false));
        assert_eq!(meant(&tab_line("a\t\\\nb", "s3://b/k")), upload("a\t\\\nb", false));
        assert_eq!(meant("cp f s3://b/k"), upload("f", false));
        assert_eq!(meant("brigade mv 'a b' s3://b/k"), upload("a b", true));
        let gone = Task::Delete { object: object("s3://b/k k") };
        assert_eq!(meant("rm 's3://b/k k'"), Ok(Some(gone)));
        let copy = Task::Copy {
            source: object("s3://a/x"),
            target: object("s3://b/p/x"),
            removes_source: false,
        };
        assert_eq!(meant("s3://a/x\ts3://b/p/"), Ok(Some(copy)));
        for nothing in ["", "  ", "# f\ts3://b/k", "\r"] {
            assert_eq!(meant(nothing), Ok(None));
        }
    }

    #[test]
    fn a_line_that_makes_no_sense_says_why() {
        for (line, part) in [
            ("f s3://b/k", "neither source, tab, target nor a command"),
            ("cp f", "cp takes a source and a target"),
            ("cp --sse f s3://b/k", "--sse cannot be given to one line"),
            ("cp 'f s3://b/k", "a quote is not closed"),
            ("rm s3://b/p/", "is no object"),
            ("rm x", "s3://"),
            ("f\ts3://b/k\tx", "more than one tab"),
            ("f\\x\ts3://b/k", "a backslash stands alone"),
            ("cp - s3://b/k", "- is for single commands"),
            ("s3://b/k\t-", "- is for single commands"),
            ("a\tb", "neither SOURCE nor TARGET is in a store"),
        ] {
            let why = meant(line).expect_err("refused");
            assert!(why.contains(part) && !why.contains('\n'), "{line}: {why}");
        }
    }
}
