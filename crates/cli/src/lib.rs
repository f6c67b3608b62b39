//! The `brigade` command line: what was typed becomes what is meant, then the engine does it.
//!
//! A command passes through three layers. `args` is the grammar: one definition of every option,
//! from which help, man page and completions are made as well. `meaning` turns the arguments as
//! typed, the environment and the look of local paths into options of the engine, once, and refuses
//! what makes no sense. `commands` carries it out and tells a `printer`, the only place that
//! decides what goes to standard output, standard error or a progress bar.
//!
//! Whatever a library must not do alone is done here: reading the environment, handling signals,
//! printing, ending the process. Failures travel as [`anyhow::Error`] and become an exit code in
//! `exit`, the one table that `--help`, the man page and docs/CLI.md repeat.

mod args;
mod commands;
mod environment;
mod exit;
mod failure;
mod format;
mod machine;
mod meaning;
mod printer;
mod signals;
mod stdout;

use std::ffi::OsString;
use std::process::ExitCode;

use crate::environment::Environment;

/// Runs the command line `args` (the program's own name first) and returns how the process ends.
///
/// Reads the environment, handles SIGINT and SIGTERM from here on, and prints.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let environment = Environment::of_process();
    let exit = match args::parse(&args) {
        Ok(cli) => commands::run(cli, &args, &environment),
        Err(stop) => commands::tell_parse_stop(&stop, &args, &environment),
    };
    ExitCode::from(exit.code())
}
