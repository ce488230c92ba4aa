//! The fuzz targets run without a fuzzer: valid inputs, and each of them changed thousands of times by a small seeded
//! mutator. A failure prints the target and the input; `REPUT_FUZZ_ROUNDS` asks for more rounds than a test should take.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

#[path = "support/archive.rs"]
mod archive;
#[path = "../fuzz/src/targets.rs"]
mod targets;

use std::{fs, net::SocketAddr, panic, path::Path};

use reput::{
    PhysicalOffset, QueueId, QueueOffset, StoreTimestamp, SysFlag,
    format::message::{Draft, Found, Limits, Place, Record, read_at},
};

/// Changes of each seed in the targets that only decode.
const ROUNDS: u64 = 30_000;
/// Changes of each input that was not made for this but found in a store of Java's or on a wire.
const FOUND_ROUNDS: u64 = 60;
/// Opening a store costs a thousand times as much as decoding.
const STORE_ROUNDS: u64 = 600;

/// A workload of operations is some dozens of such openings.
#[cfg(feature = "sim")]
const OPERATIONS_ROUNDS: u64 = 60;

struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % bound.max(1)
    }

    fn byte(&mut self) -> u8 {
        const CORNERS: [u8; 8] = [0, 1, 2, 0x7f, 0x80, 0xff, b'{', b','];
        if self.below(2) == 0 { CORNERS[self.below(8)] } else { u8::try_from(self.below(256)).unwrap() }
    }

    /// One to four changes: a byte, a run, a cut, a copy within, an insertion.
    fn change(&mut self, seed: &[u8]) -> Vec<u8> {
        let mut data = seed.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(data.len() + 1);
            match self.below(6) {
                0 | 1 if at < data.len() => data[at] = self.byte(),
                2 => data.truncate(at),
                3 => (0..self.below(9)).for_each(|_| {
                    let byte = self.byte();
                    data.insert(at, byte);
                }),
                4 if at < data.len() => {
                    let end = (at + 1 + self.below(8)).min(data.len());
                    let copy = data[at..end].to_vec();
                    let to = self.below(data.len());
                    data.splice(to..to, copy);
                }
                _ if at < data.len() => data[at] ^= 1 << self.below(8),
                _ => {}
            }
        }
        data
    }
}

fn records() -> Vec<Vec<u8>> {
    let hosts: [SocketAddr; 2] = ["10.0.0.1:5".parse().unwrap(), "[2001:db8::7]:65535".parse().unwrap()];
    let long = "t".repeat(200);
    let mut seeds = Vec::new();
    for (topic, body, properties, host, crc) in [
        ("topic", &b""[..], &b""[..], hosts[0], false),
        ("topic", b"a body", b"KEYS\x01a b\x02TAGS\x01t\x02", hosts[1], true),
        (long.as_str(), &[0xff; 300], b"x\x01y\x02", hosts[0], true),
    ] {
        let draft = Draft {
            topic,
            queue_id: QueueId(3),
            flag: -1,
            sys_flag: SysFlag(0),
            born_timestamp: StoreTimestamp(1),
            born_host: host,
            store_host: hosts[0],
            reconsume_times: 0,
            prepared_transaction_offset: 9,
            body,
            properties,
        };
        let limits = Limits {
            max_message_size: 1 << 20,
            auto_message_version: true,
            append_prop_crc: crc,
            segment_size: 1 << 20,
        };
        let place = Place {
            queue_offset: QueueOffset(7),
            physical_offset: PhysicalOffset(4096),
            store_timestamp: StoreTimestamp(2),
        };
        let mut bytes = Vec::new();
        draft.measure(limits).unwrap().encode(place, &mut bytes);
        seeds.push(bytes);
    }
    seeds
}

