//! Search by store time, with RocketMQ's answers.

use std::ops::Range;

use super::{Queue, QueueKind, queue::State};
use crate::{
    error::Result,
    types::{PhysicalOffset, QueueOffset, StoreTimestamp},
};

/// Which of several messages of the same time is meant, and on which side of a time without one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boundary {
    /// The first message stored at the time or later; the maximum offset behind the last one.
    Lower,
    /// The last message stored at the time or earlier; the minimum offset before the first one.
    Upper,
}

impl Queue {
    /// The offset that RocketMQ gives for a time. `time_of` looks a record's store time up; `None` for one that is
    /// gone, which counts as older than any time. The queue is not locked meanwhile.
    pub(crate) fn search_by_time(
        &self,
        at: StoreTimestamp,
        boundary: Boundary,
        time_of: impl Fn(PhysicalOffset) -> Option<StoreTimestamp>,
    ) -> Result<QueueOffset> {
        let (min, max) = (self.min_offset(), self.max_offset());
        let found = match self.kind() {
            QueueKind::Simple => self.search_entries(at, boundary, time_of)?,
            QueueKind::Batch => search_batches(&self.lock(), at, boundary)?,
        };
        Ok(found.max(min).min(max))
    }

    fn search_entries(
        &self,
        at: StoreTimestamp,
        boundary: Boundary,
        time_of: impl Fn(PhysicalOffset) -> Option<StoreTimestamp>,
    ) -> Result<QueueOffset> {
        let (mut low, mut high) = (self.min_offset().0, self.max_offset().0);
        while low < high {
            let middle = low + (high - low) / 2;
            // An entry that left meanwhile is older than what is asked for.
            let time = self.get(QueueOffset(middle))?.and_then(|unit| time_of(unit.offset));
            let before = time.is_none_or(|time| match boundary {
                Boundary::Lower => time < at,
                Boundary::Upper => time <= at,
            });
            if before {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(match boundary {
            Boundary::Lower => QueueOffset(low),
            Boundary::Upper => QueueOffset(low - 1),
        })
    }
}

/// RocketMQ looks into the newest file that begins at the time or earlier, and only there: of entries of one time
/// that fill more than a file it does not find the first. Its own search in that file is kept for its answers.
fn search_batches(state: &State, at: StoreTimestamp, boundary: Boundary) -> Result<QueueOffset> {
    let width = state.width();
    let mut file = None;
    for range in state.run.file_ranges() {
        let numbers = (range.start / width).max(state.min)..range.end / width;
        if numbers.is_empty() {
            continue;
        }
        if state.unit(numbers.start)?.store_timestamp > at {
            break;
        }
        file = Some(numbers);
    }
    let Some(numbers) = file else { return Ok(QueueOffset(-1)) };
    let last = state.unit(numbers.end - 1)?;
    if at >= last.store_timestamp {
        return Ok(last.base);
    }
    search_file(state, numbers, at, boundary)
}

fn search_file(
    state: &State,
    numbers: Range<u64>,
    at: StoreTimestamp,
    boundary: Boundary,
) -> Result<QueueOffset> {
    let (mut left, mut right) = (numbers.start, numbers.end - 1);
    loop {
        let middle = left + (right - left) / 2;
        let unit = state.unit(middle)?;
        if middle == right || (middle == left && unit.store_timestamp >= at) {
            return Ok(unit.base);
        }
        if middle == left {
            left += 1;
            continue;
        }
        match boundary {
            Boundary::Lower if unit.store_timestamp < at => left = middle + 1,
            Boundary::Lower => right = middle,
            Boundary::Upper if unit.store_timestamp <= at => left = middle,
            Boundary::Upper => right = middle - 1,
        }
    }
}
