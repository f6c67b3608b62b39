//! `brigade-torture [ROUNDS] [MIB] [SEED]`: see the library's `torture`. Prints one line.

use std::process::ExitCode;

use brigade_tests::torture;

fn main() -> ExitCode {
    let mut numbers = std::env::args().skip(1).map(|word| word.parse::<u64>());
    let mut next = |default| numbers.next().unwrap_or(Ok(default));
    let (Ok(rounds), Ok(mib), Ok(seed)) = (next(200), next(256), next(1)) else {
        eprintln!("brigade-torture [ROUNDS] [MIB] [SEED]");
        return ExitCode::from(2);
    };
    let rounds = u32::try_from(rounds).unwrap_or(u32::MAX);
    println!("{}", torture::run(rounds, mib << 20, seed));
    ExitCode::SUCCESS
}
