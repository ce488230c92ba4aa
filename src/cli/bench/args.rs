//! What can be asked of `reput bench`.

use std::path::PathBuf;

use super::units;

const EXAMPLES: &str = "\
Examples:
  reput bench --dir /mnt/new/bench            what that disk can do, and what the store does of it: two minutes
  reput bench --dir /mnt/new/bench --json before.json --html before.html
  reput bench put --size 128,1k --threads 1,4,16
  reput bench put --size 1k --threads 4 --rate 100000       open loop: times count from when a put was due
  reput bench sync --threads 1,16,64,256                    group commit
  reput bench sync --threads 4 --window 64                  completions instead of waiting threads
  reput bench recover --store /var/lib/rmq/store            how long a broker's directory takes to open; changes nothing
  reput bench compare before.json after.json                ratio, spread, and whether it is more than noise
  reput bench --against-java                                the Java store in turn with ours, round by round

How it measures: every workload runs once in each round, and what the disk or the memory can do at most is one of
them; a share is of the limit of the same round. Figures are medians of the rounds, with the least and the greatest.

Where it writes: only below --dir, which must be empty or absent. It never holds more than --max-bytes there, stops
when the partition is fuller than --max-used, and removes everything again, also on Ctrl-C.

Exit codes: 0 done, 1 failed, 2 wrong arguments, 130 stopped by Ctrl-C. `reput bench compare` has its own.";

const COMPARE: &str = "\
The first file is what the others are compared with. A difference counts as real when both hold:
  - the medians differ by --percent or more, and
  - the rounds of one side lie above those of the other so clearly that chance does it less often than --chance
    (two-sided Mann-Whitney test). With five rounds a side and 0.01 that means: no round of one side reaches into
    the other. Three rounds a side cannot show it; that is said, and is no difference.
Two runs of one program differ too, when the machine does: --by share compares shares of the limit, which were
measured beside each figure and take the machine's mood out.

Exit codes: 0 nothing is worse, 1 failed, 2 wrong arguments, 3 something is worse by more than noise.

Examples:
  reput bench compare before.json after.json
  reput bench compare before.json after.json --by share --percent 10
  reput bench compare monday.json tuesday.json wednesday.json --html week.html";

/// What is to be measured.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true, subcommand_help_heading = "Parts")]
pub struct Args {
    #[command(subcommand)]
    pub what: Option<What>,
    #[command(flatten)]
    pub how: How,
}

/// One part, or a comparison.
#[derive(Debug, clap::Subcommand)]
pub enum What {
    /// The disk and the memory alone: fdatasync, sequential writes and reads, mapped writes, page faults, copies.
    Disk(Disk),
    /// Puts under ASYNC_FLUSH, single and in batches.
    Put(Put),
    /// Puts under SYNC_FLUSH: one thread, group commit, completions.
    Sync(Sync),
    /// The dispatcher: building queues and index from a log.
    Reput(Filled),
    /// How long after a put its message can be read.
    Lag(Lag),
    /// Pulls from memory and from the disk.
    Pull(Pull),
    /// Looking up messages by key.
    Query(Query),
    /// Opening a store after a kill and after a clean stop.
    Recover(Recover),
    /// Many new topics at once.
    Topics(Topics),
    /// A backlog that grows for gigabytes: puts must not slow down, its far end must read like its start.
    Backlog(Backlog),
    /// Removing expired segments.
    Retention(Retention),
    /// Compare results of earlier runs.
    Compare(Compare),
}

/// How anything is measured.
#[derive(Clone, Debug, clap::Args)]
pub struct How {
    /// The directory to measure in: empty, or not there yet. Its file system is what counts.
    #[arg(long, value_name = "DIR", default_value = "reput-bench")]
    pub dir: PathBuf,

    /// Rounds. Five are the fewest that tell two runs apart [default: 5; 1 with --quick and for a backlog].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub rounds: Option<u16>,

