//! One IndexFile: mapped, its header in memory.

use std::{
    io,
    ops::{ControlFlow, Deref, Range},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::KeyPut;
use crate::{
    error::{Error, Result},
    format::index::{ENTRY, Entry, Geometry, HEADER, Header, INDEX_COUNT_AT, time_diff},
    segment::SlotTable,
    types::{PhysicalOffset, StoreTimestamp},
    vfs::{Backing, DirEntry, Reserve, Vfs, check_readable},
};

/// Entries get their space in steps of this many bytes.
const STEP: usize = 4 << 20;
/// Room for the entries of any one record.
const ENDING: usize = 64 << 10;

/// The mapping of one IndexFile, and how bytes get into it.
#[derive(Debug)]
pub(super) struct Table {
    slots: SlotTable,
    path: PathBuf,
    /// On a copy-on-write file system reserved space is no promise: bytes go through the file there, where a full
    /// disk is an error.
    through_file: bool,
}

impl Table {
    fn new(vfs: &dyn Vfs, backing: Box<dyn Backing>, path: &Path) -> Self {
        let dir = path.parent().unwrap_or(path);
        let through_file = !vfs.may_store_through_mapping(dir);
        Self { slots: SlotTable::new(backing), path: path.to_path_buf(), through_file }
    }

    /// Fails where `range` has bytes that cannot be read.
    pub(super) fn check_readable(&self, range: Range<usize>) -> Result<()> {
        check_readable(self.slots.backing(), &self.path, range)
    }

    /// Stores bytes whose space is reserved.
    pub(super) fn put(&self, at: usize, bytes: &[u8]) -> Result<()> {
        if self.through_file {
            return self.slots.backing().write(at, bytes).map_err(failed("write", &self.path, bytes.len()));
        }
        self.slots.put_bytes(at, bytes);
        Ok(())
    }

    /// Stores an entry whose space is reserved.
    #[inline]
    fn put_entry(&self, at: usize, entry: &Entry) -> Result<()> {
        let bytes = entry.encode();
        if self.through_file {
            return self.put(at, &bytes);
        }
        let mut words = [0; ENTRY / 4];
        for (word, four) in words.iter_mut().zip(bytes.as_chunks::<4>().0) {
            *word = u32::from_be_bytes(*four);
        }
        self.slots.put_words(at, words);
        Ok(())
    }

    /// Stores a number that leads to what was stored before.
    #[inline]
    pub(super) fn put_u32(&self, at: usize, value: u32) -> Result<()> {
        if self.through_file {
            return self.put(at, &value.to_be_bytes());
        }
        self.slots.put_u32(at, value);
        Ok(())
    }

    fn reserve(&self, range: Range<usize>) -> Result<()> {
        let bytes = range.len();
        self.slots.backing().reserve(range).map_err(failed("reserve space for", &self.path, bytes))
    }

    /// Writes again what the file holds, so that the next sync brings it to the disk.
    pub(super) fn rewrite(&self) -> Result<()> {
        self.slots.backing().rewrite_from(0).map_err(Error::io("write again", &self.path))
    }

    /// Makes everything durable.
    pub(super) fn sync(&self) -> Result<()> {
        self.slots.backing().sync(0..self.slots.len()).map_err(Error::io("sync", &self.path))
    }
}

impl Deref for Table {
    type Target = SlotTable;

    fn deref(&self) -> &SlotTable {
        &self.slots
    }
}

fn failed(action: &'static str, path: &Path, bytes: usize) -> impl FnOnce(io::Error) -> Error + use<> {
    let path = path.to_path_buf();
    move |source| match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Error::NoSpace { path, bytes: bytes as u64 }
        }
        _ => Error::Io { action, path, source },
    }
}

/// One IndexFile.
#[derive(Debug)]
pub(super) struct IndexFile {
    pub name: String,
    pub path: PathBuf,
    pub file_size: u64,
    pub header: Header,
    pub geometry: Geometry,
    /// `None` for a file that no writer of this geometry left: it is kept out of everything.
    pub table: Option<Arc<Table>>,
    /// Bytes from the front that have their space; 0 when nothing is known.
    reserved: usize,
    /// Something is not durable.
    pub dirty: bool,
}

impl IndexFile {
    /// Opens a file.
    pub(super) fn open(vfs: &dyn Vfs, path: PathBuf, entry: &DirEntry, geometry: Geometry) -> Result<Self> {
        let mut file = Self {
            name: entry.name.clone(),
            path,
            file_size: entry.len,
            header: Header::default(),
            geometry,
            table: None,
            reserved: 0,
            dirty: false,
        };
        if entry.len != geometry.file_size() as u64 {
            return Ok(file);
        }
        let backing = vfs.open(&file.path).map_err(Error::io("open", &file.path))?;
        let table = Table::new(vfs, backing, &file.path);
        table.check_readable(0..HEADER)?;
        if let Ok(header) = Header::decode(&table.get::<HEADER>(0)) {
            // Nothing is ever written in place of a file that says it has more entries than it can hold.
            if header.index_count <= geometry.entries && header.slot_count <= geometry.slots {
                // Where the index ends is read at once, all else when it is checked or asked for.
                let end = geometry.entry_at(header.index_count);
                table.check_readable(end.saturating_sub(ENDING)..end)?;
                file.header = header;
                file.table = Some(Arc::new(table));
            }
        }
        Ok(file)
    }

