//! Findings as JSON objects.

use serde_json::{Value, json};

use super::{Finding, Level, Summary};

impl Finding {
    /// The finding as a JSON object: `t` is `finding`, `level` is `note` or `damage`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let level = match self.level {
            Level::Note => "note",
            Level::Damage => "damage",
        };
        json!({
            "t": "finding", "level": level, "part": self.part.name(), "path": self.path.display().to_string(),
            "at": self.at, "what": self.what,
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
