//! The queues: for each message of a queue one entry that says where in the log it lies.
//!
//! Owns `consumequeue/`, `consumequeue_ext/` and `batchconsumequeue/`. FORMAT.md, "ConsumeQueue", has the bytes.
//! The dispatcher appends, pulls read, recovery checks and cuts, retention drops old files.
//!
//! Invariants:
//! - the entry of queue offset `q` lies at byte `q * 20`, never elsewhere: an append for another place is refused
//!   as [`Appended::Gap`], for the log can always give the missing entries again;
//! - an entry is readable from the moment [`Queue::append`] returns; it waits in memory, bounded, until
//!   [`QueueTable::write_out`] writes it through the file, so that a full disk is an error and never a signal;
//! - the bytes after the last entry are zero, so that no stale entry can become the next one;
//! - files are sparse, made at the first write-out, and mapped only while used: an idle queue costs some hundred
//!   bytes.

mod ext;
mod files;
mod mapping;
mod queue;
mod recover;
mod rest;
mod search;
mod table;
mod unit;

pub use crate::format::consume_queue::ExtUnit;
use crate::types::{PhysicalOffset, QueueId, QueueOffset, StoreTimestamp, TagsCode, TopicName};

pub(crate) use queue::Queue;
pub use search::Boundary;
pub(crate) use table::QueueTable;

/// Which queue.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct QueueKey {
    /// Its topic.
    pub topic: TopicName,
    /// Its number in the topic.
    pub id: QueueId,
}

/// How a queue counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum QueueKind {
    /// One entry of 20 bytes a message.
    Simple,
    /// One entry of 46 bytes an inner batch of messages.
    Batch,
}

/// What the log says of a record, as a queue takes it in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dispatch<'a> {
    /// Its place in the queue; the first one of an inner batch.
    pub queue_offset: QueueOffset,
    /// Its place in the log.
    pub offset: PhysicalOffset,
    /// Its length in the log.
    pub size: i32,
    /// Tag hash or due time.
    pub tags_code: TagsCode,
    /// When it was stored.
    pub store_timestamp: StoreTimestamp,
    /// Messages it counts for: 1, or the size of the inner batch.
    pub batch_num: i16,
    /// The filter bitmap for ConsumeQueueExt, if one was computed.
    pub bitmap: Option<&'a [u8]>,
}

/// What became of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Appended {
    /// The entry is there.
    Done,
    /// The queue had it already.
    Duplicate,
    /// Entries before it are missing; nothing was written.
    Gap {
        /// The offset that the queue needs next.
        expected: QueueOffset,
    },
}

/// One entry of a queue as readers see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CqUnit {
    /// Its place in the queue; the first one of an inner batch.
    pub queue_offset: QueueOffset,
    /// The record's place in the log.
    pub offset: PhysicalOffset,
    /// The record's length.
    pub size: i32,
    /// Tag hash or due time; taken from the ext unit when there is one.
    pub tags_code: TagsCode,
    /// What ConsumeQueueExt adds.
    pub ext: Option<Box<ExtUnit>>,
    /// Messages it counts for.
    pub batch_num: i16,
}

impl CqUnit {
    /// The queue offset behind this entry.
    pub fn next(&self) -> QueueOffset {
        self.queue_offset.plus(i64::from(self.batch_num))
    }

    /// The end of the record in the log.
    pub fn end(&self) -> PhysicalOffset {
        self.offset.plus(usize::try_from(self.size).unwrap_or(0))
    }

    /// Whether the entry stands for a record that is lost: such a one is longer than a segment.
    pub(crate) fn is_of_lost(&self, segment_size: usize) -> bool {
        usize::try_from(self.size).is_ok_and(|size| size > segment_size)
    }
}

#[cfg(test)]
mod tests;
