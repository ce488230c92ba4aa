//! `reput bench` as a program: what it measures is written as it says, it takes no directory that is somebody's, keeps
//! its bounds, and leaves nothing behind: not after a run, not after an error, not after Ctrl-C or SIGTERM. No time is
//! asserted anywhere.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]
#![cfg(all(feature = "broker", unix))]

use std::{
    fs,
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

/// Anything that is waited for comes within this, or never.
const PATIENCE: Duration = Duration::from_secs(120);

fn bench(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_reput"));
    command.arg("bench").args(arguments).stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    bench(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The files of a small store: a test writes as little as it can.
const SMALL: [&str; 8] = [
    "--set",
    "mappedFileSizeCommitLog=4194304",
    "--set",
    "maxHashSlotNum=10000",
    "--set",
    "maxIndexNum=400000",
    "--max-used",
    "99",
];

#[test]
fn a_run_of_puts_writes_its_results_and_leaves_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let (work, json, html) = (dir.path().join("a/b"), dir.path().join("r.json"), dir.path().join("r.html"));
    let mut arguments = vec!["put", "--size", "128", "--threads", "1,2", "--batch", "1,8", "--rounds", "2"];
    arguments.extend(["--ms", "30", "--warm", "5", "--dir", path(&work), "--json", path(&json)]);
    arguments.extend(["--html", path(&html), "--label", "tiny"]);
    arguments.extend(SMALL);
    let output = run(&arguments);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(names(dir.path()), ["r.html", "r.json"]);

    let run: Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    assert_eq!((run["format"].as_str(), run["label"].as_str()), (Some("reput-bench/1"), Some("tiny")));
    assert_eq!(run["interrupted"], false);
    let cells = run["cells"].as_array().unwrap();
    let puts: Vec<&Value> = cells.iter().filter(|cell| cell["group"] == "put").collect();
    let ids: Vec<&str> = puts.iter().map(|cell| cell["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["put/128/t1", "put/128/t1/b8", "put/128/t2", "put/128/t2/b8"]);
    for cell in puts {
        let rounds = cell["rounds"].as_array().unwrap();
        assert_eq!(rounds.len(), 2, "{cell}");
        for round in rounds {
            assert!(
                round["value"].as_f64().unwrap() > 0.0 && round["operations"].as_u64().unwrap() > 0,
                "{round}"
            );
            assert!(
                round["share"].as_f64().unwrap() > 0.0 && round["cpu_us"].as_f64().unwrap() > 0.0,
                "{round}"
            );
            assert!(round["followed"].as_f64().unwrap() > 0.0, "{round}");
        }
        let limit = cell["limit"].as_str().unwrap();
        assert!(cells.iter().any(|other| other["id"] == limit), "{limit} was measured too");
        let latency = &cell["latency"];
        assert!(latency["count"].as_u64().unwrap() > 0, "{latency}");
        assert!(latency["p50"].as_f64().unwrap() <= latency["max"].as_f64().unwrap(), "{latency}");
    }
    let page = fs::read_to_string(&html).unwrap();
    assert!(
        page.starts_with("<!doctype html>") && page.contains("128 B, 2 threads") && page.contains("<svg")
    );
    let table = text(&output.stdout);
    assert!(table.contains("128 B, 1 thread") && table.contains("of limit"), "{table}");
}

#[test]
fn an_open_loop_tells_that_times_count_from_when_calls_were_due() {
    let dir = tempfile::tempdir().unwrap();
    let work = dir.path().join("w");
    let mut arguments =
        vec!["sync", "--size", "64", "--threads", "2", "--rate", "500", "--rounds", "1", "--ms", "50"];
    arguments.extend(["--dir", path(&work), "--json", "-"]);
    arguments.extend(SMALL);
    let output = run(&arguments);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let run: Value = serde_json::from_slice(&output.stdout).unwrap();
    let cells = run["cells"].as_array().unwrap();
    let cell = cells.iter().find(|cell| cell["id"] == "sync/64/t2/r500").unwrap();
    assert_eq!(
        (&cell["latency"]["from_intended_start"], &cell["latency"]["timed_every"]),
        (&true.into(), &1.into())
    );
    assert!(text(&output.stderr).contains("64 B, 2 threads, at 500/s"), "the table goes to standard error");
    assert!(names(dir.path()).is_empty());
}

#[test]
fn every_part_runs_and_cleans_up() {
    let dir = tempfile::tempdir().unwrap();
    let work = dir.path().join("w");
    let parts: [(&[&str], &[&str]); 9] = [
        (&["disk", "--size", "128"], &["disk/write", "disk/read", "disk/map/fault", "memory/wake"]),
        (&["sync", "--threads", "1,4", "--window", "0,4"], &["sync/1024/t1", "sync/1024/t4/w4"]),
        (&["reput", "--messages", "2000"], &["reput/index", "reput/queues"]),
        (&["lag", "--rate", "0,1000"], &["lag/idle", "lag/1000"]),
        (&["pull", "--messages", "2000", "--threads", "1"], &["pull/t1/b32", "pull/t1/b32/tag", "pull/cold"]),
        (&["query", "--messages", "2000", "--threads", "2"], &["query/t2"]),
        (&["recover", "--messages", "2000"], &["recover/hot", "recover/cold", "recover/clean"]),
        (&["topics", "--topics", "20"], &["topics/20", "topics/20/closed", "disk/files/20"]),
        (&["retention"], &["retention/remove", "retention/stall", "disk/unlink"]),
    ];
    for (part, ids) in parts {
        let mut arguments = part.to_vec();
        arguments.extend(["--quick", "--ms", "10", "--max-bytes", "1g", "--dir", path(&work), "--json", "-"]);
        arguments.extend(SMALL);
        let output = run(&arguments);
        assert!(output.status.success(), "{part:?}: {}", text(&output.stderr));
        let run: Value = serde_json::from_slice(&output.stdout).unwrap();
        for id in ids {
            let cell = run["cells"].as_array().unwrap().iter().find(|cell| cell["id"] == *id);
            let cell = cell.unwrap_or_else(|| panic!("{part:?} has no {id}"));
            assert!(cell["median"].as_f64().unwrap() > 0.0, "{cell}");
        }
        assert!(names(dir.path()).is_empty(), "{part:?} leaves {:?}", names(dir.path()));
    }
}

#[test]
fn somebodys_store_is_read_and_not_changed() {
    let dir = tempfile::tempdir().unwrap();
    let (store, work) = (dir.path().join("store"), dir.path().join("w"));
    {
        let config = reput::Config::new(&store)
            .commit_log_file_size(65_536_u64)
            .index_slots(100_u32)
            .index_entries(400_u32);
        let opened = reput::Store::open(config).unwrap();
        let queue = opened.queue("orders", 0).unwrap();
        for _ in 0..1_000 {
            opened.put(&reput::Message::new(queue, b"paid").tags("eu")).unwrap().wait().unwrap();
        }
        // As a kill leaves it.
        opened.wait_dispatched(PATIENCE).unwrap();
    }
    let content = || {
        let mut files = Vec::new();
        let mut dirs = vec![store.clone()];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
                if entry.file_type().unwrap().is_dir() {
                    dirs.push(entry.path());
                } else {
                    files.push((entry.path(), fs::read(entry.path()).unwrap()));
                }
            }
        }
        files.sort();
        files
    };
    let before = content();
    for part in ["recover", "pull"] {
        let mut arguments =
            vec![part, "--store", path(&store), "--dir", path(&work), "--rounds", "1", "--ms", "10"];
        arguments.extend(["--max-used", "99", "--set", "maxHashSlotNum=100", "--set", "maxIndexNum=400"]);
        let output = run(&arguments);
        assert!(output.status.success(), "{part}: {}", text(&output.stderr));
    }
    assert!(before == content(), "the store is as it was");
    assert_eq!(names(dir.path()), ["store"]);
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a run that would take an hour, and comes back when it has a store open.
fn start_endless(work: &Path, json: &Path) -> Running {
    let mut arguments = vec!["lag", "--rate", "0", "--ms", "1", "--warm", "3600000", "--dir", path(work)];
    arguments.extend(["--json", path(json)]);
    arguments.extend(SMALL);
    let child = bench(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut running = Running(child);
    let start = Instant::now();
    while !work.join("reput-bench.work/lag/commitlog").exists() {
        assert!(running.0.try_wait().unwrap().is_none(), "it ended by itself");
        assert!(start.elapsed() < PATIENCE, "no store was opened");
        std::thread::sleep(Duration::from_millis(10));
    }
    running
}

#[test]
fn a_run_that_is_asked_to_stop_removes_what_it_wrote_and_says_that_it_was_stopped() {
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let dir = tempfile::tempdir().unwrap();
        let (work, json) = (dir.path().join("x/y"), dir.path().join("r.json"));
        let mut running = start_endless(&work, &json);
        let sent =
            Command::new("kill").args([&format!("-{signal}"), &running.0.id().to_string()]).status().unwrap();
        assert!(sent.success());
        let status = running.0.wait().unwrap();
        assert_eq!(status.code(), Some(code), "SIG{signal}");
        assert_eq!(names(dir.path()), ["r.json"], "SIG{signal}");
        let run: Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
        assert_eq!(run["interrupted"], true);
    }
}

#[test]
fn a_directory_in_use_is_refused_and_what_a_killed_run_left_is_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let (work, json) = (dir.path().join("w"), dir.path().join("r.json"));
    let running = start_endless(&work, &json);
    let output = run(&["query", "--quick", "--max-used", "99", "--dir", path(&work)]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("in use"), "{}", text(&output.stderr));
    assert!(work.join("reput-bench.work/lag/commitlog").exists(), "the other run's files stay");
    // SIGKILL: nothing can be tidied up.
    drop(running);
    assert_eq!(names(&work), ["reput-bench.lock", "reput-bench.work"]);
    let mut arguments = vec!["query", "--messages", "100", "--quick", "--dir", path(&work)];
    arguments.extend(SMALL);
    let output = run(&arguments);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(names(&work).is_empty(), "the directory was there before this run, so it stays, empty");
}

#[test]
fn a_directory_with_other_files_is_refused_untouched() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("ledger"), "all of it").unwrap();
    let output = run(&["--quick", "--dir", path(dir.path())]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("ledger"), "{}", text(&output.stderr));
    assert_eq!(fs::read_to_string(dir.path().join("ledger")).unwrap(), "all of it");
    assert_eq!(names(dir.path()), ["ledger"]);
}

