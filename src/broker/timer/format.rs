//! The bytes of RocketMQ's timers (FORMAT.md, "Timed messages"): units of the timer log, slots of the wheel, and the
//! checkpoint. Pure.

use crate::broker::config_file::DataVersion;

/// Bytes of a unit of the timer log.
pub(super) const UNIT: usize = 52;
/// The same, as a unit says it.
const UNIT_SIZE: i32 = 52;
/// Bytes of the mark that ends a file of the timer log.
pub(super) const BLANK: usize = 16;
/// Bytes of a slot of the wheel.
pub(super) const SLOT: usize = 32;
/// Slots of the wheel, whatever the precision: twice seven days of seconds.
pub(super) const SLOTS: i64 = 2 * 7 * 24 * 3_600;
/// Bytes of a checkpoint that count.
pub(super) const CHECKPOINT: usize = 56;
/// Bytes of the checkpoint's file.
const CHECKPOINT_FILE: usize = 4_096;

const MAGIC_DEFAULT: i32 = 1;
const MAGIC_ROLL: i32 = 1 << 1;
const MAGIC_DELETE: i32 = 1 << 2;
const MAGIC_ANY: i32 = 0xF;
const MAGIC_BLANK: u32 = 0xCBD4_3194;

/// What a message does when its time has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Deed {
    /// It is due later than one round of the wheel allows, and goes round again.
    pub(super) rolls: bool,
    /// It takes another message back.
    pub(super) deletes: bool,
}

impl Deed {
    /// By how many messages more wait for it.
    pub(super) const fn counts(self) -> i64 {
        if self.deletes { -1 } else { 1 }
    }
}

/// One waiting message in the timer log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unit {
    /// Place of the unit before it that is due at the same time; -1 for the first.
    pub(super) prev: i64,
    pub(super) deed: Deed,
    /// When it was written, in milliseconds.
    pub(super) written_ms: i64,
    /// When it is due.
    pub(super) due_ms: i64,
    /// Place and size of the message in the log.
    pub(super) offset: i64,
    pub(super) size: i32,
    /// Java's hash of the real topic.
    pub(super) topic_hash: i32,
}

fn i64_at(bytes: &[u8], at: usize) -> i64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, i64::from_be_bytes)
}

fn i32_at(bytes: &[u8], at: usize) -> i32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, i32::from_be_bytes)
}

impl Unit {
    /// The unit's bytes. The delay fits: the wheel is smaller than 2^31 milliseconds.
    pub(super) fn encode(&self) -> [u8; UNIT] {
        let mut magic = MAGIC_DEFAULT;
        if self.deed.rolls {
            magic |= MAGIC_ROLL;
        }
        if self.deed.deletes {
            magic |= MAGIC_DELETE;
        }
        let delay = i32::try_from(self.due_ms - self.written_ms).unwrap_or(i32::MAX);
        let mut out = [0; UNIT];
        out[0..4].copy_from_slice(&UNIT_SIZE.to_be_bytes());
        out[4..12].copy_from_slice(&self.prev.to_be_bytes());
        out[12..16].copy_from_slice(&magic.to_be_bytes());
        out[16..24].copy_from_slice(&self.written_ms.to_be_bytes());
        out[24..28].copy_from_slice(&delay.to_be_bytes());
        out[28..36].copy_from_slice(&self.offset.to_be_bytes());
        out[36..40].copy_from_slice(&self.size.to_be_bytes());
        out[40..44].copy_from_slice(&self.topic_hash.to_be_bytes());
        out
    }

    /// Reads a unit; `None` when these bytes are none.
    pub(super) fn decode(bytes: &[u8; UNIT]) -> Option<Self> {
        let magic = i32_at(bytes, 12);
        if i32_at(bytes, 0) != UNIT_SIZE || magic | MAGIC_ANY != MAGIC_ANY {
            return None;
        }
        let written_ms = i64_at(bytes, 16);
        Some(Self {
            prev: i64_at(bytes, 4),
            deed: Deed { rolls: magic & MAGIC_ROLL != 0, deletes: magic & MAGIC_DELETE != 0 },
            written_ms,
            due_ms: written_ms.checked_add(i64::from(i32_at(bytes, 24)))?,
            offset: i64_at(bytes, 28),
            size: i32_at(bytes, 36),
            topic_hash: i32_at(bytes, 40),
        })
    }
}

/// The mark that ends a file with `left` bytes to go.
pub(super) fn encode_blank(left: usize) -> [u8; BLANK] {
    let mut out = [0; BLANK];
    out[0..4].copy_from_slice(&u32::try_from(left).unwrap_or(u32::MAX).to_be_bytes());
    out[12..16].copy_from_slice(&MAGIC_BLANK.to_be_bytes());
    out
}

/// Whether these bytes are such a mark.
pub(super) fn is_blank(bytes: &[u8; BLANK]) -> bool {
    bytes[12..16] == MAGIC_BLANK.to_be_bytes()
}

/// The messages of one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    /// The time, in units of the precision.
    pub(super) time: i64,
    /// Places of the first and the last unit in the timer log.
    pub(super) first: i64,
    pub(super) last: i64,
    /// Messages, less those that take others back.
    pub(super) count: i32,
}

