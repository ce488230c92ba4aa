//! All queues of a store.

use std::{sync::Arc, time::Duration};

use super::{Queue, QueueKind};
use crate::{
    config::Config,
    error::Result,
    types::{PhysicalOffset, QueueId, TopicName},
    vfs::Vfs,
};

/// What one turn of the queue flush did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct QueueFlush {
    /// Files synced.
    pub files: usize,
    /// Whether every entry that was there when the turn began is durable now: the checkpoint may say so.
    pub thorough: bool,
}

/// All queues of a store.
#[derive(Debug)]
pub(crate) struct QueueTable {}

#[allow(unused_variables)]
impl QueueTable {
    /// Lists the queues on disk; opens no file and changes nothing.
    pub(crate) fn load(vfs: Arc<dyn Vfs>, config: &Config) -> Result<Self> {
        todo!()
    }

    /// The queue, if it exists.
    pub(crate) fn get(&self, topic: &str, id: QueueId) -> Option<Arc<Queue>> {
        todo!()
    }

    /// The queue; made in memory when it does not exist. An existing one keeps its kind.
    pub(crate) fn get_or_create(&self, topic: &TopicName, id: QueueId, kind: QueueKind) -> Arc<Queue> {
        todo!()
    }

    /// Every queue, by topic and number.
    pub(crate) fn queues(&self) -> Vec<Arc<Queue>> {
        todo!()
    }

    /// Recovers every queue.
    pub(crate) fn recover(&self) -> Result<()> {
        todo!()
    }

    /// Removes a topic's queues with their files.
    pub(crate) fn remove_topic(&self, topic: &str) -> Result<()> {
        todo!()
    }

    /// Removes every queue with its files.
    pub(crate) fn remove_all(&self) -> Result<()> {
        todo!()
    }

    /// The greatest log offset that any queue reaches.
    pub(crate) fn max_physical(&self) -> PhysicalOffset {
        todo!()
    }

    /// Bytes of entries that wait in memory.
    pub(crate) fn pending_bytes(&self) -> usize {
        todo!()
    }

    /// Writes every waiting entry through its file.
    pub(crate) fn write_out(&self) -> Result<()> {
        todo!()
    }

    /// One turn of the flush thread at `now` (monotonic): writes out, and syncs what RocketMQ's timers say, or all
    /// with `force`.
    pub(crate) fn flush_step(&self, now: Duration, force: bool) -> Result<QueueFlush> {
        todo!()
    }
}
