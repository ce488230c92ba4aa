//! How fast messages come and go, for operators.
//!
//! Owns a few samples of each counter, taken every [`PERIOD`]. Nothing is counted on the way of a message, only pulls
//! in vain: topics are measured by the ends of their queues, groups by the offsets that they committed, the broker by the store's counters.
//! VIEW_BROKER_STATS_DATA 315 is answered from them. Called by the sampling timer and by operators.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;

use super::{Broker, Refusal, Route, json::Json, names};
use crate::{
    error::Result,
    remoting::{
        Command, Connection,
        codes::{request, response},
    },
};

/// Time between two samples.
pub(crate) const PERIOD: Duration = Duration::from_secs(10);
/// Samples of a topic or group: a minute.
const MINUTE: usize = 7;
/// Samples in a minute.
const A_MINUTE: u64 = 6;
/// Samples of the broker: ten minutes.
const TEN_MINUTES: usize = 61;
/// Samples between two that are kept for an hour, and how many of those.
const FOR_THE_HOUR: (u64, usize) = (60, 7);
/// As above, for a day.
const FOR_THE_DAY: (u64, usize) = (360, 25);
const DAY_MS: i64 = 86_400_000;
/// Under these the samples of the whole broker stand; no topic and no group in a topic is called so.
const ALL_PUTS: &str = "@put";
const ALL_GETS: &str = "@get";

/// A counter at several moments.
#[derive(Debug, Default)]
struct Series(VecDeque<(Duration, u64)>);

impl Series {
    fn push(&mut self, now: Duration, value: u64, keep: usize) {
        self.0.push_back((now, value));
        while self.0.len() > keep {
            self.0.pop_front();
        }
    }

    /// Growth a second over the last `samples` periods.
    fn per_second(&self, samples: usize) -> f64 {
        let Some((end, last)) = self.0.back() else { return 0.0 };
        let first = self.0.len().saturating_sub(samples + 1);
        let (start, before) = self.0[first];
        let time = end.saturating_sub(start).as_secs_f64();
        if time > 0.0 { last.saturating_sub(before) as f64 / time } else { 0.0 }
    }

    /// As [`Series::push`], but a value that stays the same takes no room.
    fn push_changed(&mut self, now: Duration, value: u64, keep: usize) {
        if self.0.back().is_none_or(|(_, last)| *last != value) {
            self.push(now, value, keep);
        }
    }

    /// Growth to `value` since `window` ago, or since the first sample; and how long ago that is.
    fn growth(&self, now: Duration, value: u64, window: Duration) -> (u64, Duration) {
        let from = now.saturating_sub(window);
        let before = self.0.iter().rev().find(|(at, _)| *at <= from).or(self.0.front());
        before.map_or((0, Duration::ZERO), |(at, before)| {
            (value.saturating_sub(*before), now.saturating_sub((*at).max(from)))
        })
    }
}

/// The messages of a topic, or of a group in a topic.
#[derive(Debug, Default)]
struct Named {
    minute: Series,
    hour: Series,
    day: Series,
}

impl Named {
    fn push(&mut self, turn: u64, now: Duration, value: u64) {
        self.minute.push(now, value, MINUTE);
        for (series, (each, keep)) in [(&mut self.hour, FOR_THE_HOUR), (&mut self.day, FOR_THE_DAY)] {
            if turn.is_multiple_of(each) || series.0.is_empty() {
                series.push_changed(now, value, keep);
            }
        }
    }

    /// What came in the last minute, hour and day, and in how much time of that.
    fn growth(&self) -> [(u64, Duration); 3] {
        let (now, value) = self.minute.0.back().copied().unwrap_or_default();
        [(&self.minute, 60), (&self.hour, 3_600), (&self.day, 86_400)]
            .map(|(series, window)| series.growth(now, value, Duration::from_secs(window)))
    }
}

/// A counter at the last midnights.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Days {
    pub(crate) yesterday_morning: u64,
    pub(crate) today_morning: u64,
}

#[derive(Debug, Default)]
struct Inner {
    named: HashMap<String, Named>,
    /// Samples that were taken.
    turn: u64,
    /// When the last one was.
    at: Duration,
    puts: Series,
    gets: Series,
    misses: Series,
    /// Messages that came into the timer wheel, and that left it.
    timed: [Series; 2],
    put_days: Days,
    get_days: Days,
    /// Days since 1970, local time, of the last sample.
    day: Option<i64>,
}

