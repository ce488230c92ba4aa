//! What a broker says to requests that it cannot serve, held against what RocketMQ's said to the same ones
//! (`tests/refusals`); the connection and the broker live on.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]
#![cfg(feature = "broker")]

mod loopback;

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use loopback::{Fixture, send};
use reput::{
    format::message_id::MessageId,
    remoting::{
        Client, Command,
        codes::{request, response},
    },
};
use serde_json::Value;

/// The case that sends one.
const HALF_MESSAGE: &str = "send v2: a half message";
const WAIT: Duration = Duration::from_secs(20);

async fn call(client: &Client, command: Command) -> Command {
    client.call(command, WAIT).await.unwrap()
}

fn now() -> String {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis().to_string()
}

/// `half` stands for the place of the half message that a case sent.
fn request_of(case: &Value, half: &str) -> Command {
    let code = i32::try_from(case["code"].as_i64().unwrap()).unwrap();
    let body = match case["body"].as_str().unwrap() {
        "LARGE" => vec![b'L'; (4 << 20) + 1],
        text => text.as_bytes().to_vec(),
    };
    let command = Command::request(code).with_body(Bytes::from(body));
    case["fields"].as_object().unwrap().iter().fold(command, |command, (name, value)| {
        let value = match value.as_str().unwrap() {
            "NOW" => now(),
            "HALF" => half.to_owned(),
            "LONG" => format!("k\u{1}{}\u{2}", "v".repeat(33_000)),
            text => text.to_owned(),
        };
        command.with_field(name, value)
    })
}

async fn prepared() -> (Fixture, Client) {
    let broker = Fixture::start(|config| {
        config.recall_messages = true;
        config.property_filter = true;
    })
    .await;
    let client = broker.client().await;
    for (topic, perm) in [("T", 6), ("R", 4), ("W", 2)] {
        let create = Command::request(request::UPDATE_AND_CREATE_TOPIC)
            .with_field("topic", topic)
            .with_field("defaultTopic", "TBW102")
            .with_field("readQueueNums", 8)
            .with_field("writeQueueNums", 8)
            .with_field("perm", perm)
            .with_field("topicFilterType", "SINGLE_TAG");
        assert_eq!(call(&client, create).await.code, response::SUCCESS);
    }
    for (group, consumes) in [("G", true), ("SHUT", false)] {
        let body = format!("{{\"groupName\":\"{group}\",\"consumeEnable\":{consumes},\"retryQueueNums\":1}}");
        let create = Command::request(request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP).with_body(body);
        assert_eq!(call(&client, create).await.code, response::SUCCESS);
    }
    let strict = Command::request(request::UPDATE_BROKER_CONFIG)
        .with_body(String::from("autoCreateSubscriptionGroup=false"));
    assert_eq!(call(&client, strict).await.code, response::SUCCESS);
    let sent = call(&client, send(request::SEND_MESSAGE_V2, "T", 0, b"first", "")).await;
    assert_eq!(sent.code, response::SUCCESS);
    (broker, client)
}

