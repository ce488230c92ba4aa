//! What an overlay holds otherwise than the disk: the differences that writes made through it would make there.

use std::{
    fs::File,
    io,
    ops::Range,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use super::overlay::{Mapping, Node, OverlayVfs, PAGE};

/// Ranges that are listed of one file; more are only counted.
const MAX_RANGES: usize = 1024;

/// How a file of an overlay differs from the disk's.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change {
    /// The file.
    pub path: PathBuf,
    /// What became of the name.
    pub kind: ChangeKind,
    /// Bytes that differ, each range within a page, in order: the first 1024 of them.
    pub ranges: Vec<Range<u64>>,
    /// How many ranges there are in all.
    pub count: usize,
}

/// What became of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChangeKind {
    /// The disk has no such file.
    Made,
    /// It is gone here; `zero` when it holds nothing but zeros.
    Removed {
        /// Nothing was in it.
        zero: bool,
    },
    /// Some bytes differ.
    Bytes,
    /// The lengths differ.
    Resized {
        /// The length on the disk.
        from: u64,
        /// The length here.
        to: u64,
    },
}

impl OverlayVfs {
    /// The files that differ from the disk's, by path. Reads the pages that were stored into, and no others.
    ///
    /// # Errors
    /// What the system says when a file on the disk cannot be read.
    pub fn changes(&self) -> io::Result<Vec<Change>> {
        let nodes = self.nodes.lock();
        let mut changes = Vec::new();
        for (path, node) in nodes.iter() {
            match node {
                Node::Directory => {}
                Node::Gone => changes.extend(removed(path)?),
                Node::File { map, .. } => changes.extend(changed(path, map)?),
            }
        }
        Ok(changes)
    }
}

fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn removed(path: &Path) -> io::Result<Option<Change>> {
    let Some(file) = open(path)?.filter(|file| file.metadata().is_ok_and(|meta| meta.is_file())) else {
        return Ok(None);
    };
    let len = usize::try_from(file.metadata()?.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
    let map = Mapping::private(file, len)?;
    let mut zero = true;
    let mut at = 0;
    while let Some(data) = map.data_from(at).filter(|_| zero) {
        for page in data.clone().step_by(PAGE) {
            zero &= map.copy(page..data.end.min(page + PAGE)).iter().all(|byte| *byte == 0);
        }
        at = data.end;
    }
    Ok(Some(Change { path: path.into(), kind: ChangeKind::Removed { zero }, ranges: Vec::new(), count: 0 }))
}

fn changed(path: &Path, map: &Mapping) -> io::Result<Option<Change>> {
    let Some(disk) = open(path)? else {
        return Ok(Some(Change { path: path.into(), kind: ChangeKind::Made, ranges: Vec::new(), count: 0 }));
    };
    let (from, to) = (disk.metadata()?.len(), map.len() as u64);
    let kind = if from == to { ChangeKind::Bytes } else { ChangeKind::Resized { from, to } };
    let shared = map.len().min(usize::try_from(from).unwrap_or(usize::MAX));
    let mut change = Change { path: path.into(), kind, ranges: Vec::new(), count: 0 };
    let mut before = vec![0; PAGE];
    let mut at = 0;
    while let Some(page) = map.changed_page(at..shared)? {
        let before = &mut before[..page.len()];
        disk.read_exact_at(before, page.start as u64)?;
        let after = map.copy(page.clone());
        let differs = |(a, b): (&u8, &u8)| a != b;
        let pairs = || before.iter().zip(&after);
        if let (Some(first), Some(last)) = (pairs().position(differs), pairs().rposition(differs)) {
            change.count += 1;
            if change.ranges.len() < MAX_RANGES {
                change.ranges.push((page.start + first) as u64..(page.start + last + 1) as u64);
            }
        }
        at = page.end;
    }
    Ok(Some(change).filter(|change| change.count > 0 || change.kind != ChangeKind::Bytes))
}

impl Mapping {
    /// The next page that may differ from the disk's. Of memory without a file below that is every page.
    fn changed_page(&self, range: Range<usize>) -> io::Result<Option<Range<usize>>> {
        if range.is_empty() {
            return Ok(None);
        }
        if self.has_file() {
            return self.own_page(range);
        }
        Ok(Some(range.start..range.end.min((range.start / PAGE + 1) * PAGE)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::{Reserve, Vfs};

    #[test]
    fn every_difference_is_listed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("same"), vec![7; 10_000]).unwrap();
        std::fs::write(path("bytes"), vec![7; 10_000]).unwrap();
        std::fs::write(path("short"), vec![7; 10]).unwrap();
        std::fs::write(path("gone"), vec![7; 10]).unwrap();
        std::fs::write(path("gone-zero"), vec![0; 9000]).unwrap();
        let over = OverlayVfs::new();
        over.open(&path("same")).unwrap().write(5000, &[7; 100]).unwrap();
        over.open(&path("bytes")).unwrap().write(4090, &[7, 7, 8, 8, 8, 8, 8, 8, 7]).unwrap();
        over.set_len(&path("short"), 20).unwrap();
        over.remove(&path("gone")).unwrap();
        over.remove(&path("gone-zero")).unwrap();
        over.create(&path("made"), 10, Reserve::None).unwrap();
        over.create(&path("made-and-gone"), 10, Reserve::None).unwrap();
        over.remove(&path("made-and-gone")).unwrap();
        let seen: Vec<_> = over
            .changes()
            .unwrap()
            .into_iter()
            .map(|change| {
                let name = change.path.file_name().unwrap().to_str().unwrap().to_owned();
                (name, change.kind, change.ranges)
            })
            .collect();
        let none = Vec::new;
        let expected = [
            ("bytes", ChangeKind::Bytes, vec![4092..4096, 4096..4098]),
            ("gone", ChangeKind::Removed { zero: false }, none()),
            ("gone-zero", ChangeKind::Removed { zero: true }, none()),
            ("made", ChangeKind::Made, none()),
            ("short", ChangeKind::Resized { from: 10, to: 20 }, none()),
        ];
        assert_eq!(seen, expected.map(|(name, kind, ranges)| (name.to_owned(), kind, ranges)));
    }
}