/// The samples.
#[derive(Debug, Default)]
pub(crate) struct Rates(Mutex<Inner>, AtomicU64);

impl Rates {
    /// Messages a second that the topic got over the last minute.
    pub(crate) fn put_tps(&self, topic: &str) -> f64 {
        self.0.lock().named.get(topic).map_or(0.0, |named| named.minute.per_second(MINUTE))
    }

    /// Messages a second that the group got on with in the topic over the last minute.
    pub(crate) fn consume_tps(&self, group: &str, topic: &str) -> f64 {
        let key = format!("{topic}@{group}");
        self.0.lock().named.get(&key).map_or(0.0, |named| named.minute.per_second(MINUTE))
    }

    /// Puts, gets and pulls in vain a second of the whole broker over ten seconds, one minute and ten minutes.
    pub(crate) fn broker(&self) -> [[f64; 3]; 3] {
        let inner = self.0.lock();
        [&inner.puts, &inner.gets, &inner.misses]
            .map(|series| [1, 6, 60].map(|samples| series.per_second(samples)))
    }

    /// Messages a second that came into the timer wheel, and that left it, over the last minute.
    pub(crate) fn timers(&self) -> (f64, f64) {
        let inner = self.0.lock();
        (inner.timed[0].per_second(MINUTE), inner.timed[1].per_second(MINUTE))
    }

    /// Counts a pull that found nothing, which the store does not tell from others.
    pub(crate) fn missed(&self) {
        self.1.fetch_add(1, Relaxed);
    }

    /// Puts and gets at the last midnights, counted since the start.
    pub(crate) fn days(&self) -> (Days, Days) {
        let inner = self.0.lock();
        (inner.put_days, inner.get_days)
    }
}

impl Broker {
    /// Messages that ever came into the timer wheel, and that left it.
    fn timed_so_far(&self) -> [u64; 2] {
        let end = self.end_of(self.store.find_queue(names::TIMER_TOPIC, 0));
        let [_, outside, waiting] = self.timer.figures(self).unwrap_or_default();
        [end - outside, end - outside - waiting].map(|count| u64::try_from(count).unwrap_or(0))
    }

    /// Takes a sample of everything.
    pub(crate) fn sample_rates(&self) {
        let mut values: HashMap<String, u64> = HashMap::new();
        for (topic, id) in self.store.queues() {
            let end = self.store.find_queue(&topic, id).map_or(0, |queue| self.store.max_offset(queue).get());
            *values.entry(topic.as_str().to_owned()).or_default() += u64::try_from(end).unwrap_or(0);
        }
        self.offsets.each_sum(|topic, group, sum| {
            values.insert(format!("{topic}@{group}"), sum);
        });
        let now = self.clock.monotonic();
        let stats = self.store.status().stats;
        values.extend([(ALL_PUTS.to_owned(), stats.puts), (ALL_GETS.to_owned(), stats.got_messages)]);
        let timed = self.timed_so_far();
        let wall = self.clock.now();
        let day = (wall.get() + self.clock.utc_offset(wall) * 1_000).div_euclid(DAY_MS);
        let mut inner = self.rates.0.lock();
        inner.puts.push(now, stats.puts, TEN_MINUTES);
        inner.gets.push(now, stats.got_messages, TEN_MINUTES);
        inner.misses.push(now, self.rates.1.load(Relaxed), TEN_MINUTES);
        for (series, count) in inner.timed.iter_mut().zip(timed) {
            series.push(now, count, MINUTE);
        }
        inner.named.retain(|name, _| values.contains_key(name));
        let (turn, before) = (inner.turn, inner.at);
        for (name, value) in values {
            inner
                .named
                .entry(name)
                .or_insert_with(|| {
                    // What is new since the last sample had nothing then.
                    let mut named = Named::default();
                    if turn > 0 {
                        named.push(turn, before, 0);
                    }
                    named
                })
                .push(turn, now, value);
        }
        (inner.turn, inner.at) = (turn + 1, now);
        if turn.is_multiple_of(A_MINUTE) {
            self.sends.times.begin();
        }
        if inner.day.replace(day).is_some_and(|before| before != day) {
            let next =
                |days: Days, count| Days { yesterday_morning: days.today_morning, today_morning: count };
            inner.put_days = next(inner.put_days, stats.puts);
            inner.get_days = next(inner.get_days, stats.got_messages);
        }
    }
}

