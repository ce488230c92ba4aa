//! Whether an IndexFile is what a writer leaves, and how to make it so again.
//!
//! The entries are the truth: slots, chains and header follow from them. An entry is good when its chain link is what
//! the entries before it make it and its record does not lie before theirs.

use super::file::{IndexFile, i32_of};
use crate::{
    error::Result,
    format::index::ENTRY,
    types::{PhysicalOffset, StoreTimestamp},
};

/// What [`super::IndexSet::check`] says of a file.
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

/// What the slots must hold after the good entries.
struct Chains {
    slots: Vec<u32>,
    used: u32,
    /// The number behind the last good entry.
    end: u32,
}

impl IndexFile {
    fn chains(&self) -> Chains {
        let mut slots = vec![0; usize::try_from(self.geometry.slots).unwrap_or(0)];
        let (mut used, mut number, mut before) = (0, 1, PhysicalOffset(i64::MIN));
        while let Some(entry) = self.entry(number) {
            let slot = usize::try_from(self.geometry.slot_of(entry.key_hash)).unwrap_or(0);
            let Some(newest) = slots.get_mut(slot) else { break };
            let good = entry.key_hash >= 0
                && entry.time_diff >= 0
                && (entry.time_diff == 0 || self.header.begin_timestamp > StoreTimestamp::ZERO)
                && entry.offset.0 >= 0
                && entry.offset >= before
                && entry.previous == i32_of(*newest);
            if !good {
                break;
            }
            used += u32::from(*newest == 0);
            *newest = number;
            before = entry.offset;
            number += 1;
        }
        Chains { slots, used, end: number }
    }

    /// Reads the whole file and says whether it is sound.
    pub(super) fn check(&self) -> Soundness {
        let Some(table) = &self.table else { return Soundness::Unusable };
        let chains = self.chains();
        if chains.end < self.header.index_count {
            return Soundness::Entries { first: chains.end };
        }
        let header = &self.header;
        let ends = match (self.entry(1), self.entry(self.entries())) {
            (Some(first), Some(last)) => {
                first.offset == header.begin_offset
                    && last.offset == header.end_offset
                    && self.time_diff(header.end_timestamp) == last.time_diff
            }
            _ => true,
        };
        let slots = || {
            (0..self.geometry.slots)
                .zip(&chains.slots)
                .all(|(i, n)| table.get_u32(self.geometry.slot_at(i)) == *n)
        };
        if ends && header.slot_count == chains.used && slots() { Soundness::Sound } else { Soundness::Slots }
    }

    /// Cuts what is not good and makes slots and header follow from the rest.
    pub(super) fn repair(&mut self) -> Result<()> {
        let Some(table) = self.table.clone() else { return Ok(()) };
        self.claim()?;
        self.dirty = true;
        let chains = self.chains();
        for number in chains.end..self.header.index_count {
            table.put(self.geometry.entry_at(number), &[0; ENTRY])?;
        }
        self.header.index_count = chains.end;
        self.header.slot_count = chains.used;
        for (i, newest) in (0..self.geometry.slots).zip(&chains.slots) {
            let at = self.geometry.slot_at(i);
            // Only what differs, so that a sparse file stays sparse.
            if table.get_u32(at) != *newest {
                table.put_u32(at, *newest)?;
            }
        }
        if let Some(first) = self.entry(1) {
            self.header.begin_offset = first.offset;
        }
        self.end_at_last_entry()
    }
}
