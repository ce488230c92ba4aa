//! Every call of the seam fails in turn where the workloads of the lab seldom come: in the recovery of damaged
//! directories, in retention, in the removal of topics, in closing.
//!
//! Whatever fails, once or from then on: nothing panics, and after a power cut the store comes to what it would have come
//! to before the work or after it.

use std::{collections::BTreeMap, path::Path, path::PathBuf, sync::Arc, time::Duration};

use super::{ALL, NOTHING};
use crate::{
    Config, ManualClock, Message, PhysicalOffset, Query, QueueOffset, Steps, Store, StoreTimestamp,
    sim::{Call, Failure, Fault, Outcome, SimDisk},
    vfs::{Reserve, Vfs},
};

const SEGMENT: u64 = 4096;

/// What a store holds.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Facts {
    first: PhysicalOffset,
    end: PhysicalOffset,
    queues: BTreeMap<String, Held>,
    found_by_key: BTreeMap<String, usize>,
}

/// What a queue holds: its first number, its next one, and of the bodies in between what they are made of and how long
/// they are.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    min: QueueOffset,
    max: QueueOffset,
    bodies: Vec<(u8, usize)>,
}

/// A disk with a store that was closed, or killed.
struct Scene {
    clock: Arc<ManualClock>,
    config: Config,
    disk: SimDisk,
}

impl Scene {
    /// `count` messages of `body` bytes, in turn to the topics `a` and `b`, all of them durable, dispatched and closed.
    fn closed(count: u8, body: usize) -> Self {
        let clock = Arc::new(ManualClock::new(StoreTimestamp(1_700_000_000_000)));
        let config = Config::new("/store")
            .commit_log_file_size(SEGMENT)
            .consume_queue_file_size(60_u64)
            .index_slots(7_u32)
            .index_entries(4_u32)
            .file_reserved_hours(1_u64);
        let scene = Self { disk: SimDisk::new(Arc::clone(&clock) as _), clock, config };
        let (store, mut steps) = scene.open(&scene.disk).unwrap();
        for n in 0..count {
            let queue = store.queue(if n % 2 == 0 { "a" } else { "b" }, 0).unwrap();
            store.put(&Message::new(queue, &vec![n + 1; body]).keys("k")).unwrap().wait().unwrap();
        }
        while steps.reput().unwrap() {}
        steps.close(&store).unwrap();
        scene
    }

    fn open(&self, disk: &SimDisk) -> crate::Result<(Store, Steps)> {
        Store::open_stepped(self.config.clone(), Arc::new(disk.clone()), Arc::clone(&self.clock) as _)
    }

    /// Changes the files, and leaves them so for good.
    fn damaged(self, change: impl FnOnce(&SimDisk)) -> Self {
        change(&self.disk);
        self.disk.sync_all(Path::new("/store")).unwrap();
        self
    }

    fn copy(&self, of: &SimDisk, outcome: Outcome) -> SimDisk {
        of.crash().disk(outcome, Arc::clone(&self.clock) as _)
    }

    fn facts(&self, disk: &SimDisk) -> Facts {
        let (store, _steps) = self.open(disk).unwrap();
        let mut queues = BTreeMap::new();
        let mut found_by_key = BTreeMap::new();
        for (topic, id) in store.queues() {
            let queue = store.find_queue(&topic, id).unwrap();
            let (min, max) = (store.min_offset(queue), store.max_offset(queue));
            let bodies = (min.0..max.0).filter_map(|n| {
                let message = store.get(queue, QueueOffset(n)).unwrap().take(1).next();
                let message = message.filter(|message| message.queue_offset().0 == n)?;
                let body = message.body();
                assert!(body.iter().all(|byte| *byte == body[0]), "a body of two messages");
                Some((body[0], body.len()))
            });
            let bodies = bodies.collect();
            if max > min {
                queues.insert(topic.to_string(), Held { min, max, bodies });
                let query = Query { max: 1000, ..Query::new(&topic, "k") };
                found_by_key.insert(topic.to_string(), store.query_exact(&query).unwrap().len());
            }
        }
        let status = store.status();
        Facts { first: status.min_offset, end: status.max_offset, queues, found_by_key }
    }

