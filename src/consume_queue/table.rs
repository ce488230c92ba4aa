//! All queues of a store: found by topic and number, written out and synced together.

use std::{
    collections::{BTreeSet, HashMap},
    hash::BuildHasherDefault,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use parking_lot::{Mutex, RwLock};

use super::{
    Queue, QueueKey, QueueKind,
    ext::Ext,
    files::{Run, SyncPoint},
    mapping::{Disk, Slot},
    queue::{State, Waiting},
};
use crate::{
    config::Config,
    error::{Error, Result},
    format::hash::NameHasher,
    types::{PhysicalOffset, QueueId, TopicName},
    vfs::{DirEntry, Vfs},
};

const SIMPLE_DIR: &str = "consumequeue";
const EXT_DIR: &str = Ext::DIR;
const BATCH_DIR: &str = "batchconsumequeue";
/// With more dirty files than this, one sync of the whole file system is cheaper than one for each.
const SYNC_EACH: usize = 16;
/// Queues that are so many that short writes to each would cost more than all else.
const MANY: usize = 256;
/// Bytes in a queue that are worth a write then.
const WORTH: usize = 2 << 10;
/// Every so many turns all is written.
const PUT_OFF: u32 = 4;

/// What one turn of the queue flush did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct QueueFlush {
    /// Files synced.
    pub files: usize,
    /// Whether every entry that was there when the turn began is durable now: the checkpoint may say so.
    pub thorough: bool,
}

/// The queues of each topic, by number.
type Topics = HashMap<TopicName, Vec<Arc<Queue>>, BuildHasherDefault<NameHasher>>;

/// All queues of a store.
#[derive(Debug)]
pub(crate) struct QueueTable {
    pub(super) places: Places,
    pub(super) waiting: Arc<Waiting>,
    topics: RwLock<Topics>,
    flush: Mutex<Timers>,
}

/// Where the files of a queue are and how long they are.
#[derive(Debug)]
pub(super) struct Places {
    pub disk: Arc<Disk>,
    root: PathBuf,
    simple_size: u64,
    batch_size: u64,
    pub ext_size: u64,
    writes_ext: bool,
}

/// When the flush thread did what; times are monotonic.
#[derive(Debug)]
struct Timers {
    interval: Duration,
    thorough_interval: Duration,
    least_pages: u64,
    last_turn: Option<Duration>,
    last_thorough: Option<Duration>,
    /// Turns since all that waited was written.
    put_off: u32,
}

impl Places {
    pub(super) fn dir(&self, kind: &str, key: &QueueKey) -> PathBuf {
        self.root.join(kind).join(key.topic.as_str()).join(key.id.to_string())
    }

    pub(super) const fn file_size(&self, kind: QueueKind) -> (&'static str, u64, &'static str) {
        match kind {
            QueueKind::Simple => (SIMPLE_DIR, self.simple_size, "mappedFileSizeConsumeQueue"),
            QueueKind::Batch => (BATCH_DIR, self.batch_size, "mapperFileSizeBatchConsumeQueue"),
        }
    }

    pub(super) fn writes_ext(&self, kind: QueueKind) -> bool {
        self.writes_ext && kind == QueueKind::Simple
    }

    /// The state of a queue without files.
    fn new_state(&self, key: &QueueKey, kind: QueueKind) -> State {
        let empty = |dir, size| Run::empty(Arc::clone(&self.disk), self.dir(dir, key), size);
        let (dir, size, _) = self.file_size(kind);
        let writes_ext = self.writes_ext(kind);
        let ext = writes_ext
            .then(|| self.left_ext(key).unwrap_or_else(|| Ext { run: empty(EXT_DIR, self.ext_size) }));
        State::new(kind, empty(dir, size), ext, writes_ext)
    }

