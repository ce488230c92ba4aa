//! QUERY_ASSIGNMENT 400: which queues a consumer reads, decided here instead of by the clients.
//! SET_MESSAGE_REQUEST_MODE 401 and GET_ALL_MESSAGE_REQUEST_MODE 402: whether a group pulls or pops,
//! `messageRequestMode.json`.
//!
//! Owns the table of modes, and what name servers said of topics that other brokers have a part of. The latter is
//! asked for again after [`FRESH`]; when no name server answers, this broker's own queues are assigned.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;

use crate::{
    broker::{Broker, Refusal, config_file::ConfigFile, json::Json, light, names, register, topics::perm},
    error::Result,
    remoting::{
        Client, Command, Connection,
        codes::{request, response},
    },
};

/// How long a route is good.
const FRESH: Duration = Duration::from_secs(5);
/// How long a name server may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// Routes kept at most; beyond it all are forgotten.
const MAX_ROUTES: usize = 10_000;
/// Modes kept at most.
const MAX_MODES: usize = 100_000;

/// How a group gets its messages of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mode {
    pop: bool,
    /// Consumers after a consumer that share its queues; all when 0 or less.
    share: i32,
}

impl Mode {
    fn read(json: &Json) -> Option<Self> {
        let pop = match json.text_of("mode")? {
            "POP" => true,
            "PULL" => false,
            _ => return None,
        };
        Some(Self { pop, share: json.i32_of("popShareQueueNum").unwrap_or(0) })
    }

    const fn name(&self) -> &'static str {
        if self.pop { "POP" } else { "PULL" }
    }
}

/// Topic -> group -> mode.
type Table = BTreeMap<String, BTreeMap<String, Mode>>;

/// A queue of some broker, in the order that all consumers of a group see.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct MessageQueue {
    broker: String,
    queue: i32,
}

/// A route and when it was asked for.
type Known = (Duration, Option<Vec<MessageQueue>>);

/// See the module's text.
#[derive(Debug)]
pub(super) struct Assignments {
    modes: Mutex<Table>,
    file: ConfigFile,
    routes: Mutex<HashMap<String, Known>>,
    client: tokio::sync::Mutex<Option<Client>>,
}

impl Assignments {
    /// Reads `messageRequestMode.json`.
    pub(super) fn load(file: ConfigFile) -> Result<Self> {
        let modes = file.load(|json| {
            let mut table = Table::new();
            for (topic, groups) in
                json.get("messageRequestModeMap").ok_or("no messageRequestModeMap")?.pairs()
            {
                for (group, mode) in groups.pairs() {
                    let names = topic.text().zip(group.text());
                    let names =
                        names.filter(|(topic, group)| names::is_topic(topic) && names::is_group(group));
                    if let (Some((topic, group)), Some(mode)) = (names, Mode::read(mode)) {
                        table.entry(topic.to_owned()).or_default().insert(group.to_owned(), mode);
                    }
                }
            }
            Ok(table)
        })?;
        Ok(Self {
            modes: Mutex::new(modes.unwrap_or_default()),
            file,
            routes: Mutex::default(),
            client: tokio::sync::Mutex::default(),
        })
    }

    fn mode(&self, broker: &Broker, topic: &str, group: &str) -> Mode {
        if let Some(mode) = self.modes.lock().get(topic).and_then(|groups| groups.get(group)) {
            return mode.clone();
        }
        // Retries of ordinary groups are always pulled.
        let pop = broker.config.request_mode == "POP" && !topic.starts_with(names::RETRY_PREFIX);
        Mode { pop, share: if pop { broker.config.pop_share_queues } else { 0 } }
    }

    fn to_json(&self) -> Json {
        let table = self.modes.lock();
        let topics = table.iter().map(|(topic, groups)| {
            let groups = groups.iter().map(|(group, mode)| {
                let mode = Json::map([
                    ("consumerGroup", Json::from(group.as_str())),
                    ("mode", mode.name().into()),
                    ("popShareQueueNum", mode.share.into()),
                    ("topic", topic.as_str().into()),
                ]);
                (group.as_str(), mode)
            });
            (topic.as_str(), Json::map(groups))
        });
        Json::map([("messageRequestModeMap", Json::map(topics))])
    }

