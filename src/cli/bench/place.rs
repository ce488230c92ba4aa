//! The directory that a run writes into: taken only when it is empty or its own, bounded, and left as it was found.
//!
//! Below `DIR` lie `reput-bench.lock`, locked while a run goes on, and `reput-bench.work`, which holds everything
//! else. A directory with any other name in it is refused, so that nothing of anyone's is removed. What a killed run
//! left is recognised by those names and removed by the next one. Directories that did not exist are removed again.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use reput::vfs::{Lock, OsVfs, Vfs};

use super::{Failure, stop::Stop, units};

const LOCK: &str = "reput-bench.lock";
const WORK: &str = "reput-bench.work";
/// What a fresh ext4 file system has in it.
const HARMLESS: &str = "lost+found";
/// Less room than this is not worth measuring in.
const LEAST_ROOM: u64 = 96 << 20;

/// How much a run may write.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    /// Bytes that lie on the disk at once.
    pub bytes: u64,
    /// Percent of the partition in use, everybody's files together.
    pub used_percent: u32,
}

/// The directory of a run.
#[derive(Debug)]
pub struct Place {
    dir: PathBuf,
    /// Directories that were made for it, the outermost first.
    made: Vec<PathBuf>,
    bound: Bound,
    lock: Option<Box<dyn Lock>>,
}

impl Place {
    /// Takes a directory.
    pub fn take(dir: &Path, bound: Bound, stop: &Stop) -> Result<Self, Failure> {
        let dir = std::path::absolute(dir)?;
        let mut place = Self { made: missing(&dir), dir: dir.clone(), bound, lock: None };
        // From here on a drop removes what was made.
        fs::create_dir_all(&dir).map_err(|e| format!("cannot make {}: {e}", dir.display()))?;
        refuse_others(&dir)?;
        let lock = OsVfs.lock(&dir.join(LOCK)).map_err(|e| format!("cannot lock {}: {e}", dir.display()))?;
        let Some(lock) = lock else {
            place.made.clear();
            return Err(format!("{} is in use by another run of reput bench", dir.display()).into());
        };
        place.lock = Some(lock);
        stop.remove_in_haste(vec![dir.join(WORK), dir.join(LOCK)]);
        remove(&dir.join(WORK))?;
        fs::create_dir_all(dir.join(WORK))?;
        let room = place.room()?;
        if room < LEAST_ROOM {
            return Err(format!(
                "{} has room for {} within the bounds, needed is {} at least: raise --max-bytes or --max-used, or \
                 name another directory with --dir",
                dir.display(),
                units::bytes(room),
                units::bytes(LEAST_ROOM)
            )
            .into());
        }
        Ok(place)
    }

    /// The directory as it was asked for.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A path below the run's own directory; nothing lies there.
    pub fn fresh(&self, name: &str) -> Result<PathBuf, Failure> {
        let path = self.dir.join(WORK).join(name);
        remove(&path)?;
        Ok(path)
    }

    /// Bytes that may still be written: what the partition's share and the run's own bound leave.
    pub fn room(&self) -> Result<u64, Failure> {
        let usage = OsVfs.usage(&self.dir)?;
        let kept_free = usage.total / 100 * u64::from(100 - self.bound.used_percent.min(100));
        let own = self.bound.bytes.saturating_sub(bytes_below(&self.dir.join(WORK)));
        Ok(own.min(usage.free.saturating_sub(kept_free)))
    }

    /// An error when the partition is fuller than allowed.
    pub fn check(&self) -> Result<(), Failure> {
        let usage = OsVfs.usage(&self.dir)?;
        let used = usage.used_ratio() * 100.0;
        if used > f64::from(self.bound.used_percent) {
            return Err(format!(
                "the partition of {} is {used:.1} % full, more than --max-used {} allows: stopped before it fills",
                self.dir.display(),
                self.bound.used_percent
            )
            .into());
        }
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.lock.is_some() {
            for name in [WORK, LOCK] {
                if let Err(error) = remove(&self.dir.join(name)) {
                    eprintln!("warning: {} stays: {error}", self.dir.join(name).display());
                }
            }
        }
        self.lock.take();
        for dir in self.made.iter().rev() {
            // Not empty when somebody else put something there: then it stays.
            let _ = fs::remove_dir(dir);
        }
    }
}

/// The parts of a path that do not exist, the outermost first.
fn missing(dir: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> =
        dir.ancestors().take_while(|path| !path.exists()).map(Path::to_path_buf).collect();
    all.reverse();
    all
}

