//! One path of the store at a time, on one thread, for figures that other work on the machine cannot move:
//! `benches/instructions.sh` runs each below callgrind and counts the instructions between the start and the end of
//! [`measured`]. Run by itself it says the processor time instead.
//!
//! ```text
//! hot_paths DIR CASE [COUNT]
//! ```
//! DIR is emptied first. COUNT is messages (puts, reput, recovery) or messages looked at (gets) or queries.

mod cases;

use std::{
    error::Error,
    fs,
    hint::black_box,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use reput::{Config, Steps, Store, SystemClock, vfs::OsVfs};

type Failure = Box<dyn Error + Send + Sync>;

/// One path: what is done before, and what is measured. The figure is per message.
pub struct Case {
    name: &'static str,
    about: &'static str,
    count: u64,
    run: fn(&mut Bench, u64) -> Result<u64, Failure>,
}

/// A directory for a store, and what was measured in it.
pub struct Bench {
    dir: PathBuf,
    cpu: Duration,
}

impl Bench {
    fn open(&self, settings: &[(&str, &str)]) -> Result<(Store, Steps), Failure> {
        let mut config = Config::new(&self.dir);
        for (key, value) in settings {
            config.set(key, value)?;
        }
        Ok(Store::open_stepped(config, Arc::new(OsVfs), Arc::new(SystemClock::new()))?)
    }

    /// Measures `work`.
    fn measure<T>(&mut self, mut work: impl FnMut() -> Result<T, Failure>) -> Result<T, Failure> {
        let start = thread_time();
        let mut outcome = None;
        measured(&mut || outcome = Some(work()));
        self.cpu += thread_time().saturating_sub(start);
        outcome.unwrap_or_else(|| Err("nothing was run".into()))
    }
}

/// Callgrind counts from the entry of this to its return.
#[inline(never)]
fn measured(work: &mut dyn FnMut()) {
    black_box(work)();
    black_box(());
}

/// Processor time of this thread. Read from the system's files, so that the example needs no foreign calls.
fn thread_time() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0))
}

fn wipe(dir: &Path) -> Result<(), Failure> {
    if dir.exists() {
        fs::remove_dir_all(dir)?;
    }
    Ok(())
}

fn run() -> Result<(), Failure> {
    let mut words = std::env::args().skip(1);
    let (Some(dir), Some(name)) = (words.next(), words.next()) else {
        for case in cases::ALL {
            println!("{:<22} {:>9}  {}", case.name, case.count, case.about);
        }
        return Ok(());
    };
    let case = cases::ALL.iter().find(|case| case.name == name).ok_or_else(|| format!("no case {name}"))?;
    let count = words.next().map_or(Ok(case.count), |text| text.parse())?;
    let mut bench = Bench { dir: PathBuf::from(dir), cpu: Duration::ZERO };
    wipe(&bench.dir)?;
    let outcome = (case.run)(&mut bench, count);
    wipe(&bench.dir)?;
    let messages = outcome?.max(1);
    println!("{name} {messages} messages {:.1} ns", bench.cpu.as_secs_f64() * 1e9 / messages as f64);
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hot_paths: {error}");
            ExitCode::FAILURE
        }
    }
}
