//! GET_TIMER_CHECK_POINT 60 and GET_TIMER_METRICS 61: what a replica asks of its master about the timers.

use std::sync::Arc;

use crate::{
    broker::{Broker, Refusal, Route},
    remoting::{
        Command, Connection,
        codes::{request, response},
    },
};

/// The codes that this file answers.
pub(super) const ROUTES: &[(i32, Route)] = &[
    (request::GET_TIMER_CHECK_POINT, Route::Answer(check_point)),
    (request::GET_TIMER_METRICS, Route::Answer(metrics)),
];

/// The 56 bytes of the checkpoint as it was saved last.
fn check_point(broker: &Arc<Broker>, _: &Arc<Connection>, cmd: &Command) -> Result<Command, Refusal> {
    let bytes = broker.timer.saved().ok_or_else(|| none("The checkpoint is null"))?;
    Ok(cmd.reply(response::SUCCESS).with_body(bytes))
}

/// How many messages of each topic wait.
fn metrics(broker: &Arc<Broker>, _: &Arc<Connection>, cmd: &Command) -> Result<Command, Refusal> {
    if !broker.config.timer_wheel {
        return Err(none("The timer message store is null"));
    }
    Ok(cmd.reply(response::SUCCESS).with_body(broker.timed.to_json().compact()))
}

fn none(remark: &str) -> Refusal {
    Refusal::new(response::SYSTEM_ERROR, remark)
}
