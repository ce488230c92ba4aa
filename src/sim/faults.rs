//! Which calls of the seam fail, and how.

use std::{collections::BTreeMap, fmt, io, path::Path};

use super::rng::Rng;

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

impl Call {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::CreateDir,
        Self::List,
        Self::Stat,
        Self::Create,
        Self::Open,
        Self::Read,
        Self::Rename,
        Self::SetLen,
        Self::Remove,
        Self::RemoveDir,
        Self::SyncDir,
        Self::SyncAll,
        Self::Lock,
        Self::Usage,
        Self::Write,
        Self::Sync,
        Self::Reserve,
    ];
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
    /// Fewer bytes than were asked for, and no more to come. The system's calls may do less than was asked, and the
    /// layer over real files goes on where they stopped; so what is seen of it is an end before the end. A read then is an
    /// error that names file and place; a write is one too, and any number of its bytes is there. Other calls never fail
    /// like this.
    Short,
}

impl Failure {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Device, Self::NoSpace, Self::TooManyFiles, Self::Short];

    pub(super) fn error(self, call: Call, path: &Path, at: usize) -> io::Error {
        // The numbers are those of Linux on every machine that Rust's standard library knows.
        io::Error::from_raw_os_error(match self {
            Self::Device => 5,
            Self::NoSpace => 28,
            Self::TooManyFiles => 24,
            Self::Short if call == Call::Read => {
                let what = format!("{} has no bytes from {at} on, and should", path.display());
                return io::Error::new(io::ErrorKind::UnexpectedEof, what);
            }
            Self::Short => {
                let what = format!("a write to {} at {at} ended before its last byte", path.display());
                return io::Error::new(io::ErrorKind::WriteZero, what);
            }
        })
    }

    /// Whether a call can fail like this.
    #[must_use]
    pub const fn befalls(self, call: Call) -> bool {
        !matches!(self, Self::Short) || matches!(call, Call::Read | Call::Write)
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

impl Fault {
    /// The fault in one word that [`Fault::parse`] reads: failure, call, calls that pass, calls that fail.
    #[must_use]
    pub fn word(&self) -> String {
        let call = self.call.map_or_else(|| "Any".to_owned(), |call| format!("{call:?}"));
        let times = if self.times == u64::MAX { "ever".to_owned() } else { self.times.to_string() };
        format!("{:?}:{call}:{}:{times}", self.failure, self.pass)
    }

    /// Reads what [`Fault::word`] wrote.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        let mut parts = word.split(':');
        let mut part = || parts.next();
        let (failure, call, pass, times) = (part()?, part()?, part()?.parse().ok()?, part()?);
        let failure = Failure::ALL.into_iter().find(|known| format!("{known:?}") == failure)?;
        let known = Call::ALL.into_iter().find(|known| format!("{known:?}") == call);
        let call = if call == "Any" { None } else { Some(known?) };
        let times = if times == "ever" { u64::MAX } else { times.parse().ok()? };
        parts.next().is_none().then_some(Self { call, pass, times, failure })
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

    /// How many of the bytes of a write that fails are there: half of them, or where the failure is that they are too
    /// few, any number.
    pub(super) fn written(&self, failure: Failure, bytes: usize) -> usize {
        match failure {
            Failure::Short => Rng::of(self.made.values().sum(), 13).below(bytes),
            _ => bytes / 2,
        }
    }

    /// Counts a call and says whether it fails.
    pub(super) fn pass(&mut self, call: Call) -> Result<(), Failure> {
        *self.made.entry(call).or_default() += 1;
        let mut failure = None;
        let concerns =
            |fault: &&mut Fault| fault.call.is_none_or(|kind| kind == call) && fault.failure.befalls(call);
        for fault in self.planned.iter_mut().filter(concerns) {
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
                Err(failure)
            }
            None => Ok(()),
        }
    }
}
