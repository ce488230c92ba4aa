//! A commit-log store that keeps messages the way Apache RocketMQ does, byte for byte.

pub mod format;

mod clock;
mod commit_log;
mod config;
mod consume_queue;
mod error;
mod index;
mod message;
mod recovery;
mod reput;
mod retention;
mod segment;
mod stats;
mod store;
mod types;
pub mod vfs;

#[cfg(feature = "broker")]
pub mod broker;
#[cfg(feature = "broker")]
pub mod namesrv;
#[cfg(feature = "broker")]
pub mod remoting;

pub use clock::{Clock, ManualClock, SystemClock};
pub use config::{Config, DELAY_LEVELS, FlushDiskType, parse_properties};
pub use error::{Corruption, Error, Result};
pub use types::{
    PhysicalOffset, QueueId, QueueOffset, StoreTimestamp, SysFlag, TagsCode, TopicName, TransactionType,
};
