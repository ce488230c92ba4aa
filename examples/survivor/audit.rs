//! The audit: opens a store after whatever happened to it and checks FORMAT.md's invariants, and what the writer was told.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
    fs,
    ops::Range,
    time::Duration,
};

use reput::{Config, PhysicalOffset, QueueOffset, Store};

use crate::{Failure, Options, letter::Letter};

/// Broken promises that are printed; the rest is counted.
const SHOWN: usize = 20;
/// Keys that are looked up: all of a small store, every n-th of a large one.
const LOOKUPS: usize = 1500;
/// A store that has not dispatched by then is called broken. Nothing is measured by it.
const DISPATCH_LIMIT: Duration = Duration::from_secs(300);

/// A record as it stands in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    at: i64,
    number: u64,
    queue_offset: i64,
    size: usize,
}

#[derive(Default)]
struct Audit {
    broken: Vec<String>,
    entries: usize,
    keys: usize,
    damage: usize,
}

/// What was promised, as far as it is known.
struct Promises {
    acks: Vec<Entry>,
    before: Vec<Entry>,
    fresh: u64,
    /// Everything that was acknowledged, also what was promised nothing: of that a crash takes the end.
    put: Vec<Entry>,
    /// Where somebody took bytes away: what stood there may be missing.
    taken: Range<i64>,
}

/// Opens the store and prints what is wrong with it.
pub fn audit(config: Config, mut options: Options) -> Result<u8, Failure> {
    let durable_only = options.text("durable").as_deref() == Some("true");
    let promises = Promises {
        acks: options.text("acks").map_or(Ok(Vec::new()), |path| read_acks(&path, durable_only))?,
        before: options.text("before").map_or(Ok(Vec::new()), |path| read_listing(&path))?,
        fresh: options.number("fresh", 0)?,
        taken: i64::try_from(options.number("taken-from", 0)?)?
            ..i64::try_from(options.number("taken-to", 0)?)?,
        put: options.text("put").map_or(Ok(Vec::new()), |path| read_acks(&path, false))?,
    };
    let listing = options.text("listing");
    options.end()?;
    let mut audit = Audit::default();
    let found = audit.store(config, true)?;
    audit.promises(&found, &promises);
    if let Some(path) = listing {
        let mut text = String::new();
        for entry in &found {
            writeln!(text, "{} {} {} {}", entry.number, entry.at, entry.queue_offset, entry.size)?;
        }
        fs::write(path, text)?;
    }
    Ok(audit.tell(found.len(), promises.acks.len()))
}

/// Opens the store once more: it serves what the audit has listed, and finds nothing to mend.
pub fn again(config: Config, mut options: Options) -> Result<u8, Failure> {
    let listed = read_listing(&options.text("listing").ok_or("--listing is needed")?)?;
    options.end()?;
    let mut audit = Audit::default();
    let found = audit.store(config, false)?;
    audit.expect(found == listed, || "a second opening serves another log".into());
    Ok(audit.tell(found.len(), 0))
}

fn entry(words: &mut std::str::SplitWhitespace<'_>) -> Option<Entry> {
    let number = words.next()?.parse().ok()?;
    let at = words.next()?.parse().ok()?;
    let queue_offset = words.next()?.parse().ok()?;
    Some(Entry { at, number, queue_offset, size: words.next()?.parse().ok()? })
}

/// The acknowledged messages; with `durable_only` those that a finished sync covers.
fn read_acks(path: &str, durable_only: bool) -> Result<Vec<Entry>, Failure> {
    let text = fs::read_to_string(path)?;
    // A line without an end was being written when the writer died.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let (mut acks, mut waiting) = (Vec::new(), Vec::new());
    for line in whole.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("ack") => {
                let ack = entry(&mut words).ok_or_else(|| format!("{path}: {line}"))?;
                if durable_only { waiting.push(ack) } else { acks.push(ack) }
            }
            Some("durable") => {
                let upto: i64 = words.next().unwrap_or("").parse()?;
                let (now, later) = waiting.drain(..).partition(|ack: &Entry| ack.at < upto);
                acks.extend::<Vec<_>>(now);
                waiting = later;
            }
            _ => {}
        }
    }
    Ok(acks)
}