    /// The readable queues of a topic as a name server knows them; `None` when no name server knows the topic.
    async fn route(&self, broker: &Broker, topic: &str) -> Option<Vec<MessageQueue>> {
        // No name server knows light queues.
        if broker.config.name_servers.is_empty() || broker.config.store.lmq && light::is_light(topic) {
            return own_queues(broker, topic);
        }
        let now = broker.clock.monotonic();
        if let Some((at, route)) = self.routes.lock().get(topic)
            && now.saturating_sub(*at) < FRESH
        {
            return route.clone();
        }
        let asked = Command::request(request::GET_ROUTEINFO_BY_TOPIC).with_field("topic", topic);
        let mut client = self.client.lock().await;
        for addr in &broker.config.name_servers {
            match register::ask(&mut client, addr, asked.clone(), PATIENCE).await {
                Ok(answer) if matches!(answer.code, response::SUCCESS | response::TOPIC_NOT_EXIST) => {
                    let route = Json::parse(&answer.body.to_bytes()).ok().map(|json| queues_of(&json));
                    let route = route.filter(|_| answer.code == response::SUCCESS);
                    let mut routes = self.routes.lock();
                    if routes.len() >= MAX_ROUTES {
                        routes.clear();
                    }
                    routes.insert(topic.to_owned(), (now, route.clone()));
                    return route;
                }
                Ok(answer) => {
                    tracing::warn!(addr, code = answer.code, topic, "no route from the name server")
                }
                Err(error) => tracing::warn!(addr, %error, topic, "no route from the name server"),
            }
            *client = None;
        }
        own_queues(broker, topic)
    }
}

fn own_queues(broker: &Broker, topic: &str) -> Option<Vec<MessageQueue>> {
    let topic = broker.topics.get(topic).filter(|topic| perm::is_readable(topic.perm))?;
    let queue = |queue| MessageQueue { broker: broker.config.name.clone(), queue };
    Some((0..topic.read_queues).map(queue).collect())
}

/// The readable queues in a route.
fn queues_of(route: &Json) -> Vec<MessageQueue> {
    let mut all = Vec::new();
    for data in route.get("queueDatas").map(Json::items).unwrap_or_default() {
        let Some(broker) = data.text_of("brokerName") else { continue };
        if !perm::is_readable(data.i32_of("perm").unwrap_or(0)) {
            continue;
        }
        let count = data.i32_of("readQueueNums").unwrap_or(0).min(65_536);
        all.extend((0..count).map(|queue| MessageQueue { broker: broker.to_owned(), queue }));
    }
    all
}

/// SET_MESSAGE_REQUEST_MODE.
pub(super) fn set_mode(broker: &Arc<Broker>, _: &Arc<Connection>, cmd: &Command) -> Result<Command, Refusal> {
    let json = crate::broker::body(cmd)?;
    let topic = json.text_of("topic").unwrap_or("");
    names::check_topic(topic)?;
    if topic.starts_with(names::RETRY_PREFIX) {
        return Err(Refusal::new(response::NO_PERMISSION, "retry topic is not allowed to set mode"));
    }
    broker.known_topic(topic)?;
    let name = json.text_of("consumerGroup").unwrap_or("");
    let group = broker.group(name).ok_or_else(|| {
        Refusal::new(response::SUBSCRIPTION_GROUP_NOT_EXIST, "subscription group does not exist")
    })?;
    let mode = Mode::read(&json)
        .ok_or_else(|| Refusal::new(response::INVALID_PARAMETER, "mode must be PULL or POP"))?;
    let assignments = &broker.pop.assignments;
    {
        let mut table = assignments.modes.lock();
        if table.values().map(BTreeMap::len).sum::<usize>() >= MAX_MODES {
            return Err(Refusal::new(response::SYSTEM_ERROR, format!("{MAX_MODES} modes are set already")));
        }
        table.entry(topic.to_owned()).or_default().insert(group.name.clone(), mode);
    }
    assignments.file.save_with(|| assignments.to_json())?;
    Ok(cmd.reply(response::SUCCESS))
}

/// GET_ALL_MESSAGE_REQUEST_MODE.
pub(super) fn all_modes(
    broker: &Arc<Broker>,
    _: &Arc<Connection>,
    cmd: &Command,
) -> Result<Command, Refusal> {
    Ok(cmd.reply(response::SUCCESS).with_body(broker.pop.assignments.to_json().compact()))
}

