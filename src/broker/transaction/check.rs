//! The check: what happens to half messages that nobody ended.
//!
//! A pass reads the numbers of ended half messages from where the op queue was done, and goes through the half queue
//! from where it was done, in order, until it meets a half message that is too young. What was ended is passed over.
//! What was not is put again behind all others, so that the queue can be done up to any point, and its producer is asked
//! about the new copy. Then both queues' offsets move on; what a pass did is synced before that.

use std::{collections::HashSet, ops::Range, sync::atomic::Ordering::Relaxed, time::Duration};

use super::{HALF_QUEUE, half::Half, ops, settled::State};
use crate::{
    broker::{
        Broker,
        names::{self, TRANSACTION_GROUP},
        property_text::rewritten,
        release::copy,
        topics::perm,
    },
    error::Result,
    format::properties,
    message::{GetStatus, Queue, StoredMessage},
    remoting::{Command, codes::request::CHECK_TRANSACTION_STATE},
    store::GetRequest,
    types::{QueueOffset, StoreTimestamp},
};

/// How long one pass may take; what is left waits for the next.
const PASS: Duration = Duration::from_secs(60);
/// How long a pass waits until what was written is in the queues.
const DISPATCH: Duration = Duration::from_secs(5);
/// Op messages read at a time.
const OPS: usize = 32;
/// Numbers of ended half messages that a pass holds in memory. With more, some producers are asked once more.
const MAX_NUMBERS: usize = 1 << 20;
/// Bytes that may wait for a producer which is asked.
const MAX_UNSENT: usize = 4 << 20;
/// Queues of the topic for transactions that were given up.
const GIVEN_UP_QUEUES: i32 = 1;

/// What to do with a half message that was not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It and all behind it are too young.
    Stop,
    /// Its producer wants more time than others.
    Later,
    /// Asked about often enough, or too old.
    GiveUp,
    /// Ask its producer.
    Ask,
}

/// What verdicts depend on beside the message.
#[derive(Clone, Copy, Debug)]
struct Rules {
    /// When the pass started.
    start: i64,
    timeout_ms: i64,
    max_checks: i32,
    reserved_ms: i64,
}

impl Rules {
    fn of(broker: &Broker, start: StoreTimestamp) -> Self {
        Self {
            start: start.get(),
            timeout_ms: broker.live.transaction_timeout_ms(),
            max_checks: broker.live.transaction_check_max.load(Relaxed),
            reserved_ms: i64::try_from(broker.live.file_reserved_hours.load(Relaxed))
                .unwrap_or(i64::MAX / 3_600_000)
                * 3_600_000,
        }
    }

    fn judge(&self, half: &Half<'_>, now: i64) -> Verdict {
        let record = &half.record;
        let born = now - record.born_timestamp.get();
        if half.checks >= self.max_checks || (half.checks > 0 && born > self.reserved_ms) {
            return Verdict::GiveUp;
        }
        if record.store_timestamp.get() >= self.start {
            return Verdict::Stop;
        }
        // A producer whose clock is ahead made it in the future: then its time here counts.
        let age = if born < 0 { now - record.store_timestamp.get() } else { born };
        match half.immunity_ms {
            Some(immunity) if age <= immunity => Verdict::Later,
            None if age <= self.timeout_ms => Verdict::Stop,
            _ => Verdict::Ask,
        }
    }
}

/// The half messages that were ended, as far as the op queue is not done.
#[derive(Debug, Default)]
struct Ends {
    numbers: HashSet<i64>,
    /// Each op message: its offset, the least and the greatest number in it.
    ops: Vec<(i64, i64, i64)>,
    /// The first op message that was not read.
    next: i64,
}

impl Ends {
    fn read(broker: &Broker, queue: Option<Queue>, from: i64) -> Result<Self> {
        let mut ends = Self { next: from, ..Self::default() };
        let Some(queue) = queue else { return Ok(ends) };
        while ends.numbers.len() < MAX_NUMBERS {
            let found = broker.store.fetch(&from_on(queue, ends.next, OPS))?;
            let next = found.next_offset.get();
            for message in found.messages {
                ends.add(message.queue_offset().get(), &ops::numbers_in(&message));
            }
            if next <= ends.next || is_end(found.status) {
                break;
            }
            ends.next = next;
        }
        Ok(ends)
    }

    fn add(&mut self, offset: i64, numbers: &[i64]) {
        let least = numbers.iter().copied().min().unwrap_or(i64::MAX);
        let greatest = numbers.iter().copied().max().unwrap_or(-1);
        self.ops.push((offset, least, greatest));
        self.numbers.extend(numbers);
    }

    fn contains(&self, number: i64) -> bool {
        self.numbers.contains(&number)
    }

    /// The first op message that is still needed when the half queue, which was done up to `from`, is done up to `to`.
    /// Numbers before `from` may stand for copies further on; unless all those were met, their op messages stay.
    fn done(&self, from: i64, to: i64, met_all_copies: bool) -> i64 {
        let needed =
            |(_, least, greatest): &&(i64, i64, i64)| *greatest >= to || (*least < from && !met_all_copies);
        self.ops.iter().find(needed).map_or(self.next, |(offset, ..)| *offset)
    }
}

