//! Looking up messages by a key that one message has.

use std::time::{Duration, Instant};

use reput::Store;
use serde_json::json;

use crate::{
    Failure, Options,
    measure::{Histogram, cpu_time, memory},
};

pub fn query(options: &Options) -> Result<(), Failure> {
    let store = options.open()?;
    store.wait_dispatched(Duration::from_secs(600))?;
    let keys = options.number("keys", 2_000_000)?;
    for text in options.text("cells", "1,4").split(',') {
        let threads: u64 = text.parse()?;
        run(&store, threads, keys, options.millis("warm", 2000)?)?;
        let (cpu, start) = (cpu_time(), Instant::now());
        let (asked, missed, latency) = run(&store, threads, keys, options.millis("ms", 3000)?)?;
        let mut line = json!({
            "impl": "reput", "bench": "query", "label": "default", "threads": threads, "keys": keys,
            "queries_s": (asked as f64 / start.elapsed().as_secs_f64()).round(), "miss": missed,
            "cpu_us_per_query": (cpu_time() - cpu).as_secs_f64() * 1e6 / asked.max(1) as f64,
        });
        latency.tell(&mut line);
        memory(&mut line);
        println!("{line}");
    }
    options.end(&store, "clean")
}

/// Queries asked, those that found nothing, and how long each took.
fn run(store: &Store, threads: u64, keys: u64, time: Duration) -> Result<(u64, u64, Histogram), Failure> {
    let end = Instant::now() + time;
    let workers: Vec<_> = (1..=threads)
        .map(|seed| {
            let store = store.clone();
            std::thread::spawn(move || ask(&store, seed, keys, end))
        })
        .collect();
    let mut all = (0, 0, Histogram::default());
    for worker in workers {
        let (asked, missed, latency) = worker.join().map_err(|_| "a thread panicked")??;
        (all.0, all.1) = (all.0 + asked, all.1 + missed);
        all.2.merge(&latency);
    }
    Ok(all)
}

fn ask(store: &Store, seed: u64, keys: u64, end: Instant) -> reput::Result<(u64, u64, Histogram)> {
    let (mut asked, mut missed, mut latency) = (0, 0, Histogram::default());
    let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    loop {
        // Marsaglia's xorshift: far cheaper than a query.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let key = format!("k{}", random % keys);
        let start = Instant::now();
        if start >= end {
            return Ok((asked, missed, latency));
        }
        let found = store.query("T00000", &key)?;
        missed += u64::from(found.is_empty());
        drop(found);
        latency.add(start.elapsed());
        asked += 1;
    }
}
