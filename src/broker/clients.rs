//! Who is connected: producers, consumer groups with their subscriptions, and the news of who comes and goes.
//!
//! Owns the table of groups and their members. A member is one connection of one client in one group; it leaves when
//! it says so, when its connection ends, or when no heartbeat came for `channelExpiredTimeout`. Every change of a
//! consumer group's members or subscriptions is told to all of them (NOTIFY_CONSUMER_IDS_CHANGED), outside the lock.
//! Called by pull (subscriptions), lock, admin and the requests here.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use parking_lot::RwLock;

use super::{Broker, Refusal, Route, filters, json::Json, names, topics};
use crate::{
    remoting::{
        Command, Connection, Language,
        codes::{request, response},
    },
    types::StoreTimestamp,
};

/// Groups that one heartbeat may name.
const MAX_GROUPS: usize = 4_096;
/// Topics that one group may subscribe to.
const MAX_SUBSCRIPTIONS: usize = 4_096;
/// Bytes of a client's id.
const MAX_CLIENT_ID: usize = 1_024;

/// What a group wants of a topic.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Subscription {
    pub(crate) topic: String,
    /// `*`, or tags as `a || b`, or an expression of `expression_type`.
    pub(crate) expression: String,
    /// `TAG` or `SQL92`.
    pub(crate) expression_type: String,
    /// Grows with every change that the client makes.
    pub(crate) version: i64,
    class_filter: bool,
    tags: Vec<String>,
    codes: Vec<i64>,
}

impl Subscription {
    /// A subscription by tags.
    pub(crate) fn tags(topic: &str, expression: &str, version: i64) -> Self {
        Self {
            topic: topic.into(),
            expression: expression.into(),
            expression_type: "TAG".into(),
            version,
            class_filter: false,
            tags: Vec::new(),
            codes: Vec::new(),
        }
    }

    pub(crate) fn from_json(json: &Json) -> Option<Self> {
        let topic = json.text_of("topic").filter(|topic| names::is_topic(topic))?;
        let list = |key| json.get(key).map(Json::items).unwrap_or_default();
        Some(Self {
            expression_type: json.text_of("expressionType").unwrap_or("TAG").into(),
            class_filter: json.bool_of("classFilterMode").unwrap_or(false),
            tags: list("tagsSet").iter().filter_map(|tag| Some(tag.text()?.to_owned())).collect(),
            codes: list("codeSet").iter().filter_map(Json::int).collect(),
            ..Self::tags(
                topic,
                json.text_of("subString").unwrap_or("*"),
                json.int_of("subVersion").unwrap_or(0),
            )
        })
    }

    pub(crate) fn to_json(&self) -> Json {
        Json::map([
            ("classFilterMode", self.class_filter.into()),
            ("codeSet", self.codes.clone().into()),
            ("expressionType", self.expression_type.as_str().into()),
            ("subString", self.expression.as_str().into()),
            ("subVersion", self.version.into()),
            ("tagsSet", self.tags.clone().into()),
            ("topic", self.topic.as_str().into()),
        ])
    }
}

/// One connection of one client.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) conn: Arc<Connection>,
    pub(crate) client_id: String,
    pub(crate) language: Language,
    pub(crate) version: i32,
    /// When its last heartbeat came.
    pub(crate) seen: StoreTimestamp,
}

/// How a group consumes, as its members say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manner {
    /// `CONSUME_PASSIVELY` (push) or `CONSUME_ACTIVELY` (pull).
    pub(crate) consume_type: String,
    /// `CLUSTERING` or `BROADCASTING`.
    pub(crate) message_model: String,
    /// `CONSUME_FROM_LAST_OFFSET` and its like.
    pub(crate) consume_from_where: String,
}

impl Manner {
    /// Whether every member gets every message.
    pub(crate) fn is_broadcast(&self) -> bool {
        self.message_model == "BROADCASTING"
    }

    fn from_json(json: &Json) -> Self {
        let text = |key, default: &str| json.text_of(key).unwrap_or(default).to_owned();
        Self {
            consume_type: text("consumeType", "CONSUME_PASSIVELY"),
            message_model: text("messageModel", "CLUSTERING"),
            consume_from_where: text("consumeFromWhere", "CONSUME_FROM_LAST_OFFSET"),
        }
    }
}

