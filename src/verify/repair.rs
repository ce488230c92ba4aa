//! Mending a store, and saying beforehand what that comes to.
//!
//! Both are [`run`]: [`repair`] over the files, [`plan`] over an overlay of them, of which every difference is then counted.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    checkpoint::{self, fields},
    orphans::{self, Zeroed},
    strictly,
    unreadable::{self, Unreadable},
};
use crate::{
    clock::{Clock, SystemClock},
    config::Config,
    error::{Error, Result},
    format::{
        consume_queue::{BATCH_ENTRY, ENTRY},
        gap::{Piece, pieces},
        index::{HEADER, Header},
    },
    recovery::RecoveryReport,
    segment::SlotTable,
    store::Store,
    types::PhysicalOffset,
    vfs::{Change, ChangeKind, OsVfs, OverlayVfs, Vfs},
};

/// Bytes of the log that are kept in `quarantine/` before they go.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Kept {
    /// The file that holds them.
    pub path: PathBuf,
    /// Where they stood.
    pub from: PhysicalOffset,
    /// How many.
    pub len: u64,
}

/// Damage that becomes what every reader passes over.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClosedGap {
    /// The segment.
    pub path: PathBuf,
    /// The first byte in it.
    pub from: u64,
    /// Behind the last.
    pub to: u64,
    /// Gap records that are written there.
    pub records: u64,
    /// Whether the segment is ended there by a blank.
    pub blank: bool,
}

/// A field of the checkpoint that gets another value.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FieldChange {
    /// Its name in FORMAT.md.
    pub field: &'static str,
    /// What it was. -1 is nothing in durableEnd.
    pub from: i64,
    /// What it becomes.
    pub to: i64,
}

/// What is done to a store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Repair {
    /// What recovery finds and does.
    pub recovery: RecoveryReport,
    /// Pages that the disk does not give back, over which zeros are written. A plan says nothing else where there are
    /// any: what they take with them shows when they are gone.
    pub unreadable: Vec<Unreadable>,
    /// New files of the quarantine.
    pub kept: Vec<Kept>,
    /// Gaps that are closed.
    pub gaps: Vec<ClosedGap>,
    /// Bytes that belong to nobody and become zero.
    pub zeroed: Vec<Zeroed>,
    /// Fields of the checkpoint.
    pub checkpoint: Vec<FieldChange>,
}

/// What becomes of the files of one queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueChange {
    /// Its directory.
    pub dir: PathBuf,
    /// Entries that are put where none is.
    pub added: u64,
    /// Entries that become others.
    pub rewritten: u64,
    /// Entries that go.
    pub dropped: u64,
    /// Files that are made.
    pub files_made: u64,
    /// Files that are removed.
    pub files_removed: u64,
}

/// What becomes of one file of the index.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct IndexChange {
    /// The file.
    pub path: PathBuf,
    /// Entries in it before; `None` when it is not there.
    pub before: Option<u64>,
    /// Entries in it then; `None` when it is removed.
    pub after: Option<u64>,
}

/// What repair would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Plan {
    /// What it would say to have done.
    pub repair: Repair,
    /// Every queue that would change, those of ConsumeQueueExt by the units of 20 bytes that their bytes come to.
    pub queues: Vec<QueueChange>,
    /// Every file of the index that would change.
    pub index: Vec<IndexChange>,
}

/// Says what [`repair`] would do to the store in `config.root`. Not one byte of the directory changes.
///
/// # Errors
/// As [`repair`].
pub fn plan(config: Config) -> Result<Plan> {
    let overlay = Arc::new(OverlayVfs::new());
    let repair = match run(Arc::<OverlayVfs>::clone(&overlay), &config) {
        Err(Error::Unreadable { .. }) => {
            let repair =
                Repair { unreadable: unreadable::find(&OverlayVfs::new(), &config)?, ..Repair::default() };
            return Ok(Plan { repair, ..Plan::default() });
        }
        ran => ran?,
    };
    let mut plan = Plan { repair, ..Plan::default() };
    let root = std::path::absolute(&config.root).map_err(Error::io("find", &config.root))?;
    let disk = OverlayVfs::new();
    let mut queues = BTreeMap::new();
    for change in overlay.changes().map_err(Error::io("compare", &config.root))? {
        let Ok(inside) = change.path.strip_prefix(&root) else { continue };
        let kind = inside.components().next().map(|part| part.as_os_str().to_string_lossy().into_owned());
        match kind.as_deref() {
            Some("consumequeue" | "consumequeue_ext") => {
                queue(&disk, &*overlay, &change, ENTRY, &mut queues)?
            }
            Some("batchconsumequeue") => queue(&disk, &*overlay, &change, BATCH_ENTRY, &mut queues)?,
            Some("index") => plan.index.push(IndexChange {
                before: index_entries(&disk, &change.path)?,
                after: index_entries(&*overlay, &change.path)?,
                path: change.path,
            }),
            _ => {}
        }
    }
    plan.queues = queues.into_values().filter(|queue| *queue != QueueChange::of(&queue.dir)).collect();
    Ok(plan)
}

/// Opens the store in `config.root` with every check on, which mends what [`super::verify()`] finds, and closes it: queues
/// and index follow the log again, damage and torn tails are kept in `quarantine/`, gaps are closed, bytes that belong to
/// nobody become zero. Pages that the disk does not give back are first given up. Says what was done.
///
/// # Errors
/// As [`Store::open`] and [`Store::close`]. Nothing that was readable is lost then.
pub fn repair(config: Config) -> Result<Repair> {
    match run(Arc::new(OsVfs), &config) {
        Err(Error::Unreadable { .. }) => {
            let unreadable = unreadable::give_up(&OsVfs, &config, SystemClock::new().now())?;
            Ok(Repair { unreadable, ..run(Arc::new(OsVfs), &config)? })
        }
        ran => ran,
    }
}

