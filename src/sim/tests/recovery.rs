//! What recovery must not believe, and what it must not do again: queue files out of order, a clock that went back, pages
//! that the system calls clean and no disk has.

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use super::{Life, NOTHING};
use crate::{
    FlushDiskType, Message, QueueOffset, Store, StoreTimestamp,
    sim::{Call, Crash, Failure, Fault, Kept, Outcome},
    vfs::Vfs,
};

/// Lets all times for flushing pass.
fn upkeep(life: &mut Life) -> crate::Result<()> {
    life.clock.advance(Duration::from_secs(70));
    life.steps().upkeep()
}

/// The crashes that are possible at each write and each change of a name while `run` runs.
fn crashes_during(life: &mut Life, run: impl FnOnce(&mut Life)) -> Vec<Crash> {
    let seen: Arc<Mutex<Vec<Crash>>> = Arc::default();
    let kept = Arc::clone(&seen);
    life.disk.watch(1, move |moment| kept.lock().unwrap().push(moment.crash()));
    run(life);
    life.disk.unwatch();
    std::mem::take(&mut *seen.lock().unwrap())
}

fn start_on(life: &mut Life, crash: &Crash, outcome: Outcome) {
    life.open = None;
    life.disk = crash.disk(outcome, Arc::clone(&life.clock) as _);
    life.start();
}

fn fail_sync(life: &Life, pass: u64) {
    life.disk.fail(Fault { call: Some(Call::Sync), pass, times: 1, failure: Failure::Device });
}

/// Recovery removed two files of a queue whose records were gone, and a power cut kept the removal of the first alone: what
/// was left looked like a queue whose beginning retention had deleted, and kept three numbers that were given to nobody.
#[test]
fn a_queue_that_is_cut_loses_its_last_file_first() {
    let mut life = Life::new(|config| config);
    for _ in 0..4 {
        life.put("t", b"body", &[]);
    }
    while life.steps().reput().unwrap() {}
    upkeep(&mut life).unwrap();
    assert_eq!(life.disk.list(Path::new("/store/consumequeue/t/0")).unwrap().len(), 2);
    let entries_alone = life.disk.crash();
    life.open = None;
    life.disk = entries_alone.disk(NOTHING, Arc::clone(&life.clock) as _);
    let within = crashes_during(&mut life, Life::start);
    assert!(within.len() > 5);
    for crash in within {
        for names in (0..1_u64 << crash.unsynced_names().min(8)).map(Kept::Mask) {
            start_on(&mut life, &crash, Outcome { pages: Kept::All, names });
            let report = life.store().recovery_report();
            assert_eq!((report.records, life.max("t")), (0, QueueOffset::ZERO), "{names:?}: {report}");
        }
    }
}

/// The same in two steps: the last file went because it held no entry yet, the one before because its records were gone,
/// and nothing stood between the two.
#[test]
fn a_queue_that_is_cut_twice_loses_its_last_file_first() {
    let mut life = Life::new(|config| config);
    for _ in 0..3 {
        life.put("t", b"body", &[]);
    }
    while life.steps().reput().unwrap() {}
    upkeep(&mut life).unwrap();
    life.put("t", b"body", &[]);
    while life.steps().reput().unwrap() {}
    let mut cut = 0;
    for crash in crashes_during(&mut life, |life| upkeep(life).unwrap()) {
        let outcome = Outcome { pages: Kept::None, names: Kept::All };
        life.open = None;
        life.disk = crash.disk(outcome, Arc::clone(&life.clock) as _);
        let files = life.disk.list(Path::new("/store/consumequeue/t/0")).unwrap().len();
        for crash in crashes_during(&mut life, Life::start).iter().filter(|_| files > 1) {
            for names in (0..1_u64 << crash.unsynced_names().min(8)).map(Kept::Mask) {
                start_on(&mut life, crash, Outcome { pages: Kept::All, names });
                let report = life.store().recovery_report();
                assert_eq!((report.records, life.max("t")), (0, QueueOffset::ZERO), "{names:?}: {report}");
                cut += 1;
            }
        }
    }
    assert!(cut > 10, "{cut}");
}

