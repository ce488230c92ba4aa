//! Offsets of queues, and what operators ask of the broker itself.
//!
//! Owns nothing but the answers.

use std::sync::Arc;

use super::{Broker, Refusal, Route, json::Json, light, names};
use crate::{
    consume_queue::Boundary,
    message::Queue,
    remoting::{
        Command, Connection,
        codes::{request, response},
    },
    types::StoreTimestamp,
};

/// The codes that this file answers.
pub(super) const ROUTES: &[(i32, Route)] = &[
    (request::GET_MAX_OFFSET, Route::Answer(max_offset)),
    (request::GET_MIN_OFFSET, Route::Answer(min_offset)),
    (request::SEARCH_OFFSET_BY_TIMESTAMP, Route::Aside(search_offset)),
    (request::GET_EARLIEST_MSG_STORETIME, Route::Aside(earliest_time)),
    (request::GET_ALL_DELAY_OFFSET, Route::Answer(delay_offsets)),
    (request::GET_SYSTEM_TOPIC_LIST_FROM_BROKER, Route::Answer(system_topics)),
    (request::GET_BROKER_HA_STATUS, Route::Answer(ha_status)),
    (request::TRIGGER_DELETE_FILES, Route::Answer(delete_expired)),
    (request::DELETE_EXPIRED_COMMITLOG, Route::Answer(delete_expired)),
    (request::CLEAN_EXPIRED_CONSUMEQUEUE, Route::Answer(clean_queues)),
    (request::CLEAN_UNUSED_TOPIC, Route::Answer(clean_topics)),
    (request::SET_COMMITLOG_READ_MODE, Route::Answer(read_mode)),
];

/// The queue that a request names; `None` when it never had a message, whether or not there is such a topic.
pub(super) fn queue_of(broker: &Broker, cmd: &Command) -> Result<Option<Queue>, Refusal> {
    let topic = cmd.fields.text("topic")?;
    let id: i32 = cmd.fields.parse("queueId")?;
    Ok(if broker.topics.contains(topic) { broker.store.find_queue(topic, id) } else { None })
}

fn max_offset(broker: &Arc<Broker>, _: &Arc<Connection>, cmd: &Command) -> Result<Command, Refusal> {
    let end = queue_of(broker, cmd)?.map_or(0, |queue| broker.store.max_offset(queue).get());
    Ok(cmd.reply(response::SUCCESS).with_field("offset", end))
}

fn min_offset(broker: &Arc<Broker>, _: &Arc<Connection>, cmd: &Command) -> Result<Command, Refusal> {
    let range = |queue| (broker.store.min_offset(queue).get(), broker.store.max_offset(queue).get());
    let first = match queue_of(broker, cmd)?.map_or((0, 0), range) {
        // RocketMQ's word for a queue of batches that has none.
        (0, 0) if broker.topics.get(cmd.fields.text("topic")?).is_some_and(|topic| topic.takes_batches()) => {
            -1
        }
        (first, _) => first,
    };
    Ok(cmd.reply(response::SUCCESS).with_field("offset", first))
}

fn search_offset(broker: &Arc<Broker>, _: &Arc<Connection>, cmd: &Command) -> Result<Command, Refusal> {
    let queue = queue_of(broker, cmd)?;
    let time = StoreTimestamp(cmd.fields.parse("timestamp")?);
    let boundary = match cmd.fields.get("boundaryType") {
        Some(kind) if kind.eq_ignore_ascii_case("upper") => Boundary::Upper,
        _ => Boundary::Lower,
    };
    let offset = match queue {
        Some(queue) => broker.store.offset_by_time(queue, time, boundary)?.get(),
        None => 0,
    };
    Ok(cmd.reply(response::SUCCESS).with_field("offset", offset))
}

fn earliest_time(broker: &Arc<Broker>, _: &Arc<Connection>, cmd: &Command) -> Result<Command, Refusal> {
    let time = match queue_of(broker, cmd)? {
        Some(queue) => broker.store.earliest_time(queue)?,
        None => None,
    };
    Ok(cmd.reply(response::SUCCESS).with_field("timestamp", time.map_or(-1, StoreTimestamp::get)))
}

