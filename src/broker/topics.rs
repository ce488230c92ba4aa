//! The topics of this broker: `topics.json`, the system's own at boot, creation by sends, by groups and by request.
//!
//! Owns the table from name to [`TopicConfig`]; names in it passed [`names::is_topic`]. A change is saved and registered
//! with the name servers before the request that made it is answered. Called by every handler that takes a topic.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use parking_lot::RwLock;

use super::{
    Broker, Refusal, Route, attributes,
    config::BrokerConfig,
    config_file::{ConfigFile, DataVersion},
    json::Json,
    light, names,
    register::Told,
};
use crate::{
    error::Result,
    remoting::{
        Command, Connection,
        codes::{request, response},
    },
    types::StoreTimestamp,
};

/// Permission bits of topics and brokers.
pub(crate) mod perm {
    /// Topics may be created after this one.
    pub(crate) const INHERIT: i32 = 1;
    pub(crate) const WRITE: i32 = 1 << 1;
    pub(crate) const READ: i32 = 1 << 2;
    pub(crate) const ALL: i32 = READ | WRITE | INHERIT;

    pub(crate) const fn is_readable(perm: i32) -> bool {
        perm & READ != 0
    }

    pub(crate) const fn is_writeable(perm: i32) -> bool {
        perm & WRITE != 0
    }
}

/// Bit of a topic's system flag: made for consumers of unit mode.
pub(crate) const SYS_FLAG_UNIT: i32 = 1;
/// Bit of a topic's system flag: subscribed to by consumers of unit mode.
pub(crate) const SYS_FLAG_UNIT_SUB: i32 = 1 << 1;
/// No topic has more queues than this: each costs files and memory.
const MAX_QUEUES: i32 = 65_536;

/// How long the answer to a creation waits for the name servers.
const REGISTRATION: Duration = Duration::from_secs(3);

/// What the broker knows of a topic.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TopicConfig {
    pub(crate) name: String,
    pub(crate) read_queues: i32,
    pub(crate) write_queues: i32,
    pub(crate) perm: i32,
    pub(crate) filter_type: String,
    pub(crate) sys_flag: i32,
    pub(crate) order: bool,
    pub(crate) attributes: BTreeMap<String, String>,
}

/// As RocketMQ's remarks show a topic.
impl fmt::Display for TopicConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bit = |has: bool, letter| if has { letter } else { '-' };
        write!(
            f,
            "TopicConfig [topicName={}, readQueueNums={}, writeQueueNums={}, perm={}{}{}, topicFilterType={}, \
             topicSysFlag={}, order={}, attributes={{",
            self.name,
            self.read_queues,
            self.write_queues,
            bit(perm::is_readable(self.perm), 'R'),
            bit(perm::is_writeable(self.perm), 'W'),
            bit(self.perm & perm::INHERIT != 0, 'X'),
            self.filter_type,
            self.sys_flag,
            self.order,
        )?;
        let mut separator = "";
        for (name, value) in &self.attributes {
            write!(f, "{separator}{name}={value}")?;
            separator = ", ";
        }
        f.write_str("}]")
    }
}

impl TopicConfig {
    /// A topic with as many queues to read as to write.
    pub(crate) fn new(name: impl Into<String>, queues: i32, perm: i32) -> Self {
        Self {
            name: name.into(),
            read_queues: queues,
            write_queues: queues,
            perm,
            filter_type: "SINGLE_TAG".into(),
            sys_flag: 0,
            order: false,
            attributes: BTreeMap::new(),
        }
    }

    /// As `topics.json` and the wire have it.
    pub(crate) fn to_json(&self) -> Json {
        let attributes = self.attributes.iter().map(|(k, v)| (k.as_str(), Json::from(v.as_str())));
        Json::map([
            ("attributes", Json::map(attributes)),
            ("order", self.order.into()),
            ("perm", self.perm.into()),
            ("readQueueNums", self.read_queues.into()),
            ("topicFilterType", self.filter_type.as_str().into()),
            ("topicName", self.name.as_str().into()),
            ("topicSysFlag", self.sys_flag.into()),
            ("writeQueueNums", self.write_queues.into()),
        ])
    }

