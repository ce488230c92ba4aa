//! How far groups are in topics: statistics of topics and groups, and moving a group back or forth in time.
//!
//! Owns nothing; joins the store's queues with the tables of topics, offsets and clients. Called by operators' tools.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{Broker, Refusal, Route, json::Json, names, topics::TopicConfig};
use crate::{
    consume_queue::Boundary,
    message::Queue,
    remoting::{
        Command, Connection,
        codes::{request, response},
    },
    types::{QueueOffset, StoreTimestamp},
};

/// The codes that this file answers.
pub(super) const ROUTES: &[(i32, Route)] = &[
    (request::GET_TOPIC_STATS_INFO, Route::Aside(topic_stats)),
    (request::GET_CONSUME_STATS, Route::Aside(consume_stats)),
    (request::GET_BROKER_CONSUME_STATS, Route::Aside(all_consume_stats)),
    (request::QUERY_TOPIC_CONSUME_BY_WHO, Route::Answer(groups_of_topic)),
    (request::QUERY_TOPICS_BY_CONSUMER, Route::Answer(topics_of_group)),
    (request::QUERY_CONSUME_TIME_SPAN, Route::Aside(time_span)),
    (request::INVOKE_BROKER_TO_RESET_OFFSET, Route::Aside(reset)),
    (request::CLONE_GROUP_OFFSET, Route::Answer(clone)),
    (request::QUERY_CORRECTION_OFFSET, Route::Answer(corrections)),
];

impl Broker {
    /// The topic, or the refusal of a request that names one which does not exist.
    pub(super) fn known_topic(&self, name: &str) -> Result<Arc<TopicConfig>, Refusal> {
        self.topics.get(name).ok_or_else(|| {
            let remark = format!("topic[{}] not exist", names::shorten(name));
            Refusal::new(response::TOPIC_NOT_EXIST, remark)
        })
    }

    fn message_queue(&self, topic: &str, queue: i32) -> Json {
        Json::map([
            ("brokerName", Json::from(self.config.name.as_str())),
            ("queueId", queue.into()),
            ("topic", topic.into()),
        ])
    }

    pub(super) fn end_of(&self, queue: Option<Queue>) -> i64 {
        queue.map_or(0, |queue| self.store.max_offset(queue).get())
    }

    /// When the message at `offset` was stored, 0 when there is none.
    fn time_at(&self, queue: Option<Queue>, offset: i64) -> Result<i64, Refusal> {
        let Some(queue) = queue.filter(|_| offset >= 0) else { return Ok(0) };
        Ok(self.store.message_time(queue, QueueOffset(offset))?.map_or(0, StoreTimestamp::get))
    }
}

fn topic_stats(broker: &Arc<Broker>, _: &Arc<Connection>, cmd: &Command) -> Result<Command, Refusal> {
    let topic = broker.known_topic(cmd.fields.text("topic")?)?;
    let mut table = Vec::new();
    for id in 0..topic.read_queues.max(topic.write_queues) {
        let queue = broker.store.find_queue(&topic.name, id);
        let end = broker.end_of(queue);
        table.push((
            broker.message_queue(&topic.name, id),
            Json::map([
                ("lastUpdateTimestamp", Json::from(broker.time_at(queue, end - 1)?)),
                ("maxOffset", end.into()),
                ("minOffset", queue.map_or(0, |queue| broker.store.min_offset(queue).get()).into()),
            ]),
        ));
    }
    let body = Json::map([
        ("offsetTable", Json::Map(table)),
        ("topicPutTps", broker.rates.put_tps(&topic.name).into()),
    ]);
    Ok(cmd.reply(response::SUCCESS).with_body(body.compact()))
}

