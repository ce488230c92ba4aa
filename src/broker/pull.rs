//! PULL_MESSAGE 11 and LITE_PULL_MESSAGE 361: from the store to consumers.
//!
//! A pull is checked, its filter is taken from the request or from what the group's heartbeats said, and the queue is
//! read. What is found goes out as leases of the log: the bytes are mapped, not copied. A pull that finds nothing new
//! and may wait goes to [`Hold`]; [`start`] wires that to the store's arrivals and to the clock. A pull is answered
//! exactly once: by [`serve`], or by whoever takes it out of the hold.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, Weak, atomic::Ordering::Relaxed},
    time::Duration,
};

use bytes::Bytes;

use super::{
    Broker, Refusal, Route, filters,
    groups::GroupConfig,
    hold::{Held, Hold, Put, RECHECK, Waiting},
    names,
    selection::Selection,
    topics::{TopicConfig, perm},
};
use crate::{
    TagFilter,
    message::{GetStatus, Queue, RawMessage},
    remoting::{
        Body, Command, Connection, FieldError,
        codes::{request, response},
    },
    reput::Arrival,
    store::{GetRequest, GetResult},
    types::QueueOffset,
    vfs::Vfs,
};

/// The codes that this file answers.
pub(super) const ROUTES: &[(i32, Route)] =
    &[(request::PULL_MESSAGE, Route::Take(serve)), (request::LITE_PULL_MESSAGE, Route::Take(serve))];

/// Pulls that may wait at a time; one more is answered at once.
const MAX_HELD: usize = 100_000;
/// How often the hold is looked at for pulls whose time is up.
const TICK: Duration = Duration::from_millis(100);
/// Memory that is reckoned with when the system does not tell its own.
const SOME_MEMORY: u64 = 1 << 30;
const PAGE: usize = 4_096;
/// The longest wait that a client may ask for.
const MAX_SUSPEND_MS: u64 = 600_000;

/// Bits of a pull's sysFlag.
mod flag {
    /// The request commits an offset.
    pub(super) const COMMIT: i32 = 1;
    /// The request may be held.
    pub(super) const SUSPEND: i32 = 1 << 1;
    /// The request says what it subscribes to.
    pub(super) const SUBSCRIPTION: i32 = 1 << 2;
    /// The messages are filtered elsewhere.
    pub(super) const CLASS_FILTER: i32 = 1 << 3;
}

/// What is forbidden, for clients that ask.
mod forbidden {
    pub(super) const BROKER: i32 = 1;
    pub(super) const GROUP: i32 = 2;
    pub(super) const TOPIC: i32 = 3;
    pub(super) const BROADCASTING: i32 = 4;
    pub(super) const SUBSCRIPTION: i32 = 5;
}

/// The header of a pull.
struct Header<'a> {
    group: &'a str,
    topic: &'a str,
    queue_id: i32,
    offset: i64,
    max_messages: usize,
    max_bytes: usize,
    sys_flag: i32,
    commit_offset: i64,
    suspend_ms: u64,
    subscription: &'a str,
    sub_version: i64,
    expression_type: &'a str,
}

impl<'a> Header<'a> {
    fn read(cmd: &'a Command) -> Result<Self, FieldError> {
        let fields = &cmd.fields;
        let count: i32 = fields.parse("maxMsgNums")?;
        let bytes: i32 = fields.parse_or("maxMsgBytes", i32::MAX)?;
        Ok(Self {
            group: fields.text("consumerGroup")?,
            topic: fields.text("topic")?,
            queue_id: fields.parse("queueId")?,
            offset: fields.parse("queueOffset")?,
            max_messages: usize::try_from(count.max(1)).unwrap_or(1),
            max_bytes: usize::try_from(bytes.max(1)).unwrap_or(1),
            sys_flag: fields.parse("sysFlag")?,
            commit_offset: fields.parse_or("commitOffset", -1)?,
            suspend_ms: fields.parse_or("suspendTimeoutMillis", 0)?,
            subscription: fields.get("subscription").unwrap_or(""),
            sub_version: fields.parse_or("subVersion", 0)?,
            expression_type: fields.get("expressionType").filter(|kind| !kind.is_empty()).unwrap_or("TAG"),
        })
    }

    const fn has(&self, bit: i32) -> bool {
        self.sys_flag & bit != 0
    }
}

/// A pull that waits.
#[derive(Debug)]
pub(crate) struct HeldPull {
    conn: Arc<Connection>,
    cmd: Command,
    filter: Selection,
}

