//! Tells what a power cut never let reach the disk from what was damaged on it.
//!
//! Write-back takes pages in any order, so a power cut may leave later records whole and earlier ones not: nobody was
//! promised any of them, and the log ends at the first that is missing. Damage may hit records that were promised:
//! they are skipped, and what follows is kept. Two things tell them apart. Up to where the checkpoint knows the log to
//! be durable there are no holes. Behind that, what was never written is zeros up to the end of a sector, since a
//! segment is zeros before its first byte is written and bytes are only ever added.
//!
//! A segment whose end alone is missing may lack its blank or more. Records behind it were not promised either way, and
//! nothing says how many are missing before them.

use super::{DamagedRange, scan::SECTOR};
use crate::{
    format::message::{BLANK_LEN, encode_blank},
    types::PhysicalOffset,
};

/// Decides for one log after a kill.
#[derive(Debug)]
pub(super) struct Holes<'a> {
    segments: Vec<(PhysicalOffset, &'a [u8])>,
    /// The log was durable below this.
    durable: PhysicalOffset,
}

impl<'a> Holes<'a> {
    pub(super) const fn new(segments: Vec<(PhysicalOffset, &'a [u8])>, durable: PhysicalOffset) -> Self {
        Self { segments, durable }
    }

    /// Whether the log ends at the start of `range`, though a record was found behind it.
    pub(super) fn ends_log(&self, range: &DamagedRange) -> bool {
        range.from >= self.durable && self.was_never_there(range)
    }

    /// Whether a stretch without records lacks records or the end of a segment that never were there.
    fn was_never_there(&self, range: &DamagedRange) -> bool {
        let Some(number) = self.segments.iter().rposition(|(base, _)| *base <= range.from) else {
            return false;
        };
        let at = |base: PhysicalOffset, place: PhysicalOffset, len: usize| {
            usize::try_from(place.since(base)).unwrap_or(usize::MAX).min(len)
        };
        self.segments.iter().enumerate().skip(number).any(|(n, (base, bytes))| {
            let (from, to) = (at(*base, range.from, bytes.len()), at(*base, range.to, bytes.len()));
            let is_end = n == number && range.to == base.plus(bytes.len());
            is_end && is_blank(&bytes[from..to]) || unwritten_sector(bytes, from, to)
        })
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
