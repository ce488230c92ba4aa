//! The command line: what can be asked, how logging is set up, and what the exit code says.
//!
//! Each subcommand is a file with an `Args` and a `run`. A `run` gives [`Failure`] when it could not do what was
//! asked; it is printed on stderr. Exit codes: 0 done, 1 failed, 2 asked the wrong way.

mod bench;
mod broker;
mod namesrv;
mod store;

use std::{io::IsTerminal, process::ExitCode};

use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Why a command failed, for people.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

const EXAMPLES: &str = "\
Examples:
  reput                                  a broker and its name server on 127.0.0.1, ports 10911 and 9876
  reput broker -c broker.conf            a broker as RocketMQ's own configuration file describes it
  reput namesrv -p 9876                  a name server alone
  reput store dump --json DIR            what opening the store in DIR would come to, without changing it
  reput store verify DIR                 whether the store in DIR is whole, without changing it
  reput store repair DIR                 what mending it would do; --apply does it
  reput bench --dir DIR                  what the disk of DIR can do, and what the store does of it

Then send and receive with any RocketMQ client, its name server set to 127.0.0.1:9876.

Exit codes: 0 done, 1 failed, 2 wrong arguments, 74 a file lost bytes under the running process.";

/// A RocketMQ message store and broker.
///
/// Without a subcommand it starts a broker with its name server, as `reput broker` does.
#[derive(Debug, Parser)]
#[command(name = "reput", version, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
struct Cli {
    /// What to log: off, error, warn, info, debug, trace, or a list such as `info,reput::remoting=debug`.
    ///
    /// Without it the environment's RUST_LOG counts.
    #[arg(long, global = true, value_name = "FILTER")]
    log: Option<String>,

    #[command(subcommand)]
    command: Option<Command>,

    #[command(flatten)]
    broker: broker::Args,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a broker, with a name server unless one is configured.
    Broker(broker::Args),
    /// Start a name server.
    Namesrv(namesrv::Args),
    /// Look at a store directory, prove it whole, mend it.
    Store(store::Args),
    /// Measure this disk, and what the store does of it.
    Bench(Box<bench::Args>),
}

/// Reads the arguments and does what they ask.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    let command = cli.command.unwrap_or(Command::Broker(cli.broker));
    if let Err(error) = reput::vfs::exit_on_sigbus() {
        eprintln!("warning: a mapped file that is cut short will end this process by a signal: {error}");
    }
    if let Err(error) = reput::vfs::raise_open_files_limit() {
        eprintln!("warning: the limit of open files stays as it is: {error}");
    }
    let quiet = matches!(command, Command::Store(_) | Command::Bench(_));
    if let Err(error) = log_to_stderr(cli.log.as_deref(), if quiet { "warn" } else { "info" }) {
        eprintln!("error: --log: {error}");
        return ExitCode::from(2);
    }
    let done = match command {
        Command::Broker(args) => broker::run(args).map(|()| ExitCode::SUCCESS),
        Command::Namesrv(args) => namesrv::run(args).map(|()| ExitCode::SUCCESS),
        Command::Store(args) => store::run(args),
        Command::Bench(args) => bench::run(&args),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Sets logging up, once: `--log`, else RUST_LOG, else `default`.
fn log_to_stderr(asked: Option<&str>, default: &str) -> Result<(), Failure> {
    let filter = match asked {
        Some(filter) => EnvFilter::try_new(filter)?,
        None => EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default)),
    };
    let colours = std::io::stderr().is_terminal();
    let logging = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours);
    logging.with_writer(std::io::stderr).try_init()
}

/// The runtime that servers run on.
pub fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    // One that the disk may keep, and one that goes on serving.
    let threads = std::thread::available_parallelism().map_or(2, |cores| cores.get().max(2));
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?)
}

/// Waits until Ctrl-C is pressed or the process is asked to end. Being asked once more ends it at once.
pub async fn asked_to_stop() -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut asked = async move || {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    asked().await;
    tokio::spawn(async move {
        asked().await;
        eprintln!("error: asked to stop again, ended before everything was closed");
        std::process::exit(1);
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_subcommand_means_a_broker() {
        let cli = Cli::try_parse_from(["reput"]).unwrap();
        assert!(cli.command.is_none());
        assert!(Cli::try_parse_from(["reput", "serve"]).is_err());
    }
}
