use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::{
    error::Corruption,
    format::{
        message::{Found, Header, MAGIC_V2, MIN_RECORD, Record, read_at, verify_prop_crc},
        properties::{INNER_MULTI_QUEUE_OFFSET, Properties},
    },
};

const LIMITS: Limits = Limits {
    max_message_size: 4 << 20,
    auto_message_version: true,
    append_prop_crc: false,
    segment_size: 1 << 30,
};
const WITH_CRC: Limits = Limits { append_prop_crc: true, ..LIMITS };
const PLACE: Place = Place {
    queue_offset: QueueOffset(7),
    physical_offset: PhysicalOffset(4096),
    store_timestamp: StoreTimestamp(1_795_240_627_391),
};

fn draft<'a>(topic: &'a str, body: &'a [u8], properties: &'a [u8]) -> Draft<'a> {
    Draft {
        topic,
        queue_id: QueueId(1),
        flag: 2,
        sys_flag: SysFlag(0),
        born_timestamp: StoreTimestamp(3),
        born_host: ([10, 0, 0, 1], 4).into(),
        store_host: ([127, 0, 0, 1], 10911).into(),
        reconsume_times: 5,
        prepared_transaction_offset: 6,
        body,
        properties,
    }
}

fn encoded(measured: &Measured<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    measured.encode(PLACE, &mut bytes);
    assert_eq!(bytes.len(), measured.total_size());
    bytes
}

/// Bytes, and where among them records began.
#[derive(Default)]
struct Begins {
    bytes: Vec<u8>,
    at: Vec<usize>,
}

impl Sink for Begins {
    fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn begin(&mut self, head: &[u8]) {
        self.at.push(self.bytes.len());
        self.put(head);
    }
}

#[test]
fn every_record_begins_once_with_its_size() {
    let v4 = draft("t", b"body", b"k\x01v\x02");
    let v6 = Draft { born_host: (IpAddr::from([1_u16; 8]), 4).into(), ..v4 };
    for (draft, limits) in [(v4, LIMITS), (v4, WITH_CRC), (v6, LIMITS), (v6, WITH_CRC)] {
        let measured = draft.measure(limits).unwrap();
        let mut sink = Begins::default();
        measured.encode(PLACE, &mut sink);
        measured.encode(PLACE, &mut sink);
        assert_eq!(sink.at, [0, measured.total_size()]);
        assert_eq!(sink.bytes, encoded(&measured).repeat(2));
    }
}

#[test]
fn a_record_with_nothing_in_it_is_the_shortest() {
    let bytes = encoded(&draft("", b"", b"").measure(LIMITS).unwrap());
    assert_eq!(bytes.len(), MIN_RECORD);
    assert!(Record::decode(&bytes).is_ok());
    assert_eq!(
        Record::decode(&bytes[..MIN_RECORD - 1]).unwrap_err(),
        Corruption::Short { what: "record", need: MIN_RECORD, have: MIN_RECORD - 1 }
    );
}

#[test]
fn a_topic_over_127_bytes_makes_version_2_whatever_its_chars() {
    // Java counts chars and would write the second as version 1 with a length that reads back negative.
    for topic in ["t".repeat(128), "é".repeat(64)] {
        let measured = draft(&topic, b"x", b"").measure(LIMITS).unwrap();
        assert_eq!(measured.version(), Version::V2);
        let bytes = encoded(&measured);
        assert_eq!(bytes[MAGIC_AT..BODY_CRC_AT], MAGIC_V2.to_be_bytes());
        assert_eq!(Record::decode(&bytes).unwrap().topic, topic);
        let refused = draft(&topic, b"x", b"").measure(Limits { auto_message_version: false, ..LIMITS });
        assert!(matches!(refused, Err(Error::InvalidTopic { .. })));
    }
    assert_eq!(draft(&"t".repeat(127), b"", b"").measure(LIMITS).unwrap().version(), Version::V1);
    assert!(draft(&"t".repeat(40_000), b"", b"").measure(LIMITS).is_err());
}

