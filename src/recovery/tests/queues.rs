//! Queues that say something else than the log.

use super::*;

#[test]
fn lost_and_wrong_queue_entries_are_written_from_the_log() {
    let written = Written::new(150);
    // Entries of the middle zeroed, one leads elsewhere, the last file is gone.
    let first = written.queue_file("a", 0, 0);
    let file = fs::OpenOptions::new().write(true).open(&first).unwrap();
    file.write_all_at(&[0; 40], 60).unwrap();
    file.write_all_at(&5_i64.to_be_bytes(), 200).unwrap();
    fs::remove_file(written.queue_file("a", 0, 2)).unwrap();
    fs::remove_dir_all(written.path("consumequeue/b")).unwrap();
    let view = written.lost_is([]);
    assert!(view.report.queues.added > 0);
    written.mended();
    written.lost_is([]);
}

#[test]
fn entries_shifted_by_another_store_go_back_to_their_slots() {
    let written = Written::new(60);
    let path = written.queue_file("a", 1, 0);
    let mut bytes = fs::read(&path).unwrap();
    bytes.copy_within(100..380, 80);
    fs::write(&path, bytes).unwrap();
    assert!(written.lost_is([]).report.queues.rewritten > 0);
}

/// The entries of its first file stood in the second as well, one of them led to damage: it passed for the last of the
/// queue's lost messages, and those before it were served again under new numbers.
#[test]
fn entries_of_a_copied_queue_file_pass_for_no_lost_message() {
    let written = Written::new(75);
    let lost = (45..60).find(|i| i % 3 == 0 && written.middle(*i)).unwrap();
    written.flip_body(lost);
    fs::copy(written.queue_file("a", 0, 0), written.queue_file("a", 0, 1)).unwrap();
    let view = written.lost_is([lost]);
    assert_eq!(view.queues[&("a".to_owned(), 0)], (0, 25));
}

/// What stands between them does not lead to messages of other numbers.
#[test]
fn lost_messages_at_a_queue_s_end_keep_their_numbers_and_nobody_else_s_message() {
    let written = Written::new(75);
    // The last three of a queue are lost, and the entry of the one in the middle is that of an earlier message.
    let last: Vec<_> = (0..75).rev().filter(|i| i % 3 == 0).take(3).collect();
    let from = written.puts[last[2]].at;
    written.patch(from, &vec![0xAA; written.puts[74].at - from]);
    let file = written.queue_file("a", 0, 1);
    let mut entries = fs::read(&file).unwrap();
    let first = fs::read(written.queue_file("a", 0, 0)).unwrap();
    entries[3 * 20..4 * 20].copy_from_slice(&first[..20]);
    fs::write(&file, entries).unwrap();
    for _ in 0..2 {
        let view = written.lost_is(last[2]..74);
        assert_eq!(view.queues[&("a".to_owned(), 0)], (0, 25));
        written.mended();
    }
}

#[test]
fn a_queue_that_lost_its_first_file_is_made_anew() {
    let written = Written::new(150);
    fs::remove_file(written.queue_file("a", 0, 0)).unwrap();
    written.lost_is([]);
    written.mended();
    written.lost_is([]);
}

#[test]
fn entries_without_a_record_go() {
    let written = Written::new(30);
    let path = written.queue_file("b", 0, 0);
    let mut bytes = fs::read(&path).unwrap();
    let phantom = [&999_999_i64.to_be_bytes()[..], &100_i32.to_be_bytes(), &0_i64.to_be_bytes()].concat();
    bytes[200..220].copy_from_slice(&phantom);
    fs::write(&path, bytes).unwrap();
    let view = written.lost_is([]);
    assert_eq!(view.queues[&("b".to_owned(), 0)], (0, 10));
    assert_eq!(view.report.queues.dropped, 1);
}

#[test]
fn queues_ahead_of_a_log_that_lost_its_end_are_cut() {
    let written = Written::new(90);
    let from = written.puts[70].at;
    let mut at = from;
    while at < written.puts[89].at + written.puts[89].size {
        let end = (at / SEGMENT + 1) * SEGMENT;
        written.patch(at, &vec![0; end - at]);
        at = end;
    }
    let view = written.lost_is(70..90);
    assert_eq!(view.queues[&("a".to_owned(), 0)].1, 24);
    assert_eq!(view.report.torn, None);
    written.mended();
}

#[test]
fn a_damaged_number_moves_no_other_message() {
    for wrong in [2_i64, 9, 33, 1 << 40] {
        let written = Written::new(90);
        let i = written.some_middle(45);
        let put = &written.puts[i];
        written.patch(put.at + QUEUE_OFFSET_AT, &(put.number ^ wrong).to_be_bytes());
        let view = written.view().unwrap();
        for (n, other) in written.puts.iter().enumerate().filter(|(n, _)| *n != i) {
            let slot = view.slots.get(&(other.topic.to_owned(), other.id, other.number));
            assert_eq!(slot, Some(&(i64::try_from(other.at).unwrap(), true)), "{wrong}: put {n}");
        }
        assert_eq!(view.queues[&(put.topic.to_owned(), put.id)], (0, 30), "{wrong}");
        assert_eq!(view.records.len(), 90);
    }
}

