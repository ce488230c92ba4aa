//! What a run came to, as it is kept in JSON: the machine, and for each cell its rounds.
//!
//! The figures of a round stand beside each other, so that a ratio can be taken within one round. Units are spelled
//! out in every cell; times are microseconds unless a name says otherwise.

use std::path::Path;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::{Failure, statistics};

/// The name of the JSON's shape; another one is refused.
pub const FORMAT: &str = "reput-bench/1";
/// Bytes that a file of results may have.
const MAX_FILE: u64 = 256 << 20;
/// Points that a cell keeps of its throughput over time, all rounds together.
const MAX_POINTS: usize = 2_000;

/// A whole run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    /// [`FORMAT`].
    pub format: String,
    /// What the run is called in comparisons.
    pub label: String,
    /// The version of reput.
    pub version: String,
    /// The arguments it was started with.
    pub arguments: Vec<String>,
    /// When it started, in milliseconds since 1970.
    pub started_ms: u64,
    /// How long it took.
    pub seconds: f64,
    /// Whether it was stopped before its end.
    pub interrupted: bool,
    /// Where it ran.
    pub machine: Machine,
    /// What was measured.
    pub cells: Vec<CellResult>,
}

/// Where a run ran.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Machine {
    /// Processors that the process may use.
    pub processors: usize,
    /// What the first of them is called.
    pub processor: String,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// The kernel's name and release.
    pub kernel: String,
    /// The measured directory.
    pub directory: String,
    /// Its file system and how it is mounted.
    pub file_system: String,
    /// Bytes of its partition.
    pub disk_bytes: u64,
    /// Of them free when the run started.
    pub disk_free_bytes: u64,
    /// Processors that other processes kept busy while this ran, on average.
    pub others_busy: f64,
}

/// One cell: a workload with its parameters.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CellResult {
    /// The name by which comparisons find it again: `put/128/t4`.
    pub id: String,
    /// The part of the report that it stands in.
    pub group: String,
    /// What it is, for people.
    pub title: String,
    /// `msgs/s`, `MB/s`, `us` and so on.
    pub unit: String,
    /// Whether less is better.
    pub lower_is_better: bool,
    /// The cell whose value is the most that could be reached.
    pub limit: Option<String>,
    /// The middle of the rounds.
    pub median: f64,
    /// The least of them.
    pub least: f64,
    /// The greatest of them.
    pub greatest: f64,
    /// The middle of the rounds' shares of the limit, 1 being all of it.
    pub share: Option<f64>,
    /// Latencies of all rounds together.
    pub latency: Option<Latency>,
    /// Where the time of one call goes, in nanoseconds.
    pub stages: Vec<Stage>,
    /// The rounds, in the order in which they ran.
    pub rounds: Vec<Round>,
    /// Units a second over time: seconds into the cell's own time, and the rate.
    pub over_time: Vec<(f64, f64)>,
}

/// One round of one cell.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Round {
    /// In the cell's unit.
    pub value: f64,
    /// How long it was measured.
    pub seconds: f64,
    /// Messages, records, calls: what `value` counts.
    pub operations: u64,
    /// Processor time for one of them, all threads of the process together.
    pub cpu_us: Option<f64>,
    /// Half the calls took no longer.
    pub p50_us: Option<f64>,
    /// Of a hundred calls one took longer.
    pub p99_us: Option<f64>,
    /// The same until queues and index had followed, for puts.
    pub followed: Option<f64>,
    /// How evenly several threads were served: Jain's index, 1 when all got the same.
    #[serde(default)]
    pub fairness: Option<f64>,
    /// Share of the limit measured in the same round.
    pub share: Option<f64>,
}

/// Latencies in microseconds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Latency {
    /// Calls that were timed.
    pub count: u64,
    /// One call of so many was timed.
    pub timed_every: u32,
    /// Whether a call's time counts from when it was due, not from when it was made.
    pub from_intended_start: bool,
    /// Their mean.
    pub mean: f64,
    /// Half of them.
    pub p50: f64,
    /// 90 of 100.
    pub p90: f64,
    /// 99 of 100.
    pub p99: f64,
    /// 999 of 1,000.
    pub p999: f64,
    /// 9,999 of 10,000.
    pub p9999: f64,
    /// The longest.
    pub max: f64,
    /// Percentile and time, as far as there are calls for it.
    pub curve: Vec<(f64, f64)>,
}

