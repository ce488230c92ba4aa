//! One entry of either kind of queue, as bytes and as a value.

use super::{Dispatch, QueueKind};
use crate::{
    format::consume_queue::{BATCH_ENTRY, BatchEntry, ENTRY, Entry},
    types::{PhysicalOffset, QueueOffset, StoreTimestamp, TagsCode},
};

/// The longer of both.
pub(super) const MAX_WIDTH: usize = BATCH_ENTRY;

/// One entry as it stands in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unit {
    pub offset: PhysicalOffset,
    pub size: i32,
    pub tags_code: TagsCode,
    /// Only in batch queues.
    pub store_timestamp: StoreTimestamp,
    /// In a simple queue the entry's own number, which is not in the file.
    pub base: QueueOffset,
    pub num: i16,
}

impl Unit {
    /// Bytes of an entry.
    pub(super) const fn width(kind: QueueKind) -> usize {
        match kind {
            QueueKind::Simple => ENTRY,
            QueueKind::Batch => BATCH_ENTRY,
        }
    }

    /// Reads the entry that is number `number` of its queue.
    pub(super) fn decode(kind: QueueKind, number: u64, bytes: &[u8]) -> Self {
        match kind {
            QueueKind::Simple => {
                let entry = Entry::decode(bytes.first_chunk().unwrap_or(&[0; ENTRY]));
                Self {
                    offset: entry.offset,
                    size: entry.size,
                    tags_code: entry.tags_code,
                    store_timestamp: StoreTimestamp(0),
                    base: QueueOffset(i64::try_from(number).unwrap_or(i64::MAX)),
                    num: 1,
                }
            }
            QueueKind::Batch => {
                let entry = BatchEntry::decode(bytes.first_chunk().unwrap_or(&[0; BATCH_ENTRY]));
                Self {
                    offset: entry.offset,
                    size: entry.size,
                    tags_code: entry.tags_code,
                    store_timestamp: entry.store_timestamp,
                    base: entry.base,
                    num: entry.num,
                }
            }
        }
    }

    /// What a record's entry reads as.
    #[inline]
    pub(super) const fn of(kind: QueueKind, record: &Dispatch<'_>, tags_code: TagsCode) -> Self {
        let Dispatch { offset, size, queue_offset: base, .. } = *record;
        match kind {
            QueueKind::Simple => {
                Self { offset, size, tags_code, store_timestamp: StoreTimestamp(0), base, num: 1 }
            }
            QueueKind::Batch => {
                let (store_timestamp, num) = (record.store_timestamp, record.batch_num);
                Self { offset, size, tags_code, store_timestamp, base, num }
            }
        }
    }

    /// Writes the entry of a record into the front of `out` and gives that front.
    #[inline]
    pub(super) fn encode<'a>(
        kind: QueueKind,
        record: &Dispatch<'_>,
        tags_code: TagsCode,
        out: &'a mut [u8; MAX_WIDTH],
    ) -> &'a [u8] {
        Self::of(kind, record, tags_code).write(kind, out)
    }

    /// Writes the entry into the front of `out` and gives that front.
    #[inline]
    pub(super) fn write<'a>(&self, kind: QueueKind, out: &'a mut [u8; MAX_WIDTH]) -> &'a [u8] {
        let width = Self::width(kind);
        let Self { offset, size, tags_code, store_timestamp, base, num } = *self;
        match kind {
            QueueKind::Simple => {
                out[..width].copy_from_slice(&Entry { offset, size, tags_code }.encode());
            }
            QueueKind::Batch => {
                let (compacted, reserved) = (-1, 0);
                let entry =
                    BatchEntry { offset, size, tags_code, store_timestamp, base, num, compacted, reserved };
                out[..width].copy_from_slice(&entry.encode());
            }
        }
        &out[..width]
    }

    /// Whether an entry stands here. Fillers count.
    pub(super) const fn is_valid(&self) -> bool {
        self.offset.0 >= 0 && self.size > 0 && self.base.0 >= 0 && self.num > 0
    }

    /// Whether it stands for no record.
    pub(super) const fn is_filler(&self) -> bool {
        let filler = Entry::FILLER;
        self.size == filler.size && self.offset.0 == filler.offset.0 && self.tags_code.0 == filler.tags_code.0
    }

    /// The queue offset behind it.
    #[inline]
    pub(super) const fn next(&self) -> QueueOffset {
        self.base.plus(self.num as i64)
    }

    /// The end of the record in the log.
    #[inline]
    pub(super) fn end(&self) -> PhysicalOffset {
        self.offset.plus(usize::try_from(self.size).unwrap_or(0))
    }
}
