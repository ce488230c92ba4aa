//! GET_BROKER_CONFIG 26 and UPDATE_BROKER_CONFIG 25: the broker's settings, seen and changed while it runs.
//!
//! Owns how often they changed. What may change is [`CHANGEABLE`]; it holds at once, and for the next start it is
//! written into the file that the broker was started with, whose other lines stay as they are; its content before is
//! kept as `<name>.bak`. Called by operators' tools.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;

use super::{
    Broker, BrokerConfig, Refusal, Route, config_file::DataVersion, live::CHANGEABLE, names,
    topics::TopicConfig,
};
use crate::{
    config::parse_properties,
    error::{Error, Result},
    remoting::{
        Command, Connection,
        codes::{request, response},
    },
    types::StoreTimestamp,
    vfs::Vfs,
};

/// A file of settings larger than this is not written again.
const MAX_FILE: u64 = 1 << 20;

/// How often the settings were changed.
#[derive(Debug)]
pub(crate) struct Settings {
    version: Mutex<DataVersion>,
}

impl Settings {
    pub(crate) fn new(now: StoreTimestamp) -> Self {
        Self { version: Mutex::new(DataVersion::new(now.get())) }
    }
}

/// Writes what was changed into the file of settings.
fn keep(vfs: &dyn Vfs, file: &Path, changed: &[(String, String)]) -> Result<()> {
    let bytes = vfs.read(file, MAX_FILE).map_err(Error::io("read", file))?.unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let mut bak = file.as_os_str().to_owned();
    bak.push(".bak");
    let bak = PathBuf::from(bak);
    vfs.replace(&bak, &bytes).map_err(Error::io("replace", bak))?;
    let text = with_values(&text, changed);
    vfs.replace(file, text.as_bytes()).map_err(Error::io("replace", file))
}

/// The text of a properties file with other values: in the place of the old ones, or at its end.
fn with_values(text: &str, changed: &[(String, String)]) -> String {
    let mut out = String::new();
    let mut missing: Vec<_> = changed.iter().collect();
    let mut rest = text;
    while !rest.is_empty() {
        let mut end = line_end(rest, 0);
        // A comment is one line; a pair goes on behind a backslash.
        if !rest.trim_start().starts_with(['#', '!']) {
            while goes_on(&rest[..end]) && end < rest.len() {
                end = line_end(rest, end);
            }
        }
        let (lines, behind) = rest.split_at(end);
        let key = parse_properties(lines).pop().map(|(key, _)| key);
        match changed.iter().find(|(name, _)| key.as_ref() == Some(name)) {
            Some((name, value)) => {
                push_pair(&mut out, name, value);
                missing.retain(|(other, _)| other != name);
            }
            None => out.push_str(lines),
        }
        rest = behind;
    }
    if !out.is_empty() && !out.ends_with('\n') {
        out.push('\n');
    }
    missing.into_iter().for_each(|(name, value)| push_pair(&mut out, name, value));
    out
}

fn line_end(text: &str, from: usize) -> usize {
    text[from..].find('\n').map_or(text.len(), |at| from + at + 1)
}

fn goes_on(lines: &str) -> bool {
    let line = lines.trim_end_matches(['\n', '\r']);
    line.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1
}

