//! FORMAT.md is what the code does: its offset tables and constants equal those of `format`, records are laid out as
//! its variable part says, its hex dumps are bytes of the golden stores, and its links lead somewhere.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

mod support;

use std::{collections::HashMap, fs, net::SocketAddr, path::Path};

use reput::{
    PhysicalOffset, QueueId, QueueOffset, StoreTimestamp, SysFlag,
    format::{
        checkpoint, consume_queue as cq, gap, index,
        message::{self, Draft, Limits, MAGIC_BLANK, Place},
    },
};

fn document() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("FORMAT.md")).unwrap()
}

/// The cells of the document's table rows, those of the heads and rules left out.
fn rows(document: &str, head: &str) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    let mut inside = false;
    for line in document.lines() {
        if line.starts_with(head) {
            inside = true;
        } else if !line.starts_with('|') {
            inside = false;
        } else if inside && !line.starts_with("|---") {
            rows.push(line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect());
        }
    }
    rows
}

/// Offset and width by field, from all tables of fields.
fn fields() -> HashMap<String, (String, String)> {
    let rows = rows(&document(), "| Offset | Width | Type | Field |");
    let count = rows.len();
    let fields: HashMap<_, _> =
        rows.into_iter().map(|row| (row[3].clone(), (row[0].clone(), row[1].clone()))).collect();
    assert_eq!(fields.len(), count, "a field name comes twice");
    fields
}

#[test]
fn offsets_of_fixed_fields_equal_the_constants() {
    let mut fields = fields();
    for (field, at, width) in [
        ("totalSize", message::TOTAL_SIZE_AT, "4"),
        ("magic", message::MAGIC_AT, "4"),
        ("bodyCRC", message::BODY_CRC_AT, "4"),
        ("queueId", message::QUEUE_ID_AT, "4"),
        ("flag", message::FLAG_AT, "4"),
        ("queueOffset", message::QUEUE_OFFSET_AT, "8"),
        ("physicalOffset", message::PHYSICAL_OFFSET_AT, "8"),
        ("sysFlag", message::SYS_FLAG_AT, "4"),
        ("bornTimestamp", message::BORN_TIMESTAMP_AT, "8"),
        ("bornHost", message::BORN_HOST_AT, "8 or 20"),
        ("blankSize", message::TOTAL_SIZE_AT, "4"),
        ("blankMagic", message::MAGIC_AT, "4"),
        ("offset", cq::OFFSET_AT, "8"),
        ("size", cq::SIZE_AT, "4"),
        ("tagsCode", cq::TAGS_CODE_AT, "8"),
        ("extSize", cq::EXT_SIZE_AT, "2"),
        ("extTagsCode", cq::EXT_TAGS_CODE_AT, "8"),
        ("msgStoreTime", cq::EXT_STORE_TIMESTAMP_AT, "8"),
        ("bitMapSize", cq::EXT_BITMAP_LEN_AT, "2"),
        ("bitMap", cq::EXT_FIXED, "bitMapSize"),
        ("batchOffset", cq::BATCH_OFFSET_AT, "8"),
        ("batchSizeBytes", cq::BATCH_SIZE_AT, "4"),
        ("batchTagsCode", cq::BATCH_TAGS_CODE_AT, "8"),
        ("batchStoreTime", cq::BATCH_STORE_TIMESTAMP_AT, "8"),
        ("msgBaseOffset", cq::BATCH_BASE_AT, "8"),
        ("batchSize", cq::BATCH_NUM_AT, "2"),
        ("compactedOffset", cq::BATCH_COMPACTED_AT, "4"),
        ("reserved", cq::BATCH_RESERVED_AT, "4"),
        ("beginTimestamp", index::BEGIN_TIMESTAMP_AT, "8"),
        ("endTimestamp", index::END_TIMESTAMP_AT, "8"),
        ("beginPhyOffset", index::BEGIN_OFFSET_AT, "8"),
        ("endPhyOffset", index::END_OFFSET_AT, "8"),
        ("hashSlotCount", index::SLOT_COUNT_AT, "4"),
        ("indexCount", index::INDEX_COUNT_AT, "4"),
        ("keyHash", index::KEY_HASH_AT, "4"),
        ("phyOffset", index::OFFSET_AT, "8"),
        ("timeDiff", index::TIME_DIFF_AT, "4"),
        ("prevIndex", index::PREVIOUS_AT, "4"),
        ("physicMsgTimestamp", checkpoint::PHYSIC_TIMESTAMP_AT, "8"),
        ("logicsMsgTimestamp", checkpoint::LOGICS_TIMESTAMP_AT, "8"),
        ("indexMsgTimestamp", checkpoint::INDEX_TIMESTAMP_AT, "8"),
        ("masterFlushedOffset", checkpoint::MASTER_FLUSHED_OFFSET_AT, "8"),
        ("confirmPhyOffset", checkpoint::CONFIRM_OFFSET_AT, "8"),
        ("logicsPhysicalOffset", checkpoint::LOGICS_OFFSET_AT, "8"),
        ("durableEnd", checkpoint::DURABLE_END_AT, "8"),
    ] {
        let (documented_at, documented_width) = fields.remove(field).unwrap_or_else(|| panic!("no {field}"));
        assert_eq!((documented_at, documented_width), (at.to_string(), width.to_owned()), "{field}");
    }
    fields.retain(|_, (at, _)| !at.contains('b'));
    assert!(fields.is_empty(), "documented and not in the code: {fields:?}");
}

