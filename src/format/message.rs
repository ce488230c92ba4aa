//! CommitLog records: reading. Writing is in `draft`, re-exported here. FORMAT.md, "CommitLog record".
//!
//! [`Record::decode`] checks every length and that the parts add up to the stated size; checksums are asked for
//! one by one, and whether the record stands where it says is the caller's to compare. [`Header::peek`] reads
//! the few fields that dispatch needs. Callers: recovery, dispatch, get, the broker.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

pub use super::draft::{Draft, Limits, Measured, Place, Sink, encode_blank};
use super::{
    chunk, i32_at, i64_at,
    properties::{CRC32, NAME_END, PAIR_END, Properties},
    range,
};
use crate::{
    error::Corruption,
    types::{PhysicalOffset, QueueId, QueueOffset, StoreTimestamp, SysFlag},
};

/// Magic of a record whose topic length takes one byte.
pub const MAGIC_V1: u32 = 0xDAA3_20A7;
/// Magic of a record whose topic length takes two bytes.
pub const MAGIC_V2: u32 = 0xDAA3_20AB;
/// Magic of what fills the end of a segment.
pub const MAGIC_BLANK: u32 = 0xCBD4_3194;
/// Bytes that a blank writes.
pub const BLANK_LEN: usize = 8;
/// The longest properties of a record in bytes, with the checksum: the length is a signed 16-bit number.
pub const MAX_PROPERTIES: usize = 32_767;
/// Bytes of the checksum property at the end of a record: name, separator, ten digits, separator.
pub const PROP_CRC_LEN: usize = 20;
/// The longest topic of a version 1 record: the length is a signed byte.
pub const MAX_TOPIC_V1: usize = 127;
/// The shortest record: version 1, IPv4 hosts, nothing in it.
pub const MIN_RECORD: usize = 91;
/// Bytes that a record may have on top of maxMessageSize.
pub const RECORD_OVERHEAD: usize = 65_536;

/// Where a record keeps totalSize.
pub const TOTAL_SIZE_AT: usize = 0;
/// Where a record keeps its magic.
pub const MAGIC_AT: usize = 4;
/// Where a record keeps the checksum of its body.
pub const BODY_CRC_AT: usize = 8;
/// Where a record keeps its queue.
pub const QUEUE_ID_AT: usize = 12;
/// Where a record keeps the application's flag.
pub const FLAG_AT: usize = 16;
/// Where a record keeps its number in the queue.
pub const QUEUE_OFFSET_AT: usize = 20;
/// Where a record keeps its own place.
pub const PHYSICAL_OFFSET_AT: usize = 28;
/// Where a record keeps sysFlag.
pub const SYS_FLAG_AT: usize = 36;
/// Where a record keeps the client's time.
pub const BORN_TIMESTAMP_AT: usize = 40;
/// Where a record keeps the client's address. What follows moves with the widths of the addresses.
pub const BORN_HOST_AT: usize = 48;
/// Bytes of an IPv4 address and its port.
pub const HOST_V4: usize = 8;
/// Bytes of an IPv6 address and its port.
pub const HOST_V6: usize = 20;
/// Bytes from the store host to the body: reconsumeTimes, preparedTransactionOffset, bodyLength.
pub(super) const BEFORE_BODY: usize = 4 + 8 + 4;

/// How a record writes the length of its topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// In one byte.
    V1,
    /// In two bytes; since 5.1.
    V2,
}

impl Version {
    /// The magic of records of this version.
    #[must_use]
    pub const fn magic(self) -> u32 {
        match self {
            Self::V1 => MAGIC_V1,
            Self::V2 => MAGIC_V2,
        }
    }

    /// Bytes of the topic length.
    #[must_use]
    pub const fn topic_len_width(self) -> usize {
        match self {
            Self::V1 => 1,
            Self::V2 => 2,
        }
    }
}

