//! The invariants of FORMAT.md, checked on what recovery came to by a walk of its own.

use super::{
    Part, Progress,
    finding::{Finding, Findings, Level},
};
use crate::{
    consume_queue::{CqUnit, Dispatch, Queue, QueueKind},
    deleted::DeletedTopics,
    dispatch::{Projected, Projection},
    error::Result,
    format::{
        consume_queue::Entry,
        hash::IndexKeys,
        message::{BLANK_LEN, Found, Header, read_at},
        properties::INNER_MULTI_DISPATCH,
    },
    index::{KeyPut, Soundness},
    store::Store,
    types::{PhysicalOffset, QueueId, StoreTimestamp},
    vfs::{OverlayVfs, Vfs},
};

/// Entries read at a time.
const PAGE: usize = 512;
/// Records without an entry that are remembered.
const REMEMBERED: usize = 100;
/// Records between two calls of the progress.
const OFTEN: u64 = 4096;

struct Walk<'w, 'f> {
    store: &'w Store,
    projection: Projection,
    deleted: DeletedTopics,
    findings: &'w mut Findings<'f>,
    cursor: Cursor,
    /// Records that are in no queue though they could be: the first ones, and how many.
    homeless: (Vec<Finding>, u64),
    newest: StoreTimestamp,
}

/// A place in the index.
#[derive(Default)]
struct Cursor {
    file: usize,
    next: u32,
    page: Vec<KeyPut>,
    at: usize,
}

/// Walks log, queues and index. Says when the newest record was stored.
pub(super) fn check(
    store: &Store,
    overlay: &std::sync::Arc<OverlayVfs>,
    findings: &mut Findings<'_>,
    progress: &mut dyn FnMut(Progress),
) -> Result<StoreTimestamp> {
    let config = store.config();
    let vfs: std::sync::Arc<dyn Vfs> = std::sync::Arc::<OverlayVfs>::clone(overlay);
    let mut walk = Walk {
        store,
        projection: Projection::new(config),
        deleted: DeletedTopics::load(vfs, &config.root)?,
        findings,
        cursor: Cursor { next: 1, ..Cursor::default() },
        homeless: (Vec::new(), 0),
        newest: StoreTimestamp::ZERO,
    };
    walk.index_files();
    walk.log(progress)?;
    walk.queues()?;
    walk.homeless();
    Ok(walk.newest)
}

impl Walk<'_, '_> {
    fn wrong(&mut self, part: Part, at: PhysicalOffset, what: String) {
        let path = self.store.config().root.clone();
        self.findings.damage(part, &path, None, format!("after recovery, record at {at}: {what}"));
    }

    fn index_files(&mut self) {
        let index = self.store.parts().2;
        for (number, file) in index.files().iter().enumerate() {
            self.findings.summary.index_files += 1;
            self.findings.summary.index_entries += u64::from(file.index_count.saturating_sub(1));
            if index.check(number) != Soundness::Sound {
                self.findings.damage(
                    Part::Index,
                    &file.path,
                    None,
                    "its chains are not sound after recovery".into(),
                );
            }
        }
    }

    fn log(&mut self, progress: &mut dyn FnMut(Progress)) -> Result<()> {
        let log = self.store.parts().0;
        let (from, end) = (log.min_offset().max(PhysicalOffset::ZERO), log.max_offset());
        let damage = &self.store.recovery_report().damage;
        let mut at = from;
        let mut keys = Vec::new();
        while at < end {
            if let Some(range) =
                damage.binary_search_by_key(&at, |range| range.from).ok().and_then(|i| damage.get(i))
            {
                at = range.to;
                continue;
            }
            let next = log.next_segment(at).unwrap_or(PhysicalOffset(i64::MAX));
            let Some(rest) = log.lease_rest(at).filter(|rest| rest.len() >= BLANK_LEN) else {
                at = next;
                continue;
            };
            at = match read_at(&rest) {
                Ok(Found::Record(record)) if record.physical_offset == at => {
                    let header = Header::peek(&rest).map_err(crate::Error::corrupt("commitlog", 0))?;
                    self.record(&header, &mut keys)?;
                    at.plus(record.total_size)
                }
                Ok(Found::Record(record)) => {
                    self.wrong(Part::Log, at, format!("it belongs at {}", record.physical_offset));
                    at.plus(record.total_size)
                }
                Ok(Found::Blank { .. }) => next,
                Err(why) => {
                    self.wrong(Part::Log, at, why.to_string());
                    next
                }
            };
            if self.findings.summary.records.is_multiple_of(OFTEN) {
                progress(Progress { done: at.min(end).since(from), total: end.since(from) });
            }
        }
        progress(Progress { done: end.since(from), total: end.since(from) });
        self.keys_behind(end);
        Ok(())
    }

