//! Stand-in for the store's API until it is there.
#![allow(missing_docs, clippy::unimplemented, unused)]

use std::sync::Arc;

use crate::{Clock, Config, QueueOffset, Result, StoreTimestamp, vfs::Vfs};

#[derive(Clone, Debug)]
pub struct Store(());
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue(());

impl Store {
    pub fn open_with(_: Config, _: Arc<dyn Vfs>, _: Arc<dyn Clock>) -> Result<Self> {
        unimplemented!()
    }
    pub fn find_queue(&self, _topic: &str, _id: i32) -> Option<Queue> {
        unimplemented!()
    }
    pub fn min_offset(&self, _: Queue) -> QueueOffset {
        unimplemented!()
    }
    pub fn max_offset(&self, _: Queue) -> QueueOffset {
        unimplemented!()
    }
    pub fn delete_topic(&self, _topic: &str) -> Result<()> {
        unimplemented!()
    }
    pub fn close(&self) -> Result<()> {
        unimplemented!()
    }
}
