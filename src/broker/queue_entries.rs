//! QUERY_CONSUME_QUEUE 321: the entries of a queue as they stand in its files, and what a group's filter makes of them.
//!
//! Owns nothing. Called by operators' tools.

use std::{fmt::Write as _, sync::Arc};

use super::{Broker, Refusal, Route, admin::queue_of, filters, json::Json, names, selection::Selection};
use crate::{
    ExtUnit, Filter as _, TagFilter,
    consume_queue::CqUnit,
    remoting::{
        Command, Connection,
        codes::{request, response},
    },
    types::QueueOffset,
};

/// Entries that one answer shows at most.
const MAX_ENTRIES: usize = 1_000;

/// The code that this file answers.
pub(super) const ROUTES: &[(i32, Route)] = &[(request::QUERY_CONSUME_QUEUE, Route::Aside(answer))];

fn answer(broker: &Arc<Broker>, _: &Arc<Connection>, cmd: &Command) -> Result<Command, Refusal> {
    let queue = queue_of(broker, cmd)?;
    let index: i64 = cmd.fields.parse("index")?;
    let count: usize = cmd.fields.parse("count")?;
    let (first, end) = queue
        .map_or((0, 0), |queue| (broker.store.min_offset(queue).get(), broker.store.max_offset(queue).get()));
    let entries = match queue {
        Some(queue) if index >= first => {
            broker.store.entries(queue, QueueOffset(index), count.min(MAX_ENTRIES))?
        }
        _ => Vec::new(),
    };
    let topic = cmd.fields.text("topic")?;
    let group = cmd.fields.get("consumerGroup").filter(|group| !group.is_empty());
    let filter = group.and_then(|group| filter_of(broker, group, topic));
    let mut body = Vec::new();
    if let Some(group) = group {
        let subscription = broker.clients.subscription(group, topic);
        let data = match &subscription {
            None => format!("{group}@{topic} is not online!"),
            Some(_) => broker.filters.json_of(topic, group).map_or("null".into(), |filter| filter.pretty()),
        };
        body.push(("filterData", Json::from(data)));
        body.extend(subscription.map(|subscription| ("subscriptionData", subscription.to_json())));
    }
    let shown = entries.iter().map(|unit| entry(unit, filter.as_ref())).collect();
    body.extend([
        ("maxQueueIndex", Json::from(end)),
        ("minQueueIndex", first.into()),
        ("queueData", Json::List(shown)),
    ]);
    let reply = cmd.reply(response::SUCCESS).with_body(Json::map(body).compact());
    if entries.is_empty() {
        let (topic, id) = (names::shorten(topic), cmd.fields.text("queueId")?);
        return Ok(reply.with_remark(format!("Index {index} of {id}@{topic} is not exist!")));
    }
    Ok(reply)
}

/// What the group's members chose messages of the topic by.
fn filter_of(broker: &Broker, group: &str, topic: &str) -> Option<Selection> {
    let subscription = broker.clients.subscription(group, topic)?;
    if filters::is_tags(&subscription.expression_type) {
        return Some(Selection::Tags(TagFilter::parse(&subscription.expression)));
    }
    let filter = broker.filters.get(topic, group)?;
    Some(Selection::Registered { filter, filters: Arc::clone(&broker.filters) })
}

/// One entry. As in RocketMQ, the filter is asked about entries with an ext unit alone.
fn entry(unit: &CqUnit, filter: Option<&Selection>) -> Json {
    let ext = unit.ext.as_deref();
    let passes = ext.is_some_and(|ext| filter.is_some_and(|by| by.by_queue_entry(ext.tags_code, Some(ext))));
    let mut fields = Vec::new();
    if let Some(ext) = ext {
        if !ext.bitmap.is_empty() {
            fields.push(("bitMap", Json::from(bits(&ext.bitmap))));
        }
        fields.push(("extendDataJson", ext_json(ext).compact().into()));
    }
    fields.extend([
        ("eval", Json::from(passes)),
        ("physicOffset", unit.offset.get().into()),
        ("physicSize", unit.size.into()),
        ("tagsCode", unit.tags_code.get().into()),
    ]);
    fields.sort_unstable_by_key(|(name, _)| *name);
    Json::map(fields)
}

fn ext_json(ext: &ExtUnit) -> Json {
    let mut fields = Vec::new();
    if !ext.bitmap.is_empty() {
        let bytes = ext.bitmap.iter().map(|byte| i32::from(byte.cast_signed())).collect();
        fields.push(("filterBitMap", Json::Row(bytes)));
    }
    let size = ext.size().and_then(|size| i32::try_from(size).ok());
    fields.extend([
        ("msgStoreTime", Json::from(ext.store_timestamp.get())),
        ("size", size.unwrap_or(0).into()),
        ("tagsCode", ext.tags_code.get().into()),
    ]);
    Json::map(fields)
}

/// The bits of a bitmap, the last one first, eight bytes a line.
fn bits(bitmap: &[u8]) -> String {
    let mut text = String::new();
    for (at, byte) in bitmap.iter().enumerate().rev() {
        // Writing into a String cannot fail.
        let _ = write!(text, "{byte:08b}");
        if at % 8 == 0 {
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{PhysicalOffset, StoreTimestamp, TagsCode};

    #[test]
    fn an_entry_shows_its_ext_unit_and_whether_a_filter_passes_it() {
        let mut unit = CqUnit {
            queue_offset: QueueOffset(3),
            offset: PhysicalOffset(100),
            size: 50,
            tags_code: TagsCode(65),
            ext: None,
            batch_num: 1,
        };
        let by = |tags| Selection::Tags(TagFilter::parse(tags));
        let plain = r#"{"eval":false,"physicOffset":100,"physicSize":50,"tagsCode":65}"#;
        assert_eq!(entry(&unit, Some(&by("A"))).compact(), plain);
        let bitmap = vec![1, 0, 0, 0, 0, 0, 0, 0, 128];
        let store_timestamp = StoreTimestamp(7);
        unit.ext = Some(Box::new(ExtUnit { tags_code: TagsCode(65), store_timestamp, bitmap }));
        let whole = entry(&unit, Some(&by("A")));
        assert_eq!(whole.text_of("bitMap"), Some(&*format!("10000000\n{}00000001\n", "0".repeat(56))));
        let ext = r#"{"filterBitMap":[1,0,0,0,0,0,0,0,-128],"msgStoreTime":7,"size":29,"tagsCode":65}"#;
        assert_eq!(whole.text_of("extendDataJson"), Some(ext));
        assert_eq!(whole.bool_of("eval"), Some(true));
        assert_eq!(entry(&unit, Some(&by("B"))).bool_of("eval"), Some(false));
        assert_eq!(entry(&unit, None).bool_of("eval"), Some(false));
    }
}
