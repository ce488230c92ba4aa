//! The route table: topics, brokers, clusters and who is alive.
//!
//! Behaves as RocketMQ's does. It is plain data behind one lock that [`super::requests`] holds; time comes in as a
//! number. Invariants: a broker name is in exactly one cluster and has at least one address, an address has one
//! number in its name, and every topic lies on at least one broker name.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde_json::Value;

use super::{
    json::{NumberKeys, array, object, text},
    registration::{DataVersion, Registration, TopicConfig},
};

/// The number of a master.
const MASTER: i64 = 0;
const PERM_WRITE: i32 = 1 << 1;
const PERM_READ: i32 = 1 << 2;
/// `topicSysFlag`: the topic belongs to a unit; it is subscribed across units.
const FLAG_UNIT: i32 = 1;
const FLAG_UNIT_SUB: i32 = 1 << 1;
/// Topics with this prefix keep their slaves' numbers: brokers use them to find each other.
const SYNC_BROKER_MEMBER_PREFIX: &str = "rmq_sys_SYNC_BROKER_MEMBER_";
/// Addresses and topics that are kept at most.
const MAX_BROKERS: usize = 10_000;
const MAX_TOPICS: usize = 1_000_000;

/// The queues of a topic on one broker name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Queues {
    pub(super) read: i32,
    pub(super) write: i32,
    pub(super) perm: i32,
    pub(super) sys_flag: i32,
}

impl Queues {
    fn to_json(self, broker: &str) -> String {
        object([
            format!("\"brokerName\":{}", text(broker)),
            format!("\"perm\":{}", self.perm),
            format!("\"readQueueNums\":{}", self.read),
            format!("\"topicSysFlag\":{}", self.sys_flag),
            format!("\"writeQueueNums\":{}", self.write),
        ])
    }
}

impl From<&TopicConfig> for Queues {
    fn from(topic: &TopicConfig) -> Self {
        // What a topic is in RocketMQ when its configuration leaves a value out.
        Self {
            read: topic.read_queue_nums.unwrap_or(16),
            write: topic.write_queue_nums.unwrap_or(16),
            perm: topic.perm.unwrap_or(PERM_READ | PERM_WRITE),
            sys_flag: topic.topic_sys_flag.unwrap_or(0),
        }
    }
}

/// A broker name: a master and its slaves.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Broker {
    cluster: String,
    addrs: BTreeMap<i64, String>,
    acting_master: bool,
    zone: Option<String>,
}

impl Broker {
    fn has_master(&self) -> bool {
        self.addrs.contains_key(&MASTER)
    }

    fn addrs_to_json(&self, keys: NumberKeys) -> String {
        object(self.addrs.iter().map(|(id, addr)| keys.key(*id) + &text(addr)))
    }

    fn to_json(&self, name: &str, keys: NumberKeys) -> String {
        let zone = self.zone.as_ref().map(|zone| format!("\"zoneName\":{}", text(zone)));
        let members = [
            format!("\"brokerAddrs\":{}", self.addrs_to_json(keys)),
            format!("\"brokerName\":{}", text(name)),
            format!("\"cluster\":{}", text(&self.cluster)),
            format!("\"enableActingMaster\":{}", self.acting_master),
        ];
        object(members.into_iter().chain(zone))
    }
}

/// A cluster and an address in it: one broker process.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Process {
    cluster: String,
    addr: String,
}

#[derive(Clone, Debug)]
struct Live {
    updated: Duration,
    timeout: Duration,
    version: DataVersion,
    connection: u64,
    ha_addr: String,
}

/// What a slave learns of its master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Master {
    pub(super) addr: String,
    pub(super) ha_addr: String,
}

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct RouteTable {
    topics: BTreeMap<String, BTreeMap<String, Queues>>,
    brokers: BTreeMap<String, Broker>,
    clusters: BTreeMap<String, BTreeSet<String>>,
    live: BTreeMap<Process, Live>,
    filter_servers: BTreeMap<Process, Vec<String>>,
    mappings: BTreeMap<String, BTreeMap<String, Value>>,
}

