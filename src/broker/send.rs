//! SEND_MESSAGE 10, SEND_MESSAGE_V2 310 and SEND_BATCH_MESSAGE 320: from the wire into the store.
//!
//! Every send of one read comes here together ([`serve`]). Each is checked and made into a [`Prepared`]; neighbours go
//! into the store by one `put_batch`, a client's batch by one of its own, all in the order in which they came. Answers
//! leave when the messages are as durable as was asked: from the thread that finds them so, never by blocking this one.

use std::{
    net::SocketAddr,
    process,
    sync::{
        Arc,
        atomic::{AtomicU16, AtomicU32, Ordering::Relaxed},
    },
};

use bytes::Bytes;

use super::{
    Broker, Refusal, Route, answers, batch_body,
    inner_batch::InnerBatch,
    light, names,
    property_text::{Marks, POP_CHECK, PRIORITY, TIMERS, rewritten},
    register::Told,
    send_header::SendHeader,
    send_queue::{Kind, Turn},
    topics::{TopicConfig, perm},
    transaction::Parked,
    wait::Wait,
};
use crate::{
    error::Error,
    format::properties,
    message::{Message, PutStatus, Queue},
    remoting::{
        Command, Connection,
        codes::{request, response},
    },
    store::Appended,
    types::{StoreTimestamp, SysFlag},
};

/// Topics that no client may send to: the broker writes them itself.
const NOT_FOR_CLIENTS: [&str; 9] = [
    names::SCHEDULE_TOPIC,
    names::HALF_TOPIC,
    names::OP_HALF_TOPIC,
    names::CHECK_MAX_TIME_TOPIC,
    names::TIMER_TOPIC,
    "SELF_TEST_TOPIC",
    "OFFSET_MOVED_EVENT",
    "RMQ_SYS_ROCKSDB_TRANS_HALF_TOPIC",
    "RMQ_SYS_ROCKSDB_TRANS_OP_HALF_TOPIC",
];
/// Properties that only brokers and the store set.
pub(super) const RESERVED: [&str; 3] = [POP_CHECK, properties::CRC32, properties::INNER_MULTI_QUEUE_OFFSET];
/// Queues of a dead-letter topic.
const DLQ_QUEUES: i32 = 1;

/// One message on its way into the store, owning what [`Message`] borrows.
struct Part {
    body: Bytes,
    properties: Vec<u8>,
    flag: i32,
}

/// A send that passed every check: one message, or a client's batch.
struct Prepared {
    queue: Queue,
    parts: Vec<Part>,
    sys_flag: SysFlag,
    born_timestamp: StoreTimestamp,
    born_host: SocketAddr,
    reconsume_times: i32,
    wait: bool,
    batch: bool,
    /// The queue that the producer is told, which for a delayed message is not the one written to.
    queue_id: i32,
    unique_key: Option<String>,
    /// By which the producer of a timed message can take it back.
    recall_handle: Option<String>,
    /// The topic of a half message.
    half_of: Option<String>,
    /// `None` for a one-way send.
    answer: Option<Command>,
    /// Of the topic that was made for it.
    told: Told,
}

/// The codes that this file answers.
pub(super) const ROUTES: &[(i32, Route)] = &[
    (request::SEND_MESSAGE, Route::Batch(serve)),
    (request::SEND_MESSAGE_V2, Route::Batch(serve)),
    (request::SEND_BATCH_MESSAGE, Route::Batch(serve)),
];

impl Broker {
    /// A queue of a topic that has `queues`: another one each time, evenly also for one topic among several.
    pub(super) fn any_queue(&self, queues: i32) -> i32 {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // Multiples of the golden ratio spread evenly, whichever of them a topic gets.
        let point = u64::from(NEXT.fetch_add(0x9E37_79B9, Relaxed));
        let queues = u64::try_from(queues).unwrap_or(0);
        i32::try_from((point * queues) >> 32).unwrap_or(0)
    }

