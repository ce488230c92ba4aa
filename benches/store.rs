//! The store's paths, one at a time. For comparisons under load see `examples/store_bench` and `side_by_side.sh`.

use std::{hint::black_box, sync::Arc, time::Duration};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use reput::{
    Config, FlushDiskType, GetRequest, Message, Queue, QueueOffset, Store, SystemClock, TagFilter, vfs::OsVfs,
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

fn put(c: &mut Criterion) {
    for size in [128, 1024] {
        let body = vec![b'x'; size];
        let mut group = c.benchmark_group(format!("put of {size} B"));
        group.throughput(Throughput::Elements(1));
        group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
        let dir = tempfile::tempdir().expect("a directory");
        let (store, queue) = open(&dir, FlushDiskType::Async);
        group.bench_function("async flush", |b| {
            b.iter(|| store.put(&message(queue, &body)).and_then(reput::Appended::wait).expect("stored"))
        });
        let batch: Vec<_> = (0..32).map(|_| message(queue, &body)).collect();
        group.throughput(Throughput::Elements(32));
        group.bench_function("async flush, batch of 32", |b| {
            b.iter(|| black_box(store.put_batch(&batch).expect("stored").len()))
        });
        store.close().expect("closed");
        let dir = tempfile::tempdir().expect("a directory");
        let (store, queue) = open(&dir, FlushDiskType::Sync);
        group.throughput(Throughput::Elements(1));
        group.bench_function("sync flush", |b| {
            b.iter(|| store.put(&message(queue, &body)).and_then(reput::Appended::wait).expect("stored"))
        });
        store.close().expect("closed");
        group.finish();
    }
}

/// 10,000 messages with a key and a tag each, dispatched into a queue and the index.
fn dispatch(c: &mut Criterion) {
    const COUNT: u64 = 10_000;
    let mut group = c.benchmark_group("reput");
    group.throughput(Throughput::Elements(COUNT));
    group.sample_size(10);
    group.bench_function("queue and index", |b| {
        b.iter_batched(
            || {
                let dir = tempfile::tempdir().expect("a directory");
                let (vfs, clock) = (Arc::new(OsVfs), Arc::new(SystemClock::new()));
                let (store, steps) = Store::open_stepped(config(&dir), vfs, clock).expect("a new store");
                let queue = store.queue("orders", 0).expect("a queue");
                for n in 0..COUNT {
                    let properties = format!("KEYS\u{1}k{n}\u{2}TAGS\u{1}TagA\u{2}").into_bytes();
                    drop(
                        store
                            .put(&Message::new(queue, &[7; 128]).properties_raw(properties))
                            .expect("stored"),
                    );
                }
                (dir, store, steps)
            },
            |(dir, store, mut steps)| {
                while steps.reput().expect("dispatched") {}
                (dir, store, steps)
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

fn pull(c: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, queue) = open(&dir, FlushDiskType::Async);
    for n in 0..10_000 {
        let tag = ["TagA", "TagB"][n % 2];
        drop(store.put(&Message::new(queue, &[7; 128]).tags(tag)).expect("stored"));
    }
    assert!(store.wait_dispatched(Duration::from_secs(60)).expect("dispatched"));
    let mut group = c.benchmark_group("pull of 32");
    group.throughput(Throughput::Elements(32));
    let mut at = 0;
    let mut next = move || {
        at = (at + 32) % 9_000;
        QueueOffset(at)
    };
    group.bench_function("all", |b| {
        b.iter(|| store.fetch(&GetRequest::new(queue, next())).expect("read").messages.len())
    });
    let tags = TagFilter::parse("TagA");
    group.bench_function("by tag", |b| {
        b.iter(|| store.fetch(&GetRequest::new(queue, next()).filter(&tags)).expect("read").messages.len())
    });
    group.finish();
}

criterion_group!(benches, put, dispatch, pull);
criterion_main!(benches);
