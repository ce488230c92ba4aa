//! The store: joins log, queues, index, dispatcher and retention, and owns their threads.
//!
//! Children never know it. Everything public works from many threads; [`Store`] is a cheap handle on shared state.
//! Called by users of the crate and by the broker.

mod agreed;
mod background;
mod clean_stop;
mod get;
mod open;
mod put;
mod registry;
#[cfg(test)]
mod tests;
mod walk;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;

pub use background::Steps;
pub use get::{GetRequest, GetResult, Query};
pub use put::Appended;

use self::{background::Threads, put::PutState, registry::Registry};
use crate::{
    clock::Clock,
    commit_log::CommitLog,
    config::Config,
    consume_queue::{QueueKind, QueueTable},
    deleted::DeletedTopics,
    dispatch,
    error::{Error, Result},
    format::message::Limits,
    index::IndexSet,
    message::Queue,
    recovery::RecoveryReport,
    reput::{ArrivalListener, BitmapMaker, ReputShared, Turns},
    retention::{Retention, RetentionPlan},
    stats::{Stats, StatsSnapshot},
    types::{PhysicalOffset, QueueId, TopicName},
    vfs::{Lock, OsVfs, Vfs},
};

/// An open store. Clones share it.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let config = reput::Config::new(dir.path()).commit_log_file_size(1u64 << 20);
/// use reput::{FlushDiskType, Message, QueueOffset, Store};
///
/// let store = Store::open(config.flush_disk_type(FlushDiskType::Sync))?;
/// let orders = store.queue("orders", 0)?;
/// store.put(&Message::new(orders, b"paid").tags("eu").keys("o-1042"))?.wait()?;
///
/// store.wait_dispatched(std::time::Duration::from_secs(5))?;
/// for message in store.get(orders, QueueOffset::ZERO)?.take(32) {
///     assert_eq!(message.body(), b"paid");
/// }
/// assert_eq!(store.query("orders", "o-1042")?.len(), 1);
/// store.close()?;
/// # Ok::<(), reput::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: Arc<Config>,
    vfs: Arc<dyn Vfs>,
    clock: Arc<dyn Clock>,
    limits: Limits,
    store_host: SocketAddr,
    log: Arc<CommitLog>,
    table: Arc<QueueTable>,
    index: Arc<IndexSet>,
    deleted: Arc<DeletedTopics>,
    registry: Registry,
    put: Mutex<Option<PutState>>,
    reput: Arc<ReputShared>,
    turns: Arc<Turns>,
    retention: Arc<Retention>,
    stats: Arc<Stats>,
    report: RecoveryReport,
    closing: AtomicBool,
    threads: Mutex<Threads>,
    /// Dropped last: the directory is another's from then on.
    lock: Mutex<Option<Box<dyn Lock>>>,
}

/// How the store stands, all of one moment but for changes while it is read.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StoreStatus {
    /// The oldest byte of the log.
    pub min_offset: PhysicalOffset,
    /// The end of the log that readers see.
    pub max_offset: PhysicalOffset,
    /// The end of what is on the disk.
    pub durable_offset: PhysicalOffset,
    /// How far queues follow the log.
    pub dispatched_offset: PhysicalOffset,
    /// How far the index follows the log.
    pub indexed_offset: PhysicalOffset,
    /// Percent of the partition in use when retention last looked.
    pub disk_used_percent: u32,
    /// Whether puts are refused because the disk is full.
    pub disk_full: bool,
    /// Why the store takes no more writes, if so.
    pub poisoned: Option<String>,
    /// Why the index is behind, if it is.
    pub index_error: Option<String>,
    /// Counters since the store was opened.
    pub stats: StatsSnapshot,
}

impl Store {
    /// Opens the store in `config.root`, making it when it does not exist, and brings log, queues and index into
    /// agreement. Blocks until that is done: the log is read once, unless nobody has touched the store since it was
    /// closed.
    ///
    /// # Errors
    /// [`Error::Locked`] when another process has it open (nothing was read then), [`Error::FileSize`] when files
    /// have other sizes than configured, [`Error::MissingSegment`], [`Error::Io`]. After an error nothing was
    /// destroyed.
    pub fn open(config: Config) -> Result<Self> {
        Self::open_with(config, Arc::new(OsVfs), Arc::new(crate::SystemClock::new()))
    }

