//! A broker without a network over a disk that a test makes slow, by a clock that the test moves.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::atomic::{AtomicU32, Ordering},
    thread::JoinHandle,
    time::Instant,
};

use tempfile::TempDir;

use super::*;
use crate::{
    broker::{self, BrokerConfig, Door, shut},
    clock::{Clock, ManualClock},
    config::{Config, FlushDiskType},
    error::Error,
    format::message_id::MessageId,
    remoting::{Service, codes::request},
    types::StoreTimestamp,
    vfs::{
        Vfs,
        faulty::{Call, FaultyVfs},
    },
};

const PATIENCE: Duration = Duration::from_secs(20);

struct Rig {
    broker: Arc<Broker>,
    vfs: FaultyVfs,
    clock: Arc<ManualClock>,
    _dir: TempDir,
}

fn peer() -> Arc<Connection> {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let id = NEXT.fetch_add(1, Ordering::Relaxed);
    Connection::detached(u64::from(id), SocketAddr::from((Ipv4Addr::LOCALHOST, 4_000)))
}

fn send(body: &'static str) -> Command {
    let fields = [
        ("a", "P"),
        ("b", "T"),
        ("c", "TBW102"),
        ("d", "1"),
        ("e", "0"),
        ("f", "0"),
        ("g", "1"),
        ("h", "0"),
        ("i", ""),
    ];
    let command = Command::request(request::SEND_MESSAGE_V2).with_body(body.to_owned());
    fields.iter().fold(command, |command, (name, value)| command.with_field(name, value))
}

/// No such half message, so that its answer is a refusal, once it is its turn.
fn end_transaction() -> Command {
    Command::request(request::END_TRANSACTION)
        .with_field("producerGroup", "P")
        .with_field("tranStateTableOffset", 0)
        .with_field("commitLogOffset", 1_i64 << 40)
        .with_field("commitOrRollback", 8)
}

/// Waits for the next `count` answers.
fn answers(conn: &Connection, count: usize) -> Vec<Command> {
    let end = Instant::now() + PATIENCE;
    let mut all = Vec::new();
    while all.len() < count {
        assert!(Instant::now() < end, "{} of {count} answers came", all.len());
        all.extend(conn.take_sent());
        std::thread::sleep(Duration::from_millis(1));
    }
    all
}

fn answer(conn: &Connection) -> Command {
    answers(conn, 1).remove(0)
}

fn refusal(conn: &Connection) -> (i32, String) {
    let answer = answer(conn);
    (answer.code, answer.remark.unwrap_or_default())
}

