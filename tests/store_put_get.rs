//! Putting and getting through the public API: places, statuses, filters, queries, limits.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use reput::{
    Boundary, Config, Error, ExtUnit, Filter, FlushDiskType, GetRequest, GetStatus, ManualClock, Message,
    PutStatus, Query, Queue, QueueOffset, Store, StoreTimestamp, SysFlag, TagFilter, TagsCode,
    format::properties::PropertiesBuf, vfs::OsVfs,
};
use tempfile::TempDir;

fn small(dir: &TempDir) -> Config {
    Config::new(dir.path())
        .commit_log_file_size(64u64 << 10)
        .consume_queue_file_size(800u64)
        .index_slots(64u32)
        .index_entries(128u32)
}

fn settled(store: &Store) {
    assert!(store.wait_dispatched(Duration::from_secs(10)).unwrap(), "{:?}", store.status());
}

fn bodies(store: &Store, queue: Queue) -> Vec<String> {
    let (mut all, mut at) = (Vec::new(), store.min_offset(queue));
    while at < store.max_offset(queue) {
        let got = store.get(queue, at).unwrap();
        assert!(got.next_offset > at, "a read must move on");
        at = got.next_offset;
        all.extend(got.messages.iter().map(|m| String::from_utf8(m.body().to_vec()).unwrap()));
    }
    all
}

#[test]
fn messages_come_back_in_order_over_many_segments_and_queue_files() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(small(&dir)).unwrap();
    let queues = [store.queue("a", 0).unwrap(), store.queue("a", 1).unwrap(), store.queue("b", 0).unwrap()];
    let mut want: BTreeMap<Queue, Vec<String>> = BTreeMap::new();
    for n in 0..900 {
        let queue = queues[n % 3];
        let body = format!("message {n} {}", "x".repeat(n % 400));
        let put = store.put(&Message::new(queue, body.as_bytes()).tags("t")).unwrap();
        let of_queue = want.entry(queue).or_default();
        assert_eq!(put.queue_offset(), QueueOffset(of_queue.len() as i64));
        assert_eq!(put.wait().unwrap(), PutStatus::Ok);
        of_queue.push(body);
    }
    settled(&store);
    for (queue, want) in &want {
        assert_eq!(&bodies(&store, *queue), want);
    }
    assert!(store.status().max_offset.0 > 3 * (64 << 10), "the log has rolled");
    store.close().unwrap();
}

#[test]
fn a_reopened_store_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..3_i64 {
        let store = Store::open(small(&dir)).unwrap();
        let queue = store.queue("t", 2).unwrap();
        assert_eq!(store.max_offset(queue), QueueOffset(round * 50));
        for n in 0..50 {
            let text = format!("{}", round * 50 + n);
            let put = store.put(&Message::new(queue, text.as_bytes()).keys(&text)).unwrap();
            assert_eq!(put.queue_offset().0, round * 50 + n);
            drop(put);
        }
        settled(&store);
        let want: Vec<String> = (0..(round + 1) * 50).map(|n| n.to_string()).collect();
        assert_eq!(bodies(&store, queue), want);
        assert_eq!(store.query("t", "7").unwrap().len(), 1);
        store.close().unwrap();
        assert!(!dir.path().join("abort").exists());
    }
}

#[test]
fn a_store_that_was_not_closed_loses_nothing_that_was_put() {
    let dir = tempfile::tempdir().unwrap();
    for round in 1..4_usize {
        let store = Store::open(small(&dir)).unwrap();
        let queue = store.queue("t", 0).unwrap();
        for n in 0..40 {
            store.put(&Message::new(queue, format!("{round}/{n}").as_bytes())).unwrap().wait().unwrap();
        }
        drop(store);
        assert!(dir.path().join("abort").exists(), "nobody closed it");
        let again = Store::open(small(&dir)).unwrap();
        let queue = again.queue("t", 0).unwrap();
        assert_eq!(bodies(&again, queue).len(), round * 40);
        drop(again);
    }
}

