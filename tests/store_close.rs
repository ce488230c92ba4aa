//! Closing while messages have just been put.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

use std::{fs, path::Path};

use reput::{Config, FlushDiskType, Message, Store};

/// Entries that stand in the files of a queue, read past the store: opening it would repair them.
fn entries_on_disk(root: &Path) -> usize {
    let dir = root.join("consumequeue/t/0");
    let files = fs::read_dir(dir).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap());
    files.map(|bytes| bytes.chunks(20).filter(|entry| entry[8..12] != [0; 4]).count()).sum()
}

/// The dispatcher had its end of the log from before the last puts when it was told to stop, called itself caught up
/// and ended; the queues of a cleanly closed store then lacked their last entries, which RocketMQ never repairs.
#[test]
fn what_was_put_just_before_closing_is_in_its_queue() {
    for round in 0..40 {
        let dir = tempfile::tempdir().unwrap();
        let flush = if round % 4 == 0 { FlushDiskType::Sync } else { FlushDiskType::Async };
        let config = Config::new(dir.path())
            .commit_log_file_size(1u64 << 20)
            .index_slots(64u32)
            .index_entries(4096u32)
            .flush_disk_type(flush);
        let store = Store::open(config).unwrap();
        let queue = store.queue("t", 0).unwrap();
        for _ in 0..200 + round {
            drop(store.put(&Message::new(queue, b"x").keys("k")).unwrap());
        }
        store.close().unwrap();
        assert_eq!(entries_on_disk(dir.path()), 200 + round);
    }
}
