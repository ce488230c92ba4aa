//! Whether a store directory is whole, without writing one byte of it.
//!
//! Proofs that do not share their reasoning. First the store's own recovery runs over [`OverlayVfs`] with every check on:
//! whatever opening would change is something that is not as it should be (`changes`). Then what recovery came to is held
//! against the invariants of FORMAT.md by a second walk, which trusts only the bytes of the log (`invariants`): each
//! record has its entry and its keys, each entry and each key has its record. Last, what no entry reaches is looked at
//! byte by byte: it must be zero (`orphans`).
//!
//! Each finding is shown as it is made; what is kept of them is bounded. [`plan`] and [`repair`] are one piece of work,
//! the one over an overlay, the other over the files.

mod changes;
mod checkpoint;
mod finding;
mod invariants;
#[cfg(feature = "broker")]
mod json;
mod names;
mod orphans;
mod reading;
mod repair;
mod tell;
#[cfg(test)]
mod tests;
mod unreadable;

use std::sync::Arc;

pub use finding::{Finding, Kind, Level, Part, Summary};
pub use orphans::Zeroed;
pub use repair::{ClosedGap, FieldChange, IndexChange, Kept, Plan, QueueChange, Repair, plan, repair};
pub use unreadable::Unreadable;

use crate::{
    config::Config,
    error::{Error, Result},
    recovery::RecoveryReport,
    types::PhysicalOffset,
    vfs::{OsVfs, OverlayVfs, Vfs},
};
use {finding::Findings, reading::Reading};

/// How far a check has come, in bytes that it reads: those of the log by recovery, then those of the log again by the
/// second walk. What else it looks at is little beside them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes read.
    pub done: u64,
    /// Bytes in all.
    pub total: u64,
}

/// The configuration with every check on, and with no proof believed that something need not be read.
#[must_use]
pub fn strictly(config: Config) -> Config {
    let mut config = config.check_crc_on_recover(true).force_verify_prop_crc(true);
    config.reads_all = true;
    config.reached = crate::config::Reached::default();
    config
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
    let before = checkpoint::read(vfs, &config)?;
    checkpoint::shape(&config, before.as_deref(), &mut findings);
    let overlay = Arc::new(OverlayVfs::new());
    let mut reading = Reading::new(&config, &*overlay, progress)?;
    let store = match reading.open(&config, &overlay) {
        // Which pages it is all in all says more than the first one; what else is wrong shows when they are given up.
        Err(Error::Unreadable { .. }) => {
            unreadable::tell(&config, &unreadable::find(&*overlay, &config)?, &mut findings);
            return Ok(findings.summary);
        }
        opened => opened?,
    };
    let report = store.recovery_report();
    recovered(&config, report, &mut findings);
    changes::check(&config, vfs, &overlay, report, &mut findings)?;
    let newest = invariants::check(&store, &overlay, &mut findings, &mut |now| reading.again(now))?;
    orphans::check(&store, &*overlay, &mut findings)?;
    reading.end();
    if let Some(before) = before {
        let indexed = store.parts().2.files().iter().map(|file| file.end_timestamp).max().unwrap_or_default();
        let path = config.path("checkpoint");
        checkpoint::beyond(&path, &before, [newest, indexed], report.end, &mut findings);
    }
    Ok(findings.summary)
}

/// What recovery has to say of the log.
fn recovered(config: &Config, report: &RecoveryReport, findings: &mut Findings<'_>) {
    let log = config.commit_log_path();
    findings.summary.log_end = report.end;
    if report.aborted {
        let what = "the store was not closed, or is open";
        findings.note(Part::Directory, &config.path("abort"), None, what.into());
    }
    let file_of = |at: PhysicalOffset| {
        let size = config.commit_log_file_size.max(1);
        let at = at.since(PhysicalOffset::ZERO);
        (log.join(format!("{:020}", at - at % size)), Some(at % size))
    };
    for path in &report.aside {
        findings.damage(Part::Directory, path, None, "leads into a log that is not there".into());
    }
    for file in &report.files {
        let part = if file.path.starts_with(&log) { Part::Log } else { Part::Queue };
        let what = match file.len {
            Some(len) => format!("has only {len} bytes"),
            None => "is missing".into(),
        };
        findings.damage(part, &file.path, file.len, what);
    }
    for range in &report.damage {
        let (path, at) = file_of(range.from);
        let what = format!("no record from {} to {}: {}", range.from, range.to, range.why);
        if range.is_closed() {
            findings.note(Part::Log, &path, at, what);
        } else {
            findings.damage(Part::Log, &path, at, what);
        }
    }
    if let Some(why) = report.torn.filter(|_| changes::is_torn(report)) {
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
