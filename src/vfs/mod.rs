//! The one seam between the store and everything that can fail: files, directories, mappings, the lock, disk use.
//!
//! The store never calls `std::fs`, `libc` or `memmap2` outside this module. [`OsVfs`] is the real thing;
//! [`OverlayVfs`] opens a directory so that nothing written reaches it, which is how `dump` and dry runs work.
//! Both traits are crossed at create, open, group write, sync and remove only, never per record.

use std::{
    fmt, io,
    ops::Range,
    path::{Path, PathBuf},
    ptr::NonNull,
    time::SystemTime,
};

use crate::{
    error::{Error, Result},
    types::FileStamp,
};

mod changes;
#[cfg(test)]
pub(crate) mod faulty;
mod listing;
mod os;
mod overlay;
mod probe;
mod sigbus;

pub use changes::{Change, ChangeKind};
pub use os::{MappedFile, OsVfs, forget_cached, process_cpu_time, raise_open_files_limit};
pub(crate) use os::{coarse_millis, local_utc_offset, sleep_on, wake_all};
pub use overlay::OverlayVfs;
pub use sigbus::{SIGBUS_EXIT_CODE, exit_on_sigbus};

/// What [`Vfs::list`] says of one name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// The name without its directory; names that are not UTF-8 are replaced lossily.
    pub name: String,
    /// Bytes, for files.
    pub len: u64,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// When its content last changed.
    pub modified: SystemTime,
    /// Tells a file from what it is after a write; `None` where the file system keeps nothing of the kind.
    pub stamp: Option<FileStamp>,
}

/// Space on the partition that holds a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskUsage {
    /// Bytes in all.
    pub total: u64,
    /// Bytes free to this process.
    pub free: u64,
}

impl DiskUsage {
    /// Used share, 0.0 to 1.0, as RocketMQ computes it: (total - free) / total.
    #[must_use]
    pub fn used_ratio(self) -> f64 {
        if self.total == 0 { 0.0 } else { self.total.saturating_sub(self.free) as f64 / self.total as f64 }
    }
}

/// How much of a new file's space is claimed before it is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reserve {
    /// All of it: a later write cannot run out of space.
    All,
    /// None; the caller claims ranges with [`Backing::reserve`] before it stores into them, or writes only through
    /// [`Backing::write`].
    None,
}

/// What a mapping will be used for next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// Scattered small reads: no read-ahead.
    Random,
    /// One pass from front to back.
    Sequential,
    /// The system's default.
    Normal,
}

/// A file that is open and mapped for its whole length.
///
/// The mapping is shared and stays valid until the `Backing` is dropped, also after the file was removed.
/// [`Backing::write`] and stores into the mapping are coherent with each other.
pub trait Backing: Send + Sync + fmt::Debug {
    /// First byte of the mapping.
    fn base(&self) -> NonNull<u8>;
    /// Bytes mapped, the file's length.
    fn len(&self) -> usize;
    /// Whether the file has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Writes through the file. A full disk is an error here, never a signal.
    ///
    /// # Errors
    /// What the system says; part of the range may then hold the new bytes.
    fn write(&self, at: usize, bytes: &[u8]) -> io::Result<()>;
    /// Writes again what `range` holds, so that the next [`Backing::sync`] brings it to the disk even where the system
    /// believes that it is there: after a sync that failed, Linux calls the lost pages clean. Nobody may store into
    /// `range` meanwhile.
    ///
    /// # Errors
    /// What the system says; every byte is as before.
    fn rewrite(&self, range: Range<usize>) -> io::Result<()>;
    /// [`Backing::rewrite`] of all that was ever written from the page of `at` on.
    ///
    /// # Errors
    /// As [`Backing::rewrite`].
    fn rewrite_from(&self, at: usize) -> io::Result<()> {
        const PAGE: usize = 4096;
        let mut next = at / PAGE * PAGE;
        // All of it first: what is read ahead meanwhile passes for data, too, and the rest of the file would follow.
        let all = std::iter::from_fn(|| {
            let data = self.data_from(next)?;
            next = data.end;
            Some(data)
        });
        let all: Vec<_> = all.collect();
        all.into_iter().try_for_each(|data| self.rewrite(data))
    }
    /// Makes `range` durable, whether it was written through the file or the mapping. After an error nothing about
    /// the range is known any more: do not retry.
    ///
    /// # Errors
    /// What the system says.
    fn sync(&self, range: Range<usize>) -> io::Result<()>;
    /// Starts writing `range` back without waiting; a hint.
    fn start_writeback(&self, range: Range<usize>);
    /// Makes the pages of `range` present and writable, so that stores do not fault; a hint.
    fn populate(&self, range: Range<usize>);
    /// Claims disk space for `range`.
    ///
    /// # Errors
    /// What the system says, out of space above all; the file is as before, but for space claimed in part.
    fn reserve(&self, range: Range<usize>) -> io::Result<()>;
    /// The first range from `at` on that may hold anything but zeros; `None` when only zeros follow. Spares reading
    /// what was reserved and never written. The default knows nothing and names the whole rest.
    fn data_from(&self, at: usize) -> Option<Range<usize>> {
        (at < self.len()).then(|| at..self.len())
    }
    /// The first byte of `range` that cannot be read, and why: touching it in the mapping would end the process by a
    /// signal. May block for as long as the disk takes to read all of `range`. Memory can always be read.
    fn first_unreadable(&self, _range: Range<usize>) -> Option<(usize, io::Error)> {
        None
    }
    /// Says that `range` of the mapping is about to be stored into. Debug builds alone do; a simulated disk then finds
    /// stores that nobody told of. Real files do nothing.
    fn announce(&self, _range: Range<usize>) {}
    /// Says how the mapping will be read; a hint.
    fn advise(&self, advice: Advice);
}