/// A consumer group with members.
#[derive(Clone, Debug)]
pub(crate) struct ConsumerGroup {
    pub(crate) manner: Manner,
    pub(crate) subscriptions: BTreeMap<String, Arc<Subscription>>,
    /// By connection.
    pub(crate) members: BTreeMap<u64, Member>,
    /// The fingerprint of the last heartbeat, 0 for none.
    fingerprint: i64,
}

#[derive(Debug, Default)]
struct Tables {
    consumers: HashMap<String, ConsumerGroup>,
    producers: HashMap<String, BTreeMap<u64, Member>>,
}

/// The table of clients.
#[derive(Debug, Default)]
pub(crate) struct Clients(RwLock<Tables>);

impl Clients {
    /// What the group subscribed of the topic.
    pub(crate) fn subscription(&self, group: &str, topic: &str) -> Option<Arc<Subscription>> {
        self.0.read().consumers.get(group)?.subscriptions.get(topic).cloned()
    }

    /// How the group consumes; `None` when it has no member.
    pub(crate) fn manner(&self, group: &str) -> Option<Manner> {
        self.0.read().consumers.get(group).map(|group| group.manner.clone())
    }

    /// A copy of the group; `None` when it has no member.
    pub(crate) fn consumer_group(&self, group: &str) -> Option<ConsumerGroup> {
        self.0.read().consumers.get(group).cloned()
    }

    /// The connection of a member.
    pub(crate) fn find(&self, group: &str, client_id: &str) -> Option<Member> {
        let tables = self.0.read();
        tables.consumers.get(group)?.members.values().find(|member| member.client_id == client_id).cloned()
    }

    /// The groups that have members and subscribe to the topic, sorted.
    pub(crate) fn groups_on(&self, topic: &str) -> Vec<String> {
        let tables = self.0.read();
        let on = tables.consumers.iter().filter(|(_, group)| group.subscriptions.contains_key(topic));
        let mut names: Vec<_> = on.map(|(name, _)| name.clone()).collect();
        names.sort_unstable();
        names
    }

    /// Every producer group and its members, sorted.
    pub(crate) fn producers(&self) -> BTreeMap<String, Vec<Member>> {
        let tables = self.0.read();
        tables
            .producers
            .iter()
            .map(|(name, members)| (name.clone(), members.values().cloned().collect()))
            .collect()
    }

    /// A member of a producer group whose connection lasts, another one each time.
    pub(crate) fn any_producer(&self, group: &str) -> Option<Member> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let tables = self.0.read();
        let members = tables.producers.get(group)?.values();
        let live: Vec<_> = members.filter(|member| !member.conn.is_closed()).collect();
        let chosen = NEXT.fetch_add(1, Relaxed).checked_rem(live.len())?;
        live.get(chosen).map(|member| (*member).clone())
    }

    /// The producer of that client id.
    pub(crate) fn producer(&self, client_id: &str) -> Option<Member> {
        let tables = self.0.read();
        let mut members = tables.producers.values().flat_map(BTreeMap::values);
        members.find(|member| member.client_id == client_id && !member.conn.is_closed()).cloned()
    }

    /// Members of all groups together: consumers, producers.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let tables = self.0.read();
        (
            tables.consumers.values().map(|group| group.members.len()).sum(),
            tables.producers.values().map(BTreeMap::len).sum(),
        )
    }

    fn put_producer(&self, group: &str, member: &Member) {
        let mut tables = self.0.write();
        if let Some(members) = tables.producers.get_mut(group) {
            members.insert(member.conn.id(), member.clone());
        } else {
            tables.producers.insert(group.into(), BTreeMap::from([(member.conn.id(), member.clone())]));
        }
    }

    /// Takes a heartbeat in. Without `subscriptions` the ones known stay.
    fn put_consumer(
        &self,
        group: &str,
        member: &Member,
        manner: Manner,
        fingerprint: i64,
        subscriptions: Option<Vec<Subscription>>,
    ) -> Beat {
        let mut tables = self.0.write();
        let group = tables.consumers.entry(group.into()).or_insert_with(|| ConsumerGroup {
            manner: manner.clone(),
            subscriptions: BTreeMap::new(),
            members: BTreeMap::new(),
            fingerprint: 0,
        });
        let known = group.members.insert(member.conn.id(), member.clone());
        let mut changed = known.is_none_or(|known| known.client_id != member.client_id);
        group.manner = manner;
        let other_fingerprint = group.fingerprint != 0 && group.fingerprint != fingerprint;
        group.fingerprint = fingerprint;
        if let Some(subscriptions) = subscriptions {
            changed |= update_subscriptions(&mut group.subscriptions, subscriptions);
        }
        Beat { changed, other_fingerprint }
    }

    /// Takes a connection out of one consumer group; whether it was in.
    fn remove_consumer(&self, group: &str, conn: u64) -> bool {
        let mut tables = self.0.write();
        let Some(of) = tables.consumers.get_mut(group) else { return false };
        let removed = of.members.remove(&conn).is_some();
        if of.members.is_empty() {
            tables.consumers.remove(group);
        }
        removed
    }

    fn remove_producer(&self, group: &str, conn: u64) {
        let mut tables = self.0.write();
        let Some(members) = tables.producers.get_mut(group) else { return };
        members.remove(&conn);
        if members.is_empty() {
            tables.producers.remove(group);
        }
    }

    /// Takes a connection out of every group; the consumer groups that it was in.
    fn remove(&self, conn: u64) -> Vec<String> {
        let mut tables = self.0.write();
        tables.producers.retain(|_, members| {
            members.remove(&conn);
            !members.is_empty()
        });
        let mut left = Vec::new();
        tables.consumers.retain(|name, group| {
            if group.members.remove(&conn).is_some() {
                left.push(name.clone());
            }
            !group.members.is_empty()
        });
        left
    }

    /// The connections whose every heartbeat is older than `before`.
    fn silent_since(&self, before: StoreTimestamp) -> Vec<Arc<Connection>> {
        let tables = self.0.read();
        let groups = tables.consumers.values().map(|group| &group.members).chain(tables.producers.values());
        let mut newest: BTreeMap<u64, &Member> = BTreeMap::new();
        for member in groups.flat_map(BTreeMap::values) {
            let place = newest.entry(member.conn.id()).or_insert(member);
            if member.seen > place.seen {
                *place = member;
            }
        }
        newest
            .into_values()
            .filter(|member| member.seen < before)
            .map(|member| Arc::clone(&member.conn))
            .collect()
    }
}

