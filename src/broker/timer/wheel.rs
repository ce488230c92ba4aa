//! The wheel: `timerwheel`, one slot for each unit of time in a round of fourteen days, which leads to the units of the
//! timer log that are due then.
//!
//! Invariant: a slot means something only when it says the very time that is asked for, so slots of a round that is
//! over need no clearing. All of it follows from the timer log, and is made again from there when it does not agree.

use std::{collections::HashMap, path::Path};

use super::format::{SLOT, SLOTS, Slot};
use crate::{
    error::{Error, Result},
    segment::SlotTable,
    vfs::{Reserve, Vfs},
};

#[derive(Debug)]
pub(super) struct Wheel {
    path: std::path::PathBuf,
    table: SlotTable,
    precision_ms: i64,
}

/// Bytes of the file.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a constant of 38,707,200
const LEN: usize = SLOTS as usize * SLOT;

impl Wheel {
    /// Opens the file, or makes it. One of another length is no wheel and is made anew: the timer log has all of it.
    pub(super) fn open(vfs: &dyn Vfs, path: &Path, precision_ms: i64) -> Result<Self> {
        let found = vfs.stat(path).map_err(Error::io("look at", path))?;
        let whole = found.as_ref().is_some_and(|file| usize::try_from(file.len) == Ok(LEN));
        if found.is_some() && !whole {
            tracing::warn!(file = %path.display(), "a timer wheel of another length is made anew");
            vfs.remove(path).map_err(Error::io("remove", path))?;
        }
        let backing = if whole { vfs.open(path) } else { vfs.create(path, LEN as u64, Reserve::None) };
        let table = SlotTable::new(backing.map_err(Error::io("open", path))?);
        Ok(Self { path: path.into(), table, precision_ms })
    }

    /// The number of the time that `due_ms` lies in.
    pub(super) const fn time(&self, due_ms: i64) -> i64 {
        due_ms.div_euclid(self.precision_ms)
    }

    fn place(time: i64) -> usize {
        usize::try_from(time.rem_euclid(SLOTS)).unwrap_or(0) * SLOT
    }

    /// What is due at `due_ms`.
    pub(super) fn get(&self, due_ms: i64) -> Option<Slot> {
        let time = self.time(due_ms);
        let slot = Slot::decode(&self.table.get(Self::place(time)));
        // A slot of zeros was never used; -1 is how RocketMQ says the same.
        (slot.time == time && slot.time > 0 && slot.last >= 0).then_some(slot)
    }

    /// Stores a slot. A full disk is an error here, never a signal.
    pub(super) fn put(&self, slot: &Slot) -> Result<()> {
        self.write(Self::place(slot.time), &slot.encode())
    }

    fn write(&self, at: usize, bytes: &[u8]) -> Result<()> {
        self.table.backing().write(at, bytes).map_err(Error::io("write", &self.path))
    }

    /// Brings every slot of a time from `from_ms` on to what `slots` say, which are all that there are. Says how many
    /// differed.
    pub(super) fn agree(&self, from_ms: i64, slots: &HashMap<i64, Slot>) -> Result<usize> {
        let from = self.time(from_ms);
        let mut changed = 0;
        let mut at = 0;
        while let Some(data) = self.table.backing().data_from(at) {
            let first = data.start / SLOT * SLOT;
            for place in (first..data.end.min(LEN)).step_by(SLOT) {
                let slot = Slot::decode(&self.table.get(place));
                if slot.time >= from && slot.time > 0 && slots.get(&slot.time) != Some(&slot) {
                    self.write(place, &[0; SLOT])?;
                    changed += 1;
                }
            }
            at = data.end.max(first + SLOT);
        }
        for slot in slots.values() {
            if self.get(slot.time * self.precision_ms) != Some(*slot) {
                self.put(slot)?;
                changed += 1;
            }
        }
        Ok(changed)
    }

    pub(super) fn sync(&self) -> Result<()> {
        self.table.backing().sync(0..LEN).map_err(Error::io("sync", &self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{broker::timer::format::Deed, vfs::OsVfs};

    #[test]
    fn a_slot_is_found_by_its_own_time_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("timerwheel");
        let wheel = Wheel::open(&OsVfs, &path, 1_000).unwrap();
        let slot = Slot::with(None, wheel.time(90_500), 52, Deed::default());
        wheel.put(&slot).unwrap();
        assert_eq!((wheel.get(90_000), wheel.get(90_999)), (Some(slot), Some(slot)));
        assert_eq!(wheel.get(91_000), None);
        assert_eq!(wheel.get(90_000 + SLOTS * 1_000), None, "a round later");
        drop(wheel);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 38_707_200);
        assert_eq!(Wheel::open(&OsVfs, &path, 1_000).unwrap().get(90_000), Some(slot));
        std::fs::write(&path, b"short").unwrap();
        assert_eq!(Wheel::open(&OsVfs, &path, 1_000).unwrap().get(90_000), None);
    }

    #[test]
    fn a_wheel_is_brought_to_what_the_log_says_from_a_time_on() {
        let dir = tempfile::tempdir().unwrap();
        let wheel = Wheel::open(&OsVfs, &dir.path().join("timerwheel"), 1_000).unwrap();
        let slot = |time, at| Slot::with(None, time, at, Deed::default());
        for old in [slot(50, 0), slot(100, 52), slot(101, 104)] {
            wheel.put(&old).unwrap();
        }
        let right = HashMap::from([(100, slot(100, 52)), (102, slot(102, 156))]);
        assert_eq!(wheel.agree(100_000, &right).unwrap(), 2);
        let seen = [50, 100, 101, 102].map(|time| wheel.get(time * 1_000).map(|slot| slot.first));
        assert_eq!(seen, [Some(0), Some(52), None, Some(156)]);
        assert_eq!(wheel.agree(100_000, &right).unwrap(), 0);
    }
}
