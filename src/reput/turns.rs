//! Who dispatches: a thread of its own and, while that rests, each put for itself.
//!
//! To wake a thread and let it fall asleep again costs many times what dispatching a message does, and the message is
//! late by as much, or by a whole time slice where other threads want the processor. So a put that finds the dispatcher
//! at rest takes its turn, as long as turns are few and small: a thread that puts without a pause shall have the other
//! processor dispatch for it. Nobody waits for a turn:
//!
//! ```text
//! put: after publishing                    whoever has the turn
//! asked := true                            turn taken, asked := false
//! turn free?  no -> the other sees to it   dispatch all that is published
//!             yes -> as on the right       turn given back
//!                                          asked?  yes -> once more
//! ```
//! Both sides have a full barrier between their two lines, so one of them sees the other. The dispatcher's own thread
//! looks for more to do before it sleeps.

use super::{
    Progress, Reput,
    sync::{AtomicBool, AtomicI64, AtomicUsize, Mutex, Ordering, fence},
};
use crate::{error::Result, types::StoreTimestamp};

/// The time over which turns are counted, as a power of two: 4 ms, the coarse clock's tick on most machines.
const WINDOW_BITS: u32 = 2;
/// Messages that puts dispatch in one window.
const MOST_IN_WINDOW: usize = 1024;
/// Messages of one put that it dispatches itself.
const MOST_AT_ONCE: usize = 64;
/// Keys for which the index must have room, for each message: nobody makes a file within a put.
const KEYS_EACH: usize = 16;

/// The dispatcher, for its thread and for puts. Empty in a store without threads, and when it is closed.
#[derive(Debug)]
pub(crate) struct Turns {
    reput: Mutex<Option<Reput>>,
    /// Whether puts may dispatch: not what has to be durable first.
    for_puts: bool,
    /// The dispatcher's thread has found nothing to do, and has not begun anew.
    resting: AtomicBool,
    /// A put that found the turn taken has published something.
    asked: AtomicBool,
    window: AtomicI64,
    taken: AtomicUsize,
}

impl Turns {
    /// `for_puts` says whether what is published may be dispatched at once.
    pub(crate) fn new(for_puts: bool) -> Self {
        Self {
            reput: Mutex::new(None),
            for_puts,
            resting: AtomicBool::new(false),
            asked: AtomicBool::new(false),
            window: AtomicI64::new(0),
            taken: AtomicUsize::new(0),
        }
    }

    /// From now on there is something to take turns at.
    pub(crate) fn begin(&self, reput: Reput) {
        *self.reput.lock() = Some(reput);
    }

    /// From now on nobody dispatches.
    pub(crate) fn end(&self) {
        self.reput.lock().take();
    }

    /// A step of the dispatcher's own thread.
    ///
    /// # Errors
    /// As [`Reput::step`].
    pub(crate) fn step(&self) -> Result<Progress> {
        self.resting.store(false, Ordering::Relaxed);
        let progress = self.reput.lock().as_mut().map_or(Ok(Progress::CaughtUp), Reput::step);
        if matches!(progress, Ok(Progress::CaughtUp)) {
            self.resting.store(self.for_puts, Ordering::Relaxed);
        }
        progress
    }

    /// Whether the dispatcher rests and puts may take turns.
    #[inline]
    pub(crate) fn are_open(&self) -> bool {
        self.resting.load(Ordering::Relaxed)
    }

    /// A put dispatches the `messages` that it has just published at `now`, and what else is due, or has somebody see
    /// to it who is at it. If not, says so, and the dispatcher must be told.
    pub(crate) fn take(&self, now: StoreTimestamp, messages: usize) -> bool {
        if messages > MOST_AT_ONCE || !self.is_within_window(now, messages) {
            return false;
        }
        loop {
            self.asked.swap(true, Ordering::AcqRel);
            fence(Ordering::SeqCst);
            let Some(mut guard) = self.reput.try_lock() else { return true };
            // What was published before somebody asked is seen from here on.
            self.asked.swap(false, Ordering::AcqRel);
            let Some(reput) = guard.as_mut() else { return false };
            let done = reput.has_room(messages * KEYS_EACH) && matches!(reput.step(), Ok(Progress::CaughtUp));
            drop(guard);
            if !done {
                return false;
            }
            fence(Ordering::SeqCst);
            if !self.asked.load(Ordering::Relaxed) {
                return true;
            }
        }
    }

    fn is_within_window(&self, now: StoreTimestamp, messages: usize) -> bool {
        let window = now.0 >> WINDOW_BITS;
        if self.window.swap(window, Ordering::Relaxed) != window {
            self.taken.store(0, Ordering::Relaxed);
        }
        self.taken.fetch_add(messages, Ordering::Relaxed) < MOST_IN_WINDOW
    }
}
