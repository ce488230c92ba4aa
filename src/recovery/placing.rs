//! One queue while the entry of a record is put into its place.
//!
//! Knows what the pass has seen of the queue so far, and decides what becomes of a number that does not continue it, of
//! the numbers of lost records, and of the entries behind the last record.

use std::sync::Arc;

use super::{
    DamagedRange,
    report::{QueueRepairs, damage_at},
};
use crate::{
    consume_queue::{Appended, CqUnit, Dispatch, Queue, QueueKind},
    error::Result,
    format::{
        consume_queue::{Entry, ext_position},
        message::MIN_RECORD,
    },
    types::{PhysicalOffset, QueueOffset, StoreTimestamp, TagsCode},
};

/// Lost records that are believed in without bytes of the log to show for them, and how many files their entries may
/// take.
const JUMP: u64 = 1 << 20;
const JUMP_FILES: u64 = 64;
/// Entries of a queue that are read ahead: little enough for many queues, enough to take its lock seldom.
const WINDOW: usize = 32;

/// Tells whether an entry of a queue leads to a record of the log.
pub(super) type Leads<'l> = &'l dyn Fn(&Queue, &CqUnit) -> Result<bool>;

/// What the pass knows of one queue.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) queue: Arc<Queue>,
    /// The number that its next record should have; `None` before the first.
    pub(super) next: Option<QueueOffset>,
    /// When its last record was stored.
    time: StoreTimestamp,
    /// Bytes that were lost anywhere in the log before its last record.
    pub(super) lost: u64,
    /// A record whose number does not fit.
    pub(super) held: Option<Dispatch<'static>>,
    /// Entries of a simple queue read ahead; empty after every change of the queue.
    window: Vec<CqUnit>,
}

impl Seen {
    pub(super) const fn new(queue: Arc<Queue>) -> Self {
        Self { queue, next: None, time: StoreTimestamp::ZERO, lost: 0, held: None, window: Vec::new() }
    }

    /// What the queue holds at `at`.
    pub(super) fn unit(&mut self, at: QueueOffset) -> Result<Option<&CqUnit>> {
        let place = |window: &[CqUnit]| {
            let first = window.first()?.queue_offset;
            usize::try_from(at.0.checked_sub(first.0)?).ok().filter(|place| *place < window.len())
        };
        if let Some(place) = place(&self.window) {
            return Ok(self.window.get(place));
        }
        self.window.clear();
        self.queue.read(at, WINDOW, &mut self.window)?;
        Ok(self.window.first())
    }
}

/// One queue while an entry is put into its place.
pub(super) struct Placing<'p> {
    pub(super) seen: &'p mut Seen,
    pub(super) damage: &'p [DamagedRange],
    pub(super) first: PhysicalOffset,
    pub(super) from: PhysicalOffset,
    pub(super) segment_size: usize,
    pub(super) lost: &'p mut u64,
    pub(super) done: &'p mut QueueRepairs,
    pub(super) again: &'p mut bool,
}

