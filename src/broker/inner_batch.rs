//! Topics whose queues take inner batches (`queue.type=BatchCQ`): several messages stored as one record, which counts
//! for all of them in its queue and which consumers take apart.
//!
//! A queue of such a topic must be made as one, or its directory is one that RocketMQ's broker does not start on; so
//! whoever needs a topic's queue asks [`Broker::queue`]. A client's batch is stored as it came; a single message is stored
//! as one, and counts for one.

use bytes::Bytes;

use super::{Broker, Refusal, property_text::rewritten, topics::TopicConfig};
use crate::{error::Result, format::properties, message::Queue, remoting::codes::response, types::SysFlag};

/// A record counts for so many messages at most: the queue's entry has two bytes for it.
const MAX_MESSAGES: usize = i16::MAX as usize;

impl TopicConfig {
    /// Whether its queues take inner batches.
    pub(super) fn takes_batches(&self) -> bool {
        self.attributes.get("queue.type").is_some_and(|kind| kind == "BatchCQ")
    }
}

impl Broker {
    /// A queue of a topic, as the topic's attributes want it.
    pub(super) fn queue(&self, topic: &str, id: i32) -> Result<Queue> {
        match self.topics.get(topic) {
            Some(topic) => self.queue_of(&topic, id),
            None => self.store.queue(topic, id),
        }
    }

    /// The same, of a topic at hand.
    pub(super) fn queue_of(&self, topic: &TopicConfig, id: i32) -> Result<Queue> {
        if topic.takes_batches() {
            return self.store.batch_queue(&topic.name, id);
        }
        self.store.queue(&topic.name, id)
    }
}

/// What is stored for an inner batch.
pub(super) struct InnerBatch {
    pub(super) body: Bytes,
    pub(super) properties: Vec<u8>,
    pub(super) sys_flag: SysFlag,
}

fn illegal(remark: impl Into<String>) -> Refusal {
    Refusal::new(response::MESSAGE_ILLEGAL, remark)
}

impl InnerBatch {
    /// A client's batch of `count` messages. `text` are its properties.
    ///
    /// # Errors
    /// MESSAGE_ILLEGAL when they are too many for one record.
    pub(super) fn of_batch(
        body: Bytes,
        count: usize,
        text: &[u8],
        sys_flag: SysFlag,
    ) -> std::result::Result<Self, Refusal> {
        if count > MAX_MESSAGES {
            return Err(illegal(format!("a batch has {count} messages, allowed are {MAX_MESSAGES}")));
        }
        // The store says where the first one stands.
        let properties =
            rewritten(text, &[properties::INNER_BASE], &[(properties::INNER_NUM, &count.to_string())]);
        let sys_flag = sys_flag.with(SysFlag::INNER_BATCH | SysFlag::NEED_UNWRAP, true);
        Ok(Self { body, properties, sys_flag })
    }
}