impl RouteTable {
    /// Takes a registration that came over `connection`; gives the master to a slave. The error is fit for a remark.
    pub(super) fn register(
        &mut self,
        said: Registration,
        connection: u64,
        now: Duration,
        delete_unnamed: bool,
    ) -> Result<Option<Master>, String> {
        let process = Process { cluster: said.cluster.clone(), addr: said.addr.clone() };
        let known = self.brokers.get(&said.name).is_some_and(|broker| broker.addrs.contains_key(&said.id));
        if !known && said.topics.len() == 1 {
            // One topic alone is a change, and a change needs something to change.
            return Err("register broker failed".to_owned());
        }
        if !known && self.live.len() >= MAX_BROKERS || self.topics.len() + said.topics.len() > 2 * MAX_TOPICS
        {
            return Err("the name server has too many brokers or topics".to_owned());
        }
        if self.is_outdated(&said, &process) {
            self.live.remove(&process);
            return Ok(None);
        }
        let first = !known;
        let prime_slave = self.enter_broker(&said);
        if said.id == MASTER || prime_slave {
            let changed = first || self.version_of(&process) != Some(said.version);
            self.enter_topics(&said, changed, prime_slave, delete_unnamed);
        }
        let live = Live {
            updated: now,
            timeout: said.timeout,
            version: said.version,
            connection,
            ha_addr: said.ha_addr,
        };
        self.live.insert(process.clone(), live);
        match said.filter_servers {
            Some(servers) if servers.is_empty() => drop(self.filter_servers.remove(&process)),
            Some(servers) => drop(self.filter_servers.insert(process, servers)),
            None => {}
        }
        Ok(if said.id == MASTER { None } else { self.master_of(&said.name, &said.cluster) })
    }

    /// Whether another address holds the number of this one with a newer state.
    fn is_outdated(&self, said: &Registration, process: &Process) -> bool {
        let Some(holder) = self.brokers.get(&said.name).and_then(|broker| broker.addrs.get(&said.id)) else {
            return false;
        };
        let holder = Process { cluster: said.cluster.clone(), addr: holder.clone() };
        holder != *process
            && self
                .live
                .get(&holder)
                .is_some_and(|live| live.version.state_version > said.version.state_version)
    }

    /// Enters name, number and address; whether it is a slave with the lowest number there is.
    fn enter_broker(&mut self, said: &Registration) -> bool {
        let broker = self.brokers.entry(said.name.clone()).or_insert_with(|| Broker {
            cluster: said.cluster.clone(),
            addrs: BTreeMap::new(),
            acting_master: false,
            zone: None,
        });
        if broker.cluster != said.cluster {
            let old = std::mem::replace(&mut broker.cluster, said.cluster.clone());
            remove_from(&mut self.clusters, &old, &said.name);
        }
        broker.acting_master = said.acting_master.unwrap_or(false);
        broker.zone.clone_from(&said.zone);
        // An address has one number: a slave that became the master is no longer a slave.
        broker.addrs.retain(|id, addr| *id == said.id || *addr != said.addr);
        broker.addrs.insert(said.id, said.addr.clone());
        self.clusters.entry(said.cluster.clone()).or_default().insert(said.name.clone());
        let lowest = broker.addrs.first_key_value().is_some_and(|(id, _)| *id == said.id);
        said.acting_master.is_some() && said.id != MASTER && lowest
    }

    fn enter_topics(&mut self, said: &Registration, changed: bool, prime_slave: bool, delete_unnamed: bool) {
        if delete_unnamed && said.mappings.is_empty() {
            self.topics.retain(|topic, brokers| {
                if !said.topics.contains_key(topic) {
                    brokers.remove(&said.name);
                }
                !brokers.is_empty()
            });
        }
        let acting = prime_slave && said.acting_master == Some(true);
        for (topic, config) in &said.topics {
            let there = self.topics.get(topic).is_some_and(|brokers| brokers.contains_key(&said.name));
            if changed || !there {
                let mut queues = Queues::from(config);
                if acting {
                    // Who stands in for a master serves reads only.
                    queues.perm &= !PERM_WRITE;
                }
                self.topics.entry(topic.clone()).or_default().insert(said.name.clone(), queues);
            }
        }
        if changed {
            for (topic, mapping) in &said.mappings {
                let broker = mapping.get("bname").and_then(Value::as_str).unwrap_or(&said.name);
                self.mappings.entry(topic.clone()).or_default().insert(broker.to_owned(), mapping.clone());
            }
        }
    }

    fn master_of(&self, name: &str, cluster: &str) -> Option<Master> {
        let addr = self.brokers.get(name)?.addrs.get(&MASTER)?.clone();
        let live = self.live.get(&Process { cluster: cluster.to_owned(), addr: addr.clone() })?;
        Some(Master { addr, ha_addr: live.ha_addr.clone() })
    }

