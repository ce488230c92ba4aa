//! What operators ask of clients: who is connected, and requests that are passed on to one of them.
//!
//! Owns nothing; reads the table of clients. A request that is passed on is answered by the client's own answer, or
//! refused when it does not come in time.

use std::{sync::Arc, time::Duration};

use super::{Broker, Refusal, Route, clients::Member, json::Json, names};
use crate::{
    format::message_id::MessageId,
    remoting::{
        Command, Connection,
        codes::{request, response},
    },
};

/// How long a client may take to answer what is passed on.
const PATIENCE: Duration = Duration::from_secs(10);

/// The codes that this file answers.
pub(super) const ROUTES: &[(i32, Route)] = &[
    (request::GET_CONSUMER_CONNECTION_LIST, Route::Answer(consumers)),
    (request::GET_PRODUCER_CONNECTION_LIST, Route::Answer(producers)),
    (request::GET_ALL_PRODUCER_INFO, Route::Answer(all_producers)),
    (request::QUERY_SUBSCRIPTION_BY_CONSUMER, Route::Answer(subscription)),
    (request::INVOKE_BROKER_TO_GET_CONSUMER_STATUS, Route::Take(statuses)),
    (request::GET_CONSUMER_RUNNING_INFO, Route::Take(running_info)),
    (request::CONSUME_MESSAGE_DIRECTLY, Route::Take(consume_directly)),
];

fn connection_json(member: &Member) -> Json {
    Json::map([
        ("clientAddr", Json::from(member.conn.peer().to_string())),
        ("clientId", member.client_id.as_str().into()),
        ("language", member.language.name().into()),
        ("version", member.version.into()),
    ])
}

fn consumers(broker: &Arc<Broker>, _: &Arc<Connection>, cmd: &Command) -> Result<Command, Refusal> {
    let name = cmd.fields.text("consumerGroup")?;
    let group = broker.clients.consumer_group(name).ok_or_else(|| {
        Refusal::new(
            response::CONSUMER_NOT_ONLINE,
            format!("the consumer group[{}] not online", names::shorten(name)),
        )
    })?;
    let subscriptions = group.subscriptions.iter().map(|(topic, sub)| (topic.as_str(), sub.to_json()));
    let body = Json::map([
        ("connectionSet", Json::List(group.members.values().map(connection_json).collect())),
        ("consumeFromWhere", group.manner.consume_from_where.as_str().into()),
        ("consumeType", group.manner.consume_type.as_str().into()),
        ("messageModel", group.manner.message_model.as_str().into()),
        ("subscriptionTable", Json::map(subscriptions)),
    ]);
    Ok(cmd.reply(response::SUCCESS).with_body(body.compact()))
}

fn producers(broker: &Arc<Broker>, _: &Arc<Connection>, cmd: &Command) -> Result<Command, Refusal> {
    let name = cmd.fields.text("producerGroup")?;
    let mut all = broker.clients.producers();
    let members = all.remove(name).ok_or_else(|| {
        let why = format!("the producer group[{}] not exist", names::shorten(name));
        Refusal::new(response::SYSTEM_ERROR, why)
    })?;
    let body = Json::map([("connectionSet", Json::List(members.iter().map(connection_json).collect()))]);
    Ok(cmd.reply(response::SUCCESS).with_body(body.compact()))
}

fn all_producers(broker: &Arc<Broker>, _: &Arc<Connection>, cmd: &Command) -> Result<Command, Refusal> {
    let member = |member: &Member| {
        Json::map([
            ("clientId", Json::from(member.client_id.as_str())),
            ("language", member.language.name().into()),
            ("lastUpdateTimestamp", member.seen.get().into()),
            ("remoteIP", format!("/{}", member.conn.peer()).into()),
            ("version", member.version.into()),
        ])
    };
    let groups = broker.clients.producers();
    let groups = groups
        .iter()
        .map(|(name, members)| (name.as_str(), Json::List(members.iter().map(member).collect())));
    let body = Json::map([("data", Json::map(groups))]);
    Ok(cmd.reply(response::SUCCESS).with_body(body.compact()))
}

/// What a group's consumers want of a topic.
fn subscription(broker: &Arc<Broker>, _: &Arc<Connection>, cmd: &Command) -> Result<Command, Refusal> {
    let (group, topic) = (cmd.fields.text("group")?, cmd.fields.text("topic")?);
    let mut fields = vec![("group", Json::from(group))];
    let subscription = broker.clients.subscription(group, topic);
    fields.extend(subscription.map(|subscription| ("subscriptionData", subscription.to_json())));
    fields.push(("topic", topic.into()));
    Ok(cmd.reply(response::SUCCESS).with_body(Json::map(fields).compact()))
}