fn refuse_others(dir: &Path) -> Result<(), Failure> {
    for entry in fs::read_dir(dir).map_err(|e| format!("cannot read {}: {e}", dir.display()))? {
        let name = entry?.file_name();
        if ![LOCK, WORK, HARMLESS].iter().any(|own| name == *own) {
            return Err(format!(
                "{} holds {}, which is not of reput bench: name an empty directory, or one that does not exist, \
                 with --dir",
                dir.display(),
                name.display()
            )
            .into());
        }
    }
    Ok(())
}

/// Removes a file or a directory with all that is in it; no error when it does not exist.
pub fn remove(path: &Path) -> io::Result<()> {
    let gone = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match gone {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        gone => gone,
    }
}

/// Bytes on the disk of all files below a directory. What vanishes meanwhile counts nothing.
pub fn bytes_below(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let sizes = entries.filter_map(Result::ok).map(|entry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => bytes_below(&entry.path()),
        Ok(meta) => meta.blocks() * 512,
        Err(_) => 0,
    });
    sizes.sum()
}

/// The file system of a directory and its options, as the kernel lists its mounts.
pub fn file_system(dir: &Path) -> String {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let lines = mounts.lines().filter_map(|line| {
        // id parent device root mount-point options … - type source super-options
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ').skip(4);
        let (point, options) = (before.next()?, before.next()?);
        let mut after = after.split(' ');
        let (kind, source, super_options) = (after.next()?, after.next()?, after.next().unwrap_or_default());
        dir.starts_with(point)
            .then(|| (point.len(), format!("{kind} on {source} ({options}; {super_options})")))
    });
    // The longest mount point is the nearest; of equal ones the last hides the others.
    lines.max_by_key(|(len, _)| *len).map_or_else(|| "unknown".into(), |(_, text)| text)
}

/// How long the partition may go unlooked at while something is written.
pub const LOOK_EVERY: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    const WIDE: Bound = Bound { bytes: 1 << 30, used_percent: 100 };

    fn take(dir: &Path, bound: Bound) -> Result<Place, Failure> {
        Place::take(dir, bound, &Stop::default())
    }

    #[test]
    fn a_directory_with_somebodys_files_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("broker.conf"), "x").unwrap();
        let error = take(dir.path(), WIDE).unwrap_err().to_string();
        assert!(error.contains("broker.conf"), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn directories_that_were_made_go_again_and_others_stay() {
        let dir = tempfile::tempdir().unwrap();
        let place = take(&dir.path().join("a/b"), WIDE).unwrap();
        fs::create_dir_all(place.fresh("store").unwrap().join("x/y")).unwrap();
        drop(place);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        drop(take(dir.path(), WIDE).unwrap());
        assert!(dir.path().exists(), "it was there before");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_a_killed_run_left_is_removed_and_what_runs_is_not() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join(WORK).join("store/commitlog")).unwrap();
        fs::write(dir.path().join(LOCK), "lock").unwrap();
        fs::create_dir(dir.path().join(HARMLESS)).unwrap();
        let place = take(dir.path(), WIDE).unwrap();
        assert_eq!(fs::read_dir(dir.path().join(WORK)).unwrap().count(), 0);
        let error = take(dir.path(), WIDE).unwrap_err().to_string();
        assert!(error.contains("in use"), "{error}");
        assert!(dir.path().join(WORK).exists());
        drop(place);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "lost+found");
    }

    #[test]
    fn bounds_are_kept_and_named() {
        let dir = tempfile::tempdir().unwrap();
        let tight = Bound { bytes: 1 << 20, ..WIDE };
        let error = take(dir.path(), tight).unwrap_err().to_string();
        assert!(error.contains("--max-bytes") && error.contains("1 MiB"), "{error}");
        let full = Bound { used_percent: 0, ..WIDE };
        let error = take(dir.path(), full).unwrap_err().to_string();
        assert!(error.contains("--max-used"), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        let place = take(dir.path(), WIDE).unwrap();
        let before = place.room().unwrap();
        fs::write(place.fresh("file").unwrap(), vec![1; 8 << 20]).unwrap();
        assert!(place.room().unwrap() + (8 << 20) <= before);
        assert!(place.check().is_ok());
    }

    #[test]
    fn the_file_system_of_a_directory_has_a_name() {
        let text = file_system(Path::new("/proc/self"));
        assert!(text.starts_with("proc on "), "{text}");
    }
}
