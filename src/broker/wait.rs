//! How a message waits before it reaches its queue: at a delay level, for a time, or not at all.

use super::{Broker, Refusal, names, property_text::TimerAsk, schedule::Delay, timer::Timed};
use crate::{error::Result, message::Queue, types::SysFlag};

/// A queue where messages wait, and the properties that one gets for that.
type Parked<'a> = (Queue, [(&'static str, &'a str); 3]);

/// What a message asked for, and where it really goes.
pub(super) enum Wait {
    /// It goes to its queue at once.
    None,
    /// In a queue of SCHEDULE_TOPIC_XXXX.
    Level(Delay),
    /// In rmq_sys_wheel_timer.
    Time(Timed),
}

impl Wait {
    /// A delay level counts before a time.
    ///
    /// # Errors
    /// RocketMQ's code for a time that cannot be kept.
    pub(super) fn of(
        broker: &Broker,
        level: i32,
        ask: &TimerAsk<'_>,
        sys_flag: SysFlag,
        (topic, queue_id): &(String, i32),
    ) -> Result<Self, Refusal> {
        if level > 0 {
            return Ok(Delay::of(broker, level, sys_flag, topic, *queue_id).map_or(Self::None, Self::Level));
        }
        Ok(Timed::of(broker, ask, sys_flag, topic, *queue_id)?.map_or(Self::None, Self::Time))
    }

    /// The queue where it waits and the properties that it gets for that.
    pub(super) fn parked(&self, broker: &Broker) -> Result<Option<Parked<'_>>> {
        Ok(match self {
            Self::None => None,
            Self::Level(delay) => {
                let queue = broker.store.queue(names::SCHEDULE_TOPIC, delay.queue_id())?;
                Some((queue, delay.properties()))
            }
            Self::Time(timed) => Some((Timed::queue(broker)?, timed.properties())),
        })
    }
}
