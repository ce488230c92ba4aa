//! The log over real files in a temporary directory, and over files that fail on demand.
//!
//! What a wait acknowledged is read back with `std::fs`, not through the log.

use std::{
    fs, io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::*;
use crate::{
    clock::{ManualClock, SystemClock},
    format::message::{MAGIC_BLANK, encode_blank},
    types::StoreTimestamp,
    vfs::faulty::{Call, Faults, FaultyVfs},
};

const SEGMENT: usize = 8192;
const LONG: Duration = Duration::from_secs(60);

struct Rig {
    dir: tempfile::TempDir,
    vfs: FaultyVfs,
    config: Config,
}

impl Rig {
    fn new(flush: FlushDiskType) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = Config::new(dir.path()).commit_log_file_size(SEGMENT as u64).flush_disk_type(flush);
        Self { dir, vfs: FaultyVfs::default(), config }
    }

    fn vfs(&self) -> Arc<dyn Vfs> {
        Arc::new(self.vfs.clone())
    }

    fn faults(&self) -> &Faults {
        &self.vfs.faults
    }

    fn load(&self) -> Loaded {
        load(self.vfs(), &self.config).unwrap()
    }

    fn open(&self, end: i64) -> (Arc<CommitLog>, Appender) {
        self.load().recovered(PhysicalOffset(end), Arc::new(SystemClock::new())).unwrap()
    }

    fn file(&self, base: usize) -> Vec<u8> {
        fs::read(self.path(base)).unwrap()
    }

    fn path(&self, base: usize) -> std::path::PathBuf {
        self.config.commit_log_path().join(format!("{base:020}"))
    }

    fn names(&self) -> Vec<String> {
        names(&self.config.commit_log_path())
    }
}

