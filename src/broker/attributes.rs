//! Attributes of topics and groups: how a request changes them, and which ones a topic can have.
//!
//! Pure. A change is text, `+name=value` or `-name`, several separated by commas. What breaks a rule is refused whole,
//! with the code that RocketMQ gives it.

use std::collections::{BTreeMap, BTreeSet};

use super::{Refusal, names};
use crate::remoting::codes::response;

/// What a topic's attribute may be.
struct Known {
    name: &'static str,
    allowed: Allowed,
    /// Whether it may change once the topic is there.
    changeable: bool,
}

enum Allowed {
    Words(&'static [&'static str]),
    /// Whole numbers from -1 to this one.
    UpTo(i64),
}

/// The attributes of topics. `message.type` says what the topic is for; the gRPC proxy refuses other messages, a broker
/// takes them all, as RocketMQ's does. What RocketMQ knows and this broker cannot serve is no value here: topics of type
/// LITE, and compaction.
const OF_TOPICS: [Known; 5] = [
    Known { name: "queue.type", allowed: Allowed::Words(&["BatchCQ", "SimpleCQ"]), changeable: false },
    // COMPACTION would need a log of its own beside the commit log.
    Known { name: "cleanup.policy", allowed: Allowed::Words(&["DELETE"]), changeable: false },
    Known {
        name: MESSAGE_TYPE,
        allowed: Allowed::Words(&[
            "UNSPECIFIED",
            "NORMAL",
            "FIFO",
            "DELAY",
            "TRANSACTION",
            "PRIORITY",
            MIXED,
        ]),
        changeable: true,
    },
    Known { name: "reserve.time", allowed: Allowed::UpTo(i64::MAX), changeable: true },
    Known { name: "lite.topic.expiration", allowed: Allowed::UpTo(30 * 24 * 60), changeable: true },
];
const MESSAGE_TYPE: &str = "message.type";
/// The type of topics that take every message; off in RocketMQ's default configuration, too.
const MIXED: &str = "MIXED";

fn refused(why: String) -> Refusal {
    Refusal::new(response::SYSTEM_ERROR, why)
}

/// A change of one attribute: `Some` sets it, `None` takes it away.
type Change<'a> = (&'a str, Option<&'a str>);

/// The changes that the attributes of a body stand for, whose names have the sign: `+name` or `-name`.
pub(super) fn changes(attributes: &BTreeMap<String, String>) -> String {
    let change = |(name, value): (&String, &String)| {
        if name.starts_with('-') { name.clone() } else { format!("{name}={value}") }
    };
    attributes.iter().map(change).collect::<Vec<_>>().join(",")
}

fn parse(text: &str) -> Result<Vec<Change<'_>>, Refusal> {
    let mut changes: Vec<Change<'_>> = Vec::new();
    let mut seen = BTreeSet::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let shown = names::shorten(part);
        let change = match part.split_at_checked(1) {
            Some(("+", rest)) => rest.split_once('=').map(|(name, value)| (name.trim(), Some(value.trim()))),
            Some(("-", name)) => Some((name.trim(), None)),
            _ => None,
        };
        let (name, value) = change
            .filter(|(name, _)| !name.is_empty() && !name.contains(['+', '-']))
            .ok_or_else(|| refused(format!("attribute {shown:?}: needed is +name=value or -name")))?;
        if !seen.insert(name) {
            return Err(refused(format!("attribute {:?} is changed twice", names::shorten(name))));
        }
        changes.push((name, value));
    }
    Ok(changes)
}