#[test]
fn each_status_of_a_get_is_rocketmqs() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(small(&dir)).unwrap();
    let queue = store.queue("t", 0).unwrap();
    let status = |offset| {
        let got = store.get(queue, QueueOffset(offset)).unwrap();
        (got.status, got.next_offset.0, got.messages.len())
    };
    assert_eq!(status(0), (GetStatus::NoMessageInQueue, 0, 0));
    for _ in 0..5 {
        drop(store.put(&Message::new(queue, b"x").tags("A")).unwrap());
    }
    settled(&store);
    assert_eq!(status(0), (GetStatus::Found, 5, 5));
    assert_eq!(status(3), (GetStatus::Found, 5, 2));
    assert_eq!(status(5), (GetStatus::OffsetOverflowOne, 5, 0));
    assert_eq!(status(9), (GetStatus::OffsetOverflowBadly, 5, 0));
    assert_eq!(status(-1), (GetStatus::OffsetTooSmall, 0, 0));
    let none = TagFilter::parse("B");
    let got = store.fetch(&GetRequest::new(queue, QueueOffset(0)).filter(&none)).unwrap();
    assert_eq!((got.status, got.next_offset.0), (GetStatus::NoMatchedMessage, 5));
    store.delete_topic("t").unwrap();
    assert_eq!(store.get(queue, QueueOffset(0)).unwrap().status, GetStatus::NoMatchedLogicQueue);
}

#[test]
fn limits_of_a_get_hold_and_the_first_message_always_comes() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(small(&dir)).unwrap();
    let queue = store.queue("t", 0).unwrap();
    for n in 0..100 {
        drop(
            store
                .put(&Message::new(queue, &[0; 500]).tags(if n % 10 == 0 { "hit" } else { "miss" }))
                .unwrap(),
        );
    }
    settled(&store);
    let fetch = |request: &GetRequest<'_>| store.fetch(request).unwrap();
    let base = GetRequest::new(queue, QueueOffset(0));
    assert_eq!(fetch(&GetRequest { max_messages: 7, ..base.clone() }).messages.len(), 7);
    assert_eq!(fetch(&GetRequest { max_bytes: 1, ..base.clone() }).messages.len(), 1);
    let some = fetch(&GetRequest { max_bytes: 2_000, ..base.clone() });
    assert!(some.bytes() <= 2_000 && some.messages.len() == 3, "{} bytes", some.bytes());
    let filter = TagFilter::parse("hit");
    let hits = fetch(&base.clone().filter(&filter));
    assert_eq!((hits.messages.len(), hits.next_offset.0), (10, 100));
    let scanned = fetch(&GetRequest { max_scan: 15, ..base.filter(&filter) });
    assert_eq!((scanned.messages.len(), scanned.next_offset.0), (2, 15));
}

/// A tag filter that is asked about each entry, since it does not name its codes.
struct OneByOne(TagFilter);

impl Filter for OneByOne {
    fn by_queue_entry(&self, tags_code: TagsCode, ext: Option<&ExtUnit>) -> bool {
        self.0.by_queue_entry(tags_code, ext)
    }

    fn reads_records(&self) -> bool {
        self.0.reads_records()
    }
}

/// Entries that a filter's codes rule out are passed over in one go; where a read ends, and with what, must not show it.
#[test]
fn a_filter_that_names_its_codes_reads_as_one_that_is_asked_about_each_entry() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(small(&dir)).unwrap();
    let queue = store.queue("t", 0).unwrap();
    for n in 0..500_usize {
        // Runs without a hit, hits side by side, and sizes that decide whether the next one fits.
        let tag = ["rare", "often"][usize::from(n % 97 > 3 && n % 5 != 0)];
        let body = vec![b'b'; n * 37 % 900];
        drop(store.put(&Message::new(queue, &body).tags(if n % 211 > 200 { "none" } else { tag })).unwrap());
    }
    settled(&store);
    let read = |filter: &dyn Filter, offset, max_messages, max_bytes, max_scan| {
        let request = GetRequest::new(queue, QueueOffset(offset)).filter(filter);
        let found = store.fetch_raw(&GetRequest { max_messages, max_bytes, max_scan, ..request }).unwrap();
        let bytes: Vec<u8> = found.messages.iter().flat_map(|m| found.bytes_of(m).to_vec()).collect();
        let sent: Vec<u8> = found.runs().flat_map(|run| run.to_vec()).collect();
        assert_eq!(bytes, sent, "the runs are the messages");
        assert_eq!(bytes.len(), found.bytes());
        let offsets: Vec<_> = found.messages.iter().map(|m| m.queue_offset()).collect();
        (found.status, found.next_offset, offsets, bytes)
    };
    let mut hits = 0;
    for expression in ["rare", "often || none", "nobody"] {
        let (named, asked) = (TagFilter::parse(expression), OneByOne(TagFilter::parse(expression)));
        for offset in (0..500).step_by(7) {
            for (max_messages, max_bytes, max_scan) in [
                (32, 262_144, 0),
                (1, 262_144, 0),
                (3, 900, 0),
                (200, 1200, 70),
                (32, 1, 5),
                (500, 262_144, 64),
            ] {
                let one = read(&named, offset, max_messages, max_bytes, max_scan);
                assert_eq!(
                    one,
                    read(&asked, offset, max_messages, max_bytes, max_scan),
                    "{expression} {offset}"
                );
                hits += one.2.len();
            }
        }
    }
    assert!(hits > 1000, "{hits} hits");
    store.close().unwrap();
}