    /// Reads what [`TopicConfig::to_json`] wrote, or Java; missing fields get Java's defaults.
    pub(crate) fn from_json(json: &Json) -> Option<Self> {
        let name = json.text_of("topicName").filter(|name| names::is_topic(name))?;
        let queues = |key| json.i32_of(key).filter(|n| (0..=MAX_QUEUES).contains(n)).unwrap_or(16);
        let attributes = json.get("attributes").map(Json::pairs).unwrap_or_default();
        Some(Self {
            read_queues: queues("readQueueNums"),
            write_queues: queues("writeQueueNums"),
            perm: json.i32_of("perm").unwrap_or(perm::READ | perm::WRITE),
            filter_type: json.text_of("topicFilterType").unwrap_or("SINGLE_TAG").into(),
            sys_flag: json.i32_of("topicSysFlag").unwrap_or(0),
            order: json.bool_of("order").unwrap_or(false),
            attributes: attributes
                .iter()
                .filter_map(|(k, v)| Some((k.text()?.to_owned(), v.text()?.to_owned())))
                .collect(),
            ..Self::new(name, 0, 0)
        })
    }
}

/// The table of topics.
#[derive(Debug)]
pub(crate) struct Topics {
    table: RwLock<Table>,
    file: ConfigFile,
    /// Whether those of light queues are there without being in the table.
    light: bool,
}

#[derive(Debug)]
struct Table {
    topics: HashMap<String, Arc<TopicConfig>>,
    version: DataVersion,
}

impl Topics {
    /// Reads `topics.json` and adds the system's topics that it lacks.
    pub(crate) fn load(file: ConfigFile, config: &BrokerConfig, now: StoreTimestamp) -> Result<Self> {
        let mut table = file
            .load(read_table)?
            .unwrap_or_else(|| Table { topics: HashMap::new(), version: DataVersion::new(now.get()) });
        for topic in system_topics(config) {
            let fixed = matches!(topic.name.as_str(), names::DEFAULT_TOPIC | names::SCHEDULE_TOPIC);
            if fixed || !table.topics.contains_key(&topic.name) {
                table.topics.insert(topic.name.clone(), Arc::new(topic));
            }
        }
        let topics = Self { table: RwLock::new(table), file, light: config.store.lmq };
        topics.save()?;
        Ok(topics)
    }

    /// One topic.
    pub(crate) fn get(&self, name: &str) -> Option<Arc<TopicConfig>> {
        if self.is_light(name) {
            return light::topic(name);
        }
        self.table.read().topics.get(name).cloned()
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        if self.is_light(name) {
            return names::is_topic(name);
        }
        self.table.read().topics.contains_key(name)
    }

    fn is_light(&self, name: &str) -> bool {
        self.light && light::is_light(name)
    }

    /// Every topic, by name, and the table's version.
    pub(crate) fn all(&self) -> (Vec<Arc<TopicConfig>>, DataVersion) {
        let table = self.table.read();
        let mut topics: Vec<_> = table.topics.values().cloned().collect();
        topics.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        (topics, table.version)
    }

    /// Puts a topic in; `false` when it was there just so.
    fn put(&self, topic: TopicConfig, now: StoreTimestamp) -> bool {
        if self.is_light(&topic.name) {
            return false;
        }
        let mut table = self.table.write();
        if table.topics.get(&topic.name).is_some_and(|old| **old == topic) {
            return false;
        }
        table.topics.insert(topic.name.clone(), Arc::new(topic));
        table.version.step(now.get());
        true
    }

    fn remove(&self, name: &str, now: StoreTimestamp) -> bool {
        let mut table = self.table.write();
        let removed = table.topics.remove(name).is_some();
        if removed {
            table.version.step(now.get());
        }
        removed
    }

    /// Writes `topics.json` when anything changed.
    pub(crate) fn save(&self) -> Result<()> {
        self.file.save_with(|| {
            let (topics, version) = self.all();
            Json::map([("dataVersion", version.to_json()), ("topicConfigTable", table_json(&topics))])
        })
    }
}

