//! The staged body: records wait in memory until somebody writes them out.
//!
//! Two buffers change places: the appender fills one under `filling`, the writer empties the other under `writer`.
//! Lock order: `writer`, then the group's lock, then `filling`. Invariant: the staged bytes all belong to the segment
//! of the writer's tail and follow its mark; a roll writes everything out before it changes the tail.

use std::sync::atomic::Ordering;

use parking_lot::{Mutex, MutexGuard};

use super::CommitLog;
use crate::{
    error::{Error, Result},
    segment::{RecordSink, Tail, fill_buffer},
    types::PhysicalOffset,
};

/// The appender writes out by itself before more than this waits; one record or batch may be larger.
pub(super) const STAGE_LIMIT: usize = 8 << 20;

#[derive(Debug)]
pub(super) struct Stage {
    filling: Mutex<Filling>,
    writer: Mutex<Writer>,
}

#[derive(Debug)]
struct Filling {
    bytes: Vec<u8>,
    /// Offset behind the last staged byte.
    end: PhysicalOffset,
}

#[derive(Debug)]
pub(super) struct Writer {
    tail: Option<Tail>,
    bytes: Vec<u8>,
}

impl Stage {
    pub(super) fn new(end: PhysicalOffset) -> Self {
        Self {
            filling: Mutex::new(Filling { bytes: Vec::new(), end }),
            writer: Mutex::new(Writer { tail: None, bytes: Vec::new() }),
        }
    }

    /// Offset behind the last staged byte.
    pub(super) fn end(&self) -> PhysicalOffset {
        self.filling.lock().end
    }

    /// Whether `len` more bytes should not wait in memory.
    pub(super) fn is_full(&self, len: usize) -> bool {
        let waiting = self.filling.lock().bytes.len();
        waiting > 0 && waiting + len > STAGE_LIMIT
    }

    /// Stages exactly `len` bytes; returns how many wait now.
    #[inline]
    pub(super) fn fill(&self, len: usize, fill: impl FnOnce(&mut RecordSink<'_>)) -> usize {
        let mut filling = self.filling.lock();
        fill_buffer(&mut filling.bytes, len, fill);
        filling.end = filling.end.plus(len);
        filling.bytes.len()
    }

    /// Ends the segment being written and goes on in `tail`, at `end`. Everything staged must have been written out.
    pub(super) fn turn_to(&self, tail: Tail, end: PhysicalOffset) {
        let mut writer = self.writer.lock();
        let mut filling = self.filling.lock();
        assert!(
            filling.bytes.is_empty() && writer.bytes.is_empty(),
            "staged bytes were left behind by a roll"
        );
        filling.end = end;
        if let Some(old) = writer.tail.replace(tail) {
            old.seal();
        }
    }

    pub(super) fn lock_writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock()
    }

    /// Takes what is staged for writing; returns the offset behind it.
    pub(super) fn take(&self, writer: &mut Writer) -> PhysicalOffset {
        let mut filling = self.filling.lock();
        debug_assert!(writer.bytes.is_empty(), "taken twice");
        std::mem::swap(&mut filling.bytes, &mut writer.bytes);
        filling.end
    }
}

impl CommitLog {
    /// Writes out what `writer` took and publishes it up to `end`. A failure poisons the log: the order of the bytes
    /// can no longer be kept.
    pub(super) fn write_taken(&self, writer: &mut Writer, end: PhysicalOffset) -> Result<()> {
        if writer.bytes.is_empty() {
            return Ok(());
        }
        // Checked after taking: bytes taken by a writer that failed must not be passed by later ones.
        self.check()?;
        let Writer { tail: Some(tail), bytes } = writer else {
            return Err(self.poison(&Error::Closed));
        };
        if let Err(source) = tail.write(bytes) {
            let path = self.dir.clone();
            return Err(self.poison(&Error::Io { action: "write to the log in", path, source }));
        }
        bytes.clear();
        bytes.shrink_to(STAGE_LIMIT);
        self.published.store(end.0, Ordering::Release);
        self.arrival.ring();
        Ok(())
    }

    /// Writes out everything staged.
    pub(super) fn write_out(&self) -> Result<()> {
        let Some(stage) = &self.stage else { return Ok(()) };
        let mut writer = stage.lock_writer();
        self.check()?;
        let end = stage.take(&mut writer);
        self.write_taken(&mut writer, end)
    }

    /// Waits until `upto` is in the page cache and visible: it then survives `kill -9`, but no power cut. Costs nothing
    /// with the mapped body, one write with the staged one.
    ///
    /// # Errors
    /// [`Error::Poisoned`].
    pub fn wait_written(&self, upto: PhysicalOffset) -> Result<()> {
        if self.max_offset() >= upto {
            return Ok(());
        }
        self.write_out()?;
        // Nobody waits for the disk, but consumers wait for what is durable.
        self.call_flusher();
        Ok(())
    }
}
