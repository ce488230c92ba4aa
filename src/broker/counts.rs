//! How many messages of each topic wait for a time (`config/timermetrics`), or for the end of their transaction
//! (`config/transactionMetrics`): figures for operators, in RocketMQ's files.
//!
//! Owns the two tables. They are saved every [`EVERY`] and at stop; what a killed broker had not saved is missing, but
//! the timers count anew at start. Called by the timers, by transactions, and by GET_TIMER_METRICS.

use std::{collections::BTreeMap, time::Duration};

use parking_lot::Mutex;

use super::{
    Broker,
    config_file::{ConfigFile, DataVersion},
    json::Json,
};
use crate::{error::Result, types::StoreTimestamp};

/// Time between two saves.
pub(crate) const EVERY: Duration = Duration::from_secs(10);

/// One of the tables.
#[derive(Debug)]
pub(crate) struct Counts {
    /// What RocketMQ calls it.
    field: &'static str,
    table: Mutex<Table>,
    file: ConfigFile,
}

#[derive(Debug, Default)]
struct Table {
    topics: BTreeMap<String, Count>,
    version: DataVersion,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Count {
    count: i64,
    /// When it last changed.
    time: i64,
}

impl Counts {
    /// The messages that wait for a time.
    pub(crate) fn of_timers(file: ConfigFile) -> Result<Self> {
        Self::load("timingCount", file)
    }

    /// The half messages that nobody has ended.
    pub(crate) fn of_transactions(file: ConfigFile) -> Result<Self> {
        Self::load("transactionCount", file)
    }

    fn load(field: &'static str, file: ConfigFile) -> Result<Self> {
        let table = file.load(|json| read(json, field))?.unwrap_or_default();
        Ok(Self { field, table: Mutex::new(table), file })
    }

    /// Counts `change` messages more.
    pub(crate) fn add(&self, topic: &str, change: i64, now: StoreTimestamp) {
        let mut table = self.table.lock();
        table.version.step(now.get());
        if let Some(count) = table.topics.get_mut(topic) {
            count.count += change;
            count.time = now.get();
        } else {
            table.topics.insert(topic.to_owned(), Count { count: change, time: now.get() });
        }
    }

    /// Sets every topic of the table, and of `others`, to what `count` says of it. Topics that count nothing and were
    /// not there stay away.
    pub(crate) fn recount<'a>(
        &self,
        others: impl Iterator<Item = &'a str>,
        now: StoreTimestamp,
        count: impl Fn(&str) -> i64,
    ) {
        let mut table = self.table.lock();
        let mut changed = false;
        for (topic, kept) in &mut table.topics {
            let count = count(topic);
            if kept.count != count {
                *kept = Count { count, time: now.get() };
                changed = true;
            }
        }
        for topic in others {
            let count = count(topic);
            if count != 0 && !table.topics.contains_key(topic) {
                table.topics.insert(topic.to_owned(), Count { count, time: now.get() });
                changed = true;
            }
        }
        if changed {
            table.version.step(now.get());
        }
    }

    /// Forgets a topic.
    pub(crate) fn remove(&self, topic: &str) {
        self.table.lock().topics.remove(topic);
    }

    /// As the file and the wire have it.
    pub(crate) fn to_json(&self) -> Json {
        let table = self.table.lock();
        let topics = table.topics.iter().map(|(topic, count)| {
            let fields = [("count", Json::Int(count.count)), ("timeStamp", Json::Int(count.time))];
            (topic.as_str(), Json::map(fields))
        });
        let topics = Json::map(topics);
        Json::map([("dataVersion", table.version.to_json()), (self.field, topics)])
    }

    /// Writes the file when anything changed. A table that never counted anything has none.
    pub(crate) fn save(&self) -> Result<()> {
        if self.table.lock().topics.is_empty() && !self.file.is_written() {
            return Ok(());
        }
        self.file.save_with(|| self.to_json())
    }
}

fn read(json: &Json, field: &str) -> std::result::Result<Table, String> {
    let topics = json.get(field).ok_or_else(|| format!("no {field}"))?.pairs();
    let topics = topics.iter().filter_map(|(topic, count)| {
        let time = count.int_of("timeStamp").unwrap_or(0);
        Some((topic.text()?.to_owned(), Count { count: count.int_of("count")?, time }))
    });
    Ok(Table {
        topics: topics.collect(),
        version: DataVersion::from_json(json.get("dataVersion")).unwrap_or_default(),
    })
}

impl Broker {
    /// Saves both tables; a failure is told and tried again at the next turn.
    pub(crate) fn save_counts(&self) {
        for counts in [&self.timed, &self.halves] {
            if let Err(error) = counts.save() {
                tracing::error!(%error, table = counts.field, "not saved");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::vfs::OsVfs;

    fn file(dir: &std::path::Path) -> ConfigFile {
        ConfigFile::new(Arc::new(OsVfs), dir, "timermetrics").unwrap()
    }

    #[test]
    fn a_file_that_java_wrote_is_read_and_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let java = r#"{"dataVersion":{"counter":3,"stateVersion":0,"timestamp":1795241268123},"timingCount":{"T":{"count":2,"timeStamp":1795241268123}}}"#;
        std::fs::write(dir.path().join("timermetrics"), java).unwrap();
        let counts = Counts::of_timers(file(dir.path())).unwrap();
        assert_eq!(counts.to_json().compact(), java);
        counts.add("T", -1, StoreTimestamp(1_795_241_268_124));
        counts.add("U", 1, StoreTimestamp(1_795_241_268_125));
        counts.save().unwrap();
        let again = Counts::of_timers(file(dir.path())).unwrap();
        let text = again.to_json().compact();
        assert!(text.contains(r#""T":{"count":1,"timeStamp":1795241268124}"#), "{text}");
        assert!(text.contains(r#""U":{"count":1,"timeStamp":1795241268125}"#), "{text}");
        assert!(text.contains(r#""counter":5,"#), "{text}");
        again.remove("U");
        assert!(!again.to_json().compact().contains("\"U\""));
    }

    #[test]
    fn a_recount_corrects_what_a_kill_left_and_adds_what_waits() {
        let dir = tempfile::tempdir().unwrap();
        let counts = Counts::of_timers(file(dir.path())).unwrap();
        counts.add("gone", 5, StoreTimestamp(1));
        counts.add("right", 2, StoreTimestamp(1));
        counts.recount(["more", "none"].into_iter(), StoreTimestamp(9), |topic| match topic {
            "right" => 2,
            "more" => 3,
            _ => 0,
        });
        let text = counts.to_json().compact();
        assert!(text.contains(r#""gone":{"count":0,"timeStamp":9},"more":{"count":3,"timeStamp":9},"right":{"count":2,"timeStamp":1}"#), "{text}");
        assert!(!text.contains("none"));
    }

    #[test]
    fn a_table_that_never_counted_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        Counts::of_timers(file(dir.path())).unwrap().save().unwrap();
        assert!(!dir.path().join("timermetrics").exists());
    }
}
