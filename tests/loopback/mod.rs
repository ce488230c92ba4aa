//! A broker in this process on loopback, and the requests that clients make of it.
#![allow(dead_code, reason = "each test crate uses its own part of this module")]

pub mod producer;

use std::{
    net::{SocketAddr, TcpListener},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU16, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use reput::{
    Clock, Config, ManualClock, StoreTimestamp, SystemClock,
    broker::{BrokerConfig, Running},
    format::{message::Record, message_id::MessageId},
    remoting::{Client, Command, codes::request},
    vfs::OsVfs,
};
use tempfile::TempDir;

/// The system's clock, put forward by the test when it wants.
#[derive(Debug, Default)]
pub struct Forward {
    system: SystemClock,
    ms: AtomicU64,
    coarse_behind_ms: AtomicU64,
}

impl Forward {
    /// Makes `time` pass.
    pub fn by(&self, time: Duration) {
        self.ms.fetch_add(u64::try_from(time.as_millis()).unwrap(), Ordering::SeqCst);
    }

    /// From now on the coarse clock, whose time records bear, is behind by `time`; the system's is by a tick.
    pub fn coarse_behind(&self, time: Duration) {
        self.coarse_behind_ms.store(u64::try_from(time.as_millis()).unwrap(), Ordering::SeqCst);
    }

    fn passed(&self) -> u64 {
        self.ms.load(Ordering::SeqCst)
    }
}

impl Clock for Forward {
    fn now(&self) -> StoreTimestamp {
        StoreTimestamp(self.system.now().get() + i64::try_from(self.passed()).unwrap())
    }

    fn now_coarse(&self) -> StoreTimestamp {
        let behind = self.coarse_behind_ms.load(Ordering::SeqCst);
        StoreTimestamp(self.now().get() - i64::try_from(behind).unwrap())
    }

    fn monotonic(&self) -> Duration {
        self.system.monotonic() + Duration::from_millis(self.passed())
    }

    fn sleep(&self, time: Duration) {
        self.system.sleep(time);
    }

    fn utc_offset(&self, at: StoreTimestamp) -> i64 {
        self.system.utc_offset(at)
    }
}

/// A running broker over a store in a temporary directory.
pub struct Fixture {
    config: BrokerConfig,
    running: Option<Running>,
    clock: Arc<dyn Clock>,
    /// The same clock, when the test can put it forward.
    forward: Arc<Forward>,
    _dir: TempDir,
}

impl Fixture {
    /// Starts a broker with small files; `change` sets what the test needs.
    pub async fn start(change: impl FnOnce(&mut BrokerConfig)) -> Self {
        let forward = Arc::new(Forward::default());
        Self::start_by(Arc::<Forward>::clone(&forward), forward, |_| {}, change).await
    }

    /// As [`Fixture::start`] by a clock that stands still until the test moves it, over a directory that `fill` may
    /// have filled.
    pub async fn start_at(
        clock: &Arc<ManualClock>,
        fill: impl FnOnce(&Path),
        change: impl FnOnce(&mut BrokerConfig),
    ) -> Self {
        let clock: Arc<ManualClock> = Arc::clone(clock);
        Self::start_by(clock, Arc::default(), fill, change).await
    }

    async fn start_by(
        clock: Arc<dyn Clock>,
        forward: Arc<Forward>,
        fill: impl FnOnce(&Path),
        change: impl FnOnce(&mut BrokerConfig),
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Config::new(dir.path().join("store"))
            .commit_log_file_size(16u64 << 20)
            .consume_queue_file_size(20u64 * 1_000)
            .index_slots(1_000u32)
            .index_entries(4_000u32);
        let mut config = BrokerConfig::new(store);
        config.port = free_port();
        change(&mut config);
        fill(&config.store.root);
        let mut this = Self { config, running: None, clock, forward, _dir: dir };
        this.run().await;
        this
    }

    /// The clock that it runs by.
    pub fn clock(&self) -> &Forward {
        &self.forward
    }

    async fn run(&mut self) {
        let started = Running::start_with(self.config.clone(), Arc::new(OsVfs), Arc::clone(&self.clock));
        self.running = Some(started.await.unwrap());
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.config.bind, self.config.port)
    }

    /// A new connection to it.
    pub async fn client(&self) -> Client {
        Client::connect(self.address()).await.unwrap()
    }

    /// Stops it and starts it again over the same directory.
    pub async fn restart(&mut self) {
        self.running.take().unwrap().stop().await.unwrap();
        self.run().await;
    }

    /// Stops it, lets `change` at the store's directory, and starts it again.
    pub async fn restart_after(&mut self, change: impl FnOnce(&Path)) {
        self.running.take().unwrap().stop().await.unwrap();
        change(&self.config.store.root);
        self.run().await;
    }

    /// Stops it, and starts it again when so much time is over.
    pub async fn restart_after_time(&mut self, time: Duration) {
        self.running.take().unwrap().stop().await.unwrap();
        self.forward.by(time);
        self.run().await;
    }

    /// The store's directory.
    pub fn root(&self) -> &Path {
        &self.config.store.root
    }

    /// Stops it; the directory goes.
    pub async fn stop(mut self) {
        self.running.take().unwrap().stop().await.unwrap();
    }
}

