//! The dispatcher: follows the log and builds from it the ConsumeQueues, the index and the word to listeners.
//!
//! Its steps are taken in [`Turns`], by the store's reput thread or by a put; recovery does the same work for what was
//! already there. Order per record: queues first, index second, listeners last. The limit is the durable end in synchronous
//! mode, so that a reader never sees what a power cut can take back, and the published end otherwise. The index has
//! its own cursor: when it cannot be written, queues and listeners go on and it catches up later.

mod known;
mod sync;
mod turns;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
};

use parking_lot::{Mutex, RwLock};

use crate::{
    commit_log::CommitLog,
    consume_queue::{Appended, Dispatch, Queue, QueueKind, QueueTable},
    deleted::DeletedTopics,
    dispatch::{GROUP, Projected, Projection},
    error::{Corruption, Error, Result},
    format::{
        hash::IndexKeys,
        message::{self, Header},
        properties::Properties,
    },
    index::{IndexSet, KeyPut},
    segment::Lease,
    stats::Stats,
    types::{PhysicalOffset, QueueId, QueueOffset, StoreTimestamp, TagsCode},
};
use known::KnownQueues;
pub(crate) use turns::Turns;

/// Bytes of log that one step takes at most: little enough that its entries stay in the processor's cache, and that a
/// long backlog does not keep listeners and flushes waiting.
const STEP_BYTES: usize = 256 << 10;

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

/// Makes the filter bitmap of a message from its topic and properties; `None` for none. Called before the message
/// becomes readable, from the threads that [`ArrivalListener`] names: must be quick and must not block. One that panics
/// has made none.
pub type BitmapMaker = Arc<dyn Fn(&str, Properties<'_>) -> Option<Vec<u8>> + Send + Sync>;

/// Told of every message that became readable, from the dispatcher's thread or from one that puts, within the put: must
/// be quick, must not block, and must not want a lock that is held while something is put. One that panics has missed
/// that message; all others are told.
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
    /// Counts changes of `listeners` and `bitmaps`, so that the dispatcher need not look each time.
    listeners_changed: AtomicU64,
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
        self.listeners_changed.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn make_bitmaps(&self, maker: BitmapMaker) {
        *self.bitmaps.write() = Some(maker);
        self.listeners_changed.fetch_add(1, Ordering::AcqRel);
    }

    /// Lets go of all listeners, who may in turn hold the store.
    pub(crate) fn forget_listeners(&self) {
        self.listeners.write().clear();
        *self.bitmaps.write() = None;
        self.listeners_changed.fetch_add(1, Ordering::AcqRel);
    }

    /// Why the index is behind, when it is.
    pub(crate) fn index_error(&self) -> Option<String> {
        self.index_error.lock().clone()
    }
}

/// The dispatcher's own state.
pub(crate) struct Reput {
    parts: Parts,
    at: PhysicalOffset,
    queues: KnownQueues,
    deletions_seen: u64,
    /// Whether records of deleted topics may still be in the log.
    deletions: bool,
    listeners: Vec<ArrivalListener>,
    bitmaps: Option<BitmapMaker>,
    listeners_seen: u64,
    /// Keys of the records of this step.
    keys: Vec<KeyPut>,
    /// How far the index has taken them.
    index_at: PhysicalOffset,
}

