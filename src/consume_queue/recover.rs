//! Where a queue ends and begins: found on open, moved when the log is cut or its oldest segments go.

use std::path::PathBuf;

use super::{
    Queue, QueueKind,
    files::len,
    queue::State,
    unit::{MAX_WIDTH, Unit},
};
use crate::{
    error::Result,
    format::consume_queue::ext_position,
    types::{PhysicalOffset, QueueOffset, TagsCode},
};

/// RocketMQ trusts what lies before the third file from the end.
const FILES_READ: usize = 3;
/// Entries copied out of a file at once.
const STEP: usize = 128;

impl State {
    /// Whether the entry is one of a record at `min` or behind.
    fn lives(&self, number: u64, min: PhysicalOffset) -> Result<bool> {
        let unit = self.unit(number)?;
        Ok(!unit.is_filler() && unit.offset >= min)
    }

    /// The number behind the valid entries that begin at `from`, within one file that ends at `to`.
    fn valid_end(&self, from: u64, to: u64) -> Result<u64> {
        let width = len(self.width());
        let mut bytes = [0; STEP * MAX_WIDTH];
        let mut number = from;
        while number < to {
            let bytes = &mut bytes[..len(to - number).min(STEP) * width];
            self.run.read(number * self.width(), bytes)?;
            for unit in bytes.chunks_exact(width) {
                if !Unit::decode(self.kind, number, unit).is_valid() {
                    return Ok(number);
                }
                number += 1;
            }
        }
        Ok(number)
    }

    /// The tags code of the last entry that points at an ext unit.
    fn last_address(&self) -> Result<Option<TagsCode>> {
        // An entry without an address among ones with is rare: its unit was too long.
        for number in (self.first()..self.end()).rev().take(STEP) {
            let code = self.unit(number)?.tags_code;
            if ext_position(code).is_some() {
                return Ok(Some(code));
            }
        }
        Ok(None)
    }

    fn cut_to(&mut self, end: u64) -> Result<()> {
        let width = self.width();
        self.run.truncate(end * width)?;
        self.find_last()?;
        self.min = self.min.min(self.end()).max(self.first());
        if self.ext.is_some() {
            let last = self.last_address()?;
            if let Some(ext) = &mut self.ext {
                ext.truncate(last)?;
            }
        }
        Ok(())
    }

    /// The first entry that lives; the end when none does.
    fn first_alive(&self, min: PhysicalOffset) -> Result<u64> {
        let width = self.width();
        for file in self.run.file_ranges() {
            let (mut low, mut high) = (file.start / width, file.end / width);
            if high == low || !self.lives(high - 1, min)? {
                continue;
            }
            while low < high {
                let middle = low + (high - low) / 2;
                if self.lives(middle, min)? {
                    high = middle;
                } else {
                    low = middle + 1;
                }
            }
            return Ok(low);
        }
        Ok(self.end())
    }
}

impl Queue {
    /// Finds where the valid entries end, from the third file before the end on, drops what lies behind and zeroes
    /// it on disk.
    ///
    /// Says which files were too short and have been filled up with zeros.
    pub(crate) fn recover(&self) -> Result<Vec<(PathBuf, u64)>> {
        let mut state = self.lock();
        let mut short = state.run.fill_up()?;
        if let Some(ext) = &mut state.ext {
            short.append(&mut ext.run.fill_up()?);
        }
        let width = state.width();
        let files: Vec<_> = state.run.file_ranges().collect();
        let skip = files.len().saturating_sub(FILES_READ);
        let mut end = files.get(skip).map_or(state.first(), |file| file.start / width);
        for file in &files[skip..] {
            let to = file.end / width;
            end = state.valid_end(file.start / width, to)?;
            if end < to {
                break;
            }
        }
        state.run.recovered(end * width)?;
        state.find_last()?;
        if state.ext.is_some() {
            let last = state.last_address()?;
            if let Some(ext) = &mut state.ext {
                ext.recover(last)?;
            }
        }
        state.min = state.first_alive(PhysicalOffset::ZERO)?;
        self.publish(&state)?;
        drop(state);
        self.enlist_unsynced();
        Ok(short)
    }

    /// Writes the entries of records at `from` and behind again, and what was cut behind them: a sync may have failed,
    /// after which the system calls pages clean that the disk has not got.
    pub(crate) fn rewrite_from(&self, from: PhysicalOffset) -> Result<()> {
        let mut state = self.lock();
        let first = state.first_alive(from)?;
        if first < state.end() {
            let place = first * state.width();
            state.run.rewrite_from(place)?;
            drop(state);
            self.enlist_unsynced();
        }
        Ok(())
    }

    /// The files of the queue that are not full, and from which byte on nothing is written in each.
    pub(crate) fn unwritten(&self) -> Vec<(PathBuf, u64)> {
        let state = self.lock();
        let ext = state.ext.as_ref().and_then(|ext| ext.run.unwritten());
        state.run.unwritten().into_iter().chain(ext).collect()
    }

    /// Drops the entries from `end` on.
    pub(crate) fn truncate_to(&self, end: QueueOffset) -> Result<()> {
        let mut state = self.lock();
        let keep = match state.kind {
            QueueKind::Simple => u64::try_from(end.0).unwrap_or(0),
            QueueKind::Batch => {
                let mut keep = state.end();
                while keep > state.first() && state.unit(keep - 1)?.base >= end {
                    keep -= 1;
                }
                keep
            }
        };
        let keep = keep.max(state.first());
        self.cut_to(&mut state, keep)
    }

    fn cut_to(&self, state: &mut State, keep: u64) -> Result<()> {
        if keep >= state.end() {
            return Ok(());
        }
        self.change(state, |state| state.cut_to(keep))?;
        self.publish(state)?;
        self.enlist_unsynced();
        Ok(())
    }

    /// Forgets every entry; the next append may start anywhere.
    pub(crate) fn clear(&self) -> Result<()> {
        let mut state = self.lock();
        self.change(&mut state, |state| {
            state.run.restart(0)?;
            state.ext.as_mut().map_or(Ok(()), |ext| ext.run.restart(0))?;
            state.min = 0;
            state.last = None;
            Ok(())
        })?;
        self.publish(&state)?;
        drop(state);
        self.enlist_unsynced();
        Ok(())
    }

    /// Removes at most `at_most` files, never the last, whose entries all lie below `min_physical`; says how many.
    pub(crate) fn delete_before(&self, min_physical: PhysicalOffset, at_most: usize) -> Result<usize> {
        let mut state = self.lock();
        let mut removed = 0;
        while removed < at_most && state.run.file_count() > 1 {
            let next = state.run.file_end(state.run.first()) / state.width();
            if next >= state.end() || state.unit(next - 1)?.offset >= min_physical {
                break;
            }
            state.min = state.min.max(next);
            state.run.remove_first()?;
            removed += 1;
        }
        if removed > 0 {
            self.publish(&state)?;
            drop(state);
            self.enlist_unsynced();
        }
        Ok(removed)
    }

    /// Moves the minimum offset to the first entry at or above `min_physical`.
    pub(crate) fn correct_min_offset(&self, min_physical: PhysicalOffset) -> Result<()> {
        let mut state = self.lock();
        state.min = state.first_alive(min_physical)?;
        if state.ext.is_some() && state.min < state.end() {
            let first = state.unit(state.min)?.tags_code;
            if let Some(ext) = &mut state.ext {
                ext.delete_before(first)?;
            }
        }
        self.publish(&state)
    }
}