fn names(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A record of `len` bytes that says where it stands.
fn record(at: PhysicalOffset, len: usize) -> Vec<u8> {
    let mut bytes = vec![0xA5; len];
    bytes[..8].copy_from_slice(&at.0.to_be_bytes());
    bytes
}

fn put(appender: &mut Appender, len: usize) -> Result<PhysicalOffset> {
    appender.append(len, |at, sink| sink.put(&record(at, len)))
}

const BOTH: [FlushDiskType; 2] = [FlushDiskType::Async, FlushDiskType::Sync];

#[test]
fn a_segment_ends_with_a_blank_of_what_is_left_and_the_record_goes_to_the_next() {
    for flush in BOTH {
        for spare in [8, 9, 12, 20, 100] {
            let rig = Rig::new(flush);
            let (log, mut appender) = rig.open(0);
            let first = SEGMENT - spare;
            assert_eq!(put(&mut appender, first).unwrap(), PhysicalOffset(0));
            let next = put(&mut appender, spare.max(16)).unwrap();
            assert_eq!(next, PhysicalOffset(SEGMENT as i64), "{spare} bytes were left");
            log.sync_to(appender.next_offset()).unwrap();
            let file = rig.file(0);
            assert_eq!(file[..first], record(PhysicalOffset(0), first));
            assert_eq!(file[first..first + 8], encode_blank(spare));
            assert_eq!(file[first + 4..first + 8], MAGIC_BLANK.to_be_bytes());
            assert!(file[first + 8..].iter().all(|b| *b == 0));
            assert_eq!(rig.file(SEGMENT)[..16], record(next, spare.max(16))[..16]);
            // The whole rest is there for a reader that follows the blank.
            assert_eq!(log.lease_rest(PhysicalOffset(first as i64)).unwrap().len(), spare);
            assert_eq!(log.next_segment(PhysicalOffset(0)), Some(PhysicalOffset(SEGMENT as i64)));
        }
    }
}

#[test]
fn a_record_that_leaves_less_than_a_blank_goes_to_the_next_segment() {
    for spare in 0..8 {
        let rig = Rig::new(FlushDiskType::Async);
        let (_log, mut appender) = rig.open(0);
        put(&mut appender, 100).unwrap();
        let at = put(&mut appender, SEGMENT - 100 - spare).unwrap();
        assert_eq!(at, PhysicalOffset(SEGMENT as i64), "{spare} bytes would be left");
    }
}

#[test]
fn the_longest_record_fills_a_segment_but_for_the_blank_and_a_longer_one_is_refused() {
    for flush in BOTH {
        let rig = Rig::new(flush);
        let (log, mut appender) = rig.open(0);
        assert_eq!(appender.longest(), SEGMENT - 8);
        put(&mut appender, SEGMENT - 8).unwrap();
        let next = appender.next_offset();
        match put(&mut appender, SEGMENT - 7).unwrap_err() {
            Error::RecordTooLarge { size, limit } => assert_eq!((size, limit), (SEGMENT - 7, SEGMENT - 8)),
            other => panic!("{other}"),
        }
        assert_eq!(appender.next_offset(), next);
        log.sync_to(next).unwrap();
        assert_eq!(log.max_offset(), next);
    }
}

#[test]
fn readers_see_what_is_published_and_nothing_beyond() {
    let rig = Rig::new(FlushDiskType::Async);
    let (log, mut appender) = rig.open(0);
    assert_eq!((log.min_offset(), log.max_offset()), (PhysicalOffset(-1), PhysicalOffset(0)));
    assert!(rig.names().is_empty(), "an open without a put makes no file");
    let at = put(&mut appender, 100).unwrap();
    assert_eq!(&*log.lease(at, 100).unwrap(), record(at, 100));
    assert!(log.lease(at, 101).is_none());
    assert!(log.lease(PhysicalOffset(-1), 1).is_none());
    assert!(log.lease_rest(PhysicalOffset(100)).is_none());
    assert_eq!((log.min_offset(), log.max_offset()), (PhysicalOffset(0), PhysicalOffset(100)));
    let part = log.lease_rest(at).unwrap().slice(8..12);
    assert_eq!(&*part, [0xA5; 4]);
}

#[test]
fn a_staged_record_is_visible_after_it_was_written_and_dispatched_after_it_was_synced() {
    let rig = Rig::new(FlushDiskType::Sync);
    let (log, mut appender) = rig.open(0);
    let at = put(&mut appender, 100).unwrap();
    let end = appender.next_offset();
    assert_eq!((log.max_offset(), log.lease(at, 100).is_none()), (PhysicalOffset(0), true));
    let syncs = rig.faults().made(Call::Sync);
    log.wait_written(end).unwrap();
    assert_eq!(rig.faults().made(Call::Sync), syncs, "a written record needs no sync");
    assert_eq!((log.max_offset(), log.dispatch_limit()), (end, PhysicalOffset(0)));
    assert_eq!(rig.file(0)[..100], record(at, 100));
    assert!(log.wait_durable(end, LONG).unwrap());
    assert_eq!((log.durable_offset(), log.dispatch_limit()), (end, end));
}

#[test]
fn a_lone_waiter_syncs_once_with_one_write() {
    let rig = Rig::new(FlushDiskType::Sync);
    let (log, mut appender) = rig.open(0);
    for n in 0..20 {
        put(&mut appender, 100).unwrap();
        put(&mut appender, 100).unwrap();
        let before = (rig.faults().made(Call::Write), rig.faults().made(Call::Sync));
        assert!(log.wait_durable(appender.next_offset(), LONG).unwrap());
        let after = (rig.faults().made(Call::Write), rig.faults().made(Call::Sync));
        assert_eq!((after.0 - before.0, after.1 - before.1), (1, 1), "wait {n}");
    }
}

#[test]
fn an_encoder_of_the_wrong_length_appends_nothing() {
    for flush in BOTH {
        let rig = Rig::new(flush);
        let (log, mut appender) = rig.open(0);
        put(&mut appender, 64).unwrap();
        for wrong in [63, 65] {
            let tried = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                appender.append(64, |_, sink| sink.put(&vec![7; wrong]))
            }));
            assert!(tried.is_err());
            assert_eq!(appender.next_offset(), PhysicalOffset(64));
        }
        let at = put(&mut appender, 64).unwrap();
        log.sync_to(appender.next_offset()).unwrap();
        assert_eq!(at, PhysicalOffset(64));
        assert_eq!(rig.file(0)[64..128], record(at, 64));
        assert!(rig.file(0)[128..].iter().all(|b| *b == 0));
    }
}