fn read_listing(path: &str) -> Result<Vec<Entry>, Failure> {
    let read =
        |line: &str| entry(&mut line.split_whitespace()).ok_or_else(|| format!("{path}: {line}").into());
    fs::read_to_string(path)?.lines().map(read).collect()
}

impl Audit {
    fn tell(&self, records: usize, acknowledged: usize) -> u8 {
        for line in self.broken.iter().take(SHOWN) {
            println!("BROKEN {line}");
        }
        println!(
            "records {records} entries {} keys {} acknowledged {acknowledged} damage {} broken {}",
            self.entries,
            self.keys,
            self.damage,
            self.broken.len()
        );
        u8::from(!self.broken.is_empty())
    }

    fn expect(&mut self, holds: bool, why: impl FnOnce() -> String) {
        if !holds {
            self.broken.push(why());
        }
    }

    fn store(&mut self, config: Config, thorough: bool) -> Result<Vec<Entry>, Failure> {
        let store = Store::open(config)?;
        if !store.wait_dispatched(DISPATCH_LIMIT)? {
            return Err("dispatch stands still".into());
        }
        if !thorough {
            let report = store.recovery_report();
            self.expect(!report.aborted && report.torn.is_none(), || format!("after a close: {report}"));
        }
        self.damage = store.recovery_report().damage.len();
        let found = self.log(&store)?;
        self.queues(&store, &found)?;
        if thorough {
            self.index(&store, &found)?;
        }
        store.close()?;
        Ok(found)
    }

    /// Every record from the first byte to the last, each the message that its key names.
    fn log(&mut self, store: &Store) -> Result<Vec<Entry>, Failure> {
        let status = store.status();
        let segment = i64::try_from(store.config().commit_log_file_size)?;
        let damage = store.recovery_report().damage.clone();
        let mut found = Vec::new();
        let mut at = status.min_offset.0.max(0);
        while at < status.max_offset.0 {
            if let Some(range) = damage.iter().find(|range| range.from.0 == at) {
                at = range.to.0;
                continue;
            }
            let Some(message) = store.message_at(PhysicalOffset(at))? else {
                at = (at / segment + 1) * segment;
                continue;
            };
            let record = message.record();
            let Some(number) = message.keys().and_then(Letter::number_of) else {
                self.broken.push(format!("the record at {at} is none of ours"));
                break;
            };
            let letter = Letter::new(number);
            let same = record.topic == letter.topic
                && record.queue_id.get() == letter.queue
                && message.tags() == Some(letter.tag.as_str())
                && record.body == letter.body;
            self.expect(same, || format!("message {number} at {at} is not what was put"));
            self.expect(record.physical_offset.0 == at, || {
                format!("the record at {at} says that it stands at {}", record.physical_offset)
            });
            let size = record.total_size;
            found.push(Entry { at, number, queue_offset: record.queue_offset.0, size });
            at += i64::try_from(size)?;
        }
        let mut numbers = HashMap::new();
        for entry in &found {
            if let Some(first) = numbers.insert(entry.number, entry.at) {
                self.broken.push(format!("message {} stands at {first} and at {}", entry.number, entry.at));
            }
        }
        Ok(found)
    }

