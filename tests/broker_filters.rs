//! SQL92 filters through a broker in this process: what clients ask before they start, what heartbeats register, what
//! pulls get and how they are refused, and what of it outlives a restart.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]
#![cfg(feature = "broker")]

mod loopback;

use std::time::{Duration, Instant};

use bytes::Bytes;
use loopback::{Fixture, Pull, heart_beat, records, send};
use reput::{
    Config, QueueOffset, Store,
    remoting::{
        Client, Command,
        codes::{request, response},
    },
};

const WAIT: Duration = Duration::from_secs(10);

async fn call(client: &Client, command: Command) -> Command {
    client.call(command, WAIT).await.unwrap()
}

async fn put(client: &Client, topic: &str, body: &str, properties: &str) {
    let sent = send(request::SEND_MESSAGE_V2, topic, 0, body.as_bytes(), properties);
    assert_eq!(call(client, sent).await.code, response::SUCCESS);
}

/// Waits until all of the first queue's messages can be read.
async fn settle(client: &Client, topic: &str, count: usize) {
    let end = Instant::now() + WAIT;
    while records(&call(client, Pull::new("G_LOOK", topic, 0, 0).command()).await).len() < count {
        assert!(Instant::now() < end, "{count} messages of {topic}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn check(kind: &str, expression: &str) -> Command {
    let body = format!(
        r#"{{"clientId":"c","group":"G","namespace":"","subscriptionData":{{"expressionType":"{kind}",
        "subString":"{expression}","subVersion":1,"topic":"T","tagsSet":[],"codeSet":[]}}}}"#
    );
    Command::request(request::CHECK_CLIENT_CONFIG).with_body(Bytes::from(body))
}

