//! The disk by itself, the mistakes that the lab has found in the store, each by its mechanism, and a small lab.

mod failing;
mod full_disk;
mod lab;
mod program;

use std::{ops::Range, path::Path, sync::Arc, time::Duration};

use super::{Budget, Call, Crash, Failure, Fault, Kept, Lab, Outcome, SimDisk};
use crate::{
    Config, FlushDiskType, ManualClock, Message, PhysicalOffset, QueueOffset, Steps, Store, StoreTimestamp,
    clock::Clock,
    vfs::{Backing, Reserve, Vfs},
};

mod recovery;

const ALL: Outcome = Outcome { pages: Kept::All, names: Kept::All };
const NOTHING: Outcome = Outcome { pages: Kept::None, names: Kept::None };

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(StoreTimestamp(1_700_000_000_000)))
}

fn disk() -> SimDisk {
    SimDisk::new(clock())
}

fn after(crash: &Crash, outcome: Outcome) -> SimDisk {
    crash.disk(outcome, clock())
}

fn file(disk: &SimDisk, name: &str, len: u64) -> Box<dyn Backing> {
    disk.create(Path::new(name), len, Reserve::All).unwrap()
}

fn content(disk: &SimDisk, name: &str) -> Option<Vec<u8>> {
    disk.read(Path::new(name), 1 << 20).unwrap()
}

/// Stores through the mapping, as the store does.
fn store(backing: &dyn Backing, at: usize, bytes: &[u8]) {
    let len = backing.len();
    let table = crate::segment::SlotTable::new(Box::new(Borrowed(backing.base(), len)));
    backing.announce(at..at + bytes.len());
    table.put_bytes(at, bytes);
}

/// The memory of another backing.
#[derive(Debug)]
struct Borrowed(std::ptr::NonNull<u8>, usize);

#[allow(unsafe_code, reason = "the pointer is only handed on; the backing outlives the call in `store`")]
mod shared {
    // SAFETY: see the reason above.
    unsafe impl Send for super::Borrowed {}
    // SAFETY: as above.
    unsafe impl Sync for super::Borrowed {}
}

impl Backing for Borrowed {
    fn base(&self) -> std::ptr::NonNull<u8> {
        self.0
    }
    fn len(&self) -> usize {
        self.1
    }
    fn write(&self, _: usize, _: &[u8]) -> std::io::Result<()> {
        Ok(())
    }
    fn rewrite(&self, _: Range<usize>) -> std::io::Result<()> {
        Ok(())
    }
    fn sync(&self, _: Range<usize>) -> std::io::Result<()> {
        Ok(())
    }
    fn start_writeback(&self, _: Range<usize>) {}
    fn populate(&self, _: Range<usize>) {}
    fn reserve(&self, _: Range<usize>) -> std::io::Result<()> {
        Ok(())
    }
    fn advise(&self, _: crate::vfs::Advice) {}
}

#[test]
fn a_page_is_as_it_was_synced_or_any_later_version() {
    let disk = disk();
    let made = file(&disk, "/f", 8192);
    made.write(0, b"one").unwrap();
    made.sync(0..8192).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    store(&*made, 0, b"two");
    disk.point();
    assert_eq!(disk.crash().dirty_pages(), 1);
    store(&*made, 4096, b"new");
    let crash = disk.crash();
    assert_eq!((crash.dirty_pages(), crash.unsynced_names()), (2, 0));
    assert_eq!(crash.exhaustive(12).unwrap().len(), 4);
    let seen = |outcome| {
        let bytes = content(&after(&crash, outcome), "/f").unwrap();
        (bytes[..3].to_vec(), bytes[4096..4099].to_vec())
    };
    let pages = |pages| Outcome { pages, names: Kept::All };
    assert_eq!(seen(pages(Kept::None)), (b"one".to_vec(), vec![0; 3]));
    assert_eq!(seen(pages(Kept::First)), (b"two".to_vec(), vec![0; 3]));
    assert_eq!(seen(pages(Kept::Last)), (b"one".to_vec(), b"new".to_vec()));
    assert_eq!(seen(ALL), (b"two".to_vec(), b"new".to_vec()));
    made.sync(0..1).unwrap();
    assert_eq!(disk.crash().dirty_pages(), 1, "a sync is of its range alone");
}

