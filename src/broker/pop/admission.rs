//! The checks that the requests of POP consumers must pass, in RocketMQ's order and with its codes.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use crate::{
    broker::{
        Broker, Refusal,
        groups::GroupConfig,
        names,
        topics::{TopicConfig, perm},
    },
    remoting::{Command, codes::response},
    types::QueueOffset,
};

/// Refuses while the broker gives no messages.
pub(super) fn broker_readable(broker: &Broker, doing: &str) -> Result<(), Refusal> {
    if perm::is_readable(broker.live.permission.load(Relaxed)) {
        return Ok(());
    }
    Err(Refusal::new(
        response::NO_PERMISSION,
        format!("the broker[{}] {doing} message is forbidden", broker.store_host.ip()),
    ))
}

/// The topic and the group of a request that reads. A queue below 0 means all.
pub(super) fn reader(
    broker: &Arc<Broker>,
    topic: &str,
    group: &str,
    queue: i32,
    peer: SocketAddr,
) -> Result<(Arc<TopicConfig>, Arc<GroupConfig>), Refusal> {
    let topic = broker.topics.get(topic).ok_or_else(|| Refusal::no_topic_to_read(topic))?;
    if !perm::is_readable(topic.perm) {
        let remark = format!("the topic[{}] peeking message is forbidden", topic.name);
        return Err(Refusal::new(response::NO_PERMISSION, remark));
    }
    if queue >= topic.read_queues {
        return Err(Refusal::no_queue_to_read(response::INVALID_PARAMETER, &topic, queue, peer));
    }
    let group = broker.group(group).ok_or_else(|| Refusal::no_group_to_read_for(group))?;
    if !group.consume_enable {
        return Err(Refusal::group_may_not_consume(&group.name));
    }
    Ok((topic, group))
}

/// A message that a consumer has in hand: `topic`, `queueId`, `consumerGroup` and `offset` of a request.
#[derive(Debug)]
pub(super) struct InHand<'a> {
    pub(super) topic: &'a str,
    pub(super) group: &'a str,
    pub(super) queue: i32,
    pub(super) offset: i64,
}

impl<'a> InHand<'a> {
    /// Reads and checks it. `end` says whether the queue's end passes for an offset.
    pub(super) fn read(
        broker: &Broker,
        cmd: &'a Command,
        peer: SocketAddr,
        end: bool,
    ) -> Result<Self, Refusal> {
        let this = Self {
            topic: cmd.fields.text("topic")?,
            group: cmd.fields.text("consumerGroup")?,
            queue: cmd.fields.parse("queueId")?,
            offset: cmd.fields.parse("offset")?,
        };
        names::check_group(this.group)?;
        let topic = broker.topics.get(this.topic).ok_or_else(|| Refusal::no_topic_to_read(this.topic))?;
        if !(0..topic.read_queues).contains(&this.queue) {
            let code = response::MESSAGE_ILLEGAL;
            return Err(Refusal::no_queue_to_read(code, &topic, this.queue, peer));
        }
        let (min, max) = bounds(broker, this.topic, this.queue);
        if this.offset < min || this.offset > max || (this.offset == max && !end) {
            let remark = format!(
                "offset is illegal, key:{}@{}, commit:{}, store:{min}~{max}",
                this.topic, this.queue, this.offset
            );
            return Err(Refusal::new(response::NO_MESSAGE, remark));
        }
        Ok(this)
    }
}

/// The first offset of a queue and the one behind its last.
pub(super) fn bounds(broker: &Broker, topic: &str, queue: i32) -> (i64, i64) {
    let found = broker.store.find_queue(topic, queue);
    let (min, max) = found.map_or((QueueOffset::ZERO, QueueOffset::ZERO), |queue| {
        (broker.store.min_offset(queue), broker.store.max_offset(queue))
    });
    (min.get(), max.get())
}
