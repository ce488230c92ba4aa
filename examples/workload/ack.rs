//! What a writer was told of one message, as a JSON line. The Java side reads and writes the same lines.

use std::net::{IpAddr, SocketAddr};

use reput::{Appended, SysFlag, TransactionType};
use serde_json::{Value, json};

use crate::{Failure, plan::Letter};

/// One acknowledged message.
#[derive(Debug)]
pub struct Ack {
    pub topic: String,
    pub queue_id: i32,
    pub queue_offset: i64,
    pub physical_offset: i64,
    /// 0 when the writer was not told, as Java's is not of the parts of a batch.
    pub size: i64,
    pub store_timestamp: i64,
    pub born_timestamp: i64,
    pub born_host: String,
    pub store_host: String,
    pub sys_flag: i32,
    pub flag: i32,
    pub reconsume_times: i32,
    pub prepared_transaction_offset: i64,
    pub body_length: i64,
    pub body_crc: i64,
    pub tags: Option<String>,
    pub keys: Option<String>,
    pub uniq_key: Option<String>,
    pub user: Option<String>,
    pub delay_level: i64,
    pub lmq: Option<String>,
    pub inner_num: i64,
}

impl Ack {
    /// What `appended` tells of `letter`.
    pub fn of(letter: &Letter, appended: &Appended<'_>) -> Self {
        let flags = SysFlag(letter.sys_flag)
            .with(SysFlag::BORN_HOST_V6, letter.born_host.is_ipv6())
            .with(SysFlag::STORE_HOST_V6, letter.store_host.is_ipv6());
        Self {
            topic: letter.topic.clone(),
            queue_id: letter.queue_id,
            queue_offset: appended.queue_offset().get(),
            physical_offset: appended.physical_offset().get(),
            size: i64::try_from(appended.size()).unwrap_or(-1),
            store_timestamp: appended.store_timestamp().get(),
            born_timestamp: letter.born_timestamp,
            born_host: host_text(letter.born_host),
            store_host: host_text(letter.store_host),
            sys_flag: flags.0,
            flag: letter.flag,
            reconsume_times: letter.reconsume_times,
            prepared_transaction_offset: letter.prepared_transaction_offset,
            body_length: i64::try_from(letter.body.len()).unwrap_or(-1),
            body_crc: body_crc(&letter.body),
            tags: letter.tags.clone(),
            keys: Some(letter.keys.clone()),
            uniq_key: Some(letter.uniq_key.clone()),
            user: Some(letter.user.clone()),
            delay_level: letter.delay_level,
            lmq: letter.lmq.clone(),
            inner_num: letter.inner_num,
        }
    }

    /// Whether the message has an entry in its queue.
    pub fn is_queued(&self) -> bool {
        matches!(SysFlag(self.sys_flag).transaction(), TransactionType::None | TransactionType::Commit)
    }

    /// Whether its keys are in the index.
    pub fn is_indexed(&self) -> bool {
        SysFlag(self.sys_flag).transaction() != TransactionType::Rollback
    }

    pub fn line(&self) -> String {
        let mut line = json!({
            "topic": self.topic, "queueId": self.queue_id, "queueOffset": self.queue_offset,
            "phyOffset": self.physical_offset, "size": self.size, "storeTimestamp": self.store_timestamp,
            "bornTimestamp": self.born_timestamp, "bornHost": self.born_host, "storeHost": self.store_host,
            "sysFlag": self.sys_flag, "flag": self.flag, "reconsumeTimes": self.reconsume_times,
            "preparedTransactionOffset": self.prepared_transaction_offset, "bodyLength": self.body_length,
            "bodyCrc": self.body_crc, "tags": self.tags, "keys": self.keys, "uniqKey": self.uniq_key,
            "user": self.user, "delayLevel": self.delay_level, "lmq": self.lmq, "innerNum": self.inner_num,
        })
        .to_string();
        line.push('\n');
        line
    }

    pub fn from_line(line: &str) -> Result<Self, Failure> {
        let value: Value = serde_json::from_str(line)?;
        let text = |name: &str| value[name].as_str().map(str::to_owned);
        let must = |name: &str| text(name).ok_or_else(|| format!("no {name} in {line}"));
        let long = |name: &str| value[name].as_i64().unwrap_or(0);
        let int = |name: &str| i32::try_from(long(name));
        Ok(Self {
            topic: must("topic")?,
            queue_id: int("queueId")?,
            queue_offset: long("queueOffset"),
            physical_offset: long("phyOffset"),
            size: long("size"),
            store_timestamp: long("storeTimestamp"),
            born_timestamp: long("bornTimestamp"),
            born_host: must("bornHost")?,
            store_host: must("storeHost")?,
            sys_flag: int("sysFlag")?,
            flag: int("flag")?,
            reconsume_times: int("reconsumeTimes")?,
            prepared_transaction_offset: long("preparedTransactionOffset"),
            body_length: long("bodyLength"),
            body_crc: long("bodyCrc"),
            tags: text("tags"),
            keys: text("keys"),
            uniq_key: text("uniqKey"),
            user: text("user"),
            delay_level: long("delayLevel"),
            lmq: text("lmq"),
            inner_num: long("innerNum"),
        })
    }
}

/// The checksum of a body; 0 for none.
pub fn body_crc(body: &[u8]) -> i64 {
    if body.is_empty() { 0 } else { i64::from(crc32fast::hash(body)) }
}

/// One spelling for both sides: the raw address in hex, then the port.
pub fn host_text(host: SocketAddr) -> String {
    let bytes: Vec<u8> = match host.ip() {
        IpAddr::V4(ip) => ip.octets().into(),
        IpAddr::V6(ip) => ip.octets().into(),
    };
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{hex}:{}", host.port())
}
