//! Messages as users of the store write and read them, and the statuses that RocketMQ gives to both.
//!
//! [`Message`] borrows what is to be put; [`StoredMessage`] holds a lease on the bytes in the log, so that reading
//! copies nothing. Neither knows the store.

use std::{borrow::Cow, net::SocketAddr, ops::Range};

use crate::{
    error::{Corruption, Error, Result},
    format::{
        message::Record,
        message_id::MessageId,
        properties::{self, Properties, PropertiesBuf},
    },
    segment::Lease,
    types::{PhysicalOffset, QueueOffset, StoreTimestamp, SysFlag},
};

/// One queue of one topic, resolved once by [`Store::queue`](crate::Store::queue) and then cheap to name.
///
/// Only valid with the store that gave it out, until the topic is deleted there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Queue(pub(crate) u32);

/// A message to put: a body for a queue, and what RocketMQ keeps beside it.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let config = reput::Config::new(dir.path()).commit_log_file_size(1u64 << 20);
/// use reput::{Message, Store};
/// let store = Store::open(config)?;
/// let orders = store.queue("orders", 0)?;
/// let paid = Message::new(orders, b"paid").tags("eu").keys("o-1042").property("shop", "17");
/// store.put(&paid)?.wait()?;
/// # store.close()?;
/// # Ok::<(), reput::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Message<'a> {
    pub(crate) queue: Queue,
    pub(crate) body: &'a [u8],
    pub(crate) properties: Cow<'a, [u8]>,
    pub(crate) flag: i32,
    pub(crate) sys_flag: SysFlag,
    pub(crate) born_timestamp: Option<StoreTimestamp>,
    pub(crate) born_host: Option<SocketAddr>,
    pub(crate) store_host: Option<SocketAddr>,
    pub(crate) reconsume_times: i32,
    pub(crate) prepared_transaction_offset: i64,
    pub(crate) wait_store: bool,
    pub(crate) illegal: Option<String>,
}

impl<'a> Message<'a> {
    /// A message with this body and nothing else.
    #[must_use]
    pub const fn new(queue: Queue, body: &'a [u8]) -> Self {
        Self {
            queue,
            body,
            properties: Cow::Borrowed(&[]),
            flag: 0,
            sys_flag: SysFlag(0),
            born_timestamp: None,
            born_host: None,
            store_host: None,
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            wait_store: true,
            illegal: None,
        }
    }

    /// The tags that consumers filter by: the property `TAGS`.
    #[must_use]
    pub fn tags(self, tags: &str) -> Self {
        self.property(properties::TAGS, tags)
    }

    /// The keys, separated by spaces, that the message is found by: the property `KEYS`.
    #[must_use]
    pub fn keys(self, keys: &str) -> Self {
        self.property(properties::KEYS, keys)
    }

    /// One more property. Names and values must not hold the bytes 1 and 2, which separate them; the put refuses
    /// a message with such a property.
    #[must_use]
    pub fn property(mut self, name: &str, value: &str) -> Self {
        let mut all = PropertiesBuf::from_raw(&self.properties);
        match all.push(name, value) {
            Ok(()) => self.properties = Cow::Owned(all.into_bytes()),
            Err(error) => self.illegal = Some(error.to_string()),
        }
        self
    }

    /// All properties at once, encoded as in the record (FORMAT.md, "Properties"); replaces what was set before.
    #[must_use]
    pub fn properties_raw(mut self, encoded: impl Into<Cow<'a, [u8]>>) -> Self {
        self.properties = encoded.into();
        self
    }

    /// The application's own flag; the store keeps it and does not look at it.
    #[must_use]
    pub const fn flag(mut self, flag: i32) -> Self {
        self.flag = flag;
        self
    }

    /// The system flags; the bits for IPv6 hosts are set by the store.
    #[must_use]
    pub const fn sys_flag(mut self, sys_flag: SysFlag) -> Self {
        self.sys_flag = sys_flag;
        self
    }

    /// When the producer made the message; the time of the put when not given.
    #[must_use]
    pub const fn born_timestamp(mut self, at: StoreTimestamp) -> Self {
        self.born_timestamp = Some(at);
        self
    }

    /// The producer's address; the store's own when not given.
    #[must_use]
    pub const fn born_host(mut self, host: SocketAddr) -> Self {
        self.born_host = Some(host);
        self
    }

    /// The address that goes into the message's id; [`Config`](crate::Config)'s when not given.
    #[must_use]
    pub const fn store_host(mut self, host: SocketAddr) -> Self {
        self.store_host = Some(host);
        self
    }

    /// How often the message was consumed without success.
    #[must_use]
    pub const fn reconsume_times(mut self, times: i32) -> Self {
        self.reconsume_times = times;
        self
    }

    /// Where the prepared message of this transaction lies.
    #[must_use]
    pub const fn prepared_transaction_offset(mut self, offset: i64) -> Self {
        self.prepared_transaction_offset = offset;
        self
    }

    /// Whether waiting for this message waits for the disk under `SYNC_FLUSH`; RocketMQ's property `WAIT`. Without
    /// it the wait ends when the message survives `kill -9`.
    #[must_use]
    pub const fn wait_store(mut self, wait: bool) -> Self {
        self.wait_store = wait;
        self
    }
}