    fn version_of(&self, process: &Process) -> Option<DataVersion> {
        self.live.get(process).map(|live| live.version)
    }

    /// What the broker at `addr` registered last.
    pub(super) fn version(&self, cluster: &str, addr: &str) -> Option<DataVersion> {
        self.version_of(&Process { cluster: cluster.to_owned(), addr: addr.to_owned() })
    }

    /// The broker at `addr` is alive.
    pub(super) fn touch(&mut self, cluster: &str, addr: &str, now: Duration) {
        let process = Process { cluster: cluster.to_owned(), addr: addr.to_owned() };
        if let Some(live) = self.live.get_mut(&process) {
            live.updated = now;
        }
    }

    /// Forgets the broker at `addr`, with its topics when it was the last of its name.
    pub(super) fn unregister(&mut self, cluster: &str, addr: &str, name: &str) {
        let process = Process { cluster: cluster.to_owned(), addr: addr.to_owned() };
        self.live.remove(&process);
        self.filter_servers.remove(&process);
        let Some(broker) = self.brokers.get_mut(name).filter(|broker| broker.cluster == cluster) else {
            return;
        };
        broker.addrs.retain(|_, have| have != addr);
        if broker.addrs.is_empty() {
            self.brokers.remove(name);
            remove_from(&mut self.clusters, cluster, name);
            for table in self.topics.values_mut() {
                table.remove(name);
            }
            self.topics.retain(|_, brokers| !brokers.is_empty());
            self.mappings.retain(|_, brokers| {
                brokers.remove(name);
                !brokers.is_empty()
            });
        } else if broker.acting_master && !broker.has_master() {
            for queues in self.topics.values_mut().filter_map(|brokers| brokers.get_mut(name)) {
                queues.perm &= !PERM_WRITE;
            }
        }
    }

    /// Forgets every broker that registered over this connection; how many there were.
    pub(super) fn disconnected(&mut self, connection: u64) -> usize {
        let gone = self.processes(|live| live.connection == connection);
        gone.iter().for_each(|process| self.forget(process));
        gone.len()
    }

    /// Forgets every broker that has been silent for longer than it may; gives their addresses and connections.
    pub(super) fn expire(&mut self, now: Duration) -> Vec<(String, u64)> {
        let gone = self.processes(|live| now.saturating_sub(live.updated) > live.timeout);
        let mut expired = Vec::with_capacity(gone.len());
        for process in gone {
            if let Some(live) = self.live.get(&process) {
                expired.push((process.addr.clone(), live.connection));
            }
            self.forget(&process);
        }
        expired
    }

    fn processes(&self, which: impl Fn(&Live) -> bool) -> Vec<Process> {
        self.live.iter().filter(|(_, live)| which(live)).map(|(process, _)| process.clone()).collect()
    }

    fn forget(&mut self, process: &Process) {
        let has = |broker: &Broker| {
            broker.cluster == process.cluster && broker.addrs.values().any(|addr| *addr == process.addr)
        };
        let names: Vec<_> =
            self.brokers.iter().filter(|(_, broker)| has(broker)).map(|(name, _)| name.clone()).collect();
        self.live.remove(process);
        self.filter_servers.remove(process);
        for name in names {
            self.unregister(&process.cluster, &process.addr, &name);
        }
    }

    /// The answer to where a topic is.
    pub(super) fn route(
        &self,
        topic: &str,
        keys: NumberKeys,
        order_conf: Option<&str>,
        acting_masters: bool,
    ) -> Option<String> {
        let queues = self.topics.get(topic)?;
        let mut brokers: Vec<(&String, Broker)> = queues
            .keys()
            .filter_map(|name| self.brokers.get_key_value(name))
            .map(|(name, broker)| (name, broker.clone()))
            .collect();
        if brokers.is_empty() {
            return None;
        }
        let filter_servers = self.filter_servers_of(&brokers);
        if acting_masters && !topic.starts_with(SYNC_BROKER_MEMBER_PREFIX) {
            for (name, broker) in &mut brokers {
                stand_in(broker, queues[*name]);
            }
        }
        let mapping = self.mappings.get(topic).map(|by_broker| {
            let members = by_broker.iter().map(|(name, mapping)| format!("{}:{mapping}", text(name)));
            format!("\"topicQueueMappingByBroker\":{}", object(members))
        });
        let members = [
            Some(format!(
                "\"brokerDatas\":{}",
                array(brokers.iter().map(|(name, broker)| broker.to_json(name, keys)))
            )),
            Some(format!("\"filterServerTable\":{}", object(filter_servers))),
            order_conf.map(|conf| format!("\"orderTopicConf\":{}", text(conf))),
            Some(format!("\"queueDatas\":{}", array(queues.iter().map(|(name, q)| q.to_json(name))))),
            mapping,
        ];
        Some(object(members.into_iter().flatten()))
    }

