//! What repair does, for people.

use std::fmt;

use super::{
    ClosedGap, FieldChange, IndexChange, Kept, Plan, QueueChange, Repair, Unreadable, orphans::Zeroed,
};
use crate::recovery::{FileRepair, IndexRepairs, QueueRepairs};

/// Lines of one sort that are shown; the rest is counted.
const SHOWN: usize = 100;

fn each<T>(
    f: &mut fmt::Formatter<'_>,
    all: &[T],
    line: impl Fn(&mut fmt::Formatter<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    for item in all.iter().take(SHOWN) {
        f.write_str("\n  ")?;
        line(f, item)?;
    }
    if all.len() > SHOWN {
        write!(f, "\n  and {} more like these, which --json lists", all.len() - SHOWN)?;
    }
    Ok(())
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "quarantine: {} bytes of the log at {} into {}", self.len, self.from, self.path.display())
    }
}

impl fmt::Display for ClosedGap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, from, to, records, blank } = self;
        let blank = if *blank { " and a blank" } else { "" };
        write!(f, "log: {records} gap records{blank} over bytes {from} to {to} of {}", path.display())
    }
}

impl fmt::Display for Zeroed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "zero: bytes {} to {} of {}", self.from, self.to, self.path.display())
    }
}

impl fmt::Display for FieldChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "checkpoint: {} from {} to {}", self.field, self.from, self.to)
    }
}

impl fmt::Display for QueueChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { dir, added, rewritten, dropped, files_made, files_removed } = self;
        let dir = dir.display();
        write!(f, "queue: {dir}: {added} entries added, {rewritten} rewritten, {dropped} dropped; ")?;
        write!(f, "{files_made} files made, {files_removed} removed")
    }
}

impl fmt::Display for IndexChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match (self.before, self.after) {
            (None, Some(after)) => write!(f, "index: {path} is made, {after} entries"),
            (Some(before), None) => write!(f, "index: {path} goes, {before} entries"),
            (before, after) => {
                let [before, after] = [before, after].map(Option::unwrap_or_default);
                write!(f, "index: {path}: {before} entries before, {after} then")
            }
        }
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unreadable: zeros over bytes {} to {} of {}", self.from, self.to, self.path.display())
    }
}

/// Everything that is done, a line each.
impl fmt::Display for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = &self.recovery;
        write!(f, "  log: {} records in {} to {}", report.records, report.start, report.end)?;
        if let Some(why) = report.torn {
            write!(f, "\n  log: ends at {}, what stands behind it goes: {why}", report.end)?;
        }
        each(f, &self.unreadable, |f, unreadable| write!(f, "{unreadable}"))?;
        each(f, &report.aside, |f, path| write!(f, "quarantine: {}, there is no log", path.display()))?;
        each(f, &report.files, |f, FileRepair { path, len }| match len {
            Some(len) => write!(f, "file: {} has {len} bytes, filled up with zeros", path.display()),
            None => write!(f, "file: {} is missing, an empty one stands in", path.display()),
        })?;
        each(f, &self.kept, |f, kept| write!(f, "{kept}"))?;
        each(f, &self.gaps, |f, gap| write!(f, "{gap}"))?;
        let QueueRepairs { added, rewritten, dropped, filled, unplaced } = report.queues;
        if report.queues != QueueRepairs::default() {
            write!(f, "\n  queues: {added} entries added, {rewritten} rewritten, {dropped} dropped, ")?;
            write!(f, "{filled} for lost records; {unplaced} records in no queue")?;
        }
        let IndexRepairs { repaired, added, rebuilt_from } = report.index;
        if report.index != IndexRepairs::default() {
            write!(f, "\n  index: {repaired} files put right, {added} keys put")?;
            if let Some(from) = rebuilt_from {
                write!(f, ", all of records from {from} on")?;
            }
        }
        each(f, &self.zeroed, |f, zeroed| write!(f, "{zeroed}"))?;
        each(f, &self.checkpoint, |f, change| write!(f, "{change}"))
    }
}

/// Everything that would be done, a line each.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.repair)?;
        each(f, &self.queues, |f, queue| write!(f, "{queue}"))?;
        each(f, &self.index, |f, file| write!(f, "{file}"))
    }
}