/// A part of a call's time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    /// What happens in it.
    pub name: String,
    /// How long, for one call.
    pub nanos: f64,
}

/// A cell of ours and Java's of the same name.
#[derive(Clone, Copy, Debug)]
pub struct Beside<'a> {
    pub ours: &'a CellResult,
    pub java: &'a CellResult,
    /// The middle of the rounds' ratios; above 1 ours is faster.
    pub ratio: f64,
    pub least: f64,
    pub greatest: f64,
    /// Our processor time for an operation by Java's; below 1 ours takes less.
    pub cpu: Option<f64>,
}

/// Counts of latencies in nanoseconds, to three digits, up to an hour.
pub type Latencies = Histogram<u64>;

/// An empty histogram.
pub fn latencies() -> Latencies {
    // The bounds are constants that the library accepts.
    Histogram::new_with_max(3_600_000_000_000, 3).unwrap_or_else(|_| unreachable!("constant bounds"))
}

impl Latency {
    /// The figures of a histogram.
    pub fn of(counts: &Latencies, timed_every: u32, from_intended_start: bool) -> Self {
        let at = |percent: f64| counts.value_at_percentile(percent) as f64 / 1e3;
        let mut curve = vec![(0.0, counts.min() as f64 / 1e3)];
        for step in 1..=60_i32 {
            // Evenly spaced in the number of nines: 10 points for each.
            let behind = 10_f64.powf(-f64::from(step) / 10.0);
            if behind * (counts.len() as f64) < 1.0 {
                break;
            }
            // Seven digits behind the point tell all of them apart and read back as they are.
            let percent = (100.0 * (1.0 - behind) * 1e7).round() / 1e7;
            curve.push((percent, at(percent)));
        }
        curve.push((100.0, counts.max() as f64 / 1e3));
        Self {
            count: counts.len(),
            timed_every,
            from_intended_start,
            mean: counts.mean() / 1e3,
            p50: at(50.0),
            p90: at(90.0),
            p99: at(99.0),
            p999: at(99.9),
            p9999: at(99.99),
            max: counts.max() as f64 / 1e3,
            curve,
        }
    }
}

impl CellResult {
    /// The rounds' values.
    pub fn values(&self) -> Vec<f64> {
        self.rounds.iter().map(|round| round.value).collect()
    }

    /// The rounds' shares of the limit.
    pub fn shares(&self) -> Vec<f64> {
        self.rounds.iter().filter_map(|round| round.share).collect()
    }

    /// The middle of the rounds' processor times.
    pub fn cpu_us(&self) -> Option<f64> {
        let all: Vec<f64> = self.rounds.iter().filter_map(|round| round.cpu_us).collect();
        (!all.is_empty()).then(|| statistics::median(&all))
    }

    /// Fills in what follows from the rounds.
    pub fn summarise(&mut self) {
        let values = self.values();
        self.median = statistics::median(&values);
        (self.least, self.greatest) = statistics::ends(&values);
        let shares = self.shares();
        self.share = (!shares.is_empty()).then(|| statistics::median(&shares));
        let keep = self.over_time.len().div_ceil(MAX_POINTS).max(1);
        let points = self.over_time.iter().step_by(keep);
        self.over_time = points.map(|(at, rate)| ((at * 1e4).round() / 1e4, rate.round())).collect();
    }
}

impl Run {
    /// The cell of this name.
    pub fn cell(&self, id: &str) -> Option<&CellResult> {
        self.cells.iter().find(|cell| cell.id == id)
    }