fn frames() -> Vec<Vec<u8>> {
    let framed = |kind: u8, header: &[u8], body: &[u8]| {
        let length = u32::try_from(4 + header.len() + body.len()).unwrap();
        let header_len = u32::try_from(header.len()).unwrap() | u32::from(kind) << 24;
        [&length.to_be_bytes(), &header_len.to_be_bytes(), header, body].concat()
    };
    let json = br#"{"code":310,"extFields":{"a":"g","b":"t","d":4,"k":false},"flag":0,"language":"JAVA","opaque":7,"remark":"r","serializeTypeCurrentRPC":"JSON","version":513}"#;
    let binary = b"\x01\x36\x00\x02\x01\x00\x00\x00\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x08\x00\x01a\x00\x00\x00\x01g";
    let one = framed(0, json, b"body");
    vec![[one.clone(), framed(1, binary, b"")].concat(), one, framed(1, binary, b"xyz")]
}

/// The files of a broker's `config`, as Java wrote them.
fn broker_files() -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/broker-config");
    let mut paths: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().filter(|path| path.is_file()).map(|path| fs::read(path).unwrap()).collect()
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    match target {
        "record" => records(),
        "properties" => {
            vec![b"KEYS\x01a b\x02TAGS\x01t\x02UNIQ_KEY\x01u\x02".to_vec(), b"a\x01\x02\x01b\x02c".to_vec()]
        }
        "frame" => frames(),
        "names" => vec![
            b"7F00000100002A9F00000000000000BA".to_vec(),
            b"mappedFileSizeCommitLog=4096\nflushDiskType : SYNC_FLUSH\n\\u0041 b\\\n c\n".to_vec(),
        ],
        "filter" => vec![
            b"a BETWEEN 1 AND 6.5e0 AND NOT (b IN ('x', 'y''z') OR c IS NULL)\na\x013\x02b\x01x\x02".to_vec(),
            b"s NOT CONTAINS 'b' OR -a <= b = TRUE -- end\n\na\x010x1p3\x02b\x01 NaN\x02s\x01abc\x02"
                .to_vec(),
        ],
        "store_open" => vec![
            vec![],
            vec![0, 4 << 4 | 12, 0, 40, 1, 2, 3, 4],
            vec![1, 1, 0, 0, 2, 3, 0, 0],
            vec![3, 8 << 4 | 2, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 4, 0, 1, 0],
            vec![2, 4, 2, 0, 4, 1 << 4 | 5, 4, 0, 3, 5, 6, 0, 0],
            vec![3, 7, 0, 4, 2, 8, 8, 0, 4, 9, 1, 70],
        ],
        "operations" => vec![
            vec![0, 1, 0, 1, 0x20, 0x91, 12, 0, 6, 0x20, 2, 40, 0, 5, 7, 0x0f, 5, 0, 1, 9, 0, 13],
            vec![
                0xa9, 0x18, 0, 2, 3, 0x80, 3, 0, 0x11, 90, 150, 4, 6, 7, 0x4c, 3, 0, 0x91, 12, 0, 6, 7, 14, 0,
            ],
        ],
        "tag_filter" => records()
            .into_iter()
            .flat_map(|record| {
                ["*", "t", " a || t ", ""].map(|text| [text.as_bytes(), &[0], &record].concat())
            })
            .collect(),
        "config_json" => broker_files(),
        _ => {
            let fields: Vec<u8> = (0..12i64).flat_map(|n| (n * 0x0101_0101).to_be_bytes()).collect();
            let ext = [&[0, 28][..], &[7; 16], &[0, 8], &[1; 8], &[0, 20], &[9; 16], &[0, 0], &[0xff, 0xff]]
                .concat();
            vec![fields, ext, vec![0; 64]]
        }
    }
}