#[test]
fn constants_equal_the_code() {
    let mut documented: HashMap<String, i64> = rows(&document(), "| Name | Value |")
        .into_iter()
        .map(|row| {
            let value = match row[1].strip_prefix("0x") {
                Some(hex) => i64::from_str_radix(hex, 16),
                None => row[1].parse(),
            };
            (row[0].clone(), value.unwrap())
        })
        .collect();
    let size = |n: usize| i64::try_from(n).unwrap();
    for (name, value) in [
        ("MAGIC_V1", message::MAGIC_V1.into()),
        ("MAGIC_V2", message::MAGIC_V2.into()),
        ("MAGIC_BLANK", MAGIC_BLANK.into()),
        ("BLANK_LEN", size(message::BLANK_LEN)),
        ("MIN_RECORD", size(message::MIN_RECORD)),
        ("MAX_TOPIC_V1", size(message::MAX_TOPIC_V1)),
        ("MAX_PROPERTIES", size(message::MAX_PROPERTIES)),
        ("PROP_CRC_LEN", size(message::PROP_CRC_LEN)),
        ("RECORD_OVERHEAD", size(message::RECORD_OVERHEAD)),
        ("HOST_V4", size(message::HOST_V4)),
        ("HOST_V6", size(message::HOST_V6)),
        ("CONSUME_QUEUE_ENTRY", size(cq::ENTRY)),
        ("EXT_FIXED", size(cq::EXT_FIXED)),
        ("EXT_MAX", size(cq::EXT_MAX)),
        ("EXT_END", size(cq::EXT_END)),
        ("MAX_EXT_ADDRESS", cq::MAX_EXT_ADDRESS),
        ("BATCH_ENTRY", size(cq::BATCH_ENTRY)),
        ("INDEX_HEADER", size(index::HEADER)),
        ("INDEX_SLOT", size(index::SLOT)),
        ("INDEX_ENTRY", size(index::ENTRY)),
        ("INDEX_FILE_DEFAULT", size(index::Geometry::DEFAULT.file_size())),
        ("CHECKPOINT", size(checkpoint::SIZE)),
        ("GAP_DAMAGED", gap::GAP_DAMAGED.into()),
        ("GAP_UNWRITTEN", gap::GAP_UNWRITTEN.into()),
        ("MIN_GAP", size(gap::MIN_GAP)),
        ("MAX_GAP", size(gap::MAX_GAP)),
    ] {
        assert_eq!(documented.remove(name), Some(value), "{name}");
    }
    assert!(documented.is_empty(), "documented and not in the code: {documented:?}");
}

/// The value of `a + b + 1` with letters standing for lengths.
fn sum(expression: &str, lengths: &HashMap<&str, usize>) -> usize {
    expression
        .split(" + ")
        .map(|term| lengths.get(term).copied().unwrap_or_else(|| term.parse().unwrap()))
        .sum()
}

