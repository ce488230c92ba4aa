//! The CommitLog: one run of segments, one appender, any number of readers, one sync at a time.
//!
//! [`load`] finds the files, recovery decides where the log ends, [`Loaded::recovered`] makes the [`CommitLog`] that
//! everybody shares and the one [`Appender`]. Knows lengths and offsets; what a record says is not read here.
//!
//! Three offsets, in order: `durable <= published <= next`.
//! - **next**: behind the last byte appended (the appender's).
//! - **published**: readers see everything below it.
//! - **durable**: survives a power cut.
//!
//! The appender has two bodies. *Mapped* (ASYNC_FLUSH): records are encoded into the mapping and published by the put,
//! so an acknowledged one survives `kill -9`. *Staged* (SYNC_FLUSH, and any mode where stores into a mapping may run
//! out of space): records wait in memory; whoever syncs writes all of them with one `pwrite`, publishes them, and syncs.
//!
//! Called by the store, reput, recovery and retention. Background work is done by steps that the store's threads call:
//! [`CommitLog::flush_step`] and [`CommitLog::prepare_step`].

mod appender;
mod flush;
mod gaps;
mod group;
mod load;
mod prepare;
mod quarantine;
mod reader;
mod stage;
mod sync;
#[cfg(test)]
mod tests;
mod wake;