#[test]
fn a_failed_sync_ends_all_writing_and_every_wait() {
    for flush in BOTH {
        let rig = Rig::new(flush);
        let (log, mut appender) = rig.open(0);
        put(&mut appender, 100).unwrap();
        assert!(log.wait_durable(PhysicalOffset(100), LONG).unwrap());
        let at = put(&mut appender, 100).unwrap();
        let (told, answer) = mpsc::channel();
        log.on_durable(at.plus(100), Box::new(move |result| told.send(result).unwrap()));
        rig.faults().fail(Call::Sync, 0, 1, io::ErrorKind::Other);
        assert!(matches!(log.sync_to(at.plus(100)), Err(Error::Poisoned { at: PhysicalOffset(100), .. })));
        assert!(matches!(answer.recv_timeout(LONG).unwrap(), Err(Error::Poisoned { .. })));
        rig.faults().heal();
        let syncs = rig.faults().made(Call::Sync);
        assert!(matches!(log.wait_durable(at.plus(100), LONG), Err(Error::Poisoned { .. })));
        assert!(matches!(log.sync_to(at.plus(100)), Err(Error::Poisoned { .. })));
        assert!(matches!(log.flush_step(LONG, true), Err(Error::Poisoned { .. })));
        assert!(matches!(put(&mut appender, 100), Err(Error::Poisoned { .. })));
        let (told, answer) = mpsc::channel();
        log.on_durable(at.plus(100), Box::new(move |result| told.send(result.is_err()).unwrap()));
        assert!(answer.recv_timeout(LONG).unwrap());
        assert_eq!(rig.faults().made(Call::Sync), syncs, "a sync was tried again");
        assert_eq!(log.durable_offset(), PhysicalOffset(100));
        assert!(log.wait_durable(PhysicalOffset(100), LONG).unwrap(), "what was durable stays so");
        assert!(log.poisoned().unwrap().to_string().contains("injected"));
        assert!(matches!(appender.close(), Err(Error::Poisoned { .. })));
    }
}

#[test]
fn a_failed_write_of_the_staged_body_poisons_too() {
    let rig = Rig::new(FlushDiskType::Sync);
    let (log, mut appender) = rig.open(0);
    put(&mut appender, 100).unwrap();
    rig.faults().fail(Call::Write, 0, 1, io::ErrorKind::Other);
    assert!(matches!(log.wait_written(PhysicalOffset(100)), Err(Error::Poisoned { .. })));
    assert!(matches!(log.wait_written(PhysicalOffset(100)), Err(Error::Poisoned { .. })));
    assert_eq!(log.max_offset(), PhysicalOffset(0));
}

#[test]
fn every_thread_that_waits_learns_of_a_failed_sync() {
    let rig = Rig::new(FlushDiskType::Sync);
    let (log, mut appender) = rig.open(0);
    put(&mut appender, 100).unwrap();
    rig.faults().shut_gate(Call::Sync);
    rig.faults().fail(Call::Sync, 0, 1, io::ErrorKind::Other);
    let wait = |upto| {
        let log = Arc::clone(&log);
        thread::spawn(move || log.wait_durable(PhysicalOffset(upto), LONG))
    };
    let leader = wait(100);
    rig.faults().wait_held(Call::Sync);
    put(&mut appender, 100).unwrap();
    let others: Vec<_> = [100, 100, 200, 200].map(wait).into();
    thread::sleep(Duration::from_millis(20));
    rig.faults().open_gate(Call::Sync);
    for waiter in others.into_iter().chain([leader]) {
        assert!(matches!(waiter.join().unwrap(), Err(Error::Poisoned { .. })));
    }
}