fn applied(
    old: Option<&BTreeMap<String, String>>,
    changes: &[Change<'_>],
) -> Result<BTreeMap<String, String>, Refusal> {
    let mut attributes = old.cloned().unwrap_or_default();
    for (name, value) in changes {
        match value {
            Some(value) => drop(attributes.insert((*name).to_owned(), (*value).to_owned())),
            None if attributes.remove(*name).is_some() => {}
            None => {
                let why = format!("there is no attribute {:?} to take away", names::shorten(name));
                return Err(refused(why));
            }
        }
    }
    Ok(attributes)
}

/// Applies the changes in `text` to a group's attributes; `old` is `None` when the group is new.
pub(super) fn of_group(
    old: Option<&BTreeMap<String, String>>,
    text: &str,
) -> Result<BTreeMap<String, String>, Refusal> {
    applied(old, &parse(text)?)
}

/// Applies the changes in `text` to a topic's attributes; `old` is `None` when the topic is new.
pub(super) fn of_topic(
    old: Option<&BTreeMap<String, String>>,
    text: &str,
) -> Result<BTreeMap<String, String>, Refusal> {
    let changes = parse(text)?;
    if changes.contains(&(MESSAGE_TYPE, Some(MIXED))) {
        return Err(Refusal::new(response::INVALID_PARAMETER, "MIXED message type is not supported."));
    }
    for (name, value) in &changes {
        let known = OF_TOPICS
            .iter()
            .find(|known| known.name == *name)
            .ok_or_else(|| refused(format!("unsupported key: {}", names::shorten(name))))?;
        if old.is_some() && !known.changeable {
            return Err(refused(format!("the attribute {name} of a topic cannot change")));
        }
        if let Some(value) = value {
            known.check(value)?;
        }
    }
    applied(old, &changes)
}

impl Known {
    fn check(&self, value: &str) -> Result<(), Refusal> {
        let (fits, allowed) = match &self.allowed {
            Allowed::Words(words) => (words.contains(&value), words.join(", ")),
            Allowed::UpTo(max) => {
                (value.parse().is_ok_and(|number: i64| (-1..=*max).contains(&number)), format!("-1 to {max}"))
            }
        };
        if fits {
            return Ok(());
        }
        Err(refused(format!("{}={:?}: allowed is {allowed}", self.name, names::shorten(value))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_added_and_taken_away() {
        let new = of_topic(None, "+message.type=DELAY, +reserve.time=-1").unwrap();
        assert_eq!(new.get("message.type").map(String::as_str), Some("DELAY"));
        let next = of_topic(Some(&new), "-reserve.time,+message.type=FIFO").unwrap();
        assert_eq!(next, BTreeMap::from([("message.type".into(), "FIFO".into())]));
        assert_eq!(of_topic(Some(&next), "").unwrap(), next);
        let of = of_group(None, "+a=1,+b=").unwrap();
        assert_eq!(of_group(Some(&of), "-b").unwrap(), BTreeMap::from([("a".into(), "1".into())]));
    }

    #[test]
    fn what_is_no_attribute_or_no_value_of_it_is_refused_with_rocketmq_s_code() {
        let old = BTreeMap::from([("queue.type".to_owned(), "SimpleCQ".to_owned())]);
        for (old, text, code) in [
            (None, "message.type=DELAY", response::SYSTEM_ERROR),
            (None, "+message.type", response::SYSTEM_ERROR),
            (None, "+=y", response::SYSTEM_ERROR),
            (None, "-", response::SYSTEM_ERROR),
            (None, "+colour=red", response::SYSTEM_ERROR),
            (None, "+message.type=delay", response::SYSTEM_ERROR),
            (None, "+message.type=MIXED", response::INVALID_PARAMETER),
            (None, "+message.type=FIFO,+message.type=DELAY", response::SYSTEM_ERROR),
            (None, "-message.type", response::SYSTEM_ERROR),
            (None, "+reserve.time=-2", response::SYSTEM_ERROR),
            (None, "+lite.topic.expiration=43201", response::SYSTEM_ERROR),
            (None, "+cleanup.policy=COMPACTION", response::SYSTEM_ERROR),
            (None, "+message.type=LITE", response::SYSTEM_ERROR),
            (Some(&old), "+queue.type=BatchCQ", response::SYSTEM_ERROR),
            (Some(&old), "-reserve.time", response::SYSTEM_ERROR),
        ] {
            assert_eq!(of_topic(old, text).unwrap_err().code, code, "{text}");
        }
    }
}
