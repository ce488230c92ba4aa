//! Index files that are not where they belong.

use std::fs;

use tempfile::TempDir;

use super::{SEGMENT, Written};
use crate::{store::Store, verify::verify};

/// Of a file that stands there twice, the copy may begin with keys of records before the log, which nobody misses, and end
/// with those of the log's first record, which look as if RocketMQ had put them again after a kill.
#[test]
fn a_copy_of_a_file_goes() {
    let first = Written::new(60).puts.iter().position(|put| put.at >= SEGMENT).unwrap();
    let mut written = Written { dir: TempDir::new().unwrap(), puts: Vec::new() };
    // Two keys a record: the first file ends with the first record of the second segment.
    let config = written.config().index_entries(u32::try_from(2 * (first + 1) + 1).unwrap());
    let store = Store::open(config.clone()).unwrap();
    for i in 0..60 {
        written.put(&store, ["a", "a", "b"][i % 3], [0, 1, 0][i % 3], &vec![b'x'; 20 + i * 37 % 400]);
    }
    store.close().unwrap();
    assert_eq!(written.puts[first].at, SEGMENT);

    let mut files: Vec<_> =
        fs::read_dir(written.path("index")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let name: u64 = files[0].file_name().unwrap().to_str().unwrap().parse().unwrap();
    fs::copy(&files[0], files[0].with_file_name((name - 1).to_string())).unwrap();
    fs::remove_file(written.path("commitlog/00000000000000000000")).unwrap();
    for _ in 0..2 {
        Store::open(config.clone()).unwrap().close().unwrap();
        let mut found = Vec::new();
        let summary = verify(config.clone(), &mut |finding| found.push(finding.to_string()), &mut |_| {});
        assert!(summary.unwrap().is_whole(), "{found:#?}");
    }
    let store = Store::open(config).unwrap();
    for put in &written.puts[first..] {
        assert_eq!(store.query(put.topic, &put.key).unwrap().len(), 1, "{}", put.key);
    }
    store.close().unwrap();
}