    /// The ext files that a queue without entries left, emptied: no entry leads to their units. What cannot be removed
    /// is met again, as an error, when the queue's first unit is written.
    fn left_ext(&self, key: &QueueKey) -> Option<Ext> {
        let dir = self.dir(EXT_DIR, key);
        let listing = list(&*self.disk.vfs, &dir).ok().filter(|listing| !listing.is_empty())?;
        let mut ext = Ext::load(Arc::clone(&self.disk), dir, self.ext_size, &listing).ok()?;
        ext.run.restart(0).ok()?;
        Some(ext)
    }

    /// The state of a queue as its directories show it.
    fn load_state(
        &self,
        key: &QueueKey,
        kind: QueueKind,
        listing: &[DirEntry],
        has_ext: bool,
    ) -> Result<State> {
        let (dir, size, option) = self.file_size(kind);
        let run = Run::load(Arc::clone(&self.disk), self.dir(dir, key), size, option, listing)?;
        let writes_ext = self.writes_ext(kind);
        let ext = if kind == QueueKind::Simple && (has_ext || writes_ext) {
            let dir = self.dir(EXT_DIR, key);
            let listing = list(&*self.disk.vfs, &dir)?;
            Some(Ext::load(Arc::clone(&self.disk), dir, self.ext_size, &listing)?)
        } else {
            None
        };
        Ok(State::new(kind, run, ext, writes_ext))
    }
}

impl QueueTable {
    /// The directories that hold the topics' directories, below the store's.
    pub(crate) const DIRS: [&str; 3] = [SIMPLE_DIR, EXT_DIR, BATCH_DIR];

    /// A table without queues.
    pub(super) fn empty(vfs: Arc<dyn Vfs>, config: &Config) -> Self {
        let places = Places {
            disk: Arc::new(Disk::new(vfs, config.max_mapped_consume_queue_files)),
            root: config.root.clone(),
            simple_size: config.consume_queue_bytes(),
            batch_size: config.batch_consume_queue_bytes(),
            ext_size: config.consume_queue_ext_file_size,
            writes_ext: config.consume_queue_ext,
        };
        let flush = Mutex::new(Timers {
            interval: Duration::from_millis(config.flush_consume_queue_interval_ms),
            thorough_interval: Duration::from_millis(config.flush_consume_queue_thorough_interval_ms),
            least_pages: config.flush_consume_queue_least_pages,
            last_turn: None,
            last_thorough: None,
            put_off: 0,
        });
        Self { places, waiting: Arc::default(), topics: RwLock::default(), flush }
    }

    /// Lists the queues on disk; opens no file and changes nothing. Names that cannot be a topic or a queue number
    /// are left alone.
    pub(crate) fn load(vfs: Arc<dyn Vfs>, config: &Config) -> Result<Self> {
        let table = Self::empty(vfs, config);
        let ext_topics = list(&*table.places.disk.vfs, &table.places.root.join(EXT_DIR))?;
        for (dir, kind) in [(SIMPLE_DIR, QueueKind::Simple), (BATCH_DIR, QueueKind::Batch)] {
            table.load_kind(dir, kind, &ext_topics)?;
            if !config.sizes_are_certain {
                table.sizes_prove_themselves(kind)?;
            }
        }
        Ok(table)
    }

    /// Short files are damaged if any other of their kind has the configured size; else the configuration may be
    /// another than the store's.
    fn sizes_prove_themselves(&self, kind: QueueKind) -> Result<()> {
        let (mut odd, mut odd_ext) = (None, None);
        let (mut proven, mut proven_ext) = (false, false);
        for queue in self.queues().iter().filter(|queue| queue.kind() == kind) {
            let state = queue.lock();
            proven |= state.run.has_whole_file();
            odd = odd.or_else(|| state.run.short().first().cloned());
            if let Some(ext) = &state.ext {
                proven_ext |= ext.run.has_whole_file();
                odd_ext = odd_ext.or_else(|| ext.run.short().first().cloned());
            }
        }
        let (_, size, key) = self.places.file_size(kind);
        if let Some((path, actual)) = odd.filter(|_| !proven) {
            return Err(Error::FileSize { path, actual, expected: size, key });
        }
        match odd_ext.filter(|_| !proven_ext) {
            Some((path, actual)) => {
                Err(Error::FileSize { path, actual, expected: self.places.ext_size, key: Ext::SIZE_KEY })
            }
            None => Ok(()),
        }
    }

