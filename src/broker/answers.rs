//! Answers that wait for the disk: they leave when it has what was put, or after `syncFlushTimeout`. What was put is
//! stored all the same.

use std::{collections::VecDeque, fmt, sync::Arc, time::Duration};

use parking_lot::Mutex;

use super::{Broker, register::Told, send::put_code};
use crate::{
    config::FlushDiskType,
    error::Result,
    message::PutStatus,
    remoting::{Command, Connection},
    store::Appended,
};

/// How long an answer waits for the name servers: well below the 3 s after which clients send again.
const REGISTRATION: Duration = Duration::from_secs(1);

/// What answers one put; `None` when it has.
type Pending = Arc<Mutex<Option<Box<dyn FnOnce(Result<PutStatus>) + Send>>>>;

/// The answers that wait, by the time at which they leave anyhow.
#[derive(Default)]
pub(crate) struct Answers(Mutex<VecDeque<(Duration, Pending)>>);

impl fmt::Debug for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answers").field("waiting", &self.0.lock().len()).finish()
    }
}

impl Answers {
    /// Sends the answers whose time is up; whether others wait.
    pub(super) fn give_up(&self, now: Duration) -> bool {
        let mut waiting = self.0.lock();
        let mut due = Vec::new();
        while let Some((until, first)) = waiting.front() {
            if *until > now && first.lock().is_some() {
                break;
            }
            due.extend(waiting.pop_front());
        }
        let wait = !waiting.is_empty();
        drop(waiting);
        for (_, pending) in due {
            leave(&pending, Ok(PutStatus::FlushDiskTimeout));
        }
        wait
    }
}

fn leave(pending: &Pending, result: Result<PutStatus>) {
    let then = pending.lock().take();
    if let Some(then) = then {
        then(result);
    }
}

/// Calls `then` once: when `stored` is as durable as was asked, or after `syncFlushTimeout` with
/// [`PutStatus::FlushDiskTimeout`]. It must be short and must not block.
pub(super) fn once_durable(
    broker: &Broker,
    stored: Appended<'_>,
    then: impl FnOnce(Result<PutStatus>) + Send + 'static,
) {
    let pending: Pending = Arc::new(Mutex::new(Some(Box::new(then))));
    let done = Arc::clone(&pending);
    stored.on_durable(move |result| leave(&done, result));
    if broker.config.store.flush_disk_type == FlushDiskType::Sync && pending.lock().is_some() {
        let patience = Duration::from_millis(broker.config.store.sync_flush_timeout_ms);
        let until = broker.clock.monotonic().saturating_add(patience);
        broker.answers.0.lock().push_back((until, pending));
        broker.sends.watch_answers();
    }
}

/// Sends `answers` when `stored` is as durable as was asked, or with FLUSH_DISK_TIMEOUT; and not before the name servers
/// were `told` of a topic that was made for it, so that whoever saw the answer finds the topic.
pub(super) fn when_durable(
    broker: &Broker,
    conn: &Arc<Connection>,
    stored: Appended<'_>,
    mut answers: Vec<Command>,
    told: Told,
) {
    if answers.is_empty() {
        // Nobody asked to be told; the flusher does its work all the same.
        drop(stored);
        return;
    }
    let conn = Arc::clone(conn);
    let wait = (!told.is_empty()).then(|| (broker.runtime.clone(), told));
    once_durable(broker, stored, move |result| {
        let (code, remark) = match result {
            Ok(status) => put_code(status),
            Err(error) => (put_code(error.put_status()).0, Some(error.to_string())),
        };
        for answer in &mut answers {
            answer.code = code;
            answer.remark.clone_from(&remark);
        }
        let leave = move || {
            for answer in answers {
                conn.send(answer);
            }
        };
        match wait {
            None => leave(),
            Some((runtime, told)) => drop(runtime.spawn(async move {
                told.wait(REGISTRATION).await;
                leave();
            })),
        }
    });
}
