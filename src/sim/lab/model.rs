//! What must be true of the store: which messages were put, which of them nothing may take any more.

use std::sync::Arc;

use crate::types::{PhysicalOffset, StoreTimestamp};

/// One message that was put.
#[derive(Clone, Debug)]
pub(super) struct Put {
    /// Unique; the first bytes of the body.
    pub(super) id: u64,
    pub(super) queue: usize,
    pub(super) queue_offset: i64,
    pub(super) body: Vec<u8>,
    pub(super) properties: Vec<u8>,
    /// Keys that the index must have; with `T` the tag.
    pub(super) keys: Vec<(String, bool)>,
    /// Known once the put has returned.
    pub(super) place: Option<(PhysicalOffset, StoreTimestamp)>,
    pub(super) end: PhysicalOffset,
}

/// The expectation. Cheap to clone, since every crash point keeps one.
#[derive(Clone, Debug)]
pub(super) struct Model {
    /// All messages of this life of the log in their order; the last ones may still be on their way.
    pub(super) log: Vec<Arc<Put>>,
    /// So many of them must survive anything.
    pub(super) durable: usize,
    /// So many of them were acknowledged, and must survive the end of the process.
    pub(super) acknowledged: usize,
    /// Where the next message of each queue goes.
    pub(super) next: Vec<i64>,
    /// How far consumers have seen each queue, where they may not be disappointed.
    pub(super) seen: Vec<i64>,
    /// The log begins between these.
    pub(super) low: PhysicalOffset,
    pub(super) high: PhysicalOffset,
    next_id: u64,
}

impl Model {
    pub(super) fn new(queues: usize) -> Self {
        Self {
            log: Vec::new(),
            durable: 0,
            acknowledged: 0,
            next: vec![0; queues],
            seen: vec![0; queues],
            low: PhysicalOffset::ZERO,
            high: PhysicalOffset::ZERO,
            next_id: 1,
        }
    }

    pub(super) fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// A message is on its way; it gets the next number of its queue.
    pub(super) fn begin(&mut self, mut put: Put) {
        if let Some(next) = self.next.get_mut(put.queue) {
            put.queue_offset = *next;
            *next += 1;
        }
        self.log.push(Arc::new(put));
    }

    /// The last `count` messages were refused.
    pub(super) fn refuse(&mut self, count: usize) {
        let keep = self.log.len().saturating_sub(count);
        for put in self.log.drain(keep..) {
            if let Some(next) = self.next.get_mut(put.queue) {
                *next -= 1;
            }
        }
    }

    /// Message `number` stands in the log.
    pub(super) fn place(&mut self, number: usize, at: PhysicalOffset, size: usize, time: StoreTimestamp) {
        if let Some(put) = self.log.get_mut(number) {
            let put = Arc::make_mut(put);
            put.place = Some((at, time));
            put.end = at.plus(size);
        }
    }

    /// Everything up to `end` is on the disk.
    pub(super) fn durable_to(&mut self, end: PhysicalOffset) {
        let count = self.log.iter().take_while(|put| put.place.is_some() && put.end <= end).count();
        self.durable = self.durable.max(count);
    }

    /// A crash left the first `count` messages, which recovery has synced.
    pub(super) fn cut(&mut self, count: usize) {
        self.refuse(self.log.len().saturating_sub(count));
        self.durable = self.log.len();
        self.acknowledged = self.log.len();
        for (seen, next) in self.seen.iter_mut().zip(&self.next) {
            *seen = (*seen).min(*next);
        }
    }

    /// How many of the first `count` messages went to `queue`.
    pub(super) fn count_in(&self, queue: usize, count: usize) -> i64 {
        self.log.iter().take(count).filter(|put| put.queue == queue).count().try_into().unwrap_or(i64::MAX)
    }
}