/// A record, read whole. The variable parts are borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Bytes of the record.
    pub total_size: usize,
    /// How its topic length is written.
    pub version: Version,
    /// The checksum of the body as stored; see [`Record::verify_body_crc`].
    pub body_crc: u32,
    /// Its queue.
    pub queue_id: QueueId,
    /// The application's flag.
    pub flag: i32,
    /// Its number in the queue; 0 for prepared and rolled-back messages.
    pub queue_offset: QueueOffset,
    /// Where it says that it stands.
    pub physical_offset: PhysicalOffset,
    /// Compression, transaction, address families.
    pub sys_flag: SysFlag,
    /// When the client made it.
    pub born_timestamp: StoreTimestamp,
    /// The client's address.
    pub born_host: SocketAddr,
    /// When it was stored.
    pub store_timestamp: StoreTimestamp,
    /// The broker's address.
    pub store_host: SocketAddr,
    /// How often it was given back by consumers.
    pub reconsume_times: i32,
    /// For transactions: where the prepared message stands.
    pub prepared_transaction_offset: i64,
    /// The body as stored, compressed or not.
    pub body: &'a [u8],
    /// The topic.
    pub topic: &'a str,
    /// The properties.
    pub properties: Properties<'a>,
}

impl<'a> Record<'a> {
    /// Reads the record at the start of `bytes`, which may go on behind it. Checksums are not looked at.
    ///
    /// # Errors
    /// [`Corruption`] when no whole, consistent record stands there.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Corruption> {
        let parts = Parts::locate(bytes)?;
        let head = parts.head;
        let after_store = parts.store_host_at + parts.store_width;
        Ok(Self {
            total_size: parts.bytes.len(),
            version: parts.version,
            body_crc: u32::from_be_bytes(*chunk(head, BODY_CRC_AT, "body checksum")?),
            queue_id: QueueId(i32_at(head, QUEUE_ID_AT, "queue id")?),
            flag: i32_at(head, FLAG_AT, "flag")?,
            queue_offset: QueueOffset(i64_at(head, QUEUE_OFFSET_AT, "queue offset")?),
            physical_offset: PhysicalOffset(i64_at(head, PHYSICAL_OFFSET_AT, "physical offset")?),
            sys_flag: parts.sys_flag,
            born_timestamp: StoreTimestamp(i64_at(head, BORN_TIMESTAMP_AT, "born timestamp")?),
            born_host: host(range(parts.bytes, BORN_HOST_AT, parts.born_width, "born host")?)?,
            store_timestamp: parts.store_timestamp()?,
            store_host: host(range(parts.bytes, parts.store_host_at, parts.store_width, "store host")?)?,
            reconsume_times: i32_at(parts.bytes, after_store, "reconsume times")?,
            prepared_transaction_offset: i64_at(parts.bytes, after_store + 4, "prepared transaction offset")?,
            body: parts.body,
            topic: parts.topic()?,
            properties: Properties::new(parts.properties),
        })
    }

    /// Compares the body with its checksum. An empty body has none.
    ///
    /// # Errors
    /// [`Corruption::Checksum`] when they differ.
    pub fn verify_body_crc(&self) -> Result<(), Corruption> {
        verify_body(self.body, self.body_crc)
    }
}

/// A record of which recovery has seen all that [`Record::decode`] checks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Inspected<'a> {
    pub header: Header<'a>,
    body: &'a [u8],
    body_crc: u32,
}

impl<'a> Inspected<'a> {
    /// Accepts what [`Record::decode`] accepts, and takes less of it along.
    ///
    /// # Errors
    /// As [`Record::decode`].
    #[inline]
    pub(crate) fn of(bytes: &'a [u8]) -> Result<Self, Corruption> {
        let parts = Parts::locate(bytes)?;
        let port = |end: usize| i32_at(parts.bytes, end - 4, "port").map(u16::try_from);
        let ports = [port(BORN_HOST_AT + parts.born_width)?, port(parts.store_host_at + parts.store_width)?];
        if ports.iter().any(std::result::Result::is_err) {
            Record::decode(bytes)?;
        }
        let body_crc = u32::from_be_bytes(*chunk(parts.head, BODY_CRC_AT, "body checksum")?);
        Ok(Self { header: Header::of(&parts)?, body: parts.body, body_crc })
    }

