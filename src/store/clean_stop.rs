//! The proof that nobody has touched a store since it was closed: the `cleanStop` file.
//!
//! It is written when everything is durable and no sync has failed in between, just before `abort` goes, and says for
//! every file what the file system says of it that no write leaves as it was. It goes when the store is open again.
//! Whatever does not fit makes the next open read the whole log, as if there were no such file: it may be missing, and is
//! believed only as a whole.
//!
//! ```text
//! close                                   open
//! everything durable                      no `abort`, `cleanStop` whole, same settings
//! stamps of all files -> `cleanStop`      every file's stamp is the one in it
//! its own stamp is later than all others  the checkpoint is ours and of the same end
//! remove `abort`                          write `abort`, then remove `cleanStop`
//! ```

use std::{path::Path, sync::Arc, time::Duration};

use super::Inner;
use crate::{
    commit_log::Loaded,
    config::Config,
    consume_queue::QueueTable,
    error::{Error, Result},
    format::{checkpoint::Checkpoint, clean_stop::CleanStop, message::Header},
    recovery::Closed,
    types::{FileStamp, PhysicalOffset, StoreTimestamp},
    vfs::Vfs,
};

const NAME: &str = "cleanStop";
/// The longest file that is read: room for a million queues.
const LIMIT: u64 = 1 << 30;
/// File systems tell times apart in steps of a few milliseconds; a write within the step of the last one is not seen.
const STEP: Duration = Duration::from_millis(10);
/// Turns of waiting for such a step to pass; a file system with longer ones keeps no proof.
const TURNS: usize = 4;
/// What decides which entries a record makes, which records count, and how long files are.
const SETTINGS: [&str; 13] = [
    "mappedFileSizeCommitLog",
    "mappedFileSizeConsumeQueue",
    "mappedFileSizeConsumeQueueExt",
    "mapperFileSizeBatchConsumeQueue",
    "maxHashSlotNum",
    "maxIndexNum",
    "messageIndexEnable",
    "checkCRCOnRecover",
    "forceVerifyPropCRC",
    "enableConsumeQueueExt",
    "enableLmq",
    "enableMultiDispatch",
    "messageDelayLevel",
];

pub(super) fn settings(config: &Config) -> String {
    format!("{:?}", SETTINGS.map(|key| config.get(key).unwrap_or_default()))
}

pub(super) fn stamp_of(vfs: &dyn Vfs, path: &Path) -> Result<Option<FileStamp>> {
    Ok(vfs.stat(path).map_err(Error::io("look at", path))?.and_then(|entry| entry.stamp))
}

/// The directories in which a topic, or an index file, may come or go.
fn directories(vfs: &dyn Vfs, config: &Config) -> Result<Vec<(String, Option<FileStamp>)>> {
    let names = QueueTable::DIRS.iter().chain(&["index"]);
    names.map(|name| Ok(((*name).to_owned(), stamp_of(vfs, &config.path(name))?))).collect()
}

/// Leaves the proof behind, if there is one. The store is closed as well without it.
pub(super) fn leave(inner: &Inner) {
    let left = gather(inner).and_then(|found| found.map_or(Ok(false), |found| write(inner, &found)));
    if !matches!(left, Ok(true)) {
        // What cannot be removed either is not believed: its own stamp is not later than all others, or it is torn.
        let _ = remove(&*inner.vfs, &inner.config);
    }
}

/// Removes the proof: the store is open, and no file stays what it was.
pub(super) fn remove(vfs: &dyn Vfs, config: &Config) -> Result<()> {
    let path = config.path(NAME);
    vfs.remove(&path).map_err(Error::io("remove", &path))
}

fn gather(inner: &Inner) -> Result<Option<CleanStop>> {
    let (vfs, config, end) = (&*inner.vfs, &*inner.config, inner.log.durable_offset());
    let (last_record, last_timestamp) = inner.reput.last();
    let agreed = inner.reput.dispatched() == end
        && (!config.message_index || inner.reput.indexed() == end)
        && inner.log.max_offset() == end
        && inner.retention.disk.is_followed()
        && inner.report.damage.is_empty();
    if !agreed || last_timestamp == StoreTimestamp::ZERO {
        return Ok(None);
    }
    let segments = inner.log.segments_info()?;
    let paths = segments.iter().map(|segment| stamp_of(vfs, &segment.path));
    let Some(stamps) = paths.collect::<Result<Option<Vec<_>>>>()? else { return Ok(None) };
    let index = inner.index.files().into_iter();
    // A file that somebody has cut lacks what was written to it.
    let whole = |stamp: &FileStamp, size: u64| stamp.len == size;
    let index = index.map(|file| {
        let stamp = stamp_of(vfs, &file.path)?.filter(|stamp| whole(stamp, file.file_size));
        Ok(stamp.map(|stamp| (file.name, stamp)))
    });
    let Some(index) = index.collect::<Result<Option<Vec<_>>>>()? else { return Ok(None) };
    if !stamps.iter().all(|stamp| whole(stamp, config.commit_log_file_size)) {
        return Ok(None);
    }
    let Some(queues) = inner.table.at_rest()? else { return Ok(None) };
    Ok(Some(CleanStop {
        settings: settings(config),
        begin: inner.log.min_offset(),
        end,
        last_record,
        last_timestamp,
        segments: stamps,
        directories: directories(vfs, config)?,
        index,
        queues,
    }))
}

