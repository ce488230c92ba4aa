//! `reput store repair`: mends what verify finds.

use std::{
    io::{self, BufRead, IsTerminal, Write},
    sync::Arc,
};

use reput::{
    broker,
    verify::{self, strictly},
    vfs::{OsVfs, Vfs},
};
use serde_json::json;

use super::{
    Failure, Target, configure, must_be_closed,
    verify::{check, tell},
};

pub(super) const EXAMPLES: &str = "\
Examples:
  reput store repair store                              what is wrong, and all that would be done; asks on a terminal
  reput store repair --apply store                      do it
  reput store repair --config broker.conf --apply store with the file sizes that the store was written with

The log decides: queues and index are made what it says, and the checkpoint claims no more than it holds. Damaged records
and torn tails are first copied to quarantine/, with a line in its manifest.jsonl, and only then made into gaps that
every reader passes over, RocketMQ's too. Short files are filled up with zeros; nothing readable is removed. Config files
that cannot be read are set aside as NAME.damaged-N and their .bak takes their place. The plan is made by doing all of it
in memory: byte ranges that go to quarantine, gap records, entries of each queue, index files, fields of the checkpoint.

Exit codes: 0 whole now, 1 damaged (nothing applied, or something is left), 2 could not be done.";

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    target: Target,

    /// Mend the store. Without it nothing is changed.
    #[arg(long)]
    apply: bool,
}

/// Mends a store; whether it is whole now.
pub(super) fn run(args: &Args) -> Result<bool, Failure> {
    let Target { config, json, dir } = &args.target;
    must_be_closed(dir)?;
    // Whoever names a configuration knows the sizes; the defaults are only a guess.
    let certain = config.is_some();
    let config = configure(dir, config.as_deref())?.sizes_are_certain(certain);
    let summary = check(&config, *json)?;
    if summary.is_whole() {
        say(*json, &json!({"t": "repair", "applied": false, "whole": true}), "Nothing to repair.")?;
        return Ok(true);
    }
    let plan = verify::plan(config.clone())?;
    say(*json, &plan.to_json(), &format!("Repair would do this:\n{plan}"))?;
    for (path, why) in broker::unreadable_tables(&OsVfs, &config.path("config"))? {
        let what =
            format!("  set aside: {}, and what its .bak holds put in its place: {why}", path.display());
        say(*json, &json!({"t": "wouldSetAside", "path": path.display().to_string()}), &what)?;
    }
    if !args.apply && !asked(*json)? {
        say(
            *json,
            &json!({"t": "repair", "applied": false, "whole": false}),
            "Nothing was changed; --apply does it.",
        )?;
        return Ok(false);
    }
    let done = verify::repair(config.clone())?;
    let mut object = done.to_json();
    object["applied"] = true.into();
    say(*json, &object, &format!("Done:\n{done}"))?;
    let vfs: Arc<dyn Vfs> = Arc::new(OsVfs);
    for path in broker::mend_tables(&vfs, &config.path("config"))? {
        let what = format!("Set aside: {}", path.display());
        say(*json, &json!({"t": "setAside", "path": path.display().to_string()}), &what)?;
    }
    let now = check(&strictly(config).sizes_are_certain(false), *json)?;
    say(*json, &now.to_json(), &tell(&now))?;
    Ok(now.is_whole())
}

fn say(as_json: bool, json: &serde_json::Value, text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if as_json { writeln!(out, "{json}") } else { writeln!(out, "{text}") }
}

/// Asks on a terminal; elsewhere nobody is there to answer.
fn asked(json: bool) -> io::Result<bool> {
    if json || !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return Ok(false);
    }
    let mut out = io::stdout().lock();
    write!(out, "Do it now? [y/N] ")?;
    out.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