    /// An id for a message whose producer gave it none: as RocketMQ's clients make theirs, 16 bytes of host, process,
    /// start, time and number as hex digits.
    fn unique_key(&self) -> String {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let host = match self.store_host.ip() {
            std::net::IpAddr::V4(host) => host.octets(),
            std::net::IpAddr::V6(host) => {
                let [.., a, b, c, d] = host.octets();
                [a, b, c, d]
            }
        };
        let [.., p2, p1] = process::id().to_be_bytes();
        let [.., b4, b3, b2, b1] = self.boot_time.get().to_be_bytes();
        let [.., t4, t3, t2, t1] = (self.clock.now().get() - self.boot_time.get()).to_be_bytes();
        let number = NEXT.fetch_add(1, Relaxed).to_be_bytes();
        let rest = [p2, p1, b4, b3, b2, b1, t4, t3, t2, t1];
        host.iter().chain(&rest).chain(&number).map(|byte| format!("{byte:02X}")).collect()
    }
}

/// Takes the sends of one read, in their order.
fn serve(broker: &Arc<Broker>, conn: &Arc<Connection>, requests: Vec<Command>) {
    let mut sends = Vec::with_capacity(requests.len());
    for request in requests {
        match prepare(broker, conn, &request) {
            Ok(prepared) => sends.push(prepared),
            Err(refusal) => refuse(conn, blank_answer(broker, &request), refusal),
        }
    }
    if sends.is_empty() {
        return;
    }
    let bytes = sends.iter().flat_map(|send| &send.parts).map(|part| part.body.len()).sum();
    let conn = Arc::clone(conn);
    broker.sends.pass(broker, Kind::Send, (sends.len(), bytes), move |turn| match turn {
        Turn::Work(broker) => put_all(broker, &conn, sends),
        Turn::Refused(Refusal { code, remark }) => {
            for send in sends {
                refuse(&conn, send.answer, Refusal::new(code, remark.as_str()));
            }
        }
    });
}

/// Stores sends in their order, neighbours that are single messages together.
fn put_all(broker: &Arc<Broker>, conn: &Arc<Connection>, sends: Vec<Prepared>) {
    let mut singles = Vec::new();
    for send in sends {
        if send.batch {
            // Flushed first, so that the order of the queue is the order on the connection.
            put_singles(broker, conn, std::mem::take(&mut singles));
            put_client_batch(broker, conn, send);
        } else {
            singles.push(send);
        }
    }
    put_singles(broker, conn, singles);
}

/// What every answer to a send has; `None` for a one-way send.
pub(super) fn blank_answer(broker: &Broker, request: &Command) -> Option<Command> {
    (!request.is_oneway()).then(|| {
        request
            .reply(response::SYSTEM_ERROR)
            .with_field(properties::MSG_REGION, &broker.config.region_id)
            .with_field(properties::TRACE_ON, broker.live.trace_on.load(Relaxed))
    })
}

pub(super) fn refuse(conn: &Connection, answer: Option<Command>, refusal: Refusal) {
    match answer {
        Some(mut answer) => {
            answer.code = refusal.code;
            answer.remark = Some(refusal.remark);
            conn.send(answer);
        }
        None => tracing::debug!(refused = refusal.code, remark = refusal.remark, "one-way send"),
    }
}

fn prepare(broker: &Arc<Broker>, conn: &Connection, request: &Command) -> Result<Prepared, Refusal> {
    let header = SendHeader::read(request)?;
    let (topic, told) = check(broker, &header, conn.peer())?;
    let marks = Marks::of(header.properties);
    let queue_id = match header.queue_id {
        _ if marks.is_prioritized() && !header.batch => marks.priority.min(topic.write_queues - 1).max(0),
        asked if asked < 0 => broker.any_queue(topic.write_queues),
        asked => asked,
    };
    let sys_flag = SysFlag(header.sys_flag)
        .with(SysFlag::MULTI_TAGS, topic.filter_type == "MULTI_TAG")
        .with(SysFlag::BORN_HOST_V6 | SysFlag::STORE_HOST_V6, false);
    let mut prepared = Prepared {
        queue: broker.queue_of(&topic, queue_id)?,
        parts: Vec::new(),
        sys_flag,
        born_timestamp: StoreTimestamp(header.born_timestamp),
        born_host: conn.peer(),
        reconsume_times: header.reconsume_times,
        wait: !marks.no_wait,
        batch: header.batch,
        queue_id,
        unique_key: marks.unique_key.map(str::to_owned),
        recall_handle: None,
        half_of: None,
        answer: blank_answer(broker, request),
        told,
    };
    let body = request.body.to_bytes();
    if body.is_empty() {
        return Err(illegal("a message needs a body"));
    }
    let limit = broker.live.max_message_size.load(Relaxed);
    if body.len() > limit {
        return Err(too_large(limit));
    }
    if header.batch {
        prepared.parts = batch_parts(broker, &header, &marks, &body)?;
        if topic.takes_batches() {
            prepared.make_inner_batch(broker, &header, body)?;
        }
    } else {
        single_part(broker, &header, &marks, body, &topic, &mut prepared)?;
    }
    Ok(prepared)
}