/// The topics whose figures a group has, of those `named`, or else of those in which it committed: what its members do
/// not subscribe to is no longer its concern while it has any. A group that consumes by broadcast commits nothing and
/// so has none, by which tools recognise it.
fn topics_with_figures(broker: &Broker, group: &str, named: Option<&str>) -> BTreeSet<String> {
    let mut topics = match named {
        Some(topic) => BTreeSet::from([topic.to_owned()]),
        None => broker.offsets.topics_of(group),
    };
    if let Some(consumers) = broker.clients.consumer_group(group) {
        let subscribed = consumers.subscriptions;
        topics.retain(|topic| subscribed.is_empty() || subscribed.contains_key(topic));
    }
    topics
}

/// `offsetTable` of a group in the first `queues` queues of a topic.
fn offset_table(
    broker: &Broker,
    group: &str,
    topic: &str,
    queues: i32,
) -> Result<Vec<(Json, Json)>, Refusal> {
    let mut table = Vec::new();
    for id in 0..queues {
        let queue = broker.store.find_queue(topic, id);
        let consumed = broker.offsets.query(group, topic, id).unwrap_or(0).max(0);
        // Who pops, and whom an operator moved, did not pull as far as that.
        let pulled = broker.offsets.pulled(group, topic, id).unwrap_or(0).max(consumed);
        table.push((
            broker.message_queue(topic, id),
            Json::map([
                ("brokerOffset", Json::from(broker.end_of(queue))),
                ("consumerOffset", consumed.into()),
                ("lastTimestamp", broker.time_at(queue, consumed - 1)?.into()),
                ("pullOffset", pulled.into()),
            ]),
        ));
    }
    Ok(table)
}

fn consume_stats(broker: &Arc<Broker>, _: &Arc<Connection>, cmd: &Command) -> Result<Command, Refusal> {
    let group = cmd.fields.text("consumerGroup")?;
    let filled = |name| cmd.fields.get(name).filter(|text| !text.trim().is_empty());
    let topics = match filled("topicList") {
        // Whoever lists topics gets them, subscribed to or not.
        Some(list) => list.split(';').filter(|topic| !topic.is_empty()).map(str::to_owned).collect(),
        None => topics_with_figures(broker, group, filled("topic")),
    };
    let (mut table, mut tps) = (Vec::new(), 0.0);
    for topic in topics.iter().filter_map(|topic| broker.topics.get(topic)) {
        table.extend(offset_table(broker, group, &topic.name, topic.read_queues)?);
        tps += broker.rates.consume_tps(group, &topic.name);
    }
    let body = Json::map([("consumeTps", Json::from(tps)), ("offsetTable", Json::Map(table))]);
    Ok(cmd.reply(response::SUCCESS).with_body(body.compact()))
}

fn all_consume_stats(broker: &Arc<Broker>, _: &Arc<Connection>, cmd: &Command) -> Result<Command, Refusal> {
    let only_ordered: bool = cmd.fields.parse_or("isOrder", false)?;
    let (mut list, mut behind, mut in_flight) = (Vec::new(), 0, 0);
    for group in broker.groups.all().0 {
        let mut of_group = Vec::new();
        let topics = topics_with_figures(broker, &group.name, None);
        for topic in topics.iter().filter_map(|topic| broker.topics.get(topic)) {
            if only_ordered && !topic.order {
                continue;
            }
            let table = offset_table(broker, &group.name, &topic.name, topic.write_queues)?;
            for (_, offsets) in &table {
                let at = |key| offsets.int_of(key).unwrap_or(0);
                behind += at("brokerOffset") - at("consumerOffset");
                in_flight += at("pullOffset") - at("consumerOffset");
            }
            let tps = broker.rates.consume_tps(&group.name, &topic.name);
            of_group.push(Json::map([("consumeTps", Json::from(tps)), ("offsetTable", Json::Map(table))]));
        }
        list.push(Json::map([(group.name.as_str(), Json::List(of_group))]));
    }
    let body = Json::map([
        ("brokerAddr", Json::from(broker.config.address())),
        ("consumeStatsList", Json::List(list)),
        ("totalDiff", behind.into()),
        ("totalInflightDiff", in_flight.into()),
    ]);
    Ok(cmd.reply(response::SUCCESS).with_body(body.compact()))
}