#[test]
fn limits_hold_to_the_byte() {
    let small = Limits { max_message_size: 100, segment_size: 300, ..LIMITS };
    assert!(draft("t", &[1; 100], b"").measure(small).is_ok());
    assert!(matches!(
        draft("t", &[1; 101], b"").measure(small),
        Err(Error::BodyTooLarge { size: 101, limit: 100 })
    ));
    // 91 fixed, 1 topic, 100 body: 100 bytes of properties leave exactly the blank's 8 of the segment's 300.
    assert_eq!(draft("t", &[1; 100], &[b'p'; 100]).measure(small).unwrap().total_size(), 292);
    assert!(matches!(
        draft("t", &[1; 100], &[b'p'; 101]).measure(small),
        Err(Error::RecordTooLarge { size: 293, limit: 292 })
    ));
    assert!(draft("t", b"", &[b'p'; MAX_PROPERTIES]).measure(LIMITS).is_ok());
    assert!(matches!(
        draft("t", b"", &[b'p'; MAX_PROPERTIES + 1]).measure(LIMITS),
        Err(Error::PropertiesTooLarge { size: 32_768, limit: MAX_PROPERTIES })
    ));
    // Separator and checksum count.
    assert!(draft("t", b"", &[b'p'; MAX_PROPERTIES - 21]).measure(WITH_CRC).is_ok());
    assert!(draft("t", b"", &[b'p'; MAX_PROPERTIES - 20]).measure(WITH_CRC).is_err());
}

#[test]
fn the_record_checksum_comes_last_and_sees_every_bit() {
    let measured = draft("topic", b"body", b"a\x01b").measure(WITH_CRC).unwrap();
    let bytes = encoded(&measured);
    assert_eq!(verify_prop_crc(&bytes), Ok(true));
    let record = Record::decode(&bytes).unwrap();
    assert!(record.properties.raw().starts_with(b"a\x01b\x02__CRC32#\x01"));
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert_ne!(verify_prop_crc(&flipped), Ok(true), "bit {bit}");
    }
}

#[test]
fn a_checksum_property_from_outside_is_not_kept() {
    let forged = b"a\x01b\x02__CRC32#\x010000000000\x02";
    let bytes = encoded(&draft("t", b"x", forged).measure(LIMITS).unwrap());
    assert_eq!(Record::decode(&bytes).unwrap().properties.raw(), b"a\x01b\x02");
    assert_eq!(verify_prop_crc(&bytes), Ok(false));
    let bytes = encoded(&draft("t", b"x", forged).measure(WITH_CRC).unwrap());
    assert_eq!(verify_prop_crc(&bytes), Ok(true));
    assert_eq!(Record::decode(&bytes).unwrap().properties.iter().count(), 2);
}

#[test]
fn properties_known_only_under_the_lock_join_the_others() {
    for (limits, own) in
        [(LIMITS, &b"a\x01b"[..]), (LIMITS, b"a\x01b\x02"), (WITH_CRC, b"a\x01b"), (WITH_CRC, b"")]
    {
        let measured = draft("t", b"x", own).measure(limits).unwrap();
        let extra = format!("{INNER_MULTI_QUEUE_OFFSET}\x013,14\x02");
        // Twice: what was measured before is replaced.
        let measured = measured.with_extra(b"q\x01r\x02").unwrap().with_extra(extra.as_bytes()).unwrap();
        let bytes = encoded(&measured);
        let record = Record::decode(&bytes).unwrap();
        assert_eq!(record.properties.get(INNER_MULTI_QUEUE_OFFSET), Some("3,14"));
        assert_eq!(record.properties.get("a"), (!own.is_empty()).then_some("b"));
        assert_eq!(record.properties.get("q"), None);
        assert_eq!(verify_prop_crc(&bytes), Ok(limits.append_prop_crc));
    }
    let full = [b'p'; MAX_PROPERTIES];
    assert!(draft("t", b"", &full).measure(LIMITS).unwrap().with_extra(b"a\x01b\x02").is_err());
}

#[test]
fn a_blank_says_what_is_left() {
    let mut segment = vec![0; 100];
    segment[..BLANK_LEN].copy_from_slice(&encode_blank(100));
    assert_eq!(read_at(&segment), Ok(Found::Blank { len: 100 }));
    assert!(read_at(&segment[..99]).is_err());
    assert!(read_at(&encode_blank(7)).is_err());
    assert_eq!(read_at(&[0; 100]), Err(Corruption::Magic { magic: 0 }));
    assert!(read_at(&[]).is_err());
}

