//! What verify has to say: one finding a line, and a summary.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use crate::types::PhysicalOffset;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Level {
    /// Worth knowing; nothing is to be mended.
    Note,
    /// Something is not as it should be; opening or `repair` mends it.
    Damage,
}

/// What sort of thing a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// Something is not what the log says, or not there.
    Content,
    /// A field claims what cannot be.
    Field,
    /// Bytes that belong to nobody, where all must be zero.
    Orphan,
    /// A name that is none of a store's.
    Stranger,
}

impl Kind {
    /// Its name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Content => "content",
            Self::Field => "field",
            Self::Orphan => "orphan",
            Self::Stranger => "stranger",
        }
    }
}

/// Which part of a store a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Part {
    /// The CommitLog.
    Log,
    /// A ConsumeQueue of any kind.
    Queue,
    /// The index.
    Index,
    /// The checkpoint.
    Checkpoint,
    /// The broker's tables below `config`.
    Config,
    /// The directory: names that are none of a store's.
    Directory,
}

impl Part {
    /// Its name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Queue => "queue",
            Self::Index => "index",
            Self::Checkpoint => "checkpoint",
            Self::Config => "config",
            Self::Directory => "directory",
        }
    }
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// What sort of thing it is.
    pub kind: Kind,
    /// What it is about.
    pub part: Part,
    /// The file or directory.
    pub path: PathBuf,
    /// The byte in the file, where one can be named.
    pub at: Option<u64>,
    /// What is wrong.
    pub what: String,
}

impl Finding {
    /// A finding of a caller's own checks, about what is in a file.
    #[must_use]
    pub fn new(
        level: Level,
        part: Part,
        path: impl Into<PathBuf>,
        at: Option<u64>,
        what: impl Into<String>,
    ) -> Self {
        Self { level, kind: Kind::Content, part, path: path.into(), at, what: what.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Note => "note",
            Level::Damage => "DAMAGE",
        };
        write!(f, "{level}: {} {}", self.part.name(), self.path.display())?;
        if let Some(at) = self.at {
            write!(f, " byte {at}")?;
        }
        write!(f, ": {}", self.what)
    }
}

/// What was looked at and how much was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Summary {
    /// Records in the log.
    pub records: u64,
    /// Where the log ends.
    pub log_end: PhysicalOffset,
    /// Queues.
    pub queues: u64,
    /// Queue entries.
    pub entries: u64,
    /// Files of the index.
    pub index_files: u64,
    /// Entries of the index.
    pub index_entries: u64,
    /// Findings of [`Level::Damage`].
    pub damage: u64,
    /// Findings of [`Level::Note`].
    pub notes: u64,
}

impl Summary {
    /// Whether the store is whole.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.damage == 0
    }

    /// Counts a finding of a caller's own checks in.
    pub const fn count(&mut self, level: Level) {
        match level {
            Level::Note => self.notes += 1,
            Level::Damage => self.damage += 1,
        }
    }
}

/// Findings on their way out.
pub(super) struct Findings<'f> {
    show: &'f mut dyn FnMut(&Finding),
    pub(super) summary: Summary,
}

impl<'f> Findings<'f> {
    pub(super) fn new(show: &'f mut dyn FnMut(&Finding)) -> Self {
        Self { show, summary: Summary::default() }
    }

    pub(super) fn add(&mut self, finding: &Finding) {
        self.summary.count(finding.level);
        (self.show)(finding);
    }

    pub(super) fn say(
        &mut self,
        level: Level,
        kind: Kind,
        part: Part,
        path: &Path,
        at: Option<u64>,
        what: String,
    ) {
        self.add(&Finding { kind, ..Finding::new(level, part, path, at, what) });
    }

    pub(super) fn note(&mut self, part: Part, path: &Path, at: Option<u64>, what: String) {
        self.add(&Finding::new(Level::Note, part, path, at, what));
    }

    pub(super) fn damage(&mut self, part: Part, path: &Path, at: Option<u64>, what: String) {
        self.add(&Finding::new(Level::Damage, part, path, at, what));
    }
}
