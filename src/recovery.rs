//! stub
use crate::{
    clock::Clock, commit_log::*, config::Config, consume_queue::QueueTable, deleted::DeletedTopics,
    error::Result, format::checkpoint::Checkpoint, index::IndexSet, types::*,
};
use std::sync::Arc;
/// r
#[derive(Debug, Clone, Default)]
pub struct RecoveryReport;
pub(crate) struct Found {
    pub log: Loaded,
    pub table: QueueTable,
    pub index: IndexSet,
    pub checkpoint: Checkpoint,
    pub aborted: bool,
}
pub(crate) struct Recovered {
    pub log: Arc<CommitLog>,
    pub appender: Appender,
    pub table: QueueTable,
    pub index: IndexSet,
    pub last_record: (PhysicalOffset, StoreTimestamp),
    pub report: RecoveryReport,
}
pub(crate) fn recover(_c: &Config, _k: &Arc<dyn Clock>, _d: &DeletedTopics, _f: Found) -> Result<Recovered> {
    todo!()
}
