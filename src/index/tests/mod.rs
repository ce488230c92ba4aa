//! Tests of the index as a whole, over real files.

use std::{io::ErrorKind, path::Path, sync::Arc};

use tempfile::TempDir;

use super::*;
use crate::{
    clock::ManualClock,
    config::Config,
    format::hash::index_key_hash,
    vfs::{
        OsVfs,
        faulty::{Call, FaultyVfs},
    },
};

mod golden;
mod model;

const START: StoreTimestamp = StoreTimestamp(1_795_240_627_417);
const ALWAYS: (StoreTimestamp, StoreTimestamp) = (StoreTimestamp(0), StoreTimestamp(i64::MAX));

/// Files of seven slots and nine entries.
fn config(root: &Path) -> Config {
    Config::new(root).index_slots(7u32).index_entries(10u32)
}

fn open(config: &Config) -> IndexSet {
    IndexSet::load(Arc::new(OsVfs), config, Arc::new(ManualClock::new(START))).unwrap()
}

fn put(key: &str, offset: i64, ms: i64) -> KeyPut {
    KeyPut {
        hash: index_key_hash("t", None, key),
        offset: PhysicalOffset(offset),
        store_timestamp: StoreTimestamp(START.0 + ms),
    }
}

fn query(index: &IndexSet, key: &str) -> Vec<i64> {
    index.query("t", key, None, 64, ALWAYS.0, ALWAYS.1).offsets.iter().map(|offset| offset.0).collect()
}

/// A key for each of `records` records, 100 bytes and 100 ms apart, of 5 names.
fn some(records: std::ops::Range<i64>) -> Vec<KeyPut> {
    records.map(|i| put(&format!("k{}", i % 5), i * 100, i * 100)).collect()
}

fn sound(index: &IndexSet) -> bool {
    (0..index.files().len()).all(|number| index.check(number) == Soundness::Sound)
}