/// What became of a put: RocketMQ's PutMessageStatus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PutStatus {
    /// Stored as durably as asked.
    Ok,
    /// Stored, but the disk did not answer within `syncFlushTimeout`.
    FlushDiskTimeout,
    /// Stored, but the replica did not answer in time.
    FlushSlaveTimeout,
    /// Stored, but there is no replica.
    SlaveNotAvailable,
    /// Not stored: the store takes no writes now.
    ServiceNotAvailable,
    /// Not stored: the next segment could not be made.
    CreateMappedFileFailed,
    /// Not stored: the message breaks a limit.
    MessageIllegal,
    /// Not stored: the properties are too long.
    PropertiesSizeExceeded,
    /// Not stored: the page cache is busy.
    OsPageCacheBusy,
    /// Not stored, for another reason.
    UnknownError,
    /// Not stored: there are too many `%LMQ%` queues.
    LmqConsumeQueueNumExceeded,
}

impl Error {
    /// The status by which RocketMQ names this failure of a put.
    #[must_use]
    pub const fn put_status(&self) -> PutStatus {
        match self {
            Self::NoSpace { .. } => PutStatus::CreateMappedFileFailed,
            Self::Poisoned { .. } | Self::DiskFull { .. } | Self::Closed | Self::ReadOnly => {
                PutStatus::ServiceNotAvailable
            }
            Self::PropertiesTooLarge { .. } => PutStatus::PropertiesSizeExceeded,
            Self::BodyTooLarge { .. }
            | Self::RecordTooLarge { .. }
            | Self::IllegalMessage { .. }
            | Self::InvalidTopic { .. }
            | Self::NoSuchQueue { .. } => PutStatus::MessageIllegal,
            Self::TooManyQueues { .. } => PutStatus::LmqConsumeQueueNumExceeded,
            _ => PutStatus::UnknownError,
        }
    }
}

/// What a read of a queue came to: RocketMQ's GetMessageStatus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GetStatus {
    /// Messages are here.
    Found,
    /// There are messages, none passed the filter.
    NoMatchedMessage,
    /// The messages at this offset are being deleted.
    MessageWasRemoving,
    /// The queue's file at this offset is gone.
    OffsetFoundNull,
    /// The offset lies beyond the end.
    OffsetOverflowBadly,
    /// The offset is the end: the next message will have it.
    OffsetOverflowOne,
    /// The offset lies before the first message.
    OffsetTooSmall,
    /// There is no such queue.
    NoMatchedLogicQueue,
    /// The queue has no messages.
    NoMessageInQueue,
}

/// A message as its queue entry leads to it: a place in what its [`GetResult`](crate::GetResult) keeps mapped, which
/// gives its bytes. Nothing has looked at them since recovery held the entry against the log, so passing them on touches
/// no memory of theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawMessage {
    /// Which of the result's leases.
    pub(crate) lease: u32,
    pub(crate) at: usize,
    pub(crate) len: usize,
    pub(crate) queue_offset: QueueOffset,
}

impl RawMessage {
    /// The record's bytes as they lie in the log, as many as its queue entry says.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no bytes, which no record has.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Its number in the queue that it was read from.
    #[must_use]
    pub const fn queue_offset(&self) -> QueueOffset {
        self.queue_offset
    }

    /// Where it lies in its lease.
    pub(crate) const fn range(&self) -> Range<usize> {
        self.at..self.at + self.len
    }
}

/// A message in the log. Holds the mapped bytes; nothing is copied until asked for.
#[derive(Clone, Debug)]
pub struct StoredMessage {
    lease: Lease,
    queue_offset: QueueOffset,
}

impl StoredMessage {
    /// Checks that `range` of `lease` starts with one whole record that belongs at `at`, and keeps just that.
    pub(crate) fn new(
        lease: &Lease,
        range: Range<usize>,
        at: PhysicalOffset,
        queue_offset: Option<QueueOffset>,
    ) -> Result<Self, Corruption> {
        let start = range.start;
        let record = Record::decode(lease.get(range).unwrap_or_default())?;
        if record.physical_offset != at {
            return Err(Corruption::Misplaced { stated: record.physical_offset, actual: at });
        }
        let (size, own) = (record.total_size, record.queue_offset);
        Ok(Self { lease: lease.slice(start..start + size), queue_offset: queue_offset.unwrap_or(own) })
    }

    /// The record's bytes as they lie in the log.
    #[must_use]
    pub const fn lease(&self) -> &Lease {
        &self.lease
    }

    /// The record's fields.
    #[must_use]
    pub fn record(&self) -> Record<'_> {
        match Record::decode(&self.lease) {
            Ok(record) => record,
            // Decoded once in `new`, and published bytes never change.
            Err(why) => unreachable!("a record that was whole is {why}"),
        }
    }

    /// Its number in the queue that it was read from.
    #[must_use]
    pub const fn queue_offset(&self) -> QueueOffset {
        self.queue_offset
    }

    /// Where it lies in the log.
    #[must_use]
    pub fn physical_offset(&self) -> PhysicalOffset {
        self.record().physical_offset
    }

    /// The body, as the producer sent it.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        self.record().body
    }

    /// The topic that it was put to.
    #[must_use]
    pub fn topic(&self) -> &str {
        self.record().topic
    }

    /// Its properties.
    #[must_use]
    pub fn properties(&self) -> Properties<'_> {
        self.record().properties
    }

    /// The property `TAGS`.
    #[must_use]
    pub fn tags(&self) -> Option<&str> {
        self.properties().get(properties::TAGS)
    }

    /// The property `KEYS`.
    #[must_use]
    pub fn keys(&self) -> Option<&str> {
        self.properties().get(properties::KEYS)
    }

    /// The id that names the broker and the place: 32 or 56 hex digits.
    #[must_use]
    pub fn message_id(&self) -> String {
        let record = self.record();
        MessageId { host: record.store_host, offset: record.physical_offset }.to_string()
    }
}
