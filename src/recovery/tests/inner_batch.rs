//! Damage to a topic whose records are batches, which its queue counts as many messages.

use std::fs;

use tempfile::TempDir;

use super::Written;
use crate::{
    SysFlag,
    format::{
        consume_queue::{BATCH_ENTRY, BatchEntry},
        message::QUEUE_OFFSET_AT,
    },
    message::Message,
    store::{GetRequest, Store},
    types::{PhysicalOffset, QueueOffset, StoreTimestamp},
};

/// Ten batches of three, and where each stands.
fn batches() -> (Written, Vec<(usize, usize)>) {
    let written = Written { dir: TempDir::new().unwrap(), puts: Vec::new() };
    let store = Store::open(written.config()).unwrap();
    let queue = store.batch_queue("c", 0).unwrap();
    let mut places = Vec::new();
    for _ in 0..10 {
        let message = Message::new(queue, b"xxxxxxxxxxxxxxxxxxxxxxxx")
            .sys_flag(SysFlag(SysFlag::INNER_BATCH))
            .property("INNER_NUM", "3");
        let put = store.put(&message).unwrap();
        places.push((usize::try_from(put.physical_offset().0).unwrap(), put.size()));
        put.wait().unwrap();
    }
    store.close().unwrap();
    (written, places)
}

/// An inner batch states the number of its first message twice, and no checksum covers either. The one that continues
/// its queue is believed; for a queue's first record, the one that its entry has.
#[test]
fn one_whose_two_numbers_disagree_keeps_its_place() {
    for (batch, header, queues_gone) in [
        (4, true, false),
        (4, true, true),
        (4, false, false),
        (4, false, true),
        (0, false, false),
        (0, true, false),
    ] {
        let (written, places) = batches();
        let (at, size) = places[batch];
        if header {
            written.patch(at + QUEUE_OFFSET_AT, &77_i64.to_be_bytes());
        } else {
            let bytes = written.log_bytes(at, size);
            let base = bytes.windows(11).position(|window| window == b"INNER_BASE\x01").unwrap();
            written.patch(at + base + 11, b"7");
        }
        if queues_gone {
            fs::remove_dir_all(written.path("batchconsumequeue")).unwrap();
        }
        let view = written.view().unwrap();
        assert_eq!(view.queues[&("c".to_owned(), 0)], (0, 30), "batch {batch}, header {header}");
        for (number, (at, _)) in places.iter().enumerate() {
            let slot = view.slots.get(&("c".to_owned(), 0, 3 * i64::try_from(number).unwrap()));
            assert_eq!(slot, Some(&(i64::try_from(*at).unwrap(), true)), "batch {batch}, header {header}");
        }
        written.mended();
        assert!(written.is_whole());
    }
}

/// No checksum covers the count of a batch either. The numbers of the batches around it say what it was, whether the
/// queue still has its entry or not; that of the last batch is what the record says.
#[test]
fn one_whose_count_is_damaged_reaches_to_the_next() {
    for batch in [0, 4, 8, 9] {
        for count in [b"1", b"2", b"5", b"9"] {
            for (queues_gone, entry) in [(false, false), (true, false), (false, true)] {
                let case =
                    format!("batch {batch} says {count:?}, queues gone: {queues_gone}, entry: {entry}");
                let (written, places) = batches();
                let file = written.path("batchconsumequeue/c/0/00000000000000000000");
                if entry {
                    let mut bytes = fs::read(&file).unwrap();
                    bytes[batch * BATCH_ENTRY + 37] = count[0] - b'0';
                    fs::write(&file, bytes).unwrap();
                } else {
                    let (at, size) = places[batch];
                    let bytes = written.log_bytes(at, size);
                    let name = bytes.windows(10).position(|window| window == b"INNER_NUM\x01").unwrap();
                    written.patch(at + name + 10, count);
                }
                if queues_gone {
                    fs::remove_dir_all(written.path("batchconsumequeue")).unwrap();
                }
                let last = batch == 9 && !entry;
                let max = if last { 27 + i64::from(count[0] - b'0') } else { 30 };
                let view = written.view().unwrap();
                assert_eq!(view.queues[&("c".to_owned(), 0)], (0, max), "{case}");
                for (number, (at, _)) in places.iter().enumerate() {
                    let slot = view.slots.get(&("c".to_owned(), 0, 3 * i64::try_from(number).unwrap()));
                    assert_eq!(slot, Some(&(i64::try_from(*at).unwrap(), true)), "{case}: batch {number}");
                }
                Store::open(written.config()).unwrap().close().unwrap();
                assert_eq!(numbers(&fs::read(&file).unwrap(), 0), max, "{case}");
                assert!(written.is_whole(), "{case}");
            }
        }
    }
}