/// The checks that a send must pass before its topic is made, the topic, and who is told of it.
pub(super) fn check(
    broker: &Arc<Broker>,
    header: &SendHeader<'_>,
    peer: SocketAddr,
) -> Result<(Arc<TopicConfig>, Told), Refusal> {
    // A broker that is to run empty still takes what producers send to it until they see the new routes. Only an order
    // would be torn by that.
    let closed = !perm::is_writeable(broker.live.permission.load(Relaxed));
    if closed && broker.topics.get(header.topic).is_some_and(|topic| topic.order) {
        let remark = format!("the broker[{}] sending message is forbidden", broker.store_host.ip());
        return Err(Refusal::new(response::NO_PERMISSION, remark));
    }
    names::check_topic(header.topic)?;
    if NOT_FOR_CLIENTS.contains(&header.topic) {
        let remark = format!("Sending message to topic[{}] is forbidden.", header.topic);
        return Err(Refusal::new(response::NO_PERMISSION, remark));
    }
    let unit = match (header.unit_mode, header.topic.starts_with(names::RETRY_PREFIX)) {
        (false, _) => 0,
        (true, false) => super::topics::SYS_FLAG_UNIT,
        (true, true) => super::topics::SYS_FLAG_UNIT_SUB,
    };
    let (topic, told) = broker
        .topic_for_send(header.topic, header.default_topic, header.default_queues, unit)
        .ok_or_else(|| Refusal::no_topic_to_send_to(header.topic))?;
    let queues = topic.write_queues.max(topic.read_queues);
    if header.queue_id >= queues || queues <= 0 {
        let remark = format!("request queueId[{}] is illegal, {topic} Producer: {peer}", header.queue_id);
        return Err(Refusal::new(response::INVALID_PARAMETER, remark));
    }
    Ok((topic, told))
}

fn illegal(remark: impl Into<String>) -> Refusal {
    Refusal::new(response::MESSAGE_ILLEGAL, remark)
}

