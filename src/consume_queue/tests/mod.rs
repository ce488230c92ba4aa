//! Tests of the queues as a whole, over real files.

use std::{io::ErrorKind, path::Path, sync::Arc, time::Duration};

use tempfile::TempDir;

use super::{table::QueueFlush, *};
use crate::{
    config::Config,
    vfs::{
        OsVfs,
        faulty::{Call, FaultyVfs},
    },
};

mod golden;
mod model;

/// Files of five entries, so that everything happens at their ends.
fn config(root: &Path) -> Config {
    Config::new(root).consume_queue_file_size(100u64).batch_consume_queue_file_size(230u64)
}

fn open(config: &Config) -> QueueTable {
    QueueTable::load(Arc::new(OsVfs), config).unwrap()
}

fn name(topic: &str) -> TopicName {
    TopicName::new(topic).unwrap()
}

fn queue(table: &QueueTable) -> Arc<Queue> {
    table.get_or_create(&name("t"), QueueId(0), QueueKind::Simple)
}

/// The record of queue offset `q` in a log of records of 10 bytes.
fn record(q: i64) -> Dispatch<'static> {
    Dispatch {
        queue_offset: QueueOffset(q),
        offset: PhysicalOffset(q * 10),
        size: 10,
        tags_code: TagsCode(-q),
        store_timestamp: StoreTimestamp(1000 + q),
        batch_num: 1,
        bitmap: None,
    }
}

fn fill(queue: &Queue, range: std::ops::Range<i64>) {
    for q in range {
        assert_eq!(queue.append(&record(q)).unwrap(), Appended::Done, "{q}");
    }
}

fn offsets(queue: &Queue) -> Vec<i64> {
    let mut units = Vec::new();
    let mut at = queue.min_offset();
    while queue.read(at, 1000, &mut units).unwrap() > 0 {
        at = units.last().unwrap().next();
    }
    units.iter().map(|unit| unit.queue_offset.0).collect()
}

fn file(dir: &TempDir, base: u64) -> std::path::PathBuf {
    dir.path().join(format!("consumequeue/t/0/{base:020}"))
}

fn limits(queue: &Queue) -> (i64, i64, i64) {
    (queue.min_offset().0, queue.max_offset().0, queue.max_physical().0)
}

#[test]
fn entries_are_readable_before_and_after_they_are_written() {
    let dir = TempDir::new().unwrap();
    let table = open(&config(dir.path()));
    let queue = queue(&table);
    fill(&queue, 0..7);
    assert_eq!(table.pending_bytes(), 140);
    assert!(!dir.path().join("consumequeue").exists(), "an append makes no file");
    assert_eq!(offsets(&queue), (0..7).collect::<Vec<_>>());
    table.write_out().unwrap();
    assert_eq!(table.pending_bytes(), 0);
    fill(&queue, 7..9);
    assert_eq!(offsets(&queue), (0..9).collect::<Vec<_>>());
    assert_eq!(std::fs::metadata(file(&dir, 100)).unwrap().len(), 100);
    let mut out = Vec::new();
    assert_eq!(queue.read(QueueOffset(3), 32, &mut out).unwrap(), 2, "a read ends with its file");
    assert_eq!(out[1].tags_code, TagsCode(-4));
    assert_eq!(queue.read(QueueOffset(9), 32, &mut out).unwrap(), 0);
    assert_eq!(queue.read(QueueOffset(-1), 32, &mut out).unwrap(), 0);
}

#[test]
fn an_entry_never_lands_at_another_slot_than_its_own() {
    let dir = TempDir::new().unwrap();
    let table = open(&config(dir.path()));
    let queue = queue(&table);
    fill(&queue, 0..3);
    assert_eq!(queue.append(&record(1)).unwrap(), Appended::Duplicate);
    assert_eq!(queue.append(&record(4)).unwrap(), Appended::Gap { expected: QueueOffset(3) });
    let stale = Dispatch { queue_offset: QueueOffset(3), ..record(1) };
    assert_eq!(queue.append(&stale).unwrap(), Appended::Duplicate, "a record of the past");
    assert!(queue.append(&Dispatch { size: 0, ..record(3) }).is_err());
    assert!(queue.append(&Dispatch { queue_offset: QueueOffset(i64::MAX), ..record(3) }).is_err());
    assert_eq!(offsets(&queue), [0, 1, 2]);
}