impl std::fmt::Debug for Reput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reput")
            .field("at", &self.at)
            .field("index_at", &self.index_at)
            .finish_non_exhaustive()
    }
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
        Self {
            deletions: !parts.deleted.is_empty(),
            parts,
            at: from,
            queues: KnownQueues::default(),
            deletions_seen,
            listeners: Vec::new(),
            bitmaps: None,
            listeners_seen: 0,
            keys: Vec::new(),
            index_at: from,
        }
    }

    /// Where the next step starts.
    pub(crate) const fn position(&self) -> PhysicalOffset {
        self.at
    }

    /// Whether the index takes `keys` more without making a file or claiming space for it.
    fn has_room(&self, keys: usize) -> bool {
        !self.parts.projection.indexes() || self.parts.index.room() >= keys
    }

    /// Dispatches up to [`STEP_BYTES`] of what has become readable.
    ///
    /// # Errors
    /// What kept a queue from taking an entry: the step stops before that record and can be tried again. A failing
    /// index is no error here, see [`ReputShared::index_error`].
    pub(crate) fn step(&mut self) -> Result<Progress> {
        // Before the looks at deletions: a record below this limit that follows one is then known to.
        let limit = self.parts.log.dispatch_limit();
        let (from, log) = (self.at, Arc::clone(&self.parts.log));
        self.notice_deletions();
        self.notice_listeners();
        if self.index_at < from {
            self.catch_up_index(limit);
        }
        let mut last = None;
        let mut records: usize = 0;
        let (at, read) = walk(&log, from, limit, &mut |group| {
            self.queues.expect(group.iter().map(|(header, _)| header.topic));
            for (taken, (header, at)) in group.iter().enumerate() {
                if self.deletions_seen != self.parts.deleted.changes() {
                    return (taken, Ok(()));
                }
                if let Err(error) = self.one_record(header, *at) {
                    return (taken, Err(error));
                }
                last = Some((*at, header.store_timestamp));
                records += 1;
            }
            (group.len(), Ok(()))
        });
        let (at, done) = match self.hand_over() {
            None => (at, read),
            Some((at, why)) => {
                self.keys.truncate(self.keys.partition_point(|key| key.offset < at));
                (last, records) = (None, 0);
                let _ = walk(&log, from, at, &mut |group| {
                    last = group.last().map(|(header, at)| (*at, header.store_timestamp)).or(last);
                    records += group.len();
                    (group.len(), Ok(()))
                });
                (at, Err(why))
            }
        };
        self.at = at;
        if self.index_at == from {
            self.give_keys(at);
        }
        self.keys.clear();
        let shared = &self.parts.shared;
        if let Some((at, timestamp)) = last {
            shared.last_record.store(at.0, Ordering::Release);
            shared.last_timestamp.store(timestamp.0, Ordering::Release);
        }
        self.parts.stats.dispatched(records as u64);
        shared.dispatched.store(at.0, Ordering::Release);
        done?;
        if self.at < limit || (self.index_at < self.at && self.parts.shared.index_error.lock().is_none()) {
            Ok(Progress::More)
        } else {
            Ok(Progress::CaughtUp)
        }
    }

    fn notice_deletions(&mut self) {
        let changes = self.parts.deleted.changes();
        if self.deletions_seen != changes {
            self.queues.clear();
            self.deletions_seen = changes;
            self.deletions = !self.parts.deleted.is_empty();
        }
    }

    fn notice_listeners(&mut self) {
        let changes = self.parts.shared.listeners_changed.load(Ordering::Acquire);
        if self.listeners_seen != changes {
            self.listeners_seen = changes;
            self.listeners.clone_from(&self.parts.shared.listeners.read());
            self.bitmaps.clone_from(&self.parts.shared.bitmaps.read());
        }
    }

    fn one_record(&mut self, header: &Header<'_>, at: PhysicalOffset) -> Result<()> {
        if self.deletions && self.parts.deleted.covers(header.topic, at) {
            return Ok(());
        }
        let table = &self.parts.table;
        let made = self.parts.projection.of(header);
        let topic = self.queues.topic(made.topic)?;
        let bitmap =
            self.bitmaps.as_ref().and_then(|make| unharmed(|| make(header.topic, header.properties))?);
        let further = made.spreads().then(|| bitmap.clone());
        if made.is_queued() {
            let queue = self.queues.queue(table, topic, made.queue_id, made.kind());
            if let Some(entry) = made.entry(self.queues.kind(queue)) {
                self.queues.push(queue, entry, bitmap);
            }
        }
        made.keys(|| self.queues.hashes(topic), &mut self.keys);
        further.map_or(Ok(()), |bitmap| self.further(&made, bitmap.as_ref()))
    }

    #[cold]
    fn further(&mut self, made: &Projected<'_>, bitmap: Option<&Vec<u8>>) -> Result<()> {
        for (topic, id, entry) in made.further() {
            let topic = self.queues.topic(topic)?;
            let queue = self.queues.queue(&self.parts.table, topic, id, QueueKind::Simple);
            self.queues.push(queue, entry, bitmap.cloned());
        }
        Ok(())
    }

    /// Gives each queue what waits for it, then tells the listeners in the order of the log. A queue that refuses does
    /// not hold up the others: they know what they have when it is given again, and listeners are told then. Says the
    /// first record that was refused, and why.
    fn hand_over(&mut self) -> Option<(PhysicalOffset, Error)> {
        let mut refused: Option<(PhysicalOffset, Error)> = None;
        self.queues.hand_over(|queue, entries| {
            let (taken, outcome) = queue.append_all(entries.clone());
            let why = match outcome {
                Ok(Appended::Gap { expected }) => gap(queue, expected),
                Ok(_) => return,
                Err(error) => error,
            };
            let at = entries.clone().nth(taken).map(|entry| entry.offset);
            if let Some(at) = at.filter(|at| refused.as_ref().is_none_or(|(first, _)| at < first)) {
                refused = Some((at, why));
            }
        });
        if self.listeners.is_empty() {
            self.queues.forget();
            return refused;
        }
        let (listeners, log) = (&self.listeners, &self.parts.log);
        let end = refused.as_ref().map_or(PhysicalOffset(i64::MAX), |(at, _)| *at);
        let mut near = None;
        self.queues.drain(|queue, entry| {
            if entry.offset < end {
                tell(listeners, queue, &entry, properties_at(log, &mut near, entry.offset));
            }
        });
        refused
    }

    /// Indexes what an earlier failure left out, up to [`STEP_BYTES`] of log.
    fn catch_up_index(&mut self, limit: PhysicalOffset) {
        let (log, stop) = (Arc::clone(&self.parts.log), limit.min(self.at));
        let mut keys = std::mem::take(&mut self.keys);
        let parts = &self.parts;
        let (at, _) = walk(&log, self.index_at, stop, &mut |group| {
            for (header, at) in group {
                if !parts.deleted.covers(header.topic, *at) {
                    parts.projection.of(header).keys(|| IndexKeys::of(header.topic), &mut keys);
                }
            }
            (group.len(), Ok(()))
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

/// The properties of the record at `at`. `near` keeps the rest of a segment, in which the next one most likely is.
fn properties_at<'l>(
    log: &CommitLog,
    near: &'l mut Option<(PhysicalOffset, Lease)>,
    at: PhysicalOffset,
) -> Properties<'l> {
    let within =
        |(start, lease): &(PhysicalOffset, Lease)| *start <= at && at.since(*start) < lease.len() as u64;
    if !near.as_ref().is_some_and(within) {
        *near = log.lease_rest(at).map(|lease| (at, lease));
    }
    let place = near.as_ref().and_then(|(start, lease)| lease.get(usize::try_from(at.since(*start)).ok()?..));
    place.and_then(|record| Header::peek(record).ok()).map(|header| header.properties).unwrap_or_default()
}

/// What `call` gives, or nothing when it panics: the panic's hook has told of that, and dispatching goes on.
fn unharmed<T>(call: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(call)).ok()
}

