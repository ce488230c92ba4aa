//! What operators see of groups and change of a broker while it runs, over loopback.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]
#![cfg(feature = "broker")]

mod loopback;

use std::time::{Duration, Instant};

use loopback::{Fixture, Pull, heart_beat, send};
use reput::remoting::{
    Client, Command,
    codes::{request, response},
};
use serde_json::Value;

const WAIT: Duration = Duration::from_secs(10);

async fn call(client: &Client, command: Command) -> Command {
    client.call(command, WAIT).await.unwrap()
}

async fn succeeds(client: &Client, command: Command) -> Command {
    let answer = call(client, command).await;
    assert_eq!(answer.code, response::SUCCESS, "{:?}", answer.remark);
    answer
}

fn text(command: &Command) -> String {
    String::from_utf8(command.body.to_bytes().to_vec()).unwrap()
}

fn create_topic(name: &str, order: bool) -> Command {
    Command::request(request::UPDATE_AND_CREATE_TOPIC)
        .with_field("topic", name)
        .with_field("defaultTopic", "TBW102")
        .with_field("readQueueNums", 1)
        .with_field("writeQueueNums", 1)
        .with_field("perm", 6)
        .with_field("topicFilterType", "SINGLE_TAG")
        .with_field("topicSysFlag", 0)
        .with_field("order", order)
        .with_field("attributes", "")
}

fn commit(group: &str, topic: &str, offset: i64) -> Command {
    Command::request(request::UPDATE_CONSUMER_OFFSET)
        .with_field("consumerGroup", group)
        .with_field("topic", topic)
        .with_field("queueId", 0)
        .with_field("commitOffset", offset)
}

/// Sends messages to the only queue of a topic and waits until it has them.
async fn fill(client: &Client, topic: &str, count: u8) {
    for n in 0..count {
        succeeds(client, send(request::SEND_MESSAGE, topic, 0, &[n], "")).await;
    }
    has(client, topic, count).await;
}

