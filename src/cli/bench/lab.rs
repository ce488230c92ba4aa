//! What every workload gets to work with, and what it hands back.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use reput::{Config, FlushDiskType, Store};

use super::{
    Failure,
    place::Place,
    progress::Progress,
    results::{Latencies, Machine},
    stop::Stop,
};

/// The topic of everything that needs only one.
pub const TOPIC: &str = "T00000";
/// Queues of a topic.
pub const QUEUES: i32 = 8;
/// A store with less room than this gets a small index.
const ROOM_FOR_INDEX: u64 = 2 << 30;
/// The largest share of the room that one segment takes.
const SEGMENTS_IN_ROOM: u64 = 6;

/// The surroundings of a measurement.
#[derive(Debug)]
pub struct Lab {
    /// Where files go.
    pub place: Place,
    /// Whether to go on.
    pub stop: Stop,
    /// What people see meanwhile.
    pub progress: Progress,
    /// How long a cell is measured in one round.
    pub time: Duration,
    /// How long it runs before that.
    pub warm: Duration,
    /// RocketMQ's keys and values for every store.
    pub settings: Vec<(String, String)>,
    /// Room for files when the run began: it decides their sizes, once for the whole run.
    pub room: u64,
}

/// What a cell is: its name, its unit and its limit. Same words as in the results.
#[derive(Clone, Debug)]
pub struct Head {
    pub id: String,
    pub group: &'static str,
    pub title: String,
    pub unit: &'static str,
    pub lower_is_better: bool,
    /// The limit's cell, and how many of its units stand for one of this cell.
    pub limit: Option<(String, f64)>,
}

impl Head {
    /// A cell where more is better and nothing is the limit.
    pub fn new(
        group: &'static str,
        id: impl Into<String>,
        title: impl Into<String>,
        unit: &'static str,
    ) -> Self {
        Self { id: id.into(), group, title: title.into(), unit, lower_is_better: false, limit: None }
    }

    /// A cell where less is better.
    pub fn lower(mut self) -> Self {
        self.lower_is_better = true;
        self
    }

    /// Sets the limit: a cell of the same unit.
    pub fn limited(self, id: impl Into<String>) -> Self {
        self.limited_by(id, 1.0)
    }

    /// Sets the limit: `factor` of its units stand for one of this cell.
    pub fn limited_by(mut self, id: impl Into<String>, factor: f64) -> Self {
        self.limit = Some((id.into(), factor));
        self
    }
}

type Running = Box<dyn FnMut(&Lab) -> Result<Vec<Sample>, Failure>>;

/// A workload: what it measures and how a round of it is run. A round gives one sample for each head.
pub struct Work {
    pub heads: Vec<Head>,
    pub run: Running,
}

impl Work {
    /// A workload with one cell.
    pub fn one(head: Head, mut run: impl FnMut(&Lab) -> Result<Sample, Failure> + 'static) -> Self {
        Self { heads: vec![head], run: Box::new(move |lab| run(lab).map(|sample| vec![sample])) }
    }

    /// A workload with several cells.
    pub fn several(
        heads: Vec<Head>,
        run: impl FnMut(&Lab) -> Result<Vec<Sample>, Failure> + 'static,
    ) -> Self {
        Self { heads, run: Box::new(run) }
    }
}

impl std::fmt::Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Work").field("heads", &self.heads).finish_non_exhaustive()
    }
}

/// What one round of one cell came to.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// In the cell's unit.
    pub value: f64,
    pub seconds: f64,
    /// When the span began.
    pub started: Option<Instant>,
    /// What `value` counts.
    pub operations: u64,
    /// Processor time of all threads of the process.
    pub cpu: Option<Duration>,
    pub latency: Option<Latencies>,
    /// One call of so many was timed.
    pub timed_every: u32,
    /// Whether times count from when a call was due.
    pub from_intended_start: bool,
    /// Seconds since the start, and units a second.
    pub over_time: Vec<(f64, f64)>,
    /// Messages a second until queues and index had followed.
    pub followed: Option<f64>,
    /// How the calling threads spent their time.
    pub spent: Option<Spent>,
    /// Jain's index of the threads' shares.
    pub fairness: Option<f64>,
}

/// What one call cost the thread that made it, in nanoseconds, on average.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spent {
    pub wall: f64,
    /// On a processor.
    pub running: f64,
    /// Ready to run, without a processor.
    pub queued: f64,
    /// Waiting for the disk's word, within the call that waits.
    pub flush: f64,
    /// Page faults, as a number.
    pub faults: f64,
    /// Messages of one call.
    pub messages: f64,
}

impl Sample {
    /// A sample of `operations` in `seconds`.
    pub fn rate(operations: u64, seconds: f64) -> Self {
        Self { value: operations as f64 / seconds.max(1e-9), seconds, operations, ..Self::default() }
    }