/// Fails where `range` of the file `path` has bytes that cannot be read. Holes are not looked at.
pub(crate) fn check_readable(backing: &dyn Backing, path: &Path, range: Range<usize>) -> Result<()> {
    let mut next = range.start;
    while let Some(data) = backing.data_from(next).filter(|data| data.start < range.end) {
        next = data.end;
        if let Some((at, source)) = backing.first_unreadable(data.start..data.end.min(range.end)) {
            return Err(Error::Unreadable { path: path.to_path_buf(), at: at as u64, source });
        }
    }
    Ok(())
}

/// Adds to `found` the files `depth` levels below `dir` whose names are numbers, as those of a store are, with their
/// lengths. Other names are none of a store's and left alone.
pub(crate) fn numbered_files(
    vfs: &dyn Vfs,
    dir: &Path,
    depth: usize,
    found: &mut Vec<(PathBuf, u64)>,
) -> Result<()> {
    for DirEntry { name, len, is_dir, .. } in vfs.list(dir).map_err(Error::io("list", dir))? {
        let path = dir.join(&name);
        match (is_dir, depth) {
            (true, 2..) => numbered_files(vfs, &path, depth - 1, found)?,
            (false, 1) if name.bytes().all(|byte| byte.is_ascii_digit()) => found.push((path, len)),
            _ => {}
        }
    }
    Ok(())
}

/// Holds the store's lock until dropped.
pub trait Lock: Send + Sync + fmt::Debug {}

/// Files and directories. Paths are absolute or relative to the process; parents must exist unless said otherwise.
pub trait Vfs: Send + Sync + fmt::Debug + 'static {
    /// Makes a directory and its parents; no error when it exists. Parents are synced.
    ///
    /// # Errors
    /// What the system says.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// Makes a directory and its parents without syncing any, for callers that make thousands and sync them together,
    /// most of them in a new parent.
    ///
    /// # Errors
    /// What the system says.
    fn create_dirs_unsynced(&self, dir: &Path) -> io::Result<()> {
        self.create_dir_all(dir)
    }
    /// The names in a directory, sorted; an absent directory is empty.
    ///
    /// # Errors
    /// What the system says.
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>>;
    /// One file's entry, `None` when it does not exist.
    ///
    /// # Errors
    /// What the system says.
    fn stat(&self, path: &Path) -> io::Result<Option<DirEntry>>;
    /// Makes a new file of `len` zero bytes, claims its space as `reserve` says, and maps it. Fails when the file
    /// exists. After an error no file is left. The directory is not synced.
    ///
    /// # Errors
    /// What the system says; out of space as [`io::ErrorKind::StorageFull`].
    fn create(&self, path: &Path, len: u64, reserve: Reserve) -> io::Result<Box<dyn Backing>>;
    /// Opens and maps an existing file for reading and writing, with [`Advice::Random`].
    ///
    /// # Errors
    /// What the system says.
    fn open(&self, path: &Path) -> io::Result<Box<dyn Backing>>;
    /// Reads a small file whole, `limit` bytes at most; `None` when it does not exist.
    ///
    /// # Errors
    /// What the system says; [`io::ErrorKind::FileTooLarge`] above `limit`.
    fn read(&self, path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>>;
    /// Replaces a file's content in one step that a crash cannot tear: temporary file, sync, rename, sync of the
    /// directory. Makes the file when it does not exist.
    ///
    /// # Errors
    /// What the system says; the old content is then still there.
    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;
    /// Renames a file. Neither directory is synced.
    ///
    /// # Errors
    /// What the system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Sets a file's length: cut or extended with zeros. Never called on a mapped file.
    ///
    /// # Errors
    /// What the system says.
    fn set_len(&self, path: &Path, len: u64) -> io::Result<()>;
    /// Removes a file; no error when it does not exist. The directory is not synced.
    ///
    /// # Errors
    /// What the system says.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Removes an empty directory; no error when it does not exist.
    ///
    /// # Errors
    /// What the system says.
    fn remove_dir(&self, dir: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// What the system says.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Makes everything written to the file system that holds `path` durable; one call for thousands of files.
    ///
    /// # Errors
    /// What the system says.
    fn sync_all(&self, path: &Path) -> io::Result<()>;
    /// Takes the exclusive lock the way Java does: bytes \[0,1) of the file, with `fcntl`, then writes `lock` into
    /// it. `None` when another process, or another store of this one, holds it.
    ///
    /// # Errors
    /// What the system says.
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>>;
    /// Space on the partition of `path`.
    ///
    /// # Errors
    /// What the system says.
    fn usage(&self, path: &Path) -> io::Result<DiskUsage>;
    /// Whether stores into a mapping of a reserved file below `dir` can never run out of space. Not so on
    /// copy-on-write file systems, which need new blocks to overwrite old ones: there, use [`Backing::write`].
    fn may_store_through_mapping(&self, _dir: &Path) -> bool {
        true
    }
    /// How many files and connections the process may have open.
    fn open_files_limit(&self) -> usize {
        usize::MAX
    }
}
