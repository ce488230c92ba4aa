//! Brings log, queues and index into agreement when a store is opened.
//!
//! The bytes of the log decide; whether the store was closed, what the checkpoint says and what queues and index
//! hold are only hints. One pass over the log finds its records, its damage and its end ([`scan`]); along the way
//! every queue entry and every index key is compared with what its record makes, and put right ([`queues`],
//! [`keys`]). Then the log is cut at its end, and everything is synced before it is served. Killed anywhere in
//! between, the next open comes to the same. FORMAT.md, "Recovery", has the rules and where they differ from
//! RocketMQ's.
//!
//! A store that nobody has touched since it was closed is only taken over ([`resume`]); that it was not is for the
//! caller to prove.
//!
//! Called by `Store::open`, and by `dump` over a file system that keeps no write.

mod hole;
mod keys;
mod placing;
mod queues;
mod report;
mod scan;
#[cfg(test)]
mod tests;
pub(crate) mod without_log;

use std::{path::PathBuf, sync::Arc};

pub use report::{DamagedRange, FileRepair, IndexRepairs, QueueRepairs, RecoveryReport};

use crate::{
    clock::Clock,
    commit_log::{Appender, CommitLog, Gap, Loaded},
    config::Config,
    consume_queue::{CqUnit, Queue, QueueTable},
    deleted::DeletedTopics,
    dispatch::Projection,
    error::{Corruption, Result},
    format::{checkpoint::Checkpoint, message::Header},
    index::IndexSet,
    types::{PhysicalOffset, StoreTimestamp},
    vfs::Advice,
};
use {
    hole::Holes,
    keys::IndexRepair,
    queues::QueueRepair,
    scan::{Checks, Scan, Step},
};

/// What lies in the store's directory; nothing of it is changed yet.
#[derive(Debug)]
pub(crate) struct Found {
    /// The log's files.
    pub log: Loaded,
    /// The queues.
    pub table: QueueTable,
    /// The index.
    pub index: IndexSet,
    /// The checkpoint; a hint.
    pub checkpoint: Checkpoint,
    /// Whether the store was not closed; a hint.
    pub aborted: bool,
    /// Where to begin instead of at the first record; that it may is for the caller to prove.
    pub start: Option<Start>,
    /// What was moved into the quarantine because there is no log: see [`without_log`].
    pub aside: Vec<PathBuf>,
}

/// Where a pass begins.
#[derive(Clone, Debug)]
pub(crate) struct Start {
    /// The start of a segment.
    pub from: PhysicalOffset,
    /// Whether there are records before, of which log, queues and index are on the disk and agree.
    pub is_late: bool,
    /// Then: name of the index file, and number of the entry in it, behind their keys. `None` when they have none.
    pub keys: Option<(String, u32)>,
}

impl Start {
    const fn at_first(from: PhysicalOffset) -> Self {
        Self { from, is_late: false, keys: None }
    }
}

/// How a log stood when its store was closed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Closed {
    /// Behind the last record.
    pub end: PhysicalOffset,
    /// Where the last record starts and when it was stored.
    pub last_record: (PhysicalOffset, StoreTimestamp),
}

/// A store whose parts agree.
#[derive(Debug)]
pub(crate) struct Recovered {
    /// The log.
    pub log: Arc<CommitLog>,
    /// Its writing end.
    pub appender: Appender,
    /// The queues.
    pub table: QueueTable,
    /// The index.
    pub index: IndexSet,
    /// Where the last record starts and when it was stored; zeros when there is none.
    pub last_record: (PhysicalOffset, StoreTimestamp),
    /// The end of the last full file of the index: what the checkpoint must say now.
    pub indexed: StoreTimestamp,
    /// What was found and done.
    pub report: RecoveryReport,
}

