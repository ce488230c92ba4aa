//! After a kill recovery begins at the segment that `agreed` names, while its files are what they were; with any other
//! it begins at the first record and finds the same.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use reput::{Config, Message, PhysicalOffset, QueueOffset, Steps, Store, SystemClock, vfs::OsVfs};
use tempfile::TempDir;

const SEGMENT: u64 = 16 << 10;
const COUNT: usize = 400;
const TOPICS: [&str; 2] = ["a", "b topic c"];

fn config(dir: &Path) -> Config {
    Config::new(dir)
        .commit_log_file_size(SEGMENT)
        .consume_queue_file_size(600u64)
        .index_slots(64u32)
        .index_entries(100u32)
}

fn open(dir: &Path) -> (Store, Steps) {
    Store::open_stepped(config(dir), Arc::new(OsVfs), Arc::new(SystemClock::new())).unwrap()
}

fn body(number: usize) -> Vec<u8> {
    format!("message {number:06} ").repeat(8).into_bytes()
}

/// Puts messages, each dispatched, with a round of upkeep every 20.
fn put(store: &Store, steps: &mut Steps, numbers: std::ops::Range<usize>) {
    for number in numbers {
        let queue = store.queue(TOPICS[number % 2], 0).unwrap();
        let message = body(number);
        let message = Message::new(queue, &message).tags("tag").keys(&format!("k{number}"));
        store.put(&message).unwrap().wait().unwrap();
        while steps.reput().unwrap() {}
        if number % 20 == 19 {
            store.sync().unwrap();
            steps.upkeep().unwrap();
        }
    }
}

/// A store that was killed, and where the segment starts at which recovery may begin.
fn killed() -> (TempDir, PhysicalOffset) {
    let dir = TempDir::new().unwrap();
    let (store, mut steps) = open(dir.path());
    put(&store, &mut steps, 0..COUNT);
    let end = store.status().max_offset;
    drop((store, steps));
    let text = fs::read_to_string(dir.path().join("agreed")).unwrap();
    let from = text.lines().find_map(|line| line.strip_prefix("from ")).unwrap().parse().unwrap();
    let from = PhysicalOffset(from);
    assert!(from.get() > 0 && end.since(from) < 2 * SEGMENT, "{from} of {end}");
    (dir, from)
}

/// Every message is in its queue, in order, and found by its key; there is no other.
fn holds(store: &Store, count: usize) {
    for (n, topic) in TOPICS.into_iter().enumerate() {
        let queue = store.queue(topic, 0).unwrap();
        let (mut at, mut number) = (QueueOffset::ZERO, n);
        while at < store.max_offset(queue) {
            let got = store.get(queue, at).unwrap();
            for message in &got.messages {
                assert_eq!(message.body(), body(number), "{topic} at {at}");
                assert_eq!(store.query(topic, &format!("k{number}")).unwrap().len(), 1, "k{number}");
                number += 2;
            }
            at = got.next_offset;
        }
        assert_eq!(number, count + n, "{topic}");
    }
}

/// Opens the store; where recovery began.
fn began(dir: &Path, count: usize) -> PhysicalOffset {
    let (store, _steps) = open(dir);
    holds(&store, count);
    assert!(!dir.join("agreed").exists(), "it is gone once the store is open");
    store.recovery_report().start
}

fn files(dir: PathBuf) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { all.extend(files(path)) } else { all.push(path) }
    }
    all.sort();
    all
}

#[test]
fn recovery_begins_where_all_before_is_on_the_disk_and_the_store_goes_on() {
    let (dir, from) = killed();
    let (store, mut steps) = open(dir.path());
    let report = store.recovery_report();
    assert_eq!(report.start, from);
    assert!(report.damage.is_empty() && report.torn.is_none(), "{report}");
    assert!(report.records < COUNT as u64 / 4, "{report}");
    holds(&store, COUNT);
    put(&store, &mut steps, COUNT..COUNT + 100);
    holds(&store, COUNT + 100);
    drop((store, steps));
    // And once more, from further behind; then a whole pass finds the same.
    assert!(began(dir.path(), COUNT + 100) > from);
    assert_eq!(
        began(dir.path(), COUNT + 100),
        PhysicalOffset::ZERO,
        "nothing is agreed before the first upkeep"
    );
    let whole = reput::verify::verify(config(dir.path()), &mut |finding| println!("{finding}"), &mut |_| {});
    assert_eq!(whole.unwrap().damage, 0);
}

#[test]
fn keys_that_the_kill_took_are_made_again() {
    let (dir, from) = killed();
    // The newest index file as it was before its last entries.
    let path = files(dir.path().join("index")).pop().unwrap();
    let len = usize::try_from(fs::metadata(&path).unwrap().len()).unwrap();
    let at = 40 + 64 * 4 + 20 * 10;
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&vec![0; len - at], at as u64).unwrap();
    assert_eq!(began(dir.path(), COUNT), from);
}