#[test]
fn bounds_are_errors_that_name_the_option_and_errors_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let work = dir.path().join("w");
    let cases: [(&[&str], i32, &str); 6] = [
        (&["put", "--max-bytes", "10m"], 1, "--max-bytes"),
        (&["put", "--max-used", "0"], 2, "--max-used"),
        (&["backlog", "--bytes", "1g", "--max-bytes", "256m", "--max-used", "99"], 1, "--max-bytes"),
        (&["put", "--quick", "--max-used", "99", "--set", "noSuchKey=1"], 1, "noSuchKey"),
        (&["recover", "--quick", "--max-used", "99", "--store", "/nowhere"], 1, "/nowhere"),
        (&["put", "--json", "/nowhere/at/all.json"], 1, "/nowhere/at"),
    ];
    for (case, code, word) in cases {
        let mut arguments = case.to_vec();
        arguments.extend(["--dir", path(&work)]);
        let output = run(&arguments);
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{case:?}: {told}");
        assert!(told.contains(word), "{case:?}: {told}");
        assert!(names(dir.path()).is_empty(), "{case:?} leaves {:?}", names(dir.path()));
    }
}

#[test]
fn a_small_bound_is_kept_while_puts_go_as_fast_as_they_can() {
    let dir = tempfile::tempdir().unwrap();
    let work = dir.path().join("w");
    let arguments =
        ["put", "--size", "16k", "--threads", "2", "--rounds", "1", "--ms", "2000", "--max-bytes", "128m"];
    let child =
        bench(&arguments).args(["--max-used", "99", "--dir", path(&work)]).stdout(Stdio::null()).spawn();
    let mut running = Running(child.unwrap());
    let mut most = 0;
    while running.0.try_wait().unwrap().is_none() {
        most = most.max(bytes_below(&work));
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(running.0.wait().unwrap().success());
    assert!(most > 1 << 20 && most <= 128 << 20, "{most} bytes lay there at once");
    assert!(names(dir.path()).is_empty());
}

fn bytes_below(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let sizes = entries.filter_map(Result::ok).map(|entry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => bytes_below(&entry.path()),
        Ok(meta) => meta.blocks() * 512,
        Err(_) => 0,
    });
    sizes.sum()
}

