//! ACK_MESSAGE 200051 and BATCH_ACK_MESSAGE 200151: a popped message is done.
//!
//! An acknowledgement becomes a record of the revive topic, behind the check point that it belongs to; the answer goes
//! out when it is as durable as the store promises. What was popped in order moves the group on instead.

use std::{net::SocketAddr, sync::Arc};

use super::{
    admission::{InHand, bounds},
    check_point::{Acks, Key, Record},
    extra_info::{ExtraInfo, ORDER_QUEUE, topic_of},
    log::{answer, put},
    order::{Acked, Place},
};
use crate::{
    broker::{Broker, Refusal, json::Json, names},
    remoting::{Command, Connection, codes::response},
    store::Appended,
};

/// Messages that one request may acknowledge.
const MAX_ACKS: usize = 65_536;

/// ACK_MESSAGE.
pub(super) fn one(broker: &Arc<Broker>, conn: &Arc<Connection>, cmd: Command) {
    let stored = ack(broker, conn, &cmd);
    answer(broker, conn, &cmd, stored, cmd.reply(response::SUCCESS));
}

/// BATCH_ACK_MESSAGE.
pub(super) fn batch(broker: &Arc<Broker>, conn: &Arc<Connection>, cmd: Command) {
    let stored = ack_batch(broker, conn, &cmd);
    answer(broker, conn, &cmd, stored, cmd.reply(response::SUCCESS));
}

fn ack<'a>(
    broker: &'a Arc<Broker>,
    conn: &Connection,
    cmd: &Command,
) -> Result<Option<Appended<'a>>, Refusal> {
    let message = InHand::read(broker, cmd, conn.peer(), true)?;
    let info = ExtraInfo::read(cmd.fields.text("extraInfo")?, broker.config.revive_queues)?;
    if info.is_ordered() {
        let place = Place { topic: message.topic, group: message.group, queue: message.queue };
        in_order(broker, place, message.offset, &info, conn.peer())?;
        return Ok(None);
    }
    put(broker, &[record_of(broker, &message, &info)])
}

/// The record that acknowledges one message.
pub(super) fn record_of(broker: &Broker, message: &InHand<'_>, info: &ExtraInfo) -> Record {
    let key = Key {
        topic: message.topic.to_owned(),
        group: message.group.to_owned(),
        queue: message.queue,
        start: info.start,
        pop_time: info.pop_time,
    };
    let acks = Acks { key, offsets: vec![message.offset] };
    Record::acks(info.revive_queue, &acks, false, &broker.config.name)
}

/// Notes an acknowledgement in order; the queue may give the group the next messages.
fn in_order(
    broker: &Arc<Broker>,
    place: Place<'_>,
    offset: i64,
    info: &ExtraInfo,
    peer: SocketAddr,
) -> Result<(), Refusal> {
    let Place { topic, group, queue } = place;
    let one_at_a_time = broker.pop.lock(topic, group);
    if broker.offsets.query(group, topic, queue).is_some_and(|at| offset < at) {
        return Ok(());
    }
    match broker.pop.orders.ack(place, offset, info.pop_time) {
        Acked::Next(next) => {
            if !broker.offsets.has_reset(group, topic, queue) {
                broker.offsets.commit(group, topic, queue, next);
            }
        }
        Acked::Stale => return Ok(()),
        Acked::Illegal => {
            let old = broker.offsets.query(group, topic, queue).unwrap_or(-1);
            let remark = format!(
                "offset is illegal, key:{topic}@{group}@{queue}, old:{old}, commit:{offset}, next:-1, /{peer}"
            );
            return Err(Refusal::new(response::MESSAGE_ILLEGAL, remark));
        }
    }
    let now = broker.clock.now().get();
    let hidden = broker.pop.orders.hidden_until(place, None, now, info.invisible).is_some();
    drop(one_at_a_time);
    if !hidden {
        super::wake(broker, topic, group, queue);
    }
    Ok(())
}

