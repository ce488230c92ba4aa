//! Pages that the disk does not give back: which they are, and how a store is made to do without them.

use std::{ops::Range, path::PathBuf};

use super::finding::{Findings, Part};
use crate::{
    commit_log::Quarantine,
    config::Config,
    consume_queue::QueueTable,
    error::{Error, Result},
    format::checkpoint::Checkpoint,
    types::StoreTimestamp,
    vfs::{Backing, Vfs, numbered_files},
};

/// The least that is given up.
const PAGE: usize = 4096;
/// Topics, queues, files.
const DEPTH: usize = 3;

/// Bytes of a file that cannot be read, in whole pages but for its end: repair writes zeros over them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unreadable {
    /// The file.
    pub path: PathBuf,
    /// The first of them.
    pub from: u64,
    /// Behind the last.
    pub to: u64,
}

/// Reads all of the log, the queues and the index, and says what cannot be read.
pub(super) fn find(vfs: &dyn Vfs, config: &Config) -> Result<Vec<Unreadable>> {
    let mut files = Vec::new();
    numbered_files(vfs, &config.commit_log_path(), 1, &mut files)?;
    for dir in QueueTable::DIRS {
        numbered_files(vfs, &config.path(dir), DEPTH, &mut files)?;
    }
    numbered_files(vfs, &config.path("index"), 1, &mut files)?;
    let mut found = Vec::new();
    for (path, _) in files.into_iter().filter(|(_, len)| *len > 0) {
        let backing = vfs.open(&path).map_err(Error::io("open", &path))?;
        let ranges = unreadable(&*backing);
        let in_file = |range: Range<usize>| (range.start as u64, range.end as u64);
        found.extend(ranges.into_iter().map(in_file).map(|(from, to)| Unreadable {
            path: path.clone(),
            from,
            to,
        }));
    }
    Ok(found)
}

/// Shows what [`find`] found.
pub(super) fn tell(config: &Config, found: &[Unreadable], findings: &mut Findings<'_>) {
    for Unreadable { path, from, to } in found {
        let part = if path.starts_with(config.commit_log_path()) {
            Part::Log
        } else if path.starts_with(config.path("index")) {
            Part::Index
        } else {
            Part::Queue
        };
        findings.damage(part, path, Some(*from), format!("{} bytes cannot be read", to - from));
    }
}

fn unreadable(backing: &dyn Backing) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    let mut next = 0;
    while let Some(data) = backing.data_from(next) {
        next = data.end;
        if let Some((at, _)) = backing.first_unreadable(data) {
            let page = at / PAGE * PAGE;
            next = (page + PAGE).min(backing.len());
            match ranges.last_mut() {
                Some(last) if last.end == page => last.end = next,
                _ => ranges.push(page..next),
            }
        }
    }
    ranges
}

/// Writes zeros over what cannot be read, so that the disk may put it elsewhere, with a line each in the quarantine's
/// manifest. What was there is damage from then on and never the end of the log: the checkpoint says no more how far
/// the log was durable. Everything is on the disk when this returns. Says what was given up.
///
/// # Errors
/// [`Error::Locked`]; what the file system says, above all when the disk does not take the zeros either.
pub(super) fn give_up(vfs: &dyn Vfs, config: &Config, now: StoreTimestamp) -> Result<Vec<Unreadable>> {
    let lock_path = config.path("lock");
    let lock = vfs.lock(&lock_path).map_err(Error::io("lock", &lock_path))?;
    let _lock = lock.ok_or(Error::Locked { path: lock_path })?;
    let found = find(vfs, config)?;
    if found.is_empty() {
        return Ok(found);
    }
    let root = config.path("quarantine");
    vfs.create_dir_all(&root).map_err(Error::io("create", &root))?;
    let mut quarantine = Quarantine::new(vfs, root);
    for Unreadable { path, from, to } in &found {
        let name = path.strip_prefix(&config.root).unwrap_or(path).to_string_lossy();
        quarantine.note_unreadable(&name, *from..*to, now)?;
    }
    quarantine.finish()?;
    let path = config.path("checkpoint");
    if let Some(bytes) = vfs.read(&path, 1 << 20).map_err(Error::io("read", &path))? {
        let checkpoint = Checkpoint { durable_end: None, ..Checkpoint::decode(&bytes) };
        vfs.replace(&path, &checkpoint.encode()).map_err(Error::io("write", &path))?;
    }
    for Unreadable { path, from, to } in &found {
        let backing = vfs.open(path).map_err(Error::io("open", path))?;
        let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
        for at in (place(*from)..place(*to)).step_by(PAGE) {
            let zeros = &[0; PAGE][..PAGE.min(place(*to) - at)];
            backing.write(at, zeros).map_err(Error::io("write zeros over an unreadable page of", path))?;
        }
        backing.sync(0..backing.len()).map_err(Error::io("sync", path))?;
    }
    Ok(found)
}
