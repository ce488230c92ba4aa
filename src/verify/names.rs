//! Names in a store's directory that are none of a store's. They are in nobody's way and nothing removes them.

use std::path::Path;

use super::{
    Part,
    finding::{Findings, Kind, Level},
};
use crate::{
    config::Config,
    error::{Error, Result},
    format::index::is_file_name,
    types::TopicName,
    vfs::{DirEntry, Vfs},
};

/// What RocketMQ and reput keep in a store's directory.
const KNOWN: &[&str] = &[
    "commitlog",
    "consumequeue",
    "consumequeue_ext",
    "batchconsumequeue",
    "index",
    "checkpoint",
    "abort",
    "abort.bak",
    "lock",
    "config",
    "quarantine",
    "deletedTopics",
    "cleanStop",
    "agreed",
    "rocksdbstore",
    "timerwheel",
    "timerlog",
    "compaction",
    "epochFileCheckpoint",
    "popcheckpoint",
    "broker.conf",
];
/// Beginnings of further names of RocketMQ's.
const BEGINNINGS: &[&str] = &["timer", "epoch", "rocksdb", "consumequeue_r", "index_r", "metadata"];

/// Looks at the names.
pub(super) fn check(vfs: &dyn Vfs, config: &Config, findings: &mut Findings<'_>) -> Result<()> {
    for entry in list(vfs, &config.root)? {
        let known =
            KNOWN.contains(&entry.name.as_str()) || BEGINNINGS.iter().any(|b| entry.name.starts_with(b));
        if !known {
            stranger(&config.root, &entry, findings);
        }
    }
    let log = config.commit_log_path();
    for entry in list(vfs, &log)?.iter().filter(|entry| entry.is_dir || !is_number(&entry.name)) {
        stranger(&log, entry, findings);
    }
    for kind in ["consumequeue", "consumequeue_ext", "batchconsumequeue"] {
        queues(vfs, &config.path(kind), findings)?;
    }
    let index = config.path("index");
    for entry in list(vfs, &index)?.iter().filter(|entry| entry.is_dir || !is_file_name(&entry.name)) {
        stranger(&index, entry, findings);
    }
    let quarantine = config.path("quarantine");
    let mut kept = 0;
    for entry in list(vfs, &quarantine)? {
        match entry.name.as_str() {
            name if name.ends_with(".bin") && !entry.is_dir => kept += 1,
            "manifest.jsonl" | "manifest.jsonl.old" => {}
            _ => stranger(&quarantine, &entry, findings),
        }
    }
    let timers = config.path("timerlog");
    for entry in list(vfs, &timers)?.iter().filter(|entry| entry.is_dir || !is_number(&entry.name)) {
        stranger(&timers, entry, findings);
    }
    if kept > 0 {
        let what = format!("{kept} files of bytes that were cut or damaged; its manifest says from where");
        findings.note(Part::Directory, &quarantine, None, what);
    }
    Ok(())
}

fn queues(vfs: &dyn Vfs, kind: &Path, findings: &mut Findings<'_>) -> Result<()> {
    for topic in list(vfs, kind)? {
        let topic_dir = kind.join(&topic.name);
        if !topic.is_dir || TopicName::new(&topic.name).is_err() {
            stranger(kind, &topic, findings);
            continue;
        }
        for queue in list(vfs, &topic_dir)? {
            let dir = topic_dir.join(&queue.name);
            if !queue.is_dir || queue.name.parse::<u32>().is_err() {
                stranger(&topic_dir, &queue, findings);
                continue;
            }
            for file in list(vfs, &dir)?.iter().filter(|file| file.is_dir || !is_number(&file.name)) {
                stranger(&dir, file, findings);
            }
        }
    }
    Ok(())
}

fn stranger(dir: &Path, entry: &DirEntry, findings: &mut Findings<'_>) {
    let (path, what) = (dir.join(&entry.name), "is none of a store's files; left alone".into());
    findings.say(Level::Note, Kind::Stranger, Part::Directory, &path, None, what);
}

fn is_number(name: &str) -> bool {
    name.len() == 20 && name.bytes().all(|byte| byte.is_ascii_digit())
}

fn list(vfs: &dyn Vfs, dir: &Path) -> Result<Vec<DirEntry>> {
    vfs.list(dir).map_err(Error::io("list", dir))
}