    fn filter_servers_of(&self, brokers: &[(&String, Broker)]) -> Vec<String> {
        let mut members = Vec::new();
        for (_, broker) in brokers {
            for addr in broker.addrs.values() {
                let process = Process { cluster: broker.cluster.clone(), addr: addr.clone() };
                if let Some(servers) = self.filter_servers.get(&process) {
                    members.push(format!("{}:{}", text(addr), array(servers.iter().map(|s| text(s)))));
                }
            }
        }
        members
    }

    /// The answer to which clusters and brokers there are.
    pub(super) fn cluster_info(&self) -> String {
        let brokers = self
            .brokers
            .iter()
            .map(|(name, broker)| format!("{}:{}", text(name), broker.to_json(name, NumberKeys::Bare)));
        let clusters = self
            .clusters
            .iter()
            .map(|(cluster, names)| format!("{}:{}", text(cluster), array(names.iter().map(|n| text(n)))));
        object([
            format!("\"brokerAddrTable\":{}", object(brokers)),
            format!("\"clusterAddrTable\":{}", object(clusters)),
        ])
    }

    /// The answer to which addresses a broker name has.
    pub(super) fn member_group(&self, cluster: &str, name: &str) -> String {
        let addrs =
            self.brokers.get(name).map_or_else(|| "{}".to_owned(), |b| b.addrs_to_json(NumberKeys::Bare));
        let group = object([
            format!("\"brokerAddrs\":{addrs}"),
            format!("\"brokerName\":{}", text(name)),
            format!("\"cluster\":{}", text(cluster)),
        ]);
        object([format!("\"brokerMemberGroup\":{group}")])
    }

    /// All topics.
    pub(super) fn topics(&self) -> String {
        topic_list(self.topics.keys(), None)
    }

    /// The topics of a cluster's brokers.
    pub(super) fn topics_of_cluster(&self, cluster: &str) -> String {
        let names = self.clusters.get(cluster);
        let on_one = |brokers: &BTreeMap<String, Queues>| {
            names.is_some_and(|names| names.iter().any(|name| brokers.contains_key(name)))
        };
        topic_list(self.topics.iter().filter(|(_, brokers)| on_one(brokers)).map(|(topic, _)| topic), None)
    }

    /// The names of clusters and brokers, which are topics too, and the address of some broker.
    pub(super) fn system_topics(&self) -> String {
        let names: BTreeSet<_> =
            self.clusters.iter().flat_map(|(cluster, names)| std::iter::once(cluster).chain(names)).collect();
        let addr = self.brokers.values().find_map(|broker| broker.addrs.values().next());
        topic_list(names, addr.map(String::as_str))
    }

    /// The topics of units.
    pub(super) fn unit_topics(&self) -> String {
        self.topics_flagged(|flag| flag & FLAG_UNIT != 0)
    }

    /// The topics that are subscribed across units; with `outside` only those that belong to none.
    pub(super) fn unit_sub_topics(&self, outside: bool) -> String {
        self.topics_flagged(|flag| flag & FLAG_UNIT_SUB != 0 && !(outside && flag & FLAG_UNIT != 0))
    }

    fn topics_flagged(&self, which: impl Fn(i32) -> bool) -> String {
        let flagged = |brokers: &BTreeMap<String, Queues>| {
            brokers.values().next().is_some_and(|queues| which(queues.sys_flag))
        };
        topic_list(self.topics.iter().filter(|(_, brokers)| flagged(brokers)).map(|(topic, _)| topic), None)
    }

    /// Enters a topic on brokers; nothing when one of them is not known.
    pub(super) fn register_topic(&mut self, topic: &str, queues: Vec<(String, Queues)>) {
        let known = queues.iter().all(|(name, _)| self.brokers.contains_key(name));
        let room = self.topics.contains_key(topic) || self.topics.len() < MAX_TOPICS;
        if known && room && !queues.is_empty() {
            self.topics.entry(topic.to_owned()).or_default().extend(queues);
        }
    }

