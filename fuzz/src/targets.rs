//! What is fuzzed: every decoder that reads bytes from a disk or a peer, opening a whole store, and operations of one. Each function takes
//! arbitrary bytes; it may refuse them in any way but a panic, and what it accepts must keep the promises that are
//! asserted here. `fuzz/fuzz_targets` hands them to libFuzzer, `tests/fuzz_smoke.rs` runs them without one.

use std::{
    fs,
    path::Path,
    sync::{Arc, OnceLock},
};

use reput::{
    Config, Filter, ManualClock, Message, QueueOffset, Store, StoreTimestamp, SysFlag, TagFilter,
    format::{
        checkpoint::{self, Checkpoint},
        consume_queue::{self, BatchEntry, Entry, ExtUnit},
        hash, index,
        message::{Draft, Found, Header, Limits, Place, Record, read_at, verify_prop_crc},
        message_id::MessageId,
        properties::{Properties, PropertiesBuf},
    },
    sql92::Expression,
    verify,
    vfs::OsVfs,
};

/// A target: its name and its function.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub fn all() -> Vec<Target> {
    let mut all: Vec<Target> = vec![
        ("record", record),
        ("properties", properties),
        ("queue_files", queue_files),
        ("index_file", index_file),
        ("checkpoint", checkpoint),
        ("names", names),
        ("filter", filter),
        ("tag_filter", tag_filter),
        ("store_open", store_open),
    ];
    #[cfg(feature = "sim")]
    all.push(("operations", operations));
    #[cfg(feature = "broker")]
    all.extend([("frame", frame as fn(&[u8])), ("config_json", config_json)]);
    all
}

/// A filter expression and properties behind a line feed: whatever is an expression answers, and the same once more;
/// below a `NOT` it answers the opposite.
pub fn filter(data: &[u8]) {
    let end = data.iter().rposition(|byte| *byte == b'\n').unwrap_or(data.len());
    let Ok(text) = std::str::from_utf8(&data[..end]) else { return };
    let properties = Properties::new(data.get(end + 1..).unwrap_or_default());
    let Ok(expression) = Expression::parse(text) else { return };
    let answer = expression.evaluate(|name| properties.get(name));
    assert_eq!(expression.matches(|name| properties.get(name)), answer == Ok(Some(true)));
    // A parenthesis too many would end the one that is put around it.
    if !text.contains(')')
        && let Ok(not) = Expression::parse(&format!("NOT ({text}\n)"))
    {
        let opposite = not.evaluate(|name| properties.get(name)).map(|truth| truth.map(|truth| !truth));
        assert_eq!(opposite, answer);
    }
}

/// A record of the log: the full and the short view agree, and what decodes encodes to the same bytes.
pub fn record(data: &[u8]) {
    let decoded = Record::decode(data);
    let header = Header::peek(data);
    match read_at(data) {
        Ok(Found::Blank { len }) => assert!(len <= data.len()),
        Ok(Found::Record(record)) => assert_eq!(Ok(record), decoded),
        Err(_) => assert!(decoded.is_err()),
    }
    let Ok(record) = decoded else { return };
    let header = header.expect("what decodes has a header");
    assert!(record.total_size <= data.len());
    assert_eq!(
        (header.total_size, header.queue_id, header.queue_offset, header.physical_offset, header.sys_flag),
        (record.total_size, record.queue_id, record.queue_offset, record.physical_offset, record.sys_flag),
    );
    assert_eq!((header.topic, header.properties), (record.topic, record.properties));
    let bytes = &data[..record.total_size];
    let checksums = (record.verify_body_crc(), verify_prop_crc(bytes));
    let id = MessageId { host: record.store_host, offset: record.physical_offset };
    assert_eq!(id.to_string().parse::<MessageId>(), Ok(id));
    if let (Ok(()), Ok(with_crc)) = checksums {
        reencode(&record, bytes, with_crc);
    }
}

