//! QUERY_MESSAGE 12 and VIEW_MESSAGE_BY_ID 33: messages by key and by place.

use std::sync::Arc;

use bytes::Bytes;

use super::{Broker, Refusal, Route};
use crate::{
    message::StoredMessage,
    remoting::{
        Body, Command, Connection,
        codes::{request, response},
    },
    store::Query,
    types::{PhysicalOffset, StoreTimestamp},
};

/// The codes that this file answers.
pub(super) const ROUTES: &[(i32, Route)] =
    &[(request::QUERY_MESSAGE, Route::Aside(query)), (request::VIEW_MESSAGE_BY_ID, Route::Aside(view))];

/// Messages that a query for a unique key returns at most: clients pick the one they mean.
const UNIQUE_KEY_MAX: usize = 32;

/// The message's bytes as they lie in the log, kept mapped until they are sent.
pub(super) fn bytes_of(message: &StoredMessage) -> Bytes {
    Bytes::from_owner(message.lease().clone())
}

fn query(broker: &Arc<Broker>, _: &Arc<Connection>, cmd: &Command) -> Result<Command, Refusal> {
    let fields = &cmd.fields;
    let (topic, key) = (fields.text("topic")?, fields.text("key")?);
    let unique = fields.get("_UNIQUE_KEY_QUERY").is_some_and(|flag| flag == "true");
    let max =
        if unique { UNIQUE_KEY_MAX } else { usize::try_from(fields.parse::<i32>("maxNum")?).unwrap_or(0) };
    let mut hits = broker.store.query_raw(&Query {
        topic,
        key,
        // Only tags are indexed under their type; keys (K) and unique keys (U) are not.
        index_type: fields.get("indexType").filter(|kind| *kind == "T"),
        max,
        begin: StoreTimestamp(fields.parse("beginTimestamp")?),
        end: StoreTimestamp(fields.parse("endTimestamp")?),
    })?;
    // The index gives the newest first, RocketMQ answers in the order of the log.
    hits.offsets.sort_unstable();
    let mut body = Body::empty();
    for offset in hits.offsets {
        if let Some(message) = broker.store.message_at(offset)? {
            body.push(bytes_of(&message));
        }
    }
    let answer = cmd
        .reply(if body.is_empty() { response::QUERY_NOT_FOUND } else { response::SUCCESS })
        .with_field("indexLastUpdateTimestamp", hits.last_update_timestamp)
        .with_field("indexLastUpdatePhyoffset", hits.last_update_offset);
    if body.is_empty() {
        return Ok(answer.with_remark("can not find message, maybe time range not correct"));
    }
    Ok(answer.with_body(body))
}

fn view(broker: &Arc<Broker>, _: &Arc<Connection>, cmd: &Command) -> Result<Command, Refusal> {
    let offset = PhysicalOffset(cmd.fields.parse("offset")?);
    match broker.store.message_at(offset)? {
        Some(message) => Ok(cmd.reply(response::SUCCESS).with_body(bytes_of(&message))),
        None => {
            Err(Refusal::new(response::SYSTEM_ERROR, format!("can not find message by the offset, {offset}")))
        }
    }
}
