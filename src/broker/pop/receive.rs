//! POP_MESSAGE 200050: messages to a consumer that has no queues of its own.
//!
//! A pop reads the queues of its topic and the group's retries from where the group stands, remembers what it gives in
//! check points (or, popped in order, in `Orders`), moves the group on, and answers. One pop of a group and topic runs
//! at a time. The check points are put before the group moves on, and the answer goes out when they are as durable as
//! the store promises. What finds nothing waits in the hold. Since it puts, a pop takes turns with all that does
//! (`send_queue`), when it comes and when it was woken, or it waits on a thread that may wait for the disk.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use bytes::Bytes;

use super::{
    admission::{self, bounds},
    check_point::{CheckPoint, Key, MAX_MESSAGES, Record},
    extra_info::{ExtraInfo, List, ORDER_QUEUE, Offsets},
    hold::{Kind, Waiter},
    log,
    look::{self, MAX_POLL_MS, in_ms},
    order::{Place, Popped},
};
use crate::{
    TagFilter,
    broker::{
        Broker, Refusal, filters, names,
        property_text::{POP_CHECK, rewritten},
        selection::Selection,
        send_queue::{Kind as Queued, Turn},
        topics::TopicConfig,
    },
    format::{
        message::{Draft, Limits, Place as RecordPlace, Record as StoredRecord},
        properties,
    },
    message::{GetStatus, RawMessage},
    remoting::{Body, Command, Connection, codes::response},
    store::{Appended, GetRequest, GetResult},
    types::QueueOffset,
};

/// Milliseconds that a request may be late.
const LATE: i64 = 500;
/// `initMode`: a new group starts at the first message.
const FROM_FIRST: i32 = 0;

/// The header of a pop.
#[derive(Debug)]
pub(super) struct Header<'a> {
    pub(super) group: &'a str,
    pub(super) topic: &'a str,
    /// Below 0 for all.
    pub(super) queue: i32,
    max_messages: i32,
    invisible: i64,
    poll_ms: i64,
    born: i64,
    init_mode: i32,
    expression: &'a str,
    expression_type: &'a str,
    pub(super) order: bool,
    pub(super) attempt: Option<&'a str>,
}

impl<'a> Header<'a> {
    fn read(cmd: &'a Command, now: i64) -> Result<Self, Refusal> {
        let fields = &cmd.fields;
        Ok(Self {
            group: fields.text("consumerGroup")?,
            topic: fields.text("topic")?,
            queue: fields.parse("queueId")?,
            max_messages: fields.parse("maxMsgNums")?,
            invisible: fields.parse("invisibleTime")?,
            poll_ms: fields.parse("pollTime")?,
            born: born(cmd, now)?,
            init_mode: fields.parse("initMode")?,
            expression: fields.get("exp").unwrap_or(""),
            expression_type: fields.get("expType").unwrap_or(""),
            order: fields.parse_or("order", false)?,
            attempt: fields.get("attemptId").filter(|attempt| !attempt.is_empty()),
        })
    }
}

/// When the client sent the request; `now` when it does not say.
pub(super) fn born(cmd: &Command, now: i64) -> Result<i64, Refusal> {
    Ok(cmd.fields.optional("bornTime")?.filter(|born| *born != 0).unwrap_or(now))
}

/// What brings a pop here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Visit {
    /// It came from the client.
    First,
    /// It waited and something may have come.
    Woken,
    /// Its time is up.
    Last,
}

/// Serves a pop, on a thread that may wait for the disk when its messages are old.
pub(super) fn serve(broker: &Arc<Broker>, conn: &Arc<Connection>, cmd: Command) {
    if !is_cold(broker, &cmd) {
        return answer(broker, conn, cmd, Visit::First);
    }
    let (broker, conn) = (Arc::clone(broker), Arc::clone(conn));
    broker.runtime.clone().spawn_blocking(move || answer(&broker, &conn, cmd, Visit::First));
}

/// Whether what the pop would read first lies further back in the log than what is in memory all the time.
fn is_cold(broker: &Broker, cmd: &Command) -> bool {
    let (Some(topic), Some(group)) = (cmd.fields.get("topic"), cmd.fields.get("consumerGroup")) else {
        return false;
    };
    let queues = broker.topics.get(topic).map_or(0, |topic| topic.read_queues);
    let end = broker.store.status().max_offset;
    (0..queues).any(|id| {
        let Some(queue) = broker.store.find_queue(topic, id) else { return false };
        let at = broker.offsets.query(group, topic, id).unwrap_or(0);
        let first = broker.store.entries(queue, QueueOffset(at), 1).unwrap_or_default();
        first.first().is_some_and(|entry| end.since(entry.offset) > broker.hot_bytes)
    })
}