fn tell(listeners: &[ArrivalListener], queue: &Queue, entry: &Dispatch<'_>, properties: Properties<'_>) {
    let key = queue.key();
    let arrival = Arrival {
        topic: &key.topic,
        queue_id: key.id,
        queue_offset: entry.queue_offset,
        tags_code: entry.tags_code,
        store_timestamp: entry.store_timestamp,
        properties,
    };
    for listener in listeners {
        unharmed(|| listener(&arrival));
    }
}

#[cold]
fn gap(queue: &Queue, expected: QueueOffset) -> Error {
    let key = queue.key();
    let why = format!("queue {} of {} needs offset {expected} first", key.id, key.topic);
    let source = std::io::Error::other(why);
    Error::Io { action: "dispatch into", path: "consumequeue".into(), source }
}

/// What is to be done with the next records and their places; says how many were taken, and what kept it from the others.
type Each<'e> = dyn FnMut(&[(Header<'_>, PhysicalOffset)]) -> (usize, Result<()>) + 'e;

/// Calls `each` for the records from `from` on, [`GROUP`] at a time: those that lie wholly below `limit`,
/// [`STEP_BYTES`] of them at most. Returns where it ended: behind the last record that `each` took.
fn walk(
    log: &CommitLog,
    from: PhysicalOffset,
    limit: PhysicalOffset,
    each: &mut Each<'_>,
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
        let mut group = Vec::with_capacity(GROUP);
        while read < room && at < stop {
            group.clear();
            let end = gather(&lease, (start, room, stop), &mut read, &mut group);
            let (taken, outcome) = each(&group);
            if outcome.is_err() || taken < group.len() {
                return (group.get(taken).map_or(at, |(_, place)| *place), outcome);
            }
            at = start.plus(read);
            if let Some(why) = end {
                // What is published is whole: anything but a record ends the segment.
                let magic = message::size_and_magic(&lease[read..room]).map(|(_, magic)| magic);
                if magic.is_ok_and(|magic| magic != message::MAGIC_BLANK) {
                    let place = at.since(PhysicalOffset::ZERO);
                    return (at, Err(Error::corrupt("commitlog", place)(why)));
                }
                read = room;
                at = start.plus(room);
            }
        }
    }
    (at, Ok(()))
}

/// Adds the records of a lease from `read` on to `group`, which it fills: of a lease that begins at `start`, those that
/// begin below `stop` and end in its first `room` bytes. Says what stands there instead of a record, if it met that.
fn gather<'l>(
    lease: &'l Lease,
    (start, room, stop): (PhysicalOffset, usize, PhysicalOffset),
    read: &mut usize,
    group: &mut Vec<(Header<'l>, PhysicalOffset)>,
) -> Option<Corruption> {
    while group.len() < GROUP && *read < room {
        let at = start.plus(*read);
        if at >= stop {
            break;
        }
        match Header::peek(&lease[*read..room]) {
            Ok(header) => {
                *read += header.total_size;
                // Records are often of one size; topic and properties stand at the end of each.
                lease.prefetch(*read + 4 * header.total_size);
                group.push((header, at));
            }
            Err(why) => return Some(why),
        }
    }
    None
}
