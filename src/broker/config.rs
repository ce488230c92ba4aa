//! The broker's configuration: RocketMQ's `broker.conf` keys and defaults in one table.
//!
//! Owns the keys of the broker; the store's keys go to [`crate::Config::set`]. A key that is honoured is applied, a
//! bad value is an error that names the key and what is allowed, and every other key gives a warning that says whether
//! RocketMQ knows it. Called by the command line and, for the keys in [`super::live::CHANGEABLE`], by UPDATE_BROKER_CONFIG.

use std::{
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use super::bloom::Bloom;
use crate::{
    config::{Config, parse_properties},
    error::{Error, Result},
};

/// A key of a `broker.conf` that has no effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigWarning {
    /// The key.
    pub key: String,
    /// Whether RocketMQ 5.5 knows it.
    pub known: bool,
}

impl fmt::Display for ConfigWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.known {
            write!(f, "{}: this key of RocketMQ has no effect here", self.key)
        } else {
            write!(f, "{}: no such key, it has no effect", self.key)
        }
    }
}

/// A type that a key can have.
trait Value: Sized {
    fn read(text: &str) -> Result<Self, String>;
    fn show(&self) -> String;
}

macro_rules! integer_value {
    ($($int:ty),*) => {$(
        impl Value for $int {
            fn read(text: &str) -> Result<Self, String> {
                text.parse().map_err(|_| format!("a whole number from {} to {} is needed", <$int>::MIN, <$int>::MAX))
            }
            fn show(&self) -> String {
                self.to_string()
            }
        }
    )*};
}
integer_value!(i32, i64, u16, u64, usize);

