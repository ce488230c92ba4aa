//! `reput broker` killed with SIGKILL and started again: nothing that was acknowledged is lost, nothing is given twice
//! that was not, delayed messages still come, and consumers go on where they were.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]
#![cfg(all(feature = "broker", unix))]

mod loopback;

use std::{
    collections::{BTreeMap, BTreeSet},
    process::{Child, Command as Process, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use loopback::{
    Got, Pull, free_port,
    producer::{COMMIT, Half, ROLLBACK, half, heart_beat},
    records, send,
};
use reput::remoting::{
    Client, Command, Connection, Limits, Service,
    codes::{request, response},
};

const WAIT: Duration = Duration::from_secs(20);

/// The broker as a process of its own.
struct Killable {
    child: Child,
    port: u16,
}

impl Killable {
    fn start(dir: &std::path::Path, port: u16, more: &[&str]) -> Self {
        let mut process = Process::new(env!("CARGO_BIN_EXE_reput"));
        process.arg("broker").arg("--store").arg(dir).args(["-n", "127.0.0.1:1"]);
        let small = ["mappedFileSizeCommitLog=16777216", "maxHashSlotNum=1000", "maxIndexNum=4000"];
        for pair in [format!("listenPort={port}").as_str()].iter().chain(&small).chain(more) {
            process.arg("--set").arg(pair);
        }
        let child = process.stdout(Stdio::null()).stderr(Stdio::inherit()).spawn().unwrap();
        Self { child, port }
    }

    async fn client(&self) -> Client {
        let end = Instant::now() + WAIT;
        loop {
            match Client::connect(("127.0.0.1", self.port)).await {
                Ok(client) => return client,
                Err(error) => assert!(Instant::now() < end, "not up: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Killable {
    fn drop(&mut self) {
        // Gone already when the test killed it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn call(client: &Client, command: Command) -> Command {
    client.call(command, WAIT).await.unwrap()
}

async fn read_all(client: &Client, topic: &str) -> Vec<Got> {
    let mut got: Vec<Got> = Vec::new();
    loop {
        let next = i64::try_from(got.len()).unwrap();
        let answer = call(client, Pull::new("G_KILL", topic, 0, next).command()).await;
        let more = records(&answer);
        if more.is_empty() {
            assert_eq!(answer.code, response::PULL_NOT_FOUND, "{answer:?}");
            return got;
        }
        got.extend(more);
    }
}

async fn kill_while_sending(more: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let broker = Killable::start(dir.path(), port, more);
    let client = broker.client().await;
    let delayed = send(request::SEND_MESSAGE_V2, "T_LATER", 0, b"later", "DELAY\x011\x02");
    assert_eq!(call(&client, delayed).await.code, response::SUCCESS);
    let calls: Vec<_> = (0..2_000)
        .map(|n| {
            let body = format!("b{n}");
            client.connection().call(send(request::SEND_MESSAGE_V2, "T_KILL", 0, body.as_bytes(), ""), WAIT)
        })
        .collect();
    let mut acknowledged = 0;
    let mut broker = Some(broker);
    for (n, call) in calls.into_iter().enumerate() {
        match call.await {
            Ok(answer) if answer.code == response::SUCCESS => acknowledged = n + 1,
            _ => break,
        }
        if n == 700 {
            let commit = Pull::new("G_KILL", "T_KILL", 0, 0).commit(0).command();
            client.connection().send(commit);
            broker.take().unwrap().kill();
        }
    }
    assert!(acknowledged > 700, "{acknowledged}");

    let broker = Killable::start(dir.path(), port, more);
    let client = broker.client().await;
    let got = read_all(&client, "T_KILL").await;
    assert!(got.len() >= acknowledged, "{} of {acknowledged} acknowledged messages are there", got.len());
    for (n, record) in got.iter().enumerate() {
        assert_eq!((record.body.clone(), record.queue_offset), (format!("b{n}").into_bytes(), n as i64));
    }
    let end = Instant::now() + WAIT;
    while read_all(&client, "T_LATER").await.is_empty() {
        assert!(Instant::now() < end, "the delayed message was lost");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let next = call(&client, send(request::SEND_MESSAGE_V2, "T_KILL", 0, b"next", "")).await;
    assert_eq!(next.fields.get("queueOffset"), Some(got.len().to_string().as_str()));
    broker.kill();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_broker_has_every_message_that_it_acknowledged() {
    kill_while_sending(&[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_broker_with_synchronous_flush_has_every_message_that_it_acknowledged() {
    kill_while_sending(&["flushDiskType=SYNC_FLUSH"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consumers_of_a_killed_broker_go_on_at_their_last_saved_offset() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let broker = Killable::start(dir.path(), port, &["flushConsumerOffsetInterval=100"]);
    let client = broker.client().await;
    for _ in 0..10 {
        call(&client, send(request::SEND_MESSAGE_V2, "T_GO_ON", 0, b"b", "")).await;
    }
    let end = Instant::now() + WAIT;
    while read_all(&client, "T_GO_ON").await.len() < 10 {
        assert!(Instant::now() < end);
    }
    call(&client, Pull::new("G_GO_ON", "T_GO_ON", 0, 6).commit(6).command()).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    broker.kill();
    let broker = Killable::start(dir.path(), port, &[]);
    let client = broker.client().await;
    let query = Command::request(request::QUERY_CONSUMER_OFFSET)
        .with_field("consumerGroup", "G_GO_ON")
        .with_field("topic", "T_GO_ON")
        .with_field("queueId", 0);
    let answer = call(&client, query).await;
    assert_eq!(answer.fields.get("offset"), Some("6"), "{answer:?}");
    broker.kill();
}

/// Answers what the broker asks: bodies whose number is divisible by three are rolled back, others committed.
struct Decided;

async fn await_body(client: &Client, topic: &str, body: &[u8], count: usize) -> Vec<Got> {
    let end = Instant::now() + WAIT;
    loop {
        let got = read_all(client, topic).await;
        if got.iter().filter(|got| got.body.starts_with(body)).count() >= count {
            return got;
        }
        assert!(Instant::now() < end, "{topic}: {} messages, none more comes", got.len());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// How often each message is in a topic, less those that mark an end.
async fn counted(client: &Client, topic: &str) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for got in read_all(client, topic).await {
        let body = String::from_utf8(got.body).unwrap();
        if !body.starts_with("end") {
            *counts.entry(body).or_default() += 1;
        }
    }
    counts
}

/// Neither service saves how far it is while the test runs: all that is known after a kill stands in the log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delayed_and_timed_messages_that_came_before_a_kill_do_not_come_again_and_the_others_come() {
    const EACH: usize = 100;
    let more =
        ["messageDelayLevel=1s 4s", "flushDelayOffsetInterval=3600000", "timerFlushIntervalMs=3600000"];
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let message = |topic: &str, body: &str, ask: &str| {
        let properties = format!("UNIQ_KEY\x01U{body}\x02{ask}\x02");
        send(request::SEND_MESSAGE_V2, topic, 0, body.as_bytes(), &properties)
    };
    let put = async |client: &Client, topic: &str, body: String, ask: &str| {
        let sent = call(client, message(topic, &body, ask)).await;
        assert_eq!(sent.code, response::SUCCESS, "{sent:?}");
    };
    let mut broker = Killable::start(dir.path(), port, &more);
    let mut client = broker.client().await;
    for n in 0..EACH {
        put(&client, "T_LEVEL", format!("level{n}"), "DELAY\x011").await;
        put(&client, "T_TIMED", format!("timed{n}"), "TIMER_DELAY_SEC\x011").await;
    }
    for n in 0..EACH {
        put(&client, "T_LEVEL", format!("later{n}"), "DELAY\x012").await;
        put(&client, "T_TIMED", format!("later{n}"), "TIMER_DELAY_SEC\x014").await;
    }
    await_body(&client, "T_LEVEL", b"level", EACH).await;
    await_body(&client, "T_TIMED", b"timed", EACH).await;
    for kill in 0..2 {
        broker.kill();
        broker = Killable::start(dir.path(), port, &more);
        client = broker.client().await;
        // What is due first comes first, so behind these nothing more can come.
        for ask in ["DELAY\x011", "DELAY\x012"] {
            put(&client, "T_LEVEL", format!("end{kill}"), ask).await;
        }
        put(&client, "T_TIMED", format!("end{kill}"), "TIMER_DELAY_SEC\x016").await;
        await_body(&client, "T_LEVEL", format!("end{kill}").as_bytes(), 2).await;
        await_body(&client, "T_TIMED", format!("end{kill}").as_bytes(), 1).await;
        for (topic, first) in [("T_LEVEL", "level"), ("T_TIMED", "timed")] {
            let want: BTreeMap<_, _> = (0..EACH)
                .flat_map(|n| [format!("{first}{n}"), format!("later{n}")])
                .map(|body| (body, 1))
                .collect();
            assert_eq!(counted(&client, topic).await, want, "{topic} after kill {kill}");
        }
    }
    broker.kill();
}

fn outcome_of(body: &[u8]) -> i32 {
    let number: u32 = std::str::from_utf8(body).unwrap().parse().unwrap();
    if number.is_multiple_of(3) { ROLLBACK } else { COMMIT }
}

impl Service for Decided {
    fn serve(&self, connection: &Arc<Connection>, batch: Vec<Command>) {
        for question in batch.into_iter().filter(|command| command.code == request::CHECK_TRANSACTION_STATE) {
            let outcome = outcome_of(&records(&question)[0].body);
            let mut answer = Half::asked(&question).end(outcome);
            answer.flag |= 2;
            connection.send(answer);
        }
    }
}

/// The number that a field of an answer holds.
async fn number(client: &Client, command: Command, field: &str) -> i64 {
    call(client, command).await.fields.parse(field).unwrap_or(-1)
}

/// A kill takes the numbers of ended half messages that were not written down yet, and with that the broker forgets
/// that they were ended: their producers are asked again, so a message may come twice, but none is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_transaction_is_lost_or_turned_round_when_the_broker_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let often = ["transactionTimeOut=50", "transactionCheckInterval=100", "transactionCheckMax=100000"];
    let broker = Killable::start(dir.path(), port, &often);
    let client = broker.client().await;
    call(&client, heart_beat("c1")).await;
    let halves: Vec<_> =
        (0..600).map(|n| client.connection().call(half("T_TX", 0, &n.to_string(), ""), WAIT)).collect();
    let mut sent = 0;
    for (n, answer) in halves.into_iter().enumerate() {
        let half = Half::of(&answer.await.unwrap());
        sent = n + 1;
        // Some are ended at once, some never by this producer, and the kill comes in between.
        if n % 2 == 0 {
            client.oneway(half.end(outcome_of(n.to_string().as_bytes())));
        }
        if n == 400 {
            break;
        }
    }
    broker.kill();

    let broker = Killable::start(dir.path(), port, &often);
    drop(broker.client().await);
    let client =
        Client::connect_with(("127.0.0.1", port), Arc::new(Decided), Limits::default()).await.unwrap();
    call(&client, heart_beat("c1")).await;
    let queue = |code| {
        Command::request(code)
            .with_field("topic", "RMQ_SYS_TRANS_HALF_TOPIC")
            .with_field("queueId", 0)
            .with_field("consumerGroup", "CID_RMQ_SYS_TRANS")
    };
    let end = Instant::now() + WAIT;
    loop {
        let all = number(&client, queue(request::GET_MAX_OFFSET), "offset").await;
        let done = number(&client, queue(request::QUERY_CONSUMER_OFFSET), "offset").await;
        if all == done && all >= i64::try_from(sent).unwrap() {
            break;
        }
        assert!(Instant::now() < end, "{done} of {all} half messages are ended");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let got: BTreeSet<Vec<u8>> = read_all(&client, "T_TX").await.into_iter().map(|got| got.body).collect();
    for n in 0..sent {
        let body = n.to_string().into_bytes();
        assert_eq!(got.contains(&body), outcome_of(&body) == COMMIT, "{n}");
    }
    broker.kill();
}
