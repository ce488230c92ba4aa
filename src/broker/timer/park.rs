//! A message that asks for a time: on its way into the timer topic.

use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use crate::{
    broker::{Broker, Refusal, names, property_text::TimerAsk},
    error::Result,
    format::properties,
    message::Queue,
    remoting::codes::response,
    types::{SysFlag, TransactionType},
};

/// The queue of the timer topic.
pub(super) const TIMER_QUEUE: i32 = 0;

/// What a timed message carries, and where it really goes.
pub(in crate::broker) struct Timed {
    out_ms: i64,
    out_text: String,
    real_topic: String,
    real_queue: String,
}

impl Timed {
    /// The time that a message asks for; `None` when it asks for none, when that time has come already, or when the
    /// message is part of a transaction that is not committed.
    ///
    /// # Errors
    /// RocketMQ's code when the time is no number, too far away, or has more messages than it may.
    pub(in crate::broker) fn of(
        broker: &Broker,
        ask: &TimerAsk<'_>,
        sys_flag: SysFlag,
        topic: &str,
        queue_id: i32,
    ) -> Result<Option<Self>, Refusal> {
        let free = matches!(sys_flag.transaction(), TransactionType::None | TransactionType::Commit);
        if !free || !ask.is_there() || topic == names::TIMER_TOPIC {
            return Ok(None);
        }
        if !broker.config.timer_wheel {
            let remark = "accurate timer message is not enabled, timerWheelEnable is false";
            return Err(Refusal::new(response::SYSTEM_ERROR, remark));
        }
        let now = broker.clock.now().get();
        let most = i64::try_from(broker.config.timer_max_delay_s).unwrap_or(i64::MAX).saturating_mul(1_000);
        let illegal = || {
            let remark = format!(
                "timer message illegal, the delay time should not be bigger than the max delay {most}ms; or if set del \
                 msg, the delay time should be bigger than the current time"
            );
            Refusal::new(response::MESSAGE_ILLEGAL, remark)
        };
        let due = ask.due_ms(now).ok_or_else(illegal)?;
        if due <= now {
            if ask.deletes {
                return Err(illegal());
            }
            return Ok(None);
        }
        if due - now > most {
            return Err(illegal());
        }
        // The time before it: everything of a time is delivered when that time is over.
        let precision = broker.config.timer_precision_ms();
        let out_ms = (due - 1).div_euclid(precision) * precision;
        if is_crowded(broker, out_ms) {
            let from = i64::from(broker.config.timer_congestion);
            let to = from * 2;
            let remark = format!(
                "timer message is under flow control, max num limit is {to} or the current value is greater than {from} \
                 and less than {to}, trigger random flow control"
            );
            return Err(Refusal::new(response::SYSTEM_ERROR, remark));
        }
        Ok(Some(Self {
            out_ms,
            out_text: out_ms.to_string(),
            real_topic: topic.to_owned(),
            real_queue: queue_id.to_string(),
        }))
    }

    /// What the waiting message carries.
    pub(in crate::broker) fn properties(&self) -> [(&'static str, &str); 3] {
        [
            (properties::TIMER_OUT_MS, &self.out_text),
            (properties::REAL_TOPIC, &self.real_topic),
            (properties::REAL_QID, &self.real_queue),
        ]
    }

    /// The queue that it waits in.
    pub(in crate::broker) fn queue(broker: &Broker) -> Result<Queue> {
        broker.store.queue(names::TIMER_TOPIC, TIMER_QUEUE)
    }

    /// The handle by which its producer can take it back; none for a retry.
    pub(in crate::broker) fn recall_handle(&self, broker: &Broker, unique_key: &str) -> Option<String> {
        // One more than the time, which was rounded down and is rounded down again.
        (!self.real_topic.starts_with(names::RETRY_PREFIX)).then(|| {
            super::recall::handle(&self.real_topic, &broker.config.name, self.out_ms + 1, unique_key)
        })
    }
}

/// Whether a time has so many messages that another is refused: with a growing share from
/// `timerCongestNumEachSlot` on, always at twice that.
fn is_crowded(broker: &Broker, out_ms: i64) -> bool {
    static TURN: AtomicI64 = AtomicI64::new(0);
    let limit = i64::from(broker.config.timer_congestion);
    let Some(over) =
        broker.timer.count(out_ms).map(|count| i64::from(count) - limit).filter(|over| *over > 0)
    else {
        return false;
    };
    over >= limit || over * 1_000 / limit.max(1) > TURN.fetch_add(1, Relaxed) % 1_000
}
