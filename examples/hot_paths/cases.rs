//! The paths that are counted.

use std::hint::black_box;

use reput::{
    Filter, GetRequest, GetStatus, Message, Queue, QueueOffset, Steps, Store, StoreTimestamp, TagFilter,
};

use crate::{Bench, Case, Failure};

const BORN: StoreTimestamp = StoreTimestamp(1_700_000_000_000);
/// Properties of 120 bytes, like those of a stock client.
const CLIENT: &str = "KEYS\u{1}order-0000042\u{2}UNIQ_KEY\u{1}7F0000010BAD18B4AAC20000000001E2\u{2}WAIT\u{1}true\u{2}TAGS\u{1}TagA\u{2}CLUSTER\u{1}DefaultCluster\u{2}MSG_REGION\u{1}R\u{2}";
const QUEUES: i32 = 8;

pub const ALL: &[Case] = &[
    Case {
        name: "put-128",
        about: "put of 128 B, 8 queues, one tag",
        count: 200_000,
        run: |b, n| put(b, n, 128, 1, 1),
    },
    Case {
        name: "put-1k",
        about: "put of 1 KiB, 8 queues, one tag",
        count: 50_000,
        run: |b, n| put(b, n, 1024, 1, 1),
    },
    Case {
        name: "batch-32x128",
        about: "put_batch of 32 x 128 B",
        count: 200_000,
        run: |b, n| put(b, n, 128, 32, 1),
    },
    Case {
        name: "put-128-10k-topics",
        about: "put of 128 B, 10,000 topics in turn",
        count: 100_000,
        run: |b, n| put(b, n, 128, 1, 10_000),
    },
    Case {
        name: "reput-queues",
        about: "dispatch into 8 queues, no index",
        count: 200_000,
        run: |b, n| reput(b, n, false, Keys::Tag, 1),
    },
    Case {
        name: "reput-index-2",
        about: "dispatch with 2 index entries a message",
        count: 200_000,
        run: |b, n| reput(b, n, true, Keys::KeyAndTag, 1),
    },
    Case {
        name: "reput-index-client",
        about: "dispatch of a stock client's messages, 3 index entries",
        count: 200_000,
        run: |b, n| reput(b, n, true, Keys::Client, 1),
    },
    Case {
        name: "reput-10k-topics",
        about: "dispatch into 10,000 topics, no index",
        count: 100_000,
        run: |b, n| reput(b, n, false, Keys::Tag, 10_000),
    },
    Case {
        name: "pull-ref",
        about: "pull of 32 by reference",
        count: 200_000,
        run: |b, n| pull(b, n, Pull::Raw),
    },
    Case {
        name: "pull-decoded",
        about: "pull of 32, records decoded",
        count: 200_000,
        run: |b, n| pull(b, n, Pull::Decoded),
    },
    Case {
        name: "pull-tag",
        about: "pull of 32 through a tag filter that 10 % pass",
        count: 400_000,
        run: |b, n| pull(b, n, Pull::Tag),
    },
    Case {
        name: "query-hash",
        about: "query by key, hits not read",
        count: 50_000,
        run: |b, n| query(b, n, false),
    },
    Case {
        name: "query-exact",
        about: "query by key, hits compared",
        count: 50_000,
        run: |b, n| query(b, n, true),
    },
    Case {
        name: "recover-killed",
        about: "open after a kill, 1 KiB, 2 keys",
        count: 100_000,
        run: |b, n| recover(b, n, 1024, false),
    },
    Case {
        name: "recover-killed-128",
        about: "open after a kill, 128 B, 2 keys",
        count: 100_000,
        run: |b, n| recover(b, n, 128, false),
    },
    Case {
        name: "recover-closed",
        about: "open after a close, 1 KiB, 2 keys",
        count: 100_000,
        run: |b, n| recover(b, n, 1024, true),
    },
];

#[derive(Clone, Copy)]
enum Keys {
    Tag,
    KeyAndTag,
    Client,
}

impl Keys {
    fn text(self, seq: u64) -> Vec<u8> {
        match self {
            Self::Tag => b"TAGS\x01TagA\x02".to_vec(),
            Self::KeyAndTag => {
                format!("KEYS\u{1}k{seq}\u{2}TAGS\u{1}Tag{}\u{2}", char::from(b'A' + (seq % 10) as u8))
                    .into_bytes()
            }
            Self::Client => CLIENT.replace("0000042", &format!("{seq:07}")).into_bytes(),
        }
    }
}

fn place(n: u64, among: usize) -> usize {
    usize::try_from(n).unwrap_or(0) % among
}

fn queues(store: &Store, topics: u64) -> Result<Vec<Queue>, Failure> {
    let mut all = Vec::new();
    for topic in 0..topics {
        for id in 0..if topics > 1 { 1 } else { QUEUES } {
            all.push(store.queue(&format!("T{topic:05}"), id)?);
        }
    }
    Ok(all)
}

