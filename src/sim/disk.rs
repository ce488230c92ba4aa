//! The disk: files and names behind one lock, its calls counted, failed and told of as planned.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use parking_lot::Mutex;

use super::{
    backing::SimBacking,
    crash::Crash,
    faults::{Call, Fault, Faults},
    file::{File, Picture, Stray, time},
    names::{Entry, Tree, is_root},
};
use crate::{
    clock::Clock,
    types::FileStamp,
    vfs::{Backing, DirEntry, DiskUsage, Lock, Reserve, Vfs},
};

/// A disk in memory that a program can crash, fill and break. See the [module](super).
#[derive(Clone)]
pub struct SimDisk {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    clock: Arc<dyn Clock>,
    pub(super) state: Mutex<State>,
}

/// Called at each crash point; must not call the disk.
type Watcher = Box<dyn FnMut(&Moment<'_>) + Send>;

#[derive(Default)]
pub(super) struct State {
    pub(super) tree: Tree,
    pub(super) files: BTreeMap<u64, File>,
    next_file: u64,
    /// Counts changes, so that those of pages and names can be put in order.
    changes: u64,
    pub(super) faults: Faults,
    strays: Vec<String>,
    locked: BTreeSet<PathBuf>,
    capacity: Option<u64>,
    copy_on_write: bool,
    watcher: Option<Watcher>,
    pub(super) write_stride: u64,
    pub(super) writes: u64,
    pub(super) store_stride: u64,
    pub(super) stores: u64,
    points: u64,
}

/// A moment at which the machine may stop: given to the watcher of [`SimDisk::watch`].
pub struct Moment<'d> {
    state: &'d State,
    call: Option<Call>,
    path: &'d Path,
    number: u64,
}

impl Moment<'_> {
    /// The call that is about to be made (syncs) or has just been made; `None` for [`SimDisk::point`] and before a store
    /// through a mapping ([`SimDisk::watch_stores`]).
    #[must_use]
    pub const fn call(&self) -> Option<Call> {
        self.call
    }

    /// The file or directory of the call.
    #[must_use]
    pub const fn path(&self) -> &Path {
        self.path
    }

    /// Counts the moments of the disk, from 1.
    #[must_use]
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// Everything that a crash at this moment may leave.
    #[must_use]
    pub fn crash(&self) -> Crash {
        Crash::of(self.state)
    }
}

impl fmt::Debug for Moment<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Moment")
            .field("number", &self.number)
            .field("call", &self.call)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.shared.state.lock();
        f.debug_struct("SimDisk").field("names", &state.tree.live.len()).finish_non_exhaustive()
    }
}

impl State {
    pub(super) fn settled(tree: Tree, files: BTreeMap<u64, File>) -> Self {
        let next_file = files.keys().next_back().map_or(0, |last| last + 1);
        let changes = files.values().map(|file| file.changed).max().unwrap_or(0);
        Self { tree, files, next_file, changes, ..Self::default() }
    }

    fn tick(&mut self) -> u64 {
        self.changes += 1;
        self.changes
    }

