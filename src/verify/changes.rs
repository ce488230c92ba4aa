//! What opening the store would change, as findings.

use std::path::Path;

use super::{
    Part,
    finding::{Findings, Kind, Level},
};
use crate::{
    config::Config,
    error::{Corruption, Error, Result},
    format::{
        consume_queue::{BATCH_ENTRY, ENTRY},
        index::Geometry,
    },
    recovery::{DamagedRange, RecoveryReport},
    types::PhysicalOffset,
    vfs::{Change, ChangeKind, OverlayVfs, Vfs},
};

/// Findings that one file may make; the rest is counted.
const EACH: usize = 20;
/// Queue files above this are compared by ranges instead of by entries.
const MAX_FILE: u64 = 64 << 20;

/// Turns the overlay's differences into findings. Those of the log are in the report already.
pub(super) fn check(
    config: &Config,
    vfs: &dyn Vfs,
    overlay: &OverlayVfs,
    report: &RecoveryReport,
    findings: &mut Findings<'_>,
) -> Result<()> {
    let root = std::path::absolute(&config.root).map_err(Error::io("find", &config.root))?;
    let log = std::path::absolute(config.commit_log_path()).map_err(Error::io("find", &config.root))?;
    for change in overlay.changes().map_err(Error::io("compare", &config.root))? {
        if matches!(change.kind, ChangeKind::Removed { zero: true }) {
            // Made ahead and never written.
            continue;
        }
        if change.path.starts_with(&log) {
            log_file(&change, report, findings);
            continue;
        }
        let Ok(inside) = change.path.strip_prefix(&root) else { continue };
        let kind = inside.components().next().map(|part| part.as_os_str().to_string_lossy().into_owned());
        match kind.as_deref() {
            Some("consumequeue") => queue([vfs, overlay], &change, ENTRY, findings)?,
            Some("batchconsumequeue") => queue([vfs, overlay], &change, BATCH_ENTRY, findings)?,
            Some("consumequeue_ext") => ranges(Part::Queue, &change, findings, |_| "ext units".into()),
            Some("index") => index(config, &change, findings),
            _ => {}
        }
    }
    Ok(())
}

/// Whether the log is cut where a record is torn; else what stands behind its end stands behind zeros.
pub(super) fn is_torn(report: &RecoveryReport) -> bool {
    report.torn.is_some_and(|why| !matches!(why, Corruption::Magic { magic: 0 }))
}

/// What becomes of a file of the log. That it is filled up, that its gaps are closed, and that the log is cut where a
/// torn record stands, are findings already; other bytes that go belong to nobody.
fn log_file(change: &Change, report: &RecoveryReport, findings: &mut Findings<'_>) {
    let path = &change.path;
    if report.files.iter().any(|file| file.path == *path) || matches!(change.kind, ChangeKind::Made) {
        return;
    }
    let base = path.file_name().and_then(|name| name.to_str()?.parse().ok()).unwrap_or(0);
    let end = u64::try_from(report.end.0.saturating_sub(base)).unwrap_or(0);
    let behind = change.ranges.iter().filter(|range| range.end > end);
    if !is_torn(report) {
        let mut orphan = |at, what| {
            findings.say(Level::Damage, Kind::Orphan, Part::Log, path, at, what);
        };
        for range in behind.clone().take(EACH) {
            let what = format!("{} bytes behind the end of the log, {}", range.end - range.start, report.end);
            orphan(Some(range.start), what);
        }
        if matches!(change.kind, ChangeKind::Removed { .. }) {
            orphan(None, format!("stands behind the end of the log, {}", report.end));
        }
        let more = behind.count().saturating_sub(EACH);
        if more > 0 {
            orphan(None, format!("and {more} more like these"));
        }
    }
    let before = change.ranges.iter().find(|range| range.end <= end);
    if let Some(range) = before.filter(|_| report.damage.iter().all(DamagedRange::is_closed)) {
        let what = "bytes that belong to no record".into();
        findings.say(Level::Damage, Kind::Orphan, Part::Log, path, Some(range.start), what);
    }
}

