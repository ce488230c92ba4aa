//! A directory that nothing is written to: what `dump` and dry runs open a store over.
//!
//! Owns what differs from the disk: files that were made, opened or replaced here, directories made here, and names
//! removed here. Everything else shows through. A file is opened as a private mapping, so that a page is copied when
//! it is first stored into and a sparse gigabyte costs nothing; a new file is anonymous memory. Whatever was opened
//! stays mapped as long as this value lives, since stores through the mapping cannot be told from none.
//!
//! Invariant: no call makes, changes, removes or locks anything on the disk.
#![allow(unsafe_code)]

use std::{
    collections::BTreeMap,
    fs, io,
    ops::Range,
    path::{Path, PathBuf},
    ptr::NonNull,
    sync::Arc,
    time::SystemTime,
};

use std::os::{fd::AsRawFd, unix::fs::FileExt};

use parking_lot::Mutex;

use super::{Advice, Backing, DirEntry, DiskUsage, Lock, Reserve, Vfs, probe};

/// Shows a directory as it would be after the writes made through it, and leaves it as it is.
///
/// ```
/// use reput::vfs::{OverlayVfs, Vfs};
/// let dir = std::env::temp_dir();
/// let over = OverlayVfs::new();
/// over.replace(&dir.join("reput-overlay-example"), b"seen here")?;
/// assert!(over.stat(&dir.join("reput-overlay-example"))?.is_some());
/// assert!(!dir.join("reput-overlay-example").exists());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct OverlayVfs {
    pub(super) nodes: Mutex<BTreeMap<PathBuf, Node>>,
}

/// What this overlay knows of one name better than the disk does.
#[derive(Debug)]
pub(super) enum Node {
    Directory,
    File { map: Arc<Mapping>, modified: SystemTime },
    Gone,
}

