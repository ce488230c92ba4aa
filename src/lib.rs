//! A commit-log store that keeps messages the way Apache RocketMQ does, byte for byte.

pub mod format;

mod clock;
mod commit_log;
mod config;
mod consume_queue;
mod deleted;
mod dispatch;
pub mod dump;
mod error;
mod filter;
mod index;
mod message;
mod recovery;
mod reput;
mod retention;
mod segment;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
pub mod sql92;
mod stats;
mod store;
mod types;
pub mod verify;
pub mod vfs;

#[cfg(test)]
#[path = "../tests/support/archive.rs"]
mod golden_stores;

#[cfg(feature = "broker")]
pub mod broker;
#[cfg(feature = "broker")]
pub mod namesrv;
#[cfg(feature = "broker")]
pub mod remoting;

pub use clock::{Clock, ManualClock, SystemClock};
pub use config::{Config, DELAY_LEVELS, FlushDiskType, parse_properties};
pub use consume_queue::{Boundary, CqUnit, ExtUnit};
pub use error::{Corruption, Error, Result};
pub use filter::{Filter, SqlFilter, TagFilter};
pub use index::{IndexFileInfo, IndexHits};
pub use message::{GetStatus, Message, PutStatus, Queue, RawMessage, StoredMessage};
pub use recovery::{DamagedRange, FileRepair, IndexRepairs, QueueRepairs, RecoveryReport};
pub use reput::{Arrival, ArrivalListener, BitmapMaker};
pub use retention::{Condemned, RetentionPlan, RetentionReason};
pub use segment::Lease;
pub use stats::StatsSnapshot;
pub use store::{Appended, GetRequest, GetResult, Query, Steps, Store, StoreStatus};
pub use types::{
    PhysicalOffset, QueueId, QueueOffset, StoreTimestamp, SysFlag, TagsCode, TopicName, TransactionType,
};

/// The README's example, compiled with the other examples in comments.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
