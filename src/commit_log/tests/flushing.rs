//! Durability: who syncs, who is woken, and what a failure does.

use super::*;

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
fn the_asynchronous_timers_are_rocketmqs() {
    let rig = Rig::new(FlushDiskType::Async);
    let clock = Arc::new(ManualClock::new(StoreTimestamp(0)));
    let (log, mut appender) =
        rig.load().recovered(PhysicalOffset(0), Arc::<ManualClock>::clone(&clock)).unwrap();
    let step = |ms: u64, force| {
        log.flush_step(Duration::from_millis(ms), force).unwrap();
        log.durable_offset().0
    };
    assert_eq!(step(500, false), 0);
    put(&mut appender, 4000).unwrap();
    assert_eq!(step(1_000, false), 0, "fewer than 4 pages wait");
    put(&mut appender, 4100).unwrap();
    assert_eq!(step(1_100, false), 0);
    put(&mut appender, 4100).unwrap();
    // The first segment is finished: its bytes must not wait for pages of the second.
    assert_eq!(step(1_500, false), SEGMENT as i64 + 4100);
    put(&mut appender, 10).unwrap();
    assert_eq!(step(9_999, false), SEGMENT as i64 + 4100);
    assert_eq!(step(10_000, false), SEGMENT as i64 + 4110, "thorough after 10 s");
    put(&mut appender, 10).unwrap();
    assert_eq!(step(10_001, true), SEGMENT as i64 + 4120);
    assert_eq!(step(30_000, false), SEGMENT as i64 + 4120, "nothing to sync");
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
    log.flush_step(Duration::ZERO, false).unwrap();
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
                seen = log.wait_dispatchable(|| seen, LONG);
            }
            start.elapsed()
        });
        for _ in 1..60 {
            thread::sleep(Duration::from_millis(2));
            put(&mut appender, 64).unwrap();
            log.announce();
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
    log.flush_step(LONG, false).unwrap();
    assert_eq!(log.durable_offset(), appender.next_offset());
}
