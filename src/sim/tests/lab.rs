//! What the disk and the lab themselves do: combinations, calls that fall short, depths, lines that replay.

use std::{collections::BTreeSet, io::ErrorKind, path::Path, sync::Arc};

use super::{ALL, NOTHING, after, content, disk, file, store};
use crate::{
    sim::{Budget, Call, Failure, Fault, Finding, Kept, Lab, Outcome, Replay, Violation, Workload},
    vfs::{Backing, Vfs},
};

/// One file of `pages` durable pages of zeros.
fn pages(disk: &crate::sim::SimDisk, pages: usize) -> Box<dyn Backing> {
    let made = file(disk, "/f", pages as u64 * 4096);
    made.sync(0..pages * 4096).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    made
}

#[test]
fn every_combination_has_the_versions_in_between() {
    let disk = disk();
    let made = pages(&disk, 2);
    made.write(0, b"one").unwrap();
    made.write(0, b"two").unwrap();
    made.write(4096, b"new").unwrap();
    let crash = disk.crash();
    assert_eq!((crash.dirty_pages(), crash.combinations()), (2, 6));
    assert!(crash.exhaustive(1).is_none(), "two pages are dirty");
    let left: BTreeSet<(Vec<u8>, Vec<u8>)> = crash
        .exhaustive(2)
        .unwrap()
        .into_iter()
        .map(|outcome| content(&after(&crash, outcome), "/f").unwrap())
        .map(|bytes| (bytes[..3].to_vec(), bytes[4096..4099].to_vec()))
        .collect();
    let firsts = [[0; 3], *b"one", *b"two"];
    let all =
        firsts.iter().flat_map(|first| [[0; 3], *b"new"].map(|second| (first.to_vec(), second.to_vec())));
    assert_eq!(left, all.collect());
}

#[test]
fn names_do_not_count_for_the_bound_on_dirty_pages() {
    let disk = disk();
    let made = pages(&disk, 12);
    for name in 0..4 {
        drop(disk.create(Path::new(&format!("/n{name}")), 0, crate::vfs::Reserve::None).unwrap());
    }
    let names = |crash: &crate::sim::Crash, outcomes: Vec<Outcome>| {
        let left = outcomes.into_iter().map(|outcome| {
            let left = after(crash, outcome);
            left.list(Path::new("/")).unwrap().into_iter().map(|entry| entry.name).collect::<Vec<_>>()
        });
        left.collect::<BTreeSet<_>>().len()
    };
    made.write(0, b"new").unwrap();
    let crash = disk.crash();
    let outcomes = crash.exhaustive(1).unwrap();
    assert_eq!(outcomes.len() as u64, crash.combinations());
    assert_eq!(names(&crash, outcomes), 16, "each of four names is there or not");
    (1..12).for_each(|page| made.write(page * 4096, b"new").unwrap());
    let crash = disk.crash();
    let outcomes = crash.exhaustive(12).unwrap();
    assert_eq!(outcomes.len(), 4096, "each page is old or new");
    assert!(outcomes.iter().any(|outcome| outcome.names == Kept::All));
    assert!(outcomes.iter().any(|outcome| outcome.names == Kept::None));
    assert_eq!(
        outcomes.iter().map(|outcome| outcome.pages).collect::<std::collections::HashSet<_>>().len(),
        4096
    );
}

#[test]
fn a_failed_sync_of_everything_leaves_clean_pages_with_the_old_bytes_below() {
    let disk = disk();
    let made = pages(&disk, 1);
    made.write(0, b"lost").unwrap();
    disk.fail(Fault { call: Some(Call::SyncAll), pass: 0, times: 1, failure: Failure::Device });
    assert!(disk.sync_all(Path::new("/")).is_err());
    assert_eq!(disk.crash().dirty_pages(), 0);
    assert!(disk.sync_all(Path::new("/")).is_ok(), "the second says that all is well");
    assert_eq!(&content(&disk, "/f").unwrap()[..4], b"lost", "the cache shows it");
    assert_eq!(content(&after(&disk.crash(), ALL), "/f").unwrap()[..4], [0; 4], "the disk has not got it");
    made.rewrite(0..4096).unwrap();
    disk.sync_all(Path::new("/")).unwrap();
    assert_eq!(&content(&after(&disk.crash(), NOTHING), "/f").unwrap()[..4], b"lost");
}

#[test]
fn calls_that_fall_short_name_file_and_place_and_befall_reads_and_writes_alone() {
    let disk = disk();
    let made = pages(&disk, 2);
    disk.fail(Fault { call: None, pass: 0, times: 2, failure: Failure::Short });
    made.sync(0..8192).unwrap();
    let mut there = 0;
    for _ in 0..2 {
        let error = made.write(4090, &[7; 100]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WriteZero);
        assert!(error.to_string().contains("/f at 4090"), "{error}");
        there = disk.contents()[0].1[4090..].iter().take_while(|byte| **byte == 7).count();
        assert!(there < 100, "{there}");
    }
    made.write(4090, &[8; 100]).unwrap();
    disk.fail(Fault { call: None, pass: 0, times: 1, failure: Failure::Short });
    let error = disk.read(Path::new("/f"), 1 << 20).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    assert!(error.to_string().contains("/f has no bytes from"), "{error}");
    assert!(disk.read(Path::new("/f"), 1 << 20).is_ok());
    assert_eq!(disk.failed_calls(), 3, "{there} bytes were there");
}

