//! What can go wrong, with the file, the place and what to do about it.

use std::{io, path::PathBuf};

use crate::types::{PhysicalOffset, QueueId, StoreTimestamp};

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why bytes are not what the format promises. Returned by the decoders, which know bytes and no files;
/// whoever read the bytes adds the place ([`Error::Corrupt`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Corruption {
    /// Fewer bytes than the field or record needs.
    #[error("{what} needs {need} bytes, {have} are there")]
    Short {
        /// What was being read.
        what: &'static str,
        /// Bytes it takes.
        need: usize,
        /// Bytes that are left.
        have: usize,
    },
    /// A length that no valid value can have.
    #[error("{what} is {value}, outside {min}..={max}")]
    OutOfRange {
        /// The field.
        what: &'static str,
        /// What it holds.
        value: i64,
        /// The least legal value.
        min: i64,
        /// The greatest legal value.
        max: i64,
    },
    /// Not a record: the magic is neither a message's nor a blank's. Zero means that nothing was written here.
    #[error("magic {magic:#010x} is not a message's")]
    Magic {
        /// The four bytes read.
        magic: u32,
    },
    /// The parts do not add up to the stated size.
    #[error("the record states {stated} bytes, its fields add up to {sum}")]
    Size {
        /// totalSize.
        stated: usize,
        /// The sum of the fields.
        sum: usize,
    },
    /// A checksum differs.
    #[error("{what} checksum is {computed:#010x}, stored is {stored:#010x}")]
    Checksum {
        /// `body` or `record`.
        what: &'static str,
        /// What the record says.
        stored: u32,
        /// What the bytes come to.
        computed: u32,
    },
    /// The record was written for another place.
    #[error("the record belongs at {stated}, it stands at {actual}")]
    Misplaced {
        /// The physical offset in the record.
        stated: PhysicalOffset,
        /// Where it was found.
        actual: PhysicalOffset,
    },
    /// The record names a topic or queue, and the entry that leads to it stands in another one.
    #[error("the record at {at} names a queue that is not its own")]
    AnothersQueue {
        /// Where it stands.
        at: PhysicalOffset,
    },
    /// Text that is not UTF-8 or a name that cannot be one.
    #[error("{what} is not valid text")]
    Text {
        /// The field.
        what: &'static str,
    },
    /// A gap that recovery closed: what stood here is in `quarantine/`, if it was anything.
    #[error("{}, closed by an earlier recovery", if *.unwritten { "nothing was ever written here" } else { "damage" })]
    Gap {
        /// Nothing had been written there.
        unwritten: bool,
    },
}

