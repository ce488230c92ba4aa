//! Lines of a dump as JSON objects, one of the shape that the golden stores' dumps have.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Line;
use crate::{
    consume_queue::CqUnit,
    format::{checkpoint::Checkpoint, message::Record, message_id::MessageId},
    index::IndexFileInfo,
    recovery::{DamagedRange, RecoveryReport},
    types::PhysicalOffset,
};

impl Line<'_> {
    /// The line as a JSON object; `t` says of which kind it is.
    #[must_use]
    pub fn to_json(&self) -> Value {
        match self {
            Self::Load { abort } => json!({"t": "load", "ok": true, "abort": abort}),
            Self::Recovery(report) => recovery(report),
            Self::Store { min, max, durable } => json!({
                "t": "store", "stage": "start", "minPhyOffset": min.0, "maxPhyOffset": max.0,
                "confirmOffset": max.0, "flushedWhere": durable.0,
            }),
            Self::Checkpoint(now) => checkpoint(now),
            Self::Queue(queue) => json!({
                "t": "queue", "stage": "start", "topic": queue.topic.as_str(), "queueId": queue.id.0,
                "cqType": if queue.batch { "BatchCQ" } else { "SimpleCQ" },
                "minOffset": queue.min.0, "maxOffset": queue.max.0, "minLogicOffset": queue.min_logic,
                "maxPhysicOffset": queue.max_physical.0, "nextPutOffset": queue.max.0,
            }),
            Self::Index { number, file } => index(*number, file),
            Self::Record { at, bytes, record, readable } => {
                let mut line = self::record(*at, bytes, record);
                line["lookMessageByOffset"] = (*readable).into();
                line
            }
            Self::Blank { at, len } => json!({"t": "blank", "phyOffset": at.0, "size": len}),
            Self::Damage(range) => damage(range),
            Self::WalkEnd { at } => json!({"t": "walkEnd", "phyOffset": at.0}),
            Self::Cq { queue, unit, message } => {
                let mut line = json!({"t": "cq", "topic": queue.topic.as_str(), "queueId": queue.id.0});
                entry(&mut line, unit, *message);
                line
            }
            Self::Query { topic, key, max, hits } => json!({
                "t": "query", "topic": topic, "key": key, "indexType": null, "begin": 0, "end": i64::MAX, "max": max,
                "phyOffsets": hits.offsets.iter().map(|at| at.0).collect::<Vec<_>>(),
                "indexLastUpdateTimestamp": hits.last_update_timestamp.0,
                "indexLastUpdatePhyoffset": hits.last_update_offset.0,
            }),
        }
    }
}

fn recovery(report: &RecoveryReport) -> Value {
    let (queues, index) = (&report.queues, &report.index);
    json!({
        "t": "recovery", "records": report.records, "from": report.start.0, "end": report.end.0,
        "torn": report.torn.map(|why| why.to_string()),
        "damage": report.damage.iter().map(damage).collect::<Vec<_>>(),
        "queueEntriesAdded": queues.added, "queueEntriesRewritten": queues.rewritten,
        "queueEntriesDropped": queues.dropped, "queueEntriesForLostRecords": queues.filled,
        "recordsInNoQueue": queues.unplaced,
        "indexEntriesAdded": index.added, "indexFilesRepaired": index.repaired,
        "indexRebuiltFrom": index.rebuilt_from.map(|at| at.0),
    })
}

fn damage(range: &DamagedRange) -> Value {
    json!({
        "t": "damage", "phyOffset": range.from.0, "size": range.to.since(range.from), "why": range.why.to_string(),
    })
}

fn checkpoint(now: &Checkpoint) -> Value {
    json!({
        "t": "checkpoint", "stage": "start", "physicMsgTimestamp": now.physic_timestamp.0,
        "logicsMsgTimestamp": now.logics_timestamp.0, "indexMsgTimestamp": now.index_timestamp.0,
        "masterFlushedOffset": now.master_flushed_offset.0, "confirmPhyOffset": now.confirm_offset.0,
        "logicsPhysicalOffset": now.logics_offset.0,
    })
}

fn index(number: usize, file: &IndexFileInfo) -> Value {
    json!({
        "t": "index", "stage": "start", "i": number, "name": file.name,
        "beginTimestamp": file.begin_timestamp.0, "endTimestamp": file.end_timestamp.0,
        "beginPhyOffset": file.begin_offset.0, "endPhyOffset": file.end_offset.0,
        "hashSlotCount": file.slot_count, "indexCount": file.index_count, "fileSize": file.file_size,
    })
}

fn record(at: PhysicalOffset, bytes: &[u8], record: &Record<'_>) -> Value {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    let properties: BTreeMap<String, String> =
        record.properties.iter().map(|(name, value)| (text(name), text(value))).collect();
    json!({
        "t": "record", "phyOffset": at.0, "size": record.total_size,
        "magic": format!("{:08x}", record.version.magic()), "recordSha256": sha256(bytes),
        "topic": record.topic, "queueId": record.queue_id.0, "queueOffset": record.queue_offset.0,
        "storedPhyOffset": record.physical_offset.0, "flag": record.flag, "sysFlag": record.sys_flag.0,
        "bornTimestamp": record.born_timestamp.0, "bornHost": host(record.born_host),
        "storeTimestamp": record.store_timestamp.0, "storeHost": host(record.store_host),
        "reconsumeTimes": record.reconsume_times,
        "preparedTransactionOffset": record.prepared_transaction_offset,
        "bodyCRC": record.body_crc.cast_signed(), "bodyLength": record.body.len(), "bodySha256": sha256(record.body),
        "properties": properties,
        "msgId": MessageId { host: record.store_host, offset: at }.to_string(),
    })
}

fn entry(line: &mut Value, unit: &CqUnit, message: Option<&Record<'_>>) {
    line["queueOffset"] = unit.queue_offset.0.into();
    line["phyOffset"] = unit.offset.0.into();
    line["size"] = unit.size.into();
    line["tagsCode"] = unit.tags_code.0.into();
    line["batchNum"] = unit.batch_num.into();
    if let Some(ext) = &unit.ext {
        let bitmap = Some(&ext.bitmap).filter(|bitmap| !bitmap.is_empty()).map(|bitmap| hex(bitmap));
        line["ext"] = json!({
            "size": 20 + ext.bitmap.len(), "tagsCode": ext.tags_code.0, "msgStoreTime": ext.store_timestamp.0,
            "bitMap": bitmap,
        });
    }
    line["found"] = message.is_some().into();
    if let Some(message) = message {
        line["msgQueueOffset"] = message.queue_offset.0.into();
        line["msgTopic"] = message.topic.into();
    }
}

/// An address as Java writes it: all eight groups of an IPv6 one.
fn host(at: SocketAddr) -> String {
    let text = match at.ip().to_canonical() {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => ip.segments().map(|group| format!("{group:x}")).join(":"),
    };
    format!("{text}|{}", at.port())
}

fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