/// What a consumer asks about.
#[derive(Debug)]
struct Question {
    topic: String,
    group: String,
    client: String,
    strategy: String,
    broadcast: bool,
}

impl Question {
    fn read(cmd: &Command) -> Result<Self, Refusal> {
        let json = crate::broker::body(cmd)?;
        let text = |name: &str| json.text_of(name).unwrap_or("").to_owned();
        let broadcast = match json.text_of("messageModel").unwrap_or("CLUSTERING") {
            "CLUSTERING" => false,
            "BROADCASTING" => true,
            other => {
                let remark = format!("{:?} is no message model", names::shorten(other));
                return Err(Refusal::new(response::INVALID_PARAMETER, remark));
            }
        };
        let this = Self {
            topic: text("topic"),
            group: text("consumerGroup"),
            client: text("clientId"),
            strategy: text("strategyName"),
            broadcast,
        };
        names::check_topic(&this.topic)?;
        names::check_group(&this.group)?;
        Ok(this)
    }
}

/// QUERY_ASSIGNMENT.
pub(super) fn query(broker: &Arc<Broker>, conn: &Arc<Connection>, cmd: Command) {
    let question = match Question::read(&cmd) {
        Ok(question) => question,
        Err(refusal) => return Broker::reply(conn, &cmd, Err(refusal)),
    };
    let (broker, conn) = (Arc::clone(broker), Arc::clone(conn));
    broker.runtime.clone().spawn(async move {
        let route = broker.pop.assignments.route(&broker, &question.topic).await;
        let mode = broker.pop.assignments.mode(&broker, &question.topic, &question.group);
        let assigned = route.and_then(|all| assign(&broker, &question, &mode, all));
        // Without an answer the client keeps what it has.
        let pairs = assigned.map(|queues| {
            let each = queues.iter().map(|of| {
                let queue = Json::map([
                    ("brokerName", Json::from(of.broker.as_str())),
                    ("queueId", of.queue.into()),
                    ("topic", question.topic.as_str().into()),
                ]);
                Json::map([("messageQueue", queue), ("mode", mode.name().into())])
            });
            ("messageQueueAssignments", Json::List(each.collect()))
        });
        let body = Json::map(pairs).compact();
        Broker::reply(&conn, &cmd, Ok(cmd.reply(response::SUCCESS).with_body(body)));
    });
}

/// The queues of one consumer; `None` when there is nothing to decide by.
fn assign(
    broker: &Broker,
    question: &Question,
    mode: &Mode,
    mut all: Vec<MessageQueue>,
) -> Option<Vec<MessageQueue>> {
    all.sort_unstable();
    if question.broadcast || !broker.config.server_balances {
        return Some(all);
    }
    let group = broker.clients.consumer_group(&question.group)?;
    let mut clients: Vec<String> = group.members.into_values().map(|member| member.client_id).collect();
    clients.sort_unstable();
    clients.dedup();
    let by_circle = match question.strategy.as_str() {
        "AVG" => false,
        "AVG_BY_CIRCLE" => true,
        other => {
            tracing::warn!(strategy = names::shorten(other), "unknown strategy: nothing assigned");
            return None;
        }
    };
    let mut mine = if mode.pop {
        popped(&question.client, &all, &clients, mode.share, by_circle)
    } else {
        shared_out(&question.client, &all, &clients, by_circle)
    };
    mine.sort_unstable();
    mine.dedup();
    Some(mine)
}

/// The queues of a consumer that pops: all brokers' queues at once, or its own and those of the consumers after it.
fn popped(
    client: &str,
    all: &[MessageQueue],
    clients: &[String],
    share: i32,
    by_circle: bool,
) -> Vec<MessageQueue> {
    let share = usize::try_from(share).unwrap_or(0);
    if share == 0 || share >= clients.len().saturating_sub(1) {
        return all.iter().map(|of| MessageQueue { queue: -1, ..of.clone() }).collect();
    }
    let Some(at) = clients.iter().position(|have| have == client) else { return Vec::new() };
    if clients.len() > all.len() {
        return all.get(at % all.len().max(1)).cloned().into_iter().collect();
    }
    let after = (at..=at + share).map(|n| clients[n % clients.len()].as_str());
    after.flat_map(|client| shared_out(client, all, clients, by_circle)).collect()
}

