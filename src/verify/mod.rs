//! Whether a store directory is whole, without writing one byte of it.
//!
//! Two proofs that do not share their reasoning. First the store's own recovery runs over [`OverlayVfs`] with every
//! check on: whatever opening would change is something that is not as it should be (`changes`). Then what recovery
//! came to is held against the invariants of FORMAT.md by a second walk, which trusts only the bytes of the log
//! (`invariants`): each record has its entry and its keys, each entry and each key has its record.
//!
//! Each finding is shown as it is made; what is kept of them is bounded.

mod changes;
mod finding;
mod invariants;
#[cfg(feature = "broker")]
mod json;
mod names;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use finding::{Finding, Level, Part, Summary};

use crate::{
    clock::SystemClock,
    config::Config,
    error::{Error, Result},
    format::checkpoint::{Checkpoint, SIZE as CHECKPOINT_SIZE},
    recovery::RecoveryReport,
    store::Store,
    types::{PhysicalOffset, StoreTimestamp},
    vfs::{OsVfs, OverlayVfs, Vfs},
};
use finding::Findings;

/// How far the second walk has come, in bytes of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes walked.
    pub done: u64,
    /// Bytes in all.
    pub total: u64,
}

/// The configuration with every check on.
#[must_use]
pub fn strictly(config: Config) -> Config {
    config.check_crc_on_recover(true).force_verify_prop_crc(true)
}

/// Checks the store in `config.root` and shows what is found. Blocks until the log was read, twice where it is not in
/// memory. Not one byte of the directory changes; the caller sees to it that nobody else writes meanwhile.
///
/// ```
/// use reput::{Config, Message, Store, verify};
/// # let dir = tempfile::tempdir()?;
/// # let config = Config::new(dir.path()).commit_log_file_size(1_u64 << 20);
/// let store = Store::open(config.clone())?;
/// store.put(&Message::new(store.queue("orders", 0)?, b"paid"))?.wait()?;
/// store.close()?;
/// let summary = verify::verify(config, &mut |finding| println!("{finding}"), &mut |_| {})?;
/// assert!(summary.is_whole());
/// assert_eq!(summary.records, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`Error::FileSize`] when the files are of another configuration, [`Error::ForeignFile`] when there is no directory,
/// [`Error::Io`] when something cannot be read. The directory could not be checked then.
pub fn verify(
    config: Config,
    show: &mut dyn FnMut(&Finding),
    progress: &mut dyn FnMut(Progress),
) -> Result<Summary> {
    verify_on(&OsVfs, config, show, progress)
}

/// [`verify()`] with `vfs` to tell what is on the disk now; what opening comes to is seen over the real one.
fn verify_on(
    vfs: &dyn Vfs,
    config: Config,
    show: &mut dyn FnMut(&Finding),
    progress: &mut dyn FnMut(Progress),
) -> Result<Summary> {
    let config = strictly(config);
    let root = config.root.clone();
    if !vfs.stat(&root).map_err(Error::io("look at", &root))?.is_some_and(|entry| entry.is_dir) {
        return Err(Error::ForeignFile { path: root, expected: "store directory" });
    }
    let mut findings = Findings::new(show);
    names::check(vfs, &config, &mut findings)?;
    let before = checkpoint(vfs, &config, &mut findings)?;
    let overlay = Arc::new(OverlayVfs::new());
    let over: Arc<dyn Vfs> = Arc::<OverlayVfs>::clone(&overlay);
    let (store, _steps) = Store::open_stepped(config.clone(), over, Arc::new(SystemClock::new()))?;
    let report = store.recovery_report();
    recovered(&config, report, &mut findings);
    changes::check(&config, vfs, &overlay, report, &mut findings)?;
    let newest = invariants::check(&store, &overlay, &mut findings, progress)?;
    if let Some(before) = before {
        beyond(&config, &before, newest, report.end, &mut findings);
    }
    Ok(findings.summary)
}