impl Waiting for HeldPull {
    fn wants(&self, arrival: &Arrival<'_>) -> bool {
        self.filter.wants(arrival)
    }

    fn is_gone(&self) -> bool {
        self.conn.is_closed()
    }
}

/// The pulls of this broker that wait.
pub(crate) type PullHold = Hold<HeldPull>;

/// An empty hold.
pub(crate) fn new_hold() -> PullHold {
    Hold::new(MAX_HELD)
}

fn serve(broker: &Arc<Broker>, conn: &Arc<Connection>, cmd: Command) {
    if !is_cold(broker, &cmd) {
        return answer(broker, conn, cmd, true, Pages::Hot);
    }
    // The log's pages have to be read from the disk first, which must not keep other connections waiting.
    let (broker, conn) = (Arc::clone(broker), Arc::clone(conn));
    broker.runtime.clone().spawn_blocking(move || answer(&broker, &conn, cmd, true, Pages::Cold));
}

/// Bytes behind the log's end that are taken to be in memory: `percent` of all memory.
pub(crate) fn hot_bytes(vfs: &dyn Vfs, percent: u64) -> u64 {
    let text = vfs.read(Path::new("/proc/meminfo"), 1 << 16).ok().flatten().unwrap_or_default();
    memory_total(&String::from_utf8_lossy(&text)).unwrap_or(SOME_MEMORY) / 100 * percent
}

fn memory_total(meminfo: &str) -> Option<u64> {
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = total.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1_024)
}

/// Whether the bytes that a pull asks for are probably in memory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pages {
    Hot,
    /// To be touched before they are sent: this thread may wait for the disk, the one that sends may not.
    Cold,
}

/// Whether the first message that the pull asks for lies further back in the log than what is written and read all the
/// time.
fn is_cold(broker: &Broker, cmd: &Command) -> bool {
    let Ok(header) = Header::read(cmd) else { return false };
    let Some(queue) = broker.store.find_queue(header.topic, header.queue_id) else { return false };
    let offset = QueueOffset(header.offset);
    if offset >= broker.store.max_offset(queue) {
        return false;
    }
    let first = broker.store.entries(queue, offset, 1).unwrap_or_default();
    first.first().is_some_and(|entry| broker.store.status().max_offset.since(entry.offset) > broker.hot_bytes)
}

/// Answers a pull, or holds it when it `may_wait`.
fn answer(broker: &Arc<Broker>, conn: &Arc<Connection>, cmd: Command, may_wait: bool, pages: Pages) {
    let outcome = Header::read(&cmd)
        .map_err(No::from)
        .and_then(|header| pull(broker, &header, conn.peer(), may_wait, pages));
    match outcome {
        Ok(Outcome::Answer(reply)) => {
            Broker::reply(conn, &cmd, Ok(Command { opaque: cmd.opaque, ..reply }));
        }
        Ok(Outcome::Wait(wait)) => hold(broker, conn, cmd, wait),
        Err(No { refusal, forbidden: None }) => Broker::reply(conn, &cmd, Err(refusal)),
        Err(No { refusal, forbidden: Some(kind) }) => {
            let reply = cmd.reply(refusal.code).with_remark(refusal.remark).with_field("forbiddenType", kind);
            Broker::reply(conn, &cmd, Ok(reply));
        }
    }
}

/// Why a pull is refused.
struct No {
    refusal: Refusal,
    /// What may not be read, for clients that want to know.
    forbidden: Option<i32>,
}

impl No {
    fn new(code: i32, remark: impl Into<String>) -> Self {
        Refusal::new(code, remark).into()
    }

    fn forbidden(kind: i32, remark: impl Into<String>) -> Self {
        Self { refusal: Refusal::new(response::NO_PERMISSION, remark), forbidden: Some(kind) }
    }
}

impl<E: Into<Refusal>> From<E> for No {
    fn from(error: E) -> Self {
        Self { refusal: error.into(), forbidden: None }
    }
}

enum Outcome {
    Answer(Command),
    Wait(Wait),
}

struct Wait {
    topic: String,
    queue_id: i32,
    queue: Queue,
    offset: i64,
    time: Duration,
    filter: Selection,
}

fn hold(broker: &Arc<Broker>, conn: &Arc<Connection>, cmd: Command, wait: Wait) {
    let held = Held {
        offset: wait.offset,
        deadline: broker.clock.monotonic().saturating_add(wait.time),
        pull: HeldPull { conn: Arc::clone(conn), cmd, filter: wait.filter },
    };
    let max_offset = || broker.store.max_offset(wait.queue).get();
    match broker.hold.put(&wait.topic, wait.queue_id, held, max_offset) {
        Put::Held => {}
        Put::Woken(held) | Put::Refused(held) => {
            answer(broker, &held.pull.conn, held.pull.cmd, false, Pages::Hot);
        }
    }
}

