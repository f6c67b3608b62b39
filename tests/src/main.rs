//! The `brigade` command for the tests, made of the same library as the real one.

use std::process::ExitCode;

fn main() -> ExitCode {
    brigade_cli::run(std::env::args_os())
}