#[test]
fn a_batch_stands_together_and_every_message_has_its_own_place() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(small(&dir)).unwrap();
    let (a, b) = (store.queue("a", 0).unwrap(), store.queue("b", 3).unwrap());
    let bodies: Vec<Vec<u8>> = (0..60_u8).map(|n| vec![n; 900]).collect();
    for _ in 0..3 {
        let batch: Vec<Message<'_>> = bodies
            .iter()
            .enumerate()
            .map(|(n, body)| Message::new(if n % 2 == 0 { a } else { b }, body))
            .collect();
        let placed = store.put_batch(&batch).unwrap();
        let stamp = placed[0].store_timestamp();
        for pair in placed.windows(2) {
            assert_eq!(pair[0].physical_offset().plus(pair[0].size()), pair[1].physical_offset());
            assert_eq!(pair[1].store_timestamp(), stamp);
        }
        for put in placed {
            assert_eq!(put.wait().unwrap(), PutStatus::Ok);
        }
    }
    settled(&store);
    assert_eq!((store.max_offset(a).0, store.max_offset(b).0), (90, 90));
    assert!(store.put_batch(&[]).unwrap().is_empty());
    let huge = vec![Message::new(a, &[0; 2_000]); 40];
    assert!(matches!(store.put_batch(&huge), Err(Error::RecordTooLarge { .. })));
    assert_eq!(
        store.put(&Message::new(a, b"next")).unwrap().queue_offset().0,
        90,
        "a refused batch takes no offset"
    );
}

#[test]
fn each_limit_has_its_own_error_and_leaves_no_trace() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(small(&dir).max_message_size(1_000usize)).unwrap();
    let queue = store.queue("t", 0).unwrap();
    let put = |message: &Message<'_>| store.put(message).map(|put| put.queue_offset().0);
    let long = "v".repeat(33_000);
    let error = put(&Message::new(queue, &[0; 1_001])).unwrap_err();
    assert!(matches!(error, Error::BodyTooLarge { size: 1_001, limit: 1_000 }), "{error}");
    assert_eq!(error.put_status(), PutStatus::MessageIllegal);
    let error = put(&Message::new(queue, b"").property("long", &long)).unwrap_err();
    assert_eq!(error.put_status(), PutStatus::PropertiesSizeExceeded, "{error}");
    let error = put(&Message::new(queue, b"").property("a\u{1}b", "x")).unwrap_err();
    assert!(matches!(error, Error::IllegalMessage { .. }), "{error}");
    let error = put(&Message::new(queue, b"").sys_flag(SysFlag(SysFlag::INNER_BATCH))).unwrap_err();
    assert_eq!(error.put_status(), PutStatus::MessageIllegal);
    assert!(matches!(store.queue("../up", 0), Err(Error::InvalidTopic { .. })));
    assert!(store.queue("t", -1).is_err());
    assert_eq!(put(&Message::new(queue, &[0; 1_000])).unwrap(), 0);
    store.close().unwrap();
    assert!(matches!(put(&Message::new(queue, b"late")), Err(Error::Closed)));
    store.close().unwrap();
}