fn reencode(record: &Record<'_>, bytes: &[u8], with_crc: bool) {
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
        max_message_size: 1 << 30,
        auto_message_version: true,
        append_prop_crc: with_crc,
        segment_size: 1 << 30,
    };
    // A record may be readable and yet not one that we would write: a short topic in the long form, or an empty one.
    let Ok(measured) = draft.measure(limits) else { return };
    let sized_alike = measured.version() == record.version && measured.total_size() == record.total_size;
    // The checksum of an empty body is not looked at.
    if !sized_alike || measured.body_crc() != record.body_crc {
        return;
    }
    let place = Place {
        queue_offset: record.queue_offset,
        physical_offset: record.physical_offset,
        store_timestamp: record.store_timestamp,
    };
    let mut again = Vec::new();
    measured.encode(place, &mut again);
    assert!(again == bytes, "decoded and encoded again, the record differs");
}

/// Properties: whatever is listed is also found, and a list that is built is read back.
pub fn properties(data: &[u8]) {
    let read = Properties::new(data);
    let mut built = PropertiesBuf::new();
    let mut kept = Vec::new();
    for (name, value) in read.iter() {
        let (Ok(name), Ok(value)) = (std::str::from_utf8(name), std::str::from_utf8(value)) else { continue };
        if !name.is_empty() && !value.is_empty() && built.push(name, value).is_ok() {
            kept.push((name, value));
        }
    }
    let back = built.get();
    assert_eq!(back.iter().count(), kept.len());
    for (name, value) in kept {
        assert!(back.iter().any(|pair| pair == (name.as_bytes(), value.as_bytes())));
        assert!(back.get(name).is_some());
    }
    let _ = read.get("KEYS");
}

/// Files of queues: entries, batch entries and ext units.
pub fn queue_files(data: &[u8]) {
    for (entry, bytes) in Entry::decode_all(data).zip(data.as_chunks::<{ consume_queue::ENTRY }>().0) {
        assert_eq!(entry.encode(), *bytes);
        if entry.is_valid() && entry.offset.get() < i64::MAX / 2 {
            assert!(entry.end() > entry.offset);
        }
        if let Some(position) = consume_queue::ext_position(entry.tags_code) {
            assert_eq!(consume_queue::ext_address(position), entry.tags_code);
        }
    }
    for (entry, bytes) in
        BatchEntry::decode_all(data).zip(data.as_chunks::<{ consume_queue::BATCH_ENTRY }>().0)
    {
        assert_eq!(BatchEntry::decode(&entry.encode()), entry);
        assert_eq!(BatchEntry::decode(bytes), entry);
        if entry.is_valid() {
            let _ = (entry.end(), entry.next());
        }
    }
    let mut at = 0;
    while let Some(Ok(unit)) = data.get(at..).map(ExtUnit::decode) {
        let stated = ExtUnit::stated_size(&data[at..]).expect("what decodes has a size");
        let mut again = Vec::new();
        unit.encode(&mut again);
        assert!(again.len() <= stated);
        assert_eq!(ExtUnit::decode(&again), Ok(unit));
        at += stated;
    }
}

/// The header and entries of an IndexFile.
pub fn index_file(data: &[u8]) {
    if let Ok(header) = index::Header::decode(data) {
        assert_eq!(index::Header::decode(&header.encode()), Ok(header));
    }
    for bytes in data.as_chunks::<{ index::ENTRY }>().0 {
        let entry = index::Entry::decode(bytes);
        assert_eq!(entry.encode(), *bytes);
        let _ = entry.timestamp(StoreTimestamp(1_700_000_000_000));
    }
    if let Some((now, rest)) = data.split_first_chunk::<8>() {
        let now = StoreTimestamp(i64::from_be_bytes(*now));
        let offset = rest.first().map_or(0, |hours| i64::from(*hours) % 27 - 12) * 3600;
        let _ = index::is_file_name(&index::file_name(now, offset));
    }
}

/// The checkpoint, whole, short and with fields missing.
pub fn checkpoint(data: &[u8]) {
    let read = Checkpoint::decode(data);
    assert_eq!(Checkpoint::decode(&read.encode()), read);
    assert_eq!(read.encode().len(), checkpoint::SIZE);
}

