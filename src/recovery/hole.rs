//! Tells what a power cut never let reach the disk from what was damaged on it.
//!
//! Write-back takes pages in any order, so a power cut may leave later records whole and earlier ones not: nobody was
//! promised any of them, and the log ends at the first that is missing. Damage may hit records that were promised:
//! they are skipped, and what follows is kept. Two things tell them apart. Up to where the checkpoint knows the log to
//! be durable there are no holes. Behind that, what was never written is zeros up to the end of a sector, since a
//! segment is zeros before its first byte is written and bytes are only ever added.
//!
//! A segment whose end alone is missing may lack its blank or more. Where the checkpoint is lost, the numbers of the
//! records behind it tell.

use std::collections::HashMap;

use super::{
    DamagedRange,
    queues::QueueRepair,
    scan::{SECTOR, Scan, Step},
};
use crate::{
    deleted::DeletedTopics,
    format::message::{BLANK_LEN, encode_blank},
    types::{PhysicalOffset, QueueId, QueueOffset, SysFlag, TransactionType},
};

/// What a stretch without records is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Missing {
    /// It was there.
    Damaged,
    /// Records that never were there.
    Hole,
    /// The end of a segment, `rest` bytes long.
    Blank { rest: usize },
}

/// Decides for one log after a kill.
#[derive(Debug)]
pub(super) struct Holes<'a> {
    segments: Vec<(PhysicalOffset, &'a [u8])>,
    /// The log was durable below this; `None` when the checkpoint does not know.
    durable: Option<PhysicalOffset>,
    deleted: &'a DeletedTopics,
}

impl<'a> Holes<'a> {
    pub(super) fn new(
        segments: Vec<(PhysicalOffset, &'a [u8])>,
        durable: Option<PhysicalOffset>,
        deleted: &'a DeletedTopics,
    ) -> Self {
        Self { segments, durable, deleted }
    }

    /// Whether the log ends at the start of `range`, though `scan` has found a record behind it.
    pub(super) fn ends_log(&self, range: &DamagedRange, scan: &Scan<'_>, queues: &QueueRepair<'_>) -> bool {
        if self.durable.is_some_and(|end| range.from < end) {
            return false;
        }
        match self.kind(range) {
            Missing::Damaged => false,
            Missing::Hole => true,
            // Records behind it were not promised, and nothing says how many are missing before them.
            Missing::Blank { .. } if self.durable.is_some() => true,
            Missing::Blank { rest } => self.records_are_missing(rest, scan.clone(), queues),
        }
    }

    fn kind(&self, range: &DamagedRange) -> Missing {
        let Some(number) = self.segments.iter().rposition(|(base, _)| *base <= range.from) else {
            return Missing::Damaged;
        };
        let at = |base: PhysicalOffset, place: PhysicalOffset, len: usize| {
            usize::try_from(place.since(base)).unwrap_or(usize::MAX).min(len)
        };
        for (n, (base, bytes)) in self.segments.iter().enumerate().skip(number) {
            let (from, to) = (at(*base, range.from, bytes.len()), at(*base, range.to, bytes.len()));
            let part = &bytes[from..to];
            if n == number && range.to == base.plus(bytes.len()) && is_blank(part) {
                return Missing::Blank { rest: part.len() };
            }
            if unwritten_sector(bytes, from, to) {
                return Missing::Hole;
            }
        }
        Missing::Damaged
    }

    /// Whether records behind the end of a segment show that more than its blank is missing: the first would have had
    /// room there, or one is not the next of its queue.
    fn records_are_missing(&self, rest: usize, mut scan: Scan<'_>, queues: &QueueRepair<'_>) -> bool {
        let mut next: HashMap<(&str, QueueId), QueueOffset> = HashMap::new();
        // A batch moves to the next segment as a whole: its records have one store time.
        let (mut batch, mut batch_time) = (BLANK_LEN, None);
        loop {
            let Step::Record(header) = scan.step(&|header| queues.stale(header)) else { return false };
            if *batch_time.get_or_insert(header.store_timestamp) == header.store_timestamp {
                batch = batch.saturating_add(header.total_size);
            } else if batch <= rest {
                return true;
            } else {
                batch = usize::MAX;
            }
            let in_queue =
                matches!(header.sys_flag.transaction(), TransactionType::None | TransactionType::Commit)
                    && !header.sys_flag.has(SysFlag::INNER_BATCH)
                    && !self.deleted.covers(header.topic, header.physical_offset);
            if !in_queue {
                continue;
            }
            let key = (header.topic, header.queue_id);
            let due = next.get(&key).copied().or_else(|| queues.due(header.topic, header.queue_id));
            if due.is_some_and(|due| header.queue_offset > due) {
                return true;
            }
            next.insert(key, header.queue_offset.plus(1));
        }
    }
}

/// Whether nothing stands here but what may be left of a blank.
fn is_blank(part: &[u8]) -> bool {
    let Some((mark, zeros)) = part.split_at_checked(BLANK_LEN) else { return false };
    let whole = encode_blank(part.len());
    zeros.iter().all(|byte| *byte == 0)
        && mark.iter().zip(whole).all(|(byte, right)| *byte == 0 || *byte == right)
}

/// Whether a sector that `from..to` touches ends in zeros that were never written: a few at least, or all of it that
/// lies behind `from`.
fn unwritten_sector(bytes: &[u8], from: usize, to: usize) -> bool {
    const LEAST: usize = 8;
    let mut at = from;
    while at < to {
        let end = ((at / SECTOR + 1) * SECTOR).min(bytes.len());
        // The record behind the stretch may begin in its last sector, with bytes that are zero either way.
        if bytes[at..end].iter().rev().take(LEAST).all(|byte| *byte == 0) {
            return true;
        }
        at = end;
    }
    false
}