#[test]
fn a_queue_that_starts_midway_begins_with_fillers() {
    let dir = TempDir::new().unwrap();
    let table = open(&config(dir.path()));
    let queue = queue(&table);
    fill(&queue, 13..14);
    assert_eq!((limits(&queue), queue.min_logic_offset()), ((13, 14, 140), 260));
    table.write_out().unwrap();
    fill(&queue, 14..17);
    table.write_out().unwrap();
    let bytes = std::fs::read(file(&dir, 200)).unwrap();
    let filler = [0, 0, 0, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(bytes[..60], filler.repeat(3));
    assert!(!file(&dir, 100).exists());

    let again = open(&config(dir.path()));
    let queue = again.get("t", QueueId(0)).unwrap();
    queue.recover().unwrap();
    assert_eq!((limits(&queue), offsets(&queue)), ((13, 17, 170), (13..17).collect()));
    // Only fillers left: the queue may start anywhere again.
    queue.truncate_to(QueueOffset(13)).unwrap();
    fill(&queue, 21..23);
    assert_eq!(limits(&queue), (21, 23, 230));
    again.write_out().unwrap();
    assert!(!file(&dir, 200).exists() && file(&dir, 400).exists());
}

#[test]
fn a_new_queue_costs_no_file_and_many_share_few_mappings() {
    let dir = TempDir::new().unwrap();
    let config = config(dir.path()).max_mapped_consume_queue_files(4usize);
    let table = open(&config);
    for id in 0..40 {
        let queue = table.get_or_create(&name("t"), QueueId(id), QueueKind::Simple);
        fill(&queue, 0..12);
    }
    table.write_out().unwrap();
    for queue in table.queues() {
        assert_eq!(offsets(&queue).len(), 12);
    }
    assert!(table.mapped_files() <= 4, "{}", table.mapped_files());
    let again = open(&config);
    again.recover().unwrap();
    assert!(again.mapped_files() <= 4);
    assert_eq!(again.queues().len(), 40);
    assert!(again.queues().iter().all(|queue| queue.max_physical() == PhysicalOffset(120)));
}

#[test]
fn writing_to_more_queues_than_are_mapped_closes_none_of_those_in_use() {
    let dir = TempDir::new().unwrap();
    let table = open(&Config::new(dir.path()).max_mapped_consume_queue_files(16usize));
    let queues: Vec<_> = (0..20)
        .map(|id| table.get_or_create(&name("t"), QueueId(id), QueueKind::Simple))
        .inspect(|queue| fill(queue, 0..1))
        .collect();
    table.write_out().unwrap();
    let mapped = || -> Vec<bool> { queues.iter().map(|queue| queue.lock().run.is_mapped()).collect() };
    let first = mapped();
    assert_eq!(first.iter().filter(|mapped| **mapped).count(), 16);
    for q in 1..4 {
        queues.iter().for_each(|queue| fill(queue, q..q + 1));
        table.write_out().unwrap();
        assert_eq!(mapped(), first, "round {q}");
    }
    // Those that are not written to any more make room for those that are.
    let busy = &queues[8..];
    for q in 4..30 {
        busy.iter().for_each(|queue| fill(queue, q..q + 1));
        table.write_out().unwrap();
    }
    assert!(busy.iter().all(|queue| queue.lock().run.is_mapped()));
    assert!(queues.iter().enumerate().all(|(n, queue)| queue.max_offset().0 == if n < 8 { 4 } else { 30 }));
    assert!(busy.iter().all(|queue| offsets(queue) == (0..30).collect::<Vec<_>>()));
}

#[test]
fn short_writes_to_very_many_queues_are_put_off_but_not_for_long() {
    let dir = TempDir::new().unwrap();
    let config = Config::new(dir.path()).max_mapped_consume_queue_files(4usize);
    let table = open(&config);
    let queues: Vec<_> =
        (0..300).map(|id| table.get_or_create(&name("t"), QueueId(id), QueueKind::Simple)).collect();
    let at = |seconds| {
        table.flush_step(Duration::from_secs(seconds), false).unwrap();
    };
    let waiting = || queues.iter().filter(|queue| queue.lock().run.waiting() > 0).count();
    at(0);
    queues.iter().for_each(|queue| fill(queue, 0..1));
    at(1);
    assert_eq!(waiting(), 0, "the first entry makes the file");
    queues.iter().for_each(|queue| fill(queue, 1..2));
    fill(&queues[7], 2..200);
    at(2);
    assert_eq!((waiting(), queues[7].lock().run.waiting()), (299, 0), "what is worth a write is written");
    at(3);
    assert_eq!(waiting(), 299);
    at(4);
    assert_eq!((waiting(), table.pending_bytes()), (0, 0), "and the rest in time");
    // A thorough turn says that everything is durable.
    queues.iter().for_each(|queue| fill(queue, queue.max_offset().0..queue.max_offset().0 + 1));
    assert!(table.flush_step(Duration::from_secs(61), false).unwrap().thorough);
    assert_eq!(waiting(), 0);
    // Few queues are written at every turn.
    fill(&queues[0], 3..4);
    at(62);
    assert_eq!(waiting(), 0);
}

#[test]
fn recovery_ends_a_queue_at_the_first_hole_and_zeroes_what_follows() {
    let dir = TempDir::new().unwrap();
    let table = open(&config(dir.path()));
    fill(&queue(&table), 0..19);
    table.write_out().unwrap();
    let mut bytes = std::fs::read(file(&dir, 200)).unwrap();
    bytes[40..60].fill(0);
    std::fs::write(file(&dir, 200), bytes).unwrap();

    let table = open(&config(dir.path()));
    table.recover().unwrap();
    let queue = table.get("t", QueueId(0)).unwrap();
    assert_eq!(limits(&queue), (0, 12, 120));
    assert!(!file(&dir, 300).exists());
    assert_eq!(std::fs::read(file(&dir, 200)).unwrap()[40..], [0; 60]);
    fill(&queue, 12..13);
    assert_eq!(offsets(&queue), (0..13).collect::<Vec<_>>());
}

#[test]
fn a_last_file_of_zeros_holds_no_entry() {
    // RocketMQ takes such a file for one entry (0,0,0) and gives its place to a message.
    let dir = TempDir::new().unwrap();
    let table = open(&config(dir.path()));
    fill(&queue(&table), 0..5);
    table.write_out().unwrap();
    std::fs::write(file(&dir, 100), [0; 100]).unwrap();
    std::fs::write(file(&dir, 200), []).unwrap();
    let table = open(&config(dir.path()));
    assert!(file(&dir, 200).exists(), "loading changes nothing");
    table.recover().unwrap();
    assert_eq!(limits(&table.get("t", QueueId(0)).unwrap()), (0, 5, 50));
    assert!(!file(&dir, 200).exists());
}

#[test]
fn files_of_a_wrong_size_and_foreign_names_are_told_apart() {
    let dir = TempDir::new().unwrap();
    let table = open(&config(dir.path()));
    fill(&queue(&table), 0..8);
    table.write_out().unwrap();
    for junk in ["consumequeue/readme", "consumequeue/t/x", "consumequeue/t/0/notes", "consumequeue/t/0/17"] {
        std::fs::write(dir.path().join(junk), "?").unwrap();
    }
    assert!(QueueTable::load(Arc::new(OsVfs), &config(dir.path())).is_ok());
    let load = |config: &Config| QueueTable::load(Arc::new(OsVfs), config).unwrap_err();
    let other = load(&config(dir.path()).consume_queue_file_size(200u64));
    assert!(matches!(&other, crate::Error::FileSize { actual: 100, expected: 200, .. }), "{other}");
    std::fs::write(file(&dir, 50), [0; 100]).unwrap();
    assert!(matches!(load(&config(dir.path())), crate::Error::ForeignFile { .. }));
}

#[test]
fn cutting_the_log_cuts_the_queue() {
    let dir = TempDir::new().unwrap();
    let table = open(&config(dir.path()));
    let queue = queue(&table);
    fill(&queue, 0..17);
    table.write_out().unwrap();
    fill(&queue, 17..19);
    queue.truncate_to(QueueOffset(18)).unwrap();
    assert_eq!(limits(&queue), (0, 18, 180));
    queue.truncate_to(QueueOffset(7)).unwrap();
    assert_eq!(limits(&queue), (0, 7, 70));
    assert_eq!(table.pending_bytes(), 0);
    assert_eq!(std::fs::read(file(&dir, 100)).unwrap()[40..], [0; 60]);
    assert!(!file(&dir, 200).exists());
    queue.truncate_to(QueueOffset(0)).unwrap();
    assert_eq!((limits(&queue), offsets(&queue)), ((0, 0, 0), vec![]));
    fill(&queue, 0..2);
    assert_eq!(offsets(&queue), [0, 1]);
}

/// Whatever part of an entry the zeros reach before a crash: one whose size is 0 is none.
#[test]
fn an_entry_that_is_cut_loses_its_size_first() {
    for (kind, dir, width) in
        [(QueueKind::Simple, "consumequeue", 20), (QueueKind::Batch, "batchconsumequeue", 46)]
    {
        let root = TempDir::new().unwrap();
        let vfs = FaultyVfs::default();
        let table = QueueTable::load(Arc::new(vfs.clone()), &config(root.path())).unwrap();
        let queue = table.get_or_create(&name("t"), QueueId(0), kind);
        fill(&queue, 0..4);
        table.write_out().unwrap();
        let path = root.path().join(dir).join("t/0/00000000000000000000");
        let mut expected = std::fs::read(&path).unwrap();
        vfs.faults.fail(Call::Write, 1, u64::MAX, ErrorKind::Other);
        assert!(queue.truncate_to(QueueOffset(2)).is_err());
        expected[2 * width + 8..][..4].fill(0);
        assert!(std::fs::read(&path).unwrap() == expected, "{kind:?}");
    }
}

#[test]
fn retention_moves_the_minimum_and_drops_whole_files() {
    let dir = TempDir::new().unwrap();
    let table = open(&config(dir.path()));
    let queue = queue(&table);
    fill(&queue, 0..17);
    table.write_out().unwrap();
    queue.correct_min_offset(PhysicalOffset(115)).unwrap();
    assert_eq!((limits(&queue), queue.min_logic_offset()), ((12, 17, 170), 240));
    assert_eq!(queue.delete_before(PhysicalOffset(115), 1).unwrap(), 1);
    assert_eq!(queue.delete_before(PhysicalOffset(115), 9).unwrap(), 1);
    assert_eq!(offsets(&queue), (12..17).collect::<Vec<_>>());
    queue.correct_min_offset(PhysicalOffset(1000)).unwrap();
    assert_eq!(queue.delete_before(PhysicalOffset(1000), 9).unwrap(), 1, "the last file stays");
    assert_eq!(limits(&queue), (17, 17, 170));
    let table = open(&config(dir.path()));
    table.recover().unwrap();
    assert_eq!(limits(&table.get("t", QueueId(0)).unwrap()), (15, 17, 170));
}

#[test]
fn a_removed_topic_leaves_nothing_and_takes_nothing_in() {
    let dir = TempDir::new().unwrap();
    let table = open(&config(dir.path()).consume_queue_ext(true));
    let queue = queue(&table);
    fill(&queue, 0..7);
    table.write_out().unwrap();
    fill(&queue, 7..8);
    assert!(dir.path().join("consumequeue_ext/t/0").exists());
    table.remove_topic("t").unwrap();
    assert!(!dir.path().join("consumequeue/t").exists() && !dir.path().join("consumequeue_ext/t").exists());
    assert_eq!((table.pending_bytes(), table.queues().len()), (0, 0));
    assert_eq!(queue.append(&record(8)).unwrap(), Appended::Duplicate);
    assert_eq!(offsets(&queue), Vec::<i64>::new());
    table.write_out().unwrap();
    table.flush_step(Duration::ZERO, true).unwrap();
    assert!(!dir.path().join("consumequeue/t").exists());
}

#[test]
fn flushing_follows_the_timers_of_rocketmq() {
    let dir = TempDir::new().unwrap();
    let table = open(&config(dir.path()).consume_queue_file_size(20_000u64));
    let queue = queue(&table);
    let at = |ms| table.flush_step(Duration::from_millis(ms), false).unwrap();
    fill(&queue, 0..1);
    assert_eq!(at(0), QueueFlush { files: 1, thorough: true }, "the first turn takes all");
    fill(&queue, 1..2);
    assert_eq!(at(999), QueueFlush::default(), "not before the interval has passed");
    assert_eq!(at(1000), QueueFlush { files: 0, thorough: false }, "a few bytes can wait");
    fill(&queue, 2..500);
    assert_eq!(at(2000), QueueFlush { files: 1, thorough: false }, "two pages cannot");
    fill(&queue, 500..501);
    assert_eq!(at(3000).files, 0);
    assert_eq!(at(60_000), QueueFlush { files: 1, thorough: true });
    assert_eq!(at(120_000), QueueFlush { files: 0, thorough: true });
    fill(&queue, 501..502);
    let forced = table.flush_step(Duration::from_millis(120_001), true).unwrap();
    assert_eq!(forced, QueueFlush { files: 1, thorough: true });
}

#[test]
fn an_entry_can_be_rewritten_in_file_and_in_memory() {
    let dir = TempDir::new().unwrap();
    let table = open(&config(dir.path()));
    let queue = queue(&table);
    fill(&queue, 0..6);
    table.write_out().unwrap();
    fill(&queue, 6..8);
    for q in [2, 7] {
        queue.rewrite(&Dispatch { tags_code: TagsCode(99), ..record(q) }).unwrap();
        assert_eq!(queue.get(QueueOffset(q)).unwrap().unwrap().tags_code, TagsCode(99));
    }
    assert!(queue.rewrite(&record(8)).is_err());
    assert_eq!(offsets(&queue), (0..8).collect::<Vec<_>>());
}

#[test]
fn ext_units_cross_files_and_survive_recovery_and_loss() {
    let dir = TempDir::new().unwrap();
    let config = config(dir.path()).consume_queue_ext(true).consume_queue_ext_file_size(64u64);
    let table = open(&config);
    let queue = queue(&table);
    let bitmap = |q: i64| vec![7; usize::try_from(q).unwrap()];
    for q in 0..9 {
        let bitmap = bitmap(q);
        let record = Dispatch { bitmap: (q > 0).then_some(&bitmap), ..record(q) };
        assert_eq!(queue.append(&record).unwrap(), Appended::Done);
    }
    let check = |queue: &Queue, upto: i64| {
        for q in 0..upto {
            let unit = queue.get(QueueOffset(q)).unwrap().unwrap();
            let ext = unit.ext.expect("an ext unit");
            assert_eq!((unit.tags_code, ext.store_timestamp), (TagsCode(-q), StoreTimestamp(1000 + q)));
            assert_eq!(ext.bitmap, bitmap(q));
        }
    };
    check(&queue, 9);
    table.write_out().unwrap();
    check(&queue, 9);
    let table = open(&config);
    table.recover().unwrap();
    let queue = table.get("t", QueueId(0)).unwrap();
    check(&queue, 9);
    queue.truncate_to(QueueOffset(5)).unwrap();
    assert_eq!(queue.append(&Dispatch { bitmap: Some(&[7; 5]), ..record(5) }).unwrap(), Appended::Done);
    check(&queue, 6);
    table.write_out().unwrap();
    drop((queue, table));
    std::fs::remove_dir_all(dir.path().join("consumequeue_ext")).unwrap();
    let table = open(&config);
    table.recover().unwrap();
    let queue = table.get("t", QueueId(0)).unwrap();
    let unit = queue.get(QueueOffset(3)).unwrap().unwrap();
    assert!(unit.ext.is_none() && unit.tags_code.0 < i64::from(i32::MIN), "the address, as it stands there");
    queue.rewrite(&record(3)).unwrap();
    assert_eq!(queue.get(QueueOffset(3)).unwrap().unwrap().tags_code, TagsCode(-3));
}

#[test]
fn a_batch_entry_stands_for_all_its_messages() {
    let dir = TempDir::new().unwrap();
    let table = open(&config(dir.path()));
    let queue = table.get_or_create(&name("t"), QueueId(0), QueueKind::Batch);
    let mut base = 0;
    for i in 0..12 {
        let num = [1, 2, 3][usize::try_from(i % 3).unwrap()];
        let record = Dispatch { queue_offset: QueueOffset(base), batch_num: num, ..record(i) };
        assert_eq!(
            queue.append(&Dispatch { queue_offset: QueueOffset(base), ..record }).unwrap(),
            Appended::Done
        );
        base += i64::from(num);
    }
    table.write_out().unwrap();
    let table = open(&config(dir.path()));
    table.recover().unwrap();
    let queue = table.get("t", QueueId(0)).unwrap();
    assert_eq!((queue.kind(), limits(&queue)), (QueueKind::Batch, (0, 24, 120)));
    let unit = queue.get(QueueOffset(11)).unwrap().unwrap();
    assert_eq!((unit.queue_offset, unit.batch_num, unit.offset), (QueueOffset(9), 3, PhysicalOffset(50)));
    let gap = Dispatch { queue_offset: QueueOffset(30), ..record(20) };
    let (taken, outcome) = queue.append_all(std::iter::once(gap));
    assert_eq!((taken, outcome.unwrap()), (0, Appended::Gap { expected: QueueOffset(24) }));
    assert_eq!(queue.append(&gap).unwrap(), Appended::Gap { expected: QueueOffset(24) });
    // A pass over the log knows that what is missing is lost, and where.
    queue.fill(QueueOffset(30), PhysicalOffset(130), 1000, StoreTimestamp(7)).unwrap();
    assert_eq!(queue.append(&gap).unwrap(), Appended::Done);
    let lost = queue.get(QueueOffset(27)).unwrap().unwrap();
    assert_eq!((limits(&queue), lost.queue_offset, lost.batch_num), ((0, 31, 210), QueueOffset(24), 6));
    assert_eq!(queue.before(QueueOffset(30)).unwrap().unwrap().queue_offset, QueueOffset(24));
    assert_eq!(queue.before(QueueOffset(24)).unwrap().unwrap().queue_offset, QueueOffset(21));
    assert!(queue.before(QueueOffset(0)).unwrap().is_none());
    queue.truncate_to(QueueOffset(24)).unwrap();
    queue.correct_min_offset(PhysicalOffset(60)).unwrap();
    assert_eq!(limits(&queue), (12, 24, 120));
    queue.truncate_to(QueueOffset(18)).unwrap();
    assert_eq!(limits(&queue), (12, 18, 90));
}

#[test]
fn an_empty_queue_answers_a_search_with_its_limits() {
    let dir = TempDir::new().unwrap();
    let table = open(&config(dir.path()));
    for (id, kind) in [(0, QueueKind::Simple), (1, QueueKind::Batch)] {
        let queue = table.get_or_create(&name("t"), QueueId(id), kind);
        for boundary in [Boundary::Lower, Boundary::Upper] {
            assert_eq!(queue.search_by_time(StoreTimestamp(5), boundary, |_| None).unwrap(), QueueOffset(0));
        }
    }
}

#[test]
fn a_full_disk_is_an_error_and_the_entries_wait() {
    let dir = TempDir::new().unwrap();
    let vfs = FaultyVfs::default();
    let table = QueueTable::load(Arc::new(vfs.clone()), &config(dir.path())).unwrap();
    let queue = queue(&table);
    let other = table.get_or_create(&name("t"), QueueId(1), QueueKind::Simple);
    fill(&queue, 0..12);
    fill(&other, 7..9);
    for (call, good) in [(Call::Create, 0), (Call::Write, 0), (Call::Write, 1), (Call::Create, 0)] {
        vfs.faults.fail(call, good, u64::MAX, ErrorKind::StorageFull);
        let error = table.write_out().unwrap_err();
        assert!(matches!(error, crate::Error::NoSpace { .. }), "{error}");
        vfs.faults.heal();
        assert_eq!((offsets(&queue), offsets(&other)), ((0..12).collect(), vec![7, 8]));
    }
    table.write_out().unwrap();
    assert_eq!(table.pending_bytes(), 0);
    let table = open(&config(dir.path()));
    table.recover().unwrap();
    let at = |id| limits(&table.get("t", QueueId(id)).unwrap());
    assert_eq!((at(0), at(1)), ((0, 12, 120), (7, 9, 90)));
}

#[test]
fn after_a_failed_sync_nothing_is_called_durable_again() {
    for queues in [1, 40] {
        let dir = TempDir::new().unwrap();
        let vfs = FaultyVfs::default();
        let table = QueueTable::load(Arc::new(vfs.clone()), &config(dir.path())).unwrap();
        for id in 0..queues {
            fill(&table.get_or_create(&name("t"), QueueId(id), QueueKind::Simple), 0..3);
        }
        vfs.faults.fail(Call::Sync, 0, 1, ErrorKind::Other);
        assert!(table.flush_step(Duration::ZERO, true).is_err());
        // The system says that all is well from here on; it is not.
        let again = table.flush_step(Duration::from_secs(100), true);
        assert!(matches!(again, Err(crate::Error::Poisoned { .. })));
        assert_eq!(vfs.faults.made(Call::Sync), 1, "many files are one sync");
    }
}

/// Of a queue that begins a file: the one before it was not on the disk, the next flush found all well, and recovery
/// later believed it.
#[test]
fn after_a_failed_sync_of_a_full_file_nothing_is_called_durable_again() {
    let dir = TempDir::new().unwrap();
    let vfs = FaultyVfs::default();
    let table =
        QueueTable::load(Arc::new(vfs.clone()), &config(dir.path()).consume_queue_file_size(60_u64)).unwrap();
    fill(&queue(&table), 0..3);
    table.write_out().unwrap();
    fill(&queue(&table), 3..5);
    vfs.faults.fail(Call::Sync, 0, 1, ErrorKind::Other);
    assert!(table.flush_step(Duration::ZERO, true).is_err());
    let again = table.flush_step(Duration::from_secs(100), true);
    assert!(matches!(again, Err(crate::Error::Poisoned { .. })), "{again:?}");
    // The log has the entries all the same, and consumers see them.
    table.write_out().unwrap();
    assert_eq!((table.pending_bytes(), queue(&table).max_offset()), (0, QueueOffset(5)));
}

#[test]
fn a_stale_entry_behind_the_end_does_not_come_back() {
    let dir = TempDir::new().unwrap();
    let config = config(dir.path()).consume_queue_file_size(200_000u64);
    let table = open(&config);
    fill(&queue(&table), 0..9_000);
    table.write_out().unwrap();
    drop(table);
    // A hole so long that recovery does not see what lies behind it.
    let mut bytes = std::fs::read(file(&dir, 0)).unwrap();
    bytes[20 * 10..20 * 8_000].fill(0);
    std::fs::write(file(&dir, 0), &bytes).unwrap();
    let table = open(&config);
    table.recover().unwrap();
    fill(&queue(&table), 10..8_000);
    table.write_out().unwrap();
    let table = open(&config);
    table.recover().unwrap();
    assert_eq!(limits(&queue(&table)), (0, 8_000, 80_000));
}
