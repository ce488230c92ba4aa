//! Queue entries: the 20 bytes of a ConsumeQueue, the units of a ConsumeQueueExt and the 46 bytes of a
//! BatchConsumeQueue. FORMAT.md has a chapter on each.
//!
//! Entries of fixed width decode without failing: whether one counts is [`Entry::is_valid`]. Callers: the queues.

use super::{chunk, i64_at, range};
use crate::{
    error::Corruption,
    types::{PhysicalOffset, QueueOffset, StoreTimestamp, TagsCode},
};

/// Bytes of a [`Entry`].
pub const ENTRY: usize = 20;

/// Where a queue entry keeps the record's physical offset.
pub const OFFSET_AT: usize = 0;
/// Where a queue entry keeps the record's size.
pub const SIZE_AT: usize = 8;
/// Where a queue entry keeps the tags code.
pub const TAGS_CODE_AT: usize = 12;

/// Where one message of a queue lies in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The record's first byte.
    pub offset: PhysicalOffset,
    /// The record's bytes.
    pub size: i32,
    /// What filters look at, or an address in the ext file.
    pub tags_code: TagsCode,
}

impl Entry {
    /// Stands for the messages before the first one of a queue that starts mid-way.
    pub const FILLER: Self = Self { offset: PhysicalOffset(0), size: i32::MAX, tags_code: TagsCode(0) };

    /// Reads an entry.
    #[inline]
    #[must_use]
    pub fn decode(bytes: &[u8; ENTRY]) -> Self {
        let [o0, o1, o2, o3, o4, o5, o6, o7, s0, s1, s2, s3, t0, t1, t2, t3, t4, t5, t6, t7] = *bytes;
        Self {
            offset: PhysicalOffset(i64::from_be_bytes([o0, o1, o2, o3, o4, o5, o6, o7])),
            size: i32::from_be_bytes([s0, s1, s2, s3]),
            tags_code: TagsCode(i64::from_be_bytes([t0, t1, t2, t3, t4, t5, t6, t7])),
        }
    }

    /// Reads the whole entries of `bytes`; a rest shorter than an entry is left out.
    pub fn decode_all(bytes: &[u8]) -> impl DoubleEndedIterator<Item = Self> + ExactSizeIterator + '_ {
        bytes.as_chunks::<ENTRY>().0.iter().map(Self::decode)
    }

    /// Writes the entry.
    #[inline]
    #[must_use]
    pub fn encode(&self) -> [u8; ENTRY] {
        let mut bytes = [0; ENTRY];
        bytes[OFFSET_AT..SIZE_AT].copy_from_slice(&self.offset.0.to_be_bytes());
        bytes[SIZE_AT..TAGS_CODE_AT].copy_from_slice(&self.size.to_be_bytes());
        bytes[TAGS_CODE_AT..].copy_from_slice(&self.tags_code.0.to_be_bytes());
        bytes
    }

    /// Whether an entry stands here, as opposed to bytes never written. Fillers count.
    #[inline]
    #[must_use]
    pub const fn is_valid(&self) -> bool {
        self.offset.0 >= 0 && self.size > 0
    }

    /// Whether this is [`Entry::FILLER`].
    #[must_use]
    pub fn is_filler(&self) -> bool {
        *self == Self::FILLER
    }

    /// The first byte behind the record.
    #[must_use]
    pub fn end(&self) -> PhysicalOffset {
        self.offset.plus(usize::try_from(self.size).unwrap_or(0))
    }
}

/// The greatest tags code that is an ext address.
pub const MAX_EXT_ADDRESS: i64 = -2_147_483_649;

/// The tags code that stands for the ext unit at `position` in the queue's ext files. Positions from
/// 2^63 - 2^31 on would read as hashes and cannot be.
#[must_use]
pub const fn ext_address(position: u64) -> TagsCode {
    TagsCode(i64::MIN.wrapping_add_unsigned(position))
}