    /// Lets each call of `work` fail, and cuts the power after it. Returns what was there before and what is after an
    /// undisturbed run.
    fn fails_everywhere(&self, what: &str, work: impl Fn(&SimDisk) -> crate::Result<()>) -> (Facts, Facts) {
        let whole = self.copy(&self.disk, ALL);
        let before = self.facts(&self.copy(&self.disk, ALL));
        work(&whole).unwrap_or_else(|error| panic!("{what}: {error}, and nothing failed"));
        let calls: u64 = whole.calls().values().sum();
        let after = self.facts(&self.copy(&whole, ALL));
        for (pass, times) in (0..calls).flat_map(|pass| [(pass, 1), (pass, u64::MAX)]) {
            let disk = self.copy(&self.disk, ALL);
            let fault = Fault { call: None, pass, times, failure: Failure::Device };
            disk.fail(fault);
            let outcome = work(&disk).map_err(|error| error.to_string());
            for kept in [ALL, NOTHING] {
                let facts = self.facts(&self.copy(&disk, kept));
                assert!(
                    facts == after || facts == before,
                    "{what}, {fault}, {outcome:?}, {kept}:\n {facts:?}\n for {before:?}\n or  {after:?}"
                );
            }
        }
        (before, after)
    }
}

fn segment(number: u64) -> PathBuf {
    format!("/store/commitlog/{:020}", number * SEGMENT).into()
}

fn queue_file(number: u64) -> PathBuf {
    format!("/store/consumequeue/a/0/{:020}", number * 60).into()
}

fn damage_record(disk: &SimDisk, number: u64) {
    disk.open(&segment(number)).unwrap().write(700, &[0xff; 100]).unwrap();
}