    /// Removes a topic, everywhere or from one cluster's brokers.
    pub(super) fn delete_topic(&mut self, topic: &str, cluster: Option<&str>) {
        let Some(cluster) = cluster else {
            self.topics.remove(topic);
            return;
        };
        let Some(names) = self.clusters.get(cluster) else { return };
        if let Some(brokers) = self.topics.get_mut(topic) {
            brokers.retain(|name, _| !names.contains(name));
            if brokers.is_empty() {
                self.topics.remove(topic);
            }
        }
    }

    /// Takes the right to write from a broker's topics, or gives it back; how many topics there are.
    pub(super) fn set_writable(&mut self, broker: &str, writable: bool) -> usize {
        let mut count = 0;
        for queues in self.topics.values_mut().filter_map(|brokers| brokers.get_mut(broker)) {
            queues.perm = if writable { PERM_READ | PERM_WRITE } else { queues.perm & !PERM_WRITE };
            count += 1;
        }
        count
    }
}

/// Lets the slave with the lowest number appear as the master of a broker name that has none and takes no writes.
fn stand_in(broker: &mut Broker, queues: Queues) {
    if broker.has_master() || !broker.acting_master || queues.perm & PERM_WRITE != 0 {
        return;
    }
    if let Some((_, addr)) = broker.addrs.pop_first() {
        broker.addrs.insert(MASTER, addr);
    }
}

fn remove_from(clusters: &mut BTreeMap<String, BTreeSet<String>>, cluster: &str, name: &str) {
    if let Some(names) = clusters.get_mut(cluster) {
        names.remove(name);
        if names.is_empty() {
            clusters.remove(cluster);
        }
    }
}

