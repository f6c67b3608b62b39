//! `brigade uploads`, as typed.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::{OutputArgs, StoreArgs};

/// See [`super::Command::Uploads`].
#[derive(Debug, Args)]
// Without a command, the complaint should name those that there are.
#[command(after_help = EXAMPLES, arg_required_else_help = false)]
pub(crate) struct UploadsArgs {
    #[command(subcommand)]
    pub(crate) command: UploadsCommand,
}

/// What to do with them.
#[derive(Debug, Subcommand)]
pub(crate) enum UploadsCommand {
    /// Show unfinished uploads: those begun here, and all that the store has under a URL.
    // Boxed, like the others: there are many options to reach a store.
    #[command(after_help = LIST_EXAMPLES)]
    List(Box<SelectArgs>),
    /// Give unfinished uploads up: the store frees their parts, and what is recorded here goes.
    #[command(after_help = ABORT_EXAMPLES)]
    Abort(Box<AbortArgs>),
    /// Go on with unfinished uploads that were begun here.
    #[command(after_help = RESUME_EXAMPLES)]
    Resume(Box<SelectArgs>),
}

/// Which uploads.
#[derive(Debug, Default, Args)]
pub(crate) struct SelectArgs {
    /// s3://bucket or s3://bucket/prefix: every unfinished upload there of a key that begins so,
    /// whoever began it. Without it, those that were begun here.
    #[arg(value_name = "URL")]
    pub(crate) url: Option<String>,

    #[command(flatten)]
    pub(crate) store: StoreArgs,

    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// `brigade uploads abort`.
#[derive(Debug, Default, Args)]
pub(crate) struct AbortArgs {
    /// Only those that were begun at least this long ago, such as 7d or 12h.
    #[arg(long, value_name = "AGE", value_parser = humantime::parse_duration)]
    pub(crate) older_than: Option<Duration>,

    /// Do not ask first. Needed where there is no terminal to ask on.
    #[arg(long, short)]
    pub(crate) yes: bool,

    #[command(flatten)]
    pub(crate) select: SelectArgs,
}

const EXAMPLES: &str = "\
Examples:
  brigade uploads list
  brigade uploads list s3://my-bucket
  brigade uploads abort s3://my-bucket/backups/ --older-than 7d
  brigade uploads resume s3://my-bucket/backups/";

const LIST_EXAMPLES: &str = "\
Examples:
  brigade uploads list
  brigade uploads list s3://my-bucket
  brigade uploads list s3://my-bucket/backups/ --json";

const ABORT_EXAMPLES: &str = "\
Examples:
  brigade uploads abort
  brigade uploads abort s3://my-bucket/backups/
  brigade uploads abort s3://my-bucket --older-than 7d --yes";

const RESUME_EXAMPLES: &str = "\
Examples:
  brigade uploads resume
  brigade uploads resume s3://my-bucket/backups/monday.tar";

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::args::{Cli, Command, parse};

    fn read(line: &str) -> Result<UploadsCommand, String> {
        let typed: Vec<OsString> = line.split_whitespace().map(Into::into).collect();
        match parse(&typed) {
            Ok(Cli { command: Command::Uploads(args) }) => Ok(args.command),
            Ok(other) => panic!("{other:?}"),
            Err(stop) => Err(stop.text_or_complaint().expect_err("a complaint")),
        }
    }

    #[test]
    fn an_age_is_a_number_with_a_unit() {
        let age = |typed: &str| -> Result<_, String> {
            match read(&format!("brigade uploads abort s3://b --older-than {typed}"))? {
                UploadsCommand::Abort(args) => Ok(args.older_than),
                other => panic!("{other:?}"),
            }
        };
        let hours = |hours| Ok(Some(Duration::from_hours(hours)));
        assert_eq!([age("12h"), age("7d"), age("1d12h")], [hours(12), hours(7 * 24), hours(36)]);
        for wrong in ["7", "soon", "-1d"] {
            age(wrong).expect_err(wrong);
        }
    }

    #[test]
    fn a_missing_command_is_told_which_there_are() {
        let said = read("brigade uploads").expect_err("nothing to do");
        assert!(said.contains("list, abort, resume"), "{said}");
    }
}