/// Makes the one message of an ordinary send, and chooses the queue that it waits in when it is delayed.
fn single_part(
    broker: &Arc<Broker>,
    header: &SendHeader<'_>,
    marks: &Marks<'_>,
    body: Bytes,
    topic: &TopicConfig,
    prepared: &mut Prepared,
) -> Result<(), Refusal> {
    let mut target = (topic.name.clone(), prepared.queue_id);
    let mut level = marks.delay_level;
    let mut drop = RESERVED.to_vec();
    if header.topic.starts_with(names::RETRY_PREFIX)
        && let Some(dead) = dead_letter_topic(broker, header)?
    {
        target = (dead, broker.any_queue(DLQ_QUEUES));
        prepared.queue = broker.queue(&target.0, target.1)?;
        level = 0;
        // A dead letter goes to no light queue again.
        drop.push(properties::INNER_MULTI_DISPATCH);
    }
    // Consumers of old releases send what they retry with the mark that it had as a half message.
    let retried = header.topic.starts_with(names::RETRY_PREFIX) || header.reconsume_times > 0 && level > 0;
    let half = marks.transaction && !retried;
    if half && broker.live.reject_transactions.load(Relaxed) {
        let host = broker.store_host.ip();
        let remark = format!("the broker[{host}] sending transaction message is forbidden");
        return Err(Refusal::new(response::NO_PERMISSION, remark));
    }
    light::check(broker, header.properties.as_bytes(), &NOT_FOR_CLIENTS)?;
    if marks.inner_batch {
        return Err(illegal("a single message cannot say that it is a batch"));
    }
    let made;
    let unique_key = match marks.unique_key {
        Some(key) => key,
        None => {
            made = broker.unique_key();
            &made
        }
    };
    let trace_on = if broker.live.trace_on.load(Relaxed) { "true" } else { "false" };
    if marks.priority >= 0 && !marks.is_prioritized() {
        drop.push(PRIORITY);
    }
    let mut add = vec![
        (properties::MSG_REGION, broker.config.region_id.as_str()),
        (properties::TRACE_ON, trace_on),
        (properties::CLUSTER, broker.config.cluster.as_str()),
    ];
    if marks.unique_key.is_none() {
        add.push((properties::UNIQ_KEY, unique_key));
    }
    // A half message that asks for a delay gets it when it is committed.
    let parked = half.then(|| Parked::new(&target.0, target.1, unique_key));
    if let Some(parked) = &parked {
        prepared.sys_flag = prepared.sys_flag.with(SysFlag::TRANSACTION_ROLLBACK, false);
        prepared.queue = Parked::queue(broker)?;
        prepared.half_of = Some(target.0.clone());
        add.extend(parked.properties());
    }
    let wait =
        if half { Wait::None } else { Wait::of(broker, level, &marks.timer, prepared.sys_flag, &target)? };
    match &wait {
        Wait::Level(_) => drop.extend(TIMERS),
        Wait::Time(timed) => prepared.recall_handle = timed.recall_handle(broker, unique_key),
        // A dead letter is not delayed any more.
        Wait::None if marks.delay_level > 0 && level == 0 => drop.push(properties::DELAY),
        Wait::None => {}
    }
    if let Some((queue, properties)) = wait.parked(broker)? {
        add.extend(properties);
        prepared.queue = queue;
    }
    prepared.unique_key = Some(unique_key.to_owned());
    let text = rewritten(header.properties.as_bytes(), &drop, &add);
    prepared.parts.push(Part { body, properties: text, flag: header.flag });
    Ok(())
}

/// The dead-letter topic, when a message that a consumer sends to its retry topic has been tried often enough, or when
/// the group consumes in order and so cannot wait for a retry.
fn dead_letter_topic(broker: &Arc<Broker>, header: &SendHeader<'_>) -> Result<Option<String>, Refusal> {
    let name = header.topic.trim_start_matches(names::RETRY_PREFIX);
    let group = broker.group(name).ok_or_else(|| Refusal::no_group_to_retry_for(name))?;
    let limit = header.max_reconsume_times.unwrap_or(group.retry_max_times);
    if header.reconsume_times <= limit && !broker.locks.is_held(broker.clock.monotonic(), name) {
        return Ok(None);
    }
    let dead = names::dlq_topic(name);
    broker.ensure_topic(&dead, DLQ_QUEUES, perm::READ | perm::WRITE, 0);
    Ok(Some(dead))
}

/// The messages of a client's batch, each with the properties that the client gave it.
fn batch_parts(
    broker: &Broker,
    header: &SendHeader<'_>,
    marks: &Marks<'_>,
    body: &Bytes,
) -> Result<Vec<Part>, Refusal> {
    if header.topic.starts_with(names::RETRY_PREFIX) {
        return Err(illegal(format!("batch request does not support retry group {}", header.topic)));
    }
    if marks.delay_level > 0 || marks.transaction || marks.timer.is_there() {
        return Err(illegal("a batch cannot be delayed nor be part of a transaction"));
    }
    let parts = batch_body::split(body).ok_or_else(|| illegal("the body is no batch of messages"))?;
    for part in &parts {
        light::check(broker, part.properties, &NOT_FOR_CLIENTS)?;
    }
    Ok(parts
        .into_iter()
        .map(|part| Part {
            body: body.slice_ref(part.body),
            properties: rewritten(part.properties, &RESERVED, &[]),
            flag: part.flag,
        })
        .collect())
}

fn too_large(limit: usize) -> Refusal {
    illegal(format!(
        "the message is illegal, maybe msg body or properties length not matched. msg body length limit {limit}B, msg \
         properties length limit 32KB."
    ))
}

