//! Every golden store, recovered in this process over its untouched files, and held against what RocketMQ 5.5 made
//! of the same bytes.
//!
//! An undamaged store must come out exactly as there: records, blanks, queues, entries and answers to queries. Of a
//! damaged one RocketMQ loses more than the damage took, in ways that FORMAT.md lists under "Recovery"; there this
//! store is held to the log itself instead. Which rule a store falls under is told by its name, which says what was
//! done to it.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]
#![cfg(feature = "broker")]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
};

use reput::dump;
use serde_json::Value;
use sha2::{Digest, Sha256};
use support::Golden;

/// Queue entries that RocketMQ loses or shifts, though every record is there.
const QUEUES_LOST: [&str; 3] = ["-cq-gone", "-cq-tail-lost", "-cq-ext-gone"];
/// The log is cut there at damage that has whole records behind it.
const CUT_SHORT: [&str; 5] =
    ["-middle", "-blank-missing", "-but-forced", "-store-time", "crash-prop-crc-bitflip"];
/// Stores of which something was taken away or changed.
const DAMAGED: [&str; 2] = ["crash", "clean"];

type Queries = BTreeMap<(String, String), BTreeSet<i64>>;

struct Lines(Vec<Value>);

impl Lines {
    fn of<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.0.iter().filter(move |line| line["t"] == kind)
    }

    /// Records as they must agree: everything but whether Java's reader found them.
    fn records(&self) -> BTreeMap<i64, Value> {
        let strip = |line: &Value| {
            let mut line = line.clone();
            line.as_object_mut().unwrap().remove("lookMessageByOffset");
            (number(&line, "phyOffset"), line)
        };
        self.of("record").map(strip).collect()
    }

    /// Records that stand where they say; the others are copies from elsewhere.
    fn own_records(&self) -> BTreeMap<i64, Value> {
        let mut records = self.records();
        records.retain(|at, line| line["storedPhyOffset"] == *at);
        records
    }

    fn fields<const N: usize>(&self, kind: &str, fields: [&str; N]) -> Vec<String> {
        let mut all: Vec<String> =
            self.of(kind).map(|line| fields.map(|field| line[field].to_string()).join(" ")).collect();
        all.sort();
        all
    }

    fn queues(&self) -> Vec<String> {
        let at_start = Self(self.of("queue").filter(|line| line["stage"] == "start").cloned().collect());
        at_start.fields("queue", ["topic", "queueId", "cqType", "minOffset", "maxOffset", "nextPutOffset"])
    }

    fn entries(&self) -> Vec<String> {
        self.fields("cq", ["topic", "queueId", "queueOffset", "phyOffset", "size", "tagsCode", "batchNum"])
    }

    /// Where the entry of each slot leads.
    fn slots(&self) -> BTreeMap<(String, i64, i64), i64> {
        self.of("cq").map(|line| (slot(line), number(line, "phyOffset"))).collect()
    }

    /// Answers to queries by key over all time.
    fn queries(&self) -> Queries {
        self.of("query")
            .filter(|line| {
                line["indexType"].is_null() && number(line, "begin") == 0 && number(line, "max") == 32
            })
            .filter_map(|line| {
                let offsets = line["phyOffsets"].as_array()?.iter().map(|at| at.as_i64().unwrap()).collect();
                Some(((text(line, "topic"), text(line, "key")), offsets))
            })
            .collect()
    }
}

fn number(line: &Value, field: &str) -> i64 {
    line[field].as_i64().unwrap_or_else(|| panic!("{field} of {line}"))
}

fn text(line: &Value, field: &str) -> String {
    line[field].as_str().unwrap_or_else(|| panic!("{field} of {line}")).to_owned()
}

fn slot(line: &Value) -> (String, i64, i64) {
    (text(line, "topic"), number(line, "queueId"), number(line, "queueOffset"))
}

fn ends_with_any(name: &str, ends: &[&str]) -> bool {
    ends.iter().any(|end| name.ends_with(end))
}

