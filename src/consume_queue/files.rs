//! A run of equal files as one space of bytes whose end waits in memory.
//!
//! ```text
//!  first        written         end
//!    |  in files   |   in memory  |
//! ```
//! Bytes are appended to memory and written through the files by [`Run::write_out`]; a file is made when its first
//! byte is written. After the last byte a file holds zeros: what recovery or truncation cuts is zeroed, and before
//! bytes are written into a file that an earlier process left, the place behind them is looked at.
//!
//! A file is made when those before it are durable, by name and length, and removed from the end when the removal of
//! those behind it is. So no power cut leaves a later file without an earlier one: that would look like a run whose
//! beginning retention has deleted, and keep numbers that were given to nobody.

use std::{
    collections::VecDeque,
    mem,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::mapping::{Disk, Slot, no_space};
use crate::{
    error::{Corruption, Error, Result},
    format::consume_queue::{ENTRY, Entry, SIZE_AT, TAGS_CODE_AT},
    segment::SlotTable,
    vfs::DirEntry,
};

/// Bytes looked at and written at once.
const CHUNK: usize = 4096;
/// After this many zero bytes behind the end recovery looks no further: reading holes costs memory, and writes into
/// the file look ahead of themselves.
const QUIET: usize = CHUNK;
/// Room in memory that a run begins with, beside its first entry.
const FIRST_ROOM: usize = 2 * ENTRY;
/// Room in memory that a run keeps between writes.
const KEEP: usize = 2048;
/// Bytes behind a write that are looked at in a file of an earlier process: more than any entry.
const LOOK: usize = 64;
const PAGE: u64 = 4096;

/// A length that fits into memory, since files are mapped whole.
pub(super) fn len(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// A run of equal files as one space of bytes. What an append looks at stands first.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Run {
    /// Bytes below are in files, but for those of `fill`.
    written: u64,
    tail: Vec<u8>,
    file_size: u64,
    disk: Arc<Disk>,
    dir: PathBuf,
    files: VecDeque<Arc<Slot>>,
    /// What has to hold fillers before the next write; within one file.
    fill: Range<u64>,
    /// Bytes below are durable, but for those in `touched`.
    synced: u64,
    /// Files changed below `synced`.
    touched: Vec<Arc<Slot>>,
    /// Files were made or removed since the directory was synced.
    names_changed: bool,
    /// The directory may have been made since.
    dir_is_new: bool,
    /// The name and the length of the last file may not be durable.
    last_is_new: bool,
    /// Files that do not belong to the run and go when it is recovered.
    strays: Vec<PathBuf>,
    /// Files that are shorter than they should be, and their lengths: filled up with zeros when it is recovered.
    short: Vec<(PathBuf, u64)>,
}

/// What has to be synced to make a run durable up to a byte.
#[derive(Debug)]
pub(super) struct SyncPoint {
    /// Files to sync.
    pub files: Vec<Arc<Slot>>,
    /// Directories whose names changed, innermost first.
    pub dirs: Vec<PathBuf>,
    upto: u64,
}

impl Run {
    /// A run without files.
    pub(super) fn empty(disk: Arc<Disk>, dir: PathBuf, file_size: u64) -> Self {
        Self {
            disk,
            dir,
            file_size,
            files: VecDeque::new(),
            written: 0,
            tail: Vec::new(),
            fill: 0..0,
            synced: 0,
            touched: Vec::new(),
            names_changed: false,
            dir_is_new: false,
            last_is_new: false,
            strays: Vec::new(),
            short: Vec::new(),
        }
    }

    /// The run that `listing`, sorted by name, shows; it ends at the end of its last file. Names that are no
    /// numbers are left alone. Files before a gap are strays: retention has removed what stood in it, and a power cut has
    /// brought them back; or the log gives their entries again. So are files without bytes. Files that are too
    /// short are known by [`Run::short`].
    pub(super) fn load(
        disk: Arc<Disk>,
        dir: PathBuf,
        file_size: u64,
        key: &'static str,
        listing: &[DirEntry],
    ) -> Result<Self> {
        let mut run = Self::empty(disk, dir, file_size);
        let numbered: Vec<_> =
            listing.iter().filter(|e| !e.is_dir).filter_map(|e| Some((base_of(&e.name)?, e))).collect();
        for &(base, entry) in &numbered {
            let path = run.dir.join(&entry.name);
            // Made, and its length never reached the disk: nothing is in it.
            if entry.len == 0 {
                run.strays.push(path);
                continue;
            }
            // A short file is damaged; among files that stand elsewhere it is of another configuration.
            if entry.len > file_size || (entry.len < file_size && base % file_size != 0) {
                return Err(Error::FileSize { path, actual: entry.len, expected: file_size, key });
            }
            if base % file_size != 0 {
                return Err(Error::ForeignFile { path, expected: "queue file of the configured size" });
            }
            if base != run.written {
                run.strays.extend(run.files.drain(..).map(|slot| slot.path.clone()));
                run.short.clear();
            }
            if entry.len < file_size {
                run.short.push((path.clone(), entry.len));
            }
            run.files.push_back(Slot::closed(base, path));
            run.written = base.saturating_add(file_size);
        }
        run.synced = run.written;
        // The process that made it may have been killed before it synced.
        run.last_is_new = !run.files.is_empty();
        Ok(run)
    }

    /// The run of files that nobody has changed since they held everything up to `end`.
    pub(super) fn resume(
        disk: Arc<Disk>,
        dir: PathBuf,
        file_size: u64,
        files: Vec<Arc<Slot>>,
        end: u64,
    ) -> Self {
        Self { files: files.into(), written: end, synced: end, ..Self::empty(disk, dir, file_size) }
    }

    /// Whether everything is in files and durable.
    pub(super) fn rests(&self) -> bool {
        self.tail.is_empty()
            && self.fill.is_empty()
            && self.strays.is_empty()
            && self.short.is_empty()
            && !self.dir_is_new
            && !self.is_due(0)
    }

    /// Where the files are, oldest first.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|slot| slot.path.as_path())
    }

    /// Whether any of its files is mapped.
    #[cfg(test)]
    pub(super) fn is_mapped(&self) -> bool {
        self.files.iter().any(|slot| slot.is_open())
    }

    /// Files that are shorter than they should be, and their lengths.
    pub(super) fn short(&self) -> &[(PathBuf, u64)] {
        &self.short
    }

    /// Whether any file was found at its full length.
    pub(super) fn has_whole_file(&self) -> bool {
        self.files.len() > self.short.len()
    }

    /// Fills short files up with zeros, where recovery writes the missing entries then. Says which they were.
    pub(super) fn fill_up(&mut self) -> Result<Vec<(PathBuf, u64)>> {
        for (path, _) in &self.short {
            self.disk.vfs.set_len(path, self.file_size).map_err(Error::io("fill up", path))?;
        }
        Ok(mem::take(&mut self.short))
    }

    /// The first byte of the first file.
    pub(super) fn first(&self) -> u64 {
        match self.files.front() {
            Some(slot) => slot.base,
            None if self.fill.is_empty() => self.written,
            None => self.fill.start,
        }
    }

    /// Behind the last byte.
    #[inline]
    pub(super) fn end(&self) -> u64 {
        self.written + self.tail.len() as u64
    }

    /// Bytes that wait in memory.
    #[inline]
    pub(super) fn waiting(&self) -> usize {
        self.tail.len()
    }

    /// The address at which the next bytes will wait, as long as there is room: for a prefetch.
    #[inline]
    pub(super) fn next_address(&self) -> usize {
        self.tail.as_ptr_range().end.addr()
    }

    /// Bytes of each file.
    pub(super) const fn file_size(&self) -> u64 {
        self.file_size
    }

    /// How many files there are.
    pub(super) fn file_count(&self) -> usize {
        self.files.len()
    }

    /// The bytes of each file that has some, oldest first; the end of the run ends the last.
    pub(super) fn file_ranges(&self) -> impl Iterator<Item = Range<u64>> {
        let (first, end, size) = (self.first(), self.end(), self.file_size);
        (0..).map(move |i| first + i * size).take_while(move |base| *base < end).map(move |base| {
            let next = base - base % size + size;
            base..next.min(end)
        })
    }

    /// The last file, and from which byte on nothing is written in it; `None` when it is full.
    pub(super) fn unwritten(&self) -> Option<(PathBuf, u64)> {
        let last = self.files.back()?;
        let from = self.end().max(last.base) - last.base;
        (from < self.file_size).then(|| (last.path.clone(), from))
    }

    /// Where the file that holds `at` ends.
    pub(super) fn file_end(&self, at: u64) -> u64 {
        at - at % self.file_size + self.file_size
    }

    /// Copies bytes of one file out.
    pub(super) fn read(&self, at: u64, out: &mut [u8]) -> Result<()> {
        if at < self.fill.end && at >= self.fill.start {
            let here = len(self.fill.end - at).min(out.len());
            let (fill, rest) = out.split_at_mut(here);
            for piece in fill.chunks_mut(ENTRY) {
                piece.copy_from_slice(&Entry::FILLER.encode()[..piece.len()]);
            }
            return if rest.is_empty() { Ok(()) } else { self.read(self.fill.end, rest) };
        }
        let in_file = len(self.written.saturating_sub(at)).min(out.len());
        let (from_file, from_tail) = out.split_at_mut(in_file);
        if !from_file.is_empty() {
            let slot = self.slot_of(at)?;
            let table = self.disk.table(slot)?;
            let place = len(at - slot.base);
            if place + from_file.len() > table.len() {
                return Err(self.missing(at, from_file.len(), table.len().saturating_sub(place)));
            }
            table.read(place, from_file);
        }
        if !from_tail.is_empty() {
            let start = len(at.max(self.written) - self.written);
            let have = self.tail.get(start..start + from_tail.len());
            from_tail.copy_from_slice(have.ok_or_else(|| self.missing(at, from_tail.len(), 0))?);
        }
        Ok(())
    }

    fn slot_of(&self, at: u64) -> Result<&Arc<Slot>> {
        let place =
            self.files.front().and_then(|front| at.checked_sub(front.base)).map(|d| d / self.file_size);
        place.and_then(|i| self.files.get(len(i))).ok_or_else(|| self.missing(at, 1, 0))
    }

    fn missing(&self, at: u64, need: usize, have: usize) -> Error {
        Error::corrupt(&self.dir, at)(Corruption::Short { what: "queue", need, have })
    }

    /// Appends in memory.
    #[inline]
    pub(super) fn push(&mut self, bytes: &[u8]) {
        if self.tail.capacity() - self.tail.len() < bytes.len() {
            // By half, not twice as much: there may be ten thousand of these.
            self.tail.reserve_exact(bytes.len() + (self.tail.len() / 2).max(FIRST_ROOM));
        }
        self.tail.extend_from_slice(bytes);
    }

    /// Replaces bytes that are there, within one file.
    pub(super) fn overwrite(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        if at >= self.written {
            let start = len(at - self.written);
            let place = self.tail.get_mut(start..start + bytes.len());
            return match place {
                Some(place) => {
                    place.copy_from_slice(bytes);
                    Ok(())
                }
                None => Err(self.missing(at, bytes.len(), 0)),
            };
        }
        self.write_fill()?;
        let slot = Arc::clone(self.slot_of(at)?);
        let table = self.disk.table(&slot)?;
        write(&table, &slot, at, bytes)?;
        self.touch(slot);
        Ok(())
    }

    /// Writes again what the files hold from the page of `at` on, so that the next sync brings it to the disk; and their
    /// names, which an earlier process may not have synced.
    pub(super) fn rewrite_from(&mut self, at: u64) -> Result<()> {
        let size = self.file_size;
        (self.names_changed, self.dir_is_new) = (true, true);
        for slot in self.files.clone().into_iter().filter(|slot| slot.base + size > at) {
            let table = self.disk.table(&slot)?;
            let place = len(at.saturating_sub(slot.base));
            table.backing().rewrite_from(place).map_err(no_space("write again", &slot.path, 0))?;
            self.touch(slot);
        }
        Ok(())
    }

    fn touch(&mut self, slot: Arc<Slot>) {
        if !self.touched.iter().any(|known| Arc::ptr_eq(known, &slot)) {
            self.touched.push(slot);
        }
    }

    /// Writes what waits in memory. After an error the part that was not written still waits.
    pub(super) fn write_out(&mut self) -> Result<()> {
        if self.tail.is_empty() {
            return Ok(());
        }
        self.write_fill()?;
        let mut tail = mem::take(&mut self.tail);
        let mut done = 0;
        let mut outcome = Ok(());
        while done < tail.len() && outcome.is_ok() {
            let room = len(self.file_end(self.written) - self.written);
            let piece = &tail[done..tail.len().min(done.saturating_add(room))];
            outcome = self.write_piece(self.written, piece);
            if outcome.is_ok() {
                done += piece.len();
                self.written += piece.len() as u64;
            }
        }
        tail.drain(..done);
        if tail.is_empty() && tail.capacity() > KEEP {
            tail.shrink_to(KEEP);
        }
        self.tail = tail;
        outcome
    }

    fn write_piece(&mut self, at: u64, piece: &[u8]) -> Result<()> {
        let (slot, table) = self.slot_for(at)?;
        if !slot.fresh {
            scrub(&table, &slot, at + piece.len() as u64, 0, LOOK)?;
        }
        write(&table, &slot, at, piece)
    }

    fn write_fill(&mut self) -> Result<()> {
        if self.fill.is_empty() {
            return Ok(());
        }
        let fillers = Entry::FILLER.encode().repeat(CHUNK / ENTRY);
        let (slot, table) = self.slot_for(self.fill.start)?;
        while !self.fill.is_empty() {
            let piece = &fillers[..fillers.len().min(len(self.fill.end - self.fill.start))];
            write(&table, &slot, self.fill.start, piece)?;
            self.fill.start += piece.len() as u64;
        }
        Ok(())
    }

    /// The file that takes byte `at`, made when it is the next one.
    fn slot_for(&mut self, at: u64) -> Result<(Arc<Slot>, Arc<SlotTable>)> {
        if let Ok(slot) = self.slot_of(at) {
            return Ok((Arc::clone(slot), self.disk.table_to_write(slot)?));
        }
        let base = at - at % self.file_size;
        if self.files.is_empty() {
            self.disk.vfs.create_dirs_unsynced(&self.dir).map_err(no_space("create", &self.dir, 0))?;
            self.dir_is_new = true;
        }
        if let Some(last) = self.files.back().filter(|_| self.last_is_new && self.disk.failed().is_none()) {
            self.disk.sync_file(last, &*self.disk.table(last)?)?;
            self.sync_names()?;
        }
        let (slot, table) = self.disk.create(base, self.dir.join(format!("{base:020}")), self.file_size)?;
        (self.names_changed, self.last_is_new) = (true, true);
        self.files.push_back(Arc::clone(&slot));
        Ok((slot, table))
    }

    fn sync_names(&self) -> Result<()> {
        self.disk.sync_dir(&self.dir)
    }

    /// Removes the last files for which `goes` says so, each when the removal of the one behind it is durable, whoever
    /// removed that.
    fn remove_last_while(&mut self, goes: impl Fn(&Slot, usize) -> bool) -> Result<()> {
        while let Some(last) = self.files.back().filter(|last| goes(last, self.files.len())).cloned() {
            if self.names_changed {
                self.sync_names()?;
            }
            self.names_changed = true;
            self.files.pop_back();
            self.touched.retain(|slot| !Arc::ptr_eq(slot, &last));
            self.disk.vfs.remove(&last.path).map_err(Error::io("remove", &last.path))?;
        }
        Ok(())
    }

    /// Removes the files that do not belong to the run.
    fn remove_strays(&mut self) -> Result<()> {
        for path in mem::take(&mut self.strays) {
            self.names_changed = true;
            self.disk.vfs.remove(&path).map_err(Error::io("remove", path))?;
        }
        Ok(())
    }

    /// Ends the run at `end` and zeroes what followed. A file without a byte left goes, unless it is the only thing
    /// that says where the run stands.
    pub(super) fn truncate(&mut self, end: u64) -> Result<()> {
        let sure = self.written;
        self.cut(end, sure)
    }

    /// Ends a loaded run at `end`: the files' lengths say nothing about what was written.
    pub(super) fn recovered(&mut self, end: u64) -> Result<()> {
        self.remove_strays()?;
        self.cut(end, end)
    }

    /// `sure` is how far bytes may have been written for certain; behind it a stretch of zeros is the proof.
    fn cut(&mut self, end: u64, sure: u64) -> Result<()> {
        if end >= self.written {
            self.tail.truncate(len(end - self.written));
        } else {
            self.tail.clear();
        }
        self.written = self.written.min(end);
        self.fill.end = self.fill.end.min(end).max(self.fill.start);
        self.synced = self.synced.min(end);
        self.remove_last_while(|last, count| last.base >= end && (count > 1 || last.base == 0))?;
        let Some(last) = self.files.back().cloned() else { return Ok(()) };
        let from = end.max(last.base);
        if from < last.base + self.file_size {
            let table = self.disk.table(&last)?;
            if scrub(&table, &last, from, sure, QUIET)? {
                self.touch(last);
            }
        }
        Ok(())
    }

    /// Forgets everything and starts again at `at`; the file that will hold it begins with fillers.
    pub(super) fn restart(&mut self, at: u64) -> Result<()> {
        self.tail.clear();
        self.fill = 0..0;
        self.touched.clear();
        self.short.clear();
        self.remove_last_while(|_, _| true)?;
        self.fill = at - at % self.file_size..at;
        self.written = at;
        self.synced = self.fill.start;
        Ok(())
    }

    /// Removes the oldest file.
    pub(super) fn remove_first(&mut self) -> Result<()> {
        let Some(slot) = self.files.pop_front() else { return Ok(()) };
        self.names_changed = true;
        self.touched.retain(|other| !Arc::ptr_eq(other, &slot));
        self.disk.vfs.remove(&slot.path).map_err(Error::io("remove", &slot.path))
    }

    /// Whether `least` pages or more, or any byte of a full file, are not durable. 0 asks for any byte at all.
    pub(super) fn is_due(&self, least: u64) -> bool {
        let pages = (self.written / PAGE).saturating_sub(self.synced / PAGE);
        let rolled = self.written / self.file_size > self.synced / self.file_size;
        let any = self.written > self.synced || !self.touched.is_empty() || self.names_changed;
        any && (pages >= least || rolled)
    }

    /// What makes everything written so far durable.
    pub(super) fn sync_point(&mut self) -> SyncPoint {
        let from = self.synced - self.synced % self.file_size;
        let mut files = mem::take(&mut self.touched);
        for slot in self.files.iter().filter(|slot| slot.base >= from && slot.base < self.written) {
            if self.written > self.synced && !files.iter().any(|known| Arc::ptr_eq(known, slot)) {
                files.push(Arc::clone(slot));
            }
        }
        // A new directory is a name in its topic's, that may be one in the kind's, and that in the root.
        let levels = match (mem::take(&mut self.names_changed), mem::take(&mut self.dir_is_new)) {
            (_, true) => 4,
            (true, false) => 1,
            (false, false) => 0,
        };
        let dirs = self.dir.ancestors().take(levels).map(Path::to_path_buf).collect();
        SyncPoint { files, dirs, upto: self.written }
    }

    /// Takes note that a sync point was reached.
    pub(super) fn reached(&mut self, point: &SyncPoint) {
        self.synced = self.synced.max(point.upto.min(self.written));
        self.last_is_new &= self.files.back().is_some_and(|last| last.base >= point.upto);
    }

    /// Takes note that it was not.
    pub(super) fn missed(&mut self, point: SyncPoint) {
        self.names_changed |= !point.dirs.is_empty();
        self.dir_is_new |= point.dirs.len() > 1;
        for slot in point.files {
            self.touch(slot);
        }
    }

    /// Removes every file and the directory.
    pub(super) fn destroy(&mut self) -> Result<()> {
        self.remove_strays()?;
        self.restart(0)?;
        (self.names_changed, self.dir_is_new) = (false, false);
        self.disk.vfs.remove_dir(&self.dir).map_err(Error::io("remove", &self.dir))
    }
}

