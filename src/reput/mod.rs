//! The dispatcher: follows the log and builds from it the ConsumeQueues, the index and the word to listeners.
//!
//! Owned by the store's reput thread, which calls [`Reput::step`]; recovery does the same work for what was already
//! there. Order per record: queues first, index second, listeners last. The limit is the durable end in synchronous
//! mode, so that a reader never sees what a power cut can take back, and the published end otherwise. The index has
//! its own cursor: when it cannot be written, queues and listeners go on and it catches up later.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use parking_lot::{Mutex, RwLock};

use crate::{
    commit_log::CommitLog,
    consume_queue::{Appended, Dispatch, Queue, QueueKind, QueueTable},
    deleted::DeletedTopics,
    dispatch::Projection,
    error::{Error, Result},
    format::{
        message::{self, Header},
        properties::Properties,
    },
    index::{IndexSet, KeyPut},
    stats::Stats,
    types::{PhysicalOffset, QueueId, QueueOffset, StoreTimestamp, TagsCode, TopicName},
};

/// Bytes of log that one step takes at most, so that a long backlog does not keep listeners and flushes waiting.
const STEP_BYTES: usize = 1 << 20;

/// A message that just became readable.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    /// Its topic.
    pub topic: &'a str,
    /// Its queue.
    pub queue_id: QueueId,
    /// Its number in the queue; the queue now ends behind it.
    pub queue_offset: QueueOffset,
    /// What filters look at.
    pub tags_code: TagsCode,
    /// When it was stored.
    pub store_timestamp: StoreTimestamp,
    /// Its properties.
    pub properties: Properties<'a>,
}

/// Makes the filter bitmap of a message from its topic and properties; `None` for none. Called from the dispatcher's
/// thread before the message becomes readable: must be quick and must not block.
pub type BitmapMaker = Arc<dyn Fn(&str, Properties<'_>) -> Option<Vec<u8>> + Send + Sync>;

/// Told of every message that became readable, from the dispatcher's thread: must be quick and must not block.
pub type ArrivalListener = Arc<dyn Fn(&Arrival<'_>) + Send + Sync>;

/// What one step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// There is more to do at once.
    More,
    /// All that is readable is dispatched.
    CaughtUp,
}

/// Who is told, and how far the dispatcher is; shared with the rest of the store.
#[derive(Default)]
pub(crate) struct ReputShared {
    dispatched: AtomicI64,
    indexed: AtomicI64,
    last_timestamp: AtomicI64,
    /// Start of the last record dispatched: what `logicsPhysicalOffset` in the checkpoint means.
    last_record: AtomicI64,
    listeners: RwLock<Vec<ArrivalListener>>,
    bitmaps: RwLock<Option<BitmapMaker>>,
    index_error: Mutex<Option<String>>,
}

impl std::fmt::Debug for ReputShared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReputShared").field("dispatched", &self.dispatched()).finish_non_exhaustive()
    }
}

impl ReputShared {
    pub(crate) fn dispatched(&self) -> PhysicalOffset {
        PhysicalOffset(self.dispatched.load(Ordering::Acquire))
    }

    pub(crate) fn indexed(&self) -> PhysicalOffset {
        PhysicalOffset(self.indexed.load(Ordering::Acquire))
    }

    /// Start and store timestamp of the last record dispatched.
    pub(crate) fn last(&self) -> (PhysicalOffset, StoreTimestamp) {
        (
            PhysicalOffset(self.last_record.load(Ordering::Acquire)),
            StoreTimestamp(self.last_timestamp.load(Ordering::Acquire)),
        )
    }

    pub(crate) fn listen(&self, listener: ArrivalListener) {
        self.listeners.write().push(listener);
    }

    pub(crate) fn make_bitmaps(&self, maker: BitmapMaker) {
        *self.bitmaps.write() = Some(maker);
    }

    /// Lets go of all listeners, who may in turn hold the store.
    pub(crate) fn forget_listeners(&self) {
        self.listeners.write().clear();
        *self.bitmaps.write() = None;
    }

    /// Why the index is behind, when it is.
    pub(crate) fn index_error(&self) -> Option<String> {
        self.index_error.lock().clone()
    }
}

