//! A run of files of equal size, each named by the offset of its first byte in 20 digits.
//!
//! Invariant: the files of a run follow one another without a gap, so a place is found by division. The run grows at
//! its end ([`Segments::push`], by the appender alone) and shrinks at its front ([`Segments::pop_oldest`], by retention
//! alone); readers take what they need under a read lock and keep it by its `Arc`.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::RwLock;

use super::Segment;
use crate::{
    error::{Error, Result},
    types::PhysicalOffset,
    vfs::Vfs,
};

/// The name of the file that starts at `base`.
///
/// ```text
/// 0          -> 00000000000000000000
/// 1073741824 -> 00000000001073741824
/// ```
#[must_use]
pub fn file_name(base: i64) -> String {
    format!("{base:020}")
}

/// The offset that a file name stands for; `None` when it is not 20 digits.
#[must_use]
pub fn parse_name(name: &str) -> Option<i64> {
    if name.len() == 20 && name.bytes().all(|b| b.is_ascii_digit()) { name.parse().ok() } else { None }
}

/// Missing files that are made up for; more are no accident.
const MAX_MISSING: u64 = 1024;

/// What a directory holds of a run.
#[derive(Debug, Default)]
pub struct Discovered {
    /// Base offset and path of each file, in order and without a gap; those of `short` among them.
    pub files: Vec<(PhysicalOffset, PathBuf)>,
    /// A last file of no bytes: a creation that was cut short. Not one of `files`.
    pub empty_last: Option<PathBuf>,
    /// Files that are shorter than the others, with their length, and missing ones between others.
    pub short: Vec<(PathBuf, Option<u64>)>,
    /// Files whose names belong to no run.
    pub strangers: Vec<PathBuf>,
}

/// Lists the run in `dir`, whose files have `size` bytes each as configured by `key`. Names that belong to no run are
/// passed over. Changes nothing.
///
/// A file that is too short is damaged when another has the configured size, or when `certain` says that the
/// configuration is right; else the configuration is taken for the wrong one.
///
/// # Errors
/// [`Error::FileSize`] for a file of another size, [`Error::MissingSegment`] for a gap that no accident makes,
/// [`Error::Io`].
pub fn discover(
    vfs: &dyn Vfs,
    dir: &Path,
    size: u64,
    key: &'static str,
    certain: bool,
) -> Result<Discovered> {
    let mut found = Discovered::default();
    let mut files = Vec::new();
    for entry in vfs.list(dir).map_err(Error::io("list", dir))? {
        let path = dir.join(&entry.name);
        match parse_name(&entry.name) {
            Some(base) if !entry.is_dir => files.push((PhysicalOffset(base), path, entry.len)),
            _ => found.strangers.push(path),
        }
    }
    files.sort();
    if files.last().is_some_and(|(_, _, len)| *len == 0) {
        found.empty_last = files.pop().map(|(_, path, _)| path);
    }
    let proven = certain || files.iter().any(|(_, _, len)| *len == size);
    let step = usize::try_from(size).unwrap_or(usize::MAX);
    for (base, path, actual) in files {
        // A short file is damaged; one that stands where none of this size can is of another configuration.
        let elsewhere = actual < size && base.0.unsigned_abs() % size.max(1) != 0;
        if actual > size || elsewhere || (actual < size && !proven) {
            return Err(Error::FileSize { path, actual, expected: size, key });
        }
        while let Some((before, _)) = found.files.last()
            && before.plus(step) != base
        {
            let missing = before.plus(step);
            let gap = u64::try_from(base.0.saturating_sub(missing.0)).unwrap_or(u64::MAX);
            if gap % size.max(1) != 0 || gap / size.max(1) > MAX_MISSING {
                return Err(Error::MissingSegment { dir: dir.into(), missing });
            }
            let path = dir.join(file_name(missing.0));
            found.short.push((path.clone(), None));
            found.files.push((missing, path));
        }
        if actual < size {
            found.short.push((path.clone(), Some(actual)));
        }
        found.files.push((base, path));
    }
    Ok(found)
}

/// The files of a run that are in use, oldest first.
#[derive(Debug)]
pub struct Segments {
    size: usize,
    run: RwLock<VecDeque<Arc<Segment>>>,
}

impl Segments {
    /// A run of files of `size` bytes each.
    #[must_use]
    pub fn new(size: usize, segments: impl IntoIterator<Item = Arc<Segment>>) -> Self {
        Self { size, run: RwLock::new(segments.into_iter().collect()) }
    }

