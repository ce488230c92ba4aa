//! The store's paths, one at a time. For comparisons under load see `examples/store_bench` and `side_by_side.sh`.

use std::{hint::black_box, sync::Arc, time::Duration};

use criterion::{BatchSize, Bencher, Criterion, Throughput, criterion_group, criterion_main};
use reput::{
    Config, FlushDiskType, GetRequest, Message, Query, Queue, QueueOffset, Store, SystemClock, TagFilter,
    vfs::OsVfs,
};
use tempfile::TempDir;

fn config(dir: &TempDir) -> Config {
    Config::new(dir.path()).commit_log_file_size(64u64 << 20).index_slots(50_000u32).index_entries(200_000u32)
}

fn message(queue: Queue, body: &[u8]) -> Message<'_> {
    Message::new(queue, body).properties_raw(&b"TAGS\x01TagA\x02"[..])
}

fn open(dir: &TempDir, flush: FlushDiskType) -> (Store, Queue) {
    let store = Store::open(config(dir).flush_disk_type(flush)).expect("a new store");
    let queue = store.queue("orders", 0).expect("a queue");
    (store, queue)
}

const SIZES: [usize; 2] = [128, 1024];

fn append(c: &mut Criterion) {
    let mut group = c.benchmark_group("append");
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    for size in SIZES {
        let body = vec![b'x'; size];
        let dir = tempfile::tempdir().expect("a directory");
        let (store, queue) = open(&dir, FlushDiskType::Async);
        group.throughput(Throughput::Elements(1));
        group.bench_function(format!("{size} B/alone"), |b| {
            b.iter(|| store.put(&message(queue, &body)).and_then(reput::Appended::wait).expect("stored"))
        });
        let batch: Vec<_> = (0..32).map(|_| message(queue, &body)).collect();
        group.throughput(Throughput::Elements(32));
        group.bench_function(format!("{size} B/batch of 32"), |b| {
            b.iter(|| black_box(store.put_batch(&batch).expect("stored").len()))
        });
        store.close().expect("closed");
    }
    group.finish();
}

fn flush(c: &mut Criterion) {
    let mut group = c.benchmark_group("flush");
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    for size in SIZES {
        let body = vec![b'x'; size];
        let dir = tempfile::tempdir().expect("a directory");
        let (store, queue) = open(&dir, FlushDiskType::Sync);
        let batch: Vec<_> = (0..32).map(|_| message(queue, &body)).collect();
        group.throughput(Throughput::Elements(1));
        group.bench_function(format!("{size} B/alone"), |b| {
            b.iter(|| store.put(&message(queue, &body)).and_then(reput::Appended::wait).expect("stored"))
        });
        group.throughput(Throughput::Elements(32));
        group.bench_function(format!("{size} B/batch of 32"), |b| {
            b.iter(|| {
                let last = store.put_batch(&batch).expect("stored").pop();
                last.map(reput::Appended::wait).expect("a message").expect("durable")
            })
        });
        store.close().expect("closed");
    }
    group.finish();
}

/// 10,000 messages with a key and a tag each, dispatched into a queue and the index.
fn dispatch(c: &mut Criterion) {
    const COUNT: u64 = 10_000;
    let mut group = c.benchmark_group("reput");
    group.throughput(Throughput::Elements(COUNT));
    group.sample_size(10);
    for (name, index) in [("queue", "false"), ("queue and index", "true")] {
        group.bench_function(name, |b| dispatched(b, index, COUNT));
    }
    group.finish();
}

fn dispatched(b: &mut Bencher<'_>, index: &str, count: u64) {
    b.iter_batched(
        || {
            let dir = tempfile::tempdir().expect("a directory");
            let (vfs, clock) = (Arc::new(OsVfs), Arc::new(SystemClock::new()));
            let mut config = config(&dir);
            config.set("messageIndexEnable", index).expect("a known key");
            let (store, steps) = Store::open_stepped(config, vfs, clock).expect("a new store");
            let queue = store.queue("orders", 0).expect("a queue");
            for n in 0..count {
                let properties = format!("KEYS\u{1}k{n}\u{2}TAGS\u{1}TagA\u{2}").into_bytes();
                drop(store.put(&Message::new(queue, &[7; 128]).properties_raw(properties)).expect("stored"));
            }
            (dir, store, steps)
        },
        |(dir, store, mut steps)| {
            while steps.reput().expect("dispatched") {}
            (dir, store, steps)
        },
        BatchSize::PerIteration,
    );
}

/// A store of 10,000 messages, half of them with one tag and half with another, each with its own key.
fn filled(dir: &TempDir) -> (Store, Queue) {
    let (store, queue) = open(dir, FlushDiskType::Async);
    for n in 0..10_000 {
        let message = Message::new(queue, &[7; 128]).tags(["TagA", "TagB"][n % 2]).keys(&format!("k{n}"));
        drop(store.put(&message).expect("stored"));
    }
    assert!(store.wait_dispatched(Duration::from_secs(60)).expect("dispatched"));
    (store, queue)
}

fn get(c: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, queue) = filled(&dir);
    let mut group = c.benchmark_group("get");
    group.throughput(Throughput::Elements(32));
    let mut at = 0;
    let mut next = move || {
        at = (at + 32) % 9_000;
        QueueOffset(at)
    };
    group.bench_function("32/by reference", |b| {
        b.iter(|| store.fetch_raw(&GetRequest::new(queue, next())).expect("read").messages.len())
    });
    group.bench_function("32/decoded", |b| {
        b.iter(|| store.fetch(&GetRequest::new(queue, next())).expect("read").messages.len())
    });
    let tags = TagFilter::parse("TagA");
    group.bench_function("32/by tag", |b| {
        b.iter(|| {
            store.fetch_raw(&GetRequest::new(queue, next()).filter(&tags)).expect("read").messages.len()
        })
    });
    group.finish();
}

fn index(c: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, _) = filled(&dir);
    let keys: Vec<String> = (0..10_000).map(|n| format!("k{}", n * 7919 % 10_000)).collect();
    let mut keys = keys.iter().cycle();
    let mut group = c.benchmark_group("index");
    group.bench_function("query/hits compared", |b| {
        b.iter(|| keys.next().map(|key| store.query("orders", key).expect("read").len()))
    });
    group.bench_function("query/hits not read", |b| {
        b.iter(|| {
            keys.next().map(|key| store.query_raw(&Query::new("orders", key)).expect("read").offsets.len())
        })
    });
    group.finish();
}

criterion_group!(benches, append, flush, dispatch, get, index);
criterion_main!(benches);
