//! Findings, and what repair does, as JSON objects.

use serde_json::{Value, json};

use super::{Finding, Level, Plan, Repair, Summary};

impl Finding {
    /// The finding as a JSON object: `t` is `finding`, `level` is `note` or `damage`, `kind` is [`Kind::name`].
    ///
    /// [`Kind::name`]: super::Kind::name
    #[must_use]
    pub fn to_json(&self) -> Value {
        let level = match self.level {
            Level::Note => "note",
            Level::Damage => "damage",
        };
        json!({
            "t": "finding", "level": level, "kind": self.kind.name(), "part": self.part.name(),
            "path": self.path.display().to_string(), "at": self.at, "what": self.what,
        })
    }
}

impl Summary {
    /// The summary as a JSON object: `t` is `summary`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "t": "summary", "whole": self.is_whole(), "damage": self.damage, "notes": self.notes,
            "records": self.records, "logEnd": self.log_end.0, "queues": self.queues, "queueEntries": self.entries,
            "indexFiles": self.index_files, "indexEntries": self.index_entries,
        })
    }
}

impl Repair {
    /// What is done, as a JSON object; `t` is `repair`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let report = &self.recovery;
        let files =
            report.files.iter().map(|file| json!({"path": file.path.display().to_string(), "len": file.len}));
        let kept = self.kept.iter().map(
            |kept| json!({"path": kept.path.display().to_string(), "offset": kept.from.0, "len": kept.len}),
        );
        let gaps = self.gaps.iter().map(|gap| {
            json!({
                "path": gap.path.display().to_string(), "from": gap.from, "to": gap.to, "records": gap.records,
                "blank": gap.blank,
            })
        });
        let zeroed = self.zeroed.iter().map(
            |zeroed| json!({"path": zeroed.path.display().to_string(), "from": zeroed.from, "to": zeroed.to}),
        );
        let unreadable = self.unreadable.iter().map(
            |pages| json!({"path": pages.path.display().to_string(), "from": pages.from, "to": pages.to}),
        );
        let aside = report.aside.iter().map(|path| json!(path.display().to_string()));
        let fields = self
            .checkpoint
            .iter()
            .map(|change| json!({"field": change.field, "from": change.from, "to": change.to}));
        json!({
            "t": "repair", "records": report.records, "logStart": report.start.0, "logEnd": report.end.0,
            "torn": report.torn.map(|why| why.to_string()),
            "filledUp": files.collect::<Value>(), "quarantine": kept.collect::<Value>(),
            "gaps": gaps.collect::<Value>(),
            "queueEntries": {
                "added": report.queues.added, "rewritten": report.queues.rewritten,
                "dropped": report.queues.dropped, "filled": report.queues.filled,
                "unplaced": report.queues.unplaced,
            },
            "indexKeys": {
                "repaired": report.index.repaired, "added": report.index.added,
                "rebuiltFrom": report.index.rebuilt_from.map(|from| from.0),
            },
            "unreadable": unreadable.collect::<Value>(), "aside": aside.collect::<Value>(),
            "durableBefore": report.durable_before.map(|end| end.0),
            "zeroed": zeroed.collect::<Value>(), "checkpoint": fields.collect::<Value>(),
        })
    }
}

impl Plan {
    /// What would be done, as a JSON object: that of [`Repair::to_json`] with `queues` and `index`; `t` is `plan`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut plan = self.repair.to_json();
        let queues = self.queues.iter().map(|queue| {
            json!({
                "path": queue.dir.display().to_string(), "added": queue.added, "rewritten": queue.rewritten,
                "dropped": queue.dropped, "filesMade": queue.files_made, "filesRemoved": queue.files_removed,
            })
        });
        let index = self.index.iter().map(|file| {
            json!({"path": file.path.display().to_string(), "before": file.before, "after": file.after})
        });
        plan["t"] = "plan".into();
        plan["queues"] = queues.collect();
        plan["index"] = index.collect();
        plan
    }
}
