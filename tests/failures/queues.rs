//! Failures 10 to 16: queues that say something else than the log.

use std::fs;

use crate::rig::{ENTRY, Rig, SEGMENT, max_offset, patch, served};

/// Row 10: ConsumeQueues deleted and a crash: Java leaves 290 of 300 messages unreachable.
#[test]
fn failure_10_queues_lost_in_a_crash_come_back_whole() {
    let rig = Rig::killed();
    fs::remove_dir_all(rig.path("consumequeue")).unwrap();
    rig.lost_is([]);
}

/// Row 11: ConsumeQueues deleted after a clean stop.
#[test]
fn failure_11_queues_lost_after_a_clean_stop_come_back_whole() {
    let rig = Rig::closed();
    fs::remove_dir_all(rig.path("consumequeue")).unwrap();
    rig.lost_is([]);
}

/// Row 12: A queue lost its last 50 entries, the stop was clean. Java loses one message and shifts 49 by one slot.
#[test]
fn failure_12_a_queue_that_lost_its_tail_gets_it_back_in_place() {
    let rig = Rig::closed();
    patch(&rig.queue_file(), 250 * ENTRY, &[0; 50 * 20]);
    rig.lost_is([]);
}

/// Row 13: Entries reached the disk, their records did not.
#[test]
fn failure_13_entries_ahead_of_the_log_are_cut() {
    let rig = Rig::killed();
    let first = rig.puts[295];
    rig.patch(first.at, &vec![0; SEGMENT - first.at % SEGMENT]);
    let store = rig.open();
    assert_eq!(max_offset(&store).0, 295, "the next message gets the number of the first lost one");
    drop(store);
    rig.lost_is(295..300);
}

/// Row 14: The next queue file was made and never written. Java takes it for an entry (0, 0, 0): offset 300 cannot be read
/// and the next message gets 301.
#[test]
fn failure_14_a_queue_file_of_zeros_holds_no_entry() {
    let rig = Rig::killed();
    fs::write(rig.path("consumequeue/TopicA/0/00000000000000006000"), vec![0; 6000]).unwrap();
    let store = rig.open();
    assert_eq!(max_offset(&store).0, 300);
    drop(store);
    rig.lost_is([]);
}

/// Row 15: The checkpoint is from the future and the queue lost entries from 107 on. Java dispatches what follows the
/// checkpoint into the next slots: slot 107 holds message 297, 190 are lost to consumers.
#[test]
fn failure_15_an_entry_goes_into_its_own_slot_or_none() {
    let rig = Rig::killed();
    patch(&rig.queue_file(), 107 * ENTRY, &[0; 193 * 20]);
    let future = 4_102_444_800_000_i64.to_be_bytes();
    let log_end = i64::try_from(rig.puts[297].at).unwrap().to_be_bytes();
    patch(&rig.path("checkpoint"), 0, &[future, future, future, [0; 8], log_end, log_end].concat());
    rig.lost_is([]);
}

/// Row 16: A queue that begins late has fillers before its first entry, and half of them never reached the disk.
#[test]
fn failure_16_half_written_fillers_are_written_again() {
    let rig = Rig::killed();
    fs::remove_file(rig.segment(0)).unwrap();
    fs::remove_dir_all(rig.path("consumequeue")).unwrap();
    let first = rig.puts.iter().position(|put| put.at >= SEGMENT).unwrap();
    let store = rig.open();
    assert_eq!(served(&store).keys().next(), Some(&(first as i64)));
    store.close().unwrap();
    let filler = [&[0_u8; 8][..], &i32::MAX.to_be_bytes(), &[0; 8]].concat();
    let is_filled =
        || fs::read(rig.queue_file()).unwrap().chunks(20).take(first).all(|entry| entry == filler);
    assert!(is_filled());
    patch(&rig.queue_file(), 0, &vec![0; 20 * (first / 2)]);
    let store = rig.open();
    let queue = store.queue("TopicA", 0).unwrap();
    assert_eq!((store.min_offset(queue).0, max_offset(&store).0), (first as i64, 300));
    assert_eq!(served(&store).len(), 300 - first);
    store.close().unwrap();
    assert!(is_filled(), "RocketMQ would read zeros as entries of the log's first byte");
    assert!(rig.open().recovery_report().is_clean());
}

/// A flipped bit in a record's queueId, which no checksum covers: Java delivers the message in another queue. The entry
/// that the record had is a witness: the record is damage, kept aside, and no other queue gets it.
#[test]
fn a_flipped_queue_id_delivers_into_no_other_queue() {
    const QUEUE_ID_AT: usize = 12;
    for (victim, to, aborted) in [(150, 1_u32, true), (150, 4, false), (299, 2, true), (298, 1, false)] {
        let rig = if aborted { Rig::killed() } else { Rig::closed() };
        let put = rig.puts[victim];
        let bytes = rig.log(put.at, put.size);
        rig.patch(put.at + QUEUE_ID_AT, &to.to_be_bytes());
        for life in 0..2 {
            let store = rig.open();
            let report = store.recovery_report();
            let other = store.find_queue("TopicA", i32::try_from(to).unwrap());
            let there = other.map_or(0, |queue| store.max_offset(queue).0);
            assert_eq!(there, 0, "life {life}: message {victim} is in queue {to}: {report}");
            assert_eq!(max_offset(&store).0, 300, "life {life}: {report}");
            let mut due: Vec<i64> = (0..300).collect();
            due.remove(victim);
            assert_eq!(served(&store).into_keys().collect::<Vec<_>>(), due, "life {life}: {report}");
            assert!(report.is_clean() || life == 0, "{report}");
            store.close().unwrap();
        }
        let kept = fs::read(rig.path(&format!("quarantine/{:020}-{}.bin", put.at, put.size))).unwrap();
        assert_eq!(kept[QUEUE_ID_AT + 4..], bytes[QUEUE_ID_AT + 4..]);
    }
}
