//! IndexFiles: a header, hash slots, and entries chained from newest to oldest. FORMAT.md, "IndexFile".
//!
//! Entry numbers start at 1; entry 0 is never written and 0 ends a chain. Callers: the index.

use super::{chunk, i32_at, i64_at};
use crate::{
    error::Corruption,
    types::{PhysicalOffset, StoreTimestamp},
};

/// Bytes of the header.
pub const HEADER: usize = 40;
/// Bytes of a hash slot.
pub const SLOT: usize = 4;
/// Bytes of an entry.
pub const ENTRY: usize = 20;

/// Where the header keeps the store time of the first entry.
pub const BEGIN_TIMESTAMP_AT: usize = 0;
/// Where the header keeps the store time of the last entry.
pub const END_TIMESTAMP_AT: usize = 8;
/// Where the header keeps the physical offset of the first entry.
pub const BEGIN_OFFSET_AT: usize = 16;
/// Where the header keeps the physical offset of the last entry.
pub const END_OFFSET_AT: usize = 24;
/// Where the header keeps the number of slots in use.
pub const SLOT_COUNT_AT: usize = 32;
/// Where the header keeps the next entry number.
pub const INDEX_COUNT_AT: usize = 36;

/// Where an entry keeps the hash of its key.
pub const KEY_HASH_AT: usize = 0;
/// Where an entry keeps the record's physical offset.
pub const OFFSET_AT: usize = 4;
/// Where an entry keeps the seconds since the file's begin time.
pub const TIME_DIFF_AT: usize = 12;
/// Where an entry keeps the number of the next older entry of its slot.
pub const PREVIOUS_AT: usize = 16;

/// What an IndexFile says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The store time of the first entry.
    pub begin_timestamp: StoreTimestamp,
    /// The store time of the last entry.
    pub end_timestamp: StoreTimestamp,
    /// The physical offset of the first entry.
    pub begin_offset: PhysicalOffset,
    /// The physical offset of the last entry.
    pub end_offset: PhysicalOffset,
    /// Slots in use (hashSlotCount).
    pub slot_count: u32,
    /// The number that the next entry gets; 1 in a file without entries.
    pub index_count: u32,
}

impl Default for Header {
    fn default() -> Self {
        Self {
            begin_timestamp: StoreTimestamp(0),
            end_timestamp: StoreTimestamp(0),
            begin_offset: PhysicalOffset(0),
            end_offset: PhysicalOffset(0),
            slot_count: 0,
            index_count: 1,
        }
    }
}

impl Header {
    /// Reads the header at the start of `bytes`. A count of 0 in a file never written reads as 1.
    ///
    /// # Errors
    /// [`Corruption`] when the bytes are too few or a count is negative.
    pub fn decode(bytes: &[u8]) -> Result<Self, Corruption> {
        let count = |at, what| {
            let value = i32_at(bytes, at, what)?;
            u32::try_from(value).map_err(|_| Corruption::OutOfRange {
                what,
                value: value.into(),
                min: 0,
                max: i32::MAX.into(),
            })
        };
        let head: &[u8; HEADER] = chunk(bytes, 0, "index header")?;
        Ok(Self {
            begin_timestamp: StoreTimestamp(i64_at(head, BEGIN_TIMESTAMP_AT, "begin timestamp")?),
            end_timestamp: StoreTimestamp(i64_at(head, END_TIMESTAMP_AT, "end timestamp")?),
            begin_offset: PhysicalOffset(i64_at(head, BEGIN_OFFSET_AT, "begin offset")?),
            end_offset: PhysicalOffset(i64_at(head, END_OFFSET_AT, "end offset")?),
            slot_count: count(SLOT_COUNT_AT, "hash slot count")?,
            index_count: count(INDEX_COUNT_AT, "index count")?.max(1),
        })
    }

    /// Writes the header. Counts above 2^31 - 1, which no geometry allows, are written as that.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER] {
        let count = |n: u32| i32::try_from(n).unwrap_or(i32::MAX).to_be_bytes();
        let mut bytes = [0; HEADER];
        bytes[BEGIN_TIMESTAMP_AT..END_TIMESTAMP_AT].copy_from_slice(&self.begin_timestamp.0.to_be_bytes());
        bytes[END_TIMESTAMP_AT..BEGIN_OFFSET_AT].copy_from_slice(&self.end_timestamp.0.to_be_bytes());
        bytes[BEGIN_OFFSET_AT..END_OFFSET_AT].copy_from_slice(&self.begin_offset.0.to_be_bytes());
        bytes[END_OFFSET_AT..SLOT_COUNT_AT].copy_from_slice(&self.end_offset.0.to_be_bytes());
        bytes[SLOT_COUNT_AT..INDEX_COUNT_AT].copy_from_slice(&count(self.slot_count));
        bytes[INDEX_COUNT_AT..].copy_from_slice(&count(self.index_count));
        bytes
    }
}

