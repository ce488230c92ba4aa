//! Popping in order: which messages of a queue a group has in hand, `consumerOrderInfo.json`.
//!
//! Owns one entry a topic, group and queue: the messages of the last pop, which of them are acknowledged, and until when
//! the others are invisible. While one is, the queue gives the group nothing, so that the order holds; when the time of
//! all has ended, the same messages are popped again and counted. An entry that was not used for a day goes at the next
//! save. It is a cache of a decision and not a record of deliveries: after a kill the messages come again.

use std::collections::{BTreeMap, HashMap};

use parking_lot::Mutex;

use super::{check_point::MAX_MESSAGES, extra_info::List};
use crate::{
    broker::{Broker, config_file::ConfigFile, json::Json, names},
    error::Result,
};

/// Milliseconds after which an entry that nobody used is forgotten.
const FORGET: i64 = 24 * 3_600_000;

/// One pop of a queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct InHand {
    /// The client's name for its try; a repeated try gets the same messages.
    attempt: Option<String>,
    pop_time: i64,
    invisible: Option<i64>,
    offsets: Vec<i64>,
    /// Offset -> when it becomes visible, where that was changed.
    visible_at: BTreeMap<i64, i64>,
    /// Offset -> how often it was popped before.
    counts: Option<BTreeMap<i64, i32>>,
    used: i64,
    /// One bit for each offset that is acknowledged.
    acked: u64,
}

/// What an acknowledgement in order came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Acked {
    /// The group goes on at this offset.
    Next(i64),
    /// It belongs to a pop that is over: nothing changes.
    Stale,
    /// The message is not among those in hand.
    Illegal,
}

impl InHand {
    fn open(&self) -> impl Iterator<Item = i64> {
        let each = self.offsets.iter().enumerate();
        each.filter(|(n, _)| self.acked & (1 << n) == 0).map(|(_, offset)| *offset)
    }

    /// When the first message that is not acknowledged becomes visible; `None` when none is hidden at `now`.
    fn hidden_until(&self, now: i64, invisible: i64) -> Option<i64> {
        let ends = |offset| {
            let plain =
                self.pop_time.saturating_add(self.invisible.filter(|ms| *ms > 0).unwrap_or(invisible));
            self.visible_at.get(&offset).copied().unwrap_or(plain)
        };
        self.open().map(ends).filter(|end| now < *end).min()
    }

    fn ack(&mut self, offset: i64, pop_time: i64) -> Acked {
        if pop_time != self.pop_time {
            return Acked::Stale;
        }
        let Some(n) = self.offsets.iter().position(|have| *have == offset) else { return Acked::Illegal };
        self.acked |= 1 << n;
        let next = self.open().next();
        Acked::Next(next.or_else(|| self.offsets.last().map(|last| last + 1)).unwrap_or(offset))
    }

    /// How often each of `self`'s messages was popped, from what was in hand before.
    fn count_after(&mut self, before: &Self) {
        if before.attempt.is_some() && before.attempt == self.attempt {
            self.counts = Some(before.counts.clone().unwrap_or_default());
            return;
        }
        let again = self.offsets.iter().filter(|offset| before.offsets.contains(offset));
        let count =
            |offset| before.counts.as_ref().and_then(|counts| counts.get(offset)).copied().unwrap_or(0);
        self.counts = Some(again.map(|offset| (*offset, count(offset).saturating_add(1))).collect());
    }

    /// What the client is told of the counts.
    fn tell(&self, topic: &str, queue: i32, list: &mut List) {
        let counts = self.counts.clone().unwrap_or_default();
        for (offset, count) in &counts {
            list.add(topic, format_args!("qo{queue}%{offset}"), count);
        }
        let least = if counts.len() == self.offsets.len() { counts.values().min() } else { None };
        list.add(topic, queue, least.copied().unwrap_or(0));
    }