/// The position in the ext files that `tags_code` stands for, or `None` when it is a hash.
#[must_use]
pub const fn ext_position(tags_code: TagsCode) -> Option<u64> {
    if tags_code.0 <= MAX_EXT_ADDRESS {
        Some(tags_code.0.wrapping_sub(i64::MIN).cast_unsigned())
    } else {
        None
    }
}

/// Bytes of an ext unit without its bitmap.
pub const EXT_FIXED: usize = 20;
/// The longest ext unit: its size is a signed 16-bit number.
pub const EXT_MAX: usize = 32_767;
/// Bytes at the end of an ext file that hold no unit.
pub const EXT_END: usize = 4;
/// Stands where the next unit did not fit: the rest of the file is unused.
pub const EXT_FULL: [u8; 2] = (-1i16).to_be_bytes();
/// Where an ext unit keeps its own size.
pub const EXT_SIZE_AT: usize = 0;
/// Where an ext unit keeps the tags code.
pub const EXT_TAGS_CODE_AT: usize = 2;
/// Where an ext unit keeps the store timestamp.
pub const EXT_STORE_TIMESTAMP_AT: usize = 10;
/// Where an ext unit keeps the length of its bitmap.
pub const EXT_BITMAP_LEN_AT: usize = 18;

/// What a ConsumeQueueExt keeps about one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtUnit {
    /// The hash of the tags.
    pub tags_code: TagsCode,
    /// When the message was stored.
    pub store_timestamp: StoreTimestamp,
    /// Which filters match, as the broker numbers them; may be empty.
    pub bitmap: Vec<u8>,
}

impl ExtUnit {
    /// Bytes that the unit takes in the file; `None` when it would exceed [`EXT_MAX`].
    #[must_use]
    pub fn size(&self) -> Option<usize> {
        Some(EXT_FIXED + self.bitmap.len()).filter(|&size| size <= EXT_MAX)
    }

    /// Reads the unit at the start of `bytes`.
    ///
    /// # Errors
    /// [`Corruption`] when no whole unit stands there; a size of 0 or -1 is the end of the units in a file.
    pub fn decode(bytes: &[u8]) -> Result<Self, Corruption> {
        let stated = Self::stated_size(bytes)?;
        let unit = range(bytes, 0, stated, "ext unit")?;
        let bitmap_len = i64::from(i16::from_be_bytes(*chunk(unit, EXT_BITMAP_LEN_AT, "ext bitmap length")?));
        let max = i64::try_from(stated - EXT_FIXED).unwrap_or(0);
        let bitmap = usize::try_from(bitmap_len)
            .ok()
            .and_then(|len| unit.get(EXT_FIXED..EXT_FIXED + len))
            .ok_or(Corruption::OutOfRange { what: "ext bitmap length", value: bitmap_len, min: 0, max })?;
        Ok(Self {
            tags_code: TagsCode(i64_at(unit, EXT_TAGS_CODE_AT, "ext tags code")?),
            store_timestamp: StoreTimestamp(i64_at(unit, EXT_STORE_TIMESTAMP_AT, "ext store timestamp")?),
            bitmap: bitmap.to_vec(),
        })
    }

    /// The size that the unit at the start of `bytes` states.
    ///
    /// # Errors
    /// [`Corruption::OutOfRange`] when no unit has that size.
    pub fn stated_size(bytes: &[u8]) -> Result<usize, Corruption> {
        let value = i64::from(i16::from_be_bytes(*chunk(bytes, EXT_SIZE_AT, "ext unit size")?));
        usize::try_from(value).ok().filter(|&size| size >= EXT_FIXED).ok_or(Corruption::OutOfRange {
            what: "ext unit size",
            value,
            min: 20,
            max: 32_767,
        })
    }

    /// Appends the unit to `out`; nothing when it would exceed [`EXT_MAX`].
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (Some(size), Ok(bitmap_len)) =
            (self.size().and_then(|size| i16::try_from(size).ok()), i16::try_from(self.bitmap.len()))
        else {
            return;
        };
        out.extend_from_slice(&size.to_be_bytes());
        out.extend_from_slice(&self.tags_code.0.to_be_bytes());
        out.extend_from_slice(&self.store_timestamp.0.to_be_bytes());
        out.extend_from_slice(&bitmap_len.to_be_bytes());
        out.extend_from_slice(&self.bitmap);
    }
}

