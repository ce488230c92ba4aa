//! What a broker says of itself when it registers: REGISTER_BROKER's header and body.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::json;
use crate::remoting::Command;

/// How long a registration counts when the broker does not say.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(120);
/// The last protocol version whose body is the topics alone: 3.0.10.
const LAST_TOPICS_ONLY: i32 = 36;
/// Topics in one registration at most.
const MAX_TOPICS: usize = 1_000_000;

/// A counter that changes whenever a broker's topics do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct DataVersion {
    counter: i64,
    pub(super) state_version: i64,
    timestamp: i64,
}

/// A topic as its broker has it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TopicConfig {
    topic_name: Option<String>,
    pub(super) read_queue_nums: Option<i32>,
    pub(super) write_queue_nums: Option<i32>,
    pub(super) perm: Option<i32>,
    pub(super) topic_sys_flag: Option<i32>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Topics {
    data_version: Option<DataVersion>,
    topic_config_table: Option<BTreeMap<String, TopicConfig>>,
    topic_queue_mapping_info_map: Option<BTreeMap<String, Value>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RegisterBody {
    filter_server_list: Option<Vec<String>>,
    topic_config_serialize_wrapper: Option<Topics>,
}

/// One registration.
#[derive(Clone, Debug)]
pub(super) struct Registration {
    pub(super) cluster: String,
    pub(super) addr: String,
    pub(super) name: String,
    pub(super) id: i64,
    pub(super) ha_addr: String,
    pub(super) zone: Option<String>,
    pub(super) timeout: Duration,
    /// `None` from brokers that do not know the matter.
    pub(super) acting_master: Option<bool>,
    pub(super) version: DataVersion,
    pub(super) topics: BTreeMap<String, TopicConfig>,
    /// Static topics: topic to how its queues map.
    pub(super) mappings: BTreeMap<String, Value>,
    pub(super) filter_servers: Option<Vec<String>>,
}

impl Registration {
    /// Reads a registration; the error is fit for a remark.
    pub(super) fn read(request: &Command) -> Result<Self, String> {
        let fields = &request.fields;
        let text = |name| fields.text(name).map(str::to_owned).map_err(|e| e.to_string());
        let body = request.body.to_bytes();
        let stated_crc: i32 = fields.parse_or("bodyCrc32", 0).map_err(|e| e.to_string())?;
        // Java's checksum drops the sign bit.
        let crc = crc32fast::hash(&body) & 0x7fff_ffff;
        if stated_crc != 0 && u32::try_from(stated_crc) != Ok(crc) {
            return Err("crc32 not match".to_owned());
        }
        if fields.parse_or("compressed", false).map_err(|e| e.to_string())? {
            return Err("compressed registrations are not taken: set compressedRegister=false".to_owned());
        }
        let (topics, filter_servers) = read_body(request.version, &body)?;
        let timeout: Option<u64> = fields.optional("heartbeatTimeoutMillis").map_err(|e| e.to_string())?;
        let mut by_name = BTreeMap::new();
        for (key, topic) in topics.topic_config_table.unwrap_or_default() {
            by_name.insert(topic.topic_name.clone().unwrap_or(key), topic);
        }
        if by_name.len() > MAX_TOPICS {
            return Err(format!("a broker registers at most {MAX_TOPICS} topics"));
        }
        Ok(Self {
            cluster: text("clusterName")?,
            addr: text("brokerAddr")?,
            name: text("brokerName")?,
            id: fields.parse("brokerId").map_err(|e| e.to_string())?,
            ha_addr: fields.get("haServerAddr").unwrap_or_default().to_owned(),
            zone: fields.get("zoneName").map(str::to_owned),
            timeout: timeout.map_or(DEFAULT_TIMEOUT, Duration::from_millis),
            acting_master: fields.optional("enableActingMaster").map_err(|e| e.to_string())?,
            version: topics.data_version.unwrap_or_default(),
            topics: by_name,
            mappings: topics.topic_queue_mapping_info_map.unwrap_or_default(),
            filter_servers,
        })
    }
}

fn read_body(version: i32, body: &[u8]) -> Result<(Topics, Option<Vec<String>>), String> {
    if body.is_empty() {
        return Ok((Topics::default(), Some(Vec::new())));
    }
    if version <= LAST_TOPICS_ONLY {
        return Ok((json::read(body)?, None));
    }
    let body: RegisterBody = json::read(body)?;
    Ok((body.topic_config_serialize_wrapper.unwrap_or_default(), body.filter_server_list))
}