fn groups_of_topic(broker: &Arc<Broker>, _: &Arc<Connection>, cmd: &Command) -> Result<Command, Refusal> {
    let topic = cmd.fields.text("topic")?;
    let mut groups = broker.offsets.groups_of(topic);
    groups.extend(broker.clients.groups_on(topic));
    let groups: Vec<String> = groups.into_iter().collect();
    Ok(cmd.reply(response::SUCCESS).with_body(Json::map([("groupList", Json::from(groups))]).compact()))
}

fn topics_of_group(broker: &Arc<Broker>, _: &Arc<Connection>, cmd: &Command) -> Result<Command, Refusal> {
    let topics: Vec<String> = broker.offsets.topics_of(cmd.fields.text("group")?).into_iter().collect();
    let body =
        Json::map([("brokerAddr", Json::from(broker.config.address())), ("topicList", Json::from(topics))]);
    Ok(cmd.reply(response::SUCCESS).with_body(body.compact()))
}

fn time_span(broker: &Arc<Broker>, _: &Arc<Connection>, cmd: &Command) -> Result<Command, Refusal> {
    let topic = broker.known_topic(cmd.fields.text("topic")?)?;
    let group = cmd.fields.text("group")?;
    let now = broker.clock.now().get();
    let mut spans = Vec::new();
    for id in 0..topic.write_queues {
        let queue = broker.store.find_queue(&topic.name, id);
        let first = queue.map_or(0, |queue| broker.store.min_offset(queue).get());
        let first_time = broker.time_at(queue, first)?;
        let consumed = broker.offsets.query(group, &topic.name, id).unwrap_or(0);
        let consumed_time = if consumed > 0 { broker.time_at(queue, consumed - 1)? } else { first_time };
        let waiting = broker.time_at(queue, consumed)?;
        let delay = if waiting > 0 { (now - waiting).max(0) } else { 0 };
        spans.push(Json::map([
            ("consumeTimeStamp", Json::from(consumed_time)),
            ("delayTime", delay.into()),
            ("maxTimeStamp", broker.time_at(queue, broker.end_of(queue) - 1)?.into()),
            ("messageQueue", broker.message_queue(&topic.name, id)),
            ("minTimeStamp", first_time.into()),
        ]));
    }
    let body = Json::map([("consumeTimeSpanSet", Json::List(spans))]);
    Ok(cmd.reply(response::SUCCESS).with_body(body.compact()))
}

fn reset(broker: &Arc<Broker>, _: &Arc<Connection>, cmd: &Command) -> Result<Command, Refusal> {
    let name = cmd.fields.text("topic")?;
    let topic = broker.topics.get(name).ok_or_else(|| {
        let remark = format!("Topic {} does not exist", names::shorten(name));
        Refusal::new(response::TOPIC_NOT_EXIST, remark)
    })?;
    let group = cmd.fields.text("group")?;
    names::check_group(group)?;
    if broker.groups.get(group).is_none() {
        return Err(Refusal::new(
            response::SUBSCRIPTION_GROUP_NOT_EXIST,
            format!("Group {group} does not exist"),
        ));
    }
    let time: i64 = cmd.fields.parse("timestamp")?;
    let only: i32 = cmd.fields.parse_or("queueId", -1)?;
    let wanted: i64 = cmd.fields.parse_or("offset", -1)?;
    let queues = if only >= 0 { only..only.saturating_add(1) } else { 0..topic.read_queues };
    if queues.end > topic.read_queues {
        return Err(Refusal::new(response::INVALID_PARAMETER, format!("{} has no queue {only}", topic.name)));
    }
    let mut targets = Vec::new();
    for id in queues {
        let queue = broker.store.find_queue(&topic.name, id);
        let end = broker.end_of(queue);
        let start = queue.map_or(0, |queue| broker.store.min_offset(queue).get());
        let target = match queue {
            _ if only >= 0 && wanted >= 0 && !(start..=end).contains(&wanted) => {
                return Err(Refusal::new(
                    response::SYSTEM_ERROR,
                    format!("offset {wanted} is not in queue {id}, which has {start} to {end}"),
                ));
            }
            _ if only >= 0 && wanted >= 0 => wanted,
            Some(queue) if time >= 0 => {
                broker.store.offset_by_time(queue, StoreTimestamp(time), Boundary::Lower)?.get()
            }
            _ => end,
        };
        targets.push((id, target));
    }
    let mut table = Vec::new();
    for (id, target) in targets {
        broker.offsets.reset(group, &topic.name, id, target);
        table.push((broker.message_queue(&topic.name, id), Json::from(target)));
    }
    super::pull::wake_group(broker, group, &topic.name);
    super::pop::wake_group(broker, group, &topic.name);
    tracing::info!(topic = topic.name, group, time, "offsets reset by request");
    Ok(cmd.reply(response::SUCCESS).with_body(Json::map([("offsetTable", Json::Map(table))]).compact()))
}

