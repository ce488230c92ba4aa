//! The records of the revive topic: check points, acknowledgements and batches of them, as JSON (FORMAT.md, "Revive
//! topic").
//!
//! Pure. A check point says which messages of a queue
//! were popped together; an acknowledgement names its check point by [`Key`].

use crate::broker::{json::Json, names};

/// Tags of the records.
pub(super) mod tag {
    pub(crate) const CHECK_POINT: &str = "ck";
    pub(crate) const ACK: &str = "ack";
    pub(crate) const BATCH_ACK: &str = "bAck";
}

/// Messages in one check point; as many as `n` and `bm` can count.
pub(super) const MAX_MESSAGES: usize = 32;

/// No queue is that long; offsets after a start below it can be added up.
const MAX_START: i64 = 1 << 62;

/// What tells check points apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) topic: String,
    pub(super) group: String,
    pub(super) queue: i32,
    pub(super) start: i64,
    pub(super) pop_time: i64,
}

impl Key {
    fn unique(&self, offset: impl std::fmt::Display, broker: &str, tag: &str) -> String {
        let Self { topic, group, queue, pop_time, .. } = self;
        format!("{topic}@{queue}@{offset}@{group}@{pop_time}@{broker}@{tag}")
    }

    fn read(json: &Json, group: &Json) -> Option<Self> {
        let text = |short, long| json.text_of(short).or_else(|| json.text_of(long));
        let int = |short, long| json.int_of(short).or_else(|| json.int_of(long));
        let key = Self {
            topic: text("t", "topic").filter(|topic| names::is_topic(topic))?.to_owned(),
            group: group.text().filter(|group| names::is_group(group))?.to_owned(),
            queue: int("q", "queueId").and_then(|queue| i32::try_from(queue).ok())?,
            start: int("so", "startOffset")?,
            pop_time: int("pt", "popTime")?,
        };
        (key.queue >= 0 && (0..MAX_START).contains(&key.start)).then_some(key)
    }
}

/// Messages of one queue that were popped together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CheckPoint {
    pub(super) key: Key,
    pub(super) invisible: i64,
    /// Distances of the messages from the key's start.
    pub(super) diffs: Vec<i32>,
    /// One bit for each message that is acknowledged.
    pub(super) acked: u32,
    /// A retry does not count as one.
    pub(super) suspend: bool,
}

impl CheckPoint {
    /// When what is not acknowledged is to be given again.
    pub(super) const fn due(&self) -> i64 {
        self.key.pop_time.saturating_add(self.invisible)
    }

    /// Notes an acknowledgement; one of a message that is not among these changes nothing.
    pub(super) fn ack(&mut self, offset: i64) {
        let diff = offset.checked_sub(self.key.start);
        if let Some(n) = self.diffs.iter().position(|have| Some(i64::from(*have)) == diff) {
            self.acked |= 1 << n;
        }
    }

    /// The offsets that are not acknowledged.
    pub(super) fn open(&self) -> impl Iterator<Item = i64> {
        let each = self.diffs.iter().enumerate();
        each.filter(|(n, _)| self.acked & (1 << n) == 0).map(|(_, diff)| self.key.start + i64::from(*diff))
    }

    /// Reads the body of a record.
    pub(super) fn read(body: &[u8]) -> Option<Self> {
        let json = Json::parse(body).ok()?;
        let key = Key::read(&json, json.get("c").or_else(|| json.get("cId"))?)?;
        let int = |short, long| json.int_of(short).or_else(|| json.int_of(long));
        let count = usize::try_from(int("n", "num")?).ok().filter(|count| *count <= MAX_MESSAGES)?;
        let listed = json.get("d").or_else(|| json.get("queueOffsetDiff")).map(Json::items);
        let diffs: Vec<i32> = match listed.filter(|listed| !listed.is_empty()) {
            Some(listed) => {
                let listed = listed.iter().take(count).map(|diff| diff.int()?.try_into().ok());
                listed.collect::<Option<_>>()?
            }
            // Older brokers popped without gaps and did not list them.
            None => (0..i32::try_from(count).ok()?).collect(),
        };
        if diffs.iter().any(|diff| *diff < 0) {
            return None;
        }
        let bits = int("bm", "bitMap").unwrap_or(0);
        Some(Self {
            key,
            invisible: int("it", "invisibleTime")?,
            diffs,
            // Java keeps the 32 bits in a signed number.
            acked: (bits & i64::from(u32::MAX)).try_into().ok()?,
            suspend: json.bool_of("sp").or_else(|| json.bool_of("suspend")).unwrap_or(false),
        })
    }

