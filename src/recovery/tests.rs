//! One store per rule: written, closed, damaged by hand, and looked at as the next open would find it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::FileExt,
    path::PathBuf,
    time::{Duration, Instant},
};

mod inner_batch;
mod keys;
mod log;
mod queues;
mod unreadable;

use tempfile::TempDir;

use super::{
    RecoveryReport,
    scan::{Checks, Scan, Step},
};
use crate::{
    config::Config,
    dump::{Line, dump},
    error::Result,
    format::message::{
        BODY_CRC_AT, BORN_HOST_AT, MAGIC_AT, MAGIC_V1, PHYSICAL_OFFSET_AT, QUEUE_ID_AT, QUEUE_OFFSET_AT,
        Record,
    },
    message::Message,
    store::Store,
    types::{PhysicalOffset, QueueOffset},
};

const SEGMENT: usize = 8192;

/// A message as it was put.
#[derive(Clone, Debug)]
struct Put {
    topic: &'static str,
    id: i32,
    number: i64,
    at: usize,
    size: usize,
    key: String,
}

/// A store that was written and closed.
struct Written {
    dir: TempDir,
    puts: Vec<Put>,
}

/// What opening it comes to.
#[derive(Default)]
struct View {
    records: BTreeSet<usize>,
    /// Where the entry of each slot leads, and whether a message is there.
    slots: BTreeMap<(String, i32, i64), (i64, bool)>,
    queues: BTreeMap<(String, i32), (i64, i64)>,
    hits: BTreeMap<String, Vec<usize>>,
    blanks: usize,
    report: RecoveryReport,
}

impl Written {
    fn config(&self) -> Config {
        Config::new(self.dir.path())
            .commit_log_file_size(SEGMENT as u64)
            .consume_queue_file_size(400_u64)
            .index_slots(16_u32)
            .index_entries(64_u32)
    }

    /// `count` messages of different sizes in three queues.
    fn new(count: usize) -> Self {
        let mut written = Self { dir: TempDir::new().unwrap(), puts: Vec::new() };
        let store = Store::open(written.config()).unwrap();
        for i in 0..count {
            let (topic, id) = [("a", 0), ("a", 1), ("b", 0)][i % 3];
            let body = vec![b'x'; 20 + i * 37 % 400];
            written.put(&store, topic, id, &body);
        }
        store.close().unwrap();
        written
    }