/// [`heart_beat`] with an SQL92 expression.
fn sql_beat(group: &str, topic: &str, expression: &str, version: i64) -> Command {
    let beat = heart_beat(group, "client", topic, expression, version);
    let body = String::from_utf8(beat.body.to_bytes().to_vec()).unwrap();
    let body = body.replace(r#""expressionType":"TAG""#, r#""expressionType":"SQL92""#);
    Command::request(request::HEART_BEAT).with_body(Bytes::from(body))
}

/// A pull that brings its own expression.
fn sql_pull(group: &str, topic: &str, expression: &str) -> Command {
    Pull::new(group, topic, 0, 0).subscription(expression).command().with_field("expressionType", "SQL92")
}

fn bodies(answer: &Command) -> Vec<String> {
    records(answer).into_iter().map(|got| String::from_utf8(got.body).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_learns_before_it_starts_whether_its_expression_is_understood() {
    for (enabled, kind, expression, code, remark) in [
        (true, "TAG", "a || b", response::SUCCESS, ""),
        (true, "", "*", response::SUCCESS, ""),
        (true, "SQL92", "a > 1 AND b IN ('x')", response::SUCCESS, ""),
        (true, "SQL92", "a > 'x'", response::SUBSCRIPTION_PARSE_FAILED, "only numbers"),
        (true, "SQL92", "a >", response::SUBSCRIPTION_PARSE_FAILED, "missing"),
        (true, "SQL92", "", response::SUBSCRIPTION_PARSE_FAILED, "empty"),
        (true, "SQL93", "a > 1", response::SUBSCRIPTION_PARSE_FAILED, "SQL93"),
        (false, "SQL92", "a > 1", response::SYSTEM_ERROR, "does not support"),
        (false, "TAG", "a", response::SUCCESS, ""),
    ] {
        let broker = Fixture::start(|config| config.property_filter = enabled).await;
        let client = broker.client().await;
        let answer = call(&client, check(kind, expression)).await;
        assert_eq!(answer.code, code, "{kind} {expression}: {answer:?}");
        assert!(answer.remark.clone().unwrap_or_default().contains(remark), "{answer:?}");
        // The connection lives on.
        assert_eq!(call(&client, check("TAG", "*")).await.code, response::SUCCESS);
        broker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pulls_get_what_the_registered_expression_lets_pass() {
    let broker = Fixture::start(|config| config.property_filter = true).await;
    let client = broker.client().await;
    for n in 0..10 {
        let color = if n % 2 == 0 { "red" } else { "blue" };
        put(&client, "T_SQL", &format!("b{n}"), &format!("a\x01{n}\x02color\x01{color}\x02")).await;
    }
    put(&client, "T_SQL", "no number", "a\x01many\x02color\x01blue\x02").await;
    settle(&client, "T_SQL", 11).await;
    let by_beat = |version| Pull::new("G_SQL", "T_SQL", 0, 0).by_heart_beat(version).command();
    assert_eq!(call(&client, by_beat(0)).await.code, response::SUBSCRIPTION_NOT_EXIST);

    let expression = "a BETWEEN 3 AND 6 AND color <> 'red'";
    assert_eq!(call(&client, sql_beat("G_SQL", "T_SQL", expression, 5)).await.code, response::SUCCESS);
    for code in [request::PULL_MESSAGE, request::LITE_PULL_MESSAGE] {
        let answer = call(&client, Command { code, ..by_beat(5) }).await;
        assert_eq!((answer.code, bodies(&answer)), (response::SUCCESS, vec!["b3".into(), "b5".into()]));
        assert_eq!(answer.fields.get("nextBeginOffset"), Some("11"));
    }
    assert_eq!(call(&client, by_beat(6)).await.code, response::SUBSCRIPTION_NOT_LATEST);
    // An older expression does not replace it, a newer one does, and one that cannot be read takes it away.
    call(&client, sql_beat("G_SQL", "T_SQL", "a = 1", 4)).await;
    assert_eq!(bodies(&call(&client, by_beat(5)).await), ["b3", "b5"]);
    call(&client, sql_beat("G_SQL", "T_SQL", "color = 'blue' AND a = 1", 7)).await;
    assert_eq!(bodies(&call(&client, by_beat(7)).await), ["b1"]);
    call(&client, sql_beat("G_SQL", "T_SQL", "color = 'blue' AND", 8)).await;
    let answer = call(&client, by_beat(8)).await;
    assert_eq!(answer.code, response::FILTER_DATA_NOT_EXIST, "{answer:?}");
    // Nothing that matches: the reader is sent on.
    call(&client, sql_beat("G_SQL", "T_SQL", "a > 100", 9)).await;
    let answer = call(&client, by_beat(9)).await;
    assert_eq!(
        (answer.code, answer.fields.get("nextBeginOffset")),
        (response::PULL_RETRY_IMMEDIATELY, Some("11"))
    );
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_may_bring_its_own_expression() {
    let broker = Fixture::start(|config| config.property_filter = true).await;
    let client = broker.client().await;
    for n in 0..4 {
        put(&client, "T_OWN", &format!("b{n}"), &format!("a\x01{n}\x02")).await;
    }
    settle(&client, "T_OWN", 4).await;
    let answer = call(&client, sql_pull("G_OWN", "T_OWN", "a >= 2")).await;
    assert_eq!((answer.code, bodies(&answer)), (response::SUCCESS, vec!["b2".into(), "b3".into()]));
    for bad in ["a >= ", "", "a = NULL"] {
        let answer = call(&client, sql_pull("G_OWN", "T_OWN", bad)).await;
        assert_eq!(answer.code, response::SUBSCRIPTION_PARSE_FAILED, "{bad}: {answer:?}");
    }
    broker.stop().await;
    let broker = Fixture::start(|_| {}).await;
    let client = broker.client().await;
    put(&client, "T_OWN", "b", "a\x012\x02").await;
    let answer = call(&client, sql_pull("G_OWN", "T_OWN", "a >= 2")).await;
    assert_eq!(answer.code, response::SYSTEM_ERROR);
    assert!(answer.remark.unwrap().contains("does not support consumer to filter message by SQL92"));
    broker.stop().await;
}

/// The arrival of a message that does not match must not end the wait: the pull would come back with nothing. It is
/// answered by the one that matches, whose body it then holds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_held_pull_is_woken_by_the_message_that_matches() {
    let broker = Fixture::start(|config| config.property_filter = true).await;
    let (waiting, client) = (broker.client().await, broker.client().await);
    put(&client, "T_HELD", "before", "a\x010\x02").await;
    settle(&client, "T_HELD", 1).await;
    call(&client, sql_beat("G_HELD", "T_HELD", "a > 5", 1)).await;
    let held = Pull::new("G_HELD", "T_HELD", 0, 1).by_heart_beat(1).suspend(60_000).command();
    let held = tokio::spawn(waiting.connection().call(held, Duration::from_secs(60)));
    // A connection's requests are taken in their order: once this one is answered, the pull is held.
    call(&waiting, check("TAG", "*")).await;
    for n in [1, 2, 3] {
        put(&client, "T_HELD", &format!("small {n}"), &format!("a\x01{n}\x02")).await;
    }
    put(&client, "T_HELD", "odd", "a\x01x\x02").await;
    assert!(!held.is_finished(), "nothing that matches has come");
    put(&client, "T_HELD", "large", "a\x017\x02").await;
    let answer = held.await.unwrap().unwrap();
    assert_eq!((answer.code, bodies(&answer)), (response::SUCCESS, vec!["large".into()]), "{answer:?}");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bitmaps_say_which_filters_pass_and_are_trusted_after_a_restart() {
    let mut broker = Fixture::start(|config| {
        config.property_filter = true;
        config.filter_bitmaps = true;
        config.store.consume_queue_ext = true;
    })
    .await;
    let client = broker.client().await;
    put(&client, "T_MAP", "early", "a\x019\x02").await;
    settle(&client, "T_MAP", 1).await;
    call(&client, sql_beat("G_MAP", "T_MAP", "a > 5", 1)).await;
    // Later than the filter's birth by the clock of the store, which counts milliseconds.
    tokio::time::sleep(Duration::from_millis(5)).await;
    for n in [1, 9, 2] {
        put(&client, "T_MAP", &format!("b{n}"), &format!("a\x01{n}\x02")).await;
    }
    settle(&client, "T_MAP", 4).await;
    let pull = |version| Pull::new("G_MAP", "T_MAP", 0, 0).by_heart_beat(version).command();
    assert_eq!(bodies(&call(&client, pull(1)).await), ["early", "b9"]);
    drop(client);

    let mut bitmaps = Vec::new();
    broker
        .restart_after(|root| {
            let mut config =
                Config::new(root).commit_log_file_size(16u64 << 20).consume_queue_file_size(20_000u64);
            config.consume_queue_ext = true;
            let store = Store::open(config).unwrap();
            let queue = store.queue("T_MAP", 0).unwrap();
            for unit in store.entries(queue, QueueOffset::ZERO, 10).unwrap() {
                bitmaps
                    .push(unit.ext.map(|ext| ext.bitmap.iter().map(|byte| byte.count_ones()).sum::<u32>()));
            }
            store.close().unwrap();
            let file = std::fs::read_to_string(root.join("config/consumerFilter.json")).unwrap();
            assert!(file.contains(r#""expression":"a > 5""#) && file.contains(r#""bitNum":112"#), "{file}");
        })
        .await;
    // No filter yet, then one filter of three bits that does not let pass, does, and does not.
    assert_eq!(bitmaps, [Some(0), Some(0), Some(3), Some(0)]);

    // The group comes back; the same version keeps its filter, and the bitmaps made for it, alive.
    let client = broker.client().await;
    call(&client, sql_beat("G_MAP", "T_MAP", "a > 5", 1)).await;
    assert_eq!(bodies(&call(&client, pull(1)).await), ["early", "b9"]);
    // Another expression was not there when those were stored: it is asked of the records.
    call(&client, sql_beat("G_MAP", "T_MAP", "a < 5", 2)).await;
    assert_eq!(bodies(&call(&client, pull(2)).await), ["b1", "b2"]);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_retry_support_a_retried_message_is_judged_by_the_filter_of_its_own_topic() {
    for (support, expected) in
        [(true, vec!["large", "elsewhere"]), (false, vec!["small", "large", "elsewhere"])]
    {
        let broker = Fixture::start(|config| {
            config.property_filter = true;
            config.filter_retry = support;
        })
        .await;
        let client = broker.client().await;
        let beat = sql_beat("G_BACK", "T_BACK", "a > 5", 1);
        let body = String::from_utf8(beat.body.to_bytes().to_vec()).unwrap();
        let (head, tail) = body.split_once(r#""subscriptionDataSet":["#).unwrap();
        let own = r#"{"classFilterMode":false,"codeSet":[],"expressionType":"SQL92","subString":"TRUE","subVersion":1,"tagsSet":[],"topic":"%RETRY%G_BACK"},"#;
        let both = format!("{head}\"subscriptionDataSet\":[{own}{tail}");
        call(&client, Command::request(request::HEART_BEAT).with_body(Bytes::from(both))).await;
        for (body, topic, a) in [("small", "T_BACK", 1), ("large", "T_BACK", 9), ("elsewhere", "T_OTHER", 1)]
        {
            let properties = format!("RETRY_TOPIC\x01{topic}\x02a\x01{a}\x02");
            put(&client, "%RETRY%G_BACK", body, &properties).await;
        }
        settle(&client, "%RETRY%G_BACK", 3).await;
        let pull = Pull::new("G_BACK", "%RETRY%G_BACK", 0, 0).by_heart_beat(1).command();
        let answer = call(&client, pull).await;
        assert_eq!(bodies(&answer), expected, "{answer:?}");
        broker.stop().await;
    }
}