impl Rig {
    /// Where every put writes to the file itself, so that a slow disk keeps the put.
    fn new(change: impl FnOnce(&mut BrokerConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Config::new(dir.path().join("store")).commit_log_file_size(1u64 << 20);
        let mut config = BrokerConfig::new(store);
        change(&mut config);
        let mut vfs = FaultyVfs::default();
        vfs.copy_on_write = true;
        let clock = Arc::new(ManualClock::new(StoreTimestamp(1_795_240_000_000)));
        let (seam, time): (Arc<dyn Vfs>, Arc<dyn Clock>) =
            (Arc::new(vfs.clone()), Arc::<ManualClock>::clone(&clock));
        let broker = Arc::new(broker::open(config, seam, time).unwrap());
        SendQueue::start(&broker).unwrap();
        Self { broker, vfs, clock, _dir: dir }
    }

    fn serve(&self, conn: &Arc<Connection>, requests: Vec<Command>) {
        Door(Arc::clone(&self.broker)).serve(conn, requests);
    }

    /// A send that the disk keeps, on a thread of its own.
    fn stuck(&self, conn: &Arc<Connection>) -> JoinHandle<()> {
        self.vfs.faults.shut_gate(Call::Write);
        let (door, conn) = (Door(Arc::clone(&self.broker)), Arc::clone(conn));
        let at_work = std::thread::spawn(move || door.serve(&conn, vec![send("kept by the disk")]));
        let end = Instant::now() + PATIENCE;
        while self.broker.sends.state.lock().at_work.is_none() {
            assert!(Instant::now() < end, "the send is not at work");
            std::thread::yield_now();
        }
        at_work
    }

    fn release(&self, at_work: JoinHandle<()>) {
        self.vfs.faults.open_gate(Call::Write);
        at_work.join().unwrap();
    }

    fn pass(&self, ms: u64) {
        self.clock.advance(Duration::from_millis(ms));
    }

    fn set(&self, text: &'static str) {
        let conn = peer();
        self.serve(&conn, vec![Command::request(request::UPDATE_BROKER_CONFIG).with_body(text.to_owned())]);
        assert_eq!(answer(&conn).code, response::SUCCESS);
    }

    fn figure(&self, name: &str) -> String {
        let conn = peer();
        self.serve(&conn, vec![Command::request(request::GET_BROKER_RUNTIME_INFO)]);
        let body = answer(&conn).body.to_bytes();
        let json = broker::Json::parse(&body).unwrap();
        json.get("table").and_then(|table| table.text_of(name)).unwrap_or_default().to_owned()
    }

    async fn close(self) {
        shut(&self.broker).await.unwrap();
    }
}

/// The disk keeps one put. What comes behind it waits for its time and no longer; the rest of the broker goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_send_that_waits_too_long_behind_a_slow_disk_is_told_for_how_long() {
    let rig = Rig::new(|_| {});
    let (first, second, third) = (peer(), peer(), peer());
    rig.serve(&first, vec![send("a")]);
    assert_eq!(answer(&first).code, response::SUCCESS);
    let at_work = rig.stuck(&first);
    rig.serve(&second, vec![send("b"), send("c")]);
    rig.serve(&third, vec![end_transaction()]);
    rig.pass(150);
    assert_eq!(
        (rig.figure("sendThreadPoolQueueSize"), rig.figure("EndTransactionQueueSize")),
        ("2".into(), "1".into())
    );
    assert_eq!(rig.figure("sendThreadPoolQueueHeadWaitTimeMills"), "150");
    assert_eq!(rig.figure("pageCacheLockTimeMills"), "150");
    assert!(second.take_sent().is_empty());
    rig.pass(50);
    let told = "[TIMEOUT_CLEAN_QUEUE]broker busy, start flow control for a while, period in queue: 200ms, size of queue: 0";
    for answer in answers(&second, 2) {
        assert_eq!((answer.code, answer.remark.as_deref()), (response::SYSTEM_BUSY, Some(told)));
    }
    // The end of a transaction waits longer.
    assert!(third.take_sent().is_empty());
    rig.pass(2_800);
    let told = "[TIMEOUT_CLEAN_QUEUE]broker busy, start flow control for a while, period in queue: 3000ms, size of queue: 0";
    assert_eq!(refusal(&third), (response::SYSTEM_BUSY, told.into()));
    rig.release(at_work);
    assert_eq!(answer(&first).code, response::SUCCESS);
    rig.serve(&second, vec![send("d")]);
    let last = answer(&second);
    // What was refused is not stored: `a`, what the disk kept, and `d` are the first three of the queue.
    assert_eq!((last.code, last.fields.get("queueOffset")), (response::SUCCESS, Some("2")));
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_page_cache_is_busy_sends_are_refused_at_once_and_those_that_wait_too() {
    let rig = Rig::new(|config| config.send_queue_capacity = 2);
    let (first, second) = (peer(), peer());
    rig.set("waitTimeMillsInSendQueue=60000\nosPageCacheBusyTimeOutMills=2000");
    let at_work = rig.stuck(&first);
    rig.pass(1_500);
    rig.serve(&second, vec![send("b")]);
    rig.serve(&second, vec![send("c")]);
    rig.serve(&second, vec![send("d")]);
    assert_eq!(
        refusal(&second),
        (response::SYSTEM_BUSY, "[OVERLOAD]system busy, start flow control for a while".into())
    );
    rig.pass(501);
    let told = |left| {
        format!(
            "[PCBUSY_CLEAN_QUEUE]broker busy, start flow control for a while, period in queue: 501ms, size of queue: {left}"
        )
    };
    let told = [told(1), told(0)];
    let swept = answers(&second, 2);
    assert!(swept.iter().all(|answer| answer.code == response::SYSTEM_BUSY));
    assert_eq!(swept.into_iter().map(|answer| answer.remark.unwrap()).collect::<Vec<_>>(), told);
    rig.serve(&second, vec![send("e")]);
    let told = "[REJECTREQUEST]system busy, start flow control for a while";
    assert_eq!(refusal(&second), (response::SYSTEM_BUSY, told.into()));
    let back =
        Command::request(request::CONSUMER_SEND_MSG_BACK).with_field("group", "G").with_field("offset", 0);
    rig.serve(&second, vec![back]);
    assert_eq!(refusal(&second), (response::SYSTEM_BUSY, told.into()));
    // A limit that has not passed: it is busy no longer.
    rig.set("osPageCacheBusyTimeOutMills=9000");
    rig.serve(&second, vec![send("f")]);
    rig.release(at_work);
    assert_eq!((answer(&first).code, answer(&second).code), (response::SUCCESS, response::SUCCESS));
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_fast_failure_what_waits_is_stored_in_its_order() {
    let rig = Rig::new(|config| config.fast_failure = false);
    let first = peer();
    let at_work = rig.stuck(&first);
    let others: Vec<_> = (0..200).map(|_| peer()).collect();
    for conn in &others {
        rig.serve(conn, vec![send("waits")]);
    }
    rig.pass(900);
    rig.release(at_work);
    assert_eq!(answer(&first).fields.get("queueOffset"), Some("0"));
    for (n, conn) in others.iter().enumerate() {
        let answer = answer(conn);
        assert_eq!(
            (answer.code, answer.fields.get("queueOffset")),
            (response::SUCCESS, Some(&*(n + 1).to_string()))
        );
    }
    rig.close().await;
}

/// Under SYNC_FLUSH a put does not wait for the disk, its answer does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_the_disk_keeps_leaves_after_the_flush_timeout_and_only_once() {
    let rig = Rig::new(|config| config.store.flush_disk_type = FlushDiskType::Sync);
    let (first, second) = (peer(), peer());
    rig.serve(&first, vec![send("a")]);
    assert_eq!(answer(&first).code, response::SUCCESS);
    rig.vfs.faults.shut_gate(Call::Sync);
    rig.serve(&first, vec![send("b")]);
    rig.pass(4_999);
    rig.serve(&second, vec![send("c")]);
    std::thread::sleep(TICK * 3);
    assert!(first.take_sent().is_empty());
    rig.pass(1);
    let late = answer(&first);
    assert_eq!((late.code, late.fields.get("queueOffset")), (response::FLUSH_DISK_TIMEOUT, Some("1")));
    assert!(late.fields.get("msgId").is_some());
    rig.vfs.faults.open_gate(Call::Sync);
    assert_eq!(answer(&second).code, response::SUCCESS);
    assert!(first.take_sent().is_empty(), "answered twice");
    rig.close().await;
}

/// A half message of the producer group P.
fn half() -> Command {
    send("half").with_field("f", 4).with_field("i", "TRAN_MSG\x01true\x02PGROUP\x01P\x02UNIQ_KEY\x01U\x02")
}

/// The message is in the log: RocketMQ says so to all but senders.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_a_transaction_and_an_acknowledgement_wait_no_longer_for_the_disk_than_a_send() {
    let rig = Rig::new(|config| config.store.flush_disk_type = FlushDiskType::Sync);
    let (ends, acks) = (peer(), peer());
    rig.serve(&ends, vec![send("a"), half()]);
    let half = answers(&ends, 2).remove(1);
    assert_eq!(half.code, response::SUCCESS);
    let id: MessageId = half.fields.parse("msgId").unwrap();
    rig.broker.store.wait_dispatched(PATIENCE).unwrap();
    rig.vfs.faults.shut_gate(Call::Sync);
    let commit = end_transaction()
        .with_field("commitLogOffset", id.offset.get())
        .with_field("tranStateTableOffset", half.fields.get("queueOffset").unwrap());
    rig.serve(&ends, vec![commit]);
    let ack = Command::request(request::ACK_MESSAGE)
        .with_field("consumerGroup", "G")
        .with_field("topic", "T")
        .with_field("queueId", 0)
        .with_field("offset", 0)
        .with_field("extraInfo", "0 1795240000000 60000 0 0 broker-a 0 0");
    rig.serve(&acks, vec![ack]);
    rig.pass(4_999);
    std::thread::sleep(TICK * 3);
    assert!(ends.take_sent().is_empty() && acks.take_sent().is_empty());
    rig.pass(1);
    for conn in [&ends, &acks] {
        let answer = answer(conn);
        assert_eq!((answer.code, answer.remark), (response::SUCCESS, None));
    }
    rig.vfs.faults.open_gate(Call::Sync);
    rig.close().await;
    assert!(ends.take_sent().is_empty() && acks.take_sent().is_empty(), "answered twice");
}

