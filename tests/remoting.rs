//! The remoting server and client over loopback: order, calls both ways, limits, hostile peers, shutdown.
#![cfg(feature = "broker")]
#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use reput::remoting::{
    CallError, Client, Command, Connection, Limits, Server, Service,
    codes::{request, response},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const LONG: Duration = Duration::from_secs(20);

/// Echoes bodies. Code 1 answers, 2 never, 3 from another thread after 50 ms, 4 panics, 5 asks the client back, 6
/// answers with a body as large as the field `size` says.
#[derive(Default)]
struct Echo {
    served: AtomicUsize,
    batches: AtomicUsize,
    closed: AtomicUsize,
}

impl Service for Echo {
    fn serve(&self, connection: &Arc<Connection>, batch: Vec<Command>) {
        self.batches.fetch_add(1, Ordering::SeqCst);
        for request in batch {
            self.served.fetch_add(1, Ordering::SeqCst);
            let reply = request.reply(response::SUCCESS).with_body(request.body.clone());
            match request.code {
                2 => {}
                3 => {
                    let connection = Arc::clone(connection);
                    std::thread::spawn(move || {
                        std::thread::sleep(Duration::from_millis(50));
                        connection.send(reply);
                    });
                }
                4 => panic!("asked to"),
                5 => {
                    let connection = Arc::clone(connection);
                    tokio::spawn(async move {
                        let asked = connection.call(Command::request(7), LONG).await.unwrap();
                        connection.send(reply.with_body(asked.body).with_remark("asked back"));
                    });
                }
                6 => {
                    let size = request.fields.parse("size").unwrap();
                    connection.send(request.reply(0).with_body(vec![1; size]));
                }
                _ => {
                    connection.send(reply);
                }
            }
        }
    }

    fn closed(&self, _connection: &Arc<Connection>) {
        self.closed.fetch_add(1, Ordering::SeqCst);
    }
}

