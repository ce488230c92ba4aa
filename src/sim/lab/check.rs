//! Opens what a crash left and holds it against the model: the promises of FORMAT.md, by their numbers there.
//!
//! The log is read here by itself, from the disk's bytes, so that recovery is not asked about its own work.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Violation,
    model::{Model, Put},
    plan::{ROOT, Setup},
};
use crate::{
    clock::Clock,
    format::message::{self, BLANK_LEN, Found, Record},
    sim::{disk::SimDisk, file::Picture},
    store::{Query, Steps, Store},
    types::{PhysicalOffset, QueueOffset, StoreTimestamp},
    vfs::Vfs,
};

type Pictures = BTreeMap<PathBuf, Picture>;

/// What an image came to.
pub(super) struct Checked {
    /// So many of the model's messages are there.
    pub(super) count: usize,
    /// Where each of the messages that the log still holds stands, from the oldest on, with its end.
    pub(super) places: Vec<(PhysicalOffset, usize, StoreTimestamp)>,
    /// The log's first byte.
    pub(super) first: PhysicalOffset,
}

pub(super) fn broken(invariant: u8, what: impl Into<String>) -> Violation {
    Violation { invariant, what: what.into() }
}

/// Opens the store on `disk`, where calls may fail: an error is an answer, a panic is none.
pub(super) fn attempt(
    disk: &SimDisk,
    setup: &Setup,
    clock: &Arc<dyn Clock>,
) -> Result<crate::Result<(Store, Steps)>, Violation> {
    let vfs: Arc<dyn Vfs> = Arc::new(disk.clone());
    catch_unwind(AssertUnwindSafe(|| Store::open_stepped(setup.config(), vfs, Arc::clone(clock))))
        .map_err(|panic| broken(7, format!("open panics: {}", panic_text(&*panic))))
}

/// Opens the store on `disk`, where nothing fails.
pub(super) fn open(
    disk: &SimDisk,
    setup: &Setup,
    clock: &Arc<dyn Clock>,
) -> Result<(Store, Steps), Violation> {
    attempt(disk, setup, clock)?.map_err(|error| broken(7, format!("the store does not open: {error}")))
}

pub(in crate::sim) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without words").to_owned()
}

/// Checks an image. `again` opens it a second time, too.
pub(super) fn check(
    disk: &SimDisk,
    clock: &Arc<dyn Clock>,
    setup: &Setup,
    model: &Model,
    again: bool,
) -> Result<Checked, Violation> {
    let before = disk.picture();
    let (store, steps) = open(disk, setup, clock)?;
    let after = disk.picture();
    let held = hold(&store, disk, setup, model, (&before, &after)).map_err(|violation| Violation {
        what: format!("{} (recovery found {})", violation.what, store.recovery_report()),
        ..violation
    })?;
    drop((store, steps));
    if again {
        second_open(disk, clock, setup)?;
    }
    Ok(held)
}

/// Holds an open store against the model. `before` and `after` are the files around its opening.
fn hold(
    store: &Store,
    disk: &SimDisk,
    setup: &Setup,
    model: &Model,
    (before, after): (&Pictures, &Pictures),
) -> Result<Checked, Violation> {
    let status = store.status();
    let first = status.min_offset.max(PhysicalOffset::ZERO);
    let scan = Scan { setup, pictures: after, end: status.max_offset };
    let records = scan.records()?;
    scan.zeros_behind_end()?;
    let (from, count) = compare(&records, model, first)?;
    if !(model.low..=model.high).contains(&first) {
        return Err(broken(
            1,
            format!("the log begins at {first}, not within {}..={}", model.low, model.high),
        ));
    }
    queues(store, setup, model, &records, count)?;
    index(store, setup, model, from, count)?;
    kept_aside(before, after, status.max_offset, setup)?;
    if let Some(stray) = disk.strays().first() {
        return Err(broken(7, format!("a store past the seam: {stray}")));
    }
    let places =
        records.iter().map(|(at, record)| (*at, record.total_size, record.store_timestamp)).collect();
    Ok(Checked { count, places, first })
}

