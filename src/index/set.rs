//! The files of the index as one.

use std::{cmp::Ordering, path::PathBuf, sync::Arc};

use parking_lot::RwLock;

use super::{IndexFileInfo, IndexHits, KeyPut, Soundness, file::IndexFile};
use crate::{
    clock::Clock,
    config::Config,
    error::{Error, Result},
    format::{
        hash::index_key_hash,
        index::{Geometry, file_name, is_file_name},
    },
    types::{PhysicalOffset, StoreTimestamp},
    vfs::Vfs,
};

/// All index files of a store.
#[derive(Debug)]
pub(crate) struct IndexSet {
    vfs: Arc<dyn Vfs>,
    clock: Arc<dyn Clock>,
    dir: PathBuf,
    geometry: Geometry,
    max_hits: usize,
    state: RwLock<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Oldest first.
    files: Vec<IndexFile>,
    /// The last record in the index and how many of its keys are there.
    end: Option<(PhysicalOffset, usize)>,
    /// Files were made or removed since the directory was synced.
    names_changed: bool,
    /// endTimestamp of the newest full file that is durable.
    durable: Option<StoreTimestamp>,
    /// Why a sync failed. The system may call pages clean since that the disk has not got, and the next sync says nothing.
    failed: Option<String>,
}

impl State {
    /// Looks the last record up after files or entries went.
    fn find_end(&mut self) {
        let mut entries =
            self.files.iter().rev().flat_map(|f| (1..=f.entries()).rev().filter_map(|n| f.entry(n)));
        self.end = entries.next().map(|last| {
            let more = entries.take_while(|entry| entry.offset == last.offset).count();
            (last.offset, 1 + more)
        });
    }
}

impl IndexSet {
    /// Opens the files; changes nothing. One of a wrong size is kept out of queries and reported by
    /// [`IndexSet::check`]; names that no index file has are left alone.
    pub(crate) fn load(vfs: Arc<dyn Vfs>, config: &Config, clock: Arc<dyn Clock>) -> Result<Self> {
        let dir = config.path("index");
        let geometry = Geometry { slots: config.index_slots, entries: config.index_entries };
        let mut state = State::default();
        for entry in vfs.list(&dir).map_err(Error::io("list", &dir))? {
            if !entry.is_dir && is_file_name(&entry.name) {
                state.files.push(IndexFile::open(&*vfs, dir.join(&entry.name), &entry, geometry)?);
            }
        }
        state.find_end();
        let max_hits = config.max_query_messages;
        Ok(Self { vfs, clock, dir, geometry, max_hits, state: RwLock::new(state) })
    }

    /// Takes keys in, in the order of the log; all keys of a record in one call, one after another. Records before
    /// the last one in the index are skipped, and of that one the keys that are there, so that records may be given
    /// again.
    pub(crate) fn put(&self, keys: &[KeyPut]) -> Result<()> {
        let mut state = self.state.write();
        let mut from = 0;
        if let Some((end, have)) = state.end {
            from = keys.partition_point(|key| key.offset < end);
            let again = keys[from..].iter().take_while(|key| key.offset == end).count();
            from += again.min(have);
        }
        let mut rest = &keys[from..];
        while !rest.is_empty() {
            let file = match state.files.last_mut() {
                Some(file) if !file.is_full() => file,
                _ => {
                    self.roll(&mut state)?;
                    continue;
                }
            };
            let before = file.entries();
            let outcome = file.put(rest);
            let done = usize::try_from(file.entries() - before).unwrap_or(0);
            Self::move_end(&mut state, &rest[..done]);
            outcome?;
            rest = &rest[done..];
        }
        Ok(())
    }

    /// Keys that the newest file takes without claiming more space.
    pub(crate) fn room(&self) -> usize {
        self.state.read().files.last().map_or(0, IndexFile::room)
    }

    fn move_end(state: &mut State, put: &[KeyPut]) {
        let Some(last) = put.last() else { return };
        let count = put.iter().rev().take_while(|key| key.offset == last.offset).count();
        let more = match state.end {
            Some((end, have)) if end == last.offset && count == put.len() => have,
            _ => 0,
        };
        state.end = Some((last.offset, count + more));
    }

    fn roll(&self, state: &mut State) -> Result<()> {
        if state.files.is_empty() {
            self.vfs.create_dir_all(&self.dir).map_err(Error::io("create", &self.dir))?;
        }
        let name = self.next_name(state.files.last().map_or("", |file| &file.name));
        let previous = state.files.iter().rev().find(|file| file.table.is_some()).map(|file| &file.header);
        let file = IndexFile::create(&*self.vfs, self.dir.join(&name), name, self.geometry, previous)?;
        state.files.push(file);
        state.names_changed = true;
        Ok(())
    }