/// [`answer`] for a pop that waited, in turn with everything else that puts messages.
pub(super) fn answer_in_turn(broker: &Arc<Broker>, conn: Arc<Connection>, cmd: Command, visit: Visit) {
    let size = (1, cmd.body.len());
    broker.sends.pass(broker, Queued::Ack, size, move |turn| match turn {
        Turn::Work(broker) => answer(broker, &conn, cmd, visit),
        Turn::Refused(refusal) => Broker::reply(&conn, &cmd, Err(refusal)),
    });
}

/// Answers a pop, or holds it.
fn answer(broker: &Arc<Broker>, conn: &Arc<Connection>, cmd: Command, visit: Visit) {
    let now = broker.clock.now().get();
    let popped = Header::read(&cmd, now).and_then(|header| pop(broker, &header, conn.peer(), now, visit));
    let (filter, taken) = match popped {
        Ok(popped) => popped,
        Err(refusal) => return Broker::reply(conn, &cmd, Err(refusal)),
    };
    if taken.count > 0 {
        if taken.rest > 0 {
            wake_next(broker, &cmd);
        }
        let reply = taken.reply(cmd.reply(response::SUCCESS)).with_remark("FOUND").with_body(taken.body);
        return log::answer(broker, conn, &cmd, Ok(taken.stored), reply);
    }
    let reply = taken.reply(cmd.reply(response::POLLING_TIMEOUT)).with_remark("NO_MESSAGE_IN_QUEUE");
    wait(broker, conn, cmd, reply, filter, visit);
}

/// One answer with messages leaves more behind: another pop that waits may have them.
fn wake_next(broker: &Arc<Broker>, cmd: &Command) {
    let (Some(topic), Some(group)) = (cmd.fields.get("topic"), cmd.fields.get("consumerGroup")) else {
        return;
    };
    let queue = cmd.fields.parse_or("queueId", -1).unwrap_or(-1);
    if let Some(next) = broker.pop.hold.next_pop(topic, group, queue) {
        let broker = Arc::clone(broker);
        broker.runtime.clone().spawn(async move { super::serve_again(&broker, next, Visit::Woken) });
    }
}

/// Holds a pop that found nothing until a message comes, or sends `reply`.
fn wait(
    broker: &Arc<Broker>,
    conn: &Arc<Connection>,
    cmd: Command,
    mut reply: Command,
    filter: Selection,
    visit: Visit,
) {
    let now = broker.clock.now().get();
    let Ok(header) = Header::read(&cmd, now) else { return Broker::reply(conn, &cmd, Ok(reply)) };
    let left = header.born.saturating_add(header.poll_ms.min(MAX_POLL_MS)).saturating_sub(now);
    if visit == Visit::Last || header.poll_ms <= 0 || left <= 0 {
        return Broker::reply(conn, &cmd, Ok(reply));
    }
    let left = left.min(MAX_POLL_MS);
    let (topic, group, queue) = (header.topic.to_owned(), header.group.to_owned(), header.queue);
    let (order, attempt) = (header.order, header.attempt.map(str::to_owned));
    let reading = look::Reading { topic: &topic, group: &group, queue, order };
    let shown = look::next_shown(broker, &reading, header.attempt, header.invisible);
    let waiter = Waiter {
        kind: Kind::Pop,
        queue,
        deadline: in_ms(broker, left),
        look_at: in_ms(broker, shown.map_or(left, |at| at.saturating_sub(now).min(left))),
        filter,
        conn: Arc::clone(conn),
        cmd,
    };
    match broker.pop.hold.put(&topic, &group, waiter) {
        Err(waiter) => {
            reply.code = response::POLLING_FULL;
            Broker::reply(conn, &waiter.cmd, Ok(reply));
        }
        // Whoever takes it out meanwhile answers it. A second look is not followed by a third, so that what can never
        // be read makes no circle.
        Ok(id) if visit == Visit::First => {
            if look::has_message(broker, &reading, attempt.as_deref())
                && let Some(waiter) = broker.pop.hold.take(&topic, &group, id)
            {
                super::serve_again(broker, waiter, Visit::Woken);
            }
        }
        Ok(_) => {}
    }
}

