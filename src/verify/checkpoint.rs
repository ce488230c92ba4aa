//! The checkpoint's fields, and what stands between them.

use std::path::Path;

use super::{
    Part,
    finding::{Findings, Kind, Level},
};
use crate::{
    config::Config,
    error::{Error, Result},
    format::checkpoint::{
        CONFIRM_OFFSET_AT, Checkpoint, DURABLE_END_AT, INDEX_TIMESTAMP_AT, LOGICS_OFFSET_AT,
        LOGICS_TIMESTAMP_AT, MASTER_FLUSHED_OFFSET_AT, PHYSIC_TIMESTAMP_AT, SIZE,
    },
    types::{PhysicalOffset, StoreTimestamp},
    vfs::Vfs,
};

/// The largest file that is read.
const LIMIT: u64 = 1 << 20;
/// Behind RocketMQ's last field; all is zero from here to ours.
const FIELDS_END: usize = LOGICS_OFFSET_AT + 8;

/// The bytes of the file.
pub(super) fn read(vfs: &dyn Vfs, config: &Config) -> Result<Option<Vec<u8>>> {
    let path = config.path("checkpoint");
    vfs.read(&path, LIMIT).map_err(Error::io("read", &path))
}

/// What can be said without the log.
pub(super) fn shape(config: &Config, bytes: Option<&[u8]>, findings: &mut Findings<'_>) {
    let path = config.path("checkpoint");
    let Some(bytes) = bytes else {
        findings.note(Part::Checkpoint, &path, None, "is not there".into());
        return;
    };
    if bytes.len() != SIZE {
        let what = format!("has {} bytes, not {SIZE}", bytes.len());
        findings.say(Level::Damage, Kind::Field, Part::Checkpoint, &path, None, what);
    }
    let mut wrong = |kind, at: usize, what| {
        findings.say(Level::Damage, kind, Part::Checkpoint, &path, Some(at as u64), what);
    };
    let between = bytes.get(FIELDS_END..bytes.len().min(DURABLE_END_AT)).unwrap_or_default();
    let strays = || between.iter().enumerate().filter(|(_, byte)| **byte != 0);
    if let Some((first, _)) = strays().next() {
        let what = format!("{} bytes between the fields are not zero", strays().count());
        wrong(Kind::Orphan, FIELDS_END + first, what);
    }
    let ours = bytes.get(DURABLE_END_AT..DURABLE_END_AT + 8);
    if ours.is_some_and(|field| field.iter().any(|byte| *byte != 0)) && durable_end(bytes).is_none() {
        wrong(Kind::Field, DURABLE_END_AT, "durableEnd is below zero".into());
    }
}

fn durable_end(bytes: &[u8]) -> Option<PhysicalOffset> {
    Checkpoint::decode(bytes).durable_end
}

/// Fields that claim more than the log holds: RocketMQ would begin its recovery behind what it must look at, and what
/// was durable is gone. The index may hold later keys than the log has records, of some that are gone from its front.
pub(super) fn beyond(
    path: &Path,
    bytes: &[u8],
    [newest, indexed]: [StoreTimestamp; 2],
    end: PhysicalOffset,
    findings: &mut Findings<'_>,
) {
    let checkpoint = Checkpoint::decode(bytes);
    let mut claims = |level, at: usize, what| {
        findings.say(level, Kind::Field, Part::Checkpoint, path, Some(at as u64), what);
    };
    for (at, field, time, newest) in [
        (PHYSIC_TIMESTAMP_AT, "physicMsgTimestamp", checkpoint.physic_timestamp, newest),
        (LOGICS_TIMESTAMP_AT, "logicsMsgTimestamp", checkpoint.logics_timestamp, newest),
        (INDEX_TIMESTAMP_AT, "indexMsgTimestamp", checkpoint.index_timestamp, newest.max(indexed)),
    ] {
        if time > newest {
            let what = format!("{field} {time} is later than the newest record, {newest}");
            claims(Level::Damage, at, what);
        }
    }
    // A replica keeps here what its master has flushed, and may be behind it.
    for (level, at, field, place) in [
        (Level::Note, MASTER_FLUSHED_OFFSET_AT, "masterFlushedOffset", checkpoint.master_flushed_offset),
        (Level::Damage, CONFIRM_OFFSET_AT, "confirmPhyOffset", checkpoint.confirm_offset),
        (Level::Damage, LOGICS_OFFSET_AT, "logicsPhysicalOffset", checkpoint.logics_offset),
        (Level::Damage, DURABLE_END_AT, "durableEnd", checkpoint.durable_end.unwrap_or_default()),
    ] {
        if place > end {
            claims(level, at, format!("{field} {place} is behind the end of the log, {end}"));
        }
    }
}

/// Each field with its name.
pub(super) fn fields(bytes: &[u8]) -> [(&'static str, i64); 7] {
    let checkpoint = Checkpoint::decode(bytes);
    [
        ("physicMsgTimestamp", checkpoint.physic_timestamp.0),
        ("logicsMsgTimestamp", checkpoint.logics_timestamp.0),
        ("indexMsgTimestamp", checkpoint.index_timestamp.0),
        ("masterFlushedOffset", checkpoint.master_flushed_offset.0),
        ("confirmPhyOffset", checkpoint.confirm_offset.0),
        ("logicsPhysicalOffset", checkpoint.logics_offset.0),
        ("durableEnd", checkpoint.durable_end.map_or(-1, |end| end.0)),
    ]
}
