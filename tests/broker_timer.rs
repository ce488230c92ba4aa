//! Timed messages through a broker in this process, over loopback: to the second, in order, around the wheel, taken back,
//! and over restarts with files lost. Time is put forward by hand.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]
#![cfg(feature = "broker")]

mod loopback;

use std::time::{Duration, Instant};

use loopback::{Fixture, Got, Pull, records, send};
use reput::{
    Clock,
    broker::BrokerConfig,
    remoting::{
        Client, Command,
        codes::{request, response},
    },
};

const WAIT: Duration = Duration::from_secs(60);

async fn call(client: &Client, command: Command) -> Command {
    client.call(command, WAIT).await.unwrap()
}

fn timed(topic: &str, body: &str, ask: &str) -> Command {
    let properties = format!("UNIQ_KEY\x01U{body}\x02{ask}");
    send(request::SEND_MESSAGE_V2, topic, 0, body.as_bytes(), &properties)
}

/// Sends a message that is due in `seconds`.
async fn put(client: &Client, topic: &str, body: &str, seconds: u64) -> Command {
    let sent = call(client, timed(topic, body, &format!("TIMER_DELAY_SEC\x01{seconds}\x02"))).await;
    assert_eq!(sent.code, response::SUCCESS, "{:?}", sent.remark);
    sent
}

/// All that a topic has, over as many pulls as that takes.
async fn all(client: &Client, topic: &str) -> Vec<Got> {
    let mut got: Vec<Got> = Vec::new();
    loop {
        let offset = i64::try_from(got.len()).unwrap();
        let pulled = call(client, Pull::new("G", topic, 0, offset).command()).await;
        let more = records(&pulled);
        if more.is_empty() {
            return got;
        }
        got.extend(more);
    }
}

