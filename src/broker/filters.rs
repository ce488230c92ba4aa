//! The expressions that consumer groups filter by: `consumerFilter.json`, and the bitmaps that are made with it.
//!
//! Owns the table of a topic's filters by group, as heartbeats bring them. A filter outlives its group's members by
//! `filterDataCleanTimeSpan`, so that a consumer which comes back finds bitmaps that were made for it.
//!
//! A bitmap says of every filter in the table whether it lets a message pass ([`Filters::bitmap`], on the dispatcher's
//! thread). A filter trusts it only for messages stored after the filter was born: its time of birth is read while the
//! table is locked, so a message with a later time cannot have been looked at without it.
//!
//! Bound: [`MAX_FILTERS`] filters; one more is not taken, and its group's pulls are refused.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use parking_lot::RwLock;

use super::{
    Broker, Refusal, bloom::Bloom, clients::Subscription, config_file::ConfigFile, json::Json, names,
};
use crate::{
    ExtUnit, clock::Clock, error::Result, format::properties::Properties, remoting::codes::response,
    sql92::Expression, types::StoreTimestamp,
};

/// Filters of all groups and topics together.
const MAX_FILTERS: usize = 10_000;
/// The one kind of expression besides tags.
const SQL92: &str = "SQL92";
/// How long before a restart the consumers are taken to have gone.
const GONE_BEFORE_LOAD_MS: i64 = 30_000;

/// Whether the kind of an expression means tags.
pub(crate) fn is_tags(kind: &str) -> bool {
    matches!(kind, "TAG" | "")
}

/// What one group wants of one topic.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct GroupFilter {
    expression: Arc<Expression>,
    /// When it was registered first, or with another expression.
    born: i64,
    /// When its group left; before its birth while it lives.
    dead: i64,
    positions: Vec<i32>,
    /// The subscription's version.
    pub(crate) version: i64,
}

impl GroupFilter {
    const fn is_dead(&self) -> bool {
        self.dead >= self.born
    }

    /// Whether a message with these properties passes.
    pub(crate) fn passes(&self, properties: Properties<'_>) -> bool {
        passes(&self.expression, properties)
    }

    fn to_json(&self, topic: &str, group: &str, bloom: Bloom) -> Json {
        Json::map([
            (
                "bloomFilterData",
                Json::map([("bitNum", bloom.bits().into()), ("bitPos", Json::Row(self.positions.clone()))]),
            ),
            ("bornTime", self.born.into()),
            ("clientVersion", self.version.into()),
            ("consumerGroup", group.into()),
            ("dead", self.is_dead().into()),
            ("deadTime", self.dead.into()),
            ("expression", self.expression.as_str().into()),
            ("expressionType", SQL92.into()),
            ("topic", topic.into()),
        ])
    }

    /// A filter as the file has it. `None` when it can be used no more.
    fn from_json(json: &Json, bloom: Bloom, now: i64) -> Option<Self> {
        let born = json.int_of("bornTime")?;
        let bits = json.get("bloomFilterData")?;
        let positions: Vec<i32> =
            bits.get("bitPos")?.items().iter().filter_map(|at| i32::try_from(at.int()?).ok()).collect();
        if !bloom.owns(&positions, bits.i32_of("bitNum")?) || json.text_of("expressionType") != Some(SQL92) {
            return None;
        }
        // Nobody is connected yet.
        let dead = match json.int_of("deadTime").unwrap_or(0) {
            0 => born.max(now.saturating_sub(GONE_BEFORE_LOAD_MS)),
            dead => dead,
        };
        Some(Self {
            expression: Arc::new(Expression::parse(json.text_of("expression")?).ok()?),
            born,
            dead,
            positions,
            version: json.int_of("clientVersion").unwrap_or(0),
        })
    }
}

/// Whether an expression is true of a message's properties.
pub(crate) fn passes(expression: &Expression, properties: Properties<'_>) -> bool {
    match expression.evaluate(|name| properties.get(name)) {
        Ok(truth) => truth == Some(true),
        Err(error) => {
            tracing::debug!(%error, expression = expression.as_str(), "a message does not fit its filter");
            false
        }
    }
}

/// Topic -> group -> filter.
type Table = BTreeMap<String, BTreeMap<String, Arc<GroupFilter>>>;

/// The filters of all groups.
#[derive(Debug)]
pub(crate) struct Filters {
    table: RwLock<Table>,
    bloom: Bloom,
    /// Milliseconds that a filter outlives its group.
    keep_ms: i64,
    file: ConfigFile,
}

