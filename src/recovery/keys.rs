//! Makes the index what the log says.
//!
//! First every file is made sound in itself. Then the keys that each record makes are compared with the entries as
//! they stand, in order, file after file, and so are the times by which queries choose files and entries. As long as
//! they agree nothing is written. From the first record on that the index lacks or has otherwise, what follows is
//! dropped, and everything is put again from the log.
//!
//! Let pass: entries of records before the pass, of damaged and of deleted records, and a record's keys that stand
//! there twice, which is how RocketMQ leaves the last one after a kill.
//!
//! What is put here names each key of a record once, also when its KEYS do twice: a second entry would only use up
//! one of the hits that a query has room for. RocketMQ's own files with both are right as well.

use super::{
    DamagedRange, Start,
    report::{IndexRepairs, damage_at},
};
use crate::{
    error::Result,
    format::index::time_diff,
    index::{IndexFileInfo, IndexSet, KeyPut, Soundness},
    types::{PhysicalOffset, StoreTimestamp},
};

/// Entries read at a time.
const PAGE: usize = 4096;

/// The index during the pass over the log.
#[derive(Debug)]
pub(super) struct IndexRepair<'i> {
    index: &'i IndexSet,
    /// How many files it has; asked for no more once they changed.
    files: usize,
    from: PhysicalOffset,
    cursor: Cursor,
    /// Everything so far agrees.
    agrees: bool,
    /// The keys of the last record that the index has.
    last: Vec<KeyPut>,
    /// The keys of the record being put.
    once: Vec<KeyPut>,
    /// Entries of records before the start are not what they were.
    lost: bool,
    done: IndexRepairs,
}

/// Whether a checkpoint that says `durable` cannot be of these files: no file ends there, and one that ends later had
/// begun. The first is what counts: after the clock was set back the end of one file may lie within the next.
fn contradicts(files: &[IndexFileInfo], durable: StoreTimestamp) -> bool {
    files.iter().all(|file| file.end_timestamp != durable)
        && files.iter().any(|file| file.begin_timestamp < durable && durable < file.end_timestamp)
}

/// A place in the index.
#[derive(Debug)]
struct Cursor {
    file: usize,
    /// The entry behind `page`.
    next: u32,
    page: Vec<KeyPut>,
    at: usize,
    /// What the times of `page` count from.
    begin: StoreTimestamp,
}

impl Cursor {
    fn peek(&mut self, index: &IndexSet, files: usize) -> Option<KeyPut> {
        while self.at == self.page.len() {
            if self.file >= files {
                return None;
            }
            self.page.clear();
            self.at = 0;
            index.read(self.file, self.next, PAGE, &mut self.page);
            self.begin = index.begin_timestamp(self.file);
            self.next += u32::try_from(self.page.len()).unwrap_or(0);
            if self.page.is_empty() {
                (self.file, self.next) = (self.file + 1, 1);
            }
        }
        self.page.get(self.at).copied()
    }

    /// Whether the entry that [`Cursor::peek`] shows is the key's, with its time as far as an entry keeps it: queries choose
    /// by that. A file counts from the time of its first entry.
    fn is_of(&self, entry: &KeyPut, key: &KeyPut) -> bool {
        let known = self.begin > StoreTimestamp::ZERO;
        let seconds = if known { i64::from(time_diff(self.begin, key.store_timestamp)) } else { 0 };
        (entry.offset, entry.hash) == (key.offset, key.hash)
            && entry.store_timestamp.0 == self.begin.0.saturating_add(seconds * 1000)
            && (self.begin == key.store_timestamp || self.place().1 > 1)
    }

    /// File and number of the entry that [`Cursor::peek`] shows.
    fn place(&self) -> (usize, u32) {
        let left = u32::try_from(self.page.len() - self.at).unwrap_or(0);
        (self.file, self.next - left)
    }
}

