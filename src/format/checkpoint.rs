//! The `checkpoint` file: six numbers of RocketMQ's and one of ours in 4096 bytes. FORMAT.md, "checkpoint".
//!
//! A hint, never a proof: recovery reads the log. Callers: the store at open, at flush and at close.

use super::i64_at;
use crate::types::{PhysicalOffset, StoreTimestamp};

/// Bytes of the file.
pub const SIZE: usize = 4096;
/// Where physicMsgTimestamp stands.
pub const PHYSIC_TIMESTAMP_AT: usize = 0;
/// Where logicsMsgTimestamp stands.
pub const LOGICS_TIMESTAMP_AT: usize = 8;
/// Where indexMsgTimestamp stands.
pub const INDEX_TIMESTAMP_AT: usize = 16;
/// Where masterFlushedOffset stands.
pub const MASTER_FLUSHED_OFFSET_AT: usize = 24;
/// Where confirmPhyOffset stands.
pub const CONFIRM_OFFSET_AT: usize = 32;
/// Where logicsPhysicalOffset stands.
pub const LOGICS_OFFSET_AT: usize = 40;

/// Where our own number stands: at the end, far from what RocketMQ may add.
pub const DURABLE_END_AT: usize = 4088;

/// How far each part of the store was flushed when the checkpoint was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// The store time of the last message flushed to the log.
    pub physic_timestamp: StoreTimestamp,
    /// The store time of the last message flushed to the ConsumeQueues.
    pub logics_timestamp: StoreTimestamp,
    /// The end time of the last full IndexFile flushed.
    pub index_timestamp: StoreTimestamp,
    /// How far a master has flushed; replication only.
    pub master_flushed_offset: PhysicalOffset,
    /// The start of the last valid record, as recovery found it.
    pub confirm_offset: PhysicalOffset,
    /// The start of the last record whose queue entry is flushed. New in 5.x: older files hold 0.
    pub logics_offset: PhysicalOffset,
    /// Everything below was on the disk. `None` in files that RocketMQ made.
    pub durable_end: Option<PhysicalOffset>,
}

impl Checkpoint {
    /// Reads a checkpoint; fields beyond the end of `bytes` are 0.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Self {
        let at = |at| i64_at(bytes, at, "checkpoint").unwrap_or(0);
        Self {
            physic_timestamp: StoreTimestamp(at(PHYSIC_TIMESTAMP_AT)),
            logics_timestamp: StoreTimestamp(at(LOGICS_TIMESTAMP_AT)),
            index_timestamp: StoreTimestamp(at(INDEX_TIMESTAMP_AT)),
            master_flushed_offset: PhysicalOffset(at(MASTER_FLUSHED_OFFSET_AT)),
            confirm_offset: PhysicalOffset(at(CONFIRM_OFFSET_AT)),
            logics_offset: PhysicalOffset(at(LOGICS_OFFSET_AT)),
            // One more than the offset, so that zeros say that nothing is known.
            durable_end: at(DURABLE_END_AT).checked_sub(1).filter(|end| *end >= 0).map(PhysicalOffset),
        }
    }

    /// The whole file.
    #[must_use]
    pub fn encode(&self) -> [u8; SIZE] {
        let mut bytes = [0; SIZE];
        for (at, value) in [
            (PHYSIC_TIMESTAMP_AT, self.physic_timestamp.0),
            (LOGICS_TIMESTAMP_AT, self.logics_timestamp.0),
            (INDEX_TIMESTAMP_AT, self.index_timestamp.0),
            (MASTER_FLUSHED_OFFSET_AT, self.master_flushed_offset.0),
            (CONFIRM_OFFSET_AT, self.confirm_offset.0),
            (LOGICS_OFFSET_AT, self.logics_offset.0),
            (DURABLE_END_AT, self.durable_end.map_or(0, |end| end.0.saturating_add(1))),
        ] {
            bytes[at..at + 8].copy_from_slice(&value.to_be_bytes());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_older_or_torn_checkpoint_reads_its_missing_fields_as_zero() {
        let full = Checkpoint {
            physic_timestamp: StoreTimestamp(1),
            logics_timestamp: StoreTimestamp(2),
            index_timestamp: StoreTimestamp(3),
            master_flushed_offset: PhysicalOffset(4),
            confirm_offset: PhysicalOffset(5),
            logics_offset: PhysicalOffset(6),
            durable_end: Some(PhysicalOffset(0)),
        };
        let bytes = full.encode();
        assert_eq!(Checkpoint::decode(&bytes[..47]).logics_offset, PhysicalOffset(0));
        assert_eq!(Checkpoint::decode(&bytes[..47]).confirm_offset, PhysicalOffset(5));
        assert_eq!(Checkpoint::decode(&[]), Checkpoint::default());
        assert_eq!(Checkpoint::decode(&bytes), full);
        assert_eq!(Checkpoint::decode(&bytes[..4095]).durable_end, None);
    }

    proptest! {
        #[test]
        fn a_checkpoint_comes_back_as_written(v: [i64; 6], end in proptest::option::of(0..i64::MAX - 1)) {
            let checkpoint = Checkpoint {
                physic_timestamp: v[0].into(), logics_timestamp: v[1].into(), index_timestamp: v[2].into(),
                master_flushed_offset: v[3].into(), confirm_offset: v[4].into(), logics_offset: v[5].into(),
                durable_end: end.map(PhysicalOffset),
            };
            prop_assert_eq!(Checkpoint::decode(&checkpoint.encode()), checkpoint);
        }
    }
}