fn pop() -> Command {
    let fields = [
        ("consumerGroup", "G"),
        ("topic", "T"),
        ("queueId", "-1"),
        ("maxMsgNums", "1"),
        ("invisibleTime", "60000"),
        ("pollTime", "0"),
        ("bornTime", "0"),
        ("initMode", "0"),
    ];
    fields
        .iter()
        .fold(Command::request(request::POP_MESSAGE), |pop, (name, value)| pop.with_field(name, value))
}

fn recall(handle: &str) -> Command {
    Command::request(request::RECALL_MESSAGE).with_field("topic", "T").with_field("recallHandle", handle)
}

/// Each of these puts a message. Were each put where it was read, as many as there are threads would leave nobody to
/// tell senders that the disk is busy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_disk_keeps_one_thread_and_none_for_pops_and_recalls() {
    let rig = Rig::new(|config| config.recall_messages = true);
    let first = peer();
    let timed = send("t").with_field("i", "TIMER_DELAY_SEC\x0160\x02UNIQ_KEY\x01U\x02");
    rig.serve(&first, vec![send("a"), send("b"), timed]);
    let sent = answers(&first, 3);
    assert!(sent.iter().all(|sent| sent.code == response::SUCCESS), "{sent:?}");
    let handle = sent[2].fields.get("recallHandle").unwrap().to_owned();
    rig.broker.store.wait_dispatched(PATIENCE).unwrap();
    let at_work = rig.stuck(&first);
    let others: Vec<_> = (0..4).map(|_| peer()).collect();
    let serving = std::thread::spawn({
        let (door, others) = (Door(Arc::clone(&rig.broker)), others.clone());
        move || {
            for (n, conn) in others.iter().enumerate() {
                door.serve(conn, vec![if n % 2 == 0 { pop() } else { recall(&handle) }]);
            }
        }
    });
    let end = Instant::now() + PATIENCE;
    while !serving.is_finished() {
        assert!(Instant::now() < end, "the disk keeps a thread that reads requests");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(others.iter().all(|conn| conn.take_sent().is_empty()));
    // The recall waits as long as a send, the pop as long as an acknowledgement.
    rig.pass(200);
    assert_eq!(refusal(&others[1]).0, response::SYSTEM_BUSY);
    assert!(others[0].take_sent().is_empty());
    rig.pass(2_800);
    assert_eq!(refusal(&others[0]).0, response::SYSTEM_BUSY);
    rig.release(at_work);
    assert_eq!(answer(&first).code, response::SUCCESS);
    rig.serve(&others[0], vec![pop()]);
    let popped = answer(&others[0]);
    assert_eq!((popped.code, popped.fields.get("msgOffsetInfo")), (response::SUCCESS, Some("0 0 0")));
    rig.serve(&others[1], vec![recall(sent[2].fields.get("recallHandle").unwrap())]);
    assert_eq!(answer(&others[1]).code, response::SUCCESS);
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_panics_does_not_keep_those_behind_it() {
    let rig = Rig::new(|_| {});
    let broker = Arc::clone(&rig.broker);
    let conn = peer();
    let ended = std::thread::spawn({
        let (door, conn) = (Door(Arc::clone(&rig.broker)), Arc::clone(&conn));
        move || {
            let sends = &broker.sends;
            sends.pass(&broker, Kind::Send, (1, 0), move |_| {
                door.serve(&conn, vec![send("behind it")]);
                panic!("planted");
            });
        }
    });
    assert!(ended.join().is_err());
    assert_eq!(answer(&conn).code, response::SUCCESS);
    rig.serve(&conn, vec![send("after it")]);
    assert_eq!(answer(&conn).code, response::SUCCESS);
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_put_gives_rocketmq_s_reason_and_its_own() {
    let rig = Rig::new(|_| {});
    let full = Error::DiskFull { used_percent: 93, limit_percent: 90 };
    let refusal = broker::send::put_refusal(&rig.broker, &full);
    assert_eq!(refusal.code, response::SERVICE_NOT_AVAILABLE);
    assert!(
        refusal
            .remark
            .starts_with("service not available now. It may be caused by one of the following reasons: ")
    );
    assert!(
        refusal.remark.contains("the broker's disk is full [CL: ") && refusal.remark.contains("93 % full")
    );
    let none = Error::NoSpace { path: "/x".into(), bytes: 7 };
    let refusal = broker::send::put_refusal(&rig.broker, &none);
    assert_eq!(refusal.code, response::SYSTEM_ERROR);
    assert!(refusal.remark.starts_with("create mapped file failed, server is busy or broken."));
    rig.close().await;
}