/// What a pop came to.
struct Taken<'a> {
    pop_time: i64,
    invisible: i64,
    revive_queue: i32,
    count: usize,
    /// Messages that are left in the queues.
    rest: i64,
    starts: List,
    offsets: List,
    order_counts: List,
    body: Body,
    stored: Option<Appended<'a>>,
}

impl Taken<'_> {
    fn reply(&self, reply: Command) -> Command {
        let counts = (!self.order_counts.is_empty()).then(|| self.order_counts.text());
        reply
            .with_field("popTime", self.pop_time)
            .with_field("invisibleTime", self.invisible)
            .with_field("reviveQid", self.revive_queue)
            .with_field("restNum", self.rest)
            .with_field("startOffsetInfo", self.starts.text())
            .with_field("msgOffsetInfo", self.offsets.text())
            .with_optional_field("orderCountInfo", counts)
    }
}

/// The checks and the filter of a pop, and what the queues give.
fn pop<'a>(
    broker: &'a Arc<Broker>,
    header: &Header<'_>,
    peer: SocketAddr,
    now: i64,
    visit: Visit,
) -> Result<(Selection, Taken<'a>), Refusal> {
    let refuse = |code, remark: &str| Err(Refusal::new(code, remark));
    if visit == Visit::First && now.saturating_sub(header.born).saturating_sub(header.poll_ms) > LATE {
        let host = broker.store_host.ip();
        return refuse(
            response::POLLING_TIMEOUT,
            &format!("the broker[{host}] pop message is timeout too much"),
        );
    }
    admission::broker_readable(broker, "pop")?;
    if usize::try_from(header.max_messages).is_ok_and(|max| max > MAX_MESSAGES) {
        let host = broker.store_host.ip();
        let remark = format!("the broker[{host}] pop message's num is greater than 32");
        return refuse(response::INVALID_PARAMETER, &remark);
    }
    let (topic, group) = admission::reader(broker, header.topic, header.group, header.queue, peer)?;
    if header.invisible < 0 {
        return refuse(response::INVALID_PARAMETER, "invisibleTime cannot be negative");
    }
    if !names::is_topic(&names::pop_retry_topic_v2(&topic.name, &group.name)) {
        let remark = "group and topic are too long together: there can be no topic for their retries";
        return refuse(response::INVALID_PARAMETER, remark);
    }
    let filter = filter_of(header)?;
    let turn = broker.pop.turn.fetch_add(1, Relaxed);
    let mut pop = Pop {
        broker,
        header,
        filter: &filter,
        now,
        turn,
        limit: usize::try_from(header.max_messages).unwrap_or(0).max(1),
        check_points: Vec::new(),
        moves: Vec::new(),
        taken: Taken {
            pop_time: now,
            invisible: header.invisible,
            revive_queue: if header.order { ORDER_QUEUE } else { revive_queue(broker, turn) },
            count: 0,
            rest: 0,
            starts: List::default(),
            offsets: List::default(),
            order_counts: List::default(),
            body: Body::empty(),
            stored: None,
        },
    };
    if !header.order && broker.pop.revive.is_full(broker) {
        let remark = "too many messages are popped and neither acknowledged nor due (popCkMaxBufferSize)";
        return refuse(response::POLLING_FULL, remark);
    }
    let one_at_a_time = broker.pop.lock(header.topic, header.group);
    pop.topics(&topic)?;
    let taken = pop.keep()?;
    drop(one_at_a_time);
    Ok((filter, taken))
}

fn revive_queue(broker: &Broker, turn: usize) -> i32 {
    let queues = usize::try_from(broker.config.revive_queues).unwrap_or(1).max(1);
    i32::try_from(turn % queues).unwrap_or(0)
}

fn filter_of(header: &Header<'_>) -> Result<Selection, Refusal> {
    if header.expression.is_empty() || filters::is_tags(header.expression_type) {
        return Ok(Selection::Tags(TagFilter::parse(header.expression)));
    }
    let expression = filters::compile(header.expression_type, header.expression);
    let refuse = |why: String| Refusal::unreadable_subscription(&why);
    Ok(Selection::Expression(Arc::new(expression.map_err(refuse)?)))
}

/// A pop under way.
struct Pop<'a, 'h> {
    broker: &'a Arc<Broker>,
    header: &'h Header<'h>,
    filter: &'h Selection,
    now: i64,
    /// Differs from pop to pop, so that each queue comes first sometimes.
    turn: usize,
    limit: usize,
    check_points: Vec<CheckPoint>,
    /// Topic, queue and offset that the group moves on to, once the check points are kept.
    moves: Vec<(String, i32, i64)>,
    taken: Taken<'a>,
}