/// `topicConfigTable` of these topics.
pub(crate) fn table_json(topics: &[Arc<TopicConfig>]) -> Json {
    Json::map(topics.iter().map(|topic| (topic.name.as_str(), topic.to_json())))
}

fn read_table(json: &Json) -> Result<Table, String> {
    let pairs = json.get("topicConfigTable").ok_or("no topicConfigTable")?.pairs();
    let mut topics = HashMap::new();
    for (name, value) in pairs {
        match TopicConfig::from_json(value) {
            Some(topic) => drop(topics.insert(topic.name.clone(), Arc::new(topic))),
            None => tracing::warn!(?name, "topics.json names what cannot be a topic: left out"),
        }
    }
    Ok(Table { topics, version: DataVersion::from_json(json.get("dataVersion")).unwrap_or_default() })
}

/// What a RocketMQ broker has before the first client comes.
fn system_topics(config: &BrokerConfig) -> Vec<TopicConfig> {
    let rw = perm::READ | perm::WRITE;
    let mut topics = vec![
        TopicConfig::new("SELF_TEST_TOPIC", 1, rw),
        TopicConfig::new("BenchmarkTest", 1024, rw),
        TopicConfig::new(
            config.cluster.as_str(),
            16,
            perm::INHERIT | if config.cluster_topic { rw } else { 0 },
        ),
        TopicConfig::new(config.name.as_str(), 1, perm::INHERIT | if config.broker_topic { rw } else { 0 }),
        TopicConfig::new("OFFSET_MOVED_EVENT", 1, rw),
        TopicConfig::new(names::SCHEDULE_TOPIC, config.delay_level_count(), rw),
        TopicConfig::new(format!("{}_REPLY_TOPIC", config.cluster), 1, rw),
        TopicConfig::new(format!("{}{}", names::REVIVE_PREFIX, config.cluster), config.revive_queues, rw),
        TopicConfig::new(format!("rmq_sys_SYNC_BROKER_MEMBER_{}", config.name), 1, perm::INHERIT),
        TopicConfig::new(names::HALF_TOPIC, 1, rw),
        TopicConfig::new(names::OP_HALF_TOPIC, 1, rw),
        TopicConfig::new("RMQ_SYS_ROCKSDB_TRANS_HALF_TOPIC", 1, rw),
        TopicConfig::new("RMQ_SYS_ROCKSDB_TRANS_OP_HALF_TOPIC", 1, rw),
        TopicConfig::new(names::TIMER_TOPIC, 1, rw),
    ];
    if config.auto_create_topic {
        topics.push(TopicConfig::new(names::DEFAULT_TOPIC, config.default_topic_queues, perm::ALL));
    }
    if config.trace_topic {
        topics.push(TopicConfig::new(config.trace_topic_name.as_str(), 1, rw));
    }
    // A broker's name may be none for a topic.
    topics.retain(|topic| names::is_topic(&topic.name));
    topics
}

impl Broker {
    /// Whether `name` belongs to the system.
    pub(crate) fn is_system_topic(&self, name: &str) -> bool {
        names::SYSTEM_TOPICS.contains(&name)
            || name.starts_with("rmq_sys_")
            || name == self.config.cluster
            || name == self.config.name
            || name.strip_suffix("_REPLY_TOPIC").is_some_and(|cluster| cluster == self.config.cluster)
    }