    /// What of ours was measured beside Java, by Java's, round by round.
    pub fn beside_java(&self) -> Vec<Beside<'_>> {
        let pairs = self.cells.iter().filter_map(|java| {
            let ours = self.cell(java.id.strip_prefix("java/")?)?;
            let ratios: Vec<f64> =
                ours.rounds.iter().zip(&java.rounds).map(|(ours, java)| ours.value / java.value).collect();
            let (least, greatest) = statistics::ends(&ratios);
            let cpu = ours.cpu_us().zip(java.cpu_us()).map(|(ours, java)| ours / java);
            Some(Beside { ours, java, ratio: statistics::median(&ratios), least, greatest, cpu })
        });
        pairs.filter(|beside| beside.ratio.is_finite()).collect()
    }

    /// Reads a file of results.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let told = |why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
        let len = std::fs::metadata(path).map_err(|e| told(&e))?.len();
        if len > MAX_FILE {
            return Err(told(&"too large for results of `reput bench --json`").into());
        }
        let text = std::fs::read_to_string(path).map_err(|e| told(&e))?;
        let run: Self = serde_json::from_str(&text)
            .map_err(|e| told(&format!("not what `reput bench --json` writes: {e}")))?;
        if run.format != FORMAT {
            return Err(
                told(&format!("its format is {:?}, this program reads {FORMAT:?}", run.format)).into()
            );
        }
        Ok(run)
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A run with one cell of these values, and its limit.
    pub fn run_of(label: &str, values: &[f64]) -> Run {
        let rounds = |factor: f64, share| {
            values.iter().map(move |v| Round { value: v * factor, share, ..Round::default() }).collect()
        };
        let mut counts = latencies();
        (1..=1_000).for_each(|n| counts.saturating_record(n * 1_000));
        let mut cell = CellResult {
            id: "put/128/t1".into(),
            group: "put".into(),
            title: "128 B, 1 thread".into(),
            unit: "msgs/s".into(),
            lower_is_better: false,
            limit: Some("memory/copy/224".into()),
            median: 0.0,
            least: 0.0,
            greatest: 0.0,
            share: None,
            latency: Some(Latency::of(&counts, 16, false)),
            stages: vec![Stage { name: "encode".into(), nanos: 20.0 }],
            rounds: rounds(1.0, Some(0.5)),
            over_time: vec![(0.0, 9.0), (0.01, 11.0)],
        };
        cell.summarise();
        let mut limit = CellResult { latency: None, stages: Vec::new(), limit: None, ..cell.clone() };
        (limit.id, limit.group, limit.title) =
            ("memory/copy/224".into(), "limits".into(), "copy <224> B".into());
        limit.rounds = rounds(2.0, None);
        limit.summarise();
        Run {
            format: FORMAT.into(),
            label: label.into(),
            version: "0".into(),
            arguments: vec!["put".into()],
            started_ms: 1,
            seconds: 2.0,
            interrupted: false,
            machine: Machine::default(),
            cells: vec![limit, cell],
        }
    }

    #[test]
    fn results_read_back_as_they_were_written() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.json");
        let run = run_of("a", &[10.0, 11.0, 12.0]);
        std::fs::write(&file, serde_json::to_string(&run).unwrap()).unwrap();
        let read = Run::read(&file).unwrap();
        let cell = read.cell("put/128/t1").unwrap();
        assert!((cell.median - 11.0).abs() < 1e-9 && (cell.least - 10.0).abs() < 1e-9);
        assert_eq!(cell.share, Some(0.5));
        assert_eq!(serde_json::to_value(&read).unwrap(), serde_json::to_value(&run).unwrap());
    }

    #[test]
    fn a_file_of_something_else_is_refused_with_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("b.json");
        let other = Run { format: "reput-bench/9".into(), ..run_of("b", &[1.0]) };
        for text in ["{}".to_owned(), "no".into(), serde_json::to_string(&other).unwrap()] {
            std::fs::write(&file, text).unwrap();
            let error = Run::read(&file).unwrap_err().to_string();
            assert!(error.contains("b.json"), "{error}");
        }
        assert!(Run::read(&dir.path().join("absent.json")).is_err());
    }

    #[test]
    fn percentiles_are_exact_to_three_digits_and_the_curve_rises() {
        let mut counts = latencies();
        (1..=100_000).for_each(|n| counts.saturating_record(n * 10));
        let latency = Latency::of(&counts, 1, false);
        assert!((latency.p50 - 500.0).abs() < 1.0 && (latency.p99 - 990.0).abs() < 1.0, "{latency:?}");
        assert!((latency.max - 1000.0).abs() < 1.0);
        assert!(latency.curve.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1));
        assert!(latency.curve.len() > 45);
    }

    #[test]
    fn a_long_series_is_thinned() {
        let mut cell = run_of("c", &[1.0]).cells.remove(0);
        cell.over_time = (0..10_000).map(|n| (f64::from(n), 1.0)).collect();
        cell.summarise();
        assert!(cell.over_time.len() <= MAX_POINTS && cell.over_time.len() > MAX_POINTS / 2);
    }
}
