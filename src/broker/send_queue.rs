//! Where requests that put messages wait for one another while the disk keeps one of them, and are refused when that
//! takes too long.
//!
//! One job is at work at a time. While none waits, a request is worked off where it was read, without a hand-over; what
//! comes meanwhile queues, and whoever is at work goes on with it. So the disk can keep one thread, and the connections
//! are read and answered all the same.
//!
//! ```text
//! pass                                  at work                         watch (thread, every 10 ms while any waits)
//! lock                                                                  lock
//!   nobody at work? at_work := now      the job: put ...                  at work too long? take all sends
//!     unlock, do the job -------------> lock                              take what waited too long
//!   at work too long? refuse              first that waits?             unlock
//!   queue full?       refuse                at_work := now, unlock, do  refuse what was taken
//!   queue it                              none? at_work := none
//! unlock                                unlock
//! ```
//! Invariant: something waits only while somebody is at work; every job is called exactly once. Bounds: each kind has a
//! number of requests, all together [`MAX_BYTES`].

#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use parking_lot::Mutex;

use super::{Broker, Refusal, put_times::PutTimes, worker::Worker};
use crate::{
    error::Result,
    remoting::{Command, Connection, codes::response},
};

/// Bytes of bodies that wait at most.
const MAX_BYTES: usize = 256 << 20;
/// Jobs that a thread does for others before it hands the queue on.
const TURNS: usize = 64;
/// How often the watch looks while something waits, …
const TICK: Duration = Duration::from_millis(10);
/// … how many looks in vain send it to sleep, …
const IN_VAIN: u32 = 100;
/// … and for how long, if nobody wakes it.
const SLEEP: Duration = Duration::from_secs(3_600);
/// A job cannot have been at work for longer: the clock was put forward.
const NEVER: Duration = Duration::from_secs(10_000);

/// What a request is, which decides how long it may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Messages of clients. These are also refused at once while the page cache is busy.
    Send,
    /// The end of a transaction.
    Transaction,
    /// What is popped, and what became of it.
    Ack,
}

impl Kind {
    /// How long it may wait.
    fn patience(self, broker: &Broker) -> Duration {
        let live = &broker.live;
        let ms = match self {
            Self::Send => &live.send_wait_ms,
            Self::Transaction => &live.transaction_wait_ms,
            Self::Ack => &live.ack_wait_ms,
        };
        Duration::from_millis(ms.load(Relaxed))
    }

    /// How many may wait.
    pub(super) const fn capacity(self, broker: &Broker) -> usize {
        match self {
            Self::Send => broker.config.send_queue_capacity,
            Self::Transaction => broker.config.transaction_queue_capacity,
            Self::Ack => broker.config.ack_queue_capacity,
        }
    }
}

/// What a job is called with.
pub(super) enum Turn<'a> {
    /// It is its turn.
    Work(&'a Arc<Broker>),
    /// It is not done.
    Refused(Refusal),
}

type Job = Box<dyn FnOnce(Turn<'_>) + Send>;

struct Waiting {
    kind: Kind,
    /// Requests in it, and the bytes of their bodies.
    requests: usize,
    bytes: usize,
    since: Duration,
    job: Job,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Waiting>,
    /// Since when the job at work has been.
    at_work: Option<Duration>,
    /// Whether the watch is awake.
    watched: bool,
    in_vain: u32,
}

impl State {
    fn requests(&self, kind: Kind) -> usize {
        self.waiting.iter().filter(|waiting| waiting.kind == kind).map(|waiting| waiting.requests).sum()
    }

    fn bytes(&self) -> usize {
        self.waiting.iter().map(|waiting| waiting.bytes).sum()
    }

    fn stands_still(&self, now: Duration) -> Duration {
        let time = self.at_work.map_or(Duration::ZERO, |since| now.saturating_sub(since));
        if time < NEVER { time } else { Duration::ZERO }
    }

    /// Takes the first job that `wanted` wants out of the queue.
    fn take(&mut self, wanted: impl Fn(&Waiting) -> bool) -> Option<Waiting> {
        let at = self.waiting.iter().position(wanted)?;
        self.waiting.remove(at)
    }
}

/// The queue.
#[derive(Default)]
pub(crate) struct SendQueue {
    state: Mutex<State>,
    watch: Worker,
    /// How long jobs were at work.
    pub(super) times: PutTimes,
}

impl fmt::Debug for SendQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        f.debug_struct("SendQueue")
            .field("waiting", &state.waiting.len())
            .field("at_work", &state.at_work)
            .finish_non_exhaustive()
    }
}

/// Passes the queue on when a job panics, so that it ends its own connection and nothing else.
struct AtWork<'a>(&'a Arc<Broker>);

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            hand_on(self.0);
        }
    }
}

