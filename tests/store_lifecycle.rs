//! Opening, closing, deleting topics, keeping to the rules of retention.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use reput::{
    Config, Error, ManualClock, Message, QueueOffset, RetentionReason, Steps, Store, StoreTimestamp,
    vfs::{Backing, DirEntry, DiskUsage, Lock, OsVfs, Reserve, Vfs},
};
use tempfile::TempDir;

fn small(dir: &TempDir) -> Config {
    Config::new(dir.path())
        .commit_log_file_size(64u64 << 10)
        .consume_queue_file_size(800u64)
        .index_slots(64u32)
        .index_entries(128u32)
}

/// The real file system with a disk use that the test sets.
#[derive(Debug)]
struct FullDisk {
    used: AtomicU64,
}

impl Vfs for FullDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        OsVfs.create_dir_all(dir)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        OsVfs.list(dir)
    }
    fn stat(&self, path: &Path) -> io::Result<Option<DirEntry>> {
        OsVfs.stat(path)
    }
    fn create(&self, path: &Path, len: u64, reserve: Reserve) -> io::Result<Box<dyn Backing>> {
        OsVfs.create(path, len, reserve)
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn Backing>> {
        OsVfs.open(path)
    }
    fn read(&self, path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
        OsVfs.read(path, limit)
    }
    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        OsVfs.replace(path, bytes)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        OsVfs.rename(from, to)
    }
    fn set_len(&self, path: &Path, len: u64) -> io::Result<()> {
        OsVfs.set_len(path, len)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        OsVfs.remove(path)
    }
    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        OsVfs.remove_dir(dir)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        OsVfs.sync_dir(dir)
    }
    fn sync_all(&self, path: &Path) -> io::Result<()> {
        OsVfs.sync_all(path)
    }
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        OsVfs.lock(path)
    }
    fn usage(&self, _path: &Path) -> io::Result<DiskUsage> {
        Ok(DiskUsage { total: 100, free: 100 - self.used.load(Ordering::SeqCst) })
    }
}

/// A store of ten segments whose clock says that all but the last were written `age_hours` ago.
fn aged(dir: &TempDir, age_hours: u64, used: u64) -> (Store, Steps, Arc<FullDisk>) {
    let real_now = StoreTimestamp(
        i64::try_from(
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis(),
        )
        .unwrap(),
    );
    // Noon: not an hour of `deleteWhen`.
    let noon = StoreTimestamp(real_now.0 - real_now.0 % 86_400_000 + 12 * 3_600_000);
    let clock = Arc::new(ManualClock::new(StoreTimestamp(noon.0 + 24 * 3_600_000 * (age_hours as i64 / 24))));
    let disk = Arc::new(FullDisk { used: AtomicU64::new(used) });
    let (store, mut steps) =
        Store::open_stepped(small(dir), Arc::clone(&disk) as _, Arc::clone(&clock) as _).unwrap();
    let queue = store.queue("t", 0).unwrap();
    for n in 0..630 {
        drop(store.put(&Message::new(queue, &[1; 900]).keys(&format!("k{n}"))).unwrap());
    }
    while steps.reput().unwrap() {}
    clock.advance(Duration::from_secs(61));
    steps.upkeep().unwrap();
    (store, steps, disk)
}

#[test]
fn a_second_store_in_the_same_directory_is_refused_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let first = Store::open(small(&dir)).unwrap();
    assert!(matches!(Store::open(small(&dir)), Err(Error::Locked { .. })));
    let queue = first.queue("t", 0).unwrap();
    first.put(&Message::new(queue, b"x")).unwrap().wait().unwrap();
    first.close().unwrap();
    Store::open(small(&dir)).unwrap().close().unwrap();
}

#[test]
fn a_deleted_topic_stays_deleted_and_its_name_starts_anew() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(small(&dir)).unwrap();
    let (gone, kept) = (store.queue("gone", 0).unwrap(), store.queue("kept", 0).unwrap());
    for _ in 0..30 {
        drop(store.put(&Message::new(gone, b"old")).unwrap());
        drop(store.put(&Message::new(kept, b"kept")).unwrap());
    }
    assert!(store.wait_dispatched(Duration::from_secs(10)).unwrap());
    store.delete_topic("gone").unwrap();
    assert!(!dir.path().join("consumequeue/gone").exists());
    assert!(matches!(store.put(&Message::new(gone, b"x")), Err(Error::NoSuchQueue { .. })));
    drop(store);
    // Not closed: recovery reads the whole log, and must not bring the topic back.
    let store = Store::open(small(&dir)).unwrap();
    assert!(store.find_queue("gone", 0).is_none());
    let anew = store.queue("gone", 0).unwrap();
    assert_eq!(store.put(&Message::new(anew, b"new")).unwrap().queue_offset(), QueueOffset(0));
    drop(store);
    let store = Store::open(small(&dir)).unwrap();
    let anew = store.queue("gone", 0).unwrap();
    let got = store.get(anew, QueueOffset(0)).unwrap();
    assert_eq!(got.messages.iter().map(|m| m.body()).collect::<Vec<_>>(), [b"new"]);
    assert_eq!(store.max_offset(store.queue("kept", 0).unwrap()), QueueOffset(30));
    store.close().unwrap();
}

