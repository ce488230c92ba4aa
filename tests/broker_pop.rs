//! POP consumption over loopback: what is given, hidden, acknowledged, given again and given up, by a clock that the
//! test moves.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]
#![cfg(feature = "broker")]

mod loopback;

use std::{
    future::Future,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use loopback::{Fixture, Got, Pull, heart_beat, records, send, standing_clock};
use reput::{
    Clock, ManualClock,
    broker::BrokerConfig,
    remoting::{
        Client, Command,
        codes::{request, response},
    },
};

const WAIT: Duration = Duration::from_secs(30);
const REVIVE: &str = "rmq_sys_REVIVE_LOG_DefaultCluster";
const REVIVE_GROUP: &str = "CID_RMQ_SYS_REVIVE_GROUP";
const MINUTE: i64 = 60_000;

async fn call(client: &Client, command: Command) -> Command {
    client.call(command, WAIT).await.unwrap()
}

async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let end = Instant::now() + WAIT;
    while !holds().await {
        assert!(Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn field(answer: &Command, name: &str) -> String {
    answer.fields.get(name).unwrap_or_else(|| panic!("no {name} in {answer:?}")).to_owned()
}

/// A broker, a connection, and the clock of both.
struct Bench {
    broker: Fixture,
    client: Client,
    clock: Arc<ManualClock>,
}

impl Bench {
    async fn start(change: impl FnOnce(&mut BrokerConfig)) -> Self {
        Self::over(standing_clock(), |_| {}, change).await
    }

    async fn over(
        clock: Arc<ManualClock>,
        fill: impl FnOnce(&Path),
        change: impl FnOnce(&mut BrokerConfig),
    ) -> Self {
        let quick = |config: &mut BrokerConfig| {
            config.revive_interval_ms = 10;
            config.save_offsets_ms = 100;
            change(config);
        };
        let broker = Fixture::start_at(&clock, fill, quick).await;
        let client = broker.client().await;
        Self { broker, client, clock }
    }

    async fn restart(&mut self) {
        self.broker.restart().await;
        self.client = self.broker.client().await;
    }

    async fn call(&self, command: Command) -> Command {
        call(&self.client, command).await
    }

    async fn topic(&self, name: &str, queues: i32) {
        let made = Command::request(request::UPDATE_AND_CREATE_TOPIC)
            .with_field("topic", name)
            .with_field("defaultTopic", "TBW102")
            .with_field("readQueueNums", queues)
            .with_field("writeQueueNums", queues)
            .with_field("perm", 6)
            .with_field("topicFilterType", "SINGLE_TAG");
        assert_eq!(self.call(made).await.code, response::SUCCESS);
    }

    /// Sends and waits until a consumer could see it.
    async fn send(&self, topic: &str, queue: i32, body: &str, properties: &str) {
        let sent = self.call(send(request::SEND_MESSAGE_V2, topic, queue, body.as_bytes(), properties)).await;
        assert_eq!(sent.code, response::SUCCESS, "{sent:?}");
        let offset: i64 = sent.fields.parse("queueOffset").unwrap();
        until("the message in its queue", || async {
            let answer = self.call(Pull::new("TOOLS_CONSUMER", topic, queue, offset).command()).await;
            answer.code == response::SUCCESS
        })
        .await;
    }

    async fn pop(&self, topic: &str, max: i32) -> Popped {
        Popped::of(self.call(self.pop_command(topic, max)).await)
    }

    fn pop_command(&self, topic: &str, max: i32) -> Command {
        Command::request(request::POP_MESSAGE)
            .with_field("consumerGroup", "G")
            .with_field("topic", topic)
            .with_field("queueId", -1)
            .with_field("maxMsgNums", max)
            .with_field("invisibleTime", MINUTE)
            .with_field("pollTime", 0)
            .with_field("bornTime", self.clock.now().get())
            .with_field("initMode", 0)
            .with_field("expType", "TAG")
            .with_field("exp", "*")
            .with_field("order", false)
    }

    /// Pops until there is a message; what is given again appears behind the clock.
    async fn pop_some(&self, topic: &str) -> Popped {
        let end = Instant::now() + WAIT;
        loop {
            let popped = self.pop(topic, 32).await;
            if !popped.messages.is_empty() {
                return popped;
            }
            assert!(Instant::now() < end, "nothing comes");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn ack(&self, message: &Held) -> Command {
        self.call(message.request(request::ACK_MESSAGE)).await
    }

    /// Moves the clock on.
    fn pass(&self, ms: i64) {
        self.clock.advance(Duration::from_millis(u64::try_from(ms).unwrap()));
    }

    /// Waits until a record of the revive topic is worked off, in the queue that the message names.
    async fn worked_off(&self, revive_queue: i32) {
        until("the revive topic worked off", || async {
            let max = self.max_offset(REVIVE, revive_queue).await;
            self.offset(REVIVE_GROUP, REVIVE, revive_queue).await == Some(max - 1)
        })
        .await;
    }

    async fn max_offset(&self, topic: &str, queue: i32) -> i64 {
        let asked =
            Command::request(request::GET_MAX_OFFSET).with_field("topic", topic).with_field("queueId", queue);
        self.call(asked).await.fields.parse("offset").unwrap()
    }

    async fn offset(&self, group: &str, topic: &str, queue: i32) -> Option<i64> {
        let asked = Command::request(request::QUERY_CONSUMER_OFFSET)
            .with_field("consumerGroup", group)
            .with_field("topic", topic)
            .with_field("queueId", queue)
            .with_field("setZeroIfNotFound", false);
        self.call(asked).await.fields.optional("offset").unwrap()
    }
}

/// The answer to a pop.
struct Popped {
    answer: Command,
    messages: Vec<Held>,
}

impl Popped {
    fn of(answer: Command) -> Self {
        let messages = records(&answer).into_iter().map(|got| Held::new(&answer, got)).collect();
        Self { answer, messages }
    }

    fn bodies(&self) -> Vec<String> {
        self.messages.iter().map(Held::body).collect()
    }
}

/// A message in a consumer's hands, with what names it again: as clients make it from the answer.
struct Held {
    got: Got,
    topic: String,
    info: String,
    queue: i32,
    offset: i64,
}

impl Held {
    fn new(answer: &Command, got: Got) -> Self {
        if let Some(info) = got.property("POP_CK") {
            let words: Vec<_> = info.split(' ').collect();
            let topic = match words[4] {
                "1" => format!("%RETRY%G_{}", got.topic),
                "2" => format!("%RETRY%G+{}", got.topic),
                other => panic!("a retry of kind {other}"),
            };
            let (queue, offset) = (words[6].parse().unwrap(), words[7].parse().unwrap());
            return Self { topic, info: info.to_owned(), queue, offset, got };
        }
        let of = |name: &str, queue: &str| {
            let list = field(answer, name);
            let entry = list.split(';').find(|entry| entry.split(' ').nth(1) == Some(queue));
            entry
                .unwrap_or_else(|| panic!("no queue {queue} in {list}"))
                .split(' ')
                .nth(2)
                .unwrap()
                .to_owned()
        };
        let queue = got.queue_id.to_string();
        assert!(of("msgOffsetInfo", &queue).split(',').any(|at| at == got.queue_offset.to_string()));
        let start = of("startOffsetInfo", &queue);
        let [popped, invisible, revive] =
            ["popTime", "invisibleTime", "reviveQid"].map(|name| field(answer, name));
        let info = format!("{start} {popped} {invisible} {revive} 0 broker-a {queue} {}", got.queue_offset);
        Self { topic: got.topic.clone(), info, queue: got.queue_id, offset: got.queue_offset, got }
    }

    fn body(&self) -> String {
        String::from_utf8(self.got.body.clone()).unwrap()
    }

    fn request(&self, code: i32) -> Command {
        Command::request(code)
            .with_field("consumerGroup", "G")
            .with_field("topic", &self.topic)
            .with_field("queueId", self.queue)
            .with_field("offset", self.offset)
            .with_field("extraInfo", &self.info)
    }

    fn word(&self, n: usize) -> i64 {
        self.info.split(' ').nth(n).unwrap().parse().unwrap()
    }

    fn revive_queue(&self) -> i32 {
        i32::try_from(self.word(3)).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_popped_is_hidden_and_gone_when_it_is_acknowledged() {
    let bench = Bench::start(|_| {}).await;
    bench.topic("T", 2).await;
    for (queue, body) in [(0, "a"), (0, "b"), (1, "c")] {
        bench.send("T", queue, body, "TAGS\x01A\x02").await;
    }
    let popped = bench.pop("T", 32).await;
    assert_eq!(popped.answer.remark.as_deref(), Some("FOUND"));
    let mut bodies = popped.bodies();
    bodies.sort_unstable();
    assert_eq!(bodies, ["a", "b", "c"]);
    assert_eq!(field(&popped.answer, "restNum"), "0");
    assert_eq!(field(&popped.answer, "popTime"), bench.clock.now().get().to_string());
    let again = bench.pop("T", 32).await;
    assert_eq!((again.answer.code, again.messages.len()), (response::POLLING_TIMEOUT, 0));
    assert_eq!(field(&again.answer, "msgOffsetInfo"), "");
    for message in &popped.messages {
        assert_eq!(bench.ack(message).await.code, response::SUCCESS);
    }
    bench.pass(2 * MINUTE);
    bench.worked_off(popped.messages[0].revive_queue()).await;
    assert_eq!(bench.pop("T", 32).await.answer.code, response::POLLING_TIMEOUT);
    assert_eq!(bench.offset("G", "T", 0).await, Some(2));
    bench.broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_acknowledged_comes_again_until_the_last_try_and_then_lies_with_the_dead() {
    let bench = Bench::start(|_| {}).await;
    bench.topic("T", 1).await;
    let group = r#"{"groupName":"G","retryMaxTimes":2}"#.to_owned();
    bench.call(Command::request(request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP).with_body(group)).await;
    for body in ["kept", "lost"] {
        bench.send("T", 0, body, "TAGS\x01A\x02KEYS\x01k\x02UNIQ_KEY\x01U1\x02").await;
    }
    let first = bench.pop("T", 32).await;
    assert_eq!(first.bodies(), ["kept", "lost"]);
    let popped_at = first.word_of("popTime");
    bench.ack(&first.messages[0]).await;
    for tries in 1..=2 {
        bench.pass(MINUTE + 1);
        let again = bench.pop_some("T").await;
        assert_eq!(again.bodies(), ["lost"]);
        let Held { got, info, topic, .. } = &again.messages[0];
        assert_eq!((got.topic.as_str(), got.reconsume_times, topic.as_str()), ("T", tries, "%RETRY%G_T"));
        for (name, value) in [
            ("TAGS", "A"),
            ("KEYS", "k"),
            ("UNIQ_KEY", "U1"),
            ("1ST_POP_TIME", popped_at.as_str()),
            ("ORIGIN_GROUP", "G"),
            ("POP_CK", info),
        ] {
            assert_eq!(got.property(name), Some(value), "{name}");
        }
        let starts = field(&again.answer, "startOffsetInfo");
        assert_eq!(starts, format!("1 0 {}", tries - 1), "a retry is told as one");
    }
    bench.pass(MINUTE + 1);
    until("a dead letter", || async {
        let dead = bench.call(Pull::new("G_DEAD", "%DLQ%G", 0, 0).command()).await;
        dead.code == response::SUCCESS
    })
    .await;
    let dead = records(&bench.call(Pull::new("G_DEAD", "%DLQ%G", 0, 0).command()).await);
    assert_eq!((dead.len(), dead[0].body.as_slice(), dead[0].reconsume_times), (1, &b"lost"[..], 3));
    assert_eq!(dead[0].property("RETRY_TOPIC"), Some("T"));
    assert!(dead[0].property("ORIGIN_MESSAGE_ID").is_some());
    bench.pass(2 * MINUTE);
    assert_eq!(bench.pop("T", 32).await.answer.code, response::POLLING_TIMEOUT);
    bench.broker.stop().await;
}

impl Popped {
    fn word_of(&self, name: &str) -> String {
        field(&self.answer, name)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_that_is_acknowledged_does_not_come_again_with_either_name_of_its_topic() {
    for (v2, retry) in [(false, "%RETRY%G_T"), (true, "%RETRY%G+T")] {
        let bench = Bench::start(|config| config.retry_topic_v2 = v2).await;
        bench.topic("T", 1).await;
        bench.send("T", 0, "a", "").await;
        bench.pop("T", 32).await;
        bench.pass(MINUTE);
        let again = bench.pop_some("T").await;
        assert_eq!((again.bodies(), again.messages[0].topic.as_str()), (vec!["a".to_owned()], retry));
        assert_eq!(bench.ack(&again.messages[0]).await.code, response::SUCCESS);
        bench.pass(2 * MINUTE);
        bench.worked_off(again.messages[0].revive_queue()).await;
        assert_eq!(bench.pop("T", 32).await.answer.code, response::POLLING_TIMEOUT);
        bench.broker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_of_acknowledgements_ends_those_that_it_names_and_no_others() {
    let bench = Bench::start(|_| {}).await;
    bench.topic("T", 1).await;
    for n in 0..11 {
        bench.send("T", 0, &format!("b{n}"), "").await;
    }
    let popped = bench.pop("T", 32).await;
    assert_eq!(popped.messages.len(), 11);
    let first = &popped.messages[0];
    // Bits 0 and 9, as Java writes them.
    let body = format!(
        r#"{{"acks":[{{"b":"AQI=","c":"G","it":{MINUTE},"pt":{},"q":0,"r":"0","rq":{},"so":0,"t":"T"}}],"brokerName":"broker-a"}}"#,
        first.word(1),
        first.revive_queue()
    );
    let batch = bench.call(Command::request(request::BATCH_ACK_MESSAGE).with_body(body)).await;
    assert_eq!(batch.code, response::SUCCESS, "{batch:?}");
    bench.pass(MINUTE);
    let mut bodies = Vec::new();
    while bodies.len() < 9 {
        bodies.extend(bench.pop_some("T").await.bodies());
    }
    bodies.sort_unstable();
    assert_eq!(bodies, ["b1", "b10", "b2", "b3", "b4", "b5", "b6", "b7", "b8"]);
    bench.broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_invisible_time_can_be_made_longer_and_shorter() {
    let bench = Bench::start(|_| {}).await;
    bench.topic("T", 1).await;
    for body in ["longer", "shorter"] {
        bench.send("T", 0, body, "").await;
    }
    let popped = bench.pop("T", 32).await;
    let change = |message: &Held, ms: i64| {
        message.request(request::CHANGE_MESSAGE_INVISIBLETIME).with_field("invisibleTime", ms)
    };
    bench.pass(1_000);
    let longer = bench.call(change(&popped.messages[0], 5 * MINUTE)).await;
    assert_eq!((longer.code, field(&longer, "invisibleTime")), (response::SUCCESS, (5 * MINUTE).to_string()));
    assert_eq!(field(&longer, "popTime"), bench.clock.now().get().to_string());
    let shorter = bench.call(change(&popped.messages[1], 10)).await;
    assert_eq!(shorter.code, response::SUCCESS);
    bench.pass(10);
    let again = bench.pop_some("T").await;
    assert_eq!(again.bodies(), ["shorter"]);
    bench.ack(&again.messages[0]).await;
    bench.pass(2 * MINUTE);
    // Each record of the time before is worked off but the check point that is open.
    until("the acknowledged retry worked off", || async {
        bench.offset("G", "%RETRY%G_T", 0).await == Some(1)
    })
    .await;
    assert_eq!(bench.pop("T", 32).await.answer.code, response::POLLING_TIMEOUT);
    // The message is named by the new times from now on: it can be acknowledged with them.
    let message = &popped.messages[0];
    let [time, ms, queue] = ["popTime", "invisibleTime", "reviveQid"].map(|name| field(&longer, name));
    let info = format!("0 {time} {ms} {queue} 0 broker-a 0 0");
    let ack = message.request(request::ACK_MESSAGE).with_field("extraInfo", info);
    assert_eq!(bench.call(ack).await.code, response::SUCCESS);
    bench.pass(10 * MINUTE);
    bench.worked_off(message.revive_queue()).await;
    assert_eq!(bench.pop("T", 32).await.answer.code, response::POLLING_TIMEOUT);
    bench.broker.stop().await;
}

/// A change within the millisecond of the pop: were the new check point named like the old one, the acknowledgement of
/// the old would end the new, and the message would never come again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_whose_time_is_changed_at_once_is_not_lost() {
    let bench = Bench::start(|_| {}).await;
    bench.topic("T", 1).await;
    bench.send("T", 0, "a", "").await;
    let popped = bench.pop("T", 32).await;
    let change = popped.messages[0].request(request::CHANGE_MESSAGE_INVISIBLETIME);
    assert_eq!(bench.call(change.with_field("invisibleTime", 500)).await.code, response::SUCCESS);
    bench.pass(600);
    assert_eq!(bench.pop_some("T").await.bodies(), ["a"]);
    bench.broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pop_that_finds_nothing_waits_for_a_message_for_a_retry_and_for_its_time() {
    let bench = Bench::start(|_| {}).await;
    bench.topic("T", 1).await;
    let waiting = bench.broker.client().await;
    let long = |n: i64| bench.pop_command("T", 32).with_field("pollTime", n * MINUTE);
    let info = || {
        Command::request(request::POLLING_INFO)
            .with_field("consumerGroup", "G")
            .with_field("topic", "T")
            .with_field("queueId", -1)
    };
    let polling = || async { field(&bench.call(info()).await, "pollingNum") };
    // A message.
    let held = waiting.connection().call(long(1), WAIT);
    until("one pop waits", || async { polling().await == "1" }).await;
    bench.send("T", 0, "a", "").await;
    let popped = Popped::of(held.await.unwrap());
    assert_eq!(popped.bodies(), ["a"]);
    // One that is given again.
    let held = waiting.connection().call(long(3), WAIT);
    until("one pop waits", || async { polling().await == "1" }).await;
    bench.pass(MINUTE);
    assert_eq!(Popped::of(held.await.unwrap()).bodies(), ["a"]);
    // Its time.
    let held = waiting.connection().call(long(1).with_field("exp", "other"), WAIT);
    until("one pop waits", || async { polling().await == "1" }).await;
    bench.send("T", 0, "b", "TAGS\x01none\x02").await;
    assert_eq!(polling().await, "1", "a message that it does not ask for");
    bench.pass(MINUTE);
    assert_eq!(held.await.unwrap().code, response::POLLING_TIMEOUT);
    assert_eq!(polling().await, "0");
    bench.broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_answers_the_pops_that_wait_and_more_than_allowed_do_not_wait() {
    let bench = Bench::start(|config| config.pop_held_each = 1).await;
    bench.topic("T", 1).await;
    let waiting = bench.broker.client().await;
    let long = || bench.pop_command("T", 32).with_field("pollTime", MINUTE);
    let held = waiting.connection().call(long(), WAIT);
    let info = || {
        let asked = Command::request(request::POLLING_INFO).with_field("consumerGroup", "G");
        asked.with_field("topic", "T").with_field("queueId", -1)
    };
    until("one pop waits", || async { field(&bench.call(info()).await, "pollingNum") == "1" }).await;
    assert_eq!(bench.call(long()).await.code, response::POLLING_FULL);
    bench.broker.stop().await;
    assert_eq!(held.await.unwrap().code, response::POLLING_TIMEOUT);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_notification_tells_of_messages_and_takes_none() {
    let bench = Bench::start(|_| {}).await;
    bench.topic("T", 2).await;
    let ask = |poll: i64| {
        Command::request(request::NOTIFICATION)
            .with_field("consumerGroup", "G")
            .with_field("topic", "T")
            .with_field("queueId", -1)
            .with_field("pollTime", poll)
            .with_field("bornTime", bench.clock.now().get())
    };
    let told = |answer: &Command| (answer.code, field(answer, "hasMsg"), field(answer, "pollingFull"));
    let is = |found: &str| (response::SUCCESS, found.to_owned(), "false".to_owned());
    assert_eq!(told(&bench.call(ask(0)).await), is("false"));
    let waiting = bench.broker.client().await;
    let held = waiting.connection().call(ask(MINUTE), WAIT);
    bench.send("T", 1, "a", "").await;
    assert_eq!(told(&held.await.unwrap()), is("true"));
    assert_eq!(told(&bench.call(ask(MINUTE)).await), is("true"));
    let popped = bench.pop("T", 32).await;
    assert_eq!(popped.bodies(), ["a"]);
    assert_eq!(told(&bench.call(ask(0)).await), is("false"));
    bench.pass(MINUTE);
    until("a retry is told of", || async { told(&bench.call(ask(0)).await) == is("true") }).await;
    bench.broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peek_leaves_the_messages_where_they_are() {
    let bench = Bench::start(|_| {}).await;
    bench.topic("T", 1).await;
    let peek = |max: i32| {
        Command::request(request::PEEK_MESSAGE)
            .with_field("consumerGroup", "G")
            .with_field("topic", "T")
            .with_field("queueId", -1)
            .with_field("maxMsgNums", max)
    };
    assert_eq!(bench.call(peek(32)).await.code, response::PULL_NOT_FOUND);
    for body in ["a", "b", "c"] {
        bench.send("T", 0, body, "").await;
    }
    for _ in 0..2 {
        let peeked = bench.call(peek(2)).await;
        assert_eq!((peeked.code, field(&peeked, "restNum")), (response::SUCCESS, "3".to_owned()));
        let bodies: Vec<_> = records(&peeked).into_iter().map(|got| got.body).collect();
        assert_eq!(bodies, [b"a", b"b"]);
    }
    assert_eq!(bench.pop("T", 32).await.messages.len(), 3);
    assert_eq!(bench.call(peek(32)).await.code, response::PULL_NOT_FOUND);
    bench.broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_order_a_queue_is_closed_until_what_was_popped_is_acknowledged_or_visible_again() {
    let mut bench = Bench::start(|_| {}).await;
    bench.topic("T", 1).await;
    for body in ["a", "b", "c"] {
        bench.send("T", 0, body, "").await;
    }
    let pop = |bench: &Bench, max: i32, attempt: &str| {
        let command = bench.pop_command("T", max).with_field("order", true);
        let command = command.with_field("attemptId", attempt);
        let client = &bench.client;
        let answer = client.connection().call(command, WAIT);
        async move { Popped::of(answer.await.unwrap()) }
    };
    let first = pop(&bench, 2, "1").await;
    assert_eq!(
        (first.bodies(), field(&first.answer, "reviveQid")),
        (vec!["a".into(), "b".into()], "999".into())
    );
    assert_eq!(field(&first.answer, "orderCountInfo"), "0 0 0");
    assert_eq!(pop(&bench, 2, "2").await.answer.code, response::POLLING_TIMEOUT, "closed");
    assert_eq!(pop(&bench, 2, "1").await.bodies(), ["a", "b"], "the same try again");
    // What is in hand survives a restart.
    let again = pop(&bench, 2, "1").await;
    bench.restart().await;
    assert_eq!(pop(&bench, 2, "2").await.answer.code, response::POLLING_TIMEOUT, "still closed");
    assert_eq!(bench.ack(&again.messages[0]).await.code, response::SUCCESS);
    assert_eq!(pop(&bench, 2, "2").await.answer.code, response::POLLING_TIMEOUT, "b is open");
    let change = again.messages[1].request(request::CHANGE_MESSAGE_INVISIBLETIME);
    let changed = bench.call(change.with_field("invisibleTime", 5_000)).await;
    assert_eq!((changed.code, field(&changed, "reviveQid")), (response::SUCCESS, "999".to_owned()));
    // A pop that waits looks again when the queue opens.
    let waiting = bench.broker.client().await;
    let long = bench.pop_command("T", 2).with_field("order", true).with_field("pollTime", 10 * MINUTE);
    let held = waiting.connection().call(long.with_field("attemptId", "3"), WAIT);
    bench.pass(5_000);
    let second = Popped::of(held.await.unwrap());
    assert_eq!(second.bodies(), ["b", "c"]);
    assert_eq!(field(&second.answer, "orderCountInfo"), "0 qo0%1 1;0 0 0");
    let foreign = second.messages[0].request(request::ACK_MESSAGE).with_field("offset", 3);
    assert_eq!(bench.call(foreign).await.code, response::MESSAGE_ILLEGAL);
    // The acknowledgement of the last one opens the queue to one that waits.
    let long = bench.pop_command("T", 2).with_field("order", true).with_field("pollTime", 10 * MINUTE);
    let held = waiting.connection().call(long, WAIT);
    bench.send("T", 0, "d", "").await;
    for message in &second.messages {
        assert_eq!(bench.ack(message).await.code, response::SUCCESS);
    }
    assert_eq!(Popped::of(held.await.unwrap()).bodies(), ["d"]);
    assert_eq!(bench.offset("G", "T", 0).await, Some(3));
    bench.broker.stop().await;
}

/// A copy of a running broker's directory is what a kill leaves: the mapped files as they are, no table saved at the end.
fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_points_and_acknowledgements_outlive_a_kill() {
    let bench = Bench::start(|_| {}).await;
    bench.topic("T", 1).await;
    for body in ["acked", "open", "later"] {
        bench.send("T", 0, body, "").await;
    }
    let popped = bench.pop("T", 2).await;
    assert_eq!(popped.bodies(), ["acked", "open"]);
    assert_eq!(bench.ack(&popped.messages[0]).await.code, response::SUCCESS);
    let saved = bench.broker.root().join("config/consumerOffset.json");
    until("the group's offset is saved", || async {
        std::fs::read_to_string(&saved).is_ok_and(|text| text.contains("\"T@G\":{\n\t\t\t0:2\n"))
    })
    .await;
    let from = bench.broker.root().to_owned();
    let killed = Bench::over(Arc::clone(&bench.clock), |to| copy_dir(&from, to), |_| {}).await;
    assert!(from.join("abort").exists());
    assert_eq!(killed.pop("T", 32).await.bodies(), ["later"], "what was popped stays hidden");
    killed.pass(MINUTE);
    let mut bodies = Vec::new();
    while bodies.len() < 2 {
        bodies.extend(killed.pop_some("T").await.bodies());
    }
    bodies.sort_unstable();
    assert_eq!(bodies, ["later", "open"], "what was acknowledged does not come again");
    killed.broker.stop().await;
    bench.broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pop_takes_what_it_asks_for_and_passes_over_the_rest() {
    let bench = Bench::start(|_| {}).await;
    bench.topic("T", 1).await;
    for (body, tag, price) in [("a", "A", 1), ("b", "B", 5), ("c", "C", 9)] {
        bench.send("T", 0, body, &format!("TAGS\x01{tag}\x02price\x01{price}\x02")).await;
    }
    let by = |group: &str, kind: &str, expression: &str| {
        let pop = bench.pop_command("T", 32).with_field("consumerGroup", group);
        pop.with_field("expType", kind).with_field("exp", expression)
    };
    assert_eq!(Popped::of(bench.call(by("G", "TAG", "A || C")).await).bodies(), ["a", "c"]);
    assert_eq!(bench.offset("G", "T", 0).await, Some(3));
    assert_eq!(Popped::of(bench.call(by("H", "SQL92", "price BETWEEN 2 AND 8")).await).bodies(), ["b"]);
    for (kind, bad) in [("SQL92", "price > 3 AND"), ("OTHER", "x")] {
        assert_eq!(bench.call(by("H", kind, bad)).await.code, response::SUBSCRIPTION_PARSE_FAILED, "{bad}");
    }
    // One that waits is woken by what it asks for.
    let waiting = bench.broker.client().await;
    let held = waiting.connection().call(by("H", "SQL92", "price > 3").with_field("pollTime", MINUTE), WAIT);
    bench.send("T", 0, "d", "price\x012\x02").await;
    bench.send("T", 0, "e", "price\x014\x02").await;
    assert_eq!(Popped::of(held.await.unwrap()).bodies(), ["e"]);
    bench.broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_group_starts_where_it_asks_and_a_reset_moves_pops() {
    let bench = Bench::start(|config| config.pop_young_queues = false).await;
    bench.topic("T", 1).await;
    for body in ["a", "b", "c"] {
        bench.send("T", 0, body, "").await;
    }
    let last = bench.pop_command("T", 32).with_field("initMode", 1);
    assert_eq!(Popped::of(bench.call(last).await).bodies(), ["c"], "the last message, as in RocketMQ");
    let waiting = bench.broker.client().await;
    let held = waiting.connection().call(bench.pop_command("T", 32).with_field("pollTime", MINUTE), WAIT);
    let reset = Command::request(request::INVOKE_BROKER_TO_RESET_OFFSET)
        .with_field("topic", "T")
        .with_field("group", "G")
        .with_field("timestamp", 0)
        .with_field("isForce", true)
        .with_field("queueId", 0)
        .with_field("offset", 1);
    assert_eq!(bench.call(reset).await.code, response::SUCCESS);
    assert_eq!(Popped::of(held.await.unwrap()).bodies(), ["b", "c"]);
    bench.broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_more_is_popped_while_too_much_is_in_hands() {
    let bench = Bench::start(|config| config.pop_check_points = 1).await;
    bench.topic("T", 1).await;
    for body in ["a", "b"] {
        bench.send("T", 0, body, "").await;
    }
    let popped = bench.pop("T", 1).await;
    assert_eq!(popped.bodies(), ["a"]);
    until("the bound is reached", || async {
        // What slips in before the count is taken goes back by being acknowledged.
        let more = bench.pop("T", 0).await;
        for message in &more.messages {
            bench.ack(message).await;
        }
        more.answer.code == response::POLLING_FULL
    })
    .await;
    bench.ack(&popped.messages[0]).await;
    bench.send("T", 0, "c", "").await;
    let mut code = response::POLLING_FULL;
    while code == response::POLLING_FULL {
        code = bench.pop("T", 1).await.answer.code;
    }
    assert_eq!(code, response::SUCCESS);
    bench.broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_broker_assigns_queues_by_the_mode_that_was_set() {
    let mut bench = Bench::start(|_| {}).await;
    bench.topic("T", 4).await;
    let ask = |client: &str, model: &str| {
        let body = format!(
            r#"{{"clientId":"{client}","consumerGroup":"G","messageModel":"{model}","strategyName":"AVG","topic":"T"}}"#
        );
        Command::request(request::QUERY_ASSIGNMENT).with_body(body)
    };
    let text = |answer: &Command| String::from_utf8(answer.body.to_bytes().to_vec()).unwrap();
    assert_eq!(text(&bench.call(ask("c1", "CLUSTERING")).await), "{}", "no member: nothing to decide by");
    let other = bench.broker.client().await;
    bench.call(heart_beat("G", "c1", "T", "*", 1)).await;
    call(&other, heart_beat("G", "c2", "T", "*", 1)).await;
    let entry = |queue: i32, mode: &str| {
        format!(
            r#"{{"messageQueue":{{"brokerName":"broker-a","queueId":{queue},"topic":"T"}},"mode":"{mode}"}}"#
        )
    };
    let list = |entries: &[String]| format!(r#"{{"messageQueueAssignments":[{}]}}"#, entries.join(","));
    let pulled = |ids: &[i32]| list(&ids.iter().map(|id| entry(*id, "PULL")).collect::<Vec<_>>());
    assert_eq!(text(&bench.call(ask("c1", "CLUSTERING")).await), pulled(&[0, 1]));
    assert_eq!(text(&bench.call(ask("c2", "CLUSTERING")).await), pulled(&[2, 3]));
    assert_eq!(text(&bench.call(ask("c2", "BROADCASTING")).await), pulled(&[0, 1, 2, 3]));
    assert_eq!(bench.call(ask("c2", "OTHER")).await.code, response::INVALID_PARAMETER);
    let set = |topic: &str, mode: &str| {
        let body =
            format!(r#"{{"consumerGroup":"G","mode":"{mode}","popShareQueueNum":8,"topic":"{topic}"}}"#);
        Command::request(request::SET_MESSAGE_REQUEST_MODE).with_body(body)
    };
    for (topic, mode, code) in [
        ("T", "POP", response::SUCCESS),
        ("T", "PUSH", response::INVALID_PARAMETER),
        ("none", "POP", response::TOPIC_NOT_EXIST),
        ("%RETRY%G", "POP", response::NO_PERMISSION),
        ("../T", "POP", response::INVALID_PARAMETER),
    ] {
        assert_eq!(bench.call(set(topic, mode)).await.code, code, "{topic} {mode}");
    }
    bench.restart().await;
    bench.call(heart_beat("G", "c1", "T", "*", 1)).await;
    assert_eq!(text(&bench.call(ask("c1", "CLUSTERING")).await), list(&[entry(-1, "POP")]));
    let all = bench.call(Command::request(request::GET_ALL_MESSAGE_REQUEST_MODE)).await;
    assert!(text(&all).contains(r#""T":{"G":{"consumerGroup":"G","mode":"POP","popShareQueueNum":8"#));
    bench.broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_bad_request_gets_rocketmq_s_code_and_the_broker_lives_on() {
    let bench = Bench::start(|config| config.auto_create_group = false).await;
    bench.topic("T", 1).await;
    let group = r#"{"groupName":"G"}"#.to_owned();
    bench.call(Command::request(request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP).with_body(group)).await;
    let off = r#"{"groupName":"OFF","consumeEnable":false}"#.to_owned();
    bench.call(Command::request(request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP).with_body(off)).await;
    let write_only = Command::request(request::UPDATE_AND_CREATE_TOPIC)
        .with_field("topic", "W")
        .with_field("defaultTopic", "TBW102")
        .with_field("readQueueNums", 1)
        .with_field("writeQueueNums", 1)
        .with_field("perm", 2)
        .with_field("topicFilterType", "SINGLE_TAG");
    bench.call(write_only).await;
    bench.send("T", 0, "a", "").await;
    let popped = bench.pop("T", 32).await;
    let good = &popped.messages[0];
    let pop = || bench.pop_command("T", 32);
    let reader = |code: i32| {
        let asked = [
            ("consumerGroup", "G"),
            ("topic", "T"),
            ("queueId", "-1"),
            ("maxMsgNums", "1"),
            ("pollTime", "0"),
        ];
        asked.iter().fold(Command::request(code), |cmd, (name, value)| cmd.with_field(name, value))
    };
    let (ack, change) = (request::ACK_MESSAGE, request::CHANGE_MESSAGE_INVISIBLETIME);
    let late = bench.clock.now().get() - MINUTE;
    let mut table = vec![
        (pop().with_field("bornTime", late), response::POLLING_TIMEOUT),
        (pop().with_field("maxMsgNums", 33), response::INVALID_PARAMETER),
        (pop().with_field("invisibleTime", -1), response::INVALID_PARAMETER),
        (pop().with_field("invisibleTime", "soon"), response::SYSTEM_ERROR),
        (Command::request(request::POP_MESSAGE), response::SYSTEM_ERROR),
        (good.request(ack).with_field("topic", "none"), response::TOPIC_NOT_EXIST),
        (good.request(ack).with_field("queueId", 1), response::MESSAGE_ILLEGAL),
        (good.request(ack).with_field("queueId", -1), response::MESSAGE_ILLEGAL),
        (good.request(ack).with_field("offset", 2), response::NO_MESSAGE),
        (good.request(ack).with_field("offset", -1), response::NO_MESSAGE),
        (good.request(ack).with_field("consumerGroup", "a@b"), response::INVALID_PARAMETER),
        (good.request(ack).with_field("extraInfo", "0 1 2"), response::SYSTEM_ERROR),
        (good.request(ack).with_field("extraInfo", "0 1 2 77 0 b 0 0"), response::SYSTEM_ERROR),
        (good.request(change).with_field("invisibleTime", 1).with_field("offset", 1), response::NO_MESSAGE),
        (good.request(change).with_field("invisibleTime", -1), response::INVALID_PARAMETER),
        (good.request(change), response::SYSTEM_ERROR),
        (Command::request(request::BATCH_ACK_MESSAGE), response::NO_MESSAGE),
        (
            Command::request(request::BATCH_ACK_MESSAGE).with_body("{\"acks\":[]}".to_owned()),
            response::NO_MESSAGE,
        ),
        (Command::request(request::BATCH_ACK_MESSAGE).with_body("{".to_owned()), response::SYSTEM_ERROR),
        (
            Command::request(request::BATCH_ACK_MESSAGE)
                .with_body("{\"acks\":[{\"c\":\"G\",\"t\":\"T\"}]}".to_owned()),
            response::MESSAGE_ILLEGAL,
        ),
        (Command::request(request::QUERY_ASSIGNMENT).with_body("[]".to_owned()), response::INVALID_PARAMETER),
        (
            Command::request(request::SET_MESSAGE_REQUEST_MODE).with_body("{".to_owned()),
            response::SYSTEM_ERROR,
        ),
    ];
    for code in [request::POP_MESSAGE, request::NOTIFICATION, request::PEEK_MESSAGE, request::POLLING_INFO] {
        let of = || if code == request::POP_MESSAGE { pop() } else { reader(code) };
        table.extend([
            (of().with_field("topic", "none"), response::TOPIC_NOT_EXIST),
            (of().with_field("topic", "W"), response::NO_PERMISSION),
            (of().with_field("queueId", 1), response::INVALID_PARAMETER),
            (of().with_field("consumerGroup", "none"), response::SUBSCRIPTION_GROUP_NOT_EXIST),
            (of().with_field("consumerGroup", "OFF"), response::NO_PERMISSION),
        ]);
    }
    for (command, code) in table {
        let answer = bench.call(command.clone()).await;
        assert_eq!(answer.code, code, "{command:?} got {answer:?}");
        assert!(answer.remark.is_some_and(|remark| !remark.is_empty()), "{command:?}");
    }
    assert_eq!(bench.ack(good).await.code, response::SUCCESS);
    // There is no second store that pops could be brought back from.
    assert_eq!(bench.call(Command::request(request::POP_ROLLBACK)).await.code, response::SUCCESS);
    bench.broker.stop().await;
}