    fn json(&self, broker: &str) -> Json {
        Json::map([
            ("bm", Json::from(self.acked.cast_signed())),
            ("bn", broker.into()),
            ("c", self.key.group.as_str().into()),
            ("d", self.diffs.clone().into()),
            ("it", self.invisible.into()),
            ("n", i64::try_from(self.diffs.len()).unwrap_or(0).into()),
            ("pt", self.key.pop_time.into()),
            ("q", self.key.queue.into()),
            ("reviveTime", self.due().into()),
            ("ro", 0.into()),
            ("so", self.key.start.into()),
            ("sp", self.suspend.into()),
            ("t", self.key.topic.as_str().into()),
        ])
    }
}

/// Acknowledged messages of one check point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Acks {
    pub(super) key: Key,
    pub(super) offsets: Vec<i64>,
}

impl Acks {
    /// Reads the body of a record of either kind.
    pub(super) fn read(body: &[u8]) -> Option<Self> {
        let json = Json::parse(body).ok()?;
        let key = Key::read(&json, json.get("c").or_else(|| json.get("consumerGroup"))?)?;
        let offsets = match json.get("aol").or_else(|| json.get("ackOffsetList")) {
            Some(list) => list.items().iter().filter_map(Json::int).collect(),
            None => vec![json.int_of("ao").or_else(|| json.int_of("ackOffset"))?],
        };
        Some(Self { key, offsets })
    }

    fn json(&self, broker: &str, batch: bool) -> Json {
        let mut pairs =
            vec![("ao", Json::from(if batch { -1 } else { self.offsets.first().copied().unwrap_or(-1) }))];
        if batch {
            pairs.push(("aol", self.offsets.clone().into()));
        }
        pairs.extend([
            ("bn", Json::from(broker)),
            ("c", self.key.group.as_str().into()),
            ("pt", self.key.pop_time.into()),
            ("q", self.key.queue.into()),
            ("so", self.key.start.into()),
            ("t", self.key.topic.as_str().into()),
        ]);
        Json::map(pairs)
    }
}

/// A record on its way into the revive topic.
#[derive(Debug)]
pub(super) struct Record {
    /// The queue of the revive topic.
    pub(super) queue: i32,
    pub(super) tag: &'static str,
    /// The message's unique key.
    pub(super) unique: String,
    pub(super) body: String,
}

impl Record {
    /// A check point for a queue of the revive topic.
    pub(super) fn check_point(queue: i32, of: &CheckPoint, broker: &str) -> Self {
        let unique = of.key.unique(of.key.start, broker, tag::CHECK_POINT);
        Self { queue, tag: tag::CHECK_POINT, unique, body: of.json(broker).compact() }
    }