#[test]
fn files_of_another_size_are_refused_with_the_key_to_change() {
    let dir = tempfile::tempdir().unwrap();
    Store::open(small(&dir)).unwrap().close().unwrap();
    let store = Store::open(small(&dir)).unwrap();
    drop(store.put(&Message::new(store.queue("t", 0).unwrap(), b"x")).unwrap());
    store.close().unwrap();
    let before = std::fs::read(dir.path().join("commitlog/00000000000000000000")).unwrap();
    let error = Store::open(small(&dir).commit_log_file_size(128u64 << 10)).unwrap_err();
    assert!(matches!(&error, Error::FileSize { key: "mappedFileSizeCommitLog", .. }), "{error}");
    assert_eq!(std::fs::read(dir.path().join("commitlog/00000000000000000000")).unwrap(), before);
    Store::open(small(&dir)).unwrap().close().unwrap();
}

#[test]
fn nothing_young_goes_before_its_time() {
    let dir = tempfile::tempdir().unwrap();
    let (store, mut steps, _disk) = aged(&dir, 0, 50);
    assert!(store.retention_plan().unwrap().segments.is_empty());
    assert_eq!(steps.retention().unwrap(), 0);
}

#[test]
fn a_dry_run_names_what_the_run_then_deletes_and_readers_keep_what_they_hold() {
    let dir = tempfile::tempdir().unwrap();
    let (store, mut steps, _disk) = aged(&dir, 120, 80);
    let queue = store.queue("t", 0).unwrap();
    let held = store.get(queue, QueueOffset(0)).unwrap();
    let plan = store.retention_plan().unwrap();
    assert!(!plan.segments.is_empty());
    assert!(plan.segments.iter().all(|s| s.reason == RetentionReason::ExpiredAndDiskFilling));
    assert!(plan.segments.iter().all(|s| s.path.exists()), "a dry run deletes nothing");
    assert_eq!(steps.retention().unwrap(), plan.segments.len());
    assert!(plan.segments.iter().all(|s| !s.path.exists()));

    let first = store.min_offset(queue);
    assert!(first > QueueOffset(0));
    let after = store.get(queue, first).unwrap();
    assert!(after.messages[0].physical_offset() >= store.status().min_offset);
    assert_eq!(store.get(queue, QueueOffset(0)).unwrap().next_offset, first);
    assert_eq!(held.messages[0].body(), &[1; 900], "a lease outlives its file");
    assert!(store.query("t", "k1").unwrap().is_empty());
    let last = store.max_offset(queue);
    let files = std::fs::read_dir(dir.path().join("consumequeue/t/0")).unwrap().count();
    assert!(files < 630 / 40, "queue files follow: {files}");
    drop((store, steps));

    let (store, _steps) =
        Store::open_stepped(small(&dir), Arc::new(OsVfs), Arc::new(ManualClock::new(StoreTimestamp(1))))
            .unwrap();
    let queue = store.queue("t", 0).unwrap();
    assert_eq!((store.min_offset(queue), store.max_offset(queue)), (first, last));
}

#[test]
fn over_85_percent_the_oldest_go_until_enough_is_free() {
    let dir = tempfile::tempdir().unwrap();
    let (store, mut steps, disk) = aged(&dir, 0, 88);
    let plan = store.retention_plan().unwrap();
    assert!(
        plan.segments.iter().all(|s| s.reason == RetentionReason::DiskNearlyFull) && plan.segments.len() > 1
    );
    disk.used.store(86, Ordering::SeqCst);
    assert!(steps.retention().unwrap() >= 1);
    assert!(store.status().min_offset.0 > 0);
    disk.used.store(50, Ordering::SeqCst);
    assert_eq!(steps.retention().unwrap(), 0);
}

#[test]
fn over_90_percent_puts_are_refused_and_resume_by_themselves() {
    let dir = tempfile::tempdir().unwrap();
    let (store, mut steps, disk) = aged(&dir, 0, 95);
    let queue = store.queue("t", 0).unwrap();
    steps.retention().unwrap();
    let error = store.put(&Message::new(queue, b"x")).map(drop).unwrap_err();
    assert!(matches!(error, Error::DiskFull { used_percent: 95, limit_percent: 90 }), "{error}");
    assert!(store.status().disk_full);
    disk.used.store(60, Ordering::SeqCst);
    steps.retention().unwrap();
    drop(store.put(&Message::new(queue, b"x")).unwrap());
}

/// Each mapped queue file has a descriptor, and shells give a process 1024: the store then could make no further file,
/// nor could its program take a connection.
#[test]
fn a_process_that_may_open_few_files_has_many_queues() {
    const INSIDE: &str = "REPUT_TEST_FEW_FILES";
    const QUEUES: i32 = 200;
    if std::env::var_os(INSIDE).is_none() {
        let program = std::env::current_exe().unwrap();
        let again = "ulimit -n 64 && exec \"$0\" --exact a_process_that_may_open_few_files_has_many_queues";
        let mut shell = std::process::Command::new("sh");
        assert!(shell.args(["-c", again]).arg(program).env(INSIDE, "1").status().unwrap().success());
        return;
    }
    let dir = TempDir::new().unwrap();
    let store = Store::open(small(&dir)).unwrap();
    for id in 0..QUEUES {
        let queue = store.queue("many", id).unwrap();
        store.put(&Message::new(queue, b"one")).unwrap().wait().unwrap();
    }
    assert!(store.wait_dispatched(Duration::from_secs(60)).unwrap());
    store.close().unwrap();
    drop(store);
    let store = Store::open(small(&dir)).unwrap();
    for id in 0..QUEUES {
        let queue = store.find_queue("many", id).unwrap();
        assert_eq!(store.get(queue, QueueOffset::ZERO).unwrap().messages.len(), 1, "queue {id}");
    }
    store.close().unwrap();
}
