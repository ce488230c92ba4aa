//! The store's threads: thin loops around steps that can be driven one by one.
//!
//! Owns the flush thread, the prepare thread (next segment), the reput thread, the upkeep thread (queues, index and checkpoint to disk) and the
//! retention thread. Each step says when it wants to be called again; the loops only wait. A test that wants a
//! chosen order opens the store with [`super::Store::open_stepped`] and calls the steps itself.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use super::{Inner, agreed::Agreement, open::CheckpointFile};
use crate::{
    clock::Clock,
    commit_log::CommitLog,
    consume_queue::QueueTable,
    error::{Error, Result},
    index::IndexSet,
    reput::{Progress, Reput, ReputShared, Turns},
    types::PhysicalOffset,
};

/// RocketMQ looks for files to delete a minute after its start, not at once.
const FIRST_RETENTION: Duration = Duration::from_secs(60);
/// The longest that the reput thread sleeps; publishing wakes it earlier.
const REPUT_NAP: Duration = Duration::from_secs(1);
/// The longest that the preparing thread sleeps; the appender wakes it earlier.
const PREPARE_NAP: Duration = Duration::from_secs(1);
/// A failing step is tried again after this.
const AFTER_FAILURE: Duration = Duration::from_millis(500);

/// Brings queues, index and checkpoint to the disk.
#[derive(Debug)]
pub(super) struct Upkeep {
    pub(super) log: Arc<CommitLog>,
    pub(super) table: Arc<QueueTable>,
    pub(super) index: Arc<IndexSet>,
    pub(super) reput: Arc<ReputShared>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) checkpoint: CheckpointFile,
    pub(super) agreement: Agreement,
    /// A round has failed: the system may call pages clean that the disk has not got, and nothing tells of it later.
    pub(super) has_failed: bool,
}

impl Upkeep {
    /// One round. With `force` everything is synced whatever the timers say.
    ///
    /// # Errors
    /// What kept a file from being written; the next round tries again what can be tried again.
    pub(super) fn step(&mut self, force: bool) -> Result<()> {
        let outcome = self.round(force);
        self.has_failed |= outcome.is_err();
        if matches!(outcome, Err(Error::CutShort { .. })) {
            // What it says of the file may be filled up again with holes, and pass for what it was.
            self.agreement.withdraw()?;
        }
        outcome
    }

    fn round(&mut self, force: bool) -> Result<()> {
        // Taken before the flush: what is dispatched during it is not covered.
        let (last, timestamp) = self.reput.last();
        let agreed = if self.has_failed { None } else { self.agreement.due(&self.log, &self.reput) };
        let durable = self.log.durable_offset();
        let force = force || agreed.is_some();
        let flushed = self.table.flush_step(self.clock.monotonic(), force)?;
        let indexed = self.index.flush(force)?;
        let thorough = flushed.thorough || force;
        let checkpoint = &mut self.checkpoint;
        if thorough {
            checkpoint.now.logics_timestamp = timestamp;
            checkpoint.now.logics_offset = last;
            if self.log.durable_offset() > last {
                checkpoint.now.physic_timestamp = timestamp;
            }
        }
        if let Some(at) = indexed {
            checkpoint.now.index_timestamp = at;
        }
        // Recovery takes no hole below this for one that a power cut left; so it is kept close behind the log.
        let size = i64::try_from(self.log.segment_size()).unwrap_or(i64::MAX);
        let known = checkpoint.now.durable_end.unwrap_or_default();
        let rolled = durable.0 / size > known.0 / size;
        if thorough || rolled {
            checkpoint.now.durable_end = Some(durable);
        }
        if thorough || rolled || indexed.is_some() {
            checkpoint.save()?;
        }
        agreed.map_or(Ok(()), |from| self.agreement.write(from, &self.log, &self.table, &self.index))
    }
}

/// The threads that are running.
#[derive(Debug, Default)]
pub(super) struct Threads {
    stop: Arc<AtomicBool>,
    flush: Option<JoinHandle<()>>,
    prepare: Option<JoinHandle<()>>,
    reput: Option<JoinHandle<()>>,
    upkeep: Option<JoinHandle<Upkeep>>,
    retention: Option<JoinHandle<()>>,
}

impl Threads {
    pub(super) fn start(inner: &Arc<Inner>, reput: Reput, upkeep: Upkeep) -> Result<Self> {
        inner.turns.begin(reput);
        let stop = Arc::new(AtomicBool::new(false));
        let spawned = |what: std::io::Result<JoinHandle<()>>| {
            what.map_err(Error::io("start a thread for", &inner.config.root))
        };
        let name = |part: &str| thread::Builder::new().name(format!("reput-{part}"));

        let (log, clock, flag) = (Arc::clone(&inner.log), Arc::clone(&inner.clock), Arc::clone(&stop));
        let flush = name("flush").spawn(move || flush_loop(&log, &*clock, &flag));
        let (log, flag) = (Arc::clone(&inner.log), Arc::clone(&stop));
        let prepare = name("prepare").spawn(move || prepare_loop(&log, &flag));
        let (log, flag) = (Arc::clone(&inner.log), Arc::clone(&stop));
        let (turns, shared) = (Arc::clone(&inner.turns), Arc::clone(&inner.reput));
        let dispatch = name("dispatch").spawn(move || reput_loop(&turns, &shared, &log, &flag));
        let (flag, every) = (Arc::clone(&stop), inner.config.flush_consume_queue_interval_ms);
        let upkeep = name("upkeep").spawn(move || upkeep_loop(upkeep, Duration::from_millis(every), &flag));
        let (shared, flag) = (Arc::clone(&inner.retention), Arc::clone(&stop));
        let every = Duration::from_millis(inner.config.clean_resource_interval_ms);
        let retention = name("retention").spawn(move || {
            let mut nap = FIRST_RETENTION.min(every * 6);
            while sleep(&flag, nap) {
                // A failed run is tried again at the next turn; until then the disk state stands as it was.
                let _ = shared.run(&flag);
                nap = every;
            }
        });
        Ok(Self {
            stop,
            flush: Some(spawned(flush)?),
            prepare: Some(spawned(prepare)?),
            reput: Some(spawned(dispatch)?),
            upkeep: Some(upkeep.map_err(Error::io("start a thread for", &inner.config.root))?),
            retention: Some(spawned(retention)?),
        })
    }

