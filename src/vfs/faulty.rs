//! Real files that fail when a test says so: the n-th call of a kind, once or from then on, or held at a gate.
//!
//! Wraps [`OsVfs`], or what a test gives. For tests only.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    ops::Range,
    path::Path,
    ptr::NonNull,
    sync::{Arc, Condvar, Mutex},
};

use super::{Advice, Backing, DirEntry, DiskUsage, Lock, OsVfs, Reserve, Vfs};

/// A kind of call that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Call {
    List,
    Stat,
    Read,
    Create,
    Write,
    Sync,
    Remove,
    Replace,
    SyncDir,
    Reserve,
    Probe,
    Open,
    Lock,
    CreateDir,
}

#[derive(Debug, Default)]
struct State {
    made: BTreeMap<Call, u64>,
    /// Calls left before the failures begin, failures left, what they are.
    planned: BTreeMap<Call, (u64, u64, io::ErrorKind)>,
    shut: BTreeMap<Call, bool>,
    /// Calls that stand at a shut gate.
    held: BTreeMap<Call, u64>,
}

/// What is to fail, shared by the file system and its files.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    state: Mutex<State>,
    moved: Condvar,
}

impl Faults {
    /// Lets `good` more calls pass, then fails the next `times` ones.
    pub(crate) fn fail(&self, call: Call, good: u64, times: u64, kind: io::ErrorKind) {
        self.state.lock().unwrap().planned.insert(call, (good, times, kind));
    }

    /// Nothing fails any more.
    pub(crate) fn heal(&self) {
        self.state.lock().unwrap().planned.clear();
    }

    /// Calls made so far, failed ones included.
    pub(crate) fn made(&self, call: Call) -> u64 {
        self.state.lock().unwrap().made.get(&call).copied().unwrap_or(0)
    }

    /// Holds calls of a kind until [`Faults::open_gate`].
    pub(crate) fn shut_gate(&self, call: Call) {
        self.state.lock().unwrap().shut.insert(call, true);
    }

    pub(crate) fn open_gate(&self, call: Call) {
        self.state.lock().unwrap().shut.insert(call, false);
        self.moved.notify_all();
    }

    /// Waits until a call stands at the gate.
    pub(crate) fn wait_held(&self, call: Call) {
        let mut state = self.state.lock().unwrap();
        while state.held.get(&call).copied().unwrap_or(0) == 0 {
            state = self.moved.wait(state).unwrap();
        }
    }

    fn pass(&self, call: Call) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        *state.made.entry(call).or_default() += 1;
        *state.held.entry(call).or_default() += 1;
        self.moved.notify_all();
        while state.shut.get(&call).copied().unwrap_or(false) {
            state = self.moved.wait(state).unwrap();
        }
        *state.held.entry(call).or_default() -= 1;
        match state.planned.get_mut(&call) {
            Some((good, _, _)) if *good > 0 => *good -= 1,
            Some((_, times, kind)) if *times > 0 => {
                *times -= 1;
                note_site();
                return Err(io::Error::new(*kind, "injected"));
            }
            _ => {}
        }
        Ok(())
    }
}

/// Where the variable `FAULT_SITES` names a file, adds to it the places in the sources through which a failing call was
/// made: `tests/crash/sites.py` holds them against all places that make calls.
pub(crate) fn note_site() {
    static NOTED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let Some(path) = std::env::var_os("FAULT_SITES") else { return };
    let trace = std::backtrace::Backtrace::force_capture().to_string();
    let places =
        trace.lines().filter_map(|line| line.split_once("at ").and_then(|(_, at)| at.split_once("src/")));
    let new: String = {
        let mut noted = NOTED.lock().unwrap();
        let new = places.filter(|(before, at)| before.len() <= 2 && noted.insert((*at).to_owned()));
        new.map(|(_, at)| format!("{at}\n")).collect()
    };
    let mut file = std::fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
    std::io::Write::write_all(&mut file, new.as_bytes()).unwrap();
}

/// The file system.
#[derive(Clone, Debug)]
pub(crate) struct FaultyVfs {
    inner: Arc<dyn Vfs>,
    pub(crate) faults: Arc<Faults>,
    /// Behaves like a copy-on-write file system.
    pub(crate) copy_on_write: bool,
}

