//! What verify says when the disk does not let it look.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

use std::{fs, io, path::PathBuf};

use super::*;
use crate::{
    Message, Store,
    vfs::faulty::{Call, FaultyVfs},
};

/// A store of which a queue lost its first entry.
fn damaged() -> (tempfile::TempDir, Config, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let config = Config::new(dir.path())
        .commit_log_file_size(1_u64 << 20)
        .consume_queue_file_size(200_u64)
        .index_slots(7_u32)
        .index_entries(9_u32);
    let store = Store::open(config.clone()).unwrap();
    let queue = store.queue("orders", 0).unwrap();
    for _ in 0..3 {
        store.put(&Message::new(queue, b"paid").keys("k")).unwrap().wait().unwrap();
    }
    store.close().unwrap();
    let file = dir.path().join("consumequeue/orders/0/00000000000000000000");
    let mut bytes = fs::read(&file).unwrap();
    bytes[..20].fill(0);
    fs::write(&file, bytes).unwrap();
    (dir, config, file)
}

#[test]
fn whatever_cannot_be_read_is_named_and_proves_nothing() {
    let (dir, config, queue_file) = damaged();
    let run = |vfs: &FaultyVfs| verify_on(vfs, config.clone(), &mut |_| {}, &mut |_| {});
    let sound = FaultyVfs::default();
    assert_eq!(run(&sound).unwrap().damage, 1);
    let mut named = Vec::new();
    for call in [Call::Stat, Call::List, Call::Read] {
        let made = sound.faults.made(call);
        for good in 0..made {
            let vfs = FaultyVfs::default();
            vfs.faults.fail(call, good, 1, io::ErrorKind::PermissionDenied);
            let outcome = run(&vfs);
            let Err(Error::Io { path, source, .. }) = outcome else { panic!("{call:?} {good}: {outcome:?}") };
            assert_eq!(source.to_string(), "injected");
            named.push(path);
        }
    }
    let named: std::collections::BTreeSet<_> = named.iter().map(PathBuf::as_path).collect();
    let queue_dir = queue_file.parent().unwrap();
    let [log, index, checkpoint] = ["commitlog", "index", "checkpoint"].map(|name| dir.path().join(name));
    for path in [dir.path(), &log, &index, &checkpoint, queue_dir, &queue_file] {
        assert!(named.contains(path), "{} is not among {named:?}", path.display());
    }
}

#[test]
fn recovery_says_how_far_it_has_come() {
    let (_dir, config, _) = damaged();
    let config = strictly(config);
    assert_eq!(config.reached.get(), PhysicalOffset::ZERO);
    let vfs: Arc<dyn Vfs> = Arc::new(OverlayVfs::new());
    let clock = Arc::new(crate::clock::SystemClock::new());
    let (store, _steps) = Store::open_stepped(config.clone(), vfs, clock).unwrap();
    let reached = config.reached.get();
    let last = store.message_at(reached).unwrap().unwrap();
    assert_eq!(reached.plus(last.record().total_size), store.status().max_offset);
}

/// A disk that does not give some pages back: verify names them, repair gives them up and nothing else.
#[test]
fn repair_gives_up_what_cannot_be_read_and_nothing_else() {
    let mut lost = 0;
    for good in 0.. {
        let (dir, config, _) = damaged();
        let vfs = FaultyVfs::default();
        vfs.faults.fail(Call::Probe, good, 1, io::ErrorKind::Other);
        let found = unreadable::find(&vfs, &config).unwrap();
        let Some(sick) = found.first() else { break };
        assert_eq!(found.len(), 1);
        vfs.faults.fail(Call::Probe, good, 1, io::ErrorKind::Other);
        assert_eq!(unreadable::give_up(&vfs, &config, crate::types::StoreTimestamp(1)).unwrap(), found);
        let manifest = fs::read_to_string(dir.path().join("quarantine/manifest.jsonl")).unwrap();
        let name = sick.path.strip_prefix(dir.path()).unwrap().display().to_string();
        assert_eq!(manifest.lines().count(), 1);
        assert!(manifest.contains(&format!("{{\"unreadable\":\"{name}@{}\"", sick.from)), "{manifest}");
        repair(config.clone()).unwrap();
        let summary = verify(config.clone(), &mut |_| {}, &mut |_| {}).unwrap();
        assert!(summary.is_whole(), "{name}: {summary:?}");
        let is_log = name.starts_with("commitlog");
        assert_eq!(summary.records, if is_log { 0 } else { 3 }, "{name}: {summary:?}");
        lost += usize::from(is_log);
    }
    assert_eq!(lost, 1);
}

const CALLS: [Call; 10] = [
    Call::List,
    Call::Stat,
    Call::Read,
    Call::Open,
    Call::Lock,
    Call::CreateDir,
    Call::Replace,
    Call::Write,
    Call::Sync,
    Call::SyncDir,
];

/// Fails each call that `run` makes on a store of its own: that must be an error, and nothing must be lost by it.
fn each_call_fails(
    prepare: impl Fn(&FaultyVfs),
    run: impl Fn(&std::sync::Arc<FaultyVfs>, &Config) -> Result<()>,
) {
    for call in CALLS {
        for good in 0.. {
            let (dir, config, _) = damaged();
            let index = fs::read_dir(dir.path().join("index")).unwrap().next().unwrap().unwrap().path();
            let mut bytes = fs::read(&index).unwrap();
            // Entry 0 belongs to nobody.
            bytes[40 + 7 * 4] = 1;
            fs::write(&index, bytes).unwrap();
            let vfs = std::sync::Arc::new(FaultyVfs::default());
            prepare(&vfs);
            vfs.faults.fail(call, good, 1, io::ErrorKind::PermissionDenied);
            let outcome = run(&vfs, &config);
            if vfs.faults.made(call) <= good {
                outcome.unwrap();
                break;
            }
            vfs.faults.heal();
            repair(config.clone()).unwrap();
            let summary = verify(config, &mut |_| {}, &mut |_| {}).unwrap();
            assert!(summary.is_whole() && summary.records <= 3, "{call:?} {good}: {summary:?}");
        }
    }
}

#[test]
fn repair_that_fails_anywhere_can_be_made_again() {
    each_call_fails(|_| {}, |vfs, config| repair::run(std::sync::Arc::clone(vfs) as _, config).map(drop));
}

#[test]
fn pages_that_could_not_be_given_up_can_be_given_up_later() {
    let sick = |vfs: &FaultyVfs| vfs.faults.fail(Call::Probe, 0, 1, io::ErrorKind::Other);
    each_call_fails(sick, |vfs, config| {
        unreadable::give_up(&**vfs, config, crate::types::StoreTimestamp(1)).map(drop)
    });
}

#[test]
fn what_cannot_be_looked_at_is_an_error() {
    let (_dir, config, queue_file) = damaged();
    for call in [Call::List, Call::Open] {
        let vfs = FaultyVfs::default();
        vfs.faults.fail(call, 0, 1, io::ErrorKind::PermissionDenied);
        assert!(Reading::new(&config, &vfs, &mut |_| {}).is_err(), "{call:?}");
    }
    for call in [Call::Stat, Call::Open] {
        let vfs = FaultyVfs::default();
        vfs.faults.fail(call, 0, 1, io::ErrorKind::PermissionDenied);
        assert!(repair::table(&vfs, &queue_file).is_err(), "{call:?}");
    }
}