#[test]
fn every_field_of_a_message_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(small(&dir)).unwrap();
    let v6: SocketAddr = "[2001:db8::7]:4711".parse().unwrap();
    let v4: SocketAddr = "10.1.2.3:10911".parse().unwrap();
    let topic = "long".repeat(50);
    let queue = store.queue(&topic, 5).unwrap();
    let mut properties = PropertiesBuf::default();
    properties.push("KEYS", "k1 k2").unwrap();
    properties.push("sp ace", "ü").unwrap();
    let message = Message::new(queue, "héllo".as_bytes())
        .properties_raw(properties.as_bytes())
        .flag(-7)
        .sys_flag(SysFlag(SysFlag::COMPRESSED | 0x200))
        .born_timestamp(StoreTimestamp(1_234))
        .born_host(v6)
        .store_host(v4)
        .reconsume_times(3)
        .prepared_transaction_offset(99);
    let put = store.put(&message).unwrap();
    let (id, at) = (put.message_id(), put.physical_offset());
    assert_eq!(id, "0A01020300002A9F0000000000000000");
    settled(&store);
    let stored = store.message_at(at).unwrap().unwrap();
    let record = stored.record();
    assert_eq!((record.topic, record.queue_id.0, record.flag), (topic.as_str(), 5, -7));
    assert_eq!(record.sys_flag.0, SysFlag::COMPRESSED | 0x200 | SysFlag::BORN_HOST_V6);
    assert_eq!((record.born_host, record.store_host), (v6, v4));
    assert_eq!(
        (record.born_timestamp.0, record.reconsume_times, record.prepared_transaction_offset),
        (1_234, 3, 99)
    );
    assert_eq!((record.body, record.properties.get("sp ace")), ("héllo".as_bytes(), Some("ü")));
    assert_eq!(stored.message_id(), id);
    assert_eq!(store.query(&topic, "k2").unwrap().len(), 1);
    assert!(store.message_at(reput::PhysicalOffset(3)).unwrap().is_none());
}

#[test]
fn queries_find_keys_unique_keys_and_tags_and_never_a_collision() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(small(&dir)).unwrap();
    let queue = store.queue("t", 0).unwrap();
    // "Aa" and "BB" have the same Java hash, and so have the keys made of them.
    for key in ["Aa", "BB", "other"] {
        let message =
            Message::new(queue, key.as_bytes()).keys(key).tags("eu").property("UNIQ_KEY", &format!("U{key}"));
        drop(store.put(&message).unwrap());
    }
    settled(&store);
    assert_eq!(store.query_raw(&Query::new("t", "Aa")).unwrap().offsets.len(), 2, "the hash alone decides");
    let exact = store.query("t", "Aa").unwrap();
    assert_eq!(exact.iter().map(|m| m.body()).collect::<Vec<_>>(), [b"Aa"]);
    assert_eq!(store.query("t", "Uother").unwrap().len(), 1);
    let tagged = Query { index_type: Some("T"), ..Query::new("t", "eu") };
    assert_eq!(store.query_exact(&tagged).unwrap().len(), 3);
    assert_eq!(store.query_exact(&Query { max: 2, ..tagged }).unwrap().len(), 2);
    let later = Query { begin: StoreTimestamp(i64::MAX - 1), ..Query::new("t", "Aa") };
    assert!(store.query_exact(&later).unwrap().is_empty());
    assert!(store.query("other", "Aa").unwrap().is_empty());
}

#[test]
fn time_leads_to_offsets() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new(StoreTimestamp(10_000)));
    let store = Store::open_with(small(&dir), Arc::new(OsVfs), Arc::clone(&clock) as _).unwrap();
    let queue = store.queue("t", 0).unwrap();
    for second in 0..100 {
        clock.set(StoreTimestamp(10_000 + second * 1_000));
        drop(store.put(&Message::new(queue, b"x")).unwrap());
        drop(store.put(&Message::new(queue, b"x")).unwrap());
    }
    while store.max_offset(queue).0 < 200 {
        std::thread::yield_now();
    }
    let at = |time, boundary| store.offset_by_time(queue, StoreTimestamp(time), boundary).unwrap().0;
    assert_eq!((at(15_000, Boundary::Lower), at(15_000, Boundary::Upper)), (10, 11));
    assert_eq!(at(15_500, Boundary::Lower), 12);
    assert_eq!(at(0, Boundary::Lower), 0);
    assert_eq!(store.message_time(queue, QueueOffset(11)).unwrap(), Some(StoreTimestamp(15_000)));
    assert_eq!(store.earliest_time(queue).unwrap(), Some(StoreTimestamp(10_000)));
    assert_eq!(store.message_time(queue, QueueOffset(200)).unwrap(), None);
}