impl<'a> Pop<'a, '_> {
    /// Reads the topic and the group's retries, the latter first in some pops.
    fn topics(&mut self, topic: &TopicConfig) -> Result<(), Refusal> {
        let (header, config) = (self.header, &self.broker.config);
        let (v1, v2) = (
            names::pop_retry_topic(header.topic, header.group),
            names::pop_retry_topic_v2(header.topic, header.group),
        );
        let retries = match (header.order, config.retry_topic_v2, config.pop_from_retry_v1) {
            (true, ..) => vec![],
            (_, false, _) => vec![v1],
            (_, true, false) => vec![v2],
            // Clients tell the two apart only in newer versions, so one answer holds messages of one.
            (_, true, true) if self.turn.is_multiple_of(2) => vec![v2, v1],
            (_, true, true) => vec![v1, v2],
        };
        let retries_first = self.turn.wrapping_mul(37) % 100 < config.pop_retry_percent;
        if retries_first {
            self.retries(&retries)?;
        }
        if header.queue < 0 {
            self.topic(topic, false)?;
        } else {
            self.queue(&topic.name, header.queue, false)?;
        }
        if !retries_first {
            self.retries(&retries)?;
        }
        Ok(())
    }

    fn retries(&mut self, names: &[String]) -> Result<(), Refusal> {
        for name in names {
            let before = self.taken.count;
            if let Some(topic) = self.broker.topics.get(name) {
                self.topic(&topic, true)?;
            }
            if self.taken.count > before {
                break;
            }
        }
        Ok(())
    }

    fn topic(&mut self, topic: &TopicConfig, retry: bool) -> Result<(), Refusal> {
        let queues = usize::try_from(topic.read_queues).unwrap_or(0);
        for n in 0..queues {
            let queue = i32::try_from((self.turn + n) % queues).unwrap_or(0);
            self.queue(&topic.name, queue, retry)?;
        }
        Ok(())
    }

    /// Reads one queue.
    fn queue(&mut self, topic: &str, id: i32, retry: bool) -> Result<(), Refusal> {
        let (broker, header) = (self.broker, self.header);
        let place = Place { topic, group: header.group, queue: id };
        let mut start = position(broker, place, header.init_mode, retry);
        if header.order
            && broker.pop.orders.hidden_until(place, header.attempt, self.now, header.invisible).is_some()
        {
            return Ok(());
        }
        let Some(queue) = broker.store.find_queue(topic, id) else { return Ok(()) };
        let room = self.limit.saturating_sub(self.taken.count);
        if room == 0 {
            self.taken.rest += (broker.store.max_offset(queue).get() - start).max(0);
            return Ok(());
        }
        let read = |start| {
            broker.store.fetch_raw(&GetRequest {
                max_messages: room,
                max_bytes: usize::try_from(broker.live.max_pull_bytes.load(Relaxed)).unwrap_or(1),
                filter: if self.filter.is_all() { None } else { Some(self.filter) },
                ..GetRequest::new(queue, QueueOffset(start))
            })
        };
        let mut found = read(start)?;
        if matches!(
            found.status,
            GetStatus::OffsetTooSmall | GetStatus::OffsetOverflowBadly | GetStatus::OffsetFoundNull
        ) {
            tracing::warn!(topic, queue = id, group = header.group, start, next = %found.next_offset, "popped outside of the queue, corrected");
            start = found.next_offset.get();
            broker.offsets.commit(header.group, topic, id, start);
            found = read(start)?;
        }
        let next = found.next_offset.get();
        self.taken.rest += (found.max_offset.get() - next).max(0);
        if !found.messages.is_empty() {
            return self.messages(place, start, found, retry);
        }
        if matches!(found.status, GetStatus::NoMatchedMessage | GetStatus::MessageWasRemoving) && next > start
        {
            broker.offsets.commit(header.group, topic, id, next);
        }
        Ok(())
    }

    /// Takes what a queue gave into the answer.
    fn messages(
        &mut self,
        place: Place<'_>,
        start: i64,
        found: GetResult<RawMessage>,
        retry: bool,
    ) -> Result<(), Refusal> {
        let (header, next) = (self.header, found.next_offset.get());
        let offsets: Vec<i64> = found.messages.iter().map(|message| message.queue_offset().get()).collect();
        let taken = &mut self.taken;
        taken.starts.add(place.topic, place.queue, start);
        taken.offsets.add(place.topic, place.queue, Offsets(&offsets));
        taken.count += offsets.len();
        let info = ExtraInfo {
            start,
            pop_time: self.now,
            invisible: header.invisible,
            revive_queue: taken.revive_queue,
        };
        if retry && !self.broker.config.pop_actual_topic {
            for message in &found.messages {
                let name = &self.broker.config.name;
                let text = info.text(place.topic, name, place.queue, message.queue_offset().get());
                taken.body.push(renamed(found.bytes_of(message), header.topic, &text)?);
            }
        } else {
            found.runs().for_each(|run| taken.body.push(Bytes::from_owner(run)));
        }
        if header.order {
            let popped =
                Popped { attempt: header.attempt, now: self.now, invisible: header.invisible, offsets };
            self.broker.pop.orders.popped(place, popped, &mut taken.order_counts);
            self.moves.push((place.topic.to_owned(), place.queue, start));
            return Ok(());
        }
        let key = Key {
            topic: place.topic.to_owned(),
            group: header.group.to_owned(),
            queue: place.queue,
            start,
            pop_time: self.now,
        };
        let diffs = offsets.iter().map(|offset| i32::try_from(offset - start));
        let diffs = diffs.collect::<Result<_, _>>().map_err(|_| {
            Refusal::new(response::SYSTEM_ERROR, "the messages lie too far apart for one check point")
        })?;
        self.check_points.push(CheckPoint {
            key,
            invisible: header.invisible,
            diffs,
            acked: 0,
            suspend: false,
        });
        self.moves.push((place.topic.to_owned(), place.queue, next));
        Ok(())
    }

    /// Puts the check points and moves the group on.
    fn keep(mut self) -> Result<Taken<'a>, Refusal> {
        let (broker, queue) = (self.broker, self.taken.revive_queue);
        let records: Vec<_> =
            self.check_points.iter().map(|of| Record::check_point(queue, of, &broker.config.name)).collect();
        self.taken.stored = log::put(broker, &records)?;
        for (topic, queue, next) in self.moves {
            broker.offsets.commit(self.header.group, &topic, queue, next);
        }
        Ok(self.taken)
    }
}