impl Value for bool {
    fn read(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| "allowed are true and false".into())
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for String {
    fn read(text: &str) -> Result<Self, String> {
        Ok(text.into())
    }
    fn show(&self) -> String {
        self.clone()
    }
}

impl Value for IpAddr {
    fn read(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| "an IP address is needed".into())
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

/// Name servers as `host:port;host:port`.
impl Value for Vec<String> {
    fn read(text: &str) -> Result<Self, String> {
        let list: Vec<String> = text
            .split([';', ','])
            .map(str::trim)
            .filter(|addr| !addr.is_empty())
            .map(str::to_owned)
            .collect();
        let port = |addr: &String| addr.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        if list.iter().all(port) {
            Ok(list)
        } else {
            Err("needed is host:port, several separated by ;".into())
        }
    }
    fn show(&self) -> String {
        self.join(";")
    }
}

macro_rules! keys {
    ($( $(#[$doc:meta])* $key:literal $name:ident : $type:ty = $default:expr $(, $min:literal ..= $max:literal)? ;)*) => {
        /// What a broker is started with.
        #[derive(Clone, Debug)]
        #[non_exhaustive]
        pub struct BrokerConfig {
            /// The store's part.
            pub store: Config,
            /// The file that these settings were read from: what is changed while the broker runs is written there.
            pub file: Option<PathBuf>,
            $( $(#[$doc])* #[doc = ""] #[doc = concat!("RocketMQ's `", $key, "`.")] pub $name: $type, )*
        }

        impl BrokerConfig {
            /// RocketMQ's defaults over the store in a directory, but listening on loopback only.
            #[must_use]
            pub fn new(store: Config) -> Self {
                Self { store, file: None, $( $name: $default, )* }
            }

            /// Every key that [`BrokerConfig::set`] understands beside those of the store.
            pub const KEYS: &'static [&'static str] = &[$($key),*];

            /// Sets what stands behind RocketMQ's key, the store's included. `Ok(false)` when it has no effect.
            ///
            /// # Errors
            /// [`Error::Config`] when the value cannot be used; it says what is allowed.
            pub fn set(&mut self, key: &str, value: &str) -> Result<bool> {
                let bad = |why: String| Error::Config { key: key.into(), value: value.into(), why };
                match key {
                    $( $key => {
                        let read = <$type as Value>::read(value).map_err(bad)?;
                        $( if !($min..=$max).contains(&read) {
                            return Err(bad(format!("allowed is {} to {}", $min, $max)));
                        } )?
                        self.$name = read;
                        Ok(true)
                    } )*
                    _ => self.store.set(key, value),
                }
            }

            /// The value of a key, the store's included, as [`BrokerConfig::set`] would read it.
            #[must_use]
            pub fn get(&self, key: &str) -> Option<String> {
                match key {
                    $( $key => Some(self.$name.show()), )*
                    _ => self.store.get(key),
                }
            }
        }
    };
}

keys! {
    /// The broker's name, also a topic.
    "brokerName" name: String = "broker-a".to_owned();
    /// The cluster it belongs to, also a topic.
    "brokerClusterName" cluster: String = "DefaultCluster".to_owned();
    /// 0: this broker is a master.
    "brokerId" broker_id: u64 = 0;
    /// The role; this broker replicates nothing.
    "brokerRole" role: String = "ASYNC_MASTER".to_owned();
    /// The address that clients are told; the one it binds to when empty.
    "brokerIP1" ip: String = String::new();
    /// The address that replicas are told.
    "brokerIP2" ha_ip: String = String::new();
    /// The port for clients.
    "listenPort" port: u16 = 10_911, 3..=65_533;
    /// The port for replicas.
    "haListenPort" ha_port: u16 = 0;
    /// The address to listen on; 0.0.0.0 for all.
    "bindAddress" bind: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    /// Name servers; empty: one runs inside this process.
    "namesrvAddr" name_servers: Vec<String> = Vec::new();
    /// Whether messages may be sent to (2) and read from (4) this broker.
    "brokerPermission" permission: i32 = 6, 0..=7;
    /// Queues of a topic that is created by a send.
    "defaultTopicQueueNums" default_topic_queues: i32 = 8, 1..=65_536;
    /// Whether a send creates the topic.
    "autoCreateTopicEnable" auto_create_topic: bool = true;
    /// Whether the topic named as the cluster may be used.
    "clusterTopicEnable" cluster_topic: bool = true;
    /// Whether the topic named as the broker may be used.
    "brokerTopicEnable" broker_topic: bool = true;
    /// Whether first use creates a consumer group.
    "autoCreateSubscriptionGroup" auto_create_group: bool = true;
    /// Whether requests may not change topics of the system.
    "validateSystemTopicWhenUpdateTopic" validate_system_topic: bool = true;
    /// What messages are marked with as their region.
    "regionId" region_id: String = "DefaultRegion".to_owned();
    /// Whether clients are told to trace.
    "traceOn" trace_on: bool = true;
    /// Whether the topic for traces exists.
    "traceTopicEnable" trace_topic: bool = false;
    /// The topic for traces.
    "msgTraceTopicName" trace_topic_name: String = "RMQ_SYS_TRACE_TOPIC".to_owned();
    /// Whether a pull that finds nothing is held until a message comes.
    "longPollingEnable" long_polling: bool = true;
    /// Milliseconds that a pull that finds nothing is held when long polling is off.
    "shortPollingTimeMills" short_polling_ms: u64 = 1_000, 0..=600_000;
    /// Whether members of a group are told when another comes or goes.
    "notifyConsumerIdsChangedEnable" notify_consumer_ids_changed: bool = true;
    /// Milliseconds after which a client that sends no heartbeat is forgotten.
    "channelExpiredTimeout" client_expiry_ms: u64 = 120_000, 1_000..=86_400_000;
    /// Seconds after which a connection on which nothing moves is closed.
    "serverChannelMaxIdleTimeSeconds" max_idle_s: u64 = 120, 1..=86_400;
    /// Milliseconds between registrations with the name servers.
    "registerNameServerPeriod" register_period_ms: u64 = 30_000, 10_000..=60_000;
    /// Milliseconds that a name server may take to answer a registration.
    "registerBrokerTimeoutMills" register_timeout_ms: u64 = 24_000, 100..=600_000;
    /// Milliseconds between saves of the consumers' offsets.
    "flushConsumerOffsetInterval" save_offsets_ms: u64 = 5_000, 100..=3_600_000;
    /// Milliseconds between saves of the delay levels' offsets.
    "flushDelayOffsetInterval" save_delay_offsets_ms: u64 = 10_000, 100..=3_600_000;
    /// Whether messages may ask for any time of delivery.
    "timerWheelEnable" timer_wheel: bool = true;
    /// Milliseconds that count as one time of delivery.
    "timerPrecisionMs" timer_precision: u64 = 1_000, 10..=60_000;
    /// Times of delivery that one round of the wheel covers; what is due later goes round again.
    "timerRollWindowSlot" timer_window: u64 = 172_800, 0..=1_000_000_000;
    /// Seconds that a time of delivery may be away.
    "timerMaxDelaySec" timer_max_delay_s: u64 = 259_200, 1..=315_360_000;
    /// Milliseconds between saves of the timers' state.
    "timerFlushIntervalMs" timer_flush_interval_ms: u64 = 1_000, 10..=3_600_000;
    /// Bytes of a file of the timer log.
    "mappedFileSizeTimerLog" timer_log_size: usize = 104_857_600, 1_024..=1_073_741_824;
    /// Messages that one time of delivery takes before more are refused.
    "timerCongestNumEachSlot" timer_congestion: i32 = i32::MAX, 1..=2_147_483_647;
    /// Whether timed messages can be taken back.
    "recallMessageEnable" recall_messages: bool = false;
    /// Whether they can while the broker takes no messages.
    "allowRecallWhenBrokerNotWriteable" recall_when_not_writeable: bool = true;
    /// Whether half messages of transactions are refused.
    "rejectTransactionMessage" reject_transactions: bool = false;
    /// Milliseconds after which the producer of a half message is asked about it.
    "transactionTimeOut" transaction_timeout_ms: u64 = 6_000, 0..=86_400_000;
    /// How often a producer is asked about a half message before it is given up.
    "transactionCheckMax" transaction_check_max: i32 = 15, 0..=1_000_000;
    /// Milliseconds between looks for half messages that nobody ended.
    "transactionCheckInterval" transaction_check_interval_ms: u64 = 30_000, 10..=86_400_000;
    /// Milliseconds for which ended transactions are gathered before they are written down.
    "transactionOpBatchInterval" transaction_op_interval_ms: u64 = 3_000, 0..=3_600_000;
    /// Bytes of a message that writes down ended transactions.
    "transactionOpMsgMaxSize" transaction_op_max_bytes: usize = 4_096, 1..=1_048_576;
    /// Whether replies to messages are stored as well as passed on.
    "storeReplyMessageEnable" store_replies: bool = true;
    /// Whether requests that wait too long to be put, or wait while the page cache is busy, are refused.
    "brokerFastFailureEnable" fast_failure: bool = true;
    /// Milliseconds that a put may take before the page cache counts as busy and sends are refused.
    "osPageCacheBusyTimeOutMills" busy_after_ms: u64 = 1_000, 0..=9_000_000;
    /// Milliseconds that a send may wait for those before it.
    "waitTimeMillsInSendQueue" send_wait_ms: u64 = 200, 0..=86_400_000;
    /// Milliseconds that the end of a transaction may wait for the puts before it.
    "waitTimeMillsInTransactionQueue" transaction_wait_ms: u64 = 3_000, 0..=86_400_000;
    /// Milliseconds that an acknowledgement of a popped message may wait for the puts before it.
    "waitTimeMillsInAckQueue" ack_wait_ms: u64 = 3_000, 0..=86_400_000;
    /// Sends that wait at most.
    "sendThreadPoolQueueCapacity" send_queue_capacity: usize = 10_000, 1..=10_000_000;
    /// Ends of transactions that wait at most.
    "endTransactionPoolQueueCapacity" transaction_queue_capacity: usize = 100_000, 1..=10_000_000;
    /// Acknowledgements of popped messages that wait at most.
    "ackThreadPoolQueueCapacity" ack_queue_capacity: usize = 100_000, 1..=10_000_000;
    /// Messages that one pull returns at most while they lie in memory.
    "maxTransferCountOnMessageInMemory" max_pull_messages: i32 = 32, 1..=100_000;
    /// Bytes that one pull returns at most while they lie in memory.
    "maxTransferBytesOnMessageInMemory" max_pull_bytes: i32 = 262_144, 1..=1_073_741_824;
    /// How consumers get messages that SET_MESSAGE_REQUEST_MODE did not tell: `PULL` or `POP`.
    "defaultMessageRequestMode" request_mode: String = "PULL".to_owned();
    /// Consumers that share a queue when the default mode is `POP`; all when 0 or less.
    "defaultPopShareQueueNum" pop_share_queues: i32 = -1;
    /// Whether QUERY_ASSIGNMENT spreads the queues over a group; each consumer gets all when not.
    "serverLoadBalancerEnable" server_balances: bool = true;
    /// Percent of the pops that look for retries first.
    "popFromRetryProbability" pop_retry_percent: usize = 20, 0..=100;
    /// Whether retries of pops go to `%RETRY%group+topic`, else to `%RETRY%group_topic`.
    "enableRetryTopicV2" retry_topic_v2: bool = false;
    /// Whether pops look into `%RETRY%group_topic` beside `%RETRY%group+topic`.
    "retrieveMessageFromPopRetryTopicV1" pop_from_retry_v1: bool = true;
    /// Whether a retry is popped with its retry topic's name, else with that of the topic it came from.
    "popResponseReturnActualRetryTopic" pop_actual_topic: bool = false;
    /// Whether a new group that pops from the end gets all of a queue that lies in memory.
    "initPopOffsetByCheckMsgInMem" pop_young_queues: bool = true;
    /// Pops of one group, topic and queue that wait at most.
    "popPollingSize" pop_held_each: usize = 1_024, 1..=1_000_000;
    /// Pops that wait at most.
    "maxPopPollingSize" pop_held: usize = 100_000, 1..=10_000_000;
    /// Check points not worked off, beyond which nothing more is popped.
    "popCkMaxBufferSize" pop_check_points: usize = 200_000, 1..=100_000_000;
    /// Queues of the topic for check points.
    "reviveQueueNum" revive_queues: i32 = 8, 1..=1_024;
    /// Milliseconds between looks for messages whose invisible time has ended.
    "reviveInterval" revive_interval_ms: u64 = 1_000, 10..=60_000;
    /// Percent of the memory within which messages are taken to lie in memory.
    "accessMessageInMemoryMaxRatio" in_memory_percent: u64 = 40, 0..=100;
    /// Whether consumers may filter by SQL92 expressions over properties.
    "enablePropertyFilter" property_filter: bool = false;
    /// Whether expressions for a retry topic are those of the topics that its messages came from.
    "filterSupportRetry" filter_retry: bool = false;
    /// Whether a message's ConsumeQueueExt unit says which expressions it passes; needs `enableConsumeQueueExt`.
    "enableCalcFilterBitMap" filter_bitmaps: bool = false;
    /// Groups with an expression on one topic that the bitmaps are made for.
    "expectConsumerNumUseFilter" expected_filters: i32 = 32, 1..=20_000;
    /// Percent of the messages that a bitmap may let pass though the expression does not.
    "maxErrorRateOfBloomFilter" bloom_error_percent: i32 = 20, 1..=99;
    /// Milliseconds that a group's expression is kept after its last member left.
    "filterDataCleanTimeSpan" keep_filters_ms: i64 = 86_400_000, 0..=2_147_483_647;
}

impl BrokerConfig {
    /// Reads the text of a `broker.conf` over what is set already.
    ///
    /// # Errors
    /// [`Error::Config`] for a value that cannot be used.
    pub fn read(&mut self, text: &str) -> Result<Vec<ConfigWarning>> {
        let mut warnings = Vec::new();
        for (key, value) in parse_properties(text) {
            if !self.set(&key, value.trim())? {
                let known = KNOWN.contains(&key.as_str());
                warnings.push(ConfigWarning { key, known });
            }
        }
        self.validate()?;
        Ok(warnings)
    }

    /// Checks what no single key shows.
    ///
    /// # Errors
    /// [`Error::Config`] with the key to change.
    pub fn validate(&self) -> Result<()> {
        self.store.validate()?;
        let bad = |key: &str, why: &str| {
            Err(Error::Config { key: key.into(), value: self.get(key).unwrap_or_default(), why: why.into() })
        };
        if !super::names::is_broker(&self.name) {
            return bad(
                "brokerName",
                "needed are 1 to 127 characters of %|a-zA-Z0-9_-@.: and no point in front",
            );
        }
        for key in ["brokerClusterName", "msgTraceTopicName"] {
            if !super::names::is_topic(&self.get(key).unwrap_or_default()) {
                return bad(key, "needed are 1 to 127 characters of %|a-zA-Z0-9_-");
            }
        }
        if !matches!(self.request_mode.as_str(), "PULL" | "POP") {
            return bad("defaultMessageRequestMode", "allowed are PULL and POP");
        }
        if self.broker_id != 0 || self.role != "ASYNC_MASTER" {
            let key = if self.broker_id == 0 { "brokerRole" } else { "brokerId" };
            return bad(
                key,
                "this broker does not replicate: allowed are brokerId=0 and brokerRole=ASYNC_MASTER",
            );
        }
        Ok(())
    }

    /// `host:port` that clients are told.
    #[must_use]
    pub fn address(&self) -> String {
        host_port(&self.host(), self.port)
    }

    /// `host:port` that replicas are told.
    #[must_use]
    pub fn ha_address(&self) -> String {
        let host = if self.ha_ip.is_empty() { self.host() } else { self.ha_ip.clone() };
        let port = if self.ha_port == 0 { self.port.saturating_add(1) } else { self.ha_port };
        host_port(&host, port)
    }

    fn host(&self) -> String {
        if !self.ip.is_empty() {
            self.ip.clone()
        } else if self.bind.is_unspecified() {
            "127.0.0.1".into()
        } else {
            self.bind.to_string()
        }
    }

    /// The shape of the bitmaps.
    pub(crate) fn bloom(&self) -> Bloom {
        Bloom::new(self.bloom_error_percent, self.expected_filters)
    }

    /// Queues of the topic where delayed messages wait.
    pub(crate) fn delay_level_count(&self) -> i32 {
        i32::try_from(self.store.delay_levels_ms().len()).unwrap_or(18)
    }

    /// All keys and values as the text of a properties file.
    #[must_use]
    pub fn properties(&self) -> String {
        let keys = Self::KEYS.iter().chain(Config::KEYS);
        keys.map(|key| format!("{key}={}\n", self.get(key).unwrap_or_default())).collect()
    }

    /// The directory of the store.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.store.root
    }

    /// `timerPrecisionMs` to reckon with.
    pub(crate) fn timer_precision_ms(&self) -> i64 {
        i64::try_from(self.timer_precision).unwrap_or(1_000)
    }

    /// `timerRollWindowSlot` as milliseconds. What leaves the wheel no minute of slack, or is no window, counts as the
    /// widest, as in RocketMQ.
    pub(crate) fn timer_window_ms(&self) -> i64 {
        let widest = 7 * 24 * 3_600 - 60;
        let slots = if (2..=widest).contains(&self.timer_window) { self.timer_window } else { widest };
        i64::try_from(slots).unwrap_or(1) * self.timer_precision_ms()
    }

    pub(crate) const fn client_expiry(&self) -> Duration {
        Duration::from_millis(self.client_expiry_ms)
    }
}

fn host_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Keys of RocketMQ 5.5 without effect here, so that a mistyped key can be told from one that is not offered.
const KNOWN: &[&str] = &[
    "rocketmqHome",
    "namesrvDomain",
    "aclEnable",
    "adminBrokerThreadPoolNums",
    "authenticationEnabled",
    "authorizationEnabled",
    "autoDeleteUnusedStats",
    "clientAsyncSemaphoreValue",
    "clientManageThreadPoolNums",
    "clientManagerThreadPoolQueueCapacity",
    "clientSocketRcvBufSize",
    "clientSocketSndBufSize",
    "commercialEnable",
    "compatibleWithOldNameSrv",
    "compressedRegister",
    "consumerManageThreadPoolNums",
    "consumerManagerThreadPoolQueueCapacity",
    "debugLockEnable",
    "defaultQueryMaxNum",
    "disableConsumeIfConsumerReadSlowly",
    "diskFallRecorded",
    "dLegerCommitLogStorePath",
    "duplicationEnable",
    "enableBroadcastOffsetStore",
    "enableControllerMode",
    "enableDLegerCommitLog",
    "enableDetailStat",
    "enableNotifyAfterPopOrderLockRelease",
    "enablePopLog",
    "enableScheduleAsyncDeliver",
    "enableScheduleMessageStats",
    "enableSingleTopicRegister",
    "enableSlaveActingMaster",
    "enableSplitRegistration",
    "endTransactionThreadPoolNums",
    "fastFailIfNoBufferInStorePool",
    "fetchNameSrvAddrByDnsLookup",
    "fetchNamesrvAddrByAddressServer",
    "filterServerNums",
    "flushCommitLogTimed",
    "forceRegister",
    "haHousekeepingInterval",
    "haMasterAddress",
    "haSendHeartbeatInterval",
    "haSlaveFallbehindMax",
    "haTransferBatchSize",
    "heartbeatThreadPoolNums",
    "heartbeatThreadPoolQueueCapacity",
    "highSpeedMode",
    "inSyncReplicas",
    "isInBrokerContainer",
    "litePullMessageThreadPoolNums",
    "litePullThreadPoolQueueCapacity",
    "lockInStrictMode",
    "maxDelayTime",
    "maxTransferBytesOnMessageInDisk",
    "maxTransferCountOnMessageInDisk",
    "messageStorePlugIn",
    "metricsExporterType",
    "notifyConsumerThreadPoolNums",
    "offsetCheckInSlave",
    "processReplyMessageThreadPoolNums",
    "pullMessageThreadPoolNums",
    "pullThreadPoolQueueCapacity",
    "putMessageFutureThreadPoolNums",
    "putThreadPoolQueueCapacity",
    "queryMessageThreadPoolNums",
    "queryThreadPoolQueueCapacity",
    "redeleteHangedFileInterval",
    "replyThreadPoolQueueCapacity",
    "sendMessageThreadPoolNums",
    "serverAsyncSemaphoreValue",
    "serverCallbackExecutorThreads",
    "serverOnewaySemaphoreValue",
    "serverPooledByteBufAllocatorEnable",
    "serverSelectorThreads",
    "serverSocketBacklog",
    "serverSocketRcvBufSize",
    "serverSocketSndBufSize",
    "serverWorkerThreads",
    "slaveReadEnable",
    "startAcceptSendRequestTimeStamp",
    "storePathAbort",
    "storePathConsumeQueue",
    "storePathIndex",
    "storeType",
    "transferMsgByHeap",
    "transientStorePoolEnable",
    "transientStorePoolSize",
    "useEpollNativeSelector",
    "useReentrantLockWhenPutMessage",
    "useServerSideResetOffset",
    "useTLS",
    "waitTimeMillsInAdminBrokerQueue",
    "waitTimeMillsInHeartbeatQueue",
    "waitTimeMillsInLitePullQueue",
    "waitTimeMillsInPullQueue",
    "warmMapedFileEnable",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<(BrokerConfig, Vec<ConfigWarning>)> {
        let mut config = BrokerConfig::new(Config::new("/x"));
        config.read(text).map(|warnings| (config, warnings))
    }

    #[test]
    fn a_broker_conf_of_rocketmq_sets_broker_and_store() {
        let text = "brokerName = b-1\nlistenPort=20911\nbindAddress=0.0.0.0\nbrokerIP1=10.0.0.7\n\
            namesrvAddr=10.0.0.1:9876;10.0.0.2:9876\nflushDiskType=SYNC_FLUSH\nstorePathRootDir=/y\n\
            sendMessageThreadPoolNums=4\nsendMesageThreads=4\n";
        let (config, warnings) = read(text).unwrap();
        assert_eq!((config.name.as_str(), config.address().as_str()), ("b-1", "10.0.0.7:20911"));
        assert_eq!(config.ha_address(), "10.0.0.7:20912");
        assert_eq!(config.name_servers, ["10.0.0.1:9876", "10.0.0.2:9876"]);
        assert_eq!(config.get("flushDiskType").as_deref(), Some("SYNC_FLUSH"));
        assert_eq!(config.root(), Path::new("/y"));
        let warned: Vec<_> = warnings.iter().map(|w| (w.key.as_str(), w.known)).collect();
        assert_eq!(warned, [("sendMessageThreadPoolNums", true), ("sendMesageThreads", false)]);
    }

    #[test]
    fn a_bad_value_names_its_key_and_what_is_allowed() {
        for (line, hint) in [
            ("listenPort=70000", "65535"),
            ("listenPort=1", "3 to 65533"),
            ("autoCreateTopicEnable=maybe", "true and false"),
            ("bindAddress=here", "IP address"),
            ("namesrvAddr=10.0.0.1", "host:port"),
            ("brokerName=../x", "127 characters"),
            ("brokerClusterName=a@b", "127 characters"),
            ("brokerId=1", "does not replicate"),
            ("brokerRole=SLAVE", "does not replicate"),
            ("deleteWhen=25", "00 to 23"),
        ] {
            let error = read(line).unwrap_err().to_string();
            assert!(error.contains(hint) && error.contains(line.split('=').next().unwrap()), "{error}");
        }
    }

    #[test]
    fn every_key_reads_back_what_was_set_and_is_not_also_called_without_effect() {
        let mut config = BrokerConfig::new(Config::new("/x"));
        for key in BrokerConfig::KEYS.iter().chain(Config::KEYS) {
            let value = config.get(key).unwrap();
            assert!(config.set(key, &value).unwrap(), "{key}");
            assert_eq!(config.get(key), Some(value), "{key}");
        }
        for key in KNOWN {
            assert_eq!(config.get(key), None, "{key} has an effect");
        }
        assert!(super::super::live::CHANGEABLE.iter().all(|key| config.get(key).is_some()));
    }
}
