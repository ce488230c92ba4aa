//! Where each group stands in each queue: `consumerOffset.json`.
//!
//! Owns three tables of topic -> group -> queue -> offset: consumed (committed by clients), pulled (as seen by pulls)
//! and reset (set by an administrator, taken by the next pull). Topics and groups in them exist or existed; a commit
//! for others is refused. Saved every `flushConsumerOffsetInterval` and at stop, when changed. Called by pull, admin,
//! and the requests here.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::Path,
    sync::Arc,
};

use parking_lot::Mutex;

use super::{
    Broker, Refusal, Route,
    config_file::{ConfigFile, DataVersion},
    json::Json,
    light, names,
};
use crate::{
    error::Result,
    remoting::{
        Command, Connection,
        codes::{request, response},
    },
    types::{QueueOffset, StoreTimestamp},
};

/// The only queue of a light topic.
const LIGHT_QUEUE: i32 = 0;

/// Queue -> offset.
pub(super) type QueueOffsets = BTreeMap<i32, i64>;

/// topic -> group -> queue -> offset. A lookup allocates nothing.
#[derive(Debug, Default)]
struct Table(HashMap<String, HashMap<String, QueueOffsets>>);

impl Table {
    fn get(&self, group: &str, topic: &str, queue: i32) -> Option<i64> {
        self.0.get(topic)?.get(group)?.get(&queue).copied()
    }

    /// Sets an offset; what was there before.
    fn set(&mut self, group: &str, topic: &str, queue: i32, offset: i64) -> Option<i64> {
        if let Some(place) = self.0.get_mut(topic).and_then(|groups| groups.get_mut(group)) {
            return place.insert(queue, offset);
        }
        self.0.entry(topic.into()).or_default().entry(group.into()).or_default().insert(queue, offset)
    }

    fn take(&mut self, group: &str, topic: &str, queue: i32) -> Option<i64> {
        let queues = self.0.get_mut(topic)?.get_mut(group)?;
        let taken = queues.remove(&queue);
        if queues.is_empty() {
            self.0.get_mut(topic)?.remove(group);
        }
        taken
    }

    fn remove_group(&mut self, group: &str) {
        self.0.retain(|_, groups| {
            groups.remove(group);
            !groups.is_empty()
        });
    }

    /// With `light`, without what [`Table::light_json`] has.
    fn to_json(&self, light: bool) -> Json {
        let mut pairs = Vec::new();
        for (topic, groups) in &self.0 {
            for (group, queues) in groups {
                let apart = light && light::is_light(group);
                let queues = queues.iter().filter(|(queue, _)| !apart || **queue != LIGHT_QUEUE);
                let queues: Vec<_> = queues.map(|(queue, offset)| (*queue, Json::from(*offset))).collect();
                if !apart || !queues.is_empty() {
                    pairs.push((format!("{topic}@{group}"), Json::map(queues)));
                }
            }
        }
        pairs.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        Json::map(pairs)
    }

    /// RocketMQ's `lmqOffsetTable`: of the groups of light queues, which are read from one queue.
    fn light_json(&self) -> Json {
        let mut pairs = Vec::new();
        for (topic, groups) in &self.0 {
            for (group, queues) in groups.iter().filter(|(group, _)| light::is_light(group)) {
                pairs.extend(
                    queues.get(&LIGHT_QUEUE).map(|offset| (format!("{topic}@{group}"), Json::from(*offset))),
                );
            }
        }
        pairs.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        Json::map(pairs)
    }

    fn read_light(&mut self, json: Option<&Json>) {
        for (key, offset) in json.map(Json::pairs).unwrap_or_default() {
            let names = key.text().and_then(|key| key.split_once('@'));
            match (
                names.filter(|(topic, group)| names::is_topic(topic) && names::is_group(group)),
                offset.int(),
            ) {
                (Some((topic, group)), Some(offset @ 0..)) => {
                    self.set(group, topic, LIGHT_QUEUE, offset);
                }
                (Some(_), Some(_)) => {}
                _ => tracing::warn!(?key, "lmqOffsetTable names what cannot be a topic and group: left out"),
            }
        }
    }