#[test]
fn arrivals_are_told_once_each_and_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(small(&dir)).unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&seen);
    store.on_arrival(Arc::new(move |arrival| {
        told.lock().unwrap().push((arrival.topic.to_owned(), arrival.queue_id.0, arrival.queue_offset.0));
    }));
    let queues = [store.queue("a", 0).unwrap(), store.queue("b", 1).unwrap()];
    for n in 0..20 {
        drop(store.put(&Message::new(queues[n % 2], b"x")).unwrap());
    }
    settled(&store);
    let want: Vec<_> =
        (0..20).map(|n| if n % 2 == 0 { ("a".into(), 0, n / 2) } else { ("b".into(), 1, n / 2) }).collect();
    assert_eq!(*seen.lock().unwrap(), want);
}

#[test]
fn synchronous_puts_are_on_disk_when_acknowledged_however_many_threads_put() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(small(&dir).flush_disk_type(FlushDiskType::Sync)).unwrap();
    let threads: Vec<_> = (0..8)
        .map(|thread| {
            let store = store.clone();
            std::thread::spawn(move || {
                let queue = store.queue("t", thread).unwrap();
                for n in 0..50 {
                    let put = store
                        .put(&Message::new(queue, format!("{n}").as_bytes()).wait_store(n % 5 != 0))
                        .unwrap();
                    let end = put.physical_offset().plus(put.size());
                    assert_eq!(put.wait().unwrap(), PutStatus::Ok);
                    if n % 5 == 0 {
                        assert!(store.status().max_offset >= end, "written and readable");
                    } else {
                        assert!(store.status().durable_offset >= end, "acknowledged means durable");
                    }
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    settled(&store);
    for thread in 0..8 {
        let want: Vec<String> = (0..50).map(|n| n.to_string()).collect();
        assert_eq!(bodies(&store, store.queue("t", thread).unwrap()), want);
    }
    store.close().unwrap();
}

#[test]
fn a_put_can_be_awaited_and_can_call_back() {
    for flush in [FlushDiskType::Async, FlushDiskType::Sync] {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(small(&dir).flush_disk_type(flush)).unwrap();
        let queue = store.queue("t", 0).unwrap();
        let (tell, told) = mpsc::channel();
        for _ in 0..20 {
            let tell = tell.clone();
            store
                .put(&Message::new(queue, b"x"))
                .unwrap()
                .on_durable(move |status| tell.send(status).unwrap());
        }
        for _ in 0..20 {
            assert_eq!(told.recv_timeout(Duration::from_secs(10)).unwrap().unwrap(), PutStatus::Ok);
        }
        let put = store.put(&Message::new(queue, b"x")).unwrap();
        assert_eq!(block_on(put).unwrap(), PutStatus::Ok);
        store.close().unwrap();
    }
}

/// The smallest executor: parks the thread until it is woken.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut context = std::task::Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        if let std::task::Poll::Ready(out) = future.as_mut().poll(&mut context) {
            return out;
        }
        std::thread::park();
    }
}

#[test]
fn prepared_and_rolled_back_messages_are_in_no_queue() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(small(&dir)).unwrap();
    let queue = store.queue("t", 0).unwrap();
    for flag in [SysFlag::TRANSACTION_PREPARED, 0, SysFlag::TRANSACTION_ROLLBACK, SysFlag::TRANSACTION_COMMIT]
    {
        let put =
            store.put(&Message::new(queue, format!("{flag}").as_bytes()).sys_flag(SysFlag(flag))).unwrap();
        assert_eq!(put.queue_offset().0, i64::from(flag == SysFlag::TRANSACTION_COMMIT));
        drop(put);
    }
    settled(&store);
    assert_eq!(bodies(&store, queue), ["0", "8"]);
}

