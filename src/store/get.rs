//! The way of a get: a queue offset leads to queue entries, those through a filter to leases of the log.

use super::{Inner, Store, registry::Registered};
use crate::{
    consume_queue::{Boundary, CqUnit},
    error::Result,
    filter::Filter,
    format::{consume_queue::ENTRY, message::Record, properties},
    index::IndexHits,
    message::{GetStatus, Queue, RawMessage, StoredMessage},
    segment::Lease,
    types::{PhysicalOffset, QueueId, QueueOffset, StoreTimestamp},
};

/// Queue entries that are taken out of a queue at a time.
const CHUNK: usize = 128;
/// With a filter at least this many, since few of them may pass.
const FILTERED_CHUNK: usize = 64;

/// What to read from a queue.
#[derive(Clone)]
pub struct GetRequest<'a> {
    /// The queue.
    pub queue: Queue,
    /// The first message to look at.
    pub offset: QueueOffset,
    /// Messages to return at most.
    pub max_messages: usize,
    /// Bytes of records to return at most; the first one comes whatever its size.
    pub max_bytes: usize,
    /// Queue entries to look at at most, so that a filter that matches little returns in time. 0 takes RocketMQ's
    /// rule: 800, or `max_messages` if that is more.
    pub max_scan: usize,
    /// What passes; everything when `None`.
    pub filter: Option<&'a dyn Filter>,
}

impl<'a> GetRequest<'a> {
    /// 32 messages and 256 KiB at most from `offset` on: RocketMQ's limits for a pull from memory.
    #[must_use]
    pub const fn new(queue: Queue, offset: QueueOffset) -> Self {
        Self { queue, offset, max_messages: 32, max_bytes: 262_144, max_scan: 0, filter: None }
    }

    /// Reads with a filter.
    #[must_use]
    pub const fn filter(mut self, filter: &'a dyn Filter) -> Self {
        self.filter = Some(filter);
        self
    }
}

impl std::fmt::Debug for GetRequest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GetRequest")
            .field("queue", &self.queue)
            .field("offset", &self.offset)
            .field("max_messages", &self.max_messages)
            .field("max_bytes", &self.max_bytes)
            .field("filtered", &self.filter.is_some())
            .finish_non_exhaustive()
    }
}

/// What a read came to. Iterating gives the messages.
#[derive(Debug)]
pub struct GetResult<M = StoredMessage> {
    /// RocketMQ's status.
    pub status: GetStatus,
    /// Where to read on.
    pub next_offset: QueueOffset,
    /// The queue's first message.
    pub min_offset: QueueOffset,
    /// The queue's end: the offset that the next message will have.
    pub max_offset: QueueOffset,
    /// The messages, in order; each keeps its part of the log mapped.
    pub messages: Vec<M>,
    bytes: usize,
}

impl<M> IntoIterator for GetResult<M> {
    type Item = M;
    type IntoIter = std::vec::IntoIter<M>;

    fn into_iter(self) -> Self::IntoIter {
        self.messages.into_iter()
    }
}

impl<M> GetResult<M> {
    /// The first `count` messages.
    pub fn take(self, count: usize) -> impl Iterator<Item = M> {
        self.into_iter().take(count)
    }

    /// Bytes of all records.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }
}

/// What a query by key asks for, in RocketMQ's terms.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The key, the unique key or the tag.
    pub key: &'a str,
    /// `Some("T")` for a query by tag.
    pub index_type: Option<&'a str>,
    /// Messages at most; `maxMsgsNumBatch` bounds it too.
    pub max: usize,
    /// The earliest store time.
    pub begin: StoreTimestamp,
    /// The latest store time.
    pub end: StoreTimestamp,
}

impl<'a> Query<'a> {
    /// 32 messages at most, of any time.
    #[must_use]
    pub const fn new(topic: &'a str, key: &'a str) -> Self {
        Self {
            topic,
            key,
            index_type: None,
            max: 32,
            begin: StoreTimestamp(0),
            end: StoreTimestamp(i64::MAX),
        }
    }
}

impl Store {
    /// Reads up to 32 messages from `offset` on. See [`Store::fetch`] for limits and filters.
    ///
    /// # Errors
    /// As [`Store::fetch`].
    pub fn get(&self, queue: Queue, offset: QueueOffset) -> Result<GetResult> {
        self.fetch(&GetRequest::new(queue, offset))
    }

