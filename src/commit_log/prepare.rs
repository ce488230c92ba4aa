//! Work ahead of the writer: the next segment, pages that stores will not fault on, write-back started early.
//!
//! One thread calls [`CommitLog::prepare_step`] whenever the appender has moved on by a megabyte. Nothing depends on it
//! but speed: the appender makes a missing segment itself, and a missing page faults.

use std::{
    sync::atomic::{AtomicBool, AtomicI64, Ordering},
    time::Duration,
};

use parking_lot::Mutex;

use super::{CommitLog, wake::Bell};
use crate::{error::Result, types::PhysicalOffset};

/// The appender tells of its progress in steps of this size, and pages are populated in steps of it.
const STEP: usize = 1 << 20;
/// Pages are kept populated so far ahead of a slow writer, …
const LEAST_AHEAD: usize = 4 << 20;
/// … and so far ahead of a fast one: four times what it wrote since the last turn, within these bounds.
const MOST_AHEAD: usize = 32 << 20;
/// Write-back is started in pieces of this size.
const WRITEBACK: usize = 8 << 20;

#[derive(Debug)]
pub(super) struct Ahead {
    bell: Bell,
    /// Told of and not yet seen by a step.
    told: AtomicBool,
    /// Whether anything was appended since the store was opened: until then nothing is made ahead.
    begun: AtomicBool,
    /// The step's own memory; one thread steps.
    marks: Mutex<Marks>,
    /// What the appender told last.
    position: AtomicI64,
}

#[derive(Debug)]
struct Marks {
    seen: PhysicalOffset,
    populated: PhysicalOffset,
    written_back: PhysicalOffset,
}

impl Ahead {
    pub(super) fn new(end: PhysicalOffset) -> Self {
        Self {
            bell: Bell::default(),
            told: AtomicBool::new(false),
            begun: AtomicBool::new(false),
            marks: Mutex::new(Marks { seen: end, populated: end, written_back: end }),
            position: AtomicI64::new(end.0),
        }
    }

    /// The appender has come to `next`; returns where it is to tell again.
    #[cold]
    pub(super) fn passed(&self, next: PhysicalOffset) -> PhysicalOffset {
        self.position.store(next.0, Ordering::Relaxed);
        self.begun.store(true, Ordering::Relaxed);
        self.told.store(true, Ordering::Release);
        self.bell.ring();
        next.plus(STEP)
    }

    pub(super) fn idle(&self, timeout: Duration) {
        self.bell.wait(timeout, || self.told.load(Ordering::Acquire));
    }

    pub(super) fn interrupt(&self) {
        self.bell.interrupt();
    }
}

impl CommitLog {
    /// One turn of the preparing thread: has the next segment made and, with the mapped body, pages ahead of the writer
    /// populated and write-back behind it started.
    ///
    /// # Errors
    /// [`crate::Error::NoSpace`] or [`crate::Error::Io`] when the next segment cannot be made now. The append that
    /// needs it tries again; until then nothing is wrong.
    pub fn prepare_step(&self) -> Result<()> {
        self.ahead.told.store(false, Ordering::Release);
        if !self.ahead.begun.load(Ordering::Relaxed) {
            return Ok(());
        }
        let Some(active) = self.segments.last() else { return Ok(()) };
        if self.stage.is_some() {
            return self.allocator.prepare(active.end(), 0).map(|_| ());
        }
        let mut marks = self.ahead.marks.lock();
        let spill = self.populate_ahead(&mut marks);
        self.write_back_behind(&mut marks);
        self.allocator.prepare(active.end(), spill).map(|_| ())
    }

    /// Populates up to the end of the active segment; returns how far into the next one that should go on.
    fn populate_ahead(&self, marks: &mut Marks) -> usize {
        let Some(active) = self.segments.last() else { return 0 };
        let start = self.max_offset();
        let written = usize::try_from(start.since(marks.seen)).unwrap_or(MOST_AHEAD);
        marks.seen = start;
        let window = written.saturating_mul(4).clamp(LEAST_AHEAD, MOST_AHEAD);
        loop {
            let at = self.max_offset();
            marks.populated = marks.populated.max(at);
            let wanted = at.plus(window);
            let end = wanted.min(active.end());
            if marks.populated >= end {
                return usize::try_from(wanted.since(active.end())).unwrap_or(window);
            }
            let upto = marks.populated.plus(STEP).min(end);
            active.region.populate(active.overlap(marks.populated, upto));
            marks.populated = upto;
        }
    }

    /// Keeps the amount of dirty pages bounded between two flushes.
    fn write_back_behind(&self, marks: &mut Marks) {
        let at = self.max_offset();
        marks.written_back = marks.written_back.max(self.durable_offset());
        let whole = usize::try_from(at.since(marks.written_back)).unwrap_or(0) / WRITEBACK * WRITEBACK;
        if whole == 0 {
            return;
        }
        let upto = marks.written_back.plus(whole);
        for segment in self.segments.between(marks.written_back, upto) {
            segment.region.start_writeback(segment.overlap(marks.written_back, upto));
        }
        marks.written_back = upto;
    }
}