/// Says whether the file's own stamp is later than all others, as that of every later write will be.
fn write(inner: &Inner, found: &CleanStop) -> Result<bool> {
    let path = inner.config.path(NAME);
    let latest = stamps(found).map(|stamp| stamp.changed).max().unwrap_or(0);
    for turn in 0..TURNS {
        if turn > 0 {
            inner.clock.sleep(STEP);
        }
        inner.vfs.replace(&path, found.encode().as_bytes()).map_err(Error::io("write", &path))?;
        if stamp_of(&*inner.vfs, &path)?.is_some_and(|own| own.changed > latest) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn stamps(found: &CleanStop) -> impl Iterator<Item = &FileStamp> {
    let runs = found.queues.iter().flat_map(|queue| std::iter::once(&queue.run).chain(&queue.ext));
    let named = found.index.iter().map(|(_, stamp)| stamp);
    let directories = found.directories.iter().filter_map(|(_, stamp)| stamp.as_ref());
    runs.flat_map(|run| &run.files).chain(&found.segments).chain(named).chain(directories)
}

/// A store that nobody has touched since it was closed.
pub(super) struct Untouched {
    pub(super) table: QueueTable,
    pub(super) closed: Closed,
}

/// The queues of the store, and where its log ends, if nobody has touched a file since it was closed. Changes nothing.
pub(super) fn untouched(
    vfs: &Arc<dyn Vfs>,
    config: &Config,
    checkpoint: &Checkpoint,
    log: &Loaded,
) -> Result<Option<Untouched>> {
    // What cannot be read proves nothing.
    let Ok(Some(bytes)) = vfs.read(&config.path(NAME), LIMIT) else { return Ok(None) };
    let Some(found) = CleanStop::decode(&bytes) else { return Ok(None) };
    let last_record = (found.last_record, found.last_timestamp);
    let of_now = found.settings == settings(config)
        && checkpoint.durable_end == Some(found.end)
        && log.first_offset() == Some(found.begin)
        && ends_as(log, found.end, last_record)?;
    if !of_now || !same_files(&**vfs, config, log, &found)? {
        return Ok(None);
    }
    let table = QueueTable::resume(Arc::clone(vfs), config, &found.queues)?;
    let closed = Closed { end: found.end, last_record };
    Ok(table.map(|table| Untouched { table, closed }))
}

fn same_files(vfs: &dyn Vfs, config: &Config, log: &Loaded, found: &CleanStop) -> Result<bool> {
    let Some(paths) = log.paths().filter(|paths| paths.len() == found.segments.len()) else {
        return Ok(false);
    };
    for (path, stamp) in paths.into_iter().zip(&found.segments) {
        if stamp_of(vfs, path)? != Some(*stamp) {
            return Ok(false);
        }
    }
    let dir = config.path("index");
    let listed = vfs.list(&dir).map_err(Error::io("list", &dir))?;
    let same = listed.len() == found.index.len()
        && listed
            .iter()
            .zip(&found.index)
            .all(|(entry, (name, stamp))| entry.name == *name && entry.stamp == Some(*stamp));
    Ok(same && directories(vfs, config)? == found.directories)
}

/// Whether the last record stands where it stood and nothing stands at the end.
fn ends_as(log: &Loaded, end: PhysicalOffset, last: (PhysicalOffset, StoreTimestamp)) -> Result<bool> {
    const SIZE_AND_MAGIC: usize = 8;
    let unwritten = match log.bytes_at(end, SIZE_AND_MAGIC)? {
        Some(rest) => rest.iter().all(|byte| *byte == 0),
        None => log.end_of_files() == end,
    };
    let header = log.record_at(last.0)?.and_then(|rest| Header::peek(rest).ok());
    let is_last = header.is_some_and(|header| {
        (header.physical_offset, header.store_timestamp) == last && last.0.plus(header.total_size) <= end
    });
    Ok(unwritten && is_last)
}
