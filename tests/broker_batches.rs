//! Topics of inner batches (`queue.type=BatchCQ`): what is sent to one stands in batch queues and in no others, or
//! RocketMQ's broker would not start on the directory.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]
#![cfg(feature = "broker")]

mod loopback;

use std::time::{Duration, Instant};

use loopback::{Fixture, Got, Pull, records, send, send_batch};
use reput::remoting::{
    Client, Command,
    codes::{request, response},
};

const WAIT: Duration = Duration::from_secs(60);
/// Marks of a record that is an inner batch: to be taken apart, and counted for several.
const MARKS: i32 = 1 << 6 | 1 << 7;

async fn call(client: &Client, command: Command) -> Command {
    client.call(command, WAIT).await.unwrap()
}

async fn create(client: &Client, topic: &str, attributes: &str) -> Command {
    let create = Command::request(request::UPDATE_AND_CREATE_TOPIC)
        .with_field("topic", topic)
        .with_field("defaultTopic", "TBW102")
        .with_field("readQueueNums", 2)
        .with_field("writeQueueNums", 2)
        .with_field("perm", 6)
        .with_field("topicFilterType", "SINGLE_TAG")
        .with_field("topicSysFlag", 0)
        .with_field("order", false)
        .with_field("attributes", attributes);
    call(client, create).await
}