    /// As [`Record::verify_body_crc`].
    #[inline]
    pub(crate) fn verify_body_crc(&self) -> Result<(), Corruption> {
        verify_body(self.body, self.body_crc)
    }
}

#[inline]
fn verify_body(body: &[u8], stored: u32) -> Result<(), Corruption> {
    let computed = body_crc(body);
    if body.is_empty() || computed == stored {
        return Ok(());
    }
    Err(Corruption::Checksum { what: "body", stored, computed })
}

/// The checksum that a record keeps of its body.
#[inline]
#[must_use]
pub fn body_crc(body: &[u8]) -> u32 {
    crc32fast::hash(body) & 0x7fff_ffff
}

/// Compares a record with the checksum in its last property. `Ok(false)` when it has no such property.
///
/// # Errors
/// [`Corruption`] when they differ or no record stands there.
pub fn verify_prop_crc(record_bytes: &[u8]) -> Result<bool, Corruption> {
    let parts = Parts::locate(record_bytes)?;
    let Some(stored) = prop_crc(parts.properties) else { return Ok(false) };
    let covered = range(parts.bytes, 0, parts.bytes.len() - PROP_CRC_LEN, "record")?;
    let computed = crc32fast::hash(covered) & 0x7fff_ffff;
    if stored == u64::from(computed) {
        return Ok(true);
    }
    let stored = u32::try_from(stored).unwrap_or(u32::MAX);
    Err(Corruption::Checksum { what: "record", stored, computed })
}

/// The checksum that ends `properties`, if one does. Its digits stand least significant first.
pub(super) fn prop_crc(properties: &[u8]) -> Option<u64> {
    let tail = properties.last_chunk::<PROP_CRC_LEN>()?;
    let digits = tail.strip_prefix(CRC32.as_bytes())?.strip_prefix(&[NAME_END])?.strip_suffix(&[PAIR_END])?;
    digits
        .iter()
        .rev()
        .try_fold(0u64, |value, digit| digit.is_ascii_digit().then(|| value * 10 + u64::from(digit - b'0')))
}

/// What stands at a place in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// A record.
    Record(Record<'a>),
    /// The end of the segment's records.
    Blank {
        /// What the blank says is left of the segment, itself included.
        len: usize,
    },
}

/// Reads what stands at the start of `bytes`, which reach to the end of the segment.
///
/// # Errors
/// [`Corruption`] when neither a record nor a blank stands there; [`Corruption::Magic`] with magic 0 where
/// nothing was written.
pub fn read_at(bytes: &[u8]) -> Result<Found<'_>, Corruption> {
    match size_and_magic(bytes)? {
        (len, MAGIC_BLANK) => Ok(Found::Blank { len }),
        _ => Record::decode(bytes).map(Found::Record),
    }
}

/// The stated size of the record or blank at the start of `bytes`, and its magic, which is one of the three.
///
/// # Errors
/// [`Corruption`] when the magic is another, or the size is too small or beyond `bytes`.
#[inline]
pub fn size_and_magic(bytes: &[u8]) -> Result<(usize, u32), Corruption> {
    let magic = u32::from_be_bytes(*chunk(bytes, MAGIC_AT, "record magic")?);
    let min = match magic {
        MAGIC_V1 => MIN_RECORD,
        MAGIC_V2 => MIN_RECORD + 1,
        MAGIC_BLANK => BLANK_LEN,
        _ => return Err(Corruption::Magic { magic }),
    };
    let stated = i32_at(bytes, TOTAL_SIZE_AT, "record size")?;
    match usize::try_from(stated) {
        Ok(size) if size >= min && size <= bytes.len() => Ok((size, magic)),
        Ok(size) if size >= min => Err(Corruption::Short { what: "record", need: size, have: bytes.len() }),
        _ => Err(Corruption::OutOfRange {
            what: "record size",
            value: stated.into(),
            min: i64::try_from(min).unwrap_or(0),
            max: i64::try_from(bytes.len()).unwrap_or(i64::MAX),
        }),
    }
}