/// Bytes of a [`BatchEntry`].
pub const BATCH_ENTRY: usize = 46;

/// Where a batch entry keeps the record's physical offset.
pub const BATCH_OFFSET_AT: usize = 0;
/// Where a batch entry keeps the record's size.
pub const BATCH_SIZE_AT: usize = 8;
/// Where a batch entry keeps the tags code.
pub const BATCH_TAGS_CODE_AT: usize = 12;
/// Where a batch entry keeps the store timestamp.
pub const BATCH_STORE_TIMESTAMP_AT: usize = 20;
/// Where a batch entry keeps the queue offset of its first message.
pub const BATCH_BASE_AT: usize = 28;
/// Where a batch entry keeps the number of its messages.
pub const BATCH_NUM_AT: usize = 36;
/// Where a batch entry keeps the offset in a compacted log.
pub const BATCH_COMPACTED_AT: usize = 38;
/// Where the unused end of a batch entry begins.
pub const BATCH_RESERVED_AT: usize = 42;

/// Where one record with several messages lies in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchEntry {
    /// The record's first byte.
    pub offset: PhysicalOffset,
    /// The record's bytes.
    pub size: i32,
    /// What filters look at.
    pub tags_code: TagsCode,
    /// When the record was stored.
    pub store_timestamp: StoreTimestamp,
    /// The queue offset of the first message.
    pub base: QueueOffset,
    /// How many messages the record holds.
    pub num: i16,
    /// The offset in a compacted log; -1 without one.
    pub compacted: i32,
    /// Always 0.
    pub reserved: i32,
}

impl BatchEntry {
    /// Reads an entry.
    #[must_use]
    pub fn decode(bytes: &[u8; BATCH_ENTRY]) -> Self {
        let wide = |at: usize| i64_at(bytes, at, "batch entry").unwrap_or(0);
        let narrow = |at: usize| super::i32_at(bytes, at, "batch entry").unwrap_or(0);
        Self {
            offset: PhysicalOffset(wide(BATCH_OFFSET_AT)),
            size: narrow(BATCH_SIZE_AT),
            tags_code: TagsCode(wide(BATCH_TAGS_CODE_AT)),
            store_timestamp: StoreTimestamp(wide(BATCH_STORE_TIMESTAMP_AT)),
            base: QueueOffset(wide(BATCH_BASE_AT)),
            num: i16::from_be_bytes([bytes[BATCH_NUM_AT], bytes[BATCH_NUM_AT + 1]]),
            compacted: narrow(BATCH_COMPACTED_AT),
            reserved: narrow(BATCH_RESERVED_AT),
        }
    }

