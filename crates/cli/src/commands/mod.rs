//! The commands: each carries out what was meant and tells a printer.

mod ask;
mod cat;
mod cp;
mod demo;
mod du;
mod ls;
mod man;
mod mv;
mod resume;
mod rm;
mod run;
mod serve;
mod stat;
mod tally;
mod tree;
mod uploads;
mod verify;
mod watch;

use std::ffi::OsString;
use std::future::Future;

use anyhow::{Context as _, Result};

use crate::args::{self, Cli, Command, OutputArgs, ParseStop};
use crate::environment::Environment;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::format::command_line;
use crate::meaning::{Listed, Tree, Verification, means_many};
use crate::printer::Printer;
use crate::stdout;

/// Carries out what `cli` asks for and returns how the process ends.
pub(crate) fn run(cli: Cli, typed: &[OsString], environment: &Environment) -> Exit {
    match cli.command {
        Command::Cp(args) if means_many(&args) => {
            many(Tree::copying(&args, false, environment), &args, typed, environment)
        }
        Command::Cp(args) => {
            let mut printer = Printer::new(&args.output, args.target == "-", environment);
            let result = cp::run(&args, typed, environment, &mut printer);
            ended(result, &mut printer)
        }
        Command::Rm(args) => {
            let mut printer = Printer::new(&args.output, false, environment);
            let result = rm::run(&args, environment, &mut printer);
            ended_with(result, &mut printer)
        }
        Command::Stat(args) => {
            let mut printer = Printer::new(&args.output, false, environment);
            let result = stat::run(&args, environment, &mut printer);
            ended_with(result, &mut printer)
        }
        Command::Cat(args) => {
            let mut printer = Printer::new(&args.output, true, environment);
            let result = cat::run(&args, environment, &mut printer);
            ended(result, &mut printer)
        }
        Command::Mv(args) if means_many(&args) => {
            many(Tree::copying(&args, true, environment), &args, typed, environment)
        }
        Command::Verify(args) => {
            let mut printer = Printer::new(&args.output, false, environment);
            let result = Verification::from_args(&args, environment)
                .and_then(|verification| verify::run(verification, &mut printer));
            ended_with(result, &mut printer)
        }
        Command::Sync(args) => {
            many(Tree::syncing(&args, environment), &args.cp, typed, environment)
        }
        Command::Mv(args) => {
            let mut printer = Printer::new(&args.output, false, environment);
            let result = mv::run(&args, typed, environment, &mut printer);
            ended(result, &mut printer)
        }
        Command::Run(args) => {
            let mut printer = Printer::new(&args.output, false, environment);
            let result = run::run(&args, environment, &mut printer);
            ended_with(result, &mut printer)
        }
        Command::Ls(args) => {
            let mut printer = printer_of_json(args.shape.json, environment);
            let result = Listed::from_ls(&args, environment);
            ended_with(
                result.and_then(|listed| ls::run(&args, &listed, &mut printer)),
                &mut printer,
            )
        }
        Command::Du(args) => {
            let mut printer = printer_of_json(args.shape.json, environment);
            let result = Listed::from_du(&args, environment);
            ended_with(
                result.and_then(|listed| du::run(&args, &listed, &mut printer)),
                &mut printer,
            )
        }
        Command::Resume(args) => {
            let mut printer = Printer::new(&args.output, false, environment);
            let result = resume::run(&args, typed, environment, &mut printer);
            ended_with(result, &mut printer)
        }
        Command::Uploads(args) => uploads::run(&args.command, typed, environment),
        Command::Serve(args) => {
            let output = OutputArgs { json: args.json, ..OutputArgs::default() };
            let mut printer = Printer::new(&output, false, environment);
            let result = serve::run(*args, &mut printer);
            ended(result, &mut printer)
        }
        Command::Demo(args) => {
            let mut printer = Printer::new(&args.output, false, environment);
            let result = demo::run(&args, &mut printer);
            ended(result, &mut printer)
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut args::grammar(), "brigade", &mut script);
            stdout::print(&script);
            Exit::SUCCESS
        }
        Command::Man => {
            let mut printer = Printer::plain(environment);
            let result = man::page().map(|page| stdout::print(&page));
            ended(result.map_err(Into::into), &mut printer)
        }
    }
}

