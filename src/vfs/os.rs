//! The real file system: the only caller of `std::fs`, `libc` and `memmap2` in production.
//!
//! Owns the open file and the mapping behind each [`Backing`]. Invariants: a file that is mapped never shrinks; a file
//! made with [`Reserve::All`] has every block claimed before it gets its length, so that a kill in between leaves an
//! empty file and a full disk is an error here and never SIGBUS; what a failed creation left is removed.
#![allow(unsafe_code)]

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    mem::MaybeUninit,
    ops::Range,
    os::{
        fd::AsRawFd,
        unix::{
            ffi::OsStrExt,
            fs::{FileExt, MetadataExt},
        },
    },
    path::{Path, PathBuf},
    ptr::NonNull,
    sync::atomic::AtomicU32,
    time::Duration,
};

use memmap2::{MmapOptions, MmapRaw};
use parking_lot::Mutex;

use super::{
    Advice, Backing, DirEntry, DiskUsage, Lock, Reserve, Vfs, listing::names_in, probe, sigbus::Known,
};
use crate::types::FileStamp;

/// The operating system's files.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsVfs;

impl OsVfs {
    /// Whether a process holds the lock that [`Vfs::lock`] takes, this one included. Changes nothing.
    ///
    /// # Errors
    /// What the system says; a missing file is not locked.
    pub fn is_locked(&self, path: &Path) -> io::Result<bool> {
        let held = HELD.lock();
        let Some(meta) = none_if_absent(fs::metadata(path))? else { return Ok(false) };
        if held.contains(&(meta.dev(), meta.ino())) {
            return Ok(true);
        }
        let file = File::open(path)?;
        let mut range = first_byte(libc::F_RDLCK);
        // SAFETY: the descriptor is open and `range` is a whole `flock` that lives across the call.
        if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETLK, &raw mut range) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(i32::from(range.l_type) != libc::F_UNLCK)
    }
}

/// An open file and its mapping. The descriptor stays open for writes and syncs.
#[derive(Debug)]
struct OsBacking {
    file: File,
    map: MmapRaw,
    base: NonNull<u8>,
    len: usize,
    _known: Known,
}

// SAFETY: `base` points into `map`, which this value owns and which is `Send` and `Sync` itself; the pointer is only
// handed out, never followed here.
unsafe impl Send for OsBacking {}
// SAFETY: as above; no method changes `base` or `len`.
unsafe impl Sync for OsBacking {}

impl OsBacking {
    fn map(file: File, len: u64, path: &Path) -> io::Result<Self> {
        let len = usize::try_from(len).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        let map = MmapOptions::new().len(len).map_raw(&file)?;
        let base = NonNull::new(map.as_mut_ptr()).ok_or_else(|| io::Error::other("mapped at address 0"))?;
        let known = Known::new(base.as_ptr(), len, path);
        Ok(Self { _known: known, file, map, base, len })
    }

    fn inside(&self, range: &Range<usize>) -> io::Result<()> {
        if range.start <= range.end && range.end <= self.len {
            Ok(())
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidInput, "a range outside the file"))
        }
    }
}

impl Backing for OsBacking {
    fn base(&self) -> NonNull<u8> {
        self.base
    }

    fn len(&self) -> usize {
        self.len
    }

    fn write(&self, at: usize, bytes: &[u8]) -> io::Result<()> {
        self.inside(&(at..at.saturating_add(bytes.len())))?;
        self.file.write_all_at(bytes, at as u64)
    }

