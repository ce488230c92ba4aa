//! Looking at what could be popped, without taking it: NOTIFICATION 200054, PEEK_MESSAGE 200052, POLLING_INFO 200055.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use bytes::Bytes;

use super::{
    admission::{self, bounds},
    check_point::MAX_MESSAGES,
    hold::{Kind, Waiter},
    order::Place,
    receive::{Visit, born},
};
use crate::{
    TagFilter,
    broker::{Broker, Refusal, names, selection::Selection},
    message::GetStatus,
    remoting::{Body, Command, Connection, codes::response},
    store::GetRequest,
    types::QueueOffset,
};

/// The longest wait that a client may ask for, in milliseconds.
pub(super) const MAX_POLL_MS: i64 = 600_000;

/// Who would pop what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading<'a> {
    pub(super) topic: &'a str,
    pub(super) group: &'a str,
    /// Below 0 for all.
    pub(super) queue: i32,
    pub(super) order: bool,
}

impl<'a> Reading<'a> {
    fn read(cmd: &'a Command) -> Result<Self, Refusal> {
        Ok(Self {
            topic: cmd.fields.text("topic")?,
            group: cmd.fields.text("consumerGroup")?,
            queue: cmd.fields.parse("queueId")?,
            order: cmd.fields.parse_or("order", false)?,
        })
    }
}

/// Where a group would pop a queue next.
fn position(broker: &Broker, topic: &str, group: &str, queue: i32) -> i64 {
    let offset = broker.offsets.query(group, topic, queue);
    offset.unwrap_or_else(|| bounds(broker, topic, queue).0)
}

/// Whether there is something in the queues or among the retries of a group.
pub(super) fn has_message(broker: &Broker, reading: &Reading<'_>, attempt: Option<&str>) -> bool {
    let Reading { topic, group, queue, order } = *reading;
    let now = broker.clock.now().get();
    let in_queue = |topic: &str, queue: i32| {
        let place = Place { topic, group, queue };
        let hidden = order && broker.pop.orders.hidden_until(place, attempt, now, 0).is_some();
        !hidden && bounds(broker, topic, queue).1 > position(broker, topic, group, queue)
    };
    let in_topic = |topic: &str| {
        let queues = broker.topics.get(topic).map_or(0, |topic| topic.read_queues);
        (0..queues).any(|queue| in_queue(topic, queue))
    };
    let own = if queue < 0 { in_topic(topic) } else { in_queue(topic, queue) };
    own || (!order
        && (in_topic(&names::pop_retry_topic(topic, group))
            || in_topic(&names::pop_retry_topic_v2(topic, group))))
}

/// When the first of the queues that give nothing now, since their order is kept, gives something again.
pub(super) fn next_shown(
    broker: &Broker,
    reading: &Reading<'_>,
    attempt: Option<&str>,
    invisible: i64,
) -> Option<i64> {
    let Reading { topic, group, queue, order } = *reading;
    let now = broker.clock.now().get();
    let queues = broker.topics.get(topic).map_or(0, |topic| topic.read_queues);
    let all = if queue < 0 { 0..queues } else { queue..queue.saturating_add(1) };
    let hidden =
        |queue| broker.pop.orders.hidden_until(Place { topic, group, queue }, attempt, now, invisible);
    if order { all.filter_map(hidden).min() } else { None }
}