/// The codes that this file answers.
pub(super) const ROUTES: &[(i32, Route)] = &[(request::VIEW_BROKER_STATS_DATA, Route::Answer(view))];

/// Messages of a topic (`TOPIC_PUT_NUMS`), of a group in it (`GROUP_GET_NUMS`), and of the whole broker under its
/// cluster's name (`BROKER_PUT_NUMS`, `BROKER_GET_NUMS`); other figures are not kept.
fn view(broker: &Arc<Broker>, _: &Arc<Connection>, cmd: &Command) -> Result<Command, Refusal> {
    let (name, key) = (cmd.fields.text("statsName")?, cmd.fields.text("statsKey")?);
    let kept = match name {
        "TOPIC_PUT_NUMS" if !key.contains('@') => Some(key),
        "GROUP_GET_NUMS" if key.find('@').is_some_and(|at| at > 0) => Some(key),
        "BROKER_PUT_NUMS" if key == broker.config.cluster => Some(ALL_PUTS),
        "BROKER_GET_NUMS" if key == broker.config.cluster => Some(ALL_GETS),
        _ => None,
    };
    let growth = kept.and_then(|kept| broker.rates.0.lock().named.get(kept).map(Named::growth));
    let growth = growth.ok_or_else(|| {
        let remark = format!("The stats <{}> <{}> not exist", names::shorten(name), names::shorten(key));
        Refusal::new(response::SYSTEM_ERROR, remark)
    })?;
    let item = |(sum, time): (u64, Duration)| {
        let tps = if time.is_zero() { 0.0 } else { sum as f64 / time.as_secs_f64() };
        Json::map([
            ("avgpt", Json::from(0.0)),
            ("sum", Json::from(i64::try_from(sum).unwrap_or(i64::MAX))),
            ("tps", tps.into()),
        ])
    };
    let [minute, hour, day] = growth.map(item);
    let body = Json::map([("statsDay", day), ("statsHour", hour), ("statsMinute", minute)]);
    Ok(cmd.reply(response::SUCCESS).with_body(body.compact()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_that_of_the_window_and_what_stays_the_same_takes_no_room() {
        let mut named = Named::default();
        // Ten messages in each period of the first hour, none afterwards.
        let value = |turn: u64| turn.min(360) * 10;
        let at = |turn: u64| PERIOD * u32::try_from(turn).unwrap();
        let sums = |named: &Named| named.growth().map(|(sum, _)| sum);
        for turn in 0..=30 {
            named.push(turn, at(turn), value(turn));
        }
        assert_eq!(sums(&named), [60, 300, 300]);
        assert_eq!(named.growth().map(|(_, time)| time.as_secs()), [60, 300, 300]);
        for turn in 31..=540 {
            named.push(turn, at(turn), value(turn));
        }
        assert_eq!(sums(&named), [0, 1_800, 3_600], "an hour and a half");
        for turn in 541..=8_640 {
            named.push(turn, at(turn), value(turn));
        }
        assert_eq!(sums(&named), [0, 0, 3_600], "a day");
        for turn in 8_641..=9_010 {
            named.push(turn, at(turn), value(turn));
        }
        assert_eq!(sums(&named), [0, 0, 0], "a day and an hour");
        assert!(named.hour.0.len() <= 7 && named.day.0.len() == 2);
    }

    #[test]
    fn a_rate_is_growth_over_the_time_that_was_sampled() {
        let mut series = Series::default();
        assert_eq!(series.per_second(6), 0.0);
        for n in 0..20u64 {
            series.push(PERIOD * u32::try_from(n).unwrap(), n * n * 10, MINUTE);
        }
        assert_eq!(series.0.len(), MINUTE);
        assert_eq!(series.per_second(1), 37.0);
        assert_eq!(series.per_second(6), (19.0 * 19.0 - 13.0 * 13.0) / 6.0);
        assert_eq!(series.per_second(60), series.per_second(6));
        // A topic that was deleted and made again counts from nothing, which is no negative rate.
        series.push(PERIOD * 20, 0, MINUTE);
        assert_eq!(series.per_second(1), 0.0);
    }
}
