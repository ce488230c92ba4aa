//! What a broker knows besides messages: topics, groups, offsets, clients, its own settings; over loopback, with a name
//! server, and over restarts.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]
#![cfg(feature = "broker")]

mod loopback;

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use loopback::{Fixture, Pull, free_port, heart_beat, records, send};
use reput::{
    Config,
    broker::{BrokerConfig, Running},
    namesrv::NameServer,
    remoting::{
        Client, Command, Connection, Limits, Service,
        codes::{request, response},
    },
};

const WAIT: Duration = Duration::from_secs(10);

async fn call(client: &Client, command: Command) -> Command {
    client.call(command, WAIT).await.unwrap()
}

fn text(command: &Command) -> String {
    String::from_utf8(command.body.to_bytes().to_vec()).unwrap()
}

fn create_topic(name: &str, queues: i32) -> Command {
    Command::request(request::UPDATE_AND_CREATE_TOPIC)
        .with_field("topic", name)
        .with_field("defaultTopic", "TBW102")
        .with_field("readQueueNums", queues)
        .with_field("writeQueueNums", queues)
        .with_field("perm", 6)
        .with_field("topicFilterType", "SINGLE_TAG")
        .with_field("topicSysFlag", 0)
        .with_field("order", false)
        .with_field("attributes", "")
}

fn topic_config(name: &str) -> Command {
    Command::request(request::GET_TOPIC_CONFIG).with_field("topic", name)
}

fn query_offset(group: &str, topic: &str) -> Command {
    Command::request(request::QUERY_CONSUMER_OFFSET)
        .with_field("consumerGroup", group)
        .with_field("topic", topic)
        .with_field("queueId", 0)
}

fn update_offset(group: &str, topic: &str, offset: i64) -> Command {
    Command { code: request::UPDATE_CONSUMER_OFFSET, ..query_offset(group, topic) }
        .with_field("commitOffset", offset)
}

async fn route(name_server: SocketAddr, topic: &str) -> Command {
    let client = Client::connect(name_server).await.unwrap();
    call(&client, Command::request(request::GET_ROUTEINFO_BY_TOPIC).with_field("topic", topic)).await
}