impl Prepared {
    fn messages<'a>(&'a self, broker: &'a Broker) -> impl Iterator<Item = Message<'a>> {
        self.parts.iter().map(|part| {
            Message::new(self.queue, &part.body)
                .properties_raw(part.properties.as_slice())
                .flag(part.flag)
                .sys_flag(self.sys_flag)
                .born_timestamp(self.born_timestamp)
                .born_host(self.born_host)
                .store_host(broker.store_host)
                .reconsume_times(self.reconsume_times)
                .wait_store(self.wait)
        })
    }

    /// A client's batch as one record.
    fn make_inner_batch(
        &mut self,
        broker: &Broker,
        header: &SendHeader<'_>,
        body: Bytes,
    ) -> Result<(), Refusal> {
        let key = self.unique_key.take().unwrap_or_else(|| broker.unique_key());
        let add =
            [(properties::CLUSTER, broker.config.cluster.as_str()), (properties::UNIQ_KEY, key.as_str())];
        let text = rewritten(header.properties.as_bytes(), &RESERVED, &add);
        let made = InnerBatch::of_batch(body, self.parts.len(), &text, self.sys_flag)?;
        if let Some(answer) = &mut self.answer {
            answer.fields.set("batchUniqId", &key);
        }
        self.unique_key = Some(key);
        self.batch = false;
        self.sys_flag = made.sys_flag;
        self.parts = vec![Part { body: made.body, properties: made.properties, flag: header.flag }];
        Ok(())
    }

    /// The answer to a send that was stored.
    fn stored(&mut self, ids: String, first: &Appended) -> Option<Command> {
        let mut answer = self.answer.take()?;
        answer.code = response::SUCCESS;
        answer.fields.set("msgId", ids);
        answer.fields.set("queueId", self.queue_id);
        answer.fields.set("queueOffset", first.queue_offset());
        if let Some(key) = &self.unique_key {
            answer.fields.set("transactionId", key);
        }
        if let Some(handle) = &self.recall_handle {
            answer.fields.set("recallHandle", handle);
        }
        Some(answer)
    }
}

/// Stores single messages by one call, and each for itself when that fails: one bad message must not refuse others.
fn put_singles(broker: &Arc<Broker>, conn: &Arc<Connection>, mut singles: Vec<Prepared>) {
    if singles.len() > 1 {
        let messages: Vec<_> = singles.iter().flat_map(|single| single.messages(broker)).collect();
        let stored = broker.store.put_batch(&messages);
        drop(messages);
        if let Ok(stored) = stored {
            return answer_all(broker, conn, &mut singles, stored.into_iter().collect());
        }
    }
    for mut single in singles {
        let stored = single.messages(broker).next().map(|message| broker.store.put(&message));
        match stored {
            Some(Ok(appended)) => answer_all(broker, conn, std::slice::from_mut(&mut single), vec![appended]),
            Some(Err(error)) => refuse(conn, single.answer, put_refusal(broker, &error)),
            None => {}
        }
    }
}

/// Stores a client's batch: all of it or nothing.
fn put_client_batch(broker: &Arc<Broker>, conn: &Arc<Connection>, mut batch: Prepared) {
    let stored = {
        let messages: Vec<_> = batch.messages(broker).collect();
        broker.store.put_batch(&messages)
    };
    let stored: Vec<Appended> = match stored {
        Ok(stored) => stored.into_iter().collect(),
        Err(error) => return refuse(conn, batch.answer, put_refusal(broker, &error)),
    };
    let mut ids = String::with_capacity(stored.len() * 33);
    for (at, appended) in stored.iter().enumerate() {
        ids.push_str(if at > 0 { "," } else { "" });
        ids.push_str(&appended.message_id());
    }
    let answer = stored.first().and_then(|first| batch.stored(ids, first));
    if let Some(last) = stored.into_iter().next_back() {
        answers::when_durable(broker, conn, last, answer.into_iter().collect(), batch.told);
    }
}