#[test]
fn recovery_of_a_damaged_log_comes_to_the_same_whatever_call_fails() {
    type Damage = (&'static str, fn(&SimDisk), bool);
    let all: [Damage; 7] = [
        ("a record is damaged", |disk| damage_record(disk, 1), true),
        ("a segment is missing", |disk| disk.remove(&segment(1)).unwrap(), true),
        ("a segment is short", |disk| disk.set_len(&segment(1), 1000).unwrap(), true),
        (
            "the last segment has no bytes",
            |disk| drop(disk.create(&segment(3), 0, Reserve::None).unwrap()),
            false,
        ),
        ("the end is torn", |disk| disk.open(&segment(2)).unwrap().write(300, &[9; 300]).unwrap(), true),
        (
            "a record is damaged and the manifest is full",
            |disk| {
                disk.create_dir_all(Path::new("/store/quarantine")).unwrap();
                let manifest = Path::new("/store/quarantine/manifest.jsonl");
                drop(disk.create(manifest, (4 << 20) + 1, Reserve::None).unwrap());
                damage_record(disk, 1);
            },
            true,
        ),
        ("the log is gone", |disk| (0..3).for_each(|number| disk.remove(&segment(number)).unwrap()), true),
    ];
    let sound = Scene::closed(24, 400);
    let sound = sound.facts(&sound.copy(&sound.disk, ALL));
    for (what, damage, loses) in all {
        let scene = Scene::closed(24, 400).damaged(damage);
        let (before, after) = scene.fails_everywhere(what, |disk| scene.open(disk).map(drop));
        assert_eq!(before, after, "{what}");
        assert_eq!(after != sound, loses, "{what}");
    }
}

#[test]
fn recovery_of_damaged_queues_and_indexes_loses_nothing_whatever_call_fails() {
    type Damage = (&'static str, fn(&SimDisk));
    let all: [Damage; 5] = [
        ("a queue file is short", |disk| disk.set_len(&queue_file(1), 20).unwrap()),
        ("a queue file is missing", |disk| disk.remove(&queue_file(1)).unwrap()),
        ("an entry is wrong", |disk| disk.open(&queue_file(2)).unwrap().write(3, &[7; 8]).unwrap()),
        ("an index file is damaged", |disk| {
            let names = disk.list(Path::new("/store/index")).unwrap();
            let path = Path::new("/store/index").join(&names[1].name);
            disk.open(&path).unwrap().write(0, &[0xff; 60]).unwrap();
        }),
        ("queues and index are gone", |disk| {
            for (path, _) in disk.contents() {
                if path.starts_with("/store/consumequeue") || path.starts_with("/store/index") {
                    disk.remove(&path).unwrap();
                }
            }
        }),
    ];
    let sound = Scene::closed(24, 400);
    let sound = sound.facts(&sound.copy(&sound.disk, ALL));
    for (what, damage) in all {
        let scene = Scene::closed(24, 400).damaged(damage);
        let (before, after) = scene.fails_everywhere(what, |disk| scene.open(disk).map(drop));
        assert_eq!((&before, &after), (&sound, &sound), "{what}");
    }
}

/// More segments than are synced one by one.
#[test]
fn recovery_of_many_segments_comes_to_the_same_whatever_call_fails() {
    let unproven = |disk: &SimDisk| disk.remove(Path::new("/store/cleanStop")).unwrap();
    let scene = Scene::closed(66, 3000).damaged(unproven);
    let mut made = scene.copy(&scene.disk, ALL);
    drop(scene.open(&made).unwrap());
    assert!(made.calls().get(&Call::SyncAll).is_some_and(|count| *count > 0), "synced together");
    made = scene.copy(&scene.disk, ALL);
    let whole = scene.facts(&made);
    assert_eq!(whole.queues["a"].max, QueueOffset(33));
    for times in [1, u64::MAX] {
        let disk = scene.copy(&scene.disk, ALL);
        disk.fail(Fault { call: Some(Call::SyncAll), pass: 0, times, failure: Failure::Device });
        assert!(scene.open(&disk).is_err(), "what was not synced is not served");
        for kept in [ALL, NOTHING] {
            assert_eq!(scene.facts(&scene.copy(&disk, kept)), whole);
        }
    }
}

#[test]
fn a_topic_is_removed_whole_or_not_at_all_whatever_call_fails() {
    let scene = Scene::closed(24, 400);
    let (before, after) = scene.fails_everywhere("a topic is removed", |disk| {
        let (store, _steps) = scene.open(disk)?;
        store.delete_topic("a")
    });
    assert!(before.queues.contains_key("a") && !after.queues.contains_key("a"));
    assert_eq!(before.queues["b"], after.queues["b"]);
}

#[test]
fn retention_removes_the_oldest_segment_or_nothing_whatever_call_fails() {
    let mut scene = Scene::closed(24, 400);
    scene.config = scene.config.delete_batch_max(1_usize);
    scene.clock.advance(Duration::from_secs(7_200));
    let (before, after) = scene.fails_everywhere("a segment is removed", |disk| {
        let (store, mut steps) = scene.open(disk)?;
        store.delete_expired();
        steps.retention().map(drop)
    });
    assert_eq!((before.first.0, after.first.0), (0, 4096));
    assert_eq!(before.queues["a"].max, after.queues["a"].max, "the queue counts on");
}

#[test]
fn closing_loses_nothing_whatever_call_fails() {
    // With room for one more in the last segment.
    let scene = Scene::closed(22, 400);
    let (before, after) = scene.fails_everywhere("a store with a segment ahead is closed", |disk| {
        let (store, mut steps) = scene.open(disk)?;
        store.put(&Message::new(store.queue("a", 0)?, &[99; 9]))?.wait()?;
        steps.prepare()?;
        steps.close(&store)
    });
    assert_eq!(after.queues["a"].max, before.queues["a"].max.plus(1));
}
