//! What opening a store directory comes to, without opening it: the recovered store as a list of lines.
//!
//! Runs the store's own open over [`OverlayVfs`], so the directory stays as it is and what is shown is what would be
//! served: log, queues and index after recovery, and answers to queries by key. The lines are those of the dumps
//! that the golden stores come with; `json` writes them, the command line shows them to people.

#[cfg(feature = "broker")]
mod json;

use std::{path::PathBuf, sync::Arc};

use crate::{
    clock::SystemClock,
    commit_log::CommitLog,
    config::Config,
    consume_queue::{CqUnit, QueueKind},
    error::{Corruption, Error, Result},
    format::{
        checkpoint::Checkpoint,
        message::{self, BLANK_LEN, Found, Record},
    },
    index::{IndexFileInfo, IndexHits},
    recovery::{DamagedRange, RecoveryReport},
    store::{Query, Store},
    types::{PhysicalOffset, QueueId, QueueOffset, TopicName},
    vfs::{OverlayVfs, Vfs},
};

/// Queue entries read at a time.
const PAGE: usize = 512;

/// One line of a dump, borrowed for the time of the call.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Line<'a> {
    /// The store can be opened; first line.
    Load {
        /// Whether the store was not closed.
        abort: bool,
    },
    /// What recovery found and did.
    Recovery(&'a RecoveryReport),
    /// The log's limits.
    Store {
        /// Its oldest byte, -1 without a file.
        min: PhysicalOffset,
        /// Its end.
        max: PhysicalOffset,
        /// How much of it is durable.
        durable: PhysicalOffset,
    },
    /// The checkpoint.
    Checkpoint(&'a Checkpoint),
    /// One queue.
    Queue(&'a QueueLine),
    /// One file of the index.
    Index {
        /// Its number, the oldest being 0.
        number: usize,
        /// Its header.
        file: &'a IndexFileInfo,
    },
    /// One record of the log.
    Record {
        /// Where it starts.
        at: PhysicalOffset,
        /// Its bytes.
        bytes: &'a [u8],
        /// Its fields.
        record: &'a Record<'a>,
        /// Whether it can be read by its offset.
        readable: bool,
    },
    /// The end of a segment.
    Blank {
        /// Where it stands.
        at: PhysicalOffset,
        /// Bytes that it says it takes.
        len: usize,
    },
    /// Bytes that hold no record.
    Damage(&'a DamagedRange),
    /// The end of the walk through the log.
    WalkEnd {
        /// Behind the last record.
        at: PhysicalOffset,
    },
    /// One queue entry.
    Cq {
        /// Its queue.
        queue: &'a QueueLine,
        /// What it says.
        unit: &'a CqUnit,
        /// The message it leads to.
        message: Option<&'a Record<'a>>,
    },
    /// What a query by key found.
    Query {
        /// The topic asked for.
        topic: &'a str,
        /// The key asked for.
        key: &'a str,
        /// How many messages were asked for.
        max: usize,
        /// What has the key's hash, oldest first.
        hits: &'a IndexHits,
    },
}

/// The limits of one queue.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueLine {
    /// Its topic.
    pub topic: TopicName,
    /// Its number.
    pub id: QueueId,
    /// Whether it counts inner batches.
    pub batch: bool,
    /// Its first message.
    pub min: QueueOffset,
    /// Behind its last message; what the next put gets.
    pub max: QueueOffset,
    /// RocketMQ's minLogicOffset, in bytes.
    pub min_logic: i64,
    /// Behind the last message's record.
    pub max_physical: PhysicalOffset,
}

/// Shows what opening the store in `config.root` would come to, line by line, and asks it `queries`: pairs of topic
/// and key. Not one byte of the directory changes.
///
/// ```
/// use reput::{Config, Message, Store, dump};
/// # let dir = tempfile::tempdir()?;
/// # let config = Config::new(dir.path()).commit_log_file_size(1_u64 << 20);
/// let store = Store::open(config.clone())?;
/// store.put(&Message::new(store.queue("orders", 0)?, b"paid"))?.wait()?;
/// store.close()?;
/// let mut records = 0;
/// dump::dump(config, &[], &mut |line| {
///     records += usize::from(matches!(line, dump::Line::Record { .. }));
///     Ok(())
/// })?;
/// assert_eq!(records, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// Those of [`Store::open`], and what `show` returns.
pub fn dump(
    config: Config,
    queries: &[(String, String)],
    show: &mut dyn FnMut(Line<'_>) -> Result<()>,
) -> Result<()> {
    dump_over(config, Arc::new(OverlayVfs::new()), queries, show)
}

/// [`dump`] of the store as `vfs` shows it, which sees to it that nothing is changed.
fn dump_over(
    config: Config,
    vfs: Arc<dyn Vfs>,
    queries: &[(String, String)],
    show: &mut dyn FnMut(Line<'_>) -> Result<()>,
) -> Result<()> {
    let root = config.root.clone();
    if !vfs.stat(&root).map_err(Error::io("look at", &root))?.is_some_and(|entry| entry.is_dir) {
        return Err(Error::ForeignFile { path: root, expected: "store directory" });
    }
    let (store, _steps) = Store::open_stepped(config, Arc::clone(&vfs), Arc::new(SystemClock::new()))?;
    let walk = Walk { store: &store, show };
    walk.all(&*vfs, root.join("checkpoint"), queries)
}

struct Walk<'s, 'f> {
    store: &'s Store,
    show: &'f mut dyn FnMut(Line<'_>) -> Result<()>,
}

impl Walk<'_, '_> {
    fn all(mut self, vfs: &dyn Vfs, checkpoint: PathBuf, queries: &[(String, String)]) -> Result<()> {
        let report = self.store.recovery_report();
        (self.show)(Line::Load { abort: report.aborted })?;
        (self.show)(Line::Recovery(report))?;
        let status = self.store.status();
        let (min, max, durable) = (status.min_offset, status.max_offset, status.durable_offset);
        (self.show)(Line::Store { min, max, durable })?;
        let bytes = vfs.read(&checkpoint, 1 << 20).map_err(Error::io("read", &checkpoint))?;
        (self.show)(Line::Checkpoint(&Checkpoint::decode(&bytes.unwrap_or_default())))?;
        let queues = self.queues();
        queues.iter().try_for_each(|queue| (self.show)(Line::Queue(queue)))?;
        for (number, file) in self.store.parts().2.files().iter().enumerate() {
            (self.show)(Line::Index { number, file })?;
        }
        self.log(min, max)?;
        queues.iter().try_for_each(|queue| self.entries(queue))?;
        queries.iter().try_for_each(|(topic, key)| self.query(topic, key))
    }

    fn queues(&self) -> Vec<QueueLine> {
        let line = |queue: &Arc<crate::consume_queue::Queue>| QueueLine {
            topic: queue.key().topic.clone(),
            id: queue.key().id,
            batch: queue.kind() == QueueKind::Batch,
            min: queue.min_offset(),
            max: queue.max_offset(),
            min_logic: queue.min_logic_offset(),
            max_physical: queue.max_physical(),
        };
        self.store.parts().1.queues().iter().map(line).collect()
    }

    fn log(&mut self, min: PhysicalOffset, max: PhysicalOffset) -> Result<()> {
        let log = self.store.parts().0;
        let damage = &self.store.recovery_report().damage;
        let mut at = min.max(PhysicalOffset::ZERO);
        while at < max {
            let known = damage.binary_search_by_key(&at, |range| range.from).ok().and_then(|i| damage.get(i));
            if let Some(range) = known {
                (self.show)(Line::Damage(range))?;
                at = range.to;
                continue;
            }
            at = self.one(log, at)?;
        }
        (self.show)(Line::WalkEnd { at })
    }

    /// Shows what stands at `at` and says where to go on.
    fn one(&mut self, log: &CommitLog, at: PhysicalOffset) -> Result<PhysicalOffset> {
        let next = log.next_segment(at).unwrap_or(PhysicalOffset(i64::MAX));
        let Some(rest) = log.lease_rest(at).filter(|rest| rest.len() >= BLANK_LEN) else { return Ok(next) };
        match message::read_at(&rest) {
            Ok(Found::Record(record)) => {
                let bytes = rest.get(..record.total_size).unwrap_or_default();
                let readable = self.store.message_at(at)?.is_some();
                (self.show)(Line::Record { at, bytes, record: &record, readable })?;
                Ok(at.plus(record.total_size))
            }
            Ok(Found::Blank { len }) => {
                (self.show)(Line::Blank { at, len })?;
                Ok(next)
            }
            Err(why) => {
                // Recovery has accepted every byte up to the end, or listed it as damaged.
                let path = self.store.config().commit_log_path();
                Err(Error::corrupt(path, at.since(PhysicalOffset::ZERO))(why))
            }
        }
    }

    fn entries(&mut self, queue: &QueueLine) -> Result<()> {
        let Some(entries) = self.store.parts().1.get(&queue.topic, queue.id) else { return Ok(()) };
        let mut units = Vec::new();
        let mut at = queue.min;
        while at < queue.max {
            units.clear();
            if entries.read(at, PAGE, &mut units)? == 0 {
                let why = Corruption::OutOfRange {
                    what: "queue offset of an entry",
                    value: at.0,
                    min: queue.min.0,
                    max: queue.max.0,
                };
                return Err(Error::corrupt(self.store.config().path("consumequeue"), 0)(why));
            }
            for unit in &units {
                let message = self.store.message_at(unit.offset)?;
                let record = message.as_ref().map(crate::StoredMessage::record);
                let leads = record
                    .as_ref()
                    .filter(|record| i64::try_from(record.total_size) == Ok(i64::from(unit.size)));
                (self.show)(Line::Cq { queue, unit, message: leads })?;
                at = unit.next();
            }
        }
        Ok(())
    }

    fn query(&mut self, topic: &str, key: &str) -> Result<()> {
        let query = Query::new(topic, key);
        let mut hits = self.store.query_raw(&query)?;
        let mut missing = Ok(());
        hits.offsets.retain(|at| match self.store.message_at(*at) {
            Ok(found) => found.is_some(),
            Err(error) => {
                missing = Err(error);
                false
            }
        });
        missing?;
        (self.show)(Line::Query { topic, key, max: query.max, hits: &hits })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]
mod tests {
    use super::*;
    use crate::{
        Message,
        vfs::faulty::{Call, FaultyVfs},
    };

    #[test]
    fn whatever_cannot_be_read_is_named_and_nothing_else_is_dumped() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config::new(dir.path()).commit_log_file_size(1_u64 << 20);
        let store = Store::open(config.clone()).unwrap();
        store
            .put(&Message::new(store.queue("orders", 0).unwrap(), b"paid").keys("k"))
            .unwrap()
            .wait()
            .unwrap();
        store.close().unwrap();
        let dumped = |vfs: &FaultyVfs| {
            let mut lines = 0;
            let outcome = dump_over(config.clone(), Arc::new(vfs.clone()), &[], &mut |_| {
                lines += 1;
                Ok(())
            });
            (lines, outcome)
        };
        let overlaid = || FaultyVfs::over(Arc::new(OverlayVfs::new()));
        let whole = overlaid();
        let (all, outcome) = dumped(&whole);
        outcome.unwrap();
        let checkpoint = config.path("checkpoint");
        let mut in_its_stead = 0;
        for call in [Call::Stat, Call::Read] {
            let made = whole.faults.made(call);
            for good in 0..made {
                let vfs = overlaid();
                vfs.faults.fail(call, good, 1, std::io::ErrorKind::PermissionDenied);
                let (lines, outcome) = dumped(&vfs);
                let Err(Error::Io { path, source, .. }) = outcome else {
                    // The log was read instead, and says the same.
                    assert_eq!((call, lines), (Call::Read, all), "{good}: {outcome:?}");
                    in_its_stead += 1;
                    continue;
                };
                assert_eq!(source.to_string(), "injected");
                assert!(lines < all && path.starts_with(dir.path()), "{call:?} {good}: {}", path.display());
                match (call, good) {
                    (Call::Stat, 0) => assert_eq!((lines, &*path), (0, dir.path())),
                    (Call::Read, _) if good + 1 == made => {
                        assert_eq!((lines > 0, &path), (true, &checkpoint))
                    }
                    _ => {}
                }
            }
        }
        assert_eq!(in_its_stead, 1, "cleanStop, which is no part of the store");
    }
}