/// What a heartbeat of a consumer changed.
struct Beat {
    /// Members or subscribed topics differ from before.
    changed: bool,
    /// Another client of the group sent other subscriptions.
    other_fingerprint: bool,
}

/// Puts the newer subscriptions in and those no longer named out; whether the set of topics changed.
fn update_subscriptions(known: &mut BTreeMap<String, Arc<Subscription>>, new: Vec<Subscription>) -> bool {
    let before = known.len();
    known.retain(|topic, _| new.iter().any(|sub| sub.topic == *topic));
    let mut changed = known.len() != before;
    for sub in new {
        match known.get(&sub.topic) {
            Some(old) if old.version >= sub.version => {}
            old => {
                changed |= old.is_none();
                known.insert(sub.topic.clone(), Arc::new(sub));
            }
        }
    }
    changed
}

impl Broker {
    /// A connection ended: its clients left.
    pub(crate) fn client_gone(&self, conn: &Connection) {
        for group in self.clients.remove(conn.id()) {
            tracing::debug!(group, peer = %conn.peer(), "consumer gone with its connection");
            self.member_left(&group);
        }
    }

    /// A member left a group: the others are told; without others its filters have nobody to filter for.
    fn member_left(&self, group: &str) {
        if self.clients.manner(group).is_none() {
            self.filters.unregister(group, self.clock.now());
        }
        self.tell_members(group);
    }

    /// Tells every member of a group that its members changed.
    fn tell_members(&self, group: &str) {
        let allowed = self.groups.get(group).is_none_or(|config| config.notify_consumer_ids_changed);
        if !allowed || !self.live.notify_consumer_ids_changed.load(Relaxed) {
            return;
        }
        let Some(consumers) = self.clients.consumer_group(group) else { return };
        if consumers.manner.is_broadcast() {
            return;
        }
        for member in consumers.members.values() {
            member.conn.send(
                Command::oneway(request::NOTIFY_CONSUMER_IDS_CHANGED).with_field("consumerGroup", group),
            );
        }
    }

    /// Closes the connections whose clients fell silent.
    pub(crate) fn expire_clients(&self) {
        let expiry = i64::try_from(self.config.client_expiry().as_millis()).unwrap_or(i64::MAX);
        let before = StoreTimestamp(self.clock.now().get().saturating_sub(expiry));
        for conn in self.clients.silent_since(before) {
            tracing::info!(peer = %conn.peer(), "no heartbeat for too long: connection closed");
            conn.close();
            self.client_gone(&conn);
        }
    }

