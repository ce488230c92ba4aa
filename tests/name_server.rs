//! The name server as its clients and brokers see it, over loopback.
#![cfg(feature = "broker")]
#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

use std::{sync::Arc, time::Duration};

use reput::{
    ManualClock, StoreTimestamp,
    namesrv::{NameServer, Options, Switches},
    remoting::{
        Client, Command,
        codes::{request, response},
    },
};
use serde_json::{Value, json};

const LONG: Duration = Duration::from_secs(20);

struct Rig {
    server: NameServer,
    clock: Arc<ManualClock>,
    client: Client,
}

impl Rig {
    async fn new() -> Self {
        Self::with(Switches::default()).await
    }

    async fn with(switches: Switches) -> Self {
        let clock = Arc::new(ManualClock::new(StoreTimestamp(1_000)));
        let options = Options {
            clock: Arc::<ManualClock>::clone(&clock),
            scan_interval: Duration::from_millis(5),
            switches,
            ..Options::default()
        };
        let server = NameServer::start_with("127.0.0.1:0", options).await.unwrap();
        let client = Client::connect(server.local_addr()).await.unwrap();
        Self { server, clock, client }
    }

    /// A connection of its own, as every broker has.
    async fn broker(&self) -> Client {
        Client::connect(self.server.local_addr()).await.unwrap()
    }

    async fn ask(&self, command: Command) -> Command {
        self.client.call(command, LONG).await.unwrap()
    }

    async fn ok(&self, command: Command) -> Command {
        let answer = self.ask(command).await;
        assert_eq!(answer.code, response::SUCCESS, "{:?}", answer.remark);
        answer
    }

    async fn json(&self, command: Command) -> Value {
        serde_json::from_slice(&self.ok(command).await.body.to_bytes()).unwrap()
    }

    async fn route(&self, topic: &str) -> Option<Value> {
        let answer = self.ask(route(topic)).await;
        match answer.code {
            response::SUCCESS => Some(serde_json::from_slice(&answer.body.to_bytes()).unwrap()),
            response::TOPIC_NOT_EXIST => None,
            code => panic!("{code} {:?}", answer.remark),
        }
    }