    fn from_json(json: Option<&Json>) -> Self {
        let mut table = Self::default();
        for (key, queues) in json.map(Json::pairs).unwrap_or_default() {
            let names = key.text().and_then(|key| key.split_once('@'));
            let Some((topic, group)) =
                names.filter(|(topic, group)| names::is_topic(topic) && names::is_group(group))
            else {
                tracing::warn!(?key, "consumerOffset.json names what cannot be a topic and group: left out");
                continue;
            };
            for (queue, offset) in queues.pairs() {
                let queue = queue.int().and_then(|queue| i32::try_from(queue).ok());
                // RocketMQ keeps also what is below zero, and takes it for no offset.
                if let (Some(queue), Some(offset @ 0..)) = (queue, offset.int()) {
                    table.set(group, topic, queue, offset);
                }
            }
        }
        table
    }
}

/// The offsets of all groups.
#[derive(Debug)]
pub(crate) struct Offsets {
    tables: Mutex<Tables>,
    file: ConfigFile,
    /// Whether the groups of light queues have a table of their own in the file.
    light: bool,
}

#[derive(Debug, Default)]
struct Tables {
    consumed: Table,
    pulled: Table,
    reset: Table,
    version: DataVersion,
    changed: bool,
}

impl Offsets {
    /// Reads `consumerOffset.json`; with `light` queues `lmqConsumerOffset.json`, or the other while there is none.
    pub(crate) fn load(
        file_of: impl Fn(&str) -> Result<ConfigFile>,
        light: bool,
        now: StoreTimestamp,
    ) -> Result<Self> {
        let read = |json: &Json| {
            json.get("offsetTable").ok_or("no offsetTable")?;
            let mut consumed = Table::from_json(json.get("offsetTable"));
            consumed.read_light(json.get("lmqOffsetTable"));
            Ok(Tables {
                consumed,
                pulled: Table::from_json(json.get("pullOffsetTable")),
                version: DataVersion::from_json(json.get("dataVersion")).unwrap_or_default(),
                ..Tables::default()
            })
        };
        let plain = file_of("consumerOffset.json")?;
        let (file, tables) = if light {
            let file = file_of("lmqConsumerOffset.json")?;
            let tables = match file.load(read)? {
                Some(tables) => Some(tables),
                None => plain.load(read)?,
            };
            (file, tables)
        } else {
            let tables = plain.load(read)?;
            (plain, tables)
        };
        let tables =
            tables.unwrap_or_else(|| Tables { version: DataVersion::new(now.get()), ..Tables::default() });
        Ok(Self { tables: Mutex::new(tables), file, light })
    }