    fn to_json(&self) -> Json {
        let mut pairs = Vec::new();
        if let Some(attempt) = &self.attempt {
            pairs.push(("a", Json::from(attempt.as_str())));
        }
        pairs.push(("cm", self.acked.cast_signed().into()));
        if let Some(invisible) = self.invisible {
            pairs.push(("i", invisible.into()));
        }
        pairs.push(("l", self.used.into()));
        let first = self.offsets.first().copied().unwrap_or(0);
        let after = self.offsets.iter().skip(1).map(|offset| offset - first);
        pairs.push(("o", std::iter::once(first).chain(after).collect::<Vec<_>>().into()));
        if let Some(counts) = &self.counts {
            pairs.push(("oc", Json::map(counts.iter().map(|(offset, n)| (*offset, Json::from(*n))))));
        }
        if !self.visible_at.is_empty() {
            pairs.push((
                "ot",
                Json::map(self.visible_at.iter().map(|(offset, at)| (*offset, Json::from(*at)))),
            ));
        }
        pairs.push(("popTime", self.pop_time.into()));
        Json::map(pairs)
    }

    fn from_json(json: &Json) -> Option<Self> {
        let listed: Vec<i64> = json.get("o")?.items().iter().filter_map(Json::int).collect();
        let (first, after) = listed.split_first()?;
        let offsets = std::iter::once(Some(*first)).chain(after.iter().map(|diff| first.checked_add(*diff)));
        let offsets: Vec<i64> = offsets.collect::<Option<_>>()?;
        if offsets.len() > MAX_MESSAGES || offsets.iter().any(|offset| !(0..i64::MAX).contains(offset)) {
            return None;
        }
        let table = |name| {
            let pairs = json.get(name).map(Json::pairs).unwrap_or_default();
            pairs.iter().filter_map(|(offset, value)| Some((offset.int()?, value.int()?)))
        };
        Some(Self {
            attempt: json.text_of("a").map(str::to_owned),
            pop_time: json.int_of("popTime")?,
            invisible: json.int_of("i"),
            offsets,
            visible_at: table("ot").collect(),
            counts: json
                .get("oc")
                .map(|_| table("oc").filter_map(|(at, n)| Some((at, i32::try_from(n).ok()?))).collect()),
            used: json.int_of("l").unwrap_or(0),
            acked: json.int_of("cm").unwrap_or(0).cast_unsigned(),
        })
    }
}

/// A queue as a group pops it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub(super) topic: &'a str,
    pub(super) group: &'a str,
    pub(super) queue: i32,
}

impl Place<'_> {
    fn key(self) -> String {
        format!("{}@{}", self.topic, self.group)
    }
}

/// A pop in order.
#[derive(Debug)]
pub(super) struct Popped<'a> {
    pub(super) attempt: Option<&'a str>,
    pub(super) now: i64,
    pub(super) invisible: i64,
    pub(super) offsets: Vec<i64>,
}

/// `topic@group` -> queue -> what is in hand.
type Table = HashMap<String, BTreeMap<i32, InHand>>;

/// What all groups that pop in order have in hand.
#[derive(Debug)]
pub(super) struct Orders {
    table: Mutex<Table>,
    file: ConfigFile,
}

impl Orders {
    /// Reads `consumerOrderInfo.json`.
    pub(super) fn load(file: ConfigFile) -> Result<Self> {
        let table = file.load(|json| {
            let mut table = Table::new();
            for (key, queues) in json.get("table").ok_or("no table")?.pairs() {
                let Some(key) = key.text().filter(|key| {
                    let names = key.split_once('@');
                    names.is_some_and(|(topic, group)| names::is_topic(topic) && names::is_group(group))
                }) else {
                    continue;
                };
                let queues = queues.pairs().iter().filter_map(|(queue, in_hand)| {
                    Some((i32::try_from(queue.int()?).ok()?, InHand::from_json(in_hand)?))
                });
                table.insert(key.to_owned(), queues.collect());
            }
            Ok(table)
        })?;
        Ok(Self { table: Mutex::new(table.unwrap_or_default()), file })
    }

    fn with<T>(&self, place: Place<'_>, work: impl FnOnce(&mut InHand) -> T) -> Option<T> {
        self.table.lock().get_mut(&place.key())?.get_mut(&place.queue).map(work)
    }

