//! How fast messages come and go, for operators.
//!
//! Owns a few samples of each counter, taken every [`PERIOD`]. Nothing is counted on the way of a message: topics are
//! measured by the ends of their queues, groups by the offsets that they committed, the broker by the store's counters.
//! Called by the sampling timer and by the requests of operators.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use parking_lot::Mutex;

use super::Broker;

/// Time between two samples.
pub(crate) const PERIOD: Duration = Duration::from_secs(10);
/// Samples of a topic or group: a minute.
const MINUTE: usize = 7;
/// Samples of the broker: ten minutes.
const TEN_MINUTES: usize = 61;
const DAY_MS: i64 = 86_400_000;

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
}

/// A counter at the last midnights.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Days {
    pub(crate) yesterday_morning: u64,
    pub(crate) today_morning: u64,
}

#[derive(Debug, Default)]
struct Inner {
    named: HashMap<String, Series>,
    puts: Series,
    gets: Series,
    put_days: Days,
    get_days: Days,
    /// Days since 1970, local time, of the last sample.
    day: Option<i64>,
}

/// The samples.
#[derive(Debug, Default)]
pub(crate) struct Rates(Mutex<Inner>);

impl Rates {
    /// Messages a second that the topic got over the last minute.
    pub(crate) fn put_tps(&self, topic: &str) -> f64 {
        self.0.lock().named.get(topic).map_or(0.0, |series| series.per_second(MINUTE))
    }

    /// Messages a second that the group got on with in the topic over the last minute.
    pub(crate) fn consume_tps(&self, group: &str, topic: &str) -> f64 {
        let key = format!("{topic}@{group}");
        self.0.lock().named.get(&key).map_or(0.0, |series| series.per_second(MINUTE))
    }

    /// Puts and gets a second of the whole broker over ten seconds, one minute and ten minutes.
    pub(crate) fn broker(&self) -> ([f64; 3], [f64; 3]) {
        let inner = self.0.lock();
        let three = |series: &Series| [1, 6, 60].map(|samples| series.per_second(samples));
        (three(&inner.puts), three(&inner.gets))
    }

    /// Puts and gets at the last midnights, counted since the start.
    pub(crate) fn days(&self) -> (Days, Days) {
        let inner = self.0.lock();
        (inner.put_days, inner.get_days)
    }
}

impl Broker {
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
        let wall = self.clock.now();
        let day = (wall.get() + self.clock.utc_offset(wall) * 1_000).div_euclid(DAY_MS);
        let mut inner = self.rates.0.lock();
        inner.puts.push(now, stats.puts, TEN_MINUTES);
        inner.gets.push(now, stats.got_messages, TEN_MINUTES);
        inner.named.retain(|name, _| values.contains_key(name));
        for (name, value) in values {
            inner.named.entry(name).or_default().push(now, value, MINUTE);
        }
        if inner.day.replace(day).is_some_and(|before| before != day) {
            let next =
                |days: Days, count| Days { yesterday_morning: days.today_morning, today_morning: count };
            inner.put_days = next(inner.put_days, stats.puts);
            inner.get_days = next(inner.get_days, stats.got_messages);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
