//! CHANGE_MESSAGE_INVISIBLETIME 200053: a popped message comes again sooner or later than was said.
//!
//! A new check point for that one message takes the place of its old one, in one put: the message is in exactly one of
//! them whatever happens.

use std::sync::Arc;

use super::{
    ack::record_of,
    admission::InHand,
    check_point::{CheckPoint, Key, Record},
    extra_info::{ExtraInfo, ORDER_QUEUE},
    log::{answer, put},
    order::Place,
};
use crate::{
    broker::{Broker, Refusal},
    remoting::{Command, Connection, codes::response},
    store::Appended,
};

/// Serves the request.
pub(super) fn change(broker: &Arc<Broker>, conn: &Arc<Connection>, cmd: Command) {
    match changed(broker, conn, &cmd) {
        Ok((times, stored)) => {
            let reply = cmd
                .reply(response::SUCCESS)
                .with_field("popTime", times.pop_time)
                .with_field("invisibleTime", times.invisible)
                .with_field("reviveQid", times.revive_queue);
            answer(broker, conn, &cmd, Ok(stored), reply);
        }
        Err(refusal) => Broker::reply(conn, &cmd, Err(refusal)),
    }
}

/// How the message is named from now on.
#[derive(Debug, Default)]
struct Times {
    pop_time: i64,
    invisible: i64,
    revive_queue: i32,
}

fn changed<'a>(
    broker: &'a Arc<Broker>,
    conn: &Connection,
    cmd: &Command,
) -> Result<(Times, Option<Appended<'a>>), Refusal> {
    let message = InHand::read(broker, cmd, conn.peer(), false)?;
    let info = ExtraInfo::read(cmd.fields.text("extraInfo")?, broker.config.revive_queues)?;
    let invisible: i64 = cmd.fields.parse("invisibleTime")?;
    if invisible < 0 {
        return Err(Refusal::new(response::INVALID_PARAMETER, "invisibleTime cannot be negative"));
    }
    let now = broker.clock.now().get();
    if info.is_ordered() {
        return Ok((in_order(broker, &message, &info, now.saturating_add(invisible)), None));
    }
    // Two changes within a millisecond must not share a name, or the second would acknowledge itself.
    let pop_time = now.max(info.pop_time.saturating_add(1));
    let check_point = CheckPoint {
        key: Key {
            topic: message.topic.to_owned(),
            group: message.group.to_owned(),
            queue: message.queue,
            start: message.offset,
            pop_time,
        },
        invisible,
        diffs: vec![0],
        acked: 0,
        suspend: cmd.fields.parse_or("suspend", false)?,
    };
    let new = Record::check_point(info.revive_queue, &check_point, &broker.config.name);
    let stored = put(broker, &[new, record_of(broker, &message, &info)])?;
    Ok((Times { pop_time, invisible, revive_queue: info.revive_queue }, stored))
}

/// In order nothing is put: the queue stays closed until the new time.
fn in_order(broker: &Arc<Broker>, message: &InHand<'_>, info: &ExtraInfo, at: i64) -> Times {
    let InHand { topic, group, queue, offset } = *message;
    let one_at_a_time = broker.pop.lock(topic, group);
    if broker.offsets.query(group, topic, queue).is_some_and(|at| offset < at) {
        return Times::default();
    }
    broker.pop.orders.show_at(Place { topic, group, queue }, offset, info.pop_time, at);
    drop(one_at_a_time);
    // Those that wait may have to look earlier than they thought.
    super::wake(broker, topic, group, queue);
    Times { pop_time: info.pop_time, invisible: at.saturating_sub(info.pop_time), revive_queue: ORDER_QUEUE }
}
