//! One queue: its entries, in files and in memory, behind one lock.
//!
//! The limits are also kept as atomics, so that asking for them takes no lock.

use std::sync::{
    Arc, Weak,
    atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering},
};

use parking_lot::{Mutex, MutexGuard};

use super::{
    Appended, CqUnit, Dispatch, ExtUnit, QueueKey, QueueKind,
    ext::Ext,
    files::{Run, SyncPoint, len},
    unit::{MAX_WIDTH, Unit},
};
use crate::{
    error::{Error, Result},
    format::consume_queue::{ENTRY, Entry, ext_position},
    segment::prefetch_value,
    types::{PhysicalOffset, QueueOffset, StoreTimestamp, TagsCode},
};

/// Bytes of entries that one queue keeps in memory before it writes them out itself.
const QUEUE_WAITS: usize = 16 << 10;
/// Bytes of entries that all queues together may keep in memory; they take up to half as much again.
const TABLE_WAITS: usize = 24 << 20;
/// Entries copied out of a file at once.
const STEP: usize = 32;

/// What the queues of a table share: who has something to write or to sync.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// Bytes in memory over all queues.
    pub bytes: AtomicUsize,
    /// Queues with entries in memory.
    pub unwritten: Mutex<Vec<Weak<Queue>>>,
    /// Queues with entries that are not durable.
    pub unsynced: Mutex<Vec<Weak<Queue>>>,
}

/// One queue of a topic. What an append looks at stands together and first, for with thousands of queues nearly every
/// append meets a cold one.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Queue {
    waiting: Arc<Waiting>,
    max: AtomicI64,
    max_physical: AtomicI64,
    next_address: AtomicUsize,
    kind: QueueKind,
    /// Listed in `waiting.unwritten`.
    unwritten: AtomicBool,
    /// Listed in `waiting.unsynced`.
    unsynced: AtomicBool,
    state: Mutex<State>,
    key: QueueKey,
    me: Weak<Self>,
    min: AtomicI64,
    min_logic: AtomicI64,
}

/// Cache lines of a [`Queue`] that an append looks at.
const HOT_LINES: usize = 3;

/// What appends under one lock came to.
#[derive(Debug, Default)]
struct Added {
    /// Bytes that wait now and are not counted yet.
    bytes: usize,
    any: bool,
    /// The queue had no last entry before.
    first: bool,
}

/// What the lock guards. Entries are numbered from 0 through all files; in a simple queue that is the queue offset.
#[derive(Debug)]
#[repr(C)]
pub(super) struct State {
    pub kind: QueueKind,
    /// Whether new entries get an ext unit.
    pub writes_ext: bool,
    /// The topic was removed: nothing is taken in any more.
    pub removed: bool,
    /// The last entry, unless there is none or it is a filler.
    pub last: Option<Unit>,
    pub ext: Option<Box<Ext>>,
    pub run: Run,
    /// The first entry whose record may still be in the log.
    pub min: u64,
}

impl State {
    pub(super) fn new(kind: QueueKind, run: Run, ext: Option<Ext>, writes_ext: bool) -> Self {
        let ext = ext.map(Box::new);
        let mut state = Self { kind, run, ext, writes_ext, min: 0, last: None, removed: false };
        state.min = state.first();
        state
    }

    pub(super) fn width(&self) -> u64 {
        Unit::width(self.kind) as u64
    }

    /// The number of the first entry.
    pub(super) fn first(&self) -> u64 {
        self.run.first() / self.width()
    }

    /// The number behind the last entry.
    pub(super) fn end(&self) -> u64 {
        self.run.end() / self.width()
    }

    /// Entry `number`, which is there.
    pub(super) fn unit(&self, number: u64) -> Result<Unit> {
        let mut bytes = [0; MAX_WIDTH];
        let bytes = &mut bytes[..Unit::width(self.kind)];
        self.run.read(number * self.width(), bytes)?;
        Ok(Unit::decode(self.kind, number, bytes))
    }

    /// Looks the last entry up after the end moved.
    pub(super) fn find_last(&mut self) -> Result<()> {
        let end = self.end();
        self.last = if end > self.first() { Some(self.unit(end - 1)?) } else { None };
        self.last = self.last.filter(|unit| !unit.is_filler());
        Ok(())
    }