/// One key of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The hash of the key, never negative as written.
    pub key_hash: i32,
    /// The record's first byte.
    pub offset: PhysicalOffset,
    /// Seconds since the file's begin time, see [`time_diff`].
    pub time_diff: i32,
    /// The number of the next older entry of this slot; 0 or less ends the chain.
    pub previous: i32,
}

impl Entry {
    /// Reads an entry.
    #[must_use]
    pub fn decode(bytes: &[u8; ENTRY]) -> Self {
        let [k0, k1, k2, k3, o0, o1, o2, o3, o4, o5, o6, o7, t0, t1, t2, t3, p0, p1, p2, p3] = *bytes;
        Self {
            key_hash: i32::from_be_bytes([k0, k1, k2, k3]),
            offset: PhysicalOffset(i64::from_be_bytes([o0, o1, o2, o3, o4, o5, o6, o7])),
            time_diff: i32::from_be_bytes([t0, t1, t2, t3]),
            previous: i32::from_be_bytes([p0, p1, p2, p3]),
        }
    }

    /// Writes the entry.
    #[must_use]
    pub fn encode(&self) -> [u8; ENTRY] {
        let mut bytes = [0; ENTRY];
        bytes[KEY_HASH_AT..OFFSET_AT].copy_from_slice(&self.key_hash.to_be_bytes());
        bytes[OFFSET_AT..TIME_DIFF_AT].copy_from_slice(&self.offset.0.to_be_bytes());
        bytes[TIME_DIFF_AT..PREVIOUS_AT].copy_from_slice(&self.time_diff.to_be_bytes());
        bytes[PREVIOUS_AT..].copy_from_slice(&self.previous.to_be_bytes());
        bytes
    }

    /// The store time of the entry in a file that begins at `begin`, to the second.
    #[must_use]
    pub fn timestamp(&self, begin: StoreTimestamp) -> StoreTimestamp {
        StoreTimestamp(begin.0.saturating_add(i64::from(self.time_diff) * 1000))
    }
}

/// What an entry keeps of its message's store time: whole seconds since the file's begin time, from 0 to 2^31 - 1.
#[must_use]
pub fn time_diff(begin: StoreTimestamp, store: StoreTimestamp) -> i32 {
    let seconds = store.0.saturating_sub(begin.0) / 1000;
    i32::try_from(seconds.max(0)).unwrap_or(i32::MAX)
}

/// How many slots and entries an IndexFile has: maxHashSlotNum and maxIndexNum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Hash slots.
    pub slots: u32,
    /// Entry numbers, with the unused 0.
    pub entries: u32,
}

impl Geometry {
    /// RocketMQ's defaults: a file of 420,000,040 bytes.
    pub const DEFAULT: Self = Self { slots: 5_000_000, entries: 20_000_000 };

    /// Bytes of a file.
    #[must_use]
    pub const fn file_size(self) -> usize {
        HEADER + self.slots as usize * SLOT + self.entries as usize * ENTRY
    }

    /// Where slot `number` stands. The caller keeps `number` below `slots`.
    #[must_use]
    pub const fn slot_at(self, number: u32) -> usize {
        HEADER + number as usize * SLOT
    }

    /// Where entry `number` stands. The caller keeps `number` below `entries`.
    #[must_use]
    pub const fn entry_at(self, number: u32) -> usize {
        HEADER + self.slots as usize * SLOT + number as usize * ENTRY
    }

    /// The slot of a key hash. A negative hash, which no writer makes, counts as its absolute value.
    #[must_use]
    pub const fn slot_of(self, key_hash: i32) -> u32 {
        match self.slots {
            0 => 0,
            slots => key_hash.unsigned_abs() % slots,
        }
    }

    /// Whether a file with this header takes no more entries.
    #[must_use]
    pub const fn is_full(self, header: &Header) -> bool {
        header.index_count >= self.entries
    }
}

