//! Subscription groups: `subscriptionGroup.json`, creation on first use, and the requests that change them.
//!
//! Owns the table from group to [`GroupConfig`]; names in it passed [`names::is_group`]. Called by pull, retry and the
//! client table.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use parking_lot::RwLock;

use super::{
    Broker, Refusal, Route, attributes,
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
    types::StoreTimestamp,
};

/// Groups that a RocketMQ broker has before the first client comes.
const SYSTEM_GROUPS: &[&str] = &[
    "TOOLS_CONSUMER",
    "FILTERSRV_CONSUMER",
    "SELF_TEST_C_GROUP",
    "CID_ONS-HTTP-PROXY",
    "CID_ONSAPI_PULL",
    "CID_ONSAPI_PERMISSION",
    "CID_ONSAPI_OWNER",
    "CID_RMQ_SYS_TRANS",
];

/// Bit of `forbiddenTable`: the group may not read the topic.
const UNREADABLE: i64 = 1 << 2;

/// What the broker knows of a consumer group.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct GroupConfig {
    pub(crate) name: String,
    pub(crate) consume_enable: bool,
    pub(crate) consume_from_min_enable: bool,
    pub(crate) consume_broadcast_enable: bool,
    pub(crate) consume_message_orderly: bool,
    pub(crate) retry_queue_nums: i32,
    pub(crate) retry_max_times: i32,
    pub(crate) broker_id: i64,
    pub(crate) which_broker_when_consume_slowly: i64,
    pub(crate) notify_consumer_ids_changed: bool,
    pub(crate) group_sys_flag: i32,
    pub(crate) consume_timeout_minute: i32,
    pub(crate) attributes: BTreeMap<String, String>,
    /// `groupRetryPolicy`, kept as it came.
    retry_policy: Json,
    /// Fields that this broker does not know, kept as they came.
    others: Vec<(Json, Json)>,
}

const KNOWN_FIELDS: &[&str] = &[
    "attributes",
    "brokerId",
    "consumeBroadcastEnable",
    "consumeEnable",
    "consumeFromMinEnable",
    "consumeMessageOrderly",
    "consumeTimeoutMinute",
    "groupName",
    "groupRetryPolicy",
    "groupSysFlag",
    "notifyConsumerIdsChangedEnable",
    "retryMaxTimes",
    "retryQueueNums",
    "whichBrokerWhenConsumeSlowly",
];