/// Tries until `done`, as far as the patience of a test goes.
async fn until<F: Future<Output = bool>>(what: &str, mut done: impl FnMut() -> F) {
    let end = Instant::now() + WAIT;
    while !done().await {
        assert!(Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn members(client: &Client) -> Command {
    call(client, Command::request(request::GET_CONSUMER_LIST_BY_GROUP).with_field("consumerGroup", "G")).await
}

/// Keeps what the broker asks of a client.
#[derive(Default)]
struct Told(Mutex<Vec<Command>>);

impl Service for Told {
    fn serve(&self, connection: &Arc<Connection>, batch: Vec<Command>) {
        for command in batch {
            if !command.is_oneway() {
                connection.send(command.reply(response::SUCCESS).with_body(String::from("from the client")));
            }
            self.0.lock().unwrap().push(command);
        }
    }
}

async fn listening_client(broker: &Fixture) -> (Client, Arc<Told>) {
    let told = Arc::new(Told::default());
    let service: Arc<dyn Service> = Arc::clone(&told) as Arc<dyn Service>;
    let client = Client::connect_with(broker.address(), service, Limits::default()).await.unwrap();
    (client, told)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_a_name_server_keeps_an_order_for_is_ordered() {
    let name_server = NameServer::start("127.0.0.1:0").await.unwrap();
    let at = name_server.local_addr();
    let broker = Fixture::start(|config| config.name_servers = vec![at.to_string()]).await;
    let client = broker.client().await;
    assert_eq!(call(&client, create_topic("T", 3)).await.code, response::SUCCESS);
    assert!(text(&call(&client, topic_config("T")).await).contains("\"order\":false"));
    let order = Command::request(request::PUT_KV_CONFIG)
        .with_field("namespace", "ORDER_TOPIC_CONFIG")
        .with_field("key", "T")
        .with_field("value", "broker-a:3");
    assert_eq!(call(&Client::connect(at).await.unwrap(), order).await.code, response::SUCCESS);
    // Any registration brings the news.
    assert_eq!(call(&client, create_topic("OTHER", 3)).await.code, response::SUCCESS);
    until("the topic is ordered", async || {
        text(&call(&client, topic_config("T")).await).contains("\"order\":true")
    })
    .await;
    let other = text(&call(&client, topic_config("OTHER")).await);
    assert!(other.contains("\"order\":false"), "{other}");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attributes_of_topics_are_those_that_rocketmq_knows() {
    let broker = Fixture::start(|_| {}).await;
    let client = broker.client().await;
    for (attributes, code) in [
        ("+message.type=TRANSACTION", response::SUCCESS),
        ("+message.type=FIFO", response::SUCCESS),
        ("+message.type=OTHER", response::SYSTEM_ERROR),
        ("+message.type=MIXED", response::INVALID_PARAMETER),
        ("+colour=red", response::SYSTEM_ERROR),
        ("+queue.type=BatchCQ", response::SYSTEM_ERROR),
    ] {
        let answer = call(&client, create_topic("T", 3).with_field("attributes", attributes)).await;
        assert_eq!(answer.code, code, "{attributes}: {answer:?}");
    }
    assert!(text(&call(&client, topic_config("T")).await).contains("{\"message.type\":\"FIFO\"}"));
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_is_registered_before_its_creation_is_answered_and_survives_a_restart() {
    let name_server = NameServer::start("127.0.0.1:0").await.unwrap();
    let at = name_server.local_addr();
    let mut broker = Fixture::start(|config| config.name_servers = vec![at.to_string()]).await;
    let client = broker.client().await;
    assert_eq!(route(at, "TBW102").await.code, response::SUCCESS);
    assert_eq!(route(at, "T").await.code, response::TOPIC_NOT_EXIST);
    let created = call(&client, create_topic("T", 3).with_field("attributes", "+message.type=DELAY")).await;
    assert_eq!(created.code, response::SUCCESS);
    let found = text(&route(at, "T").await);
    assert!(
        found.contains(&broker.address().to_string()) && found.contains("\"readQueueNums\":3"),
        "{found}"
    );
    broker.restart().await;
    let client = broker.client().await;
    let config = text(&call(&client, topic_config("T")).await);
    assert!(
        config.contains("\"writeQueueNums\":3") && config.contains("\"message.type\":\"DELAY\""),
        "{config}"
    );
    assert_eq!(route(at, "T").await.code, response::SUCCESS);
    broker.stop().await;
    assert_eq!(route(at, "T").await.code, response::TOPIC_NOT_EXIST);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_is_deleted_leaves_neither_messages_nor_offsets() {
    let mut broker = Fixture::start(|_| {}).await;
    let client = broker.client().await;
    assert_eq!(call(&client, send(request::SEND_MESSAGE, "T", 0, b"x", "")).await.code, response::SUCCESS);
    assert_eq!(call(&client, update_offset("G", "T", 1)).await.code, response::SUCCESS);
    let delete = || Command::request(request::DELETE_TOPIC_IN_BROKER).with_field("topic", "T");
    assert_eq!(call(&client, delete()).await.code, response::SUCCESS);
    assert_eq!(call(&client, topic_config("T")).await.code, response::TOPIC_NOT_EXIST);
    assert_eq!(call(&client, update_offset("G", "T", 1)).await.code, response::TOPIC_NOT_EXIST);
    broker.restart().await;
    let client = broker.client().await;
    assert_eq!(call(&client, topic_config("T")).await.code, response::TOPIC_NOT_EXIST);
    let sent = call(&client, send(request::SEND_MESSAGE, "T", 0, b"y", "")).await;
    assert_eq!(sent.fields.get("queueOffset"), Some("0"));
    let system = Command::request(request::DELETE_TOPIC_IN_BROKER).with_field("topic", "TBW102");
    assert_eq!(call(&client, system).await.code, response::INVALID_PARAMETER);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_makes_a_name_that_is_a_path() {
    let broker = Fixture::start(|_| {}).await;
    let client = broker.client().await;
    let long = "x".repeat(128);
    for bad in ["../../escaped", "a/b", "a b", "a@b", "", "a\0b", long.as_str()] {
        let created = call(&client, create_topic(bad, 1)).await;
        assert_eq!(created.code, response::INVALID_PARAMETER, "{bad:?}");
        let sent = call(&client, send(request::SEND_MESSAGE_V2, bad, 0, b"x", "")).await;
        assert_ne!(sent.code, response::SUCCESS, "{bad:?}");
        let group = format!(r#"{{"groupName":"{}"}}"#, bad.replace('\0', "\\u0000"));
        let made = Command::request(request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP).with_body(group);
        assert_eq!(call(&client, made).await.code, response::INVALID_PARAMETER, "{bad:?}");
        let beat = call(&client, heart_beat(&bad.replace('\0', "\\u0000"), "c", "T", "*", 1)).await;
        assert_eq!(beat.code, response::SUCCESS);
    }
    let topics = text(&call(&client, Command::request(request::GET_ALL_TOPIC_CONFIG)).await);
    assert!(!topics.contains("escaped") && !topics.contains("a/b") && !topics.contains("a@b"), "{topics}");
    assert!(!broker.root().parent().unwrap().join("escaped").exists());
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_and_groups_are_listed_in_pages() {
    let broker = Fixture::start(|_| {}).await;
    let client = broker.client().await;
    for n in 0..5 {
        call(&client, create_topic(&format!("T{n}"), 1)).await;
    }
    let page = |first: usize| {
        Command::request(request::GET_ALL_TOPIC_CONFIG)
            .with_field("topicSeq", first)
            .with_field("maxTopicNum", 7)
            .with_field("dataVersion", "")
    };
    let total: usize = call(&client, page(0)).await.fields.parse("totalTopicNum").unwrap();
    let mut seen = 0;
    while seen < total {
        let count = text(&call(&client, page(seen)).await).matches("\"topicName\"").count();
        assert_eq!(count, 7.min(total - seen));
        seen += count;
    }
    let groups = call(&client, Command::request(request::GET_ALL_SUBSCRIPTIONGROUP_CONFIG)).await;
    assert_eq!(groups.fields.parse::<usize>("totalGroupNum"), Ok(8));
    assert_eq!(text(&groups).matches("\"groupName\"").count(), 8);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_of_topics_or_groups_is_made_whole_or_not_at_all() {
    let broker = Fixture::start(|_| {}).await;
    let client = broker.client().await;
    let list = |code, body: &str| Command::request(code).with_body(body.to_owned());
    let topics = |more: &str| {
        let body = format!(
            r#"{{"topicConfigList":[{{"topicName":"T1","readQueueNums":3,"writeQueueNums":2,"perm":6,
            "attributes":{{"+message.type":"FIFO"}}}}{more}]}}"#
        );
        list(request::UPDATE_AND_CREATE_TOPIC_LIST, &body)
    };
    for bad in [r#",{"topicName":"a b"}"#, r#",{"topicName":"TBW102"}"#, ",{}"] {
        assert_eq!(call(&client, topics(bad)).await.code, response::INVALID_PARAMETER, "{bad}");
        assert_eq!(call(&client, topic_config("T1")).await.code, response::TOPIC_NOT_EXIST, "{bad}");
    }
    assert_eq!(call(&client, topics(r#",{"topicName":"T2"}"#)).await.code, response::SUCCESS);
    let first = text(&call(&client, topic_config("T1")).await);
    assert!(first.contains(r#""attributes":{"message.type":"FIFO"}"#), "{first}");
    assert!(first.contains(r#""readQueueNums":3"#) && first.contains(r#""writeQueueNums":2"#), "{first}");
    assert_eq!(call(&client, topic_config("T2")).await.code, response::SUCCESS);
    let strict = list(request::UPDATE_BROKER_CONFIG, "autoCreateSubscriptionGroup=false");
    assert_eq!(call(&client, strict).await.code, response::SUCCESS);
    let groups = |more: &str| {
        let body = format!(r#"{{"groupConfigList":[{{"groupName":"G1","retryMaxTimes":3}}{more}]}}"#);
        list(request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST, &body)
    };
    let group = |name: &str| {
        Command::request(request::GET_SUBSCRIPTIONGROUP_CONFIG).with_field("group", name.to_owned())
    };
    assert_eq!(call(&client, groups(r#",{"groupName":"a@b"}"#)).await.code, response::INVALID_PARAMETER);
    assert_eq!(call(&client, group("G1")).await.code, response::SUBSCRIPTION_GROUP_NOT_EXIST);
    assert_eq!(call(&client, groups(r#",{"groupName":"G2"}"#)).await.code, response::SUCCESS);
    assert!(text(&call(&client, group("G1")).await).contains(r#""retryMaxTimes":3"#));
    assert_eq!(call(&client, group("G2")).await.code, response::SUCCESS);
    for code in [request::UPDATE_AND_CREATE_TOPIC_LIST, request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST] {
        assert_eq!(call(&client, list(code, "{}")).await.code, response::SYSTEM_ERROR);
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_is_changed_kept_and_deleted_with_its_offsets() {
    let mut broker = Fixture::start(|config| config.auto_create_group = false).await;
    let client = broker.client().await;
    let get = || Command::request(request::GET_SUBSCRIPTIONGROUP_CONFIG).with_field("group", "G");
    assert_eq!(call(&client, get()).await.code, response::SUBSCRIPTION_GROUP_NOT_EXIST);
    let body = r#"{"groupName":"G","retryMaxTimes":5,"attributes":{"+a":"1"}}"#;
    let made = Command::request(request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP).with_body(body.to_owned());
    assert_eq!(call(&client, made).await.code, response::SUCCESS);
    call(&client, create_topic("T", 1)).await;
    assert_eq!(call(&client, update_offset("G", "T", 4)).await.code, response::SUCCESS);
    assert_eq!(call(&client, update_offset("H", "T", 4)).await.code, response::SUBSCRIPTION_GROUP_NOT_EXIST);
    broker.restart().await;
    let client = broker.client().await;
    let group = text(&call(&client, get()).await);
    assert!(
        group.contains("\"retryMaxTimes\":5") && group.contains("\"attributes\":{\"a\":\"1\"}"),
        "{group}"
    );
    let delete = Command::request(request::DELETE_SUBSCRIPTIONGROUP)
        .with_field("groupName", "G")
        .with_field("cleanOffset", true);
    assert_eq!(call(&client, delete).await.code, response::SUCCESS);
    assert_eq!(call(&client, get()).await.code, response::SUBSCRIPTION_GROUP_NOT_EXIST);
    let offsets = text(&call(&client, Command::request(request::GET_ALL_CONSUMER_OFFSET)).await);
    assert!(!offsets.contains("T@G"), "{offsets}");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_survive_a_restart_but_not_beyond_the_end_of_their_queue() {
    let mut broker = Fixture::start(|_| {}).await;
    let client = broker.client().await;
    call(&client, create_topic("T", 1)).await;
    // Whatever comes before its next question is for it, too.
    assert_eq!(call(&client, query_offset("G", "T")).await.fields.get("offset"), Some("0"));
    for nowhere in [query_offset("G", "T").with_field("queueId", 1), query_offset("G", "NEVER")] {
        assert_eq!(call(&client, nowhere).await.code, response::QUERY_NOT_FOUND);
    }
    for n in 0..3 {
        assert_eq!(
            call(&client, send(request::SEND_MESSAGE, "T", 0, &[n], "")).await.code,
            response::SUCCESS
        );
    }
    until("a group that is new to a young queue starts at 0", || async {
        call(&client, query_offset("NEW", "T")).await.fields.get("offset") == Some("0")
    })
    .await;
    let strict = query_offset("NEW", "T").with_field("setZeroIfNotFound", false);
    assert_eq!(call(&client, strict).await.code, response::QUERY_NOT_FOUND);
    assert_eq!(call(&client, update_offset("G", "T", 2)).await.code, response::SUCCESS);
    until("the queue", async || {
        let max = Command { code: request::GET_MAX_OFFSET, ..query_offset("G", "T") };
        call(&client, max).await.fields.get("offset") == Some("3")
    })
    .await;
    let stands = async |client: &Client, group| {
        call(client, query_offset(group, "T")).await.fields.get("offset").map(str::to_owned)
    };
    for (told, kept) in [(1, "1"), (-1, "1"), (i64::MIN, "1"), (1_000, "3"), (2, "2"), (i64::MAX, "3")] {
        assert_eq!(call(&client, update_offset("FAR", "T", told)).await.code, response::SUCCESS);
        assert_eq!(stands(&client, "FAR").await.as_deref(), Some(kept), "told {told}");
    }
    let first = query_offset("FIRST", "T").with_field("setZeroIfNotFound", false);
    assert_eq!(call(&client, update_offset("FIRST", "T", -1)).await.code, response::SUCCESS);
    assert_eq!(call(&client, first).await.code, response::QUERY_NOT_FOUND, "-1 is no offset");
    broker.restart().await;
    let client = broker.client().await;
    assert_eq!(call(&client, query_offset("G", "T")).await.fields.get("offset"), Some("2"));
    assert_eq!(call(&client, query_offset("FAR", "T")).await.fields.get("offset"), Some("3"));
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_torn_config_file_is_kept_aside_and_the_one_before_counts() {
    let mut broker = Fixture::start(|_| {}).await;
    let client = broker.client().await;
    call(&client, create_topic("FIRST", 1)).await;
    call(&client, create_topic("SECOND", 1)).await;
    broker
        .restart_after(|root| {
            let path = root.join("config/topics.json");
            let whole = std::fs::read(&path).unwrap();
            std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        })
        .await;
    let client = broker.client().await;
    assert_eq!(call(&client, topic_config("FIRST")).await.code, response::SUCCESS);
    assert!(broker.root().join("config/topics.json.damaged-1").exists());
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_of_a_group_are_told_when_another_comes_leaves_or_breaks_off() {
    let broker = Fixture::start(|_| {}).await;
    let (first, told) = listening_client(&broker).await;
    let (second, _) = listening_client(&broker).await;
    let (third, _) = listening_client(&broker).await;
    let notices = || told.0.lock().unwrap().len();
    assert_eq!(members(&first).await.code, response::SYSTEM_ERROR);
    let beat = call(&first, heart_beat("G", "c1", "T", "*", 1)).await;
    assert_eq!(beat.fields.get("IS_SUPPORT_HEART_BEAT_V2"), Some("true"));
    assert_eq!(call(&first, topic_config("%RETRY%G")).await.code, response::SUCCESS);
    until("its own coming", || async { notices() == 1 }).await;
    call(&first, heart_beat("G", "c1", "T", "*", 1)).await;
    call(&second, heart_beat("G", "c2", "T", "*", 1)).await;
    call(&third, heart_beat("G", "c3", "T", "*", 1)).await;
    until("two more", || async { notices() == 3 }).await;
    assert_eq!(text(&members(&first).await), r#"{"consumerIdList":["c1","c2","c3"]}"#);
    let leave = Command::request(request::UNREGISTER_CLIENT)
        .with_field("clientID", "c2")
        .with_field("consumerGroup", "G");
    assert_eq!(call(&second, leave).await.code, response::SUCCESS);
    until("one that left", || async { notices() == 4 }).await;
    third.connection().close();
    until("one that broke off", || async { notices() == 5 }).await;
    assert_eq!(text(&members(&first).await), r#"{"consumerIdList":["c1"]}"#);
    let is_notice = |command: &Command| {
        command.code == request::NOTIFY_CONSUMER_IDS_CHANGED
            && command.is_oneway()
            && command.fields.get("consumerGroup") == Some("G")
    };
    assert!(told.0.lock().unwrap().iter().all(is_notice));
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_falls_silent_is_forgotten() {
    let broker = Fixture::start(|config| config.client_expiry_ms = 1_000).await;
    let (client, _) = listening_client(&broker).await;
    call(&client, heart_beat("G", "c1", "T", "*", 1)).await;
    let end = Instant::now() + Duration::from_secs(30);
    while !client.is_closed() {
        assert!(Instant::now() < end, "still connected");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_for_a_client_is_passed_on_and_its_answer_back() {
    let broker = Fixture::start(|_| {}).await;
    let (consumer, told) = listening_client(&broker).await;
    call(&consumer, heart_beat("G", "c1", "T", "*", 1)).await;
    let operator = broker.client().await;
    let ask = |client: &str| {
        Command::request(request::GET_CONSUMER_RUNNING_INFO)
            .with_field("consumerGroup", "G")
            .with_field("clientId", client)
            .with_field("jstackEnable", false)
    };
    let answer = call(&operator, ask("c1")).await;
    assert_eq!((answer.code, text(&answer).as_str()), (response::SUCCESS, "from the client"));
    assert!(told.0.lock().unwrap().iter().any(|command| command.code == request::GET_CONSUMER_RUNNING_INFO));
    assert_eq!(call(&operator, ask("c2")).await.code, response::SYSTEM_ERROR);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consumers_are_asked_where_they_are_and_what_they_want() {
    let broker = Fixture::start(|_| {}).await;
    let (consumer, told) = listening_client(&broker).await;
    call(&consumer, heart_beat("G", "c1", "T", "a", 1)).await;
    let operator = broker.client().await;
    let ask = |code| Command::request(code).with_field("group", "G").with_field("topic", "T");
    let status = ask(request::INVOKE_BROKER_TO_GET_CONSUMER_STATUS);
    let answer = call(&operator, status.clone()).await;
    // What it says is no table.
    let none = r#"{"consumerTable":{"c1":{}},"messageQueueTable":{}}"#;
    assert_eq!((answer.code, text(&answer).as_str()), (response::SUCCESS, none));
    assert!(
        told.0.lock().unwrap().iter().any(|asked| asked.code == request::GET_CONSUMER_STATUS_FROM_CLIENT)
    );
    let other = call(&operator, status.clone().with_field("clientAddr", "c2")).await;
    assert_eq!(text(&other), r#"{"consumerTable":{},"messageQueueTable":{}}"#);
    let nobody = call(&operator, status.with_field("group", "H")).await;
    let why = "No Any Consumer online in the consumer group: [H]";
    assert_eq!((nobody.code, nobody.remark.as_deref()), (response::SYSTEM_ERROR, Some(why)));
    let wants = text(&call(&operator, ask(request::QUERY_SUBSCRIPTION_BY_CONSUMER)).await);
    assert!(wants.contains(r#""subString":"a""#), "{wants}");
    let none = ask(request::QUERY_SUBSCRIPTION_BY_CONSUMER).with_field("topic", "U");
    assert_eq!(text(&call(&operator, none).await), r#"{"group":"G","topic":"U"}"#);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_is_put_where_another_is() {
    let broker = Fixture::start(|_| {}).await;
    let client = broker.client().await;
    for topic in ["T", "U"] {
        call(&client, send(request::SEND_MESSAGE, topic, 0, b"x", "")).await;
        until("the queue", async || {
            let max = Command { code: request::GET_MAX_OFFSET, ..query_offset("G", topic) };
            call(&client, max).await.fields.get("offset") == Some("1")
        })
        .await;
        call(&client, update_offset("G", topic, 1)).await;
    }
    call(&client, heart_beat("G", "c1", "T", "*", 1)).await;
    let clone = |to: &str| {
        Command::request(request::CLONE_GROUP_OFFSET)
            .with_field("srcGroup", "G")
            .with_field("destGroup", to)
            .with_field("topic", "")
    };
    for (clone, of_u) in [
        (clone("ONLINE"), response::QUERY_NOT_FOUND),
        (clone("OFFLINE").with_field("offline", true), response::SUCCESS),
        (clone("ONE").with_field("topic", "U").with_field("offline", true), response::SUCCESS),
    ] {
        let to = clone.fields.get("destGroup").unwrap().to_owned();
        assert_eq!(call(&client, clone).await.code, response::SUCCESS);
        let strict = |topic| query_offset(&to, topic).with_field("setZeroIfNotFound", false);
        assert_eq!(call(&client, strict("U")).await.code, of_u, "{to}");
        let of_t = if to == "ONE" { response::QUERY_NOT_FOUND } else { response::SUCCESS };
        assert_eq!(call(&client, strict("T")).await.code, of_t, "{to}");
    }
    assert_eq!(call(&client, clone("a@b")).await.code, response::INVALID_PARAMETER);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_are_reset_to_a_time_and_the_next_pull_is_told() {
    let broker = Fixture::start(|_| {}).await;
    let client = broker.client().await;
    for n in 0..4 {
        call(&client, send(request::SEND_MESSAGE, "T", 0, &[n], "")).await;
    }
    until("the messages", || async {
        let max = Command { code: request::GET_MAX_OFFSET, ..query_offset("G", "T") };
        call(&client, max).await.fields.get("offset") == Some("4")
    })
    .await;
    call(&client, update_offset("G", "T", 4)).await;
    let reset = Command::request(request::INVOKE_BROKER_TO_RESET_OFFSET)
        .with_field("topic", "T")
        .with_field("group", "G")
        .with_field("timestamp", 0)
        .with_field("isForce", true)
        .with_field("queueId", -1)
        .with_field("offset", -1);
    let table = text(&call(&client, reset).await);
    assert!(table.contains(r#"{"brokerName":"broker-a","queueId":0,"topic":"T"}:0"#), "{table}");
    // What the consumer had on its way to the broker does not undo the reset.
    assert_eq!(call(&client, update_offset("G", "T", 4)).await.code, response::SUCCESS);
    let pull = call(&client, Pull::new("G", "T", 0, 4).command()).await;
    assert_eq!((pull.code, pull.fields.get("nextBeginOffset")), (response::PULL_OFFSET_MOVED, Some("0")));
    assert_eq!(call(&client, Pull::new("G", "T", 0, 0).command()).await.code, response::SUCCESS);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_queue_is_reset_to_an_offset_while_its_consumer_pulls() {
    let broker = Fixture::start(|_| {}).await;
    let client = broker.client().await;
    for queue in [0, 1] {
        for n in 0..4 {
            call(&client, send(request::SEND_MESSAGE, "T", queue, &[n], "")).await;
        }
    }
    for queue in [0, 1] {
        until("the messages", || async {
            let max = Command { code: request::GET_MAX_OFFSET, ..query_offset("G", "T") };
            call(&client, max.with_field("queueId", queue)).await.fields.get("offset") == Some("4")
        })
        .await;
        call(&client, update_offset("G", "T", 4).with_field("queueId", queue)).await;
    }
    let waiting = client.connection().call(Pull::new("G", "T", 0, 4).suspend(60_000).command(), WAIT);
    let reset = |queue: i32, offset: i64| {
        Command::request(request::INVOKE_BROKER_TO_RESET_OFFSET)
            .with_field("topic", "T")
            .with_field("group", "G")
            .with_field("timestamp", -1)
            .with_field("isForce", true)
            .with_field("queueId", queue)
            .with_field("offset", offset)
    };
    for (queue, offset, code) in
        [(0, 5, response::SYSTEM_ERROR), (9, 0, response::INVALID_PARAMETER), (0, 2, response::SUCCESS)]
    {
        assert_eq!(call(&client, reset(queue, offset)).await.code, code, "{queue} {offset}");
    }
    // The pull that waits learns it, and what the consumer still reports does not undo it.
    let told = waiting.await.unwrap();
    assert_eq!((told.code, told.fields.get("nextBeginOffset")), (response::PULL_OFFSET_MOVED, Some("2")));
    let got = call(&client, Pull::new("G", "T", 0, 2).command()).await;
    assert_eq!((got.code, records(&got)[0].body.as_slice()), (response::SUCCESS, &[2][..]));
    let offset = call(&client, query_offset("G", "T")).await;
    assert_eq!(offset.fields.get("offset"), Some("2"));
    // The other queue stays where it was.
    let other = call(&client, query_offset("G", "T").with_field("queueId", 1)).await;
    assert_eq!(other.fields.get("offset"), Some("4"));
    assert_eq!(call(&client, Pull::new("G", "T", 1, 4).command()).await.code, response::PULL_NOT_FOUND);
    broker.stop().await;
}

/// Those consumers keep their offsets themselves, so the broker has none to tell, but it knows who they are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statistics_of_a_group_that_consumes_by_broadcast_have_its_members_and_no_offsets() {
    let broker = Fixture::start(|_| {}).await;
    let client = broker.client().await;
    for n in 0..3 {
        call(&client, send(request::SEND_MESSAGE, "T", 0, &[n], "")).await;
    }
    let mut beat = heart_beat("G", "c1", "T", "*", 1);
    let body = String::from_utf8(beat.body.to_bytes().to_vec()).unwrap();
    beat.body = bytes::Bytes::from(body.replace("CLUSTERING", "BROADCASTING")).into();
    assert_eq!(call(&client, beat).await.code, response::SUCCESS);
    until("the messages", || async {
        let pulled = call(&client, Pull::new("G", "T", 0, 0).by_heart_beat(1).command()).await;
        records(&pulled).len() == 3
    })
    .await;
    let members = Command::request(request::GET_CONSUMER_CONNECTION_LIST).with_field("consumerGroup", "G");
    let members = text(&call(&client, members).await);
    assert!(members.contains(r#""messageModel":"BROADCASTING""#) && members.contains("c1"), "{members}");
    let strict = query_offset("G", "T").with_field("setZeroIfNotFound", false);
    assert_eq!(call(&client, strict).await.code, response::QUERY_NOT_FOUND);
    let stats = Command::request(request::GET_CONSUME_STATS).with_field("consumerGroup", "G");
    let stats = text(&call(&client, stats).await);
    // As in RocketMQ, whose tools tell by it that a group consumes by broadcast.
    assert_eq!(stats, r#"{"consumeTps":0.0,"offsetTable":{}}"#);
    let who = Command::request(request::QUERY_TOPIC_CONSUME_BY_WHO).with_field("topic", "T");
    assert_eq!(text(&call(&client, who).await), r#"{"groupList":["G"]}"#);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statistics_say_where_topics_and_groups_are() {
    let broker = Fixture::start(|_| {}).await;
    let client = broker.client().await;
    for n in 0..3 {
        call(&client, send(request::SEND_MESSAGE, "T", 0, &[n], "")).await;
    }
    call(&client, update_offset("G", "T", 2)).await;
    let stats = || Command::request(request::GET_TOPIC_STATS_INFO).with_field("topic", "T");
    until("the queue", || async { text(&call(&client, stats()).await).contains("\"maxOffset\":3") }).await;
    let group = Command::request(request::GET_CONSUME_STATS).with_field("consumerGroup", "G");
    let group = text(&call(&client, group).await);
    assert!(group.contains("\"brokerOffset\":3,\"consumerOffset\":2"), "{group}");
    let who = Command::request(request::QUERY_TOPIC_CONSUME_BY_WHO).with_field("topic", "T");
    assert_eq!(text(&call(&client, who).await), r#"{"groupList":["G"]}"#);
    let view = |name: &str, key: &str| {
        Command::request(request::VIEW_BROKER_STATS_DATA)
            .with_field("statsName", name.to_owned())
            .with_field("statsKey", key.to_owned())
    };
    // The next sample is due within ten seconds.
    let sampled = Instant::now() + WAIT * 3;
    for (name, key, sum) in
        [("TOPIC_PUT_NUMS", "T", 3), ("GROUP_GET_NUMS", "T@G", 2), ("BROKER_PUT_NUMS", "DefaultCluster", 3)]
    {
        loop {
            let answer = call(&client, view(name, key)).await;
            let day = format!(r#"{{"statsDay":{{"avgpt":0.0,"sum":{sum},"#);
            if answer.code == response::SUCCESS && text(&answer).starts_with(&day) {
                break;
            }
            assert!(Instant::now() < sampled, "{}", text(&answer));
            let why = format!("The stats <{name}> <{key}> not exist");
            assert!(answer.code == response::SUCCESS || answer.remark == Some(why));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    for (name, key) in [("TOPIC_PUT_NUMS", "T@G"), ("GROUP_GET_NUMS", "@put"), ("BROKER_PUT_NUMS", "@put")] {
        assert_eq!(call(&client, view(name, key)).await.code, response::SYSTEM_ERROR, "{name} {key}");
    }
    let runtime = text(&call(&client, Command::request(request::GET_BROKER_RUNTIME_INFO)).await);
    assert!(runtime.contains("\"msgPutTotalTodayNow\":\"3\""), "{runtime}");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_named_settings_change_at_run_time() {
    let broker = Fixture::start(|_| {}).await;
    let client = broker.client().await;
    let update = |text: &str| Command::request(request::UPDATE_BROKER_CONFIG).with_body(text.to_owned());
    assert_eq!(call(&client, update("storePathRootDir=/elsewhere\n")).await.code, response::NO_PERMISSION);
    assert_eq!(call(&client, update("brokerPermission=9\n")).await.code, response::INVALID_PARAMETER);
    assert_eq!(call(&client, update("autoCreateTopicEnable=false\n")).await.code, response::SUCCESS);
    let config = text(&call(&client, Command::request(request::GET_BROKER_CONFIG)).await);
    assert!(
        config.contains("autoCreateTopicEnable=false\n") && config.contains("brokerPermission=6\n"),
        "{config}"
    );
    let sent = call(&client, send(request::SEND_MESSAGE, "NEW", 0, b"x", "")).await;
    assert_eq!(sent.code, response::TOPIC_NOT_EXIST);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_read_ahead_of_the_log_is_switched_by_its_two_modes_and_no_other() {
    let broker = Fixture::start(|_| {}).await;
    let client = broker.client().await;
    let switch =
        |mode: &str| Command::request(request::SET_COMMITLOG_READ_MODE).with_field("READ_AHEAD_MODE", mode);
    for (mode, code) in [
        ("0", response::SUCCESS),
        ("1", response::SUCCESS),
        ("2", response::INVALID_PARAMETER),
        ("ahead", response::SYSTEM_ERROR),
    ] {
        assert_eq!(call(&client, switch(mode)).await.code, code, "{mode}");
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_whose_second_port_is_taken_is_never_there_for_clients() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = BrokerConfig::new(Config::new(dir.path()).commit_log_file_size(16u64 << 20));
    config.port = free_port();
    let taken = TcpListener::bind((config.bind, config.port - 2)).unwrap();
    let (at, ended) = (SocketAddr::new(config.bind, config.port), Arc::new(AtomicBool::new(false)));
    let clients = std::thread::spawn({
        let ended = Arc::clone(&ended);
        move || {
            let mut came_in = 0;
            while !ended.load(Ordering::SeqCst) {
                came_in += i32::from(TcpStream::connect(at).is_ok());
            }
            came_in
        }
    });
    for _ in 0..10 {
        let refused = Running::start(config.clone()).await.unwrap_err();
        assert!(refused.to_string().contains(&taken.local_addr().unwrap().to_string()), "{refused}");
    }
    ended.store(true, Ordering::SeqCst);
    assert_eq!(clients.join().unwrap(), 0, "a client would have sent something to it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_ports_serve_and_an_unknown_code_is_refused() {
    let broker = Fixture::start(|_| {}).await;
    let at = broker.address();
    let client = Client::connect(SocketAddr::new(at.ip(), at.port() - 2)).await.unwrap();
    assert_eq!(call(&client, create_topic("T", 1)).await.code, response::SUCCESS);
    let unknown = call(&client, Command::request(31_415)).await;
    assert_eq!(unknown.code, response::REQUEST_CODE_NOT_SUPPORTED);
    assert!(unknown.remark.unwrap().contains("31415"));
    broker.stop().await;
}
