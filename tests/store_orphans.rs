//! Bytes, fields and names that belong to nobody: `verify` finds each where it stands, `repair` clears what can be.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use reput::{
    Config, Message, Store,
    verify::{self, Finding, Kind, Level, Part, Progress},
};
use tempfile::TempDir;

const COUNT: u64 = 30;
const QUEUE_FILE: u64 = 20 * 1_000;
const SLOTS: u32 = 100;
const ENTRIES: u32 = 1_000;

/// A store that was closed, with room behind everything.
fn store() -> (TempDir, Config) {
    let dir = tempfile::tempdir().unwrap();
    let config = Config::new(dir.path())
        .commit_log_file_size(256_u64 << 10)
        .consume_queue_file_size(QUEUE_FILE)
        .consume_queue_ext(true)
        .consume_queue_ext_file_size(100_000_u64)
        .index_slots(SLOTS)
        .index_entries(ENTRIES);
    let store = Store::open(config.clone()).unwrap();
    let queue = store.queue("orders", 0).unwrap();
    for number in 0..COUNT {
        let key = format!("key-{number}");
        store.put(&Message::new(queue, b"paid").tags("tag").keys(&key)).unwrap().wait().unwrap();
    }
    store.close().unwrap();
    (dir, config)
}

fn findings(config: &Config) -> Vec<Finding> {
    let mut all = Vec::new();
    verify::verify(config.clone(), &mut |finding| all.push(finding.clone()), &mut |_| {}).unwrap();
    all
}

fn plant(path: &Path, at: u64, bytes: &[u8]) {
    OpenOptions::new().write(true).open(path).unwrap().write_all_at(bytes, at).unwrap();
}

fn read(path: &Path, at: u64) -> u8 {
    fs::read(path).unwrap()[usize::try_from(at).unwrap()]
}

fn index_file(config: &Config) -> PathBuf {
    fs::read_dir(config.root.join("index")).unwrap().next().unwrap().unwrap().path()
}

/// Where each byte is planted, and what it belongs to.
fn plants(config: &Config) -> Vec<(Part, PathBuf, u64)> {
    let path = |name: &str| config.root.join(name);
    let queue = path("consumequeue/orders/0/00000000000000000000");
    let ext = path("consumequeue_ext/orders/0/00000000000000000000");
    let log = path("commitlog/00000000000000000000");
    let index = index_file(config);
    let entries = 40 + 4 * u64::from(SLOTS);
    let count = i32::from_be_bytes(fs::read(&index).unwrap()[36..40].try_into().unwrap());
    let behind = entries + 20 * u64::try_from(count).unwrap();
    vec![
        // More zeros before it than recovery looks at.
        (Part::Queue, queue.clone(), 15_000),
        (Part::Queue, queue, QUEUE_FILE - 1),
        (Part::Queue, ext, 90_000),
        (Part::Index, index.clone(), entries),
        (Part::Index, index.clone(), entries + 19),
        (Part::Index, index.clone(), behind),
        (Part::Index, index, entries + 20 * u64::from(ENTRIES) - 1),
        (Part::Checkpoint, path("checkpoint"), 48),
        (Part::Checkpoint, path("checkpoint"), 2_000),
        (Part::Checkpoint, path("checkpoint"), 4_087),
        (Part::Log, log.clone(), 150_000),
        (Part::Log, log, (256 << 10) - 1),
    ]
}

#[test]
fn a_byte_that_belongs_to_nobody_is_found_where_it_stands_and_repaired() {
    let (_dir, config) = store();
    assert_eq!(findings(&config), []);
    for (part, path, at) in plants(&config) {
        plant(&path, at, &[0x5A]);
        let found = findings(&config);
        let [finding] = &*found else { panic!("{part:?} byte {at}: {found:#?}") };
        let said = (finding.level, finding.kind, finding.part, &finding.path, finding.at);
        assert_eq!(said, (Level::Damage, Kind::Orphan, part, &path, Some(at)), "{finding}");
        assert_eq!(read(&path, at), 0x5A, "verify changed it");

        let plan = verify::plan(config.clone()).unwrap();
        assert_eq!(read(&path, at), 0x5A, "the plan changed it");
        let done = verify::repair(config.clone()).unwrap();
        assert_eq!((&plan.repair.zeroed, &plan.repair.kept), (&done.zeroed, &done.kept));
        match part {
            Part::Queue | Part::Index => {
                let [zeroed] = &*done.zeroed else { panic!("{part:?} byte {at}: {done:#?}") };
                assert_eq!((&zeroed.path, zeroed.from, zeroed.to), (&path, at, at + 1));
            }
            Part::Log => assert!(done.kept.iter().any(|kept| kept.path.exists()), "{done:#?}"),
            _ => {}
        }
        assert_eq!(read(&path, at), 0, "{part:?} byte {at} is still there");
        let left: Vec<_> =
            findings(&config).into_iter().filter(|finding| finding.level == Level::Damage).collect();
        assert_eq!(left, []);
        fs::remove_dir_all(config.root.join("quarantine")).ok();
    }
}