impl Filters {
    /// Reads the file. Filters whose bits were made for a bitmap of another size are forgotten, as are those that
    /// cannot be understood: their groups bring them again.
    pub(crate) fn load(file: ConfigFile, bloom: Bloom, keep_ms: i64, now: StoreTimestamp) -> Result<Self> {
        let table = file.load(|json| read_table(json, bloom, now.get()))?.unwrap_or_default();
        Ok(Self { table: RwLock::new(table), bloom, keep_ms, file })
    }

    /// Takes in what a heartbeat of a group subscribes to; other filters of the group die.
    pub(crate) fn register(&self, group: &str, subscriptions: &[Subscription], clock: &dyn Clock) {
        let named = |sub: &&Subscription| !is_tags(&sub.expression_type) && !sub.expression.is_empty();
        if !subscriptions.iter().any(|sub| named(&sub)) && self.table.read().is_empty() {
            return;
        }
        let mut table = self.table.write();
        let now = clock.now().get();
        for sub in subscriptions.iter().filter(named) {
            self.register_one(&mut table, group, sub, now);
        }
        for (topic, groups) in table.iter_mut() {
            if let Some(filter) = groups.get_mut(group)
                && !filter.is_dead()
                && !subscriptions.iter().any(|sub| sub.topic == *topic)
            {
                Arc::make_mut(filter).dead = now;
            }
        }
    }

    fn register_one(&self, table: &mut Table, group: &str, sub: &Subscription, now: i64) {
        let full = table.values().map(BTreeMap::len).sum::<usize>() >= MAX_FILTERS;
        let groups = table.entry(sub.topic.clone()).or_default();
        if let Some(old) = groups.get_mut(group) {
            if sub.version < old.version {
                return;
            }
            if sub.version == old.version || old.expression.as_str() == sub.expression {
                let old = Arc::make_mut(old);
                old.version = sub.version;
                if old.is_dead() {
                    old.dead = 0;
                }
                return;
            }
        } else if full {
            tracing::warn!(group, topic = sub.topic, "filter not taken: there are {MAX_FILTERS} already");
            return;
        }
        match compile(&sub.expression_type, &sub.expression) {
            Ok(expression) => {
                let positions = self.bloom.positions(&format!("{group}#{}", sub.topic));
                let expression = Arc::new(expression);
                let filter = GroupFilter { expression, born: now, dead: 0, positions, version: sub.version };
                groups.insert(group.to_owned(), Arc::new(filter));
            }
            Err(why) => {
                tracing::warn!(group, topic = sub.topic, why, "filter not taken");
                groups.remove(group);
            }
        }
    }

    /// The last member of a group left.
    pub(crate) fn unregister(&self, group: &str, now: StoreTimestamp) {
        for groups in self.table.write().values_mut() {
            if let Some(filter) = groups.get_mut(group)
                && !filter.is_dead()
            {
                Arc::make_mut(filter).dead = now.get();
            }
        }
    }

    /// What a group filters a topic by.
    pub(crate) fn get(&self, topic: &str, group: &str) -> Option<Arc<GroupFilter>> {
        self.table.read().get(topic)?.get(group).cloned()
    }

    /// What a group filters a topic by, as the file has it.
    pub(crate) fn json_of(&self, topic: &str, group: &str) -> Option<Json> {
        self.get(topic, group).map(|filter| filter.to_json(topic, group, self.bloom))
    }

    /// The bitmap of a message: the bits of every filter of the topic that lets it pass. `None` for a topic without
    /// filters.
    pub(crate) fn bitmap(&self, topic: &str, properties: Properties<'_>) -> Option<Vec<u8>> {
        let table = self.table.read();
        let groups = table.get(topic).filter(|groups| !groups.is_empty())?;
        let mut bitmap = self.bloom.bitmap();
        for filter in groups.values().filter(|filter| filter.passes(properties)) {
            Bloom::set(&mut bitmap, &filter.positions);
        }
        Some(bitmap)
    }

    /// Whether a filter may let a message pass, judged by the bitmap that was made when it was stored.
    pub(crate) fn may_pass(&self, filter: &GroupFilter, ext: Option<&ExtUnit>) -> bool {
        ext.is_none_or(|ext| {
            ext.store_timestamp.get() <= filter.born || self.bloom.holds(&ext.bitmap, &filter.positions)
        })
    }

