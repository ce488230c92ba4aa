//! Offsets of queues, and what operators ask of the broker itself.
//!
//! Owns nothing but the answers. A change of configuration is limited to [`CHANGEABLE`] and holds until the next start.

use std::{fmt::Write as _, sync::Arc};

use parking_lot::Mutex;

use super::{
    Broker, Refusal, Route, config_file::DataVersion, json::Json, light, live::CHANGEABLE, names,
    send_queue::Kind,
};
use crate::{
    config::parse_properties,
    consume_queue::{Boundary, CqUnit},
    message::Queue,
    remoting::{
        Command, Connection,
        codes::{request, response},
    },
    types::{QueueOffset, StoreTimestamp},
};

/// Queue entries that one QUERY_CONSUME_QUEUE shows at most.
const MAX_ENTRIES: usize = 1_000;

/// The codes that this file answers.
pub(super) const ROUTES: &[(i32, Route)] = &[
    (request::GET_MAX_OFFSET, Route::Answer(max_offset)),
    (request::GET_MIN_OFFSET, Route::Answer(min_offset)),
    (request::SEARCH_OFFSET_BY_TIMESTAMP, Route::Aside(search_offset)),
    (request::GET_EARLIEST_MSG_STORETIME, Route::Aside(earliest_time)),
    (request::QUERY_CONSUME_QUEUE, Route::Aside(queue_entries)),
    (request::GET_ALL_DELAY_OFFSET, Route::Answer(delay_offsets)),
    (request::GET_SYSTEM_TOPIC_LIST_FROM_BROKER, Route::Answer(system_topics)),
    (request::GET_BROKER_CONFIG, Route::Answer(get_config)),
    (request::UPDATE_BROKER_CONFIG, Route::Answer(update_config)),
    (request::GET_BROKER_RUNTIME_INFO, Route::Aside(runtime_info)),
    (request::GET_BROKER_HA_STATUS, Route::Answer(ha_status)),
    (request::TRIGGER_DELETE_FILES, Route::Answer(delete_expired)),
    (request::DELETE_EXPIRED_COMMITLOG, Route::Answer(delete_expired)),
    (request::CLEAN_EXPIRED_CONSUMEQUEUE, Route::Answer(clean_queues)),
    (request::CLEAN_UNUSED_TOPIC, Route::Answer(clean_topics)),
    (request::SET_COMMITLOG_READ_MODE, Route::Answer(read_mode)),
];

/// The queue that a request names; `None` when it never had a message, whether or not there is such a topic.
fn queue_of(broker: &Broker, cmd: &Command) -> Result<Option<Queue>, Refusal> {
    let topic = cmd.fields.text("topic")?;
    let id: i32 = cmd.fields.parse("queueId")?;
    Ok(if broker.topics.contains(topic) { broker.store.find_queue(topic, id) } else { None })
}

fn max_offset(broker: &Arc<Broker>, _: &Arc<Connection>, cmd: &Command) -> Result<Command, Refusal> {
    let end = queue_of(broker, cmd)?.map_or(0, |queue| broker.store.max_offset(queue).get());
    Ok(cmd.reply(response::SUCCESS).with_field("offset", end))
}

