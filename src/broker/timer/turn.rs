//! What the timer thread does in a turn: take in what came, deliver what is due, take in what came meanwhile.

use std::collections::HashSet;

use super::{
    format::{Deed, Slot, Unit},
    park::TIMER_QUEUE,
    recall::delete_key,
    state::{State, floor},
};
use crate::{
    broker::{Broker, names, property_text::rewritten, release::Release},
    error::Result,
    format::{hash::java_string_hash, message::Record, properties},
    message::{Queue, StoredMessage},
    store::GetRequest,
    types::{PhysicalOffset, QueueOffset},
};

/// Messages that are read or put at once.
const BATCH: usize = 32;
/// The mark of a message that was due before it came into the wheel.
const NEVER_ENQUEUED: i64 = i64::MAX;

impl State {
    pub(super) fn take_turn(&mut self, broker: &Broker) -> Result<()> {
        self.write_ms = self.write_ms.max(floor(broker.clock.now().get(), self.precision_ms));
        // First, for what is due may have been taken back while nothing was taken in: before a stop, say.
        let came = broker.store.find_queue(names::TIMER_TOPIC, TIMER_QUEUE);
        let came = came.map_or(0, |queue| broker.store.max_offset(queue).get());
        while self.queue_offset < came && self.take_in(broker)? {
            self.show();
        }
        while self.read_ms < self.write_ms {
            self.deliver(broker)?;
            self.read_ms += self.precision_ms;
            self.done = 0;
            self.show();
        }
        while self.take_in(broker)? {
            self.show();
        }
        self.show();
        Ok(())
    }

    /// Delivers all of the time `read_ms`.
    fn deliver(&mut self, broker: &Broker) -> Result<()> {
        let Some(wheel) = self.made_wheel() else { return Ok(()) };
        let Some(slot) = wheel.get(self.read_ms) else { return Ok(()) };
        let places = self.chain(&slot);
        let deleted = self.deleted(broker, &places);
        for batch in places[self.done.min(places.len())..].chunks(BATCH) {
            self.deliver_batch(broker, batch, &deleted)?;
            self.done += batch.len();
        }
        self.waiting -= i64::from(slot.count);
        Ok(())
    }

    /// The places of a slot's units, oldest first. Each unit leads to one before it, so this ends.
    fn chain(&self, slot: &Slot) -> Vec<i64> {
        let mut places = Vec::new();
        let mut at = slot.last;
        while at >= 0 {
            let unit = self.log.get(at).filter(|unit| unit.due_ms.div_euclid(self.precision_ms) == slot.time);
            let Some(unit) = unit else {
                tracing::warn!(at, due = self.read_ms, "a chain of timed messages is broken off");
                break;
            };
            places.push(at);
            if unit.prev >= at {
                break;
            }
            at = unit.prev;
        }
        places.reverse();
        places
    }

    /// The messages of a slot that are taken back.
    fn deleted(&self, broker: &Broker, places: &[i64]) -> HashSet<String> {
        let deletes = |unit: &Unit| unit.deed.deletes && !unit.deed.rolls;
        let units = places.iter().filter_map(|at| self.log.get(*at)).filter(deletes);
        units
            .filter_map(|unit| {
                let stored = message_of(broker, &unit)?;
                stored.properties().get(properties::TIMER_DEL_UNIQKEY).map(str::to_owned)
            })
            .collect()
    }

    fn deliver_batch(&mut self, broker: &Broker, places: &[i64], deleted: &HashSet<String>) -> Result<()> {
        let mut found: Vec<(Unit, StoredMessage)> = Vec::with_capacity(places.len());
        for at in places {
            let Some(unit) = self.log.get(*at) else { continue };
            match message_of(broker, &unit) {
                Some(stored) => found.push((unit, stored)),
                None => tracing::warn!(offset = unit.offset, "a timed message is gone from the log"),
            }
        }
        let now = broker.clock.now().get();
        let timer_queue = super::Timed::queue(broker)?;
        let releases: Vec<_> = found
            .iter()
            .filter_map(|(unit, stored)| {
                let record = stored.record();
                if unit.deed.rolls {
                    let text = around(&record, unit.written_ms, now);
                    return Some(Release::to(stored, timer_queue, text));
                }
                if unit.deed.deletes || is_deleted(&record, deleted) {
                    return None;
                }
                to_real(broker, stored, &record, unit.written_ms, now)
            })
            .collect();
        self.put(broker, releases)?;
        for (unit, stored) in &found {
            count(broker, &stored.record(), -unit.deed.counts());
        }
        Ok(())
    }

    fn put(&mut self, broker: &Broker, releases: Vec<Release<'_>>) -> Result<()> {
        if !releases.is_empty() {
            self.delivered = self.delivered.max(broker.timer.delivered.put_rest(broker, releases)?);
        }
        Ok(())
    }

    /// Takes the next messages of the topic in; whether there may be more.
    fn take_in(&mut self, broker: &Broker) -> Result<bool> {
        let store = &broker.store;
        let Some(queue) = store.find_queue(names::TIMER_TOPIC, TIMER_QUEUE) else { return Ok(false) };
        self.keep_within(store);
        if self.queue_offset >= store.max_offset(queue).get() {
            return Ok(false);
        }
        let found = store.fetch(&request(queue, self.queue_offset))?;
        let next = found.next_offset.get();
        for stored in &found.messages {
            self.take_one(broker, stored)?;
            self.queue_offset = stored.queue_offset().get() + 1;
        }
        // Entries that lead to no message are passed.
        let moved = next > self.queue_offset || !found.messages.is_empty();
        self.queue_offset = self.queue_offset.max(next);
        Ok(moved)
    }