    fn load_kind(&self, dir: &str, kind: QueueKind, ext_topics: &[DirEntry]) -> Result<()> {
        let vfs = &*self.places.disk.vfs;
        let dir = self.places.root.join(dir);
        for topic in list(vfs, &dir)?.into_iter().filter(|entry| entry.is_dir) {
            let Ok(name) = TopicName::new(&topic.name) else { continue };
            let has_ext = ext_topics.binary_search_by(|e| e.name.as_str().cmp(&topic.name)).is_ok();
            let topic_dir = dir.join(&topic.name);
            for queue in list(vfs, &topic_dir)?.into_iter().filter(|entry| entry.is_dir) {
                let Some(id) = queue_id(&queue.name) else { continue };
                let key = QueueKey { topic: name.clone(), id };
                let path = topic_dir.join(&queue.name);
                let listing = list(vfs, &path)?;
                if self.get(&key.topic, id).is_some() {
                    if listing.is_empty() {
                        continue;
                    }
                    return Err(Error::ForeignFile { path, expected: "queue that consumequeue/ lacks" });
                }
                let state = self.places.load_state(&key, kind, &listing, has_ext)?;
                self.insert(Queue::new(key, state, Arc::clone(&self.waiting)));
            }
        }
        Ok(())
    }

    pub(super) fn insert(&self, queue: Arc<Queue>) {
        let mut topics = self.topics.write();
        let queues = topics.entry(queue.key().topic.clone()).or_default();
        let place = queues.partition_point(|other| other.key().id < queue.key().id);
        queues.insert(place, queue);
    }

    /// The queue, if it exists.
    pub(crate) fn get(&self, topic: &str, id: QueueId) -> Option<Arc<Queue>> {
        find(self.topics.read().get(topic)?, id).cloned()
    }

    /// The queue; made in memory when it does not exist. An existing one keeps its kind.
    pub(crate) fn get_or_create(&self, topic: &TopicName, id: QueueId, kind: QueueKind) -> Arc<Queue> {
        if let Some(queue) = self.get(topic, id) {
            return queue;
        }
        let key = QueueKey { topic: topic.clone(), id };
        // RocketMQ loads no directory in which a topic has queues of both kinds.
        let kind =
            self.topics.read().get(topic).and_then(|all| all.first()).map_or(kind, |other| other.kind());
        let state = self.places.new_state(&key, kind);
        let queue = Queue::new(key, state, Arc::clone(&self.waiting));
        let mut topics = self.topics.write();
        let queues = topics.entry(topic.clone()).or_default();
        // Another thread may have made it meanwhile.
        if let Some(queue) = find(queues, id) {
            return Arc::clone(queue);
        }
        let place = queues.partition_point(|other| other.key().id < id);
        queues.insert(place, Arc::clone(&queue));
        queue
    }

    /// Every queue, by topic and number.
    pub(crate) fn queues(&self) -> Vec<Arc<Queue>> {
        let mut all: Vec<_> = self.topics.read().values().flatten().cloned().collect();
        all.sort_by(|a, b| a.key().cmp(b.key()));
        all
    }

    /// How many queues there are of the topics for which `counts` says so.
    pub(crate) fn count(&self, counts: impl Fn(&str) -> bool) -> usize {
        self.topics.read().iter().filter(|(topic, _)| counts(topic)).map(|(_, queues)| queues.len()).sum()
    }

    /// From here on a file that is mapped is not read first.
    pub(crate) fn opened(&self) {
        self.places.disk.opened();
    }