fn put(bench: &mut Bench, count: u64, body: usize, batch: usize, topics: u64) -> Result<u64, Failure> {
    let (store, _steps) = bench.open(&[])?;
    let (queues, body) = (queues(&store, topics)?, vec![b'x'; body]);
    let properties = Keys::Tag.text(0);
    let message = |n: u64| {
        Message::new(queues[place(n, queues.len())], &body)
            .born_timestamp(BORN)
            .properties_raw(&properties[..])
    };
    for n in 0..queues.len() as u64 {
        drop(store.put(&message(n))?);
    }
    let batches: Vec<Vec<Message<'_>>> =
        (0..queues.len() as u64).map(|n| (0..batch).map(|_| message(n)).collect()).collect();
    bench.measure(|| {
        for n in 0..count / batch as u64 {
            if batch == 1 {
                black_box(store.put(&message(n))?.wait()?);
            } else {
                let mut all = store.put_batch(&batches[place(n, batches.len())])?;
                black_box(all.pop().map(reput::Appended::wait));
            }
        }
        Ok(())
    })?;
    Ok(count)
}

fn fill(store: &Store, count: u64, body: usize, keys: Keys, topics: u64) -> Result<(), Failure> {
    let (queues, body) = (queues(store, topics)?, vec![b'x'; body]);
    for n in 0..count {
        let message = Message::new(queues[place(n, queues.len())], &body).born_timestamp(BORN);
        drop(store.put(&message.properties_raw(keys.text(n)))?);
    }
    Ok(())
}

fn dispatch(steps: &mut Steps) -> Result<(), Failure> {
    while steps.reput()? {}
    Ok(())
}

fn reput(bench: &mut Bench, count: u64, index: bool, keys: Keys, topics: u64) -> Result<u64, Failure> {
    let (store, mut steps) = bench.open(&[("messageIndexEnable", if index { "true" } else { "false" })])?;
    // Queues and files are there before.
    fill(&store, topics.max(8) * 4, 128, keys, topics)?;
    dispatch(&mut steps)?;
    fill(&store, count, 128, keys, topics)?;
    bench.measure(|| dispatch(&mut steps))?;
    Ok(count)
}

#[derive(Clone, Copy)]
enum Pull {
    Raw,
    Decoded,
    Tag,
}

fn pull(bench: &mut Bench, count: u64, how: Pull) -> Result<u64, Failure> {
    let (store, mut steps) = bench.open(&[])?;
    fill(&store, 100_000, 128, Keys::KeyAndTag, 1)?;
    dispatch(&mut steps)?;
    // Out of memory, into the files.
    steps.upkeep()?;
    // Tags go round in tens and queues in eights.
    let tag = TagFilter::parse("TagA");
    let (mut looked, mut offset) = (0, QueueOffset::ZERO);
    let queue = store.find_queue("T00000", 0).ok_or("no queue")?;
    bench.measure(|| {
        while looked < count {
            let mut request = GetRequest::new(queue, offset);
            request.filter = matches!(how, Pull::Tag).then_some(&tag as &dyn Filter);
            let (next, status) = if matches!(how, Pull::Decoded) {
                let result = black_box(store.fetch(&request)?);
                (result.next_offset, result.status)
            } else {
                let result = black_box(store.fetch_raw(&request)?);
                (result.next_offset, result.status)
            };
            looked += u64::try_from(next.get() - offset.get()).unwrap_or(0);
            offset = if next <= offset || status == GetStatus::OffsetOverflowOne {
                QueueOffset::ZERO
            } else {
                next
            };
        }
        Ok(())
    })?;
    Ok(looked)
}

fn query(bench: &mut Bench, count: u64, exact: bool) -> Result<u64, Failure> {
    let (store, mut steps) = bench.open(&[])?;
    fill(&store, 200_000, 128, Keys::KeyAndTag, 1)?;
    dispatch(&mut steps)?;
    let keys: Vec<String> = (0..count).map(|n| format!("k{}", n * 7919 % 200_000)).collect();
    bench.measure(|| {
        for key in &keys {
            let query = reput::Query::new("T00000", key);
            if exact {
                black_box(store.query_exact(&query)?.len());
            } else {
                black_box(store.query_raw(&query)?.offsets.len());
            }
        }
        Ok(())
    })?;
    Ok(count)
}

fn recover(bench: &mut Bench, count: u64, body: usize, closed: bool) -> Result<u64, Failure> {
    {
        let (store, mut steps) = bench.open(&[])?;
        fill(&store, count, body, Keys::KeyAndTag, 1)?;
        dispatch(&mut steps)?;
        steps.upkeep()?;
        if closed {
            store.close()?;
        }
    }
    let mut opened = None;
    let dir = Bench { dir: bench.dir.clone(), cpu: bench.cpu };
    bench.measure(|| {
        opened = Some(dir.open(&[])?);
        Ok(())
    })?;
    Ok(count)
}