impl OverlayVfs {
    /// An overlay that has no differences yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

type Nodes = BTreeMap<PathBuf, Node>;

/// What the merged view holds under a name.
enum Seen {
    Nothing,
    Directory(SystemTime),
    File(u64, SystemTime),
}

fn look(nodes: &Nodes, path: &Path) -> io::Result<Seen> {
    match nodes.get(path) {
        Some(Node::Directory) => Ok(Seen::Directory(SystemTime::UNIX_EPOCH)),
        Some(Node::File { map, modified }) => Ok(Seen::File(map.len as u64, *modified)),
        Some(Node::Gone) => Ok(Seen::Nothing),
        None => match fs::metadata(path) {
            Ok(meta) if meta.is_dir() => Ok(Seen::Directory(meta.modified()?)),
            Ok(meta) => Ok(Seen::File(meta.len(), meta.modified()?)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Seen::Nothing),
            Err(e) => Err(e),
        },
    }
}

fn list(nodes: &Nodes, dir: &Path) -> io::Result<Vec<DirEntry>> {
    let mut names = BTreeMap::new();
    if !matches!(nodes.get(dir), Some(Node::Gone)) {
        match fs::read_dir(dir) {
            Ok(entries) => {
                for entry in entries {
                    names.insert(entry?.path(), ());
                }
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    let below = nodes.range(dir.to_path_buf()..).take_while(|(path, _)| path.starts_with(dir));
    names.extend(below.filter(|(path, _)| path.parent() == Some(dir)).map(|(path, _)| (path.clone(), ())));
    let mut entries = Vec::with_capacity(names.len());
    for path in names.into_keys() {
        entries.extend(entry(nodes, &path)?);
    }
    Ok(entries)
}

fn entry(nodes: &Nodes, path: &Path) -> io::Result<Option<DirEntry>> {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(match look(nodes, path)? {
        Seen::Nothing => None,
        // No stamps: what is written here changes none, and whoever looks on from here wants to know everything.
        Seen::Directory(modified) => Some(DirEntry { name, len: 0, is_dir: true, modified, stamp: None }),
        Seen::File(len, modified) => Some(DirEntry { name, len, is_dir: false, modified, stamp: None }),
    })
}

/// The mapping of a file in the merged view, made on first use.
fn mapped(nodes: &mut Nodes, path: &Path) -> io::Result<Arc<Mapping>> {
    match nodes.get(path) {
        Some(Node::File { map, .. }) => return Ok(Arc::clone(map)),
        Some(Node::Gone) => return Err(io::ErrorKind::NotFound.into()),
        Some(Node::Directory) => return Err(io::ErrorKind::IsADirectory.into()),
        None => {}
    }
    let file = fs::File::open(path)?;
    let meta = file.metadata()?;
    if meta.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    let len = usize::try_from(meta.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
    let map = Arc::new(Mapping::private(file, len)?);
    nodes.insert(path.to_path_buf(), Node::File { map: Arc::clone(&map), modified: meta.modified()? });
    Ok(map)
}

fn need_parent(nodes: &Nodes, path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !matches!(look(nodes, parent)?, Seen::Directory(_)) => {
            Err(io::ErrorKind::NotFound.into())
        }
        _ => Ok(()),
    }
}

/// Hides a name: nothing need be remembered of one that the disk does not have.
fn hide(nodes: &mut Nodes, path: &Path) {
    if fs::symlink_metadata(path).is_ok() {
        nodes.insert(path.to_path_buf(), Node::Gone);
    } else {
        nodes.remove(path);
    }
}

impl Vfs for OverlayVfs {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let dir = std::path::absolute(dir)?;
        let mut nodes = self.nodes.lock();
        let mut missing = Vec::new();
        for part in dir.ancestors() {
            match look(&nodes, part)? {
                Seen::Directory(_) => break,
                Seen::File(..) => return Err(io::ErrorKind::NotADirectory.into()),
                Seen::Nothing => missing.push(part.to_path_buf()),
            }
        }
        nodes.extend(missing.into_iter().map(|part| (part, Node::Directory)));
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        list(&self.nodes.lock(), &std::path::absolute(dir)?)
    }

    fn stat(&self, path: &Path) -> io::Result<Option<DirEntry>> {
        entry(&self.nodes.lock(), &std::path::absolute(path)?)
    }

    fn create(&self, path: &Path, len: u64, _reserve: Reserve) -> io::Result<Box<dyn Backing>> {
        let path = std::path::absolute(path)?;
        let mut nodes = self.nodes.lock();
        if !matches!(look(&nodes, &path)?, Seen::Nothing) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        need_parent(&nodes, &path)?;
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let map = Arc::new(Mapping::anonymous(len)?);
        nodes.insert(path, Node::File { map: Arc::clone(&map), modified: SystemTime::now() });
        Ok(Box::new(OverlayFile(map)))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Backing>> {
        let path = std::path::absolute(path)?;
        Ok(Box::new(OverlayFile(mapped(&mut self.nodes.lock(), &path)?)))
    }

    fn read(&self, path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
        let path = std::path::absolute(path)?;
        let nodes = self.nodes.lock();
        match look(&nodes, &path)? {
            Seen::Nothing => Ok(None),
            Seen::Directory(_) => Err(io::ErrorKind::IsADirectory.into()),
            Seen::File(len, _) if len > limit => Err(io::ErrorKind::FileTooLarge.into()),
            Seen::File(..) => match nodes.get(&path) {
                Some(Node::File { map, .. }) => Ok(Some(map.copy(0..map.len))),
                _ => fs::read(&path).map(Some),
            },
        }
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let path = std::path::absolute(path)?;
        let mut nodes = self.nodes.lock();
        need_parent(&nodes, &path)?;
        if matches!(look(&nodes, &path)?, Seen::Directory(_)) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let map = Mapping::anonymous(bytes.len())?;
        map.write(0, bytes)?;
        nodes.insert(path, Node::File { map: Arc::new(map), modified: SystemTime::now() });
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (std::path::absolute(from)?, std::path::absolute(to)?);
        let mut nodes = self.nodes.lock();
        need_parent(&nodes, &to)?;
        let map = mapped(&mut nodes, &from)?;
        let Seen::File(_, modified) = look(&nodes, &from)? else {
            return Err(io::ErrorKind::NotFound.into());
        };
        hide(&mut nodes, &from);
        nodes.insert(to, Node::File { map, modified });
        Ok(())
    }

    fn set_len(&self, path: &Path, len: u64) -> io::Result<()> {
        let path = std::path::absolute(path)?;
        let mut nodes = self.nodes.lock();
        let old = mapped(&mut nodes, &path)?;
        let new = Mapping::anonymous(usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?)?;
        new.take_over(&old)?;
        nodes.insert(path, Node::File { map: Arc::new(new), modified: SystemTime::now() });
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let path = std::path::absolute(path)?;
        let mut nodes = self.nodes.lock();
        match look(&nodes, &path)? {
            Seen::Nothing => {}
            Seen::Directory(_) => return Err(io::ErrorKind::IsADirectory.into()),
            Seen::File(..) => hide(&mut nodes, &path),
        }
        Ok(())
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        let dir = std::path::absolute(dir)?;
        let mut nodes = self.nodes.lock();
        match look(&nodes, &dir)? {
            Seen::Nothing => {}
            Seen::File(..) => return Err(io::ErrorKind::NotADirectory.into()),
            Seen::Directory(_) if list(&nodes, &dir)?.is_empty() => hide(&mut nodes, &dir),
            Seen::Directory(_) => return Err(io::ErrorKind::DirectoryNotEmpty.into()),
        }
        Ok(())
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn sync_all(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self, _path: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        Ok(Some(Box::new(Unlocked)))
    }

    /// The disk's own figure: what the overlay holds takes no space there.
    fn usage(&self, path: &Path) -> io::Result<DiskUsage> {
        let path = std::path::absolute(path)?;
        let there = path.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/"));
        let name = std::ffi::CString::new(there.as_os_str().as_encoded_bytes())?;
        let mut stat = std::mem::MaybeUninit::<libc::statvfs>::uninit();
        // SAFETY: `name` is a C string and `stat` has room for what the call fills in.
        let stat = unsafe {
            if libc::statvfs(name.as_ptr(), stat.as_mut_ptr()) != 0 {
                return Err(io::Error::last_os_error());
            }
            stat.assume_init()
        };
        // Widths of these fields differ between systems.
        #[allow(clippy::useless_conversion)]
        let (blocks, free, unit) =
            (u64::from(stat.f_blocks), u64::from(stat.f_bavail), u64::from(stat.f_frsize));
        Ok(DiskUsage { total: blocks.saturating_mul(unit), free: free.saturating_mul(unit) })
    }
}

/// The lock of an overlay keeps nobody out, for nothing is written.
#[derive(Debug)]
struct Unlocked;

impl Lock for Unlocked {}

/// Memory of one file: pages of the file until stored into, then this process's own.
pub(super) struct Mapping {
    base: NonNull<u8>,
    len: usize,
    /// The file below, which knows where it has holes; none for memory alone.
    file: Option<fs::File>,
}

// SAFETY: the memory belongs to this value until it is dropped. Who stores into it keeps to the rules of `Backing`:
// published bytes are never stored into again, and nothing is read above what was published.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl std::fmt::Debug for Mapping {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mapping({} bytes)", self.len)
    }
}

/// Pages are compared and copied in this unit when a file changes its length.
pub(super) const PAGE: usize = 4096;

impl Mapping {
    pub(super) fn private(file: fs::File, len: usize) -> io::Result<Self> {
        let mut map = Self::map(len, libc::MAP_PRIVATE | libc::MAP_NORESERVE, file.as_raw_fd())?;
        map.file = Some(file);
        Ok(map)
    }

    fn anonymous(len: usize) -> io::Result<Self> {
        Self::map(len, libc::MAP_PRIVATE | libc::MAP_NORESERVE | libc::MAP_ANONYMOUS, -1)
    }

    fn map(len: usize, flags: libc::c_int, fd: libc::c_int) -> io::Result<Self> {
        if len == 0 {
            return Ok(Self { base: NonNull::dangling(), len, file: None });
        }
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the system's choice touches no memory that anyone has.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), len, access, flags, fd, 0) };
        match NonNull::new(base.cast::<u8>()) {
            Some(base) if base.as_ptr().cast() != libc::MAP_FAILED => Ok(Self { base, len, file: None }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn check(&self, at: usize, len: usize) -> io::Result<()> {
        match at.checked_add(len) {
            Some(end) if end <= self.len => Ok(()),
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "beyond the end of the mapped file")),
        }
    }

    fn write(&self, at: usize, bytes: &[u8]) -> io::Result<()> {
        self.check(at, bytes.len())?;
        // SAFETY: the range lies in the mapping (checked), `bytes` cannot overlap memory that nobody else may borrow
        // mutably, and the callers' rules keep readers off bytes that are being written.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.base.as_ptr().add(at), bytes.len()) };
        Ok(())
    }

    pub(super) fn copy(&self, range: Range<usize>) -> Vec<u8> {
        let mut bytes = vec![0; range.len()];
        // SAFETY: the callers keep the range inside the mapping; `bytes` is fresh memory of that length.
        unsafe {
            std::ptr::copy_nonoverlapping(
                self.base.as_ptr().add(range.start),
                bytes.as_mut_ptr(),
                bytes.len(),
            );
        }
        bytes
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Whether pages of a file show through.
    pub(super) const fn has_file(&self) -> bool {
        self.file.is_some()
    }

    /// The first range from `at` on that may hold anything but zeros: data of the file below, or a page that was
    /// stored into.
    pub(super) fn data_from(&self, at: usize) -> Option<Range<usize>> {
        let whole = (at < self.len).then_some(at..self.len)?;
        let below = match self.file.as_ref().map(|file| data_below(file, at, self.len)) {
            Some(Ok(below)) => below,
            Some(Err(_)) => return Some(whole),
            None => None,
        };
        let until = below.as_ref().map_or(self.len, |range| range.start);
        // Within a page that is our own, `at` is where the data begins, and an empty range would lead nowhere.
        match if until > at { self.own_page(at..until) } else { Ok(None) } {
            Ok(Some(page)) => Some(page),
            Ok(None) => below,
            Err(_) => Some(whole),
        }
    }

    /// The first page in `range` that is this process's own: the system's page map tells it from one of the file.
    pub(super) fn own_page(&self, range: Range<usize>) -> io::Result<Option<Range<usize>>> {
        const ENTRY: usize = 8;
        const FILE_PAGE: u8 = 1 << 5;
        const SWAPPED: u8 = 1 << 6;
        const PRESENT: u8 = 1 << 7;
        let pages = fs::File::open("/proc/self/pagemap")?;
        let mut entries = [0; 512 * ENTRY];
        let first = self.base.as_ptr().addr() / PAGE;
        let (mut page, end) = (range.start / PAGE, range.end.div_ceil(PAGE));
        while page < end {
            let entries = &mut entries[..(end - page).min(512) * ENTRY];
            pages.read_exact_at(entries, ((first + page) * ENTRY) as u64)?;
            for entry in entries.as_chunks::<ENTRY>().0 {
                // The flags are the upper bits of a word in the machine's order.
                let flags = if cfg!(target_endian = "big") { entry[0] } else { entry[ENTRY - 1] };
                if flags & (SWAPPED | PRESENT) != 0 && flags & FILE_PAGE == 0 {
                    return Ok(Some((page * PAGE).max(range.start)..((page + 1) * PAGE).min(range.end)));
                }
                page += 1;
            }
        }
        Ok(None)
    }

    /// Copies what both have, leaving out pages of zeros so that a sparse file stays one.
    fn take_over(&self, old: &Self) -> io::Result<()> {
        let shared = self.len.min(old.len);
        for at in (0..shared).step_by(PAGE) {
            let page = old.copy(at..shared.min(at + PAGE));
            if page.iter().any(|byte| *byte != 0) {
                self.write(at, &page)?;
            }
        }
        Ok(())
    }
}

/// The first range of a file from `at` on that is no hole.
fn data_below(file: &fs::File, at: usize, len: usize) -> io::Result<Option<Range<usize>>> {
    let seek = |at: usize, whence| {
        let at = libc::off64_t::try_from(at).map_err(|_| io::ErrorKind::FileTooLarge)?;
        // SAFETY: takes a descriptor that `file` keeps open and two numbers; touches no memory of ours.
        let found = unsafe { libc::lseek64(file.as_raw_fd(), at, whence) };
        usize::try_from(found).map_err(|_| io::Error::last_os_error())
    };
    match seek(at, libc::SEEK_DATA) {
        Ok(start) if start < len => Ok(Some(start..seek(start, libc::SEEK_HOLE)?.min(len))),
        Ok(_) => Ok(None),
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => Ok(None),
        Err(error) => Err(error),
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: the mapping was made with this address and length, and the last owner is going.
            unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
        }
    }
}

/// One opening of a file; all openings of a name share its memory.
#[derive(Debug)]
struct OverlayFile(Arc<Mapping>);

impl Backing for OverlayFile {
    fn base(&self) -> NonNull<u8> {
        self.0.base
    }

    fn len(&self) -> usize {
        self.0.len
    }

    fn first_unreadable(&self, range: Range<usize>) -> Option<(usize, io::Error)> {
        let file = self.0.file.as_ref()?;
        match self.0.check(range.start, range.len()) {
            Ok(()) => probe::first_unreadable(self.0.base, file, range),
            Err(error) => Some((range.start, error)),
        }
    }

    fn write(&self, at: usize, bytes: &[u8]) -> io::Result<()> {
        self.0.write(at, bytes)
    }

    fn rewrite(&self, range: Range<usize>) -> io::Result<()> {
        self.0.check(range.start, range.len())
    }

    fn sync(&self, range: Range<usize>) -> io::Result<()> {
        self.0.check(range.start, range.len())
    }

    fn start_writeback(&self, _range: Range<usize>) {}

    fn populate(&self, _range: Range<usize>) {}

    fn reserve(&self, range: Range<usize>) -> io::Result<()> {
        self.0.check(range.start, range.len())
    }

    fn data_from(&self, at: usize) -> Option<Range<usize>> {
        self.0.data_from(at)
    }

    fn advise(&self, _advice: Advice) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(backing: &dyn Backing, range: Range<usize>) -> Vec<u8> {
        assert!(range.end <= backing.len());
        // SAFETY: the range lies in the mapping and nothing writes to it during the test.
        unsafe { std::slice::from_raw_parts(backing.base().as_ptr().add(range.start), range.len()) }.to_vec()
    }

    fn names(vfs: &OverlayVfs, dir: &Path) -> Vec<String> {
        vfs.list(dir).unwrap().into_iter().map(|e| e.name).collect()
    }

    /// Every name below a directory with its content.
    fn snapshot(dir: &Path) -> Vec<(PathBuf, Option<Vec<u8>>)> {
        let mut all = Vec::new();
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                all.push((path.clone(), None));
                all.extend(snapshot(&path));
            } else {
                all.push((path.clone(), Some(fs::read(&path).unwrap())));
            }
        }
        all.sort();
        all
    }

    fn store() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("log/empty")).unwrap();
        fs::write(dir.path().join("log/a"), vec![7; 10_000]).unwrap();
        fs::write(dir.path().join("log/b"), b"bee").unwrap();
        fs::write(dir.path().join("log/zero"), b"").unwrap();
        dir
    }