async fn pull(client: &Client, topic: &str, offset: i64, count: usize) -> (Vec<Got>, Command) {
    let end = Instant::now() + WAIT;
    loop {
        let answer = call(client, Pull::new("G", topic, 0, offset).command()).await;
        let got = records(&answer);
        if got.len() >= count {
            return (got, answer);
        }
        assert!(Instant::now() < end, "{} of {count} records: {answer:?}", got.len());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn parts(names: &[&str]) -> Vec<(Vec<u8>, String)> {
    names
        .iter()
        .map(|name| (name.as_bytes().to_vec(), format!("UNIQ_KEY\x01U{name}\x02TAGS\x01A\x02")))
        .collect()
}

/// The messages of an inner batch: body and properties.
fn unwrapped(mut batch: &[u8]) -> Vec<(Vec<u8>, String)> {
    let mut all = Vec::new();
    while !batch.is_empty() {
        let size = usize::try_from(u32::from_be_bytes(batch[..4].try_into().unwrap())).unwrap();
        let length = usize::try_from(u32::from_be_bytes(batch[16..20].try_into().unwrap())).unwrap();
        let text = String::from_utf8(batch[20 + length + 2..size].to_vec()).unwrap();
        all.push((batch[20..20 + length].to_vec(), text));
        batch = &batch[size..];
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_to_a_topic_of_batches_stands_in_batch_queues_and_survives_a_restart() {
    let mut broker = Fixture::start(|_| {}).await;
    let client = broker.client().await;
    assert_eq!(create(&client, "B", "+queue.type=BatchCQ").await.code, response::SUCCESS);
    // A pull before the first message must not make the queue one of the other kind.
    let none = call(&client, Pull::new("G", "B", 0, 0).command()).await;
    assert_eq!(none.code, response::PULL_NOT_FOUND, "{none:?}");

    let ask = || Command::request(request::GET_MIN_OFFSET).with_field("topic", "B").with_field("queueId", 0);
    assert_eq!(call(&client, ask()).await.fields.get("offset"), Some("-1"));

    let three = parts(&["a", "b", "c"]);
    let sent = call(&client, send_batch("B", 0, &three, "UNIQ_KEY\x01UB\x02INNER_BASE\x0177\x02")).await;
    assert_eq!((sent.code, sent.fields.get("queueOffset")), (response::SUCCESS, Some("0")), "{sent:?}");
    assert_eq!((sent.fields.get("batchUniqId"), sent.fields.get("transactionId")), (Some("UB"), Some("UB")));
    assert!(!sent.fields.get("msgId").unwrap().contains(','), "one record has one id");
    let one = send(request::SEND_MESSAGE_V2, "B", 0, b"d", "UNIQ_KEY\x01Ud\x02TAGS\x01A\x02");
    let sent = call(&client, one).await;
    assert_eq!((sent.code, sent.fields.get("queueOffset")), (response::SUCCESS, Some("3")), "{sent:?}");
    let two = parts(&["e", "f"]);
    let sent = call(&client, send_batch("B", 0, &two, "")).await;
    assert_eq!((sent.code, sent.fields.get("queueOffset")), (response::SUCCESS, Some("4")), "{sent:?}");

    for restarted in [false, true] {
        if restarted {
            broker.restart().await;
        }
        let client = broker.client().await;
        let (got, answer) = pull(&client, "B", 0, 3).await;
        assert_eq!(
            (answer.fields.get("nextBeginOffset"), answer.fields.get("maxOffset")),
            (Some("6"), Some("6"))
        );
        let marks: Vec<_> = got.iter().map(|got| got.sys_flag & MARKS).collect();
        assert!(marks == [MARKS, 0, MARKS] && got.iter().all(|got| got.topic == "B"), "{marks:?}");
        let starts: Vec<_> = got.iter().map(|got| (got.queue_offset, got.property("INNER_NUM"))).collect();
        assert_eq!(starts, [(0, Some("3")), (3, None), (4, Some("2"))]);
        assert_eq!((got[0].property("INNER_BASE"), got[0].property("UNIQ_KEY")), (Some("0"), Some("UB")));
        assert_eq!(unwrapped(&got[0].body), three);
        assert_eq!((got[1].body.as_slice(), got[1].property("UNIQ_KEY")), (&b"d"[..], Some("Ud")));
        assert_eq!(unwrapped(&got[2].body), two);
        // From within a batch, all of it comes.
        assert_eq!(call(&client, ask()).await.fields.get("offset"), Some("0"));
        assert_eq!(pull(&client, "B", 2, 3).await.0[0].queue_offset, 0);
        assert_eq!(pull(&client, "B", 3, 2).await.0[0].queue_offset, 3);
        let queues = |kind: &str| broker.root().join(kind).join("B");
        assert!(!queues("consumequeue").exists());
        // Files are made when they are flushed, at the latest when the broker stops.
        assert!(!restarted || queues("batchconsumequeue").join("0").exists());
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_an_inner_batch_is_refused_and_leaves_no_queue() {
    let broker = Fixture::start(|config| config.store.multi_dispatch = true).await;
    let client = broker.client().await;
    assert_eq!(create(&client, "B", "+queue.type=BatchCQ").await.code, response::SUCCESS);
    let one = |properties: &str| send(request::SEND_MESSAGE_V2, "B", 0, b"x", properties);
    for (what, send) in [
        ("says so itself", one("INNER_NUM\x012\x02")),
        ("elsewhere too", send(request::SEND_MESSAGE_V2, "T", 0, b"x", "INNER_MULTI_DISPATCH\x01B\x02")),
        ("a delayed batch", send_batch("B", 0, &parts(&["a"]), "DELAY\x011\x02")),
    ] {
        let answer = call(&client, send).await;
        assert_eq!(answer.code, response::MESSAGE_ILLEGAL, "{what}: {answer:?}");
    }
    for kind in ["consumequeue", "batchconsumequeue"] {
        assert!(!broker.root().join(kind).join("B").exists(), "{kind}");
    }
    for attributes in ["+cleanup.policy=COMPACTION", "+message.type=LITE"] {
        let answer = create(&client, "C", attributes).await;
        assert_eq!(answer.code, response::SYSTEM_ERROR, "{attributes}");
        assert!(answer.remark.as_deref().unwrap().contains("allowed is"), "{answer:?}");
    }
    assert_eq!(create(&client, "C", "+cleanup.policy=DELETE").await.code, response::SUCCESS);
    broker.stop().await;
}