/// The base that a file name says: 20 digits.
fn base_of(name: &str) -> Option<u64> {
    (name.len() == 20 && name.bytes().all(|b| b.is_ascii_digit())).then(|| name.parse().ok()).flatten()
}

fn write(table: &SlotTable, slot: &Slot, at: u64, bytes: &[u8]) -> Result<()> {
    let place = len(at - slot.base);
    table.backing().write(place, bytes).map_err(no_space("write", &slot.path, bytes.len() as u64))
}

/// Zeroes a file from byte `from` on, up to `sure` and beyond until `quiet` bytes in a row were zero; says whether
/// any byte changed.
fn scrub(table: &SlotTable, slot: &Slot, from: u64, sure: u64, quiet: usize) -> Result<bool> {
    let mut at = len(from - slot.base);
    let sure = len(sure.saturating_sub(slot.base)).min(table.len());
    let (mut calm, mut changed) = (0, false);
    let mut seen = [0; CHUNK];
    while at < table.len() && (at < sure || calm < quiet) {
        let step = if quiet < CHUNK && !changed { quiet } else { CHUNK }.min(table.len() - at);
        let seen = &mut seen[..step];
        table.read(at, seen);
        if seen.iter().all(|byte| *byte == 0) {
            calm += step;
        } else {
            calm = 0;
            // An entry that is zeroed in part must not pass for one of another record: its size goes first.
            if !changed && step >= ENTRY {
                let size = &[0; TAGS_CODE_AT - SIZE_AT];
                write(table, slot, slot.base + (at + SIZE_AT) as u64, size)?;
            }
            changed = true;
            write(table, slot, slot.base + at as u64, &[0; CHUNK][..step])?;
        }
        at += step;
    }
    Ok(changed)
}
