//! Pulls over TCP on this machine: a broker in this process, a client that keeps several under way; and beside them the
//! limit, a server that answers the same requests with a bare write of as many bytes.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Buf, BytesMut};
use reput::{
    SystemClock,
    broker::{BrokerConfig, Running},
    remoting::{
        Client, Command, Limits,
        codes::{request, response},
        frame,
    },
    vfs::OverlayVfs,
};
use tokio::runtime::Runtime;

use super::{
    Failure,
    drive::{Caller, Load, drive},
    fixture::Fixture,
    lab::{Head, Lab, QUEUES, TOPIC, Work},
    memory::{self, record},
    units,
};

/// Messages of one pull.
const BATCH: usize = 32;
/// Pulls under way at a time.
const DEPTH: usize = 8;
/// Bytes of a request to the bare server: about those of a pull.
const REQUEST: usize = 400;
/// Bytes that one read of a socket takes.
const READ: usize = 256 << 10;
/// Longer than any answer takes that comes at all.
const PATIENCE: Duration = Duration::from_secs(30);
/// Ports that are tried for the broker, which needs one with the second below it free.
const PORTS: usize = 100;

/// What a broker cannot beat: requests of a pull's size, each answered with one write of a buffer that is ready.
pub fn write(len: usize) -> Work {
    let title = format!("answer {BATCH} x {} by a bare write(), {DEPTH} under way", units::bytes(len as u64));
    let head = Head::new(memory::LIMITS, format!("wire/write/{len}"), title.clone(), "msgs/s");
    Work::one(head, move |lab| {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let link = Link::connect(listener.local_addr()?)?;
        let (peer, _) = listener.accept()?;
        peer.set_nodelay(true)?;
        let answering = std::thread::spawn(move || answer_bare(peer, &vec![b'x'; len * BATCH]));
        let sample = drive(lab, &load(&title), vec![Bare { link, len: len * BATCH }]);
        // The link is closed, so it has no more to answer.
        answering.join().map_err(|_| "the answering thread panicked")?;
        sample
    })
}

fn load(title: &str) -> Load<'_> {
    Load {
        title,
        unit: "msgs/s",
        rate: None,
        units_per_call: BATCH as u64,
        timed_every: 1,
        unit_bytes: 0,
        most_bytes: u64::MAX,
        time: None,
    }
}

/// Answers every [`REQUEST`] bytes with `answer`, until the peer closes.
fn answer_bare(mut peer: TcpStream, answer: &[u8]) {
    let mut buffer = vec![0; READ];
    let mut got = 0;
    while let Ok(read @ 1..) = peer.read(&mut buffer) {
        got += read;
        for _ in 0..got / REQUEST {
            if peer.write_all(answer).is_err() {
                return;
            }
        }
        got %= REQUEST;
    }
}

/// Pulls of a queue from its first message to its last, again and again, over one connection.
pub fn pulls(fixture: &Rc<Fixture>) -> Result<Work, Failure> {
    let title = format!("{BATCH} a pull over TCP, {DEPTH} under way");
    let limit = record(fixture.body(), b"KEYS\x01k123456\x02TAGS\x01TagA\x02")?.len();
    let head = Head::new("pull", format!("pull/wire/b{BATCH}/d{DEPTH}"), title.clone(), "msgs/s")
        .limited(format!("wire/write/{limit}"));
    let (fixture, mut served) = (Rc::clone(fixture), None::<Served>);
    Ok(Work::one(head, move |lab| {
        let served = match &mut served {
            Some(served) => served,
            none => none.insert(Served::start(lab, &fixture)?),
        };
        drive(lab, &load(&title), vec![Pull::new(served.at, served.messages)?])
    }))
}

/// A broker over what the fixture's store holds, which stays as it is.
struct Served {
    runtime: Runtime,
    broker: Option<Running>,
    at: SocketAddr,
    /// Messages of the queue that is pulled.
    messages: i64,
}

impl Served {
    fn start(lab: &Lab, fixture: &Fixture) -> Result<Self, Failure> {
        let (store, _) = fixture.store(lab)?;
        let queue = store.find_queue(TOPIC, 0).ok_or("the fixture has no queue")?;
        let messages = store.max_offset(queue).get();
        let mut config = BrokerConfig::new(fixture.config(lab, &fixture.dir(lab)?)?);
        config.port = free_port()?;
        let at = SocketAddr::new(config.bind, config.port);
        let runtime = crate::cli::runtime()?;
        let broker = runtime.block_on(async {
            let files = Arc::new(OverlayVfs::new());
            let broker = Running::start_with(config, files, Arc::new(SystemClock::new())).await?;
            create_topic(at).await?;
            Ok::<_, Failure>(broker)
        })?;
        Ok(Self { runtime, broker: Some(broker), at, messages })
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(broker) = self.broker.take() {
            // It wrote to memory only; what its stop says changes nothing.
            let _ = self.runtime.block_on(broker.stop());
        }
    }
}

async fn create_topic(at: SocketAddr) -> Result<(), Failure> {
    let client = Client::connect(at).await?;
    let create = Command::request(request::UPDATE_AND_CREATE_TOPIC)
        .with_field("topic", TOPIC)
        .with_field("defaultTopic", "TBW102")
        .with_field("readQueueNums", QUEUES)
        .with_field("writeQueueNums", QUEUES)
        .with_field("perm", 6)
        .with_field("topicFilterType", "SINGLE_TAG")
        .with_field("topicSysFlag", 0)
        .with_field("order", false);
    let answer = client.call(create, PATIENCE).await?;
    accepted(&answer)
}