/// Texts that name things: message ids, topics, properties files and the keys in them.
pub fn names(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(id) = text.parse::<MessageId>() {
        assert_eq!(id.to_string(), text.to_uppercase());
    }
    if let Ok(topic) = reput::TopicName::new(text) {
        assert_eq!(Path::new(topic.as_str()).components().count(), 1);
        assert!(Path::new("/base").join(topic.as_str()).parent() == Some(Path::new("/base")));
    }
    let mut config = Config::new("store");
    for (key, value) in reput::parse_properties(text) {
        if let Ok(true) = config.set(&key, &value) {
            assert!(config.get(&key).is_some());
        }
    }
    let _ = config.validate();
    let _ = index::is_file_name(text);
}

/// A tag expression and the record that it is asked of: both judge a record's own tag alike, and a tag passes by its
/// hash whenever it passes by its name.
pub fn tag_filter(data: &[u8]) {
    let Some(cut) = data.iter().position(|byte| *byte == 0) else { return };
    let (expression, rest) = (String::from_utf8_lossy(&data[..cut]), &data[cut + 1..]);
    let (plain, exact) = (TagFilter::parse(&expression), TagFilter::parse(&expression).exact());
    assert_eq!(plain.is_all(), exact.is_all());
    assert!(plain.is_all() || !expression.trim().is_empty());
    for tag in expression.split("||").map(str::trim).filter(|tag| !tag.is_empty() && *tag != "*") {
        assert!(
            plain.is_all() || plain.by_queue_entry(hash::tags_code(Some(tag)), None),
            "{tag} in {expression}"
        );
    }
    let Ok(record) = Record::decode(rest) else { return };
    let tags = record.properties.get("TAGS");
    let by_hash = plain.by_queue_entry(hash::tags_code(tags), None);
    assert!(by_hash || !exact.by_record(&record) || plain.is_all());
    assert!(plain.by_record(&record));
}

/// The JSON of RocketMQ's config files: what is read is written so that it is read as the same again.
#[cfg(feature = "broker")]
pub fn config_json(data: &[u8]) {
    let Ok(text) = reput::broker::config_json(data) else { return };
    assert_eq!(reput::broker::config_json(text.as_bytes()).as_ref(), Ok(&text));
}

/// Remoting frames as they arrive, in pieces; what decodes survives being sent again.
#[cfg(feature = "broker")]
pub fn frame(data: &[u8]) {
    use bytes::BytesMut;
    use reput::remoting::frame::{decode, encode};
    const LIMIT: usize = 1 << 16;
    let (mut received, mut commands) = (BytesMut::new(), 0);
    for piece in data.chunks(23) {
        received.extend_from_slice(piece);
        loop {
            match decode(&mut received, LIMIT) {
                Ok(None) => break,
                Err(_) => return,
                Ok(Some(command)) => {
                    commands += 1;
                    assert!(commands <= data.len());
                    let said = (command.code, command.opaque, command.flag, command.body.len());
                    let Ok((pieces, length)) = encode(command) else { continue };
                    assert_eq!(pieces.iter().map(bytes::Bytes::len).sum::<usize>(), length);
                    let mut again: BytesMut = pieces.iter().flat_map(|piece| piece.iter().copied()).collect();
                    let back = decode(&mut again, usize::MAX).expect("own frames decode").expect("whole");
                    assert_eq!((back.code, back.opaque, back.flag, back.body.len()), said);
                    assert!(again.is_empty());
                }
            }
        }
    }
}

fn small(root: &Path) -> Config {
    Config::new(root)
        .commit_log_file_size(4096u64)
        .consume_queue_file_size(200u64)
        .index_slots(8u32)
        .index_entries(16u32)
        .batch_consume_queue_file_size(460u64)
        .multi_dispatch(true)
        .lmq(true)
}

/// A queue of the template that a message of another queue is dispatched to.
const LIGHT: &str = "%LMQ%light";
/// A topic of the template whose queue counts batches.
const BATCHES: &str = "many";