    async fn until_route(&self, topic: &str, there: bool) {
        for _ in 0..2_000 {
            if self.route(topic).await.is_some() == there {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("the route of {topic} is there: {}", !there);
    }
}

fn route(topic: &str) -> Command {
    Command::request(request::GET_ROUTEINFO_BY_TOPIC).with_field("topic", topic)
}

fn topics(version: i64, names: &[&str]) -> Value {
    let table: serde_json::Map<_, _> = names
        .iter()
        .map(|name| {
            let topic = json!({"attributes": {}, "order": false, "perm": 6, "readQueueNums": 4,
                "topicFilterType": "SINGLE_TAG", "topicName": name, "topicSysFlag": 0, "writeQueueNums": 8});
            ((*name).to_owned(), topic)
        })
        .collect();
    json!({"dataVersion": {"counter": version, "stateVersion": 0, "timestamp": 1}, "topicConfigTable": table,
        "mappingDataVersion": {"counter": 0, "stateVersion": 0, "timestamp": 1},
        "topicQueueMappingDetailMap": {}, "topicQueueMappingInfoMap": {}})
}

fn register(name: &str, id: i64, addr: &str, version: i64, names: &[&str]) -> Command {
    let body =
        json!({"filterServerList": [], "topicConfigSerializeWrapper": topics(version, names)}).to_string();
    let crc = crc32fast::hash(body.as_bytes()) & 0x7fff_ffff;
    Command::request(request::REGISTER_BROKER)
        .with_field("brokerName", name)
        .with_field("brokerId", id)
        .with_field("brokerAddr", addr)
        .with_field("clusterName", "DefaultCluster")
        .with_field("haServerAddr", format!("{addr}2"))
        .with_field("enableActingMaster", false)
        .with_field("compressed", false)
        .with_field("bodyCrc32", crc)
        .with_body(body)
}

#[tokio::test]
async fn a_registered_topic_has_a_route_in_the_shape_of_each_clients_version() {
    let rig = Rig::new().await;
    let broker = rig.broker().await;
    let answer = broker.call(register("broker-a", 0, "127.0.0.1:20911", 1, &["T", "U"]), LONG).await.unwrap();
    assert_eq!((answer.code, answer.body.len(), answer.fields.len()), (response::SUCCESS, 0, 0));

    let rest = r#","brokerName":"broker-a","cluster":"DefaultCluster","enableActingMaster":false}],"filterServerTable":{},"queueDatas":[{"brokerName":"broker-a","perm":6,"readQueueNums":4,"topicSysFlag":0,"writeQueueNums":8}]}"#;
    let quoted = format!(r#"{{"brokerDatas":[{{"brokerAddrs":{{"0":"127.0.0.1:20911"}}{rest}"#);
    let bare = quoted.replace("\"0\"", "0");
    for (version, standard, expected) in [
        (513, false, &quoted),
        (401, false, &quoted),
        (400, false, &bare),
        (317, false, &bare),
        (317, true, &quoted),
    ] {
        let mut asking = route("T");
        asking.version = version;
        if standard {
            asking.fields.set("acceptStandardJsonOnly", true);
        }
        let body = rig.ok(asking).await.body.to_bytes();
        assert_eq!(std::str::from_utf8(&body).unwrap(), expected, "version {version}");
    }

    let missing = rig.ask(route("nowhere")).await;
    assert_eq!(missing.code, response::TOPIC_NOT_EXIST);
    assert_eq!(missing.remark.as_deref(), Some("No topic route info in name server for the topic: nowhere"));
}

#[tokio::test]
async fn the_cluster_and_topic_lists_have_rocketmqs_shape() {
    let rig = Rig::new().await;
    rig.ok(register("broker-a", 0, "127.0.0.1:20911", 1, &["T", "U"])).await;
    let cluster = rig.ok(Command::request(request::GET_BROKER_CLUSTER_INFO)).await.body.to_bytes();
    // As recorded in frames/java1__send_batch.jsonl.
    assert_eq!(
        std::str::from_utf8(&cluster).unwrap(),
        r#"{"brokerAddrTable":{"broker-a":{"brokerAddrs":{0:"127.0.0.1:20911"},"brokerName":"broker-a","cluster":"DefaultCluster","enableActingMaster":false}},"clusterAddrTable":{"DefaultCluster":["broker-a"]}}"#
    );
    let all = rig.json(Command::request(request::GET_ALL_TOPIC_LIST_FROM_NAMESERVER)).await;
    assert_eq!(all, json!({"topicList": ["T", "U"]}));
    let of = |cluster: &str| Command::request(request::GET_TOPICS_BY_CLUSTER).with_field("cluster", cluster);
    assert_eq!(rig.json(of("DefaultCluster")).await, json!({"topicList": ["T", "U"]}));
    assert_eq!(rig.json(of("other")).await, json!({"topicList": []}));
    let system = rig.json(Command::request(request::GET_SYSTEM_TOPIC_LIST_FROM_NS)).await;
    assert_eq!(system, json!({"brokerAddr": "127.0.0.1:20911", "topicList": ["DefaultCluster", "broker-a"]}));
    let members = Command::request(request::GET_BROKER_MEMBER_GROUP)
        .with_field("clusterName", "DefaultCluster")
        .with_field("brokerName", "broker-a");
    let members = rig.ok(members).await.body.to_bytes();
    assert_eq!(
        std::str::from_utf8(&members).unwrap(),
        r#"{"brokerMemberGroup":{"brokerAddrs":{0:"127.0.0.1:20911"},"brokerName":"broker-a","cluster":"DefaultCluster"}}"#
    );
}

#[tokio::test]
async fn one_topic_registers_after_the_broker_has() {
    let rig = Rig::new().await;
    let early = rig.ask(register("broker-a", 0, "127.0.0.1:1", 1, &["new"])).await;
    assert_eq!(
        (early.code, early.remark.as_deref()),
        (response::SYSTEM_ERROR, Some("register broker failed"))
    );
    rig.ok(register("broker-a", 0, "127.0.0.1:1", 1, &["T", "U"])).await;
    rig.ok(register("broker-a", 0, "127.0.0.1:1", 2, &["new"])).await;
    for topic in ["T", "U", "new"] {
        assert!(rig.route(topic).await.is_some(), "{topic}");
    }
}

#[tokio::test]
async fn a_broker_that_falls_silent_is_forgotten_after_two_minutes_and_one_that_beats_is_not() {
    let rig = Rig::new().await;
    let (silent, beating) = (rig.broker().await, rig.broker().await);
    silent.call(register("broker-a", 0, "127.0.0.1:1", 1, &["A", "both"]), LONG).await.unwrap();
    beating.call(register("broker-b", 0, "127.0.0.1:2", 1, &["B", "both"]), LONG).await.unwrap();
    rig.clock.advance(Duration::from_secs(119));
    let beat = Command::request(request::BROKER_HEARTBEAT)
        .with_field("clusterName", "DefaultCluster")
        .with_field("brokerName", "broker-b")
        .with_field("brokerAddr", "127.0.0.1:2");
    beating.call(beat, LONG).await.unwrap();
    assert!(rig.route("A").await.is_some());
    rig.clock.advance(Duration::from_secs(2));
    rig.until_route("A", false).await;
    assert!(rig.route("B").await.is_some());
    assert_eq!(rig.route("both").await.unwrap()["queueDatas"].as_array().unwrap().len(), 1);
    assert!(!beating.is_closed());
    for _ in 0..2_000 {
        if silent.is_closed() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the silent broker's connection is closed");
}

#[tokio::test]
async fn a_broker_whose_connection_ends_is_forgotten_at_once() {
    let rig = Rig::new().await;
    let broker = rig.broker().await;
    broker.call(register("broker-a", 0, "127.0.0.1:1", 1, &["T", "U"]), LONG).await.unwrap();
    // It registers again over a new connection; the end of the old one then means nothing.
    let again = rig.broker().await;
    again.call(register("broker-a", 0, "127.0.0.1:1", 1, &["T", "U"]), LONG).await.unwrap();
    drop(broker);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(rig.route("T").await.is_some());
    drop(again);
    rig.until_route("T", false).await;
    let cluster = rig.json(Command::request(request::GET_BROKER_CLUSTER_INFO)).await;
    assert_eq!(cluster, json!({"brokerAddrTable": {}, "clusterAddrTable": {}}));
}

#[tokio::test]
async fn unregistering_removes_the_broker_and_what_only_it_had() {
    let rig = Rig::new().await;
    rig.ok(register("broker-a", 0, "127.0.0.1:1", 1, &["A", "both"])).await;
    rig.ok(register("broker-b", 0, "127.0.0.1:2", 1, &["B", "both"])).await;
    let gone = Command::request(request::UNREGISTER_BROKER)
        .with_field("clusterName", "DefaultCluster")
        .with_field("brokerName", "broker-a")
        .with_field("brokerAddr", "127.0.0.1:1")
        .with_field("brokerId", 0);
    rig.ok(gone).await;
    assert!(rig.route("A").await.is_none());
    let both = rig.route("both").await.unwrap();
    assert_eq!(both["brokerDatas"].as_array().unwrap().len(), 1);
    assert_eq!(both["brokerDatas"][0]["brokerName"], "broker-b");
}

#[tokio::test]
async fn a_slave_learns_its_master_and_routes_show_both() {
    let rig = Rig::new().await;
    rig.ok(register("broker-a", 0, "127.0.0.1:1", 1, &["T", "U"])).await;
    let slave = rig.ok(register("broker-a", 1, "127.0.0.1:3", 1, &["T", "U"])).await;
    assert_eq!(slave.fields.get("masterAddr"), Some("127.0.0.1:1"));
    assert_eq!(slave.fields.get("haServerAddr"), Some("127.0.0.1:12"));
    let route = rig.route("T").await.unwrap();
    assert_eq!(route["brokerDatas"][0]["brokerAddrs"], json!({"0": "127.0.0.1:1", "1": "127.0.0.1:3"}));
    // The slave takes over: its address has one number only.
    rig.ok(register("broker-a", 0, "127.0.0.1:3", 1, &["T", "U"])).await;
    let route = rig.route("T").await.unwrap();
    assert_eq!(route["brokerDatas"][0]["brokerAddrs"], json!({"0": "127.0.0.1:3"}));
}

#[tokio::test]
async fn the_right_to_write_is_taken_given_back_and_survives_a_repeated_registration() {
    let rig = Rig::new().await;
    rig.ok(register("broker-a", 0, "127.0.0.1:1", 1, &["T", "U"])).await;
    let perm = || async { rig.route("T").await.unwrap()["queueDatas"][0]["perm"].clone() };
    let by = |code| Command::request(code).with_field("brokerName", "broker-a");
    let wiped = rig.ok(by(request::WIPE_WRITE_PERM_OF_BROKER)).await;
    assert_eq!((wiped.fields.get("wipeTopicCount"), perm().await), (Some("2"), json!(4)));
    rig.ok(register("broker-a", 0, "127.0.0.1:1", 1, &["T", "U"])).await;
    assert_eq!(perm().await, json!(4), "nothing changed at the broker");
    let added = rig.ok(by(request::ADD_WRITE_PERM_OF_BROKER)).await;
    assert_eq!((added.fields.get("addTopicCount"), perm().await), (Some("2"), json!(6)));
}

#[tokio::test]
async fn topics_are_entered_and_deleted_by_administrators() {
    let rig = Rig::new().await;
    rig.ok(register("broker-a", 0, "127.0.0.1:1", 1, &["T", "U"])).await;
    let enter = |broker: &str| {
        // As Java writes it: number keys without quotes.
        let body = format!(
            r#"{{"brokerDatas":[{{"brokerAddrs":{{0:"x"}}}}],"queueDatas":[{{"brokerName":"{broker}","perm":6,"readQueueNums":3,"topicSysFlag":0,"writeQueueNums":3}}]}}"#
        );
        Command::request(request::REGISTER_TOPIC_IN_NAMESRV).with_field("topic", "entered").with_body(body)
    };
    rig.ok(enter("stranger")).await;
    assert!(rig.route("entered").await.is_none());
    rig.ok(enter("broker-a")).await;
    assert_eq!(rig.route("entered").await.unwrap()["queueDatas"][0]["readQueueNums"], 3);
    let delete = |cluster: &str| {
        Command::request(request::DELETE_TOPIC_IN_NAMESRV)
            .with_field("topic", "entered")
            .with_field("clusterName", cluster)
    };
    rig.ok(delete("other")).await;
    assert!(rig.route("entered").await.is_some());
    rig.ok(delete("DefaultCluster")).await;
    assert!(rig.route("entered").await.is_none());
    rig.ok(Command::request(request::DELETE_TOPIC_IN_NAMESRV).with_field("topic", "T")).await;
    assert!(rig.route("T").await.is_none());
}

#[tokio::test]
async fn order_configurations_reach_brokers_and_switched_on_routes() {
    let rig = Rig::with(Switches { order_message_enable: true, ..Switches::default() }).await;
    rig.ok(register("broker-a", 0, "127.0.0.1:1", 1, &["T", "U"])).await;
    let kv = |code: i32| {
        Command::request(code).with_field("namespace", "ORDER_TOPIC_CONFIG").with_field("key", "T")
    };
    assert_eq!(rig.ask(kv(request::GET_KV_CONFIG)).await.code, response::QUERY_NOT_FOUND);
    assert_eq!(rig.ask(kv(request::GET_KVLIST_BY_NAMESPACE)).await.code, response::QUERY_NOT_FOUND);
    rig.ok(kv(request::PUT_KV_CONFIG).with_field("value", "broker-a:4")).await;
    assert_eq!(rig.ok(kv(request::GET_KV_CONFIG)).await.fields.get("value"), Some("broker-a:4"));
    assert_eq!(rig.json(kv(request::GET_KVLIST_BY_NAMESPACE)).await, json!({"table": {"T": "broker-a:4"}}));
    assert_eq!(rig.route("T").await.unwrap()["orderTopicConf"], "broker-a:4");
    assert_eq!(rig.route("U").await.unwrap().get("orderTopicConf"), None);
    let again = rig.json(register("broker-a", 0, "127.0.0.1:1", 1, &["T", "U"])).await;
    assert_eq!(again, json!({"table": {"T": "broker-a:4"}}));
    rig.ok(kv(request::DELETE_KV_CONFIG)).await;
    assert_eq!(rig.route("T").await.unwrap().get("orderTopicConf"), None);
}

#[tokio::test]
async fn a_broker_asks_whether_its_topics_are_known() {
    let rig = Rig::new().await;
    rig.ok(register("broker-a", 0, "127.0.0.1:1", 7, &["T", "U"])).await;
    let ask = |counter: i64| {
        Command::request(request::QUERY_DATA_VERSION)
            .with_field("clusterName", "DefaultCluster")
            .with_field("brokerName", "broker-a")
            .with_field("brokerAddr", "127.0.0.1:1")
            .with_field("brokerId", 0)
            .with_body(json!({"counter": counter, "stateVersion": 0, "timestamp": 1}).to_string())
    };
    assert_eq!(rig.ok(ask(7)).await.fields.get("changed"), Some("false"));
    let changed = rig.ok(ask(8)).await;
    assert_eq!(changed.fields.get("changed"), Some("true"));
    let known: Value = serde_json::from_slice(&changed.body.to_bytes()).unwrap();
    assert_eq!(known, json!({"counter": 7, "stateVersion": 0, "timestamp": 1}));
}

#[tokio::test]
async fn bad_requests_are_answered_and_change_nothing() {
    let rig = Rig::new().await;
    let mut torn = register("broker-a", 0, "127.0.0.1:1", 1, &["T", "U"]);
    torn.body = b"{}".to_vec().into();
    let torn = rig.ask(torn).await;
    assert_eq!((torn.code, torn.remark.as_deref()), (response::SYSTEM_ERROR, Some("crc32 not match")));
    let mut no_json = register("broker-a", 0, "127.0.0.1:1", 1, &["T", "U"]).with_field("bodyCrc32", 0);
    no_json.body = b"{\"topicConfigSerializeWrapper\":[".to_vec().into();
    assert_eq!(rig.ask(no_json).await.code, response::SYSTEM_ERROR);
    let compressed = register("broker-a", 0, "127.0.0.1:1", 1, &["T", "U"]).with_field("compressed", true);
    assert_eq!(rig.ask(compressed).await.code, response::SYSTEM_ERROR);
    assert_eq!(rig.ask(Command::request(request::GET_ROUTEINFO_BY_TOPIC)).await.code, response::SYSTEM_ERROR);
    let unknown = rig.ask(Command::request(4242)).await;
    assert_eq!(unknown.code, response::REQUEST_CODE_NOT_SUPPORTED);
    assert_eq!(unknown.remark.as_deref(), Some(" request type 4242 not supported"));
    let cluster = rig.json(Command::request(request::GET_BROKER_CLUSTER_INFO)).await;
    assert_eq!(cluster, json!({"brokerAddrTable": {}, "clusterAddrTable": {}}));
}

#[tokio::test]
async fn switches_are_set_over_the_network_and_paths_are_not() {
    let rig = Rig::new().await;
    let update = |text: &'static str| {
        Command::request(request::UPDATE_NAMESRV_CONFIG).with_body(text.as_bytes().to_vec())
    };
    for text in ["kvConfigPath=/tmp/x", "enableTopicList=false\nconfigStorePath=/tmp/x", "rocketmqHome=/tmp"]
    {
        assert_eq!(rig.ask(update(text)).await.code, response::NO_PERMISSION, "{text}");
    }
    rig.ok(update("enableTopicList=false\nenableAllTopicList=false")).await;
    let config = rig.ok(Command::request(request::GET_NAMESRV_CONFIG)).await.body.to_bytes();
    let config = std::str::from_utf8(&config).unwrap();
    assert!(config.contains("enableTopicList=false\n") && !config.contains('/'), "{config}");
    assert!(config.contains("\nlistenPort="), "{config}");
    for code in [request::GET_ALL_TOPIC_LIST_FROM_NAMESERVER, request::GET_UNIT_TOPIC_LIST] {
        let refused = rig.ask(Command::request(code)).await;
        assert_eq!((refused.code, refused.remark.as_deref()), (response::SYSTEM_ERROR, Some("disable")));
    }
}