/// A job of many objects, if its arguments make sense.
fn many(
    tree: Result<Tree>,
    args: &args::CpArgs,
    typed: &[OsString],
    environment: &Environment,
) -> Exit {
    let mut printer = Printer::new(&args.output, false, environment);
    let result = tree.and_then(|tree| tree::run(tree, typed, &mut printer));
    ended_with(result, &mut printer)
}

/// Help and version go to standard output and are a success; anything else is misuse.
pub(crate) fn tell_parse_stop(
    stop: &ParseStop,
    args: &[OsString],
    environment: &Environment,
) -> Exit {
    match stop.text_or_complaint() {
        Ok(text) => {
            stdout::print(text.as_bytes());
            Exit::SUCCESS
        }
        Err(complaint) => {
            // The grammar did not hold, so this is as good as a look for --json gets.
            let options = args.iter().take_while(|arg| *arg != "--");
            let json = options.clone().any(|arg| arg == "--json");
            let stdout_taken = options.clone().any(|arg| arg == "-");
            let output = OutputArgs { json, ..OutputArgs::default() };
            let failure = Failure::usage(complaint);
            Printer::new(&output, stdout_taken, environment).failure(&failure);
            failure.exit
        }
    }
}

/// For a command whose results are rows of its own.
fn printer_of_json(json: bool, environment: &Environment) -> Printer {
    Printer::new(&OutputArgs { json, ..OutputArgs::default() }, false, environment)
}

fn ended(result: Result<()>, printer: &mut Printer) -> Exit {
    ended_with(result.map(|()| Exit::SUCCESS), printer)
}

/// The same for a command that does many things, some of which may have failed.
fn ended_with(result: Result<Exit>, printer: &mut Printer) -> Exit {
    match result {
        Ok(exit) => exit,
        Err(error) => {
            let failure = Failure::from(&error);
            printer.failure(&failure);
            failure.exit
        }
    }
}

/// The command as it was typed, for a shell.
fn typed_again(typed: &[OsString]) -> Option<String> {
    let args: Vec<OsString> = typed
        .get(1..)?
        .iter()
        // Which would begin anew once more.
        .filter(|arg| *arg != "--no-resume")
        .map(without_password)
        .collect();
    Some(format!("brigade {}", command_line(&args)))
}

/// An endpoint may have been typed with a user and a password in it, and this is printed.
fn without_password(arg: &OsString) -> OsString {
    let Some((scheme, rest)) = arg.to_str().and_then(|arg| arg.split_once("://")) else {
        return arg.clone();
    };
    let host_ends = rest.find('/').unwrap_or(rest.len());
    match rest[..host_ends].rfind('@') {
        Some(at) => format!("{scheme}://***{}", &rest[at..]).into(),
        None => arg.clone(),
    }
}

/// Waits for `command` on this thread. The engine and the store have threads of their own; what
/// is left for this one is signals and printing.
fn block_on<T>(command: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start; the system gives no timers or signals")?;
    let result = runtime.block_on(command);
    // Without waiting for a thread that still reads or writes a file for a command that was stopped.
    runtime.shutdown_background();
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_that_goes_on_neither_begins_anew_nor_tells_a_password() {
        let typed: Vec<OsString> =
            ["x/brigade", "cp", "--no-resume", "a b", "s3://b/k@y", "http://me:hush@host/p@q"]
                .map(Into::into)
                .into();
        assert_eq!(
            typed_again(&typed).as_deref(),
            Some("brigade cp 'a b' s3://b/k@y 'http://***@host/p@q'")
        );
        assert_eq!(typed_again(&[]), None);
    }
}