    fn record(&mut self, header: &Header<'_>, keys: &mut Vec<KeyPut>) -> Result<()> {
        self.findings.summary.records += 1;
        self.newest = self.newest.max(header.store_timestamp);
        let at = header.physical_offset;
        if self.deleted.covers(header.topic, at) {
            return Ok(());
        }
        let made = self.projection.of(header);
        let queue = |topic: &str, id: QueueId| self.store.parts().1.get(topic, id);
        let own = made.is_queued().then(|| queue(made.topic, made.queue_id));
        let mut homeless = Vec::new();
        match own {
            None => {}
            Some(None) => homeless.push(format!("no queue {}/{}", made.topic, made.queue_id)),
            Some(Some(queue)) => {
                let mut there = false;
                for entry in possible(&made, &queue)? {
                    there |= has(&queue, &entry)?;
                }
                if !there {
                    let number =
                        made.entry(queue.kind()).map_or(header.queue_offset, |entry| entry.queue_offset);
                    homeless
                        .push(format!("queue {}/{} has no entry {number} for it", made.topic, made.queue_id));
                }
            }
        }
        for (topic, id, entry) in made.further() {
            match queue(topic, id) {
                Some(queue) if has(&queue, &entry)? => {}
                _ => homeless.push(format!("queue {topic}/{id} has no entry {} for it", entry.queue_offset)),
            }
        }
        for what in homeless {
            self.homeless.1 += 1;
            if self.homeless.0.len() < REMEMBERED {
                let path = self.store.config().commit_log_path();
                let what = format!("record at {at}: {what}");
                self.homeless.0.push(Finding::new(Level::Damage, Part::Queue, path, None, what));
            }
        }
        if self.store.config().message_index {
            keys.clear();
            made.keys(|| IndexKeys::of(made.topic), keys);
            self.keys(at, keys);
        }
        Ok(())
    }

    /// Records that recovery has left out for their numbers are no surprise.
    fn homeless(&mut self) {
        let (first, count) = std::mem::take(&mut self.homeless);
        let known = count <= self.store.recovery_report().queues.unplaced;
        for mut finding in first {
            finding.level = if known { Level::Note } else { Level::Damage };
            self.findings.add(&finding);
        }
    }

    fn peek(&mut self) -> Option<KeyPut> {
        let index = self.store.parts().2;
        while self.cursor.at == self.cursor.page.len() {
            if self.cursor.file >= index.files().len() {
                return None;
            }
            self.cursor.page.clear();
            self.cursor.at = 0;
            index.read(self.cursor.file, self.cursor.next, PAGE, &mut self.cursor.page);
            self.cursor.next += u32::try_from(self.cursor.page.len()).unwrap_or(0);
            if self.cursor.page.is_empty() {
                (self.cursor.file, self.cursor.next) = (self.cursor.file + 1, 1);
            }
        }
        self.cursor.page.get(self.cursor.at).copied()
    }

    /// Passes over the entries of records before `at`, none of which is one of the walk.
    fn keys_behind(&mut self, at: PhysicalOffset) {
        while let Some(entry) = self.peek().filter(|entry| entry.offset < at) {
            self.cursor.at += 1;
            let old = entry.offset < self.store.parts().0.min_offset();
            if !old && !self.store.recovery_report().is_damaged(entry.offset) && !self.is_dead(entry.offset) {
                self.wrong(Part::Index, entry.offset, "no such record has a key in the index".into());
            }
        }
    }

    fn is_dead(&self, at: PhysicalOffset) -> bool {
        let rest = self.store.parts().0.lease_rest(at);
        let header = rest.as_ref().and_then(|rest| Header::peek(rest).ok());
        header.is_some_and(|header| self.deleted.covers(header.topic, at))
    }

    fn keys(&mut self, at: PhysicalOffset, keys: &[KeyPut]) {
        self.keys_behind(at);
        let mut found = Vec::new();
        while let Some(entry) = self.peek().filter(|entry| entry.offset == at) {
            self.cursor.at += 1;
            found.push(entry.hash);
        }
        let missing = keys.iter().filter(|key| !found.contains(&key.hash)).count();
        if missing > 0 {
            self.wrong(Part::Index, at, format!("{missing} of its {} keys are not in the index", keys.len()));
        }
        if found.iter().any(|hash| !keys.iter().any(|key| key.hash == *hash)) {
            self.wrong(Part::Index, at, "the index has keys of it that it does not carry".into());
        }
    }