    /// The topic that a message is sent to: as it is, or created after `default_topic` when that allows it; then the
    /// answer waits until clients can find it.
    ///
    /// `client_queues` is the producer's wish; the default topic's number bounds it.
    pub(crate) fn topic_for_send(
        &self,
        name: &str,
        default_topic: &str,
        client_queues: i32,
        sys_flag: i32,
    ) -> Option<(Arc<TopicConfig>, Told)> {
        if let Some(topic) = self.topics.get(name) {
            return Some((topic, Told::default()));
        }
        if !names::is_topic(name) {
            return None;
        }
        if name.starts_with(names::RETRY_PREFIX) {
            let topic = self.ensure_topic(name, 1, perm::READ | perm::WRITE, sys_flag);
            return Some((topic, Told::default()));
        }
        let parent = self.topics.get(default_topic)?;
        let allowed = default_topic != names::DEFAULT_TOPIC || self.live.auto_create_topic.load(Relaxed);
        if !allowed || parent.perm & perm::INHERIT == 0 {
            return None;
        }
        let topic = TopicConfig {
            filter_type: parent.filter_type.clone(),
            sys_flag,
            ..TopicConfig::new(
                name,
                client_queues.min(parent.write_queues).max(0),
                parent.perm & !perm::INHERIT,
            )
        };
        tracing::info!(topic = name, queues = topic.write_queues, "topic created by a send");
        let told = self.put_topic(topic);
        Some((self.topics.get(name)?, told))
    }

    /// The topic `name`, created when it is not there: retry and dead-letter topics. The caller checked the name.
    pub(crate) fn ensure_topic(&self, name: &str, queues: i32, perm: i32, sys_flag: i32) -> Arc<TopicConfig> {
        if let Some(topic) = self.topics.get(name) {
            return topic;
        }
        let topic = TopicConfig { sys_flag, ..TopicConfig::new(name, queues, perm) };
        self.put_topic(topic.clone());
        self.topics.get(name).unwrap_or_else(|| Arc::new(topic))
    }

    /// Keeps a new or changed topic: table, file, name servers. Does nothing when it is there just so.
    pub(crate) fn put_topic(&self, topic: TopicConfig) -> Told {
        let name = topic.name.clone();
        if !self.topics.put(topic, self.clock.now()) {
            return Told::default();
        }
        self.save_topics();
        self.register.topic_changed(&name)
    }

    /// Marks the topics for which a name server keeps an order (ORDER_TOPIC_CONFIG). One that is marked stays so.
    pub(crate) fn mark_ordered(&self, kept: &Json) {
        for (name, _) in kept.get("table").map(Json::pairs).unwrap_or_default() {
            let topic = name.text().and_then(|name| self.topics.get(name)).filter(|topic| !topic.order);
            if let Some(topic) = topic {
                tracing::info!(topic = topic.name, "topic ordered, as a name server says");
                drop(self.put_topic(TopicConfig { order: true, ..(*topic).clone() }));
            }
        }
    }

    fn save_topics(&self) {
        if let Err(error) = self.topics.save() {
            tracing::error!(%error, "topics.json not saved");
        }
    }
}

/// The codes that this file answers.
pub(super) const ROUTES: &[(i32, Route)] = &[
    (request::UPDATE_AND_CREATE_TOPIC, Route::Take(update_and_create)),
    (request::UPDATE_AND_CREATE_TOPIC_LIST, Route::Take(update_and_create)),
    (request::DELETE_TOPIC_IN_BROKER, Route::Answer(delete)),
    (request::GET_ALL_TOPIC_CONFIG, Route::Answer(get_all)),
    (request::GET_TOPIC_CONFIG, Route::Answer(get_one)),
];

/// Answers once the name servers know, so that the client's next look-up finds the topic.
fn update_and_create(broker: &Arc<Broker>, conn: &Arc<Connection>, cmd: Command) {
    let wanted = match cmd.code {
        request::UPDATE_AND_CREATE_TOPIC_LIST => all_wanted(broker, &cmd),
        _ => wanted(broker, &cmd).map(|topic| vec![topic]),
    };
    let told: Vec<_> = match wanted {
        Ok(topics) => topics.into_iter().map(|topic| broker.put_topic(topic)).collect(),
        Err(refusal) => return Broker::reply(conn, &cmd, Err(refusal)),
    };
    let conn = Arc::clone(conn);
    broker.runtime.spawn(async move {
        for told in told {
            told.wait(REGISTRATION).await;
        }
        Broker::reply(&conn, &cmd, Ok(cmd.reply(response::SUCCESS)));
    });
}

