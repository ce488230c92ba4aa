//! The CommitLog: appending, reading, flushing.
