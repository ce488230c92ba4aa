//! Bytes to values and back: what every put and every dispatched record pays.

use std::{hint::black_box, net::SocketAddr};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use reput::{
    PhysicalOffset, QueueId, QueueOffset, StoreTimestamp, SysFlag,
    format::{
        hash::{IndexKeys, java_string_hash},
        message::{Draft, Header, Limits, Place, Record, Sink},
        properties::Properties,
    },
};

const PROPERTIES: &[u8] = b"KEYS\x01order-1042 customer-7\x02UNIQ_KEY\x017F0000010BAD18B4AAC2100000000001\x02WAIT\x01true\x02TAGS\x01TagA\x02";
const HOST: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 10911);
const LIMITS: Limits = Limits {
    max_message_size: 4 << 20,
    auto_message_version: true,
    append_prop_crc: false,
    segment_size: 1 << 30,
};

/// A place to write to that is reused, as the log is.
struct Slot {
    bytes: Vec<u8>,
}

impl Sink for Slot {
    fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }
}

fn draft(body: &[u8]) -> Draft<'_> {
    Draft {
        topic: "orders",
        queue_id: QueueId(3),
        flag: 0,
        sys_flag: SysFlag(0),
        born_timestamp: StoreTimestamp(1_700_000_000_000),
        born_host: HOST,
        store_host: HOST,
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body,
        properties: PROPERTIES,
    }
}

fn encode(body: &[u8], slot: &mut Slot) {
    let place = Place {
        queue_offset: QueueOffset(7),
        physical_offset: PhysicalOffset(4096),
        store_timestamp: StoreTimestamp(1_700_000_000_001),
    };
    slot.bytes.clear();
    draft(body).measure(LIMITS).expect("within the limits").encode(place, slot);
}

fn records(c: &mut Criterion) {
    for size in [128, 1024] {
        let body = vec![b'x'; size];
        let mut slot = Slot { bytes: Vec::with_capacity(4096) };
        encode(&body, &mut slot);
        let mut group = c.benchmark_group(format!("codec/{size} B"));
        group.throughput(Throughput::Bytes(slot.bytes.len() as u64));
        let bytes = slot.bytes.clone();
        group.bench_function("encode", |b| b.iter(|| encode(black_box(&body), &mut slot)));
        group.bench_function("decode", |b| b.iter(|| Record::decode(black_box(&bytes)).expect("whole")));
        group.bench_function("decode and check", |b| {
            b.iter(|| Record::decode(black_box(&bytes)).expect("whole").verify_body_crc().expect("right"))
        });
        group.bench_function("header for dispatch", |b| {
            b.iter(|| Header::peek(black_box(&bytes)).expect("whole"))
        });
        group.finish();
    }
}

fn words(c: &mut Criterion) {
    c.bench_function("codec/properties, three of four", |b| {
        b.iter(|| Properties::new(black_box(PROPERTIES)).pick(["UNIQ_KEY", "KEYS", "TAGS"]))
    });
    c.bench_function("codec/hash of a tag", |b| b.iter(|| java_string_hash(black_box("TagA"))));
    let keys = IndexKeys::of("orders");
    c.bench_function("codec/hash of an index key", |b| {
        b.iter(|| keys.key(black_box("7F0000010BAD18B4AAC2100000000001")))
    });
}

criterion_group!(benches, records, words);
criterion_main!(benches);