    /// Milliseconds that a workload is measured in a round [default: 250; 20 with --quick].
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(1..=3_600_000))]
    pub ms: Option<u32>,

    /// Milliseconds that it runs before that [default: a fifth of --ms].
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(0..=3_600_000))]
    pub warm: Option<u32>,

    /// A look whether everything works: one short round with little data. Its figures are worth nothing.
    #[arg(long)]
    pub quick: bool,

    /// Bytes that may lie in the directory at once.
    #[arg(long, value_name = "SIZE", default_value = "8g", value_parser = units::size)]
    pub max_bytes: u64,

    /// Percent of the partition, everybody's files together, above which it stops.
    #[arg(long, value_name = "PERCENT", default_value_t = 85, value_parser = clap::value_parser!(u32).range(1..=99))]
    pub max_used: u32,

    /// Write the results as JSON; `-` is standard output, and the table then goes to standard error.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Write a page with plots: one file that needs nothing else.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,

    /// What the run is called in comparisons [default: the name of the JSON file, or the time].
    #[arg(long, value_name = "TEXT")]
    pub label: Option<String>,

    /// One key of RocketMQ's and its value, for every store; may be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_and_value)]
    pub set: Vec<(String, String)>,

    /// Measure Apache RocketMQ's Java store 5.5.0 in turn; needs Java 17 and Maven.
    #[arg(long)]
    pub against_java: bool,
}

fn key_and_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("needed is KEY=VALUE")?;
    Ok((key.trim().to_owned(), value.to_owned()))
}

fn bytes(text: &str) -> Result<usize, String> {
    usize::try_from(units::size(text)?).map_err(|_| format!("{text} is too large"))
}

fn count(text: &str) -> Result<usize, String> {
    let count: usize = text.parse().map_err(|_| format!("{text:?} is no whole number"))?;
    if (1..=10_000_000).contains(&count) { Ok(count) } else { Err("allowed is 1 to 10000000".into()) }
}

fn threads(text: &str) -> Result<usize, String> {
    count(text).and_then(|n| if n <= 4096 { Ok(n) } else { Err("allowed is 1 to 4096".into()) })
}