impl Default for FaultyVfs {
    fn default() -> Self {
        Self::over(Arc::new(OsVfs))
    }
}

impl FaultyVfs {
    /// Fails calls to `inner`.
    pub(crate) fn over(inner: Arc<dyn Vfs>) -> Self {
        Self { inner, faults: Arc::default(), copy_on_write: false }
    }

    fn wrap(&self, inner: Box<dyn Backing>) -> Box<dyn Backing> {
        Box::new(FaultyBacking { inner, faults: Arc::clone(&self.faults) })
    }
}

#[derive(Debug)]
struct FaultyBacking {
    inner: Box<dyn Backing>,
    faults: Arc<Faults>,
}

impl Backing for FaultyBacking {
    fn base(&self) -> NonNull<u8> {
        self.inner.base()
    }

    fn len(&self) -> usize {
        self.inner.len()
    }

    fn write(&self, at: usize, bytes: &[u8]) -> io::Result<()> {
        self.faults.pass(Call::Write)?;
        self.inner.write(at, bytes)
    }

    fn rewrite(&self, range: Range<usize>) -> io::Result<()> {
        self.faults.pass(Call::Write)?;
        self.inner.rewrite(range)
    }

    fn sync(&self, range: Range<usize>) -> io::Result<()> {
        self.faults.pass(Call::Sync)?;
        self.inner.sync(range)
    }

    fn start_writeback(&self, range: Range<usize>) {
        self.inner.start_writeback(range);
    }

    fn populate(&self, range: Range<usize>) {
        self.inner.populate(range);
    }

    fn reserve(&self, range: Range<usize>) -> io::Result<()> {
        self.faults.pass(Call::Reserve)?;
        self.inner.reserve(range)
    }

    fn data_from(&self, at: usize) -> Option<Range<usize>> {
        self.inner.data_from(at)
    }

    fn first_unreadable(&self, range: Range<usize>) -> Option<(usize, io::Error)> {
        match self.faults.pass(Call::Probe) {
            Ok(()) => self.inner.first_unreadable(range),
            Err(error) => Some((range.start, error)),
        }
    }

    fn announce(&self, range: Range<usize>) {
        self.inner.announce(range);
    }

    fn advise(&self, advice: Advice) {
        self.inner.advise(advice);
    }
}

impl Vfs for FaultyVfs {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.faults.pass(Call::CreateDir)?;
        self.inner.create_dir_all(dir)
    }

    fn create_dirs_unsynced(&self, dir: &Path) -> io::Result<()> {
        self.inner.create_dirs_unsynced(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.faults.pass(Call::List)?;
        self.inner.list(dir)
    }

    fn stat(&self, path: &Path) -> io::Result<Option<DirEntry>> {
        self.faults.pass(Call::Stat)?;
        self.inner.stat(path)
    }

    fn create(&self, path: &Path, len: u64, reserve: Reserve) -> io::Result<Box<dyn Backing>> {
        self.faults.pass(Call::Create)?;
        Ok(self.wrap(self.inner.create(path, len, reserve)?))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Backing>> {
        self.faults.pass(Call::Open)?;
        Ok(self.wrap(self.inner.open(path)?))
    }

    fn read(&self, path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
        self.faults.pass(Call::Read)?;
        self.inner.read(path, limit)
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.faults.pass(Call::Replace)?;
        self.inner.replace(path, bytes)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn set_len(&self, path: &Path, len: u64) -> io::Result<()> {
        self.inner.set_len(path, len)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.faults.pass(Call::Remove)?;
        self.inner.remove(path)
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        self.inner.remove_dir(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.faults.pass(Call::SyncDir)?;
        self.inner.sync_dir(dir)
    }

    fn sync_all(&self, path: &Path) -> io::Result<()> {
        self.faults.pass(Call::Sync)?;
        self.inner.sync_all(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        self.faults.pass(Call::Lock)?;
        self.inner.lock(path)
    }

    fn usage(&self, path: &Path) -> io::Result<DiskUsage> {
        self.inner.usage(path)
    }

    fn may_store_through_mapping(&self, dir: &Path) -> bool {
        !self.copy_on_write && self.inner.may_store_through_mapping(dir)
    }
}