    /// When the queue gives something to this try; `None` when it does at once.
    pub(super) fn hidden_until(
        &self,
        place: Place<'_>,
        attempt: Option<&str>,
        now: i64,
        invisible: i64,
    ) -> Option<i64> {
        self.with(place, |in_hand| {
            let same_try = in_hand.attempt.is_some() && in_hand.attempt.as_deref() == attempt;
            if same_try { None } else { in_hand.hidden_until(now, invisible) }
        })?
    }

    /// Notes a pop, and tells the client how often the messages were popped before.
    pub(super) fn popped(&self, place: Place<'_>, popped: Popped<'_>, list: &mut List) {
        let mut in_hand = InHand {
            attempt: popped.attempt.map(str::to_owned),
            pop_time: popped.now,
            invisible: Some(popped.invisible),
            offsets: popped.offsets,
            used: popped.now,
            ..InHand::default()
        };
        let mut table = self.table.lock();
        let queues = table.entry(place.key()).or_default();
        if let Some(before) = queues.get(&place.queue) {
            in_hand.count_after(before);
        }
        in_hand.tell(place.topic, place.queue, list);
        queues.insert(place.queue, in_hand);
    }

    /// Notes an acknowledgement.
    pub(super) fn ack(&self, place: Place<'_>, offset: i64, pop_time: i64) -> Acked {
        self.with(place, |in_hand| in_hand.ack(offset, pop_time))
            .unwrap_or(Acked::Next(offset.saturating_add(1)))
    }

    /// Changes when a message becomes visible, if it is of the pop that is in hand.
    pub(super) fn show_at(&self, place: Place<'_>, offset: i64, pop_time: i64, at: i64) {
        self.with(place, |in_hand| {
            if in_hand.pop_time == pop_time && in_hand.offsets.contains(&offset) {
                in_hand.visible_at.insert(offset, at);
            }
        });
    }

    /// Forgets what is in hand of a queue.
    pub(super) fn clear(&self, place: Place<'_>) {
        if let Some(queues) = self.table.lock().get_mut(&place.key()) {
            queues.remove(&place.queue);
        }
    }

    /// Forgets what no longer matters and writes `consumerOrderInfo.json`.
    pub(super) fn save(&self, broker: &Broker) -> Result<()> {
        let now = broker.clock.now().get();
        let mut table = self.table.lock();
        table.retain(|key, queues| {
            let Some((topic, group)) = key.split_once('@') else { return false };
            let read_queues = broker.topics.get(topic).map_or(0, |topic| topic.read_queues);
            queues
                .retain(|queue, in_hand| *queue < read_queues && now.saturating_sub(in_hand.used) <= FORGET);
            !queues.is_empty() && broker.groups.get(group).is_some()
        });
        let json = to_json(&table);
        drop(table);
        // A broker that nobody pops from in order needs no such file.
        if json.get("table").is_some_and(|table| table.pairs().is_empty()) && !self.file.is_written() {
            return Ok(());
        }
        self.file.save(&json)
    }
}