/// A batch that does not say any more of how many messages it is keeps the entry that was made when it did. Without
/// one it is in no queue, and costs no other its place.
#[test]
fn one_that_lost_its_count_is_what_its_entry_says() {
    for queues_gone in [false, true] {
        let (written, places) = batches();
        let (at, size) = places[4];
        let bytes = written.log_bytes(at, size);
        let name = bytes.windows(10).position(|window| window == b"INNER_NUM\x01").unwrap();
        written.patch(at + name, b"OTHER");
        if queues_gone {
            fs::remove_dir_all(written.path("batchconsumequeue")).unwrap();
        }
        let view = written.view().unwrap();
        assert_eq!(view.queues[&("c".to_owned(), 0)], (0, 30), "gone: {queues_gone}");
        for (batch, (at, _)) in places.iter().enumerate() {
            let slot = view.slots.get(&("c".to_owned(), 0, 3 * i64::try_from(batch).unwrap()));
            let found = slot.is_some_and(|(offset, found)| *found && usize::try_from(*offset) == Ok(*at));
            assert_eq!(found, batch != 4 || !queues_gone, "gone: {queues_gone}");
        }
        assert_eq!(view.report.queues.unplaced, u64::from(queues_gone));
        Store::open(written.config()).unwrap().close().unwrap();
        assert!(written.is_whole(), "gone: {queues_gone}");
    }
}

/// Where the entries of a queue's file end, whose numbers follow each other from `next` on and whose times and places
/// rise: a reader of RocketMQ that comes to a number without an entry finds the entry before it, for ever.
fn numbers(file: &[u8], mut next: i64) -> i64 {
    let (mut time, mut place) = (StoreTimestamp::ZERO, PhysicalOffset::ZERO);
    for entry in file.as_chunks::<BATCH_ENTRY>().0.iter().map(BatchEntry::decode) {
        if entry.size == 0 {
            break;
        }
        assert_eq!(entry.base.0, next, "{entry:?}");
        assert!(entry.store_timestamp >= time, "{entry:?} is behind one of {time:?}");
        assert!(entry.offset >= place, "{entry:?} is behind one at {place}");
        (next, time, place) = (next + i64::from(entry.num), entry.store_timestamp, entry.offset);
    }
    next
}

/// More lost messages than one entry can stand for, and some of a queue that a crash took the end of as well.
#[test]
fn lost_ones_have_as_many_entries_as_they_need() {
    let written = Written { dir: TempDir::new().unwrap(), puts: Vec::new() };
    let store = Store::open(written.config()).unwrap();
    let queue = store.batch_queue("c", 0).unwrap();
    let mut places = Vec::new();
    for count in ["3", "32767", "32767", "2", "5"] {
        let message = Message::new(queue, b"xxxxxxxxxxxxxxxxxxxxxxxx")
            .sys_flag(SysFlag(SysFlag::INNER_BATCH))
            .property("INNER_NUM", count);
        let put = store.put(&message).unwrap();
        places.push((usize::try_from(put.physical_offset().0).unwrap(), put.size()));
        put.wait().unwrap();
    }
    store.close().unwrap();
    for (at, size) in &places[1..4] {
        let body = written.log_bytes(*at, *size).windows(24).position(|window| window == [b'x'; 24]).unwrap();
        written.patch(at + body + 5, b"y");
    }
    fs::remove_dir_all(written.path("batchconsumequeue")).unwrap();
    let file = written.path("batchconsumequeue/c/0/00000000000000000000");
    Store::open(written.config()).unwrap().close().unwrap();
    let filled = fs::read(&file).unwrap();
    assert_eq!(numbers(&filled, 0), 65_544);
    assert!(written.is_whole());
    Store::open(written.config()).unwrap().close().unwrap();
    assert_eq!(fs::read(&file).unwrap(), filled);

    // The last record goes too: what was lost before it must not be the queue's end.
    let (at, size) = places[4];
    written.patch(at, &vec![0; size]);
    fs::write(written.path("abort"), b"").unwrap();
    let store = Store::open(written.config()).unwrap();
    let queue = store.batch_queue("c", 0).unwrap();
    assert_eq!(store.max_offset(queue), QueueOffset(3));
    let put = store.put(&Message::new(queue, b"next")).unwrap();
    assert_eq!(put.queue_offset(), QueueOffset(3));
    put.wait().unwrap();
    store.close().unwrap();
    assert_eq!(numbers(&fs::read(&file).unwrap(), 0), 4);
}

