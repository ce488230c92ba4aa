//! Ending the log where recovery says, and letting go of its oldest part.

use super::*;

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
            assert_eq!(&*lease(&log, at, 40).unwrap(), record(at, 40));
        }
    }
}

#[test]
fn loading_changes_nothing_and_leaves_foreign_names_alone() {
    let rig = Rig::new(FlushDiskType::Async);
    three_segments(&rig);
    fs::write(rig.path(3 * SEGMENT), b"").unwrap();
    fs::write(rig.config.commit_log_path().join("notes.txt"), b"hi").unwrap();
    let loaded = rig.load();
    assert_eq!(loaded.segments().len(), 3);
    assert_eq!(loaded.end_of_files(), PhysicalOffset(3 * SEGMENT as i64));
    let bases: Vec<_> = loaded.segments().map(|(base, bytes)| (base.0, bytes.len())).collect();
    assert_eq!(bases, [0, 1, 2].map(|n| (n * SEGMENT as i64, SEGMENT)));
    assert!(rig.path(3 * SEGMENT).exists(), "loading removes nothing");
    drop(loaded.recovered(PhysicalOffset(0), Arc::new(SystemClock::new())).unwrap());
    assert!(!rig.path(3 * SEGMENT).exists());
    assert!(rig.config.commit_log_path().join("notes.txt").exists());

    assert_eq!(loaded_oddities(&rig), (0, vec![rig.config.commit_log_path().join("notes.txt")]));
}

fn loaded_oddities(rig: &Rig) -> (usize, Vec<std::path::PathBuf>) {
    let (mended, strangers) = rig.load().oddities();
    (mended.len(), strangers)
}

#[test]
fn short_and_missing_files_are_filled_up_when_another_proves_the_size() {
    let rig = Rig::new(FlushDiskType::Async);
    three_segments(&rig);
    let first = rig.file(0);
    fs::write(rig.path(2 * SEGMENT), b"short").unwrap();
    fs::remove_file(rig.path(SEGMENT)).unwrap();
    assert_eq!(loaded_oddities(&rig).0, 2);
    assert_eq!(rig.file(0), first);
    assert_eq!(rig.file(SEGMENT), vec![0; SEGMENT]);
    assert_eq!(rig.file(2 * SEGMENT)[..6], *b"short\0");
    assert_eq!(rig.file(2 * SEGMENT).len(), SEGMENT);
    assert_eq!(loaded_oddities(&rig).0, 0);
}

#[test]
fn without_a_file_of_the_configured_size_the_configuration_is_in_doubt() {
    let rig = Rig::new(FlushDiskType::Async);
    fs::create_dir_all(rig.config.commit_log_path()).unwrap();
    fs::write(rig.path(0), b"short").unwrap();
    assert!(matches!(load(rig.vfs(), &rig.config), Err(Error::FileSize { actual: 5, .. })));
    let mut config = rig.config.clone();
    config.sizes_are_certain = true;
    drop(load(rig.vfs(), &config).unwrap());
    assert_eq!(rig.file(0).len(), SEGMENT);
}

#[test]
fn a_stray_segment_far_away_is_no_reason_to_make_thousands() {
    let rig = Rig::new(FlushDiskType::Async);
    three_segments(&rig);
    fs::copy(rig.path(0), rig.path(SEGMENT * 5000)).unwrap();
    match load(rig.vfs(), &rig.config) {
        Err(Error::MissingSegment { missing, .. }) => assert_eq!(missing, PhysicalOffset(3 * SEGMENT as i64)),
        other => panic!("{other:?}"),
    }
    assert_eq!(rig.names().len(), 4);
}

/// A power cut may bring back the one; with the next one gone there would be a hole.
#[test]
fn no_segment_is_removed_while_the_removal_of_the_one_before_is_not_durable() {
    let rig = Rig::new(FlushDiskType::Async);
    let end = three_segments(&rig);
    let (log, _appender) = rig.open(end);
    rig.faults().fail(Call::SyncDir, 0, 2, io::ErrorKind::Other);
    assert!(log.remove_oldest().is_err());
    let removed = rig.faults().made(Call::Remove);
    assert!(log.remove_oldest().is_err());
    assert_eq!(rig.faults().made(Call::Remove), removed, "the directory cannot be synced yet");
    assert_eq!(log.remove_oldest().unwrap().map(|gone| gone.base), Some(PhysicalOffset(SEGMENT as i64)));
}

#[test]
fn a_reader_keeps_a_removed_segment_and_nobody_else_finds_it() {
    let rig = Rig::new(FlushDiskType::Async);
    let end = three_segments(&rig);
    let (log, _appender) = rig.open(end);
    let held = lease(&log, PhysicalOffset(500), 500).unwrap();
    rig.faults().fail(Call::Remove, 0, 1, io::ErrorKind::PermissionDenied);
    assert!(log.remove_oldest().is_err());
    assert_eq!(log.min_offset(), PhysicalOffset(0), "a segment that stays on disk stays in the log");
    let gone = log.remove_oldest().unwrap().unwrap();
    assert_eq!((gone.base, gone.path.exists()), (PhysicalOffset(0), false));
    assert_eq!(log.min_offset(), PhysicalOffset(SEGMENT as i64));
    assert!(lease(&log, PhysicalOffset(500), 500).is_none());
    assert_eq!(&*held, record(PhysicalOffset(500), 500));
    assert!(log.remove_oldest().unwrap().is_some());
    assert!(log.remove_oldest().unwrap().is_none(), "the last segment stays");
    assert_eq!(log.segments_info().unwrap().len(), 1);
}