    /// The queue of a topic, made on first use: a name in memory until its first message.
    ///
    /// # Errors
    /// [`Error::InvalidTopic`]; [`Error::IllegalMessage`] for a negative number; [`Error::Io`].
    pub fn queue(&self, topic: &str, id: impl Into<QueueId>) -> Result<Queue> {
        self.inner.queue(topic, id.into(), QueueKind::Simple)
    }

    /// The queue of a topic whose messages are inner batches: RocketMQ's attribute `queue.type=BatchCQ`.
    ///
    /// # Errors
    /// As [`Store::queue`].
    pub fn batch_queue(&self, topic: &str, id: impl Into<QueueId>) -> Result<Queue> {
        self.inner.queue(topic, id.into(), QueueKind::Batch)
    }

    /// Topic and number of a queue.
    #[must_use]
    pub fn queue_name(&self, queue: Queue) -> Option<(TopicName, QueueId)> {
        self.inner.registry.get(queue).map(|entry| (entry.topic.clone(), entry.id))
    }

    /// Every queue that has or had messages.
    #[must_use]
    pub fn queues(&self) -> Vec<(TopicName, QueueId)> {
        self.inner.table.queues().iter().map(|queue| (queue.key().topic.clone(), queue.key().id)).collect()
    }

    /// Calls `listener` for every message that becomes readable from now on.
    pub fn on_arrival(&self, listener: ArrivalListener) {
        self.inner.reput.listen(listener);
    }

    /// Puts what `maker` gives into the ConsumeQueueExt unit of every message that is dispatched from now on
    /// (`enableConsumeQueueExt`). Messages that were dispatched before, by recovery too, have no bitmap; readers must
    /// take that as "may match".
    pub fn make_bitmaps(&self, maker: BitmapMaker) {
        self.inner.reput.make_bitmaps(maker);
    }

    /// Deletes a topic's queues. Its records stay in the log, unreachable by queue, until retention removes them;
    /// a topic of the same name starts anew at offset 0.
    ///
    /// # Errors
    /// [`Error::InvalidTopic`], [`Error::Io`].
    pub fn delete_topic(&self, topic: &str) -> Result<()> {
        let name = TopicName::new(topic)?;
        let guard = self.inner.put.lock();
        let below =
            guard.as_ref().map_or_else(|| self.inner.log.max_offset(), |state| state.appender.next_offset());
        self.inner.deleted.delete(name, below)?;
        self.inner.registry.forget(topic);
        self.inner.table.remove_topic(topic)
    }

    /// Blocks until everything put so far is on the disk, in either flush mode.
    ///
    /// # Errors
    /// [`Error::Poisoned`] when the sync fails.
    pub fn sync(&self) -> Result<()> {
        let upto = self.inner.put.lock().as_ref().map(|state| state.appender.next_offset());
        upto.map_or(Ok(()), |upto| self.inner.log.sync_to(upto))
    }

    /// Blocks until everything put before this call is in its queues and in the index, or until `timeout` has
    /// passed. Says whether it is.
    ///
    /// # Errors
    /// [`Error::Poisoned`] when the log cannot be synced, without which nothing is dispatched in synchronous mode.
    pub fn wait_dispatched(&self, timeout: std::time::Duration) -> Result<bool> {
        let inner = &self.inner;
        let upto =
            inner.put.lock().as_ref().map_or_else(|| inner.log.max_offset(), |s| s.appender.next_offset());
        let until = inner.clock.monotonic() + timeout;
        loop {
            if inner.reput.dispatched() >= upto
                && (inner.reput.indexed() >= upto || !inner.config.message_index)
            {
                return Ok(true);
            }
            if let Some(error) = inner.log.poisoned() {
                return Err(error);
            }
            if inner.clock.monotonic() >= until {
                return Ok(false);
            }
            std::thread::sleep(std::time::Duration::from_micros(200));
        }
    }

    /// What recovery found and did when the store was opened.
    #[must_use]
    pub fn recovery_report(&self) -> &RecoveryReport {
        &self.inner.report
    }

    /// Log, queues and index as they are, for the dump.
    pub(crate) fn parts(&self) -> (&CommitLog, &QueueTable, &IndexSet) {
        (&self.inner.log, &self.inner.table, &self.inner.index)
    }

    /// What a retention run would delete now. Changes nothing.
    ///
    /// # Errors
    /// [`Error::Io`] when the disk use or a file's age cannot be read.
    pub fn retention_plan(&self) -> Result<RetentionPlan> {
        self.inner.retention.plan()
    }

