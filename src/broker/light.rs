//! Light queues (`enableLmq`): topics and groups named `%LMQ%...` are there without being made. Such a topic has one
//! queue, which gets the messages whose INNER_MULTI_DISPATCH names it (`enableMultiDispatch`); neither it nor such a
//! group is in a table, known to a name server, or deleted for being unknown.

use std::sync::Arc;

use super::{
    Broker, Refusal,
    groups::GroupConfig,
    names,
    topics::{TopicConfig, perm},
};
use crate::{
    format::properties::{INNER_MULTI_DISPATCH, Properties},
    remoting::codes::response,
};

/// Whether `name` is one of a light queue.
pub(super) fn is_light(name: &str) -> bool {
    name.starts_with(names::LIGHT_PREFIX)
}

/// The topic of a light queue; `None` when there can be none of that name.
pub(super) fn topic(name: &str) -> Option<Arc<TopicConfig>> {
    names::is_topic(name).then(|| Arc::new(TopicConfig::new(name, 1, perm::READ | perm::WRITE)))
}

/// The group of a light queue's consumer; `None` when there can be none of that name.
pub(super) fn group(name: &str) -> Option<Arc<GroupConfig>> {
    names::is_group(name).then(|| Arc::new(GroupConfig::new(name)))
}

/// Checks the queues that a message names to be dispatched to as well.
///
/// # Errors
/// MESSAGE_ILLEGAL when one cannot be a topic, is one of the broker's own, or takes nothing but batches.
pub(super) fn check(broker: &Broker, properties: &[u8], own: &[&str]) -> Result<(), Refusal> {
    if !broker.config.store.multi_dispatch {
        return Ok(());
    }
    let named = Properties::new(properties).get(INNER_MULTI_DISPATCH).unwrap_or_default();
    let takes_none = |name: &str| {
        let batches = broker.topics.get(name).is_some_and(|topic| topic.takes_batches());
        !names::is_topic(name) || own.contains(&name) || batches
    };
    let bad = named.split(',').find(|name| !name.is_empty() && takes_none(name));
    match bad {
        None => Ok(()),
        Some(name) => {
            let why =
                format!("{INNER_MULTI_DISPATCH} names {:?}, which gets no messages so", names::shorten(name));
            Err(Refusal::new(response::MESSAGE_ILLEGAL, why))
        }
    }
}