/// What opening the store comes to, asked the queries that Java was asked; or why it is refused.
fn recovered(golden: &Golden, java: &Lines) -> reput::Result<Lines> {
    let queries: Vec<_> = java.queries().into_keys().collect();
    let mut lines = Vec::new();
    dump::dump(golden.config(), &queries, &mut |line| {
        lines.push(line.to_json());
        Ok(())
    })?;
    Ok(Lines(lines))
}

/// Files above this are mostly holes, which take long to read.
const LARGE: u64 = 16 << 20;

/// Every file below a directory with the digest of its bytes; of a large one, its blocks and times.
fn digests(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.insert(path.clone(), Vec::new());
            all.extend(digests(&path));
            continue;
        }
        let meta = fs::metadata(&path).unwrap();
        let seen = if meta.len() > LARGE {
            // Until it is written back, a file that was just unpacked may still come to have other blocks.
            fs::File::open(&path).unwrap().sync_all().unwrap();
            let meta = fs::metadata(&path).unwrap();
            format!("{} {} {}.{}", meta.len(), meta.blocks(), meta.mtime(), meta.mtime_nsec()).into_bytes()
        } else {
            Sha256::digest(fs::read(&path).unwrap()).to_vec()
        };
        all.insert(path, seen);
    }
    all
}

fn check(golden: &Golden) {
    let name = &golden.name;
    let java = Lines(golden.expected());
    let before = digests(&golden.store_dir());
    let ours = recovered(golden, &java);
    assert!(digests(&golden.store_dir()) == before, "{name}: the directory was changed");
    let loads = java.of("load").any(|line| line["ok"] == true);
    let ours = match ours {
        Ok(ours) => ours,
        Err(error) => {
            assert!(!loads, "{name}: refused, though Java opens it: {error}");
            return;
        }
    };
    if !loads {
        return;
    }
    if ends_with_any(name, &CUT_SHORT) {
        return keeps_what_java_kept(name, &java, &ours);
    }
    assert_eq!(java.own_records(), ours.records(), "{name}: records");
    assert_eq!(
        java.fields("blank", ["phyOffset", "size"]),
        ours.fields("blank", ["phyOffset", "size"]),
        "{name}"
    );
    if ends_with_any(name, &QUEUES_LOST) {
        return every_record_has_its_entry(name, &ours);
    }
    if java.own_records().len() < java.records().len() {
        // Java took a copied record in: its queues and index are not the log's.
        return every_record_has_its_entry(name, &ours);
    }
    assert_eq!(java.entries(), ours.entries(), "{name}: queue entries");
    assert_eq!(java.queues(), ours.queues(), "{name}: queues");
    answers_queries(name, &java, &ours);
}

/// Java ended the log early: whatever it kept is here, but for the damaged record itself, and all is in place.
fn keeps_what_java_kept(name: &str, java: &Lines, ours: &Lines) {
    let here = ours.records();
    let gone: Vec<i64> = java
        .records()
        .into_iter()
        .filter(|(at, line)| here.get(at) != Some(line))
        .map(|(at, _)| at)
        .collect();
    assert!(gone.len() <= 1, "{name}: gone are the records at {gone:?}");
    assert_eq!(ours.own_records(), here, "{name}: a record is not in its place");
    let slots = ours.slots();
    for line in java.of("cq").filter(|line| !gone.contains(&number(line, "phyOffset"))) {
        assert_eq!(slots.get(&slot(line)), Some(&number(line, "phyOffset")), "{name}: entry of {line}");
    }
    every_record_has_its_entry(name, ours);
}

