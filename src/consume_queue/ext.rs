//! ConsumeQueueExt: what does not fit into an entry, in files of its own.
//!
//! An entry's tags code is then the address of a unit here. Units do not cross files; one that does not fit leaves
//! a mark and goes to the next file. Written out before the entries that point here.

use std::{path::PathBuf, sync::Arc};

use super::{
    ExtUnit,
    files::{Run, len},
    mapping::Disk,
};
use crate::{
    error::Result,
    format::consume_queue::{EXT_END, EXT_FIXED, EXT_FULL, EXT_MAX, ext_address, ext_position},
    types::TagsCode,
    vfs::DirEntry,
};

/// The ext files of one queue.
#[derive(Debug)]
pub(super) struct Ext {
    pub run: Run,
}

impl Ext {
    /// The directory of all ext files, below the store's.
    pub const DIR: &str = "consumequeue_ext";
    pub const SIZE_KEY: &str = "mappedFileSizeConsumeQueueExt";

    /// The files that `listing` shows.
    pub(super) fn load(disk: Arc<Disk>, dir: PathBuf, file_size: u64, listing: &[DirEntry]) -> Result<Self> {
        Ok(Self { run: Run::load(disk, dir, file_size, Self::SIZE_KEY, listing)? })
    }

    /// Appends a unit and gives its address; `None` for one that no file can hold, whose entry then keeps the plain
    /// tags code.
    pub(super) fn put(&mut self, unit: &ExtUnit) -> Option<TagsCode> {
        let size = unit.size()?;
        let mut at = self.run.end();
        let mut room = len(self.run.file_end(at) - at);
        if size + EXT_END > room {
            let whole = len(self.run.file_end(0));
            if size + EXT_END > whole {
                return None;
            }
            // A file that ends exactly here was never begun: `room` is a whole file then.
            let mut rest = vec![0; room];
            rest[..EXT_FULL.len()].copy_from_slice(&EXT_FULL);
            self.run.push(&rest);
            at = self.run.end();
            room = whole;
        }
        debug_assert!(size + EXT_END <= room);
        let mut bytes = Vec::with_capacity(size);
        unit.encode(&mut bytes);
        self.run.push(&bytes);
        Some(ext_address(at))
    }

    /// The unit at an address; `None` when none is there.
    pub(super) fn get(&self, address: TagsCode) -> Result<Option<ExtUnit>> {
        let Some(at) = ext_position(address) else { return Ok(None) };
        let Some((size, _)) = self.size_at(at)? else { return Ok(None) };
        let mut bytes = vec![0; size];
        self.run.read(at, &mut bytes)?;
        Ok(ExtUnit::decode(&bytes).ok())
    }

    /// The size of the unit at `at` and where the next may stand.
    fn size_at(&self, at: u64) -> Result<Option<(usize, u64)>> {
        let end = self.run.end().min(self.run.file_end(at));
        if at < self.run.first() || at.saturating_add(EXT_FIXED as u64) > end {
            return Ok(None);
        }
        let mut head = [0; 2];
        self.run.read(at, &mut head)?;
        let size = ExtUnit::stated_size(&head).ok().filter(|size| *size <= EXT_MAX);
        Ok(size.map(|size| (size, at + size as u64)).filter(|(_, next)| *next <= end))
    }

    /// Finds where the units end. `last` is the address of the last one that an entry points at: what follows it
    /// belongs to nobody.
    pub(super) fn recover(&mut self, last: Option<TagsCode>) -> Result<()> {
        let last = last.and_then(ext_position);
        let mut end = self.run.first();
        let files: Vec<_> = self.run.file_ranges().collect();
        for file in files {
            let mut at = file.start;
            while let Some((_, next)) = self.size_at(at)? {
                if last.is_none_or(|last| at > last) {
                    break;
                }
                at = next;
                end = next;
            }
        }
        self.run.recovered(end)
    }

    /// Drops the units behind the one at `last`, all without one.
    pub(super) fn truncate(&mut self, last: Option<TagsCode>) -> Result<()> {
        let end = match last.and_then(ext_position) {
            Some(at) => self.size_at(at)?.map_or(at, |(_, next)| next),
            None => self.run.first(),
        };
        self.run.truncate(end)
    }

    /// Removes the files before the one that holds the unit at `first`.
    pub(super) fn delete_before(&mut self, first: TagsCode) -> Result<()> {
        let Some(at) = ext_position(first) else { return Ok(()) };
        while self.run.file_count() > 1 && self.run.file_end(self.run.first()) <= at {
            self.run.remove_first()?;
        }
        Ok(())
    }
}
