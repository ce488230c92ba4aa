//! CommitLog records: writing. A [`Draft`] is what a put knows, [`Measured`] is everything that can be worked out
//! before the put lock is taken, and [`Measured::encode`] patches in the three numbers that only the lock gives.
//!
//! Encoding hands a [`Sink`] a few pieces: fixed header, body, topic, properties. It allocates nothing and cannot
//! fail. Callers: the store's puts, tests that re-encode what Java wrote.

use std::net::{SocketAddr, SocketAddrV4};

use super::{
    message::{
        BEFORE_BODY, BLANK_LEN, BODY_CRC_AT, BORN_HOST_AT, BORN_TIMESTAMP_AT, FLAG_AT, HOST_V4, HOST_V6,
        MAGIC_AT, MAGIC_BLANK, MAX_PROPERTIES, MAX_TOPIC_V1, PHYSICAL_OFFSET_AT, PROP_CRC_LEN, QUEUE_ID_AT,
        QUEUE_OFFSET_AT, RECORD_OVERHEAD, SYS_FLAG_AT, TOTAL_SIZE_AT, Version, body_crc, prop_crc,
    },
    properties::{CRC32, NAME_END, PAIR_END},
};
use crate::{
    error::Error,
    types::{PhysicalOffset, QueueId, QueueOffset, StoreTimestamp, SysFlag},
};

/// Where encoded bytes go, in order.
pub trait Sink {
    /// Takes the next bytes.
    fn put(&mut self, bytes: &[u8]);

    /// Takes the beginning of a record, at least its size. A sink over a file may keep the size back until the rest is
    /// there.
    #[inline]
    fn begin(&mut self, head: &[u8]) {
        self.put(head);
    }
}

impl Sink for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// What the configuration allows and asks of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest body: maxMessageSize.
    pub max_message_size: usize,
    /// Whether long topics make a version 2 record; they are refused otherwise: autoMessageVersionOnTopicLen.
    pub auto_message_version: bool,
    /// Whether the record ends with a checksum of all its bytes: enabledAppendPropCRC.
    pub append_prop_crc: bool,
    /// Bytes of a segment: mappedFileSizeCommitLog. Record and blank must fit.
    pub segment_size: usize,
}

/// A record about to be written: what the put knows.
#[derive(Clone, Copy, Debug)]
pub struct Draft<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The queue.
    pub queue_id: QueueId,
    /// The application's flag.
    pub flag: i32,
    /// Compression, transaction and the like; the bits of the address families are set from the hosts.
    pub sys_flag: SysFlag,
    /// When the client made the message.
    pub born_timestamp: StoreTimestamp,
    /// The client's address.
    pub born_host: SocketAddr,
    /// The broker's address.
    pub store_host: SocketAddr,
    /// How often the message was given back by consumers.
    pub reconsume_times: i32,
    /// For transactions: where the prepared message stands.
    pub prepared_transaction_offset: i64,
    /// The body as it is to be stored.
    pub body: &'a [u8],
    /// The properties as they are to be stored. A checksum property at their end is left out: it is the store's.
    pub properties: &'a [u8],
}

/// What only the put lock knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The number in the queue.
    pub queue_offset: QueueOffset,
    /// The record's first byte.
    pub physical_offset: PhysicalOffset,
    /// When the message is stored.
    pub store_timestamp: StoreTimestamp,
}

/// The longest fixed beginning: two IPv6 hosts.
const MAX_HEAD: usize = BORN_HOST_AT + HOST_V6 + 8 + HOST_V6 + BEFORE_BODY;
/// The fixed beginning with two IPv4 hosts, which nearly all records have.
const HEAD_V4: usize = BORN_HOST_AT + HOST_V4 + 8 + HOST_V4 + BEFORE_BODY;

/// A record whose sizes and checksum are worked out.
#[derive(Clone, Copy, Debug)]
pub struct Measured<'a> {
    /// With the flags as they are written, and properties without a checksum.
    draft: Draft<'a>,
    extra: &'a [u8],
    version: Version,
    body_crc: u32,
    properties_len: i16,
    total_size: i32,
    limits: Limits,
}