impl Placing<'_> {
    pub(super) fn place(&mut self, entry: Dispatch<'static>) -> Result<()> {
        if let Some(held) = self.seen.held.take() {
            if entry.queue_offset == after(&held) {
                self.force(&held)?;
            } else {
                self.leave_out(&held);
            }
        }
        let at = entry.queue_offset;
        match self.seen.next {
            None => self.first(&entry),
            Some(next) if at == next => self.put(&entry),
            Some(next) if at > next && self.explained(next, at) => {
                self.fill(next, &entry)?;
                self.put(&entry)
            }
            // A topic that was deleted and made anew counts from 0 again.
            Some(_) if at == QueueOffset::ZERO => self.force(&entry),
            Some(_) => {
                self.seen.held = Some(entry);
                Ok(())
            }
        }
    }

    /// Whether damage since the queue's last record is large enough for the records between `next` and `at`.
    fn explained(&self, next: QueueOffset, at: QueueOffset) -> bool {
        self.entries(next, at) <= (*self.lost - self.seen.lost) / MIN_RECORD as u64
    }

    fn longest_jump(&self) -> u64 {
        JUMP.min(JUMP_FILES * self.seen.queue.entries_a_file())
    }

    /// How many entries the numbers from `next` up to `at` take at least.
    fn entries(&self, next: QueueOffset, at: QueueOffset) -> u64 {
        let numbers = u64::try_from(at.0 - next.0).unwrap_or(0);
        match self.seen.queue.kind() {
            QueueKind::Simple => numbers,
            QueueKind::Batch => numbers.div_ceil(i16::MAX as u64),
        }
    }

    /// The first record of a queue: what the queue holds before it belongs to records that are gone.
    fn first(&mut self, entry: &Dispatch<'static>) -> Result<()> {
        let queue = Arc::clone(self.changing());
        let max = queue.max_offset();
        let usable = match queue.kind() {
            QueueKind::Simple if max < entry.queue_offset => false,
            QueueKind::Simple => max == entry.queue_offset || queue.get(entry.queue_offset)?.is_some(),
            QueueKind::Batch => rises(&queue, self.segment_size)?,
        };
        if !usable && max > QueueOffset::ZERO {
            self.drop_from(queue.min_offset())?;
            queue.clear()?;
        }
        if queue.kind() == QueueKind::Simple {
            // None of those before may lead to a record of the log.
            let mut at = entry.queue_offset.plus(-1);
            while let Some(unit) = queue.get(at)?.filter(|unit| self.misleads(unit)) {
                self.done.rewritten += 1;
                let before_first = Dispatch { queue_offset: unit.queue_offset, ..BEFORE_FIRST };
                queue.rewrite(&before_first)?;
                at = at.plus(-1);
            }
        }
        self.put(entry)
    }

    /// Whether an entry before a queue's first record claims one of this log.
    fn misleads(&self, unit: &CqUnit) -> bool {
        let filler = unit.offset == BEFORE_FIRST.offset && unit.size == BEFORE_FIRST.size;
        !filler && unit.offset >= self.from && damage_at(self.damage, unit.offset).is_none()
    }

    /// Believes in a number that does not continue the queue.
    fn force(&mut self, entry: &Dispatch<'static>) -> Result<()> {
        let next = self.seen.next.unwrap_or(entry.queue_offset);
        if entry.queue_offset < next {
            self.displace(entry.queue_offset, next)?;
            self.drop_from(entry.queue_offset)?;
            if let Some(last) = self.reaching(entry.queue_offset)? {
                self.recount(&last, entry.queue_offset)?;
            }
        } else if self.entries(next, entry.queue_offset) > self.longest_jump() {
            // Too many slots to fill for what is lost: the queue starts midway, as after retention.
            self.displace(self.seen.queue.min_offset(), next)?;
            self.drop_from(self.seen.queue.min_offset())?;
            self.changing().clear()?;
        } else if *self.lost > self.seen.lost || !self.stretch(next, entry.queue_offset)? {
            self.fill(next, entry)?;
        }
        self.put(entry)
    }

    /// The entry of a batch queue that begins before `at` and ends behind it.
    fn reaching(&self, at: QueueOffset) -> Result<Option<CqUnit>> {
        let batch = self.seen.queue.kind() == QueueKind::Batch;
        let before = if batch { self.seen.queue.before(at)? } else { None };
        Ok(before.filter(|unit| unit.next() > at))
    }

    /// Makes the last entry of a batch queue, which ends at `next`, end at `to`: nothing is lost in between. Says whether
    /// it can.
    fn stretch(&mut self, next: QueueOffset, to: QueueOffset) -> Result<bool> {
        if self.seen.queue.kind() != QueueKind::Batch {
            return Ok(false);
        }
        let Some(last) = self.seen.queue.before(next)?.filter(|last| last.next() == next) else {
            return Ok(false);
        };
        if self.seen.queue.max_offset() > next {
            self.drop_from(next)?;
        }
        self.recount(&last, to)
    }

    /// Gives an entry the count that ends at `to`, where the record behind it begins: no checksum covers the count that
    /// its own record states. Says whether it can.
    fn recount(&mut self, last: &CqUnit, to: QueueOffset) -> Result<bool> {
        let Ok(num) = i16::try_from(to.0 - last.queue_offset.0) else { return Ok(false) };
        self.done.rewritten += 1;
        self.changing().recount(last.queue_offset, num)?;
        Ok(true)
    }

    /// Counts the records whose entries from `from` up to `to` make room for others: no queue has them any more.
    fn displace(&mut self, from: QueueOffset, to: QueueOffset) -> Result<()> {
        let mut at = to;
        while let Some(unit) = self.seen.queue.before(at)?.filter(|unit| unit.queue_offset >= from) {
            at = unit.queue_offset;
            self.done.unplaced += u64::from(unit.offset >= self.first && !self.is_gone(&unit));
        }
        Ok(())
    }

    /// Gives the record up: no slot is known to be its own.
    fn leave_out(&mut self, entry: &Dispatch<'static>) {
        self.done.unplaced += 1;
        *self.lost += u64::try_from(entry.size).unwrap_or(0);
    }

    /// Puts an entry into its slot, which is the queue's next.
    fn put(&mut self, entry: &Dispatch<'static>) -> Result<()> {
        let (kind, at) = (self.seen.queue.kind(), entry.queue_offset);
        if at < self.seen.queue.max_offset() {
            let agrees = match kind {
                QueueKind::Simple => self.seen.unit(at)?.is_some_and(|unit| says(unit, entry)),
                QueueKind::Batch => self.seen.queue.get(at)?.is_some_and(|unit| says(&unit, entry)),
            };
            if !agrees {
                match kind {
                    QueueKind::Simple => {
                        self.done.rewritten += 1;
                        self.changing().rewrite(entry)?;
                    }
                    QueueKind::Batch => {
                        self.drop_from(entry.queue_offset)?;
                        self.append(entry)?;
                    }
                }
            }
        } else {
            self.append(entry)?;
        }
        self.seen.next = Some(after(entry));
        self.seen.time = entry.store_timestamp;
        self.seen.lost = *self.lost;
        Ok(())
    }

    /// The queue, of which something will change.
    fn changing(&mut self) -> &Arc<Queue> {
        self.seen.window.clear();
        &self.seen.queue
    }

    fn append(&mut self, entry: &Dispatch<'static>) -> Result<()> {
        let queue = Arc::clone(self.changing());
        self.done.added += 1;
        if queue.append(entry)? == Appended::Done {
            return Ok(());
        }
        // What the queue ends with leads behind this record: nothing that this pass has confirmed does.
        self.done.dropped += 1;
        match self.seen.next {
            Some(next) => {
                queue.truncate_to(next)?;
                if next < entry.queue_offset {
                    self.fill(next, entry)?;
                }
            }
            None => queue.clear()?,
        }
        if queue.append(entry)? != Appended::Done {
            // Not even then: its files contradict themselves. All of it is made anew, by another pass.
            queue.clear()?;
            queue.append(entry)?;
            *self.again = true;
        }
        Ok(())
    }

    /// Takes the numbers from `next` up to that of `entry`, whose records are lost.
    fn fill(&mut self, next: QueueOffset, entry: &Dispatch<'static>) -> Result<()> {
        let queue = Arc::clone(self.changing());
        // Entries rise through a queue; one that leads to the damage keeps it so.
        let before = self.damage.iter().rev().find(|range| range.to <= entry.offset && !range.is_unwritten());
        let behind = queue.before(next)?.map_or(PhysicalOffset::ZERO, |last| last.end());
        let mut offset = before.map_or(entry.offset, |range| range.from.max(behind));
        let mut from = next;
        if queue.kind() == QueueKind::Simple && queue.max_offset() > entry.queue_offset {
            while from < entry.queue_offset {
                if !queue.get(from)?.is_some_and(|unit| self.is_gone(&unit)) {
                    self.done.filled += 1;
                    let size = unreadable(offset, self.segment_size);
                    let tags_code = TagsCode::ZERO;
                    queue.rewrite(&Dispatch { queue_offset: from, offset, size, tags_code, ..*entry })?;
                }
                from = from.plus(1);
            }
            return Ok(());
        }
        if queue.kind() == QueueKind::Batch {
            // Those that lead to the damage stay, and what is put behind them leads no less far.
            while let Some(unit) = queue.get(from)?.filter(|unit| {
                unit.queue_offset == from
                    && unit.next() <= entry.queue_offset
                    && (behind..=entry.offset).contains(&unit.offset)
                    && self.is_gone(unit)
            }) {
                offset = offset.max(next_place(&unit, self.segment_size)).min(entry.offset);
                from = unit.next();
            }
        }
        if from < entry.queue_offset {
            if queue.max_offset() > from {
                self.drop_from(from)?;
            }
            self.done.filled += self.entries(from, entry.queue_offset);
            let size = unreadable(offset, self.segment_size);
            queue.fill(entry.queue_offset, offset, size, entry.store_timestamp)?;
        }
        Ok(())
    }

    /// Whether an entry leads to damage, or nowhere because its record is lost.
    fn is_gone(&self, unit: &CqUnit) -> bool {
        damage_at(self.damage, unit.offset).is_some()
            || unit.size == unreadable(unit.offset, self.segment_size)
    }

    fn drop_from(&mut self, at: QueueOffset) -> Result<()> {
        let max = self.seen.queue.max_offset();
        self.done.dropped += u64::try_from(max.0 - at.0).unwrap_or(0);
        self.changing().truncate_to(at)
    }

    /// What stands behind the last record: entries of lost records stay, so that their numbers are not given out
    /// again; all others go.
    pub(super) fn finish(&mut self, leads: Leads<'_>) -> Result<()> {
        if let Some(held) = self.seen.held.take() {
            let next = self.seen.next.unwrap_or(held.queue_offset);
            let jump = u64::try_from(held.queue_offset.0 - next.0).unwrap_or(0);
            let reached_over = self.reaching(held.queue_offset)?.is_some_and(|last| last.next() == next);
            if (1..=self.longest_jump()).contains(&jump) || reached_over {
                self.force(&held)?;
            } else {
                self.leave_out(&held);
            }
        }
        let queue = Arc::clone(&self.seen.queue);
        let confirmed = self.seen.next.unwrap_or(queue.min_offset());
        let last = if self.seen.next.is_some() { queue.get(confirmed.plus(-1))? } else { None };
        let behind = last.map_or(PhysicalOffset::ZERO, |last| last.end());
        let mut end = queue.max_offset();
        while let Some(unit) = queue.before(end)?.filter(|unit| unit.queue_offset >= confirmed) {
            if self.stays(&unit, behind, leads)? {
                break;
            }
            end = unit.queue_offset;
        }
        if end < queue.max_offset() {
            self.drop_from(end)?;
        }
        self.mask(confirmed, end, behind)
    }

    /// Sees to it that no entry from `confirmed` to `end`, behind the queue's last record, leads to a record of another.
    fn mask(&mut self, confirmed: QueueOffset, end: QueueOffset, behind: PhysicalOffset) -> Result<()> {
        if self.seen.next.is_none() {
            return Ok(());
        }
        let queue = Arc::clone(&self.seen.queue);
        // Entries rise through the queue, and lead to the damage that the next lost record was in.
        let (mut offset, mut at) = (behind, end);
        while let Some(unit) = queue.before(at)?.filter(|unit| unit.queue_offset >= confirmed) {
            at = unit.queue_offset;
            let size = unreadable(offset, self.segment_size);
            if self.is_lost(&unit, behind) {
                offset = unit.offset;
            } else if (unit.offset, unit.size) != (offset, size) {
                self.done.rewritten += 1;
                let batch_num = unit.batch_num;
                let store_timestamp = self.seen.time;
                let lost =
                    Dispatch { queue_offset: at, offset, size, batch_num, store_timestamp, ..BEFORE_FIRST };
                self.changing().rewrite(&lost)?;
            }
        }
        Ok(())
    }

    /// Whether an entry that the pass did not confirm stays nevertheless: one of a record before the log, one of a
    /// queue that today's configuration makes no entries for, or one of a lost record.
    fn stays(&self, unit: &CqUnit, behind: PhysicalOffset, leads: Leads<'_>) -> Result<bool> {
        if self.seen.next.is_some() {
            return Ok(self.is_lost(unit, behind));
        }
        let before_log = unit.offset < self.first && !self.falls(unit)?;
        Ok(before_log || leads(&self.seen.queue, unit)? || self.is_lost(unit, behind))
    }

    /// Whether an entry leads farther back than the two before it: one that was being zeroed when the power went leads to
    /// where nobody put it.
    fn falls(&self, unit: &CqUnit) -> Result<bool> {
        let is_filler = |unit: &CqUnit| unit.size == BEFORE_FIRST.size;
        let (mut at, mut falls) = (unit.queue_offset, false);
        for _ in 0..2 {
            let Some(before) = self.seen.queue.before(at)? else { break };
            if is_filler(unit) || is_filler(&before) || before.offset <= unit.offset {
                return Ok(false);
            }
            falls |= before.offset < self.first;
            at = before.queue_offset;
        }
        Ok(falls)
    }

    /// Whether an entry is that of a lost record, `behind` the queue's last one. An entry that leads beyond its damage
    /// would keep those to come out of the queue.
    fn is_lost(&self, unit: &CqUnit, behind: PhysicalOffset) -> bool {
        unit.offset >= behind
            && damage_at(self.damage, unit.offset).is_some_and(|range| unit.end() <= range.to)
    }
}

