//! The writing end of the log. One exists, and the store's put lock owns it.
//!
//! An append is a memory copy: no allocation, no system call, no channel. A roll, once a segment, takes the segment
//! made ahead, or makes it when there is none.

use std::{
    io::ErrorKind,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
};

use super::{CommitLog, stage::STAGE_LIMIT};
use crate::{
    error::{Error, Result},
    format::message::{BLANK_LEN, Sink, encode_blank},
    segment::{RecordSink, Region, Segment, Tail},
    types::PhysicalOffset,
    vfs::Advice,
};

impl Sink for RecordSink<'_> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        RecordSink::put(self, bytes);
    }

    #[inline]
    fn begin(&mut self, head: &[u8]) {
        RecordSink::begin(self, head);
    }
}

/// Puts records behind one another.
#[derive(Debug)]
pub struct Appender {
    log: Arc<CommitLog>,
    /// The mapped body's end; with the staged body the stage has it.
    tail: Option<Tail>,
    next: PhysicalOffset,
    /// Bytes left in the segment; 0 when there is none, or while `unclaimed` is set.
    left: usize,
    /// The segment that recovery left to be gone on with. Others may have made it sparse, so the space of its rest is
    /// claimed before the first byte is stored.
    unclaimed: Option<Arc<Region>>,
    /// Bytes that waited in the stage after the last append.
    waiting: usize,
    /// Where the preparing thread is to be told that the writer has moved on.
    tell_at: PhysicalOffset,
}

impl Appender {
    pub(super) fn new(log: Arc<CommitLog>, tail: Option<Tail>, next: PhysicalOffset) -> Self {
        let unclaimed = tail.as_ref().map(|tail| Arc::clone(tail.region()));
        let tail = match (&log.stage, tail) {
            (Some(stage), Some(tail)) => {
                stage.turn_to(tail, next);
                None
            }
            (_, tail) => tail,
        };
        Self { log, tail, next, left: 0, unclaimed, waiting: 0, tell_at: PhysicalOffset::ZERO }
    }

    /// Behind the last byte appended.
    #[must_use]
    pub fn next_offset(&self) -> PhysicalOffset {
        self.next
    }

    /// Bytes of the longest record or batch: it must leave room for the mark at a segment's end.
    #[must_use]
    pub fn longest(&self) -> usize {
        self.log.segment_size() - BLANK_LEN
    }

    /// Where a record or batch of `len` bytes will go: begins the next segment when it does not fit into this one.
    ///
    /// # Errors
    /// As [`Appender::append`]. After [`Error::NoSpace`] nothing has changed.
    #[inline]
    pub fn make_room(&mut self, len: usize) -> Result<PhysicalOffset> {
        self.log.check()?;
        if len + BLANK_LEN > self.left {
            self.claim()?;
            if len + BLANK_LEN > self.left {
                self.roll(len)?;
            }
        }
        Ok(self.next)
    }

    /// Appends a record or batch of exactly `len` bytes, which `encode` puts for the offset it is given. In ASYNC_FLUSH
    /// it is published on return, and the caller tells the dispatcher ([`CommitLog::announce`]); in SYNC_FLUSH when
    /// somebody has written it out ([`CommitLog::wait_durable`], [`CommitLog::wait_written`], the flush thread).
    ///
    /// # Errors
    /// [`Error::RecordTooLarge`], [`Error::NoSpace`], [`Error::Io`] from a roll, [`Error::Poisoned`]. Nothing was
    /// appended then; but where the log is written rather than mapped, a write that failed halfway may have left its
    /// first bytes for the next open to find.
    ///
    /// # Panics
    /// When `encode` puts more or fewer bytes: a wrong length must not reach the log. Nothing is appended then.
    #[inline]
    pub fn append(
        &mut self,
        len: usize,
        encode: impl FnOnce(PhysicalOffset, &mut RecordSink<'_>),
    ) -> Result<PhysicalOffset> {
        let at = self.make_room(len)?;
        match (&mut self.tail, &self.log.stage) {
            (Some(tail), _) => {
                tail.fill(len, |sink| encode(at, sink));
                self.log.published.store(at.plus(len).0, Ordering::Release);
            }
            (None, Some(stage)) => {
                // What waited after the last append is the most that can wait now.
                if self.waiting + len > STAGE_LIMIT && stage.is_full(len) {
                    self.log.write_out()?;
                }
                self.waiting = stage.fill(len, |sink| encode(at, sink));
                if !self.log.sync_flush {
                    // ASYNC_FLUSH promises that a put survives `kill -9`, also where it cannot use the mapping.
                    self.log.write_out()?;
                }
            }
            (None, None) => return Err(Error::Closed),
        }
        self.next = at.plus(len);
        self.left -= len;
        if self.next >= self.tell_at {
            self.tell_at = self.log.ahead.passed(self.next);
        }
        Ok(at)
    }

    /// Claims the space of a segment that this process has not made.
    #[cold]
    fn claim(&mut self) -> Result<()> {
        let Some(region) = &self.unclaimed else { return Ok(()) };
        let at = region.published();
        if let Err(source) = region.reserve(at..region.len()) {
            let path = self.log.segments.last().map_or_else(PathBuf::new, |last| last.path.clone());
            return Err(match source.kind() {
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                    Error::NoSpace { path, bytes: (region.len() - at) as u64 }
                }
                _ => Error::Io { action: "reserve the rest of", path, source },
            });
        }
        self.left = region.len() - at;
        self.unclaimed = None;
        Ok(())
    }

    /// Marks the rest of the segment as blank and begins the next one. The new segment is at hand before anything
    /// changes, so a full disk leaves the log as it was, and shorter records may still fit.
    #[cold]
    fn roll(&mut self, len: usize) -> Result<()> {
        if len > self.longest() {
            return Err(Error::RecordTooLarge { size: len, limit: self.longest() });
        }
        let base = self.next.plus(self.left);
        let prepared = self.log.allocator.take(base)?;
        // A segment that recovery ended closer than a mark to its end gets none; readers go on at its end.
        let blank = (self.left >= BLANK_LEN).then(|| encode_blank(self.left));
        let (region, tail) = Region::with_tail(prepared.backing, 0);
        let segment = Arc::new(Segment { base, path: prepared.path, region });
        let finished = self.log.segments.last();
        match &self.log.stage {
            None => {
                if let Some(mut old) = self.tail.take() {
                    if let Some(blank) = blank {
                        old.fill(BLANK_LEN, |sink| sink.put(&blank));
                    }
                    old.seal();
                }
                segment.region.advise(Advice::Normal);
                self.tail = Some(tail);
            }
            Some(stage) => {
                if let Some(blank) = blank {
                    stage.fill(BLANK_LEN, |sink| sink.put(&blank));
                }
                self.log.write_out()?;
                stage.turn_to(tail, base);
            }
        }
        self.log.segments.push(segment);
        self.log.published.store(base.0, Ordering::Release);
        if let Some(finished) = finished {
            finished.region.advise(self.log.advice_when_full());
        }
        self.next = base;
        self.left = self.log.segment_size();
        self.tell_at = PhysicalOffset::ZERO;
        Ok(())
    }

    /// Makes everything durable and removes the segment made ahead.
    ///
    /// # Errors
    /// [`Error::Poisoned`], [`Error::Io`]. The segment made ahead is removed all the same.
    pub fn close(self) -> Result<()> {
        let synced = self.log.sync_to(self.next);
        let closed = self.log.allocator.close();
        self.log.interrupt();
        synced.and(closed)
    }
}
