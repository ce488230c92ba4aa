//! Failures 29 to 33: a full disk, a device that fails, a file that shrinks, a second process, a file that goes.

use std::{
    fs, io,
    ops::Range,
    path::Path,
    process::{Command, Stdio},
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use reput::{
    Config, Error, FlushDiskType, Message, QueueOffset, Store, SystemClock,
    vfs::{
        Advice, Backing, DirEntry, DiskUsage, Lock, OsVfs, Reserve, SIGBUS_EXIT_CODE, Vfs, exit_on_sigbus,
    },
};
use tempfile::TempDir;

use crate::rig::{self, Rig, SEGMENT, cut, snapshot};

/// The real file system, whose disk can be full and whose device can fail.
#[derive(Clone, Debug, Default)]
struct Device(Arc<Faults>);

#[derive(Debug, Default)]
struct Faults {
    full: AtomicBool,
    failing: AtomicBool,
    /// A segment was made without its space.
    unreserved: AtomicBool,
}

#[derive(Debug)]
struct OnDevice(Box<dyn Backing>, Arc<Faults>);

impl Faults {
    fn space(&self) -> io::Result<()> {
        if self.full.load(Ordering::SeqCst) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl Backing for OnDevice {
    fn base(&self) -> NonNull<u8> {
        self.0.base()
    }
    fn len(&self) -> usize {
        self.0.len()
    }
    fn write(&self, at: usize, bytes: &[u8]) -> io::Result<()> {
        self.0.write(at, bytes)
    }
    fn rewrite(&self, range: Range<usize>) -> io::Result<()> {
        self.0.rewrite(range)
    }
    fn sync(&self, range: Range<usize>) -> io::Result<()> {
        // As Linux does: an error once, and success from then on.
        if self.1.failing.swap(false, Ordering::SeqCst) {
            return Err(io::Error::from_raw_os_error(5));
        }
        self.0.sync(range)
    }
    fn start_writeback(&self, range: Range<usize>) {
        self.0.start_writeback(range);
    }
    fn populate(&self, range: Range<usize>) {
        self.0.populate(range);
    }
    fn reserve(&self, range: Range<usize>) -> io::Result<()> {
        self.1.space()?;
        self.0.reserve(range)
    }
    fn data_from(&self, at: usize) -> Option<Range<usize>> {
        self.0.data_from(at)
    }
    fn advise(&self, advice: Advice) {
        self.0.advise(advice);
    }
}

impl Vfs for Device {
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
        self.0.space()?;
        if path.parent().is_some_and(|dir| dir.ends_with("commitlog")) && reserve != Reserve::All {
            self.0.unreserved.store(true, Ordering::SeqCst);
        }
        Ok(Box::new(OnDevice(OsVfs.create(path, len, reserve)?, Arc::clone(&self.0))))
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn Backing>> {
        Ok(Box::new(OnDevice(OsVfs.open(path)?, Arc::clone(&self.0))))
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
        Ok(DiskUsage { total: 100, free: 50 })
    }
}

fn open(config: Config, device: &Device) -> Store {
    Store::open_with(config, Arc::new(device.clone()), Arc::new(SystemClock::new())).unwrap()
}

/// Row 29: The disk is full when the next segment is made. Java maps a sparse file and dies of SIGBUS. Space is claimed
/// before anything is mapped: a full disk is an error of the put, and puts go on when there is room.
#[test]
fn failure_29_a_full_disk_refuses_puts_and_kills_nobody() {
    for flush in [FlushDiskType::Async, FlushDiskType::Sync] {
        let (dir, device) = (TempDir::new().unwrap(), Device::default());
        let store = open(rig::config(dir.path()).flush_disk_type(flush), &device);
        let queue = store.queue("TopicA", 0).unwrap();
        let put = |number| {
            store.put(&Message::new(queue, &rig::body(number)).keys(&rig::key(number))).map(|put| put.wait())
        };
        let mut stored = 0;
        put(stored).unwrap().unwrap();
        device.0.full.store(true, Ordering::SeqCst);
        let error = loop {
            stored += 1;
            match put(stored) {
                Ok(acknowledged) => _ = acknowledged.unwrap(),
                Err(error) => break error,
            }
            assert!(stored < 200, "more than two segments fit onto a full disk");
        };
        assert!(matches!(error, Error::NoSpace { .. }), "{error}");
        assert!(!device.0.unreserved.load(Ordering::SeqCst), "a segment was mapped before it had its space");
        device.0.full.store(false, Ordering::SeqCst);
        put(stored).unwrap().unwrap();
        drop(store);
        let served = rig::served(&Store::open(rig::config(dir.path())).unwrap());
        assert_eq!(served.len(), stored + 1, "what was refused is not there, what was acknowledged is");
    }
}

const CHILD: &str = "REPUT_FAILURES_CHILD";

/// This test program again, to run one of its tests with `dir` in its environment.
fn child(test: &str, dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]).env(CHILD, dir);
    command
}

/// The part of the next test that dies.
#[test]
fn child_reads_a_file_that_was_cut_short() {
    let Some(dir) = std::env::var_os(CHILD) else { return };
    exit_on_sigbus().unwrap();
    exit_on_sigbus().unwrap();
    let store = Store::open(rig::config(Path::new(&dir))).unwrap();
    let segment = Path::new(&dir).join(format!("commitlog/{:020}", SEGMENT));
    cut(&segment, 4096);
    let read = rig::served(&store).len();
    println!("read {read} messages of a file that is not there");
}

/// Row 30: Somebody cuts a mapped file short: the JVM throws an InternalError from anywhere, or dies. The process ends
/// with a code of its own, having named the file and the place, and acknowledges nothing more.
#[test]
fn failure_30_a_file_that_shrinks_under_the_process_is_named() {
    let rig = Rig::closed();
    let output = child("device::child_reads_a_file_that_was_cut_short", rig.dir.path()).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(
        output.status.code(),
        Some(SIGBUS_EXIT_CODE),
        "{told}{}",
        String::from_utf8_lossy(&output.stdout)
    );
    assert!(told.contains(&format!("commitlog/{SEGMENT:020} lost byte ")), "{told}");
    // And the store opens again.
    let gone: Vec<usize> = (0..300)
        .filter(|i| (SEGMENT + 4096..2 * SEGMENT).contains(&(rig.puts[*i].at + rig.puts[*i].size - 1)))
        .collect();
    rig.lost_is(gone);
}

/// Row 31: One EIO of a sync. Java tries again, the system says yes to pages that it has dropped, and 5 of 6 acknowledged
/// messages are gone. The first failure ends all acknowledging.
#[test]
fn failure_31_after_a_failed_sync_nothing_is_acknowledged_again() {
    let (dir, device) = (TempDir::new().unwrap(), Device::default());
    let store = open(rig::config(dir.path()).flush_disk_type(FlushDiskType::Sync), &device);
    let queue = store.queue("TopicA", 0).unwrap();
    for number in 0..10 {
        store.put(&Message::new(queue, &rig::body(number))).unwrap().wait().unwrap();
    }
    device.0.failing.store(true, Ordering::SeqCst);
    let failed = store.put(&Message::new(queue, &rig::body(10))).unwrap().wait();
    assert!(matches!(failed, Err(Error::Poisoned { .. })), "{failed:?}");
    for number in 11..20 {
        let again = store.put(&Message::new(queue, &rig::body(number))).and_then(reput::Appended::wait);
        assert!(matches!(again, Err(Error::Poisoned { .. })), "message {number}: {again:?}");
    }
    assert!(store.sync().is_err() && store.status().poisoned.is_some());
    assert!(store.close().is_err());
    let served = rig::served(&Store::open(rig::config(dir.path())).unwrap());
    assert!((0..10).all(|number| served[&(number as i64)] == rig::body(number)));
    assert!(served.len() <= 11);
}

/// The second process of the next test.
#[test]
fn child_opens_a_store_that_is_open() {
    let Some(dir) = std::env::var_os(CHILD) else { return };
    match Store::open(rig::config(Path::new(&dir))) {
        Err(Error::Locked { .. }) => println!("locked"),
        other => println!("not locked: {:?}", other.map(|store| store.status())),
    }
}

/// Row 32: A second process on a directory in use: Java recovers, truncates and unlinks before it finds the lock taken, and
/// the first writes on into a file without a name. The lock comes before the first read.
#[test]
fn failure_32_a_second_process_changes_no_byte() {
    let (mut rig, store) = Rig::open_store();
    // What a recovery would cut or remove.
    let before = snapshot(rig.dir.path());
    let output = child("device::child_opens_a_store_that_is_open", rig.dir.path())
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(told.contains("locked"), "{told}");
    assert!(snapshot(rig.dir.path()) == before, "the second process changed files");
    for number in 300..400 {
        rig.put(&store, number);
    }
    store.close().unwrap();
    rig.lost_is([]);
}

/// Row 33: A topic is deleted while it is written and read: the JVM crashes on the unmapped queue. A mapping lives as long
/// as its last user.
#[test]
fn failure_33_a_topic_deleted_while_in_use_kills_nobody() {
    let dir = TempDir::new().unwrap();
    let store = Store::open(rig::config(dir.path())).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = || {
            while !done.load(Ordering::SeqCst) {
                if let Some(queue) = store.find_queue("TopicA", 0) {
                    for message in store.get(queue, QueueOffset::ZERO).unwrap().messages {
                        assert!(message.body().starts_with(b"message "));
                    }
                }
            }
        };
        scope.spawn(reader);
        scope.spawn(reader);
        for round in 0..30 {
            let queue = store.queue("TopicA", 0).unwrap();
            for number in 0..40 {
                drop(store.put(&Message::new(queue, &rig::body(number))).unwrap());
            }
            let held = store.get(queue, QueueOffset::ZERO).unwrap().messages;
            store.delete_topic("TopicA").unwrap();
            assert!(held.iter().all(|message| message.body().len() == 1000), "round {round}");
        }
        done.store(true, Ordering::SeqCst);
    });
    assert!(!dir.path().join("consumequeue/TopicA").exists());
    store.close().unwrap();
    assert!(fs::read_dir(dir.path().join("commitlog")).unwrap().count() > 1);
}

/// Row 33, in a chosen order: whoever still holds the queue finds it empty, and no mapping of a file that is gone.
#[test]
fn failure_33_the_queue_of_a_deleted_topic_is_empty_to_who_holds_it() {
    let rig = Rig::closed();
    let store = rig.open();
    let queue = store.find_queue("TopicA", 0).unwrap();
    let last = QueueOffset(299);
    assert!(store.message_time(queue, last).unwrap().is_some(), "its file is mapped now");
    store.delete_topic("TopicA").unwrap();
    assert_eq!(store.message_time(queue, last).unwrap(), None);
    assert_eq!(store.max_offset(queue), QueueOffset::ZERO);
    store.close().unwrap();
    assert!(!rig.path("consumequeue/TopicA").exists());
}