/// An error of the store. Each names what failed, where, and what helps.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file operation failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb: `open`, `sync`, …
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The disk does not give bytes back that it was given. Nothing that can be read is lost: another try may succeed, and
    /// `reput store repair --apply` gives up what cannot be read and keeps the rest.
    #[error(
        "cannot read byte {at} of {}: {source}; check the disk, then try again or let `reput store repair --apply` give \
         up what cannot be read", path.display()
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The first such byte in it.
        at: u64,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// No space for a new file; nothing was written. Free space or move the store; puts resume by themselves.
    #[error("no space to reserve {bytes} bytes for {}: free some space on that file system", path.display())]
    NoSpace {
        /// The file that was to be made.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// Bytes on disk are not what the format promises.
    #[error("{} is damaged at byte {at}: {why}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// The byte in the file.
        at: u64,
        /// What is wrong there.
        why: Corruption,
    },
    /// A file has another size than the configuration says. Nothing was changed: open the store with the sizes it
    /// was written with.
    #[error("{} has {actual} bytes, the configuration says {expected} ({key}): open the store with the size it was written with", path.display())]
    FileSize {
        /// The file.
        path: PathBuf,
        /// Its size.
        actual: u64,
        /// The configured size.
        expected: u64,
        /// The configuration key of that size.
        key: &'static str,
    },
    /// Somebody cut a file while the store was open. Close the store and open it again: queues and index are made again
    /// from the log.
    #[error(
        "{} was cut from {expected} to {actual} bytes while the store was open: close it and open it again, which makes \
         the queues again from the log", path.display()
    )]
    CutShort {
        /// The file.
        path: PathBuf,
        /// Its size now.
        actual: u64,
        /// The size that it was made with.
        expected: u64,
    },
    /// A name in a store directory that cannot be what it should be.
    #[error("{} is not a {expected}: move it out of the store directory", path.display())]
    ForeignFile {
        /// The file.
        path: PathBuf,
        /// What should be there.
        expected: &'static str,
    },
    /// A segment of the log is missing between two others.
    #[error("the CommitLog in {} has no segment at {missing}: put the file back", dir.display())]
    MissingSegment {
        /// The commitlog directory.
        dir: PathBuf,
        /// Where the missing segment would start.
        missing: PhysicalOffset,
    },
    /// Another process has the store open.
    #[error("{} is locked: another process has this store open", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// An earlier sync failed, so nothing after it can be called durable. The store takes no more writes; close it,
    /// look at the disk and open it again.
    #[error(
        "the store takes no more writes since a sync failed at {at}: {why}; close it, check the disk, open it again"
    )]
    Poisoned {
        /// The offset up to which data was durable.
        at: PhysicalOffset,
        /// What the system said then.
        why: String,
    },
    /// The disk is fuller than `diskSpaceWarningLevelRatio`. Puts resume by themselves once there is room.
    #[error("the disk is {used_percent} % full, puts are refused above {limit_percent} %: free some space")]
    DiskFull {
        /// Percent of the partition in use.
        used_percent: u32,
        /// The limit.
        limit_percent: u32,
    },
    /// The store is closed or closing.
    #[error("the store is closed")]
    Closed,
    /// The store is read-only here.
    #[error("the store is open for reading only")]
    ReadOnly,
    /// A body larger than `maxMessageSize`.
    #[error("the body has {size} bytes, maxMessageSize is {limit}")]
    BodyTooLarge {
        /// Bytes of the body.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// Properties longer than a record can hold.
    #[error("the properties take {size} bytes, a record holds {limit}")]
    PropertiesTooLarge {
        /// Bytes of the encoded properties.
        size: usize,
        /// The limit, 32767.
        limit: usize,
    },
    /// A record or batch that would not fit into one segment or exceeds the record limit.
    #[error("the record takes {size} bytes, the limit is {limit}")]
    RecordTooLarge {
        /// Bytes of the record or batch.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// A message that may not be stored as it is.
    #[error("illegal message: {why}")]
    IllegalMessage {
        /// The reason.
        why: String,
    },
    /// A topic that cannot be a directory name.
    #[error("{topic:?} cannot be a topic: 1 to 255 bytes, no slash, backslash or control character")]
    InvalidTopic {
        /// The name, shortened.
        topic: String,
    },
    /// A queue that does not exist.
    #[error("no queue {queue_id} of topic {topic}")]
    NoSuchQueue {
        /// The topic.
        topic: String,
        /// The queue.
        queue_id: QueueId,
    },
    /// There are as many queues as this store can have; for `%LMQ%` queues `maxLmqConsumeQueueNum`.
    #[error("no more than {limit} queues of this kind can be made")]
    TooManyQueues {
        /// The limit.
        limit: usize,
    },
    /// A configuration value that cannot be used.
    #[error("{key}={value}: {why}")]
    Config {
        /// RocketMQ's key.
        key: String,
        /// What was given.
        value: String,
        /// What is wrong and what is allowed.
        why: String,
    },
    /// The time given cannot be.
    #[error("timestamp {0} is out of range")]
    Timestamp(StoreTimestamp),
}

impl Error {
    /// Wraps a system error with what was tried and where; out of space and lock conflicts keep their own variants
    /// at the call sites that know sizes.
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }

    /// Places a corruption in its file.
    pub(crate) fn corrupt(path: impl Into<PathBuf>, at: u64) -> impl FnOnce(Corruption) -> Self {
        let path = path.into();
        move |why| Self::Corrupt { path, at, why }
    }
}