fn delay_offsets(broker: &Arc<Broker>, _: &Arc<Connection>, cmd: &Command) -> Result<Command, Refusal> {
    Ok(cmd.reply(response::SUCCESS).with_body(broker.schedule.to_json().compact()))
}

fn system_topics(broker: &Arc<Broker>, _: &Arc<Connection>, cmd: &Command) -> Result<Command, Refusal> {
    let (topics, _) = broker.topics.all();
    let mut list: Vec<String> =
        topics.iter().map(|topic| topic.name.clone()).filter(|name| broker.is_system_topic(name)).collect();
    list.extend(names::SYSTEM_TOPICS.iter().map(|name| (*name).to_owned()));
    list.sort_unstable();
    list.dedup();
    Ok(cmd.reply(response::SUCCESS).with_body(Json::map([("topicList", Json::from(list))]).compact()))
}

/// This broker is a master without replicas.
fn ha_status(broker: &Arc<Broker>, _: &Arc<Connection>, cmd: &Command) -> Result<Command, Refusal> {
    let none = [
        "lastReadTimestamp",
        "lastWriteTimestamp",
        "masterFlushOffset",
        "maxOffset",
        "transferredByteInSecond",
    ];
    let body = Json::map([
        ("haClientRuntimeInfo", Json::map(none.map(|name| (name, Json::Int(0))))),
        ("haConnectionInfo", Json::List(Vec::new())),
        ("inSyncSlaveNums", Json::Int(0)),
        ("master", true.into()),
        ("masterCommitLogMaxOffset", broker.store.status().max_offset.get().into()),
    ]);
    Ok(cmd.reply(response::SUCCESS).with_body(body.compact()))
}

fn delete_expired(broker: &Arc<Broker>, _: &Arc<Connection>, cmd: &Command) -> Result<Command, Refusal> {
    broker.store.delete_expired();
    Ok(cmd.reply(response::SUCCESS))
}

/// Queues follow the log by themselves when retention runs; asking again is no error.
fn clean_queues(_: &Arc<Broker>, _: &Arc<Connection>, cmd: &Command) -> Result<Command, Refusal> {
    Ok(cmd.reply(response::SUCCESS))
}

/// Deletes the queues of topics that the broker no longer has.
fn clean_topics(broker: &Arc<Broker>, _: &Arc<Connection>, cmd: &Command) -> Result<Command, Refusal> {
    let mut gone: Vec<_> = broker.store.queues().into_iter().map(|(topic, _)| topic).collect();
    gone.sort_unstable();
    gone.dedup();
    gone.retain(|topic| {
        !broker.topics.contains(topic) && !broker.is_system_topic(topic) && !light::is_light(topic)
    });
    for topic in gone {
        tracing::info!(topic = topic.as_str(), "queues of an unknown topic deleted by request");
        broker.store.delete_topic(&topic)?;
    }
    Ok(cmd.reply(response::SUCCESS))
}

/// The mode is an madvise constant: 0 reads ahead, 1 does not.
fn read_mode(broker: &Arc<Broker>, _: &Arc<Connection>, cmd: &Command) -> Result<Command, Refusal> {
    let mode: i32 = cmd
        .fields
        .parse("READ_AHEAD_MODE")
        .map_err(|_| Refusal::new(response::SYSTEM_ERROR, "set commitlog readahead mode failed"))?;
    let ahead = match mode {
        0 => true,
        1 => false,
        _ => {
            let why = "set commitlog readahead mode param value error";
            return Err(Refusal::new(response::INVALID_PARAMETER, why));
        }
    };
    broker.store.set_read_ahead(ahead);
    let remark = format!("set commitlog readahead mode success, mode: {mode}");
    Ok(cmd.reply(response::SUCCESS).with_remark(remark))
}