/// Does a job. The caller is at work.
fn work(broker: &Arc<Broker>, since: Duration, job: impl FnOnce(Turn<'_>)) {
    let at_work = AtWork(broker);
    job(Turn::Work(broker));
    broker.sends.times.note(broker.clock.monotonic().saturating_sub(since));
    drop(at_work);
}

fn hand_on(broker: &Arc<Broker>) {
    let next = Arc::clone(broker);
    broker.runtime.spawn(async move { next.sends.go_on(&next) });
}

fn busy(remark: impl Into<String>) -> Refusal {
    Refusal::new(response::SYSTEM_BUSY, remark)
}

impl SendQueue {
    /// Starts the watch.
    pub(super) fn start(broker: &Arc<Broker>) -> Result<()> {
        broker.sends.watch.start("send-watch", broker, |broker| broker.sends.look(broker))
    }

    /// Ends the watch.
    pub(super) fn stop(&self) {
        self.watch.stop();
    }

    /// How many requests of a kind wait, and for how many milliseconds the first of them has.
    pub(super) fn figures(&self, kind: Kind, now: Duration) -> (usize, u128) {
        let state = self.state.lock();
        let first = state.waiting.iter().find(|waiting| waiting.kind == kind);
        let waited = first.map_or(0, |first| now.saturating_sub(first.since).as_millis());
        (state.requests(kind), waited)
    }

    /// For how long the job at work has been.
    pub(super) fn stands_still(&self, now: Duration) -> Duration {
        self.state.lock().stands_still(now)
    }

    /// Has a job of `requests` with `bytes` of bodies done: now, by whoever is at work, or never.
    pub(super) fn pass(
        &self,
        broker: &Arc<Broker>,
        kind: Kind,
        (requests, bytes): (usize, usize),
        job: impl FnOnce(Turn<'_>) + Send + 'static,
    ) {
        let now = broker.clock.monotonic();
        let mut state = self.state.lock();
        if state.at_work.is_none() {
            state.at_work = Some(now);
            drop(state);
            work(broker, now, job);
            return self.go_on(broker);
        }
        let limit = Duration::from_millis(broker.live.busy_after_ms.load(Relaxed));
        let refusal = if kind == Kind::Send && state.stands_still(now) > limit {
            busy("[REJECTREQUEST]system busy, start flow control for a while")
        } else if state.requests(kind) + requests > kind.capacity(broker)
            || state.bytes().saturating_add(bytes) > MAX_BYTES
        {
            busy("[OVERLOAD]system busy, start flow control for a while")
        } else {
            state.waiting.push_back(Waiting { kind, requests, bytes, since: now, job: Box::new(job) });
            if !std::mem::replace(&mut state.watched, true) {
                drop(state);
                self.watch.wake();
            }
            return;
        };
        drop(state);
        job(Turn::Refused(refusal));
    }

    /// Does what waits. The caller is at work.
    fn go_on(&self, broker: &Arc<Broker>) {
        for _ in 0..TURNS {
            let since = broker.clock.monotonic();
            let next = {
                let mut state = self.state.lock();
                let next = state.waiting.pop_front();
                state.at_work = next.as_ref().map(|_| since);
                next
            };
            let Some(next) = next else { return };
            work(broker, since, next.job);
        }
        hand_on(broker);
    }

    /// One look of the watch; how long to sleep before the next.
    fn look(&self, broker: &Broker) -> Duration {
        let late = broker.answers.give_up(broker.clock.monotonic());
        let (refused, pause) = self.expired(broker, late);
        for (waiting, remark) in refused {
            (waiting.job)(Turn::Refused(busy(remark)));
        }
        pause
    }

    /// What may not wait any longer, with the reason; and how long to sleep.
    fn expired(&self, broker: &Broker, others_wait: bool) -> (Vec<(Waiting, String)>, Duration) {
        let mut expired = Vec::new();
        let mut state = self.state.lock();
        let now = broker.clock.monotonic();
        let waited = |waiting: &Waiting| now.saturating_sub(waiting.since);
        let mut note = |waiting: Waiting, why: &str, left: usize| {
            let remark = format!(
                "[{why}]broker busy, start flow control for a while, period in queue: {}ms, size of queue: {left}",
                waited(&waiting).as_millis(),
            );
            expired.push((waiting, remark));
        };
        if broker.live.fast_failure.load(Relaxed) {
            let limit = Duration::from_millis(broker.live.busy_after_ms.load(Relaxed));
            while state.stands_still(now) > limit
                && let Some(send) = state.take(|waiting| waiting.kind == Kind::Send)
            {
                note(send, "PCBUSY_CLEAN_QUEUE", state.requests(Kind::Send));
            }
            while let Some(late) = state.take(|waiting| waited(waiting) >= waiting.kind.patience(broker)) {
                let left = state.requests(late.kind);
                note(late, "TIMEOUT_CLEAN_QUEUE", left);
            }
        }
        let idle = state.waiting.is_empty() && !others_wait;
        state.in_vain = if idle { state.in_vain + 1 } else { 0 };
        if state.in_vain < IN_VAIN {
            return (expired, TICK);
        }
        state.in_vain = 0;
        state.watched = false;
        (expired, SLEEP)
    }

    /// Wakes the watch for the answers that wait for the disk.
    pub(super) fn watch_answers(&self) {
        if !std::mem::replace(&mut self.state.lock().watched, true) {
            self.watch.wake();
        }
    }
}

/// Has a request done whose code has [`super::Route::Queued`].
pub(super) fn serve(
    broker: &Arc<Broker>,
    conn: &Arc<Connection>,
    cmd: Command,
    kind: Kind,
    take: fn(&Arc<Broker>, &Arc<Connection>, Command),
) {
    let (conn, size) = (Arc::clone(conn), (1, cmd.body.len()));
    broker.sends.pass(broker, kind, size, move |turn| match turn {
        Turn::Work(broker) => take(broker, &conn, cmd),
        Turn::Refused(refusal) => Broker::reply(&conn, &cmd, Err(refusal)),
    });
}
