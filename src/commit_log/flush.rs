//! Making the log durable: one sync at a time, by whoever waits alone or by the flush thread.
//!
//! A waiter that is alone syncs itself: handing over to a thread would cost a quarter of the rate. As soon as waiters
//! queue, the flush thread takes over and syncs for all of them ([`CommitLog::flush_step`]). In ASYNC_FLUSH the same
//! step works by RocketMQ's timers. After the first failed write or sync the log is poisoned: the system reports such a
//! failure once and then calls the lost pages clean, so a retry would succeed and prove nothing.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::{CommitLog, group::Completion};
use crate::{
    config::Config,
    error::{Error, Result},
    types::PhysicalOffset,
};

const PAGE: i64 = 4096;
/// How long a waiter relies on the flush thread before it syncs itself.
const PATIENCE: Duration = Duration::from_millis(50);

/// What one turn of the flush thread came to.
#[derive(Clone, Copy, Debug)]
pub struct FlushProgress {
    /// How long to sleep before the next turn ([`CommitLog::flush_idle`]).
    pub next: Duration,
}

/// When the flush thread syncs though nobody waits.
#[derive(Debug)]
pub(super) struct Timers {
    interval: Duration,
    thorough: Duration,
    least_pages: i64,
    last: Mutex<Last>,
}

#[derive(Debug)]
struct Last {
    flush: Duration,
    thorough: Duration,
}

impl Timers {
    pub(super) fn new(config: &Config, now: Duration) -> Self {
        Self {
            interval: Duration::from_millis(config.flush_commit_log_interval_ms),
            thorough: Duration::from_millis(config.flush_commit_log_thorough_interval_ms),
            least_pages: i64::try_from(config.flush_commit_log_least_pages).unwrap_or(i64::MAX),
            last: Mutex::new(Last { flush: now, thorough: now }),
        }
    }
}

impl CommitLog {
    /// One turn of the flush thread: syncs when somebody waits, when RocketMQ's timers say so, or when `force` does.
    /// `now` is monotonic time.
    ///
    /// # Errors
    /// [`Error::Poisoned`].
    pub fn flush_step(&self, now: Duration, force: bool) -> Result<FlushProgress> {
        self.flush_wanted.store(false, Ordering::Release);
        self.check()?;
        let wanted = self.group.is_wanted();
        let durable = self.durable_offset();
        let end = self.appended();
        let mut last = self.timers.last.lock();
        let thorough = force || self.sync_flush || now.saturating_sub(last.thorough) >= self.timers.thorough;
        let dirty = end > durable;
        let by_timer = dirty && (thorough || self.enough_dirty(now.saturating_sub(last.flush), durable, end));
        if by_timer || !dirty {
            last.flush = now;
        }
        if thorough {
            last.thorough = now;
        }
        drop(last);
        if wanted || by_timer {
            self.sync_turn()?;
        }
        let next = if self.group.is_wanted() { Duration::ZERO } else { self.timers.interval };
        Ok(FlushProgress { next })
    }

    /// Whether a periodic flush is worth its sync: enough pages, or a segment that is finished.
    fn enough_dirty(&self, since: Duration, durable: PhysicalOffset, end: PhysicalOffset) -> bool {
        let size = i64::try_from(self.segment_size()).unwrap_or(i64::MAX);
        since >= self.timers.interval
            && (end.0 / PAGE - durable.0 / PAGE >= self.timers.least_pages || end.0 / size > durable.0 / size)
    }

    /// Behind the last byte appended, written out or not.
    fn appended(&self) -> PhysicalOffset {
        self.stage.as_ref().map_or_else(|| self.max_offset(), |stage| stage.end().max(self.max_offset()))
    }

    /// Waits until `upto` is durable; `Ok(false)` after `timeout`.
    ///
    /// # Errors
    /// [`Error::Poisoned`] when that can never be known.
    pub fn wait_durable(&self, upto: PhysicalOffset, timeout: Duration) -> Result<bool> {
        let mut start = None;
        let mut patient = true;
        loop {
            if self.durable_offset() >= upto {
                return Ok(true);
            }
            self.check()?;
            if (!patient || self.group.is_quiet())
                && let Some(turn) = self.turn.try_lock()
            {
                let completions = self.sync_round();
                drop(turn);
                self.finish(completions?);
                // Without this an offset that was never appended would be waited for in a busy loop.
                if self.durable_offset() < upto && self.appended() < upto {
                    return Ok(false);
                }
                patient = true;
                continue;
            }
            let Some(place) = self.group.join(upto, || self.durable_offset() >= upto) else { continue };
            self.call_flusher();
            let left = timeout.saturating_sub(start.get_or_insert_with(Instant::now).elapsed());
            if left.is_zero() {
                return Ok(self.durable_offset() >= upto);
            }
            let before = Instant::now();
            self.group.sleep(&place, left.min(PATIENCE));
            patient = before.elapsed() < PATIENCE;
        }
    }

    /// Calls `completion` with `Ok(true)` when `upto` is durable: at once when it is, else from the thread that syncs.
    /// It must not wait for the log.
    pub fn on_durable(&self, upto: PhysicalOffset, completion: Box<dyn FnOnce(Result<bool>) + Send>) {
        match self.group.enqueue(upto, completion, || self.durable_offset() >= upto) {
            None => self.call_flusher(),
            Some(completion) if self.durable_offset() >= upto => completion(Ok(true)),
            Some(completion) => completion(Err(self.poisoned().unwrap_or(Error::Closed))),
        }
    }

    /// Makes everything up to `upto` durable before it returns.
    ///
    /// # Errors
    /// [`Error::Poisoned`].
    pub fn sync_to(&self, upto: PhysicalOffset) -> Result<()> {
        while self.durable_offset() < upto.min(self.appended()) {
            self.sync_turn()?;
        }
        self.check()
    }

    fn sync_turn(&self) -> Result<()> {
        let turn = self.turn.lock();
        let completions = self.sync_round();
        drop(turn);
        self.finish(completions?);
        Ok(())
    }

    /// After the turn is given up, so that a completion holds up nobody's sync.
    fn finish(&self, completions: Vec<Completion>) {
        for completion in completions {
            completion(Ok(true));
        }
        if self.group.is_wanted() {
            self.call_flusher();
        }
    }

    /// Writes out, syncs, and moves `durable`. The caller holds the turn.
    fn sync_round(&self) -> Result<Vec<Completion>> {
        self.check()?;
        let target = match &self.stage {
            None => self.group.begin(|| self.max_offset()),
            Some(stage) => {
                let mut writer = stage.lock_writer();
                self.check()?;
                let target = self.group.begin(|| stage.take(&mut writer));
                self.write_taken(&mut writer, target)?;
                target
            }
        };
        let durable = self.durable_offset();
        if target > durable {
            for segment in self.segments.between(durable, target) {
                if let Err(source) = segment.region.sync(segment.overlap(durable, target)) {
                    let path = segment.path.clone();
                    return Err(self.poison(&Error::Io { action: "sync", path, source }));
                }
            }
            self.durable.store(target.0, Ordering::Release);
            self.arrival.ring();
        }
        Ok(self.group.end(target))
    }
}
