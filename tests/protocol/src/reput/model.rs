//! A dispatcher that counts, and those who put.

use loom::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering, fence},
    },
    thread,
};

use super::turns::Turns;
use crate::{error::Result, model::check, types::StoreTimestamp};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    CaughtUp,
}

/// What puts and the dispatcher share.
#[derive(Debug)]
struct Log {
    published: AtomicUsize,
    dispatched: AtomicUsize,
    /// Somebody told the dispatcher's thread.
    told: AtomicBool,
    has_room: bool,
}

#[derive(Debug)]
pub struct Reput(Arc<Log>);

impl Reput {
    pub fn has_room(&self, _: usize) -> bool {
        self.0.has_room
    }

    pub fn step(&mut self) -> Result<Progress> {
        let limit = self.0.published.load(Ordering::Acquire);
        let before = self.0.dispatched.load(Ordering::Relaxed);
        assert!(before <= limit, "two had the turn, or one went back");
        self.0.dispatched.store(limit, Ordering::Relaxed);
        Ok(Progress::CaughtUp)
    }
}

fn start(has_room: bool) -> (Arc<Log>, Arc<Turns>) {
    let (published, dispatched) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let log = Arc::new(Log { published, dispatched, told: AtomicBool::new(false), has_room });
    let turns = Arc::new(Turns::new(true));
    turns.begin(Reput(Arc::clone(&log)));
    (log, turns)
}

fn put(log: &Log, turns: &Turns) {
    log.published.fetch_add(1, Ordering::Release);
    if !turns.take(StoreTimestamp(0), 1) {
        log.told.store(true, Ordering::Relaxed);
    }
}

fn puts(threads: usize, has_room: bool) -> Arc<Log> {
    let (log, turns) = start(has_room);
    let others: Vec<_> = (1..threads)
        .map(|_| {
            let (log, turns) = (Arc::clone(&log), Arc::clone(&turns));
            thread::spawn(move || put(&log, &turns))
        })
        .collect();
    put(&log, &turns);
    for other in others {
        other.join().unwrap();
    }
    log
}

#[test]
fn what_is_put_while_the_dispatcher_rests_is_dispatched_by_one_of_the_puts() {
    check(|| {
        let log = puts(3, true);
        assert!(!log.told.load(Ordering::Relaxed));
        assert_eq!(log.dispatched.load(Ordering::Relaxed), 3);
    });
}

#[test]
fn whoever_cannot_dispatch_for_those_who_asked_has_the_dispatcher_told() {
    check(|| assert!(puts(3, false).told.load(Ordering::Relaxed)));
}

#[test]
fn the_dispatcher_sees_before_it_sleeps_what_a_put_left_to_it() {
    check(|| {
        let (log, turns) = start(true);
        let dispatcher = {
            let (log, turns) = (Arc::clone(&log), Arc::clone(&turns));
            thread::spawn(move || {
                turns.step().unwrap();
                // `Bell::wait`: raises a flag, then looks.
                fence(Ordering::SeqCst);
                if log.published.load(Ordering::Acquire) > log.dispatched.load(Ordering::Relaxed) {
                    turns.step().unwrap();
                }
            })
        };
        put(&log, &turns);
        dispatcher.join().unwrap();
        assert_eq!(log.dispatched.load(Ordering::Relaxed), 1);
    });
}
