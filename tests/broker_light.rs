//! Light queues over loopback: a message goes to the queues that it names, and each is read, asked and committed like
//! any other, without having been made.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]
#![cfg(feature = "broker")]

mod loopback;

use std::time::{Duration, Instant};

use loopback::{Fixture, Pull, heart_beat, records, send, send_batch};
use reput::remoting::{
    Client, Command,
    codes::{request, response},
};

const WAIT: Duration = Duration::from_secs(10);
const GROUP: &str = "%LMQ%readers";

async fn call(client: &Client, command: Command) -> Command {
    client.call(command, WAIT).await.unwrap()
}

async fn light() -> Fixture {
    Fixture::start(|config| {
        config.store.lmq = true;
        config.store.multi_dispatch = true;
        config.store.max_lmq_queues = 3;
    })
    .await
}

fn dispatched(body: &str, names: &str) -> Command {
    let properties = format!("INNER_MULTI_DISPATCH\u{1}{names}\u{2}k\u{1}v");
    send(request::SEND_MESSAGE_V2, "parent", 1, body.as_bytes(), &properties)
}

fn of_queue(code: i32, topic: &str, queue: i32) -> Command {
    Command::request(code).with_field("topic", topic).with_field("queueId", queue)
}

async fn offset(client: &Client, code: i32, topic: &str) -> String {
    let answer = call(client, of_queue(code, topic, 0)).await;
    assert_eq!(answer.code, response::SUCCESS, "{answer:?}");
    answer.fields.get("offset").unwrap().to_owned()
}