fn ack_batch<'a>(
    broker: &'a Arc<Broker>,
    conn: &Connection,
    cmd: &Command,
) -> Result<Option<Appended<'a>>, Refusal> {
    let none = || Refusal::new(response::NO_MESSAGE, "the body names no messages");
    if cmd.body.is_empty() {
        return Err(none());
    }
    let json = crate::broker::body(cmd)?;
    let acks = json.get("acks").map(Json::items).unwrap_or_default();
    if acks.is_empty() {
        return Err(none());
    }
    let mut room = MAX_ACKS;
    let parts = acks.iter().map(|json| Part::read(json, broker.config.revive_queues, &mut room));
    let mut records = Vec::new();
    for part in parts.collect::<Result<Vec<_>, _>>()? {
        records.extend(part.note(broker, conn.peer())?);
    }
    put(broker, &records)
}

/// Acknowledgements for one check point, as a request has them.
struct Part {
    topic: String,
    group: String,
    queue: i32,
    info: ExtraInfo,
    /// Distances from the check point's start.
    marked: Vec<i64>,
}

impl Part {
    /// `room` is how many messages may still be named.
    fn read(json: &Json, revive_queues: i32, room: &mut usize) -> Result<Self, Refusal> {
        let bad = |why: &str| Refusal::new(response::MESSAGE_ILLEGAL, format!("an entry of acks {why}"));
        let text = |short, long| json.text_of(short).or_else(|| json.text_of(long));
        let int = |short, long| json.int_of(short).or_else(|| json.int_of(long));
        let group = text("c", "consumerGroup").unwrap_or("");
        names::check_group(group)?;
        let kind = text("r", "retry").unwrap_or("0");
        let topic = topic_of(kind, text("t", "topic").unwrap_or(""), group)
            .ok_or_else(|| bad("has a kind of topic that is none of 0, 1, 2"))?;
        names::check_topic(&topic)?;
        let number = |short, long, name: &str| int(short, long).ok_or_else(|| bad(&format!("has no {name}")));
        let revive_queue = i32::try_from(number("rq", "reviveQueueId", "reviveQueueId")?)
            .ok()
            .filter(|queue| *queue == ORDER_QUEUE || (0..revive_queues).contains(queue))
            .ok_or_else(|| bad("names no queue for check points"))?;
        let bits = json.get("b").or_else(|| json.get("bitSet")).and_then(bytes_of);
        let marked = bits.as_deref().map(marked).ok_or_else(|| bad("has no bits"))?;
        *room = room.checked_sub(marked.len()).ok_or_else(|| bad("is one too many"))?;
        Ok(Self {
            queue: i32::try_from(number("q", "queueId", "queueId")?).map_err(|_| bad("has no queueId"))?,
            info: ExtraInfo {
                start: number("so", "startOffset", "startOffset")?,
                pop_time: number("pt", "popTime", "popTime")?,
                invisible: number("it", "invisibleTime", "invisibleTime")?,
                revive_queue,
            },
            topic,
            group: group.to_owned(),
            marked,
        })
    }

    /// Notes what is in order; gives the record for the rest. Offsets outside of the queue are passed over.
    fn note(self, broker: &Arc<Broker>, peer: SocketAddr) -> Result<Option<Record>, Refusal> {
        let (min, max) = bounds(broker, &self.topic, self.queue);
        let offsets = self.marked.iter().filter_map(|bit| self.info.start.checked_add(*bit));
        let offsets: Vec<i64> = offsets.filter(|offset| (min..=max).contains(offset)).collect();
        if self.info.is_ordered() {
            let place = Place { topic: &self.topic, group: &self.group, queue: self.queue };
            for offset in offsets {
                in_order(broker, place, offset, &self.info, peer)?;
            }
            return Ok(None);
        }
        if offsets.is_empty() {
            return Ok(None);
        }
        let key = Key {
            topic: self.topic,
            group: self.group,
            queue: self.queue,
            start: self.info.start,
            pop_time: self.info.pop_time,
        };
        let acks = Acks { key, offsets };
        Ok(Some(Record::acks(self.info.revive_queue, &acks, true, &broker.config.name)))
    }
}