    #[test]
    fn every_kind_of_change_is_seen_here_and_not_on_the_disk() {
        let dir = store();
        let before = snapshot(dir.path());
        let vfs = OverlayVfs::new();
        let log = dir.path().join("log");

        vfs.open(&log.join("a")).unwrap().write(9_998, b"xy").unwrap();
        let again = vfs.open(&log.join("a")).unwrap();
        assert_eq!(bytes(&*again, 9_997..10_000), b"\x07xy", "a second opening sees the first one's writes");
        assert_eq!(vfs.read(&log.join("a"), 10_000).unwrap().unwrap()[9_998..], *b"xy");

        vfs.replace(&log.join("b"), b"wasp").unwrap();
        assert_eq!(vfs.read(&log.join("b"), 100).unwrap().unwrap(), b"wasp");
        vfs.remove(&log.join("zero")).unwrap();
        assert!(vfs.stat(&log.join("zero")).unwrap().is_none());
        vfs.rename(&log.join("a"), &log.join("c")).unwrap();
        vfs.create_dir_all(&log.join("new/deep")).unwrap();
        vfs.create(&log.join("new/deep/file"), 1 << 30, Reserve::All)
            .unwrap()
            .write(1 << 29, b"far")
            .unwrap();
        vfs.remove_dir(&log.join("empty")).unwrap();
        vfs.set_len(&log.join("b"), 6).unwrap();
        vfs.sync_dir(&log).unwrap();
        vfs.sync_all(&log).unwrap();
        assert!(vfs.lock(&log.join("lock")).unwrap().is_some());

        assert_eq!(names(&vfs, &log), ["b", "c", "new"]);
        assert_eq!(vfs.read(&log.join("b"), 100).unwrap().unwrap(), b"wasp\0\0");
        assert_eq!(vfs.stat(&log.join("new/deep/file")).unwrap().unwrap().len, 1 << 30);
        assert!(vfs.usage(&log.join("new/deep")).unwrap().total > 0);
        assert_eq!(snapshot(dir.path()), before);
    }

