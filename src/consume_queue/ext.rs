//! ConsumeQueueExt: what does not fit into an entry.

use crate::types::{StoreTimestamp, TagsCode};

/// What ConsumeQueueExt adds to an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtUnit {
    /// The tag hash.
    pub tags_code: TagsCode,
    /// When the message was stored.
    pub store_timestamp: StoreTimestamp,
    /// The filter bitmap; absent when none was computed.
    pub bitmap: Option<Box<[u8]>>,
}
