//! The words of the store as types: offsets, identifiers and times that cannot be mistaken for one another.
//!
//! Each wraps the integer that RocketMQ writes, so no conversion stands between a value and its bytes.
//! None of them is checked on construction except [`TopicName`], which may become a directory name.

use std::fmt;

use crate::error::{Error, Result};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl $name {
            /// Zero.
            pub const ZERO: Self = Self(0);

            /// The integer that RocketMQ writes.
            #[must_use]
            pub const fn get(self) -> $inner {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl From<$inner> for $name {
            fn from(value: $inner) -> Self {
                Self(value)
            }
        }
    };
}

number! {
    /// Where a byte lies in the CommitLog, counted from the first byte ever written. Never reused.
    PhysicalOffset(i64)
}
number! {
    /// The number of a message in its queue, from 0.
    QueueOffset(i64)
}
number! {
    /// The number of a queue in its topic, from 0.
    QueueId(i32)
}
number! {
    /// What a ConsumeQueue entry carries to filter by: the hash of the tags, a due time, or an address in a
    /// ConsumeQueueExt file.
    TagsCode(i64)
}
number! {
    /// Milliseconds since 1970-01-01 UTC, as taken when the message was stored.
    StoreTimestamp(i64)
}

impl PhysicalOffset {
    /// This offset moved `len` bytes on.
    #[must_use]
    pub const fn plus(self, len: usize) -> Self {
        Self(self.0.saturating_add(len as i64))
    }

    /// Bytes from `earlier` to this offset; 0 when `earlier` lies behind it.
    #[must_use]
    pub fn since(self, earlier: Self) -> u64 {
        u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0)
    }
}

impl QueueOffset {
    /// This offset moved `count` messages on.
    #[must_use]
    pub const fn plus(self, count: i64) -> Self {
        Self(self.0.saturating_add(count))
    }
}

/// The bits that the store and the broker keep about a message. FORMAT.md, "CommitLog record", lists them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SysFlag(pub i32);

/// What part a message plays in a transaction: bits 2 and 3 of [`SysFlag`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TransactionType {
    /// An ordinary message.
    None,
    /// Prepared: in the log, in no queue.
    Prepared,
    /// Committed: an ordinary message that once was prepared.
    Commit,
    /// Rolled back: in the log, in no queue and no index.
    Rollback,
}

impl SysFlag {
    /// The body is compressed.
    pub const COMPRESSED: i32 = 1;
    /// The TAGS property holds several tags.
    pub const MULTI_TAGS: i32 = 1 << 1;
    /// A prepared transaction message.
    pub const TRANSACTION_PREPARED: i32 = 1 << 2;
    /// A committed transaction message.
    pub const TRANSACTION_COMMIT: i32 = 2 << 2;
    /// A rolled-back transaction message; also the mask of both transaction bits.
    pub const TRANSACTION_ROLLBACK: i32 = 3 << 2;
    /// The born host is an IPv6 address.
    pub const BORN_HOST_V6: i32 = 1 << 4;
    /// The store host is an IPv6 address.
    pub const STORE_HOST_V6: i32 = 1 << 5;
    /// The body holds several messages that the client unpacks.
    pub const NEED_UNWRAP: i32 = 1 << 6;
    /// The body is an inner batch.
    pub const INNER_BATCH: i32 = 1 << 7;

    /// Whether every bit of `bits` is set.
    #[must_use]
    pub const fn has(self, bits: i32) -> bool {
        self.0 & bits == bits
    }

    /// These flags with `bits` set or cleared.
    #[must_use]
    pub const fn with(self, bits: i32, on: bool) -> Self {
        Self(if on { self.0 | bits } else { self.0 & !bits })
    }

    /// Whether this is a message of its own, outside of any transaction.
    #[inline]
    pub(crate) const fn is_plain(self) -> bool {
        self.0 & (Self::TRANSACTION_ROLLBACK | Self::INNER_BATCH) == 0
    }

    /// The transaction bits.
    #[inline]
    #[must_use]
    pub const fn transaction(self) -> TransactionType {
        match self.0 & Self::TRANSACTION_ROLLBACK {
            0 => TransactionType::None,
            Self::TRANSACTION_PREPARED => TransactionType::Prepared,
            Self::TRANSACTION_COMMIT => TransactionType::Commit,
            _ => TransactionType::Rollback,
        }
    }
}

/// A topic name that is safe to use as one directory name.
///
/// 1 to 255 bytes of UTF-8 without `/`, `\` or control characters, and neither `.` nor `..`. The broker is
/// stricter; this is what the store itself needs, for topics also come from records on disk.
///
/// ```
/// use reput::TopicName;
/// assert!(TopicName::new("%RETRY%billing").is_ok());
/// assert!(TopicName::new("../etc").is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName(std::sync::Arc<str>);

impl TopicName {
    /// The longest name in bytes.
    pub const MAX_LEN: usize = 255;

    /// Checks `name` and keeps it.
    ///
    /// # Errors
    /// [`Error::InvalidTopic`] when the name could not be one directory name.
    pub fn new(name: &str) -> Result<Self> {
        if Self::is_valid(name) {
            Ok(Self(name.into()))
        } else {
            Err(Error::InvalidTopic { topic: name.chars().take(300).collect() })
        }
    }

    /// Whether `name` may be a topic name.
    #[must_use]
    pub fn is_valid(name: &str) -> bool {
        !name.is_empty()
            && name.len() <= Self::MAX_LEN
            && name != "."
            && name != ".."
            && !name.chars().any(|c| c == '/' || c == '\\' || c.is_control())
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::ops::Deref for TopicName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for TopicName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a file system says of a file that no write leaves as it is: the same stamp later says that nobody wrote to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStamp {
    /// Its number on the file system; a copy has another.
    pub inode: u64,
    /// Bytes.
    pub len: u64,
    /// When content or attributes last changed, ns since 1970 or in steps of the file system's own. Cannot be set.
    pub changed: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_name_cannot_leave_its_directory() {
        for bad in ["", ".", "..", "a/b", "../x", "a\\b", "a\0b", "a\nb", &"x".repeat(256)] {
            assert!(TopicName::new(bad).is_err(), "{bad:?}");
        }
        for good in ["a", "%RETRY%g", "RMQ_SYS_TRANS_HALF_TOPIC", "a.b", "üñ", &"x".repeat(255)] {
            assert_eq!(TopicName::new(good).unwrap().as_str(), good);
        }
    }

    #[test]
    fn transaction_bits_read_as_rocketmq_writes_them() {
        assert_eq!(SysFlag(0x4).transaction(), TransactionType::Prepared);
        assert_eq!(SysFlag(0x8 | 1).transaction(), TransactionType::Commit);
        assert_eq!(SysFlag(0xC).transaction(), TransactionType::Rollback);
        assert_eq!(SysFlag(0x300 | 1).transaction(), TransactionType::None);
    }
}
