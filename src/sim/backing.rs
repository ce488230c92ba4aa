//! One opening of a file of a simulated disk: its mapping, and what is written through the file.

use std::{io, ops::Range, path::PathBuf, ptr::NonNull, sync::Arc};

use super::{
    disk::{SimDisk, State},
    faults::{Call, Failure},
    page::Memory,
};
use crate::vfs::{Advice, Backing};

/// One opening of a file; all openings share its memory.
#[derive(Debug)]
pub(super) struct SimBacking {
    pub(super) disk: SimDisk,
    pub(super) id: u64,
    pub(super) memory: Arc<Memory>,
    pub(super) len: usize,
}

impl SimBacking {
    fn name(&self) -> PathBuf {
        PathBuf::from(format!("#{}", self.id))
    }

    /// A write that nothing keeps from happening.
    fn put(&self, state: &mut State, at: usize, bytes: &[u8]) -> io::Result<()> {
        let now = self.disk.now();
        state.write(self.id, at, bytes, now)?;
        state.writes += 1;
        if state.write_stride > 0 && state.writes.is_multiple_of(state.write_stride) {
            state.point(Some(Call::Write), &self.name(), now);
        }
        Ok(())
    }
}

impl Backing for SimBacking {
    fn base(&self) -> NonNull<u8> {
        self.memory.base()
    }

    fn len(&self) -> usize {
        self.len
    }

    fn write(&self, at: usize, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.shared.state.lock();
        if let Err(failure) = state.faults.pass(Call::Write) {
            // Part of it is there.
            let there = state.faults.written(failure, bytes.len());
            state.write(self.id, at, &bytes[..there], self.disk.now())?;
            return Err(failure.error(Call::Write, &state.name_of(self.id), at));
        }
        self.put(&mut state, at, bytes)
    }

    fn rewrite(&self, range: Range<usize>) -> io::Result<()> {
        let mut state = self.disk.shared.state.lock();
        let failed = state.faults.pass(Call::Write);
        state.look_at(self.id, self.disk.now());
        let bytes = state.file(self.id)?.bytes(range.clone());
        if let Err(failure) = failed {
            // Those that were written are on their way to the disk once more.
            let there =
                if failure == Failure::Short { state.faults.written(failure, bytes.len()) } else { 0 };
            state.write(self.id, range.start, &bytes[..there], self.disk.now())?;
            return Err(failure.error(Call::Write, &state.name_of(self.id), range.start + there));
        }
        self.put(&mut state, range.start, &bytes)
    }

    fn sync(&self, range: Range<usize>) -> io::Result<()> {
        if range.start > range.end || range.end > self.len {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a range outside the file"));
        }
        let mut state = self.disk.shared.state.lock();
        let now = self.disk.now();
        state.point(Some(Call::Sync), &self.name(), now);
        state.look_at(self.id, now);
        let failed = state.faults.pass(Call::Sync);
        let file = state.file(self.id)?;
        match failed {
            Ok(()) => file.sync(&range),
            Err(_) => file.lose(&range),
        }
        failed.map_err(|failure| failure.error(Call::Sync, &state.name_of(self.id), range.start))
    }

    fn start_writeback(&self, _range: Range<usize>) {}

    fn populate(&self, _range: Range<usize>) {}

    fn reserve(&self, range: Range<usize>) -> io::Result<()> {
        let mut state = self.disk.shared.state.lock();
        let failed = state.faults.pass(Call::Reserve);
        failed.map_err(|failure| failure.error(Call::Reserve, &state.name_of(self.id), range.start))?;
        state.claim(self.id, &range)
    }

    fn data_from(&self, at: usize) -> Option<Range<usize>> {
        let mut state = self.disk.shared.state.lock();
        let now = self.disk.now();
        state.look_at(self.id, now);
        state.files.get(&self.id)?.data_from(at)
    }

    fn announce(&self, range: Range<usize>) {
        let mut state = self.disk.shared.state.lock();
        state.stores += 1;
        if state.store_stride > 0 && state.stores.is_multiple_of(state.store_stride) {
            let now = self.disk.now();
            state.point(None, &self.name(), now);
        }
        if let Some(file) = state.files.get_mut(&self.id) {
            file.announce(range);
        }
    }

    fn advise(&self, _advice: Advice) {}
}

impl Drop for SimBacking {
    fn drop(&mut self) {
        let mut state = self.disk.shared.state.lock();
        let now = self.disk.now();
        state.look_at(self.id, now);
        if let Some(file) = state.files.get_mut(&self.id) {
            file.unmap();
        }
    }
}
