//! RECALL_MESSAGE 370: a producer takes a timed message back before it is due.
//!
//! The broker puts a message for the same time that names the other one; when the time comes, neither is delivered.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use base64::{Engine as _, engine::general_purpose::URL_SAFE};

use super::park::Timed;
use crate::{
    broker::{
        Broker, Refusal, Route,
        answers::once_durable,
        names,
        property_text::{TimerAsk, rewritten},
        send::put_code,
        send_queue::Kind,
        topics::perm,
    },
    format::properties,
    message::Message,
    remoting::{
        Command, Connection,
        codes::{request, response},
    },
    types::SysFlag,
};

/// The codes that this file answers.
pub(super) const ROUTES: &[(i32, Route)] = &[(request::RECALL_MESSAGE, Route::Queued(Kind::Send, recall))];

const VERSION: &str = "v1";
/// The tag of the messages that take others back.
const TAG: &str = "_RECALL_TAG_";

/// The handle of a message: RocketMQ's first version, its words in URL-safe base64.
pub(super) fn handle(topic: &str, broker_name: &str, out_ms: i64, unique_key: &str) -> String {
    URL_SAFE.encode(format!("{VERSION} {topic} {broker_name} {out_ms} {unique_key}"))
}

/// The name by which a message that takes another back names it.
pub(super) fn delete_key(topic: &str, unique_key: &str) -> String {
    format!("{topic}+{unique_key}")
}

struct Recalled {
    topic: String,
    broker_name: String,
    out_ms: i64,
    unique_key: String,
}

impl Recalled {
    fn read(text: &str) -> Option<Self> {
        let bytes = URL_SAFE.decode(text).ok()?;
        let words = String::from_utf8(bytes).ok()?;
        let mut words = words.split(' ');
        if words.next()? != VERSION {
            return None;
        }
        Some(Self {
            topic: words.next()?.to_owned(),
            broker_name: words.next()?.to_owned(),
            out_ms: words.next()?.parse().unwrap_or(-1),
            unique_key: words.next()?.to_owned(),
        })
    }
}

fn recall(broker: &Arc<Broker>, conn: &Arc<Connection>, cmd: Command) {
    if let Err(refusal) = take_back(broker, conn, &cmd) {
        let answer = cmd.reply(refusal.code).with_remark(refusal.remark);
        Broker::reply(conn, &cmd, Ok(answer.with_field(properties::MSG_REGION, &broker.config.region_id)));
    }
}

fn take_back(broker: &Arc<Broker>, conn: &Arc<Connection>, cmd: &Command) -> Result<(), Refusal> {
    let handle = check(broker, cmd)?;
    let delete = delete_key(&handle.topic, &handle.unique_key);
    let (out_ms, born) = (handle.out_ms.to_string(), broker.clock.now());
    let born_text = born.to_string();
    let ask = TimerAsk { deliver_ms: Some(&out_ms), deletes: true, ..TimerAsk::default() };
    let Some(timed) = Timed::of(broker, &ask, SysFlag(0), &handle.topic, 0)? else {
        return Err(too_late());
    };
    let mut add = vec![
        (properties::TAGS, TAG),
        (properties::TIMER_DEL_UNIQKEY, delete.as_str()),
        (properties::UNIQ_KEY, handle.unique_key.as_str()),
        (properties::TIMER_DELIVER_MS, out_ms.as_str()),
        (properties::BORN_TIMESTAMP, born_text.as_str()),
    ];
    let group = cmd.fields.get("producerGroup");
    add.extend(group.map(|group| (properties::PGROUP, group)));
    add.extend(timed.properties());
    let text = rewritten(b"", &[], &add);
    let message = Message::new(Timed::queue(broker)?, b"0")
        .properties_raw(text)
        .born_timestamp(born)
        .born_host(conn.peer())
        .store_host(broker.store_host);
    let stored = broker
        .store
        .put(&message)
        .map_err(|error| Refusal::new(put_code(error.put_status()).0, error.to_string()))?;
    let answer = cmd
        .reply(response::SUCCESS)
        .with_field(properties::MSG_REGION, &broker.config.region_id)
        .with_field("msgId", &handle.unique_key);
    let (conn, oneway) = (Arc::clone(conn), cmd.is_oneway());
    once_durable(broker, stored, move |result| {
        if oneway {
            return;
        }
        conn.send(match result {
            // Also after a flush that took too long: the message is in the log.
            Ok(_) => answer,
            Err(error) => {
                Command { code: put_code(error.put_status()).0, remark: Some(error.to_string()), ..answer }
            }
        });
    });
    Ok(())
}