#[test]
fn faults_are_words_that_are_read_back() {
    for failure in Failure::ALL {
        for (call, times) in Call::ALL.into_iter().map(|call| (Some(call), 3)).chain([(None, u64::MAX)]) {
            let fault = Fault { call, pass: 17, times, failure };
            assert_eq!(Fault::parse(&fault.word()), Some(fault));
        }
    }
    for word in ["", "Device:Any:1", "Device:Any:1:1:1", "Device:All:1:1", "Devise:Any:1:1", "Device:Any:x:1"]
    {
        assert_eq!(Fault::parse(word), None, "{word}");
    }
}

/// Within one call of the program the first store may be on the disk without the second, and not only at its end.
#[test]
#[cfg(debug_assertions)]
fn the_order_of_stores_through_a_mapping_is_seen() {
    let disk = disk();
    let made = pages(&disk, 2);
    let seen = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let kept = Arc::clone(&seen);
    disk.watch_stores(1);
    disk.watch(0, move |moment| kept.lock().push(moment.crash()));
    store(&*made, 0, b"first");
    store(&*made, 4096, b"second");
    let points = std::mem::take(&mut *seen.lock());
    assert_eq!(points.iter().map(crate::sim::Crash::dirty_pages).collect::<Vec<_>>(), [0, 1]);
    let left = content(&after(&points[1], ALL), "/f").unwrap();
    assert_eq!((&left[..5], &left[4096..4102]), (&b"first"[..], &[0; 6][..]));
    disk.watch_stores(0);
    store(&*made, 0, b"third");
    assert!(seen.lock().is_empty());
}

#[test]
fn the_power_goes_three_times_within_recovery() {
    let lab = Lab::default();
    let tally = lab.seed(5).unwrap_or_else(|finding| panic!("{finding}"));
    assert_eq!(
        tally.depths.keys().copied().collect::<Vec<_>>(),
        [1, 2, 3, 4],
        "the first crash, and three more"
    );
    assert!(tally.exhaustive > 0);
}

/// What a finding prints is the same run again: the same steps, failing calls and images, whatever was asked for.
#[test]
fn the_line_of_a_finding_is_the_run_again() {
    let budget =
        Budget { images: 77, per_point: 2, every_pages: 1, exhaustive_one_in: 5, exhaustive_pages: 3 };
    for (line, steps) in [
        ("--seed 9 --steps 0,1,2,5,6", 5),
        ("--seed 9 --steps none", 0),
        ("--bytes 0001000020000900060f00", 3),
        ("--bytes none", 0),
        ("--seed 3 --steps 0,1,2 --break 2/Short:Write:0:ever", 3),
        ("--seed 3 --steps 0,1 --break open/NoSpace:Any:4:1", 2),
        ("--seed 3 --steps 0,1 --break recovery1/TooManyFiles:Any:7:1", 2),
    ] {
        let asked: Replay = line.parse().unwrap();
        assert!(asked.is_one_run);
        assert_eq!(asked.workload.len(), steps, "{line}");
        let violation = Violation { invariant: 1, what: "lost".to_owned() };
        let replay = Replay { budget, ..asked };
        let finding = Finding { replay, violation, images: 1 };
        let printed = finding.to_string();
        let (command, words) = printed.split_once("--example crash_lab -- ").unwrap();
        assert_eq!(command.contains("--release"), !cfg!(debug_assertions), "{printed}");
        let again: Replay = words.parse().unwrap();
        assert_eq!((again.to_string(), again.budget), (words.to_owned(), budget), "{line}");
        assert_eq!(again.workload.to_string(), finding.replay.workload.to_string());
        let run = |replay: &Replay| {
            Lab::new(replay.budget).run(&replay.workload).map_err(|finding| finding.to_string())
        };
        let ran =
            [run(&finding.replay), run(&again)].map(|tally| tally.map(|tally| (tally.points, tally.depths)));
        assert_eq!(ran[0], ran[1]);
        assert!(ran[0].is_ok(), "{:?}", ran[0]);
    }
    for wrong in
        ["--seed", "--seed x", "--nothing 1", "--bytes 012", "--bytes zz", "--break 1", "--steps 1,x"]
    {
        assert!(wrong.parse::<Replay>().is_err(), "{wrong}");
    }
    assert!(!"--seed 4 --per-seed 9".parse::<Replay>().unwrap().is_one_run, "a search");
}

/// Every step there is can be said in bytes, and any bytes are a workload that breaks nothing.
#[test]
fn bytes_are_workloads() {
    let mut said = BTreeSet::new();
    for kind in 0..=255_u8 {
        let workload = Workload::of_bytes(&[0x31, 0x40, 0, 1, kind, 1, 2, 3]);
        let words = workload.to_string();
        said.insert(words.split_whitespace().nth(1).unwrap_or_default().trim_end_matches(':').to_owned());
    }
    for step in
        ["put", "sync", "flush", "reput", "upkeep", "prepare", "retention", "clock", "break", "close", "kill"]
    {
        assert!(said.contains(step), "{step}: {said:?}");
    }
    assert!(said.contains("power"), "{said:?}");
    assert_eq!(Workload::of_bytes(&[6; 1000]).len(), 64);
    let lab = Lab::new(Budget { images: 20, per_point: 2, ..Budget::default() });
    let mut tally = crate::sim::Tally::default();
    for seed in 0..40_u64 {
        let mut rng = crate::sim::rng::Rng::new(seed);
        let data: Vec<u8> = (0..4 + rng.below(60)).map(|_| rng.next().to_be_bytes()[7]).collect();
        tally.add(&lab.run(&Workload::of_bytes(&data)).unwrap_or_else(|finding| panic!("{finding}")));
    }
    assert!(tally.images > 400, "{tally:?}");
}
