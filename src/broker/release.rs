//! Messages that waited in a topic of the broker's own, on their way to their real topic and queue.

use std::borrow::Cow;

use super::{Broker, names};
use crate::{
    error::Result,
    format::{message::Record, properties},
    message::{Message, PutStatus, Queue, StoredMessage},
    store::Appended,
    types::PhysicalOffset,
};

/// A waiting message with the queue and the properties that it gets.
pub(super) struct Release<'a> {
    stored: &'a StoredMessage,
    queue: Queue,
    properties: Vec<u8>,
}

impl<'a> Release<'a> {
    /// To the queue that the message's properties name; `None` when they name none that it may go to.
    pub(super) fn new(broker: &Broker, stored: &'a StoredMessage, properties: Vec<u8>) -> Option<Self> {
        let record = stored.record();
        let topic = record.properties.get(properties::REAL_TOPIC)?;
        let queue_id =
            record.properties.get(properties::REAL_QID)?.parse().ok().filter(|id: &i32| *id >= 0)?;
        let own = [names::HALF_TOPIC, names::SCHEDULE_TOPIC, names::TIMER_TOPIC];
        if !names::is_topic(topic) || own.contains(&topic) {
            return None;
        }
        Some(Self { stored, queue: broker.queue(topic, queue_id).ok()?, properties })
    }

    /// To a queue of the caller's choice.
    pub(super) const fn to(stored: &'a StoredMessage, queue: Queue, properties: Vec<u8>) -> Self {
        Self { stored, queue, properties }
    }

    /// The message that waited.
    pub(super) const fn stored(&self) -> &StoredMessage {
        self.stored
    }

    /// The queue that it goes to.
    pub(super) const fn queue(&self) -> Queue {
        self.queue
    }

    /// The properties that it gets.
    pub(super) fn properties(&self) -> &[u8] {
        &self.properties
    }

    fn message(&self) -> Message<'_> {
        copy(&self.stored.record(), self.queue, self.properties.as_slice())
    }
}

/// A message like `record` for another queue or with other properties; nobody waits for it.
pub(super) fn copy<'a>(
    record: &Record<'a>,
    queue: Queue,
    properties: impl Into<Cow<'a, [u8]>>,
) -> Message<'a> {
    Message::new(queue, record.body)
        .properties_raw(properties)
        .flag(record.flag)
        .sys_flag(record.sys_flag)
        .born_timestamp(record.born_timestamp)
        .born_host(record.born_host)
        .store_host(record.store_host)
        .reconsume_times(record.reconsume_times)
        .wait_store(false)
}

/// Puts messages where they go, in order; where the last one ends in the log. A message that can never be put is left
/// out, or it would keep back all behind it.
pub(super) fn put_all(broker: &Broker, messages: &[Release<'_>]) -> Result<PhysicalOffset> {
    let all: Vec<_> = messages.iter().map(Release::message).collect();
    if all.len() > 1
        && let Ok(stored) = broker.store.put_batch(&all)
    {
        return Ok(stored.into_iter().map(end_of).max().unwrap_or_default());
    }
    let mut end = PhysicalOffset::ZERO;
    for message in &all {
        match broker.store.put(message) {
            Ok(stored) => end = end.max(end_of(stored)),
            Err(error)
                if matches!(
                    error.put_status(),
                    PutStatus::MessageIllegal | PutStatus::PropertiesSizeExceeded
                ) =>
            {
                tracing::error!(%error, "a message that waited cannot be delivered, left out");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(end)
}

#[allow(clippy::needless_pass_by_value)] // ends the wait that nobody waits for
fn end_of(stored: Appended) -> PhysicalOffset {
    stored.physical_offset().plus(stored.size())
}
