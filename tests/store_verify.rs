//! `reput store verify` and `repair` over the stores that Java wrote, whole and damaged.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]
#![cfg(feature = "broker")]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use reput::verify::{self, Level, Plan, Repair};
use serde_json::Value;
use support::Golden;

/// What was done to these is none of a store's damage: a hint is gone, or a file that held nothing.
const WHOLE: [&str; 9] = [
    "plain",
    "checkpoint-gone",
    "checkpoint-zero",
    "checkpoint-recent",
    "last-file-empty",
    "no-prop-crc-but-forced",
    "prop-crc-read-without",
    "many-files-whole",
    "checkpoint-old",
];
/// The configuration that comes with these is another than the one they were written with.
const OTHER_SIZES: [&str; 2] = ["crash-wrong-cl-size", "crash-wrong-cq-size"];

fn ends_with_any(name: &str, ends: &[&str]) -> bool {
    ends.iter().any(|end| name.ends_with(end))
}

fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(files(&path));
        } else {
            all.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    all
}

/// The records of a store by place, with the digest of their bytes.
fn records(golden: &Golden) -> BTreeMap<i64, String> {
    let mut records = BTreeMap::new();
    reput::dump::dump(golden.config(), &[], &mut |line| {
        let json = line.to_json();
        if json["t"] == "record" {
            records.insert(json["phyOffset"].as_i64().unwrap(), json["recordSha256"].to_string());
        }
        Ok(())
    })
    .unwrap();
    records
}

/// What a repair did is what its plan said: both reports, and the files as they were and are.
fn does_as_planned(golden: &Golden, plan: Plan, done: Repair, before: &BTreeMap<PathBuf, Vec<u8>>) {
    let name = &golden.name;
    let timeless = |mut repair: Repair| {
        repair.recovery.elapsed = Duration::ZERO;
        repair
    };
    assert_eq!(timeless(plan.repair), timeless(done), "{name}");

    let after = files(&golden.store_dir());
    let none = Vec::new();
    let file = |all: &BTreeMap<PathBuf, Vec<u8>>, path: &PathBuf| all.get(path).unwrap_or(&none).clone();
    let changed = |kind: &str| {
        let dir = golden.path(kind);
        let all: BTreeSet<_> =
            before.keys().chain(after.keys()).filter(|path| path.starts_with(&dir)).collect();
        all.into_iter().filter(|path| before.get(*path) != after.get(*path)).cloned().collect::<Vec<_>>()
    };
    let mut queues: BTreeMap<PathBuf, [u64; 5]> = BTreeMap::new();
    for (kind, width) in [("consumequeue", 20), ("consumequeue_ext", 20), ("batchconsumequeue", 46)] {
        for path in changed(kind) {
            let counts = queues.entry(path.parent().unwrap().to_path_buf()).or_default();
            counts[3] += u64::from(!before.contains_key(&path));
            counts[4] += u64::from(!after.contains_key(&path));
            let (was, is) = (file(before, &path), file(&after, &path));
            let len = was.len().max(is.len()).next_multiple_of(width);
            let [was, is] = [was, is].map(|mut bytes| {
                bytes.resize(len, 0);
                bytes
            });
            for (was, is) in was.chunks(width).zip(is.chunks(width)).filter(|(was, is)| was != is) {
                let nothing = |entry: &[u8]| entry.iter().all(|byte| *byte == 0);
                counts[if nothing(was) {
                    0
                } else if nothing(is) {
                    2
                } else {
                    1
                }] += 1;
            }
        }
    }
    queues.retain(|_, counts| *counts != [0; 5]);
    let planned: BTreeMap<_, _> = plan
        .queues
        .into_iter()
        .map(|queue| {
            let counts = [queue.added, queue.rewritten, queue.dropped, queue.files_made, queue.files_removed];
            (queue.dir, counts)
        })
        .collect();
    assert_eq!(planned, queues, "{name}");

    let entries = |bytes: &Vec<u8>| {
        let count = bytes.get(36..40).map_or(0, |count| i32::from_be_bytes(count.try_into().unwrap()));
        u64::try_from(count.max(1) - 1).unwrap()
    };
    // A new file is named by the time of its making.
    let mut index: Vec<_> = changed("index")
        .into_iter()
        .map(|path| (before.get(&path).map(entries), after.get(&path).map(entries)))
        .collect();
    let mut planned: Vec<_> = plan.index.iter().map(|file| (file.before, file.after)).collect();
    index.sort();
    planned.sort();
    assert_eq!(planned, index, "{name}");
}