    #[inline]
    pub(super) fn max_offset(&self) -> QueueOffset {
        match (self.kind, self.last) {
            (QueueKind::Batch, Some(last)) => last.next(),
            (QueueKind::Batch, None) => QueueOffset::ZERO,
            (QueueKind::Simple, _) => {
                let end = self.run.end() / ENTRY as u64;
                QueueOffset(i64::try_from(end).unwrap_or(i64::MAX))
            }
        }
    }

    fn min_offset(&self) -> Result<QueueOffset> {
        Ok(match self.kind {
            QueueKind::Simple => QueueOffset(i64::try_from(self.min).unwrap_or(i64::MAX)),
            QueueKind::Batch if self.min < self.end() => self.unit(self.min)?.base,
            QueueKind::Batch => self.max_offset(),
        })
    }

    /// The entry that holds `at`, between the limits; in a batch queue that has lost it, the next one.
    pub(super) fn number_of(&self, at: QueueOffset) -> Result<Option<u64>> {
        let end = self.end();
        if self.kind == QueueKind::Simple {
            return Ok(u64::try_from(at.0).ok().filter(|n| (self.min..end).contains(n)));
        }
        let behind = self.number_behind(at)?;
        let Some(number) = behind.checked_sub(1).filter(|n| *n >= self.min) else { return Ok(None) };
        let is_lost = behind < end && self.unit(number)?.next() <= at;
        Ok(Some(number + u64::from(is_lost)).filter(|_| at < self.max_offset()))
    }

