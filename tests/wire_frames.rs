//! The frame codec against frames of RocketMQ 5.5.0 (`frames/`), against random commands, and against hostile bytes.
#![cfg(feature = "broker")]
#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

use std::{fs, path::Path};

use bytes::{Bytes, BytesMut};
use proptest::{collection::vec, prelude::*};
use reput::remoting::{
    Body, Command, Encoding, Language,
    frame::{self, FrameError, MAX_FIELDS},
};
use serde_json::Value;

const MAX_FRAME: usize = 16 << 20;

struct Recorded {
    place: String,
    line: Value,
    bytes: Vec<u8>,
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn recorded() -> Vec<Recorded> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/frames");
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "jsonl") {
            continue;
        }
        for (number, text) in fs::read_to_string(&path).unwrap().lines().enumerate() {
            let line: Value = serde_json::from_str(text).unwrap();
            if line["kind"] == "ha" {
                continue;
            }
            let bytes = hex(line["hex"].as_str().unwrap());
            all.push(Recorded { place: format!("{}:{}", path.display(), number + 1), line, bytes });
        }
    }
    assert_eq!(all.len(), 277, "all recorded frames are there");
    all
}

fn decode(bytes: &[u8]) -> Result<Option<Command>, FrameError> {
    frame::decode(&mut BytesMut::from(bytes), MAX_FRAME)
}

fn encode(command: Command) -> Vec<u8> {
    let (pieces, len) = frame::encode(command).unwrap();
    let bytes = pieces.concat();
    assert_eq!(bytes.len(), len);
    bytes
}

fn as_text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[test]
fn every_recorded_frame_decodes_to_its_recorded_header() {
    for Recorded { place, line, bytes } in recorded() {
        let command = decode(&bytes).unwrap().unwrap();
        let number = |key: &str| i32::try_from(line[key].as_i64().unwrap()).unwrap();
        assert_eq!(command.code, number("code"), "{place}");
        assert_eq!(command.flag, number("flag"), "{place}");
        assert_eq!(command.opaque, number("opaque"), "{place}");
        assert_eq!(command.version, number("version"), "{place}");
        assert_eq!(Some(command.body.len() as u64), line["body_len"].as_u64(), "{place}");
        assert!(bytes.ends_with(&command.body.to_bytes()), "{place}");
        let (encoding, language) = match line["ser"].as_str().unwrap() {
            "JSON" => (Encoding::Json, Language::from_name(line["lang"].as_str().unwrap())),
            _ => (Encoding::RocketMq, Language::from_number(line["lang"].as_str().unwrap().parse().unwrap())),
        };
        assert_eq!((command.encoding, command.language), (encoding, language), "{place}");
        // The recorder left numbers out of `ext` and empty remarks out; the header's own text has them.
        let header = line["header_json"].as_str().map(|text| serde_json::from_str::<Value>(text).unwrap());
        let remark = header.as_ref().map_or(&line["remark"], |header| &header["remark"]);
        assert_eq!(command.remark.as_deref(), remark.as_str(), "{place}");
        let fields = header.as_ref().map_or(&line["ext"], |header| &header["extFields"]);
        let fields = fields.as_object().cloned().unwrap_or_default();
        assert_eq!(command.fields.len(), fields.len(), "{place}");
        for (name, value) in &fields {
            assert_eq!(command.fields.get(name), Some(as_text(value).as_str()), "{place} {name}");
        }
    }
}

#[test]
fn every_recorded_frame_encodes_to_the_same_command_and_javas_to_the_same_bytes() {
    let mut same_bytes = 0;
    for Recorded { place, line, bytes } in recorded() {
        let command = decode(&bytes).unwrap().unwrap();
        let again = encode(command.clone());
        assert_eq!(decode(&again).unwrap().unwrap(), command, "{place}");
        // Java writes an empty object where a response could have fields and has none; we leave it out.
        let empty_fields = line["header_json"].as_str().is_some_and(|text| text.contains("\"extFields\":{}"));
        if command.version == 513 && !empty_fields {
            assert_eq!(again, bytes, "{place}");
            same_bytes += 1;
        }
    }
    assert!(same_bytes > 200, "{same_bytes}");
}