    /// Drops the filters that have been dead for too long and writes the others.
    pub(crate) fn save(&self, now: StoreTimestamp) -> Result<()> {
        let late =
            |filter: &GroupFilter| filter.is_dead() && now.get().saturating_sub(filter.dead) >= self.keep_ms;
        self.table.write().retain(|_, groups| {
            groups.retain(|_, filter| !late(filter));
            !groups.is_empty()
        });
        self.file.save_with(|| self.to_json())
    }

    fn to_json(&self) -> Json {
        let table = self.table.read();
        let topics = table.iter().map(|(topic, groups)| {
            let filters = groups
                .iter()
                .map(|(group, filter)| (group.as_str(), filter.to_json(topic, group, self.bloom)));
            let of_topic =
                Json::map([("groupFilterData", Json::map(filters)), ("topic", topic.as_str().into())]);
            (topic.as_str(), of_topic)
        });
        Json::map([("filterDataByTopic", Json::map(topics))])
    }
}

fn read_table(json: &Json, bloom: Bloom, now: i64) -> Result<Table, String> {
    let mut table = Table::new();
    let mut count = 0;
    for (topic, of_topic) in json.get("filterDataByTopic").ok_or("no filterDataByTopic")?.pairs() {
        let Some(topic) = topic.text().filter(|topic| names::is_topic(topic)) else { continue };
        let groups = of_topic.get("groupFilterData").map(Json::pairs).unwrap_or_default();
        let mut filters = BTreeMap::new();
        for (group, filter) in groups {
            let Some(group) = group.text().filter(|group| names::is_group(group)) else { continue };
            match GroupFilter::from_json(filter, bloom, now) {
                Some(filter) if count < MAX_FILTERS => {
                    filters.insert(group.to_owned(), Arc::new(filter));
                    count += 1;
                }
                _ => tracing::info!(topic, group, "consumerFilter.json: filter of no use any more, left out"),
            }
        }
        if !filters.is_empty() {
            table.insert(topic.to_owned(), filters);
        }
    }
    Ok(table)
}

/// Reads an expression that is not by tags; what is wrong otherwise.
pub(super) fn compile(kind: &str, text: &str) -> Result<Expression, String> {
    if kind != SQL92 {
        return Err(format!("there is no kind of expression named {}", names::shorten(kind)));
    }
    if text.is_empty() {
        return Err("the expression is empty".into());
    }
    Expression::parse(text).map_err(|error| error.to_string())
}

impl Broker {
    /// Refuses expressions that are not by tags, unless `enablePropertyFilter` is set.
    pub(crate) fn check_kind(&self, kind: &str) -> Result<(), Refusal> {
        if is_tags(kind) || self.live.property_filter.load(Relaxed) {
            return Ok(());
        }
        let kind = names::shorten(kind);
        let remark = format!("The broker does not support consumer to filter message by {kind}");
        Err(Refusal::new(response::SYSTEM_ERROR, remark))
    }

    /// The expression that a client sends, read.
    pub(crate) fn compile(&self, kind: &str, text: &str) -> Result<Arc<Expression>, Refusal> {
        self.check_kind(kind)?;
        let refuse = |why| Refusal::new(response::SUBSCRIPTION_PARSE_FAILED, why);
        compile(kind, text).map(Arc::new).map_err(refuse)
    }

