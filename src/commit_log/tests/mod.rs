//! The log over real files in a temporary directory, and over files that fail on demand.
//!
//! What a wait acknowledged is read back with `std::fs`, not through the log.

mod appending;
mod flushing;
mod recovering;

use std::{
    fs, io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::*;
use crate::{
    clock::{ManualClock, SystemClock},
    format::message::{MAGIC_BLANK, encode_blank},
    segment::Lease,
    types::StoreTimestamp,
    vfs::faulty::{Call, Faults, FaultyVfs},
};

const SEGMENT: usize = 8192;
const LONG: Duration = Duration::from_secs(60);

struct Rig {
    dir: tempfile::TempDir,
    vfs: FaultyVfs,
    config: Config,
}

impl Rig {
    fn new(flush: FlushDiskType) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = Config::new(dir.path()).commit_log_file_size(SEGMENT as u64).flush_disk_type(flush);
        Self { dir, vfs: FaultyVfs::default(), config }
    }

    fn vfs(&self) -> Arc<dyn Vfs> {
        Arc::new(self.vfs.clone())
    }

    fn faults(&self) -> &Faults {
        &self.vfs.faults
    }

    fn load(&self) -> Loaded {
        load(self.vfs(), &self.config).unwrap()
    }

    fn open(&self, end: i64) -> (Arc<CommitLog>, Appender) {
        self.load().recovered(PhysicalOffset(end), Arc::new(SystemClock::new())).unwrap()
    }

    fn file(&self, base: usize) -> Vec<u8> {
        fs::read(self.path(base)).unwrap()
    }

    fn path(&self, base: usize) -> std::path::PathBuf {
        self.config.commit_log_path().join(format!("{base:020}"))
    }

    fn names(&self) -> Vec<String> {
        names(&self.config.commit_log_path())
    }
}

fn names(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A record of `len` bytes that says where it stands.
fn record(at: PhysicalOffset, len: usize) -> Vec<u8> {
    let mut bytes = vec![0xA5; len];
    bytes[..8].copy_from_slice(&at.0.to_be_bytes());
    bytes
}

fn put(appender: &mut Appender, len: usize) -> Result<PhysicalOffset> {
    appender.append(len, |at, sink| sink.put(&record(at, len)))
}

/// `len` published bytes from `at` on.
fn lease(log: &CommitLog, at: PhysicalOffset, len: usize) -> Option<Lease> {
    log.lease_rest(at).filter(|rest| rest.len() >= len).map(|rest| rest.slice(0..len))
}

const BOTH: [FlushDiskType; 2] = [FlushDiskType::Async, FlushDiskType::Sync];
