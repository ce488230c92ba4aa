//! The index: from the hash of a message's key to its place in the log.
//!
//! Owns `index/`. FORMAT.md, "IndexFile", has the bytes. The dispatcher puts, queries walk, recovery checks and cuts,
//! retention drops old files.
//!
//! Invariants:
//! - entries stand in the order of the log, and the files in the order of their names: all keys of a record are put
//!   before any of the next, so "what is missing" is always "everything from some record on";
//! - space is reserved before it is stored into: the slots with the file, the entries in steps, so a full disk is an
//!   error of [`IndexSet::put`] and never a signal, and 420 MB files do not take 420 MB;
//! - an entry is stored before the slot that leads to it, the slot before the count: a process that is killed leaves
//!   a file that reads well.

mod check;
mod file;
mod set;

use std::path::PathBuf;

use crate::types::{PhysicalOffset, StoreTimestamp};

pub(crate) use check::Soundness;
pub(crate) use set::IndexSet;

/// One key of one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyPut {
    /// `format::hash::index_key_hash` of it.
    pub hash: i32,
    /// Where the record lies.
    pub offset: PhysicalOffset,
    /// When it was stored.
    pub store_timestamp: StoreTimestamp,
}

/// What a query found: RocketMQ's raw answer, where the hash alone decides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IndexHits {
    /// Records, newest first.
    pub offsets: Vec<PhysicalOffset>,
    /// endTimestamp of the newest file; 0 when nothing was found.
    pub last_update_timestamp: StoreTimestamp,
    /// endPhyOffset of the newest file; 0 when nothing was found.
    pub last_update_offset: PhysicalOffset,
}

/// One file as its header tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexFileInfo {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// Bytes.
    pub file_size: u64,
    /// beginTimestamp.
    pub begin_timestamp: StoreTimestamp,
    /// endTimestamp.
    pub end_timestamp: StoreTimestamp,
    /// beginPhyOffset.
    pub begin_offset: PhysicalOffset,
    /// endPhyOffset.
    pub end_offset: PhysicalOffset,
    /// hashSlotCount.
    pub slot_count: u32,
    /// indexCount: the entries and one.
    pub index_count: u32,
}

#[cfg(test)]
mod tests;