    /// Makes a file behind `previous`, whose end it takes over until its own first entry.
    pub(super) fn create(
        vfs: &dyn Vfs,
        path: PathBuf,
        name: String,
        geometry: Geometry,
        previous: Option<&Header>,
    ) -> Result<Self> {
        let size = geometry.file_size();
        let backing = vfs.create(&path, size as u64, Reserve::None).map_err(failed("create", &path, size))?;
        let table = Table::new(vfs, backing, &path);
        let mut header = Header::default();
        if let Some(previous) = previous {
            header.begin_timestamp = previous.end_timestamp;
            header.end_timestamp = previous.end_timestamp;
            header.begin_offset = previous.end_offset;
            header.end_offset = previous.end_offset;
        }
        let first = geometry.entry_at(0).saturating_add(STEP).min(size);
        if let Err(error) = table.reserve(0..first).and_then(|()| table.put(0, &header.encode())) {
            drop(table);
            vfs.remove(&path).map_err(Error::io("remove", &path))?;
            return Err(error);
        }
        let table = Some(Arc::new(table));
        Ok(Self { name, path, file_size: size as u64, header, geometry, table, reserved: first, dirty: true })
    }

    /// Entries in the file.
    pub(super) const fn entries(&self) -> u32 {
        self.header.index_count - 1
    }

    /// Whether it takes no more entries.
    pub(super) const fn is_full(&self) -> bool {
        self.table.is_none() || self.geometry.is_full(&self.header)
    }

    /// Entries for which it has space already.
    pub(super) fn room(&self) -> usize {
        let (next, end) = (self.header.index_count, self.geometry.entries);
        let claimed = self.reserved.saturating_sub(self.geometry.entry_at(next)) / ENTRY;
        if self.is_full() { 0 } else { claimed.min((end - next) as usize) }
    }

    /// Entry `number`, from 1 to [`IndexFile::entries`].
    #[inline]
    pub(super) fn entry(&self, number: u32) -> Option<Entry> {
        let table = self.table.as_ref().filter(|_| (1..self.header.index_count).contains(&number))?;
        let [hash, high, low, diff, previous] = table.get_words(self.geometry.entry_at(number));
        Some(Entry {
            key_hash: hash.cast_signed(),
            offset: PhysicalOffset((u64::from(high) << 32 | u64::from(low)).cast_signed()),
            time_diff: diff.cast_signed(),
            previous: previous.cast_signed(),
        })
    }

    /// The entry as a put.
    pub(super) fn key(&self, entry: &Entry) -> KeyPut {
        KeyPut {
            hash: entry.key_hash,
            offset: entry.offset,
            store_timestamp: entry.timestamp(self.header.begin_timestamp),
        }
    }

    /// Takes the first of `keys` in, as many as fit, and says how many.
    pub(super) fn put(&mut self, keys: &[KeyPut]) -> Result<usize> {
        /// How far ahead slots are fetched: they lie scattered over 20 MB.
        const AHEAD: usize = 32;
        let Some(table) = self.table.clone() else { return Ok(0) };
        let room = usize::try_from(self.geometry.entries - self.header.index_count).unwrap_or(0);
        let keys = &keys[..keys.len().min(room)];
        let slot_at = |key: &KeyPut| self.geometry.slot_at(self.geometry.slot_of(key.hash));
        keys.iter().take(AHEAD).for_each(|key| table.prefetch(slot_at(key)));
        let mut done = 0;
        let mut outcome = Ok(());
        for (i, key) in keys.iter().enumerate() {
            if let Some(later) = keys.get(i + AHEAD) {
                table.prefetch(self.geometry.slot_at(self.geometry.slot_of(later.hash)));
            }
            outcome = self.make_room(&table).and_then(|()| self.put_one(&table, key));
            if outcome.is_err() {
                break;
            }
            done += 1;
        }
        if done > 0 {
            self.dirty = true;
            outcome = outcome.and(table.put(0, &self.header.encode()));
        }
        outcome.map(|()| done)
    }

    /// Sees to it that the slots and the next entry have their space.
    #[inline]
    fn make_room(&mut self, table: &Table) -> Result<()> {
        let need = self.geometry.entry_at(self.header.index_count) + ENTRY;
        if need <= self.reserved { Ok(()) } else { self.reserve_upto(table, need) }
    }

    #[cold]
    fn reserve_upto(&mut self, table: &Table, need: usize) -> Result<()> {
        let upto = need.saturating_add(STEP).min(table.len());
        table.reserve(self.reserved..upto)?;
        if self.reserved > 0 {
            // What is complete may go to the disk, so that the sync of the full file is short.
            table.backing().start_writeback(self.reserved.saturating_sub(STEP)..self.reserved);
        }
        self.reserved = upto;
        Ok(())
    }