    /// Saves the filters; a failure is told and tried again at the next turn.
    pub(crate) fn save_filters(&self) {
        if let Err(error) = self.filters.save(self.clock.now()) {
            tracing::error!(%error, "consumerFilter.json not saved");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::ManualClock,
        vfs::{OsVfs, Vfs},
    };

    use std::path::Path;

    const DAY: i64 = 86_400_000;

    fn load(dir: &Path, bloom: Bloom, now: i64) -> Filters {
        let vfs: Arc<dyn Vfs> = Arc::new(OsVfs);
        let file = ConfigFile::new(vfs, dir, "consumerFilter.json").unwrap();
        Filters::load(file, bloom, DAY, StoreTimestamp(now)).unwrap()
    }

    fn sql(topic: &str, expression: &str, version: i64) -> Subscription {
        let mut subscription = Subscription::tags(topic, expression, version);
        subscription.expression_type = SQL92.into();
        subscription
    }

    #[test]
    fn java_s_file_is_taken_over_and_written_back_to_the_byte_until_its_filters_are_too_old() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("consumerFilter.json");
        let golden = "tests/golden/broker-config/consumerFilter.json";
        let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(golden)).unwrap();
        let died = 1_795_743_211_068;
        std::fs::write(&path, &text).unwrap();
        let filters = load(dir.path(), Bloom::new(20, 32), died + 1_000);
        assert_eq!(filters.to_json().pretty(), text);
        let (topic, group) = ("IT_sql92_pq2kr", "GID_sql92_pq2kr_1");
        let filter = filters.get(topic, group).unwrap();
        assert!(filter.passes(Properties::new(b"a\x014\x02TAGS\x01A\x02color\x01blue\x02")));
        assert_eq!(filter.positions, filters.bloom.positions(&format!("{group}#{topic}")));
        filters.save(StoreTimestamp(died + DAY - 1)).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        filters.save(StoreTimestamp(died + DAY)).unwrap();
        assert_eq!(filters.to_json(), Json::parse(b"{\"filterDataByTopic\":{}}").unwrap());
        // Made for bitmaps of another size.
        std::fs::write(&path, &text).unwrap();
        assert_eq!(load(dir.path(), Bloom::new(20, 64), died).get(topic, group), None);
    }

    #[test]
    fn filters_come_with_heartbeats_die_with_their_group_and_rise_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let clock = ManualClock::new(StoreTimestamp(1_000));
        let filters = load(dir.path(), Bloom::new(20, 32), 1_000);
        let state = |topic: &str| filters.get(topic, "g").map(|f| (f.born, f.dead, f.version));
        let beat = |subs: &[Subscription]| {
            clock.advance(std::time::Duration::from_millis(1));
            filters.register("g", subs, &clock);
        };
        beat(&[Subscription::tags("t", "a", 1)]);
        assert_eq!(state("t"), None);
        beat(&[sql("t", "a = 1", 5), sql("u", "a = 2", 5), sql("v", "a =", 5)]);
        assert_eq!((state("t"), state("u"), state("v")), (Some((1_002, 0, 5)), Some((1_002, 0, 5)), None));
        // Older is not heard, newer with the same words only renews, other words make a new filter.
        beat(&[sql("t", "a = 3", 4), sql("u", "a = 2", 6)]);
        assert_eq!((state("t"), state("u")), (Some((1_002, 0, 5)), Some((1_002, 0, 6))));
        beat(&[sql("t", "a = 3", 7)]);
        assert_eq!((state("t"), state("u")), (Some((1_004, 0, 7)), Some((1_002, 1_004, 6))));
        filters.unregister("g", StoreTimestamp(2_000));
        assert_eq!((state("t"), state("u")), (Some((1_004, 2_000, 7)), Some((1_002, 1_004, 6))));
        beat(&[sql("t", "a = 3", 7)]);
        assert_eq!(state("t"), Some((1_004, 0, 7)));
        beat(&[sql("t", "a = ", 8)]);
        assert_eq!(state("t"), None, "what cannot be read takes the old one away");
    }

    #[test]
    fn a_bitmap_is_believed_for_messages_stored_after_the_filter_s_birth_only() {
        let dir = tempfile::tempdir().unwrap();
        let clock = ManualClock::new(StoreTimestamp(1_000));
        let filters = load(dir.path(), Bloom::new(20, 32), 1_000);
        assert_eq!(filters.bitmap("t", Properties::new(b"")), None);
        filters.register("g", &[sql("t", "a = 1", 1)], &clock);
        let filter = filters.get("t", "g").unwrap();
        let bitmap = |properties: &[u8]| filters.bitmap("t", Properties::new(properties)).unwrap();
        for (properties, stored, may_pass) in [
            (&b"a\x011\x02"[..], 1_001, true),
            (b"a\x012\x02", 1_001, false),
            (b"a\x012\x02", 1_000, true),
            (b"a\x01x\x02", 1_001, false),
            (b"", 1_001, false),
        ] {
            let ext =
                |bitmap| ExtUnit { store_timestamp: StoreTimestamp(stored), tags_code: 0.into(), bitmap };
            assert_eq!(
                filters.may_pass(&filter, Some(&ext(bitmap(properties)))),
                may_pass,
                "{properties:?} {stored}"
            );
            assert!(filters.may_pass(&filter, Some(&ext(Vec::new()))), "no bitmap");
            assert!(filters.may_pass(&filter, Some(&ext(vec![0; 13]))), "one of another size");
        }
        assert!(filters.may_pass(&filter, None));
    }
}