/// A clock that shows some day.
pub fn standing_clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(StoreTimestamp(1_795_240_000_000)))
}

/// A port that is free together with the second port of a broker, two below. The one between is kept by this process
/// until it ends: no other one that asks here is given the same.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    // Below the range that the system gives out by itself; apart for each process and each call.
    let process = u16::try_from(std::process::id() % 1_000).unwrap();
    let keep = |port: u16| TcpListener::bind(("127.0.0.1", port)).map(std::mem::forget).is_ok();
    (0..2_000)
        .map(|_| 12_000 + (process * 16 + NEXT.fetch_add(4, Ordering::Relaxed)) % 18_000)
        .find(|port| keep(*port - 1) && free(*port) && free(*port - 2))
        .unwrap()
}

/// A SEND under either of its codes.
pub fn send(code: i32, topic: &str, queue: i32, body: &[u8], properties: &str) -> Command {
    let long = [
        "producerGroup",
        "topic",
        "defaultTopic",
        "defaultTopicQueueNums",
        "queueId",
        "sysFlag",
        "bornTimestamp",
        "flag",
        "properties",
        "reconsumeTimes",
        "unitMode",
        "batch",
    ];
    let short = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "m"];
    let queue = queue.to_string();
    let values = [
        "P_TEST",
        topic,
        "TBW102",
        "4",
        &queue,
        "0",
        "1795240247555",
        "5",
        properties,
        "0",
        "false",
        "false",
    ];
    let names = if code == request::SEND_MESSAGE { long } else { short };
    let command = Command::request(code).with_body(Bytes::copy_from_slice(body));
    names.iter().zip(values).fold(command, |command, (name, value)| command.with_field(name, value))
}

/// A SEND_BATCH_MESSAGE of bodies with their properties.
pub fn send_batch(topic: &str, queue: i32, parts: &[(Vec<u8>, String)], properties: &str) -> Command {
    let mut body = Vec::new();
    for (content, own) in parts {
        let size = 4 * 4 + 4 + content.len() + 2 + own.len();
        for number in [size, 0, 0, 0, content.len()] {
            body.extend_from_slice(&u32::try_from(number).unwrap().to_be_bytes());
        }
        body.extend_from_slice(content);
        body.extend_from_slice(&u16::try_from(own.len()).unwrap().to_be_bytes());
        body.extend_from_slice(own.as_bytes());
    }
    send(request::SEND_BATCH_MESSAGE, topic, queue, &body, properties).with_field("m", true)
}

