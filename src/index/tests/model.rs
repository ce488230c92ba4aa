//! Random histories of an index against a list of what was put.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    /// Records with so many keys each.
    Put(Vec<u8>),
    Again(u8),
    Cut(u8),
    Drop(u8),
    Reopen,
    /// Changes a byte of a file: which, where, how.
    Damage(u8, u16, u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => prop::collection::vec(0..5u8, 1..8).prop_map(Step::Put),
        1 => (0..9u8).prop_map(Step::Again),
        1 => (0..20u8).prop_map(Step::Cut),
        1 => (0..30u8).prop_map(Step::Drop),
        1 => Just(Step::Reopen),
        1 => (any::<u8>(), any::<u16>(), 1..=255u8).prop_map(|(f, at, x)| Step::Damage(f, at, x)),
    ]
}

fn key(n: i64) -> String {
    format!("k{}", n % 11)
}

fn check(index: &IndexSet, all: &[KeyPut]) {
    assert!(sound(index));
    assert_eq!(index.end_offset(), all.last().map(|put| put.offset));
    for n in 0..11 {
        let hash = index_key_hash("t", None, &key(n));
        let want: Vec<_> =
            all.iter().rev().filter(|put| put.hash == hash).map(|put| put.offset.0).take(64).collect();
        assert_eq!(query(index, &key(n)), want, "{}", key(n));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn an_index_answers_what_a_list_would_answer(steps in prop::collection::vec(step(), 1..30)) {
        let dir = TempDir::new().unwrap();
        let config = config(dir.path());
        let mut index = open(&config);
        let mut all: Vec<KeyPut> = Vec::new();
        let mut next = 0;
        for step in steps {
            match step {
                Step::Put(records) => {
                    let mut keys = Vec::new();
                    for count in records {
                        next += 1;
                        keys.extend((0..i64::from(count)).map(|i| put(&key(next * 7 + i * i), next * 10, next * 300)));
                    }
                    index.put(&keys).unwrap();
                    all.extend(keys);
                }
                Step::Again(back) => {
                    let from = all.len().saturating_sub(usize::from(back));
                    let at = all.get(from).map(|put| put.offset);
                    let from = all.partition_point(|put| Some(put.offset) < at);
                    index.put(&all[from..]).unwrap();
                }
                Step::Cut(back) => {
                    let at = PhysicalOffset((next - i64::from(back)) * 10);
                    index.truncate_from(at).unwrap();
                    all.retain(|put| put.offset < at);
                }
                Step::Drop(back) => {
                    let before = index.files().len();
                    let gone = index.delete_before(PhysicalOffset((next - i64::from(back)) * 10)).unwrap();
                    prop_assert!(gone == 0 || gone < before);
                    // Files hold nine keys each, but for the last and after a cut: count what is left.
                    let left: u32 = index.files().iter().map(|file| file.index_count - 1).sum();
                    all.drain(..all.len() - usize::try_from(left).unwrap());
                }
                Step::Reopen => index = open(&config),
                Step::Damage(file, at, xor) => {
                    drop(index);
                    let paths = paths(&dir);
                    if let Some(path) = paths.get(usize::from(file) % paths.len().max(1)) {
                        let mut bytes = std::fs::read(path).unwrap();
                        // Times and hashes cannot be told from good ones without the log: leave them.
                        let at = 16 + usize::from(at) % (bytes.len() - 16);
                        let field = at.checked_sub(68).map(|at| at % 20);
                        let told = field.is_none_or(|field| field >= 16);
                        if told {
                            bytes[at] ^= xor;
                            std::fs::write(path, bytes).unwrap();
                        }
                    }
                    index = open(&config);
                    while let Some(bad) = (0..index.files().len()).find(|n| index.check(*n) != Soundness::Sound) {
                        index.repair(bad).unwrap();
                    }
                    // Everything behind the end is put again, as recovery does.
                    let first = all.first().map(|put| put.offset);
                    let end = index.end_offset();
                    if end.is_none() || end >= first {
                        index.put(&all).unwrap();
                    }
                }
            }
            check(&index, &all);
        }
    }
}
