//! A store that was closed and that nobody has touched since is taken over without being read; any other is read.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::Duration,
};

use reput::{Config, Message, QueueOffset, Store, SysFlag};
use tempfile::TempDir;

const COUNT: usize = 200;

fn config(dir: &Path) -> Config {
    Config::new(dir)
        .commit_log_file_size(16u64 << 10)
        .consume_queue_file_size(600u64)
        .consume_queue_ext_file_size(4096u64)
        .batch_consume_queue_file_size(460u64)
        .index_slots(64u32)
        .index_entries(100u32)
}

fn body(number: usize) -> Vec<u8> {
    format!("message {number:06} ").repeat(8).into_bytes()
}

fn put(store: &Store, from: usize, count: usize) {
    for number in from..from + count {
        let queue = store.queue(["a", "b topic c"][number % 2], 0).unwrap();
        let message = body(number);
        let message = Message::new(queue, &message).tags("tag").keys(&format!("k{number}"));
        store.put(&message).unwrap().wait().unwrap();
    }
    assert!(store.wait_dispatched(Duration::from_secs(30)).unwrap());
}

/// Every message is in its queue, in order, and found by its key; there is no other.
fn holds(store: &Store, count: usize) {
    for (n, topic) in ["a", "b topic c"].into_iter().enumerate() {
        let queue = store.queue(topic, 0).unwrap();
        let (mut at, mut number) = (QueueOffset::ZERO, n);
        while at < store.max_offset(queue) {
            let got = store.get(queue, at).unwrap();
            for message in &got.messages {
                assert_eq!(message.body(), body(number), "{topic} at {at}");
                let hits = store.query(topic, &format!("k{number}")).unwrap();
                assert_eq!(hits.len(), 1, "k{number}");
                number += 2;
            }
            at = got.next_offset;
        }
        assert_eq!(number, count + n, "{topic}");
    }
}

fn closed() -> TempDir {
    let dir = TempDir::new().unwrap();
    let store = Store::open(config(dir.path())).unwrap();
    put(&store, 0, COUNT);
    store.close().unwrap();
    dir
}

/// Every file of a directory, the largest first.
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
fn an_untouched_store_is_not_read_and_goes_on_where_it_was() {
    let dir = closed();
    let mut count = COUNT;
    for _ in 0..3 {
        let store = Store::open(config(dir.path())).unwrap();
        assert!(store.recovery_report().untouched && store.recovery_report().is_clean());
        assert!(!dir.path().join("cleanStop").exists(), "the proof is gone while the store is open");
        holds(&store, count);
        put(&store, count, 70);
        count += 70;
        holds(&store, count);
        store.close().unwrap();
    }
    // A whole pass over the log finds the same.
    File::create(dir.path().join("abort")).unwrap();
    let store = Store::open(config(dir.path())).unwrap();
    assert!(!store.recovery_report().untouched);
    assert!(store.recovery_report().is_clean(), "{}", store.recovery_report());
    assert_eq!(store.recovery_report().records, count as u64);
    holds(&store, count);
    store.close().unwrap();
    let whole = reput::verify::verify(config(dir.path()), &mut |finding| println!("{finding}"), &mut |_| {});
    assert!(whole.unwrap().is_whole());
}

#[test]
fn a_byte_written_anywhere_makes_the_next_open_read_everything() {
    let kinds = ["commitlog", "consumequeue", "index"];
    let count: Vec<usize> = {
        let dir = closed();
        kinds.iter().map(|kind| files(dir.path().join(kind)).len()).collect()
    };
    for (kind, count) in kinds.into_iter().zip(count) {
        assert!(count > 1, "{kind} has several files");
        for number in [0, count - 1] {
            let dir = closed();
            let path = &files(dir.path().join(kind))[number];
            let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
            // The same byte again: it is the write that counts.
            let mut byte = [0];
            file.read_exact_at(&mut byte, 100).unwrap();
            file.write_all_at(&byte, 100).unwrap();
            drop(file);
            let store = Store::open(config(dir.path())).unwrap();
            assert!(!store.recovery_report().untouched, "{kind} {number}");
            assert_eq!(store.recovery_report().records, COUNT as u64, "{kind} {number}");
            holds(&store, COUNT);
        }
    }
}

#[test]
fn damage_done_while_the_store_was_closed_is_mended() {
    for kind in ["consumequeue", "index"] {
        for number in [0, 1] {
            let dir = closed();
            let path = &files(dir.path().join(kind))[number];
            let file = OpenOptions::new().write(true).open(path).unwrap();
            file.write_all_at(&[0x55; 200], 40).unwrap();
            let store = Store::open(config(dir.path())).unwrap();
            assert!(!store.recovery_report().is_clean(), "{kind} {number}");
            holds(&store, COUNT);
        }
    }
}

