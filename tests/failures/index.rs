//! Failures 17 to 19: an index that says something else than the log.

use std::{fs, path::PathBuf};

use crate::rig::{Rig, cut, patch};

fn files(rig: &Rig) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        fs::read_dir(rig.path("index")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Row 17: The header's fields are written one by one and may come from different moments; chains may lead anywhere. Java
/// believes them, and guards a chain against a link to itself only.
#[test]
fn failure_17_header_slots_and_chains_follow_from_the_entries() {
    const ENTRIES: u64 = 40 + 4 * 100;
    for (at, bytes) in [
        (36, &3_i32.to_be_bytes()[..]),
        (36, &127_i32.to_be_bytes()),
        (32, &[0xff; 8]),
        (16, &[0x7f; 16]),
        (0, &[0x80]),
        (0, &[0; 8]),
        (8, &[0xff; 8]),
        (ENTRIES + 20 * 9 + 12, &[0x7f; 4]),
        (40, &[0; 400]),
        (40, &[0x00, 0x00, 0x00, 0x05].repeat(100)),
        (ENTRIES + 20 * 9 + 16, &9_i32.to_be_bytes()),
        (ENTRIES + 20 * 9 + 16, &60_i32.to_be_bytes()),
        (ENTRIES + 20 * 9, &[0x11; 20]),
    ] {
        let rig = Rig::killed();
        let file = &files(&rig)[1];
        patch(file, at, bytes);
        rig.lost_is([]);
    }
}

/// Row 18: Any unclean stop: Java deletes the newest index file and fills it from the segments it scans; keys of older
/// messages find nothing. Here it is kept, checked and completed.
#[test]
fn failure_18_the_newest_index_file_survives_a_kill() {
    let rig = Rig::killed();
    let before = files(&rig);
    assert!(before.len() > 2);
    rig.lost_is([]);
    assert_eq!(files(&rig), before, "not one was made anew");

    // And completed when it lags: the last ten entries never reached the disk, nor did the count.
    let rig = Rig::killed();
    let newest = files(&rig).pop().unwrap();
    let bytes = fs::read(&newest).unwrap();
    let count = u64::from(u32::from_be_bytes(*bytes[36..].first_chunk().unwrap()));
    patch(&newest, 40 + 400 + 20 * (count - 10), &[0; 200]);
    rig.lost_is([]);
}

/// Row 19: An index file of 100 bytes: Java extends it by mapping it, and every key in it is lost.
#[test]
fn failure_19_a_short_index_file_is_built_again() {
    for number in [0, 1, 2] {
        let rig = Rig::killed();
        cut(&files(&rig)[number], 100);
        rig.lost_is([]);
    }
}
