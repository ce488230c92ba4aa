//! Holds an open store against what the writer of its directory was told.

use std::{collections::HashSet, fmt, time::Duration};

use reput::{Config, PhysicalOffset, QueueOffset, Store};

use crate::{
    Failure,
    ack::{Ack, body_crc, host_text},
};

const MULTI_DISPATCH: &str = "INNER_MULTI_DISPATCH";
const MULTI_OFFSET: &str = "INNER_MULTI_QUEUE_OFFSET";

struct Check {
    store: Store,
    problems: Vec<String>,
}

/// Opens the store and checks every acknowledged message, every queue entry and every key.
pub fn check(config: Config, acks: &[Ack]) -> Result<String, Failure> {
    if acks.is_empty() {
        return Err("nothing was acknowledged".into());
    }
    let delays = config.delay_levels_ms();
    let store = Store::open(config)?;
    if !store.wait_dispatched(Duration::from_secs(30))? {
        return Err("dispatch stands still".into());
    }
    let mut check = Check { store: store.clone(), problems: Vec::new() };
    for ack in acks {
        check.message(ack, &delays)?;
    }
    let entries = check.walk_queues()?;
    store.close()?;
    if check.problems.is_empty() {
        Ok(format!("{} acknowledged messages and {entries} queue entries agree", acks.len()))
    } else {
        let count = check.problems.len();
        check.problems.truncate(30);
        Err(format!("{count} differences\n{}", check.problems.join("\n")).into())
    }
}

impl Check {
    fn equal<T: PartialEq + fmt::Debug>(&mut self, who: &str, what: &str, want: &T, got: &T) {
        if want != got {
            self.problems.push(format!("{who} {what}: acknowledged {want:?}, here {got:?}"));
        }
    }

    fn message(&mut self, ack: &Ack, delays: &[i64]) -> Result<(), Failure> {
        let who = format!("{}/{}@{} at {}", ack.topic, ack.queue_id, ack.queue_offset, ack.physical_offset);
        let Some(stored) = self.store.message_at(PhysicalOffset(ack.physical_offset))? else {
            self.problems.push(format!("{who}: no record"));
            return Ok(());
        };
        let record = stored.record();
        self.equal(&who, "topic", &ack.topic.as_str(), &record.topic);
        self.equal(&who, "queueId", &ack.queue_id, &record.queue_id.get());
        let in_queue = if ack.is_queued() { ack.queue_offset } else { 0 };
        self.equal(&who, "queueOffset", &in_queue, &record.queue_offset.get());
        self.equal(&who, "flag", &ack.flag, &record.flag);
        self.equal(&who, "sysFlag", &ack.sys_flag, &record.sys_flag.0);
        self.equal(&who, "bornTimestamp", &ack.born_timestamp, &record.born_timestamp.get());
        self.equal(&who, "storeTimestamp", &ack.store_timestamp, &record.store_timestamp.get());
        self.equal(&who, "bornHost", &ack.born_host, &host_text(record.born_host));
        self.equal(&who, "storeHost", &ack.store_host, &host_text(record.store_host));
        self.equal(&who, "reconsumeTimes", &ack.reconsume_times, &record.reconsume_times);
        let prepared = (&ack.prepared_transaction_offset, &record.prepared_transaction_offset);
        self.equal(&who, "preparedTransactionOffset", prepared.0, prepared.1);
        let length = i64::try_from(record.body.len())?;
        self.equal(&who, "body", &(ack.body_length, ack.body_crc), &(length, body_crc(record.body)));
        for (name, want) in
            [("TAGS", &ack.tags), ("KEYS", &ack.keys), ("UNIQ_KEY", &ack.uniq_key), ("user", &ack.user)]
        {
            self.equal(&who, name, &want.as_deref(), &record.properties.get(name));
        }
        let size = i64::try_from(record.total_size)?;
        if ack.size > 0 {
            self.equal(&who, "size", &ack.size, &size);
        }
        if ack.is_queued() {
            self.entry(&who, ack, size, delays)?;
            let (names, offsets) = (ack.lmq.as_deref(), record.properties.get(MULTI_OFFSET));
            self.further_entries(&who, ack, names.unwrap_or(""), offsets.unwrap_or(""))?;
        }
        if ack.is_indexed() {
            self.queries(&who, ack)?;
        }
        Ok(())
    }