    /// A sample that is a time, in seconds.
    pub fn time(took: Duration) -> Self {
        Self { value: took.as_secs_f64(), seconds: took.as_secs_f64(), operations: 1, ..Self::default() }
    }

    /// A sample of bytes in MB/s.
    pub fn megabytes(bytes: u64, seconds: f64) -> Self {
        let mut sample = Self::rate(bytes, seconds);
        sample.value /= 1e6;
        sample
    }

    /// Another value, the rest as it is.
    pub fn valued(mut self, value: f64) -> Self {
        self.value = value;
        self
    }
}

impl Lab {
    /// Whether to go on: nobody asked to stop, and the disk is not fuller than allowed.
    pub fn check(&self) -> Result<(), Failure> {
        self.stop.check()?;
        self.place.check()
    }

    /// The configuration of a store in `dir`: RocketMQ's defaults, cut down to the room there is, then what was set.
    pub fn config(&self, dir: &Path) -> Result<Config, Failure> {
        let mut config = Config::new(dir);
        let fits = (self.room / SEGMENTS_IN_ROOM).clamp(4 << 20, 1 << 30);
        config = config.commit_log_file_size(1_u64 << fits.ilog2());
        if self.room < ROOM_FOR_INDEX {
            config = config
                .index_slots(200_000_u32)
                .index_entries(800_000_u32)
                .consume_queue_file_size(600_000_u64);
        }
        // The bound of the run is lower than the store's own, unless that was set.
        config = config
            .disk_warning_percent(99_u32)
            .disk_clean_forcibly_percent(100_u32)
            .disk_max_used_percent(95_u32);
        for (key, value) in &self.settings {
            if !config.set(key, value)? {
                return Err(format!("--set {key}={value}: the store has no such key").into());
            }
        }
        Ok(config)
    }

    /// Bytes that a workload may put into a store of this configuration.
    pub fn bytes_for(&self, config: &Config, wanted: u64) -> Result<u64, Failure> {
        // Beside the bytes there are the segment being written and the one made ahead of it.
        let room = self.place.room()?;
        let free = room.saturating_sub(3 * config.commit_log_file_size) / 10 * 8;
        Ok(free.max(room / 4).min(wanted))
    }

    /// A store in a fresh directory.
    pub fn store(&self, name: &str, flush: FlushDiskType) -> Result<Scratch, Failure> {
        let dir = self.place.fresh(name)?;
        let config = self.config(&dir)?.flush_disk_type(flush);
        Ok(Scratch { store: Some(Store::open(config)?), dir })
    }
}

/// A store that is thrown away: its threads stop, nothing is synced any more, its directory goes.
#[derive(Debug)]
pub struct Scratch {
    store: Option<Store>,
    dir: PathBuf,
}

impl Scratch {
    /// The store.
    pub fn store(&self) -> Result<&Store, Failure> {
        self.store.as_ref().ok_or_else(|| "the store is gone".into())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.store.take();
        // What stays is removed with the run's directory.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// What there is to say about the machine before a run.
pub fn machine(dir: &Path) -> Machine {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name))
            .map(|rest| rest.trim_start_matches([' ', '\t', ':']).to_owned())
    };
    let memory = field(&read("/proc/meminfo"), "MemTotal").unwrap_or_default();
    let kib: u64 = memory.trim_end_matches(" kB").parse().unwrap_or(0);
    let usage = reput::vfs::Vfs::usage(&reput::vfs::OsVfs, dir).ok();
    Machine {
        processors: std::thread::available_parallelism().map_or(1, usize::from),
        processor: field(&read("/proc/cpuinfo"), "model name")
            .unwrap_or_else(|| std::env::consts::ARCH.into()),
        memory_bytes: kib * 1024,
        kernel: format!(
            "{} {}",
            read("/proc/sys/kernel/ostype").trim(),
            read("/proc/sys/kernel/osrelease").trim()
        ),
        directory: dir.display().to_string(),
        file_system: super::place::file_system(dir),
        disk_bytes: usage.map_or(0, |usage| usage.total),
        disk_free_bytes: usage.map_or(0, |usage| usage.free),
        others_busy: 0.0,
    }
}

/// Processor time that everything on the machine has used so far, in seconds.
pub fn machine_busy() -> f64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let ticks: Vec<f64> = text
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .map_while(|n| n.parse().ok())
        .collect();
    // user nice system idle iowait irq softirq steal; a tick is a hundredth of a second for every reader of this file.
    let busy: f64 =
        ticks.iter().enumerate().filter(|(n, _)| !matches!(n, 3 | 4) && *n < 8).map(|(_, t)| t).sum();
    busy / 100.0
}

/// Processor time of the processes that this one started and that have ended, in seconds: Maven, the JVM.
pub fn children_busy() -> f64 {
    let text = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Behind the name, which may hold anything: state is the first field, cutime and cstime are the 14th and 15th.
    let fields = text.rsplit(") ").next().unwrap_or_default().split(' ');
    fields.skip(13).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}