    #[test]
    fn names_behave_as_in_a_real_directory() {
        let dir = store();
        let vfs = OverlayVfs::new();
        let log = dir.path().join("log");
        let kind = |r: io::Result<()>| r.map_err(|e| e.kind());
        assert_eq!(
            kind(vfs.create(&log.join("b"), 1, Reserve::None).map(drop)),
            Err(io::ErrorKind::AlreadyExists)
        );
        assert_eq!(
            kind(vfs.create(&log.join("x/y"), 1, Reserve::None).map(drop)),
            Err(io::ErrorKind::NotFound)
        );
        assert_eq!(kind(vfs.open(&log.join("none")).map(drop)), Err(io::ErrorKind::NotFound));
        assert_eq!(kind(vfs.remove_dir(&log)), Err(io::ErrorKind::DirectoryNotEmpty));
        assert_eq!(kind(vfs.create_dir_all(&log.join("b/c"))), Err(io::ErrorKind::NotADirectory));
        assert_eq!(kind(vfs.read(&log.join("a"), 9_999).map(drop)), Err(io::ErrorKind::FileTooLarge));
        assert_eq!(vfs.read(&log.join("none"), 1).unwrap(), None);
        assert!(vfs.list(&log.join("none")).unwrap().is_empty());
        vfs.remove(&log.join("none")).unwrap();
        vfs.remove_dir(&log.join("none")).unwrap();

        vfs.remove(&log.join("b")).unwrap();
        assert_eq!(kind(vfs.open(&log.join("b")).map(drop)), Err(io::ErrorKind::NotFound));
        let made = vfs.create(&log.join("b"), 2, Reserve::All).unwrap();
        assert_eq!(bytes(&*made, 0..2), [0, 0], "a file made anew does not show what the disk has");
        assert!(made.write(1, b"ab").is_err(), "a write may not leave the file");
    }