/// Recovers a store from the first byte of its log on, or from where it may begin.
///
/// # Errors
/// What the file system says. Nothing that the log holds is lost then; opening again starts over.
pub(crate) fn recover(
    config: &Config,
    clock: &Arc<dyn Clock>,
    deleted: &DeletedTopics,
    found: Found,
) -> Result<Recovered> {
    let started = clock.monotonic();
    let Found { mut log, table, index, checkpoint, aborted, start, aside } = found;
    let mut report = RecoveryReport { aborted, aside, ..RecoveryReport::default() };
    let (short, strangers) = log.oddities();
    let queues = table.recover()?.into_iter().map(|(path, len)| (path, Some(len)));
    let short = short.into_iter().chain(queues);
    (report.files, report.strangers) =
        (short.map(|(path, len)| FileRepair { path, len }).collect(), strangers);
    let mut last_record = (PhysicalOffset::ZERO, StoreTimestamp::ZERO);
    if let Some(first) = log.first_offset() {
        let indexed = aborted.then_some(checkpoint.index_timestamp);
        let durable = checkpoint.durable_end.filter(|_| aborted);
        let parts = Parts { config, deleted, log: &log, table: &table, index: &index, indexed, durable };
        last_record = parts.agree(first, start, &mut report)?;
    }
    report.durable_before = checkpoint.durable_end.filter(|durable| *durable > report.end);
    log.advise(Advice::Random);
    let doubts = aborted.then(|| Doubts::of(&checkpoint, &log));
    let end = report.end;
    let gap = |range: &DamagedRange| Gap {
        from: range.from,
        to: range.to,
        unwritten: range.is_unwritten(),
        stored: last_record.1,
    };
    let gaps = report.damage.iter().filter(|range| !range.is_closed()).map(gap).collect();
    if let Some(doubts) = &doubts {
        log = log.with_doubts(doubts.log);
    }
    let (log, appender) = log.with_gaps(gaps).recovered(end, Arc::clone(clock))?;
    for queue in table.queues() {
        queue.correct_min_offset(log.min_offset())?;
        if let Some(doubts) = &doubts {
            queue.rewrite_from(doubts.queues)?;
        }
    }
    if doubts.is_some() {
        index.rewrite_behind(checkpoint.index_timestamp, checkpoint.durable_end.is_some())?;
    }
    table.opened();
    table.flush_step(clock.monotonic(), true)?;
    let indexed = index.flush(true)?.unwrap_or_default();
    report.elapsed = clock.monotonic().saturating_sub(started);
    Ok(Recovered { log, appender, table, index, last_record, indexed, report })
}

/// Takes over a store that nobody has touched since it was closed: nothing is read.
///
/// # Errors
/// What the file system says.
pub(crate) fn resume(clock: &Arc<dyn Clock>, found: Found, closed: Closed) -> Result<Recovered> {
    let started = clock.monotonic();
    let Closed { end, last_record } = closed;
    let Found { log, table, index, aborted, .. } = found;
    let (log, appender) = log.resumed(end, Arc::clone(clock))?;
    table.opened();
    let indexed = index.flush(false)?.unwrap_or_default();
    let elapsed = clock.monotonic().saturating_sub(started);
    let report =
        RecoveryReport { aborted, untouched: true, start: end, end, elapsed, ..RecoveryReport::default() };
    Ok(Recovered { log, appender, table, index, last_record, indexed, report })
}

/// What a failed sync may have left in the page cache alone, where the system then calls it clean: it is written again
/// before anybody relies on it.
#[derive(Debug)]
struct Doubts {
    /// The log from here on.
    log: PhysicalOffset,
    /// Queue entries of records from here on.
    queues: PhysicalOffset,
}

impl Doubts {
    /// All that our own checkpoint does not say to be durable. One of RocketMQ's says what it tried to flush: then the
    /// last two segments, more than it leaves unflushed while its syncs succeed.
    fn of(checkpoint: &Checkpoint, log: &Loaded) -> Self {
        match checkpoint.durable_end {
            Some(durable) => Self { log: durable, queues: durable.min(checkpoint.logics_offset) },
            None => {
                let mut last_two = log.segments().skip(log.segments().len().saturating_sub(2));
                let from = last_two.next().map_or(PhysicalOffset::ZERO, |(base, _)| base);
                Self { log: from, queues: from }
            }
        }
    }
}

/// What the pass joins.
struct Parts<'a> {
    config: &'a Config,
    deleted: &'a DeletedTopics,
    log: &'a Loaded,
    table: &'a QueueTable,
    index: &'a IndexSet,
    /// How far the index was durable at the kill, as the checkpoint says.
    indexed: Option<StoreTimestamp>,
    /// The end of what was durable at the kill. `None` after a clean stop, when all was, and where the checkpoint does
    /// not say it, as RocketMQ's: then nothing is taken for a hole.
    durable: Option<PhysicalOffset>,
}