    fn rewrite(&self, range: Range<usize>) -> io::Result<()> {
        const CHUNK: usize = 1 << 20;
        self.inside(&range)?;
        let mut bytes = vec![0; CHUNK.min(range.len())];
        for at in range.clone().step_by(CHUNK) {
            let bytes = &mut bytes[..CHUNK.min(range.end - at)];
            self.file.read_exact_at(bytes, at as u64).map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => {
                    let there = self.file.metadata().map_or(at as u64, |meta| meta.len());
                    ends_early(there, range.end as u64)
                }
                _ => error,
            })?;
            self.file.write_all_at(bytes, at as u64)?;
        }
        Ok(())
    }

    fn sync(&self, range: Range<usize>) -> io::Result<()> {
        self.inside(&range)?;
        self.file.sync_data()
    }

    fn start_writeback(&self, range: Range<usize>) {
        if self.inside(&range).is_err() || range.is_empty() {
            return;
        }
        let (Ok(at), Ok(len)) = (libc::off64_t::try_from(range.start), libc::off64_t::try_from(range.len()))
        else {
            return;
        };
        // SAFETY: takes a descriptor that `file` keeps open and three numbers; touches no memory of ours.
        unsafe { libc::sync_file_range(self.file.as_raw_fd(), at, len, libc::SYNC_FILE_RANGE_WRITE) };
    }

    fn populate(&self, range: Range<usize>) {
        if self.inside(&range).is_ok() && !range.is_empty() {
            // Kernels before 5.14 do not know it: then stores fault as they always did.
            let _ = self.map.advise_range(memmap2::Advice::PopulateWrite, range.start, range.len());
        }
    }

    fn reserve(&self, range: Range<usize>) -> io::Result<()> {
        self.inside(&range)?;
        claim(&self.file, range.start as u64, range.len() as u64)
    }

    fn data_from(&self, at: usize) -> Option<Range<usize>> {
        if at >= self.len {
            return None;
        }
        let start = match seek(&self.file, at, libc::SEEK_DATA) {
            Ok(start) => start,
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => return None,
            Err(_) => return Some(at..self.len),
        };
        let end = seek(&self.file, start, libc::SEEK_HOLE).unwrap_or(self.len).min(self.len);
        (start < end).then_some(start..end)
    }

    fn first_unreadable(&self, range: Range<usize>) -> Option<(usize, io::Error)> {
        match self.inside(&range) {
            Ok(()) => probe::first_unreadable(self.base, &self.file, range),
            Err(error) => Some((range.start, error)),
        }
    }

    fn advise(&self, advice: Advice) {
        let advice = match advice {
            Advice::Random => memmap2::Advice::Random,
            Advice::Sequential => memmap2::Advice::Sequential,
            Advice::Normal => memmap2::Advice::Normal,
        };
        // A hint: without it reads are slower and nothing else.
        let _ = self.map.advise(advice);
    }
}

/// Fewer bytes than there must be, and no more to come.
fn ends_early(at: u64, end: u64) -> io::Error {
    let what = format!("the file has no bytes from {at} on, and should have them up to {end}");
    io::Error::new(io::ErrorKind::UnexpectedEof, what)
}

/// Where data or a hole begins. Moves the descriptor's position, which nothing here depends on.
fn seek(file: &File, at: usize, whence: libc::c_int) -> io::Result<usize> {
    let at = libc::off64_t::try_from(at).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
    // SAFETY: takes a descriptor that `file` keeps open and two numbers; touches no memory of ours.
    let found = unsafe { libc::lseek64(file.as_raw_fd(), at, whence) };
    usize::try_from(found).map_err(|_| io::Error::last_os_error())
}

/// Claims blocks without changing the file's length.
fn claim(file: &File, at: u64, len: u64) -> io::Result<()> {
    if len == 0 {
        return Ok(());
    }
    let too_large = |_| io::Error::from(io::ErrorKind::FileTooLarge);
    let (at_off, len_off) =
        (libc::off64_t::try_from(at).map_err(too_large)?, libc::off64_t::try_from(len).map_err(too_large)?);
    loop {
        // SAFETY: takes a descriptor that `file` keeps open and numbers; touches no memory of ours.
        let done = unsafe { libc::fallocate64(file.as_raw_fd(), libc::FALLOC_FL_KEEP_SIZE, at_off, len_off) };
        if done == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EINTR) => {}
            Some(libc::EOPNOTSUPP) => return claim_by_writing(file, at, len),
            _ => return Err(error),
        }
    }
}