    /// Takes back every offset beyond the end of its queue, which a log that was cut leaves behind: the consumer
    /// would otherwise wait for messages that exist already under smaller numbers. Where that leaves nothing of one, as
    /// when the log lies on a disk that is not mounted, the table is first kept as it was in the directory `aside`.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) fn clamp(&self, aside: &Path, end_of: impl Fn(&str, i32) -> QueueOffset) -> Result<()> {
        let mut nothing_left = false;
        let mut tables = self.tables.lock();
        let Tables { consumed, pulled, changed, .. } = &mut *tables;
        for (topic, groups) in consumed.0.iter_mut().chain(&mut pulled.0) {
            for (group, queues) in groups {
                for (queue, offset) in queues {
                    let end = end_of(topic, *queue).get();
                    if *offset > end {
                        tracing::warn!(
                            topic,
                            group,
                            queue,
                            offset,
                            end,
                            "offset beyond the end of its queue taken back"
                        );
                        nothing_left |= end == 0;
                        *offset = end;
                        *changed = true;
                    }
                }
            }
        }
        if nothing_left { self.file.keep_in(aside) } else { Ok(()) }
    }

    /// The committed offset; `None` when the group never committed one.
    pub(crate) fn query(&self, group: &str, topic: &str, queue: i32) -> Option<i64> {
        let tables = self.tables.lock();
        tables.reset.get(group, topic, queue).or_else(|| tables.consumed.get(group, topic, queue))
    }

    /// Commits an offset, forwards or back, as the client says.
    pub(crate) fn commit(&self, group: &str, topic: &str, queue: i32, offset: i64) {
        let mut tables = self.tables.lock();
        let old = tables.consumed.set(group, topic, queue, offset);
        if old != Some(offset) {
            tables.changed = true;
        }
    }

    /// Notes how far a group pulled.
    pub(crate) fn note_pull(&self, group: &str, topic: &str, queue: i32, offset: i64) {
        let mut tables = self.tables.lock();
        let old = tables.pulled.set(group, topic, queue, offset);
        if old != Some(offset) {
            tables.changed = true;
        }
    }

    /// How far a group pulled.
    pub(crate) fn pulled(&self, group: &str, topic: &str, queue: i32) -> Option<i64> {
        self.tables.lock().pulled.get(group, topic, queue)
    }

    /// Sets an offset for the group's next pull, whatever it asks for; also commits it.
    pub(crate) fn reset(&self, group: &str, topic: &str, queue: i32, offset: i64) {
        let mut tables = self.tables.lock();
        tables.reset.set(group, topic, queue, offset);
        tables.consumed.set(group, topic, queue, offset);
        tables.changed = true;
    }

    /// Commits for one group what another one has committed in a topic.
    pub(crate) fn clone_group(&self, from: &str, to: &str, topic: &str) {
        let mut tables = self.tables.lock();
        let Some(groups) = tables.consumed.0.get_mut(topic) else { return };
        if let Some(queues) = groups.get(from).cloned() {
            groups.insert(to.to_owned(), queues);
            tables.changed = true;
        }
    }

    /// Whether a reset waits for the group's next pull.
    pub(crate) fn has_reset(&self, group: &str, topic: &str, queue: i32) -> bool {
        self.tables.lock().reset.get(group, topic, queue).is_some()
    }

    /// Takes the reset that waits for the group's next pull.
    pub(crate) fn take_reset(&self, group: &str, topic: &str, queue: i32) -> Option<i64> {
        self.tables.lock().reset.take(group, topic, queue)
    }

    /// The topics in which a group committed, sorted.
    pub(crate) fn topics_of(&self, group: &str) -> BTreeSet<String> {
        let tables = self.tables.lock();
        let with = tables.consumed.0.iter().filter(|(_, groups)| groups.contains_key(group));
        with.map(|(topic, _)| topic.clone()).collect()
    }

    /// Gives topic, group and the sum of its committed offsets, for every pair.
    pub(crate) fn each_sum(&self, mut give: impl FnMut(&str, &str, u64)) {
        let tables = self.tables.lock();
        for (topic, groups) in &tables.consumed.0 {
            for (group, queues) in groups {
                give(topic, group, queues.values().filter_map(|offset| u64::try_from(*offset).ok()).sum());
            }
        }
    }

    /// The groups that committed in a topic, sorted.
    pub(crate) fn groups_of(&self, topic: &str) -> BTreeSet<String> {
        let tables = self.tables.lock();
        tables.consumed.0.get(topic).map(|groups| groups.keys().cloned().collect()).unwrap_or_default()
    }

    /// What a group committed in a topic, by queue.
    pub(crate) fn in_topic(&self, group: &str, topic: &str) -> QueueOffsets {
        let tables = self.tables.lock();
        tables.consumed.0.get(topic).and_then(|groups| groups.get(group)).cloned().unwrap_or_default()
    }

    /// Forgets a topic.
    pub(crate) fn remove_topic(&self, topic: &str) {
        let mut tables = self.tables.lock();
        let consumed = tables.consumed.0.remove(topic).is_some();
        let pulled = tables.pulled.0.remove(topic).is_some();
        tables.reset.0.remove(topic);
        tables.changed |= consumed || pulled;
    }

    /// Forgets a group.
    pub(crate) fn remove_group(&self, group: &str) {
        let mut tables = self.tables.lock();
        tables.consumed.remove_group(group);
        tables.pulled.remove_group(group);
        tables.reset.remove_group(group);
        tables.changed = true;
    }

    /// As `consumerOffset.json` has it.
    pub(crate) fn to_json(&self) -> Json {
        let tables = self.tables.lock();
        let mut by_group: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (topic, groups) in &tables.consumed.0 {
            for group in groups.keys() {
                by_group.entry(group).or_default().insert(topic);
            }
        }
        let by_group = by_group
            .into_iter()
            .map(|(group, topics)| (group, Json::from(topics.into_iter().collect::<Vec<_>>())));
        let mut fields = vec![
            ("dataVersion", tables.version.to_json()),
            ("groupTopicMap", Json::map(by_group)),
            ("offsetTable", tables.consumed.to_json(self.light)),
            ("pullOffsetTable", tables.pulled.to_json(false)),
        ];
        if self.light {
            fields.insert(2, ("lmqOffsetTable", tables.consumed.light_json()));
        }
        Json::map(fields)
    }

    /// Writes `consumerOffset.json` when anything changed since the last time, after `sync` of the log: an offset past
    /// popped messages must not outlive the check point that remembers them.
    pub(crate) fn save(&self, now: StoreTimestamp, sync: impl FnOnce() -> Result<()>) -> Result<()> {
        {
            let mut tables = self.tables.lock();
            if !std::mem::take(&mut tables.changed) {
                return Ok(());
            }
            tables.version.step(now.get());
        }
        let written = self.file.try_save_with(|| {
            let json = self.to_json();
            sync()?;
            Ok(json)
        });
        written.inspect_err(|_| self.tables.lock().changed = true)
    }
}