/// Compares a queue file entry by entry, as it is and as it would be.
fn queue(
    [before, after]: [&dyn Vfs; 2],
    change: &Change,
    width: usize,
    findings: &mut Findings<'_>,
) -> Result<()> {
    let path = &change.path;
    let base =
        path.file_name().and_then(|name| name.to_str()?.parse::<u64>().ok()).unwrap_or(0) / width as u64;
    let read = |vfs: &dyn Vfs| match vfs.read(path, MAX_FILE) {
        Ok(bytes) => Ok(bytes.unwrap_or_default()),
        Err(error) if error.kind() == std::io::ErrorKind::FileTooLarge => Ok(Vec::new()),
        Err(source) => Err(Error::Io { action: "read", path: path.clone(), source }),
    };
    let (before, after) = (read(before)?, read(after)?);
    if before.is_empty() && after.is_empty() {
        ranges(Part::Queue, change, findings, |_| "entries".into());
        return Ok(());
    }
    match change.kind {
        ChangeKind::Made => {
            findings.damage(Part::Queue, path, None, "is missing; the log makes entries for it".into())
        }
        ChangeKind::Removed { .. } => {
            findings.damage(Part::Queue, path, None, "holds only entries that lead to no message".into());
            return Ok(());
        }
        ChangeKind::Bytes | ChangeKind::Resized { .. } => {}
    }
    let zeros = vec![0; width];
    let mut differing = 0;
    for number in 0..before.len().max(after.len()) / width {
        let entry = |bytes: &[u8]| bytes.get(number * width..(number + 1) * width).unwrap_or(&zeros).to_vec();
        let (was, is) = (entry(&before), entry(&after));
        if was == is {
            continue;
        }
        differing += 1;
        if differing <= EACH {
            let what = match (was == zeros, is == zeros) {
                (true, _) => format!("entry {} is missing: {}", base + number as u64, leads(&is)),
                (_, true) => format!(
                    "entry {} leads to no message of this queue: {}",
                    base + number as u64,
                    leads(&was)
                ),
                _ => format!("entry {} {}; by the log it {}", base + number as u64, leads(&was), leads(&is)),
            };
            findings.damage(Part::Queue, path, Some((number * width) as u64), what);
        }
    }
    more(Part::Queue, path, differing, findings);
    Ok(())
}

fn leads(entry: &[u8]) -> String {
    let number = |at: usize| {
        entry.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| i64::from_be_bytes(*bytes))
    };
    let size = entry.get(8..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| i32::from_be_bytes(*bytes));
    format!("leads to {} ({size} bytes, tags code {})", PhysicalOffset(number(0)), number(12))
}

fn index(config: &Config, change: &Change, findings: &mut Findings<'_>) {
    let path = &change.path;
    match change.kind {
        ChangeKind::Made => findings.damage(Part::Index, path, None, "keys of records have no entry".into()),
        ChangeKind::Removed { .. } => {
            findings.damage(Part::Index, path, None, "is no index of these records".into());
        }
        ChangeKind::Bytes | ChangeKind::Resized { .. } => {
            let geometry = Geometry { slots: config.index_slots, entries: config.index_entries };
            let (slots, entries) = (geometry.slot_at(0) as u64, geometry.entry_at(0) as u64);
            ranges(Part::Index, change, findings, |at| match at {
                _ if at < slots => "the header".into(),
                _ if at < entries => format!("slot {}", (at - slots) / 4),
                _ => format!("entry {}", (at - entries) / 20),
            });
        }
    }
}

/// One finding for each range.
fn ranges(part: Part, change: &Change, findings: &mut Findings<'_>, what: impl Fn(u64) -> String) {
    for range in change.ranges.iter().take(EACH) {
        let what =
            format!("{} is not what the log makes, {} bytes", what(range.start), range.end - range.start);
        findings.damage(part, &change.path, Some(range.start), what);
    }
    if change.count == 0 {
        findings.damage(part, &change.path, None, format!("{}: {:?}", what(0), change.kind));
    }
    more(part, &change.path, change.count, findings);
}

fn more(part: Part, path: &Path, count: usize, findings: &mut Findings<'_>) {
    if count > EACH {
        findings.damage(part, path, None, format!("and {} more like these", count - EACH));
    }
}
