//! The index of the stores that Java wrote answers what Java answers, and is written again byte for byte.

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

#[test]
fn indexes_of_java_answer_as_java_answers() {
    let (mut files, mut queries) = (0, 0);
    for golden in archive::unpack_all("written") {
        let index = open(&config_of(&golden));
        let lines = golden.expected_of("index");
        let lines: Vec<_> = lines.iter().filter(|line| line["stage"] == "load").collect();
        assert_eq!(index.files().len(), lines.len(), "{}", golden.name);
        for (number, (file, line)) in index.files().into_iter().zip(lines).enumerate() {
            let got = [
                file.begin_timestamp.0,
                file.end_timestamp.0,
                file.begin_offset.0,
                file.end_offset.0,
                i64::from(file.slot_count),
                i64::from(file.index_count),
                i64::try_from(file.file_size).unwrap(),
            ];
            let fields = [
                "beginTimestamp",
                "endTimestamp",
                "beginPhyOffset",
                "endPhyOffset",
                "hashSlotCount",
                "indexCount",
                "fileSize",
            ];
            assert_eq!(got, fields.map(|field| int(line, field)), "{}", golden.name);
            assert_eq!(file.name, line["name"].as_str().unwrap());
            assert_eq!(index.check(number), Soundness::Sound, "{} {}", golden.name, file.name);
            files += 1;
        }
        let min = int(&golden.expected_of("store")[0], "minPhyOffset");
        for line in golden.expected_of("query") {
            let max = usize::try_from(int(&line, "max")).unwrap();
            let time = ["begin", "end"].map(|field| StoreTimestamp(int(&line, field)));
            let text = |field: &str| line[field].as_str().unwrap_or_default();
            let hits =
                index.query(text("topic"), text("key"), line["indexType"].as_str(), max, time[0], time[1]);
            let mut got: Vec<_> =
                hits.offsets.iter().map(|offset| offset.0).filter(|at| *at >= min).collect();
            got.sort_unstable();
            let want: Vec<_> =
                line["phyOffsets"].as_array().unwrap().iter().map(|at| at.as_i64().unwrap()).collect();
            assert_eq!(got, want, "{}: {line}", golden.name);
            assert_eq!(hits.last_update_timestamp.0, int(&line, "indexLastUpdateTimestamp"), "{line}");
            assert_eq!(hits.last_update_offset.0, int(&line, "indexLastUpdatePhyoffset"), "{line}");
            queries += 1;
        }
    }
    assert!(files > 30 && queries > 2000, "{files} {queries}");
}

/// The keys of a record in the order that RocketMQ puts them.
fn keys_of(line: &Value) -> Vec<KeyPut> {
    if int(line, "sysFlag") & 0xC == 0xC {
        return Vec::new();
    }
    let topic = line["topic"].as_str().unwrap();
    let property = |name: &str| line["properties"][name].as_str();
    let unique = property("UNIQ_KEY").map(|key| index_key_hash(topic, None, key));
    let keys = property("KEYS").unwrap_or_default().split(' ').filter(|key| !key.is_empty());
    let tags =
        property("TAGS").filter(|tags| !tags.is_empty()).map(|tags| index_key_hash(topic, Some("T"), tags));
    let hashes = unique.into_iter().chain(keys.map(|key| index_key_hash(topic, None, key))).chain(tags);
    let (offset, time) =
        (PhysicalOffset(int(line, "phyOffset")), StoreTimestamp(int(line, "storeTimestamp")));
    hashes.map(|hash| KeyPut { hash, offset, store_timestamp: time }).collect()
}

#[test]
fn keys_put_again_make_the_files_of_java() {
    let mut files = 0;
    for golden in archive::unpack_all("written") {
        if golden.name == "retention"
            || golden.settings().get("messageIndexEnable").is_some_and(|on| on == "false")
        {
            continue; // Records are gone, or were never indexed.
        }
        let dir = TempDir::new().unwrap();
        let mut config = config_of(&golden);
        config.root = dir.path().to_path_buf();
        let index = open(&config);
        for line in golden.expected_of("record") {
            index.put(&keys_of(&line)).unwrap();
        }
        let theirs = golden.list("index");
        let ours = paths(&dir);
        assert_eq!(ours.len(), theirs.len(), "{}", golden.name);
        for (ours, theirs) in ours.iter().zip(theirs) {
            let want = std::fs::read(golden.path("index").join(&theirs)).unwrap();
            assert!(std::fs::read(ours).unwrap() == want, "{} {theirs}", golden.name);
            files += 1;
        }
    }
    assert!(files > 20, "{files}");
}
