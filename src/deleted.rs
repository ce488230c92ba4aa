//! Topics that were deleted while their records are still in the log.
//!
//! Records stay until retention removes their segment, so rebuilding queues from the log would bring a deleted
//! topic back. The file `deletedTopics` in the store's directory says up to which physical offset each name's
//! records are dead. RocketMQ ignores it. FORMAT.md, "deletedTopics".

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::RwLock;

use crate::{
    error::{Error, Result},
    types::{PhysicalOffset, TopicName},
    vfs::Vfs,
};

/// The longest file that is read: far more names than a broker has.
const LIMIT: u64 = 64 << 20;

/// The dead part of each deleted topic. Shared by recovery, the dispatcher and the store.
#[derive(Debug)]
pub(crate) struct DeletedTopics {
    vfs: Arc<dyn Vfs>,
    path: PathBuf,
    dead_below: RwLock<BTreeMap<TopicName, PhysicalOffset>>,
    changes: AtomicU64,
}

impl DeletedTopics {
    /// Reads the file below `root`. Lines that cannot be read are left out: at worst a deleted topic's queues are
    /// there again.
    pub(crate) fn load(vfs: Arc<dyn Vfs>, root: &std::path::Path) -> Result<Self> {
        let path = root.join("deletedTopics");
        let bytes = vfs.read(&path, LIMIT).map_err(Error::io("read", &path))?.unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let dead_below = text.lines().filter_map(parse).collect();
        Ok(Self { vfs, path, dead_below: RwLock::new(dead_below), changes: AtomicU64::new(0) })
    }

    /// Whether no topic was deleted whose records may still be there.
    pub(crate) fn is_empty(&self) -> bool {
        self.dead_below.read().is_empty()
    }

    /// Whether a record of `topic` at `at` belongs to a deleted life of that topic.
    pub(crate) fn covers(&self, topic: &str, at: PhysicalOffset) -> bool {
        let dead = self.dead_below.read();
        !dead.is_empty() && dead.get(topic).is_some_and(|below| at < *below)
    }

    /// Counts deletions, so that caches of queues know when to empty.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Declares all records of `topic` below `below` dead and keeps that on disk.
    pub(crate) fn delete(&self, topic: TopicName, below: PhysicalOffset) -> Result<()> {
        let mut dead = self.dead_below.write();
        dead.insert(topic, below);
        self.save(&dead)?;
        self.changes.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    /// Forgets names whose dead records the log no longer holds.
    pub(crate) fn forget_below(&self, oldest: PhysicalOffset) -> Result<()> {
        let mut dead = self.dead_below.write();
        let before = dead.len();
        dead.retain(|_, below| *below > oldest);
        if dead.len() == before { Ok(()) } else { self.save(&dead) }
    }

    fn save(&self, dead: &BTreeMap<TopicName, PhysicalOffset>) -> Result<()> {
        let mut text = String::new();
        for (topic, below) in dead {
            let _ = writeln!(text, "{below} {topic}");
        }
        self.vfs.replace(&self.path, text.as_bytes()).map_err(Error::io("write", &self.path))
    }
}

fn parse(line: &str) -> Option<(TopicName, PhysicalOffset)> {
    let (below, topic) = line.split_once(' ')?;
    Some((TopicName::new(topic).ok()?, PhysicalOffset(below.parse().ok()?)))
}