/// Opens the store in `config.root` with every check on, which mends what [`verify()`] finds, and closes it: queues and
/// index follow the log again, damage and torn tails are kept in `quarantine/`, gaps are closed. Says what was done.
///
/// # Errors
/// As [`Store::open`] and [`Store::close`]. Nothing that was readable is lost then.
pub fn repair(config: Config) -> Result<RecoveryReport> {
    let store = Store::open(strictly(config))?;
    let report = store.recovery_report().clone();
    store.close()?;
    Ok(report)
}

/// What recovery has to say of the log.
fn recovered(config: &Config, report: &RecoveryReport, findings: &mut Findings<'_>) {
    let log = config.commit_log_path();
    findings.summary.log_end = report.end;
    if report.aborted {
        let what = "the store was not closed, or is open";
        findings.note(Part::Directory, &config.path("abort"), None, what.into());
    }
    for file in &report.files {
        let part = if file.path.starts_with(&log) { Part::Log } else { Part::Queue };
        let what = match file.len {
            Some(len) => format!("has only {len} bytes"),
            None => "is missing".into(),
        };
        findings.damage(part, &file.path, file.len, what);
    }
    let file_of = |at: PhysicalOffset| {
        let size = config.commit_log_file_size.max(1);
        let at = at.since(PhysicalOffset::ZERO);
        (log.join(format!("{:020}", at - at % size)), Some(at % size))
    };
    for range in &report.damage {
        let (path, at) = file_of(range.from);
        let what = format!("no record from {} to {}: {}", range.from, range.to, range.why);
        if range.is_closed() {
            findings.note(Part::Log, &path, at, what);
        } else {
            findings.damage(Part::Log, &path, at, what);
        }
    }
    if let Some(why) = report.torn {
        let (path, at) = file_of(report.end);
        findings.damage(Part::Log, &path, at, format!("the log ends at {}, bytes follow: {why}", report.end));
    }
    if report.queues.unplaced > 0 {
        let what = format!(
            "{} records whose topic, queue or number cannot be are in no queue",
            report.queues.unplaced
        );
        findings.note(Part::Queue, &log, None, what);
    }
}

fn checkpoint(vfs: &dyn Vfs, config: &Config, findings: &mut Findings<'_>) -> Result<Option<Checkpoint>> {
    let path = config.path("checkpoint");
    let Some(bytes) = vfs.read(&path, 1 << 20).map_err(Error::io("read", &path))? else {
        findings.note(Part::Checkpoint, &path, None, "is not there".into());
        return Ok(None);
    };
    if bytes.len() != CHECKPOINT_SIZE {
        findings.damage(
            Part::Checkpoint,
            &path,
            None,
            format!("has {} bytes, not {CHECKPOINT_SIZE}", bytes.len()),
        );
    }
    Ok(Some(Checkpoint::decode(&bytes)))
}

/// Fields that claim more than the log holds: RocketMQ would begin its recovery behind what it must look at.
fn beyond(
    config: &Config,
    checkpoint: &Checkpoint,
    newest: StoreTimestamp,
    end: PhysicalOffset,
    findings: &mut Findings<'_>,
) {
    let path = config.path("checkpoint");
    let times = [
        (0, "physicMsgTimestamp", checkpoint.physic_timestamp),
        (8, "logicsMsgTimestamp", checkpoint.logics_timestamp),
        (16, "indexMsgTimestamp", checkpoint.index_timestamp),
    ];
    for (at, field, time) in times {
        if time > newest {
            let what = format!("{field} {time} is later than the newest record, {newest}");
            findings.damage(Part::Checkpoint, &path, Some(at), what);
        }
    }
    for (at, field, place) in [
        (32, "confirmPhyOffset", checkpoint.confirm_offset),
        (40, "logicsPhysicalOffset", checkpoint.logics_offset),
    ] {
        if place > end {
            let what = format!("{field} {place} is behind the end of the log, {end}");
            findings.damage(Part::Checkpoint, &path, Some(at), what);
        }
    }
}