/// Digits of an IndexFile's name.
pub const NAME_LEN: usize = 17;

/// The name of an IndexFile made at `now`, as `yyyyMMddHHmmssSSS` on a clock `utc_offset_seconds` ahead of UTC.
///
/// ```
/// use reput::{StoreTimestamp, format::index::file_name};
/// assert_eq!(file_name(StoreTimestamp(1_795_240_627_417), 0), "20261121055707417");
/// ```
#[must_use]
pub fn file_name(now: StoreTimestamp, utc_offset_seconds: i64) -> String {
    // Within the years 0 to 9999, so that the name keeps its 17 digits whatever the clock says.
    let local = now
        .0
        .saturating_add(utc_offset_seconds.saturating_mul(1000))
        .clamp(-62_167_219_200_000, 253_402_300_799_999);
    let (days, millis) = (local.div_euclid(86_400_000), local.rem_euclid(86_400_000));
    let (year, month, day) = civil(days);
    let (seconds, ms) = (millis / 1000, millis % 1000);
    format!(
        "{year:04}{month:02}{day:02}{:02}{:02}{:02}{ms:03}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )
}

/// Year, month and day of a day counted from 1970-01-01. Years are counted from March, so that the leap day is
/// the last of its year, in eras of 400 years, which all have the same number of days.
const fn civil(days: i64) -> (i64, i64, i64) {
    const ERA: i64 = 146_097;
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(ERA), days.rem_euclid(ERA));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year_of_era + (month <= 2) as i64, month, day)
}

/// Whether `name` can be an IndexFile's: digits only, 17 of them.
#[must_use]
pub fn is_file_name(name: &str) -> bool {
    name.len() == NAME_LEN && name.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_default_file_has_the_size_of_javas() {
        assert_eq!(Geometry::DEFAULT.file_size(), 420_000_040);
        assert_eq!(Geometry { slots: 64, entries: 128 }.file_size(), 2856);
    }

    #[test]
    fn time_differences_are_whole_seconds_and_never_negative() {
        let diff = |begin, store| time_diff(StoreTimestamp(begin), StoreTimestamp(store));
        assert_eq!(diff(1000, 1999), 0);
        assert_eq!(diff(1000, 3000), 2);
        assert_eq!(diff(9000, 1000), 0);
        assert_eq!(diff(0, i64::MAX), i32::MAX);
        assert_eq!(diff(i64::MIN, i64::MAX), i32::MAX);
    }

    #[test]
    fn file_names_follow_the_local_clock() {
        for (ms, offset, name) in [
            (0, 0, "19700101000000000"),
            (951_782_399_999, 0, "20000228235959999"),
            (951_782_400_000, 0, "20000229000000000"),
            (951_868_800_000, 0, "20000301000000000"),
            (1_795_240_627_417, 28_800, "20261121135707417"),
            (-1, 0, "19691231235959999"),
            (i64::MAX, 0, "99991231235959999"),
            (i64::MIN, -3600, "00000101000000000"),
        ] {
            assert_eq!(file_name(StoreTimestamp(ms), offset), name);
            assert!(is_file_name(name));
        }
        assert!(!is_file_name("2026112105570741x") && !is_file_name(""));
    }

    proptest! {
        #[test]
        fn headers_and_entries_come_back_as_written(v: [i64; 5], k: i32, t: i32, p: i32, s in 0..=i32::MAX, n in 1..=i32::MAX) {
            let header = Header {
                begin_timestamp: v[0].into(), end_timestamp: v[1].into(), begin_offset: v[2].into(),
                end_offset: v[3].into(), slot_count: s.unsigned_abs(), index_count: n.unsigned_abs(),
            };
            prop_assert_eq!(Header::decode(&header.encode()), Ok(header));
            let entry = Entry { key_hash: k, offset: v[4].into(), time_diff: t, previous: p };
            prop_assert_eq!(Entry::decode(&entry.encode()), entry);
        }

        #[test]
        fn names_sort_by_time(a in 0i64..4_000_000_000_000, b in 0i64..4_000_000_000_000) {
            prop_assert_eq!(file_name(a.into(), 0).cmp(&file_name(b.into(), 0)), a.cmp(&b));
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..60), hash: i32, slots: u32) {
            let _ = Header::decode(&bytes);
            let _ = Geometry { slots, entries: 2 }.slot_of(hash);
        }
    }
}
