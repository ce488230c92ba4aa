//! No space is left: in the middle of a put, and for the files of queues.

use std::time::Duration;

use super::{Life, NOTHING};
use crate::{
    Error, FlushDiskType, Message, QueueOffset,
    sim::{Call, Failure, Fault},
};

/// On a full disk, whether the first of two queue files cannot be made or the second.
#[test]
fn a_full_disk_makes_no_queue_forget_how_far_it_counts() {
    let full = |pass| Fault { call: Some(Call::Create), pass, times: u64::MAX, failure: Failure::NoSpace };
    for pass in [0, 1] {
        let mut life = Life::new(|config| config.flush_disk_type(FlushDiskType::Sync));
        life.put("lonely", b"only one", &[]);
        for _ in 0..4 {
            life.put("t", &[7; 5000], &[]);
        }
        while life.steps().reput().unwrap() {}
        life.store().delete_expired();
        life.disk.point();
        life.clock.advance(Duration::from_secs(7200));
        life.disk.fail(full(pass));
        let deleted = life.steps().retention();
        if pass == 0 {
            // Its number stands in the oldest segment alone.
            assert!(matches!(deleted, Err(Error::NoSpace { .. })), "{deleted:?}");
        } else {
            // Of t the last record is enough, which stands in the newest one.
            assert_eq!(deleted.unwrap(), 3);
        }
        life.power_cut(NOTHING);
        assert_eq!(life.max("lonely"), QueueOffset(1), "{pass} files made");
        assert!(life.steps().retention().is_ok());
    }
}

/// Where the log is written and not mapped, a write can fail with a part of a batch behind it.
#[test]
fn of_a_batch_in_whose_middle_the_disk_failed_the_first_messages_may_be_there() {
    let mut life = Life::new(|config| config);
    life.open = None;
    life.disk.set_copy_on_write();
    life.start();
    life.put("t", b"before", &[]);
    life.disk.fail(Fault { call: Some(Call::Write), pass: 0, times: 1, failure: Failure::NoSpace });
    let queue = life.store().queue("t", 0).unwrap();
    let batch = [[1_u8; 300], [2; 300], [3; 300]];
    let messages: Vec<_> = batch.iter().map(|body| Message::new(queue, body)).collect();
    let refused = life.store().put_batch(&messages).map(drop);
    assert!(matches!(refused, Err(Error::Poisoned { .. })), "{refused:?}");
    let later = life.store().put(&messages[0]).map(drop);
    assert!(matches!(later, Err(Error::Poisoned { .. })), "{later:?}");
    life.start();
    assert_eq!(life.max("t"), QueueOffset(2), "the first half of the bytes was written");
    let next = life.put("t", b"after", &[]);
    let found = life.store().message_at(next).unwrap().unwrap();
    assert_eq!(found.record().queue_offset, QueueOffset(2));
}
