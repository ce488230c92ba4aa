//! Messages through a broker in this process, over loopback, as clients send and fetch them: every request code that
//! carries messages, its answer, and its refusals.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]
#![cfg(feature = "broker")]

mod loopback;

use std::time::{Duration, Instant};

use bytes::Bytes;
use loopback::{Fixture, Pull, heart_beat, records, send, send_batch};
use reput::remoting::{
    Client, Command,
    codes::{request, response},
};

const WAIT: Duration = Duration::from_secs(10);

async fn call(client: &Client, command: Command) -> Command {
    client.call(command, WAIT).await.unwrap()
}

/// The records of a queue, waited for until there are `count`.
async fn pull_until(client: &Client, topic: &str, queue: i32, count: usize) -> Vec<loopback::Got> {
    let end = Instant::now() + WAIT;
    loop {
        let answer = call(client, Pull::new("G_READ", topic, queue, 0).command()).await;
        let got = records(&answer);
        if got.len() >= count || Instant::now() > end {
            assert_eq!(got.len(), count, "{answer:?}");
            return got;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_sent_by_either_code_comes_back_with_what_the_broker_added() {
    let broker = Fixture::start(|_| {}).await;
    let client = broker.client().await;
    let properties = "KEYS\x01k1\x02UNIQ_KEY\x01C0A801010001\x02TAGS\x01A\x02WAIT\x01true\x02POP_CK\x01x\x02\
                      __CRC32#\x010123456789\x02";
    for (n, code) in [request::SEND_MESSAGE, request::SEND_MESSAGE_V2].into_iter().enumerate() {
        let answer = call(&client, send(code, "T_SEND", 1, b"body", properties)).await;
        assert_eq!(answer.code, response::SUCCESS, "{answer:?}");
        let field = |name: &str| answer.fields.get(name).unwrap_or("").to_owned();
        assert_eq!(field("queueId"), "1");
        assert_eq!(field("queueOffset"), n.to_string());
        assert_eq!(field("transactionId"), "C0A801010001");
        assert_eq!((field("MSG_REGION"), field("TRACE_ON")), ("DefaultRegion".into(), "true".into()));
        assert_eq!(field("msgId").len(), 32);
    }
    let got = pull_until(&client, "T_SEND", 1, 2).await;
    for (n, record) in got.iter().enumerate() {
        assert_eq!((record.body.as_slice(), record.queue_offset, record.flag), (&b"body"[..], n as i64, 5));
        for (name, value) in [
            ("KEYS", "k1"),
            ("TAGS", "A"),
            ("UNIQ_KEY", "C0A801010001"),
            ("MSG_REGION", "DefaultRegion"),
            ("TRACE_ON", "true"),
            ("CLUSTER", "DefaultCluster"),
            ("WAIT", "true"),
        ] {
            assert_eq!(record.property(name), Some(value), "{name}");
        }
        assert_eq!(record.topic, "T_SEND");
        assert_eq!(
            (record.property("POP_CK"), record.property("__CRC32#")),
            (None, None),
            "not a client's to set"
        );
    }
    broker.stop().await;
}

/// Bodies are the clients' matter, by whichever of RocketMQ's three codecs; so are properties that the broker does not
/// act on, also those with names of RocketMQ's own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compressed_body_and_the_client_s_properties_come_back_to_the_byte() {
    let broker = Fixture::start(|_| {}).await;
    let client = broker.client().await;
    let names = [
        "BUYER_ID",
        "CONSUME_START_TIME",
        "CORRELATION_ID",
        "EXTEND_UNIQ_INFO",
        "INSTANCE_ID",
        "MAX_RECONSUME_TIMES",
        "MSG_TYPE",
        "ORIGIN_MESSAGE_ID",
        "PGROUP",
        "REPLY_TO_CLIENT",
        "TRANSFER_FLAG",
        "TTL",
        "UNIT",
        "__SHARDINGKEY",
        "mine",
    ];
    let properties: String = names.iter().map(|name| format!("{name}\x01of {name}\x02")).collect();
    let (compressed, lz4, zstd, zlib) = (1, 1 << 8, 2 << 8, 3 << 8);
    let body: Vec<u8> = (0..=255).cycle().take(3_000).collect();
    for codec in [lz4, zstd, zlib] {
        let put = send(request::SEND_MESSAGE_V2, "T_CODEC", 0, &body, &properties)
            .with_field("f", compressed | codec);
        assert_eq!(call(&client, put).await.code, response::SUCCESS);
    }
    let got = pull_until(&client, "T_CODEC", 0, 3).await;
    for (record, codec) in got.iter().zip([lz4, zstd, zlib]) {
        assert_eq!(record.sys_flag, compressed | codec);
        assert!(record.body == body, "the body changed");
        for name in names {
            assert_eq!(record.property(name), Some(&*format!("of {name}")), "{name}");
        }
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_stored_as_single_messages_with_their_own_properties() {
    let broker = Fixture::start(|_| {}).await;
    let client = broker.client().await;
    let parts: Vec<(Vec<u8>, String)> = (0..10)
        .map(|n| (format!("b{n}").into_bytes(), format!("TAGS\x01T{n}\x02UNIQ_KEY\x01U{n}\x02")))
        .collect();
    let answer = call(&client, send_batch("T_BATCH", 0, &parts, "UNIQ_KEY\x01UB\x02WAIT\x01true\x02")).await;
    assert_eq!(answer.code, response::SUCCESS, "{answer:?}");
    let ids: Vec<_> = answer.fields.get("msgId").unwrap().split(',').map(str::to_owned).collect();
    assert_eq!((ids.len(), answer.fields.get("queueOffset")), (10, Some("0")));
    assert_eq!(answer.fields.get("transactionId"), Some("UB"));
    let got = pull_until(&client, "T_BATCH", 0, 10).await;
    for (n, record) in got.iter().enumerate() {
        assert_eq!(record.body, parts[n].0);
        assert_eq!(record.property("UNIQ_KEY"), Some(format!("U{n}").as_str()));
        assert_eq!(record.message_id, ids[n]);
        assert_eq!(record.store_timestamp, got[0].store_timestamp);
    }
    let mut cut = send_batch("T_BATCH", 0, &parts, "");
    let body = cut.body.to_bytes();
    cut.body = body.slice(..body.len() - 1).into();
    assert_eq!(call(&client, cut).await.code, response::MESSAGE_ILLEGAL);
    let delayed = send_batch("T_BATCH", 0, &parts, "DELAY\x011\x02");
    assert_eq!(call(&client, delayed).await.code, response::MESSAGE_ILLEGAL);
    assert_eq!(pull_until(&client, "T_BATCH", 0, 10).await.len(), 10, "a refused batch leaves nothing");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_one_write_carries_are_all_answered_and_keep_their_order() {
    let broker = Fixture::start(|_| {}).await;
    let client = broker.client().await;
    let calls: Vec<_> = (0..300)
        .map(|n| {
            // Every tenth breaks a limit; its neighbours must not suffer from it.
            let topic = if n % 10 == 9 { "T_PIPE/" } else { "T_PIPE" };
            let body = format!("b{n}");
            let properties = format!("TAGS\x01A\x02N\x01{n}\x02");
            client
                .connection()
                .call(send(request::SEND_MESSAGE_V2, topic, 0, body.as_bytes(), &properties), WAIT)
        })
        .collect();
    let mut offsets = Vec::new();
    for (n, call) in calls.into_iter().enumerate() {
        let answer = call.await.unwrap();
        if n % 10 == 9 {
            assert_eq!(answer.code, response::INVALID_PARAMETER);
        } else {
            assert_eq!(answer.code, response::SUCCESS, "{answer:?}");
            offsets.push(answer.fields.parse::<i64>("queueOffset").unwrap());
        }
    }
    assert_eq!(offsets, (0..270).collect::<Vec<_>>());
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_one_way_send_is_stored_and_not_answered() {
    let broker = Fixture::start(|_| {}).await;
    let client = broker.client().await;
    for n in 0..5 {
        let body = format!("b{n}");
        assert!(client.oneway(send(request::SEND_MESSAGE_V2, "T_ONEWAY", 0, body.as_bytes(), "")));
    }
    let got = pull_until(&client, "T_ONEWAY", 0, 5).await;
    assert_eq!(
        got.iter().map(|r| r.body.clone()).collect::<Vec<_>>(),
        (0..5).map(|n| format!("b{n}").into_bytes()).collect::<Vec<_>>()
    );
    assert_eq!(
        got[0].property("UNIQ_KEY").map(str::len),
        Some(32),
        "made by the broker when the client sent none"
    );
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_refusal_of_a_send_has_rocketmq_s_code() {
    let broker = Fixture::start(|_| {}).await;
    let client = broker.client().await;
    let v2 = request::SEND_MESSAGE_V2;
    let plain = || send(v2, "T_REFUSE", 0, b"b", "");
    assert_eq!(call(&client, plain()).await.code, response::SUCCESS);
    let big = vec![7; (4 << 20) + 1];
    let long = format!("a\x01{}\x02", "x".repeat(40_000));
    let refused = [
        (
            "no such topic",
            send(v2, "T_NONE", 0, b"b", "").with_field("c", "T_NOT_DEFAULT"),
            response::TOPIC_NOT_EXIST,
        ),
        ("name", send(v2, "../T", 0, b"b", ""), response::INVALID_PARAMETER),
        ("queue", send(v2, "T_REFUSE", 99, b"b", ""), response::INVALID_PARAMETER),
        ("system topic", send(v2, "SCHEDULE_TOPIC_XXXX", 0, b"b", ""), response::NO_PERMISSION),
        ("too large", send(v2, "T_REFUSE", 0, &big, ""), response::MESSAGE_ILLEGAL),
        ("properties", send(v2, "T_REFUSE", 0, b"b", &long), response::MESSAGE_ILLEGAL),
        ("no body", send(v2, "T_REFUSE", 0, b"", ""), response::MESSAGE_ILLEGAL),
        ("time", send(v2, "T_REFUSE", 0, b"b", "TIMER_DELAY_SEC\x01soon\x02"), response::MESSAGE_ILLEGAL),
        ("inner batch", send(v2, "T_REFUSE", 0, b"b", "INNER_NUM\x012\x02"), response::MESSAGE_ILLEGAL),
        ("number", plain().with_field("e", "x"), response::SYSTEM_ERROR),
        (
            "retry batch",
            send_batch("%RETRY%G_X", 0, &[(b"b".to_vec(), String::new())], ""),
            response::MESSAGE_ILLEGAL,
        ),
    ];
    for (what, command, code) in refused {
        let answer = call(&client, command).await;
        assert_eq!(answer.code, code, "{what}: {answer:?}");
        assert!(answer.remark.is_some_and(|remark| !remark.is_empty()), "{what}");
        assert!(!answer.fields.get("MSG_REGION").unwrap_or("").is_empty(), "{what}");
    }
    assert_eq!(pull_until(&client, "T_REFUSE", 0, 1).await.len(), 1, "nothing refused was stored");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_priority_is_the_queue_of_a_message_that_is_nothing_else() {
    let broker = Fixture::start(|_| {}).await;
    let client = broker.client().await;
    let v2 = request::SEND_MESSAGE_V2;
    for (properties, queue, kept) in [
        ("_SYS_MSG_PRIORITY_\x012\x02", "2", true),
        ("_SYS_MSG_PRIORITY_\x0199\x02", "3", true),
        ("_SYS_MSG_PRIORITY_\x01x\x02", "1", true),
        ("_SYS_MSG_PRIORITY_\x012\x02__SHARDINGKEY\x01k\x02", "1", false),
    ] {
        let answer = call(&client, send(v2, "T_PRIORITY", 1, properties.as_bytes(), properties)).await;
        assert_eq!(answer.fields.get("queueId"), Some(queue), "{properties:?}");
        let offset = answer.fields.parse("queueOffset").unwrap();
        let pull = Pull::new("G_READ", "T_PRIORITY", queue.parse().unwrap(), offset).suspend(10_000);
        let got = records(&call(&client, pull.command()).await).remove(0);
        assert_eq!(got.body, properties.as_bytes());
        assert_eq!(got.property("_SYS_MSG_PRIORITY_").is_some(), kept, "{properties:?}");
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_below_zero_lets_the_broker_choose() {
    let broker = Fixture::start(|_| {}).await;
    let client = broker.client().await;
    let mut used = std::collections::BTreeSet::new();
    for _ in 0..16 {
        let answer = call(&client, send(request::SEND_MESSAGE_V2, "T_ANY", -1, b"b", "")).await;
        assert_eq!(answer.code, response::SUCCESS, "{answer:?}");
        used.insert(answer.fields.parse::<i32>("queueId").unwrap());
    }
    assert_eq!(used, (0..4).collect());
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_answer_of_a_pull_has_rocketmq_s_code() {
    let broker = Fixture::start(|_| {}).await;
    let client = broker.client().await;
    for n in 0..4 {
        let tags = format!("TAGS\x01T{}\x02", n % 2);
        call(&client, send(request::SEND_MESSAGE_V2, "T_PULL", 0, b"b", &tags)).await;
    }
    pull_until(&client, "T_PULL", 0, 4).await;
    let pull = |offset| Pull::new("G_PULL", "T_PULL", 0, offset);
    let cases = [
        ("found", pull(0).command(), response::SUCCESS, "FOUND", 4),
        ("tag", pull(0).subscription("T1").command(), response::SUCCESS, "FOUND", 4),
        (
            "no tag",
            pull(0).subscription("T7").command(),
            response::PULL_RETRY_IMMEDIATELY,
            "NO_MATCHED_MESSAGE",
            4,
        ),
        ("end", pull(4).command(), response::PULL_NOT_FOUND, "OFFSET_OVERFLOW_ONE", 4),
        ("beyond", pull(9).command(), response::PULL_OFFSET_MOVED, "OFFSET_OVERFLOW_BADLY", 4),
        ("before", pull(-1).command(), response::PULL_OFFSET_MOVED, "OFFSET_TOO_SMALL", 0),
        (
            "empty",
            Pull::new("G_PULL", "T_PULL", 1, 0).command(),
            response::PULL_NOT_FOUND,
            "NO_MESSAGE_IN_QUEUE",
            0,
        ),
    ];
    for (what, command, code, remark, next) in cases {
        let answer = call(&client, command).await;
        assert_eq!((answer.code, answer.remark.as_deref()), (code, Some(remark)), "{what}");
        assert_eq!(answer.fields.parse::<i64>("nextBeginOffset"), Ok(next), "{what}");
        for field in ["minOffset", "maxOffset", "suggestWhichBrokerId", "topicSysFlag", "groupSysFlag"] {
            assert!(answer.fields.parse::<i64>(field).is_ok(), "{what}: {field}");
        }
    }
    let one = call(&client, pull(0).max(1).command()).await;
    assert_eq!(records(&one).len(), 1);
    let tagged = records(&call(&client, pull(0).subscription("T1").command()).await);
    assert_eq!(tagged.iter().map(|r| r.queue_offset).collect::<Vec<_>>(), [1, 3]);
    let lite = Command { code: request::LITE_PULL_MESSAGE, ..pull(0).command() };
    assert_eq!(records(&call(&client, lite).await).len(), 4);

    let refused = [
        ("topic", Pull::new("G_PULL", "T_NONE", 0, 0).command(), response::TOPIC_NOT_EXIST),
        ("queue", Pull::new("G_PULL", "T_PULL", 99, 0).command(), response::INVALID_PARAMETER),
        ("group name", Pull::new("a/b", "T_PULL", 0, 0).command(), response::SUBSCRIPTION_GROUP_NOT_EXIST),
        ("no heartbeat", pull(0).by_heart_beat(1).command(), response::SUBSCRIPTION_NOT_EXIST),
        (
            "SQL",
            pull(0).subscription("a > 1").command().with_field("expressionType", "SQL92"),
            response::SYSTEM_ERROR,
        ),
        ("field", pull(0).command().with_field("queueOffset", "x"), response::SYSTEM_ERROR),
    ];
    for (what, command, code) in refused {
        let answer = call(&client, command).await;
        assert_eq!(answer.code, code, "{what}: {answer:?}");
        assert!(answer.remark.is_some_and(|remark| !remark.is_empty()), "{what}");
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_consumer_s_pull_is_filtered_by_its_heart_beat() {
    let broker = Fixture::start(|_| {}).await;
    let client = broker.client().await;
    for n in 0..4 {
        let tags = format!("TAGS\x01T{}\x02", n % 2);
        call(&client, send(request::SEND_MESSAGE_V2, "T_HEART", 0, b"b", &tags)).await;
    }
    pull_until(&client, "T_HEART", 0, 4).await;
    assert_eq!(
        call(&client, heart_beat("G_HEART", "c1", "T_HEART", "T0 || T9", 10)).await.code,
        response::SUCCESS
    );
    let pull = |version| Pull::new("G_HEART", "T_HEART", 0, 0).by_heart_beat(version).command();
    let answer = call(&client, pull(10)).await;
    assert_eq!(records(&answer).iter().map(|r| r.queue_offset).collect::<Vec<_>>(), [0, 2]);
    assert_eq!(call(&client, pull(11)).await.code, response::SUBSCRIPTION_NOT_LATEST);
    let other = Pull::new("G_HEART", "T_PULL_OTHER", 0, 0).by_heart_beat(10).command();
    call(&client, send(request::SEND_MESSAGE_V2, "T_PULL_OTHER", 0, b"b", "")).await;
    assert_eq!(call(&client, other).await.code, response::SUBSCRIPTION_NOT_EXIST);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_held_pull_is_answered_when_its_message_comes_and_not_by_another() {
    let broker = Fixture::start(|_| {}).await;
    let (consumer, producer) = (broker.client().await, broker.client().await);
    let v2 = request::SEND_MESSAGE_V2;
    call(&producer, send(v2, "T_HOLD", 0, b"first", "TAGS\x01A\x02")).await;
    pull_until(&producer, "T_HOLD", 0, 1).await;
    let held = consumer
        .connection()
        .call(Pull::new("G_HOLD", "T_HOLD", 0, 1).subscription("B").suspend(20_000).command(), WAIT * 3);
    tokio::time::sleep(Duration::from_millis(300)).await;
    call(&producer, send(v2, "T_HOLD", 1, b"other queue", "TAGS\x01B\x02")).await;
    let mut held = Box::pin(held);
    assert!(tokio::time::timeout(Duration::from_millis(500), &mut held).await.is_err(), "nothing for it yet");
    let sent = Instant::now();
    call(&producer, send(v2, "T_HOLD", 0, b"second", "TAGS\x01B\x02")).await;
    let answer = held.await.unwrap();
    assert!(sent.elapsed() < Duration::from_secs(1), "{:?}", sent.elapsed());
    assert_eq!((answer.code, records(&answer)[0].body.as_slice()), (response::SUCCESS, &b"second"[..]));
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_held_pull_of_a_topic_without_messages_wakes_for_the_first_one() {
    let broker = Fixture::start(|_| {}).await;
    let (consumer, producer) = (broker.client().await, broker.client().await);
    call(&producer, send(request::SEND_MESSAGE_V2, "T_FIRST", 1, b"makes the topic", "")).await;
    let held =
        consumer.connection().call(Pull::new("G_FIRST", "T_FIRST", 0, 0).suspend(20_000).command(), WAIT * 3);
    tokio::time::sleep(Duration::from_millis(200)).await;
    call(&producer, send(request::SEND_MESSAGE_V2, "T_FIRST", 0, b"first", "")).await;
    assert_eq!(records(&held.await.unwrap())[0].body, b"first");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_held_pull_ends_when_its_time_is_up_and_when_the_broker_stops() {
    let broker = Fixture::start(|_| {}).await;
    let client = broker.client().await;
    call(&client, send(request::SEND_MESSAGE_V2, "T_TIME", 0, b"b", "")).await;
    pull_until(&client, "T_TIME", 0, 1).await;
    let start = Instant::now();
    let pull = |ms| Pull::new("G_TIME", "T_TIME", 0, 1).suspend(ms).command();
    let answer = call(&client, pull(700)).await;
    assert_eq!(answer.code, response::PULL_NOT_FOUND);
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(650) && took < Duration::from_secs(3), "{took:?}");
    let held = client.connection().call(pull(60_000), WAIT * 3);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let start = Instant::now();
    broker.stop().await;
    assert_eq!(held.await.unwrap().code, response::PULL_NOT_FOUND);
    assert!(start.elapsed() < Duration::from_secs(8));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_held_pull_learns_at_once_that_its_group_was_moved() {
    let broker = Fixture::start(|_| {}).await;
    let client = broker.client().await;
    call(&client, send(request::SEND_MESSAGE_V2, "T_MOVE", 0, b"b", "")).await;
    pull_until(&client, "T_MOVE", 0, 1).await;
    call(&client, heart_beat("G_MOVE", "c1", "T_MOVE", "*", 1)).await;
    let pull = |group| Pull::new(group, "T_MOVE", 0, 1).suspend(5_000).command();
    let (mine, other) =
        (client.connection().call(pull("G_MOVE"), WAIT), client.connection().call(pull("G_STAY"), WAIT));
    tokio::time::sleep(Duration::from_millis(200)).await;
    let reset = Command::request(request::INVOKE_BROKER_TO_RESET_OFFSET)
        .with_field("topic", "T_MOVE")
        .with_field("group", "G_MOVE")
        .with_field("timestamp", 0)
        .with_field("isForce", true);
    let start = Instant::now();
    assert_eq!(call(&client, reset).await.code, response::SUCCESS);
    let answer = mine.await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert_eq!((answer.code, answer.remark.as_deref()), (response::PULL_OFFSET_MOVED, Some("OFFSET_RESET")));
    assert_eq!(answer.fields.get("nextBeginOffset"), Some("0"));
    assert_eq!(other.await.unwrap().code, response::PULL_NOT_FOUND);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_commits_the_offset_that_it_carries() {
    let broker = Fixture::start(|_| {}).await;
    let client = broker.client().await;
    for _ in 0..3 {
        call(&client, send(request::SEND_MESSAGE_V2, "T_COMMIT", 0, b"b", "")).await;
    }
    pull_until(&client, "T_COMMIT", 0, 3).await;
    let pull = Pull::new("G_COMMIT", "T_COMMIT", 0, 2).commit(2).command();
    assert_eq!(call(&client, pull).await.code, response::SUCCESS);
    let query = Command::request(request::QUERY_CONSUMER_OFFSET)
        .with_field("consumerGroup", "G_COMMIT")
        .with_field("topic", "T_COMMIT")
        .with_field("queueId", 0);
    assert_eq!(call(&client, query).await.fields.get("offset"), Some("2"));
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delayed_message_comes_when_it_is_due_and_as_it_was() {
    let broker = Fixture::start(|config| config.store.delay_levels = "1s 2s".into()).await;
    let client = broker.client().await;
    let start = Instant::now();
    for level in [2, 1, 18] {
        let body = format!("level {level}");
        let properties =
            format!("KEYS\x01k\x02UNIQ_KEY\x01U{level}\x02TAGS\x01A\x02DELAY\x01{level}\x02WAIT\x01true\x02");
        let answer =
            call(&client, send(request::SEND_MESSAGE_V2, "T_DELAY", 2, body.as_bytes(), &properties)).await;
        assert_eq!((answer.code, answer.fields.get("queueId")), (response::SUCCESS, Some("2")), "{answer:?}");
    }
    let mut seen = Vec::new();
    while seen.len() < 3 && start.elapsed() < WAIT {
        let answer = call(&client, Pull::new("G_DELAY", "T_DELAY", 2, 0).command()).await;
        for record in records(&answer).into_iter().skip(seen.len()) {
            seen.push((record, start.elapsed()));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let bodies: Vec<_> = seen.iter().map(|(r, _)| String::from_utf8_lossy(&r.body).into_owned()).collect();
    // A level beyond the last one is the last one.
    assert_eq!(bodies, ["level 1", "level 2", "level 18"]);
    for ((record, at), due) in seen.iter().zip([1_000, 2_000, 2_000]) {
        let late = at.saturating_sub(Duration::from_millis(due));
        assert!(*at >= Duration::from_millis(due) && late < Duration::from_secs(2), "{at:?}");
        assert_eq!(record.property("DELAY"), None);
        assert_eq!(
            (record.property("REAL_TOPIC"), record.property("REAL_QID")),
            (Some("T_DELAY"), Some("2"))
        );
        assert_eq!((record.property("KEYS"), record.property("TAGS")), (Some("k"), Some("A")));
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delayed_messages_and_offsets_survive_a_restart() {
    let mut broker = Fixture::start(|config| config.store.delay_levels = "1s 2s".into()).await;
    let client = broker.client().await;
    let delayed = |body: &[u8]| send(request::SEND_MESSAGE_V2, "T_AGAIN", 0, body, "DELAY\x011\x02");
    call(&client, delayed(b"one")).await;
    pull_until(&client, "T_AGAIN", 0, 1).await;
    call(&client, delayed(b"two")).await;
    drop(client);
    broker.restart().await;
    let client = broker.client().await;
    let got = pull_until(&client, "T_AGAIN", 0, 2).await;
    assert_eq!((got[0].body.as_slice(), got[1].body.as_slice()), (&b"one"[..], &b"two"[..]));
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(pull_until(&client, "T_AGAIN", 0, 2).await.len(), 2, "delivered once");
    let answer = call(&client, send(request::SEND_MESSAGE_V2, "T_AGAIN", 0, b"three", "")).await;
    assert_eq!(answer.fields.get("queueOffset"), Some("2"));
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delay_offset_beyond_a_queue_that_is_gone_skips_no_message() {
    let mut broker = Fixture::start(|config| config.store.delay_levels = "1s 2s".into()).await;
    let kept = "{\"offsetTable\":{1:5}}";
    broker.restart_after(|root| std::fs::write(root.join("config/delayOffset.json"), kept).unwrap()).await;
    let client = broker.client().await;
    call(&client, send(request::SEND_MESSAGE_V2, "T_FIRST", 0, b"first", "DELAY\x011\x02")).await;
    let got = pull_until(&client, "T_FIRST", 0, 1).await;
    assert_eq!(got[0].body.as_slice(), b"first");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_are_not_in_memory_are_read_aside() {
    let broker = Fixture::start(|config| config.in_memory_percent = 0).await;
    let client = broker.client().await;
    for n in 0..40 {
        let body = format!("b{n}");
        call(&client, send(request::SEND_MESSAGE_V2, "T_COLD", 0, body.as_bytes(), "TAGS\x01A\x02")).await;
    }
    pull_until(&client, "T_COLD", 0, 32).await;
    let rest = records(&call(&client, Pull::new("G_COLD", "T_COLD", 0, 32).command()).await);
    assert_eq!(
        rest.iter().map(|r| r.body.clone()).collect::<Vec<_>>(),
        (32..40).map(|n| format!("b{n}").into_bytes()).collect::<Vec<_>>()
    );
    let end = call(&client, Pull::new("G_COLD", "T_COLD", 0, 40).command()).await;
    assert_eq!(end.code, response::PULL_NOT_FOUND);
    broker.stop().await;
}

/// A consumer gives back the record at `offset`.
fn send_back(group: &str, topic: &str, offset: i64, level: i32, max: i32) -> Command {
    Command::request(request::CONSUMER_SEND_MSG_BACK)
        .with_field("offset", offset)
        .with_field("group", group)
        .with_field("delayLevel", level)
        .with_field("originMsgId", "C0A8")
        .with_field("originTopic", topic)
        .with_field("unitMode", false)
        .with_field("maxReconsumeTimes", max)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_given_back_is_retried_and_then_a_dead_letter() {
    let broker = Fixture::start(|config| config.store.delay_levels = "1s 1s 1s 1s 1s".into()).await;
    let client = broker.client().await;
    call(&client, heart_beat("G_BACK", "c1", "T_BACK", "*", 1)).await;
    call(&client, send(request::SEND_MESSAGE_V2, "T_BACK", 0, b"r", "UNIQ_KEY\x01U1\x02TAGS\x01A\x02")).await;
    let first = pull_until(&client, "T_BACK", 0, 1).await.remove(0);
    let answer = call(&client, send_back("G_BACK", "T_BACK", first.physical_offset, 0, 1)).await;
    assert_eq!(answer.code, response::SUCCESS, "{answer:?}");

    let retry = pull_until(&client, "%RETRY%G_BACK", 0, 1).await.remove(0);
    assert_eq!((retry.body.as_slice(), retry.reconsume_times), (&b"r"[..], 1));
    assert_eq!(retry.property("RETRY_TOPIC"), Some("T_BACK"));
    assert_eq!(retry.property("ORIGIN_MESSAGE_ID"), Some(first.message_id.as_str()));
    assert_eq!((retry.property("UNIQ_KEY"), retry.property("DELAY")), (Some("U1"), None));
    assert_eq!((retry.property("TAGS"), retry.property("WAIT")), (Some("A"), Some("false")));

    let answer = call(&client, send_back("G_BACK", "T_BACK", retry.physical_offset, 0, 1)).await;
    assert_eq!(answer.code, response::SUCCESS, "{answer:?}");
    let dead = pull_until(&client, "%DLQ%G_BACK", 0, 1).await.remove(0);
    assert_eq!((dead.body.as_slice(), dead.reconsume_times), (&b"r"[..], 2));
    assert_eq!(dead.property("RETRY_TOPIC"), Some("T_BACK"));
    assert_eq!(dead.property("ORIGIN_MESSAGE_ID"), Some(first.message_id.as_str()));

    let answer = call(&client, send_back("G_BACK", "T_BACK", first.physical_offset, -1, 16)).await;
    assert_eq!(answer.code, response::SUCCESS);
    assert_eq!(pull_until(&client, "%DLQ%G_BACK", 0, 2).await.len(), 2, "a level below 0 gives up at once");

    let none = call(&client, send_back("G_BACK", "T_BACK", first.physical_offset + 1, 0, 16)).await;
    assert_eq!(none.code, response::SYSTEM_ERROR, "no message starts there");
    let group = call(&client, send_back("no/group", "T_BACK", first.physical_offset, 0, 16)).await;
    assert_eq!(group.code, response::SUBSCRIPTION_GROUP_NOT_EXIST);
    broker.stop().await;
}

/// Either way of giving a dead letter another chance: back to its group by its place, as tools do, and to its topic as
/// a new message with the properties that it has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_that_is_sent_again_still_tells_where_it_came_from() {
    let broker = Fixture::start(|config| config.store.delay_levels = "1s 1s 1s 1s 1s".into()).await;
    let client = broker.client().await;
    call(&client, heart_beat("G_DEAD", "c1", "T_DEAD", "*", 1)).await;
    call(&client, send(request::SEND_MESSAGE_V2, "T_DEAD", 0, b"d", "UNIQ_KEY\x01U1\x02TAGS\x01A\x02")).await;
    let first = pull_until(&client, "T_DEAD", 0, 1).await.remove(0);
    let give_up = send_back("G_DEAD", "T_DEAD", first.physical_offset, -1, 16);
    assert_eq!(call(&client, give_up).await.code, response::SUCCESS);
    let dead = pull_until(&client, "%DLQ%G_DEAD", 0, 1).await.remove(0);
    let told = |got: &loopback::Got| {
        ["ORIGIN_MESSAGE_ID", "RETRY_TOPIC", "UNIQ_KEY", "TAGS"]
            .map(|name| got.property(name).unwrap_or_default().to_owned())
    };
    let want = [first.message_id.as_str(), "T_DEAD", "U1", "A"].map(str::to_owned);
    assert_eq!(told(&dead), want);

    // With a try left it goes to the group's retries; at the limit it is a dead letter once more.
    let back = |max| send_back("G_DEAD", "%DLQ%G_DEAD", dead.physical_offset, 1, max);
    assert_eq!(call(&client, back(16)).await.code, response::SUCCESS);
    let retry = pull_until(&client, "%RETRY%G_DEAD", 0, 1).await.remove(0);
    assert_eq!((retry.body.as_slice(), retry.reconsume_times), (&b"d"[..], dead.reconsume_times + 1));
    assert_eq!(told(&retry), want);
    assert_eq!(call(&client, back(dead.reconsume_times)).await.code, response::SUCCESS);
    let again = pull_until(&client, "%DLQ%G_DEAD", 0, 2).await.remove(1);
    assert_eq!(told(&again), want);

    let properties: String = ["ORIGIN_MESSAGE_ID", "RETRY_TOPIC", "UNIQ_KEY", "TAGS"]
        .iter()
        .map(|name| format!("{name}\x01{}\x02", dead.property(name).unwrap()))
        .collect();
    let sent = call(&client, send(request::SEND_MESSAGE_V2, "T_DEAD", 0, &dead.body, &properties)).await;
    assert_eq!(sent.code, response::SUCCESS, "{sent:?}");
    let new = pull_until(&client, "T_DEAD", 0, 2).await.remove(1);
    assert_eq!((new.body.as_slice(), new.reconsume_times), (&b"d"[..], 0));
    assert_eq!(told(&new), want);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_sends_to_its_retry_topic_too_often_makes_a_dead_letter() {
    let broker = Fixture::start(|config| config.store.delay_levels = "1s".into()).await;
    let client = broker.client().await;
    call(&client, heart_beat("G_SELF", "c1", "T_SELF", "*", 1)).await;
    let retry = |times: i32| {
        send(request::SEND_MESSAGE_V2, "%RETRY%G_SELF", 0, b"r", "DELAY\x011\x02RETRY_TOPIC\x01T_SELF\x02")
            .with_field("j", times)
            .with_field("l", 2)
    };
    assert_eq!(call(&client, retry(2)).await.code, response::SUCCESS);
    assert_eq!(call(&client, retry(3)).await.code, response::SUCCESS);
    let dead = pull_until(&client, "%DLQ%G_SELF", 0, 1).await.remove(0);
    assert_eq!((dead.reconsume_times, dead.property("DELAY")), (3, None));
    assert_eq!(pull_until(&client, "%RETRY%G_SELF", 0, 1).await[0].reconsume_times, 2);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_is_locked_by_one_client_at_a_time() {
    let broker = Fixture::start(|_| {}).await;
    let client = broker.client().await;
    let lock = |code, id: &str, queues: &[i32]| {
        let queues: Vec<_> = queues
            .iter()
            .map(|queue| format!(r#"{{"brokerName":"broker-a","queueId":{queue},"topic":"T_LOCK"}}"#))
            .collect();
        let body = format!(
            r#"{{"clientId":"{id}","consumerGroup":"G_LOCK","mqSet":[{}],"onlyThisBroker":false}}"#,
            queues.join(",")
        );
        Command::request(code).with_body(Bytes::from(body))
    };
    let (take, give) = (request::LOCK_BATCH_MQ, request::UNLOCK_BATCH_MQ);
    let granted = |answer: &Command| {
        let body = String::from_utf8(answer.body.to_bytes().to_vec()).unwrap();
        (0..4).filter(|n| body.contains(&format!("\"queueId\":{n},"))).collect::<Vec<_>>()
    };
    assert_eq!(granted(&call(&client, lock(take, "a", &[0, 1])).await), [0, 1]);
    assert_eq!(granted(&call(&client, lock(take, "b", &[1, 2])).await), [2]);
    assert_eq!(call(&client, lock(give, "a", &[0, 1])).await.code, response::SUCCESS);
    assert_eq!(granted(&call(&client, lock(take, "b", &[0, 1, 2])).await), [0, 1, 2]);
    let bad = Command::request(take).with_body(Bytes::from_static(b"{\"mqSet\":7"));
    assert_ne!(call(&client, bad).await.code, response::SUCCESS);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_are_found_by_key_by_unique_key_and_by_place() {
    let broker = Fixture::start(|_| {}).await;
    let client = broker.client().await;
    for n in 0..6 {
        let properties = format!("KEYS\x01kA kB{n}\x02UNIQ_KEY\x01U{n}\x02");
        let body = format!("b{n}");
        call(&client, send(request::SEND_MESSAGE_V2, "T_KEY", n % 2, body.as_bytes(), &properties)).await;
    }
    let query = |key: &str, unique: bool| {
        Command::request(request::QUERY_MESSAGE)
            .with_field("topic", "T_KEY")
            .with_field("key", key)
            .with_field("maxNum", 32)
            .with_field("beginTimestamp", 0)
            .with_field("endTimestamp", i64::MAX)
            .with_field("indexType", if unique { "U" } else { "K" })
            .with_field("_UNIQUE_KEY_QUERY", unique)
    };
    let end = Instant::now() + WAIT;
    let all = loop {
        let answer = call(&client, query("kA", false)).await;
        if records(&answer).len() == 6 || Instant::now() > end {
            break answer;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(records(&all).len(), 6, "{all:?}");
    assert!(all.fields.parse::<i64>("indexLastUpdateTimestamp").unwrap() > 0);
    assert!(all.fields.parse::<i64>("indexLastUpdatePhyoffset").unwrap() > 0);
    let one = records(&call(&client, query("kB3", false)).await);
    assert_eq!((one.len(), one[0].body.as_slice()), (1, &b"b3"[..]));
    let unique = records(&call(&client, query("U4", true)).await);
    assert_eq!((unique.len(), unique[0].body.as_slice()), (1, &b"b4"[..]));
    assert_eq!(call(&client, query("none", false)).await.code, response::QUERY_NOT_FOUND);

    let view = |offset: i64| {
        Command::request(request::VIEW_MESSAGE_BY_ID)
            .with_field("offset", offset)
            .with_field("topic", "T_KEY")
    };
    let seen = records(&call(&client, view(one[0].physical_offset)).await);
    assert_eq!(seen[0].body, b"b3");
    assert_eq!(call(&client, view(one[0].physical_offset + 1)).await.code, response::SYSTEM_ERROR);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn synchronous_flush_answers_after_the_disk_and_loses_nothing() {
    let mut broker = Fixture::start(|config| config.store.flush_disk_type = reput::FlushDiskType::Sync).await;
    let client = broker.client().await;
    let calls: Vec<_> = (0..50)
        .map(|n| {
            let wait = if n % 5 == 0 { "WAIT\x01false\x02" } else { "WAIT\x01true\x02" };
            let body = format!("b{n}");
            client.connection().call(send(request::SEND_MESSAGE_V2, "T_SYNC", 0, body.as_bytes(), wait), WAIT)
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap().code, response::SUCCESS);
    }
    drop(client);
    broker.restart().await;
    let client = broker.client().await;
    let mut got = Vec::new();
    while got.len() < 50 {
        let next = i64::try_from(got.len()).unwrap();
        let more = records(&call(&client, Pull::new("G_SYNC", "T_SYNC", 0, next).command()).await);
        assert!(!more.is_empty());
        got.extend(more);
    }
    assert!(got.iter().enumerate().all(|(n, r)| r.body == format!("b{n}").into_bytes()));
    broker.stop().await;
}
