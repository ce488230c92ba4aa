//! Bytes that belong to nobody: behind the end of a queue's or of an index's entries, where FORMAT.md says that all is
//! zero. Recovery looks a page of zeros far; what stands beyond neither reader comes to, until entries reach it.

use std::{ops::Range, path::PathBuf};

use super::{
    Part,
    finding::{Findings, Kind, Level},
};
use crate::{
    error::{Error, Result},
    format::index::{Geometry, HEADER},
    segment::SlotTable,
    store::Store,
    vfs::Vfs,
};

/// Bytes looked at at once.
const CHUNK: usize = 64 << 10;
/// So many zeros part two finds.
const APART: usize = 64;
/// Finds that one place may make; the rest is counted.
const EACH: usize = 20;

/// Where nothing may be written.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) part: Part,
    pub(super) path: PathBuf,
    /// Up to the end of the file where that lies before.
    pub(super) range: Range<usize>,
    /// Where it is.
    pub(super) what: &'static str,
}

/// Bytes that were found there and made zero.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Zeroed {
    /// The file.
    pub path: PathBuf,
    /// The first byte.
    pub from: u64,
    /// Behind the last.
    pub to: u64,
}

/// The places of a store that is open and at rest.
pub(super) fn places(store: &Store) -> Vec<Place> {
    let (_, table, index) = store.parts();
    let behind = |(path, from): (PathBuf, u64)| Place {
        part: Part::Queue,
        path,
        range: usize::try_from(from).unwrap_or(usize::MAX)..usize::MAX,
        what: "behind the last entry",
    };
    let mut all: Vec<_> = table.queues().iter().flat_map(|queue| queue.unwritten()).map(behind).collect();
    let config = store.config();
    let geometry = Geometry { slots: config.index_slots, entries: config.index_entries };
    for file in index.files() {
        if file.file_size != geometry.file_size() as u64 || file.index_count > geometry.entries {
            // Another geometry's, which is a finding of its own.
            continue;
        }
        let place = |range, what| Place { part: Part::Index, path: file.path.clone(), range, what };
        all.push(place(geometry.entry_at(0)..geometry.entry_at(1), "in entry 0, which is never written"));
        all.push(place(geometry.entry_at(file.index_count)..usize::MAX, "behind the last entry"));
    }
    debug_assert!(all.iter().all(|place| place.part != Part::Index || place.range.start >= HEADER));
    all
}

/// The runs of bytes in a place that are not zero, [`APART`] zeros or more between two.
fn runs(table: &SlotTable, range: Range<usize>) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    let end = range.end.min(table.len());
    let mut bytes = vec![0; CHUNK];
    let mut next = range.start;
    while let Some(data) = table.backing().data_from(next).filter(|data| data.start < end) {
        for at in (data.start..data.end.min(end)).step_by(CHUNK) {
            let bytes = &mut bytes[..CHUNK.min(data.end.min(end) - at)];
            table.read(at, bytes);
            if bytes.iter().all(|byte| *byte == 0) {
                continue;
            }
            for (place, _) in bytes.iter().enumerate().filter(|(_, byte)| **byte != 0) {
                let place = at + place;
                match runs.last_mut() {
                    Some(last) if place < last.end + APART => last.end = place + 1,
                    _ => runs.push(place..place + 1),
                }
            }
        }
        next = data.end;
    }
    runs
}

fn open(vfs: &dyn Vfs, place: &Place) -> Result<Option<SlotTable>> {
    let io = Error::io("look at", &place.path);
    if vfs.stat(&place.path).map_err(io)?.is_none() {
        return Ok(None);
    }
    Ok(Some(SlotTable::new(vfs.open(&place.path).map_err(Error::io("open", &place.path))?)))
}

/// Looks at every place.
pub(super) fn check(store: &Store, vfs: &dyn Vfs, findings: &mut Findings<'_>) -> Result<()> {
    for place in &places(store) {
        let Some(table) = open(vfs, place)? else { continue };
        let runs = runs(&table, place.range.clone());
        for run in runs.iter().take(EACH) {
            let what = format!("{} bytes {}, where all must be zero", run.len(), place.what);
            findings.say(Level::Damage, Kind::Orphan, place.part, &place.path, Some(run.start as u64), what);
        }
        if runs.len() > EACH {
            let what = format!("and {} more like these", runs.len() - EACH);
            findings.say(Level::Damage, Kind::Orphan, place.part, &place.path, None, what);
        }
    }
    Ok(())
}

/// Makes every place zero. No entry is among them, and nothing is appended meanwhile.
pub(super) fn clear(store: &Store, vfs: &dyn Vfs) -> Result<Vec<Zeroed>> {
    let mut zeroed = Vec::new();
    for place in places(store) {
        let Some(table) = open(vfs, &place)? else { continue };
        let runs = runs(&table, place.range.clone());
        let Some(last) = runs.last() else { continue };
        let synced = runs[0].start..last.end;
        for run in runs {
            for at in run.clone().step_by(CHUNK) {
                let zeros = &[0; CHUNK][..CHUNK.min(run.end - at)];
                table.backing().write(at, zeros).map_err(Error::io("zero a part of", &place.path))?;
            }
            let (from, to) = (run.start as u64, run.end as u64);
            zeroed.push(Zeroed { path: place.path.clone(), from, to });
        }
        table.backing().sync(synced).map_err(Error::io("sync", &place.path))?;
    }
    Ok(zeroed)
}