    /// Bytes of each file.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// The file that holds `at`.
    #[must_use]
    pub fn find(&self, at: PhysicalOffset) -> Option<Arc<Segment>> {
        let run = self.run.read();
        let distance = usize::try_from(at.0.checked_sub(run.front()?.base.0)?).ok()?;
        run.get(distance / self.size).cloned()
    }

    /// The oldest file.
    #[must_use]
    pub fn first(&self) -> Option<Arc<Segment>> {
        self.run.read().front().cloned()
    }

    /// The newest file.
    #[must_use]
    pub fn last(&self) -> Option<Arc<Segment>> {
        self.run.read().back().cloned()
    }

    /// Every file that holds a byte of `from..to`, oldest first.
    #[must_use]
    pub fn between(&self, from: PhysicalOffset, to: PhysicalOffset) -> Vec<Arc<Segment>> {
        let run = self.run.read();
        // Newest first: what is asked for is nearly always the last one or two of many.
        let mut hit: Vec<_> =
            run.iter().rev().skip_while(|s| s.base >= to).take_while(|s| s.end() > from).cloned().collect();
        hit.reverse();
        hit
    }

    /// All files, oldest first.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Segment>> {
        self.run.read().iter().cloned().collect()
    }

    /// Adds the file that follows the newest.
    ///
    /// # Panics
    /// When it does not follow it.
    pub fn push(&self, segment: Arc<Segment>) {
        let mut run = self.run.write();
        assert!(run.back().is_none_or(|last| last.end() == segment.base), "a gap in the run");
        run.push_back(segment);
    }

    /// Takes the oldest file out of the run, unless it is the only one. Readers that hold it keep it.
    pub fn pop_oldest(&self) -> Option<Arc<Segment>> {
        let mut run = self.run.write();
        if run.len() > 1 { run.pop_front() } else { None }
    }

    /// Puts back what [`Segments::pop_oldest`] took and what could not be removed.
    pub fn put_back(&self, segment: Arc<Segment>) {
        let mut run = self.run.write();
        if run.front().is_some_and(|first| segment.end() == first.base) {
            run.push_front(segment);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        segment::Region,
        vfs::{OsVfs, Reserve},
    };

    #[test]
    fn names_are_twenty_digits_and_read_back() {
        assert_eq!(file_name(1 << 30), "00000000001073741824");
        assert_eq!(parse_name("00000000001073741824"), Some(1 << 30));
        for bad in [
            "0",
            "000000000010737418240",
            "0000000000107374182x",
            "-0000000000000000001",
            "",
            "99999999999999999999",
        ] {
            assert_eq!(parse_name(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_place_is_found_in_its_file_and_a_range_in_all_it_touches() {
        let dir = tempfile::tempdir().unwrap();
        let run = Segments::new(100, []);
        assert!(run.find(PhysicalOffset(0)).is_none() && run.pop_oldest().is_none());
        for base in [300, 400, 500] {
            let path = dir.path().join(file_name(base));
            let region = Region::sealed(OsVfs.create(&path, 100, Reserve::None).unwrap());
            run.push(Arc::new(Segment { base: PhysicalOffset(base), path, region }));
        }
        let base = |at| run.find(PhysicalOffset(at)).map(|s| s.base.0);
        assert_eq!(
            [299, 300, 399, 400, 599, 600, -1].map(base),
            [None, Some(300), Some(300), Some(400), Some(500), None, None]
        );
        let between = |from, to| {
            run.between(PhysicalOffset(from), PhysicalOffset(to)).iter().map(|s| s.base.0).collect::<Vec<_>>()
        };
        assert_eq!(between(399, 401), [300, 400]);
        assert_eq!(between(400, 500), [400]);
        assert_eq!(between(0, 1000), [300, 400, 500]);
        assert_eq!(between(450, 450), [400]);
        assert!(between(600, 700).is_empty() && between(0, 300).is_empty());
        let overlap = |from, to| run.first().unwrap().overlap(PhysicalOffset(from), PhysicalOffset(to));
        assert_eq!((overlap(0, 350), overlap(350, 900), overlap(900, 950)), (0..50, 50..100, 100..100));
        let oldest = run.pop_oldest().unwrap();
        assert_eq!(base(350), None);
        run.put_back(oldest);
        assert_eq!((base(350), base(450)), (Some(300), Some(400)));
        assert_eq!(discover(&OsVfs, dir.path(), 100, "k", false).unwrap().files.len(), 3);
    }
}