/// The part of a client when the queues are shared out, in turn or in runs of equal length.
fn shared_out(client: &str, all: &[MessageQueue], clients: &[String], by_circle: bool) -> Vec<MessageQueue> {
    let Some(at) = clients.iter().position(|have| have == client) else { return Vec::new() };
    if by_circle {
        return all.iter().skip(at).step_by(clients.len()).cloned().collect();
    }
    let (each, more) = (all.len() / clients.len(), all.len() % clients.len());
    let start = at * each + at.min(more);
    all[start..start + each + usize::from(at < more)].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::OsVfs;

    fn queues(count: i32) -> Vec<MessageQueue> {
        (0..count).map(|queue| MessageQueue { broker: "b".into(), queue }).collect()
    }

    fn ids(queues: &[MessageQueue]) -> Vec<i32> {
        queues.iter().map(|of| of.queue).collect()
    }

    fn clients(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("c{n}")).collect()
    }

    #[test]
    fn queues_are_shared_out_as_rocketmq_s_strategies_do() {
        let (all, three) = (queues(8), clients(3));
        let part = |client: &str, by_circle| ids(&shared_out(client, &all, &three, by_circle));
        assert_eq!(
            [part("c0", false), part("c1", false), part("c2", false)],
            [vec![0, 1, 2], vec![3, 4, 5], vec![6, 7]]
        );
        assert_eq!(
            [part("c0", true), part("c1", true), part("c2", true)],
            [vec![0, 3, 6], vec![1, 4, 7], vec![2, 5]]
        );
        assert!(part("c9", false).is_empty());
        let many = clients(5);
        let part = |n: usize| ids(&shared_out(&many[n], &queues(3), &many, false));
        assert_eq!((0..5).map(part).collect::<Vec<_>>(), [vec![0], vec![1], vec![2], vec![], vec![]]);
    }

    #[test]
    fn those_that_pop_share_queues_with_the_consumers_after_them() {
        let four = clients(4);
        let part = |client: &str, share| ids(&popped(client, &queues(8), &four, share, false));
        assert_eq!(part("c0", 0), [-1; 8]);
        assert_eq!(part("c0", 3), [-1; 8]);
        assert_eq!(part("c3", 1), [6, 7, 0, 1]);
        assert_eq!(part("c9", 1), [0; 0]);
        let many = clients(6);
        assert_eq!(ids(&popped("c5", &queues(4), &many, 2, false)), [1]);
    }

    #[test]
    fn a_route_gives_the_queues_that_may_be_read() {
        let route = r#"{"brokerDatas":[],"queueDatas":[{"brokerName":"b","perm":6,"readQueueNums":2,"writeQueueNums":4},
            {"brokerName":"a","perm":2,"readQueueNums":4},{"brokerName":"c","perm":4,"readQueueNums":1}]}"#;
        let all = queues_of(&Json::parse(route.as_bytes()).unwrap());
        let all: Vec<_> = all.iter().map(|of| (of.broker.as_str(), of.queue)).collect();
        assert_eq!(all, [("b", 0), ("b", 1), ("c", 0)]);
    }

    #[test]
    fn modes_are_kept_in_java_s_file() {
        let dir = tempfile::tempdir().unwrap();
        let java = "{\n\t\"messageRequestModeMap\":{\n\t\t\"t\":{\n\t\t\t\"g\":{\n\t\t\t\t\"consumerGroup\":\"g\",\n\t\t\t\t\"mode\":\"POP\",\n\t\t\t\t\"popShareQueueNum\":8,\n\t\t\t\t\"topic\":\"t\"\n\t\t\t}\n\t\t}\n\t}\n}";
        std::fs::write(dir.path().join("messageRequestMode.json"), java).unwrap();
        let file = ConfigFile::new(Arc::new(OsVfs), dir.path(), "messageRequestMode.json").unwrap();
        let modes = Assignments::load(file).unwrap();
        assert_eq!(modes.modes.lock()["t"]["g"], Mode { pop: true, share: 8 });
        assert_eq!(modes.to_json().pretty(), java);
    }
}
