//! Reading queues in pulls of 32.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use reput::{Filter, GetRequest, GetStatus, Queue, QueueOffset, Store, TagFilter};
use serde_json::json;

use crate::{
    Failure, Options,
    measure::{Histogram, cpu_time, memory},
};

#[derive(Default)]
struct Counts {
    got: AtomicU64,
    scanned: AtomicU64,
    calls: AtomicU64,
    bytes: AtomicU64,
}

pub fn pull(options: &Options) -> Result<(), Failure> {
    let store = options.open()?;
    store.wait_dispatched(Duration::from_secs(120))?;
    let queues = i32::try_from(options.number("queues", 8)?)?;
    for text in options.text("cells", "1:all:ref,4:all:ref,1:all:copy,1:tag:ref").split(',') {
        let mut fields = text.split(':');
        let threads: i32 = fields.next().unwrap_or("1").parse()?;
        let (filter, read) = (fields.next().unwrap_or("all"), fields.next().unwrap_or("ref"));
        run(&store, options, (threads, queues), filter, read, options.millis("warm", 1500)?)?;
        let line = run(&store, options, (threads, queues), filter, read, options.millis("ms", 2000)?)?;
        println!("{line}");
    }
    options.end(&store, "clean")
}

fn run(
    store: &Store,
    options: &Options,
    (threads, queues): (i32, i32),
    filter: &str,
    read: &str,
    time: Duration,
) -> Result<serde_json::Value, Failure> {
    let tags = (filter == "tag").then(|| TagFilter::parse(options.text("tag", "TagA")));
    let tags = Arc::new(tags);
    let (counts, cpu, start) = (Arc::new(Counts::default()), cpu_time(), Instant::now());
    let spread = options.text("spread", "false") == "true";
    let mut workers = Vec::new();
    for number in 0..threads {
        let queue = store
            .find_queue("T00000", if spread { number % queues } else { 0 })
            .ok_or("nothing was filled in")?;
        let (store, tags, counts, copy) =
            (store.clone(), Arc::clone(&tags), Arc::clone(&counts), read == "copy");
        workers.push(std::thread::spawn(move || {
            reader(&store, queue, tags.as_ref().as_ref(), copy, start + time, &counts)
        }));
    }
    let mut latency = Histogram::default();
    for worker in workers {
        latency.merge(&worker.join().map_err(|_| "a reader panicked")??);
    }
    let (secs, calls) = (start.elapsed().as_secs_f64(), counts.calls.load(Ordering::Acquire).max(1) as f64);
    let a_second = |count: &AtomicU64| (count.load(Ordering::Acquire) as f64 / secs).round();
    let mut line = json!({
        "impl": "reput", "bench": "pull", "label": "default", "threads": threads, "filter": filter, "read": read,
        "msgs_s": a_second(&counts.got), "scanned_s": a_second(&counts.scanned), "calls_s": a_second(&counts.calls),
        "mb_s": a_second(&counts.bytes) / 1_048_576.0,
        "cpu_us_per_call": (cpu_time() - cpu).as_secs_f64() * 1e6 / calls,
    });
    latency.tell(&mut line);
    memory(&mut line);
    Ok(line)
}

fn reader(
    store: &Store,
    queue: Queue,
    tags: Option<&TagFilter>,
    copy: bool,
    end: Instant,
    counts: &Counts,
) -> reput::Result<Histogram> {
    let (mut latency, mut offset) = (Histogram::default(), QueueOffset::ZERO);
    let (mut got, mut scanned, mut calls, mut bytes) = (0, 0, 0, 0);
    let mut target = Vec::with_capacity(1 << 20);
    loop {
        let start = Instant::now();
        if start >= end {
            break;
        }
        let mut request = GetRequest::new(queue, offset);
        request.max_messages = 32;
        request.filter = tags.map(|tags| tags as &dyn Filter);
        let result = store.fetch_raw(&request)?;
        calls += 1;
        if copy {
            target.clear();
            for message in &result.messages {
                target.extend_from_slice(result.bytes_of(message));
            }
        }
        got += result.messages.len() as u64;
        bytes += result.messages.iter().map(|message| message.len() as u64).sum::<u64>();
        let next = result.next_offset;
        let at_end = next <= offset || result.status == GetStatus::OffsetOverflowOne;
        drop(result);
        latency.add(start.elapsed());
        if at_end {
            offset = QueueOffset::ZERO;
        } else {
            scanned += u64::try_from(next.get() - offset.get()).unwrap_or(0);
            offset = next;
        }
    }
    for (total, mine) in
        [(&counts.got, got), (&counts.scanned, scanned), (&counts.calls, calls), (&counts.bytes, bytes)]
    {
        total.fetch_add(mine, Ordering::AcqRel);
    }
    Ok(latency)
}