    fn put(&mut self, store: &Store, topic: &'static str, id: i32, body: &[u8]) {
        let key = format!("k{}", self.puts.len());
        let queue = store.queue(topic, id).unwrap();
        let appended = store.put(&Message::new(queue, body).keys(&key).tags("t")).unwrap();
        self.puts.push(Put {
            topic,
            id,
            number: appended.queue_offset().0,
            at: usize::try_from(appended.physical_offset().0).unwrap(),
            size: appended.size(),
            key,
        });
        appended.wait().unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Overwrites bytes of the log.
    fn patch(&self, at: usize, bytes: &[u8]) {
        let name = format!("commitlog/{:020}", at / SEGMENT * SEGMENT);
        let file = fs::OpenOptions::new().write(true).open(self.path(&name)).unwrap();
        file.write_all_at(bytes, (at % SEGMENT) as u64).unwrap();
    }

    fn log_bytes(&self, at: usize, len: usize) -> Vec<u8> {
        let name = format!("commitlog/{:020}", at / SEGMENT * SEGMENT);
        fs::read(self.path(&name)).unwrap()[at % SEGMENT..][..len].to_vec()
    }

    /// Flips a bit in the body of put `i`.
    fn flip_body(&self, i: usize) {
        let put = &self.puts[i];
        let bytes = self.log_bytes(put.at, put.size);
        let body_at = bytes.windows(20).position(|w| w == [b'x'; 20]).unwrap();
        self.patch(put.at + body_at + 5, b"y");
    }

    /// Puts whose record begins and ends within one segment, away from its ends.
    fn middle(&self, i: usize) -> bool {
        let inside = |put: &Put| put.at / SEGMENT;
        inside(&self.puts[i - 1]) == inside(&self.puts[i])
            && inside(&self.puts[i]) == inside(&self.puts[i + 1])
    }

    /// A put of a queue's middle that is in a segment's middle, at or behind `from`.
    fn some_middle(&self, from: usize) -> usize {
        (from..self.puts.len() - 6).find(|i| self.middle(*i)).unwrap()
    }

    fn view(&self) -> Result<View> {
        let mut view = View::default();
        let queries: Vec<_> = self.puts.iter().map(|put| (put.topic.to_owned(), put.key.clone())).collect();
        dump(self.config(), &queries, &mut |line| {
            match line {
                Line::Record { at, .. } => _ = view.records.insert(usize::try_from(at.0).unwrap()),
                Line::Blank { .. } => view.blanks += 1,
                Line::Queue(queue) => {
                    _ = view.queues.insert((queue.topic.to_string(), queue.id.0), (queue.min.0, queue.max.0));
                }
                Line::Cq { queue, unit, message } => {
                    let slot = (queue.topic.to_string(), queue.id.0, unit.queue_offset.0);
                    view.slots.insert(slot, (unit.offset.0, message.is_some()));
                }
                Line::Query { key, hits, .. } => {
                    let places = hits.offsets.iter().map(|at| usize::try_from(at.0).unwrap()).collect();
                    view.hits.insert(key.to_owned(), places);
                }
                Line::Recovery(report) => view.report = report.clone(),
                _ => {}
            }
            Ok(())
        })?;
        Ok(view)
    }

    /// Opens the store, and checks that exactly the puts in `lost` are not there any more.
    fn lost_is(&self, lost: impl IntoIterator<Item = usize>) -> View {
        let lost: BTreeSet<usize> = lost.into_iter().collect();
        let view = self.view().unwrap();
        for (i, put) in self.puts.iter().enumerate() {
            let slot = view.slots.get(&(put.topic.to_owned(), put.id, put.number));
            let hit = view.hits[&put.key].contains(&put.at);
            if lost.contains(&i) {
                assert!(!view.records.contains(&put.at), "put {i} is still in the log");
                assert!(!slot.is_some_and(|(_, found)| *found), "put {i} is still in its queue: {slot:?}");
            } else {
                assert!(view.records.contains(&put.at), "put {i} is lost: {:?}", view.report);
                assert_eq!(slot, Some(&(i64::try_from(put.at).unwrap(), true)), "slot of put {i}");
                assert!(hit, "put {i} is not found by its key");
            }
        }
        assert_eq!(view.records.len(), self.puts.len() - lost.len());
        view
    }

    /// What verify says of it.
    fn is_whole(&self) -> bool {
        crate::verify::verify(self.config(), &mut |_| {}, &mut |_| {}).unwrap().is_whole()
    }

    /// Really opens and closes the store; afterwards nothing is left to mend.
    fn mended(&self) {
        Store::open(self.config()).unwrap().close().unwrap();
        let again = self.view().unwrap().report;
        assert_eq!((again.queues, again.index), Default::default(), "the second open had work left");
        assert_eq!(again.torn, None);
    }

    fn queue_file(&self, topic: &str, id: i32, file: usize) -> PathBuf {
        self.path(&format!("consumequeue/{topic}/{id}/{:020}", file * 400))
    }
}

#[test]
fn an_undamaged_store_is_left_alone() {
    let written = Written::new(120);
    let view = written.lost_is([]);
    assert!(view.report.is_clean(), "{}", view.report);
    assert!(view.blanks > 1, "the store has several segments");
}

#[test]
fn an_index_that_differs_from_the_log_is_completed_or_rebuilt() {
    for damage in ["none", "one file", "all", "entry", "slots", "header", "size"] {
        let written = Written::new(150);
        let mut files: Vec<_> =
            fs::read_dir(written.path("index")).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        assert!(files.len() > 2);
        let patch = |at: u64, bytes: &[u8]| {
            fs::OpenOptions::new().write(true).open(&files[1]).unwrap().write_all_at(bytes, at).unwrap();
        };
        match damage {
            "one file" => fs::remove_file(&files[1]).unwrap(),
            "all" => fs::remove_dir_all(written.path("index")).unwrap(),
            "entry" => patch(40 + 16 * 4 + 20 * 7, &[9; 20]),
            "slots" => patch(40, &[0; 64]),
            "header" => patch(32, &[0; 8]),
            "size" => fs::write(&files[1], [0; 100]).unwrap(),
            _ => {}
        }
        let view = written.lost_is([]);
        assert_eq!(view.report.index == Default::default(), damage == "none", "{damage}: {}", view.report);
        written.mended();
    }
}

#[test]
fn a_checkpoint_is_only_a_hint() {
    let written = Written::new(90);
    fs::remove_dir_all(written.path("consumequeue/a")).unwrap();
    for (i, checkpoint) in
        [vec![], vec![0; 10], vec![0; 4096], vec![0x7f; 4096], vec![0xff; 4096]].iter().enumerate()
    {
        fs::write(written.path("checkpoint"), checkpoint).unwrap();
        for abort in [true, false] {
            if abort {
                fs::write(written.path("abort"), "1").unwrap();
            } else {
                fs::remove_file(written.path("abort")).unwrap();
            }
            let view = written.lost_is([]);
            assert_eq!(view.report.aborted, abort, "checkpoint {i}");
        }
    }
}

#[test]
fn without_a_log_nothing_is_left_that_leads_into_it() {
    let written = Written::new(30);
    fs::remove_dir_all(written.path("commitlog")).unwrap();
    let view = written.view().unwrap();
    assert!(view.records.is_empty() && view.slots.is_empty());
    assert!(view.queues.values().all(|queue| *queue == (0, 0)), "{:?}", view.queues);
    assert!(view.hits.values().all(Vec::is_empty));
    assert!(!view.report.aside.is_empty() && view.report.durable_before.is_some(), "{}", view.report);
}

/// The log may lie on a disk that is not mounted: what led into it is kept, and serves it again.
#[test]
fn what_led_into_a_missing_log_is_kept_and_can_be_put_back() {
    let written = Written::new(30);
    let whole = written.lost_is([]);
    let (log, elsewhere) = (written.path("commitlog"), written.path("elsewhere"));
    let queue = "consumequeue/a/0/00000000000000000000";
    let bytes = fs::read(written.path(queue)).unwrap();
    fs::rename(&log, &elsewhere).unwrap();
    for _ in 0..2 {
        Store::open(written.config()).unwrap().close().unwrap();
        assert_eq!(fs::read(written.path(&format!("quarantine/{queue}"))).unwrap(), bytes);
        let manifest = fs::read_to_string(written.path("quarantine/manifest.jsonl")).unwrap();
        assert_eq!(manifest.matches(&format!("{{\"file\":\"{queue}\"")).count(), 1, "{manifest}");
        assert!(manifest.contains("no log"));
    }
    fs::remove_dir_all(&log).unwrap();
    fs::rename(elsewhere, log).unwrap();
    for name in ["consumequeue", "index"] {
        let _ = fs::remove_dir_all(written.path(name));
        fs::rename(written.path(&format!("quarantine/{name}")), written.path(name)).unwrap();
    }
    let view = written.view().unwrap();
    assert_eq!((view.records.len(), view.slots.len()), (whole.records.len(), whole.slots.len()));
    assert_eq!(view.report.queues, Default::default(), "{}", view.report);
}

#[test]
fn a_log_trimmed_by_retention_starts_its_queues_midway() {
    let written = Written::new(120);
    fs::remove_file(written.path("commitlog/00000000000000000000")).unwrap();
    for queues in ["there", "gone"] {
        if queues == "gone" {
            fs::remove_dir_all(written.path("consumequeue")).unwrap();
        }
        let view = written.lost_is((0..120).filter(|i| written.puts[*i].at < SEGMENT));
        let first =
            written.puts.iter().find(|put| put.at >= SEGMENT && (put.topic, put.id) == ("a", 0)).unwrap();
        assert_eq!(view.queues[&("a".to_owned(), 0)], (first.number, 40), "queues {queues}");
    }
}

#[test]
fn a_name_or_number_that_cannot_be_a_queue_leads_nowhere() {
    let written = Written::new(30);
    let put = &written.puts[9];
    let bytes = written.log_bytes(put.at, put.size);
    let topic_at = bytes.windows(2).rposition(|w| w == b"\x01a").unwrap() + 1;
    written.patch(put.at + topic_at, b"/");
    written.patch(written.puts[10].at + QUEUE_ID_AT, &(-5_i32).to_be_bytes());
    let view = written.view().unwrap();
    assert_eq!(view.report.queues.unplaced, 2);
    assert_eq!(view.records.len(), 30, "the records stay in the log");
    assert!(view.queues.keys().all(|(topic, id)| ["a", "b"].contains(&topic.as_str()) && *id >= 0));
}

#[test]
fn any_flipped_bit_costs_one_message_at_most() {
    let written = Written::new(40);
    let end = written.puts.last().map(|put| put.at + put.size).unwrap();
    let whole = written.lost_is([]);
    // A step that is coprime to all field widths meets every kind of field.
    for at in (0..end).step_by(41) {
        let byte = written.log_bytes(at, 1)[0];
        written.patch(at, &[byte ^ (1 << (at % 8))]);
        let view = written.view().unwrap();
        let lost = whole.records.difference(&view.records).count();
        assert!(lost <= 1, "byte {at} cost {lost} records: {}", view.report);
        assert!(view.records.is_subset(&whole.records), "byte {at} made a record");
        let found = |view: &View| view.slots.values().filter(|(_, found)| *found).count();
        assert!(found(&view) + 1 >= found(&whole), "byte {at} cost {} entries", found(&whole) - found(&view));
        written.patch(at, &[byte]);
    }
}

#[test]
fn queues_of_a_switch_that_is_off_today_stay() {
    let written = Written::new(3);
    let lit = |on| written.config().multi_dispatch(on).lmq(on);
    let store = Store::open(lit(true)).unwrap();
    let queue = store.queue("a", 0).unwrap();
    for _ in 0..5 {
        let message = Message::new(queue, b"to two").property("INNER_MULTI_DISPATCH", "%LMQ%x");
        store.put(&message).unwrap().wait().unwrap();
    }
    store.close().unwrap();
    for on in [false, true, false] {
        let store = Store::open(lit(on)).unwrap();
        let light = store.find_queue("%LMQ%x", 0).unwrap();
        assert_eq!(store.max_offset(light), QueueOffset(5));
        assert!(store.recovery_report().is_clean(), "{}", store.recovery_report());
        store.close().unwrap();
    }
}

/// Lengths on disk are not believed: thousands of records that state to be huge, each inside the one before, must
/// not make the search for the next good one read the segment thousands of times.
#[test]
fn a_log_made_to_be_slow_is_read_in_linear_time() {
    let mut bytes = vec![0; 4 << 20];
    let len = bytes.len();
    for at in (0..len - 200).step_by(128) {
        bytes[at..at + 4].copy_from_slice(&u32::try_from(len - at).unwrap().to_be_bytes());
        bytes[at + MAGIC_AT..at + MAGIC_AT + 4].copy_from_slice(&MAGIC_V1.to_be_bytes());
        bytes[at + BODY_CRC_AT..at + BODY_CRC_AT + 4].copy_from_slice(&1_u32.to_be_bytes());
        bytes[at + PHYSICAL_OFFSET_AT..at + PHYSICAL_OFFSET_AT + 8]
            .copy_from_slice(&(at as i64).to_be_bytes());
        let body = u32::try_from(len - at - 91).unwrap();
        bytes[at + 84..at + 88].copy_from_slice(&body.to_be_bytes());
    }
    let checks = Checks { body_crc: true, record_crc: false, unsynced_from: None };
    let segments = vec![(PhysicalOffset::ZERO, bytes.as_slice())];
    let mut scan = Scan::new(segments, vec![len], &|_, _| Ok(()), checks, PhysicalOffset::ZERO);
    let started = Instant::now();
    let Step::End { at, torn } = scan.step(&|_, _| None).unwrap() else { panic!("nothing here is a record") };
    assert!(at == PhysicalOffset::ZERO && torn.is_some());
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[test]
fn a_damaged_message_is_not_served() {
    let written = Written::new(60);
    let i = written.some_middle(20);
    written.flip_body(i);
    let put = &written.puts[i];
    for queues in ["there", "gone"] {
        if queues == "gone" {
            fs::remove_dir_all(written.path("consumequeue")).unwrap();
        }
        let store = Store::open(written.config()).unwrap();
        let queue = store.queue(put.topic, put.id).unwrap();
        let mut numbers = Vec::new();
        let mut at = QueueOffset::ZERO;
        while at < store.max_offset(queue) {
            let got = store.get(queue, at).unwrap();
            at = got.next_offset;
            numbers.extend(got.messages.iter().map(|message| message.record().queue_offset.0));
        }
        let want: Vec<i64> = (0..20).filter(|number| *number != put.number).collect();
        assert_eq!(numbers, want, "queues {queues}");
        store.close().unwrap();
    }
}

/// What a mutation did to a file.
fn mutate(random: &mut impl FnMut(usize) -> usize, files: &[PathBuf]) {
    let path = &files[random(files.len())];
    let mut bytes = fs::read(path).unwrap_or_default();
    if bytes.is_empty() {
        return;
    }
    let from = random(bytes.len());
    let to = bytes.len().min(from + 1 + random(600));
    match random(6) {
        0 => return fs::remove_file(path).unwrap(),
        1 => bytes[from] ^= 1 << random(8),
        2 => bytes[from..to].fill(0),
        3 => bytes[from..to].fill_with(|| u8::try_from(random(256)).unwrap()),
        4 => bytes[from..to].fill(0xff),
        _ => {
            let other = fs::read(&files[random(files.len())]).unwrap_or_default();
            let shared = bytes.len().min(other.len());
            bytes[..shared].copy_from_slice(&other[..shared]);
        }
    }
    fs::write(path, bytes).unwrap();
}

fn files_below(dir: &std::path::Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { all.extend(files_below(&path)) } else { all.push(path) }
    }
    all.sort();
    all
}

/// Whatever is done to the files of queues and index, the log makes them anew; whatever is done to the log, what is
/// served is what was put.
#[test]
fn a_store_changed_at_random_serves_what_was_put_or_nothing() {
    for log_too in [false, true] {
        for seed in 1..=20_u64 {
            let mut written = Written::new(60);
            let store = Store::open(written.config()).unwrap();
            for _ in 0..10 {
                let queue = store.batch_queue("c", 0).unwrap();
                let message = Message::new(queue, b"xxxxxxxxxxxxxxxxxxxxxxxx")
                    .sys_flag(crate::SysFlag(crate::SysFlag::INNER_BATCH))
                    .property("INNER_NUM", "3");
                store.put(&message).unwrap().wait().unwrap();
            }
            written.put(&store, "a", 0, b"xxxxxxxxxxxxxxxxxxxxxxxx");
            store.close().unwrap();
            let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mut random = |below: usize| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                usize::try_from(state >> 33).unwrap() % below.max(1)
            };
            let mut files = files_below(written.dir.path());
            files.retain(|path| log_too || !path.starts_with(written.path("commitlog")));
            for _ in 0..1 + random(6) {
                files.retain(|path| path.exists());
                mutate(&mut random, &files);
            }
            let view =
                written.view().unwrap_or_else(|error| panic!("log too: {log_too}, seed {seed}: {error}"));
            if !log_too {
                for put in &written.puts {
                    let slot = view.slots.get(&(put.topic.to_owned(), put.id, put.number));
                    assert_eq!(slot, Some(&(i64::try_from(put.at).unwrap(), true)), "seed {seed}: {put:?}");
                    assert!(view.hits[&put.key].contains(&put.at), "seed {seed}: {put:?}");
                }
                assert_eq!(view.queues[&("c".to_owned(), 0)], (0, 30), "seed {seed}");
            }
            for ((topic, id, number), (at, found)) in &view.slots {
                let put = written.puts.iter().find(|put| i64::try_from(put.at) == Ok(*at));
                if let Some(put) = put.filter(|put| *found && *topic == put.topic) {
                    assert!(log_too || (put.id, put.number) == (*id, *number), "seed {seed}: {put:?}");
                }
            }
            if view.report.end.0 > 0 {
                written.mended();
            }
        }
    }
}