/// Asks the consumers of a group, or one of them, where they are in the queues of a topic. Those that do not say in
/// time are left out.
fn statuses(broker: &Arc<Broker>, conn: &Arc<Connection>, cmd: Command) {
    let (members, question) = match asked(broker, &cmd) {
        Ok(asked) => asked,
        Err(refusal) => return Broker::reply(conn, &cmd, Err(refusal)),
    };
    let conn = Arc::clone(conn);
    broker.runtime.spawn(async move {
        let mut table = Vec::new();
        for Member { client_id, conn, .. } in members {
            match conn.call(question.clone(), PATIENCE / 2).await {
                Ok(answer) if answer.code == response::SUCCESS => {
                    let said = Json::parse(&answer.body.to_bytes()).unwrap_or(Json::Null);
                    let queues = said.get("messageQueueTable").cloned().unwrap_or(Json::Map(Vec::new()));
                    table.push((client_id, queues));
                }
                Ok(answer) => tracing::warn!(client_id, answer.code, "a client refused to say where it is"),
                Err(error) => tracing::warn!(client_id, %error, "a client did not say where it is"),
            }
        }
        let body =
            Json::map([("consumerTable", Json::map(table)), ("messageQueueTable", Json::Map(Vec::new()))]);
        Broker::reply(&conn, &cmd, Ok(cmd.reply(response::SUCCESS).with_body(body.compact())));
    });
}

/// The members to ask, and what.
fn asked(broker: &Broker, cmd: &Command) -> Result<(Vec<Member>, Command), Refusal> {
    let (group, topic) = (cmd.fields.text("group")?, cmd.fields.text("topic")?);
    let only = cmd.fields.get("clientAddr").filter(|client| !client.trim().is_empty());
    let members = broker.clients.consumer_group(group).map(|group| group.members).unwrap_or_default();
    if members.is_empty() {
        let why = format!("No Any Consumer online in the consumer group: [{}]", names::shorten(group));
        return Err(Refusal::new(response::SYSTEM_ERROR, why));
    }
    let question = Command::request(request::GET_CONSUMER_STATUS_FROM_CLIENT)
        .with_field("group", group)
        .with_field("topic", topic);
    let members = members.into_values().filter(|member| only.is_none_or(|only| only == member.client_id));
    Ok((members.collect(), question))
}

/// The member that a request names by group and client id.
fn addressee(broker: &Broker, cmd: &Command) -> Result<Member, Refusal> {
    let group = cmd.fields.text("consumerGroup")?;
    let client = cmd.fields.text("clientId")?;
    broker.clients.find(group, client).ok_or_else(|| {
        let why = format!("The Consumer <{}> <{}> not online", names::shorten(group), names::shorten(client));
        Refusal::new(response::SYSTEM_ERROR, why)
    })
}

/// Passes a request on to a client and its answer back.
fn pass_on(
    broker: &Arc<Broker>,
    conn: &Arc<Connection>,
    cmd: Command,
    passed: Result<(Member, Command), Refusal>,
) {
    let (member, passed) = match passed {
        Ok(passed) => passed,
        Err(refusal) => return Broker::reply(conn, &cmd, Err(refusal)),
    };
    let conn = Arc::clone(conn);
    let answer = member.conn.call(passed, PATIENCE);
    broker.runtime.spawn(async move {
        let reply = answer.await.map(|answer| Command { opaque: cmd.opaque, ..answer }).map_err(|error| {
            Refusal::new(response::CONSUME_MSG_TIMEOUT, format!("client {}: {error}", member.client_id))
        });
        Broker::reply(&conn, &cmd, reply);
    });
}

fn running_info(broker: &Arc<Broker>, conn: &Arc<Connection>, cmd: Command) {
    let passed = addressee(broker, &cmd).map(|member| {
        let mut passed = Command::request(cmd.code);
        passed.fields = cmd.fields.clone();
        (member, passed)
    });
    pass_on(broker, conn, cmd, passed);
}

fn consume_directly(broker: &Arc<Broker>, conn: &Arc<Connection>, cmd: Command) {
    let passed = with_message(broker, &cmd);
    pass_on(broker, conn, cmd, passed);
}

/// The request with the message that it names as body.
fn with_message(broker: &Broker, cmd: &Command) -> Result<(Member, Command), Refusal> {
    let member = addressee(broker, cmd)?;
    let id: MessageId = cmd.fields.parse("msgId")?;
    let message = broker.store.message_at(id.offset)?.ok_or_else(|| {
        Refusal::new(response::SYSTEM_ERROR, format!("no message at offset {} of this broker", id.offset))
    })?;
    let sys_flag_of = |flag: Option<i32>| flag.unwrap_or(0);
    let topic_flag =
        cmd.fields.get("topic").and_then(|topic| broker.topics.get(topic)).map(|topic| topic.sys_flag);
    let group_flag = broker.groups.get(cmd.fields.text("consumerGroup")?).map(|group| group.group_sys_flag);
    let mut passed = Command::request(cmd.code);
    passed.fields = cmd.fields.clone();
    let passed = passed
        .with_field("brokerName", &broker.config.name)
        .with_field("topicSysFlag", sys_flag_of(topic_flag))
        .with_field("groupSysFlag", sys_flag_of(group_flag))
        .with_body(super::query::bytes_of(&message));
    Ok((member, passed))
}
