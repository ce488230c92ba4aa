//! The CommitLog: appending, reading, flushing.
#![allow(clippy::todo, unused_variables, dead_code, missing_docs)]

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use crate::{
    clock::Clock,
    config::Config,
    error::{Error, Result},
    segment::{Lease, RecordSink},
    types::PhysicalOffset,
    vfs::{Advice, Vfs},
};

/// The log's files as found; nothing is changed yet and nothing can be appended.
#[derive(Debug)]
pub struct Loaded;

/// Finds and maps the files; checks names, sizes and that none is missing. Changes nothing.
pub fn load(vfs: Arc<dyn Vfs>, config: &Config) -> Result<Loaded> {
    todo!()
}

impl Loaded {
    /// Base offset and all bytes of each file, oldest first. The borrow ends before `recovered` may change them.
    pub fn segments(&self) -> impl DoubleEndedIterator<Item = (PhysicalOffset, &[u8])> + ExactSizeIterator {
        std::iter::empty()
    }
    /// Bytes from `at` to the end of its file.
    pub fn bytes_from(&self, at: PhysicalOffset) -> Option<&[u8]> {
        todo!()
    }
    pub fn segment_size(&self) -> usize {
        todo!()
    }
    pub fn is_empty(&self) -> bool {
        todo!()
    }
    pub fn first_offset(&self) -> Option<PhysicalOffset> {
        todo!()
    }
    /// End of the last file.
    pub fn end_of_files(&self) -> PhysicalOffset {
        todo!()
    }
    pub fn path_of(&self, at: PhysicalOffset) -> PathBuf {
        todo!()
    }
    /// How the next pass will read; a hint.
    pub fn advise(&self, advice: Advice) {
        todo!()
    }
    pub fn recovered(self, end: PhysicalOffset, clock: Arc<dyn Clock>) -> Result<(Arc<CommitLog>, Appender)> {
        todo!()
    }
}

#[derive(Debug)]
pub struct CommitLog;

#[derive(Clone, Debug)]
pub struct SegmentInfo {
    pub base: PhysicalOffset,
    pub path: PathBuf,
    pub modified: SystemTime,
    pub len: u64,
}

#[derive(Clone, Copy, Debug)]
pub struct FlushProgress {
    /// Everything below is durable.
    pub durable: PhysicalOffset,
    /// Whether this turn synced.
    pub synced: bool,
    /// Whether everything published when the turn began is durable now (RocketMQ's thorough flush): a checkpoint may say so.
    pub thorough: bool,
    /// How long to sleep (`flush_idle`) before the next turn.
    pub next: Duration,
}

impl CommitLog {
    /// Start of the oldest segment; -1 when there is none.
    pub fn min_offset(&self) -> PhysicalOffset {
        todo!()
    }
    pub fn max_offset(&self) -> PhysicalOffset {
        todo!()
    }
    pub fn durable_offset(&self) -> PhysicalOffset {
        todo!()
    }
    /// How far consumers may see: durable in SYNC_FLUSH, published in ASYNC_FLUSH.
    pub fn dispatch_limit(&self) -> PhysicalOffset {
        todo!()
    }
    pub fn segment_size(&self) -> usize {
        todo!()
    }
    pub fn lease(&self, at: PhysicalOffset, len: usize) -> Option<Lease> {
        todo!()
    }
    pub fn lease_rest(&self, at: PhysicalOffset) -> Option<Lease> {
        todo!()
    }
    pub fn poisoned(&self) -> Option<Error> {
        todo!()
    }
    pub fn wait_published(&self, beyond: PhysicalOffset, timeout: Duration) -> PhysicalOffset {
        todo!()
    }
    /// Sleeps until `dispatch_limit` is beyond `beyond`, `interrupt` or `timeout`; returns the limit.
    pub fn wait_dispatchable(&self, beyond: PhysicalOffset, timeout: Duration) -> PhysicalOffset {
        todo!()
    }
    pub fn wait_durable(&self, upto: PhysicalOffset, timeout: Duration) -> Result<bool> {
        todo!()
    }
    pub fn wait_written(&self, upto: PhysicalOffset) -> Result<()> {
        todo!()
    }
    pub fn on_durable(&self, upto: PhysicalOffset, f: Box<dyn FnOnce(Result<bool>) + Send>) {
        todo!()
    }
    pub fn flush_step(&self, now: Duration, force: bool) -> Result<FlushProgress> {
        todo!()
    }
    /// The flush thread sleeps here: until waiters queue, `interrupt` or `timeout`.
    pub fn flush_idle(&self, timeout: Duration) {
        todo!()
    }
    /// One turn of the preparing thread: next segment made, pages ahead of the writer populated. Errors (a full disk) are
    /// met again by the append that needs the segment.
    pub fn prepare_step(&self) -> Result<()> {
        todo!()
    }
    /// The preparing thread sleeps here.
    pub fn prepare_idle(&self, timeout: Duration) {
        todo!()
    }
    pub fn sync_to(&self, upto: PhysicalOffset) -> Result<()> {
        todo!()
    }
    /// Wakes every sleeper in `wait_published`, `wait_dispatchable`, `flush_idle`, `prepare_idle`.
    pub fn interrupt(&self) {
        todo!()
    }
    pub fn remove_oldest(&self) -> Result<Option<SegmentInfo>> {
        todo!()
    }
    pub fn segments_info(&self) -> Result<Vec<SegmentInfo>> {
        todo!()
    }
}

/// The writing end; owned by the store's put lock.
#[derive(Debug)]
pub struct Appender;

impl Appender {
    pub fn next_offset(&self) -> PhysicalOffset {
        todo!()
    }
    pub fn log(&self) -> &Arc<CommitLog> {
        todo!()
    }
    /// Where a record of `len` bytes would go: rolls if it has to, so that the next `append` of `len` lands here.
    pub fn make_room(&mut self, len: usize) -> Result<PhysicalOffset> {
        todo!()
    }
    pub fn append(
        &mut self,
        len: usize,
        encode: impl FnOnce(PhysicalOffset, &mut RecordSink<'_>),
    ) -> Result<PhysicalOffset> {
        todo!()
    }
    /// Syncs everything and removes the segment made ahead.
    pub fn close(self) -> Result<()> {
        todo!()
    }
}
