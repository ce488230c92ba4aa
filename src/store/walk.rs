//! The way of a get: a queue offset leads to queue entries, those through a filter to leases of the log.

use std::ops::Range;

use super::{
    Inner,
    get::{GetRequest, GetResult},
};
use crate::{
    consume_queue::{ExtUnit, Queue},
    error::Result,
    filter::Filter,
    format::{
        consume_queue::{ENTRY, Entry},
        message::Record,
    },
    message::GetStatus,
    segment::Lease,
    types::{PhysicalOffset, QueueOffset, TagsCode},
};

/// Queue entries that are taken out of a queue at a time, at most.
const CHUNK: usize = 64;

/// Where an entry leads: bytes of the last of the walk's leases.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) physical: PhysicalOffset,
    pub(super) queue_offset: QueueOffset,
    pub(super) at: usize,
    pub(super) len: usize,
}

impl Place {
    pub(super) const fn range(&self) -> Range<usize> {
        self.at..self.at + self.len
    }
}

/// One read of a queue under way. `make` turns a place that passed into a message, or finds that none is there.
pub(super) struct Walk<'s, M, F> {
    inner: &'s Inner,
    request: &'s GetRequest<'s>,
    result: GetResult<M>,
    make: F,
    /// The log's first byte.
    oldest: PhysicalOffset,
    /// Where the last of the result's leases starts.
    lease_start: PhysicalOffset,
    /// Entries that may still be looked at.
    left: usize,
    /// Why the last entry that gave nothing did so.
    missed: GetStatus,
}

impl<'s, M, F: Fn(&Place, &[Lease]) -> Option<M>> Walk<'s, M, F> {
    /// A walk that fills `result`, from its next offset on.
    pub(super) fn new(
        inner: &'s Inner,
        request: &'s GetRequest<'s>,
        mut result: GetResult<M>,
        make: F,
    ) -> Self {
        result.messages.reserve(request.max_messages.min(CHUNK));
        Self {
            inner,
            request,
            result,
            make,
            oldest: inner.log.min_offset(),
            lease_start: PhysicalOffset::ZERO,
            left: if request.max_scan == 0 { request.max_messages.max(800) } else { request.max_scan },
            missed: GetStatus::OffsetFoundNull,
        }
    }

    /// Goes through the queue until the request is full or the queue is at its end.
    pub(super) fn through(mut self, queue: &Queue) -> Result<GetResult<M>> {
        let (mut plain, mut units) = ([[0; ENTRY]; CHUNK], Vec::new());
        while self.left > 0 && self.result.messages.len() < self.request.max_messages {
            let open = self.request.max_messages - self.result.messages.len();
            // Few may pass a filter.
            let want = if self.request.filter.is_none() { open } else { CHUNK }.min(self.left).min(CHUNK);
            let from = self.result.next_offset;
            let go_on = if let Some(count) = queue.read_plain(from, &mut plain[..want])? {
                count > 0 && self.take_plain(&plain[..count])
            } else {
                units.clear();
                queue.read(from, want, &mut units)? > 0
                    && units.iter().all(|unit| {
                        let entry = Entry { offset: unit.offset, size: unit.size, tags_code: unit.tags_code };
                        self.take(entry, unit.ext.as_deref(), unit.queue_offset, unit.next())
                    })
            };
            if !go_on {
                break;
            }
        }
        let Self { mut result, missed, request, .. } = self;
        result.status = if result.messages.is_empty() { missed } else { GetStatus::Found };
        if result.messages.is_empty() && result.next_offset == request.offset {
            // Nothing is readable here: go on behind it, or a reader would ask for ever.
            result.next_offset = request.offset.plus(1).clamp(result.min_offset, result.max_offset);
        }
        Ok(result)
    }

    /// Takes the entries that follow, of a queue whose entries count one each. False when the request is full.
    fn take_plain(&mut self, mut entries: &[[u8; ENTRY]]) -> bool {
        let codes = self.request.filter.and_then(Filter::tags_codes).filter(|codes| !codes.is_empty());
        loop {
            if let Some(codes) = codes {
                entries = self.pass_over(entries, codes);
            }
            let Some((first, rest)) = entries.split_first() else { return true };
            let at = self.result.next_offset;
            if !self.take(Entry::decode(first), None, at, at.plus(1)) {
                return false;
            }
            entries = rest;
        }
    }