/// Where a group pops a queue next. A reset that waits is taken; a new group gets a place of its own.
fn position(broker: &Broker, place: Place<'_>, init_mode: i32, retry: bool) -> i64 {
    let Place { topic, group, queue } = place;
    if let Some(reset) = broker.offsets.take_reset(group, topic, queue) {
        broker.pop.orders.clear(place);
        broker.offsets.commit(group, topic, queue, reset);
        return reset;
    }
    if let Some(offset) = broker.offsets.query(group, topic, queue) {
        return offset;
    }
    let (min, max) = bounds(broker, topic, queue);
    let start = if retry || init_mode == FROM_FIRST {
        min
    } else if broker.config.pop_young_queues && broker.is_young_queue(topic, queue) {
        0
    } else {
        // The last message, as in RocketMQ.
        (max - 1).max(0)
    };
    broker.offsets.commit(group, topic, queue, start);
    start
}

/// A record that says to be of `topic`, with the property by which clients name it again.
fn renamed(bytes: &[u8], topic: &str, extra_info: &str) -> Result<Bytes, Refusal> {
    let unreadable = |why: &dyn std::fmt::Display| {
        Refusal::new(response::SYSTEM_ERROR, format!("a message to be tried again cannot be read: {why}"))
    };
    let record = StoredRecord::decode(bytes).map_err(|why| unreadable(&why))?;
    let properties = rewritten(record.properties.raw(), &[properties::CRC32], &[(POP_CHECK, extra_info)]);
    let draft = Draft {
        topic,
        queue_id: record.queue_id,
        flag: record.flag,
        sys_flag: record.sys_flag,
        born_timestamp: record.born_timestamp,
        born_host: record.born_host,
        store_host: record.store_host,
        reconsume_times: record.reconsume_times,
        prepared_transaction_offset: record.prepared_transaction_offset,
        body: record.body,
        properties: &properties,
    };
    let limits = Limits {
        max_message_size: record.body.len(),
        auto_message_version: true,
        append_prop_crc: false,
        segment_size: usize::MAX,
    };
    let at = RecordPlace {
        queue_offset: record.queue_offset,
        physical_offset: record.physical_offset,
        store_timestamp: record.store_timestamp,
    };
    let measured = draft.measure(limits).map_err(|why| unreadable(&why))?;
    let mut out = Vec::with_capacity(measured.total_size());
    measured.encode(at, &mut out);
    Ok(out.into())
}
