//! Search by store time.

/// Which of several messages of the same time is meant, and on which side of a time without one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boundary {
    /// The first message stored at the time or later.
    Lower,
    /// The last message stored at the time or earlier.
    Upper,
}