/// A heartbeat of one push consumer with one subscription.
pub fn heart_beat(group: &str, client_id: &str, topic: &str, expression: &str, version: i64) -> Command {
    let body = format!(
        r#"{{"clientID":"{client_id}","consumerDataSet":[{{"consumeFromWhere":"CONSUME_FROM_FIRST_OFFSET",
        "consumeType":"CONSUME_PASSIVELY","groupName":"{group}","messageModel":"CLUSTERING","subscriptionDataSet":[
        {{"classFilterMode":false,"codeSet":[],"expressionType":"TAG","subString":"{expression}",
        "subVersion":{version},"tagsSet":[],"topic":"{topic}"}}],"unitMode":false}}],"heartbeatFingerprint":0,
        "producerDataSet":[],"withoutSub":false}}"#
    );
    Command::request(request::HEART_BEAT).with_body(Bytes::from(body))
}

/// A PULL_MESSAGE, by default one that subscribes to everything and is not held.
pub struct Pull {
    command: Command,
    sys_flag: i32,
}

impl Pull {
    pub fn new(group: &str, topic: &str, queue: i32, offset: i64) -> Self {
        let command = Command::request(request::PULL_MESSAGE)
            .with_field("consumerGroup", group)
            .with_field("topic", topic)
            .with_field("queueId", queue)
            .with_field("queueOffset", offset)
            .with_field("maxMsgNums", 32)
            .with_field("commitOffset", 0)
            .with_field("suspendTimeoutMillis", 15_000)
            .with_field("subVersion", 0)
            .with_field("subscription", "*")
            .with_field("expressionType", "TAG");
        Self { command, sys_flag: 4 }
    }

    fn with(mut self, name: &str, value: impl std::fmt::Display, flag: i32) -> Self {
        self.command.fields.set(name, value);
        self.sys_flag |= flag;
        self
    }

    pub fn subscription(self, expression: &str) -> Self {
        self.with("subscription", expression, 4)
    }

    /// As push consumers do: what is subscribed was said by a heartbeat.
    pub fn by_heart_beat(mut self, version: i64) -> Self {
        self.command.fields.remove("subscription");
        self.sys_flag &= !4;
        self.with("subVersion", version, 0)
    }

    pub fn max(self, messages: i32) -> Self {
        self.with("maxMsgNums", messages, 0)
    }

    pub fn commit(self, offset: i64) -> Self {
        self.with("commitOffset", offset, 1)
    }

    pub fn suspend(self, ms: u64) -> Self {
        self.with("suspendTimeoutMillis", ms, 2)
    }

    pub fn command(self) -> Command {
        self.command.with_field("sysFlag", self.sys_flag)
    }
}

/// A message as a client reads it.
#[derive(Clone, Debug)]
pub struct Got {
    pub topic: String,
    pub body: Vec<u8>,
    pub flag: i32,
    pub queue_id: i32,
    pub queue_offset: i64,
    pub physical_offset: i64,
    pub store_timestamp: i64,
    pub reconsume_times: i32,
    pub message_id: String,
    pub sys_flag: i32,
    pub prepared_transaction_offset: i64,
    properties: Vec<(String, String)>,
}

impl Got {
    pub fn property(&self, name: &str) -> Option<&str> {
        self.properties.iter().find(|(have, _)| have == name).map(|(_, value)| value.as_str())
    }
}

/// The messages in the body of an answer.
pub fn records(answer: &Command) -> Vec<Got> {
    let bytes = answer.body.to_bytes();
    let mut rest = &bytes[..];
    let mut got = Vec::new();
    while !rest.is_empty() {
        let record = Record::decode(rest).unwrap();
        record.verify_body_crc().unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        got.push(Got {
            topic: record.topic.to_owned(),
            body: record.body.to_vec(),
            flag: record.flag,
            queue_id: record.queue_id.get(),
            queue_offset: record.queue_offset.get(),
            physical_offset: record.physical_offset.get(),
            store_timestamp: record.store_timestamp.get(),
            reconsume_times: record.reconsume_times,
            message_id: MessageId { host: record.store_host, offset: record.physical_offset }.to_string(),
            sys_flag: record.sys_flag.0,
            prepared_transaction_offset: record.prepared_transaction_offset,
            properties: record.properties.iter().map(|(name, value)| (text(name), text(value))).collect(),
        });
        rest = &rest[record.total_size..];
    }
    got
}