/// Monotonic time in so many milliseconds.
pub(super) fn in_ms(broker: &Broker, ms: i64) -> Duration {
    broker.clock.monotonic() + Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

/// NOTIFICATION: whether a pop would find something, at once or as soon as it does.
pub(super) fn notify(broker: &Arc<Broker>, conn: &Arc<Connection>, cmd: Command) {
    notify_on(broker, conn, cmd, Visit::First);
}

/// [`notify`], also for those that waited.
pub(super) fn notify_on(broker: &Arc<Broker>, conn: &Arc<Connection>, cmd: Command, visit: Visit) {
    match looked(broker, conn, &cmd, visit) {
        Ok(Looked::Answer(found)) => Broker::reply(conn, &cmd, Ok(told(&cmd, found, false))),
        Ok(Looked::Wait { topic, group, queue, left, shown }) => {
            let waiter = Waiter {
                conn: Arc::clone(conn),
                cmd,
                kind: Kind::Notification,
                queue,
                deadline: in_ms(broker, left),
                look_at: in_ms(broker, shown.min(left)),
                filter: Selection::Tags(TagFilter::default()),
            };
            match broker.pop.hold.put(&topic, &group, waiter) {
                Err(waiter) => Broker::reply(conn, &waiter.cmd, Ok(told(&waiter.cmd, false, true))),
                // Something may have come before it could be found. A second look is not followed by a third.
                Ok(id) if visit == Visit::First => {
                    let reading = Reading { topic: &topic, group: &group, queue, order: false };
                    if has_message(broker, &reading, None)
                        && let Some(waiter) = broker.pop.hold.take(&topic, &group, id)
                    {
                        super::serve_again(broker, waiter, Visit::Woken);
                    }
                }
                Ok(_) => {}
            }
        }
        Err(refusal) => Broker::reply(conn, &cmd, Err(refusal)),
    }
}

fn told(cmd: &Command, found: bool, full: bool) -> Command {
    cmd.reply(response::SUCCESS).with_field("hasMsg", found).with_field("pollingFull", full)
}

/// What a notification comes to.
enum Looked {
    Answer(bool),
    Wait {
        topic: String,
        group: String,
        queue: i32,
        /// Milliseconds until it is answered in any case.
        left: i64,
        /// Milliseconds until a queue that is closed now gives something.
        shown: i64,
    },
}

fn looked(broker: &Arc<Broker>, conn: &Connection, cmd: &Command, visit: Visit) -> Result<Looked, Refusal> {
    let reading = Reading::read(cmd)?;
    let now = broker.clock.now().get();
    let poll: i64 = cmd.fields.parse("pollTime")?;
    let born = born(cmd, now)?;
    admission::broker_readable(broker, "peeking")?;
    admission::reader(broker, reading.topic, reading.group, reading.queue, conn.peer())?;
    let attempt = cmd.fields.get("attemptId");
    if has_message(broker, &reading, attempt) {
        return Ok(Looked::Answer(true));
    }
    let left = born.saturating_add(poll.min(MAX_POLL_MS)).saturating_sub(now).min(MAX_POLL_MS);
    if visit == Visit::Last || poll <= 0 || left <= 0 {
        return Ok(Looked::Answer(false));
    }
    let shown = next_shown(broker, &reading, attempt, 0).map_or(left, |at| at.saturating_sub(now));
    let (topic, group) = (reading.topic.to_owned(), reading.group.to_owned());
    Ok(Looked::Wait { topic, group, queue: reading.queue, left, shown })
}

/// PEEK_MESSAGE: what a pop would find, left where it is.
pub(super) fn peek(broker: &Arc<Broker>, conn: &Arc<Connection>, cmd: &Command) -> Result<Command, Refusal> {
    let Reading { topic: name, group, queue, .. } = Reading::read(cmd)?;
    let wanted: i32 = cmd.fields.parse("maxMsgNums")?;
    admission::broker_readable(broker, "peeking")?;
    let (topic, _) = admission::reader(broker, name, group, queue, conn.peer())?;
    let limit = usize::try_from(wanted).unwrap_or(0).clamp(1, MAX_MESSAGES);
    let (mut body, mut count, mut rest) = (Body::empty(), 0, 0);
    let mut read = |topic: &str, id: i32| -> Result<(), Refusal> {
        let Some(queue) = broker.store.find_queue(topic, id) else { return Ok(()) };
        let mut start = position(broker, topic, group, id);
        rest += (broker.store.max_offset(queue).get() - start).max(0);
        let room = limit.saturating_sub(count);
        if room == 0 {
            return Ok(());
        }
        let fetch = |start| {
            let max_bytes = usize::try_from(broker.live.max_pull_bytes.load(Relaxed)).unwrap_or(1);
            let request =
                GetRequest { max_messages: room, max_bytes, ..GetRequest::new(queue, QueueOffset(start)) };
            broker.store.fetch_raw(&request)
        };
        let mut found = fetch(start)?;
        if matches!(found.status, GetStatus::OffsetTooSmall | GetStatus::OffsetOverflowBadly) {
            start = found.next_offset.get();
            found = fetch(start)?;
        }
        found.runs().for_each(|run| body.push(Bytes::from_owner(run)));
        count += found.messages.len();
        Ok(())
    };
    let queues = if queue < 0 { 0..topic.read_queues } else { queue..queue + 1 };
    for id in queues {
        read(&topic.name, id)?;
    }
    for retry in [names::pop_retry_topic(name, group), names::pop_retry_topic_v2(name, group)] {
        let queues = broker.topics.get(&retry).map_or(0, |topic| topic.read_queues);
        for id in 0..queues {
            read(&retry, id)?;
        }
    }
    let (code, remark) = match count {
        0 => (response::PULL_NOT_FOUND, "NO_MESSAGE_IN_QUEUE"),
        _ => (response::SUCCESS, "FOUND"),
    };
    Ok(cmd.reply(code).with_remark(remark).with_field("restNum", rest).with_body(body))
}

/// POLLING_INFO: how many pops wait.
pub(super) fn info(broker: &Arc<Broker>, conn: &Arc<Connection>, cmd: &Command) -> Result<Command, Refusal> {
    let Reading { topic, group, queue, .. } = Reading::read(cmd)?;
    admission::broker_readable(broker, "peeking")?;
    admission::reader(broker, topic, group, queue, conn.peer())?;
    Ok(cmd.reply(response::SUCCESS).with_field("pollingNum", broker.pop.hold.waiting(topic, group, queue)))
}