impl GroupConfig {
    /// A group with RocketMQ's defaults.
    pub(crate) fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            consume_enable: true,
            consume_from_min_enable: true,
            consume_broadcast_enable: true,
            consume_message_orderly: false,
            retry_queue_nums: 1,
            retry_max_times: 16,
            broker_id: 0,
            which_broker_when_consume_slowly: 1,
            notify_consumer_ids_changed: true,
            group_sys_flag: 0,
            consume_timeout_minute: 15,
            attributes: BTreeMap::new(),
            retry_policy: Json::map([("type", Json::from("CUSTOMIZED"))]),
            others: Vec::new(),
        }
    }

    /// As `subscriptionGroup.json` and the wire have it.
    pub(crate) fn to_json(&self) -> Json {
        let attributes = self.attributes.iter().map(|(k, v)| (k.as_str(), Json::from(v.as_str())));
        let mut pairs = vec![
            (Json::from("attributes"), Json::map(attributes)),
            ("brokerId".into(), self.broker_id.into()),
            ("consumeBroadcastEnable".into(), self.consume_broadcast_enable.into()),
            ("consumeEnable".into(), self.consume_enable.into()),
            ("consumeFromMinEnable".into(), self.consume_from_min_enable.into()),
            ("consumeMessageOrderly".into(), self.consume_message_orderly.into()),
            ("consumeTimeoutMinute".into(), self.consume_timeout_minute.into()),
            ("groupName".into(), self.name.as_str().into()),
            ("groupRetryPolicy".into(), self.retry_policy.clone()),
            ("groupSysFlag".into(), self.group_sys_flag.into()),
            ("notifyConsumerIdsChangedEnable".into(), self.notify_consumer_ids_changed.into()),
            ("retryMaxTimes".into(), self.retry_max_times.into()),
            ("retryQueueNums".into(), self.retry_queue_nums.into()),
            ("whichBrokerWhenConsumeSlowly".into(), self.which_broker_when_consume_slowly.into()),
        ];
        pairs.extend(self.others.iter().cloned());
        Json::Map(pairs)
    }

    /// Reads what [`GroupConfig::to_json`] wrote, or Java; missing fields get the defaults.
    pub(crate) fn from_json(json: &Json) -> Option<Self> {
        let plain = Self::new(json.text_of("groupName").filter(|name| names::is_group(name))?);
        let attributes = json.get("attributes").map(Json::pairs).unwrap_or_default();
        let known = |key: &Json| key.text().is_some_and(|key| KNOWN_FIELDS.contains(&key));
        Some(Self {
            consume_enable: json.bool_of("consumeEnable").unwrap_or(plain.consume_enable),
            consume_from_min_enable: json
                .bool_of("consumeFromMinEnable")
                .unwrap_or(plain.consume_from_min_enable),
            consume_broadcast_enable: json
                .bool_of("consumeBroadcastEnable")
                .unwrap_or(plain.consume_broadcast_enable),
            consume_message_orderly: json
                .bool_of("consumeMessageOrderly")
                .unwrap_or(plain.consume_message_orderly),
            retry_queue_nums: json.i32_of("retryQueueNums").unwrap_or(plain.retry_queue_nums),
            retry_max_times: json.i32_of("retryMaxTimes").unwrap_or(plain.retry_max_times),
            broker_id: json.int_of("brokerId").unwrap_or(plain.broker_id),
            which_broker_when_consume_slowly: json
                .int_of("whichBrokerWhenConsumeSlowly")
                .unwrap_or(plain.which_broker_when_consume_slowly),
            notify_consumer_ids_changed: json
                .bool_of("notifyConsumerIdsChangedEnable")
                .unwrap_or(plain.notify_consumer_ids_changed),
            group_sys_flag: json.i32_of("groupSysFlag").unwrap_or(plain.group_sys_flag),
            consume_timeout_minute: json
                .i32_of("consumeTimeoutMinute")
                .unwrap_or(plain.consume_timeout_minute),
            attributes: attributes
                .iter()
                .filter_map(|(k, v)| Some((k.text()?.to_owned(), v.text()?.to_owned())))
                .collect(),
            retry_policy: json.get("groupRetryPolicy").cloned().unwrap_or(plain.retry_policy.clone()),
            others: json.pairs().iter().filter(|(key, _)| !known(key)).cloned().collect(),
            ..plain
        })
    }
}

/// The table of groups.
#[derive(Debug)]
pub(crate) struct Groups {
    table: RwLock<Table>,
    file: ConfigFile,
    /// Whether those of light queues are there without being in the table.
    light: bool,
}

#[derive(Debug)]
struct Table {
    groups: HashMap<String, Arc<GroupConfig>>,
    /// `forbiddenTable`: group -> topic -> bits of what the group may not do there.
    forbidden: BTreeMap<String, BTreeMap<String, i64>>,
    version: DataVersion,
}

impl Groups {
    /// Reads `subscriptionGroup.json` and adds the system's groups that it lacks.
    pub(crate) fn load(file: ConfigFile, light: bool, now: StoreTimestamp) -> Result<Self> {
        let mut table = file.load(read_table)?.unwrap_or_else(|| Table {
            groups: HashMap::new(),
            forbidden: BTreeMap::new(),
            version: DataVersion::new(now.get()),
        });
        for name in SYSTEM_GROUPS {
            table.groups.entry((*name).into()).or_insert_with(|| Arc::new(GroupConfig::new(*name)));
        }
        let groups = Self { table: RwLock::new(table), file, light };
        groups.save()?;
        Ok(groups)
    }

    /// One group, without creating it.
    pub(crate) fn get(&self, name: &str) -> Option<Arc<GroupConfig>> {
        if self.is_light(name) {
            return light::group(name);
        }
        self.table.read().groups.get(name).cloned()
    }

    fn is_light(&self, name: &str) -> bool {
        self.light && light::is_light(name)
    }

    /// Every group, by name, and the table's version.
    pub(crate) fn all(&self) -> (Vec<Arc<GroupConfig>>, DataVersion) {
        let table = self.table.read();
        let mut groups: Vec<_> = table.groups.values().cloned().collect();
        groups.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        (groups, table.version)
    }

    fn put(&self, group: GroupConfig, now: StoreTimestamp) -> bool {
        if self.is_light(&group.name) {
            return false;
        }
        let mut table = self.table.write();
        if table.groups.get(&group.name).is_some_and(|old| **old == group) {
            return false;
        }
        table.groups.insert(group.name.clone(), Arc::new(group));
        table.version.step(now.get());
        true
    }

