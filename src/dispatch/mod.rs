//! What a record of the log makes: its queue entries and its index keys.
//!
//! Pure: a [`Header`] and the options that matter in, values out. Live dispatch and recovery both go through here,
//! so that a queue rebuilt from the log is the queue that was.
//!
//! Rules (FORMAT.md, "ConsumeQueue" and "IndexFile"): prepared and rolled-back messages have no entry, rolled-back
//! ones no key; a delayed message of `SCHEDULE_TOPIC_XXXX` carries its due time instead of a tag hash; an inner batch
//! counts for several messages in a batch queue; with multi-dispatch a record has an entry in every queue it names.

mod places;

pub(crate) use places::{GROUP, QueuePlaces, TopicPlace};

use crate::{
    config::Config,
    consume_queue::{Dispatch, Queue, QueueKind},
    error::Result,
    format::{
        hash::{IndexKeys, JavaHash},
        message::Header,
        properties::{DELAY, INNER_BASE, INNER_MULTI_DISPATCH, INNER_MULTI_QUEUE_OFFSET, INNER_NUM},
        properties::{KEYS, Properties, TAGS, UNIQ_KEY},
    },
    index::KeyPut,
    types::{QueueId, QueueOffset, StoreTimestamp, SysFlag, TagsCode, TransactionType},
};

/// The topic of messages that wait for their time; queue `n` holds delay level `n + 1`.
pub(crate) const SCHEDULE_TOPIC: &str = "SCHEDULE_TOPIC_XXXX";
/// What the names of light queues begin with.
pub(crate) const LIGHT_QUEUE_PREFIX: &str = "%LMQ%";

/// The options that decide what records make.
#[derive(Clone, Debug)]
pub(crate) struct Projection {
    delays_ms: Vec<i64>,
    multi_dispatch: bool,
    light_queues: bool,
    index: bool,
}

/// What one record makes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Projected<'a> {
    /// Its topic.
    pub topic: &'a str,
    /// Its queue.
    pub queue_id: QueueId,
    simple: Dispatch<'static>,
    transaction: TransactionType,
    /// First offset and count of an inner batch, as its properties state them.
    batch: Option<(QueueOffset, i16)>,
    /// Whether the record says that it is one.
    is_batch: bool,
    /// Names and offsets of further queues, comma lists of equal length.
    further: Option<(&'a str, &'a str)>,
    light_queues: bool,
    keys: Option<RecordKeys<'a>>,
}

#[derive(Clone, Copy, Debug)]
struct RecordKeys<'a> {
    unique: Option<&'a [u8]>,
    keys: Option<&'a [u8]>,
    tags: Option<&'a [u8]>,
}

/// The properties that dispatch looks at, each as it stands last.
#[derive(Clone, Copy, Debug, Default)]
struct Named<'a> {
    unique: Option<&'a [u8]>,
    keys: Option<&'a [u8]>,
    tags: Option<&'a [u8]>,
    /// One of those is there that few messages have.
    rare: bool,
}

impl<'a> Named<'a> {
    #[inline]
    fn of(properties: Properties<'a>) -> Self {
        const RARE: [&str; 4] = [DELAY, INNER_NUM, INNER_BASE, INNER_MULTI_DISPATCH];
        let mut named = Self::default();
        for (name, value) in properties {
            // By length first: that settles most of them.
            match name.len() {
                4 if name == TAGS.as_bytes() => named.tags = Some(value),
                4 if name == KEYS.as_bytes() => named.keys = Some(value),
                8 if name == UNIQ_KEY.as_bytes() => named.unique = Some(value),
                5 | 9 | 10 | 20 => named.rare |= RARE.iter().any(|rare| name == rare.as_bytes()),
                _ => {}
            }
        }
        named
    }
}

/// A value that is text.
#[inline]
fn text(value: &[u8]) -> bool {
    value.is_ascii() || std::str::from_utf8(value).is_ok()
}