fn rounds(default: u64) -> u64 {
    std::env::var("REPUT_FUZZ_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Every file of a kind of a golden store, without the zeros that fill it up.
fn found_files(golden: &archive::Golden, kind: &str) -> Vec<Vec<u8>> {
    let mut paths: Vec<_> = golden.queue_files(kind).into_iter().map(|(_, _, path)| path).collect();
    paths.extend(golden.list(kind).iter().map(|name| golden.path(&format!("{kind}/{name}"))));
    let files = paths.into_iter().filter(|path| path.is_file()).map(|path| fs::read(path).unwrap());
    files
        .map(|mut bytes| {
            let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            bytes.truncate(end.min(4096));
            bytes
        })
        .collect()
}

/// The records of a log, each for itself.
fn found_records(golden: &archive::Golden) -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    for name in golden.list("commitlog") {
        let bytes = fs::read(golden.path(&format!("commitlog/{name}"))).unwrap();
        let mut rest = &bytes[..];
        while let Ok(Found::Record(record)) = read_at(rest) {
            let (one, tail) = rest.split_at(record.total_size);
            records.push(one.to_vec());
            rest = tail;
        }
    }
    assert!(records.len() > 100, "{} has records", golden.name);
    records
}

/// Inputs that Java's stores, brokers and clients wrote.
fn found(target: &str) -> Vec<Vec<u8>> {
    let golden = |name| archive::unpack("written", name);
    match target {
        "record" => found_records(&golden("basic")),
        "properties" => {
            let records = found_records(&golden("basic"));
            let texts = records.iter().map(|one| Record::decode(one).unwrap().properties.raw().to_vec());
            texts.collect()
        }
        "tag_filter" => {
            let records = found_records(&golden("basic"));
            records.iter().map(|one| [b"TagA || TagB\0", one.as_slice()].concat()).collect()
        }
        "queue_files" => ["consumequeue", "consumequeue_ext", "batchconsumequeue"]
            .iter()
            .flat_map(|kind| found_files(&golden("basic"), kind))
            .collect(),
        "index_file" => found_files(&golden("basic"), "index"),
        "checkpoint" => vec![fs::read(golden("basic").path("checkpoint")).unwrap()],
        "frame" => recorded_frames(),
        _ => Vec::new(),
    }
}

/// The frames of `tests/frames`.
fn recorded_frames() -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/frames");
    let mut frames = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        if entry.path().extension().is_some_and(|end| end == "jsonl") {
            for line in fs::read_to_string(entry.path()).unwrap().lines() {
                let line: serde_json::Value = serde_json::from_str(line).unwrap();
                let hex = line["hex"].as_str().unwrap_or("");
                let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
                frames.push((0..hex.len()).step_by(2).map(byte).collect());
            }
        }
    }
    frames
}

fn run(name: &str, rounds: u64) {
    let (_, target) = targets::all().into_iter().find(|(known, _)| *known == name).expect("a target");
    let mut dice = Dice(name.bytes().map(u64::from).sum());
    let made = seeds(name).into_iter().map(|seed| (seed, rounds));
    for (seed, rounds) in made.chain(found(name).into_iter().map(|seed| (seed, FOUND_ROUNDS))) {
        target(&seed);
        for _ in 0..rounds {
            let data = dice.change(&seed);
            if let Err(cause) = panic::catch_unwind(|| target(&data)) {
                eprintln!("target {name} failed on {data:?}");
                panic::resume_unwind(cause);
            }
        }
    }
}

#[test]
fn decoders_of_the_store_refuse_or_keep_their_promises() {
    for name in
        ["record", "properties", "queue_files", "index_file", "checkpoint", "names", "filter", "tag_filter"]
    {
        run(name, rounds(ROUNDS));
    }
}

#[cfg(feature = "broker")]
#[test]
fn the_frame_decoder_refuses_or_keeps_its_promises() {
    run("frame", rounds(ROUNDS));
}

#[cfg(feature = "broker")]
#[test]
fn config_files_are_refused_or_come_back_as_they_were() {
    run("config_json", rounds(ROUNDS / 10));
}

#[test]
fn a_store_with_changed_files_is_refused_or_serves_only_what_is_whole() {
    run("store_open", rounds(STORE_ROUNDS));
}

/// Operations of a store and its crashes; with the feature `sim`, which has the simulated disk.
#[cfg(feature = "sim")]
#[test]
fn operations_and_their_crashes_keep_every_promise() {
    run("operations", rounds(OPERATIONS_ROUNDS));
}
