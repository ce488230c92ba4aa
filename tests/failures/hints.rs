//! Failures 20 to 23 and 34: checkpoint, abort and clock, which are hints and prove nothing.

use std::{collections::BTreeSet, fs, sync::Arc, time::Duration};

use reput::{ManualClock, Message, Store, StoreTimestamp, vfs::OsVfs};
use tempfile::TempDir;

use crate::rig::{self, ENTRY, Rig, patch};

fn old_parts_are_broken(rig: &Rig) {
    // What a scan from the newest segments alone would not notice.
    patch(&rig.queue_file(), 5 * ENTRY, &[0; 10 * 20]);
    let index = fs::read_dir(rig.path("index")).unwrap().map(|entry| entry.unwrap().path()).min().unwrap();
    fs::remove_file(index).unwrap();
}

/// Row 20: No checkpoint, or one of zeros. Java's scan goes back ten segments at most, so that older queues and indexes
/// stay as they are.
#[test]
fn failure_20_without_a_checkpoint_everything_is_proved_from_the_log() {
    for zeros in [true, false] {
        let rig = Rig::killed();
        let checkpoint = rig.path("checkpoint");
        if zeros {
            fs::write(checkpoint, [0; 4096]).unwrap()
        } else {
            fs::remove_file(checkpoint).unwrap()
        }
        old_parts_are_broken(&rig);
        rig.lost_is([]);
    }
}

/// Row 21: A checkpoint from the future. Java begins behind everything that it must look at.
#[test]
fn failure_21_a_checkpoint_from_the_future_is_not_believed_nor_handed_on() {
    let rig = Rig::killed();
    let far = i64::MAX.to_be_bytes();
    patch(&rig.path("checkpoint"), 0, &[far, far, far, [0; 8], far, far].concat());
    old_parts_are_broken(&rig);
    let store = rig.open();
    // At once: the next open finds a checkpoint that can be believed.
    rig.serves_all_but(&store, &BTreeSet::new());
    let newest = store.status().max_offset;
    drop(store);
    let bytes = fs::read(rig.path("checkpoint")).unwrap();
    let now = reput::format::checkpoint::Checkpoint::decode(&bytes);
    assert!(now.logics_offset < newest && now.confirm_offset < newest, "{now:?}");
    assert!(
        now.physic_timestamp.0 < 4_000_000_000_000 && now.logics_timestamp.0 < 4_000_000_000_000,
        "{now:?}"
    );
    rig.lost_is([]);
}

/// Row 22: A checkpoint of ten bytes.
#[test]
fn failure_22_a_short_checkpoint_is_read_as_far_as_it_goes() {
    for len in [0, 1, 10, 47] {
        let rig = Rig::killed();
        rig::cut(&rig.path("checkpoint"), len);
        old_parts_are_broken(&rig);
        rig.lost_is([]);
        assert_eq!(fs::metadata(rig.path("checkpoint")).unwrap().len(), 4096);
    }
}

/// Row 23: `abort` is gone though the store was not closed, as in a copied directory. Java then trusts everything before
/// the last segment.
#[test]
fn failure_23_a_missing_abort_file_proves_nothing() {
    for abort in [true, false] {
        let rig = Rig::killed();
        if !abort {
            fs::remove_file(rig.path("abort")).unwrap();
        }
        rig.flip(30);
        old_parts_are_broken(&rig);
        rig.lost_is([30]);
    }
}

/// Row 34: The clock goes back. Java chooses the segment where recovery begins by timestamps. Offsets decide here.
#[test]
fn failure_34_a_clock_that_goes_back_loses_nothing() {
    let dir = TempDir::new().unwrap();
    let clock = Arc::new(ManualClock::new(StoreTimestamp(1_800_000_000_000)));
    let open = |clock: &Arc<ManualClock>| {
        Store::open_stepped(rig::config(dir.path()), Arc::new(OsVfs), Arc::clone(clock) as _).unwrap()
    };
    let (store, mut steps) = open(&clock);
    let queue = store.queue("TopicA", 0).unwrap();
    for number in 0..300 {
        if number == 150 {
            // A day back, and on from there.
            clock.set(StoreTimestamp(1_800_000_000_000 - 86_400_000));
        }
        clock.advance(Duration::from_millis(7));
        drop(store.put(&Message::new(queue, &rig::body(number)).keys(&rig::key(number))).unwrap());
    }
    while steps.reput().unwrap() {}
    steps.upkeep().unwrap();
    drop((store, steps));
    fs::remove_dir_all(dir.path().join("consumequeue")).unwrap();
    let (store, _steps) = open(&clock);
    let served = rig::served(&store);
    assert!((0..300).all(|number| served[&(number as i64)] == rig::body(number)));
    assert!((0..300).all(|number| store.query("TopicA", &rig::key(number)).unwrap().len() == 1));
}