/// Results as the program writes them, with these values for one cell.
fn results(file: &Path, label: &str, values: &[f64]) {
    let rounds: Vec<Value> = values
        .iter()
        .map(|value| serde_json::json!({"value": value, "seconds": 1.0, "operations": 1, "share": value / 200.0}))
        .collect();
    let run = serde_json::json!({
        "format": "reput-bench/1", "label": label, "version": "0", "arguments": [], "started_ms": 0, "seconds": 1.0,
        "interrupted": false,
        "machine": {"processors": 2, "processor": "", "memory_bytes": 0, "kernel": "", "directory": "",
            "file_system": "", "disk_bytes": 0, "disk_free_bytes": 0, "others_busy": 0.0},
        "cells": [{"id": "put/128/t1", "group": "put", "title": "128 B, 1 thread", "unit": "msgs/s",
            "lower_is_better": false, "limit": null, "median": values[0], "least": values[0], "greatest": values[0],
            "share": 0.5, "latency": null, "stages": [], "rounds": rounds, "over_time": []}],
    });
    fs::write(file, run.to_string()).unwrap();
}

#[test]
fn a_comparison_tells_by_its_exit_code_whether_something_is_worse() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name);
    results(&file("a.json"), "before", &[100.0, 101.0, 102.0, 103.0, 104.0]);
    results(&file("b.json"), "after", &[80.0, 81.0, 82.0, 83.0, 84.0]);
    results(&file("few.json"), "few", &[80.0, 81.0]);
    let compare = |first: &str, second: &str, more: &[&str]| {
        let (first, second) = (file(first), file(second));
        let mut arguments = vec!["compare", path(&first), path(&second)];
        arguments.extend(more);
        run(&arguments)
    };
    let worse = compare("a.json", "b.json", &[]);
    assert_eq!(worse.status.code(), Some(3));
    assert!(text(&worse.stdout).contains("WORSE"), "{}", text(&worse.stdout));
    assert_eq!(compare("b.json", "a.json", &[]).status.code(), Some(0), "better is no failure");
    assert_eq!(compare("a.json", "a.json", &[]).status.code(), Some(0));
    assert_eq!(compare("a.json", "b.json", &["--percent", "30"]).status.code(), Some(0));
    assert_eq!(compare("a.json", "b.json", &["--by", "share"]).status.code(), Some(3));
    let few = compare("a.json", "few.json", &[]);
    assert_eq!(few.status.code(), Some(0));
    assert!(text(&few.stdout).contains("too few rounds"), "{}", text(&few.stdout));
    assert_eq!(compare("a.json", "absent.json", &[]).status.code(), Some(1));
    let page = file("c.html");
    let json = compare("a.json", "b.json", &["--json", "--html", path(&page)]);
    let found: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((found[0]["verdict"].as_str(), found[0]["run"].as_str()), (Some("worse"), Some("after")));
    assert!(fs::read_to_string(page).unwrap().contains("Beside each other"));
}

#[test]
fn the_help_teaches_by_examples() {
    for (arguments, word) in
        [(vec!["--help"], "reput bench compare"), (vec!["compare", "--help"], "Mann-Whitney")]
    {
        let output = run(&arguments);
        assert!(output.status.success());
        let help = text(&output.stdout);
        assert!(help.contains("Examples:") && help.contains(word) && help.contains("Exit codes"), "{help}");
    }
}
