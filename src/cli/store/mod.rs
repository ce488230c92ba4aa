//! `reput store`: looking at a store's directory, proving it whole, mending it.

mod dump;
mod repair;
mod verify;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use reput::{Config, vfs::OsVfs};

use super::Failure;

/// Bytes that a broker.conf may have.
const MAX_CONFIG_FILE: u64 = 1 << 20;
/// The directory could not be looked at, or something else was asked than can be done.
const CANNOT: u8 = 2;

/// What is asked about a store directory.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show what opening a store comes to, after recovery, without changing it.
    #[command(after_help = dump::EXAMPLES)]
    Dump(dump::Args),
    /// Prove a store whole, without changing it: every record, queue entry, key and checkpoint field.
    #[command(after_help = verify::EXAMPLES)]
    Verify(verify::Args),
    /// Mend what verify finds; without --apply it only says what that is.
    #[command(after_help = repair::EXAMPLES)]
    Repair(repair::Args),
}

/// Looks at a store directory.
pub fn run(args: Args) -> Result<ExitCode, Failure> {
    match args.command {
        Command::Dump(args) => dump::run(args).map(|()| ExitCode::SUCCESS),
        Command::Verify(args) => Ok(or_cannot(verify::run(&args))),
        Command::Repair(args) => Ok(or_cannot(repair::run(&args))),
    }
}

fn or_cannot(done: Result<bool, Failure>) -> ExitCode {
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(CANNOT)
        }
    }
}

/// A store that a process has open changes while it is looked at.
fn must_be_closed(dir: &Path) -> Result<(), Failure> {
    if OsVfs.is_locked(&dir.join("lock"))? {
        let dir = dir.display();
        return Err(format!("{dir} is open in another process: stop it first, or look at a copy").into());
    }
    Ok(())
}

fn configure(dir: &Path, file: Option<&Path>) -> Result<Config, Failure> {
    let mut config = Config::new(dir);
    let Some(path) = file else { return Ok(config) };
    let text = read(path)?;
    for (key, value) in reput::parse_properties(&text) {
        // The directory asked for is the store, wherever it was before.
        if !key.starts_with("storePath") {
            config.set(&key, value.trim())?;
        }
    }
    Ok(config)
}

fn read(path: &Path) -> Result<String, Failure> {
    let failed = |why: &dyn std::fmt::Display| format!("cannot read {}: {why}", path.display());
    let len = std::fs::metadata(path).map_err(|e| failed(&e))?.len();
    if len > MAX_CONFIG_FILE {
        return Err(failed(&"too large for a configuration").into());
    }
    Ok(std::fs::read_to_string(path).map_err(|e| failed(&e))?)
}

/// The options that verify and repair share.
#[derive(Debug, clap::Args)]
struct Target {
    /// RocketMQ's properties file; its file sizes and switches count, its paths do not.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// One JSON object a line.
    #[arg(long)]
    json: bool,

    /// The store's directory.
    dir: PathBuf,
}