/// Why a pass went no further.
enum Stop {
    /// All half messages that were there when the pass began were looked at.
    End,
    /// The one stored at this time is too young.
    Young(StoreTimestamp),
    /// It could not; the reason was told.
    Failed,
}

/// Takes passes.
#[derive(Debug)]
pub(super) struct Checker {
    /// Half messages of this pass whose producers are gone.
    unasked: usize,
    /// When a half message was last put again without being asked about: all such copies are this old.
    copied: StoreTimestamp,
}

impl Checker {
    /// A checker that starts now and knows nothing of what was before.
    pub(super) const fn new(now: StoreTimestamp) -> Self {
        Self { unasked: 0, copied: now }
    }

    /// One pass. What it could not do is told and left for the next.
    pub(super) fn check(&mut self, broker: &Broker) {
        if let Err(error) = self.pass(broker) {
            tracing::warn!(%error, "transactions not checked, trying again");
        }
    }

    fn pass(&mut self, broker: &Broker) -> Result<()> {
        let Some(halves) = broker.store.find_queue(names::HALF_TOPIC, HALF_QUEUE) else { return Ok(()) };
        broker.transactions.ops.write_all(broker)?;
        let start = broker.clock.now();
        if !broker.store.wait_dispatched(DISPATCH)? {
            tracing::warn!("the queues are far behind the log: transactions are checked later");
            return Ok(());
        }
        let ops = broker.store.find_queue(names::OP_HALF_TOPIC, HALF_QUEUE);
        let from = position(broker, names::HALF_TOPIC, halves);
        let ops_from = ops.map_or(0, |queue| position(broker, names::OP_HALF_TOPIC, queue));
        let ends = Ends::read(broker, ops, ops_from)?;
        self.unasked = 0;
        // What is behind this is put by this pass or after it began. Times do not tell: records have a coarser clock's.
        let end = broker.store.max_offset(halves).get();
        let (to, stop) = self.scan(broker, halves, from..end, &ends, start);
        if self.unasked > 0 {
            let unasked = self.unasked;
            tracing::warn!("no producer is connected that could be asked about {unasked} half messages");
        }
        let met_all_copies = match stop {
            Stop::End => true,
            Stop::Young(stored) => stored > self.copied || stored >= start,
            Stop::Failed => false,
        };
        let ops_to = ends.done(from, to, met_all_copies);
        if to == from && ops_to == ops_from {
            return Ok(());
        }
        broker.store.sync()?;
        for (topic, offset) in [(names::HALF_TOPIC, to), (names::OP_HALF_TOPIC, ops_to)] {
            broker.offsets.commit(TRANSACTION_GROUP, topic, HALF_QUEUE, offset);
        }
        broker.save_offsets();
        broker.transactions.ops.forget_before(to);
        tracing::debug!(from, to, ops_from, ops_to, "transactions checked");
        Ok(())
    }

    /// Goes through `numbers` of the half queue; where it came to, and why not further.
    fn scan(
        &mut self,
        broker: &Broker,
        queue: Queue,
        numbers: Range<i64>,
        ends: &Ends,
        start: StoreTimestamp,
    ) -> (i64, Stop) {
        let rules = Rules::of(broker, start);
        let until = broker.clock.monotonic() + PASS;
        let mut at = numbers.start;
        while at < numbers.end {
            if broker.transactions.worker.is_stopped() || broker.clock.monotonic() > until {
                return (at, Stop::Failed);
            }
            if ends.contains(at) || broker.transactions.ops.contains(at) {
                at += 1;
                continue;
            }
            let found = match broker.store.fetch(&from_on(queue, at, 1)) {
                Ok(found) => found,
                Err(error) => return (at, failed(&error)),
            };
            let Some(stored) = found.messages.first() else {
                if is_end(found.status) || found.next_offset.get() <= at {
                    return (at, Stop::End);
                }
                tracing::warn!(at, next = %found.next_offset, "half messages are gone from the log");
                at = found.next_offset.get();
                continue;
            };
            at = stored.queue_offset().get();
            if at >= numbers.end {
                break;
            }
            match self.treat(broker, queue, stored, ends, &rules) {
                Ok(None) => at += 1,
                Ok(Some(stop)) => return (at, stop),
                Err(error) => return (at, failed(&error)),
            }
        }
        (at, Stop::End)
    }