    fn beat_consumer(
        &self,
        json: &Json,
        member: &Member,
        fingerprint: i64,
        without_sub: bool,
    ) -> Option<Beat> {
        let name = json.text_of("groupName").filter(|name| names::is_group(name))?;
        let group = self.group(name)?;
        let sys_flag = if json.bool_of("unitMode").unwrap_or(false) { topics::SYS_FLAG_UNIT_SUB } else { 0 };
        self.ensure_topic(
            &names::retry_topic(name),
            group.retry_queue_nums,
            topics::perm::READ | topics::perm::WRITE,
            sys_flag,
        );
        let subscriptions = json.get("subscriptionDataSet").map(Json::items).unwrap_or_default();
        let subscriptions: Vec<_> =
            subscriptions.iter().take(MAX_SUBSCRIPTIONS).filter_map(Subscription::from_json).collect();
        if !without_sub {
            self.filters.register(name, &subscriptions, &*self.clock);
        }
        let beat = self.clients.put_consumer(
            name,
            member,
            Manner::from_json(json),
            fingerprint,
            (!without_sub).then_some(subscriptions),
        );
        if beat.changed {
            tracing::debug!(group = name, client = member.client_id, "consumer group changed");
            self.tell_members(name);
        }
        Some(beat)
    }
}

/// The codes that this file answers.
pub(super) const ROUTES: &[(i32, Route)] = &[
    (request::HEART_BEAT, Route::Answer(heart_beat)),
    (request::UNREGISTER_CLIENT, Route::Answer(unregister)),
    (request::GET_CONSUMER_LIST_BY_GROUP, Route::Answer(list_members)),
    (request::CHECK_CLIENT_CONFIG, Route::Answer(check_config)),
];

fn heart_beat(broker: &Arc<Broker>, conn: &Arc<Connection>, cmd: &Command) -> Result<Command, Refusal> {
    let json = super::body(cmd)?;
    let client_id = json.text_of("clientID").filter(|id| !id.is_empty() && id.len() <= MAX_CLIENT_ID);
    let client_id =
        client_id.ok_or_else(|| Refusal::new(response::SYSTEM_ERROR, "the heartbeat has no clientID"))?;
    let member = Member {
        conn: Arc::clone(conn),
        client_id: client_id.into(),
        language: cmd.language,
        version: cmd.version,
        seen: broker.clock.now(),
    };
    let fingerprint = json.int_of("heartbeatFingerprint").unwrap_or(0);
    let without_sub = json.bool_of("withoutSub").unwrap_or(false);
    let list = |key| json.get(key).map(Json::items).unwrap_or_default().iter().take(MAX_GROUPS);
    // A client without fingerprints sends everything every time; for it the answer does not matter.
    let mut sub_change = fingerprint == 0;
    for consumer in list("consumerDataSet") {
        let beat = broker.beat_consumer(consumer, &member, fingerprint, without_sub);
        sub_change |= beat.is_some_and(|beat| beat.other_fingerprint);
    }
    for producer in list("producerDataSet") {
        if let Some(group) = producer.text_of("groupName").filter(|name| names::is_group(name)) {
            broker.clients.put_producer(group, &member);
        }
    }
    Ok(cmd
        .reply(response::SUCCESS)
        .with_field("IS_SUPPORT_HEART_BEAT_V2", true)
        .with_field("IS_SUB_CHANGE", sub_change))
}

fn unregister(broker: &Arc<Broker>, conn: &Arc<Connection>, cmd: &Command) -> Result<Command, Refusal> {
    if let Some(group) = cmd.fields.get("producerGroup") {
        broker.clients.remove_producer(group, conn.id());
    }
    if let Some(group) = cmd.fields.get("consumerGroup")
        && broker.clients.remove_consumer(group, conn.id())
    {
        tracing::debug!(group, "consumer signed off");
        broker.member_left(group);
    }
    Ok(cmd.reply(response::SUCCESS))
}

fn list_members(broker: &Arc<Broker>, _: &Arc<Connection>, cmd: &Command) -> Result<Command, Refusal> {
    let group = cmd.fields.text("consumerGroup")?;
    let Some(consumers) = broker.clients.consumer_group(group) else {
        return Err(Refusal::new(
            response::SYSTEM_ERROR,
            format!("no consumer for this group, {}", names::shorten(group)),
        ));
    };
    let mut ids: Vec<_> = consumers.members.into_values().map(|member| member.client_id).collect();
    ids.sort_unstable();
    ids.dedup();
    Ok(cmd.reply(response::SUCCESS).with_body(Json::map([("consumerIdList", Json::from(ids))]).compact()))
}