    /// Leaves out the entries in front that have none of `codes`, as [`Walk::take`] would one by one.
    #[inline]
    fn pass_over<'e>(&mut self, entries: &'e [[u8; ENTRY]], codes: &[TagsCode]) -> &'e [[u8; ENTRY]] {
        let room = match self.result.messages.len() {
            0 => i64::MAX,
            full if full >= self.request.max_messages => return entries,
            _ => i64::try_from(self.request.max_bytes.saturating_sub(self.result.bytes)).unwrap_or(i64::MAX),
        };
        let found = match codes {
            [code] => first(entries, room, |other| other == *code),
            _ => first(entries, room, |other| codes.contains(&other)),
        };
        let (passed, rest) = entries.split_at(found);
        if !passed.is_empty() {
            self.left = self.left.saturating_sub(passed.len());
            self.missed = GetStatus::NoMatchedMessage;
            let passed = i64::try_from(passed.len()).unwrap_or(i64::MAX);
            self.result.next_offset = self.result.next_offset.plus(passed);
        }
        rest
    }

    /// Takes one entry, behind which a reader goes on at `next`. False when the request is full before it.
    #[inline]
    fn take(&mut self, entry: Entry, ext: Option<&ExtUnit>, at: QueueOffset, next: QueueOffset) -> bool {
        let len = usize::try_from(entry.size).unwrap_or(0);
        let (messages, request) = (&self.result.messages, self.request);
        if messages.len() >= request.max_messages
            || (!messages.is_empty() && self.result.bytes + len > request.max_bytes)
        {
            return false;
        }
        self.left = self.left.saturating_sub(1);
        let found = self.select(entry, ext, at);
        let made = found
            .and_then(|place| (self.make)(&place, &self.result.leases).ok_or(GetStatus::MessageWasRemoving));
        match made {
            Ok(message) => {
                self.result.bytes += len;
                self.result.messages.push(message);
            }
            Err(status) => self.missed = status,
        }
        self.result.next_offset = next;
        true
    }

    /// The place of an entry's record, if it passes the filter and is there.
    #[inline]
    fn select(&mut self, entry: Entry, ext: Option<&ExtUnit>, at: QueueOffset) -> Result<Place, GetStatus> {
        let filter = self.request.filter;
        if filter.is_some_and(|filter| !filter.by_queue_entry(entry.tags_code, ext)) {
            return Err(GetStatus::NoMatchedMessage);
        }
        if entry.offset < self.oldest || self.inner.report.is_damaged(entry.offset) {
            return Err(GetStatus::MessageWasRemoving);
        }
        // An entry whose length leads beyond its segment stands for a message that is lost.
        let place = self.find(entry, at).ok_or(GetStatus::MessageWasRemoving)?;
        if let Some(filter) = filter.filter(|filter| filter.reads_records()) {
            let bytes = self.result.leases.last().and_then(|lease| lease.get(place.range()));
            let record =
                Record::decode(bytes.unwrap_or_default()).map_err(|_| GetStatus::MessageWasRemoving)?;
            if !filter.by_record(&record) {
                return Err(GetStatus::NoMatchedMessage);
            }
        }
        Ok(place)
    }

    /// Entries rise through the log, so one lease of the rest of a segment serves most of a read.
    #[inline]
    fn find(&mut self, entry: Entry, queue_offset: QueueOffset) -> Option<Place> {
        let len = usize::try_from(entry.size).ok()?;
        let physical = entry.offset;
        if let Some(lease) = self.result.leases.last()
            && let Ok(at) = usize::try_from(physical.0.wrapping_sub(self.lease_start.0))
            && at.checked_add(len).is_some_and(|end| end <= lease.len())
        {
            return Some(Place { physical, queue_offset, at, len });
        }
        let lease = self.inner.log.lease_rest(physical)?;
        if len > lease.len() {
            return None;
        }
        self.result.leases.push(lease);
        self.lease_start = physical;
        Some(Place { physical, queue_offset, at: 0, len })
    }
}

/// How many entries there are before the first whose code passes, or whose record does not fit into `room` bytes.
#[inline]
fn first(entries: &[[u8; ENTRY]], room: i64, passes: impl Fn(TagsCode) -> bool) -> usize {
    let mut decoded = entries.iter().map(Entry::decode);
    decoded.position(|entry| passes(entry.tags_code) || i64::from(entry.size) > room).unwrap_or(entries.len())
}