pub(super) fn run(vfs: Arc<dyn Vfs>, config: &Config) -> Result<Repair> {
    let config = strictly(config.clone());
    let (kept_before, checkpoint_before) = (kept(&*vfs, &config)?, checkpoint::read(&*vfs, &config)?);
    let store = Store::open_with(config.clone(), Arc::clone(&vfs), Arc::new(SystemClock::new()))?;
    let recovery = store.recovery_report().clone();
    let zeroed = orphans::clear(&store, &*vfs)?;
    store.close()?;
    let now = kept(&*vfs, &config)?;
    let [before, after] = [checkpoint_before, checkpoint::read(&*vfs, &config)?]
        .map(|bytes| fields(&bytes.unwrap_or_default()));
    let changed = before.into_iter().zip(after).filter(|(before, after)| before != after);
    Ok(Repair {
        unreadable: Vec::new(),
        gaps: gaps(&config, &recovery),
        recovery,
        kept: now.difference(&kept_before).filter_map(|name| kept_as(&config, name)).collect(),
        zeroed,
        checkpoint: changed.map(|((field, from), (_, to))| FieldChange { field, from, to }).collect(),
    })
}

/// The names of the files in the quarantine.
fn kept(vfs: &dyn Vfs, config: &Config) -> Result<BTreeSet<String>> {
    let dir = config.path("quarantine");
    let names = vfs.list(&dir).map_err(Error::io("list", &dir))?.into_iter().map(|entry| entry.name);
    Ok(names.filter(|name| name.ends_with(".bin")).collect())
}

/// What a file of the quarantine holds, by its name: `<offset>-<length>`, and a number where that was taken.
fn kept_as(config: &Config, name: &str) -> Option<Kept> {
    let mut parts = name.strip_suffix(".bin")?.split('-');
    let (from, len) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    Some(Kept { path: config.path("quarantine").join(name), from: PhysicalOffset(from), len })
}

/// The gaps that recovery closes, segment by segment.
fn gaps(config: &Config, report: &RecoveryReport) -> Vec<ClosedGap> {
    let size = config.commit_log_file_size.max(1);
    let mut gaps = Vec::new();
    for range in report.damage.iter().filter(|range| !range.is_closed()) {
        let (mut at, to) = (range.from.since(PhysicalOffset::ZERO), range.to.since(PhysicalOffset::ZERO));
        while at < to {
            let base = at - at % size;
            let (from, upto) = (at - base, (to - base).min(size));
            let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
            let all = pieces(place(from)..place(upto), place(size));
            let records = all.iter().filter(|piece| matches!(piece, Piece::Record(_))).count() as u64;
            if !all.is_empty() {
                let path = config.commit_log_path().join(format!("{base:020}"));
                let blank = records < all.len() as u64;
                gaps.push(ClosedGap { path, from, to: upto, records, blank });
            }
            at = base + size;
        }
    }
    gaps
}

impl QueueChange {
    fn of(dir: &Path) -> Self {
        Self { dir: dir.to_path_buf(), ..Self::default() }
    }
}

/// Counts what becomes of the entries in a file of a queue.
fn queue(
    disk: &dyn Vfs,
    then: &dyn Vfs,
    change: &Change,
    width: usize,
    queues: &mut BTreeMap<PathBuf, QueueChange>,
) -> Result<()> {
    let dir = change.path.parent().unwrap_or(&change.path);
    let queue = queues.entry(dir.to_path_buf()).or_insert_with(|| QueueChange::of(dir));
    match change.kind {
        ChangeKind::Made => queue.files_made += 1,
        ChangeKind::Removed { .. } => queue.files_removed += 1,
        ChangeKind::Bytes | ChangeKind::Resized { .. } => {}
    }
    let (before, after) = (table(disk, &change.path)?, table(then, &change.path)?);
    let len = |table: &Option<SlotTable>| table.as_ref().map_or(0, SlotTable::len);
    // As many as fit into a few pages at once; behind the end of a file all counts as zero.
    let step = width * 512;
    for at in (0..len(&before).max(len(&after))).step_by(step) {
        let read = |table: &Option<SlotTable>| {
            let mut bytes = vec![0; step];
            if let Some(table) = table {
                let there = table.len().saturating_sub(at).min(step);
                table.read(at.min(table.len()), &mut bytes[..there]);
            }
            bytes
        };
        for (was, is) in read(&before).chunks_exact(width).zip(read(&after).chunks_exact(width)) {
            let nothing = |entry: &[u8]| entry.iter().all(|byte| *byte == 0);
            match (was == is, nothing(was), nothing(is)) {
                (true, ..) => {}
                (_, true, _) => queue.added += 1,
                (_, _, true) => queue.dropped += 1,
                _ => queue.rewritten += 1,
            }
        }
    }
    Ok(())
}

pub(super) fn table(vfs: &dyn Vfs, path: &Path) -> Result<Option<SlotTable>> {
    if vfs.stat(path).map_err(Error::io("look at", path))?.is_none() {
        return Ok(None);
    }
    Ok(Some(SlotTable::new(vfs.open(path).map_err(Error::io("open", path))?)))
}

/// The entries that an index file says it has.
fn index_entries(vfs: &dyn Vfs, path: &Path) -> Result<Option<u64>> {
    let Some(table) = table(vfs, path)? else { return Ok(None) };
    let mut head = [0; HEADER];
    if table.len() < HEADER {
        return Ok(Some(0));
    }
    table.read(0, &mut head);
    Ok(Some(Header::decode(&head).map_or(0, |header| u64::from(header.index_count - 1))))
}