    /// A name of now, or of the first millisecond that sorts behind `last`.
    fn next_name(&self, last: &str) -> String {
        let now = self.clock.now();
        let utc_offset = self.clock.utc_offset(now);
        let name = |later: i64| file_name(StoreTimestamp(now.0.saturating_add(later)), utc_offset);
        let behind = |later: i64| name(later).as_str().cmp(last) == Ordering::Greater;
        let mut high = 0;
        while !behind(high) && high < i64::MAX / 4 {
            high = high * 2 + 1;
        }
        let mut low = high / 2;
        while low < high {
            let middle = low + (high - low) / 2;
            if behind(middle) {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        name(high)
    }

    /// RocketMQ's walk for the hash of `topic#key`, or of `topic#T#key` with index type `T`. `max` is capped by
    /// `maxMsgsNumBatch`.
    pub(crate) fn query(
        &self,
        topic: &str,
        key: &str,
        index_type: Option<&str>,
        max: usize,
        begin: StoreTimestamp,
        end: StoreTimestamp,
    ) -> IndexHits {
        let hash = index_key_hash(topic, index_type, key);
        let max = max.min(self.max_hits);
        let state = self.state.read();
        let mut hits = IndexHits::default();
        let files = || state.files.iter().rev().filter(|file| file.table.is_some());
        for file in files() {
            if file.meets(begin, end) {
                file.query(hash, begin, end, max, &mut hits.offsets);
            }
            if file.header.begin_timestamp < begin || hits.offsets.len() >= max {
                break;
            }
        }
        if let Some(newest) = files().next().filter(|_| !hits.offsets.is_empty()) {
            hits.last_update_timestamp = newest.header.end_timestamp;
            hits.last_update_offset = newest.header.end_offset;
        }
        hits
    }

    /// The files, oldest first.
    pub(crate) fn files(&self) -> Vec<IndexFileInfo> {
        let info = |file: &IndexFile| IndexFileInfo {
            name: file.name.clone(),
            path: file.path.clone(),
            file_size: file.file_size,
            begin_timestamp: file.header.begin_timestamp,
            end_timestamp: file.header.end_timestamp,
            begin_offset: file.header.begin_offset,
            end_offset: file.header.end_offset,
            slot_count: file.header.slot_count,
            index_count: file.header.index_count,
        };
        self.state.read().files.iter().map(info).collect()
    }

    /// Appends up to `max` entries of file `number` from entry `first` (from 1) on to `out`; the times are to the
    /// second. None when the file has no more.
    pub(crate) fn read(&self, number: usize, first: u32, max: usize, out: &mut Vec<KeyPut>) {
        let state = self.state.read();
        let Some(file) = state.files.get(number) else { return };
        let first = first.max(1);
        let count = u32::try_from(max).unwrap_or(u32::MAX).min((file.entries() + 1).saturating_sub(first));
        out.reserve(usize::try_from(count).unwrap_or(0));
        for number in first..first + count {
            out.extend(file.entry(number).map(|entry| file.key(&entry)));
        }
    }

    /// Where the first key of a record at or behind `from` stands or will stand: the file's name and the entry's number.
    /// `None` when there are no files.
    pub(crate) fn first_key(&self, from: PhysicalOffset) -> Option<(String, u32)> {
        let state = self.state.read();
        for (number, file) in state.files.iter().enumerate().rev() {
            let mut next = file.header.index_count.max(1);
            while next > 1 && file.entry(next - 1).is_some_and(|entry| entry.offset >= from) {
                next -= 1;
            }
            if next > 1 || number == 0 {
                return Some((file.name.clone(), next));
            }
        }
        None
    }

    /// The time that the entries of file `number` count from.
    pub(crate) fn begin_timestamp(&self, number: usize) -> StoreTimestamp {
        self.state.read().files.get(number).map_or(StoreTimestamp::ZERO, |file| file.header.begin_timestamp)
    }

    /// The last record in the index.
    #[cfg(test)]
    pub(crate) fn end_offset(&self) -> Option<PhysicalOffset> {
        self.state.read().end.map(|(end, _)| end)
    }

    /// Fails where file `number` or a later one has bytes that cannot be read.
    pub(crate) fn check_readable(&self, number: usize) -> Result<()> {
        let state = self.state.read();
        let mut tables = state.files.iter().skip(number).filter_map(|file| file.table.as_ref());
        tables.try_for_each(|table| table.check_readable(0..table.len()))
    }

    /// Reads a whole file and says whether it is sound. One that is not there is.
    pub(crate) fn check(&self, number: usize) -> Soundness {
        let state = self.state.read();
        let Some(file) = state.files.get(number) else { return Soundness::Sound };
        match file.check() {
            // Only the newest file may have room: whatever another lacks is lost.
            sound @ (Soundness::Sound | Soundness::Slots)
                if file.is_full() || number + 1 == state.files.len() =>
            {
                sound
            }
            Soundness::Sound | Soundness::Slots => Soundness::Entries { first: file.header.index_count },
            bad => bad,
        }
    }

    /// Brings a file to what its good entries say: cuts bad ones, rebuilds slots and header. When entries were lost
    /// the later files go, and the file itself when nothing is left, so that records can be put from
    /// [`IndexSet::end_offset`] on.
    pub(crate) fn repair(&self, number: usize) -> Result<()> {
        let mut state = self.state.write();
        let Some(file) = state.files.get_mut(number) else { return Ok(()) };
        file.repair()?;
        if file.table.is_none() || file.entries() == 0 {
            self.drop_from(&mut state, number)?;
        } else if !file.is_full() {
            self.drop_from(&mut state, number + 1)?;
        }
        state.find_end();
        Ok(())
    }

    /// Drops every entry of a record at or beyond `end`, and the files that are empty then.
    pub(crate) fn truncate_from(&self, end: PhysicalOffset) -> Result<()> {
        let mut state = self.state.write();
        loop {
            let number = state.files.len().wrapping_sub(1);
            let Some(last) = state.files.last_mut() else { break };
            if last.table.is_none() {
                // Of no use, and nothing is known of what it held: the records behind are put again.
                self.drop_from(&mut state, number)?;
                continue;
            }
            let mut keep = last.header.index_count;
            while keep > 1 && last.entry(keep - 1).is_some_and(|entry| entry.offset >= end) {
                keep -= 1;
            }
            if keep > 1 {
                if keep < last.header.index_count {
                    last.cut(keep)?;
                }
                break;
            }
            self.drop_from(&mut state, number)?;
        }
        state.find_end();
        Ok(())
    }

    /// Drops entry `entry` of file `number` and all that stand behind it.
    pub(crate) fn cut_at(&self, number: usize, entry: u32) -> Result<()> {
        let mut state = self.state.write();
        if entry <= 1 {
            self.drop_from(&mut state, number)?;
        } else {
            self.drop_from(&mut state, number + 1)?;
            if let Some(file) = state.files.get_mut(number) {
                file.cut(entry)?;
            }
        }
        state.find_end();
        Ok(())
    }

    /// Removes file `number` and every later one.
    pub(crate) fn remove_from(&self, number: usize) -> Result<()> {
        let mut state = self.state.write();
        self.drop_from(&mut state, number)?;
        state.find_end();
        Ok(())
    }

    fn drop_from(&self, state: &mut State, number: usize) -> Result<()> {
        while state.files.len() > number {
            let Some(file) = state.files.pop() else { break };
            state.names_changed = true;
            self.vfs.remove(&file.path).map_err(Error::io("remove", &file.path))?;
        }
        Ok(())
    }

    /// Removes every file.
    pub(crate) fn remove_all(&self) -> Result<()> {
        self.remove_from(0)
    }

    /// Removes files, oldest first and never the newest, whose records all lie below `min`; says how many.
    pub(crate) fn delete_before(&self, min: PhysicalOffset) -> Result<usize> {
        let mut state = self.state.write();
        let old = state.files.iter().take_while(|file| file.header.end_offset < min).count();
        let old = old.min(state.files.len().saturating_sub(1));
        let gone: Vec<_> = state.files.drain(..old).collect();
        state.names_changed |= old > 0;
        drop(state);
        for file in &gone {
            self.vfs.remove(&file.path).map_err(Error::io("remove", &file.path))?;
        }
        Ok(old)
    }

    /// Writes the files again that are not known to be durable, and makes them due for the next flush: a sync may have
    /// failed, after which the system calls pages clean that the disk has not got. `durable` is what the checkpoint says:
    /// the end of a full file. One of RocketMQ's may say more than the disk has; then the last two files are written.
    pub(crate) fn rewrite_behind(&self, durable: StoreTimestamp, ours: bool) -> Result<()> {
        let mut state = self.state.write();
        state.names_changed |= !state.files.is_empty();
        let known = if ours {
            let ends_there = |file: &IndexFile| file.is_full() && file.header.end_timestamp == durable;
            state.files.iter().position(ends_there).map_or(0, |last| last + 1)
        } else {
            state.files.len().saturating_sub(2)
        };
        for file in &mut state.files[known..] {
            if let Some(table) = &file.table {
                table.rewrite()?;
                file.dirty = true;
            }
        }
        Ok(())
    }

    /// Syncs what is dirty: full files, and with `force` the newest too. Says the endTimestamp of the newest full
    /// file that is durable, for the checkpoint. Puts and queries go on meanwhile. After a failed sync every later
    /// flush fails as well.
    pub(crate) fn flush(&self, force: bool) -> Result<Option<StoreTimestamp>> {
        let mut state = self.state.write();
        if let Some(why) = &state.failed {
            return Err(Error::Poisoned { at: PhysicalOffset::ZERO, why: why.clone() });
        }
        let names_changed = std::mem::take(&mut state.names_changed);
        let mut due = Vec::new();
        for file in state.files.iter_mut().filter(|file| file.dirty && (force || file.is_full())) {
            if let Some(table) = &file.table {
                file.dirty = false;
                due.push(Arc::clone(table));
            }
        }
        drop(state);
        let mut outcome = due.iter().try_for_each(|table| table.sync());
        if outcome.is_ok() && names_changed {
            outcome = self.vfs.sync_dir(&self.dir).map_err(Error::io("sync", &self.dir));
        }
        let mut state = self.state.write();
        state.failed = outcome.as_ref().err().map(ToString::to_string);
        outcome?;
        let full =
            state.files.iter().rev().find(|file| file.table.is_some() && file.is_full() && !file.dirty);
        state.durable = full.map(|file| file.header.end_timestamp).max(state.durable);
        Ok(state.durable)
    }
}
