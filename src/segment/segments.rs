//! A run of files of equal size, each named by the offset of its first byte in 20 digits.
//!
//! Here is what a directory holds of a run before it is opened; the run itself is in [`super::run`].

use std::path::{Path, PathBuf};

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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        segment::{Region, Segment, Segments},
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