fn to_json(table: &Table) -> Json {
    let mut groups: Vec<_> = table.iter().collect();
    groups.sort_unstable_by_key(|(key, _)| *key);
    let groups = groups.into_iter().map(|(key, queues)| {
        (key.as_str(), Json::map(queues.iter().map(|(queue, in_hand)| (*queue, in_hand.to_json()))))
    });
    Json::map([
        ("orderInfoCount", Json::from(i64::try_from(table.len()).unwrap_or(i64::MAX))),
        ("orderedConsumptionLevel", "QUEUE".into()),
        ("table", Json::map(groups)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::OsVfs;
    use std::sync::Arc;

    const PLACE: Place<'_> = Place { topic: "t", group: "g", queue: 0 };

    fn orders(dir: &std::path::Path) -> Orders {
        Orders::load(ConfigFile::new(Arc::new(OsVfs), dir, "consumerOrderInfo.json").unwrap()).unwrap()
    }

    fn pop(orders: &Orders, attempt: &str, now: i64, offsets: &[i64]) -> String {
        let mut list = List::default();
        let popped = Popped { attempt: Some(attempt), now, invisible: 60_000, offsets: offsets.to_vec() };
        orders.popped(PLACE, popped, &mut list);
        list.text().to_owned()
    }

    /// As RocketMQ 5.5 writes it after the same calls.
    const JAVA: &str = r#"{
	"orderInfoCount":1,
	"orderedConsumptionLevel":"QUEUE",
	"table":{
		"t@g":{
			0:{
				"a":"att2",
				"cm":0,
				"i":60000,
				"l":2000,
				"o":[5,1,3,4],
				"oc":{
					5:1,
					6:1,
					8:1
				},
				"ot":{
					6:9999
				},
				"popTime":2000
			}
		}
	}
}"#;

    #[test]
    fn what_is_in_hand_is_written_as_java_does_and_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let first = orders(dir.path());
        assert_eq!(pop(&first, "att", 1_000, &[5, 6, 8]), "0 0 0");
        assert_eq!(pop(&first, "att2", 2_000, &[5, 6, 8, 9]), "0 qo0%5 1;0 qo0%6 1;0 qo0%8 1;0 0 0");
        first.show_at(PLACE, 6, 2_000, 9_999);
        first.show_at(PLACE, 6, 1_000, 1);
        let json = to_json(&first.table.lock());
        assert_eq!(json, Json::parse(JAVA.as_bytes()).unwrap());
        std::fs::write(dir.path().join("consumerOrderInfo.json"), JAVA).unwrap();
        assert_eq!(*orders(dir.path()).table.lock(), *first.table.lock());
    }

    #[test]
    fn a_queue_gives_nothing_while_one_message_is_hidden() {
        let dir = tempfile::tempdir().unwrap();
        let orders = orders(dir.path());
        let hidden = |attempt, now| orders.hidden_until(PLACE, attempt, now, 1);
        assert_eq!(hidden(Some("a"), 0), None);
        pop(&orders, "a", 1_000, &[5, 6]);
        assert_eq!(hidden(Some("a"), 1_000), None, "a try that is repeated");
        assert_eq!(hidden(Some("b"), 1_000), Some(61_000));
        assert_eq!(orders.ack(PLACE, 5, 1_000), Acked::Next(6));
        orders.show_at(PLACE, 6, 1_000, 5_000);
        assert_eq!((hidden(None, 4_999), hidden(None, 5_000)), (Some(5_000), None));
        assert_eq!(orders.ack(PLACE, 6, 1_000), Acked::Next(7));
        assert_eq!(hidden(None, 1_000), None);
    }

    #[test]
    fn only_messages_in_hand_can_be_acknowledged() {
        let dir = tempfile::tempdir().unwrap();
        let orders = orders(dir.path());
        assert_eq!(orders.ack(PLACE, 5, 1), Acked::Next(6), "a pop that this broker has forgotten");
        pop(&orders, "a", 1_000, &[5, 6, 9]);
        assert_eq!(orders.ack(PLACE, 5, 999), Acked::Stale);
        assert_eq!(orders.ack(PLACE, 7, 1_000), Acked::Illegal);
        assert_eq!(orders.ack(PLACE, 9, 1_000), Acked::Next(5));
        assert_eq!(orders.ack(PLACE, 5, 1_000), Acked::Next(6));
        assert_eq!(orders.ack(PLACE, 6, 1_000), Acked::Next(10));
        orders.clear(PLACE);
        assert_eq!(orders.hidden_until(PLACE, None, 0, 1), None);
    }

    #[test]
    fn each_pop_of_the_same_messages_is_counted_but_a_repeated_try_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let orders = orders(dir.path());
        assert_eq!(pop(&orders, "a", 1, &[5, 6]), "0 0 0");
        assert_eq!(pop(&orders, "a", 2, &[5, 6]), "0 0 0");
        assert_eq!(pop(&orders, "b", 3, &[5, 6]), "0 qo0%5 1;0 qo0%6 1;0 0 1");
        assert_eq!(pop(&orders, "c", 4, &[6]), "0 qo0%6 2;0 0 2");
    }
}
