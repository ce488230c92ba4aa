//! GET_BROKER_RUNTIME_INFO 28: the figures of a running broker under RocketMQ's names.
//!
//! Owns nothing. What RocketMQ counts and this broker does not have is left out; a queue of requests that it does not
//! have, because it serves them as they are read, has nothing in it and room for nothing.

use std::{fmt::Write as _, sync::Arc};

use super::{Broker, Refusal, Route, json::Json, names, send_queue::Kind};
use crate::{
    remoting::{
        Command, Connection,
        codes::{request, response},
    },
    types::PhysicalOffset,
};

/// The code that this file answers.
pub(super) const ROUTES: &[(i32, Route)] = &[(request::GET_BROKER_RUNTIME_INFO, Route::Aside(answer))];

type Figure = (String, String);

fn figure(name: impl Into<String>, value: impl ToString) -> Figure {
    (name.into(), value.to_string())
}

fn answer(broker: &Arc<Broker>, _: &Arc<Connection>, cmd: &Command) -> Result<Command, Refusal> {
    let mut table = of_broker(broker);
    table.extend(of_store(broker)?);
    table.extend(of_traffic(broker));
    table.extend(of_delays(broker));
    table.extend(of_timers(broker));
    table.extend(of_queues(broker));
    let table = table.into_iter().map(|(name, value)| (name, Json::from(value)));
    Ok(cmd.reply(response::SUCCESS).with_body(Json::map([("table", Json::map(table))]).compact()))
}

fn of_broker(broker: &Broker) -> Vec<Figure> {
    let (consumers, producers) = broker.clients.counts();
    let uptime = (broker.clock.now().get() - broker.boot_time.get()).max(0) / 1_000;
    let (days, hours, minutes, seconds) =
        (uptime / 86_400, uptime / 3_600 % 24, uptime / 60 % 60, uptime % 60);
    vec![
        figure("brokerActive", true),
        figure("brokerVersion", crate::remoting::VERSION),
        figure("brokerVersionDesc", format!("reput {}", env!("CARGO_PKG_VERSION"))),
        figure("bootTimestamp", broker.boot_time),
        figure("runtime", format!("[ {days} days, {hours} hours, {minutes} minutes, {seconds} seconds ]")),
        // Sends are taken from the start.
        figure("startAcceptSendRequestTimeStamp", 0),
        figure("consumerConnections", consumers),
        figure("producerConnections", producers),
        figure("pullsHeld", broker.hold.len()),
    ]
}

fn of_store(broker: &Broker) -> Result<Vec<Figure>, Refusal> {
    let status = broker.store.status();
    let used = format!("{:?}", f64::from(status.disk_used_percent) / 100.0);
    let earliest = broker.store.message_at(status.min_offset)?;
    let earliest = earliest.map_or(-1, |message| message.record().store_timestamp.get());
    let between = |from: PhysicalOffset, to: PhysicalOffset| (to.get() - from.get()).max(0);
    let log = broker.config.store.path("commitlog");
    let log = broker.config.store.commit_log_dir.as_ref().unwrap_or(&log);
    let mut table = vec![
        figure("dispatchBehindBytes", between(status.dispatched_offset, status.max_offset)),
        figure("remainHowManyDataToFlush", bytes(between(status.durable_offset, status.max_offset))),
        // There is no pool that could run out of buffers.
        figure("remainTransientStoreBufferNumbs", i32::MAX),
        figure("commitLogMinOffset", status.min_offset),
        figure("commitLogMaxOffset", status.max_offset),
        figure(format!("commitLogDiskRatio_{}", log.display()), &used),
        figure("commitLogDiskRatio", &used),
        figure("consumeQueueDiskRatio", &used),
        figure("earliestMessageTimeStamp", earliest),
    ];
    if let Ok(usage) = broker.vfs.usage(broker.config.root()) {
        let (total, free) = (i64::try_from(usage.total), i64::try_from(usage.free));
        let (total, free) = (total.unwrap_or(i64::MAX), free.unwrap_or(i64::MAX));
        table.push(figure(
            "commitLogDirCapacity",
            format!("Total : {}, Free : {}.", bytes(total), bytes(free)),
        ));
    }
    Ok(table)
}