    #[test]
    fn a_file_without_bytes_can_be_opened() {
        let dir = store();
        let vfs = OverlayVfs::new();
        let empty = vfs.open(&dir.path().join("log/zero")).unwrap();
        assert!(empty.is_empty());
        empty.write(0, b"").unwrap();
        empty.sync(0..0).unwrap();
    }

    #[test]
    fn holes_are_known_and_what_is_stored_into_them_is_data() {
        let dir = store();
        let path = dir.path().join("log/sparse");
        let file = fs::File::create(&path).unwrap();
        file.set_len(1 << 30).unwrap();
        file.write_all_at(b"data", 1 << 20).unwrap();
        let vfs = OverlayVfs::new();
        let open = vfs.open(&path).unwrap();
        let near = |range: Option<Range<usize>>, at: usize| {
            range.is_some_and(|range| range.contains(&at) && range.len() <= 1 << 20)
        };
        assert!(near(open.data_from(0), 1 << 20));
        assert_eq!(open.data_from(2 << 20), None);
        open.write(5 << 20, b"stored").unwrap();
        assert!(near(open.data_from(2 << 20), 5 << 20));
        assert_eq!(open.data_from(6 << 20), None);
        let made = vfs.create(&dir.path().join("log/made"), 1 << 30, Reserve::None).unwrap();
        assert_eq!(made.data_from(0), None);
        made.write(9 << 20, b"stored").unwrap();
        assert!(near(made.data_from(0), 9 << 20));
    }

    /// Whoever walks the data would go round for ever.
    #[test]
    fn data_that_begins_within_a_page_of_our_own_is_not_empty() {
        let dir = store();
        let open = OverlayVfs::new().open(&dir.path().join("log/a")).unwrap();
        open.write(10, b"stored").unwrap();
        assert!(open.data_from(380).is_some_and(|data| data.start == 380 && data.end > 380));
    }

    #[test]
    fn a_cut_file_ends_where_it_was_cut_and_grows_with_zeros() {
        let dir = store();
        let vfs = OverlayVfs::new();
        let path = dir.path().join("log/a");
        vfs.set_len(&path, 5_000).unwrap();
        vfs.set_len(&path, 5_002).unwrap();
        assert_eq!(vfs.read(&path, 10_000).unwrap().unwrap()[4_998..], [7, 7, 0, 0]);
        assert_eq!(fs::metadata(&path).unwrap().len(), 10_000);
    }
}
