//! What a send says in its header, under long names (codes 10 and 324) or one letter each (310, 320 and 325).

use crate::remoting::{Command, FieldError, codes::request};

/// The header of a send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SendHeader<'a> {
    pub(super) producer_group: &'a str,
    pub(super) topic: &'a str,
    /// The topic whose settings a new topic inherits.
    pub(super) default_topic: &'a str,
    /// Queues that a new topic shall have.
    pub(super) default_queues: i32,
    /// Below 0: the broker chooses.
    pub(super) queue_id: i32,
    pub(super) sys_flag: i32,
    pub(super) born_timestamp: i64,
    pub(super) flag: i32,
    pub(super) properties: &'a str,
    pub(super) reconsume_times: i32,
    pub(super) unit_mode: bool,
    pub(super) max_reconsume_times: Option<i32>,
    /// The body is several messages.
    pub(super) batch: bool,
}

/// Field names in the order of [`SendHeader`].
const LONG: [&str; 13] = [
    "producerGroup",
    "topic",
    "defaultTopic",
    "defaultTopicQueueNums",
    "queueId",
    "sysFlag",
    "bornTimestamp",
    "flag",
    "properties",
    "reconsumeTimes",
    "unitMode",
    "maxReconsumeTimes",
    "batch",
];
const SHORT: [&str; 13] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m"];

impl<'a> SendHeader<'a> {
    /// Reads the header of any of these codes.
    pub(super) fn read(command: &'a Command) -> Result<Self, FieldError> {
        let fields = &command.fields;
        let long = matches!(command.code, request::SEND_MESSAGE | request::SEND_REPLY_MESSAGE);
        let n = if long { LONG } else { SHORT };
        Ok(Self {
            producer_group: fields.text(n[0])?,
            topic: fields.text(n[1])?,
            default_topic: fields.get(n[2]).unwrap_or(""),
            default_queues: fields.parse_or(n[3], 0)?,
            queue_id: fields.parse(n[4])?,
            sys_flag: fields.parse(n[5])?,
            born_timestamp: fields.parse(n[6])?,
            flag: fields.parse(n[7])?,
            properties: fields.get(n[8]).unwrap_or(""),
            reconsume_times: fields.parse_or(n[9], 0)?,
            unit_mode: fields.parse_or(n[10], false)?,
            max_reconsume_times: fields.optional(n[11])?,
            batch: fields.parse_or(n[12], false)? || command.code == request::SEND_BATCH_MESSAGE,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_and_short_names_say_the_same() {
        let values =
            ["p", "t", "TBW102", "4", "-1", "1", "99", "7", "a\u{1}b\u{2}", "2", "true", "16", "false"];
        let command = |code, names: [&str; 13]| {
            names
                .iter()
                .zip(values)
                .fold(Command::request(code), |c, (name, value)| c.with_field(name, value))
        };
        let long = command(request::SEND_MESSAGE, LONG);
        let short = command(request::SEND_MESSAGE_V2, SHORT);
        let header = SendHeader::read(&long).unwrap();
        assert_eq!(header, SendHeader::read(&short).unwrap());
        assert_eq!((header.topic, header.queue_id, header.born_timestamp), ("t", -1, 99));
        assert_eq!((header.unit_mode, header.max_reconsume_times, header.batch), (true, Some(16), false));
    }

    #[test]
    fn what_clients_leave_out_has_a_default_and_what_they_need_has_none() {
        let needed = [("a", "p"), ("b", "t"), ("e", "0"), ("f", "0"), ("g", "1"), ("h", "0")];
        let mut command = Command::request(request::SEND_MESSAGE_V2);
        for (name, value) in needed {
            command.fields.set(name, value);
        }
        let header = SendHeader::read(&command).unwrap();
        assert_eq!((header.reconsume_times, header.max_reconsume_times, header.properties), (0, None, ""));
        for (name, _) in needed {
            let mut lacking = command.clone();
            lacking.fields.remove(name);
            assert!(SendHeader::read(&lacking).is_err(), "{name}");
        }
        command.code = request::SEND_BATCH_MESSAGE;
        assert!(SendHeader::read(&command).unwrap().batch);
    }
}
