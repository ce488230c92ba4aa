//! `reput bench`: what this disk can do, and what the store does of it.
//!
//! Every part of the store is a file with its workloads; [`plan`] says which of them a command runs and adds the
//! limits that they are held against; [`rounds`] runs them in turn; [`table`], [`html`] and JSON show what came of it,
//! and [`compare`] tells runs apart. A run owns one directory ([`place`]) and leaves it as it was.

mod args;
mod backlog;
mod compare;
mod disk;
mod drive;
mod fixture;
mod html;
mod java;
mod lab;
mod lag;
mod memory;
mod place;
mod plan;
mod progress;
mod pull;
mod put;
mod query;
mod recover;
mod reput;
mod results;
mod retention;
mod rounds;
mod stages;
mod statistics;
mod stop;
mod table;
mod topics;
mod units;
mod wire;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use ::reput::vfs::process_cpu_time;

pub use args::Args;
use args::{How, What};
use lab::Lab;
use place::{Bound, Place};
use progress::Progress;
use results::{FORMAT, Machine, Run};
use stop::Stop;

use super::Failure;

/// What `reput bench` alone takes at the most, when nothing else is asked for: the answer is meant for people who wait.
const TWO_MINUTES: Duration = Duration::from_secs(115);

/// Measures what was asked for, or compares.
pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    match &args.what {
        Some(What::Compare(files)) => compare::run(files),
        what => measure(what.as_ref(), what.as_ref().and_then(What::how).unwrap_or(&args.how)),
    }
}

fn measure(what: Option<&What>, how: &How) -> Result<ExitCode, Failure> {
    for file in [&how.json, &how.html].into_iter().flatten().filter(|file| **file != Path::new("-")) {
        check_target(file)?;
    }
    let rounds = how
        .rounds
        .map_or(if how.quick || matches!(what, Some(What::Backlog(_))) { 1 } else { 5 }, usize::from);
    let ms = how.ms.unwrap_or(if how.quick { 20 } else { 250 });
    if how.against_java {
        java::check_tools()?;
    }
    let mut works = plan::of(what, how)?;
    let stop = Stop::listen()?;
    let place = Place::take(&how.dir, Bound { bytes: how.max_bytes, used_percent: how.max_used }, &stop)?;
    let (start, started, busy, cpu) =
        (Instant::now(), SystemTime::now(), lab::machine_busy(), process_cpu_time());
    let machine = lab::machine(place.dir());
    if machine.file_system.starts_with("tmpfs") {
        eprintln!(
            "warning: {} is memory, not a disk: name a directory on one with --dir",
            place.dir().display()
        );
    }
    let lab = Lab {
        room: place.room()?,
        place,
        stop,
        progress: Progress::start(works.len() * rounds),
        time: Duration::from_millis(ms.into()),
        warm: Duration::from_millis(how.warm.unwrap_or(ms / 5).into()),
        settings: how.set.clone(),
    };
    let limit = (what.is_none() && how.rounds.is_none()).then_some(TWO_MINUTES);
    let measured = rounds::run(&lab, &mut works, rounds, limit);
    lab.progress.end();
    let seconds = start.elapsed().as_secs_f64();
    // Stores that are still open go before their files do, and the JVM ends, which makes its processor time known.
    drop(works);
    let own = process_cpu_time().saturating_sub(cpu).as_secs_f64() + lab::children_busy();
    let run = Run {
        format: FORMAT.into(),
        label: label(how, started),
        version: env!("CARGO_PKG_VERSION").into(),
        arguments: std::env::args().skip(1).collect(),
        started_ms: started
            .duration_since(UNIX_EPOCH)
            .map_or(0, |at| u64::try_from(at.as_millis()).unwrap_or(0)),
        seconds,
        interrupted: lab.stop.asked(),
        machine: Machine { others_busy: ((lab::machine_busy() - busy - own) / seconds).max(0.0), ..machine },
        cells: measured?,
    };
    show(&run, how)?;
    let done = run.cells.iter().map(|cell| cell.rounds.len()).max().unwrap_or(0);
    if done < rounds && !run.interrupted {
        eprintln!(
            "{done} of {rounds} rounds fitted into two minutes here; --rounds {rounds} takes the time it takes"
        );
    }
    Ok(lab.stop.exit_code().map_or(ExitCode::SUCCESS, ExitCode::from))
}

/// Better now than after two minutes.
fn check_target(file: &Path) -> Result<(), Failure> {
    let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !dir.is_dir() || file.is_dir() {
        return Err(format!(
            "cannot write {}: {} is no directory to put a file into",
            file.display(),
            dir.display()
        )
        .into());
    }
    Ok(())
}

fn label(how: &How, started: SystemTime) -> String {
    let from_file = || {
        let file: &PathBuf = how.json.as_ref().filter(|file| **file != Path::new("-"))?;
        Some(file.file_stem()?.to_string_lossy().into_owned())
    };
    let seconds = || started.duration_since(UNIX_EPOCH).map_or(0, |at| at.as_secs());
    how.label.clone().or_else(from_file).unwrap_or_else(|| format!("run of {}", seconds()))
}

fn show(run: &Run, how: &How) -> Result<(), Failure> {
    let to_stdout = how.json.as_deref() == Some(Path::new("-"));
    if to_stdout {
        eprint!("{}", table::table(run));
        println!("{}", serde_json::to_string(run)?);
    } else {
        print!("{}", table::table(run));
    }
    if let Some(file) = how.json.as_ref().filter(|_| !to_stdout) {
        write(file, &(serde_json::to_string_pretty(run)? + "\n"))?;
        println!("results: {}", file.display());
    }
    if let Some(file) = &how.html {
        write(file, &html::page(std::slice::from_ref(run)))?;
        if !to_stdout {
            println!("page: {}", file.display());
        }
    }
    Ok(())
}

/// Writes a file of results.
fn write(file: &Path, text: &str) -> Result<(), Failure> {
    Ok(std::fs::write(file, text).map_err(|e| format!("cannot write {}: {e}", file.display()))?)
}
