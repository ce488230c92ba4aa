//! How long puts take, for operators: how many of the last whole minute fell into each of RocketMQ's classes.
//!
//! Owns the counts of the minute that runs and of the one before. A put is counted by whoever was at work for it.

use std::{
    fmt::Write as _,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use parking_lot::Mutex;

/// The classes: their names, and the milliseconds that are too many for each.
const CLASSES: [(&str, u64); 13] = [
    ("[<=0ms]", 1),
    ("[0~10ms]", 10),
    ("[10~50ms]", 50),
    ("[50~100ms]", 100),
    ("[100~200ms]", 200),
    ("[200~500ms]", 500),
    ("[500ms~1s]", 1_000),
    ("[1~2s]", 2_000),
    ("[2~3s]", 3_000),
    ("[3~4s]", 4_000),
    ("[4~5s]", 5_000),
    ("[5~10s]", 10_000),
    ("[10s~]", u64::MAX),
];

/// The counts.
#[derive(Debug, Default)]
pub(crate) struct PutTimes {
    running: [AtomicU64; CLASSES.len()],
    whole: Mutex<[u64; CLASSES.len()]>,
    longest_ms: AtomicU64,
}

impl PutTimes {
    /// Counts a put.
    pub(crate) fn note(&self, time: Duration) {
        let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let class = CLASSES.iter().position(|(_, end)| ms < *end).unwrap_or(CLASSES.len() - 1);
        self.running[class].fetch_add(1, Relaxed);
        self.longest_ms.fetch_max(ms, Relaxed);
    }

    /// Begins another minute.
    pub(crate) fn begin(&self) {
        let mut whole = self.whole.lock();
        for (count, running) in whole.iter_mut().zip(&self.running) {
            *count = running.swap(0, Relaxed);
        }
    }

    /// The classes and counts of the last whole minute, as RocketMQ writes them.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for ((class, _), count) in CLASSES.iter().zip(&*self.whole.lock()) {
            // Writing into a String cannot fail.
            let _ = write!(text, "{class}:{count} ");
        }
        text
    }

    /// The longest put so far.
    pub(crate) fn longest_ms(&self) -> u64 {
        self.longest_ms.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_put_counts_in_its_class_once_its_minute_is_over() {
        let times = PutTimes::default();
        for micros in [0, 999, 1_000, 9_999, 10_000, 999_999, 10_000_000, u64::MAX] {
            times.note(Duration::from_micros(micros));
        }
        assert!(times.text().starts_with("[<=0ms]:0 [0~10ms]:0 [10~50ms]:0 "));
        times.begin();
        assert_eq!(
            times.text(),
            "[<=0ms]:2 [0~10ms]:2 [10~50ms]:1 [50~100ms]:0 [100~200ms]:0 [200~500ms]:0 [500ms~1s]:1 [1~2s]:0 \
             [2~3s]:0 [3~4s]:0 [4~5s]:0 [5~10s]:0 [10s~]:2 "
        );
        assert_eq!(times.longest_ms(), u64::MAX / 1_000);
        times.begin();
        assert!(times.text().starts_with("[<=0ms]:0 "));
    }
}
