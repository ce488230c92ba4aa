//! A written store, ways to damage it, and the question what is left.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, OpenOptions},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::Duration,
};

use reput::{Config, Message, QueueOffset, Store};
use tempfile::TempDir;

pub const SEGMENT: usize = 64 << 10;
pub const COUNT: usize = 300;
pub const ENTRY: u64 = 20;

/// A message as it was put.
#[derive(Clone, Copy, Debug)]
pub struct Put {
    pub at: usize,
    pub size: usize,
}

pub struct Rig {
    pub dir: TempDir,
    pub puts: Vec<Put>,
}

pub fn config(dir: &Path) -> Config {
    Config::new(dir)
        .commit_log_file_size(SEGMENT as u64)
        .consume_queue_file_size(300 * ENTRY)
        .index_slots(100_u32)
        .index_entries(128_u32)
}

pub fn body(number: usize) -> Vec<u8> {
    let mut body = format!("message {number:06} ").into_bytes();
    body.resize(1000, b'.');
    body
}

pub fn key(number: usize) -> String {
    format!("key-{number}")
}

impl Rig {
    /// A store with all messages that was closed.
    pub fn closed() -> Self {
        let (rig, store) = Self::open_store();
        store.close().unwrap();
        rig
    }

    /// A store with all messages whose process was killed when everything had been written out.
    pub fn killed() -> Self {
        let rig = Self::closed();
        fs::write(rig.path("abort"), "4711").unwrap();
        rig
    }

    pub fn open_store() -> (Self, Store) {
        let mut rig = Self { dir: TempDir::new().unwrap(), puts: Vec::new() };
        let store = rig.open();
        for number in 0..COUNT {
            rig.put(&store, number);
        }
        assert!(store.wait_dispatched(Duration::from_secs(30)).unwrap());
        store.sync().unwrap();
        (rig, store)
    }

    pub fn put(&mut self, store: &Store, number: usize) {
        let queue = store.queue("TopicA", 0).unwrap();
        let appended = store.put(&Message::new(queue, &body(number)).tags("tag").keys(&key(number))).unwrap();
        let at = usize::try_from(appended.physical_offset().0).unwrap();
        self.puts.push(Put { at, size: appended.size() });
        appended.wait().unwrap();
    }

    pub fn config(&self) -> Config {
        config(self.dir.path())
    }

    pub fn open(&self) -> Store {
        Store::open(self.config()).unwrap()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn segment(&self, number: usize) -> PathBuf {
        self.path(&format!("commitlog/{:020}", number * SEGMENT))
    }

    pub fn queue_file(&self) -> PathBuf {
        self.path("consumequeue/TopicA/0/00000000000000000000")
    }

    pub fn log(&self, at: usize, len: usize) -> Vec<u8> {
        fs::read(self.segment(at / SEGMENT)).unwrap()[at % SEGMENT..][..len].to_vec()
    }

    /// Overwrites bytes of the log.
    pub fn patch(&self, at: usize, bytes: &[u8]) {
        patch(&self.segment(at / SEGMENT), (at % SEGMENT) as u64, bytes);
    }

    /// Flips a bit in the body of a message.
    pub fn flip(&self, number: usize) {
        let put = self.puts[number];
        let at = put.at + 300;
        let byte = self.log(at, 1)[0];
        self.patch(at, &[byte ^ 1]);
    }

    /// The last message of the segment that holds message `number`.
    pub fn last_in_segment(&self, number: usize) -> usize {
        let segment = self.puts[number].at / SEGMENT;
        self.puts.iter().rposition(|put| put.at / SEGMENT == segment).unwrap()
    }

    /// Opens the store and checks that exactly the messages in `lost` are gone, from queue, index and log; that the
    /// next message gets the next number; and that opening again finds nothing to do and the same messages.
    pub fn lost_is(&self, lost: impl IntoIterator<Item = usize>) {
        let lost: BTreeSet<usize> = lost.into_iter().collect();
        let store = self.open();
        let report = store.recovery_report().clone();
        self.serves_all_but(&store, &lost);
        store.close().unwrap();
        let store = self.open();
        assert!(store.recovery_report().is_clean(), "first {report}\nthen {}", store.recovery_report());
        self.serves_all_but(&store, &lost);
        store.close().unwrap();
        let summary =
            reput::verify::verify(self.config(), &mut |finding| println!("{finding}"), &mut |_| {}).unwrap();
        assert!(summary.is_whole(), "{summary:?} after {report}");
    }

    pub fn serves_all_but(&self, store: &Store, lost: &BTreeSet<usize>) {
        let served = served(store);
        for number in 0..self.puts.len() {
            let hits = store.query("TopicA", &key(number)).unwrap();
            if lost.contains(&number) {
                assert!(!served.values().any(|text| *text == body(number)), "message {number} came back");
                assert!(hits.is_empty(), "message {number} came back by its key");
            } else {
                let found = served.get(&(number as i64));
                assert!(
                    found == Some(&body(number)),
                    "message {number} is lost: {}",
                    store.recovery_report()
                );
                assert_eq!(hits.len(), 1, "message {number} by its key");
            }
        }
        assert_eq!(served.len(), self.puts.len() - lost.len(), "messages that nobody put");
    }
}

/// All messages of the queue by number.
pub fn served(store: &Store) -> BTreeMap<i64, Vec<u8>> {
    let Some(queue) = store.find_queue("TopicA", 0) else { return BTreeMap::new() };
    let mut all = BTreeMap::new();
    let mut at = store.min_offset(queue);
    while at < store.max_offset(queue) {
        let got = store.get(queue, at).unwrap();
        assert!(got.next_offset > at, "a reader would ask for {at} for ever");
        at = got.next_offset;
        for message in &got.messages {
            let number = message.record().queue_offset;
            assert_eq!(message.queue_offset(), number, "an entry leads to another message");
            all.insert(number.0, message.body().to_vec());
        }
    }
    all
}

pub fn max_offset(store: &Store) -> QueueOffset {
    store.max_offset(store.queue("TopicA", 0).unwrap())
}

pub fn patch(path: &Path, at: u64, bytes: &[u8]) {
    OpenOptions::new().write(true).open(path).unwrap().write_all_at(bytes, at).unwrap();
}

pub fn cut(path: &Path, len: u64) {
    File::options().write(true).open(path).unwrap().set_len(len).unwrap();
}

/// Every file below `dir` with its bytes.
pub fn snapshot(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(snapshot(&path));
        } else if !path.ends_with("lock") {
            // To close any descriptor of that file gives the process's lock up.
            all.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    all
}