#[test]
fn torn_pages_mix_whole_sectors() {
    let disk = disk();
    let made = file(&disk, "/f", 4096);
    made.write(0, &[1; 4096]).unwrap();
    made.sync(0..4096).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    made.write(0, &[2; 4096]).unwrap();
    let crash = disk.crash();
    let mut mixed = 0;
    for seed in 0..50 {
        let left = after(&crash, Outcome { pages: Kept::Torn(seed), names: Kept::All });
        let bytes = content(&left, "/f").unwrap();
        assert!(bytes.chunks(512).all(|sector| sector.iter().all(|byte| *byte == sector[0])));
        mixed += u32::from(bytes.contains(&1) && bytes.contains(&2));
    }
    assert!(mixed > 20, "{mixed} of 50 are mixed");
}

#[test]
fn names_and_lengths_need_their_own_syncs() {
    let disk = disk();
    disk.create_dirs_unsynced(Path::new("/a/b")).unwrap();
    let made = file(&disk, "/a/b/f", 100);
    made.write(0, b"x").unwrap();
    made.sync(0..100).unwrap();
    assert_eq!(content(&after(&disk.crash(), NOTHING), "/a/b/f"), None);
    disk.sync_dir(Path::new("/a/b")).unwrap();
    assert_eq!(content(&after(&disk.crash(), NOTHING), "/a/b/f"), None, "its directory is not durable");
    disk.sync_dir(Path::new("/a")).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    assert_eq!(content(&after(&disk.crash(), NOTHING), "/a/b/f").unwrap().len(), 100);
    drop(file(&disk, "/a/g", 50));
    disk.sync_dir(Path::new("/a")).unwrap();
    assert_eq!(
        content(&after(&disk.crash(), NOTHING), "/a/g").unwrap().len(),
        0,
        "its length is not durable"
    );
    disk.rename(Path::new("/a/b/f"), Path::new("/a/b/h")).unwrap();
    let crash = disk.crash();
    let names = |outcome| {
        let left = after(&crash, outcome);
        left.list(Path::new("/a/b")).unwrap().into_iter().map(|entry| entry.name).collect::<Vec<_>>()
    };
    assert_eq!((names(NOTHING), names(ALL)), (vec!["f".to_owned()], vec!["h".to_owned()]));
}

#[test]
fn a_failed_sync_leaves_a_clean_page_with_the_old_bytes_below() {
    let disk = disk();
    let made = file(&disk, "/f", 4096);
    made.sync(0..4096).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    made.write(0, b"lost").unwrap();
    disk.fail(Fault { call: Some(Call::Sync), pass: 0, times: 1, failure: Failure::Device });
    assert!(made.sync(0..4096).is_err());
    assert!(made.sync(0..4096).is_ok(), "the second sync says that all is well");
    assert_eq!(&content(&disk, "/f").unwrap()[..4], b"lost", "the cache shows it");
    assert_eq!(content(&after(&disk.crash(), ALL), "/f").unwrap()[..4], [0; 4], "the disk has not got it");
    assert_eq!((disk.failed_calls(), disk.calls()[&Call::Sync]), (1, 3));
}

