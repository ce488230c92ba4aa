//! Writes a store and notes what was acknowledged, or opens one and verifies that nothing acknowledged is missing.
//!
//! ```text
//! workload write DIR --acks FILE [--config FILE] [--plan NAME] [--topics N] [--queues N] [--max-body N]
//!                    [--threads N] [--count N]
//! workload check DIR --acks FILE [--config FILE]
//! ```
//!
//! `write` adds a JSON line to FILE for each message, only after the store has acknowledged it; without a count it
//! writes until it is killed, which is what it is for. `check` opens the directory, whoever wrote it and however it
//! was left, and holds record, queue entry and index against those lines. `tests/java/run.sh` uses both.

mod ack;
mod check;
mod plan;

use std::{
    collections::HashMap,
    error::Error,
    fs::{self, File},
    io::{BufRead, BufReader, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::atomic::{AtomicU64, Ordering},
    sync::{Arc, Mutex},
};

use reput::{Config, Message, PutStatus, Queue, Store};

use crate::{
    ack::Ack,
    plan::{Letter, Plan},
};

type Failure = Box<dyn Error + Send + Sync>;

/// Messages of one append in the plan `batch`.
const BATCH: u64 = 8;

fn main() -> ExitCode {
    match run() {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("workload: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<String, Failure> {
    let mut words = std::env::args().skip(1);
    let usage = "workload write|check DIR --acks FILE [--option VALUE]...";
    let (Some(verb), Some(dir)) = (words.next(), words.next()) else { return Err(usage.into()) };
    let mut options = HashMap::new();
    while let Some(name) = words.next() {
        let name = name.strip_prefix("--").ok_or(usage)?.to_owned();
        options.insert(name, words.next().ok_or(usage)?);
    }
    let acks = PathBuf::from(options.remove("acks").ok_or("--acks is needed")?);
    let config = config(Path::new(&dir), options.remove("config").as_deref())?;
    match verb.as_str() {
        "write" => write(config, &acks, &mut options),
        "check" => check::check(config, &read_acks(&acks)?),
        _ => Err(usage.into()),
    }
}

fn config(dir: &Path, file: Option<&str>) -> Result<Config, Failure> {
    let mut config = Config::new(dir);
    if let Some(file) = file {
        for (key, value) in reput::parse_properties(&fs::read_to_string(file)?) {
            config.set(&key, &value)?;
        }
    }
    config.root = dir.to_owned();
    config.commit_log_dir = None;
    Ok(config)
}

fn read_acks(path: &Path) -> Result<Vec<Ack>, Failure> {
    let mut acks = Vec::new();
    for line in BufReader::new(File::open(path)?).lines() {
        let line = line?;
        // A writer that was killed may have left half a line; its message counts as not acknowledged.
        if line.ends_with('}') {
            acks.push(Ack::from_line(&line)?);
        }
    }
    Ok(acks)
}

fn number(options: &mut HashMap<String, String>, name: &str, default: u64) -> Result<u64, Failure> {
    options
        .remove(name)
        .map_or(Ok(default), |text| text.parse().map_err(|e| format!("--{name} {text}: {e}").into()))
}

fn write(config: Config, acks: &Path, options: &mut HashMap<String, String>) -> Result<String, Failure> {
    let plan = Plan {
        name: options.remove("plan").unwrap_or_else(|| "plain".into()),
        topics: number(options, "topics", 3)?,
        queues: number(options, "queues", 4)?,
        max_body: number(options, "max-body", 300)?,
    };
    let (threads, count) = (number(options, "threads", 1)?, number(options, "count", 0)?);
    if let Some(unknown) = options.keys().next() {
        return Err(format!("--{unknown} is not an option").into());
    }
    let written = if acks.exists() { read_acks(acks)?.len() } else { 0 };
    // Message numbers of this run start above those of the runs before, so that every key stays unique.
    let first = if written == 0 { 0 } else { 1_000_000 * (1 + written as u64 / 1_000_000) };
    let store = Store::open(config)?;
    let writer = Arc::new(Writer {
        store: store.clone(),
        plan,
        next: AtomicU64::new(first),
        end: if count == 0 { u64::MAX } else { first + count },
        acks: Mutex::new(File::options().create(true).append(true).open(acks)?),
    });
    let workers: Vec<_> = (0..threads)
        .map(|_| {
            let writer = Arc::clone(&writer);
            std::thread::spawn(move || writer.run())
        })
        .collect();
    let mut told = 0;
    for worker in workers {
        told += worker.join().map_err(|_| "a writer panicked")??;
    }
    store.close()?;
    Ok(format!("{told} acknowledged"))
}

struct Writer {
    store: Store,
    plan: Plan,
    next: AtomicU64,
    end: u64,
    acks: Mutex<File>,
}

impl Writer {
    fn run(&self) -> Result<usize, Failure> {
        let step = if self.plan.name == "batch" { BATCH } else { 1 };
        let mut told = 0;
        loop {
            let n = self.next.fetch_add(step, Ordering::Relaxed);
            if n >= self.end {
                return Ok(told);
            }
            told += if step == 1 { self.put(n)? } else { self.put_batch(n)? };
        }
    }

    fn queue(&self, letter: &Letter) -> Result<Queue, Failure> {
        Ok(if letter.inner_num > 0 {
            self.store.batch_queue(&letter.topic, letter.queue_id)?
        } else {
            self.store.queue(&letter.topic, letter.queue_id)?
        })
    }

    fn put(&self, n: u64) -> Result<usize, Failure> {
        let letter = self.plan.letter(n);
        let appended = self.store.put(&letter.message(self.queue(&letter)?))?;
        let ack = Ack::of(&letter, &appended);
        match appended.wait()? {
            PutStatus::Ok => self.tell(&[ack]),
            other => Err(format!("put says {other:?}").into()),
        }
    }

    fn put_batch(&self, n: u64) -> Result<usize, Failure> {
        let mut letters: Vec<Letter> = (n..n + BATCH).map(|n| self.plan.letter(n)).collect();
        let (topic, queue_id) = (letters[0].topic.clone(), letters[0].queue_id);
        for letter in &mut letters {
            (letter.topic, letter.queue_id) = (topic.clone(), queue_id);
        }
        let queue = self.queue(&letters[0])?;
        let messages: Vec<Message<'_>> = letters.iter().map(|letter| letter.message(queue)).collect();
        let appended = self.store.put_batch(&messages)?;
        let acks: Vec<Ack> =
            letters.iter().zip(&appended).map(|(letter, place)| Ack::of(letter, place)).collect();
        for place in appended {
            match place.wait()? {
                PutStatus::Ok => {}
                other => return Err(format!("put says {other:?}").into()),
            }
        }
        self.tell(&acks)
    }

    /// One write for the lines of one append, so that a kill leaves at most the last one torn.
    fn tell(&self, acks: &[Ack]) -> Result<usize, Failure> {
        let lines: String = acks.iter().map(Ack::line).collect();
        self.acks.lock().map_err(|_| "another writer failed")?.write_all(lines.as_bytes())?;
        Ok(acks.len())
    }
}