impl Slot {
    /// A slot's bytes; the last four have no meaning and stay zero.
    pub(super) fn encode(&self) -> [u8; SLOT] {
        let mut out = [0; SLOT];
        out[0..8].copy_from_slice(&self.time.to_be_bytes());
        out[8..16].copy_from_slice(&self.first.to_be_bytes());
        out[16..24].copy_from_slice(&self.last.to_be_bytes());
        out[24..28].copy_from_slice(&self.count.to_be_bytes());
        out
    }

    pub(super) fn decode(bytes: &[u8; SLOT]) -> Self {
        Self {
            time: i64_at(bytes, 0),
            first: i64_at(bytes, 8),
            last: i64_at(bytes, 16),
            count: i32_at(bytes, 24),
        }
    }

    /// The slot with one unit more, which stands at `at`.
    pub(super) fn with(before: Option<Self>, time: i64, at: i64, deed: Deed) -> Self {
        let one = if deed.deletes { -1 } else { 1 };
        match before {
            Some(slot) => Self { last: at, count: slot.count.saturating_add(one), ..slot },
            None => Self { time, first: at, last: at, count: one },
        }
    }
}

/// How far the timers are: `config/timercheck`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Checkpoint {
    /// All times before this one are delivered.
    pub(super) read_ms: i64,
    /// The timer log is durable to here.
    pub(super) log_end: i64,
    /// All messages of the timer topic before this one are in the timer log, or delivered.
    pub(super) queue_offset: i64,
    /// The same for the master, which this broker is.
    pub(super) master_queue_offset: i64,
    pub(super) version: DataVersion,
    /// A place in the log that all copies lie behind which the rest does not know of. It stands behind the bytes that
    /// RocketMQ reads and writes, and counts while those are the ones that it was written with.
    pub(super) since: Option<i64>,
}

impl Checkpoint {
    pub(super) fn encode(&self) -> Vec<u8> {
        let words = [
            self.read_ms,
            self.log_end,
            self.queue_offset,
            self.master_queue_offset,
            self.version.state_version,
            self.version.timestamp,
            self.version.counter,
        ];
        let since = self.since.map_or([0; 3], |since| [since, self.read_ms, self.queue_offset]);
        let mut out: Vec<u8> = words.iter().chain(&since).flat_map(|word| word.to_be_bytes()).collect();
        out.resize(CHECKPOINT_FILE, 0);
        out
    }

    /// Reads a checkpoint; `None` when the file is too short to be one.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (read_ms, queue_offset) = (i64_at(bytes, 0), i64_at(bytes, 16));
        let same = (i64_at(bytes, CHECKPOINT + 8), i64_at(bytes, CHECKPOINT + 16)) == (read_ms, queue_offset);
        (bytes.len() >= CHECKPOINT).then(|| Self {
            read_ms,
            log_end: i64_at(bytes, 8),
            queue_offset,
            master_queue_offset: i64_at(bytes, 24),
            version: DataVersion {
                state_version: i64_at(bytes, 32),
                timestamp: i64_at(bytes, 40),
                counter: i64_at(bytes, 48),
            },
            since: (same && read_ms > 0).then(|| i64_at(bytes, CHECKPOINT)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_reads_back_and_zeros_or_strange_marks_are_none() {
        for deed in [(false, false), (true, false), (false, true), (true, true)] {
            let deed = Deed { rolls: deed.0, deletes: deed.1 };
            let unit = Unit {
                prev: -1,
                deed,
                written_ms: 5_000,
                due_ms: 9_000,
                offset: 77,
                size: 200,
                topic_hash: -3,
            };
            assert_eq!(Unit::decode(&unit.encode()), Some(unit));
        }
        assert_eq!(Unit::decode(&[0; UNIT]), None);
        let mut strange = Unit {
            prev: -1,
            deed: Deed::default(),
            written_ms: 0,
            due_ms: 0,
            offset: 0,
            size: 0,
            topic_hash: 0,
        }
        .encode();
        strange[15] = 16;
        assert_eq!(Unit::decode(&strange), None);
        assert!(is_blank(&encode_blank(16)) && !is_blank(&[0; BLANK]));
    }

    #[test]
    fn slots_count_messages_and_take_off_those_that_delete() {
        let first = Slot::with(None, 9, 52, Deed::default());
        let second = Slot::with(Some(first), 9, 104, Deed { deletes: true, ..Deed::default() });
        assert_eq!(second, Slot { time: 9, first: 52, last: 104, count: 0 });
        assert_eq!(Slot::decode(&second.encode()), second);
    }

    #[test]
    fn a_checkpoint_reads_back_and_a_short_file_is_none() {
        let version = DataVersion { state_version: 1, timestamp: 2, counter: 3 };
        let now = Checkpoint {
            read_ms: 4,
            log_end: 5,
            queue_offset: 6,
            master_queue_offset: 7,
            version,
            since: Some(8),
        };
        let mut bytes = now.encode();
        assert_eq!((bytes.len(), Checkpoint::decode(&bytes)), (4_096, Some(now)));
        assert_eq!(Checkpoint::decode(&bytes[..55]), None);
        assert_eq!(Checkpoint::decode(&bytes[..56]), Some(Checkpoint { since: None, ..now }));
        // RocketMQ went on and left what it does not know.
        bytes[7] = 5;
        assert_eq!(Checkpoint::decode(&bytes), Some(Checkpoint { read_ms: 5, since: None, ..now }));
    }
}