#[test]
fn a_full_disk_refuses_files_writes_and_reservations() {
    let disk = disk();
    disk.set_capacity(3 * 4096);
    let full = |result: std::io::Result<()>| {
        assert_eq!(result.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    };
    let sparse = disk.create(Path::new("/sparse"), 1 << 20, Reserve::None).unwrap();
    full(disk.create(Path::new("/f"), 4 * 4096, Reserve::All).map(drop));
    assert!(disk.stat(Path::new("/f")).unwrap().is_none());
    sparse.write(0, &[1; 8192]).unwrap();
    sparse.reserve(8192..12_288).unwrap();
    full(sparse.reserve(12_288..12_289));
    full(sparse.write(1 << 19, b"x"));
    let usage = disk.usage(Path::new("/")).unwrap();
    assert_eq!((usage.total, usage.free), (3 * 4096, 0));
}

#[test]
fn stores_past_the_seam_are_found() {
    let disk = disk();
    let sparse = disk.create(Path::new("/f"), 8192, Reserve::None).unwrap();
    sparse.write(0, b"through the file").unwrap();
    store(&*sparse, 20, b"announced");
    assert_eq!(disk.strays(), [""; 0]);
    store(&*sparse, 4096, b"no space was claimed");
    assert!(disk.strays()[0].contains("has no space"), "{:?}", disk.strays());
    if cfg!(debug_assertions) {
        let disk = self::disk();
        let made = file(&disk, "/f", 4096);
        let table = crate::segment::SlotTable::new(Box::new(Borrowed(made.base(), made.len())));
        table.put_bytes(8, b"unannounced");
        made.sync(0..4096).unwrap();
        assert!(disk.strays()[0].contains("8..19"), "{:?}", disk.strays());
    }
}

#[test]
fn the_lock_comes_before_everything_and_keeps_a_second_store_from_changing_a_byte() {
    let disk = disk();
    let config = || Config::new("/store").commit_log_file_size(8192_u64);
    let open = || Store::open_stepped(config(), Arc::new(disk.clone()), clock());
    let first = open().unwrap();
    let (before, calls) = (disk.contents(), disk.calls());
    assert!(matches!(open(), Err(crate::Error::Locked { .. })));
    assert_eq!(disk.contents(), before);
    let mut after = disk.calls();
    *after.get_mut(&Call::Lock).unwrap() -= 1;
    assert_eq!(after, calls, "the lock alone was asked for");
    drop(first);
    open().unwrap();
}

/// A store of small segments, in life after life.
struct Life {
    disk: SimDisk,
    clock: Arc<ManualClock>,
    config: Config,
    open: Option<(Store, Steps)>,
}

impl Life {
    fn new(set: impl FnOnce(Config) -> Config) -> Self {
        let clock = clock();
        let config = Config::new("/store").commit_log_file_size(8192_u64).file_reserved_hours(1_u64);
        let config = set(config.consume_queue_file_size(60_u64).index_slots(7_u32).index_entries(4_u32));
        let disk = SimDisk::new(Arc::clone(&clock) as Arc<dyn Clock>);
        let mut life = Self { disk, clock, config, open: None };
        life.start();
        life
    }

    /// Opens what 60 power cuts leave that tear pages: `check` sees the first message where it is, and the result is how
    /// often it is not.
    fn lost_torn(&mut self, check: impl Fn(crate::StoredMessage, Outcome)) -> usize {
        let crash = self.disk.crash();
        let mut lost = 0;
        for seed in 0..60 {
            let outcome = Outcome { pages: Kept::Torn(seed), names: Kept::All };
            self.open = None;
            self.disk = crash.disk(outcome, clock());
            self.start();
            match self.store().message_at(PhysicalOffset(0)).unwrap() {
                Some(message) => check(message, outcome),
                None => lost += 1,
            }
        }
        lost
    }

    fn start(&mut self) {
        self.open = None;
        let vfs: Arc<dyn Vfs> = Arc::new(self.disk.clone());
        self.open =
            Some(Store::open_stepped(self.config.clone(), vfs, Arc::clone(&self.clock) as _).unwrap());
    }

    fn power_cut(&mut self, outcome: Outcome) {
        let crash = self.disk.crash();
        self.open = None;
        self.disk = crash.disk(outcome, Arc::clone(&self.clock) as _);
        self.start();
    }

    fn store(&self) -> &Store {
        &self.open.as_ref().unwrap().0
    }

    fn steps(&mut self) -> &mut Steps {
        &mut self.open.as_mut().unwrap().1
    }

    fn put(&self, topic: &str, body: &[u8], properties: &[(&str, &str)]) -> PhysicalOffset {
        let queue = self.store().queue(topic, 0).unwrap();
        let all =
            properties.iter().fold(Message::new(queue, body), |m, (name, value)| m.property(name, value));
        let put = self.store().put(&all).unwrap();
        let at = put.physical_offset();
        put.wait().unwrap();
        at
    }

    fn end(&self) -> PhysicalOffset {
        self.store().status().max_offset
    }

    fn max(&self, topic: &str) -> QueueOffset {
        self.store().find_queue(topic, 0).map_or(QueueOffset::ZERO, |queue| self.store().max_offset(queue))
    }
}

/// The power goes at every moment while a store is closed and opened again. What was synced is there, whether the next
/// open reads the log or takes the store over as it was closed; and that although the simulated disk keeps the old stamp
/// of a file of which a power cut has kept new bytes.
#[test]
fn a_power_cut_around_a_clean_stop_costs_nothing() {
    let mut life = Life::new(|config| config);
    for n in 0..20 {
        life.put("t", &[n; 700], &[("KEYS", "k")]);
    }
    life.store().sync().unwrap();
    let crashes = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let seen = Arc::clone(&crashes);
    let (store, steps) = life.open.take().unwrap();
    life.disk.watch(1, move |moment| seen.lock().push(moment.crash()));
    steps.close(&store).unwrap();
    drop(store);
    life.start();
    assert!(life.store().recovery_report().untouched);
    for n in 20..24 {
        life.put("t", &[n; 700], &[("KEYS", "k")]);
        while life.steps().reput().unwrap() {}
        life.disk.point();
    }
    life.disk.unwatch();
    let mut untouched = 0;
    for crash in std::mem::take(&mut *crashes.lock()) {
        for outcome in crash.adversarial() {
            let (disk, config) = (after(&crash, outcome), life.config.clone());
            let mut left = Life { disk, clock: clock(), config, open: None };
            left.start();
            untouched += usize::from(left.store().recovery_report().untouched);
            let kept = left.max("t").0;
            assert!(kept >= 20, "{outcome}: {kept} are left");
            left.put("t", b"next", &[]);
            while left.steps().reput().unwrap() {}
            let queue = left.store().queue("t", 0).unwrap();
            for n in 0..kept {
                let got = left.store().get(queue, QueueOffset(n)).unwrap();
                assert_eq!(got.messages[0].body(), [u8::try_from(n).unwrap(); 700], "{outcome}");
            }
            let next = left.store().get(queue, QueueOffset(kept)).unwrap();
            assert_eq!(next.messages[0].body(), b"next", "{outcome}");
        }
    }
    assert!(untouched > 10, "{untouched} disks were taken over as they were");
}

/// Write-back took the second page of the log and not the first: a record behind a hole is whole. It was promised to
/// nobody, and what stands before it is lost; kept, it would leave a gap in its queue.
#[test]
fn a_hole_that_a_power_cut_left_ends_the_log() {
    let mut life = Life::new(|config| config);
    life.put("t", &[7; 3000], &[]);
    life.store().sync().unwrap();
    let hole = life.end();
    life.put("t", &[8; 1500], &[]);
    let behind = life.put("t", &[9; 500], &[]);
    assert!(hole.0 < 4096 && behind.0 > 4096);
    life.power_cut(Outcome { pages: Kept::Last, names: Kept::All });
    let report = life.store().recovery_report().clone();
    assert_eq!((life.end(), life.max("t")), (hole, QueueOffset(1)), "{report}");
    assert!(report.damage.is_empty() && report.torn.is_some());
    let kept = content(&life.disk, "/store/quarantine/manifest.jsonl");
    assert!(kept.is_some(), "what was behind is kept aside");
}

/// The same, and the hole ends a segment: whether the blank alone is missing cannot be seen.
#[test]
fn a_segment_whose_end_is_not_durable_ends_the_log() {
    let mut life = Life::new(|config| config);
    life.put("t", &[7; 3000], &[]);
    life.store().sync().unwrap();
    let end = life.end();
    life.put("other", &[8; 100], &[]);
    life.put("t", &[9; 6000], &[]);
    // Two pages of the first segment, then those of the second.
    let crash = life.disk.crash();
    let second_only = (0..1_u64 << crash.dirty_pages())
        .map(Kept::Mask)
        .map(|pages| crash.disk(Outcome { pages, names: Kept::All }, clock()))
        .find(|left| {
            let first = content(left, "/store/commitlog/00000000000000000000").unwrap();
            let second = content(left, "/store/commitlog/00000000000000008192").unwrap();
            first[usize::try_from(end.0).unwrap()..].iter().all(|b| *b == 0)
                && second[5000] != 0
                && second[0..4] != [0; 4]
        });
    life.open = None;
    life.disk = second_only.expect("a crash that leaves the second segment alone");
    life.start();
    assert_eq!((life.end(), life.max("t"), life.max("other")), (end, QueueOffset(1), QueueOffset::ZERO));
}

/// The body's checksum does not cover the properties: a record with a lost sector among them looked whole.
#[test]
fn a_record_with_an_unwritten_sector_in_its_properties_is_no_record() {
    let mut life = Life::new(|config| config);
    let text = "x".repeat(3000);
    life.put("t", b"body", &[("text", &text)]);
    let torn = life.lost_torn(|message, outcome| {
        assert_eq!(message.properties().get("text"), Some(text.as_str()), "{outcome}");
    });
    assert!(torn > 0);
}

/// Nobody asked for checksums of bodies: behind what is known to be durable they are compared nevertheless.
#[test]
fn a_body_with_an_unwritten_sector_is_no_record_whatever_is_checked() {
    let mut life = Life::new(|config| config.check_crc_on_recover(false));
    life.put("t", &[7; 3000], &[]);
    let torn = life.lost_torn(|message, outcome| assert_eq!(message.body(), [7; 3000], "{outcome}"));
    assert!(torn > 0);
}

/// A body of zeros looks like sectors that were never written. What was acknowledged survives the death of the process
/// nevertheless.
#[test]
fn a_body_of_zeros_survives_the_death_of_its_process() {
    let mut life = Life::new(|config| config);
    life.put("t", &[0; 3000], &[]);
    life.put("t", b"behind", &[]);
    let end = life.end();
    life.start();
    let report = life.store().recovery_report().clone();
    assert_eq!((life.end(), life.max("t")), (end, QueueOffset(2)), "{report}");
    assert!(report.torn.is_none() && report.damage.is_empty(), "{report}");
}

/// Of properties the zeros alone tell that a sector is missing: ones that look so are refused, not lost later.
#[test]
fn properties_that_look_torn_are_refused() {
    let mut life = Life::new(|config| config);
    let queue = life.store().queue("t", 0).unwrap();
    let put = |life: &Life, raw: &[u8]| {
        life.store().put(&Message::new(queue, b"body").properties_raw(raw)).map(drop)
    };
    let between = |zeros: usize| [&b"name\x01a"[..], &vec![0; zeros], b"b\x02"].concat();
    for raw in [&b"\0name\x01value\x02"[..], b"name\x01value\0", b"\0", &between(512), &between(2000)] {
        assert!(matches!(put(&life, raw), Err(crate::Error::IllegalMessage { .. })), "{raw:?}");
    }
    let accepted = [&b"name\x01val\0ue\x02"[..], b"name\x01value", b"", &between(511), &between(1)];
    for raw in accepted {
        put(&life, raw).unwrap();
    }
    life.start();
    assert_eq!(life.max("t"), QueueOffset(accepted.len() as i64), "{}", life.store().recovery_report());
}

/// Removing two segments and syncing once lets a power cut keep the second removal alone: a log with a gap, which did
/// not open.
#[test]
fn segments_behind_the_end_go_one_by_one() {
    let mut life = Life::new(|config| config);
    for _ in 0..6 {
        life.put("t", &[7; 5000], &[]);
    }
    // Only the first page of the log is lost: all segments are cut.
    let crash = life.disk.crash();
    life.open = None;
    life.disk = crash.disk(Outcome { pages: Kept::AllButFirst, names: Kept::All }, clock());
    let within: Arc<std::sync::Mutex<Vec<Crash>>> = Arc::default();
    let kept = Arc::clone(&within);
    life.disk.watch(0, move |moment| kept.lock().unwrap().push(moment.crash()));
    life.start();
    life.disk.unwatch();
    let points = std::mem::take(&mut *within.lock().unwrap());
    assert!(points.len() > 5);
    for crash in points {
        for seed in 0..6 {
            life.open = None;
            life.disk = crash.disk(Outcome { pages: Kept::All, names: Kept::Seeded(seed) }, clock());
            life.start();
        }
    }
}

/// The same where the gap is longer than recovery makes up for: such a log did not open.
#[test]
fn more_segments_than_can_be_made_up_for_go_one_by_one() {
    const COUNT: u64 = 1030;
    let mut life = Life::new(|config| config.message_index(false));
    for _ in 0..COUNT {
        life.put("t", &[7; 5000], &[]);
    }
    let crash = life.disk.crash();
    life.open = None;
    life.disk = crash.disk(Outcome { pages: Kept::AllButFirst, names: Kept::All }, clock());
    // The device fails when all but a few have gone.
    life.disk.fail(Fault { call: Some(Call::Remove), pass: COUNT - 2, times: 1, failure: Failure::Device });
    let vfs: Arc<dyn Vfs> = Arc::new(life.disk.clone());
    assert!(Store::open_stepped(life.config.clone(), vfs, clock() as _).is_err());
    assert!(life.disk.list(Path::new("/store/commitlog")).unwrap().len() < 5);
    let crash = life.disk.crash();
    for lost in 0..crash.unsynced_names().min(3) {
        life.disk = crash.disk(Outcome { pages: Kept::All, names: Kept::Mask(!(1 << lost)) }, clock());
        life.start();
        assert_eq!(life.end(), PhysicalOffset(0), "of the names, {lost} alone is lost");
        life.open = None;
    }
}

/// A power cut brought removed index files back, named behind new ones. The first of their entries that did not belong
/// made recovery drop all entries of that record and behind: also the good ones of the files before.
#[test]
fn index_files_that_come_back_take_no_good_entries_along() {
    let mut life = Life::new(|config| config);
    for n in 0..6 {
        life.put("t", b"body", &[("KEYS", &format!("k{n}"))]);
    }
    while life.steps().reput().unwrap() {}
    life.store().sync().unwrap();
    life.clock.advance(Duration::from_secs(70));
    life.steps().upkeep().unwrap();
    life.open = None;
    // A second copy of the files, under later names.
    let files = life.disk.list(Path::new("/store/index")).unwrap();
    assert!(files.len() > 1);
    for file in &files {
        let bytes = content(&life.disk, &format!("/store/index/{}", file.name)).unwrap();
        let later = format!("/store/index/9{}", &file.name[1..]);
        life.disk.replace(Path::new(&later), &bytes).unwrap();
    }
    life.start();
    for n in 0..6 {
        let hits = life.store().query("t", &format!("k{n}")).unwrap();
        assert_eq!(hits.len(), 1, "k{n}");
    }
}

/// What no queue had taken in, or only in memory, was deleted with its segment; the queue then counted from an earlier
/// number again, and consumers that were further got nothing.
#[test]
fn retention_lets_no_queue_forget_how_far_it_counts() {
    let mut life = Life::new(|config| config);
    life.put("lonely", b"only one", &[]);
    for _ in 0..4 {
        life.put("t", &[7; 5000], &[]);
    }
    life.store().delete_expired();
    life.disk.point();
    life.clock.advance(Duration::from_secs(7200));
    assert_eq!(life.steps().retention().unwrap(), 0, "nothing is dispatched yet");
    while life.steps().reput().unwrap() {}
    assert!(life.steps().retention().unwrap() > 0);
    life.store().sync().unwrap();
    life.power_cut(NOTHING);
    assert_eq!(life.max("lonely"), QueueOffset(1));
}

/// The clock went back, so that the second index file ended within the time of the first. That was taken for a checkpoint
/// of other files, and every open made the whole index anew.
#[test]
fn an_index_that_saw_the_clock_go_back_is_kept() {
    let mut life = Life::new(|config| config);
    for ms in [0, 10_000, 0, -5_000, 0, 0] {
        life.clock.set(StoreTimestamp(life.clock.now().0 + ms));
        life.put("t", b"found by its key", &[("KEYS", "k")]);
    }
    while life.steps().reput().unwrap() {}
    life.store().sync().unwrap();
    for _ in 0..2 {
        life.power_cut(ALL);
    }
    let report = life.store().recovery_report();
    assert_eq!((report.index.added, report.is_clean()), (0, true), "{report}");
    assert_eq!(life.store().query("t", "k").unwrap().len(), 6);
}

/// Of two removed queue files a power cut kept the second removal alone: recovery took the old part before the gap for
/// the queue, and removed what was behind.
#[test]
fn of_a_queue_with_a_gap_the_newer_part_counts() {
    let mut life = Life::new(|config| config);
    for _ in 0..9 {
        life.put("t", &[7; 5000], &[]);
    }
    // No record of the queue stays in the log: its files alone know how far it counts.
    life.put("other", &[7; 5000], &[]);
    while life.steps().reput().unwrap() {}
    life.store().sync().unwrap();
    life.store().delete_expired();
    life.disk.point();
    life.clock.advance(Duration::from_secs(7200));
    assert!(life.steps().retention().unwrap() > 6);
    let crash = life.disk.crash();
    assert!(crash.unsynced_names() > 1);
    for name in 0..crash.unsynced_names() {
        life.open = None;
        life.disk = crash.disk(Outcome { pages: Kept::All, names: Kept::Mask(1 << name) }, clock());
        life.start();
        assert_eq!(life.max("t"), QueueOffset(9), "of the names, {name} alone is kept");
    }
}

/// The name of a queue file was durable and its length not, while a later file was whole: the store did not open.
#[test]
fn a_queue_file_without_bytes_before_others_is_made_anew() {
    let mut life = Life::new(|config| config);
    for _ in 0..5 {
        life.put("t", b"body", &[]);
    }
    while life.steps().reput().unwrap() {}
    life.store().sync().unwrap();
    life.clock.advance(Duration::from_secs(70));
    life.steps().upkeep().unwrap();
    life.open = None;
    life.disk.set_len(Path::new("/store/consumequeue/t/0/00000000000000000000"), 0).unwrap();
    life.start();
    assert_eq!((life.max("t"), life.store().recovery_report().queues.added), (QueueOffset(5), 5));
}

#[test]
fn a_store_in_synchronous_mode_keeps_all_that_it_acknowledged() {
    let mut life = Life::new(|config| config.flush_disk_type(FlushDiskType::Sync));
    for _ in 0..4 {
        life.put("t", &[1; 3000], &[]);
    }
    let end = life.end();
    life.power_cut(NOTHING);
    assert_eq!((life.end(), life.max("t")), (end, QueueOffset(4)));
}

#[test]
fn small_workloads_break_nothing() {
    let lab = Lab::new(Budget { images: 150, ..Budget::default() });
    for seed in 1..=12 {
        if let Err(finding) = lab.seed(seed) {
            panic!("seed {seed}: {finding}");
        }
    }
}

/// Every call that a few workloads make fails once, and from then on for ever. Kinds that they never make fail nowhere.
#[test]
fn no_failing_call_costs_what_was_promised() {
    // The last step of each run is a power cut, whose image is checked.
    let lab = Lab::new(Budget { images: 0, ..Budget::default() });
    let mut kinds = std::collections::BTreeMap::new();
    for seed in [3, 6, 11] {
        match lab.errors(seed, &Failure::ALL) {
            Ok((_, failed)) => failed.into_iter().for_each(|(call, n)| *kinds.entry(call).or_insert(0) += n),
            Err(finding) => panic!("{finding}"),
        }
    }
    use Call::{
        Create, CreateDir, List, Lock, Open, Read, Remove, Rename, Reserve, Stat, Sync, SyncDir, Usage, Write,
    };
    for kind in [
        Create, CreateDir, List, Lock, Open, Read, Remove, Rename, Reserve, Stat, Sync, SyncDir, Usage, Write,
    ] {
        assert!(kinds.contains_key(&kind), "no {kind:?} failed: {kinds:?}");
    }
}
