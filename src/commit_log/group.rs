//! Who waits for which sync.
//!
//! Syncs are numbered rounds. A waiter joins the round that is running when its bytes are part of it, else the next;
//! each round has a word to sleep on, so its end wakes its own waiters and nobody else.
//!
//! ```text
//! waiter, wants [.., q) durable             syncing thread (one at a time, holds the turn)
//! lock                                      lock; round += 1; target := end of what is written; unlock
//!   durable >= q?  done                     write, sync
//!   running && q <= target?  this round     durable := target
//!   else                     next round     lock; running := false; take completions; unlock
//!   seen := word[round]                     word[round] += 1; wake all on it
//! unlock
//! sleep while word[round] == seen
//! ```
//! `target` is set under the lock in which the bytes are taken, so no waiter misjudges its round; `durable` is stored
//! before the lock is taken again, so a waiter that comes late sees it. `tests/protocol` runs
//! this file in every interleaving with up to three preemptions.

use std::time::Duration;

use super::sync::{AtomicU32, Mutex, Ordering};
use crate::{
    error::Result,
    types::PhysicalOffset,
    vfs::{sleep_on, wake_all},
};

/// Runs when bytes are durable (`Ok(true)`) or can never be known to be.
pub(super) type Completion = Box<dyn FnOnce(Result<bool>) + Send>;

/// Rounds whose words are told apart: the running and the next, and their neighbours for late sleepers.
const WORDS: u64 = 4;

#[derive(Debug, Default)]
pub(super) struct Group {
    state: Mutex<State>,
    words: [AtomicU32; 4],
}

#[derive(Default)]
struct State {
    round: u64,
    target: PhysicalOffset,
    running: bool,
    /// Waiters of the running round, and of the next.
    waiting: (usize, usize),
    /// How many the last round served.
    served: usize,
    /// At most one for each put that is not answered yet; whoever puts bounds those.
    completions: Vec<(PhysicalOffset, Completion)>,
    abandoned: bool,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("round", &self.round)
            .field("target", &self.target)
            .field("running", &self.running)
            .field("waiting", &self.waiting)
            .field("completions", &self.completions.len())
            .finish_non_exhaustive()
    }
}

/// A place in a round's queue.
pub(super) struct Place {
    word: usize,
    seen: u32,
}

impl Group {
    fn word_of(round: u64) -> usize {
        usize::try_from(round % WORDS).unwrap_or(0)
    }

    /// Whether a waiter that comes now should sync by itself: nobody else waits, and lately nobody did.
    pub(super) fn is_quiet(&self) -> bool {
        let state = self.state.lock();
        !state.running && state.waiting.1 == 0 && state.completions.is_empty() && state.served <= 1
    }

    /// Whether somebody waits for a round that has not begun.
    pub(super) fn is_wanted(&self) -> bool {
        let state = self.state.lock();
        state.waiting.1 > 0 || !state.completions.is_empty()
    }

    /// Queues for `upto`; `None` when `done` says under the lock that there is nothing to wait for.
    pub(super) fn join(&self, upto: PhysicalOffset, done: impl Fn() -> bool) -> Option<Place> {
        let mut state = self.state.lock();
        if done() || state.abandoned {
            return None;
        }
        let round = if state.running && upto <= state.target {
            state.waiting.0 += 1;
            state.round
        } else {
            state.waiting.1 += 1;
            state.round + 1
        };
        let word = Self::word_of(round);
        Some(Place { word, seen: self.words[word].load(Ordering::Acquire) })
    }

    /// Sleeps until the round of `place` has ended, `timeout` at most.
    pub(super) fn sleep(&self, place: &Place, timeout: Duration) {
        sleep_on(&self.words[place.word], place.seen, timeout);
    }

    /// Queues `completion`; gives it back when `done` says under the lock that there is nothing to wait for, or when
    /// the log is poisoned.
    pub(super) fn enqueue(
        &self,
        upto: PhysicalOffset,
        completion: Completion,
        done: impl Fn() -> bool,
    ) -> Option<Completion> {
        let mut state = self.state.lock();
        if done() || state.abandoned {
            return Some(completion);
        }
        state.completions.push((upto, completion));
        None
    }

    /// Begins a round over what `take` takes; returns its target.
    pub(super) fn begin(&self, take: impl FnOnce() -> PhysicalOffset) -> PhysicalOffset {
        let mut state = self.state.lock();
        state.target = take();
        state.round += 1;
        state.running = true;
        state.waiting = (std::mem::take(&mut state.waiting.1), 0);
        state.target
    }

    /// Ends the round: `durable` must have been stored. Wakes its waiters, returns the completions to run.
    pub(super) fn end(&self, durable: PhysicalOffset) -> Vec<Completion> {
        let mut state = self.state.lock();
        state.running = false;
        let mut ready = Vec::new();
        if !state.completions.is_empty() {
            let (now, later) = state.completions.drain(..).partition(|(upto, _)| *upto <= durable);
            state.completions = later;
            ready = now;
        }
        let waiters = std::mem::take(&mut state.waiting.0);
        state.served = waiters + ready.len();
        let word = &self.words[Self::word_of(state.round)];
        drop(state);
        if waiters > 0 {
            word.fetch_add(1, Ordering::Release);
            wake_all(word);
        }
        ready.into_iter().map(|(_, completion)| completion).collect()
    }

    /// No round will come any more: wakes everybody, returns every completion.
    pub(super) fn abandon(&self) -> Vec<Completion> {
        let mut state = self.state.lock();
        state.abandoned = true;
        state.running = false;
        let all = std::mem::take(&mut state.completions);
        drop(state);
        for word in &self.words {
            word.fetch_add(1, Ordering::Release);
            wake_all(word);
        }
        all.into_iter().map(|(_, completion)| completion).collect()
    }
}
