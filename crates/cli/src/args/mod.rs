//! The grammar: every command and option as it is typed, defined once.
//!
//! Help, man page and completions are made from these definitions, so whatever a person must know
//! of an option stands in its comment here. Nothing is decided in this module: a value that is well
//! formed on its own passes, and `meaning` judges what values say together.
//!
//! Where `aws s3` has an option, it is spelled the same here.

// Comments on options are help texts, where backticks would show as such.
#![allow(clippy::doc_markdown)]

mod cat;
mod cp;
mod customer_key;
mod demo;
pub(crate) mod filter;
mod job;
mod ls;
mod network;
mod output;
mod resume;
mod rm;
mod run;
mod serve;
mod stat;
mod store;
mod uploads;

use std::ffi::OsString;

use clap::{CommandFactory, Parser, Subcommand};

pub(crate) use cat::CatArgs;
pub(crate) use cp::{Checksum, CpArgs, Direct, Directive, Proof, SourceArgs, Sse};
pub(crate) use customer_key::CustomerKeyArgs;
pub(crate) use demo::DemoArgs;
pub(crate) use job::{JobArgs, SyncArgs, VerifyArgs};
pub(crate) use ls::{DuArgs, LsArgs, ShapeArgs};
pub(crate) use network::NetworkArgs;
pub(crate) use output::OutputArgs;
pub(crate) use resume::ResumeArgs;
pub(crate) use rm::RmArgs;
pub(crate) use run::RunArgs;
pub(crate) use serve::ServeArgs;
pub(crate) use stat::StatArgs;
pub(crate) use store::StoreArgs;
pub(crate) use uploads::{AbortArgs, SelectArgs, UploadsArgs, UploadsCommand};

/// Move objects in and out of S3 in parallel parts, and prove that every byte arrived.
#[derive(Debug, Parser)]
#[command(name = "brigade", version, after_help = EXAMPLES, after_long_help = after_long_help())]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What there is to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Copy a file or standard input into a bucket, an object into a file, or an object to another.
    // Boxed: it has many options, and the other commands should not take up as much.
    Cp(Box<CpArgs>),
    /// Delete objects: single ones, all that match a pattern, or all below a prefix.
    // Boxed as well, like those below: there are many options to reach a store.
    Rm(Box<RmArgs>),
    /// Show what the store knows of an object, or of a bucket.
    Stat(Box<StatArgs>),
    /// Print objects on standard output, one after the other, verified.
    Cat(Box<CatArgs>),
    /// Move a file or an object: copy it, verify the copy, then remove the source.
    #[command(after_help = MV_EXAMPLES)]
    Mv(Box<CpArgs>),
    /// Bring a folder or a prefix to the state of another: only what differs is moved.
    Sync(Box<SyncArgs>),
    /// Hold a folder against objects, by what the store has recorded of their content.
    Verify(Box<VerifyArgs>),
    /// Carry out a list of transfers and deletions as one job.
    Run(Box<RunArgs>),
    /// List buckets, folders and objects.
    // Boxed, like those below: there are many options to reach a store.
    Ls(Box<LsArgs>),
    /// Count objects and their bytes.
    Du(Box<DuArgs>),
    /// Go on with every unfinished transfer that was begun here, the oldest first.
    Resume(ResumeArgs),
    /// Show, give up or go on with unfinished uploads, here and on the store.
    Uploads(UploadsArgs),
    /// Serve an S3-compatible store from a folder, for development and tests.
    // Boxed as well.
    Serve(Box<ServeArgs>),
    /// See it work: start a store, upload a file, download it, compare.
    Demo(DemoArgs),
    /// Print a completion script for a shell.
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the man page.
    #[command(after_help = MAN_EXAMPLES)]
    Man,
}

const EXAMPLES: &str = "\
Examples:
  brigade demo
  brigade cp backup.tar s3://my-bucket/backups/
  brigade cp s3://my-bucket/backups/backup.tar .
  brigade cp s3://my-bucket/logs.zst - | zstd -d
  brigade cp -r photos s3://my-bucket/photos
  brigade sync photos s3://my-bucket/photos --delete --dry-run
  brigade rm -r s3://my-bucket/tmp/ --dry-run
  brigade cp s3://my-bucket/a s3://other-bucket/b
  brigade run list.txt
  brigade ls s3://my-bucket/backups/
  brigade du s3://my-bucket
  brigade resume
  brigade uploads list s3://my-bucket
  brigade serve ./data --bucket my-bucket