#[test]
fn light_queues_and_inner_batches_have_their_own_counts() {
    let dir = tempfile::tempdir().unwrap();
    let config = || small(&dir).lmq(true).multi_dispatch(true).batch_consume_queue_file_size(736u64);
    for round in 0..2_i64 {
        let store = Store::open(config()).unwrap();
        let parent = store.queue("parent", 2).unwrap();
        for n in 0..10 {
            let names = if n % 2 == 0 { "%LMQ%a,%LMQ%b" } else { "%LMQ%a" };
            let message = Message::new(parent, b"x").property("INNER_MULTI_DISPATCH", names);
            assert_eq!(store.put(&message).unwrap().queue_offset().0, round * 10 + n);
        }
        let batch = store.batch_queue("batch", 1).unwrap();
        for n in 0..5 {
            let message = Message::new(batch, b"four in one")
                .sys_flag(SysFlag(SysFlag::INNER_BATCH))
                .property("INNER_NUM", "4");
            assert_eq!(store.put(&message).unwrap().queue_offset().0, round * 20 + n * 4);
        }
        settled(&store);
        let end = |topic: &str, id: i32| store.max_offset(store.find_queue(topic, id).unwrap()).0;
        let ends = (end("parent", 2), end("%LMQ%a", 0), end("%LMQ%b", 0), end("batch", 1));
        assert_eq!(ends, ((round + 1) * 10, (round + 1) * 10, (round + 1) * 5, (round + 1) * 20));
        let light = store.find_queue("%LMQ%b", 0).unwrap();
        let offsets: Vec<i64> =
            store.get(light, QueueOffset(0)).unwrap().messages.iter().map(|m| m.queue_offset().0).collect();
        assert_eq!(offsets, (0..(round + 1) * 5).collect::<Vec<_>>());
        let error = store.put(&Message::new(parent, b"x").property("INNER_MULTI_DISPATCH", "../x")).map(drop);
        assert!(matches!(error, Err(Error::InvalidTopic { .. })));
        store.close().unwrap();
    }
    let full = tempfile::tempdir().unwrap();
    let store = Store::open(small(&full).lmq(true).multi_dispatch(true).max_lmq_queues(1usize)).unwrap();
    let queue = store.queue("t", 0).unwrap();
    let put = |name| store.put(&Message::new(queue, b"x").property("INNER_MULTI_DISPATCH", name)).map(drop);
    put("%LMQ%a").unwrap();
    assert_eq!(put("%LMQ%b").unwrap_err().put_status(), PutStatus::LmqConsumeQueueNumExceeded);
}

/// As in RocketMQ, whose broker does not start where a topic has queues of both kinds.
#[test]
fn a_single_message_in_a_batch_topic_counts_for_one() {
    let dir = tempfile::tempdir().unwrap();
    let config = || small(&dir).batch_consume_queue_file_size(736u64);
    let (flag, four) = (SysFlag(SysFlag::INNER_BATCH), "four in one");
    let store = Store::open(config()).unwrap();
    let batch = store.batch_queue("batch", 1).unwrap();
    let other = store.queue("batch", 2).unwrap();
    let inner = Message::new(batch, four.as_bytes()).sys_flag(flag).property("INNER_NUM", "4");
    let single = |queue| Message::new(queue, b"single");
    for (message, offset) in [(&inner, 0), (&single(batch), 4), (&inner, 5), (&single(other), 0)] {
        assert_eq!(store.put(message).unwrap().queue_offset().0, offset);
    }
    settled(&store);
    store.close().unwrap();
    let entries = std::fs::read(dir.path().join("batchconsumequeue/batch/1/00000000000000000000")).unwrap();
    assert_eq!(entries[46 + 28..46 + 38], [&4_i64.to_be_bytes()[..], &1_i16.to_be_bytes()].concat());
    for queues in ["as they were", "gone"] {
        if queues == "gone" {
            std::fs::remove_dir_all(dir.path().join("batchconsumequeue")).unwrap();
        }
        let store = Store::open(config()).unwrap();
        let report = store.recovery_report();
        assert!(report.is_clean() || queues == "gone", "{report}");
        assert!(!dir.path().join("consumequeue/batch").exists(), "{queues}");
        let read = |id: i32, at| {
            let got = store.get(store.find_queue("batch", id).unwrap(), QueueOffset(at)).unwrap();
            (got.messages[0].body().to_vec(), got.messages.len())
        };
        assert_eq!(read(1, 0), (four.into(), 3), "{queues}");
        assert_eq!(read(1, 4), (b"single".into(), 2), "{queues}");
        assert_eq!(read(2, 0), (b"single".into(), 1), "{queues}");
        store.close().unwrap();
        assert!(reput::verify::verify(config(), &mut |_| {}, &mut |_| {}).unwrap().is_whole(), "{queues}");
    }
}
