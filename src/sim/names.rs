//! Directory entries: those that programs see, those on the disk, and the changes in between.
//!
//! A change becomes durable when its directory is synced; until then a crash takes it or leaves it, each on its own.
//! A rename is one change. A directory that is not durable takes everything below it along.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// What a name leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Dir,
    /// A file by its number.
    File(u64),
}

pub(super) type Names = BTreeMap<PathBuf, Entry>;

/// One change of names that is made whole or not at all.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) since: u64,
    sets: Vec<(PathBuf, Option<Entry>)>,
}

impl Change {
    pub(super) fn apply(&self, names: &mut Names) {
        for (path, entry) in &self.sets {
            match entry {
                Some(entry) => names.insert(path.clone(), *entry),
                None => names.remove(path),
            };
        }
    }

    fn is_in(&self, dir: &Path) -> bool {
        self.sets.iter().any(|(path, _)| path.parent() == Some(dir))
    }
}

/// All names of a disk.
#[derive(Clone, Debug, Default)]
pub(super) struct Tree {
    pub(super) live: Names,
    pub(super) durable: Names,
    pub(super) pending: Vec<Change>,
}

impl Tree {
    /// The tree of a disk that holds just these names.
    pub(super) fn settled(names: Names) -> Self {
        Self { live: names.clone(), durable: names, pending: Vec::new() }
    }

    pub(super) fn get(&self, path: &Path) -> Option<Entry> {
        if is_root(path) { Some(Entry::Dir) } else { self.live.get(path).copied() }
    }

    pub(super) fn change(&mut self, since: u64, sets: Vec<(PathBuf, Option<Entry>)>) {
        let change = Change { since, sets };
        change.apply(&mut self.live);
        self.pending.push(change);
    }

    /// Makes the names in `dir` durable.
    pub(super) fn sync(&mut self, dir: &Path) {
        let (now, later) = std::mem::take(&mut self.pending).into_iter().partition(|c: &Change| c.is_in(dir));
        self.pending = later;
        now.iter().for_each(|change: &Change| change.apply(&mut self.durable));
    }

    pub(super) fn sync_all(&mut self) {
        std::mem::take(&mut self.pending).iter().for_each(|change| change.apply(&mut self.durable));
    }

    /// The names in `dir`, sorted.
    pub(super) fn children<'t>(&'t self, dir: &'t Path) -> impl Iterator<Item = (&'t PathBuf, Entry)> {
        let from = std::ops::Bound::Excluded(dir.to_path_buf());
        let below = self.live.range((from, std::ops::Bound::Unbounded));
        below
            .take_while(move |(path, _)| path.starts_with(dir))
            .filter(move |(path, _)| path.parent() == Some(dir))
            .map(|(path, entry)| (path, *entry))
    }
}

pub(super) fn is_root(path: &Path) -> bool {
    path.as_os_str().is_empty() || path.parent().is_none()
}

/// Leaves out what hangs on directories that are not there.
pub(super) fn reachable(names: Names) -> Names {
    let mut kept = Names::new();
    for (path, entry) in names {
        // Sorted, so a directory comes before what is in it.
        let parent = path.parent().unwrap_or(Path::new(""));
        if is_root(parent) || kept.get(parent) == Some(&Entry::Dir) {
            kept.insert(path, entry);
        }
    }
    kept
}