fn topic_list<'a>(topics: impl IntoIterator<Item = &'a String>, addr: Option<&str>) -> String {
    let addr = addr.map(|addr| format!("\"brokerAddr\":{}", text(addr)));
    let list = format!("\"topicList\":{}", array(topics.into_iter().map(|topic| text(topic))));
    object(addr.into_iter().chain([list]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remoting::{Command, codes::request};
    use serde_json::json;

    const NOW: Duration = Duration::from_secs(1000);

    fn said(name: &str, id: i64, addr: &str, version: Value, topics: &[(&str, i32)]) -> Registration {
        let table: serde_json::Map<_, _> = topics
            .iter()
            .map(|(topic, sys_flag)| {
                ((*topic).to_owned(), json!({"topicName": topic, "topicSysFlag": sys_flag}))
            })
            .collect();
        let body = json!({"topicConfigSerializeWrapper": {"dataVersion": version, "topicConfigTable": table,
            "topicQueueMappingInfoMap": {"static": {"bname": name, "currIdMap": {"0": 0}}}}});
        let request = Command::request(request::REGISTER_BROKER)
            .with_field("clusterName", "c")
            .with_field("brokerName", name)
            .with_field("brokerId", id)
            .with_field("brokerAddr", addr)
            .with_field("enableActingMaster", true)
            .with_body(body.to_string());
        Registration::read(&request).unwrap()
    }

    fn simple(name: &str, id: i64, addr: &str, topics: &[&str]) -> Registration {
        let topics: Vec<_> = topics.iter().map(|topic| (*topic, 0)).collect();
        said(name, id, addr, json!({}), &topics)
    }

    fn route(table: &RouteTable, topic: &str, acting: bool) -> Value {
        serde_json::from_str(&table.route(topic, NumberKeys::Quoted, None, acting).unwrap()).unwrap()
    }

    #[test]
    fn a_slave_stands_in_for_a_master_that_left_and_takes_no_writes() {
        let mut table = RouteTable::default();
        let members = format!("{SYNC_BROKER_MEMBER_PREFIX}a");
        table.register(simple("a", 0, "m", &["T", &members]), 1, NOW, false).unwrap();
        table.register(simple("a", 2, "s", &["T", &members]), 2, NOW, false).unwrap();
        assert_eq!(route(&table, "T", true)["queueDatas"][0]["perm"], 6);
        table.unregister("c", "m", "a");
        let with = route(&table, "T", true);
        assert_eq!(with["queueDatas"][0]["perm"], 4);
        assert_eq!(with["brokerDatas"][0]["brokerAddrs"], json!({"0": "s"}));
        assert_eq!(route(&table, "T", false)["brokerDatas"][0]["brokerAddrs"], json!({"2": "s"}));
        assert_eq!(route(&table, &members, true)["brokerDatas"][0]["brokerAddrs"], json!({"2": "s"}));
        // Registering again does not give the right back.
        table
            .register(said("a", 2, "s", json!({"counter": 9}), &[("T", 0), ("U", 0)]), 2, NOW, false)
            .unwrap();
        assert_eq!(route(&table, "T", true)["queueDatas"][0]["perm"], 4);
    }

    #[test]
    fn an_older_state_does_not_take_the_number_of_a_newer_one() {
        let mut table = RouteTable::default();
        let topics = [("T", 0), ("U", 0)];
        table.register(said("a", 0, "new", json!({"stateVersion": 2}), &topics), 1, NOW, false).unwrap();
        table.register(said("a", 0, "old", json!({"stateVersion": 1}), &topics), 2, NOW, false).unwrap();
        assert_eq!(route(&table, "T", false)["brokerDatas"][0]["brokerAddrs"], json!({"0": "new"}));
        table.register(said("a", 0, "newer", json!({"stateVersion": 2}), &topics), 3, NOW, false).unwrap();
        assert_eq!(route(&table, "T", false)["brokerDatas"][0]["brokerAddrs"], json!({"0": "newer"}));
    }

    #[test]
    fn a_registration_may_remove_what_it_does_not_name() {
        let mut table = RouteTable::default();
        let bare =
            |topics: &[&str]| Registration { mappings: BTreeMap::new(), ..simple("a", 0, "m", topics) };
        table.register(bare(&["T", "U"]), 1, NOW, false).unwrap();
        table.register(bare(&["U", "V"]), 1, NOW, false).unwrap();
        assert_eq!(table.topics(), r#"{"topicList":["T","U","V"]}"#);
        table.register(bare(&["U", "V"]), 1, NOW, true).unwrap();
        assert_eq!(table.topics(), r#"{"topicList":["U","V"]}"#);
    }

    #[test]
    fn a_broker_that_changes_its_cluster_leaves_the_old_one() {
        let mut table = RouteTable::default();
        table.register(simple("a", 0, "m", &["T", "U"]), 1, NOW, false).unwrap();
        let moved = Registration { cluster: "d".to_owned(), ..simple("a", 0, "m", &["T", "U"]) };
        table.register(moved, 1, NOW, false).unwrap();
        assert!(table.cluster_info().ends_with(r#""clusterAddrTable":{"d":["a"]}}"#));
        assert_eq!(table.topics_of_cluster("c"), r#"{"topicList":[]}"#);
        // What is left of the old registration expires without taking the new one along.
        table.touch("d", "m", NOW + Duration::from_secs(100));
        assert_eq!(table.expire(NOW + Duration::from_secs(121)), [("m".to_owned(), 1)]);
        assert!(table.route("T", NumberKeys::Bare, None, false).is_some());
    }

    #[test]
    fn topics_are_listed_by_what_they_have_to_do_with_units() {
        let mut table = RouteTable::default();
        let topics = [("none", 0), ("unit", 1), ("sub", 2), ("both", 3)];
        table.register(said("a", 0, "m", json!({}), &topics), 1, NOW, false).unwrap();
        assert_eq!(table.unit_topics(), r#"{"topicList":["both","unit"]}"#);
        assert_eq!(table.unit_sub_topics(false), r#"{"topicList":["both","sub"]}"#);
        assert_eq!(table.unit_sub_topics(true), r#"{"topicList":["sub"]}"#);
    }

    #[test]
    fn static_topics_carry_how_their_queues_map() {
        let mut table = RouteTable::default();
        table.register(simple("a", 0, "m", &["static", "U"]), 1, NOW, false).unwrap();
        let mapping = &route(&table, "static", false)["topicQueueMappingByBroker"];
        assert_eq!(*mapping, json!({"a": {"bname": "a", "currIdMap": {"0": 0}}}));
        assert_eq!(route(&table, "U", false).get("topicQueueMappingByBroker"), None);
        assert_eq!(table.disconnected(1), 1);
        assert!(table.mappings.is_empty() && table.topics.is_empty() && table.live.is_empty());
    }
}