/// The log's segments as bytes.
struct Scan<'a> {
    setup: &'a Setup,
    pictures: &'a Pictures,
    end: PhysicalOffset,
}

/// A record that owns its bytes.
pub(super) struct Owned {
    pub(super) total_size: usize,
    pub(super) store_timestamp: StoreTimestamp,
    bytes: Vec<u8>,
}

impl Owned {
    fn record(&self) -> Result<Record<'_>, Violation> {
        Record::decode(&self.bytes).map_err(|why| broken(4, why.to_string()))
    }
}

/// The segments of a log with their first bytes, in order.
fn segments(pictures: &Pictures) -> Vec<(PhysicalOffset, &Picture)> {
    let dir = Path::new(ROOT).join("commitlog");
    let numbered =
        pictures.iter().filter(|(path, _)| path.parent() == Some(&dir)).filter_map(|(path, file)| {
            let base = path.file_name()?.to_str()?.parse().ok()?;
            Some((PhysicalOffset(base), file))
        });
    numbered.collect()
}

impl Scan<'_> {
    fn records(&self) -> Result<Vec<(PhysicalOffset, Owned)>, Violation> {
        let mut records = Vec::new();
        for (base, picture) in segments(self.pictures) {
            if picture.len as u64 != self.setup.segment {
                return Err(broken(7, format!("the segment at {base} has {} bytes", picture.len)));
            }
            let bytes = picture.bytes(0..picture.len);
            let mut at = 0;
            while bytes.len() - at >= BLANK_LEN && base.plus(at) < self.end {
                let here = base.plus(at);
                match message::read_at(&bytes[at..]) {
                    Ok(Found::Record(record)) => {
                        if record.physical_offset != here {
                            let says = record.physical_offset;
                            return Err(broken(
                                4,
                                format!("the record at {here} says that it stands at {says}"),
                            ));
                        }
                        let (size, time) = (record.total_size, record.store_timestamp);
                        let bytes = bytes[at..at + size].to_vec();
                        records.push((here, Owned { total_size: size, store_timestamp: time, bytes }));
                        at += size;
                    }
                    Ok(Found::Blank { len }) if at + len == bytes.len() => break,
                    Ok(Found::Blank { len }) => {
                        return Err(broken(
                            4,
                            format!("the blank at {here} says {len} bytes to the segment's end"),
                        ));
                    }
                    // A segment's end without a mark; whether records are missing, their numbers tell.
                    Err(_) if bytes[at..].iter().all(|byte| *byte == 0) => break,
                    Err(why) => return Err(broken(2, format!("no record at {here}, before the end: {why}"))),
                }
            }
        }
        Ok(records)
    }

    /// What was cut must not be there to come back.
    fn zeros_behind_end(&self) -> Result<(), Violation> {
        for (base, picture) in segments(self.pictures) {
            let from = usize::try_from(self.end.0 - base.0).unwrap_or(0).min(picture.len);
            if let Some(at) = picture.bytes(from..picture.len).iter().position(|byte| *byte != 0) {
                let at = base.plus(from + at);
                return Err(broken(3, format!("the log ends at {}, and {at} is not zero", self.end)));
            }
        }
        Ok(())
    }
}

