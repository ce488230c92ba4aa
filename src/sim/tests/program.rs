//! Crash tests of programs: one that keeps its promises, and ones that break them in each way that is looked for.

use std::{
    path::Path,
    sync::{Arc, Mutex},
};

use crate::{
    sim::{Broken, CrashTest, Place, SimDisk, Tally},
    vfs::{Reserve, Vfs},
};

/// So many numbers are written, each a page of its own.
const COUNT: u8 = 4;

fn words(error: std::io::Error) -> String {
    error.to_string()
}

/// When a number counts as promised.
#[derive(Clone, Copy, PartialEq)]
enum Promise {
    AfterTheSync,
    BeforeTheSync,
    /// Whatever the sync says.
    UnlessWritingFails,
}

fn program(disk: &SimDisk, promised: &Mutex<u8>, promise: Promise) -> Result<(), String> {
    let file = disk.create(Path::new("/f"), u64::from(COUNT) * 4096, Reserve::All).map_err(words)?;
    disk.sync_dir(Path::new("/")).map_err(words)?;
    for n in 1..=COUNT {
        file.write(usize::from(n - 1) * 4096, &[n]).map_err(words)?;
        if promise == Promise::BeforeTheSync {
            *promised.lock().unwrap() = n;
        }
        let synced = file.sync(0..file.len()).map_err(words);
        if promise != Promise::UnlessWritingFails {
            synced?;
        }
        *promised.lock().unwrap() = n;
    }
    Ok(())
}

fn numbers(disk: &SimDisk) -> Vec<u8> {
    let bytes = disk.read(Path::new("/f"), 1 << 20).unwrap().unwrap_or_default();
    bytes.chunks(4096).map(|page| page[0]).collect()
}

fn holds(disk: &SimDisk, promised: u8) -> Result<(), String> {
    let there = numbers(disk).into_iter().zip(1..).take_while(|(number, n)| number == n).count();
    if there >= usize::from(promised) {
        Ok(())
    } else {
        Err(format!("{promised} were promised, {there} are there"))
    }
}

fn run(test: &CrashTest, promise: Promise) -> Result<Tally, Box<Broken>> {
    let promised = Arc::new(Mutex::new(0));
    test.run(&promised, |disk| program(disk, &promised, promise), |disk, promised| holds(disk, *promised))
}

#[test]
fn a_program_that_keeps_its_promises_passes() {
    let tally = run(&CrashTest::new(1).failing_runs(20), Promise::AfterTheSync).unwrap();
    assert_eq!(tally.seeds, 21, "runs");
    assert!(tally.exhaustive > 0 && tally.images > tally.points, "{tally:?}");
}

#[test]
fn a_promise_before_the_sync_is_broken_and_its_image_is_the_same_again() {
    let test = CrashTest::new(7);
    let broken = run(&test, Promise::BeforeTheSync).unwrap_err();
    assert_eq!((broken.outcomes.len(), broken.fault), (1, None));
    assert!(broken.what.contains("promised"), "{broken}");
    let place = broken.place.to_string();
    assert!(
        broken.to_string().contains(&format!("CrashTest::new(7) as it was, with .only(\"{place}\")")),
        "{broken}"
    );
    assert_eq!(run(&test.only(&place).unwrap(), Promise::BeforeTheSync), Err(broken));
}

#[test]
fn a_promise_after_a_failed_sync_is_broken_and_its_image_is_the_same_again() {
    let test = CrashTest::new(1).failing_runs(40);
    assert!(run(&CrashTest::new(1), Promise::UnlessWritingFails).is_ok(), "only failing calls show it");
    let broken = run(&test, Promise::UnlessWritingFails).unwrap_err();
    assert!(broken.fault.is_some(), "{broken}");
    let only = test.only(&broken.place.to_string()).unwrap();
    assert_eq!(run(&only, Promise::UnlessWritingFails), Err(broken));
}