/// The dispatcher's own state.
#[derive(Debug)]
pub(crate) struct Reput {
    parts: Parts,
    at: PhysicalOffset,
    /// Queues found by topic and number; emptied when a topic is deleted.
    queues: HashMap<TopicName, HashMap<QueueId, Arc<Queue>>>,
    deletions_seen: u64,
    /// Keys of the records of this step.
    keys: Vec<KeyPut>,
    /// How far the index has taken them.
    index_at: PhysicalOffset,
}

/// What [`Reput::new`] joins.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) log: Arc<CommitLog>,
    pub(crate) table: Arc<QueueTable>,
    pub(crate) index: Arc<IndexSet>,
    pub(crate) projection: Projection,
    pub(crate) deleted: Arc<DeletedTopics>,
    pub(crate) shared: Arc<ReputShared>,
    pub(crate) stats: Arc<Stats>,
    /// Where recovery ended.
    pub(crate) from: PhysicalOffset,
    /// Start and store timestamp of the last record before that.
    pub(crate) last: (PhysicalOffset, StoreTimestamp),
}

impl Reput {
    pub(crate) fn new(parts: Parts) -> Self {
        let (from, last) = (parts.from, parts.last);
        let shared = &parts.shared;
        shared.dispatched.store(from.0, Ordering::Release);
        shared.indexed.store(from.0, Ordering::Release);
        shared.last_record.store(last.0.0, Ordering::Release);
        shared.last_timestamp.store(last.1.0, Ordering::Release);
        let deletions_seen = parts.deleted.changes();
        Self { parts, at: from, queues: HashMap::new(), deletions_seen, keys: Vec::new(), index_at: from }
    }

    /// Where the next step starts.
    pub(crate) const fn position(&self) -> PhysicalOffset {
        self.at
    }

    /// Sleeps until there is something to dispatch, the log is interrupted, or `timeout` has passed.
    pub(crate) fn wait(&self, timeout: Duration) {
        self.parts.log.wait_dispatchable(self.at, timeout);
    }

    /// Dispatches up to [`STEP_BYTES`] of what has become readable.
    ///
    /// # Errors
    /// What kept a queue from taking an entry: the step stops before that record and can be tried again. A failing
    /// index is no error here, see [`ReputShared::index_error`].
    pub(crate) fn step(&mut self) -> Result<Progress> {
        let limit = self.parts.log.dispatch_limit();
        let (from, log) = (self.at, Arc::clone(&self.parts.log));
        if self.index_at < from {
            self.catch_up_index(limit);
        }
        let (at, done) = walk(&log, from, limit, &mut |header, at| self.one_record(header, at));
        self.at = at;
        if self.index_at == from {
            self.give_keys(at);
        }
        self.keys.clear();
        self.parts.shared.dispatched.store(at.0, Ordering::Release);
        done?;
        if self.at < limit || (self.index_at < self.at && self.parts.shared.index_error.lock().is_none()) {
            Ok(Progress::More)
        } else {
            Ok(Progress::CaughtUp)
        }
    }

    fn one_record(&mut self, header: &Header<'_>, at: PhysicalOffset) -> Result<()> {
        if self.deletions_seen != self.parts.deleted.changes() {
            self.queues.clear();
            self.deletions_seen = self.parts.deleted.changes();
        }
        if !self.parts.deleted.covers(header.topic, at) {
            let made = self.parts.projection.of(header);
            let bitmap = self.bitmap(header);
            if made.is_queued() {
                let queue = self.queue(made.topic, made.queue_id, made.kind())?;
                if let Some(entry) = made.entry(queue.kind()) {
                    let entry = Dispatch { bitmap: bitmap.as_deref(), ..entry };
                    self.one_entry(&queue, &entry, header.properties)?;
                }
            }
            for (topic, id, entry) in made.further() {
                let queue = self.queue(topic, id, QueueKind::Simple)?;
                let entry = Dispatch { bitmap: bitmap.as_deref(), ..entry };
                self.one_entry(&queue, &entry, header.properties)?;
            }
            made.keys(&mut self.keys);
        }
        let shared = &self.parts.shared;
        shared.last_record.store(at.0, Ordering::Release);
        shared.last_timestamp.store(header.store_timestamp.0, Ordering::Release);
        self.parts.stats.dispatched(1);
        Ok(())
    }

