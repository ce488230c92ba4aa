//! Half messages: what they carry, and the copies that are made of them.
//!
//! Pure but for resolving queues: reads a record of RMQ_SYS_TRANS_HALF_TOPIC, and makes from it the message for its
//! real queue, the same half message once more, and the body by which a producer is asked about it.

use super::HALF_QUEUE;
use crate::{
    broker::{
        Broker, Refusal, names,
        property_text::{TimerAsk, rewritten},
        release::copy,
        wait::Wait,
    },
    error::Result,
    format::{
        message::{Draft, Limits, Place, Record},
        properties,
    },
    message::{Message, Queue, StoredMessage},
    store::Appended,
    types::{QueueId, SysFlag},
};

/// What a half message carries beside its producer's properties.
pub(in crate::broker) struct Parked {
    real_topic: String,
    real_queue: String,
    unique_key: String,
}

impl Parked {
    /// A half message for this queue.
    pub(in crate::broker) fn new(topic: &str, queue_id: i32, unique_key: &str) -> Self {
        let (real_topic, real_queue) = (topic.to_owned(), queue_id.to_string());
        Self { real_topic, real_queue, unique_key: unique_key.to_owned() }
    }

    /// The properties to add.
    pub(in crate::broker) fn properties(&self) -> [(&'static str, &str); 3] {
        [
            (properties::TRANSACTION_ID, &self.unique_key),
            (properties::REAL_TOPIC, &self.real_topic),
            (properties::REAL_QID, &self.real_queue),
        ]
    }

    /// The queue where half messages wait.
    pub(in crate::broker) fn queue(broker: &Broker) -> Result<Queue> {
        broker.store.queue(names::HALF_TOPIC, HALF_QUEUE)
    }
}

/// A half message in the log.
pub(super) struct Half<'a> {
    pub(super) record: Record<'a>,
    pub(super) real_topic: &'a str,
    pub(super) real_queue: i32,
    /// The group of its producers.
    pub(super) group: &'a str,
    /// How often a producer was asked about it.
    pub(super) checks: i32,
    /// How old it must be before a producer is asked, in milliseconds, when its producer said so.
    pub(super) immunity_ms: Option<i64>,
    /// The number that its first copy has in the half queue, when this is another one.
    pub(super) first: Option<i64>,
}

impl<'a> Half<'a> {
    /// Reads a message of `topic`; `None` when it belongs elsewhere or lacks what a half message has.
    pub(super) fn read(stored: &'a StoredMessage, topic: &str) -> Option<Self> {
        let record = stored.record();
        if record.topic != topic {
            return None;
        }
        let [real_topic, real_queue, group, checks, immunity, first] = record.properties.pick([
            properties::REAL_TOPIC,
            properties::REAL_QID,
            properties::PGROUP,
            properties::TRANSACTION_CHECK_TIMES,
            properties::CHECK_IMMUNITY_TIME_IN_SECONDS,
            properties::TRAN_PREPARED_QUEUE_OFFSET,
        ]);
        let number = |text: Option<&str>| text.and_then(|text| text.parse::<i64>().ok());
        let real_topic = real_topic.filter(|topic| names::is_topic(topic) && *topic != names::HALF_TOPIC)?;
        Some(Self {
            real_topic,
            real_queue: real_queue?.parse().ok().filter(|id| *id >= 0)?,
            group: group.unwrap_or(""),
            checks: number(checks).and_then(|checks| i32::try_from(checks).ok()).unwrap_or(0).max(0),
            immunity_ms: number(immunity).map(|seconds| seconds.saturating_mul(1_000)),
            first: number(first).filter(|first| *first >= 0),
            record,
        })
    }

    /// The committed message, for its real queue or, when it asks for a delay or a time, for the queue where it waits.
    pub(super) fn committed(&self, broker: &Broker) -> Result<Message<'a>, Refusal> {
        let record = &self.record;
        let sys_flag = record
            .sys_flag
            .with(SysFlag::TRANSACTION_ROLLBACK, false)
            .with(SysFlag::TRANSACTION_COMMIT, true);
        let level = record.properties.get(properties::DELAY).and_then(|level| level.parse().ok());
        let real = (self.real_topic.to_owned(), self.real_queue);
        let wait = Wait::of(broker, level.unwrap_or(0), &TimerAsk::of(&record.properties), sys_flag, &real)?;
        let drop = [properties::REAL_TOPIC, properties::REAL_QID, properties::CRC32];
        let (queue, text) = match wait.parked(broker)? {
            Some((queue, add)) => (queue, rewritten(record.properties.raw(), &drop, &add)),
            None => (
                broker.queue(self.real_topic, self.real_queue)?,
                rewritten(record.properties.raw(), &drop, &[]),
            ),
        };
        let wait = record.properties.get(properties::WAIT).is_none_or(|wait| wait != "false");
        Ok(copy(record, queue, text)
            .sys_flag(sys_flag)
            .prepared_transaction_offset(record.physical_offset.get())
            .wait_store(wait))
    }

    /// This half message once more, after one more check.
    pub(super) fn checked_again(&self, queue: Queue) -> Message<'a> {
        let checks = self.checks.saturating_add(1).to_string();
        copy(&self.record, queue, self.with((properties::TRANSACTION_CHECK_TIMES, &checks)))
    }

    /// This half message once more, to be looked at later.
    pub(super) fn not_checked_yet(&self, queue: Queue) -> Message<'a> {
        let first = self.first.unwrap_or(self.record.queue_offset.get()).to_string();
        copy(&self.record, queue, self.with((properties::TRAN_PREPARED_QUEUE_OFFSET, &first)))
    }

    /// This message as a half message that was never checked.
    pub(super) fn never_checked(&self, queue: Queue) -> Message<'a> {
        copy(&self.record, queue, self.with((properties::TRANSACTION_CHECK_TIMES, "0")))
    }

    fn with(&self, property: (&str, &str)) -> Vec<u8> {
        rewritten(self.record.properties.raw(), &[properties::CRC32], &[property])
    }

    /// The id that the producer gave the message.
    pub(super) fn unique_key(&self) -> Option<&'a str> {
        self.record.properties.get(properties::UNIQ_KEY)
    }

    /// The record that a producer is shown: `again`, as it was put behind the others, under its real topic and queue.
    pub(super) fn shown(&self, again: &Message<'_>, at: &Appended<'_>) -> Result<Vec<u8>> {
        let record = &self.record;
        let draft = Draft {
            topic: self.real_topic,
            queue_id: QueueId(self.real_queue),
            flag: record.flag,
            sys_flag: record.sys_flag,
            born_timestamp: record.born_timestamp,
            born_host: record.born_host,
            store_host: record.store_host,
            reconsume_times: record.reconsume_times,
            prepared_transaction_offset: record.prepared_transaction_offset,
            body: record.body,
            properties: &again.properties,
        };
        let unlimited = Limits {
            max_message_size: usize::MAX,
            auto_message_version: true,
            append_prop_crc: false,
            segment_size: usize::MAX,
        };
        let mut bytes = Vec::new();
        let place = Place {
            queue_offset: at.queue_offset(),
            physical_offset: at.physical_offset(),
            store_timestamp: record.store_timestamp,
        };
        draft.measure(unlimited)?.encode(place, &mut bytes);
        Ok(bytes)
    }
}