fn check_config(broker: &Arc<Broker>, _: &Arc<Connection>, cmd: &Command) -> Result<Command, Refusal> {
    let json = super::body(cmd)?;
    let field = |name| json.get("subscriptionData").and_then(|sub| sub.text_of(name)).unwrap_or("");
    let kind = field("expressionType");
    if !filters::is_tags(kind) {
        broker.compile(kind, field("subString"))?;
    }
    Ok(cmd.reply(response::SUCCESS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(number: u64, client_id: &str, seen: i64) -> Member {
        let peer = std::net::SocketAddr::from(([127, 0, 0, 1], 1_000));
        Member {
            conn: Connection::detached(number, peer),
            client_id: client_id.into(),
            language: Language::Java,
            version: 513,
            seen: StoreTimestamp(seen),
        }
    }

    fn beat(
        clients: &Clients,
        member: &Member,
        fingerprint: i64,
        subs: Option<Vec<Subscription>>,
    ) -> (bool, bool) {
        let manner = Manner::from_json(&Json::Map(Vec::new()));
        let beat = clients.put_consumer("g", member, manner, fingerprint, subs);
        (beat.changed, beat.other_fingerprint)
    }

    #[test]
    fn a_subscription_changes_with_its_version_and_goes_when_it_is_not_named() {
        let clients = Clients::default();
        let one = member(1, "a", 0);
        let subs = |expression, version| Some(vec![Subscription::tags("t", expression, version)]);
        assert_eq!(beat(&clients, &one, 0, subs("*", 5)), (true, false));
        assert_eq!(beat(&clients, &one, 0, subs("old", 4)), (false, false));
        assert_eq!(clients.subscription("g", "t").unwrap().expression, "*");
        assert_eq!(beat(&clients, &one, 0, subs("new", 6)), (false, false));
        assert_eq!(clients.subscription("g", "t").unwrap().expression, "new");
        assert_eq!(beat(&clients, &one, 0, Some(vec![Subscription::tags("u", "*", 7)])), (true, false));
        assert!(clients.subscription("g", "t").is_none());
    }

    #[test]
    fn a_heartbeat_without_subscriptions_keeps_them_until_the_fingerprint_differs() {
        let clients = Clients::default();
        let (one, two) = (member(1, "a", 0), member(2, "b", 0));
        assert_eq!(beat(&clients, &one, 77, Some(vec![Subscription::tags("t", "*", 1)])), (true, false));
        assert_eq!(beat(&clients, &one, 77, None), (false, false));
        assert!(clients.subscription("g", "t").is_some());
        assert_eq!(beat(&clients, &two, 78, None), (true, true));
        assert_eq!(beat(&clients, &two, 78, None), (false, false));
    }

    #[test]
    fn a_connection_leaves_every_group_and_empty_groups_go() {
        let clients = Clients::default();
        let (one, two) = (member(1, "a", 10), member(2, "b", 20));
        for member in [&one, &two] {
            beat(&clients, member, 0, Some(Vec::new()));
            clients.put_producer("p", member);
        }
        assert_eq!(clients.counts(), (2, 2));
        let silent: Vec<u64> =
            clients.silent_since(StoreTimestamp(15)).iter().map(|conn| conn.id()).collect();
        assert_eq!(silent, [1]);
        assert_eq!(clients.remove(1), ["g"]);
        assert_eq!(clients.find("g", "b").unwrap().conn.id(), 2);
        assert_eq!(clients.remove(2), ["g"]);
        assert!(
            clients.manner("g").is_none() && clients.producers().is_empty() && clients.remove(2).is_empty()
        );
    }

    #[test]
    fn a_subscription_comes_back_as_it_was_sent() {
        let text = r#"{"classFilterMode":false,"codeSet":[2598919],"expressionType":"TAG","subString":"TagA","subVersion":17,"tagsSet":["TagA"],"topic":"t"}"#;
        let sub = Subscription::from_json(&Json::parse(text.as_bytes()).unwrap()).unwrap();
        assert_eq!((sub.expression.as_str(), sub.version), ("TagA", 17));
        assert_eq!(sub.to_json().compact(), text);
    }
}