/// Answers single sends: those that do not wait for the disk now, the others together when the last is durable.
fn answer_all(broker: &Broker, conn: &Arc<Connection>, singles: &mut [Prepared], stored: Vec<Appended>) {
    let mut waiting = Vec::new();
    let mut waiting_told = Told::default();
    let mut last = None;
    for (single, appended) in singles.iter_mut().zip(stored) {
        if let Some(topic) = single.half_of.take() {
            broker.halves.add(&topic, 1, broker.clock.now());
        }
        let answer = single.stored(appended.message_id(), &appended);
        let told = std::mem::take(&mut single.told);
        if single.wait {
            waiting.extend(answer);
            waiting_told.join(told);
            last = Some(appended);
        } else {
            answers::when_durable(broker, conn, appended, answer.into_iter().collect(), told);
        }
    }
    if let Some(last) = last {
        answers::when_durable(broker, conn, last, waiting, waiting_told);
    }
}

/// Why a message was not stored: RocketMQ's remark, and what happened here.
pub(super) fn put_refusal(broker: &Broker, error: &Error) -> Refusal {
    let limit = broker.live.max_message_size.load(Relaxed);
    match error.put_status() {
        PutStatus::MessageIllegal | PutStatus::PropertiesSizeExceeded
            if matches!(error, Error::BodyTooLarge { .. } | Error::PropertiesTooLarge { .. }) =>
        {
            too_large(limit)
        }
        status @ PutStatus::ServiceNotAvailable => {
            let used = f64::from(broker.store.status().disk_used_percent) / 100.0;
            let why = format!(
                "service not available now. It may be caused by one of the following reasons: the broker's disk is full \
                 [CL: {used:5.2} CQ: {used:5.2} INDEX: {used:5.2}], messages are put to the slave, message store has been \
                 shut down, etc. Here: {error}"
            );
            Refusal::new(put_code(status).0, why)
        }
        status => {
            let (code, why) = put_code(status);
            Refusal::new(code, why.map_or_else(|| error.to_string(), |why| format!("{why} Here: {error}")))
        }
    }
}

/// The response code by which RocketMQ reports a status of the store.
pub(super) fn put_code(status: PutStatus) -> (i32, Option<String>) {
    let remark = |text: &str| Some(text.to_owned());
    match status {
        PutStatus::Ok => (response::SUCCESS, None),
        PutStatus::FlushDiskTimeout => (response::FLUSH_DISK_TIMEOUT, None),
        PutStatus::FlushSlaveTimeout => (response::FLUSH_SLAVE_TIMEOUT, None),
        PutStatus::SlaveNotAvailable => (response::SLAVE_NOT_AVAILABLE, None),
        PutStatus::ServiceNotAvailable => {
            (response::SERVICE_NOT_AVAILABLE, remark("service not available now."))
        }
        PutStatus::MessageIllegal | PutStatus::PropertiesSizeExceeded => {
            (response::MESSAGE_ILLEGAL, remark("the message is illegal."))
        }
        PutStatus::OsPageCacheBusy => {
            (response::SYSTEM_BUSY, remark("[PC_SYNCHRONIZED]broker busy, start flow control for a while"))
        }
        PutStatus::CreateMappedFileFailed => {
            (response::SYSTEM_ERROR, remark("create mapped file failed, server is busy or broken."))
        }
        PutStatus::LmqConsumeQueueNumExceeded => (
            response::LMQ_QUOTA_EXCEEDED,
            remark("[LMQ_CONSUME_QUEUE_NUM_EXCEEDED]lmq consume queue num exceeded."),
        ),
        PutStatus::UnknownError => (response::SYSTEM_ERROR, remark("UNKNOWN_ERROR")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_of_the_store_has_rocketmq_s_code() {
        for (status, code, explained) in [
            (PutStatus::Ok, 0, false),
            (PutStatus::FlushDiskTimeout, 10, false),
            (PutStatus::SlaveNotAvailable, 11, false),
            (PutStatus::FlushSlaveTimeout, 12, false),
            (PutStatus::MessageIllegal, 13, true),
            (PutStatus::PropertiesSizeExceeded, 13, true),
            (PutStatus::ServiceNotAvailable, 14, true),
            (PutStatus::OsPageCacheBusy, 2, true),
            (PutStatus::CreateMappedFileFailed, 1, true),
            (PutStatus::LmqConsumeQueueNumExceeded, 2017, true),
            (PutStatus::UnknownError, 1, true),
        ] {
            let (got, remark) = put_code(status);
            assert_eq!((got, remark.is_some()), (code, explained), "{status:?}");
        }
    }
}
