//! Makes the queues what the log says.
//!
//! Records come in the order of the log. The entry of each is compared with what its queue holds in that slot:
//! nothing is done when they agree, which is nearly always; else it is appended or rewritten. An entry never goes to
//! another slot than its record's own, so a lost record leaves a slot that leads nowhere and shifts nothing.
//!
//! The number in a record is not covered by the body checksum. One that neither continues its queue nor is explained
//! by damage is held back until the queue's next record: if that goes on from it the numbering did jump, or began
//! again as it does when a topic is made anew; if not, the number is damaged and the record is left out.

use std::sync::Arc;

use super::{
    DamagedRange,
    placing::{Leads, Placing, Seen, leads_to},
    report::QueueRepairs,
};
use crate::{
    consume_queue::{Dispatch, Queue, QueueKind, QueueTable},
    dispatch::{Projected, QueuePlaces, TopicPlace},
    error::{Corruption, Result},
    format::{hash::IndexKeys, message::Header},
    types::{PhysicalOffset, QueueId, QueueOffset, StoreTimestamp},
};

/// Comparisons that may be spent on whose entry leads to a record: a queue that is built anew asks for each of its own.
const WITNESSES: usize = 1 << 20;
/// Queue offsets beyond this are damage.
const LAST_OFFSET: i64 = i64::MAX / 1024;

/// The queues during the pass over the log.
#[derive(Debug)]
pub(super) struct QueueRepair<'t> {
    table: &'t QueueTable,
    /// Where each queue stands in `seen`.
    places: QueuePlaces,
    seen: Vec<Seen>,
    /// The first record of the log.
    first: PhysicalOffset,
    /// Where the pass began: entries of earlier records are not looked at.
    from: PhysicalOffset,
    segment_size: usize,
    /// The latest store time so far.
    newest: StoreTimestamp,
    /// Bytes of the log so far whose records are in no queue.
    lost: u64,
    done: QueueRepairs,
    /// A queue was emptied when records of it had already passed.
    again: bool,
    /// What is left of [`WITNESSES`].
    witnesses: usize,
}

impl<'t> QueueRepair<'t> {
    pub(super) fn new(
        table: &'t QueueTable,
        first: PhysicalOffset,
        from: PhysicalOffset,
        segment_size: usize,
    ) -> Self {
        Self {
            table,
            places: QueuePlaces::default(),
            seen: Vec::new(),
            first,
            from,
            segment_size,
            newest: StoreTimestamp::ZERO,
            lost: 0,
            done: QueueRepairs::default(),
            again: false,
            witnesses: WITNESSES,
        }
    }

    /// Whether a record that is whole and in its place was nevertheless cut by an earlier recovery that left its
    /// bytes there, as RocketMQ's does: its number was given out again, to a record stored later.
    ///
    /// The same of one that follows the record before, which is newer, and skips numbers of its queue though nothing is
    /// lost in between: `follows` says that it does.
    pub(super) fn stale(&self, header: &Header<'_>, follows: bool) -> Option<Corruption> {
        if header.store_timestamp >= self.newest || header.queue_offset <= QueueOffset::ZERO {
            return None;
        }
        let seen = self.seen.get(self.number_of(header.topic, header.queue_id)?)?;
        let next = seen.next?;
        let skips = follows
            && header.queue_offset > next
            && seen.held.is_none()
            && seen.lost == self.lost
            && seen.queue.kind() == QueueKind::Simple;
        (header.queue_offset < next || skips).then_some(Corruption::OutOfRange {
            what: "queue offset of a record from before",
            value: header.queue_offset.0,
            min: next.0,
            max: if skips { next.0 } else { LAST_OFFSET },
        })
    }

    /// Takes note of an accepted record, whatever became of it here.
    pub(super) fn seen(&mut self, header: &Header<'_>) {
        self.newest = self.newest.max(header.store_timestamp);
    }