fn too_late() -> Refusal {
    Refusal::new(response::ILLEGAL_OPERATION, "recall failed, timestamp invalid")
}

/// The checks that a recall must pass, and what it names.
fn check(broker: &Broker, cmd: &Command) -> Result<Recalled, Refusal> {
    let forbidden = |code, remark: &str| Err(Refusal::new(code, remark));
    if !broker.live.recall_messages.load(Relaxed) {
        return forbidden(response::NO_PERMISSION, "recall failed, operation is forbidden");
    }
    let (live, closed) = (&broker.live, !perm::is_writeable(broker.live.permission.load(Relaxed)));
    if closed && !live.recall_when_not_writeable.load(Relaxed) {
        return forbidden(response::SERVICE_NOT_AVAILABLE, "recall failed, broker service not available");
    }
    let topic = cmd.fields.text("topic")?;
    if broker.topics.get(topic).is_none() {
        let remark = format!("recall failed, the topic[{}] not exist", names::shorten(topic));
        return Err(Refusal::new(response::TOPIC_NOT_EXIST, remark));
    }
    let Some(handle) = Recalled::read(cmd.fields.text("recallHandle")?) else {
        return forbidden(response::ILLEGAL_OPERATION, "recall handle is invalid");
    };
    if handle.topic != topic {
        return forbidden(response::ILLEGAL_OPERATION, "recall failed, topic not match");
    }
    if handle.broker_name != broker.config.name {
        return forbidden(response::ILLEGAL_OPERATION, "recall failed, broker service not available");
    }
    let left = handle.out_ms - broker.clock.now().get();
    let most = i64::try_from(broker.config.timer_max_delay_s).unwrap_or(i64::MAX).saturating_mul(1_000);
    if left <= 0 || left >= most {
        return Err(too_late());
    }
    Ok(handle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_reads_back_and_another_text_is_none() {
        let text = handle("T", "broker-a", 1_795_242_725_001, "C0A8");
        let read = Recalled::read(&text).unwrap();
        assert_eq!((read.topic.as_str(), read.broker_name.as_str()), ("T", "broker-a"));
        assert_eq!((read.out_ms, read.unique_key.as_str()), (1_795_242_725_001, "C0A8"));
        let broken = [
            "",
            "%%",
            &URL_SAFE.encode("v2 T b 1 k"),
            &URL_SAFE.encode("v1 T b 1"),
            &URL_SAFE.encode([0xFF]),
        ];
        assert!(broken.into_iter().all(|text| Recalled::read(text).is_none()));
    }

    #[test]
    fn a_handle_that_java_made_is_read() {
        let java = "djEgSVRfcmVjYWxsX3BmZmhnIGJyb2tlci1hIDE3OTUyNDI3MjUwMDEgQzAwMDAyMDIyRDYyNEUwRTJGMkE2ODY2MTEwRDAwMEM=";
        let read = Recalled::read(java).unwrap();
        assert_eq!((read.topic.as_str(), read.out_ms), ("IT_recall_pffhg", 1_795_242_725_001));
        assert_eq!(handle(&read.topic, &read.broker_name, read.out_ms, &read.unique_key), java);
    }
}
