//! What recovery has to say.

use std::{fmt, path::PathBuf, time::Duration};

use crate::{error::Corruption, types::PhysicalOffset};

/// Bytes of the log that hold no record, with records behind them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DamagedRange {
    /// The first bad byte.
    pub from: PhysicalOffset,
    /// The next record.
    pub to: PhysicalOffset,
    /// What is wrong with the first bytes.
    pub why: Corruption,
}

impl DamagedRange {
    /// Whether the range is merely the end of a segment where no blank was written.
    #[must_use]
    pub const fn is_unwritten(&self) -> bool {
        matches!(self.why, Corruption::Magic { magic: 0 } | Corruption::Gap { unwritten: true })
    }

    /// Whether an earlier recovery has kept the bytes aside and closed the gap: nothing is left to be done.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        matches!(self.why, Corruption::Gap { .. })
    }
}

/// What recovery did to the queues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueRepairs {
    /// Entries that were missing.
    pub added: u64,
    /// Entries that said something else than the log.
    pub rewritten: u64,
    /// Entries of no record.
    pub dropped: u64,
    /// Entries that stand for records that are lost.
    pub filled: u64,
    /// Records whose topic, queue or number cannot be, which no queue has.
    pub unplaced: u64,
}

/// What recovery did to the index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct IndexRepairs {
    /// Files whose slots, chains or header were put right.
    pub repaired: u64,
    /// Entries that were put again, or for the first time.
    pub added: u64,
    /// Where the index differed from the log first.
    pub rebuilt_from: Option<PhysicalOffset>,
}

/// A file that was brought to its full length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRepair {
    /// The file.
    pub path: PathBuf,
    /// Its length before; `None` when it was missing. Zeros were put behind.
    pub len: Option<u64>,
}

/// What opening a store found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecoveryReport {
    /// The store was not closed the last time.
    pub aborted: bool,
    /// No file had changed since the store was closed: nothing was read, and there are no `records` to count.
    pub untouched: bool,
    /// Where the pass over the log began.
    pub start: PhysicalOffset,
    /// Where the log ends.
    pub end: PhysicalOffset,
    /// Why the log was cut there; `None` when nothing was written behind it.
    pub torn: Option<Corruption>,
    /// Records.
    pub records: u64,
    /// Damage with records behind it, in the order of the log.
    pub damage: Vec<DamagedRange>,
    /// What was done to the queues.
    pub queues: QueueRepairs,
    /// What was done to the index.
    pub index: IndexRepairs,
    /// Files of a wrong length or missing, and what was done.
    pub files: Vec<FileRepair>,
    /// Names that are none of the log's: left alone.
    pub strangers: Vec<PathBuf>,
    /// Files of queues and index that led into a log that is not there at all: moved into the quarantine.
    pub aside: Vec<PathBuf>,
    /// Up to where the log was durable by the checkpoint's word, where that is more than is left: a disk that lost what it
    /// said it had, or segments that were taken away.
    pub durable_before: Option<PhysicalOffset>,
    /// How long it took.
    pub elapsed: Duration,
}

/// The damaged range that holds `at`.
pub(super) fn damage_at(damage: &[DamagedRange], at: PhysicalOffset) -> Option<&DamagedRange> {
    let next = damage.partition_point(|range| range.from <= at);
    damage.get(next.checked_sub(1)?).filter(|range| at < range.to)
}

impl RecoveryReport {
    /// Whether the log is damaged at `at`: what a queue has there must not be served.
    #[must_use]
    pub fn is_damaged(&self, at: PhysicalOffset) -> bool {
        damage_at(&self.damage, at).is_some()
    }

    /// Whether the store was found as a store is that was closed.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.torn.is_none()
            && self.damage.iter().all(DamagedRange::is_closed)
            && self.files.is_empty()
            && self.aside.is_empty()
            && self.durable_before.is_none()
            && self.queues == QueueRepairs::default()
            && self.index == IndexRepairs::default()
    }
}

impl fmt::Display for RecoveryReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.untouched {
            return write!(f, "as it was closed, up to {}; not read", self.end);
        }
        write!(f, "{} records in {} to {}", self.records, self.start, self.end)?;
        if let Some(why) = self.torn {
            write!(f, "; cut there: {why}")?;
        }
        if let Some(durable) = self.durable_before {
            write!(
                f,
                "; it was on the disk up to {durable}: what is missing was lost there, or its files were taken away"
            )?;
        }
        if let (Some(first), count) = (self.aside.first(), self.aside.len()) {
            write!(
                f,
                "; there is no log: {count} files that led into one are in quarantine/, the first {}",
                first.display()
            )?;
        }
        for FileRepair { path, len } in &self.files {
            match len {
                Some(len) => write!(f, "; {} had {len} bytes, filled up with zeros", path.display())?,
                None => write!(f, "; {} was missing, an empty one stands in", path.display())?,
            }
        }
        for path in &self.strangers {
            write!(f, "; {} is not part of the log, left alone", path.display())?;
        }
        for range in &self.damage {
            let what = if range.is_unwritten() { "unwritten" } else { "damaged" };
            write!(f, "; {what} from {} to {}: {}", range.from, range.to, range.why)?;
        }
        let QueueRepairs { added, rewritten, dropped, filled, unplaced } = self.queues;
        if self.queues != QueueRepairs::default() {
            write!(
                f,
                "; queue entries: {added} added, {rewritten} rewritten, {dropped} dropped, {filled} for lost records"
            )?;
        }
        if unplaced > 0 {
            write!(f, "; {unplaced} records that no queue can have")?;
        }
        if self.index != IndexRepairs::default() {
            write!(f, "; index: {} entries added, {} files repaired", self.index.added, self.index.repaired)?;
        }
        Ok(())
    }
}
