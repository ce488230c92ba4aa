//! Every byte that the Java store wrote, read and written again by `format`, and held against what the Java store
//! said of it. Only stores without damage: the archives `written` and `live`, and the directory of a whole broker.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

mod support;

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    io::Read,
    net::{IpAddr, SocketAddr},
    path::Path,
};

use reput::{
    Config, PhysicalOffset, SysFlag, TransactionType,
    format::{
        checkpoint::Checkpoint,
        consume_queue::{self, BatchEntry, Entry, ExtUnit, ext_address, ext_position},
        hash::{IndexKeys, tags_code},
        index::{self, Geometry},
        message::{Draft, Found, Header, Limits, Place, Record, encode_blank, read_at, verify_prop_crc},
        message_id::MessageId,
        properties::{DELAY, INNER_BASE, INNER_NUM, KEYS, TAGS, UNIQ_KEY},
    },
};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use support::Golden;

/// The undamaged stores.
fn undamaged() -> impl Iterator<Item = Golden> {
    ["written", "live"].into_iter().flat_map(support::unpack_all)
}

/// The first mebibyte of a file: all of every golden file, and all that is not zero of the broker's.
fn read(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    File::open(path).unwrap().take(1 << 20).read_to_end(&mut bytes).unwrap();
    bytes
}