#[test]
fn a_full_disk_at_a_roll_is_an_error_that_passes() {
    for flush in BOTH {
        let rig = Rig::new(flush);
        let (log, mut appender) = rig.open(0);
        put(&mut appender, SEGMENT - 100).unwrap();
        rig.faults().fail(Call::Create, 0, u64::MAX, io::ErrorKind::StorageFull);
        assert!(matches!(log.prepare_step(), Err(Error::NoSpace { .. })));
        for _ in 0..3 {
            match put(&mut appender, 200).unwrap_err() {
                Error::NoSpace { path, bytes } => {
                    assert_eq!((path, bytes), (rig.path(SEGMENT), SEGMENT as u64));
                }
                other => panic!("{other}"),
            }
        }
        assert_eq!(appender.next_offset(), PhysicalOffset(SEGMENT as i64 - 100));
        // What still fits is still taken, and no blank was written before.
        let fits = put(&mut appender, 50).unwrap();
        log.sync_to(appender.next_offset()).unwrap();
        assert_eq!(rig.file(0)[SEGMENT - 100..SEGMENT - 50], record(fits, 50));
        rig.faults().heal();
        assert_eq!(put(&mut appender, 200).unwrap(), PhysicalOffset(SEGMENT as i64));
        log.sync_to(appender.next_offset()).unwrap();
        assert_eq!(rig.file(0)[SEGMENT - 50..SEGMENT - 42], encode_blank(50));
    }
}

#[test]
fn the_segment_made_ahead_is_taken_kept_by_a_kill_and_removed_by_a_close() {
    let rig = Rig::new(FlushDiskType::Async);
    let (log, mut appender) = rig.open(0);
    log.prepare_step().unwrap();
    assert!(rig.names().is_empty(), "nothing is made ahead before the first put");
    put(&mut appender, 100).unwrap();
    log.prepare_step().unwrap();
    assert_eq!(rig.names().len(), 2);
    let made = rig.faults().made(Call::Create);
    put(&mut appender, SEGMENT - 100).unwrap();
    assert_eq!(rig.faults().made(Call::Create), made, "the roll made a file itself");
    log.prepare_step().unwrap();
    assert_eq!(rig.names().len(), 3);
    drop((log, appender));
    assert_eq!(rig.names().len(), 3);

    let (log, mut appender) = rig.open(2 * SEGMENT as i64 - 100);
    assert_eq!(rig.names().len(), 2, "recovery removes what was made ahead");
    put(&mut appender, 50).unwrap();
    log.prepare_step().unwrap();
    assert_eq!(rig.names().len(), 3);
    appender.close().unwrap();
    assert_eq!(rig.names().len(), 2);
    log.prepare_step().unwrap();
    assert_eq!(rig.names().len(), 2, "nothing is made after a close");
}

#[test]
fn a_segment_whose_creation_cannot_be_synced_is_not_used() {
    let rig = Rig::new(FlushDiskType::Async);
    let (_log, mut appender) = rig.open(0);
    for call in [Call::Sync, Call::SyncDir] {
        rig.faults().fail(call, 0, 1, io::ErrorKind::Other);
        assert!(matches!(put(&mut appender, 100), Err(Error::Io { action: "sync", .. })));
        assert!(rig.names().is_empty());
    }
    put(&mut appender, 100).unwrap();
}

/// Fills three segments and returns the end of the last record.
fn three_segments(rig: &Rig) -> i64 {
    let (log, mut appender) = rig.open(0);
    while appender.next_offset().0 < 2 * SEGMENT as i64 + 1000 {
        put(&mut appender, 500).unwrap();
    }
    log.sync_to(appender.next_offset()).unwrap();
    appender.next_offset().0
}

#[test]
fn recovery_cuts_the_tail_keeps_it_aside_and_leaves_zeros() {
    for flush in BOTH {
        let rig = Rig::new(flush);
        let end = three_segments(&rig);
        let before: Vec<Vec<u8>> = (0..3).map(|n| rig.file(n * SEGMENT)).collect();
        let (log, mut appender) = rig.open(1000);
        assert_eq!(rig.names(), [format!("{:020}", 0)]);
        let file = rig.file(0);
        assert_eq!(file[..1000], before[0][..1000]);
        assert!(file[1000..].iter().all(|b| *b == 0));

        let aside = rig.dir.path().join("quarantine");
        let last = |bytes: &[u8]| bytes.iter().rposition(|b| *b != 0).unwrap() + 1;
        let cuts = [(1000, &before[0][1000..]), (SEGMENT, &before[1]), (2 * SEGMENT, &before[2])];
        let manifest = fs::read_to_string(aside.join("manifest.jsonl")).unwrap();
        assert_eq!(manifest.lines().count(), 3);
        for ((at, cut), line) in cuts.into_iter().zip(manifest.lines()) {
            let name = format!("{at:020}-{}.bin", last(cut));
            assert_eq!(fs::read(aside.join(&name)).unwrap(), cut[..last(cut)]);
            assert!(line.contains(&name) && line.contains(&format!("\"offset\":{at}")), "{line}");
        }
        assert!(end > 2 * SEGMENT as i64);
        assert_eq!((log.max_offset(), log.durable_offset()), (PhysicalOffset(1000), PhysicalOffset(1000)));
        assert_eq!(put(&mut appender, 100).unwrap(), PhysicalOffset(1000));
        log.sync_to(PhysicalOffset(1100)).unwrap();
        assert_eq!(rig.file(0)[1000..1100], record(PhysicalOffset(1000), 100));
    }
}