    fn take_one(&mut self, broker: &Broker, stored: &StoredMessage) -> Result<()> {
        let record = stored.record();
        let out = record.properties.get(properties::TIMER_OUT_MS).and_then(|out| out.parse::<i64>().ok());
        let Some(out_ms) = out else {
            tracing::error!(offset = %record.physical_offset, "a timed message says no time, left out");
            return Ok(());
        };
        let again = stored.queue_offset().get() < self.before.queue_offset;
        if self.before.units.remove(&record.physical_offset.get()) {
            return Ok(());
        }
        if again {
            // Seen before, and it has no unit: it was delivered, it went round, or its unit is lost.
            let (then, _) = self.due(out_ms, floor(record.store_timestamp.get(), self.precision_ms));
            if then < self.before.read_ms {
                return Ok(());
            }
        }
        let deletes = record.properties.get(properties::TIMER_DEL_UNIQKEY).is_some();
        let is_over = out_ms < self.read_ms || out_ms < self.write_ms - self.window_ms;
        if is_over {
            if deletes {
                return Ok(());
            }
            let now = broker.clock.now().get();
            let release = to_real(broker, stored, &record, NEVER_ENQUEUED, now);
            return self.put(broker, release.into_iter().collect());
        }
        self.enqueue(broker, &record, out_ms, deletes)
    }

    /// When a message that is due at `out_ms` has its turn when it is taken in at `now_ms`, and whether it then goes
    /// round again.
    const fn due(&self, out_ms: i64, now_ms: i64) -> (i64, bool) {
        let over = out_ms - now_ms - self.window_ms;
        if over < 0 {
            return (out_ms, false);
        }
        // A short last round would leave little time for being taken in again.
        let round = if over < self.window_ms / 3 { self.window_ms / 2 } else { self.window_ms };
        (now_ms + floor(round, self.precision_ms), true)
    }

    fn enqueue(&mut self, broker: &Broker, record: &Record<'_>, out_ms: i64, deletes: bool) -> Result<()> {
        let (due_ms, rolls) = self.due(out_ms, self.write_ms);
        let wheel = self.wheel()?;
        let before = wheel.get(due_ms);
        let deed = Deed { rolls, deletes };
        let topic = record.properties.get(properties::REAL_TOPIC).unwrap_or("");
        let unit = Unit {
            prev: before.map_or(-1, |slot| slot.last),
            deed,
            written_ms: self.write_ms,
            due_ms,
            offset: record.physical_offset.get(),
            size: i32::try_from(record.total_size).unwrap_or(i32::MAX),
            topic_hash: java_string_hash(topic),
        };
        let at = self.log.append(&unit)?;
        let slot = Slot::with(before, wheel.time(due_ms), at, deed);
        wheel.put(&slot)?;
        count(broker, record, deed.counts());
        self.waiting += i64::from(slot.count) - before.map_or(0, |slot| i64::from(slot.count));
        Ok(())
    }
}

fn request(queue: Queue, offset: i64) -> GetRequest<'static> {
    GetRequest {
        queue,
        offset: QueueOffset(offset),
        max_messages: BATCH,
        max_bytes: usize::MAX,
        max_scan: BATCH,
        filter: None,
    }
}

/// The message that a unit leads to; `None` when its place holds another one.
fn message_of(broker: &Broker, unit: &Unit) -> Option<StoredMessage> {
    let stored = broker.store.message_at(PhysicalOffset(unit.offset)).ok()??;
    let record = stored.record();
    let same = record.topic == names::TIMER_TOPIC && i32::try_from(record.total_size) == Ok(unit.size);
    same.then_some(stored)
}

/// Keeps the figures for operators.
fn count(broker: &Broker, record: &Record<'_>, change: i64) {
    if let Some(topic) = record.properties.get(properties::REAL_TOPIC) {
        broker.timed.add(topic, change, broker.clock.now());
    }
}

fn is_deleted(record: &Record<'_>, deleted: &HashSet<String>) -> bool {
    let topic = record.properties.get(properties::REAL_TOPIC);
    let key = record.properties.get(properties::UNIQ_KEY);
    !deleted.is_empty()
        && topic.zip(key).is_some_and(|(topic, key)| deleted.contains(&delete_key(topic, key)))
}

/// A message as it leaves for its real queue; `None`, and a line in the log, when it names none.
fn to_real<'a>(
    broker: &Broker,
    stored: &'a StoredMessage,
    record: &Record<'_>,
    enqueued_ms: i64,
    now: i64,
) -> Option<Release<'a>> {
    let (enqueued, now) = (enqueued_ms.to_string(), now.to_string());
    let add = [
        (properties::TIMER_ENQUEUE_MS, enqueued.as_str()),
        (properties::TIMER_DEQUEUE_MS, now.as_str()),
        (properties::WAIT, "false"),
    ];
    let text = rewritten(record.properties.raw(), &[properties::CRC32], &add);
    let real = Release::new(broker, stored, text);
    if real.is_none() {
        tracing::error!(offset = %record.physical_offset, "a timed message names no real queue, left out");
    }
    real
}

/// The properties of a message that goes round again.
fn around(record: &Record<'_>, enqueued_ms: i64, now: i64) -> Vec<u8> {
    let rounds = record.properties.get(properties::TIMER_ROLL_TIMES).and_then(|n| n.parse::<i64>().ok());
    let (rounds, enqueued, now) =
        ((rounds.unwrap_or(0) + 1).to_string(), enqueued_ms.to_string(), now.to_string());
    let add = [
        (properties::TIMER_ENQUEUE_MS, enqueued.as_str()),
        (properties::TIMER_ROLL_TIMES, rounds.as_str()),
        (properties::TIMER_DEQUEUE_MS, now.as_str()),
        (properties::WAIT, "false"),
    ];
    rewritten(record.properties.raw(), &[properties::CRC32], &add)
}
