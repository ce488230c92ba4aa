//! What to do with queues and an index that lead into a log which is not there.
//!
//! RocketMQ deletes them, since there is nothing that an entry could mean. Here they are moved into the quarantine: the log
//! may lie on a disk that is not mounted, or be put back. Files of zeros alone are worth nothing and go.
//!
//! The manifest names every file before the first is moved, and a kill in between leaves the rest for the next open.

use std::path::{Path, PathBuf};

use crate::{
    commit_log::Quarantine,
    config::Config,
    consume_queue::QueueTable,
    error::{Error, Result},
    types::StoreTimestamp,
    vfs::{Vfs, check_readable, numbered_files},
};

/// `why` in the manifest.
const WHY: &str = "no log";
/// The index's directory.
const INDEX: &str = "index";
/// Topics, queues, files.
const DEPTH: usize = 3;

/// Moves the files of all queues and of the index into the quarantine; says which.
///
/// # Errors
/// What the file system says.
pub(crate) fn set_aside(vfs: &dyn Vfs, config: &Config, now: StoreTimestamp) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for dir in QueueTable::DIRS {
        numbered_files(vfs, &config.path(dir), DEPTH, &mut found)?;
    }
    numbered_files(vfs, &config.path(INDEX), 1, &mut found)?;
    let root = config.path("quarantine");
    let mut quarantine = Quarantine::new(vfs, root.clone());
    let (mut moves, mut changed) = (Vec::new(), Vec::new());
    for (path, len) in found {
        if is_zero(vfs, &path, len)? {
            vfs.remove(&path).map_err(Error::io("remove", &path))?;
            changed.extend(path.parent().map(Path::to_path_buf));
            continue;
        }
        let name = path.strip_prefix(&config.root).unwrap_or(&path).to_string_lossy().into_owned();
        let kept = free_name(vfs, &root, &name)?;
        quarantine.note(&kept, len, &name, now, WHY)?;
        moves.push((path, root.join(kept)));
    }
    if !moves.is_empty() {
        vfs.create_dir_all(&root).map_err(Error::io("create", &root))?;
    }
    quarantine.finish()?;
    for (from, to) in &moves {
        if let Some(dir) = to.parent() {
            vfs.create_dir_all(dir).map_err(Error::io("create", dir))?;
            changed.push(dir.to_path_buf());
        }
        vfs.rename(from, to).map_err(Error::io("move into the quarantine", from))?;
        changed.extend(from.parent().map(Path::to_path_buf));
    }
    changed.sort_unstable();
    changed.dedup();
    for dir in changed {
        vfs.sync_dir(&dir).map_err(Error::io("sync", &dir))?;
    }
    Ok(moves.into_iter().map(|(from, _)| from).collect())
}

fn is_zero(vfs: &dyn Vfs, path: &Path, len: u64) -> Result<bool> {
    if len == 0 {
        return Ok(true);
    }
    let backing = vfs.open(path).map_err(Error::io("open", path))?;
    check_readable(&*backing, path, 0..backing.len())?;
    let region = crate::segment::Region::sealed(backing);
    let zero = region
        .data_from(0)
        .all(|data| region.bytes().get(data).is_some_and(|bytes| bytes.iter().all(|byte| *byte == 0)));
    Ok(zero)
}

/// `name`, or the first with a number behind it that nothing in the quarantine has.
fn free_name(vfs: &dyn Vfs, root: &Path, name: &str) -> Result<String> {
    let mut kept = name.to_owned();
    let mut number = 1_u32;
    loop {
        let path = root.join(&kept);
        if vfs.stat(&path).map_err(Error::io("look at", &path))?.is_none() {
            return Ok(kept);
        }
        number += 1;
        kept = format!("{name}-{number}");
    }
}