#[test]
fn a_clean_end_leaves_no_quarantine_and_no_byte_changed() {
    let rig = Rig::new(FlushDiskType::Async);
    let end = three_segments(&rig);
    let before: Vec<Vec<u8>> = (0..3).map(|n| rig.file(n * SEGMENT)).collect();
    let writes = rig.faults().made(Call::Write);
    let _open = rig.open(end);
    assert_eq!(rig.faults().made(Call::Write), writes);
    assert_eq!((0..3).map(|n| rig.file(n * SEGMENT)).collect::<Vec<_>>(), before);
    assert!(names(&rig.dir.path().join("quarantine")).is_empty());
}

#[test]
fn a_recovery_that_is_cut_short_anywhere_comes_to_the_same_when_repeated() {
    for call in [Call::Replace, Call::Remove, Call::SyncDir, Call::Write, Call::Sync] {
        for good in 0..8 {
            let rig = Rig::new(FlushDiskType::Async);
            three_segments(&rig);
            let before = rig.file(0);
            rig.faults().fail(call, good, u64::MAX, io::ErrorKind::Other);
            let tried = rig.load().recovered(PhysicalOffset(1000), Arc::new(SystemClock::new()));
            rig.faults().heal();
            drop(tried);
            let _open = rig.open(1000);
            assert_eq!(rig.names().len(), 1);
            assert!(rig.file(0)[1000..].iter().all(|b| *b == 0));
            let aside = rig.dir.path().join("quarantine");
            let last = before.iter().rposition(|b| *b != 0).unwrap() + 1;
            let kept = fs::read(aside.join(format!("{:020}-{}.bin", 1000, last - 1000))).unwrap();
            assert_eq!(kept, before[1000..last], "{call:?} failed after {good}");
            assert_eq!(fs::read_to_string(aside.join("manifest.jsonl")).unwrap().lines().count(), 3);
        }
    }
}

#[test]
fn another_cut_of_the_same_place_and_length_is_kept_beside_the_first() {
    let rig = Rig::new(FlushDiskType::Async);
    for fill in [1_u8, 2] {
        let (_log, mut appender) = rig.open(0);
        appender.append(100, |_, sink| sink.put(&[fill; 100])).unwrap();
    }
    let _open = rig.open(0);
    let aside = rig.dir.path().join("quarantine");
    let stem = format!("{:020}-100", 0);
    assert_eq!(fs::read(aside.join(format!("{stem}.bin"))).unwrap(), [1; 100]);
    assert_eq!(fs::read(aside.join(format!("{stem}-2.bin"))).unwrap(), [2; 100]);
}

#[test]
fn the_log_goes_on_exactly_where_recovery_ended_it() {
    for flush in BOTH {
        for end in [0, 1, 500, SEGMENT as i64 - 4, SEGMENT as i64, SEGMENT as i64 + 7] {
            let rig = Rig::new(flush);
            three_segments(&rig);
            let (log, mut appender) = rig.open(end);
            assert_eq!(
                (appender.next_offset(), log.max_offset()),
                (PhysicalOffset(end), PhysicalOffset(end))
            );
            let want = if end == SEGMENT as i64 - 4 { SEGMENT as i64 } else { end };
            let at = put(&mut appender, 40).unwrap();
            assert_eq!(at.0, want);
            log.sync_to(appender.next_offset()).unwrap();
            assert_eq!(&*log.lease(at, 40).unwrap(), record(at, 40));
        }
    }
}