#[test]
fn runs_of_orphan_bytes_are_told_apart_and_bounded() {
    let (_dir, config) = store();
    let path = config.root.join("consumequeue/orders/0/00000000000000000000");
    for number in 0..50 {
        plant(&path, 10_000 + 100 * number, &[1, 2, 0, 3]);
    }
    let found = findings(&config);
    assert_eq!(found.len(), 21, "{found:#?}");
    assert_eq!(found[1].at, Some(10_100));
    assert!(found[1].what.contains("4 bytes"), "{}", found[1]);
    assert!(found[20].what.contains("30 more"), "{}", found[20]);
    assert_eq!(verify::repair(config.clone()).unwrap().zeroed.len(), 50);
    assert_eq!(findings(&config), []);
}

#[test]
fn a_field_of_the_checkpoint_that_claims_more_than_the_log_holds_is_found() {
    let (_dir, config) = store();
    let checkpoint = config.root.join("checkpoint");
    let before = fs::read(&checkpoint).unwrap();
    let far = (1_i64 << 40).to_be_bytes();
    for (level, at, value, field) in [
        (Level::Damage, 0, (1_i64 << 60).to_be_bytes(), "physicMsgTimestamp"),
        (Level::Damage, 8, (1_i64 << 60).to_be_bytes(), "logicsMsgTimestamp"),
        (Level::Damage, 16, (1_i64 << 60).to_be_bytes(), "indexMsgTimestamp"),
        // A replica's master may be ahead of it.
        (Level::Note, 24, far, "masterFlushedOffset"),
        (Level::Damage, 32, far, "confirmPhyOffset"),
        (Level::Damage, 40, far, "logicsPhysicalOffset"),
        (Level::Damage, 4_088, far, "durableEnd"),
        (Level::Damage, 4_088, (-5_i64).to_be_bytes(), "durableEnd"),
    ] {
        plant(&checkpoint, at, &value);
        let found = findings(&config);
        let [finding] = &*found else { panic!("byte {at}: {found:#?}") };
        let said = (finding.level, finding.kind, finding.part, finding.at);
        assert_eq!(said, (level, Kind::Field, Part::Checkpoint, Some(at)), "{finding}");
        assert!(finding.what.contains(field), "{finding}");
        if level == Level::Damage {
            let done = verify::repair(config.clone()).unwrap();
            assert!(done.checkpoint.iter().any(|change| change.field == field), "{done:#?}");
            assert_eq!(findings(&config), []);
        }
        fs::write(&checkpoint, &before).unwrap();
    }
}

#[test]
fn names_that_are_none_of_a_stores_are_told_and_left_alone() {
    let (_dir, config) = store();
    let names = [
        "stray",
        "commitlog/stray",
        "consumequeue/orders/0/stray",
        "consumequeue/orders/stray",
        "index/stray",
        "quarantine/stray",
        "timerlog/stray",
    ];
    for name in names {
        fs::create_dir_all(config.root.join(name).parent().unwrap()).unwrap();
        fs::write(config.root.join(name), b"?").unwrap();
    }
    let mut told: Vec<_> = findings(&config)
        .into_iter()
        .filter(|finding| (finding.level, finding.kind) == (Level::Note, Kind::Stranger))
        .map(|finding| finding.path)
        .collect();
    told.sort();
    let mut all = names.map(|name| config.root.join(name)).to_vec();
    all.sort();
    assert_eq!(told, all);
}

#[test]
fn progress_counts_the_log_twice_and_never_goes_back() {
    let (_dir, config) = store();
    let mut told: Vec<Progress> = Vec::new();
    verify::verify(config.clone(), &mut |_| {}, &mut |now| told.push(now)).unwrap();
    let (first, last) = (told[0], told[told.len() - 1]);
    assert_eq!((first.done, last.done), (0, last.total));
    assert!(told.is_sorted_by_key(|now| now.done), "{told:?}");
    assert!(told.iter().all(|now| now.total == first.total), "{told:?}");
    let status = Store::open(config).unwrap().status();
    let log = u64::try_from(status.max_offset.0).unwrap();
    assert!(first.total >= 2 * log, "{} of {log}", first.total);
}

/// The plan, over an overlay, has no proof that a file is untouched; what is done must be the same.
#[test]
fn a_repair_reads_everything_also_where_cleanstop_proves_that_it_need_not() {
    let (_dir, config) = store();
    for _ in 0..2 {
        let plan = verify::plan(config.clone()).unwrap();
        let done = verify::repair(config.clone()).unwrap();
        assert!(config.root.join("cleanStop").exists());
        assert_eq!((plan.repair.recovery.records, done.recovery.records), (COUNT, COUNT));
        assert!(!done.recovery.untouched);
    }
}
