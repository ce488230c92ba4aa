//! Answers to sends that wait for the disk: they leave when it has the messages, or after `syncFlushTimeout` with
//! FLUSH_DISK_TIMEOUT. The messages are stored all the same.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use parking_lot::Mutex;

use super::{Broker, send::put_code};
use crate::{
    config::FlushDiskType,
    message::PutStatus,
    remoting::{Command, Connection},
    store::Appended,
};

/// Answers of one put; `None` when they have left.
type Pending = Arc<Mutex<Option<(Arc<Connection>, Vec<Command>)>>>;

/// The answers that wait, by the time at which they leave anyhow.
#[derive(Debug, Default)]
pub(crate) struct Answers(Mutex<VecDeque<(Duration, Pending)>>);

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
            leave(&pending, put_code(PutStatus::FlushDiskTimeout));
        }
        wait
    }
}

fn leave(pending: &Pending, (code, remark): (i32, Option<String>)) {
    let Some((conn, answers)) = pending.lock().take() else { return };
    for mut answer in answers {
        answer.code = code;
        answer.remark.clone_from(&remark);
        conn.send(answer);
    }
}

/// Sends `answers` when `stored` is as durable as was asked.
pub(super) fn when_durable(
    broker: &Broker,
    conn: &Arc<Connection>,
    stored: Appended<'_>,
    answers: Vec<Command>,
) {
    if answers.is_empty() {
        // Nobody asked to be told; the flusher does its work all the same.
        drop(stored);
        return;
    }
    let pending: Pending = Arc::new(Mutex::new(Some((Arc::clone(conn), answers))));
    let done = Arc::clone(&pending);
    stored.on_durable(move |result| {
        leave(
            &done,
            match result {
                Ok(status) => put_code(status),
                Err(error) => (put_code(error.put_status()).0, Some(error.to_string())),
            },
        );
    });
    if broker.config.store.flush_disk_type == FlushDiskType::Sync && pending.lock().is_some() {
        let patience = Duration::from_millis(broker.config.store.sync_flush_timeout_ms);
        let until = broker.clock.monotonic().saturating_add(patience);
        broker.answers.0.lock().push_back((until, pending));
        broker.sends.watch_answers();
    }
}
