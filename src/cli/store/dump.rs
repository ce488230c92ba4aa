//! `reput store dump`: what opening a store comes to.

use std::{
    io::{self, BufWriter, Write},
    path::PathBuf,
};

use reput::{
    Error,
    dump::{self, Line},
};

use super::{Failure, configure};

pub(super) const EXAMPLES: &str = "\
Examples:
  reput store dump store                              what is in it, for people
  reput store dump --config broker.conf --json store  one JSON object a line
  reput store dump --query orders:o-1042 store        and who has that key

The directory is not changed, nor locked: what a running broker writes meanwhile may show in part.";

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// RocketMQ's properties file; its file sizes and switches count, its paths do not.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// One JSON object a line.
    #[arg(long)]
    json: bool,

    /// Ask the index for a key; may be given several times.
    #[arg(long = "query", value_name = "TOPIC:KEY", value_parser = topic_and_key)]
    queries: Vec<(String, String)>,

    /// The store's directory.
    dir: PathBuf,
}

fn topic_and_key(text: &str) -> Result<(String, String), String> {
    let (topic, key) = text.split_once(':').ok_or("needed is TOPIC:KEY")?;
    Ok((topic.to_owned(), key.to_owned()))
}

/// Shows a store.
pub(super) fn run(args: Args) -> Result<(), Failure> {
    let config = configure(&args.dir, args.config.as_deref())?;
    let mut out = BufWriter::new(io::stdout().lock());
    let shown = dump::dump(config, &args.queries, &mut |line| {
        let written = if args.json { writeln!(out, "{}", line.to_json()) } else { tell(&mut out, &line) };
        written.map_err(|source| Error::Io { action: "write to", path: "stdout".into(), source })
    });
    let flushed = out.flush();
    match shown {
        // Whoever reads has seen enough.
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        shown => Ok(shown.and(flushed.map_err(|source| Error::Io {
            action: "write to",
            path: "stdout".into(),
            source,
        }))?),
    }
}

/// A line for people.
fn tell(out: &mut dyn Write, line: &Line<'_>) -> io::Result<()> {
    match line {
        Line::Load { abort } => {
            writeln!(out, "{}", if *abort { "The store was not closed." } else { "The store was closed." })
        }
        Line::Recovery(report) => writeln!(out, "Recovery: {report}."),
        Line::Store { min, max, .. } => writeln!(out, "Log: {min} to {max}"),
        Line::Checkpoint(now) => writeln!(
            out,
            "Checkpoint: log {}, queues {} (record at {}), index {}, last record at {}",
            now.physic_timestamp,
            now.logics_timestamp,
            now.logics_offset,
            now.index_timestamp,
            now.confirm_offset
        ),
        Line::Queue(queue) => {
            let kind = if queue.batch { ", of inner batches" } else { "" };
            writeln!(out, "Queue {}/{}: {} to {}{kind}", queue.topic, queue.id, queue.min, queue.max)
        }
        Line::Index { file, .. } => writeln!(
            out,
            "Index {}: {} entries, records {} to {}",
            file.name,
            file.index_count.saturating_sub(1),
            file.begin_offset,
            file.end_offset
        ),
        Line::Record { at, record, .. } => {
            let tags =
                record.properties.get("TAGS").map(|tags| format!(" tags {tags:?}")).unwrap_or_default();
            let keys =
                record.properties.get("KEYS").map(|keys| format!(" keys {keys:?}")).unwrap_or_default();
            writeln!(
                out,
                "{at:>14}  {}/{} @{}  {} bytes, body {}{tags}{keys}",
                record.topic,
                record.queue_id,
                record.queue_offset,
                record.total_size,
                record.body.len()
            )
        }
        Line::Blank { at, len } => writeln!(out, "{at:>14}  end of segment, {len} bytes"),
        Line::Damage(range) => {
            writeln!(out, "{:>14}  no record up to {}: {}", range.from, range.to, range.why)
        }
        Line::WalkEnd { at } => writeln!(out, "{at:>14}  end of the log"),
        Line::Cq { queue, unit, message } => {
            let found = if message.is_some() { "" } else { ", no such message" };
            let count =
                if unit.batch_num == 1 { String::new() } else { format!(" for {} messages", unit.batch_num) };
            writeln!(
                out,
                "{}/{} @{}{count}: {} bytes at {}, tags code {}{found}",
                queue.topic, queue.id, unit.queue_offset, unit.size, unit.offset, unit.tags_code
            )
        }
        Line::Query { topic, key, hits, .. } => {
            let places: Vec<String> = hits.offsets.iter().map(ToString::to_string).collect();
            writeln!(
                out,
                "Key {key:?} of {topic}: {}",
                if places.is_empty() { "none".into() } else { places.join(", ") }
            )
        }
        _ => Ok(()),
    }
}