/// Queues are what the log says: the entry of each record in the slot of its number, with a tags code.
fn every_record_has_its_entry(name: &str, ours: &Lines) {
    let slots = ours.slots();
    for (at, record) in ours.records() {
        let transaction = number(&record, "sysFlag") >> 2 & 3;
        let batch = record["properties"]["INNER_NUM"].is_string();
        if transaction == 0 && !batch || transaction == 2 {
            assert_eq!(slots.get(&slot(&record)), Some(&at), "{name}: entry of the record at {at}");
        }
    }
    for line in ours.of("cq").filter(|line| line["found"] == true && line["topic"] == line["msgTopic"]) {
        assert_eq!(line["queueOffset"], line["msgQueueOffset"], "{name}: an entry leads to another message");
        assert!(number(line, "tagsCode") > i64::MIN / 2, "{name}: an address is no tags code");
    }
}

/// Equal answers from an undamaged index; from a damaged one at least Java's, or as many as are asked for.
fn answers_queries(name: &str, java: &Lines, ours: &Lines) {
    let answers = ours.queries();
    for (key, theirs) in java.queries() {
        let mine = &answers[&key];
        let more = DAMAGED.iter().any(|kind| name.starts_with(kind))
            && (mine.is_superset(&theirs) || mine.len() >= 32);
        assert!(more || *mine == theirs, "{name}: {key:?} is at {theirs:?}, here {mine:?}");
    }
}

fn check_archive(archive: &str, count: usize) {
    let stores = support::unpack_all(archive);
    assert_eq!(stores.len(), count);
    stores.iter().for_each(check);
}

#[test]
fn stores_closed_by_java_come_out_as_in_java() {
    check_archive("written", 18);
}

#[test]
fn stores_copied_from_a_running_java_come_out_as_in_java() {
    check_archive("live", 14);
}

#[test]
fn killed_and_damaged_stores_lose_nothing_that_java_keeps() {
    check_archive("crash", 45);
}

#[test]
fn damage_behind_a_checkpoint_costs_nothing_either() {
    check_archive("crashcp", 26);
}

#[test]
fn damage_after_a_clean_stop_is_noticed_all_the_same() {
    check_archive("clean", 28);
}

#[test]
fn a_broker_directory_of_default_size_is_read_without_copying_its_holes() {
    check(&support::broker());
}

/// RocketMQ puts the tag of each message back at another address or loses it; here every filter matches as before.
#[test]
fn a_lost_ext_file_costs_no_tags_code() {
    let stores = support::unpack_all("live");
    let whole = stores.iter().find(|golden| golden.name == "live-cq-ext").unwrap();
    let damaged = support::unpack("crash", "crash-cq-ext-gone");
    let ours = recovered(&damaged, &Lines(damaged.expected())).unwrap();
    assert_eq!(Lines(whole.expected()).entries(), ours.entries());
}

fn command(golden: &Golden, json: bool) -> Command {
    let conf = golden.path("broker.conf");
    let settings: String = golden.settings().iter().map(|(key, value)| format!("{key}={value}\n")).collect();
    fs::write(&conf, settings + "storePathRootDir=/nowhere\nbrokerName=golden\n").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_reput"));
    command.args(["store", "dump", "--config"]).arg(conf).args(json.then_some("--json"));
    command.args(["--query", "TopicA:dup"]).arg(golden.store_dir());
    command
}

#[test]
fn the_command_shows_the_same_and_refuses_with_an_error() {
    let golden = support::unpack("crash", "crash-magic-middle");
    let mut lines = Vec::new();
    dump::dump(golden.config(), &[("TopicA".into(), "dup".into())], &mut |line| {
        lines.push(line.to_json());
        Ok(())
    })
    .unwrap();
    let output = command(&golden, true).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let shown: Vec<Value> =
        output.stdout.split(|b| *b == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
    assert_eq!(shown, lines);

    let told = String::from_utf8(command(&golden, false).output().unwrap().stdout).unwrap();
    for part in
        ["not closed", "damaged from 294953 to 295688", "Queue TopicA/0: 0 to 51", "Key \"dup\" of TopicA"]
    {
        assert!(told.contains(part), "{part:?} is not in {told}");
    }

    let refused = command(&support::unpack("crash", "crash-wrong-cl-size"), true).output().unwrap();
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{why}");
    assert!(why.contains("mappedFileSizeCommitLog"), "{why}");
}