/// The files of a small store that was left as by a kill, as (path below the root, bytes).
fn template() -> &'static [(String, Vec<u8>)] {
    static FILES: OnceLock<Vec<(String, Vec<u8>)>> = OnceLock::new();
    FILES.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a directory");
        let (store, mut steps) = open(dir.path()).expect("a new store");
        for n in 0..24 {
            let queue = store.queue(["alpha", "beta"][n % 2], 0).expect("a queue");
            let body = vec![b'x'; n * 13];
            let mut message =
                Message::new(queue, &body).tags("t").keys("k").property("UNIQ_KEY", &format!("u{n}"));
            if n % 4 == 1 {
                message = message.property("INNER_MULTI_DISPATCH", LIGHT);
            }
            drop(store.put(&message).expect("a put"));
            if n % 3 == 0 {
                let queue = store.batch_queue(BATCHES, 0).expect("a batch queue");
                let batch = Message::new(queue, b"several messages in one")
                    .sys_flag(SysFlag(SysFlag::INNER_BATCH))
                    .property("INNER_NUM", &(1 + n % 5).to_string());
                drop(store.put(&batch).expect("a put"));
            }
            while steps.reput().expect("dispatch") {}
        }
        steps.flush().expect("a flush");
        steps.upkeep().expect("upkeep");
        drop((store, steps));
        let mut files = Vec::new();
        collect(dir.path(), dir.path(), &mut files);
        files.sort();
        files
    })
}

fn collect(root: &Path, dir: &Path, files: &mut Vec<(String, Vec<u8>)>) {
    for entry in fs::read_dir(dir).expect("a directory").flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(root, &path, files);
        } else if !path.ends_with("lock") {
            let name = path.strip_prefix(root).expect("below the root").to_str().expect("a name").to_owned();
            files.push((name, fs::read(&path).expect("a file")));
        }
    }
}

fn open(root: &Path) -> reput::Result<(Store, reput::Steps)> {
    let clock = Arc::new(ManualClock::new(StoreTimestamp(1_700_000_000_000)));
    Store::open_stepped(small(root), Arc::new(OsVfs), clock)
}

/// What zeroing and swapping works by: an eighth of a template's segment.
const BLOCK: usize = 512;

/// Applies the changes that `data` describes, each by four bytes (a file's number, a kind of change in the low half of
/// the second byte with a length in its high half, a place) and the bytes behind them.
fn change_files(files: &mut Vec<(String, Vec<u8>)>, data: &[u8]) {
    let mut rest = data;
    while let Some((&[file, kind, high, low], tail)) = rest.split_first_chunk::<4>() {
        let count = files.len();
        if count == 0 {
            return;
        }
        let number = usize::from(file) % count;
        let at = usize::from(high) << 8 | usize::from(low);
        let (new, after) = tail.split_at(usize::from(kind >> 4).min(tail.len()));
        rest = after;
        let (_, bytes) = &mut files[number];
        let block = at % bytes.len().max(1) / BLOCK * BLOCK;
        let end = (block + BLOCK).min(bytes.len());
        match kind & 15 {
            0 => bytes.truncate(at),
            1 => bytes.clear(),
            2 => bytes.extend_from_slice(new),
            3 => drop(files.swap_remove(number)),
            4 => bytes[block..end].fill(0),
            5 => {
                // The block and the one that the next bytes name change places.
                let other = new.first().map_or(0, |n| usize::from(*n)) * BLOCK;
                if other + BLOCK <= block || (block + BLOCK <= other && other + BLOCK <= bytes.len()) {
                    let (first, second) = (block.min(other), block.max(other));
                    let (left, right) = bytes.split_at_mut(second);
                    let length = BLOCK.min(right.len());
                    left[first..first + length].swap_with_slice(&mut right[..length]);
                }
            }
            6 => files[number].0.push_str(if low & 1 == 0 { ".old" } else { "7" }),
            7 => {
                let copy = files[usize::from(low) % count].1.clone();
                files[number].1 = copy;
            }
            8 => {
                // A file of the same kind that is not there yet.
                let (name, copy) = files[number].clone();
                let kept = name.len() - name.len().min(20);
                if let Some(folder) = name.get(..kept).filter(|_| name.len() > 20) {
                    files.push((format!("{folder}{:020}", at * 4), copy));
                }
            }
            9..=11 => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << (high >> 5);
                }
            }
            _ => {
                for (to, from) in bytes.iter_mut().skip(at).zip(new) {
                    *to = *from;
                }
            }
        }
    }
}

