//! What was popped and neither acknowledged nor done in time is given again.
//!
//! Owns the check points that are open: it follows the queues of the revive topic and so knows of every check point and
//! acknowledgement what the log knows, before and after a kill. What is due goes to the retry topic of group and topic;
//! after the group's last try (`retryMaxTimes`) to its dead letters. How far a queue is worked off is kept as the offset
//! of `CID_RMQ_SYS_REVIVE_GROUP`: every record up to it is done.
//!
//! RocketMQ's broker has its records come here through the timers, an acknowledgement when its check point is due: such a
//! check point is given again only when the timers have passed that time.
//!
//! Invariants: nothing is given again before every record that was put by then is read, and the offset passes a check
//! point only after what was open in it is in the log. So a message can come twice and is never lost. Bound:
//! `popCkMaxBufferSize` check points, plus those of one `reviveInterval`; [`Revive::is_full`] stops pops beyond it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;

use super::check_point::{Acks, CheckPoint, Key, tag};
use crate::{
    Message,
    broker::{
        Broker, config::BrokerConfig, groups::GroupConfig, names, property_text::rewritten, topics::perm,
    },
    error::{Error, Result},
    format::properties,
    message::{GetStatus, StoredMessage},
    store::{GetRequest, Store},
    types::{PhysicalOffset, QueueOffset},
};

/// When a message was popped first.
const FIRST_POP_TIME: &str = "1ST_POP_TIME";
/// The group that a retry is for.
const ORIGIN_GROUP: &str = "ORIGIN_GROUP";
/// Records read at a time.
const BATCH: usize = 256;
/// Reads of one queue in one turn.
const ROUNDS: usize = 256;

/// One queue of the revive topic.
#[derive(Debug, Default)]
struct Queue {
    /// The record to read next; `None` before the first turn.
    next: Option<i64>,
    /// Open check points by the offset of their record.
    open: BTreeMap<i64, CheckPoint>,
    by_key: HashMap<Key, i64>,
    /// When each open check point is due.
    due: BTreeSet<(i64, i64)>,
    /// The same for those that came through the timers, as their acknowledgements may.
    due_by_timer: BTreeSet<(i64, i64)>,
}

/// What counts as due.
#[derive(Clone, Copy, Debug)]
struct Now {
    time: i64,
    /// The timers have put all that is due before this.
    timers: i64,
}

#[derive(Debug)]
struct Queues {
    each: Vec<Queue>,
    /// A time, how far the timers were, and the end of the log then: what is due by that time is given again once the
    /// queues reach that end.
    mark: Option<(Now, PhysicalOffset)>,
    stopped: bool,
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Revive {
    topic: String,
    queues: Mutex<Queues>,
    /// Open check points in all.
    count: AtomicUsize,
}

impl Revive {
    pub(super) fn new(config: &BrokerConfig) -> Self {
        let each = (0..config.revive_queues).map(|_| Queue::default()).collect();
        Self {
            topic: format!("{}{}", names::REVIVE_PREFIX, config.cluster),
            queues: Mutex::new(Queues { each, mark: None, stopped: false }),
            count: AtomicUsize::new(0),
        }
    }

    /// The revive topic.
    pub(super) fn topic(&self) -> &str {
        &self.topic
    }

    /// Whether as many check points are open as may be.
    pub(super) fn is_full(&self, broker: &Broker) -> bool {
        self.count.load(Ordering::Relaxed) >= broker.config.pop_check_points
    }

    /// Nothing is given again when this returns.
    pub(super) fn stop(&self) {
        self.queues.lock().stopped = true;
    }

    /// One turn: reads what is new, gives again what is due, and notes how far that is.
    pub(super) fn step(&self, broker: &Arc<Broker>) {
        let mut queues = self.queues.lock();
        if queues.stopped {
            return;
        }
        // An acknowledgement that was answered is in the log, but perhaps not in its queue yet.
        let time = broker.clock.now().get();
        let now = Now { time, timers: broker.timer.passed().map_or(time, |passed| passed.min(time)) };
        let status = broker.store.status();
        let (now, end) = *queues.mark.get_or_insert((now, status.max_offset));
        let all_there = status.dispatched_offset >= end;
        if all_there {
            queues.mark = None;
        }
        for (id, queue) in (0..).zip(&mut queues.each) {
            if let Err(error) = queue.turn(broker, &self.topic, id, now, all_there) {
                tracing::warn!(queue = id, %error, "popped messages are not given again, trying on");
            }
        }
        self.count.store(queues.each.iter().map(|queue| queue.open.len()).sum(), Ordering::Relaxed);
    }
}

impl Queue {
    fn turn(&mut self, broker: &Arc<Broker>, topic: &str, id: i32, now: Now, all_there: bool) -> Result<()> {
        let done = broker.offsets.query(names::REVIVE_GROUP, topic, id);
        let next = *self.next.get_or_insert_with(|| done.map_or(0, |done| done.saturating_add(1)));
        let end = self.read(&broker.store, topic, id, next)?;
        let given = if end && all_there { self.give_due(broker, now) } else { Ok(()) };
        let next = self.next.unwrap_or(0);
        let upto = self.open.keys().next().copied().unwrap_or(next) - 1;
        if upto >= 0 && done.is_none_or(|done| done < upto) {
            broker.offsets.commit(names::REVIVE_GROUP, topic, id, upto);
        }
        given
    }

