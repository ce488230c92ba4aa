//! The next file of a run, made ahead of its use.
//!
//! Reserving 1 GiB takes milliseconds, so a helper calls [`Allocator::prepare`] as soon as a file is taken into use;
//! [`Allocator::take`] then costs nothing. Without a helper, or when it was too slow or met a full disk, `take` makes
//! the file itself, so a put fails with [`Error::NoSpace`] while the disk is full and resumes by itself. At most one
//! file is ahead; a clean close removes it, a kill leaves it as zeros for recovery to remove.

use std::{io, path::PathBuf, sync::Arc};

use parking_lot::Mutex;

use super::segments::file_name;
use crate::{
    error::{Error, Result},
    types::PhysicalOffset,
    vfs::{Backing, Reserve, Vfs},
};

/// A file that is reserved, mapped, synced and named in its directory, and holds zeros.
#[derive(Debug)]
pub struct Prepared {
    /// Offset of its first byte.
    pub base: PhysicalOffset,
    /// The file.
    pub path: PathBuf,
    /// Its mapping.
    pub backing: Box<dyn Backing>,
}

#[derive(Debug, Default)]
struct Ahead {
    ready: Option<Prepared>,
    /// What was taken last. A helper that looked before the appender moved on asks for it once more.
    taken: Option<PhysicalOffset>,
    closed: bool,
}

/// Makes the files of one run.
#[derive(Debug)]
pub struct Allocator {
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    size: u64,
    /// Locked while a file is made, so a `take` waits for the helper instead of making the same file.
    ahead: Mutex<Ahead>,
}

impl Allocator {
    /// An allocator of files of `size` bytes in `dir`, with none ahead.
    #[must_use]
    pub fn new(vfs: Arc<dyn Vfs>, dir: PathBuf, size: u64) -> Self {
        Self { vfs, dir, size, ahead: Mutex::new(Ahead::default()) }
    }

    /// Has the file that starts at `base` ready, and its first `populate` bytes in memory. `Ok(true)` when this call
    /// made it.
    ///
    /// # Errors
    /// [`Error::NoSpace`], [`Error::Io`]; no file is left then.
    pub fn prepare(&self, base: PhysicalOffset, populate: usize) -> Result<bool> {
        let mut ahead = self.ahead.lock();
        if ahead.closed || ahead.taken.is_some_and(|taken| base <= taken) {
            return Ok(false);
        }
        let made = if ahead.ready.as_ref().is_some_and(|ready| ready.base == base) {
            false
        } else {
            self.discard(&mut ahead)?;
            ahead.ready = Some(self.make(base)?);
            true
        };
        if let Some(ready) = &ahead.ready
            && populate > 0
        {
            ready.backing.populate(0..populate.min(ready.backing.len()));
        }
        Ok(made)
    }

    /// The file that starts at `base`: the one made ahead, or made now.
    ///
    /// # Errors
    /// [`Error::NoSpace`], [`Error::Io`], [`Error::Closed`].
    pub fn take(&self, base: PhysicalOffset) -> Result<Prepared> {
        let mut ahead = self.ahead.lock();
        if ahead.closed {
            return Err(Error::Closed);
        }
        let prepared = match ahead.ready.take() {
            Some(ready) if ready.base == base => ready,
            other => {
                ahead.ready = other;
                self.discard(&mut ahead)?;
                self.make(base)?
            }
        };
        ahead.taken = Some(base);
        Ok(prepared)
    }

    /// Removes the file made ahead and makes no more.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn close(&self) -> Result<()> {
        let mut ahead = self.ahead.lock();
        ahead.closed = true;
        self.discard(&mut ahead)
    }

    fn discard(&self, ahead: &mut Ahead) -> Result<()> {
        if let Some(unused) = ahead.ready.take() {
            self.vfs.remove(&unused.path).map_err(Error::io("remove", &unused.path))?;
            self.vfs.sync_dir(&self.dir).map_err(Error::io("sync", &self.dir))?;
        }
        Ok(())
    }

    fn make(&self, base: PhysicalOffset) -> Result<Prepared> {
        let path = self.dir.join(file_name(base.0));
        let backing =
            self.vfs.create(&path, self.size, Reserve::All).map_err(|source| match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    Error::NoSpace { path: path.clone(), bytes: self.size }
                }
                _ => Error::Io { action: "create", path: path.clone(), source },
            })?;
        // The name and the length are durable before the first record in the file can be called so.
        let synced = backing
            .sync(0..backing.len())
            .map_err(Error::io("sync", &path))
            .and_then(|()| self.vfs.sync_dir(&self.dir).map_err(Error::io("sync", &self.dir)));
        if let Err(error) = synced {
            let _ = self.vfs.remove(&path);
            return Err(error);
        }
        Ok(Prepared { base, path, backing })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::OsVfs;

    fn names(dir: &tempfile::TempDir) -> Vec<String> {
        OsVfs.list(dir.path()).unwrap().into_iter().map(|entry| entry.name).collect()
    }

    /// The helper asks for the segment after the one it saw; meanwhile the appender may have taken just that.
    #[test]
    fn a_helper_that_comes_late_neither_fails_nor_makes_a_file_twice() {
        let dir = tempfile::tempdir().unwrap();
        let allocator = Allocator::new(Arc::new(OsVfs), dir.path().into(), 4096);
        let base = PhysicalOffset;
        assert!(allocator.prepare(base(4096), 4096).unwrap());
        assert!(!allocator.prepare(base(4096), 0).unwrap());
        assert_eq!(allocator.take(base(4096)).unwrap().base, base(4096));
        assert!(!allocator.prepare(base(4096), 0).unwrap());
        assert!(allocator.prepare(base(8192), 0).unwrap());
        assert!(!allocator.prepare(base(4096), 0).unwrap());
        assert_eq!(names(&dir), [file_name(4096), file_name(8192)]);
        allocator.close().unwrap();
        assert_eq!(names(&dir), [file_name(4096)]);
        assert!(!allocator.prepare(base(8192), 0).unwrap());
        assert!(matches!(allocator.take(base(8192)), Err(Error::Closed)));
    }

    #[test]
    fn a_file_made_for_another_place_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let allocator = Allocator::new(Arc::new(OsVfs), dir.path().into(), 4096);
        allocator.prepare(PhysicalOffset(4096), 0).unwrap();
        assert_eq!(allocator.take(PhysicalOffset(0)).unwrap().base, PhysicalOffset(0));
        assert_eq!(names(&dir), [file_name(0)]);
    }
}
