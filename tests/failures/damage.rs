//! Failures 6, 7, 8 and 37: damage in the middle of the log, which is no torn tail.

use std::fs;

use crate::rig::{Rig, SEGMENT};

/// Row 6: One flipped bit and a lost checkpoint: Java deletes 4 of 6 segments, 240 whole messages. A bad record with whole
/// ones behind it is damage: it alone is lost, its bytes are kept, and the log goes on.
#[test]
fn failure_06_a_flipped_bit_costs_its_own_record_only() {
    for checkpoint in [true, false] {
        let rig = Rig::killed();
        if !checkpoint {
            fs::remove_file(rig.path("checkpoint")).unwrap();
        }
        rig.flip(60);
        let (put, segments) = (rig.puts[60], fs::read_dir(rig.path("commitlog")).unwrap().count());
        let bytes = rig.log(put.at, put.size);
        rig.lost_is([60]);
        assert!(fs::read_dir(rig.path("commitlog")).unwrap().count() >= segments.min(6));
        let kept = rig.path(&format!("quarantine/{:020}-{}.bin", put.at, put.size));
        assert_eq!(fs::read(kept).unwrap(), bytes);
        let manifest = fs::read_to_string(rig.path("quarantine/manifest.jsonl")).unwrap();
        assert!(
            manifest.contains(&format!("\"offset\":{}", put.at)) && manifest.contains("damaged"),
            "{manifest}"
        );
        // Whoever reads the format reads on: a record of the same length stands there, in no queue and no index.
        let gap = rig.log(put.at, put.size);
        let record = reput::format::message::Record::decode(&gap).unwrap();
        record.verify_body_crc().unwrap();
        assert_eq!((record.total_size, record.physical_offset.0), (put.size, i64::try_from(put.at).unwrap()));
        assert_eq!(record.sys_flag.transaction(), reput::TransactionType::Rollback);
    }
}

/// Row 6, twice in a row and at the end of a segment, with the queues gone: later entries keep their slots.
#[test]
fn failure_06_damage_leaves_slots_that_lead_nowhere_and_shifts_nothing() {
    let rig = Rig::killed();
    let last = rig.last_in_segment(70);
    rig.flip(last);
    rig.flip(last + 1);
    rig.flip(last + 2);
    fs::remove_dir_all(rig.path("consumequeue")).unwrap();
    rig.lost_is([last, last + 1, last + 2]);
}

/// Row 7: A size far too large: Java allocates by it and dies of it, or cuts. No length on the disk is believed.
#[test]
fn failure_07_a_huge_size_is_neither_believed_nor_allocated() {
    for size in [900_000_000, i32::MAX, -1, 0, 92] {
        let rig = Rig::killed();
        rig.patch(rig.puts[100].at, &i32::to_be_bytes(size));
        rig.lost_is([100]);
    }
}

/// Row 8: The blank at a segment's end is torn: Java ends the log there and deletes 4 later segments.
#[test]
fn failure_08_a_torn_blank_ends_the_segment_and_not_the_log() {
    for checkpoint in [true, false] {
        let rig = Rig::killed();
        if !checkpoint {
            fs::remove_file(rig.path("checkpoint")).unwrap();
        }
        let last = rig.puts[rig.last_in_segment(60)];
        let end = last.at + last.size;
        rig.patch(end, &[0; 8]);
        rig.lost_is([]);
        // And it is there again, for RocketMQ.
        let left = i32::try_from(SEGMENT - end % SEGMENT).unwrap();
        let blank = rig.log(end, 8);
        if left >= 100 {
            assert_eq!(
                reput::format::message::Record::decode(&rig.log(end, left as usize)).unwrap().topic,
                "-"
            );
        } else {
            assert_eq!((&blank[..4], &blank[4..]), (&left.to_be_bytes()[..], &[0xCB, 0xD4, 0x31, 0x94][..]));
        }
    }
}

/// Row 37: A topic in a record is a path to be: Java makes the directory unchecked. Here a name is valid or in no queue.
#[test]
fn failure_37_a_topic_that_is_a_path_leads_nowhere() {
    let rig = Rig::killed();
    let put = rig.puts[120];
    let bytes = rig.log(put.at, put.size);
    let topic = bytes.windows(6).position(|window| window == b"TopicA").unwrap();
    rig.patch(put.at + topic, b"../../");
    fs::remove_dir_all(rig.path("consumequeue")).unwrap();
    let store = rig.open();
    assert_eq!(store.queues().len(), 1);
    assert_eq!(store.recovery_report().queues.unplaced, 1);
    assert_eq!(crate::rig::served(&store).len(), 299);
    // `consumequeue/../../0` would be here.
    assert!(!rig.dir.path().parent().unwrap().join("0").exists() && !rig.path("0").exists());
    let mut names: Vec<_> =
        fs::read_dir(rig.path("consumequeue")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["TopicA"]);
}