fn of_traffic(broker: &Broker) -> Vec<Figure> {
    let stats = broker.store.status().stats;
    let [put, got, missed] = broker.rates.broker();
    let both = [0, 1, 2].map(|at| got[at] + missed[at]);
    let (put_days, get_days) = broker.rates.days();
    let average = stats.put_bytes as f64 / stats.puts.max(1) as f64;
    vec![
        figure("putTps", three(put)),
        figure("getTransferredTps", three(got)),
        figure("getTotalTps", three(both)),
        figure("getFoundTps", three(got)),
        figure("getMissTps", three(missed)),
        figure("msgPutTotalTodayNow", stats.puts),
        figure("msgPutTotalTodayMorning", put_days.today_morning),
        figure("msgPutTotalYesterdayMorning", put_days.yesterday_morning),
        figure("msgGetTotalTodayNow", stats.got_messages),
        figure("msgGetTotalTodayMorning", get_days.today_morning),
        figure("msgGetTotalYesterdayMorning", get_days.yesterday_morning),
        figure("putMessageTimesTotal", stats.puts),
        figure("putMessageSizeTotal", stats.put_bytes),
        figure("putMessageAverageSize", format!("{average:?}")),
        figure("putMessageFailedTimes", stats.put_failures),
        figure("putMessageDistributeTime", broker.sends.times.text()),
        figure("putMessageEntireTimeMax", broker.sends.times.longest_ms()),
    ]
}

/// Where each delay level is, and where its queue ends.
fn of_delays(broker: &Broker) -> Vec<Figure> {
    let level = |level: i32| {
        let end = broker.end_of(broker.store.find_queue(names::SCHEDULE_TOPIC, level - 1));
        figure(format!("scheduleMessageOffset_{level}"), format!("{},{end}", broker.schedule.offset(level)))
    };
    (1..=broker.config.delay_level_count()).map(level).collect()
}

/// How far the timers are behind; nothing is when there are none.
fn of_timers(broker: &Broker) -> Vec<Figure> {
    let names = ["timerReadBehind", "timerOffsetBehind", "timerCongestNum"];
    let figures = broker.timer.figures(broker).map(|figures| figures.map(|figure| figure.to_string()));
    let figures = figures.unwrap_or_else(|| [(); 3].map(|()| "0".to_owned()));
    let (came, went) = broker.rates.timers();
    let rates = [("timerEnqueueTps", came), ("timerDequeueTps", went)];
    let rates = rates.map(|(name, tps)| figure(name, format!("{tps:?}")));
    names.into_iter().zip(figures).map(|(name, value)| figure(name, value)).chain(rates).collect()
}

/// How many requests wait, how many may, and how long the first has.
fn of_queues(broker: &Broker) -> Vec<Figure> {
    let now = broker.clock.monotonic();
    let own = [
        ("sendThreadPoolQueue", "sendThreadPoolQueueHeadWaitTimeMills", Kind::Send),
        ("ackThreadPoolQueue", "ackThreadPoolQueueHeadWaitTimeMills", Kind::Ack),
    ];
    let mut table = Vec::new();
    for (name, wait, kind) in own {
        let (waiting, waited) = broker.sends.figures(kind, now);
        table.push(figure(format!("{name}Size"), waiting));
        table.push(figure(format!("{name}Capacity"), kind.capacity(broker)));
        table.push(figure(wait, waited));
    }
    let (waiting, waited) = broker.sends.figures(Kind::Transaction, now);
    let capacity = Kind::Transaction.capacity(broker);
    table.push(figure("EndTransactionQueueSize", waiting));
    table.push(figure("EndTransactionThreadPoolQueueCapacity", capacity));
    table.push(figure("EndTransactionThreadPoolQueueHeadWaitTimeMills", waited));
    for name in ["pull", "litePull", "query"] {
        for what in ["Size", "Capacity", "HeadWaitTimeMills"] {
            table.push(figure(format!("{name}ThreadPoolQueue{what}"), 0));
        }
    }
    table.push(figure("pageCacheLockTimeMills", broker.sends.stands_still(now).as_millis()));
    table
}

/// Rates as RocketMQ writes them.
fn three(tps: [f64; 3]) -> String {
    let mut text = String::new();
    for value in tps {
        // Writing into a String cannot fail.
        let _ = write!(text, "{}{value:?}", if text.is_empty() { "" } else { " " });
    }
    text
}

/// A number of bytes as RocketMQ writes it for people.
fn bytes(count: i64) -> String {
    let mut value = count as f64;
    let mut unit = "";
    for next in ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"] {
        if value < 1_024.0 {
            break;
        }
        value /= 1_024.0;
        unit = next;
    }
    if unit.is_empty() { format!("{count} B") } else { format!("{value:.1} {unit}B") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_written_for_people_as_rocketmq_does() {
        for (count, text) in
            [(0, "0 B"), (1_023, "1023 B"), (1_024, "1.0 KiB"), (1_536, "1.5 KiB"), (5 << 30, "5.0 GiB")]
        {
            assert_eq!(bytes(count), text);
        }
    }
}