fn pull(
    broker: &Arc<Broker>,
    header: &Header<'_>,
    peer: SocketAddr,
    may_wait: bool,
    pages: Pages,
) -> Result<Outcome, No> {
    let (group, topic) = check(broker, header, peer)?;
    let filter = filter_of(broker, header, &group)?;
    let found = read(broker, header, &topic, &filter)?;
    if may_wait {
        commit(broker, header, &found);
    }
    let (code, status) = code_of(header, &found);
    let suspend = may_wait && code == response::PULL_NOT_FOUND && header.has(flag::SUSPEND);
    if suspend && let Some(queue) = found.queue {
        let long = broker.live.long_polling.load(Relaxed);
        let ms = if long { header.suspend_ms } else { broker.live.short_polling_ms.load(Relaxed) };
        return Ok(Outcome::Wait(Wait {
            topic: topic.name.clone(),
            queue_id: header.queue_id,
            queue,
            offset: header.offset,
            time: Duration::from_millis(ms.min(MAX_SUSPEND_MS)),
            filter,
        }));
    }
    let mut body = Body::empty();
    for run in found.result.runs() {
        if pages == Pages::Cold {
            touch(&run);
        }
        body.push(Bytes::from_owner(run));
    }
    let reply = Command::response(code, 0)
        .with_remark(status)
        .with_field("nextBeginOffset", found.result.next_offset)
        .with_field("minOffset", found.result.min_offset)
        .with_field("maxOffset", found.result.max_offset)
        .with_field("suggestWhichBrokerId", 0)
        .with_field("topicSysFlag", topic.sys_flag)
        .with_field("groupSysFlag", group.group_sys_flag)
        .with_body(body);
    Ok(Outcome::Answer(reply))
}

/// Brings the pages of `bytes` into memory.
fn touch(bytes: &[u8]) {
    let sum: u64 = bytes.iter().step_by(PAGE).map(|byte| u64::from(*byte)).sum();
    std::hint::black_box(sum);
}

/// The checks that a pull must pass, in RocketMQ's order.
fn check(
    broker: &Arc<Broker>,
    header: &Header<'_>,
    peer: SocketAddr,
) -> Result<(Arc<GroupConfig>, Arc<TopicConfig>), No> {
    if !perm::is_readable(broker.live.permission.load(Relaxed)) {
        return Err(No::forbidden(
            forbidden::BROKER,
            format!("the broker[{}] pulling message is forbidden", broker.store_host.ip()),
        ));
    }
    let group = broker.group(header.group).ok_or_else(|| Refusal::no_group_to_read_for(header.group))?;
    if !group.consume_enable {
        return Err(No::forbidden(forbidden::GROUP, Refusal::group_may_not_consume(&group.name).remark));
    }
    let topic = broker.topics.get(header.topic).ok_or_else(|| Refusal::no_topic_to_read(header.topic))?;
    if !perm::is_readable(topic.perm) {
        let remark = format!("the topic[{}] pulling message is forbidden", topic.name);
        return Err(No::forbidden(forbidden::TOPIC, remark));
    }
    if !(0..topic.read_queues).contains(&header.queue_id) {
        let code = response::INVALID_PARAMETER;
        return Err(Refusal::no_queue_to_read(code, &topic, header.queue_id, peer).into());
    }
    Ok((group, topic))
}

