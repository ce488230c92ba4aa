//! Time as the store sees it: the system's, or one that a test moves by hand.

use std::{
    fmt,
    sync::atomic::{AtomicI64, AtomicU64, Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crate::types::StoreTimestamp;

/// A source of time. Every timestamp in a record, every timer and every age comes from here.
pub trait Clock: Send + Sync + fmt::Debug + 'static {
    /// Wall-clock time, milliseconds since 1970 UTC. May step.
    fn now(&self) -> StoreTimestamp;
    /// [`Clock::now`] from what the system last noted: cheaper, and behind by a tick at most (4 ms on usual kernels).
    /// What a put stamps its record with.
    fn now_coarse(&self) -> StoreTimestamp {
        self.now()
    }
    /// Time since some fixed start. Never steps back.
    fn monotonic(&self) -> Duration;
    /// Blocks the caller for `time`.
    fn sleep(&self, time: Duration);
    /// Seconds that local time is ahead of UTC at `at`; `deleteWhen` and index file names are in local time.
    fn utc_offset(&self, at: StoreTimestamp) -> i64;
}

/// A clock that stands still until it is told otherwise. [`Clock::sleep`] moves it.
#[derive(Debug)]
pub struct ManualClock {
    now_ms: AtomicI64,
    monotonic_ms: AtomicU64,
}

impl ManualClock {
    /// A clock that shows `now`.
    #[must_use]
    pub const fn new(now: StoreTimestamp) -> Self {
        Self { now_ms: AtomicI64::new(now.0), monotonic_ms: AtomicU64::new(0) }
    }

    /// Moves both wall clock and monotonic time on.
    pub fn advance(&self, by: Duration) {
        let ms = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        self.now_ms.fetch_add(i64::try_from(ms).unwrap_or(i64::MAX), Ordering::SeqCst);
        self.monotonic_ms.fetch_add(ms, Ordering::SeqCst);
    }

    /// Sets the wall clock, also backwards; monotonic time stays.
    pub fn set(&self, now: StoreTimestamp) {
        self.now_ms.store(now.0, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> StoreTimestamp {
        StoreTimestamp(self.now_ms.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.monotonic_ms.load(Ordering::SeqCst))
    }

    fn sleep(&self, time: Duration) {
        self.advance(time);
    }

    fn utc_offset(&self, _at: StoreTimestamp) -> i64 {
        0
    }
}

/// The system's clock.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// The system's clock; monotonic time starts at this call.
    #[must_use]
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> StoreTimestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        StoreTimestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    fn now_coarse(&self) -> StoreTimestamp {
        StoreTimestamp(crate::vfs::coarse_millis())
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    fn sleep(&self, time: Duration) {
        std::thread::sleep(time);
    }

    fn utc_offset(&self, at: StoreTimestamp) -> i64 {
        crate::vfs::local_utc_offset(at.0.div_euclid(1000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let clock = ManualClock::new(StoreTimestamp(1_000));
        assert_eq!(clock.now(), StoreTimestamp(1_000));
        clock.sleep(Duration::from_millis(500));
        assert_eq!((clock.now(), clock.monotonic()), (StoreTimestamp(1_500), Duration::from_millis(500)));
        clock.set(StoreTimestamp(10));
        assert_eq!((clock.now(), clock.monotonic()), (StoreTimestamp(10), Duration::from_millis(500)));
    }
}