/// The same, waited for until there are `count`.
async fn await_count(client: &Client, topic: &str, count: usize) -> Vec<Got> {
    let end = Instant::now() + WAIT;
    loop {
        let got = all(client, topic).await;
        if got.len() >= count {
            return got;
        }
        assert!(Instant::now() < end, "{} of {count} messages were delivered", got.len());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn figure(client: &Client, name: &str) -> i64 {
    let info = call(client, Command::request(request::GET_BROKER_RUNTIME_INFO)).await;
    let info: serde_json::Value = serde_json::from_slice(&info.body.to_bytes()).unwrap();
    info["table"][name].as_str().unwrap().parse().unwrap()
}

/// Waits until the timers have done all that is due by now.
async fn caught_up(client: &Client) {
    let end = Instant::now() + WAIT;
    // A new second may begin between the two questions, so less than two of them count as none.
    // What was sent is in the topic's queue only when it is dispatched.
    while figure(client, "dispatchBehindBytes").await > 0
        || figure(client, "timerOffsetBehind").await > 0
        || figure(client, "timerReadBehind").await > 1_000
    {
        assert!(Instant::now() < end, "the timers do not catch up");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn bodies(got: &[Got]) -> Vec<String> {
    got.iter().map(|got| String::from_utf8(got.body.clone()).unwrap()).collect()
}

async fn broker() -> (Fixture, Client) {
    started(|config| config.recall_messages = true).await
}

async fn started(change: impl FnOnce(&mut BrokerConfig)) -> (Fixture, Client) {
    let broker = Fixture::start(change).await;
    let client = broker.client().await;
    (broker, client)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_comes_when_its_time_is_over_and_not_before() {
    let (broker, client) = broker().await;
    let now = broker.clock().now().get();
    let at = now + 2_000_000;
    assert_eq!(
        call(&client, timed("T", "at", &format!("TIMER_DELIVER_MS\x01{at}\x02"))).await.code,
        response::SUCCESS
    );
    put(&client, "T", "seconds", 1_000).await;
    assert_eq!(
        call(&client, timed("T", "ms", "TIMER_DELAY_MS\x013000000\x02")).await.code,
        response::SUCCESS
    );
    broker.clock().by(Duration::from_secs(900));
    caught_up(&client).await;
    assert!(all(&client, "T").await.is_empty());
    broker.clock().by(Duration::from_secs(150));
    let got = await_count(&client, "T", 1).await;
    assert_eq!(bodies(&got), ["seconds"]);
    assert!(
        got[0].store_timestamp >= now + 1_000_000,
        "{} before its time",
        now + 1_000_000 - got[0].store_timestamp
    );
    assert_eq!((got[0].topic.as_str(), got[0].property("UNIQ_KEY")), ("T", Some("Useconds")));
    assert!(got[0].property("TIMER_OUT_MS").is_some() && got[0].property("TIMER_DEQUEUE_MS").is_some());
    broker.clock().by(Duration::from_secs(1_000));
    let got = await_count(&client, "T", 2).await;
    assert!(got[1].store_timestamp >= at);
    broker.clock().by(Duration::from_secs(1_000));
    assert_eq!(bodies(&await_count(&client, "T", 3).await), ["seconds", "at", "ms"]);
    assert_eq!(figure(&client, "timerCongestNum").await, 0);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_due_at_one_second_comes_in_the_order_of_its_sending() {
    let (broker, client) = broker().await;
    let at = broker.clock().now().get() + 100_000;
    for n in 0..150 {
        let sent = call(&client, timed("T", &n.to_string(), &format!("TIMER_DELIVER_MS\x01{at}\x02"))).await;
        assert_eq!(sent.code, response::SUCCESS);
    }
    caught_up(&client).await;
    assert_eq!(figure(&client, "timerCongestNum").await, 150);
    broker.clock().by(Duration::from_secs(102));
    let want: Vec<String> = (0..150).map(|n| n.to_string()).collect();
    assert_eq!(bodies(&await_count(&client, "T", 150).await), want);
    broker.stop().await;
}

/// Its unit is in the timer log, which leads to whatever comes to stand in its place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_in_the_place_of_one_that_the_log_lost_comes_at_its_own_time() {
    let (mut broker, client) = broker().await;
    put(&client, "T", "lost", 3_000).await;
    caught_up(&client).await;
    broker.restart_after(|root| std::fs::remove_dir_all(root.join("commitlog")).unwrap()).await;
    let client = broker.client().await;
    put(&client, "T", "kept", 1_000).await;
    caught_up(&client).await;
    broker.clock().by(Duration::from_secs(1_100));
    assert_eq!(bodies(&await_count(&client, "T", 1).await), ["kept"]);
    broker.clock().by(Duration::from_secs(3_000));
    caught_up(&client).await;
    assert_eq!(bodies(&all(&client, "T").await), ["kept"]);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_due_beyond_the_window_goes_round_until_it_is_near_and_comes_once() {
    let (broker, client) = started(|config| config.timer_window = 60).await;
    let sent = broker.clock().now().get();
    put(&client, "T", "far", 200).await;
    for _ in 0..6 {
        caught_up(&client).await;
        assert!(all(&client, "T").await.is_empty());
        broker.clock().by(Duration::from_secs(30));
    }
    caught_up(&client).await;
    assert!(all(&client, "T").await.is_empty());
    broker.clock().by(Duration::from_secs(30));
    let got = await_count(&client, "T", 1).await;
    assert!(got[0].store_timestamp >= sent + 200_000);
    let rounds: i32 = got[0].property("TIMER_ROLL_TIMES").unwrap().parse().unwrap();
    assert!((2..=6).contains(&rounds), "{rounds} rounds");
    broker.clock().by(Duration::from_secs(300));
    caught_up(&client).await;
    assert_eq!(all(&client, "T").await.len(), 1);
    broker.stop().await;
}

/// Each file of the timers can be lost, or the checkpoint be an old one; the topic has all that they say.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn timers_go_on_over_restarts_whichever_of_their_files_are_lost() {
    let everything: &[&str] = &["timerwheel", "timerlog", "config/timercheck"];
    for lost in [&[][..], &["timerwheel"], &["timerlog"], &["config/timercheck"], everything] {
        let (mut broker, client) = broker().await;
        put(&client, "T", "first", 100).await;
        put(&client, "T", "second", 500).await;
        put(&client, "T", "third", 500).await;
        caught_up(&client).await;
        broker.clock().by(Duration::from_secs(150));
        await_count(&client, "T", 1).await;
        broker
            .restart_after(|root| {
                for name in lost {
                    let path = root.join(name);
                    if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) }
                        .unwrap();
                }
            })
            .await;
        let client = broker.client().await;
        broker.clock().by(Duration::from_secs(400));
        // Without a checkpoint the log alone says that the first was delivered.
        let got = bodies(&await_count(&client, "T", 3).await);
        assert_eq!(got, ["first", "second", "third"], "without {lost:?}");
        broker.clock().by(Duration::from_secs(1_000));
        caught_up(&client).await;
        assert_eq!(all(&client, "T").await.len(), 3, "without {lost:?}");
        broker.stop().await;
    }
}

/// A crash between two saves leaves a checkpoint that is older than the timer log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_from_before_makes_nothing_come_twice_that_still_waits() {
    let (mut broker, client) = broker().await;
    put(&client, "T", "one", 500).await;
    caught_up(&client).await;
    broker.restart().await;
    let old = std::fs::read(broker.root().join("config/timercheck")).unwrap();
    let client = broker.client().await;
    for body in ["two", "three"] {
        put(&client, "T", body, 500).await;
    }
    caught_up(&client).await;
    broker.restart_after(|root| std::fs::write(root.join("config/timercheck"), &old).unwrap()).await;
    let client = broker.client().await;
    broker.clock().by(Duration::from_secs(600));
    assert_eq!(bodies(&await_count(&client, "T", 3).await), ["one", "two", "three"]);
    caught_up(&client).await;
    assert_eq!(all(&client, "T").await.len(), 3);
    broker.stop().await;
}

fn recall(topic: &str, handle: &str) -> Command {
    Command::request(request::RECALL_MESSAGE)
        .with_field("topic", topic)
        .with_field("recallHandle", handle)
        .with_field("producerGroup", "P")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_is_taken_back_does_not_come_and_its_neighbours_do() {
    let (mut broker, client) = broker().await;
    put(&client, "T", "keep", 100).await;
    let sent = put(&client, "T", "drop", 100).await;
    let handle = sent.fields.get("recallHandle").unwrap().to_owned();
    put(&client, "T", "too", 100).await;
    let taken = call(&client, recall("T", &handle)).await;
    assert_eq!((taken.code, taken.fields.get("msgId")), (response::SUCCESS, Some("Udrop")));
    // Also when the broker stops in between.
    broker.restart().await;
    let client = broker.client().await;
    broker.clock().by(Duration::from_secs(103));
    assert_eq!(bodies(&await_count(&client, "T", 2).await), ["keep", "too"]);
    let late = call(&client, recall("T", &handle)).await;
    assert_eq!(late.code, response::ILLEGAL_OPERATION);
    caught_up(&client).await;
    assert_eq!(all(&client, "T").await.len(), 2);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_is_taken_back_does_not_come_when_its_time_passes_while_the_broker_is_down() {
    for round in 0..10 {
        let (mut broker, client) = broker().await;
        put(&client, "T", "keep", 100).await;
        let sent = put(&client, "T", "drop", 100).await;
        let handle = sent.fields.get("recallHandle").unwrap().to_owned();
        put(&client, "T", "too", 100).await;
        assert_eq!(call(&client, recall("T", &handle)).await.code, response::SUCCESS);
        broker.restart_after_time(Duration::from_secs(103)).await;
        let client = broker.client().await;
        await_count(&client, "T", 2).await;
        caught_up(&client).await;
        assert_eq!(bodies(&all(&client, "T").await), ["keep", "too"], "round {round}");
        broker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recall_that_cannot_be_gets_rocketmqs_code() {
    let (broker, client) = broker().await;
    let sent = put(&client, "T", "x", 100).await;
    put(&client, "OTHER", "y", 100).await;
    let handle = sent.fields.get("recallHandle").unwrap();
    for (topic, handle, code) in [
        ("NONE", handle, response::TOPIC_NOT_EXIST),
        ("OTHER", handle, response::ILLEGAL_OPERATION),
        ("T", "no handle", response::ILLEGAL_OPERATION),
        ("T", "djEgVCBicm9rZXItYg==", response::ILLEGAL_OPERATION),
    ] {
        assert_eq!(call(&client, recall(topic, handle)).await.code, code, "{topic} {handle}");
    }
    broker.stop().await;
    let (broker, client) = started(|_| {}).await;
    let sent = put(&client, "T", "x", 100).await;
    let handle = sent.fields.get("recallHandle").unwrap();
    assert_eq!(call(&client, recall("T", handle)).await.code, response::NO_PERMISSION);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_time_that_cannot_be_kept_is_refused_and_one_that_has_come_is_no_wait() {
    let (broker, client) = broker().await;
    for (ask, code) in [
        ("TIMER_DELAY_SEC\x01300000\x02", response::MESSAGE_ILLEGAL),
        ("TIMER_DELAY_SEC\x01soon\x02", response::MESSAGE_ILLEGAL),
        ("TIMER_DELIVER_MS\x0199999999999999999999\x02", response::MESSAGE_ILLEGAL),
        ("TIMER_DELIVER_MS\x011\x02TIMER_DEL_UNIQKEY\x01T+U\x02", response::MESSAGE_ILLEGAL),
        ("TIMER_DELIVER_MS\x011\x02", response::SUCCESS),
        ("TIMER_DELAY_SEC\x01-5\x02", response::SUCCESS),
    ] {
        assert_eq!(call(&client, timed("T", "now", ask)).await.code, code, "{ask}");
    }
    assert_eq!(await_count(&client, "T", 2).await.len(), 2);
    let direct = call(&client, send(request::SEND_MESSAGE_V2, "rmq_sys_wheel_timer", 0, b"x", "")).await;
    assert_eq!(direct.code, response::NO_PERMISSION);
    broker.stop().await;
    let (broker, client) = started(|config| config.timer_wheel = false).await;
    let sent = call(&client, timed("T", "x", "TIMER_DELAY_SEC\x015\x02")).await;
    assert_eq!(sent.code, response::SYSTEM_ERROR);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_that_is_full_refuses_more() {
    let (broker, client) = started(|config| config.timer_congestion = 2).await;
    let at = broker.clock().now().get() + 100_000;
    let ask = format!("TIMER_DELIVER_MS\x01{at}\x02");
    for n in 0..4 {
        call(&client, timed("T", &n.to_string(), &ask)).await;
        caught_up(&client).await;
    }
    while figure(&client, "timerCongestNum").await < 4 {
        call(&client, timed("T", "more", &ask)).await;
        caught_up(&client).await;
    }
    assert_eq!(call(&client, timed("T", "over", &ask)).await.code, response::SYSTEM_ERROR);
    put(&client, "T", "another second", 200).await;
    broker.stop().await;
}

/// No herd: the thread of the timers puts what is due in batches of 32, each a put like that of any client, so the sends
/// that come meanwhile are stored between them and are answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_thousand_messages_of_one_second_come_once_in_order_while_sends_go_on() {
    const MANY: usize = 20_000;
    let (broker, client) = started(|config| config.store.commit_log_file_size = 64 << 20).await;
    let at = broker.clock().now().get() + 1_000_000;
    let ask = format!("TIMER_DELIVER_MS\x01{at}\x02");
    let calls: Vec<_> =
        (0..MANY).map(|n| client.connection().call(timed("T", &n.to_string(), &ask), WAIT)).collect();
    for sent in calls {
        let sent = sent.await.unwrap();
        assert_eq!(sent.code, response::SUCCESS, "{:?}", sent.remark);
    }
    caught_up(&client).await;
    assert_eq!(figure(&client, "timerCongestNum").await, i64::try_from(MANY).unwrap());
    broker.clock().by(Duration::from_secs(1_100));
    let mut others = 0;
    while figure(&client, "timerCongestNum").await > 0 || others == 0 {
        let other = send(request::SEND_MESSAGE_V2, "U", 0, b"u", "");
        assert_eq!(call(&client, other).await.code, response::SUCCESS);
        others += 1;
    }
    let got = await_count(&client, "T", MANY).await;
    let want: Vec<_> = (0..MANY).map(|n| n.to_string()).collect();
    assert_eq!(bodies(&got), want);
    assert_eq!(await_count(&client, "U", others).await.len(), others);
    assert_eq!(all(&client, "T").await.len(), MANY, "each came once");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_message_waits_for_its_time_when_it_is_committed() {
    let (broker, client) = broker().await;
    let half = timed("T", "half", "TRAN_MSG\x01true\x02PGROUP\x01P_TEST\x02TIMER_DELAY_SEC\x01100\x02")
        .with_field("f", 4);
    let sent = call(&client, half).await;
    assert_eq!(sent.code, response::SUCCESS);
    let id: reput::format::message_id::MessageId = sent.fields.get("msgId").unwrap().parse().unwrap();
    let end = Command::request(request::END_TRANSACTION)
        .with_field("producerGroup", "P_TEST")
        .with_field("tranStateTableOffset", sent.fields.get("queueOffset").unwrap())
        .with_field("commitLogOffset", id.offset)
        .with_field("commitOrRollback", 8)
        .with_field("fromTransactionCheck", false)
        .with_field("msgId", "Uhalf")
        .with_field("transactionId", "Uhalf");
    assert_eq!(call(&client, end).await.code, response::SUCCESS);
    caught_up(&client).await;
    assert!(all(&client, "T").await.is_empty());
    broker.clock().by(Duration::from_secs(102));
    assert_eq!(bodies(&await_count(&client, "T", 1).await), ["half"]);
    broker.stop().await;
}