impl Broker {
    /// Saves the offsets; a failure is told and tried again at the next turn.
    pub(crate) fn save_offsets(&self) {
        if let Err(error) = self.offsets.save(self.clock.now(), || self.store.sync()) {
            tracing::error!(%error, "consumerOffset.json not saved");
        }
    }

    /// Commits what a client says that its group has consumed, but never past the queue's end; while the queues follow
    /// the log, that is not known, and the client is believed. An offset below zero, which the Go client sends for a
    /// queue where it began with nothing, commits nothing: RocketMQ would keep it in place of what the group had, and
    /// take it for none.
    pub(super) fn commit_offset(&self, group: &str, topic: &str, queue: i32, offset: i64) {
        if offset < 0 {
            return;
        }
        let end = || self.end_of(self.store.find_queue(topic, queue));
        let mut offset = offset;
        if offset > end() {
            let status = self.store.status();
            if status.dispatched_offset >= status.max_offset {
                let end = end();
                tracing::debug!(group, topic, queue, offset, end, "commit beyond the end of its queue");
                offset = offset.min(end);
            }
        }
        self.offsets.commit(group, topic, queue, offset);
    }
}

/// The codes that this file answers.
pub(super) const ROUTES: &[(i32, Route)] = &[
    (request::QUERY_CONSUMER_OFFSET, Route::Answer(query)),
    (request::UPDATE_CONSUMER_OFFSET, Route::Answer(update)),
    (request::GET_ALL_CONSUMER_OFFSET, Route::Answer(get_all)),
];

fn query(broker: &Arc<Broker>, _: &Arc<Connection>, cmd: &Command) -> Result<Command, Refusal> {
    let group = cmd.fields.text("consumerGroup")?;
    let topic = cmd.fields.text("topic")?;
    let queue: i32 = cmd.fields.parse("queueId")?;
    let zero_if_none = cmd.fields.optional("setZeroIfNotFound")?.unwrap_or(true);
    let offset = match broker.offsets.query(group, topic, queue) {
        Some(offset) => offset,
        // A group that starts on a young queue gets everything; on an old one the client's consumeFromWhere decides.
        None if zero_if_none && broker.is_young_queue(topic, queue) => 0,
        None => {
            let why = if zero_if_none {
                "Not found, V3_0_6_SNAPSHOT maybe this group consumer boot first"
            } else {
                "Not found, do not set to zero, maybe this group boot first"
            };
            return Err(Refusal::new(response::QUERY_NOT_FOUND, why));
        }
    };
    Ok(cmd.reply(response::SUCCESS).with_field("offset", offset))
}

