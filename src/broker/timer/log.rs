//! The timer log: `timerlog/`, files of equal size that follow one another and hold a unit for each waiting message.
//!
//! Owns the files and their end. Units are written through the file, so that a full disk is an error; they are read
//! through the mapping. What a crash tore off is found by [`TimerLog::open`], which also makes sure that no unit of
//! before comes back behind the end.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use super::format::{BLANK, UNIT, Unit, encode_blank, is_blank};
use crate::{
    error::{Error, Result},
    segment::SlotTable,
    vfs::{Reserve, Vfs},
};

#[derive(Debug)]
struct File {
    base: i64,
    path: PathBuf,
    table: SlotTable,
    /// Written to since it was synced.
    dirty: bool,
}

#[derive(Debug)]
pub(super) struct TimerLog {
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    /// Bytes of each file.
    size: usize,
    files: Vec<File>,
    /// Behind the last unit.
    end: i64,
    /// Files were made or removed since the directory was synced.
    names_changed: bool,
}

/// The files of the directory, oldest first; one of no bytes, whose making was cut short, is removed.
fn list(vfs: &dyn Vfs, dir: &Path, size: usize) -> Result<Vec<File>> {
    let mut files = Vec::new();
    for entry in vfs.list(dir).map_err(Error::io("list", dir))? {
        let path = dir.join(&entry.name);
        let digits = entry.name.len() == 20 && entry.name.bytes().all(|digit| digit.is_ascii_digit());
        let (true, false, Ok(base)) = (digits, entry.is_dir, entry.name.parse()) else { continue };
        if entry.len == 0 {
            vfs.remove(&path).map_err(Error::io("remove", &path))?;
            continue;
        }
        if entry.len != size as u64 {
            let key = "mappedFileSizeTimerLog";
            return Err(Error::FileSize { path, actual: entry.len, expected: size as u64, key });
        }
        let table = SlotTable::new(vfs.open(&path).map_err(Error::io("open", &path))?);
        files.push(File { base, path, table, dirty: false });
    }
    files.sort_by_key(|file| file.base);
    Ok(files)
}

impl TimerLog {
    /// Opens the files and gives every unit, with its place, to `visit`. The log ends before the first that is none, or
    /// that `visit` refuses.
    pub(super) fn open(
        vfs: &Arc<dyn Vfs>,
        dir: &Path,
        size: usize,
        mut visit: impl FnMut(i64, &Unit) -> bool,
    ) -> Result<Self> {
        let mut log = Self {
            vfs: Arc::clone(vfs),
            dir: dir.into(),
            size,
            files: list(&**vfs, dir, size)?,
            end: 0,
            names_changed: false,
        };
        log.end = log.files.first().map_or(0, |first| first.base);
        let mut keep = 0;
        for file in log.files.iter() {
            // Where a file is missing, the units behind it are put again from the topic.
            if keep > 0 && file.base != log.files[keep - 1].base + i64::try_from(size).unwrap_or(0) {
                break;
            }
            keep += 1;
            let (units, blank) = log.walk(file, &mut visit);
            log.end = file.base + i64::try_from(units).unwrap_or(0);
            if !blank {
                break;
            }
        }
        log.cut(keep)?;
        Ok(log)
    }

    /// Visits the units of a file until one is refused. Says where they end and whether a mark that the log goes on in
    /// the next file follows.
    fn walk(&self, file: &File, visit: &mut impl FnMut(i64, &Unit) -> bool) -> (usize, bool) {
        let mut at = 0;
        while self.size - at >= UNIT + BLANK {
            let Some(unit) = Unit::decode(&file.table.get(at)) else { break };
            if !visit(file.base + i64::try_from(at).unwrap_or(0), &unit) {
                return (at, false);
            }
            at += UNIT;
        }
        (at, self.size - at >= BLANK && is_blank(&file.table.get(at)))
    }

    /// Removes the files from number `keep` on and clears what lies behind the end.
    fn cut(&mut self, keep: usize) -> Result<()> {
        for file in self.files.drain(keep..).rev() {
            tracing::warn!(file = %file.path.display(), "what lies behind the end of the timer log is dropped");
            self.vfs.remove(&file.path).map_err(Error::io("remove", &file.path))?;
            self.names_changed = true;
        }
        let Some(last) = self.files.last_mut() else { return Ok(()) };
        let mut at = usize::try_from(self.end - last.base).unwrap_or(0);
        let zeros = [0; 4_096];
        while let Some(data) = last.table.backing().data_from(at) {
            let len = (data.end.min(self.size) - data.start).min(zeros.len());
            let mut bytes = [0; 4_096];
            last.table.read(data.start, &mut bytes[..len]);
            if bytes != zeros {
                let done = last.table.backing().write(data.start, &zeros[..len]);
                done.map_err(Error::io("write", &last.path))?;
                last.dirty = true;
            }
            at = data.start + len;
        }
        Ok(())
    }

    /// Gives every unit to `visit`, in order.
    pub(super) fn each(&self, mut visit: impl FnMut(i64, &Unit)) {
        for file in &self.files {
            let _ = self.walk(file, &mut |at, unit| {
                visit(at, unit);
                true
            });
        }
    }

    /// Behind the last unit.
    pub(super) const fn end(&self) -> i64 {
        self.end
    }

    fn file(&self, at: i64) -> Option<(&File, usize)> {
        let first = self.files.first()?.base;
        let number = usize::try_from(at.checked_sub(first)?).ok()? / self.size;
        let file = self.files.get(number)?;
        Some((file, usize::try_from(at - file.base).ok()?))
    }

