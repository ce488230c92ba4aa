//! A second thread that checks the bodies of records before the pass comes to them.
//!
//! It walks from record to record, and stops for good at the first thing that is none. What it has checked is one range
//! of the log; the pass believes it only as long as both came the same way, that is until its first damage.
//!
//! ```text
//! helper                              pass, at a record's start `here`
//! check bodies of [start, upto)       end := upto (Acquire), begin := start
//! upto := end (Release)               begin <= here < end: checked
//! ```
//! When the pass has overtaken it, the helper goes on a little before it: `upto` becomes nothing first, then `start`
//! moves. Ranges only move forward, so an old end together with a new start is no range.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use crate::{
    format::message::{self, BLANK_LEN, Inspected, MAGIC_BLANK},
    types::PhysicalOffset,
};

/// Records become known as checked in steps of this many bytes.
const STEP: usize = 64 << 10;
/// When it was overtaken the helper goes on this far before the pass.
const LEAP: usize = 2 << 20;

/// What the two threads share.
#[derive(Debug)]
pub(super) struct Ahead {
    start: AtomicI64,
    upto: AtomicI64,
    /// How far the pass is.
    pass: AtomicI64,
    stop: AtomicBool,
}

/// The segments of the log: where each starts, and its bytes.
type Segments<'a> = [(PhysicalOffset, &'a [u8])];

impl Ahead {
    /// Nothing is checked; both begin at `from`.
    pub(super) fn new(from: PhysicalOffset) -> Self {
        let at = || AtomicI64::new(from.0);
        Self { start: at(), upto: at(), pass: at(), stop: AtomicBool::new(false) }
    }

    /// Whether the body of the record at `here` was found good.
    #[inline]
    pub(super) fn has_verified(&self, here: PhysicalOffset) -> bool {
        here.0 < self.upto.load(Ordering::Acquire) && self.start.load(Ordering::Relaxed) <= here.0
    }

    /// Takes note that the pass has come to `at`.
    #[inline]
    pub(super) fn follow(&self, at: PhysicalOffset) {
        self.pass.store(at.0, Ordering::Release);
    }

    /// Ends the helper's work.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// The helper's work.
    pub(super) fn run(&self, segments: &Segments<'_>) {
        let mut at = PhysicalOffset(self.pass.load(Ordering::Acquire));
        let mut known = at;
        while !self.stop.load(Ordering::Relaxed) {
            let pass = PhysicalOffset(self.pass.load(Ordering::Acquire));
            if pass > at {
                let Some(leapt) = leap(segments, pass) else { return };
                at = leapt;
                known = at;
                self.upto.store(i64::MIN, Ordering::Release);
                self.start.store(at.0, Ordering::Release);
            }
            while at.since(known) < STEP as u64 {
                match next(segments, at, true) {
                    Some(behind) => at = behind,
                    None => {
                        self.upto.store(at.0, Ordering::Release);
                        return;
                    }
                }
            }
            known = at;
            self.upto.store(at.0, Ordering::Release);
        }
    }
}

/// The start of a record some way before the pass.
fn leap(segments: &Segments<'_>, pass: PhysicalOffset) -> Option<PhysicalOffset> {
    let mut at = pass;
    while at.since(pass) < LEAP as u64 {
        at = next(segments, at, false)?;
    }
    Some(at)
}

/// Behind the record or blank at `at`; `None` when none stands there, or its body is not what its checksum says.
fn next(segments: &Segments<'_>, at: PhysicalOffset, checked: bool) -> Option<PhysicalOffset> {
    let number = segments.partition_point(|(base, bytes)| base.plus(bytes.len()) <= at);
    let (base, bytes) = segments.get(number)?;
    let rest = bytes.get(usize::try_from(at.since(*base)).ok()?..)?;
    let end = base.plus(bytes.len());
    if rest.len() < BLANK_LEN {
        return Some(end);
    }
    let (_, magic) = message::size_and_magic(rest).ok()?;
    if magic == MAGIC_BLANK {
        return Some(end);
    }
    let record = Inspected::of(rest).ok()?;
    let good = record.header.physical_offset == at && (!checked || record.verify_body_crc().is_ok());
    good.then(|| at.plus(record.header.total_size))
}