    fn remove(&self, name: &str, now: StoreTimestamp) -> bool {
        let mut table = self.table.write();
        let removed = table.groups.remove(name).is_some();
        if table.forbidden.remove(name).is_some() || removed {
            table.version.step(now.get());
        }
        removed
    }

    /// Whether a group may not read a topic though both are there and open.
    pub(crate) fn is_forbidden(&self, group: &str, topic: &str) -> bool {
        let table = self.table.read();
        table
            .forbidden
            .get(group)
            .and_then(|topics| topics.get(topic))
            .is_some_and(|bits| bits & UNREADABLE != 0)
    }

    /// Says whether a group may not read a topic.
    fn forbid(&self, group: &str, topic: &str, forbidden: bool, now: StoreTimestamp) {
        let mut table = self.table.write();
        let bits = table.forbidden.get(group).and_then(|topics| topics.get(topic)).copied().unwrap_or(0);
        let changed = if forbidden { bits | UNREADABLE } else { bits & !UNREADABLE };
        if changed == bits {
            return;
        }
        let topics = table.forbidden.entry(group.into()).or_default();
        topics.insert(topic.into(), changed);
        topics.retain(|_, bits| *bits != 0);
        table.forbidden.retain(|_, topics| !topics.is_empty());
        table.version.step(now.get());
    }

    fn to_json(&self, groups: &[Arc<GroupConfig>]) -> Json {
        let table = self.table.read();
        Json::map([
            ("dataVersion", table.version.to_json()),
            ("forbiddenTable", forbidden_json(&table.forbidden)),
            (
                "subscriptionGroupTable",
                Json::map(groups.iter().map(|group| (group.name.as_str(), group.to_json()))),
            ),
        ])
    }

    /// Writes `subscriptionGroup.json` when anything changed.
    pub(crate) fn save(&self) -> Result<()> {
        self.file.save_with(|| self.to_json(&self.all().0))
    }
}

fn read_table(json: &Json) -> Result<Table, String> {
    let pairs = json.get("subscriptionGroupTable").ok_or("no subscriptionGroupTable")?.pairs();
    let mut groups = HashMap::new();
    for (name, value) in pairs {
        match GroupConfig::from_json(value) {
            Some(group) => drop(groups.insert(group.name.clone(), Arc::new(group))),
            None => tracing::warn!(?name, "subscriptionGroup.json names what cannot be a group: left out"),
        }
    }
    Ok(Table {
        groups,
        forbidden: read_forbidden(json.get("forbiddenTable")),
        version: DataVersion::from_json(json.get("dataVersion")).unwrap_or_default(),
    })
}

fn forbidden_json(table: &BTreeMap<String, BTreeMap<String, i64>>) -> Json {
    let topics = |topics: &BTreeMap<String, i64>| {
        Json::map(topics.iter().map(|(topic, bits)| (topic.as_str(), Json::from(*bits))))
    };
    Json::map(table.iter().map(|(group, of_group)| (group.as_str(), topics(of_group))))
}

/// What is above 0 in `forbiddenTable`; RocketMQ takes the rest for nothing.
fn read_forbidden(json: Option<&Json>) -> BTreeMap<String, BTreeMap<String, i64>> {
    let mut table = BTreeMap::new();
    for (group, topics) in json.map(Json::pairs).unwrap_or_default() {
        let bits = topics.pairs().iter();
        let bits =
            bits.filter_map(|(topic, bits)| Some((topic.text()?.to_owned(), bits.int().filter(|n| *n > 0)?)));
        let topics: BTreeMap<_, _> = bits.collect();
        if let Some(group) = group.text().filter(|_| !topics.is_empty()) {
            table.insert(group.to_owned(), topics);
        }
    }
    table
}

impl Broker {
    /// The group `name`; created when that is allowed (`autoCreateSubscriptionGroup`, or a group of the system).
    pub(crate) fn group(&self, name: &str) -> Option<Arc<GroupConfig>> {
        if let Some(group) = self.groups.get(name) {
            return Some(group);
        }
        if !names::is_new_group(name)
            || !(self.live.auto_create_group.load(Relaxed) || SYSTEM_GROUPS.contains(&name))
        {
            return None;
        }
        tracing::info!(group = name, "group created by its first use");
        self.put_group(GroupConfig::new(name));
        self.groups.get(name)
    }