#[test]
fn a_frame_decodes_when_its_last_byte_arrives_and_leaves_the_next_one_alone() {
    for Recorded { place, bytes, .. } in recorded().into_iter().step_by(7) {
        let mut received = BytesMut::new();
        for (at, byte) in bytes.iter().enumerate() {
            assert_eq!(frame::decode(&mut received, MAX_FRAME), Ok(None), "{place} {at}");
            received.extend_from_slice(&[*byte]);
        }
        received.extend_from_slice(b"next");
        assert!(frame::decode(&mut received, MAX_FRAME).unwrap().is_some(), "{place}");
        assert_eq!(&received[..], b"next");
    }
}

#[test]
fn values_that_are_numbers_and_booleans_are_read_as_text_and_unknown_keys_passed_over() {
    let command = json_frame(
        r#"{"code":310,"x":{"y":[1,{"z":null}]},"extFields":{"d":4,"k":false,"f":1.5,"n":null,"a":"1","a":"2"},
           "language":"KLINGON","version":121,"opaque":-1,"flag":0,"remark":null}"#,
        b"",
    );
    let command = decode(&command).unwrap().unwrap();
    let fields: Vec<_> = command.fields.iter().collect();
    assert_eq!(fields, [("d", "4"), ("k", "false"), ("f", "1.5"), ("a", "2")]);
    assert_eq!((command.opaque, command.language, command.remark), (-1, Language::Other, None));
}

