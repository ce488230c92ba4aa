//! Reading: by queue and offset, by place, by time and by key.

use super::{
    Inner, Store,
    walk::{Place, Walk},
};
use crate::{
    consume_queue::{Boundary, CqUnit},
    error::Result,
    filter::Filter,
    format::{message::Record, properties},
    index::IndexHits,
    message::{GetStatus, Queue, RawMessage, StoredMessage},
    segment::Lease,
    types::{PhysicalOffset, QueueId, QueueOffset, StoreTimestamp},
};

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
    /// The parts of the log that the read went through, which [`RawMessage`]s lie in.
    pub(super) leases: Vec<Lease>,
    pub(super) bytes: usize,
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

impl GetResult<RawMessage> {
    /// The record's bytes as they lie in the log. For a message of this result; one of another has none here, or other
    /// bytes.
    #[must_use]
    #[inline]
    pub fn bytes_of(&self, message: &RawMessage) -> &[u8] {
        let lease = self.leases.get(message.lease as usize);
        lease.and_then(|lease| lease.get(message.range())).unwrap_or_default()
    }

    /// [`GetResult::bytes_of`] as bytes that stay mapped for themselves.
    #[must_use]
    pub fn lease_of(&self, message: &RawMessage) -> Option<Lease> {
        Some(self.leases.get(message.lease as usize)?.slice(message.range()))
    }

    /// The bytes of all messages in their order, those that lie behind one another in the log in one piece: what a broker
    /// sends.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let config = reput::Config::new(dir.path()).commit_log_file_size(1u64 << 20);
    /// use reput::{GetRequest, Message, QueueOffset, Store};
    /// let store = Store::open(config)?;
    /// let orders = store.queue("orders", 0)?;
    /// for _ in 0..3 {
    ///     store.put(&Message::new(orders, b"paid"))?.wait()?;
    /// }
    /// # store.wait_dispatched(std::time::Duration::from_secs(60))?;
    /// let result = store.fetch_raw(&GetRequest::new(orders, QueueOffset::ZERO))?;
    /// assert_eq!(result.messages.len(), 3);
    /// assert_eq!(result.runs().map(|piece| piece.len()).collect::<Vec<_>>(), [result.bytes()]);
    /// # drop(result);
    /// store.close()?;
    /// # Ok::<(), reput::Error>(())
    /// ```
    pub fn runs(&self) -> impl Iterator<Item = Lease> {
        self.messages.chunk_by(|one, next| one.lease == next.lease && one.range().end == next.at).filter_map(
            |run| {
                let (first, last) = (run.first()?, run.last()?);
                Some(self.leases.get(first.lease as usize)?.slice(first.at..last.range().end))
            },
        )
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
        self.inner.fetch(request, |place, leases| {
            StoredMessage::new(leases.last()?, place.range(), place.physical, Some(place.queue_offset)).ok()
        })
    }

    /// [`Store::fetch`] without a look at the records: for brokers, which pass the bytes on as they are. The messages lie
    /// in the result, which keeps their part of the log mapped.
    ///
    /// # Errors
    /// As [`Store::fetch`].
    pub fn fetch_raw(&self, request: &GetRequest<'_>) -> Result<GetResult<RawMessage>> {
        self.inner.fetch(request, |place, leases| {
            let Place { at, len, queue_offset, .. } = *place;
            Some(RawMessage { lease: u32::try_from(leases.len() - 1).ok()?, at, len, queue_offset })
        })
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
        let rest = self.log.lease_rest(at)?;
        StoredMessage::new(&rest, 0..rest.len(), at, queue_offset).ok()
    }

    fn stored_at(&self, at: PhysicalOffset) -> Option<StoreTimestamp> {
        self.message_at(at, None).map(|message| message.record().store_timestamp)
    }

    fn fetch<M>(
        &self,
        request: &GetRequest<'_>,
        make: impl Fn(&Place, &[Lease]) -> Option<M>,
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
            let found = GetResult::without(GetStatus::OffsetFoundNull, offset, min, max);
            let result = Walk::new(self, request, found, make).through(&entry.queue)?;
            self.stats.get(result.messages.len(), result.bytes);
            Ok(result)
        }
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
        Self {
            status,
            next_offset,
            min_offset,
            max_offset,
            messages: Vec::new(),
            leases: Vec::new(),
            bytes: 0,
        }
    }
}
