//! Failures 24 to 28: files that are missing, too short, empty, or none of the store's.

use std::fs;

use reput::{Error, Store};

use crate::rig::{ENTRY, Rig, SEGMENT, body, cut, served};

/// Row 24: A segment in the middle is missing. Java loads, and reads in the gap give other messages: 58 wrong ones. Here the
/// gap is declared: its messages are gone, all others are themselves, and puts go on.
#[test]
fn failure_24_a_missing_middle_segment_gives_no_wrong_message() {
    let mut rig = Rig::killed();
    fs::remove_file(rig.segment(2)).unwrap();
    let lost: Vec<usize> = (0..300).filter(|i| rig.puts[*i].at / SEGMENT == 2).collect();
    assert!(lost.len() > 50);
    rig.lost_is(lost.iter().copied());
    let store = rig.open();
    rig.put(&store, 300);
    store.close().unwrap();
    rig.lost_is(lost);
}

/// Row 25: The last segment has 40,000 bytes. Java refuses to start. It is filled up with zeros, and what was cut off is
/// a torn tail.
#[test]
fn failure_25_a_short_last_segment_is_filled_up() {
    for segment in [5, 3] {
        let rig = Rig::killed();
        cut(&rig.segment(segment), 40_000);
        let gone = segment * SEGMENT + 40_000..(segment + 1) * SEGMENT;
        let lost = (0..300).filter(|i| gone.contains(&(rig.puts[*i].at + rig.puts[*i].size - 1)));
        let lost: Vec<usize> = lost.collect();
        assert_eq!(fs::metadata(rig.segment(segment)).unwrap().len(), 40_000);
        let store = rig.open();
        assert_eq!(store.recovery_report().files[0].len, Some(40_000));
        drop(store);
        rig.lost_is(lost);
    }
}

/// Row 25, when it is the only file: the configuration may as well be another store's, and nothing is touched.
#[test]
fn failure_25_a_lone_short_segment_may_be_another_configuration() {
    let rig = Rig::killed();
    (1..8).for_each(|number| _ = fs::remove_file(rig.segment(number)));
    cut(&rig.segment(0), 40_000);
    assert!(matches!(Store::open(rig.config()), Err(Error::FileSize { actual: 40_000, .. })));
    assert_eq!(fs::metadata(rig.segment(0)).unwrap().len(), 40_000);
    // Whoever says so gets it mended.
    reput::verify::repair(rig.config().sizes_are_certain(true)).unwrap();
    let store = rig.open();
    assert!(store.recovery_report().is_clean());
    assert!(served(&store).len() > 30);
}

/// Row 26: A file of no bytes, last or in the middle: Java deletes the one and refuses the other.
#[test]
fn failure_26_an_empty_segment_is_a_missing_one() {
    let rig = Rig::killed();
    fs::write(rig.segment(6), []).unwrap();
    rig.lost_is([]);

    let rig = Rig::killed();
    fs::write(rig.segment(3), []).unwrap();
    rig.lost_is((0..300).filter(|i| rig.puts[*i].at / SEGMENT == 3).collect::<Vec<_>>());
}

/// Row 27: A file that is none of the store's: Java refuses to start. It is left alone and reported, never deleted.
#[test]
fn failure_27_junk_is_ignored_with_a_warning_and_never_deleted() {
    let rig = Rig::killed();
    let junk = [
        "commitlog/abc",
        "commitlog/not-a-number-at-all-",
        "consumequeue/TopicA/0/x",
        "index/notes",
        "other",
    ];
    for name in junk {
        let len = if name.contains("number") { SEGMENT } else { 3 };
        fs::write(rig.path(name), vec![7; len]).unwrap();
    }
    let store = rig.open();
    assert_eq!(store.recovery_report().strangers.len(), 2);
    assert!(store.recovery_report().to_string().contains("abc is not part of the log"));
    drop(store);
    rig.lost_is([]);
    let mut notes = Vec::new();
    reput::verify::verify(rig.config(), &mut |finding| notes.push(finding.path.clone()), &mut |_| {})
        .unwrap();
    for name in junk {
        assert!(fs::read(rig.path(name)).unwrap().iter().all(|byte| *byte == 7), "{name}");
        assert!(notes.contains(&rig.path(name)), "verify says nothing of {name}");
    }
}

/// Row 28: A ConsumeQueue file is too short: Java refuses to start the whole broker. The queue is built again.
#[test]
fn failure_28_a_short_queue_file_is_built_again() {
    let mut rig = Rig::killed();
    let store = rig.open();
    let other = store.queue("other", 0).unwrap();
    store.put(&reput::Message::new(other, &body(1))).unwrap().wait().unwrap();
    for number in 300..320 {
        rig.put(&store, number);
    }
    store.close().unwrap();
    for len in [0, 10, 20 * ENTRY + 7, 299 * ENTRY] {
        cut(&rig.queue_file(), len);
        rig.lost_is([]);
        assert_eq!(fs::metadata(rig.queue_file()).unwrap().len(), 300 * ENTRY);
    }
}