/// Checks that a topic may be called so and made by a request.
fn check(broker: &Broker, name: &str) -> Result<(), Refusal> {
    names::check_topic(name)?;
    if broker.is_system_topic(name) && broker.live.validate_system_topic.load(Relaxed) {
        return Err(of_the_system(name));
    }
    Ok(())
}

/// Every topic of a list, or none when one of them may not be.
fn all_wanted(broker: &Broker, cmd: &Command) -> Result<Vec<TopicConfig>, Refusal> {
    let json = super::body(cmd)?;
    let list = json.get("topicConfigList").map(Json::items).unwrap_or_default();
    if list.is_empty() {
        return Err(Refusal::new(response::SYSTEM_ERROR, "the body lists no topics"));
    }
    let of = |json: &Json| {
        check(broker, json.text_of("topicName").unwrap_or(""))?;
        let topic = TopicConfig::from_json(json)
            .ok_or_else(|| Refusal::new(response::INVALID_PARAMETER, "the list has what is no topic"))?;
        let old = broker.topics.get(&topic.name);
        let changes = attributes::changes(&topic.attributes);
        let attributes = attributes::of_topic(old.as_ref().map(|topic| &topic.attributes), &changes)?;
        Ok(TopicConfig { attributes, ..topic })
    };
    list.iter().map(of).collect()
}

/// The topic that a request describes in its fields.
fn wanted(broker: &Broker, cmd: &Command) -> Result<TopicConfig, Refusal> {
    let name = cmd.fields.text("topic")?.to_owned();
    check(broker, &name)?;
    let queues = |key: &'static str| -> Result<i32, Refusal> {
        let count: i32 = cmd.fields.parse(key)?;
        if (0..=MAX_QUEUES).contains(&count) {
            return Ok(count);
        }
        Err(Refusal::new(
            response::INVALID_PARAMETER,
            format!("{key} is {count}, allowed is 0 to {MAX_QUEUES}"),
        ))
    };
    let old = broker.topics.get(&name);
    let attributes = attributes::of_topic(
        old.as_ref().map(|topic| &topic.attributes),
        cmd.fields.get("attributes").unwrap_or(""),
    )?;
    Ok(TopicConfig {
        read_queues: queues("readQueueNums")?,
        write_queues: queues("writeQueueNums")?,
        perm: cmd.fields.parse::<i32>("perm")? & perm::ALL,
        filter_type: cmd.fields.get("topicFilterType").unwrap_or("SINGLE_TAG").into(),
        sys_flag: cmd.fields.optional("topicSysFlag")?.unwrap_or(0),
        order: cmd.fields.optional("order")?.unwrap_or(false),
        attributes,
        ..TopicConfig::new(name, 0, 0)
    })
}

fn of_the_system(name: &str) -> Refusal {
    let remark = format!("The topic[{name}] is conflict with system topic.");
    Refusal::new(response::INVALID_PARAMETER, remark)
}

fn delete(broker: &Arc<Broker>, _: &Arc<Connection>, cmd: &Command) -> Result<Command, Refusal> {
    let name = cmd.fields.get("topic").unwrap_or("");
    names::check_topic(name)?;
    if broker.is_system_topic(name) {
        return Err(of_the_system(name));
    }
    let mut gone = vec![name.to_owned()];
    // What was popped and not acknowledged goes with its topic.
    for group in broker.offsets.groups_of(name) {
        let retries = [names::pop_retry_topic(name, &group), names::pop_retry_topic_v2(name, &group)];
        gone.extend(retries.into_iter().filter(|retry| broker.topics.contains(retry)));
    }
    let mut known = false;
    for topic in &gone {
        known |= broker.topics.remove(topic, broker.clock.now());
        broker.offsets.remove_topic(topic);
        broker.timed.remove(topic);
        broker.store.delete_topic(topic)?;
    }
    if known {
        broker.save_topics();
        drop(broker.register.all());
    }
    tracing::info!(topics = ?gone, "topic deleted by request");
    Ok(cmd.reply(response::SUCCESS))
}