/// Holds the records of the log against the model's. Returns which of the model's come first and behind which they end.
fn compare(
    records: &[(PhysicalOffset, Owned)],
    model: &Model,
    first: PhysicalOffset,
) -> Result<(usize, usize), Violation> {
    // Of the messages whose place is known, those before the log's first byte are gone by right.
    let gone = model.log.iter().take_while(|put| put.place.is_some_and(|(at, _)| at < first)).count();
    for (n, (at, owned)) in records.iter().enumerate() {
        let record = owned.record()?;
        record.verify_body_crc().map_err(|why| broken(4, format!("record at {at}: {why}")))?;
        let id = record.body.first_chunk().map_or(0, |id| u64::from_be_bytes(*id));
        let Some(put) = model.log.get(gone + n) else {
            return Err(broken(3, format!("message {id} at {at} was never put, or was cut before")));
        };
        if id != put.id {
            let known = model.log.iter().position(|put| put.id == id);
            return Err(match known {
                Some(other) if other > gone + n => {
                    let lost = gone + n < model.durable;
                    let which = if lost { 1 } else { 2 };
                    broken(
                        which,
                        format!("message {} is missing, and {id} at {at} behind it is there", put.id),
                    )
                }
                _ => {
                    broken(3, format!("message {id} at {at} is not in the log's history, {} is due", put.id))
                }
            });
        }
        same(put, &record, *at)?;
    }
    let count = gone + records.len();
    if count < model.durable.max(gone) {
        let lost = model.log.get(count).map_or(0, |put| put.id);
        let end = records.last().map_or(first, |(at, owned)| at.plus(owned.total_size));
        return Err(broken(
            1,
            format!(
                "message {lost} was durable and is lost: {} of {} are there, the log ends at {end}",
                count, model.durable
            ),
        ));
    }
    Ok((gone, count))
}

fn same(put: &Put, record: &Record<'_>, at: PhysicalOffset) -> Result<(), Violation> {
    let wrong = |what: &str| Err(broken(1, format!("message {} at {at} has another {what}", put.id)));
    if record.body != put.body {
        return wrong("body");
    }
    let properties = record.properties.raw();
    let own = properties.get(..put.properties.len().min(properties.len())).unwrap_or_default();
    // A record checksum may follow.
    if own != put.properties || properties.len() > put.properties.len() + 21 {
        return wrong("set of properties");
    }
    if record.queue_offset.0 != put.queue_offset {
        return wrong(&format!("queue offset: {} for {}", record.queue_offset, put.queue_offset));
    }
    match put.place {
        Some((place, _)) if place != at => wrong(&format!("place: it was put at {place}")),
        Some((_, time)) if time != record.store_timestamp => wrong("store time"),
        _ => Ok(()),
    }
}

/// Every queue is a scan of the log.
fn queues(
    store: &Store,
    setup: &Setup,
    model: &Model,
    records: &[(PhysicalOffset, Owned)],
    count: usize,
) -> Result<(), Violation> {
    let mut due: Vec<Vec<(QueueOffset, PhysicalOffset, usize)>> = vec![Vec::new(); setup.queue_count()];
    for ((at, owned), put) in records.iter().zip(&model.log[count - records.len()..]) {
        if let Some(queue) = due.get_mut(put.queue) {
            queue.push((QueueOffset(put.queue_offset), *at, owned.total_size));
        }
    }
    for (n, due) in due.iter().enumerate() {
        let (topic, id) = setup.queue(n);
        let want = model.count_in(n, count);
        let Some(queue) = store.find_queue(&topic, id) else {
            if want > 0 {
                return Err(broken(4, format!("queue {id} of {topic} is not there; it had {want} messages")));
            }
            continue;
        };
        let (min, max) = (store.min_offset(queue), store.max_offset(queue));
        if max.0 != want {
            return Err(broken(3, format!("queue {id} of {topic} ends at {max}, its next number is {want}")));
        }
        let seen = model.seen.get(n).copied().unwrap_or(0);
        if max.0 < seen {
            return Err(broken(
                6,
                format!("queue {id} of {topic} ends at {max}, a consumer has seen {seen}"),
            ));
        }
        let first = due.first().map_or(max, |(offset, ..)| *offset);
        if min != first {
            return Err(broken(
                4,
                format!("queue {id} of {topic} begins at {min}, its first record is {first}"),
            ));
        }
        let mut units = Vec::new();
        while min.plus(i64::try_from(units.len()).unwrap_or(0)) < max {
            let at = min.plus(i64::try_from(units.len()).unwrap_or(0));
            let more = store.entries(queue, at, 1000).map_err(|error| broken(4, error.to_string()))?;
            if more.is_empty() {
                return Err(broken(4, format!("queue {id} of {topic} has no entry {at} of {min}..{max}")));
            }
            units.extend(more);
        }
        for (unit, (offset, at, size)) in units.iter().zip(due) {
            if (unit.queue_offset, unit.offset) != (*offset, *at)
                || i64::try_from(*size) != Ok(unit.size.into())
            {
                return Err(broken(
                    4,
                    format!(
                        "entry {} of queue {id} of {topic} leads to {}, {offset} is at {at}",
                        unit.queue_offset, unit.offset
                    ),
                ));
            }
        }
    }
    Ok(())
}