    /// Reads messages of a queue. What RocketMQ answers with a status comes as [`GetResult::status`], not as an
    /// error. Touches mapped files, so it may wait for the disk when the messages are old.
    ///
    /// # Errors
    /// [`crate::Error::Io`] when a queue file cannot be opened.
    pub fn fetch(&self, request: &GetRequest<'_>) -> Result<GetResult> {
        self.inner.fetch(request, |lease, unit| {
            StoredMessage::new(&lease, unit.offset, Some(unit.queue_offset)).ok()
        })
    }

    /// [`Store::fetch`] without a look at the records: for brokers, which pass the bytes on as they are.
    ///
    /// # Errors
    /// As [`Store::fetch`].
    pub fn fetch_raw(&self, request: &GetRequest<'_>) -> Result<GetResult<RawMessage>> {
        self.inner.fetch(request, |lease, unit| Some(RawMessage::new(lease, unit.queue_offset)))
    }

    /// The message at a physical offset; `None` when no whole record starts there.
    ///
    /// # Errors
    /// None at present; a result for the day when reading can fail otherwise.
    pub fn message_at(&self, at: PhysicalOffset) -> Result<Option<StoredMessage>> {
        Ok(self.inner.message_at(at, None))
    }

    /// The offset of the queue's first message.
    #[must_use]
    pub fn min_offset(&self, queue: Queue) -> QueueOffset {
        self.inner.registry.get(queue).map_or(QueueOffset::ZERO, |entry| entry.queue.min_offset())
    }

    /// The offset that the queue's next message will have, as far as readers can see.
    #[must_use]
    pub fn max_offset(&self, queue: Queue) -> QueueOffset {
        self.inner.registry.get(queue).map_or(QueueOffset::ZERO, |entry| entry.queue.max_offset())
    }

    /// The first (or last) message stored at `time`; where there is none, the boundary decides between neighbours.
    ///
    /// # Errors
    /// [`crate::Error::Io`] when a queue file cannot be opened.
    pub fn offset_by_time(
        &self,
        queue: Queue,
        time: StoreTimestamp,
        boundary: Boundary,
    ) -> Result<QueueOffset> {
        let Some(entry) = self.inner.registry.get(queue) else { return Ok(QueueOffset::ZERO) };
        entry.queue.search_by_time(time, boundary, |at| self.inner.stored_at(at))
    }

    /// When a message of a queue was stored.
    ///
    /// # Errors
    /// [`crate::Error::Io`] when a queue file cannot be opened.
    pub fn message_time(&self, queue: Queue, offset: QueueOffset) -> Result<Option<StoreTimestamp>> {
        let Some(entry) = self.inner.registry.get(queue) else { return Ok(None) };
        Ok(entry.queue.get(offset)?.and_then(|unit| self.inner.stored_at(unit.offset)))
    }

    /// When the first message of a queue was stored.
    ///
    /// # Errors
    /// [`crate::Error::Io`] when a queue file cannot be opened.
    pub fn earliest_time(&self, queue: Queue) -> Result<Option<StoreTimestamp>> {
        self.message_time(queue, self.min_offset(queue))
    }

    /// The entries of a queue from `offset` on, as the ConsumeQueue has them; `max` at most.
    ///
    /// # Errors
    /// [`crate::Error::Io`] when a queue file cannot be opened.
    pub fn entries(&self, queue: Queue, offset: QueueOffset, max: usize) -> Result<Vec<CqUnit>> {
        let mut units = Vec::new();
        if let Some(entry) = self.inner.registry.get(queue).filter(|entry| !entry.is_deleted()) {
            entry.queue.read(offset, max, &mut units)?;
        }
        Ok(units)
    }

    /// The messages of a topic that carry `key` among their keys, as unique key or as tag: newest 32, oldest first.
    /// Every hit is compared with the message, so that keys of equal hash do not pass for one another.
    ///
    /// # Errors
    /// [`crate::Error::Io`] when an index file cannot be read.
    pub fn query(&self, topic: &str, key: &str) -> Result<Vec<StoredMessage>> {
        self.query_exact(&Query::new(topic, key))
    }