/// What few records have.
#[derive(Clone, Copy, Debug, Default)]
struct Rare<'a> {
    due: Option<TagsCode>,
    /// First offset and count of an inner batch.
    batch: Option<(QueueOffset, i16)>,
    /// Names and offsets of further queues, comma lists of equal length.
    further: Option<(&'a str, &'a str)>,
}

impl Projection {
    /// The projection that a configuration asks for.
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            delays_ms: config.delay_levels_ms(),
            multi_dispatch: config.multi_dispatch,
            light_queues: config.lmq,
            index: config.message_index,
        }
    }

    /// Whether records make index keys.
    pub(crate) const fn indexes(&self) -> bool {
        self.index
    }

    /// What `record` makes.
    #[inline]
    pub(crate) fn of<'a>(&self, record: &Header<'a>) -> Projected<'a> {
        let Named { unique, keys, tags, rare } = Named::of(record.properties);
        let rare = if rare { self.rare(record) } else { Rare::default() };
        let transaction = record.sys_flag.transaction();
        // Tags that are no text count as none.
        let hash = tags.and_then(|tags| JavaHash::new().bytes(tags));
        let tags = tags.filter(|_| hash.is_some());
        let tags_code = rare.due.unwrap_or(TagsCode(hash.map_or(0, |hash| hash.value().into())));
        Projected {
            topic: record.topic,
            queue_id: record.queue_id,
            simple: Dispatch {
                queue_offset: record.queue_offset,
                offset: record.physical_offset,
                size: i32::try_from(record.total_size).unwrap_or(i32::MAX),
                tags_code,
                store_timestamp: record.store_timestamp,
                batch_num: 1,
                bitmap: None,
            },
            transaction,
            batch: rare.batch,
            is_batch: record.sys_flag.has(SysFlag::INNER_BATCH),
            further: rare.further,
            light_queues: self.light_queues,
            keys: (self.index && transaction != TransactionType::Rollback).then_some(RecordKeys {
                unique: unique.filter(|unique| text(unique)),
                keys,
                tags,
            }),
        }
    }

    #[cold]
    fn rare<'a>(&self, record: &Header<'a>) -> Rare<'a> {
        let names = [DELAY, INNER_NUM, INNER_BASE, INNER_MULTI_DISPATCH, INNER_MULTI_QUEUE_OFFSET];
        let [delay, num, base, multi, offsets] = record.properties.pick(names);
        let batch = match (base.and_then(|b| b.parse().ok()), num.and_then(|n| n.parse().ok())) {
            (Some(base @ 0..), Some(num @ 1..)) => Some((QueueOffset(base), num)),
            _ => None,
        };
        let further = multi.filter(|names| self.multi_dispatch && !names.is_empty() && spreads(record.topic));
        Rare {
            due: self.due_time(record.topic, delay, record.store_timestamp),
            batch,
            further: further.zip(offsets),
        }
    }

    /// When a delayed message is due; `None` for every other one. Levels past the last count as the last.
    fn due_time(&self, topic: &str, delay: Option<&str>, stored: StoreTimestamp) -> Option<TagsCode> {
        if topic != SCHEDULE_TOPIC {
            return None;
        }
        let level: i32 = delay?.parse().ok()?;
        let last = self.delays_ms.len();
        let level = usize::try_from(level).ok().filter(|level| *level > 0)?.min(last);
        let delay_ms = *self.delays_ms.get(level.checked_sub(1)?)?;
        Some(TagsCode(stored.0.saturating_add(delay_ms)))
    }
}

/// Whether records of `topic` may be dispatched into further queues: not those of the system.
pub(crate) fn spreads(topic: &str) -> bool {
    topic != SCHEDULE_TOPIC && !topic.starts_with("%RETRY%") && !topic.starts_with("rmq_sys_")
}

impl<'a> Projected<'a> {
    /// The kind of queue that the record was written for.
    #[inline]
    pub(crate) fn kind(&self) -> QueueKind {
        if self.is_batch && self.batch.is_some() { QueueKind::Batch } else { QueueKind::Simple }
    }