use std::{
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;

pub use appender::Appender;
pub use gaps::Gap;
pub use load::{Loaded, load};
pub(crate) use quarantine::Quarantine;
pub use reader::SegmentInfo;

use crate::{
    clock::Clock,
    config::{Config, FlushDiskType},
    error::{Error, Result},
    segment::{Allocator, Segments, Tail},
    types::PhysicalOffset,
    vfs::{Advice, Vfs},
};
use {flush::Timers, group::Group, prepare::Ahead, stage::Stage, wake::Bell};

/// The log, shared by readers, the syncing thread and the appender.
#[derive(Debug)]
pub struct CommitLog {
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    segments: Segments,
    allocator: Allocator,
    /// The staged body; `None` with the mapped one.
    stage: Option<Stage>,
    sync_flush: bool,
    published: AtomicI64,
    durable: AtomicI64,
    /// Held by whoever syncs.
    turn: Mutex<()>,
    group: Group,
    timers: Timers,
    ahead: Ahead,
    /// Rung when `published` or `durable` grows.
    arrival: Bell,
    /// Rung when waiters queue for a sync.
    flusher: Bell,
    flush_wanted: AtomicBool,
    /// Whether finished segments are read ahead.
    read_ahead: AtomicBool,
    /// Set once, by the first write or sync that failed.
    poison: OnceLock<(PhysicalOffset, String)>,
    poisoned: AtomicBool,
    /// A segment's removal may not be durable.
    removal_is_unsynced: AtomicBool,
}

impl CommitLog {
    /// The log as recovery left it: all of it durable, ending at `end`.
    fn start(
        vfs: Arc<dyn Vfs>,
        config: &Config,
        dir: PathBuf,
        segments: Segments,
        tail: Option<Tail>,
        end: PhysicalOffset,
        clock: Arc<dyn Clock>,
    ) -> (Arc<Self>, Appender) {
        let sync_flush = config.flush_disk_type == FlushDiskType::Sync;
        let staged = sync_flush || !vfs.may_store_through_mapping(&dir);
        if let (Some(tail), false) = (&tail, staged) {
            tail.region().advise(Advice::Normal);
        }
        let allocator = Allocator::new(Arc::clone(&vfs), dir.clone(), config.commit_log_file_size);
        let log = Arc::new(Self {
            vfs,
            dir,
            segments,
            allocator,
            stage: staged.then(|| Stage::new(end)),
            sync_flush,
            published: AtomicI64::new(end.0),
            durable: AtomicI64::new(end.0),
            turn: Mutex::new(()),
            group: Group::default(),
            timers: Timers::new(config, clock.monotonic()),
            ahead: Ahead::new(end),
            arrival: Bell::default(),
            flusher: Bell::default(),
            flush_wanted: AtomicBool::new(false),
            read_ahead: AtomicBool::new(false),
            poison: OnceLock::new(),
            poisoned: AtomicBool::new(false),
            removal_is_unsynced: AtomicBool::new(false),
        });
        let appender = Appender::new(Arc::clone(&log), tail, end);
        (log, appender)
    }

    /// Bytes of each segment.
    #[must_use]
    pub fn segment_size(&self) -> usize {
        self.segments.size()
    }

    /// Start of the oldest segment; -1, as RocketMQ has it, when there is none.
    #[must_use]
    pub fn min_offset(&self) -> PhysicalOffset {
        self.segments.first().map_or(PhysicalOffset(-1), |first| first.base)
    }

    /// Behind the last byte that readers see.
    #[must_use]
    pub fn max_offset(&self) -> PhysicalOffset {
        PhysicalOffset(self.published.load(Ordering::Acquire))
    }

    /// Behind the last byte that survives a power cut.
    #[must_use]
    pub fn durable_offset(&self) -> PhysicalOffset {
        PhysicalOffset(self.durable.load(Ordering::Acquire))
    }

    /// How far queues may follow the log: what is durable in SYNC_FLUSH, so that no consumer sees what a power cut can
    /// take back; else what is published.
    #[must_use]
    pub fn dispatch_limit(&self) -> PhysicalOffset {
        if self.sync_flush { self.durable_offset() } else { self.max_offset() }
    }

    /// How segments that are full are read from now on: with the system's read-ahead, or page by page.
    pub fn set_read_ahead(&self, on: bool) {
        self.read_ahead.store(on, Ordering::Relaxed);
        let newest = self.segments.last().map(|newest| newest.base);
        for segment in self.segments.all().iter().filter(|segment| Some(segment.base) != newest) {
            segment.region.advise(self.advice_when_full());
        }
    }

    fn advice_when_full(&self) -> Advice {
        if self.read_ahead.load(Ordering::Relaxed) { Advice::Normal } else { Advice::Random }
    }

    /// The error that every write now ends in, once a write or a sync has failed.
    #[must_use]
    pub fn poisoned(&self) -> Option<Error> {
        let (at, why) = self.poison.get()?;
        Some(Error::Poisoned { at: *at, why: why.clone() })
    }

    #[inline]
    fn check(&self) -> Result<()> {
        if self.poisoned.load(Ordering::Acquire) {
            return Err(self.poisoned().unwrap_or(Error::Closed));
        }
        Ok(())
    }

    /// Ends all writing: the system has said that it does not know what is on the disk, and says so once only, so a
    /// second try would succeed and prove nothing. Wakes everybody who waits for the disk.
    #[cold]
    fn poison(&self, error: &Error) -> Error {
        let poison = self.poison.get_or_init(|| (self.durable_offset(), error.to_string()));
        self.poisoned.store(true, Ordering::Release);
        let (at, why) = poison.clone();
        for completion in self.group.abandon() {
            completion(Err(Error::Poisoned { at, why: why.clone() }));
        }
        self.arrival.interrupt();
        Error::Poisoned { at, why }
    }

    /// Sleeps until [`Self::dispatch_limit`] is beyond what `dispatched` gives, an interrupt or `timeout`; returns it.
    /// Reput sleeps here.
    pub fn wait_dispatchable(
        &self,
        dispatched: impl Fn() -> PhysicalOffset,
        timeout: Duration,
    ) -> PhysicalOffset {
        self.arrival.wait(timeout, || self.dispatch_limit() > dispatched());
        self.dispatch_limit()
    }

    /// Whether only what is durable is dispatched.
    pub const fn is_sync_flush(&self) -> bool {
        self.sync_flush
    }

    /// Tells the dispatcher that there is something to dispatch. In SYNC_FLUSH whoever syncs tells it.
    #[inline]
    pub fn announce(&self) {
        if !self.sync_flush {
            self.arrival.ring();
        }
    }

    /// The flush thread sleeps here between turns: until somebody waits for the disk, an interrupt or `timeout`.
    pub fn flush_idle(&self, timeout: Duration) {
        self.flusher.wait(timeout, || self.flush_wanted.load(Ordering::Acquire));
    }

    /// The preparing thread sleeps here between turns: until the appender has moved on, an interrupt or `timeout`.
    pub fn prepare_idle(&self, timeout: Duration) {
        self.ahead.idle(timeout);
    }

    /// Ends the sleep, or the next one, of `wait_dispatchable`, `flush_idle` and `prepare_idle`: the store is closing.
    pub fn interrupt(&self) {
        self.arrival.interrupt();
        self.flusher.interrupt();
        self.ahead.interrupt();
    }

    fn call_flusher(&self) {
        if !self.flush_wanted.swap(true, Ordering::AcqRel) {
            self.flusher.ring();
        }
    }
}