fn min_offset(broker: &Arc<Broker>, _: &Arc<Connection>, cmd: &Command) -> Result<Command, Refusal> {
    let first = queue_of(broker, cmd)?.map_or(0, |queue| broker.store.min_offset(queue).get());
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

fn queue_entries(broker: &Arc<Broker>, _: &Arc<Connection>, cmd: &Command) -> Result<Command, Refusal> {
    let queue = queue_of(broker, cmd)?;
    let index: i64 = cmd.fields.parse("index")?;
    let count: usize = cmd.fields.parse("count")?;
    let (first, end) = queue
        .map_or((0, 0), |queue| (broker.store.min_offset(queue).get(), broker.store.max_offset(queue).get()));
    let from = if index < 0 { end - i64::try_from(count).unwrap_or(i64::MAX) } else { index };
    let entries = match queue {
        Some(queue) => broker.store.entries(queue, QueueOffset(from.max(first)), count.min(MAX_ENTRIES))?,
        None => Vec::new(),
    };
    let entry = |unit: &CqUnit| {
        Json::map([
            ("eval", Json::from(false)),
            ("physicOffset", unit.offset.get().into()),
            ("physicSize", unit.size.into()),
            ("tagsCode", unit.tags_code.get().into()),
        ])
    };
    if entries.is_empty() {
        let (topic, id) = (names::shorten(cmd.fields.text("topic")?), cmd.fields.text("queueId")?);
        let remark = format!("Index {index} of {id}@{topic} is not exist!");
        return Ok(cmd.reply(response::SUCCESS).with_remark(remark).with_body(entries_body(
            end,
            first,
            Vec::new(),
        )));
    }
    Ok(cmd.reply(response::SUCCESS).with_body(entries_body(end, first, entries.iter().map(entry).collect())))
}

fn entries_body(end: i64, first: i64, entries: Vec<Json>) -> String {
    Json::map([
        ("maxQueueIndex", Json::from(end)),
        ("minQueueIndex", first.into()),
        ("queueData", Json::List(entries)),
    ])
    .compact()
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

/// How often the configuration was changed while the broker ran.
#[derive(Debug)]
pub(crate) struct ConfigVersion(Mutex<DataVersion>);

impl ConfigVersion {
    pub(crate) fn new(now: StoreTimestamp) -> Self {
        Self(Mutex::new(DataVersion::new(now.get())))
    }
}

fn get_config(broker: &Arc<Broker>, _: &Arc<Connection>, cmd: &Command) -> Result<Command, Refusal> {
    let version = broker.config_version.0.lock().to_json().compact();
    let text = broker.live.merged(&broker.config).properties();
    Ok(cmd.reply(response::SUCCESS).with_field("version", version).with_body(text))
}

fn update_config(broker: &Arc<Broker>, _: &Arc<Connection>, cmd: &Command) -> Result<Command, Refusal> {
    let bytes = cmd.body.to_bytes();
    let text = std::str::from_utf8(&bytes)
        .map_err(|_| Refusal::new(response::SYSTEM_ERROR, "the body is no text"))?;
    let mut version = broker.config_version.0.lock();
    let mut config = broker.live.merged(&broker.config);
    for (key, value) in parse_properties(text) {
        if !CHANGEABLE.contains(&key.as_str()) {
            let why = format!(
                "{} cannot change while the broker runs; these can: {}",
                names::shorten(&key),
                CHANGEABLE.join(", ")
            );
            return Err(Refusal::new(response::NO_PERMISSION, why));
        }
        config
            .set(&key, value.trim())
            .map_err(|error| Refusal::new(response::INVALID_PARAMETER, error.to_string()))?;
    }
    let permission = broker.live.permission.load(std::sync::atomic::Ordering::Relaxed);
    broker.live.apply(&config);
    version.step(broker.clock.now().get());
    tracing::info!(changed = text.trim(), "configuration changed by request, until the next start");
    if permission != config.permission {
        drop(broker.register.all());
    }
    Ok(cmd.reply(response::SUCCESS))
}

/// What mqadmin shows of the timers; nothing when there are none.
fn timer_table(broker: &Broker) -> impl Iterator<Item = (&'static str, String)> {
    let names = ["timerReadBehind", "timerOffsetBehind", "timerCongestNum"];
    let figures = broker.timer.figures(broker).map(|figures| figures.map(|figure| figure.to_string()));
    figures.into_iter().flat_map(move |figures| names.into_iter().zip(figures))
}

/// How many requests wait and how long the first has. Pulls and queries are served as they are read.
fn queue_table(broker: &Broker) -> impl Iterator<Item = (&'static str, String)> {
    let now = broker.clock.monotonic();
    let of = |kind| broker.sends.figures(kind, now);
    [
        ("sendThreadPoolQueueSize", "sendThreadPoolQueueHeadWaitTimeMills", of(Kind::Send)),
        ("EndTransactionQueueSize", "EndTransactionThreadPoolQueueHeadWaitTimeMills", of(Kind::Transaction)),
        ("ackThreadPoolQueueSize", "ackThreadPoolQueueHeadWaitTimeMills", of(Kind::Ack)),
        ("pullThreadPoolQueueSize", "pullThreadPoolQueueHeadWaitTimeMills", (0, 0)),
        ("queryThreadPoolQueueSize", "queryThreadPoolQueueHeadWaitTimeMills", (0, 0)),
    ]
    .into_iter()
    .flat_map(|(size, wait, figures)| [(size, figures.0.to_string()), (wait, figures.1.to_string())])
    .chain([("pageCacheLockTimeMills", broker.sends.stands_still(now).as_millis().to_string())])
}

fn runtime_info(broker: &Arc<Broker>, _: &Arc<Connection>, cmd: &Command) -> Result<Command, Refusal> {
    let table = runtime_table(broker)?;
    let table = table
        .into_iter()
        .chain(timer_table(broker))
        .chain(queue_table(broker))
        .map(|(key, value)| (key, Json::from(value)));
    Ok(cmd.reply(response::SUCCESS).with_body(Json::map([("table", Json::map(table))]).compact()))
}

fn runtime_table(broker: &Broker) -> Result<Vec<(&'static str, String)>, Refusal> {
    let status = broker.store.status();
    let (put, got) = broker.rates.broker();
    let (put_days, get_days) = broker.rates.days();
    let (consumers, producers) = broker.clients.counts();
    let plan_ratio = f64::from(status.disk_used_percent) / 100.0;
    let earliest = broker.store.message_at(status.min_offset)?;
    let earliest = earliest.map_or(-1, |message| message.record().store_timestamp.get());
    let three = |tps: [f64; 3]| {
        let mut text = String::new();
        for value in tps {
            // Writing into a String cannot fail.
            let _ = write!(text, "{}{value:?}", if text.is_empty() { "" } else { " " });
        }
        text
    };
    let behind = status.max_offset.get() - status.dispatched_offset.get();
    let uptime = (broker.clock.now().get() - broker.boot_time.get()).max(0) / 1_000;
    let (days, hours, minutes, seconds) =
        (uptime / 86_400, uptime / 3_600 % 24, uptime / 60 % 60, uptime % 60);
    Ok(vec![
        ("brokerActive", true.to_string()),
        ("brokerVersion", crate::remoting::VERSION.to_string()),
        ("brokerVersionDesc", format!("reput {}", env!("CARGO_PKG_VERSION"))),
        ("bootTimestamp", broker.boot_time.to_string()),
        ("runtime", format!("[ {days} days, {hours} hours, {minutes} minutes, {seconds} seconds ]")),
        ("putTps", three(put)),
        ("getTransferredTps", three(got)),
        ("getTotalTps", three(got)),
        ("getFoundTps", three(got)),
        ("msgPutTotalTodayNow", status.stats.puts.to_string()),
        ("msgPutTotalTodayMorning", put_days.today_morning.to_string()),
        ("msgPutTotalYesterdayMorning", put_days.yesterday_morning.to_string()),
        ("msgGetTotalTodayNow", status.stats.got_messages.to_string()),
        ("msgGetTotalTodayMorning", get_days.today_morning.to_string()),
        ("msgGetTotalYesterdayMorning", get_days.yesterday_morning.to_string()),
        ("putMessageSizeTotal", status.stats.put_bytes.to_string()),
        ("putMessageFailedTimes", status.stats.put_failures.to_string()),
        ("dispatchBehindBytes", behind.max(0).to_string()),
        ("commitLogMinOffset", status.min_offset.to_string()),
        ("commitLogMaxOffset", status.max_offset.to_string()),
        ("commitLogDiskRatio", format!("{plan_ratio:?}")),
        ("consumeQueueDiskRatio", format!("{plan_ratio:?}")),
        ("earliestMessageTimeStamp", earliest.to_string()),
        ("consumerConnections", consumers.to_string()),
        ("producerConnections", producers.to_string()),
        ("pullsHeld", broker.hold.len().to_string()),
    ])
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