    fn queues(&mut self) -> Result<()> {
        let store = self.store;
        for queue in store.parts().1.queues() {
            self.findings.summary.queues += 1;
            let (mut next, max) = (queue.min_offset(), queue.max_offset());
            let mut end = PhysicalOffset(-1);
            let mut units = Vec::new();
            while next < max {
                units.clear();
                if queue.read(next, PAGE, &mut units)? == 0 {
                    self.wrong_entry(&queue, next.0, "cannot be read".into());
                    break;
                }
                for unit in &units {
                    self.findings.summary.entries += 1;
                    if let Some(what) = self.entry(&queue, unit, end)? {
                        self.wrong_entry(&queue, unit.queue_offset.0, what);
                    }
                    // The entry of a lost record leads to the damage, or to the record behind it.
                    end = PhysicalOffset(
                        unit.offset.0 - i64::from(unit.is_of_lost(self.store.parts().0.segment_size())),
                    );
                    next = unit.next();
                }
            }
        }
        Ok(())
    }

    fn wrong_entry(&mut self, queue: &Queue, number: i64, what: String) {
        let path = self.store.config().root.clone();
        let key = queue.key();
        let what = format!("after recovery, {}/{} entry {number}: {what}", key.topic, key.id);
        self.findings.damage(Part::Queue, &path, None, what);
    }

    /// What is wrong with an entry, `before` being where the one before it leads.
    fn entry(&self, queue: &Queue, unit: &CqUnit, before: PhysicalOffset) -> Result<Option<String>> {
        let log = self.store.parts().0;
        let filler = unit.size == Entry::FILLER.size && unit.offset == Entry::FILLER.offset;
        let lost = unit.is_of_lost(log.segment_size());
        if filler || unit.offset < log.min_offset() || self.store.recovery_report().is_damaged(unit.offset) {
            return Ok(None);
        }
        if lost {
            return Ok((unit.offset < before).then(|| "it leads before the entry in front of it".into()));
        }
        if unit.offset <= before {
            return Ok(Some(format!("it leads to {}, the one in front of it to {before}", unit.offset)));
        }
        let rest = log.lease_rest(unit.offset);
        let Some(header) = rest.as_ref().and_then(|rest| Header::peek(rest).ok()) else {
            return Ok(Some(format!("no record at {}", unit.offset)));
        };
        let made = self.projection.of(&header);
        let key = queue.key();
        let own = made.topic == key.topic.as_str() && made.queue_id == key.id;
        let own = if own { Some(possible(&made, queue)?) } else { None };
        let own = own.into_iter().flatten();
        let mut all = own.chain(
            made.further()
                .filter(|(topic, id, _)| *topic == key.topic.as_str() && *id == key.id)
                .map(|(_, _, e)| e),
        );
        // Entries in further queues stay though today's switches make none.
        let names = header.properties.get(INNER_MULTI_DISPATCH).unwrap_or_default();
        let unswitched = names.split(',').any(|name| name == key.topic.as_str());
        if all.any(|entry| agrees(queue.kind(), unit, &entry)) || unswitched {
            return Ok(None);
        }
        Ok(Some(format!(
            "it leads to message {} of {}/{} at {}",
            header.queue_offset, header.topic, header.queue_id, unit.offset
        )))
    }
}

/// The entry of a record in its own queue; two for an inner batch that states two numbers, either of which may be right.
fn possible(made: &Projected<'_>, queue: &Queue) -> Result<impl Iterator<Item = Dispatch<'static>> + use<>> {
    let entry = made.entry_in(queue)?;
    let numbers = made.disagreeing().filter(|_| queue.kind() == QueueKind::Batch);
    let other = entry.zip(numbers).map(|(entry, [number, _])| Dispatch { queue_offset: number, ..entry });
    Ok(entry.into_iter().chain(other))
}

fn agrees(kind: QueueKind, unit: &CqUnit, entry: &Dispatch<'_>) -> bool {
    (unit.queue_offset, unit.offset, unit.size) == (entry.queue_offset, entry.offset, entry.size)
        && (kind == QueueKind::Simple || unit.batch_num == entry.batch_num)
}

/// Whether the queue has this entry, or begins behind it.
fn has(queue: &Queue, entry: &Dispatch<'_>) -> Result<bool> {
    let unit = queue.get(entry.queue_offset)?;
    Ok(unit.is_some_and(|unit| agrees(queue.kind(), &unit, entry)))
}