/// What dispatch needs of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// Bytes of the record.
    pub total_size: usize,
    /// Its queue.
    pub queue_id: QueueId,
    /// Its number in the queue.
    pub queue_offset: QueueOffset,
    /// Where it says that it stands.
    pub physical_offset: PhysicalOffset,
    /// Compression, transaction, address families.
    pub sys_flag: SysFlag,
    /// When it was stored.
    pub store_timestamp: StoreTimestamp,
    /// The topic.
    pub topic: &'a str,
    /// The properties.
    pub properties: Properties<'a>,
}

impl<'a> Header<'a> {
    /// Reads the record at the start of `bytes` without hosts, body and checksums. The lengths are checked as
    /// [`Record::decode`] does.
    ///
    /// # Errors
    /// [`Corruption`] when no whole, consistent record stands there.
    #[inline]
    pub fn peek(bytes: &'a [u8]) -> Result<Self, Corruption> {
        Self::of(&Parts::locate(bytes)?)
    }

    #[inline]
    fn of(parts: &Parts<'a>) -> Result<Self, Corruption> {
        Ok(Self {
            total_size: parts.bytes.len(),
            queue_id: QueueId(i32_at(parts.head, QUEUE_ID_AT, "queue id")?),
            queue_offset: QueueOffset(i64_at(parts.head, QUEUE_OFFSET_AT, "queue offset")?),
            physical_offset: PhysicalOffset(i64_at(parts.head, PHYSICAL_OFFSET_AT, "physical offset")?),
            sys_flag: parts.sys_flag,
            store_timestamp: parts.store_timestamp()?,
            topic: parts.topic()?,
            properties: Properties::new(parts.properties),
        })
    }
}

/// Where the parts of one record lie: every length checked, the sum equal to the stated size.
struct Parts<'a> {
    /// The record and nothing behind it.
    bytes: &'a [u8],
    /// Its fixed beginning.
    head: &'a [u8; BORN_HOST_AT],
    version: Version,
    sys_flag: SysFlag,
    born_width: usize,
    store_host_at: usize,
    store_width: usize,
    body: &'a [u8],
    topic: &'a [u8],
    properties: &'a [u8],
}

impl<'a> Parts<'a> {
    #[inline]
    fn locate(bytes: &'a [u8]) -> Result<Self, Corruption> {
        match Self::locate_good(bytes) {
            Some(parts) => Ok(parts),
            None => Self::locate_checked(bytes),
        }
    }

    /// The parts of a record in which nothing is wrong.
    #[inline]
    fn locate_good(bytes: &'a [u8]) -> Option<Self> {
        let word = |at: usize| Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
        let head: &[u8; BORN_HOST_AT] = bytes.first_chunk()?;
        let version = match word(MAGIC_AT)? {
            MAGIC_V1 => Version::V1,
            MAGIC_V2 => Version::V2,
            _ => return None,
        };
        let size = word(TOTAL_SIZE_AT)? as usize;
        let bytes = bytes.get(..size).filter(|_| size >= MIN_RECORD)?;
        let sys_flag = SysFlag(word(SYS_FLAG_AT)?.cast_signed());
        let (born_width, store_width) =
            (width(sys_flag, SysFlag::BORN_HOST_V6), width(sys_flag, SysFlag::STORE_HOST_V6));
        let store_host_at = BORN_HOST_AT + born_width + 8;
        let body_at = store_host_at + store_width + BEFORE_BODY;
        // A negative length is one beyond any record here, and no sum of such numbers wraps.
        let body_end = body_at.checked_add(word(body_at - 4)? as usize)?;
        let body = bytes.get(body_at..body_end)?;
        let rest = bytes.get(body_end..)?;
        let (topic_len, width) = match version {
            Version::V1 => (usize::from(*rest.first()?), 1),
            Version::V2 => (usize::from(u16::from_be_bytes(*rest.first_chunk()?)), 2),
        };
        if topic_len > if width == 1 { MAX_TOPIC_V1 } else { i16::MAX.unsigned_abs().into() } {
            return None;
        }
        let (topic, rest) = rest.get(width..)?.split_at_checked(topic_len)?;
        let (stated, properties) = rest.split_first_chunk()?;
        if usize::from(u16::from_be_bytes(*stated)) != properties.len() || properties.len() > MAX_PROPERTIES {
            return None;
        }
        Some(Self {
            bytes,
            head,
            version,
            sys_flag,
            born_width,
            store_host_at,
            store_width,
            body,
            topic,
            properties,
        })
    }

