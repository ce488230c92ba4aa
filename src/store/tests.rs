//! Who dispatches what is put: the dispatcher's thread, or the put.

use std::{
    sync::{Arc, Weak, mpsc},
    thread::{self, ThreadId},
    time::{Duration, Instant},
};

use super::*;
use crate::{
    clock::ManualClock,
    message::Message,
    types::{QueueOffset, StoreTimestamp},
    vfs::OsVfs,
};

const LONG: Duration = Duration::from_secs(60);

struct Rig {
    _dir: tempfile::TempDir,
    store: Store,
    clock: Arc<ManualClock>,
    queue: Queue,
    /// Which thread told of which message.
    told: mpsc::Receiver<(ThreadId, QueueOffset)>,
}

impl Rig {
    fn new(set: impl FnOnce(Config) -> Config) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(StoreTimestamp(1_700_000_000_000)));
        let config = set(Config::new(dir.path()).commit_log_file_size(1_u64 << 20));
        let store = Store::open_with(config, Arc::new(OsVfs), Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
        let (tell, told) = mpsc::channel();
        store.on_arrival(Arc::new(move |arrival| {
            let _ = tell.send((thread::current().id(), arrival.queue_offset));
        }));
        let queue = store.queue("t", 0).unwrap();
        let rig = Self { _dir: dir, store, clock, queue, told };
        // The first key makes the index file, which is not a put's work.
        rig.put();
        assert!(rig.store.wait_dispatched(LONG).unwrap());
        rig.told.recv_timeout(LONG).unwrap();
        rig
    }

    fn put(&self) {
        put(&self.store, self.queue);
    }

    fn until_it_sleeps(&self) {
        let start = Instant::now();
        while !self.store.inner.turns.are_open() {
            assert!(start.elapsed() < LONG, "the dispatcher does not fall asleep");
            thread::sleep(Duration::from_micros(100));
        }
    }

    /// Puts a message while the dispatcher sleeps; says whether the put dispatched it.
    fn dispatched_by_its_put(&self) -> bool {
        self.until_it_sleeps();
        self.put();
        let (by, _) = self.told.recv_timeout(LONG).unwrap();
        by == thread::current().id()
    }
}

fn put(store: &Store, queue: Queue) {
    store.put(&Message::new(queue, b"x").keys("k")).unwrap().wait().unwrap();
}

#[test]
fn a_put_dispatches_what_it_put_while_the_dispatcher_sleeps() {
    let rig = Rig::new(|config| config);
    let mut own = 0;
    for _ in 0..20 {
        rig.until_it_sleeps();
        rig.put();
        let status = rig.store.status();
        // Its nap may end at this very moment.
        let Ok((by, _)) = rig.told.try_recv().or_else(|_| rig.told.recv_timeout(LONG)) else {
            panic!("not told")
        };
        if by == thread::current().id() {
            own += 1;
            assert_eq!(
                (status.dispatched_offset, status.indexed_offset),
                (status.max_offset, status.max_offset)
            );
        }
    }
    assert!(own >= 10, "{own} of 20");
    assert!(rig.store.wait_dispatched(LONG).unwrap());
    assert_eq!(rig.store.query("t", "k").unwrap().len(), 21);
}

#[test]
fn who_puts_without_a_pause_leaves_dispatching_to_the_dispatcher() {
    let rig = Rig::new(|config| config);
    rig.clock.advance(Duration::from_millis(8));
    let own = (0..1_200).filter(|_| rig.dispatched_by_its_put()).count();
    assert!((512..=1_024).contains(&own), "{own} of 1200");
    // All 1,024 of this window are taken.
    assert!((0..20).all(|_| !rig.dispatched_by_its_put()));
    rig.clock.advance(Duration::from_millis(4));
    assert!((0..20).any(|_| rig.dispatched_by_its_put()));
}

