//! The models.

use std::time::Duration;

use loom::{
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
    thread,
};

use crate::{group::Group, types::PhysicalOffset};

/// Preemptions that a run may have: with two every known bug of such protocols shows, and the runs stay countable.
const PREEMPTIONS: usize = 3;

pub fn check(body: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS);
    builder.check(body);
}

/// The log as the group sees it.
struct Log {
    group: Group,
    /// Behind what is written, and behind what is synced.
    written: AtomicI64,
    durable: AtomicI64,
    /// Held by whoever syncs.
    turn: Mutex<()>,
    /// What the disk has got: checked against what is called durable.
    disk: AtomicI64,
    /// The flush thread's bell: wanted, and stop.
    bell: Mutex<(bool, bool)>,
    rung: Condvar,
}

impl Log {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            group: Group::default(),
            written: AtomicI64::new(0),
            durable: AtomicI64::new(0),
            turn: Mutex::new(()),
            disk: AtomicI64::new(0),
            bell: Mutex::new((false, false)),
            rung: Condvar::new(),
        })
    }

    fn durable(&self) -> PhysicalOffset {
        PhysicalOffset(self.durable.load(Ordering::Acquire))
    }

    /// `sync_round`: the target is taken under the group's lock, and durable is stored before the round ends.
    fn sync_round(&self) {
        let turn = self.turn.lock().unwrap();
        let target = self.group.begin(|| PhysicalOffset(self.written.load(Ordering::Acquire)));
        if target > self.durable() {
            self.disk.store(target.0, Ordering::Release);
            self.durable.store(target.0, Ordering::Release);
        }
        drop(self.group.end(target));
        drop(turn);
        if self.group.is_wanted() {
            self.call_flusher();
        }
    }

    fn call_flusher(&self) {
        self.bell.lock().unwrap().0 = true;
        self.rung.notify_one();
    }

    fn flusher(&self) {
        loop {
            let mut bell = self.bell.lock().unwrap();
            while !bell.0 && !bell.1 {
                bell = self.rung.wait(bell).unwrap();
            }
            if !bell.0 {
                return;
            }
            bell.0 = false;
            drop(bell);
            if self.group.is_wanted() {
                self.sync_round();
            }
        }
    }

    /// `wait_durable` of a put that ends at `upto`; `alone` lets it sync by itself when nobody else waits.
    fn wait_durable(&self, upto: PhysicalOffset, alone: bool) {
        loop {
            if self.durable() >= upto {
                let disk = self.disk.load(Ordering::Acquire);
                assert!(disk >= upto.0, "acknowledged {upto:?} with {disk} on the disk");
                return;
            }
            if alone && self.group.is_quiet() {
                self.sync_round();
                continue;
            }
            let Some(place) = self.group.join(upto, || self.durable() >= upto) else { continue };
            self.call_flusher();
            self.group.sleep(&place, Duration::MAX);
        }
    }

    fn put(&self) -> PhysicalOffset {
        PhysicalOffset(self.written.fetch_add(1, Ordering::AcqRel) + 1)
    }

    fn stop(&self) {
        self.bell.lock().unwrap().1 = true;
        self.rung.notify_all();
    }
}

fn waiters(alone: bool) {
    check(move || {
        let log = Log::new();
        let flusher = {
            let log = Arc::clone(&log);
            thread::spawn(move || log.flusher())
        };
        let other = {
            let log = Arc::clone(&log);
            thread::spawn(move || {
                let upto = log.put();
                log.wait_durable(upto, alone);
            })
        };
        let upto = log.put();
        log.wait_durable(upto, alone);
        other.join().unwrap();
        log.stop();
        flusher.join().unwrap();
    });
}

#[test]
fn every_waiter_is_woken_by_the_flusher_and_none_before_its_bytes_are_on_the_disk() {
    waiters(false);
}

#[test]
fn waiters_that_sync_by_themselves_and_the_flusher_miss_nobody() {
    waiters(true);
}

/// A sync fails while somebody waits: it is woken and finds the log poisoned.
#[test]
fn an_abandoned_group_keeps_nobody_asleep() {
    check(|| {
        let log = Log::new();
        let poisoned = Arc::new(AtomicUsize::new(0));
        let waiter = {
            let (log, poisoned) = (Arc::clone(&log), Arc::clone(&poisoned));
            thread::spawn(move || {
                let upto = log.put();
                loop {
                    if poisoned.load(Ordering::Acquire) == 1 {
                        return;
                    }
                    let Some(place) = log.group.join(upto, || false) else {
                        thread::yield_now();
                        continue;
                    };
                    log.group.sleep(&place, Duration::MAX);
                }
            })
        };
        log.group.begin(|| PhysicalOffset(log.written.load(Ordering::Acquire)));
        poisoned.store(1, Ordering::Release);
        drop(log.group.abandon());
        waiter.join().unwrap();
    });
}