fn update(broker: &Arc<Broker>, _: &Arc<Connection>, cmd: &Command) -> Result<Command, Refusal> {
    let group = cmd.fields.text("consumerGroup")?;
    let topic = cmd.fields.text("topic")?;
    names::check_group(group)?;
    names::check_topic(topic)?;
    if !broker.topics.contains(topic) {
        return Err(Refusal::new(response::TOPIC_NOT_EXIST, format!("Topic {topic} not exist!")));
    }
    if broker.group(group).is_none() {
        return Err(Refusal::new(
            response::SUBSCRIPTION_GROUP_NOT_EXIST,
            format!("Group {group} not exist!"),
        ));
    }
    let number = |name| cmd.fields.parse(name).map_err(|error| invalid(&error.to_string()));
    let (queue, offset) = (number("queueId")?, number("commitOffset")?);
    let queue = i32::try_from(queue).map_err(|_| invalid("queueId is out of range"))?;
    if broker.offsets.has_reset(group, topic, queue) {
        // The client does not know of the reset yet; its next pull will tell it.
        return Ok(cmd.reply(response::SUCCESS).with_remark("the offset was reset meanwhile"));
    }
    broker.commit_offset(group, topic, queue, offset);
    Ok(cmd.reply(response::SUCCESS))
}

fn invalid(why: &str) -> Refusal {
    Refusal::new(response::INVALID_PARAMETER, why)
}