fn accepted(answer: &Command) -> Result<(), Failure> {
    if answer.code == response::SUCCESS {
        return Ok(());
    }
    let why = answer.remark.as_deref().unwrap_or_default();
    Err(format!("the broker answers {}: {why}", answer.code).into())
}

/// A port that is free, with the second below it.
fn free_port() -> Result<u16, Failure> {
    for _ in 0..PORTS {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        if TcpListener::bind(("127.0.0.1", port - 2)).is_ok() {
            return Ok(port);
        }
    }
    Err("there is no free port on this machine".into())
}

/// One connection with up to [`DEPTH`] requests under way. New ones go out by one write when half of them are answered,
/// so that both sides have work at any time.
struct Link {
    stream: TcpStream,
    received: BytesMut,
    buffer: Vec<u8>,
    under_way: usize,
}

impl Link {
    fn connect(at: SocketAddr) -> Result<Self, Failure> {
        let stream = TcpStream::connect(at)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream, received: BytesMut::new(), buffer: vec![0; READ], under_way: 0 })
    }

    /// Sends more requests, which `write` adds to what is sent, when it is time.
    fn ask(&mut self, mut write: impl FnMut(&mut Vec<u8>) -> Result<(), Failure>) -> Result<(), Failure> {
        if self.under_way > DEPTH / 2 {
            return Ok(());
        }
        let mut out = Vec::new();
        while self.under_way < DEPTH {
            write(&mut out)?;
            self.under_way += 1;
        }
        Ok(self.stream.write_all(&out)?)
    }

    /// Waits for more bytes.
    fn receive(&mut self) -> Result<(), Failure> {
        let read = self.stream.read(&mut self.buffer)?;
        if read == 0 {
            return Err("the other side closed the connection".into());
        }
        self.received.extend_from_slice(&self.buffer[..read]);
        Ok(())
    }
}

/// Asks [`answer_bare`].
struct Bare {
    link: Link,
    /// Bytes of an answer.
    len: usize,
}

impl Caller for Bare {
    fn call(&mut self, _due: Instant) -> Result<u64, Failure> {
        self.link.ask(|out| {
            out.resize(out.len() + REQUEST, 0);
            Ok(())
        })?;
        while self.link.received.len() < self.len {
            self.link.receive()?;
        }
        self.link.received.advance(self.len);
        self.link.under_way -= 1;
        Ok(BATCH as u64)
    }
}

/// Asks a broker for the messages of a queue.
struct Pull {
    link: Link,
    next: i64,
    end: i64,
}

impl Pull {
    fn new(at: SocketAddr, messages: i64) -> Result<Self, Failure> {
        let whole = messages / BATCH as i64 * BATCH as i64;
        if whole == 0 {
            return Err("the fixture's queue has fewer messages than one pull".into());
        }
        Ok(Self { link: Link::connect(at)?, next: 0, end: whole })
    }

    /// The next answer.
    fn answer(&mut self) -> Result<Command, Failure> {
        let (next, end) = (&mut self.next, self.end);
        let mut one = Vec::new();
        self.link.ask(|out| {
            frame::encode_head(pull(*next), &mut one)?;
            out.extend_from_slice(&one);
            *next = (*next + BATCH as i64) % end;
            Ok(())
        })?;
        loop {
            if let Some(answer) = frame::decode(&mut self.link.received, Limits::default().max_frame)? {
                self.link.under_way -= 1;
                return Ok(answer);
            }
            self.link.receive()?;
        }
    }
}

/// The request for the messages from `offset`.
fn pull(offset: i64) -> Command {
    Command::request(request::PULL_MESSAGE)
        .with_field("consumerGroup", "reput-bench")
        .with_field("topic", TOPIC)
        .with_field("queueId", 0)
        .with_field("queueOffset", offset)
        .with_field("maxMsgNums", BATCH)
        .with_field("sysFlag", 4)
        .with_field("commitOffset", 0)
        .with_field("suspendTimeoutMillis", 0)
        .with_field("subscription", "*")
        .with_field("subVersion", 0)
        .with_field("expressionType", "TAG")
}

impl Caller for Pull {
    fn call(&mut self, _due: Instant) -> Result<u64, Failure> {
        let answer = self.answer()?;
        accepted(&answer)?;
        let messages = count(&answer.body.to_bytes());
        if messages == BATCH {
            Ok(BATCH as u64)
        } else {
            Err(format!("a pull brought {messages} messages").into())
        }
    }
}

/// Records in an answer's body, each of which begins with its length.
fn count(mut body: &[u8]) -> usize {
    let mut found = 0;
    while let Some((len, _)) = body.split_first_chunk::<4>() {
        let len = usize::try_from(u32::from_be_bytes(*len)).unwrap_or(usize::MAX);
        let Some(rest) = body.get(len.max(4)..) else { break };
        (body, found) = (rest, found + 1);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_records_are_counted_and_nothing_else() {
        let one = record(10, b"").unwrap();
        let mut body = [one.as_slice(), &one].concat();
        assert_eq!(count(&body), 2);
        body.truncate(body.len() - 1);
        assert_eq!((count(&body), count(&[]), count(&[0, 0, 0, 0])), (1, 0, 1));
    }
}
