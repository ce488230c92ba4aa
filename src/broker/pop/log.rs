//! Putting records to the revive topic, and answering when they are as durable as the store promises.

use std::sync::Arc;

use super::check_point::Record;
use crate::{
    Message,
    broker::{Broker, Refusal, answers::once_durable, send::put_code},
    error::{Error, Result as StoreResult},
    format::properties,
    remoting::{Command, Connection},
    store::Appended,
};

/// Puts records, all or none; the last one tells when they are durable.
pub(super) fn put<'a>(broker: &'a Broker, records: &[Record]) -> Result<Option<Appended<'a>>, Refusal> {
    let messages = records.iter().map(|record| message(broker, record)).collect::<StoreResult<Vec<_>>>();
    let stored = messages.and_then(|messages| match messages.as_slice() {
        [] => Ok(None),
        [one] => broker.store.put(one).map(Some),
        several => broker.store.put_batch(several).map(|all| all.into_iter().next_back()),
    });
    stored.map_err(|error| refusal(&error))
}

fn message<'a>(broker: &Broker, record: &'a Record) -> StoreResult<Message<'a>> {
    let queue = broker.store.queue(broker.pop.revive.topic(), record.queue)?;
    // RocketMQ takes the latest of these times for how late it is in this topic. Its own records come here through the
    // timer when they are due, ours at once.
    let now = broker.clock.now().get().to_string();
    Ok(Message::new(queue, record.body.as_bytes())
        .tags(record.tag)
        .property(properties::UNIQ_KEY, &record.unique)
        .property(properties::TIMER_DELIVER_MS, &now)
        .born_host(broker.store_host)
        .store_host(broker.store_host))
}

fn refusal(error: &Error) -> Refusal {
    Refusal::new(put_code(error.put_status()).0, error.to_string())
}

/// Sends `reply` when what was stored is durable, at once when that is nothing; also when the disk takes too long for
/// that, for it is in the log.
pub(super) fn answer(
    broker: &Broker,
    conn: &Arc<Connection>,
    cmd: &Command,
    stored: Result<Option<Appended<'_>>, Refusal>,
    reply: Command,
) {
    let stored = match stored {
        Ok(Some(stored)) => stored,
        Ok(None) => return Broker::reply(conn, cmd, Ok(reply)),
        Err(refusal) => return Broker::reply(conn, cmd, Err(refusal)),
    };
    let (conn, oneway) = (Arc::clone(conn), cmd.is_oneway());
    once_durable(broker, stored, move |result| {
        let reply = match result.map_err(|error| refusal(&error)) {
            Ok(_) => reply,
            Err(Refusal { code, remark }) => Command::response(code, reply.opaque).with_remark(remark),
        };
        if !oneway {
            conn.send(reply);
        }
    });
}