/// For file systems without `fallocate`: rewrites each block with what it holds.
fn claim_by_writing(file: &File, at: u64, len: u64) -> io::Result<()> {
    let mut block = vec![0_u8; 1 << 20];
    let (mut at, end) = (at, at.saturating_add(len));
    while at < end {
        let step = block.len().min(usize::try_from(end - at).unwrap_or(usize::MAX));
        let piece = &mut block[..step];
        piece.fill(0);
        let mut have = 0;
        while have < step {
            match file.read_at(&mut piece[have..], at + have as u64) {
                Ok(0) => break,
                Ok(n) => have += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        file.write_all_at(piece, at)?;
        at += step as u64;
    }
    Ok(())
}

fn entry(name: String, meta: &fs::Metadata) -> DirEntry {
    let modified = meta.modified().unwrap_or(std::time::UNIX_EPOCH);
    let changed = meta.ctime().saturating_mul(1_000_000_000).saturating_add(meta.ctime_nsec());
    let stamp = Some(FileStamp { inode: meta.ino(), len: meta.len(), changed });
    DirEntry { name, len: meta.len(), is_dir: meta.is_dir(), modified, stamp }
}

fn none_if_absent<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// The directory that holds `path`; `.` for a bare name.
fn parent(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn sync_directory(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

impl Vfs for OsVfs {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut missing: Vec<&Path> = Vec::new();
        let mut at = dir;
        while !at.as_os_str().is_empty() && none_if_absent(fs::metadata(at))?.is_none() {
            missing.push(at);
            at = parent(at);
        }
        for new in missing.into_iter().rev() {
            match fs::create_dir(new) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
                _ => sync_directory(parent(new))?,
            }
        }
        if fs::metadata(dir)?.is_dir() { Ok(()) } else { Err(io::ErrorKind::NotADirectory.into()) }
    }

    fn create_dirs_unsynced(&self, dir: &Path) -> io::Result<()> {
        // The parent first, where trying the directory itself looks for it in vain.
        let exists = |made: io::Result<()>| match made {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            made => made,
        };
        match exists(fs::create_dir(parent(dir))).and_then(|()| exists(fs::create_dir(dir))) {
            // What else has the name is met by the first file in it.
            Ok(()) => Ok(()),
            Err(_) => fs::create_dir_all(dir),
        }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let Some(names) = none_if_absent(names_in(&c_path(dir)?))? else { return Ok(Vec::new()) };
        let mut entries = Vec::new();
        for name in names {
            // A name can go between being read and being asked about, and a link can lead nowhere.
            if let Some(meta) = none_if_absent(fs::metadata(dir.join(&name)))? {
                entries.push(entry(name.to_string_lossy().into_owned(), &meta));
            }
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn stat(&self, path: &Path) -> io::Result<Option<DirEntry>> {
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        Ok(none_if_absent(fs::metadata(path))?.map(|meta| entry(name, &meta)))
    }

    fn create(&self, path: &Path, len: u64, reserve: Reserve) -> io::Result<Box<dyn Backing>> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        let made = (|| {
            if reserve == Reserve::All {
                claim(&file, 0, len)?;
            }
            file.set_len(len)?;
            OsBacking::map(file, len, path)
        })();
        match made {
            Ok(backing) => Ok(Box::new(backing)),
            Err(error) => {
                let _ = fs::remove_file(path);
                Err(error)
            }
        }
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Backing>> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let len = file.metadata()?.len();
        let backing = OsBacking::map(file, len, path)?;
        backing.advise(Advice::Random);
        Ok(Box::new(backing))
    }

    fn read(&self, path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
        let Some(file) = none_if_absent(File::open(path))? else { return Ok(None) };
        let len = file.metadata()?.len();
        let mut bytes = Vec::new();
        file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
        if (bytes.len() as u64) < len.min(limit) {
            return Err(ends_early(bytes.len() as u64, len));
        }
        if bytes.len() as u64 > limit {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(Some(bytes))
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut name = path.as_os_str().to_owned();
        name.push(".tmp");
        let temporary = PathBuf::from(name);
        let written = (|| {
            let mut file = File::create(&temporary)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&temporary, path)
        })();
        if let Err(error) = written {
            let _ = fs::remove_file(&temporary);
            return Err(error);
        }
        sync_directory(parent(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn set_len(&self, path: &Path, len: u64) -> io::Result<()> {
        OpenOptions::new().write(true).open(path)?.set_len(len)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        none_if_absent(fs::remove_file(path)).map(|_| ())
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        none_if_absent(fs::remove_dir(dir)).map(|_| ())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        sync_directory(dir)
    }

    fn sync_all(&self, path: &Path) -> io::Result<()> {
        let file = File::open(path)?;
        // SAFETY: takes a descriptor that `file` keeps open; touches no memory of ours.
        if unsafe { libc::syncfs(file.as_raw_fd()) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        Ok(OsLock::take(path)?.map(|lock| Box::new(lock) as Box<dyn Lock>))
    }

    fn usage(&self, path: &Path) -> io::Result<DiskUsage> {
        let mut stat = MaybeUninit::<libc::statvfs>::uninit();
        let name = c_path(path)?;
        // SAFETY: `name` ends in 0 and `stat` has room for one `statvfs`; both live across the call.
        if unsafe { libc::statvfs(name.as_ptr(), stat.as_mut_ptr()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call succeeded, so it filled `stat`.
        let stat = unsafe { stat.assume_init() };
        let block = if stat.f_frsize == 0 { stat.f_bsize } else { stat.f_frsize };
        // As `df` and RocketMQ count: blocks kept for the superuser are neither used nor free.
        let used = stat.f_blocks.saturating_sub(stat.f_bfree);
        Ok(DiskUsage {
            total: used.saturating_add(stat.f_bavail).saturating_mul(block),
            free: stat.f_bavail.saturating_mul(block),
        })
    }

    fn may_store_through_mapping(&self, dir: &Path) -> bool {
        const COPY_ON_WRITE: [i64; 3] = [0x9123_683E, 0xCA45_1A4E, 0x2FC1_2FC1]; // btrfs, bcachefs, zfs
        let mut stat = MaybeUninit::<libc::statfs>::uninit();
        let Ok(name) = c_path(dir) else { return true };
        // SAFETY: `name` ends in 0 and `stat` has room for one `statfs`; both live across the call.
        if unsafe { libc::statfs(name.as_ptr(), stat.as_mut_ptr()) } != 0 {
            return true;
        }
        // SAFETY: the call succeeded, so it filled `stat`.
        let kind = unsafe { stat.assume_init() }.f_type;
        !COPY_ON_WRITE.contains(&kind)
    }

    fn open_files_limit(&self) -> usize {
        open_files().map_or(usize::MAX, |limit| usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX))
    }
}

/// How many files this process may have open now, and at most.
fn open_files() -> io::Result<libc::rlimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: writes one live value of the right type.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } == 0 {
        Ok(limit)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Lets this process open as many files as it may at most: many systems begin with 1024, and each mapped file and each
/// connection is one. For programs to call before they open a store, not for libraries.
///
/// # Errors
/// What the system says; the limit is then as it was.
pub fn raise_open_files_limit() -> io::Result<()> {
    let mut limit = open_files()?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: reads one live value of the right type.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn c_path(path: &Path) -> io::Result<std::ffi::CString> {
    Ok(std::ffi::CString::new(path.as_os_str().as_bytes())?)
}

/// Device and inode of every lock file that this process holds. `fcntl` locks belong to the process: they do not
/// keep a second store of the same process out, and closing *any* descriptor of the file gives them up. So the file
/// of a held lock is not even opened again.
static HELD: Mutex<BTreeSet<(u64, u64)>> = Mutex::new(BTreeSet::new());

/// A lock of `kind` on the first byte of a file.
fn first_byte(kind: libc::c_int) -> libc::flock {
    libc::flock {
        l_type: i16::try_from(kind).unwrap_or_default(),
        l_whence: i16::try_from(libc::SEEK_SET).unwrap_or_default(),
        l_start: 0,
        l_len: 1,
        l_pid: 0,
    }
}

#[derive(Debug)]
struct OsLock {
    file: Option<File>,
    identity: (u64, u64),
}

impl Lock for OsLock {}

impl OsLock {
    fn take(path: &Path) -> io::Result<Option<Self>> {
        let mut held = HELD.lock();
        if let Some(meta) = none_if_absent(fs::metadata(path))?
            && held.contains(&(meta.dev(), meta.ino()))
        {
            return Ok(None);
        }
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let range = first_byte(libc::F_WRLCK);
        // SAFETY: the descriptor is open and `range` is a whole `flock` that lives across the call.
        if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLK, &raw const range) } != 0 {
            let error = io::Error::last_os_error();
            return match error.raw_os_error() {
                Some(libc::EAGAIN | libc::EACCES) => Ok(None),
                _ => Err(error),
            };
        }
        let meta = file.metadata()?;
        let mut content = [0_u8; 4];
        let right = meta.len() == 4 && file.read_exact_at(&mut content, 0).is_ok() && &content == b"lock";
        if !right {
            file.set_len(0)?;
            file.write_all_at(b"lock", 0)?;
            file.sync_all()?;
        }
        let identity = (meta.dev(), meta.ino());
        held.insert(identity);
        Ok(Some(Self { file: Some(file), identity }))
    }
}

impl Drop for OsLock {
    fn drop(&mut self) {
        // Closed before the entry goes: a `take` in between would get the lock and lose it to this close.
        let mut held = HELD.lock();
        drop(self.file.take());
        held.remove(&self.identity);
    }
}

/// Seconds that local time is ahead of UTC at `seconds` since 1970.
pub(crate) fn local_utc_offset(seconds: i64) -> i64 {
    let mut parts = MaybeUninit::<libc::tm>::zeroed();
    let time: libc::time_t = seconds;
    // SAFETY: both pointers are to live values of the right types; `localtime_r` keeps neither.
    let done = unsafe { libc::localtime_r(&raw const time, parts.as_mut_ptr()) };
    if done.is_null() {
        return 0;
    }
    // SAFETY: zeroed before, and filled by the call; every bit pattern of `tm` is valid.
    unsafe { parts.assume_init() }.tm_gmtoff
}

/// Milliseconds since 1970 as the kernel noted them at its last tick; takes no reading of the hardware.
pub(crate) fn coarse_millis() -> i64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one live value of the right type. The clock exists since Linux 2.6.32; without it the time stays 0.
    unsafe { libc::clock_gettime(libc::CLOCK_REALTIME_COARSE, &raw mut time) };
    time.tv_sec * 1000 + time.tv_nsec / 1_000_000
}

/// Sleeps while `word` holds `seen`, `timeout` at most. May return early for no reason.
pub(crate) fn sleep_on(word: &AtomicU32, seen: u32, timeout: Duration) {
    let time = libc::timespec {
        tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: libc::c_long::from(timeout.subsec_nanos()),
    };
    // SAFETY: `word` and `time` live across the call; a private futex wait reads both and keeps neither.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
            seen,
            &raw const time,
        )
    };
}

/// Wakes every thread that sleeps on `word`. Change the word first.
pub(crate) fn wake_all(word: &AtomicU32) {
    // SAFETY: the address is only compared with those of sleepers.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG,
            libc::c_int::MAX,
        )
    };
}

/// A new file, mapped, that takes bytes in and gives none out: what stores into a mapping cost is measured with it.
///
/// ```
/// use reput::vfs::{MappedFile, Reserve};
/// let path = std::env::temp_dir().join(format!("reput-mapped-example-{}", std::process::id()));
/// let mut file = MappedFile::create(&path, 8192, Reserve::All)?;
/// file.store(4096, b"paid");
/// assert_eq!(std::fs::read(&path)?[4096..4100], *b"paid");
/// std::fs::remove_file(&path)?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct MappedFile {
    backing: Box<dyn Backing>,
}

impl MappedFile {
    /// Makes and maps a file of `len` bytes. Fails when it exists.
    ///
    /// # Errors
    /// As [`Vfs::create`].
    pub fn create(path: &Path, len: u64, reserve: Reserve) -> io::Result<Self> {
        Ok(Self { backing: OsVfs.create(path, len, reserve)? })
    }

    /// Copies `bytes` to position `at`. With [`Reserve::None`] a full disk ends the process with SIGBUS.
    ///
    /// # Panics
    /// When the bytes do not fit into the file.
    pub fn store(&mut self, at: usize, bytes: &[u8]) {
        assert!(at <= self.backing.len() && bytes.len() <= self.backing.len() - at, "beyond the mapping");
        // SAFETY: the range was just found to lie inside the mapping, which `backing` keeps alive and which nobody
        // else has: the value is not Clone, gives no pointer out, and `self` is borrowed mutably. `bytes` is a live
        // slice of ours, so it does not overlap with it.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.backing.base().as_ptr().add(at), bytes.len());
        }
    }

    /// Makes the pages of `range` present and writable.
    pub fn populate(&mut self, range: Range<usize>) {
        self.backing.populate(range);
    }

    /// Makes `range` durable.
    ///
    /// # Errors
    /// What the system says.
    pub fn sync(&self, range: Range<usize>) -> io::Result<()> {
        self.backing.sync(range)
    }
}