    fn bitmap(&self, header: &Header<'_>) -> Option<Vec<u8>> {
        let maker = self.parts.shared.bitmaps.read();
        maker.as_ref().and_then(|maker| maker(header.topic, header.properties))
    }

    fn queue(&mut self, topic: &str, id: QueueId, kind: QueueKind) -> Result<Arc<Queue>> {
        if let Some(queue) = self.queues.get(topic).and_then(|ids| ids.get(&id)) {
            return Ok(Arc::clone(queue));
        }
        let topic = TopicName::new(topic)?;
        let queue = self.parts.table.get_or_create(&topic, id, kind);
        self.queues.entry(topic).or_default().insert(id, Arc::clone(&queue));
        Ok(queue)
    }

    fn one_entry(&self, queue: &Queue, entry: &Dispatch<'_>, properties: Properties<'_>) -> Result<()> {
        let key = queue.key();
        if let Appended::Gap { expected } = queue.append(entry)? {
            let why = format!("queue {} of {} needs offset {expected} first", key.id, key.topic);
            let source = std::io::Error::other(why);
            return Err(Error::Io { action: "dispatch into", path: "consumequeue".into(), source });
        }
        let arrival = Arrival {
            topic: &key.topic,
            queue_id: key.id,
            queue_offset: entry.queue_offset,
            tags_code: entry.tags_code,
            store_timestamp: entry.store_timestamp,
            properties,
        };
        for listener in self.parts.shared.listeners.read().iter() {
            listener(&arrival);
        }
        Ok(())
    }

    /// Indexes what an earlier failure left out, up to [`STEP_BYTES`] of log.
    fn catch_up_index(&mut self, limit: PhysicalOffset) {
        let (log, stop) = (Arc::clone(&self.parts.log), limit.min(self.at));
        let mut keys = std::mem::take(&mut self.keys);
        let parts = &self.parts;
        let (at, _) = walk(&log, self.index_at, stop, &mut |header, at| {
            if !parts.deleted.covers(header.topic, at) {
                parts.projection.of(header).keys(&mut keys);
            }
            Ok(())
        });
        self.keys = keys;
        self.give_keys(at);
        self.keys.clear();
    }

    fn give_keys(&mut self, upto: PhysicalOffset) {
        let given = self.parts.index.put(&self.keys);
        if given.is_ok() {
            self.index_at = upto;
            self.parts.shared.indexed.store(upto.0, Ordering::Release);
        }
        *self.parts.shared.index_error.lock() = given.err().map(|error| error.to_string());
    }
}

/// Calls `each` for the records from `from` on: those that lie wholly below `limit`, [`STEP_BYTES`] of them at most.
/// Returns where it ended: behind the last record that `each` took.
fn walk(
    log: &CommitLog,
    from: PhysicalOffset,
    limit: PhysicalOffset,
    each: &mut dyn FnMut(&Header<'_>, PhysicalOffset) -> Result<()>,
) -> (PhysicalOffset, Result<()>) {
    let (mut at, stop) = (from, limit.min(from.plus(STEP_BYTES)));
    while at < stop {
        let Some(lease) = log.lease_rest(at) else {
            let source = std::io::Error::other(format!("nothing is readable at {at}"));
            return (at, Err(Error::Io { action: "read the log in", path: "commitlog".into(), source }));
        };
        let start = at;
        let room = usize::try_from(limit.since(start)).unwrap_or(usize::MAX).min(lease.len());
        let mut read = 0;
        while read < room && at < stop {
            // What is published is whole: anything but a record ends the segment.
            match message::size_and_magic(&lease[read..room]) {
                Ok((_, magic)) if magic != message::MAGIC_BLANK => {
                    let header = match Header::peek(&lease[read..room]) {
                        Ok(header) => header,
                        Err(why) => {
                            return (
                                at,
                                Err(Error::corrupt("commitlog", at.since(PhysicalOffset::ZERO))(why)),
                            );
                        }
                    };
                    if let Err(error) = each(&header, at) {
                        return (at, Err(error));
                    }
                    read += header.total_size;
                }
                _ => read = room,
            }
            at = start.plus(read);
        }
    }
    (at, Ok(()))
}