#[test]
fn the_variable_part_of_a_record_lies_where_the_document_says() {
    let fields = fields();
    let v4: SocketAddr = "1.2.3.4:5".parse().unwrap();
    let v6: SocketAddr = "[11:12:13:14:15:16:17:18]:6".parse().unwrap();
    for (born_host, store_host, topic) in [
        (v4, v4, "topic".to_owned()),
        (v6, v4, "t".into()),
        (v4, v6, "t".repeat(130)),
        (v6, v6, "u".repeat(200)),
    ] {
        let (body, properties) = (b"the body", b"KEYS\x01k\x02");
        let draft = Draft {
            topic: &topic,
            queue_id: QueueId(1),
            flag: 2,
            sys_flag: SysFlag(0),
            born_timestamp: StoreTimestamp(3),
            born_host,
            store_host,
            reconsume_times: 0x0102_0304,
            prepared_transaction_offset: 0x0102_0304_0506_0708,
            body,
            properties,
        };
        let limits = Limits {
            max_message_size: 1000,
            auto_message_version: true,
            append_prop_crc: false,
            segment_size: 4096,
        };
        let place = Place {
            queue_offset: QueueOffset(4),
            physical_offset: PhysicalOffset(5),
            store_timestamp: StoreTimestamp(0x1112_1314_1516_1718),
        };
        let mut bytes = Vec::new();
        draft.measure(limits).unwrap().encode(place, &mut bytes);

        let long = topic.len() > 127;
        let width = |host: SocketAddr| if host.is_ipv4() { 8 } else { 20 };
        let lengths = HashMap::from([
            ("b", width(born_host)),
            ("s", width(store_host)),
            ("v", if long { 2 } else { 1 }),
            ("n", body.len()),
            ("t", topic.len()),
            ("p", properties.len()),
        ]);
        let host = if store_host.is_ipv4() {
            vec![1, 2, 3, 4, 0, 0, 0, 5]
        } else {
            vec![0, 0x11, 0, 0x12, 0, 0x13, 0, 0x14, 0, 0x15, 0, 0x16, 0, 0x17, 0, 0x18, 0, 0, 0, 6]
        };
        let topic_len = u16::try_from(topic.len()).unwrap().to_be_bytes();
        for (field, expected) in [
            ("storeTimestamp", &0x1112_1314_1516_1718_i64.to_be_bytes()[..]),
            ("storeHost", &host),
            ("reconsumeTimes", &[1, 2, 3, 4]),
            ("preparedTransactionOffset", &[1, 2, 3, 4, 5, 6, 7, 8]),
            ("bodyLength", &[0, 0, 0, 8]),
            ("body", body),
            ("topicLength", if long { &topic_len } else { &topic_len[1..] }),
            ("topic", topic.as_bytes()),
            ("propertiesLength", &[0, 7]),
            ("properties", properties),
        ] {
            let (at, width) = &fields[field];
            let (at, width) = (sum(at, &lengths), sum(width, &lengths));
            assert_eq!(&bytes[at..at + width], expected, "{field}");
        }
        let (at, width) = &fields["properties"];
        assert_eq!(sum(at, &lengths) + sum(width, &lengths), bytes.len());
    }
}

#[test]
fn hex_dumps_are_bytes_that_java_wrote() {
    let document = document();
    let mut stores: HashMap<String, support::Golden> = HashMap::new();
    let mut dumps = 0;
    let mut lines = document.lines();
    while let Some(line) = lines.next() {
        let Some(source) = line.strip_prefix("```hex ") else { continue };
        let (store, file) = source.split_once(' ').unwrap();
        let (archive, name) = store.split_once('/').unwrap();
        let golden = stores.entry(store.to_owned()).or_insert_with(|| support::unpack(archive, name));
        let bytes = fs::read(golden.path(file)).unwrap();
        for line in lines.by_ref().take_while(|line| !line.starts_with("```")) {
            let (at, rest) = line.split_once(": ").unwrap();
            let at = usize::from_str_radix(at, 16).unwrap();
            let digits: String = rest.split("  ").next().unwrap().split(' ').collect();
            let expected: String =
                bytes[at..at + digits.len() / 2].iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(digits, expected, "{source} {line}");
        }
        dumps += 1;
    }
    assert!(dumps >= 10, "{dumps}");
}

#[test]
fn links_within_the_document_lead_to_headings() {
    let document = document();
    let anchors: Vec<String> = document
        .lines()
        .filter_map(|line| line.strip_prefix('#'))
        .map(|heading| heading.trim_start_matches('#').trim().to_lowercase().replace(' ', "-"))
        .map(|anchor| anchor.chars().filter(|c| c.is_alphanumeric() || *c == '-').collect())
        .collect();
    let mut links = 0;
    for part in document.split("](#").skip(1) {
        let target = part.split(')').next().unwrap();
        assert!(anchors.iter().any(|anchor| anchor == target), "{target}");
        links += 1;
    }
    assert!(links > 10);
}
