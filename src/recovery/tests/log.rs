//! Where a log ends, and what damage before its end costs.

use super::*;

#[test]
fn a_torn_tail_is_cut_and_kept_aside_and_its_place_is_written_anew() {
    let mut written = Written::new(60);
    let last = written.puts.last().unwrap().clone();
    written.patch(last.at + last.size / 2, &vec![0; last.size - last.size / 2]);
    let view = written.lost_is([59]);
    assert!(view.report.torn.is_some() && view.report.damage.is_empty());
    assert_eq!(view.report.end, PhysicalOffset(i64::try_from(last.at).unwrap()));

    let store = Store::open(written.config()).unwrap();
    assert!(written.log_bytes(last.at, last.size).iter().all(|byte| *byte == 0), "the tail is zeroed");
    assert!(fs::read_dir(written.path("quarantine")).unwrap().count() > 0);
    written.puts.pop();
    written.put(&store, last.topic, last.id, b"xxxxxxxxxxxxxxxxxxxx");
    store.close().unwrap();
    let again = written.puts.last().unwrap();
    assert_eq!((again.at, again.number), (last.at, last.number));
    written.lost_is([]);
}

#[test]
fn a_record_whose_last_bytes_were_never_written_is_torn_though_its_body_is_whole() {
    let written = Written::new(30);
    let last = written.puts.last().unwrap();
    written.patch(last.at + last.size - 10, &[0; 10]);
    assert!(written.lost_is([29]).report.torn.is_some());
}

#[test]
fn a_record_checksum_counts_where_it_is_asked_for_and_there() {
    let dir = TempDir::new().unwrap();
    let config = |append, force| {
        Written { dir: TempDir::new().unwrap(), puts: Vec::new() }
            .config()
            .append_prop_crc(append)
            .force_verify_prop_crc(force)
    };
    let at = |append, force| Config { root: dir.path().to_owned(), ..config(append, force) };
    let mut places = Vec::new();
    for append in [false, true] {
        let store = Store::open(at(append, false)).unwrap();
        let queue = store.queue("a", 0).unwrap();
        for _ in 0..4 {
            let put = store.put(&Message::new(queue, b"body").tags("t")).unwrap();
            places.push((put.physical_offset().0, put.size()));
            put.wait().unwrap();
        }
        store.close().unwrap();
    }
    let records = |force| Store::open(at(true, force)).unwrap().recovery_report().records;
    assert_eq!(records(true), 8, "records from before the switch are none the worse");
    let path = dir.path().join("commitlog/00000000000000000000");
    let patch = |at: i64, byte: u8| {
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(&[byte], u64::try_from(at).unwrap()).unwrap();
    };
    let (fifth, size) = places[4];
    patch(fifth + QUEUE_ID_AT as i64, 1);
    // Its entry would tell as well.
    fs::remove_dir_all(dir.path().join("consumequeue")).unwrap();
    assert_eq!(records(false), 8, "nobody asked");
    assert_eq!(records(true), 7, "the queue number is covered");
    patch(fifth + QUEUE_ID_AT as i64, 0);
    patch(fifth + i64::try_from(size).unwrap() - 5, b'x');
    assert_eq!(records(true), 7, "the checksum itself is damaged");
}

#[test]
fn garbage_behind_the_end_is_cut() {
    let written = Written::new(30);
    let end = written.puts.last().map(|put| put.at + put.size).unwrap();
    written.patch(end, &[0xA7; 64]);
    assert!(written.lost_is([]).report.torn.is_some());
    written.mended();
}

#[test]
fn a_bad_record_in_the_middle_costs_itself_only() {
    for damage in ["body", "magic", "huge", "negative", "one more", "place"] {
        let written = Written::new(120);
        let i = written.some_middle(50);
        let put = &written.puts[i];
        match damage {
            "body" => written.flip_body(i),
            "magic" => written.patch(put.at + MAGIC_AT, b"\xde\xad\xbe\xef"),
            "huge" => written.patch(put.at, &i32::MAX.to_be_bytes()),
            "negative" => written.patch(put.at, &(-1_i32).to_be_bytes()),
            "one more" => written.patch(put.at, &i32::try_from(put.size + 1).unwrap().to_be_bytes()),
            _ => written.patch(put.at + PHYSICAL_OFFSET_AT, &7_i64.to_be_bytes()),
        }
        let view = written.lost_is([i]);
        let [range] = view.report.damage[..] else { panic!("{damage}: {}", view.report) };
        assert_eq!(
            (range.from.since(PhysicalOffset::ZERO), range.to.since(range.from)),
            (put.at as u64, put.size as u64)
        );
        assert_eq!(view.report.torn, None, "{damage}");
        let before = written.log_bytes(put.at, put.size);
        written.mended();
        let kept = written.path(&format!("quarantine/{:020}-{}.bin", put.at, put.size));
        assert_eq!(fs::read(kept).unwrap(), before, "{damage}: kept for whoever can use them");
        let closed = written.lost_is([i]).report;
        assert!(closed.is_clean() && closed.damage[0].is_closed(), "{closed}");
        assert_eq!((closed.damage[0].from, closed.damage[0].to), (range.from, range.to));
    }
}