    /// Whether the record has an entry in its own queue, whatever kind that is.
    #[inline]
    pub(crate) fn is_queued(&self) -> bool {
        matches!(self.transaction, TransactionType::None | TransactionType::Commit)
    }

    /// The record's length.
    pub(crate) const fn size(&self) -> i32 {
        self.simple.size
    }

    /// The record's entry in its own queue, which is of `kind`. In a batch queue a record without the properties of an
    /// inner batch counts for one message, unless it says that it is one: then its properties are damaged.
    #[inline]
    pub(crate) fn entry(&self, kind: QueueKind) -> Option<Dispatch<'static>> {
        if !self.is_queued() {
            return None;
        }
        match kind {
            QueueKind::Simple => Some(self.simple),
            QueueKind::Batch => {
                let single = (!self.is_batch).then_some((self.simple.queue_offset, 1));
                let (queue_offset, batch_num) = self.batch.or(single)?;
                Some(Dispatch { queue_offset, batch_num, ..self.simple })
            }
        }
    }

    /// The record's entry in `queue`, its own. Of an inner batch whose properties are damaged it is the one that was made
    /// when they were not, if the queue still has it.
    #[inline]
    pub(crate) fn entry_in(&self, queue: &Queue) -> Result<Option<Dispatch<'static>>> {
        let entry = self.entry(queue.kind());
        let is_plain = queue.kind() == QueueKind::Simple || !self.is_queued();
        if is_plain { Ok(entry) } else { self.entry_as_it_was(queue, entry) }
    }

    #[cold]
    fn entry_as_it_was(
        &self,
        queue: &Queue,
        entry: Option<Dispatch<'static>>,
    ) -> Result<Option<Dispatch<'static>>> {
        let stated = entry.unwrap_or(self.simple);
        let (at, offset, size) = (stated.queue_offset, stated.offset, stated.size);
        let Some(unit) = queue.get(at)?.filter(|unit| {
            (unit.queue_offset, unit.offset, unit.size) == (at, offset, size) && unit.batch_num > 0
        }) else {
            return Ok(entry);
        };
        // No checksum covers the count. That of the queue is believed against another where the next entry begins at its
        // end.
        let differs = entry.is_some_and(|entry| entry.batch_num != unit.batch_num);
        if differs && queue.get(unit.next())?.is_none_or(|behind| behind.queue_offset != unit.next()) {
            return Ok(entry);
        }
        Ok(Some(Dispatch { batch_num: unit.batch_num, ..stated }))
    }

    /// The two numbers that an inner batch states for its first message, in its header and in INNER_BASE, when they
    /// disagree: one of them is damaged.
    pub(crate) fn disagreeing(&self) -> Option<[QueueOffset; 2]> {
        let (base, _) = self.batch?;
        (base != self.simple.queue_offset).then_some([self.simple.queue_offset, base])
    }

    /// Whether the record may have entries in further queues.
    pub(crate) const fn spreads(&self) -> bool {
        self.further.is_some()
    }

    /// The entries in further queues: topic, queue and entry. None unless the two lists have the same length.
    pub(crate) fn further(&self) -> impl Iterator<Item = (&'a str, QueueId, Dispatch<'static>)> + use<'a> {
        let lists = self.further.filter(|(names, offsets)| {
            self.is_queued() && names.split(',').count() == offsets.split(',').count()
        });
        let (simple, queue_id, light) = (self.simple, self.queue_id, self.light_queues);
        let pairs = lists.into_iter().flat_map(|(names, offsets)| names.split(',').zip(offsets.split(',')));
        pairs.filter_map(move |(name, offset)| {
            let queue_offset = QueueOffset(offset.trim().parse().ok().filter(|offset| *offset >= 0)?);
            let id = if light && name.starts_with(LIGHT_QUEUE_PREFIX) { QueueId(0) } else { queue_id };
            Some((name, id, Dispatch { queue_offset, ..simple }))
        })
    }

    /// Appends the record's index keys to `out`, in the order in which RocketMQ puts them: the unique key, each of
    /// KEYS, the tags. `hashes` gives those of the record's topic.
    #[inline]
    pub(crate) fn keys(&self, hashes: impl FnOnce() -> IndexKeys, out: &mut Vec<KeyPut>) {
        let Some(RecordKeys { unique, keys, tags }) = self.keys else { return };
        if unique.is_none() && keys.is_none() && tags.is_none() {
            return;
        }
        let hashes = hashes();
        let mut put = |hash| {
            out.push(KeyPut {
                hash,
                offset: self.simple.offset,
                store_timestamp: self.simple.store_timestamp,
            });
        };
        if let Some(unique) = unique {
            put(hashes.key(unique));
        }
        if let Some(keys) = keys {
            // Damage to one key is none to the others.
            let all = text(keys);
            for key in keys.split(|byte| *byte == b' ').filter(|key| !key.is_empty() && (all || text(key))) {
                put(hashes.key(key));
            }
        }
        if let Some(tags) = tags {
            put(hashes.tags(tags));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        format::{
            hash::{index_key_hash, java_string_hash},
            properties::Properties,
        },
        types::PhysicalOffset,
    };

    fn projection(set: &[(&str, &str)]) -> Projection {
        let mut config = Config::new("/x");
        for (key, value) in set {
            assert!(config.set(key, value).unwrap(), "{key}");
        }
        Projection::new(&config)
    }

    fn header<'a>(topic: &'a str, properties: &'a str, sys_flag: i32) -> Header<'a> {
        Header {
            total_size: 200,
            queue_id: QueueId(3),
            queue_offset: QueueOffset(7),
            physical_offset: PhysicalOffset(1_000),
            sys_flag: SysFlag(sys_flag),
            store_timestamp: StoreTimestamp(50_000),
            topic,
            properties: Properties::new(properties.as_bytes()),
        }
    }

    fn tags_code(topic: &str, properties: &str) -> i64 {
        projection(&[]).of(&header(topic, properties, 0)).entry(QueueKind::Simple).unwrap().tags_code.0
    }

    #[test]
    fn the_tags_code_is_the_hash_but_for_delayed_messages() {
        assert_eq!(tags_code("t", ""), 0);
        assert_eq!(tags_code("t", "TAGS\u{1}a||b\u{2}"), i64::from(java_string_hash("a||b")));
        assert_eq!(tags_code("t", "DELAY\u{1}3\u{2}"), 0, "only the schedule topic delays");
        for (level, due) in
            [("1", 51_000), ("3", 60_000), ("18", 7_250_000), ("19", 7_250_000), ("99", 7_250_000)]
        {
            let properties = format!("TAGS\u{1}x\u{2}DELAY\u{1}{level}\u{2}");
            assert_eq!(tags_code(SCHEDULE_TOPIC, &properties), due, "level {level}");
        }
        for level in ["0", "-1", "x"] {
            let properties = format!("TAGS\u{1}x\u{2}DELAY\u{1}{level}\u{2}");
            assert_eq!(
                tags_code(SCHEDULE_TOPIC, &properties),
                i64::from(java_string_hash("x")),
                "level {level}"
            );
        }
    }

    #[test]
    fn transactions_in_the_air_have_no_entry_and_those_undone_no_key() {
        let projection = projection(&[]);
        for (flag, queued, keys) in [(0, true, 1), (0x4, false, 1), (0x8, true, 1), (0xC, false, 0)] {
            let record = header("t", "KEYS\u{1}k\u{2}", flag);
            let made = projection.of(&record);
            let mut puts = Vec::new();
            made.keys(|| IndexKeys::of("t"), &mut puts);
            assert_eq!((made.entry(QueueKind::Simple).is_some(), puts.len()), (queued, keys), "{flag:#x}");
        }
    }

    #[test]
    fn keys_come_in_the_order_that_rocketmq_puts_them() {
        let record = header("t", "TAGS\u{1}eu\u{2}KEYS\u{1}a  b a\u{2}UNIQ_KEY\u{1}U1\u{2}", 0);
        let mut puts = Vec::new();
        projection(&[]).of(&record).keys(|| IndexKeys::of("t"), &mut puts);
        let hashes: Vec<i32> = puts.iter().map(|put| put.hash).collect();
        let key = |key| index_key_hash("t", None, key);
        assert_eq!(hashes, [key("U1"), key("a"), key("b"), key("a"), index_key_hash("t", Some("T"), "eu")]);
        assert!(puts.iter().all(|put| put.offset.0 == 1_000 && put.store_timestamp.0 == 50_000));
        puts.clear();
        projection(&[("messageIndexEnable", "false")]).of(&record).keys(|| IndexKeys::of("t"), &mut puts);
        assert!(puts.is_empty());
    }

    #[test]
    fn a_key_that_is_no_text_keeps_no_other_from_the_index() {
        let properties = Properties::new(b"KEYS\x01a \xbcb c\xff d\x02");
        let record = Header { properties, ..header("t", "", 0) };
        let mut puts = Vec::new();
        projection(&[]).of(&record).keys(|| IndexKeys::of("t"), &mut puts);
        let hashes: Vec<i32> = puts.iter().map(|put| put.hash).collect();
        assert_eq!(hashes, ["a", "d"].map(|key| index_key_hash("t", None, key)));
    }

    #[test]
    fn in_a_batch_queue_an_inner_batch_counts_for_its_messages_and_any_other_record_for_one() {
        let record = header("t", "INNER_NUM\u{1}4\u{2}INNER_BASE\u{1}20\u{2}", SysFlag::INNER_BATCH);
        let made = projection(&[]).of(&record);
        assert_eq!(made.kind(), QueueKind::Batch);
        let entry = made.entry(QueueKind::Batch).unwrap();
        assert_eq!((entry.queue_offset.0, entry.batch_num), (20, 4));
        let single = projection(&[]).of(&header("t", "", 0));
        let entry = single.entry(QueueKind::Batch).unwrap();
        assert_eq!((entry.queue_offset.0, entry.batch_num), (7, 1));
        let torn = projection(&[]).of(&header("t", "INNER_NUM\u{1}4\u{2}", SysFlag::INNER_BATCH));
        assert!(torn.entry(QueueKind::Batch).is_none());
        let unflagged = header("t", "INNER_NUM\u{1}4\u{2}INNER_BASE\u{1}20\u{2}", 0);
        assert_eq!(projection(&[]).of(&unflagged).kind(), QueueKind::Simple);
    }

    #[test]
    fn further_queues_need_the_switch_and_lists_of_equal_length() {
        let on = projection(&[("enableLmq", "true"), ("enableMultiDispatch", "true")]);
        let text = "INNER_MULTI_DISPATCH\u{1}%LMQ%a,other\u{2}INNER_MULTI_QUEUE_OFFSET\u{1}5,9\u{2}";
        let record = header("t", text, 0);
        let entries: Vec<_> =
            on.of(&record).further().map(|(name, id, entry)| (name, id.0, entry.queue_offset.0)).collect();
        assert_eq!(entries, [("%LMQ%a", 0, 5), ("other", 3, 9)]);
        assert_eq!(projection(&[]).of(&record).further().count(), 0, "the switch is off");
        for topic in [SCHEDULE_TOPIC, "%RETRY%g", "rmq_sys_x"] {
            assert_eq!(on.of(&header(topic, text, 0)).further().count(), 0, "{topic}");
        }
        let uneven = "INNER_MULTI_DISPATCH\u{1}%LMQ%a,b\u{2}INNER_MULTI_QUEUE_OFFSET\u{1}5\u{2}";
        assert_eq!(on.of(&header("t", uneven, 0)).further().count(), 0);
        assert_eq!(on.of(&header("t", text, 0x4)).further().count(), 0, "prepared messages are in no queue");
    }
}
