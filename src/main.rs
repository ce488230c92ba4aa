//! The `reput` command: a broker with its name server, a name server alone, and tools for store directories.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
