//! `reput store verify`: whether a directory is whole.

use std::{
    io::{self, BufWriter, Write},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use reput::{
    Config, broker,
    verify::{self, Finding, Level, Part, Summary},
    vfs::OsVfs,
};

use super::{Failure, Target, configure, must_be_closed};

pub(super) const EXAMPLES: &str = "\
Examples:
  reput store verify store                              findings for people
  reput store verify --config broker.conf --json store  one JSON object a line, a summary last

Not one byte is written. Works on directories of RocketMQ's as well; the broker.conf must be the one they were written
with where it sets file sizes. Java's stores name the last record twice in the index after a kill: that is no damage.

Exit codes: 0 whole, 1 damaged, 2 could not be checked (open in another process, other file sizes, unreadable).";

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    target: Target,
}

/// Checks a store; whether it is whole.
pub(super) fn run(args: &Args) -> Result<bool, Failure> {
    let Target { config, json, dir } = &args.target;
    must_be_closed(dir)?;
    let summary = check(&configure(dir, config.as_deref())?, *json)?;
    let mut out = io::stdout().lock();
    if *json {
        writeln!(out, "{}", summary.to_json())?;
    } else {
        writeln!(out, "{}", tell(&summary))?;
        if !summary.is_whole() {
            writeln!(out, "`reput store repair` says what it would do about it.")?;
        }
    }
    Ok(summary.is_whole())
}

/// Checks a store and its config files and prints what is found.
pub(super) fn check(config: &Config, json: bool) -> Result<Summary, Failure> {
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{spinner} {bar:40} {bytes}/{total_bytes} {eta}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    let mut out = BufWriter::new(io::stdout().lock());
    let mut failed = Ok(());
    let mut print = |finding: &Finding| {
        let line = if json { finding.to_json().to_string() } else { finding.to_string() };
        if failed.is_ok() {
            failed = bar.suspend(|| writeln!(out, "{line}"));
        }
    };
    let checked = verify::verify(config.clone(), &mut print, &mut |now| {
        bar.set_length(now.total);
        bar.set_position(now.done);
    });
    bar.finish_and_clear();
    let mut summary = checked?;
    for (path, why) in broker::unreadable_tables(&OsVfs, &config.path("config"))? {
        let finding = Finding::new(Level::Damage, Part::Config, path, None, why);
        summary.count(finding.level);
        print(&finding);
    }
    out.flush()?;
    match failed {
        // Whoever reads has seen enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(summary),
    }
}

/// A summary for people.
pub(super) fn tell(summary: &Summary) -> String {
    let Summary { records, log_end, queues, entries, index_files, index_entries, damage, notes, .. } =
        summary;
    let verdict = if summary.is_whole() { "Whole".into() } else { format!("DAMAGED, {damage} findings") };
    format!(
        "{verdict}: {records} records up to {log_end}, {queues} queues with {entries} entries, {index_files} index \
         files with {index_entries} entries; {notes} notes."
    )
}
