//! One pass over the log's bytes: which records are there, what is damaged, where the log ends.
//!
//! A record counts when its lengths add up, it stands where it says, and its checksum is right. Anything else is
//! either damage, when a record that counts stands somewhere behind it, or the torn tail, when none does. Every byte
//! is looked at a bounded number of times, whatever the lengths on disk say, and nothing is allocated by them. What
//! cannot be read is found out before it is touched, and ends the pass with an error.

use std::{
    cell::{Cell, OnceCell},
    ops::Range,
};

use super::DamagedRange;
use crate::{
    config::Config,
    error::{Corruption, Error, Result},
    format::{
        gap::{GAP_TOPIC, gap_of},
        message::{
            self, BLANK_LEN, Header, Inspected, MAGIC_AT, MAGIC_BLANK, MAGIC_V1, MAGIC_V2, MIN_RECORD,
            PHYSICAL_OFFSET_AT, PROP_CRC_LEN, Record,
        },
    },
    types::PhysicalOffset,
};

/// What a disk writes whole or not at all.
pub(super) const SECTOR: usize = 512;
/// The search for a record skips zeros in steps of this many bytes.
const BLOCK: usize = 4096;
/// Bytes that are brought to memory at once: few enough to stay there until they are read.
const WINDOW: usize = 4 << 20;
/// Bytes per byte of log that the search may spend on what looks like a record and is none: enough for any accident,
/// a bound for malice.
const TRIALS: u64 = 4;

/// What makes a record count, besides its place and its lengths.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Checks {
    /// The checksum of the body.
    pub body_crc: bool,
    /// The checksum of the whole record, where it has one.
    pub record_crc: bool,
    /// From here on a power cut may have kept sectors from the disk: bodies are held against their checksums there also
    /// when `body_crc` is off. A sector of zeros alone proves nothing, since a body may be zeros.
    pub unsynced_from: Option<PhysicalOffset>,
}

impl Checks {
    pub(crate) fn new(config: &Config, unsynced_from: Option<PhysicalOffset>) -> Self {
        let (body_crc, record_crc) = (config.check_crc_on_recover, config.force_verify_prop_crc);
        Self { body_crc, record_crc, unsynced_from }
    }
}

/// What the scan comes to next.
#[derive(Debug)]
pub(crate) enum Step<'a> {
    /// A record.
    Record(Header<'a>),
    /// Bytes that are no records, with a record behind them.
    Damage(DamagedRange),
    /// The end of the log.
    End {
        /// Behind the last record, or the blank after it.
        at: PhysicalOffset,
        /// What stands there, unless nothing was written.
        torn: Option<Corruption>,
    },
}

/// What [`Scan::accept`] finds at a place.
enum Stands<'a> {
    Record(Header<'a>),
    /// A gap record.
    Gap {
        size: usize,
        unwritten: bool,
    },
    Blank,
}

