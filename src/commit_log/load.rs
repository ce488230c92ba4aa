//! From files to a log: what is found, and the end that recovery decides on.
//!
//! [`load`] maps everything and changes nothing; the bytes can only be borrowed from [`Loaded`], so no reader is left
//! when [`Loaded::recovered`] consumes it to cut the tail. There is no appender before that.
//!
//! `recovered` works in an order that a kill may interrupt anywhere: keep what is cut aside and sync it, remove later
//! segments from the last one back, zero the rest of the last, close gaps, write again what may never have reached the
//! disk, sync what is kept. Opening again comes to the same.

use std::{
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{Appender, CommitLog, gaps::Gap, quarantine::Quarantine};
use crate::{
    clock::Clock,
    config::Config,
    error::{Error, Result},
    format::message::MIN_RECORD,
    segment::{Discovered, Region, Segment, Segments, Tail, discover},
    types::PhysicalOffset,
    vfs::{Advice, Backing, Reserve, Vfs},
};

const SIZE_KEY: &str = "mappedFileSizeCommitLog";
const PAGE: usize = 4096;
/// Compared with whole pages: the tail of a segment is up to a gigabyte of zeros.
const ZEROS: [u8; PAGE] = [0; PAGE];

/// Bytes up to the last one that is not zero.
pub(super) fn len_without_zeros(bytes: &[u8]) -> usize {
    let mut len = bytes.len();
    for page in bytes.rchunks(PAGE) {
        if page != &ZEROS[..page.len()] {
            return len - page.iter().rev().take_while(|b| **b == 0).count();
        }
        len -= page.len();
    }
    0
}
/// Up to so many kept segments are synced one by one, more by one call for the whole file system.
const SYNC_ONE_BY_ONE: usize = 64;

/// The log's files as they were found. Nothing is changed yet and nothing can be appended.
#[derive(Debug)]
pub struct Loaded {
    vfs: Arc<dyn Vfs>,
    config: Config,
    dir: PathBuf,
    size: usize,
    files: Vec<Segment>,
    empty_last: Option<PathBuf>,
    gaps: Vec<Gap>,
    /// From here on the page cache may show what no disk has.
    doubtful_from: PhysicalOffset,
    mended: Vec<(PathBuf, Option<u64>)>,
    strangers: Vec<PathBuf>,
}

/// Finds and maps the log's files. Changes nothing on disk, unless files are too short or missing among others that
/// have the configured size: those are filled up with zeros, where recovery finds damage then.
///
/// # Errors
/// [`Error::FileSize`] when files have not the configured size (a last file of no bytes is let pass and removed later),
/// [`Error::MissingSegment`] when more are missing than can be made up for, [`Error::Io`].
pub fn load(vfs: Arc<dyn Vfs>, config: &Config) -> Result<Loaded> {
    let dir = config.commit_log_path();
    let bytes = config.commit_log_file_size;
    let size = usize::try_from(bytes).map_err(|_| Error::Config {
        key: SIZE_KEY.into(),
        value: bytes.to_string(),
        why: "does not fit into this machine's memory".into(),
    })?;
    let Discovered { files: names, empty_last, short, strangers } =
        discover(&*vfs, &dir, bytes, SIZE_KEY, config.sizes_are_certain)?;
    for (path, len) in &short {
        match len {
            Some(_) => vfs.set_len(path, bytes).map_err(Error::io("fill up", path))?,
            None => drop(vfs.create(path, bytes, Reserve::None).map_err(Error::io("create", path))?),
        }
    }
    if !short.is_empty() {
        vfs.sync_dir(&dir).map_err(Error::io("sync", &dir))?;
    }
    let mut files = Vec::with_capacity(names.len());
    for (base, path) in names {
        let backing = vfs.open(&path).map_err(Error::io("open", &path))?;
        if backing.len() != size {
            let actual = backing.len() as u64;
            return Err(Error::FileSize { path, actual, expected: bytes, key: SIZE_KEY });
        }
        files.push(Segment { base, path, region: Region::sealed(backing) });
    }
    let (config, gaps, doubtful_from) = (config.clone(), Vec::new(), PhysicalOffset(i64::MAX));
    Ok(Loaded { vfs, config, dir, size, files, empty_last, gaps, doubtful_from, mended: short, strangers })
}

impl Loaded {
    /// Base offset and all bytes of each file, oldest first.
    pub fn segments(&self) -> impl DoubleEndedIterator<Item = (PhysicalOffset, &[u8])> + ExactSizeIterator {
        self.files.iter().map(|file| (file.base, file.region.bytes()))
    }

    /// Bytes of each file.
    #[must_use]
    pub fn segment_size(&self) -> usize {
        self.size
    }

    /// Start of the oldest file.
    #[must_use]
    pub fn first_offset(&self) -> Option<PhysicalOffset> {
        self.files.first().map(|file| file.base)
    }

    /// End of the newest file, 0 when there is none.
    #[must_use]
    pub fn end_of_files(&self) -> PhysicalOffset {
        self.files.last().map_or(PhysicalOffset::ZERO, Segment::end)
    }

    /// For each file, the position behind which only zeros follow: what was reserved and never written need not be
    /// read to know.
    #[must_use]
    pub fn data_ends(&self) -> Vec<usize> {
        self.files.iter().map(|file| data_end(&file.region, 0)).collect()
    }

    /// Fails where `range` of file `number` has bytes that cannot be read: whoever touched them would end by a signal.
    ///
    /// # Errors
    /// [`Error::Unreadable`].
    pub fn check_readable(&self, number: usize, range: Range<usize>) -> Result<()> {
        self.files.get(number).map_or(Ok(()), |file| file.region.check_readable(&file.path, range))
    }

    /// At most `len` bytes at `at`, fewer at the end of a file; `None` outside of all files.
    ///
    /// # Errors
    /// [`Error::Unreadable`].
    pub fn bytes_at(&self, at: PhysicalOffset, len: usize) -> Result<Option<&[u8]>> {
        let found = self.files.iter().find(|file| file.base <= at && at < file.end());
        let Some(file) = found else { return Ok(None) };
        let from = usize::try_from(at.since(file.base)).unwrap_or(usize::MAX);
        let range = from..from.saturating_add(len).min(file.region.len());
        file.region.check_readable(&file.path, range.clone())?;
        Ok(file.region.bytes().get(range))
    }

    /// The bytes of the record that may begin at `at`, as many as it states; `None` outside of all files.
    ///
    /// # Errors
    /// [`Error::Unreadable`].
    pub fn record_at(&self, at: PhysicalOffset) -> Result<Option<&[u8]>> {
        let start = self.bytes_at(at, MIN_RECORD)?.unwrap_or_default();
        let stated = start.first_chunk().map_or(0, |four| u32::from_be_bytes(*four));
        self.bytes_at(at, usize::try_from(stated).unwrap_or(usize::MAX).max(MIN_RECORD))
    }

    /// Says how the next pass will read; a hint.
    pub fn advise(&self, advice: Advice) {
        for file in &self.files {
            file.region.advise(advice);
        }
    }

    /// Files that were too short or missing, with their lengths before, and names that are none of the log's.
    pub fn oddities(&mut self) -> (Vec<(PathBuf, Option<u64>)>, Vec<PathBuf>) {
        (std::mem::take(&mut self.mended), std::mem::take(&mut self.strangers))
    }

    /// Where each file is, if nothing about them is odd.
    #[must_use]
    pub fn paths(&self) -> Option<Vec<&Path>> {
        let even = self.empty_last.is_none() && self.mended.is_empty() && self.strangers.is_empty();
        even.then(|| self.files.iter().map(|file| file.path.as_path()).collect())
    }

    /// The log as it was closed, ending at `end`, which lies within it: nothing is looked at or changed.
    ///
    /// # Errors
    /// [`Error::Io`] when a mapping is still in use.
    pub fn resumed(
        mut self,
        end: PhysicalOffset,
        clock: Arc<dyn Clock>,
    ) -> Result<(Arc<CommitLog>, Appender)> {
        let files = std::mem::take(&mut self.files).into_iter();
        let kept = files
            .map(|Segment { base, path, region }| owned(region, &path).map(|backing| (base, path, backing)))
            .collect::<Result<_>>()?;
        let (segments, tail) = run(kept, end, self.size);
        Ok(CommitLog::start(self.vfs, &self.config, self.dir, segments, tail, end, clock))
    }

    /// Lets [`Loaded::recovered`] close these gaps.
    #[must_use]
    pub fn with_gaps(mut self, gaps: Vec<Gap>) -> Self {
        self.gaps = gaps;
        self
    }

    /// Lets [`Loaded::recovered`] write everything again from the page of `from` on: a sync may have failed there, after
    /// which the system calls pages clean that the disk has not got.
    #[must_use]
    pub fn with_doubts(mut self, from: PhysicalOffset) -> Self {
        self.doubtful_from = from;
        self
    }

    /// Ends the log at `end` and makes the appender. What is cut or lies in a gap and is not zero is kept below
    /// `quarantine` first; then later segments are removed, the rest of the last is zeroed, gaps are closed, and
    /// everything kept is synced.
    ///
    /// # Errors
    /// [`Error::Io`]. Nothing that was to be kept is lost then; opening again starts over.
    pub fn recovered(
        mut self,
        end: PhysicalOffset,
        clock: Arc<dyn Clock>,
    ) -> Result<(Arc<CommitLog>, Appender)> {
        let end = self.clamp(end);
        let size = self.size as u64;
        self.vfs.create_dir_all(&self.dir).map_err(Error::io("create", &self.dir))?;
        if let Some(empty) = self.empty_last.take() {
            self.vfs.remove(&empty).map_err(Error::io("remove", &empty))?;
        }
        // What lies behind a hole that ends the log was never looked at.
        for file in self.files.iter().filter(|file| file.end() > end) {
            let from = usize::try_from(end.since(file.base)).unwrap_or(self.size);
            file.region.check_readable(&file.path, from..self.size)?;
        }
        self.keep_aside(end, &*clock)?;
        self.remove_from(end)?;
        let mut kept: Vec<(PhysicalOffset, PathBuf, Box<dyn Backing>)> = Vec::with_capacity(self.files.len());
        for Segment { base, path, region } in std::mem::take(&mut self.files) {
            let gaps: Vec<_> = self.gaps.iter().filter_map(|gap| gap.within(base, self.size)).collect();
            let from = usize::try_from(end.since(base)).unwrap_or(self.size).min(self.size);
            let mut dirty =
                if end.since(base) < size { dirty_pages(&region, from..self.size) } else { Vec::new() };
            for gap in &gaps {
                dirty.append(&mut dirty_pages(&region, gap.range()));
            }
            let backing = owned(region, &path)?;
            for page in dirty {
                backing
                    .write(page.start, &ZEROS[..page.len()])
                    .map_err(Error::io("zero a part of", &path))?;
            }
            for gap in gaps {
                gap.close(&*backing, base, self.config.append_prop_crc)
                    .map_err(Error::io("close a gap in", &path))?;
            }
            let doubtful = usize::try_from(self.doubtful_from.since(base)).unwrap_or(self.size);
            backing.rewrite_from(doubtful).map_err(Error::io("write again", &path))?;
            kept.push((base, path, backing));
        }
        self.sync(&kept)?;
        let (segments, tail) = run(kept, end, self.size);
        Ok(CommitLog::start(self.vfs, &self.config, self.dir, segments, tail, end, clock))
    }

    /// The end within what is there; without files, the start of a segment.
    fn clamp(&self, end: PhysicalOffset) -> PhysicalOffset {
        match self.first_offset() {
            Some(first) => PhysicalOffset(end.0.clamp(first.0, self.end_of_files().0)),
            None => {
                let size = i64::try_from(self.size).unwrap_or(i64::MAX);
                let end = end.0.max(0);
                PhysicalOffset(end.saturating_add(size - 1) / size * size)
            }
        }
    }

    fn keep_aside(&self, end: PhysicalOffset, clock: &dyn Clock) -> Result<()> {
        let mut quarantine = Quarantine::new(&*self.vfs, self.config.path("quarantine"));
        let mut keep = |file: &Segment, range: Range<usize>, why| {
            let upto = range.end.min(data_end(&file.region, range.start));
            let cut = file.region.bytes().get(range.start..upto).unwrap_or_default();
            quarantine.keep(file.base.plus(range.start), cut, &file.path, clock.now(), why)
        };
        for file in &self.files {
            for gap in self.gaps.iter().filter_map(|gap| gap.within(file.base, self.size)) {
                keep(file, gap.range(), "damaged")?;
            }
        }
        for file in self.files.iter().filter(|file| file.end() > end) {
            let from = usize::try_from(end.since(file.base)).unwrap_or(self.size);
            keep(file, from..self.size, "tail")?;
        }
        quarantine.finish()
    }

    /// Removes the segments that start behind `end`, the last first, so that a kill leaves no gap. The one that starts
    /// at `end` stays, to be written next.
    fn remove_from(&mut self, end: PhysicalOffset) -> Result<()> {
        while let Some(last) = self.files.pop_if(|file| file.base > end) {
            self.vfs.remove(&last.path).map_err(Error::io("remove", &last.path))?;
            // One by one: of two removals a power cut may keep the second alone, and leave a gap.
            self.sync_dir(&self.dir)?;
        }
        self.sync_dir(&self.dir)
    }

    fn sync_dir(&self, dir: &Path) -> Result<()> {
        self.vfs.sync_dir(dir).map_err(Error::io("sync", dir))
    }

    /// What is accepted must be durable before it is served: after a kill it may be in the page cache alone.
    fn sync(&self, kept: &[(PhysicalOffset, PathBuf, Box<dyn Backing>)]) -> Result<()> {
        if kept.len() > SYNC_ONE_BY_ONE {
            return self.vfs.sync_all(&self.dir).map_err(Error::io("sync", &self.dir));
        }
        for (_, path, backing) in kept {
            backing.sync(0..backing.len()).map_err(Error::io("sync", path))?;
        }
        Ok(())
    }
}

fn owned(region: Arc<Region>, path: &Path) -> Result<Box<dyn Backing>> {
    // `Loaded` lends bytes by borrow only, so it is the one owner.
    region.into_backing().ok_or_else(|| Error::Io {
        action: "take over",
        path: path.into(),
        source: std::io::Error::other("the file's mapping is still in use"),
    })
}

/// The run of segments, all read-only but the one that holds `end`.
fn run(
    kept: Vec<(PhysicalOffset, PathBuf, Box<dyn Backing>)>,
    end: PhysicalOffset,
    size: usize,
) -> (Segments, Option<Tail>) {
    let mut open = None;
    let segments: Vec<_> = kept
        .into_iter()
        .map(|(base, path, backing)| {
            backing.advise(Advice::Random);
            let at = usize::try_from(end.since(base)).unwrap_or(size);
            let region = if at < size {
                let (region, tail) = Region::with_tail(backing, at);
                open = Some(tail);
                region
            } else {
                Region::sealed(backing)
            };
            Arc::new(Segment { base, path, region })
        })
        .collect();
    (Segments::new(size, segments), open)
}

/// Behind the last byte from `from` on that may be anything but zero.
fn data_end(region: &Region, from: usize) -> usize {
    region.data_from(from).last().map_or(from, |range| range.end)
}

/// The ranges of a page at most, within `range`, that hold anything but zeros.
fn dirty_pages(region: &Region, range: Range<usize>) -> Vec<Range<usize>> {
    let mut dirty = Vec::new();
    for data in region.data_from(range.start).take_while(|data| data.start < range.end) {
        let end = data.end.min(range.end);
        for at in (data.start..end).step_by(PAGE) {
            let page = at..end.min(at + PAGE);
            if region.bytes()[page.clone()] != ZEROS[..page.len()] {
                dirty.push(page);
            }
        }
    }
    dirty
}