    /// [`Store::query`] with limits.
    ///
    /// # Errors
    /// As [`Store::query`].
    pub fn query_exact(&self, query: &Query<'_>) -> Result<Vec<StoredMessage>> {
        let mut raw = self.query_raw(query)?;
        // RocketMQ indexes the last record twice when it opens a store after a kill.
        raw.offsets.dedup();
        let hits = raw.offsets.iter().filter_map(|at| self.inner.message_at(*at, None));
        Ok(hits.filter(|message| carries(&message.record(), query)).collect())
    }

    /// RocketMQ's own answer to a query by key: whatever has the key's hash, oldest first.
    ///
    /// # Errors
    /// [`crate::Error::Io`] when an index file cannot be read.
    pub fn query_raw(&self, query: &Query<'_>) -> Result<IndexHits> {
        let max = query.max.min(self.inner.config.max_query_messages);
        let mut raw =
            self.inner.index.query(query.topic, query.key, query.index_type, max, query.begin, query.end);
        raw.offsets.sort_unstable();
        Ok(raw)
    }

    /// The queue of this number if it exists, without making it.
    #[must_use]
    pub fn find_queue(&self, topic: &str, id: impl Into<QueueId>) -> Option<Queue> {
        let id = id.into();
        self.inner.registry.find(topic, id).or_else(|| {
            let queue = self.inner.table.get(topic, id)?;
            let topic = queue.key().topic.clone();
            self.inner.registry.register(&topic, id, queue)
        })
    }
}

fn carries(record: &Record<'_>, query: &Query<'_>) -> bool {
    let has = |name, split: bool| {
        record
            .properties
            .get(name)
            .is_some_and(|text| text == query.key || (split && text.split(' ').any(|key| key == query.key)))
    };
    record.topic == query.topic
        && match query.index_type {
            Some("T") => has(properties::TAGS, false),
            Some("U") => has(properties::UNIQ_KEY, false),
            _ => has(properties::KEYS, true) || has(properties::UNIQ_KEY, false),
        }
}

impl Inner {
    pub(super) fn message_at(
        &self,
        at: PhysicalOffset,
        queue_offset: Option<QueueOffset>,
    ) -> Option<StoredMessage> {
        if self.report.is_damaged(at) {
            return None;
        }
        StoredMessage::new(&self.log.lease_rest(at)?, at, queue_offset).ok()
    }

    fn stored_at(&self, at: PhysicalOffset) -> Option<StoreTimestamp> {
        self.message_at(at, None).map(|message| message.record().store_timestamp)
    }

    fn fetch<M>(
        &self,
        request: &GetRequest<'_>,
        make: impl Fn(Lease, &CqUnit) -> Option<M>,
    ) -> Result<GetResult<M>> {
        let Some(entry) = self.registry.get(request.queue).filter(|entry| !entry.is_deleted()) else {
            let (none, status) = (QueueOffset::ZERO, GetStatus::NoMatchedLogicQueue);
            return Ok(GetResult::without(status, request.offset, none, none));
        };
        let (min, max) = (entry.queue.min_offset(), entry.queue.max_offset());
        let missed = |status, next| Ok(GetResult::without(status, next, min, max));
        let offset = request.offset;
        if max == QueueOffset::ZERO {
            missed(GetStatus::NoMessageInQueue, QueueOffset::ZERO)
        } else if offset < min {
            missed(GetStatus::OffsetTooSmall, min)
        } else if offset == max {
            missed(GetStatus::OffsetOverflowOne, offset)
        } else if offset > max {
            missed(GetStatus::OffsetOverflowBadly, max)
        } else {
            let mut result = GetResult::without(GetStatus::OffsetFoundNull, offset, min, max);
            self.walk(entry, request, &mut result, make)?;
            self.stats.get(result.messages.len(), result.bytes);
            Ok(result)
        }
    }