fn get_all(broker: &Arc<Broker>, _: &Arc<Connection>, cmd: &Command) -> Result<Command, Refusal> {
    let (mut topics, version) = broker.topics.all();
    let total = topics.len();
    if let Some(first) = cmd.fields.optional::<usize>("topicSeq")? {
        let count = cmd.fields.optional::<usize>("maxTopicNum")?.unwrap_or(2_000);
        topics = topics.into_iter().skip(first).take(count).collect();
    }
    let body = Json::map([
        ("dataVersion", version.to_json()),
        ("mappingDataVersion", DataVersion::new(broker.boot_time.get()).to_json()),
        ("topicConfigTable", table_json(&topics)),
    ]);
    Ok(cmd.reply(response::SUCCESS).with_field("totalTopicNum", total).with_body(body.compact()))
}

fn get_one(broker: &Arc<Broker>, _: &Arc<Connection>, cmd: &Command) -> Result<Command, Refusal> {
    let name = cmd.fields.text("topic")?;
    let topic = broker.topics.get(name).ok_or_else(|| {
        Refusal::new(
            response::TOPIC_NOT_EXIST,
            format!("No topic in this broker. topic: {}", names::shorten(name)),
        )
    })?;
    Ok(cmd.reply(response::SUCCESS).with_body(topic.to_json().compact()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Config, broker::config_file::golden, vfs::OsVfs};

    fn topics(dir: &std::path::Path) -> Topics {
        let file = ConfigFile::new(Arc::new(OsVfs), dir, "topics.json").unwrap();
        Topics::load(file, &BrokerConfig::new(Config::new("/x")), StoreTimestamp(5)).unwrap()
    }

    #[test]
    fn each_topic_that_java_wrote_is_written_again_just_so() {
        let json = golden("topics.json");
        let pairs = json.get("topicConfigTable").unwrap().pairs();
        assert_eq!(pairs.len(), 18);
        for (name, value) in pairs {
            let topic = TopicConfig::from_json(value).unwrap();
            assert_eq!(Some(topic.name.as_str()), name.text());
            assert_eq!(topic.to_json(), *value);
        }
        let table = read_table(&json).unwrap();
        assert_eq!(table.version, DataVersion { state_version: 0, timestamp: 1_795_241_231_858, counter: 3 });
    }

    #[test]
    fn the_system_s_topics_are_there_at_the_first_boot_and_others_survive_the_second() {
        let dir = tempfile::tempdir().unwrap();
        let first = topics(dir.path());
        let tbw = first.get(names::DEFAULT_TOPIC).unwrap();
        assert_eq!((tbw.perm, tbw.read_queues, tbw.write_queues), (perm::ALL, 8, 8));
        assert_eq!(first.get(names::SCHEDULE_TOPIC).unwrap().write_queues, 18);
        for name in
            ["DefaultCluster", "broker-a", "DefaultCluster_REPLY_TOPIC", "rmq_sys_REVIVE_LOG_DefaultCluster"]
        {
            assert!(first.contains(name), "{name}");
        }
        assert!(first.put(TopicConfig::new("mine", 3, 6), StoreTimestamp(9)));
        assert!(!first.put(TopicConfig::new("mine", 3, 6), StoreTimestamp(10)));
        first.save().unwrap();
        let second = topics(dir.path());
        assert_eq!(second.get("mine"), first.get("mine"));
        assert_eq!(second.all().1, DataVersion { state_version: 0, timestamp: 9, counter: 1 });
        assert!(second.remove("mine", StoreTimestamp(11)) && !second.contains("mine"));
    }

    #[test]
    fn a_file_cannot_bring_in_a_topic_that_is_a_path() {
        let json =
            Json::parse(br#"{"topicConfigTable":{"a":{"topicName":"../a"},"b":{"topicName":"b"}}}"#).unwrap();
        let table = read_table(&json).unwrap();
        assert_eq!(table.topics.keys().collect::<Vec<_>>(), ["b"]);
        assert_eq!(table.topics["b"].perm, 6);
    }
}