fn base_of(path: &Path) -> i64 {
    let name = path.file_name().unwrap().to_str().unwrap();
    assert_eq!(name.len(), 20, "{name}");
    name.parse().unwrap()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An address as Java prints it: IPv6 in eight groups without leading zeros, none left out.
fn java_host(host: SocketAddr) -> String {
    let ip = match host.ip() {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => ip.segments().map(|group| format!("{group:x}")).join(":"),
    };
    format!("{ip}|{}", host.port())
}

/// The segments of the log in order: base offset and bytes.
fn segments(golden: &Golden) -> Vec<(i64, Vec<u8>)> {
    golden
        .list("commitlog")
        .iter()
        .map(|name| golden.path(&format!("commitlog/{name}")))
        .map(|path| (base_of(&path), read(&path)))
        .collect()
}

/// Calls `visit` with the place and the bytes of each record, and returns where the blanks stand and the end.
fn walk(
    segments: &[(i64, Vec<u8>)],
    size: usize,
    mut visit: impl FnMut(i64, &[u8]),
) -> (Vec<(i64, usize)>, i64) {
    let mut blanks = Vec::new();
    let mut end = segments.first().map_or(0, |(base, _)| *base);
    for (base, bytes) in segments {
        let mut at = 0;
        while at < bytes.len() {
            let place = base + i64::try_from(at).unwrap();
            match read_at(&bytes[at..]) {
                Ok(Found::Record(record)) => {
                    visit(place, &bytes[at..at + record.total_size]);
                    at += record.total_size;
                    end = base + i64::try_from(at).unwrap();
                }
                Ok(Found::Blank { len }) => {
                    assert_eq!(len, size - at, "a blank says what is left");
                    assert_eq!(bytes[at..at + 8], encode_blank(len));
                    blanks.push((place, len));
                    at = bytes.len();
                }
                Err(why) => {
                    assert!(bytes[at..].iter().all(|&b| b == 0), "{place}: {why}");
                    break;
                }
            }
        }
    }
    (blanks, end)
}

/// What a record says, in the words of an expected line.
fn described(place: i64, bytes: &[u8]) -> Value {
    let record = Record::decode(bytes).unwrap();
    let mut properties = Map::new();
    for (name, value) in record.properties {
        let text = |bytes: &[u8]| std::str::from_utf8(bytes).unwrap().to_owned();
        assert!(record.properties.get(&text(name)).is_some());
        properties.insert(text(name), text(value).into());
    }
    let id = MessageId { host: record.store_host, offset: PhysicalOffset(place) };
    assert_eq!(id.to_string().parse(), Ok(id));
    serde_json::json!({
        "t": "record",
        "phyOffset": place,
        "size": record.total_size,
        "magic": format!("{:08x}", record.version.magic()),
        "recordSha256": sha256(bytes),
        "topic": record.topic,
        "queueId": record.queue_id.get(),
        "queueOffset": record.queue_offset.get(),
        "storedPhyOffset": record.physical_offset.get(),
        "flag": record.flag,
        "sysFlag": record.sys_flag.0,
        "bornTimestamp": record.born_timestamp.get(),
        "bornHost": java_host(record.born_host),
        "storeTimestamp": record.store_timestamp.get(),
        "storeHost": java_host(record.store_host),
        "reconsumeTimes": record.reconsume_times,
        "preparedTransactionOffset": record.prepared_transaction_offset,
        "bodyCRC": record.body_crc,
        "bodyLength": record.body.len(),
        "bodySha256": sha256(record.body),
        "properties": properties,
        "msgId": id.to_string(),
        "lookMessageByOffset": true,
    })
}

/// Checks the checksums, the header view, and that encoding what was decoded gives the same bytes.
fn assert_reencodes(bytes: &[u8], config: &Config) {
    let record = Record::decode(bytes).unwrap();
    record.verify_body_crc().unwrap();
    assert_eq!(verify_prop_crc(bytes), Ok(config.append_prop_crc));
    let header = Header::peek(bytes).unwrap();
    assert_eq!(
        (header.total_size, header.queue_id, header.queue_offset, header.physical_offset),
        (record.total_size, record.queue_id, record.queue_offset, record.physical_offset)
    );
    assert_eq!(
        (header.sys_flag, header.store_timestamp, header.topic, header.properties),
        (record.sys_flag, record.store_timestamp, record.topic, record.properties)
    );

    let families = SysFlag::BORN_HOST_V6 | SysFlag::STORE_HOST_V6;
    let draft = Draft {
        topic: record.topic,
        queue_id: record.queue_id,
        flag: record.flag,
        sys_flag: record.sys_flag.with(families, false),
        born_timestamp: record.born_timestamp,
        born_host: record.born_host,
        store_host: record.store_host,
        reconsume_times: record.reconsume_times,
        prepared_transaction_offset: record.prepared_transaction_offset,
        body: record.body,
        properties: record.properties.raw(),
    };
    let limits = Limits {
        max_message_size: config.max_message_size,
        auto_message_version: config.auto_message_version,
        append_prop_crc: config.append_prop_crc,
        segment_size: usize::try_from(config.commit_log_file_size).unwrap(),
    };
    let measured = draft.measure(limits).unwrap();
    let place = Place {
        queue_offset: record.queue_offset,
        physical_offset: record.physical_offset,
        store_timestamp: record.store_timestamp,
    };
    let mut again = Vec::new();
    measured.encode(place, &mut again);
    assert!(again == bytes, "the record at {} is written differently", record.physical_offset);
}

fn assert_log_is_as_expected(golden: &Golden) -> usize {
    let config = golden.config();
    let size = usize::try_from(config.commit_log_file_size).unwrap();
    let expected = golden.expected_of("record");
    let mut count = 0;
    let (blanks, end) = walk(&segments(golden), size, |place, bytes| {
        assert_eq!(described(place, bytes), expected[count], "{}", golden.name);
        assert_reencodes(bytes, &config);
        count += 1;
    });
    assert_eq!(count, expected.len(), "{}", golden.name);
    let expected_blanks: Vec<_> = golden
        .expected_of("blank")
        .iter()
        .map(|line| (number(line, "phyOffset"), usize::try_from(number(line, "size")).unwrap()))
        .collect();
    assert_eq!(blanks, expected_blanks, "{}", golden.name);
    // -1 stands for a log without a file.
    let expected_end = number(&golden.expected_of("walkEnd")[0], "phyOffset").max(0);
    assert_eq!(end, expected_end, "{}", golden.name);
    count
}

fn number(line: &Value, key: &str) -> i64 {
    line[key].as_i64().unwrap_or_else(|| panic!("{key} in {line}"))
}

#[test]
fn records_read_as_java_reads_them_and_are_written_as_java_wrote_them() {
    let records: usize = undamaged().map(|golden| assert_log_is_as_expected(&golden)).sum();
    assert!(records > 4_000, "{records}");
}

#[test]
fn a_brokers_records_read_as_java_reads_them() {
    assert!(assert_log_is_as_expected(&support::broker()) > 30);
}

/// What queue entries are held against: the record's bytes by place.
fn records(golden: &Golden) -> HashMap<i64, Vec<u8>> {
    let size = usize::try_from(golden.config().commit_log_file_size).unwrap();
    let mut records = HashMap::new();
    walk(&segments(golden), size, |place, bytes| {
        records.insert(place, bytes.to_vec());
    });
    records
}

/// The tags code that dispatch gives a record.
fn expected_tags_code(record: &Record<'_>) -> i64 {
    const SECONDS: [i64; 18] =
        [1, 5, 10, 30, 60, 120, 180, 240, 300, 360, 420, 480, 540, 600, 1200, 1800, 3600, 7200];
    if record.topic == "SCHEDULE_TOPIC_XXXX"
        && let Some(level @ 1..) = record.properties.get(DELAY).and_then(|level| level.parse::<usize>().ok())
    {
        return record.store_timestamp.get() + SECONDS[level.min(18) - 1] * 1000;
    }
    tags_code(record.properties.get(TAGS)).get()
}

type QueueLines = BTreeMap<(String, i64, i64), Value>;

/// The `cq` lines by topic, queue and queue offset.
fn queue_lines(golden: &Golden) -> QueueLines {
    let lines = golden.expected_of("cq").into_iter();
    lines
        .map(|line| ((text(&line, "topic"), number(&line, "queueId"), number(&line, "queueOffset")), line))
        .collect()
}

fn text(line: &Value, key: &str) -> String {
    line[key].as_str().unwrap_or_else(|| panic!("{key} in {line}")).to_owned()
}

#[test]
fn queue_entries_read_as_java_reads_them_and_are_written_as_java_wrote_them() {
    let mut seen = 0;
    for golden in undamaged().chain([support::broker()]) {
        let (records, mut lines) = (records(&golden), queue_lines(&golden));
        lines.retain(|_, line| line["batchNum"] == 1);
        for (topic, queue, path) in golden.queue_files("consumequeue") {
            let (base, bytes) = (base_of(&path), read(&path));
            let again: Vec<u8> = Entry::decode_all(&bytes).flat_map(|entry| entry.encode()).collect();
            assert!(again == bytes[..again.len()] && bytes.len() - again.len() < consume_queue::ENTRY);
            for (number, entry) in
                (base / 20..).zip(Entry::decode_all(&bytes)).take_while(|(_, e)| e.is_valid())
            {
                let Some(line) = lines.remove(&(topic.clone(), queue.into(), number)) else {
                    let first = records.keys().min().copied().unwrap_or(0);
                    assert!(
                        entry.offset.get() < first,
                        "{} {topic} {queue} {number}: {entry:?}",
                        golden.name
                    );
                    continue;
                };
                let record = Record::decode(&records[&entry.offset.get()]).unwrap();
                assert_eq!(entry.offset.get(), line["phyOffset"].as_i64().unwrap());
                assert_eq!(i64::from(entry.size), line["size"].as_i64().unwrap());
                assert_eq!(entry.end().get(), entry.offset.get() + i64::from(entry.size));
                assert_eq!(usize::try_from(entry.size).unwrap(), record.total_size);
                let code = match ext_position(entry.tags_code) {
                    None => entry.tags_code.get(),
                    Some(position) => assert_ext_unit(&golden, &topic, queue, position, &line),
                };
                assert_eq!(code, line["tagsCode"].as_i64().unwrap(), "{} {line}", golden.name);
                assert_eq!(code, expected_tags_code(&record), "{} {line}", golden.name);
                seen += 1;
            }
        }
        // Batch queues may hold single messages: those stand in the other test.
        lines.retain(|(topic, ..), _| !golden.list("batchconsumequeue").contains(topic));
        assert_eq!(lines.len(), 0, "{}: {:?}", golden.name, lines.first_key_value());
    }
    assert!(seen > 4_000, "{seen}");
}

/// Holds the ext unit at a position against an expected line, and gives its tags code.
fn assert_ext_unit(golden: &Golden, topic: &str, queue: i32, position: u64, line: &Value) -> i64 {
    let size = golden.config().consume_queue_ext_file_size;
    let file = format!("consumequeue_ext/{topic}/{queue}/{:020}", position / size * size);
    let bytes = read(&golden.path(&file));
    let unit = ExtUnit::decode(&bytes[usize::try_from(position % size).unwrap()..]).unwrap();
    assert_eq!(ext_position(ext_address(position)), Some(position));
    let ext = &line["ext"];
    assert_eq!(unit.size(), ext["size"].as_u64().map(|size| usize::try_from(size).unwrap()));
    assert_eq!(unit.tags_code.get(), number(ext, "tagsCode"));
    assert_eq!(unit.store_timestamp.get(), number(ext, "msgStoreTime"));
    let bitmap: String = unit.bitmap.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(bitmap, ext["bitMap"].as_str().unwrap_or(""));
    unit.tags_code.get()
}

#[test]
fn ext_files_are_written_as_java_wrote_them() {
    let mut units = 0;
    for golden in undamaged() {
        for (.., path) in golden.queue_files("consumequeue_ext") {
            let bytes = read(&path);
            let mut again = Vec::new();
            while let Ok(unit) = ExtUnit::decode(&bytes[again.len()..]) {
                unit.encode(&mut again);
                units += 1;
            }
            let rest = &bytes[again.len()..];
            assert!(again == bytes[..again.len()], "{}", path.display());
            let rest = rest.strip_prefix(&consume_queue::EXT_FULL).unwrap_or(rest);
            assert!(rest.iter().all(|&b| b == 0), "{}", path.display());
        }
    }
    assert!(units > 100, "{units}");
}

#[test]
fn batch_entries_read_as_java_reads_them_and_are_written_as_java_wrote_them() {
    let mut seen = 0;
    for golden in undamaged() {
        let (records, mut lines) = (records(&golden), queue_lines(&golden));
        let topics = golden.list("batchconsumequeue");
        lines.retain(|(topic, ..), _| topics.contains(topic));
        for (topic, queue, path) in golden.queue_files("batchconsumequeue") {
            let bytes = read(&path);
            let again: Vec<u8> = BatchEntry::decode_all(&bytes).flat_map(|entry| entry.encode()).collect();
            assert!(again == bytes, "{}", path.display());
            for entry in BatchEntry::decode_all(&bytes).take_while(BatchEntry::is_valid) {
                let line = lines.remove(&(topic.clone(), queue.into(), entry.base.get())).unwrap();
                let record = Record::decode(&records[&entry.offset.get()]).unwrap();
                assert_eq!(entry.offset.get(), number(&line, "phyOffset"));
                assert_eq!(i64::from(entry.size), number(&line, "size"));
                assert_eq!(entry.tags_code.get(), number(&line, "tagsCode"));
                assert_eq!(i64::from(entry.num), number(&line, "batchNum"));
                assert_eq!(entry.next().get(), entry.base.get() + i64::from(entry.num));
                assert_eq!(entry.store_timestamp, record.store_timestamp);
                assert_eq!(entry.tags_code.get(), expected_tags_code(&record));
                let base = entry.base.to_string();
                let num = entry.num.to_string();
                assert_eq!(record.properties.pick([INNER_BASE, INNER_NUM]), [Some(&*base), Some(&*num)]);
                assert_eq!((entry.compacted, entry.reserved), (-1, 0));
                seen += 1;
            }
        }
        assert_eq!(lines.len(), 0, "{}: {:?}", golden.name, lines.first_key_value());
    }
    assert!(seen > 50, "{seen}");
}

/// The index keys of a record in the order of their entries.
fn keys_of(record: &Record<'_>) -> Vec<i32> {
    if record.sys_flag.transaction() == TransactionType::Rollback {
        return Vec::new();
    }
    let keys = IndexKeys::of(record.topic);
    let [uniq, list, tags] = record.properties.pick([UNIQ_KEY, KEYS, TAGS]);
    let mut hashes: Vec<i32> = uniq.map(|key| keys.key(key)).into_iter().collect();
    hashes.extend(list.unwrap_or("").split(' ').filter(|key| !key.is_empty()).map(|key| keys.key(key)));
    hashes.extend(tags.map(|tags| keys.tags(tags)));
    hashes
}

/// Rebuilds an IndexFile from what its entries say, following the rules of chains and counts.
fn rebuilt_index(bytes: &[u8], geometry: Geometry) -> (index::Header, Vec<index::Entry>, Vec<u8>) {
    let header = index::Header::decode(bytes).unwrap();
    let mut again = vec![0; geometry.file_size()];
    let (mut entries, mut used) = (Vec::new(), 0);
    for number in 1..header.index_count {
        let at = geometry.entry_at(number);
        let entry = index::Entry::decode(bytes[at..].first_chunk().unwrap());
        let slot = geometry.slot_at(geometry.slot_of(entry.key_hash));
        let previous = i32::from_be_bytes(*again[slot..].first_chunk().unwrap());
        used += u32::from(previous == 0);
        again[slot..slot + index::SLOT].copy_from_slice(&number.to_be_bytes());
        again[at..at + index::ENTRY].copy_from_slice(&index::Entry { previous, ..entry }.encode());
        entries.push(entry);
    }
    assert_eq!(header.slot_count, used);
    again[..index::HEADER].copy_from_slice(&index::Header { slot_count: used, ..header }.encode());
    (header, entries, again)
}

#[test]
fn index_files_read_as_java_reads_them_and_are_written_as_java_wrote_them() {
    let mut seen = 0;
    for golden in undamaged() {
        let config = golden.config();
        let geometry = Geometry { slots: config.index_slots, entries: config.index_entries };
        let lines: HashMap<_, _> = golden
            .expected_of("index")
            .into_iter()
            .filter(|line| line["stage"] == "load")
            .map(|line| (text(&line, "name"), line))
            .collect();
        let records = records(&golden);
        let mut wanted: Vec<_> = records.values().map(|bytes| Record::decode(bytes).unwrap()).collect();
        wanted.sort_by_key(|record| record.physical_offset);
        let mut wanted =
            wanted.iter().flat_map(|record| keys_of(record).into_iter().map(move |key| (key, record)));
        for name in golden.list("index") {
            assert!(index::is_file_name(&name));
            let bytes = read(&golden.path(&format!("index/{name}")));
            let (header, entries, again) = rebuilt_index(&bytes, geometry);
            assert!(again == bytes, "{} {name}", golden.name);
            // Opening a copy of a running store, Java throws unfinished files away or goes on in them.
            if !golden.name.starts_with("live-") {
                assert_eq!(index_line(&header, geometry), INDEX_FIELDS.map(|key| number(&lines[&name], key)));
            }
            for entry in entries {
                if !records.contains_key(&entry.offset.get()) {
                    assert!(
                        records.keys().all(|&place| place > entry.offset.get()),
                        "below the log's beginning"
                    );
                    continue;
                }
                let (key, record) = wanted.next().unwrap();
                assert_eq!((entry.key_hash, entry.offset), (key, record.physical_offset), "{}", golden.name);
                assert_eq!(entry.time_diff, index::time_diff(header.begin_timestamp, record.store_timestamp));
                seen += 1;
            }
        }
        if config.message_index {
            assert!(wanted.next().is_none(), "{}", golden.name);
        }
    }
    assert!(seen > 4_000, "{seen}");
}

const INDEX_FIELDS: [&str; 7] = [
    "beginTimestamp",
    "endTimestamp",
    "beginPhyOffset",
    "endPhyOffset",
    "hashSlotCount",
    "indexCount",
    "fileSize",
];

fn index_line(header: &index::Header, geometry: Geometry) -> [i64; 7] {
    [
        header.begin_timestamp.get(),
        header.end_timestamp.get(),
        header.begin_offset.get(),
        header.end_offset.get(),
        header.slot_count.into(),
        header.index_count.into(),
        i64::try_from(geometry.file_size()).unwrap(),
    ]
}

#[test]
fn checkpoints_read_as_java_reads_them_and_are_written_as_java_wrote_them() {
    for golden in undamaged().chain([support::broker()]) {
        let bytes = read(&golden.path("checkpoint"));
        let checkpoint = Checkpoint::decode(&bytes);
        assert!(checkpoint.encode() == *bytes, "{}", golden.name);
        let lines = golden.expected_of("checkpoint");
        let line = lines.iter().find(|line| line["stage"] == "load").unwrap();
        assert_eq!(checkpoint.physic_timestamp.get(), number(line, "physicMsgTimestamp"), "{}", golden.name);
        assert_eq!(checkpoint.logics_timestamp.get(), number(line, "logicsMsgTimestamp"), "{}", golden.name);
        assert_eq!(checkpoint.logics_offset.get(), number(line, "logicsPhysicalOffset"), "{}", golden.name);
        assert_eq!(
            checkpoint.master_flushed_offset.get(),
            number(line, "masterFlushedOffset"),
            "{}",
            golden.name
        );
        // What the archive keeps was read before recovery set confirmPhyOffset, so a first open has another.
        let confirm = checkpoint.confirm_offset.get();
        assert!(confirm == 0 || confirm <= number(line, "confirmPhyOffset"), "{}", golden.name);
        assert_eq!(fs::read(golden.path("lock")).unwrap(), reput::format::LOCK_TEXT);
    }
}
