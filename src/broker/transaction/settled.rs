//! Which transactions are ended, whichever copy of the half message the end was about.
//!
//! A producer that is slow to answer is asked again, about another copy; one that is slow to end its transaction is asked
//! meanwhile. Both answers come then, each for a half message that nobody has ended. The first counts, and the message
//! comes once. RocketMQ lets each of them deliver. What is known here goes with the process.

use std::collections::{BTreeMap, BTreeSet};

use parking_lot::Mutex;

/// Transactions that are remembered; the oldest are forgotten when there are more.
const MAX_REMEMBERED: usize = 1 << 16;

/// What is known of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Nobody has ended it.
    Open,
    /// Somebody is ending it.
    Ending,
    /// It is ended.
    Ended,
}

#[derive(Debug, Default)]
struct Known {
    /// Of each copy the number of the half message that its producer sent.
    firsts: BTreeMap<i64, i64>,
    ending: BTreeSet<i64>,
    ended: BTreeSet<i64>,
}

impl Known {
    fn first(&self, half: i64) -> i64 {
        self.firsts.get(&half).copied().unwrap_or(half)
    }

    fn state(&self, first: i64) -> State {
        if self.ended.contains(&first) {
            State::Ended
        } else if self.ending.contains(&first) {
            State::Ending
        } else {
            State::Open
        }
    }
}

/// The transactions that were ended in this process.
#[derive(Debug, Default)]
pub(super) struct Settled(Mutex<Known>);

impl Settled {
    /// Takes note that `copy` is the half message `of` once more.
    pub(super) fn copied(&self, of: i64, copy: i64) {
        let mut known = self.0.lock();
        let first = known.first(of);
        known.firsts.insert(copy, first);
        if known.firsts.len() > MAX_REMEMBERED {
            known.firsts.pop_first();
        }
    }

    /// What is known of the transaction of this half message.
    pub(super) fn state(&self, half: i64) -> State {
        let known = self.0.lock();
        known.state(known.first(half))
    }

    /// What was known of it, and its first half message. Whoever finds it open ends it, and calls [`Settled::end`] or
    /// [`Settled::release`] with that.
    pub(super) fn begin(&self, half: i64) -> (State, i64) {
        let mut known = self.0.lock();
        let first = known.first(half);
        let state = known.state(first);
        if state == State::Open {
            known.ending.insert(first);
        }
        (state, first)
    }

    /// The transaction is ended.
    pub(super) fn end(&self, first: i64) {
        let mut known = self.0.lock();
        known.ending.remove(&first);
        known.ended.insert(first);
        if known.ended.len() > MAX_REMEMBERED {
            known.ended.pop_first();
        }
    }

    /// It could not be ended.
    pub(super) fn release(&self, first: i64) {
        self.0.lock().ending.remove(&first);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_all_copies_one_is_ended() {
        let settled = Settled::default();
        settled.copied(3, 7);
        settled.copied(7, 9);
        assert_eq!(settled.begin(9), (State::Open, 3));
        for half in [3, 7, 9] {
            assert_eq!(settled.begin(half), (State::Ending, 3));
        }
        settled.release(3);
        assert_eq!(settled.begin(7), (State::Open, 3));
        settled.end(3);
        for half in [3, 7, 9] {
            assert_eq!((settled.begin(half), settled.state(half)), ((State::Ended, 3), State::Ended));
        }
        assert_eq!(settled.begin(4), (State::Open, 4), "another transaction");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let settled = Settled::default();
        let many = i64::try_from(MAX_REMEMBERED).unwrap();
        for half in 0..2 * many {
            settled.copied(half, half + 1);
            let (state, first) = settled.begin(half * 3 + 1_000_000_000);
            assert_eq!(state, State::Open);
            settled.end(first);
        }
        let known = settled.0.lock();
        assert_eq!((known.firsts.len(), known.ended.len()), (MAX_REMEMBERED, MAX_REMEMBERED));
        assert!(known.ending.is_empty());
    }
}
