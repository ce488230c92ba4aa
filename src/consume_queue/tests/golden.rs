//! Every queue of the stores that Java wrote answers what Java answers.

use std::collections::HashMap;

use serde_json::Value;

use super::*;
use crate::golden_stores as archive;

fn config_of(golden: &archive::Golden) -> Config {
    let mut config = Config::new(golden.store_dir());
    for (key, value) in golden.settings() {
        config.set(&key, &value).unwrap();
    }
    config
}

fn int(line: &Value, field: &str) -> i64 {
    line[field].as_i64().unwrap_or_else(|| panic!("{field} in {line}"))
}

fn queue_of(table: &QueueTable, line: &Value) -> Arc<Queue> {
    let id = QueueId(i32::try_from(int(line, "queueId")).unwrap());
    table.get(line["topic"].as_str().unwrap(), id).unwrap_or_else(|| panic!("{line}"))
}

fn check_entry(queue: &Queue, line: &Value) {
    let at = QueueOffset(int(line, "queueOffset"));
    let unit = queue.get(at).unwrap().unwrap_or_else(|| panic!("no entry: {line}"));
    let got = (unit.queue_offset.0, unit.offset.0, i64::from(unit.size), unit.tags_code.0);
    assert_eq!(got, (at.0, int(line, "phyOffset"), int(line, "size"), int(line, "tagsCode")), "{line}");
    assert_eq!(i64::from(unit.batch_num), int(line, "batchNum"), "{line}");
    match (line.get("ext"), unit.ext) {
        (None, None) => {}
        (Some(want), Some(ext)) => {
            assert_eq!(ext.tags_code.0, int(want, "tagsCode"));
            assert_eq!(ext.store_timestamp.0, int(want, "msgStoreTime"));
            let hex: String = ext.bitmap.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, want["bitMap"].as_str().unwrap_or_default());
        }
        (want, got) => panic!("{want:?} {got:?}"),
    }
}

#[test]
fn queues_of_java_read_as_java_reads_them() {
    let (mut entries, mut searches) = (0, 0);
    for golden in archive::unpack_all("written") {
        let table = open(&config_of(&golden));
        table.recover().unwrap();
        let store = golden.expected_of("store");
        let min_physical = PhysicalOffset(int(&store[0], "minPhyOffset"));
        for queue in table.queues() {
            queue.correct_min_offset(min_physical).unwrap();
        }
        let times: HashMap<i64, i64> = golden
            .expected_of("record")
            .iter()
            .map(|line| (int(line, "phyOffset"), int(line, "storeTimestamp")))
            .collect();
        let mut known = 0;
        for line in golden.expected_of("queue").iter().filter(|line| line["stage"] == "load") {
            let queue = queue_of(&table, line);
            let kind = if line["cqType"] == "BatchCQ" { QueueKind::Batch } else { QueueKind::Simple };
            assert_eq!(queue.kind(), kind);
            let (min, max, mut max_physical) = limits(&queue);
            if let Some(last) = queue.get(QueueOffset(max - 1)).unwrap().filter(|_| kind == QueueKind::Batch)
            {
                // RocketMQ says where the last record of a batch queue begins.
                max_physical -= i64::from(last.size);
            }
            let got = [min, max, queue.min_logic_offset(), max_physical];
            let want = ["minOffset", "maxOffset", "minLogicOffset", "maxPhysicOffset"].map(|f| int(line, f));
            assert_eq!(got, want, "{}: {line}", golden.name);
            known += 1;
        }
        assert_eq!(table.queues().len(), known, "{}", golden.name);
        for line in golden.expected_of("cq") {
            check_entry(&queue_of(&table, &line), &line);
            entries += 1;
        }
        for line in golden.expected_of("offsetByTime") {
            let queue = queue_of(&table, &line);
            for (field, boundary) in [("lower", Boundary::Lower), ("upper", Boundary::Upper)] {
                let at = StoreTimestamp(int(&line, "timestamp"));
                let time_of = |offset: PhysicalOffset| times.get(&offset.0).copied().map(StoreTimestamp);
                let got = queue.search_by_time(at, boundary, time_of).unwrap();
                assert_eq!(got.0, int(&line, field), "{} {field}: {line}", golden.name);
                searches += 1;
            }
        }
    }
    assert!(entries > 2000 && searches > 500, "{entries} {searches}");
}

#[test]
fn recovering_a_whole_store_of_java_changes_no_entry() {
    for golden in archive::unpack_all("written") {
        for kind in ["consumequeue", "consumequeue_ext", "batchconsumequeue"] {
            let bytes =
                || golden.queue_files(kind).into_iter().map(|(.., p)| (std::fs::read(&p).unwrap(), p));
            let before: Vec<_> = bytes().filter(|(bytes, _)| bytes.iter().any(|b| *b != 0)).collect();
            open(&config_of(&golden)).recover().unwrap();
            let after: Vec<_> = bytes().filter(|(bytes, _)| bytes.iter().any(|b| *b != 0)).collect();
            assert!(before == after, "{}", golden.name);
        }
    }
}

#[test]
fn entries_put_again_make_the_files_of_java() {
    let mut files = 0;
    for golden in archive::unpack_all("written") {
        if golden.name == "retention" {
            continue; // Its queues have lost files, so they cannot be put from the beginning.
        }
        let dir = TempDir::new().unwrap();
        let mut config = config_of(&golden);
        let theirs = open(&config);
        theirs.recover().unwrap();
        config.root = dir.path().to_path_buf();
        let ours = open(&config);
        let times: HashMap<i64, i64> = golden
            .expected_of("record")
            .iter()
            .map(|line| (int(line, "phyOffset"), int(line, "storeTimestamp")))
            .collect();
        for queue in theirs.queues() {
            let copy = ours.get_or_create(&queue.key().topic, queue.key().id, queue.kind());
            let mut at = QueueOffset::ZERO;
            while let Some(unit) = queue.get(at).unwrap() {
                at = unit.next();
                let bitmap = unit.ext.as_ref().map(|ext| ext.bitmap.clone());
                let record = Dispatch {
                    queue_offset: unit.queue_offset,
                    offset: unit.offset,
                    size: unit.size,
                    tags_code: unit.tags_code,
                    store_timestamp: StoreTimestamp(times[&unit.offset.0]),
                    batch_num: unit.batch_num,
                    bitmap: bitmap.as_deref(),
                };
                assert_eq!(copy.append(&record).unwrap(), Appended::Done);
            }
        }
        ours.write_out().unwrap();
        for kind in ["consumequeue", "consumequeue_ext", "batchconsumequeue"] {
            for (topic, id, path) in golden.queue_files(kind) {
                let want = std::fs::read(&path).unwrap();
                let same =
                    dir.path().join(kind).join(topic).join(id.to_string()).join(path.file_name().unwrap());
                let got = std::fs::read(&same).unwrap_or_else(|_| vec![0; want.len()]);
                assert!(got == want, "{}: {}", golden.name, path.display());
                files += 1;
            }
        }
    }
    assert!(files > 50, "{files}");
}
