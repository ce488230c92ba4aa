//! Reading the log, and letting go of its oldest part.

use std::{path::PathBuf, sync::atomic::Ordering, time::SystemTime};

use super::CommitLog;
use crate::{
    error::{Error, Result},
    segment::Lease,
    types::PhysicalOffset,
};

/// What retention needs to know of a segment.
#[derive(Clone, Debug)]
pub struct SegmentInfo {
    /// Offset of its first byte.
    pub base: PhysicalOffset,
    /// The file.
    pub path: PathBuf,
    /// When the file was last written.
    pub modified: SystemTime,
    /// Bytes.
    pub len: u64,
}

impl CommitLog {
    /// Everything published from `at` to the end of its segment; `None` when that is nothing.
    #[must_use]
    pub fn lease_rest(&self, at: PhysicalOffset) -> Option<Lease> {
        self.segments.find(at)?.lease_rest(at)
    }

    /// Where the segment that holds `at` starts.
    #[must_use]
    pub fn segment_of(&self, at: PhysicalOffset) -> Option<PhysicalOffset> {
        self.segments.find(at).map(|segment| segment.base)
    }

    /// Where the segment after the one that holds `at` starts.
    #[must_use]
    pub fn next_segment(&self, at: PhysicalOffset) -> Option<PhysicalOffset> {
        self.segments.find(at).map(|segment| segment.end())
    }

    /// The segments, oldest first; the last is the one being written.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn segments_info(&self) -> Result<Vec<SegmentInfo>> {
        let mut infos = Vec::new();
        for segment in self.segments.all() {
            let stat = self.vfs.stat(&segment.path).map_err(Error::io("look at", &segment.path))?;
            // Gone from disk behind our back: as old as can be, so that it leaves the run, too.
            let modified = stat.map_or(SystemTime::UNIX_EPOCH, |entry| entry.modified);
            let len = segment.region.len() as u64;
            infos.push(SegmentInfo { base: segment.base, path: segment.path.clone(), modified, len });
        }
        Ok(infos)
    }

    /// Removes the oldest segment, never the last. Readers miss it at once; those who hold a part of it keep it, and its
    /// memory goes with the last of them. `None` when only one is left. Slow: the file system frees a gigabyte.
    ///
    /// # Errors
    /// [`Error::Io`]; the segment is then still there, or a power cut may bring it back. No other goes before that is
    /// settled: with a later one gone and an earlier one back the log would have a hole.
    pub fn remove_oldest(&self) -> Result<Option<SegmentInfo>> {
        if self.removal_is_unsynced.load(Ordering::Acquire) {
            self.sync_removal()?;
        }
        let Some(oldest) = self.segments.pop_oldest() else { return Ok(None) };
        let removed = self
            .vfs
            .stat(&oldest.path)
            .and_then(|stat| self.vfs.remove(&oldest.path).map(|()| stat))
            .map_err(Error::io("remove", &oldest.path));
        let stat = match removed {
            Ok(stat) => stat,
            Err(error) => {
                self.segments.put_back(oldest);
                return Err(error);
            }
        };
        self.removal_is_unsynced.store(true, Ordering::Release);
        self.sync_removal()?;
        Ok(Some(SegmentInfo {
            base: oldest.base,
            path: oldest.path.clone(),
            modified: stat.map_or(SystemTime::UNIX_EPOCH, |entry| entry.modified),
            len: oldest.region.len() as u64,
        }))
    }

    fn sync_removal(&self) -> Result<()> {
        self.vfs.sync_dir(&self.dir).map_err(Error::io("sync", &self.dir))?;
        self.removal_is_unsynced.store(false, Ordering::Release);
        Ok(())
    }
}