/// A lost batch takes its own messages from its queue and no others, whatever is left of the queue.
#[test]
fn one_that_is_lost_costs_no_other() {
    for lost in [0, 4, 8] {
        for keep in [None, Some(0), Some(4), Some(5), Some(10)] {
            let (written, places) = batches();
            let (at, size) = places[lost];
            let body =
                written.log_bytes(at, size).windows(24).position(|window| window == [b'x'; 24]).unwrap();
            written.patch(at + body + 5, b"y");
            let file = written.path("batchconsumequeue/c/0/00000000000000000000");
            match keep {
                Some(entries) => {
                    let mut bytes = fs::read(&file).unwrap();
                    bytes[entries * BATCH_ENTRY..].fill(0);
                    fs::write(&file, bytes).unwrap();
                }
                None => fs::remove_dir_all(written.path("batchconsumequeue")).unwrap(),
            }
            let case = format!("batch {lost} is lost, {keep:?} entries are left");
            let view = written.view().unwrap();
            assert_eq!(view.report.damage.len(), 1, "{case}: {}", view.report);
            for (batch, (at, _)) in places.iter().enumerate() {
                let slot = view.slots.get(&("c".to_owned(), 0, 3 * i64::try_from(batch).unwrap()));
                let found = slot.is_some_and(|(offset, found)| *found && usize::try_from(*offset) == Ok(*at));
                assert_eq!(found, batch != lost, "{case}: batch {batch} in {slot:?}");
            }
            written.mended();
            let store = Store::open(written.config()).unwrap();
            let queue = store.batch_queue("c", 0).unwrap();
            let (mut at, mut read) = (QueueOffset::ZERO, Vec::new());
            while at < store.max_offset(queue) {
                let got = store.fetch(&GetRequest { max_messages: 1, ..GetRequest::new(queue, at) }).unwrap();
                read.extend(got.messages.iter().map(|message| message.record().queue_offset.0));
                assert!(got.next_offset > at, "{case}: a reader stays at {at}");
                at = got.next_offset;
            }
            let all = (0..10).filter(|batch| *batch != lost).map(|batch| 3 * i64::try_from(batch).unwrap());
            assert_eq!(read, all.collect::<Vec<_>>(), "{case}");
            assert_eq!(store.max_offset(queue), QueueOffset(30), "{case}");
            store.close().unwrap();
            let first = if lost == 0 && keep.is_none_or(|entries| entries == 0) { 3 } else { 0 };
            assert_eq!(numbers(&fs::read(&file).unwrap(), first), 30, "{case}");
        }
    }
}

/// Of batches that are lost together the queue may still have the first entries: what is put behind those, for the others,
/// leads no less far.
#[test]
fn lost_neighbours_of_which_some_have_entries_are_in_their_order() {
    for keep in 4..=7 {
        let (written, places) = batches();
        let lost = places[4].0 + 20..places[7].0;
        written.patch(lost.start, &vec![0; lost.len()]);
        let file = written.path("batchconsumequeue/c/0/00000000000000000000");
        let mut bytes = fs::read(&file).unwrap();
        bytes[keep * BATCH_ENTRY..].fill(0);
        fs::write(&file, bytes).unwrap();
        let view = written.view().unwrap();
        assert_eq!(view.queues[&("c".to_owned(), 0)], (0, 30), "{keep} entries are left: {}", view.report);
        Store::open(written.config()).unwrap().close().unwrap();
        assert_eq!(numbers(&fs::read(&file).unwrap(), 0), 30, "{keep} entries are left");
        assert!(written.is_whole(), "{keep} entries are left");
        written.mended();
    }
}