    /// The first entry of a batch queue that begins behind `at`.
    fn number_behind(&self, at: QueueOffset) -> Result<u64> {
        let (mut low, mut high) = (self.min, self.end());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.unit(middle)?.base <= at {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    fn resolve(&self, unit: &Unit) -> Result<CqUnit> {
        let ext = match &self.ext {
            Some(ext) if ext_position(unit.tags_code).is_some() => ext.get(unit.tags_code)?,
            _ => None,
        };
        Ok(CqUnit {
            queue_offset: unit.base,
            offset: unit.offset,
            size: unit.size,
            tags_code: ext.as_ref().map_or(unit.tags_code, |ext| ext.tags_code),
            ext: ext.map(Box::new),
            batch_num: unit.num,
        })
    }

    /// The tags code of a record's entry: the address of its ext unit, put first, where it gets one.
    #[inline]
    fn tags_code(&mut self, record: &Dispatch<'_>) -> TagsCode {
        let tags_code = record.tags_code;
        let Some(ext) = self.ext.as_mut().filter(|_| self.writes_ext) else { return tags_code };
        let unit = ExtUnit {
            tags_code,
            store_timestamp: record.store_timestamp,
            bitmap: record.bitmap.unwrap_or_default().to_vec(),
        };
        ext.put(&unit).unwrap_or(tags_code)
    }

    #[inline]
    fn waits(&self) -> usize {
        self.run.waiting() + self.ext_waits()
    }

    #[inline]
    fn ext_waits(&self) -> usize {
        self.ext.as_ref().map_or(0, |ext| ext.run.waiting())
    }

    fn write_out(&mut self) -> Result<()> {
        if let Some(ext) = &mut self.ext {
            ext.run.write_out()?;
        }
        self.run.write_out()
    }
}

impl Queue {
    pub(super) fn new(key: QueueKey, state: State, waiting: Arc<Waiting>) -> Arc<Self> {
        let max = state.max_offset().0;
        let min =
            if state.kind == QueueKind::Simple { i64::try_from(state.min).unwrap_or(i64::MAX) } else { 0 };
        Arc::new_cyclic(|me| Self {
            key,
            kind: state.kind,
            me: Weak::clone(me),
            waiting,
            min: AtomicI64::new(min),
            max: AtomicI64::new(max),
            min_logic: AtomicI64::new(i64::try_from(state.min * state.width()).unwrap_or(i64::MAX)),
            max_physical: AtomicI64::new(0),
            next_address: AtomicUsize::new(0),
            unwritten: AtomicBool::new(false),
            unsynced: AtomicBool::new(false),
            state: Mutex::new(state),
        })
    }

    /// Brings closer what an append looks at.
    #[inline]
    pub(crate) fn prefetch(&self) {
        prefetch_value(self, HOT_LINES);
    }

    /// The address at which the next entry will wait, unless it moves: for a prefetch.
    #[inline]
    pub(crate) fn next_address(&self) -> usize {
        self.next_address.load(Ordering::Relaxed)
    }

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
        QueueOffset(self.min.load(Ordering::Acquire))
    }

    /// The offset that the next message gets.
    pub(crate) fn max_offset(&self) -> QueueOffset {
        QueueOffset(self.max.load(Ordering::Acquire))
    }

    /// The byte of the first live entry in the queue's logical space, RocketMQ's `minLogicOffset`.
    pub(crate) fn min_logic_offset(&self) -> i64 {
        self.min_logic.load(Ordering::Acquire)
    }

    /// The log offset behind the last entry's record.
    pub(crate) fn max_physical(&self) -> PhysicalOffset {
        PhysicalOffset(self.max_physical.load(Ordering::Acquire))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Makes the limits known after `state` changed.
    pub(super) fn publish(&self, state: &State) -> Result<()> {
        self.min.store(state.min_offset()?.0, Ordering::Release);
        self.min_logic.store(i64::try_from(state.min * state.width()).unwrap_or(i64::MAX), Ordering::Release);
        self.publish_end(state);
        Ok(())
    }

    /// Makes known how a queue stood that was closed, without opening a file.
    pub(super) fn publish_at_rest(&self, min: QueueOffset) {
        self.min.store(min.0, Ordering::Release);
        let state = self.lock();
        self.min_logic.store(i64::try_from(state.min * state.width()).unwrap_or(i64::MAX), Ordering::Release);
        self.publish_end(&state);
    }

    /// Whether any byte of it is in a file or waits for one.
    pub(super) fn is_anywhere(&self) -> bool {
        let state = self.lock();
        let runs = std::iter::once(&state.run).chain(state.ext.as_ref().map(|ext| &ext.run));
        !state.removed && runs.into_iter().any(|run| run.file_count() > 0 || run.waiting() > 0)
    }

    fn publish_end(&self, state: &State) {
        let end = state.last.map_or(PhysicalOffset::ZERO, |last| last.end());
        self.max_physical.store(end.0, Ordering::Release);
        self.max.store(state.max_offset().0, Ordering::Release);
    }

    /// The entry of `at` (in a batch queue: the one that holds it, or the next where that is lost); `None` outside
    /// `min..max`.
    pub(crate) fn get(&self, at: QueueOffset) -> Result<Option<CqUnit>> {
        let state = self.lock();
        match state.number_of(at)? {
            Some(number) => state.resolve(&state.unit(number)?).map(Some),
            None => Ok(None),
        }
    }

    /// How many entries a file holds.
    pub(crate) fn entries_a_file(&self) -> u64 {
        let state = self.lock();
        state.run.file_end(0) / state.width()
    }

    /// The last entry that begins before `at`.
    pub(crate) fn before(&self, at: QueueOffset) -> Result<Option<CqUnit>> {
        let state = self.lock();
        let number = match state.kind {
            QueueKind::Simple => state.number_of(at.plus(-1))?,
            QueueKind::Batch => {
                state.number_behind(at.plus(-1))?.checked_sub(1).filter(|number| *number >= state.min)
            }
        };
        number.map(|number| state.resolve(&state.unit(number)?)).transpose()
    }

    /// Appends up to `max_entries` entries from `from` on to `out` and says how many. Stops at the end of a file, as
    /// one pull of RocketMQ does; 0 means that `from` is outside `min..max`.
    pub(crate) fn read(&self, from: QueueOffset, max_entries: usize, out: &mut Vec<CqUnit>) -> Result<usize> {
        let state = self.lock();
        let Some(first) = state.number_of(from)? else { return Ok(0) };
        let width = state.width();
        let file_end = state.run.file_end(first * width) / width;
        let end = file_end.min(state.end()).min(first.saturating_add(max_entries as u64));
        let mut bytes = [0; STEP * MAX_WIDTH];
        let mut number = first;
        while number < end {
            let count = len(end - number).min(STEP);
            let bytes = &mut bytes[..count * len(width)];
            state.run.read(number * width, bytes)?;
            for (unit, number) in bytes.chunks_exact(len(width)).zip(number..) {
                out.push(state.resolve(&Unit::decode(state.kind, number, unit))?);
            }
            number += count as u64;
        }
        Ok(len(end - first))
    }

    /// [`Queue::read`] as bytes, for a queue whose entries are no more than their bytes; `None` for one with ext units or
    /// inner batches. Reads as many as `out` has room for at most.
    pub(crate) fn read_plain(&self, from: QueueOffset, out: &mut [[u8; ENTRY]]) -> Result<Option<usize>> {
        let state = self.lock();
        if state.kind == QueueKind::Batch || state.ext.is_some() {
            return Ok(None);
        }
        let Some(first) = state.number_of(from)? else { return Ok(Some(0)) };
        let width = ENTRY as u64;
        let end = (state.run.file_end(first * width) / width).min(state.end());
        let count = len(end - first).min(out.len());
        state.run.read(first * width, out[..count].as_flattened_mut())?;
        Ok(Some(count))
    }

    /// Takes in a record. An entry never lands at another number than its own. A queue whose topic was removed answers
    /// that it has everything.
    pub(crate) fn append(&self, record: &Dispatch<'_>) -> Result<Appended> {
        let mut state = self.lock();
        let mut added = Added::default();
        let outcome = self.take(&mut state, record, &mut added);
        self.settle(state, added)?;
        outcome
    }

    /// Takes in records as they are put, in their order and without a gap, under one lock. Says how many of them the
    /// queue has now, and what stopped it before the next one.
    pub(crate) fn append_all<'r>(
        &self,
        records: impl Iterator<Item = Dispatch<'r>>,
    ) -> (usize, Result<Appended>) {
        let mut state = self.lock();
        let (mut added, mut taken, mut outcome) = (Added::default(), 0, Ok(Appended::Done));
        for record in records {
            outcome = self.take(&mut state, &record, &mut added);
            if !matches!(outcome, Ok(Appended::Done | Appended::Duplicate)) {
                break;
            }
            taken += 1;
        }
        (taken, self.settle(state, added).and(outcome))
    }

    #[inline]
    fn take(&self, state: &mut State, record: &Dispatch<'_>, added: &mut Added) -> Result<Appended> {
        check(record)?;
        if state.removed {
            return Ok(Appended::Duplicate);
        }
        let at = record.queue_offset;
        if let Some(last) = state.last {
            // Not what follows the last record: lost ones may have been filled in behind it. Their entries say where the
            // damage is, but not how long it is.
            let expected = state.max_offset();
            if at < expected || last.offset > record.offset {
                return Ok(Appended::Duplicate);
            }
            if at > expected {
                return Ok(Appended::Gap { expected });
            }
        } else {
            self.begin(state, at)?;
            added.first = true;
        }
        let waits = state.waits();
        if waits >= QUEUE_WAITS || (waits > 0 && self.waiting.bytes.load(Ordering::Relaxed) >= TABLE_WAITS) {
            self.waiting.bytes.fetch_add(std::mem::take(&mut added.bytes), Ordering::Relaxed);
            self.write_state(state)?;
        }
        let before = state.waits();
        let tags_code = state.tags_code(record);
        match state.kind {
            // The usual kind without a copy of a length that only the program's run knows.
            QueueKind::Simple => {
                let entry = Entry { offset: record.offset, size: record.size, tags_code };
                state.run.push(&entry.encode());
            }
            QueueKind::Batch => {
                let mut bytes = [0; MAX_WIDTH];
                state.run.push(Unit::encode(state.kind, record, tags_code, &mut bytes));
            }
        }
        state.last = Some(Unit::of(state.kind, record, tags_code));
        added.bytes += state.waits() - before;
        added.any = true;
        Ok(Appended::Done)
    }

    /// Sees to it that a queue without a last entry goes on at `at`.
    #[cold]
    fn begin(&self, state: &mut State, at: QueueOffset) -> Result<()> {
        if at == state.max_offset() || state.kind == QueueKind::Batch {
            return Ok(());
        }
        // Nothing but fillers at most: the queue may start anywhere.
        let start = u64::try_from(at.0).unwrap_or(0);
        self.change(state, |state| {
            state.min = start;
            state.run.restart(start * state.width())
        })
    }

    /// Makes known what was added.
    #[inline]
    fn settle(&self, state: MutexGuard<'_, State>, added: Added) -> Result<()> {
        if added.bytes > 0 {
            self.waiting.bytes.fetch_add(added.bytes, Ordering::Relaxed);
        }
        if !added.any {
            return Ok(());
        }
        self.next_address.store(state.run.next_address(), Ordering::Relaxed);
        if added.first {
            self.publish(&state)?;
        } else {
            self.publish_end(&state);
        }
        drop(state);
        self.enlist(&self.unwritten, &self.waiting.unwritten);
        Ok(())
    }

    /// Takes the numbers up to `to` for records that are lost: entries that lead to `offset` and are too long to be
    /// read; in a batch queue, whose entries have a time, with that of the record which follows. A record must follow.
    pub(crate) fn fill(
        &self,
        to: QueueOffset,
        offset: PhysicalOffset,
        size: i32,
        store_timestamp: StoreTimestamp,
    ) -> Result<()> {
        let mut state = self.lock();
        // A batch queue without an entry begins anywhere.
        let begins = state.kind == QueueKind::Batch && state.last.is_none();
        while !state.removed && !begins && state.max_offset() < to {
            self.make_room(&mut state)?;
            let (kind, base, tags_code) = (state.kind, state.max_offset(), TagsCode::ZERO);
            let num = match kind {
                QueueKind::Simple => 1,
                QueueKind::Batch => i16::try_from(to.0 - base.0).unwrap_or(i16::MAX),
            };
            let unit = Unit { offset, size, tags_code, store_timestamp, base, num };
            let mut bytes = [0; MAX_WIDTH];
            let bytes = unit.write(kind, &mut bytes);
            state.run.push(bytes);
            self.waiting.bytes.fetch_add(bytes.len(), Ordering::Relaxed);
            if kind == QueueKind::Batch {
                state.last = Some(unit);
            }
        }
        self.publish_end(&state);
        drop(state);
        self.enlist(&self.unwritten, &self.waiting.unwritten);
        Ok(())
    }

    fn make_room(&self, state: &mut State) -> Result<()> {
        let waits = state.waits();
        if waits >= QUEUE_WAITS || (waits > 0 && self.waiting.bytes.load(Ordering::Relaxed) >= TABLE_WAITS) {
            self.write_state(state)?;
        }
        Ok(())
    }

    fn enlist(&self, listed: &AtomicBool, list: &Mutex<Vec<Weak<Self>>>) {
        // A plain load first: the flag is set for nearly every append.
        if !listed.load(Ordering::Acquire) && !listed.swap(true, Ordering::AcqRel) {
            list.lock().push(Weak::clone(&self.me));
        }
    }

    /// Lets `change` drop entries, also ones that wait in memory.
    pub(super) fn change(
        &self,
        state: &mut State,
        change: impl FnOnce(&mut State) -> Result<()>,
    ) -> Result<()> {
        let before = state.waits();
        let outcome = change(state);
        self.waiting.bytes.fetch_sub(before.saturating_sub(state.waits()), Ordering::Relaxed);
        outcome
    }

    fn write_state(&self, state: &mut State) -> Result<()> {
        let before = state.waits();
        let outcome = state.write_out();
        self.waiting.bytes.fetch_sub(before - state.waits(), Ordering::Relaxed);
        if before > 0 {
            self.enlist_unsynced();
        }
        outcome
    }

    /// Sees to it that the flush looks at this queue.
    pub(super) fn enlist_unsynced(&self) {
        self.enlist(&self.unsynced, &self.waiting.unsynced);
    }

    /// Whether a write can wait: less than `least` bytes do, and there is a file for them already.
    pub(super) fn write_can_wait(&self, least: usize) -> bool {
        let state = self.lock();
        state.waits() < least && state.run.file_count() > 0
    }

    /// Writes the entries that wait in memory; the caller took this queue from the list.
    pub(super) fn write_out(&self) -> Result<()> {
        self.unwritten.store(false, Ordering::Release);
        let outcome = self.write_state(&mut self.lock());
        if outcome.is_err() {
            self.enlist(&self.unwritten, &self.waiting.unwritten);
        }
        outcome
    }

    /// What to sync; `None`, and the queue listed again, when it is not due. The caller took this queue from the list.
    pub(super) fn sync_points(&self, least: u64) -> Option<Vec<SyncPoint>> {
        self.unsynced.store(false, Ordering::Release);
        let mut state = self.lock();
        let State { run, ext, .. } = &mut *state;
        if !run.is_due(least) && !ext.as_ref().is_some_and(|ext| ext.run.is_due(least)) {
            let dirty = run.is_due(0) || ext.as_ref().is_some_and(|ext| ext.run.is_due(0));
            drop(state);
            if dirty {
                self.enlist_unsynced();
            }
            return None;
        }
        Some(std::iter::once(run.sync_point()).chain(ext.as_mut().map(|ext| ext.run.sync_point())).collect())
    }

    /// Takes note of what was synced, or that it could not be.
    pub(super) fn synced(&self, points: Vec<SyncPoint>, durable: bool) {
        let mut state = self.lock();
        let State { run, ext, .. } = &mut *state;
        let runs = std::iter::once(run).chain(ext.as_mut().map(|ext| &mut ext.run));
        for (run, point) in runs.zip(points) {
            if durable {
                run.reached(&point);
            } else {
                run.missed(point);
            }
        }
        drop(state);
        if !durable {
            self.enlist_unsynced();
        }
    }

    /// Replaces the entry that begins at `record.queue_offset`.
    ///
    /// # Errors
    /// [`Error::IllegalMessage`] when no entry begins there.
    pub(crate) fn rewrite(&self, record: &Dispatch<'_>) -> Result<()> {
        check(record)?;
        let mut state = self.lock();
        let number = match (state.kind, u64::try_from(record.queue_offset.0)) {
            (QueueKind::Simple, Ok(number)) => {
                Some(number).filter(|n| (state.first()..state.end()).contains(n))
            }
            _ => match state.number_of(record.queue_offset)? {
                Some(number) if state.unit(number)?.base == record.queue_offset => Some(number),
                _ => None,
            },
        };
        let Some(number) = number else {
            return Err(illegal(record, "its queue has no entry for it"));
        };
        let tags_code = state.tags_code(record);
        let unit = Unit::of(state.kind, record, tags_code);
        self.replace(state, number, &unit)
    }

    /// Gives the entry of a batch queue that begins at `base` the count `num`.
    pub(crate) fn recount(&self, base: QueueOffset, num: i16) -> Result<()> {
        let state = self.lock();
        let Some(number) = state.number_of(base)? else { return Ok(()) };
        let unit = state.unit(number)?;
        if unit.base == base { self.replace(state, number, &Unit { num, ..unit }) } else { Ok(()) }
    }

    fn replace(&self, mut state: MutexGuard<'_, State>, number: u64, unit: &Unit) -> Result<()> {
        let before = state.waits();
        let mut bytes = [0; MAX_WIDTH];
        let entry = unit.write(state.kind, &mut bytes);
        let place = number * state.width();
        state.run.overwrite(place, entry)?;
        state.find_last()?;
        self.waiting.bytes.fetch_add(state.waits() - before, Ordering::Relaxed);
        self.publish(&state)?;
        drop(state);
        self.enlist(&self.unwritten, &self.waiting.unwritten);
        self.enlist_unsynced();
        Ok(())
    }

    /// Removes the queue's files and takes nothing in any more.
    pub(super) fn remove(&self) -> Result<()> {
        let mut state = self.lock();
        self.change(&mut state, |state| {
            state.removed = true;
            state.min = 0;
            state.last = None;
            let outcome = state.run.destroy();
            outcome.and(state.ext.as_mut().map_or(Ok(()), |ext| ext.run.destroy()))
        })?;
        self.publish(&state)
    }
}

fn illegal(record: &Dispatch<'_>, why: &str) -> Error {
    let Dispatch { queue_offset, offset, size, .. } = record;
    Error::IllegalMessage {
        why: format!("record at {offset} ({size} bytes, queue offset {queue_offset}): {why}"),
    }
}

/// What no queue entry may say, whoever asks for it.
fn check(record: &Dispatch<'_>) -> Result<()> {
    // Far below the end of the numbers, so that no arithmetic on places can wrap.
    const LIMIT: i64 = i64::MAX / 256;
    let good = record.size > 0
        && record.batch_num > 0
        && (0..LIMIT).contains(&record.offset.0)
        && (0..LIMIT).contains(&record.queue_offset.0);
    if good { Ok(()) } else { Err(illegal(record, "no entry can say this")) }
}
