//! Directory entries: those that programs see, those on the disk, and the changes in between.
//!
//! A change becomes durable when its directory is synced; until then a crash takes it or leaves it, each on its own.
//! A rename is one change. A directory that is not durable takes everything below it along.

use std::{
    borrow::{Borrow, Cow},
    collections::BTreeMap,
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// What a name leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Dir,
    /// A file by its number.
    File(u64),
}

/// A path in the order of its bytes. Comparing two by their parts, as `Path` does, would be a fifth of a crash image's
/// cost; a directory comes before what is in it either way, and all below it stands together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name(Arc<OsStr>);

impl Name {
    fn new(path: &Path) -> Self {
        Self(plain(path).as_os_str().into())
    }

    pub(super) fn path(&self) -> &Path {
        Path::new(&*self.0)
    }

    /// The name of the directory that holds it.
    fn parent(&self) -> &[u8] {
        let bytes = self.0.as_bytes();
        match bytes.iter().rposition(|byte| *byte == b'/') {
            Some(0) => b"/",
            Some(at) => &bytes[..at],
            None => b"",
        }
    }
}

impl Borrow<OsStr> for Name {
    fn borrow(&self) -> &OsStr {
        &self.0
    }
}

/// The path without what `Path` passes over when it compares.
fn plain(path: &Path) -> Cow<'_, Path> {
    let bytes = path.as_os_str().as_bytes();
    let odd = |pair: &[u8]| pair == b"//" || pair == b"/.";
    if bytes.len() > 1 && (bytes.ends_with(b"/") || bytes.windows(2).any(odd)) {
        Cow::Owned(path.components().collect())
    } else {
        Cow::Borrowed(path)
    }
}

pub(super) type Names = BTreeMap<Name, Entry>;

/// One change of names that is made whole or not at all.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) since: u64,
    sets: Vec<(Name, Option<Entry>)>,
}

impl Change {
    pub(super) fn apply(&self, names: &mut Names) {
        for (name, entry) in &self.sets {
            match entry {
                Some(entry) => names.insert(name.clone(), *entry),
                None => names.remove(name),
            };
        }
    }

    fn is_in(&self, dir: &Path) -> bool {
        self.sets.iter().any(|(name, _)| name.parent() == dir.as_os_str().as_bytes())
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
        if is_root(path) { Some(Entry::Dir) } else { self.live.get(plain(path).as_os_str()).copied() }
    }

    pub(super) fn change(&mut self, since: u64, sets: Vec<(PathBuf, Option<Entry>)>) {
        let sets = sets.into_iter().map(|(path, entry)| (Name::new(&path), entry)).collect();
        let change = Change { since, sets };
        change.apply(&mut self.live);
        self.pending.push(change);
    }

    /// Makes the names in `dir` durable.
    pub(super) fn sync(&mut self, dir: &Path) {
        let dir = plain(dir);
        let (now, later) =
            std::mem::take(&mut self.pending).into_iter().partition(|c: &Change| c.is_in(&dir));
        self.pending = later;
        now.iter().for_each(|change: &Change| change.apply(&mut self.durable));
    }

    pub(super) fn sync_all(&mut self) {
        std::mem::take(&mut self.pending).iter().for_each(|change| change.apply(&mut self.durable));
    }

    /// The names in `dir`, sorted.
    pub(super) fn children(&self, dir: &Path) -> impl Iterator<Item = (&Path, Entry)> {
        let dir = plain(dir).into_owned().into_os_string();
        let mut start = dir.clone();
        if !start.is_empty() && !start.as_bytes().ends_with(b"/") {
            start.push("/");
        }
        let from: (std::ops::Bound<&OsStr>, _) =
            (std::ops::Bound::Excluded(&start), std::ops::Bound::Unbounded);
        let below = self.live.range::<OsStr, _>(from);
        below
            .take_while(move |(name, _)| name.0.as_bytes().starts_with(start.as_bytes()))
            .filter(move |(name, _)| name.parent() == dir.as_bytes())
            .map(|(name, entry)| (name.path(), *entry))
    }
}

pub(super) fn is_root(path: &Path) -> bool {
    path.as_os_str().is_empty() || path.parent().is_none()
}

/// Leaves out what hangs on directories that are not there.
pub(super) fn reachable(names: Names) -> Names {
    let mut kept = Names::new();
    for (name, entry) in names {
        // Sorted, so a directory comes before what is in it.
        let parent = OsStr::from_bytes(name.parent());
        if is_root(Path::new(parent)) || kept.get(parent) == Some(&Entry::Dir) {
            kept.insert(name, entry);
        }
    }
    kept
}
