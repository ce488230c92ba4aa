//! The figures of messages that wait: for a time, and for the end of their transaction; in RocketMQ's files and as a
//! replica asks for them. Time is put forward by hand.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]
#![cfg(feature = "broker")]

mod loopback;

use std::time::{Duration, Instant};

use loopback::{
    Fixture,
    producer::{COMMIT, Producer, ROLLBACK},
    send,
};
use reput::remoting::{
    Client, Command,
    codes::{request, response},
};
use serde_json::Value;

const WAIT: Duration = Duration::from_secs(30);

async fn call(client: &Client, command: Command) -> Command {
    client.call(command, WAIT).await.unwrap()
}

async fn put(client: &Client, topic: &str, seconds: u64) -> String {
    let properties = format!("TIMER_DELAY_SEC\x01{seconds}\x02");
    let sent = call(client, send(request::SEND_MESSAGE_V2, topic, 0, b"x", &properties)).await;
    assert_eq!(sent.code, response::SUCCESS, "{:?}", sent.remark);
    sent.fields.get("recallHandle").unwrap().to_owned()
}

fn counts(json: &Value, table: &str) -> Vec<(String, i64)> {
    let counts = json[table].as_object().unwrap().iter();
    counts.map(|(topic, count)| (topic.clone(), count["count"].as_i64().unwrap())).collect()
}

async fn timed(client: &Client) -> Vec<(String, i64)> {
    let answer = call(client, Command::request(request::GET_TIMER_METRICS)).await;
    assert_eq!(answer.code, response::SUCCESS);
    counts(&serde_json::from_slice(&answer.body.to_bytes()).unwrap(), "timingCount")
}

/// Waits until the figures are these.
async fn expect(client: &Client, wanted: &[(&str, i64)]) {
    let wanted: Vec<_> = wanted.iter().map(|(topic, count)| ((*topic).to_owned(), *count)).collect();
    let end = Instant::now() + WAIT;
    while timed(client).await != wanted {
        assert!(Instant::now() < end, "{:?}, and not {wanted:?}", timed(client).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A kill can leave an older file behind; what waits is then counted anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_a_time_is_counted_by_topic_whatever_the_file_says() {
    let mut broker = Fixture::start(|config| config.recall_messages = true).await;
    let client = broker.client().await;
    let handle = put(&client, "T", 100).await;
    put(&client, "T", 200).await;
    put(&client, "U", 100).await;
    expect(&client, &[("T", 2), ("U", 1)]).await;
    let recall =
        Command::request(request::RECALL_MESSAGE).with_field("topic", "T").with_field("recallHandle", handle);
    assert_eq!(call(&client, recall).await.code, response::SUCCESS);
    expect(&client, &[("T", 1), ("U", 1)]).await;
    broker
        .restart_after(|root| {
            let text = std::fs::read(root.join("config/timermetrics")).unwrap();
            let json: Value = serde_json::from_slice(&text).unwrap();
            assert_eq!(counts(&json, "timingCount"), [("T".to_owned(), 1), ("U".to_owned(), 1)]);
            let old = r#"{"dataVersion":{"counter":1,"stateVersion":0,"timestamp":1},"timingCount":{"T":{"count":7,"timeStamp":1},"GONE":{"count":3,"timeStamp":1}}}"#;
            std::fs::write(root.join("config/timermetrics"), old).unwrap();
        })
        .await;
    let client = broker.client().await;
    expect(&client, &[("GONE", 0), ("T", 1), ("U", 1)]).await;
    broker.clock().by(Duration::from_secs(150));
    expect(&client, &[("GONE", 0), ("T", 1), ("U", 0)]).await;
    broker.clock().by(Duration::from_secs(100));
    expect(&client, &[("GONE", 0), ("T", 0), ("U", 0)]).await;
    let delete = Command::request(request::DELETE_TOPIC_IN_BROKER).with_field("topic", "U");
    assert_eq!(call(&client, delete).await.code, response::SUCCESS);
    expect(&client, &[("GONE", 0), ("T", 0)]).await;
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_is_given_the_checkpoint_of_the_timers_as_it_is_saved() {
    let broker = Fixture::start(|_| {}).await;
    let client = broker.client().await;
    put(&client, "T", 100).await;
    expect(&client, &[("T", 1)]).await;
    let file = broker.root().join("config/timercheck");
    let end = Instant::now() + WAIT;
    loop {
        broker.clock().by(Duration::from_secs(2));
        let answer = call(&client, Command::request(request::GET_TIMER_CHECK_POINT)).await;
        assert_eq!(answer.code, response::SUCCESS);
        let bytes = answer.body.to_bytes();
        assert_eq!(bytes.len(), 56);
        // The message of the topic's queue is behind it.
        let saved = std::fs::read(&file).unwrap_or_default();
        if saved.get(..56) == Some(&bytes[..]) && bytes[16..24] == 1_u64.to_be_bytes() {
            break;
        }
        assert!(Instant::now() < end, "{:?}, and the file has {:?}", &bytes[..], saved.get(..56));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_timers_a_replica_is_told_so_in_rocketmq_s_words() {
    let broker = Fixture::start(|config| config.timer_wheel = false).await;
    let client = broker.client().await;
    for (code, remark) in [
        (request::GET_TIMER_CHECK_POINT, "The checkpoint is null"),
        (request::GET_TIMER_METRICS, "The timer message store is null"),
    ] {
        let answer = call(&client, Command::request(code)).await;
        assert_eq!((answer.code, answer.remark.as_deref()), (response::SYSTEM_ERROR, Some(remark)));
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_messages_that_nobody_has_ended_are_counted_by_topic() {
    let mut broker = Fixture::start(|_| {}).await;
    let producer = Producer::connect(broker.address(), "c1", 0).await;
    let first = producer.half("T", 0, "one", "").await;
    let second = producer.half("T", 0, "two", "").await;
    producer.half("T", 0, "three", "").await;
    producer.half("U", 0, "four", "").await;
    assert_eq!(producer.end(&first, COMMIT).await.code, response::SUCCESS);
    // The same answer twice counts once.
    assert_eq!(producer.end(&first, COMMIT).await.code, response::SUCCESS);
    assert_eq!(producer.end(&second, ROLLBACK).await.code, response::SUCCESS);
    let mut saved = Vec::new();
    broker
        .restart_after(|root| {
            let text = std::fs::read(root.join("config/transactionMetrics")).unwrap();
            saved = counts(&serde_json::from_slice(&text).unwrap(), "transactionCount");
        })
        .await;
    assert_eq!(saved, [("T".to_owned(), 1), ("U".to_owned(), 1)]);
    broker.stop().await;
}