Run 'brigade COMMAND --help' for a command's options and examples.";

const MV_EXAMPLES: &str = "\
Examples:
  brigade mv backup.tar s3://my-bucket/backups/
  brigade mv s3://my-bucket/monday.tar .
  brigade mv s3://my-bucket/monday.tar s3://my-bucket/2026/monday.tar --verify require";

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  brigade completions bash > ~/.local/share/bash-completion/completions/brigade
  brigade completions zsh > ~/.zfunc/_brigade
  brigade completions fish > ~/.config/fish/completions/brigade.fish";

const MAN_EXAMPLES: &str = "\
Examples:
  brigade man > ~/.local/share/man/man1/brigade.1
  brigade man | man -l -";

/// Why there is nothing to run: help or a version to print, or arguments that are wrong.
pub(crate) struct ParseStop(clap::Error);

/// Reads the command line, the program's own name first.
pub(crate) fn parse(args: &[OsString]) -> Result<Cli, ParseStop> {
    Cli::try_parse_from(args).map_err(ParseStop)
}

/// The whole grammar, for the man page and completions.
pub(crate) fn grammar() -> clap::Command {
    Cli::command()
}

impl ParseStop {
    /// The text that was asked for, or the complaint in one line.
    pub(crate) fn text_or_complaint(&self) -> Result<String, String> {
        use clap::error::ErrorKind::{
            DisplayHelp, DisplayHelpOnMissingArgumentOrSubcommand, DisplayVersion,
        };
        let text = self.0.render().to_string();
        match self.0.kind() {
            DisplayHelp | DisplayVersion => Ok(text),
            DisplayHelpOnMissingArgumentOrSubcommand => {
                Err("no command given; see 'brigade --help'".into())
            }
            _ => Err(in_one_line(&text)),
        }
    }
}

/// clap spreads a complaint over paragraphs; what matters is above the usage line.
fn in_one_line(text: &str) -> String {
    let mut line = String::new();
    for piece in text.lines().map(str::trim).filter(|piece| !piece.is_empty()) {
        if piece.starts_with("Usage:") || piece.starts_with("For more information") {
            break;
        }
        let piece = piece.strip_prefix("error: ").unwrap_or(piece);
        if let Some(tip) = piece.strip_prefix("tip: ") {
            line.push_str("; ");
            line.push_str(tip);
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(piece);
        }
    }
    line.push_str("; see --help");
    line
}

fn after_long_help() -> String {
    format!("{EXAMPLES}\n\n{}", crate::exit::table_as_text())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaint(args: &[&str]) -> String {
        let args: Vec<OsString> = args.iter().map(OsString::from).collect();
        parse(&args).expect_err("wrong").text_or_complaint().expect_err("a complaint")
    }

    #[test]
    fn the_grammar_is_sound() {
        grammar().debug_assert();
    }

    /// Every command, those below others included.
    fn commands() -> Vec<clap::Command> {
        let mut all: Vec<_> = grammar().get_subcommands().cloned().collect();
        let below: Vec<_> = all.iter().flat_map(clap::Command::get_subcommands).cloned().collect();
        all.extend(below);
        all
    }

    #[test]
    fn every_command_shows_examples() {
        for command in commands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Examples:\n  brigade "), "{} has none", command.get_name());
        }
    }

    #[test]
    fn the_documentation_has_every_option() {
        let documented = include_str!("../../../../docs/CLI.md");
        for command in commands() {
            for option in command.get_arguments().filter_map(clap::Arg::get_long) {
                let found = documented.contains(&format!("--{option}"));
                assert!(found, "docs/CLI.md lacks --{option} of {}", command.get_name());
            }
        }
    }

    #[test]
    fn complaints_are_one_line() {
        assert_eq!(complaint(&["brigade"]), "no command given; see 'brigade --help'");
        assert_eq!(
            complaint(&["brigade", "cp"]),
            "the following required arguments were not provided: <SOURCE> <TARGET>; see --help"
        );
        assert_eq!(
            complaint(&["brigade", "cp", "a", "s3://b", "--regio", "x"]),
            "unexpected argument '--regio' found; a similar argument exists: '--region'; see --help"
        );
        let said = complaint(&["brigade", "cp", "a", "s3://b", "--part-size", "8 parsecs"]);
        assert!(said.starts_with("invalid value '8 parsecs' for '--part-size <SIZE>': "), "{said}");
        assert!(!said.contains('\n'), "{said}");
    }
}
