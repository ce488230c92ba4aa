//! The mapped files of all queues together: opened on demand, closed when too many are open.
//!
//! A [`Slot`] is one file, open or not. [`Disk`] opens slots and remembers them in a ring; when the ring is full the
//! hand goes round, takes the mark of each slot that was used since its last visit, and closes the first without one.
//! Closing drops the mapping once its last user is done; a slot is never in the ring twice.

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;

use crate::{
    error::{Error, Result},
    segment::SlotTable,
    vfs::{Reserve, Vfs},
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
}

impl Disk {
    /// Keeps at most `limit` files mapped.
    pub(super) fn new(vfs: Arc<dyn Vfs>, limit: usize) -> Self {
        Self { vfs, limit: limit.max(1), ring: Mutex::new(VecDeque::new()) }
    }

    /// The file's mapping, made now if there is none.
    pub(super) fn table(&self, slot: &Arc<Slot>) -> Result<Arc<SlotTable>> {
        slot.used.store(true, Ordering::Relaxed);
        let mut place = slot.table.lock();
        if let Some(table) = &*place {
            return Ok(Arc::clone(table));
        }
        let backing = self.vfs.open(&slot.path).map_err(Error::io("open", &slot.path))?;
        let table = Arc::new(SlotTable::new(backing));
        *place = Some(Arc::clone(&table));
        drop(place);
        self.admit(slot);
        Ok(table)
    }

    /// Makes a file of `len` zero bytes that takes no space until written.
    pub(super) fn create(&self, base: u64, path: PathBuf, len: u64) -> Result<Arc<Slot>> {
        let backing = self.vfs.create(&path, len, Reserve::None).map_err(no_space("create", &path, len))?;
        let table = Mutex::new(Some(Arc::new(SlotTable::new(backing))));
        let slot = Arc::new(Slot { base, path, fresh: true, used: AtomicBool::new(true), table });
        self.admit(&slot);
        Ok(slot)
    }

    fn admit(&self, slot: &Arc<Slot>) {
        let mut ring = self.ring.lock();
        let mut visits = 2 * ring.len();
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
        ring.push_back(Arc::downgrade(slot));
    }

    /// Files mapped now, at most.
    #[cfg(test)]
    pub(super) fn mapped(&self) -> usize {
        self.ring.lock().iter().filter_map(Weak::upgrade).filter(|slot| slot.table.lock().is_some()).count()
    }
}

/// Wraps a failed write or creation, telling a full disk from everything else.
pub(super) fn no_space(
    action: &'static str,
    path: &std::path::Path,
    bytes: u64,
) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_path_buf();
    move |source| match source.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Error::NoSpace { path, bytes },
        _ => Error::Io { action, path, source },
    }
}