    /// Makes the next retention runs delete expired segments at any hour.
    pub fn delete_expired(&self) {
        self.inner.retention.ask();
    }

    /// Deletes by other rules from the next retention run on: `fileReservedTime`, `deleteWhen` and
    /// `diskMaxUsedSpaceRatio` as `rules` has them. Everything else stays as the store was opened.
    ///
    /// # Errors
    /// [`Error::Config`] when the rules cannot be used.
    pub fn set_retention(&self, rules: &Config) -> Result<()> {
        rules.validate()?;
        self.inner.retention.set_rules(rules);
        Ok(())
    }

    /// How the log's full segments are read from now on. Off, as they are opened: page by page, which is best for
    /// scattered reads. On: with the system's read-ahead, which is best for consumers far behind on a cold log.
    pub fn set_read_ahead(&self, on: bool) {
        self.inner.log.set_read_ahead(on);
    }

    /// The configuration that the store was opened with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    /// The clock that the store runs by.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.inner.clock
    }

    /// The file system that the store lives on; a broker keeps its own files through it too.
    #[must_use]
    pub fn vfs(&self) -> &Arc<dyn Vfs> {
        &self.inner.vfs
    }

    /// How the store stands.
    #[must_use]
    pub fn status(&self) -> StoreStatus {
        let inner = &self.inner;
        StoreStatus {
            min_offset: inner.log.min_offset(),
            max_offset: inner.log.max_offset(),
            durable_offset: inner.log.durable_offset(),
            dispatched_offset: inner.reput.dispatched(),
            indexed_offset: inner.reput.indexed(),
            disk_used_percent: inner.retention.disk.used_percent(),
            disk_full: inner.retention.disk.refused_at().is_some(),
            poisoned: inner.log.poisoned().map(|error| error.to_string()),
            index_error: inner.reput.index_error(),
            stats: inner.stats.snapshot(),
        }
    }

    /// Closes the store: no more puts, everything dispatched and synced, checkpoint written, `abort` removed. Other
    /// handles then get [`Error::Closed`]. Closing twice is no error.
    ///
    /// # Errors
    /// What kept a file from being synced; `abort` then stays, so that the next open looks closely.
    pub fn close(&self) -> Result<()> {
        self.inner.close(|| self.inner.threads.lock().stop(&self.inner.log))
    }
}

impl Inner {
    fn check_open_for_puts(&self) -> Result<()> {
        if self.closing.load(Ordering::Relaxed) {
            return Err(Error::Closed);
        }
        if let Some(used_percent) = self.retention.disk.refused_at() {
            self.stats.put_failed();
            return Err(Error::DiskFull { used_percent, limit_percent: self.config.disk_warning_percent });
        }
        Ok(())
    }

    fn queue(&self, topic: &str, id: QueueId, kind: QueueKind) -> Result<Queue> {
        if let Some(found) = self.registry.find(topic, id) {
            return Ok(found);
        }
        if id.0 < 0 {
            return Err(Error::IllegalMessage { why: format!("queue number {id} is negative") });
        }
        let topic = TopicName::new(topic)?;
        let queue = self.table.get_or_create(&topic, id, kind);
        self.registry.register(&topic, id, queue).ok_or(Error::TooManyQueues { limit: 1 << 28 })
    }

    /// A queue that INNER_MULTI_DISPATCH names: a light queue, or the queue of the same number in another topic.
    fn further_queue(&self, name: &str, id: QueueId) -> Result<Queue> {
        let light = self.config.lmq && name.starts_with(dispatch::LIGHT_QUEUE_PREFIX);
        let id = if light { QueueId(0) } else { id };
        if let Some(found) = self.registry.find(name, id) {
            return Ok(found);
        }
        let limit = self.config.max_lmq_queues;
        if light && self.table.get(name, id).is_none() && self.lmq_count() >= limit {
            return Err(Error::TooManyQueues { limit });
        }
        self.queue(name, id, QueueKind::Simple)
    }

    fn lmq_count(&self) -> usize {
        self.table.count(|topic| topic.starts_with(dispatch::LIGHT_QUEUE_PREFIX))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // A store that is dropped without `close` stops its threads and leaves `abort`, as a kill would.
        self.closing.store(true, Ordering::Release);
        self.threads.get_mut().stop(&self.log);
        self.turns.end();
    }
}