    /// The same, saying what is wrong.
    #[cold]
    #[inline(never)]
    fn locate_checked(bytes: &'a [u8]) -> Result<Self, Corruption> {
        let (size, magic) = size_and_magic(bytes)?;
        let version = match magic {
            MAGIC_V1 => Version::V1,
            MAGIC_V2 => Version::V2,
            _ => return Err(Corruption::Magic { magic }),
        };
        let bytes = range(bytes, 0, size, "record")?;
        let head = chunk(bytes, 0, "record header")?;
        let sys_flag = SysFlag(i32_at(head, SYS_FLAG_AT, "sysFlag")?);
        let born_width = width(sys_flag, SysFlag::BORN_HOST_V6);
        let store_width = width(sys_flag, SysFlag::STORE_HOST_V6);
        let store_host_at = BORN_HOST_AT + born_width + 8;

        let body_at = store_host_at + store_width + BEFORE_BODY;
        let body_len = length(i32_at(bytes, body_at - 4, "body length")?.into(), size, "body length")?;
        let body = range(bytes, body_at, body_len, "body")?;

        let at = body_at + body_len;
        let topic_len: i64 = match version {
            Version::V1 => i8::from_be_bytes(*chunk(bytes, at, "topic length")?).into(),
            Version::V2 => i16::from_be_bytes(*chunk(bytes, at, "topic length")?).into(),
        };
        let topic_len = length(topic_len, size, "topic length")?;
        let at = at + version.topic_len_width();
        let topic = range(bytes, at, topic_len, "topic")?;

        let at = at + topic_len;
        let properties_len = i16::from_be_bytes(*chunk(bytes, at, "properties length")?);
        let properties_len = length(properties_len.into(), size, "properties length")?;
        let properties = range(bytes, at + 2, properties_len, "properties")?;

        let sum = at + 2 + properties_len;
        if sum != size {
            return Err(Corruption::Size { stated: size, sum });
        }
        Ok(Self {
            bytes,
            head,
            version,
            sys_flag,
            born_width,
            store_host_at,
            store_width,
            body,
            topic,
            properties,
        })
    }

    #[inline]
    fn store_timestamp(&self) -> Result<StoreTimestamp, Corruption> {
        i64_at(self.bytes, self.store_host_at - 8, "store timestamp").map(StoreTimestamp)
    }

    #[inline]
    fn topic(&self) -> Result<&'a str, Corruption> {
        std::str::from_utf8(self.topic).map_err(|_| Corruption::Text { what: "topic" })
    }
}

const fn width(sys_flag: SysFlag, v6: i32) -> usize {
    if sys_flag.has(v6) { HOST_V6 } else { HOST_V4 }
}

#[inline]
fn length(value: i64, size: usize, what: &'static str) -> Result<usize, Corruption> {
    usize::try_from(value).ok().filter(|&len| len <= size).ok_or(Corruption::OutOfRange {
        what,
        value,
        min: 0,
        max: i64::try_from(size).unwrap_or(i64::MAX),
    })
}

/// An address and its port, 8 or 20 bytes.
fn host(bytes: &[u8]) -> Result<SocketAddr, Corruption> {
    let port = |at| {
        let value = i32_at(bytes, at, "port")?;
        u16::try_from(value).map_err(|_| Corruption::OutOfRange {
            what: "port",
            value: value.into(),
            min: 0,
            max: u16::MAX.into(),
        })
    };
    if bytes.len() == HOST_V4 {
        let ip = Ipv4Addr::from(*chunk::<4>(bytes, 0, "address")?);
        Ok(SocketAddrV4::new(ip, port(4)?).into())
    } else {
        let ip = Ipv6Addr::from(*chunk::<16>(bytes, 0, "address")?);
        Ok(SocketAddrV6::new(ip, port(16)?, 0, 0).into())
    }
}