    /// Whether the queue that a record names is not its own, which no checksum need show: another queue, that comes to
    /// this very number next, has the entry of this record in that slot, and the queue that is named has not.
    #[cold]
    fn is_anothers(&mut self, named: usize, entry: &Dispatch<'_>) -> Result<bool> {
        if self.witnesses < self.seen.len() {
            return Ok(false);
        }
        self.witnesses -= self.seen.len();
        let at = entry.queue_offset;
        for (number, seen) in self.seen.iter_mut().enumerate() {
            let is_next = number != named && seen.next == Some(at) && seen.queue.kind() == QueueKind::Simple;
            if is_next && seen.unit(at)?.is_some_and(|unit| leads_to(unit, entry)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Takes note of bytes that hold no records.
    pub(super) fn lost(&mut self, range: DamagedRange) {
        self.lost += if range.is_unwritten() {
            // The end of a segment may never have been written, a whole one was: others are behind it.
            let segment = self.segment_size as u64;
            let [from, to] = [range.from, range.to].map(|at| at.since(PhysicalOffset::ZERO));
            (to / segment * segment).saturating_sub(from.next_multiple_of(segment))
        } else {
            range.to.since(range.from)
        };
    }

    /// Sees to the entries of one record. Says whether it belongs to the queue that it names: if not, nothing is done.
    pub(super) fn take(&mut self, made: &Projected<'_>, damage: &[DamagedRange]) -> Result<bool> {
        if made.is_queued() {
            let doubtful = made.disagreeing();
            let mut placed = true;
            let entry = |queue: &Queue| {
                let entry = made.entry_in(queue)?;
                placed = entry.is_some();
                Ok(entry)
            };
            if !self.one(made.topic, made.queue_id, made.kind(), damage, doubtful, entry)? {
                return Ok(false);
            }
            if !placed {
                // An inner batch that does not say of how many messages.
                self.done.unplaced += 1;
                self.lost += u64::try_from(made.size()).unwrap_or(0);
            }
        }
        for (topic, id, entry) in made.further() {
            self.one(topic, id, QueueKind::Simple, damage, None, |_| Ok(Some(entry)))?;
        }
        Ok(true)
    }

    fn one(
        &mut self,
        topic: &str,
        id: QueueId,
        kind: QueueKind,
        damage: &[DamagedRange],
        doubtful: Option<[QueueOffset; 2]>,
        entry: impl FnOnce(&Queue) -> Result<Option<Dispatch<'static>>>,
    ) -> Result<bool> {
        // No queue can have a name that is no topic, or a negative number.
        let Ok(place) = self.places.topic(topic) else {
            self.done.unplaced += 1;
            return Ok(true);
        };
        let found = self.places.find(place, id).map(|number| number as usize);
        let Some(number) = found.or_else(|| self.meet(place, id, kind)) else {
            self.done.unplaced += 1;
            return Ok(true);
        };
        let Some(seen) = self.seen.get_mut(number) else { return Ok(true) };
        let Some(mut entry) = entry(&seen.queue)? else { return Ok(true) };
        if let Some(numbers) = doubtful.filter(|_| seen.queue.kind() == QueueKind::Batch) {
            // The one that continues the queue is right, or that of the entry that was made when both were.
            let right = match seen.next {
                Some(next) => numbers.into_iter().find(|number| *number == next),
                None => numbered(&seen.queue, &entry, numbers)?,
            };
            let Some(right) = right else {
                self.done.unplaced += 1;
                self.lost += u64::try_from(entry.size).unwrap_or(0);
                return Ok(true);
            };
            entry.queue_offset = right;
        }
        if !(0..=LAST_OFFSET).contains(&entry.queue_offset.0) {
            self.done.unplaced += 1;
            self.lost += u64::try_from(entry.size).unwrap_or(0);
            return Ok(true);
        }
        if seen.queue.kind() == QueueKind::Simple
            && !seen.unit(entry.queue_offset)?.is_some_and(|unit| leads_to(unit, &entry))
            && self.is_anothers(number, &entry)?
        {
            return Ok(false);
        }
        let Some(seen) = self.seen.get_mut(number) else { return Ok(true) };
        let mut pass = Placing {
            seen,
            damage,
            first: self.first,
            from: self.from,
            segment_size: self.segment_size,
            lost: &mut self.lost,
            done: &mut self.done,
            again: &mut self.again,
        };
        pass.place(entry)?;
        Ok(true)
    }

    fn number_of(&self, topic: &str, id: QueueId) -> Option<usize> {
        self.places.find_by_name(topic, id).map(|number| number as usize)
    }

    /// The beginnings of a topic's index keys.
    #[inline]
    pub(super) fn hashes(&mut self, topic: &str) -> IndexKeys {
        self.places.topic(topic).map_or_else(|_| IndexKeys::of(topic), |place| self.places.hashes(place))
    }

    /// Makes room for a queue's state; `None` when no queue can have that number.
    #[cold]
    fn meet(&mut self, topic: TopicPlace, id: QueueId, kind: QueueKind) -> Option<usize> {
        let number = self.seen.len();
        let place = u32::try_from(number).ok().filter(|place| id.0 >= 0 && *place < u32::MAX)?;
        let queue = self.table.get_or_create(self.places.name(topic), id, kind);
        self.seen.push(Seen::new(queue));
        self.places.set(topic, id, place);
        Some(number)
    }

    /// Decides on what was held back, and drops the entries behind the last record of each queue. `leads` says
    /// whether an entry of a queue leads to a record of the log. Says what was done, and whether another pass is needed.
    pub(super) fn finish(
        mut self,
        damage: &[DamagedRange],
        leads: Leads<'_>,
    ) -> Result<(QueueRepairs, bool)> {
        for queue in self.table.queues() {
            let key = queue.key();
            let number = self.number_of(&key.topic, key.id);
            let mut fresh = Seen::new(Arc::clone(&queue));
            let seen = number.and_then(|number| self.seen.get_mut(number)).unwrap_or(&mut fresh);
            let mut pass = Placing {
                seen,
                damage,
                first: self.first,
                from: self.from,
                segment_size: self.segment_size,
                lost: &mut self.lost,
                done: &mut self.done,
                again: &mut self.again,
            };
            pass.finish(leads)?;
        }
        Ok((self.done, self.again))
    }
}

/// Which of two numbers a batch queue already knows the record by.
fn numbered(queue: &Queue, entry: &Dispatch<'_>, numbers: [QueueOffset; 2]) -> Result<Option<QueueOffset>> {
    for number in numbers {
        let known =
            queue.get(number)?.filter(|unit| unit.queue_offset == number && unit.offset == entry.offset);
        if known.is_some() {
            return Ok(Some(number));
        }
    }
    Ok(None)
}
