//! Random histories of a queue against a list.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Append(u8),
    Skip,
    WriteOut,
    Flush,
    Cut(u8),
    Retain(u8),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..9u8).prop_map(Step::Append),
        1 => Just(Step::Skip),
        3 => Just(Step::WriteOut),
        1 => Just(Step::Flush),
        1 => (0..12u8).prop_map(Step::Cut),
        1 => (0..12u8).prop_map(Step::Retain),
        2 => Just(Step::Reopen),
    ]
}

/// The entries that must be there: `start..end`, all of which [`record`] makes.
struct Model {
    start: i64,
    end: i64,
}

fn at(offset: i64) -> usize {
    usize::try_from(offset).unwrap()
}

fn check(queue: &Queue, model: &Model) {
    let (min, max, physical) = limits(queue);
    assert_eq!(max, model.end);
    assert!(min >= model.start || model.start == model.end);
    assert_eq!(physical, if model.end > model.start { model.end * 10 } else { 0 });
    if model.end > model.start {
        assert_eq!(min, model.start);
    }
    let expected: Vec<i64> = (model.start..model.end).collect();
    assert_eq!(offsets(queue), expected);
    for q in expected {
        let unit = queue.get(QueueOffset(q)).unwrap().unwrap();
        assert_eq!((unit.offset.0, unit.size, unit.tags_code.0), (q * 10, 10, -q));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_queue_holds_what_a_list_would_hold(steps in prop::collection::vec(step(), 1..40), first in 0..14i64) {
        let dir = TempDir::new().unwrap();
        let config = config(dir.path()).max_mapped_consume_queue_files(2usize);
        let mut table = open(&config);
        let mut model = Model { start: first, end: first };
        let mut began = false;
        for step in steps {
            let queue = queue(&table);
            match step {
                Step::Append(count) => {
                    for _ in 0..count {
                        prop_assert_eq!(queue.append(&record(model.end)).unwrap(), Appended::Done);
                        model.end += 1;
                    }
                    began = true;
                }
                Step::Skip if model.end > model.start => {
                    let gap = Appended::Gap { expected: QueueOffset(model.end) };
                    prop_assert_eq!(queue.append(&record(model.end + 1)).unwrap(), gap);
                    prop_assert_eq!(queue.append(&record(model.end - 1)).unwrap(), Appended::Duplicate);
                }
                Step::WriteOut => table.write_out().unwrap(),
                Step::Flush => drop(table.flush_step(Duration::ZERO, true).unwrap()),
                // What leaves no entry at all is tested elsewhere: a queue may start anywhere then.
                Step::Cut(back) if model.end - i64::from(back) > model.start => {
                    model.end -= i64::from(back);
                    queue.truncate_to(QueueOffset(model.end)).unwrap();
                }
                Step::Retain(on) if model.start + i64::from(on) < model.end => {
                    model.start += i64::from(on);
                    let min = PhysicalOffset(model.start * 10);
                    queue.delete_before(min, 9).unwrap();
                    queue.correct_min_offset(min).unwrap();
                }
                Step::Reopen => {
                    table.write_out().unwrap();
                    table = open(&config);
                    table.recover().unwrap();
                    let queue = super::queue(&table);
                    queue.correct_min_offset(PhysicalOffset(model.start * 10)).unwrap();
                }
                _ => {}
            }
            if began {
                check(&super::queue(&table), &model);
            }
        }
    }

    #[test]
    fn no_bytes_make_recovery_fail_or_leave_a_stale_entry(
        bytes in prop::collection::vec(prop_oneof![3 => Just(0u8), 2 => any::<u8>()], 300), cut in 0..300usize,
    ) {
        let dir = TempDir::new().unwrap();
        let config = config(dir.path());
        let table = open(&config);
        fill(&queue(&table), 0..15);
        table.write_out().unwrap();
        for (i, part) in bytes.chunks(100).enumerate() {
            let path = file(&dir, 100 * u64::try_from(i).unwrap());
            let mut whole = std::fs::read(&path).unwrap();
            let from = cut.saturating_sub(100 * i).min(100);
            whole[from..].copy_from_slice(&part[from..]);
            std::fs::write(&path, whole).unwrap();
        }
        let table = open(&config);
        table.recover().unwrap();
        let queue = queue(&table);
        let end = queue.max_offset().0;
        prop_assert!(at(end) >= cut / 20);
        // Whatever stood behind the end is zero now: a second recovery finds the same end.
        let base = end * 20 / 100 * 100;
        if let Ok(last) = std::fs::read(file(&dir, u64::try_from(base).unwrap())) {
            prop_assert!(last[at(end * 20 - base)..].iter().all(|b| *b == 0));
        }
        drop(queue);
        let again = open(&config);
        again.recover().unwrap();
        prop_assert_eq!(super::queue(&again).max_offset().0, end);
    }
}