/// Whether an entry is of the record that the other one is of, if both are of one log.
pub(super) fn leads_to(unit: &CqUnit, entry: &Dispatch<'_>) -> bool {
    (unit.offset, unit.size) == (entry.offset, entry.size)
}

/// Whether the entries of a batch queue, which are found by their numbers, have numbers and places that rise.
fn rises(queue: &Queue, segment_size: usize) -> Result<bool> {
    let mut units = Vec::new();
    let (mut next, mut end) = (queue.min_offset(), PhysicalOffset::ZERO);
    while next < queue.max_offset() {
        units.clear();
        if queue.read(next, 512, &mut units)? == 0 {
            return Ok(false);
        }
        for unit in &units {
            if unit.queue_offset < next || unit.offset < end {
                return Ok(false);
            }
            (next, end) = (unit.next(), next_place(unit, segment_size));
        }
    }
    Ok(true)
}

/// Where the entry behind this one may lead at the earliest: one of a lost record says where the damage is, and not how long
/// the record was.
fn next_place(unit: &CqUnit, segment_size: usize) -> PhysicalOffset {
    if unit.is_of_lost(segment_size) { unit.offset } else { unit.end() }
}

const fn after(entry: &Dispatch<'_>) -> QueueOffset {
    entry.queue_offset.plus(entry.batch_num as i64)
}

