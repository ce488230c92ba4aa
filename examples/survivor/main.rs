//! The two sides of a crash: a writer that says what the store promised it, and an audit that holds the store to it.
//!
//! ```text
//! survivor write DIR [--config FILE] [--from N] [--count N] [--threads N] [--body N] [--pause-us N] [--sync-every N]
//!                    [--retry-ms N]
//! survivor audit DIR [--config FILE] [--acks FILE] [--durable true] [--before FILE] [--fresh N] [--put FILE]
//!                    [--listing FILE] [--taken-from N --taken-to N]
//! survivor again DIR --listing FILE [--config FILE]
//! ```
//!
//! `write` puts numbered messages until it is killed, and prints a line for each acknowledgement after it was given:
//! whatever reads its output knows what must be there. `audit` opens what was left and prints every broken promise;
//! exit code 0 whole, 1 a promise is broken, 2 the store refuses to open, 74 a mapped file lost bytes. `again` opens what
//! the audit has left: the same log must be there, and nothing to mend. The rigs in `tests/crash` kill, starve and cut off
//! the writer and call the audit.

mod audit;
mod letter;
mod write;

use std::{collections::HashMap, error::Error, fs, path::Path, process::ExitCode};

use reput::Config;

type Failure = Box<dyn Error + Send + Sync>;

const USAGE: &str = "survivor write|audit|again DIR [--option VALUE]...";

/// The words behind the directory.
struct Options(HashMap<String, String>);

impl Options {
    fn text(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    fn number(&mut self, name: &str, default: u64) -> Result<u64, Failure> {
        let Some(text) = self.text(name) else { return Ok(default) };
        text.parse().map_err(|error| format!("--{name} {text}: {error}").into())
    }

    fn end(&self) -> Result<(), Failure> {
        self.0.keys().next().map_or(Ok(()), |name| Err(format!("--{name} is not an option").into()))
    }
}

fn main() -> ExitCode {
    // As a program that serves a store does: a mapped file that loses bytes ends it with a message and exit code 74.
    if let Err(error) = reput::vfs::exit_on_sigbus() {
        eprintln!("survivor: a mapped file that is cut short will end this process by a signal: {error}");
    }
    match run() {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("survivor: {error}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<u8, Failure> {
    let mut words = std::env::args().skip(1);
    let (Some(verb), Some(dir)) = (words.next(), words.next()) else { return Err(USAGE.into()) };
    let mut options = Options(HashMap::new());
    while let Some(name) = words.next() {
        let name = name.strip_prefix("--").ok_or(USAGE)?.to_owned();
        options.0.insert(name, words.next().ok_or(USAGE)?);
    }
    let mut config = Config::new(&dir);
    if let Some(file) = options.text("config") {
        for (key, value) in reput::parse_properties(&fs::read_to_string(file)?) {
            config.set(&key, &value)?;
        }
    }
    config.root = Path::new(&dir).to_owned();
    config.commit_log_dir = None;
    match verb.as_str() {
        "write" => write::write(config, options),
        "audit" => audit::audit(config, options),
        "again" => audit::again(config, options),
        _ => Err(USAGE.into()),
    }
}
