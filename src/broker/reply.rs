//! SEND_REPLY_MESSAGE 324 and 325: the answer to a message, pushed to the client that waits for it.
//!
//! A consumer answers a message that carries `REPLY_TO_CLIENT` by a message to `<cluster>_REPLY_TOPIC`. It is passed on
//! to that client as PUSH_REPLY_MESSAGE_TO_CLIENT 326, a request that the client answers; whether it did is what the
//! consumer is told. With `storeReplyMessageEnable` the message is stored as well.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use bytes::Bytes;

use super::{
    Broker, Refusal, Route,
    answers::once_durable,
    clients::Member,
    names,
    property_text::rewritten,
    send::{self, put_code},
    send_header::SendHeader,
    send_queue::{Kind, Turn},
};
use crate::{
    format::properties::{self, Properties},
    message::{Message, Queue},
    remoting::{
        Command, Connection,
        codes::{request, response},
    },
    types::{StoreTimestamp, SysFlag},
};

/// The codes that this file answers.
pub(super) const ROUTES: &[(i32, Route)] = &[
    (request::SEND_REPLY_MESSAGE, Route::Take(serve)),
    (request::SEND_REPLY_MESSAGE_V2, Route::Take(serve)),
];

/// How long the waiting client may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// The id of the client that waits.
const REPLY_TO_CLIENT: &str = "REPLY_TO_CLIENT";
/// When the broker passed a reply on.
const PUSH_REPLY_TIME: &str = "PUSH_REPLY_TIME";

/// A reply on its way.
struct Reply {
    to: Result<Member, String>,
    push: Command,
    /// What is stored; `None` when nothing shall be.
    stored: Option<Stored>,
    queue_id: i32,
}

/// What goes into the store.
struct Stored {
    queue: Queue,
    body: Bytes,
    properties: Vec<u8>,
    flag: i32,
    sys_flag: SysFlag,
    born_timestamp: StoreTimestamp,
    born_host: SocketAddr,
    reconsume_times: i32,
}

fn serve(broker: &Arc<Broker>, conn: &Arc<Connection>, cmd: Command) {
    let answer = send::blank_answer(broker, &cmd);
    let reply = match prepare(broker, conn, &cmd) {
        Ok(reply) => reply,
        Err(refusal) => return send::refuse(conn, answer, refusal),
    };
    let (broker, conn) = (Arc::clone(broker), Arc::clone(conn));
    broker.runtime.clone().spawn(async move {
        let pushed = match reply.to {
            Ok(member) => push(&member, reply.push).await,
            Err(why) => Err(why),
        };
        if let Err(why) = &pushed {
            tracing::warn!(peer = %conn.peer(), "a reply did not arrive: {why}");
        }
        let answer = answer.map(|answer| outcome(answer, pushed, reply.queue_id));
        if let Some(stored) = reply.stored {
            store(&broker, conn, stored, answer);
        } else if let Some(answer) = answer {
            conn.send(answer);
        }
    });
}

async fn push(member: &Member, push: Command) -> Result<(), String> {
    let client = &member.client_id;
    match member.conn.call(push, PATIENCE).await {
        Ok(answer) if answer.code == response::SUCCESS => Ok(()),
        Ok(answer) => {
            Err(format!("client {client} refused it: {} {}", answer.code, answer.remark.unwrap_or_default()))
        }
        Err(error) => Err(format!("client {client}: {error}")),
    }
}

fn outcome(mut answer: Command, pushed: Result<(), String>, queue_id: i32) -> Command {
    match pushed {
        // The zeros stand where clients look for the place of a stored message.
        Ok(()) => Command { code: response::SUCCESS, ..answer }
            .with_field("msgId", "0")
            .with_field("queueId", queue_id)
            .with_field("queueOffset", 0),
        Err(why) => {
            answer.code = response::SYSTEM_ERROR;
            answer.with_remark(format!("the reply was not delivered: {why}"))
        }
    }
}