/// The same while the files are made: the name of the second was on the disk, that of the first was not.
#[test]
fn a_queue_grows_by_a_file_when_the_one_before_is_durable() {
    let mut life = Life::new(|config| config);
    for _ in 0..8 {
        life.put("t", b"body", &[]);
    }
    while life.steps().reput().unwrap() {}
    let within = crashes_during(&mut life, |life| upkeep(life).unwrap());
    assert!(within.len() > 5);
    for crash in within {
        for names in (0..1_u64 << crash.unsynced_names().min(8)).map(Kept::Mask) {
            start_on(&mut life, &crash, Outcome { pages: Kept::None, names });
            let report = life.store().recovery_report();
            assert_eq!((report.records, life.max("t")), (0, QueueOffset::ZERO), "{names:?}: {report}");
        }
    }
}

/// An index file was begun after the clock had been set back, so that the end of the one before it, which the checkpoint
/// names, lies between its times: such files were taken for another store's and made anew at every open after a kill.
#[test]
fn an_index_over_a_clock_that_went_back_is_left_alone() {
    let mut life = Life::new(|config| config);
    let keyed = |life: &Life, n: usize| life.put("t", b"body", &[("KEYS", &format!("k{n}"))]);
    (0..3).for_each(|n| _ = keyed(&life, n));
    let now = crate::Clock::now(&*life.clock);
    life.clock.set(StoreTimestamp(now.0 - 5_000));
    keyed(&life, 3);
    life.clock.advance(Duration::from_secs(11));
    keyed(&life, 4);
    while life.steps().reput().unwrap() {}
    life.store().sync().unwrap();
    upkeep(&mut life).unwrap();
    assert_eq!(life.disk.list(Path::new("/store/index")).unwrap().len(), 2);
    for _ in 0..3 {
        life.start();
        let report = life.store().recovery_report();
        assert!(report.aborted && report.index == Default::default(), "{report}");
    }
    assert!((0..5).all(|n| life.store().query("t", &format!("k{n}")).unwrap().len() == 1));
}

/// A sync of the log failed, and the store was started again without a power cut. The system showed the lost pages as they
/// should be and called them clean, so that the sync of recovery wrote nothing: the next power cut took them, and with
/// them everything behind that had been acknowledged since.
#[test]
fn what_a_failed_sync_lost_is_on_the_disk_before_it_is_served() {
    for flush in [FlushDiskType::Sync, FlushDiskType::Async] {
        let mut life = Life::new(|config| config.flush_disk_type(flush));
        life.put("t", b"first", &[]);
        life.store().sync().unwrap();
        let queue = life.store().queue("t", 0).unwrap();
        fail_sync(&life, 0);
        drop(life.store().put(&Message::new(queue, &[7; 5000])).unwrap());
        assert!(life.store().sync().is_err());
        life.start();
        assert_eq!(life.max("t"), QueueOffset(2), "the system still shows it");
        life.put("t", b"third", &[]);
        life.store().sync().unwrap();
        let end = life.end();
        life.power_cut(NOTHING);
        let report = life.store().recovery_report();
        assert_eq!((life.end(), report.records, report.damage.len()), (end, 3, 0), "{report}");
    }
}

