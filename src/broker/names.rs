//! What topics, groups and clients may be called.
//!
//! Names enter here from the network and the config files; what passes can be a directory name, a key of
//! `consumerOffset.json` (`topic@group`) and a path component, and nothing else. Called by every table before it keeps
//! a name.

use crate::remoting::codes::response;

use super::Refusal;

/// The longest topic that a client may create.
pub(crate) const MAX_TOPIC: usize = 127;
/// The longest topic that the broker makes from a group.
pub(crate) const MAX_NAME: usize = 255;
/// The longest group that is made: a topic for retries of POP consumption can be named after it and any topic. Older
/// brokers made longer ones, which stay.
pub(crate) const MAX_NEW_GROUP: usize = 120;
/// Where messages wait for their next try: `%RETRY%group`.
pub(crate) const RETRY_PREFIX: &str = "%RETRY%";
/// Where messages end after their last try: `%DLQ%group`.
pub(crate) const DLQ_PREFIX: &str = "%DLQ%";
/// Light queues: `%LMQ%name`.
pub(crate) const LIGHT_PREFIX: &str = "%LMQ%";
/// The topic that automatically created ones inherit from.
pub(crate) const DEFAULT_TOPIC: &str = "TBW102";
/// Where delayed messages wait, one queue a level.
pub(crate) const SCHEDULE_TOPIC: &str = "SCHEDULE_TOPIC_XXXX";
/// Where the check points of POP consumption go, one topic a cluster.
pub(crate) const REVIVE_PREFIX: &str = "rmq_sys_REVIVE_LOG_";
/// The group that tells how far the check points are worked off.
pub(crate) const REVIVE_GROUP: &str = "CID_RMQ_SYS_REVIVE_GROUP";
/// Half messages of transactions.
pub(crate) const HALF_TOPIC: &str = "RMQ_SYS_TRANS_HALF_TOPIC";
/// Messages that wait for a time.
pub(crate) const TIMER_TOPIC: &str = "rmq_sys_wheel_timer";

/// What became of them.
pub(crate) const OP_HALF_TOPIC: &str = "RMQ_SYS_TRANS_OP_HALF_TOPIC";

/// Transactions that were given up.
pub(crate) const CHECK_MAX_TIME_TOPIC: &str = "TRANS_CHECK_MAX_TIME_TOPIC";
/// The group whose offsets say how far both are done.
pub(crate) const TRANSACTION_GROUP: &str = "CID_RMQ_SYS_TRANS";

/// Topics that no client may create, change or delete.
pub(crate) const SYSTEM_TOPICS: &[&str] = &[
    DEFAULT_TOPIC,
    SCHEDULE_TOPIC,
    "BenchmarkTest",
    HALF_TOPIC,
    OP_HALF_TOPIC,
    "RMQ_SYS_ROCKSDB_TRANS_HALF_TOPIC",
    "RMQ_SYS_ROCKSDB_TRANS_OP_HALF_TOPIC",
    "RMQ_SYS_TRACE_TOPIC",
    CHECK_MAX_TIME_TOPIC,
    "SELF_TEST_TOPIC",
    "OFFSET_MOVED_EVENT",
    "CHECKPOINT_TOPIC",
    TIMER_TOPIC,
];

/// `%RETRY%group`.
pub(crate) fn retry_topic(group: &str) -> String {
    format!("{RETRY_PREFIX}{group}")
}

/// `%DLQ%group`.
pub(crate) fn dlq_topic(group: &str) -> String {
    format!("{DLQ_PREFIX}{group}")
}

/// Where the messages of `topic` wait that `group` popped and did not acknowledge.
pub(crate) fn pop_retry_topic(topic: &str, group: &str) -> String {
    format!("{RETRY_PREFIX}{group}_{topic}")
}

/// [`pop_retry_topic`] with `enableRetryTopicV2`: topic and group can be told from it.
pub(crate) fn pop_retry_topic_v2(topic: &str, group: &str) -> String {
    format!("{RETRY_PREFIX}{group}+{topic}")
}

/// The topic whose messages go to `retry`, if that is a topic for the retries of POP consumption by `group`.
pub(crate) fn popped_topic<'a>(retry: &'a str, group: &str) -> Option<&'a str> {
    let rest = retry.strip_prefix(RETRY_PREFIX)?.strip_prefix(group)?;
    rest.strip_prefix(['_', '+'])
}

fn is_plain(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'%' | b'|' | b'_' | b'-'))
}

/// Whether `name` may be a topic at all: of a client, of the system, or made from a group.
pub(crate) fn is_topic(name: &str) -> bool {
    let made = [RETRY_PREFIX, DLQ_PREFIX, LIGHT_PREFIX].iter().any(|prefix| name.starts_with(prefix));
    let plain = match name.strip_prefix(RETRY_PREFIX).and_then(|rest| rest.split_once('+')) {
        Some((group, topic)) => !group.is_empty() && !topic.is_empty() && is_plain(group) && is_plain(topic),
        None => is_plain(name),
    };
    !name.is_empty() && name.len() <= (if made { MAX_NAME } else { MAX_TOPIC }) && plain
}

