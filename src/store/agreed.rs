//! Where recovery may begin after a kill: the `agreed` file.
//!
//! Once a segment, when all before the segment being written is on the disk in log, queues and index, and no sync has
//! failed, it says which files hold that, and how the file system stamps them. Recovery then begins at that segment,
//! however long the log is. Whatever does not fit makes it begin at the first record, as without the file: one whose
//! `abort` is not this process's, a file that is missing, shorter or another one, a finished file that was written to.
//!
//! ```text
//! upkeep                                        open, with `abort` there
//! log durable beyond a record R, indexed too    `agreed` whole, same settings
//! sync queues and index                         `abort` and all files are those that it names
//! checkpoint with the log's durable end         the checkpoint's durable end lies behind R's segment's start
//! stamps of all files before R's segment        write `abort`, remove `agreed`, recover from R's segment
//! ```

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use super::clean_stop::{settings, stamp_of};
use crate::{
    commit_log::{CommitLog, Loaded},
    config::Config,
    consume_queue::QueueTable,
    error::{Error, Result},
    format::{
        agreed::{Agreed, AgreedFile},
        checkpoint::Checkpoint,
    },
    index::IndexSet,
    recovery::Start,
    reput::ReputShared,
    types::{PhysicalOffset, StoreTimestamp},
    vfs::Vfs,
};

const NAME: &str = "agreed";
/// The longest file that is read: room for some million files.
const LIMIT: u64 = 1 << 30;

/// Keeps the file of a running store.
#[derive(Debug)]
pub(super) struct Agreement {
    vfs: Arc<dyn Vfs>,
    config: Arc<Config>,
    /// What the next one waits for: its segment's start, and a record in it.
    next: Option<(PhysicalOffset, PhysicalOffset)>,
    /// What the last one says, and where the log began then.
    said: Option<(PhysicalOffset, PhysicalOffset)>,
}

impl Agreement {
    pub(super) const fn new(vfs: Arc<dyn Vfs>, config: Arc<Config>) -> Self {
        Self { vfs, config, next: None, said: None }
    }

    /// The segment's start up to which queues and index have to be synced now; there is nothing to do most of the time.
    pub(super) fn due(&mut self, log: &CommitLog, reput: &ReputShared) -> Option<PhysicalOffset> {
        let (first, (record, stored)) = (log.min_offset(), reput.last());
        let Some(segment) = log.segment_of(record).filter(|segment| *segment > first) else {
            // All of the log is one segment: recovery reads that anyhow.
            self.next = None;
            return None;
        };
        if stored == StoreTimestamp::ZERO || self.said == Some((segment, first)) {
            return None;
        }
        let (segment, record) = *self.next.get_or_insert((segment, record));
        let indexed = !self.config.message_index || reput.indexed() > record;
        (indexed && segment > first && log.durable_offset() > record).then_some(segment)
    }

    /// Leaves the file behind: everything before `from` is on the disk.
    pub(super) fn write(
        &mut self,
        from: PhysicalOffset,
        log: &CommitLog,
        table: &QueueTable,
        index: &IndexSet,
    ) -> Result<()> {
        self.next = None;
        let mut named = vec![(self.config.path("abort"), None, true)];
        let segments = log.segments_info()?.into_iter().take_while(|segment| segment.base <= from);
        let size = Some(self.config.commit_log_file_size);
        named.extend(segments.map(|segment| (segment.path, size, segment.base < from)));
        named.extend(table.files().into_iter().map(|(path, size, finished)| (path, Some(size), finished)));
        let keys = if self.config.message_index { index.first_key(from) } else { None };
        if let Some((last, _)) = &keys {
            let found = index.files();
            if !found.iter().any(|file| file.name == *last) {
                return Ok(());
            }
            for file in found.into_iter().take_while(|file| file.name <= *last) {
                let finished = file.name != *last;
                named.push((file.path, Some(file.file_size), finished));
            }
        }
        let files = named.into_iter().map(|(path, size, finished)| self.file(&path, size, finished));
        let Some(files) = files.collect::<Result<Option<Vec<_>>>>()? else { return Ok(()) };
        let path = self.config.path(NAME);
        let text = Agreed { settings: settings(&self.config), from, keys, files }.encode();
        self.vfs.replace(&path, text.as_bytes()).map_err(Error::io("write", &path))?;
        self.said = Some((from, log.min_offset()));
        Ok(())
    }

    /// Removes the file: something that it relies on is not so any more.
    pub(super) fn withdraw(&mut self) -> Result<()> {
        self.next = None;
        remove(&*self.vfs, &self.config)?;
        self.vfs.sync_dir(&self.config.root).map_err(Error::io("sync", &self.config.root))
    }

    /// `None` for one that is gone, as retention or a deleted topic takes it, or has another size than it was made with:
    /// then somebody cut it, and it lacks what was written to it.
    fn file(&self, path: &Path, size: Option<u64>, finished: bool) -> Result<Option<AgreedFile>> {
        let below = path.strip_prefix(&self.config.root).ok().and_then(Path::to_str);
        let stamp = stamp_of(&*self.vfs, path)?.filter(|stamp| size.is_none_or(|size| stamp.len == size));
        Ok(below.zip(stamp).map(|(path, stamp)| AgreedFile { path: path.into(), stamp, finished }))
    }
}

/// Removes the file: the store is open, and `abort` another one.
pub(super) fn remove(vfs: &dyn Vfs, config: &Config) -> Result<()> {
    let path = config.path(NAME);
    vfs.remove(&path).map_err(Error::io("remove", &path))
}

/// Where recovery may begin, if that is not at the first record. Changes nothing.
pub(super) fn start(
    vfs: &dyn Vfs,
    config: &Config,
    checkpoint: &Checkpoint,
    log: &Loaded,
) -> Result<Option<Start>> {
    // What cannot be read proves nothing.
    let Ok(Some(bytes)) = vfs.read(&config.path(NAME), LIMIT) else { return Ok(None) };
    let Some(agreed) = Agreed::decode(&bytes) else { return Ok(None) };
    let of_now = agreed.settings == settings(config)
        && checkpoint.durable_end.is_some_and(|end| end > agreed.from)
        && log.segments().any(|(base, _)| base == agreed.from);
    if !of_now {
        return Ok(None);
    }
    for file in &agreed.files {
        let now = stamp_of(vfs, &config.path(below(&file.path)))?;
        if !now.is_some_and(|now| file.is(&now)) {
            return Ok(None);
        }
    }
    Ok(Some(Start { from: agreed.from, is_late: true, keys: agreed.keys }))
}

/// A path that leads nowhere but below the store's directory.
fn below(path: &str) -> PathBuf {
    let inside = |part: &std::path::Component<'_>| matches!(part, std::path::Component::Normal(_));
    Path::new(path).components().filter(inside).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::faulty::{Call, FaultyVfs};

    #[test]
    fn a_withdrawal_that_is_not_durable_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(NAME), "reput agreed 1").unwrap();
        let vfs = Arc::new(FaultyVfs::default());
        let mut agreement = Agreement::new(Arc::clone(&vfs) as _, Arc::new(Config::new(dir.path())));
        vfs.faults.fail(Call::SyncDir, 0, 1, std::io::ErrorKind::Other);
        assert!(matches!(agreement.withdraw(), Err(Error::Io { action: "sync", .. })));
        agreement.withdraw().unwrap();
        assert!(!dir.path().join(NAME).exists());
    }
}