/// Opens a store whose files were changed as `data` says. It may be refused with an error; if it opens, queues lead to
/// records, and it opens again to the same. Repair makes it whole then, and serves nothing that was not served before.
pub fn store_open(data: &[u8]) {
    let mut files = template().to_vec();
    change_files(&mut files, data);
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }
        .expect("a directory");
    for (name, bytes) in &files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(path, bytes).expect("a file");
    }
    let Ok(first) = served(dir.path(), true) else { return };
    let second = served(dir.path(), false).expect("what opened and closed opens again");
    assert_eq!(first, second, "the second open serves something else");
    verify::repair(small(dir.path())).expect("what opens is mended");
    let mut found = Vec::new();
    let summary =
        verify::verify(small(dir.path()), &mut |finding| found.push(finding.to_string()), &mut |_| {});
    assert!(summary.expect("it is checked").is_whole(), "not whole after repair: {found:#?}");
    let mended = served(dir.path(), false).expect("what was mended opens");
    let more = mended.iter().find(|message| first.binary_search(message).is_err());
    assert_eq!(more, None, "repair serves it, and opening did not");
}

/// Operations of a store on a simulated disk, held against a model: the disks that power cuts may leave at each write,
/// sync and change of a name are opened and keep every promise. What breaks is told with its steps and with the command
/// that makes the run again.
#[cfg(feature = "sim")]
pub fn operations(data: &[u8]) {
    use reput::sim::{Budget, Lab, Workload};
    let lab = Lab::new(Budget { images: 40, per_point: 2, ..Budget::default() });
    if let Err(finding) = lab.run(&Workload::of_bytes(data)) {
        panic!("{finding}");
    }
}

/// Topic, queue and offset of a message and where its record stands.
type Served = Vec<(String, i32, i64, i64)>;

/// What a store serves once everything is dispatched, after one more put if `write`.
fn served(root: &Path, write: bool) -> reput::Result<Served> {
    let (store, mut steps) = open(root)?;
    if write {
        let queue = store.queue("gamma", 0)?;
        drop(store.put(&Message::new(queue, b"one more"))?);
    }
    while steps.reput()? {}
    let mut all = Vec::new();
    for (topic, id) in store.queues() {
        let Some(queue) = store.find_queue(&topic, id) else { continue };
        let (mut at, max) = (store.min_offset(queue), store.max_offset(queue));
        assert!(at >= QueueOffset::ZERO && at <= max);
        while at < max {
            let got = store.get(queue, at)?;
            assert!(got.next_offset > at, "a read that does not move on");
            for message in &got.messages {
                let record = message.record();
                // A change may have given the further queue of a record another name.
                let names = record.properties.get("INNER_MULTI_DISPATCH").unwrap_or_default();
                if !names.split(',').any(|name| name == topic.as_str()) {
                    assert_eq!((record.topic, record.queue_id), (topic.as_str(), id));
                    if topic.as_str() != BATCHES {
                        assert_eq!(record.queue_offset, message.queue_offset());
                    }
                }
                all.push((
                    topic.to_string(),
                    id.get(),
                    message.queue_offset().get(),
                    record.physical_offset.get(),
                ));
            }
            at = got.next_offset;
        }
    }
    for key in ["k", "u1"] {
        for hit in store.query("alpha", key)? {
            assert_eq!(hit.topic(), "alpha");
        }
    }
    store.close()?;
    all.sort();
    Ok(all)
}