#[test]
fn loading_refuses_wrong_sizes_and_gaps_and_changes_nothing() {
    let rig = Rig::new(FlushDiskType::Async);
    three_segments(&rig);
    fs::write(rig.path(3 * SEGMENT), b"").unwrap();
    fs::write(rig.config.commit_log_path().join("notes.txt"), b"hi").unwrap();
    let loaded = rig.load();
    assert_eq!((loaded.segments().len(), loaded.ignored().len()), (3, 1));
    assert_eq!(loaded.end_of_files(), PhysicalOffset(3 * SEGMENT as i64));
    assert_eq!(loaded.bytes_from(PhysicalOffset(SEGMENT as i64 + 5)).unwrap().len(), SEGMENT - 5);
    assert!(rig.path(3 * SEGMENT).exists(), "loading removes nothing");
    drop(loaded.recovered(PhysicalOffset(0), Arc::new(SystemClock::new())).unwrap());
    assert!(!rig.path(3 * SEGMENT).exists());
    assert!(rig.config.commit_log_path().join("notes.txt").exists());

    let rig = Rig::new(FlushDiskType::Async);
    three_segments(&rig);
    fs::write(rig.path(2 * SEGMENT), b"short").unwrap();
    assert!(matches!(load(rig.vfs(), &rig.config), Err(Error::FileSize { actual: 5, .. })));
    fs::remove_file(rig.path(2 * SEGMENT)).unwrap();
    fs::rename(rig.path(SEGMENT), rig.path(2 * SEGMENT)).unwrap();
    match load(rig.vfs(), &rig.config) {
        Err(Error::MissingSegment { missing, .. }) => assert_eq!(missing, PhysicalOffset(SEGMENT as i64)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_reader_keeps_a_removed_segment_and_nobody_else_finds_it() {
    let rig = Rig::new(FlushDiskType::Async);
    let end = three_segments(&rig);
    let (log, _appender) = rig.open(end);
    let lease = log.lease(PhysicalOffset(500), 500).unwrap();
    rig.faults().fail(Call::Remove, 0, 1, io::ErrorKind::PermissionDenied);
    assert!(log.remove_oldest().is_err());
    assert_eq!(log.min_offset(), PhysicalOffset(0), "a segment that stays on disk stays in the log");
    let gone = log.remove_oldest().unwrap().unwrap();
    assert_eq!((gone.base, gone.path.exists()), (PhysicalOffset(0), false));
    assert_eq!(log.min_offset(), PhysicalOffset(SEGMENT as i64));
    assert!(log.lease(PhysicalOffset(500), 500).is_none());
    assert_eq!(&*lease, record(PhysicalOffset(500), 500));
    assert!(log.remove_oldest().unwrap().is_some());
    assert!(log.remove_oldest().unwrap().is_none(), "the last segment stays");
    assert_eq!(log.segments_info().unwrap().len(), 1);
}

#[test]
fn the_asynchronous_timers_are_rocketmqs() {
    let rig = Rig::new(FlushDiskType::Async);
    let clock = Arc::new(ManualClock::new(StoreTimestamp(0)));
    let (log, mut appender) =
        rig.load().recovered(PhysicalOffset(0), Arc::<ManualClock>::clone(&clock)).unwrap();
    let step = |ms: u64, force| {
        let progress = log.flush_step(Duration::from_millis(ms), force).unwrap();
        (progress.synced, progress.thorough, progress.durable.0)
    };
    assert_eq!(step(500, false), (false, false, 0));
    put(&mut appender, 4000).unwrap();
    assert_eq!(step(1_000, false), (false, false, 0), "fewer than 4 pages wait");
    put(&mut appender, 4100).unwrap();
    assert_eq!(step(1_100, false), (false, false, 0));
    put(&mut appender, 4100).unwrap();
    // The first segment is finished: its bytes must not wait for pages of the second.
    assert_eq!(step(1_500, false), (true, false, SEGMENT as i64 + 4100));
    put(&mut appender, 10).unwrap();
    assert_eq!(step(9_999, false), (false, false, SEGMENT as i64 + 4100));
    assert_eq!(step(10_000, false), (true, true, SEGMENT as i64 + 4110), "thorough after 10 s");
    put(&mut appender, 10).unwrap();
    assert_eq!(step(10_001, true), (true, true, SEGMENT as i64 + 4120));
    assert_eq!(step(30_000, false), (false, true, SEGMENT as i64 + 4120), "nothing to sync");
}

#[test]
fn a_roll_leaves_no_unsynced_bytes_in_the_segment_before() {
    let rig = Rig::new(FlushDiskType::Async);
    let (log, mut appender) = rig.open(0);
    for _ in 0..3 {
        put(&mut appender, SEGMENT - 8).unwrap();
    }
    let before = rig.faults().made(Call::Sync);
    log.sync_to(appender.next_offset()).unwrap();
    assert_eq!(rig.faults().made(Call::Sync) - before, 3, "each of the three segments is synced");
}

#[test]
fn a_staged_body_is_used_where_a_mapping_may_run_out_of_space() {
    let mut rig = Rig::new(FlushDiskType::Async);
    rig.vfs.copy_on_write = true;
    let (log, mut appender) = rig.open(0);
    let writes = rig.faults().made(Call::Write);
    let at = put(&mut appender, 100).unwrap();
    assert_eq!(
        rig.faults().made(Call::Write) - writes,
        1,
        "the record is in the page cache when put returns"
    );
    assert_eq!(log.max_offset(), at.plus(100));
    assert_eq!(log.dispatch_limit(), at.plus(100));
    put(&mut appender, SEGMENT - 100).unwrap();
    assert_eq!(log.max_offset(), appender.next_offset());
}

#[test]
fn a_wait_that_nobody_can_serve_ends() {
    let rig = Rig::new(FlushDiskType::Sync);
    let (log, mut appender) = rig.open(0);
    put(&mut appender, 100).unwrap();
    let start = Instant::now();
    assert!(!log.wait_durable(PhysicalOffset(101), LONG).unwrap(), "beyond what was appended");
    put(&mut appender, 100).unwrap();
    rig.faults().shut_gate(Call::Sync);
    let leader = {
        let log = Arc::clone(&log);
        thread::spawn(move || log.wait_durable(PhysicalOffset(200), LONG))
    };
    rig.faults().wait_held(Call::Sync);
    assert!(!log.wait_durable(PhysicalOffset(200), Duration::from_millis(20)).unwrap(), "the disk hangs");
    rig.faults().open_gate(Call::Sync);
    assert!(leader.join().unwrap().unwrap());
    assert!(start.elapsed() < LONG);
}

/// Threads put under one lock and wait; each acknowledged record must be in the file at that moment.
fn hammer(flush: FlushDiskType, threads: usize, puts: usize, flusher: bool) -> u64 {
    let rig = Rig::new(flush);
    let (log, appender) = rig.open(0);
    let appender = Mutex::new(appender);
    let (stop, done) = (AtomicBool::new(false), AtomicUsize::new(0));
    let syncs = rig.faults().made(Call::Sync);
    thread::scope(|scope| {
        if flusher {
            scope.spawn(|| {
                let start = Instant::now();
                while !stop.load(Ordering::Acquire) {
                    let progress = log.flush_step(start.elapsed(), false).unwrap();
                    log.flush_idle(progress.next);
                }
            });
            scope.spawn(|| {
                while !stop.load(Ordering::Acquire) {
                    log.prepare_step().unwrap();
                    log.prepare_idle(Duration::from_millis(100));
                }
            });
        }
        for n in 0..threads {
            let (rig, log, appender, done) = (&rig, &log, &appender, &done);
            let stop = &stop;
            scope.spawn(move || {
                for i in 0..puts {
                    let len = 64 + (n * 37 + i * 13) % 700;
                    let at = put(&mut appender.lock(), len).unwrap();
                    assert!(log.wait_durable(at.plus(len), LONG).unwrap());
                    assert!(log.durable_offset() >= at.plus(len));
                    let base = usize::try_from(at.0).unwrap() / SEGMENT * SEGMENT;
                    let from = usize::try_from(at.0).unwrap() - base;
                    assert_eq!(rig.file(base)[from..from + len], record(at, len));
                }
                if done.fetch_add(1, Ordering::AcqRel) + 1 == threads {
                    stop.store(true, Ordering::Release);
                    log.interrupt();
                }
            });
        }
    });
    rig.faults().made(Call::Sync) - syncs
}

#[test]
fn many_threads_put_and_wait_and_find_every_acknowledged_byte_in_the_file() {
    for flush in BOTH {
        hammer(flush, 8, 60, true);
        hammer(flush, 8, 30, false);
        hammer(flush, 1, 60, true);
    }
}

#[test]
fn waiters_share_syncs() {
    let rig = Rig::new(FlushDiskType::Sync);
    let (log, mut appender) = rig.open(0);
    put(&mut appender, 100).unwrap();
    rig.faults().shut_gate(Call::Sync);
    let wait = |upto| {
        let log = Arc::clone(&log);
        thread::spawn(move || log.wait_durable(PhysicalOffset(upto), LONG))
    };
    let leader = wait(100);
    rig.faults().wait_held(Call::Sync);
    for _ in 0..16 {
        put(&mut appender, 100).unwrap();
    }
    let before = rig.faults().made(Call::Sync);
    let others: Vec<_> = (2..=17).map(|n| wait(100 * n)).collect();
    while !log.group.is_wanted() {
        thread::yield_now();
    }
    thread::sleep(Duration::from_millis(30));
    rig.faults().open_gate(Call::Sync);
    log.flush_step(Duration::ZERO, false).unwrap();
    for waiter in others.into_iter().chain([leader]) {
        assert!(waiter.join().unwrap().unwrap());
    }
    assert!(rig.faults().made(Call::Sync) - before <= 2, "one sync, or two when a thread came late");
}

#[test]
fn a_completion_runs_once_from_the_thread_that_syncs() {
    let rig = Rig::new(FlushDiskType::Sync);
    let (log, mut appender) = rig.open(0);
    let (told, answers) = mpsc::channel();
    for n in 0..3 {
        let at = put(&mut appender, 100).unwrap();
        let told = told.clone();
        log.on_durable(at.plus(100), Box::new(move |ok| told.send((n, ok.unwrap())).unwrap()));
    }
    assert!(answers.try_recv().is_err());
    let start = Instant::now();
    log.flush_idle(LONG);
    assert!(start.elapsed() < LONG, "a completion calls the flush thread");
    assert!(log.flush_step(Duration::ZERO, false).unwrap().synced);
    assert_eq!(answers.try_iter().collect::<Vec<_>>(), [(0, true), (1, true), (2, true)]);
    log.on_durable(PhysicalOffset(300), Box::new(move |ok| told.send((9, ok.unwrap())).unwrap()));
    assert_eq!(answers.try_iter().collect::<Vec<_>>(), [(9, true)]);
}

#[test]
fn a_sleeping_reader_is_woken_by_a_put() {
    let rig = Rig::new(FlushDiskType::Async);
    let (log, mut appender) = rig.open(0);
    put(&mut appender, 64).unwrap();
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut seen = PhysicalOffset(64);
            let start = Instant::now();
            while seen.0 < 64 * 60 {
                seen = log.wait_dispatchable(seen, LONG);
            }
            start.elapsed()
        });
        for _ in 1..60 {
            thread::sleep(Duration::from_millis(2));
            put(&mut appender, 64).unwrap();
        }
        assert!(reader.join().unwrap() < LONG / 2);
    });
}

#[test]
fn staged_bytes_that_nobody_waits_for_are_bounded() {
    let rig = Rig::new(FlushDiskType::Sync);
    let config = rig.config.clone().commit_log_file_size(64_u64 << 20);
    let (log, mut appender) =
        load(rig.vfs(), &config).unwrap().recovered(PhysicalOffset(0), Arc::new(SystemClock::new())).unwrap();
    for _ in 0..20 {
        put(&mut appender, 1 << 20).unwrap();
        let waiting = appender.next_offset().since(log.max_offset());
        assert!(waiting <= stage::STAGE_LIMIT as u64, "{waiting} bytes wait");
    }
    let progress = log.flush_step(LONG, false).unwrap();
    assert_eq!((progress.synced, progress.durable), (true, appender.next_offset()));
}