    /// Reads on from `next`; whether the end was reached.
    fn read(&mut self, store: &Store, topic: &str, id: i32, mut next: i64) -> Result<bool> {
        let Some(queue) = store.find_queue(topic, id) else { return Ok(true) };
        for _ in 0..ROUNDS {
            let request = GetRequest {
                max_messages: BATCH,
                max_bytes: usize::MAX,
                ..GetRequest::new(queue, QueueOffset(next))
            };
            let found = store.fetch(&request)?;
            for message in &found.messages {
                self.take(message);
            }
            let end = matches!(found.status, GetStatus::OffsetOverflowOne | GetStatus::NoMessageInQueue);
            if !end && found.messages.is_empty() {
                tracing::warn!(topic, queue = id, next, to = %found.next_offset, status = ?found.status, "check points are gone from the log");
            }
            next = found.next_offset.get();
            self.next = Some(next);
            if end {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Takes a record in.
    fn take(&mut self, message: &StoredMessage) {
        let offset = message.queue_offset().get();
        let read = match message.tags() {
            Some(tag::CHECK_POINT) => {
                let by_timer = message.properties().get(properties::TIMER_OUT_MS).is_some();
                CheckPoint::read(message.body()).map(|of| self.add(offset, of, by_timer))
            }
            Some(tag::ACK | tag::BATCH_ACK) => Acks::read(message.body()).map(|acks| self.ack(&acks)),
            _ => None,
        };
        if read.is_none() {
            tracing::debug!(offset, "no check point and no acknowledgement: passed over");
        }
    }

    fn add(&mut self, offset: i64, of: CheckPoint, by_timer: bool) {
        if let Some(old) = self.by_key.get(&of.key) {
            self.remove(*old);
        }
        if of.open().next().is_some() {
            let due = if by_timer { &mut self.due_by_timer } else { &mut self.due };
            due.insert((of.due(), offset));
            self.by_key.insert(of.key.clone(), offset);
            self.open.insert(offset, of);
        }
    }

    fn ack(&mut self, acks: &Acks) {
        let Some(offset) = self.by_key.get(&acks.key).copied() else { return };
        let Some(of) = self.open.get_mut(&offset) else { return };
        acks.offsets.iter().for_each(|acked| of.ack(*acked));
        if of.open().next().is_none() {
            self.remove(offset);
        }
    }

    fn remove(&mut self, offset: i64) {
        if let Some(of) = self.open.remove(&offset) {
            self.due.remove(&(of.due(), offset));
            self.due_by_timer.remove(&(of.due(), offset));
            self.by_key.remove(&of.key);
        }
    }

    /// The record of a check point that is due.
    fn next_due(&self, now: Now) -> Option<i64> {
        let first = |of: &BTreeSet<(i64, i64)>, by: i64| of.first().copied().filter(|(due, _)| *due <= by);
        first(&self.due, now.time).or_else(|| first(&self.due_by_timer, now.timers)).map(|(_, offset)| offset)
    }

    fn give_due(&mut self, broker: &Arc<Broker>, now: Now) -> Result<()> {
        while let Some(offset) = self.next_due(now) {
            let Some(of) = self.open.get_mut(&offset) else { break };
            give_again(broker, of)?;
            self.remove(offset);
        }
        Ok(())
    }
}

/// Puts what is open of a check point to where the group finds it; what was put counts as acknowledged.
fn give_again(broker: &Arc<Broker>, of: &mut CheckPoint) -> Result<()> {
    let Key { topic, group, queue, .. } = &of.key.clone();
    let origin = names::popped_topic(topic, group).unwrap_or(topic);
    let group = broker.groups.get(group).filter(|_| broker.topics.contains(origin));
    let (Some(group), Some(found)) = (group, broker.store.find_queue(topic, *queue)) else {
        tracing::info!(topic, queue, "popped by a group or from a topic that is gone: not given again");
        return Ok(());
    };
    let open: Vec<i64> = of.open().collect();
    for offset in open {
        let request =
            GetRequest { max_messages: 1, max_scan: 1, ..GetRequest::new(found, QueueOffset(offset)) };
        let messages = broker.store.fetch(&request)?.messages;
        match messages.first().filter(|message| message.queue_offset().get() == offset) {
            Some(message) => put_again(broker, of, &group, message)?,
            None => tracing::info!(topic, queue, offset, "a popped message is gone from the log"),
        }
        of.ack(offset);
    }
    Ok(())
}

fn put_again(
    broker: &Arc<Broker>,
    of: &CheckPoint,
    group: &GroupConfig,
    stored: &StoredMessage,
) -> Result<()> {
    let record = stored.record();
    let origin = names::popped_topic(&of.key.topic, &group.name).unwrap_or(&of.key.topic);
    let dead = record.reconsume_times >= group.retry_max_times && !of.suspend;
    let target = if dead {
        names::dlq_topic(&group.name)
    } else if of.key.topic.starts_with(names::RETRY_PREFIX) {
        of.key.topic.clone()
    } else if broker.config.retry_topic_v2 {
        names::pop_retry_topic_v2(origin, &group.name)
    } else {
        names::pop_retry_topic(origin, &group.name)
    };
    let (popped, id) = (of.key.pop_time.to_string(), stored.message_id());
    let mut add = vec![(ORIGIN_GROUP, group.name.as_str())];
    if record.reconsume_times == 0 || record.properties.get(FIRST_POP_TIME).is_none() {
        add.push((FIRST_POP_TIME, &popped));
    }
    if dead {
        let kept = |name| record.properties.get(name).filter(|value| !value.is_empty());
        add.push((properties::RETRY_TOPIC, kept(properties::RETRY_TOPIC).unwrap_or(origin)));
        add.push((properties::ORIGIN_MESSAGE_ID, kept(properties::ORIGIN_MESSAGE_ID).unwrap_or(&id)));
        tracing::info!(target, message = id, tries = record.reconsume_times, "given up: to the dead letters");
    }
    broker.ensure_topic(&target, 1, perm::READ | perm::WRITE, 0);
    let queue = broker.queue(&target, 0)?;
    let put = |add: &[(&str, &str)]| {
        let text = rewritten(record.properties.raw(), &[properties::CRC32], add);
        let again = Message::new(queue, record.body)
            .properties_raw(text)
            .flag(record.flag)
            .sys_flag(record.sys_flag)
            .born_timestamp(record.born_timestamp)
            .born_host(record.born_host)
            .store_host(broker.store_host)
            .reconsume_times(record.reconsume_times.saturating_add(i32::from(!of.suspend)))
            .wait_store(false);
        broker.store.put(&again).map(drop)
    };
    match put(&add) {
        // A message whose own properties leave no room for more still comes again.
        Err(Error::PropertiesTooLarge { .. } | Error::RecordTooLarge { .. }) => put(&[]),
        put => put,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_point(start: i64, pop_time: i64, invisible: i64) -> CheckPoint {
        let key = Key { topic: "t".into(), group: "g".into(), queue: 0, start, pop_time };
        CheckPoint { key, invisible, diffs: vec![0, 1], acked: 0, suspend: false }
    }

    fn acks(of: &CheckPoint, offsets: &[i64]) -> Acks {
        Acks { key: of.key.clone(), offsets: offsets.to_vec() }
    }

    #[test]
    fn a_check_point_that_came_through_the_timers_waits_for_what_they_still_have() {
        let mut queue = Queue::default();
        let (java, own) = (check_point(5, 1_000, 60_000), check_point(9, 1_000, 60_000));
        queue.add(0, java.clone(), true);
        queue.add(1, own.clone(), false);
        assert_eq!(queue.next_due(Now { time: 60_999, timers: 60_000 }), None);
        assert_eq!(queue.next_due(Now { time: 61_000, timers: 60_000 }), Some(1));
        queue.ack(&acks(&own, &[9, 10]));
        // Its acknowledgement waits for the second in which it is due.
        assert_eq!(queue.next_due(Now { time: 61_900, timers: 60_000 }), None);
        queue.ack(&acks(&java, &[5]));
        assert_eq!(queue.next_due(Now { time: 62_000, timers: 61_000 }), Some(0));
        queue.remove(0);
        assert!(queue.due_by_timer.is_empty());
    }

    #[test]
    fn a_check_point_is_open_until_all_of_it_is_acknowledged() {
        let mut queue = Queue::default();
        let (first, second) = (check_point(0, 100, 50), check_point(2, 100, 10));
        queue.add(0, first.clone(), false);
        queue.add(1, second.clone(), false);
        assert_eq!(queue.due.iter().copied().collect::<Vec<_>>(), [(110, 1), (150, 0)]);
        queue.ack(&acks(&first, &[0]));
        assert_eq!(queue.open[&0].open().collect::<Vec<_>>(), [1]);
        queue.ack(&acks(&second, &[2, 3]));
        queue.ack(&acks(&check_point(9, 9, 9), &[9]));
        assert_eq!(queue.open.keys().copied().collect::<Vec<_>>(), [0]);
        queue.ack(&acks(&first, &[1]));
        assert!(queue.open.is_empty() && queue.by_key.is_empty() && queue.due.is_empty());
    }

    #[test]
    fn a_check_point_written_twice_counts_once() {
        let mut queue = Queue::default();
        queue.add(3, check_point(0, 100, 50), false);
        queue.add(7, CheckPoint { acked: 1, ..check_point(0, 100, 60) }, false);
        assert_eq!(queue.due.iter().copied().collect::<Vec<_>>(), [(160, 7)]);
        assert_eq!(queue.open[&7].open().collect::<Vec<_>>(), [1]);
        queue.add(8, CheckPoint { acked: 3, ..check_point(5, 1, 1) }, false);
        assert_eq!(queue.open.len(), 1, "nothing is open in the last one");
    }
}