impl<'i> IndexRepair<'i> {
    /// Makes each file sound from the start on, and begins with the first entry of a record at or behind it.
    ///
    /// `durable` is what the checkpoint says of the index after a kill: the end of a file, whenever one was full and
    /// on the disk. Another time within a file says that these files and this checkpoint never were together, and none
    /// of them is kept.
    pub(super) fn start(index: &'i IndexSet, start: &Start, durable: Option<StoreTimestamp>) -> Result<Self> {
        let mut done = IndexRepairs::default();
        if durable.is_some_and(|durable| contradicts(&index.files(), durable)) {
            index.remove_all()?;
        }
        let place = start.keys.as_ref().and_then(|(name, entry)| {
            Some((index.files().iter().position(|file| file.name == *name)?, *entry))
        });
        let (file, next) = place.unwrap_or((0, 1));
        index.check_readable(file)?;
        let mut number = file;
        while number < index.files().len() {
            if index.check(number) != Soundness::Sound {
                done.repaired += 1;
                index.repair(number)?;
            }
            number += 1;
        }
        let left = index.files().get(file).map_or(0, |file| file.index_count);
        let lost = start.keys.is_some() && (place.is_none() || left < next);
        let cursor = Cursor { file, next, page: Vec::new(), at: 0, begin: StoreTimestamp::ZERO };
        let files = index.files().len();
        // Behind a late start there are no entries of records before it.
        let from = if start.is_late { PhysicalOffset::ZERO } else { start.from };
        let (last, once) = (Vec::new(), Vec::new());
        Ok(Self { index, files, from, cursor, agrees: true, last, once, lost, done })
    }

    /// Whether entries of records before the start are gone: then only a pass over all of the log makes them again.
    pub(super) const fn has_lost(&self) -> bool {
        self.lost
    }

    /// Sees to the keys of the record at `at`. One of a `dead` topic may have them or not.
    pub(super) fn take(
        &mut self,
        at: PhysicalOffset,
        keys: &[KeyPut],
        dead: bool,
        damage: &[DamagedRange],
    ) -> Result<()> {
        if keys.is_empty() {
            return Ok(());
        }
        if self.agrees && self.agrees_on(at, keys, dead, damage)? {
            return Ok(());
        }
        if !dead {
            self.put(at, keys)?;
        }
        Ok(())
    }

    fn put(&mut self, at: PhysicalOffset, keys: &[KeyPut]) -> Result<()> {
        self.agrees = false;
        self.done.rebuilt_from.get_or_insert(at);
        self.once.clear();
        for key in keys {
            if !self.once.contains(key) {
                self.once.push(*key);
            }
        }
        self.done.added += self.once.len() as u64;
        self.index.put(&self.once)
    }

    /// Whether the next entries are the keys of this record. If not, they are dropped.
    fn agrees_on(
        &mut self,
        at: PhysicalOffset,
        keys: &[KeyPut],
        dead: bool,
        damage: &[DamagedRange],
    ) -> Result<bool> {
        if !self.skip_to(at, damage)? {
            return Ok(false);
        }
        let own = self.cursor.peek(self.index, self.files).map(|_| self.cursor.place());
        let mut matched = 0;
        while let Some(key) = keys.get(matched) {
            let entry = self.cursor.peek(self.index, self.files);
            if entry.is_some_and(|entry| self.cursor.is_of(&entry, key)) {
                self.cursor.at += 1;
            } else if !keys[..matched].contains(key) {
                break;
            }
            matched += 1;
        }
        if matched == keys.len() {
            self.last.clear();
            self.last.extend_from_slice(keys);
            return Ok(true);
        }
        if matched == 0 && dead {
            return Ok(true);
        }
        self.cut(own)?;
        Ok(false)
    }

    /// Passes over entries of earlier records that may stand there. False when one may not: it and all behind it are
    /// dropped then.
    fn skip_to(&mut self, at: PhysicalOffset, damage: &[DamagedRange]) -> Result<bool> {
        while let Some(entry) = self.cursor.peek(self.index, self.files).filter(|entry| entry.offset < at) {
            let again = self.last.iter().any(|key| (key.offset, key.hash) == (entry.offset, entry.hash));
            if !again {
                // What comes again comes at once: behind others it is from a file that is not in its place.
                self.last.clear();
                if entry.offset >= self.from && damage_at(damage, entry.offset).is_none() {
                    self.cut(Some(self.cursor.place()))?;
                    return Ok(false);
                }
            }
            self.cursor.at += 1;
        }
        Ok(true)
    }

    /// Drops the entries from `place` on, wherever in the log they lead: files that a crash has brought back may
    /// begin again at earlier records.
    fn cut(&mut self, place: Option<(usize, u32)>) -> Result<()> {
        self.agrees = false;
        place.map_or(Ok(()), |(file, number)| self.index.cut_at(file, number))
    }

    /// Drops what is left: entries of no record, and those behind the end of the log.
    pub(super) fn finish(mut self, end: PhysicalOffset, damage: &[DamagedRange]) -> Result<IndexRepairs> {
        if self.agrees && self.skip_to(end, damage)? && self.cursor.peek(self.index, self.files).is_some() {
            self.cut(Some(self.cursor.place()))?;
        }
        self.index.truncate_from(end)?;
        Ok(self.done)
    }
}