/// What the pull filters by: from the request, or as the group's heartbeats say.
fn filter_of(broker: &Broker, header: &Header<'_>, group: &GroupConfig) -> Result<Selection, No> {
    let elsewhere = header.has(flag::CLASS_FILTER);
    if header.has(flag::SUBSCRIPTION) {
        if filters::is_tags(header.expression_type) {
            return Ok(by_tags(if elsewhere { "*" } else { header.subscription }));
        }
        broker.check_kind(header.expression_type)?;
        let expression = filters::compile(header.expression_type, header.subscription)
            .map_err(|why| Refusal::unreadable_subscription(&why))?;
        let expression = Arc::new(expression);
        return Ok(if elsewhere { by_tags("*") } else { Selection::Expression(expression) });
    }
    let manner = broker.clients.manner(&group.name).ok_or_else(|| Refusal::not_subscribed("group info"))?;
    if manner.is_broadcast() && !group.consume_broadcast_enable {
        let remark = format!("the consumer group[{}] can not consume by broadcast way", group.name);
        return Err(No::forbidden(forbidden::BROADCASTING, remark));
    }
    if broker.groups.is_forbidden(&group.name, header.topic) {
        let remark = format!("the consumer group[{}] is forbidden for topic[{}]", group.name, header.topic);
        return Err(No::forbidden(forbidden::SUBSCRIPTION, remark));
    }
    let subscription = broker
        .clients
        .subscription(&group.name, header.topic)
        .ok_or_else(|| Refusal::not_subscribed("subscription"))?;
    if subscription.version < header.sub_version {
        let remark = "the consumer's subscription not latest";
        return Err(No::new(response::SUBSCRIPTION_NOT_LATEST, remark));
    }
    let kind = &subscription.expression_type;
    if filters::is_tags(kind) {
        return Ok(by_tags(if elsewhere { "*" } else { &subscription.expression }));
    }
    let filter = broker.filters.get(header.topic, &group.name).ok_or_else(|| {
        let remark = "The broker's consumer filter data is not exist!Your expression may be wrong!";
        No::new(response::FILTER_DATA_NOT_EXIST, remark)
    })?;
    if filter.version < header.sub_version {
        let remark = "the consumer's consumer filter data not latest";
        return Err(No::new(response::FILTER_DATA_NOT_LATEST, remark));
    }
    broker.check_kind(kind)?;
    let filters = Arc::clone(&broker.filters);
    Ok(if elsewhere {
        by_tags("*")
    } else if broker.config.filter_retry && header.topic.starts_with(names::RETRY_PREFIX) {
        Selection::Retry { group: group.name.clone(), filters }
    } else {
        Selection::Registered { filter, filters }
    })
}

fn by_tags(expression: &str) -> Selection {
    Selection::Tags(TagFilter::parse(expression))
}

/// What a queue gave.
struct Found {
    /// `None` when the queue has no messages yet and so does not exist.
    queue: Option<Queue>,
    /// An administrator moved the group; the result says where to.
    reset: bool,
    result: GetResult<RawMessage>,
}

fn read(broker: &Broker, header: &Header<'_>, topic: &TopicConfig, filter: &Selection) -> Result<Found, No> {
    let queue = broker.queue_of(topic, header.queue_id)?;
    if let Some(offset) = broker.offsets.take_reset(header.group, header.topic, header.queue_id) {
        let result = GetResult::without(
            GetStatus::OffsetOverflowBadly,
            QueueOffset(offset),
            broker.store.min_offset(queue),
            broker.store.max_offset(queue),
        );
        return Ok(Found { queue: None, reset: true, result });
    }
    let result = broker.store.fetch_raw(&GetRequest {
        max_messages: header.max_messages.min(at_most(broker.live.max_pull_messages.load(Relaxed))),
        max_bytes: header.max_bytes.min(at_most(broker.live.max_pull_bytes.load(Relaxed))),
        filter: if filter.is_all() { None } else { Some(filter) },
        ..GetRequest::new(queue, QueueOffset(header.offset))
    })?;
    if result.status != GetStatus::Found {
        broker.rates.missed();
    }
    Ok(Found { queue: Some(queue), reset: false, result })
}

fn at_most(limit: i32) -> usize {
    usize::try_from(limit).unwrap_or(1)
}

/// The response code for what was found, and RocketMQ's name for it.
fn code_of(header: &Header<'_>, found: &Found) -> (i32, &'static str) {
    if found.reset {
        return (response::PULL_OFFSET_MOVED, "OFFSET_RESET");
    }
    let nothing_at = |name| {
        if header.offset == 0 {
            (response::PULL_NOT_FOUND, name)
        } else {
            (response::PULL_OFFSET_MOVED, name)
        }
    };
    match found.result.status {
        GetStatus::Found => (response::SUCCESS, "FOUND"),
        GetStatus::NoMatchedMessage => (response::PULL_RETRY_IMMEDIATELY, "NO_MATCHED_MESSAGE"),
        GetStatus::MessageWasRemoving => (response::PULL_RETRY_IMMEDIATELY, "MESSAGE_WAS_REMOVING"),
        GetStatus::NoMatchedLogicQueue => nothing_at("NO_MATCHED_LOGIC_QUEUE"),
        GetStatus::NoMessageInQueue => nothing_at("NO_MESSAGE_IN_QUEUE"),
        GetStatus::OffsetFoundNull => (response::PULL_NOT_FOUND, "OFFSET_FOUND_NULL"),
        GetStatus::OffsetOverflowOne => (response::PULL_NOT_FOUND, "OFFSET_OVERFLOW_ONE"),
        GetStatus::OffsetOverflowBadly => (response::PULL_OFFSET_MOVED, "OFFSET_OVERFLOW_BADLY"),
        GetStatus::OffsetTooSmall => (response::PULL_OFFSET_MOVED, "OFFSET_TOO_SMALL"),
    }
}