    /// The unit at `at`; `None` when none stands there.
    pub(super) fn get(&self, at: i64) -> Option<Unit> {
        if at >= self.end {
            return None;
        }
        let (file, at) = self.file(at)?;
        (at + UNIT <= self.size).then(|| Unit::decode(&file.table.get(at)))?
    }

    /// Appends a unit; its place.
    pub(super) fn append(&mut self, unit: &Unit) -> Result<i64> {
        let room = self
            .files
            .last()
            .map_or(0, |last| self.size - usize::try_from(self.end - last.base).unwrap_or(self.size));
        if room < UNIT + BLANK {
            self.roll(room)?;
        }
        let place = self.end;
        self.write(&unit.encode())?;
        self.end += UNIT as i64;
        Ok(place)
    }

    /// Writes at the end, which lies in the last file.
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let Some(last) = self.files.last_mut() else { return Ok(()) };
        let at = usize::try_from(self.end - last.base).unwrap_or(usize::MAX);
        last.dirty = true;
        last.table.backing().write(at, bytes).map_err(Error::io("write", &last.path))
    }

    /// Begins the next file; the last one has `room` bytes left. The new one is at hand before anything changes.
    fn roll(&mut self, room: usize) -> Result<()> {
        let base = self.end + i64::try_from(room).unwrap_or(0);
        let path = self.dir.join(format!("{base:020}"));
        if self.files.is_empty() {
            self.vfs.create_dir_all(&self.dir).map_err(Error::io("create", &self.dir))?;
        }
        let backing = self.vfs.create(&path, self.size as u64, Reserve::None);
        let table = SlotTable::new(backing.map_err(Error::io("create", &path))?);
        if room >= BLANK {
            self.write(&encode_blank(room))?;
        }
        self.files.push(File { base, path, table, dirty: true });
        self.names_changed = true;
        self.end = base;
        Ok(())
    }

    /// Makes all units durable.
    pub(super) fn sync(&mut self) -> Result<()> {
        for file in self.files.iter_mut().filter(|file| file.dirty) {
            file.table.backing().sync(0..self.size).map_err(Error::io("sync", &file.path))?;
            file.dirty = false;
        }
        if self.names_changed {
            self.vfs.sync_dir(&self.dir).map_err(Error::io("sync", &self.dir))?;
            self.names_changed = false;
        }
        Ok(())
    }

    /// Removes the oldest files while every message that they lead to lies before `min`, never the last file.
    pub(super) fn delete_before(&mut self, min: i64) -> Result<()> {
        while self.files.len() > 1 {
            let first = &self.files[0];
            let last = (self.size - BLANK) / UNIT * UNIT - UNIT;
            if Unit::decode(&first.table.get(last)).is_none_or(|unit| unit.offset >= min) {
                break;
            }
            self.vfs.remove(&first.path).map_err(Error::io("remove", &first.path))?;
            self.files.remove(0);
            self.names_changed = true;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{broker::timer::format::Deed, vfs::OsVfs};

    const SIZE: usize = 4 * UNIT + BLANK + 20;

    fn vfs() -> Arc<dyn Vfs> {
        Arc::new(OsVfs)
    }

    fn unit(n: i64) -> Unit {
        let deed = Deed::default();
        Unit { prev: -1, deed, written_ms: 1_000, due_ms: 2_000, offset: n, size: 9, topic_hash: 0 }
    }

    fn offsets(dir: &Path) -> (Vec<i64>, TimerLog) {
        let mut seen = Vec::new();
        let log = TimerLog::open(&vfs(), dir, SIZE, |_, unit| {
            seen.push(unit.offset);
            true
        })
        .unwrap();
        (seen, log)
    }

    #[test]
    fn units_are_found_again_across_files_and_appended_behind_the_last() {
        let dir = tempfile::tempdir().unwrap();
        let (none, mut log) = offsets(dir.path());
        assert!(none.is_empty());
        let places: Vec<i64> = (0..10).map(|n| log.append(&unit(n)).unwrap()).collect();
        assert_eq!((places[3], places[4]), (3 * 52, i64::try_from(SIZE).unwrap()), "four to a file");
        assert!(places.iter().zip(0..).all(|(at, n)| log.get(*at) == Some(unit(n))));
        assert_eq!((log.get(4 * 52), log.get(log.end())), (None, None));
        log.sync().unwrap();
        drop(log);
        let (again, mut log) = offsets(dir.path());
        assert_eq!(again, (0..10).collect::<Vec<_>>());
        log.append(&unit(10)).unwrap();
        log.delete_before(4).unwrap();
        assert_eq!(log.files.len(), 2);
        assert_eq!((log.get(places[3]), log.get(places[4])), (None, Some(unit(4))));
        drop(log);
        assert_eq!(offsets(dir.path()).0, (4..11).collect::<Vec<_>>());
    }

    #[test]
    fn nothing_behind_a_torn_unit_comes_back_after_the_next_append() {
        let dir = tempfile::tempdir().unwrap();
        let (_, mut log) = offsets(dir.path());
        for n in 0..6 {
            log.append(&unit(n)).unwrap();
        }
        drop(log);
        let path = dir.path().join(format!("{:020}", 0));
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[UNIT + 12..UNIT + 16].fill(0xFF);
        std::fs::write(&path, bytes).unwrap();
        let (kept, mut log) = offsets(dir.path());
        assert_eq!((kept, log.end()), (vec![0], 52));
        log.append(&unit(7)).unwrap();
        drop(log);
        assert_eq!(offsets(dir.path()).0, [0, 7]);
    }
}