    /// Each queue holds its records in the log's order, without a gap, and nothing else.
    fn queues(&mut self, store: &Store, found: &[Entry]) -> Result<(), Failure> {
        let mut queues: BTreeMap<(String, i32), Vec<&Entry>> = BTreeMap::new();
        for entry in found {
            let letter = Letter::new(entry.number);
            queues.entry((letter.topic, letter.queue)).or_default().push(entry);
        }
        self.entries = 0;
        let segment = i64::try_from(store.config().commit_log_file_size)?;
        for (topic, id) in store.queues() {
            let Some(queue) = store.find_queue(&topic, id) else { continue };
            let name = (topic.to_string(), id.get());
            let want = queues.remove(&name).unwrap_or_default();
            let mut at = store.min_offset(queue);
            let max = store.max_offset(queue);
            let mut place = 0;
            while at < max {
                let units = store.entries(queue, at, 512)?;
                let Some(last) = units.last() else {
                    self.broken.push(format!("{topic}/{id} has no entry at {at} of {max}"));
                    break;
                };
                at = last.queue_offset.plus(1);
                for unit in &units {
                    // Slots of lost records are marked by a length that none has.
                    let lost = i64::from(unit.size) > segment || store.message_at(unit.offset)?.is_none();
                    if lost && self.damage > 0 {
                        continue;
                    }
                    self.entries += 1;
                    let one = want.get(place).copied();
                    place += 1;
                    let told = Some((unit.offset.0, unit.queue_offset.0, i64::from(unit.size)));
                    let log = one.map(|e| (e.at, e.queue_offset, i64::try_from(e.size).unwrap_or(0)));
                    self.expect(told == log, || {
                        format!("{topic}/{id} entry {}: {told:?}, in the log {log:?}", unit.queue_offset)
                    });
                }
            }
            self.expect(place == want.len(), || {
                format!("{topic}/{id} has {place} entries for {} records", want.len())
            });
            let dense = want.first().is_none_or(|first| {
                max == QueueOffset(first.queue_offset + i64::try_from(want.len()).unwrap_or(0))
            });
            self.expect(dense || self.damage > 0, || format!("{topic}/{id} has gaps: it ends at {max}"));
        }
        for ((topic, id), records) in queues {
            self.broken.push(format!("{topic}/{id} does not exist for {} records", records.len()));
        }
        Ok(())
    }

    fn index(&mut self, store: &Store, found: &[Entry]) -> Result<(), Failure> {
        let step = found.len() / LOOKUPS + 1;
        for entry in found.iter().rev().step_by(step) {
            let letter = Letter::new(entry.number);
            let hits = store.query(&letter.topic, &letter.key)?;
            let places: Vec<i64> = hits.iter().map(|hit| hit.physical_offset().0).collect();
            self.keys += 1;
            self.expect(places == [entry.at], || {
                format!("key {} of the record at {} leads to {places:?}", letter.key, entry.at)
            });
        }
        Ok(())
    }

    fn promises(&mut self, found: &[Entry], promises: &Promises) {
        let by_place: HashMap<i64, &Entry> = found.iter().map(|entry| (entry.at, entry)).collect();
        for (what, list) in [("acknowledged", &promises.acks), ("recovered before", &promises.before)] {
            for entry in list.iter().filter(|entry| !promises.taken.contains(&entry.at)) {
                let here = by_place.get(&entry.at).copied();
                self.expect(here == Some(entry), || format!("{what} {entry:?}, here {here:?}"));
            }
        }
        // What was promised nothing goes from the end on: behind a message that is missing none is left.
        let last = found.last().map_or(-1, |last| last.at);
        for entry in promises.put.iter().filter(|entry| entry.at <= last) {
            let here = by_place.get(&entry.at).copied();
            self.expect(here == Some(entry), || {
                format!("taken before the end at {last}: {entry:?}, here {here:?}")
            });
        }
        // What an earlier recovery did not show has not been cut for good if it shows now.
        let end = promises.before.last().map_or(0, |last| last.at);
        for entry in found.iter().filter(|entry| entry.number < promises.fresh) {
            let old = entry.at <= end && promises.before.binary_search_by_key(&entry.at, |e| e.at).is_ok();
            self.expect(old, || format!("message {} at {} came back", entry.number, entry.at));
        }
    }
}