    /// Stops all threads. The dispatcher first finishes what is readable, unless the log is poisoned.
    pub(super) fn stop(&mut self, log: &CommitLog) -> Option<Upkeep> {
        self.stop.store(true, Ordering::Release);
        log.interrupt();
        for thread in [&self.retention, &self.flush, &self.prepare, &self.reput].into_iter().flatten() {
            thread.thread().unpark();
        }
        if let Some(upkeep) = &self.upkeep {
            upkeep.thread().unpark();
        }
        let me = thread::current().id();
        let threads = [self.reput.take(), self.flush.take(), self.prepare.take(), self.retention.take()];
        for thread in threads.into_iter().flatten() {
            // The last handle on a store may be dropped by one of its own threads, through a listener.
            if thread.thread().id() != me {
                let _ = thread.join();
            }
        }
        let upkeep = self.upkeep.take()?;
        if upkeep.thread().id() == me { None } else { upkeep.join().ok() }
    }
}

/// Sleeps unless told to stop; says whether to go on.
fn sleep(stop: &AtomicBool, time: Duration) -> bool {
    if !stop.load(Ordering::Acquire) {
        thread::park_timeout(time);
    }
    !stop.load(Ordering::Acquire)
}

fn flush_loop(log: &CommitLog, clock: &dyn Clock, stop: &AtomicBool) {
    while !stop.load(Ordering::Acquire) {
        match log.flush_step(clock.monotonic(), false) {
            Ok(progress) => log.flush_idle(progress.next),
            // Poisoned: every waiter was told, nothing is left to do here.
            Err(_) => return,
        }
    }
}

fn prepare_loop(log: &CommitLog, stop: &AtomicBool) {
    while !stop.load(Ordering::Acquire) {
        // A full disk is told to the put that needs the segment; here it is only tried again.
        let nap = if log.prepare_step().is_ok() { PREPARE_NAP } else { AFTER_FAILURE };
        log.prepare_idle(nap);
    }
}

fn reput_loop(turns: &Turns, shared: &ReputShared, log: &CommitLog, stop: &AtomicBool) {
    loop {
        // Read before the step: what was put while an earlier step ran is dispatched before this ends.
        let stopping = stop.load(Ordering::Acquire);
        match turns.step() {
            Ok(Progress::More) => {}
            Ok(Progress::CaughtUp) if stopping => return,
            Ok(Progress::CaughtUp) => {
                log.wait_dispatchable(|| shared.dispatched(), REPUT_NAP);
            }
            Err(_) if stop.load(Ordering::Acquire) || log.poisoned().is_some() => return,
            Err(_) => {
                sleep(stop, AFTER_FAILURE);
            }
        }
    }
}

fn upkeep_loop(mut upkeep: Upkeep, every: Duration, stop: &AtomicBool) -> Upkeep {
    while sleep(stop, every) {
        // What could not be written is tried again; a sync that failed is not, and `close` reports it.
        let _ = upkeep.step(false);
    }
    upkeep
}

/// The steps of a store without threads, for tests that choose the order themselves.
#[derive(Debug)]
pub struct Steps {
    pub(super) log: Arc<CommitLog>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) reput: Reput,
    pub(super) upkeep: Upkeep,
    pub(super) retention: Arc<crate::retention::Retention>,
}

impl Steps {
    /// One turn of the flush thread.
    ///
    /// # Errors
    /// [`Error::Poisoned`] when the sync fails.
    pub fn flush(&mut self) -> Result<()> {
        self.log.flush_step(self.clock.monotonic(), false).map(drop)
    }

    /// One turn of the dispatcher; says whether there is more.
    ///
    /// # Errors
    /// What kept a queue from taking an entry.
    pub fn reput(&mut self) -> Result<bool> {
        Ok(self.reput.step()? == Progress::More)
    }

    /// One turn of the preparing thread: makes the next segment.
    ///
    /// # Errors
    /// What kept the segment from being made; the put that needs it tries again.
    pub fn prepare(&mut self) -> Result<()> {
        self.log.prepare_step()
    }

    /// One turn of the upkeep of queues, index and checkpoint.
    ///
    /// # Errors
    /// What kept a file from being written.
    pub fn upkeep(&mut self) -> Result<()> {
        self.upkeep.step(false)
    }

    /// One turn of retention; the number of segments deleted.
    ///
    /// # Errors
    /// What kept a file from being removed.
    pub fn retention(&mut self) -> Result<usize> {
        Ok(self.retention.run(&AtomicBool::new(false))?.segments)
    }

    /// Closes the store as one with threads is closed: dispatches what is left, syncs, removes `abort`.
    /// [`super::Store::close`] alone leaves a stepped store as a kill would.
    ///
    /// # Errors
    /// As [`super::Store::close`].
    pub fn close(mut self, store: &super::Store) -> Result<()> {
        store.inner.close(|| {
            while let Ok(Progress::More) = self.reput.step() {}
            Some(self.upkeep)
        })
    }

    /// How far the dispatcher is.
    #[must_use]
    pub fn dispatched(&self) -> PhysicalOffset {
        self.reput.position()
    }
}
