//! Transactions and replies through a broker in this process, over loopback: half messages that are committed, rolled
//! back, asked about and given up, and replies that find the client that waits for them. Time is put forward by hand.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]
#![cfg(feature = "broker")]

mod loopback;

use std::time::{Duration, Instant};

use loopback::{
    Fixture, Got, Pull,
    producer::{COMMIT, GROUP, Half, Producer, ROLLBACK, UNKNOWN},
    records, send,
};
use reput::{
    format::message_id::MessageId,
    remoting::{
        Client, Command,
        codes::{request, response},
    },
};

const WAIT: Duration = Duration::from_secs(30);
/// A little more than the time between two checks, and than the age at which a half message is checked.
const CHECK: Duration = Duration::from_secs(31);
const HALF: &str = "RMQ_SYS_TRANS_HALF_TOPIC";
const OP: &str = "RMQ_SYS_TRANS_OP_HALF_TOPIC";
const GIVEN_UP: &str = "TRANS_CHECK_MAX_TIME_TOPIC";

async fn call(client: &Client, command: Command) -> Command {
    client.call(command, WAIT).await.unwrap()
}

/// The messages of a queue, waited for until there are `count`.
async fn pull_until(client: &Client, topic: &str, queue: i32, count: usize) -> Vec<Got> {
    let end = Instant::now() + WAIT;
    loop {
        let got = records(&call(client, Pull::new("G_READ", topic, queue, 0).command()).await);
        if got.len() >= count || Instant::now() > end {
            assert_eq!(got.len(), count, "{topic} {queue}: {got:?}");
            return got;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// How far the checks are done with a topic.
async fn done(client: &Client, topic: &str) -> i64 {
    let query = Command::request(request::QUERY_CONSUMER_OFFSET)
        .with_field("consumerGroup", "CID_RMQ_SYS_TRANS")
        .with_field("topic", topic)
        .with_field("queueId", 0);
    call(client, query).await.fields.parse("offset").unwrap_or(0)
}

/// Lets checks be made until they are done with this much of the half queue.
async fn check_until_done(broker: &Fixture, client: &Client, halves: i64) {
    let end = Instant::now() + WAIT;
    broker.clock().by(CHECK);
    while done(client, HALF).await != halves {
        assert!(Instant::now() < end, "done with {} half messages of {halves}", done(client, HALF).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn create_topic(client: &Client, topic: &str) {
    // By an ordinary send, which also stands at the head of queue 0.
    let answer = call(client, send(request::SEND_MESSAGE_V2, topic, 0, b"first", "")).await;
    assert_eq!(answer.code, response::SUCCESS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_message_is_seen_by_nobody_until_it_is_committed_and_then_as_it_was_sent() {
    let broker = Fixture::start(|_| {}).await;
    let producer = Producer::connect(broker.address(), "c1", 0).await;
    let half = producer.half("T_TX", 2, "paid", "TAGS\x01eu\x02KEYS\x01k1\x02").await;
    assert_eq!(half.number, 0);
    let waiting = pull_until(&producer.client, HALF, 0, 1).await.remove(0);
    for (name, value) in
        [("REAL_TOPIC", "T_TX"), ("REAL_QID", "2"), ("__transactionId__", "Upaid"), ("TRAN_MSG", "true")]
    {
        assert_eq!(waiting.property(name), Some(value));
    }
    assert_eq!((waiting.sys_flag, waiting.prepared_transaction_offset), (0, 0));
    let behind = send(request::SEND_MESSAGE_V2, "T_TX", 2, b"behind", "");
    assert_eq!(call(&producer.client, behind).await.code, response::SUCCESS);
    assert_eq!(pull_until(&producer.client, "T_TX", 2, 1).await[0].body, b"behind");

    assert_eq!(producer.end(&half, COMMIT).await.code, response::SUCCESS);
    let got = pull_until(&producer.client, "T_TX", 2, 2).await.remove(1);
    assert_eq!((got.body.as_slice(), got.flag, got.sys_flag), (&b"paid"[..], 5, COMMIT));
    assert_eq!(got.prepared_transaction_offset, half.log_offset);
    for (name, value) in [
        ("REAL_TOPIC", None),
        ("REAL_QID", None),
        ("TAGS", Some("eu")),
        ("KEYS", Some("k1")),
        ("TRAN_MSG", Some("true")),
        ("PGROUP", Some(GROUP)),
        ("UNIQ_KEY", Some("Upaid")),
        ("__transactionId__", Some("Upaid")),
    ] {
        assert_eq!(got.property(name), value, "{name}");
    }
    let op = pull_until(&producer.client, OP, 0, 1).await.remove(0);
    assert_eq!(
        (op.body.as_slice(), op.property("TAGS"), op.property("WAIT")),
        (&b"0,"[..], Some("d"), Some("true"))
    );
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_ended_is_written_down_together_and_nobody_is_asked_about_it() {
    let broker = Fixture::start(|config| config.transaction_op_interval_ms = 3_600_000).await;
    let producer = Producer::connect(broker.address(), "c1", 0).await;
    create_topic(&producer.client, "T_TX").await;
    let mut halves = Vec::new();
    for n in 0..10 {
        halves.push(producer.half("T_TX", 0, &format!("b{n}"), "").await);
    }
    for (n, half) in halves.iter().enumerate() {
        let outcome = if n % 2 == 0 { COMMIT } else { ROLLBACK };
        assert_eq!(producer.end(half, outcome).await.code, response::SUCCESS);
        // The same answer once more changes nothing.
        assert_eq!(producer.end(half, outcome).await.code, response::SUCCESS);
    }
    check_until_done(&broker, &producer.client, 10).await;
    let bodies: Vec<_> =
        pull_until(&producer.client, "T_TX", 0, 6).await.into_iter().map(|got| got.body).collect();
    assert_eq!(bodies, [&b"first"[..], b"b0", b"b2", b"b4", b"b6", b"b8"]);
    let ops = records(&call(&producer.client, Pull::new("G_READ", OP, 0, 0).command()).await);
    let numbers: String = ops.iter().map(|op| String::from_utf8(op.body.clone()).unwrap()).collect();
    assert_eq!(numbers, "0,1,2,3,4,5,6,7,8,9,");
    assert!(ops.len() < 10, "gathered into {} messages", ops.len());
    assert_eq!(done(&producer.client, OP).await, i64::try_from(ops.len()).unwrap());
    assert_eq!(producer.asked.count(), 0);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_producer_that_did_not_know_is_asked_and_its_answer_counts() {
    let broker = Fixture::start(|_| {}).await;
    let producer = Producer::connect(broker.address(), "c1", 0).await;
    create_topic(&producer.client, "T_TX").await;
    let half = producer.half("T_TX", 0, "b", "TAGS\x01eu\x02").await;
    assert_eq!(producer.end(&half, UNKNOWN).await.code, response::SUCCESS);
    broker.clock().by(CHECK);
    let question = producer.asked.get(0).await;
    assert!(question.is_oneway());
    let again = Half::asked(&question);
    assert!(again.log_offset > half.log_offset && again.number == 1, "about the new copy: {again:?}");
    let field = |name: &str| question.fields.get(name).unwrap_or("");
    assert_eq!((field("topic"), field("bname")), (HALF, "broker-a"));
    assert_eq!((field("msgId"), field("transactionId")), ("Ub", "Ub"));
    let id: MessageId = question.fields.parse("offsetMsgId").unwrap();
    assert_eq!(id.offset.get(), again.log_offset);
    let shown = records(&question).remove(0);
    assert_eq!((shown.topic.as_str(), shown.body.as_slice(), shown.flag), ("T_TX", &b"b"[..], 5));
    assert_eq!((shown.queue_offset, shown.physical_offset), (again.number, again.log_offset));
    for (name, value) in
        [("TRANSACTION_CHECK_TIMES", "1"), ("PGROUP", GROUP), ("TAGS", "eu"), ("REAL_QID", "0")]
    {
        assert_eq!(shown.property(name), Some(value), "{name}");
    }
    assert_eq!(producer.end(&again, UNKNOWN).await.code, response::SUCCESS);
    producer.heart_beat("c1").await;
    broker.clock().by(CHECK);
    let second = Half::asked(&producer.asked.get(1).await);
    assert_eq!(second.number, 2);
    assert_eq!(producer.end(&second, COMMIT).await.code, response::SUCCESS);
    let got = pull_until(&producer.client, "T_TX", 0, 2).await.remove(1);
    assert_eq!((got.body.as_slice(), got.sys_flag, got.flag), (&b"b"[..], COMMIT, 5));
    assert_eq!(got.prepared_transaction_offset, second.log_offset);
    check_until_done(&broker, &producer.client, 3).await;
    assert_eq!(producer.asked.count(), 2);
    broker.stop().await;
}

/// A producer that is slow is asked before it has answered, and answers every time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_answers_about_several_copies_the_first_counts() {
    let broker = Fixture::start(|_| {}).await;
    let producer = Producer::connect(broker.address(), "c1", 0).await;
    create_topic(&producer.client, "T_TX").await;
    let halves = [producer.half("T_TX", 0, "kept", "").await, producer.half("T_TX", 0, "dropped", "").await];
    let mut copies = Vec::new();
    for round in 0..2 {
        producer.heart_beat("c1").await;
        broker.clock().by(CHECK);
        for n in 0..2 {
            copies.push(Half::asked(&producer.asked.get(2 * round + n).await));
        }
    }
    // Of the first: its second copy is committed, then come the answer about the first and the producer's own.
    for half in [&copies[2], &copies[0], &halves[0]] {
        assert_eq!(producer.end(half, COMMIT).await.code, response::SUCCESS);
    }
    // Of the second: rolled back, and what says otherwise is too late.
    assert_eq!(producer.end(&copies[1], ROLLBACK).await.code, response::SUCCESS);
    for half in [&copies[3], &halves[1]] {
        assert_eq!(producer.end(half, COMMIT).await.code, response::SUCCESS);
    }
    let after = producer.half("T_TX", 0, "after", "").await;
    assert_eq!(producer.end(&after, COMMIT).await.code, response::SUCCESS);
    let got: Vec<_> =
        pull_until(&producer.client, "T_TX", 0, 3).await.into_iter().map(|got| got.body).collect();
    assert_eq!(got, [&b"first"[..], b"kept", b"after"]);
    check_until_done(&broker, &producer.client, 7).await;
    assert_eq!(producer.asked.count(), 4);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_nobody_ends_is_given_up_and_can_be_taken_up_again() {
    let broker = Fixture::start(|config| config.transaction_check_max = 2).await;
    let client = broker.client().await;
    create_topic(&client, "T_TX").await;
    let producer = Producer::connect(broker.address(), "c1", 0).await;
    producer.half("T_TX", 0, "b", "").await;
    drop(producer);
    // Nobody is there to be asked, which counts all the same.
    check_until_done(&broker, &client, 1).await;
    let producer = Producer::connect(broker.address(), "c1", 0).await;
    broker.clock().by(CHECK);
    let question = producer.asked.get(0).await;
    assert_eq!(records(&question)[0].property("TRANSACTION_CHECK_TIMES"), Some("2"));
    check_until_done(&broker, &client, 3).await;
    let given_up = pull_until(&client, GIVEN_UP, 0, 1).await.remove(0);
    assert_eq!((given_up.body.as_slice(), given_up.property("REAL_TOPIC")), (&b"b"[..], Some("T_TX")));
    assert_eq!(producer.asked.count(), 1);

    let resume = |id: &str| Command::request(request::RESUME_CHECK_HALF_MESSAGE).with_field("msgId", id);
    let first = pull_until(&client, "T_TX", 0, 1).await.remove(0);
    assert_eq!(call(&client, resume(&first.message_id)).await.code, response::SYSTEM_ERROR);
    assert_eq!(call(&client, resume(&given_up.message_id)).await.code, response::SUCCESS);
    producer.heart_beat("c1").await;
    broker.clock().by(CHECK);
    let question = producer.asked.get(1).await;
    assert_eq!(records(&question)[0].property("TRANSACTION_CHECK_TIMES"), Some("1"));
    assert_eq!(producer.end(&Half::asked(&question), COMMIT).await.code, response::SUCCESS);
    assert_eq!(pull_until(&client, "T_TX", 0, 2).await[1].body, b"b");
    broker.stop().await;
}

/// Records are stamped by a coarser clock, so what a pass puts may look older than its beginning, and be read by it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pass_asks_once_about_a_half_message_whatever_time_its_copy_bears() {
    let broker = Fixture::start(|_| {}).await;
    let producer = Producer::connect(broker.address(), "c1", 0).await;
    create_topic(&producer.client, "T_TX").await;
    let halves = [producer.half("T_TX", 0, "a", "").await, producer.half("T_TX", 0, "b", "").await];
    broker.clock().coarse_behind(Duration::from_secs(2));
    check_until_done(&broker, &producer.client, 2).await;
    for (n, half) in halves.iter().enumerate() {
        let question = producer.asked.get(n).await;
        assert_eq!(records(&question)[0].property("TRANSACTION_CHECK_TIMES"), Some("1"));
        assert_eq!(producer.end(half, COMMIT).await.code, response::SUCCESS);
    }
    assert_eq!(pull_until(&producer.client, "T_TX", 0, 3).await.len(), 3);
    check_until_done(&broker, &producer.client, 4).await;
    assert_eq!(producer.asked.count(), 2);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_producer_that_wants_more_time_is_not_asked_before_and_its_first_answer_still_counts() {
    let broker = Fixture::start(|_| {}).await;
    let producer = Producer::connect(broker.address(), "c1", 0).await;
    create_topic(&producer.client, "T_TX").await;
    let patient = "CHECK_IMMUNITY_TIME_IN_SECONDS\x01100\x02";
    let half = producer.half("T_TX", 0, "b", patient).await;
    let other = producer.half("T_TX", 0, "late", patient).await;
    // Both are put again behind the others, so that the queue can be done up to here.
    check_until_done(&broker, &producer.client, 2).await;
    let copies = pull_until(&producer.client, HALF, 0, 4).await;
    assert_eq!(copies[2].property("TRAN_PREPARED_QUEUE_OFFSET"), Some("0"));
    assert_eq!(copies[2].property("TRANSACTION_CHECK_TIMES"), None, "it was not checked");
    assert_eq!(producer.end(&half, COMMIT).await.code, response::SUCCESS);
    assert_eq!(pull_until(&producer.client, "T_TX", 0, 2).await[1].body, b"b");
    // The copy of the first is recognized as ended, that of the second put again once more.
    producer.heart_beat("c1").await;
    check_until_done(&broker, &producer.client, 4).await;
    let copies = pull_until(&producer.client, HALF, 0, 5).await;
    assert_eq!(copies[4].property("TRAN_PREPARED_QUEUE_OFFSET"), Some("1"));
    assert_eq!(producer.asked.count(), 0);
    // When the time has passed, only an answer to a question counts.
    producer.heart_beat("c1").await;
    broker.clock().by(CHECK + CHECK);
    let question = Half::asked(&producer.asked.get(0).await);
    assert_eq!(producer.end(&other, COMMIT).await.code, response::ILLEGAL_OPERATION);
    assert_eq!(producer.end(&question, COMMIT).await.code, response::SUCCESS);
    let bodies: Vec<_> =
        pull_until(&producer.client, "T_TX", 0, 3).await.into_iter().map(|got| got.body).collect();
    assert_eq!(bodies, [&b"first"[..], b"b", b"late"]);
    assert_eq!(producer.asked.count(), 1);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_that_does_not_fit_its_half_message_is_refused() {
    let broker = Fixture::start(|_| {}).await;
    let producer = Producer::connect(broker.address(), "c1", 0).await;
    create_topic(&producer.client, "T_TX").await;
    let half = producer.half("T_TX", 0, "b", "").await;
    let plain = pull_until(&producer.client, "T_TX", 0, 1).await.remove(0);
    for (what, command) in [
        ("another group", half.end(COMMIT).with_field("producerGroup", "P_OTHER")),
        ("another number", half.end(COMMIT).with_field("tranStateTableOffset", 7)),
        ("no message there", half.end(ROLLBACK).with_field("commitLogOffset", half.log_offset + 1)),
        ("no half message", half.end(COMMIT).with_field("commitLogOffset", plain.physical_offset)),
        ("beyond the log", half.end(COMMIT).with_field("commitLogOffset", i64::MAX)),
        ("before the log", half.end(COMMIT).with_field("commitLogOffset", -1)),
        ("no such outcome", half.end(4)),
        ("no number", half.end(COMMIT).with_field("commitLogOffset", "x")),
    ] {
        let answer = call(&producer.client, command).await;
        assert_eq!(answer.code, response::SYSTEM_ERROR, "{what}: {answer:?}");
        assert!(answer.remark.is_some_and(|remark| !remark.is_empty()), "{what}");
    }
    assert_eq!(producer.end(&half, COMMIT).await.code, response::SUCCESS);
    assert_eq!(pull_until(&producer.client, "T_TX", 0, 2).await[1].body, b"b");

    let gone = producer.half("T_GONE", 0, "b", "").await;
    let delete = Command::request(request::DELETE_TOPIC_IN_BROKER).with_field("topic", "T_GONE");
    assert_eq!(call(&producer.client, delete).await.code, response::SUCCESS);
    assert_eq!(producer.end(&gone, COMMIT).await.code, response::TOPIC_NOT_EXIST);
    broker.stop().await;

    let broker = Fixture::start(|config| config.reject_transactions = true).await;
    let refused = send(request::SEND_MESSAGE_V2, "T_TX", 0, b"b", "TRAN_MSG\x01true\x02");
    assert_eq!(call(&broker.client().await, refused).await.code, response::NO_PERMISSION);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_go_on_after_a_restart_where_they_were() {
    let mut broker = Fixture::start(|_| {}).await;
    let producer = Producer::connect(broker.address(), "c1", 0).await;
    create_topic(&producer.client, "T_TX").await;
    let committed = producer.half("T_TX", 0, "committed", "").await;
    let rolled_back = producer.half("T_TX", 0, "rolled back", "").await;
    let late = producer.half("T_TX", 0, "late", "").await;
    producer.half("T_TX", 0, "asked", "").await;
    producer.end(&committed, COMMIT).await;
    producer.end(&rolled_back, ROLLBACK).await;
    drop(producer);
    broker.restart().await;
    let producer = Producer::connect(broker.address(), "c1", 0).await;
    assert_eq!(producer.end(&late, COMMIT).await.code, response::SUCCESS);
    broker.clock().by(CHECK);
    let question = producer.asked.get(0).await;
    assert_eq!(records(&question)[0].body, b"asked");
    drop(producer);
    broker.restart().await;
    let producer = Producer::connect(broker.address(), "c1", 0).await;
    assert_eq!(producer.end(&Half::asked(&question), COMMIT).await.code, response::SUCCESS);
    check_until_done(&broker, &producer.client, 5).await;
    let bodies: Vec<_> =
        pull_until(&producer.client, "T_TX", 0, 4).await.into_iter().map(|got| got.body).collect();
    assert_eq!(bodies, [&b"first"[..], b"committed", b"late", b"asked"]);
    assert_eq!(producer.asked.count(), 0);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_committed_message_that_asks_for_a_delay_is_delayed_then() {
    let broker = Fixture::start(|_| {}).await;
    let producer = Producer::connect(broker.address(), "c1", 0).await;
    create_topic(&producer.client, "T_TX").await;
    let half = producer.half("T_TX", 0, "b", "DELAY\x011\x02").await;
    assert_eq!(pull_until(&producer.client, HALF, 0, 1).await[0].property("REAL_TOPIC"), Some("T_TX"));
    assert_eq!(producer.end(&half, COMMIT).await.code, response::SUCCESS);
    let waiting = pull_until(&producer.client, "SCHEDULE_TOPIC_XXXX", 0, 1).await.remove(0);
    assert_eq!((waiting.property("REAL_TOPIC"), waiting.sys_flag), (Some("T_TX"), COMMIT));
    let got = pull_until(&producer.client, "T_TX", 0, 2).await.remove(1);
    assert_eq!((got.body.as_slice(), got.property("DELAY")), (&b"b"[..], None));
    broker.stop().await;
}

fn reply_to(client_id: &str) -> Command {
    let properties =
        format!("REPLY_TO_CLIENT\x01{client_id}\x02CORRELATION_ID\x01c-7\x02MSG_TYPE\x01reply\x02");
    send(request::SEND_MESSAGE_V2, "DefaultCluster_REPLY_TOPIC", 0, b"pong", &properties)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_reaches_the_client_that_waits_for_it_and_is_stored() {
    let broker = Fixture::start(|_| {}).await;
    let client = broker.client().await;
    let waiting = Producer::connect(broker.address(), "c1@7", response::SUCCESS).await;
    let refusing = Producer::connect(broker.address(), "c2@7", response::SYSTEM_ERROR).await;
    let long =
        send(request::SEND_MESSAGE, "DefaultCluster_REPLY_TOPIC", 0, b"pong", "REPLY_TO_CLIENT\x01c1@7\x02");
    for (n, (code, mut reply)) in
        [(request::SEND_REPLY_MESSAGE_V2, reply_to("c1@7")), (request::SEND_REPLY_MESSAGE, long)]
            .into_iter()
            .enumerate()
    {
        reply.code = code;
        let answer = call(&client, reply).await;
        assert_eq!(answer.code, response::SUCCESS, "{answer:?}");
        assert_eq!(answer.fields.get("queueOffset"), Some(n.to_string().as_str()));
        assert_eq!(answer.fields.get("msgId").map(str::len), Some(32));
        let pushed = waiting.asked.get(n).await;
        assert_eq!((pushed.code, pushed.is_oneway()), (request::PUSH_REPLY_MESSAGE_TO_CLIENT, false));
        assert_eq!(pushed.body.to_bytes(), "pong");
        let field = |name: &str| pushed.fields.get(name).unwrap_or("").to_owned();
        assert_eq!(
            (field("topic"), field("producerGroup")),
            ("DefaultCluster_REPLY_TOPIC".into(), "P_TEST".into())
        );
        assert_eq!((field("flag"), field("bornTimestamp")), ("5".into(), "1795240247555".into()));
        let properties = field("properties");
        for part in ["REPLY_TO_CLIENT\x01c1@7\x02", "PUSH_REPLY_TIME\x01", "MSG_REGION\x01DefaultRegion\x02"]
        {
            assert!(properties.contains(part), "{properties:?}");
        }
    }
    assert_eq!(pull_until(&client, "DefaultCluster_REPLY_TOPIC", 0, 2).await[0].body, b"pong");
    let mut lost = Vec::new();
    for (to, why) in [("c2@7", "refused"), ("c3@7", "not connected"), ("", "no property")] {
        let answer = call(&client, Command { code: request::SEND_REPLY_MESSAGE_V2, ..reply_to(to) }).await;
        assert_eq!(answer.code, response::SYSTEM_ERROR, "{answer:?}");
        assert!(answer.remark.as_ref().is_some_and(|remark| remark.contains(why)), "{answer:?}");
        lost.push(answer);
    }
    assert_eq!(refusing.asked.count(), 1);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replies_are_only_passed_on_when_they_shall_not_be_stored() {
    let broker = Fixture::start(|config| config.store_replies = false).await;
    let client = broker.client().await;
    let waiting = Producer::connect(broker.address(), "c1", response::SUCCESS).await;
    let answer = call(&client, Command { code: request::SEND_REPLY_MESSAGE_V2, ..reply_to("c1") }).await;
    assert_eq!((answer.code, answer.fields.get("msgId")), (response::SUCCESS, Some("0")));
    assert_eq!(waiting.asked.count(), 1);
    pull_until(&client, "DefaultCluster_REPLY_TOPIC", 0, 0).await;
    broker.stop().await;
}
