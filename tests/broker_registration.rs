//! When clients are told of a topic that their message made: not before they can find it.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]
#![cfg(feature = "broker")]

mod loopback;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use loopback::{Fixture, send, send_batch};
use reput::remoting::{
    Command, Connection, Limits, Server, Service,
    codes::{request, response},
};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

const WAIT: Duration = Duration::from_secs(20);

/// A name server that answers everything at once but a registration that names a topic of `kept`: that one waits for
/// the test.
struct Keeping {
    kept: &'static str,
    came: UnboundedSender<()>,
    waiting: Mutex<Vec<(Arc<Connection>, Command)>>,
}

impl Keeping {
    async fn start(kept: &'static str) -> (Arc<Self>, Server, UnboundedReceiver<()>) {
        let (came, coming) = unbounded_channel();
        let this = Arc::new(Self { kept, came, waiting: Mutex::default() });
        let service: Arc<dyn Service> = Arc::clone(&this) as _;
        let server = Server::bind("127.0.0.1:0", service, Limits::default()).await.unwrap();
        (this, server, coming)
    }

    /// Answers what waits.
    fn answer(&self, code: i32) {
        for (connection, command) in self.waiting.lock().unwrap().drain(..) {
            connection.send(command.reply(code));
        }
    }
}

impl Service for Keeping {
    fn serve(&self, connection: &Arc<Connection>, batch: Vec<Command>) {
        for command in batch {
            let body = String::from_utf8_lossy(&command.body.to_bytes()).into_owned();
            if command.code == request::REGISTER_BROKER && body.contains(self.kept) {
                self.waiting.lock().unwrap().push((Arc::clone(connection), command));
                self.came.send(()).unwrap();
            } else {
                connection.send(command.reply(response::SUCCESS));
            }
        }
    }
}

fn to(topic: &str) -> Command {
    send(request::SEND_MESSAGE_V2, topic, 0, b"body", "")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_send_that_makes_a_topic_is_answered_when_name_servers_know_the_topic() {
    let batch = send_batch("T_NEW_BATCH", 0, &[(b"one".to_vec(), String::new())], "");
    for (topic, first) in [("T_NEW", to("T_NEW")), ("T_NEW_BATCH", batch)] {
        let (name_server, server, mut coming) = Keeping::start(topic).await;
        let broker =
            Fixture::start(|config| config.name_servers = vec![server.local_addr().to_string()]).await;
        let (client, other) = (broker.client().await, broker.client().await);
        let waiting = tokio::spawn(async move { client.call(first, WAIT).await });
        tokio::time::timeout(WAIT, coming.recv()).await.unwrap().unwrap();
        // The topic is there for whoever knows of it.
        assert_eq!(other.call(to(topic), WAIT).await.unwrap().code, response::SUCCESS);
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(!waiting.is_finished(), "{topic}: answered before the name server knew of it");
        name_server.answer(response::SUCCESS);
        let answer = waiting.await.unwrap().unwrap();
        assert_eq!(answer.code, response::SUCCESS);
        assert_eq!(answer.fields.get("queueOffset"), Some("0"));
        broker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_server_that_does_not_take_it_only_delays_the_answer() {
    // One that says no, and one that says nothing.
    for answered in [true, false] {
        let (name_server, server, mut coming) = Keeping::start("T_NEW").await;
        let broker =
            Fixture::start(|config| config.name_servers = vec![server.local_addr().to_string()]).await;
        let client = broker.client().await;
        let waiting = tokio::spawn(async move { client.call(to("T_NEW"), WAIT).await });
        tokio::time::timeout(WAIT, coming.recv()).await.unwrap().unwrap();
        if answered {
            name_server.answer(response::SYSTEM_ERROR);
        }
        assert_eq!(waiting.await.unwrap().unwrap().code, response::SUCCESS);
        broker.stop().await;
    }
}
