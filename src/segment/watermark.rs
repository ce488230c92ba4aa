//! How far the bytes of a file are final. Stored by its one writer, loaded by every reader.

use std::ops::Range;

use super::sync::{AtomicUsize, Ordering};

/// Bytes below are published: whoever sees the mark sees them, and nobody writes them any more.
#[derive(Debug)]
pub(super) struct Watermark(AtomicUsize);

impl Watermark {
    pub(super) fn new(at: usize) -> Self {
        Self(AtomicUsize::new(at))
    }

    /// Behind the last published byte.
    #[inline]
    pub(super) fn get(&self) -> usize {
        self.0.load(Ordering::Acquire)
    }

    /// Publishes everything below `at`, which the caller has written.
    #[inline]
    pub(super) fn publish(&self, at: usize) {
        self.0.store(at, Ordering::Release);
    }

    /// Whether a range of bytes may be read.
    #[inline]
    pub(super) fn covers(&self, range: &Range<usize>) -> bool {
        range.start <= range.end && range.end <= self.get()
    }
}