/// The same of zeros: recovery zeroed what it cut and could not sync it, and the next recovery saw nothing left to cut. The
/// disk still had a record there, and an append that ended where it begins brought it back at the next power cut.
#[test]
fn what_was_cut_does_not_come_back_after_a_failed_sync() {
    let mut opened = 0;
    for pass in 0..12 {
        let mut life = Life::new(|config| config);
        life.put("t", &[7; 3000], &[]);
        life.store().sync().unwrap();
        let first = usize::try_from(life.end().0).unwrap();
        let second = 4096 - first - (first - 3000);
        life.put("t", &vec![8; second], &[]);
        let behind = life.put("t", &[9; 500], &[]);
        assert_eq!(behind.0, 4096, "the third record is on a page of its own");
        let crash = life.disk.crash();
        life.open = None;
        life.disk = crash.disk(Outcome { pages: Kept::Last, names: Kept::All }, Arc::clone(&life.clock) as _);
        fail_sync(&life, pass);
        let vfs: Arc<dyn Vfs> = Arc::new(life.disk.clone());
        let tried = Store::open_stepped(life.config.clone(), vfs, Arc::clone(&life.clock) as _);
        opened += u32::from(tried.is_ok());
        drop(tried);
        life.disk.heal();
        life.start();
        assert_eq!(life.max("t"), QueueOffset(1), "sync {pass}");
        life.put("t", &vec![1; second], &[]);
        life.store().sync().unwrap();
        assert_eq!(life.end(), behind);
        life.power_cut(NOTHING);
        assert_eq!((life.end(), life.max("t")), (behind, QueueOffset(2)), "sync {pass}");
    }
    assert!(opened <= 8, "several of the syncs are recovery's: it opened {opened} times of 12");
}

/// The pages of the index can be lost likewise. Opened after a kill it looked as it should, and when the store was closed
/// then, `cleanStop` said so: after a power cut nobody looked again, and keys were not found.
#[test]
fn keys_that_a_failed_sync_lost_are_on_the_disk_before_the_index_is_believed_unread() {
    let mut failed = 0;
    for pass in 0..8 {
        let mut life = Life::new(|config| config);
        (0..3).for_each(|n| _ = life.put("t", b"body", &[("KEYS", &format!("k{n}"))]));
        while life.steps().reput().unwrap() {}
        life.store().sync().unwrap();
        upkeep(&mut life).unwrap();
        (3..6).for_each(|n| _ = life.put("t", b"body", &[("KEYS", &format!("k{n}"))]));
        while life.steps().reput().unwrap() {}
        life.store().sync().unwrap();
        fail_sync(&life, pass);
        // Twice, so that a round that is tried again is met as well.
        let _ = upkeep(&mut life);
        let (store, steps) = life.open.take().unwrap();
        let closed = steps.close(&store);
        drop(store);
        failed += u32::from(closed.is_err());
        life.disk.heal();
        for _ in 0..2 {
            life.start();
            let (store, steps) = life.open.take().unwrap();
            steps.close(&store).unwrap();
        }
        life.power_cut(NOTHING);
        let report = life.store().recovery_report();
        assert!(report.is_clean(), "sync {pass}: {report}");
        for n in 0..6 {
            assert_eq!(life.store().query("t", &format!("k{n}")).unwrap().len(), 1, "sync {pass}: k{n}");
        }
    }
    assert!(failed >= 2, "syncs of queues and index fail among them: {failed}");
}

/// The pages of a queue can be lost likewise. Of a queue whose records retention has deleted, its entries alone say how
/// far it counts.
#[test]
fn numbers_that_a_failed_sync_lost_are_on_the_disk_before_their_records_go() {
    let mut life = Life::new(|config| config);
    life.put("lonely", b"only one", &[]);
    while life.steps().reput().unwrap() {}
    life.store().sync().unwrap();
    fail_sync(&life, 0);
    assert!(upkeep(&mut life).is_err());
    life.start();
    assert_eq!(life.max("lonely"), QueueOffset(1), "the system still shows it");
    for _ in 0..4 {
        life.put("t", &[7; 5000], &[]);
    }
    while life.steps().reput().unwrap() {}
    life.store().sync().unwrap();
    life.store().delete_expired();
    life.disk.point();
    life.clock.advance(Duration::from_secs(7200));
    assert!(life.steps().retention().unwrap() > 0);
    assert!(life.store().status().min_offset.0 > 0);
    life.power_cut(NOTHING);
    assert_eq!(life.max("lonely"), QueueOffset(1));
}
