//! The FUSE side: one directory with one file, held in memory.

use std::{
    ffi::OsStr,
    fs::{self, File},
    os::unix::fs::FileExt,
    time::{Duration, UNIX_EPOCH},
};

use fuser::{
    FileAttr, FileType, Filesystem, MountOption, ReplyAttr, ReplyData, ReplyDirectory, ReplyEmpty,
    ReplyEntry, ReplyWrite, Request, TimeOrNow,
};

use crate::{Failure, log::Log};

const ROOT: u64 = 1;
const DISK: u64 = 2;
const NAME: &str = "disk";
/// Where the control file lists what cannot be read, and how many ranges.
const BAD_AT: u64 = 16;
const BAD_RANGES: usize = 16;
const TTL: Duration = Duration::from_secs(3600);

struct Disk {
    bytes: Vec<u8>,
    log: Log,
    control: File,
    events: u64,
}

/// Serves the disk until it is unmounted.
pub fn serve(base: &str, mountpoint: &str, log: &str, control: &str) -> Result<(), Failure> {
    let control = File::options().read(true).write(true).open(control)?;
    let disk = Disk { bytes: fs::read(base)?, log: Log::create(log)?, control, events: 0 };
    fuser::mount2(disk, mountpoint, &[MountOption::FSName("reput-powercut".into())])?;
    Ok(())
}

impl Disk {
    fn attributes(&self, inode: u64) -> FileAttr {
        let disk = inode == DISK;
        FileAttr {
            ino: inode,
            size: if disk { self.bytes.len() as u64 } else { 0 },
            blocks: 0,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if disk { FileType::RegularFile } else { FileType::Directory },
            perm: if disk { 0o600 } else { 0o700 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }

    /// Whether the disk is told to fail.
    fn fails(&self) -> bool {
        let mut mode = [0; 1];
        self.control.read_exact_at(&mut mode, 8).is_ok() && mode[0] == 1
    }

    /// Whether a read from `start` to `end` touches a range that the disk is told not to read.
    fn unreadable(&self, start: u64, end: u64) -> bool {
        let mut words = [0; BAD_RANGES * 16];
        if self.control.read_exact_at(&mut words, BAD_AT).is_err() {
            return false;
        }
        let number = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_be_bytes);
        words.chunks_exact(16).any(|range| {
            let (from, to) = (number(&range[..8]), number(&range[8..]));
            from < end && start < to
        })
    }

    /// The event is in the log; whoever sees the count may cut behind it.
    fn count(&mut self) -> std::io::Result<()> {
        self.events += 1;
        self.control.write_all_at(&self.events.to_be_bytes(), 0)
    }
}

impl Filesystem for Disk {
    fn lookup(&mut self, _: &Request<'_>, parent: u64, name: &OsStr, reply: ReplyEntry) {
        if parent == ROOT && name == NAME {
            reply.entry(&TTL, &self.attributes(DISK), 0);
        } else {
            reply.error(libc::ENOENT);
        }
    }

    fn getattr(&mut self, _: &Request<'_>, inode: u64, _: Option<u64>, reply: ReplyAttr) {
        reply.attr(&TTL, &self.attributes(inode));
    }

    fn setattr(
        &mut self,
        _: &Request<'_>,
        inode: u64,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<std::time::SystemTime>,
        _: Option<u64>,
        _: Option<std::time::SystemTime>,
        _: Option<std::time::SystemTime>,
        _: Option<std::time::SystemTime>,
        _: Option<u32>,
        reply: ReplyAttr,
    ) {
        reply.attr(&TTL, &self.attributes(inode));
    }

    fn read(
        &mut self,
        _: &Request<'_>,
        _: u64,
        _: u64,
        offset: i64,
        size: u32,
        _: i32,
        _: Option<u64>,
        reply: ReplyData,
    ) {
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(self.bytes.len());
        let end = start.saturating_add(size as usize).min(self.bytes.len());
        if self.unreadable(start as u64, end as u64) {
            return reply.error(libc::EIO);
        }
        reply.data(&self.bytes[start..end]);
    }

    fn write(
        &mut self,
        _: &Request<'_>,
        _: u64,
        _: u64,
        offset: i64,
        data: &[u8],
        _: u32,
        _: i32,
        _: Option<u64>,
        reply: ReplyWrite,
    ) {
        if self.fails() {
            return reply.error(libc::EIO);
        }
        let Ok(start) = usize::try_from(offset) else { return reply.error(libc::EINVAL) };
        let Some(place) = self.bytes.get_mut(start..start.saturating_add(data.len())) else {
            return reply.error(libc::ENOSPC);
        };
        place.copy_from_slice(data);
        if self.log.write(start as u64, data).and_then(|()| self.count()).is_err() {
            return reply.error(libc::EIO);
        }
        reply.written(u32::try_from(data.len()).unwrap_or(0));
    }

    fn fsync(&mut self, _: &Request<'_>, _: u64, _: u64, _: bool, reply: ReplyEmpty) {
        if self.fails() || self.log.flush().and_then(|()| self.count()).is_err() {
            return reply.error(libc::EIO);
        }
        reply.ok();
    }

    fn flush(&mut self, _: &Request<'_>, _: u64, _: u64, _: u64, reply: ReplyEmpty) {
        reply.ok();
    }

    fn readdir(&mut self, _: &Request<'_>, _: u64, _: u64, offset: i64, mut reply: ReplyDirectory) {
        if offset == 0 {
            let _ = reply.add(DISK, 1, FileType::RegularFile, NAME);
        }
        reply.ok();
    }

    fn destroy(&mut self) {
        if let Err(error) = self.log.end() {
            eprintln!("reput-powercut: the log is not whole: {error}");
        }
    }
}
