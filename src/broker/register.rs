//! The broker's entry with its name servers.
//!
//! Owns one outbox and one task per name server, so that a slow one delays no other and what one of them is told keeps
//! its order. Everything is registered at boot and every `registerNameServerPeriod`, a changed topic at once and alone.
//! Called by boot, stop, and the topic table.

use std::{collections::BTreeSet, io, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::{
    Broker,
    config::BrokerConfig,
    config_file::DataVersion,
    json::Json,
    topics::{self, TopicConfig},
};
use crate::remoting::{
    Client, Command,
    codes::{request, response},
};

/// After a failure everything is tried again this soon.
const RETRY: Duration = Duration::from_secs(3);
/// How long stopping waits for name servers.
const UNREGISTER: Duration = Duration::from_secs(3);

/// What one name server is still to be told.
#[derive(Debug, Default)]
struct Pending {
    all: bool,
    topics: BTreeSet<String>,
    /// Counts the calls that added something.
    sequence: u64,
}

/// What became of what a name server was to be told.
#[derive(Clone, Copy, Debug, Default)]
struct HowFar {
    /// The sequence up to which it was told.
    sequence: u64,
    /// It did not answer the last time: it is tried on, and nobody waits for it.
    failed: bool,
}

#[derive(Debug)]
struct Outbox {
    addr: String,
    pending: Mutex<Pending>,
    wake: Notify,
    how_far: watch::Sender<HowFar>,
}

/// The outboxes of all name servers.
#[derive(Debug)]
pub(crate) struct Register {
    outboxes: Vec<Arc<Outbox>>,
}

/// Resolves when the name servers that answer know of a change, or after a bound.
#[derive(Debug, Default)]
pub(crate) struct Told(Vec<(watch::Receiver<HowFar>, u64)>);

impl Told {
    /// Whether there is nothing to wait for.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Waits for the other change too.
    pub(crate) fn join(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    pub(crate) async fn wait(self, bound: Duration) {
        let all = async {
            for (mut how_far, sequence) in self.0 {
                // An error means that the task ended: the broker stops.
                let _ = how_far.wait_for(|now| now.failed || now.sequence >= sequence).await;
            }
        };
        if tokio::time::timeout(bound, all).await.is_err() {
            tracing::warn!("a name server did not take a registration in time; it is tried again");
        }
    }
}

impl Register {
    /// Outboxes for these name servers.
    pub(crate) fn new(addrs: impl IntoIterator<Item = String>) -> Self {
        let outbox = |addr| {
            Arc::new(Outbox {
                addr,
                pending: Mutex::default(),
                wake: Notify::new(),
                how_far: watch::Sender::default(),
            })
        };
        Self { outboxes: addrs.into_iter().map(outbox).collect() }
    }

    fn tell(&self, change: impl Fn(&mut Pending)) -> Told {
        let each = self.outboxes.iter().map(|outbox| {
            let mut pending = outbox.pending.lock();
            change(&mut pending);
            pending.sequence += 1;
            outbox.wake.notify_one();
            (outbox.how_far.subscribe(), pending.sequence)
        });
        Told(each.collect())
    }

    /// Registers one topic everywhere.
    pub(crate) fn topic_changed(&self, topic: &str) -> Told {
        self.tell(|pending| {
            pending.topics.insert(topic.into());
        })
    }

    /// Registers everything everywhere.
    pub(crate) fn all(&self) -> Told {
        self.tell(|pending| pending.all = true)
    }

    /// Starts the tasks.
    pub(crate) fn start(broker: &Arc<Broker>) {
        for outbox in &broker.register.outboxes {
            broker.runtime.spawn(run(Arc::clone(broker), Arc::clone(outbox)));
        }
    }

    /// Takes the broker out of every name server that answers in time.
    pub(crate) async fn unregister(&self, config: &BrokerConfig) {
        let each = self.outboxes.iter().map(|outbox| {
            let addr = outbox.addr.clone();
            let cmd = identify(Command::request(request::UNREGISTER_BROKER), config);
            tokio::spawn(async move {
                let told = async { call(&mut None, &addr, cmd, UNREGISTER).await };
                match tokio::time::timeout(UNREGISTER, told).await {
                    Ok(Ok(_)) => {}
                    Ok(Err(error)) => tracing::warn!(addr, %error, "name server not told of the stop"),
                    Err(_) => tracing::warn!(addr, "name server not told of the stop: no answer in time"),
                }
            })
        });
        for task in each.collect::<Vec<_>>() {
            let _ = task.await;
        }
    }
}

async fn run(broker: Arc<Broker>, outbox: Arc<Outbox>) {
    let period = Duration::from_millis(broker.config.register_period_ms);
    let mut stopping = broker.stopping.subscribe();
    let mut client = None;
    let mut failed = false;
    loop {
        let wait = if failed { RETRY } else { period };
        tokio::select! {
            () = outbox.wake.notified(), if !failed => {}
            () = tokio::time::sleep(wait) => outbox.pending.lock().all = true,
            _ = stopping.wait_for(|stop| *stop) => return,
        }
        let Pending { all, topics, sequence } = {
            let mut pending = outbox.pending.lock();
            let sequence = pending.sequence;
            Pending {
                sequence,
                ..std::mem::replace(&mut *pending, Pending { sequence, ..Pending::default() })
            }
        };
        if !all && topics.is_empty() {
            continue;
        }
        let cmd = registration(&broker, (!all).then_some(&topics));
        let timeout = Duration::from_millis(broker.config.register_timeout_ms);
        match call(&mut client, &outbox.addr, cmd, timeout).await {
            Ok(answer) => {
                if !answer.body.is_empty()
                    && let Ok(kept) = Json::parse(&answer.body.to_bytes())
                {
                    let broker = Arc::clone(&broker);
                    // Aside, for it may save the topics.
                    drop(broker.runtime.clone().spawn_blocking(move || broker.mark_ordered(&kept)));
                }
                if std::mem::take(&mut failed) {
                    tracing::info!(addr = outbox.addr, "registered with the name server again");
                }
                outbox.how_far.send_replace(HowFar { sequence, failed });
            }
            Err(error) => {
                client = None;
                outbox.pending.lock().all = true;
                outbox.how_far.send_modify(|now| now.failed = true);
                if !std::mem::replace(&mut failed, true) {
                    tracing::warn!(addr = outbox.addr, %error, "not registered with the name server, trying on");
                }
            }
        }
    }
}

/// Calls a name server over the connection that is there, or a new one; it must answer with success.
async fn call(
    client: &mut Option<Client>,
    addr: &str,
    cmd: Command,
    timeout: Duration,
) -> io::Result<Command> {
    let answer = ask(client, addr, cmd, timeout).await?;
    if answer.code != response::SUCCESS {
        let remark = answer.remark.unwrap_or_default();
        return Err(io::Error::other(format!("answered {}: {remark}", answer.code)));
    }
    Ok(answer)
}

/// Asks a name server over the connection that is there, or a new one; whatever it answers.
pub(super) async fn ask(
    client: &mut Option<Client>,
    addr: &str,
    cmd: Command,
    timeout: Duration,
) -> io::Result<Command> {
    let open = match client.take().filter(|client| !client.is_closed()) {
        Some(open) => open,
        None => tokio::time::timeout(timeout, Client::connect(addr)).await.map_err(io::Error::from)??,
    };
    let answer = open.call(cmd, timeout).await.map_err(io::Error::other)?;
    *client = Some(open);
    Ok(answer)
}

fn identify(cmd: Command, config: &BrokerConfig) -> Command {
    cmd.with_field("brokerAddr", config.address())
        .with_field("brokerId", config.broker_id)
        .with_field("brokerName", &config.name)
        .with_field("clusterName", &config.cluster)
}

/// REGISTER_BROKER with all topics, or only these.
fn registration(broker: &Broker, only: Option<&BTreeSet<String>>) -> Command {
    let (mut all, version) = broker.topics.all();
    if let Some(only) = only {
        all.retain(|topic| only.contains(&topic.name));
    }
    let allowed: Vec<Arc<TopicConfig>> = all.into_iter().map(|topic| permitted(broker, topic)).collect();
    let body = Json::map([
        ("filterServerList", Json::List(Vec::new())),
        (
            "topicConfigSerializeWrapper",
            Json::map([
                ("dataVersion", version.to_json()),
                ("mappingDataVersion", DataVersion::new(broker.boot_time.get()).to_json()),
                ("topicConfigTable", topics::table_json(&allowed)),
                ("topicQueueMappingDetailMap", Json::Map(Vec::new())),
                ("topicQueueMappingInfoMap", Json::Map(Vec::new())),
            ]),
        ),
    ])
    .compact();
    identify(Command::request(request::REGISTER_BROKER), &broker.config)
        .with_field("haServerAddr", broker.config.ha_address())
        .with_field("enableActingMaster", false)
        .with_field("compressed", false)
        .with_field("bodyCrc32", crc32fast::hash(body.as_bytes()) & 0x7fff_ffff)
        .with_body(body)
}

/// What the name servers are told of a topic: not more than the broker itself permits.
fn permitted(broker: &Broker, topic: Arc<TopicConfig>) -> Arc<TopicConfig> {
    let broker_perm = broker.live.permission.load(std::sync::atomic::Ordering::Relaxed);
    let readable = topics::perm::is_readable(broker_perm);
    if readable && topics::perm::is_writeable(broker_perm) {
        return topic;
    }
    Arc::new(TopicConfig { perm: topic.perm & broker_perm, ..(*topic).clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nobody_waits_for_a_name_server_that_failed() {
        let register = Register::new(["a:9876".into(), "b:9876".into()]);
        let tell = |at: usize, sequence, failed| {
            register.outboxes[at].how_far.send_replace(HowFar { sequence, failed });
        };
        let is_over = async |told: Told| {
            let mut told = std::pin::pin!(told.wait(Duration::from_secs(3_600)));
            std::future::poll_fn(|context| std::task::Poll::Ready(told.as_mut().poll(context).is_ready()))
                .await
        };
        tell(0, 1, false);
        assert!(!is_over(register.topic_changed("T")).await, "b knows nothing yet");
        tell(1, 0, true);
        assert!(!is_over(register.topic_changed("T")).await, "a knows of the first only");
        tell(0, 3, false);
        assert!(is_over(register.topic_changed("T")).await, "a knows of the third, and b has failed");
    }
}