#[test]
fn a_finished_file_that_was_written_to_makes_recovery_read_everything() {
    for kind in ["commitlog", "consumequeue", "index"] {
        let (dir, _) = killed();
        let path = files(dir.path().join(kind)).swap_remove(0);
        let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
        // The same byte again: it is the write that counts.
        let mut byte = [0];
        file.read_exact_at(&mut byte, 100).unwrap();
        file.write_all_at(&byte, 100).unwrap();
        drop(file);
        assert_eq!(began(dir.path(), COUNT), PhysicalOffset::ZERO, "{kind}");
    }
}

#[test]
fn a_flipped_byte_of_a_finished_segment_is_found_as_damage() {
    let (dir, _) = killed();
    let path = files(dir.path().join("commitlog")).swap_remove(0);
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 120).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 120).unwrap();
    drop(file);
    let (store, _steps) = open(dir.path());
    assert_eq!(store.recovery_report().damage.len(), 1);
}

#[test]
fn without_one_of_its_files_it_is_not_believed() {
    for gone in ["consumequeue", "index", "checkpoint", "agreed", "consumequeue/a"] {
        let (dir, _) = killed();
        let path = dir.path().join(gone);
        if path.is_dir() {
            fs::remove_dir_all(path).unwrap()
        } else {
            fs::remove_file(path).unwrap()
        }
        assert_eq!(began(dir.path(), COUNT), PhysicalOffset::ZERO, "{gone}");
    }
}

#[test]
fn it_is_not_believed_when_abort_is_of_another_process() {
    let (dir, _) = killed();
    // As a broker of RocketMQ's does that opens the directory in between and is killed, too.
    let abort = dir.path().join("abort");
    fs::remove_file(&abort).unwrap();
    File::create(&abort).unwrap();
    assert_eq!(began(dir.path(), COUNT), PhysicalOffset::ZERO);
}

#[test]
fn a_copy_and_a_changed_setting_are_read_whole() {
    let (dir, _) = killed();
    let copy = TempDir::new().unwrap();
    for path in files(dir.path().into()) {
        let to = copy.path().join(path.strip_prefix(dir.path()).unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(path, to).unwrap();
    }
    assert_eq!(began(copy.path(), COUNT), PhysicalOffset::ZERO);
    let other = config(dir.path()).force_verify_prop_crc(true);
    let (store, _steps) = Store::open_stepped(other, Arc::new(OsVfs), Arc::new(SystemClock::new())).unwrap();
    assert_eq!(store.recovery_report().start, PhysicalOffset::ZERO);
    holds(&store, COUNT);
}

#[test]
fn a_running_store_agrees_by_itself() {
    let dir = TempDir::new().unwrap();
    let store = Store::open(config(dir.path())).unwrap();
    let queues = TOPICS.map(|topic| store.queue(topic, 0).unwrap());
    for number in 0..COUNT {
        let message = body(number);
        let message = Message::new(queues[number % 2], &message).tags("tag").keys(&format!("k{number}"));
        store.put(&message).unwrap().wait().unwrap();
    }
    let agreed = dir.path().join("agreed");
    for _ in 0..300 {
        if agreed.exists() {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(agreed.exists());
    store.close().unwrap();
    assert!(Store::open(config(dir.path())).unwrap().recovery_report().untouched);
}

/// Somebody cuts a queue file while the store is open: what was in it is made again from the log, whatever is written to the
/// file afterwards.
#[test]
fn a_queue_file_that_was_cut_under_the_store_is_made_again() {
    for left in [0, 200, 580] {
        let dir = TempDir::new().unwrap();
        let sizes = |dir: &Path| config(dir).consume_queue_file_size(20_000u64);
        let open =
            || Store::open_stepped(sizes(dir.path()), Arc::new(OsVfs), Arc::new(SystemClock::new())).unwrap();
        let (store, mut steps) = open();
        put(&store, &mut steps, 0..COUNT);
        let path = dir.path().join("consumequeue/a/0/00000000000000000000");
        assert!(dir.path().join("agreed").exists());
        OpenOptions::new().write(true).open(&path).unwrap().set_len(left).unwrap();
        // More than a segment, with upkeep that may say that it noticed.
        for number in COUNT..COUNT + 150 {
            let message = body(number);
            let queue = store.queue(TOPICS[number % 2], 0).unwrap();
            store
                .put(&Message::new(queue, &message).tags("tag").keys(&format!("k{number}")))
                .unwrap()
                .wait()
                .unwrap();
            while steps.reput().unwrap() {}
            if number % 20 == 19 {
                store.sync().unwrap();
                let _ = steps.upkeep();
            }
        }
        drop((store, steps));
        let (store, _steps) = open();
        holds(&store, COUNT + 150);
    }
}
