//! The queues that users of the store have named, by handle and by name.
//!
//! Handles are never reused, so a put finds its queue without a lock: entries live in buckets of doubling size
//! that are filled once and never move. Called by the put and get paths of the store.

use std::{
    collections::HashMap,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::RwLock;

use crate::{
    consume_queue::{self, QueueKind},
    message::Queue,
    types::{QueueId, QueueOffset, TopicName},
};

/// Entries of the first bucket; each next one holds twice as many.
const FIRST: usize = 32;
const BUCKETS: usize = 24;

/// One queue as the put path needs it.
#[derive(Debug)]
pub(super) struct Registered {
    pub(super) topic: TopicName,
    pub(super) id: QueueId,
    /// How the queue counts; kept here too, so that a put need not look at the queue.
    pub(super) kind: QueueKind,
    pub(super) queue: Arc<consume_queue::Queue>,
    /// The offset of the first message that is put through this handle.
    pub(super) first: QueueOffset,
    deleted: AtomicBool,
}

impl Registered {
    pub(super) fn is_deleted(&self) -> bool {
        self.deleted.load(Ordering::Relaxed)
    }
}

/// An entry in a cache line of its own: with thousands of queues nearly every put meets a cold one.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Slot(OnceLock<Registered>);

type Bucket = Box<[Slot]>;

#[derive(Debug, Default)]
struct Names {
    by_topic: HashMap<TopicName, HashMap<QueueId, Queue>>,
    count: u32,
}

/// Grows only; see the module's text.
#[derive(Debug, Default)]
pub(super) struct Registry {
    buckets: [OnceLock<Bucket>; BUCKETS],
    names: RwLock<Names>,
}

fn place(queue: Queue) -> (usize, usize) {
    let n = queue.0 as usize + FIRST;
    let bucket = (n.ilog2() - FIRST.ilog2()) as usize;
    (bucket, n - (FIRST << bucket))
}

impl Registry {
    /// The queue of a handle; `None` for a handle of another store.
    pub(super) fn get(&self, queue: Queue) -> Option<&Registered> {
        let (bucket, at) = place(queue);
        self.buckets.get(bucket)?.get()?.get(at)?.0.get()
    }

    /// The handle of a queue that was registered before.
    pub(super) fn find(&self, topic: &str, id: QueueId) -> Option<Queue> {
        self.names.read().by_topic.get(topic)?.get(&id).copied()
    }

    /// Registers a queue, or gives the handle that another thread just made. `None` when 2^28 handles are in use.
    pub(super) fn register(
        &self,
        topic: &TopicName,
        id: QueueId,
        queue: Arc<consume_queue::Queue>,
    ) -> Option<Queue> {
        let mut names = self.names.write();
        if let Some(found) = names.by_topic.get(topic).and_then(|ids| ids.get(&id)) {
            return Some(*found);
        }
        let handle = Queue(names.count);
        let (bucket, at) = place(handle);
        let slots =
            self.buckets.get(bucket)?.get_or_init(|| (0..FIRST << bucket).map(|_| Slot::default()).collect());
        let first = queue.max_offset();
        let (topic_name, kind, deleted) = (topic.clone(), queue.kind(), AtomicBool::new(false));
        let entry = Registered { topic: topic_name, id, kind, queue, first, deleted };
        slots.get(at)?.0.set(entry).ok()?;
        names.count += 1;
        names.by_topic.entry(topic.clone()).or_default().insert(id, handle);
        Some(handle)
    }

    /// Forgets a topic: its handles answer as deleted, its names are free again.
    pub(super) fn forget(&self, topic: &str) {
        let gone = self.names.write().by_topic.remove(topic).unwrap_or_default();
        for handle in gone.into_values() {
            if let Some(entry) = self.get(handle) {
                entry.deleted.store(true, Ordering::Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_fits_into_one_cache_line() {
        assert_eq!((size_of::<Slot>(), align_of::<Slot>()), (64, 64));
    }

    #[test]
    fn handles_fill_buckets_of_doubling_size_without_gaps() {
        let mut want = (0, 0);
        for n in 0..100_000 {
            assert_eq!(place(Queue(n)), want);
            want = if want.1 + 1 == FIRST << want.0 { (want.0 + 1, 0) } else { (want.0, want.1 + 1) };
        }
    }
}
