//! Failures 1 to 5 and 9: what a crash leaves at the end of the log.

use std::fs;

use crate::rig::{Rig, SEGMENT, max_offset, patch, served};

/// Row 1: The last block of the last record never reached the disk. Java cuts it; so do we, and keep what was there.
#[test]
fn failure_01_a_torn_last_record_is_cut_and_kept_aside() {
    let rig = Rig::killed();
    let last = rig.puts[299];
    rig.patch(last.at + last.size - 100, &[0; 100]);
    let torn = rig.log(last.at, last.size - 100);
    rig.lost_is([299]);
    let kept = fs::read_dir(rig.path("quarantine")).unwrap().map(|entry| entry.unwrap().path());
    assert!(kept.filter(|path| path.extension().is_some_and(|e| e == "bin")).any(|path| {
        let bytes = fs::read(path).unwrap();
        torn.starts_with(&bytes) && bytes.len() > 500
    }));
}

/// Row 2: The body and its checksum are whole, the end of the properties is not there. Java accepts the record, with wrong
/// tags and keys: nothing covers the properties. A record ends with what a writer ends it with, or is torn.
#[test]
fn failure_02_a_record_torn_inside_its_properties_is_torn() {
    let rig = Rig::killed();
    let last = rig.puts[299];
    rig.patch(last.at + last.size - 10, &[0; 10]);
    rig.lost_is([299]);
}

/// Row 2, with whole sectors: the hole lies within long properties and whatever follows is there.
#[test]
fn failure_02_a_sector_that_is_missing_in_the_properties_is_noticed() {
    let mut rig = Rig::killed();
    let store = rig.open();
    let queue = store.queue("TopicA", 0).unwrap();
    let put = store
        .put(
            &reput::Message::new(queue, &crate::rig::body(300))
                .keys("key-300")
                .property("long", &"p".repeat(3000)),
        )
        .unwrap();
    let (at, size) = (usize::try_from(put.physical_offset().0).unwrap(), put.size());
    rig.puts.push(crate::rig::Put { at, size });
    put.wait().unwrap();
    drop(store);
    rig.patch((at + 1500).next_multiple_of(512), &[0; 512]);
    rig.lost_is([300]);
}

/// Row 3: A page in the unsynced tail is missing and later ones are there: the disk takes pages in any order. Java cuts at
/// the hole and leaves the rest lying there. Here what is whole stays, in its slots.
#[test]
fn failure_03_a_missing_page_in_the_tail_costs_what_was_in_it() {
    let rig = Rig::killed();
    let page = (rig.puts[292].at + 200).next_multiple_of(4096);
    assert_eq!(page / SEGMENT, rig.puts[299].at / SEGMENT);
    rig.patch(page, &[0; 4096]);
    let lost: Vec<usize> = (0..300)
        .filter(|i| rig.puts[*i].at < page + 4096 && page < rig.puts[*i].at + rig.puts[*i].size)
        .collect();
    assert!(lost.len() >= 4 && !lost.contains(&299));
    rig.lost_is(lost);
}

/// Row 3 where nobody was promised the tail: the log was durable up to message 250. It ends at the hole, what stood behind
/// is kept aside, and zeros take its place.
#[test]
fn failure_03_behind_a_hole_in_the_unsynced_tail_nothing_counts() {
    const DURABLE_END_AT: u64 = 4088;
    let rig = Rig::killed();
    let page = (rig.puts[292].at + 200).next_multiple_of(4096);
    rig.patch(page, &[0; 4096]);
    let durable = i64::try_from(rig.puts[250].at).unwrap() + 1;
    patch(&rig.path("checkpoint"), DURABLE_END_AT, &durable.to_be_bytes());
    let first = (0..300).find(|i| page < rig.puts[*i].at + rig.puts[*i].size).unwrap();
    let (cut, end) = (rig.puts[first].at, rig.puts[299].at + rig.puts[299].size);
    let bytes = rig.log(cut, end - cut);
    rig.lost_is(first..300);
    assert!(rig.log(cut, end - cut).iter().all(|byte| *byte == 0));
    let kept = rig.path(&format!("quarantine/{cut:020}-{}.bin", end - cut));
    assert_eq!(fs::read(kept).unwrap(), bytes);
}