#[test]
fn a_long_batch_is_left_to_the_dispatcher() {
    let rig = Rig::new(|config| config);
    for (messages, own) in [(64, true), (65, false)] {
        rig.clock.advance(Duration::from_millis(4));
        rig.until_it_sleeps();
        let batch = vec![Message::new(rig.queue, b"x"); messages];
        drop(rig.store.put_batch(&batch).unwrap());
        for _ in 0..messages {
            assert_eq!(rig.told.recv_timeout(LONG).unwrap().0 == thread::current().id(), own, "{messages}");
        }
    }
}

#[test]
fn no_put_makes_an_index_file() {
    // Twenty entries a file, and room for sixteen is asked for.
    let rig = Rig::new(|config| config.index_slots(7_u32).index_entries(20_u32));
    let own: Vec<_> = (0..30).map(|_| rig.dispatched_by_its_put()).collect();
    assert!(own.contains(&true) && own.contains(&false), "{own:?}");
    assert!(rig.store.wait_dispatched(LONG).unwrap());
    assert_eq!(rig.store.query("t", "k").unwrap().len(), 31);
}

#[test]
fn nothing_is_dispatched_before_it_is_durable() {
    let rig = Rig::new(|config| config.flush_disk_type(crate::config::FlushDiskType::Sync));
    for _ in 0..20 {
        rig.put();
        let (by, _) = rig.told.recv_timeout(LONG).unwrap();
        assert_ne!(by, thread::current().id());
        let status = rig.store.status();
        assert!(status.dispatched_offset <= status.durable_offset);
    }
}

#[test]
fn a_listener_may_put() {
    let rig = Rig::new(|config| config);
    let other = rig.store.queue("t", 1).unwrap();
    let weak: Weak<Inner> = Arc::downgrade(&rig.store.inner);
    rig.store.on_arrival(Arc::new(move |arrival| {
        if let Some(inner) = weak.upgrade().filter(|_| arrival.queue_id.0 == 0) {
            drop(Store { inner }.put(&Message::new(other, b"y")).unwrap());
        }
    }));
    for _ in 0..20 {
        rig.until_it_sleeps();
        rig.put();
    }
    assert!(rig.store.wait_dispatched(LONG).unwrap());
    assert_eq!(rig.store.get(other, QueueOffset::ZERO).unwrap().take(32).count(), 20);
}

#[test]
fn a_listener_that_panics_harms_nobody_else() {
    let rig = Rig::new(|config| config);
    let (tell, told) = mpsc::channel();
    rig.store.on_arrival(Arc::new(|arrival| assert_ne!(arrival.queue_offset.0, 2, "meant to fail")));
    rig.store.on_arrival(Arc::new(move |arrival| tell.send(arrival.queue_offset.0).unwrap()));
    for _ in 1..5 {
        rig.until_it_sleeps();
        rig.put();
    }
    assert!(rig.store.wait_dispatched(LONG).unwrap());
    assert_eq!(told.try_iter().collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert_eq!(rig.store.query("t", "k").unwrap().len(), 5);
}

#[test]
fn nobody_dispatches_once_the_store_is_closed() {
    let rig = Rig::new(|config| config);
    rig.until_it_sleeps();
    rig.store.close().unwrap();
    assert!(!rig.store.inner.turns.take(StoreTimestamp(0), 1));
}

#[test]
fn many_threads_put_and_every_message_is_told_once_in_order() {
    let rig = Rig::new(|config| config);
    let (store, clock, queue) = (&rig.store, &rig.clock, rig.queue);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for n in 0..500 {
                    put(store, queue);
                    if n % 3 == 0 {
                        clock.advance(Duration::from_millis(1));
                        thread::sleep(Duration::from_micros(200));
                    }
                }
            });
        }
    });
    assert!(rig.store.wait_dispatched(LONG).unwrap());
    let told: Vec<_> = rig.told.try_iter().map(|(_, offset)| offset.0).collect();
    assert_eq!(told, (1..=2000).collect::<Vec<_>>());
}