    /// Reads the whole entries of `bytes`; a rest shorter than an entry is left out.
    pub fn decode_all(bytes: &[u8]) -> impl DoubleEndedIterator<Item = Self> + ExactSizeIterator + '_ {
        bytes.as_chunks::<BATCH_ENTRY>().0.iter().map(Self::decode)
    }

    /// Writes the entry.
    #[must_use]
    pub fn encode(&self) -> [u8; BATCH_ENTRY] {
        let mut bytes = [0; BATCH_ENTRY];
        bytes[BATCH_OFFSET_AT..BATCH_SIZE_AT].copy_from_slice(&self.offset.0.to_be_bytes());
        bytes[BATCH_SIZE_AT..BATCH_TAGS_CODE_AT].copy_from_slice(&self.size.to_be_bytes());
        bytes[BATCH_TAGS_CODE_AT..BATCH_STORE_TIMESTAMP_AT].copy_from_slice(&self.tags_code.0.to_be_bytes());
        bytes[BATCH_STORE_TIMESTAMP_AT..BATCH_BASE_AT].copy_from_slice(&self.store_timestamp.0.to_be_bytes());
        bytes[BATCH_BASE_AT..BATCH_NUM_AT].copy_from_slice(&self.base.0.to_be_bytes());
        bytes[BATCH_NUM_AT..BATCH_COMPACTED_AT].copy_from_slice(&self.num.to_be_bytes());
        bytes[BATCH_COMPACTED_AT..BATCH_RESERVED_AT].copy_from_slice(&self.compacted.to_be_bytes());
        bytes[BATCH_RESERVED_AT..].copy_from_slice(&self.reserved.to_be_bytes());
        bytes
    }

    /// Whether an entry stands here, as opposed to bytes never written.
    #[must_use]
    pub const fn is_valid(&self) -> bool {
        self.offset.0 >= 0 && self.size > 0 && self.base.0 >= 0 && self.num > 0
    }

    /// The first byte behind the record.
    #[must_use]
    pub fn end(&self) -> PhysicalOffset {
        self.offset.plus(usize::try_from(self.size).unwrap_or(0))
    }

    /// The queue offset behind the last message.
    #[must_use]
    pub fn next(&self) -> QueueOffset {
        self.base.plus(i64::from(self.num))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_entry_that_java_wrote_for_tag_a_has_these_bytes() {
        let entry = Entry { offset: PhysicalOffset(0), size: 0x80, tags_code: TagsCode(2_598_919) };
        let bytes = *b"\0\0\0\0\0\0\0\0\0\0\0\x80\0\0\0\0\0\x27\xa8\x07";
        assert_eq!(entry.encode(), bytes);
        assert_eq!(Entry::decode(&bytes), entry);
        assert!(Entry::FILLER.is_valid() && !Entry::decode(&[0; ENTRY]).is_valid());
    }

    #[test]
    fn a_tags_code_is_an_address_only_below_every_hash() {
        assert_eq!(ext_position(TagsCode(i64::from(i32::MIN))), None);
        assert_eq!(ext_position(TagsCode(MAX_EXT_ADDRESS)), Some((1 << 63) - (1 << 31) - 1));
        assert_eq!(ext_position(ext_address(0)), Some(0));
        assert_eq!(ext_position(ext_address(50_331_648)), Some(50_331_648));
    }

    #[test]
    fn the_ends_of_the_units_in_a_file_are_no_units() {
        assert!(ExtUnit::decode(&[0; 40]).is_err());
        assert!(ExtUnit::decode(&EXT_FULL).is_err());
        assert!(ExtUnit::decode(&[]).is_err());
    }

    proptest! {
        #[test]
        fn entries_come_back_as_written(o: i64, s: i32, t: i64, ts: i64, b: i64, n: i16, c: i32, r: i32) {
            let entry = Entry { offset: o.into(), size: s, tags_code: t.into() };
            prop_assert_eq!(Entry::decode(&entry.encode()), entry);
            let batch = BatchEntry {
                offset: o.into(), size: s, tags_code: t.into(), store_timestamp: ts.into(), base: b.into(), num: n,
                compacted: c, reserved: r,
            };
            prop_assert_eq!(BatchEntry::decode(&batch.encode()), batch);
        }

        #[test]
        fn ext_units_come_back_as_written(t: i64, ts: i64, bitmap in prop::collection::vec(any::<u8>(), 0..200)) {
            let unit = ExtUnit { tags_code: t.into(), store_timestamp: ts.into(), bitmap };
            let mut bytes = Vec::new();
            unit.encode(&mut bytes);
            prop_assert_eq!(Some(bytes.len()), unit.size());
            bytes.extend_from_slice(b"next");
            prop_assert_eq!(ExtUnit::decode(&bytes), Ok(unit));
        }

        #[test]
        fn no_bytes_make_the_decoders_panic(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            let _ = ExtUnit::decode(&bytes);
            for entry in Entry::decode_all(&bytes) {
                let _ = (entry.end(), entry.is_valid(), ext_position(entry.tags_code));
            }
            for entry in BatchEntry::decode_all(&bytes) {
                let _ = (entry.end(), entry.next());
            }
        }
    }
}