    fn put_group(&self, group: GroupConfig) {
        if self.groups.put(group, self.clock.now()) {
            self.save_groups();
        }
    }

    fn save_groups(&self) {
        if let Err(error) = self.groups.save() {
            tracing::error!(%error, "subscriptionGroup.json not saved");
        }
    }
}

/// The codes that this file answers.
pub(super) const ROUTES: &[(i32, Route)] = &[
    (request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP, Route::Answer(update_and_create)),
    (request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST, Route::Answer(update_and_create_all)),
    (request::DELETE_SUBSCRIPTIONGROUP, Route::Answer(delete)),
    (request::GET_ALL_SUBSCRIPTIONGROUP_CONFIG, Route::Answer(get_all)),
    (request::GET_SUBSCRIPTIONGROUP_CONFIG, Route::Answer(get_one)),
    (request::UPDATE_AND_GET_GROUP_FORBIDDEN, Route::Answer(forbid)),
];

fn update_and_create(broker: &Arc<Broker>, _: &Arc<Connection>, cmd: &Command) -> Result<Command, Refusal> {
    let group = wanted(broker, &super::body(cmd)?)?;
    broker.put_group(group);
    Ok(cmd.reply(response::SUCCESS))
}

/// Every group of a list, or none when one of them may not be.
fn update_and_create_all(
    broker: &Arc<Broker>,
    _: &Arc<Connection>,
    cmd: &Command,
) -> Result<Command, Refusal> {
    let json = super::body(cmd)?;
    let list = json.get("groupConfigList").map(Json::items).unwrap_or_default();
    if list.is_empty() {
        return Err(Refusal::new(response::SYSTEM_ERROR, "the body lists no groups"));
    }
    let groups = list.iter().map(|json| wanted(broker, json)).collect::<Result<Vec<_>, _>>()?;
    groups.into_iter().for_each(|group| broker.put_group(group));
    Ok(cmd.reply(response::SUCCESS))
}

/// The group that a request describes.
fn wanted(broker: &Broker, json: &Json) -> Result<GroupConfig, Refusal> {
    names::check_new_group(json.text_of("groupName").unwrap_or(""))?;
    let group = GroupConfig::from_json(json)
        .ok_or_else(|| Refusal::new(response::INVALID_PARAMETER, "the body is no subscription group"))?;
    let old = broker.groups.get(&group.name);
    let changes = attributes::changes(&group.attributes);
    let attributes = attributes::of_group(old.as_ref().map(|group| &group.attributes), &changes)?;
    Ok(GroupConfig { attributes, ..group })
}

fn delete(broker: &Arc<Broker>, _: &Arc<Connection>, cmd: &Command) -> Result<Command, Refusal> {
    let name = cmd.fields.text("groupName")?;
    names::check_group(name)?;
    if broker.groups.remove(name, broker.clock.now()) {
        broker.save_groups();
    }
    if cmd.fields.optional("cleanOffset")?.unwrap_or(false) {
        broker.offsets.remove_group(name);
    }
    tracing::info!(group = name, "group deleted by request");
    Ok(cmd.reply(response::SUCCESS))
}

fn get_all(broker: &Arc<Broker>, _: &Arc<Connection>, cmd: &Command) -> Result<Command, Refusal> {
    let (mut groups, _) = broker.groups.all();
    let total = groups.len();
    if let Some(first) = cmd.fields.optional::<usize>("groupSeq")? {
        let count = cmd.fields.optional::<usize>("maxGroupNum")?.unwrap_or(2_000);
        groups = groups.into_iter().skip(first).take(count).collect();
    }
    let body = broker.groups.to_json(&groups).compact();
    Ok(cmd.reply(response::SUCCESS).with_field("totalGroupNum", total).with_body(body))
}

fn get_one(broker: &Arc<Broker>, _: &Arc<Connection>, cmd: &Command) -> Result<Command, Refusal> {
    let name = cmd.fields.text("group")?;
    let group = broker
        .group(name)
        .ok_or_else(|| Refusal::new(response::SUBSCRIPTION_GROUP_NOT_EXIST, "No group in this broker"))?;
    Ok(cmd.reply(response::SUCCESS).with_body(group.to_json().compact()))
}

