//! The `brigade` command. Everything is in the library, where tests can reach it.

use std::process::ExitCode;

fn main() -> ExitCode {
    brigade_cli::run(std::env::args_os())
}
