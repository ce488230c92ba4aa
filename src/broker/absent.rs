//! Requests about parts that a RocketMQ broker has and does not use with its defaults, and that this one does not have:
//! tables in RocksDB, a controller, replicas, the limit on cold reads. Answered as RocketMQ's answers them then.
//!
//! Owns nothing. Called by operators' tools.

use std::sync::Arc;

use super::{Broker, Refusal, Route, json::Json, names};
use crate::remoting::{
    Command, Connection,
    codes::{request, response},
};

/// The codes that this file answers.
pub(super) const ROUTES: &[(i32, Route)] = &[
    (request::CHECK_ROCKSDB_CQ_WRITE_PROGRESS, Route::Answer(queues_in_rocksdb)),
    (request::EXPORT_ROCKSDB_CONFIG_TO_JSON, Route::Answer(tables_in_rocksdb)),
    (request::RESET_MASTER_FLUSH_OFFSET, Route::Answer(nothing_to_do)),
    (request::POP_ROLLBACK, Route::Answer(nothing_to_do)),
    (request::GET_BROKER_EPOCH_CACHE, Route::Answer(epochs)),
    (request::GET_COLD_DATA_FLOW_CTR_INFO, Route::Answer(cold_reads)),
];

/// What RocketMQ says of a check under way.
const CHECK_IN_PROGRESS: i32 = 2;
/// The tables that can be in RocksDB.
const TABLES: [&str; 3] = ["topics", "subscriptionGroups", "consumerOffsets"];

/// RocketMQ's broker checks behind the answer, and logs what it finds.
fn queues_in_rocksdb(_: &Arc<Broker>, _: &Arc<Connection>, cmd: &Command) -> Result<Command, Refusal> {
    tracing::info!("no queue is in RocksDB: there is nothing to compare");
    let body = Json::map([("checkStatus", Json::from(CHECK_IN_PROGRESS))]);
    Ok(cmd.reply(response::SUCCESS).with_body(body.compact()))
}

fn tables_in_rocksdb(_: &Arc<Broker>, _: &Arc<Connection>, cmd: &Command) -> Result<Command, Refusal> {
    let wanted = cmd.fields.text("configType")?.split(';').filter(|name| !name.is_empty());
    for name in wanted {
        if !TABLES.iter().any(|table| table.eq_ignore_ascii_case(name.trim())) {
            let remark = format!("Unknown config type: {}", names::shorten(name));
            return Err(Refusal::new(response::SYSTEM_ERROR, remark));
        }
    }
    Ok(cmd.reply(response::SUCCESS).with_remark("export done."))
}

/// A master has no other one's offset; what was popped is in no second store.
fn nothing_to_do(_: &Arc<Broker>, _: &Arc<Connection>, cmd: &Command) -> Result<Command, Refusal> {
    Ok(cmd.reply(response::SUCCESS))
}

fn epochs(_: &Arc<Broker>, _: &Arc<Connection>, _: &Command) -> Result<Command, Refusal> {
    Err(Refusal::new(response::SYSTEM_ERROR, "this request only for controllerMode "))
}

/// The limits are RocketMQ's defaults; nobody is held to them.
fn cold_reads(_: &Arc<Broker>, _: &Arc<Connection>, cmd: &Command) -> Result<Command, Refusal> {
    let none = || Json::Map(Vec::new());
    let body = Json::map([
        ("runtimeTable", none()),
        ("configTable", none()),
        ("cgColdReadThreshold", Json::from(3 << 20)),
        ("globalColdReadThreshold", Json::from(100 << 20)),
        ("globalAcc", Json::from(0)),
    ]);
    Ok(cmd.reply(response::SUCCESS).with_body(body.compact()))
}