/// Waits until the only queue of a topic has `count` messages.
async fn has(client: &Client, topic: &str, count: u8) {
    let end = Instant::now() + WAIT;
    loop {
        let max =
            Command::request(request::GET_MAX_OFFSET).with_field("topic", topic).with_field("queueId", 0);
        if call(client, max).await.fields.parse::<u8>("offset").unwrap() >= count {
            return;
        }
        assert!(Instant::now() < end, "the queue of {topic}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn stats(group: &str) -> Command {
    Command::request(request::GET_CONSUME_STATS).with_field("consumerGroup", group)
}

/// Topic, consumer's and pulled offset of each queue in an `offsetTable`, whose keys are objects.
fn figures(table: &str) -> Vec<(String, i64, i64)> {
    let number = |text: &str, key: &str| -> i64 {
        let at = text.find(key).unwrap() + key.len();
        let end = text[at..].find(|c: char| !c.is_ascii_digit() && c != '-').unwrap();
        text[at..at + end].parse().unwrap()
    };
    let mut figures = Vec::new();
    for part in table.split("\"topic\":\"").skip(1) {
        let topic = part[..part.find('"').unwrap()].to_owned();
        figures.push((topic, number(part, "\"consumerOffset\":"), number(part, "\"pullOffset\":")));
    }
    figures.sort();
    figures
}

async fn figures_of(client: &Client, command: Command) -> Vec<(String, i64, i64)> {
    figures(&text(&succeeds(client, command).await))
}

fn row(topic: &str, consumed: i64, pulled: i64) -> (String, i64, i64) {
    (topic.to_owned(), consumed, pulled)
}

async fn all_stats(client: &Client, ordered: bool) -> (Value, Vec<(String, i64, i64)>) {
    let all = Command::request(request::GET_BROKER_CONSUME_STATS).with_field("isOrder", ordered);
    let text = text(&succeeds(client, all).await);
    let rows = figures(&text);
    // The keys of `offsetTable` are no JSON; what stands behind the list is.
    let rest = text[text.rfind("\"totalDiff\"").unwrap()..].to_owned();
    (serde_json::from_str(&format!("{{{rest}")).unwrap(), rows)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_has_consumed_more_than_was_pulled() {
    let broker = Fixture::start(|_| {}).await;
    let client = broker.client().await;
    succeeds(&client, create_topic("T", false)).await;
    fill(&client, "T", 4).await;
    // As a group that pops: it commits, and never pulls.
    succeeds(&client, commit("POPS", "T", 3)).await;
    assert_eq!(figures_of(&client, stats("POPS")).await, [row("T", 3, 3)]);
    let clone = Command::request(request::CLONE_GROUP_OFFSET)
        .with_field("srcGroup", "POPS")
        .with_field("destGroup", "CLONED")
        .with_field("topic", "T");
    succeeds(&client, clone).await;
    assert_eq!(figures_of(&client, stats("CLONED")).await, [row("T", 3, 3)]);
    // One that pulled two messages and consumed one, then was moved to the end.
    succeeds(&client, Pull::new("PULLS", "T", 0, 0).max(2).command()).await;
    succeeds(&client, commit("PULLS", "T", 1)).await;
    assert_eq!(figures_of(&client, stats("PULLS")).await, [row("T", 1, 2)]);
    let to_the_end = Command::request(request::INVOKE_BROKER_TO_RESET_OFFSET)
        .with_field("topic", "T")
        .with_field("group", "PULLS")
        .with_field("timestamp", -1)
        .with_field("isForce", true);
    succeeds(&client, to_the_end).await;
    assert_eq!(figures_of(&client, stats("PULLS")).await, [row("T", 4, 4)]);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_committed_nothing_has_no_figures() {
    let broker = Fixture::start(|_| {}).await;
    let client = broker.client().await;
    for topic in ["T", "LEFT"] {
        succeeds(&client, create_topic(topic, false)).await;
        fill(&client, topic, 2).await;
    }
    // As one that consumes by broadcast.
    succeeds(&client, heart_beat("BROADCAST", "c1", "T", "*", 1)).await;
    succeeds(&client, heart_beat("G", "c2", "T", "*", 1)).await;
    for topic in ["T", "LEFT"] {
        succeeds(&client, commit("G", topic, 1)).await;
    }
    assert_eq!(figures_of(&client, stats("BROADCAST")).await, []);
    // Asked for a topic, the figures are those of one that stands at the beginning.
    assert_eq!(figures_of(&client, stats("BROADCAST").with_field("topic", "T")).await, [row("T", 0, 0)]);
    // The group has members, and none of them subscribes to the other topic.
    assert_eq!(figures_of(&client, stats("G")).await, [row("T", 1, 1)]);
    assert_eq!(figures_of(&client, stats("G").with_field("topic", "LEFT")).await, []);
    let listed = stats("G").with_field("topic", "T").with_field("topicList", "LEFT;NEVER;");
    assert_eq!(figures_of(&client, listed).await, [row("LEFT", 1, 1)]);
    let (sums, rows) = all_stats(&client, false).await;
    assert_eq!(rows, [row("T", 1, 1)]);
    assert_eq!((&sums["totalDiff"], &sums["totalInflightDiff"]), (&Value::from(1), &Value::from(0)));
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_figures_of_all_groups_can_be_those_of_ordered_topics_alone() {
    let broker = Fixture::start(|_| {}).await;
    let client = broker.client().await;
    for (topic, order) in [("T", false), ("O", true)] {
        succeeds(&client, create_topic(topic, order)).await;
        fill(&client, topic, 3).await;
        succeeds(&client, commit("G", topic, 1)).await;
    }
    let (sums, rows) = all_stats(&client, false).await;
    assert_eq!((rows, &sums["totalDiff"]), (vec![row("O", 1, 1), row("T", 1, 1)], &Value::from(4)));
    let (sums, rows) = all_stats(&client, true).await;
    assert_eq!((rows, &sums["totalDiff"]), (vec![row("O", 1, 1)], &Value::from(2)));
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_least_offsets_of_all_groups_are_told_against_those_of_one() {
    let broker = Fixture::start(|_| {}).await;
    let client = broker.client().await;
    succeeds(&client, create_topic("T", false)).await;
    fill(&client, "T", 4).await;
    for (group, offset) in [("FIRST", 1), ("SECOND", 3)] {
        succeeds(&client, commit(group, "T", offset)).await;
    }
    let ask = |compared: &str, left_out: &str| {
        Command::request(request::QUERY_CORRECTION_OFFSET)
            .with_field("topic", "T")
            .with_field("compareGroup", compared)
            .with_field("filterGroups", left_out)
    };
    for (compared, left_out, least) in [
        ("NOBODY", "", "{0:1}"),
        ("SECOND", "", "{0:1}"),
        ("FIRST", "FIRST", "{0:9223372036854775807}"),
        ("NOBODY", "FIRST", "{0:3}"),
        ("NOBODY", "FIRST,SECOND", "{}"),
    ] {
        let answer = succeeds(&client, ask(compared, left_out)).await;
        assert_eq!(text(&answer), format!(r#"{{"correctionOffsets":{least}}}"#), "{compared} {left_out}");
    }
    // Leaving a group out of the question takes nothing from it.
    assert_eq!(figures_of(&client, stats("FIRST")).await, [row("T", 1, 1)]);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_to_run_empty_refuses_sends_to_ordered_topics_alone() {
    let broker = Fixture::start(|_| {}).await;
    let client = broker.client().await;
    for (topic, order) in [("T", false), ("O", true)] {
        succeeds(&client, create_topic(topic, order)).await;
    }
    let update = |text: &str| Command::request(request::UPDATE_BROKER_CONFIG).with_body(text.to_owned());
    let to = |topic| send(request::SEND_MESSAGE_V2, topic, 0, b"x", "");
    succeeds(&client, update("brokerPermission=4")).await;
    succeeds(&client, to("T")).await;
    succeeds(&client, to("MADE")).await;
    let refused = call(&client, to("O")).await;
    let why = "the broker[127.0.0.1] sending message is forbidden";
    assert_eq!((refused.code, refused.remark.as_deref()), (response::NO_PERMISSION, Some(why)));
    succeeds(&client, update("brokerPermission=6")).await;
    succeeds(&client, to("O")).await;
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_may_be_forbidden_to_read_one_topic_over_restarts() {
    let mut broker = Fixture::start(|_| {}).await;
    let client = broker.client().await;
    let forbid = |readable: Option<bool>| {
        let ask = Command::request(request::UPDATE_AND_GET_GROUP_FORBIDDEN)
            .with_field("group", "G")
            .with_field("topic", "T");
        match readable {
            Some(readable) => ask.with_field("readable", readable),
            None => ask,
        }
    };
    for topic in ["T", "U"] {
        succeeds(&client, create_topic(topic, false)).await;
        fill(&client, topic, 1).await;
    }
    let body = |readable| format!(r#"{{"group":"G","readable":{readable},"topic":"T"}}"#);
    assert_eq!(text(&succeeds(&client, forbid(None)).await), body(true));
    assert_eq!(text(&succeeds(&client, forbid(Some(false))).await), body(false));
    broker.restart().await;
    let client = broker.client().await;
    assert_eq!(text(&succeeds(&client, forbid(None)).await), body(false));
    let subscribe = |topic| heart_beat("G", "c1", topic, "*", 1);
    let pull = |topic| Pull::new("G", topic, 0, 0).by_heart_beat(1).command();
    succeeds(&client, subscribe("T")).await;
    let refused = call(&client, pull("T")).await;
    let why = "the consumer group[G] is forbidden for topic[T]";
    assert_eq!((refused.code, refused.remark.as_deref()), (response::NO_PERMISSION, Some(why)));
    assert_eq!(refused.fields.get("forbiddenType"), Some("5"));
    // It is the group's subscription that is forbidden: who says with the pull what is wanted has none.
    succeeds(&client, Pull::new("G", "T", 0, 0).command()).await;
    succeeds(&client, heart_beat("H", "c2", "T", "*", 1)).await;
    succeeds(&client, Pull::new("H", "T", 0, 0).by_heart_beat(1).command()).await;
    assert_eq!(text(&succeeds(&client, forbid(Some(true))).await), body(true));
    succeeds(&client, pull("T")).await;
    succeeds(&client, heart_beat("G", "c1", "U", "*", 2)).await;
    succeeds(&client, Pull::new("G", "U", 0, 0).by_heart_beat(2).command()).await;
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_setting_holds_at_once_and_stands_in_the_file_for_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("broker.conf");
    let before = "# mine\nbrokerName=broker-a\nmaxMessageSize=4194304\nstrange=kept\n";
    std::fs::write(&file, before).unwrap();
    let broker = Fixture::start(|config| config.file = Some(file.clone())).await;
    let client = broker.client().await;
    let update = |text: &str| Command::request(request::UPDATE_BROKER_CONFIG).with_body(text.to_owned());
    let sized = |bytes: usize| send(request::SEND_MESSAGE_V2, "T", 0, &vec![b'x'; bytes], "");
    let half = || send(request::SEND_MESSAGE_V2, "T", 0, b"x", "TRAN_MSG\u{1}true\u{2}PGROUP\u{1}P\u{2}");
    succeeds(&client, sized(1_000)).await;
    succeeds(&client, half()).await;
    let changes = "maxMessageSize=100\nrejectTransactionMessage=true\nfileReservedTime=48\ndeleteWhen=05;17\n\
        diskMaxUsedSpaceRatio=60\ndefaultTopicQueueNums=3\nlongPollingEnable=false\nshortPollingTimeMills=0\n";
    let kept = succeeds(&client, update(changes)).await;
    assert_eq!(kept.remark, None);
    assert_eq!(call(&client, sized(101)).await.code, response::MESSAGE_ILLEGAL);
    succeeds(&client, sized(100)).await;
    assert_eq!(call(&client, half()).await.code, response::NO_PERMISSION);
    let topic = Command::request(request::GET_TOPIC_CONFIG).with_field("topic", "TBW102");
    assert!(text(&succeeds(&client, topic).await).contains("\"writeQueueNums\":3"));
    // Would be held for the whole ten minutes with long polling.
    let idle = Pull::new("G", "T", 1, 0).suspend(600_000).command();
    assert_eq!(call(&client, idle).await.code, response::PULL_NOT_FOUND);
    let shown = text(&succeeds(&client, Command::request(request::GET_BROKER_CONFIG)).await);
    for line in changes.lines() {
        assert!(shown.lines().any(|other| other == line), "{line} in {shown}");
    }
    // More than what it was started with, too.
    succeeds(&client, update("maxMessageSize=5000000")).await;
    succeeds(&client, sized(4_500_000)).await;
    let written = std::fs::read_to_string(&file).unwrap();
    let want = "# mine\nbrokerName=broker-a\nmaxMessageSize=5000000\nstrange=kept\nrejectTransactionMessage=true\n\
        fileReservedTime=48\ndeleteWhen=05;17\ndiskMaxUsedSpaceRatio=60\ndefaultTopicQueueNums=3\n\
        longPollingEnable=false\nshortPollingTimeMills=0\n";
    assert_eq!(written, want);
    let bak = std::fs::read_to_string(dir.path().join("broker.conf.bak")).unwrap();
    assert_eq!(bak, want.replace("5000000", "100"));
    // What is refused changes neither the broker nor the file.
    for bad in ["traceOn=false\nlistenPort=1", "traceOn=false\ndeleteWhen=25"] {
        assert_ne!(call(&client, update(bad)).await.code, response::SUCCESS, "{bad}");
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), want);
    let shown = text(&succeeds(&client, Command::request(request::GET_BROKER_CONFIG)).await);
    assert!(shown.contains("traceOn=true\n"), "{shown}");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_file_of_settings_a_change_holds_until_the_next_start_and_says_so() {
    let broker = Fixture::start(|_| {}).await;
    let client = broker.client().await;
    let update = Command::request(request::UPDATE_BROKER_CONFIG).with_body(String::from("traceOn=false"));
    let remark = succeeds(&client, update).await.remark.unwrap();
    assert!(remark.contains("until the next start") && remark.contains("without a file"), "{remark}");
    broker.stop().await;
}

/// What RocketMQ's broker tells and its tools and exporters read.
const FIGURES: [&str; 54] = [
    "EndTransactionQueueSize",
    "EndTransactionThreadPoolQueueCapacity",
    "ackThreadPoolQueueCapacity",
    "ackThreadPoolQueueHeadWaitTimeMills",
    "ackThreadPoolQueueSize",
    "bootTimestamp",
    "brokerActive",
    "brokerVersion",
    "brokerVersionDesc",
    "commitLogDirCapacity",
    "commitLogDiskRatio",
    "commitLogMaxOffset",
    "commitLogMinOffset",
    "consumeQueueDiskRatio",
    "dispatchBehindBytes",
    "earliestMessageTimeStamp",
    "getFoundTps",
    "getMissTps",
    "getTotalTps",
    "getTransferredTps",
    "litePullThreadPoolQueueCapacity",
    "litePullThreadPoolQueueHeadWaitTimeMills",
    "litePullThreadPoolQueueSize",
    "msgGetTotalTodayMorning",
    "msgGetTotalTodayNow",
    "msgGetTotalYesterdayMorning",
    "msgPutTotalTodayMorning",
    "msgPutTotalTodayNow",
    "msgPutTotalYesterdayMorning",
    "pageCacheLockTimeMills",
    "pullThreadPoolQueueCapacity",
    "pullThreadPoolQueueHeadWaitTimeMills",
    "pullThreadPoolQueueSize",
    "putMessageAverageSize",
    "putMessageDistributeTime",
    "putMessageEntireTimeMax",
    "putMessageFailedTimes",
    "putMessageSizeTotal",
    "putMessageTimesTotal",
    "putTps",
    "queryThreadPoolQueueCapacity",
    "queryThreadPoolQueueHeadWaitTimeMills",
    "queryThreadPoolQueueSize",
    "remainHowManyDataToFlush",
    "remainTransientStoreBufferNumbs",
    "runtime",
    "sendThreadPoolQueueCapacity",
    "sendThreadPoolQueueHeadWaitTimeMills",
    "sendThreadPoolQueueSize",
    "startAcceptSendRequestTimeStamp",
    "timerCongestNum",
    "timerDequeueTps",
    "timerEnqueueTps",
    "timerReadBehind",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_tells_the_figures_that_rocketmq_s_tells() {
    for wheel in [true, false] {
        let broker = Fixture::start(|config| config.timer_wheel = wheel).await;
        let client = broker.client().await;
        succeeds(&client, create_topic("T", false)).await;
        fill(&client, "T", 2).await;
        let delayed = send(request::SEND_MESSAGE, "T", 0, b"later", "DELAY\u{1}18\u{2}");
        succeeds(&client, delayed).await;
        let end = Instant::now() + WAIT;
        loop {
            let table = succeeds(&client, Command::request(request::GET_BROKER_RUNTIME_INFO)).await;
            let table: Value = serde_json::from_str(&text(&table)).unwrap();
            let table = table["table"].as_object().unwrap();
            let missing: Vec<_> = FIGURES.iter().filter(|name| !table.contains_key(**name)).collect();
            assert!(missing.is_empty(), "{missing:?}");
            let of = |name: &str| table[name].as_str().unwrap();
            let size: f64 = of("putMessageSizeTotal").parse().unwrap();
            assert_eq!(of("putMessageTimesTotal"), "3");
            assert_eq!(of("putMessageAverageSize").parse::<f64>().unwrap(), size / 3.0);
            assert_eq!(of("sendThreadPoolQueueCapacity"), "10000");
            assert!(of("commitLogDirCapacity").starts_with("Total : "), "{}", of("commitLogDirCapacity"));
            assert_eq!(
                of("putMessageDistributeTime").split(' ').filter(|class| class.contains(':')).count(),
                13
            );
            assert_eq!(of("scheduleMessageOffset_1"), "0,0");
            if of("scheduleMessageOffset_18") == "0,1" {
                break;
            }
            assert!(Instant::now() < end, "{}", of("scheduleMessageOffset_18"));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        broker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_entries_of_a_queue_are_shown_with_what_a_group_makes_of_them() {
    let broker = Fixture::start(|config| {
        config.property_filter = true;
        config.filter_bitmaps = true;
        config.store.consume_queue_ext = true;
    })
    .await;
    let client = broker.client().await;
    succeeds(&client, create_topic("T", false)).await;
    let beat = r#"{"clientID":"c1","consumerDataSet":[{"consumeFromWhere":"CONSUME_FROM_FIRST_OFFSET",
        "consumeType":"CONSUME_PASSIVELY","groupName":"G","messageModel":"CLUSTERING","subscriptionDataSet":[
        {"classFilterMode":false,"codeSet":[],"expressionType":"SQL92","subString":"a = 1","subVersion":1,"tagsSet":[],
        "topic":"T"}],"unitMode":false}],"heartbeatFingerprint":0,"producerDataSet":[],"withoutSub":false}"#;
    succeeds(&client, Command::request(request::HEART_BEAT).with_body(beat.to_owned())).await;
    // A filter counts for what comes after it.
    tokio::time::sleep(Duration::from_millis(5)).await;
    for (n, a) in [1, 2].into_iter().enumerate() {
        let properties = format!("a\u{1}{a}\u{2}");
        succeeds(&client, send(request::SEND_MESSAGE, "T", 0, &[u8::try_from(n).unwrap()], &properties))
            .await;
    }
    has(&client, "T", 2).await;
    let ask = |group: &str, index: i64| {
        Command::request(request::QUERY_CONSUME_QUEUE)
            .with_field("topic", "T")
            .with_field("queueId", 0)
            .with_field("index", index)
            .with_field("count", 2)
            .with_field("consumerGroup", group)
    };
    let shown: Value = serde_json::from_str(&text(&succeeds(&client, ask("G", 0)).await)).unwrap();
    assert_eq!(shown["subscriptionData"]["subString"], "a = 1");
    assert!(shown["filterData"].as_str().unwrap().contains("\"expression\":\"a = 1\""), "{shown}");
    let entries = shown["queueData"].as_array().unwrap();
    let passes: Vec<_> = entries.iter().map(|entry| entry["eval"].as_bool().unwrap()).collect();
    assert_eq!(passes, [true, false], "{shown}");
    for entry in entries {
        assert!(entry["extendDataJson"].as_str().unwrap().contains("\"filterBitMap\":["), "{entry}");
        assert!(
            entry["bitMap"].as_str().unwrap().bytes().all(|b| matches!(b, b'0' | b'1' | b'\n')),
            "{entry}"
        );
    }
    let shown: Value = serde_json::from_str(&text(&succeeds(&client, ask("NOBODY", 1)).await)).unwrap();
    assert_eq!(shown["filterData"], "NOBODY@T is not online!");
    assert_eq!(shown["queueData"].as_array().unwrap().len(), 1);
    for beside in [-1, 99] {
        let answer = succeeds(&client, ask("", beside)).await;
        assert_eq!(answer.remark, Some(format!("Index {beside} of 0@T is not exist!")));
        let shown: Value = serde_json::from_str(&text(&answer)).unwrap();
        assert_eq!(shown["queueData"].as_array().unwrap().len(), 0);
    }
    broker.stop().await;
}
