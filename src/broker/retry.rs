//! CONSUMER_SEND_MSG_BACK 36: a consumer could not handle a message and wants it again later.
//!
//! The message is read from the log by its offset and put to `%RETRY%group` with a delay level, which rises with every
//! try; after the last try, or when the consumer gives up (a level below 0), to `%DLQ%group`.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use super::{
    Broker, Refusal, Route, names,
    property_text::rewritten,
    schedule::Delay,
    send::put_code,
    send_queue::Kind,
    topics::{self, perm},
};
use crate::{
    format::properties,
    message::{Message, StoredMessage},
    remoting::{
        Command, Connection,
        codes::{request, response},
    },
    types::PhysicalOffset,
};

/// The codes that this file answers.
pub(super) const ROUTES: &[(i32, Route)] =
    &[(request::CONSUMER_SEND_MSG_BACK, Route::Queued(Kind::Send, send_back))];

/// The level of the first retry when the consumer names none.
const FIRST_LEVEL: i32 = 3;
/// Queues of a dead-letter topic.
const DLQ_QUEUES: i32 = 1;

fn send_back(broker: &Arc<Broker>, conn: &Arc<Connection>, cmd: Command) {
    let result = find(broker, &cmd).and_then(|back| match back {
        Some(back) => back.put(broker, conn, &cmd),
        None => {
            Broker::reply(conn, &cmd, Ok(cmd.reply(response::SUCCESS)));
            Ok(())
        }
    });
    if let Err(refusal) = result {
        Broker::reply(conn, &cmd, Err(refusal));
    }
}

/// A message on its way back.
struct Back {
    stored: StoredMessage,
    topic: String,
    queue_id: i32,
    /// 0 for a dead letter.
    level: i32,
}

/// Checks the request and finds the message; `None` when the group wants no retries.
fn find(broker: &Arc<Broker>, cmd: &Command) -> Result<Option<Back>, Refusal> {
    let name = cmd.fields.text("group")?;
    let group = broker.group(name).ok_or_else(|| Refusal::no_group_to_retry_for(name))?;
    if !perm::is_writeable(broker.live.permission.load(Relaxed)) {
        let remark = format!("the broker[{}] sending message is forbidden", broker.store_host.ip());
        return Err(Refusal::new(response::NO_PERMISSION, remark));
    }
    if group.retry_queue_nums <= 0 {
        return Ok(None);
    }
    let unit = if cmd.fields.parse_or("unitMode", false)? { topics::SYS_FLAG_UNIT_SUB } else { 0 };
    let retry = broker.ensure_topic(
        &names::retry_topic(&group.name),
        group.retry_queue_nums,
        perm::READ | perm::WRITE,
        unit,
    );
    if !perm::is_writeable(retry.perm) {
        let remark = format!("the topic[{}] sending message is forbidden", retry.name);
        return Err(Refusal::new(response::NO_PERMISSION, remark));
    }
    let offset = PhysicalOffset(cmd.fields.parse("offset")?);
    let stored = broker.store.message_at(offset)?.ok_or_else(|| {
        Refusal::new(response::SYSTEM_ERROR, format!("look message by offset failed, {offset}"))
    })?;
    let tries = stored.record().reconsume_times;
    let limit = cmd.fields.optional("maxReconsumeTimes")?.unwrap_or(group.retry_max_times);
    let asked: i32 = cmd.fields.parse_or("delayLevel", 0)?;
    if tries >= limit || asked < 0 {
        let topic = names::dlq_topic(&group.name);
        broker.ensure_topic(&topic, DLQ_QUEUES, perm::READ | perm::WRITE, 0);
        tracing::info!(topic, message = stored.message_id(), tries, "given up: to the dead letters");
        return Ok(Some(Back { stored, topic, queue_id: broker.any_queue(DLQ_QUEUES), level: 0 }));
    }
    let level = if asked == 0 { tries.saturating_add(FIRST_LEVEL) } else { asked };
    let queue_id = broker.any_queue(group.retry_queue_nums);
    Ok(Some(Back { stored, topic: retry.name.clone(), queue_id, level }))
}

impl Back {
    fn put(&self, broker: &Arc<Broker>, conn: &Arc<Connection>, cmd: &Command) -> Result<(), Refusal> {
        let record = self.stored.record();
        let id = self.stored.message_id();
        let mut add = vec![
            (properties::RETRY_TOPIC, record.properties.get(properties::RETRY_TOPIC).unwrap_or(record.topic)),
            (
                properties::ORIGIN_MESSAGE_ID,
                record
                    .properties
                    .get(properties::ORIGIN_MESSAGE_ID)
                    .filter(|id| !id.is_empty())
                    .unwrap_or(&id),
            ),
            (properties::WAIT, "false"),
        ];
        let mut drop = vec![properties::DELAY, properties::CRC32, properties::INNER_MULTI_QUEUE_OFFSET];
        if self.topic.starts_with(names::DLQ_PREFIX) {
            // A dead letter goes to no light queue again.
            drop.push(properties::INNER_MULTI_DISPATCH);
        }
        let delay = Delay::of(broker, self.level, record.sys_flag, &self.topic, self.queue_id);
        let queue = match &delay {
            Some(delay) => {
                add.extend(delay.properties());
                broker.store.queue(names::SCHEDULE_TOPIC, delay.queue_id())?
            }
            None => broker.queue(&self.topic, self.queue_id)?,
        };
        let text = rewritten(record.properties.raw(), &drop, &add);
        let message = Message::new(queue, record.body)
            .properties_raw(text)
            .flag(record.flag)
            .sys_flag(record.sys_flag)
            .born_timestamp(record.born_timestamp)
            .born_host(record.born_host)
            .store_host(broker.store_host)
            .reconsume_times(record.reconsume_times.saturating_add(1))
            .wait_store(false);
        let stored = broker.store.put(&message)?;
        let (conn, answer, oneway) = (Arc::clone(conn), cmd.reply(response::SUCCESS), cmd.is_oneway());
        stored.on_durable(move |result| {
            let mut answer = answer;
            match result.map(put_code) {
                Ok((response::SUCCESS, _)) => {}
                Ok((_, remark)) => {
                    answer.code = response::SYSTEM_ERROR;
                    answer.remark = remark;
                }
                Err(error) => {
                    answer.code = response::SYSTEM_ERROR;
                    answer.remark = Some(error.to_string());
                }
            }
            if !oneway {
                conn.send(answer);
            }
        });
        Ok(())
    }
}
