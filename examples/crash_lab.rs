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

use reput::sim::{Budget, Finding, Lab, Tally};

const HELP: &str = "\
Puts, flushes, rolls, deletes, closes, kills and breaks a store on a simulated disk, cuts the power at every sync,
rename, removal, creation and write, also within recovery, and checks each disk that this may leave.

usage: crash_lab [--images N] [--seed S] [--seeds N] [--steps A,B,...] [--jobs N] [--per-seed N] [--quiet]
  --images N      images to check in all [100000]
  --seed S        the first seed [1]; the next ones follow
  --seeds N       seeds to run at most
  --steps A,B,..  replays these steps of the one seed, as a finding names them
  --per-seed N    images of one seed at most [5000]
  --jobs N        threads [one a processor]
  --quiet         no progress

exit code: 0 nothing found, 1 an invariant broke, 2 wrong usage";

struct Options {
    images: u64,
    seed: u64,
    seeds: u64,
    steps: Option<Vec<usize>>,
    jobs: usize,
    budget: Budget,
    quiet: bool,
}

fn options() -> Result<Options, String> {
    let mut options = Options {
        images: 100_000,
        seed: 1,
        seeds: u64::MAX,
        steps: None,
        jobs: thread::available_parallelism().map_or(1, usize::from),
        budget: Budget::default(),
        quiet: false,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        if word == "--help" || word == "-h" {
            println!("{HELP}");
            std::process::exit(0);
        }
        if word == "--quiet" {
            options.quiet = true;
            continue;
        }
        let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
        let number = || value.parse::<u64>().map_err(|error| format!("{word} {value}: {error}"));
        match word.as_str() {
            "--images" => options.images = number()?,
            "--seed" => options.seed = number()?,
            "--seeds" => options.seeds = number()?,
            "--jobs" => options.jobs = usize::try_from(number()?).unwrap_or(1).max(1),
            "--per-seed" => options.budget.images = number()?,
            "--steps" => {
                let steps = value.split(',').map(|step| step.trim().parse::<usize>());
                let steps: Result<Vec<_>, _> = steps.collect();
                options.steps = Some(steps.map_err(|error| format!("--steps {value}: {error}"))?);
            }
            _ => return Err(format!("{word} is not known")),
        }
    }
    Ok(options)
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
    if let Some(steps) = &options.steps {
        return match Lab::new(options.budget).replay(options.seed, steps) {
            Ok(tally) => {
                println!("seed {}: nothing found in {} images", options.seed, tally.images);
                ExitCode::SUCCESS
            }
            Err(violation) => {
                println!("seed {}: {violation}", options.seed);
                ExitCode::FAILURE
            }
        };
    }
    run(&options)
}

fn run(options: &Options) -> ExitCode {
    let started = Instant::now();
    let (next, images, stop) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let total = Mutex::new(Tally::default());
    let found: Mutex<Option<Box<Finding>>> = Mutex::new(None);
    let work = || {
        while !stop.load(Ordering::Relaxed) && images.load(Ordering::Relaxed) < options.images {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= options.seeds {
                return;
            }
            match Lab::new(options.budget).seed(options.seed + number) {
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
        "ran {} images ({} crashes each), {} crash points, {} workloads from seed {}, {:.0} images a second",
        total.images,
        depths.join(", "),
        total.points,
        total.seeds,
        options.seed,
        total.images as f64 / seconds
    );
    match found.into_inner().unwrap_or_else(|e| e.into_inner()) {
        None => {
            println!("0 violations");
            ExitCode::SUCCESS
        }
        Some(finding) => {
            println!("seed {} after {} images: {finding}", finding.seed, finding.images);
            ExitCode::FAILURE
        }
    }
}