/// Says whether a group may read a topic, after changing it when the request says how.
fn forbid(broker: &Arc<Broker>, _: &Arc<Connection>, cmd: &Command) -> Result<Command, Refusal> {
    let (group, topic) = (cmd.fields.text("group")?, cmd.fields.text("topic")?);
    if let Some(readable) = cmd.fields.optional::<bool>("readable")? {
        names::check_group(group)?;
        names::check_topic(topic)?;
        broker.groups.forbid(group, topic, !readable, broker.clock.now());
        broker.save_groups();
        tracing::info!(group, topic, readable, "reading allowed or forbidden by request");
    }
    let body = Json::map([
        ("group", Json::from(group)),
        ("readable", (!broker.groups.is_forbidden(group, topic)).into()),
        ("topic", topic.into()),
    ]);
    Ok(cmd.reply(response::SUCCESS).with_remark("").with_body(body.compact()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{broker::config_file::golden, vfs::OsVfs};

    #[test]
    fn each_group_that_java_wrote_is_written_again_just_so() {
        let json = golden("subscriptionGroup.json");
        let pairs = json.get("subscriptionGroupTable").unwrap().pairs();
        assert_eq!(pairs.len(), 10);
        for (name, value) in pairs {
            let group = GroupConfig::from_json(value).unwrap();
            assert_eq!(Some(group.name.as_str()), name.text());
            assert_eq!(group.to_json(), *value);
        }
    }

    #[test]
    fn what_this_broker_does_not_know_of_a_group_survives_it() {
        let text = br#"{"groupName":"g","retryMaxTimes":3,"groupRetryPolicy":{"type":"EXPONENTIAL","max":7},"later":[1]}"#;
        let group = GroupConfig::from_json(&Json::parse(text).unwrap()).unwrap();
        assert_eq!((group.retry_max_times, group.retry_queue_nums, group.consume_enable), (3, 1, true));
        let json = group.to_json();
        assert_eq!(json.get("later"), Some(&Json::List(vec![Json::Int(1)])));
        assert_eq!(json.get("groupRetryPolicy").unwrap().int_of("max"), Some(7));
        assert!(GroupConfig::from_json(&Json::parse(br#"{"groupName":"a@b"}"#).unwrap()).is_none());
    }

    #[test]
    fn what_a_group_may_not_read_is_kept_and_the_other_bits_too() {
        let dir = tempfile::tempdir().unwrap();
        let load = || {
            let file = ConfigFile::new(Arc::new(OsVfs), dir.path(), "subscriptionGroup.json").unwrap();
            Groups::load(file, false, StoreTimestamp(5)).unwrap()
        };
        let text =
            r#"{"subscriptionGroupTable":{},"forbiddenTable":{"g":{"t":6,"u":-1},"h":{"t":2},"i":{}}}"#;
        std::fs::write(dir.path().join("subscriptionGroup.json"), text).unwrap();
        let groups = load();
        let can_t = |groups: &Groups| ["g", "h", "i"].map(|group| groups.is_forbidden(group, "t"));
        assert_eq!((can_t(&groups), groups.is_forbidden("g", "u")), ([true, false, false], false));
        groups.forbid("g", "t", false, StoreTimestamp(6));
        groups.forbid("g", "v", true, StoreTimestamp(6));
        groups.forbid("i", "t", true, StoreTimestamp(6));
        groups.forbid("i", "t", false, StoreTimestamp(6));
        groups.save().unwrap();
        let kept = load();
        assert_eq!((can_t(&kept), kept.is_forbidden("g", "v")), ([false; 3], true));
        let json = kept.to_json(&[]).get("forbiddenTable").unwrap().compact();
        assert_eq!(json, r#"{"g":{"t":2,"v":4},"h":{"t":2}}"#);
        kept.remove("g", StoreTimestamp(7));
        assert!(!kept.is_forbidden("g", "v"));
    }

    #[test]
    fn the_system_s_groups_are_there_at_the_first_boot_and_others_survive_the_second() {
        let dir = tempfile::tempdir().unwrap();
        let load = || {
            let file = ConfigFile::new(Arc::new(OsVfs), dir.path(), "subscriptionGroup.json").unwrap();
            Groups::load(file, false, StoreTimestamp(5)).unwrap()
        };
        let first = load();
        assert!(SYSTEM_GROUPS.iter().all(|name| first.get(name).is_some()));
        assert!(first.put(GroupConfig { retry_max_times: 2, ..GroupConfig::new("g") }, StoreTimestamp(6)));
        first.save().unwrap();
        assert_eq!(load().get("g").unwrap().retry_max_times, 2);
    }
}