/// Bytes as fastjson writes them: base64, or a list of numbers.
fn bytes_of(json: &Json) -> Option<Vec<u8>> {
    match json {
        Json::Text(text) => base64(text),
        Json::List(items) => {
            // Java's bytes have a sign.
            items
                .iter()
                .map(|item| item.int().and_then(|byte| i8::try_from(byte).ok()).map(i8::cast_unsigned))
                .collect()
        }
        _ => None,
    }
}

fn base64(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0_u32, 0);
    for c in text.trim_end_matches('=').bytes() {
        let six = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(six);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push(u8::try_from(bits >> count & 0xff).ok()?);
        }
    }
    Some(out)
}

/// The numbers of the bits that are set, the lowest bit of the first byte being 0.
fn marked(bytes: &[u8]) -> Vec<i64> {
    let bit = |at: usize| bytes[at / 8] >> (at % 8) & 1 == 1;
    let set = (0..bytes.len() * 8).filter(|at| bit(*at)).take(MAX_ACKS + 1);
    set.filter_map(|at| i64::try_from(at).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(text: &str) -> Result<Part, Refusal> {
        Part::read(&Json::parse(text.as_bytes()).unwrap(), 8, &mut MAX_ACKS.clone())
    }

    #[test]
    fn a_batch_is_read_as_java_writes_it() {
        let java = r#"{"b":"AQI=","c":"g","it":60000,"pt":1000,"q":1,"r":"1","rq":2,"so":5,"t":"t"}"#;
        let part = part(java).unwrap();
        assert_eq!((part.topic.as_str(), part.queue, part.marked), ("%RETRY%g_t", 1, vec![0, 9]));
        let info = ExtraInfo { start: 5, pop_time: 1_000, invisible: 60_000, revive_queue: 2 };
        assert_eq!(part.info, info);
    }

    #[test]
    fn what_names_no_messages_is_refused() {
        let good = r#"{"b":[1,-128],"c":"g","it":1,"pt":1,"q":1,"r":"0","rq":2,"so":5,"t":"t"}"#;
        assert_eq!(part(good).unwrap().marked, [0, 15]);
        for (from, to, code) in [
            (r#""c":"g""#, r#""c":"a@b""#, response::INVALID_PARAMETER),
            (r#""t":"t""#, r#""t":"../t""#, response::INVALID_PARAMETER),
            (r#""r":"0""#, r#""r":"9""#, response::MESSAGE_ILLEGAL),
            (r#""rq":2"#, r#""rq":8"#, response::MESSAGE_ILLEGAL),
            (r#""so":5,"#, "", response::MESSAGE_ILLEGAL),
            (r#"[1,-128]"#, r#""!""#, response::MESSAGE_ILLEGAL),
            (r#"[1,-128]"#, "[300]", response::MESSAGE_ILLEGAL),
        ] {
            let bad = good.replace(from, to);
            assert_eq!(part(&bad).err().map(|refusal| refusal.code), Some(code), "{bad}");
        }
        let mut room = 1;
        assert!(Part::read(&Json::parse(good.as_bytes()).unwrap(), 8, &mut room).is_err());
    }

    #[test]
    fn base64_comes_back_at_every_length() {
        for (text, bytes) in
            [("", &[][..]), ("AQ==", &[1]), ("AQI=", &[1, 2]), ("AQID", &[1, 2, 3]), ("/+8=", &[255, 239])]
        {
            assert_eq!(base64(text).as_deref(), Some(bytes), "{text}");
        }
        assert_eq!(base64("a b"), None);
    }
}