#[test]
fn damage_deep_in_a_long_log_costs_itself_only() {
    const LONG: u64 = 8 << 20;
    let dir = TempDir::new().unwrap();
    let open = || Store::open(Config::new(dir.path()).commit_log_file_size(LONG)).unwrap();
    let store = open();
    let queue = store.queue("t", 0).unwrap();
    let body = vec![b'x'; 100_000];
    let put = |_| {
        let put = store.put(&Message::new(queue, &body)).unwrap();
        (put.physical_offset(), put.physical_offset().plus(put.size()))
    };
    let places: Vec<_> = (0..200).map(put).collect();
    store.close().unwrap();
    drop(store);
    let damaged = [50, 51, 150];
    for n in damaged {
        let at = u64::try_from(places[n].0.0).unwrap() + 5000;
        let path = dir.path().join(format!("commitlog/{:020}", at / LONG * LONG));
        fs::OpenOptions::new().write(true).open(path).unwrap().write_all_at(b"y", at % LONG).unwrap();
    }
    let store = open();
    let report = store.recovery_report();
    let found: Vec<_> = report.damage.iter().map(|range| (range.from, range.to)).collect();
    assert_eq!(found, [(places[50].0, places[51].1), places[150]], "{report}");
    assert_eq!(report.records, 197);
    let queue = store.find_queue("t", 0).unwrap();
    for n in 0..places.len() {
        let number = QueueOffset(i64::try_from(n).unwrap());
        let served =
            store.get(queue, number).unwrap().take(1).any(|message| message.queue_offset() == number);
        assert_eq!(served, !damaged.contains(&n), "message {n}");
    }
}

#[test]
fn a_hole_in_the_tail_costs_what_was_in_it() {
    let written = Written::new(120);
    let i = written.some_middle(70);
    let (from, to) = (written.puts[i].at, written.puts[i + 2].at + 10);
    let segment_end = (from / SEGMENT + 1) * SEGMENT;
    written.patch(from, &vec![0; to.min(segment_end) - from]);
    let lost: Vec<usize> = (0..120)
        .filter(|n| written.puts[*n].at >= from && written.puts[*n].at < to.min(segment_end))
        .collect();
    assert!(lost.len() >= 2);
    // The queues are gone as well: what was lost leaves slots that lead nowhere, and shifts nothing.
    fs::remove_dir_all(written.path("consumequeue")).unwrap();
    let view = written.lost_is(lost.iter().copied());
    assert_eq!(view.report.queues.filled, lost.len() as u64);
    written.mended();
    written.lost_is(lost);
}

#[test]
fn a_segment_without_its_blank_goes_on_in_the_next() {
    let written = Written::new(120);
    let boundary = written.puts.windows(2).find(|w| w[0].at / SEGMENT != w[1].at / SEGMENT).unwrap();
    let end = boundary[0].at + boundary[0].size;
    written.patch(end, &[0; 8]);
    let view = written.lost_is([]);
    assert!(view.report.damage.len() == 1 && view.report.damage[0].is_unwritten(), "{}", view.report);
    assert_eq!(view.report.torn, None);
}

#[test]
fn a_damaged_end_of_a_segment_does_not_hide_the_next() {
    let written = Written::new(120);
    let first = written.puts.windows(2).position(|w| w[0].at / SEGMENT != w[1].at / SEGMENT).unwrap();
    written.flip_body(first);
    // And the next segment begins with damage, too.
    written.flip_body(first + 1);
    let view = written.lost_is([first, first + 1]);
    assert_eq!(view.report.torn, None);
}

#[test]
fn a_record_copied_behind_the_end_is_none() {
    let written = Written::new(30);
    let (first, last) = (&written.puts[3], written.puts.last().unwrap());
    let copy = written.log_bytes(first.at, first.size);
    written.patch(last.at + last.size, &copy);
    assert!(written.lost_is([]).report.torn.is_some());
    written.mended();
}

#[test]
fn a_record_from_before_an_earlier_cut_does_not_come_back() {
    let written = Written::new(30);
    // Its number was given out again, to a record stored later; a recovery that leaves what it cuts makes such logs.
    let last = written.puts.last().unwrap();
    let bytes = written.log_bytes(last.at, last.size);
    let stored = Record::decode(&bytes).unwrap().store_timestamp.0;
    let stored_at = bytes.windows(8).rposition(|w| w == stored.to_be_bytes()).unwrap();
    written.patch(last.at + stored_at, &(stored - 60_000).to_be_bytes());
    written.lost_is([]);
    written.patch(last.at + QUEUE_OFFSET_AT, &(last.number - 3).to_be_bytes());
    let view = written.lost_is([29]);
    assert!(view.report.torn.is_some());
}