impl<'a> Draft<'a> {
    /// Works out everything that does not depend on the place: sizes and the checksum of the body.
    ///
    /// # Errors
    /// [`Error::BodyTooLarge`], [`Error::PropertiesTooLarge`], [`Error::RecordTooLarge`] and
    /// [`Error::InvalidTopic`] when the message exceeds what a record can hold or the limits allow.
    #[inline]
    pub fn measure(mut self, limits: Limits) -> Result<Measured<'a>, Error> {
        if self.body.len() > limits.max_message_size {
            return Err(Error::BodyTooLarge { size: self.body.len(), limit: limits.max_message_size });
        }
        let version = self.version(limits)?;
        self.sys_flag = self
            .sys_flag
            .with(SysFlag::BORN_HOST_V6, self.born_host.is_ipv6())
            .with(SysFlag::STORE_HOST_V6, self.store_host.is_ipv6());
        self.properties = without_prop_crc(self.properties);
        let body_crc = body_crc(self.body);
        let mut measured =
            Measured { draft: self, extra: &[], version, body_crc, properties_len: 0, total_size: 0, limits };
        measured.settle()?;
        Ok(measured)
    }

    #[inline]
    fn version(&self, limits: Limits) -> Result<Version, Error> {
        match self.topic.len() {
            0..=MAX_TOPIC_V1 => Ok(Version::V1),
            len if limits.auto_message_version && i16::try_from(len).is_ok() => Ok(Version::V2),
            _ => Err(Error::InvalidTopic { topic: self.topic.chars().take(300).collect() }),
        }
    }

    /// Bytes of the fixed beginning.
    #[inline]
    fn head_len(&self) -> usize {
        let width = |host: SocketAddr| if host.is_ipv4() { HOST_V4 } else { HOST_V6 };
        BORN_HOST_AT + width(self.born_host) + 8 + width(self.store_host) + BEFORE_BODY
    }
}

/// The properties before the store's own checksum: what a caller hands over under that name is not kept.
#[inline]
fn without_prop_crc(properties: &[u8]) -> &[u8] {
    match properties.split_last_chunk::<PROP_CRC_LEN>() {
        Some((before, _)) if prop_crc(properties).is_some() => before,
        _ => properties,
    }
}

/// Whether a separator must be added before more properties can follow.
#[inline]
fn is_open(properties: &[u8]) -> bool {
    properties.last().is_some_and(|&last| last != PAIR_END)
}

impl<'a> Measured<'a> {
    /// Bytes of the record.
    #[inline]
    #[must_use]
    pub const fn total_size(&self) -> usize {
        self.total_size.unsigned_abs() as usize
    }

    /// How the topic length is written.
    #[must_use]
    pub const fn version(&self) -> Version {
        self.version
    }

    /// sysFlag as it is written.
    #[must_use]
    pub const fn sys_flag(&self) -> SysFlag {
        self.draft.sys_flag
    }

    /// The checksum of the body.
    #[must_use]
    pub const fn body_crc(&self) -> u32 {
        self.body_crc
    }

    /// The broker's address in the record.
    #[inline]
    #[must_use]
    pub const fn store_host(&self) -> SocketAddr {
        self.draft.store_host
    }