/// Pulls until there are `count` messages.
async fn bodies(client: &Client, topic: &str, count: usize) -> Vec<String> {
    let end = Instant::now() + WAIT;
    loop {
        let answer = call(client, Pull::new(GROUP, topic, 0, 0).command()).await;
        let got = records(&answer);
        if got.len() >= count || Instant::now() > end {
            assert!(
                got.iter().all(|message| message.topic == "parent" && message.property("k") == Some("v"))
            );
            return got.into_iter().map(|message| String::from_utf8(message.body).unwrap()).collect();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_is_in_every_light_queue_that_it_names_over_a_restart_too() {
    let mut broker = light().await;
    let client = broker.client().await;
    for (body, names) in [("one", "%LMQ%a,%LMQ%b"), ("two", "%LMQ%b"), ("three", "%LMQ%a,%LMQ%b")] {
        assert_eq!(call(&client, dispatched(body, names)).await.code, response::SUCCESS);
    }
    assert_eq!(bodies(&client, "%LMQ%a", 2).await, ["one", "three"]);
    assert_eq!(bodies(&client, "%LMQ%b", 3).await, ["one", "two", "three"]);
    assert_eq!(offset(&client, request::GET_MAX_OFFSET, "%LMQ%b").await, "3");
    assert_eq!(offset(&client, request::GET_MIN_OFFSET, "%LMQ%b").await, "0");
    assert_eq!(offset(&client, request::GET_MAX_OFFSET, "%LMQ%never").await, "0");
    let commit = of_queue(request::UPDATE_CONSUMER_OFFSET, "%LMQ%b", 0)
        .with_field("consumerGroup", GROUP)
        .with_field("commitOffset", 2);
    assert_eq!(call(&client, commit).await.code, response::SUCCESS);
    broker.restart().await;
    let client = broker.client().await;
    let committed = of_queue(request::QUERY_CONSUMER_OFFSET, "%LMQ%b", 0).with_field("consumerGroup", GROUP);
    assert_eq!(call(&client, committed).await.fields.get("offset"), Some("2"));
    assert_eq!(bodies(&client, "%LMQ%b", 3).await, ["one", "two", "three"]);
    // Neither is in a table, and what is unknown there is not deleted.
    let topics = call(&client, Command::request(request::GET_ALL_TOPIC_CONFIG)).await;
    assert!(!String::from_utf8_lossy(&topics.body.to_bytes()).contains("%LMQ%"));
    assert_eq!(call(&client, Command::request(request::CLEAN_UNUSED_TOPIC)).await.code, response::SUCCESS);
    assert_eq!(offset(&client, request::GET_MAX_OFFSET, "%LMQ%b").await, "3");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_held_pull_of_a_light_queue_wakes_for_a_message_to_its_parent() {
    let broker = light().await;
    let (reader, writer) = (broker.client().await, broker.client().await);
    let beat = heart_beat(GROUP, "reader", "%LMQ%a", "*", 1);
    assert_eq!(call(&reader, beat).await.code, response::SUCCESS);
    let held = reader.call(Pull::new(GROUP, "%LMQ%a", 0, 0).by_heart_beat(1).suspend(8_000).command(), WAIT);
    assert_eq!(call(&writer, dispatched("for others", "%LMQ%b")).await.code, response::SUCCESS);
    assert_eq!(call(&writer, dispatched("woken", "%LMQ%a")).await.code, response::SUCCESS);
    let answer = held.await.unwrap();
    assert_eq!((answer.code, answer.fields.get("nextBeginOffset")), (response::SUCCESS, Some("1")));
    assert_eq!(records(&answer)[0].body, b"woken");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_spreads_each_of_its_messages_by_its_own_names() {
    let broker = light().await;
    let client = broker.client().await;
    let part = |body: &str, names: &str| {
        (body.as_bytes().to_vec(), format!("INNER_MULTI_DISPATCH\u{1}{names}\u{2}k\u{1}v"))
    };
    let parts = [part("one", "%LMQ%a"), part("two", "%LMQ%b"), part("three", "%LMQ%a,%LMQ%b")];
    assert_eq!(call(&client, send_batch("parent", 0, &parts, "")).await.code, response::SUCCESS);
    assert_eq!(bodies(&client, "%LMQ%a", 2).await, ["one", "three"]);
    assert_eq!(bodies(&client, "%LMQ%b", 2).await, ["two", "three"]);
    broker.stop().await;
}

/// A producer that sent the numbers itself would move the ends of queues, one that named the broker's own topics would
/// write what only the broker may.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_names_queues_and_neither_paths_nor_numbers_nor_the_broker_s_own() {
    let broker = light().await;
    let client = broker.client().await;
    for names in ["%LMQ%../up", "a/b", "SCHEDULE_TOPIC_XXXX", "%LMQ%a,rmq_sys_wheel_timer"] {
        let answer = call(&client, dispatched("bad", names)).await;
        assert_eq!(answer.code, response::MESSAGE_ILLEGAL, "{names}");
    }
    let forged = "INNER_MULTI_DISPATCH\u{1}%LMQ%a\u{2}INNER_MULTI_QUEUE_OFFSET\u{1}77\u{2}k\u{1}v";
    let forged = send(request::SEND_MESSAGE_V2, "parent", 0, b"forged", forged);
    assert_eq!(call(&client, forged).await.code, response::SUCCESS);
    assert_eq!(bodies(&client, "%LMQ%a", 1).await, ["forged"]);
    assert_eq!(offset(&client, request::GET_MAX_OFFSET, "%LMQ%a").await, "1");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beyond_their_greatest_number_no_light_queue_is_made() {
    let broker = light().await;
    let client = broker.client().await;
    for name in ["%LMQ%a", "%LMQ%b", "%LMQ%c"] {
        assert_eq!(call(&client, dispatched("fits", name)).await.code, response::SUCCESS);
    }
    let refused = call(&client, dispatched("does not", "%LMQ%d")).await;
    assert_eq!(refused.code, response::LMQ_QUOTA_EXCEEDED);
    let remark = refused.remark.unwrap();
    assert!(
        remark.starts_with("[LMQ_CONSUME_QUEUE_NUM_EXCEEDED]lmq consume queue num exceeded."),
        "{remark}"
    );
    assert_eq!(call(&client, dispatched("fits", "%LMQ%c")).await.code, response::SUCCESS);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_enable_lmq_a_light_name_is_any_name() {
    let broker = Fixture::start(|config| config.store.multi_dispatch = true).await;
    let client = broker.client().await;
    let answer =
        call(&client, Command::request(request::GET_TOPIC_CONFIG).with_field("topic", "%LMQ%a")).await;
    assert_eq!(answer.code, response::TOPIC_NOT_EXIST);
    let answer = call(&client, Pull::new("g", "%LMQ%a", 0, 0).command()).await;
    assert_eq!(answer.code, response::TOPIC_NOT_EXIST);
    broker.stop().await;
}