/// Tells records that another life of the log left behind from those of this one. The second argument says whether the
/// record follows the one before without a gap.
pub(crate) type Stale<'s> = &'s dyn Fn(&Header<'_>, bool) -> Option<Corruption>;

/// Fails where a range of a segment, named by its number, has bytes that cannot be read.
pub(crate) type Readable<'r> = &'r dyn Fn(usize, Range<usize>) -> Result<()>;

/// A pass over the log.
pub(crate) struct Scan<'a> {
    segments: Vec<(PhysicalOffset, &'a [u8])>,
    readable: Readable<'a>,
    /// For each segment, up to where it is known to be readable: all of it when that is known of its data.
    looked_at: Vec<Cell<usize>>,
    /// What ended the pass.
    failed: OnceCell<Error>,
    checks: Checks,
    /// The segment being read, and the byte in it.
    number: usize,
    at: usize,
    /// Behind what was accepted.
    end: PhysicalOffset,
    /// For each segment, the position behind which only zeros follow.
    data_ends: Vec<usize>,
    /// Bytes that may still be spent on trials.
    trials: u64,
}

impl<'a> Scan<'a> {
    /// A pass over `segments` from `from` on, where a record, a blank or the end of the log is. `data_ends` says for
    /// each segment behind which position only zeros follow: a search does not read them.
    pub(crate) fn new(
        segments: Vec<(PhysicalOffset, &'a [u8])>,
        data_ends: Vec<usize>,
        readable: Readable<'a>,
        checks: Checks,
        from: PhysicalOffset,
    ) -> Self {
        let number = segments.partition_point(|(base, bytes)| base.plus(bytes.len()) <= from);
        let at =
            segments.get(number).and_then(|(base, _)| usize::try_from(from.since(*base)).ok()).unwrap_or(0);
        let bytes: u64 = segments.iter().map(|(_, bytes)| bytes.len() as u64).sum();
        let trials = bytes.saturating_mul(TRIALS);
        let (looked_at, failed) = (vec![Cell::new(0); segments.len()], OnceCell::new());
        Self { segments, readable, looked_at, failed, checks, number, at, end: from, data_ends, trials }
    }

    /// The next record, damage or the end.
    ///
    /// # Errors
    /// [`Error::Unreadable`]; the pass is over then.
    pub(crate) fn step(&mut self, stale: Stale<'_>) -> Result<Step<'a>> {
        let step = self.next(stale);
        self.failed.take().map_or(Ok(step), Err)
    }

    /// Whether a segment can be read up to `to`, where its data may end before.
    #[inline]
    fn can_read(&self, number: usize, to: usize) -> bool {
        let (Some(looked_at), Some(data_end)) = (self.looked_at.get(number), self.data_ends.get(number))
        else {
            return false;
        };
        let from = looked_at.get();
        if to <= from {
            return true;
        }
        let to = to.max(from + WINDOW).min(*data_end);
        match if from < to { (self.readable)(number, from..to) } else { Ok(()) } {
            Ok(()) => looked_at.set(if to < *data_end { to } else { usize::MAX }),
            Err(error) => drop(self.failed.set(error)),
        }
        self.failed.get().is_none()
    }

    /// Whether the record that may begin at `at` can be read whole, whatever size it states.
    #[inline]
    fn can_read_record(&self, number: usize, at: usize) -> bool {
        let stated = || {
            let start = self.segments.get(number).and_then(|(_, bytes)| bytes.get(at..)?.first_chunk());
            start.map_or(0, |four| usize::try_from(u32::from_be_bytes(*four)).unwrap_or(usize::MAX))
        };
        self.can_read(number, at.saturating_add(MIN_RECORD))
            && self.can_read(number, at.saturating_add(stated()))
    }

    fn next(&mut self, stale: Stale<'_>) -> Step<'a> {
        loop {
            let Some(&(base, bytes)) = self.segments.get(self.number) else {
                return Step::End { at: self.end, torn: None };
            };
            let rest = bytes.get(self.at..).unwrap_or_default();
            let here = base.plus(self.at);
            self.end = here;
            if rest.len() < BLANK_LEN {
                self.next_segment(base.plus(bytes.len()));
                continue;
            }
            if !self.can_read_record(self.number, self.at) {
                return Step::End { at: here, torn: None };
            }
            let why = match self.accept(here, rest, &|header| stale(header, true)) {
                Ok(Stands::Record(header)) => {
                    self.at += header.total_size;
                    self.end = here.plus(header.total_size);
                    return Step::Record(header);
                }
                Ok(Stands::Gap { size, unwritten }) => return self.gap(here, size, unwritten, stale),
                Ok(Stands::Blank) if self.at == 0 => {
                    // No writer begins a segment with its end: recovery has closed the gap of a lost segment so.
                    let to = base.plus(bytes.len());
                    self.next_segment(to);
                    return Step::Damage(DamagedRange {
                        from: here,
                        to,
                        why: Corruption::Gap { unwritten: true },
                    });
                }
                Ok(Stands::Blank) => {
                    self.next_segment(base.plus(bytes.len()));
                    continue;
                }
                Err(why) => why,
            };
            let written = rest.iter().take(BLANK_LEN).any(|byte| *byte != 0);
            return match self.resume(rest, stale) {
                Ok((number, at)) => {
                    (self.number, self.at) = (number, at);
                    let to = self.segments.get(number).map_or(here, |(base, _)| base.plus(at));
                    Step::Damage(DamagedRange { from: here, to, why })
                }
                Err(dirty) => {
                    self.number = self.segments.len();
                    Step::End { at: here, torn: (written || dirty).then_some(why) }
                }
            };
        }
    }

    /// A gap record, with those of its kind that follow it in the segment: one stretch of damage, as it was found.
    fn gap(&mut self, from: PhysicalOffset, size: usize, unwritten: bool, stale: Stale<'_>) -> Step<'a> {
        self.at += size;
        let mut to = from.plus(size);
        while let Some(&(base, bytes)) = self.segments.get(self.number) {
            let rest = bytes.get(self.at..).unwrap_or_default();
            if !self.can_read_record(self.number, self.at) {
                break;
            }
            match self.accept(base.plus(self.at), rest, &|header| stale(header, false)) {
                Ok(Stands::Gap { size, unwritten: same }) if same == unwritten => {
                    self.at += size;
                    to = to.plus(size);
                }
                _ => break,
            }
        }
        self.end = to;
        Step::Damage(DamagedRange { from, to, why: Corruption::Gap { unwritten } })
    }

    fn next_segment(&mut self, end: PhysicalOffset) {
        (self.number, self.at, self.end) = (self.number + 1, 0, end);
    }

    /// What stands at the start of `rest`.
    fn accept(
        &self,
        here: PhysicalOffset,
        rest: &'a [u8],
        stale: &dyn Fn(&Header<'_>) -> Option<Corruption>,
    ) -> Result<Stands<'a>, Corruption> {
        let (size, magic) = message::size_and_magic(rest)?;
        if magic == MAGIC_BLANK {
            return Ok(Stands::Blank);
        }
        let record = Inspected::of(rest)?;
        let header = record.header;
        if header.physical_offset != here {
            return Err(Corruption::Misplaced { stated: header.physical_offset, actual: here });
        }
        if header.topic.contains('\0') {
            return Err(Corruption::Text { what: "topic" });
        }
        let properties = header.properties.raw();
        if has_hole(properties, here.plus(size)) {
            return Err(Corruption::Text { what: "properties" });
        }
        let whole = self.checks.record_crc && message::verify_prop_crc(rest.get(..size).unwrap_or_default())?;
        if self.checks.record_crc && !whole && was_checksum(properties) {
            return Err(Corruption::Text { what: "record checksum" });
        }
        let may_lack_sectors = self.checks.unsynced_from.is_some_and(|from| here >= from);
        if (self.checks.body_crc || may_lack_sectors) && !whole {
            record.verify_body_crc()?;
        }
        if header.topic == GAP_TOPIC
            && let Some(unwritten) = gap_of(&Record::decode(rest)?)
        {
            return Ok(Stands::Gap { size, unwritten });
        }
        match stale(&header) {
            Some(why) => Err(why),
            None => Ok(Stands::Record(header)),
        }
    }

    /// Where the next record stands behind the bad bytes at the front of `rest`: segment and place. An error says
    /// that there is none, and whether anything but zeros is there.
    fn resume(&mut self, rest: &'a [u8], stale: Stale<'_>) -> Result<(usize, usize), bool> {
        // The size that the bad record states is right more often than not.
        if let Ok((size, magic)) = message::size_and_magic(rest)
            && magic != MAGIC_BLANK
            && self.is_record(self.number, self.at + size, stale)
        {
            return Ok((self.number, self.at + size));
        }
        let mut dirty = false;
        for number in self.number..self.segments.len() {
            let from = if number == self.number { self.at + 1 } else { 0 };
            if let Some(at) = self.search(number, from, stale, &mut dirty) {
                return Ok((number, at));
            }
        }
        Err(dirty)
    }

    fn is_record(&self, number: usize, at: usize, stale: Stale<'_>) -> bool {
        let Some(&(base, bytes)) = self.segments.get(number) else { return false };
        let rest = bytes.get(at..).unwrap_or_default();
        let stale = |header: &Header<'_>| stale(header, false);
        self.can_read_record(number, at)
            && matches!(self.accept(base.plus(at), rest, &stale), Ok(Stands::Record(_) | Stands::Gap { .. }))
    }

    /// The first record of a segment at or behind `from`, found by its magic and its own physical offset.
    fn search(&mut self, number: usize, from: usize, stale: Stale<'_>, dirty: &mut bool) -> Option<usize> {
        let &(base, bytes) = self.segments.get(number)?;
        let data_end = self.data_ends.get(number).copied().unwrap_or(bytes.len()).min(bytes.len());
        let mut block = from;
        while block < data_end {
            let end = data_end.min((block / BLOCK + 1) * BLOCK);
            if !self.can_read(number, end) {
                return None;
            }
            if bytes[block..end].iter().fold(0, |all, byte| all | byte) != 0 {
                *dirty = true;
                let found = self.search_block(number, base, bytes, block..end, stale);
                if found.is_some() || self.trials == 0 {
                    return found;
                }
            }
            block = end;
        }
        None
    }

    /// The first record whose magic begins in `block`, or one whose four bytes of size stand before it.
    fn search_block(
        &mut self,
        number: usize,
        base: PhysicalOffset,
        bytes: &[u8],
        block: std::ops::Range<usize>,
        stale: Stale<'_>,
    ) -> Option<usize> {
        const FIRST: u8 = MAGIC_V1.to_be_bytes()[0];
        let mut from = block.start;
        while let Some(found) = bytes[from..block.end].iter().position(|byte| *byte == FIRST) {
            let magic_at = from + found;
            from = magic_at + 1;
            let Some(at) = magic_at.checked_sub(MAGIC_AT) else { continue };
            if at <= self.at && number == self.number || !looks_like_record(bytes, at, base.plus(at)) {
                continue;
            }
            if self.is_record(number, at, stale) {
                return Some(at);
            }
            let stated = message::size_and_magic(&bytes[at..]).map_or(MIN_RECORD, |(size, _)| size);
            self.trials = self.trials.saturating_sub(stated as u64);
            if self.trials == 0 {
                return None;
            }
        }
        None
    }
}

/// Whether the magic of a record and its place stand where a record at `at` has them.
fn looks_like_record(bytes: &[u8], at: usize, here: PhysicalOffset) -> bool {
    let magic =
        bytes.get(at + MAGIC_AT..).and_then(<[u8]>::first_chunk).map(|four| u32::from_be_bytes(*four));
    let place = bytes.get(at + PHYSICAL_OFFSET_AT..).and_then(<[u8]>::first_chunk);
    matches!(magic, Some(MAGIC_V1 | MAGIC_V2))
        && place.is_some_and(|place| i64::from_be_bytes(*place) == here.0)
}

/// Whether properties, whose last byte stands before `end`, lack a sector that never reached the disk. They end with a
/// separator or with a value: a record that ends with a zero was not written to its end.
fn has_hole(properties: &[u8], end: PhysicalOffset) -> bool {
    if properties.last() == Some(&0) {
        return true;
    }
    if !properties.contains(&0) {
        return false;
    }
    let start = end.since(PhysicalOffset::ZERO).saturating_sub(properties.len() as u64);
    let first = usize::try_from(start.next_multiple_of(SECTOR as u64) - start).unwrap_or(usize::MAX);
    let before = properties.get(..first).filter(|front| !front.is_empty());
    let sectors = properties.get(first..).unwrap_or_default().as_chunks::<SECTOR>().0.iter();
    before
        .into_iter()
        .chain(sectors.map(<[u8; SECTOR]>::as_slice))
        .any(|part| part.iter().all(|byte| *byte == 0))
}

/// Whether properties end with what was the checksum of the record before some of its bytes changed.
fn was_checksum(properties: &[u8]) -> bool {
    const WRITTEN: &[u8; PROP_CRC_LEN] = b"__CRC32#\x010000000000\x02";
    const ENOUGH: usize = PROP_CRC_LEN - 4;
    let alike = |byte: u8, written: u8| byte == written || (written == b'0' && byte.is_ascii_digit());
    properties.last_chunk::<PROP_CRC_LEN>().is_some_and(|tail| {
        tail.iter().zip(WRITTEN).filter(|(byte, written)| alike(**byte, **written)).count() >= ENOUGH
    })
}