impl Parts<'_> {
    /// Walks the log and puts queues and index right. Says where the last record starts and when it was stored.
    fn agree(
        &self,
        first: PhysicalOffset,
        start: Option<Start>,
        report: &mut RecoveryReport,
    ) -> Result<(PhysicalOffset, StoreTimestamp)> {
        let (files, strangers) = (report.files.clone(), report.strangers.clone());
        let start = start.unwrap_or_else(|| Start::at_first(first));
        let (last, again) = self.pass(&start, first, self.indexed, report)?;
        // A start before the last record was promised: without one, or with damage, the promise is not worth much.
        if !again && !(start.is_late && (report.records == 0 || !report.damage.is_empty())) {
            return Ok(last);
        }
        let (aborted, aside) = (report.aborted, std::mem::take(&mut report.aside));
        *report = RecoveryReport { aborted, aside, files, strangers, ..RecoveryReport::default() };
        Ok(self.pass(&Start::at_first(first), first, None, report)?.0)
    }

    /// One walk. Says also whether another one is needed.
    fn pass(
        &self,
        start: &Start,
        first: PhysicalOffset,
        indexed: Option<StoreTimestamp>,
        report: &mut RecoveryReport,
    ) -> Result<((PhysicalOffset, StoreTimestamp), bool)> {
        let from = start.from;
        self.log.advise(Advice::Sequential);
        let readable = |number, range| self.log.check_readable(number, range);
        let segments = self.log.segments().collect();
        let mut scan = Scan::new(segments, self.log.data_ends(), &readable, self.checks(), from);
        let projection = Projection::new(self.config);
        let deletions = !self.deleted.is_empty();
        let mut queues = QueueRepair::new(self.table, first, from, self.log.segment_size());
        let mut index =
            self.config.message_index.then(|| IndexRepair::start(self.index, start, indexed)).transpose()?;
        let mut last = (PhysicalOffset::ZERO, StoreTimestamp::ZERO);
        let mut keys = Vec::new();
        let holes = self.durable.map(|end| Holes::new(self.log.segments().collect(), end));
        report.start = from;
        loop {
            match scan.step(&|header, follows| queues.stale(header, follows))? {
                Step::Record(header) => {
                    let at = header.physical_offset;
                    let dead = deletions && self.deleted.covers(header.topic, at);
                    let made = projection.of(&header);
                    if !dead && !queues.take(&made, &report.damage)? {
                        let (to, why) = (at.plus(header.total_size), Corruption::AnothersQueue { at });
                        let range = DamagedRange { from: at, to, why };
                        queues.lost(range);
                        report.damage.push(range);
                        continue;
                    }
                    queues.seen(&header);
                    if let Some(index) = &mut index {
                        keys.clear();
                        made.keys(|| queues.hashes(made.topic), &mut keys);
                        index.take(at, &keys, dead, &report.damage)?;
                    }
                    report.records += 1;
                    self.config.reached.set(at);
                    last = (at, header.store_timestamp);
                }
                Step::Damage(range) if holes.as_ref().is_some_and(|holes| holes.ends_log(&range)) => {
                    (report.end, report.torn) = (range.from, Some(range.why));
                    break;
                }
                Step::Damage(range) => {
                    queues.lost(range);
                    report.damage.push(range);
                }
                Step::End { at, torn } => {
                    (report.end, report.torn) = (at, torn);
                    break;
                }
            }
        }
        let end = report.end;
        let again;
        (report.queues, again) =
            queues.finish(&report.damage, &|queue, unit| self.leads(end, start.is_late, queue, unit))?;
        let again = again || index.as_ref().is_some_and(IndexRepair::has_lost);
        match index {
            Some(index) => report.index = index.finish(report.end, &report.damage)?,
            None => self.index.truncate_from(report.end)?,
        }
        Ok((last, again))
    }

    fn checks(&self) -> Checks {
        Checks::new(self.config, self.durable)
    }

    /// Whether an entry leads to a record below `end` that is not of a deleted topic. With `whole` its size is the
    /// record's, too: of an entry that a power cut tore the end is missing.
    fn leads(&self, end: PhysicalOffset, whole: bool, queue: &Queue, unit: &CqUnit) -> Result<bool> {
        let at = unit.offset;
        let header = self.log.record_at(at)?.and_then(|rest| Header::peek(rest).ok());
        let is_it = |header: Header<'_>| {
            header.physical_offset == at && (!whole || usize::try_from(unit.size) == Ok(header.total_size))
        };
        Ok(header.is_some_and(is_it) && unit.end() <= end && !self.deleted.covers(&queue.key().topic, at))
    }
}