fn check(archive: &str) {
    for golden in support::unpack_all(archive) {
        let name = golden.name.as_str();
        let before = files(&golden.store_dir());
        let mut damage = Vec::new();
        let checked = verify::verify(
            golden.config(),
            &mut |finding| {
                if finding.level == Level::Damage {
                    damage.push(finding.to_string());
                }
            },
            &mut |_| {},
        );
        assert!(files(&golden.store_dir()) == before, "{name}: verify changed the directory");
        if OTHER_SIZES.contains(&name) {
            assert!(matches!(checked, Err(reput::Error::FileSize { .. })), "{name}: {checked:?}");
            continue;
        }
        let summary = checked.unwrap_or_else(|error| panic!("{name}: {error}"));
        let whole = archive == "written" || archive == "live" || ends_with_any(name, &WHOLE);
        assert_eq!(summary.is_whole(), whole, "{name}: {damage:#?}");
        assert_eq!(summary.damage, damage.len() as u64);

        let kept = records(&golden);
        let config = golden.config().sizes_are_certain(true);
        let plan = verify::plan(config.clone()).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(files(&golden.store_dir()) == before, "{name}: the plan changed the directory");
        let done = verify::repair(config.clone()).unwrap_or_else(|error| panic!("{name}: {error}"));
        does_as_planned(&golden, plan, done, &before);
        let mut left = Vec::new();
        let summary =
            verify::verify(config, &mut |finding| left.push(finding.to_string()), &mut |_| {}).unwrap();
        assert!(summary.is_whole(), "{name} after repair: {left:#?}");
        let now = records(&golden);
        // A checksum that was not asked for before costs its record at most.
        let lost = kept.iter().filter(|(at, bytes)| now.get(at) != Some(bytes)).count();
        let strict = if name.contains("prop-crc") || name.contains("no-crc") { 1 } else { 0 };
        assert!(lost <= strict, "{name}: repair lost {lost} records");
    }
}

#[test]
fn stores_that_java_closed_are_whole() {
    check("written");
}

#[test]
fn stores_copied_from_a_running_java_are_whole() {
    check("live");
}

#[test]
fn damaged_stores_are_found_damaged_and_repaired() {
    check("crash");
}

#[test]
fn stores_damaged_behind_a_checkpoint_are_repaired() {
    check("crashcp");
}

#[test]
fn stores_damaged_after_a_clean_stop_are_repaired() {
    check("clean");
}

fn run(golden: &Golden, args: &[&str]) -> Output {
    let conf = golden.path("broker.conf");
    let settings: String = golden.settings().iter().map(|(key, value)| format!("{key}={value}\n")).collect();
    fs::write(&conf, settings).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_reput"));
    command.arg("store").args(args).arg("--config").arg(conf).arg(golden.store_dir()).output().unwrap()
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn lines_of(output: &Output) -> Vec<Value> {
    let lines = output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
}

fn line_of(output: &Output, kind: &str) -> Value {
    lines_of(output).into_iter().find(|line| line["t"] == kind).unwrap_or_else(|| panic!("{}", told(output)))
}

#[test]
fn the_commands_say_what_is_wrong_ask_before_they_write_and_end_with_the_right_code() {
    let golden = support::unpack("crash", "crash-magic-middle");
    let output = run(&golden, &["verify"]);
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    assert!(told(&output).contains("no record from 294953 to 295688"), "{}", told(&output));
    let output = run(&golden, &["verify", "--json"]);
    let lines = lines_of(&output);
    let last = lines.last().unwrap();
    assert_eq!((&last["t"], &last["whole"], &last["damage"]), (&"summary".into(), &false.into(), &1.into()));
    assert!(
        lines.iter().any(|line| line["level"] == "damage" && line["part"] == "log" && line["at"] == 32809)
    );

    // A torn table beside it.
    fs::create_dir_all(golden.path("config")).unwrap();
    fs::write(golden.path("config/topics.json"), "{\"topicConfigTable\":").unwrap();
    let before = files(&golden.store_dir());
    let output = run(&golden, &["repair"]);
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    assert!(told(&output).contains("Nothing was changed"), "{}", told(&output));
    assert!(files(&golden.store_dir()) == before);

    assert!(told(&output).contains("quarantine: 735 bytes of the log at 294953"), "{}", told(&output));
    assert!(told(&output).contains("log: 1 gap records over bytes 32809 to 33544"), "{}", told(&output));
    let planned = line_of(&run(&golden, &["repair", "--json"]), "plan");

    let output = run(&golden, &["repair", "--apply", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    let done = line_of(&output, "repair");
    for (key, value) in
        done.as_object().unwrap().iter().filter(|(key, _)| !["t", "applied"].contains(&key.as_str()))
    {
        assert_eq!(planned[key], *value, "{key}");
    }
    assert!(golden.path("config/topics.json.damaged-1").exists());
    assert!(fs::read_to_string(golden.path("quarantine/manifest.jsonl")).unwrap().contains("294953"));
    let output = run(&golden, &["verify"]);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    assert!(told(&output).contains("Whole: "), "{}", told(&output));
    assert!(told(&run(&golden, &["repair"])).contains("Nothing to repair"));
}

#[test]
fn what_cannot_be_checked_ends_with_code_two() {
    let golden = support::unpack("crash", "crash-wrong-cl-size");
    for args in [&["verify"][..], &["repair", "--apply"]] {
        let output = run(&golden, args);
        assert_eq!(output.status.code(), Some(2), "{}", told(&output));
        assert!(told(&output).contains("mappedFileSizeCommitLog"), "{}", told(&output));
    }
    let golden = support::unpack("written", "basic");
    let store = reput::Store::open(golden.config()).unwrap();
    let output = run(&golden, &["verify"]);
    assert_eq!(output.status.code(), Some(2), "{}", told(&output));
    assert!(told(&output).contains("open in another process"), "{}", told(&output));
    store.close().unwrap();
    assert_eq!(run(&golden, &["verify"]).status.code(), Some(0));
    let nowhere =
        Command::new(env!("CARGO_BIN_EXE_reput")).args(["store", "verify", "/nowhere/at/all"]).output();
    assert_eq!(nowhere.unwrap().status.code(), Some(2));
}