prop_compose! {
    fn any_host()(ip: IpAddr, port: u16) -> SocketAddr {
        SocketAddr::new(ip, port)
    }
}

proptest! {
    #[test]
    fn a_record_comes_back_as_written(
        (topic, body) in ("\\PC{0,200}", prop::collection::vec(any::<u8>(), 0..300)),
        properties in prop::collection::vec(any::<u8>(), 0..200),
        (queue, flag, sys, times) in any::<(i32, i32, i32, i32)>(),
        (born, prepared) in any::<(i64, i64)>(),
        (born_host, store_host) in (any_host(), any_host()),
        (q, phy, ts) in any::<(i64, i64, i64)>(),
        crc: bool,
    ) {
        let limits = Limits { append_prop_crc: crc, ..LIMITS };
        let draft = Draft {
            topic: &topic, queue_id: QueueId(queue), flag, sys_flag: SysFlag(sys), born_timestamp: born.into(),
            born_host, store_host, reconsume_times: times, prepared_transaction_offset: prepared, body: &body,
            properties: &properties,
        };
        let place = Place { queue_offset: q.into(), physical_offset: phy.into(), store_timestamp: ts.into() };
        let measured = draft.measure(limits).unwrap();
        let mut bytes = Vec::new();
        measured.encode(place, &mut bytes);
        prop_assert_eq!(bytes.len(), measured.total_size());
        bytes.extend_from_slice(b"what comes behind");
        let record = Record::decode(&bytes).unwrap();
        let own = record.properties.raw();
        prop_assert!(own.starts_with(&properties));
        prop_assert_eq!(verify_prop_crc(&bytes), Ok(crc));
        prop_assert_eq!(record.verify_body_crc(), Ok(()));
        let sys_flag = SysFlag(sys)
            .with(SysFlag::BORN_HOST_V6, born_host.is_ipv6())
            .with(SysFlag::STORE_HOST_V6, store_host.is_ipv6());
        prop_assert_eq!(record, Record {
            total_size: measured.total_size(), version: measured.version(), body_crc: measured.body_crc(),
            queue_id: QueueId(queue), flag, queue_offset: q.into(), physical_offset: phy.into(), sys_flag,
            born_timestamp: born.into(), born_host, store_timestamp: ts.into(), store_host,
            reconsume_times: times, prepared_transaction_offset: prepared, body: &body, topic: &topic,
            properties: Properties::new(own),
        });
        prop_assert_eq!(Header::peek(&bytes), Ok(Header {
            total_size: record.total_size, queue_id: record.queue_id, queue_offset: record.queue_offset,
            physical_offset: record.physical_offset, sys_flag, store_timestamp: record.store_timestamp,
            topic: record.topic, properties: record.properties,
        }));
        for cut in 0..record.total_size {
            prop_assert!(Record::decode(&bytes[..cut]).is_err());
        }
    }

    #[test]
    fn no_bytes_make_the_decoders_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), magic in 0usize..4) {
        let mut bytes = bytes;
        let magics = [0, Version::V1.magic(), Version::V2.magic(), MAGIC_BLANK];
        if bytes.len() >= BODY_CRC_AT {
            // Half of the lengths plausible, so that the decoders get past the first checks.
            if bytes[0] % 2 == 0 {
                let len = i32::try_from(bytes.len()).unwrap();
                bytes[..MAGIC_AT].copy_from_slice(&len.to_be_bytes());
            }
            bytes[MAGIC_AT..BODY_CRC_AT].copy_from_slice(&magics[magic].to_be_bytes());
        }
        let _ = (read_at(&bytes), Header::peek(&bytes).is_ok(), verify_prop_crc(&bytes));
    }

    #[test]
    fn a_damaged_record_never_makes_the_decoders_panic(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6), v6: bool,
    ) {
        let mut draft = draft("a topic", b"some body", b"KEYS\x01a b\x02TAGS\x01t\x02");
        if v6 {
            draft.store_host = (std::net::Ipv6Addr::LOCALHOST, 1).into();
        }
        let mut bytes = encoded(&draft.measure(WITH_CRC).unwrap());
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Ok(Found::Record(record)) = read_at(&bytes) {
            prop_assert_eq!(record.total_size, bytes.len());
        }
        let _ = (Header::peek(&bytes).is_ok(), verify_prop_crc(&bytes));
    }
}