    fn walk<M>(
        &self,
        entry: &Registered,
        request: &GetRequest<'_>,
        result: &mut GetResult<M>,
        make: impl Fn(Lease, &CqUnit) -> Option<M>,
    ) -> Result<()> {
        result.messages.reserve(request.max_messages.min(64));
        let mut left = if request.max_scan == 0 { request.max_messages.max(800) } else { request.max_scan };
        let mut reader = LogReader { inner: self, oldest: self.log.min_offset(), lease: None };
        let mut missed = GetStatus::OffsetFoundNull;
        let (mut plain, mut units) = ([[0; ENTRY]; CHUNK], Vec::new());
        while left > 0 && result.messages.len() < request.max_messages {
            let want =
                (request.max_messages - result.messages.len()).max(FILTERED_CHUNK).min(left).min(CHUNK);
            let want = if request.filter.is_none() { want.min(request.max_messages) } else { want };
            let from = result.next_offset;
            let mut take = |unit: &CqUnit| {
                let size = usize::try_from(unit.size).unwrap_or(0);
                let full = result.messages.len() >= request.max_messages;
                if full || (!result.messages.is_empty() && result.bytes + size > request.max_bytes) {
                    return false;
                }
                left = left.saturating_sub(1);
                let selected = reader.select(unit, request.filter);
                match selected.and_then(|lease| make(lease, unit).ok_or(GetStatus::MessageWasRemoving)) {
                    Ok(message) => {
                        result.bytes += size;
                        result.messages.push(message);
                    }
                    Err(status) => missed = status,
                }
                result.next_offset = unit.next();
                true
            };
            let go_on = if let Some(count) = entry.queue.read_plain(from, &mut plain[..want])? {
                let numbered = plain[..count].iter().zip(from.0..);
                count > 0
                    && numbered
                        .map(|(bytes, at)| CqUnit::plain(QueueOffset(at), bytes))
                        .all(|unit| take(&unit))
            } else {
                units.clear();
                entry.queue.read(from, want, &mut units)? > 0 && units.iter().all(&mut take)
            };
            if !go_on {
                break;
            }
        }
        result.status = if result.messages.is_empty() { missed } else { GetStatus::Found };
        if result.messages.is_empty() && result.next_offset == request.offset {
            // Nothing is readable here: go on behind it, or a reader would ask for ever.
            result.next_offset = request.offset.plus(1).clamp(result.min_offset, result.max_offset);
        }
        Ok(())
    }
}

/// Leads from queue entries to the log. Entries rise through the log, so one lease serves most of a read.
struct LogReader<'s> {
    inner: &'s Inner,
    oldest: PhysicalOffset,
    /// The rest of a segment, and where it starts.
    lease: Option<(PhysicalOffset, Lease)>,
}

impl LogReader<'_> {
    #[inline]
    fn select(&mut self, unit: &CqUnit, filter: Option<&dyn Filter>) -> Result<Lease, GetStatus> {
        if filter.is_some_and(|filter| !filter.by_queue_entry(unit.tags_code, unit.ext.as_deref())) {
            return Err(GetStatus::NoMatchedMessage);
        }
        if unit.offset < self.oldest || self.inner.report.is_damaged(unit.offset) {
            return Err(GetStatus::MessageWasRemoving);
        }
        // An entry whose length leads beyond its segment stands for a message that is lost.
        let lease = self.lease(unit).ok_or(GetStatus::MessageWasRemoving)?;
        if let Some(filter) = filter.filter(|filter| filter.reads_records()) {
            let record = Record::decode(&lease).map_err(|_| GetStatus::MessageWasRemoving)?;
            if !filter.by_record(&record) {
                return Err(GetStatus::NoMatchedMessage);
            }
        }
        Ok(lease)
    }

    fn lease(&mut self, unit: &CqUnit) -> Option<Lease> {
        let size = usize::try_from(unit.size).ok()?;
        let within = |(start, rest): &(PhysicalOffset, Lease)| {
            let at = usize::try_from(unit.offset.0.checked_sub(start.0)?).ok()?;
            let end = at.checked_add(size)?;
            (end <= rest.len()).then(|| rest.slice(at..end))
        };
        if let Some(lease) = self.lease.as_ref().and_then(within) {
            return Some(lease);
        }
        self.lease = Some((unit.offset, self.inner.log.lease_rest(unit.offset)?));
        self.lease.as_ref().and_then(within)
    }
}

impl<M> GetResult<M> {
    /// A result without messages.
    pub(crate) const fn without(
        status: GetStatus,
        next_offset: QueueOffset,
        min_offset: QueueOffset,
        max_offset: QueueOffset,
    ) -> Self {
        Self { status, next_offset, min_offset, max_offset, messages: Vec::new(), bytes: 0 }
    }
}
