//! The files of a run that are in use.
//!
//! Invariant: the files of a run follow one another without a gap, so a place is found by division. The run grows at
//! its end ([`Segments::push`], by the appender alone) and shrinks at its front ([`Segments::pop_oldest`], by retention
//! alone); readers take what they need under a read lock and keep it by its `Arc`.
//!
//! ```text
//! reader                                    retention
//! read lock; clone the segment's Arc        write lock; take the front out
//! bytes below its watermark: a lease,       remove the file
//! which clones the region's Arc             drop the segment's Arc
//! read; drop                                the last to drop unmaps the file
//! ```
//! `tests/protocol` runs this file and the watermark under loom.

use std::collections::VecDeque;

use super::{
    Segment,
    sync::{Arc, RwLock},
};
use crate::types::PhysicalOffset;

/// The files of a run that are in use, oldest first.
#[derive(Debug)]
pub struct Segments {
    size: usize,
    run: RwLock<VecDeque<Arc<Segment>>>,
}

impl Segments {
    /// A run of files of `size` bytes each.
    #[must_use]
    pub fn new(size: usize, segments: impl IntoIterator<Item = Arc<Segment>>) -> Self {
        Self { size, run: RwLock::new(segments.into_iter().collect()) }
    }

    /// Bytes of each file.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// The file that holds `at`.
    #[must_use]
    pub fn find(&self, at: PhysicalOffset) -> Option<Arc<Segment>> {
        let run = self.run.read();
        let distance = usize::try_from(at.0.checked_sub(run.front()?.base.0)?).ok()?;
        run.get(distance / self.size).cloned()
    }

    /// The oldest file.
    #[must_use]
    pub fn first(&self) -> Option<Arc<Segment>> {
        self.run.read().front().cloned()
    }

    /// The newest file.
    #[must_use]
    pub fn last(&self) -> Option<Arc<Segment>> {
        self.run.read().back().cloned()
    }

    /// Every file that holds a byte of `from..to`, oldest first.
    #[must_use]
    pub fn between(&self, from: PhysicalOffset, to: PhysicalOffset) -> Vec<Arc<Segment>> {
        let run = self.run.read();
        // Newest first: what is asked for is nearly always the last one or two of many.
        let mut hit: Vec<_> =
            run.iter().rev().skip_while(|s| s.base >= to).take_while(|s| s.end() > from).cloned().collect();
        hit.reverse();
        hit
    }

    /// All files, oldest first.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Segment>> {
        self.run.read().iter().cloned().collect()
    }

    /// Adds the file that follows the newest.
    ///
    /// # Panics
    /// When it does not follow it.
    pub fn push(&self, segment: Arc<Segment>) {
        let mut run = self.run.write();
        assert!(run.back().is_none_or(|last| last.end() == segment.base), "a gap in the run");
        run.push_back(segment);
    }

    /// Takes the oldest file out of the run, unless it is the only one. Readers that hold it keep it.
    pub fn pop_oldest(&self) -> Option<Arc<Segment>> {
        let mut run = self.run.write();
        if run.len() > 1 { run.pop_front() } else { None }
    }

    /// Puts back what [`Segments::pop_oldest`] took and what could not be removed.
    pub fn put_back(&self, segment: Arc<Segment>) {
        let mut run = self.run.write();
        if run.front().is_some_and(|first| segment.end() == first.base) {
            run.push_front(segment);
        }
    }
}