fn get_all(broker: &Arc<Broker>, _: &Arc<Connection>, cmd: &Command) -> Result<Command, Refusal> {
    Ok(cmd.reply(response::SUCCESS).with_body(broker.offsets.to_json().compact()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{broker::config_file::golden, vfs::OsVfs};

    fn offsets_with(dir: &std::path::Path, light: bool) -> Offsets {
        Offsets::load(|name| ConfigFile::new(Arc::new(OsVfs), dir, name), light, StoreTimestamp(5)).unwrap()
    }

    fn offsets(dir: &std::path::Path) -> Offsets {
        offsets_with(dir, false)
    }

    /// Java keeps everything in another file then, and the groups of light queues apart, without a queue.
    #[test]
    fn with_light_queues_the_offsets_are_where_java_has_them_then() {
        let dir = tempfile::tempdir().unwrap();
        let before = offsets(dir.path());
        before.commit("g", "t", 1, 4);
        before.save(StoreTimestamp(6), || Ok(())).unwrap();
        let first = offsets_with(dir.path(), true);
        assert_eq!(first.query("g", "t", 1), Some(4), "what the other file has is gone");
        first.commit("%LMQ%g", "%LMQ%t", 0, 7);
        first.commit("%LMQ%g", "t", 3, 8);
        first.commit("g", "%LMQ%t", 0, 9);
        first.save(StoreTimestamp(7), || Ok(())).unwrap();
        let text = std::fs::read_to_string(dir.path().join("lmqConsumerOffset.json")).unwrap();
        let json = Json::parse(text.as_bytes()).unwrap();
        assert_eq!(json.get("lmqOffsetTable").unwrap().compact(), r#"{"%LMQ%t@%LMQ%g":7}"#);
        let plain = r#"{"%LMQ%t@g":{0:9},"t@%LMQ%g":{3:8},"t@g":{1:4}}"#;
        assert_eq!(json.get("offsetTable").unwrap().compact(), plain);
        let second = offsets_with(dir.path(), true);
        let all = [("%LMQ%g", "%LMQ%t", 0), ("%LMQ%g", "t", 3), ("g", "%LMQ%t", 0), ("g", "t", 1)];
        assert_eq!(all.map(|(group, topic, queue)| second.query(group, topic, queue).unwrap()), [7, 8, 9, 4]);
    }

    /// The pairs of a map at every depth in one order; Java's is that of its hash tables.
    fn sorted(json: &Json) -> Json {
        match json {
            Json::Map(pairs) => {
                let mut pairs: Vec<_> = pairs.iter().map(|(k, v)| (k.clone(), sorted(v))).collect();
                pairs.sort_by_key(|(key, _)| key.compact());
                Json::Map(pairs)
            }
            other => other.clone(),
        }
    }

    #[test]
    fn java_s_offsets_are_read_and_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let json = golden("consumerOffset.json");
        std::fs::write(dir.path().join("consumerOffset.json"), json.pretty()).unwrap();
        let offsets = offsets(dir.path());
        assert_eq!(offsets.query("golden_group", "GoldenTopic", 1), Some(15));
        assert_eq!(offsets.pulled("golden_sql_group", "GoldenTopic", 3), Some(10));
        assert_eq!(offsets.query("golden_group", "GoldenTopic", 4), None);
        assert_eq!(sorted(&offsets.to_json()), sorted(&json));
    }

    #[test]
    fn a_commit_is_kept_over_a_restart_and_the_content_before_as_bak() {
        let dir = tempfile::tempdir().unwrap();
        let first = offsets(dir.path());
        first.commit("g", "t", 0, 7);
        first.save(StoreTimestamp(6), || Ok(())).unwrap();
        first.commit("g", "t", 0, 9);
        first.note_pull("g", "t", 0, 11);
        first.save(StoreTimestamp(7), || Ok(())).unwrap();
        let second = offsets(dir.path());
        assert_eq!((second.query("g", "t", 0), second.pulled("g", "t", 0)), (Some(9), Some(11)));
        std::fs::write(dir.path().join("consumerOffset.json"), "{\"offsetTable\":{").unwrap();
        assert_eq!(offsets(dir.path()).query("g", "t", 0), Some(7));
        assert_eq!(
            std::fs::read(dir.path().join("consumerOffset.json.damaged-1")).unwrap(),
            b"{\"offsetTable\":{"
        );
    }

    #[test]
    fn a_save_without_a_change_writes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let table = offsets(dir.path());
        table.save(StoreTimestamp(6), || Ok(())).unwrap();
        assert!(!dir.path().join("consumerOffset.json").exists());
    }

    #[test]
    fn offsets_beyond_the_end_of_a_queue_are_taken_back_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let table = offsets(dir.path());
        table.commit("g", "t", 0, 7);
        table.commit("g", "t", 1, 3);
        table.clamp(Path::new("/"), |_, queue| QueueOffset(if queue == 0 { 5 } else { 4 })).unwrap();
        assert_eq!((table.query("g", "t", 0), table.query("g", "t", 1)), (Some(5), Some(3)));
    }

    /// Java keeps what a client sent, also below zero, and takes it for no offset.
    #[test]
    fn an_offset_below_zero_in_a_file_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let text = r#"{"offsetTable":{"t@g":{0:-1,1:3}},"lmqOffsetTable":{"%LMQ%t@%LMQ%g":-1},"pullOffsetTable":{"t@g":{0:-1}}}"#;
        std::fs::write(dir.path().join("lmqConsumerOffset.json"), text).unwrap();
        let table = offsets_with(dir.path(), true);
        assert_eq!((table.query("g", "t", 0), table.query("g", "t", 1)), (None, Some(3)));
        assert_eq!((table.query("%LMQ%g", "%LMQ%t", 0), table.pulled("g", "t", 0)), (None, None));
    }

    #[test]
    fn a_reset_counts_until_a_pull_takes_it() {
        let dir = tempfile::tempdir().unwrap();
        let table = offsets(dir.path());
        table.commit("g", "t", 0, 7);
        table.reset("g", "t", 0, 2);
        assert!(table.has_reset("g", "t", 0));
        assert_eq!(table.take_reset("g", "t", 0), Some(2));
        assert_eq!((table.take_reset("g", "t", 0), table.query("g", "t", 0)), (None, Some(2)));
    }

    #[test]
    fn a_group_or_topic_that_goes_takes_its_offsets_along() {
        let dir = tempfile::tempdir().unwrap();
        let table = offsets(dir.path());
        for (group, topic) in [("g", "t"), ("g", "u"), ("h", "t")] {
            table.commit(group, topic, 0, 1);
        }
        assert_eq!(table.topics_of("g").len(), 2);
        table.remove_group("g");
        assert_eq!(table.groups_of("t"), BTreeSet::from(["h".to_owned()]));
        table.remove_topic("t");
        assert_eq!(table.query("h", "t", 0), None);
    }
}