/// The program that is started again moves what it finds to another file, and removes it before that is durable.
#[test]
fn a_crash_while_the_program_is_opened_again_is_found_and_the_same_again() {
    let promised = Arc::new(Mutex::new(0));
    let move_and_hold = |disk: &SimDisk, promised: &u8| {
        let moved = Path::new("/moved");
        if let Some(bytes) =
            disk.read(Path::new("/f"), 1 << 20).map_err(words)?.filter(|bytes| !bytes.is_empty())
        {
            disk.remove(moved).map_err(words)?;
            let file = disk.create(moved, bytes.len() as u64, Reserve::All).map_err(words)?;
            file.write(0, &bytes).map_err(words)?;
            disk.remove(Path::new("/f")).map_err(words)?;
            file.sync(0..bytes.len()).map_err(words)?;
            disk.sync_dir(Path::new("/")).map_err(words)?;
        }
        let bytes = disk.read(moved, 1 << 20).map_err(words)?.unwrap_or_default();
        let there = bytes.chunks(4096).zip(1..).take_while(|(page, n)| page[0] == *n).count();
        if there >= usize::from(*promised) { Ok(()) } else { Err(format!("{there} of {promised}")) }
    };
    let run = |test: &CrashTest| {
        *promised.lock().unwrap() = 0;
        test.run(&promised, |disk| program(disk, &promised, Promise::AfterTheSync), move_and_hold)
    };
    assert!(run(&CrashTest::new(3).within(0)).is_ok(), "one crash does not show it");
    let test = CrashTest::new(3).within(3).images_per_point(40);
    let broken = run(&test).unwrap_err();
    assert!(broken.outcomes.len() > 1, "{broken}");
    assert!(broken.to_string().contains("then within the check at crash point"), "{broken}");
    assert_eq!(run(&test.only(&broken.place.to_string()).unwrap()), Err(broken));
}

/// A sum that one combination of three pages alone gets wrong.
#[test]
fn every_combination_of_a_few_pages_is_checked() {
    let nothing = Arc::new(Mutex::new(()));
    let program = |disk: &SimDisk| {
        let file = disk.create(Path::new("/f"), 4 * 4096, Reserve::All).map_err(words)?;
        disk.sync_all(Path::new("/")).map_err(words)?;
        (0..4).try_for_each(|page| file.write(page * 4096, &[1])).map_err(words)
    };
    let one_is_wrong = |disk: &SimDisk, (): &()| {
        if numbers(disk) == [1, 0, 1, 0] { Err("this one".to_owned()) } else { Ok(()) }
    };
    let test = CrashTest::new(1).images_per_point(0).within(0);
    assert!(test.clone().exhaustive(0).run(&nothing, program, one_is_wrong).is_ok());
    let broken = test.exhaustive(4).run(&nothing, program, one_is_wrong).unwrap_err();
    assert_eq!(broken.what, "this one");
}

#[test]
fn what_the_program_says_and_panics_are_told() {
    let nothing = Arc::new(Mutex::new(()));
    let test = CrashTest::new(1);
    let refused = test.run(&nothing, |_| Err("no".to_owned()), |_, ()| Ok(())).unwrap_err();
    assert_eq!(refused.to_string().lines().next(), Some("the program failed: no"));
    let panicked = test.run(&nothing, |_| panic!("out of order"), |_, ()| Ok(())).unwrap_err();
    assert!(panicked.what.contains("out of order"), "{panicked}");
    let checked = test.run(&nothing, |_| Ok(()), |_, ()| panic!("at the check")).unwrap_err();
    assert!(checked.what.contains("at the check") && checked.outcomes.len() == 1, "{checked}");
}

#[test]
fn places_are_words() {
    let text = "3:17.4:2.0";
    assert_eq!(text.parse::<Place>().unwrap().to_string(), text);
    for wrong in ["", "x", "0:1", "0:1.x", "0:1.2:"] {
        assert!(wrong.parse::<Place>().is_err(), "{wrong}");
        assert!(CrashTest::new(1).only(wrong).is_err());
    }
}