/// The peer's address is the client's, which differs from run to run.
fn without_peer(remark: &str) -> String {
    let Some(at) = remark.rfind("127.0.0.1:") else { return remark.to_owned() };
    let end = remark[at + 10..].find(|c: char| !c.is_ascii_digit()).map_or(remark.len(), |end| at + 10 + end);
    format!("{}PEER{}", &remark[..at], &remark[end..])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_refusal_has_rocketmq_s_code_and_words_and_the_connection_lives_on() {
    let (broker, client) = prepared().await;
    let cases = include_str!("refusals/cases.jsonl");
    let (mut wrong, mut half) = (Vec::new(), String::new());
    for line in cases.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let answer = call(&client, request_of(&case, &half)).await;
        let name = case["name"].as_str().unwrap();
        if name == HALF_MESSAGE {
            let id: MessageId = answer.fields.text("msgId").unwrap().parse().unwrap();
            half = id.offset.to_string();
        }
        let remark = without_peer(answer.remark.as_deref().unwrap_or(""));
        let here = case.get("here");
        let code = here.unwrap_or(&case["answer"]).as_i64().unwrap();
        if i64::from(answer.code) != code {
            wrong.push(format!("{name}: {} {remark}, and not {code}", answer.code));
        } else if let (Some(said), None) = (case["remark"].as_str(), here)
            && said != remark
        {
            wrong.push(format!("{name}: {remark:?}, and not {said:?}"));
        } else if code != 0 && remark.is_empty() {
            wrong.push(format!("{name}: it says nothing"));
        }
        for (field, value) in case["result"].as_object().into_iter().flatten() {
            if answer.fields.get(field) != value.as_str() {
                wrong.push(format!("{name}: {field} is {:?}, and not {value}", answer.fields.get(field)));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.lines().count(), wrong.join("\n"));
    broker.stop().await;
}

/// Codes of RocketMQ that are served elsewhere (a name server, a controller) or not here, and numbers that are none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_code_that_is_not_served_is_refused_with_rocketmq_s_words() {
    let (broker, client) = prepared().await;
    let alone = [
        -1,
        0,
        1,
        13,
        22,
        23,
        100,
        105,
        302,
        513,
        901,
        904,
        905,
        906,
        1_003,
        1_008,
        1_009,
        1_014,
        2_001,
        2_002,
        4_242,
        5_001,
        i32::MAX,
    ];
    // Users and their rights, and topics of its kind LITE.
    for code in alone.into_iter().chain(3_001..=3_010).chain(200_070..=200_079) {
        let answer = call(&client, Command::request(code)).await;
        let remark = format!(" request type {code} not supported");
        assert_eq!(
            (answer.code, answer.remark.as_deref()),
            (response::REQUEST_CODE_NOT_SUPPORTED, Some(&*remark))
        );
    }
    broker.stop().await;
}

/// Every code that RocketMQ knows, without what it needs and with nonsense for it: answered, never hung up on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nonsense_under_any_code_is_answered_and_ends_nothing() {
    let (broker, client) = prepared().await;
    let nonsense = ["", "x", "-1", "9223372036854775808", "\u{1}\u{2}", "../../etc"];
    let names = [
        "topic",
        "queueId",
        "consumerGroup",
        "group",
        "offset",
        "a",
        "b",
        "e",
        "f",
        "g",
        "h",
        "clientID",
        "key",
        "msgId",
        "extraInfo",
        "commitOffset",
        "timestamp",
        "perm",
        "groupName",
        "maxMsgNums",
        "invisibleTime",
    ];
    for code in (0..500).chain(2_000..2_010).chain(200_050..200_160) {
        for value in nonsense {
            let bare = Command::request(code).with_body(value.to_owned());
            let command = names.iter().fold(bare, |command, name| command.with_field(name, value));
            // A pull that waits is none of the matter here.
            let command = command.with_field("sysFlag", 4).with_field("pollTime", 0);
            assert!(client.call(command, WAIT).await.is_ok(), "code {code}, all fields {value:?}");
        }
    }
    let sent = call(&client, send(request::SEND_MESSAGE_V2, "T", 0, b"after all that", "")).await;
    assert_eq!((sent.code, sent.fields.get("queueOffset")), (response::SUCCESS, Some("1")));
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_frame_ends_its_connection_and_no_other() {
    let (broker, client) = prepared().await;
    let frame = |length: u32, header: u32, rest: &[u8]| {
        [&length.to_be_bytes()[..], &header.to_be_bytes(), rest].concat()
    };
    let broken = [
        ("a frame of 2 GiB", frame(0x7fff_ffff, 10, b"{}")),
        ("a frame below nothing", frame(0xffff_fff0, 10, b"{}")),
        ("a header longer than its frame", frame(8, 4_000, b"{}{}")),
        ("a header that is no JSON", frame(6, 2, b"no")),
        ("a header in a language that nobody speaks", frame(6, 0x0700_0002, b"{}")),
    ];
    for (what, bytes) in broken {
        let at = broker.address();
        let ended = tokio::task::spawn_blocking(move || {
            let mut stream = TcpStream::connect(at).unwrap();
            stream.set_read_timeout(Some(WAIT)).unwrap();
            stream.write_all(&bytes).unwrap();
            let mut answer = Vec::new();
            // Ended by the broker: the end of the stream, or a reset when it had not read everything.
            match stream.read_to_end(&mut answer) {
                Ok(_) => true,
                Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
            }
        });
        assert!(ended.await.unwrap(), "{what}");
        let sent = call(&client, send(request::SEND_MESSAGE_V2, "T", 0, b"beside it", "")).await;
        assert_eq!(sent.code, response::SUCCESS, "{what}");
    }
    broker.stop().await;
}