macro_rules! parts {
    ($( $(#[$doc:meta])* $name:ident { $($fields:tt)* } )*) => { $(
        $(#[$doc])*
        #[derive(Debug, clap::Args)]
        pub struct $name {
            $($fields)*
            #[command(flatten)]
            pub how: How,
        }
    )* };
}

parts! {
    /// The limits.
    Disk {
        /// Bodies of the records that are copied and synced.
        #[arg(long, value_name = "SIZES", value_delimiter = ',', default_value = "128,1k", value_parser = bytes)]
        pub size: Vec<usize>,
    }
    /// Asynchronous puts.
    Put {
        /// Bytes of a body; several separated by commas.
        #[arg(long, value_name = "SIZES", value_delimiter = ',', default_value = "128,1k", value_parser = bytes)]
        pub size: Vec<usize>,
        /// Threads that put.
        #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1,4,16", value_parser = threads)]
        pub threads: Vec<usize>,
        /// Messages of one call.
        #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1", value_parser = threads)]
        pub batch: Vec<usize>,
        /// Topics that take turns, of 8 queues each.
        #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1", value_parser = count)]
        pub topics: Vec<usize>,
        /// Messages a second of all threads together (open loop) instead of as fast as it goes (closed loop).
        #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = clap::value_parser!(u64).range(1..))]
        pub rate: Vec<u64>,
    }
    /// Synchronous puts.
    Sync {
        /// Bytes of a body; several separated by commas.
        #[arg(long, value_name = "SIZES", value_delimiter = ',', default_value = "1k", value_parser = bytes)]
        pub size: Vec<usize>,
        /// Threads that put and wait.
        #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1,16,64,256", value_parser = threads)]
        pub threads: Vec<usize>,
        /// Messages that each thread has outstanding; 0 waits for each.
        #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "0")]
        pub window: Vec<usize>,
        /// Messages of one call.
        #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1", value_parser = threads)]
        pub batch: Vec<usize>,
        /// Messages a second of all threads together (open loop).
        #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = clap::value_parser!(u64).range(1..))]
        pub rate: Vec<u64>,
    }
    /// A store that is filled first.
    Filled {
        /// Messages in the store.
        #[arg(long, value_name = "N", default_value = "1000000", value_parser = count)]
        pub messages: usize,
        /// Bytes of a body.
        #[arg(long, value_name = "SIZE", default_value = "128", value_parser = bytes)]
        pub size: usize,
    }
    /// Dispatch lag.
    Lag {
        /// Other puts a second; several separated by commas.
        #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "0,20000,100000")]
        pub rate: Vec<u64>,
        /// Bytes of their bodies.
        #[arg(long, value_name = "SIZE", default_value = "1k", value_parser = bytes)]
        pub size: usize,
    }
    /// Pulls.
    Pull {
        /// Messages in the store.
        #[arg(long, value_name = "N", default_value = "1000000", value_parser = count)]
        pub messages: usize,
        /// Bytes of a body.
        #[arg(long, value_name = "SIZE", default_value = "128", value_parser = bytes)]
        pub size: usize,
        /// Threads that pull, each from a queue of its own.
        #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1,4", value_parser = threads)]
        pub threads: Vec<usize>,
        /// Messages of one pull.
        #[arg(long, value_name = "N", default_value = "32", value_parser = threads)]
        pub batch: usize,
        /// Pull from the longest queue of this store instead, whatever its size; nothing in it is changed.
        #[arg(long, value_name = "DIR")]
        pub store: Option<PathBuf>,
    }
    /// Queries.
    Query {
        /// Messages in the store, each with a key of its own.
        #[arg(long, value_name = "N", default_value = "1000000", value_parser = count)]
        pub messages: usize,
        /// Bytes of a body.
        #[arg(long, value_name = "SIZE", default_value = "128", value_parser = bytes)]
        pub size: usize,
        /// Threads that ask.
        #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1,4", value_parser = threads)]
        pub threads: Vec<usize>,
    }
    /// Recovery.
    Recover {
        /// Messages in the store.
        #[arg(long, value_name = "N", default_value = "1000000", value_parser = count)]
        pub messages: usize,
        /// Bytes of a body.
        #[arg(long, value_name = "SIZE", default_value = "1k", value_parser = bytes)]
        pub size: usize,
        /// Open this store instead, whatever its size; nothing in it is changed.
        #[arg(long, value_name = "DIR")]
        pub store: Option<PathBuf>,
    }
    /// New topics.
    Topics {
        /// Topics; several numbers separated by commas.
        #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1000,10000", value_parser = count)]
        pub topics: Vec<usize>,
        /// Bytes of a body.
        #[arg(long, value_name = "SIZE", default_value = "128", value_parser = bytes)]
        pub size: usize,
    }
    /// A growing backlog.
    Backlog {
        /// Bytes to grow to. More than the machine's memory is the interesting case.
        #[arg(long, value_name = "SIZE", default_value = "4g", value_parser = units::size)]
        pub bytes: u64,
        /// Bytes of a body.
        #[arg(long, value_name = "SIZE", default_value = "1k", value_parser = bytes)]
        pub size: usize,
        /// Threads that put.
        #[arg(long, value_name = "N", default_value = "4", value_parser = threads)]
        pub threads: usize,
    }
    /// Retention.
    Retention {}
}

/// Results to compare.
#[derive(Debug, clap::Args)]
#[command(after_help = COMPARE)]
pub struct Compare {
    /// Files that `--json` wrote, the one to compare with first.
    #[arg(value_name = "JSON", required = true, num_args = 2..)]
    pub files: Vec<PathBuf>,

    /// What is compared: the figures, or their shares of the limit.
    #[arg(long, value_enum, default_value = "value")]
    pub by: By,

    /// The least difference of the medians that counts, in percent.
    #[arg(long, value_name = "PERCENT", default_value_t = 5.0)]
    pub percent: f64,

    /// The greatest chance that a difference is noise.
    #[arg(long, value_name = "SHARE", default_value_t = 0.01)]
    pub chance: f64,

    /// Print JSON instead of a table.
    #[arg(long)]
    pub json: bool,

    /// Write a page with plots of all runs.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

/// What a comparison looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum By {
    /// The figures themselves.
    Value,
    /// Their shares of the limit measured in the same round.
    Share,
}

impl What {
    /// How it is to be measured.
    pub fn how(&self) -> Option<&How> {
        Some(match self {
            Self::Disk(part) => &part.how,
            Self::Put(part) => &part.how,
            Self::Sync(part) => &part.how,
            Self::Reput(part) => &part.how,
            Self::Lag(part) => &part.how,
            Self::Pull(part) => &part.how,
            Self::Query(part) => &part.how,
            Self::Recover(part) => &part.how,
            Self::Topics(part) => &part.how,
            Self::Backlog(part) => &part.how,
            Self::Retention(part) => &part.how,
            Self::Compare(_) => return None,
        })
    }
}