fn raw_frame(kind: u8, stated_header: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(payload.len() + 4).unwrap().to_be_bytes().to_vec();
    bytes.extend_from_slice(&(u32::from(kind) << 24 | stated_header).to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

fn json_frame(header: &str, body: &[u8]) -> Vec<u8> {
    raw_frame(0, u32::try_from(header.len()).unwrap(), &[header.as_bytes(), body].concat())
}

fn binary_header(remark_len: i32, fields_len: i32, rest: &[u8]) -> Vec<u8> {
    let mut header = vec![0, 10, 0, 2, 1];
    for number in [7_i32, 0, remark_len, fields_len] {
        header.extend_from_slice(&number.to_be_bytes());
    }
    header.extend_from_slice(rest);
    raw_frame(1, u32::try_from(header.len()).unwrap(), &header)
}

#[test]
fn frames_that_lie_about_lengths_are_refused_before_their_bytes_arrive() {
    let refused = |bytes: &[u8]| decode(bytes).unwrap_err();
    assert!(matches!(refused(&[0xff; 4]), FrameError::TooLong { .. }), "a negative length");
    assert!(matches!(refused(&[0x01, 0, 0, 0]), FrameError::TooLong { .. }), "16 MiB and the length itself");
    assert_eq!(decode(&[0x00, 0xff, 0xff, 0xfc]), Ok(None), "just 16 MiB");
    for length in 0..4 {
        assert_eq!(refused(&[0, 0, 0, length]), FrameError::TooShort(length.into()));
    }
    let too_long = refused(&[0, 0, 0, 20, 0, 0, 0, 17]);
    assert_eq!(too_long, FrameError::HeaderTooLong { header: 17, frame: 16 });
    assert_eq!(refused(&[0, 0, 0, 20, 2, 0, 0, 16]), FrameError::Encoding(2));
}

#[test]
fn headers_that_do_not_read_are_refused() {
    let deep = |key: &str| format!("{{\"{key}\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(decode(&json_frame(&deep("unknown"), b"")).unwrap().is_some(), "passed over without recursion");
    let fields = |count: usize| {
        let fields: Vec<_> = (0..count).map(|n| format!("\"f{n}\":{n}")).collect();
        format!("{{\"code\":1,\"extFields\":{{{}}}}}", fields.join(","))
    };
    assert!(decode(&json_frame(&fields(MAX_FIELDS), b"")).unwrap().is_some());
    let bad_json = [
        deep("extFields"),
        deep("code"),
        deep("remark"),
        fields(MAX_FIELDS + 1),
        String::new(),
        "[]".into(),
        "{\"code\":1}x".into(),
        "{\"code\":4294967296}".into(),
        "{\"code\":\"ten\"}".into(),
        "{\"extFields\":{\"a\":{}}}".into(),
        "{\"extFields\":[]}".into(),
    ];
    for header in bad_json {
        let error = decode(&json_frame(&header, b"")).unwrap_err();
        assert!(matches!(error, FrameError::Header(_)), "{:.60}", header);
    }
    let one_field = [&[0, 1, b'a', 0, 0, 0, 1, b'b'][..]].concat();
    assert!(decode(&binary_header(0, 8, &one_field)).unwrap().is_some());
    let bad_binary = [
        binary_header(-1, 0, b""),
        binary_header(0, -1, b""),
        binary_header(i32::MAX, 0, b""),
        binary_header(0, i32::MAX, b""),
        binary_header(0, 7, &one_field),
        binary_header(0, 8, &[0xff, 0xff, b'a', 0, 0, 0, 1, b'b']),
        binary_header(0, 8, &[0, 1, b'a', 0xff, 0, 0, 0, b'b']),
        binary_header(0, 8, &[0, 1, 0xff, 0, 0, 0, 1, b'b']),
        raw_frame(1, 3, b"abc"),
    ];
    for bytes in bad_binary {
        assert!(matches!(decode(&bytes), Err(FrameError::Header(_))), "{bytes:?}");
    }
    let many: Vec<u8> = (0..=MAX_FIELDS).flat_map(|_| one_field.clone()).collect();
    assert!(decode(&binary_header(0, i32::try_from(many.len()).unwrap(), &many)).is_err());
}

#[test]
fn a_binary_header_refuses_a_code_that_it_cannot_hold() {
    let mut command = Command::request(200_050);
    command.encoding = Encoding::RocketMq;
    assert!(matches!(frame::encode(command), Err(FrameError::Header(_))));
}

#[test]
fn a_long_body_is_sent_as_the_pieces_it_came_in() {
    let piece = Bytes::from(vec![7; 4096]);
    let command = Command::request(1).with_body([piece.clone(), piece.clone()].into_iter().collect::<Body>());
    let (pieces, len) = frame::encode(command.clone()).unwrap();
    assert_eq!(pieces.len(), 3);
    assert!(pieces[1..].iter().all(|sent| sent.as_ptr() == piece.as_ptr()), "not copied");
    let bytes = pieces.concat();
    assert_eq!(bytes.len(), len);
    assert_eq!(decode(&bytes).unwrap().unwrap(), command);
}

fn command() -> impl Strategy<Value = Command> {
    let header = (any::<i16>(), any::<i32>(), any::<i32>(), 0_u8..14, any::<i16>(), any::<bool>());
    let text = (proptest::option::of(".{1,40}"), vec((".{0,12}", ".{0,60}"), 0..20));
    (header, text, vec(any::<u8>(), 0..3000)).prop_map(|(header, (remark, fields), body)| {
        let (code, flag, opaque, language, version, json) = header;
        let mut command = Command::request(code.into()).with_body(body);
        (command.flag, command.opaque, command.version) = (flag, opaque, version.into());
        command.language = Language::from_number(language);
        command.encoding = if json { Encoding::Json } else { Encoding::RocketMq };
        command.remark = remark;
        fields.iter().for_each(|(name, value)| command.fields.set(name, value));
        command
    })
}

proptest! {
    #[test]
    fn any_command_comes_back_from_its_frame(command in command()) {
        prop_assert_eq!(decode(&encode(command.clone())).unwrap().unwrap(), command);
    }

    #[test]
    fn commands_come_back_in_order_however_the_bytes_are_cut(
        commands in vec(command(), 1..5),
        cuts in vec(1_usize..700, 1..40),
    ) {
        let bytes: Vec<u8> = commands.iter().cloned().flat_map(encode).collect();
        let mut received = BytesMut::new();
        let mut decoded = Vec::new();
        let mut rest = &bytes[..];
        for cut in cuts.iter().cycle() {
            let (now, later) = rest.split_at((*cut).min(rest.len()));
            received.extend_from_slice(now);
            rest = later;
            while let Some(command) = frame::decode(&mut received, MAX_FRAME).unwrap() {
                decoded.push(command);
            }
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(decoded, commands);
        prop_assert!(received.is_empty());
    }

    #[test]
    fn any_bytes_are_a_frame_or_an_error_and_never_a_panic(
        kind in 0_u8..3,
        header in 0_u32..80,
        payload in vec(any::<u8>(), 0..200),
        cut in any::<prop::sample::Index>(),
    ) {
        let bytes = raw_frame(kind, header, &payload);
        let _ = decode(&bytes);
        let _ = decode(&bytes[..cut.index(bytes.len() + 1)]);
        let _ = decode(&payload);
    }

    #[test]
    fn a_damaged_frame_is_a_frame_or_an_error_and_never_a_panic(
        command in command(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut bytes = encode(command);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = decode(&bytes);
    }
}