    /// One acknowledgement, or several as a batch.
    pub(super) fn acks(queue: i32, acks: &Acks, batch: bool, broker: &str) -> Self {
        let offset = if batch { -1 } else { acks.offsets.first().copied().unwrap_or(-1) };
        Self {
            queue,
            tag: if batch { tag::BATCH_ACK } else { tag::ACK },
            unique: acks.key.unique(offset, broker, tag::ACK),
            body: acks.json(broker, batch).compact(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        Key { topic: "t".into(), group: "g".into(), queue: 3, start: 5, pop_time: 1_000 }
    }

    #[test]
    fn records_are_those_that_java_writes_and_both_spellings_are_read() {
        let ck = CheckPoint { key: key(), invisible: 60_000, diffs: vec![0, 2], acked: 0, suspend: false };
        let java = r#"{"bm":0,"bn":"broker-a","c":"g","d":[0,2],"it":60000,"n":2,"pt":1000,"q":3,"reviveTime":61000,"ro":0,"so":5,"sp":false,"t":"t"}"#;
        let record = Record::check_point(1, &ck, "broker-a");
        assert_eq!((record.body.as_str(), record.unique.as_str()), (java, "t@3@5@g@1000@broker-a@ck"));
        assert_eq!(CheckPoint::read(java.as_bytes()), Some(ck.clone()));
        let long = r#"{"bitMap":0,"brokerName":"broker-a","cId":"g","invisibleTime":60000,"num":2,"popTime":1000,"queueId":3,"queueOffsetDiff":[0,2],"reviveOffset":0,"reviveTime":61000,"startOffset":5,"suspend":false,"topic":"t"}"#;
        assert_eq!(CheckPoint::read(long.as_bytes()), Some(ck));

        let acks = Acks { key: key(), offsets: vec![5, 7] };
        let java = r#"{"ao":-1,"aol":[5,7],"bn":"broker-a","c":"g","pt":1000,"q":3,"so":5,"t":"t"}"#;
        assert_eq!(Record::acks(1, &acks, true, "broker-a").body, java);
        assert_eq!(Acks::read(java.as_bytes()), Some(acks));
        let one = Acks { key: key(), offsets: vec![7] };
        let java = r#"{"ao":7,"bn":"broker-a","c":"g","pt":1000,"q":3,"so":5,"t":"t"}"#;
        assert_eq!(Record::acks(1, &one, false, "broker-a").body, java);
        assert_eq!(Acks::read(java.as_bytes()), Some(one));
    }

    #[test]
    fn an_acknowledged_message_is_not_open_any_more() {
        let mut ck = CheckPoint { key: key(), invisible: 10, diffs: vec![0, 2, 3], acked: 0, suspend: false };
        for offset in [7, 6, 4, i64::MIN, i64::MAX] {
            ck.ack(offset);
        }
        assert_eq!((ck.open().collect::<Vec<_>>(), ck.due()), (vec![5, 8], 1_010));
        let text = ck.json("b").compact();
        assert_eq!(CheckPoint::read(text.as_bytes()), Some(ck));
    }

    #[test]
    fn a_check_point_of_32_messages_survives_java_s_signed_bits() {
        let mut ck =
            CheckPoint { key: key(), invisible: 1, diffs: (0..32).collect(), acked: 0, suspend: true };
        ck.ack(5 + 31);
        assert!(ck.json("b").compact().starts_with(r#"{"bm":-2147483648,"#));
        assert_eq!(CheckPoint::read(ck.json("b").compact().as_bytes()), Some(ck));
    }

    #[test]
    fn what_is_no_record_is_not_read() {
        for bad in [
            "",
            "1-7",
            "{}",
            r#"{"c":"g","t":"../t","q":0,"so":0,"pt":1,"it":1,"n":1,"d":[0]}"#,
            r#"{"c":"g","t":"t","q":-1,"so":0,"pt":1,"it":1,"n":1,"d":[0]}"#,
            r#"{"c":"g","t":"t","q":0,"so":9223372036854775807,"pt":1,"it":1,"n":2}"#,
            r#"{"c":"g","t":"t","q":0,"so":0,"pt":1,"it":1,"n":33}"#,
            r#"{"c":"g","t":"t","q":0,"so":0,"pt":1,"it":1,"n":1,"d":[-1]}"#,
        ] {
            assert_eq!(CheckPoint::read(bad.as_bytes()), None, "{bad}");
        }
        let old = br#"{"c":"g","t":"t","q":0,"so":3,"pt":1,"it":1,"n":2,"bm":0}"#;
        assert_eq!(CheckPoint::read(old).unwrap().open().collect::<Vec<_>>(), [3, 4]);
    }
}