async fn start(limits: Limits) -> (Server, Arc<Echo>) {
    let echo = Arc::new(Echo::default());
    let server = Server::bind("127.0.0.1:0", Arc::<Echo>::clone(&echo), limits).await.unwrap();
    (server, echo)
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < LONG, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn answers(addr: SocketAddr) {
    let client = Client::connect(addr).await.unwrap();
    let answer = client.call(Command::request(1).with_body(Bytes::from_static(b"x")), LONG).await.unwrap();
    assert_eq!((answer.code, answer.body.len()), (response::SUCCESS, 1));
}

/// Reads until the server ends the connection.
async fn ends(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    // A reset instead of an orderly end is an end as well.
    let _ = tokio::time::timeout(LONG, stream.read_to_end(&mut rest)).await.expect("the connection ends");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelined_requests_are_served_in_batches_and_answered_by_number() {
    let (server, echo) = start(Limits::default()).await;
    let client = Client::connect(server.local_addr()).await.unwrap();
    let calls: Vec<_> = (0..500_usize)
        .map(|n| {
            let code = if n % 50 == 0 { 3 } else { 1 };
            client.connection().call(Command::request(code).with_body(vec![0; n]), LONG)
        })
        .collect();
    for (n, call) in calls.into_iter().enumerate() {
        assert_eq!(call.await.unwrap().body.len(), n);
    }
    assert_eq!(echo.served.load(Ordering::SeqCst), 500);
    assert!(echo.batches.load(Ordering::SeqCst) < 500, "some reads bring several requests");
}

#[tokio::test]
async fn the_server_asks_a_client_over_the_clients_own_connection() {
    let (server, _) = start(Limits::default()).await;
    let service = Arc::new(Echo::default());
    let client = Client::connect_with(server.local_addr(), service, Limits::default()).await.unwrap();
    let answer = client.call(Command::request(5), LONG).await.unwrap();
    assert_eq!(answer.remark.as_deref(), Some("asked back"));
}

#[tokio::test]
async fn a_client_without_a_service_says_that_it_serves_nothing() {
    struct AskBack;
    impl Service for AskBack {
        fn serve(&self, connection: &Arc<Connection>, batch: Vec<Command>) {
            let connection = Arc::clone(connection);
            tokio::spawn(async move {
                let asked = connection.call(Command::request(999), LONG).await.unwrap();
                connection.send(batch[0].reply(asked.code));
            });
        }
    }
    let server = Server::bind("127.0.0.1:0", Arc::new(AskBack), Limits::default()).await.unwrap();
    let client = Client::connect(server.local_addr()).await.unwrap();
    let answer = client.call(Command::request(1), LONG).await.unwrap();
    assert_eq!(answer.code, response::REQUEST_CODE_NOT_SUPPORTED);
}

#[tokio::test]
async fn a_call_fails_when_its_time_is_up_or_its_connection_ends() {
    let (server, _) = start(Limits { drain: Duration::ZERO, ..Limits::default() }).await;
    let client = Client::connect(server.local_addr()).await.unwrap();
    let peer = server.local_addr();
    let timeout = Duration::from_millis(30);
    let late = client.call(Command::request(2), timeout).await;
    assert_eq!(late, Err(CallError::Timeout { peer, timeout }));
    let pending = client.connection().call(Command::request(2), LONG);
    server.shutdown().await;
    assert_eq!(pending.await, Err(CallError::Closed { peer }));
    assert_eq!(client.call(Command::request(1), LONG).await, Err(CallError::Closed { peer }));
    assert!(!client.oneway(Command::request(1)));
}

#[tokio::test]
async fn a_hostile_frame_ends_its_connection_and_no_other() {
    let (server, echo) = start(Limits { max_frame: 1 << 20, ..Limits::default() }).await;
    let deep = format!("{{\"x\":{}", "[".repeat(50_000));
    let mut deep_frame = u32::try_from(deep.len() + 4).unwrap().to_be_bytes().to_vec();
    deep_frame.extend_from_slice(&u32::try_from(deep.len()).unwrap().to_be_bytes());
    deep_frame.extend_from_slice(deep.as_bytes());
    let hostile: [(&str, Vec<u8>); 7] = [
        ("larger than allowed", vec![0, 0x10, 0, 1]),
        ("negative length", vec![0xff, 0xff, 0xff, 0xfe, 0, 0, 0, 0]),
        ("no room for a header length", vec![0, 0, 0, 3, 0, 0, 0]),
        ("header beyond its frame", vec![0, 0, 0, 10, 0, 0, 0, 200]),
        ("unknown encoding", vec![0, 0, 0, 10, 9, 0, 0, 1]),
        ("deep JSON", deep_frame),
        ("another protocol", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
    ];
    let bystander = Client::connect(server.local_addr()).await.unwrap();
    for (what, bytes) in hostile {
        let mut stream = TcpStream::connect(server.local_addr()).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        ends(&mut stream).await;
        let answer = bystander.call(Command::request(1), LONG).await;
        assert_eq!(answer.map(|a| a.code), Ok(response::SUCCESS), "after {what}");
    }
    until("only the bystander is left", || server.connections() == 1).await;
    assert_eq!(echo.closed.load(Ordering::SeqCst), 7);
    answers(server.local_addr()).await;
}

#[tokio::test]
async fn a_service_that_panics_loses_that_connection_only() {
    let (server, echo) = start(Limits::default()).await;
    let client = Client::connect(server.local_addr()).await.unwrap();
    assert!(matches!(client.call(Command::request(4), LONG).await, Err(CallError::Closed { .. })));
    until("it is forgotten", || server.connections() == 0).await;
    assert_eq!(echo.closed.load(Ordering::SeqCst), 1);
    answers(server.local_addr()).await;
}

#[tokio::test]
async fn silent_and_dawdling_peers_are_closed() {
    let short = Duration::from_millis(60);
    let limits = Limits { first_frame: short, partial_frame: short, idle: 4 * short, ..Limits::default() };
    let (server, _) = start(limits).await;
    let mut silent = TcpStream::connect(server.local_addr()).await.unwrap();
    ends(&mut silent).await;

    let mut dawdling = TcpStream::connect(server.local_addr()).await.unwrap();
    let (pieces, _) = reput::remoting::frame::encode(Command::request(1)).unwrap();
    let whole = pieces.concat();
    dawdling.write_all(&whole).await.unwrap();
    dawdling.write_all(&whole[..6]).await.unwrap();
    let start = Instant::now();
    ends(&mut dawdling).await;
    assert!(start.elapsed() >= short, "a partial frame has its time");

    let idle = Client::connect(server.local_addr()).await.unwrap();
    idle.call(Command::request(1), LONG).await.unwrap();
    until("the idle one is closed", || idle.is_closed()).await;
}

#[tokio::test]
async fn a_peer_that_does_not_read_is_first_not_read_from_and_then_closed() {
    let limits = Limits {
        outbound_pause: 1 << 20,
        max_outbound: 64 << 20,
        unread: Duration::from_millis(200),
        ..Limits::default()
    };
    let (server, echo) = start(limits).await;
    let mut stream = TcpStream::connect(server.local_addr()).await.unwrap();
    let asking = Command::request(6).with_field("size", 256 << 10);
    let (pieces, _) = reput::remoting::frame::encode(asking).unwrap();
    let one = pieces.concat();
    // Small sends, so that one read of the server does not bring all of them.
    let sent = tokio::time::timeout(LONG, async {
        for _ in 0..20_000 {
            if stream.write_all(&one).await.is_err() {
                return;
            }
        }
    });
    sent.await.expect("the server closes a peer that only sends");
    until("it is forgotten", || server.connections() == 0).await;
    let served = echo.served.load(Ordering::SeqCst);
    assert!(served < 2_000, "reading stops while {served} answers wait");
}

#[tokio::test]
async fn a_peer_beyond_the_outbound_limit_is_closed_at_once() {
    let (server, _) = start(Limits { max_outbound: 1 << 20, ..Limits::default() }).await;
    let client = Client::connect(server.local_addr()).await.unwrap();
    // One answer may be larger than the limit; it is the second that is too much, if the first still waits.
    let answer = client.call(Command::request(6).with_field("size", 4 << 20), LONG).await.unwrap();
    assert_eq!(answer.body.len(), 4 << 20);
    let mut deaf = TcpStream::connect(server.local_addr()).await.unwrap();
    let asking = Command::request(6).with_field("size", 8 << 20);
    let (pieces, _) = reput::remoting::frame::encode(asking).unwrap();
    deaf.write_all(&pieces.concat().repeat(4)).await.unwrap();
    until("it is closed", || server.connections() == 1).await;
}

#[tokio::test]
async fn connections_beyond_the_limit_are_refused() {
    let (server, _) = start(Limits { max_connections: 1, ..Limits::default() }).await;
    let first = Client::connect(server.local_addr()).await.unwrap();
    first.call(Command::request(1), LONG).await.unwrap();
    let mut second = TcpStream::connect(server.local_addr()).await.unwrap();
    ends(&mut second).await;
    drop(first);
    until("there is room", || server.connections() == 0).await;
    answers(server.local_addr()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_waits_for_the_answers_that_are_owed() {
    let (server, echo) = start(Limits::default()).await;
    let addr = server.local_addr();
    let client = Client::connect(addr).await.unwrap();
    let slow = client.connection().call(Command::request(3).with_body(vec![1; 100_000]), LONG);
    until("it is served", || echo.served.load(Ordering::SeqCst) == 1).await;
    let start = Instant::now();
    server.shutdown().await;
    assert!(start.elapsed() < Duration::from_secs(4), "it does not wait for the peer to go");
    assert_eq!(slow.await.unwrap().body.len(), 100_000);
    assert_eq!(echo.closed.load(Ordering::SeqCst), 1);
    assert!(TcpStream::connect(addr).await.is_err(), "nothing listens any more");
}

#[tokio::test]
async fn a_shutdown_gives_up_on_answers_that_never_come() {
    let (server, echo) = start(Limits { drain: Duration::from_millis(50), ..Limits::default() }).await;
    let client = Client::connect(server.local_addr()).await.unwrap();
    let never = client.connection().call(Command::request(2), LONG);
    until("it is served", || echo.served.load(Ordering::SeqCst) == 1).await;
    server.shutdown().await;
    assert!(matches!(never.await, Err(CallError::Closed { .. })));
}

#[tokio::test]
async fn a_peer_that_ends_its_sending_still_gets_its_answers() {
    let (server, _) = start(Limits::default()).await;
    let mut stream = TcpStream::connect(server.local_addr()).await.unwrap();
    let (pieces, _) = reput::remoting::frame::encode(Command::request(1).with_body(vec![3; 9])).unwrap();
    stream.write_all(&pieces.concat()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut received = Vec::new();
    stream.read_to_end(&mut received).await.unwrap();
    assert!(received.ends_with(&[3; 9]));
}

#[test]
fn a_detached_connection_keeps_what_is_sent() {
    let connection = Connection::detached(1, "127.0.0.1:1".parse().unwrap());
    let asked = Command::request(request::PULL_MESSAGE);
    assert!(connection.send(asked.reply(response::PULL_NOT_FOUND).with_body(vec![5; 5000])));
    let sent = connection.take_sent();
    assert_eq!((sent.len(), sent[0].code, sent[0].body.len()), (1, response::PULL_NOT_FOUND, 5000));
    assert!(connection.take_sent().is_empty());
    connection.close();
    assert!(!connection.send(asked.reply(0)));
}
