//! A producer of transactions: what it sends, and what the broker asks of it.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::Mutex;
use reput::{
    Clock, SystemClock,
    format::message_id::MessageId,
    remoting::{
        Client, Command, Connection, Limits, Service,
        codes::{request, response},
    },
};

use super::send;

const WAIT: Duration = Duration::from_secs(30);
/// The group of every producer here.
pub const GROUP: &str = "P_TX";
pub const COMMIT: i32 = 8;
pub const ROLLBACK: i32 = 12;
pub const UNKNOWN: i32 = 0;

async fn call(client: &Client, command: Command) -> Command {
    client.call(command, WAIT).await.unwrap()
}

/// A heartbeat of a producer of the group.
pub fn heart_beat(client_id: &str) -> Command {
    let body = format!(
        r#"{{"clientID":"{client_id}","consumerDataSet":[],"producerDataSet":[{{"groupName":"{GROUP}"}}]}}"#
    );
    Command::request(request::HEART_BEAT).with_body(Bytes::from(body))
}

/// A half message that was born now.
pub fn half(topic: &str, queue: i32, body: &str, more: &str) -> Command {
    let properties = format!("TRAN_MSG\x01true\x02PGROUP\x01{GROUP}\x02UNIQ_KEY\x01U{body}\x02{more}");
    send(request::SEND_MESSAGE_V2, topic, queue, body.as_bytes(), &properties)
        .with_field("f", 4)
        .with_field("g", SystemClock::new().now())
}

/// What the broker asked of a client.
#[derive(Default)]
pub struct Asked {
    commands: Mutex<Vec<Command>>,
    /// What requests are answered with.
    code: i32,
}

impl Service for Asked {
    fn serve(&self, connection: &Arc<Connection>, batch: Vec<Command>) {
        for command in batch {
            if !command.is_oneway() {
                connection.send(command.reply(self.code));
            }
            self.commands.lock().push(command);
        }
    }
}

impl Asked {
    pub fn count(&self) -> usize {
        self.commands.lock().len()
    }

    /// The command of this number, waited for.
    pub async fn get(&self, number: usize) -> Command {
        let end = Instant::now() + WAIT;
        loop {
            if let Some(command) = self.commands.lock().get(number) {
                return command.clone();
            }
            assert!(Instant::now() < end, "the broker asked {} times, not {}", self.count(), number + 1);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A producer of the group that the broker can ask.
pub struct Producer {
    pub client: Client,
    pub asked: Arc<Asked>,
}

impl Producer {
    /// A connection that answers requests with `code`.
    pub async fn connect(at: SocketAddr, client_id: &str, code: i32) -> Self {
        let asked = Arc::new(Asked { code, ..Asked::default() });
        let service = Arc::clone(&asked) as Arc<dyn Service>;
        let client = Client::connect_with(at, service, Limits::default()).await.unwrap();
        let producer = Self { client, asked };
        producer.heart_beat(client_id).await;
        producer
    }

    pub async fn heart_beat(&self, client_id: &str) {
        assert_eq!(call(&self.client, heart_beat(client_id)).await.code, response::SUCCESS);
    }

    pub async fn half(&self, topic: &str, queue: i32, body: &str, more: &str) -> Half {
        Half::of(&call(&self.client, half(topic, queue, body, more)).await)
    }

    pub async fn end(&self, half: &Half, outcome: i32) -> Command {
        call(&self.client, half.end(outcome)).await
    }
}

/// A half message as its producer knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Half {
    pub log_offset: i64,
    pub number: i64,
    from_check: bool,
}

impl Half {
    /// From the answer to a send.
    pub fn of(answer: &Command) -> Self {
        assert_eq!(answer.code, response::SUCCESS, "{answer:?}");
        let id: MessageId = answer.fields.parse("msgId").unwrap();
        let number = answer.fields.parse("queueOffset").unwrap();
        Self { log_offset: id.offset.get(), number, from_check: false }
    }

    /// From the broker's question.
    pub fn asked(question: &Command) -> Self {
        assert_eq!(question.code, request::CHECK_TRANSACTION_STATE, "{question:?}");
        let field = |name| question.fields.parse(name).unwrap();
        Self { log_offset: field("commitLogOffset"), number: field("tranStateTableOffset"), from_check: true }
    }

    pub fn end(&self, outcome: i32) -> Command {
        Command::request(request::END_TRANSACTION)
            .with_field("producerGroup", GROUP)
            .with_field("commitLogOffset", self.log_offset)
            .with_field("tranStateTableOffset", self.number)
            .with_field("commitOrRollback", outcome)
            .with_field("fromTransactionCheck", self.from_check)
    }
}
