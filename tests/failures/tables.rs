//! Failures 35 and 36: the broker's tables beside the store.

use std::{fs, path::Path, sync::Arc, time::Duration};

use reput::{
    broker::{self, BrokerConfig, Running},
    remoting::{Client, Command, codes::request},
    vfs::OsVfs,
};

use crate::rig::{self, Rig, SEGMENT};

const OFFSETS: &str = "{\n\t\"offsetTable\":{\n\t\t\"TopicA@group\":{0:7}\n\t}\n}";

/// The offset that a broker over the store in `dir` has of the group, if any.
fn offset(dir: &Path) -> Option<i64> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let mut config = BrokerConfig::new(rig::config(dir).commit_log_file_size(SEGMENT as u64));
        let running = loop {
            let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            config.port = free;
            if let Ok(running) = Running::start(config.clone()).await {
                break running;
            }
        };
        let client = Client::connect(("127.0.0.1", config.port)).await.unwrap();
        let ask = Command::request(request::QUERY_CONSUMER_OFFSET)
            .with_field("consumerGroup", "group")
            .with_field("topic", "TopicA")
            .with_field("queueId", 0);
        let answer = client.call(ask, Duration::from_secs(30)).await.unwrap();
        running.stop().await.unwrap();
        answer.fields.get("offset").and_then(|text| text.parse().ok())
    })
}

fn with_offsets(text: &str, bak: Option<&str>) -> Rig {
    let rig = Rig::closed();
    fs::create_dir_all(rig.path("config")).unwrap();
    fs::write(
        rig.path("config/topics.json"),
        "{\"topicConfigTable\":{\"TopicA\":{\"topicName\":\"TopicA\"}}}",
    )
    .unwrap();
    fs::write(rig.path("config/consumerOffset.json"), text).unwrap();
    if let Some(bak) = bak {
        fs::write(rig.path("config/consumerOffset.json.bak"), bak).unwrap();
    }
    rig
}

/// Row 35: A config file is torn: Java writes in place, and deletes what it cannot read. Here it is set aside, its `.bak` is
/// taken, and the file is written by rename.
#[test]
fn failure_35_a_torn_config_file_is_set_aside_and_its_backup_taken() {
    let torn = &OFFSETS[..OFFSETS.len() / 2];
    let rig = with_offsets(torn, Some(OFFSETS));
    assert_eq!(broker::unreadable_tables(&OsVfs, &rig.path("config")).unwrap().len(), 1);
    assert_eq!(offset(rig.dir.path()), Some(7));
    assert_eq!(fs::read_to_string(rig.path("config/consumerOffset.json.damaged-1")).unwrap(), torn);

    // Repair does the same without a broker.
    let rig = with_offsets(torn, Some(OFFSETS));
    broker::mend_tables(&(Arc::new(OsVfs) as _), &rig.path("config")).unwrap();
    assert_eq!(fs::read_to_string(rig.path("config/consumerOffset.json")).unwrap(), OFFSETS);
    assert_eq!(fs::read_to_string(rig.path("config/consumerOffset.json.damaged-1")).unwrap(), torn);
    assert_eq!(broker::unreadable_tables(&OsVfs, &rig.path("config")).unwrap(), []);
    assert_eq!(offset(rig.dir.path()), Some(7));
}

/// Row 36: The log lost its tail and a group's offset lies behind the end of its queue: Java lets it stand, and skips what
/// is put below it. It is taken back to the end.
#[test]
fn failure_36_an_offset_behind_the_end_of_its_queue_is_taken_back() {
    let rig = with_offsets(&OFFSETS.replace('7', "300"), None);
    let first = rig.puts[290];
    rig.patch(first.at, &vec![0; SEGMENT - first.at % SEGMENT]);
    assert_eq!(offset(rig.dir.path()), Some(290));
}

/// The log lies on a disk that is not mounted: every offset is taken back to nothing. What they were is kept.
#[test]
fn offsets_into_a_missing_log_are_kept() {
    let rig = with_offsets(OFFSETS, None);
    fs::rename(rig.path("commitlog"), rig.path("elsewhere")).unwrap();
    for _ in 0..2 {
        assert_eq!(offset(rig.dir.path()), Some(0));
        assert_eq!(fs::read_to_string(rig.path("quarantine/config/consumerOffset.json")).unwrap(), OFFSETS);
        assert!(!rig.path("quarantine/config/consumerOffset.json-2").exists());
    }
}