/// Whether a broker may have this name: clients that allocate queues by machine room take what stands before an `@` for
/// the room. A topic of that name is made only where [`is_topic`] allows it.
pub(crate) fn is_broker(name: &str) -> bool {
    let parts = |b: u8| matches!(b, b'@' | b'.' | b':');
    let fits = |b: u8| parts(b) || is_plain(&char::from(b).to_string());
    !name.is_empty() && name.len() <= MAX_TOPIC && !name.starts_with('.') && name.bytes().all(fits)
}

/// Whether `name` may be a consumer or producer group.
pub(crate) fn is_group(name: &str) -> bool {
    !name.is_empty() && name.len() <= MAX_NAME - RETRY_PREFIX.len() && is_plain(name)
}

/// Refuses what cannot be a topic.
pub(crate) fn check_topic(name: &str) -> Result<(), Refusal> {
    if is_topic(name) {
        return Ok(());
    }
    let why = if name.trim().is_empty() {
        "The specified topic is blank.".to_owned()
    } else if is_plain(name) && [RETRY_PREFIX, DLQ_PREFIX].iter().any(|prefix| name.starts_with(prefix)) {
        let name = shorten(name);
        format!(
            "The specified topic is DLQ or Retry topic: {name}, and it's longer than topic max length: {MAX_NAME}"
        )
    } else if is_plain(name) {
        format!("The specified topic: {}, is longer than topic max length: {MAX_TOPIC}", shorten(name))
    } else {
        let name = shorten(name);
        format!("The specified topic: {name}, contains illegal characters, allowing only ^[%|a-zA-Z0-9_-]+$")
    };
    Err(Refusal::new(response::INVALID_PARAMETER, why))
}

/// Refuses what cannot be a group.
pub(crate) fn check_group(name: &str) -> Result<(), Refusal> {
    if is_group(name) { Ok(()) } else { Err(no_group(name)) }
}

/// Refuses what cannot be a group that is made now.
pub(crate) fn check_new_group(name: &str) -> Result<(), Refusal> {
    if is_new_group(name) { Ok(()) } else { Err(no_group(name)) }
}

/// Whether `name` may be a group that is made now.
pub(crate) fn is_new_group(name: &str) -> bool {
    is_group(name) && name.len() <= MAX_NEW_GROUP
}

fn no_group(name: &str) -> Refusal {
    let shown = shorten(name);
    let why = if name.trim().is_empty() {
        "The specified group is blank.".to_owned()
    } else if is_plain(name) {
        format!("The specified group: {shown}, is longer than group max length: {MAX_NEW_GROUP}")
    } else {
        format!("The specified group: {shown}, contains illegal characters, allowing only ^[%|a-zA-Z0-9_-]+$")
    };
    Refusal::new(response::INVALID_PARAMETER, why)
}

/// A name from the network, cut for a remark.
pub(crate) fn shorten(name: &str) -> String {
    name.chars().take(512).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_is_a_path_or_splits_a_key() {
        for bad in
            ["", ".", "..", "a/b", "../x", "a\\b", "a@b", "a b", "a.b", "ü", "a\0", "a\n", &"x".repeat(128)]
        {
            assert!(!is_topic(bad), "{bad:?}");
        }
        assert!(!is_group("a@b") && !is_group("") && !is_group(&"x".repeat(249)));
        assert!(is_topic(&"x".repeat(127)) && is_topic("a|b-c_d%e") && is_group(&"g".repeat(248)));
        assert!(is_new_group(&"g".repeat(120)) && !is_new_group(&"g".repeat(121)) && !is_new_group("a@b"));
        for bad in ["a+b", "%DLQ%a+b", "%RETRY%+b", "%RETRY%a+", "%RETRY%a+b+c", "%RETRY%a+../b"] {
            assert!(!is_topic(bad), "{bad:?}");
        }
        assert!(is_topic(&pop_retry_topic("t", "g")) && is_topic(&pop_retry_topic_v2("t", "g")));
        assert!(is_topic(&retry_topic(&"g".repeat(248))) && !is_topic(&retry_topic(&"g".repeat(249))));
    }

    #[test]
    fn a_broker_may_name_its_room() {
        assert!(is_broker("room1@broker-a") && is_broker("broker-a.example:1") && is_broker("broker_a"));
        for bad in ["", ".", "..", "a/b", "../x", "a b", "a\\b", "ü", "a\n", &"x".repeat(128)] {
            assert!(!is_broker(bad), "{bad:?}");
        }
    }

    #[test]
    fn a_retry_topic_of_pop_names_the_topic_that_it_is_for() {
        for retry in [pop_retry_topic("a_t", "g_x"), pop_retry_topic_v2("a_t", "g_x")] {
            assert_eq!(popped_topic(&retry, "g_x"), Some("a_t"));
        }
        assert_eq!(popped_topic("%RETRY%g_x", "g_x"), None);
        assert_eq!(popped_topic("a_t", "g_x"), None);
    }
}
