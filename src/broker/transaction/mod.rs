//! Transactions: half messages that no consumer sees until their producer commits them.
//!
//! A producer sends a half message, which goes to RMQ_SYS_TRANS_HALF_TOPIC with its real topic and queue as properties
//! ([`half`]). END_TRANSACTION commits it, which puts a copy to the real queue, or rolls it back; either way its number
//! in the half queue goes into RMQ_SYS_TRANS_OP_HALF_TOPIC, many numbers to a message ([`ops`]). One thread reads both
//! topics every `transactionCheckInterval`: a half message that nobody ended is put again behind all others and its
//! producer is asked about it; one that was asked about too often goes to TRANS_CHECK_MAX_TIME_TOPIC ([`check`]).
//!
//! All state lies in the two topics and in the offsets of the group CID_RMQ_SYS_TRANS, as RocketMQ keeps it, so either
//! broker can go on where the other stopped. Invariants: a number is written after the copy that it stands for, and an
//! offset moves past a half message only when what became of it is durable. So a crash can ask a producer again about
//! what it had ended, and never forgets a transaction.

mod check;
mod end;
mod half;
mod ops;
mod resume;
mod settled;

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

pub(super) use half::Parked;

use super::{Broker, Route, worker::Worker};
use crate::error::Result;

/// The codes that these files answer.
pub(super) const ROUTES: &[&[(i32, Route)]] = &[end::ROUTES, resume::ROUTES];

/// The only queue of half messages, and of what became of them.
const HALF_QUEUE: i32 = 0;
/// The longest sleep between looks at what is due, and the one after a failure.
const TURN: Duration = Duration::from_secs(1);

/// What transactions need beside the store.
#[derive(Debug, Default)]
pub(crate) struct Transactions {
    /// What was ended and is not written down yet.
    ops: ops::Ended,
    /// What was ended, whichever copy it was about.
    settled: settled::Settled,
    worker: Worker,
}

impl Transactions {
    /// Starts the thread.
    pub(crate) fn start(broker: &Arc<Broker>) -> Result<()> {
        let mut last_check = broker.clock.monotonic();
        let mut checker = check::Checker::new(broker.clock.now());
        broker.transactions.worker.start("transactions", broker, move |broker| {
            if let Err(error) = broker.transactions.ops.write_due(broker) {
                tracing::warn!(%error, "ended transactions not written down, trying again");
                return TURN;
            }
            let interval = Duration::from_millis(broker.live.transaction_check_interval_ms.load(Relaxed));
            let now = broker.clock.monotonic();
            if now >= last_check + interval {
                last_check = now;
                checker.check(broker);
            }
            let until_check = (last_check + interval).saturating_sub(broker.clock.monotonic());
            until_check.min(broker.transactions.ops.until_due(broker)).min(TURN)
        })
    }

    /// Ends the thread and writes down what was ended.
    pub(crate) fn stop(&self, broker: &Broker) -> Result<()> {
        self.worker.stop();
        self.ops.write_all(broker)
    }
}