#[test]
fn whatever_does_not_fit_makes_the_next_open_read_everything() {
    type Change = fn(&Path);
    let changes: [(&str, Change); 11] = [
        ("abort is there", |dir| fs::write(dir.join("abort"), "4711").unwrap()),
        ("the proof is gone", |dir| fs::remove_file(dir.join("cleanStop")).unwrap()),
        ("the proof is cut", |dir| {
            let file = OpenOptions::new().write(true).open(dir.join("cleanStop")).unwrap();
            file.set_len(file.metadata().unwrap().len() / 2).unwrap();
        }),
        ("the proof is no text", |dir| fs::write(dir.join("cleanStop"), [0xff; 64]).unwrap()),
        ("the checkpoint is gone", |dir| fs::remove_file(dir.join("checkpoint")).unwrap()),
        ("a topic is gone", |dir| fs::remove_dir_all(dir.join("consumequeue/a")).unwrap()),
        ("a queue file is gone", |dir| fs::remove_file(&files(dir.join("consumequeue"))[0]).unwrap()),
        ("the index is gone", |dir| fs::remove_dir_all(dir.join("index")).unwrap()),
        ("there is another topic", |dir| fs::create_dir_all(dir.join("consumequeue/z/0")).unwrap()),
        ("there is another file of the index", |dir| {
            fs::write(dir.join("index/99999999999999999"), [0; 100]).unwrap();
        }),
        ("there is another file in the log", |dir| fs::write(dir.join("commitlog/note"), "x").unwrap()),
    ];
    for (what, change) in changes {
        let dir = closed();
        change(dir.path());
        let store = Store::open(config(dir.path())).unwrap();
        assert!(!store.recovery_report().untouched, "{what}");
        assert_eq!(store.recovery_report().records, COUNT as u64, "{what}");
        holds(&store, COUNT);
    }
}

/// Options decide which entries records make and which records count, so that what was right may be so no longer.
#[test]
fn other_options_make_the_next_open_read_everything() {
    let dir = closed();
    let changed = config(dir.path()).force_verify_prop_crc(true);
    for (config, untouched) in
        [(changed.clone(), false), (changed.clone(), true), (changed.file_reserved_hours(1u64), true)]
    {
        let store = Store::open(config).unwrap();
        assert_eq!(store.recovery_report().untouched, untouched);
        holds(&store, COUNT);
        store.close().unwrap();
    }
}

/// A copy has the same bytes under other stamps, whatever times it was given.
#[test]
fn a_copy_of_the_directory_is_read() {
    let (dir, copy) = (closed(), TempDir::new().unwrap());
    for path in files(dir.path().to_path_buf()) {
        let to = copy.path().join(path.strip_prefix(dir.path()).unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(&path, &to).unwrap();
        File::options()
            .write(true)
            .open(&to)
            .unwrap()
            .set_modified(path.metadata().unwrap().modified().unwrap())
            .unwrap();
    }
    let store = Store::open(config(copy.path())).unwrap();
    assert!(!store.recovery_report().untouched);
    holds(&store, COUNT);
}

#[test]
fn a_store_with_damage_is_read_every_time() {
    let dir = closed();
    let first = &files(dir.path().join("commitlog"))[0];
    let bytes = fs::read(first).unwrap();
    let at = bytes.windows(9).position(|window| window == b"message 0").unwrap();
    OpenOptions::new().write(true).open(first).unwrap().write_all_at(b"M", at as u64).unwrap();
    for _ in 0..3 {
        let store = Store::open(config(dir.path())).unwrap();
        assert!(!store.recovery_report().untouched);
        assert_eq!(store.recovery_report().damage.len(), 1, "readers must know of it");
        store.close().unwrap();
    }
}

#[test]
fn batch_queues_and_their_numbers_are_taken_over() {
    let dir = TempDir::new().unwrap();
    let open = || Store::open(config(dir.path())).unwrap();
    let put = |store: &Store| {
        let queue = store.batch_queue("batched", 2).unwrap();
        for n in 0..30 {
            let count = (n % 3 + 1).to_string();
            let message = Message::new(queue, b"inner").property("INNER_NUM", &count);
            let message = message.sys_flag(SysFlag(SysFlag::INNER_BATCH));
            store.put(&message).unwrap().wait().unwrap();
        }
        assert!(store.wait_dispatched(Duration::from_secs(30)).unwrap());
        (store.min_offset(queue), store.max_offset(queue))
    };
    let store = open();
    let before = put(&store);
    store.close().unwrap();
    let store = open();
    assert!(store.recovery_report().untouched);
    let queue = store.batch_queue("batched", 2).unwrap();
    assert_eq!((store.min_offset(queue), store.max_offset(queue)), before);
    assert_eq!(store.get(queue, QueueOffset::ZERO).unwrap().messages[0].body(), b"inner");
    let after = put(&store);
    assert_eq!(after.1.0 - before.1.0, before.1.0 - before.0.0);
    store.close().unwrap();
    File::create(dir.path().join("abort")).unwrap();
    let store = open();
    assert!(store.recovery_report().is_clean(), "{}", store.recovery_report());
}

#[test]
fn ext_units_are_taken_over() {
    let dir = TempDir::new().unwrap();
    let config = || config(dir.path()).consume_queue_ext(true);
    let mut count = 0;
    for round in 0..3 {
        let store = Store::open(config()).unwrap();
        assert_eq!(store.recovery_report().untouched, round > 0);
        holds(&store, count);
        put(&store, count, COUNT);
        count += COUNT;
        store.close().unwrap();
    }
    assert!(files(dir.path().join("consumequeue_ext")).len() > 2);
    File::create(dir.path().join("abort")).unwrap();
    let store = Store::open(config()).unwrap();
    assert!(store.recovery_report().is_clean(), "{}", store.recovery_report());
    holds(&store, count);
}