/// Keeps what the pull tells about the group's progress.
fn commit(broker: &Broker, header: &Header<'_>, found: &Found) {
    let next = found.result.next_offset.get();
    broker.offsets.note_pull(header.group, header.topic, header.queue_id, next);
    // A reset also set the committed offset; the client has not heard of it yet.
    if header.has(flag::COMMIT) && !found.reset {
        broker.commit_offset(header.group, header.topic, header.queue_id, header.commit_offset);
    }
}

/// Wires the hold to the store's arrivals and to the clock, and the filters to the store's bitmaps. Must be called within a tokio runtime.
pub(crate) fn start(broker: &Arc<Broker>) {
    let runtime = tokio::runtime::Handle::current();
    let weak = Arc::downgrade(broker);
    broker.store.on_arrival(Arc::new(move |arrival| {
        let Some(broker) = weak.upgrade() else { return };
        let woken = broker.hold.arrived(arrival);
        if !woken.is_empty() {
            // Not on the dispatcher's thread: it has other messages to pass on.
            runtime.spawn(async move { answer_woken(&broker, woken) });
        }
    }));
    if broker.config.filter_bitmaps {
        let filters = Arc::clone(&broker.filters);
        broker.store.make_bitmaps(Arc::new(move |topic, properties| filters.bitmap(topic, properties)));
    }
    tokio::spawn(tick(Arc::downgrade(broker)));
}

/// Answers every pull that waits; none is held from now on.
pub(crate) fn stop(broker: &Arc<Broker>) {
    let woken = broker.hold.stop();
    answer_woken(broker, woken);
}

/// Answers the pulls of a group that wait in a topic: an administrator moved the group.
pub(crate) fn wake_group(broker: &Arc<Broker>, group: &str, topic: &str) {
    let of_group = |pull: &HeldPull| pull.cmd.fields.get("consumerGroup") == Some(group);
    answer_woken(broker, broker.hold.chosen(topic, of_group));
}

fn answer_woken(broker: &Arc<Broker>, woken: Vec<Held<HeldPull>>) {
    for held in woken {
        let HeldPull { conn, cmd, .. } = held.pull;
        answer(broker, &conn, cmd, false, Pages::Hot);
    }
}

async fn tick(broker: Weak<Broker>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut rechecked = tokio::time::Instant::now();
    loop {
        let now = ticks.tick().await;
        let Some(broker) = broker.upgrade() else { return };
        let mut woken = broker.hold.due(broker.clock.monotonic());
        if now.duration_since(rechecked) >= RECHECK {
            rechecked = now;
            woken.extend(broker.hold.moved(|topic, queue_id| {
                broker
                    .store
                    .find_queue(topic, queue_id)
                    .map_or(0, |queue| broker.store.max_offset(queue).get())
            }));
        }
        answer_woken(&broker, woken);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_that_the_system_has_is_read_or_guessed() {
        let meminfo = "MemTotal:       16384256 kB\nMemFree:         9346256 kB\n";
        assert_eq!(memory_total(meminfo), Some(16_384_256 * 1_024));
        assert_eq!(memory_total("MemTotal: lots"), None);
        assert_eq!(memory_total(""), None);
    }

    #[test]
    fn a_pull_without_optional_fields_is_read_and_one_without_the_others_is_not() {
        let needed = [
            ("consumerGroup", "g"),
            ("topic", "t"),
            ("queueId", "1"),
            ("queueOffset", "7"),
            ("maxMsgNums", "-1"),
            ("sysFlag", "6"),
        ];
        let command = needed
            .iter()
            .fold(Command::request(request::PULL_MESSAGE), |cmd, (name, value)| cmd.with_field(name, value));
        let header = Header::read(&command).unwrap();
        assert_eq!((header.queue_id, header.offset, header.max_messages), (1, 7, 1));
        assert_eq!((header.commit_offset, header.suspend_ms, header.expression_type), (-1, 0, "TAG"));
        assert!(header.has(flag::SUSPEND) && header.has(flag::SUBSCRIPTION) && !header.has(flag::COMMIT));
        for (name, _) in needed {
            let mut lacking = command.clone();
            lacking.fields.remove(name);
            assert!(Header::read(&lacking).is_err(), "{name}");
        }
    }
}
