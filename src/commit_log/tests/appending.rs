//! Appending, rolling, and what readers see of it.

use super::*;

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
    assert_eq!(&*lease(&log, at, 100).unwrap(), record(at, 100));
    assert!(lease(&log, at, 101).is_none());
    assert!(lease(&log, PhysicalOffset(-1), 1).is_none());
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
    assert_eq!((log.max_offset(), lease(&log, at, 100).is_none()), (PhysicalOffset(0), true));
    let syncs = rig.faults().made(Call::Sync);
    log.wait_written(end).unwrap();
    assert_eq!(rig.faults().made(Call::Sync), syncs, "a written record needs no sync");
    assert_eq!((log.max_offset(), log.dispatch_limit()), (end, PhysicalOffset(0)));
    assert_eq!(rig.file(0)[..100], record(at, 100));
    assert!(log.wait_durable(end, LONG).unwrap());
    assert_eq!((log.durable_offset(), log.dispatch_limit()), (end, end));
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

/// Java makes its segments sparse. A store through a mapping into a hole of a full disk is a signal, not an error, so
/// the space is claimed before the first put into a segment that was found.
#[test]
fn a_sparse_segment_is_claimed_before_the_first_put_into_it() {
    use std::os::unix::fs::MetadataExt;
    for flush in BOTH {
        let rig = Rig::new(flush);
        let config = rig.config.clone().commit_log_file_size(1_u64 << 20);
        fs::create_dir_all(config.commit_log_path()).unwrap();
        fs::File::create(rig.path(0)).unwrap().set_len(1 << 20).unwrap();
        let end = PhysicalOffset(5000);
        let (log, mut appender) =
            load(rig.vfs(), &config).unwrap().recovered(end, Arc::new(SystemClock::new())).unwrap();
        let allocated = || fs::metadata(rig.path(0)).unwrap().blocks() * 512;
        assert!(allocated() < 1 << 20, "an open without a put claims nothing");
        rig.faults().fail(Call::Reserve, 0, 2, io::ErrorKind::StorageFull);
        for _ in 0..2 {
            assert!(matches!(put(&mut appender, 100), Err(Error::NoSpace { bytes: 1_043_576, .. })));
        }
        assert_eq!(put(&mut appender, 100).unwrap(), end);
        assert!(allocated() >= (1 << 20) - 8192, "{} bytes are claimed", allocated());
        log.sync_to(appender.next_offset()).unwrap();
        assert_eq!(rig.file(0)[5000..5100], record(end, 100));
    }
}
