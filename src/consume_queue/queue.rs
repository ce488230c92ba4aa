//! One queue.

use super::{Appended, Boundary, CqUnit, Dispatch, QueueKey, QueueKind};
use crate::{
    error::Result,
    types::{PhysicalOffset, QueueOffset, StoreTimestamp},
};

/// One queue of a topic.
#[derive(Debug)]
pub(crate) struct Queue {
    key: QueueKey,
    kind: QueueKind,
}

#[allow(unused_variables)]
impl Queue {
    /// Which queue this is.
    pub(crate) fn key(&self) -> &QueueKey {
        &self.key
    }

    /// How it counts.
    pub(crate) fn kind(&self) -> QueueKind {
        self.kind
    }

    /// The first offset whose message may still be in the log.
    pub(crate) fn min_offset(&self) -> QueueOffset {
        todo!()
    }

    /// The offset that the next message gets.
    pub(crate) fn max_offset(&self) -> QueueOffset {
        todo!()
    }

    /// The byte of the first live entry in the queue's logical space, RocketMQ's `minLogicOffset`.
    pub(crate) fn min_logic_offset(&self) -> i64 {
        todo!()
    }

    /// The log offset behind the last entry's record.
    pub(crate) fn max_physical(&self) -> PhysicalOffset {
        todo!()
    }

    /// The entry of `at` (for a batch queue: the one that holds it); `None` outside `min..max`.
    pub(crate) fn get(&self, at: QueueOffset) -> Result<Option<CqUnit>> {
        todo!()
    }

    /// Appends up to `max_entries` entries from `from` on to `out` and says how many. Stops at the end of a file, as
    /// one pull of RocketMQ does; 0 means that `from` is outside `min..max`.
    pub(crate) fn read(&self, from: QueueOffset, max_entries: usize, out: &mut Vec<CqUnit>) -> Result<usize> {
        todo!()
    }

    /// Takes a record in. An entry never lands at another slot than its own.
    pub(crate) fn append(&self, record: &Dispatch<'_>) -> Result<Appended> {
        todo!()
    }

    /// Finds where the valid entries end, from the third file before the end on, drops what lies behind and zeroes
    /// it on disk.
    pub(crate) fn recover(&self) -> Result<()> {
        todo!()
    }

    /// Drops the entries whose record reaches beyond `end` of the log.
    pub(crate) fn truncate_from_physical(&self, end: PhysicalOffset) -> Result<()> {
        todo!()
    }

    /// Drops the entries from `end` on.
    pub(crate) fn truncate_to(&self, end: QueueOffset) -> Result<()> {
        todo!()
    }

    /// Replaces the entry of `record.queue_offset`, which exists.
    pub(crate) fn rewrite(&self, record: &Dispatch<'_>) -> Result<()> {
        todo!()
    }

    /// Forgets every entry; the next append may start anywhere.
    pub(crate) fn clear(&self) -> Result<()> {
        todo!()
    }

    /// Removes at most `at_most` files, never the last, whose entries all lie below `min_physical`; says how many.
    pub(crate) fn delete_before(&self, min_physical: PhysicalOffset, at_most: usize) -> Result<usize> {
        todo!()
    }

    /// Moves the minimum offset to the first entry at or above `min_physical`.
    pub(crate) fn correct_min_offset(&self, min_physical: PhysicalOffset) -> Result<()> {
        todo!()
    }

    /// The offset that RocketMQ gives for a time. `time_of` looks a record's store time up; `None` for one that is
    /// gone.
    pub(crate) fn search_by_time(
        &self,
        at: StoreTimestamp,
        boundary: Boundary,
        time_of: impl Fn(PhysicalOffset) -> Option<StoreTimestamp>,
    ) -> Result<QueueOffset> {
        todo!()
    }
}