    pub(super) fn file(&mut self, id: u64) -> io::Result<&mut File> {
        self.files.get_mut(&id).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn file_at(&self, path: &Path) -> io::Result<u64> {
        match self.tree.get(path) {
            Some(Entry::File(id)) => Ok(id),
            Some(Entry::Dir) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn look_at(&mut self, id: u64, now: SystemTime) {
        let since = self.tick();
        let Some(file) = self.files.get_mut(&id) else { return };
        if let Some(stray) = file.look(since, now, self.copy_on_write) {
            let name = self.name_of(id);
            let name = name.display();
            self.strays.push(match stray {
                Stray::Unannounced(bytes) => format!("{name}: bytes {bytes:?} changed and nobody said so"),
                Stray::Unclaimed(page) => format!("{name}: page {page} was stored into and has no space"),
            });
        }
    }

    /// The path of a file; `#` and its number when it has none any more.
    pub(super) fn name_of(&self, id: u64) -> PathBuf {
        let name = self.tree.live.iter().find(|(_, entry)| **entry == Entry::File(id));
        name.map_or_else(|| PathBuf::from(format!("#{id}")), |(name, _)| name.path().to_path_buf())
    }

    fn look(&mut self, now: SystemTime) {
        for id in self.files.keys().copied().collect::<Vec<_>>() {
            self.look_at(id, now);
        }
    }

    /// A crash point.
    pub(super) fn point(&mut self, call: Option<Call>, path: &Path, now: SystemTime) {
        let Some(mut watcher) = self.watcher.take() else { return };
        self.look(now);
        self.points += 1;
        watcher(&Moment { state: self, call, path, number: self.points });
        self.watcher = Some(watcher);
    }

    fn make_file(&mut self, path: &Path, len: usize, now: SystemTime) -> u64 {
        let (since, id) = (self.tick(), self.next_file);
        self.next_file += 1;
        self.files.insert(id, File::new(len, since, now));
        self.tree.change(since, vec![(path.to_path_buf(), Some(Entry::File(id)))]);
        id
    }

    fn used(&self) -> u64 {
        let live = self.tree.live.values().filter_map(|entry| match entry {
            Entry::File(id) => self.files.get(id),
            Entry::Dir => None,
        });
        live.map(File::space).sum()
    }

    pub(super) fn claim(&mut self, id: u64, range: &Range<usize>) -> io::Result<()> {
        let pages = self.file(id)?.unclaimed(range);
        let need = pages as u64 * super::page::PAGE as u64;
        if pages > 0 && self.capacity.is_some_and(|capacity| self.used() + need > capacity) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.file(id)?.claim(range);
        Ok(())
    }

    pub(super) fn write(&mut self, id: u64, at: usize, bytes: &[u8], now: SystemTime) -> io::Result<()> {
        self.look_at(id, now);
        self.claim(id, &(at..at.saturating_add(bytes.len())))?;
        let since = self.tick();
        self.file(id)?.write(at, bytes, since, now)
    }
}

impl SimDisk {
    /// An empty disk without limit. Files are dated by `clock`.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self::over(State::default(), clock)
    }

    pub(super) fn over(state: State, clock: Arc<dyn Clock>) -> Self {
        Self { shared: Arc::new(Shared { clock, state: Mutex::new(state) }) }
    }

    pub(super) fn now(&self) -> SystemTime {
        time(u64::try_from(self.shared.clock.now().0).unwrap_or(0))
    }

    /// Lets the disk hold `bytes` at most, counted in whole pages.
    pub fn set_capacity(&self, bytes: u64) {
        self.shared.state.lock().capacity = Some(bytes);
    }

    /// Behaves as a copy-on-write file system, where a store through a mapping may need space that is not there.
    pub fn set_copy_on_write(&self) {
        self.shared.state.lock().copy_on_write = true;
    }

    /// Makes calls fail.
    pub fn fail(&self, fault: Fault) {
        self.shared.state.lock().faults.plan(fault);
    }

    /// Nothing fails any more.
    pub fn heal(&self) {
        self.shared.state.lock().faults.heal();
    }

    /// How many calls of each kind were made, failed ones included.
    #[must_use]
    pub fn calls(&self) -> BTreeMap<Call, u64> {
        self.shared.state.lock().faults.made().clone()
    }

    /// How many calls of each kind failed as planned.
    #[must_use]
    pub fn failures(&self) -> BTreeMap<Call, u64> {
        self.shared.state.lock().faults.failures().clone()
    }

    /// How many calls failed as planned.
    #[must_use]
    pub fn failed_calls(&self) -> u64 {
        self.shared.state.lock().faults.failed()
    }

    /// Calls `watcher` at each crash point: before every sync, after every creation, renaming, removal and change of
    /// length, after every `write_stride`th write (0: none), and at [`SimDisk::point`]. It must not call this disk.
    pub fn watch(&self, write_stride: u64, watcher: impl FnMut(&Moment<'_>) + Send + 'static) {
        let mut state = self.shared.state.lock();
        state.write_stride = write_stride;
        state.watcher = Some(Box::new(watcher));
    }

    /// Makes every `stride`th store through a mapping a crash point too, just before it is made (0: none). What was stored
    /// before is seen then as it is at that moment, so that the order of stores within one call of a program counts.
    ///
    /// Debug builds alone tell of their stores ([`Backing::announce`]); in others this has no effect.
    pub fn watch_stores(&self, stride: u64) {
        self.shared.state.lock().store_stride = stride;
    }

    /// Calls no watcher any more.
    pub fn unwatch(&self) {
        self.shared.state.lock().watcher = None;
    }

    /// A crash point of the caller's choosing: what was stored through mappings since the last call is seen now.
    pub fn point(&self) {
        let mut state = self.shared.state.lock();
        state.look(self.now());
        state.point(None, Path::new(""), self.now());
    }

    /// Everything that a crash may leave now.
    #[must_use]
    pub fn crash(&self) -> Crash {
        let mut state = self.shared.state.lock();
        state.look(self.now());
        Crash::of(&state)
    }

    /// Stores past the seam, as far as they were noticed: into pages without space, and in debug builds bytes of a
    /// mapping that changed without [`Backing::announce`] or [`Backing::write`]. Empty in a store that is sound.
    #[must_use]
    pub fn strays(&self) -> Vec<String> {
        let mut state = self.shared.state.lock();
        state.look(self.now());
        state.strays.clone()
    }

    /// Every file with its content as programs see it, in the order of the names.
    #[must_use]
    pub fn contents(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut state = self.shared.state.lock();
        state.look(self.now());
        let files = state.tree.live.iter().filter_map(|(name, entry)| match entry {
            Entry::File(id) => {
                state.files.get(id).map(|file| (name.path().to_path_buf(), file.bytes(0..file.len())))
            }
            Entry::Dir => None,
        });
        files.collect()
    }

    /// Every file as programs see it.
    pub(crate) fn picture(&self) -> BTreeMap<PathBuf, Picture> {
        let mut state = self.shared.state.lock();
        state.look(self.now());
        let files = state.tree.live.iter().filter_map(|(name, entry)| match entry {
            Entry::File(id) => state.files.get(id).map(|file| (name.path().to_path_buf(), file.picture())),
            Entry::Dir => None,
        });
        files.collect()
    }

    fn backing(&self, state: &mut State, id: u64) -> io::Result<Box<dyn Backing>> {
        let file = state.file(id)?;
        let (memory, len) = (file.map(), file.len());
        Ok(Box::new(SimBacking { disk: self.clone(), id, memory, len }))
    }

    /// Runs a call: counts it, lets it fail, does it, and tells of the moment after it where that is a crash point.
    fn call<T>(
        &self,
        call: Call,
        path: &Path,
        run: impl FnOnce(&mut State, SystemTime) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut state = self.shared.state.lock();
        let now = self.now();
        if matches!(call, Call::Sync | Call::SyncDir | Call::SyncAll) {
            state.point(Some(call), path, now);
        }
        if let Err(failure) = state.faults.pass(call) {
            if call == Call::SyncAll {
                // As with one file: the pages of all of them count as clean, and the disk has what it had.
                state.look(now);
                state.files.values_mut().for_each(|file| file.lose(&(0..file.len())));
            }
            return Err(failure.error(call, path, 0));
        }
        let done = run(&mut state, now)?;
        if matches!(call, Call::Create | Call::Rename | Call::Remove | Call::SetLen) {
            state.point(Some(call), path, now);
        }
        Ok(done)
    }
}

fn need_parent(state: &State, path: &Path) -> io::Result<()> {
    let parent = path.parent().unwrap_or(Path::new(""));
    match state.tree.get(parent) {
        Some(Entry::Dir) => Ok(()),
        Some(Entry::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
        None => Err(io::ErrorKind::NotFound.into()),
    }
}

fn create(state: &mut State, path: &Path, len: u64, reserve: Reserve, now: SystemTime) -> io::Result<u64> {
    if state.tree.get(path).is_some() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    need_parent(state, path)?;
    let len = usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?;
    let id = state.make_file(path, len, now);
    if reserve == Reserve::All
        && let Err(error) = state.claim(id, &(0..len))
    {
        let since = state.tick();
        state.tree.change(since, vec![(path.to_path_buf(), None)]);
        return Err(error);
    }
    Ok(id)
}

fn entry_of(state: &State, path: &Path, entry: Entry) -> DirEntry {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    match entry {
        Entry::Dir => {
            // A directory changes with the names in it.
            let names = state.tree.children(path).map(|(child, _)| child.to_string_lossy().into_owned());
            let hash = crc32fast::hash(names.collect::<Vec<_>>().join("/").as_bytes());
            let stamp = Some(FileStamp { inode: u64::from(hash), len: 0, changed: 0 });
            DirEntry { name, len: 0, is_dir: true, modified: time(0), stamp }
        }
        Entry::File(id) => {
            let file = state.files.get(&id);
            let (len, modified) = file.map_or((0, time(0)), |file| (file.len() as u64, file.modified));
            let changed = file.map_or(0, |file| i64::try_from(file.changed).unwrap_or(i64::MAX));
            DirEntry {
                name,
                len,
                is_dir: false,
                modified,
                stamp: Some(FileStamp { inode: id, len, changed }),
            }
        }
    }
}

impl Vfs for SimDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut missing: Vec<&Path> = Vec::new();
        {
            let state = self.shared.state.lock();
            let mut at = dir;
            while !is_root(at) && state.tree.get(at).is_none() {
                missing.push(at);
                at = at.parent().unwrap_or(Path::new(""));
            }
            if matches!(state.tree.get(at), Some(Entry::File(_))) {
                return Err(io::ErrorKind::NotADirectory.into());
            }
        }
        for new in missing.into_iter().rev() {
            self.call(Call::CreateDir, new, |state, _| {
                let since = state.tick();
                state.tree.change(since, vec![(new.to_path_buf(), Some(Entry::Dir))]);
                Ok(())
            })?;
            self.sync_dir(new.parent().unwrap_or(Path::new("")))?;
        }
        Ok(())
    }

    fn create_dirs_unsynced(&self, dir: &Path) -> io::Result<()> {
        self.call(Call::CreateDir, dir, |state, _| {
            let mut missing = Vec::new();
            let mut at = dir;
            while !is_root(at) && state.tree.get(at).is_none() {
                missing.push(at.to_path_buf());
                at = at.parent().unwrap_or(Path::new(""));
            }
            for new in missing.into_iter().rev() {
                let since = state.tick();
                state.tree.change(since, vec![(new, Some(Entry::Dir))]);
            }
            Ok(())
        })
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.call(Call::List, dir, |state, _| {
            Ok(state.tree.children(dir).map(|(path, entry)| entry_of(state, path, entry)).collect())
        })
    }

    fn stat(&self, path: &Path) -> io::Result<Option<DirEntry>> {
        self.call(Call::Stat, path, |state, now| {
            if let Some(Entry::File(id)) = state.tree.get(path) {
                state.look_at(id, now);
            }
            Ok(state.tree.get(path).map(|entry| entry_of(state, path, entry)))
        })
    }

    fn create(&self, path: &Path, len: u64, reserve: Reserve) -> io::Result<Box<dyn Backing>> {
        let id = self.call(Call::Create, path, |state, now| create(state, path, len, reserve, now))?;
        self.backing(&mut self.shared.state.lock(), id)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Backing>> {
        self.call(Call::Open, path, |state, _| {
            let id = state.file_at(path)?;
            self.backing(state, id)
        })
    }

    fn read(&self, path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
        self.call(Call::Read, path, |state, now| {
            if state.tree.get(path).is_none() {
                return Ok(None);
            }
            let id = state.file_at(path)?;
            state.look_at(id, now);
            let file = state.file(id)?;
            if file.len() as u64 > limit {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            Ok(Some(file.bytes(0..file.len())))
        })
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut name = path.as_os_str().to_owned();
        name.push(".tmp");
        let temporary = PathBuf::from(name);
        let made = (|| {
            if self.shared.state.lock().tree.get(&temporary).is_some() {
                self.remove(&temporary)?;
            }
            let file = self.create(&temporary, bytes.len() as u64, Reserve::None)?;
            file.write(0, bytes)?;
            file.sync(0..bytes.len())?;
            self.rename(&temporary, path)
        })();
        if let Err(error) = made {
            // What a failing disk does not let go stays.
            let _ = self.remove(&temporary);
            return Err(error);
        }
        self.sync_dir(path.parent().unwrap_or(Path::new("")))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call(Call::Rename, to, |state, _| {
            need_parent(state, to)?;
            let entry = state.tree.get(from).ok_or(io::ErrorKind::NotFound)?;
            if entry == Entry::Dir || state.tree.get(to) == Some(Entry::Dir) {
                return Err(io::ErrorKind::IsADirectory.into());
            }
            let since = state.tick();
            state.tree.change(since, vec![(from.to_path_buf(), None), (to.to_path_buf(), Some(entry))]);
            Ok(())
        })
    }

    fn set_len(&self, path: &Path, len: u64) -> io::Result<()> {
        self.call(Call::SetLen, path, |state, now| {
            let len = usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?;
            let id = state.file_at(path)?;
            state.look_at(id, now);
            let since = state.tick();
            state.file(id)?.set_len(len, since, now);
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.call(Call::Remove, path, |state, now| {
            match state.tree.get(path) {
                None => return Ok(()),
                Some(Entry::Dir) => return Err(io::ErrorKind::IsADirectory.into()),
                Some(Entry::File(id)) => state.look_at(id, now),
            }
            let since = state.tick();
            state.tree.change(since, vec![(path.to_path_buf(), None)]);
            Ok(())
        })
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        self.call(Call::RemoveDir, dir, |state, _| {
            match state.tree.get(dir) {
                None => return Ok(()),
                Some(Entry::File(_)) => return Err(io::ErrorKind::NotADirectory.into()),
                Some(Entry::Dir) => {}
            }
            if state.tree.children(dir).next().is_some() {
                return Err(io::ErrorKind::DirectoryNotEmpty.into());
            }
            let since = state.tick();
            state.tree.change(since, vec![(dir.to_path_buf(), None)]);
            Ok(())
        })
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.call(Call::SyncDir, dir, |state, _| match state.tree.get(dir) {
            Some(Entry::Dir) => {
                state.tree.sync(dir);
                Ok(())
            }
            Some(Entry::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        })
    }

    fn sync_all(&self, path: &Path) -> io::Result<()> {
        self.call(Call::SyncAll, path, |state, now| {
            state.look(now);
            state.tree.sync_all();
            for file in state.files.values_mut() {
                file.sync(&(0..file.len()));
            }
            Ok(())
        })
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        self.call(Call::Lock, path, |state, now| {
            if state.locked.contains(path) {
                return Ok(None);
            }
            if state.tree.get(path).is_none() {
                let id = create(state, path, 4, Reserve::None, now)?;
                state.write(id, 0, b"lock", now)?;
                state.file(id)?.sync(&(0..4));
            }
            state.locked.insert(path.to_path_buf());
            Ok(Some(Box::new(SimLock { disk: self.clone(), path: path.to_path_buf() }) as Box<dyn Lock>))
        })
    }

    fn usage(&self, path: &Path) -> io::Result<DiskUsage> {
        self.call(Call::Usage, path, |state, _| {
            let total = state.capacity.unwrap_or(1 << 50);
            Ok(DiskUsage { total, free: total.saturating_sub(state.used()) })
        })
    }

    fn may_store_through_mapping(&self, _dir: &Path) -> bool {
        !self.shared.state.lock().copy_on_write
    }
}

#[derive(Debug)]
struct SimLock {
    disk: SimDisk,
    path: PathBuf,
}

impl Lock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.disk.shared.state.lock().locked.remove(&self.path);
    }
}
