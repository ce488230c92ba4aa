//! The mapped files of all queues together: opened on demand, closed when too many are open.
//!
//! A [`Slot`] is one file, open or not. [`Disk`] opens slots and remembers them in a ring; when the ring is full the
//! hand goes round, takes the mark of each slot that was used since its last visit, and closes the first without one.
//! A write moves the hand by one place at most, and does without a place when that one is in use: the flush writes to all
//! queues in turn, and would else close each file just before it is written to again.
//! Closing drops the mapping once its last user is done; a slot is never in the ring twice.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;

use crate::{
    error::{Error, Result},
    segment::SlotTable,
    vfs::{Reserve, Vfs, check_readable},
};

/// One file of a queue.
#[derive(Debug)]
pub(super) struct Slot {
    /// Its first byte in the queue's logical space.
    pub base: u64,
    /// Where it is.
    pub path: PathBuf,
    /// Whether this process made it, so that it holds nothing but what this process wrote.
    pub fresh: bool,
    used: AtomicBool,
    table: Mutex<Option<Arc<SlotTable>>>,
}

impl Slot {
    /// A file that exists.
    pub(super) fn closed(base: u64, path: PathBuf) -> Arc<Self> {
        Arc::new(Self { base, path, fresh: false, used: AtomicBool::new(false), table: Mutex::new(None) })
    }

    /// Whether it is mapped.
    #[cfg(test)]
    pub(super) fn is_open(&self) -> bool {
        self.table.lock().is_some()
    }

    fn close(&self) {
        *self.table.lock() = None;
    }
}

/// Where the files are, and which are mapped.
#[derive(Debug)]
pub(super) struct Disk {
    pub vfs: Arc<dyn Vfs>,
    limit: usize,
    ring: Mutex<VecDeque<Weak<Slot>>>,
    /// What the first sync that failed said, whoever asked for it.
    failed: OnceLock<String>,
    /// The store is being opened: what cannot be read must be an error.
    opening: AtomicBool,
}

impl Disk {
    /// Keeps at most `limit` files mapped, and leaves half of the descriptors that the process may have to others.
    pub(super) fn new(vfs: Arc<dyn Vfs>, limit: usize) -> Self {
        let limit = limit.min(vfs.open_files_limit() / 2).max(1);
        let (ring, failed, opening) = (Mutex::default(), OnceLock::new(), AtomicBool::new(true));
        Self { vfs, limit, ring, failed, opening }
    }

    /// From here on files are mapped without being read first.
    pub(super) fn opened(&self) {
        self.opening.store(false, Ordering::Relaxed);
    }

    /// Why nothing of the queues counts as durable any more: a sync that fails may leave lost pages looking clean, so
    /// that the next one succeeds without them.
    pub(super) fn failed(&self) -> Option<&str> {
        self.failed.get().map(String::as_str)
    }

    /// Takes note of a sync that failed.
    pub(super) fn fail(&self, error: Error) -> Error {
        self.failed.get_or_init(|| error.to_string());
        error
    }

    /// Makes the names in a directory durable.
    pub(super) fn sync_dir(&self, dir: &Path) -> Result<()> {
        self.vfs.sync_dir(dir).map_err(Error::io("sync", dir)).map_err(|error| self.fail(error))
    }

    /// Makes a file's bytes durable. One that somebody has cut lacks some of them.
    pub(super) fn sync_file(&self, slot: &Slot, table: &SlotTable) -> Result<()> {
        let synced = table.backing().sync(0..table.len());
        synced.map_err(Error::io("sync", &slot.path)).map_err(|error| self.fail(error))?;
        let now = self.vfs.stat(&slot.path).map_err(Error::io("look at", &slot.path))?;
        match now.filter(|now| now.len < table.len() as u64) {
            Some(now) => {
                let (path, expected) = (slot.path.clone(), table.len() as u64);
                Err(self.fail(Error::CutShort { path, actual: now.len, expected }))
            }
            None => Ok(()),
        }
    }

    /// The file's mapping, made now if there is none.
    pub(super) fn table(&self, slot: &Arc<Slot>) -> Result<Arc<SlotTable>> {
        self.mapped_for(slot, usize::MAX)
    }

    /// [`Disk::table`] for one write: stays only where there is room.
    pub(super) fn table_to_write(&self, slot: &Arc<Slot>) -> Result<Arc<SlotTable>> {
        self.mapped_for(slot, 1)
    }

    fn mapped_for(&self, slot: &Arc<Slot>, visits: usize) -> Result<Arc<SlotTable>> {
        slot.used.store(true, Ordering::Relaxed);
        let mut place = slot.table.lock();
        if let Some(table) = &*place {
            return Ok(Arc::clone(table));
        }
        let backing = self.vfs.open(&slot.path).map_err(Error::io("open", &slot.path))?;
        if self.opening.load(Ordering::Relaxed) {
            check_readable(&*backing, &slot.path, 0..backing.len())?;
        }
        let table = Arc::new(SlotTable::new(backing));
        *place = Some(Arc::clone(&table));
        drop(place);
        self.admit(slot, visits);
        Ok(table)
    }

    /// Makes a file of `len` zero bytes that takes no space until written, for a first write.
    pub(super) fn create(&self, base: u64, path: PathBuf, len: u64) -> Result<(Arc<Slot>, Arc<SlotTable>)> {
        let backing = self.vfs.create(&path, len, Reserve::None).map_err(no_space("create", &path, len))?;
        let table = Arc::new(SlotTable::new(backing));
        let place = Mutex::new(Some(Arc::clone(&table)));
        let slot = Arc::new(Slot { base, path, fresh: true, used: AtomicBool::new(true), table: place });
        self.admit(&slot, 1);
        Ok((slot, table))
    }

    /// Finds the slot a place in the ring by looking at `visits` others at most; closes it again if there is none.
    fn admit(&self, slot: &Arc<Slot>, visits: usize) {
        let mut ring = self.ring.lock();
        let mut visits = visits.min(2 * ring.len());
        while ring.len() >= self.limit && visits > 0 {
            visits -= 1;
            let Some(oldest) = ring.pop_front() else { break };
            let Some(other) = oldest.upgrade() else { continue };
            if other.used.swap(false, Ordering::Relaxed) {
                ring.push_back(oldest);
            } else {
                other.close();
            }
        }
        if ring.len() < self.limit {
            ring.push_back(Arc::downgrade(slot));
        } else {
            drop(ring);
            slot.close();
        }
    }

    /// Files mapped now, at most.
    #[cfg(test)]
    pub(super) fn mapped(&self) -> usize {
        self.ring.lock().iter().filter_map(Weak::upgrade).filter(|slot| slot.is_open()).count()
    }
}

/// Wraps a failed write or creation, telling a full disk from everything else.
pub(super) fn no_space(
    action: &'static str,
    path: &Path,
    bytes: u64,
) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_path_buf();
    move |source| match source.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Error::NoSpace { path, bytes },
        _ => Error::Io { action, path, source },
    }
}