    fn entry(&mut self, who: &str, ack: &Ack, size: i64, delays: &[i64]) -> Result<(), Failure> {
        let queue = self.store.find_queue(&ack.topic, ack.queue_id);
        let units = match queue {
            Some(queue) => self.store.entries(queue, QueueOffset(ack.queue_offset), 1)?,
            None => Vec::new(),
        };
        let Some(unit) = units.first() else {
            self.problems.push(format!("{who}: no queue entry"));
            return Ok(());
        };
        let tags_code = if ack.topic == "SCHEDULE_TOPIC_XXXX" && ack.delay_level > 0 {
            ack.store_timestamp + delays[usize::try_from(ack.delay_level - 1)?]
        } else {
            i64::from(java_hash(ack.tags.as_deref().unwrap_or("")))
        };
        self.equal(who, "entry's queue offset", &ack.queue_offset, &unit.queue_offset.get());
        self.equal(who, "entry's offset", &ack.physical_offset, &unit.offset.get());
        self.equal(who, "entry's size", &size, &i64::from(unit.size));
        self.equal(who, "entry's tags code", &tags_code, &unit.tags_code.get());
        if ack.inner_num > 0 {
            self.equal(who, "entry's count", &ack.inner_num, &i64::from(unit.batch_num));
        }
        Ok(())
    }

    fn further_entries(&mut self, who: &str, ack: &Ack, names: &str, offsets: &str) -> Result<(), Failure> {
        let names: Vec<&str> = names.split(',').filter(|name| !name.is_empty()).collect();
        let offsets: Vec<&str> = offsets.split(',').filter(|offset| !offset.is_empty()).collect();
        self.equal(who, "number of further queues", &names.len(), &offsets.len());
        for (name, offset) in names.iter().zip(offsets) {
            let found = match self.store.find_queue(name, 0) {
                Some(queue) => self.store.entries(queue, QueueOffset(offset.parse()?), 1)?,
                None => Vec::new(),
            };
            let at = found.first().map(|unit| unit.offset.get());
            self.equal(who, &format!("entry in {name}"), &Some(ack.physical_offset), &at);
        }
        Ok(())
    }

    fn queries(&mut self, who: &str, ack: &Ack) -> Result<(), Failure> {
        let keys = [ack.uniq_key.as_deref(), ack.keys.as_deref().and_then(|keys| keys.split(' ').next())];
        for key in keys.into_iter().flatten() {
            let hits = self.store.query(&ack.topic, key)?;
            let found = hits.iter().filter(|hit| hit.physical_offset().get() == ack.physical_offset).count();
            self.equal(who, &format!("hits of key {key}"), &1, &found);
        }
        Ok(())
    }

    /// Every entry of every queue must lead to a record of that very queue and offset, and none twice.
    fn walk_queues(&mut self) -> Result<usize, Failure> {
        let mut count = 0;
        for (topic, id) in self.store.queues() {
            let Some(queue) = self.store.find_queue(&topic, id) else {
                self.problems.push(format!("{topic}/{id} is listed and not found"));
                continue;
            };
            let (mut next, max) = (self.store.min_offset(queue), self.store.max_offset(queue));
            let mut seen = HashSet::new();
            while next < max {
                let units = self.store.entries(queue, next, 256)?;
                let Some(last) = units.last() else {
                    self.problems
                        .push(format!("{topic}/{id} has no entry at {next}, it should end at {max}"));
                    break;
                };
                next = last.queue_offset.plus(i64::from(last.batch_num.max(1)));
                for unit in &units {
                    count += 1;
                    let who = format!("{topic}/{id}@{}", unit.queue_offset);
                    let Some(stored) = self.store.message_at(unit.offset)? else {
                        self.problems.push(format!("{who}: no record at {}", unit.offset));
                        continue;
                    };
                    let record = stored.record();
                    let home = if record.topic == topic.as_str() {
                        (record.queue_id == id).then_some(record.queue_offset.get())
                    } else {
                        let names = record.properties.get(MULTI_DISPATCH).unwrap_or("");
                        let place = names.split(',').position(|name| name == topic.as_str());
                        let offsets = record.properties.get(MULTI_OFFSET).unwrap_or("");
                        place.and_then(|i| offsets.split(',').nth(i)).and_then(|text| text.parse().ok())
                    };
                    self.equal(&who, "leads to", &Some(unit.queue_offset.get()), &home);
                    self.equal(&who, "is the only one to its record", &true, &seen.insert(unit.offset));
                }
            }
        }
        Ok(count)
    }
}

/// Java's `String.hashCode`, written anew so that the store is not checked by itself.
fn java_hash(text: &str) -> i32 {
    text.encode_utf16().fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)))
}
