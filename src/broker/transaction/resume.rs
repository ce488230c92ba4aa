//! RESUME_CHECK_HALF_MESSAGE 323: an operator wants a producer asked again about a transaction that was given up.

use std::sync::Arc;

use super::half::{Half, Parked};
use crate::{
    broker::{Broker, Refusal, Route, names},
    format::message_id::MessageId,
    remoting::{
        Command, Connection,
        codes::{request, response},
    },
};

/// The codes that this file answers.
pub(super) const ROUTES: &[(i32, Route)] = &[(request::RESUME_CHECK_HALF_MESSAGE, Route::Answer(resume))];

/// Puts the message, which lies in TRANS_CHECK_MAX_TIME_TOPIC, back among the half messages.
fn resume(broker: &Arc<Broker>, _: &Arc<Connection>, cmd: &Command) -> Result<Command, Refusal> {
    let id: MessageId = cmd.fields.parse("msgId")?;
    let missing = || {
        let remark = format!("there is no transaction that was given up at {} of the log", id.offset);
        Refusal::new(response::SYSTEM_ERROR, remark)
    };
    let stored = broker.store.message_at(id.offset)?.ok_or_else(missing)?;
    let half = Half::read(&stored, names::CHECK_MAX_TIME_TOPIC).ok_or_else(missing)?;
    drop(broker.store.put(&half.never_checked(Parked::queue(broker)?))?);
    broker.halves.add(half.real_topic, 1, broker.clock.now());
    tracing::info!(topic = half.real_topic, key = half.unique_key(), "transaction taken up again by request");
    Ok(cmd.reply(response::SUCCESS))
}