/// Every key of every record is found.
fn index(store: &Store, setup: &Setup, model: &Model, from: usize, count: usize) -> Result<(), Violation> {
    for put in model.log.get(from..count).unwrap_or_default() {
        let (topic, _) = setup.queue(put.queue);
        for (key, is_tag) in &put.keys {
            let index_type = is_tag.then_some("T");
            let query = Query { index_type, ..Query::new(&topic, key) };
            let hits = store.query_exact(&query).map_err(|error| broken(5, error.to_string()))?;
            let found = hits.iter().any(|hit| hit.body() == put.body);
            if !found && hits.len() < query.max {
                return Err(broken(5, format!("message {} of {topic} is not found by {key}", put.id)));
            }
        }
    }
    Ok(())
}

/// What recovery took from the log lies in the quarantine.
fn kept_aside(
    before: &Pictures,
    after: &Pictures,
    end: PhysicalOffset,
    setup: &Setup,
) -> Result<(), Violation> {
    let quarantine = Path::new(ROOT).join("quarantine");
    let kept: Vec<(i64, Vec<u8>)> = after
        .iter()
        .filter(|(path, _)| path.starts_with(&quarantine))
        .filter_map(|(path, picture)| {
            let name = path.file_name()?.to_str()?;
            let at = name.split_once('-')?.0.parse().ok()?;
            Some((at, picture.bytes(0..picture.len)))
        })
        .collect();
    for (base, picture) in segments(before) {
        if picture.len as u64 != setup.segment {
            continue;
        }
        let from = usize::try_from(end.0 - base.0).unwrap_or(0).min(picture.len);
        let cut = picture.bytes(from..picture.len);
        let Some(start) = cut.iter().position(|byte| *byte != 0) else { continue };
        let len = cut.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let at = base.plus(from).0;
        let holds = |(kept_at, bytes): &(i64, Vec<u8>)| {
            let skip = usize::try_from(at - kept_at).unwrap_or(usize::MAX);
            bytes.get(skip..).is_some_and(|rest| {
                cut[..len].iter().enumerate().all(|(i, byte)| *byte == 0 || rest.get(i) == Some(byte))
            })
        };
        if !kept.iter().any(|kept| kept.0 <= at && holds(kept)) {
            let what =
                format!("bytes {}..{} of the log were cut and not kept", at + start as i64, at + len as i64);
            return Err(broken(8, what));
        }
    }
    Ok(())
}

/// Opening again changes nothing.
fn second_open(disk: &SimDisk, clock: &Arc<dyn Clock>, setup: &Setup) -> Result<(), Violation> {
    let before = disk.picture();
    let (store, steps) = open(disk, setup, clock)?;
    let report = store.recovery_report().clone();
    drop((store, steps));
    let after = disk.picture();
    if !report.is_clean() {
        return Err(broken(7, format!("a second open still finds something to mend: {report}")));
    }
    for (path, picture) in &before {
        if after.get(path) != Some(picture) {
            return Err(broken(7, format!("a second open changed {}", path.display())));
        }
    }
    match after.keys().find(|path| !before.contains_key(*path)) {
        Some(path) => Err(broken(7, format!("a second open made {}", path.display()))),
        None => Ok(()),
    }
}
