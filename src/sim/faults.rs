//! Which calls of the seam fail, and how.

use std::{collections::BTreeMap, fmt, io};

/// A call of the seam: a method of [`Vfs`](crate::vfs::Vfs) or [`Backing`](crate::vfs::Backing) that can fail.
///
/// [`Vfs::replace`](crate::vfs::Vfs::replace) is not among them: it comes as the calls that it is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[allow(missing_docs, reason = "named as the methods")]
pub enum Call {
    CreateDir,
    List,
    Stat,
    Create,
    Open,
    Read,
    Rename,
    SetLen,
    Remove,
    RemoveDir,
    SyncDir,
    SyncAll,
    Lock,
    Usage,
    Write,
    Sync,
    Reserve,
}

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Failure {
    /// The device fails: EIO.
    Device,
    /// No space is left: ENOSPC.
    NoSpace,
    /// The process has too many open files: EMFILE.
    TooManyFiles,
}

impl Failure {
    fn error(self) -> io::Error {
        // The numbers are those of Linux on every machine that Rust's standard library knows.
        io::Error::from_raw_os_error(match self {
            Self::Device => 5,
            Self::NoSpace => 28,
            Self::TooManyFiles => 24,
        })
    }
}

/// Calls that are to fail: those of a kind, or all, after `pass` good ones, `times` times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The kind of call; every kind when `None`.
    pub call: Option<Call>,
    /// Calls of the kind that still succeed.
    pub pass: u64,
    /// Calls that fail then; `u64::MAX` for all.
    pub times: u64,
    /// How.
    pub failure: Failure,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.call.map_or_else(|| "call".to_owned(), |call| format!("{call:?}"));
        let times =
            if self.times == u64::MAX { "for ever".to_owned() } else { format!("{} times", self.times) };
        write!(f, "{:?} at {kind} {} and {times}", self.failure, self.pass + 1)
    }
}

#[derive(Debug, Default)]
pub(super) struct Faults {
    planned: Vec<Fault>,
    made: BTreeMap<Call, u64>,
    failed: BTreeMap<Call, u64>,
}

impl Faults {
    pub(super) fn plan(&mut self, fault: Fault) {
        self.planned.push(fault);
    }

    pub(super) fn heal(&mut self) {
        self.planned.clear();
    }

    pub(super) fn made(&self) -> &BTreeMap<Call, u64> {
        &self.made
    }

    pub(super) fn failures(&self) -> &BTreeMap<Call, u64> {
        &self.failed
    }

    pub(super) fn failed(&self) -> u64 {
        self.failed.values().sum()
    }

    /// Counts a call and says whether it fails.
    pub(super) fn pass(&mut self, call: Call) -> io::Result<()> {
        *self.made.entry(call).or_default() += 1;
        let mut failure = None;
        for fault in self.planned.iter_mut().filter(|fault| fault.call.is_none_or(|kind| kind == call)) {
            if fault.pass > 0 {
                fault.pass -= 1;
            } else if fault.times > 0 {
                fault.times -= u64::from(fault.times != u64::MAX);
                failure = failure.or(Some(fault.failure));
            }
        }
        match failure {
            Some(failure) => {
                #[cfg(test)]
                crate::vfs::faulty::note_site();
                *self.failed.entry(call).or_default() += 1;
                Err(failure.error())
            }
            None => Ok(()),
        }
    }
}