fn push_pair(out: &mut String, name: &str, value: &str) {
    out.push_str(name);
    out.push('=');
    out.push_str(&value.replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r"));
    out.push('\n');
}

/// The codes that this file answers.
pub(super) const ROUTES: &[(i32, Route)] = &[
    (request::GET_BROKER_CONFIG, Route::Answer(get)),
    (request::UPDATE_BROKER_CONFIG, Route::Aside(update)),
];

fn get(broker: &Arc<Broker>, _: &Arc<Connection>, cmd: &Command) -> Result<Command, Refusal> {
    let version = broker.settings.version.lock().to_json().compact();
    let text = broker.live.merged(&broker.config).properties();
    Ok(cmd.reply(response::SUCCESS).with_field("version", version).with_body(text))
}

fn update(broker: &Arc<Broker>, _: &Arc<Connection>, cmd: &Command) -> Result<Command, Refusal> {
    let bytes = cmd.body.to_bytes();
    let text = std::str::from_utf8(&bytes)
        .map_err(|_| Refusal::new(response::SYSTEM_ERROR, "the body is no text"))?;
    let mut version = broker.settings.version.lock();
    let before = broker.live.merged(&broker.config);
    let (after, changed) = changed(before.clone(), text)?;
    broker.store.set_retention(&after.store)?;
    broker.live.apply(&after);
    version.step(broker.clock.now().get());
    tracing::info!(?changed, "settings changed by request");
    let kept = match &broker.config.file {
        _ if changed.is_empty() => None,
        Some(file) => keep(&*broker.vfs, file, &changed).err().map(|error| error.to_string()),
        None => Some("the broker was started without a file of settings".to_owned()),
    };
    if before.default_topic_queues != after.default_topic_queues {
        resize_default_topic(broker, after.default_topic_queues);
    }
    if before.permission != after.permission {
        drop(broker.register.all());
    }
    let Some(why) = kept else { return Ok(cmd.reply(response::SUCCESS)) };
    tracing::warn!(why, "the changed settings hold until the next start");
    Ok(cmd.reply(response::SUCCESS).with_remark(format!("holds until the next start: {why}")))
}

/// The settings with those of a properties text, and which they are; all of them or none.
fn changed(mut config: BrokerConfig, text: &str) -> Result<(BrokerConfig, Vec<(String, String)>), Refusal> {
    let unusable = |error: Error| Refusal::new(response::INVALID_PARAMETER, error.to_string());
    let mut changed: Vec<(String, String)> = Vec::new();
    for (key, value) in parse_properties(text) {
        if !CHANGEABLE.contains(&key.as_str()) {
            let why = format!(
                "{} cannot change while the broker runs; these can: {}",
                names::shorten(&key),
                CHANGEABLE.join(", ")
            );
            return Err(Refusal::new(response::NO_PERMISSION, why));
        }
        config.set(&key, value.trim()).map_err(unusable)?;
        changed.retain(|(other, _)| *other != key);
        changed.push((key, value.trim().to_owned()));
    }
    config.validate().map_err(unusable)?;
    Ok((config, changed))
}

/// The topic that automatically created ones inherit from bounds their queues.
fn resize_default_topic(broker: &Broker, queues: i32) {
    if let Some(topic) = broker.topics.get(names::DEFAULT_TOPIC) {
        drop(broker.put_topic(TopicConfig { read_queues: queues, write_queues: queues, ..(*topic).clone() }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
        of.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_changed_value_stands_in_the_place_of_the_old_and_all_else_stays() {
        let text = "# traceOn=false is a comment \\\nbrokerName = b\r\n\n  traceOn : true\nstrange=a\\\n  b\n\
            fileReservedTime=4\\\n  8\nfileReservedTime=24\nlast=1";
        let changed = pairs(&[("traceOn", "false"), ("deleteWhen", "03"), ("fileReservedTime", "12")]);
        let want = "# traceOn=false is a comment \\\nbrokerName = b\r\n\ntraceOn=false\nstrange=a\\\n  b\n\
            fileReservedTime=12\nfileReservedTime=12\nlast=1\ndeleteWhen=03\n";
        let got = with_values(text, &changed);
        assert_eq!(got, want);
        assert_eq!(with_values(&got, &changed), want);
        assert_eq!(with_values("", &changed[..1]), "traceOn=false\n");
        let odd = pairs(&[("deleteWhen", "04;\nlistenPort=1\\")]);
        let text = with_values("", &odd);
        assert_eq!((parse_properties(&text), text.lines().count()), (odd, 1));
    }

    #[test]
    fn one_bad_key_or_value_leaves_all_as_they_were() {
        let config = || BrokerConfig::new(crate::Config::new("/x"));
        let (after, list) =
            changed(config(), "transactionTimeOut=7000\ntransactionTimeOut=8000\ndeleteWhen=03").unwrap();
        assert_eq!((after.transaction_timeout_ms, after.store.delete_when.as_str()), (8_000, "03"));
        assert_eq!(list, pairs(&[("transactionTimeOut", "8000"), ("deleteWhen", "03")]));
        for (text, code) in [
            ("traceOn=false\ndeleteWhen=25", response::INVALID_PARAMETER),
            ("traceOn=false\nfileReservedTime=soon", response::INVALID_PARAMETER),
            ("traceOn=false\nlistenPort=1", response::NO_PERMISSION),
        ] {
            assert_eq!(changed(config(), text).unwrap_err().code, code, "{text}");
        }
    }
}
