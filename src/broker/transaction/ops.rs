//! What became of half messages: the messages of RMQ_SYS_TRANS_OP_HALF_TOPIC.
//!
//! One such message has the tag `d` and as its body the numbers of ended half messages in the half queue, each followed
//! by a comma. [`Ended`] gathers numbers and writes them when `transactionOpBatchInterval` has passed since the last
//! time, or as soon as they fill a body of `transactionOpMsgMaxSize`. A crash in between loses numbers, so that their
//! producers are asked once more.

use std::{collections::BTreeSet, fmt::Write, time::Duration};

use parking_lot::Mutex;

use super::HALF_QUEUE;
use crate::{
    broker::{Broker, names},
    error::Result,
    format::properties,
    message::{Message, StoredMessage},
};

/// The tag of every message here.
const TAG: &str = "d";
/// Numbers that may wait; one more writes them all at once.
const MAX_WAITING: usize = 200_000;
/// Bytes that a number and its comma take, to tell when they fill a body.
const NUMBER_LEN: usize = 8;

#[derive(Debug, Default)]
struct Waiting {
    numbers: BTreeSet<i64>,
    /// Written down since the last check; the least are forgotten when there are too many.
    written: BTreeSet<i64>,
    written_at: Option<Duration>,
}

/// Numbers of half messages that were ended and are not written down yet, or were not checked since.
#[derive(Debug, Default)]
pub(super) struct Ended(Mutex<Waiting>);

impl Ended {
    /// Notes that the half message was ended.
    pub(super) fn add(&self, broker: &Broker, half: i64) {
        let due = {
            let mut waiting = self.0.lock();
            waiting.numbers.insert(half);
            waiting.until_due(broker) == Duration::ZERO
        };
        if due {
            broker.transactions.worker.wake();
        }
    }

    /// Whether the half message was ended since the last check.
    pub(super) fn contains(&self, half: i64) -> bool {
        let waiting = self.0.lock();
        waiting.numbers.contains(&half) || waiting.written.contains(&half)
    }

    /// Forgets what is written down of the half messages before this one.
    pub(super) fn forget_before(&self, half: i64) {
        let mut waiting = self.0.lock();
        waiting.written = waiting.written.split_off(&half);
    }

    /// Writes everything when there is too much of it: the thread does not keep up.
    pub(super) fn make_room(&self, broker: &Broker) -> Result<()> {
        if self.0.lock().numbers.len() < MAX_WAITING {
            return Ok(());
        }
        self.write_all(broker)
    }

    /// How long until something must be written; long when nothing waits.
    pub(super) fn until_due(&self, broker: &Broker) -> Duration {
        self.0.lock().until_due(broker)
    }

    /// Writes everything if it is time.
    pub(super) fn write_due(&self, broker: &Broker) -> Result<()> {
        if self.until_due(broker) > Duration::ZERO {
            return Ok(());
        }
        self.write_all(broker)
    }

    /// Writes everything. What could not be written stays.
    pub(super) fn write_all(&self, broker: &Broker) -> Result<()> {
        let numbers = self.0.lock().numbers.clone();
        let mut left = numbers.iter().copied();
        let max = broker.config.transaction_op_max_bytes;
        while let Some(body) = next_body(&mut left, max) {
            put(broker, body.as_bytes())?;
            let mut waiting = self.0.lock();
            for number in read_body(body.as_bytes()) {
                waiting.numbers.remove(&number);
                waiting.written.insert(number);
            }
            while waiting.written.len() > MAX_WAITING {
                waiting.written.pop_first();
            }
            waiting.written_at = Some(broker.clock.monotonic());
        }
        Ok(())
    }
}

impl Waiting {
    fn until_due(&self, broker: &Broker) -> Duration {
        if self.numbers.is_empty() {
            return Duration::MAX;
        }
        if self.numbers.len().saturating_mul(NUMBER_LEN) >= broker.config.transaction_op_max_bytes {
            return Duration::ZERO;
        }
        let interval = Duration::from_millis(broker.config.transaction_op_interval_ms);
        self.written_at
            .map_or(Duration::ZERO, |at| at.saturating_add(interval).saturating_sub(broker.clock.monotonic()))
    }
}

/// The next body of at most `max` bytes, or of one number.
fn next_body(numbers: &mut impl Iterator<Item = i64>, max: usize) -> Option<String> {
    let mut body = String::new();
    for number in numbers {
        // Writing to a string cannot fail.
        let _ = write!(body, "{number},");
        if body.len() + 20 > max {
            break;
        }
    }
    (!body.is_empty()).then_some(body)
}

/// The numbers in a body; what is no number is left out.
fn read_body(body: &[u8]) -> impl Iterator<Item = i64> {
    body.split(|byte| *byte == b',').filter_map(|text| std::str::from_utf8(text).ok()?.parse().ok())
}

/// The numbers in a message of this topic; none when it is something else.
pub(super) fn numbers_in(message: &StoredMessage) -> Vec<i64> {
    if message.tags() != Some(TAG) {
        tracing::error!(offset = %message.physical_offset(), "a message of the op topic has another tag: left out");
        return Vec::new();
    }
    read_body(message.body()).collect()
}

fn put(broker: &Broker, body: &[u8]) -> Result<()> {
    let queue = broker.store.queue(names::OP_HALF_TOPIC, HALF_QUEUE)?;
    let message = Message::new(queue, body)
        .tags(TAG)
        .property(properties::WAIT, "true")
        .born_host(broker.store_host)
        .store_host(broker.store_host)
        .wait_store(false);
    drop(broker.store.put(&message)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_java_writes_them_and_read_back() {
        let mut numbers = [7_i64, 19, 1_000_000].into_iter();
        assert_eq!(next_body(&mut numbers, 4_096).as_deref(), Some("7,19,1000000,"));
        assert_eq!(next_body(&mut numbers, 4_096), None);
        assert_eq!(read_body(b"0,1,").collect::<Vec<_>>(), [0, 1]);
        assert_eq!(
            read_body(b"5").collect::<Vec<_>>(),
            [5],
            "releases before 5.1 wrote one number and no comma"
        );
        assert_eq!(read_body(b",x,9,,\xff,-1,").collect::<Vec<_>>(), [9, -1]);
    }

    #[test]
    fn a_body_is_no_longer_than_allowed_and_holds_one_number_at_least() {
        let mut numbers = 100..400;
        let mut bodies = Vec::new();
        while let Some(body) = next_body(&mut numbers, 100) {
            assert!(body.len() <= 100 && body.ends_with(','), "{body}");
            bodies.push(body);
        }
        assert_eq!(read_body(bodies.concat().as_bytes()).collect::<Vec<_>>(), (100..400).collect::<Vec<_>>());
        assert_eq!(next_body(&mut [i64::MAX].into_iter(), 1).unwrap(), format!("{},", i64::MAX));
    }
}