    /// This record with more properties behind its own: whole pairs, known only under the put lock. They take the
    /// place of those given before.
    ///
    /// # Errors
    /// As [`Draft::measure`], for the size with them.
    pub fn with_extra<'b>(&self, extra: &'b [u8]) -> Result<Measured<'b>, Error>
    where
        'a: 'b,
    {
        let mut longer: Measured<'b> = *self;
        longer.extra = extra;
        longer.settle()?;
        Ok(longer)
    }

    /// Works out the lengths of properties and record.
    #[inline]
    fn settle(&mut self) -> Result<(), Error> {
        let Draft { properties, topic, body, .. } = self.draft;
        let mut properties_len = properties.len() + self.extra.len();
        properties_len += usize::from(self.joins_extra());
        if self.limits.append_prop_crc {
            properties_len += usize::from(self.joins_crc()) + PROP_CRC_LEN;
        }
        let Some(stated_properties) =
            i16::try_from(properties_len).ok().filter(|_| properties_len <= MAX_PROPERTIES)
        else {
            return Err(Error::PropertiesTooLarge { size: properties_len, limit: MAX_PROPERTIES });
        };

        let topic_width = self.version.topic_len_width();
        let size = self.draft.head_len() + body.len() + topic_width + topic.len() + 2 + properties_len;
        let limit = self
            .limits
            .max_message_size
            .saturating_add(RECORD_OVERHEAD)
            .min(self.limits.segment_size.saturating_sub(BLANK_LEN))
            .min(i32::MAX.unsigned_abs() as usize);
        let Some(stated_size) = i32::try_from(size).ok().filter(|_| size <= limit) else {
            return Err(Error::RecordTooLarge { size, limit });
        };
        (self.properties_len, self.total_size) = (stated_properties, stated_size);
        Ok(())
    }

    #[inline]
    fn joins_extra(&self) -> bool {
        !self.extra.is_empty() && is_open(self.draft.properties)
    }

    fn joins_crc(&self) -> bool {
        is_open(if self.extra.is_empty() { self.draft.properties } else { self.extra })
    }

    /// Writes the record for its place: exactly [`Measured::total_size`] bytes.
    #[inline]
    pub fn encode(&self, at: Place, sink: &mut impl Sink) {
        if self.limits.append_prop_crc {
            self.encode_with_crc(at, sink);
        } else {
            self.encode_plain(at, sink);
        }
    }

    fn encode_with_crc(&self, at: Place, sink: &mut impl Sink) {
        let mut hashing = Hashing { sink, hasher: crc32fast::Hasher::new() };
        self.encode_plain(at, &mut hashing);
        if self.joins_crc() {
            hashing.put(&[PAIR_END]);
        }
        let crc = hashing.hasher.finalize() & 0x7fff_ffff;
        sink.put(&crc_property(crc));
    }

    /// The record up to its checksum property.
    #[inline]
    fn encode_plain(&self, at: Place, sink: &mut impl Sink) {
        if let (SocketAddr::V4(born), SocketAddr::V4(store)) = (self.draft.born_host, self.draft.store_host) {
            let mut head = [0; HEAD_V4];
            self.put_front(at, &mut head);
            let mut fields = Fields { bytes: &mut head, at: BORN_HOST_AT };
            fields.put(&host_v4(born));
            fields.put(&at.store_timestamp.0.to_be_bytes());
            fields.put(&host_v4(store));
            self.put_before_body(&mut fields);
            debug_assert_eq!(fields.at, HEAD_V4);
            sink.begin(&head);
        } else {
            self.encode_long_head(at, sink);
        }
        let Draft { body, topic, properties, .. } = self.draft;
        if !body.is_empty() {
            sink.put(body);
        }
        match self.version {
            Version::V1 => sink.put(&topic_len(topic)[1..]),
            Version::V2 => sink.put(&topic_len(topic)),
        }
        sink.put(topic.as_bytes());
        sink.put(&self.properties_len.to_be_bytes());
        if !properties.is_empty() {
            sink.put(properties);
        }
        if !self.extra.is_empty() {
            if self.joins_extra() {
                sink.put(&[PAIR_END]);
            }
            sink.put(self.extra);
        }
    }

    #[cold]
    #[inline(never)]
    fn encode_long_head(&self, at: Place, sink: &mut impl Sink) {
        let mut head = [0; MAX_HEAD];
        if let Some(front) = head.first_chunk_mut::<HEAD_V4>() {
            self.put_front(at, front);
        }
        let mut fields = Fields { bytes: &mut head, at: BORN_HOST_AT };
        fields.host(self.draft.born_host);
        fields.put(&at.store_timestamp.0.to_be_bytes());
        fields.host(self.draft.store_host);
        self.put_before_body(&mut fields);
        let len = fields.at.min(MAX_HEAD);
        sink.begin(&head[..len]);
    }

    /// The fields before the first host.
    #[inline]
    fn put_front(&self, at: Place, head: &mut [u8; HEAD_V4]) {
        let mut fields = Fields { bytes: head, at: TOTAL_SIZE_AT };
        fields.put(&self.total_size.to_be_bytes());
        debug_assert_eq!(fields.at, MAGIC_AT);
        fields.put(&self.version.magic().to_be_bytes());
        debug_assert_eq!(fields.at, BODY_CRC_AT);
        fields.put(&self.body_crc.to_be_bytes());
        debug_assert_eq!(fields.at, QUEUE_ID_AT);
        fields.put(&self.draft.queue_id.0.to_be_bytes());
        debug_assert_eq!(fields.at, FLAG_AT);
        fields.put(&self.draft.flag.to_be_bytes());
        debug_assert_eq!(fields.at, QUEUE_OFFSET_AT);
        fields.put(&at.queue_offset.0.to_be_bytes());
        debug_assert_eq!(fields.at, PHYSICAL_OFFSET_AT);
        fields.put(&at.physical_offset.0.to_be_bytes());
        debug_assert_eq!(fields.at, SYS_FLAG_AT);
        fields.put(&self.draft.sys_flag.0.to_be_bytes());
        debug_assert_eq!(fields.at, BORN_TIMESTAMP_AT);
        fields.put(&self.draft.born_timestamp.0.to_be_bytes());
        debug_assert_eq!(fields.at, BORN_HOST_AT);
    }

    /// The fields between the second host and the body.
    #[inline]
    fn put_before_body(&self, fields: &mut Fields<'_>) {
        fields.put(&self.draft.reconsume_times.to_be_bytes());
        fields.put(&self.draft.prepared_transaction_offset.to_be_bytes());
        // The body fits maxMessageSize; one over 2 GiB fails in `settle`, which looks at the sum.
        fields.put(&i32::try_from(self.draft.body.len()).unwrap_or(i32::MAX).to_be_bytes());
    }
}