    /// Does what one half message needs; `Some` when the pass ends before it.
    fn treat(
        &mut self,
        broker: &Broker,
        queue: Queue,
        stored: &StoredMessage,
        ends: &Ends,
        rules: &Rules,
    ) -> Result<Option<Stop>> {
        let Some(half) = Half::read(stored, names::HALF_TOPIC) else {
            tracing::error!(offset = %stored.physical_offset(), "a half message names no real queue: given up");
            return give_up(broker, stored).map(|()| None);
        };
        if half.first.is_some_and(|first| ends.contains(first) || broker.transactions.ops.contains(first)) {
            return Ok(None);
        }
        let number = half.record.queue_offset.get();
        match broker.transactions.settled.state(number) {
            State::Open => {}
            State::Ended => {
                broker.transactions.ops.add(broker, number);
                return Ok(None);
            }
            // Whether it is ended shows before the next pass.
            State::Ending => return Ok(Some(Stop::Failed)),
        }
        match rules.judge(&half, broker.clock.now().get()) {
            Verdict::Stop => return Ok(Some(Stop::Young(half.record.store_timestamp))),
            Verdict::Later => {
                let copy = broker.store.put(&half.not_checked_yet(queue))?;
                broker.transactions.settled.copied(number, copy.queue_offset().get());
                self.copied = broker.clock.now();
            }
            Verdict::GiveUp => {
                tracing::warn!(
                    topic = half.real_topic,
                    group = half.group,
                    key = half.unique_key(),
                    checks = half.checks,
                    "a transaction that nobody ends was given up, to {}",
                    names::CHECK_MAX_TIME_TOPIC
                );
                give_up(broker, stored)?;
                broker.halves.add(half.real_topic, -1, broker.clock.now());
            }
            Verdict::Ask => match ask(broker, queue, &half)? {
                Asking::Asked => {}
                Asking::NobodyThere => self.unasked += 1,
                Asking::NotNow => return Ok(Some(Stop::Failed)),
            },
        }
        Ok(None)
    }
}

/// What came of asking.
enum Asking {
    Asked,
    /// No producer of the group is connected.
    NobodyThere,
    /// The producer has enough to read already.
    NotNow,
}

fn failed(error: &crate::Error) -> Stop {
    tracing::warn!(%error, "a half message could not be handled, trying again");
    Stop::Failed
}

/// Puts the half message again and asks a producer of its group about the copy. Without a live producer it counts as
/// asked, as in RocketMQ.
fn ask(broker: &Broker, queue: Queue, half: &Half<'_>) -> Result<Asking> {
    let producer = broker.clients.any_producer(half.group);
    if producer.as_ref().is_some_and(|producer| producer.conn.unsent() > MAX_UNSENT) {
        tracing::warn!(
            group = half.group,
            "its producer reads too slowly to be asked about more transactions"
        );
        return Ok(Asking::NotNow);
    }
    let again = half.checked_again(queue);
    let at = broker.store.put(&again)?;
    broker.transactions.settled.copied(half.record.queue_offset.get(), at.queue_offset().get());
    let Some(producer) = producer else {
        tracing::debug!(
            group = half.group,
            key = half.unique_key(),
            "no producer to ask about a transaction"
        );
        return Ok(Asking::NobodyThere);
    };
    let question = Command::oneway(CHECK_TRANSACTION_STATE)
        .with_field("bname", &broker.config.name)
        .with_field("topic", names::HALF_TOPIC)
        .with_field("commitLogOffset", at.physical_offset())
        .with_field("tranStateTableOffset", at.queue_offset())
        .with_field("offsetMsgId", at.message_id())
        .with_optional_field("msgId", half.unique_key())
        .with_optional_field("transactionId", half.unique_key())
        .with_body(bytes::Bytes::from(half.shown(&again, &at)?));
    producer.conn.send(question);
    tracing::debug!(
        group = half.group,
        client = producer.client_id,
        key = half.unique_key(),
        "producer asked"
    );
    Ok(Asking::Asked)
}

/// Puts a half message where operators find it; they can have it taken up again.
fn give_up(broker: &Broker, stored: &StoredMessage) -> Result<()> {
    let topic = names::CHECK_MAX_TIME_TOPIC;
    broker.ensure_topic(topic, GIVEN_UP_QUEUES, perm::READ | perm::WRITE, 0);
    let record = stored.record();
    let text = rewritten(record.properties.raw(), &[properties::CRC32], &[]);
    drop(broker.store.put(&copy(&record, broker.store.queue(topic, 0)?, text))?);
    Ok(())
}

const fn from_on(queue: Queue, from: i64, max_messages: usize) -> GetRequest<'static> {
    let offset = QueueOffset(from);
    GetRequest { queue, offset, max_messages, max_bytes: usize::MAX, max_scan: 0, filter: None }
}

/// Whether a read found nothing because there is nothing behind.
const fn is_end(status: GetStatus) -> bool {
    matches!(
        status,
        GetStatus::NoMessageInQueue | GetStatus::OffsetOverflowOne | GetStatus::NoMatchedLogicQueue
    )
}

/// How far a queue is done, within what there is of it.
fn position(broker: &Broker, topic: &str, queue: Queue) -> i64 {
    let (min, max) = (broker.store.min_offset(queue).get(), broker.store.max_offset(queue).get());
    let kept = broker.offsets.query(TRANSACTION_GROUP, topic, HALF_QUEUE);
    kept.unwrap_or(min).clamp(min, max.max(min))
}
