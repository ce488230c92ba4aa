//! Why a request is not answered with success: RocketMQ's codes, and its words where several requests share them.

use std::net::SocketAddr;

use super::{names::shorten, topics::TopicConfig};
use crate::remoting::{FieldError, codes::response};

/// Where RocketMQ's remarks send the reader.
const FURTHER: &str = "\nSee https://rocketmq.apache.org/docs/bestPractice/06FAQ for further details.";

/// Why a request is not answered with success: RocketMQ's response code and a remark for the user.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) code: i32,
    pub(crate) remark: String,
}

impl Refusal {
    pub(crate) fn new(code: i32, remark: impl Into<String>) -> Self {
        Self { code, remark: remark.into() }
    }

    /// A send names a topic that is not there and may not be made.
    pub(super) fn no_topic_to_send_to(topic: &str) -> Self {
        let topic = shorten(topic);
        Self::new(
            response::TOPIC_NOT_EXIST,
            format!("topic[{topic}] not exist, apply first please!{FURTHER}"),
        )
    }

    /// A consumer names a topic that is not there.
    pub(super) fn no_topic_to_read(topic: &str) -> Self {
        let topic = shorten(topic);
        Self::new(
            response::TOPIC_NOT_EXIST,
            format!("topic[{topic}] not exist, apply first please! {FURTHER}"),
        )
    }

    /// A consumer names a group that is not there and may not be made.
    pub(super) fn no_group_to_read_for(group: &str) -> Self {
        let remark = format!("subscription group [{}] does not exist, {FURTHER}", shorten(group));
        Self::new(response::SUBSCRIPTION_GROUP_NOT_EXIST, remark)
    }

    /// Something is to be retried for a group that is not there.
    pub(super) fn no_group_to_retry_for(group: &str) -> Self {
        let remark = format!("subscription group not exist, {} {FURTHER}", shorten(group));
        Self::new(response::SUBSCRIPTION_GROUP_NOT_EXIST, remark)
    }

    /// A pull goes by a subscription that no heartbeat told.
    pub(super) fn not_subscribed(what: &str) -> Self {
        Self::new(response::SUBSCRIPTION_NOT_EXIST, format!("the consumer's {what} not exist{FURTHER}"))
    }

    /// What a pull or a pop subscribes to cannot be read; the log says why.
    pub(super) fn unreadable_subscription(why: &str) -> Self {
        tracing::info!(why, "a subscription cannot be read");
        Self::new(response::SUBSCRIPTION_PARSE_FAILED, "parse the consumer's subscription failed")
    }

    /// A group that is there may not consume.
    pub(super) fn group_may_not_consume(group: &str) -> Self {
        Self::new(response::NO_PERMISSION, format!("subscription group no permission, {group}"))
    }

    /// A consumer names a queue that its topic does not have.
    pub(super) fn no_queue_to_read(code: i32, topic: &TopicConfig, queue: i32, peer: SocketAddr) -> Self {
        let (name, queues) = (&topic.name, topic.read_queues);
        let remark = format!(
            "queueId[{queue}] is illegal, topic:[{name}] topicConfig.readQueueNums:[{queues}] consumer:[/{peer}]"
        );
        Self::new(code, remark)
    }
}

impl From<FieldError> for Refusal {
    fn from(error: FieldError) -> Self {
        Self::new(response::SYSTEM_ERROR, error.to_string())
    }
}

impl From<crate::Error> for Refusal {
    fn from(error: crate::Error) -> Self {
        Self::new(response::SYSTEM_ERROR, error.to_string())
    }
}