/// Writes a file's dirty pages and drops it from the page cache, also where this process has it mapped; the next read
/// comes from the device. Pages that another process has mapped stay. Nothing of the content changes.
///
/// # Errors
/// What the system says when the file is opened or synced; that pages stay is no error.
pub fn forget_cached(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    file.sync_data()?;
    let name = fs::canonicalize(path)?;
    for line in fs::read_to_string("/proc/self/maps")?.lines() {
        // from-to, permissions, offset, device, inode, path
        let mut fields = line.splitn(6, ' ');
        let (range, mapped) = (fields.next().unwrap_or_default(), fields.nth(4).unwrap_or_default());
        let ends = range.split_once('-').and_then(|(from, to)| {
            Some((usize::from_str_radix(from, 16).ok()?, usize::from_str_radix(to, 16).ok()?))
        });
        if let Some((from, to)) = ends.filter(|_| Path::new(mapped.trim_start()) == name) {
            // SAFETY: MADV_PAGEOUT changes no byte that this process sees: what it reclaims is read again from the
            // file. That holds for whatever is mapped there by now, so a race with an unmap harms nothing.
            unsafe {
                libc::madvise(
                    std::ptr::with_exposed_provenance_mut(from),
                    to.saturating_sub(from),
                    libc::MADV_PAGEOUT,
                )
            };
        }
    }
    // SAFETY: takes a descriptor that `file` keeps open and numbers; touches no memory of ours.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    Ok(())
}

/// Processor time that all threads of this process have used so far.
#[must_use]
pub fn process_cpu_time() -> Duration {
    let mut time = MaybeUninit::<libc::timespec>::zeroed();
    // SAFETY: `time` has room for one `timespec` and lives across the call.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, time.as_mut_ptr()) };
    // SAFETY: zeroed before; every bit pattern of `timespec` is valid.
    let time = unsafe { time.assume_init() };
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), nanos)
}

#[cfg(test)]
mod tests;
