//! Crashes simulated stores until enough images were checked or an invariant breaks.
//!
//! `cargo run --release --features sim --example crash_lab -- --images 100000`

use std::{
    io::Write as _,
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use reput::sim::{Finding, Lab, Replay, Tally};

const HELP: &str = "\
Puts, flushes, rolls, deletes, closes, kills and breaks a store on a simulated disk, cuts the power at every sync,
rename, removal, creation and write, also within recovery, and checks each disk that this may leave.

usage: crash_lab [--images N] [--seed S] [--seeds N] [--jobs N] [--quiet] [BUDGET]
       crash_lab [--seed S | --bytes HEX] [--steps A,B,...] [--break PLACE/FAULT] [BUDGET]
  --images N       images to check in all [100000]
  --seed S         the first seed [1]; the next ones follow
  --seeds N        seeds to run at most
  --jobs N         threads [one a processor]
  --quiet          no progress

one run again, as a finding names it:
  --steps A,B,..   these steps of the one seed, or `none`
  --bytes HEX      the workload that an input of the fuzz target `operations` is
  --break P/F      the failing call of a finding of the error matrix
and first, when a fuzzer found it:
  --shrink         leaves out what is not needed

BUDGET: how much of each workload is checked
  --per-seed N           images of one workload at most [5000]
  --per-point N          images of a crash point that is not checked in every combination [3]
  --every-pages N        dirty pages up to which every point of few combinations is checked in all [6]
  --exhaustive-one-in N  of the others, one in so many is checked in all [64] ...
  --exhaustive-pages N   ... up to so many dirty pages [12]

exit code: 0 nothing found, 1 an invariant broke, 2 wrong usage";

struct Options {
    images: u64,
    seeds: u64,
    jobs: usize,
    quiet: bool,
    shrink: bool,
    replay: Replay,
}

fn options() -> Result<Options, String> {
    let (mut images, mut seeds, mut quiet, mut shrink) = (100_000, u64::MAX, false, false);
    let mut jobs = thread::available_parallelism().map_or(1, usize::from);
    let mut rest = String::new();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--help" | "-h" => {
                println!("{HELP}");
                std::process::exit(0);
            }
            "--quiet" => quiet = true,
            "--shrink" => shrink = true,
            _ => {
                let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
                let number = || value.parse::<u64>().map_err(|error| format!("{word} {value}: {error}"));
                match word.as_str() {
                    "--images" => images = number()?,
                    "--seeds" => seeds = number()?,
                    "--jobs" => jobs = usize::try_from(number()?).unwrap_or(1).max(1),
                    _ => rest = format!("{rest} {word} {value}"),
                }
            }
        }
    }
    Ok(Options { images, seeds, jobs, quiet, shrink, replay: rest.parse()? })
}

/// One run, as a finding names it.
fn again(options: &Options) -> ExitCode {
    let (lab, workload) = (Lab::new(options.replay.budget), &options.replay.workload);
    let ran = if options.shrink { lab.run_and_shrink(workload) } else { lab.run(workload) };
    match ran {
        Ok(tally) => {
            println!("nothing found in {} images", tally.images);
            ExitCode::SUCCESS
        }
        Err(finding) => {
            println!("after {} images: {finding}", finding.images);
            ExitCode::FAILURE
        }
    }
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(error) => {
            eprintln!("{error}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    // A panic of the store is a finding and told as one.
    std::panic::set_hook(Box::new(|_| {}));
    if options.replay.is_one_run {
        return again(&options);
    }
    run(&options)
}

fn run(options: &Options) -> ExitCode {
    let started = Instant::now();
    let first = options.replay.workload.seed();
    let (next, images, stop) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let total = Mutex::new(Tally::default());
    let found: Mutex<Option<Box<Finding>>> = Mutex::new(None);
    let work = || {
        while !stop.load(Ordering::Relaxed) && images.load(Ordering::Relaxed) < options.images {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= options.seeds {
                return;
            }
            match Lab::new(options.replay.budget).seed(first + number) {
                Ok(tally) => {
                    images.fetch_add(tally.images, Ordering::Relaxed);
                    total.lock().unwrap_or_else(|e| e.into_inner()).add(&tally);
                }
                Err(finding) => {
                    stop.store(true, Ordering::Relaxed);
                    found.lock().unwrap_or_else(|e| e.into_inner()).get_or_insert(finding);
                }
            }
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..options.jobs).map(|_| scope.spawn(work)).collect();
        let mut last = Instant::now();
        while workers.iter().any(|worker| !worker.is_finished()) {
            thread::sleep(Duration::from_millis(50));
            if !options.quiet && last.elapsed() >= Duration::from_secs(2) {
                last = Instant::now();
                let done = images.load(Ordering::Relaxed);
                let rate = done as f64 / started.elapsed().as_secs_f64();
                eprint!("\r{done} of {} images, {rate:.0} a second ", options.images);
                let _ = std::io::stderr().flush();
            }
        }
    });
    if !options.quiet {
        eprintln!();
    }
    let total = total.into_inner().unwrap_or_else(|e| e.into_inner());
    let seconds = started.elapsed().as_secs_f64();
    let depths: Vec<String> = total.depths.iter().map(|(depth, n)| format!("{n} after {depth}")).collect();
    println!(
        "ran {} images ({} crashes each), {} crash points, {} of them in every combination, {} workloads from seed {}, \
         {:.0} images a second",
        total.images,
        depths.join(", "),
        total.points,
        total.exhaustive,
        total.seeds,
        first,
        total.images as f64 / seconds
    );
    match found.into_inner().unwrap_or_else(|e| e.into_inner()) {
        None => {
            println!("0 violations");
            ExitCode::SUCCESS
        }
        Some(finding) => {
            println!("seed {} after {} images: {finding}", finding.replay.workload.seed(), finding.images);
            ExitCode::FAILURE
        }
    }
}
