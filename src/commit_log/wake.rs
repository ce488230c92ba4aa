//! Where a background thread sleeps until there is work, at no cost to whoever makes the work.
//!
//! ```text
//! worker: wait(ready)                      put: after publishing
//! asleep := true                           published := q
//! ready()?  no -> sleep 1 ms at most       asleep?  no -> done (one load, no barrier)
//! ready()?  no -> sleep for the rest                yes -> asleep := false, wake
//! ```
//! The put has no barrier between its store and its load, so both can miss each other once. The worker's first sleep
//! after it has raised `asleep` is therefore a short one: when it looks again, the store has long become visible.

use std::{
    sync::atomic::{AtomicBool, AtomicU32, Ordering, fence},
    time::{Duration, Instant},
};

use crate::vfs::{sleep_on, wake_all};

/// How long the first sleep lasts at most; see the module.
const FIRST_NAP: Duration = Duration::from_millis(1);

/// One sleeping place, meant for one worker; more than one are all woken.
#[derive(Debug, Default)]
pub struct Bell {
    turns: AtomicU32,
    asleep: AtomicBool,
    interrupts: AtomicU32,
    interrupted: AtomicBool,
}

impl Bell {
    /// Wakes the worker if it sleeps.
    #[inline]
    pub fn ring(&self) {
        if self.asleep.load(Ordering::Relaxed) {
            self.wake();
        }
    }

    #[cold]
    fn wake(&self) {
        if self.asleep.swap(false, Ordering::AcqRel) {
            self.turns.fetch_add(1, Ordering::Release);
            wake_all(&self.turns);
        }
    }

    /// Ends the worker's sleep, or its next one when it is awake, whether or not there is work.
    pub fn interrupt(&self) {
        self.interrupted.store(true, Ordering::Release);
        self.interrupts.fetch_add(1, Ordering::Release);
        self.turns.fetch_add(1, Ordering::Release);
        wake_all(&self.turns);
    }

    /// Sleeps until `ready`, an interrupt or `timeout`.
    pub fn wait(&self, timeout: Duration, ready: impl Fn() -> bool) {
        let interrupts = self.interrupts.load(Ordering::Acquire);
        let start = Instant::now();
        let mut settled = false;
        loop {
            let seen = self.turns.load(Ordering::Acquire);
            settled &= self.asleep.swap(true, Ordering::SeqCst);
            fence(Ordering::SeqCst);
            let stop = self.interrupted.swap(false, Ordering::AcqRel)
                || self.interrupts.load(Ordering::Acquire) != interrupts;
            let left = timeout.saturating_sub(start.elapsed());
            if stop || ready() || left.is_zero() {
                self.asleep.store(false, Ordering::Relaxed);
                return;
            }
            let nap = if settled { left } else { left.min(FIRST_NAP) };
            let before = Instant::now();
            sleep_on(&self.turns, seen, nap);
            settled |= before.elapsed() >= FIRST_NAP / 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, atomic::AtomicU64};

    use super::*;

    #[test]
    fn a_sleeper_sees_every_publication_within_its_first_nap() {
        let shared = Arc::new((Bell::default(), AtomicU64::new(0)));
        let worker = {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || {
                for want in 1..=2_000_u64 {
                    let start = Instant::now();
                    while shared.1.load(Ordering::Acquire) < want {
                        shared.0.wait(Duration::from_secs(20), || shared.1.load(Ordering::Acquire) >= want);
                        assert!(start.elapsed() < Duration::from_secs(10), "publication {want} was missed");
                    }
                }
            })
        };
        for _ in 0..2_000 {
            shared.1.fetch_add(1, Ordering::Release);
            shared.0.ring();
            std::thread::yield_now();
        }
        worker.join().unwrap();
    }

    #[test]
    fn an_interrupt_before_the_sleep_is_not_lost() {
        let bell = Bell::default();
        bell.interrupt();
        let start = Instant::now();
        bell.wait(Duration::from_secs(30), || false);
        assert!(start.elapsed() < Duration::from_secs(10));
        bell.wait(Duration::from_millis(5), || false);
    }
}
