//! Which messages a run is made of, under the names that the Java side uses too.

use std::{
    net::SocketAddr,
    time::{SystemTime, UNIX_EPOCH},
};

use reput::{Message, Queue, StoreTimestamp, SysFlag};

const TAGS: [Option<&str>; 5] =
    [None, Some("TagA"), Some("TagB"), Some("a tag with spaces"), Some("\u{fc}ml\u{e4}ut")];

/// A way of making messages.
#[derive(Debug)]
pub struct Plan {
    pub name: String,
    pub topics: u64,
    pub queues: u64,
    pub max_body: u64,
}

/// One message before it is put.
#[derive(Debug)]
pub struct Letter {
    pub topic: String,
    pub queue_id: i32,
    pub body: Vec<u8>,
    pub flag: i32,
    pub sys_flag: i32,
    pub born_timestamp: i64,
    pub born_host: SocketAddr,
    pub store_host: SocketAddr,
    pub reconsume_times: i32,
    pub prepared_transaction_offset: i64,
    pub tags: Option<String>,
    pub keys: String,
    pub uniq_key: String,
    pub user: String,
    pub delay_level: i64,
    pub lmq: Option<String>,
    pub inner_num: i64,
}

/// A small generator of numbers; the same seed gives the same numbers.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    fn int(&mut self, bound: u64) -> i32 {
        i32::try_from(self.below(bound)).unwrap_or(i32::MAX)
    }
}

impl Plan {
    /// Message number `n`; the same number gives the same message, but for its time.
    pub fn letter(&self, n: u64) -> Letter {
        let mut dice = Dice(n);
        let length = if dice.below(8) == 0 { 0 } else { dice.below(self.max_body + 1) };
        let body = (0..length).map(|_| u8::try_from(dice.below(256)).unwrap_or(0)).collect();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut letter = Letter {
            topic: self.topic(n % self.topics),
            queue_id: dice.int(self.queues),
            body,
            flag: dice.int(1 << 31).wrapping_mul(2),
            sys_flag: 0,
            born_timestamp: i64::try_from(now.as_millis()).unwrap_or(i64::MAX),
            born_host: SocketAddr::from(([10, 1, 2, 3], 40000)),
            store_host: SocketAddr::from(([127, 0, 0, 1], 10911)),
            reconsume_times: dice.int(4),
            prepared_transaction_offset: 0,
            tags: TAGS[usize::try_from(dice.below(5)).unwrap_or(0)].map(str::to_owned),
            keys: format!("key-{n} shared-{}", n % 97),
            uniq_key: format!("7F000001{n:024X}"),
            user: format!("value of {n}"),
            delay_level: 0,
            lmq: None,
            inner_num: 0,
        };
        self.special(&mut letter, n, &mut dice);
        letter
    }

    fn special(&self, letter: &mut Letter, n: u64, dice: &mut Dice) {
        match self.name.as_str() {
            "ipv6" => {
                let tail = u16::try_from(n & 0xffff).unwrap_or(0);
                letter.born_host = SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, tail], 40000));
                if n.is_multiple_of(2) {
                    letter.store_host = SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 10911));
                }
            }
            "delay" if n.is_multiple_of(3) => {
                letter.topic = "SCHEDULE_TOPIC_XXXX".into();
                letter.queue_id = dice.int(18);
                letter.delay_level = i64::from(letter.queue_id) + 1;
            }
            "transactions" => {
                letter.sys_flag = dice.int(4) << 2;
                letter.prepared_transaction_offset = i64::from(dice.int(1 << 20));
            }
            "lmq" if n.is_multiple_of(2) => letter.lmq = Some(format!("%LMQ%left-{},%LMQ%right", n % 6)),
            "batch-queue" => {
                letter.topic = "BatchQueue".into();
                letter.sys_flag = SysFlag::INNER_BATCH;
                letter.inner_num = i64::from(dice.int(5)) + 1;
            }
            _ => {}
        }
    }

    fn topic(&self, i: u64) -> String {
        if self.name == "long-topics" {
            let length = if i.is_multiple_of(2) { 120 } else { 180 };
            format!("{}-{i}", "x".repeat(length))
        } else {
            format!("Topic-{i}")
        }
    }
}

impl Letter {
    /// This as a message for `queue`.
    pub fn message(&self, queue: Queue) -> Message<'_> {
        let mut message = Message::new(queue, &self.body)
            .flag(self.flag)
            .sys_flag(SysFlag(self.sys_flag))
            .born_timestamp(StoreTimestamp(self.born_timestamp))
            .born_host(self.born_host)
            .store_host(self.store_host)
            .reconsume_times(self.reconsume_times)
            .prepared_transaction_offset(self.prepared_transaction_offset)
            .keys(&self.keys)
            .property("UNIQ_KEY", &self.uniq_key)
            .property("user", &self.user);
        if let Some(tags) = &self.tags {
            message = message.tags(tags);
        }
        if self.delay_level > 0 {
            message = message
                .property("DELAY", &self.delay_level.to_string())
                .property("REAL_TOPIC", "Topic-0")
                .property("REAL_QID", "0");
        }
        if let Some(names) = &self.lmq {
            message = message.property("INNER_MULTI_DISPATCH", names);
        }
        if self.inner_num > 0 {
            message = message.property("INNER_NUM", &self.inner_num.to_string());
        }
        message
    }
}
