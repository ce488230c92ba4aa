//! The queues' files as `cleanStop` and `agreed` tell of them, and queues taken over from `cleanStop` without opening
//! a file.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Queue, QueueKey, QueueKind, QueueTable,
    ext::Ext,
    files::Run,
    mapping::{Disk, Slot},
    queue::State,
    table::Places,
    unit::{MAX_WIDTH, Unit},
};
use crate::{
    config::Config,
    error::{Error, Result},
    format::clean_stop::{QueueAtRest, RunAtRest},
    types::FileStamp,
    vfs::Vfs,
};

/// The stamp of a file as it is now.
fn stamp_of(vfs: &dyn Vfs, path: &Path) -> Result<Option<FileStamp>> {
    Ok(vfs.stat(path).map_err(Error::io("look at", path))?.and_then(|entry| entry.stamp))
}

impl RunAtRest {
    fn of(run: &Run, vfs: &dyn Vfs) -> Result<Option<Self>> {
        let stamps = run.paths().map(|path| stamp_of(vfs, path)).collect::<Result<Option<Vec<_>>>>()?;
        // A file that somebody has cut lacks what was written to it.
        let stamps = stamps.filter(|all| all.iter().all(|stamp| stamp.len == run.file_size()));
        Ok(stamps.filter(|_| run.rests()).map(|files| Self { first: run.first(), end: run.end(), files }))
    }

    /// The run, if its files are still what they were.
    fn resume(&self, disk: &Arc<Disk>, dir: &Path, file_size: u64) -> Result<Option<Run>> {
        let room = file_size.saturating_mul(self.files.len() as u64);
        let behind = self.first.saturating_add(room);
        if !self.first.is_multiple_of(file_size) || !(self.first..=behind).contains(&self.end) {
            return Ok(None);
        }
        let mut slots = Vec::with_capacity(self.files.len());
        for (stamp, base) in self.files.iter().zip((0..).map(|n| self.first + n * file_size)) {
            let path = dir.join(format!("{base:020}"));
            if stamp_of(&*disk.vfs, &path)? != Some(*stamp) {
                return Ok(None);
            }
            slots.push(Slot::closed(base, path));
        }
        Ok(Some(Run::resume(Arc::clone(disk), dir.to_path_buf(), file_size, slots, self.end)))
    }
}

impl Queue {
    fn at_rest(&self, vfs: &dyn Vfs) -> Result<Option<QueueAtRest>> {
        let state = self.lock();
        let Some(run) = RunAtRest::of(&state.run, vfs)? else { return Ok(None) };
        let ext = state.ext.as_ref().map(|ext| RunAtRest::of(&ext.run, vfs)).transpose()?;
        if ext == Some(None) {
            return Ok(None);
        }
        let mut bytes = [0; MAX_WIDTH];
        let last = state.last.map_or_else(Vec::new, |last| last.write(state.kind, &mut bytes).to_vec());
        let QueueKey { topic, id } = self.key().clone();
        let batch = state.kind == QueueKind::Batch;
        let (min, min_offset) = (state.min, self.min_offset());
        Ok(Some(QueueAtRest { topic, id, batch, min, min_offset, last, run, ext: ext.flatten() }))
    }
}

impl QueueTable {
    /// All files, the size that each was made with, and whether entries no longer go there.
    pub(crate) fn files(&self) -> Vec<(PathBuf, u64, bool)> {
        let mut all = Vec::new();
        for queue in self.queues() {
            let state = queue.lock();
            for run in std::iter::once(&state.run).chain(state.ext.as_ref().map(|ext| &ext.run)) {
                let open = run.file_count().saturating_sub(1);
                let sized = |(n, path): (usize, &Path)| (path.to_path_buf(), run.file_size(), n < open);
                all.extend(run.paths().enumerate().map(sized));
            }
        }
        all
    }

    /// How every queue that has files stands. `None` unless all they hold is durable.
    pub(crate) fn at_rest(&self) -> Result<Option<Vec<QueueAtRest>>> {
        let vfs = &*self.places.disk.vfs;
        let queues = self.queues();
        let with_files = queues.iter().filter(|queue| queue.is_anywhere());
        with_files.map(|queue| queue.at_rest(vfs)).collect()
    }

    /// The table as [`QueueTable::at_rest`] told it; `None` when any file is not what it was. Changes nothing.
    pub(crate) fn resume(vfs: Arc<dyn Vfs>, config: &Config, queues: &[QueueAtRest]) -> Result<Option<Self>> {
        let table = Self::empty(vfs, config);
        for rest in queues {
            let key = QueueKey { topic: rest.topic.clone(), id: rest.id };
            let Some(state) = table.places.resume(&key, rest)? else { return Ok(None) };
            let queue = Queue::new(key, state, Arc::clone(&table.waiting));
            queue.publish_at_rest(rest.min_offset);
            table.insert(queue);
        }
        Ok(Some(table))
    }
}

impl Places {
    fn resume(&self, key: &QueueKey, rest: &QueueAtRest) -> Result<Option<State>> {
        let kind = if rest.batch { QueueKind::Batch } else { QueueKind::Simple };
        let (dir, size, _) = self.file_size(kind);
        let Some(run) = rest.run.resume(&self.disk, &self.dir(dir, key), size)? else { return Ok(None) };
        let ext_dir = self.dir(Ext::DIR, key);
        let ext = rest.ext.as_ref().map(|ext| ext.resume(&self.disk, &ext_dir, self.ext_size)).transpose()?;
        if ext.as_ref().is_some_and(Option::is_none) {
            return Ok(None);
        }
        let ext = ext.flatten().map(|run| Ext { run });
        let mut state = State::new(kind, run, ext, self.writes_ext(kind));
        let numbers = state.first()..=state.end();
        let width = Unit::width(kind);
        let fits = numbers.contains(&rest.min)
            && rest.run.end.is_multiple_of(width as u64)
            && rest.run.first.is_multiple_of(width as u64)
            && (rest.last.is_empty() || (rest.last.len() == width && !numbers.is_empty()));
        state.min = rest.min;
        state.last = state.end().checked_sub(1).map(|number| Unit::decode(kind, number, &rest.last));
        state.last = state.last.filter(|_| !rest.last.is_empty());
        Ok(Some(state).filter(|_| fits))
    }
}