/// The topic length in two bytes; version 1 writes the second.
#[inline]
fn topic_len(topic: &str) -> [u8; 2] {
    i16::try_from(topic.len()).unwrap_or(i16::MAX).to_be_bytes()
}

/// The property that ends a record, with its digits least significant first.
fn crc_property(crc: u32) -> [u8; PROP_CRC_LEN] {
    let mut property = [b'0'; PROP_CRC_LEN];
    property[..CRC32.len()].copy_from_slice(CRC32.as_bytes());
    property[CRC32.len()] = NAME_END;
    let mut rest = crc;
    for digit in &mut property[CRC32.len() + 1..PROP_CRC_LEN - 1] {
        // Below 10.
        *digit += u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
    }
    property[PROP_CRC_LEN - 1] = PAIR_END;
    property
}

/// Fields written one behind the other. The buffers are made to hold the longest, so nothing is cut.
struct Fields<'b> {
    bytes: &'b mut [u8],
    at: usize,
}

impl Fields<'_> {
    #[inline]
    fn put(&mut self, field: &[u8]) {
        let end = self.at + field.len();
        if let Some(place) = self.bytes.get_mut(self.at..end) {
            place.copy_from_slice(field);
        }
        self.at = end;
    }

    fn host(&mut self, host: SocketAddr) {
        let before = self.at;
        match host {
            SocketAddr::V4(host) => self.put(&host_v4(host)),
            SocketAddr::V6(host) => {
                self.put(&host.ip().octets());
                self.put(&i32::from(host.port()).to_be_bytes());
            }
        }
        debug_assert_eq!(self.at - before, if host.is_ipv4() { HOST_V4 } else { HOST_V6 });
    }
}

#[inline]
fn host_v4(host: SocketAddrV4) -> [u8; HOST_V4] {
    let ([a, b, c, d], [e, f, g, h]) = (host.ip().octets(), i32::from(host.port()).to_be_bytes());
    [a, b, c, d, e, f, g, h]
}

/// A sink that keeps the checksum of what passes through.
struct Hashing<'s, S> {
    sink: &'s mut S,
    hasher: crc32fast::Hasher,
}

impl<S: Sink> Sink for Hashing<'_, S> {
    fn put(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.sink.put(bytes);
    }

    fn begin(&mut self, head: &[u8]) {
        self.hasher.update(head);
        self.sink.begin(head);
    }
}

/// The blank that ends a segment with `remaining` bytes left, itself included.
#[must_use]
pub fn encode_blank(remaining: usize) -> [u8; BLANK_LEN] {
    let mut blank = [0; BLANK_LEN];
    blank[..MAGIC_AT].copy_from_slice(&i32::try_from(remaining).unwrap_or(i32::MAX).to_be_bytes());
    blank[MAGIC_AT..].copy_from_slice(&MAGIC_BLANK.to_be_bytes());
    blank
}

#[cfg(test)]
mod tests;