    #[inline]
    fn put_one(&mut self, table: &Table, key: &KeyPut) -> Result<()> {
        let number = self.header.index_count;
        let slot = self.geometry.slot_at(self.geometry.slot_of(key.hash));
        let newest = table.get_u32(slot);
        let previous = if newest < number { newest } else { 0 };
        if number <= 1 {
            self.header.begin_timestamp = key.store_timestamp;
            self.header.begin_offset = key.offset;
        }
        let time_diff = self.time_diff(key.store_timestamp);
        let entry = Entry { key_hash: key.hash, offset: key.offset, time_diff, previous: i32_of(previous) };
        table.put_entry(self.geometry.entry_at(number), &entry)?;
        table.put_u32(slot, number)?;
        self.header.index_count = number + 1;
        self.header.slot_count += u32::from(previous == 0);
        self.header.end_timestamp = key.store_timestamp;
        self.header.end_offset = key.offset;
        if table.through_file {
            // The header follows with the last key of the batch; a write for each would double the work.
            return Ok(());
        }
        table.put_u32(INDEX_COUNT_AT, number + 1)
    }

    /// What an entry of this file keeps of its record's store time.
    #[inline]
    pub(super) fn time_diff(&self, store: StoreTimestamp) -> i32 {
        let begin = self.header.begin_timestamp;
        if begin.0 <= 0 { 0 } else { time_diff(begin, store) }
    }

    /// Whether the file may hold entries of `begin..=end`.
    pub(super) fn meets(&self, begin: StoreTimestamp, end: StoreTimestamp) -> bool {
        let own = self.header.begin_timestamp..=self.header.end_timestamp;
        (begin < *own.start() && end > *own.end()) || own.contains(&begin) || own.contains(&end)
    }

    /// Walks the chain of a hash, newest first, and adds the records of entries with that hash and time.
    pub(super) fn query(
        &self,
        hash: i32,
        begin: StoreTimestamp,
        end: StoreTimestamp,
        max: usize,
        found: &mut Vec<PhysicalOffset>,
    ) {
        let _ = self.walk(hash, |entry| {
            if found.len() >= max || entry.time_diff < 0 {
                return ControlFlow::Break(());
            }
            let time = entry.timestamp(self.header.begin_timestamp);
            if entry.key_hash == hash && (begin..=end).contains(&time) {
                found.push(entry.offset);
            }
            if time < begin { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
    }

    /// The entries of a hash's slot, newest first. A link that does not lead backwards ends the walk, so that no
    /// damage makes it endless.
    fn walk(&self, hash: i32, mut visit: impl FnMut(&Entry) -> ControlFlow<()>) -> ControlFlow<()> {
        let Some(table) = &self.table else { return ControlFlow::Continue(()) };
        let mut number = table.get_u32(self.geometry.slot_at(self.geometry.slot_of(hash)));
        while let Some(entry) = self.entry(number) {
            visit(&entry)?;
            match u32::try_from(entry.previous) {
                Ok(previous) if previous < number => number = previous,
                _ => break,
            }
        }
        ControlFlow::Continue(())
    }

    /// Drops the entries from `number` on, newest first, each slot going back to what it was before.
    pub(super) fn cut(&mut self, number: u32) -> Result<()> {
        let Some(table) = self.table.clone() else { return Ok(()) };
        let keep = number.max(1);
        for gone in (keep..self.header.index_count).rev() {
            let at = self.geometry.entry_at(gone);
            let entry = Entry::decode(&table.get::<ENTRY>(at));
            let slot = self.geometry.slot_at(self.geometry.slot_of(entry.key_hash));
            if table.get_u32(slot) == gone {
                let previous = u32::try_from(entry.previous).unwrap_or(0);
                table.put_u32(slot, previous)?;
                self.header.slot_count -= u32::from(previous == 0 && self.header.slot_count > 0);
            }
            table.put(at, &[0; ENTRY])?;
        }
        self.header.index_count = keep.min(self.header.index_count);
        self.dirty = true;
        self.end_at_last_entry()
    }

    /// Claims the space of everything up to the last entry, before any of it is changed in place.
    pub(super) fn claim(&mut self) -> Result<()> {
        let Some(table) = self.table.clone() else { return Ok(()) };
        let upto = self.geometry.entry_at(self.header.index_count).max(self.reserved);
        table.reserve(0..upto)?;
        self.reserved = upto;
        Ok(())
    }

    /// Makes the header's end what the last entry says, to the second, and stores the header.
    pub(super) fn end_at_last_entry(&mut self) -> Result<()> {
        if let Some(last) = self.entry(self.entries()) {
            self.header.end_offset = last.offset;
            // The header knows milliseconds, the entry seconds: within the second the header is right.
            if self.time_diff(self.header.end_timestamp) != last.time_diff {
                self.header.end_timestamp = last.timestamp(self.header.begin_timestamp);
            }
        }
        self.table.as_ref().map_or(Ok(()), |table| table.put(0, &self.header.encode()))
    }
}

/// An entry number as the file holds it; the geometry keeps them far below the limit.
pub(super) fn i32_of(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
