//! END_TRANSACTION 37: a producer commits a half message, rolls it back, or says that it does not know yet.

use std::sync::Arc;

use super::{half::Half, settled::State};
use crate::{
    broker::{Broker, Refusal, Route, answers::once_durable, names, send::put_code, send_queue::Kind},
    message::PutStatus,
    remoting::{
        Command, Connection,
        codes::{request, response},
    },
    types::PhysicalOffset,
};

/// The codes that this file answers.
pub(super) const ROUTES: &[(i32, Route)] =
    &[(request::END_TRANSACTION, Route::Queued(Kind::Transaction, end))];

/// `commitOrRollback`: the transaction bits of a message's system flag.
mod outcome {
    pub(super) const UNKNOWN: i32 = 0;
    pub(super) const COMMIT: i32 = 8;
    pub(super) const ROLLBACK: i32 = 12;
}

fn end(broker: &Arc<Broker>, conn: &Arc<Connection>, cmd: Command) {
    if let Err(refusal) = decide(broker, conn, &cmd) {
        Broker::reply(conn, &cmd, Err(refusal));
    }
}

/// Answers the request, at once or when the committed message is as durable as it shall be.
fn decide(broker: &Arc<Broker>, conn: &Arc<Connection>, cmd: &Command) -> Result<(), Refusal> {
    let fields = &cmd.fields;
    let asked: i32 = fields.parse("commitOrRollback")?;
    match asked {
        outcome::COMMIT | outcome::ROLLBACK => {}
        outcome::UNKNOWN => {
            tracing::debug!(peer = %conn.peer(), key = fields.get("msgId"), "transaction still undecided");
            Broker::reply(conn, cmd, Ok(cmd.reply(response::SUCCESS)));
            return Ok(());
        }
        other => {
            let remark = format!("commitOrRollback is {other}, known are 0, 8 (commit) and 12 (roll back)");
            return Err(Refusal::new(response::SYSTEM_ERROR, remark));
        }
    }
    let at = PhysicalOffset(fields.parse("commitLogOffset")?);
    let missing = || {
        tracing::debug!(%at, "no half message there");
        Refusal::new(response::SYSTEM_ERROR, "Find prepared transaction message failed")
    };
    let stored = broker.store.message_at(at)?.ok_or_else(missing)?;
    let half = Half::read(&stored, names::HALF_TOPIC).ok_or_else(missing)?;
    check(broker, cmd, &half)?;
    let number = half.record.queue_offset.get();
    broker.transactions.ops.make_room(broker)?;
    if broker.transactions.ops.contains(number) {
        // The same answer came twice.
        Broker::reply(conn, cmd, Ok(cmd.reply(response::SUCCESS)));
        return Ok(());
    }
    let (state, first) = broker.transactions.settled.begin(number);
    match state {
        State::Open if asked == outcome::COMMIT => {
            let committed = commit(broker, conn, cmd, &half, first);
            return committed.inspect_err(|_| broker.transactions.settled.release(first));
        }
        State::Open => {
            broker.transactions.settled.end(first);
            broker.halves.add(half.real_topic, -1, broker.clock.now());
            broker.transactions.ops.add(broker, number);
        }
        // Another copy's answer was first.
        State::Ended => broker.transactions.ops.add(broker, number),
        State::Ending => {}
    }
    Broker::reply(conn, cmd, Ok(cmd.reply(response::SUCCESS)));
    Ok(())
}

/// The checks that the half message must pass.
fn check(broker: &Broker, cmd: &Command, half: &Half<'_>) -> Result<(), Refusal> {
    let fields = &cmd.fields;
    let wrong = |remark| Err(Refusal::new(response::SYSTEM_ERROR, remark));
    let from_check: bool = fields.parse_or("fromTransactionCheck", false)?;
    if let Some(immunity) = half.immunity_ms
        && !from_check
        && broker.clock.now().get() - half.record.born_timestamp.get()
            > immunity.max(broker.live.transaction_timeout_ms())
    {
        let remark = "the time that the half message gave its producer has passed: it will be asked";
        return Err(Refusal::new(response::ILLEGAL_OPERATION, remark));
    }
    let group = fields.text("producerGroup")?;
    if group != half.group {
        return wrong("The producer group wrong");
    }
    let number: i64 = fields.parse("tranStateTableOffset")?;
    if number != half.record.queue_offset.get() {
        return wrong("The transaction state table offset wrong");
    }
    Ok(())
}

fn commit(
    broker: &Arc<Broker>,
    conn: &Arc<Connection>,
    cmd: &Command,
    half: &Half<'_>,
    first: i64,
) -> Result<(), Refusal> {
    let number = half.record.queue_offset.get();
    if !broker.topics.contains(half.real_topic) {
        let remark = format!("there is no topic {} any more", half.real_topic);
        return Err(Refusal::new(response::TOPIC_NOT_EXIST, remark));
    }
    let refused = |error: crate::Error| {
        let code = match error.put_status() {
            PutStatus::OsPageCacheBusy => response::SYSTEM_ERROR,
            status => put_code(status).0,
        };
        Refusal::new(code, error.to_string())
    };
    let stored = broker.store.put(&half.committed(broker)?).map_err(refused)?;
    let (at, conn, topic) = (Arc::clone(broker), Arc::clone(conn), half.real_topic.to_owned());
    let answer = (!cmd.is_oneway()).then(|| cmd.reply(response::SUCCESS));
    once_durable(broker, stored, move |result| {
        let failed = result.err().map(|error| (put_code(error.put_status()).0, error.to_string()));
        if failed.is_none() {
            // Also after a flush that took too long: the message is in the log.
            at.transactions.settled.end(first);
            at.transactions.ops.add(&at, number);
            at.halves.add(&topic, -1, at.clock.now());
        } else {
            at.transactions.settled.release(first);
        }
        if let Some(mut answer) = answer {
            if let Some((code, remark)) = failed {
                answer.code = code;
                answer.remark = Some(remark);
            }
            conn.send(answer);
        }
    });
    Ok(())
}
