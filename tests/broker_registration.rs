//! When clients are told of a topic that their message made: not before they can find it.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]
#![cfg(feature = "broker")]

mod loopback;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use loopback::{Fixture, send, send_batch};
use reput::remoting::{
    Command, Connection, Limits, Server, Service,
    codes::{request, response},
};

const WAIT: Duration = Duration::from_secs(20);

/// What the name server does of a registration that names a topic of the test.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Takes {
    /// It takes its time.
    Slowly,
    /// It says no.
    Never,
    /// It says nothing.
    Silently,
}

/// A name server that answers everything else at once.
struct NameServer {
    takes: Takes,
    came: AtomicBool,
    known: Arc<AtomicBool>,
}

impl NameServer {
    async fn start(takes: Takes) -> (Arc<Self>, Server) {
        let this = Arc::new(Self { takes, came: AtomicBool::new(false), known: Arc::default() });
        let service: Arc<dyn Service> = Arc::clone(&this) as _;
        (this, Server::bind("127.0.0.1:0", service, Limits::default()).await.unwrap())
    }
}

impl Service for NameServer {
    fn serve(&self, connection: &Arc<Connection>, batch: Vec<Command>) {
        for command in batch {
            let body = String::from_utf8_lossy(&command.body.to_bytes()).into_owned();
            if command.code != request::REGISTER_BROKER || !body.contains("T_NEW") {
                connection.send(command.reply(response::SUCCESS));
                continue;
            }
            self.came.store(true, Ordering::SeqCst);
            match self.takes {
                Takes::Slowly => {
                    let (connection, known) = (Arc::clone(connection), Arc::clone(&self.known));
                    thread::spawn(move || {
                        thread::sleep(Duration::from_millis(50));
                        known.store(true, Ordering::SeqCst);
                        connection.send(command.reply(response::SUCCESS));
                    });
                }
                Takes::Never => _ = connection.send(command.reply(response::SYSTEM_ERROR)),
                Takes::Silently => {}
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_send_that_makes_a_topic_is_answered_when_name_servers_know_the_topic() {
    let one = send(request::SEND_MESSAGE_V2, "T_NEW", 0, b"body", "");
    let batch = send_batch("T_NEW", 0, &[(b"one".to_vec(), String::new())], "");
    for (takes, first) in [
        (Takes::Slowly, one.clone()),
        (Takes::Slowly, batch),
        // These only delay it.
        (Takes::Never, one.clone()),
        (Takes::Silently, one),
    ] {
        let (name_server, server) = NameServer::start(takes).await;
        let broker =
            Fixture::start(|config| config.name_servers = vec![server.local_addr().to_string()]).await;
        let answer = broker.client().await.call(first, WAIT).await.unwrap();
        assert_eq!((answer.code, answer.fields.get("queueOffset")), (response::SUCCESS, Some("0")));
        assert!(name_server.came.load(Ordering::SeqCst), "{takes:?}: the name server was not asked");
        assert_eq!(name_server.known.load(Ordering::SeqCst), takes == Takes::Slowly, "{takes:?}");
        broker.stop().await;
    }
}
