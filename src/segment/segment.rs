//! One file of a run: its place in the run, its path, its bytes.

use std::{ops::Range, path::PathBuf, sync::Arc};

use super::{Lease, Region};
use crate::types::PhysicalOffset;

/// A file that holds the bytes from `base` on.
#[derive(Debug)]
pub struct Segment {
    /// Offset of the first byte.
    pub base: PhysicalOffset,
    /// The file.
    pub path: PathBuf,
    /// Its bytes.
    pub region: Arc<Region>,
}

impl Segment {
    /// Offset behind the last byte of the file.
    #[must_use]
    pub fn end(&self) -> PhysicalOffset {
        self.base.plus(self.region.len())
    }

    /// Where `at` lies in the file; `None` outside. The end is outside.
    #[must_use]
    pub fn position(&self, at: PhysicalOffset) -> Option<usize> {
        let position = usize::try_from(at.0.checked_sub(self.base.0)?).ok()?;
        (position < self.region.len()).then_some(position)
    }

    /// The part of `from..to` that lies in this file, as positions; empty when none does.
    #[must_use]
    pub fn overlap(&self, from: PhysicalOffset, to: PhysicalOffset) -> Range<usize> {
        let clip = |at: PhysicalOffset| {
            usize::try_from(at.since(self.base)).unwrap_or(usize::MAX).min(self.region.len())
        };
        clip(from)..clip(to).max(clip(from))
    }

    /// Everything published from `at` on, at least one byte.
    #[must_use]
    pub fn lease_rest(&self, at: PhysicalOffset) -> Option<Lease> {
        let start = self.position(at)?;
        let end = self.region.published();
        if start < end { self.region.lease(start..end) } else { None }
    }
}