/// The first record of a queue says the number of the second, which takes it back.
#[test]
fn a_record_that_took_another_s_number_is_in_no_queue() {
    let written = Written::new(90);
    let first = written.puts.iter().position(|put| put.number == 0).unwrap();
    let (topic, id) = (written.puts[first].topic, written.puts[first].id);
    written.patch(written.puts[first].at + QUEUE_OFFSET_AT, &1_i64.to_be_bytes());
    for queues_gone in [false, true] {
        let view = written.view().unwrap();
        assert_eq!(view.report.queues.unplaced, 1, "{}", view.report);
        for put in written.puts.iter().filter(|put| (put.topic, put.id) == (topic, id) && put.number > 0) {
            let slot = view.slots.get(&(topic.to_owned(), id, put.number));
            assert_eq!(slot, Some(&(i64::try_from(put.at).unwrap(), true)));
        }
        Store::open(written.config()).unwrap().close().unwrap();
        assert!(written.is_whole(), "queues gone: {queues_gone}");
        fs::remove_dir_all(written.path("consumequeue")).unwrap();
    }
}

/// Nothing behind a queue's last record says that its number is right: a jump that would take very many files is none.
#[test]
fn the_last_record_does_not_fill_a_disk_with_entries_of_lost_ones() {
    for (wrong, believed) in [(1_i64 << 6, true), (1 << 18, false)] {
        let written = Written::new(90);
        let put = &written.puts[89];
        let (key, number) = ((put.topic.to_owned(), put.id), put.number ^ wrong);
        written.patch(put.at + QUEUE_OFFSET_AT, &number.to_be_bytes());
        let view = written.view().unwrap();
        assert_eq!(view.queues[&key].1, if believed { number + 1 } else { put.number });
        assert_eq!(view.report.queues.unplaced, u64::from(!believed));
        Store::open(written.config()).unwrap().close().unwrap();
        assert!(written.is_whole());
    }
}

/// Behind a lost segment numbers jump for a good reason, also in the eyes of a recovery that finds the gap closed, and
/// whatever the clock said before.
#[test]
fn what_follows_a_lost_segment_is_not_from_before() {
    let written = Written::new(90);
    written.patch(written.puts[0].at + BORN_HOST_AT + 8, &(1_i64 << 45).to_be_bytes());
    fs::remove_file(written.path("commitlog/00000000000000008192")).unwrap();
    let segment = |at: usize| at / SEGMENT;
    let lost: Vec<_> = (0..90).filter(|i| segment(written.puts[*i].at) == 1).collect();
    assert!(written.puts.last().is_some_and(|put| segment(put.at) > 1));
    for _ in 0..2 {
        written.lost_is(lost.iter().copied());
        Store::open(written.config()).unwrap().close().unwrap();
        fs::write(written.path("abort"), "1").unwrap();
    }
}

#[test]
fn the_last_life_of_a_topic_counts() {
    let mut written = Written::new(60);
    let store = Store::open(written.config()).unwrap();
    store.delete_topic("b").unwrap();
    let before = written.puts.len();
    for _ in 0..5 {
        written.put(&store, "b", 0, b"new");
    }
    assert_eq!(written.puts[before].number, 0);
    store.close().unwrap();
    // Also when nothing but the log says so.
    for sidecar in ["deletedTopics", "consumequeue"] {
        let path = written.path(sidecar);
        _ = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path));
        let view = written.view().unwrap();
        assert_eq!(view.queues[&("b".to_owned(), 0)], (0, 5), "without {sidecar}");
        for put in &written.puts[before..] {
            let slot = view.slots[&("b".to_owned(), 0, put.number)];
            assert_eq!(slot, (i64::try_from(put.at).unwrap(), true));
        }
        Store::open(written.config()).unwrap().close().unwrap();
        assert!(written.is_whole(), "without {sidecar}");
    }
}

/// All records of a log were deleted but those of its last segment, which a crash took; and their entries, when the power
/// went again. What is left of one must not pass for that of a record that was deleted.
#[test]
fn an_entry_that_was_zeroed_in_part_is_none() {
    for zeroed in [0..8, 0..7, 0..6] {
        let written = Written::new(150);
        let last = written.puts.last().unwrap().at / SEGMENT * SEGMENT;
        let lost = written.puts.iter().position(|put| put.at >= last).unwrap();
        let end = |topic, id| {
            let before = written.puts[..lost].iter().filter(|put| (put.topic, put.id) == (topic, id));
            i64::try_from(before.count()).unwrap()
        };
        let Put { topic, id, number, .. } = written.puts[lost];
        assert_eq!(number, end(topic, id));
        for segment in (0..last).step_by(SEGMENT) {
            fs::remove_file(written.path(&format!("commitlog/{segment:020}"))).unwrap();
        }
        fs::write(written.path(&format!("commitlog/{last:020}")), vec![0; SEGMENT]).unwrap();
        fs::write(written.path("abort"), b"").unwrap();
        for name in ["agreed", "cleanStop"] {
            let _ = fs::remove_file(written.path(name));
        }
        let place = usize::try_from(number).unwrap() * 20;
        let path = written.queue_file(topic, id, place / 400);
        let mut bytes = fs::read(&path).unwrap();
        bytes[place % 400 + zeroed.start..place % 400 + zeroed.end].fill(0);
        fs::write(&path, bytes).unwrap();
        let view = written.view().unwrap();
        for (topic, id) in [("a", 0), ("a", 1), ("b", 0)] {
            let queue = view.queues[&(topic.to_owned(), id)];
            assert_eq!(queue.1, end(topic, id), "{topic} {id}, {zeroed:?}: {}", view.report);
        }
        written.mended();
    }
}