fn prepare(broker: &Arc<Broker>, conn: &Connection, cmd: &Command) -> Result<Reply, Refusal> {
    let header = SendHeader::read(cmd)?;
    let (topic, _) = send::check(broker, &header, conn.peer())?;
    let queue_id = match header.queue_id {
        asked if asked < 0 => broker.any_queue(topic.write_queues),
        asked => asked,
    };
    let trace_on = broker.live.trace_on.load(Relaxed).to_string();
    let added =
        [(properties::MSG_REGION, broker.config.region_id.as_str()), (properties::TRACE_ON, &trace_on)];
    let text = rewritten(header.properties.as_bytes(), &send::RESERVED, &added);
    let to = match Properties::new(&text).get(REPLY_TO_CLIENT) {
        None => Err(format!("it has no property {REPLY_TO_CLIENT}")),
        Some(client) => broker
            .clients
            .producer(client)
            .ok_or_else(|| format!("client {} is not connected", names::shorten(client))),
    };
    let body = cmd.body.to_bytes();
    let now = broker.clock.now();
    let time = now.get().to_string();
    let pushed_text = rewritten(&text, &[], &[(PUSH_REPLY_TIME, &time)]);
    let push = Command::request(request::PUSH_REPLY_MESSAGE_TO_CLIENT)
        .with_field("bornHost", conn.peer())
        .with_field("storeHost", broker.store_host)
        .with_field("storeTimestamp", now)
        .with_field("producerGroup", header.producer_group)
        .with_field("topic", header.topic)
        .with_field("defaultTopic", header.default_topic)
        .with_field("defaultTopicQueueNums", header.default_queues)
        .with_field("queueId", queue_id)
        .with_field("sysFlag", header.sys_flag)
        .with_field("bornTimestamp", header.born_timestamp)
        .with_field("flag", header.flag)
        .with_field("properties", String::from_utf8_lossy(&pushed_text))
        .with_field("reconsumeTimes", header.reconsume_times)
        .with_field("unitMode", header.unit_mode)
        .with_body(body.clone());
    let fits = (1..=broker.live.max_message_size.load(Relaxed)).contains(&body.len());
    let keep = fits && broker.live.store_replies.load(Relaxed);
    let stored = keep.then(|| broker.queue_of(&topic, queue_id)).transpose()?.map(|queue| Stored {
        queue,
        body,
        properties: text,
        flag: header.flag,
        sys_flag: SysFlag(header.sys_flag)
            .with(SysFlag::BORN_HOST_V6 | SysFlag::STORE_HOST_V6 | SysFlag::TRANSACTION_ROLLBACK, false),
        born_timestamp: StoreTimestamp(header.born_timestamp),
        born_host: conn.peer(),
        reconsume_times: header.reconsume_times,
    });
    Ok(Reply { to, push, stored, queue_id })
}

/// Stores the reply, in turn with all that is put, and answers. That it could not be stored is told in the log only, for
/// it was delivered or not.
fn store(broker: &Arc<Broker>, conn: Arc<Connection>, stored: Stored, answer: Option<Command>) {
    let size = (1, stored.body.len());
    broker.sends.pass(broker, Kind::Send, size, move |turn| match turn {
        Turn::Work(broker) => put(broker, &conn, &stored, answer),
        Turn::Refused(refusal) => not_stored(&conn, answer, &refusal.remark),
    });
}

fn not_stored(conn: &Connection, answer: Option<Command>, why: &str) {
    tracing::warn!(why, "a reply was not stored");
    if let Some(answer) = answer {
        conn.send(answer);
    }
}

fn put(broker: &Broker, conn: &Arc<Connection>, stored: &Stored, answer: Option<Command>) {
    let wait = Properties::new(&stored.properties).get(properties::WAIT).is_none_or(|wait| wait != "false");
    let message = Message::new(stored.queue, &stored.body)
        .properties_raw(stored.properties.as_slice())
        .flag(stored.flag)
        .sys_flag(stored.sys_flag)
        .born_timestamp(stored.born_timestamp)
        .born_host(stored.born_host)
        .store_host(broker.store_host)
        .reconsume_times(stored.reconsume_times)
        .wait_store(wait);
    let appended = match broker.store.put(&message) {
        Ok(appended) => appended,
        Err(error) => return not_stored(conn, answer, &error.to_string()),
    };
    let Some(answer) = answer else { return };
    let answer =
        answer.with_field("msgId", appended.message_id()).with_field("queueOffset", appended.queue_offset());
    let conn = Arc::clone(conn);
    once_durable(broker, appended, move |result| {
        if let Some(why) = result.map_or_else(|error| Some(error.to_string()), |status| put_code(status).1) {
            tracing::warn!(why, "a reply is not safe on the disk");
        }
        conn.send(answer);
    });
}
