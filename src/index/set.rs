//! The files of the index as one.

use std::{path::PathBuf, sync::Arc};

use crate::{
    clock::Clock,
    config::Config,
    error::Result,
    types::{PhysicalOffset, StoreTimestamp},
    vfs::Vfs,
};

/// One key of one record. The keys of a record follow one another.
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
    /// endTimestamp of the newest file.
    pub last_update_timestamp: StoreTimestamp,
    /// endPhyOffset of the newest file.
    pub last_update_offset: PhysicalOffset,
}

/// One file as its header tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IndexFileInfo {
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

/// What [`IndexSet::check`] says of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Soundness {
    /// Header, slots and chains are what the entries make them.
    Sound,
    /// The entries from number `first` on are not what a writer leaves; those before are.
    Entries {
        /// The first bad entry.
        first: u32,
    },
    /// The entries are good, slots or header are not.
    Slots,
    /// The file has a wrong size or no usable header.
    Unusable,
}

/// All index files of a store.
#[derive(Debug)]
pub(crate) struct IndexSet {}

#[allow(unused_variables)]
impl IndexSet {
    /// Opens the files; changes nothing. One of a wrong size is kept out of queries and reported by
    /// [`IndexSet::check`].
    pub(crate) fn load(vfs: Arc<dyn Vfs>, config: &Config, clock: Arc<dyn Clock>) -> Result<Self> {
        todo!()
    }

    /// Takes keys in. Keys of records below the end of the index are skipped, and of the record at its end those
    /// that it has, so that the same records may be given again.
    pub(crate) fn put(&self, keys: &[KeyPut]) -> Result<()> {
        todo!()
    }

    /// RocketMQ's walk for the hash of `topic#key`, or of `topic#T#key` with index type `T`. `max` is capped by
    /// `maxMsgsNumBatch`.
    pub(crate) fn query(
        &self,
        topic: &str,
        key: &str,
        index_type: Option<&str>,
        max: usize,
        begin: StoreTimestamp,
        end: StoreTimestamp,
    ) -> IndexHits {
        todo!()
    }

    /// The files, oldest first.
    pub(crate) fn files(&self) -> Vec<IndexFileInfo> {
        todo!()
    }

    /// The entries of file `number` (oldest is 0), in the order they were put: hash, record, time.
    pub(crate) fn entries(&self, number: usize) -> Vec<KeyPut> {
        todo!()
    }

    /// The last record in the index.
    pub(crate) fn end_offset(&self) -> Option<PhysicalOffset> {
        todo!()
    }

    /// Reads a whole file and says whether it is sound.
    pub(crate) fn check(&self, number: usize) -> Result<Soundness> {
        todo!()
    }

    /// Brings a file to what its good entries say: cuts bad ones, rebuilds slots and header; removes it, and every
    /// later one, when nothing usable is left.
    pub(crate) fn repair(&self, number: usize) -> Result<()> {
        todo!()
    }

    /// Drops every entry of a record at or beyond `end`, and the files that are empty then.
    pub(crate) fn truncate_from(&self, end: PhysicalOffset) -> Result<()> {
        todo!()
    }

    /// Removes file `number` and every later one.
    pub(crate) fn remove_from(&self, number: usize) -> Result<()> {
        todo!()
    }

    /// Removes every file.
    pub(crate) fn remove_all(&self) -> Result<()> {
        todo!()
    }

    /// Removes files, never the newest, whose records all lie below `min`; says how many.
    pub(crate) fn delete_before(&self, min: PhysicalOffset) -> Result<usize> {
        todo!()
    }

    /// Syncs what is dirty: full files, and with `force` the newest too. Says the endTimestamp of the newest full
    /// file that is durable, for the checkpoint.
    pub(crate) fn flush(&self, force: bool) -> Result<Option<StoreTimestamp>> {
        todo!()
    }
}