/// Puts one group where another is, in one topic or in all of its topics. A topic to which the other's consumers do
/// not subscribe is left out, unless the request says that they are offline.
fn clone(broker: &Arc<Broker>, _: &Arc<Connection>, cmd: &Command) -> Result<Command, Refusal> {
    let (from, to) = (cmd.fields.text("srcGroup")?, cmd.fields.text("destGroup")?);
    names::check_group(to)?;
    let offline: bool = cmd.fields.parse_or("offline", false)?;
    let topics = match cmd.fields.get("topic").filter(|topic| !topic.trim().is_empty()) {
        Some(topic) => BTreeSet::from([topic.to_owned()]),
        None => broker.offsets.topics_of(from),
    };
    let online = broker.clients.consumer_group(from).filter(|_| !offline);
    for topic in topics.iter().filter(|topic| broker.topics.contains(topic)) {
        if online.as_ref().is_some_and(|group| !group.subscriptions.contains_key(topic)) {
            tracing::warn!(topic, from, "offsets not cloned: the group's consumers do not subscribe to it");
            continue;
        }
        broker.offsets.clone_group(from, to, topic);
    }
    Ok(cmd.reply(response::SUCCESS))
}

/// The least offset that any group committed in each queue of a topic, those in `filterGroups` left out; where the
/// group to compare with is behind it, the greatest number there is. What is no longer in the queue counts for nothing.
fn corrections(broker: &Arc<Broker>, _: &Arc<Connection>, cmd: &Command) -> Result<Command, Refusal> {
    let (topic, compared) = (cmd.fields.text("topic")?, cmd.fields.text("compareGroup")?);
    let left_out: Vec<&str> = cmd.fields.get("filterGroups").unwrap_or("").split(',').collect();
    let mut least: BTreeMap<i32, i64> = BTreeMap::new();
    for group in broker.offsets.groups_of(topic).iter().filter(|group| !left_out.contains(&group.as_str())) {
        for (id, offset) in broker.offsets.in_topic(group, topic) {
            let first =
                broker.store.find_queue(topic, id).map_or(0, |queue| broker.store.min_offset(queue).get());
            if offset >= first {
                let least = least.entry(id).or_insert(offset);
                *least = offset.min(*least);
            }
        }
    }
    for (id, offset) in broker.offsets.in_topic(compared, topic) {
        if let Some(least) = least.get_mut(&id).filter(|least| **least > offset) {
            *least = i64::MAX;
        }
    }
    let table = least.into_iter().map(|(id, offset)| (id, Json::from(offset)));
    let body = Json::map([("correctionOffsets", Json::map(table))]);
    Ok(cmd.reply(response::SUCCESS).with_body(body.compact()))
}
