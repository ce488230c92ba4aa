//! The store measured, with the workloads, options and output lines of the Java store's own benchmark, so that both can
//! be run in turn: `benches/side_by_side.sh` does that.
//!
//! ```text
//! store_bench put     --dir DIR [--cells LIST] [--warm MS] [--ms MS] [--maxbytes N] [--set KEY=VALUE]...
//! store_bench fill    --dir DIR --msgs N [--cells CELL] [--bytes N] [--end clean|kill]
//! store_bench pull    --dir DIR [--cells 1:all:ref,4:tag:copy] [--warm MS] [--ms MS] [--queues N] [--end clean|wipe]
//! store_bench reput   --dir DIR [--set messageIndexEnable=false]
//! store_bench lag     --dir DIR [--rates 0,20000,100000] [--body N] [--ms MS]
//! store_bench query   --dir DIR --keys N [--cells THREADS,...] [--warm MS] [--ms MS]
//! store_bench recover --dir DIR
//! store_bench pages   --dir DIR [--bytes N]
//! ```
//!
//! A cell is `body:threads[:window[:batch[:topics[:queues[:props]]]]]`; a window above 0 keeps that many messages
//! waiting for the disk at once, props is `none`, `tag`, `key` or `uniq`. One JSON line a result on standard output.

mod cell;
mod dispatch;
mod lag;
mod measure;
mod pages;
mod pull;
mod query;

use std::{
    collections::HashMap,
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use reput::{Config, Store};
use serde_json::json;

use crate::{
    cell::{Cell, Limit},
    measure::{cpu_time, memory},
};

type Failure = Box<dyn Error + Send + Sync>;

/// The options of one call.
struct Options {
    named: HashMap<String, String>,
    settings: Vec<(String, String)>,
}

impl Options {
    fn read() -> Result<(String, Self), Failure> {
        let mut words = std::env::args().skip(1);
        let command = words
            .next()
            .ok_or("a command is needed: put, fill, pull, reput, lag, query, recover or pages")?;
        let (mut named, mut settings) = (HashMap::new(), Vec::new());
        while let Some(word) = words.next() {
            let name = word.strip_prefix("--").ok_or_else(|| format!("{word} is not an option"))?;
            let value = words.next().ok_or_else(|| format!("--{name} needs a value"))?;
            if name == "set" {
                let (key, value) = value.split_once('=').ok_or("--set KEY=VALUE")?;
                settings.push((key.to_owned(), value.to_owned()));
            } else {
                named.insert(name.to_owned(), value);
            }
        }
        Ok((command, Self { named, settings }))
    }

    fn text<'a>(&'a self, name: &str, default: &'a str) -> &'a str {
        self.named.get(name).map_or(default, String::as_str)
    }

    fn number(&self, name: &str, default: u64) -> Result<u64, Failure> {
        self.named.get(name).map_or(Ok(default), |text| cell::size(text))
    }

    fn millis(&self, name: &str, default: u64) -> Result<Duration, Failure> {
        self.number(name, default).map(Duration::from_millis)
    }

    fn dir(&self) -> PathBuf {
        self.text("dir", "data/store").into()
    }

    fn open(&self) -> Result<Store, Failure> {
        let mut config = Config::new(self.dir());
        for (key, value) in &self.settings {
            // Keys that only the Java store has are no error: the same call goes to both.
            config.set(key, value)?;
        }
        Ok(Store::open(config)?)
    }

    fn end(&self, store: &Store, default: &str) -> Result<(), Failure> {
        match self.text("end", default) {
            // Leaves the directory as a kill would.
            "kill" | "halt" => std::process::exit(0),
            "wipe" => {
                store.close()?;
                wipe(&self.dir())
            }
            _ => Ok(store.close()?),
        }
    }
}

fn wipe(dir: &Path) -> Result<(), Failure> {
    if dir.exists() {
        fs::remove_dir_all(dir)?;
    }
    Ok(())
}

fn main() -> ExitCode {
    let done = Options::read().and_then(|(command, options)| match command.as_str() {
        "put" => put(&options),
        "fill" => fill(&options),
        "pull" => pull::pull(&options),
        "reput" => dispatch::reput(&options),
        "lag" => lag::lag(&options),
        "query" => query::query(&options),
        "recover" => recover(&options),
        "pages" => pages::pages(&options),
        other => Err(format!("{other} is not a command").into()),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("store_bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn put(options: &Options) -> Result<(), Failure> {
    wipe(&options.dir())?;
    let store = options.open()?;
    let limit = Limit {
        warm: options.millis("warm", 700)?,
        time: options.millis("ms", 2000)?,
        bytes: options.number("maxbytes", 2 << 30)?,
        messages: options.number("msgs", u64::MAX)?,
    };
    for text in options.text("cells", "128:1").split(',') {
        let cell = Cell::parse(text)?;
        let result = cell.run(&store, &limit)?;
        println!("{}", result.line("put", &cell));
    }
    options.end(&store, "wipe")
}

fn fill(options: &Options) -> Result<(), Failure> {
    if options.text("keep", "false") != "true" {
        wipe(&options.dir())?;
    }
    let store = options.open()?;
    let cell = Cell::parse(options.text("cells", "128:2:0:1:1:8:key"))?;
    let limit = Limit {
        warm: Duration::ZERO,
        time: Duration::from_secs(600),
        bytes: options.number("bytes", u64::MAX)?,
        messages: options.number("msgs", u64::MAX)?,
    };
    let result = cell.run(&store, &limit)?;
    println!("{}", result.line("fill", &cell));
    options.end(&store, "clean")
}

fn recover(options: &Options) -> Result<(), Failure> {
    let abort = options.dir().join("abort").exists();
    let (start, cpu) = (Instant::now(), cpu_time());
    let store = options.open()?;
    let opened = start.elapsed();
    store.wait_dispatched(Duration::from_secs(600))?;
    let total = start.elapsed();
    let mut line = json!({
        "impl": "reput", "bench": "recover", "label": "default", "abort": abort, "load_ok": true,
        "load_recover_s": opened.as_secs_f64(), "start_catchup_s": (total - opened).as_secs_f64(),
        "total_s": total.as_secs_f64(), "cpu_s": (cpu_time() - cpu).as_secs_f64(),
        "max_phy": store.status().max_offset.get(),
    });
    memory(&mut line);
    println!("{line}");
    options.end(&store, "clean")
}