    /// Recovers every queue. Says which files were too short and have been filled up with zeros.
    pub(crate) fn recover(&self) -> Result<Vec<(PathBuf, u64)>> {
        let mut short = Vec::new();
        for queue in self.queues() {
            short.append(&mut queue.recover()?);
        }
        Ok(short)
    }

    /// Removes a topic's queues with their files.
    pub(crate) fn remove_topic(&self, topic: &str) -> Result<()> {
        let Some((name, queues)) = self.topics.write().remove_entry(topic) else { return Ok(()) };
        queues.iter().try_for_each(|queue| queue.remove())?;
        let vfs = &*self.places.disk.vfs;
        for dir in Self::DIRS {
            let kind_dir = self.places.root.join(dir);
            let dir = kind_dir.join(name.as_str());
            if vfs.stat(&dir).map_err(Error::io("look at", &dir))?.is_some() {
                // What is not ours stays, and its directory with it.
                if list(vfs, &dir)?.is_empty() {
                    vfs.remove_dir(&dir).map_err(Error::io("remove", &dir))?;
                }
                vfs.sync_dir(&kind_dir).map_err(Error::io("sync", &kind_dir))?;
            }
        }
        Ok(())
    }

    /// Bytes of entries that wait in memory.
    #[cfg(test)]
    pub(crate) fn pending_bytes(&self) -> usize {
        self.waiting.bytes.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Writes every waiting entry through its file.
    #[cfg(test)]
    pub(crate) fn write_out(&self) -> Result<()> {
        self.write_out_from(0)
    }

    /// Writes the waiting entries of queues without a file, and of those in which `least` bytes or more wait. After an
    /// error the queues that were not written still wait.
    fn write_out_from(&self, least: usize) -> Result<()> {
        let list = std::mem::take(&mut *self.waiting.unwritten.lock());
        let mut outcome = Ok(());
        let mut later = Vec::new();
        for (weak, queue) in list.iter().filter_map(|weak| Some((weak, weak.upgrade()?))) {
            if least > 0 && queue.write_can_wait(least) {
                later.push(std::sync::Weak::clone(weak));
            } else {
                // The rest is tried too: another queue's file may have the space already.
                outcome = outcome.and(queue.write_out());
            }
        }
        self.waiting.unwritten.lock().append(&mut later);
        outcome
    }

    /// Bytes that have to wait in a queue for this turn to write them. With thousands of queues a write of a few entries
    /// costs more than all the rest of their way; the log has them.
    fn worth_writing(&self, timers: &mut Timers, all: bool) -> usize {
        timers.put_off += 1;
        if all || timers.put_off >= PUT_OFF || self.waiting.unwritten.lock().len() < MANY {
            timers.put_off = 0;
        }
        if timers.put_off == 0 { 0 } else { WORTH }
    }

    /// Where the log must begin at the latest, so that no queue forgets how far it counts: entries that wait in memory
    /// have their numbers from it alone, and of each queue the last one's record is enough.
    pub(crate) fn needs_log_from(&self) -> PhysicalOffset {
        let waiting = self.waiting.unwritten.lock();
        let ends = waiting.iter().filter_map(std::sync::Weak::upgrade).map(|queue| queue.max_physical());
        // Within the last record: a segment that ends there or before can go.
        ends.min().map_or(PhysicalOffset(i64::MAX), |end| PhysicalOffset(end.0 - 1))
    }

    /// One turn of the flush thread at `now` (monotonic): writes out, not all of it where there is much, and syncs what
    /// RocketMQ's timers say, or all with `force`. What was written is synced also where other queues could not be
    /// written. After a failed sync, of this turn or of a queue that began a file, every later turn fails as well.
    pub(crate) fn flush_step(&self, now: Duration, force: bool) -> Result<QueueFlush> {
        let mut timers = self.flush.lock();
        let since = |last: Option<Duration>| last.map_or(Duration::MAX, |last| now.saturating_sub(last));
        if !force && since(timers.last_turn) < timers.interval {
            return Ok(QueueFlush::default());
        }
        self.check_syncs()?;
        let thorough = force || since(timers.last_thorough) >= timers.thorough_interval;
        let worth = self.worth_writing(&mut timers, thorough);
        let written = self.write_out_from(worth);
        let files = self.sync(if thorough { 0 } else { timers.least_pages });
        let files = files.map_err(|error| self.places.disk.fail(error))?;
        written?;
        self.check_syncs()?;
        timers.last_turn = Some(now);
        timers.last_thorough = if thorough { Some(now) } else { timers.last_thorough };
        Ok(QueueFlush { files, thorough })
    }

    fn check_syncs(&self) -> Result<()> {
        self.places
            .disk
            .failed()
            .map_or(Ok(()), |why| Err(Error::Poisoned { at: PhysicalOffset::ZERO, why: why.to_owned() }))
    }

    fn sync(&self, least: u64) -> Result<usize> {
        let listed = std::mem::take(&mut *self.waiting.unsynced.lock());
        let due: Vec<(Arc<Queue>, Vec<SyncPoint>)> = listed
            .iter()
            .filter_map(std::sync::Weak::upgrade)
            .filter_map(|queue| queue.sync_points(least).map(|points| (queue, points)))
            .collect();
        let points = || due.iter().flat_map(|(_, points)| points);
        let files = points().map(|point| point.files.len()).sum();
        let outcome = if files > SYNC_EACH {
            let root = &self.places.root;
            self.places.disk.vfs.sync_all(root).map_err(Error::io("sync", root))
        } else {
            let dirs: BTreeSet<_> = points().flat_map(|point| &point.dirs).collect();
            let files = points().flat_map(|point| &point.files);
            // Innermost directories first: a name that is durable leads to something.
            files
                .map(|slot| self.sync_file(slot))
                .chain(dirs.iter().rev().map(|dir| self.sync_dir(dir)))
                .collect()
        };
        for (queue, points) in due {
            queue.synced(points, outcome.is_ok());
        }
        outcome.map(|()| files)
    }

    fn sync_file(&self, slot: &Arc<Slot>) -> Result<()> {
        match self.places.disk.table(slot) {
            Ok(table) => self.places.disk.sync_file(slot, &table),
            // Retention or the removal of a topic came first.
            Err(_) if !self.exists(&slot.path)? => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn sync_dir(&self, dir: &Path) -> Result<()> {
        if self.exists(dir)? { self.places.disk.sync_dir(dir) } else { Ok(()) }
    }

    fn exists(&self, path: &Path) -> Result<bool> {
        self.places.disk.vfs.stat(path).map(|entry| entry.is_some()).map_err(Error::io("look at", path))
    }

    /// Files of queues that are mapped now.
    #[cfg(test)]
    pub(super) fn mapped_files(&self) -> usize {
        self.places.disk.mapped()
    }
}

fn list(vfs: &dyn Vfs, dir: &Path) -> Result<Vec<DirEntry>> {
    vfs.list(dir).map_err(Error::io("list", dir))
}

fn find(queues: &[Arc<Queue>], id: QueueId) -> Option<&Arc<Queue>> {
    // Queues are numbered from 0 without gaps, as a rule.
    let guess = usize::try_from(id.0).ok().and_then(|i| queues.get(i)).filter(|queue| queue.key().id == id);
    guess
        .or_else(|| queues.binary_search_by_key(&id, |queue| queue.key().id).ok().and_then(|i| queues.get(i)))
}

/// A queue number as a directory is named by it: decimal, without sign or leading zeros.
fn queue_id(name: &str) -> Option<QueueId> {
    let id: i32 = name.parse().ok()?;
    (id >= 0 && id.to_string() == name).then_some(QueueId(id))
}