/// Row 4: Java's recovery moves a pointer and leaves the bytes that it cut: behind three new records the old ones come
/// back after the next crash. Here the tail is zeroed before anything is appended.
#[test]
fn failure_04_what_was_cut_never_comes_back() {
    let mut rig = Rig::killed();
    (293..300).for_each(|number| rig.flip(number));
    rig.patch(rig.puts[292].at, &[0; 8]);
    let store = rig.open();
    assert_eq!(max_offset(&store).0, 292);
    rig.puts.truncate(292);
    for number in 292..295 {
        rig.put(&store, number);
    }
    store.wait_dispatched(std::time::Duration::from_secs(30)).unwrap();
    drop(store);
    // As it was before the flips: only zeros keep them out.
    let end = rig.puts[294].at + rig.puts[294].size;
    assert!(rig.log(end, (SEGMENT - end % SEGMENT).min(4000)).iter().all(|byte| *byte == 0));
    let store = rig.open();
    assert_eq!(served(&store).len(), 295);
    drop(store);
    rig.lost_is([]);
}

/// A killed store whose last record was stored a minute before the others and has this number.
fn with_a_last_record_from_before(number: i64) -> Rig {
    let rig = Rig::killed();
    let last = rig.puts[299];
    let bytes = rig.log(last.at, last.size);
    let stored = reput::format::message::Record::decode(&bytes).unwrap().store_timestamp.0;
    let at = bytes.windows(8).rposition(|window| window == stored.to_be_bytes()).unwrap();
    rig.patch(last.at + at, &(stored - 60_000).to_be_bytes());
    rig.patch(last.at + 20, &number.to_be_bytes());
    rig
}

/// Row 4, when Java has cut: whole old records of the right length stand at the right places behind the end. Their numbers
/// were given out again, to records stored later.
#[test]
fn failure_04_what_java_cut_does_not_come_back_here_either() {
    with_a_last_record_from_before(290).lost_is([299]);
}

/// The same with a number that nobody has given out yet: it skips one of its queue, though nothing is lost between the
/// records, and is older than the one before.
#[test]
fn failure_04_what_java_cut_does_not_come_back_by_a_later_number() {
    with_a_last_record_from_before(300).lost_is([299]);
}

/// Row 5: Old bytes in a file that was used again. Java takes a copy of segment 0 for segment 6, and records copied behind
/// the end for new ones. A record must stand where it says.
#[test]
fn failure_05_records_of_another_place_are_none() {
    let rig = Rig::killed();
    fs::copy(rig.segment(0), rig.segment(6)).unwrap();
    rig.lost_is([]);

    let rig = Rig::killed();
    let (first, last) = (rig.puts[10], rig.puts[299]);
    let stale = rig.log(first.at, first.size * 3);
    rig.patch(last.at + last.size, &stale);
    rig.lost_is([]);

    // Nor does it help them that they say to be the newest: their place alone tells.
    let rig = Rig::killed();
    let mut stale = rig.log(first.at, first.size);
    let stored = reput::format::message::Record::decode(&stale).unwrap().store_timestamp.0;
    let at = stale.windows(8).rposition(|window| window == stored.to_be_bytes()).unwrap();
    stale[at..at + 8].copy_from_slice(&(stored + 60_000).to_be_bytes());
    stale[20..28].copy_from_slice(&300_i64.to_be_bytes());
    rig.patch(last.at + last.size, &stale);
    rig.lost_is([]);
}

/// Row 9: The segment made ahead is all zeros: no damage, no end before its time.
#[test]
fn failure_09_a_segment_made_ahead_is_no_part_of_the_log() {
    let rig = Rig::killed();
    fs::write(rig.segment(6), vec![0; SEGMENT]).unwrap();
    let store = rig.open();
    assert_eq!(store.recovery_report().torn, None);
    assert!(store.recovery_report().is_clean());
    drop(store);
    rig.lost_is([]);
}