/// Whether an entry of a queue is the one of the record. Its tags code is believed when it can be one: it was
/// computed when the record was written, and no checksum guards the record's tags since. An address in
/// ConsumeQueueExt that leads to no unit, or to that of another message, is no tags code.
fn says(unit: &CqUnit, entry: &Dispatch<'_>) -> bool {
    let tags_known = match &unit.ext {
        Some(ext) => ext.store_timestamp == entry.store_timestamp,
        None => ext_position(unit.tags_code).is_none(),
    };
    unit.queue_offset == entry.queue_offset
        && unit.offset == entry.offset
        && unit.size == entry.size
        && unit.batch_num == entry.batch_num
        && tags_known
}

/// RocketMQ's own entry for what was before the first record.
const BEFORE_FIRST: Dispatch<'static> = Dispatch {
    queue_offset: QueueOffset::ZERO,
    offset: Entry::FILLER.offset,
    size: Entry::FILLER.size,
    tags_code: Entry::FILLER.tags_code,
    store_timestamp: StoreTimestamp::ZERO,
    batch_num: 1,
    bitmap: None,
};

/// The size of an entry that leads to no record: more bytes than a segment has, which RocketMQ's readers and ours
/// take for a message that is gone; small enough that RocketMQ's sum of place and size does not wrap.
fn unreadable(offset: PhysicalOffset, segment_size: usize) -> i32 {
    let segment = i64::try_from(segment_size).unwrap_or(i64::MAX).clamp(1, i64::from(i32::MAX));
    let place = offset.0.rem_euclid(segment);
    i32::try_from((segment + 1).min(i64::from(i32::MAX) - place)).unwrap_or(i32::MAX)
}
