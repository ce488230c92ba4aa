//! Latencies, processor time and memory.

use std::{fs, time::Duration};

use serde_json::{Value, json};

/// Counts of durations: 64 buckets for each power of two of nanoseconds.
#[derive(Clone, Debug)]
pub struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: vec![0; 64 * 64], count: 0, max: 0 }
    }
}

impl Histogram {
    pub fn add(&mut self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        (self.count, self.max) = (self.count + 1, self.max.max(nanos));
        self.buckets[Self::bucket(nanos)] += 1;
    }

    fn bucket(nanos: u64) -> usize {
        let bucket = if nanos < 64 {
            nanos
        } else {
            let power = u64::from(63 - nanos.leading_zeros());
            (power - 5) * 64 + (nanos >> (power - 6)) % 64
        };
        usize::try_from(bucket).unwrap_or(usize::MAX)
    }

    fn middle(bucket: usize) -> f64 {
        if bucket < 64 {
            return bucket as f64;
        }
        let power = bucket / 64 + 5;
        ((64 + bucket % 64) as f64 + 0.5) * 2f64.powi(i32::try_from(power).unwrap_or(0) - 6)
    }

    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += theirs;
        }
        (self.count, self.max) = (self.count + other.count, self.max.max(other.max));
    }

    fn quantile_us(&self, share: f64) -> f64 {
        let wanted = (share * self.count as f64).ceil();
        let mut seen = 0.0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += *count as f64;
            if *count > 0 && seen >= wanted {
                return Self::middle(bucket) / 1e3;
            }
        }
        0.0
    }

    pub fn tell(&self, line: &mut Value) {
        for (name, share) in [("p50_us", 0.5), ("p99_us", 0.99), ("p999_us", 0.999)] {
            line[name] = json!(self.quantile_us(share));
        }
        line["max_us"] = json!(self.max as f64 / 1e3);
    }
}

/// Processor time of this process so far, to a hundredth of a second.
pub fn cpu_time() -> Duration {
    let text = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = text.rsplit(") ").next().unwrap_or("");
    let ticks: u64 =
        after_name.split(' ').skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

/// Adds the process's memory to a line, in MiB.
pub fn memory(line: &mut Value) {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    for (name, field) in [("rss_peak_mb", "VmHWM:"), ("rss_anon_mb", "RssAnon:"), ("rss_file_mb", "RssFile:")]
    {
        let value = text.lines().find_map(|line| line.strip_prefix(field));
        let kib = value.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
        line[name] = json!(kib.unwrap_or(0) / 1024);
    }
}