fn paths(dir: &TempDir) -> Vec<PathBuf> {
    let Ok(names) = std::fs::read_dir(dir.path().join("index")) else { return Vec::new() };
    let mut paths: Vec<_> = names.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

#[test]
fn keys_are_found_newest_first_over_all_files() {
    let dir = TempDir::new().unwrap();
    let index = open(&config(dir.path()));
    assert_eq!((query(&index, "k0"), index.end_offset()), (vec![], None));
    index.put(&some(0..30)).unwrap();
    assert_eq!(query(&index, "k1"), [2600, 2100, 1600, 1100, 600, 100]);
    assert_eq!(query(&index, "none"), [0i64; 0]);
    let hits = index.query("t", "k1", None, 2, ALWAYS.0, ALWAYS.1);
    assert_eq!(hits.offsets, [PhysicalOffset(2600), PhysicalOffset(2100)]);
    assert_eq!(
        (hits.last_update_offset, hits.last_update_timestamp),
        (PhysicalOffset(2900), put("", 0, 2900).store_timestamp)
    );
    // Files are named by the clock, which stands still, yet differently.
    let names: Vec<_> = index.files().into_iter().map(|file| file.name).collect();
    assert_eq!(names, ["20261121055707417", "20261121055707418", "20261121055707419", "20261121055707420"]);
    assert!(sound(&index));
    let again = open(&config(dir.path()));
    assert_eq!((query(&again, "k4"), again.end_offset()), (query(&index, "k4"), Some(PhysicalOffset(2900))));
}

#[test]
fn a_query_keeps_to_its_time_and_its_limit() {
    let dir = TempDir::new().unwrap();
    let index = open(&config(dir.path()).max_query_messages(3usize));
    let keys: Vec<_> = (0..9).map(|i| put("k", i * 100, i * 1000)).collect();
    index.put(&keys).unwrap();
    let at = |s: i64| StoreTimestamp(START.0 + s * 1000);
    let find = |max, begin, end| {
        let found = index.query("t", "k", None, max, at(begin), at(end)).offsets;
        found.iter().map(|offset| offset.0).collect::<Vec<_>>()
    };
    assert_eq!(find(64, 0, 99), [800, 700, 600], "maxMsgsNumBatch caps");
    assert_eq!(find(2, 2, 4), [400, 300]);
    assert_eq!(find(64, 7, 99), [800, 700]);
    assert_eq!(find(64, 99, 100), [0i64; 0]);
    assert_eq!(find(64, -9, -1), [0i64; 0]);
    let tag = KeyPut { hash: index_key_hash("t", Some("T"), "eu"), ..put("", 900, 9000) };
    index.put(&[tag]).unwrap();
    assert_eq!(index.query("t", "eu", Some("T"), 1, ALWAYS.0, ALWAYS.1).offsets, [PhysicalOffset(900)]);
    assert_eq!(query(&index, "eu"), [0i64; 0]);
}

#[test]
fn records_given_again_are_not_indexed_twice_but_completed() {
    let dir = TempDir::new().unwrap();
    let index = open(&config(dir.path()));
    let record = [put("a", 100, 0), put("b", 100, 0), put("a", 100, 0)];
    index.put(&some(0..1)).unwrap();
    index.put(&record[..1]).unwrap();
    for _ in 0..2 {
        index.put(&record).unwrap();
        index.put(&some(0..1)).unwrap();
        assert_eq!((query(&index, "a"), query(&index, "b")), (vec![100, 100], vec![100]));
    }
    let index = open(&config(dir.path()));
    index.put(&record).unwrap();
    index.put(&some(0..3)).unwrap();
    assert_eq!(
        (query(&index, "a"), query(&index, "b"), query(&index, "k1")),
        (vec![100, 100], vec![100], vec![])
    );
    // A record whose keys lie on both sides of a roll is complete, too.
    let long: Vec<_> = (0..12).map(|_| put("long", 300, 0)).collect();
    index.put(&long).unwrap();
    index.put(&long).unwrap();
    assert_eq!(query(&open(&config(dir.path())), "long").len(), 12);
    open(&config(dir.path())).put(&long).unwrap();
    assert_eq!(query(&open(&config(dir.path())), "long").len(), 12);
}

#[test]
fn cutting_the_log_leaves_an_index_that_never_saw_the_rest() {
    for keep in [0, 1, 8, 9, 10, 17, 18, 25, 29, 30] {
        let (dir, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let index = open(&config(dir.path()));
        index.put(&some(0..30)).unwrap();
        index.truncate_from(PhysicalOffset(keep * 100)).unwrap();
        let short = open(&config(other.path()));
        short.put(&some(0..keep)).unwrap();
        assert!(sound(&index), "{keep}");
        let bytes = |dir: &TempDir| -> Vec<Vec<u8>> {
            let files = paths(dir).into_iter().map(|path| std::fs::read(path).unwrap());
            // The time of the last entry is only known to the second after a cut.
            files.map(|bytes| [&bytes[..8], &bytes[16..]].concat()).collect()
        };
        assert!(bytes(&dir) == bytes(&other), "{keep}");
        index.put(&some(0..30)).unwrap();
        assert_eq!(query(&index, "k1"), [2600, 2100, 1600, 1100, 600, 100]);
    }
}

#[test]
fn a_file_of_a_wrong_size_is_reported_and_repaired_away() {
    let dir = TempDir::new().unwrap();
    let index = open(&config(dir.path()));
    index.put(&some(0..20)).unwrap();
    let second = paths(&dir)[1].clone();
    std::fs::write(&second, b"short").unwrap();
    std::fs::write(dir.path().join("index/notes.txt"), b"?").unwrap();
    let index = open(&config(dir.path()));
    assert_eq!(query(&index, "k1"), [600, 100], "the newest file holds 18 and 19 only");
    assert_eq!((index.check(0), index.check(1)), (Soundness::Sound, Soundness::Unusable));
    index.repair(1).unwrap();
    assert_eq!(index.end_offset(), Some(PhysicalOffset(800)));
    index.put(&some(0..20)).unwrap();
    assert!(sound(&index) && query(&index, "k1") == [1600, 1100, 600, 100]);
    assert!(dir.path().join("index/notes.txt").exists());
}

#[test]
fn damage_is_told_apart_and_repaired_from_the_entries() {
    // Byte to change -> what check says. Slots are at 40..68, entry 1 at 88.
    let cases: [(usize, u8, Soundness); 5] = [
        (43, 9, Soundness::Slots),
        (35, 3, Soundness::Slots),
        (31, 1, Soundness::Slots),
        (88 + 19, 7, Soundness::Entries { first: 1 }),
        (88 + 20 * 3 + 4, 0x80, Soundness::Entries { first: 4 }),
    ];
    for (at, byte, want) in cases {
        let dir = TempDir::new().unwrap();
        open(&config(dir.path())).put(&some(0..12)).unwrap();
        let first = paths(&dir)[0].clone();
        let mut bytes = std::fs::read(&first).unwrap();
        let good = bytes.clone();
        bytes[at] ^= byte;
        std::fs::write(&first, &bytes).unwrap();
        let index = open(&config(dir.path()));
        assert_eq!(index.check(0), want, "{at}");
        index.repair(0).unwrap();
        assert!(sound(&index));
        index.put(&some(0..12)).unwrap();
        assert!(sound(&index));
        assert_eq!(query(&index, "k1"), [1100, 600, 100]);
        if want == Soundness::Slots {
            assert_eq!(std::fs::read(&first).unwrap(), good);
        }
    }
}

#[test]
fn a_file_between_others_that_says_it_is_not_full_is_bad() {
    let dir = TempDir::new().unwrap();
    open(&config(dir.path())).put(&some(0..20)).unwrap();
    let first = paths(&dir)[0].clone();
    let mut bytes = std::fs::read(&first).unwrap();
    bytes[39] = 6;
    std::fs::write(&first, &bytes).unwrap();
    let index = open(&config(dir.path()));
    assert_eq!(index.check(0), Soundness::Entries { first: 6 });
    index.repair(0).unwrap();
    assert_eq!((index.files().len(), index.end_offset()), (1, Some(PhysicalOffset(400))));
    index.put(&some(0..20)).unwrap();
    assert!(sound(&index));
    assert_eq!(query(&index, "k1"), [1600, 1100, 600, 100]);
}

#[test]
fn a_chain_that_runs_in_a_circle_ends() {
    let dir = TempDir::new().unwrap();
    open(&config(dir.path())).put(&[put("k", 0, 0), put("k", 1, 0)]).unwrap();
    let first = paths(&dir)[0].clone();
    let mut bytes = std::fs::read(&first).unwrap();
    bytes[88 + 19] = 2;
    std::fs::write(&first, &bytes).unwrap();
    assert_eq!(query(&open(&config(dir.path())), "k"), [1, 0]);
}

#[test]
fn retention_drops_whole_files_but_never_the_newest() {
    let dir = TempDir::new().unwrap();
    let index = open(&config(dir.path()));
    index.put(&some(0..30)).unwrap();
    assert_eq!(index.delete_before(PhysicalOffset(800)).unwrap(), 0);
    assert_eq!(index.delete_before(PhysicalOffset(801)).unwrap(), 1);
    assert_eq!(index.delete_before(PhysicalOffset(99_999)).unwrap(), 2);
    assert_eq!((paths(&dir).len(), query(&index, "k4")), (1, vec![2900]));
}

#[test]
fn only_full_files_move_the_checkpoint() {
    let dir = TempDir::new().unwrap();
    let vfs = FaultyVfs::default();
    let clock = Arc::new(ManualClock::new(START));
    let index = IndexSet::load(Arc::new(vfs.clone()), &config(dir.path()), clock).unwrap();
    index.put(&some(0..5)).unwrap();
    assert_eq!(index.flush(false).unwrap(), None);
    assert_eq!(vfs.faults.made(Call::Sync), 0);
    index.put(&some(5..12)).unwrap();
    assert_eq!(index.flush(false).unwrap(), Some(put("", 0, 800).store_timestamp));
    index.flush(true).unwrap();
    let made = vfs.faults.made(Call::Sync);
    assert_eq!(made, 2, "the full file, the newest");
    index.flush(true).unwrap();
    assert_eq!(vfs.faults.made(Call::Sync), made, "nothing is dirty");
}

/// The system calls pages clean that a sync did not bring to the disk, so the second sync succeeds and proves nothing.
#[test]
fn a_sync_that_failed_is_not_tried_again() {
    let dir = TempDir::new().unwrap();
    let vfs = FaultyVfs::default();
    let load = || {
        let clock = Arc::new(ManualClock::new(START));
        IndexSet::load(Arc::new(vfs.clone()), &config(dir.path()), clock).unwrap()
    };
    let index = load();
    index.put(&some(0..12)).unwrap();
    vfs.faults.fail(Call::Sync, 0, 1, ErrorKind::Other);
    assert!(index.flush(false).is_err());
    let made = vfs.faults.made(Call::Sync);
    for force in [false, true] {
        assert!(matches!(index.flush(force), Err(crate::Error::Poisoned { .. })));
    }
    assert_eq!(vfs.faults.made(Call::Sync), made);
    drop(index);
    let (index, durable) = (load(), Some(put("", 0, 800).store_timestamp));
    index.rewrite_behind(StoreTimestamp::ZERO, true).unwrap();
    assert_eq!(index.flush(true).unwrap(), durable);
    assert_eq!(vfs.faults.made(Call::Sync), made + 2, "both files are written again");
}

#[test]
fn a_full_disk_is_an_error_and_what_was_not_put_is_put_later() {
    for copy_on_write in [false, true] {
        let dir = TempDir::new().unwrap();
        let mut vfs = FaultyVfs::default();
        vfs.copy_on_write = copy_on_write;
        let clock = Arc::new(ManualClock::new(START));
        let index = IndexSet::load(Arc::new(vfs.clone()), &config(dir.path()), clock).unwrap();
        for call in [Call::Create, Call::Reserve, Call::Write] {
            vfs.faults.fail(call, u64::from(call == Call::Create), u64::MAX, ErrorKind::StorageFull);
            let outcome = index.put(&some(0..30));
            if call != Call::Write || copy_on_write {
                assert!(matches!(outcome, Err(crate::Error::NoSpace { .. })), "{call:?} {outcome:?}");
            }
            vfs.faults.heal();
        }
        index.put(&some(0..30)).unwrap();
        assert!(sound(&index));
        assert_eq!(query(&index, "k1"), [2600, 2100, 1600, 1100, 600, 100]);
        assert_eq!(paths(&dir).len(), index.files().len());
    }
}
