//! The queues that the dispatcher has met, found by topic and number, and the entries that wait for them during a step.
//!
//! Entries of a step stand one behind the other in one buffer; those of one queue are chained through it, so that each
//! queue takes all of its own under one lock. Owned by the dispatcher; emptied when a topic is deleted.

use std::sync::Arc;

use crate::{
    consume_queue::{Dispatch, Queue, QueueKind, QueueTable},
    dispatch::{QueuePlaces, TopicPlace},
    error::Result,
    format::hash::IndexKeys,
    segment::prefetch,
    types::QueueId,
};

/// No entry.
const NONE: u32 = u32::MAX;
/// Queues between one that takes its entries and the one that is fetched meanwhile.
const AHEAD: usize = 6;

/// One queue, and the first and last of its entries that wait.
#[derive(Debug)]
struct Known {
    queue: Arc<Queue>,
    /// Kept here too: the queue itself is not looked at before it takes its entries.
    kind: QueueKind,
    first: u32,
    last: u32,
    /// Where the queue's next entry will stand in memory, most likely.
    end: usize,
}

/// An entry, and the next one of the same queue.
#[derive(Debug)]
struct Waiting {
    entry: Dispatch<'static>,
    bitmap: Option<Vec<u8>>,
    queue: u32,
    next: u32,
}

/// A queue that was met.
#[derive(Clone, Copy, Debug)]
pub(super) struct QueuePlace(u32);

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct KnownQueues {
    places: QueuePlaces,
    queues: Vec<Known>,
    waiting: Vec<Waiting>,
    /// Queues with entries that wait, in the order of their first ones.
    touched: Vec<u32>,
}

impl KnownQueues {
    /// Forgets every queue. Nothing may wait.
    pub(super) fn clear(&mut self) {
        debug_assert!(self.waiting.is_empty(), "entries wait for the queues");
        *self = Self::default();
    }

    /// Brings closer what finding these topics will look at.
    #[inline]
    pub(super) fn expect<'n>(&self, topics: impl Iterator<Item = &'n str>) {
        self.places.expect(topics);
    }

    /// The topic of this name.
    #[inline]
    pub(super) fn topic(&mut self, name: &str) -> Result<TopicPlace> {
        self.places.topic(name)
    }

    /// The beginnings of the topic's index keys.
    #[inline]
    pub(super) fn hashes(&self, topic: TopicPlace) -> IndexKeys {
        self.places.hashes(topic)
    }

    /// A queue of a topic, made in `table` when it is new.
    #[inline]
    pub(super) fn queue(
        &mut self,
        table: &QueueTable,
        topic: TopicPlace,
        id: QueueId,
        kind: QueueKind,
    ) -> QueuePlace {
        match self.places.find(topic, id) {
            Some(place) => QueuePlace(place),
            None => self.meet(table, topic, id, kind),
        }
    }

    #[cold]
    fn meet(&mut self, table: &QueueTable, topic: TopicPlace, id: QueueId, kind: QueueKind) -> QueuePlace {
        let queue = table.get_or_create(self.places.name(topic), id, kind);
        let place = u32::try_from(self.queues.len()).unwrap_or(NONE - 1);
        let kind = queue.kind();
        self.queues.push(Known { queue, kind, first: NONE, last: NONE, end: 0 });
        self.places.set(topic, id, place);
        QueuePlace(place)
    }

    /// How a queue counts.
    #[inline]
    pub(super) fn kind(&self, queue: QueuePlace) -> QueueKind {
        self.queues[queue.0 as usize].kind
    }

    /// Lets an entry wait for its queue.
    #[inline]
    pub(super) fn push(&mut self, queue: QueuePlace, entry: Dispatch<'static>, bitmap: Option<Vec<u8>>) {
        let place = u32::try_from(self.waiting.len()).unwrap_or(NONE - 1);
        let known = &mut self.queues[queue.0 as usize];
        if known.last == NONE {
            known.first = place;
            known.queue.prefetch();
            self.touched.push(queue.0);
        } else {
            self.waiting[known.last as usize].next = place;
        }
        known.last = place;
        self.waiting.push(Waiting { entry, bitmap, queue: queue.0, next: NONE });
    }

    /// Hands each queue its entries, in order. They wait on, for [`KnownQueues::drain`].
    pub(super) fn hand_over(&mut self, mut take: impl FnMut(&Queue, Entries<'_>)) {
        for (n, place) in self.touched.iter().enumerate() {
            if let Some(next) = self.touched.get(n + AHEAD) {
                let next = &self.queues[*next as usize];
                next.queue.prefetch();
                prefetch(next.end);
            }
            let known = &mut self.queues[*place as usize];
            take(&known.queue, Entries { waiting: &self.waiting, next: known.first });
            (known.first, known.last, known.end) = (NONE, NONE, known.queue.next_address());
        }
        self.touched.clear();
    }

    /// Forgets the entries, whose queues have them, and gives `each` of them in the order in which they came.
    pub(super) fn drain(&mut self, mut each: impl FnMut(&Queue, Dispatch<'_>)) {
        for Waiting { entry, bitmap, queue, .. } in self.waiting.drain(..) {
            each(&self.queues[queue as usize].queue, Dispatch { bitmap: bitmap.as_deref(), ..entry });
        }
    }

    /// Forgets the entries, whose queues have them.
    pub(super) fn forget(&mut self) {
        self.waiting.clear();
    }
}

/// The entries of one queue.
#[derive(Clone, Debug)]
pub(super) struct Entries<'w> {
    waiting: &'w [Waiting],
    next: u32,
}

impl<'w> Iterator for Entries<'w> {
    type Item = Dispatch<'w>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let waiting = self.waiting.get(self.next as usize)?;
        self.next = waiting.next;
        Some(Dispatch { bitmap: waiting.bitmap.as_deref(), ..waiting.entry })
    }
}
